//! A guest's network after one boot: what it has, what it reaches, who reaches it, and why.

use super::linux::{Bus, LinuxNetPlan, NicView, PciFunction};
use super::windows::{NetworkCategory, WindowsNet};
use crate::Tree;
use drylab_catalog::device::{self, device};
use drylab_catalog::{Mac, Nic, Witness};
use drylab_network::{Lan, PacketLog, PortId, Subnet};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Everything of one bring-up that is a matter of choice or chance elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDecisions {
    /// Transaction ids, retransmission jitter and new interface GUIDs follow from it.
    pub seed: u64,
    /// Coordinated universal time, in seconds since 1970, at virtual time zero: lease files hold dates.
    pub wall_clock_s: u64,
    /// Host of the lab the machine runs on: a network `VM Network` is looked for as `HOST:VM Network` first, then by
    /// its bare name.
    pub host: String,
    /// How long a client that goes on in the background is watched, in seconds.
    pub watch_s: u32,
    /// Time Windows takes to install a driver for a new adapter, in microseconds.
    pub driver_install_us: u64,
}

/// Seed 0, ten o'clock of 11 February 2013, a quarter of an hour of watching, 20 s for a driver.
impl Default for NetDecisions {
    fn default() -> Self {
        Self {
            seed: 0,
            wall_clock_s: 1_360_576_800,
            host: String::new(),
            watch_s: 900,
            driver_install_us: 20_000_000,
        }
    }
}

/// Where an address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// There is none.
    None,
    /// 169.254/16, chosen by the guest itself.
    LinkLocal,
    /// Configured.
    Static,
    /// Leased.
    Dhcp,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFact {
    /// Name: `eth0`, `Local Area Connection`.
    pub name: String,
    /// Name the kernel gave, or the interface GUID.
    pub kernel_name: String,
    /// Its address on the wire.
    pub mac: Mac,
    /// Driver.
    pub driver: Option<String>,
    /// Address and prefix length.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Where that came from.
    pub origin: Origin,
    /// DHCP server that gave it.
    pub lease_server: Option<Ipv4Addr>,
    /// Microseconds from the start of the bring-up to the address.
    pub after_us: Option<u64>,
    /// What configured it: a file, a key of the image's registry; none for an interface made at this boot.
    pub configured_by: Option<String>,
    /// Where it is plugged in.
    pub port: PortId,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub destination: Ipv4Addr,
    /// Prefix length; 0 for the default route.
    pub prefix: u8,
    /// Next hop; none on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// Interface.
    pub device: String,
}

/// What a probe from outside meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFact {
    /// Interface it comes in by.
    pub interface: String,
    /// `icmp-echo`, `tcp-22`, `tcp-3389`.
    pub probe: String,
    /// Whether it gets through; `None` when a rule's condition is not known here.
    pub passes: Option<bool>,
    /// The rule that decides.
    pub decided_by: Witness,
}

/// The firewall as it is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallFact {
    /// File or key the rules come from; `None` without any.
    pub source: Option<String>,
    /// Why the rules are not in effect although there are some.
    pub not_loaded: Option<String>,
    /// Probes by interface.
    pub probes: Vec<ProbeFact>,
    /// Rules for an interface that is not there: line and name.
    pub bound_to_absent: Vec<(u32, String)>,
}

/// The outcome of one bring-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetReport {
    /// Interfaces, in slot order; adapters without a driver are in [`NetReport::driverless`].
    pub interfaces: Vec<InterfaceFact>,
    /// Adapters nothing took.
    pub driverless: Vec<Mac>,
    /// Why it is not known whether an adapter has a driver: then nothing of the network is.
    pub unassessed: Vec<Witness>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers, in the order they are asked.
    pub dns: Vec<Ipv4Addr>,
    /// Whether the first name server answers; `None` without one or without a way to it.
    pub dns_answers: Option<bool>,
    /// Whether the default gateway answers; `None` without one.
    pub gateway_reachable: Option<bool>,
    /// Why that is so.
    pub gateway_reason: String,
    /// Firewall.
    pub firewall: FirewallFact,
    /// Windows: category of the network.
    pub profile: Option<NetworkCategory>,
    /// Microseconds until boot goes on.
    pub took_us: u64,
    /// Files after: leases, resolv.conf, persistent rules.
    pub files: Tree,
    /// Windows: the registry's network facts after.
    pub windows: Option<WindowsNet>,
    /// Linux: names and configurations.
    pub plan: Option<LinuxNetPlan>,
    /// Frames, in order.
    pub packets: Vec<PacketLog>,
    /// Ports of the adapters, in the order given.
    pub ports: Vec<PortId>,
    /// What the scripts printed.
    pub messages: Vec<String>,
    /// Why, by fact: `driver`, `interface-name`, `ip-address`, `routes`, `dns`, `gateway`, `firewall`, `profile`.
    pub witnesses: BTreeMap<String, Vec<Witness>>,
}

impl NetReport {
    /// The first interface with an address, preferring one that is not link-local.
    #[must_use]
    pub fn primary(&self) -> Option<&InterfaceFact> {
        let mut with_address = self
            .interfaces
            .iter()
            .filter(|interface| interface.address.is_some());
        with_address
            .clone()
            .find(|interface| interface.origin != Origin::LinkLocal)
            .or_else(|| with_address.next())
    }

    /// Unplugs the adapters: the machine is switched off. Leases stay with their servers.
    pub fn power_off(&self, lan: &mut Lan) {
        for port in &self.ports {
            lan.detach(*port);
        }
    }

    pub(super) fn new(files: Tree) -> Self {
        Self {
            interfaces: Vec::new(),
            unassessed: Vec::new(),
            driverless: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            dns_answers: None,
            gateway_reachable: None,
            gateway_reason: "no default route".into(),
            firewall: FirewallFact::default(),
            profile: None,
            took_us: 0,
            files,
            windows: None,
            plan: None,
            packets: Vec::new(),
            ports: Vec::new(),
            messages: Vec::new(),
            witnesses: BTreeMap::new(),
        }
    }

    pub(super) fn witness(&mut self, fact: &str, witness: Witness) {
        let known = self.witnesses.entry(fact.to_owned()).or_default();
        if !known.contains(&witness) {
            known.push(witness);
        }
    }

    /// The route of the link itself, and the default route when the gateway is on it. The first default route wins.
    pub(super) fn add_routes(
        &mut self,
        device: &str,
        address: (Ipv4Addr, u8),
        gateway: Option<Ipv4Addr>,
        why: &Witness,
    ) {
        let subnet = Subnet::new(address.0, address.1);
        let destination = subnet.network();
        self.routes.push(Route {
            destination,
            prefix: address.1,
            gateway: None,
            device: device.to_owned(),
        });
        self.witness("routes", why.clone());
        let Some(gateway) = gateway else { return };
        if !subnet.contains(gateway) {
            self.gateway_reason =
                format!("gateway {gateway} is not in {subnet}, so no default route can be set");
            self.witness("gateway", why.clone());
            return;
        }
        if self.default_route().is_none() {
            let destination = Ipv4Addr::UNSPECIFIED;
            self.routes.push(Route {
                destination,
                prefix: 0,
                gateway: Some(gateway),
                device: device.to_owned(),
            });
        }
    }

    pub(super) fn default_route(&self) -> Option<(Ipv4Addr, &str)> {
        let route = self.routes.iter().find(|route| route.prefix == 0)?;
        Some((route.gateway?, &route.device))
    }

    /// Port and address of an interface that has one.
    fn way_out(&self, device: &str) -> Option<(PortId, Ipv4Addr)> {
        let interface = self
            .interfaces
            .iter()
            .find(|interface| interface.name == device)?;
        interface
            .address
            .map(|(address, _)| (interface.port, address))
    }

    /// Asks the gateway and the first name server for a sign of life, once the last address is there; returns the
    /// gateway's MAC. `from` is when the bring-up began, `now` when boot goes on.
    pub(super) fn look_around(&mut self, lan: &mut Lan, from: u64, now: u64) -> Option<Mac> {
        let last = self
            .interfaces
            .iter()
            .filter_map(|interface| interface.after_us)
            .max();
        let at = now.max(from.saturating_add(last.unwrap_or(0)));
        let gateway = self.ask_gateway(lan, at);
        self.ask_dns(lan, at, gateway);
        gateway
    }

    fn ask_gateway(&mut self, lan: &mut Lan, at: u64) -> Option<Mac> {
        let (gateway, device) = self
            .default_route()
            .map(|(gateway, device)| (gateway, device.to_owned()))?;
        let (port, own) = self.way_out(&device)?;
        let found = lan.ask_arp(port, own, gateway, at);
        self.packets.extend(found.packets);
        let Some(mac) = found.value else {
            let subnets: Vec<String> = lan
                .hosts()
                .iter()
                .filter(|host| Some(host.segment.as_str()) == lan.segment_of(port))
                .map(|host| host.subnet.to_string())
                .collect();
            let here = subnets
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", ");
            let says = format!("nobody answers ARP for {gateway}; this segment has {here}");
            self.conclude(false, says);
            return None;
        };
        let echo = lan.ask_echo(port, mac, own, gateway, found.at);
        self.packets.extend(echo.packets);
        let says = match echo.value {
            Some(()) => format!("{gateway} at {mac} answers echo requests from {own}"),
            None => format!("{gateway} at {mac} answers ARP, but no echo requests from {own}"),
        };
        self.conclude(echo.value.is_some(), says);
        Some(mac)
    }

    fn conclude(&mut self, reachable: bool, says: String) {
        self.gateway_reachable = Some(reachable);
        self.witness("gateway", Witness::lab("gateway", says.clone()));
        self.gateway_reason = says;
    }

    fn ask_dns(&mut self, lan: &mut Lan, at: u64, gateway: Option<Mac>) {
        let Some(server) = self.dns.first().copied() else {
            return;
        };
        let on_link = self.routes.iter().find(|route| {
            route.prefix > 0 && Subnet::new(route.destination, route.prefix).contains(server)
        });
        let device = on_link
            .map(|route| route.device.clone())
            .or_else(|| self.default_route().map(|(_, device)| device.to_owned()));
        let way = device.and_then(|device| self.way_out(&device));
        let Some((port, own)) = way else {
            self.dns_answers = Some(false);
            self.witness("dns", Witness::lab("dns", format!("no way to {server}")));
            return;
        };
        let via = if on_link_has(&self.routes, server) {
            let found = lan.ask_arp(port, own, server, at);
            self.packets.extend(found.packets);
            found.value
        } else {
            gateway
        };
        let answers = via.is_some_and(|via| {
            let answer = lan.ask_name(port, via, own, server, "localhost", at);
            self.packets.extend(answer.packets);
            answer.value.is_some()
        });
        self.dns_answers = Some(answers);
        let says = if answers {
            "answers queries"
        } else {
            "does not answer"
        };
        self.witness(
            "dns",
            Witness::lab("dns", format!("name server {server} {says}")),
        );
    }
}

fn on_link_has(routes: &[Route], address: Ipv4Addr) -> bool {
    routes.iter().any(|route| {
        route.prefix > 0 && Subnet::new(route.destination, route.prefix).contains(address)
    })
}

/// Plugs the adapters into the networks they name, on this host's side.
pub(super) fn plug(nics: &[Nic], lan: &mut Lan, at: u64, decisions: &NetDecisions) -> Vec<PortId> {
    nics.iter()
        .map(|nic| {
            let own = format!("{}:{}", decisions.host, nic.network);
            let name = if lan.network(&own).is_some() {
                &own
            } else {
                &nic.network
            };
            lan.attach(name, nic.mac, at)
        })
        .collect()
}

/// An adapter as Linux meets it on its bus.
pub(super) fn view(nic: &Nic, link: bool) -> NicView {
    let model = device(&nic.model);
    let pci = model.zip(nic.slot).map(|(model, slot)| PciFunction {
        slot,
        vendor: model.vendor,
        device: model.device,
        revision: model.revision,
    });
    // Red Hat's PCI vendor id with a transitional device id: the driver binds behind the PCI function.
    let virtio = model
        .is_some_and(|model| model.vendor == 0x1af4 && (0x1000..0x1040).contains(&model.device));
    let bus = match model.map(|model| model.bus) {
        Some(device::Bus::Vmbus) => Bus::Vmbus,
        Some(device::Bus::Xen) => Bus::Xen,
        _ if virtio => Bus::Virtio,
        _ => Bus::Pci,
    };
    NicView {
        mac: nic.mac,
        bus,
        pci,
        modalias: model.map(device::Device::modalias),
        driver: None,
        link,
    }
}
