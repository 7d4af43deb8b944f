//! NetworkManager 0.8 (EL6 desktop) and 0.9 (Ubuntu 12.04 desktop), as far as it gives addresses.
//!
//! Source: NetworkManager's ifcfg-rh plugin documentation and NetworkManager.conf(5); belief where no source was
//! opened (quirk GQ23).
//!
//! It starts after the network service and takes the interfaces that are left: a configuration that matches (same
//! `HWADDR`, or none) is applied when `ONBOOT` allows; an adapter that no configuration names by its address gets the
//! automatic connection "Auto ethN", by DHCP.

use super::ifcfg::{self, DIRECTORY, Identity};
use super::initscripts::{self, Device};
use super::shell::{Variables, is_false};
use super::{Action, DhcpClient, Ifup};
use crate::Tree;
use drylab_catalog::Witness;

/// The file that says it starts at boot, if it does.
#[must_use]
pub fn enabled(tree: &Tree) -> Option<String> {
    let upstart = "/etc/init/network-manager.conf";
    if tree.read(upstart).is_some() {
        return Some(upstart.to_owned());
    }
    started(tree, "NetworkManager")
}

/// The start link of a System V service in the default runlevel.
#[must_use]
pub fn started(tree: &Tree, service: &str) -> Option<String> {
    let level = runlevel(tree);
    [
        format!("/etc/rc.d/rc{level}.d"),
        format!("/etc/rc{level}.d"),
    ]
    .iter()
    .find_map(|directory| {
        let is_start = |name: &&str| {
            let number = name
                .strip_suffix(service)
                .and_then(|rest| rest.strip_prefix('S'));
            number.is_some_and(|digits| {
                !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
            })
        };
        tree.names_in(directory)
            .find(is_start)
            .map(|name| format!("{directory}/{name}"))
    })
}

/// Default runlevel of `/etc/inittab`; 3 when it says nothing.
#[must_use]
pub fn runlevel(tree: &Tree) -> char {
    let text = tree.text("/etc/inittab").unwrap_or_default();
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let level = fields.nth(1)?.chars().next()?;
            (fields.next() == Some("initdefault")).then_some(level)
        })
        .unwrap_or('3')
}

/// What it does to an interface that the boot scripts left alone; None when it leaves it alone too.
#[must_use]
pub fn connection(tree: &Tree, device: &Device, index: u32, start: &str) -> Option<Ifup> {
    let mac = device.mac.to_string();
    let mut open = None;
    for name in ifcfg::names(tree).filter(|name| *name != "ifcfg-lo") {
        let path = format!("{DIRECTORY}/{name}");
        let Some(text) = tree.text(&path) else {
            continue;
        };
        let variables = Variables::of(&text);
        let identity = Identity::parse(&text);
        let hwaddr = identity
            .hwaddr
            .as_ref()
            .map_or("", |value| value.text.as_str());
        let own = hwaddr.eq_ignore_ascii_case(&mac);
        let managed = !is_false(variables.get("NM_CONTROLLED"));
        let at_boot = !is_false(variables.get("ONBOOT"));
        if own && !(managed && at_boot) {
            return None;
        }
        if own || (hwaddr.is_empty() && managed && at_boot && open.is_none()) {
            open = Some((name.to_owned(), path));
        }
        if own {
            break;
        }
    }
    let mut witnesses = vec![
        Witness::file(start, 0, "NetworkManager starts at boot"),
        Witness::quirk("GQ23"),
    ];
    if let Some((name, path)) = open {
        // The connection applies to this device whatever name the file gives it.
        let mut renamed = device.clone();
        if let Some(text) = tree.text(&path) {
            let variables = Variables::of(&text);
            if let Some(wanted) = variables.nonempty("DEVICE") {
                wanted.clone_into(&mut renamed.name);
            }
        }
        let run = initscripts::ifup_eth(tree, &name, &[renamed]);
        if run.action == Action::None {
            return None;
        }
        witnesses.push(Witness::file(
            &path,
            0,
            "a connection of NetworkManager that fits this adapter",
        ));
        let action = match run.action {
            Action::Dhcp(_) => Action::Dhcp(client(&device.name, &name)),
            other => other,
        };
        return Some(ifup(path, device, index, action, witnesses));
    }
    if !device.link {
        return None;
    }
    let action = Action::Dhcp(client(&device.name, &format!("Auto {}", device.name)));
    Some(ifup(
        "NetworkManager".to_owned(),
        device,
        index,
        action,
        witnesses,
    ))
}

fn ifup(
    config: String,
    device: &Device,
    index: u32,
    action: Action,
    witnesses: Vec<Witness>,
) -> Ifup {
    let message = String::new();
    Ifup {
        config,
        device: device.name.clone(),
        interface: Some(index),
        action,
        exit: 0,
        message,
        witnesses,
    }
}

/// NetworkManager's own client: in the foreground under its control, restarted when it gives up.
fn client(device: &str, connection: &str) -> DhcpClient {
    let lease = format!(
        "/var/lib/dhclient/dhclient-{}-{device}.lease",
        connection.replace(' ', "-")
    );
    let arguments = [
        "/sbin/dhclient",
        "-d",
        "-sf",
        "/usr/libexec/nm-dhcp-client.action",
        "-pf",
        &format!("/var/run/dhclient-{device}.pid"),
        "-lf",
        &lease,
        "-cf",
        &format!("/var/run/nm-dhclient-{device}.conf"),
        device,
    ]
    .map(str::to_owned)
    .to_vec();
    DhcpClient {
        arguments,
        one_try: false,
        timeout_s: 45,
        persistent: true,
        hostname: None,
    }
}
