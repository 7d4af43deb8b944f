//! Open Virtualization Format: the envelope.
//!
//! Source: DSP0243 1.0.0 (2009) and 1.1.0 (2010), schema DSP8023; for 0.9 the VMware and XenSource draft.
//!
//! ```text
//! Envelope                     namespace http://schemas.dmtf.org/ovf/envelope/1
//!   References/File*           ovf:id, ovf:href, ovf:size, ovf:compression, ovf:chunkSize
//!   DiskSection/Disk*          ovf:diskId, ovf:fileRef, ovf:capacity, ovf:capacityAllocationUnits, ovf:format
//!   NetworkSection/Network*    ovf:name
//!   VirtualSystem | VirtualSystemCollection
//!     Name, OperatingSystemSection, VirtualHardwareSection/(System, Item*), AnnotationSection, …
//! ```
//!
//! The model is neutral: it keeps what the file says, with the line that says it, in document order, and decides
//! nothing that importers decide differently (first of several types, missing controllers, unknown required sections).
//! Elements are known by namespace and local name, never by prefix. What a file does against the specification is a
//! finding; only text that is no envelope at all is an error.

mod check;
mod export;
mod print;
mod read;
mod section;
mod xen;

use crate::units::{self, Absent, Amount};
pub use crate::xml::{Charset, Encoding};
use drylab_block::{Finding, Result};
pub use export::{Attach, CdRom, Description, Disk, Nic, ScsiController, write};
pub use print::print;
pub use read::parse;
use std::sync::Arc;
pub use xen::{Producer, XenDescription, XenDisk, XenNic, write_xen};

/// Namespace of OVF 1.x.
pub const NAMESPACE_1: &str = "http://schemas.dmtf.org/ovf/envelope/1";
/// Namespace of OVF 2.x, which is refused.
pub const NAMESPACE_2: &str = "http://schemas.dmtf.org/ovf/envelope/2";
/// Namespace of VMware's draft 0.9.
pub const NAMESPACE_09: &str = "http://www.vmware.com/schema/ovf/1/envelope";
/// Namespace of VMware's extensions.
pub const NAMESPACE_VMW: &str = "http://www.vmware.com/schema/ovf";
/// Namespace of Citrix' extensions.
pub const NAMESPACE_XEN: &str = "http://schemas.citrix.com/ovf/envelope/1";
/// `ovf:format` of a VHD, as XenCenter writes it (quirk HQ07).
pub const FORMAT_VHD: &str =
    "http://www.microsoft.com/technet/virtualserver/downloads/vhdspec.mspx";
/// `ovf:format` of a stream-optimized VMDK.
pub const FORMAT_STREAM_OPTIMIZED: &str =
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// CIM resource types that occur (CIM_ResourceAllocationSettingData.ResourceType).
pub mod resource {
    /// Other; VMware uses it for sound and VMCI.
    pub const OTHER: u16 = 1;
    /// Processor.
    pub const CPU: u16 = 3;
    /// Memory.
    pub const MEMORY: u16 = 4;
    /// IDE controller.
    pub const IDE: u16 = 5;
    /// Parallel SCSI controller.
    pub const SCSI: u16 = 6;
    /// Ethernet adapter.
    pub const ETHERNET: u16 = 10;
    /// Floppy drive.
    pub const FLOPPY: u16 = 14;
    /// CD drive.
    pub const CD: u16 = 15;
    /// DVD drive.
    pub const DVD: u16 = 16;
    /// Disk drive.
    pub const DISK: u16 = 17;
    /// Storage extent: what XenCenter writes for a disk (quirk HQ02).
    pub const STORAGE_EXTENT: u16 = 19;
    /// Other storage device: SATA controllers.
    pub const OTHER_STORAGE: u16 = 20;
    /// USB controller.
    pub const USB: u16 = 23;
    /// Graphics controller.
    pub const GRAPHICS: u16 = 24;
}

/// Which grammar an envelope is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// VMware's draft 0.9: `Section xsi:type`, `Content`, `InstanceId`.
    V09,
    /// 1.0 and 1.1, which share their namespace.
    V1,
}

/// A whole descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Grammar, by namespace.
    pub dialect: Dialect,
    /// Namespace of the root as written.
    pub namespace: String,
    /// `ovf:version` of the root, when it has one (vSphere writes none).
    pub version: Option<String>,
    /// `vmw:buildId` of the root.
    pub build: Option<String>,
    /// First comment before the root: VMware's products name themselves there.
    pub generator: Option<String>,
    /// Label and truth of the text's encoding.
    pub encoding: Encoding,
    /// Files of `References`, in order.
    pub references: Vec<FileRef>,
    /// Disks of all disk sections.
    pub disks: Vec<DiskDecl>,
    /// Networks of all network sections.
    pub networks: Vec<Network>,
    /// Virtual systems in document order, those of collections too.
    pub systems: Vec<VirtualSystem>,
    /// Whether a `VirtualSystemCollection` is there.
    pub is_collection: bool,
    /// Sections of the envelope and of collections that the model does not hold.
    pub sections: Vec<Section>,
    /// What the file does against the specification, or what had to be assumed.
    pub findings: Vec<Finding>,
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// `ovf:id`; empty when missing (a finding says so).
    pub id: String,
    /// `ovf:href` as written: pass it through [`crate::safe_href`] before use.
    pub href: String,
    /// `ovf:size` in bytes, of the file as stored.
    pub size: Option<u64>,
    /// `ovf:compression`, `gzip` or `identity`.
    pub compression: Option<String>,
    /// `ovf:chunkSize` in bytes: the file is split into `href.000000000` and so on.
    pub chunk_size: Option<u64>,
    /// Line of the element.
    pub line: u32,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDecl {
    /// `ovf:diskId`; empty when missing.
    pub disk_id: String,
    /// `ovf:fileRef`; absent for an empty disk.
    pub file_ref: Option<String>,
    /// Capacity in bytes, when text and unit can be read as one.
    pub capacity: Option<u64>,
    /// `ovf:capacity` as written; may be `${property}`.
    pub capacity_text: Option<String>,
    /// `ovf:capacityAllocationUnits` as written.
    pub units: Option<String>,
    /// `ovf:format` URI.
    pub format_uri: Option<String>,
    /// `ovf:populatedSize` in bytes.
    pub populated_size: Option<u64>,
    /// `ovf:parentRef`, when not empty.
    pub parent_ref: Option<String>,
    /// `xenovf:isBootable`.
    pub bootable: Option<bool>,
    /// Line of the element.
    pub line: u32,
}

/// A logical network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// `ovf:name`; empty when missing.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Line of the element.
    pub line: u32,
}

/// Code of the finding that a `Section` or `Content` does not say of which type it is. It is read as an unknown one.
pub const UNTYPED_SECTION: &str = "OVF-SECTION-TYPE";

/// A section, or another element where sections stand, that the model does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Local name, or the type of a `Section xsi:type`.
    pub name: String,
    /// Namespace of the element.
    pub namespace: String,
    /// `ovf:required`, true when absent: an importer that does not know the section must refuse.
    pub required: bool,
    /// Whether DSP0243 1.1 defines the section.
    pub standard: bool,
    /// Line of the element.
    pub line: u32,
}

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualSystem {
    /// `ovf:id`; empty when missing.
    pub id: String,
    /// `Name`.
    pub name: Option<String>,
    /// The guest operating system.
    pub os: Option<OperatingSystem>,
    /// Virtual hardware sections in order; more than one are alternatives.
    pub hardware: Vec<Hardware>,
    /// Text of the annotation section.
    pub annotation: Option<String>,
    /// Sections the model does not hold.
    pub sections: Vec<Section>,
    /// Ids of the collections around it, outermost first.
    pub collections: Vec<Arc<str>>,
    /// Line of the element.
    pub line: u32,
}

impl VirtualSystem {
    /// Items of the first hardware section; empty without one.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        self.hardware
            .first()
            .map_or(&[], |hardware| &hardware.items)
    }

    /// Families of the first hardware section.
    #[must_use]
    pub fn system_types(&self) -> Vec<&str> {
        self.hardware
            .first()
            .map_or_else(Vec::new, Hardware::system_types)
    }

    /// The item with this InstanceID in the first hardware section.
    #[must_use]
    pub fn item(&self, instance_id: &str) -> Option<&Item> {
        self.items()
            .iter()
            .find(|item| item.instance_id == instance_id)
    }
}

/// `OperatingSystemSection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatingSystem {
    /// `ovf:id`, a CIM value whose meaning above 111 depends on the writer (quirk HQ112).
    pub id: Option<u16>,
    /// `ovf:version`.
    pub version: Option<String>,
    /// `vmw:osType`, such as `centos64Guest`.
    pub vmw_os_type: Option<String>,
    /// `Description`.
    pub description: Option<String>,
    /// Line of the element.
    pub line: u32,
}

/// `VirtualHardwareSection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// `vssd:VirtualSystemType` as written: `vmx-08`, or a list.
    pub system_type: Option<String>,
    /// `vssd:VirtualSystemIdentifier`.
    pub identifier: Option<String>,
    /// `vssd:ElementName`.
    pub family_name: Option<String>,
    /// `ovf:transport`.
    pub transport: Option<String>,
    /// Items in document order.
    pub items: Vec<Item>,
    /// `vmw:Config` of the section.
    pub configs: Vec<Config>,
    /// `vmw:ExtraConfig` of the section.
    pub extra_config: Vec<Config>,
    /// `xenovf:VirtualSystemOtherConfigurationData`: what only XenCenter reads back (quirk HQ09).
    pub other_configuration: Vec<OtherConfiguration>,
    /// Number of other elements, those of Citrix too: importers of other products know neither.
    pub unknown: u32,
    /// Line of the element.
    pub line: u32,
}

impl Hardware {
    /// The families, split at blanks and commas.
    #[must_use]
    pub fn system_types(&self) -> Vec<&str> {
        split_list(self.system_type.as_deref())
    }

    /// The value of Citrix' configuration data of that name.
    #[must_use]
    pub fn other(&self, name: &str) -> Option<&str> {
        let found = self
            .other_configuration
            .iter()
            .find(|other| other.name == name);
        found.map(|other| other.value.as_str())
    }
}

/// One `Item`: CIM_ResourceAllocationSettingData.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `ResourceType`; 0 when missing or no number (a finding says so; CIM leaves 0 unassigned).
    pub resource_type: u16,
    /// `ResourceSubType` as written; see [`Item::sub_types`].
    pub sub_type: Option<String>,
    /// `InstanceID` (or `InstanceId`); a string, unique in its section; empty when missing.
    pub instance_id: String,
    /// `Parent`: the InstanceID of the controller.
    pub parent: Option<String>,
    /// `Address`: bus number of a controller, MAC of an adapter (quirk HQ36: VMware writes none).
    pub address: Option<String>,
    /// `AddressOnParent`.
    pub address_on_parent: Option<String>,
    /// `HostResource`, in order; see [`HostResource`].
    pub host_resource: Vec<String>,
    /// `Connection`, in order: names of networks.
    pub connection: Vec<String>,
    /// `ElementName`.
    pub element_name: Option<String>,
    /// `Caption`, which 0.9 has in the place of `ElementName`.
    pub caption: Option<String>,
    /// `Description`.
    pub description: Option<String>,
    /// `VirtualQuantity`, when a number.
    pub virtual_quantity: Option<u64>,
    /// `AllocationUnits` as written; present and empty is not absent.
    pub allocation_units: Option<String>,
    /// `AutomaticAllocation`.
    pub automatic_allocation: Option<bool>,
    /// `Reservation`.
    pub reservation: Option<u64>,
    /// `Limit`.
    pub limit: Option<u64>,
    /// `Weight`.
    pub weight: Option<u64>,
    /// `vmw:CoresPerSocket`.
    pub cores_per_socket: Option<u32>,
    /// `ovf:required`, true when absent.
    pub required: bool,
    /// `ovf:configuration` as written: the item belongs to these deployment options only.
    pub configuration: Option<String>,
    /// `ovf:bound`: `min`, `max` or `normal`; the item is a bound for another, not a device.
    pub bound: Option<String>,
    /// `vmw:Config` of the item.
    pub configs: Vec<Config>,
    /// Number of other elements.
    pub unknown: u32,
    /// Line of the element.
    pub line: u32,
}

impl Item {
    /// An item of a type with an id and nothing else.
    #[must_use]
    pub fn new(resource_type: u16, instance_id: impl Into<String>) -> Self {
        Self {
            resource_type,
            sub_type: None,
            instance_id: instance_id.into(),
            parent: None,
            address: None,
            address_on_parent: None,
            host_resource: Vec::new(),
            connection: Vec::new(),
            element_name: None,
            caption: None,
            description: None,
            virtual_quantity: None,
            allocation_units: None,
            automatic_allocation: None,
            reservation: None,
            limit: None,
            weight: None,
            cores_per_socket: None,
            required: true,
            configuration: None,
            bound: None,
            configs: Vec::new(),
            unknown: 0,
            line: 0,
        }
    }

    /// The subtypes, split at blanks and commas; compare them without regard to letter case.
    #[must_use]
    pub fn sub_types(&self) -> Vec<&str> {
        split_list(self.sub_type.as_deref())
    }

    /// The quantity as bytes of memory (a missing unit means MiB, and the answer says so).
    ///
    /// # Errors
    /// [`drylab_block::Error::Corrupt`] when there is no quantity, or the unit is not one of bytes.
    pub fn memory_bytes(&self) -> Result<Amount> {
        let line = self.line;
        let value = self.virtual_quantity;
        let value = value.ok_or_else(|| {
            drylab_block::Error::corrupt(format_args!("line {line}: memory without quantity"))
        })?;
        units::to_bytes(value, self.allocation_units.as_deref(), Absent::MebiByte)
            .map_err(|wrong| wrong.within(format_args!("line {line}")))
    }

    /// What the first `HostResource` names.
    #[must_use]
    pub fn backing(&self) -> Option<HostResource<'_>> {
        self.host_resource
            .first()
            .map(|text| HostResource::of(text))
    }
}

/// What a `HostResource` names. Spellings in the wild: `ovf:/disk/x`, `/disk/x`, `ovf://disk/x`, `disk/x`, bare `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostResource<'a> {
    /// The disk with this `diskId`.
    Disk(&'a str),
    /// The file with this `ovf:id`.
    File(&'a str),
    /// Anything else, as written.
    Other(&'a str),
}

impl<'a> HostResource<'a> {
    /// Reads a `HostResource`.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let path = text
            .strip_prefix("ovf:")
            .unwrap_or(text)
            .trim_start_matches('/');
        match path.split_once('/') {
            Some(("disk", id)) => Self::Disk(id),
            Some(("file", id)) => Self::File(id),
            _ => Self::Other(text),
        }
    }
}

/// `vmw:Config` or `vmw:ExtraConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `vmw:key`.
    pub key: String,
    /// `vmw:value`.
    pub value: String,
    /// `ovf:required`, true when absent.
    pub required: bool,
    /// Line of the element.
    pub line: u32,
}

/// `xenovf:VirtualSystemOtherConfigurationData`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherConfiguration {
    /// `Name`: `platform`, `PV_bootloader`, `HVM_boot_params` and so on.
    pub name: String,
    /// `Value`; maps as `key=value;` in a row.
    pub value: String,
    /// Line of the element.
    pub line: u32,
}

/// Splits a list the way importers do: at blanks and commas.
fn split_list(text: Option<&str>) -> Vec<&str> {
    let split = text
        .unwrap_or("")
        .split(|c: char| c.is_whitespace() || c == ',');
    split.filter(|part| !part.is_empty()).collect()
}

impl Envelope {
    /// The disk with this `diskId`.
    #[must_use]
    pub fn disk(&self, id: &str) -> Option<&DiskDecl> {
        self.disks.iter().find(|disk| disk.disk_id == id)
    }

    /// The file with this `ovf:id`.
    #[must_use]
    pub fn file(&self, id: &str) -> Option<&FileRef> {
        self.references.iter().find(|file| file.id == id)
    }

    /// What [`print()`] keeps: the content as 1.x, without lines, findings, unknown elements and the encoding.
    ///
    /// For every envelope `e` that can be printed, `parse(print(e)).bare() == e.bare()`.
    #[must_use]
    pub fn bare(&self) -> Self {
        let mut bare = self.clone();
        bare.dialect = Dialect::V1;
        NAMESPACE_1.clone_into(&mut bare.namespace);
        bare.version = None;
        bare.encoding = Encoding::utf8();
        bare.findings.clear();
        bare.sections.clear();
        for file in &mut bare.references {
            file.line = 0;
        }
        for disk in &mut bare.disks {
            disk.line = 0;
        }
        for network in &mut bare.networks {
            network.line = 0;
        }
        for system in &mut bare.systems {
            system.make_bare();
        }
        bare
    }
}

impl VirtualSystem {
    fn make_bare(&mut self) {
        self.line = 0;
        self.sections.clear();
        if let Some(os) = &mut self.os {
            os.line = 0;
        }
        for hardware in &mut self.hardware {
            hardware.line = 0;
            hardware.unknown = 0;
            for other in &mut hardware.other_configuration {
                other.line = 0;
            }
            for config in hardware
                .configs
                .iter_mut()
                .chain(&mut hardware.extra_config)
            {
                config.line = 0;
            }
            for item in &mut hardware.items {
                item.line = 0;
                item.unknown = 0;
                item.configs.iter_mut().for_each(|config| config.line = 0);
            }
        }
    }
}
