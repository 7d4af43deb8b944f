//! How a converter fails.

use drylab_catalog::Witness;
use std::fmt;

/// Why a converter ended without a result: what it printed, its exit code, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolError {
    /// Exit code; 128 plus the signal's number when a signal ended it, as a shell tells it.
    pub exit: i32,
    /// What it printed.
    pub message: String,
    /// Why.
    pub witness: Vec<Witness>,
}

impl ToolError {
    /// The usual failure: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            exit: 1,
            message: message.into(),
            witness: Vec::new(),
        }
    }

    /// The same with one more reason.
    pub(crate) fn because(mut self, witness: Witness) -> Self {
        self.witness.push(witness);
        self
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (exit {})", self.message, self.exit)
    }
}

impl std::error::Error for ToolError {}

impl From<drylab_block::Error> for ToolError {
    fn from(error: drylab_block::Error) -> Self {
        Self::new(error.to_string())
    }
}
