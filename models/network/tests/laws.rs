//! Invariants 47 to 51, over generated labs; and what the readers do with damaged input.

use drylab_catalog::Mac;
use drylab_network::dhcp::{
    Client, ClientConfig, ClientKey, Message, Packet, Pick, SECOND_US, Server, ServerConfig,
    Unknown,
};
use drylab_network::{DhcpStation, Host, Lan, Network, Station, Subnet, fuzz};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

fn mac(index: u32) -> Mac {
    let [a, b, c, d] = index.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

fn server(pick: Pick, size: u8) -> Server {
    let mut config = ServerConfig::new(
        [10, 0, 0, 2].into(),
        Subnet::new([10, 0, 0, 0].into(), 24),
        pick,
    );
    config.ranges = vec![([10, 0, 0, 10].into(), Ipv4Addr::new(10, 0, 0, 9 + size))];
    config.lease_s = 600;
    config.offer_hold_s = 60;
    config.decline_hold_s = 900;
    config.unknown = Unknown::Adopt;
    Server::new(config)
}

fn lan(pick: Pick, size: u8) -> Lan {
    let mut lan = Lan::default();
    lan.add_network("LAN", Network::new("site"));
    let host = Host::new(
        "dhcp",
        Mac([2, 0, 0, 0, 0, 2]),
        "site",
        [10, 0, 0, 2].into(),
        24,
    );
    lan.add_host(host.with_dhcp(server(pick, size)));
    lan
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        Just(Pick::Hash),
        Just(Pick::Lowest),
        Just(Pick::LeastRecent)
    ]
}

/// All clients at once on one segment; the outcome of each.
fn arrive(lan: &mut Lan, clients: &[u32]) -> BTreeMap<u32, Option<Ipv4Addr>> {
    let mut stations: Vec<DhcpStation> = clients
        .iter()
        .map(|client| {
            let port = lan.attach("LAN", mac(*client), 0);
            DhcpStation::new(
                port,
                Client::new(
                    ClientConfig::dhclient_once(mac(*client)),
                    u64::from(*client),
                    None,
                ),
            )
        })
        .collect();
    let mut running: Vec<&mut dyn Station> = stations
        .iter_mut()
        .map(|station| station as &mut dyn Station)
        .collect();
    lan.exchange(&mut running, 0, 120 * SECOND_US);
    clients
        .iter()
        .copied()
        .zip(
            stations
                .iter()
                .map(|station| station.lease().map(|lease| lease.address)),
        )
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Discover,
    RequestOffered,
    Reboot(u8),
    Foreign,
    Decline,
    Release,
    Wait(u16),
}

fn step() -> impl Strategy<Value = (u32, bool, Step)> {
    let what = prop_oneof![
        3 => Just(Step::Discover),
        4 => Just(Step::RequestOffered),
        2 => (0u8..60).prop_map(Step::Reboot),
        1 => Just(Step::Foreign),
        1 => Just(Step::Decline),
        1 => Just(Step::Release),
        2 => (1u16..500).prop_map(Step::Wait),
    ];
    (0u32..12, any::<bool>(), what)
}

fn packet(message: Message, client: u32, with_id: bool) -> Packet {
    let mut packet = Packet::request(message, client + 1, mac(client));
    packet.options.client = with_id.then(|| vec![0, b'i', u8::try_from(client).unwrap_or(0)]);
    packet
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// 47: with a pool at least as large as the number of clients, permuting arrival permutes addresses only.
    #[test]
    fn permuting_arrival_changes_no_clients_outcome(
        clients in proptest::collection::btree_set(0u32..100_000, 1..60), pick in pick(), rotate in 0usize..60,
    ) {
        let forward: Vec<u32> = clients.iter().copied().collect();
        let mut other = forward.clone();
        other.rotate_left(rotate % forward.len());
        other.reverse();
        let size = u8::try_from(forward.len()).unwrap_or(u8::MAX);
        let (first, second) = (arrive(&mut lan(pick, size), &forward), arrive(&mut lan(pick, size), &other));
        for client in &clients {
            prop_assert!(first[client].is_some() && second[client].is_some());
        }
        let given = |outcome: &BTreeMap<u32, Option<Ipv4Addr>>| outcome.values().copied().collect::<BTreeSet<_>>();
        prop_assert_eq!(given(&first), given(&second));
        prop_assert_eq!(given(&first).len(), clients.len());
    }

    /// One too many: exactly one client of a full pool goes without.
    #[test]
    fn a_pool_too_small_leaves_exactly_the_surplus_without(size in 1u8..30, surplus in 1u32..5, pick in pick()) {
        let clients: Vec<u32> = (0..u32::from(size) + surplus).collect();
        let outcome = arrive(&mut lan(pick, size), &clients);
        prop_assert_eq!(outcome.values().filter(|address| address.is_some()).count(), usize::from(size));
    }

    /// 48, 49, 50: whatever clients say, no address is lost, none is held by two, and who comes back inside its lease
    /// gets the same one.
    #[test]
    fn addresses_are_conserved_held_once_and_stable(
        steps in proptest::collection::vec(step(), 1..120), pick in pick(), size in 1u8..40, reserved in proptest::collection::btree_map(0u32..12, 0u8..40, 0..4),
    ) {
        let mut config = server(pick, size).config().clone();
        let taken: BTreeSet<u8> = reserved.values().copied().collect();
        for (client, last) in reserved.iter().filter(|_| taken.len() == reserved.len()) {
            config.reservations.insert(mac(*client), Ipv4Addr::new(10, 0, 0, 10 + last));
        }
        let mut server = Server::new(config);
        let mut now = 0u64;
        let mut offers: BTreeMap<(u32, bool), Ipv4Addr> = BTreeMap::new();
        let mut held: BTreeMap<(u32, bool), (Ipv4Addr, u64)> = BTreeMap::new();
        for (client, with_id, step) in steps {
            let who = (client, with_id);
            let valid = |held: &BTreeMap<_, (Ipv4Addr, u64)>| held.get(&who).filter(|(_, until)| *until > now).map(|(address, _)| *address);
            match step {
                Step::Wait(seconds) => now += u64::from(seconds) * SECOND_US,
                Step::Discover => {
                    let reply = server.handle(now, &packet(Message::Discover, client, with_id));
                    if let (Some(address), Some(reply)) = (valid(&held), &reply) {
                        prop_assert_eq!(reply.yiaddr, address, "50: a leased client is offered its address");
                    }
                    if let Some(reply) = reply {
                        offers.insert(who, reply.yiaddr);
                    }
                }
                Step::RequestOffered => {
                    let Some(address) = offers.remove(&who) else { continue };
                    let mut request = packet(Message::Request, client, with_id);
                    request.options.requested = Some(address);
                    request.options.server = Some([10, 0, 0, 2].into());
                    let reply = server.handle(now, &request).expect("an answer to its own offer");
                    if reply.options.message == Some(Message::Ack) {
                        held.insert(who, (address, now + 600 * SECOND_US));
                    }
                }
                Step::Reboot(last) => {
                    let address = valid(&held).unwrap_or(Ipv4Addr::new(10, 0, 0, 10 + last));
                    let mut request = packet(Message::Request, client, with_id);
                    request.options.requested = Some(address);
                    let reply = server.handle(now, &request);
                    let acknowledged = reply.as_ref().is_some_and(|reply| reply.options.message == Some(Message::Ack));
                    if valid(&held).is_some() {
                        prop_assert!(acknowledged, "50: a client inside its lease keeps it");
                    }
                    if acknowledged {
                        held.insert(who, (address, now + 600 * SECOND_US));
                    }
                }
                Step::Foreign => {
                    let mut request = packet(Message::Request, client, with_id);
                    request.options.requested = Some([192, 168, 1, 1].into());
                    let reply = server.handle(now, &request);
                    prop_assert_eq!(reply.and_then(|reply| reply.options.message), Some(Message::Nak));
                }
                Step::Decline => {
                    let Some(address) = valid(&held) else { continue };
                    let mut decline = packet(Message::Decline, client, with_id);
                    decline.options.requested = Some(address);
                    server.handle(now, &decline);
                    held.remove(&who);
                }
                Step::Release => {
                    let Some(address) = valid(&held) else { continue };
                    let mut release = packet(Message::Release, client, with_id);
                    release.ciaddr = address;
                    server.handle(now, &release);
                    held.remove(&who);
                }
            }
            let census = server.census(now);
            prop_assert_eq!(
                census.free + census.offered + census.leased + census.declined + census.reserved, census.pool
            );
            prop_assert_eq!(census.pool, u64::from(size));
            let leases: Vec<(Ipv4Addr, ClientKey)> = server.leases(now).map(|(address, key, _)| (address, key.clone())).collect();
            let addresses: BTreeSet<_> = leases.iter().map(|(address, _)| *address).collect();
            let clients: BTreeSet<_> = leases.iter().map(|(_, key)| key.clone()).collect();
            prop_assert_eq!(addresses.len(), leases.len());
            prop_assert_eq!(clients.len(), leases.len());
            for (who, (address, until)) in &held {
                let of = packet(Message::Inform, who.0, who.1).options.client.map_or(ClientKey::Hardware(mac(who.0)), ClientKey::Id);
                prop_assert_eq!(*until > now, leases.contains(&(*address, of)));
            }
        }
    }

    /// 51: clients and servers on a segment that is not connected change nothing.
    #[test]
    fn another_segment_changes_nothing(
        clients in proptest::collection::btree_set(0u32..1000, 1..20), strangers in proptest::collection::btree_set(1000u32..2000, 1..20), pick in pick(),
    ) {
        let own: Vec<u32> = clients.iter().copied().collect();
        let alone = arrive(&mut lan(pick, 200), &own);
        let mut both = lan(pick, 200);
        both.add_network("other", Network::new("elsewhere"));
        let rogue = Host::new("rogue", Mac([2, 0, 0, 0, 0, 3]), "elsewhere", [10, 0, 0, 2].into(), 24);
        both.add_host(rogue.with_dhcp(server(Pick::Lowest, 5)));
        let mut foreign: Vec<DhcpStation> = strangers.iter().map(|client| {
            let port = both.attach("other", mac(*client), 0);
            DhcpStation::new(port, Client::new(ClientConfig::dhclient_once(mac(*client)), 1, None))
        }).collect();
        let mut local: Vec<DhcpStation> = own.iter().map(|client| {
            let port = both.attach("LAN", mac(*client), 0);
            DhcpStation::new(port, Client::new(ClientConfig::dhclient_once(mac(*client)), u64::from(*client), None))
        }).collect();
        let mut running: Vec<&mut dyn Station> = foreign.iter_mut().chain(local.iter_mut()).map(|station| station as &mut dyn Station).collect();
        let packets = both.exchange(&mut running, 0, 120 * SECOND_US);
        let together: BTreeMap<u32, Option<Ipv4Addr>> = own.iter().copied().zip(local.iter().map(|station| station.lease().map(|lease| lease.address))).collect();
        prop_assert_eq!(alone, together);
        let segments: BTreeSet<&str> = packets.iter().map(|packet| packet.segment.as_str()).collect();
        prop_assert_eq!(segments, BTreeSet::from(["elsewhere", "site"]));
    }

    /// The same lab and seeds give the same packets, to the microsecond.
    #[test]
    fn an_exchange_is_a_function_of_its_arguments(clients in proptest::collection::vec(0u32..1000, 1..20), pick in pick(), lost in proptest::collection::vec(0u64..80, 0..10)) {
        let run = || {
            let mut lan = lan(pick, 200);
            lan.lose_frames(&lost);
            let port = lan.attach("LAN", mac(clients[0]), 0);
            let mut station = DhcpStation::new(port, Client::new(ClientConfig::dhclient(mac(clients[0])), 9, None));
            (lan.exchange(&mut [&mut station], 0, 900 * SECOND_US), station)
        };
        prop_assert_eq!(run(), run());
    }

    /// What is written is read back as it was.
    #[test]
    fn messages_survive_the_wire(
        xid: u32, secs: u16, broadcast: bool, chaddr: [u8; 6], addresses: [[u8; 4]; 4],
        name in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..400)),
        client in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
        dns in proptest::collection::vec(any::<[u8; 4]>(), 0..80),
        lease in proptest::option::of(any::<u32>()),
    ) {
        let mut packet = Packet::request(Message::Request, xid, Mac(chaddr));
        (packet.secs, packet.broadcast) = (secs, broadcast);
        [packet.ciaddr, packet.yiaddr, packet.siaddr, packet.giaddr] = addresses.map(Ipv4Addr::from);
        packet.options.host_name = name;
        packet.options.client = client;
        packet.options.dns = dns.into_iter().map(Ipv4Addr::from).collect();
        packet.options.lease_s = lease;
        let bytes = packet.encode();
        prop_assert!(bytes.len() >= 300);
        prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
    }

    /// Damaged messages and rules never bring a reader down.
    #[test]
    fn damaged_input_is_refused_or_read(
        edits in proptest::collection::vec((0usize..400, any::<u8>()), 0..12), cut in 0usize..500,
    ) {
        let mut message = packet(Message::Request, 1, true);
        message.options.dns = vec![[10, 0, 0, 1].into(); 3];
        let rules = b"*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n-A INPUT -i eth0 -p tcp -m state --state NEW -m tcp --dport 22 -j mine\n-A mine -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -p icmp -j ACCEPT\nCOMMIT\n".to_vec();
        for (bytes, target) in [(message.encode(), fuzz::dhcp as fn(&[u8])), (rules, fuzz::iptables)] {
            let mut bytes = bytes;
            for (at, value) in &edits {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            target(&bytes[..cut.min(bytes.len())]);
            target(&bytes);
        }
    }
}
