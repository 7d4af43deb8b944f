//! Broken and hostile VHDX: each rule of the format broken, found and mended.

use crate::common::{Plan, have_qemu_img, packed};
use crate::vhdx_tools::{
    BAT, BLOCKS, HEADERS, ITEMS, METADATA, MIB, REGIONS, bytes, check, copy, dynamic, entry, fixed,
    guest, in_headers, in_regions, open, passes_qemu, piece, repaired, seal, set_entry,
};
use drylab_block::{Error, Extents, Limits, ReadAt, SparseBytes, WriteAt};
use drylab_image::{Damage, Format, Options, Target, VhdxOptions, open_as};
use std::sync::Arc;

#[track_caller]
fn refuses(file: SparseBytes, words: &[&str]) {
    let error = open(file).map(drop).expect_err("an error").to_string();
    assert!(
        words.iter().all(|word| error.contains(word)),
        "{error} lacks {words:?}"
    );
}

/// Found with these codes, repaired without loss, and sound for us and qemu-img afterwards.
#[track_caller]
fn mends(file: &SparseBytes, found: &[&str]) -> SparseBytes {
    assert_eq!(check(file), found);
    let mended = repaired(file);
    assert!(check(&mended).is_empty());
    if have_qemu_img() {
        assert!(passes_qemu(&mended));
    }
    mended
}

#[test]
fn sound_files_have_no_findings_and_no_repair() {
    for file in [dynamic(), fixed()] {
        let image = open(copy(&file)).unwrap();
        assert_eq!(image.format(), Format::Vhdx);
        assert!(image.check().unwrap().is_empty());
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn one_header_stands_in_for_the_other_and_with_both_bad_a_file_without_log_is_rescued() {
    let good = guest(&open(dynamic()).unwrap());
    for header in HEADERS {
        let file = dynamic();
        file.write_at(header + 100, &[1]).unwrap();
        assert_eq!(guest(&open(copy(&file)).unwrap()), good);
        mends(&file, &["VHDX-HEADER"]);
    }
    let file = dynamic();
    for header in HEADERS {
        file.write_at(header + 100, &[1]).unwrap();
    }
    assert_eq!(guest(&open(copy(&file)).unwrap()), good);
    mends(&file, &["VHDX-HEADER", "VHDX-NO-HEADER"]);
    // A log would have to be replayed, or neither is a header at all.
    let with_log = copy(&file);
    with_log.write_at(HEADERS[1] + 48, &[1]).unwrap();
    let without = copy(&file);
    for header in HEADERS {
        without.write_at(header, b"heap").unwrap();
    }
    for file in [with_log, without] {
        refuses(file, &["no valid header", "65536", "131072"]);
    }
}

#[test]
fn the_header_with_the_greater_number_counts_and_equal_ones_must_be_the_same() {
    for (one, two, log) in [(7u64, 6u64, 3 * MIB), (6, 7, MIB)] {
        let file = dynamic();
        for (header, number) in HEADERS.into_iter().zip([one, two]) {
            file.write_at(header + 8, &number.to_le_bytes()).unwrap();
            seal(&file, header, 4096);
        }
        file.write_at(HEADERS[0] + 72, &(3 * MIB).to_le_bytes())
            .unwrap();
        seal(&file, HEADERS[0], 4096);
        let info = open(file).unwrap().info();
        assert_eq!(info.detail("LogOffset"), Some(log.to_string().as_str()));
    }
    let file = dynamic();
    in_headers(&file, 8, &5u64.to_le_bytes());
    assert!(check(&file).is_empty(), "Disk2vhd writes both alike");
    file.write_at(HEADERS[0] + 16, &[9]).unwrap();
    seal(&file, HEADERS[0], 4096);
    refuses(file, &["headers differ", "sequence number 5"]);
    let file = dynamic();
    in_headers(&file, 66, &[2, 0]);
    refuses(file, &["VHDX version 2"]);
}

#[test]
fn one_region_table_stands_in_for_the_other_and_the_first_counts_where_they_differ() {
    let good = guest(&open(dynamic()).unwrap());
    for table in REGIONS {
        let file = dynamic();
        file.write_at(table + 60_000, &[1]).unwrap();
        assert_eq!(
            guest(&open(copy(&file)).unwrap()),
            good,
            "qemu refuses the first"
        );
        mends(&file, &["VHDX-REGION-TABLE"]);
    }
    let file = dynamic();
    file.write_at(REGIONS[1] + 16 + 32 + 16, &(5 * MIB).to_le_bytes())
        .unwrap();
    seal(&file, REGIONS[1], 64 << 10);
    assert_eq!(guest(&open(copy(&file)).unwrap()), good);
    mends(&file, &["VHDX-REGION-TABLES-DIFFER"]);
    let file = dynamic();
    for table in REGIONS {
        file.write_at(table, b"iger").unwrap();
    }
    refuses(file, &["no valid region table", "196608", "262144"]);
}

#[test]
fn regions_and_metadata_items_that_must_be_known_are_refused_and_others_kept() {
    let third = REGIONS.map(|table| table + 16 + 64);
    let region = |required: u8| {
        let file = dynamic();
        let end = file.len();
        let mut row = vec![0x77; 16];
        row.extend(end.to_le_bytes());
        row.extend((MIB as u32).to_le_bytes());
        row.extend([required, 0, 0, 0]);
        file.write_at(end, &vec![5; MIB as usize]).unwrap();
        for (table, row_at) in REGIONS.into_iter().zip(third) {
            file.write_at(table + 8, &[3]).unwrap();
            file.write_at(row_at, &row).unwrap();
            seal(&file, table, 64 << 10);
        }
        file
    };
    refuses(region(1), &["unsupported", "77777777", "must be known"]);
    let file = region(0);
    assert!(check(&file).is_empty());
    // It is in the way of blocks like the others, and stays when the file is repaired.
    set_entry(&file, 1, (file.len() - MIB) | 6);
    assert_eq!(check(&file), ["VHDX-BLOCK-IN-STRUCTURE"]);
    let mended = repaired(&file);
    assert_eq!(bytes(&mended, file.len() - MIB, MIB), vec![5; MIB as usize]);

    let item = |flags: u8| {
        let file = dynamic();
        let mut row = vec![0x66; 16];
        row.extend((128u32 << 10).to_le_bytes());
        row.extend(100u32.to_le_bytes());
        row.extend([flags, 0, 0, 0, 0, 0, 0, 0]);
        file.write_at(METADATA + 10, &[6]).unwrap();
        file.write_at(METADATA + 32 + 5 * 32, &row).unwrap();
        file
    };
    for required in [4, 5, 6] {
        refuses(
            item(required),
            &["unsupported", "66666666", "must be known"],
        );
    }
    for optional in [0, 1, 2] {
        let image = open(item(optional)).unwrap();
        assert!(image.check().unwrap().is_empty());
        let id = "metadata item 66666666-6666-6666-6666-666666666666";
        assert_eq!(image.info().detail(id), Some("100 bytes"));
    }
}

#[test]
fn regions_must_have_places_of_their_own_in_whole_mib() {
    let with = |at: u64, new: &[u8]| {
        let file = dynamic();
        in_regions(&file, at, new);
        file
    };
    // The second entry is the BAT; its offset and its length.
    let (offset, length) = (16 + 32 + 16, 16 + 32 + 24);
    let longer = with(length, &(MIB as u32 + 4096).to_le_bytes());
    let found = ["VHDX-BLOCK-IN-STRUCTURE", "VHDX-REGION-PLACE"];
    assert_eq!(check(&longer), found);
    let error = open(longer).unwrap().repair().unwrap_err().to_string();
    assert!(error.contains("VHDX-REGION-PLACE"), "{error}");
    let overlapping = with(16 + 24, &(2 * MIB as u32).to_le_bytes());
    assert_eq!(check(&overlapping), ["VHDX-REGION-OVERLAP"]);
    assert!(open(overlapping).unwrap().repair().is_err());
    refuses(
        with(offset, &(1u64 << 50).to_le_bytes()),
        &["BAT", "past the end"],
    );
    refuses(
        with(length, &8u32.to_le_bytes()),
        &["BAT has 8 bytes", "needs 80"],
    );
    refuses(with(16, &[0xff; 16]), &["must be known"]);
    refuses(with(8, &[1]), &["no entry for the BAT"]);
    refuses(with(8, &2048u32.to_le_bytes()), &["2048 entries"]);
    let twice = bytes(&dynamic(), REGIONS[0] + 16, 32);
    let file = dynamic();
    in_regions(&file, 16 + 64, &twice);
    in_regions(&file, 8, &[3]);
    refuses(file, &["two entries for the metadata region"]);
    refuses(
        with(16 + 16, &(1u64 << 50).to_le_bytes()),
        &["metadata", "past the end"],
    );
    refuses(
        with(16 + 16, &(3 * MIB).to_le_bytes()),
        &["no signature metadata"],
    );
}

/// The items of our writer stand at 64 KiB of the region: parameters, size, logical, physical, id.
#[test]
fn metadata_that_contradicts_itself_is_refused_with_the_value() {
    let with = |at: u64, new: &[u8]| {
        let file = dynamic();
        file.write_at(at, new).unwrap();
        file
    };
    for block in [0u32, 1 << 19, 3 << 20, 512 << 20] {
        refuses(
            with(ITEMS, &block.to_le_bytes()),
            &["block size", &block.to_string()],
        );
    }
    let size = (64u64 << 40) + 512;
    refuses(
        with(ITEMS + 8, &size.to_le_bytes()),
        &["64 TiB", &size.to_string()],
    );
    refuses(
        with(ITEMS + 16, &513u32.to_le_bytes()),
        &["logical sector size 513"],
    );
    refuses(with(ITEMS + 4, &[2]), &["parent locator"]);
    refuses(
        with(METADATA + 10, &2048u16.to_le_bytes()),
        &["2048 entries"],
    );
    refuses(with(METADATA + 32, &[1]), &["must be known"]);
    refuses(with(METADATA + 10, &[2]), &["no logical sector size"]);
    // An item outside of the region.
    refuses(
        with(METADATA + 32 + 16, &(1u32 << 30).to_le_bytes()),
        &["file parameters", "1073741824"],
    );
    refuses(with(METADATA + 32 + 16, &[0; 4]), &["file parameters"]);
    refuses(
        with(METADATA + 32 + 20, &[7]),
        &["file parameters", "needs 8"],
    );
}

#[test]
fn metadata_that_others_refuse_is_said_and_the_disk_read() {
    let good = guest(&open(dynamic()).unwrap());
    let with = |at: u64, new: &[u8]| {
        let file = dynamic();
        file.write_at(at, new).unwrap();
        file
    };
    let row = |number: u64| METADATA + 32 + number * 32;
    for (file, found) in [
        // Without its id, or with half of it.
        (with(METADATA + 10, &[4]), &["VHDX-METADATA-MISSING"][..]),
        (with(row(4) + 20, &[8]), &["VHDX-METADATA-MISSING"]),
        // A physical sector of 520 bytes.
        (
            with(ITEMS + 20, &520u32.to_le_bytes()),
            &["VHDX-METADATA-MISSING"],
        ),
        // The id over the sizes of the sectors.
        (
            with(row(4) + 16, &((64u32 << 10) + 16).to_le_bytes()),
            &["VHDX-METADATA-ITEM"],
        ),
        // The id outside.
        (
            with(row(4) + 16, &(2u32 << 20).to_le_bytes()),
            &["VHDX-METADATA-ITEM", "VHDX-METADATA-MISSING"],
        ),
        // Empty and yet somewhere.
        (
            with(row(4) + 20, &[0]),
            &["VHDX-METADATA-ITEM", "VHDX-METADATA-MISSING"],
        ),
        // A size that is no whole sector.
        (
            with(ITEMS + 8, &(9 * MIB + 511).to_le_bytes()),
            &["VHDX-DISK-SIZE"],
        ),
    ] {
        assert_eq!(check(&file), found);
        let now = guest(&open(copy(&file)).unwrap());
        assert_eq!(now[..2304], good[..2304]);
        assert!(open(file).unwrap().repair().unwrap().is_empty());
    }
    let twice = dynamic();
    let id = bytes(&twice, row(4), 32);
    twice.write_at(row(5), &id).unwrap();
    twice.write_at(METADATA + 10, &[6]).unwrap();
    assert_eq!(check(&twice), ["VHDX-METADATA-ITEM"]);
}

#[test]
fn blocks_that_share_a_place_are_copied_out() {
    let file = dynamic();
    let third = entry(&file, 3);
    set_entry(&file, 1, third);
    let mended = mends(&file, &["VHDX-BLOCK-SHARED"]);
    assert_ne!(entry(&mended, 1), entry(&mended, 3));
    assert!([entry(&mended, 1), entry(&mended, 3)].contains(&third));
    // Blocks of 2 MiB that share half of it.
    let options = VhdxOptions {
        block_bytes: Some(2 << 20),
        ..VhdxOptions::default()
    };
    let plan = Plan {
        size: 8 * MIB,
        pieces: vec![piece(0, 4 << 20, 1)],
    };
    let file = copy(&*packed(&plan.disk(), &Target::VhdxDynamic(options)));
    set_entry(&file, 1, (BLOCKS + MIB) | 6);
    mends(&file, &["VHDX-BLOCK-SHARED"]);
}

#[test]
fn a_block_behind_the_end_is_lost_and_reads_as_zeros_when_given_up() {
    let file = dynamic();
    set_entry(&file, 3, (1 << 40) | 6);
    let image = open(copy(&file)).unwrap();
    let error = image.read_at(3 * MIB, &mut [0; 512]).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt(text) if text.contains("block 3") && text.contains("1099511627776")),
        "{error}"
    );
    let mended = mends(&file, &["VHDX-BLOCK-LOST"]);
    assert_eq!(entry(&mended, 3), 2);
    // The guest sees another disk, so children of the old one must not be led to it.
    for header in HEADERS {
        let ids = |file: &SparseBytes| bytes(file, header + 16, 32);
        let (before, after) = (ids(&file), ids(&mended));
        assert!(before[..16] != after[..16] && before[16..] != after[16..]);
    }
    // A file that was cut: the part of the last block that is there is kept.
    let file = fixed();
    let length = file.len();
    file.set_len(length - MIB - 512 * 1024).unwrap();
    assert_eq!(check(&file), ["VHDX-BLOCK-LOST"]);
    let image = open(copy(&file)).unwrap();
    assert_eq!(image.info().findings.counts().len(), 0);
    assert_eq!(image.check().unwrap().counts()["VHDX-BLOCK-LOST"], 2);
    let mended = mends(&file, &["VHDX-BLOCK-LOST"]);
    assert_eq!(entry(&mended, 9), 2);
    let half = bytes(&mended, BLOCKS + 8 * MIB, 512 * 1024);
    assert!(half == bytes(&fixed(), BLOCKS + 8 * MIB, 512 * 1024));
}

#[test]
fn a_block_inside_a_structure_is_not_read_and_what_is_free_of_it_is_rescued() {
    for (place, name) in [
        (0, "header section"),
        (MIB, "log"),
        (2 * MIB, "metadata region"),
        (3 * MIB, "BAT"),
    ] {
        let file = dynamic();
        set_entry(&file, 3, place | 6);
        let image = open(copy(&file)).unwrap();
        let error = image
            .read_at(3 * MIB, &mut [0; 512])
            .unwrap_err()
            .to_string();
        assert!(error.contains(name), "{error}");
        let mended = mends(&file, &["VHDX-BLOCK-IN-STRUCTURE"]);
        assert_eq!(entry(&mended, 3), 2);
    }
    // Two MiB, of which the first is the BAT: the second is copied out.
    let options = VhdxOptions {
        block_bytes: Some(2 << 20),
        ..VhdxOptions::default()
    };
    let plan = Plan {
        size: 8 * MIB,
        pieces: vec![piece(0, 4 << 20, 1)],
    };
    let file = copy(&*packed(&plan.disk(), &Target::VhdxDynamic(options)));
    set_entry(&file, 0, BAT | 6);
    let mended = mends(&file, &["VHDX-BLOCK-IN-STRUCTURE"]);
    let place = entry(&mended, 0) & !7;
    assert!(place >= file.len());
    assert_eq!(bytes(&mended, place, MIB), vec![0; MIB as usize]);
    assert!(bytes(&mended, place + MIB, MIB) == bytes(&file, BLOCKS, MIB));
}

#[test]
fn states_that_do_not_exist_are_found_and_given_up_and_a_parents_state_without_parent_is_made_right()
 {
    for state in [4, 5] {
        let file = dynamic();
        let old = entry(&file, 3);
        set_entry(&file, 3, (old & !7) | state);
        assert!(
            open(copy(&file))
                .unwrap()
                .read_at(3 * MIB, &mut [0])
                .is_err()
        );
        assert_eq!(entry(&mends(&file, &["VHDX-BAT-STATE"]), 3), 2);
    }
    let file = dynamic();
    let old = entry(&file, 3);
    set_entry(&file, 3, old | 7);
    assert_eq!(entry(&mends(&file, &["VHDX-BAT-STATE"]), 3), old);
    for bits in [1u64 << 3, 1 << 19] {
        let file = dynamic();
        set_entry(&file, 3, old | bits);
        assert_eq!(entry(&mends(&file, &["VHDX-BAT-RESERVED"]), 3), old);
    }
}

#[test]
fn a_parents_state_without_parent_is_not_left_whatever_else_is_wrong_with_the_entry() {
    // Large blocks, so that a part of each wrong place is in no structure.
    let options = VhdxOptions {
        block_bytes: Some(8 << 20),
        ..VhdxOptions::default()
    };
    let plan = Plan {
        size: 32 * MIB,
        pieces: vec![piece(0, 4 << 20, 1), piece(16 << 20, 100, 2)],
    };
    let made = copy(&*packed(&plan.disk(), &Target::VhdxDynamic(options)));
    let (end, last) = (made.len(), entry(&made, 2) & !7);
    for (place, code, given_up) in [
        (0, "VHDX-BLOCK-IN-STRUCTURE", true),
        (BAT, "VHDX-BLOCK-IN-STRUCTURE", false),
        (last + MIB, "VHDX-BLOCK-SHARED", false),
        (1 << 40, "VHDX-BLOCK-LOST", true),
    ] {
        let file = copy(&made);
        set_entry(&file, 1, place | 7);
        let found = check(&file);
        assert!(found.contains(&code), "{place}: {found:?}");
        let mended = repaired(&file);
        assert!(check(&mended).is_empty(), "{place}");
        // Of no place nothing is copied: those bytes are another block's.
        assert_eq!(entry(&mended, 1) == 2, given_up, "{place}");
        assert!(given_up || entry(&mended, 1) & 7 == 6, "{place}");
    }
    // The file ends inside the block: it is lengthened.
    let file = copy(&made);
    set_entry(&file, 2, last | 7);
    file.set_len(end - 7 * MIB - 512).unwrap();
    assert_eq!(check(&file), ["VHDX-BLOCK-LOST"]);
    assert_eq!(entry(&repaired(&file), 2), last | 6);
}

#[test]
fn all_damage_at_once_is_mended_at_once() {
    let file = dynamic();
    let third = entry(&file, 3);
    set_entry(&file, 1, third);
    set_entry(&file, 2, third | 8);
    set_entry(&file, 5, (1 << 40) | 6);
    set_entry(&file, 6, MIB | 6);
    set_entry(&file, 7, 5);
    set_entry(&file, 8, (entry(&file, 4) & !7) | 7);
    in_headers(&file, 72, &0u64.to_le_bytes());
    file.write_at(HEADERS[0], &[0; 4]).unwrap();
    file.write_at(REGIONS[0], &[0; 4]).unwrap();
    let found = [
        "VHDX-BAT-RESERVED",
        "VHDX-BAT-STATE",
        "VHDX-BLOCK-LOST",
        "VHDX-BLOCK-SHARED",
        "VHDX-HEADER",
        "VHDX-LOG-PLACE",
        "VHDX-REGION-TABLE",
    ];
    // Block 6 stands where the log no longer is: nobody else is there.
    mends(&file, &found);
}

#[test]
fn what_is_broken_is_refused_by_who_opens_strictly() {
    let options = Options {
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let file = dynamic();
    file.write_at(ITEMS + 8, &(9 * MIB + 511).to_le_bytes())
        .unwrap();
    let error = open_as(Arc::new(file), &options).unwrap_err();
    assert!(error.to_string().contains("VHDX-DISK-SIZE"), "{error}");
    let file = dynamic();
    file.write_at(HEADERS[0], &[0; 4]).unwrap();
    assert!(open_as(Arc::new(file), &options).is_ok(), "a warning");
}

#[test]
fn every_rule_has_a_test_that_names_it() {
    let tests = [
        include_str!("vhdx_damaged.rs"),
        include_str!("vhdx_log.rs"),
        include_str!("vhdx_children.rs"),
    ]
    .concat();
    let ours = drylab_image::rules();
    let mut ours = ours.iter().filter(|rule| rule.code.starts_with("VHDX-"));
    assert_eq!(ours.clone().count(), 23);
    let untold = ours.find(|rule| !tests.contains(&format!("{:?}", rule.code)));
    assert_eq!(untold, None);
}

#[test]
fn a_file_cut_anywhere_is_read_rightly_or_refused() {
    let file = fixed();
    let good = guest(&open(copy(&file)).unwrap());
    for cut in (0..file.len()).step_by(299_993) {
        let short = copy(&file);
        short.set_len(cut).unwrap();
        let Ok(image) = open(short) else { continue };
        let Format::Vhdx = image.format() else {
            assert!(cut < 8);
            continue;
        };
        for (now, good) in guest(&image).iter().zip(&good) {
            assert!(now.is_none() || now == good, "cut at {cut}");
        }
    }
    for length in [8, 70_000, 300_000, 2 << 20] {
        let short = dynamic();
        short.set_len(length).unwrap();
        assert!(matches!(open(short), Err(Error::Corrupt(_))), "{length}");
    }
}

#[test]
fn tables_of_terabytes_cost_no_memory_and_a_check_no_time_where_the_file_has_holes() {
    let options = VhdxOptions {
        block_bytes: Some(1 << 20),
        ..VhdxOptions::default()
    };
    let disk = SparseBytes::new(64 << 40);
    disk.write_at(63 << 40, &[1; 512]).unwrap();
    let file = packed(&disk, &Target::VhdxDynamic(options));
    assert_eq!(file.len(), 3 * MIB + (512 << 20) + MIB + MIB);
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 1 << 20;
    let image = drylab_image::open(file, &limits).unwrap();
    assert!(image.check().unwrap().is_empty());
    let mut sector = [0; 512];
    image.read_at(63 << 40, &mut sector).unwrap();
    assert_eq!(sector, [1; 512]);
    // A disk that claims more than its table has room for is refused before anything is read of it.
    let file = dynamic();
    file.write_at(ITEMS + 8, &(64u64 << 40).to_le_bytes())
        .unwrap();
    refuses(file, &["BAT has 1048576 bytes", "needs"]);
}

#[test]
fn the_map_of_a_damaged_disk_still_covers_it() {
    let file = dynamic();
    for (number, value) in [6u64, 0x1234_5678_9abc_def4, u64::MAX, 7, 5]
        .iter()
        .enumerate()
    {
        set_entry(&file, number as u64, *value);
    }
    let image = open(file).unwrap();
    let end = Extents::new(&image)
        .last()
        .map(|extent| extent.offset + extent.length);
    assert_eq!(end, Some(image.len()));
}
