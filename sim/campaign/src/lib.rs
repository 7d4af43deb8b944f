//! Many scenarios by index range, merged in index order: what comes out does not depend on the number of jobs.
//!
//! * [`each`]: runs a function over an index range with worker threads; results in index order.
//! * [`matrix`]: all cells with all their routes, [`Cell`] by cell.
//! * [`wilson_ppm`]: 95 % interval of a share, in integers.

mod matrix;
mod statistics;
mod work;

pub use matrix::{Cause, Cell, Digest, MatrixPlan, RouteResult, matrix, scenarios};
pub use statistics::wilson_ppm;
pub use work::each;
