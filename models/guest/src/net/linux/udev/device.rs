//! One network device as sysfs shows it: the interface and its parents.
//!
//! ```text
//! net/eth0 ── virtio0 (virtio, virtio_net) ── 0000:00:03.0 (pci, virtio-pci)
//! net/eth0 ── 0000:00:03.0 (pci, e1000)
//! net/eth0 ── vif-0 (xen, vif)
//! net/eth0 ── vmbus_0_1 (vmbus, hv_netvsc)
//! ```

use crate::net::linux::{Bus, PciFunction};
use std::collections::BTreeMap;

/// One node of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Kernel name.
    pub name: String,
    /// Subsystem.
    pub subsystem: String,
    /// Driver bound to it; empty for none.
    pub driver: String,
    /// Attribute files.
    pub attributes: BTreeMap<String, String>,
}

/// The facts an event is evaluated with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// The interface, then its parents, nearest first.
    pub chain: Vec<Node>,
    /// Interface index.
    pub ifindex: u32,
}

/// What a network device is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Kernel name: `eth0`.
    pub kernel_name: &'a str,
    /// Address, as sysfs spells it.
    pub address: &'a str,
    /// `addr_assign_type`; None when the kernel has no such file.
    pub addr_assign_type: Option<u8>,
    /// `dev_id`; None when the kernel has no such file.
    pub dev_id: Option<u16>,
    /// ARP type; 1 is Ethernet.
    pub kind: u16,
    /// Bus.
    pub bus: Bus,
    /// Driver of the adapter; empty for none.
    pub driver: &'a str,
    /// PCI function, or the PCI parent of a virtio device.
    pub pci: Option<PciFunction>,
    /// Interface index.
    pub ifindex: u32,
}

impl NetDevice {
    /// Lays the chain.
    #[must_use]
    pub fn new(facts: &Facts<'_>) -> Self {
        let mut attributes = BTreeMap::new();
        let mut put = |name: &str, value: String| {
            attributes.insert(name.to_owned(), value);
        };
        put("address", facts.address.to_owned());
        put("type", facts.kind.to_string());
        put("ifindex", facts.ifindex.to_string());
        if let Some(value) = facts.addr_assign_type {
            put("addr_assign_type", value.to_string());
        }
        if let Some(value) = facts.dev_id {
            put("dev_id", format!("{value:#x}"));
        }
        let interface = Node {
            name: facts.kernel_name.to_owned(),
            subsystem: "net".to_owned(),
            driver: String::new(),
            attributes,
        };
        let mut chain = vec![interface];
        let node = |name: &str, subsystem: &str, driver: &str| Node {
            name: name.to_owned(),
            subsystem: subsystem.to_owned(),
            driver: driver.to_owned(),
            attributes: BTreeMap::new(),
        };
        match facts.bus {
            Bus::Pci => {}
            Bus::Virtio => chain.push(node("virtio0", "virtio", facts.driver)),
            Bus::Xen => chain.push(node("vif-0", "xen", facts.driver)),
            Bus::Vmbus => chain.push(node("vmbus_0_1", "vmbus", facts.driver)),
            Bus::Virtual => {}
        }
        if let (Some(pci), Bus::Pci | Bus::Virtio) = (facts.pci, facts.bus) {
            let driver = if facts.bus == Bus::Virtio {
                "virtio-pci"
            } else {
                facts.driver
            };
            let mut parent = node(&pci.slot.to_string(), "pci", driver);
            parent
                .attributes
                .insert("vendor".to_owned(), format!("{:#06x}", pci.vendor));
            parent
                .attributes
                .insert("device".to_owned(), format!("{:#06x}", pci.device));
            chain.push(parent);
        }
        Self {
            chain,
            ifindex: facts.ifindex,
        }
    }

    /// The interface itself.
    #[must_use]
    pub fn interface(&self) -> Option<&Node> {
        self.chain.first()
    }

    /// Kernel name.
    #[must_use]
    pub fn kernel_name(&self) -> &str {
        self.interface().map_or("", |node| node.name.as_str())
    }

    /// Address.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.interface()?
            .attributes
            .get("address")
            .map(String::as_str)
    }

    /// Position in sysfs.
    #[must_use]
    pub fn devpath(&self) -> String {
        let mut path = String::from("/devices");
        for node in self.chain.iter().skip(1).rev() {
            path.push('/');
            path.push_str(&node.name);
        }
        if self.chain.len() < 2 {
            path.push_str("/virtual");
        }
        path.push_str("/net/");
        path.push_str(self.kernel_name());
        path
    }
}

impl Node {
    /// An attribute file, or the last part of the link `driver` or `subsystem`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let link = match name {
            "driver" => Some(self.driver.as_str()),
            "subsystem" => Some(self.subsystem.as_str()),
            _ => None,
        };
        self.attributes
            .get(name)
            .map(String::as_str)
            .or(link.filter(|text| !text.is_empty()))
    }
}
