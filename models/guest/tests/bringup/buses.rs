//! Adapters on the buses of Xen and Hyper-V, and those these hosts emulate: which driver takes them, what they are
//! called, whether they get an address.

use super::golden::{golden, start};
use super::linux::add_modules;
use super::windows::{dhcp, image, known};
use super::{cites, lab, nic};
use drylab_catalog::Nic;
use drylab_guest::Tree;
use drylab_guest::inspect::{Guest, System};
use drylab_guest::net::linux::{Events, LinuxBootNet, ifcfg};
use drylab_guest::net::windows::{InfDriver, WindowsNet};
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_linux, bring_up_windows};
use std::collections::BTreeMap;

const CENTOS: &str = "centos-6.3";
const UBUNTU: &str = "ubuntu-12.04";
const WINDOWS: &str = "windows-2008r2";
const RULES: &str = "/etc/udev/rules.d/70-persistent-net.rules";
const KERNEL: &str = "2.6.32-279.el6.x86_64";
/// As XenServer draws them, and as Hyper-V's pool gives them.
const XEN_MAC: &str = "9e:2c:41:00:00:01";
const HYPERV_MAC: &str = "00:15:5d:01:b7:02";

/// An adapter that is not on PCI.
fn off_pci(model: &str, mac: &str) -> Nic {
    Nic {
        slot: None,
        ..nic(model, mac, 0, "VM Network")
    }
}

fn tree(guest: &Guest) -> Tree {
    guest.tree.clone()
}

/// Brings the guest up with other files.
fn changed(guest: &Guest, tree: Tree, nics: &[Nic], seed: u64) -> NetReport {
    let System::Linux(linux) = &guest.system else {
        panic!("Linux");
    };
    let boot = LinuxBootNet {
        kernel: linux
            .kernel
            .as_ref()
            .expect("a kernel")
            .version
            .value
            .clone(),
        addr_assign_type: Some(0),
        events: Events::Together,
        early: BTreeMap::new(),
    };
    let decisions = NetDecisions {
        seed,
        ..NetDecisions::default()
    };
    bring_up_linux(tree, nics, &boot, &mut lab(), 0, &decisions)
}

fn replace(tree: &mut Tree, path: &str, change: impl Fn(&str) -> String) {
    let text = tree.text(path).unwrap_or_default().into_owned();
    tree.write(path, change(&text).into_bytes());
}

fn without_hwaddr(tree: &mut Tree) {
    replace(tree, &format!("{}/ifcfg-eth0", ifcfg::DIRECTORY), |text| {
        let kept = text.lines().filter(|line| !line.starts_with("HWADDR"));
        kept.map(|line| format!("{line}\n")).collect()
    });
}

fn name(report: &NetReport) -> &str {
    report
        .interfaces
        .first()
        .map_or("", |found| found.name.as_str())
}

#[test]
fn a_xen_front_end_stays_eth0_and_only_hwaddr_keeps_centos_from_an_address() {
    for source in ["esxi-5.0.0", "kvm-centos-6.3"] {
        let guest = golden(CENTOS, source);
        let front = [off_pci("xen-vif", XEN_MAC)];
        let report = changed(&guest, tree(&guest), &front, 0);
        assert_eq!(name(&report), "eth0");
        assert_eq!(report.interfaces[0].driver.as_deref(), Some("xen_netfront"));
        assert!(report.primary().is_none());
        assert!(cites(&report, "interface-name", "GQ07") && cites(&report, "ip-address", "GQ03"));
        let mut cured = tree(&guest);
        without_hwaddr(&mut cured);
        let report = changed(&guest, cured, &front, 0);
        assert_eq!(
            report.primary().map(|found| found.origin),
            Some(Origin::Dhcp)
        );
        let ubuntu = golden(UBUNTU, source);
        let report = changed(&ubuntu, tree(&ubuntu), &front, 0);
        assert_eq!(name(&report), "eth0");
        assert!(report.primary().is_some(), "{:#?}", report.witnesses);
    }
}

#[test]
fn a_guest_from_a_front_end_has_no_rule_but_its_hwaddr_reserves_eth0() {
    let guest = golden(CENTOS, "esxi-5.0.0");
    let from_xen = |mac: &str| {
        let mut files = tree(&guest);
        files.write(RULES, Vec::new());
        replace(
            &mut files,
            &format!("{}/ifcfg-eth0", ifcfg::DIRECTORY),
            |text| text.replace("00:0C:29:4F:8E:35", &mac.to_uppercase()),
        );
        files
    };
    let target = [nic("e1000-82545em", "00:0c:29:11:22:33", 2, "VM Network")];
    for (mac, quirk) in [
        (XEN_MAC, "GQ08"),
        ("00:16:3e:01:02:03", "GQ08"),
        ("00:0c:29:01:02:03", "GQ02"),
        ("52:54:00:01:02:03", "GQ02"),
    ] {
        let report = changed(&guest, from_xen(mac), &target, 0);
        assert_eq!(name(&report), "eth1", "{mac}");
        assert!(report.primary().is_none());
        assert!(
            cites(&report, "interface-name", quirk),
            "{mac}: {:#?}",
            report.witnesses
        );
    }
    let mut cured = from_xen(XEN_MAC);
    without_hwaddr(&mut cured);
    let report = changed(&guest, cured, &target, 0);
    assert_eq!((name(&report), report.primary().is_some()), ("eth0", true));
}

#[test]
fn on_xen_the_emulated_adapter_is_an_rtl8139_that_both_guests_drive() {
    let emulated = nic("rtl8139-xen", XEN_MAC, 4, "VM Network");
    for guest in [CENTOS, UBUNTU] {
        let report = start(
            &golden(guest, "esxi-5.0.0"),
            None,
            emulated.clone(),
            &mut lab(),
        );
        assert_eq!(
            report.interfaces[0].driver.as_deref(),
            Some("8139cp"),
            "{guest}"
        );
        assert_eq!(report.primary().is_some(), guest == UBUNTU);
    }
}

#[test]
fn centos_has_no_driver_for_the_synthetic_adapter_and_ubuntu_has() {
    let synthetic = off_pci("hyperv-nic", HYPERV_MAC);
    for source in ["esxi-5.0.0", "kvm-centos-6.3"] {
        let report = start(&golden(CENTOS, source), None, synthetic.clone(), &mut lab());
        assert_eq!((report.interfaces.len(), report.driverless.len()), (0, 1));
        for fact in ["driver", "interface-name"] {
            assert!(cites(&report, fact, "GQ30"), "{:#?}", report.witnesses);
        }
        let report = start(&golden(UBUNTU, source), None, synthetic.clone(), &mut lab());
        assert_eq!(report.interfaces[0].driver.as_deref(), Some("hv_netvsc"));
        assert_eq!(
            report.primary().map(|found| found.name.as_str()),
            Some("eth0")
        );
        assert!(!cites(&report, "driver", "GQ30"));
    }
}

/// CentOS with the drivers of the integration services in its modules tree.
fn with_services(guest: &Guest) -> Tree {
    let mut files = tree(guest);
    let directory = format!("/lib/modules/{KERNEL}");
    replace(&mut files, &format!("{directory}/modules.alias"), |text| {
        format!(
            "{text}alias acpi*:VMBUS:* hv_vmbus\nalias vmbus:635161f83edfc546913ff2d2f965ed0e hv_netvsc\n"
        )
    });
    add_modules(&mut files, &[NETVSC, "extra/hv_vmbus.ko:"]);
    files
}

const NETVSC: &str = "extra/hv_netvsc.ko: extra/hv_vmbus.ko";

/// Something of the integration services that is taken away again: what, and what is then said.
type Loss = (&'static str, fn(&mut Tree), &'static str, &'static str);

#[test]
fn each_part_of_the_integration_services_is_needed_and_the_one_that_is_missing_is_named() {
    let guest = golden(CENTOS, "esxi-5.0.0");
    let kept = [off_pci("hyperv-nic", "00:0c:29:4f:8e:35")];
    let losses: [Loss; 6] = [
        (
            "the adapter's module",
            |tree| assert!(tree.remove(&format!("/lib/modules/{KERNEL}/extra/hv_netvsc.ko"))),
            "extra/hv_netvsc.ko",
            "is not there",
        ),
        (
            "the bus's module",
            |tree| assert!(tree.remove(&format!("/lib/modules/{KERNEL}/extra/hv_vmbus.ko"))),
            "extra/hv_vmbus.ko",
            "is not there",
        ),
        (
            "the adapter's line of modules.dep",
            |tree| without_lines(tree, "modules.dep", NETVSC),
            "modules.dep",
            "has no line for hv_netvsc",
        ),
        (
            "the bus's line of modules.dep",
            |tree| without_lines(tree, "modules.dep", "extra/hv_vmbus.ko:"),
            "modules.dep",
            "has no line for hv_vmbus",
        ),
        (
            "the bus's alias",
            |tree| without_lines(tree, "modules.alias", "hv_vmbus"),
            "modules.alias",
            "no module takes acpi:VMBUS:",
        ),
        (
            "the adapter's alias",
            |tree| without_lines(tree, "modules.alias", "hv_netvsc"),
            "modules.alias",
            "no module takes vmbus:",
        ),
    ];
    let whole = changed(&guest, with_services(&guest), &kept, 0);
    assert!(whole.primary().is_some(), "{:#?}", whole.witnesses);
    for (what, lose, place, says) in losses {
        let mut files = with_services(&guest);
        lose(&mut files);
        let report = changed(&guest, files, &kept, 0);
        assert!(
            report.primary().is_none() && report.driverless.len() == 1,
            "without {what}: {:#?}",
            report.witnesses
        );
        let named = report.witnesses["driver"].iter().any(|witness| {
            witness.place.to_string().contains(place) && witness.says.contains(says)
        });
        assert!(named, "without {what}: {:#?}", report.witnesses["driver"]);
    }
}

fn without_lines(tree: &mut Tree, file: &str, containing: &str) {
    replace(tree, &format!("/lib/modules/{KERNEL}/{file}"), |text| {
        let lines = text.split_inclusive('\n');
        lines.filter(|line| !line.contains(containing)).collect()
    });
}

#[test]
fn an_adapter_on_pci_is_lost_with_its_module_or_with_one_that_it_needs() {
    let guest = golden(CENTOS, "esxi-5.0.0");
    for (model, module, needs) in [
        ("dec21140", "tulip/tulip.ko", None),
        ("rtl8139", "8139cp.ko", Some("mii.ko")),
    ] {
        let adapter = [nic(model, HYPERV_MAC, 10, "VM Network")];
        let mut files = tree(&guest);
        // The twin for other revisions does not help.
        assert_eq!(
            changed(&guest, files.clone(), &adapter, 0).interfaces.len(),
            1
        );
        for lost in std::iter::once(module).chain(needs) {
            let path = format!("/lib/modules/{KERNEL}/kernel/drivers/net/{lost}");
            let before = files
                .read(&path)
                .map(<[u8]>::to_vec)
                .expect("the golden guest has it");
            files.remove(&path);
            let report = changed(&guest, files.clone(), &adapter, 0);
            assert_eq!((report.interfaces.len(), report.driverless.len()), (0, 1));
            assert!(cites(&report, "driver", "DQ310"));
            let named = report.witnesses["driver"].iter();
            assert!(
                named
                    .clone()
                    .any(|witness| witness.place.to_string() == path),
                "{path}: {named:#?}"
            );
            files.write(path, before);
        }
    }
}

#[test]
fn the_integration_services_make_the_synthetic_adapter_work_once_hwaddr_and_rule_are_gone() {
    let guest = golden(CENTOS, "esxi-5.0.0");
    let synthetic = [off_pci("hyperv-nic", HYPERV_MAC)];
    let report = changed(&guest, with_services(&guest), &synthetic, 0);
    assert!(report.driverless.is_empty() && !cites(&report, "driver", "GQ30"));
    assert_eq!((name(&report), report.primary().is_some()), ("eth1", false));
    assert!(
        cites(&report, "interface-name", "GQ01"),
        "the MAC rules decide"
    );
    let mut cured = with_services(&guest);
    without_hwaddr(&mut cured);
    cured.write(RULES, Vec::new());
    let report = changed(&guest, cured, &synthetic, 0);
    assert_eq!(
        (name(&report), report.primary().is_some()),
        ("eth0", true),
        "{:#?}",
        report.witnesses
    );
    let kept = [off_pci("hyperv-nic", "00:0c:29:4f:8e:35")];
    let report = changed(&guest, with_services(&guest), &kept, 0);
    assert_eq!(
        (name(&report), report.primary().is_some()),
        ("eth0", true),
        "the MAC is kept"
    );
}

#[test]
fn the_legacy_adapter_is_driven_by_tulip_and_then_the_mac_rules_decide() {
    let guest = golden(CENTOS, "esxi-5.0.0");
    let legacy = nic("dec21140", HYPERV_MAC, 10, "VM Network");
    let report = start(&guest, None, legacy.clone(), &mut lab());
    assert_eq!(report.interfaces[0].driver.as_deref(), Some("tulip"));
    assert_eq!((name(&report), report.primary().is_some()), ("eth1", false));
    let why = &report.witnesses["interface-name"];
    let quirks: Vec<String> = why
        .iter()
        .map(|witness| witness.place.to_string())
        .filter(|place| place.starts_with("GQ"))
        .collect();
    assert_eq!(
        quirks,
        ["GQ01", "GQ31"],
        "the cause stands before what the naming rests on"
    );
    let mut cured = tree(&guest);
    without_hwaddr(&mut cured);
    cured.write(RULES, Vec::new());
    let report = changed(&guest, cured, std::slice::from_ref(&legacy), 0);
    assert_eq!((name(&report), report.primary().is_some()), ("eth0", true));
    let report = start(&golden(UBUNTU, "esxi-5.0.0"), None, legacy, &mut lab());
    assert_eq!(report.interfaces[0].driver.as_deref(), Some("tulip"));
    assert!(report.primary().is_some() && !cites(&report, "interface-name", "GQ31"));
}

#[test]
fn two_synthetic_adapters_are_offered_in_an_order_that_only_rules_fix() {
    let guest = golden(UBUNTU, "esxi-5.0.0");
    let both = [
        off_pci("hyperv-nic", HYPERV_MAC),
        off_pci("hyperv-nic", "00:15:5d:01:b7:03"),
    ];
    let first = |seed: u64| {
        let report = changed(&guest, tree(&guest), &both, seed);
        assert!(cites(&report, "interface-name", "GQ18"));
        let eth0 = report
            .interfaces
            .iter()
            .find(|found| found.name == "eth0")
            .expect("there");
        // Whatever the order, an interface keeps the port its own adapter is plugged into.
        let at = both
            .iter()
            .position(|nic| nic.mac == eth0.mac)
            .expect("one of them");
        assert_eq!(eth0.port, report.ports[at]);
        at
    };
    let orders: Vec<usize> = (0..32).map(first).collect();
    assert!(orders.contains(&0) && orders.contains(&1), "{orders:?}");
    let pci = [
        nic("e1000-82545em", "00:0c:29:00:00:01", 3, "VM Network"),
        nic("e1000-82545em", "00:0c:29:00:00:02", 4, "VM Network"),
    ];
    for seed in 0..8 {
        let report = changed(&guest, tree(&guest), &pci, seed);
        assert_eq!(report.interfaces[0].mac, pci[0].mac);
        assert!(!cites(&report, "interface-name", "GQ18"));
    }
}

#[test]
fn which_class_of_address_kept_eth0_is_told_from_the_rule() {
    let rule = |mac: &str| {
        format!(
            "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\", \
             ATTR{{dev_id}}==\"0x0\", ATTR{{type}}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"
        )
    };
    let target = [nic("e1000-82545em", "00:1b:21:00:00:99", 2, "VM Network")];
    for (guest_id, mac, quirk) in [
        (UBUNTU, "08:00:27:00:00:01", "GQ12"),
        (UBUNTU, "00:16:3e:00:00:01", "GQ12"),
        (UBUNTU, "00:1b:21:00:00:01", "GQ13"),
        (UBUNTU, "54:52:00:00:00:01", "GQ16"),
        (CENTOS, "54:52:00:00:00:01", "GQ16"),
        (CENTOS, "00:0c:29:00:00:01", "GQ01"),
    ] {
        let guest = golden(guest_id, "esxi-5.0.0");
        let mut files = tree(&guest);
        files.write(RULES, rule(mac).into_bytes());
        let report = changed(&guest, files, &target, 0);
        assert_eq!(name(&report), "eth1", "{guest_id} {mac}");
        assert!(
            cites(&report, "interface-name", quirk),
            "{mac}: {:#?}",
            report.witnesses
        );
    }
}

#[test]
fn windows_installs_its_own_driver_for_the_synthetic_adapter_and_has_none_for_the_legacy_one() {
    for source in ["esxi-5.0.0", "kvm-centos-6.3"] {
        let guest = golden(WINDOWS, source);
        let synthetic = off_pci("hyperv-nic", HYPERV_MAC);
        let mut lan = lab();
        let first = start(&guest, None, synthetic.clone(), &mut lan);
        let found = first.primary().expect("an address");
        assert_eq!(
            (found.name.as_str(), found.driver.as_deref()),
            ("Local Area Connection 2", Some("netvsc"))
        );
        assert!(
            cites(&first, "interface-name", "GQ49") && !cites(&first, "interface-name", "GQ51")
        );
        let inf =
            |witness: &drylab_catalog::Witness| witness.place.to_string().contains("wnetvsc.inf:");
        assert!(
            first.witnesses["driver"].iter().any(inf),
            "{:#?}",
            first.witnesses
        );
        first.power_off(&mut lan);
        let again = start(&guest, Some(&first), synthetic, &mut lan);
        assert_eq!(
            again.primary().map(|found| found.name.clone()),
            Some("Local Area Connection 2".to_owned())
        );
        assert!(
            !cites(&again, "interface-name", "GQ51"),
            "it is told by its address, not its slot"
        );
        for legacy in [
            nic("dec21140", HYPERV_MAC, 10, "VM Network"),
            off_pci("xen-vif", XEN_MAC),
        ] {
            let report = start(&guest, None, legacy, &mut lab());
            assert_eq!((report.interfaces.len(), report.driverless.len()), (0, 1));
            assert!(cites(&report, "driver", "GQ54"));
        }
        // Xen's emulated adapter is of the model KVM emulates, with other subsystem ids: new, with a driver.
        let report = start(
            &guest,
            None,
            nic("rtl8139-xen", XEN_MAC, 4, "VM Network"),
            &mut lab(),
        );
        assert_eq!(
            report.primary().map(|found| found.origin),
            Some(Origin::Dhcp)
        );
        assert!(cites(&report, "interface-name", "GQ49"));
    }
}

#[test]
fn adapters_off_pci_are_known_by_their_address() {
    for (model, inf) in [
        (
            "hyperv-nic",
            "VMBUS\\{F8615163-DF3E-46C5-913F-F2D2F965ED0E}",
        ),
        ("xen-vif", "XENBUS\\CLASS&VIF"),
    ] {
        let before = off_pci(model, XEN_MAC);
        let mut net = image(known(&before, true), dhcp());
        let driver = InfDriver {
            inf: "/Windows/inf/oem0.inf".into(),
            line: 9,
            service: "twin".into(),
            missing: None,
            searched: None,
        };
        net.inf.insert(inf.to_owned(), driver);
        let up = |net: &WindowsNet, nic: Nic| {
            bring_up_windows(net, &[nic], &mut lab(), 0, &NetDecisions::default())
        };
        let kept = up(&net, before);
        assert_eq!(name(&kept), "Local Area Connection", "{model}");
        assert!(!cites(&kept, "interface-name", "GQ49"));
        let other = up(&net, off_pci(model, "9e:2c:41:00:00:77"));
        assert_eq!(name(&other), "Local Area Connection 2", "{model}");
        assert!(cites(&other, "interface-name", "GQ49"));
    }
}

#[test]
fn an_adapter_in_the_slot_of_a_removed_one_gets_its_settings() {
    let first = nic("e1000-82545em", "00:0c:29:aa:00:01", 3, "VM Network");
    let mut net = image(known(&first, false), dhcp());
    let up = |net: &WindowsNet, nic: Nic| {
        bring_up_windows(net, &[nic], &mut lab(), 0, &NetDecisions::default())
    };
    let second = Nic {
        mac: "00:0c:29:aa:00:02".parse().expect("a MAC"),
        ..first.clone()
    };
    assert!(
        !cites(&up(&net, second.clone()), "interface-name", "GQ53"),
        "there was only one"
    );
    let mut gone = net.adapters[0].clone();
    gone.location = gone
        .location
        .map(|slot| drylab_catalog::PciAddress { device: 4, ..slot });
    gone.interface = Some("{0A1B2C3D-0000-0000-0000-000000000002}".into());
    net.adapters.push(gone);
    let report = up(&net, second);
    assert_eq!(name(&report), "Local Area Connection");
    assert!(cites(&report, "interface-name", "GQ53"));
}
