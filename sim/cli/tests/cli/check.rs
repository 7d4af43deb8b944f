//! `drylab check` and `drylab inspect` on the golden guests, in any container.

use crate::support::{GUESTS, PRODUCTS, data, golden, have, json, keys, text, write_raw};
use drylab_block::SparseBytes;
use drylab_image::{
    FlatKind, Qcow2Options, Target, VhdOptions, VmdkOptions, flat_descriptor, write,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Findings that come from the guest's bytes, by target.
fn guest_level(path: &Path) -> BTreeMap<String, Vec<Value>> {
    let document = json(&["check", text(path), "--format", "json"]);
    assert_eq!(keys(&document), ["format", "targets"]);
    assert_eq!(document["format"], 1);
    let targets = document["targets"].as_array().expect("a list");
    targets.iter().map(of_target).collect()
}

fn of_target(target: &Value) -> (String, Vec<Value>) {
    assert_eq!(keys(target), ["findings", "score", "target"]);
    let findings = target["findings"].as_array().expect("a list");
    let ranks = ["FAILURE", "WARNING", "UNKNOWN", "SUCCESS"];
    let rank = |score: &Value| {
        ranks
            .iter()
            .position(|rank| score == rank)
            .expect("a score")
    };
    let lowest = findings.iter().map(|finding| rank(&finding["score"])).min();
    assert_eq!(Some(rank(&target["score"])), lowest, "the aggregation rule");
    for finding in findings {
        assert_eq!(
            keys(finding),
            ["evidence", "id", "remedy", "score", "where"]
        );
        assert!(
            !finding["where"].as_str().expect("a text").is_empty(),
            "{finding}"
        );
        assert!(
            !finding["remedy"].as_str().expect("a text").contains('\n'),
            "{finding}"
        );
    }
    let guest = |finding: &&Value| {
        finding["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("guest."))
    };
    let guest: Vec<Value> = findings.iter().filter(guest).cloned().collect();
    assert!(!guest.is_empty(), "{target}");
    (target["target"].as_str().expect("a text").to_owned(), guest)
}

/// Facts and findings of an inspection, without those of the container.
fn inside(path: &Path) -> Value {
    let mut document = json(&["inspect", text(path), "--format", "json"]);
    assert_eq!(
        keys(&document),
        ["containers", "facts", "findings", "format"]
    );
    document["facts"].take()
}

#[test]
fn our_containers_of_a_golden_guest_give_the_guest_level_findings_of_the_raw_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    for guest in GUESTS {
        for product in PRODUCTS {
            let disk = golden(guest, product);
            let path =
                |extension: &str| folder.path().join(format!("{guest}-{product}.{extension}"));
            write_raw(disk.as_ref(), &path("raw"));
            let expected = guest_level(&path("raw"));
            assert_eq!(
                expected.keys().map(String::as_str).collect::<Vec<_>>(),
                PRODUCTS
            );
            let facts = inside(&path("raw"));
            for (extension, target) in [
                ("sparse.vmdk", Target::VmdkSparse(VmdkOptions::default())),
                ("stream.vmdk", Target::VmdkStream(VmdkOptions::default())),
                ("qcow2", Target::Qcow2(Qcow2Options::default())),
                ("fixed.vhd", Target::VhdFixed(VhdOptions::default())),
                ("dynamic.vhd", Target::VhdDynamic(VhdOptions::default())),
            ] {
                let sink = SparseBytes::default();
                write(disk.as_ref(), &target, &sink).expect("it is written");
                write_raw(&sink, &path(extension));
                assert_eq!(
                    guest_level(&path(extension)),
                    expected,
                    "{guest} {product} {extension}"
                );
                assert_eq!(
                    inside(&path(extension)),
                    facts,
                    "{guest} {product} {extension}"
                );
            }
            // The raw file is the extent of both.
            for (extension, kind) in [
                ("mono.vmdk", FlatKind::Monolithic),
                ("esx.vmdk", FlatKind::Vmfs),
            ] {
                let options = VmdkOptions {
                    file_name: format!("{guest}-{product}.raw"),
                    ..VmdkOptions::default()
                };
                let text = flat_descriptor(disk.as_ref(), &options, kind).expect("it is written");
                std::fs::write(path(extension), text).expect("it is written");
                assert_eq!(
                    guest_level(&path(extension)),
                    expected,
                    "{guest} {product} {extension}"
                );
                assert_eq!(
                    inside(&path(extension)),
                    facts,
                    "{guest} {product} {extension}"
                );
            }
        }
    }
}

#[test]
fn qemu_img_s_containers_of_a_golden_guest_give_the_guest_level_findings_of_the_raw_disk() {
    if !have("qemu-img") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let forms: [&[&str]; 8] = [
        &["-O", "vmdk"],
        &["-O", "vmdk", "-o", "subformat=monolithicFlat"],
        &["-O", "vpc", "-o", "force_size=on"],
        &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        &["-O", "qcow2"],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-c"],
    ];
    for guest in GUESTS {
        for product in PRODUCTS {
            let raw = folder.path().join(format!("{guest}-{product}.raw"));
            write_raw(golden(guest, product).as_ref(), &raw);
            let (expected, facts) = (guest_level(&raw), inside(&raw));
            for form in forms {
                let theirs = folder.path().join("theirs");
                let mut convert = Command::new("qemu-img");
                convert
                    .args(["convert", "-f", "raw"])
                    .args(form)
                    .args([&raw, &theirs]);
                assert!(convert.status().expect("it starts").success(), "{form:?}");
                assert_eq!(guest_level(&theirs), expected, "{guest} {product} {form:?}");
                assert_eq!(inside(&theirs), facts, "{guest} {product} {form:?}");
                std::fs::remove_file(&theirs).expect("it is there");
            }
        }
    }
}

#[test]
fn a_disk_much_larger_than_memory_is_inspected_without_reading_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.raw");
    write_raw(golden("centos-6.3", "esxi-5.0.0").as_ref(), &path);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("it is there");
    file.set_len(8 << 40)
        .expect("the filesystem has sparse files");
    // 8 TiB would take hours to read, and no more address space than 1 GiB to hold.
    for command in ["check", "inspect"] {
        let typed = format!(
            "ulimit -v 1048576; exec {} {command} {}",
            env!("CARGO_BIN_EXE_drylab"),
            text(&path)
        );
        let ended = Command::new("sh")
            .args(["-c", &typed])
            .output()
            .expect("it starts");
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[test]
fn every_finding_of_a_prediction_names_a_place_and_the_worst_have_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("centos.raw");
    write_raw(golden("centos-6.3", "esxi-5.0.0").as_ref(), &path);
    let document = json(&[
        "check",
        text(&path),
        "--target",
        "kvm-centos-6.3",
        "--format",
        "json",
    ]);
    let target = &document["targets"][0];
    assert_eq!(target["score"], "FAILURE");
    let findings = target["findings"].as_array().expect("a list");
    let address = findings
        .iter()
        .find(|finding| finding["id"] == "guest.ip-address")
        .expect("it is assessed");
    assert_eq!(address["score"], "FAILURE");
    assert!(
        address["where"]
            .as_str()
            .expect("a text")
            .starts_with("/etc/"),
        "{address}"
    );
    assert!(
        address["remedy"]
            .as_str()
            .expect("a text")
            .contains("HWADDR"),
        "{address}"
    );
    let shown = data(&["check", text(&path), "--target", "kvm-centos-6.3"]);
    assert!(
        shown.starts_with("kvm-centos-6.3: FAILURE\n") && shown.contains("GQ01"),
        "{shown}"
    );
}

/// Name, part of the value, part of the place.
type Row = (&'static str, &'static str, &'static str);

#[test]
fn an_inspection_gives_each_fact_with_its_file_and_line_or_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected: [(&str, &[Row]); 3] = [
        (
            "centos-6.3",
            &[
                (
                    "ifcfg-eth0",
                    "HWADDR=",
                    "/etc/sysconfig/network-scripts/ifcfg-eth0:",
                ),
                (
                    "70-persistent-net.rules",
                    "00:0c:29:4f:8e:35",
                    "/etc/udev/rules.d/70-persistent-net.rules:",
                ),
                ("initramfs storage", "mptspi", "/boot/initramfs-"),
                ("/", "/dev/mapper/vg_centos-lv_root", "/etc/fstab:"),
                ("kernel", "2.6.32-279.el6.x86_64", "/boot/vmlinuz-"),
            ],
        ),
        (
            "ubuntu-12.04",
            &[
                (
                    "interfaces",
                    "iface eth0 inet dhcp",
                    "/etc/network/interfaces:",
                ),
                ("loader", "GRUB 2", "/boot/grub/grub.cfg"),
                ("/", "UUID=1f7b9c54", "/etc/fstab:"),
            ],
        ),
        (
            "windows-2008r2",
            &[
                (
                    "intelide",
                    "Start 0 (boot)",
                    "SYSTEM\\ControlSet001\\Services\\intelide",
                ),
                ("system device", "disk 5a3c71e9, byte 105906176", "BCD"),
                (
                    "adapter",
                    "PCI\\VEN_8086&DEV_100F",
                    "SYSTEM\\ControlSet001\\Enum\\PCI\\",
                ),
            ],
        ),
    ];
    for (guest, rows) in expected {
        let path = folder.path().join(guest);
        write_raw(golden(guest, "esxi-5.0.0").as_ref(), &path);
        let facts = inside(&path);
        let facts = facts.as_array().expect("a list");
        let shown = data(&["inspect", text(&path)]);
        for (name, value, place) in rows {
            let holds = |fact: &&Value, key: &str, part: &str| {
                fact[key].as_str().is_some_and(|text| text.contains(part))
            };
            let found = facts.iter().find(|fact| {
                fact["name"]
                    .as_str()
                    .is_some_and(|found| found.eq_ignore_ascii_case(name))
                    && holds(fact, "value", value)
                    && holds(fact, "where", place)
            });
            let fact =
                found.unwrap_or_else(|| panic!("{guest}: {name} {value} at {place} in\n{shown}"));
            assert!(
                shown.contains(fact["where"].as_str().expect("a text")),
                "{fact}"
            );
        }
    }
}
