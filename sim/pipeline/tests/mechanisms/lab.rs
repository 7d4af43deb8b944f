//! What the lab around both hosts decides: leases for helper machines, copies of running machines.

use crate::{CENTOS, UBUNTU, WINDOWS, after, chain, check, cites, report, scenario, score, scores};
use drylab_block::ReadAt;
use drylab_catalog::Score;
use drylab_kernel::{Event, Kind};
use drylab_pipeline::{LabFile, Library, RunReport};
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

/// A run in the lab of the report with some of its lines changed.
fn in_lab(changes: &[(&str, &str)], scenario: &Scenario) -> RunReport {
    let mut text = LabFile::REPORT.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let mut library: Library = crate::library().elsewhere();
    library.lab = LabFile::from_toml(&text).expect("a lab");
    drylab_pipeline::run(&library, scenario, drylab_kernel::Trace::new()).expect("it runs")
}

const FIRST_SHARE: &str = "bytes = 800000000000";
const SECOND_SHARE: &str = "bytes = 400000000000";

#[test]
fn exports_and_conversions_need_room_on_the_shares_together_and_one_by_one() {
    const ID: &str = "export.completes";
    let moved = scenario(UBUNTU, "esx-flat-qemu-img-vpc");
    let disk = crate::library().source_disk(&moved).expect("a golden disk");
    // Room for the copy of the disk, or for what qemu-img makes of it, not for both.
    let one = format!("bytes = {}", disk.disk.bytes.len() + (1 << 20));
    let none = "bytes = 1";
    for (first, second, expected) in [
        (FIRST_SHARE, SECOND_SHARE, Score::Success),
        (none, SECOND_SHARE, Score::Success),
        (FIRST_SHARE, none, Score::Success),
        (&one, &one, Score::Success),
        (&one, none, Score::Failure),
        (none, &one, Score::Failure),
        (none, none, Score::Failure),
    ] {
        let report = in_lab(&[(FIRST_SHARE, first), (SECOND_SHARE, second)], &moved);
        assert_eq!(score(&report, ID), Some(expected), "{first} {second}");
        assert_eq!(
            cites(&report, ID, "DQ446"),
            expected == Score::Failure && (first, second) != (none, none)
        );
        if expected == Score::Failure {
            let why = chain(&report, ID);
            assert!(
                why.contains("share nfs-800") && why.contains(second),
                "{why}"
            );
            assert_eq!(report.after.staging_used, 0);
        }
    }
}

const AWAY: (&str, &str) = (
    "name = \"xencenter\"\nnetwork = \"lan\"\naddress = \"10.20.0.22\"",
    "name = \"xencenter\"\nnetwork = \"other\"\naddress = \"192.168.122.250\"",
);
const NO_ROUTER: (&str, &str) = ("networks = [\"lan\", \"other\"]", "networks = [\"lan\"]");

#[test]
fn a_console_that_does_not_reach_its_host_neither_shuts_down_nor_imports() {
    for (route, id) in [
        ("xen-vhd-qemu-img", "source.shutdown"),
        ("hyperv-vhd-xencenter", "import.consistency"),
    ] {
        let moved = scenario(UBUNTU, route);
        let usual = in_lab(&[], &moved);
        for changes in [&[AWAY][..], &[NO_ROUTER]] {
            assert_eq!(in_lab(changes, &moved).signature(), usual.signature());
        }
        let cut_off = in_lab(&[AWAY, NO_ROUTER], &moved);
        assert_eq!(score(&cut_off, id), Some(Score::Failure), "{route}");
        let why = chain(&cut_off, id);
        assert!(cites(&cut_off, id, "DQ445"), "{why}");
        assert!(why.contains("console xencenter"), "{why}");
        assert!(cut_off.after.source_running && cut_off.after.target_inventory.is_empty());
        assert!(check(&cut_off, "guest.boots").is_none());
    }
}

#[test]
fn a_machine_is_in_the_network_that_the_switch_of_its_host_carries() {
    let moved = scenario(UBUNTU, "esx-flat-virt-manager");
    let other = in_lab(
        &[
            ("address = \"10.20.0.14\"", "address = \"192.168.122.240\""),
            (
                "local_bytes = 280000000000\nswitch = \"switch-lan\"\nmark = \"document\"\n\n# That Hyper-V",
                "local_bytes = 280000000000\nswitch = \"virbr0\"\nmark = \"document\"\n\n# That Hyper-V",
            ),
        ],
        &moved,
    );
    let mut asked = moved.clone();
    asked.lab.target_network = drylab_scenario::TargetNetwork::OtherSubnet;
    let usual = in_lab(&[], &moved);
    assert_eq!(
        after(&other, "guest.gateway"),
        after(&in_lab(&[], &asked), "guest.gateway")
    );
    assert_ne!(other.signature(), usual.signature());
    assert!(chain(&other, "guest.ip-address").contains("192.168.122."));
    // Of libvirt's own network its quirk tells; a bridge that leads elsewhere is the lab's.
    let own = in_lab(&[], &asked);
    for id in ["guest.ip-address", "guest.routes"] {
        assert!(cites(&own, id, "HQ61"), "{}", chain(&own, id));
        assert!(!cites(&other, id, "HQ61") && !cites(&usual, id, "HQ61"));
    }
    // A switch by another name is the same switch, where its hosts know it by that name.
    let text = LabFile::REPORT.replace("switch-lan", "core-1");
    let mut library = crate::library().elsewhere();
    library.lab = LabFile::from_toml(&text).expect("a lab");
    let renamed = drylab_pipeline::run(&library, &moved, drylab_kernel::Trace::new());
    assert_eq!(renamed.expect("it runs").signature(), usual.signature());
}
