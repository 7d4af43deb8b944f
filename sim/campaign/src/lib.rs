//! Many scenarios by index range, merged in index order: what comes out does not depend on the number of jobs.
//!
//! * [`each`]: runs a function over an index range with worker threads; results in index order.
//! * [`matrix`]: all cells with all their routes, [`Cell`] by cell.
//! * [`plausible`]: labs drawn from [`Unknowns`], and in how many of them the report's [`findings`] hold.
//! * [`cases`]: migrations that were told of, and in how many the prediction holds.
//! * [`wilson_ppm`]: 95 % interval of a share, in integers.

mod cases;
mod findings;
mod matrix;
mod plausible;
mod runs;
mod statistics;
mod unknowns;
mod work;

pub use cases::{
    Answer as CaseAnswer, Case, CaseError, CaseResult, Confidence, Half, HalfResult, Observed,
    Prediction, Ratio, Scores, cases, committed_cases, committed_texts, scores,
};
pub use findings::{Finding, findings};
pub use matrix::{Cause, Cell, Digest, MatrixPlan, RouteResult, matrix, scenarios};
pub use plausible::{CellShare, FindingShare, Plausible, PlausiblePlan, Share, View, plausible};
pub use statistics::wilson_ppm;
pub use unknowns::{Answer, DrawnLab, Effect, Mechanism, QuirkRow, Unknown, Unknowns};
pub use work::each;
