//! Running cases, and how often the predictions hold.

use super::file::{Case, Half};
use crate::{each, wilson_ppm};
use drylab_catalog::{Place, Score};
use drylab_pipeline::{Check, Found, Overall, RunReport};
use drylab_scenario::{Scenario, Token};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Its score.
    pub overall: Overall,
    /// Cause and check of the first check with that score, in the order they were made; empty for SUCCESS.
    pub cause: Option<(String, &'static str)>,
    /// The check, what it saw, and the link of its chain that names the cause.
    pub seen: String,
    /// Replays it.
    pub token: Token,
}

/// What is said of a half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The scenario was run.
    Predicted(Prediction),
    /// It was not, or came to UNKNOWN: the missing part.
    NotAssessed(String),
}

/// A half with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfResult {
    /// The half.
    pub half: Half,
    /// The answer.
    pub answer: Answer,
}

/// A case with its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// One for each half.
    pub halves: Vec<HalfResult>,
}

impl Prediction {
    fn of(report: &RunReport) -> Self {
        let worst = report.overall;
        let decides = |check: &&Check| check.score.map(Overall::from) == Some(worst);
        let first = report
            .checks
            .iter()
            .filter(|check| check.score != Some(Score::Success))
            .find(decides);
        Self {
            overall: worst,
            cause: first.map(|check| (check.cause_id(), check.found.id)),
            seen: first.map_or_else(String::new, seen),
            token: Token::of(&report.scenario),
        }
    }
}

/// What a check saw, and the link of its chain that names the cause, or the last one.
fn seen(check: &Check) -> String {
    let Found {
        id, after, witness, ..
    } = &check.found;
    let cause = Place::Quirk(check.cause_id());
    let named = witness.iter().find(|link| link.place == cause);
    let why = named.or(witness.last()).map(ToString::to_string);
    format!("{id} {after}: {}", why.unwrap_or_default())
}

impl Answer {
    /// What a run says of a half: UNKNOWN is no answer.
    fn of(report: &RunReport) -> Self {
        if report.overall != Overall::Unknown {
            return Self::Predicted(Prediction::of(report));
        }
        let reasons: Vec<String> = report
            .checks
            .iter()
            .filter_map(|check| check.found.measure.as_ref().err().cloned())
            .collect();
        Self::NotAssessed(reasons.join("; "))
    }
}

impl HalfResult {
    /// The prediction, where there is one.
    #[must_use]
    pub fn predicted(&self) -> Option<&Prediction> {
        match &self.answer {
            Answer::Predicted(prediction) => Some(prediction),
            Answer::NotAssessed(_) => None,
        }
    }

    /// Whether the prediction fails exactly when the report does.
    #[must_use]
    pub fn is_right(&self) -> Option<bool> {
        let overall = self.predicted()?.overall;
        Some(self.half.observed.is_met_by(overall))
    }

    /// Whether the predicted cause of a failure is one that the case names; `None` when no failure is predicted and
    /// observed, or the case names none.
    #[must_use]
    pub fn cause_matches(&self) -> Option<bool> {
        let predicted = self.predicted()?;
        let both_failed = predicted.overall == Overall::Failure && self.half.observed.has_failure();
        if !both_failed || self.half.causes.is_empty() {
            return None;
        }
        let (cause, check) = predicted.cause.as_ref()?;
        let named = |stated: &String| stated == cause || stated == check;
        Some(self.half.causes.iter().any(named))
    }

    /// A failure was observed, and SUCCESS is predicted.
    #[must_use]
    pub fn is_false_success(&self) -> bool {
        let is_success = |predicted: &Prediction| predicted.overall == Overall::Success;
        self.half.observed.has_failure() && self.predicted().is_some_and(is_success)
    }
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ratio {
    /// Hits.
    pub hits: u64,
    /// Of how many.
    pub of: u64,
}

impl Ratio {
    fn count(answers: impl Iterator<Item = bool>) -> Self {
        answers.fold(Self::default(), |sum, hit| Self {
            hits: sum.hits + u64::from(hit),
            of: sum.of + 1,
        })
    }

    /// 95 % interval, in parts per million.
    #[must_use]
    pub fn interval_ppm(self) -> (u64, u64) {
        wilson_ppm(self.hits, self.of)
    }
}

/// How often the predictions hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// Assessed halves whose failing or not failing is predicted.
    pub outcome: Ratio,
    /// Failures predicted and observed whose cause is one that the case names.
    pub cause: Ratio,
    /// Pairs with both halves assessed and right.
    pub pairs: Ratio,
    /// Failures that were predicted as SUCCESS.
    pub false_success: u64,
    /// Cases with at least one half assessed, of all.
    pub cases: Ratio,
    /// Halves assessed, of all.
    pub halves: Ratio,
}

/// Runs cases. `run` must be a pure function of its scenario; its error says why a scenario cannot be run at all.
///
/// # Errors
/// The case, the half and the reason of the first scenario that cannot be run.
pub fn cases(
    cases: &[Case],
    jobs: u32,
    run: impl Fn(&Scenario) -> Result<RunReport, String> + Sync,
) -> Result<Vec<CaseResult>, String> {
    let count = u64::try_from(cases.len()).unwrap_or(u64::MAX);
    let at = |index: u64| &cases[usize::try_from(index).expect("below a usize")];
    let answers = each(count, jobs, |index| one(at(index), &run), |_| {});
    answers.into_iter().collect()
}

fn one(
    case: &Case,
    run: &impl Fn(&Scenario) -> Result<RunReport, String>,
) -> Result<CaseResult, String> {
    let mut halves = Vec::new();
    for (number, half) in (1..).zip(&case.halves) {
        let missing = half.not_assessed.as_ref().or(case.not_assessed.as_ref());
        let answer = match &half.scenario {
            Some(scenario) => {
                let report = run(scenario);
                Answer::of(
                    &report.map_err(|why| format!("case {}, half {number}: {why}", case.id))?,
                )
            }
            None => Answer::NotAssessed(missing.cloned().unwrap_or_default()),
        };
        halves.push(HalfResult {
            half: half.clone(),
            answer,
        });
    }
    Ok(CaseResult {
        case: case.clone(),
        halves,
    })
}

/// Adds up.
#[must_use]
pub fn scores(results: &[CaseResult]) -> Scores {
    let halves = || results.iter().flat_map(|result| &result.halves);
    let pairs = results.iter().filter(|result| result.case.is_pair());
    let both = |result: &CaseResult| -> Option<bool> {
        let right: Option<Vec<bool>> = result.halves.iter().map(HalfResult::is_right).collect();
        Some(right?.into_iter().all(|right| right))
    };
    let assessed = |half: &HalfResult| half.predicted().is_some();
    let false_success = halves().filter(|half| half.is_false_success()).count();
    Scores {
        outcome: Ratio::count(halves().filter_map(HalfResult::is_right)),
        cause: Ratio::count(halves().filter_map(HalfResult::cause_matches)),
        pairs: Ratio::count(pairs.filter_map(both)),
        false_success: u64::try_from(false_success).unwrap_or(u64::MAX),
        cases: Ratio::count(
            results
                .iter()
                .map(|result| result.halves.iter().any(assessed)),
        ),
        halves: Ratio::count(halves().map(assessed)),
    }
}
