//! What an inspection finds, each fact with the place it was read.

use super::config::KernelConfig;
use crate::Tree;
use crate::modalias::Builtins;
use crate::modules::ModuleFile;
use crate::net::windows::WindowsNet;
use drylab_block::Finding;
use drylab_catalog::Witness;
use drylab_filesystem::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// A fact with where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The fact.
    pub value: T,
    /// File and line, or registry key.
    pub witness: Witness,
}

impl<T> Sourced<T> {
    /// A fact and its place.
    pub fn new(value: T, witness: Witness) -> Self {
        Self { value, witness }
    }
}

/// A guest as its disks describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Operating system.
    pub os: Os,
    /// Host name, where one is configured.
    pub hostname: Option<Sourced<String>>,
    /// Disks, in the order given to [`super::inspect`].
    pub disks: Vec<DiskFact>,
    /// Volumes of all disks: partitions in table order, then logical volumes.
    pub layout: Vec<VolumeFact>,
    /// Index into [`layout`](Self::layout) of the root (Linux `/`, Windows `C:`).
    pub root: usize,
    /// What only one family has.
    pub system: System,
    /// Configuration files, for the network models to read and change.
    pub tree: Tree,
    /// What was noticed on the way and could be gone on from.
    pub findings: Vec<Finding>,
}

impl Guest {
    /// What only a Linux guest has.
    #[must_use]
    pub fn linux(&self) -> Option<&LinuxSystem> {
        match &self.system {
            System::Linux(system) => Some(system),
            System::Windows(_) => None,
        }
    }

    /// What only a Windows guest has.
    #[must_use]
    pub fn windows(&self) -> Option<&WindowsSystem> {
        match &self.system {
            System::Windows(system) => Some(system),
            System::Linux(_) => None,
        }
    }
}

/// Operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    /// Family.
    pub family: Family,
    /// Distribution in lower case (`centos`, `ubuntu`), or `windows`.
    pub name: Sourced<String>,
    /// Version as the system says it: `6.3`, `12.04`, `6.1.7601`.
    pub version: Sourced<String>,
    /// `x86_64` or `i686`; empty when nothing tells.
    pub arch: Sourced<String>,
    /// The line the system shows of itself: `CentOS release 6.3 (Final)`.
    pub pretty: Sourced<String>,
}

/// Operating system family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Linux with any distribution around it.
    Linux,
    /// Windows NT.
    Windows,
}

/// What only one family has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux.
    Linux(Box<LinuxSystem>),
    /// Windows.
    Windows(Box<WindowsSystem>),
}

/// What the first sectors of a disk say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFact {
    /// Size in bytes.
    pub bytes: u64,
    /// Whether sector 0 ends in 55 AA.
    pub boot_signature: bool,
    /// What the 440 bytes of boot code are.
    pub boot_code: BootCode,
    /// Whether sector 1 holds anything: where GRUB puts its next stage.
    pub embedded_code: bool,
    /// Disk signature at offset 0x1B8.
    pub signature: u32,
    /// Partition table found.
    pub table: Table,
}

/// Master boot record code, told by the texts in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootCode {
    /// All zero: nothing to run.
    None,
    /// GRUB's first stage (holds the text `GRUB`).
    Grub,
    /// Any other code: taken for one that starts the active partition, as Windows' does.
    Chain,
}

/// Partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// None.
    None,
    /// Master boot record, with extended partitions.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// One volume: a partition, a whole disk with a filesystem, or a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFact {
    /// What it is.
    pub kind: VolumeKind,
    /// Size in bytes as its table says it.
    pub bytes: u64,
    /// Filesystem on it, where one is known.
    pub filesystem: Option<FilesystemFact>,
    /// Where it was read.
    pub witness: Witness,
    /// Why it cannot be used whole: it ends past its disk, or a part of it is missing.
    pub broken: Option<Witness>,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// A partition.
    Partition {
        /// Index of the disk.
        disk: usize,
        /// Number as Linux counts: 1..=4 primary, 5.. logical.
        number: u32,
        /// First byte on the disk.
        start: u64,
        /// Whether the table marks it active.
        active: bool,
        /// Type byte of the table.
        type_byte: u8,
        /// First sector ends in 55 AA and has code (a boot sector that can be chained to).
        boot_sector: bool,
    },
    /// A filesystem straight on a disk.
    Whole {
        /// Index of the disk.
        disk: usize,
    },
    /// A logical volume of LVM2.
    Logical {
        /// Volume group.
        group: String,
        /// Name.
        name: String,
        /// Disks that hold its physical volumes.
        disks: Vec<usize>,
        /// Disk, bytes its metadata claims for it and bytes there are, of each physical volume of the group found.
        physical: Vec<PhysicalVolume>,
    },
}

/// A physical volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// Index of the disk.
    pub disk: usize,
    /// Size the metadata claims, in bytes.
    pub bytes_claimed: u64,
    /// Size of the partition it is on, as far as the disk reaches, in bytes.
    pub bytes_present: u64,
}

impl VolumeFact {
    /// Disks this volume needs.
    #[must_use]
    pub fn disks(&self) -> Vec<usize> {
        match &self.kind {
            VolumeKind::Partition { disk, .. } | VolumeKind::Whole { disk } => vec![*disk],
            VolumeKind::Logical { disks, .. } => disks.clone(),
        }
    }

    /// Filesystem UUID, empty when there is none.
    #[must_use]
    pub fn uuid(&self) -> &str {
        self.filesystem
            .as_ref()
            .map_or("", |found| found.uuid.as_str())
    }

    /// Short name for people: `disk 0 partition 2`, `vg/root`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            VolumeKind::Partition { disk, number, .. } => format!("disk {disk} partition {number}"),
            VolumeKind::Whole { disk } => format!("disk {disk}"),
            VolumeKind::Logical { group, name, .. } => format!("{group}/{name}"),
        }
    }
}

/// A filesystem (or swap area).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemFact {
    /// Kind.
    pub kind: Kind,
    /// UUID as the system spells it.
    pub uuid: String,
    /// Label.
    pub label: String,
}

/// What a Linux guest boots with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxSystem {
    /// Boot loader configuration, where one was found.
    pub loader: Option<Loader>,
    /// Kernel the default entry names.
    pub kernel: Option<Kernel>,
    /// Options that kernel was built with; empty when `/boot` does not say.
    pub config: KernelConfig,
    /// Kernel command line of the default entry, word by word.
    pub cmdline: Vec<Sourced<Param>>,
    /// Initial RAM filesystem the default entry names.
    pub initramfs: Option<Initramfs>,
    /// `/etc/fstab`.
    pub fstab: Vec<Sourced<FstabEntry>>,
    /// `/etc/crypttab`: mapped name and device.
    pub crypttab: Vec<Sourced<(String, String)>>,
    /// Module tree of that kernel under `/lib/modules` of the root.
    pub modules: ModuleTree,
    /// Symbolic links among the configuration files, with what they say: those that lead nowhere on the disk (as
    /// Ubuntu's `resolv.conf` into `/run`) have no content in the tree.
    pub links: BTreeMap<String, String>,
}

/// Which boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderKind {
    /// GRUB 0.97: `grub.conf` or `menu.lst`.
    GrubLegacy,
    /// GRUB 1.99 and later: `grub.cfg`.
    Grub2,
}

/// Boot loader configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    /// Which.
    pub kind: LoaderKind,
    /// Path of the configuration as the guest sees it: `/boot/grub/grub.conf`.
    pub path: String,
    /// Volume it was read from, index into the layout.
    pub volume: usize,
    /// Path prefix of that volume's root in the guest: `/boot` on a volume of its own, empty on the root.
    pub prefix: String,
    /// Entries, in order.
    pub entries: Vec<BootEntry>,
    /// Default entry, with the line that says so; the index may be past the end.
    pub default: Sourced<usize>,
}

impl Loader {
    /// The entry booted without a person at the console.
    #[must_use]
    pub fn default_entry(&self) -> Option<&BootEntry> {
        self.entries.get(self.default.value)
    }
}

/// One entry of a boot menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootEntry {
    /// Title.
    pub title: String,
    /// Where the loader looks for the files, in the order tried: the last that succeeds counts.
    pub root: Vec<Sourced<LoaderRoot>>,
    /// Kernel path in the loader's filesystem.
    pub kernel: Option<Sourced<String>>,
    /// Command line after the kernel.
    pub cmdline: String,
    /// Initramfs paths in the loader's filesystem.
    pub initrd: Option<Sourced<String>>,
}

/// How a boot loader names the filesystem of kernel and initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderRoot {
    /// BIOS disk number and partition (Linux numbering), from `root (hd0,0)` or `set root='(hd0,msdos1)'`.
    Bios {
        /// BIOS disk, 0 = first.
        disk: usize,
        /// Partition, 1 = first; `None` for the whole disk.
        partition: Option<u32>,
    },
    /// Filesystem UUID, from `search --fs-uuid`.
    Uuid(String),
    /// Filesystem label, from `search --label`.
    Label(String),
    /// A logical volume, `set root='(vg-root)'` or `lvm/vg-root`.
    Logical(String),
}

/// A kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Path as the guest sees it.
    pub path: String,
    /// Volume it is on, index into the layout.
    pub volume: usize,
    /// Version (`2.6.32-279.el6.x86_64`), from the image's own header or else its name.
    pub version: Sourced<String>,
    /// Size in bytes.
    pub bytes: u64,
    /// Whether the file has the x86 boot protocol's `HdrS` mark.
    pub bootable: bool,
}

/// One word of the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Before the first `=`.
    pub key: String,
    /// After it; `None` for a bare word.
    pub value: Option<String>,
}

/// An initial RAM filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initramfs {
    /// Path as the guest sees it.
    pub path: String,
    /// Volume it is on, index into the layout.
    pub volume: usize,
    /// Compression of each archive in it, in order: `none`, `gzip`, `xz`, `zstd`, or one that is not unpacked here.
    pub archives: Vec<&'static str>,
    /// Why its content is not known: another compression.
    pub unread: Option<String>,
    /// Why nothing of it can be used: an archive that breaks off.
    pub damaged: Option<String>,
    /// Paths of all files, without leading slash.
    pub files: BTreeSet<String>,
    /// Kernel modules in it.
    pub modules: BTreeMap<String, Module>,
    /// Lines of `modules.alias` inside, in order: pattern, module and line.
    pub aliases: Vec<(String, String, u32)>,
    /// Content of `conf/initramfs.conf` or the like that says how it was made, first `MODULES=` line's value.
    pub policy: Option<String>,
}

/// A kernel module file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Path, without leading slash in an initramfs.
    pub path: String,
    /// Aliases of its `.modinfo`.
    pub aliases: Vec<String>,
    /// Modules it needs (names with `_`), of its `.modinfo` or `modules.dep`.
    pub depends: Vec<String>,
    /// Why the file is not a module, when it is none.
    pub damaged: Option<String>,
}

/// `/lib/modules/<version>` of the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleTree {
    /// Folder.
    pub path: String,
    /// Module names (with `_`) of `modules.dep`, with the names they need.
    pub depends: BTreeMap<String, Vec<String>>,
    /// The same lines with the files they name.
    pub files: BTreeMap<String, ModuleFile>,
    /// `modules.alias`: pattern, module and line.
    pub aliases: Vec<(String, String, u32)>,
    /// `modules.builtin`: what is linked into the kernel.
    pub builtin: Builtins,
}

/// One line of `/etc/fstab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FstabEntry {
    /// Device: `/dev/sda1`, `UUID=…`, `/dev/mapper/…`.
    pub device: String,
    /// Mount point.
    pub mount: String,
    /// Filesystem type.
    pub fstype: String,
    /// Options.
    pub options: Vec<String>,
    /// Order of the check at boot; 0 for none.
    pub pass: u32,
}

/// What a Windows guest boots with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsSystem {
    /// Folder of the system, as found: `/Windows`.
    pub folder: String,
    /// Product name: `Windows Server 2008 R2 Standard`.
    pub product: Sourced<String>,
    /// `6.1`.
    pub nt: Sourced<String>,
    /// Build: `7601`.
    pub build: Sourced<String>,
    /// Control set in use: `ControlSet001`.
    pub control_set: Sourced<String>,
    /// Services and drivers, by name in lower case.
    pub services: BTreeMap<String, Service>,
    /// `CriticalDeviceDatabase`: service by device id in lower case with `#`.
    pub critical_devices: BTreeMap<String, Sourced<String>>,
    /// Whether the hive has a root-level `DriverDatabase` (NT 6.2 and later), which replaces the former.
    pub driver_database: bool,
    /// Boot configuration, where one was found.
    pub bcd: Option<Bcd>,
    /// `MountedDevices` by value name: disk signature and byte offset.
    pub mounted: BTreeMap<String, Sourced<MountedDevice>>,
    /// Whether the real-time clock is taken for UTC.
    pub clock_utc: Sourced<bool>,
    /// The file that says that it sleeps instead of being shut down, where one does.
    pub hibernated: Option<Witness>,
    /// What its network comes up from.
    pub net: WindowsNet,
}

/// A service or driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name as stored.
    pub name: String,
    /// Key, for witnesses.
    pub key: String,
    /// Start: 0 boot, 1 system, 2 auto, 3 demand, 4 disabled; `None` when the value is missing.
    pub start: Option<u32>,
    /// Type: 1 kernel driver.
    pub kind: Option<u32>,
    /// Load order group.
    pub group: String,
    /// Binary as a path in the guest: `/Windows/system32/drivers/atapi.sys`.
    pub image: String,
    /// Whether that file is there (looked up for drivers only).
    pub present: bool,
}

/// What a value of `MountedDevices` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountedDevice {
    /// MBR disk signature and byte offset.
    Mbr {
        /// Disk signature.
        signature: u32,
        /// First byte of the partition.
        offset: u64,
    },
    /// Anything else (CD-ROM, floppy, GPT).
    Other,
}

/// Boot configuration data: what the boot manager starts by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bcd {
    /// Volume it is on, index into the layout.
    pub volume: usize,
    /// Path: `/Boot/BCD`.
    pub path: String,
    /// Whether `\\bootmgr` stands beside it.
    pub manager: bool,
    /// Default object of the boot manager.
    pub default: Option<Sourced<String>>,
    /// Partition the default loader is read from.
    pub device: Option<Sourced<BcdDevice>>,
    /// Partition of the system it starts.
    pub os_device: Option<Sourced<BcdDevice>>,
    /// Path of the loader: `\Windows\system32\winload.exe`.
    pub loader: Option<Sourced<String>>,
    /// Whether that file is on the system volume.
    pub loader_present: bool,
}

/// A device element of the boot configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BcdDevice {
    /// The partition the boot manager came from.
    Boot,
    /// A partition of an MBR disk.
    Mbr {
        /// Disk signature.
        signature: u32,
        /// First byte of the partition.
        offset: u64,
    },
    /// A partition of a GPT disk, by the ids of partition and disk.
    Gpt {
        /// Partition id, as stored.
        partition: [u8; 16],
        /// Disk id, as stored.
        disk: [u8; 16],
    },
    /// Another type (ramdisk, locate, file), by number.
    Other(u32),
}
