//! What a fuzzer calls: open the bytes, walk everything within bounds, keep the laws.
//!
//! A panic is a bug of ours; an error is an answer.

use crate::container::{Container, Opener};
use crate::finding::{Findings, Repair};
use crate::qcow2::Qcow2;
use crate::qed::Qed;
use crate::vhd::{Vhd, VhdSize};
use crate::vmdk::{Flat, Vmdk, walk_stream};
use drylab_block::{Extents, Limits, ReadAt, Reference, Resolver, Result, WriteAt};
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

/// One file, whatever it is called.
struct Any(Arc<dyn ReadAt>);

impl Resolver for Any {
    fn resolve(&self, _: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(self.0.clone())
    }
}

/// Opens `data` as a qcow2 with whatever other files it names, and as its first snapshot; reads and checks it.
pub fn qcow2(data: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    for snapshot in [None, Some("1")] {
        let opener = Opener::new(&other, &limits);
        if let Ok(image) = Qcow2::open(source.clone(), snapshot, &opener) {
            drop(image.details());
            let _ = image.check(&mut Findings::default());
            walk(&image);
        }
    }
}

/// Opens `data` as a qcow2, repairs a copy and checks that: nothing is left that could be mended, and what is mended
/// without loss reads as before.
pub fn qcow2_repair(data: &[u8]) {
    let before: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    let opener = Opener::new(&other, &limits);
    let Ok(old) = Qcow2::open(before, None, &opener) else {
        return;
    };
    let mut found = old.noticed().clone();
    let (Ok(()), Ok(plan)) = (old.check(&mut found), old.repair()) else {
        return;
    };
    let file = Arc::new(drylab_block::SparseBytes::default());
    let written = file.write_at(0, data).and_then(|()| plan.apply(&*file));
    assert!(written.is_ok(), "a plan fits the file it was made for");
    let reopened = Qcow2::open(file, None, &Opener::new(&other, &limits));
    assert!(reopened.is_ok(), "a repaired image opens");
    let Ok(new) = reopened else {
        return;
    };
    let mut left = new.noticed().clone();
    let checked = new.check(&mut left);
    assert!(checked.is_ok(), "a repaired image can be checked");
    // Other files are not mended by this plan.
    let mendable =
        |finding: &&crate::Finding| finding.file.is_empty() && finding.rule.repair != Repair::No;
    let left = left
        .list()
        .iter()
        .find(mendable)
        .map(crate::Finding::message);
    assert!(left.is_none(), "left after repair: {left:?}");
    let lossy = |finding: &crate::Finding| finding.rule.repair == Repair::Lossy;
    let lossy = found.list().iter().any(lossy);
    same(&old, &new, lossy);
}

/// What could be read before reads the same afterwards; with `lossy` that holds for nothing that was given up.
fn same(old: &dyn ReadAt, new: &dyn ReadAt, lossy: bool) {
    assert!(old.len() == new.len(), "a repair keeps the size");
    let (mut before, mut after) = ([0u8; 512], [0u8; 512]);
    for extent in Extents::new(old)
        .take(EXTENTS)
        .filter(|extent| extent.length >= 512)
    {
        if old.read_at(extent.offset, &mut before).is_ok() {
            let read = new.read_at(extent.offset, &mut after);
            assert!(
                lossy || (read.is_ok() && before == after),
                "bytes differ at {}",
                extent.offset
            );
        }
    }
}

/// Opens `data` as a QED with whatever backing file it names; reads and checks it.
pub fn qed(data: &[u8]) {
    let (other, limits) = (Any(Arc::new(vec![0x5a; 100_000])), limits());
    let opener = Opener::new(&other, &limits);
    if let Ok(image) = Qed::open(Arc::new(data.to_vec()), &opener) {
        drop(image.details());
        let _ = image.check(&mut Findings::default());
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
    let limits = limits();
    if let Ok(image) = Flat::open(&data, &Opener::new(&beside, &limits)) {
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
