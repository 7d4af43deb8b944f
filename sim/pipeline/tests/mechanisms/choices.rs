//! Snapshots at the source, and what a person chooses in the import wizard.

use crate::{
    CENTOS, UBUNTU, WINDOWS, chain, check, cites, edited, replace, report, scenario, score, scores,
    start,
};
use drylab_catalog::Score;
use drylab_scenario::{Edit, Scenario};

fn with_snapshots(mut scenario: Scenario, taken: u32) -> Scenario {
    scenario.source_vm.snapshots = taken;
    scenario
}

/// A guest to which something was written since its snapshots were taken.
fn written(guest: &str, route: &str) -> Scenario {
    edited(
        guest,
        route,
        &[replace("/etc/hosts", "localhost", "LOCALHOST")],
    )
}

#[test]
fn a_chain_of_hyper_v_is_read_without_its_parent_or_refused_and_by_hyper_v_itself_taken_in() {
    for route in ["hyperv-vhd-qemu-img", "hyperv-vhd-qemu-img-10-vmdk"] {
        let plain = written(UBUNTU, route);
        scores(&plain, "disk.content", Score::Success);
        for taken in [1, 3] {
            let torn = scores(
                &with_snapshots(plain.clone(), taken),
                "disk.content",
                Score::Failure,
            );
            assert!(cites(&torn, "disk.content", "GQ143"), "{route}");
            assert_eq!(score(&torn, "export.completes"), Some(Score::Success));
            assert!(check(&torn, "guest.boots").is_none());
        }
    }
    for (route, id) in [
        ("hyperv-xenconvert-vhd", "export.completes"),
        ("hyperv-vhd-xencenter", "import.consistency"),
    ] {
        scores(&written(UBUNTU, route), id, Score::Success);
        let refused = scores(
            &with_snapshots(written(UBUNTU, route), 1),
            id,
            Score::Failure,
        );
        assert!(cites(&refused, id, "GQ143"), "{}", chain(&refused, id));
    }
    let own = "hyperv-native-import";
    for taken in [1, 2] {
        let whole = scores(
            &with_snapshots(written(UBUNTU, own), taken),
            "disk.content",
            Score::Success,
        );
        assert_eq!(score(&whole, "guest.boots"), Some(Score::Success));
        assert!(cites(&whole, "export.completes", "DQ443"));
    }
}

#[test]
fn xenserver_exports_a_chain_as_one_disk_and_others_are_not_known() {
    for route in ["xen-vhd-qemu-img", "xen-native-xva"] {
        let plain = report(&written(CENTOS, route));
        let chained = report(&with_snapshots(written(CENTOS, route), 2));
        assert_eq!(plain.signature(), chained.signature(), "{route}");
        assert!(cites(&chained, "export.completes", "DQ442"), "{route}");
        assert_eq!(score(&chained, "disk.content"), Some(Score::Success));
    }
    for route in ["esx-ovf-xencenter", "kvm-qemu-img-vpc-xencenter"] {
        let unknown = report(&with_snapshots(scenario(CENTOS, route), 1));
        assert_eq!(score(&unknown, "export.completes"), None, "{route}");
        assert!(check(&unknown, "export.completes").is_some());
    }
}

/// A Windows whose driver of IDE channels was never asked to start at boot.
fn without_ide(route: &str) -> Scenario {
    edited(WINDOWS, route, &[start("atapi", 3)])
}

#[test]
fn fixup_makes_windows_start_its_drivers_of_ide_and_leaves_linux_alone() {
    let plain = without_ide("esx-ovf-xencenter");
    let stopped = scores(&plain, "guest.boots", Score::Failure);
    assert!(chain(&stopped, "guest.boots").contains("atapi"));
    let mut fixed = plain;
    fixed.import.fixup = true;
    let boots = scores(&fixed, "guest.boots", Score::Success);
    assert!(cites(&boots, "disk.content", "DQ444"));
    assert_eq!(score(&boots, "disk.content"), Some(Score::Success));
    assert_eq!(stopped.before.source_disks, boots.after.source_disks);
    for route in ["esx-ovf-xencenter", "hyperv-vhd-xencenter"] {
        let mut linux = scenario(UBUNTU, route);
        let left = report(&linux);
        linux.import.fixup = true;
        let alike = report(&linux);
        assert_eq!(left.signature(), alike.signature());
        assert!(!cites(&alike, "disk.content", "DQ444"));
    }
}

#[test]
fn fixup_installs_no_driver() {
    let mut bare = edited(
        WINDOWS,
        "esx-ovf-xencenter",
        &[
            start("atapi", 3),
            Edit::Remove {
                path: "/Windows/System32/drivers/atapi.sys".to_owned(),
                if_present: false,
            },
        ],
    );
    bare.import.fixup = true;
    scores(&bare, "guest.boots", Score::Failure);
}

#[test]
fn an_xva_import_that_preserves_keeps_the_address_and_another_makes_one_of_a_new_seed() {
    let route = "xen-native-xva";
    let plain = scenario(UBUNTU, route);
    let drawn = scores(&plain, "guest.mac", Score::Warning);
    for quirk in ["DQ416", "DQ441"] {
        assert!(
            cites(&drawn, "guest.mac", quirk),
            "{}",
            chain(&drawn, "guest.mac")
        );
    }
    let mut kept = plain;
    kept.import.preserve = true;
    scores(&kept, "guest.mac", Score::Success);
}

#[test]
fn a_choice_that_the_import_does_not_offer_is_no_scenario() {
    let mut wrong = scenario(WINDOWS, "kvm-qemu-img-vpc-hyperv");
    wrong.import.fixup = true;
    let says = drylab_pipeline::run(crate::library(), &wrong, drylab_kernel::Trace::new());
    let says = says.expect_err("no such choice").to_string();
    assert!(says.contains("import.fixup"), "{says}");
    wrong.import = drylab_scenario::Import {
        preserve: true,
        ..Default::default()
    };
    assert!(drylab_pipeline::run(crate::library(), &wrong, drylab_kernel::Trace::new()).is_err());
}
