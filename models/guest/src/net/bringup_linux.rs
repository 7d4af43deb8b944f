//! A Linux guest meets the lab's network: drivers, names and configurations as its plan says, then packets.

use super::bringup::{
    FirewallFact, InterfaceFact, NetDecisions, NetReport, Origin, ProbeFact, plug, view,
};
use super::bringup_dhclient::{append, configuration, lease_path, remembered};
use super::linux::shell::{Variables, is_false};
use super::linux::{
    Action, Bus, DhcpClient, Ifup, LinuxBootNet, LinuxInterface, NicView, StaticAddress, manager,
    plan,
};
use crate::Tree;
use drylab_catalog::{Nic, Witness};
use drylab_network::dhcp::{Client, LeaseFact, SECOND_US, Schedule};
use drylab_network::firewall::{Probe, Ruleset, Target};
use drylab_network::{DhcpStation, Lan, PortId, word};
use std::net::Ipv4Addr;

/// Ubuntu 12.04 goes on without network after so long.
const FAILSAFE_US: u64 = 120 * SECOND_US;
/// Sets the draw of the order of synthetic adapters apart from other draws of the seed.
const OFFERS: u64 = 0x766d_6275_7300_0000;
/// Rules of an init script: Red Hat's service, Debian's iptables-persistent.
const RULE_FILES: [&str; 3] = [
    "/etc/sysconfig/iptables",
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules",
];

struct Run<'a> {
    report: NetReport,
    lan: &'a mut Lan,
    decisions: &'a NetDecisions,
    from: u64,
    now: u64,
}

/// Brings a Linux guest's network up at `at`, virtual microseconds.
///
/// `tree` holds the guest's files; the report has them as they are afterwards. The adapters stay plugged in until
/// [`NetReport::power_off`].
#[must_use]
pub fn bring_up_linux(
    tree: Tree,
    nics: &[Nic],
    boot: &LinuxBootNet,
    lan: &mut Lan,
    at: u64,
    decisions: &NetDecisions,
) -> NetReport {
    let mut report = NetReport::new(tree);
    report.ports = plug(nics, lan, at, decisions);
    let links: Vec<bool> = report
        .ports
        .iter()
        .map(|port| lan.has_link(*port))
        .collect();
    let all: Vec<_> = nics
        .iter()
        .zip(links)
        .map(|(nic, link)| view(nic, link))
        .collect();
    let order = kernel_order(&all, decisions.seed);
    let views: Vec<_> = order
        .iter()
        .filter_map(|index| all.get(*index).cloned())
        .collect();
    let mut plan = plan(&mut report.files, &views, boot);
    let given = |nic: &mut u32| {
        let index = usize::try_from(*nic).ok().and_then(|at| order.get(at));
        *nic = index.and_then(|at| u32::try_from(*at).ok()).unwrap_or(*nic);
    };
    plan.interfaces
        .iter_mut()
        .for_each(|found| given(&mut found.nic));
    plan.driverless
        .iter_mut()
        .for_each(|found| given(&mut found.nic));
    for driverless in &plan.driverless {
        let nic = usize::try_from(driverless.nic)
            .ok()
            .and_then(|index| nics.get(index));
        report.driverless.extend(nic.map(|nic| nic.mac));
        // Where no adapter has a driver, that is why no interface has a name.
        for witness in &driverless.witnesses {
            report.witness("driver", witness.clone());
            if plan.interfaces.is_empty() {
                report.witness("interface-name", witness.clone());
            }
        }
    }
    for interface in &plan.interfaces {
        add_interface(&mut report, interface);
    }
    let synthetic = |nic: &&NicView| nic.bus == Bus::Vmbus;
    if all.iter().filter(synthetic).count() > 1 && !plan.interfaces.is_empty() {
        report.witness("interface-name", Witness::quirk("GQ18"));
    }
    let mut run = Run {
        report,
        lan,
        decisions,
        from: at,
        now: at.saturating_add(plan.delay_us),
    };
    for witness in &plan.delays {
        run.report.witness("boots", witness.clone());
    }
    for (ifup, index) in plan.ifups.iter().zip(0u64..) {
        run.ifup(ifup, index);
    }
    run.explain_missing(&plan.unconfigured);
    run.finish(&plan.ifups, plan.delay_us);
    run.report.plan = Some(plan);
    run.report
}

/// Adapters in the order in which the kernel finds them: as given, but those on Hyper-V's bus in the order in which
/// the host offers them, which nothing fixes (quirk GQ18). It is drawn from the seed.
fn kernel_order(nics: &[NicView], seed: u64) -> Vec<usize> {
    let is_synthetic = |index: &usize| nics.get(*index).is_some_and(|nic| nic.bus == Bus::Vmbus);
    let mut drawn: Vec<usize> = (0..nics.len()).filter(is_synthetic).collect();
    drawn.sort_by_key(|index| word(seed ^ OFFERS, u64::try_from(*index).unwrap_or(0)));
    let mut drawn = drawn.into_iter();
    (0..nics.len())
        .map(|index| {
            let offered = is_synthetic(&index).then(|| drawn.next()).flatten();
            offered.unwrap_or(index)
        })
        .collect()
}

fn add_interface(report: &mut NetReport, interface: &LinuxInterface) {
    let port = usize::try_from(interface.nic)
        .ok()
        .and_then(|index| report.ports.get(index))
        .copied();
    let Some(port) = port else { return };
    for witness in &interface.witnesses {
        report.witness("interface-name", witness.clone());
        report.witness("driver", witness.clone());
    }
    report.interfaces.push(InterfaceFact {
        name: interface.name.clone(),
        kernel_name: interface.kernel_name.clone(),
        mac: interface.mac,
        driver: Some(interface.driver.clone()),
        address: None,
        origin: Origin::None,
        lease_server: None,
        after_us: None,
        configured_by: None,
        port,
    });
}

impl Run<'_> {
    fn ifup(&mut self, ifup: &Ifup, index: u64) {
        for witness in &ifup.witnesses {
            self.report.witness("ip-address", witness.clone());
        }
        let target = ifup.interface.and_then(|index| usize::try_from(index).ok());
        let interface = target.and_then(|target| self.report.interfaces.get_mut(target));
        let (Some(target), Some(interface)) = (target, interface) else {
            self.print(&ifup.message);
            return;
        };
        interface.configured_by = Some(ifup.config.clone());
        let printed = match &ifup.action {
            Action::Dhcp(client) => self.lease(target, ifup, client, index),
            Action::Static(address) => self.set_static(target, ifup, address),
            Action::None => None,
        };
        self.print(printed.as_deref().unwrap_or(&ifup.message));
    }

    fn print(&mut self, message: &str) {
        if !message.is_empty() {
            self.report.messages.push(message.to_owned());
        }
    }

    /// Runs the DHCP client; the message when it fails.
    fn lease(
        &mut self,
        target: usize,
        ifup: &Ifup,
        client: &DhcpClient,
        index: u64,
    ) -> Option<String> {
        let interface = self.report.interfaces.get(target)?;
        let (port, mac, device) = (interface.port, interface.mac, interface.name.clone());
        let path = lease_path(client, &device);
        // Red Hat's dhclient-script looks for another owner before it sets an address.
        let config = configuration(&self.report.files, client, mac, is_ifcfg(&ifup.config));
        let old = remembered(
            &self.report.files,
            &path,
            &device,
            self.decisions.wall_clock_s,
        );
        let old = old.filter(|lease| lease.expires_at > self.now);
        if let Some(old) = &old {
            self.report.witness(
                "ip-address",
                Witness::file(
                    path.clone(),
                    0,
                    format!("{device} remembers {}", old.address),
                ),
            );
        }
        let patience_s = match config.schedule {
            Schedule::Dhclient {
                timeout_s,
                reboot_s,
                ..
            } => u64::from(timeout_s).saturating_add(u64::from(reboot_s).saturating_mul(2)),
            Schedule::Windows { .. } => 0,
        };
        let watch_s = if client.one_try {
            patience_s.saturating_add(60)
        } else {
            u64::from(self.decisions.watch_s)
        };
        let seed = word(self.decisions.seed, index);
        let mut station = DhcpStation::new(port, Client::new(config, seed, old.clone()));
        let until = self.now.saturating_add(watch_s.saturating_mul(SECOND_US));
        let packets = self.lan.exchange(&mut [&mut station], self.now, until);
        self.report.packets.extend(packets);
        let (bound, failed) = (station.bound_at(), station.failed_at());
        let returned = [bound, failed].into_iter().flatten().min().unwrap_or(until);
        let started = self.now;
        self.now = returned.max(self.now);
        match (station.lease(), bound) {
            (Some(lease), Some(at)) => {
                self.take(target, ifup, lease, at, &path);
                self.explain_lease(
                    old.as_ref(),
                    lease,
                    at.saturating_sub(started),
                    failed.is_some(),
                );
                None
            }
            _ => {
                self.explain_failure(
                    port,
                    client,
                    failed.unwrap_or(until).saturating_sub(started),
                );
                Some(ifup.message.replace(" done.", " failed."))
            }
        }
    }

    fn take(&mut self, target: usize, ifup: &Ifup, lease: &LeaseFact, at: u64, path: &str) {
        let address = (lease.address, lease.subnet.prefix());
        let device = self.set_address(target, address, Origin::Dhcp, at);
        if let Some(interface) = self.report.interfaces.get_mut(target) {
            interface.lease_server = Some(lease.server);
        }
        let database = append(
            &self.report.files.text(path).unwrap_or_default(),
            &device,
            lease,
            self.decisions.wall_clock_s,
        );
        self.report.files.write(path, database.into_bytes());
        let why = Witness::lab(
            format!("dhcp server {}", lease.server),
            format!("gives {}/{} and its options", lease.address, address.1),
        );
        self.report.witness("ip-address", why.clone());
        self.report
            .add_routes(&device, address, lease.routers.first().copied(), &why);
        self.resolve(ifup, &lease.dns, lease.domain.as_deref(), &why);
    }

    fn set_static(
        &mut self,
        target: usize,
        ifup: &Ifup,
        address: &StaticAddress,
    ) -> Option<String> {
        let port = self.report.interfaces.get(target)?.port;
        let why = Witness::file(
            ifup.config.clone(),
            0,
            format!("sets {}/{}", address.address, address.prefix),
        );
        if address.probe {
            let owner = self
                .lan
                .ask_arp(port, Ipv4Addr::UNSPECIFIED, address.address, self.now);
            self.report.packets.extend(owner.packets);
            self.now = owner.at;
            if let Some(owner) = owner.value {
                let says = format!("{owner} already uses {}", address.address);
                self.report.witness("ip-address", Witness::lab("arp", says));
                return Some(format!(
                    "Error, some other host already uses address {}.",
                    address.address
                ));
            }
        }
        let own = (address.address, address.prefix);
        let device = self.set_address(target, own, Origin::Static, self.now);
        self.report.witness("ip-address", why.clone());
        self.report.add_routes(&device, own, address.gateway, &why);
        self.resolve(ifup, &address.dns, None, &why);
        None
    }

    fn set_address(
        &mut self,
        target: usize,
        address: (Ipv4Addr, u8),
        origin: Origin,
        at: u64,
    ) -> String {
        let Some(interface) = self.report.interfaces.get_mut(target) else {
            return String::new();
        };
        interface.address = Some(address);
        interface.origin = origin;
        interface.after_us = Some(at.saturating_sub(self.from));
        self.lan.set_addresses(interface.port, &[address.0]);
        interface.name.clone()
    }

    /// Name servers: the resolver's file is rewritten unless PEERDNS=no.
    fn resolve(&mut self, ifup: &Ifup, dns: &[Ipv4Addr], domain: Option<&str>, why: &Witness) {
        let text = self
            .report
            .files
            .text(&ifup.config)
            .unwrap_or_default()
            .into_owned();
        let mut variables = Variables::default();
        if is_ifcfg(&ifup.config) {
            variables.source(&text);
        }
        if is_false(variables.get("PEERDNS")) {
            let line = variables.line("PEERDNS");
            self.report.witness(
                "dns",
                Witness::file(
                    ifup.config.clone(),
                    line,
                    "PEERDNS=no leaves resolv.conf alone",
                ),
            );
            return;
        }
        if dns.is_empty() {
            return;
        }
        self.report.witness("dns", why.clone());
        let mut resolv = domain.map_or_else(String::new, |domain| format!("search {domain}\n"));
        for server in dns {
            resolv.push_str(&format!("nameserver {server}\n"));
        }
        self.report
            .files
            .write(resolv_conf(&self.report.files), resolv.into_bytes());
    }

    fn explain_lease(&mut self, old: Option<&LeaseFact>, lease: &LeaseFact, took: u64, late: bool) {
        if let Some(old) = old.filter(|old| old.address != lease.address) {
            let refused = self
                .report
                .packets
                .iter()
                .any(|packet| packet.summary.starts_with("DHCPNAK"));
            let quirk = if refused && !lease.subnet.contains(old.address) {
                "DQ210"
            } else {
                "GQ21"
            };
            self.report.witness("ip-address", Witness::quirk(quirk));
        }
        if late {
            self.report.witness("ip-address", Witness::quirk("GQ06"));
            self.report.witness(
                "ip-address",
                Witness::lab(
                    "dhcp",
                    format!("the address came after {} s", took / SECOND_US),
                ),
            );
        }
    }

    fn explain_failure(&mut self, port: PortId, client: &DhcpClient, took: u64) {
        let reason = match self.lan.port(port) {
            Some(port) if port.forwarding_at > self.now => {
                format!(
                    "the switch port forwards only {} s after the start",
                    port.forwarding_at.saturating_sub(self.from) / SECOND_US
                )
            }
            Some(port) => format!(
                "no DHCP server answered on {} within {} s",
                port.network,
                took / SECOND_US
            ),
            None => "the adapter is not plugged in".to_owned(),
        };
        self.report
            .witness("ip-address", Witness::lab("dhcp", reason));
        if client.one_try {
            self.report.witness("ip-address", Witness::quirk("GQ05"));
        }
    }

    /// Interfaces that no configuration names have no address because of that.
    fn explain_missing(&mut self, unconfigured: &[String]) {
        for name in unconfigured {
            self.report.witness(
                "ip-address",
                Witness::lab("interface", format!("no configuration brings {name} up")),
            );
        }
    }

    fn finish(&mut self, ifups: &[Ifup], delay: u64) {
        let files = &self.report.files;
        let resolv = files
            .text(&resolv_conf(files))
            .unwrap_or_default()
            .into_owned();
        self.report.dns = resolv
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
            .collect();
        self.report.look_around(self.lan, self.from, self.now);
        self.report.firewall = firewall(&self.report);
        for line in self.report.firewall.bound_to_absent.clone() {
            let path = self.report.firewall.source.clone().unwrap_or_default();
            self.report.witness(
                "firewall",
                Witness::file(
                    path,
                    line.0,
                    format!("speaks of {}, which is not there", line.1),
                ),
            );
            self.report.witness("firewall", Witness::quirk("GQ22"));
        }
        for probe in self.report.firewall.probes.clone() {
            self.report.witness("firewall", probe.decided_by);
        }
        let took = self.now.saturating_sub(self.from);
        let upstart = ifups
            .iter()
            .any(|ifup| ifup.config == super::linux::ifupdown::PATH);
        // ifupdown runs beside the boot there: only the failsafe job waits, and not for ever.
        let waits = upstart && took.saturating_sub(delay) > FAILSAFE_US;
        self.report.took_us = if waits {
            delay.saturating_add(FAILSAFE_US)
        } else {
            took
        };
        if waits {
            self.report.witness("boots", Witness::quirk("GQ28"));
        }
        self.report
            .packets
            .sort_by_key(|packet| (packet.at, packet.number));
    }
}

fn is_ifcfg(config: &str) -> bool {
    config.starts_with("/etc/sysconfig/network-scripts/")
}

/// Where name servers are written: resolvconf's file where it is installed and the usual one is its link.
fn resolv_conf(tree: &Tree) -> String {
    let own = "/run/resolvconf/resolv.conf";
    let installed =
        tree.read("/sbin/resolvconf").is_some() && tree.read("/etc/resolv.conf").is_none();
    if installed || tree.read(own).is_some() {
        own.into()
    } else {
        "/etc/resolv.conf".into()
    }
}

/// The rules the guest loads at boot, against the interfaces it has.
fn firewall(report: &NetReport) -> FirewallFact {
    let path = RULE_FILES
        .into_iter()
        .find(|path| report.files.read(path).is_some());
    if let Some(path) =
        path.filter(|path| path.starts_with("/etc/sysconfig/") && !service_starts(&report.files))
    {
        return FirewallFact {
            source: Some(path.into()),
            not_loaded: Some("the iptables service does not start at boot".into()),
            probes: probes(report, &Ruleset::default(), None, false),
            bound_to_absent: Vec::new(),
        };
    }
    let ufw = report.files.text("/etc/ufw/ufw.conf").is_some_and(|text| {
        text.lines()
            .any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"))
    });
    let text = path
        .and_then(|path| report.files.text(path))
        .unwrap_or_default();
    let (rules, not_loaded) = match Ruleset::parse(&text) {
        Ok(rules) => (rules, None),
        Err(error) => (Ruleset::default(), Some(error.to_string())),
    };
    let names: Vec<&str> = report
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    let bound_to_absent = rules.rules_bound_to_absent(&names);
    let probes = probes(report, &rules, path, ufw);
    FirewallFact {
        source: path.map(str::to_owned),
        not_loaded,
        probes,
        bound_to_absent,
    }
}

/// Whether Red Hat's iptables service has a start link; an image without any start links says nothing about it.
fn service_starts(tree: &Tree) -> bool {
    let directory = format!("/etc/rc.d/rc{}.d", manager::runlevel(tree));
    tree.names_in(&directory).next().is_none() || manager::started(tree, "iptables").is_some()
}

fn probes(report: &NetReport, rules: &Ruleset, path: Option<&str>, ufw: bool) -> Vec<ProbeFact> {
    let mut probes = Vec::new();
    for interface in report
        .interfaces
        .iter()
        .filter(|interface| interface.address.is_some())
    {
        for (name, probe) in [
            ("icmp-echo", Probe::echo(&interface.name)),
            ("tcp-22", Probe::tcp(&interface.name, 22)),
        ] {
            let probe = Probe {
                destination: interface.address.map(|(address, _)| address),
                ..probe
            };
            let verdict = rules.judge(&probe);
            let passes = match verdict.target {
                Target::Accept if !ufw => Some(true),
                Target::Drop | Target::Reject => Some(false),
                Target::Accept | Target::Unknown => None,
            };
            let says = format!(
                "{name} on {} is {} by {}",
                interface.name, verdict.target, verdict.chain
            );
            let decided_by = match (path, verdict.line) {
                (Some(path), line) => Witness::file(path, line.unwrap_or(0), says),
                (None, _) if ufw => Witness::file(
                    "/etc/ufw/ufw.conf",
                    0,
                    "ufw is on; its rules are not read here",
                ),
                (None, _) => {
                    Witness::lab("firewall", "no rules are loaded: everything is accepted")
                }
            };
            probes.push(ProbeFact {
                interface: interface.name.clone(),
                probe: name.to_owned(),
                passes,
                decided_by,
            });
        }
    }
    probes
}
