//! Our streamOptimized is a stream: it is made front to back, and its markers alone lead to its end.

use crate::common::{OnDisk, have_qemu_img, opened, packed, plans, qemu_img};
use drylab_block::{Extents, Limits, ReadAt, le_u32, le_u64};
use drylab_image::{Target, VmdkOptions, Work, walk_stream};
use proptest::prelude::*;

/// The specification's walk, written apart from the crate: (guest sector, place) of each grain, then the end.
fn walk(file: &[u8]) -> (Vec<(u64, u64)>, Vec<u32>) {
    let (mut at, mut grains, mut kinds) = (
        le_u64(file, 64).unwrap() as usize * 512,
        Vec::new(),
        Vec::new(),
    );
    loop {
        let (value, size) = (
            le_u64(file, at).unwrap(),
            le_u32(file, at + 8).unwrap() as usize,
        );
        if size > 0 {
            grains.push((value, at as u64 / 512));
            at = (at + 12 + size).next_multiple_of(512);
            continue;
        }
        let kind = le_u32(file, at + 12).unwrap();
        kinds.push(kind);
        at += 512 + value as usize * 512;
        if kind == 0 {
            assert_eq!(
                at,
                file.len(),
                "the end of the stream is the end of the file"
            );
            return (grains, kinds);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn markers_alone_lead_through_ascending_grains_to_the_end(plan in plans(5 << 30), level in 0..=9u32) {
        let disk = plan.disk();
        let options = VmdkOptions { level, ..VmdkOptions::default() };
        let mut file = Vec::new();
        let written = drylab_image::write_stream(&disk, &options, &mut |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        }, &Work::ALONE).unwrap();
        prop_assert_eq!(written.file_bytes, file.len() as u64);
        let (grains, kinds) = walk(&file);
        prop_assert!(grains.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // Grain tables, then one directory, one footer, the end.
        let (tables, end) = kinds.split_at(kinds.len() - 3);
        prop_assert!(tables.iter().all(|kind| *kind == 1) && *end == [2, 3, 0]);
        prop_assert_eq!(le_u64(&file, 56), Some(u64::MAX));
        prop_assert_eq!((le_u32(&file, 4), le_u32(&file, 8)), (Some(3), Some(0x30001)));
        prop_assert!(file[file.len() - 512..].iter().all(|byte| *byte == 0));
        // A grain that does not compress grows by no more than its marker and the stored blocks' heads.
        prop_assert!(grains.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 128 + 1 + 5));

        let found = walk_stream(&file, &Limits::DEFAULT).unwrap();
        prop_assert_eq!((found.grains, found.tables), (grains.len() as u64, tables.len() as u64));
        let image = opened(std::sync::Arc::new(file));
        let mapped: u64 =
            Extents::new(&image).filter(|e| e.kind.has_bytes()).map(|e| e.length.div_ceil(65536)).sum();
        prop_assert_eq!(mapped, found.grains);
    }

    #[test]
    fn a_stream_changed_in_any_marker_or_table_is_no_stream(plan in plans(40 << 20), pick in any::<u64>(), bit in 0..8u32) {
        let file = packed(&plan.disk(), &Target::VmdkStream(VmdkOptions::default()));
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        // Everything from the last grain table's marker on, where each bit counts (the padding of tables apart).
        let directory = (bytes.len() - 3 * 512 - 512 * 2) as u64;
        let at = [directory, directory + 8, directory + 512, bytes.len() as u64 - 1536, bytes.len() as u64 - 1024 + 12];
        let at = at[(pick % at.len() as u64) as usize] as usize;
        bytes[at] ^= 1 << bit;
        prop_assert!(walk_stream(&bytes, &Limits::DEFAULT).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(walk_stream(&bytes, &Limits::DEFAULT).is_ok());
        bytes.extend_from_slice(&[0; 512]);
        prop_assert!(walk_stream(&bytes, &Limits::DEFAULT).is_err());
    }
}

#[test]
fn the_stream_ends_at_the_first_error_of_who_takes_it() {
    let disk = crate::common::Plan {
        size: 1 << 20,
        pieces: vec![],
    }
    .disk();
    let mut calls = 0;
    let mut put = |_: &[u8]| {
        calls += 1;
        Err(drylab_block::Error::io("full"))
    };
    let work = Work {
        jobs: 3,
        progress: None,
    };
    let result = drylab_image::write_stream(&disk, &VmdkOptions::default(), &mut put, &work);
    assert_eq!((result.is_err(), calls), (true, 1));
}

#[test]
fn qemus_stream_optimized_is_read_and_found_to_be_no_stream() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (folder.path().join("a.raw"), folder.path().join("a.vmdk"));
    let piece = crate::common::Piece {
        offset: 70_000,
        length: 150_000,
        kind: crate::common::Kind::Noise(5),
    };
    let disk = crate::common::Plan {
        size: 40 << 20,
        pieces: vec![piece],
    }
    .disk();
    drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
    let (raw, name) = (raw.to_str().unwrap(), vmdk.to_str().unwrap());
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        raw,
        name,
    ]);
    let file = OnDisk::open(&vmdk);
    assert!(walk_stream(&file, &Limits::DEFAULT).is_err());
    let image = opened(std::sync::Arc::new(file));
    assert!(
        image
            .info()
            .findings
            .list()
            .iter()
            .any(|finding| finding.rule.code == "VMDK-NOT-A-STREAM")
    );
    crate::common::assert_same(&disk, &image);
}
