//! The test bed: hosts, shares, networks and consoles, as one file.

mod check;

use drylab_catalog::{Mark, ProductId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabFile {
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
    /// What is wrong and where, as a lowercase fragment: the parser's message for unknown or missing keys, else the
    /// names and values that do not fit each other.
    ///
    /// ```
    /// let wrong = drylab_hypervisor::LabFile::from_toml("[[host]]\ncolour = \"blue\"\n").unwrap_err();
    /// assert!(wrong.contains("unknown field `colour`"), "{wrong}");
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let lab: Self = toml::from_str(text).map_err(|error| error.to_string())?;
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

    /// Reads a lab file.
    ///
    /// # Errors
    /// The parser's message.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The host that runs a product.
    #[must_use]
    pub fn host_of(&self, product: &ProductId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.product == *product)
    }

    /// The console that manages a product.
    #[must_use]
    pub fn console_of(&self, product: &ProductId) -> Option<&Console> {
        let mut consoles = self.consoles.iter();
        consoles.find(|console| console.product == *product)
    }
}
