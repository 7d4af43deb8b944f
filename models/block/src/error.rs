//! Errors of readers of bytes, and findings of checkers.

use std::fmt;

/// Result of reading or writing bytes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be read as what they claim to be.
///
/// The three kinds say whose fault it is: the source's (`Io`), ours (`Unsupported`), the input's (`Corrupt`).
/// Messages are lowercase fragments that name the place, the value and the bound.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The source failed to deliver bytes it has, or was asked for bytes it has not.
    #[error("{0}")]
    Io(String),
    /// The input is valid as far as we can tell, and uses something this reader does not know.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The input contradicts its own specification.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

impl Error {
    /// The source failed.
    pub fn io(what: impl fmt::Display) -> Self {
        Self::Io(what.to_string())
    }

    /// Valid, but not known here.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::Unsupported(what.to_string())
    }

    /// Broken input.
    pub fn corrupt(what: impl fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    /// The same error with the place in front: `place: message`.
    #[must_use]
    pub fn within(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Io(what) => Self::Io(format!("{place}: {what}")),
            Self::Unsupported(what) => Self::Unsupported(format!("{place}: {what}")),
            Self::Corrupt(what) => Self::Corrupt(format!("{place}: {what}")),
        }
    }
}

/// How bad a [`Finding`] is for who relies on the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Data is right, but some programs refuse or misread it.
    Warning,
    /// Data is lost, aliased or unreadable.
    Error,
}

/// Something a reader noticed and could go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable code such as `MBR-PARTITION-BEYOND-END`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Byte offset in the file or disk it was found in.
    pub offset: u64,
    /// One sentence with the value and the bound.
    pub message: String,
}
