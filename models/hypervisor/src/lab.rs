//! The test bed: hosts, shares, networks and consoles, as one file.

mod check;
mod words;

use drylab_catalog::{Mark, ProductId, Witness};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabFile {
    /// Version of this form; 1.
    pub format: u64,
    /// Hosts, one for each product.
    #[serde(rename = "host")]
    pub hosts: Vec<Host>,
    /// Shares that all hosts mount.
    #[serde(rename = "share")]
    pub shares: Vec<Share>,
    /// Networks by name: `lan`, `other`.
    #[serde(rename = "network")]
    pub networks: BTreeMap<String, Network>,
    /// Switches, one or more for each network.
    #[serde(rename = "switch")]
    pub switches: Vec<Switch>,
    /// What joins the networks.
    pub router: Router,
    /// Management consoles, one for each product.
    #[serde(rename = "console")]
    pub consoles: Vec<Console>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The product it runs.
    pub product: ProductId,
    /// Its name.
    pub name: String,
    /// Its address on the LAN; Hyper-V makes MAC addresses of it.
    pub address: Ipv4Addr,
    /// Brand string of its processors.
    pub cpu_brand: String,
    /// Vendor string of its processors.
    pub cpu_vendor: String,
    /// Their clock in kHz.
    pub cpu_khz: u64,
    /// Their features, in /proc/cpuinfo spelling, as far as a guest can see them.
    pub cpu_features: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Capacity of the datastore machines live on, in bytes.
    pub local_bytes: u64,
    /// Name of the switch it is plugged into, to which its virtual network is bridged.
    pub switch: String,
    /// How sure we are of it.
    pub mark: Mark,
}

/// An NFS share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Capacity in bytes.
    pub bytes: u64,
    /// How sure we are of it.
    pub mark: Mark,
}

/// A network; addresses as dotted quads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Subnet, `a.b.c.d/n`.
    pub prefix: String,
    /// Router.
    pub gateway: Ipv4Addr,
    /// Name server.
    pub dns: Ipv4Addr,
    /// DHCP server.
    pub dhcp: Ipv4Addr,
    /// First address of its pool.
    pub pool_first: Ipv4Addr,
    /// Address of the router's adapter: Windows knows a network by it.
    pub gateway_mac: drylab_catalog::Mac,
    /// DNS suffix the DHCP server gives; empty for none.
    pub domain: String,
    /// How sure we are of it.
    pub mark: Mark,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// The network it carries.
    pub network: String,
    /// How sure we are of it.
    pub mark: Mark,
}

/// The router; it has the gateway's address in each of its networks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Networks it joins.
    pub networks: Vec<String>,
    /// How sure we are of it.
    pub mark: Mark,
}

/// A management console: a virtual machine, or a program on the console computer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The product it manages.
    pub product: ProductId,
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: String,
    /// Its address there.
    pub address: Ipv4Addr,
    /// How sure we are of it.
    pub mark: Mark,
}

impl LabFile {
    /// Text of the lab of the report, as a start for others.
    pub const REPORT: &'static str = include_str!("../lab.toml");

    /// Reads a lab file and checks that it describes a lab in which every known product has a host and a console.
    ///
    /// # Errors
    /// What is wrong and where, as a lowercase fragment: another version of the form, before anything else is looked at;
    /// line, key, what was found and what is expected; else the names and values that do not fit each other.
    ///
    /// ```
    /// let wrong = drylab_hypervisor::LabFile::from_toml("format = 1\n[[host]]\ncolour = \"blue\"\n").unwrap_err();
    /// assert!(wrong.contains("unknown field `colour`"), "{wrong}");
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let told = |error: toml::de::Error| words::told(text, &error);
        let table: toml::Table = toml::from_str(text).map_err(told)?;
        match table.get("format").map(toml::Value::as_integer) {
            Some(Some(1)) => {}
            Some(Some(other)) => {
                return Err(format!(
                    "format {other} of a lab file is not known, only 1 is: a newer program may read it"
                ));
            }
            Some(None) => return Err("format is no whole number, 1 expected".to_owned()),
            None => {
                return Err("format is missing: a lab file begins with format = 1".to_owned());
            }
        }
        let lab: Self = toml::from_str(text).map_err(told)?;
        check::check(&lab)?;
        Ok(lab)
    }

    /// The lab of the report.
    ///
    /// # Panics
    /// When the file that is part of the program is no lab.
    #[must_use]
    pub fn of_the_report() -> Self {
        Self::from_toml(Self::REPORT).expect("lab.toml is part of the program and holds a lab")
    }

    /// The host that runs a product.
    #[must_use]
    pub fn host_of(&self, product: &ProductId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.product == *product)
    }

    /// The network that a host is on: the one its switch carries.
    #[must_use]
    pub fn network_of(&self, host: &Host) -> Option<&str> {
        let mut switches = self.switches.iter();
        let plugged = switches.find(|switch| switch.name == host.switch)?;
        Some(&plugged.network)
    }

    /// Why the console of a host's product does not reach the host; `None` when it does, on one network or by the router.
    #[must_use]
    pub fn console_cut_off(&self, host: &Host) -> Option<Vec<Witness>> {
        let console = self.console_of(&host.product)?;
        let theirs = self.network_of(host)?;
        let joined = |network: &str| self.router.networks.iter().any(|name| name == network);
        if console.network == theirs || joined(&console.network) && joined(theirs) {
            return None;
        }
        let (router, networks) = (&self.router.name, self.router.networks.join(", "));
        let says = format!(
            "network = {:?}, host {} at {} is on {theirs:?} by switch {}, and router {router} joins {networks}",
            console.network, host.name, host.address, host.switch
        );
        let mut place = Witness::lab(format!("console {}", console.name), says);
        place.mark = console.mark;
        Some(vec![place, Witness::quirk("DQ445")])
    }

    /// The console that manages a product.
    #[must_use]
    pub fn console_of(&self, product: &ProductId) -> Option<&Console> {
        let mut consoles = self.consoles.iter();
        consoles.find(|console| console.product == *product)
    }
}
