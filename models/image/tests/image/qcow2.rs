//! qcow2 of others in all its forms: read to equal bytes, with snapshots and bitmaps listed.

use crate::common::{
    Folder, OnDisk, Plan, assert_same, fill, have_qemu_img, qemu_img, try_qemu_img,
};
use crate::common::{Kind, Piece, opened, packed, unflushed};
use crate::qcow2_check::{open, text};
use crate::qcow2_rules::word;
use crate::qcow2_sizes::SIZES;
use crate::vhd_steps::{all, on_disk};
use drylab_block::{
    DenyAll, Error, ExtentKind, Limits, ReadAt, Reference, Resolver, SparseBytes, WriteAt,
};
use drylab_image::{
    Format, Image, Options, Qcow2Compression, Qcow2Layers, Qcow2Options, Target, Work,
    write_qcow2_layers,
};
use std::path::Path;
use std::sync::Arc;

/// A disk of that size with a few ranges, at its start, its end and in between.
pub(crate) fn sparse(size: u64) -> Plan {
    let places = [
        (0, Kind::Text(3)),
        (size / 3, Kind::Noise(9)),
        (size / 2, Kind::Zeros),
        (size.saturating_sub(3000), Kind::Text(7)),
    ];
    let piece = |(offset, kind)| Piece {
        offset,
        length: 90_000,
        kind,
    };
    Plan {
        size,
        pieces: places.map(piece).to_vec(),
    }
}

pub(crate) fn raw_file(path: &Path, disk: &dyn ReadAt) {
    drylab_image::write(disk, &Target::Raw, &OnDisk::create(path)).unwrap();
}

fn codes(image: &Image) -> Vec<&'static str> {
    let found = image.check().unwrap();
    found
        .list()
        .iter()
        .map(|finding| finding.rule.code)
        .collect()
}

#[test]
fn theirs_with_unusual_clusters_is_read_to_equal_bytes_at_every_size_and_checks_clean() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    // Beside those of `qcow2_sizes`.
    let cases: &[&[&str]] = &[
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-o", "extended_l2=on,cluster_size=16k,refcount_bits=1"],
        &["-c", "-o", "extended_l2=on,cluster_size=128k"],
    ];
    for (size, arguments) in SIZES
        .iter()
        .flat_map(|size| cases.iter().map(move |case| (*size, case)))
    {
        let disk = sparse(size).disk();
        raw_file(&raw, &disk);
        let command = [
            &["convert", "-O", "qcow2"],
            *arguments,
            &[text(&raw), text(&file)],
        ];
        qemu_img(&command.concat());
        let image = open(&file).unwrap();
        assert_same(&disk, &image);
        assert_eq!(codes(&image), [] as [&str; 0], "{arguments:?} {size}");
    }
}

/// Opens by whole paths too, as qemu-img writes them into images.
pub(crate) struct Whole(pub(crate) Folder);

impl Resolver for Whole {
    fn resolve(&self, reference: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
        let name = reference
            .name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let name = name.strip_prefix("file:").unwrap_or(&name).to_owned();
        self.0.resolve(&Reference {
            name,
            ..reference.clone()
        })
    }
}

#[test]
fn a_snapshot_is_listed_and_opened_by_id_and_by_name() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qcow2"));
    for options in ["compat=0.10", "cluster_size=4k", "extended_l2=on"] {
        let old = sparse(3 << 20).disk();
        raw_file(&raw, &old);
        qemu_img(&[
            "convert",
            "-O",
            "qcow2",
            "-o",
            options,
            text(&raw),
            text(&file),
        ]);
        let unflushed = unflushed(&file);
        let take = |name| qemu_img(&["snapshot", "-c", name, "--image-opts", &unflushed]);
        take("before the change");
        let new = sparse(3 << 20).disk();
        new.write_at(5000, &fill(Kind::Noise(4), 300_000)).unwrap();
        raw_file(&raw, &new);
        qemu_img(&["convert", "-n", "-O", "qcow2", text(&raw), text(&file)]);
        take("second");
        let image = open(&file).unwrap();
        assert_same(&new, &image);
        let info = image.info();
        assert_eq!(info.detail("snapshot.0.id"), Some("1"));
        assert_eq!(info.detail("snapshot.1.name"), Some("second"));
        assert_eq!(codes(&image), ["QCOW2-SNAPSHOTS"]);
        for (name, disk) in [("1", &old), ("before the change", &old), ("second", &new)] {
            let options = Options {
                snapshot: Some(name),
                ..Options::DEFAULT
            };
            let source = Arc::new(OnDisk::open(&file));
            let image = drylab_image::open_as(source.clone(), &options).unwrap();
            assert_same(disk, &image);
            assert!(image.resize(1 << 30).is_err(), "a snapshot keeps its size");
            let none = Options {
                snapshot: Some("third"),
                ..Options::DEFAULT
            };
            let error = drylab_image::open_as(source, &none).unwrap_err();
            assert!(
                error.to_string().contains("none of that id or name"),
                "{error}"
            );
        }
    }
    let options = Options {
        snapshot: Some("1"),
        ..Options::DEFAULT
    };
    let error = drylab_image::open_as(Arc::new(OnDisk::open(&raw)), &options).unwrap_err();
    assert!(error.to_string().contains("only qcow2"), "{error}");
}

#[test]
fn bitmaps_are_listed_and_their_clusters_counted() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.qcow2");
    qemu_img(&["create", "-f", "qcow2", text(&file), "64M"]);
    for name in ["first", "second"] {
        qemu_img(&["bitmap", "--add", "-g", "128k", text(&file), name]);
    }
    // A merge writes bits, and so clusters.
    let raw = folder.path().join("a.raw");
    raw_file(&raw, &sparse(64 << 20).disk());
    qemu_img(&["convert", "-n", "-O", "qcow2", text(&raw), text(&file)]);
    let image = open(&file).unwrap();
    let info = image.info();
    assert_eq!(info.detail("bitmap.0.name"), Some("first"));
    assert_eq!(info.detail("bitmap.1.granularity"), Some("131072"));
    assert_eq!(info.detail("bitmap.1.flags"), Some("auto"));
    assert_eq!(codes(&image), ["QCOW2-BITMAPS"]);
}

#[test]
fn encrypted_images_are_refused_by_name_with_what_to_do() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let secret = ["create", "--object", "secret,id=s,data=key"];
    let cases: &[(&[&str], &str)] = &[
        (
            &[
                "-f",
                "qcow2",
                "-o",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            ],
            "encryption (LUKS, header of",
        ),
        (
            &[
                "-f",
                "qcow2",
                "-o",
                "encrypt.format=aes,encrypt.key-secret=s",
            ],
            "encryption (AES)",
        ),
    ];
    let refused = |words: &str| {
        let error = open(&file).unwrap_err();
        let right = matches!(&error, Error::Unsupported(said) if said.contains(words) && said.contains("key"));
        assert!(right, "{error}");
    };
    for (arguments, words) in cases {
        qemu_img(&[&secret[..], *arguments, &[text(&file), "1M"]].concat());
        refused(words);
    }
    std::fs::write(&file, [&b"LUKS\xba\xbe\0\x01"[..], &[0; 4096]].concat()).unwrap();
    refused("LUKS (encrypted");
}

#[test]
fn pieces_say_where_the_bytes_stand_in_the_file() {
    let disk = sparse(3 << 20).disk();
    let file = packed(&disk, &Target::Qcow2(Qcow2Options::default()));
    let image = opened(file.clone());
    let mut at = 0;
    let mut places = 0;
    while at < image.len() {
        let (extent, stored) = image.piece_at(at);
        if let Some(stored) = stored {
            let length = extent.length as usize;
            let (mut there, mut here) = (vec![0; length], vec![0; length]);
            file.read_at(stored.offset, &mut there).unwrap();
            image.read_at(at, &mut here).unwrap();
            assert!(there == here && stored.file.is_empty());
            places += 1;
        } else {
            assert_ne!(extent.kind, ExtentKind::Data);
        }
        at += extent.length;
    }
    assert!(places >= 3);
}

#[test]
fn a_compressed_cluster_with_a_full_window_is_read() {
    // Matches that reach back 30,000 bytes: a window of 4 KiB would lose them.
    let once = fill(Kind::Noise(77), 30_000);
    let mut cluster = [once.clone(), once].concat();
    cluster.resize(65_536, 0);
    let disk = SparseBytes::new(1 << 20);
    disk.write_at(0, &cluster).unwrap();
    let file = packed(&disk, &Target::Qcow2(Qcow2Options::default()));
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    let mut packed = Vec::with_capacity(65_536);
    deflate
        .compress_vec(&cluster, &mut packed, flate2::FlushCompress::Finish)
        .unwrap();
    assert!(packed.len() < 40_000, "matches are used");
    // The data stand in cluster 2, their L2 table in cluster 3.
    packed.resize(65_536, 0xee);
    file.write_at(2 * 65_536, &packed).unwrap();
    let entry = 1u64 << 62 | 80 << 54 | (2 * 65_536);
    file.write_at(3 * 65_536, &entry.to_be_bytes()).unwrap();
    let image = opened(file);
    assert_eq!(image.extent_at(0).kind, ExtentKind::Compressed);
    assert_same(&disk, &image);
}

#[test]
fn lists_that_a_header_makes_long_cost_no_more_than_the_file() {
    let file = packed(
        &sparse(1 << 20).disk(),
        &Target::Qcow2(Qcow2Options::default()),
    );
    // 65,536 snapshots in a table that the file does not have, 65,535 bitmaps likewise.
    file.write_at(60, &65_536u32.to_be_bytes()).unwrap();
    file.write_at(64, &(1u64 << 16).to_be_bytes()).unwrap();
    let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
    assert_eq!(image.format(), Format::Qcow2);
    assert!(
        image
            .check()
            .unwrap()
            .counts()
            .contains_key("QCOW2-SNAPSHOT")
    );
    assert!(image.repair().is_err(), "what snapshots hold is not known");
    let error = drylab_image::open_with(file, &DenyAll, &Limits::DEFAULT);
    assert!(error.is_ok());
}

/// A disk of one cluster of 512 bytes, whose compressed bytes are replaced by `stream`.
fn with_stream(stream: &[u8]) -> Arc<SparseBytes> {
    let layers = Qcow2Layers {
        cluster_bits: 9,
        compression: Some((Qcow2Compression::Zlib, 6)),
        ..Qcow2Layers::default()
    };
    let disk: Arc<dyn ReadAt> = Arc::new(b"aa\n".repeat(171)[..512].to_vec());
    let file = SparseBytes::default();
    write_qcow2_layers(&disk, &layers, &file, &Work::ALONE).unwrap();
    let table = word(&file, word(&file, 40)) & !(1 << 63);
    let entry = word(&file, table);
    assert!(entry >> 62 == 1, "compressed");
    file.write_at(entry & ((1 << 61) - 1), stream).unwrap();
    Arc::new(file)
}

/// RFC 1951, 3.2.6: "literal/length values 286-287 will never actually occur in the compressed data, but participate in
/// the code construction". libdeflate takes them for 285, a length of 258.
#[test]
fn a_cluster_with_a_length_code_that_never_occurs_is_read_where_qemu_img_fails() {
    // One block with the fixed codes: 'a', a length of 258 and one of 253, each one byte back, and the end.
    let stream = |code: u32| {
        let mut bits = vec![1, 1, 0];
        let mut put = |value: u32, count: u32| {
            bits.extend((0..count).rev().map(|bit| value >> bit & 1));
        };
        put(0x30 + 97, 8);
        put(0xc0 + code - 280, 8);
        put(0, 5);
        put(0xc0 + 284 - 280, 8);
        // 227 and 26; the bits of a number come the other way round.
        put(0b01011, 5);
        put(0, 5);
        put(0, 7);
        let byte = |bits: &[u32]| {
            bits.iter()
                .rev()
                .fold(0, |byte, bit| byte << 1 | *bit as u8)
        };
        bits.chunks(8).map(byte).collect::<Vec<u8>>()
    };
    for (code, is_read) in [(285, true), (286, false), (287, false)] {
        let file = with_stream(&stream(code));
        let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
        let mut bytes = [0; 512];
        image.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [b'a'; 512], "{code}");
        assert!(image.check().unwrap().is_empty(), "{code}");
        if have_qemu_img() {
            let (folder, path) = on_disk(&all(&*file));
            let back = folder.path().join("back");
            let (path, raw) = (path.to_str().unwrap(), back.to_str().unwrap());
            let theirs = try_qemu_img(&["convert", "-f", "qcow2", "-O", "raw", path, raw]);
            assert_eq!(theirs.status.success(), is_read, "{code}: {theirs:?}");
            if is_read {
                assert_eq!(std::fs::read(&back).unwrap(), bytes);
            }
        }
    }
}
