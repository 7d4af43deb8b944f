//! Resizing VHDX: the guest's bytes stay, new ones are zeros, and a crash shows the disk of before or of after.

use crate::common::{have_qemu_img, packed, plans};
use crate::vhdx_tools::{
    BAT, BLOCKS, HEADERS, MIB, bytes, check, copy, dynamic, entry, fixed, guest, open, passes_qemu,
    set_log_guid, small,
};
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use drylab_image::{Target, VhdxOptions};
use proptest::prelude::*;

/// Resizes a file and holds it to the law; the answer is the resized file.
#[track_caller]
fn resized(file: &SparseBytes, size: u64) -> SparseBytes {
    let image = open(copy(file)).unwrap();
    let before = guest(&image);
    let old = image.len();
    let plan = image.resize(size).unwrap();
    let expected = {
        let disk = SparseBytes::default();
        drylab_block::copy_data(&image, &disk).unwrap();
        disk.set_len(size).unwrap();
        bytes(&disk, 0, size)
    };
    let mut states = Vec::new();
    for count in 0..=plan.edits().len() {
        let crashed = copy(file);
        plan.apply_first(count, &crashed).unwrap();
        let image = open(crashed).unwrap_or_else(|error| panic!("after {count} steps: {error}"));
        if image.len() == old {
            assert!(guest(&image) == before, "after {count} steps");
        } else {
            assert_eq!(image.len(), size);
            assert!(bytes(&image, 0, size) == expected, "after {count} steps");
        }
        states.push(image.len() == size);
    }
    assert!(states.is_sorted(), "once it is resized it stays so");
    let done = copy(file);
    plan.apply(&done).unwrap();
    assert_eq!(open(copy(&done)).unwrap().len(), size);
    assert!(check(&done).is_empty(), "{:?}", check(&done));
    done
}

#[test]
fn a_dynamic_disk_grows_and_shrinks_in_its_table() {
    let file = dynamic();
    for size in [
        0,
        512,
        MIB,
        5 * MIB,
        9 * MIB,
        9 * MIB + 1024,
        12 * MIB,
        64 * MIB + 512,
    ] {
        let done = resized(&file, size);
        // It takes the table of a disk without blocks for one of 2^32 - 1.
        if size > 0 && have_qemu_img() {
            assert!(passes_qemu(&done), "{size}");
        }
        for header in HEADERS {
            let ids = |file: &SparseBytes| bytes(file, header + 16, 32);
            let (before, after) = (ids(&file), ids(&done));
            assert!(before[..16] != after[..16] && before[16..] != after[16..]);
        }
    }
    assert!(
        open(dynamic())
            .unwrap()
            .resize(9 * MIB + 512)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_a_smaller_disk_no_longer_has_is_given_up_and_the_file_cut() {
    let file = dynamic();
    let image = open(copy(&file)).unwrap();
    let notes = image.resize(MIB).unwrap().notes().concat();
    assert!(
        notes.contains("gives up the last 8389120 bytes") && notes.contains("3 blocks"),
        "{notes}"
    );
    let done = resized(&file, MIB);
    assert_eq!(done.len(), BLOCKS + MIB);
    assert_eq!(bytes(&done, BAT + 8, 9 * 8), [0; 72]);
}

#[test]
fn what_stood_behind_the_end_of_a_disk_is_not_shown_when_it_grows() {
    // The last block has bytes behind the disk, as when a larger one was cut.
    let file = dynamic();
    let place = entry(&file, 9) & !7;
    file.write_at(place + 512, &[0xee; 4096]).unwrap();
    let done = resized(&file, 12 * MIB);
    assert_ne!(entry(&done, 9) & !7, place);
    // And so does the table.
    let file = dynamic();
    file.write_at(BAT + 80, &[0xee; 800]).unwrap();
    resized(&file, 40 * MIB);
    let cut = resized(&dynamic(), 3 * MIB + 512);
    let grown = resized(&cut, 9 * MIB);
    let image = open(copy(&grown)).unwrap();
    assert_eq!(bytes(&image, 3 * MIB + 512, 70_000), vec![0; 70_000]);
    assert!(bytes(&image, 0, MIB) == bytes(&small(), 0, MIB));
}

#[test]
fn a_fixed_disk_has_a_place_for_every_block_afterwards() {
    let file = fixed();
    let done = resized(&file, 20 * MIB);
    assert_eq!(open(copy(&done)).unwrap().subformat(), "fixed");
    assert!((0..20).all(|block| entry(&done, block) & 7 == 6));
    let less = resized(&done, 4 * MIB);
    assert_eq!(less.len(), BLOCKS + 4 * MIB);
    if have_qemu_img() {
        assert!(passes_qemu(&done) && passes_qemu(&less));
    }
}

#[test]
fn a_table_that_is_too_short_moves_to_the_end_of_the_file() {
    // 1 MiB of table is for 131072 entries: blocks of 1 MiB for 128 GiB less 32 bitmaps.
    let most = (131_072 - 31) * MIB;
    for make in [Target::VhdxDynamic, Target::VhdxFixed] {
        if matches!(make(VhdxOptions::default()), Target::VhdxFixed(_)) {
            continue;
        }
        let file = copy(&*packed(&small(), &make(VhdxOptions::default())));
        let image = open(copy(&file)).unwrap();
        let plan = image.resize(most).unwrap();
        assert!(plan.notes().is_empty(), "{:?}", plan.notes());
        let plan = image.resize(most + MIB).unwrap();
        assert!(plan.notes().concat().contains("moves the BAT"));
        for count in 0..=plan.edits().len() {
            let crashed = copy(&file);
            plan.apply_first(count, &crashed).unwrap();
            let image = open(crashed).unwrap();
            assert!(
                bytes(&image, 0, 9 * MIB) == bytes(&small(), 0, 9 * MIB),
                "after {count} steps"
            );
        }
        let done = copy(&file);
        plan.apply(&done).unwrap();
        assert!(check(&done).is_empty());
        let image = open(copy(&done)).unwrap();
        assert_eq!(image.len(), most + MIB);
        assert_eq!(done.len(), file.len() + 2 * MIB);
        if have_qemu_img() {
            assert!(passes_qemu(&done));
        }
    }
}

#[test]
fn sizes_and_files_that_cannot_be_resized_are_refused_with_the_reason() {
    let refused = |file: SparseBytes, size: u64, word: &str| {
        let error = open(file).unwrap().resize(size).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(dynamic(), 1000, "the next size is 1024");
    refused(dynamic(), (64 << 40) + 512, "64 TiB");
    let pending = dynamic();
    set_log_guid(&pending);
    refused(pending, MIB, "log");
    let damaged = dynamic();
    crate::vhdx_tools::set_entry(&damaged, 1, (1 << 40) | 6);
    refused(damaged, MIB, "VHDX-BLOCK-LOST");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_disk_of_any_size_becomes_any_other(
        plan in plans(6 << 20), sectors in 0..16_000u64, again in 0..16_000u64, fix: bool,
        block in prop::sample::select(vec![1u32 << 20, 4 << 20]),
    ) {
        let options = VhdxOptions { block_bytes: Some(block), ..VhdxOptions::default() };
        let target = if fix { Target::VhdxFixed(options) } else { Target::VhdxDynamic(options) };
        let file = copy(&*packed(&plan.disk(), &target));
        let once = resized(&file, sectors * 512);
        resized(&once, again * 512);
    }
}

#[test]
fn a_file_that_ends_with_its_disk_inside_the_last_block_grows() {
    // As qemu-img makes an empty fixed disk.
    let file = fixed();
    file.set_len(BLOCKS + 9 * MIB + 512).unwrap();
    assert!(check(&file).is_empty());
    let done = resized(&file, 12 * MIB + 512);
    assert_eq!(done.len(), BLOCKS + 13 * MIB);
    if have_qemu_img() {
        assert!(passes_qemu(&done));
    }
}
