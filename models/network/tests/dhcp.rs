//! DHCP on the wire: who says what when.

use drylab_catalog::Mac;
use drylab_network::dhcp::{
    Client, ClientConfig, ClientKey, LeaseFact, Pick, SECOND_US, Server, ServerConfig, Unknown,
};
use drylab_network::{DhcpStation, Host, Lan, Network, PacketLog, Subnet};
use std::net::Ipv4Addr;

const GUEST: Mac = Mac([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

fn subnet() -> Subnet {
    Subnet::new([10, 0, 0, 0].into(), 24)
}

fn config(pick: Pick) -> ServerConfig {
    let mut config = ServerConfig::new([10, 0, 0, 2].into(), subnet(), pick);
    config.ranges = vec![([10, 0, 0, 100].into(), [10, 0, 0, 199].into())];
    config.routers = vec![[10, 0, 0, 1].into()];
    config
}

fn lan(pick: Pick) -> Lan {
    let mut lan = Lan::default();
    lan.add_network("LAN", Network::new("site"));
    let server = Host::new(
        "dhcp",
        Mac([2, 0, 0, 0, 0, 2]),
        "site",
        [10, 0, 0, 2].into(),
        24,
    );
    lan.add_host(server.with_dhcp(Server::new(config(pick))));
    lan.add_host(Host::new(
        "gateway",
        Mac([2, 0, 0, 0, 0, 1]),
        "site",
        [10, 0, 0, 1].into(),
        24,
    ));
    lan
}

fn remembered(address: [u8; 4], expires_at: u64) -> LeaseFact {
    LeaseFact {
        address: address.into(),
        subnet: Subnet::new(address.into(), 24),
        server: [10, 0, 0, 2].into(),
        routers: vec![[10, 0, 0, 1].into()],
        dns: Vec::new(),
        domain: None,
        host_name: None,
        renew_at: expires_at / 2,
        rebind_at: expires_at / 8 * 7,
        expires_at,
    }
}

fn run(
    lan: &mut Lan,
    config: ClientConfig,
    lease: Option<LeaseFact>,
    from: u64,
    until_s: u64,
) -> (DhcpStation, Vec<PacketLog>) {
    let port = lan.attach("LAN", config.mac, from);
    let mut station = DhcpStation::new(port, Client::new(config, 1, lease));
    let packets = lan.exchange(&mut [&mut station], from, from + until_s * SECOND_US);
    (station, packets)
}

fn kinds(packets: &[PacketLog]) -> Vec<&str> {
    packets
        .iter()
        .map(|packet| packet.summary.split(' ').next().unwrap_or_default())
        .collect()
}

#[test]
fn a_new_client_discovers_is_offered_requests_and_is_acknowledged() {
    let mut lan = lan(Pick::Lowest);
    let (guest, packets) = run(&mut lan, ClientConfig::dhclient_once(GUEST), None, 0, 60);
    assert_eq!(
        kinds(&packets),
        ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"]
    );
    let lease = guest.lease().expect("bound");
    assert_eq!(lease.address, Ipv4Addr::new(10, 0, 0, 100));
    assert_eq!(
        (lease.subnet, lease.server),
        (subnet(), [10, 0, 0, 2].into())
    );
    // Two round trips of twice 100 us and 200 us of thinking.
    assert_eq!(guest.bound_at(), Some(800));
}

#[test]
fn a_remembered_address_of_another_subnet_is_refused_and_a_new_one_found() {
    let mut lan = lan(Pick::Lowest);
    let old = remembered([192, 168, 7, 20], 3600 * SECOND_US);
    let (guest, packets) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(old),
        0,
        60,
    );
    assert_eq!(
        kinds(&packets),
        [
            "DHCPREQUEST",
            "DHCPNAK",
            "DHCPDISCOVER",
            "DHCPOFFER",
            "DHCPREQUEST",
            "DHCPACK"
        ]
    );
    assert!(
        packets[1].summary.contains("wrong network"),
        "{}",
        packets[1].summary
    );
    assert!(subnet().contains(guest.lease().expect("bound").address));
}

#[test]
fn a_silent_server_costs_ten_seconds_before_the_client_discovers() {
    let mut lan = lan(Pick::Lowest);
    let mut silent = config(Pick::Lowest);
    silent.authoritative = false;
    silent.unknown = Unknown::Silent;
    lan.host_mut("dhcp").expect("there").dhcp = Some(Server::new(silent));
    let old = remembered([192, 168, 7, 20], 3600 * SECOND_US);
    let (guest, packets) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(old),
        0,
        60,
    );
    let discover = packets
        .iter()
        .find(|packet| packet.summary.starts_with("DHCPDISCOVER"))
        .expect("it goes on");
    assert!(
        (10..=12).contains(&(discover.at / SECOND_US)),
        "{}",
        discover.at
    );
    assert!(guest.lease().is_some());
}

#[test]
fn the_same_lease_is_asked_for_again_and_kept() {
    let mut lan = lan(Pick::Lowest);
    let (first, _) = run(&mut lan, ClientConfig::dhclient_once(GUEST), None, 0, 60);
    let lease = first.lease().expect("bound").clone();
    lan.detach_mac(GUEST);
    let (second, packets) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(lease.clone()),
        600 * SECOND_US,
        60,
    );
    assert_eq!(kinds(&packets), ["DHCPREQUEST", "DHCPACK"]);
    assert_eq!(
        second.lease().map(|lease| lease.address),
        Some(lease.address)
    );
}

#[test]
fn with_spanning_tree_one_try_of_ten_seconds_fails_and_a_persistent_client_succeeds() {
    let with_timeout = |one_try: bool, timeout: u32| {
        let mut config = ClientConfig::dhclient(GUEST);
        if let drylab_network::dhcp::Schedule::Dhclient {
            one_try: once,
            timeout_s,
            ..
        } = &mut config.schedule
        {
            (*once, *timeout_s) = (one_try, timeout);
        }
        config
    };
    for (one_try, timeout_s, gets) in [(true, 10, false), (true, 60, true), (false, 10, true)] {
        let mut lan = lan(Pick::Lowest);
        *lan.network_mut("LAN").expect("there") = Network::new("site").with_spanning_tree(15);
        let (guest, packets) = run(&mut lan, with_timeout(one_try, timeout_s), None, 0, 1000);
        assert_eq!(
            guest.lease().is_some(),
            gets,
            "one try {one_try}, timeout {timeout_s}: {packets:#?}"
        );
        assert!(
            packets
                .iter()
                .all(|packet| packet.dropped.is_none() || packet.at < 30 * SECOND_US)
        );
        assert_eq!(guest.failed_at().is_some(), timeout_s == 10);
        assert!(guest.bound_at().is_none_or(|at| at >= 30 * SECOND_US));
    }
}

#[test]
fn without_a_server_dhclient_once_exits_after_its_timeout_and_windows_goes_on_every_five_minutes() {
    let mut lan = Lan::default();
    lan.add_network("LAN", Network::new("site"));
    let (guest, packets) = run(&mut lan, ClientConfig::dhclient_once(GUEST), None, 0, 3600);
    assert_eq!(
        guest.failed_at().map(|at| at / SECOND_US),
        Some(61),
        "{packets:#?}"
    );
    let last = packets.last().expect("it tried").at;
    assert!(last <= 60 * SECOND_US && packets.len() >= 4, "{packets:#?}");

    let (guest, packets) = run(&mut lan, ClientConfig::windows(GUEST), None, 0, 700);
    let seconds: Vec<u64> = packets.iter().map(|packet| packet.at / SECOND_US).collect();
    assert_eq!(seconds, [0, 4, 12, 28, 360, 364, 372, 388]);
    assert_eq!(guest.failed_at(), Some(60 * SECOND_US));
}

#[test]
fn an_address_in_use_is_declined_and_another_one_given() {
    let mut lan = lan(Pick::Lowest);
    let squatter = lan.attach("LAN", Mac([2, 9, 9, 9, 9, 9]), 0);
    lan.set_addresses(squatter, &[[10, 0, 0, 100].into()]);
    let (guest, packets) = run(&mut lan, ClientConfig::windows(GUEST), None, 0, 60);
    assert_eq!(guest.conflicts(), 1);
    assert_eq!(
        guest.lease().map(|lease| lease.address),
        Some([10, 0, 0, 101].into())
    );
    assert!(kinds(&packets).contains(&"DHCPDECLINE"));
    let census = lan.hosts()[0]
        .dhcp
        .as_ref()
        .expect("a server")
        .census(60 * SECOND_US);
    assert_eq!((census.declined, census.leased, census.free), (1, 1, 98));
}

#[test]
fn an_old_lease_serves_when_its_gateway_answers_and_no_server_does() {
    let mut lan = lan(Pick::Lowest);
    lan.host_mut("dhcp").expect("there").up = false;
    let old = remembered([10, 0, 0, 55], 3600 * SECOND_US);
    let (guest, _) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(old.clone()),
        0,
        120,
    );
    assert_eq!(guest.lease().map(|lease| lease.address), Some(old.address));
    lan.host_mut("gateway").expect("there").up = false;
    let (guest, _) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(old),
        0,
        120,
    );
    assert!(guest.lease().is_none() && guest.failed_at().is_some());
}

#[test]
fn a_lease_is_renewed_at_half_its_time_by_unicast() {
    let mut lan = lan(Pick::Lowest);
    let mut short = config(Pick::Lowest);
    short.lease_s = 600;
    lan.host_mut("dhcp").expect("there").dhcp = Some(Server::new(short));
    let port = lan.attach("LAN", GUEST, 0);
    let mut station =
        DhcpStation::new(port, Client::new(ClientConfig::dhclient(GUEST), 1, None)).staying();
    let packets = lan.exchange(&mut [&mut station], 0, 1000 * SECOND_US);
    let requests: Vec<(u64, bool)> = packets
        .iter()
        .filter(|packet| packet.summary.starts_with("DHCPREQUEST"))
        .map(|packet| (packet.at / SECOND_US, packet.to.is_some()))
        .collect();
    assert_eq!(
        requests,
        [(0, false), (300, true), (600, true), (900, true)]
    );
}

#[test]
fn a_lease_nobody_extends_is_renewed_rebound_and_lost() {
    let mut lan = lan(Pick::Lowest);
    let mut short = config(Pick::Lowest);
    short.lease_s = 600;
    lan.host_mut("dhcp").expect("there").dhcp = Some(Server::new(short));
    lan.lose_frames(&(4..100).collect::<Vec<u64>>());
    let port = lan.attach("LAN", GUEST, 0);
    let client = Client::new(ClientConfig::dhclient(GUEST), 1, None);
    let mut station = DhcpStation::new(port, client).staying();
    let packets = lan.exchange(&mut [&mut station], 0, 610 * SECOND_US);
    let sent: Vec<(u64, bool)> = packets[4..]
        .iter()
        .filter(|packet| packet.summary.starts_with("DHCPREQUEST"))
        .map(|packet| (packet.at / SECOND_US, packet.to.is_some()))
        .collect();
    // T1 at 300 s by unicast, T2 at 525 s by broadcast, the end at 600 s.
    assert_eq!(
        sent,
        [
            (300, true),
            (412, true),
            (472, true),
            (525, false),
            (585, false)
        ]
    );
    let discover = packets[4..]
        .iter()
        .find(|packet| packet.summary.starts_with("DHCPDISCOVER"));
    assert_eq!(discover.map(|packet| packet.at / SECOND_US), Some(600));
    assert!(station.lease().is_none());
}

#[test]
fn the_client_identifier_makes_another_client_of_the_same_adapter() {
    let mut lan = lan(Pick::Hash);
    let (linux, _) = run(&mut lan, ClientConfig::dhclient_once(GUEST), None, 0, 60);
    lan.detach_mac(GUEST);
    let (windows, _) = run(
        &mut lan,
        ClientConfig::windows(GUEST),
        None,
        60 * SECOND_US,
        60,
    );
    let (linux, windows) = (
        linux.lease().expect("bound").address,
        windows.lease().expect("bound").address,
    );
    assert_ne!(linux, windows);
}

#[test]
fn frames_lost_on_the_way_are_sent_again() {
    let mut lan = lan(Pick::Lowest);
    lan.lose_frames(&[0, 2]);
    let (guest, packets) = run(&mut lan, ClientConfig::dhclient_once(GUEST), None, 0, 60);
    assert!(guest.lease().is_some());
    assert_eq!(
        packets
            .iter()
            .filter(|packet| packet.dropped.is_some())
            .count(),
        2
    );
}

#[test]
fn a_recorded_lease_is_honoured_and_nobody_elses_to_take() {
    let mut server = Server::new(config(Pick::Lowest));
    let address = Ipv4Addr::new(10, 0, 0, 150);
    let key = ClientKey::Hardware(GUEST);
    assert!(server.record(0, key.clone(), GUEST, address));
    assert!(
        !server.record(0, ClientKey::Id(vec![1]), GUEST, address),
        "taken"
    );
    assert!(
        !server.record(0, key, GUEST, [10, 0, 0, 151].into()),
        "has one"
    );
    assert!(
        !server.record(0, ClientKey::Id(vec![1]), GUEST, [10, 9, 9, 9].into()),
        "not in the pool"
    );
    let mut lan = lan(Pick::Lowest);
    lan.host_mut("dhcp").expect("there").dhcp = Some(server);
    let old = remembered([10, 0, 0, 150], 3600 * SECOND_US);
    let (guest, packets) = run(
        &mut lan,
        ClientConfig::dhclient_once(GUEST),
        Some(old),
        0,
        60,
    );
    assert_eq!(kinds(&packets), ["DHCPREQUEST", "DHCPACK"]);
    assert_eq!(guest.lease().map(|lease| lease.address), Some(address));
}
