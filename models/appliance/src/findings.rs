//! Collects findings, bounded, with the line in the message.

use drylab_block::{Finding, Severity};

/// Most findings kept for one input; the rest is counted.
const KEPT: usize = 1000;

/// Longest quotation of the input in a message, in characters.
const QUOTED: usize = 80;

/// Findings in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    dropped: u64,
}

impl Findings {
    /// Adds one at a line (0: the input as a whole).
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        at: At,
        message: impl std::fmt::Display,
    ) {
        if self.list.len() >= KEPT {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let message = if at.line == 0 {
            message.to_string()
        } else {
            format!("line {}: {message}", at.line)
        };
        self.list.push(Finding {
            code,
            severity,
            offset: at.offset,
            message,
        });
    }

    pub(crate) fn note(&mut self, code: &'static str, at: At, message: impl std::fmt::Display) {
        self.add(code, Severity::Note, at, message);
    }

    pub(crate) fn warning(&mut self, code: &'static str, at: At, message: impl std::fmt::Display) {
        self.add(code, Severity::Warning, at, message);
    }

    pub(crate) fn error(&mut self, code: &'static str, at: At, message: impl std::fmt::Display) {
        self.add(code, Severity::Error, at, message);
    }

    /// The list, with a last entry that says how many were left out.
    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        if self.dropped > 0 {
            let message = format!("{} further findings are not listed", self.dropped);
            self.list.push(Finding {
                code: "FINDINGS-CUT",
                severity: Severity::Note,
                offset: 0,
                message,
            });
        }
        self.list
    }
}

/// Where in the input: byte offset and line from 1 (0: the input as a whole).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) offset: u64,
    pub(crate) line: u32,
}

/// A quotation of untrusted text that cannot fill the screen: control characters escaped, cut after 80 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text
        .chars()
        .take(QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(QUOTED).is_some() {
        quoted.push('…');
    }
    format!("\"{quoted}\"")
}
