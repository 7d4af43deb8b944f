//! Resize of qcow2: every prefix of a plan has the old disk or the new one.

use crate::common::{
    Kind, OnDisk, Piece, Plan as Disk, assert_same, have_qemu_img, plans, qemu_img,
};
use crate::qcow2::{raw_file, sparse};
use crate::qcow2_check::{open, text};
use crate::qcow2_layers::Files;
use crate::qcow2_repair::{copy, passes_qemu_img};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, copy_data};
use drylab_image::{
    Qcow2Backing, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Version, Work,
    write_qcow2_layers,
};
use proptest::prelude::*;
use std::sync::Arc;

/// The disk with another size: cut, or with zeros behind its end.
fn with_size(disk: &SparseBytes, size: u64) -> SparseBytes {
    let other = SparseBytes::default();
    copy_data(disk, &other).unwrap();
    other.set_len(size.min(disk.len())).unwrap();
    other.set_len(size).unwrap();
    other
}

fn layers() -> Vec<Qcow2Layers<'static>> {
    let plain = Qcow2Layers::default();
    let zlib = Some((Qcow2Compression::Zlib, 6));
    vec![
        Qcow2Layers {
            cluster_bits: 9,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 9,
            version: Qcow2Version::V2,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 9,
            refcount_order: 6,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 12,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 16,
            compression: zlib,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 14,
            extended_l2: true,
            ..plain
        },
        Qcow2Layers {
            cluster_bits: 16,
            ..plain
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn each_prefix_of_a_resize_has_the_old_disk_or_the_new_one(
        plan in plans(3 << 20), which in 0..7usize, size in 0..(40u64 << 20), near in any::<bool>(),
    ) {
        let plan = Disk { size: plan.size.next_multiple_of(512), ..plan };
        let disk = plan.disk();
        let size = if near { size % (plan.size + 4096) } else { size } / 512 * 512;
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&disk, &layers()[which], &*file, &Work::ALONE).unwrap();
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        let resized = image.resize(size).unwrap();
        let new = with_size(&disk, size);
        let edits = resized.edits().len();
        for count in (0..edits).step_by(edits / 12 + 1).chain([edits]) {
            let crashed = copy(&*file);
            resized.apply_first(count, &*crashed).unwrap();
            let image = drylab_image::open(crashed, &Limits::DEFAULT).unwrap();
            let expected = if image.len() == size { &new } else { &disk };
            prop_assert_eq!(image.len(), expected.len());
            assert_same(expected, &image);
        }
        let mended = copy(&*file);
        resized.apply(&*mended).unwrap();
        let image = drylab_image::open(mended.clone(), &Limits::DEFAULT).unwrap();
        prop_assert_eq!(image.len(), size);
        let found = image.check().unwrap();
        prop_assert!(found.is_empty(), "{:?}", found.list());
        // And back: what was cut off does not come again.
        let back = image.resize(plan.size).unwrap();
        back.apply(&*mended).unwrap();
        let image = drylab_image::open(mended, &Limits::DEFAULT).unwrap();
        assert_same(&with_size(&new, plan.size), &image);
        prop_assert!(image.check().unwrap().is_empty());
    }
}

#[test]
fn ours_resized_passes_qemu_img_and_reads_the_same_there() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    for (layers, size) in layers().into_iter().zip([
        0u64,
        512,
        900 << 10,
        40 << 20,
        3 << 30,
        (4 << 30) + 512,
        2 << 40,
    ]) {
        let disk = sparse((1 << 20) + 512).disk();
        let file = OnDisk::create(&path);
        write_qcow2_layers(&disk, &layers, &file, &Work::ALONE).unwrap();
        open(&path)
            .unwrap()
            .resize(size)
            .unwrap()
            .apply(&file)
            .unwrap();
        raw_file(&raw, &with_size(&disk, size));
        let said = qemu_img(&["check", "-f", "qcow2", text(&path)]);
        assert!(said.contains("No errors"), "{layers:?} {size}: {said}");
        let said = qemu_img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            text(&raw),
            text(&path),
        ]);
        assert!(said.contains("identical"), "{layers:?} {size}: {said}");
    }
}

#[test]
fn an_image_with_snapshots_grows_as_qemu_img_lets_it_and_does_not_shrink() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let old = sparse((1 << 20) + 512).disk();
    raw_file(&raw, &old);
    for (options, grows) in [
        ("cluster_size=512", true),
        ("cluster_size=64k", true),
        ("compat=0.10", false),
    ] {
        qemu_img(&[
            "convert",
            "-O",
            "qcow2",
            "-o",
            options,
            text(&raw),
            text(&path),
        ]);
        qemu_img(&["snapshot", "-c", "s", text(&path)]);
        let image = open(&path).unwrap();
        assert!(
            image
                .resize(512)
                .unwrap_err()
                .to_string()
                .contains("snapshots"),
            "{options}"
        );
        let plan = image.resize(20 << 20);
        let Ok(plan) = plan else {
            let error = plan.unwrap_err().to_string();
            assert!(
                !grows || error.contains("shares the table"),
                "{options}: {error}"
            );
            continue;
        };
        assert!(grows);
        plan.apply(&crate::common::changeable(&path)).unwrap();
        let said = qemu_img(&["check", "-f", "qcow2", text(&path)]);
        assert!(said.contains("No errors"), "{options}: {said}");
        assert_same(&with_size(&old, 20 << 20), &open(&path).unwrap());
        qemu_img(&["snapshot", "-a", "s", text(&path)]);
        assert_same(&old, &open(&path).unwrap());
    }
}

#[test]
fn what_cannot_be_resized_is_refused_with_the_reason() {
    let disk = Disk {
        size: 1 << 20,
        pieces: vec![],
    }
    .disk();
    let parent = SparseBytes::new(4 << 20);
    let data = SparseBytes::default();
    let plain = Qcow2Layers::default();
    let write = |layers: &Qcow2Layers<'_>| {
        let file = SparseBytes::default();
        write_qcow2_layers(&disk, layers, &file, &Work::ALONE).unwrap();
        Arc::new(file)
    };
    let base: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(4 << 20));
    let other: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(1 << 20));
    let files = Files([("base", base), ("data", other)].into());
    let refused = |file: Arc<SparseBytes>, size: u64, words: &str| {
        let image = drylab_image::open_with(file, &files, &Limits::DEFAULT).unwrap();
        let error = image.resize(size).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(write(&plain), 1000, "whole sectors");
    refused(
        write(&Qcow2Layers {
            cluster_bits: 9,
            ..plain
        }),
        1 << 40,
        "32 MiB",
    );
    let backing = Some(Qcow2Backing {
        disk: &parent,
        name: "base",
        format: "raw",
    });
    refused(
        write(&Qcow2Layers { backing, ..plain }),
        8 << 20,
        "backing file is longer",
    );
    let data_file = Some(Qcow2DataFile {
        sink: &data,
        name: "data",
        raw: true,
    });
    refused(
        write(&Qcow2Layers { data_file, ..plain }),
        8 << 20,
        "data file",
    );
    let damaged = write(&plain);
    damaged.write_at(72, &2u64.to_be_bytes()).unwrap();
    refused(damaged, 8 << 20, "repair it first");
    let same = drylab_image::open(write(&plain), &Limits::DEFAULT).unwrap();
    assert!(same.resize(1 << 20).unwrap().is_empty());
}

#[test]
fn bytes_behind_the_end_of_the_disk_do_not_appear_when_it_grows() {
    // A writer that left something in the rest of the last cluster.
    for compression in [None, Some((Qcow2Compression::Zlib, 6))] {
        let pieces = vec![Piece {
            offset: 0,
            length: 65_536,
            kind: Kind::Text(9),
        }];
        let disk = Disk {
            size: 65_536,
            pieces,
        }
        .disk();
        let layers = Qcow2Layers {
            compression,
            ..Qcow2Layers::default()
        };
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&disk, &layers, &*file, &Work::ALONE).unwrap();
        file.write_at(24, &5120u64.to_be_bytes()).unwrap();
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        image.resize(1 << 20).unwrap().apply(&*file).unwrap();
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        assert_same(&with_size(&with_size(&disk, 5120), 1 << 20), &image);
        passes_qemu_img(&file, "grown");
    }
}
