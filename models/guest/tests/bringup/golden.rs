//! The golden guests from their disks: on the machine they were installed on, and moved.

use super::{kinds, lab, nic};
use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_catalog::Nic;
use drylab_catalog::device::{Bus, device};
use drylab_guest::inspect::{Guest, GuestDisk, System, inspect};
use drylab_guest::net::linux::{Events, LinuxBootNet};
use drylab_guest::net::windows::NetworkCategory;
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_linux, bring_up_windows};
use drylab_network::Lan;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn golden(guest: &str, source: &str) -> Guest {
    let file = |name: &str| {
        let path = format!(
            "{}/../../corpora/guests/{guest}/{name}",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let base: Arc<dyn ReadAt> = Arc::new(file("base.qcow2"));
    let base =
        Arc::new(drylab_image::open(base, &Limits::DEFAULT).expect("the golden image opens"));
    let delta =
        Delta::parse(&file(&format!("{source}.delta")), base.len()).expect("the delta parses");
    let disk = GuestDisk::new(Arc::new(Overlay::with_delta(base, &delta)));
    inspect(&[disk], &Limits::DEFAULT).expect("the golden guest is inspected")
}

pub(crate) fn start(
    guest: &Guest,
    files: Option<&NetReport>,
    nic: Nic,
    lan: &mut Lan,
) -> NetReport {
    let decisions = NetDecisions::default();
    match &guest.system {
        System::Linux(linux) => {
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
            let tree = files.map_or_else(|| guest.tree.clone(), |report| report.files.clone());
            bring_up_linux(tree, &[nic], &boot, lan, 0, &decisions)
        }
        System::Windows(windows) => {
            let net = files
                .and_then(|report| report.windows.as_ref())
                .unwrap_or(&windows.net);
            bring_up_windows(net, &[nic], lan, 0, &decisions)
        }
    }
}

const GUESTS: [&str; 3] = ["centos-6.3", "ubuntu-12.04", "windows-2008r2"];
const XEN: &str = "xenserver-6.0.2";
const HYPERV: &str = "hyperv-2008r2";
const SOURCES: [&str; 4] = ["esxi-5.0.0", "kvm-centos-6.3", XEN, HYPERV];

/// Every move between two of the products.
fn arrows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let pairs = SOURCES
        .iter()
        .flat_map(|from| SOURCES.map(|to| (*from, to)));
    pairs.filter(|(from, to)| from != to)
}

/// The adapter a guest was installed with, at the place its product gives it.
fn adapter(guest: &str, source: &str) -> Nic {
    let mut nic = match (guest, source) {
        ("centos-6.3", XEN) => nic("xen-vif", "a6:1f:4e:93:0c:8d", 0, "VM Network"),
        ("centos-6.3", HYPERV) => nic("dec21140", "00:15:5d:00:0d:00", 10, "VM Network"),
        ("ubuntu-12.04", XEN) => nic("xen-vif", "be:52:07:6d:c1:8e", 0, "VM Network"),
        ("ubuntu-12.04", HYPERV) => nic("hyperv-nic", "00:15:5d:00:0d:01", 0, "VM Network"),
        (_, XEN) => nic("rtl8139-xen", "7a:c4:31:e9:5b:8f", 4, "VM Network"),
        (_, HYPERV) => nic("hyperv-nic", "00:15:5d:00:0d:02", 0, "VM Network"),
        ("centos-6.3", "esxi-5.0.0") => nic("e1000-82545em", "00:0c:29:4f:8e:35", 0, "VM Network"),
        ("centos-6.3", _) => nic("virtio-net", "52:54:00:6b:3c:58", 3, "VM Network"),
        ("ubuntu-12.04", "esxi-5.0.0") => {
            nic("e1000-82545em", "00:0c:29:4f:8e:36", 0, "VM Network")
        }
        ("ubuntu-12.04", _) => nic("virtio-net", "52:54:00:6b:3c:59", 3, "VM Network"),
        (_, "esxi-5.0.0") => nic("e1000-82545em", "00:0c:29:4f:8e:37", 0, "VM Network"),
        _ => nic("rtl8139", "52:54:00:6b:3c:5a", 3, "VM Network"),
    };
    if let Some(slot) = &mut nic.slot {
        slot.bus = if source == "esxi-5.0.0" { 2 } else { 0 };
    }
    if device(&nic.model).is_some_and(|model| model.bus != Bus::Pci) {
        nic.slot = None;
    }
    nic
}

#[test]
fn every_golden_guest_comes_up_where_it_was_installed_and_keeps_its_address() {
    for guest_id in GUESTS {
        for source in SOURCES {
            let guest = golden(guest_id, source);
            let mut lan = lab();
            let first = start(&guest, None, adapter(guest_id, source), &mut lan);
            let interface = first
                .primary()
                .unwrap_or_else(|| panic!("{guest_id} {source}: {:#?}", first.witnesses));
            assert_eq!(
                interface.origin,
                Origin::Dhcp,
                "{guest_id} {source}: {:#?}",
                first.witnesses
            );
            assert_eq!(
                first.gateway_reachable,
                Some(true),
                "{}",
                first.gateway_reason
            );
            assert_eq!(first.dns_answers, Some(true));
            let private = guest_id == "windows-2008r2";
            assert_eq!(
                first.profile,
                private.then_some(NetworkCategory::Private),
                "{:?}",
                first.witnesses.get("profile")
            );
            assert!(!first.firewall.probes.is_empty());
            first.power_off(&mut lan);
            let second = start(&guest, Some(&first), adapter(guest_id, source), &mut lan);
            assert_eq!(
                second.primary().map(|interface| interface.address),
                Some(interface.address)
            );
            assert_eq!(kinds(&second)[..2], ["DHCPREQUEST", "DHCPACK"]);
        }
    }
}

#[test]
fn moved_with_another_mac_centos_has_no_address_and_ubuntu_has_one() {
    for (source, target) in arrows() {
        let mut moved = adapter("centos-6.3", target);
        moved.mac.0[5] ^= 0x55;
        let centos = start(
            &golden("centos-6.3", source),
            None,
            moved.clone(),
            &mut lab(),
        );
        assert!(
            centos.primary().is_none(),
            "{source}: {:#?}",
            centos.witnesses
        );
        // On Xen's bus the generator writes no line: the kernel's name stays, and is not the HWADDR's.
        let name = if target == XEN { "eth0" } else { "eth1" };
        assert_eq!(centos.interfaces[0].name, name, "{source} to {target}");
        let ubuntu = start(&golden("ubuntu-12.04", source), None, moved, &mut lab());
        assert_eq!(
            ubuntu.primary().map(|eth0| eth0.name.as_str()),
            Some("eth0"),
            "{source}: {:#?}",
            ubuntu.witnesses
        );
        let kept = Nic {
            mac: adapter("centos-6.3", source).mac,
            ..adapter("centos-6.3", target)
        };
        let centos = start(&golden("centos-6.3", source), None, kept, &mut lab());
        assert_eq!(
            centos.primary().map(|eth0| eth0.name.as_str()),
            Some("eth0"),
            "{source}: the MAC is kept"
        );
    }
}

#[test]
fn moved_to_a_model_with_a_driver_windows_has_a_new_connection_and_elsewhere_none() {
    for (source, target) in arrows() {
        let guest = golden("windows-2008r2", source);
        let report = start(&guest, None, adapter("windows-2008r2", target), &mut lab());
        let interface = report
            .primary()
            .unwrap_or_else(|| panic!("{source}: {:#?}", report.witnesses));
        assert_eq!(
            (interface.name.as_str(), interface.origin),
            ("Local Area Connection 2", Origin::Dhcp)
        );
        assert!(super::cites(&report, "interface-name", "GQ49"));
        assert_eq!(
            report.profile,
            Some(NetworkCategory::Private),
            "the gateway is the same"
        );
        let mut lan = lab();
        let server = lan.host_mut("gateway").expect("there");
        server.mac.0[5] ^= 1;
        let report = start(&guest, None, adapter("windows-2008r2", target), &mut lan);
        assert_eq!(
            report.profile,
            Some(NetworkCategory::Public),
            "another router"
        );
        assert!(super::cites(&report, "profile", "GQ55"));
        let report = start(
            &guest,
            None,
            adapter("centos-6.3", "kvm-centos-6.3"),
            &mut lab(),
        );
        assert_eq!(
            (report.interfaces.len(), report.driverless.len()),
            (0, 1),
            "no virtio driver in the image"
        );
    }
}

#[test]
fn without_hwaddr_centos_has_an_address_where_a_xen_front_end_is_at_either_end() {
    let path = "/etc/sysconfig/network-scripts/ifcfg-eth0";
    for (source, target) in arrows() {
        let mut guest = golden("centos-6.3", source);
        let text = guest.tree.text(path).expect("it is there");
        let kept = text.split_inclusive('\n');
        let text: String = kept.filter(|line| !line.contains("HWADDR")).collect();
        guest.tree.write(path, text.into_bytes());
        let mut moved = adapter("centos-6.3", target);
        moved.mac.0[5] ^= 0x55;
        let report = start(&guest, None, moved, &mut lab());
        let at_either_end = source == XEN || target == XEN;
        assert_eq!(
            report.primary().is_some(),
            at_either_end,
            "{source} to {target}: {:#?}",
            report.witnesses
        );
    }
}

#[test]
fn centos_has_no_driver_for_the_synthetic_adapter_and_ubuntu_and_windows_have() {
    for source in SOURCES {
        let synthetic = adapter("ubuntu-12.04", HYPERV);
        for (guest_id, has) in GUESTS.into_iter().zip([false, true, true]) {
            let guest = golden(guest_id, source);
            let report = start(&guest, None, synthetic.clone(), &mut lab());
            assert_eq!(
                (report.primary().is_some(), report.driverless.len()),
                (has, usize::from(!has)),
                "{guest_id} of {source}: {:#?}",
                report.witnesses
            );
        }
    }
}
