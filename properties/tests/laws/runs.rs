//! Laws over generated scenarios, and a census that shows what they were held against.

use crate::{every_way, library, report, scenario};
use drylab_campaign::each;
use drylab_catalog::Score;
use drylab_kernel::{Kind, Trace};
use drylab_pipeline::{Check, Library, Policy, RunReport, run};
use drylab_properties::strategies::generated;
use drylab_properties::{INVARIANTS, RELATIONS};
use drylab_scenario::{Scenario, Step};
use std::collections::BTreeMap;

/// Generator seeds that the laws are held against.
const SEEDS: u64 = 600;
/// Of these, how many are run once more under every relation.
const PAIRED: u64 = 300;

fn scenarios(count: u64) -> Vec<Scenario> {
    generated(library(), 0..count).collect()
}

fn in_order<T: Send>(scenarios: &[Scenario], work: impl Fn(&Scenario) -> T + Sync) -> Vec<T> {
    let count = u64::try_from(scenarios.len()).expect("a list in memory");
    let at = |index: u64| &scenarios[usize::try_from(index).expect("below a usize")];
    each(count, 2, |index| work(at(index)), |_| ())
}

/// What a run was, for counting: its score, and where it failed first.
fn kinds(report: &RunReport) -> Vec<String> {
    let mut kinds = vec![report.overall.to_string()];
    let failed = report
        .checks
        .iter()
        .find(|check| check.score == Some(Score::Failure));
    kinds.extend(failed.map(|check| format!("FAILURE in {}", check.found.step)));
    let event = |kind| report.trace.events().iter().any(|event| event.kind == kind);
    kinds.extend(event(Kind::Fault).then(|| "a fault struck".to_owned()));
    let back = report
        .trace
        .events()
        .iter()
        .any(|event| event.fields.iter().any(|(_, value)| value == "RollBack"));
    kinds.extend(back.then(|| "rolled back".to_owned()));
    kinds.extend((!report.scenario.edits.is_empty()).then(|| "an edited guest".to_owned()));
    kinds
}

/// How often each kind must have been there for the laws to have been held against anything.
const CENSUS: [(&str, u64); 12] = [
    ("SUCCESS", 10),
    ("WARNING", 20),
    ("FAILURE", 100),
    ("FAILURE in source-sanity", 10),
    ("FAILURE in shutdown", 3),
    ("FAILURE in export", 5),
    ("FAILURE in target-resources", 10),
    ("FAILURE in target-consistency", 10),
    ("FAILURE in import", 1),
    ("FAILURE in restart", 30),
    ("a fault struck", 20),
    ("rolled back", 100),
];

#[test]
fn every_invariant_holds_on_generated_scenarios_of_every_kind() {
    let found = in_order(&scenarios(SEEDS), |scenario| {
        let report = report(scenario);
        let missed: Vec<String> = INVARIANTS
            .iter()
            .filter_map(|law| {
                let why = (law.check)(&report).err()?;
                Some(format!(
                    "law {} ({}): {why}\n{}",
                    law.id,
                    law.statement,
                    scenario.to_toml()
                ))
            })
            .collect();
        (kinds(&report), missed)
    });
    let missed: Vec<&String> = found.iter().flat_map(|(_, missed)| missed).collect();
    let shown: Vec<&&String> = missed.iter().take(8).collect();
    assert!(
        missed.is_empty(),
        "{} times a law was missed: {shown:#?}",
        missed.len()
    );
    let mut census: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in found.iter().flat_map(|(kinds, _)| kinds) {
        *census.entry(kind).or_insert(0) += 1;
    }
    println!("of {SEEDS} scenarios: {census:?}");
    for (kind, least) in CENSUS {
        let count = census.get(kind).copied().unwrap_or(0);
        assert!(
            count >= least,
            "only {count} of {SEEDS} were {kind:?}: {census:?}"
        );
    }
}

#[test]
fn every_invariant_holds_for_every_guest_over_every_route() {
    for scenario in every_way() {
        let report = report(&scenario);
        for law in INVARIANTS {
            let kept = (law.check)(&report);
            assert_eq!(
                kept,
                Ok(()),
                "law {}: {} over {}",
                law.id,
                scenario.guest,
                scenario.route
            );
        }
    }
}

#[test]
fn every_relation_holds_between_generated_scenarios_and_changed_ones() {
    let scenarios = scenarios(PAIRED);
    for law in RELATIONS {
        let outcomes = in_order(&scenarios, |scenario| {
            let changed = (law.transform)(scenario)?;
            let (one, two) = (report(scenario), report(&changed));
            let kept = (law.holds)(&one, &two);
            Some((
                kept.map_err(|why| format!("{why}\n{}", scenario.to_toml())),
                one.overall != two.overall,
            ))
        });
        let applied = outcomes.iter().flatten().count();
        let differed = outcomes
            .iter()
            .flatten()
            .filter(|(_, differs)| *differs)
            .count();
        let missed: Vec<&String> = outcomes
            .iter()
            .flatten()
            .filter_map(|(kept, _)| kept.as_ref().err())
            .take(5)
            .collect();
        println!(
            "law {}: {applied} pairs, {differed} with another score",
            law.id
        );
        assert!(
            missed.is_empty(),
            "law {} ({}): {missed:#?}",
            law.id,
            law.statement
        );
        assert!(
            applied >= 20,
            "law {} was held against {applied} pairs only",
            law.id
        );
    }
}

#[test]
fn law_9_no_policy_changes_an_event() {
    let with = |policy: fn(&mut Policy)| {
        let mut library = Library::new();
        policy(&mut library.policy);
        library
    };
    let lenient = with(|policy| {
        for rule in policy.rules.values_mut() {
            (rule.changed, rule.missing, rule.success_ppm) =
                (Score::Success, Score::Success, u64::MAX);
        }
    });
    let severe = with(|policy| {
        for rule in policy.rules.values_mut() {
            (
                rule.changed,
                rule.missing,
                rule.success_ppm,
                rule.warning_ppm,
            ) = (Score::Failure, Score::Failure, 0, 0);
        }
    });
    let mut scores_differ = 0;
    for scenario in scenarios(40) {
        let ours = report(&scenario);
        for library in [&lenient, &severe] {
            let theirs = run(library, &scenario, Trace::new()).expect("the same scenario");
            assert_eq!(
                theirs.trace.hash(),
                ours.trace.hash(),
                "{}",
                scenario.to_toml()
            );
            scores_differ += u32::from(theirs.overall != ours.overall);
        }
    }
    assert!(
        scores_differ > 20,
        "only {scores_differ} scores differ between policies"
    );
}

#[test]
fn law_11_fresh_shelves_give_the_same_hashes_as_shelves_with_memories() {
    let all = scenarios(24);
    for order in [all.clone(), all.iter().rev().cloned().collect()] {
        let fresh = Library::new();
        for scenario in order {
            let (one, two) = (
                report(&scenario),
                run(&fresh, &scenario, Trace::hashing_only()).expect("it ran before"),
            );
            assert_eq!(one.trace.hash(), two.trace.hash(), "{}", scenario.to_toml());
            assert_eq!(one.outcome_hash, two.outcome_hash, "{}", scenario.to_toml());
        }
    }
}

/// The healthy guest on its own product, its address kept: nothing has changed, so nothing may be found.
#[test]
fn law_37_a_move_within_one_product_with_the_address_kept_is_a_success() {
    let native = library()
        .routes
        .iter()
        .filter(|route| route.source == route.target);
    let mut runs = 0;
    for route in native {
        for guest in Library::guests() {
            for seed in 0..20 {
                let mut moved = scenario(guest.as_str(), &route.id);
                moved.run_seed = seed;
                moved.target_vm.mac =
                    Some(library().source_disk(&moved).expect("a golden disk").mac);
                let report = report(&moved);
                // Law 37 asks for a healthy guest: one that its own console can shut down.
                let shutdown = |check: &&Check| check.found.id != "source.shutdown";
                let lowest = report
                    .checks
                    .iter()
                    .filter(shutdown)
                    .map(|check| check.score);
                assert!(
                    lowest
                        .into_iter()
                        .all(|score| score == Some(Score::Success)),
                    "{guest} over {}: {}",
                    route.id,
                    report.signature()
                );
                runs += 1;
            }
        }
    }
    assert!(runs >= 360, "{runs} runs");
}

#[test]
fn law_34_an_import_fits_into_exactly_the_bytes_it_asks_for_and_into_no_byte_less() {
    let mut held = 0;
    for moved in every_way() {
        let space = |report: &RunReport| {
            let check = report
                .checks
                .iter()
                .find(|check| check.found.id == "target.datastore-space")?;
            Some((
                check.score?,
                check.found.before.split(' ').next()?.parse::<u64>().ok()?,
            ))
        };
        // A descriptor whose importer sees no disk needs no room.
        let Some((_, needed)) = space(&report(&moved)).filter(|(_, needed)| *needed > 0) else {
            continue;
        };
        for (free, expected) in [(needed, Score::Success), (needed - 1, Score::Failure)] {
            let mut tight = moved.clone();
            tight.lab.datastore_free = Some(free);
            let tight = report(&tight);
            assert_eq!(
                space(&tight),
                Some((expected, needed)),
                "{} over {}",
                moved.guest,
                moved.route
            );
            let imported = tight.trace.events().iter().any(|event| {
                event
                    .fields
                    .iter()
                    .any(|(_, value)| value == Step::Import.name())
            });
            assert!(
                !imported || expected == Score::Success,
                "an import began after a failed resource check"
            );
            assert!(
                tight
                    .checks
                    .iter()
                    .all(|check| check.found.after != "datastore full")
            );
            held += 1;
        }
        let law = RELATIONS
            .iter()
            .find(|law| law.id == 34)
            .expect("the relation");
        let mut refused = moved.clone();
        refused.lab.datastore_free = Some(needed - 1);
        let forced = (law.transform)(&refused).expect("it names its free bytes");
        assert_eq!(
            (law.holds)(&report(&refused), &report(&forced)),
            Ok(()),
            "{} over {}",
            moved.guest,
            moved.route
        );
    }
    assert!(held >= 20, "{held} runs");
}
