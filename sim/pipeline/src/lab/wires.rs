//! The lab's network: the LAN both hosts are on, its DHCP server with the leases of others, and, where a scenario says
//! so, another subnet behind the target.

use super::books::Site;
use crate::library::{Library, SourceDisk};
use drylab_catalog::{Mac, Mark};
use drylab_guest::inspect::{Family, Guest};
use drylab_hypervisor::{self as hypervisor, Network as NetworkFacts};
use drylab_kernel::{Stream, Streams};
use drylab_network::dhcp::{ClientKey, Message, Packet, Pick, Server, ServerConfig, Unknown};
use drylab_network::{Host, Lan, Network, Subnet};
use drylab_scenario::{Scenario, TargetNetwork};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The lease the source machine holds when the run begins.
pub(super) struct Held {
    pub(super) key: ClientKey,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
}

impl Held {
    /// The lease of a golden guest: Windows identifies itself by type and address (RFC 2132 §9.14), Linux does not.
    pub(super) fn of(disk: &SourceDisk, guest: &Guest) -> Self {
        let Mac([a, b, c, d, e, f]) = disk.mac;
        let key = match guest.os.family {
            Family::Windows => ClientKey::Id(vec![1, a, b, c, d, e, f]),
            Family::Linux => ClientKey::Hardware(disk.mac),
        };
        Self {
            key,
            mac: disk.mac,
            address: disk.lease,
        }
    }
}

/// Builds the network of a run.
pub(super) fn build(
    library: &Library,
    scenario: &Scenario,
    streams: &Streams,
    sites: (&Site<'_>, &Site<'_>),
    held: Option<&Held>,
) -> Lan {
    let mut lan = Lan::default();
    let mut noise = streams.stream("lab.network", 0);
    for (name, facts) in &library.lab.networks {
        let router = &library.lab.router;
        let router = Some(router.name.as_str()).filter(|_| router.networks.contains(name));
        segment(&mut lan, (name, facts), router, scenario, held, &mut noise);
    }
    let home = segment_of(library, &sites.0.host);
    plug(&mut lan, sites.0, home, scenario, &mut noise);
    let there = target_segment(library, scenario, &sites.1.host);
    plug(&mut lan, sites.1, there, scenario, &mut noise);
    lan
}

/// The segment a host's virtual network is bridged to: that of the host's switch.
pub(super) fn segment_of<'l>(library: &'l Library, host: &hypervisor::Host) -> &'l str {
    // A lab file whose hosts name no switch is refused.
    library.lab.network_of(host).unwrap_or("lan")
}

/// The segment the target's virtual network leads to.
pub(super) fn target_segment<'l>(
    library: &'l Library,
    scenario: &Scenario,
    host: &hypervisor::Host,
) -> &'l str {
    match scenario.lab.target_network {
        TargetNetwork::SameSegment => segment_of(library, host),
        TargetNetwork::OtherSubnet => "other",
    }
}

/// How sure the lab file is of a network.
pub(super) fn mark(library: &Library, network: &str) -> Mark {
    library
        .lab
        .networks
        .get(network)
        .map_or(Mark::Belief, |facts| facts.mark)
}

/// Bridges a site's virtual network to a segment.
fn plug(lan: &mut Lan, site: &Site<'_>, segment: &str, scenario: &Scenario, noise: &mut Stream) {
    let Ok(name) = site.facts.text("network.name") else {
        return;
    };
    let mut network = Network::new(segment);
    network.latency_us = noise.between(80, 400);
    network.forward_delay_us = u64::from(scenario.lab.forward_delay_s) * 1_000_000;
    lan.add_network(&format!("{}:{}", site.name, name.value), network);
}

fn segment(
    lan: &mut Lan,
    (name, facts): (&str, &NetworkFacts),
    router: Option<&str>,
    scenario: &Scenario,
    held: Option<&Held>,
    noise: &mut Stream,
) {
    let Ok(subnet) = facts.prefix.parse::<Subnet>() else {
        return;
    };
    let bits = subnet.prefix();
    let gateway = format!("{name}-gateway");
    let leads_on = Host::new(&gateway, facts.gateway_mac, name, facts.gateway, bits);
    lan.add_host(match router {
        Some(router) => leads_on.on_router(router),
        None => leads_on,
    });
    let server_host = if facts.dns == facts.gateway {
        gateway
    } else {
        format!("{name}-server")
    };
    if facts.dns != facts.gateway {
        let Mac([a, b, c, d, e, _]) = facts.gateway_mac;
        lan.add_host(Host::new(
            &server_host,
            Mac([a, b, c, d, e, 2]),
            name,
            facts.dns,
            bits,
        ));
    }
    if let Some(host) = lan.host_mut(&server_host) {
        host.dns = Some(BTreeMap::new());
    }
    if !scenario.lab.dhcp {
        return;
    }
    let mut config = ServerConfig::new(facts.dhcp, subnet, Pick::Hash);
    let first = u32::from(facts.pool_first);
    config.ranges = vec![(
        facts.pool_first,
        Ipv4Addr::from(first + scenario.lab.dhcp_pool.max(1) - 1),
    )];
    config.routers = vec![facts.gateway];
    config.dns = vec![facts.dns];
    config.domain = Some(facts.domain.clone()).filter(|domain| !domain.is_empty());
    config.unknown = Unknown::Adopt;
    let mut server = Server::new(config);
    if let Some(held) = held {
        server.record(0, held.key.clone(), held.mac, held.address);
    }
    let others = scenario
        .lab
        .dhcp_clients
        .map_or_else(|| noise.bounded(41), u64::from);
    for number in 0..others.min(u64::from(scenario.lab.dhcp_pool.saturating_sub(2))) {
        let [.., a, b] = number.to_be_bytes();
        lease_to(&mut server, Mac([0x00, 0x1e, 0xc9, 0x77, a, b]));
    }
    if let Some(host) = lan.host_mut(&server_host) {
        host.dhcp = Some(server);
    }
}

/// Another client of the LAN got its lease before the run began.
fn lease_to(server: &mut Server, mac: Mac) {
    let Some(offer) = server.handle(0, &Packet::request(Message::Discover, 1, mac)) else {
        return;
    };
    let mut request = Packet::request(Message::Request, 1, mac);
    request.options.server = Some(server.config().address);
    request.options.requested = Some(offer.yiaddr);
    server.handle(0, &request);
}

/// Gives every lease of an adapter back, as the client would on its way out.
pub(super) fn give_back(lan: &mut Lan, mac: Mac, now: u64) {
    let names: Vec<String> = lan.hosts().iter().map(|host| host.name.clone()).collect();
    for name in names {
        let Some(server) = lan.host_mut(&name).and_then(|host| host.dhcp.as_mut()) else {
            continue;
        };
        let held: Vec<(Ipv4Addr, ClientKey)> = server
            .leases(now)
            .filter(|(_, _, holder)| *holder == mac)
            .map(|(address, key, _)| (address, key.clone()))
            .collect();
        for (address, key) in held {
            let mut release = Packet::request(Message::Release, 1, mac);
            release.ciaddr = address;
            release.options.server = Some(server.config().address);
            if let ClientKey::Id(id) = key {
                release.options.client = Some(id);
            }
            server.handle(now, &release);
        }
    }
}
