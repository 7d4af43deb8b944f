//! CentOS 6.3 and Ubuntu 12.04, with their rules and a MAC that is kept or changed.

use super::{cites, kinds, lab, nic};
use drylab_guest::Tree;
use drylab_guest::net::linux::{Events, LinuxBootNet};
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_linux};
use drylab_network::{Lan, Network};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const SECOND_US: u64 = 1_000_000;
const OLD: &str = "00:0c:29:aa:00:01";
const NEW: &str = "52:54:00:aa:00:02";
const KERNEL: &str = "2.6.32-279.el6.x86_64";
const IFCFG: &str = "/etc/sysconfig/network-scripts/ifcfg-eth0";
const LEASES: &str = "/var/lib/dhclient/dhclient-eth0.leases";
const RULES: &str = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -i eth0 -p icmp -j ACCEPT\n\
    -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n";

fn with_rules(set: &str) -> Tree {
    let mut tree = Tree::new();
    let directory = format!(
        "{}/../../corpora/guests/rules/{set}",
        env!("CARGO_MANIFEST_DIR")
    );
    for entry in std::fs::read_dir(directory).expect("a committed rule set") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        tree.write(
            format!("/lib/udev/rules.d/{name}"),
            std::fs::read(&path).expect("readable"),
        );
    }
    let alias = "alias pci:v00008086d0000100Fsv*sd*bc*sc*i* e1000\nalias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio_net\n";
    tree.write(
        format!("/lib/modules/{KERNEL}/modules.alias"),
        alias.as_bytes().to_vec(),
    );
    add_modules(
        &mut tree,
        &[
            "e1000.ko:",
            "virtio_pci.ko:",
            "virtio_net.ko: virtio_pci.ko",
        ],
    );
    tree
}

/// Puts lines into modules.dep, and the files they are about beside it.
pub(crate) fn add_modules(tree: &mut Tree, lines: &[&str]) {
    let folder = format!("/lib/modules/{KERNEL}");
    let path = format!("{folder}/modules.dep");
    let mut dep = tree.text(&path).unwrap_or_default().into_owned();
    for line in lines {
        let (file, _) = line.split_once(':').expect("a line of modules.dep");
        tree.write(format!("{folder}/{file}"), Vec::new());
        dep.push_str(&format!("{line}\n"));
    }
    tree.write(path, dep.into_bytes());
}

pub(crate) fn centos(configuration: &str) -> Tree {
    let mut tree = with_rules("el6");
    let text = format!(
        "DEVICE=eth0\nHWADDR={}\nONBOOT=yes\nNM_CONTROLLED=no\n{configuration}",
        OLD.to_uppercase()
    );
    tree.write(IFCFG, text.into_bytes());
    tree
}

pub(crate) fn ubuntu(stanza: &str) -> Tree {
    let mut tree = with_rules("udev-175");
    tree.write(
        "/etc/network/interfaces",
        format!("auto lo eth0\niface lo inet loopback\niface eth0 inet {stanza}\n").into_bytes(),
    );
    tree
}

pub(crate) fn start(tree: Tree, mac: &str, network: &str, lan: &mut Lan, at: u64) -> NetReport {
    let boot = LinuxBootNet {
        kernel: KERNEL.into(),
        addr_assign_type: Some(0),
        events: Events::Together,
        early: BTreeMap::new(),
    };
    let decisions = NetDecisions {
        host: "kvm".into(),
        ..NetDecisions::default()
    };
    bring_up_linux(
        tree,
        &[nic("e1000-82540em", mac, 3, network)],
        &boot,
        lan,
        at,
        &decisions,
    )
}

#[test]
fn centos_with_its_own_mac_gets_an_address_routes_names_and_a_gateway() {
    let mut lan = lab();
    let report = start(centos("BOOTPROTO=dhcp\n"), OLD, "VM Network", &mut lan, 0);
    let eth0 = report.primary().expect("an address");
    assert_eq!(
        (eth0.name.as_str(), eth0.driver.as_deref(), eth0.origin),
        ("eth0", Some("e1000"), Origin::Dhcp)
    );
    assert_eq!(eth0.address, Some(([10, 20, 0, 199].into(), 24)));
    assert_eq!(eth0.lease_server, Some([10, 20, 0, 2].into()));
    assert_eq!(report.routes.len(), 2);
    assert_eq!(report.dns, [Ipv4Addr::new(10, 20, 0, 2)]);
    assert_eq!(
        (report.gateway_reachable, report.dns_answers),
        (Some(true), Some(true)),
        "{}",
        report.gateway_reason
    );
    assert!(
        report
            .files
            .text("/etc/resolv.conf")
            .expect("written")
            .contains("nameserver 10.20.0.2")
    );
    assert!(
        report
            .files
            .text(LEASES)
            .expect("written")
            .contains("fixed-address 10.20.0.199;")
    );
    assert_eq!(
        kinds(&report)[..4],
        ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"]
    );
    assert!(report.took_us < 10 * SECOND_US);
}

#[test]
fn the_second_restart_asks_for_the_same_address_and_gets_it() {
    let mut lan = lab();
    let first = start(centos("BOOTPROTO=dhcp\n"), OLD, "VM Network", &mut lan, 0);
    first.power_off(&mut lan);
    // Somebody else arrives between the two.
    let other = start(
        centos("BOOTPROTO=dhcp\n").clone(),
        OLD.replace("01", "77").as_str(),
        "VM Network",
        &mut lan,
        300 * SECOND_US,
    );
    assert!(other.primary().is_none(), "another MAC is eth1 on CentOS");
    let second = start(
        first.files.clone(),
        OLD,
        "VM Network",
        &mut lan,
        600 * SECOND_US,
    );
    assert_eq!(
        second.primary().map(|eth0| eth0.address),
        first.primary().map(|eth0| eth0.address)
    );
    assert_eq!(kinds(&second)[..2], ["DHCPREQUEST", "DHCPACK"]);
}

#[test]
fn centos_with_another_mac_has_an_interface_without_address_and_nothing_else() {
    let mut lan = lab();
    let before = start(centos("BOOTPROTO=dhcp\n"), OLD, "VM Network", &mut lan, 0);
    before.power_off(&mut lan);
    let after = start(before.files, NEW, "VM Network", &mut lan, 600 * SECOND_US);
    assert_eq!(after.interfaces[0].name, "eth1");
    assert!(
        after.primary().is_none() && after.routes.is_empty() && after.gateway_reachable.is_none()
    );
    assert!(cites(&after, "interface-name", "GQ01") || cites(&after, "ip-address", "GQ01"));
    assert!(after.packets.is_empty(), "no client is started");
    // What resolv.conf says is still there: DNS settings and reaching the server are two things.
    assert_eq!(
        (after.dns, after.dns_answers),
        (vec![Ipv4Addr::new(10, 20, 0, 2)], Some(false))
    );
}

#[test]
fn a_lease_of_another_subnet_is_refused_on_the_new_network_and_everything_changes() {
    let mut lan = lab();
    let before = start(ubuntu("dhcp"), NEW, "VM Network", &mut lan, 0);
    before.power_off(&mut lan);
    let after = start(before.files, NEW, "default", &mut lan, 600 * SECOND_US);
    assert_eq!(kinds(&after)[..2], ["DHCPREQUEST", "DHCPNAK"]);
    let (address, _) = after
        .primary()
        .and_then(|eth0| eth0.address)
        .expect("leased");
    assert_eq!(address.octets()[..3], [192, 168, 122]);
    assert!(cites(&after, "ip-address", "DQ210"));
    assert_eq!(
        (after.gateway_reachable, after.dns),
        (Some(true), vec![Ipv4Addr::new(192, 168, 122, 1)])
    );
}

#[test]
fn one_try_survives_spanning_tree_only_when_its_timeout_is_longer_and_a_persistent_client_always() {
    let slow = "timeout 20;\n";
    for (configuration, conf, gets) in [
        ("BOOTPROTO=dhcp\n", "", true),
        ("BOOTPROTO=dhcp\n", slow, false),
        ("BOOTPROTO=dhcp\nPERSISTENT_DHCLIENT=yes\n", slow, true),
    ] {
        let mut lan = lab();
        *lan.network_mut("VM Network").expect("there") =
            Network::new("site").with_spanning_tree(15);
        let mut tree = centos(configuration);
        tree.write("/etc/dhcp/dhclient.conf", conf.as_bytes().to_vec());
        let report = start(tree, OLD, "VM Network", &mut lan, 0);
        assert_eq!(
            report.primary().is_some(),
            gets,
            "{configuration} {conf}: {:#?}",
            report.packets
        );
        assert_eq!(cites(&report, "ip-address", "GQ05"), !gets);
        assert_eq!(
            cites(&report, "ip-address", "GQ06"),
            gets && !conf.is_empty()
        );
        if let Some(eth0) = report.primary() {
            assert!(eth0.after_us.expect("bound") >= 30 * SECOND_US);
            assert_eq!(
                report.gateway_reachable,
                Some(true),
                "asked once the address is there"
            );
        }
        if !conf.is_empty() {
            assert_eq!(
                report.took_us / SECOND_US,
                21,
                "the script returns when the first attempt is over"
            );
        }
    }
}

#[test]
fn a_static_address_outside_the_targets_subnet_is_an_address_that_reaches_no_gateway() {
    let mut lan = lab();
    let settings = "BOOTPROTO=none\nIPADDR=172.16.5.20\nNETMASK=255.255.255.0\nGATEWAY=172.16.5.1\nDNS1=10.20.0.2\n";
    let report = start(centos(settings), OLD, "VM Network", &mut lan, 0);
    let eth0 = report.primary().expect("an address");
    assert_eq!(
        (eth0.address, eth0.origin),
        (Some(([172, 16, 5, 20].into(), 24)), Origin::Static)
    );
    assert_eq!(report.gateway_reachable, Some(false));
    assert!(
        report
            .gateway_reason
            .contains("nobody answers ARP for 172.16.5.1"),
        "{}",
        report.gateway_reason
    );
    assert!(report.gateway_reason.contains("10.20.0.0/24"));
    assert_eq!(report.dns_answers, Some(false));

    let fitting = settings.replace("172.16.5", "10.20.0");
    let report = start(centos(&fitting), OLD, "VM Network", &mut lab(), 0);
    assert_eq!(
        (report.gateway_reachable, report.dns_answers),
        (Some(true), Some(true)),
        "{}",
        report.gateway_reason
    );

    let elsewhere = fitting.replace("GATEWAY=10.20.0.1", "GATEWAY=10.30.0.1");
    let report = start(centos(&elsewhere), OLD, "VM Network", &mut lab(), 0);
    assert_eq!((report.gateway_reachable, report.routes.len()), (None, 1));
    assert!(
        report.gateway_reason.contains("not in 10.20.0.0/24"),
        "{}",
        report.gateway_reason
    );
}

#[test]
fn an_address_in_use_is_not_set() {
    let mut lan = lab();
    let settings = "BOOTPROTO=none\nIPADDR=10.20.0.9\nNETMASK=255.255.255.0\n";
    let first = start(centos(settings), OLD, "VM Network", &mut lan, 0);
    assert!(first.primary().is_some());
    // The same machine again, while the first one still runs.
    let second = start(
        centos(settings),
        OLD,
        "VM Network",
        &mut lan,
        10 * SECOND_US,
    );
    assert!(second.primary().is_none());
    assert!(
        second
            .messages
            .iter()
            .any(|message| message.contains("already uses address 10.20.0.9"))
    );
    assert_eq!(lan.duplicate_macs(), [OLD.parse().expect("a MAC")]);
    assert!(lan.duplicate_addresses().is_empty());
}

#[test]
fn ubuntu_boots_on_after_two_minutes_without_an_answer() {
    let mut lan = lab();
    lan.host_mut("server").expect("there").up = false;
    let mut tree = ubuntu("dhcp");
    tree.write("/etc/dhcp/dhclient.conf", b"timeout 300;\n".to_vec());
    let report = start(tree, NEW, "VM Network", &mut lan, 0);
    assert!(report.primary().is_none());
    assert_eq!(report.took_us, 120 * SECOND_US);
    assert!(cites(&report, "boots", "GQ28"));
}

#[test]
fn rules_for_eth0_leave_eth1_to_the_policy() {
    let mut lan = lab();
    let mut tree = centos("BOOTPROTO=dhcp\n");
    tree.write("/etc/sysconfig/iptables", RULES.as_bytes().to_vec());
    let before = start(tree, OLD, "VM Network", &mut lan, 0);
    let passes = |report: &NetReport| -> Vec<(String, Option<bool>)> {
        report
            .firewall
            .probes
            .iter()
            .map(|probe| (probe.probe.clone(), probe.passes))
            .collect()
    };
    assert_eq!(
        passes(&before),
        [
            ("icmp-echo".to_owned(), Some(true)),
            ("tcp-22".to_owned(), Some(true))
        ]
    );
    assert!(before.firewall.bound_to_absent.is_empty());
    before.power_off(&mut lan);
    // A configuration for eth1 makes the address work; the rules do not follow.
    let mut files = before.files;
    files.write(
        IFCFG.replace("eth0", "eth1"),
        b"DEVICE=eth1\nONBOOT=yes\nBOOTPROTO=dhcp\n".to_vec(),
    );
    let after = start(files, NEW, "VM Network", &mut lan, 600 * SECOND_US);
    assert_eq!(after.primary().map(|eth1| eth1.name.as_str()), Some("eth1"));
    assert_eq!(
        passes(&after),
        [
            ("icmp-echo".to_owned(), Some(false)),
            ("tcp-22".to_owned(), Some(true))
        ]
    );
    assert_eq!(after.firewall.bound_to_absent, [(4, "eth0".to_owned())]);
    assert!(cites(&after, "firewall", "GQ22"));
}

#[test]
fn rules_that_iptables_restore_refuses_are_not_in_effect() {
    let mut tree = centos("BOOTPROTO=dhcp\n");
    tree.write(
        "/etc/sysconfig/iptables",
        b"*filter\n:INPUT DROP [0:0]\n-A INPUT -j nowhere\nCOMMIT\n".to_vec(),
    );
    let report = start(tree, OLD, "VM Network", &mut lab(), 0);
    assert!(
        report
            .firewall
            .not_loaded
            .as_ref()
            .expect("an error")
            .contains("line 3")
    );
    assert!(
        report
            .firewall
            .probes
            .iter()
            .all(|probe| probe.passes == Some(true))
    );
}

#[test]
fn rules_of_a_service_that_does_not_start_are_not_in_effect() {
    for (link, passes) in [("S08iptables", Some(false)), ("K92iptables", Some(true))] {
        let mut tree = centos("BOOTPROTO=dhcp\n");
        tree.write(
            "/etc/sysconfig/iptables",
            b"*filter\n:INPUT DROP [0:0]\nCOMMIT\n".to_vec(),
        );
        tree.write(format!("/etc/rc.d/rc3.d/{link}"), b"".to_vec());
        tree.write("/etc/rc.d/rc3.d/S10network", b"".to_vec());
        let report = start(tree, OLD, "VM Network", &mut lab(), 0);
        assert!(!report.firewall.probes.is_empty());
        assert!(
            report
                .firewall
                .probes
                .iter()
                .all(|probe| probe.passes == passes),
            "{:?}",
            report.firewall
        );
    }
}

#[test]
fn peerdns_no_leaves_the_resolver_alone() {
    let mut tree = centos("BOOTPROTO=dhcp\nPEERDNS=no\n");
    tree.write("/etc/resolv.conf", b"nameserver 10.20.0.77\n".to_vec());
    let report = start(tree, OLD, "VM Network", &mut lab(), 0);
    assert_eq!(
        (report.dns, report.dns_answers),
        (vec![Ipv4Addr::new(10, 20, 0, 77)], Some(false))
    );
}

#[test]
fn an_adapter_no_module_takes_is_driverless() {
    let boot = LinuxBootNet {
        kernel: KERNEL.into(),
        addr_assign_type: Some(0),
        events: Events::Together,
        early: BTreeMap::new(),
    };
    let nics = [nic("vlance", OLD, 3, "VM Network")];
    let report = bring_up_linux(
        centos("BOOTPROTO=dhcp\n"),
        &nics,
        &boot,
        &mut lab(),
        0,
        &NetDecisions::default(),
    );
    assert_eq!((report.driverless.len(), report.interfaces.len()), (1, 0));
    assert!(report.witnesses.contains_key("driver"));
    // virtio binds behind its PCI function.
    let nics = [nic("virtio-net", OLD, 3, "VM Network")];
    let report = bring_up_linux(
        centos("BOOTPROTO=dhcp\n"),
        &nics,
        &boot,
        &mut lab(),
        0,
        &NetDecisions::default(),
    );
    assert_eq!(report.interfaces[0].driver.as_deref(), Some("virtio_net"));
    assert!(report.primary().is_some());
}

#[test]
fn the_same_arguments_give_the_same_report() {
    let run = || {
        start(
            centos("BOOTPROTO=dhcp\n"),
            OLD,
            "VM Network",
            &mut lab(),
            12_345,
        )
    };
    assert_eq!(run(), run());
}
