//! Versions as an axis: the same disk through another release of the same tool.

use crate::{CENTOS, UBUNTU, WINDOWS, after, chain, check, cites, report, scenario, score, scores};
use drylab_catalog::Score;
use drylab_pipeline::{Tools, routes};
use drylab_scenario::{Edit, Scenario};

/// The most that the geometry of a VHD can say: 65,535 cylinders, 16 heads, 255 sectors.
const GEOMETRY_MAX: u64 = 65_535 * 16 * 255 * 512;

#[test]
fn a_vhd_of_130_gib_is_cut_by_qemu_img_0_12_and_that_is_noticed() {
    assert_eq!(GEOMETRY_MAX, 136_899_993_600);
    let mut large = scenario(UBUNTU, "hyperv-vhd-qemu-img");
    large.source_vm.disk_bytes = Some(130 << 30);
    // Nothing lies behind the cut: what is left is equal, and smaller.
    let shorter = scores(&large, "disk.content", Score::Success);
    assert_eq!(
        after(&shorter, "disk.content"),
        format!("{GEOMETRY_MAX} bytes")
    );
    assert_ne!(score(&shorter, "guest.disks"), Some(Score::Success));
    // One sector behind it with something in it: lost.
    large.edits = vec![Edit::Bytes {
        offset: GEOMETRY_MAX + 512,
        hex: "5a".repeat(512),
    }];
    let cut = scores(&large, "disk.content", Score::Failure);
    assert_eq!(after(&cut, "disk.content"), format!("{GEOMETRY_MAX} bytes"));
    assert!(
        cites(&cut, "disk.content", "GQ113"),
        "{}",
        chain(&cut, "disk.content")
    );
    assert!(cut.after.source_running && cut.after.target_inventory.is_empty());
    // One sector before it, and it travels.
    large.edits = vec![Edit::Bytes {
        offset: GEOMETRY_MAX - 512,
        hex: "5a".repeat(512),
    }];
    scores(&large, "disk.content", Score::Success);
    // Version 10 keeps all of it.
    large.route = "hyperv-vhd-qemu-img-10".to_owned();
    large.edits = vec![Edit::Bytes {
        offset: GEOMETRY_MAX + 512,
        hex: "5a".repeat(512),
    }];
    let whole = scores(&large, "disk.content", Score::Success);
    assert_eq!(after(&whole, "disk.content"), "139586437120 bytes");
    assert_eq!(score(&whole, "guest.disks"), Some(Score::Success));
}

#[test]
fn a_disk_of_a_scenario_is_never_smaller_than_its_guest() {
    let mut small = scenario(UBUNTU, "esxi-native-ovf");
    small.source_vm.disk_bytes = Some(8 << 30);
    scores(&small, "disk.content", Score::Success);
    small.source_vm.disk_bytes = Some((8 << 30) - 512);
    let refused = drylab_pipeline::run(crate::library(), &small, drylab_kernel::Trace::new());
    assert!(refused.is_err_and(|error| error.0.contains("8589934080")));
}

#[test]
fn hyperv_refuses_the_vhd_of_qemu_img_0_12_and_takes_that_of_10() {
    for (old, new) in [
        ("esx-flat-qemu-img-vpc", "esx-flat-qemu-img-10-vpc"),
        ("kvm-qemu-img-vpc-hyperv", "kvm-qemu-img-10-vpc-hyperv"),
    ] {
        for guest in [CENTOS, UBUNTU, WINDOWS] {
            let refused = scores(&scenario(guest, old), "import.consistency", Score::Failure);
            assert!(cites(&refused, "import.consistency", "GQ107"), "{old}");
            let taken = scores(&scenario(guest, new), "disk.content", Score::Success);
            assert_eq!(score(&taken, "guest.disks"), Some(Score::Success), "{new}");
        }
    }
}

#[test]
fn a_stream_optimized_vmdk_of_vmware_is_read_by_qemu_img_10_alone() {
    for guest in [CENTOS, UBUNTU, WINDOWS] {
        let old = scores(
            &scenario(guest, "esx-ovf-qemu-img"),
            "export.completes",
            Score::Failure,
        );
        assert!(cites(&old, "export.completes", "GQ111"));
        let new = scores(
            &scenario(guest, "esx-ovf-qemu-img-10"),
            "disk.content",
            Score::Success,
        );
        assert_eq!(score(&new, "guest.boots"), Some(Score::Success));
    }
}

#[test]
fn a_vhd_of_hyperv_keeps_its_size_through_qemu_img_10_alone() {
    for (old, new) in [
        ("hyperv-vhd-qemu-img", "hyperv-vhd-qemu-img-10"),
        ("hyperv-vhd-qemu-img-vmdk", "hyperv-vhd-qemu-img-10-vmdk"),
    ] {
        scores(&scenario(UBUNTU, old), "guest.disks", Score::Warning);
        scores(&scenario(UBUNTU, new), "guest.disks", Score::Success);
    }
}

#[test]
fn virt_v2v_0_8_moves_an_ubuntu_as_it_is_and_2_makes_it_ready() {
    let disk = |route: &str| {
        let report = report(&scenario(UBUNTU, route));
        (chain(&report, "export.completes"), report)
    };
    let (old, _) = disk("esx-v2v");
    assert!(old.contains("GQ66"), "{old}");
    for route in ["esx-v2v-2", "esx-ovf-v2v-2"] {
        let (new, _) = disk(route);
        assert!(!new.contains("GQ66") && new.contains("DQ510"), "{new}");
    }
}

#[test]
fn vcenter_converter_5_1_takes_the_linux_that_5_0_does_not_know() {
    for guest in [CENTOS, UBUNTU] {
        let old = scores(
            &scenario(guest, "kvm-converter-p2v"),
            "export.completes",
            Score::Failure,
        );
        assert!(cites(&old, "export.completes", "GQ131"));
        scores(
            &scenario(guest, "kvm-converter-5.1-p2v"),
            "export.completes",
            Score::Success,
        );
    }
}

#[test]
fn each_route_is_of_one_set_of_tools_and_those_without_a_converter_of_both() {
    let (mut old, mut new, mut both) = (0, 0, 0);
    for route in routes() {
        assert!(Tools::All.allow(&route));
        let converts = route.hops.iter().any(|hop| hop.is_converter());
        match (Tools::Of2013.allow(&route), Tools::Today.allow(&route)) {
            (true, true) => {
                assert!(!converts, "{}", route.id);
                both += 1;
            }
            (true, false) => old += 1,
            (false, true) => {
                assert!(converts, "{}", route.id);
                new += 1;
            }
            (false, false) => panic!("{} is of no set", route.id),
        }
    }
    assert!(old >= 25 && new >= 13 && both >= 10, "{old} {new} {both}");
}

#[test]
fn what_a_scenario_does_not_say_of_its_disk_is_the_golden_guests() {
    let plain = Scenario::new(
        UBUNTU,
        "hyperv-2008r2",
        "kvm-centos-6.3",
        "hyperv-vhd-qemu-img",
    );
    let report = report(&plain);
    let found = check(&report, "disk.content").map(|found| found.found.before.clone());
    assert_eq!(found.as_deref(), Some("8589934592 bytes"));
}
