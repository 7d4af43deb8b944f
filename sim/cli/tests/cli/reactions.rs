//! What products do with damaged images: `drylab image check --for` and `drylab check`.

use crate::image_commands::{Images, overwrite};
use crate::support::{data, golden, json, keys, read_at, run, text, write_raw};
use drylab_block::SparseBytes;
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
    for product in ["azure", "esxi", "hyperv-2008r2", "libvirt", "xenserver"] {
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
