//! Between ESXi and KVM.

use crate::{
    IFCFG, KVM, RULES, after, cites, keeping_mac, library, remove_hwaddr, remove_rule, report,
    scenario, score, start,
};
use drylab_catalog::{Mac, Score};
use drylab_pipeline::Overall;
use drylab_scenario::{Edit, Scenario};

/// Every route of the table that carries a disk whole to its target, where it boots.
fn carrying_routes(guest: &str) -> Vec<Scenario> {
    let all = library()
        .routes
        .iter()
        .map(|route| scenario(guest, &route.id));
    all.filter(|scenario| {
        let report = report(scenario);
        let is = |id| score(&report, id) == Some(Score::Success);
        is("disk.content") && is("guest.boots")
    })
    .collect()
}

#[test]
fn centos_has_no_address_failure_wherever_its_mac_is_kept() {
    let routes = carrying_routes("centos-6.3");
    assert!(routes.len() >= 20, "{} routes carry a disk", routes.len());
    for scenario in routes {
        let scenario = keeping_mac(scenario);
        let report = report(&scenario);
        assert_eq!(
            score(&report, "guest.ip-address"),
            Some(Score::Success),
            "{}: {}",
            scenario.route,
            report.signature()
        );
        assert_eq!(
            after(&report, "guest.interface-name"),
            "eth0",
            "{}",
            scenario.route
        );
    }
}

#[test]
fn centos_needs_both_the_rule_and_the_hwaddr_line_gone() {
    for route in [
        "esxi-native-ovf",
        "esx-flat-virt-manager",
        "kvm-qemu-img-vmkfstools",
    ] {
        let with = |edits: Vec<Edit>| {
            report(&Scenario {
                edits,
                ..scenario("centos-6.3", route)
            })
        };
        for one in [vec![], vec![remove_rule()], vec![remove_hwaddr()]] {
            let report = with(one.clone());
            assert_eq!(
                score(&report, "guest.ip-address"),
                Some(Score::Failure),
                "{route} {one:?}"
            );
            assert_eq!(
                after(&report, "guest.ip-address"),
                "none",
                "{route} {one:?}"
            );
        }
        let cured = with(vec![remove_rule(), remove_hwaddr()]);
        assert_eq!(
            score(&cured, "guest.ip-address"),
            Some(Score::Warning),
            "{route}: {}",
            cured.signature()
        );
        assert_eq!(after(&cured, "guest.interface-name"), "eth0", "{route}");
        assert_eq!(
            score(&cured, "guest.gateway"),
            Some(Score::Success),
            "{route}"
        );
    }
}

#[test]
fn the_rule_alone_and_the_hwaddr_line_alone_are_named_as_causes() {
    let report = |edits| {
        report(&Scenario {
            edits,
            ..scenario("centos-6.3", "esxi-native-ovf")
        })
    };
    assert!(cites(
        &report(vec![remove_hwaddr()]),
        "guest.ip-address",
        "GQ01"
    ));
    assert!(cites(
        &report(vec![remove_rule()]),
        "guest.ip-address",
        "GQ02"
    ));
}

#[test]
fn ubuntu_loses_its_address_only_between_macs_that_its_generator_does_not_skip() {
    // 00:1b:21 is an adapter vendor's: no skip line of the generator has it.
    let unskipped = |last: u8| Mac([0x00, 0x1b, 0x21, 0x00, 0x00, last]);
    let rule = |mac: Mac| {
        format!(
            "# PCI device 0x8086:0x100f (e1000)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\", \
             ATTR{{dev_id}}==\"0x0\", ATTR{{type}}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"
        )
    };
    for route in ["esxi-native-ovf", "esx-flat-virt-manager"] {
        let mut moved = scenario("ubuntu-12.04", route);
        moved.source_vm.mac = Some(unskipped(1));
        moved.edits = vec![Edit::Write {
            path: RULES.to_owned(),
            text: rule(unskipped(1)),
        }];
        let default_target = report(&moved);
        assert_eq!(
            after(&default_target, "guest.interface-name"),
            "eth0",
            "{route}"
        );
        assert_ne!(
            after(&default_target, "guest.ip-address"),
            "none",
            "{route}"
        );
        moved.target_vm.mac = Some(unskipped(2));
        let unlucky = report(&moved);
        assert_eq!(
            score(&unlucky, "guest.ip-address"),
            Some(Score::Failure),
            "{route}: {}",
            unlucky.signature()
        );
        assert_eq!(after(&unlucky, "guest.interface-name"), "eth1", "{route}");
    }
}

#[test]
fn a_centos_with_network_manager_gets_an_address() {
    let managed = vec![
        Edit::Write {
            path: "/usr/sbin/NetworkManager".to_owned(),
            text: "a program\n".to_owned(),
        },
        Edit::Write {
            path: "/etc/rc.d/rc3.d/S23NetworkManager".to_owned(),
            text: "#!/bin/bash\n".to_owned(),
        },
        Edit::Replace {
            path: IFCFG.to_owned(),
            from: "NM_CONTROLLED=\"no\"".to_owned(),
            to: "NM_CONTROLLED=\"yes\"".to_owned(),
        },
    ];
    let report = report(&Scenario {
        edits: managed,
        ..scenario("centos-6.3", "esxi-native-ovf")
    });
    assert_eq!(
        score(&report, "guest.ip-address"),
        Some(Score::Warning),
        "{}",
        report.signature()
    );
    assert!(cites(&report, "guest.ip-address", "GQ23"));
}

#[test]
fn windows_boots_on_ide_exactly_when_its_ide_drivers_are_boot_start_and_known() {
    let forget = |device: &str| Edit::DeleteKey {
        hive: "SYSTEM".to_owned(),
        key: format!("ControlSet001\\Control\\CriticalDeviceDatabase\\{device}"),
    };
    let boots = |edits: Vec<Edit>| {
        let report = report(&Scenario {
            edits,
            ..scenario("windows-2008r2", "esx-flat-virt-manager")
        });
        (score(&report, "guest.boots"), report)
    };
    assert_eq!(boots(vec![]).0, Some(Score::Success));
    assert_eq!(
        boots(vec![start("intelide", 0), start("atapi", 0)]).0,
        Some(Score::Success)
    );
    for (service, value) in [("intelide", 3), ("atapi", 3), ("intelide", 4), ("atapi", 1)] {
        let (score, report) = boots(vec![start(service, value)]);
        assert_eq!(score, Some(Score::Failure), "{service} Start={value}");
        let chain: Vec<String> = report
            .checks
            .iter()
            .flat_map(|check| &check.found.witness)
            .map(ToString::to_string)
            .collect();
        assert!(
            chain
                .iter()
                .any(|link| link.to_lowercase().contains(service) && link.contains("Start")),
            "{service}: {chain:?}"
        );
    }
    let controllers = [
        "pci#ven_8086&dev_7010",
        "pci#cc_0101",
        "pci#ven_8086&cc_0101",
        "pci#ven_8086",
    ];
    let (score, report) = boots(controllers.map(forget).into());
    assert_eq!(score, Some(Score::Failure), "{}", report.signature());
}

#[test]
fn windows_does_not_boot_anywhere_when_its_boot_configuration_names_another_disk_signature() {
    let mut moved = scenario("windows-2008r2", "esx-flat-virt-manager");
    moved.edits = vec![Edit::Bytes {
        offset: 0x1b8,
        hex: "01020304".to_owned(),
    }];
    let report = report(&moved);
    assert_eq!(
        score(&report, "source.sanity"),
        Some(Score::Failure),
        "the source boots by it too"
    );
    let chain: Vec<String> = report
        .checks
        .iter()
        .flat_map(|check| &check.found.witness)
        .map(ToString::to_string)
        .collect();
    assert!(
        chain.iter().any(|link| link.contains("04030201")),
        "{chain:?}"
    );
}

#[test]
fn windows_does_not_boot_on_a_controller_whose_driver_is_not_boot_start() {
    let mut by_hand = scenario("windows-2008r2", "kvm-qemu-img-vmkfstools");
    by_hand.target_vm.controller = Some("lsisas1068".to_owned());
    let stopped = report(&by_hand);
    assert_eq!(score(&stopped, "guest.boots"), Some(Score::Failure));
    by_hand.edits = vec![Edit::SetDword {
        hive: "SYSTEM".to_owned(),
        key: "ControlSet001\\Services\\LSI_SAS".to_owned(),
        value: "Start".to_owned(),
        data: 0,
    }];
    let cured = report(&by_hand);
    assert_eq!(
        score(&cured, "guest.boots"),
        Some(Score::Success),
        "{}",
        cured.signature()
    );
}

#[test]
fn without_virtio_in_the_initramfs_the_root_is_not_found_on_virtio_and_still_on_ide() {
    let mut moved = scenario("centos-6.3", "esx-flat-virt-manager");
    assert_eq!(score(&report(&moved), "guest.boots"), Some(Score::Success));
    moved.edits = vec![Edit::RemoveModule {
        module: "virtio_blk".to_owned(),
    }];
    let lost = report(&moved);
    assert_eq!(score(&lost, "guest.boots"), Some(Score::Failure));
    assert_eq!(lost.overall, Overall::Failure);
    moved.target_vm.controller = Some("piix3-ide".to_owned());
    assert_eq!(score(&report(&moved), "guest.boots"), Some(Score::Success));
}

#[test]
fn a_root_named_by_device_is_not_found_where_the_controller_names_it_otherwise() {
    let mut moved = scenario("ubuntu-12.04", "esx-flat-virt-manager");
    moved.edits = vec![Edit::Replace {
        path: "/boot/grub/grub.cfg".to_owned(),
        from: "root=UUID=1f7b9c54-2a83-4d0e-b6f1-90c3e5d72a04".to_owned(),
        to: "root=/dev/sda1".to_owned(),
    }];
    assert_eq!(
        score(&report(&moved), "guest.boots"),
        Some(Score::Success),
        "on IDE the disk is sda too"
    );
    moved.target_vm.controller = Some("virtio-blk".to_owned());
    let lost = report(&moved);
    assert_eq!(
        score(&lost, "guest.boots"),
        Some(Score::Failure),
        "{}",
        lost.signature()
    );
    assert!(cites(&lost, "guest.boots", "GQ37"));
    moved.edits.clear();
    assert_eq!(
        score(&report(&moved), "guest.boots"),
        Some(Score::Success),
        "by UUID it is found on virtio"
    );
}

#[test]
fn a_static_address_outside_the_targets_subnet_has_an_address_and_no_gateway() {
    let mut moved = scenario("ubuntu-12.04", "esx-flat-virt-manager");
    moved.edits = vec![Edit::Write {
        path: "/etc/network/interfaces".to_owned(),
        text: "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n address 10.20.0.77\n netmask 255.255.255.0\n gateway 10.20.0.1\n".to_owned(),
    }];
    let same = report(&moved);
    assert_eq!(
        score(&same, "guest.gateway"),
        Some(Score::Success),
        "{}",
        same.signature()
    );
    moved.lab.target_network = drylab_scenario::TargetNetwork::OtherSubnet;
    let other = report(&moved);
    assert_eq!(
        score(&other, "guest.ip-address"),
        Some(Score::Success),
        "it keeps the address"
    );
    assert_eq!(
        score(&other, "guest.gateway"),
        Some(Score::Failure),
        "nobody there answers for it"
    );
}

#[test]
fn a_target_without_room_fails_the_resource_check_and_not_the_import() {
    for (free, expected) in [
        ((8u64 << 30) - 1, Score::Failure),
        (8 << 30, Score::Success),
    ] {
        let mut moved = scenario("ubuntu-12.04", "esxi-native-ovf");
        moved.lab.datastore_free = Some(free);
        let report = report(&moved);
        assert_eq!(
            score(&report, "target.datastore-space"),
            Some(expected),
            "{free}"
        );
        assert_eq!(
            score(&report, "import.completes").is_some(),
            expected == Score::Success
        );
    }
}

#[test]
fn what_is_only_at_the_source_is_never_read_at_the_target() {
    // The same guest installed on the other product has other rules: the outcome follows the bytes, not the names.
    let esxi = report(&scenario("centos-6.3", "esxi-native-ovf"));
    assert_eq!(score(&esxi, "guest.ip-address"), Some(Score::Failure));
    let neutral = Scenario {
        edits: vec![remove_rule(), remove_hwaddr()],
        ..scenario("centos-6.3", "kvm-qemu-img-vmkfstools")
    };
    assert_ne!(after(&report(&neutral), "guest.ip-address"), "none");
    assert_eq!(neutral.source.as_str(), KVM);
}
