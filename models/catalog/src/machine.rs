//! Virtual hardware as a guest meets it.

use crate::{Mac, ProductId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A virtual machine's hardware, without the bytes of its disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The product that presents this hardware.
    pub product: ProductId,
    /// Name in the product's inventory.
    pub name: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// What runs first.
    pub firmware: Firmware,
    /// Whether the Xen platform device is there: each emulated disk and adapter then has a twin on Xen's own bus, and
    /// a kernel with the front ends unplugs the emulated ones.
    pub xen_platform: bool,
    /// Chipset, in the product's words: `440BX`, `i440FX`.
    pub chipset: String,
    /// What firmware says of maker and product.
    pub smbios: Smbios,
    /// Processors as presented.
    pub cpu: Cpu,
    /// Memory as configured and as the guest's firmware leaves it.
    pub memory: Memory,
    /// Disk controllers, in the order the firmware enumerates them.
    pub controllers: Vec<Controller>,
    /// Disks, in boot order.
    pub disks: Vec<Disk>,
    /// CD-ROM drives.
    pub cdroms: Vec<Cdrom>,
    /// Network adapters, in slot order.
    pub nics: Vec<Nic>,
    /// What the emulated real-time clock counts.
    pub clock: Clock,
}

/// What a machine runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS: boots the first disk's master boot record.
    Bios,
    /// UEFI: boots a loader from an EFI system partition.
    Efi,
    /// None: pygrub, in the host's control domain, reads the guest's own boot menu and starts its kernel on
    /// paravirtual hardware.
    Pygrub,
}

/// SMBIOS type 1 strings (and the BIOS version of type 0).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smbios {
    /// Maker, as `dmidecode -s system-manufacturer` shows it.
    pub manufacturer: String,
    /// Product.
    pub product: String,
    /// Version.
    pub version: String,
}

/// Processors as presented to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Brand string (CPUID 0x80000002..4), the `model name` of /proc/cpuinfo.
    pub brand: String,
    /// Vendor string (CPUID 0): `GenuineIntel`.
    pub vendor: String,
    /// Clock the guest measures, in kHz.
    pub khz: u64,
    /// Number of virtual processors.
    pub vcpus: u32,
    /// Feature flags beyond x86-64 baseline, in /proc/cpuinfo spelling, sorted.
    pub features: Vec<String>,
    /// CPUID leaf 0x40000000: `VMwareVMware`, `KVMKVMKVM`.
    pub hypervisor: String,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Configured size in MiB.
    pub mib: u64,
    /// What firmware and the hypervisor take away from what the guest reports, in KiB.
    pub reserved_kib: u64,
}

/// A disk controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Device model, a key of [`crate::device`]: `lsilogic`, `piix3-ide`, `virtio-blk`.
    pub model: String,
    /// Where it sits; `None` for a device that is not on PCI.
    pub slot: Option<PciAddress>,
}

/// A disk drive (the bytes are elsewhere).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Index into [`Machine::controllers`].
    pub controller: u32,
    /// Position on that controller: SCSI target; IDE 0..=3 is primary master … secondary slave.
    pub unit: u32,
    /// Size the guest sees, in bytes.
    pub bytes: u64,
}

/// A CD-ROM drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdrom {
    /// Index into [`Machine::controllers`].
    pub controller: u32,
    /// Position on that controller.
    pub unit: u32,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Device model, a key of [`crate::device`]: `e1000-82545em`, `virtio-net`.
    pub model: String,
    /// Its address.
    pub mac: Mac,
    /// Where it sits; `None` for a device that is not on PCI.
    pub slot: Option<PciAddress>,
    /// Network of the product it is connected to: `VM Network`, `default`, `br0`.
    pub network: String,
}

/// A PCI address of domain 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PciAddress {
    /// Bus.
    pub bus: u8,
    /// Device, 0..=31.
    pub device: u8,
    /// Function, 0..=7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "0000:{:02x}:{:02x}.{:x}",
            self.bus, self.device, self.function
        )
    }
}

/// What the emulated real-time clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Coordinated universal time.
    Utc,
    /// The host's local time.
    Localtime,
}

/// Where a device sits, for people: its PCI address, or that it has none.
#[must_use]
pub fn place(slot: Option<PciAddress>) -> String {
    slot.map_or_else(|| "no PCI address".to_owned(), |slot| slot.to_string())
}

impl Machine {
    /// The controller a disk hangs on.
    #[must_use]
    pub fn controller_of(&self, disk: &Disk) -> Option<&Controller> {
        usize::try_from(disk.controller)
            .ok()
            .and_then(|index| self.controllers.get(index))
    }
}
