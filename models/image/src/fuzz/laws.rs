//! The laws that fuzzers keep an eye on: of disks, of checks, of plans.

use crate::container::Container;
use crate::edit::{Edit, Plan};
use crate::finding::{Findings, Repair};
use drylab_block::{Extents, ReadAt, Result, SparseBytes, WriteAt};
use std::sync::Arc;

/// Extents walked of one input, so that a small input cannot cost much.
const EXTENTS: usize = 4096;
/// Extents read of one input.
const READS: u64 = 64;
/// Bytes read at a place.
const PIECE: u64 = 4096;

/// Extents touch, cover the disk and can be read or refused.
pub(super) fn walk(disk: &dyn ReadAt) {
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

/// All that is looked at in an image that was opened.
pub(super) fn seen<C: Container>(image: Result<C>) {
    if let Ok(image) = image {
        drop(image.details());
        walk(&image);
        checked(&image);
    }
}

/// A check is an answer or an error; what it finds says where and what should be there.
fn checked(image: &dyn Container) -> Option<Findings> {
    let mut found = image.noticed().clone();
    image.check(&mut found).ok()?;
    for finding in found.list() {
        assert!(!finding.path.is_empty() && !finding.expected.is_empty());
    }
    Some(found)
}

/// Bytes that a repair may add or copy before it is not tried.
const ADDED: u64 = 64 << 20;

/// Bytes that a plan adds to a file and copies in it.
fn added(plan: &Plan) -> u64 {
    let of = |edit: &Edit| match edit {
        Edit::Copy { length, .. } => *length,
        Edit::Write { new, .. } => crate::math::len64(new),
        Edit::Length { .. } | Edit::Flush => 0,
    };
    plan.edits().iter().map(of).fold(0, u64::saturating_add)
}

/// Steps of a plan of which every prefix is tried out.
const STEPS: usize = 12;

/// Opens a file as one format.
pub(super) type Open<'a> = &'a dyn Fn(Arc<dyn ReadAt>) -> Result<Box<dyn Container>>;

/// An opened image of whatever format.
pub(super) fn boxed<C: Container + 'static>(image: Result<C>) -> Result<Box<dyn Container>> {
    image.map(|image| -> Box<dyn Container> { Box::new(image) })
}

/// A file with these bytes.
pub(super) fn copy(data: &[u8]) -> Result<SparseBytes> {
    let file = SparseBytes::default();
    file.write_at(0, data).map(|()| file)
}

/// A repair that is tried out.
pub(super) struct Trial<'a> {
    /// Makes the file anew.
    pub(super) file: &'a dyn Fn() -> Result<SparseBytes>,
    pub(super) open: Open<'a>,
    /// Codes of findings that keep others from being mended by the same plan.
    pub(super) kept: &'a [&'a str],
    /// Codes of findings that stay where the file has no room for what is missing.
    pub(super) roomless: &'a [&'a str],
    /// Whether what a lossy repair gives up may have been readable.
    pub(super) drops: bool,
}

/// Repairs a file: it opens after every prefix of the plan, and after all of it nothing is left that a repair mends. What
/// could be read before reads the same, or was given up by a finding that says so. The result is the file after it.
pub(super) fn mended(trial: &Trial<'_>) -> Option<Arc<SparseBytes>> {
    let make = || (trial.file)().ok().map(Arc::new);
    let before = (trial.open)(make()?).ok()?;
    let (found, plan) = (checked(&*before)?, before.repair().ok()?);
    if added(&plan) > ADDED {
        return None;
    }
    let lossy = |finding: &crate::Finding| finding.rule.repair == Repair::Lossy;
    let keeps = !(trial.drops && found.list().iter().any(lossy));
    let steps = plan.edits().len();
    let counts = match steps {
        0..=STEPS => (0..=steps).collect(),
        _ => vec![steps / 3, steps / 2, steps.saturating_sub(1), steps],
    };
    let mut last = None;
    for count in counts {
        let file = make()?;
        let applied = plan.apply_first(count, &*file);
        assert!(
            applied.is_ok(),
            "a plan fits the file it was made for: {applied:?}"
        );
        let image = (trial.open)(file.clone());
        assert!(
            image.is_ok(),
            "not opened after {count} of {steps} steps: {:?}",
            image.err()
        );
        let image = image.ok()?;
        if keeps {
            same(&*before, &*image);
        }
        last = Some((file, image));
    }
    let (file, after) = last?;
    let left = checked(&*after);
    assert!(left.is_some(), "a repaired image can be checked");
    let left = left.unwrap_or_default();
    // What was left alone for one of these may be mended when it is gone, by the next plan.
    let known = [found.counts(), left.counts()];
    let kept = known
        .iter()
        .any(|counts| counts.keys().any(|code| trial.kept.contains(code)));
    // Other files are not mended by this plan.
    let mendable = |finding: &&crate::Finding| {
        let stays = trial.roomless.contains(&finding.rule.code);
        finding.file.is_empty() && finding.rule.repair != Repair::No && !stays
    };
    let left = left.list().iter().find(mendable);
    assert!(kept || left.is_none(), "left after a repair: {left:?}");
    Some(file)
}

/// Gives `image`, which is in `file`, another size, where that can be: what it had before is there, and nothing to find
/// that was not to find before.
pub(super) fn resized(image: &dyn Container, file: &SparseBytes, size: u64, open: Open<'_>) {
    let Some(plan) = image.resize(size).ok().filter(|plan| added(plan) <= ADDED) else {
        return;
    };
    let changed = Arc::new(SparseBytes::default());
    let done = drylab_block::copy_data(file, &*changed).and_then(|()| plan.apply(&*changed));
    assert!(
        done.is_ok(),
        "a plan fits the file it was made for: {done:?}"
    );
    let again = open(changed);
    assert!(again.is_ok(), "a resized image opens");
    let (Ok(again), Some(before)) = (again, checked(image)) else {
        return;
    };
    assert!(again.len() == size, "a resized image has its new size");
    let after = checked(&*again).unwrap_or_default();
    let known = |code: &str| before.counts().contains_key(code);
    let new = after
        .list()
        .iter()
        .find(|finding| !known(finding.rule.code));
    let new = new.map(crate::Finding::message);
    assert!(new.is_none(), "found after a resize: {new:?}");
    let (mut one, mut other) = ([0u8; 512], [0u8; 512]);
    for extent in Extents::new(image).take(EXTENTS) {
        let end = extent.offset.saturating_add(512);
        if end <= size.min(image.len()) && image.read_at(extent.offset, &mut one).is_ok() {
            let read = again.read_at(extent.offset, &mut other);
            assert!(
                read.is_ok() && one == other,
                "bytes differ at {}",
                extent.offset
            );
        }
    }
}

/// The size is the same, and all that could be read of `image` reads the same of `again`.
fn same(image: &dyn Container, again: &dyn Container) {
    assert!(again.len() == image.len(), "a repair must keep the size");
    let (mut old, mut new) = ([0u8; 4096], [0u8; 4096]);
    for extent in Extents::new(image).take(256) {
        let last = extent
            .offset
            .saturating_add(extent.length)
            .saturating_sub(PIECE);
        for at in [extent.offset, last.max(extent.offset)] {
            let length = crate::math::index(PIECE.min(image.len().saturating_sub(at)));
            let (Some(old), Some(new)) = (old.get_mut(..length), new.get_mut(..length)) else {
                continue;
            };
            if image.read_at(at, old).is_ok() {
                let read = again.read_at(at, new);
                assert!(
                    read.is_ok() && old == new,
                    "bytes at {at} are others after the repair"
                );
            }
        }
    }
}
