//! VDI: what is written, and qemu-img's files.

use crate::common::{
    Kind, OnDisk, Piece, Plan, assert_same, have_qemu_img, opened, packed, plans, qemu_img,
};
use crate::vhd_steps::all;
use drylab_block::{ReadAt, SparseBytes, content_id};
use drylab_image::vdi::BLOCKS_MAX;
use drylab_image::{Format, Target, VdiOptions};
use proptest::prelude::*;
use std::sync::Arc;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Sizes that formats stumble over, whole sectors.
const SIZES: [u64; 8] = [
    0,
    512,
    3 * 512,
    (1 << 20) - 512,
    1 << 20,
    (1 << 20) + 512,
    4 * GIB + 512,
    2 * TIB,
];

fn sparse_plan(size: u64) -> Plan {
    let piece = |offset: u64| Piece {
        offset,
        length: 700,
        kind: Kind::Noise(offset | 1),
    };
    let places = [
        0,
        size / 2,
        size.saturating_sub(700),
        size.saturating_sub(3 << 20),
    ];
    Plan {
        size,
        pieces: places.map(piece).to_vec(),
    }
}

#[test]
fn qemu_img_and_we_read_each_others_vdis_at_every_size() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (raw, file) = (path("a.raw"), path("a.vdi"));
    for size in SIZES {
        let disk = sparse_plan(size).disk();
        drylab_image::write(&disk, &Target::Raw, &OnDisk::create(raw.as_ref())).unwrap();
        for fixed in [false, true] {
            // All of a fixed image is read by it.
            if fixed && size > 1 << 30 {
                continue;
            }
            for options in [VdiOptions::default(), VdiOptions::qemu()] {
                let target = if fixed {
                    Target::VdiFixed(options)
                } else {
                    Target::VdiDynamic(options)
                };
                drylab_image::write(&disk, &target, &OnDisk::create(file.as_ref())).unwrap();
                let said = qemu_img(&["compare", "-f", "raw", "-F", "vdi", &raw, &file]);
                assert!(said.contains("identical"), "{size} {said}");
                let said = qemu_img(&["check", "-f", "vdi", &file]);
                assert!(said.contains("No errors"), "{size} {said}");
            }
            let kind = if fixed { "static=on" } else { "static=off" };
            qemu_img(&["convert", "-f", "raw", "-O", "vdi", "-o", kind, &raw, &file]);
            let theirs = opened(Arc::new(OnDisk::open(file.as_ref())));
            assert_eq!(theirs.format(), Format::Vdi);
            assert_eq!(theirs.subformat(), if fixed { "fixed" } else { "dynamic" });
            assert!(theirs.check().unwrap().is_empty(), "{size}");
            assert_eq!(theirs.len(), size);
            assert_same(&disk, &theirs);
        }
    }
}

#[test]
fn a_disk_of_more_blocks_than_qemu_reads_is_refused_with_the_limit() {
    let block = 4096;
    let options = VdiOptions {
        block_bytes: block,
        ..VdiOptions::default()
    };
    let disk = SparseBytes::new(BLOCKS_MAX * u64::from(block) + 1);
    for target in [
        Target::VdiDynamic(options.clone()),
        Target::VdiFixed(options),
    ] {
        let error = drylab_image::file_size(&disk, &target)
            .unwrap_err()
            .to_string();
        assert!(error.contains("536870784"), "{error}");
    }
}

#[test]
fn what_was_asked_for_stands_in_the_header() {
    let disk = sparse_plan(5 << 20).disk();
    let id = |first: u8| std::array::from_fn(|i| first + i as u8);
    let options = VdiOptions {
        creator: "<<< ours >>>\n".to_owned(),
        comment: "größer".to_owned(),
        uuid_create: Some(id(0x10)),
        uuid_modify: Some(id(0x40)),
        ..VdiOptions::default()
    };
    let image = opened(packed(&disk, &Target::VdiDynamic(options.clone())));
    let info = image.info();
    assert_eq!(info.detail("szComment"), Some("größer"));
    assert_eq!(info.detail("szFileInfo"), Some("<<< ours >>>\\n"));
    assert_eq!(
        info.detail("uuidCreate"),
        Some("{10111213-1415-1617-1819-1a1b1c1d1e1f}")
    );
    assert_eq!(
        info.detail("uuidModify"),
        Some("{40414243-4445-4647-4849-4a4b4c4d4e4f}")
    );
    assert_eq!(info.detail("cBlocksAllocated"), Some("3"));
    assert_eq!(info.detail("offData"), Some("2097152"));
    // Made of the content: equal disks give equal files, other disks other ids.
    let file = |disk: &SparseBytes| packed(disk, &Target::VdiDynamic(VdiOptions::default()));
    let again = sparse_plan(5 << 20).disk();
    assert_eq!(
        content_id(&*file(&disk)).unwrap(),
        content_id(&*file(&again)).unwrap()
    );
    let other = opened(file(&sparse_plan(6 << 20).disk()));
    let ours = opened(file(&disk));
    assert_ne!(
        other.info().detail("uuidCreate"),
        ours.info().detail("uuidCreate")
    );
    assert_ne!(
        ours.info().detail("uuidModify"),
        ours.info().detail("uuidCreate")
    );
    for (creator, comment) in [
        ("x".repeat(64), String::new()),
        (String::new(), "y".repeat(256)),
    ] {
        let options = VdiOptions {
            creator,
            comment,
            ..VdiOptions::default()
        };
        for target in [
            Target::VdiDynamic(options.clone()),
            Target::VdiFixed(options),
        ] {
            let error = drylab_image::file_size(&disk, &target).unwrap_err();
            assert!(error.to_string().contains("there is room for"), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn blocks_of_every_size_are_read_again(
        plan in plans(20 << 20), shift in 12..27u32, align in 9..21u32, fixed: bool,
    ) {
        let disk = plan.disk();
        let options = VdiOptions { block_bytes: 1 << shift, alignment: 1 << align, ..VdiOptions::default() };
        let target = if fixed { Target::VdiFixed(options) } else { Target::VdiDynamic(options) };
        let file = packed(&disk, &target);
        prop_assert_eq!(drylab_image::file_size(&disk, &target).unwrap(), file.len());
        let image = opened(file);
        prop_assert!(image.check().unwrap().is_empty());
        assert_same(&disk, &image);
    }
}

/// An image of the first releases: no cbHeader, map and data at once behind the header.
fn of_version_two(disk: &[u8], block: u32) -> Vec<u8> {
    let blocks: Vec<&[u8]> = disk.chunks(block as usize).collect();
    let used: Vec<_> = blocks
        .iter()
        .filter(|b| b.iter().any(|byte| *byte != 0))
        .collect();
    let mut file = vec![0u8; 0x1a4];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"<<< innotek VirtualBox Disk Image >>>\n");
    put(0x40, &0xbeda_107fu32.to_le_bytes());
    put(0x44, &2u32.to_le_bytes());
    put(0x48, &1u32.to_le_bytes());
    put(0x50, b"old");
    put(0x15c, &512u32.to_le_bytes());
    put(0x160, &(disk.len() as u64).to_le_bytes());
    put(0x168, &block.to_le_bytes());
    put(0x16c, &(blocks.len() as u32).to_le_bytes());
    put(0x170, &(used.len() as u32).to_le_bytes());
    put(0x174, &[1; 16]);
    put(0x184, &[2; 16]);
    let mut next = 0u32;
    for bytes in &blocks {
        let empty = bytes.iter().all(|byte| *byte == 0);
        file.extend(if empty { u32::MAX } else { next }.to_le_bytes());
        next += u32::from(!empty);
    }
    used.iter().for_each(|bytes| file.extend_from_slice(bytes));
    file
}

#[test]
fn images_of_the_first_releases_are_read_and_not_resized() {
    let disk = all(&sparse_plan(70_656).disk());
    let image = opened(Arc::new(of_version_two(&disk, 4096)));
    assert_eq!(
        (image.format(), image.subformat()),
        (Format::Vdi, "dynamic")
    );
    assert!(image.check().unwrap().is_empty());
    assert_eq!(image.info().detail("u32Version"), Some("0.2"));
    assert_eq!(image.info().detail("szComment"), Some("old"));
    assert!(all(&image) == disk);
    let error = image.resize(1 << 20).unwrap_err().to_string();
    assert!(error.contains("version 0.2"), "{error}");
}

#[test]
fn blocks_with_extra_bytes_in_front_are_read_behind_them() {
    // Made by hand: two blocks of 4 KiB with 512 bytes before each, the second one first.
    let disk = Plan {
        size: 12_288,
        pieces: vec![
            Piece {
                offset: 0,
                length: 4096,
                kind: Kind::Text(1),
            },
            Piece {
                offset: 8192,
                length: 4096,
                kind: Kind::Text(9),
            },
        ],
    }
    .disk();
    let options = VdiOptions {
        block_bytes: 4096,
        alignment: 512,
        ..VdiOptions::default()
    };
    let mut file = all(&*packed(&disk, &Target::VdiDynamic(options)));
    let data = file.split_off(1024);
    file[0x17c..0x180].copy_from_slice(&512u32.to_le_bytes());
    file[512..524].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    for block in [&data[4096..], &data[..4096]] {
        file.extend([0xee; 512]);
        file.extend_from_slice(block);
    }
    let image = opened(Arc::new(file));
    assert!(image.check().unwrap().is_empty());
    assert_same(&disk, &image);
    let (extent, stored) = image.piece_at(8192);
    assert_eq!((extent.length, stored.unwrap().offset), (4096, 1024 + 512));
}
