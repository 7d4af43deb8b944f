//! A Windows guest meets the lab's network: plug and play finds adapters, known ones keep their settings, new ones
//! start with DHCP; then addresses, network location, firewall profile.

use super::bringup::{
    FirewallFact, InterfaceFact, NetDecisions, NetReport, Origin, ProbeFact, plug,
};
use super::windows::{
    InfDriver, KnownNetwork, NetworkCategory, TcpipInterface, WindowsAdapter, WindowsLease,
    WindowsNet, serial_instance,
};
use super::windows_pnp::{
    free_name, is_same, location_instance, new_guid, settings, why_dhcp, why_new,
};
use crate::Tree;
use drylab_catalog::device::{Device, device};
use drylab_catalog::{Mac, Nic, Witness, place};
use drylab_network::dhcp::{Client, ClientConfig, LeaseFact, SECOND_US};
use drylab_network::firewall::{Probe, Target, judge_windows};
use drylab_network::{DhcpStation, Lan, PortId, Subnet, link_local, word};
use std::net::Ipv4Addr;

/// Link-local addresses tried before giving up.
const LINK_LOCAL_TRIES: u64 = 10;

struct Run<'a> {
    report: NetReport,
    net: WindowsNet,
    lan: &'a mut Lan,
    decisions: &'a NetDecisions,
    /// DNS suffix of the first connection with a lease, else of the machine.
    suffix: Option<String>,
    from: u64,
    now: u64,
}

/// Brings a Windows guest's network up at `at`, virtual microseconds.
///
/// The report holds the registry's network facts as they are afterwards, for the next start. The adapters stay
/// plugged in until [`NetReport::power_off`].
#[must_use]
pub fn bring_up_windows(
    net: &WindowsNet,
    nics: &[Nic],
    lan: &mut Lan,
    at: u64,
    decisions: &NetDecisions,
) -> NetReport {
    let mut report = NetReport::new(Tree::new());
    report.ports = plug(nics, lan, at, decisions);
    let mut run = Run {
        report,
        suffix: net.domain.clone(),
        net: net.clone(),
        lan,
        decisions,
        from: at,
        now: at,
    };
    let mut taken = Vec::new();
    for (index, nic) in nics.iter().enumerate() {
        run.plug_and_play(index, nic, &mut taken);
    }
    for index in 0..run.report.interfaces.len() {
        run.configure(index, &taken);
    }
    run.finish();
    run.report.windows = Some(run.net);
    run.report
}

impl Run<'_> {
    /// Finds the instance of an adapter, or installs a driver and makes one.
    fn plug_and_play(&mut self, index: usize, nic: &Nic, taken: &mut Vec<String>) {
        let Some(port) = self.report.ports.get(index).copied() else {
            return;
        };
        let Some(model) = device(&nic.model) else {
            self.report.driverless.push(nic.mac);
            self.report.witness(
                "driver",
                Witness::lab(
                    "device",
                    format!("model {} is not in the catalogue", nic.model),
                ),
            );
            return;
        };
        let known = self
            .net
            .adapters
            .iter()
            .find(|adapter| is_same(adapter, model, nic))
            .cloned();
        let (adapter, driver) = match known {
            Some(adapter) if adapter.interface.is_some() && adapter.service.is_some() => {
                self.recognized(nic, model, &adapter);
                let service = adapter.service.clone();
                (adapter, service)
            }
            _ => match self.install(nic, model) {
                Some(adapter) => {
                    let service = adapter.service.clone();
                    (adapter, service)
                }
                None => {
                    self.report.driverless.push(nic.mac);
                    return;
                }
            },
        };
        let guid = adapter.interface.clone().unwrap_or_default();
        let name = self
            .net
            .connections
            .get(&guid)
            .cloned()
            .unwrap_or_else(|| guid.clone());
        taken.push(guid.clone());
        self.report.interfaces.push(InterfaceFact {
            name,
            kernel_name: guid,
            mac: nic.mac,
            driver,
            address: None,
            origin: Origin::None,
            lease_server: None,
            after_us: None,
            configured_by: None,
            port,
        });
    }

    /// Why an adapter is one the guest has met: the image's instance, or what made it at an earlier boot.
    fn recognized(&mut self, nic: &Nic, model: &Device, adapter: &WindowsAdapter) {
        if nic.slot.is_some() && !model.express {
            self.report
                .witness("interface-name", Witness::quirk("GQ51"));
            // Another adapter of this model is gone: whatever sits in a slot gets the settings of that slot.
            let same = |known: &&WindowsAdapter| known.device_id == adapter.device_id;
            if self.net.adapters.iter().filter(same).count() > self.report.ports.len() {
                self.report
                    .witness("interface-name", Witness::quirk("GQ53"));
            }
        }
        let guid = adapter.interface.as_deref().unwrap_or_default();
        let made = self
            .net
            .interfaces
            .get(guid)
            .map_or_else(Vec::new, |settings| settings.made.clone());
        let service = adapter.service.as_deref().unwrap_or_default();
        let known = format!("the adapter at {} is known", place(nic.slot));
        let (name, driver) = if made.is_empty() {
            let key = |says: String| vec![Witness::key(adapter.key.clone(), says)];
            (key(known), key(format!("service {service}")))
        } else {
            (made.clone(), made)
        };
        for witness in name {
            self.report.witness("interface-name", witness);
        }
        for witness in driver {
            self.report.witness("driver", witness);
        }
    }

    /// A device not seen before: the best hardware id an INF names, and a fresh interface.
    fn install(&mut self, nic: &Nic, model: &Device) -> Option<WindowsAdapter> {
        let ids = model.hardware_ids();
        let found = ids.iter().find_map(|id| {
            self.net
                .inf
                .get(&id.to_uppercase())
                .map(|driver| (id.clone(), driver.clone()))
        });
        let whole = |(_, driver): &(String, InfDriver)| driver.missing.is_none();
        let Some((id, driver)) = found.clone().filter(whole) else {
            self.no_driver(&ids, found.map(|(_, driver)| driver));
            return None;
        };
        self.now = self.now.saturating_add(self.decisions.driver_install_us);
        let count = u64::try_from(self.net.adapters.len()).unwrap_or(u64::MAX);
        let guid = new_guid(self.decisions.seed, count);
        let device_id = ids.first().cloned().unwrap_or_default().to_uppercase();
        let instance = match nic.slot {
            Some(slot) if !model.express => location_instance(slot),
            _ => serial_instance(nic.mac),
        };
        let adapter = WindowsAdapter {
            key: format!("SYSTEM\\CurrentControlSet\\Enum\\{device_id}\\{instance}"),
            device_id,
            instance,
            location: nic.slot,
            service: Some(driver.service.clone()),
            interface: Some(guid.clone()),
        };
        let matched = Witness::file(
            driver.inf.clone(),
            driver.line,
            format!("names {} for {id}", driver.service),
        );
        let mut made = vec![matched];
        made.extend(driver.searched.clone());
        if driver.searched.is_some() {
            made.extend(["DQ312", "DQ313"].map(Witness::quirk));
        }
        for witness in &made {
            self.report.witness("driver", witness.clone());
        }
        made.extend(why_new(&self.net, model));
        for witness in &made {
            self.report.witness("interface-name", witness.clone());
        }
        self.net.interfaces.insert(
            guid.clone(),
            TcpipInterface {
                dhcp: true,
                made,
                ..TcpipInterface::default()
            },
        );
        let name = free_name(&self.net);
        self.net.connections.insert(guid, name);
        self.net.adapters.push(adapter.clone());
        Some(adapter)
    }

    /// Says why no driver was installed: no INF names the device, or something of the package is missing. Where
    /// Windows searches a folder that is not in the image, that is not known.
    fn no_driver(&mut self, ids: &[String], broken: Option<InfDriver>) {
        let best = ids.get(1).or(ids.first()).cloned().unwrap_or_default();
        let says = match broken {
            Some(driver) => {
                let missing = driver.missing.unwrap_or_default();
                let says = format!("names {} for {best}, but {missing}", driver.service);
                Witness::file(driver.inf, driver.line, says)
            }
            None => Witness::file("/Windows/inf", 0, format!("no INF names {best}")),
        };
        let unsearched = self.net.unsearched.clone();
        self.report.unassessed.extend(unsearched);
        self.report.witness("driver", says);
        self.report.witness("driver", Witness::quirk("GQ54"));
    }

    fn configure(&mut self, index: usize, taken: &[String]) {
        let guid = self
            .report
            .interfaces
            .get(index)
            .map(|interface| interface.kernel_name.clone());
        let settings = settings(&mut self.net, guid.as_deref().unwrap_or_default());
        let Some(interface) = self.report.interfaces.get_mut(index) else {
            return;
        };
        interface.configured_by = Some(settings.key.clone()).filter(|key| !key.is_empty());
        let (port, mac) = (interface.port, interface.mac);
        if settings.dhcp || settings.addresses.is_empty() {
            self.ghosts(taken);
            self.lease(index, port, mac, &settings);
        } else {
            self.set_static(index, port, mac, &settings);
        }
    }

    /// Static settings that stay with an adapter which is not there any more.
    fn ghosts(&mut self, taken: &[String]) {
        let ghosts: Vec<(String, Ipv4Addr)> = self
            .net
            .interfaces
            .iter()
            .filter(|(guid, settings)| !taken.contains(guid) && !settings.dhcp)
            .filter_map(|(_, settings)| {
                settings
                    .addresses
                    .first()
                    .map(|(address, _)| (settings.key.clone(), *address))
            })
            .collect();
        for (key, address) in ghosts {
            self.report.witness(
                "ip-address",
                Witness::key(key, format!("{address} stays with an adapter that is gone")),
            );
            self.report.witness("ip-address", Witness::quirk("GQ50"));
        }
    }

    fn lease(&mut self, index: usize, port: PortId, mac: Mac, settings: &TcpipInterface) {
        let mut config = ClientConfig::windows(mac);
        config.host_name.clone_from(&self.net.host_name);
        let old = settings
            .lease
            .as_ref()
            .map(|lease| self.remembered(lease))
            .filter(|lease| lease.expires_at > self.now);
        let seed = word(
            self.decisions.seed,
            u64::from(u32::try_from(index).unwrap_or(u32::MAX)),
        );
        let mut station = DhcpStation::new(port, Client::new(config, seed, old.clone()));
        let started = self.now;
        let until =
            started.saturating_add(u64::from(self.decisions.watch_s).saturating_mul(SECOND_US));
        let packets = self.lan.exchange(&mut [&mut station], started, until);
        self.report.packets.extend(packets);
        for witness in why_dhcp(settings) {
            self.report.witness("ip-address", witness);
        }
        let Some((lease, at)) = station.lease().cloned().zip(station.bound_at()) else {
            self.now = station.failed_at().unwrap_or(until).max(self.now);
            let network = self
                .lan
                .port(port)
                .map_or_else(String::new, |port| port.network.clone());
            let waited = self.now.saturating_sub(started) / SECOND_US;
            self.report.witness(
                "ip-address",
                Witness::lab(
                    "dhcp",
                    format!("no DHCP server answered on {network} within {waited} s"),
                ),
            );
            self.link_local(index, port, mac);
            return;
        };
        // Boot does not wait for the background: the address may come minutes later.
        self.now = station.failed_at().unwrap_or(at).min(at).max(self.now);
        let address = (lease.address, lease.subnet.prefix());
        let device = self.set_address(index, address, Origin::Dhcp, at);
        if let Some(interface) = self.report.interfaces.get_mut(index) {
            interface.lease_server = Some(lease.server);
        }
        self.remember(index, &lease);
        if lease.domain.is_some() && self.report.default_route().is_none() {
            self.suffix.clone_from(&lease.domain);
        }
        let why = Witness::lab(
            format!("dhcp server {}", lease.server),
            format!("gives {}/{} and its options", lease.address, address.1),
        );
        self.report.witness("ip-address", why.clone());
        if old.is_some_and(|old| old.address != lease.address) {
            self.report.witness("ip-address", Witness::quirk("GQ21"));
        }
        self.report
            .add_routes(&device, address, lease.routers.first().copied(), &why);
        let dns = if settings.dns.is_empty() {
            lease.dns.clone()
        } else {
            settings.dns.clone()
        };
        self.add_dns(&dns, &why);
    }

    fn set_static(&mut self, index: usize, port: PortId, mac: Mac, settings: &TcpipInterface) {
        let Some((address, mask)) = settings.addresses.first().copied() else {
            return;
        };
        let why = Witness::key(
            settings.key.clone(),
            format!("sets {address} with mask {mask}"),
        );
        self.report.witness("ip-address", why.clone());
        let owner = self
            .lan
            .ask_arp(port, Ipv4Addr::UNSPECIFIED, address, self.now);
        self.report.packets.extend(owner.packets);
        self.now = owner.at;
        if let Some(owner) = owner.value {
            self.report.witness(
                "ip-address",
                Witness::lab("arp", format!("{owner} already uses {address}")),
            );
            self.link_local(index, port, mac);
            return;
        }
        let prefix = Subnet::from_mask(address, mask).map_or(32, Subnet::prefix);
        let device = self.set_address(index, (address, prefix), Origin::Static, self.now);
        self.report.add_routes(
            &device,
            (address, prefix),
            settings.gateways.first().copied(),
            &why,
        );
        self.add_dns(&settings.dns, &why);
    }

    /// An address nobody else uses, chosen by the guest (RFC 3927).
    fn link_local(&mut self, index: usize, port: PortId, mac: Mac) {
        for attempt in 0..LINK_LOCAL_TRIES {
            let address = link_local(mac, attempt);
            let owner = self
                .lan
                .ask_arp(port, Ipv4Addr::UNSPECIFIED, address, self.now);
            self.report.packets.extend(owner.packets);
            self.now = owner.at;
            if owner.value.is_none() {
                let device = self.set_address(index, (address, 16), Origin::LinkLocal, self.now);
                self.report.witness("ip-address", Witness::quirk("DQ211"));
                let why = Witness::lab("apipa", format!("{address}/16"));
                self.report.add_routes(&device, (address, 16), None, &why);
                return;
            }
        }
    }

    fn set_address(
        &mut self,
        index: usize,
        address: (Ipv4Addr, u8),
        origin: Origin,
        at: u64,
    ) -> String {
        let Some(interface) = self.report.interfaces.get_mut(index) else {
            return String::new();
        };
        interface.address = Some(address);
        interface.origin = origin;
        interface.after_us = Some(at.saturating_sub(self.from));
        self.lan.set_addresses(interface.port, &[address.0]);
        interface.name.clone()
    }

    fn add_dns(&mut self, dns: &[Ipv4Addr], why: &Witness) {
        for server in dns {
            if !self.report.dns.contains(server) {
                self.report.dns.push(*server);
                self.report.witness("dns", why.clone());
            }
        }
    }

    fn remembered(&self, lease: &WindowsLease) -> LeaseFact {
        let subnet = Subnet::from_mask(lease.address, lease.mask)
            .unwrap_or_else(|| Subnet::new(lease.address, 32));
        let left = lease
            .expires_s
            .saturating_sub(self.decisions.wall_clock_s)
            .saturating_mul(SECOND_US);
        LeaseFact {
            address: lease.address,
            subnet,
            server: lease.server,
            routers: lease.gateway.into_iter().collect(),
            dns: Vec::new(),
            domain: None,
            host_name: None,
            renew_at: left / 2,
            rebind_at: (left / 8).saturating_mul(7),
            expires_at: left,
        }
    }

    fn remember(&mut self, index: usize, lease: &LeaseFact) {
        let guid = self
            .report
            .interfaces
            .get(index)
            .map(|interface| interface.kernel_name.clone());
        let entry = guid.map(|guid| self.net.interfaces.entry(guid).or_default());
        if let Some(entry) = entry {
            entry.lease = Some(WindowsLease {
                address: lease.address,
                mask: lease.subnet.mask(),
                server: lease.server,
                gateway: lease.routers.first().copied(),
                expires_s: self
                    .decisions
                    .wall_clock_s
                    .saturating_add(lease.expires_at / SECOND_US),
            });
        }
    }

    fn finish(&mut self) {
        let gateway = self.report.look_around(self.lan, self.from, self.now);
        let category = self.location(gateway);
        self.report.profile = Some(category);
        self.firewall(category);
        self.report.took_us = self.now.saturating_sub(self.from);
        self.report
            .packets
            .sort_by_key(|packet| (packet.at, packet.number));
    }

    /// Network location awareness: the gateway's MAC is the signature of a network without a domain.
    fn location(&mut self, gateway: Option<Mac>) -> NetworkCategory {
        let Some(mac) = gateway else {
            self.report.witness(
                "profile",
                Witness::lab(
                    "nla",
                    "no gateway answers: an unidentified network, which is public",
                ),
            );
            self.report.witness("profile", Witness::quirk("DQ212"));
            return NetworkCategory::Public;
        };
        let suffix = self.suffix.clone();
        let fits = |network: &&KnownNetwork| {
            network.gateway_mac == Some(mac)
                && (network.dns_suffix.is_none()
                    || suffix.is_none()
                    || network.dns_suffix == suffix)
        };
        if let Some(known) = self.net.networks.iter().find(fits) {
            let says = format!("gateway {mac} is network {:?}", known.name);
            let category = known.category;
            let why = match &known.key {
                Some(key) => vec![Witness::key(key.clone(), says)],
                None => vec![Witness::lab("nla", says), Witness::quirk("GQ55")],
            };
            for witness in why {
                self.report.witness("profile", witness);
            }
            return category;
        }
        self.report.witness(
            "profile",
            Witness::lab("nla", format!("no signature has gateway {mac}")),
        );
        self.report.witness("profile", Witness::quirk("GQ55"));
        let count = self.net.networks.len().saturating_add(1);
        self.net.networks.push(KnownNetwork {
            key: None,
            gateway_mac: Some(mac),
            dns_suffix: self.suffix.clone(),
            name: format!("Network {count}"),
            category: NetworkCategory::Public,
        });
        NetworkCategory::Public
    }

    fn firewall(&mut self, category: NetworkCategory) {
        let facts = &self.net.firewall;
        let (profile, enabled) = match category {
            NetworkCategory::Public => ("Public", facts.public_enabled),
            NetworkCategory::Private => ("Private", facts.private_enabled),
            NetworkCategory::Domain => ("Domain", facts.domain_enabled),
        };
        let mut fact = FirewallFact {
            source: Some(facts.key.clone()),
            ..FirewallFact::default()
        };
        for interface in self
            .report
            .interfaces
            .iter()
            .filter(|interface| interface.address.is_some())
        {
            for (name, probe) in [
                ("icmp-echo", Probe::echo(&interface.name)),
                ("tcp-3389", Probe::tcp(&interface.name, 3389)),
            ] {
                let (verdict, rule) = judge_windows(enabled, profile, &facts.rules, &probe);
                let says = format!("{name} is {} in the {profile} profile", verdict.target);
                let key = match (&rule, enabled) {
                    (Some(rule), _) => format!("{}\\FirewallRules\\{rule}", facts.key),
                    (None, true) => format!("{}\\FirewallRules (no rule)", facts.key),
                    (None, false) => format!("{}, EnableFirewall=0", facts.key),
                };
                fact.probes.push(ProbeFact {
                    interface: interface.name.clone(),
                    probe: name.to_owned(),
                    passes: Some(verdict.target == Target::Accept),
                    decided_by: Witness::key(key, says),
                });
            }
        }
        for probe in &fact.probes {
            self.report.witness("firewall", probe.decided_by.clone());
        }
        self.report.firewall = fact;
    }
}
