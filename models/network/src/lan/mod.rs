//! The lab's network: products' networks on segments, hosts and routers on them, ports of guests.
//!
//! ```text
//!  guest port ── network "esxi-1:VM Network" ─┐
//!  guest port ── network "kvm-1:br0" ─────────┤ segment "site" ── host dhcp, dns, gateway ─ router ─ segment "office"
//!  guest port ── network "kvm-1:default" ── segment "virbr0" ── host 192.168.122.1 (router, NAT, dnsmasq)
//! ```
//!
//! A segment is one broadcast domain; nothing crosses its border but through hosts of the same router.

mod exchange;
mod frame;
mod probe;
mod station;

pub use frame::{Frame, PacketLog, Payload};
pub use probe::{Answer, link_local};
pub use station::{Action, DhcpStation, Station};

use crate::Subnet;
use crate::dhcp::Server;
use drylab_catalog::Mac;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A network of a product (port group, bridge, virtual switch) and the segment it is bridged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The broadcast domain it belongs to.
    pub segment: String,
    /// One way between a port of this network and the segment, in microseconds.
    pub latency_us: u64,
    /// How long a new port stays silent: 30 s with spanning tree (listening 15 s and learning 15 s), 0 without.
    pub forward_delay_us: u64,
    /// Whether the uplink is there.
    pub up: bool,
}

impl Network {
    /// A network on a segment, 100 µs away, without spanning tree.
    #[must_use]
    pub fn new(segment: &str) -> Self {
        Self {
            segment: segment.to_owned(),
            latency_us: 100,
            forward_delay_us: 0,
            up: true,
        }
    }

    /// The same with spanning tree's two phases, each of `forward_delay_s` (15 s by default in IEEE 802.1D).
    #[must_use]
    pub fn with_spanning_tree(mut self, forward_delay_s: u32) -> Self {
        self.forward_delay_us = u64::from(forward_delay_s).saturating_mul(2_000_000);
        self
    }
}

/// A machine of the lab itself, with one interface; a router is several hosts with the same `router` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name in logs.
    pub name: String,
    /// Its address on the wire.
    pub mac: Mac,
    /// Segment it is on.
    pub segment: String,
    /// Its IP address.
    pub address: Ipv4Addr,
    /// Subnet of that address.
    pub subnet: Subnet,
    /// Time it takes to answer, in microseconds.
    pub reply_us: u64,
    /// Its DHCP server.
    pub dhcp: Option<Server>,
    /// Names it answers DNS queries for.
    pub dns: Option<BTreeMap<String, Ipv4Addr>>,
    /// Router it is an interface of.
    pub router: Option<String>,
    /// Other side's traffic leaves with this interface's address, and none comes in from here (NAT, outer side).
    pub nat: bool,
    /// Gateway of the host itself, for answers to other subnets.
    pub gateway: Option<Ipv4Addr>,
    /// Whether it runs.
    pub up: bool,
}

impl Host {
    /// A plain host that answers ARP and echo within 200 µs.
    #[must_use]
    pub fn new(name: &str, mac: Mac, segment: &str, address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            name: name.to_owned(),
            mac,
            segment: segment.to_owned(),
            address,
            subnet: Subnet::new(address, prefix),
            reply_us: 200,
            dhcp: None,
            dns: None,
            router: None,
            nat: false,
            gateway: None,
            up: true,
        }
    }

    /// The same with a DHCP server.
    #[must_use]
    pub fn with_dhcp(mut self, server: Server) -> Self {
        self.dhcp = Some(server);
        self
    }

    /// The same with a DNS server that knows these names.
    #[must_use]
    pub fn with_dns(mut self, names: BTreeMap<String, Ipv4Addr>) -> Self {
        self.dns = Some(names);
        self
    }

    /// The same as an interface of a router.
    #[must_use]
    pub fn on_router(mut self, router: &str) -> Self {
        self.router = Some(router.to_owned());
        self
    }
}

/// Names a guest's port; never used twice in one [`Lan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId(u32);

/// A guest's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Network it is plugged into.
    pub network: String,
    /// Address on the wire.
    pub mac: Mac,
    /// From then on frames pass.
    pub forwarding_at: u64,
    /// IP addresses the guest answers for.
    pub addresses: Vec<Ipv4Addr>,
}

/// The network of a lab, a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lan {
    networks: BTreeMap<String, Network>,
    hosts: Vec<Host>,
    ports: BTreeMap<PortId, Port>,
    next_port: u32,
    frames_sent: u64,
    lost_frames: Vec<u64>,
}

impl Lan {
    /// Adds or replaces a network of a product.
    pub fn add_network(&mut self, name: &str, network: Network) {
        self.networks.insert(name.to_owned(), network);
    }

    /// Adds a host.
    pub fn add_host(&mut self, host: Host) {
        self.hosts.push(host);
    }

    /// The network of this name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.get(name)
    }

    /// The network of this name, to change it.
    pub fn network_mut(&mut self, name: &str) -> Option<&mut Network> {
        self.networks.get_mut(name)
    }

    /// All hosts, in the order they were added.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name, to change it.
    pub fn host_mut(&mut self, name: &str) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.name == name)
    }

    /// Loses the frames with these numbers, counted from 0 over the life of this value.
    pub fn lose_frames(&mut self, numbers: &[u64]) {
        self.lost_frames.extend_from_slice(numbers);
    }

    /// Plugs an adapter into a network at `at`; on a network that is not there it stays without a link.
    pub fn attach(&mut self, network: &str, mac: Mac, at: u64) -> PortId {
        let delay = self
            .networks
            .get(network)
            .map_or(0, |network| network.forward_delay_us);
        let id = PortId(self.next_port);
        self.next_port = self.next_port.saturating_add(1);
        let forwarding_at = at.saturating_add(delay);
        self.ports.insert(
            id,
            Port {
                network: network.to_owned(),
                mac,
                forwarding_at,
                addresses: Vec::new(),
            },
        );
        id
    }

    /// Unplugs an adapter.
    pub fn detach(&mut self, port: PortId) -> Option<Port> {
        self.ports.remove(&port)
    }

    /// Unplugs every adapter with this address, as when a machine is switched off.
    pub fn detach_mac(&mut self, mac: Mac) {
        self.ports.retain(|_, port| port.mac != mac);
    }

    /// A port.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// Says which addresses the guest behind a port answers for.
    pub fn set_addresses(&mut self, port: PortId, addresses: &[Ipv4Addr]) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.addresses = addresses.to_vec();
        }
    }

    /// Whether the port's network is there and its uplink works.
    #[must_use]
    pub fn has_link(&self, port: PortId) -> bool {
        self.ports
            .get(&port)
            .and_then(|port| self.networks.get(&port.network))
            .is_some_and(|network| network.up)
    }

    /// The segment a port is on.
    #[must_use]
    pub fn segment_of(&self, port: PortId) -> Option<&str> {
        let network = &self.ports.get(&port)?.network;
        self.networks
            .get(network)
            .map(|network| network.segment.as_str())
    }

    /// MAC addresses plugged in more than once on one segment: two live instances of one machine.
    #[must_use]
    pub fn duplicate_macs(&self) -> Vec<Mac> {
        self.duplicates(|port| vec![port.mac])
    }

    /// IP addresses answered for by more than one port of one segment.
    #[must_use]
    pub fn duplicate_addresses(&self) -> Vec<Ipv4Addr> {
        self.duplicates(|port| port.addresses.clone())
    }

    fn duplicates<T: Ord + Clone>(&self, values: impl Fn(&Port) -> Vec<T>) -> Vec<T> {
        let mut counts: BTreeMap<(&str, T), u32> = BTreeMap::new();
        for (id, port) in &self.ports {
            let Some(segment) = self.segment_of(*id) else {
                continue;
            };
            for value in values(port) {
                let count = counts.entry((segment, value)).or_default();
                *count = count.saturating_add(1);
            }
        }
        let mut twice: Vec<T> = counts
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|((_, value), _)| value)
            .collect();
        twice.sort();
        twice.dedup();
        twice
    }

    /// Whether a host elsewhere in the lab could open a connection to `address` behind `port`: on the same segment,
    /// or through a router that does not translate addresses.
    #[must_use]
    pub fn reachable_from(&self, segment: &str, port: PortId, address: Ipv4Addr) -> bool {
        let Some(own) = self.segment_of(port).filter(|_| self.has_link(port)) else {
            return false;
        };
        let on_subnet = self
            .hosts
            .iter()
            .any(|host| host.segment == own && host.subnet.contains(address));
        on_subnet
            && (own == segment
                || self.hosts.iter().any(|outer| {
                    outer.up
                        && outer.segment == segment
                        && !outer.nat
                        && outer.router.is_some()
                        && self.hosts.iter().any(|inner| {
                            inner.up
                                && inner.segment == own
                                && inner.router == outer.router
                                && inner.subnet.contains(address)
                        })
                }))
    }
}
