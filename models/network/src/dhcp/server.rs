//! A DHCP server: RFC 2131, sections 3 and 4.3, with the choices real servers make left as values.

use super::config::SECOND_US;
use super::packet::{Message, Op, Packet};
use crate::Subnet;
use drylab_catalog::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// How an address is chosen for a client the server does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// dnsmasq: start at the SDBM hash of the hardware address modulo the size of the pool, take the next free one.
    Hash,
    /// Lowest free address.
    Lowest,
    /// ISC dhcpd: addresses never given first, from the top of the range; then the one given back longest ago.
    LeastRecent,
}

/// What a server does with a DHCPREQUEST for an address of its subnet that it has no record of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Says nothing (RFC 2131, section 4.3.2).
    Silent,
    /// Refuses.
    Nak,
    /// Takes the client's word for it, if the address is free.
    Adopt,
}

/// Configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its own address, the server identifier.
    pub address: Ipv4Addr,
    /// Subnet it serves.
    pub subnet: Subnet,
    /// Addresses it gives: first and last of each range, both included.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Addresses kept for hardware addresses.
    pub reservations: BTreeMap<Mac, Ipv4Addr>,
    /// Lease time.
    pub lease_s: u32,
    /// How long an offer is held.
    pub offer_hold_s: u32,
    /// How long a declined address is left alone.
    pub decline_hold_s: u32,
    /// Option 3.
    pub routers: Vec<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Choice of addresses.
    pub pick: Pick,
    /// Whether an address of another subnet is refused (else met with silence).
    pub authoritative: bool,
    /// Requests it has no record of.
    pub unknown: Unknown,
    /// Serves only reservations.
    pub known_clients_only: bool,
}

impl ServerConfig {
    /// A server for the whole subnet except network, broadcast and its own address; one day of lease, authoritative.
    #[must_use]
    pub fn new(address: Ipv4Addr, subnet: Subnet, pick: Pick) -> Self {
        let first = Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1));
        let last = Ipv4Addr::from(u32::from(subnet.broadcast()).saturating_sub(1));
        Self {
            address,
            subnet,
            ranges: vec![(first, last)],
            reservations: BTreeMap::new(),
            lease_s: 86_400,
            offer_hold_s: 120,
            decline_hold_s: 86_400,
            routers: Vec::new(),
            dns: Vec::new(),
            domain: None,
            pick,
            authoritative: true,
            unknown: Unknown::Nak,
            known_clients_only: false,
        }
    }
}

/// Who holds a lease: the client identifier when one is sent, else the hardware address (RFC 2131, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKey {
    /// Option 61.
    Id(Vec<u8>),
    /// chaddr.
    Hardware(Mac),
}

impl ClientKey {
    fn of(packet: &Packet) -> Self {
        match &packet.options.client {
            Some(id) if !id.is_empty() => Self::Id(id.clone()),
            _ => Self::Hardware(packet.chaddr),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Offered { until: u64 },
    Leased { until: u64 },
    Declined { until: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    client: ClientKey,
    mac: Mac,
    state: State,
}

/// Addresses of the pool by state; the five sum to `pool`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Not held by anyone.
    pub free: u64,
    /// Offered, not yet asked for.
    pub offered: u64,
    /// Leased.
    pub leased: u64,
    /// Found in use by a stranger.
    pub declined: u64,
    /// Kept for a hardware address and not in use.
    pub reserved: u64,
    /// Size of the pool.
    pub pool: u64,
}

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    config: ServerConfig,
    bindings: BTreeMap<Ipv4Addr, Binding>,
    /// Last address of each client, and when it was given back.
    former: BTreeMap<ClientKey, (Ipv4Addr, u64)>,
}

impl Server {
    /// A server with an empty lease file.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self {
            config,
            bindings: BTreeMap::new(),
            former: BTreeMap::new(),
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Leases in force at `now`: address, client, hardware address.
    pub fn leases(&self, now: u64) -> impl Iterator<Item = (Ipv4Addr, &ClientKey, Mac)> {
        self.bindings
            .iter()
            .filter_map(move |(address, binding)| match binding.state {
                State::Leased { until } if until > now => {
                    Some((*address, &binding.client, binding.mac))
                }
                _ => None,
            })
    }

    /// Writes a lease into the lease file, as if it had been given at `now`: who was here before the story begins.
    /// False, without effect, when the address is not this client's to have.
    pub fn record(&mut self, now: u64, client: ClientKey, mac: Mac, address: Ipv4Addr) -> bool {
        self.expire(now);
        let free = !self.bindings.contains_key(&address) && self.available_to(address, mac);
        let new = !self
            .bindings
            .values()
            .any(|binding| binding.client == client);
        if free && new {
            let until = after(now, self.config.lease_s);
            self.former.insert(client.clone(), (address, until));
            self.bindings.insert(
                address,
                Binding {
                    client,
                    mac,
                    state: State::Leased { until },
                },
            );
        }
        free && new
    }

    /// States of the pool's addresses at `now`.
    #[must_use]
    pub fn census(&self, now: u64) -> Census {
        let reserved: BTreeSet<Ipv4Addr> = self.config.reservations.values().copied().collect();
        let mut census = Census::default();
        for address in self.pool() {
            census.pool = census.pool.saturating_add(1);
            let count = match self
                .bindings
                .get(&address)
                .filter(|binding| binding.until() > now)
                .map(|binding| &binding.state)
            {
                Some(State::Offered { .. }) => &mut census.offered,
                Some(State::Leased { .. }) => &mut census.leased,
                Some(State::Declined { .. }) => &mut census.declined,
                None if reserved.contains(&address) => &mut census.reserved,
                None => &mut census.free,
            };
            *count = count.saturating_add(1);
        }
        census
    }

    /// Answers a client's message at `now`; `None` when the server keeps silent.
    pub fn handle(&mut self, now: u64, packet: &Packet) -> Option<Packet> {
        if packet.op != Op::Request {
            return None;
        }
        self.expire(now);
        match packet.options.message? {
            Message::Discover => self.discover(now, packet),
            Message::Request => self.request(now, packet),
            Message::Decline => self.decline(now, packet),
            Message::Release => self.release(now, packet),
            Message::Inform => Some(self.configured(Message::Ack, packet)),
            Message::Offer | Message::Ack | Message::Nak => None,
        }
    }

    fn discover(&mut self, now: u64, packet: &Packet) -> Option<Packet> {
        let client = ClientKey::of(packet);
        let address = self.choose(now, &client, packet)?;
        // A client that holds a lease and starts over keeps it while it decides.
        if !matches!(
            self.bindings.get(&address),
            Some(Binding {
                state: State::Leased { .. },
                ..
            })
        ) {
            let until = after(now, self.config.offer_hold_s);
            self.bindings.insert(
                address,
                Binding {
                    client,
                    mac: packet.chaddr,
                    state: State::Offered { until },
                },
            );
        }
        let mut offer = self.configured(Message::Offer, packet);
        offer.yiaddr = address;
        Some(offer)
    }

    fn request(&mut self, now: u64, packet: &Packet) -> Option<Packet> {
        let client = ClientKey::of(packet);
        if let Some(server) = packet.options.server {
            if server != self.config.address {
                // The client took another server's offer.
                self.bindings.retain(|_, binding| {
                    binding.client != client || !matches!(binding.state, State::Offered { .. })
                });
                return None;
            }
            let address = packet.options.requested?;
            return Some(if self.held_by(address, &client) {
                self.acknowledge(now, client, address, packet)
            } else {
                self.refuse(packet, "address not available")
            });
        }
        // INIT-REBOOT fills option 50; RENEWING and REBINDING fill ciaddr.
        let address = packet
            .options
            .requested
            .or((!packet.ciaddr.is_unspecified()).then_some(packet.ciaddr))?;
        if !self.config.subnet.contains(address) {
            return self
                .config
                .authoritative
                .then(|| self.refuse(packet, "wrong network"));
        }
        if self.held_by(address, &client) {
            return Some(self.acknowledge(now, client, address, packet));
        }
        let elsewhere = self
            .bindings
            .values()
            .any(|binding| binding.client == client);
        let free =
            !self.bindings.contains_key(&address) && self.available_to(address, packet.chaddr);
        let remembered = self
            .former
            .get(&client)
            .is_some_and(|(former, _)| *former == address);
        let reservation = self.config.reservations.get(&packet.chaddr);
        let reserved = reservation == Some(&address);
        let open = reservation.is_none() && !self.config.known_clients_only && !elsewhere;
        if free && (reserved || (open && (remembered || self.config.unknown == Unknown::Adopt))) {
            return Some(self.acknowledge(now, client, address, packet));
        }
        if !free || elsewhere {
            return self
                .config
                .authoritative
                .then(|| self.refuse(packet, "lease unavailable"));
        }
        (self.config.unknown == Unknown::Nak).then(|| self.refuse(packet, "unknown lease"))
    }

    fn decline(&mut self, now: u64, packet: &Packet) -> Option<Packet> {
        let address = packet.options.requested?;
        let client = ClientKey::of(packet);
        if self.held_by(address, &client) {
            let until = after(now, self.config.decline_hold_s);
            self.former.remove(&client);
            self.bindings.insert(
                address,
                Binding {
                    client,
                    mac: packet.chaddr,
                    state: State::Declined { until },
                },
            );
        }
        None
    }

    fn release(&mut self, now: u64, packet: &Packet) -> Option<Packet> {
        let client = ClientKey::of(packet);
        if self.held_by(packet.ciaddr, &client) {
            self.bindings.remove(&packet.ciaddr);
            self.former.insert(client, (packet.ciaddr, now));
        }
        None
    }

    fn acknowledge(
        &mut self,
        now: u64,
        client: ClientKey,
        address: Ipv4Addr,
        packet: &Packet,
    ) -> Packet {
        // One address per client: what else it held in this subnet is given back.
        self.bindings.retain(|other, binding| {
            *other == address
                || binding.client != client
                || matches!(binding.state, State::Declined { .. })
        });
        let until = after(now, self.config.lease_s);
        self.former.insert(client.clone(), (address, until));
        self.bindings.insert(
            address,
            Binding {
                client,
                mac: packet.chaddr,
                state: State::Leased { until },
            },
        );
        let mut ack = self.configured(Message::Ack, packet);
        ack.ciaddr = packet.ciaddr;
        ack.yiaddr = address;
        ack
    }

    fn refuse(&self, packet: &Packet, why: &str) -> Packet {
        let mut nak = Packet::reply(Message::Nak, packet);
        nak.options.server = Some(self.config.address);
        nak.options.text = Some(why.as_bytes().to_vec());
        nak.broadcast = true;
        nak
    }

    fn configured(&self, message: Message, packet: &Packet) -> Packet {
        let config = &self.config;
        let mut reply = Packet::reply(message, packet);
        reply.options.server = Some(config.address);
        reply.options.mask = Some(config.subnet.mask());
        reply.options.routers.clone_from(&config.routers);
        reply.options.dns.clone_from(&config.dns);
        reply.options.domain = config
            .domain
            .as_ref()
            .map(|domain| domain.as_bytes().to_vec());
        if packet.options.message != Some(Message::Inform) {
            reply.options.lease_s = Some(config.lease_s);
            reply.options.renewal_s = Some(config.lease_s / 2);
            reply.options.rebinding_s = Some(
                u32::try_from(u64::from(config.lease_s).saturating_mul(7) / 8).unwrap_or(u32::MAX),
            );
        }
        reply
    }

    /// The order of RFC 2131, section 4.3.1: current binding, former one, the address asked for, a new one; a
    /// reservation comes before all.
    fn choose(&self, now: u64, client: &ClientKey, packet: &Packet) -> Option<Ipv4Addr> {
        let free = |address: &Ipv4Addr| {
            !self.bindings.contains_key(address) && self.available_to(*address, packet.chaddr)
        };
        if let Some(reserved) = self.config.reservations.get(&packet.chaddr) {
            return (free(reserved) || self.held_by(*reserved, client)).then_some(*reserved);
        }
        if self.config.known_clients_only {
            return None;
        }
        if let Some((address, _)) = self.bindings.iter().find(|(_, binding)| {
            binding.client == *client && !matches!(binding.state, State::Declined { .. })
        }) {
            return Some(*address);
        }
        let former = self.former.get(client).map(|(address, _)| *address);
        former
            .filter(|_| self.config.pick != Pick::Hash)
            .or(packet.options.requested)
            .filter(|address| self.in_pool(*address) && free(address))
            .or_else(|| self.pick(now, packet, free))
    }

    fn pick(
        &self,
        now: u64,
        packet: &Packet,
        free: impl Fn(&Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        match self.config.pick {
            Pick::Lowest => self.pool().find(free),
            Pick::Hash => {
                let size = u64::try_from(self.pool().count())
                    .ok()
                    .filter(|size| *size > 0)?;
                let start =
                    usize::try_from(u64::from(sdbm(&packet.chaddr.0)).checked_rem(size)?).ok()?;
                self.pool()
                    .skip(start)
                    .chain(self.pool().take(start))
                    .find(free)
            }
            Pick::LeastRecent => {
                let used: BTreeMap<Ipv4Addr, u64> = self
                    .former
                    .values()
                    .map(|(address, at)| (*address, (*at).min(now)))
                    .collect();
                let mut pool: Vec<Ipv4Addr> = self.pool().filter(free).collect();
                pool.reverse();
                pool.into_iter()
                    .min_by_key(|address| used.get(address).map_or(0, |at| at.saturating_add(1)))
            }
        }
    }

    fn held_by(&self, address: Ipv4Addr, client: &ClientKey) -> bool {
        self.bindings.get(&address).is_some_and(|binding| {
            binding.client == *client && !matches!(binding.state, State::Declined { .. })
        })
    }

    /// Not the server's own address, not kept for someone else, and in the pool or kept for this one.
    fn available_to(&self, address: Ipv4Addr, mac: Mac) -> bool {
        let keeper = self
            .config
            .reservations
            .iter()
            .find(|(_, reserved)| **reserved == address);
        match keeper {
            Some((owner, _)) => *owner == mac,
            None => self.in_pool(address),
        }
    }

    fn in_pool(&self, address: Ipv4Addr) -> bool {
        address != self.config.address
            && self.config.subnet.contains(address)
            && self
                .config
                .ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&address))
    }

    fn pool(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = self
            .config
            .ranges
            .iter()
            .flat_map(|(first, last)| u32::from(*first)..=u32::from(*last));
        all.map(Ipv4Addr::from).filter(|address| {
            *address != self.config.address && self.config.subnet.contains(*address)
        })
    }

    fn expire(&mut self, now: u64) {
        self.bindings.retain(|_, binding| binding.until() > now);
    }
}

impl Binding {
    fn until(&self) -> u64 {
        match self.state {
            State::Offered { until } | State::Leased { until } | State::Declined { until } => until,
        }
    }
}

fn after(now: u64, seconds: u32) -> u64 {
    now.saturating_add(u64::from(seconds).saturating_mul(SECOND_US))
}

/// The SDBM string hash, 32 bits.
fn sdbm(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0u32, |hash, byte| {
        u32::from(*byte)
            .wrapping_add(hash << 6)
            .wrapping_add(hash << 16)
            .wrapping_sub(hash)
    })
}
