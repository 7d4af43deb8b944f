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
mod config;
mod cpio;
mod distro;
mod elf;
mod fstab;
pub(crate) mod fuzz;
mod grub;
mod inf;
mod initramfs;
mod linux;
mod model;
mod mounts;
mod registry;
mod tree;
mod unpack;
pub(crate) mod volumes;
mod windows;
mod windows_inf;
mod windows_net;

pub use crate::modules::ModuleFile;
pub use bcd::device as bcd_device;
pub use config::KernelConfig;
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
use drylab_filesystem::{FileOverlay, Filesystem, Layered};
use drylab_volume::{Volume, VolumeName};
use std::sync::Arc;
use volumes::Volumes;

/// A disk of a guest with the files beside it.
#[derive(Clone)]
pub struct GuestDisk {
    /// Bytes of the disk.
    pub bytes: Arc<dyn ReadAt>,
    /// Edits that did not fit on the disk, by volume. Volumes are named as a scan of all disks together names them;
    /// those of a disk scanned alone (`p1` instead of `disk1:p1`) are understood too.
    pub files: FileOverlay,
}

impl GuestDisk {
    /// A disk without files beside it.
    pub fn new(bytes: Arc<dyn ReadAt>) -> Self {
        Self {
            bytes,
            files: FileOverlay::new(),
        }
    }
}

/// Inspects a guest's disks, first boot disk first.
///
/// # Errors
/// [`Error::Unsupported`] when no operating system is found, [`Error::Corrupt`] when the disks' structures are
/// circular or the Windows registry cannot be opened, [`Error::Io`] when a disk cannot be read. Damage that leaves the
/// rest readable is among [`Guest::findings`].
pub fn inspect(disks: &[GuestDisk], limits: &Limits) -> Result<Guest> {
    let sources: Vec<Arc<dyn ReadAt>> = disks.iter().map(|disk| disk.bytes.clone()).collect();
    let open = |volume: &Volume| -> Result<Option<Arc<dyn Filesystem>>> {
        let Some(filesystem) = drylab_filesystem::open(volume.source.clone(), limits)? else {
            return Ok(None);
        };
        let filesystem: Arc<dyn Filesystem> = Arc::from(filesystem);
        let files = files_beside(volume, disks);
        Ok(Some(if files.is_empty() {
            filesystem
        } else {
            Arc::new(Layered::new(filesystem, files))
        }))
    };
    inspect_with(&sources, &open, limits)
}

/// Files beside the disks that belong to a volume.
fn files_beside(volume: &Volume, disks: &[GuestDisk]) -> drylab_filesystem::OverlayView {
    let mut view = drylab_filesystem::OverlayView::new();
    let name = volume.name.to_string();
    let on = match &volume.name {
        VolumeName::Whole { disk } | VolumeName::Partition { disk, .. } => Some(*disk),
        VolumeName::Logical { .. } => None,
    };
    for (index, disk) in disks.iter().enumerate() {
        view.extend(disk.files.view(&name));
        if let Some(alone) = name
            .split_once(':')
            .filter(|_| on == Some(index))
            .map(|(_, alone)| alone)
        {
            view.extend(disk.files.view(alone));
        }
    }
    view
}

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
    let noticed = volumes
        .findings
        .iter()
        .take(4)
        .map(|finding| format!("; {}", finding.message));
    let damage: String = noticed.collect();
    Err(Error::unsupported(format_args!(
        "no operating system found: none of {} volumes ({}) has /etc or system32/config{damage}",
        seen.len(),
        seen.join(", ")
    )))
}
