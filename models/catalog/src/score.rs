//! Scores.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a check, a step, a run or a cell counts. The aggregation rule is the minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Score {
    /// Missing, or beyond the bounds of the policy.
    Failure,
    /// Changed, within the bounds of the policy.
    Warning,
    /// As before.
    Success,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failure => "FAILURE",
            Self::Warning => "WARNING",
            Self::Success => "SUCCESS",
        })
    }
}
