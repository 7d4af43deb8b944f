//! `drylab image convert`: complete files or none, the same whoever works on them.

use crate::support::{have, run, text, write_raw};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, content_id};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Every container that is written, by its options.
const TARGETS: [&[&str]; 14] = [
    &["--to", "raw"],
    &["--to", "vmdk"],
    &["--to", "vmdk", "--subformat", "streamOptimized"],
    &[
        "--to",
        "vmdk",
        "--subformat",
        "streamoptimized",
        "--level",
        "fast",
    ],
    &["--to", "vhd"],
    &["--to", "vhd", "--subformat", "fixed"],
    &["--to", "vhdx"],
    &["--to", "vhdx", "--subformat", "fixed"],
    &["--to", "vdi"],
    &["--to", "vdi", "--subformat", "fixed"],
    &["--to", "qcow2"],
    &[
        "--to",
        "qcow2",
        "--subformat",
        "v2",
        "--compress",
        "zlib",
        "--level",
        "fast",
    ],
    &["--to", "qcow2", "--compress", "zstd", "--sync", "never"],
    &["--to", "qcow2", "--compress", "zlib", "--level", "best"],
];

fn convert(source: &Path, destination: &Path, options: &[&str]) -> crate::support::Ran {
    let names = ["image", "convert", text(source), text(destination)];
    run(&[&names, options].concat())
}

fn names(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

/// A disk of 40 MiB as a raw file in a folder of its own: text, bytes that do not get shorter, zeros, holes.
fn guest() -> (tempfile::TempDir, PathBuf, SparseBytes) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SparseBytes::new(40 << 20);
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(700_000)
    .collect();
    let text = b"GNU is not Unix. ".repeat(100_000);
    for (at, bytes) in [
        (0, &text),
        (5_000_000, &noise),
        (20_000_001, &text),
        (41_000_000, &noise),
    ] {
        disk.write_at(at, bytes).expect("it is inside");
    }
    let raw = folder.path().join("guest.raw");
    write_raw(&disk, &raw);
    (folder, raw, disk)
}

#[test]
fn a_guest_keeps_its_bytes_through_every_container() {
    let (folder, raw, disk) = guest();
    let expected = content_id(&disk).expect("it reads");
    for (number, options) in TARGETS.iter().enumerate() {
        let there = folder.path().join(format!("{number}.there"));
        let back = folder.path().join(format!("{number}.back"));
        let ran = convert(&raw, &there, options);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{options:?}");
        assert!(ran.out.contains("bytes of disk in"), "{}", ran.out);
        let again = folder.path().join("again");
        let jobs = [*options, &["--jobs", "3", "--force"]].concat();
        assert_eq!(convert(&raw, &again, &jobs).code, 0);
        let same = [&there, &again].map(|path| std::fs::read(path).expect("it is there"));
        assert!(same[0] == same[1], "{options:?}");
        assert_eq!(
            convert(&there, &back, &["--to", "raw"]).code,
            0,
            "{options:?}"
        );
        let bytes: Arc<dyn ReadAt> = Arc::new(std::fs::read(&back).expect("it is there"));
        let image = drylab_image::open(bytes, &Limits::DEFAULT).expect("it opens");
        assert_eq!(
            content_id(&image).expect("it reads"),
            expected,
            "{options:?}"
        );
    }
}

#[test]
fn qemu_img_reads_what_is_converted() {
    if !have("qemu-img") {
        return;
    }
    let (folder, raw, _) = guest();
    for (number, options) in TARGETS.iter().enumerate() {
        let there = folder.path().join(format!("{number}.there"));
        assert_eq!(convert(&raw, &there, options).code, 0, "{options:?}");
        let kind = match options[1] {
            "vhd" => "vpc",
            other => other,
        };
        let compared = Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", kind, text(&raw), text(&there)])
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&compared.stdout).into_owned();
        assert!(compared.status.success(), "{options:?} {said}");
    }
}

#[test]
fn a_conversion_that_fails_leaves_what_was_there() {
    let (folder, raw, _) = guest();
    let stream = folder.path().join("guest.vmdk");
    let options = ["--to", "vmdk", "--subformat", "streamOptimized"];
    assert_eq!(convert(&raw, &stream, &options).code, 0);
    // A grain in the middle is overwritten.
    let file = File::options()
        .write(true)
        .open(&stream)
        .expect("it is there");
    let middle = file.metadata().expect("a length").len() / 2;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xaa; 70_000], middle).expect("written");
    let before = names(folder.path());
    let out = folder.path().join("out.qcow2");
    for jobs in ["1", "2"] {
        let ran = convert(&stream, &out, &["--to", "qcow2", "--jobs", jobs]);
        assert_eq!(ran.code, 3, "{}", ran.out);
        assert!(
            ran.err.contains("failed to write") && ran.err.contains("grain"),
            "{}",
            ran.err
        );
        assert_eq!(names(folder.path()), before, "nothing is left behind");
    }
    std::fs::write(&out, b"mine").expect("written");
    let ran = convert(&raw, &out, &["--to", "qcow2"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(
        convert(&stream, &out, &["--to", "qcow2", "--force"]).code,
        3
    );
    assert_eq!(std::fs::read(&out).expect("it is there"), b"mine");
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let (folder, raw, _) = guest();
    let out = folder.path().join("out");
    let before = names(folder.path());
    let wrong: [&[&str]; 8] = [
        &["--to", "vmdk", "--subformat", "streamOptimised"],
        &["--to", "raw", "--subformat", "fixed"],
        &["--to", "vmdk", "--compress", "zlib"],
        &["--to", "floppy"],
        &[],
        &["--for", "amiga"],
        &["--for", "azure", "--to", "vmdk"],
        &["--to", "raw", "--jobs", "0"],
    ];
    for options in wrong {
        assert_eq!(convert(&raw, &out, options).code, 1, "{options:?}");
    }
    let hint = convert(&raw, &out, wrong[0]).err;
    assert!(hint.contains("streamOptimized"), "{hint}");
    assert_eq!(convert(&raw, &raw, &["--to", "qcow2", "--force"]).code, 1);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn ten_tebibytes_of_holes_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = folder.path().join("huge.raw");
    let disk = SparseBytes::new(10 << 40);
    disk.write_at(7 << 40, b"here").expect("written");
    write_raw(&disk, &raw);
    for (number, options) in TARGETS.iter().enumerate() {
        // VHD and VDI of that size there are not, or their tables are not short; a fixed VHDX has all its blocks.
        if ["vhd", "raw", "vdi"].contains(&options[1]) || options.contains(&"fixed") {
            continue;
        }
        let there = folder.path().join(format!("{number}.there"));
        assert_eq!(convert(&raw, &there, options).code, 0, "{options:?}");
        let allocated = std::os::unix::fs::MetadataExt::blocks(
            &std::fs::metadata(&there).expect("it is there"),
        );
        assert!(
            allocated * 512 < 16 << 20,
            "{options:?}: {allocated} sectors"
        );
        let back = folder.path().join("back.raw");
        assert_eq!(convert(&there, &back, &["--to", "raw", "--force"]).code, 0);
        let bytes = crate::support::read_at(&back, 7 << 40, 4);
        assert_eq!(bytes, b"here", "{options:?}");
    }
}

/// VMDKs of several files, with how many there are of a disk of 40 MiB and of one of 5 GiB.
const SEVERAL: [(&str, usize, usize); 4] = [
    ("monolithicFlat", 2, 2),
    ("vmfs", 2, 2),
    ("twoGbMaxExtentSparse", 2, 4),
    ("twoGbMaxExtentFlat", 2, 4),
];

#[test]
fn a_vmdk_of_several_files_is_complete_or_absent_and_read_only_beneath_a_folder() {
    let (folder, raw, _) = guest();
    let huge = folder.path().join("huge.raw");
    write_raw(&SparseBytes::new(5 << 30), &huge);
    for (kind, files, more) in SEVERAL {
        for (source, files) in [(&raw, files), (&huge, more)] {
            let there = tempfile::tempdir().expect("a folder");
            let vmdk = there.path().join("disk.vmdk");
            let options = ["--to", "vmdk", "--subformat", kind];
            assert_eq!(convert(source, &vmdk, &options).code, 0, "{kind}");
            assert_eq!(names(there.path()), files, "{kind}");
            let compare = ["image", "compare", text(source), text(&vmdk)];
            let refused = run(&compare);
            assert_eq!(refused.code, 3);
            assert!(refused.err.contains("--allow-beneath"), "{}", refused.err);
            let beneath = ["--allow-beneath", text(there.path()), "--strict"];
            let same = run(&[&compare[..], &beneath].concat());
            assert_eq!(
                (same.code, same.err.as_str()),
                (0, ""),
                "{kind}: {}",
                same.out
            );
        }
    }
    // An extent that is there already is not replaced, and nothing else is made.
    let there = tempfile::tempdir().expect("a folder");
    std::fs::write(there.path().join("disk-flat.vmdk"), b"mine").expect("written");
    let options = ["--to", "vmdk", "--subformat", "vmfs"];
    let ran = convert(&raw, &there.path().join("disk.vmdk"), &options);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err
            .contains("disk-flat.vmdk: unsupported: it is there already")
            || ran.err.contains("--force"),
        "{}",
        ran.err
    );
    assert_eq!(names(there.path()), 1);
}

#[test]
fn products_get_what_they_want_and_are_told_why() {
    let (folder, raw, _) = guest();
    let odd = folder.path().join("odd.raw");
    write_raw(&SparseBytes::new(5_000_192), &odd);
    let vhd = folder.path().join("azure.vhd");
    let ran = convert(&odd, &vhd, &["--for", "azure"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("5242880 bytes of disk") && ran.out.contains("whole MiB"),
        "{}",
        ran.out
    );
    assert_eq!(
        std::fs::metadata(&vhd).expect("there").len(),
        (5 << 20) + 512
    );
    for (product, format, subformat) in [
        ("azure", "vhd", "fixed"),
        ("esxi", "vmdk", "streamOptimized"),
        ("hyperv-2008r2", "vhd", "dynamic"),
        ("libvirt", "qcow2", "v3"),
        ("xenserver", "vhd", "dynamic"),
    ] {
        let there = folder.path().join(product);
        let said = crate::support::json(&[
            "image",
            "convert",
            text(&raw),
            text(&there),
            "--for",
            product,
            "--format",
            "json",
        ]);
        let made = &said["destination"];
        assert_eq!(
            (&made["format"], &made["subformat"], &made["for"]["name"]),
            (&format.into(), &subformat.into(), &product.into())
        );
        let opened = crate::support::json(&["image", "info", text(&there), "--format", "json"]);
        assert_eq!(opened["image"]["subformat"], subformat);
        assert_eq!(opened["image"]["virtual_bytes"], made["virtual_bytes"]);
    }
    let refused = convert(
        &raw,
        &folder.path().join("no"),
        &["--for", "azure", "--to", "vmdk"],
    );
    assert!(
        refused.err.contains("it takes vhd fixed"),
        "{}",
        refused.err
    );
}
