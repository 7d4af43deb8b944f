//! Migrations that somebody made and told of, run as scenarios written from the condition that was told.
//!
//! A case file says where it was told, what was observed (F, W or S), under which condition, and which golden guest and
//! products stand nearest to it; each of its halves holds a scenario, or the missing part by its name. What is compared:
//! whether it failed, the cause where the thread names one, and whether both halves of a pair come out right. A case
//! that cannot be assessed counts as such, never as right.

mod file;
mod score;

pub use file::{Case, CaseError, Confidence, Half, Observed, committed_cases, committed_texts};
pub use score::{Answer, CaseResult, HalfResult, Prediction, Ratio, Scores, cases, scores};
