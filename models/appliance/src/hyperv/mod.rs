//! Machines of Hyper-V on Windows Server 2008 R2: the configuration file and the folder that Export makes.
//!
//! Source: the documentation of the WMI provider `root\virtualization` (names of classes, properties, resource types and
//! subtypes, boot codes) for the `.exp` file; DSP0203 for its XML. For the configuration file no document exists: element
//! names are those of files of later versions (2012 R2), found in public repositories; that 2008 R2 has the same names,
//! the number of its version, how `config.xml` names the disks and what an import leaves behind are belief.
//!
//! ```text
//! <machine>/config.xml                           which disk came from where
//! <machine>/Virtual Machines/<GUID>.exp          CIM XML: instances of the setting classes      [`exp`]
//! <machine>/Virtual Machines/<GUID>.xml          after the import: the configuration itself     [`settings`]
//! <machine>/Virtual Hard Disks/*.vhd
//! ```
//!
//! The importer reads only what its own Export wrote, and each folder once, because the machine then runs in place
//! (quirk HQ77): [`Folder`] tells which of the two a folder is.

pub mod exp;
mod folder;
pub mod settings;

pub use folder::{Folder, State, export, import_marks};

/// The parts of a machine that decide what a guest finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// GUID, upper case, without braces.
    pub id: String,
    /// Name.
    pub name: String,
    /// Notes of the administrator.
    pub notes: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors, 1 to 4.
    pub processors: u32,
    /// Boot order.
    pub boot: Vec<Boot>,
    /// GUIDs of the SCSI controllers, in order; each needs integration components in the guest.
    pub scsi: Vec<String>,
    /// Drives, IDE before SCSI.
    pub drives: Vec<Drive>,
    /// Network adapters, in order.
    pub nics: Vec<Nic>,
    /// Integration services that are switched off.
    pub disabled: Vec<Service>,
}

/// A class of devices in the boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boot {
    /// Floppy disk.
    Floppy,
    /// CD drive.
    Cd,
    /// First IDE disk; disks on SCSI are not bootable (quirk HQ71).
    Ide,
    /// Network: the legacy adapter only.
    Network,
}

/// WMI code and word of the configuration file.
pub(crate) const BOOT: [(Boot, u16, &str); 4] = [
    (Boot::Floppy, 0, "Floppy"),
    (Boot::Cd, 1, "Optical"),
    (Boot::Ide, 2, "HardDrive"),
    (Boot::Network, 3, "Network"),
];

/// Where a drive hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// The emulated IDE controllers 0 and 1, locations 0 and 1.
    Ide,
    /// A synthetic SCSI controller by its place in [`Machine::scsi`], locations 0 to 63.
    Scsi,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Kind of controller.
    pub bus: Bus,
    /// Controller.
    pub controller: u32,
    /// Location on it.
    pub location: u32,
    /// A CD drive, not a disk.
    pub is_cd: bool,
    /// Path of the medium on the host; empty in an empty CD drive.
    pub path: String,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// GUID of the instance.
    pub instance: String,
    /// The emulated DEC 21140, which every guest has a driver for (quirk HQ73); otherwise the synthetic one.
    pub is_legacy: bool,
    /// Name of the adapter.
    pub name: String,
    /// Hardware address: of a dynamic one the last that was drawn, none before the first start.
    pub mac: Option<[u8; 6]>,
    /// Typed by the administrator; a dynamic address is drawn anew at power-on outside its host's pool (quirk HQ75).
    pub is_static: bool,
    /// Name of the virtual network; empty when not connected.
    pub network: String,
}

/// An integration service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Clean shutdown from outside.
    Shutdown,
    /// Clock of the host.
    TimeSync,
    /// Key-value pairs.
    DataExchange,
    /// Heartbeat.
    Heartbeat,
    /// Backup (volume snapshot).
    Backup,
}

/// Device GUID, WMI class and name of each service.
pub(crate) const SERVICES: [(Service, &str, &str, &str); 5] = [
    (
        Service::Shutdown,
        "9f8233ac-be49-4c79-8ee3-e7e1985b2077",
        "Msvm_ShutdownComponentSettingData",
        "Microsoft Shutdown Component",
    ),
    (
        Service::TimeSync,
        "2497f4de-e9fa-4204-80e4-4b75c46419c0",
        "Msvm_TimeSyncComponentSettingData",
        "Microsoft Time Synchronization Component",
    ),
    (
        Service::DataExchange,
        "2a34b1c2-fd73-4043-8a5b-dd2159bc743f",
        "Msvm_KvpExchangeComponentSettingData",
        "Microsoft Key-Value Pair Exchange Component",
    ),
    (
        Service::Heartbeat,
        "84eaae65-2f2e-45f5-9bb5-0e857dc8eb47",
        "Msvm_HeartbeatComponentSettingData",
        "Microsoft Heartbeat Component",
    ),
    (
        Service::Backup,
        "5ced1297-4598-4915-a5fc-ad21bb4d02a4",
        "Msvm_VssComponentSettingData",
        "Microsoft VSS Component",
    ),
];

/// Device GUID of the emulated IDE controller.
pub(crate) const IDE: &str = "83f8638b-8dca-4152-9eda-2ca8b33039b4";

impl Machine {
    /// Drives in their one order, names of devices in upper case: what reading back gives.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.drives
            .sort_by_key(|drive| (drive.bus, drive.controller, drive.location));
        self.id.make_ascii_uppercase();
        self.scsi
            .iter_mut()
            .for_each(|id| id.make_ascii_uppercase());
        self.nics
            .iter_mut()
            .for_each(|nic| nic.instance.make_ascii_uppercase());
        self.disabled.sort_unstable();
        self.disabled.dedup();
        self
    }
}

/// Whether a text is 8-4-4-4-12 hexadecimal digits.
pub(crate) fn is_guid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12]
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Twelve digits with or without hyphens; none when they are all zero or no address.
pub(crate) fn mac_of(text: &str) -> Option<[u8; 6]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut mac = [0u8; 6];
    if digits.len() != 12 {
        return None;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(&mut mac) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (mac != [0; 6]).then_some(mac)
}

/// Upper-case pairs of digits with something between.
pub(crate) fn mac_text(mac: Option<[u8; 6]>, between: &str) -> String {
    let pairs = mac.unwrap_or_default().map(|byte| format!("{byte:02X}"));
    pairs.join(between)
}
