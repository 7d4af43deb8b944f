//! From disks to a [`Guest`]: what is installed there, what it boots with, what configures its network; for each
//! fact the file and line or the registry key it was read from.
//!
//! Which questions an inspector asks, and where it finds the answers, follows libguestfs and virt-v2v in their
//! published behaviour; every reader below is ours.
//!
//! ```text
//! disks -> partitions, logical volumes -> filesystems -> root (has /etc, or system32\config)
//!   Linux:   release files; menu of GRUB -> kernel, command line, initramfs (cpio -> modules -> aliases); fstab
//!   Windows: Select\Current -> Services, CriticalDeviceDatabase, Tcpip; SOFTWARE; \Boot\BCD
//! ```

mod bcd;
mod cpio;
mod distro;
mod elf;
mod fstab;
mod grub;
mod inf;
mod initramfs;
mod linux;
mod model;
mod mounts;
mod registry;
mod tree;
pub(crate) mod volumes;
mod windows;
mod windows_net;

pub use bcd::device as bcd_device;
pub use cpio::{
    Entry as CpioEntry, Member as CpioMember, member as cpio_member, walk as cpio_walk,
};
pub use elf::modinfo;
pub use fstab::{cmdline, crypttab, fstab};
pub use grub::{Menu, grub2, legacy as grub_legacy};
pub use initramfs::read as read_initramfs;
pub use model::{
    Bcd, BcdDevice, BootCode, BootEntry, DiskFact, Family, FilesystemFact, FstabEntry, Guest,
    Initramfs, Kernel, LinuxSystem, Loader, LoaderKind, LoaderRoot, Module, ModuleTree,
    MountedDevice, Os, Param, PhysicalVolume, Service, Sourced, System, Table, VolumeFact,
    VolumeKind, WindowsSystem,
};

use drylab_block::{Error, Limits, ReadAt, Result};
use drylab_filesystem::Filesystem;
use drylab_volume::Volume;
use std::sync::Arc;
use volumes::Volumes;

/// Opens the filesystem of a volume; `None` when there is none that is known.
pub type Opener<'a> = &'a dyn Fn(&Volume) -> Result<Option<Arc<dyn Filesystem>>>;

/// Inspects disks whose filesystems `open` gives.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(disks: &[Arc<dyn ReadAt>], open: Opener<'_>, limits: &Limits) -> Result<Guest> {
    let volumes = Volumes::find(disks, open, limits)?;
    let linux = volumes
        .filesystems()
        .find(|(_, filesystem)| linux::is_root(filesystem.as_ref(), limits));
    if let Some((root, _)) = linux {
        return linux::inspect(volumes, root, limits);
    }
    let windows = volumes
        .filesystems()
        .find_map(|(root, found)| Some((root, windows::folder(found.as_ref(), limits)?)));
    if let Some((root, folder)) = windows {
        return windows::inspect(volumes, root, &folder, limits);
    }
    let seen: Vec<String> = volumes.facts.iter().map(VolumeFact::name).collect();
    let damage = volumes
        .findings
        .first()
        .map(|finding| format!("; {}", finding.message))
        .unwrap_or_default();
    Err(Error::unsupported(format_args!(
        "no operating system found: none of {} volumes ({}) has /etc or system32/config{damage}",
        seen.len(),
        seen.join(", ")
    )))
}
