//! Colours.

use drylab_pipeline::Overall;

/// Whether text may carry ANSI colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Plain text.
    Plain,
    /// ANSI escape sequences.
    Ansi,
}

impl Paint {
    /// A score, padded to a column before it is coloured.
    #[must_use]
    pub fn score(self, overall: Overall, width: usize) -> String {
        let text = format!("{overall:<width$}");
        let colour = match overall {
            Overall::Success => "32",
            Overall::Warning => "33",
            Overall::Unknown => "35",
            Overall::Failure => "31",
        };
        match self {
            Self::Plain => text,
            Self::Ansi => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        }
    }
}
