//! Plans of repair and resize, taken step by step as a crash would leave the file.

use crate::common::{OnDisk, qemu_img, try_qemu_img};
use drylab_block::{Limits, ReadAt, Result, SparseBytes, WriteAt};
use drylab_image::{Finding, Image, Plan};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes looked at as one.
const PIECE: u64 = 4096;

pub(crate) type Open<'a> = &'a dyn Fn(Arc<dyn ReadAt>) -> Result<Image>;

pub(crate) fn plainly(file: Arc<dyn ReadAt>) -> Result<Image> {
    drylab_image::open(file, &Limits::DEFAULT)
}

pub(crate) fn sparse(bytes: &[u8]) -> SparseBytes {
    let file = SparseBytes::default();
    file.write_at(0, bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file
}

pub(crate) fn all(file: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// What can be read of a disk, piece by piece.
pub(crate) fn readable(image: &dyn ReadAt) -> Vec<Option<Vec<u8>>> {
    let read = |at: u64| {
        let mut piece = vec![0; PIECE.min(image.len() - at) as usize];
        image.read_at(at, &mut piece).ok().map(|()| piece)
    };
    (0..image.len()).step_by(PIECE as usize).map(read).collect()
}

/// Whether all that `before` could be read reads the same.
fn keeps(before: &[Option<Vec<u8>>], now: &[Option<Vec<u8>>]) -> bool {
    before.len() == now.len()
        && before
            .iter()
            .zip(now)
            .all(|(old, new)| old.is_none() || old == new)
}

pub(crate) fn codes(found: &[Finding]) -> Vec<&'static str> {
    let mut codes: Vec<_> = found.iter().map(|f| f.rule.code).collect();
    codes.dedup();
    codes
}

/// Takes the plan prefix by prefix: each opens, and has the bytes of before or those of after. The result is the file
/// when all is done.
#[track_caller]
pub(crate) fn every_prefix(file: &[u8], plan: &Plan, open: Open<'_>) -> Vec<u8> {
    let before = readable(&open(Arc::new(file.to_vec())).unwrap());
    let done = sparse(file);
    plan.apply(&done).unwrap();
    let done = all(&done);
    let after = readable(&open(Arc::new(done.clone())).unwrap());
    for count in 0..=plan.edits().len() {
        let crashed = Arc::new(sparse(file));
        plan.apply_first(count, &*crashed).unwrap();
        let image = open(crashed).unwrap_or_else(|error| {
            let last = count.checked_sub(1).map(|last| &plan.edits()[last]);
            panic!("after {count} steps, the last {last:?}: {error}")
        });
        let now = readable(&image);
        assert!(
            keeps(&before, &now) || keeps(&after, &now),
            "other bytes after {count} of {} steps",
            plan.edits().len()
        );
    }
    done
}

/// Repairs a file in every prefix; the disk stays what could be read of it, and nothing is left to repair.
#[track_caller]
pub(crate) fn repaired(file: &[u8], expected: &[&str], open: Open<'_>) -> Vec<u8> {
    let image = open(Arc::new(file.to_vec())).unwrap();
    let found = image.check().unwrap();
    for code in expected {
        assert!(
            found.counts().contains_key(code),
            "{code} in {:?}",
            codes(found.list())
        );
    }
    let plan = image.repair().unwrap();
    assert!(!plan.is_empty());
    let done = every_prefix(file, &plan, open);
    let again = open(Arc::new(done.clone())).unwrap();
    assert!(
        keeps(&readable(&image), &readable(&again)),
        "bytes are kept"
    );
    let left = again.check().unwrap();
    for code in expected {
        assert!(
            !left.counts().contains_key(code),
            "{code} in {:?}",
            codes(left.list())
        );
    }
    assert!(again.repair().unwrap().is_empty(), "nothing is left to do");
    done
}

/// Resizes a file in every prefix, and compares the disk with the one expected.
#[track_caller]
pub(crate) fn resized(file: &[u8], size: u64, open: Open<'_>) -> Vec<u8> {
    let image = open(Arc::new(file.to_vec())).unwrap();
    let plan = image.resize(size).unwrap();
    let done = every_prefix(file, &plan, open);
    let again = open(Arc::new(done.clone())).unwrap();
    let bad: Vec<_> = again
        .check()
        .unwrap()
        .list()
        .iter()
        .map(|finding| finding.rule.code)
        .filter(|code| *code != "VHD-TWO-SIZES")
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    let (old, new) = (all(&image), all(&again));
    let kept = old.len().min(new.len());
    assert!(
        old[..kept] == new[..kept],
        "the bytes before the new end stay"
    );
    assert!(
        new[kept..].iter().all(|byte| *byte == 0),
        "what is new is zero"
    );
    done
}

/// Writes a file to a folder that is gone when the handle is.
pub(crate) fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    OnDisk::create(&path).write_at(0, bytes).unwrap();
    (folder, path)
}

/// qemu-img reads the file to the bytes that we read.
#[track_caller]
pub(crate) fn qemu_reads(file: &[u8], format: &str) {
    let (folder, path) = on_disk(file);
    let back = folder.path().join("back");
    let (path, raw) = (path.to_str().unwrap(), back.to_str().unwrap());
    qemu_img(&["convert", "-f", format, "-O", "raw", path, raw]);
    let ours = all(&plainly(Arc::new(file.to_vec())).unwrap());
    assert!(std::fs::read(&back).unwrap() == ours);
    if format == "vdi" {
        let verdict = try_qemu_img(&["check", "-f", format, path]);
        let text = String::from_utf8_lossy(&verdict.stdout).into_owned();
        assert!(
            verdict.status.success() && text.contains("No errors"),
            "{text}"
        );
    }
}
