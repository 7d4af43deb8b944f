//! VHD: other sizes, step by step, and target profiles.

use crate::common::{Kind, Piece, Plan, have_qemu_img, packed, qemu_img};
use crate::vhd_steps::{all, every_prefix, on_disk, plainly, qemu_reads, resized};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt};
use drylab_image::vhd::{Creator, DISK_BYTES_MAX, Geometry, VhdFit, footer, resize};
use drylab_image::{Edit, Target, VhdOptions};
use proptest::prelude::*;
use std::sync::Arc;

const BLOCK: u64 = 512 << 10;

fn options() -> VhdOptions {
    VhdOptions {
        block_bytes: BLOCK as u32,
        ..VhdOptions::qemu(true)
    }
}

fn file(size: u64, places: &[u64], fixed: bool) -> Vec<u8> {
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
        Target::VhdFixed(options())
    } else {
        Target::VhdDynamic(options())
    };
    all(&*packed(&plan.disk(), &target))
}

#[test]
fn qemu_img_reads_what_was_resized() {
    if !have_qemu_img() {
        return;
    }
    for fixed in [false, true] {
        let size = 3 * BLOCK + 1024;
        let before = file(size, &[0, 2 * BLOCK, 3 * BLOCK], fixed);
        for size in [
            512,
            BLOCK,
            3 * BLOCK + 512,
            3 * BLOCK + 1536,
            5 * BLOCK,
            130 * BLOCK,
        ] {
            let after = resized(&before, size, &plainly);
            qemu_reads(&after, "vpc");
            let said = footer(&after).unwrap().0;
            assert_eq!(
                (said.current_size, said.original_size),
                (size, 3 * BLOCK + 1024)
            );
        }
    }
}

#[test]
fn a_table_without_room_moves_the_first_blocks_to_the_end() {
    // 3 entries in a sector; 200 need two sectors, 2000 need sixteen.
    let before = file(3 * BLOCK, &[0, BLOCK, 2 * BLOCK], false);
    for (blocks, moved) in [(128, 0), (200, 1), (2000, 1)] {
        let image = plainly(Arc::new(before.clone())).unwrap();
        let plan = image.resize(blocks * BLOCK).unwrap();
        let copies = plan
            .edits()
            .iter()
            .filter(|edit| matches!(edit, Edit::Copy { .. }));
        assert_eq!(copies.count(), moved, "{blocks}");
        let done = SparseBytes::default();
        done.write_at(0, &before).unwrap();
        plan.apply(&done).unwrap();
        let image = plainly(Arc::new(done)).unwrap();
        assert_eq!(image.len(), blocks * BLOCK);
        assert_eq!(
            image.info().detail("maxTableEntries"),
            Some(blocks.to_string().as_str())
        );
    }
    resized(&before, 200 * BLOCK, &plainly);
}

#[test]
fn a_shorter_disk_gives_back_the_blocks_that_it_had() {
    let before = file(
        6 * BLOCK,
        &[0, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK],
        false,
    );
    let after = resized(&before, BLOCK, &plainly);
    assert_eq!(after.len() as u64, 2048 + 512 + BLOCK + 512);
    // Written back to front: the block that stays is the last of the file.
    let disk = Plan {
        size: 3 * BLOCK,
        pieces: vec![
            Piece {
                offset: 0,
                length: 3000,
                kind: Kind::Noise(1),
            },
            Piece {
                offset: 2 * BLOCK,
                length: 3000,
                kind: Kind::Noise(2),
            },
        ],
    };
    let mut turned = all(&*packed(&disk.disk(), &Target::VhdDynamic(options())));
    let slot = (BLOCK + 512) as usize;
    turned[2048..2048 + 2 * slot].rotate_left(slot);
    let first = turned[1536..1540].to_vec();
    turned.copy_within(1544..1548, 1536);
    turned[1544..1548].copy_from_slice(&first);
    let after = resized(&turned, BLOCK, &plainly);
    assert_eq!(after.len() as u64, 2048 + 512 + BLOCK + 512);
}

#[test]
fn a_tail_that_was_cut_off_does_not_come_back() {
    for fixed in [false, true] {
        let before = file(2 * BLOCK, &[BLOCK, 2 * BLOCK - 3000], fixed);
        let less = resized(&before, 2 * BLOCK - 1024, &plainly);
        let more = resized(&less, 2 * BLOCK + 4096, &plainly);
        let disk = all(&plainly(Arc::new(more)).unwrap());
        assert!(
            disk[2 * BLOCK as usize - 1024..]
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

#[test]
fn two_terabytes_less_eight_gigabytes_is_the_end() {
    let small = SparseBytes::new(127 << 30);
    for target in [
        Target::VhdDynamic(VhdOptions::default()),
        Target::VhdFixed(VhdOptions::default()),
    ] {
        let file = packed(&small, &target);
        let image = plainly(file.clone()).unwrap();
        let error = image.resize(DISK_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(error.contains("2040 GiB"), "{error}");
        assert!(image.resize(u64::MAX).is_err());
        image.resize(DISK_BYTES_MAX).unwrap().apply(&*file).unwrap();
        let image = plainly(file).unwrap();
        assert_eq!(image.len(), DISK_BYTES_MAX);
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn the_geometry_goes_on_as_it_was_or_as_it_is_asked_for() {
    let of = |options: VhdOptions| {
        all(&*packed(
            &SparseBytes::new(3 << 20),
            &Target::VhdDynamic(options),
        ))
    };
    let grown = |bytes: Vec<u8>| {
        let done = resized(&bytes, (5 << 20) + 512, &plainly);
        footer(&done).unwrap().0
    };
    let sectors = (5 << 11) + 1;
    let kept = grown(of(VhdOptions::default()));
    assert_eq!(
        (kept.current_size, kept.geometry),
        (sectors * 512, Geometry::of(sectors))
    );
    let pinned = grown(of(VhdOptions::qemu(true)));
    assert_eq!(
        (pinned.current_size, pinned.geometry),
        (sectors * 512, Geometry::MAX)
    );
    let rounded = grown(of(VhdOptions::qemu(false)));
    assert_eq!(rounded.geometry, Geometry::holding(sectors));
    assert_eq!(rounded.current_size, rounded.geometry.bytes());
    // For Azure: whole MiB, whatever it was.
    let bytes = of(VhdOptions::default());
    let file: Arc<dyn ReadAt> = Arc::new(bytes.clone());
    let plan = resize(
        file,
        (5 << 20) + 512,
        VhdFit::WholeMebibytes,
        &Limits::DEFAULT,
    )
    .unwrap();
    let done = every_prefix(&bytes, &plan, &plainly);
    assert_eq!(footer(&done).unwrap().0.current_size, 6 << 20);
}

#[test]
fn profiles_write_what_their_products_want() {
    let disk = SparseBytes::new((3 << 20) + 512);
    let said = |options: VhdOptions| {
        let file = packed(&disk, &Target::VhdFixed(options));
        footer(&*file).unwrap().0
    };
    let azure = said(VhdOptions::azure());
    assert_eq!(
        (azure.current_size, azure.creator),
        (4 << 20, Creator::WINDOWS)
    );
    assert_eq!(azure.geometry, Geometry::of(4 << 11));
    let hyper_v = said(VhdOptions::hyper_v_2008_r2());
    assert_eq!(
        (hyper_v.current_size, hyper_v.creator_version),
        ((3 << 20) + 512, 0x0006_0001)
    );
    let xen = said(VhdOptions::xen_server());
    assert_eq!(
        (xen.creator, xen.creator_version, xen.creator_os),
        (Creator::XEN_SERVER, 0x0001_0003, [0; 4])
    );
    if have_qemu_img() {
        let file = packed(&disk, &Target::VhdFixed(VhdOptions::azure()));
        let (_folder, path) = on_disk(&all(&*file));
        let said = qemu_img(&["info", "-f", "vpc", "--output=json", path.to_str().unwrap()]);
        assert!(said.contains("\"virtual-size\": 4194304"), "{said}");
    }
}

#[test]
fn damaged_files_are_mended_before_they_are_resized() {
    let mut bytes = file(3 * BLOCK, &[0, BLOCK], false);
    bytes[1540..1544].copy_from_slice(&[0, 0, 0, 4]);
    let error = plainly(Arc::new(bytes))
        .unwrap()
        .resize(BLOCK)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("VHD-BLOCKS-OVERLAP") && error.contains("mended"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_keeps_its_bytes_through_sizes_in_every_prefix_of_the_plans(
        size in 1..4 * BLOCK,
        places in prop::collection::vec(0..4 * BLOCK, 0..4),
        sizes in prop::collection::vec(prop_oneof![4 => 0..5 * BLOCK, 1 => 128 * BLOCK..140 * BLOCK], 1..3),
        fixed: bool,
    ) {
        let mut bytes = file(size, &places, fixed);
        for size in sizes {
            // All of a disk is read after each step.
            let size = if fixed { size.min(5 * BLOCK) } else { size };
            bytes = resized(&bytes, size, &plainly);
            prop_assert_eq!(plainly(Arc::new(bytes.clone())).unwrap().len(), size.next_multiple_of(512));
        }
    }
}
