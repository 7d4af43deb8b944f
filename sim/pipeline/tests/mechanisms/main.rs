//! No outcome is looked up: one mechanism is changed at a time, in the guest's own bytes or in the lab, and the cells
//! follow.

mod choices;
mod esxi_kvm;
mod lab;
mod versions;
mod virtio_win;
mod xen_hyperv;

use drylab_catalog::Score;
use drylab_kernel::Trace;
use drylab_pipeline::{Check, Library, RunReport, run};
use drylab_scenario::{Edit, Scenario};
use std::sync::OnceLock;

const ESXI: &str = "esxi-5.0.0";
const KVM: &str = "kvm-centos-6.3";
const CENTOS: &str = "centos-6.3";
const UBUNTU: &str = "ubuntu-12.04";
const WINDOWS: &str = "windows-2008r2";
const RULES: &str = "/etc/udev/rules.d/70-persistent-net.rules";
const IFCFG: &str = "/etc/sysconfig/network-scripts/ifcfg-eth0";

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(Library::new)
}

fn scenario(guest: &str, route: &str) -> Scenario {
    let known = library().route(route).expect("a route of the table");
    Scenario::new(guest, known.source.as_str(), known.target.as_str(), route)
}

fn edited(guest: &str, route: &str, edits: &[Edit]) -> Scenario {
    Scenario {
        edits: edits.to_vec(),
        ..scenario(guest, route)
    }
}

/// The same with the address typed that the adapter had at the source.
fn keeping_mac(scenario: Scenario) -> Scenario {
    let disk = library().source_disk(&scenario).expect("a golden disk");
    let mut kept = scenario;
    kept.target_vm.mac = Some(disk.mac);
    kept
}

fn report(scenario: &Scenario) -> RunReport {
    run(library(), scenario, Trace::new()).expect("a scenario that runs")
}

fn check<'r>(report: &'r RunReport, id: &str) -> Option<&'r Check> {
    report.checks.iter().find(|found| found.found.id == id)
}

fn score(report: &RunReport, id: &str) -> Option<Score> {
    check(report, id)?.score
}

fn after<'r>(report: &'r RunReport, id: &str) -> &'r str {
    check(report, id).map_or("", |found| &found.found.after)
}

/// The chain of witnesses of a check, one a line.
fn chain(report: &RunReport, id: &str) -> String {
    let links = check(report, id).map_or(&[][..], |found| &found.found.witness);
    let lines: Vec<String> = links.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn cites(report: &RunReport, id: &str, quirk: &str) -> bool {
    let links = check(report, id).map_or(&[][..], |found| &found.found.witness);
    links.iter().any(|link| link.place.to_string() == quirk)
}

/// A run in which a check has this score, with all of it in the message where it has not.
#[track_caller]
fn scores(scenario: &Scenario, id: &str, expected: Score) -> RunReport {
    let report = report(scenario);
    assert_eq!(
        score(&report, id),
        Some(expected),
        "{id} of {} over {}: {}\n{}",
        scenario.guest,
        scenario.route,
        report.signature(),
        chain(&report, id)
    );
    report
}

fn remove_rule() -> Edit {
    Edit::Remove {
        path: RULES.to_owned(),
        if_present: false,
    }
}

fn remove_hwaddr() -> Edit {
    Edit::RemoveLines {
        path: IFCFG.to_owned(),
        containing: "HWADDR".to_owned(),
    }
}

fn replace(path: &str, from: &str, to: &str) -> Edit {
    Edit::Replace {
        path: path.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

fn start(service: &str, data: u32) -> Edit {
    Edit::SetDword {
        hive: "SYSTEM".to_owned(),
        key: format!("ControlSet001\\Services\\{service}"),
        value: "Start".to_owned(),
        data,
    }
}
