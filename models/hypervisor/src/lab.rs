//! The test bed: hosts, shares and networks.

use drylab_catalog::{Mark, ProductId};
use serde::Deserialize;
use std::collections::BTreeMap;

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
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The product it runs.
    pub product: ProductId,
    /// Its name.
    pub name: String,
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
}

/// An NFS share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Capacity in bytes.
    pub bytes: u64,
}

/// A network; addresses as dotted quads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Subnet, `a.b.c.d/n`.
    pub prefix: String,
    /// Router.
    pub gateway: std::net::Ipv4Addr,
    /// Name server.
    pub dns: std::net::Ipv4Addr,
    /// DHCP server.
    pub dhcp: std::net::Ipv4Addr,
    /// First address of its pool.
    pub pool_first: std::net::Ipv4Addr,
    /// Address of the router's adapter: Windows knows a network by it.
    pub gateway_mac: drylab_catalog::Mac,
    /// DNS suffix the DHCP server gives; empty for none.
    pub domain: String,
    /// How sure we are of it.
    pub mark: Mark,
}

impl LabFile {
    /// The lab of the report.
    ///
    /// # Panics
    /// When the file that is part of the program does not parse.
    #[must_use]
    pub fn of_the_report() -> Self {
        toml::from_str(include_str!("../lab.toml"))
            .expect("lab.toml is part of the program and parses")
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
}

/// A store of bytes: used and free always add up to the capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datastore {
    capacity: u64,
    files: BTreeMap<String, u64>,
}

impl Datastore {
    /// An empty store.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            files: BTreeMap::new(),
        }
    }

    /// Capacity in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.files.values().sum()
    }

    /// Bytes free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity - self.used()
    }

    /// Files and their sizes.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, u64> {
        &self.files
    }

    /// Takes space for a file.
    ///
    /// # Errors
    /// The bytes that are free, when they are not enough; nothing is changed then.
    pub fn put(&mut self, name: &str, bytes: u64) -> Result<(), u64> {
        let before = self.files.get(name).copied().unwrap_or(0);
        let free = self.free() + before;
        if bytes > free {
            return Err(free);
        }
        self.files.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// Gives the space of a file back.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{Datastore, LabFile};

    #[test]
    fn a_store_never_holds_more_than_its_capacity() {
        let mut store = Datastore::new(100);
        assert_eq!(store.put("a", 60), Ok(()));
        assert_eq!(store.put("b", 41), Err(40));
        assert_eq!(
            store.put("a", 100),
            Ok(()),
            "a file may grow into its own space"
        );
        store.remove("a");
        assert_eq!((store.used(), store.free()), (0, 100));
    }

    #[test]
    fn every_host_of_the_report_has_64_gb() {
        let lab = LabFile::of_the_report();
        assert!(lab.hosts.iter().all(|host| host.memory_mib == 65_536));
        assert!(lab.host_of(&"esxi-5.0.0".into()).is_some());
    }
}
