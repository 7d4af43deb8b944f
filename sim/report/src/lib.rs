//! Text and JSON from the values that runs and campaigns return. Prints nothing itself.
//!
//! * [`matrix_text`], [`matrix_json`], [`matrix_markdown`]: the interoperability matrix.
//! * [`plausible_text`], [`plausible_json`]: shares of plausible labs.
//! * [`cases_text`], [`cases_json`]: migrations that were told of, predicted and observed.
//! * [`run_text`], [`run_json`], [`timeline`]: one run.
//! * [`check_text`], [`check_json`]: predictions for a real disk.
//! * [`inspect_text`], [`inspect_json`]: what a real disk holds.
//! * [`Paint`]: colours or none.

mod cases;
mod check;
mod inspect;
mod json;
mod markdown;
mod matrix;
mod paint;
mod plausible;
mod run;

pub use cases::{cases_json, cases_text};
pub use check::{check_json, check_text};
pub use inspect::{Container, Fact, Noticed, containers_text, facts, inspect_json, inspect_text};
pub use json::{matrix_json, run_json};
pub use markdown::matrix_markdown;
pub use matrix::matrix_text;
pub use paint::Paint;
pub use plausible::{plausible_json, plausible_text};
pub use run::{check_line, run_text, timeline};

pub(crate) use json::print;

/// Text from an input with its control characters escaped, line ends apart: a file name or a line of a guest's
/// configuration must not steer the terminal it is shown on.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        // Marks that turn the writing direction hide what stands there as well as control characters do.
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() && letter != '\n') || turns {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// `1234567` as `123.4 %`, from parts per million.
#[must_use]
pub fn percent(ppm: u64) -> String {
    format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn nothing_that_steers_a_terminal_is_left_in_a_text() {
        assert_eq!(
            harmless("\u{1b}[2J\r\u{9b}x\u{202e}\u{7f}é\n"),
            "\\u{1b}[2J\\r\\u{9b}x\\u{202e}\\u{7f}é\n"
        );
    }
}
