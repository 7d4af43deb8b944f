//! What the lab around both hosts decides: leases for helper machines, copies of running machines.

use crate::{CENTOS, UBUNTU, WINDOWS, chain, check, cites, report, scenario, score, scores};
use drylab_catalog::Score;
use drylab_kernel::{Event, Kind};
use drylab_pipeline::RunReport;
use drylab_scenario::{Edit, Fault, FaultKind, FaultPlace, Scenario, Step};

const STATIC: &str = "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n address 10.20.0.77\n netmask 255.255.255.0\n gateway 10.20.0.1\n";

/// An Ubuntu that needs no lease itself.
fn with_static_address(route: &str) -> Scenario {
    let edit = Edit::Write {
        path: "/etc/network/interfaces".to_owned(),
        text: STATIC.to_owned(),
    };
    Scenario {
        edits: vec![edit],
        ..scenario(UBUNTU, route)
    }
}

fn of_target(event: &&Event) -> bool {
    event.component == "target" && event.kind == Kind::BootStage
}

#[test]
fn the_transfer_vm_needs_a_lease_before_any_guest_is_touched() {
    for (route, id) in [
        ("xen-vhd-qemu-img", "export.completes"),
        ("xen-native-ovf", "export.completes"),
        ("esx-ovf-xencenter", "import.completes"),
        ("hyperv-vhd-xencenter", "import.completes"),
    ] {
        let served = with_static_address(route);
        scores(&served, id, Score::Success);
        let mut alone = served;
        alone.lab.dhcp = false;
        let stopped = scores(&alone, id, Score::Failure);
        for quirk in ["GQ140", "HQ92"] {
            assert!(
                cites(&stopped, id, quirk),
                "{route}: {}",
                chain(&stopped, id)
            );
        }
        assert_eq!(stopped.trace.events().iter().filter(of_target).count(), 0);
        assert!(check(&stopped, "guest.boots").is_none());
        assert_eq!(stopped.before.source_disks, stopped.after.source_disks);
        assert!(stopped.after.source_running && stopped.after.target_inventory.is_empty());
    }
    // XenServer writes and reads its own archive without a helper.
    let mut archive = with_static_address("xen-native-xva");
    archive.lab.dhcp = false;
    scores(&archive, "import.completes", Score::Success);
}

/// Commands in the order they were given.
fn commands(report: &RunReport) -> Vec<&str> {
    let asked = report.trace.events().iter();
    asked
        .filter(|event| event.kind == Kind::Command)
        .flat_map(|event| &event.fields)
        .map(|(_, command)| command.as_str())
        .collect()
}

fn place(commands: &[&str], command: &str) -> usize {
    let found = commands.iter().position(|given| *given == command);
    found.unwrap_or_else(|| panic!("{command} is not among {commands:?}"))
}

#[test]
fn a_copy_of_the_running_machine_is_made_before_the_source_is_shut_down() {
    for (route, copied_first) in [
        ("kvm-xenconvert-p2v", true),
        ("esx-xenconvert-p2v", true),
        ("kvm-converter-p2v", true),
        ("hyperv-converter-p2v", true),
        ("hyperv-converter", false),
        ("esx-ovf-xencenter", false),
    ] {
        let report = scores(
            &scenario(WINDOWS, route),
            "export.completes",
            Score::Success,
        );
        let commands = commands(&report);
        let (copy, stop) = (
            place(&commands, "Hop(0)"),
            place(&commands, "ShutDownSource"),
        );
        assert_eq!(copy < stop, copied_first, "{route}: {commands:?}");
        let shut_down = score(&report, "source.shutdown");
        assert!(shut_down.is_some_and(|score| score != Score::Failure));
    }
}

#[test]
fn a_copy_of_the_running_machine_that_fails_leaves_the_source_running_all_along() {
    let crash = |place, step| Fault {
        kind: FaultKind::ToolCrash,
        place,
        step,
        bytes: 0,
    };
    // The tool crashes while it copies: nobody has shut anything down yet.
    let mut copying = scenario(WINDOWS, "kvm-xenconvert-p2v");
    copying.faults = vec![crash(FaultPlace::Source, Step::Export)];
    let report_of_copy = scores(&copying, "export.completes", Score::Failure);
    assert!(!commands(&report_of_copy).contains(&"ShutDownSource"));
    assert!(report_of_copy.after.source_running);
    // The import crashes after the source was shut down: it is started again.
    let mut importing = scenario(WINDOWS, "kvm-xenconvert-p2v");
    importing.faults = vec![crash(FaultPlace::Target, Step::Import)];
    let report_of_import = scores(&importing, "import.completes", Score::Failure);
    let commands = commands(&report_of_import);
    assert!(place(&commands, "ShutDownSource") < place(&commands, "RollBack"));
    let started = |report: &RunReport| {
        let mut events = report.trace.events().iter();
        events.any(|event| {
            event.kind == Kind::Rollback && event.fields.iter().any(|(key, _)| key == "started")
        })
    };
    assert!(started(&report_of_import) && !started(&report_of_copy));
    for report in [report_of_copy, report_of_import] {
        assert!(report.after.source_running && report.after.target_inventory.is_empty());
    }
}

#[test]
fn xenconvert_refuses_a_running_linux_and_leaves_it_running() {
    for route in ["kvm-xenconvert-p2v", "esx-xenconvert-p2v-vhd"] {
        for guest in [CENTOS, UBUNTU] {
            let refused = scores(&scenario(guest, route), "export.completes", Score::Failure);
            assert!(cites(&refused, "export.completes", "GQ134"));
            assert!(!commands(&refused).contains(&"ShutDownSource"));
            assert!(refused.after.source_running);
        }
        let windows = report(&scenario(WINDOWS, route));
        assert_eq!(score(&windows, "export.completes"), Some(Score::Success));
    }
}
