//! What XenCenter 6.0 and XenConvert 2.3 write: one library, two habits.
//!
//! Source: a sample of XenCenter's own tests, and what the sources of the first public XenCenter do.
//!
//! * The prolog says `utf-16` over bytes of UTF-8 (quirk HQ01).
//! * Disks are items of type 19 that hang on nothing: no controllers, no `Parent` (quirks HQ02, HQ03).
//! * `InstanceID` is a GUID (quirk HQ08); the family is `xen-3.0-unknown` or `hvm-3.0-unknown` (quirk HQ06).
//! * A MAC stands in `rasd:Address`; how the machine boots only in Citrix' own elements (quirk HQ09).
//!
//! XenConvert's machines come from Windows disks: family `301`, disks of type 21 below IDE controllers, in the manner of
//! Virtual PC (belief, after the sources of its library).

use super::print::{CIM, RASD, VSSD, XSI, boolean};
use super::{FORMAT_VHD, NAMESPACE_1, NAMESPACE_XEN, resource};
use crate::xml::Printer;
use drylab_block::Result;
use sha1::{Digest, Sha1};

/// Resource type of a virtual disk image in Microsoft's manner.
const LOGICAL_DISK: u16 = 21;

/// Which program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Producer {
    /// XenCenter's export.
    XenCenter,
    /// XenConvert's conversion of a Windows machine or of its disks.
    XenConvert,
}

/// A machine as Citrix' library sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XenDescription {
    /// Which program writes.
    pub producer: Producer,
    /// Name of the machine.
    pub name: String,
    /// Whether it boots by firmware.
    pub is_hvm: bool,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Memory in MiB: XenServer's `memory_dynamic_max` (quirk HQ11).
    pub memory_mib: u64,
    /// CIM id of the guest operating system; 0 without guest tools (quirk HQ10).
    pub os_id: u16,
    /// Disks in order.
    pub disks: Vec<XenDisk>,
    /// Device numbers of CD drives.
    pub cd_roms: Vec<u32>,
    /// Network adapters in order.
    pub nics: Vec<XenNic>,
    /// Citrix' configuration data: `platform`, `HVM_boot_params`, `PV_bootloader` and so on, with their values.
    pub other: Vec<(String, String)>,
}

/// A disk with its file in the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XenDisk {
    /// File, a VHD.
    pub file: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Virtual size in bytes.
    pub capacity: u64,
    /// Whether it is the one to boot from.
    pub bootable: bool,
    /// Device number, from 0.
    pub device: u32,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XenNic {
    /// Hardware address as it is to be written; none when unknown.
    pub mac: Option<String>,
    /// Name of the network.
    pub network: String,
    /// Device number, from 0.
    pub device: u32,
}

/// Writes the descriptor of such a machine, the same bytes for the same description: GUIDs are made of the names.
///
/// # Errors
/// [`drylab_block::Error::Unsupported`] when a text has a character that XML cannot spell.
pub fn write_xen(description: &XenDescription) -> Result<Vec<u8>> {
    let mut writer = Writer {
        of: description,
        printer: Printer::dense(),
    };
    writer.envelope();
    writer.printer.finish()
}

struct Writer<'a> {
    of: &'a XenDescription,
    printer: Printer,
}

/// Properties of an item in the order of the alphabet, which is that of the schema.
type Fields<'a> = Vec<(&'a str, &'a str)>;

impl Writer<'_> {
    /// A GUID that depends on the machine's name and on what it is for.
    fn guid(&self, what: &str, number: u32) -> String {
        let mut digest = Sha1::new();
        for part in [self.of.name.as_str(), "\0", what, &number.to_string()] {
            digest.update(part.as_bytes());
        }
        let digits: String = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let part = |range| digits.get(range).unwrap_or("");
        [
            part(0..8),
            part(8..12),
            part(12..16),
            part(16..20),
            part(20..32),
        ]
        .join("-")
    }

    fn envelope(&mut self) {
        let id = self.guid("envelope", 0);
        self.printer.declaration_of("utf-16", None);
        self.printer.open(
            "ovf:Envelope",
            &[
                ("xmlns:xenovf", NAMESPACE_XEN),
                ("xmlns:rasd", RASD),
                ("xmlns:xsi", XSI),
                ("xmlns:cim", CIM),
                ("xmlns:vssd", VSSD),
                ("xml:lang", "en-US"),
                ("xenovf:Name", &self.of.name),
                ("xenovf:id", &id),
                ("xenovf:version", "1.0.0"),
                ("xmlns:ovf", NAMESPACE_1),
            ],
        );
        self.files();
        self.networks();
        let system = self.guid("system", 0);
        if self.of.producer == Producer::XenCenter {
            self.printer.open("ovf:StartupSection", &[]);
            self.printer.leaf("ovf:Info", &[], "Startup Options");
            self.printer
                .empty("ovf:Item", &[("ovf:id", &system), ("ovf:order", "0")]);
            self.printer.close("ovf:StartupSection");
        }
        self.printer
            .open("ovf:VirtualSystem", &[("ovf:id", &system)]);
        self.printer.leaf("ovf:Info", &[], "XenOVF Generated");
        self.printer.leaf("ovf:Name", &[], &self.of.name);
        let os = self.of.os_id.to_string();
        self.printer
            .open("ovf:OperatingSystemSection", &[("ovf:id", &os)]);
        self.printer.leaf("ovf:Info", &[], "Guest Operating System");
        self.printer
            .leaf("ovf:Description", &[], "XenOVF Created Export");
        self.printer.close("ovf:OperatingSystemSection");
        self.hardware();
        self.printer.close("ovf:VirtualSystem");
        self.printer.close("ovf:Envelope");
    }

    fn disk_id(&self, disk: &XenDisk) -> String {
        self.guid("disk", disk.device)
    }

    fn files(&mut self) {
        let of = self.of;
        self.printer.open("ovf:References", &[]);
        for disk in &of.disks {
            let (id, size) = (self.disk_id(disk), disk.file_bytes.to_string());
            self.printer.empty(
                "ovf:File",
                &[
                    ("ovf:id", &id),
                    ("ovf:href", &disk.file),
                    ("ovf:size", &size),
                ],
            );
        }
        self.printer.close("ovf:References");
        if of.disks.is_empty() {
            return;
        }
        self.printer.open("ovf:DiskSection", &[]);
        self.printer.leaf("ovf:Info", &[], "Available Disks");
        for disk in &of.disks {
            let (id, capacity) = (self.disk_id(disk), disk.capacity.to_string());
            self.printer.empty(
                "ovf:Disk",
                &[
                    ("xenovf:isBootable", boolean(disk.bootable)),
                    ("ovf:diskId", &id),
                    ("ovf:fileRef", &id),
                    ("ovf:capacity", &capacity),
                    ("ovf:format", FORMAT_VHD),
                ],
            );
        }
        self.printer.close("ovf:DiskSection");
    }

    fn network_id(&self, nic: &XenNic) -> String {
        self.guid(&nic.network, 0)
    }

    fn networks(&mut self) {
        let of = self.of;
        let mut names: Vec<&XenNic> = Vec::new();
        for nic in &of.nics {
            if !names.iter().any(|known| known.network == nic.network) {
                names.push(nic);
            }
        }
        if names.is_empty() {
            return;
        }
        self.printer.open("ovf:NetworkSection", &[]);
        self.printer.leaf("ovf:Info", &[], "Networks");
        for nic in names {
            let id = self.network_id(nic);
            self.printer.open("ovf:Network", &[("ovf:name", &id)]);
            self.printer.leaf("ovf:Description", &[], &nic.network);
            self.printer.close("ovf:Network");
        }
        self.printer.close("ovf:NetworkSection");
    }

    fn hardware(&mut self) {
        let of = self.of;
        let id = self.guid("hardware", 0);
        self.printer
            .open("ovf:VirtualHardwareSection", &[("xenovf:Id", &id)]);
        let info = format!(
            "Virtual Hardware Requirements: {} MB RAM; {} CPU(s), {} Disk(s), {} Network(s)",
            of.memory_mib,
            of.cpus,
            of.disks.len(),
            of.nics.len()
        );
        self.printer.leaf("ovf:Info", &[], &info);
        let family = match (of.producer, of.is_hvm) {
            (Producer::XenConvert, _) => "301",
            (Producer::XenCenter, true) => "hvm-3.0-unknown",
            (Producer::XenCenter, false) => "xen-3.0-unknown",
        };
        let (instance, identifier) = (self.guid("instance", 0), self.guid("identifier", 0));
        self.printer.open("ovf:System", &[]);
        for (name, value) in [
            ("vssd:Caption", "Xen Virtual Machine"),
            ("vssd:Description", "XenOVF imported system."),
            ("vssd:ElementName", of.name.as_str()),
            ("vssd:InstanceID", &instance),
            ("vssd:VirtualSystemIdentifier", &identifier),
            ("vssd:VirtualSystemType", family),
        ] {
            self.printer.leaf(name, &[], value);
        }
        self.printer.close("ovf:System");
        self.drives();
        self.adapters();
        self.processor_and_memory();
        for (number, (name, value)) in (0u32..).zip(&of.other) {
            let (element, id) = (
                "xenovf:VirtualSystemOtherConfigurationData",
                self.guid("other", number),
            );
            self.printer.open(element, &[("id", &id), ("Name", name)]);
            self.printer
                .leaf("xenovf:Info", &[], "XenServer Specific Information");
            self.printer.leaf("xenovf:Value", &[], value);
            self.printer.close(element);
        }
        self.printer.close("ovf:VirtualHardwareSection");
    }

    fn item(&mut self, fields: Fields<'_>) {
        self.printer.open("ovf:Item", &[]);
        for (name, value) in fields {
            self.printer.leaf(&format!("rasd:{name}"), &[], value);
        }
        self.printer.close("ovf:Item");
    }

    fn drives(&mut self) {
        let of = self.of;
        let is_windows = of.producer == Producer::XenConvert;
        if is_windows {
            for number in 0..2u32 {
                let (id, address, kind) = (
                    self.guid("ide", number),
                    number.to_string(),
                    resource::IDE.to_string(),
                );
                let name = format!("IDE Controller {number}");
                self.item(vec![
                    ("Address", &address),
                    ("ElementName", &name),
                    ("InstanceID", &id),
                    ("ResourceType", &kind),
                ]);
            }
        }
        for disk in &of.disks {
            let (id, device) = (self.disk_id(disk), disk.device.to_string());
            let backing = format!("ovf:/disk/{id}");
            let connection = format!("{id},device={device}");
            let (kind, name) = if is_windows {
                (LOGICAL_DISK, "Hard Disk Image")
            } else {
                (resource::STORAGE_EXTENT, "Hard Disk Image")
            };
            let kind = kind.to_string();
            // Two on each controller.
            let (parent, place) = (
                self.guid("ide", disk.device / 2 % 2),
                (disk.device % 2).to_string(),
            );
            let mut fields: Fields<'_> = vec![
                ("AddressOnParent", if is_windows { &place } else { &device }),
                ("AllocationUnits", "Disk"),
                ("AutomaticAllocation", "true"),
                ("Caption", name),
                ("Connection", &connection),
                ("ConsumerVisibility", "3"),
                ("Description", name),
                ("ElementName", name),
                ("HostResource", &backing),
                ("InstanceID", &id),
                ("Limit", "1"),
                ("MappingBehavior", "0"),
            ];
            if is_windows {
                fields.push(("Parent", &parent));
            }
            fields.extend([
                ("ResourceSubType", "Virtual Hard Disk Image"),
                ("ResourceType", kind.as_str()),
                ("VirtualQuantity", "1"),
                ("Weight", "100"),
            ]);
            self.item(fields);
        }
        for device in &of.cd_roms {
            let (id, device) = (self.guid("cd", *device), device.to_string());
            let kind = resource::DVD.to_string();
            self.item(vec![
                ("AddressOnParent", &device),
                ("AutomaticAllocation", "true"),
                ("Caption", "CD/DVD Drive"),
                ("ElementName", "CD/DVD Drive"),
                ("InstanceID", &id),
                ("ResourceSubType", "CD/DVD Drive"),
                ("ResourceType", &kind),
            ]);
        }
    }

    fn adapters(&mut self) {
        let of = self.of;
        for nic in &of.nics {
            let (id, network, device) = (
                self.guid("nic", nic.device),
                self.network_id(nic),
                nic.device.to_string(),
            );
            let kind = resource::ETHERNET.to_string();
            let mut fields: Fields<'_> = Vec::new();
            fields.extend(nic.mac.as_deref().map(|mac| ("Address", mac)));
            fields.extend([
                ("AddressOnParent", device.as_str()),
                ("AutomaticAllocation", "true"),
                ("Caption", "Ethernet Port"),
                ("Connection", &network),
                ("ConsumerVisibility", "3"),
                ("Description", "Ethernet Adapter"),
                ("ElementName", "Ethernet Port"),
                ("InstanceID", &id),
                ("MappingBehavior", "0"),
                ("ResourceType", &kind),
                ("VirtualQuantity", "1"),
            ]);
            self.item(fields);
        }
    }

    fn processor_and_memory(&mut self) {
        let of = self.of;
        let (cpus, memory) = (of.cpus.to_string(), of.memory_mib.to_string());
        let (processor, machine) = (self.guid("cpu", 0), self.guid("memory", 0));
        let kinds = [resource::CPU.to_string(), resource::MEMORY.to_string()];
        let [cpu, mem] = &kinds;
        self.item(vec![
            ("AllocationUnits", "Processor Cores"),
            ("AutomaticAllocation", "true"),
            ("Caption", "Processor"),
            ("ConsumerVisibility", "0"),
            ("Description", "Processor"),
            ("ElementName", "Processor"),
            ("InstanceID", &processor),
            ("Limit", "100000"),
            ("MappingBehavior", "0"),
            ("ResourceType", cpu),
            ("VirtualQuantity", &cpus),
            ("Weight", "100"),
        ]);
        self.item(vec![
            ("AllocationUnits", "byte * 2^20"),
            ("AutomaticAllocation", "true"),
            ("Caption", "Memory"),
            ("ConsumerVisibility", "2"),
            ("Description", "Memory Setting Data"),
            ("ElementName", "Memory"),
            ("InstanceID", &machine),
            ("Limit", "128"),
            ("MappingBehavior", "0"),
            ("ResourceSubType", "Machine Memory"),
            ("ResourceType", mem),
            ("VirtualQuantity", &memory),
            ("Weight", "0"),
        ]);
    }
}
