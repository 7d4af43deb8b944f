//! What a fuzzer calls: open the bytes, walk everything within bounds, keep the laws.
//!
//! A panic is a bug of ours; an error is an answer.

use crate::container::{Container, Opener};
use crate::finding::{Findings, Repair};
use crate::qcow2::Qcow2;
use crate::vhd::{Vhd, VhdSize};
use crate::vmdk::{Vmdk, walk_stream};
use drylab_block::{
    DenyAll, Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt,
};
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
    let limits = limits();
    if let Ok(image) = Vmdk::open(source, &Opener::new(&DenyAll, &limits)) {
        drop(image.details());
        walk(&image);
        check(&image);
    }
}

/// Repairs `data` as a VMDK and checks it again.
pub fn vmdk_repair(data: &[u8]) {
    let limits = limits();
    let open = |bytes: Arc<SparseBytes>| Vmdk::open(bytes, &Opener::new(&DenyAll, &limits));
    mend(data, &open, &["VMDK-GT-OVERLAP"]);
}

/// Opens `data` as the descriptor of a VMDK up to its first NUL, with the rest as every file that it names.
pub fn vmdk_split(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (text, rest) = data.split_at_checked(end).unwrap_or_default();
    let rest = rest.get(1..).unwrap_or_default();
    let beside = Beside(Arc::new(rest.to_vec()));
    let limits = limits();
    let text: Arc<dyn ReadAt> = Arc::new(text.to_vec());
    if let Ok(image) = Vmdk::open(text, &Opener::new(&beside, &limits)) {
        drop(image.details());
        walk(&image);
        check(&image);
    }
}

/// A check ends, and what it finds has places inside their file.
fn check(image: &dyn Container) -> Findings {
    let mut found = image.noticed().clone();
    if image.check(&mut found).is_err() {
        return Findings::default();
    }
    for finding in found.list() {
        assert!(!finding.path.is_empty() && !finding.expected.is_empty());
    }
    found
}

/// Repairs a copy of `data`: every prefix of the plan opens, and after all of it nothing is left that a repair mends. What
/// could be read before reads the same, or was given up by a finding that says so. Findings called `kept` keep others from
/// being mended.
fn mend<C: Container>(data: &[u8], open: &dyn Fn(Arc<SparseBytes>) -> Result<C>, kept: &[&str]) {
    let copy = || {
        let file = SparseBytes::new(0);
        file.write_at(0, data).map(|()| Arc::new(file))
    };
    let (Ok(file), Ok(whole)) = (copy(), copy()) else {
        return;
    };
    let Ok(before) = open(file) else { return };
    let found = check(&before);
    let Ok(plan) = before.repair() else { return };
    let steps = plan.edits().len();
    let lossless = found
        .list()
        .iter()
        .all(|finding| finding.rule.repair != Repair::Lossy);
    for count in [steps / 3, steps / 2, steps.saturating_sub(1)] {
        let Ok(crashed) = copy() else { return };
        let applied = plan.apply_first(count, &*crashed);
        assert!(
            applied.is_ok(),
            "a plan applies to the file it was made for: {applied:?}"
        );
        let image = open(crashed);
        assert!(
            image.is_ok(),
            "after {count} of {steps} steps the file opens"
        );
        if let (Ok(image), true) = (image, lossless) {
            same(&before, &image);
        }
    }
    let applied = plan.apply(&*whole);
    assert!(
        applied.is_ok(),
        "a plan applies to the file it was made for: {applied:?}"
    );
    match open(whole) {
        Ok(after) => {
            let left = check(&after);
            let kept = left.counts().keys().any(|code| kept.contains(code));
            for finding in left.list() {
                let mended = finding.rule.repair != Repair::No;
                assert!(!mended || kept, "left after a repair: {finding:?}");
            }
            if lossless {
                same(&before, &after);
            }
        }
        Err(error) => assert!(steps == 0, "a repaired file opens: {error}"),
    }
}

/// What can be read of one disk reads the same of the other.
fn same(one: &dyn ReadAt, other: &dyn ReadAt) {
    assert_eq!(one.len(), other.len(), "a repair keeps the size");
    let mut bytes = [0u8; 4096];
    let mut again = [0u8; 4096];
    for extent in Extents::new(one).take(EXTENTS) {
        let length = usize::try_from(extent.length.min(PIECE)).unwrap_or(0);
        let (Some(bytes), Some(again)) = (bytes.get_mut(..length), again.get_mut(..length)) else {
            return;
        };
        if one.read_at(extent.offset, bytes).is_ok() {
            let read = other.read_at(extent.offset, again);
            assert!(
                read.is_ok() && bytes == again,
                "a repair changed byte {}: {read:?}",
                extent.offset
            );
        }
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
}

/// One file beside a descriptor, whatever its name.
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
    let text: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    if let Ok(image) = Vmdk::open(text, &Opener::new(&beside, &limits)) {
        drop(image.details());
        walk(&image);
        check(&image);
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
