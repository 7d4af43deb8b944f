//! Who reaches whom.

use drylab_catalog::Mac;
use drylab_network::firewall::{Probe, Ruleset, Target};
use drylab_network::{Host, Lan, Network};
use std::collections::BTreeMap;

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// A site and an office behind one router, and a translating bridge inside the site.
fn lab() -> Lan {
    let mut lan = Lan::default();
    for (network, segment) in [("LAN", "site"), ("office", "office"), ("default", "virbr0")] {
        lan.add_network(network, Network::new(segment));
    }
    lan.add_host(Host::new("gateway", mac(1), "site", [10, 0, 0, 1].into(), 24).on_router("core"));
    lan.add_host(
        Host::new("gateway-office", mac(2), "office", [10, 0, 1, 1].into(), 24).on_router("core"),
    );
    let names = BTreeMap::from([("server.lab".to_owned(), [10, 0, 1, 9].into())]);
    lan.add_host(Host::new("dns", mac(3), "office", [10, 0, 1, 5].into(), 24).with_dns(names));
    lan.add_host(
        Host::new("virbr0", mac(4), "virbr0", [192, 168, 122, 1].into(), 24).on_router("kvm"),
    );
    let mut outer = Host::new("kvm", mac(5), "site", [10, 0, 0, 5].into(), 24).on_router("kvm");
    outer.nat = true;
    lan.add_host(outer);
    lan
}

#[test]
fn a_guest_reaches_the_other_subnet_by_its_gateway_and_resolves_names_there() {
    let mut lan = lab();
    let port = lan.attach("LAN", mac(50), 0);
    let own = [10, 0, 0, 50].into();
    lan.set_addresses(port, &[own]);
    let gateway = lan.ask_arp(port, own, [10, 0, 0, 1].into(), 0);
    assert_eq!((gateway.value, gateway.packets.len()), (Some(mac(1)), 2));
    let echo = lan.ask_echo(port, mac(1), own, [10, 0, 1, 5].into(), gateway.at);
    assert!(echo.value.is_some(), "{:#?}", echo.packets);
    assert_eq!(echo.packets.len(), 4, "two segments, there and back");
    let name = lan.ask_name(
        port,
        mac(1),
        own,
        [10, 0, 1, 5].into(),
        "server.lab",
        echo.at,
    );
    assert_eq!(name.value, Some(Some([10, 0, 1, 9].into())));
    let none = lan.ask_name(
        port,
        mac(1),
        own,
        [10, 0, 1, 5].into(),
        "nobody.lab",
        name.at,
    );
    assert_eq!(none.value, Some(None));
    let far = lan.ask_echo(port, mac(1), own, [172, 16, 0, 1].into(), none.at);
    assert!(far.value.is_none() && far.at >= 3_000_000);
    assert_eq!(
        lan.ask_echo(port, mac(1), own, [10, 0, 1, 1].into(), 0)
            .value,
        Some(()),
        "the router's far interface"
    );
}

#[test]
fn behind_a_translating_bridge_a_guest_gets_out_and_nobody_gets_in() {
    let mut lan = lab();
    let port = lan.attach("default", mac(60), 0);
    let own = [192, 168, 122, 60].into();
    lan.set_addresses(port, &[own]);
    assert!(
        lan.ask_echo(port, mac(4), own, [10, 0, 0, 1].into(), 0)
            .value
            .is_some()
    );
    assert!(!lan.reachable_from("site", port, own));
    assert!(lan.reachable_from("virbr0", port, own));
    let outsider = lan.attach("LAN", mac(61), 0);
    let outside = [10, 0, 0, 61].into();
    lan.set_addresses(outsider, &[outside]);
    assert!(
        lan.ask_echo(outsider, mac(5), outside, own, 0)
            .value
            .is_none()
    );
    assert!(lan.reachable_from("office", outsider, outside));
}

#[test]
fn two_live_instances_of_one_machine_are_seen() {
    let mut lan = lab();
    let first = lan.attach("LAN", mac(70), 0);
    lan.set_addresses(first, &[[10, 0, 0, 70].into()]);
    assert!(lan.duplicate_macs().is_empty());
    let second = lan.attach("LAN", mac(70), 0);
    lan.set_addresses(second, &[[10, 0, 0, 70].into()]);
    assert_eq!(
        (lan.duplicate_macs(), lan.duplicate_addresses()),
        (vec![mac(70)], vec![[10, 0, 0, 70].into()])
    );
    assert!(lan.detach(second).is_some());
    assert!(lan.duplicate_macs().is_empty() && lan.duplicate_addresses().is_empty());
    // The same address on a segment that is not connected is nobody's business.
    let elsewhere = lan.attach("office", mac(70), 0);
    lan.set_addresses(elsewhere, &[[10, 0, 0, 70].into()]);
    assert!(lan.duplicate_macs().is_empty() && lan.duplicate_addresses().is_empty());
}

#[test]
fn a_cut_uplink_or_an_unknown_network_is_logged_as_the_reason() {
    let mut lan = lab();
    lan.network_mut("LAN").expect("there").up = false;
    let port = lan.attach("LAN", mac(80), 0);
    let answer = lan.ask_arp(port, [10, 0, 0, 80].into(), [10, 0, 0, 1].into(), 0);
    assert_eq!(answer.packets.len(), 3);
    assert!(
        answer
            .packets
            .iter()
            .all(|packet| packet.dropped.as_deref() == Some("LAN has no uplink"))
    );
    let port = lan.attach("nowhere", mac(81), 0);
    let answer = lan.ask_arp(port, [10, 0, 0, 81].into(), [10, 0, 0, 1].into(), 0);
    assert_eq!(
        answer.packets[0].dropped.as_deref(),
        Some("no network nowhere")
    );
}

const CENTOS: &str = "# Firewall configuration written by system-config-firewall
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m state --state NEW -m tcp -p tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
COMMIT
";

#[test]
fn the_default_rules_of_centos_let_in_what_they_should_on_any_interface() {
    let rules = Ruleset::parse(CENTOS).expect("as installed");
    for interface in ["eth0", "eth1", "ens3"] {
        let judge = |probe: Probe| (rules.judge(&probe).target, rules.judge(&probe).line);
        assert_eq!(judge(Probe::echo(interface)), (Target::Accept, Some(7)));
        assert_eq!(judge(Probe::tcp(interface, 22)), (Target::Accept, Some(9)));
        assert_eq!(judge(Probe::tcp(interface, 80)), (Target::Reject, Some(10)));
    }
    assert!(rules.rules_bound_to_absent(&["eth1"]).is_empty());
}

#[test]
fn rules_for_eth0_do_not_open_eth1() {
    let text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i eth0 -p icmp --icmp-type 8 -j ACCEPT\n-A INPUT -i eth+ -p tcp -m multiport --dports 80,443:445 -j ACCEPT\nCOMMIT\n";
    let rules = Ruleset::parse(text).expect("valid");
    assert_eq!(rules.judge(&Probe::echo("eth0")).target, Target::Accept);
    let verdict = rules.judge(&Probe::echo("eth1"));
    assert_eq!((verdict.target, verdict.line), (Target::Drop, Some(2)));
    assert_eq!(rules.judge(&Probe::tcp("eth1", 444)).target, Target::Accept);
    assert_eq!(
        rules.rules_bound_to_absent(&["eth1"]),
        [(3, "eth0".to_owned())]
    );
}

#[test]
fn chains_return_negations_negate_and_loops_end() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n:guard - [0:0]\n:loop - [0:0]\n-A INPUT -j guard\n-A INPUT ! -i eth0 -p tcp -j DROP\n-A guard -p icmp -j RETURN\n-A guard -s 10.0.0.0/8 -p tcp --dport 22 -j ACCEPT\n-A guard -p tcp -m tcp --dport 99 -j loop\n-A loop -j loop\n-A INPUT -p tcp -m recent --rcheck --name bad -m tcp --dport 25 -j DROP\nCOMMIT\n";
    let rules = Ruleset::parse(text).expect("valid");
    assert_eq!(rules.judge(&Probe::echo("eth0")).target, Target::Accept);
    assert_eq!(rules.judge(&Probe::tcp("eth1", 80)).target, Target::Drop);
    let near = Probe {
        source: Some([10, 1, 1, 1].into()),
        ..Probe::tcp("eth1", 22)
    };
    assert_eq!(rules.judge(&near).target, Target::Accept);
    let far = Probe {
        source: Some([192, 168, 1, 1].into()),
        ..near
    };
    assert_eq!(rules.judge(&far).target, Target::Drop);
    assert_eq!(rules.judge(&Probe::tcp("eth0", 99)).target, Target::Unknown);
    assert_eq!(
        rules.judge(&Probe::tcp("eth0", 25)).target,
        Target::Unknown,
        "a condition not known here"
    );
    assert_eq!(rules.judge(&Probe::tcp("eth0", 26)).target, Target::Accept);
}

#[test]
fn a_text_iptables_restore_would_refuse_is_an_error_with_its_line() {
    for (text, line) in [
        (
            "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j nowhere\nCOMMIT\n",
            3,
        ),
        ("*filter\n-A INPUT -j ACCEPT\n", 2),
        ("-A INPUT -j ACCEPT\n", 1),
        ("*filter\n-A mine -j ACCEPT\nCOMMIT\n", 2),
        ("*filter\n-A INPUT -p tcp --dport x -j ACCEPT\nCOMMIT\n", 2),
        ("*filter\n-A INPUT -m comment --comment \"open\nCOMMIT\n", 2),
    ] {
        let error = Ruleset::parse(text).expect_err(text).to_string();
        assert!(error.contains(&format!("line {line}")), "{error}");
    }
}
