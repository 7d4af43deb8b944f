//! VHDX of others: qemu-img reads ours and we read its, and foreign files are what qemu-img says.

use crate::common::{OnDisk, Plan, assert_same, have_qemu_img, opened, qemu_img, try_qemu_img};
use crate::vhdx_tools::{
    MIB, bytes, check, codes, copy, dynamic, entry, in_headers, open, passes_qemu, piece, repaired,
    set_entry, u64_at,
};
use drylab_block::{Limits, ReadAt, WriteAt};
use drylab_image::{Target, VhdxOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const GIB: u64 = 1 << 30;

/// A foreign disk, unpacked where it came packed; `None` after saying why.
pub(crate) fn unpacked(name: &str) -> Option<PathBuf> {
    let (all, _) = crate::foreign::unpacking::foreign()?;
    crate::foreign::packed::plain(&all, &format!("disk/{name}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The sizes at which readers differ.
fn sizes() -> Vec<u64> {
    vec![
        512,
        3 * 512,
        77 * 512,
        MIB - 512,
        MIB,
        MIB + 512,
        4 * GIB + 512,
        2 << 40,
    ]
}

fn disk(size: u64) -> Plan {
    let at = |offset: u64, seed| piece(offset.min(size.saturating_sub(1)), 3000, seed);
    let pieces = vec![at(0, 1), at(size / 2, 2), at(size.saturating_sub(3000), 3)];
    Plan { size, pieces }
}

#[test]
fn ours_is_read_by_qemu_img_to_equal_bytes_at_all_sizes() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, ours) = (folder.path().join("raw"), folder.path().join("ours.vhdx"));
    for size in sizes() {
        let disk = disk(size).disk();
        drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
        let blocks = [None, Some(1 << 20), Some(32 << 20), Some(256 << 20)];
        for (number, block_bytes) in blocks.into_iter().enumerate() {
            let options = VhdxOptions {
                block_bytes,
                ..VhdxOptions::default()
            };
            // It asks for each block of a disk by itself: two million would take it minutes.
            if size > 1 << 40 && number == 1 {
                continue;
            }
            // It reads all of a fixed one, holes too.
            let target = if number == 2 && size < GIB {
                Target::VhdxFixed(options)
            } else {
                Target::VhdxDynamic(options)
            };
            drylab_image::write(&disk, &target, &OnDisk::create(&ours)).unwrap();
            let said = qemu_img(&["check", "-f", "vhdx", text(&ours)]);
            assert!(said.contains("No errors"), "{said}");
            if size > 8 * GIB {
                // It has no map of a VHDX and would make two TiB of zeros: only the pieces are read.
                for at in [0, size / 2 / MIB, size / MIB - 1] {
                    let back = folder.path().join("back");
                    let (skip, count) = (format!("skip={at}"), format!("count={}", at + 1));
                    let from = format!("if={}", text(&ours));
                    let to = format!("of={}", text(&back));
                    let mut dd = vec!["dd", "-f", "vhdx", "-O", "raw", "bs=1M"];
                    dd.extend([skip.as_str(), count.as_str(), from.as_str(), to.as_str()]);
                    qemu_img(&dd);
                    let read = std::fs::read(&back).unwrap();
                    assert!(read == bytes(&disk, at * MIB, MIB), "{size} at {at}");
                }
                continue;
            }
            let same = ["compare", "-f", "raw", "-F", "vhdx"];
            let same = qemu_img(&[&same[..], &[text(&raw), text(&ours)]].concat());
            assert!(same.contains("identical"), "{size} {block_bytes:?}");
        }
    }
}

#[test]
fn theirs_is_read_by_us_to_equal_bytes_at_all_sizes() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, theirs) = (folder.path().join("raw"), folder.path().join("theirs.vhdx"));
    for size in sizes() {
        let disk = disk(size).disk();
        drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
        for options in [
            "subformat=dynamic",
            "subformat=dynamic,block_size=1M,log_size=4M",
            "subformat=dynamic,block_size=256M",
            "subformat=fixed,block_size=2M",
        ] {
            if options.contains("fixed") && size > GIB {
                continue;
            }
            // Without this it logs a change of the table for every block of zeros.
            let size = size.to_string();
            let create = ["create", "-q", "-f", "vhdx", "-o", options];
            qemu_img(&[&create[..], &[text(&theirs), &size]].concat());
            let convert = [
                "convert",
                "-n",
                "--target-is-zero",
                "-f",
                "raw",
                "-O",
                "vhdx",
            ];
            qemu_img(&[&convert[..], &[text(&raw), text(&theirs)]].concat());
            let image = opened(Arc::new(OnDisk::open(&theirs)));
            assert!(image.check().unwrap().is_empty(), "{size} {options}");
            assert_same(&disk, &image);
        }
    }
}

#[test]
fn a_disk_of_no_bytes_and_one_past_64_tib_are_what_qemu_img_says() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.vhdx");
    drylab_image::write(
        &drylab_block::SparseBytes::new(0),
        &Target::VhdxDynamic(VhdxOptions::default()),
        &OnDisk::create(&path),
    )
    .unwrap();
    let said = qemu_img(&["info", "-f", "vhdx", text(&path)]);
    assert!(said.contains("virtual size: 0 B"), "{said}");
    qemu_img(&["create", "-q", "-f", "vhdx", text(&path), "0"]);
    let image = opened(Arc::new(OnDisk::open(&path)));
    assert_eq!(image.len(), 0);
    assert!(image.check().unwrap().is_empty());
    let output = try_qemu_img(&["create", "-q", "-f", "vhdx", text(&path), "65T"]);
    assert!(!output.status.success());
}

#[test]
fn an_entry_that_qemu_wrote_to_its_log_is_replayed_as_qemu_does() {
    if !have_qemu_img() || Command::new("qemu-io").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dirty.vhdx");
    let create = ["create", "-q", "-f", "vhdx", "-o", "block_size=1M"];
    qemu_img(&[&create[..], &[text(&path), "64M"]].concat());
    // The process dies; qemu applies each entry at once, so it is put back to the moment before.
    let output = Command::new("qemu-io")
        .args([
            "-f",
            "vhdx",
            text(&path),
            "-c",
            "write -P 7 3M 64k",
            "-c",
            "abort",
        ])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let file = copy(&OnDisk::open(&path));
    let (log, table) = (MIB, 2 * MIB);
    assert_eq!(bytes(&file, log, 4), b"loge");
    assert_eq!(u64_at(&file, table + 24), (8 * MIB) | 6);
    file.write_at(table + 24, &[0; 8]).unwrap();
    in_headers(&file, 48, &bytes(&file, log + 32, 16));
    let image = open(copy(&file)).unwrap();
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-LOG-PENDING"]);
    assert_eq!(bytes(&image, 3 * MIB, 65536), vec![7; 65536]);
    let mended = repaired(&file);
    assert_eq!(u64_at(&mended, table + 24), (8 * MIB) | 6);
    assert!(passes_qemu(&mended));
    drylab_block::copy_data(&file, &OnDisk::create(&path)).unwrap();
    qemu_img(&["check", "-r", "all", "-f", "vhdx", text(&path)]);
    assert_same(&image, &opened(Arc::new(OnDisk::open(&path))));
}

#[test]
fn damage_that_qemu_img_does_not_see_or_cannot_read_is_seen_and_read_by_us() {
    if !have_qemu_img() {
        return;
    }
    // formats.md 3.2: shared blocks are no error to it, and a bad first region table is the end.
    let file = dynamic();
    set_entry(&file, 1, entry(&file, 3));
    assert!(passes_qemu(&file));
    assert_eq!(check(&file), ["VHDX-BLOCK-SHARED"]);
    let file = dynamic();
    file.write_at(192 << 10, &[0; 4]).unwrap();
    assert!(!passes_qemu(&file));
    assert_eq!(check(&file), ["VHDX-REGION-TABLE"]);
}

#[test]
fn foreign_files_have_the_size_and_bytes_that_qemu_img_finds() {
    if !have_qemu_img() {
        return;
    }
    for (name, kind) in [
        ("dissect.hypervisor__set/dynamic.vhdx.gz", "dynamic"),
        ("dissect.hypervisor__set/fixed.vhdx.gz", "fixed"),
        (
            "qemu__qemu-iotests_sample_images_test-disk2vhd.vhdx.bz2",
            "dynamic",
        ),
    ] {
        let Some(path) = unpacked(name) else { return };
        let image = drylab_image::open(Arc::new(OnDisk::open(&path)), &Limits::DEFAULT).unwrap();
        assert_eq!(image.subformat(), kind);
        assert!(image.check().unwrap().is_empty());
        let raw = tempfile::NamedTempFile::new().unwrap();
        drylab_image::write(&image, &Target::Raw, &OnDisk::create(raw.path())).unwrap();
        let same = [
            "compare",
            "-f",
            "raw",
            "-F",
            "vhdx",
            text(raw.path()),
            text(&path),
        ];
        assert!(qemu_img(&same).contains("identical"));
    }
}
