//! The ifcfg files of `/etc/sysconfig/network-scripts`, and who overlooks which of them.
//!
//! Source: Red Hat's `sysconfig.txt` (initscripts 9.03), measured behaviour of `rename_device`.
//!
//! ```text
//! /etc/sysconfig/network-scripts/ifcfg-eth0
//!     DEVICE=eth0
//!     HWADDR=00:0C:29:AA:BB:CC
//!     ONBOOT=yes
//! ```
//!
//! Three readers differ: the scripts source the file (see [`super::shell`]); `rename_device` and the rule writer look
//! for lines that begin with `DEVICE=` and `HWADDR=`.

use crate::Tree;

/// Where they are.
pub const DIRECTORY: &str = "/etc/sysconfig/network-scripts";

/// Names of the ifcfg files that programs regard: `.bak`, `~`, `.rpmnew`, `.rpmsave` and `.rpmorig` are left out;
/// `.old` and `.orig` are not.
pub fn names(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.names_in(DIRECTORY).filter(|name| {
        name.starts_with("ifcfg-")
            && ![".bak", "~", ".rpmnew", ".rpmsave", ".rpmorig"]
                .iter()
                .any(|end| name.ends_with(end))
    })
}

/// A value read by a line-oriented reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Without quotes.
    pub text: String,
    /// Line, from 1.
    pub line: u32,
}

/// `DEVICE` and `HWADDR` as `rename_device` reads them: the key at the very beginning of a line, the last line wins;
/// quotes are taken off when they close at the very end, then white space (a carriage return) is taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `DEVICE=`.
    pub device: Option<Value>,
    /// `HWADDR=`.
    pub hwaddr: Option<Value>,
}

impl Identity {
    /// Reads one file's text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut identity = Self::default();
        for (content, line) in text.split('\n').zip(1_u32..) {
            let value = |rest: &str| {
                Some(Value {
                    text: dequoted(rest).trim().to_owned(),
                    line,
                })
            };
            if let Some(rest) = content.strip_prefix("DEVICE=") {
                identity.device = value(rest);
            } else if let Some(rest) = content.strip_prefix("HWADDR=") {
                identity.hwaddr = value(rest);
            }
        }
        identity
    }

    /// The pair, when both have a value and the device is not an alias (`eth0:1`).
    #[must_use]
    pub fn pair(&self) -> Option<(&Value, &Value)> {
        let device = self
            .device
            .as_ref()
            .filter(|value| !value.text.is_empty() && !value.text.contains(':'))?;
        let hwaddr = self
            .hwaddr
            .as_ref()
            .filter(|value| !value.text.is_empty())?;
        Some((device, hwaddr))
    }
}

fn dequoted(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value)
}

/// An ifcfg file that ties a device name to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// Path of the file.
    pub path: String,
    /// The name.
    pub device: Value,
    /// The address, as written.
    pub hwaddr: Value,
}

/// All ties of a guest, by file name.
#[must_use]
pub fn ties(tree: &Tree) -> Vec<Tie> {
    names(tree)
        .filter_map(|name| {
            let path = format!("{DIRECTORY}/{name}");
            let identity = Identity::parse(&tree.text(&path)?);
            let (device, hwaddr) = identity.pair()?;
            Some(Tie {
                path,
                device: device.clone(),
                hwaddr: hwaddr.clone(),
            })
        })
        .collect()
}

/// `rename_device`: the device name that the ifcfg files give to the adapter with `address`.
///
/// With several files for one address the file whose device is `interface` wins, else the last by name. Without
/// `INTERFACE` in its environment, or without an address, it prints nothing.
#[must_use]
pub fn rename_device(tree: &Tree, interface: &str, address: Option<&str>) -> Option<Tie> {
    let address = address.filter(|address| !address.is_empty() && !interface.is_empty())?;
    let mut matching = ties(tree);
    matching.retain(|tie| tie.hwaddr.text.eq_ignore_ascii_case(address));
    let own = matching.iter().position(|tie| tie.device.text == interface);
    match own {
        Some(index) => matching.get(index).cloned(),
        None => matching.pop(),
    }
}
