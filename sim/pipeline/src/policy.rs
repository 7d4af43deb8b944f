//! The policy: maps what a check measured to a score. Applied after the run; changes no event.

use drylab_catalog::Score;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a check measured between before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// There is none, or the step did not end well.
    Missing,
    /// A number that differs by so many parts per million of the value before.
    Differs(u64),
    /// There, and another one.
    Changed,
    /// As before.
    Same,
}

/// Where a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// From outside.
    Hypervisor,
    /// Inside the guest.
    Guest,
}

/// Bounds of one check.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it looks.
    pub level: Level,
    /// Up to this difference a number counts as the same, in parts per million.
    #[serde(default)]
    pub success_ppm: u64,
    /// Up to this difference a number counts as changed, in parts per million.
    #[serde(default)]
    pub warning_ppm: u64,
    /// Score of a changed value.
    #[serde(default = "failure")]
    pub changed: Score,
    /// Score of a missing value.
    #[serde(default = "failure")]
    pub missing: Score,
    /// The reading in words.
    pub reading: String,
}

fn failure() -> Score {
    Score::Failure
}

/// A named exception that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relaxation {
    /// Checks whose WARNING counts as SUCCESS.
    pub checks: Vec<String>,
    /// Why.
    pub reason: String,
    /// First day on which it no longer holds, `YYYY-MM-DD`.
    pub expires: String,
}

/// All rules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Rules by check id.
    #[serde(rename = "check")]
    pub rules: BTreeMap<String, Rule>,
    /// Relaxations by name.
    #[serde(rename = "relaxation", default)]
    pub relaxations: BTreeMap<String, Relaxation>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// The parser's message with the place.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Our reading of the report.
    ///
    /// # Panics
    /// When the file that is part of the program does not parse.
    #[must_use]
    pub fn our_reading() -> Self {
        Self::from_toml(include_str!("../policy.toml"))
            .expect("policy.toml is part of the program and parses")
    }

    /// Score of a check; `None` for a check the policy does not know.
    #[must_use]
    pub fn score(&self, check: &str, measure: Measure, relax: &Relaxed<'_>) -> Option<Score> {
        let rule = self.rules.get(check)?;
        let score = match measure {
            Measure::Same => Score::Success,
            Measure::Differs(ppm) if ppm <= rule.success_ppm => Score::Success,
            Measure::Differs(ppm) if ppm <= rule.warning_ppm => Score::Warning,
            Measure::Differs(_) if rule.warning_ppm > 0 => Score::Failure,
            Measure::Differs(_) | Measure::Changed => rule.changed,
            Measure::Missing => rule.missing,
        };
        let relaxed = score == Score::Warning
            && relax
                .names
                .iter()
                .any(|name| self.relaxes(name, check, relax.today));
        Some(if relaxed { Score::Success } else { score })
    }

    fn relaxes(&self, name: &str, check: &str, today: &str) -> bool {
        let Some(relaxation) = self.relaxations.get(name) else {
            return false;
        };
        relaxation.checks.iter().any(|known| known == check) && today < relaxation.expires.as_str()
    }
}

/// Relaxations asked for, and the day that decides whether they still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relaxed<'a> {
    /// Names.
    pub names: &'a [String],
    /// `YYYY-MM-DD`.
    pub today: &'a str,
}

#[cfg(test)]
mod tests {
    use super::{Measure, Policy, Relaxed};
    use drylab_catalog::Score;

    const STRICT: Relaxed<'_> = Relaxed {
        names: &[],
        today: "2013-01-15",
    };

    #[test]
    fn numbers_are_scored_by_their_distance() {
        let policy = Policy::our_reading();
        let speed = |ppm| policy.score("guest.cpu-speed", Measure::Differs(ppm), &STRICT);
        assert_eq!(speed(20_000), Some(Score::Success));
        assert_eq!(speed(20_001), Some(Score::Warning));
        assert_eq!(speed(500_001), Some(Score::Failure));
        assert_eq!(
            policy.score("guest.boots", Measure::Changed, &STRICT),
            Some(Score::Failure)
        );
        assert_eq!(policy.score("no.such-check", Measure::Same, &STRICT), None);
    }

    #[test]
    fn a_relaxation_lifts_a_warning_until_it_expires_and_never_a_failure() {
        let policy = Policy::our_reading();
        let names = ["address-by-name".to_owned()];
        let on = |today, measure| {
            policy.score(
                "guest.ip-address",
                measure,
                &Relaxed {
                    names: &names,
                    today,
                },
            )
        };
        assert_eq!(on("2013-01-15", Measure::Changed), Some(Score::Success));
        assert_eq!(on("2030-01-01", Measure::Changed), Some(Score::Warning));
        assert_eq!(on("2013-01-15", Measure::Missing), Some(Score::Failure));
    }
}
