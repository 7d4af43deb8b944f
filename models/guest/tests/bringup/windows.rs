//! Windows Server 2008 R2: which adapter is known, which is new.

use super::{GATEWAY, cites, kinds, lab, nic};
use drylab_catalog::{Nic, Place, Witness};
use drylab_guest::net::windows::{
    InfDriver, KnownNetwork, NetworkCategory, TcpipInterface, WindowsAdapter, WindowsFirewallFacts,
    WindowsNet, serial_instance,
};
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_windows};
use drylab_network::Lan;
use std::collections::BTreeMap;

const GUID: &str = "{0A1B2C3D-0000-0000-0000-000000000001}";
const MAC: &str = "00:0c:29:aa:00:01";
const OTHER: &str = "00:0c:29:bb:00:02";
const SECOND_US: u64 = 1_000_000;

pub(crate) fn known(nic: &Nic, express: bool) -> WindowsAdapter {
    let model = drylab_catalog::device::device(&nic.model).expect("in the catalogue");
    WindowsAdapter {
        key: "SYSTEM\\ControlSet001\\Enum\\PCI\\one".into(),
        device_id: model.hardware_ids()[0].clone(),
        instance: if express {
            serial_instance(nic.mac)
        } else {
            "3&267A616A&0&18".into()
        },
        location: nic.slot,
        service: Some("E1G60".into()),
        interface: Some(GUID.into()),
    }
}

/// An image installed with this adapter.
pub(crate) fn image(adapter: WindowsAdapter, settings: TcpipInterface) -> WindowsNet {
    let driver = |service: &str, present: bool| InfDriver {
        inf: format!("/Windows/inf/{service}.inf"),
        line: 12,
        service: service.into(),
        missing: (!present).then(|| format!("{service}.sys is not there")),
        searched: None,
    };
    let rule = |body: &str| format!("v2.10|Action=Allow|Active=TRUE|Dir=In|{body}App=System|");
    WindowsNet {
        host_name: Some("WIN2008R2".into()),
        adapters: vec![adapter],
        inf: BTreeMap::from([
            ("PCI\\VEN_8086&DEV_100F".to_owned(), driver("E1G60", true)),
            ("PCI\\VEN_8086&DEV_100E".to_owned(), driver("E1G60", true)),
            (
                "PCI\\VEN_10EC&DEV_8139".to_owned(),
                driver("rtl8139", false),
            ),
            (
                "PCI\\VEN_15AD&DEV_07B0".to_owned(),
                driver("vmxnet3ndis6", true),
            ),
        ]),
        unsearched: Vec::new(),
        interfaces: BTreeMap::from([(
            GUID.to_owned(),
            TcpipInterface {
                key: "Tcpip\\Interfaces\\one".into(),
                ..settings
            },
        )]),
        connections: BTreeMap::from([(GUID.to_owned(), "Local Area Connection".to_owned())]),
        firewall: WindowsFirewallFacts {
            key: "FirewallPolicy".into(),
            domain_enabled: true,
            private_enabled: true,
            public_enabled: true,
            rules: BTreeMap::from([
                (
                    "FPS-ICMP4-ERQ-In".to_owned(),
                    rule("Protocol=1|Profile=Private|ICMP4=8:*|"),
                ),
                (
                    "RemoteDesktop-In-TCP".to_owned(),
                    rule("Protocol=6|Profile=Domain|Profile=Private|LPort=3389|"),
                ),
            ]),
        },
        networks: vec![KnownNetwork {
            key: Some("NetworkList\\Signatures\\Unmanaged\\one".into()),
            gateway_mac: Some(GATEWAY),
            dns_suffix: None,
            name: "Network".into(),
            category: NetworkCategory::Private,
        }],
        domain: None,
    }
}

pub(crate) fn dhcp() -> TcpipInterface {
    TcpipInterface {
        dhcp: true,
        ..TcpipInterface::default()
    }
}

fn fixed() -> TcpipInterface {
    TcpipInterface {
        addresses: vec![([10, 20, 0, 50].into(), [255, 255, 255, 0].into())],
        gateways: vec![[10, 20, 0, 1].into()],
        dns: vec![[10, 20, 0, 2].into()],
        ..TcpipInterface::default()
    }
}

pub(crate) fn start(net: &WindowsNet, nic: Nic, lan: &mut Lan, at: u64) -> NetReport {
    bring_up_windows(
        net,
        &[nic],
        lan,
        at,
        &NetDecisions {
            host: "kvm".into(),
            ..NetDecisions::default()
        },
    )
}

#[test]
fn the_same_model_in_the_same_slot_keeps_its_settings_with_another_mac() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), fixed());
    let report = start(
        &net,
        nic("e1000-82540em", OTHER, 3, "VM Network"),
        &mut lab(),
        0,
    );
    let lan = report.primary().expect("an address");
    assert_eq!(
        (lan.name.as_str(), lan.origin),
        ("Local Area Connection", Origin::Static)
    );
    assert_eq!(lan.address, Some(([10, 20, 0, 50].into(), 24)));
    assert!(cites(&report, "interface-name", "GQ51"));
    assert_eq!(
        (report.gateway_reachable, report.dns_answers),
        (Some(true), Some(true))
    );
    assert_eq!(report.windows.expect("there").adapters.len(), 1);
}

#[test]
fn another_slot_is_a_new_adapter_with_dhcp_and_the_static_address_stays_with_the_ghost() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), fixed());
    let report = start(
        &net,
        nic("e1000-82540em", MAC, 4, "VM Network"),
        &mut lab(),
        0,
    );
    let lan = report.primary().expect("an address");
    assert_eq!(
        (lan.name.as_str(), lan.origin),
        ("Local Area Connection 2", Origin::Dhcp)
    );
    assert!(cites(&report, "interface-name", "GQ49") && cites(&report, "ip-address", "GQ50"));
    let after = report.windows.as_ref().expect("there");
    assert_eq!((after.adapters.len(), after.interfaces.len()), (2, 2));
    assert!(after.interfaces[&lan.kernel_name].lease.is_some());
    assert!(report.took_us >= NetDecisions::default().driver_install_us);
}

#[test]
fn the_second_start_finds_the_adapter_and_asks_for_its_address() {
    let before = nic("e1000-82545em", MAC, 3, "VM Network");
    let net = image(known(&before, false), dhcp());
    let mut lan = lab();
    let new = nic("e1000-82540em", OTHER, 4, "VM Network");
    let first = start(&net, new.clone(), &mut lan, 0);
    first.power_off(&mut lan);
    let second = start(
        first.windows.as_ref().expect("there"),
        new,
        &mut lan,
        600 * SECOND_US,
    );
    let facts = |report: &NetReport| {
        report
            .primary()
            .map(|lan| (lan.name.clone(), lan.kernel_name.clone(), lan.address))
    };
    assert_eq!(facts(&first), facts(&second));
    assert!(facts(&first).is_some());
    assert_eq!(kinds(&second)[..2], ["DHCPREQUEST", "DHCPACK"]);
    assert!(second.took_us < first.took_us);
}

#[test]
fn a_pci_express_adapter_is_known_by_its_mac_wherever_it_sits() {
    let before = nic("vmxnet3", MAC, 3, "VM Network");
    let net = image(known(&before, true), fixed());
    let moved = start(&net, nic("vmxnet3", MAC, 11, "VM Network"), &mut lab(), 0);
    assert_eq!(moved.primary().map(|lan| lan.origin), Some(Origin::Static));
    let other = start(&net, nic("vmxnet3", OTHER, 3, "VM Network"), &mut lab(), 0);
    assert_eq!(other.primary().map(|lan| lan.origin), Some(Origin::Dhcp));
    for fact in ["interface-name", "ip-address"] {
        assert!(cites(&other, fact, "GQ52") && cites(&other, fact, "GQ49"));
    }
    // Of a model the guest never had, the MAC is not why it is new.
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), fixed());
    let first = start(&net, nic("vmxnet3", MAC, 3, "VM Network"), &mut lab(), 0);
    assert!(cites(&first, "ip-address", "GQ49") && !cites(&first, "ip-address", "GQ52"));
}

/// Keys the report cites, of all facts.
fn keys(report: &NetReport) -> Vec<&str> {
    let witnesses = report.witnesses.values().flatten();
    let keys = witnesses.filter_map(|witness| match &witness.place {
        Place::Key(key) => Some(key.as_str()),
        _ => None,
    });
    keys.collect()
}

#[test]
fn an_interface_made_at_a_boot_cites_what_made_it_and_no_key_that_the_image_lacks() {
    let before = nic("e1000-82545em", MAC, 3, "VM Network");
    let net = image(known(&before, false), fixed());
    let mut lan = lab();
    let new = || nic("e1000-82540em", OTHER, 4, "default");
    let first = start(&net, new(), &mut lan, 0);
    first.power_off(&mut lan);
    let kept = first.windows.as_ref().expect("there");
    let second = start(kept, new(), &mut lan, 600 * SECOND_US);
    for report in [&first, &second] {
        for fact in ["driver", "ip-address", "interface-name"] {
            let inf = report.witnesses[fact].iter().any(|witness| {
                witness.place.to_string() == "/Windows/inf/E1G60.inf:12"
                    && witness.says == "names E1G60 for PCI\\VEN_8086&DEV_100E"
            });
            assert!(inf, "{fact}: {:#?}", report.witnesses);
        }
        for fact in ["ip-address", "interface-name"] {
            assert!(cites(report, fact, "GQ49") && !cites(report, fact, "GQ52"));
        }
        let invented: Vec<&str> = keys(report)
            .into_iter()
            .filter(|key| *key != "Tcpip\\Interfaces\\one" && !key.starts_with("FirewallPolicy"))
            .collect();
        assert!(invented.is_empty(), "{invented:?} are not in the image");
        assert_eq!(report.interfaces[0].configured_by, None);
    }
}

#[test]
fn an_interface_whose_key_is_in_the_image_cites_that_key_and_is_not_called_new() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let report = start(&image(known(&before, false), dhcp()), before, &mut lab(), 0);
    assert!(keys(&report).contains(&"Tcpip\\Interfaces\\one"));
    assert!(!cites(&report, "ip-address", "GQ49") && !cites(&report, "interface-name", "GQ49"));
    assert_eq!(
        report.interfaces[0].configured_by.as_deref(),
        Some("Tcpip\\Interfaces\\one")
    );
}

#[test]
fn an_adapter_whose_interface_has_no_settings_cites_its_own_key() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let mut net = image(known(&before, false), dhcp());
    net.interfaces.clear();
    let report = start(&net, before, &mut lab(), 0);
    assert_eq!(report.primary().map(|lan| lan.origin), Some(Origin::Dhcp));
    let mut cited = report.witnesses["ip-address"].iter();
    assert!(
        cited.any(
            |witness| witness.place.to_string().ends_with("Enum\\PCI\\one")
                && witness.says.contains("no settings")
        ),
        "{:#?}",
        report.witnesses
    );
}

#[test]
fn a_folder_of_device_path_that_cannot_be_looked_into_leaves_a_driver_unknown_and_not_missing() {
    let here = nic("e1000-82545em", MAC, 3, "VM Network");
    let mut net = image(known(&here, false), dhcp());
    let elsewhere = Witness::key("SOFTWARE\\…, value DevicePath", "names D:\\drivers");
    net.unsearched = vec![elsewhere.clone()];
    let up = |net: &WindowsNet, model: &str| {
        let nics = [nic(model, MAC, 4, "VM Network")];
        bring_up_windows(net, &nics, &mut lab(), 0, &NetDecisions::default())
    };
    let report = up(&net, "virtio-net");
    assert_eq!(report.unassessed, [elsewhere]);
    let known = up(&net, "e1000-82545em");
    assert!(known.unassessed.is_empty() && known.primary().is_some());
    net.unsearched.clear();
    assert!(up(&net, "virtio-net").unassessed.is_empty());
}

#[test]
fn without_a_driver_there_is_no_interface() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), dhcp());
    for (model, says) in [("virtio-net", "no INF names"), ("rtl8139", "is not there")] {
        let report = start(&net, nic(model, MAC, 3, "VM Network"), &mut lab(), 0);
        assert!(report.interfaces.is_empty() && report.driverless.len() == 1);
        assert!(cites(&report, "driver", "GQ54"));
        assert!(
            report.witnesses["driver"]
                .iter()
                .any(|witness| witness.says.contains(says)),
            "{:?}",
            report.witnesses
        );
    }
}

#[test]
fn without_a_server_windows_has_a_link_local_address_and_the_public_profile() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), dhcp());
    let mut lan = lab();
    lan.host_mut("server").expect("there").up = false;
    let report = start(&net, before, &mut lan, 0);
    let interface = report.primary().expect("an address of its own");
    let (address, prefix) = interface.address.expect("link-local");
    assert_eq!(
        (interface.origin, prefix, &address.octets()[..2]),
        (Origin::LinkLocal, 16, &[169u8, 254][..])
    );
    assert_eq!(report.gateway_reachable, None);
    assert!(cites(&report, "ip-address", "DQ211") && cites(&report, "profile", "DQ212"));
    assert_eq!(report.profile, Some(NetworkCategory::Public));
    // It was tried again for a quarter of an hour: four messages each time.
    assert_eq!(
        kinds(&report)
            .iter()
            .filter(|kind| **kind == "DHCPDISCOVER")
            .count(),
        12
    );
}

#[test]
fn an_unknown_gateway_makes_the_network_public_and_its_rules_closed() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), dhcp());
    let passes = |report: &NetReport| {
        report
            .firewall
            .probes
            .iter()
            .map(|probe| probe.passes == Some(true))
            .collect::<Vec<_>>()
    };
    let mut lan = lab();
    let home = start(&net, before.clone(), &mut lan, 0);
    assert_eq!(
        (home.profile, passes(&home)),
        (Some(NetworkCategory::Private), vec![true, true])
    );
    home.power_off(&mut lan);
    let mut moved = before;
    moved.network = "default".into();
    let away = start(
        &home.windows.clone().expect("there"),
        moved,
        &mut lan,
        600 * SECOND_US,
    );
    assert_eq!(
        (away.profile, passes(&away)),
        (Some(NetworkCategory::Public), vec![false, false])
    );
    assert!(cites(&away, "profile", "GQ55") && away.gateway_reachable == Some(true));
    assert_eq!(away.windows.expect("there").networks.len(), 2);
}

#[test]
fn a_static_address_already_in_use_is_given_up() {
    let before = nic("e1000-82540em", MAC, 3, "VM Network");
    let net = image(known(&before, false), fixed());
    let mut lan = lab();
    let first = start(&net, before.clone(), &mut lan, 0);
    assert_eq!(
        first.primary().map(|interface| interface.origin),
        Some(Origin::Static)
    );
    let second = start(&net, before, &mut lan, SECOND_US);
    assert_eq!(
        second.primary().map(|interface| interface.origin),
        Some(Origin::LinkLocal)
    );
}
