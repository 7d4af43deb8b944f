//! The case file.

use drylab_pipeline::Overall;
use drylab_scenario::Scenario;
use serde::Deserialize;
use std::fmt;

/// A case: one report of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Version of this form; 1.
    pub format: u64,
    /// Id, as in the list of cases.
    pub id: String,
    /// Threads or documents that tell of it.
    pub links: Vec<String>,
    /// Source, target and tool as told.
    pub route: String,
    /// The guest as told.
    pub guest: String,
    /// How sure the cause is.
    pub confidence: Confidence,
    /// What stands for guest, products and condition here, and why the mechanism that decides is the same.
    #[serde(default)]
    pub stands_for: String,
    /// The missing part, for a case of which nothing can be assessed.
    #[serde(default)]
    pub not_assessed: Option<String>,
    /// The stated condition, and the changed one of a pair.
    #[serde(rename = "half")]
    pub halves: Vec<Half>,
}

/// One condition with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Half {
    /// What was so in the image, the metadata or the target.
    pub condition: String,
    /// What came of it.
    pub observed: Observed,
    /// Ids of quirks or checks that say what the thread says the cause is; any of them. Empty when it names none that
    /// has an id here.
    #[serde(default)]
    pub causes: Vec<String>,
    /// The missing part, for a half that cannot be assessed.
    #[serde(default)]
    pub not_assessed: Option<String>,
    /// The condition as a scenario.
    #[serde(default)]
    pub scenario: Option<Scenario>,
}

/// What was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Observed {
    /// It failed.
    F,
    /// It worked with something changed.
    W,
    /// It worked.
    S,
    /// The thread tells of either.
    #[serde(rename = "F or W")]
    ForW,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F => "F",
            Self::W => "W",
            Self::S => "S",
            Self::ForW => "F or W",
        })
    }
}

impl Observed {
    /// Whether a failure was observed, at least by some.
    #[must_use]
    pub fn has_failure(self) -> bool {
        matches!(self, Self::F | Self::ForW)
    }

    /// Whether a prediction fails exactly when the report does; one of either failure or warning is met by both.
    #[must_use]
    pub fn is_met_by(self, predicted: Overall) -> bool {
        match self {
            Self::F => predicted == Overall::Failure,
            Self::W | Self::S => predicted != Overall::Failure,
            Self::ForW => matches!(predicted, Overall::Failure | Overall::Warning),
        }
    }
}

/// How sure the cause of a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Stated by a maintainer, or proven by a fix.
    A,
    /// Stated by the reporter.
    B,
    /// Inferred by who made the list.
    C,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        })
    }
}

/// Why a case file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseError(String);

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaseError {}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// [`CaseError`] with the parser's place, or with the half that has neither a scenario nor a missing part, or both.
    pub fn from_toml(text: &str) -> Result<Self, CaseError> {
        let case: Self = toml::from_str(text).map_err(|error| CaseError(error.to_string()))?;
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<(), CaseError> {
        let wrong = |what: String| Err(CaseError(format!("case {}: {what}", self.id)));
        if self.format != 1 {
            return wrong(format!("format {} is not known, 1 is", self.format));
        }
        if self.id.is_empty() || self.links.is_empty() {
            return wrong("an id and at least one link are needed".to_owned());
        }
        if !(1..=2).contains(&self.halves.len()) {
            let count = self.halves.len();
            return wrong(format!("{count} halves, 1 or 2 are allowed"));
        }
        for (number, half) in (1..).zip(&self.halves) {
            let missing = self.not_assessed.is_some() || half.not_assessed.is_some();
            match &half.scenario {
                None if !missing => {
                    return wrong(format!("half {number} has no scenario and no not_assessed"));
                }
                Some(_) if missing => {
                    return wrong(format!("half {number} has a scenario and a not_assessed"));
                }
                Some(scenario) if scenario.format != 1 => {
                    let found = scenario.format;
                    return wrong(format!(
                        "half {number}: scenario format {found} is not known, 1 is"
                    ));
                }
                Some(scenario) => {
                    if let Err(error) = scenario.check() {
                        return wrong(format!("half {number}: {error}"));
                    }
                }
                None => {}
            }
        }
        let is_assessed = self.halves.iter().any(|half| half.scenario.is_some());
        if is_assessed && self.stands_for.is_empty() {
            return wrong("stands_for must say what stands for what was told".to_owned());
        }
        Ok(())
    }

    /// Whether the opposite outcome was told under a changed condition.
    #[must_use]
    pub fn is_pair(&self) -> bool {
        self.halves.len() == 2
    }
}

macro_rules! committed {
    ($($id:literal),+ $(,)?) => {
        &[$((
            concat!($id, ".toml"),
            include_str!(concat!("../../../../corpora/scenarios/cases/", $id, ".toml")),
        )),+]
    };
}

/// Registration of case files: one name each.
static COMMITTED: &[(&str, &str)] = committed![
    "o-01", "o-02", "o-03", "o-04", "o-05", "o-06", "o-07", "o-08", "o-09", "o-10", "o-11", "o-12",
    "o-13", "o-14", "o-15", "o-16", "o-17", "o-18", "o-19", "o-20", "o-21", "o-22", "o-23", "o-24",
    "o-25", "o-26", "o-27",
];

/// The committed files by their names.
#[must_use]
pub fn committed_texts() -> &'static [(&'static str, &'static str)] {
    COMMITTED
}

/// The committed cases, in the order of their ids.
///
/// # Panics
/// When a file that is part of the program does not parse.
#[must_use]
pub fn committed_cases() -> Vec<Case> {
    let read = |(name, text): &(&str, &str)| {
        Case::from_toml(text)
            .unwrap_or_else(|error| panic!("{name} is part of the program: {error}"))
    };
    COMMITTED.iter().map(read).collect()
}
