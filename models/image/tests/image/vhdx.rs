//! VHDX: what is written is read again, whatever the sizes, and the same each time.

use crate::common::{Piece, Plan, assert_same, opened, packed, plans};
use crate::vhdx_tools::{
    BAT, BLOCKS, MIB, bytes, copy, dynamic, entry, guest, open, piece, set_entry, small,
};
use drylab_block::{ExtentKind, ReadAt, SparseBytes, content_id};
use drylab_image::vhdx::{DISK_BYTES_MAX, Guid};
use drylab_image::{Format, Target, VhdxOptions};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn ends(size: u64) -> Plan {
    let at = |offset: u64| piece(offset.min(size.saturating_sub(1)), 600, offset + 1);
    let pieces: Vec<Piece> = vec![at(0), at(size / 2), at(size.saturating_sub(300))];
    Plan { size, pieces }
}

#[test]
fn disks_of_all_sizes_up_to_64_tib_are_kept_and_larger_ones_refused() {
    for size in [
        0,
        1,
        512,
        513,
        3 * 512,
        MIB - 512,
        MIB,
        MIB + 512,
        4 * GIB + 512,
        2 * TIB,
        DISK_BYTES_MAX - 512,
        DISK_BYTES_MAX,
    ] {
        let disk = ends(size).disk();
        let image = opened(packed(&disk, &Target::VhdxDynamic(VhdxOptions::default())));
        assert_eq!(
            (image.format(), image.subformat()),
            (Format::Vhdx, "dynamic")
        );
        assert_eq!(image.len(), size.next_multiple_of(512));
        assert_same(&disk, &image);
        assert!(image.check().unwrap().is_empty());
        if size <= 4 * TIB {
            let image = opened(packed(&disk, &Target::VhdxFixed(VhdxOptions::default())));
            assert_eq!(image.subformat(), "fixed");
            assert_same(&disk, &image);
            assert!(image.check().unwrap().is_empty());
        }
    }
    for target in [
        Target::VhdxDynamic(VhdxOptions::default()),
        Target::VhdxFixed(VhdxOptions::default()),
    ] {
        let larger = SparseBytes::new(DISK_BYTES_MAX + 1);
        let error = drylab_image::file_size(&larger, &target).unwrap_err();
        assert!(error.to_string().contains("64 TiB"), "{error}");
    }
}

#[test]
fn small_blocks_keep_the_file_of_scattered_data_short_and_large_disks_keep_the_table_short() {
    // A sector every 100 MiB.
    let pieces = (0..20).map(|n| piece(n * 100 * MIB, 512, n + 1)).collect();
    let disk = Plan {
        size: 2 * GIB,
        pieces,
    };
    let target = Target::VhdxDynamic(VhdxOptions::default());
    let file = packed(&disk.disk(), &target);
    assert_eq!(file.len(), BLOCKS + 20 * MIB);
    assert!(
        file.allocated() < 21 * 64 * 1024 + 100_000,
        "zeros are not stored"
    );
    for (size, block, length) in [
        (100 * GIB, MIB, 4 * MIB),
        (200 * GIB, 2 * MIB, 4 * MIB),
        (2 * TIB, 32 * MIB, 4 * MIB),
        (64 * TIB, 32 * MIB, 20 * MIB),
    ] {
        let file = packed(&SparseBytes::new(size), &target);
        let image = opened(file.clone());
        let said = image.info().detail("BlockSize").unwrap().to_owned();
        assert_eq!(said, block.to_string(), "{size}");
        assert!(file.len() <= length, "{size}: {}", file.len());
    }
}

#[test]
fn a_fixed_disk_has_a_place_for_every_block_in_their_order() {
    let disk = small();
    let file = packed(&disk, &Target::VhdxFixed(VhdxOptions::default()));
    assert_eq!(file.len(), BLOCKS + 10 * MIB);
    for block in 0..10 {
        assert_eq!(entry(&*file, block), (BLOCKS + block * MIB) | 6);
    }
    let image = opened(file);
    assert_eq!(image.info().detail("LeaveBlockAllocated"), Some("true"));
    let (extent, stored) = image.piece_at(3 * MIB);
    assert_eq!(extent.kind, ExtentKind::Data);
    assert_eq!(stored.unwrap().offset, BLOCKS + 3 * MIB);
    // It is as sparse as its file.
    assert_eq!(image.extent_at(6 * MIB).kind, ExtentKind::Zero);
}

#[test]
fn identifiers_are_those_asked_for_or_made_of_the_content() {
    let options = VhdxOptions {
        creator: "Müller's tool".to_owned(),
        file_write_guid: Some(Guid([1; 16])),
        data_write_guid: Some(Guid([2; 16])),
        disk_id: Some(Guid([3; 16])),
        ..VhdxOptions::default()
    };
    let info = opened(packed(&small(), &Target::VhdxDynamic(options))).info();
    for (key, value) in [
        ("Creator", "Müller's tool"),
        ("FileWriteGuid", "01010101-0101-0101-0101-010101010101"),
        ("DataWriteGuid", "02020202-0202-0202-0202-020202020202"),
        ("VirtualDiskId", "03030303-0303-0303-0303-030303030303"),
        ("LogGuid", "00000000-0000-0000-0000-000000000000"),
        ("LogicalSectorSize", "512"),
        ("PhysicalSectorSize", "4096"),
        ("HasParent", "false"),
    ] {
        assert_eq!(info.detail(key), Some(value), "{key}");
    }
    let made = |disk: &dyn ReadAt, block| {
        let options = VhdxOptions {
            block_bytes: Some(block),
            ..VhdxOptions::default()
        };
        let info = opened(packed(disk, &Target::VhdxDynamic(options))).info();
        ["FileWriteGuid", "DataWriteGuid", "VirtualDiskId"]
            .map(|key| Guid::parse(info.detail(key).unwrap()).unwrap())
    };
    let one = made(&small(), 1 << 20);
    assert_eq!(one, made(&small(), 4 << 20), "of the content alone");
    assert!(one[0] != one[1] && one[1] != one[2] && one[0] != one[2]);
    let other = made(&SparseBytes::new(9 * MIB + 512), 1 << 20);
    let longer = made(&SparseBytes::new(9 * MIB + 1024), 1 << 20);
    assert!((0..3).all(|n| one[n] != other[n] && other[n] != longer[n]));
}

#[test]
fn options_out_of_range_are_refused_with_their_values() {
    let refused = |options: VhdxOptions, word: &str| {
        let error = drylab_image::file_size(&small(), &Target::VhdxDynamic(options)).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    };
    let default = VhdxOptions::default;
    for block in [0, 1 << 19, 3 << 20, 512 << 20] {
        let options = VhdxOptions {
            block_bytes: Some(block),
            ..default()
        };
        refused(options, &block.to_string());
    }
    for sector in [0, 520, 8192] {
        let (logical, physical) = (default(), default());
        refused(
            VhdxOptions {
                logical_sector: sector,
                ..logical
            },
            &format!("logical sectors of {sector}"),
        );
        refused(
            VhdxOptions {
                physical_sector: sector,
                ..physical
            },
            &format!("physical sectors of {sector}"),
        );
    }
    for creator in ["x".repeat(256), "a\0b".to_owned()] {
        refused(
            VhdxOptions {
                creator,
                ..default()
            },
            "creator",
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn vhdx_of_any_block_and_sector_size_are_read_again(
        plan in plans(6 * GIB), block in prop::sample::select(vec![1u32 << 20, 2 << 20, 16 << 20, 256 << 20]),
        large: bool, fixed: bool,
    ) {
        let options = VhdxOptions {
            block_bytes: Some(block),
            logical_sector: if large { 4096 } else { 512 },
            ..VhdxOptions::default()
        };
        let disk = plan.disk();
        let target = if fixed { Target::VhdxFixed(options) } else { Target::VhdxDynamic(options) };
        let file = packed(&disk, &target);
        prop_assert_eq!(drylab_image::file_size(&disk, &target).unwrap(), file.len());
        prop_assert!(file.len().is_multiple_of(MIB));
        let image = opened(file);
        prop_assert_eq!(image.len(), plan.size.next_multiple_of(if large { 4096 } else { 512 }));
        prop_assert!(image.check().unwrap().is_empty());
        // The disk rounded up, so that both have the same sectors.
        let wide = Plan { size: image.len(), ..plan }.disk();
        let (ours, theirs) = (content_id(&image).unwrap(), content_id(&wide).unwrap());
        // What a plan writes past its end is cut off there, so only disks of whole sectors compare so.
        if disk.len() == image.len() {
            prop_assert_eq!(ours, theirs);
            assert_same(&disk, &image);
        }
    }
}

#[test]
fn blocks_that_are_undefined_zero_or_unmapped_read_as_zeros_and_leave_the_others_alone() {
    for state in [0, 1, 2, 3] {
        let file = dynamic();
        let before = guest(&open(copy(&file)).unwrap());
        // What such an entry points to is of no account.
        set_entry(&file, 3, (entry(&file, 3) & !7) | state);
        let image = open(copy(&file)).unwrap();
        assert!(image.check().unwrap().is_empty(), "state {state}");
        let after = guest(&image);
        for (page, (before, after)) in before.iter().zip(&after).enumerate() {
            let zero = (3 * 256..4 * 256).contains(&page);
            let expected = if zero { &Some(vec![0; 4096]) } else { before };
            assert!(expected == after, "page {page} in state {state}");
        }
        let kind = if state == 0 {
            ExtentKind::Hole
        } else {
            ExtentKind::Zero
        };
        assert_eq!(image.extent_at(3 * MIB + 4096).kind, kind);
    }
}

#[test]
fn the_entry_behind_each_chunk_is_a_bitmaps_and_is_not_read_as_a_block() {
    // 2^23 sectors of 512 bytes are 4 GiB: 4096 blocks of 1 MiB.
    let pieces = vec![piece(4 * GIB - 512, 512, 1), piece(4 * GIB, 512, 2)];
    let disk = Plan {
        size: 5 * GIB,
        pieces,
    }
    .disk();
    let options = VhdxOptions {
        block_bytes: Some(1 << 20),
        ..VhdxOptions::default()
    };
    let file = packed(&disk, &Target::VhdxDynamic(options));
    assert_eq!(entry(&*file, 4095), BLOCKS | 6);
    assert_eq!(entry(&*file, 4096), 0);
    assert_eq!(entry(&*file, 4097), (BLOCKS + MIB) | 6);
    assert_same(&disk, &opened(file.clone()));
    // qemu before 8.0.1 left anything in the entry of a bitmap that is not there.
    let file = copy(&*file);
    set_entry(&file, 4096, 0x1234_5678_9abc_def6);
    let image = open(copy(&file)).unwrap();
    assert_same(&disk, &image);
    assert_eq!(
        crate::vhdx_tools::codes(&image.check().unwrap()),
        ["VHDX-BAT-RESERVED", "VHDX-BITMAP-STATE"]
    );
    let mended = crate::vhdx_tools::check(&{
        let plan = image.repair().unwrap();
        plan.apply(&file).unwrap();
        assert_eq!(bytes(&file, BAT + 8 * 4096, 8), [0; 8]);
        file
    });
    assert!(mended.is_empty());
}
