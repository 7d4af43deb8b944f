//! What `drylab image` says to those who type something else than it takes: what, why, and what to type instead.

use crate::image_commands::{Images, overwrite};
use crate::support::{create_child, data, drylab, ran, run, text};
use serde_json::Value;
use std::path::Path;

/// What is said on standard error of a command line that ends with that code and prints nothing.
fn refused(code: i32, args: &[&str]) -> String {
    let ran = run(&[&["image"], args].concat());
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (code, ""),
        "{args:?}: {}",
        ran.err
    );
    ran.err
}

fn contains(said: &str, part: &str) {
    assert!(said.contains(part), "{part:?} is not in {said}");
}

#[test]
fn errors_of_a_destination_name_it_and_not_the_source() {
    let images = Images::new();
    let (raw, there) = (images.at("disk.raw"), images.at("there"));
    std::fs::write(&there, b"mine").expect("written");
    let said = refused(3, &["convert", text(&raw), text(&there), "--to", "vdi"]);
    let begins = format!(
        "drylab: failed to write {}: unsupported: it is there",
        there.display()
    );
    assert!(
        said.starts_with(&begins) && !said.contains("disk.raw"),
        "{said}"
    );
    let nowhere = images.at("nope/x");
    let said = refused(3, &["convert", text(&raw), text(&nowhere), "--to", "vdi"]);
    contains(&said, "nope/x: No such file or directory");
    assert!(!said.contains("disk.raw"), "{said}");
}

#[test]
fn errors_of_a_source_name_it_and_say_how_to_learn_more() {
    let images = Images::new();
    let stream = images.of("vmdk", "streamOptimized");
    let middle = std::fs::metadata(&stream).expect("there").len() / 2;
    overwrite(&stream, middle, &[0xaa; 8000]);
    let out = images.at("out");
    let said = refused(3, &["convert", text(&stream), text(&out), "--to", "raw"]);
    let name = text(&stream);
    contains(&said, &format!("out: corrupt: {name}: "));
    contains(
        &said,
        &format!("drylab image check {name} lists what else is wrong"),
    );
}

#[test]
fn a_corpus_that_is_there_stays_and_no_option_is_named_that_there_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = ["corpus", "generate", "--format", "raw", "--seed", "1"];
    let command = [&command[..], &["--out", text(folder.path())]].concat();
    data(&command);
    let ran = run(&command);
    assert_eq!(ran.code, 3);
    contains(&ran.err, "manifest.jsonl: it is there already\n");
    assert!(!ran.err.contains("--force"), "{}", ran.err);
}

#[test]
fn an_image_whose_files_are_not_opened_is_told_as_far_as_it_goes_and_how_to_go_on() {
    let images = Images::new();
    let raw = images.at("disk.raw");
    let flat = images.at("flat.vmdk");
    let kind = ["--to", "vmdk", "--subformat", "monolithicFlat"];
    data(&[&["image", "convert", text(&raw), text(&flat)], &kind[..]].concat());
    let mut all = vec![(
        flat,
        "vmdk monolithicFlat",
        "extent \"flat-flat.vmdk\"".to_owned(),
    )];
    for (to, kind, said) in [
        ("qcow2", "v3", "qcow2 v3"),
        ("vmdk", "monolithicSparse", "vmdk monolithicSparse"),
        ("vhd", "dynamic", "vhd differencing"),
        ("vhdx", "dynamic", "vhdx differencing"),
    ] {
        let base = images.of(to, kind);
        let child = images.at(&format!("child.{to}"));
        create_child(&child, to, &base, &[]).data();
        let name = base.file_name().and_then(|name| name.to_str());
        all.push((child, said, name.expect("UTF-8").to_owned()));
    }
    for (image, said, name) in all {
        let ran = run(&["image", "info", text(&image)]);
        assert_eq!(ran.code, 3);
        contains(
            &ran.out,
            &format!(": {said}\n  virtual size  20971520 bytes (20.0 MiB)\n"),
        );
        contains(&ran.out, &name);
        contains(&ran.out, "is not opened\n");
        contains(&ran.err, "--allow-beneath ");
        let ran = run(&["image", "info", text(&image), "--format", "json"]);
        assert_eq!(ran.code, 3);
        let told: Value = serde_json::from_str(&ran.out).expect("it is JSON");
        assert_eq!(told["image"]["virtual_bytes"], 20_971_520);
        assert_eq!(told["files"], Value::Array(Vec::new()));
        let names = told["not_opened"].as_array().expect("a list");
        assert!(names.iter().any(|file| {
            let file = file["name"].as_str().expect("a name");
            name.contains(file.trim_start_matches("./").trim_start_matches(".\\"))
        }));
    }
}

#[test]
fn a_split_disk_whose_extents_are_not_opened_has_the_size_of_its_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.vmdk");
    let kind = ["--to", "vmdk", "--subformat", "twoGbMaxExtentSparse"];
    data(&[&["image", "create", text(&disk), "5G"], &kind[..]].concat());
    let told = |more: &[&str]| {
        let info = ["image", "info", text(&disk), "--format", "json"];
        let ran = run(&[&info[..], more].concat());
        let said: Value = serde_json::from_str(&ran.out).expect("it is JSON");
        (ran.code, said)
    };
    let beneath = ["--allow-beneath", text(folder.path())];
    let (code, said) = told(&beneath);
    assert_eq!(
        (code, &said["image"]["virtual_bytes"]),
        (0, &(5u64 << 30).into())
    );
    let (code, said) = told(&[]);
    assert_eq!(
        (code, &said["image"]["virtual_bytes"]),
        (3, &(5u64 << 30).into())
    );
    // So is one of which an extent is gone, also where it might be opened.
    std::fs::remove_file(folder.path().join("disk-s002.vmdk")).expect("it was there");
    let (code, said) = told(&beneath);
    assert_eq!(
        (code, &said["image"]["virtual_bytes"]),
        (3, &(5u64 << 30).into())
    );
    assert_eq!(said["not_opened"][0]["name"], "disk-s002.vmdk");
}

#[test]
fn the_folder_that_is_suggested_is_the_images_own_and_only_where_it_has_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let [home, other] = ["home", "other"].map(|name| folder.path().join(name));
    std::fs::create_dir(&home).expect("made");
    std::fs::create_dir(&other).expect("made");
    for (parent, child) in [
        (home.join("a.qcow2"), home.join("on-a.qcow2")),
        (other.join("b.qcow2"), home.join("on-b.qcow2")),
    ] {
        data(&["image", "create", text(&parent), "3M", "--to", "qcow2"]);
        create_child(&child, "qcow2", &parent, &[]).data();
        let ran = run(&["image", "map", text(&child)]);
        match parent.starts_with(&home) {
            true => {
                let (_, suggested) = ran
                    .err
                    .split_once("for instance --allow-beneath ")
                    .expect("it is said");
                let beneath = ["--allow-beneath", suggested.trim_end()];
                data(&[&["image", "map", text(&child)], &beneath[..]].concat());
            }
            // Nothing of a name in an image is to be typed.
            false => contains(&ran.err, "say --allow-beneath with a folder that has it\n"),
        }
    }
}

#[test]
fn what_a_file_below_does_not_find_is_told_as_its_and_leaves_the_size_of_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let [disk, child] = ["disk.vmdk", "child.qcow2"].map(|name| folder.path().join(name));
    let kind = ["--to", "vmdk", "--subformat", "twoGbMaxExtentSparse"];
    data(&[&["image", "create", text(&disk), "5G"], &kind[..]].concat());
    let beneath = ["--allow-beneath", text(folder.path())];
    create_child(&child, "qcow2", &disk, &beneath).data();
    std::fs::remove_file(folder.path().join("disk-s002.vmdk")).expect("it was there");
    let info = ["image", "info", text(&child), "--format", "json"];
    let ran = run(&[&info[..], &beneath].concat());
    let said: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!(
        (ran.code, &said["files"][0]["file"]),
        (3, &text(&disk).into())
    );
    assert_ne!(said["image"]["virtual_bytes"], 0);
    let missing = said["not_opened"].as_array().expect("a list");
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (&missing[0]["name"], &missing[0]["named_by"]),
        (&"disk-s002.vmdk".into(), &text(&disk).into())
    );
}

#[test]
fn options_that_would_be_without_effect_are_refused() {
    let images = Images::new();
    let (raw, out) = (images.at("disk.raw"), images.at("out"));
    let convert = ["convert", text(&raw), text(&out)];
    for (options, says) in [
        (
            &["--to", "qcow2", "--compress", "zstd", "--subformat", "v2"][..],
            "zstd needs qcow2 v3",
        ),
        (&["--to", "qcow2", "--level", "best"], "say --compress"),
        (
            &["--to", "vmdk", "--level", "best"],
            "say --subformat streamOptimized",
        ),
        (
            &["--to", "vhd", "--level", "default"],
            "--level is for what is compressed",
        ),
        (
            &["--to", "vhd", "--compress", "zlib"],
            "--compress is for qcow2",
        ),
    ] {
        contains(&refused(1, &[&convert[..], options].concat()), says);
    }
    assert!(!out.exists());
}

#[test]
fn a_bound_that_is_passed_is_named_with_the_value() {
    let images = Images::new();
    let (raw, out) = (images.at("disk.raw"), images.at("out"));
    let said = refused(3, &["create", text(&out), "8E", "--to", "raw"]);
    contains(
        &said,
        "length of 9223372036854775808 bytes, and a file has at most 9223372036854775807",
    );
    let said = refused(1, &["resize", text(&raw), "-1G", "--shrink"]);
    contains(
        &said,
        "the disk has 20971520 bytes (20.0 MiB), and cannot lose 1073741824 bytes (1.0 GiB)",
    );
    let said = refused(1, &["create", text(&out), "1.5G", "--to", "raw"]);
    contains(&said, "is no size: a whole number");
    let said = refused(1, &["info", text(&raw), "--limits", "chain=1,chain=2"]);
    contains(&said, "\"chain\" is there twice");
    let said = refused(3, &["resize", text(images.folder.path()), "+1M"]);
    contains(&said, "it is a directory, not a file");
}

#[test]
fn habits_of_qemu_img_are_answered_with_what_is_typed_here() {
    for (args, says) in [
        (&["convert", "-O", "qcow2", "a", "b"][..], "--to FORMAT"),
        (&["convert", "-f", "raw", "a", "b"], "told by its content"),
        (
            &["convert", "a", "b", "--to", "vpc"],
            "vpc is called vhd here",
        ),
        (
            &["convert", "a", "b", "--to", "qcow2", "-c"],
            "--compress zlib",
        ),
        (&["create", "-f", "qcow2", "a", "1G"], "--to FORMAT"),
        (&["info", "--output=json", "a"], "--format json"),
        (&["info", "-f", "raw", "a"], "told by its content"),
        (&["check", "-r", "all", "a"], "drylab image repair FILE"),
        (
            &["convert", "-b", "base", "a", "b", "--to", "qcow2"],
            "drylab image create --backing FILE",
        ),
        (
            &["convert", "-f", "raw", "a", "b", "--to", "qcow2"],
            "said as --to FORMAT",
        ),
        (&["rules", "vpc"], "vpc is called vhd here"),
        (&["convert", "a", "b"], "--for <PRODUCT>"),
        (&["create", "a", "1G"], "--for <PRODUCT>"),
    ] {
        let said = refused(1, args);
        contains(&said, says);
        assert!(!said.contains("tip: to pass"), "{said}");
    }
    // Only of images, and only of what qemu-img has.
    let ran = run(&["matrix", "-O", "qcow2"]);
    assert!(ran.code == 1 && !ran.err.contains("--to"), "{}", ran.err);
    contains(
        &refused(1, &["convert", "--frobnicate", "a", "b"]),
        "--frobnicate",
    );
    // What means something else there, or nothing.
    for (args, wrong) in [
        (
            &["convert", "-r", "10M", "a", "b", "--to", "raw"][..],
            "repair",
        ),
        (&["create", "-c", "a", "1G", "--to", "qcow2"], "--compress"),
        (&["repair", "-U", "a"], "in use"),
    ] {
        let said = refused(1, args);
        assert!(!said.contains(wrong), "{said}");
    }
}

#[test]
fn a_vdi_is_a_disk_also_for_inspect_and_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guest = root.join("corpora/guests/centos-6.3/base.qcow2");
    let folder = tempfile::tempdir().expect("a folder");
    let vdi = folder.path().join("disk.vdi");
    data(&[
        "image",
        "convert",
        text(&guest),
        text(&vdi),
        "--to",
        "vdi",
        "--sync",
        "never",
    ]);
    contains(&data(&["inspect", text(&vdi)]), "vdi");
    contains(
        &data(&["check", text(&vdi), "--target", "kvm-centos-6.3"]),
        "kvm-centos-6.3",
    );
}

#[test]
fn help_lists_every_command_and_breaks_no_sentence_by_itself() {
    let help = data(&["--help"]);
    for command in [
        "info", "map", "check", "repair", "resize", "convert", "compare", "create", "rules",
    ] {
        assert!(help.lines().any(|line| line.contains(command)), "{command}");
        let help = drylab(&["image", command, "--help"])
            .env_remove("COLUMNS")
            .output();
        let help = ran(help.expect("the binary starts")).out;
        let (notes, _) = help
            .split_once("\nExamples:\n")
            .expect("there are examples");
        // A short line inside a paragraph is a line end of the source, not of the terminal.
        let lines: Vec<&str> = notes.lines().collect();
        for pair in lines
            .windows(2)
            .filter(|pair| pair.iter().all(|line| !line.starts_with(' ')))
        {
            let [line, next] = [pair[0], pair[1]];
            let word = next.split(' ').next().unwrap_or_default();
            let is_full = line.chars().count() + 1 + word.chars().count() > 100;
            assert!(
                is_full || line.is_empty() || next.is_empty(),
                "{command}: {line}"
            );
        }
    }
    let summary = help
        .split("  image")
        .nth(1)
        .and_then(|rest| rest.split("  corpus").next());
    contains(summary.expect("it is listed"), "rules");
}

#[test]
fn a_destination_that_is_no_file_is_told_what_it_is() {
    let images = Images::new();
    let raw = images.at("disk.raw");
    let link = images.at("link");
    std::os::unix::fs::symlink(images.at("other"), &link).expect("made");
    for (name, says) in [
        (Path::new("-"), "not written to standard output"),
        (&link, "a symbolic link: say the name that it leads to"),
        (images.folder.path(), "a folder: say a name in it"),
        (Path::new("/dev/null"), "a device, pipe or socket"),
    ] {
        let convert = ["convert", text(&raw), text(name), "--to", "vhd", "--force"];
        contains(&refused(3, &convert), says);
    }
}

#[test]
fn commands_of_qemu_img_that_are_not_here_are_told_what_comes_nearest() {
    for (command, says) in [
        ("commit", "drylab image convert SRC DST"),
        ("snapshot", "no snapshot is made"),
        ("measure", "has nothing for it"),
    ] {
        contains(&refused(1, &[command, "disk.qcow2"]), says);
    }
}
