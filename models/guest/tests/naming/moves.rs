//! What a move does to a Linux guest's interfaces, one mechanism changed at a time. Needs no oracle.

use crate::support::{RuleSet, adapter};
use drylab_catalog::{Place, Witness};
use drylab_guest::Tree;
use drylab_guest::net::linux::udev::programs::PERSISTENT;
use drylab_guest::net::linux::{
    Action, Bus, Events, Ifup, LinuxBootNet, LinuxNetPlan, NicView, ifcfg, ifupdown, plan,
};
use std::collections::BTreeMap;

const OLD: &str = "00:50:56:a1:00:01";
const NEW: &str = "52:54:00:a1:00:03";

fn boot() -> LinuxBootNet {
    LinuxBootNet {
        kernel: "2.6.32-279.el6.x86_64".to_owned(),
        addr_assign_type: Some(0),
        events: Events::Together,
        early: BTreeMap::new(),
    }
}

fn ifcfg_eth0() -> String {
    format!("{}/ifcfg-eth0", ifcfg::DIRECTORY)
}

/// A CentOS that was installed with the adapter OLD and has booted once.
fn centos(hwaddr: bool) -> Tree {
    let mut tree = RuleSet::named("el6").tree();
    let hwaddr = if hwaddr {
        format!("HWADDR={}\n", OLD.to_uppercase())
    } else {
        String::new()
    };
    let text = format!("DEVICE=eth0\n{hwaddr}ONBOOT=yes\nNM_CONTROLLED=yes\nBOOTPROTO=dhcp\n");
    tree.write(ifcfg_eth0(), text.into_bytes());
    let first = plan(&mut tree, &[adapter("pci-e1000", OLD, 0)], &boot());
    assert_eq!(first.interfaces[0].name, "eth0");
    assert!(asks_for_an_address(&first, "eth0"));
    tree
}

fn ubuntu(mac: &str) -> Tree {
    let mut tree = RuleSet::named("udev-175").tree();
    tree.write(
        ifupdown::PATH,
        b"auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n".to_vec(),
    );
    let first = plan(&mut tree, &[adapter("pci-e1000", mac, 0)], &boot());
    assert!(asks_for_an_address(&first, "eth0"));
    tree
}

fn asks_for_an_address(plan: &LinuxNetPlan, device: &str) -> bool {
    plan.ifups
        .iter()
        .any(|ifup| ifup.device == device && matches!(ifup.action, Action::Dhcp(_)))
}

fn cites(witnesses: &[Witness], id: &str) -> bool {
    witnesses
        .iter()
        .any(|witness| witness.place == Place::Quirk(id.to_owned()))
}

fn line_of(witnesses: &[Witness], wanted: &str) -> Option<u32> {
    witnesses.iter().find_map(|witness| match &witness.place {
        Place::File { path, line } if path == wanted => Some(*line),
        _ => None,
    })
}

fn ifup(plan: &LinuxNetPlan) -> &Ifup {
    plan.ifups.first().expect("a configuration")
}

#[test]
fn centos_keeps_eth0_and_its_configuration_when_the_mac_is_kept() {
    let mut tree = centos(true);
    let rules = tree
        .text(PERSISTENT)
        .expect("written at the first boot")
        .into_owned();
    let moved = plan(&mut tree, &[adapter("virtio", OLD, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ09"));
    assert!(asks_for_an_address(&moved, "eth0") && moved.unconfigured.is_empty());
    assert_eq!(
        tree.text(PERSISTENT).expect("still there"),
        rules,
        "nothing is appended"
    );
}

#[test]
fn centos_with_another_mac_has_eth1_and_no_configuration_for_it() {
    let moved = plan(&mut centos(true), &[adapter("virtio", NEW, 0)], &boot());
    let interface = &moved.interfaces[0];
    assert_eq!(
        (interface.kernel_name.as_str(), interface.name.as_str()),
        ("eth0", "eth1")
    );
    assert!(cites(&interface.witnesses, "GQ01"));
    assert!(line_of(&interface.witnesses, PERSISTENT).is_some_and(|line| line > 0));
    assert_eq!(
        ifup(&moved).message,
        "Device eth0 does not seem to be present, delaying initialization."
    );
    assert_eq!((ifup(&moved).exit, ifup(&moved).interface), (1, None));
    assert!(cites(&ifup(&moved).witnesses, "GQ04"));
    assert_eq!(moved.unconfigured, ["eth1"]);
}

#[test]
fn removing_only_the_rule_does_not_cure_centos_because_hwaddr_reserves_eth0() {
    let mut tree = centos(true);
    assert!(tree.remove(PERSISTENT));
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth1");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ02"));
    assert_eq!(
        line_of(&moved.interfaces[0].witnesses, &ifcfg_eth0()),
        Some(2)
    );
    assert_eq!(moved.unconfigured, ["eth1"]);
}

#[test]
fn removing_only_hwaddr_does_not_cure_centos_because_the_rule_holds_eth0() {
    let mut tree = centos(true);
    tree.write(
        ifcfg_eth0(),
        b"DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=dhcp\n".to_vec(),
    );
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth1");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ01"));
    assert_eq!(moved.unconfigured, ["eth1"]);
}

#[test]
fn removing_rule_and_hwaddr_cures_centos() {
    let mut tree = centos(true);
    assert!(tree.remove(PERSISTENT));
    tree.write(
        ifcfg_eth0(),
        b"DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=dhcp\n".to_vec(),
    );
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0");
    assert!(asks_for_an_address(&moved, "eth0") && moved.unconfigured.is_empty());
}

#[test]
fn a_xen_front_end_stays_eth0_and_hwaddr_alone_keeps_it_down() {
    let moved = plan(&mut centos(true), &[adapter("xen", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ07"));
    assert_eq!(
        ifup(&moved).message,
        "Device eth0 has different MAC address than expected, ignoring."
    );
    assert!(cites(&ifup(&moved).witnesses, "GQ03"));
    let cured = plan(&mut centos(false), &[adapter("xen", NEW, 0)], &boot());
    assert!(asks_for_an_address(&cured, "eth0"));
}

#[test]
fn network_manager_gives_a_desktop_centos_an_address_on_the_new_name() {
    let mut tree = centos(true);
    tree.write("/etc/rc.d/rc3.d/S10network", b"".to_vec());
    tree.write("/etc/rc.d/rc3.d/S23NetworkManager", b"".to_vec());
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert!(asks_for_an_address(&moved, "eth1") && moved.unconfigured.is_empty());
    let by_manager = moved.ifups.last().expect("a connection");
    assert!(cites(&by_manager.witnesses, "GQ23"));
    let Action::Dhcp(client) = &by_manager.action else {
        panic!("not DHCP")
    };
    assert!(!client.one_try);
    // Started in another runlevel than the default one, it does nothing.
    tree.write("/etc/inittab", b"id:5:initdefault:\n".to_vec());
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.unconfigured, ["eth1"]);
}

#[test]
fn ubuntu_keeps_eth0_with_the_addresses_that_hypervisors_hand_out() {
    let moved = plan(&mut ubuntu(OLD), &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ11"));
    assert!(asks_for_an_address(&moved, "eth0") && moved.delay_us == 0);
}

#[test]
fn ubuntu_fails_like_centos_when_both_macs_are_of_a_class_that_gets_rules() {
    let mut tree = ubuntu("08:00:27:a1:00:09");
    let moved = plan(
        &mut tree.clone(),
        &[adapter("pci-e1000", "00:1b:21:a1:00:0a", 0)],
        &boot(),
    );
    assert_eq!(moved.interfaces[0].name, "eth1");
    assert!(cites(&moved.interfaces[0].witnesses, "GQ12"));
    assert_eq!((ifup(&moved).exit, moved.delay_us), (1, 120_000_000));
    assert_eq!(line_of(&ifup(&moved).witnesses, ifupdown::PATH), Some(4));
    assert_eq!(moved.unconfigured, ["eth1"]);
    let default_mac = plan(&mut tree, &[adapter("pci-e1000", NEW, 0)], &boot());
    assert!(asks_for_an_address(&default_mac, "eth0"));
}

#[test]
fn a_rule_writer_that_is_not_in_the_image_writes_nothing() {
    let mut tree = centos(true);
    tree.write("/lib/udev/rename_device", b"".to_vec());
    let moved = plan(&mut tree.clone(), &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0", "no writer, no new name");
    tree.write("/lib/udev/write_net_rules", b"".to_vec());
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth1");
}

#[test]
fn a_rule_file_in_etc_takes_the_place_of_the_one_in_lib() {
    let mut tree = centos(true);
    tree.write(
        "/etc/udev/rules.d/75-persistent-net-generator.rules",
        b"# switched off\n".to_vec(),
    );
    let moved = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    assert_eq!(moved.interfaces[0].name, "eth0");
}

#[test]
fn static_addresses_are_read_with_their_prefix_gateway_and_name_servers() {
    let mut tree = RuleSet::named("el6").tree();
    let text = "DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=192.0.2.10\nNETMASK=255.255.254.0\n\
                GATEWAY=192.0.2.1\nDNS1=192.0.2.53\n";
    tree.write(ifcfg_eth0(), text.as_bytes().to_vec());
    let up = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    let Action::Static(el6) = &ifup(&up).action else {
        panic!("not static")
    };
    assert_eq!(
        (el6.address.to_string(), el6.prefix, el6.dns.len()),
        ("192.0.2.10".to_owned(), 23, 1)
    );
    assert_eq!(
        el6.gateway.map(|gateway| gateway.to_string()).as_deref(),
        Some("192.0.2.1")
    );

    let mut tree = RuleSet::named("udev-175").tree();
    let text = "auto eth0\niface eth0 inet static\n  address 192.0.2.10\n  netmask 255.255.255.0\n\
                \x20 gateway 192.0.2.1\n  dns-nameservers 192.0.2.53 192.0.2.54\n";
    tree.write(ifupdown::PATH, text.as_bytes().to_vec());
    let up = plan(&mut tree, &[adapter("virtio", NEW, 0)], &boot());
    let Action::Static(ubuntu) = &ifup(&up).action else {
        panic!("not static")
    };
    assert_eq!(
        (ubuntu.prefix, ubuntu.dns.len(), ubuntu.gateway.is_some()),
        (24, 2, true)
    );
}

#[test]
fn swapped_adapters_get_their_names_at_once_when_their_events_come_together() {
    let mut tree = RuleSet::named("el6").tree();
    let pair = [adapter("pci-e1000", OLD, 0), adapter("pci-e1000", NEW, 1)];
    let _ = plan(&mut tree, &pair, &boot());
    let swapped = [pair[1].clone(), pair[0].clone()];
    let together = plan(&mut tree.clone(), &swapped, &boot());
    let names = |plan: &LinuxNetPlan| {
        plan.interfaces
            .iter()
            .map(|i| i.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&together), together.delay_us),
        (vec!["eth1".to_owned(), "eth0".to_owned()], 0)
    );
    let in_turn = plan(
        &mut tree,
        &swapped,
        &LinuxBootNet {
            events: Events::InTurn,
            ..boot()
        },
    );
    assert_eq!(names(&in_turn), ["eth0-eth1", "eth0"]);
    assert_eq!(in_turn.delay_us, 90_000_000);
    assert!(cites(&in_turn.interfaces[0].witnesses, "GQ10") && cites(&in_turn.delays, "GQ10"));
}

fn by_modalias(model: &str, bus: Bus) -> NicView {
    let device = drylab_catalog::device::device(model).expect("in the table");
    let mut nic = adapter(
        if bus == Bus::Virtio {
            "virtio"
        } else {
            "pci-8139cp"
        },
        NEW,
        0,
    );
    nic.modalias = Some(device.modalias());
    nic.driver = None;
    let pci = nic.pci.as_mut().expect("a PCI function");
    (pci.vendor, pci.device, pci.revision) = (device.vendor, device.device, device.revision);
    nic
}

/// Modules of a kernel: lines of modules.dep, and the files they are about.
fn add_modules(tree: &mut Tree, lines: &[&str]) {
    let folder = "/lib/modules/2.6.32-279.el6.x86_64";
    for line in lines {
        let (file, _) = line.split_once(':').expect("a line of modules.dep");
        tree.write(format!("{folder}/{file}"), Vec::new());
    }
    let dep = lines.join("\n");
    tree.write(format!("{folder}/modules.dep"), dep.into_bytes());
}

#[test]
fn a_virtio_adapter_needs_the_driver_of_its_function_and_the_one_of_its_device() {
    let path = "/lib/modules/2.6.32-279.el6.x86_64/modules.alias";
    let mut tree = RuleSet::named("el6").tree();
    add_modules(&mut tree, &["virtio_pci.ko:", "virtio_net.ko:"]);
    let nic = by_modalias("virtio-net", Bus::Virtio);
    let function = "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n";
    let device = "alias virtio:d00000001v* virtio_net\n";
    for (text, driver) in [
        (String::new(), None),
        (function.to_owned(), None),
        (device.to_owned(), None),
    ] {
        tree.write(path, text.into_bytes());
        let plan = plan(&mut tree.clone(), std::slice::from_ref(&nic), &boot());
        assert_eq!(
            plan.interfaces
                .first()
                .map(|interface| interface.driver.as_str()),
            driver
        );
        assert_eq!(plan.driverless.len(), 1);
    }
    tree.write(path, format!("# aliases\n{function}{device}").into_bytes());
    let both = plan(&mut tree.clone(), std::slice::from_ref(&nic), &boot());
    assert_eq!(both.interfaces[0].driver, "virtio_net");
    assert_eq!(line_of(&both.interfaces[0].witnesses, path), Some(2));
    tree.write(
        "/etc/modprobe.d/blacklist.conf",
        b"blacklist virtio-net\n".to_vec(),
    );
    assert_eq!(plan(&mut tree, &[nic], &boot()).driverless.len(), 1);
}

#[test]
fn of_two_drivers_for_one_id_the_one_whose_probe_accepts_the_revision_takes_it() {
    let path = "/lib/modules/2.6.32-279.el6.x86_64/modules.alias";
    let mut tree = RuleSet::named("el6").tree();
    add_modules(&mut tree, &["8139too.ko:", "8139cp.ko:"]);
    let alias = "alias pci:v000010ECd00008139sv*sd*bc*sc*i*";
    tree.write(
        path,
        format!("{alias} 8139too\n{alias} 8139cp\n").into_bytes(),
    );
    let mut nic = by_modalias("rtl8139", Bus::Pci);
    assert_eq!(
        plan(&mut tree.clone(), std::slice::from_ref(&nic), &boot()).interfaces[0].driver,
        "8139cp"
    );
    nic.pci.as_mut().expect("a PCI function").revision = 0x10;
    assert_eq!(
        plan(&mut tree, &[nic], &boot()).interfaces[0].driver,
        "8139too"
    );
}

#[test]
fn an_ifcfg_file_with_the_adapters_address_overrules_the_rule_and_a_second_rule_is_written() {
    let mut tree = centos(true);
    let text = format!(
        "DEVICE=eth5\nHWADDR={}\nONBOOT=yes\nBOOTPROTO=dhcp\n",
        OLD.to_uppercase()
    );
    tree.write(ifcfg_eth0(), text.into_bytes());
    let next = plan(&mut tree, &[adapter("pci-e1000", OLD, 0)], &boot());
    assert_eq!(next.interfaces[0].name, "eth5");
    assert!(cites(&next.interfaces[0].witnesses, "DQ203"));
    assert!(asks_for_an_address(&next, "eth5"));
    assert_eq!(
        tree.text(PERSISTENT).expect("rules").matches(OLD).count(),
        2
    );
}

#[test]
fn where_addresses_are_not_burnt_in_the_slot_decides_for_centos_without_hwaddr() {
    let changing = LinuxBootNet {
        addr_assign_type: Some(3),
        ..boot()
    };
    let mut tree = RuleSet::named("el6").tree();
    tree.write(
        ifcfg_eth0(),
        b"DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=dhcp\n".to_vec(),
    );
    let first = plan(&mut tree, &[adapter("pci-e1000", OLD, 0)], &changing);
    assert!(cites(&first.interfaces[0].witnesses, "DQ200"));
    let same_slot = plan(&mut tree.clone(), &[adapter("virtio", NEW, 0)], &changing);
    assert!(asks_for_an_address(&same_slot, "eth0"));
    let other_slot = plan(&mut tree, &[adapter("pci-vmxnet3", OLD, 0)], &changing);
    assert_eq!(other_slot.interfaces[0].name, "eth1");
}

#[test]
fn two_adapters_that_both_change_leave_two_configurations_without_a_device() {
    let mut tree = RuleSet::named("el6").tree();
    for (index, mac) in [OLD, "00:50:56:a1:00:02"].iter().enumerate() {
        let text = format!(
            "DEVICE=eth{index}\nHWADDR={}\nONBOOT=yes\nBOOTPROTO=dhcp\n",
            mac.to_uppercase()
        );
        tree.write(
            format!("{}/ifcfg-eth{index}", ifcfg::DIRECTORY),
            text.into_bytes(),
        );
    }
    let _ = plan(
        &mut tree,
        &[
            adapter("pci-e1000", OLD, 0),
            adapter("pci-e1000", "00:50:56:a1:00:02", 1),
        ],
        &boot(),
    );
    let moved = plan(
        &mut tree,
        &[
            adapter("virtio", NEW, 0),
            adapter("virtio", "52:54:00:a1:00:04", 1),
        ],
        &boot(),
    );
    assert_eq!(moved.unconfigured, ["eth2", "eth3"]);
    assert_eq!(
        moved.ifups.iter().map(|ifup| ifup.exit).collect::<Vec<_>>(),
        [1, 1]
    );
}

#[test]
fn the_belief_in_addr_assign_type_is_cited_where_the_generator_read_it_and_only_there() {
    let generator = "/lib/udev/rules.d/75-persistent-net-generator.rules";
    let judged = |plan: &LinuxNetPlan| {
        let witnesses = &plan.interfaces[0].witnesses;
        let at = witnesses
            .iter()
            .position(|witness| witness.place == Place::Quirk("DQ403".to_owned()))?;
        let rule = &witnesses[at - 1];
        assert!(
            matches!(&rule.place, Place::File { path, line } if path == generator && *line > 0),
            "it stands right after the rule: {witnesses:#?}"
        );
        Some(at)
    };
    // A new address of any class is judged by it, one with a rule or on bus xen never comes so far.
    for mac in [NEW, "00:1b:21:a1:00:0a", "fe:16:3e:a1:00:01"] {
        let moved = plan(&mut centos(true), &[adapter("virtio", mac, 0)], &boot());
        assert!(judged(&moved).is_some(), "{mac}");
    }
    let kept = plan(&mut centos(true), &[adapter("virtio", OLD, 0)], &boot());
    assert_eq!(judged(&kept), None, "70-persistent-net.rules named it");
    let xen = plan(&mut centos(true), &[adapter("xen", NEW, 0)], &boot());
    assert_eq!(judged(&xen), None);
    // Ubuntu's generator does not ask.
    let moved = plan(
        &mut ubuntu(OLD),
        &[adapter("pci-e1000", "00:1b:21:a1:00:0a", 0)],
        &boot(),
    );
    assert_eq!(judged(&moved), None);
    // A kernel without the file, or one that reads another value, is not the one believed in.
    for addr_assign_type in [None, Some(3)] {
        let other = LinuxBootNet {
            addr_assign_type,
            ..boot()
        };
        let moved = plan(&mut centos(true), &[adapter("virtio", NEW, 0)], &other);
        assert_eq!(judged(&moved), None, "{addr_assign_type:?}");
    }
    // A second rule is written where ifcfg asks for another name than the rule gave: then it was read after all.
    let mut tree = centos(true);
    let text = format!("DEVICE=eth5\nHWADDR={}\n", OLD.to_uppercase());
    tree.write(ifcfg_eth0(), text.into_bytes());
    let renamed = plan(&mut tree, &[adapter("pci-e1000", OLD, 0)], &boot());
    assert!(judged(&renamed).is_some());
}
