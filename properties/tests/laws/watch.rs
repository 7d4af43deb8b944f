//! The watchmen watched: each law notices a run that breaks it.

use crate::{report, scenario};
use drylab_kernel::{Kind, Trace};
use drylab_pipeline::{Overall, RunReport};
use drylab_properties::{INVARIANTS, RELATIONS};
use std::cell::Cell;

type Damage = (u32, &'static str, fn(&mut RunReport));

/// The log again, with each event kept, changed or left out.
fn retold(report: &mut RunReport, change: impl Fn(&str, Kind) -> Option<String>) {
    let mut trace = Trace::new();
    for event in report.trace.events() {
        let mut fields = event.fields.clone();
        let value = fields
            .first()
            .map(|(_, value)| value.clone())
            .unwrap_or_default();
        let Some(told) = change(&value, event.kind) else {
            continue;
        };
        if let Some(first) = fields.first_mut() {
            first.1 = told;
        }
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        trace.record(event.time, &event.component, event.kind, &fields);
    }
    report.trace = trace;
}

fn of_the_same_kind(value: &str, kind: Kind, from: &str, wanted: Kind, to: &str) -> String {
    if kind == wanted && value == from {
        to.to_owned()
    } else {
        value.to_owned()
    }
}

fn broken_ways() -> Vec<Damage> {
    vec![
        (1, "another score", |report| {
            report.overall = Overall::Unknown
        }),
        (7, "a success that stopped early", |report| {
            report.overall = Overall::Success;
            retold(report, |value, kind| {
                (kind != Kind::StepStarted || value != "restart").then(|| value.to_owned())
            });
        }),
        (8, "a check without witness", |report| {
            report.checks[0].found.witness.clear()
        }),
        (8, "a failure that ends in the lab", |report| {
            for check in &mut report.checks {
                check.found.witness = vec![drylab_catalog::Witness::lab("lab", "so it is")];
            }
        }),
        (29, "a changed source disk", |report| {
            report.after.source_disks[0].push('x')
        }),
        (29, "a changed source entry", |report| {
            report.after.source_entry.push('x')
        }),
        (29, "a source left off", |report| {
            report.after.source_running = false
        }),
        (30, "a file left", |report| {
            report.after.target_files.push(("left.vmdk".to_owned(), 1));
            report.after.target_free -= 1;
        }),
        (30, "a machine left", |report| {
            report.after.target_inventory.push("left".to_owned())
        }),
        (30, "a full share", |report| report.after.staging_used = 1),
        (30, "no rollback", |report| {
            retold(report, |value, kind| {
                (kind != Kind::Command || value != "RollBack").then(|| value.to_owned())
            })
        }),
        (31, "lost bytes", |report| report.after.target_free -= 1),
        (31, "an event that gives space away", |report| {
            let first = Cell::new(true);
            retold(report, |value, kind| {
                let dropped = kind == Kind::Resource && first.replace(false);
                (!dropped).then(|| value.to_owned())
            });
        }),
        (32, "an address seen twice", |report| {
            report.after.duplicate_mac_seen = true
        }),
        (32, "two machines of one address", |report| {
            report.after.live_macs = vec!["a".to_owned(), "a".to_owned()]
        }),
        (33, "a step twice", |report| {
            retold(report, |value, kind| {
                Some(of_the_same_kind(
                    value,
                    kind,
                    "shutdown",
                    Kind::StepStarted,
                    "export",
                ))
            })
        }),
        (33, "a step after a rollback", |report| {
            retold(report, |value, kind| {
                Some(of_the_same_kind(
                    value,
                    kind,
                    "ShutDownSource",
                    Kind::Command,
                    "RollBack",
                ))
            })
        }),
        (34, "an import out of space", |report| {
            for check in &mut report.checks {
                if check.found.id == "import.completes" {
                    check.found.after = "datastore full".to_owned();
                }
            }
        }),
        (35, "a log that does not end", |report| {
            retold(report, |value, kind| {
                (kind != Kind::RunEnded).then(|| value.to_owned())
            })
        }),
        (43, "an address although bound to another", |report| {
            for check in &mut report.checks {
                if check.found.id == "guest.ip-address" {
                    check.found.measure = Ok(drylab_pipeline::Measure::Changed);
                }
            }
        }),
    ]
}

#[test]
fn every_invariant_notices_a_run_that_breaks_it() {
    // CentOS deployed from an OVF: imported, booted, without an address, rolled back; every law says something of it.
    let whole = report(&scenario("centos-6.3", "esxi-native-ovf"));
    let ways = broken_ways();
    for law in INVARIANTS {
        assert_eq!((law.check)(&whole), Ok(()), "law {}", law.id);
        assert!(
            ways.iter().any(|(id, ..)| *id == law.id),
            "law {} is not watched",
            law.id
        );
    }
    for (id, what, damage) in ways {
        let mut damaged = whole.clone();
        damage(&mut damaged);
        let law = INVARIANTS
            .iter()
            .find(|law| law.id == id)
            .expect("a law of the list");
        assert!(
            (law.check)(&damaged).is_err(),
            "law {id} does not notice {what}"
        );
    }
}

#[test]
fn every_relation_notices_two_runs_that_break_it() {
    let refused = |free| {
        let mut tight = scenario("ubuntu-12.04", "esxi-native-ovf");
        tight.lab.datastore_free = Some(free);
        report(&tight)
    };
    let (worse, better) = (refused(1), refused(1 << 35));
    assert_ne!(worse.overall, better.overall);
    for law in RELATIONS {
        let noticed = match law.id {
            9 | 11 | 18 | 25 => (law.holds)(&worse, &better).is_err(),
            10 | 23 => (law.holds)(&better, &worse).is_err(),
            // The check refused, and yet the import went on.
            34 => (law.holds)(&worse, &better).is_err(),
            other => panic!("law {other} is not watched"),
        };
        assert!(noticed, "law {} notices nothing", law.id);
    }
}
