//! What a fuzzer calls: open the bytes, walk everything within bounds, keep the laws.
//!
//! A panic is a bug of ours; an error is an answer.

mod written;

pub use written::{qcow2_written, vdi_written, vhd_written, vhdx_written, vmdk_written};

use crate::container::{Container, Opener};
use crate::edit::{Edit, Plan};
use crate::finding::{Findings, Repair};
use crate::qcow2::Qcow2;
use crate::qed::Qed;
use crate::vdi::Vdi;
use crate::vhd::{Vhd, VhdSize};
use crate::vhdx::{Vhdx, scripted};
use crate::vmdk::{Vmdk, walk_stream};
use crate::write::Target;
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
        checked(&image);
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
        checked(&image);
    }
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
    let found = checked(&before).unwrap_or_default();
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
            let left = checked(&after).unwrap_or_default();
            // What was left alone for one of these may be mended when it is gone, by the next plan.
            let known = [found.counts(), left.counts()];
            let kept = known
                .iter()
                .any(|counts| counts.keys().any(|code| kept.contains(code)));
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
/// without loss reads as before. What was mended is then given other sizes.
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
    let repaired = Arc::new(SparseBytes::default());
    let written = repaired
        .write_at(0, data)
        .and_then(|()| plan.apply(&*repaired));
    assert!(written.is_ok(), "a plan fits the file it was made for");
    let reopened = Qcow2::open(repaired.clone(), None, &Opener::new(&other, &limits));
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
    if !lossy {
        same(&old, &new);
    }
    let sectors = new.len() / 512;
    for sectors in [sectors / 2, sectors.saturating_add(137)] {
        let size = sectors.saturating_mul(512);
        resized(&new, &repaired, size, &|file| {
            Qcow2::open(file, None, &Opener::new(&other, &limits))
        });
    }
}

/// Gives `image`, which is in `file`, another size, where that can be: what it had before is there, and nothing to find
/// that was not to find before.
fn resized<C: Container>(
    image: &C,
    file: &SparseBytes,
    size: u64,
    open: &dyn Fn(Arc<dyn ReadAt>) -> Result<C>,
) {
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
    let after = checked(&again).unwrap_or_default();
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
/// would get past them. A damaged one is a matter of [`detect`]. Whatever parent it names is a small fixed disk.
pub fn vhd(data: &[u8]) {
    let mut bytes = data.to_vec();
    crate::vhd::mend(&mut bytes);
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let beside = Beside(parent(&Target::VhdFixed(crate::VhdOptions::default())));
    for believes in [VhdSize::ByCreator, VhdSize::Current, VhdSize::Geometry] {
        let limits = limits();
        if let Ok(image) = Vhd::open(source.clone(), believes, &Opener::new(&beside, &limits)) {
            drop(image.details());
            walk(&image);
            checked(&image);
        }
    }
    let limits = limits();
    if let Ok(alone) = Vhd::open_alone(source, VhdSize::Current, &Opener::new(&DenyAll, &limits)) {
        walk(&alone);
    }
}

/// Opens `data` as a VHDX, or the file that it makes as a script of changes to a sound one, and checks it.
pub fn vhdx(data: &[u8]) {
    let (file, base): (Arc<dyn ReadAt>, Arc<dyn ReadAt>) = if data.starts_with(crate::vhdx::MAGIC) {
        (Arc::new(data.to_vec()), Arc::new(Vec::new()))
    } else {
        match scripted(data) {
            Ok((file, base)) => (Arc::new(file), Arc::new(base)),
            Err(_) => return,
        }
    };
    let (limits, parents) = (limits(), Any(base));
    if let Ok(image) = Vhdx::open(file, &Opener::new(&parents, &limits)) {
        drop(image.details());
        let _ = image.check(&mut Findings::default());
        walk(&image);
    }
}

/// The file that a script makes, and the parent of a differencing one: what [`vhdx`] and [`vhdx_repair`] open.
///
/// # Errors
/// None that is not a bug of ours.
pub fn vhdx_file(data: &[u8]) -> Result<(drylab_block::SparseBytes, drylab_block::SparseBytes)> {
    scripted(data)
}

/// Bytes copied by a plan that is still tried out.
const COPIED: u64 = 64 << 20;
/// Steps of a plan of which every prefix is tried out.
const STEPS: usize = 16;

/// Repairs the VHDX that a script makes: what is mended needs no second repair, what could be read reads the same, and
/// both after every prefix of the plan.
pub fn vhdx_repair(data: &[u8]) {
    let limits = limits();
    let opened = |file: Arc<dyn ReadAt>, base: Arc<dyn ReadAt>| {
        Vhdx::open(file, &Opener::new(&Any(base), &limits))
    };
    let Ok((file, base)) = scripted(data) else {
        return;
    };
    let (file, base) = (Arc::new(file), Arc::new(base));
    let Ok(image) = opened(file.clone(), base.clone()) else {
        return;
    };
    let Ok(plan) = image.repair() else { return };
    let copied = |edit: &Edit| match edit {
        Edit::Copy { length, .. } => *length,
        _ => 0,
    };
    if plan.edits().iter().map(copied).fold(0, u64::saturating_add) > COPIED {
        return;
    }
    let before = samples(&image);
    if plan.edits().len() <= STEPS {
        for count in 0..plan.edits().len() {
            let Ok((crashed, _)) = scripted(data) else {
                return;
            };
            let applied = plan.apply_first(count, &crashed);
            assert!(applied.is_ok(), "step {count} of a plan: {applied:?}");
            let image = opened(Arc::new(crashed), base.clone());
            let image = image.unwrap_or_else(|error| unopened(count, &error));
            still(&before, &image);
        }
    }
    let applied = plan.apply(&*file);
    assert!(applied.is_ok(), "a plan for its own file: {applied:?}");
    let image = opened(file, base).unwrap_or_else(|error| unopened(STEPS, &error));
    still(&before, &image);
    let mut found = image.noticed().clone();
    if image.check(&mut found).is_ok() {
        let left = found
            .list()
            .iter()
            .find(|finding| finding.rule.repair != Repair::No && finding.file.is_empty());
        assert!(left.is_none(), "left by a repair: {left:?}");
    }
}

#[expect(
    clippy::panic,
    reason = "a repair that leaves no image is a bug of ours"
)]
fn unopened(count: usize, error: &drylab_block::Error) -> Vhdx {
    panic!("not opened after {count} steps of a repair: {error}")
}

/// What can be read of a disk, at some places.
fn samples(disk: &dyn ReadAt) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    for extent in Extents::new(disk).take(64) {
        let last = extent
            .offset
            .saturating_add(extent.length)
            .saturating_sub(1);
        for at in [
            extent.offset,
            last.saturating_sub(last % PIECE).max(extent.offset),
        ] {
            let length = usize::try_from(disk.len().saturating_sub(at).min(PIECE)).unwrap_or(0);
            let mut bytes = vec![0; length];
            if disk.read_at(at, &mut bytes).is_ok() {
                found.push((at, bytes));
            }
        }
    }
    found
}

fn still(before: &[(u64, Vec<u8>)], disk: &dyn ReadAt) {
    for (at, bytes) in before {
        let mut now = vec![0; bytes.len()];
        let read = disk.read_at(*at, &mut now);
        assert!(
            read.is_ok() && now == *bytes,
            "what could be read at {at} is lost by a repair: {read:?}"
        );
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

/// Repairs `data` as a VHD, as it is and with its checksums set right.
pub fn vhd_repair(data: &[u8]) {
    let beside = Beside(parent(&Target::VhdFixed(crate::VhdOptions::default())));
    let limits = limits();
    let open = |source| {
        let opener = Opener::new(&beside, &limits);
        let image = Vhd::open(source, VhdSize::ByCreator, &opener).ok()?;
        let image: Box<dyn Container> = Box::new(image);
        Some(image)
    };
    repaired(data, &open);
    let mut bytes = data.to_vec();
    crate::vhd::mend(&mut bytes);
    repaired(&bytes, &open);
}

/// Opens `data` as a VDI. Whatever parent it names is a small fixed image.
pub fn vdi(data: &[u8]) {
    let beside = Beside(parent(&Target::VdiFixed(small_vdi())));
    let limits = limits();
    if let Ok(image) = Vdi::open(Arc::new(data.to_vec()), &Opener::new(&beside, &limits)) {
        drop(image.details());
        walk(&image);
        checked(&image);
    }
}

/// Repairs `data` as a VDI.
pub fn vdi_repair(data: &[u8]) {
    let beside = Beside(parent(&Target::VdiFixed(small_vdi())));
    let limits = limits();
    repaired(data, &|source| {
        let image = Vdi::open(source, &Opener::new(&beside, &limits)).ok()?;
        let image: Box<dyn Container> = Box::new(image);
        Some(image)
    });
}

fn small_vdi() -> crate::VdiOptions {
    crate::VdiOptions {
        block_bytes: 4096,
        ..crate::VdiOptions::qemu()
    }
}

/// A small disk as a file of a format.
fn parent(target: &Target) -> Arc<dyn ReadAt> {
    let (disk, file) = (SparseBytes::new(1 << 16), SparseBytes::default());
    let made = disk
        .write_at(700, b"parent")
        .and_then(|()| crate::write(&disk, target, &file));
    assert!(made.is_ok(), "a small disk can be written");
    Arc::new(file)
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

/// A plan of repair fits the file, and then nothing is left to repair and all that could be read reads the same.
fn repaired(data: &[u8], open: &dyn Fn(Arc<dyn ReadAt>) -> Option<Box<dyn Container>>) {
    let Some(image) = open(Arc::new(data.to_vec())) else {
        return;
    };
    let (Some(before), Ok(plan)) = (checked(&*image), image.repair()) else {
        return;
    };
    if added(&plan) > ADDED {
        return;
    }
    let file = Arc::new(SparseBytes::default());
    let done = file.write_at(0, data).and_then(|()| plan.apply(&*file));
    assert!(
        done.is_ok(),
        "a plan must fit the file it was made for: {done:?}"
    );
    let again = open(file);
    assert!(again.is_some(), "a repaired file must open");
    let Some(again) = again else { return };
    // Where the data area begins inside the map there may be no room for all blocks.
    let full = before.counts().contains_key("VDI-DATA-IN-METADATA");
    let after = checked(&*again).unwrap_or_default();
    for finding in after.list() {
        let code = finding.rule.code;
        assert!(
            full || finding.rule.repair == Repair::No,
            "{code} is left after the repair"
        );
    }
    same(&*image, &*again);
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

/// Opens `data` as the descriptor of a flat VMDK whose extents are files of 1 MiB.
pub fn vmdk_flat(data: &[u8]) {
    let beside = Beside(Arc::new(drylab_block::SparseBytes::new(1 << 20)));
    let limits = limits();
    let text: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    if let Ok(image) = Vmdk::open(text, &Opener::new(&beside, &limits)) {
        drop(image.details());
        walk(&image);
        checked(&image);
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
