//! Laws over one run.

use drylab_catalog::{Mark, Place, Score, Witness};
use drylab_image::profile::Profile;
use drylab_kernel::{Event, Kind};
use drylab_pipeline::{Check, LabState, Measure, Overall, RunReport};
use drylab_scenario::{Edit, Step};

/// A law that every run keeps. The trace must have kept its events.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Number in the list of laws.
    pub id: u32,
    /// The law in words.
    pub statement: &'static str,
    /// Whether a run keeps it; `Err` with what breaks it.
    pub check: fn(&RunReport) -> Result<(), String>,
}

/// Laws over one run, by number.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: 1,
        statement: "the score of a run is the lowest of its checks",
        check: minimum,
    },
    Invariant {
        id: 7,
        statement: "a run that stops early is a FAILURE",
        check: stopping_early_fails,
    },
    Invariant {
        id: 8,
        statement: "what is not SUCCESS is explained down to a quirk, a place in the guest or the event of a fault, and what is has a witness",
        check: explained,
    },
    Invariant {
        id: 29,
        statement: "the source machine's disks and entry are as before, and it runs again after a rollback",
        check: source_unharmed,
    },
    Invariant {
        id: 30,
        statement: "a failed run is rolled back, and leaves nothing at the target or on the share",
        check: nothing_leaks,
    },
    Invariant {
        id: 31,
        statement: "used and free bytes of the datastore add up to its capacity, before, at every event and after",
        check: conservation,
    },
    Invariant {
        id: 32,
        statement: "no two running machines have one address",
        check: one_live_instance,
    },
    Invariant {
        id: 33,
        statement: "steps start in order, each once, and nothing but rollback follows a failure in steps 1 to 6",
        check: order_of_steps,
    },
    Invariant {
        id: 34,
        statement: "an import does not run out of space that the resource check has seen",
        check: resource_check_is_sound,
    },
    Invariant {
        id: 35,
        statement: "times never decrease and sequence numbers count up from 0",
        check: time_order,
    },
    Invariant {
        id: 43,
        statement: "a Linux guest that keeps its address keeps its interface name, and one bound to an address it lost has no IP address",
        check: name_stability,
    },
];

/// The first law a run breaks, with its number and what breaks it.
#[must_use]
pub fn missed(report: &RunReport) -> Option<(u32, String)> {
    INVARIANTS
        .iter()
        .find_map(|law| (law.check)(report).err().map(|why| (law.id, why)))
}

fn hold(kept: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if kept { Ok(()) } else { Err(why()) }
}

/// A check by its id.
pub(crate) fn check<'r>(report: &'r RunReport, id: &str) -> Option<&'r Check> {
    report.checks.iter().find(|check| check.found.id == id)
}

/// Commands or steps in the order the trace has them.
fn told<'r>(report: &'r RunReport, kind: Kind, field: &'r str) -> impl Iterator<Item = &'r str> {
    let named = move |event: &'r Event| {
        let found = event.fields.iter().find(|(name, _)| name == field);
        found.map(|(_, value)| value.as_str())
    };
    let events = report
        .trace
        .events()
        .iter()
        .filter(move |event| event.kind == kind);
    events.filter_map(named)
}

/// Whether the run went back to where it began.
pub(crate) fn rolled_back(report: &RunReport) -> bool {
    told(report, Kind::Command, "command").any(|command| command == "RollBack")
}

fn minimum(report: &RunReport) -> Result<(), String> {
    let scores = report
        .checks
        .iter()
        .map(|check| check.score.map_or(Overall::Unknown, Overall::from));
    let lowest = scores.min().unwrap_or(Overall::Failure);
    hold(report.overall == lowest, || {
        format!(
            "the run is {} and its lowest check {lowest}",
            report.overall
        )
    })
}

fn stopping_early_fails(report: &RunReport) -> Result<(), String> {
    let steps = told(report, Kind::StepStarted, "step").count();
    hold(
        steps == Step::ALL.len() || report.overall == Overall::Failure,
        || format!("{} after {steps} steps", report.overall),
    )
}

fn explained(report: &RunReport) -> Result<(), String> {
    for check in &report.checks {
        let chain = &check.found.witness;
        hold(!chain.is_empty(), || {
            format!("{} has no witness", check.found.id)
        })?;
        let graded = matches!(check.score, Some(Score::Failure | Score::Warning));
        hold(
            !graded || chain.iter().any(|link| ends(link, report)),
            || {
                format!(
                    "{} ends nowhere: {}",
                    check.found.id,
                    chain
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; ")
                )
            },
        )?;
        hold(
            check.score.is_some() || check.found.measure.is_err(),
            || {
                format!(
                    "{} was measured and the policy does not know it",
                    check.found.id
                )
            },
        )?;
    }
    Ok(())
}

/// Whether a link is where a chain may end: a row of knowledge, a place in the guest, what a product does with a damaged
/// image, what a person asked for, a fault.
fn ends(link: &Witness, report: &RunReport) -> bool {
    match &link.place {
        Place::Quirk(id) => drylab_catalog::quirk(id)
            .is_some_and(|row| row.mark == Mark::Belief || !row.source.is_empty()),
        Place::File { path, .. } | Place::Overlay(path) => path.starts_with('/'),
        Place::Key(key) | Place::Asked(key) => !key.is_empty(),
        Place::Fact(key) => is_reaction(key),
        Place::Event(sequence) => report
            .trace
            .events()
            .iter()
            .any(|event| event.sequence == *sequence && event.kind == Kind::Fault),
        _ => false,
    }
}

/// Whether a key is a product's profile with the code of a rule that the product minds.
fn is_reaction(key: &str) -> bool {
    let row = key.split_once('/').and_then(|(name, code)| {
        let mut rows = Profile::named(name)?.reactions.iter();
        rows.find(|row| row.code == code)
    });
    row.is_some_and(|row| !row.evidence.source().is_empty())
}

fn source_unharmed(report: &RunReport) -> Result<(), String> {
    let (before, after) = (&report.before, &report.after);
    hold(before.source_disks == after.source_disks, || {
        format!(
            "source disks {:?} became {:?}",
            before.source_disks, after.source_disks
        )
    })?;
    hold(before.source_entry == after.source_entry, || {
        "the source's entry changed".to_owned()
    })?;
    let back = !rolled_back(report) || after.source_running == before.source_running;
    hold(back, || "the source does not run as before".to_owned())
}

/// What takes a machine back. A number outside its bounds does not: bounds are policy, and policy changes no event.
fn broken(check: &Check) -> bool {
    check.found.measure == Ok(Measure::Missing) && check.score == Some(Score::Failure)
}

fn nothing_leaks(report: &RunReport) -> Result<(), String> {
    let first = report.checks.iter().find(|check| broken(check));
    if let Some(check) = first {
        hold(rolled_back(report), || {
            format!("{} failed and nothing was rolled back", check.found.id)
        })?;
    }
    if !rolled_back(report) {
        return Ok(());
    }
    let target = |state: &LabState| {
        (
            state.target_inventory.clone(),
            state.target_files.clone(),
            state.target_free,
            state.staging_used,
        )
    };
    let (before, after) = (target(&report.before), target(&report.after));
    hold(before == after, || {
        format!("the target was {before:?} and is {after:?}")
    })
}

fn conservation(report: &RunReport) -> Result<(), String> {
    let capacity = report.before.target_capacity;
    let adds_up = |used: u64, free: u64| {
        hold(used.checked_add(free) == Some(capacity), || {
            format!("{used} used and {free} free of {capacity}")
        })
    };
    let of = |state: &LabState| {
        state
            .target_files
            .iter()
            .map(|(_, bytes)| bytes)
            .sum::<u64>()
    };
    adds_up(of(&report.before), report.before.target_free)?;
    adds_up(of(&report.after), report.after.target_free)?;
    // And at every event between: what was there, plus what was stored, minus what was removed.
    let mut used = of(&report.before);
    let events = report.trace.events().iter();
    for event in events.filter(|event| event.kind == Kind::Resource) {
        let number = |wanted: &str| {
            let field = event.fields.iter().find(|(name, _)| name == wanted);
            field.and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let change = (number("stored"), number("removed"), number("free"));
        let (Some(now), Some(free)) = (
            used.saturating_add(change.0.unwrap_or(0))
                .checked_sub(change.1.unwrap_or(0)),
            change.2,
        ) else {
            return Err(format!("event {} does not add up", event.sequence));
        };
        used = now;
        adds_up(used, free)?;
    }
    hold(used == of(&report.after), || {
        format!(
            "{used} used by the log and {} by the books",
            of(&report.after)
        )
    })?;
    hold(capacity == report.after.target_capacity, || {
        "the datastore grew".to_owned()
    })
}

fn one_live_instance(report: &RunReport) -> Result<(), String> {
    hold(!report.after.duplicate_mac_seen, || {
        "an address was there twice".to_owned()
    })?;
    let mut live = report.after.live_macs.clone();
    live.sort();
    live.dedup();
    hold(live.len() == report.after.live_macs.len(), || {
        format!("running: {:?}", report.after.live_macs)
    })
}

fn order_of_steps(report: &RunReport) -> Result<(), String> {
    let steps: Vec<&str> = told(report, Kind::StepStarted, "step").collect();
    // A converter that copies the running machine is done before the source is shut down.
    let routes = drylab_pipeline::routes();
    let route = routes
        .iter()
        .find(|route| route.id == report.scenario.route);
    let copies_running = route
        .and_then(|route| route.hops.first())
        .is_some_and(|hop| hop.copies_running());
    let mut order = Step::ALL;
    if copies_running {
        order.swap(1, 2);
    }
    let expected: Vec<&str> = order
        .iter()
        .map(|step| step.name())
        .take(steps.len())
        .collect();
    hold(!steps.is_empty() && steps == expected, || {
        format!("steps started: {steps:?}")
    })?;
    let mut after = told(report, Kind::Command, "command")
        .skip_while(|command| *command != "RollBack")
        .skip(1);
    let next = after.next();
    hold(next.is_none(), || format!("{next:?} follows a rollback"))?;
    let failed = report
        .checks
        .iter()
        .find(|check| check.score == Some(Score::Failure) && check.found.step != Step::Restart);
    if let Some(check) = failed {
        hold(steps.last() == Some(&check.found.step.name()), || {
            format!(
                "{} failed in {} and {:?} started",
                check.found.id,
                check.found.step,
                steps.last()
            )
        })?;
    }
    Ok(())
}

fn resource_check_is_sound(report: &RunReport) -> Result<(), String> {
    let passed = check(report, "target.datastore-space")
        .is_some_and(|check| check.score == Some(Score::Success));
    let struck = told(report, Kind::Fault, "fault").any(|fault| fault.ends_with("in import"));
    let full = check(report, "import.completes")
        .is_some_and(|check| check.found.after == "datastore full");
    hold(!passed || struck || !full, || {
        "the check saw room and the import found none".to_owned()
    })
}

fn time_order(report: &RunReport) -> Result<(), String> {
    let mut last = 0;
    for (expected, event) in (0u64..).zip(report.trace.events()) {
        hold(event.time >= last && event.sequence == expected, || {
            format!("event {} at {} after {last}", event.sequence, event.time)
        })?;
        last = event.time;
    }
    let ended = report.trace.events().last().map(|event| event.kind);
    hold(ended == Some(Kind::RunEnded), || {
        format!("the log ends with {ended:?}")
    })
}

fn name_stability(report: &RunReport) -> Result<(), String> {
    let score = |id| check(report, id).and_then(|check| check.score);
    let linux = !report.scenario.guest.as_str().starts_with("windows");
    if !linux {
        return Ok(());
    }
    let kept = score("guest.mac") == Some(Score::Success);
    let renamed = check(report, "guest.interface-name")
        .is_some_and(|check| check.found.measure == Ok(Measure::Changed));
    hold(!(kept && renamed), || {
        "the address was kept and the name was not".to_owned()
    })?;
    let lost =
        check(report, "guest.mac").is_some_and(|check| check.found.measure == Ok(Measure::Changed));
    if report.scenario.guest.as_str() == "centos-6.3" && lost && bound_by_address(report) {
        let address = check(report, "guest.ip-address").map(|check| &check.found.measure);
        hold(address == Some(&Ok(Measure::Missing)), || {
            format!("bound to another address, and {address:?}")
        })?;
    }
    Ok(())
}

/// The golden CentOS has a rule and an HWADDR line, either of which binds its only configuration to its address; both
/// must be gone before another adapter gets it. Xen's front ends never meet a rule: with one at either end the HWADDR line
/// alone binds. Edits of other files do not touch that.
fn bound_by_address(report: &RunReport) -> bool {
    let touched = |file: &str| {
        report.scenario.edits.iter().any(|edit| match edit {
            Edit::Write { path, .. }
            | Edit::Replace { path, .. }
            | Edit::Append { path, .. }
            | Edit::RemoveLines { path, .. }
            | Edit::Remove { path, .. } => path.ends_with(file),
            _ => false,
        })
    };
    let managed = report
        .scenario
        .edits
        .iter()
        .any(|edit| format!("{edit:?}").contains("NetworkManager"));
    let cites = |id: &str, quirk: &str| {
        let found = check(report, id).map(|check| &check.found.witness);
        let place = Place::Quirk(quirk.to_owned());
        found.is_some_and(|chain| chain.iter().any(|link| link.place == place))
    };
    // The adapter was unplugged for its twin, or the machine is one of twins only.
    let front_end = report.scenario.source.as_str().starts_with("xenserver")
        || cites("guest.interface-name", "GQ39")
        || cites("guest.interface-name", "GQ07");
    let ruled = !front_end && !touched("70-persistent-net.rules");
    let freed = !ruled && touched("ifcfg-eth0");
    !(managed || freed)
}
