//! Errors of the readers of this crate.

use std::fmt;

/// Why bytes or a text are not what they claim to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Valid as far as we can tell, but not known here.
    Unsupported(String),
    /// Contradicts its own specification.
    Corrupt(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "unsupported: {what}"),
            Self::Corrupt(what) => write!(f, "corrupt: {what}"),
        }
    }
}

impl std::error::Error for ParseError {}
