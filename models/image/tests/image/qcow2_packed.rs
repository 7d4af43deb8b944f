//! Clusters of a qcow2 that are stored in part: compressed ones, and those with subclusters.

use crate::common::{have_qemu_img, qemu_img};
use crate::qcow2::sparse;
use crate::qcow2_check::{self, text};
use crate::qcow2_rules::{CLUSTER, Made, SIZE, made, open, places, put, refcount, word};
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use drylab_image::{Image, Qcow2Compression, Qcow2Layers, Work, write_qcow2_layers};
use std::sync::Arc;

/// Whether any cluster cannot be read.
fn is_lost(image: &Image) -> bool {
    let mut buffer = vec![0; CLUSTER as usize];
    (0..image.len()).step_by(CLUSTER as usize).any(|at| {
        let length = (image.len() - at).min(CLUSTER) as usize;
        image.read_at(at, &mut buffer[..length]).is_err()
    })
}

fn codes(image: &Image) -> Vec<&'static str> {
    image.check().unwrap().counts().keys().copied().collect()
}

/// A disk whose clusters are compressed.
fn compressed(how: Qcow2Compression) -> SparseBytes {
    let layers = Qcow2Layers {
        compression: Some((how, 3)),
        ..Qcow2Layers::default()
    };
    let file = SparseBytes::default();
    write_qcow2_layers(&sparse(SIZE).disk(), &layers, &file, &Work::ALONE).unwrap();
    file
}

#[test]
fn compressed_clusters_that_are_cut_or_changed_are_found_where_they_do_not_unpack() {
    for how in [Qcow2Compression::Zlib, Qcow2Compression::Zstd] {
        let sound = compressed(how);
        let at = places(&sound).l2;
        let first = word(&sound, at);
        let offset = first & ((1 << 54) - 1);
        let mut stream = vec![0; CLUSTER as usize];
        let held = stream.len().min((sound.len() - offset) as usize);
        sound.read_at(offset, &mut stream[..held]).unwrap();
        let (mut sound_at, mut lost_at) = (Vec::new(), Vec::new());
        // The first cluster of the disk moves to the end of the file, which ends inside it.
        for length in (1..2000).step_by(37).chain([4096, 65_536]) {
            let file = compressed(how);
            let end = file.len().next_multiple_of(CLUSTER);
            file.write_at(end, &stream[..length]).unwrap();
            put(&file, at, first & !((1 << 54) - 1) | end);
            refcount(&file, end / CLUSTER, 1);
            let image = open(&Arc::new(file));
            let is_found = codes(&image).contains(&"QCOW2-PACKED");
            assert_eq!(is_found, is_lost(&image), "{how:?} {length}");
            if is_found {
                lost_at.push(length);
            } else {
                sound_at.push(length);
            }
        }
        assert!(
            lost_at.last() < sound_at.first(),
            "{lost_at:?} {sound_at:?}"
        );
        assert!(!lost_at.is_empty() && !sound_at.is_empty());
        // Inside the file, a stream that is none is found, too, and no repair makes it one.
        let file = Arc::new(compressed(how));
        file.write_at(offset, &[0xff; 64]).unwrap();
        let image = open(&file);
        assert!(is_lost(&image));
        assert_eq!(codes(&image), ["QCOW2-PACKED"]);
        let structure = image.check_structure().unwrap();
        assert!(structure.is_empty(), "its tables are sound");
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn a_compressed_cluster_that_many_entries_name_is_looked_at_once() {
    let file = made(Made::Packed);
    let at = places(&file).l2;
    let first = word(&file, at);
    for entry in 0..CLUSTER / 8 {
        put(&file, at + entry * 8, first);
    }
    let file = Arc::new(file);
    assert!(!codes(&open(&file)).contains(&"QCOW2-PACKED"));
    file.write_at(first & ((1 << 54) - 1), &[0xff; 64]).unwrap();
    let found = open(&file).check().unwrap();
    assert_eq!(found.counts().get("QCOW2-PACKED"), Some(&1));
}

#[test]
fn a_cut_compressed_file_of_qemu_img_is_damaged_where_reading_fails() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    let noise: Vec<u8> = (0..300_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&raw, &noise[..299_520]).unwrap();
    for how in ["zlib", "zstd"] {
        let options = format!("compression_type={how}");
        let names = [text(&raw), text(&file)];
        qemu_img(&[
            "convert", "-c", "-O", "qcow2", "-o", &options, names[0], names[1],
        ]);
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(codes(&qcow2_check::open(&file).unwrap()), [] as [&str; 0]);
        let mut found = 0;
        for cut in [1, 100, 511, 513, 3000, 20_000, 40_000] {
            std::fs::write(&file, &whole[..whole.len() - cut]).unwrap();
            let image = qcow2_check::open(&file).unwrap();
            let worst = image.check().unwrap().worst();
            let is_error = worst == Some(drylab_block::Severity::Error);
            assert_eq!(is_error, is_lost(&image), "{how} {cut}");
            found += u32::from(is_error);
        }
        assert!(found >= 3, "{how}: {found}");
    }
}

#[test]
fn only_the_subclusters_that_are_stored_need_bytes_in_the_file() {
    let part = CLUSTER / 32;
    // Which subclusters are stored, and bytes of the last cluster that the file must have.
    for (stored, needed) in [(0b1u64, part), (0b101, 3 * part), (1 << 31, CLUSTER)] {
        for missing in [0, 1] {
            let file = made(Made::Extended);
            let at = places(&file).l2;
            let end = file.len().next_multiple_of(CLUSTER);
            file.set_len(end + needed - missing).unwrap();
            put(&file, at, 1 << 63 | end);
            put(&file, at + 8, stored);
            refcount(&file, end / CLUSTER, 1);
            let image = open(&Arc::new(file));
            let is_found = codes(&image).contains(&"QCOW2-CUT");
            assert_eq!(is_found, missing > 0, "{stored:b}");
            assert_eq!(is_lost(&image), missing > 0, "{stored:b}");
        }
    }
}

#[test]
fn a_sound_file_of_qemu_img_with_subclusters_is_sound_though_its_last_cluster_is_cut() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    for bytes in [1usize, 2048, 5000] {
        let mut disk = vec![0; 1 << 20];
        disk[200_000..200_000 + bytes].fill(7);
        std::fs::write(&raw, &disk).unwrap();
        let names = [text(&raw), text(&file)];
        qemu_img(&[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "extended_l2=on",
            names[0],
            names[1],
        ]);
        let image = qcow2_check::open(&file).unwrap();
        let found = image.check().unwrap();
        assert!(found.is_empty(), "{bytes}: {:?}", found.list());
        assert!(!is_lost(&image));
    }
}
