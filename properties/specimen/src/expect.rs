//! What must come of a damage, by the rule that it breaks.

/// What a reader that keeps the specification may answer to a damage. Everything that is not named is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The rule that is broken, or that says why none is.
    pub clause: &'static str,
    /// Opening may be refused.
    pub refused: bool,
    /// Codes of which one is found if the file is opened.
    pub codes: Vec<&'static str>,
    /// Nothing need be found.
    pub quiet: bool,
    /// Nothing need be found if the disk reads as before.
    pub or_same: bool,
    /// Anything may be found: the damage changes other structures, and those may be wrong in every way.
    pub any: bool,
    /// The disk reads as before, if the file is opened. Else it may read otherwise, or not at all.
    pub same: bool,
}

impl Expected {
    /// No file of this format, or not one that can be read.
    pub(crate) fn refused(clause: &'static str) -> Self {
        Self {
            clause,
            refused: true,
            codes: Vec::new(),
            quiet: false,
            or_same: false,
            any: false,
            same: false,
        }
    }

    /// The file is opened, one of these is found, and the disk may be another.
    pub(crate) fn found(clause: &'static str, codes: &[&'static str]) -> Self {
        Self {
            clause,
            refused: false,
            codes: codes.to_vec(),
            quiet: false,
            or_same: false,
            any: false,
            same: false,
        }
    }

    /// No rule is broken and the disk is as before.
    pub(crate) fn harmless(clause: &'static str) -> Self {
        Self {
            clause,
            refused: false,
            codes: Vec::new(),
            quiet: true,
            or_same: false,
            any: false,
            same: true,
        }
    }

    /// No rule is broken that could be told, and the disk is another.
    pub(crate) fn other(clause: &'static str) -> Self {
        Self {
            same: false,
            ..Self::harmless(clause)
        }
    }

    /// Whatever stands there now is taken for structure: every answer is right that does not break the reader.
    pub(crate) fn anything(clause: &'static str) -> Self {
        Self {
            refused: true,
            any: true,
            ..Self::other(clause)
        }
    }

    /// The same, and the disk reads as before.
    pub(crate) fn same(self) -> Self {
        Self { same: true, ..self }
    }

    /// The same, or refused.
    pub(crate) fn or_refused(self) -> Self {
        Self {
            refused: true,
            ..self
        }
    }

    /// The same, or nothing found.
    pub(crate) fn or_quiet(self) -> Self {
        Self {
            quiet: true,
            ..self
        }
    }

    /// The same, or nothing found if the disk reads as before.
    pub(crate) fn or_same(self) -> Self {
        Self {
            or_same: true,
            ..self
        }
    }

    /// The same, with more codes that will do.
    pub(crate) fn or(mut self, codes: &[&'static str]) -> Self {
        self.codes.extend_from_slice(codes);
        self
    }

    /// The answers that are right, in words: `refused`, codes, `anything`, `nothing`.
    #[must_use]
    pub fn answers(&self) -> Vec<&'static str> {
        let refused = self.refused.then_some("refused");
        let quiet = (self.quiet || self.or_same).then_some("nothing");
        let codes = self.codes.iter().copied();
        let any = self.any.then_some("anything");
        refused
            .into_iter()
            .chain(codes)
            .chain(any)
            .chain(quiet)
            .collect()
    }
}
