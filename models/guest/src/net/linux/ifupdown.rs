//! `/etc/network/interfaces` of Debian and Ubuntu.
//!
//! Source: interfaces(5), ifup(8) of ifupdown 0.7; Ubuntu 12.04's `/etc/init/failsafe.conf` for the wait.
//!
//! ```text
//! auto lo eth0
//! iface eth0 inet static
//!     address 192.0.2.10
//!     netmask 255.255.255.0
//!     gateway 192.0.2.1
//!     dns-nameservers 192.0.2.53
//! ```
//!
//! Not modelled: `mapping`, `source`, `inet6`, hooks (`up`, `pre-up`, …).

use super::initscripts::{prefix_of, timeout};
use super::{Action, DhcpClient, StaticAddress};
use crate::Tree;
use std::collections::BTreeMap;

/// The file.
pub const PATH: &str = "/etc/network/interfaces";
/// How long Ubuntu 12.04 waits for `auto` interfaces that do not come up, in microseconds.
pub const FAILSAFE_US: u64 = 120_000_000;
/// Most stanzas read.
const MOST: usize = 10_000;

/// One `iface` stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    /// Interface.
    pub name: String,
    /// `inet`, `inet6`.
    pub family: String,
    /// `dhcp`, `static`, `manual`, `loopback`.
    pub method: String,
    /// Its line, from 1.
    pub line: u32,
    /// Options, the first word of each line with the rest of it; the last wins.
    pub options: BTreeMap<String, String>,
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Interfaces to bring up at boot, with the line that says so; in order.
    pub auto: Vec<(String, u32)>,
    /// Interfaces to bring up when they appear.
    pub hotplug: Vec<(String, u32)>,
    /// Stanzas.
    pub stanzas: Vec<Stanza>,
}

impl Interfaces {
    /// Reads the file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut interfaces = Self::default();
        let mut in_stanza = false;
        for (content, line) in logical_lines(text)
            .into_iter()
            .take(MOST.saturating_mul(10))
        {
            let mut words = content.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            match first {
                "auto" | "allow-auto" => {
                    interfaces
                        .auto
                        .extend(words.map(|name| (name.to_owned(), line)));
                    in_stanza = false;
                }
                "allow-hotplug" => {
                    interfaces
                        .hotplug
                        .extend(words.map(|name| (name.to_owned(), line)));
                    in_stanza = false;
                }
                "iface" => {
                    in_stanza = interfaces.stanzas.len() < MOST;
                    if in_stanza {
                        let mut word = || words.next().unwrap_or("").to_owned();
                        let (name, family, method) = (word(), word(), word());
                        interfaces.stanzas.push(Stanza {
                            name,
                            family,
                            method,
                            line,
                            options: BTreeMap::new(),
                        });
                    }
                }
                "mapping" | "source" | "source-directory" => in_stanza = false,
                _ if first.starts_with("allow-") => in_stanza = false,
                option if in_stanza => {
                    let value = content.strip_prefix(option).unwrap_or("").trim().to_owned();
                    if let Some(stanza) = interfaces.stanzas.last_mut() {
                        stanza.options.insert(option.to_owned(), value);
                    }
                }
                _ => {}
            }
        }
        interfaces
    }

    /// The IPv4 stanza of an interface.
    #[must_use]
    pub fn stanza(&self, name: &str) -> Option<&Stanza> {
        self.stanzas
            .iter()
            .find(|stanza| stanza.name == name && stanza.family == "inet")
    }

    /// Interfaces brought up at boot or when they appear, each once, in order, with the line that says so.
    #[must_use]
    pub fn wanted(&self) -> Vec<(&str, u32)> {
        let mut wanted: Vec<(&str, u32)> = Vec::new();
        for (name, line) in self.auto.iter().chain(&self.hotplug) {
            if !wanted.iter().any(|(seen, _)| seen == name) {
                wanted.push((name, *line));
            }
        }
        wanted
    }

    /// Whether boot waits for this interface (`auto`).
    #[must_use]
    pub fn is_auto(&self, name: &str) -> bool {
        self.auto.iter().any(|(auto, _)| auto == name)
    }
}

/// Lines with continuations joined and comments left out, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(String, u32)> {
    let mut lines = Vec::new();
    let mut pending: Option<(String, u32)> = None;
    for (content, number) in text.lines().zip(1_u32..) {
        if pending.is_none() && content.trim_start().starts_with('#') {
            continue;
        }
        let (mut line, first) = pending.take().unwrap_or((String::new(), number));
        match content.strip_suffix('\\') {
            Some(part) => {
                line.push_str(part);
                pending = Some((line, first));
            }
            None => {
                line.push_str(content);
                lines.push((line.trim().to_owned(), first));
            }
        }
    }
    lines.extend(pending.map(|(line, first)| (line.trim().to_owned(), first)));
    lines
}

/// What a stanza does to its interface.
#[must_use]
pub fn action(tree: &Tree, stanza: &Stanza) -> Action {
    match stanza.method.as_str() {
        "dhcp" => Action::Dhcp(dhclient(tree, stanza)),
        "static" => address(stanza).map_or(Action::None, Action::Static),
        _ => Action::None,
    }
}

fn dhclient(tree: &Tree, stanza: &Stanza) -> DhcpClient {
    let name = &stanza.name;
    let mut arguments: Vec<String> = ["dhclient3", "-e", "IF_METRIC=100", "-pf"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(format!("/var/run/dhclient.{name}.pid"));
    arguments.push("-lf".to_owned());
    arguments.push(format!("/var/lib/dhcp/dhclient.{name}.leases"));
    arguments.push("-1".to_owned());
    arguments.push(name.clone());
    DhcpClient {
        arguments,
        one_try: true,
        timeout_s: timeout(tree, "/etc/dhcp/dhclient.conf"),
        persistent: false,
        hostname: stanza.options.get("hostname").cloned(),
    }
}

fn address(stanza: &Stanza) -> Option<StaticAddress> {
    let option = |key: &str| stanza.options.get(key).map(String::as_str);
    let (address, length) = match option("address")?.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()),
        None => (option("address")?, None),
    };
    let netmask = option("netmask")
        .and_then(|text| text.parse().ok().or_else(|| prefix_of(text.parse().ok()?)));
    let prefix = length.or(netmask).filter(|prefix| *prefix <= 32)?;
    let dns = option("dns-nameservers")
        .or_else(|| option("dns-nameserver"))
        .unwrap_or("");
    Some(StaticAddress {
        address: address.parse().ok()?,
        prefix,
        gateway: option("gateway").and_then(|text| text.parse().ok()),
        dns: dns
            .split_ascii_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect(),
        probe: false,
    })
}
