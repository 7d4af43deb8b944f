//! Check of qcow2 images: the same leaks and corruptions as qemu-img finds.

use crate::common::{
    Folder, OnDisk, Plan, changeable, have_qemu_img, plans, qemu_img, try_qemu_img,
};
use drylab_block::{Limits, ReadAt, WriteAt, be_u32, be_u64};
use drylab_image::{Finding, Findings, Image, Target};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn open(path: &Path) -> drylab_block::Result<Image> {
    let beside = Folder(path.parent().unwrap().to_owned());
    drylab_image::open_with(Arc::new(OnDisk::open(path)), &beside, &Limits::DEFAULT)
}

/// What qemu-img counts, or `None` where it cannot look at the file or at a part of it.
pub(crate) fn their_counts(path: &Path) -> Option<(u64, u64)> {
    let output = try_qemu_img(&["check", "-f", "qcow2", "--output", "json", text(path)]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let number = |key: &str| said[key].as_u64().unwrap_or(0);
    (number("check-errors") == 0).then(|| (number("leaks"), number("corruptions")))
}

/// Rules whose places qemu-img counts as corruptions.
const THEIRS: &[&str] = &[
    "QCOW2-REFCOUNT",
    "QCOW2-REFCOUNT-BLOCK",
    "QCOW2-COPIED-L1",
    "QCOW2-COPIED-L2",
    "QCOW2-L1-RESERVED",
    "QCOW2-L1-ALIGNMENT",
    "QCOW2-L1-BEYOND-END",
    "QCOW2-L2-RESERVED",
    "QCOW2-ZERO-PLACE",
    "QCOW2-ALIGNMENT",
    "QCOW2-BEYOND-END",
    "QCOW2-PACKED-BEYOND-END",
    "QCOW2-PACKED-COPIED",
    "QCOW2-SUBCLUSTERS",
    "QCOW2-TABLE-BEYOND-END",
];

pub(crate) fn our_counts(found: &Findings) -> (u64, u64) {
    let count = |code: &str| found.counts().get(code).copied().unwrap_or(0);
    // Of overlaps it knows those with refcount blocks.
    let block = |found: &&Finding| {
        found.rule.code.starts_with("QCOW2-OVERLAP") && found.found.contains("refcount block")
    };
    let blocks = found.list().iter().filter(block).count() as u64;
    let corruptions: u64 = THEIRS.iter().map(|code| count(code)).sum();
    (count("QCOW2-LEAK"), corruptions + blocks)
}

/// How qemu-img is asked for an image.
pub(crate) const OPTIONS: &[&[&str]] = &[
    &["-o", "compat=0.10"],
    &["-o", "compat=1.1"],
    &["-o", "cluster_size=512,refcount_bits=1"],
    &["-o", "cluster_size=512,refcount_bits=64"],
    &["-o", "cluster_size=4k,refcount_bits=2"],
    &["-o", "cluster_size=1k,refcount_bits=8"],
    &["-o", "cluster_size=16k,extended_l2=on,refcount_bits=32"],
    &["-c", "-o", "cluster_size=4k"],
    &["-c", "-o", "compression_type=zstd"],
    &["-c", "-o", "cluster_size=16k,extended_l2=on"],
    &["-o", "cluster_size=4k,preallocation=metadata"],
];

struct Layout {
    cluster: u64,
    l1: u64,
    l1_size: u64,
    refcounts: u64,
    entry: u64,
}

fn layout(file: &dyn ReadAt) -> Layout {
    let mut head = [0; 104];
    file.read_at(0, &mut head).unwrap();
    let v3 = be_u32(&head, 4) == Some(3);
    let extended = v3 && head[79] & 0x10 != 0;
    Layout {
        cluster: 1 << be_u32(&head, 20).unwrap(),
        l1: be_u64(&head, 40).unwrap(),
        l1_size: u64::from(be_u32(&head, 36).unwrap()),
        refcounts: be_u64(&head, 48).unwrap(),
        entry: if extended { 16 } else { 8 },
    }
}

fn word(file: &dyn ReadAt, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_at(at, &mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}

/// Damages one thing; `true` when there was such a thing.
pub(crate) fn damage(file: &dyn WriteAt, kind: u8, random: u64) -> bool {
    let it = layout(file);
    let put = |at: u64, value: u64| file.write_at(at, &value.to_be_bytes()).unwrap();
    let place = 0x00ff_ffff_ffff_fe00u64;
    let l1: Vec<u64> = (0..it.l1_size)
        .map(|n| it.l1 + n * 8)
        .filter(|at| word(file, *at) & place != 0)
        .collect();
    if kind < 3 {
        // The first refcount block: any byte of those that describe clusters of the file.
        let block = word(file, it.refcounts);
        let at = block + random % it.cluster.min(64);
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        let new = [byte[0] ^ (1 << (random >> 32 & 7))];
        file.write_at(at, &new).unwrap();
        return true;
    }
    let Some(first) = l1.get(random as usize % l1.len().max(1)) else {
        return false;
    };
    match kind {
        3 => put(*first, word(file, *first) ^ 1 << 63),
        4 => put(*first, word(file, *first) | 1 << (random >> 32 & 7)),
        _ => {
            let table = word(file, *first) & place;
            let used: Vec<u64> = (0..it.cluster / it.entry)
                .map(|n| table + n * it.entry)
                .filter(|at| word(file, *at) != 0)
                .collect();
            let Some(at) = used.get((random >> 16) as usize % used.len().max(1)) else {
                return false;
            };
            let old = word(file, *at);
            let packed = old >> 62 & 1 == 1;
            match kind {
                5 => put(*at, 0),
                6 => put(*at, old ^ 1 << 63),
                7 if !packed => put(*at, old | 1 << (1 + (random >> 40) % 8)),
                8 if !packed => put(*at, old + 512 * (1 + (random >> 40) % (it.cluster / 512))),
                9 if !packed => put(
                    *at,
                    (old & !place) | ((file.len() / it.cluster + 5) * it.cluster),
                ),
                10 => {
                    let other = (random >> 40) % (file.len() / it.cluster).max(1);
                    put(*at, 1 << 63 | (other * it.cluster));
                }
                // A bitmap beside compressed bytes: qemu-img then takes those for leaked, and we do not.
                11 if it.entry == 16 && !packed => put(*at + 8, random),
                12 if packed => put(*at, old | 0xff_ffff_ffff),
                _ => return false,
            }
        }
    }
    true
}

#[test]
fn leaks_and_corruptions_are_as_many_as_qemu_img_counts() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let damages = prop::collection::vec((0..13u8, any::<u64>()), 0..4);
    let cases = (
        plans(12 << 20),
        prop::sample::select(OPTIONS.to_vec()),
        damages,
    );
    let seen = std::cell::Cell::new((0, 0));
    let wrong = std::cell::RefCell::new(Vec::new());
    runner
        .run(&cases, |(plan, options, damages)| {
            let plan = Plan {
                size: plan.size.next_multiple_of(512),
                ..plan
            };
            drylab_image::write(&plan.disk(), &Target::Raw, &OnDisk::create(&raw)).unwrap();
            let command = [
                &["convert", "-O", "qcow2"],
                options,
                &[text(&raw), text(&file)],
            ];
            qemu_img(&command.concat());
            for (kind, random) in &damages {
                damage(&changeable(&file), *kind, *random);
            }
            let Some(theirs) = their_counts(&file) else {
                return Ok(());
            };
            let found = open(&file).unwrap().check().unwrap();
            let said: Vec<String> = found
                .list()
                .iter()
                .map(|f| format!("{} {}", f.rule.code, f.message()))
                .collect();
            let (count, bad) = seen.get();
            seen.set((count + 1, bad + u32::from(theirs != (0, 0))));
            if our_counts(&found) != theirs {
                let ours = our_counts(&found);
                let words = qemu_check(&file);
                wrong.borrow_mut().push(format!(
                    "{options:?} {damages:x?}\n{ours:?} {theirs:?} {said:#?}\n{words}"
                ));
            }
            Ok(())
        })
        .unwrap();
    let wrong = wrong.into_inner();
    let first: Vec<_> = wrong.iter().take(4).collect();
    assert!(
        wrong.is_empty(),
        "{} disagree: {}",
        wrong.len(),
        first.iter().map(|s| s.as_str()).collect::<String>()
    );
    let (count, bad) = seen.get();
    assert!(
        count > 64 && bad > 32,
        "{count} images compared, {bad} of them damaged"
    );
}

fn qemu_check(path: &Path) -> String {
    let output = try_qemu_img(&["check", "-f", "qcow2", text(path)]);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
