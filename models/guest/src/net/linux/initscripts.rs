//! EL6's `ifup` and `ifup-eth`: an ifcfg file against the interfaces there are.
//!
//! Source: measured runs of initscripts 9.03.27 (`ifup`, `ifup-eth`); Red Hat's `sysconfig.txt` for the keys.
//!
//! ```text
//! ONBOOT=no at boot ─▶ exit 0, silent
//! HWADDR ≠ the device's address (and ≠ MACADDR) ─▶ "has different MAC address than expected, ignoring.", exit 1
//! no such device ─▶ "does not seem to be present, delaying initialization.", exit 1
//! BOOTPROTO=dhcp ─▶ link? ─▶ dhclient -1 -q -lf … -pf … eth0
//! IPADDR ─▶ address set, whatever the link
//! ```
//!
//! Not modelled: bonding, VLANs, tunnels, PPP, IPv6; a device that joins a bridge gets no address of its own.

use super::shell::{Variables, is_false};
use super::{Action, DhcpClient, StaticAddress, ifcfg};
use crate::Tree;
use drylab_catalog::Mac;
use std::net::Ipv4Addr;

/// An interface as the scripts find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Address.
    pub mac: Mac,
    /// Whether the cable is in.
    pub link: bool,
}

/// What one run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Exit code (of a DHCP client that gets a lease).
    pub exit: u8,
    /// What it printed (with the same condition).
    pub stdout: String,
    /// What it did to the device.
    pub action: Action,
    /// `DEVICE`, or the device that has `HWADDR`.
    pub device: String,
    /// Address set by `MACADDR`.
    pub macaddr: Option<Mac>,
    /// Why, for those who cite it.
    pub reason: Reason,
    /// The variables.
    pub variables: Variables,
}

/// What decided a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No such configuration.
    NoConfig,
    /// `ONBOOT=no`.
    NotAtBoot,
    /// `HWADDR` is another address.
    OtherAddress,
    /// No such device.
    Absent,
    /// The cable is out.
    NoLink,
    /// The device joins a bridge.
    Bridged,
    /// It was brought up.
    Up,
}

/// Seconds that `dhclient` tries when its configuration has no `timeout` (dhclient.conf(5)).
pub const DHCLIENT_TIMEOUT_S: u32 = 60;

/// Words printed before a DHCP client is called.
#[must_use]
pub fn determining(device: &str) -> String {
    format!("Determining IP information for {device}...")
}

/// Exit code and words of a run whose DHCP client got no lease.
#[must_use]
pub fn no_lease(device: &str) -> (u8, String) {
    (1, format!("{} failed.", determining(device)))
}

/// `ifup CONFIG boot`.
#[must_use]
pub fn ifup(tree: &Tree, config: &str, boot: bool, devices: &[Device]) -> Run {
    let file = format!("ifcfg-{}", config.strip_prefix("ifcfg-").unwrap_or(config));
    if let Some(variables) =
        source(tree, &file).filter(|variables| boot && is_false(variables.get("ONBOOT")))
    {
        let device = variables.get("DEVICE").to_owned();
        return finished(0, String::new(), device, Reason::NotAtBoot, variables);
    }
    ifup_eth(tree, &file, devices)
}

/// `ifup-eth ifcfg-NAME`.
#[must_use]
pub fn ifup_eth(tree: &Tree, file: &str, devices: &[Device]) -> Run {
    let Some(mut variables) = source(tree, file) else {
        let message = format!("configuration for {file} not found.");
        return finished(
            1,
            message,
            String::new(),
            Reason::NoConfig,
            Variables::default(),
        );
    };
    for key in ["HWADDR", "MACADDR"] {
        let upper = variables.get(key).to_uppercase();
        variables.set(key, &upper);
    }
    let hwaddr = variables.get("HWADDR").to_owned();
    let macaddr = variables.get("MACADDR").to_owned();
    if variables.get("DEVICE").is_empty() {
        let found = devices.iter().find(|device| upper(device.mac) == hwaddr);
        variables.set("DEVICE", found.map_or("", |device| &device.name));
    }
    let device = variables.get("DEVICE").to_owned();
    let real = device.split(':').next().unwrap_or("");
    if !hwaddr.is_empty() {
        // Without a name `ip link show` lists all interfaces, and their addresses equal neither key.
        let seen = if real.is_empty() {
            "00:00:00:00:00:00".to_owned()
        } else {
            devices
                .iter()
                .find(|other| other.name == real)
                .map_or(String::new(), |other| upper(other.mac))
        };
        if seen != hwaddr && seen != macaddr {
            let shown = if device.is_empty() {
                String::new()
            } else {
                format!("{device} ")
            };
            let message =
                format!("Device {shown}has different MAC address than expected, ignoring.");
            return finished(1, message, device, Reason::OtherAddress, variables);
        }
    }
    let Some(there) = devices.iter().find(|other| other.name == real) else {
        let message =
            format!("Device {device} does not seem to be present, delaying initialization.");
        return finished(1, message, device, Reason::Absent, variables);
    };
    let mut run = configure(tree, there, device, variables);
    run.macaddr = macaddr.parse().ok();
    run
}

fn configure(tree: &Tree, there: &Device, device: String, variables: Variables) -> Run {
    if variables.nonempty("BRIDGE").is_some() {
        return finished(0, String::new(), device, Reason::Bridged, variables);
    }
    if matches!(variables.get("BOOTPROTO"), "dhcp" | "bootp") {
        let words = determining(&device);
        if !there.link {
            let message = format!("{words} failed; no link present.  Check cable?");
            return finished(1, message, device, Reason::NoLink, variables);
        }
        let client = dhclient(tree, &device, &variables);
        let mut run = finished(0, format!("{words} done."), device, Reason::Up, variables);
        run.action = Action::Dhcp(client);
        return run;
    }
    let address = static_address(tree, &variables);
    let mut run = finished(0, String::new(), device, Reason::Up, variables);
    run.action = address.map_or(Action::None, Action::Static);
    run
}

fn finished(exit: u8, stdout: String, device: String, reason: Reason, variables: Variables) -> Run {
    Run {
        exit,
        stdout,
        action: Action::None,
        device,
        macaddr: None,
        reason,
        variables,
    }
}

fn upper(mac: Mac) -> String {
    mac.to_string().to_uppercase()
}

/// Sources `/etc/sysconfig/network` and the ifcfg file.
fn source(tree: &Tree, file: &str) -> Option<Variables> {
    let text = tree.text(&format!("{}/{file}", ifcfg::DIRECTORY))?;
    let mut variables = Variables::default();
    if let Some(global) = tree.text("/etc/sysconfig/network") {
        variables.source(&global);
    }
    variables.source(&text);
    Some(variables)
}

fn dhclient(tree: &Tree, device: &str, variables: &Variables) -> DhcpClient {
    // The script looks for one of these characters anywhere in the value.
    let persistent = variables
        .get("PERSISTENT_DHCLIENT")
        .contains(['y', 'Y', '1']);
    let mut arguments = vec!["dhclient".to_owned()];
    let mut push = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    if let Some(extra) = variables.nonempty("DHCLIENTARGS") {
        push(&extra.split_ascii_whitespace().collect::<Vec<_>>());
    }
    let hostname = variables.nonempty("DHCP_HOSTNAME").map(ToOwned::to_owned);
    if let Some(name) = &hostname {
        push(&["-H", name]);
    }
    if !persistent {
        push(&["-1"]);
    }
    push(&["-q"]);
    let configs = [
        format!("/etc/dhcp/dhclient-{device}.conf"),
        format!("/etc/dhclient-{device}.conf"),
    ];
    let config = configs
        .iter()
        .find(|path| tree.read(path).is_some_and(|bytes| !bytes.is_empty()));
    if let Some(path) = config {
        push(&["-cf", path]);
    }
    push(&[
        "-lf",
        &format!("/var/lib/dhclient/dhclient-{device}.leases"),
        "-pf",
        &format!("/var/run/dhclient-{device}.pid"),
        device,
    ]);
    let config = config.map_or("/etc/dhcp/dhclient.conf", String::as_str);
    let timeout_s = timeout(tree, config);
    DhcpClient {
        arguments,
        one_try: !persistent,
        timeout_s,
        persistent,
        hostname,
    }
}

/// `timeout N;` of a dhclient.conf, or the built-in value.
pub(super) fn timeout(tree: &Tree, path: &str) -> u32 {
    let text = tree.text(path).unwrap_or_default();
    text.lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .filter_map(|line| {
            line.trim()
                .strip_prefix("timeout")?
                .trim()
                .strip_suffix(';')?
                .trim()
                .parse()
                .ok()
        })
        .next_back()
        .unwrap_or(DHCLIENT_TIMEOUT_S)
}

fn static_address(tree: &Tree, variables: &Variables) -> Option<StaticAddress> {
    let first = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| variables.nonempty(key))
            .map(ToOwned::to_owned)
    };
    let address: Ipv4Addr = first(&["IPADDR", "IPADDR0", "IPADDR1"])?.parse().ok()?;
    let prefix = first(&["PREFIX", "PREFIX0", "PREFIX1"])
        .and_then(|text| text.parse().ok())
        .filter(|prefix| *prefix <= 32)
        .or_else(|| prefix_of(first(&["NETMASK", "NETMASK0", "NETMASK1"])?.parse().ok()?))
        .unwrap_or_else(|| class_prefix(address));
    let gateway = variables
        .nonempty("GATEWAY")
        .and_then(|text| text.parse().ok());
    let peer_dns = !is_false(variables.get("PEERDNS"));
    let mut dns: Vec<Ipv4Addr> = ["DNS1", "DNS2"]
        .iter()
        .filter_map(|key| variables.nonempty(key)?.parse().ok())
        .filter(|_| peer_dns)
        .collect();
    if dns.is_empty() {
        dns = resolv_conf(tree);
    }
    let probe = !is_false(variables.get("ARPCHECK"));
    Some(StaticAddress {
        address,
        prefix,
        gateway,
        dns,
        probe,
    })
}

/// `nameserver` lines of `/etc/resolv.conf`.
pub(super) fn resolv_conf(tree: &Tree) -> Vec<Ipv4Addr> {
    let text = tree.text("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .collect()
}

/// Prefix length of a netmask; None when its ones are not in front.
#[must_use]
pub fn prefix_of(netmask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(netmask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones)
        .then(|| u8::try_from(ones).ok())
        .flatten()
}

/// Prefix length of an address's class, as ipcalc falls back to.
fn class_prefix(address: Ipv4Addr) -> u8 {
    let [first, ..] = address.octets();
    match first {
        0..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        _ => 32,
    }
}

/// The order in which the network service brings configurations up: letters first, then numbers as numbers. `lo` and
/// aliases are not in it.
#[must_use]
pub fn service_order(tree: &Tree) -> Vec<String> {
    let mut names: Vec<String> = ifcfg::names(tree)
        .filter_map(|name| name.strip_prefix("ifcfg-"))
        .filter(|name| *name != "lo" && !name.contains(':') && !name.ends_with("-range"))
        .map(ToOwned::to_owned)
        .collect();
    names.sort_by_cached_key(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name
            .strip_prefix(stem)
            .and_then(|digits| digits.parse::<u64>().ok());
        (stem.to_owned(), number, name.clone())
    });
    names
}

/// Files `ifcfg-DEVICE:N` that ifup-aliases brings up after their parent.
#[must_use]
pub fn aliases(tree: &Tree, device: &str) -> Vec<String> {
    let prefix = format!("ifcfg-{device}:");
    ifcfg::names(tree)
        .filter(|name| name.starts_with(&prefix))
        .map(ToOwned::to_owned)
        .collect()
}
