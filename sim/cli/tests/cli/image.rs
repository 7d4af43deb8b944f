//! `drylab image convert`: complete files or none, the same whoever works on them.

use crate::support::{have, run, text, write_raw};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, content_id};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Every container that is written, by its options.
const TARGETS: [&[&str]; 10] = [
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
    let wrong: [&[&str]; 5] = [
        &["--to", "vmdk", "--subformat", "streamOptimised"],
        &["--to", "raw", "--subformat", "fixed"],
        &["--to", "vmdk", "--compress", "zlib"],
        &["--to", "floppy"],
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
        if options[1] == "vhd" || options[1] == "raw" {
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
