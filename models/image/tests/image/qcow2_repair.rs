//! Repair of qcow2: every prefix of a plan leaves an image that reads as before, the whole one that checks clean.

use crate::common::{
    Kind, OnDisk, Piece, Plan as Disk, fill, have_qemu_img, packed, plans, prefixes, qemu_img,
};
use crate::qcow2_check::{OPTIONS, damage, text, their_counts};
use crate::qcow2_layers::Files;
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, copy_data};
use drylab_image::{
    Plan, Qcow2Compression, Qcow2Layers, Qcow2Options, Qcow2Version, Repair, Target, Work, fuzz,
    write_qcow2_layers,
};
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn copy(file: &dyn ReadAt) -> Arc<SparseBytes> {
    let copied = SparseBytes::default();
    copy_data(file, &copied).unwrap();
    Arc::new(copied)
}

/// The guest's bytes page by page, `None` where they cannot be read.
fn pages(file: &Arc<SparseBytes>, files: &Files) -> Vec<Option<Vec<u8>>> {
    let image = drylab_image::open_with(file.clone(), files, &Limits::DEFAULT).unwrap();
    (0..image.len())
        .step_by(4096)
        .map(|at| {
            let mut page = vec![0; (image.len() - at).min(4096) as usize];
            image.read_at(at, &mut page).ok().map(|()| page)
        })
        .collect()
}

/// Takes the prefixes of a plan ([`prefixes`]): what could be read reads the same. The result is the file after all of it. With `lossy`
/// what one of two claims said may go.
pub(crate) fn crash_safe(
    file: &Arc<SparseBytes>,
    plan: &Plan,
    files: &Files,
    lossy: bool,
) -> Arc<SparseBytes> {
    let before = pages(file, files);
    let edits = plan.edits().len();
    for count in prefixes(edits) {
        let crashed = copy(&**file);
        plan.apply_first(count, &*crashed).unwrap();
        let after = pages(&crashed, files);
        assert_eq!(before.len(), after.len());
        for (number, (old, new)) in before.iter().zip(&after).enumerate() {
            let same = old.is_none() || old == new || (lossy && new.is_none());
            assert!(
                same,
                "page {number} after {count} of {edits} edits: {:?}",
                plan.edits().get(count.max(1) - 1)
            );
        }
    }
    let mended = copy(&**file);
    plan.apply(&*mended).unwrap();
    mended
}

/// qemu-img finds nothing wrong with a file.
pub(crate) fn passes_qemu_img(file: &SparseBytes, what: &str) {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mended");
    copy_data(file, &OnDisk::create(&path)).unwrap();
    let said = qemu_img(&["check", "-f", "qcow2", text(&path)]);
    assert!(said.contains("No errors"), "{what}: {said}");
}

fn disk() -> Disk {
    let piece = |(offset, length, kind)| Piece {
        offset,
        length,
        kind,
    };
    let pieces = [
        (0, 20_000, Kind::Text(3)),
        (100_000, 60_000, Kind::Noise(9)),
        (400_000, 9000, Kind::Text(7)),
    ];
    Disk {
        size: 700_416,
        pieces: pieces.map(piece).to_vec(),
    }
}

/// Valid images small enough to be changed byte by byte.
pub(crate) fn valid() -> Vec<Arc<SparseBytes>> {
    let plain = Qcow2Layers::default();
    let zlib = Some((Qcow2Compression::Zlib, 6));
    let zstd = Some((Qcow2Compression::Zstd, 3));
    let all = [
        Qcow2Layers {
            cluster_bits: 12,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 9,
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 9,
            refcount_order: 0,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 12,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 10,
            refcount_order: 1,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 14,
            extended_l2: true,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 14,
            extended_l2: true,
            compression: zstd,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 16,
            refcount_order: 6,
            ..plain
        },
    ];
    let write = |layers: &Qcow2Layers<'_>| {
        let file = SparseBytes::default();
        write_qcow2_layers(&disk().disk(), layers, &file, &Work::ALONE).unwrap();
        Arc::new(file)
    };
    all.iter().map(write).collect()
}

fn bytes(file: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damaged_images_are_mended_step_by_step_without_loss(
        which in 0..8usize, damages in prop::collection::vec((0..13u8, any::<u64>()), 1..5),
    ) {
        thread_local!(static VALID: Vec<Arc<SparseBytes>> = valid());
        let file = VALID.with(|valid| copy(&*valid[which]));
        for (kind, random) in &damages {
            damage(&*file, *kind, *random);
        }
        let files = Files::default();
        let image = drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap();
        let found = image.check().unwrap();
        let lossy = found.list().iter().any(|finding| finding.rule.repair == Repair::Lossy);
        let Ok(plan) = image.repair() else {
            return Ok(());
        };
        let mended = crash_safe(&file, &plan, &files, lossy);
        let found = drylab_image::open(mended, &Limits::DEFAULT).unwrap().check().unwrap();
        let left = found.list().iter().find(|finding| finding.rule.repair != Repair::No);
        prop_assert!(left.is_none(), "{:?}", left);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn valid_images_with_a_few_changed_bytes_are_read_checked_and_mended_without_a_panic(
        which in 0..8usize,
        edits in prop::collection::vec((prop_oneof![3 => 0..120usize, 2 => 0..8192usize, 4 => any::<usize>()], any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        thread_local!(static VALID: Vec<Vec<u8>> = valid().iter().map(|file| bytes(&**file)).collect());
        let mut bytes = VALID.with(|valid| valid[which].clone());
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::qcow2(&bytes);
        fuzz::qcow2_repair(&bytes);
    }

    #[test]
    fn tables_of_small_numbers_are_read_checked_and_mended_without_a_panic(
        which in 0..8usize, from in 512..60_000usize, seed in any::<u64>(),
    ) {
        thread_local!(static VALID: Vec<Vec<u8>> = valid().iter().map(|file| bytes(&**file)).collect());
        let mut bytes = VALID.with(|valid| valid[which].clone());
        let from = from.min(bytes.len() - 1) / 8 * 8;
        for (place, noise) in bytes[from..].chunks_exact_mut(8).zip(fill(Kind::Noise(seed), 2000)) {
            // Offsets of clusters, with one bit or another set.
            let bits = u64::from(noise & 0xc0) << 56;
            let value = (u64::from(noise % 64) * 4096) | bits;
            if noise % 3 != 0 {
                place.copy_from_slice(&value.to_be_bytes());
            }
        }
        fuzz::qcow2(&bytes);
        fuzz::qcow2_repair(&bytes);
    }
}

#[test]
fn a_cluster_whose_place_is_past_the_end_of_the_data_file_is_given_up_at_once() {
    // Found by the test above: 100,000 bytes of a data file, and the bit of the header that asks for it.
    let mut bytes = bytes(&*valid()[5]);
    bytes[79] = 0x14;
    fuzz::qcow2_repair(&bytes);
}

#[test]
fn theirs_damaged_and_mended_by_us_passes_their_check() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let damages = prop::collection::vec((0..13u8, any::<u64>()), 1..5);
    let cases = (
        plans(8 << 20),
        prop::sample::select(OPTIONS.to_vec()),
        damages,
    );
    let mended = std::cell::Cell::new(0);
    runner
        .run(&cases, |(plan, options, damages)| {
            let plan = Disk {
                size: plan.size.next_multiple_of(512),
                ..plan
            };
            drylab_image::write(&plan.disk(), &Target::Raw, &OnDisk::create(&raw)).unwrap();
            let command = [
                &["convert", "-O", "qcow2"],
                options,
                &[text(&raw), text(&path)],
            ];
            qemu_img(&command.concat());
            let file = crate::common::changeable(&path);
            for (kind, random) in &damages {
                damage(&file, *kind, *random);
            }
            let image = crate::qcow2_check::open(&path).unwrap();
            let (found, plan) = (image.check().unwrap(), image.repair());
            let Ok(plan) = plan else {
                return Ok(());
            };
            plan.apply(&file).unwrap();
            let unmended = found
                .list()
                .iter()
                .any(|finding| finding.rule.repair == Repair::No);
            if !unmended {
                prop_assert_eq!(
                    their_counts(&path),
                    Some((0, 0)),
                    "{:?} {:?}",
                    found.list(),
                    plan.edits()
                );
                mended.set(mended.get() + u32::from(!plan.is_empty()));
            }
            Ok(())
        })
        .unwrap();
    assert!(mended.get() > 24, "{}", mended.get());
}

#[test]
fn a_sound_image_needs_no_repair() {
    for file in valid() {
        let image = drylab_image::open(file, &Limits::DEFAULT).unwrap();
        assert!(image.repair().unwrap().is_empty());
    }
    let file = packed(
        &disk().disk(),
        &Target::Qcow2(Qcow2Options {
            compress: true,
            ..Default::default()
        }),
    );
    assert!(
        drylab_image::open(file, &Limits::DEFAULT)
            .unwrap()
            .repair()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_file_behind_whose_end_nothing_can_be_written_is_left_alone_by_a_failing_plan() {
    let file = valid().remove(0);
    let broken = copy(&*file);
    broken.write_at(72, &1u64.to_be_bytes()).unwrap();
    let plan = drylab_image::open(broken.clone(), &Limits::DEFAULT)
        .unwrap()
        .repair()
        .unwrap();
    assert!(
        plan.apply(&*file).is_err(),
        "another file than it was made for"
    );
    assert_eq!(bytes(&*file), bytes(&*valid().remove(0)));
}

#[test]
fn what_fuzzing_found_in_the_repair_of_a_qcow2_is_mended_or_refused() {
    // One table for two places of a data file, where others had been looked at until the bound.
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../corpora/fuzz/qcow2_repair"
    );
    let bytes = std::fs::read(format!("{corpus}/tables-for-several-places")).unwrap();
    drylab_image::fuzz::qcow2_repair(&bytes);
}
