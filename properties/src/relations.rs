//! Laws over two runs: a scenario's and that of a changed one.

use crate::invariants::{check, rolled_back};
use drylab_catalog::Score;
use drylab_hypervisor::LabFile;
use drylab_pipeline::{Overall, Policy, RunReport};
use drylab_scenario::{Fault, FaultKind, FaultPlace, Scenario, Step};

/// A law between the run of a scenario and that of a changed one. Both use the same named streams.
#[derive(Clone, Copy, Debug)]
pub struct Relation {
    /// Number in the list of laws.
    pub id: u32,
    /// The law in words.
    pub statement: &'static str,
    /// The changed scenario; `None` when the law says nothing of this one.
    pub transform: fn(&Scenario) -> Option<Scenario>,
    /// Whether the two runs, the original's first, keep it; `Err` with what breaks it.
    pub holds: fn(&RunReport, &RunReport) -> Result<(), String>,
}

/// Laws over two runs, by number.
pub const RELATIONS: &[Relation] = &[
    Relation {
        id: 9,
        statement: "policy is a view: asking for every relaxation changes no event",
        transform: relaxed,
        holds: same_trace,
    },
    Relation {
        id: 10,
        statement: "relaxing never lowers",
        transform: relaxed,
        holds: no_worse,
    },
    Relation {
        id: 11,
        statement: "the same scenario gives the same log and the same outcome",
        transform: same,
        holds: same_hashes,
    },
    Relation {
        id: 18,
        statement: "comments of a scenario change no event",
        transform: without_comments,
        holds: same_trace,
    },
    Relation {
        id: 23,
        statement: "every kind of fault is a pure loss: without faults a run is no worse",
        transform: without_faults,
        holds: no_worse,
    },
    Relation {
        id: 25,
        statement: "when a fault makes a run worse, its event stands in a chain or in the log of the worse run",
        transform: without_faults,
        holds: attributed,
    },
    Relation {
        id: 34,
        statement: "the resource check is complete: an import forced into the room that was refused fails",
        transform: forced,
        holds: forced_import_fails,
    },
];

fn relaxed(scenario: &Scenario) -> Option<Scenario> {
    let relax = Policy::our_reading().relaxations.into_keys().collect();
    Some(Scenario {
        relax,
        ..scenario.clone()
    })
}

fn same(scenario: &Scenario) -> Option<Scenario> {
    Some(scenario.clone())
}

fn without_comments(scenario: &Scenario) -> Option<Scenario> {
    let bare = Scenario {
        found_by: None,
        expect: None,
        ..scenario.clone()
    };
    (bare != *scenario).then_some(bare)
}

fn without_faults(scenario: &Scenario) -> Option<Scenario> {
    (!scenario.faults.is_empty()).then(|| Scenario {
        faults: Vec::new(),
        ..scenario.clone()
    })
}

/// The room that the resource check saw is only there once the check has passed: somebody fills the datastore up to it
/// between the check and the import.
fn forced(scenario: &Scenario) -> Option<Scenario> {
    let free = scenario.lab.datastore_free?;
    let lab = LabFile::of_the_report();
    let capacity = lab.host_of(&scenario.target)?.local_bytes;
    let mut forced = without_faults(scenario).unwrap_or_else(|| scenario.clone());
    forced.lab.datastore_free = None;
    forced.faults.push(Fault {
        kind: FaultKind::SpaceTaken,
        place: FaultPlace::Target,
        step: Step::Import,
        bytes: capacity.saturating_sub(free),
    });
    Some(forced)
}

fn same_trace(one: &RunReport, two: &RunReport) -> Result<(), String> {
    hold(one.trace.hash() == two.trace.hash(), || {
        let differs = one
            .trace
            .events()
            .iter()
            .zip(two.trace.events())
            .find(|(one, two)| one != two);
        format!("the logs differ: {differs:?}")
    })
}

fn same_hashes(one: &RunReport, two: &RunReport) -> Result<(), String> {
    same_trace(one, two)?;
    hold(one.outcome_hash == two.outcome_hash, || {
        format!(
            "outcomes differ: {} and {}",
            one.signature(),
            two.signature()
        )
    })
}

fn no_worse(one: &RunReport, two: &RunReport) -> Result<(), String> {
    // A run that stops early has not met what it could not assess: UNKNOWN counts as clean here.
    let clean = |overall| match overall {
        Overall::Unknown => Overall::Success,
        known => known,
    };
    hold(clean(two.overall) >= clean(one.overall), || {
        format!("{} became {}", one.overall, two.overall)
    })
}

fn attributed(faulty: &RunReport, healthy: &RunReport) -> Result<(), String> {
    let struck = faulty
        .trace
        .events()
        .iter()
        .any(|event| event.kind == drylab_kernel::Kind::Fault);
    hold(
        struck || faulty.outcome_hash == healthy.outcome_hash,
        || "no fault struck and the outcomes differ".to_owned(),
    )
}

fn forced_import_fails(checked: &RunReport, forced: &RunReport) -> Result<(), String> {
    let Some(space) = check(checked, "target.datastore-space") else {
        return Ok(());
    };
    let Some(import) = check(forced, "import.completes") else {
        return Ok(());
    };
    // Somebody else took more meanwhile, or another fault: not what this law is about.
    if !checked.scenario.faults.is_empty() {
        return Ok(());
    }
    match space.score {
        Some(Score::Failure) => hold(
            import.found.after == "datastore full" && rolled_back(forced),
            || {
                format!(
                    "{}, {}, and the import: {}",
                    space.found.before, space.found.after, import.found.after
                )
            },
        ),
        _ => hold(import.found.after != "datastore full", || {
            format!(
                "{}, {}, and the import found it full",
                space.found.before, space.found.after
            )
        }),
    }
}

fn hold(kept: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if kept { Ok(()) } else { Err(why()) }
}
