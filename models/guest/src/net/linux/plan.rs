//! From adapters to configured interfaces, with the reasons.

use super::events::{self, Named};
use super::ifupdown::{self, Interfaces};
use super::initscripts::{self, Device, Reason, Run};
use super::shell::{Variables, is_false};
use super::udev::programs::{Note, PERSISTENT, Taken};
use super::udev::{Effect, PROVENANCE, device::Facts};
use super::{
    Action, Bus, Driverless, Ifup, LinuxBootNet, LinuxInterface, LinuxNetPlan, NicView, bind,
    ifcfg, manager,
};
use crate::Tree;
use drylab_catalog::device::{Device as Model, device};
use drylab_catalog::{Mac, Witness};

/// Names the adapters, then brings up what the guest's configuration says. `nics` stand in the order in which the
/// kernel finds them. Files that the guest's programs write (a persistent-net rule) are written into `tree`.
#[must_use]
pub fn plan(tree: &mut Tree, nics: &[NicView], boot: &LinuxBootNet) -> LinuxNetPlan {
    let mut plan = LinuxNetPlan::default();
    name_interfaces(tree, nics, boot, &mut plan);
    let mut devices: Vec<Device> = plan
        .interfaces
        .iter()
        .map(|interface| Device {
            name: interface.name.clone(),
            mac: interface.mac,
            link: at(nics, interface.nic).is_some_and(|nic| nic.link),
        })
        .collect();
    if tree.read(ifupdown::PATH).is_some() {
        boot_ifupdown(tree, &devices, &mut plan);
    } else {
        boot_initscripts(tree, &mut devices, &mut plan);
    }
    boot_manager(tree, &devices, &mut plan);
    plan.unconfigured = plan
        .interfaces
        .iter()
        .zip(0_u32..)
        .filter(|(_, index)| !configured(&plan.ifups, *index))
        .map(|(interface, _)| interface.name.clone())
        .collect();
    plan
}

fn at<T>(items: &[T], index: u32) -> Option<&T> {
    usize::try_from(index)
        .ok()
        .and_then(|index| items.get(index))
}

fn configured(ifups: &[Ifup], index: u32) -> bool {
    ifups
        .iter()
        .any(|ifup| ifup.interface == Some(index) && ifup.action != Action::None && ifup.exit == 0)
}

fn name_interfaces(
    tree: &mut Tree,
    nics: &[NicView],
    boot: &LinuxBootNet,
    plan: &mut LinuxNetPlan,
) {
    let mut taken = Vec::new();
    for (nic, index) in nics.iter().zip(0_u32..) {
        let bound = bind::driver(tree, boot, nic);
        match bound.driver {
            Some(driver) => taken.push((index, nic, driver, bound.witnesses)),
            None => {
                let mut witnesses = bound.witnesses;
                if nic.bus == Bus::Vmbus {
                    witnesses.extend(["GQ30", "HQ72"].map(Witness::quirk));
                }
                plan.driverless.push(Driverless {
                    nic: index,
                    witnesses,
                });
            }
        }
    }
    let texts: Vec<(String, String)> = taken
        .iter()
        .zip(0_u32..)
        .map(|((_, nic, _, _), number)| (format!("eth{number}"), nic.mac.to_string()))
        .collect();
    let facts: Vec<Facts<'_>> = taken
        .iter()
        .zip(&texts)
        .zip(2_u32..)
        .map(
            |(((_, nic, driver, _), (kernel_name, address)), ifindex)| Facts {
                kernel_name,
                address,
                addr_assign_type: boot.addr_assign_type,
                dev_id: Some(0),
                kind: 1,
                bus: nic.bus,
                driver,
                pci: nic.pci,
                ifindex,
            },
        )
        .collect();
    let settled = events::settle(tree, &facts, boot.events);
    let red_hat = settled.red_hat;
    plan.delay_us = settled.delay_us;
    if settled.delay_us > 0 {
        plan.delays.push(Witness::quirk("GQ10"));
    }
    for ((index, nic, driver, mut witnesses), named) in
        taken.iter().cloned().zip(settled.interfaces)
    {
        witnesses.extend(naming_witnesses(tree, &named, nic, boot, red_hat));
        if driver == "tulip" && nic.modalias.is_some() && synthetic_is_unknown(tree, boot) {
            witnesses.push(Witness::quirk("GQ31"));
        }
        plan.interfaces.push(LinuxInterface {
            nic: index,
            kernel_name: named.kernel_name,
            name: named.name,
            mac: nic.mac,
            driver,
            witnesses,
        });
    }
}

/// Whether nothing takes Hyper-V's synthetic adapter, so that the emulated one is the only way.
fn synthetic_is_unknown(tree: &Tree, boot: &LinuxBootNet) -> bool {
    let synthetic = NicView {
        mac: Mac([0; 6]),
        bus: Bus::Vmbus,
        pci: None,
        modalias: device("hyperv-nic").map(Model::modalias),
        driver: None,
        link: false,
    };
    bind::driver(tree, boot, &synthetic).driver.is_none()
}

/// Why an interface has its name: the rules that acted, in their order.
fn naming_witnesses(
    tree: &Tree,
    named: &Named,
    nic: &NicView,
    boot: &LinuxBootNet,
    red_hat: bool,
) -> Vec<Witness> {
    let mut out = Vec::new();
    // What the naming rests on besides its cause, so that it stands behind it.
    let mut provenance = Vec::new();
    let mut by_earlier_rule = false;
    let wrote = events::written(&named.outcome).is_some();
    for step in &named.outcome.steps {
        match &step.effect {
            Effect::Named(name) => {
                out.push(Witness::file(
                    &step.path,
                    step.line,
                    format!("names the adapter {name}"),
                ));
                if step.path == PERSISTENT {
                    by_earlier_rule = true;
                    if red_hat {
                        out.push(Witness::quirk("GQ09"));
                    }
                }
            }
            Effect::Jumped { keys, .. } if keys.contains("SUBSYSTEMS==\"xen\"") => {
                out.push(Witness::file(
                    &step.path,
                    step.line,
                    "adapters on bus xen get no rule",
                ));
                if red_hat {
                    out.push(Witness::quirk("GQ07"));
                }
            }
            Effect::Jumped { keys, .. } if keys.contains("MATCHADDR") && !wrote => {
                let says = format!("{} gets no rule ({keys}), the kernel's name stays", nic.mac);
                out.push(Witness::file(&step.path, step.line, says));
                out.push(Witness::quirk(if red_hat { "DQ205" } else { "GQ11" }));
            }
            Effect::Jumped { .. } => {}
            Effect::Judged(Some(value)) if value == "0" => {
                let says = format!("judges the address by {PROVENANCE}, which reads {value}");
                provenance.push(Witness::file(&step.path, step.line, says));
                // That there is such a file and that it reads 0 is no fact of the image.
                provenance.push(Witness::quirk("DQ403"));
            }
            Effect::Judged(_) => {}
            Effect::Ran(Note::Tied(tie)) => {
                let says = format!(
                    "HWADDR is this adapter's, so it is to be {}",
                    tie.device.text
                );
                out.push(Witness::file(&tie.path, tie.hwaddr.line, says));
            }
            Effect::Ran(Note::Wrote { name, line, taken }) => {
                out.extend(writer_witnesses(tree, name, *line, taken.as_ref(), red_hat));
                if by_earlier_rule {
                    out.push(Witness::quirk("DQ203"));
                }
            }
        }
    }
    if red_hat
        && nic.bus != Bus::Xen
        && boot.addr_assign_type.is_some_and(|kind| kind != 0)
        && wrote
    {
        out.push(Witness::quirk("DQ200"));
    }
    if let Some(wanted) = &named.wanted {
        let says = format!("{wanted} stays occupied by another interface");
        out.push(Witness::file(PERSISTENT, 0, says));
        out.push(Witness::quirk("GQ10"));
    }
    out.extend(provenance);
    if out.is_empty() {
        let says = format!(
            "no rule names the adapter, the kernel's {} stays",
            named.kernel_name
        );
        out.push(Witness::file("/lib/udev/rules.d", 0, says));
    }
    out
}

/// Why a persistent rule of an adapter that is gone is there: which class its address is of.
fn rule_quirk(tree: &Tree, path: &str, line: u32, red_hat: bool) -> &'static str {
    let text = tree.text(path).unwrap_or_default();
    let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let rule = text.lines().nth(index).unwrap_or_default();
    let owner = rule.split_once("ATTR{address}==\"").map(|(_, mac)| mac);
    let starts = |prefix: &str| owner.is_some_and(|mac| mac.starts_with(prefix));
    if starts("54:52:00") {
        "GQ16"
    } else if red_hat {
        "GQ01"
    } else if starts("08:00:27") || starts("00:16:3e") {
        "GQ12"
    } else {
        "GQ13"
    }
}

/// Why an ifcfg file alone reserves a name: its rule was deleted, or there never was one because the address is one
/// that Xen front ends have, and those get none.
fn tie_quirk(hwaddr: &str) -> &'static str {
    let first = hwaddr.parse::<Mac>().map(|mac| mac.0);
    match first {
        Ok([0x00, 0x16, 0x3e, ..]) => "GQ08",
        Ok([0x52, 0x54, 0x00, ..]) => "GQ02",
        Ok([first, ..]) if first & 2 != 0 => "GQ08",
        _ => "GQ02",
    }
}

fn writer_witnesses(
    tree: &Tree,
    name: &str,
    line: u32,
    taken: Option<&Taken>,
    red_hat: bool,
) -> Vec<Witness> {
    let mut out = Vec::new();
    match taken {
        None => {}
        Some(Taken::Rule { path, line }) => {
            out.push(Witness::file(path, *line, "another adapter owns the name"));
            out.push(Witness::quirk(rule_quirk(tree, path, *line, red_hat)));
        }
        Some(Taken::Ifcfg(tie)) => {
            let says = format!(
                "HWADDR={} reserves {} for another adapter",
                tie.hwaddr.text, tie.device.text
            );
            out.push(Witness::file(&tie.path, tie.hwaddr.line, says));
            out.push(Witness::quirk(tie_quirk(&tie.hwaddr.text)));
        }
    }
    out.push(Witness::file(
        PERSISTENT,
        line,
        format!("rule appended at this boot gives the adapter {name}"),
    ));
    out
}

fn position(devices: &[Device], name: &str) -> Option<u32> {
    devices
        .iter()
        .position(|device| device.name == name)
        .and_then(|index| u32::try_from(index).ok())
}

/// The network service of EL6.
fn boot_initscripts(tree: &Tree, devices: &mut [Device], plan: &mut LinuxNetPlan) {
    let global = Variables::of(&tree.text("/etc/sysconfig/network").unwrap_or_default());
    let level = format!("/etc/rc.d/rc{}.d", manager::runlevel(tree));
    let linked =
        tree.names_in(&level).next().is_none() || manager::started(tree, "network").is_some();
    if is_false(global.get("NETWORKING")) || !linked {
        return;
    }
    for config in initscripts::service_order(tree) {
        let run = initscripts::ifup(tree, &config, true, devices);
        let real = run.device.split(':').next().unwrap_or("").to_owned();
        let interface = position(devices, &real);
        if let (Some(mac), Some(index)) = (
            run.macaddr,
            interface.and_then(|index| usize::try_from(index).ok()),
        ) && let (Some(device), Some(shown)) =
            (devices.get_mut(index), plan.interfaces.get_mut(index))
        {
            device.mac = mac;
            shown.mac = mac;
        }
        let up = run.reason == Reason::Up;
        plan.ifups.push(ifup_of(
            format!("{}/ifcfg-{config}", ifcfg::DIRECTORY),
            interface,
            run,
        ));
        for alias in initscripts::aliases(tree, &real).into_iter().filter(|_| up) {
            let run = initscripts::ifup_eth(tree, &alias, devices);
            if !is_false(run.variables.get("ONPARENT")) {
                plan.ifups.push(ifup_of(
                    format!("{}/{alias}", ifcfg::DIRECTORY),
                    interface,
                    run,
                ));
            }
        }
    }
}

fn ifup_of(config: String, interface: Option<u32>, run: Run) -> Ifup {
    let line = |key: &str| run.variables.line(key);
    let mut witnesses = Vec::new();
    let mut cite = |key: &str, says: String, quirks: &[&str]| {
        witnesses.push(Witness::file(&config, line(key), says));
        witnesses.extend(quirks.iter().map(|id| Witness::quirk(id)));
    };
    let device = &run.device;
    match run.reason {
        Reason::NoConfig => cite("", "no such configuration".to_owned(), &[]),
        Reason::NotAtBoot => cite("ONBOOT", "not to be brought up at boot".to_owned(), &[]),
        Reason::OtherAddress => {
            let says = format!(
                "HWADDR={} is not the address of {device}",
                run.variables.get("HWADDR")
            );
            cite(
                "HWADDR",
                says,
                if interface.is_some() {
                    &["GQ03"]
                } else {
                    &["DQ202"]
                },
            );
        }
        Reason::Absent => {
            cite("DEVICE", format!("there is no {device}"), &["GQ04"]);
            if run.variables.nonempty("IPADDR").is_some() {
                cite(
                    "IPADDR",
                    "the address is bound to that name".to_owned(),
                    &["GQ20"],
                );
            }
        }
        Reason::NoLink => cite(
            "BOOTPROTO",
            "no link, so no DHCP client is started".to_owned(),
            &["GQ05"],
        ),
        Reason::Bridged => cite(
            "BRIDGE",
            "joins a bridge and gets no address of its own".to_owned(),
            &[],
        ),
        Reason::Up => match &run.action {
            Action::Dhcp(client) => {
                cite(
                    "BOOTPROTO",
                    format!("runs {}", client.arguments.join(" ")),
                    &[],
                );
                if client.persistent {
                    cite(
                        "PERSISTENT_DHCLIENT",
                        "goes on asking".to_owned(),
                        &["GQ06"],
                    );
                }
            }
            Action::Static(address) => {
                cite(
                    "IPADDR",
                    format!("sets {}/{}", address.address, address.prefix),
                    &[],
                );
            }
            Action::None => {
                let proto = run.variables.get("BOOTPROTO");
                let quirks: &[&str] = if proto.eq_ignore_ascii_case("dhcp") {
                    &["DQ201"]
                } else {
                    &[]
                };
                cite(
                    "BOOTPROTO",
                    "neither DHCP nor an address is configured".to_owned(),
                    quirks,
                );
            }
        },
    }
    Ifup {
        config,
        device: run.device,
        interface,
        action: run.action,
        exit: run.exit,
        message: run.stdout,
        witnesses,
    }
}

/// `ifup -a` and the hotplug jobs of Ubuntu 12.04.
fn boot_ifupdown(tree: &Tree, devices: &[Device], plan: &mut LinuxNetPlan) {
    let text = tree.text(ifupdown::PATH).unwrap_or_default();
    let interfaces = Interfaces::parse(&text);
    let mut missing = false;
    for (name, line) in interfaces.wanted() {
        let Some(stanza) = interfaces
            .stanza(name)
            .filter(|stanza| stanza.method != "loopback")
        else {
            continue;
        };
        let real = name.split(':').next().unwrap_or(name);
        let interface = position(devices, real);
        let mut witnesses = vec![Witness::file(
            ifupdown::PATH,
            line,
            format!("brings up {name}"),
        )];
        let (action, exit, message) = if interface.is_some() {
            let says = format!("{name} by method {}", stanza.method);
            witnesses.push(Witness::file(ifupdown::PATH, stanza.line, says));
            (ifupdown::action(tree, stanza), 0, String::new())
        } else if interfaces.is_auto(name) {
            missing = true;
            witnesses.push(Witness::file(
                ifupdown::PATH,
                stanza.line,
                format!("there is no {name}"),
            ));
            let message = format!("Cannot find device \"{name}\"\nFailed to bring up {name}.");
            (Action::None, 1, message)
        } else {
            // allow-hotplug waits for an interface that never appears.
            continue;
        };
        plan.ifups.push(Ifup {
            config: ifupdown::PATH.to_owned(),
            device: name.to_owned(),
            interface,
            action,
            exit,
            message,
            witnesses,
        });
    }
    if missing {
        plan.delay_us = plan.delay_us.saturating_add(ifupdown::FAILSAFE_US);
        plan.delays.push(Witness::quirk("GQ28"));
    }
}

/// NetworkManager takes what is left.
fn boot_manager(tree: &Tree, devices: &[Device], plan: &mut LinuxNetPlan) {
    let Some(start) = manager::enabled(tree) else {
        return;
    };
    let interfaces = Interfaces::parse(&tree.text(ifupdown::PATH).unwrap_or_default());
    for (device, index) in devices.iter().zip(0_u32..) {
        // Interfaces of /etc/network/interfaces are not managed (managed=false in NetworkManager.conf).
        if configured(&plan.ifups, index) || interfaces.stanza(&device.name).is_some() {
            continue;
        }
        plan.ifups
            .extend(manager::connection(tree, device, index, &start));
    }
}
