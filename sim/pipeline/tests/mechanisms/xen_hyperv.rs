//! To and from XenServer and Hyper-V: their adapters, their firmware, and what a guest that lived there lacks.

use crate::{
    CENTOS, ESXI, UBUNTU, WINDOWS, after, chain, check, cites, edited, keeping_mac, library,
    remove_hwaddr, remove_rule, replace, scenario, scores, start,
};
use drylab_block::ReadAt;
use drylab_catalog::Score;
use drylab_catalog::device::device;
use drylab_scenario::{DescriptorEdit, Edit, Scenario};

const MODULES: &str = "/lib/modules/2.6.32-279.el6.x86_64";
const MENU: &str = "/boot/grub/grub.conf";

/// Routes that carry a CentOS of ESXi whole to Hyper-V.
const TO_HYPERV: [&str; 2] = ["esx-xenconvert-vhd", "esx-flat-qemu-img-10-vpc"];

/// Routes from XenServer to a machine with a BIOS.
const FROM_XEN: [&str; 3] = [
    "xen-vhd-qemu-img-vmdk",
    "xen-vhd-qemu-img",
    "xen-vhd-hyperv",
];

fn synthetic(mut scenario: Scenario) -> Scenario {
    scenario.target_vm.nic_model = Some("hyperv-nic".to_owned());
    scenario
}

/// What Microsoft's package of integration components adds to a CentOS 6.3: the modules of the bus, of the services, of
/// disks and of the adapter in a folder of their own, and the lines that depmod then writes.
fn integration_components() -> Vec<Edit> {
    let append = |name: &str, text: String| Edit::Append {
        path: format!("{MODULES}/{name}"),
        text,
    };
    let write = |name: &str| Edit::Write {
        path: format!("{MODULES}/{LIS}/{name}.ko"),
        text: format!("module {name}\n"),
    };
    let id = |name: &str| device(name).expect("a device of the catalogue").modalias();
    let needs = |name: &str| format!("{LIS}/{name}.ko: {LIS}/hv_vmbus.ko\n");
    let modules = ["hv_vmbus", "hv_utils", "hv_storvsc", "hv_netvsc"];
    let mut edits: Vec<Edit> = modules.iter().map(|name| write(name)).collect();
    let dep = [format!("{LIS}/hv_vmbus.ko:\n")];
    let others = modules.iter().skip(1).map(|name| needs(name));
    edits.push(append(
        "modules.dep",
        dep.into_iter().chain(others).collect(),
    ));
    let aliases = format!(
        "alias acpi*:VMBus:* hv_vmbus\nalias acpi*:VMBUS:* hv_vmbus\nalias {} hv_storvsc\nalias {} hv_netvsc\n",
        id("hyperv-scsi"),
        id("hyperv-nic")
    );
    edits.push(append("modules.alias", aliases));
    edits
}

const LIS: &str = "extra/microsoft-hyper-v";

/// One part of the integration components that is taken away, and what the report says then.
fn losses() -> Vec<(Edit, String)> {
    let gone = |name: &str| {
        let path = format!("{MODULES}/{LIS}/{name}.ko");
        let edit = Edit::Remove {
            path: path.clone(),
            if_present: false,
        };
        (edit, format!("{path}: is not there"))
    };
    let line = |file: &str, containing: &str, says: &str| {
        let edit = Edit::RemoveLines {
            path: format!("{MODULES}/{file}"),
            containing: containing.to_owned(),
        };
        (edit, says.to_owned())
    };
    vec![
        gone("hv_netvsc"),
        gone("hv_vmbus"),
        line(
            "modules.dep",
            &format!("{LIS}/hv_netvsc.ko:"),
            "has no line for hv_netvsc",
        ),
        line(
            "modules.dep",
            &format!("{LIS}/hv_vmbus.ko:"),
            "has no line for hv_vmbus",
        ),
        line("modules.alias", "hv_vmbus", "no module takes acpi:VMBUS:"),
        line("modules.alias", "hv_netvsc", "no module takes vmbus:"),
    ]
}

#[test]
fn the_synthetic_adapter_is_lost_with_any_one_part_of_its_drivers() {
    let whole = Scenario {
        edits: integration_components(),
        ..synthetic(keeping_mac(scenario(CENTOS, TO_HYPERV[1])))
    };
    scores(&whole, "guest.ip-address", Score::Success);
    for (loss, says) in losses() {
        let mut short = whole.clone();
        short.edits.push(loss);
        let lost = scores(&short, "guest.ip-address", Score::Failure);
        let why = chain(&lost, "guest.ip-address");
        assert!(why.contains(&says), "{says}: {why}");
    }
}

#[test]
fn an_alias_line_without_a_module_is_no_driver() {
    let alone = Scenario {
        edits: vec![Edit::Append {
            path: format!("{MODULES}/modules.alias"),
            text: "alias vmbus:635161f83edfc546913ff2d2f965ed0e hv_netvsc\n".to_owned(),
        }],
        ..synthetic(keeping_mac(scenario(CENTOS, TO_HYPERV[1])))
    };
    scores(&alone, "guest.ip-address", Score::Failure);
    // Nor is the legacy adapter driven by a line for a module that is gone.
    let gone = Edit::Remove {
        path: format!("{MODULES}/kernel/drivers/net/tulip/tulip.ko"),
        if_present: false,
    };
    let legacy = Scenario {
        edits: vec![gone],
        ..keeping_mac(scenario(CENTOS, TO_HYPERV[1]))
    };
    let lost = scores(&legacy, "guest.ip-address", Score::Failure);
    assert!(cites(&lost, "guest.ip-address", "DQ310"));
}

#[test]
fn an_adapter_whose_module_the_root_lost_keeps_the_driver_that_the_initramfs_loaded() {
    let mut plain = keeping_mac(scenario(UBUNTU, "esx-xenconvert-vhd"));
    plain.target_vm.nic_model = Some("dec21140".to_owned());
    scores(&plain, "guest.ip-address", Score::Success);
    let folder = "/lib/modules/3.2.0-23-generic/kernel/drivers/net/ethernet";
    plain.edits = vec![Edit::Remove {
        path: format!("{folder}/dec/tulip/tulip.ko"),
        if_present: false,
    }];
    scores(&plain, "guest.ip-address", Score::Success);
    plain.edits.push(Edit::RemoveModule {
        module: "tulip".to_owned(),
    });
    let lost = scores(&plain, "guest.ip-address", Score::Failure);
    assert!(cites(&lost, "guest.ip-address", "DQ310"));
}

#[test]
fn removing_what_is_not_there_is_refused_unless_the_edit_allows_it() {
    let remove = |if_present: bool| {
        let edit = Edit::Remove {
            path: "/etc/udev/rules.d/70-persistant-net.rules".to_owned(),
            if_present,
        };
        edited(CENTOS, TO_HYPERV[1], &[edit])
    };
    let typo = library().source_disk(&remove(false));
    let says = typo
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        says.contains("has no file /etc/udev/rules.d/70-persistant-net.rules to remove"),
        "{says}"
    );
    assert!(library().source_disk(&remove(true)).is_ok());
}

#[test]
fn the_synthetic_adapter_of_hyperv_works_in_centos_exactly_when_its_drivers_were_added() {
    for route in TO_HYPERV {
        let without = synthetic(keeping_mac(scenario(CENTOS, route)));
        let lost = scores(&without, "guest.ip-address", Score::Failure);
        assert!(
            chain(&lost, "guest.ip-address").contains("no module takes vmbus:"),
            "{}",
            chain(&lost, "guest.ip-address")
        );
        let with = Scenario {
            edits: integration_components(),
            ..without
        };
        scores(&with, "guest.ip-address", Score::Success);
        // The adapter works; whether its address is the one it was bound to is decided as anywhere else.
        let mut drawn = with.clone();
        drawn.target_vm.mac = None;
        scores(&drawn, "guest.ip-address", Score::Failure);
        drawn.edits.extend([remove_rule(), remove_hwaddr()]);
        let free = scores(&drawn, "guest.ip-address", Score::Warning);
        assert_eq!(after(&free, "guest.interface-name"), "eth0");
    }
}

#[test]
fn the_legacy_adapter_of_hyperv_works_in_centos_as_it_is_and_its_address_decides() {
    for route in TO_HYPERV {
        let kept = scores(
            &keeping_mac(scenario(CENTOS, route)),
            "guest.ip-address",
            Score::Success,
        );
        assert_eq!(after(&kept, "guest.interface-name"), "eth0");
        let drawn = scores(&scenario(CENTOS, route), "guest.ip-address", Score::Failure);
        assert!(cites(&drawn, "guest.ip-address", "GQ01"), "{route}");
        assert_eq!(after(&drawn, "guest.ip-address"), "none");
    }
}

#[test]
fn a_dynamic_address_drawn_anew_by_the_other_host_is_what_takes_centos_its_network() {
    let plain = scenario(CENTOS, "hyperv-native-import");
    let drawn = scores(&plain, "guest.ip-address", Score::Failure);
    assert!(cites(&drawn, "guest.mac", "HQ75"));
    let kept = scores(
        &keeping_mac(plain.clone()),
        "guest.ip-address",
        Score::Success,
    );
    assert_ne!(after(&drawn, "guest.mac"), after(&kept, "guest.mac"));
    let unbound = edited(
        CENTOS,
        "hyperv-native-import",
        &[remove_rule(), remove_hwaddr()],
    );
    scores(&unbound, "guest.ip-address", Score::Warning);
}

#[test]
fn with_a_xen_front_end_at_the_target_the_hwaddr_line_alone_decides() {
    for route in ["esx-ovf-xencenter", "esx-vmdk-xencenter", "xen-native-xva"] {
        for edits in [vec![], vec![remove_rule()]] {
            // A machine installed on XenServer has no rule to remove.
            if route == "xen-native-xva" && !edits.is_empty() {
                continue;
            }
            let bound = scores(
                &edited(CENTOS, route, &edits),
                "guest.ip-address",
                Score::Failure,
            );
            assert!(
                cites(&bound, "guest.ip-address", "GQ07"),
                "{route}: {}",
                chain(&bound, "guest.ip-address")
            );
            assert_eq!(after(&bound, "guest.interface-name"), "eth0", "{route}");
        }
        let free = scores(
            &edited(CENTOS, route, &[remove_hwaddr()]),
            "guest.ip-address",
            Score::Warning,
        );
        assert_eq!(after(&free, "guest.interface-name"), "eth0", "{route}");
    }
}

#[test]
fn with_a_xen_front_end_at_the_source_there_is_no_rule_and_the_hwaddr_line_alone_decides() {
    for route in FROM_XEN {
        let bound = edited(CENTOS, route, &boot_loader());
        scores(&bound, "guest.ip-address", Score::Failure);
        let mut free = bound.clone();
        free.edits.push(remove_hwaddr());
        let free = scores(&free, "guest.ip-address", Score::Warning);
        assert_eq!(after(&free, "guest.interface-name"), "eth0", "{route}");
    }
}

/// Boot code and stage 1.5 of the same guest where an installer wrote them; the partition table stays.
fn boot_loader() -> Vec<Edit> {
    let elsewhere = Scenario::new(CENTOS, ESXI, ESXI, "none");
    let disk = library().source_disk(&elsewhere).expect("a golden disk");
    let bytes = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        disk.disk
            .bytes
            .read_at(offset, &mut bytes)
            .expect("a sector");
        assert!(bytes.iter().any(|byte| *byte != 0));
        Edit::Bytes {
            offset,
            hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    };
    vec![bytes(0, 440), bytes(512, 512)]
}

#[test]
fn a_paravirtual_source_boots_on_a_bios_exactly_when_its_boot_loader_was_installed() {
    for route in FROM_XEN {
        let bare = scores(&scenario(CENTOS, route), "guest.boots", Score::Failure);
        assert!(cites(&bare, "guest.boots", "GQ40"), "{route}");
        scores(
            &edited(CENTOS, route, &boot_loader()),
            "guest.boots",
            Score::Success,
        );
    }
    // pygrub reads the menu, so that at home it makes no difference.
    scores(
        &scenario(CENTOS, "xen-native-xva"),
        "guest.boots",
        Score::Success,
    );
}

/// The package of XenCenter without the elements that only XenCenter reads, as another tool would have written it.
fn of_another_tool(edits: &[Edit]) -> Scenario {
    let mut plain = edited(CENTOS, "xen-native-ovf", edits);
    plain.descriptor_edits = vec![DescriptorEdit {
        from: "VirtualSystemOtherConfigurationData".to_owned(),
        to: "Unknown".to_owned(),
    }];
    plain
}

#[test]
fn a_paravirtual_source_shown_a_whole_machine_on_xenserver_needs_its_boot_loader_too() {
    // pygrub reads the menu: neither at home nor after a move that keeps the machine's kind it needs boot code.
    for loader in [Vec::new(), boot_loader()] {
        let kept = edited(CENTOS, "xen-native-ovf", &loader);
        scores(&kept, "guest.boots", Score::Success);
    }
    // What said that the machine is paravirtual is gone: the import makes one with a BIOS.
    let bare = scores(&of_another_tool(&[]), "guest.boots", Score::Failure);
    assert!(
        cites(&bare, "guest.boots", "GQ40"),
        "{}",
        chain(&bare, "guest.boots")
    );
    let source = check(&bare, "source.sanity").expect("it is looked at");
    assert_eq!(source.score, Some(Score::Success), "at home it boots");
    scores(
        &of_another_tool(&boot_loader()),
        "guest.boots",
        Score::Success,
    );
}

#[test]
fn without_the_xen_front_end_in_the_initramfs_the_root_is_lost_unless_nothing_is_unplugged() {
    let without = Edit::RemoveModule {
        module: "xen_blkfront".to_owned(),
    };
    let never = replace(MENU, "rhgb quiet", "xen_emul_unplug=never rhgb quiet");
    for route in [
        "esx-ovf-xencenter",
        "esx-vmdk-xencenter",
        "esx-xenconvert-ovf",
    ] {
        let lost = scores(
            &edited(CENTOS, route, std::slice::from_ref(&without)),
            "guest.boots",
            Score::Failure,
        );
        assert!(
            cites(&lost, "guest.boots", "HQ83"),
            "{route}: {}",
            chain(&lost, "guest.boots")
        );
        let emulated = [without.clone(), never.clone()];
        let booted = scores(
            &keeping_mac(edited(CENTOS, route, &emulated)),
            "guest.boots",
            Score::Success,
        );
        // Neither is the adapter: the emulated one is on PCI, where rules are written.
        assert_eq!(after(&booted, "guest.interface-name"), "eth0", "{route}");
        scores(&scenario(CENTOS, route), "guest.boots", Score::Success);
    }
}

#[test]
fn windows_stops_with_7b_on_hyperv_when_its_ide_drivers_are_not_boot_start() {
    let route = "esx-flat-qemu-img-10-vpc";
    scores(&scenario(WINDOWS, route), "guest.boots", Score::Success);
    for (service, value) in [("atapi", 3), ("atapi", 4), ("atapi", 1), ("intelide", 3)] {
        let stopped = scores(
            &edited(WINDOWS, route, &[start(service, value)]),
            "guest.boots",
            Score::Failure,
        );
        let why = chain(&stopped, "guest.boots");
        assert!(why.contains("0x0000007B"), "{why}");
        assert!(why.to_lowercase().contains(service), "{why}");
        // XenConvert makes both boot-start again on its way to the same machine.
        scores(
            &edited(WINDOWS, "esx-xenconvert-vhd", &[start(service, value)]),
            "guest.boots",
            Score::Success,
        );
    }
    scores(
        &edited(WINDOWS, route, &[start("atapi", 0)]),
        "guest.boots",
        Score::Success,
    );
}

#[test]
fn windows_with_atapi_switched_off_does_not_start_where_it_lives_on_ide_either() {
    for route in ["xen-vhd-hyperv", "hyperv-native-import"] {
        let stopped = edited(WINDOWS, route, &[start("atapi", 3)]);
        let stopped = scores(&stopped, "source.sanity", Score::Failure);
        assert!(chain(&stopped, "source.sanity").contains("0x0000007B"));
    }
}

#[test]
fn ubuntu_has_a_driver_of_its_own_for_both_adapters_of_hyperv() {
    let plain = scenario(UBUNTU, "esx-xenconvert-vhd");
    for model in ["hyperv-nic", "dec21140"] {
        let mut chosen = plain.clone();
        chosen.target_vm.nic_model = Some(model.to_owned());
        scores(&chosen, "guest.ip-address", Score::Warning);
    }
}
