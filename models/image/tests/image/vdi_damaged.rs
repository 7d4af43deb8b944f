//! Broken and hostile VDIs: what is found, what is mended.

use crate::common::{Kind, Piece, Plan, fill, have_qemu_img, packed};
use crate::vhd_steps::{all, codes, on_disk, plainly, qemu_reads, repaired};
use drylab_block::{Error, Limits, ReadAt, Severity};
use drylab_image::{Target, VdiOptions, fuzz};
use proptest::prelude::*;
use std::sync::Arc;

const MIB: usize = 1 << 20;
/// Where the map and the data of our file begin.
const MAP: usize = 512;
const DATA: usize = 1024;

/// Four blocks of five, in an order of their own, the last one cut by the disk.
fn good() -> Vec<u8> {
    let piece = |offset: u64, seed| Piece {
        offset,
        length: 5000,
        kind: Kind::Noise(seed),
    };
    let plan = Plan {
        size: (4 * MIB + 70_144) as u64,
        pieces: vec![
            piece(0, 3),
            piece(MIB as u64 + 7, 5),
            piece(3 * MIB as u64, 7),
            piece(4 * MIB as u64, 9),
        ],
    };
    all(&*packed(
        &plan.disk(),
        &Target::VdiDynamic(VdiOptions::qemu()),
    ))
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn longer(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0; 512]);
    bytes
}

fn entry(n: usize, number: u32) -> Vec<u8> {
    with(good(), MAP + 4 * n, &number.to_le_bytes())
}

/// The findings of a file, leniently; the first is an error when `error` says so.
#[track_caller]
fn found(bytes: &[u8], expected: &[&str]) {
    let image = plainly(Arc::new(bytes.to_vec())).unwrap();
    let found = image.check().unwrap();
    assert_eq!(codes(found.list()), expected);
}

#[test]
fn a_file_as_it_was_written_has_nothing_to_be_found() {
    found(&good(), &[]);
}

#[test]
fn duplicate_blocks_are_found_and_copied_apart() {
    let bytes = entry(1, 0);
    found(&bytes, &["VDI-BLOCKS-OVERLAP"]);
    let done = repaired(&bytes, &["VDI-BLOCKS-OVERLAP"], &plainly);
    let sound = have_qemu_img();
    if sound {
        qemu_reads(&done, "vdi");
    }
    // qemu-img check says so, too, but convert goes on without a word.
    if sound {
        let (_folder, path) = on_disk(&bytes);
        let said = crate::common::try_qemu_img(&["check", "-f", "vdi", path.to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(2));
    }
}

#[test]
fn blocks_past_the_end_are_found_read_as_errors_and_given_up() {
    let bytes = entry(3, 4);
    found(&bytes, &["VDI-BLOCK-LOST"]);
    let image = plainly(Arc::new(bytes.clone())).unwrap();
    let error = image.read_at(3 * MIB as u64, &mut [0; 4]).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt(text) if text.contains("map entry 3")),
        "{error}"
    );
    assert!(image.read_at(0, &mut [0; 4]).is_ok());
    let done = repaired(&bytes, &["VDI-BLOCK-LOST"], &plainly);
    let again = plainly(Arc::new(done.clone())).unwrap();
    assert_eq!(again.info().detail("cBlocksAllocated"), Some("3"));
    if have_qemu_img() {
        qemu_reads(&done, "vdi");
    }
}

#[test]
fn a_block_cut_by_the_end_gets_its_end_back_as_zeros() {
    // The second block written is the last but two; the file ends inside the last but one.
    let bytes = good()[..DATA + 2 * MIB + 5000].to_vec();
    found(&bytes, &["VDI-BLOCK-CUT", "VDI-BLOCK-LOST"]);
    let done = repaired(&bytes, &["VDI-BLOCK-CUT", "VDI-BLOCK-LOST"], &plainly);
    let again = plainly(Arc::new(done.clone())).unwrap();
    let mut head = vec![0; 5000];
    again.read_at(3 * MIB as u64, &mut head).unwrap();
    assert!(head == fill(Kind::Noise(7), 5000), "what was there is kept");
    if have_qemu_img() {
        qemu_reads(&done, "vdi");
    }
}

#[test]
fn numbers_past_the_last_block_are_found_and_brought_down() {
    // Block 7 exists when the file is long enough, but an image of five blocks has none.
    let mut bytes = entry(0, 7);
    bytes.resize(DATA + 8 * MIB, 0);
    let bytes = with(bytes, DATA + 7 * MIB, &fill(Kind::Noise(3), 5000));
    found(&bytes, &["VDI-BLOCK-NUMBER"]);
    let done = repaired(&bytes, &["VDI-BLOCK-NUMBER"], &plainly);
    if have_qemu_img() {
        qemu_reads(&done, "vdi");
    }
}

#[test]
fn blocks_over_the_header_or_the_map_are_found() {
    // The data begin inside the map; the file is longer than its blocks, which proves no other place.
    let bytes = longer(with(good(), 0x158, &512u32.to_le_bytes()));
    let image = plainly(Arc::new(bytes.clone())).unwrap();
    let found = codes(image.check().unwrap().list());
    assert!(
        found.contains(&"VDI-DATA-IN-METADATA") && found.contains(&"VDI-BLOCK-IN-METADATA"),
        "{found:?}"
    );
    let error = image.read_at(0, &mut [0; 4]).unwrap_err();
    assert!(
        error.to_string().contains("inside the header or the map"),
        "{error}"
    );
    let refused = image.resize(1 << 30).unwrap_err().to_string();
    assert!(refused.contains("VDI-HEADER-DOUBT"), "{refused}");
    // The map is whole, so it is the place of the data that is wrong: no block is given up for it.
    let refused = image.repair().map(drop).unwrap_err().to_string();
    assert!(refused.contains("offData may be wrong"), "{refused}");
}

#[test]
fn blocks_of_one_number_are_left_alone_where_the_map_stands_over_the_numbers_that_are_free() {
    // The map is said to stand inside the second block, over zeros: all five entries are block 0.
    let at = u32::try_from(DATA + MIB + 64 * 1024).unwrap();
    let bytes = longer(with(good(), 0x154, &at.to_le_bytes()));
    let image = plainly(Arc::new(bytes.clone())).unwrap();
    let found = codes(image.check().unwrap().list());
    assert!(
        found.contains(&"VDI-DATA-IN-METADATA") && found.contains(&"VDI-BLOCKS-OVERLAP"),
        "{found:?}"
    );
    let error = image.repair().map(drop).unwrap_err().to_string();
    assert!(
        error.contains("4 blocks need another number and 3 are free")
            && error.contains("VDI-DATA-IN-METADATA"),
        "{error}"
    );
}

#[test]
fn fields_of_the_header_are_found_and_mended() {
    for (at, new, code) in [
        (0x184, &[9u8, 0, 0, 0][..], "VDI-BLOCKS-ALLOCATED"),
        (0x168, &[0, 4, 0, 0], "VDI-SECTOR-SIZE"),
        (0x1d4, &[0, 0, 0, 0], "VDI-SECTOR-SIZE"),
        (0x48, &[0x90, 0, 0, 0], "VDI-HEADER-SIZE"),
        (0x188, &[0; 16], "VDI-UUID"),
        (0x198, &[0; 16], "VDI-UUID"),
    ] {
        let bytes = with(good(), at, new);
        found(&bytes, &[code]);
        let done = repaired(&bytes, &[code], &plainly);
        if have_qemu_img() {
            qemu_reads(&done, "vdi");
        }
    }
}

#[test]
fn fields_that_only_a_person_can_judge_are_found() {
    for (at, new, code) in [
        (0x50, &[2u8, 0, 0, 0][..], "VDI-FLAGS"),
        (0x1a8, &[5; 16], "VDI-LINKAGE"),
        (
            0x170,
            &((4 * MIB + 70_000) as u64).to_le_bytes(),
            "VDI-DISK-SIZE",
        ),
        (0x158, &1025u32.to_le_bytes(), "VDI-ALIGNMENT"),
        (0x178, &(3u32 << 19).to_le_bytes(), "VDI-BLOCK-SIZE"),
    ] {
        // A file that is longer than its blocks proves no field wrong.
        let image = plainly(Arc::new(longer(with(good(), at, new)))).unwrap();
        let found = codes(image.check().unwrap().list());
        assert!(found.contains(&code), "{code} {found:?}");
    }
}

#[test]
fn a_disk_longer_than_its_map_is_read_as_far_as_it_goes() {
    let bytes = with(good(), 0x170, &(9 * MIB as u64).to_le_bytes());
    found(&bytes, &["VDI-BLOCK-COUNT"]);
    let image = plainly(Arc::new(bytes)).unwrap();
    assert_eq!(image.len(), 9 * MIB as u64);
    assert!(image.read_at(0, &mut [0; 4]).is_ok());
    let error = image.read_at(5 * MIB as u64, &mut [0; 4]).unwrap_err();
    assert!(
        error.to_string().contains("5 entries, none for block 5"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_read_at_all_is_refused_with_the_value() {
    for (at, new, words) in [
        (0x44, &[0u8, 0, 2, 0][..], "version 0x00020000"),
        (0x4c, &[5, 0, 0, 0], "type 5"),
        (0x178, &[0, 0, 0, 0], "block size 0"),
        (0x178, &[1, 2, 0, 0], "block size 513"),
        (0x180, &[0xff, 0xff, 0xff, 0x1f], "more than the 536870784"),
        (0x180, &[0, 0, 0, 1], "ends past the end"),
        (0x154, &[0, 0, 0, 0xf0], "ends past the end"),
        (0x154, &[0, 1, 0, 0], "inside the header"),
    ] {
        let error = plainly(Arc::new(longer(with(good(), at, new))))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = plainly(Arc::new(good()[..300].to_vec())).unwrap_err();
    assert!(error.to_string().contains("cut"), "{error}");
    let limits = {
        let mut limits = Limits::DEFAULT;
        limits.table_bytes_max = 16;
        limits
    };
    let error = drylab_image::open(Arc::new(good()), &limits).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(_)), "{error}");
}

#[test]
fn every_rule_says_how_bad_it_is_and_what_comes_of_it() {
    let rules: Vec<_> = drylab_image::rules()
        .into_iter()
        .filter(|rule| rule.code.starts_with("VDI-"))
        .collect();
    assert_eq!(rules.len(), 25);
    assert!(rules.iter().any(|rule| rule.severity == Severity::Error));
    assert!(
        rules
            .iter()
            .all(|rule| !rule.clause.is_empty() && !rule.effect.is_empty())
    );
}

/// A small file to change bytes of: blocks of 4 KiB.
fn small(fixed: bool) -> Vec<u8> {
    let piece = |offset: u64| Piece {
        offset,
        length: 3000,
        kind: Kind::Noise(offset | 1),
    };
    let plan = Plan {
        size: 40_960 - 1024,
        pieces: vec![piece(0), piece(9000), piece(30_000), piece(38_000)],
    };
    let options = VdiOptions {
        block_bytes: 4096,
        ..VdiOptions::qemu()
    };
    let target = if fixed {
        Target::VdiFixed(options)
    } else {
        Target::VdiDynamic(options)
    };
    all(&*packed(&plan.disk(), &target))
}

#[test]
fn the_fuzzers_seeds_are_read_and_mended() {
    type Reader = fn(&[u8]);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/fuzz");
    let targets: [(&str, Reader, usize); 4] = [
        ("vdi", fuzz::vdi, 7),
        ("vdi_repair", fuzz::vdi_repair, 4),
        ("vhd", fuzz::vhd, 5),
        ("vhd_repair", fuzz::vhd_repair, 7),
    ];
    for (target, reader, at_least) in targets {
        let mut opened = 0;
        for entry in std::fs::read_dir(format!("{root}/{target}")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            reader(&bytes);
            opened += usize::from(plainly(Arc::new(bytes)).is_ok());
        }
        // Children lack their parents here.
        assert!(opened >= at_least, "{target}: {opened}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn valid_files_with_a_few_changed_bytes_never_panic_and_are_mended(
        fixed: bool,
        edits in prop::collection::vec((prop_oneof![3 => 0x40..0x1d8usize, 4 => 512..552usize, 1 => any::<usize>()], prop_oneof![any::<u8>(), 0..12u8], any::<bool>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        thread_local!(static VALID: [Vec<u8>; 2] = [small(false), small(true)]);
        let mut bytes = VALID.with(|valid| valid[usize::from(fixed)].clone());
        for (at, value, zero) in edits {
            let at = at % bytes.len();
            // Whole entries, too: the upper bytes of most fields are zero.
            let end = if zero { (at + 4).min(bytes.len()) } else { at + 1 };
            bytes[at..end].fill(0);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::detect(&bytes);
        fuzz::vdi(&bytes);
        fuzz::vdi_repair(&bytes);
    }
}
