//! Text and JSON from the values that runs and campaigns return. Prints nothing itself.
//!
//! * [`matrix_text`], [`matrix_json`]: the interoperability matrix.
//! * [`run_text`], [`run_json`], [`timeline`]: one run.
//! * [`Paint`]: colours or none.

mod json;
mod matrix;
mod paint;
mod run;

pub use json::{matrix_json, run_json};
pub use matrix::matrix_text;
pub use paint::Paint;
pub use run::{check_line, run_text, timeline};

/// `1234567` as `123.4 %`, from parts per million.
#[must_use]
pub fn percent(ppm: u64) -> String {
    format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000)
}
