//! What a fuzzer calls: open the bytes, walk everything within bounds, keep the laws.
//!
//! A panic is a bug of ours; an error is an answer.

use crate::qcow2::Qcow2;
use crate::vhd::{Vhd, VhdSize};
use crate::vmdk::{Flat, Vmdk, walk_stream};
use drylab_block::{Extents, Limits, ReadAt, Reference, Resolver, Result};
use std::sync::Arc;

/// Extents walked of one input, so that a small input cannot cost much.
const EXTENTS: usize = 4096;
/// Extents read of one input.
const READS: u64 = 64;
/// Bytes read at a place.
const PIECE: u64 = 4096;

fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 4 << 20;
    limits.text_bytes_max = 1 << 20;
    limits
}

/// Opens `data` as a VMDK.
pub fn vmdk(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let _ = walk_stream(&*source, &limits());
    if let Ok(image) = Vmdk::open(source, &limits()) {
        drop(image.details());
        walk(&image);
    }
}

/// Opens `data` as a qcow2.
pub fn qcow2(data: &[u8]) {
    if let Ok(image) = Qcow2::open(Arc::new(data.to_vec()), &limits()) {
        drop(image.details());
        walk(&image);
    }
}

/// Opens `data` as a VHD, as each kind of program sees it, after setting its checksums right: no change of a few bytes
/// would get past them. A damaged one is a matter of [`detect`].
pub fn vhd(data: &[u8]) {
    let mut bytes = data.to_vec();
    crate::vhd::mend(&mut bytes);
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    for believes in [VhdSize::ByCreator, VhdSize::Current, VhdSize::Geometry] {
        if let Ok(image) = Vhd::open(source.clone(), believes, &limits()) {
            drop(image.details());
            walk(&image);
        }
    }
    if crate::vhd::is_child(&*source) {
        child(&source);
    }
}

/// A differencing disk alone, and on the parent that it names, empty and as large as it is.
fn child(source: &Arc<dyn ReadAt>) {
    let Ok(alone) = crate::vhd::open_alone(source.clone(), VhdSize::Current, &limits()) else {
        return;
    };
    walk(&*alone);
    let Ok(named) = crate::vhd::parent_name(&**source, &limits()) else {
        return;
    };
    let options = crate::VhdOptions {
        unique_id: Some(named.unique_id),
        ..crate::VhdOptions::default()
    };
    let (disk, base) = (
        drylab_block::SparseBytes::new(alone.len()),
        drylab_block::SparseBytes::default(),
    );
    let target = crate::Target::VhdFixed(options);
    if crate::write(&disk, &target, &base).is_ok() {
        let chain: [Arc<dyn ReadAt>; 2] = [source.clone(), Arc::new(base)];
        if let Ok(whole) = crate::vhd::open_chain(&chain, &limits()) {
            assert_eq!(
                whole.len(),
                alone.len(),
                "a child is as large as its parent"
            );
            walk(&*whole);
        }
    }
}

/// Files of one length beside a descriptor, whatever their names.
struct Beside(Arc<dyn ReadAt>);

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert!(
            !reference.name.contains(['/', '\\', '\0']) && reference.name != "..",
            "{:?} leads out of the folder",
            reference.name
        );
        Ok(self.0.clone())
    }
}

/// Opens `data` as the descriptor of a flat VMDK whose extents are files of 1 MiB.
pub fn vmdk_flat(data: &[u8]) {
    let beside = Beside(Arc::new(drylab_block::SparseBytes::new(1 << 20)));
    if let Ok(image) = Flat::open(&data, &beside, &limits()) {
        drop(image.details());
        walk(&image);
    }
}

/// Opens `data` as what it says it is.
pub fn detect(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let found = crate::detect(&*source);
    if let Ok(image) = crate::open(source, &limits()) {
        let known = found.is_ok_and(|found| found.format == image.format());
        assert!(known, "what was opened must have been detected");
        drop(image.info());
        walk(&image);
    }
}

/// Extents touch, cover the disk and can be read or refused.
fn walk(disk: &dyn ReadAt) {
    let mut end = 0u64;
    let mut reads = 0u64;
    let mut walked = 0usize;
    let mut buffer = [0u8; 4096];
    for extent in Extents::new(disk).take(EXTENTS) {
        let said = disk.extent_at(extent.offset);
        assert!(
            extent.offset == end && said.length > 0,
            "extents must touch and not be empty"
        );
        end = extent.offset.saturating_add(said.length);
        assert!(end <= disk.len(), "an extent must end inside the disk");
        walked = walked.saturating_add(1);
        if extent.kind.has_bytes() && reads < READS {
            reads = reads.saturating_add(1);
            read(disk, extent.offset, extent.length, &mut buffer);
            let last = end.saturating_sub(extent.length.min(PIECE));
            read(disk, last, end.saturating_sub(last), &mut buffer);
        }
    }
    assert!(
        walked == EXTENTS || end == disk.len(),
        "extents must cover the disk"
    );
    read(
        disk,
        disk.len().saturating_sub(PIECE),
        PIECE.min(disk.len()),
        &mut buffer,
    );
}

fn read(disk: &dyn ReadAt, offset: u64, length: u64, buffer: &mut [u8]) {
    let length = usize::try_from(length.min(PIECE)).unwrap_or(0);
    if let Some(part) = buffer.get_mut(..length) {
        let _ = disk.read_at(offset, part);
    }
}
