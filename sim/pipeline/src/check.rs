//! Checks, and how their scores add up.

use crate::policy::{Level, Measure, Policy, Relaxed};
use drylab_catalog::{Mark, Place, Score, Witness, quirk};
use drylab_scenario::Step;
use std::fmt;

/// What a check found, before any policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Stable id.
    pub id: &'static str,
    /// The step it belongs to.
    pub step: Step,
    /// The value before, in words; empty where there is none.
    pub before: String,
    /// The value after.
    pub after: String,
    /// What was measured; `Err` with the reason when it cannot be assessed.
    pub measure: Result<Measure, String>,
    /// Why: from the event that started it to what was seen. Never empty.
    pub witness: Vec<Witness>,
}

/// A scored check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was found.
    pub found: Found,
    /// Where it looks.
    pub level: Level,
    /// Its score; `None` when it cannot be assessed.
    pub score: Option<Score>,
}

/// The score of a run or a cell: FAILURE < WARNING < UNKNOWN < SUCCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overall {
    /// Some check failed, or none was executed.
    Failure,
    /// Some check warned, none failed.
    Warning,
    /// Otherwise clean, but something could not be assessed.
    Unknown,
    /// All checks succeeded.
    Success,
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failure => "FAILURE",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Success => "SUCCESS",
        })
    }
}

impl From<Score> for Overall {
    fn from(score: Score) -> Self {
        match score {
            Score::Failure => Self::Failure,
            Score::Warning => Self::Warning,
            Score::Success => Self::Success,
        }
    }
}

impl Overall {
    /// How good an outcome is when routes are compared: what could not be assessed never beats a known WARNING.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Failure => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Success => 3,
        }
    }
}

/// The aggregation rule over a group: the minimum; a group without a check is SUCCESS, so that it adds nothing.
#[must_use]
pub fn aggregate(scores: impl IntoIterator<Item = Option<Score>>) -> Overall {
    scores
        .into_iter()
        .map(|score| score.map_or(Overall::Unknown, Overall::from))
        .min()
        .unwrap_or(Overall::Success)
}

/// The score of a run: the minimum over its checks; a run without any is FAILURE, nothing was checked. One of whose
/// checks none could be assessed is UNKNOWN: were it FAILURE, a check that turns out a WARNING would raise it.
#[must_use]
pub fn overall(checks: &[Check]) -> Overall {
    if checks.is_empty() {
        return Overall::Failure;
    }
    aggregate(checks.iter().map(|check| check.score))
}

impl Found {
    /// Applies the policy.
    #[must_use]
    pub fn scored(self, policy: &Policy, relaxed: &Relaxed<'_>) -> Check {
        let level = policy
            .rules
            .get(self.id)
            .map_or(Level::Hypervisor, |rule| rule.level);
        let score = self
            .measure
            .as_ref()
            .ok()
            .and_then(|measure| policy.score(self.id, *measure, relaxed));
        Check {
            found: self,
            level,
            score,
        }
    }
}

impl Check {
    /// Id of its cause: the first quirk on the chain whose row says that it hits this check, else the first quirk, else
    /// the check's own id. A chain also holds rows that say how things work and hit another check; one that says why all
    /// is well is no cause of anything else.
    #[must_use]
    pub fn cause_id(&self) -> String {
        let harm = self.score != Some(Score::Success);
        let quirks = || {
            let links = self.found.witness.iter();
            let ids = links.filter_map(|witness| match &witness.place {
                Place::Quirk(id) => Some(id),
                _ => None,
            });
            ids.filter(|id| !(harm && quirk(id).is_some_and(|row| row.keeps_whole)))
        };
        let hits = |id: &&String| quirk(id).is_some_and(|row| row.hits == self.found.id);
        let cause = quirks().find(hits).or_else(|| quirks().next());
        cause.map_or_else(|| self.found.id.to_owned(), String::clone)
    }

    /// The weakest evidence on its way.
    #[must_use]
    pub fn weakest(&self) -> Mark {
        self.found
            .witness
            .iter()
            .map(|witness| witness.mark)
            .min()
            .unwrap_or(Mark::Belief)
    }
}
