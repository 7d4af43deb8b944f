//! What a checker says: rules, and where a file breaks them.

use drylab_block::Severity;
use std::collections::BTreeMap;

/// How a [`Rule`] that is broken is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// It is not: what is lost stands nowhere in the file, or a person must choose.
    No,
    /// From what the file says elsewhere; the guest's bytes stay what they are.
    Lossless,
    /// By giving up what cannot be read anyway, or by taking one of two claims.
    Lossy,
}

/// One thing that must hold in a format.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable code such as `VMDK-GRAIN-OVERLAP`: the format's name, the structure, what is wrong with it.
    pub code: &'static str,
    /// How bad it is for who relies on the bytes.
    pub severity: Severity,
    /// Document and section that ask for it.
    pub clause: &'static str,
    /// What comes of it for the guest, or for programs that open the file.
    pub effect: &'static str,
    /// How it is mended.
    pub repair: Repair,
}

/// A place that breaks a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What must hold.
    pub rule: &'static Rule,
    /// The file: empty for the one that was opened, else the name by which a [`Resolver`](drylab_block::Resolver) knows
    /// it.
    pub file: String,
    /// First byte of the place in that file.
    pub offset: u64,
    /// Bytes of the place.
    pub length: u64,
    /// The structure: `grain table 3, entry 17`.
    pub path: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Finding {
    /// One sentence with the place, the value and what it should be.
    #[must_use]
    pub fn message(&self) -> String {
        let Self {
            path,
            expected,
            found,
            ..
        } = self;
        format!(
            "{path} is {found}, expected {expected}: {}",
            self.rule.effect
        )
    }

    /// As readers of other things than images say it.
    #[must_use]
    pub fn brief(&self) -> drylab_block::Finding {
        drylab_block::Finding {
            code: self.rule.code,
            severity: self.rule.severity,
            offset: self.offset,
            message: self.message(),
        }
    }
}

/// Places of one rule that are listed one by one; of more only the number is kept.
const LISTED: u64 = 64;

/// A list of findings that does not grow with the damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
}

impl Findings {
    /// Adds a place; past the first 64 of its rule it is only counted.
    pub fn push(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.rule.code).or_insert(0);
        *count = count.saturating_add(1);
        if *count <= LISTED {
            self.list.push(finding);
        }
    }

    /// Whether no more places of a rule are listed; then one more is counted. Saves putting its words together.
    pub(crate) fn only_counts(&mut self, rule: &'static Rule) -> bool {
        let count = self.counts.get_mut(rule.code);
        let full = count.filter(|count| **count >= LISTED);
        let is_full = full.is_some();
        if let Some(count) = full {
            *count = count.saturating_add(1);
        }
        is_full
    }

    /// Adds a place of the opened file.
    pub fn add(
        &mut self,
        rule: &'static Rule,
        (offset, length): (u64, u64),
        path: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) {
        self.push(Finding {
            rule,
            file: String::new(),
            offset,
            length,
            path: path.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        });
    }

    /// The places that are listed, in the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many places break a rule, by its code; those that are not listed are counted, too.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The worst of all.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.list.iter().map(|finding| finding.rule.severity).max()
    }

    /// Adds all places of another list, seen from a file that names the other one `file`.
    pub fn extend(&mut self, file: &str, others: &Self) {
        for finding in &others.list {
            let mut finding = finding.clone();
            if finding.file.is_empty() {
                file.clone_into(&mut finding.file);
            }
            self.push(finding);
        }
        for (code, count) in &others.counts {
            let beyond = count.saturating_sub(LISTED);
            let known = self.counts.entry(code).or_insert(0);
            *known = known.saturating_add(beyond);
        }
    }
}

/// Makes the rules of a format: a static for each, and all of them in `ALL`.
macro_rules! rules {
    ($($name:ident = $code:literal, $severity:ident, $repair:ident, $clause:expr, $effect:literal;)+) => {
        $(
            pub(crate) static $name: $crate::finding::Rule = $crate::finding::Rule {
                code: $code,
                severity: drylab_block::Severity::$severity,
                clause: $clause,
                effect: $effect,
                repair: $crate::finding::Repair::$repair,
            };
        )+
        /// All rules of the format.
        pub(crate) static ALL: &[&$crate::finding::Rule] = &[$(&$name),+];
    };
}
pub(crate) use rules;
