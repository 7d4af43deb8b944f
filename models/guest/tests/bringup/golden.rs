//! The golden guests from their disks: on the machine they were installed on, and moved.

use super::{kinds, lab, nic};
use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_catalog::Nic;
use drylab_guest::inspect::{Guest, GuestDisk, System, inspect};
use drylab_guest::net::linux::{Events, LinuxBootNet};
use drylab_guest::net::windows::NetworkCategory;
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_linux, bring_up_windows};
use drylab_network::Lan;
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

const SOURCES: [&str; 2] = ["esxi-5.0.0", "kvm-centos-6.3"];

/// The adapter a guest was installed with, at the place its product gives it.
fn adapter(guest: &str, source: &str) -> Nic {
    let mut nic = match (guest, source) {
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
    nic
}

#[test]
fn every_golden_guest_comes_up_where_it_was_installed_and_keeps_its_address() {
    for guest_id in ["centos-6.3", "ubuntu-12.04", "windows-2008r2"] {
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
    for (source, target) in [
        ("esxi-5.0.0", "kvm-centos-6.3"),
        ("kvm-centos-6.3", "esxi-5.0.0"),
    ] {
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
        assert_eq!(centos.interfaces[0].name, "eth1");
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
    for (source, target) in [
        ("esxi-5.0.0", "kvm-centos-6.3"),
        ("kvm-centos-6.3", "esxi-5.0.0"),
    ] {
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
