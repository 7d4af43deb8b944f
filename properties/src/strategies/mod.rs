//! Arbitrary checks and policies, and generated scenarios. Disk images and damages to them are in [`images`].

pub mod images;

use drylab_catalog::{Score, Witness};
use drylab_pipeline::{
    Check, Found, Level, Library, Measure, Policy, Relaxation, Relaxed, Rule, vocabulary,
};
use drylab_scenario::{Scenario, Step, generate};
use proptest::prelude::*;
use std::ops::Range;

/// Ids that arbitrary checks and policies draw from; few, so that they meet.
pub const IDS: [&str; 8] = [
    "source.sanity",
    "target.memory",
    "import.consistency",
    "guest.boots",
    "guest.cpu-speed",
    "guest.mac",
    "guest.ip-address",
    "machine.pause-resume",
];

/// Names that arbitrary policies relax by.
pub const RELAXATIONS: [&str; 3] = ["one", "two", "three"];

/// The scenarios of a range of generator seeds.
pub fn generated(library: &Library, seeds: Range<u64>) -> impl Iterator<Item = Scenario> {
    let words = vocabulary(&library.routes, Library::guests());
    seeds.map(move |seed| generate(seed, &words))
}

/// Any of the three scores.
pub fn score() -> impl Strategy<Value = Score> {
    prop_oneof![
        Just(Score::Failure),
        Just(Score::Warning),
        Just(Score::Success)
    ]
}

/// A score, or a check that could not be assessed.
pub fn assessed() -> impl Strategy<Value = Option<Score>> {
    proptest::option::weighted(0.9, score())
}

/// What a check measured, around the bounds that [`policy`] draws.
pub fn measure() -> impl Strategy<Value = Measure> {
    prop_oneof![
        Just(Measure::Missing),
        Just(Measure::Changed),
        Just(Measure::Same),
        (0u64..40).prop_map(Measure::Differs),
        any::<u64>().prop_map(Measure::Differs),
    ]
}

/// A finding before any policy.
pub fn found() -> impl Strategy<Value = Found> {
    let measured = prop_oneof![
        9 => measure().prop_map(Ok),
        1 => Just(Err("a fact is not known".to_owned())),
    ];
    let parts = (
        proptest::sample::select(IDS.as_slice()),
        proptest::sample::select(Step::ALL.as_slice()),
        measured,
    );
    parts.prop_map(|(id, step, measure)| Found {
        id,
        step,
        before: String::new(),
        after: String::new(),
        measure,
        witness: vec![Witness::lab("strategy", "drawn")],
    })
}

/// A scored check, its score drawn, up to those that could not be assessed.
pub fn check() -> impl Strategy<Value = Check> {
    (found(), assessed()).prop_map(|(found, score)| Check {
        found,
        level: Level::Guest,
        score,
    })
}

/// A list of scored checks, as long as those of a large run.
pub fn checks() -> impl Strategy<Value = Vec<Check>> {
    proptest::collection::vec(check(), 0..200)
}

/// A policy that knows all of [`IDS`], with arbitrary bounds and some relaxations.
pub fn policy() -> impl Strategy<Value = Policy> {
    let rule = (0u64..20, 0u64..40, score(), score()).prop_map(
        |(success_ppm, warning_ppm, changed, missing)| Rule {
            level: Level::Guest,
            success_ppm,
            warning_ppm,
            changed,
            missing,
            reading: String::new(),
        },
    );
    let relaxation = proptest::sample::subsequence(IDS.to_vec(), 0..=IDS.len());
    let days = proptest::sample::select(vec!["2012-12-31", "2013-01-15", "2013-01-16"]);
    let parts = (
        proptest::collection::vec(rule, IDS.len()),
        proptest::collection::vec((relaxation, days), RELAXATIONS.len()),
    );
    parts.prop_map(|(rules, relaxations)| Policy {
        rules: IDS.map(str::to_owned).into_iter().zip(rules).collect(),
        relaxations: RELAXATIONS
            .into_iter()
            .zip(relaxations)
            .map(|(name, (checks, expires))| {
                let relaxation = Relaxation {
                    checks: checks.into_iter().map(str::to_owned).collect(),
                    reason: String::new(),
                    expires: expires.to_owned(),
                };
                (name.to_owned(), relaxation)
            })
            .collect(),
    })
}

/// Applies a policy to findings on a day between those that relaxations expire on.
#[must_use]
pub fn scored(found: &[Found], policy: &Policy, relax: &[String]) -> Vec<Check> {
    let relaxed = Relaxed {
        names: relax,
        today: "2013-01-15",
    };
    found
        .iter()
        .map(|found| found.clone().scored(policy, &relaxed))
        .collect()
}
