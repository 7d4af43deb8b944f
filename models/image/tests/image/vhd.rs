//! VHD: two sizes, two layouts, and qemu-img's files.

use crate::common::{Kind as Fill, vhd};
use crate::common::{
    OnDisk, Piece, Plan, assert_same, have_qemu_img, opened, packed, plans, qemu_img, try_qemu_img,
};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, content_id};
use drylab_image::vhd::{
    Creator, DISK_BYTES_MAX, Footer, Geometry, Kind, VhdFit, footer, size_rule,
    sizes_are_told_apart, stream_fixed,
};
use drylab_image::{Format, Target, VhdOptions, VhdSize, open_vhd};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const GIB: u64 = 1 << 30;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn as_seen(file: &Arc<SparseBytes>, believes: VhdSize) -> u64 {
    open_vhd(file.clone(), believes, &Limits::DEFAULT)
        .unwrap()
        .virtual_size()
}

fn written_by(creator: Creator) -> VhdOptions {
    VhdOptions {
        creator,
        ..VhdOptions::default()
    }
}

#[test]
fn a_program_that_believes_the_geometry_loses_the_tail_of_hyper_vs_disks() {
    // The losses of qemu-img 0.12, ../shared/facts/guests-converters.md §5.2.
    for (gib, lost) in [
        (8, 32_768),
        (10, 40_960),
        (16, 65_536),
        (20, 81_920),
        (25, 360_448),
        (32, 524_288),
        (40, 655_360),
        (60, 983_040),
        (80, 1_310_720),
        (100, 1_638_400),
        (127, 2_080_768),
        (130, 130 * GIB - 136_899_993_600),
        (2040, 2040 * GIB - 136_899_993_600),
    ] {
        let disk = SparseBytes::new(gib * GIB);
        let file = packed(&disk, &Target::VhdDynamic(VhdOptions::default()));
        assert_eq!(as_seen(&file, VhdSize::Current), gib * GIB);
        assert_eq!(as_seen(&file, VhdSize::Geometry), gib * GIB - lost, "{gib}");
        assert_eq!(as_seen(&file, VhdSize::ByCreator), gib * GIB);
        let image = opened(file);
        assert_eq!(
            (image.format(), image.subformat()),
            (Format::Vhd, "dynamic")
        );
        let codes: Vec<_> = image
            .info()
            .findings
            .list()
            .iter()
            .map(|f| f.rule.code)
            .collect();
        assert_eq!(codes, [""; 0]);
    }
}

#[test]
fn two_sizes_are_said_only_of_creators_of_whom_readers_disagree() {
    let agreed = [
        Creator::WINDOWS,
        Creator::QEMU_FORCE_SIZE,
        Creator::DISK2VHD,
        Creator::XEN_SERVER,
        Creator::XEN_CONVERT,
    ];
    let others = [
        Creator::VIRTUAL_PC,
        Creator::VIRTUAL_SERVER,
        Creator::QEMU,
        Creator::AZURE,
        Creator::VIRTUAL_BOX,
        Creator(*b"any "),
    ];
    let all = agreed.iter().chain(&others);
    // A geometry of fewer bytes, of as many, and one at its end, which is of fewer again.
    for (creator, (size, differs)) in all.flat_map(|creator| {
        [(GIB, true), (68 * 512, false), (130 * GIB, false)].map(|case| (*creator, case))
    }) {
        let disk = SparseBytes::new(size);
        for make in [Target::VhdFixed, Target::VhdDynamic] {
            let image = opened(packed(&disk, &make(written_by(creator))));
            let found = image.check().unwrap();
            let expected = differs && others.contains(&creator);
            assert_eq!(
                found.counts().contains_key("VHD-TWO-SIZES"),
                expected,
                "{creator} {size}: {:?}",
                found.list()
            );
            assert_eq!(found.is_empty(), !expected, "{creator} {size}");
        }
        assert_eq!(
            agreed.contains(&creator) || size > 127 * GIB,
            sizes_are_told_apart(creator, Geometry::of(size / 512)),
            "{creator} {size}"
        );
    }
}

#[test]
fn a_virtual_pc_disk_has_the_sectors_of_its_geometry_unless_that_is_at_its_end() {
    let at_most = Geometry::MAX;
    for creator in [Creator::VIRTUAL_PC, Creator::QEMU] {
        assert_eq!(size_rule(creator, Geometry::of(100)), VhdSize::Geometry);
        assert_eq!(size_rule(creator, at_most), VhdSize::Current);
    }
    for creator in [Creator::WINDOWS, Creator::XEN_SERVER, Creator(*b"\0\0\0\0")] {
        assert_eq!(size_rule(creator, Geometry::of(100)), VhdSize::Current);
    }
    let file = packed(
        &SparseBytes::new(20 * GIB),
        &Target::VhdDynamic(written_by(Creator::VIRTUAL_PC)),
    );
    assert_eq!(opened(file).virtual_size(), 20 * GIB - 81_920);
}

#[test]
fn disks_of_all_sizes_up_to_2040_gib_are_kept_and_larger_ones_refused() {
    for size in [
        0,
        1,
        512,
        513,
        3 * 512,
        127 * GIB - 512,
        127 * GIB,
        127 * GIB + 512,
        136_899_993_600,
        136_899_993_600 + 512,
        DISK_BYTES_MAX,
    ] {
        let piece = |offset: u64| Piece {
            offset,
            length: 600,
            kind: Fill::Text(5),
        };
        let plan = Plan {
            size,
            pieces: vec![piece(0), piece(size.saturating_sub(300)), piece(size / 2)],
        };
        let disk = plan.disk();
        for target in [
            Target::VhdFixed(VhdOptions::default()),
            Target::VhdDynamic(VhdOptions::default()),
        ] {
            let image = opened(packed(&disk, &target));
            assert_eq!(image.len(), size.next_multiple_of(512));
            assert_same(&disk, &image);
        }
    }
    let larger = SparseBytes::new(DISK_BYTES_MAX + 1);
    for target in [
        Target::VhdFixed(VhdOptions::default()),
        Target::VhdDynamic(VhdOptions::default()),
    ] {
        let error = drylab_image::file_size(&larger, &target).unwrap_err();
        assert!(error.to_string().contains("2040 GiB"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_streamed_fixed_disk_is_the_file_that_is_written(plan in plans(6 << 20), options in vhd()) {
        let disk = plan.disk();
        let mut streamed = Vec::new();
        let written = stream_fixed(&disk, &options, &mut |bytes| {
            streamed.extend_from_slice(bytes);
            Ok(())
        });
        let file = packed(&disk, &Target::VhdFixed(options));
        prop_assert_eq!(written.unwrap().file_bytes, file.len());
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        prop_assert!(bytes == streamed);
    }

    #[test]
    fn the_footer_says_what_was_asked_for(plan in plans(6 << 20), options in vhd(), dynamic: bool) {
        let make = if dynamic { Target::VhdDynamic } else { Target::VhdFixed };
        let file = packed(&plan.disk(), &make(options.clone()));
        let (found, findings) = footer(&*file).unwrap();
        prop_assert!(findings.is_empty());
        prop_assert_eq!(found.kind, if dynamic { Kind::Dynamic } else { Kind::Fixed });
        prop_assert_eq!(found.creator, options.creator);
        prop_assert_eq!(found.timestamp, options.timestamp);
        prop_assert_eq!(found.current_size, plan.size.next_multiple_of(512));
        if let Some(id) = options.unique_id {
            prop_assert_eq!(found.unique_id, id);
        }
    }

    #[test]
    fn rounding_up_keeps_every_byte_and_makes_both_sizes_one(plan in plans(3 * GIB), dynamic: bool) {
        let disk = plan.disk();
        let make = if dynamic { Target::VhdDynamic } else { Target::VhdFixed };
        let options = VhdOptions { creator: Creator::VIRTUAL_PC, fit: VhdFit::RoundedUp, ..VhdOptions::default() };
        let image = opened(packed(&disk, &make(options)));
        prop_assert!(image.info().findings.is_empty());
        prop_assert!(image.len() >= disk.len());
        assert_begins_with(&disk, &image);
    }
}

/// The longer disk is the shorter one and zeros.
fn assert_begins_with(disk: &SparseBytes, longer: &dyn ReadAt) {
    let grown = SparseBytes::new(longer.len());
    drylab_block::copy_data(disk, &grown).unwrap();
    grown.set_len(longer.len()).unwrap();
    assert_same(&grown, longer);
}

#[test]
fn theirs_rounded_up_is_read_by_us_and_ours_by_qemu_img() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("file"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    runner
        .run(&(plans(200 << 20), any::<bool>()), |(plan, dynamic)| {
            let (kind, make): (_, fn(_) -> _) = if dynamic {
                ("subformat=dynamic", Target::VhdDynamic)
            } else {
                ("subformat=fixed", Target::VhdFixed)
            };
            let disk = plan.disk();
            drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
            qemu_img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                "vpc",
                "-o",
                kind,
                text(&raw),
                text(&file),
            ]);
            let theirs = opened(Arc::new(OnDisk::open(&file)));
            prop_assert!(theirs.info().findings.is_empty());
            assert_begins_with(&disk, &theirs);
            let options = VhdOptions::qemu(false);
            drylab_image::write(&disk, &make(options), &OnDisk::create(&file)).unwrap();
            prop_assert_eq!(opened(Arc::new(OnDisk::open(&file))).len(), theirs.len());
            let verdict = qemu_img(&["compare", "-f", "raw", "-F", "vpc", text(&raw), text(&file)]);
            prop_assert!(verdict.contains("identical"), "{}", verdict);
            Ok(())
        })
        .unwrap();
}

fn first_footer(path: &Path) -> Footer {
    footer(&OnDisk::open(path)).unwrap().0
}

#[test]
fn our_files_are_qemu_imgs_to_the_byte_but_for_time_and_identity() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("file"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(96));
    let sectors = plans(200 << 20).prop_map(|plan| Plan {
        size: plan.size.next_multiple_of(512),
        ..plan
    });
    runner
        .run(
            &(sectors, any::<bool>(), any::<bool>()),
            |(plan, force_size, dynamic)| {
                let kind = if dynamic { "dynamic" } else { "fixed" };
                let force = if force_size { "on" } else { "off" };
                let options = format!("subformat={kind},force_size={force}");
                let disk = plan.disk();
                drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
                qemu_img(&[
                    "convert",
                    "-f",
                    "raw",
                    "-O",
                    "vpc",
                    "-o",
                    &options,
                    text(&raw),
                    text(&file),
                ]);
                let theirs = OnDisk::open(&file);
                let said = first_footer(&file);
                let options = VhdOptions {
                    timestamp: said.timestamp,
                    unique_id: Some(said.unique_id),
                    ..VhdOptions::qemu(force_size)
                };
                let make = if dynamic {
                    Target::VhdDynamic
                } else {
                    Target::VhdFixed
                };
                let ours = packed(&disk, &make(options));
                prop_assert_eq!(ours.len(), theirs.len());
                prop_assert_eq!(content_id(&*ours).unwrap(), content_id(&theirs).unwrap());
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn sizes_and_geometries_are_qemu_imgs_at_every_size() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let sizes = prop_oneof![
        4 => 1..=DISK_BYTES_MAX,
        4 => 1..=128 * GIB,
        2 => 1..=GIB,
        1 => (127 * GIB)..=(128 * GIB),
        1 => 1..=200_000u64,
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(192));
    runner
        .run(&(sizes, any::<bool>()), |(size, force_size)| {
            let size = size.next_multiple_of(512);
            let force = format!("force_size={}", if force_size { "on" } else { "off" });
            qemu_img(&[
                "create",
                "-q",
                "-f",
                "vpc",
                "-o",
                &force,
                text(&file),
                &size.to_string(),
            ]);
            let theirs = first_footer(&file);
            let ours = packed(
                &SparseBytes::new(size),
                &Target::VhdDynamic(VhdOptions::qemu(force_size)),
            );
            let (ours, _) = footer(&*ours).unwrap();
            prop_assert_eq!(ours.geometry, theirs.geometry);
            prop_assert_eq!(ours.current_size, theirs.current_size);
            Ok(())
        })
        .unwrap();
    let over = (DISK_BYTES_MAX + 512).to_string();
    let refused = try_qemu_img(&["create", "-q", "-f", "vpc", text(&file), &over]);
    assert!(!refused.status.success(), "their limit is ours");
}

#[test]
fn the_size_that_qemu_img_takes_is_the_one_of_the_rule_for_every_creator() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let creators = [
        Creator::VIRTUAL_PC,
        Creator::VIRTUAL_SERVER,
        Creator::WINDOWS,
        Creator::QEMU,
        Creator::QEMU_FORCE_SIZE,
        Creator::DISK2VHD,
        Creator::XEN_SERVER,
        Creator::XEN_CONVERT,
        Creator::AZURE,
        Creator::VIRTUAL_BOX,
        Creator(*b"\0\0\0\0"),
        Creator(*b"VPC "),
        Creator(*b"abcd"),
    ];
    for creator in creators {
        for size in [20 << 20, 20 * GIB, 127 * GIB, 130 * GIB] {
            for fit in [VhdFit::Kept, VhdFit::RoundedUp, VhdFit::Pinned] {
                let options = VhdOptions {
                    fit,
                    ..written_by(creator)
                };
                let disk = SparseBytes::new(size);
                let target = Target::VhdDynamic(options);
                drylab_image::write(&disk, &target, &OnDisk::create(&path)).unwrap();
                let said = qemu_img(&["info", "-f", "vpc", "--output=json", text(&path)]);
                let ours = opened(Arc::new(OnDisk::open(&path))).virtual_size();
                assert!(
                    said.contains(&format!("\"virtual-size\": {ours},")),
                    "{creator} {size} {fit:?}: {ours}, {said}"
                );
            }
        }
    }
}

#[test]
fn a_size_that_needs_the_largest_geometry_is_kept_as_qemu_img_keeps_it() {
    let largest = Geometry::MAX.bytes();
    for size in [largest - 4079 * 512, largest, largest + 512] {
        assert_eq!(VhdFit::RoundedUp.fitted(size), (size, Geometry::MAX));
    }
    let below = largest - 4080 * 512;
    let (size, geometry) = VhdFit::RoundedUp.fitted(below - 1);
    assert_eq!((size, geometry.cylinders), (below, 65_534));
}

#[test]
fn qemu_img_and_we_read_each_others_vhds_at_every_size() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("file"));
    let mib = 1 << 20;
    let sizes = [
        0,
        512,
        3 * 512,
        mib - 512,
        mib,
        mib + 512,
        4 * GIB + 512,
        DISK_BYTES_MAX,
    ];
    for size in sizes {
        let piece = |offset: u64| Piece {
            offset,
            length: 700,
            kind: Fill::Noise(offset | 1),
        };
        let places = [0, size / 2, size.saturating_sub(700)];
        let plan = Plan {
            size,
            pieces: places.map(piece).to_vec(),
        };
        let disk = plan.disk();
        drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
        for fixed in [false, true] {
            // All of a fixed disk is read by it; of no bytes it does not read its own either: a footer alone is taken for
            // the copy in front of a dynamic one.
            if fixed && (size > GIB || size == 0) {
                continue;
            }
            let (make, kind): (fn(_) -> _, _) = if fixed {
                (Target::VhdFixed, "subformat=fixed,force_size=on")
            } else {
                (Target::VhdDynamic, "subformat=dynamic,force_size=on")
            };
            for options in [
                VhdOptions::default(),
                VhdOptions::qemu(true),
                VhdOptions::xen_server(),
            ] {
                drylab_image::write(&disk, &make(options), &OnDisk::create(&file)).unwrap();
                let said =
                    qemu_img(&["compare", "-f", "raw", "-F", "vpc", text(&raw), text(&file)]);
                assert!(said.contains("identical"), "{size} {said}");
            }
            let command = [
                "convert",
                "-f",
                "raw",
                "-O",
                "vpc",
                "-o",
                kind,
                text(&raw),
                text(&file),
            ];
            qemu_img(&command);
            let theirs = opened(Arc::new(OnDisk::open(&file)));
            assert_eq!(theirs.len(), size);
            assert_same(&disk, &theirs);
            let found = theirs.check().unwrap();
            assert!(
                found.list().iter().all(|f| f.rule.code == "VHD-TWO-SIZES"),
                "{size}"
            );
            assert!(theirs.repair().unwrap().is_empty(), "{size}");
        }
    }
}
