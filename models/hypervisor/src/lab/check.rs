//! Does a lab file describe a lab?

use super::{LabFile, Network};
use crate::facts::products;
use drylab_network::Subnet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Networks the pipeline connects machines to: the hosts' own, and the one behind a target that is not bridged to it.
const NEEDED: [&str; 2] = ["lan", "other"];

type Subnets<'l> = BTreeMap<&'l str, Subnet>;

/// The first thing that is wrong.
pub(super) fn check(lab: &LabFile) -> Result<(), String> {
    sizes(lab)?;
    names(lab)?;
    covered(lab)?;
    let subnets = subnets(lab)?;
    wired(lab)?;
    addresses(lab, &subnets)?;
    pools(lab)
}

fn sizes(lab: &LabFile) -> Result<(), String> {
    let hosts = lab.hosts.iter().flat_map(|host| {
        [
            ("memory_mib", host.memory_mib),
            ("local_bytes", host.local_bytes),
            ("cpu_khz", host.cpu_khz),
        ]
        .map(|(key, value)| (format!("host {}", host.name), key, value))
    });
    let shares = lab
        .shares
        .iter()
        .map(|share| (format!("share {}", share.name), "bytes", share.bytes));
    match hosts.chain(shares).find(|(_, _, value)| *value == 0) {
        Some((place, key, _)) => Err(format!("{place}: {key} is 0, at least 1 expected")),
        None if lab.shares.is_empty() => {
            Err("no share, at least one expected: exports are staged there".to_owned())
        }
        None => Ok(()),
    }
}

/// Everything with a name has one of its own.
fn names(lab: &LabFile) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let hosts = lab.hosts.iter().map(|host| ("host", &host.name));
    let shares = lab.shares.iter().map(|share| ("share", &share.name));
    let switches = lab.switches.iter().map(|switch| ("switch", &switch.name));
    let consoles = lab
        .consoles
        .iter()
        .map(|console| ("console", &console.name));
    let router = std::iter::once(("router", &lab.router.name));
    for (kind, name) in hosts
        .chain(shares)
        .chain(switches)
        .chain(consoles)
        .chain(router)
    {
        if name.is_empty() {
            return Err(format!("a {kind} has an empty name"));
        }
        if !seen.insert(name) {
            return Err(format!("{kind} {name}: the name is used twice"));
        }
    }
    Ok(())
}

/// Every product has one host and one console, and none is there for a product nobody knows.
fn covered(lab: &LabFile) -> Result<(), String> {
    let known = products();
    let hosts: Vec<_> = lab.hosts.iter().map(|host| &host.product).collect();
    let consoles: Vec<_> = lab
        .consoles
        .iter()
        .map(|console| &console.product)
        .collect();
    for (kind, there) in [("host", hosts), ("console", consoles)] {
        if let Some(stranger) = there.iter().find(|id| !known.contains_key(**id)) {
            let ids: Vec<String> = known.keys().map(ToString::to_string).collect();
            let ids = ids.join(", ");
            return Err(format!(
                "a {kind} is for product {stranger}, known are {ids}"
            ));
        }
        for id in known.keys() {
            match there.iter().filter(|product| **product == id).count() {
                1 => {}
                0 => return Err(format!("product {id} has no {kind}")),
                more => return Err(format!("product {id} has {more} {kind}s, one expected")),
            }
        }
    }
    Ok(())
}

fn subnets(lab: &LabFile) -> Result<Subnets<'_>, String> {
    if let Some(missing) = NEEDED
        .iter()
        .find(|name| !lab.networks.contains_key(**name))
    {
        return Err(format!("network {missing} is missing"));
    }
    let mut subnets = Subnets::new();
    for (name, network) in &lab.networks {
        let subnet = subnet(name, network)?;
        let overlapping = subnets.iter().find(|(_, other)| {
            other.contains(subnet.network()) || subnet.contains(other.network())
        });
        if let Some((other, theirs)) = overlapping {
            return Err(format!(
                "network {name}: {subnet} overlaps with {theirs} of network {other}"
            ));
        }
        for (key, address) in [
            ("gateway", network.gateway),
            ("dns", network.dns),
            ("dhcp", network.dhcp),
            ("pool_first", network.pool_first),
        ] {
            inside(&format!("network {name}: {key}"), address, subnet)?;
        }
        subnets.insert(name, subnet);
    }
    Ok(subnets)
}

fn subnet(name: &str, network: &Network) -> Result<Subnet, String> {
    let subnet: Subnet = network
        .prefix
        .parse()
        .map_err(|error| format!("network {name}: {error}"))?;
    if subnet.prefix() > 30 {
        return Err(format!(
            "network {name}: {subnet} has no room for hosts, a prefix of at most 30 bits expected"
        ));
    }
    Ok(subnet)
}

/// An address of a host: inside the subnet and neither its first nor its last.
fn inside(place: &str, address: Ipv4Addr, subnet: Subnet) -> Result<(), String> {
    if !subnet.contains(address) {
        return Err(format!("{place} {address} is outside {subnet}"));
    }
    if address == subnet.network() || address == subnet.broadcast() {
        return Err(format!(
            "{place} {address} is no host's address in {subnet}"
        ));
    }
    Ok(())
}

fn wired(lab: &LabFile) -> Result<(), String> {
    let switches = lab
        .switches
        .iter()
        .map(|switch| (format!("switch {}", switch.name), &switch.network));
    let consoles = lab
        .consoles
        .iter()
        .map(|console| (format!("console {}", console.name), &console.network));
    let routed = lab
        .router
        .networks
        .iter()
        .map(|network| (format!("router {}", lab.router.name), network));
    for (place, network) in switches.chain(consoles).chain(routed) {
        if !lab.networks.contains_key(network) {
            return Err(format!("{place}: there is no network {network}"));
        }
    }
    for name in lab.networks.keys() {
        if !lab.switches.iter().any(|switch| switch.network == *name) {
            return Err(format!("network {name} has no switch"));
        }
    }
    for host in &lab.hosts {
        if lab.network_of(host).is_none() {
            let known: Vec<&str> = lab.switches.iter().map(|switch| &*switch.name).collect();
            return Err(format!(
                "host {}: there is no switch {}, known are {}",
                host.name,
                host.switch,
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// Hosts and consoles stand in their subnets, each at an address of its own.
fn addresses(lab: &LabFile, subnets: &Subnets<'_>) -> Result<(), String> {
    let hosts = lab.hosts.iter().map(|host| {
        let network = lab.network_of(host).unwrap_or_default();
        (format!("host {}", host.name), network, host.address)
    });
    let consoles = lab.consoles.iter().map(|console| {
        let place = format!("console {}", console.name);
        (place, console.network.as_str(), console.address)
    });
    let mut taken: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    for (name, network) in &lab.networks {
        taken.insert(network.gateway, format!("the gateway of network {name}"));
        for server in [network.dns, network.dhcp] {
            let words = || format!("a server of network {name}");
            taken.entry(server).or_insert_with(words);
        }
    }
    for (place, network, address) in hosts.chain(consoles) {
        if let Some(subnet) = subnets.get(network) {
            inside(&format!("{place}: address"), address, *subnet)?;
        }
        if let Some(other) = taken.insert(address, place.clone()) {
            return Err(format!("{place}: address {address} is taken by {other}"));
        }
    }
    Ok(())
}

/// Addresses of a DHCP server's pool, of which a scenario has at most so many, from the network's `pool_first` on.
const POOL_MAX: u32 = 200;

/// Nobody who has an address of his own has one that the DHCP server hands out.
fn pools(lab: &LabFile) -> Result<(), String> {
    let hosts = lab
        .hosts
        .iter()
        .map(|host| (format!("host {}: address", host.name), host.address));
    let consoles = lab.consoles.iter().map(|console| {
        (
            format!("console {}: address", console.name),
            console.address,
        )
    });
    let servers = lab.networks.iter().flat_map(|(name, network)| {
        [
            ("gateway", network.gateway),
            ("dns", network.dns),
            ("dhcp", network.dhcp),
        ]
        .map(|(key, address)| (format!("network {name}: {key}"), address))
    });
    let fixed: Vec<(String, Ipv4Addr)> = hosts.chain(consoles).chain(servers).collect();
    for (name, network) in &lab.networks {
        let Ok(subnet) = network.prefix.parse::<Subnet>() else {
            continue;
        };
        let first = u32::from(network.pool_first);
        let last = first
            .saturating_add(POOL_MAX - 1)
            .min(u32::from(subnet.broadcast()).saturating_sub(1));
        let pool = network.pool_first..=Ipv4Addr::from(last);
        if let Some((place, address)) = fixed.iter().find(|(_, address)| pool.contains(address)) {
            return Err(format!(
                "{place} {address} is one that the DHCP server of network {name} hands out ({} to {}): choose one \
                 outside, or another pool_first",
                pool.start(),
                pool.end()
            ));
        }
    }
    Ok(())
}
