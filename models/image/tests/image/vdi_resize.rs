//! VDI: other sizes, step by step.

use crate::common::{Kind, Piece, Plan, have_qemu_img, packed};
use crate::vhd_steps::{all, plainly, qemu_reads, resized, sparse};
use drylab_block::{ReadAt, SparseBytes};
use drylab_image::vdi::BLOCKS_MAX;
use drylab_image::{Edit, Target, VdiOptions};
use proptest::prelude::*;
use std::sync::Arc;

fn file(size: u64, places: &[u64], options: VdiOptions, fixed: bool) -> Vec<u8> {
    let piece = |offset: &u64| Piece {
        offset: *offset,
        length: 3000,
        kind: Kind::Noise(offset | 1),
    };
    let plan = Plan {
        size,
        pieces: places.iter().map(piece).collect(),
    };
    let target = if fixed {
        Target::VdiFixed(options)
    } else {
        Target::VdiDynamic(options)
    };
    all(&*packed(&plan.disk(), &target))
}

fn small() -> VdiOptions {
    VdiOptions {
        block_bytes: 4096,
        ..VdiOptions::qemu()
    }
}

#[test]
fn a_map_without_room_takes_the_place_of_the_first_blocks() {
    for fixed in [false, true] {
        // 10 entries in 512 bytes; 400 need 1600: a block makes room.
        let before = file(40_960, &[0, 5000, 20_000, 37_000], small(), fixed);
        let plan = plainly(Arc::new(before.clone()))
            .unwrap()
            .resize(400 * 4096)
            .unwrap();
        let copies = plan
            .edits()
            .iter()
            .filter(|edit| matches!(edit, Edit::Copy { .. }));
        assert_eq!(copies.count(), 1, "{:?}", plan.notes());
        let after = resized(&before, 400 * 4096, &plainly);
        let image = plainly(Arc::new(after)).unwrap();
        assert_eq!(image.len(), 400 * 4096);
        assert_eq!(image.info().detail("offBlocks"), Some("1024"));
        assert_eq!(image.info().detail("offData"), Some("5120"));
    }
}

#[test]
fn an_empty_image_grows_and_shrinks_and_comes_to_nothing() {
    let before = file(0, &[], small(), false);
    let grown = resized(&before, 5 * 4096, &plainly);
    let shrunk = resized(&grown, 0, &plainly);
    assert_eq!(plainly(Arc::new(shrunk)).unwrap().len(), 0);
    assert!(
        plainly(Arc::new(before))
            .unwrap()
            .resize(0)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_tail_that_was_cut_off_does_not_come_back() {
    for fixed in [false, true] {
        let before = file(40_960, &[0, 20_000, 37_000], small(), fixed);
        let less = resized(&before, 22_016, &plainly);
        let more = resized(&less, 40_960, &plainly);
        let disk = all(&plainly(Arc::new(more)).unwrap());
        assert!(disk[22_016..].iter().all(|byte| *byte == 0));
        assert!(disk[20_000..22_016].iter().any(|byte| *byte != 0));
    }
}

#[test]
fn qemu_img_reads_and_checks_what_was_resized() {
    if !have_qemu_img() {
        return;
    }
    const MIB: u64 = 1 << 20;
    // 128 entries fill the 512 bytes of the map.
    for fixed in [false, true] {
        let size = 6 * MIB + 512;
        let options = VdiOptions::qemu();
        let before = file(size, &[0, 3 * MIB, 5 * MIB, 6 * MIB], options, fixed);
        for size in [512, 2 * MIB - 512, 4 * MIB, 7 * MIB + 1024, 9 * MIB] {
            let after = resized(&before, size, &plainly);
            qemu_reads(&after, "vdi");
        }
        if !fixed {
            let after = resized(&before, 200 * MIB, &plainly);
            assert_eq!(
                plainly(Arc::new(after.clone()))
                    .unwrap()
                    .info()
                    .detail("offBlocks"),
                Some("1024")
            );
            qemu_reads(&after, "vdi");
        }
    }
}

#[test]
fn a_disk_of_two_tebibytes_grows_within_the_room_of_its_map() {
    let disk = SparseBytes::new(2 << 40);
    let file = packed(&disk, &Target::VdiDynamic(VdiOptions::default()));
    let image = plainly(file.clone()).unwrap();
    // VirtualBox aligns the data to 1 MiB: there is no room behind 2 Mi entries.
    let plan = image.resize((2 << 40) + 512).unwrap();
    plan.apply(&*file).unwrap();
    let image = plainly(file).unwrap();
    assert_eq!(image.len(), (2 << 40) + 512);
    assert!(image.check().unwrap().is_empty());
}

#[test]
fn sizes_and_files_that_cannot_be_resized_are_refused_with_the_reason() {
    let good = file(40_960, &[0], small(), false);
    let image = plainly(Arc::new(good.clone())).unwrap();
    for size in [BLOCKS_MAX * 4096 + 1, u64::MAX] {
        let error = image.resize(size).unwrap_err().to_string();
        assert!(error.contains("536870784"), "{error}");
    }
    let mut bad = good;
    bad[0x184] = 7;
    let error = plainly(Arc::new(bad))
        .unwrap()
        .resize(4096)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("VDI-BLOCKS-ALLOCATED") && error.contains("mended"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_disk_keeps_its_bytes_through_sizes_in_every_prefix_of_the_plans(
        size in 1..60_000u64,
        places in prop::collection::vec(0..60_000u64, 0..6),
        sizes in prop::collection::vec(prop_oneof![4 => 0..80_000u64, 1 => 80_000..3_000_000u64], 1..4),
        fixed: bool,
    ) {
        let mut bytes = file(size, &places, small(), fixed);
        for size in sizes {
            bytes = resized(&bytes, size, &plainly);
            prop_assert_eq!(plainly(Arc::new(sparse(&bytes))).unwrap().len(), size.next_multiple_of(512));
        }
    }
}
