//! `drylab image create`: empty images, and images that stand on others.

use crate::image_commands::Images;
use crate::support::{create_child, data, have, json, keys, run, text};

#[test]
fn empty_images_of_every_kind_are_made_without_their_size_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, (format, kind, size)) in [
        ("raw", "", 1u64 << 40),
        ("vmdk", "monolithicSparse", 1 << 40),
        ("vmdk", "streamOptimized", 1 << 40),
        ("vhd", "dynamic", 2040 << 30),
        ("vhd", "fixed", 1 << 40),
        ("vhdx", "dynamic", 64 << 40),
        ("vhdx", "fixed", 1 << 40),
        ("vdi", "dynamic", 1 << 40),
        ("vdi", "fixed", 1 << 40),
        ("qcow2", "v3", 64 << 40),
        ("qcow2", "v2", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{number}.image"));
        let size_text = size.to_string();
        let mut args = vec![
            "image",
            "create",
            text(&path),
            &size_text,
            "--to",
            format,
            "--sync",
            "never",
        ];
        if !kind.is_empty() {
            args.extend(["--subformat", kind]);
        }
        data(&args);
        let said = json(&["image", "info", text(&path), "--format", "json"]);
        let image = &said["image"];
        assert_eq!(
            (
                &image["format"],
                &image["subformat"],
                &image["virtual_bytes"]
            ),
            (&format.into(), &kind.into(), &size.into())
        );
        // What was just written breaks no rule, not one that makes a program refuse it either.
        let ran = run(&["image", "check", text(&path), "--strict"]);
        assert_eq!(ran.code, 0, "{format} {kind}: {}", ran.out);
        let refused = run(&args);
        assert_eq!(refused.code, 3, "a file that is there stays");
        std::fs::remove_file(&path).expect("removed");
    }
    let path = folder.path().join("too-large");
    let ran = run(&["image", "create", text(&path), "3T", "--to", "vhd"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("2040 GiB"), "{}", ran.err);
    assert!(!path.exists());
    for wrong in [
        &["1.5G", "--to", "vhd"][..],
        &["--to", "vhd"],
        &["1G"],
        &["1G", "--to", "vhd", "--subformat", "v2"],
    ] {
        let ran = run(&[&["image", "create", text(&path)], wrong].concat());
        assert_eq!(ran.code, 1, "{wrong:?}: {}", ran.err);
    }
}

#[test]
fn what_was_just_written_has_no_finding_that_a_strict_check_minds() {
    let images = Images::new();
    let kinds = [
        ("raw", &[][..]),
        (
            "vmdk",
            &[
                "monolithicSparse",
                "streamOptimized",
                "monolithicFlat",
                "twoGbMaxExtentSparse",
                "twoGbMaxExtentFlat",
                "vmfs",
            ],
        ),
        ("vhd", &["dynamic", "fixed"]),
        ("vhdx", &["dynamic", "fixed"]),
        ("vdi", &["dynamic", "fixed"]),
        ("qcow2", &["v3", "v2"]),
    ];
    let mut all: Vec<Vec<&str>> = Vec::new();
    for (format, kinds) in kinds {
        all.push(vec!["--to", format]);
        let of = |kind: &&'static str| vec!["--to", format, "--subformat", *kind];
        all.extend(kinds.iter().map(of));
    }
    let products = ["azure", "esxi", "hyperv-2008r2", "libvirt", "xenserver"];
    all.extend(products.map(|product| vec!["--for", product]));
    let source = images.at("disk.raw");
    for (number, args) in all.iter().enumerate() {
        let path = images.at(&format!("{number}.image"));
        let written = [
            vec!["image", "convert", text(&source), text(&path)],
            // 77 sectors more than a MiB: of no geometry.
            vec!["image", "create", text(&path), "1088000"],
        ];
        for command in written {
            data(&[&command[..], args, &["--sync", "never"]].concat());
            let folder = text(images.folder.path());
            let check = [
                "image",
                "check",
                text(&path),
                "--strict",
                "--format",
                "json",
            ];
            let ran = run(&[&check[..], &["--allow-beneath", folder]].concat());
            assert_eq!(ran.code, 0, "{command:?} {args:?}: {}", ran.out);
            assert!(ran.out.contains("\"damaged\": false"), "{}", ran.out);
            for entry in std::fs::read_dir(folder).expect("there") {
                let made = entry.expect("there").path();
                let name = made.file_name().and_then(|name| name.to_str());
                if name.is_some_and(|name| name.starts_with(&format!("{number}"))) {
                    std::fs::remove_file(&made).expect("removed");
                }
            }
        }
    }
}

#[test]
fn a_child_reads_as_its_parent_and_finds_it_beneath_the_folder_only() {
    let images = Images::new();
    for (format, kind) in [
        ("vhd", "dynamic"),
        ("vhdx", "dynamic"),
        ("qcow2", "v3"),
        ("vmdk", "monolithicSparse"),
    ] {
        let base = images.of(format, kind);
        let names = [1, 2].map(|number| images.at(&format!("child{number}.{format}")));
        for child in &names {
            create_child(child, format, &base, &[]).data();
        }
        let child = &names[0];
        let refused = run(&["image", "info", text(child)]);
        assert_eq!(refused.code, 3);
        assert!(refused.err.contains("--allow-beneath"), "{}", refused.err);
        let beneath = ["--allow-beneath", text(images.folder.path())];
        let compare = ["image", "compare", text(child), text(&base), "--strict"];
        assert_eq!(run(&[&compare[..], &beneath].concat()).code, 0);
        let info = ["image", "info", text(child), "--format", "json"];
        let said = json(&[&info[..], &beneath].concat());
        let made = if format.starts_with("vhd") {
            "differencing"
        } else {
            kind
        };
        assert_eq!(said["image"]["subformat"], made);
        let files = said["files"].as_array().expect("a list");
        assert_eq!(files.len(), 1);
        assert_eq!(
            keys(&files[0]),
            [
                "allocated_bytes",
                "file",
                "file_bytes",
                "format",
                "kind",
                "name",
                "named_by"
            ]
        );
        assert_eq!(
            (&files[0]["file"], &files[0]["format"]),
            (&text(&base).into(), &format.into())
        );
        let map = ["image", "map", text(child), "--format", "json"];
        let said = json(&[&map[..], &beneath].concat());
        let ranges = said["ranges"].as_array().expect("a list");
        assert!(
            ranges.iter().any(|range| range["file"] == text(&base)),
            "{said}"
        );
        let check = ["image", "check", text(child)];
        let ran = run(&[&check[..], &beneath].concat());
        assert_eq!(ran.code, 0, "{}", ran.out);
        // A larger child of a child, and two children of one parent are two disks.
        let larger = images.at(&format!("larger.{format}"));
        let more = [&["30M"], &beneath[..]].concat();
        create_child(&larger, format, child, &more).data();
        let compare = ["image", "compare", text(&larger), text(&base)];
        assert_eq!(run(&[&compare[..], &beneath].concat()).code, 0);
        if format == "vhd" {
            let ids = names.map(|name| {
                let said = json(
                    &[
                        &["image", "info", text(&name), "--format", "json"][..],
                        &beneath,
                    ]
                    .concat(),
                );
                let details = said["details"].as_array().expect("a list").clone();
                details
                    .into_iter()
                    .find(|pair| pair[0] == "uniqueId")
                    .expect("it has one")
            });
            assert_ne!(ids[0], ids[1]);
        }
    }
    let base = images.of("vhd", "dynamic");
    let elsewhere = tempfile::tempdir().expect("a folder");
    for (name, to) in [
        (elsewhere.path().join("child.vhd"), "vhd"),
        (images.at("child.other"), "vhdx"),
        (images.at("child.vmdk"), "vmdk"),
        (base.clone(), "vhd"),
    ] {
        let ran = create_child(&name, to, &base, &["--force"]);
        assert_eq!(ran.code, 1, "{}", ran.err);
    }
}

#[test]
fn a_qcow2_stands_on_any_image_and_qemu_img_reads_it() {
    let images = Images::new();
    let raw = images.at("disk.raw");
    let elsewhere = tempfile::tempdir().expect("a folder");
    for (format, kind) in [
        ("vmdk", "streamOptimized"),
        ("vhd", "dynamic"),
        ("vdi", "dynamic"),
    ] {
        let base = images.of(format, kind);
        for child in [
            images.at(&format!("on-{format}.qcow2")),
            elsewhere.path().join(format),
        ] {
            create_child(&child, "qcow2", &base, &["--subformat", "v2"]).data();
            let compare = ["image", "compare", text(&child), text(&raw), "--strict"];
            let beneath = ["--allow-beneath", text(images.folder.path())];
            let ran = run(&[&compare[..], &beneath].concat());
            assert_eq!(
                (ran.code, ran.err.as_str()),
                (0, ""),
                "{format}: {}",
                ran.out
            );
            assert_eq!(run(&compare).code, 3);
            if have("qemu-img") {
                let compared = std::process::Command::new("qemu-img")
                    .args(["compare", text(&child), text(&raw)])
                    .output();
                assert!(compared.expect("it starts").status.success(), "{format}");
            }
        }
    }
}

#[test]
fn two_empty_disks_are_two_and_one_made_again_is_the_same() {
    let [one, other] = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let make = |folder: &tempfile::TempDir, name: &str, to: &str| {
        let path = folder.path().join(name);
        data(&["image", "create", text(&path), "3M", "--to", to]);
        std::fs::read(path).expect("made")
    };
    for to in ["vdi", "vhd", "vhdx"] {
        let first = make(&one, &format!("first.{to}"), to);
        assert!(first != make(&one, &format!("second.{to}"), to), "{to}");
        assert!(first == make(&other, &format!("first.{to}"), to), "{to}");
    }
}

#[test]
fn a_parent_whose_name_looks_like_a_protocol_is_found_by_qemu() {
    let folder = tempfile::tempdir().expect("a folder");
    for (parent, to) in [("we:ird.qcow2", "qcow2"), ("json:x.vmdk", "vmdk")] {
        let parent = folder.path().join(parent);
        let child = folder.path().join(format!("on-{to}.qcow2"));
        data(&["image", "create", text(&parent), "3M", "--to", to]);
        create_child(&child, "qcow2", &parent, &[]).data();
        let beneath = ["--allow-beneath", text(folder.path())];
        data(&[&["image", "map", text(&child)], &beneath[..]].concat());
        if have("qemu-img") {
            let opened = std::process::Command::new("qemu-img")
                .args(["map", text(&child)])
                .output();
            assert!(opened.expect("it starts").status.success(), "{to}");
        }
    }
}

#[test]
fn a_parent_whose_name_readers_of_the_child_would_cut_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (to, name) in [
        ("vmdk", "a:b"),
        ("vmdk", "a\\b"),
        ("vmdk", "a\"b"),
        ("vhd", "a:b"),
        ("vhd", "a\\b"),
        ("vhd", "a\nb"),
        ("vhdx", "a\\b"),
    ] {
        let [parent, other, child] =
            [name, "b", "child"].map(|name| folder.path().join(format!("{name}.{to}")));
        for file in [&parent, &other] {
            let _ = std::fs::remove_file(file);
            data(&["image", "create", text(file), "3M", "--to", to]);
        }
        let ran = create_child(&child, to, &parent, &[]);
        assert_eq!(ran.code, 1, "{name:?}.{to}: {}", ran.err);
        let says = "with which readers of the child would look for another file";
        assert!(ran.err.contains(says), "{}", ran.err);
        assert!(!child.exists());
    }
}

#[test]
fn a_backing_file_that_is_read_raw_is_told_as_raw_whatever_it_looks_like() {
    let images = Images::new();
    let base = images.of("vhd", "dynamic");
    let [first, second] = ["first", "second"].map(|name| images.at(name));
    create_child(&first, "qcow2", &base, &["--raw"]).data();
    create_child(&second, "qcow2", &base, &[]).data();
    let beneath = ["--allow-beneath", text(images.folder.path())];
    for (child, format) in [(first, "raw"), (second, "vhd")] {
        let info = ["image", "info", text(&child), "--format", "json"];
        let said = json(&[&info[..], &beneath].concat());
        assert_eq!(said["files"][0]["format"], format);
    }
}
