//! Writing snapshots ("delta links"): the grains in which a disk differs from its parent.

use super::descriptor::compose_child;
use super::sparse::{Grains, SOLE, grain_bytes};
use super::{VmdkOptions, number};
use crate::changed::for_each_changed;
use crate::engine::is_zero;
use crate::image::Info;
use crate::write::Written;
use drylab_block::{ReadAt, Result, WriteAt};

/// What a snapshot says of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmdkParent {
    /// `CID` of the parent, the `parentCID` of the snapshot.
    pub content_id: u32,
    /// Name of the parent's descriptor, beside the snapshot.
    pub file_name: String,
}

impl VmdkParent {
    /// The VMDK that `info` is of, called `file_name`; `None` when it is none, or has no content id.
    #[must_use]
    pub fn of(info: &Info, file_name: &str) -> Option<Self> {
        let content_id = number(info.detail("CID")?)?;
        (info.format == crate::Format::Vmdk).then(|| Self {
            content_id,
            file_name: file_name.to_owned(),
        })
    }
}

/// Writes to `sink`, which is emptied first, a monolithicSparse VMDK that holds the grains in which `disk` differs from
/// `base`, the disk that `parent` names. The disk has the size of `disk`; past the end of `base` are zeros.
///
/// Grains that are zeros only in `disk` are stored, or with [`zeroed_grains`](VmdkOptions::zeroed_grains) said to be so.
///
/// # Errors
/// As [`write()`](crate::write()), and for a name that cannot stand in a descriptor.
pub fn write_vmdk_child(
    disk: &dyn ReadAt,
    base: &dyn ReadAt,
    parent: &VmdkParent,
    options: &VmdkOptions,
    sink: &dyn WriteAt,
) -> Result<Written> {
    if sink.len() != 0 {
        sink.set_len(0)?;
    }
    let cid = options.cid(disk, &crate::engine::Work::ALONE)?;
    let mut grains = Grains::new(disk.len(), false, sink)?;
    for_each_changed(disk, base, grain_bytes(), |grain, own, _| {
        if options.zeroed_grains && is_zero(own) {
            return grains.zero(grain);
        }
        let place = grains.place(grain)?;
        sink.write_at(place, own)
    })?;
    let file_bytes = grains.finish(options.zeroed_grains, |capacity| {
        compose_child(&SOLE, capacity, (cid, Some(parent)), options)
    })?;
    Ok(Written { file_bytes })
}
