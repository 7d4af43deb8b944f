//! Sizes: every subformat at every size that is an edge, there and back through qemu-img, and the change of sizes.

use crate::common::{
    Folder, Kind, OnDisk, Piece, Plan, assert_same, have_qemu_img, qemu_img, try_qemu_img,
};
use drylab_block::{Limits, ReadAt, Result, SparseBytes, WriteAt};
use drylab_image::{
    FlatKind, Image, SplitKind, Target, VmdkOptions, open_with, write, write_flat, write_split,
};
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn plan(size: u64) -> Plan {
    let mut pieces = Vec::new();
    for (offset, kind) in [
        (0, Kind::Text(3)),
        (size / 2, Kind::Noise(8)),
        (size.saturating_sub(700), Kind::Noise(4)),
    ] {
        let length = (size - offset.min(size)).min(5000) as usize;
        if length > 0 {
            pieces.push(Piece {
                offset,
                length,
                kind,
            });
        }
    }
    Plan { size, pieces }
}

fn options(name: &str) -> VmdkOptions {
    VmdkOptions {
        file_name: name.to_owned(),
        ..VmdkOptions::default()
    }
}

fn open(folder: &Path, name: &str) -> Image {
    let beside = Folder(folder.to_owned());
    let file = Arc::new(OnDisk::open(&folder.join(name)));
    open_with(file, &beside, &Limits::DEFAULT).unwrap()
}

/// Writes a disk as a subformat under the name `ours.vmdk`.
fn write_as(subformat: &str, disk: &dyn ReadAt, folder: &Path) {
    let file = |name: &str| OnDisk::create(&folder.join(name));
    let text = |text: String| std::fs::write(folder.join("ours.vmdk"), text).unwrap();
    match subformat {
        "monolithicSparse" => {
            write(
                disk,
                &Target::VmdkSparse(options("ours.vmdk")),
                &file("ours.vmdk"),
            )
            .unwrap();
        }
        "streamOptimized" => {
            write(
                disk,
                &Target::VmdkStream(options("ours.vmdk")),
                &file("ours.vmdk"),
            )
            .unwrap();
        }
        "monolithicFlat" => {
            let options = options("ours-flat.vmdk");
            let extent = file("ours-flat.vmdk");
            text(
                write_flat(disk, &options, FlatKind::Monolithic, &extent)
                    .unwrap()
                    .0,
            );
        }
        _ => {
            let kind = if subformat.ends_with("Flat") {
                SplitKind::Flat
            } else {
                SplitKind::Sparse
            };
            let make = &mut |name: &str| Ok(file(name));
            text(
                write_split(disk, &options("ours.vmdk"), kind, make)
                    .unwrap()
                    .0,
            );
        }
    }
}

const SUBFORMATS: [&str; 5] = [
    "monolithicSparse",
    "streamOptimized",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
];

/// Equal bytes; of large flat files, which do not say where their holes are, only where something was written.
fn same(subformat: &str, disk: &dyn ReadAt, image: &Image) {
    if !subformat.ends_with("Flat") || disk.len() < 64 * MIB {
        return assert_same(disk, image);
    }
    assert_eq!(disk.len(), image.len());
    for at in [0, disk.len() / 2, disk.len() - 8192] {
        let (mut one, mut other) = (vec![0; 8192], vec![1; 8192]);
        disk.read_at(at, &mut one).unwrap();
        image.read_at(at, &mut other).unwrap();
        assert!(one == other, "{subformat} differs at {at}");
    }
}

#[test]
fn every_subformat_goes_to_and_from_qemu_img_at_every_size_that_is_an_edge() {
    if !have_qemu_img() {
        return;
    }
    let sizes = [
        0,
        512,
        513 * 512,
        MIB - 512,
        MIB + 512,
        4 * GIB + 512,
        2048 * GIB,
    ];
    for subformat in SUBFORMATS {
        for size in sizes {
            // Split, 2 TiB would be more than a thousand files.
            if size > 5 * GIB && subformat.starts_with("two") {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            let disk = plan(size).disk();
            write(
                &disk,
                &Target::Raw,
                &OnDisk::create(Path::new(&path("raw"))),
            )
            .unwrap();
            // Ours to us and to them.
            write_as(subformat, &disk, folder.path());
            let image = open(folder.path(), "ours.vmdk");
            assert_eq!((image.subformat(), image.len()), (subformat, size));
            assert_eq!(image.check().unwrap().list(), [], "{subformat} {size}");
            same(subformat, &disk, &image);
            if size == 0 {
                // It opens none of no bytes, its own neither, and does not crash with all of them.
                if ["monolithicSparse", "streamOptimized"].contains(&subformat) {
                    let how = format!("subformat={subformat}");
                    qemu_img(&[
                        "create",
                        "-f",
                        "vmdk",
                        "-o",
                        &how,
                        &path("theirs.vmdk"),
                        "0",
                    ]);
                    assert_eq!(open(folder.path(), "theirs.vmdk").len(), 0);
                    let said = try_qemu_img(&["info", &path("theirs.vmdk")]);
                    assert!(
                        !said.status.success(),
                        "qemu-img opens disks of no bytes now"
                    );
                }
                continue;
            }
            let verdict = qemu_img(&[
                "compare",
                "-f",
                "raw",
                "-F",
                "vmdk",
                &path("raw"),
                &path("ours.vmdk"),
            ]);
            assert!(
                verdict.contains("identical"),
                "{subformat} {size}: {verdict}"
            );
            // Its check looks at every grain of the disk, written or not.
            if size < 5 * GIB {
                let verdict = qemu_img(&["check", "-f", "vmdk", &path("ours.vmdk")]);
                assert!(
                    verdict.contains("No errors"),
                    "{subformat} {size}: {verdict}"
                );
            }
            // Theirs to us.
            let how = format!("subformat={subformat}");
            qemu_img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &how,
                &path("raw"),
                &path("theirs.vmdk"),
            ]);
            let image = open(folder.path(), "theirs.vmdk");
            assert_eq!(image.len(), size, "{subformat}");
            let known = [
                "VMDK-NOT-A-STREAM",
                "VMDK-TRAILING-BYTES",
                "VMDK-NO-END-OF-STREAM",
            ];
            let found = image.check().unwrap();
            let odd = found.list().iter().find(|f| !known.contains(&f.rule.code));
            assert!(odd.is_none(), "{subformat} {size}: {odd:?}");
            same(subformat, &disk, &image);
        }
    }
}

#[test]
fn more_extents_than_names_count_are_refused_with_the_limit() {
    let disk = SparseBytes::new(2048 * GIB);
    let make = &mut |_: &str| -> Result<SparseBytes> { panic!("no file is made") };
    let error = write_split(&disk, &options("a.vmdk"), SplitKind::Sparse, make).unwrap_err();
    assert!(error.to_string().contains("more than 999"), "{error}");
}

#[test]
fn zeroed_grains_are_written_as_entries_of_one_and_read_by_qemu_img() {
    let disk = plan(70 * MIB).disk();
    let zeroed = VmdkOptions {
        zeroed_grains: true,
        ..options("ours.vmdk")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ours.vmdk");
    write(&disk, &Target::VmdkSparse(zeroed), &OnDisk::create(&file)).unwrap();
    let image = open(folder.path(), "ours.vmdk");
    assert_eq!(image.info().detail("header.version"), Some("2"));
    assert_eq!(image.extent_at(MIB).kind, drylab_block::ExtentKind::Zero);
    assert_same(&disk, &image);
    if have_qemu_img() {
        let raw = folder.path().join("raw");
        write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
        let names = [raw.to_str().unwrap(), file.to_str().unwrap()];
        let verdict = qemu_img(&["compare", "-f", "raw", "-F", "vmdk", names[0], names[1]]);
        assert!(verdict.contains("identical"), "{verdict}");
        assert!(qemu_img(&["check", "-f", "vmdk", names[1]]).contains("No errors"));
    }
}

/// A disk of the old size as one of the new size would read.
fn resized(plan: &Plan, size: u64) -> SparseBytes {
    let disk = plan.disk();
    disk.set_len(size).unwrap();
    disk
}

fn copy(file: &dyn ReadAt) -> Arc<SparseBytes> {
    let to = SparseBytes::default();
    drylab_block::copy_data(file, &to).unwrap();
    Arc::new(to)
}

fn opened(file: Arc<SparseBytes>) -> Image {
    drylab_image::open(file, &Limits::DEFAULT).unwrap()
}

/// Resizes a sparse disk, looks at every step as a crash would leave it, and at the end.
fn resize_sparse(file: &SparseBytes, from: &Plan, size: u64) -> Arc<SparseBytes> {
    let plan = opened(copy(file)).resize(size).unwrap();
    for count in 0..=plan.edits().len() {
        let crashed = copy(file);
        plan.apply_first(count, &*crashed).unwrap();
        let image = opened(crashed);
        let now = image.len();
        assert!(
            now == from.size || now == size,
            "{now} bytes after {count} steps"
        );
        assert_same(&resized(from, now), &image);
    }
    let after = copy(file);
    plan.apply(&*after).unwrap();
    let image = opened(after.clone());
    assert_eq!(image.len(), size);
    assert_eq!(image.check().unwrap().list(), []);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.vmdk");
    if size < 5 * GIB && have_qemu_img() {
        drylab_block::copy_data(&*after, &OnDisk::create(&path)).unwrap();
        let name = path.to_str().unwrap();
        assert!(qemu_img(&["check", "-f", "vmdk", name]).contains("No errors"));
        let said = qemu_img(&["info", "--output=json", name]);
        assert!(
            said.contains(&format!("\"virtual-size\": {size}")),
            "{said}"
        );
    }
    after
}

#[test]
fn a_sparse_disk_grows_and_shrinks_over_zeros_and_is_whole_at_every_step() {
    for zeroed_grains in [false, true] {
        let from = plan(300_032);
        let file = SparseBytes::default();
        let how = VmdkOptions {
            zeroed_grains,
            ..options("a.vmdk")
        };
        write(&from.disk(), &Target::VmdkSparse(how), &file).unwrap();
        for size in [
            300_544,
            327_680,
            327_680 + 512,
            32 * MIB,
            33 * MIB,
            200 * MIB,
            9 * GIB,
        ] {
            let grown = resize_sparse(&file, &from, size);
            // And on, and back.
            let again = Plan {
                size,
                pieces: from.pieces.clone(),
            };
            let more = resize_sparse(&grown, &again, size + 40 * MIB);
            let more_plan = Plan {
                size: size + 40 * MIB,
                pieces: from.pieces.clone(),
            };
            resize_sparse(&more, &more_plan, 300_032);
        }
        let error = opened(copy(&file)).resize(299_520).unwrap_err().to_string();
        assert!(
            error.contains("would lose what stands at byte 29"),
            "{error}"
        );
    }
}

#[test]
fn what_stood_behind_the_old_end_does_not_come_to_light_in_a_larger_disk() {
    let from = plan(300_032);
    let file = SparseBytes::default();
    write(&from.disk(), &Target::VmdkSparse(options("a.vmdk")), &file).unwrap();
    // In the last grain, and in the entries of the last table.
    file.write_at(file.len() - 2000, &[0xee; 2000]).unwrap();
    for table in [22u64, 27] {
        file.write_at(table * 512 + 5 * 4, &200u32.to_le_bytes())
            .unwrap();
    }
    resize_sparse(&file, &from, 40 * MIB);
    // A last grain that the file has only up to the end of the disk.
    file.set_len(file.len() - 65_536 + 37_888).unwrap();
    resize_sparse(&file, &from, 40 * MIB);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let says = |image: &Image, size: u64, word: &str| {
        let error = image.resize(size).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let file = SparseBytes::default();
    write(
        &plan(MIB).disk(),
        &Target::VmdkSparse(options("a.vmdk")),
        &file,
    )
    .unwrap();
    let image = opened(copy(&file));
    says(&image, 1000, "whole sectors");
    says(&image, 65 << 40, "64 TiB");
    assert!(image.resize(MIB).unwrap().is_empty());
    file.write_at(27 * 512, &[0xff; 4]).unwrap();
    file.write_at(22 * 512, &[0xff; 4]).unwrap();
    says(&opened(copy(&file)), 2 * MIB, "repair the VMDK before");
    let stream = SparseBytes::default();
    write(
        &plan(MIB).disk(),
        &Target::VmdkStream(options("a.vmdk")),
        &stream,
    )
    .unwrap();
    says(&opened(copy(&stream)), 2 * MIB, "streamOptimized");
}

#[test]
fn disks_of_several_files_are_resized_file_by_file() {
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
    ] {
        for (from, size) in [
            (MIB + 512, 3 * MIB),
            (3 * MIB, 2 * MIB),
            (2047 * MIB + 512, 2049 * MIB),
        ] {
            // Flat files do not say where their holes are.
            if from > 64 * MIB && subformat != "twoGbMaxExtentSparse" {
                continue;
            }
            let mut old = plan(from);
            old.pieces.truncate(1);
            let folder = tempfile::tempdir().unwrap();
            write_as(subformat, &old.disk(), folder.path());
            let plan = open(folder.path(), "ours.vmdk").resize(size).unwrap();
            let change = |name: &str, plan: &drylab_image::Plan, count: usize| {
                let path = folder.path().join(name);
                let file = copy(&OnDisk::open(&path));
                plan.apply_first(count, &*file).unwrap();
                drylab_block::copy_data(&*file, &OnDisk::create(&path)).unwrap();
            };
            let same = || {
                let image = open(folder.path(), "ours.vmdk");
                assert!(
                    [from, size].contains(&image.len()),
                    "{subformat} {}",
                    image.len()
                );
                assert_same(&resized(&old, image.len()), &image);
            };
            for (name, own) in plan.before() {
                change(name, own, own.edits().len());
                same();
            }
            change("ours.vmdk", &plan, plan.edits().len());
            same();
            for (name, own) in plan.after() {
                change(name, own, own.edits().len());
                same();
            }
            let image = open(folder.path(), "ours.vmdk");
            assert_eq!(image.len(), size, "{subformat}");
            assert_eq!(image.check().unwrap().list(), [], "{subformat}");
            let path = folder.path().join("ours.vmdk");
            if have_qemu_img() {
                let said = qemu_img(&["info", "--output=json", path.to_str().unwrap()]);
                assert!(
                    said.contains(&format!("\"virtual-size\": {size}")),
                    "{said}"
                );
            }
            if subformat != "monolithicFlat" {
                let error = image.resize(5000 * MIB).unwrap_err().to_string();
                assert!(error.contains("4192256"), "{error}");
            }
        }
    }
}
