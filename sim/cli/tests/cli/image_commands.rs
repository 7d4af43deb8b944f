//! `drylab image info`, `map`, `check`, `compare` and `rules`: what they say, and with which exit code.

use crate::support::{create_child, data, have, json, keys, run, text, write_raw};
use drylab_block::{SparseBytes, WriteAt};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Containers of one file that hold holes, by format and kind.
const KINDS: [(&str, &str); 8] = [
    ("vmdk", "monolithicSparse"),
    ("vmdk", "streamOptimized"),
    ("vhd", "dynamic"),
    ("vhd", "fixed"),
    ("vhdx", "dynamic"),
    ("vdi", "dynamic"),
    ("qcow2", "v3"),
    ("qcow2", "v2"),
];

/// Where the disks of these tests hold data: 3 MiB from here on, of 20 MiB.
const DATA: u64 = 8 << 20;

pub(crate) struct Images {
    pub(crate) folder: tempfile::TempDir,
}

impl Images {
    /// `disk.raw`, and `disk.FORMAT-KIND` of each kind.
    pub(crate) fn new() -> Self {
        let images = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        let disk = SparseBytes::new(20 << 20);
        let bytes: Vec<u8> = (0..3u32 << 20).map(|at| (at % 251) as u8 + 1).collect();
        disk.write_at(DATA, &bytes).expect("inside");
        write_raw(&disk, &images.at("disk.raw"));
        for (format, kind) in KINDS {
            let to = images.of(format, kind);
            let source = images.at("disk.raw");
            data(&[
                "image",
                "convert",
                text(&source),
                text(&to),
                "--to",
                format,
                "--subformat",
                kind,
            ]);
        }
        images
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn of(&self, format: &str, kind: &str) -> PathBuf {
        self.at(&format!("disk.{format}-{kind}"))
    }
}

pub(crate) fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("there");
    file.write_all_at(bytes, offset).expect("written");
}

/// All numbers of a document are integers.
fn only_integers(value: &Value) {
    match value {
        Value::Number(number) => assert!(number.is_u64(), "{number}"),
        Value::Array(values) => values.iter().for_each(only_integers),
        Value::Object(fields) => fields.values().for_each(only_integers),
        _ => {}
    }
}

#[test]
fn info_tells_format_kind_and_sizes_of_every_image() {
    let images = Images::new();
    for (format, kind) in KINDS {
        let path = images.of(format, kind);
        let said = json(&["image", "info", text(&path), "--format", "json"]);
        only_integers(&said);
        assert_eq!(
            keys(&said),
            [
                "details",
                "files",
                "findings",
                "format",
                "image",
                "not_opened"
            ]
        );
        assert_eq!(said["format"], 1);
        let image = &said["image"];
        assert_eq!(
            keys(image),
            [
                "allocated_bytes",
                "file",
                "file_bytes",
                "format",
                "subformat",
                "virtual_bytes"
            ]
        );
        assert_eq!(
            (&image["format"], &image["subformat"]),
            (&format.into(), &kind.into())
        );
        assert_eq!(image["virtual_bytes"], 20 << 20);
        let length = std::fs::metadata(&path).expect("there").len();
        assert_eq!(image["file_bytes"], length);
        let shown = data(&["image", "info", text(&path)]);
        assert!(shown.contains(&format!(": {format} {kind}\n")), "{shown}");
        assert!(
            shown.contains("virtual size  20971520 bytes (20.0 MiB)"),
            "{shown}"
        );
    }
}

#[test]
fn a_map_covers_the_disk_and_tells_where_bytes_stand() {
    let images = Images::new();
    for (format, kind) in KINDS {
        let path = images.of(format, kind);
        let said = json(&["image", "map", text(&path), "--format", "json"]);
        only_integers(&said);
        let ranges = said["ranges"].as_array().expect("a list");
        let (mut at, mut bytes) = (0, 0);
        for range in ranges {
            assert_eq!(keys(range), ["file", "kind", "length", "offset", "start"]);
            assert_eq!(range["start"], at);
            let length = range["length"].as_u64().expect("a length");
            at += length;
            let start = range["start"].as_u64().expect("a start");
            let kind = range["kind"].as_str().expect("a kind");
            let full = kind == "data" || kind == "compressed";
            // Blocks may be larger than what was written, and never smaller.
            assert!(
                full || start + length <= DATA || start >= DATA + (3 << 20),
                "{format}: {range}"
            );
            if let Some(offset) = range["offset"].as_u64() {
                assert_eq!((kind, &range["file"]), ("data", &text(&path).into()));
                let skip = DATA.saturating_sub(start);
                let found = crate::support::read_at(&path, offset + skip, 3);
                let guest = (start + skip - DATA) % 251;
                assert_eq!(u64::from(found[0]), guest + 1, "{format}: {range}");
                bytes += length;
            }
        }
        assert_eq!(at, 20 << 20, "{format}");
        assert!(
            kind == "streamOptimized" || bytes >= 3 << 20,
            "{format}: {bytes}"
        );
        let shown = data(&["image", "map", text(&path)]);
        assert_eq!(shown.lines().count(), ranges.len() + 1, "{shown}");
    }
}

#[test]
fn qemu_img_maps_the_same_bytes_to_the_same_places() {
    if !have("qemu-img") {
        return;
    }
    let images = Images::new();
    for (format, kind) in KINDS {
        // qemu-img has no map of VHDX, takes fixed VHD for raw, and compressed grains for data.
        if format == "vhdx" || kind == "streamOptimized" || kind == "fixed" {
            continue;
        }
        let path = images.of(format, kind);
        let theirs = if format == "vhd" { "vpc" } else { format };
        let ran = Command::new("qemu-img")
            .args(["map", "--output=json", "-f", theirs, text(&path)])
            .output()
            .expect("it starts");
        let theirs: Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
        let ours = json(&["image", "map", text(&path), "--format", "json"]);
        let places = |list: &Value| {
            let all = list.as_array().expect("a list").iter();
            let mut places = Vec::new();
            for one in all.filter(|one| one["offset"].is_u64()) {
                let [start, length, offset] =
                    ["start", "length", "offset"].map(|key| one[key].as_u64().expect("a number"));
                // Theirs are cut at different places.
                for at in (start..start + length).step_by(512) {
                    places.push((at, offset + at - start));
                }
            }
            places
        };
        let [theirs, ours] = [&theirs, &ours["ranges"]].map(places);
        // Not printed: there are thousands.
        assert!(
            theirs == ours,
            "{format} {kind}: {} and {}",
            theirs.len(),
            ours.len()
        );
    }
}

#[test]
fn check_is_silent_on_sound_images_and_lists_what_is_wrong_with_others() {
    let images = Images::new();
    for (format, kind) in KINDS {
        let ran = run(&["image", "check", text(&images.of(format, kind))]);
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (0, ""),
            "{format} {kind}: {}",
            ran.out
        );
    }
    // Two entries of the BAT name one block.
    let vhd = images.of("vhd", "dynamic");
    let entry = crate::support::read_at(&vhd, 1536 + 4 * 4, 4);
    overwrite(&vhd, 1536 + 4 * 3, &entry);
    let ran = run(&["image", "check", text(&vhd)]);
    assert_eq!((ran.code, ran.err.as_str()), (5, ""));
    assert!(
        ran.out.contains("error   VHD-BLOCKS-OVERLAP ")
            && ran.out.contains("VHD specification 1.0"),
        "{}",
        ran.out
    );
    let ran = run(&["image", "check", text(&vhd), "--format", "json"]);
    assert_eq!(ran.code, 5);
    let said: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    only_integers(&said);
    assert_eq!(said["damaged"], true);
    assert_eq!(said["findings"]["worst"], "error");
    let list = said["findings"]["list"].as_array().expect("a list");
    let found = list
        .iter()
        .find(|one| one["code"] == "VHD-BLOCKS-OVERLAP")
        .expect("listed");
    assert_eq!(
        keys(found),
        [
            "clause",
            "code",
            "effect",
            "expected",
            "file",
            "found",
            "length",
            "offset",
            "path",
            "repairable",
            "severity"
        ]
    );
    assert_eq!(found["file"], text(&vhd));
    assert_eq!(found["repairable"], "lossless");
}

#[test]
fn warnings_are_damage_only_when_that_is_said_and_what_cannot_be_opened_has_another_code() {
    let images = Images::new();
    let vmdk = images.of("vmdk", "monolithicSparse");
    assert_eq!(run(&["image", "check", text(&vmdk), "--strict"]).code, 0);
    // uncleanShutdown
    overwrite(&vmdk, 72, &[1]);
    let ran = run(&["image", "check", text(&vmdk)]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("warning VMDK-"), "{}", ran.out);
    assert_eq!(run(&["image", "check", text(&vmdk), "--strict"]).code, 5);
    let qcow2 = images.of("qcow2", "v3");
    overwrite(&qcow2, 20, &[0xff; 4]);
    for args in [
        [text(&qcow2)],
        [text(&images.at("gone"))],
        [text(images.folder.path())],
    ] {
        for command in ["info", "map", "check", "repair"] {
            let ran = run(&[&["image", command], &args[..]].concat());
            assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{command} {args:?}");
            assert!(
                ran.err.starts_with("drylab: failed to open "),
                "{}",
                ran.err
            );
        }
    }
}

#[test]
fn images_of_one_disk_are_equal_whatever_they_are_in() {
    let images = Images::new();
    let raw = images.at("disk.raw");
    for (format, kind) in KINDS {
        let path = images.of(format, kind);
        let ran = run(&["image", "compare", text(&raw), text(&path), "--strict"]);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (0, "the images are equal\n"),
            "{format}"
        );
    }
    let vdi = images.of("vdi", "dynamic");
    let longer = images.at("longer.raw");
    std::fs::copy(&raw, &longer).expect("copied");
    let file = File::options().write(true).open(&longer).expect("there");
    file.set_len(30 << 20).expect("longer");
    assert_eq!(
        run(&["image", "compare", text(&vdi), text(&longer)]).code,
        0
    );
    let strict = run(&[
        "image",
        "compare",
        text(&vdi),
        text(&longer),
        "--strict",
        "--format",
        "json",
    ]);
    assert_eq!(strict.code, 6);
    let said: Value = serde_json::from_str(&strict.out).expect("it is JSON");
    only_integers(&said);
    assert_eq!(
        keys(&said),
        ["difference", "equal", "format", "offset", "one", "two"]
    );
    assert_eq!(
        (&said["equal"], &said["difference"]),
        (&false.into(), &"size".into())
    );
    overwrite(&longer, (25 << 20) + 3, b"x");
    let ran = run(&["image", "compare", text(&vdi), text(&longer)]);
    assert_eq!(ran.code, 6);
    assert!(
        ran.out.contains("first in the byte at 26214403\n"),
        "{}",
        ran.out
    );
    overwrite(&raw, DATA + 70_001, &[0]);
    let ran = run(&[
        "image",
        "compare",
        text(&raw),
        text(&vdi),
        "--format",
        "json",
    ]);
    let said: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!((ran.code, &said["offset"]), (6, &(DATA + 70_001).into()));
}

#[test]
fn rules_are_listed_with_what_they_stand_on() {
    let all = json(&["image", "rules", "--format", "json"]);
    let all = all["rules"].as_array().expect("a list");
    assert!(all.len() > 60, "{}", all.len());
    for rule in all {
        assert_eq!(
            keys(rule),
            ["clause", "code", "effect", "repairable", "severity"]
        );
        let code = rule["code"].as_str().expect("a code");
        let one = data(&["image", "rules", code]);
        assert!(one.contains(code) && one.lines().count() == 2, "{one}");
    }
    let vdi = data(&["image", "rules", "vdi"]);
    assert!(vdi.contains(" VDI-") && !vdi.contains(" VHD-"), "{vdi}");
    let ran = run(&["image", "rules", "vhx"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("nearest: vhdx") || ran.err.contains("vhdx"),
        "{}",
        ran.err
    );
}

#[test]
fn limits_bound_what_is_opened_and_wrong_ones_are_told_the_right_names() {
    let images = Images::new();
    let path = images.of("vhdx", "dynamic");
    let ran = run(&["image", "info", text(&path), "--limits", "table-bytes=1K"]);
    assert_eq!(ran.code, 3, "{}", ran.out);
    let raw = images.at("disk.raw");
    let ran = run(&["image", "map", text(&raw), "--limits", "disk-bytes=1M"]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err.contains("more than the 1048576 allowed"),
        "{}",
        ran.err
    );
    assert_eq!(
        run(&[
            "image",
            "map",
            text(&raw),
            "--limits",
            "disk-bytes=20M,chain=1"
        ])
        .code,
        0
    );
    let ran = run(&["image", "map", text(&raw), "--limits", "memory=1G"]);
    assert_eq!(ran.code, 1);
    for name in [
        "table-bytes",
        "text-bytes",
        "file-bytes",
        "chain",
        "entries",
        "disk-bytes",
    ] {
        assert!(ran.err.contains(name), "{}", ran.err);
    }
}

#[test]
fn what_an_image_says_does_not_steer_the_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.vmdk");
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\nRW 0 ZERO\nddb.comment = \"\u{1b}[31mred\"\n";
    std::fs::write(&path, descriptor).expect("written");
    for command in ["info", "check", "map"] {
        let ran = run(&["image", command, text(&path)]);
        assert!(
            !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
            "{command}: {}",
            ran.out
        );
    }
}

#[test]
fn a_raw_disk_into_which_a_guest_wrote_another_header_is_raw_when_that_is_said() {
    let images = Images::new();
    let disguised = images.of("qcow2", "v3");
    let bytes = std::fs::read(&disguised).expect("there");
    let out = images.at("out.raw");
    let convert = [
        "image",
        "convert",
        text(&disguised),
        text(&out),
        "--to",
        "raw",
    ];
    data(&[&convert[..], &["--raw"]].concat());
    assert!(std::fs::read(&out).expect("written") == bytes);
    data(&[&convert[..], &["--force"]].concat());
    assert!(std::fs::read(&out).expect("written") != bytes);
    let child = images.at("child.qcow2");
    create_child(&child, "qcow2", &disguised, &["--raw"]).data();
    let beneath = ["--allow-beneath", text(images.folder.path())];
    let said = data(&[&["image", "info", text(&child)], &beneath[..]].concat());
    assert!(said.contains("backing_format                raw"), "{said}");
}
