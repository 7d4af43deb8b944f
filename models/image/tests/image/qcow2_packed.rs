//! Clusters of a qcow2 that are stored in part: compressed ones, and those with subclusters.

use crate::common::{Kind, Piece, Plan, have_qemu_img, qemu_img};
use crate::qcow2::sparse;
use crate::qcow2_check::{self, text};
use crate::qcow2_rules::{CLUSTER, Made, SIZE, made, open, places, put, refcount, word};
use drylab_block::{Limits, ReadAt, Severity, SparseBytes, WriteAt};
use drylab_image::{Image, Qcow2Compression, Qcow2Layers, Work, write_qcow2_layers};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Compressed clusters of 4 KiB, all of them, whose entries stand in another order than their bytes.
fn shuffled(clusters: u64, length: usize, kind: fn(u64) -> Kind) -> SparseBytes {
    const CLUSTER: u64 = 4096;
    let piece = |number| Piece {
        offset: number * CLUSTER,
        length,
        kind: kind(number),
    };
    let disk = Plan {
        size: clusters * CLUSTER,
        pieces: (0..clusters).map(piece).collect(),
    };
    let layers = Qcow2Layers {
        cluster_bits: 12,
        compression: Some((Qcow2Compression::Zlib, 1)),
        ..Qcow2Layers::default()
    };
    let file = SparseBytes::default();
    write_qcow2_layers(&disk.disk(), &layers, &file, &Work::ALONE).unwrap();
    let l1 = word(&file, 40);
    let place = |entry: u64| {
        let table = word(&file, l1 + entry / 512 * 8) & !(1 << 63);
        table + entry % 512 * 8
    };
    let words: Vec<u64> = (0..clusters)
        .map(|entry| word(&file, place(entry)))
        .collect();
    assert!(
        words.iter().all(|word| word >> 62 == 1),
        "all are compressed"
    );
    for entry in 0..clusters {
        put(
            &file,
            place(entry),
            words[(entry * 1009 % clusters) as usize],
        );
    }
    file
}

/// A file that counts the bytes read of it.
struct Counted(SparseBytes, AtomicU64);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> drylab_block::Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
}

/// What a check finds with room for so many places, and the bytes that it read.
fn checked(file: SparseBytes, places: u64) -> (Vec<(&'static str, Severity)>, u64) {
    let file = Arc::new(Counted(file, AtomicU64::new(0)));
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = places * 16;
    let image = drylab_image::open(file.clone(), &limits).unwrap();
    let found = image.check().unwrap();
    let all = found.list().iter();
    let all = all.map(|finding| (finding.rule.code, finding.rule.severity));
    (all.collect(), file.1.load(Ordering::Relaxed))
}

#[test]
fn a_sound_image_with_more_compressed_clusters_than_places_is_sound_in_whatever_order_they_are() {
    let noise = |number| Kind::Noise(number + 1);
    let length = shuffled(5000, 3000, noise).len();
    for places in [512, 1000, 6000] {
        let (found, read) = checked(shuffled(5000, 3000, noise), places);
        assert_eq!(found, [], "{places}");
        assert!(read < 4 * length, "{places}: {read} of {length}");
    }
    // One that is damaged is found wherever it stands.
    for entry in [0, 1700, 4999] {
        let file = shuffled(5000, 3000, noise);
        let l1 = word(&file, 40);
        let table = word(&file, l1 + entry / 512 * 8) & !(1 << 63);
        let at = word(&file, table + entry % 512 * 8) & ((1 << 58) - 1);
        file.write_at(at, &[0xff; 16]).unwrap();
        let (found, _) = checked(file, 512);
        assert_eq!(found, [("QCOW2-PACKED", Severity::Error)], "{entry}");
    }
}

#[test]
fn what_a_check_leaves_of_compressed_clusters_is_a_note_and_no_error() {
    // Clusters of a few bytes: the tables are most of the file, and walking them once more costs more than it has.
    let text = |number: u64| Kind::Text((number % 255) as u8 + 1);
    let file = shuffled(5000, 90, text);
    let length = file.len();
    let (found, read) = checked(file, 512);
    assert_eq!(found, [("QCOW2-PACKED-LEFT", Severity::Note)]);
    assert!(read < 4 * length + (1 << 20), "{read} of {length}");
    assert_eq!(checked(shuffled(5000, 90, text), 6000).0, []);
}

#[test]
fn entries_that_differ_in_their_number_of_sectors_do_not_multiply_the_cost() {
    let file = made(Made::Packed);
    let at = places(&file).l2;
    let first = word(&file, at) & ((1 << 54) - 1);
    // All numbers of sectors there are, many times over.
    for entry in 0..CLUSTER / 8 {
        put(&file, at + entry * 8, 1 << 62 | (entry % 256) << 54 | first);
    }
    file.write_at(first, &[0xff; 64]).unwrap();
    let found = open(&Arc::new(file)).check().unwrap();
    assert_eq!(
        found.counts().get("QCOW2-PACKED"),
        Some(&2),
        "fewest and most"
    );
}
