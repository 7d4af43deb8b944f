//! Broken and hostile VHDs.

use crate::common::{Kind, Piece, Plan, fill, packed};
use drylab_block::{Error, Extents, Limits, ReadAt, Result, Severity};
use drylab_image::{Format, Image, Target, VhdOptions, VhdSize, detect, fuzz, open_vhd};
use proptest::prelude::*;
use std::sync::Arc;

fn small_blocks() -> VhdOptions {
    VhdOptions {
        block_bytes: 512 << 10,
        ..VhdOptions::default()
    }
}

fn file(target: &Target) -> Vec<u8> {
    let pieces = [
        (0u64, Kind::Text(3)),
        (600_000, Kind::Noise(9)),
        (1_100_000, Kind::Text(7)),
    ];
    let pieces = pieces.map(|(offset, kind)| Piece {
        offset,
        length: 5000,
        kind,
    });
    let plan = Plan {
        size: 1_200_128,
        pieces: pieces.to_vec(),
    };
    let file = packed(&plan.disk(), target);
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn dynamic() -> Vec<u8> {
    file(&Target::VhdDynamic(small_blocks()))
}

fn fixed() -> Vec<u8> {
    file(&Target::VhdFixed(VhdOptions::default()))
}

fn open(bytes: Vec<u8>) -> Result<Image> {
    drylab_image::open(Arc::new(bytes), &Limits::DEFAULT)
}

fn read_all(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(0, &mut bytes).map(|()| bytes)
}

/// The error of opening or of reading everything.
#[track_caller]
fn refuses(bytes: Vec<u8>, words: &[&str]) {
    let found = open(bytes).and_then(|image| read_all(&image));
    let error = found.map(drop).expect_err("an error").to_string();
    assert!(
        words.iter().all(|word| error.contains(word)),
        "{error} lacks {words:?}"
    );
}

/// The findings of a file that is read to the bytes it had before it was damaged.
#[track_caller]
fn reads_with(bytes: Vec<u8>, good: &[u8], codes: &[&str]) {
    let image = open(bytes).unwrap();
    let expected = read_all(&open(good.to_vec()).unwrap()).unwrap();
    assert!(read_all(&image).unwrap() == expected);
    let found: Vec<_> = image
        .info()
        .findings
        .list()
        .iter()
        .map(|f| f.rule.code)
        .collect();
    assert_eq!(found, codes);
}

/// Sets the checksum of the 512 or 1024 bytes at `place` right.
fn seal(mut bytes: Vec<u8>, place: usize, length: usize, at: usize) -> Vec<u8> {
    let part = &mut bytes[place..place + length];
    part[at..at + 4].fill(0);
    let sum = !part.iter().fold(0u32, |sum, byte| sum + u32::from(*byte));
    part[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Changes both footers of a dynamic disk, checksums too.
fn in_footers(bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    let last = bytes.len() - 512;
    let bytes = with(with(bytes, at, new), last + at, new);
    seal(seal(bytes, 0, 512, 0x40), last, 512, 0x40)
}

fn in_header(bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    seal(with(bytes, 512 + at, new), 512, 1024, 0x24)
}

#[test]
fn a_footer_that_is_damaged_or_lost_is_replaced_by_its_copy() {
    let good = dynamic();
    let last = good.len() - 512;
    reads_with(good.clone(), &good, &[]);
    let wrong_sum = with(good.clone(), last + 0x60, &[1]);
    reads_with(wrong_sum, &good, &["VHD-FOOTER"]);
    // qemu-img 0.12 writes the last footer with a checksum of 0.
    let no_sum = with(good.clone(), last + 0x40, &[0; 4]);
    reads_with(no_sum, &good, &["VHD-FOOTER"]);
    reads_with(good[..last].to_vec(), &good, &["VHD-FOOTER"]);
    let copy = with(good.clone(), 0, &[0; 512]);
    reads_with(copy, &good, &["VHD-FOOTER-COPY"]);
    let differ = seal(with(good.clone(), 0x18, &[9]), 0, 512, 0x40);
    reads_with(differ, &good, &["VHD-FOOTERS-DIFFER"]);
    refuses(
        with(with(good, 0x60, &[1]), last + 0x60, &[1]),
        &["footer", "checksum"],
    );
}

#[test]
fn a_copy_of_the_footer_that_differs_only_where_nothing_is_said_is_found() {
    let good = dynamic();
    let last = good.len() - 512;
    // Features, the minor version, reserved bytes: a program that wrote one of the two and not the other left these.
    for (at, new) in [(0x0b, 3), (0x0f, 1), (0x60, 7)] {
        for place in [0, last] {
            let differ = seal(with(good.clone(), place + at, &[new]), place, 512, 0x40);
            reads_with(differ, &good, &["VHD-FOOTERS-DIFFER"]);
        }
    }
}

#[test]
fn a_footer_of_511_bytes_is_found() {
    for good in [fixed(), dynamic()] {
        let short = good[..good.len() - 1].to_vec();
        reads_with(short, &good, &["VHD-FOOTER-SHORT"]);
    }
}

#[test]
fn a_footer_of_511_bytes_is_a_warning_since_qemu_img_takes_a_fixed_disk_with_one_for_raw() {
    let good = fixed();
    let short = good[..good.len() - 1].to_vec();
    let worst = open(short.clone()).unwrap().check().unwrap().worst();
    assert_eq!(worst, Some(drylab_block::Severity::Warning));
    if crate::common::have_qemu_img() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.vhd");
        std::fs::write(&path, short).unwrap();
        let said = crate::common::qemu_img(&["info", path.to_str().unwrap()]);
        assert!(said.contains("file format: raw"), "{said}");
    }
}

#[test]
fn a_fixed_disk_without_a_valid_footer_is_refused_and_never_taken_for_raw() {
    let good = fixed();
    let last = good.len() - 512;
    refuses(
        with(good.clone(), last + 0x60, &[1]),
        &["footer at offset", "checksum"],
    );
    let larger = with(good.clone(), last + 0x30, &(1u64 << 40).to_be_bytes());
    let image = open(seal(larger, last, 512, 0x40)).unwrap();
    assert!(image.read_at(0, &mut [0; 8]).is_ok());
    let error = image.read_at((1 << 40) - 8, &mut [0; 8]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("1099511627776") && error.contains("in front of its footer"),
        "{error}"
    );
    let front = seal(
        with(good[last..].to_vec(), 0x3c, &[0, 0, 0, 2]),
        0,
        512,
        0x40,
    );
    refuses([front, vec![0; 4096]].concat(), &["fixed", "none behind"]);
    let smaller = with(good.clone(), last + 0x30, &512u64.to_be_bytes());
    let image = open(seal(smaller, last, 512, 0x40)).unwrap();
    assert_eq!(image.len(), 512);
    let codes: Vec<_> = image
        .info()
        .findings
        .list()
        .iter()
        .map(|f| f.rule.code)
        .collect();
    assert_eq!(codes, ["VHD-FIXED-LENGTH"]);
}

#[test]
fn a_fixed_disk_whose_guest_begins_as_another_format_is_a_vhd_for_who_says_so() {
    let disk = fixed();
    for magic in [&b"conectix"[..], b"QFI\xfb\0\0\0\x03", b"KDMV\x01\0\0\0"] {
        let bytes: Arc<dyn ReadAt> = Arc::new(with(disk.clone(), 0, magic));
        let image = open_vhd(bytes.clone(), VhdSize::Current, &Limits::DEFAULT).unwrap();
        assert_eq!(
            (image.format(), image.subformat(), image.len()),
            (Format::Vhd, "fixed", 1_200_128)
        );
        let mut head = [0; 8];
        image.read_at(0, &mut head).unwrap();
        assert_eq!(head, magic);
        // Told by the content, the first bytes decide, but a footer's copy in front is only a dynamic disk's.
        let told = detect(&*bytes).unwrap();
        assert_eq!(told.format == Format::Vhd, magic == b"conectix");
    }
}

#[test]
fn what_a_footer_or_header_must_not_say_is_refused_with_the_value() {
    let good = dynamic();
    refuses(
        in_footers(good.clone(), 0x0c, &[0, 2]),
        &["version 0x00020000"],
    );
    refuses(
        in_footers(good.clone(), 0x3c, &[0, 0, 0, 5]),
        &["disk type 5"],
    );
    refuses(
        in_footers(good.clone(), 0x3c, &[0, 0, 0, 4]),
        &["differencing", "parent"],
    );
    refuses(
        in_footers(good.clone(), 0x10, &u64::MAX.to_be_bytes()),
        &["dynamic header", "past the end"],
    );
    refuses(
        in_footers(good.clone(), 0x10, &4096u64.to_be_bytes()),
        &["cxsparse", "4096"],
    );
    let huge = in_footers(good.clone(), 0x30, &(2041u64 << 30).to_be_bytes());
    refuses(huge, &["2191507062784", "2190433320960"]);
    refuses(
        in_header(good.clone(), 0x18, &[0, 9]),
        &["version 0x00090000"],
    );
    for block in [0u32, 256, 3 << 10, 0xffff_ffff] {
        refuses(
            in_header(good.clone(), 0x20, &block.to_be_bytes()),
            &["block size", &block.to_string()],
        );
    }
    refuses(
        in_header(good.clone(), 0x1c, &2u32.to_be_bytes()),
        &["2 entries", "needs 3"],
    );
    refuses(
        in_header(good.clone(), 0x10, &(1u64 << 60).to_be_bytes()),
        &["BAT", "past the end"],
    );
    // A table is asked for only as long as the disk needs it, and that is bounded.
    let small = in_header(
        in_footers(good, 0x30, &(2040u64 << 30).to_be_bytes()),
        0x20,
        &512u32.to_be_bytes(),
    );
    refuses(
        in_header(small, 0x1c, &u32::MAX.to_be_bytes()),
        &["BAT", "past the end"],
    );
}

#[test]
fn what_microsofts_programs_refuse_and_others_read_is_said() {
    let good = dynamic();
    let sum = with(good.clone(), 512 + 0x24, &[1]);
    reads_with(sum, &good, &["VHD-HEADER-CHECKSUM"]);
    // Quirk GQ107: only the low half is set.
    let offset = in_header(good.clone(), 8, &0xffff_ffffu64.to_be_bytes());
    reads_with(offset, &good, &["VHD-HEADER-DATA-OFFSET"]);
    let saved = in_footers(good.clone(), 0x54, &[1]);
    reads_with(saved, &good, &["VHD-SAVED-STATE"]);
}

#[test]
fn entries_that_point_outside_or_into_metadata_or_each_other_are_found() {
    let good = dynamic();
    let bat = 1536;
    let entry = |n: usize, sector: u32| with(good.clone(), bat + 4 * n, &sector.to_be_bytes());
    refuses(
        entry(1, 1 << 30),
        &["block 1", "sector 1073741824", "past the end"],
    );
    for sector in [0, 1, 2, 3] {
        refuses(entry(0, sector), &["block 0", "inside the metadata"]);
    }
    // The other blocks of such a disk are read.
    let image = open(entry(1, 1 << 30)).unwrap();
    assert!(image.read_at(0, &mut [0; 4096]).is_ok());
    let lost = image.info().findings.list()[0].clone();
    assert_eq!(
        (lost.rule.code, lost.rule.severity),
        ("VHD-BLOCK-LOST", Severity::Error)
    );
    assert_eq!(lost.path, "BAT entry 1");
    let inside = open(entry(0, 1)).unwrap();
    let inside = inside.info().findings.list()[0].clone();
    assert_eq!(
        (inside.rule.code, inside.rule.severity),
        ("VHD-BLOCK-IN-METADATA", Severity::Error)
    );
    let first = u32::from_be_bytes(good[bat..bat + 4].try_into().unwrap());
    for overlap in [first, first + 1, first + 1024] {
        let image = open(entry(1, overlap)).unwrap();
        let found = image.info().findings.list().to_vec();
        assert_eq!(
            (found[0].rule.code, found[0].rule.severity),
            ("VHD-BLOCKS-OVERLAP", Severity::Error)
        );
    }
    assert!(
        open(entry(1, u32::MAX))
            .unwrap()
            .info()
            .findings
            .list()
            .is_empty(),
        "a block less is no overlap"
    );
}

#[test]
fn bitmaps_of_dynamic_disks_are_ignored_as_microsofts_programs_do() {
    let good = dynamic();
    let first = u32::from_be_bytes(good[1536..1540].try_into().unwrap()) as usize * 512;
    assert_eq!(good[first..first + 128], [0xff; 128]);
    assert_eq!(good[first + 128..first + 512], [0; 384]);
    reads_with(with(good.clone(), first, &[0; 128]), &good, &[]);
}

#[test]
fn a_file_cut_anywhere_is_read_rightly_or_refused() {
    for good in [dynamic(), fixed()] {
        let expected = read_all(&open(good.clone()).unwrap()).unwrap();
        for cut in (4099..good.len()).step_by(4099) {
            let Ok(image) = open(good[..cut].to_vec()) else {
                continue;
            };
            if image.format() == Format::Raw {
                // Without its footer a fixed disk has nothing that tells it.
                assert!(good[..8] != *b"conectix");
                continue;
            }
            if let Ok(bytes) = read_all(&image) {
                assert!(bytes == expected, "cut at {cut}");
            }
        }
    }
}

#[test]
fn no_more_memory_is_asked_for_than_the_table_bound() {
    let limits = {
        let mut limits = Limits::DEFAULT;
        limits.table_bytes_max = 1024;
        limits
    };
    let wide = Plan {
        size: 1 << 30,
        pieces: vec![],
    };
    let file = packed(&wide.disk(), &Target::VhdDynamic(small_blocks()));
    let error = drylab_image::open(file, &limits).unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported(text) if text.contains("VHD BAT")),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn valid_files_with_a_few_changed_bytes_never_panic(
        of_dynamic: bool,
        edits in prop::collection::vec((prop_oneof![3 => 0..100usize, 3 => 512..600usize, 3 => 1536..1600usize, 1 => any::<usize>()], any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        thread_local!(static VALID: [Vec<u8>; 2] = [fixed(), dynamic()]);
        let mut bytes = VALID.with(|valid| valid[usize::from(of_dynamic)].clone());
        for (at, value, back) in edits {
            let at = if back { bytes.len() - 1 - at % 512 } else { at % bytes.len() };
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::detect(&bytes);
        fuzz::vhd(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_cookie_never_panic(seed: u64, length in 0..3000usize, kind in 2..5u8) {
        let mut bytes = fill(Kind::Noise(seed), length.max(1600));
        bytes[..8].copy_from_slice(b"conectix");
        bytes[0x0c..0x18].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        bytes[0x30..0x36].fill(0);
        bytes[0x3c..0x40].copy_from_slice(&[0, 0, 0, kind]);
        bytes[512..520].copy_from_slice(b"cxsparse");
        bytes[520 + 8..520 + 16].copy_from_slice(&1536u64.to_be_bytes());
        bytes[512 + 0x18..512 + 0x1c].copy_from_slice(&[0, 1, 0, 0]);
        bytes[512 + 0x20..512 + 0x24].copy_from_slice(&512u32.to_be_bytes());
        fuzz::vhd(&bytes);
        fuzz::detect(&bytes);
    }
}

#[test]
fn the_map_of_a_damaged_disk_still_covers_it() {
    let bytes = with(dynamic(), 1536, &[0, 0, 0, 1, 0x7f, 0, 0, 0]);
    let image = open(bytes).unwrap();
    let end = Extents::new(&image)
        .last()
        .map(|extent| extent.offset + extent.length);
    assert_eq!(end, Some(image.len()));
}
