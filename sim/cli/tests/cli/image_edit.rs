//! `drylab image repair` and `drylab image resize`: what is planned is shown, and written only then.

use crate::support::{data, have, read_at, run, text, write_raw};
use drylab_block::{SparseBytes, WriteAt};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of 16 MiB with data in front and behind, as raw and as an image of `format`.
fn guest(format: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SparseBytes::new(16 << 20);
    for at in [0, 2 << 20, 5 << 20, (16 << 20) - 5000] {
        let bytes: Vec<u8> = (0..5000u64)
            .map(|byte| ((byte + at) % 255) as u8 + 1)
            .collect();
        disk.write_at(at, &bytes).expect("inside");
    }
    let [raw, image] = ["disk.raw", "disk.image"].map(|name| folder.path().join(name));
    write_raw(&disk, &raw);
    data(&["image", "convert", text(&raw), text(&image), "--to", format]);
    (folder, raw, image)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("there");
    file.write_all_at(bytes, offset).expect("written");
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("there")
}

/// Runs with `--format json`; exit code and document.
fn said(args: &[&str]) -> (i32, Value) {
    let ran = run(&[args, &["--format", "json"]].concat());
    let said = serde_json::from_str(&ran.out);
    (
        ran.code,
        said.unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err)),
    )
}

fn codes(said: &Value) -> Vec<String> {
    let counts = said["findings"]["counts"]
        .as_array()
        .expect("a list")
        .iter();
    counts
        .map(|count| count["code"].as_str().expect("a code").to_owned())
        .collect()
}

/// Offset of the end of a file.
fn end(path: &Path) -> u64 {
    std::fs::metadata(path).expect("there").len()
}

/// Damages an image, and holds check, dry run and repair against each other.
fn check_repair(format: &str, code: &str, damage: impl Fn(&Path)) {
    let (folder, raw, image) = guest(format);
    damage(&image);
    let (_, before) = said(&["image", "check", text(&image)]);
    assert!(
        codes(&before).contains(&code.to_owned()),
        "{format}: {before}"
    );
    let damaged = bytes(&image);
    let (exit, plan) = said(&["image", "repair", text(&image), "--dry-run"]);
    assert_eq!((exit, &plan["dry_run"]), (0, &true.into()), "{plan}");
    assert!(bytes(&image) == damaged, "a dry run writes nothing");
    let steps = plan["steps"].as_array().expect("a list");
    assert!(!steps.is_empty(), "{plan}");
    for step in steps.iter().filter(|step| step["step"] == "write") {
        let at = step["changes_at"].as_u64().expect("a place");
        let old = step["old"].as_str().expect("bytes").trim_end_matches('…');
        let found: String = read_at(&image, at.min(end(&image)), old.len() / 2)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Only the first to write there finds what stands there now.
        assert!(old == found || steps.len() > 1, "{step}");
    }
    let listed = data(&["image", "repair", text(&image), "--dry-run"]);
    assert!(
        listed.contains("to be taken") && listed.lines().count() > steps.len(),
        "{listed}"
    );
    let (exit, done) = said(&["image", "repair", text(&image)]);
    assert_eq!((exit, &done["dry_run"]), (0, &false.into()), "{done}");
    assert_eq!(
        done["left"]["worst"]
            .as_str()
            .filter(|worst| *worst == "error"),
        None
    );
    let (exit, after) = said(&["image", "check", text(&image)]);
    assert_eq!(exit, 0, "{after}");
    assert!(!codes(&after).contains(&code.to_owned()), "{after}");
    let equal = run(&["image", "compare", text(&raw), text(&image)]);
    assert_eq!(equal.code, 0, "{format} {code}: {}{}", equal.out, equal.err);
    let (_, again) = said(&["image", "repair", text(&image)]);
    assert_eq!(again["steps"].as_array().map(Vec::len), Some(0), "{again}");
    if have("qemu-img") {
        let theirs = if format == "vhd" { "vpc" } else { format };
        let compared = Command::new("qemu-img")
            .args([
                "compare",
                "-f",
                "raw",
                "-F",
                theirs,
                text(&raw),
                text(&image),
            ])
            .output();
        assert!(
            compared.expect("it starts").status.success(),
            "{format} {code}"
        );
        if format != "vhd" {
            let checked = Command::new("qemu-img")
                .args(["check", "-f", theirs, text(&image)])
                .output();
            let checked = checked.expect("it starts");
            assert!(
                checked.status.success(),
                "{format}: {}",
                String::from_utf8_lossy(&checked.stdout)
            );
        }
    }
    drop(folder);
}

#[test]
fn a_vhd_without_its_footer_gets_it_from_the_copy() {
    check_repair("vhd", "VHD-FOOTER", |image| {
        overwrite(image, end(image) - 512, &[0; 512])
    });
}

#[test]
fn a_vhd_with_a_damaged_copy_gets_it_from_the_footer() {
    check_repair("vhd", "VHD-FOOTER-COPY", |image| {
        overwrite(image, 100, &[0xaa; 8])
    });
}

#[test]
fn a_vhdx_with_a_damaged_region_table_gets_it_from_the_other() {
    check_repair("vhdx", "VHDX-REGION-TABLE", |image| {
        overwrite(image, (192 << 10) + 4, &[0xaa; 4])
    });
}

/// The refcount of the cluster that holds the first data is made 0.
#[test]
fn a_qcow2_whose_refcounts_are_too_low_gets_them_counted_anew() {
    check_repair("qcow2", "QCOW2-REFCOUNT", |image| {
        let word = |at| u64::from_be_bytes(read_at(image, at, 8).try_into().expect("eight"));
        let l2 = word(word(40)) & 0x00ff_ffff_ffff_fe00;
        let data = word(l2) & 0x00ff_ffff_ffff_fe00;
        let block = word(word(48));
        overwrite(image, block + (data >> 16) * 2, &[0, 0]);
    });
}

#[test]
fn a_vmdk_that_was_not_closed_is_closed() {
    check_repair("vmdk", "VMDK-UNCLEAN", |image| overwrite(image, 72, &[1]));
}

#[test]
fn a_block_that_two_entries_share_is_copied_and_the_rest_of_the_plan_is_tried_first() {
    let (_folder, _, image) = guest("vhd");
    // The third entry names the block of the second.
    let entry = read_at(&image, 1536 + 4, 4);
    overwrite(&image, 1536 + 8, &entry);
    let before = run(&[
        "image",
        "convert",
        text(&image),
        text(&image.with_extension("raw2")),
        "--to",
        "raw",
    ]);
    assert_eq!(before.code, 0, "{}", before.err);
    assert!(
        before.out.contains("is damaged; see drylab image check"),
        "{}",
        before.out
    );
    let (exit, done) = said(&["image", "repair", text(&image)]);
    assert_eq!(exit, 0, "{done}");
    let same = run(&[
        "image",
        "compare",
        text(&image),
        text(&image.with_extension("raw2")),
        "--strict",
    ]);
    assert_eq!(same.code, 0, "{}", same.out);
    assert_eq!(run(&["image", "check", text(&image)]).code, 0);
}

#[test]
fn what_cannot_be_mended_is_left_and_told() {
    let (_folder, _, image) = guest("vhd");
    // A fixed size that the BAT is too short for: more entries than it has.
    let sound = bytes(&image);
    let (exit, done) = said(&["image", "repair", text(&image)]);
    assert_eq!((exit, done["steps"].as_array().map(Vec::len)), (0, Some(0)));
    assert!(bytes(&image) == sound);
    let stream = image.with_extension("stream");
    data(&[
        "image",
        "convert",
        text(&image),
        text(&stream),
        "--to",
        "vmdk",
        "--subformat",
        "streamOptimized",
    ]);
    // A grain whose bytes are no deflate stream has lost them.
    let middle = end(&stream) / 2;
    overwrite(&stream, middle, &[0xaa; 2000]);
    let ran = run(&["image", "check", text(&stream)]);
    let repaired = run(&["image", "repair", text(&stream)]);
    assert_eq!(
        ran.code == 0,
        repaired.code == 0,
        "{}{}{}",
        ran.out,
        repaired.out,
        repaired.err
    );
}

#[test]
fn a_file_that_another_program_has_locked_is_left_alone() {
    let (_folder, _, image) = guest("vhd");
    overwrite(&image, 100, &[0xaa; 8]);
    let damaged = bytes(&image);
    let file = File::open(&image).expect("there");
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    rustix::fs::fcntl_lock(&file, shared).expect("locked");
    for args in [
        &["repair", text(&image)][..],
        &["resize", text(&image), "1G"],
    ] {
        let ran = run(&[&["image"], args].concat());
        assert_eq!(ran.code, 3);
        assert!(
            ran.err.contains("another program holds a lock"),
            "{}",
            ran.err
        );
    }
    assert!(bytes(&image) == damaged);
    assert_eq!(run(&["image", "repair", text(&image), "--dry-run"]).code, 0);
}

#[test]
fn disks_grow_and_shrink_and_keep_what_fits() {
    for format in ["raw", "vhd", "vhdx", "vdi", "vmdk", "qcow2"] {
        let (folder, raw, image) = guest(format);
        let before = bytes(&image);
        let (exit, plan) = said(&["image", "resize", text(&image), "+16M", "--dry-run"]);
        assert_eq!(
            (exit, &plan["new_virtual_bytes"]),
            (0, &(32u64 << 20).into()),
            "{format}: {plan}"
        );
        assert!(bytes(&image) == before, "a dry run writes nothing");
        let shown = data(&["image", "resize", text(&image), "32M"]);
        assert!(
            shown.contains("33554432 bytes (32.0 MiB) after 16777216 bytes"),
            "{shown}"
        );
        assert_eq!(
            run(&["image", "compare", text(&raw), text(&image)]).code,
            0,
            "{format}"
        );
        let again = data(&["image", "resize", text(&image), "32M"]);
        assert!(again.contains("nothing to be changed"), "{again}");
        if format != "raw" && have("qemu-img") {
            let theirs = if format == "vhd" { "vpc" } else { format };
            let compared = Command::new("qemu-img")
                .args([
                    "compare",
                    "-f",
                    "raw",
                    "-F",
                    theirs,
                    text(&raw),
                    text(&image),
                ])
                .output();
            assert!(compared.expect("it starts").status.success(), "{format}");
        }
        let grown = bytes(&image);
        for size in ["16M", "-16M"] {
            let ran = run(&["image", "resize", text(&image), size]);
            assert_eq!(ran.code, 1, "{format}");
            assert!(ran.err.contains("--shrink"), "{}", ran.err);
        }
        assert!(bytes(&image) == grown);
        let ran = run(&["image", "resize", text(&image), "-16M", "--shrink"]);
        // A format that cannot shrink says so and leaves the file.
        match ran.code {
            0 => {
                let same = run(&["image", "compare", text(&raw), text(&image), "--strict"]);
                assert_eq!(same.code, 0, "{format}: {}", same.out);
            }
            code => {
                assert_eq!(code, 3, "{format}: {}", ran.err);
                assert!(bytes(&image) == grown, "{format}");
            }
        }
        drop(folder);
    }
}

/// What is compressed is neither touched nor read; `check` and `repair` say that it is damaged.
#[test]
fn an_image_is_resized_whatever_its_compressed_bytes_are_and_repair_says_that_they_are_lost() {
    let (_folder, raw, image) = guest("qcow2");
    let packed = ["--to", "qcow2", "--compress", "zlib", "--force"];
    let convert = ["image", "convert", text(&raw), text(&image)];
    data(&[&convert[..], &packed].concat());
    let word = |at: u64| {
        let bytes = read_at(&image, at, 8).try_into().expect("8 bytes");
        u64::from_be_bytes(bytes)
    };
    // The first entry of the first L2 table.
    let first = word(word(word(0x28)) & 0x00ff_ffff_ffff_fe00);
    assert!(first & 1 << 62 != 0, "it is compressed");
    overwrite(&image, first & ((1 << 54) - 1), &[0xff; 20]);
    let damage = || {
        let (exit, document) = said(&["image", "check", text(&image)]);
        assert_eq!(
            (exit, codes(&document)),
            (5, vec!["QCOW2-PACKED".to_owned()])
        );
    };
    damage();
    for dry_run in [&["--dry-run"][..], &[]] {
        let command = ["image", "resize", text(&image), "64M"];
        let (exit, document) = said(&[&command[..], dry_run].concat());
        assert_eq!(
            (exit, document["new_virtual_bytes"].as_u64()),
            (0, Some(64 << 20))
        );
        damage();
        // Nothing can be mended, and it is not called sound.
        let (exit, document) = said(&[&["image", "repair", text(&image)], dry_run].concat());
        assert_eq!(
            (exit, document["left"]["worst"].as_str()),
            (5, Some("error"))
        );
    }
}

#[test]
fn a_damaged_image_is_not_resized() {
    let (_folder, _, image) = guest("vhd");
    let entry = read_at(&image, 1536 + 4, 4);
    overwrite(&image, 1536 + 8, &entry);
    let damaged = bytes(&image);
    let ran = run(&["image", "resize", text(&image), "1G"]);
    assert_eq!((ran.code, ran.out.as_str()), (5, ""));
    assert!(ran.err.contains("repair it first"), "{}", ran.err);
    let (exit, document) = said(&["image", "resize", text(&image), "1G"]);
    let worst = document["left"]["worst"].as_str();
    assert_eq!((exit, worst), (5, Some("error")), "{document}");
    assert_eq!(document["steps"].as_array().map(Vec::len), Some(0));
    assert_eq!(document["new_virtual_bytes"], document["old_virtual_bytes"]);
    assert!(bytes(&image) == damaged);
    for (size, code) in [("-1T", 1), ("1.5G", 1), ("", 1)] {
        assert_eq!(
            run(&["image", "resize", text(&image), size]).code,
            code,
            "{size}"
        );
    }
}

/// The extents of a split VMDK grow in their own files.
#[test]
fn a_plan_for_several_files_is_carried_out_beneath_the_folder() {
    let (folder, raw, _) = guest("raw");
    let vmdk = folder.path().join("split.vmdk");
    let kind = ["--to", "vmdk", "--subformat", "monolithicFlat"];
    data(&[&["image", "convert", text(&raw), text(&vmdk)], &kind[..]].concat());
    let extent = folder.path().join("split-flat.vmdk");
    let beneath = ["--allow-beneath", text(folder.path())];
    let before = [bytes(&vmdk), bytes(&extent)];
    assert_eq!(run(&["image", "resize", text(&vmdk), "20M"]).code, 3);
    let resize = ["image", "resize", text(&vmdk), "20M"];
    let (exit, plan) = said(&[&resize[..], &beneath, &["--dry-run"]].concat());
    assert_eq!(exit, 0, "{plan}");
    let files: Vec<&str> = plan["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|step| step["file"].as_str())
        .collect();
    assert!(
        files.contains(&text(&extent)) && files.contains(&text(&vmdk)),
        "{files:?}"
    );
    assert!(
        before == [bytes(&vmdk), bytes(&extent)],
        "a dry run writes nothing"
    );
    data(&[&resize[..], &beneath].concat());
    assert_eq!(end(&extent), 20 << 20);
    let compare = ["image", "compare", text(&vmdk), text(&raw)];
    assert_eq!(run(&[&compare[..], &beneath].concat()).code, 0);
}
