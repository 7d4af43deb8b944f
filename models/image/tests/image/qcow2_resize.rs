//! Resize of qcow2: every prefix of a plan has the old disk or the new one.

use crate::common::{
    Kind, OnDisk, Piece, Plan as Disk, assert_same, fill, have_qemu_img, plans, prefixes, qemu_img,
    unflushed,
};
use crate::qcow2::{raw_file, sparse};
use crate::qcow2_check::{open, text};
use crate::qcow2_layers::Files;
use crate::qcow2_repair::{copy, passes_qemu_img};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, be_u32, be_u64, copy_data};
use drylab_image::{
    Image, Options, Qcow2Backing, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Version, Work,
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
        for count in prefixes(edits) {
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
fn an_image_with_snapshots_grows_and_shrinks_and_its_snapshots_keep_every_byte() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let old = sparse((1 << 20) + 512).disk();
    for options in [
        "cluster_size=512",
        "cluster_size=64k",
        "cluster_size=16k,extended_l2=on",
    ] {
        raw_file(&raw, &old);
        let convert = ["convert", "-O", "qcow2", "-o", options];
        qemu_img(&[&convert[..], &[text(&raw), text(&path)]].concat());
        let image = ["--image-opts", &unflushed(&path)];
        qemu_img(&[&["snapshot", "-c", "s"], &image[..]].concat());
        let new = with_size(&old, old.len());
        new.write_at(5000, &fill(Kind::Noise(4), 30_000)).unwrap();
        raw_file(&raw, &new);
        qemu_img(&["convert", "-n", "-O", "qcow2", text(&raw), text(&path)]);
        let sound = copy(&OnDisk::open(&path));
        for size in [0, 512, 300 << 10, (1 << 20) + 1024, 20 << 20] {
            let file = copy(&*sound);
            let image = open_in_memory(&file, None);
            let plan = image.resize(size).unwrap();
            let expected = with_size(&new, size);
            for count in prefixes(plan.edits().len()) {
                let crashed = copy(&*file);
                plan.apply_first(count, &*crashed).unwrap();
                let image = open_in_memory(&crashed, None);
                let same = if image.len() == size { &expected } else { &new };
                assert_same(same, &image);
                assert_same(&old, &open_in_memory(&crashed, Some("s")));
            }
            plan.apply(&*file).unwrap();
            let found = open_in_memory(&file, None).check().unwrap();
            assert_eq!(
                found.counts().keys().copied().collect::<Vec<_>>(),
                ["QCOW2-SNAPSHOTS"],
                "{options} {size}: {:?}",
                found.list()
            );
            copy_data(&*file, &OnDisk::create(&path)).unwrap();
            let said = qemu_img(&["check", "-f", "qcow2", text(&path)]);
            assert!(said.contains("No errors"), "{options} {size}: {said}");
            let opts = unflushed(&path);
            qemu_img(&["snapshot", "-a", "s", "--image-opts", &opts]);
            assert_same(&old, &open(&path).unwrap());
        }
    }
}

fn open_in_memory(file: &Arc<SparseBytes>, snapshot: Option<&str>) -> Image {
    let options = Options {
        snapshot,
        ..Options::DEFAULT
    };
    drylab_image::open_as(file.clone(), &options).unwrap()
}

#[test]
fn dirty_bitmaps_keep_their_bits_as_long_as_their_tables_fit() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, raw) = (folder.path().join("a.qcow2"), folder.path().join("a.raw"));
    // A bit for 64 KiB, and 4096 bits in a cluster: one entry for 256 MiB.
    let options = "cluster_size=512";
    qemu_img(&["create", "-f", "qcow2", "-o", options, text(&path), "64M"]);
    qemu_img(&["bitmap", "--add", "-g", "64k", text(&path), "b"]);
    let disk = sparse(64 << 20).disk();
    raw_file(&raw, &disk);
    qemu_img(&["convert", "-n", "-O", "qcow2", text(&raw), text(&path)]);
    let error = open(&path).unwrap().resize(257 << 20).unwrap_err();
    assert!(error.to_string().contains("its bitmap \"b\""), "{error}");
    let mut bits = Vec::new();
    for size in [256 << 20, 40 << 20, (40 << 20) + 512] {
        let file = crate::common::changeable(&path);
        open(&path)
            .unwrap()
            .resize(size)
            .unwrap()
            .apply(&file)
            .unwrap();
        let image = open(&path).unwrap();
        let found = image.check().unwrap();
        assert_eq!(
            found.counts().keys().copied().collect::<Vec<_>>(),
            ["QCOW2-BITMAPS"]
        );
        let said = qemu_img(&["check", "-f", "qcow2", text(&path)]);
        assert!(said.contains("No errors"), "{size}: {said}");
        bits.push(dirty(&OnDisk::open(&path), 64 << 10));
    }
    // The bits of what was cut off are gone for good.
    let (whole, cut) = (bits[0].clone(), &bits[1]);
    assert!(
        !whole.is_empty() && whole.iter().any(|at| *at >= 40 << 20),
        "{whole:?}"
    );
    let kept: Vec<u64> = whole.into_iter().filter(|at| *at < 40 << 20).collect();
    assert_eq!((cut, &bits[2]), (&kept, &kept));
}

/// Offsets of the disk that the first bitmap of an image calls dirty, each for `grain` bytes.
fn dirty(file: &dyn ReadAt, grain: u64) -> Vec<u64> {
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_at(at, &mut bytes).unwrap();
        bytes
    };
    let head = read(0, 512);
    let mut at = be_u32(&head, 100).unwrap() as usize;
    while be_u32(&head, at) != Some(0x2385_2875) {
        at += 8 + be_u32(&head, at + 4).unwrap().next_multiple_of(8) as usize;
    }
    let directory = read(be_u64(&head, at + 24).unwrap(), 24);
    let table = be_u64(&directory, 0).unwrap();
    assert_eq!(be_u32(&directory, 8), Some(1), "one entry in its table");
    let cluster = be_u64(&read(table, 8), 0).unwrap();
    let bits = read(cluster & 0x00ff_ffff_ffff_fe00, 512);
    let is_set = |n: &u64| bits[*n as usize / 8] >> (n % 8) & 1 == 1;
    (0..4096).filter(is_set).map(|n| n * grain).collect()
}

/// A child of a raw file, in memory.
fn over(parent: &SparseBytes, layers: Qcow2Layers<'_>, disk: &SparseBytes) -> Arc<SparseBytes> {
    let backing = Some(Qcow2Backing {
        disk: parent,
        name: "base",
        format: "raw",
    });
    let file = Arc::new(SparseBytes::default());
    let layers = Qcow2Layers { backing, ..layers };
    write_qcow2_layers(disk, &layers, &*file, &Work::ALONE).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_child_shows_nothing_more_of_what_it_stands_on_when_it_grows(
        below in plans(3 << 20), own in plans(3 << 20), which in 0..6usize, size in 0..(5u64 << 20), seed in any::<u64>(),
    ) {
        let size = size / 512 * 512;
        // Most of what is below is nothing that could be taken for zeros.
        let parent = with_size(&below.disk(), below.size.next_multiple_of(512));
        parent.write_at(parent.len() / 2, &fill(Kind::Noise(seed), (parent.len() / 2) as usize)).unwrap();
        let disk = with_size(&parent, own.size.next_multiple_of(512));
        for piece in &own.pieces {
            let inside = disk.len().saturating_sub(piece.offset).min(piece.length as u64) as usize;
            disk.write_at(piece.offset, &fill(piece.kind, inside)).unwrap();
        }
        let all = layers();
        let layers = all.iter().filter(|layers| layers.version == Qcow2Version::V3).nth(which).unwrap();
        let file = over(&parent, *layers, &disk);
        let base: Arc<dyn ReadAt> = copy(&parent);
        let files = Files([("base", base)].into());
        let open = |file: &Arc<SparseBytes>| {
            drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap()
        };
        let plan = open(&file).resize(size).unwrap();
        let new = with_size(&disk, size);
        for count in prefixes(plan.edits().len()) {
            let crashed = copy(&*file);
            plan.apply_first(count, &*crashed).unwrap();
            let image = open(&crashed);
            assert_same(if image.len() == size { &new } else { &disk }, &image);
        }
        plan.apply(&*file).unwrap();
        prop_assert!(open(&file).check().unwrap().is_empty());
        let back = open(&file).resize(disk.len()).unwrap();
        back.apply(&*file).unwrap();
        assert_same(&with_size(&new, disk.len()), &open(&file));
        prop_assert!(open(&file).check().unwrap().is_empty());
    }
}

#[test]
fn an_image_with_a_data_file_is_resized_where_that_file_can_stay_as_it_is() {
    let data = Arc::new(SparseBytes::default());
    let disk = sparse(1 << 20).disk();
    for extended_l2 in [false, true] {
        let data_file = Some(Qcow2DataFile {
            sink: &*data,
            name: "data",
            raw: false,
        });
        let layers = Qcow2Layers {
            extended_l2,
            data_file,
            ..Qcow2Layers::default()
        };
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&disk, &layers, &*file, &Work::ALONE).unwrap();
        let files = Files([("data", data.clone() as Arc<dyn ReadAt>)].into());
        let open = || drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap();
        let mut expected = copy(&disk);
        for size in [3 << 30, 5 << 10, 512] {
            open().resize(size).unwrap().apply(&*file).unwrap();
            expected = Arc::new(with_size(&expected, size));
            assert_same(&*expected, &open());
            let found = open().check().unwrap();
            assert!(found.is_empty(), "{:?}", found.list());
        }
        // The data file still has the bytes that were cut off.
        let error = open().resize(1 << 20).unwrap_err().to_string();
        assert!(error.contains("zeros behind the disk's end"), "{error}");
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
        write(&Qcow2Layers {
            backing,
            version: Qcow2Version::V2,
            ..plain
        }),
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
        "its data file is the disk",
    );
    let damaged = write(&plain);
    damaged.write_at(72, &2u64.to_be_bytes()).unwrap();
    refused(damaged, 8 << 20, "repair it first");
    // One snapshot, whose L1 table is the image's.
    let old = write(&Qcow2Layers {
        version: Qcow2Version::V2,
        ..plain
    });
    let end = old.len();
    let entry = [
        &(1u64 << 16).to_be_bytes()[..],
        &1u32.to_be_bytes(),
        &[0, 1],
        &[0; 26],
        b"1",
    ];
    old.write_at(end, &entry.concat()).unwrap();
    old.set_len(end + (1 << 16)).unwrap();
    old.write_at(60, &1u32.to_be_bytes()).unwrap();
    old.write_at(64, &end.to_be_bytes()).unwrap();
    refused(old, 8 << 20, "version 2 only at the same size");
    let same = drylab_image::open(write(&plain), &Limits::DEFAULT).unwrap();
    assert!(same.resize(1 << 20).unwrap().is_empty());
}

#[test]
fn a_cluster_that_two_entries_named_is_one_entrys_own_when_the_other_is_cut_off() {
    let disk = sparse(1 << 20).disk();
    let layers = Qcow2Layers {
        cluster_bits: 12,
        ..Qcow2Layers::default()
    };
    let file = Arc::new(SparseBytes::default());
    write_qcow2_layers(&disk, &layers, &*file, &Work::ALONE).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_at(at, &mut bytes).unwrap();
        u64::from_be_bytes(bytes)
    };
    let put = |at: u64, value: u64| file.write_at(at, &value.to_be_bytes()).unwrap();
    let place = 0x00ff_ffff_ffff_fe00;
    let table = word(word(40)) & place;
    // The last cluster is the first one, whose own is no longer used.
    let (first, last) = (word(table) & place, word(table + 255 * 8) & place);
    put(table, first);
    put(table + 255 * 8, first);
    let block = word(word(48)) & place;
    for (offset, count) in [(first, 2u16), (last, 0)] {
        let at = block + offset / 4096 * 2;
        file.write_at(at, &count.to_be_bytes()).unwrap();
    }
    let open = || drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
    assert!(open().check().unwrap().is_empty());
    open().resize(1 << 19).unwrap().apply(&*file).unwrap();
    assert_same(&with_size(&disk, 1 << 19), &open());
    assert!(open().check().unwrap().is_empty());
    assert_eq!(word(table), first | 1 << 63);
    // And one table for both halves of the disk is for no plan.
    let l1 = word(40);
    file.write_at(36, &2u32.to_be_bytes()).unwrap();
    let twice = |offset: u64| {
        let at = block + offset / 4096 * 2;
        file.write_at(at, &2u16.to_be_bytes()).unwrap();
        offset
    };
    put(l1, twice(table));
    put(l1 + 8, table);
    for at in (table..table + 4096).step_by(8) {
        if word(at) != 0 {
            put(at, twice(word(at) & place));
        }
    }
    assert!(open().check().unwrap().is_empty());
    let error = open().resize(1 << 18).unwrap_err().to_string();
    assert!(error.contains("names one L2 table twice"), "{error}");
}

#[test]
fn bytes_behind_the_end_of_the_disk_do_not_appear_when_it_grows() {
    // A writer that left something in the rest of the last cluster, and in clusters and tables behind it.
    let plain = Qcow2Layers::default();
    let extended = Qcow2Layers {
        extended_l2: true,
        cluster_bits: 14,
        ..plain
    };
    for (number, layers) in layers().into_iter().chain([plain, extended]).enumerate() {
        let pieces = vec![Piece {
            offset: 0,
            length: 200_000,
            kind: Kind::Text(9),
        }];
        let disk = Disk {
            size: 200_704,
            pieces,
        }
        .disk();
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&disk, &layers, &*file, &Work::ALONE).unwrap();
        file.write_at(24, &5120u64.to_be_bytes()).unwrap();
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        let plan = image.resize(1 << 20).unwrap();
        let (old, new) = (
            with_size(&disk, 5120),
            with_size(&with_size(&disk, 5120), 1 << 20),
        );
        for count in prefixes(plan.edits().len()) {
            let crashed = copy(&*file);
            plan.apply_first(count, &*crashed).unwrap();
            let image = drylab_image::open(crashed, &Limits::DEFAULT).unwrap();
            assert_same(if image.len() == 5120 { &old } else { &new }, &image);
        }
        plan.apply(&*file).unwrap();
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        assert_same(&new, &image);
        assert!(image.check().unwrap().is_empty(), "{layers:?}");
        if number % 2 == 0 {
            passes_qemu_img(&file, "grown");
        }
    }
}
