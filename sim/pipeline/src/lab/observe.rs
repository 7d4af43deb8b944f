//! Booting a guest on a machine and taking its facts, as the script inside it would.

use crate::facts::{Fact, GuestFacts, Seen};
use crate::library::Library;
use drylab_catalog::{Clock, Machine, Mark, Place, Witness};
use drylab_guest::Tree;
use drylab_guest::boot::BootReport;
use drylab_guest::inspect::{Guest, System};
use drylab_guest::net::linux::{Events, LinuxBootNet};
use drylab_guest::net::windows::WindowsNet;
use drylab_guest::net::{NetDecisions, NetReport, Origin, bring_up_linux, bring_up_windows};
use drylab_hypervisor::console::Made;
use drylab_kernel::{Kind, Trace};
use drylab_network::{Lan, PacketLog};
use std::sync::Arc;

/// Which boot of a machine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// The first at this place.
    First,
    /// A restart.
    Again,
}

/// What a guest keeps from boot to boot: the files its programs wrote.
#[derive(Clone, Default)]
pub(super) struct Boots {
    files: Option<Tree>,
    windows: Option<WindowsNet>,
    /// The report of the last boot, while the machine runs.
    pub(super) running: Option<NetReport>,
}

/// Everything that decides one boot.
pub(super) struct Setting<'a> {
    pub(super) library: &'a Library,
    pub(super) guest: &'a Arc<Guest>,
    pub(super) made: &'a Made,
    pub(super) extra: &'a [Witness],
    pub(super) host: &'a str,
    /// Draws for this boot: network seed, and how far the measured clock rate is off, in parts per million.
    pub(super) seed: u64,
    pub(super) tsc_ppm: i64,
    /// Seconds local time is ahead of UTC at this site.
    pub(super) zone_s: i64,
    pub(super) component: &'static str,
    /// How sure the lab file is of the network the machine is on.
    pub(super) lab_mark: Mark,
    /// Why the machine is in another subnet than its product's bridge; empty where it is not.
    pub(super) elsewhere: &'a [Witness],
}

/// Boots the guest and takes its facts; returns them with the microseconds it took.
pub(super) fn observe(
    setting: &Setting<'_>,
    boots: &mut Boots,
    lan: &mut Lan,
    now: u64,
    trace: &mut Trace,
) -> (GuestFacts, u64) {
    let machine = &setting.made.machine;
    let report = setting.library.boot(setting.guest, machine);
    for stage in &report.stages {
        let outcome = if stage.ok { "ok" } else { "failed" };
        let why = stage
            .witnesses
            .last()
            .map(ToString::to_string)
            .unwrap_or_default();
        let fields = [
            ("stage", stage.name),
            ("outcome", outcome),
            ("why", why.as_str()),
        ];
        trace.record(now, setting.component, Kind::BootStage, &fields);
    }
    /// Firmware, loader, kernel and services of a guest of that time, on modelled hardware.
    const BOOT_US: u64 = 45_000_000;
    if !report.reached {
        return (not_booted(&report), BOOT_US);
    }
    let net = bring_up(setting, &report, boots, lan, now + BOOT_US);
    for packet in &net.packets {
        record_packet(trace, packet);
    }
    let mut net = net;
    for witness in net
        .witnesses
        .values_mut()
        .flatten()
        .filter(|link| matches!(link.place, Place::Lab(_)))
    {
        witness.mark = witness.mark.min(setting.lab_mark);
    }
    for chain in net.witnesses.values_mut() {
        if chain.iter().any(|link| matches!(link.place, Place::Lab(_))) {
            chain.extend_from_slice(setting.elsewhere);
        }
    }
    let facts = facts(setting, machine, &report, &net);
    boots.files = Some(net.files.clone());
    boots.windows.clone_from(&net.windows);
    let took = BOOT_US + net.took_us;
    boots.running = Some(net);
    (facts, took)
}

fn bring_up(
    setting: &Setting<'_>,
    report: &BootReport,
    boots: &Boots,
    lan: &mut Lan,
    at: u64,
) -> NetReport {
    let nics = &report.nics;
    let decisions = NetDecisions {
        seed: setting.seed,
        host: setting.host.to_owned(),
        ..NetDecisions::default()
    };
    match &setting.guest.system {
        System::Linux(linux) => {
            let tree = boots
                .files
                .clone()
                .unwrap_or_else(|| setting.guest.tree.clone());
            let kernel = linux
                .kernel
                .as_ref()
                .map(|kernel| kernel.version.value.clone())
                .unwrap_or_default();
            // Quirk DQ403, which the naming cites where it decides.
            let boot = LinuxBootNet {
                kernel,
                addr_assign_type: Some(0),
                events: Events::Together,
                early: report.early.clone(),
            };
            bring_up_linux(tree, nics, &boot, lan, at, &decisions)
        }
        System::Windows(windows) => {
            let net = boots.windows.as_ref().unwrap_or(&windows.net);
            bring_up_windows(net, nics, lan, at, &decisions)
        }
    }
}

/// Facts of a guest that stopped on its way: only that.
fn not_booted(report: &BootReport) -> GuestFacts {
    let gone = || "the guest does not boot".to_owned();
    GuestFacts {
        booted: Ok(Seen {
            value: false,
            witness: report.cause.clone(),
        }),
        cpu_model: Err(gone()),
        cpu_khz: Err(gone()),
        vcpus: Err(gone()),
        ram_kib: Err(gone()),
        interface: Err(gone()),
        mac: Err(gone()),
        address: Err(gone()),
        routes: Err(gone()),
        dns: Err(gone()),
        gateway: Err(gone()),
        firewall: Err(gone()),
        disks: Err(gone()),
        clock_ahead_s: Err(gone()),
    }
}

fn facts(
    setting: &Setting<'_>,
    machine: &Machine,
    report: &BootReport,
    net: &NetReport,
) -> GuestFacts {
    let made = setting.made;
    let why = |part: &str| made.why(part).cloned().collect::<Vec<_>>();
    let main = net.primary().or_else(|| net.interfaces.first());
    let khz = u64::try_from(
        i64::try_from(machine.cpu.khz).unwrap_or(i64::MAX) * (1_000_000 + setting.tsc_ppm)
            / 1_000_000,
    );
    let mut name = net_why(net, "interface-name");
    name.extend(report.unplugged.iter().cloned());
    name.extend(why("nic"));
    let mut mac_why = setting.extra.to_vec();
    mac_why.extend(why("mac"));
    if main.is_none() {
        // No interface, no name and no address to read: what took no driver is why.
        mac_why.splice(0..0, net_why(net, "driver"));
        name.splice(0..0, net_why(net, "driver"));
    }
    let address = main
        .filter(|interface| interface.origin != Origin::LinkLocal)
        .and_then(|interface| interface.address);
    let mut address_why = net_why(net, "ip-address");
    if address.is_none() {
        address_why.splice(0..0, net_why(net, "interface-name"));
        address_why.extend(net_why(net, "driver"));
    } else {
        address_why.extend(setting.extra.iter().cloned());
    }
    let known = GuestFacts {
        booted: booted(report),
        cpu_model: seen(machine.cpu.brand.clone(), why("cpu")),
        cpu_khz: seen(khz.unwrap_or(machine.cpu.khz), why("clock-rate")),
        vcpus: seen(u64::from(machine.cpu.vcpus), why("vcpus")),
        ram_kib: seen(
            (machine.memory.mib * 1024).saturating_sub(machine.memory.reserved_kib),
            why("memory"),
        ),
        interface: seen(main.map(|interface| interface.name.clone()), name),
        mac: seen(main.map(|interface| interface.mac), mac_why),
        address: seen(address.map(|(address, _)| address), address_why.clone()),
        routes: seen(routes(net), grounded(net_why(net, "routes"), &address_why)),
        dns: seen(net.dns.clone(), grounded(net_why(net, "dns"), &address_why)),
        gateway: seen(
            net.gateway_reachable == Some(true),
            gateway_why(net, &address_why),
        ),
        firewall: firewall(net, &address_why),
        disks: seen(
            machine.disks.iter().map(|disk| disk.bytes).collect(),
            why("disks"),
        ),
        clock_ahead_s: seen(clock(setting, machine), clock_why(setting, report)),
    };
    match net.unassessed.first() {
        Some(why) => without_network(known, &why.to_string()),
        None => known,
    }
}

/// The same facts where it is not known whether an adapter has a driver.
fn without_network(known: GuestFacts, why: &str) -> GuestFacts {
    let unknown = || why.to_owned();
    GuestFacts {
        interface: Err(unknown()),
        mac: Err(unknown()),
        address: Err(unknown()),
        routes: Err(unknown()),
        dns: Err(unknown()),
        gateway: Err(unknown()),
        firewall: Err(unknown()),
        ..known
    }
}

fn seen<T>(value: T, witness: Vec<Witness>) -> Fact<T> {
    Ok(Seen { value, witness })
}

/// A boot reached with something unassessed is reached only as far as is known.
fn booted(report: &BootReport) -> Fact<bool> {
    if let Some(first) = report.unassessed.first() {
        return Err(first.to_string());
    }
    // What each stage ended with, and all that decided about drivers and root.
    let decisive = |name: &str| matches!(name, "drivers" | "root");
    let mut witness: Vec<Witness> = Vec::new();
    for stage in &report.stages {
        let from = if decisive(stage.name) {
            0
        } else {
            stage.witnesses.len().saturating_sub(1)
        };
        witness.extend(stage.witnesses[from..].iter().cloned());
    }
    witness.extend(report.notes.iter().cloned());
    seen(true, witness)
}

fn net_why(net: &NetReport, fact: &str) -> Vec<Witness> {
    net.witnesses.get(fact).cloned().unwrap_or_default()
}

/// What decides a fact itself, else what decides the address: without one there is nothing behind it either.
fn or(own: Vec<Witness>, address: &[Witness]) -> Vec<Witness> {
    if own.is_empty() {
        address.to_vec()
    } else {
        own
    }
}

/// The same, down to the guest's own files: a chain that ends at a server goes on to the configuration that asked it.
fn grounded(own: Vec<Witness>, address: &[Witness]) -> Vec<Witness> {
    let mut why = or(own, address);
    let in_guest = |link: &&Witness| matches!(link.place, Place::File { .. } | Place::Key(_));
    if !why.iter().any(|link| in_guest(&link) || is_quirk(link)) {
        why.extend(address.iter().filter(in_guest).cloned());
    }
    why
}

fn gateway_why(net: &NetReport, address: &[Witness]) -> Vec<Witness> {
    let own = or(net_why(net, "gateway"), &net_why(net, "routes"));
    let mut why = grounded(own, address);
    why.push(Witness::lab("gateway", net.gateway_reason.clone()));
    why
}

/// `destination via gateway`, without interface names: those are a check of their own.
fn routes(net: &NetReport) -> Vec<String> {
    let mut routes: Vec<String> = net
        .routes
        .iter()
        .map(|route| {
            let way = route.gateway.map_or_else(
                || "on the link".to_owned(),
                |gateway| format!("via {gateway}"),
            );
            format!("{}/{} {way}", route.destination, route.prefix)
        })
        .collect();
    routes.sort();
    routes
}

fn firewall(net: &NetReport, address: &[Witness]) -> Fact<String> {
    let mut words: Vec<String> = Vec::new();
    for probe in &net.firewall.probes {
        let outcome = match probe.passes {
            Some(true) => "passes",
            Some(false) => "is stopped",
            None => return Err(format!("{}: {}", probe.probe, probe.decided_by)),
        };
        words.push(format!("{} {outcome}", probe.probe));
    }
    words.sort();
    words.dedup();
    let mut witness: Vec<Witness> = net_why(net, "profile");
    witness.extend(net_why(net, "firewall"));
    witness.extend(
        net.firewall
            .probes
            .iter()
            .map(|probe| probe.decided_by.clone()),
    );
    if words.is_empty() {
        words.push("no interface to probe".to_owned());
        witness.extend(address.iter().cloned());
    }
    seen(words.join(", "), witness)
}

/// A guest that takes the clock for what it is not is off by the zone.
fn clock(setting: &Setting<'_>, machine: &Machine) -> i64 {
    match (machine.clock, guest_takes_utc(setting.guest).0) {
        (Clock::Utc, false) => -setting.zone_s,
        (Clock::Localtime, true) => setting.zone_s,
        _ => 0,
    }
}

/// Whether the guest takes the hardware clock for UTC, and the line or value that says so.
fn guest_takes_utc(guest: &Guest) -> (bool, Witness) {
    if let System::Windows(windows) = &guest.system {
        return (windows.clock_utc.value, windows.clock_utc.witness.clone());
    }
    for (path, mark) in [
        ("/etc/adjtime", "LOCAL"),
        ("/etc/adjtime", "UTC"),
        ("/etc/default/rcS", "UTC=no"),
        ("/etc/default/rcS", "UTC=yes"),
    ] {
        let text = guest.tree.text(path).unwrap_or_default();
        if let Some((number, line)) = (1u32..)
            .zip(text.lines())
            .find(|(_, line)| line.trim() == mark)
        {
            return (
                !matches!(mark, "LOCAL" | "UTC=no"),
                Witness::file(path, number, line),
            );
        }
    }
    (
        true,
        Witness::file(
            "/etc/adjtime",
            0,
            "does not say LOCAL: the clock is taken for UTC",
        ),
    )
}

fn clock_why(setting: &Setting<'_>, report: &BootReport) -> Vec<Witness> {
    let is_clock = |note: &&Witness| note.place == Place::Quirk("GQ57".to_owned());
    let mut why = vec![guest_takes_utc(setting.guest).1];
    why.extend(report.notes.iter().filter(is_clock).cloned());
    why.extend(setting.made.why("clock").cloned());
    why
}

fn record_packet(trace: &mut Trace, packet: &PacketLog) {
    let to = packet
        .to
        .map_or_else(|| "all".to_owned(), |mac| mac.to_string());
    let from = packet.from.to_string();
    let fields = [
        ("from", from.as_str()),
        ("to", to.as_str()),
        ("what", packet.summary.as_str()),
    ];
    trace.record(packet.at, &packet.segment, Kind::Packet, &fields);
}

/// Whether a witness stands for a row of knowledge.
pub(super) fn is_quirk(witness: &Witness) -> bool {
    matches!(witness.place, Place::Quirk(_))
}
