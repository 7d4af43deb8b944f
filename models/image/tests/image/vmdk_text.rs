//! Flaws in the text of a descriptor: what other programs refuse for it is said, and mended where the text can be.

use crate::common::{have_qemu_img, opened, qemu_img};
use crate::vmdk_chain::Files;
use crate::vmdk_damage::{After, bytes_of, damage, disk, file_of, stream, text_changed, truth};
use crate::vmdk_mended::{codes, mended, sparse_of};
use drylab_block::{Limits, Severity};
use drylab_image::{Damage, Image, Options, Plan, open, open_as};
use std::process::Command;

fn sparse() -> Vec<u8> {
    sparse_of(&disk(crate::vmdk_damage::SIZE))
}

/// Whether qemu-img opens the file of that name among some.
fn qemu_opens(files: &Files, name: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    files.save(folder.path());
    let done = Command::new("qemu-img")
        .args(["info", "-f", "vmdk", name])
        .current_dir(folder.path())
        .output();
    done.unwrap().status.success()
}

fn alone(file: &[u8]) -> Files {
    Files::default().with("a.vmdk", file.to_vec())
}

fn text(kind: &str, lines: &str) -> String {
    format!(
        "# Disk DescriptorFile\r\nversion=1\r\nCID=12345678\r\nparentCID=ffffffff\r\ncreateType=\"{kind}\"\r\n{lines}\r\n\
         ddb.adapterType = \"ide\"\r\n"
    )
}

/// Files with another descriptor, as a repair makes it.
fn repaired(files: &Files, image: &Image) -> Files {
    let plan: Plan = image.repair().unwrap();
    let file = file_of(&bytes_of(&*files.0["a.vmdk"]));
    plan.apply(&*file).unwrap();
    files.clone().with("a.vmdk", bytes_of(&*file))
}

#[test]
fn an_embedded_descriptor_without_parentcid_is_found_and_gets_the_line() {
    for file in [sparse(), stream()] {
        let (changed, _) = text_changed(file, "parentCID=", "parentCIX=");
        let code = "VMDK-NO-PARENT-CID";
        let length = changed[512..].iter().position(|byte| *byte == 0).unwrap();
        assert!(!have_qemu_img() || !qemu_opens(&alone(&changed), "a.vmdk"));
        damage(
            "no line",
            &changed,
            code,
            (512, length),
            After::Reads(&truth()),
        );
        let after = String::from_utf8_lossy(&mended(&changed)[512..]).into_owned();
        assert!(after.contains("\nparentCID=ffffffff\nparentCIX=ffffffff\n"));
    }
}

#[test]
fn a_descriptor_file_without_parentcid_is_found_and_gets_the_line_and_its_line_end() {
    let described =
        text("monolithicFlat", "RW 16 FLAT \"b\" 0").replace("parentCID=ffffffff\r\n", "");
    let files = alone(described.as_bytes()).with("b", vec![7; 8192]);
    let image = files.open("a.vmdk").unwrap();
    assert_eq!(crate::vmdk_chain::codes(&image), ["VMDK-NO-PARENT-CID"]);
    let after = repaired(&files, &image);
    let written = String::from_utf8(bytes_of(&*after.0["a.vmdk"])).unwrap();
    assert!(written.contains("\r\nCID=12345678\r\nparentCID=ffffffff\r\ncreateType"));
    let image = after.open("a.vmdk").unwrap();
    assert!(crate::vmdk_chain::codes(&image).is_empty() && bytes_of(&image) == [7; 8192]);
    if have_qemu_img() {
        assert!(!qemu_opens(&files, "a.vmdk") && qemu_opens(&after, "a.vmdk"));
    }
}

#[test]
fn a_descriptor_that_names_a_parent_and_has_no_parentcid_is_refused() {
    let hint = "parentFileNameHint=\"base.vmdk\"";
    let (changed, _) = text_changed(sparse(), "parentCID=ffffffff", hint);
    let error = open(file_of(&changed), &Limits::DEFAULT)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no parentCID") && error.contains("base.vmdk"),
        "{error}"
    );
}

#[test]
fn a_flaw_in_the_words_of_an_embedded_descriptor_is_found_and_mended_by_the_header() {
    let (kind, line) = ("VMDK-CREATE-TYPE", "VMDK-EXTENT-TYPE");
    for (file, right) in [
        (sparse(), "monolithicSparse"),
        (stream(), "streamOptimized"),
    ] {
        for (from, to, code) in [
            (right, "monolithicSparze", kind),
            (right, "", kind),
            (right, &*right.to_uppercase(), kind),
            ("createType", "createTypX", kind),
            ("SPARSE", "SPARZE", line),
            ("SPARSE", "S", line),
        ] {
            let (changed, _) = text_changed(file.clone(), from, to);
            let found = opened(file_of(&changed)).check().unwrap();
            let [finding] = found.list() else {
                panic!("{to}: {found:?}")
            };
            let place = (finding.offset as usize, finding.length as usize);
            assert_eq!(finding.rule.severity, Severity::Warning);
            assert_eq!(opened(file_of(&changed)).subformat(), right, "{to}");
            damage(to, &changed, code, place, After::Reads(&truth()));
            if !to.starts_with("createTyp") {
                assert!(mended(&changed) == file, "{to}");
            }
            assert!(!have_qemu_img() || qemu_opens(&alone(&changed), "a.vmdk"));
        }
    }
}

#[test]
fn an_embedded_descriptor_without_an_extent_line_is_found() {
    let (changed, _) = text_changed(sparse(), "\nRW ", "\nRX ");
    assert_eq!(codes(&changed), ["VMDK-DESCRIPTOR-LINE"]);
    assert!(bytes_of(&opened(file_of(&changed))) == truth());
}

#[test]
fn words_of_another_disk_and_texts_that_lead_elsewhere_are_refused_as_before() {
    let refused = |file: &[u8], why: &str| {
        let error = open(file_of(file), &Limits::DEFAULT)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    };
    for (from, to, why) in [
        ("monolithicSparse", "monolithicFlat", "monolithicFlat"),
        (
            "monolithicSparse",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentSparse",
        ),
        ("monolithicSparse", "partitionedDevice", "partitionedDevice"),
        ("SPARSE", "FLAT", "of type FLAT"),
    ] {
        refused(&text_changed(sparse(), from, to).0, why);
    }
    // What has no first line need not be a descriptor, and a parent is not opened on the word of a flawed text.
    let first = text_changed(sparse(), "createType", "createTypX").0;
    let first = text_changed(first, "# Disk Des", "# Disk Dex").0;
    refused(&first, "no createType");
    let parent = "parentCID=12345678\nparentFileNameHint=\"base.vmdk\"";
    let snapshot = text_changed(sparse(), "parentCID=ffffffff", parent).0;
    for (from, to, why) in [
        ("createType", "createTypX", "no createType"),
        ("SPARSE", "SPARZE", "of type SPARZE"),
        ("monolithicSparse", "monolithicSparze", "monolithicSparze"),
    ] {
        refused(&text_changed(snapshot.clone(), from, to).0, why);
    }
}

#[test]
fn a_text_without_room_for_what_it_lacks_stays_and_the_plan_says_so() {
    let (changed, _) = text_changed(sparse(), "parentCID=ffffffff\n", "");
    let length = changed[512..].iter().position(|byte| *byte == 0).unwrap();
    let mut full = changed.clone();
    full[512 + length..21 * 512 - 2].fill(b'\n');
    let image = opened(file_of(&full));
    let plan = image.repair().unwrap();
    assert!(plan.is_empty());
    assert!(
        plan.notes()
            .iter()
            .any(|note| note.contains("no room for the line parentCID"))
    );
}

#[test]
fn a_flat_extent_without_an_offset_is_found_and_gets_it() {
    let lines = "RW 8 FLAT \"b\"\r\nRW 8 VMFS \"c\"\r\nrw\t8  flat   \"d e\"  ";
    let described = text("twoGbMaxExtentFlat", lines);
    let files = alone(described.as_bytes());
    let files = files
        .with("b", vec![7; 4096])
        .with("c", vec![8; 4096])
        .with("d e", vec![9; 4096]);
    let image = files.open("a.vmdk").unwrap();
    let found = image.check().unwrap();
    assert_eq!(found.counts().get("VMDK-EXTENT-OFFSET"), Some(&2));
    assert_eq!(found.counts().len(), 1);
    let after = repaired(&files, &image);
    let written = String::from_utf8(bytes_of(&*after.0["a.vmdk"])).unwrap();
    assert!(
        written.contains("RW 8 FLAT \"b\" 0\r\nRW 8 VMFS \"c\"\r\nrw\t8  flat   \"d e\" 0  \r\n")
    );
    let again = after.open("a.vmdk").unwrap();
    assert!(crate::vmdk_chain::codes(&again).is_empty());
    assert!(bytes_of(&again) == bytes_of(&image));
    if have_qemu_img() {
        let one =
            |line: &str| alone(text("monolithicFlat", line).as_bytes()).with("b", vec![7; 4096]);
        assert!(!qemu_opens(&one("RW 8 FLAT \"b\""), "a.vmdk"));
        assert!(qemu_opens(&one("RW 8 FLAT \"b\" 0"), "a.vmdk"));
    }
}

#[track_caller]
fn overlap(files: &Files, places: &[&str]) {
    let image = files.open("a.vmdk").unwrap();
    let found = image.check().unwrap();
    let all: Vec<_> = found
        .list()
        .iter()
        .filter(|one| one.rule.code == "VMDK-EXTENT-OVERLAP")
        .collect();
    assert_eq!(all.len(), places.len(), "{found:?}");
    for (finding, place) in all.iter().zip(places) {
        assert!(finding.message().contains(place), "{}", finding.message());
    }
    let strict = Options {
        resolver: files,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let file = files.0["a.vmdk"].clone();
    assert_eq!(open_as(file, &strict).is_err(), !places.is_empty());
    assert!(image.repair().unwrap().is_empty());
}

#[test]
fn extents_on_the_same_bytes_of_a_file_are_found() {
    let flat = |lines: &str| {
        let files = alone(text("twoGbMaxExtentFlat", lines).as_bytes());
        files
            .with("b", vec![7; 4096 * 512])
            .with("c", vec![7; 4096 * 512])
    };
    let half = "RW 2048 FLAT \"b\" 0\nRW 2048 FLAT \"b\" 1024";
    overlap(
        &flat(half),
        &["extent line 1 is bytes 524288 to 1048576 of \"b\", which extent 0 has, too"],
    );
    // The first reaches over both others, which do not meet.
    let over = "RW 9 FLAT \"b\" 0\nRW 1 FLAT \"b\" 2\nRW 1 FLAT \"b\" 4";
    overlap(
        &flat(over),
        &[
            "extent line 1 is bytes 1024 to 1536",
            "extent line 2 is bytes 2048 to 2560",
        ],
    );
    for apart in [
        "RW 8 FLAT \"b\" 8\nRW 8 FLAT \"b\" 0\nRW 0 FLAT \"b\" 4\nRW 8 ZERO",
        "RW 8 FLAT \"b\" 0\nRW 8 FLAT \"c\" 0",
    ] {
        overlap(&flat(apart), &[]);
    }
}

#[test]
fn a_sparse_extent_that_two_lines_name_is_found() {
    let described = text(
        "twoGbMaxExtentSparse",
        "RW 586 SPARSE \"b\"\nRW 586 SPARSE \"b\"",
    );
    let files = alone(described.as_bytes()).with("b", sparse());
    overlap(&files, &["extent line 1 is \"b\", which extent 0 has, too"]);
    if have_qemu_img() {
        let folder = tempfile::tempdir().unwrap();
        files.save(folder.path());
        let path = folder.path().join("a.vmdk");
        // Why it must be said here.
        assert!(qemu_img(&["check", "-f", "vmdk", path.to_str().unwrap()]).contains("No errors"));
    }
}
