//! Writing disks whose bytes lie as they are in one file beside a descriptor.

use super::VmdkOptions;
use super::descriptor::{Sole, compose};
use super::header::SECTOR;
use super::sparse::check_capacity;
use crate::engine::{self, Work};
use crate::write::Written;
use drylab_block::{ReadAt, Result, WriteAt};

/// A flat disk to write: who reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlatKind {
    /// `monolithicFlat`, of VMware's hosted products and `qemu-img`.
    #[default]
    Monolithic,
    /// `vmfs`, of a datastore of ESXi.
    Vmfs,
}

impl FlatKind {
    fn sole(self) -> Sole {
        let (create_type, kind, behind) = match self {
            Self::Monolithic => ("monolithicFlat", "FLAT", " 0"),
            Self::Vmfs => ("vmfs", "VMFS", ""),
        };
        Sole {
            create_type,
            access: "RW",
            kind,
            behind,
        }
    }
}

/// The descriptor of a disk whose bytes lie, padded to sectors of 512 bytes, in a file called
/// [`file_name`](VmdkOptions::file_name).
///
/// # Errors
/// [`Error::Unsupported`](drylab_block::Error) for a file name that cannot stand there and a disk of more than 64 TiB; what
/// reading the disk finds.
pub fn flat_descriptor(disk: &dyn ReadAt, options: &VmdkOptions, kind: FlatKind) -> Result<String> {
    compose(
        &kind.sole(),
        check_capacity(disk.len())?,
        options.cid(disk, &Work::ALONE)?,
        options,
    )
}

/// Writes the bytes of `disk` to `extent`, padded to sectors, by as many workers as `work` says; the text is the
/// descriptor to put beside it.
///
/// # Errors
/// As [`flat_descriptor`]; what writing finds.
pub fn write_flat(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    kind: FlatKind,
    extent: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<(String, Written)> {
    let capacity = check_capacity(disk.len())?;
    if extent.len() != 0 {
        extent.set_len(0)?;
    }
    let file_bytes = capacity.saturating_mul(SECTOR);
    extent.set_len(file_bytes)?;
    // The disk is one unit, and it stands at 0.
    let digest = engine::copy(disk, extent, (u64::MAX, options.is_unnamed()), work, |_| {
        Ok(0)
    })?;
    let text = compose(&kind.sole(), capacity, options.cid_of(digest), options)?;
    Ok((text, Written { file_bytes }))
}
