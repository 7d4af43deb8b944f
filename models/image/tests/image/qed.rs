//! QED: read, checked, and its backing file opened as it says.

use crate::common::{
    Folder, OnDisk, assert_same, changeable, have_qemu_img, qemu_img, try_qemu_img,
};
use crate::qcow2::{Whole, raw_file, sparse};
use crate::qcow2_check::{open, text};
use crate::qcow2_layers::Files;
use crate::qcow2_sizes::SIZES;
use drylab_block::{Limits, ReadAt, WriteAt, le_u32, le_u64};
use drylab_image::{Findings, Format, Image, fuzz};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const CLUSTER: usize = 4096;

/// Header, L1 table, one L2 table, two clusters and one that nothing names; with room for a backing file's name.
pub(crate) fn tiny(features: u64, backing: &str) -> Vec<u8> {
    let mut file = b"QED\0".to_vec();
    for field in [CLUSTER as u32, 1, 1] {
        file.extend(field.to_le_bytes());
    }
    for field in [features, 0, 0, CLUSTER as u64, 40_960] {
        file.extend(field.to_le_bytes());
    }
    file.extend(64u32.to_le_bytes());
    file.extend((backing.len() as u32).to_le_bytes());
    file.extend(backing.as_bytes());
    file.resize(CLUSTER, 0);
    file.extend((2 * CLUSTER as u64).to_le_bytes());
    file.resize(2 * CLUSTER, 0);
    for entry in [3 * CLUSTER as u64, 1, 0, 4 * CLUSTER as u64] {
        file.extend(entry.to_le_bytes());
    }
    file.resize(3 * CLUSTER, 0);
    file.extend([0x11; CLUSTER]);
    file.extend([0x22; CLUSTER]);
    file
}

fn opened(bytes: Vec<u8>) -> drylab_block::Result<Image> {
    let base: Arc<dyn ReadAt> = Arc::new(vec![0x33u8; 3 * CLUSTER]);
    let files = Files([("base", base)].into());
    drylab_image::open_with(Arc::new(bytes), &files, &Limits::DEFAULT)
}

fn with(mut bytes: Vec<u8>, at: usize, value: u64) -> Vec<u8> {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn entries_are_bytes_zeros_or_the_backing_files() {
    for (features, below) in [(0, 0), (5, 0x33)] {
        let image = opened(tiny(features, "base")).unwrap();
        assert_eq!(
            (image.format(), image.virtual_size()),
            (Format::Qed, 40_960)
        );
        let byte = |cluster: usize| {
            let mut bytes = [9; 10];
            image
                .read_at((cluster * CLUSTER) as u64 + 7, &mut bytes)
                .unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            bytes[0]
        };
        // Behind the end of the backing file there are zeros.
        assert_eq!([0, 1, 2, 3, 4].map(byte), [0x11, 0, below, 0x22, 0]);
        assert!(image.check().unwrap().is_empty());
        assert!(image.repair().is_err() && image.resize(1 << 20).is_err());
    }
}

#[test]
fn every_rule_that_is_broken_is_found_by_its_code() {
    let cluster = CLUSTER as u64;
    let l2 = 2 * CLUSTER;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("QED-NEED-CHECK", with(tiny(0, ""), 16, 2)),
        ("QED-AUTOCLEAR", with(tiny(0, ""), 32, 8)),
        ("QED-BACKING-FORMAT", tiny(1, "base")),
        ("QED-TABLE", with(tiny(0, ""), CLUSTER, 1 << 40)),
        ("QED-TABLE", with(tiny(0, ""), CLUSTER, 2 * cluster + 512)),
        ("QED-CLUSTER", with(tiny(0, ""), l2, 1 << 40)),
        ("QED-CLUSTER", with(tiny(0, ""), l2, 3 * cluster + 1)),
        ("QED-CLUSTER", with(tiny(0, ""), l2, 0x200)),
        ("QED-CUT", tiny(0, "")[..5 * CLUSTER - 1].to_vec()),
        ("QED-TABLE", tiny(0, "")[..3 * CLUSTER - 1].to_vec()),
        ("QED-OVERLAP", with(tiny(0, ""), l2, 4 * cluster)),
        ("QED-OVERLAP", with(tiny(0, ""), l2, cluster)),
        ("QED-OVERLAP", with(tiny(0, ""), CLUSTER + 8, 2 * cluster)),
        ("QED-LEAK", with(tiny(0, ""), l2, 0)),
    ];
    for (code, bytes) in &cases {
        let found = opened(bytes.clone()).unwrap().check().unwrap();
        assert!(
            found.counts().contains_key(code),
            "{code}: {:?}",
            found.list()
        );
    }
    let broken: BTreeSet<&str> = cases.iter().map(|(code, _)| *code).collect();
    let all: BTreeSet<&str> = drylab_image::rules()
        .into_iter()
        .map(|rule| rule.code)
        .filter(|code| code.starts_with("QED-"))
        .collect();
    assert_eq!(broken, all);
}

#[test]
fn a_cut_file_is_damaged_exactly_where_bytes_that_the_disk_needs_are_missing() {
    // The disk ends 1024 bytes into the cluster that the file ends with.
    let whole = with(tiny(0, ""), 48, 3 * CLUSTER as u64 + 1024);
    for length in [1usize, 1023, 1024, 4096].map(|more| 4 * CLUSTER + more) {
        let image = opened(whole[..length].to_vec()).unwrap();
        let is_cut = length < 4 * CLUSTER + 1024;
        let found = image.check().unwrap();
        let codes: Vec<&str> = found.counts().keys().copied().collect();
        let expected: &[&str] = if is_cut { &["QED-CUT"] } else { &[] };
        assert_eq!(codes, expected, "{length}");
        let last = image.read_at(3 * CLUSTER as u64, &mut [0; 1024]);
        assert_eq!(last.is_err(), is_cut, "{length}: {last:?}");
    }
    // A table that is cut is one that cannot be read.
    for length in [2 * CLUSTER + 1, 3 * CLUSTER - 1] {
        let image = opened(whole[..length].to_vec()).unwrap();
        assert!(image.check().unwrap().counts().contains_key("QED-TABLE"));
        assert!(image.read_at(0, &mut [0; 512]).is_err());
    }
    let error = opened(whole[..2 * CLUSTER - 1].to_vec()).unwrap_err();
    assert!(error.to_string().contains("QED L1 table"), "{error}");
}

#[test]
fn headers_that_contradict_themselves_are_refused_with_value_and_bound() {
    let field = |at: usize, value: u32| {
        let mut bytes = tiny(0, "");
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let cases = [
        (field(4, 2048), "cluster_size 2048"),
        (field(4, 5000), "cluster_size 5000"),
        (field(8, 3), "table_size 3"),
        (field(8, 32), "table_size 32"),
        (field(12, 0), "header_size 0"),
        (with(tiny(0, ""), 16, 8), "features 0x8"),
        (with(tiny(0, ""), 40, 100), "L1 table at 0x64"),
        (with(tiny(0, ""), 40, 1 << 30), "L1 table"),
        (with(tiny(0, ""), 48, 1 << 60), "virtual size"),
        (with(tiny(0, ""), 48, 1001), "image_size 1001"),
        (tiny(1, &"n".repeat(1024)), "1024 bytes"),
        (tiny(0, "")[..60].to_vec(), "hold no header"),
    ];
    for (bytes, words) in cases {
        let error = opened(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error} lacks {words:?}");
    }
    let unsaid = drylab_image::open(Arc::new(tiny(1, "base")), &Limits::DEFAULT).unwrap_err();
    assert!(unsaid.to_string().contains("backing file"), "{unsaid}");
}

#[test]
fn theirs_is_read_to_equal_bytes_at_every_size() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("a.raw"), folder.path().join("a.qed"));
    for size in SIZES {
        for options in [
            "cluster_size=4k,table_size=16",
            "cluster_size=64k",
            "cluster_size=1M,table_size=2",
        ] {
            let disk = sparse(*size).disk();
            raw_file(&raw, &disk);
            // A table of 16 clusters of 4 KiB describes 256 GiB in all.
            let output = try_qemu_img(&[
                "convert",
                "-O",
                "qed",
                "-o",
                options,
                text(&raw),
                text(&file),
            ]);
            if !output.status.success() {
                assert!(
                    *size > 1 << 40 && options.contains("4k"),
                    "{size} {options}"
                );
                continue;
            }
            let image = open(&file).unwrap();
            assert_same(&disk, &image);
            assert!(
                image.check().unwrap().is_empty(),
                "{:?}",
                image.check().unwrap().list()
            );
        }
    }
}

#[test]
fn children_stand_on_raw_and_on_other_images() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (raw, base, file) = (path("a.raw"), path("base"), path("a.qed"));
    let (parent, child) = (sparse(3 << 20).disk(), sparse(5 << 20).disk());
    raw_file(&raw, &child);
    for format in ["raw", "qed"] {
        raw_file(&path("p.raw"), &parent);
        qemu_img(&["convert", "-O", format, text(&path("p.raw")), text(&base)]);
        qemu_img(&[
            "convert",
            "-O",
            "qed",
            "-B",
            text(&base),
            "-F",
            format,
            text(&raw),
            text(&file),
        ]);
        let whole = Whole(Folder(folder.path().to_owned()));
        let image =
            drylab_image::open_with(Arc::new(OnDisk::open(&file)), &whole, &Limits::DEFAULT)
                .unwrap();
        assert_same(&child, &image);
    }
}

fn their_counts(path: &Path) -> Option<(u64, u64)> {
    let output = try_qemu_img(&["check", "-f", "qed", "--output", "json", text(path)]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let number = |key: &str| said[key].as_u64().unwrap_or(0);
    (number("check-errors") == 0).then(|| (number("leaks"), number("corruptions")))
}

fn our_counts(found: &Findings) -> (u64, u64) {
    let count = |code: &str| found.counts().get(code).copied().unwrap_or(0);
    let leaks = found
        .list()
        .iter()
        .filter(|finding| finding.rule.code == "QED-LEAK");
    let leaks = leaks.map(|finding| finding.length / 4096).sum();
    (
        leaks,
        count("QED-TABLE") + count("QED-CLUSTER") + count("QED-OVERLAP"),
    )
}

#[test]
fn leaks_and_corruptions_are_as_many_as_qemu_img_counts() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("a.raw"), folder.path().join("a.qed"));
    raw_file(&raw, &sparse(2 << 20).disk());
    let whole = folder.path().join("whole.qed");
    qemu_img(&[
        "convert",
        "-O",
        "qed",
        "-o",
        "cluster_size=4k,table_size=2",
        text(&raw),
        text(&whole),
    ]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let damages = prop::collection::vec((0..4u8, any::<u64>()), 1..4);
    runner
        .run(&damages, |damages| {
            std::fs::copy(&whole, &path).unwrap();
            let file = changeable(&path);
            let mut head = [0; 64];
            file.read_at(0, &mut head).unwrap();
            assert_eq!(le_u32(&head, 4), Some(4096));
            let l1 = le_u64(&head, 40).unwrap();
            let mut table = [0; 8];
            file.read_at(l1, &mut table).unwrap();
            let l2 = u64::from_le_bytes(table);
            for (kind, random) in &damages {
                let clusters = file.len() / 4096;
                let (at, value) = match kind {
                    0 => (l2 + random % 500 * 8, 0),
                    1 => (l2 + random % 500 * 8, (random >> 16) % clusters * 4096),
                    2 => (l2 + random % 500 * 8, (random >> 16) % (1 << 24)),
                    _ => (l2 + random % 500 * 8, (clusters + 3) * 4096),
                };
                file.write_at(at, &value.to_le_bytes()).unwrap();
            }
            let found = open(&path).unwrap().check().unwrap();
            if let Some(theirs) = their_counts(&path) {
                prop_assert_eq!(our_counts(&found), theirs, "{:?}", found.list());
            }
            Ok(())
        })
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_valid_image_with_a_few_changed_bytes_never_panics(
        backing in any::<bool>(),
        edits in prop::collection::vec((prop_oneof![3 => 0..64usize, 2 => 4096..4200usize, 2 => 8192..8300usize, 1 => any::<usize>()], any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        let mut bytes = tiny(u64::from(backing), "base");
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::qed(&bytes);
    }
}

#[test]
fn the_fuzzers_files_are_sound_before_they_are_changed() {
    let base: Arc<dyn ReadAt> = Arc::new(vec![0x33u8; 3 * CLUSTER]);
    for kind in 0..16u8 {
        let file = Arc::new(fuzz::qed_file(&[kind]).unwrap());
        let files = Files([("base", base.clone())].into());
        let image = drylab_image::open_with(file, &files, &Limits::DEFAULT).unwrap();
        let tables = if kind & 1 == 0 { 1 } else { 2 };
        assert_eq!(image.virtual_size(), tables * (2 << 20) + 40_960);
        let found = image.check().unwrap();
        let codes: BTreeSet<_> = found.list().iter().map(|one| one.rule.code).collect();
        let mut expected = BTreeSet::new();
        if kind & 0b0100 != 0 {
            expected.insert("QED-NEED-CHECK");
        }
        if kind & 0b1010 == 0b0010 {
            expected.insert("QED-BACKING-FORMAT");
        }
        assert_eq!(codes, expected, "{kind:#b}");
        let mut bytes = [0; 4];
        image.read_at(3 * CLUSTER as u64, &mut bytes).unwrap();
        assert_eq!(bytes, [0x22; 4]);
    }
}
