//! What products do with damaged images: `drylab image check --for` and `drylab check`.

use crate::image_commands::{Images, overwrite};
use crate::support::{create_child, data, golden, have, json, keys, read_at, run, text, write_raw};
use drylab_block::SparseBytes;
use drylab_image::vhd::Creator;
use drylab_image::{Target, VhdOptions, write};
use serde_json::Value;
use std::path::Path;

/// Turns round a bit of the dynamic header's checksum.
fn spoil_header(vhd: &Path) {
    let at = 512 + 0x24;
    let byte = read_at(vhd, at, 1)[0];
    overwrite(vhd, at, &[byte ^ 1]);
}

#[test]
fn check_for_a_product_lists_what_it_does_with_the_image_and_fails_when_it_minds() {
    let images = Images::new();
    let vhd = images.of("vhd", "dynamic");
    for product in ["hyperv-2008r2", "libvirt", "xenserver"] {
        let ran = run(&["image", "check", text(&vhd), "--for", product]);
        assert_eq!(ran.code, 0, "{product}: {}", ran.out);
        assert!(
            ran.out
                .contains("nothing was found that it is known to refuse")
        );
    }
    spoil_header(&vhd);
    assert_eq!(run(&["image", "check", text(&vhd)]).code, 0, "a warning");
    for (product, minds) in [
        ("hyperv-2008r2", true),
        ("xenserver", true),
        ("libvirt", false),
    ] {
        let ran = run(&["image", "check", text(&vhd), "--for", product]);
        let (code, says) = match minds {
            true => (5, "\n  refuses VHD-HEADER-CHECKSUM: "),
            false => (0, "\n  does not mind, or nobody knows: VHD-HEADER-CHECKSUM"),
        };
        assert_eq!(ran.code, code, "{product}: {}", ran.out);
        assert!(ran.out.contains(says), "{product}: {}", ran.out);
    }
    let ran = run(&[
        "image",
        "check",
        text(&vhd),
        "--for",
        "hyperv-2008r2",
        "--format",
        "json",
    ]);
    let said: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!((ran.code, &said["damaged"]), (5, &Value::Bool(true)));
    assert_eq!(said["for"]["name"], "hyperv-2008r2");
    let row = &said["for"]["reactions"][0];
    assert_eq!(keys(row), ["code", "does", "evidence", "how", "source"]);
    assert_eq!(
        (&row["code"], &row["does"], &row["evidence"]),
        (
            &"VHD-HEADER-CHECKSUM".into(),
            &"refuses".into(),
            &"document".into()
        )
    );
    data(&["image", "repair", text(&vhd)]);
    let ran = run(&["image", "check", text(&vhd), "--for", "hyperv-2008r2"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
}

/// Makes a VDI one that stands on another, with the UUID of its parent: of type 3 (undo) or 4 (differencing).
fn make_child(vdi: &Path, kind: u8) {
    overwrite(vdi, 0x4c, &[kind]);
    overwrite(vdi, 0x1a8, &[7; 32]);
}

#[test]
fn children_that_qemu_refuses_or_reads_without_their_parents_are_told_by_check_for_libvirt() {
    let images = Images::new();
    for (format, says) in [("vhd", "misreads"), ("vhdx", "refuses")] {
        let base = images.of(format, "dynamic");
        let child = images.at(&format!("child.{format}"));
        create_child(&child, format, &base, &[]).data();
        let check = ["image", "check", text(&child), "--for", "libvirt"];
        let beneath = ["--allow-beneath", text(images.folder.path())];
        let ran = run(&[&check[..], &beneath].concat());
        assert_eq!(ran.code, 5, "{format}: {}", ran.out);
        let says = format!("\n  {says} SUBFORMAT: {format} differencing: ");
        assert!(ran.out.contains(&says), "{}", ran.out);
    }
    if !have("qemu-img") {
        return;
    }
    let qemu_img = |args: &[&str]| {
        let mut command = std::process::Command::new("qemu-img");
        command.args(args).output().expect("it starts")
    };
    let [vhd, vhdx, raw] = ["child.vhd", "child.vhdx", "zeros"].map(|name| images.at(name));
    let convert = ["convert", "-f", "vpc", "-O", "raw", text(&vhd), text(&raw)];
    assert!(qemu_img(&convert).status.success());
    let shown = std::fs::read(&raw).expect("written");
    assert!(shown.len() > 1 << 20 && shown.iter().all(|byte| *byte == 0));
    let vdi = images.of("vdi", "dynamic");
    for (image, kind, says) in [
        (&vhdx, 0, "not supported"),
        (&vdi, 3, "non-NULL link UUID"),
        (&vdi, 4, "non-NULL link UUID"),
    ] {
        if kind != 0 {
            make_child(image, kind);
        }
        let ran = qemu_img(&["info", text(image)]);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains(says), "{said}");
    }
}

#[test]
fn check_for_a_product_refuses_what_convert_for_it_would_not_write() {
    let images = Images::new();
    let vhd = images.of("vhd", "dynamic");
    for (product, says) in [
        (
            "azure",
            "\n  refuses SUBFORMAT: vhd dynamic: only a fixed VHD",
        ),
        ("esxi", "\n  refuses FORMAT: vhd: only VMDK is taken"),
    ] {
        let ran = run(&["image", "check", text(&vhd), "--for", product]);
        assert_eq!(ran.code, 5, "{product}: {}", ran.out);
        assert!(ran.out.contains(says), "{product}: {}", ran.out);
    }
    let fixed = images.at("azure.vhd");
    data(&[
        "image",
        "convert",
        text(&vhd),
        text(&fixed),
        "--for",
        "azure",
    ]);
    let ran = run(&["image", "check", text(&fixed), "--for", "azure"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
}

#[test]
fn create_and_convert_for_a_product_refuse_the_sizes_that_check_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let [raw, large, made] =
        ["disk.raw", "large.vmdk", "made.vmdk"].map(|name| folder.path().join(name));
    let file = std::fs::File::create_new(&raw).expect("made");
    file.set_len(3 << 40).expect("sparse");
    let kind = ["--to", "vmdk", "--subformat", "monolithicFlat"];
    data(&[&["image", "create", text(&large), "3T"], &kind[..]].concat());
    let beneath = ["--allow-beneath", text(folder.path()), "--for", "esxi"];
    let check = run(&[&["image", "check", text(&large)], &beneath[..]].concat());
    assert_eq!(check.code, 5, "{}", check.out);
    for command in [
        &["create", text(&made), "3T"][..],
        &["convert", text(&raw), text(&made)],
        &["create", text(&made), "3T", "--subformat", "vmfs"],
    ] {
        let ran = run(&[&["image"], command, &["--for", "esxi"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
        let says = "a disk of 3298534883328 bytes, more than 2199023255040: ESXi 5.0 and 5.1 take";
        for said in [&ran.err, &check.out] {
            assert!(said.contains(says), "{said}");
        }
        assert!(!made.exists());
    }
    // As large as it may be, and what is rounded up for the product is judged as it is written.
    let vhd = folder.path().join("made.vhd");
    for (path, size, product) in [(&made, "2199023255040", "esxi"), (&vhd, "5000192", "azure")] {
        let written = ["image", "create", text(path), size, "--for", product];
        data(&written);
        let ran = run(&["image", "check", text(path), "--for", product]);
        assert_eq!(ran.code, 0, "{}", ran.out);
    }
}

#[test]
fn check_for_azure_goes_by_the_size_that_azure_believes() {
    let folder = tempfile::tempdir().expect("a folder");
    for (bytes, code) in [(10 << 20, 0), ((10 << 20) + 512, 5)] {
        let path = folder.path().join(format!("{bytes}.vhd"));
        // By the geometry, which qemu-img takes of this creator, it is shorter, and no whole number of MiB.
        let target = Target::VhdFixed(VhdOptions {
            creator: Creator::VIRTUAL_PC,
            ..VhdOptions::default()
        });
        let sink = SparseBytes::default();
        write(&SparseBytes::new(bytes), &target, &sink).expect("it is written");
        write_raw(&sink, &path);
        let info = json(&["image", "info", text(&path), "--format", "json"]);
        assert!(
            info["image"]["virtual_bytes"].as_u64() < Some(10 << 20),
            "{info}"
        );
        let ran = run(&["image", "check", text(&path), "--for", "azure"]);
        assert_eq!(ran.code, code, "{}", ran.out);
        assert_eq!(
            ran.out
                .contains(&format!("a disk of {bytes} bytes, no multiple of 1048576")),
            code == 5
        );
    }
}

/// What is predicted of a disk on a product: the score of its import with the place, and all findings.
fn predicted(path: &Path, product: &str) -> (Value, Value) {
    let document = json(&["check", text(path), "--target", product, "--format", "json"]);
    let findings = document["targets"][0]["findings"].clone();
    let import = findings.as_array().and_then(|all| {
        all.iter()
            .find(|finding| finding["id"] == "import.consistency")
    });
    (import.expect("it is assessed").clone(), findings)
}

#[test]
fn a_damaged_disk_is_predicted_to_be_refused_by_those_who_refuse_it_until_it_is_repaired() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("centos.vhd");
    let disk = golden("centos-6.3", "hyperv-2008r2");
    let sink = SparseBytes::default();
    let target = Target::VhdDynamic(VhdOptions::default());
    write(disk.as_ref(), &target, &sink).expect("it is written");
    write_raw(&sink, &path);
    let products = [
        ("hyperv-2008r2", true),
        ("xenserver-6.0.2", true),
        ("kvm-centos-6.3", false),
    ];
    let sound = products.map(|(product, _)| predicted(&path, product));
    spoil_header(&path);
    for ((product, refuses), (_, before)) in products.iter().zip(&sound) {
        let (import, findings) = predicted(&path, product);
        if !refuses {
            assert_eq!(findings, *before, "{product}");
            continue;
        }
        assert_eq!(import["score"], "FAILURE", "{product}: {import}");
        assert_eq!(import["where"], "centos.vhd, byte 548", "{product}");
        let remedy = import["remedy"].as_str().expect("a text");
        assert!(remedy.contains("drylab image repair"), "{remedy}");
        let shown = data(&["check", text(&path), "--target", product]);
        assert!(shown.contains(": VHD-HEADER-CHECKSUM: "), "{shown}");
    }
    data(&["image", "repair", text(&path)]);
    let repaired = products.map(|(product, _)| predicted(&path, product));
    assert_eq!(repaired, sound);
}
