//! Tables of a qcow2 in places that cannot be theirs: what the guest reads, and what a repair makes of them.

use crate::common::{assert_same, have_qemu_img, try_qemu_img};
use crate::qcow2::sparse;
use crate::qcow2_layers::Files;
use crate::qcow2_repair::{crash_safe, passes_qemu_img};
use crate::qcow2_rules::{CLUSTER, Made, SIZE, add_snapshot, made, open, places, put, put32, word};
use drylab_block::{Limits, ReadAt, SparseBytes};
use drylab_image::{Qcow2DataFile, Qcow2Layers, Work, write_qcow2_layers};
use std::sync::Arc;

#[test]
fn a_refcount_table_that_is_said_to_stand_over_other_things_hides_nothing_and_is_made_anew() {
    let disk = sparse(SIZE).disk();
    let none = Files([].into());
    for kind in [Made::V3, Made::V2, Made::Packed, Made::Extended] {
        let sound = made(kind);
        let places = places(&sound);
        for (place, clusters, code, is_seen) in [
            (0, 1, "QCOW2-OVERLAP-REFCOUNTS", true),
            (CLUSTER, 1, "QCOW2-OVERLAP-REFCOUNTS", true),
            (places.l2, 1, "QCOW2-OVERLAP-REFCOUNTS", true),
            (0, 6, "QCOW2-OVERLAP-DATA", true),
            (2 * CLUSTER, 1, "QCOW2-OVERLAP-DATA", false),
            (places.refcounts, 64, "QCOW2-REFCOUNT-TABLE", false),
        ] {
            let file = Arc::new(made(kind));
            put(&file, 48, place);
            put32(&file, 56, clusters);
            let image = open(&file);
            assert_same(&disk, &image);
            let found = image.check().unwrap();
            assert!(
                found.counts().contains_key(code),
                "{place}: {:?}",
                found.list()
            );
            // Who opens strictly is refused where the tables show it.
            let strict = drylab_image::Options {
                damage: drylab_image::Damage::Refuse,
                ..drylab_image::Options::DEFAULT
            };
            let refused = drylab_image::open_as(file.clone(), &strict);
            let refused = refused.map(drop).map_err(|error| error.to_string());
            match is_seen {
                true => assert!(refused.unwrap_err().contains("QCOW2-OVERLAP-REFCOUNTS")),
                false => assert_eq!(refused, Ok(())),
            }
            assert!(image.resize(2 * SIZE).is_err() || code == "QCOW2-REFCOUNT-TABLE");
            let mended = crash_safe(&file, &image.repair().unwrap(), &none, false);
            let left = open(&mended).check().unwrap();
            assert!(left.is_empty(), "{place}: {:?}", left.list());
            assert_same(&disk, &open(&mended));
            passes_qemu_img(&mended, code);
        }
    }
    // Where the table is, an entry that points to it is still wrong.
    let file = made(Made::V3);
    let places = places(&file);
    put(&file, places.l2, 1 << 63 | places.refcounts);
    let error = open(&Arc::new(file)).read_at(0, &mut [0; 512]).unwrap_err();
    assert!(error.to_string().contains("own tables"), "{error}");
}

#[test]
fn refcounts_that_cannot_be_found_hide_nothing_from_the_guest_and_are_made_anew() {
    let disk = sparse(SIZE).disk();
    let none = Files([].into());
    let misplaced: fn(&SparseBytes) = |file| put(file, 48, places(file).refcounts + 8);
    let too_wide: fn(&SparseBytes) = |file| put32(file, 96, 7);
    let both: fn(&SparseBytes) = |file| {
        put(file, 48, u64::MAX);
        put32(file, 96, 1 << 31);
    };
    for (kind, code, breaks) in [
        (Made::V3, "QCOW2-REFCOUNT-ALIGNMENT", misplaced),
        (Made::V2, "QCOW2-REFCOUNT-ALIGNMENT", misplaced),
        (Made::V3, "QCOW2-REFCOUNT-ORDER", too_wide),
        (Made::Packed, "QCOW2-REFCOUNT-ORDER", both),
        (Made::Extended, "QCOW2-REFCOUNT-ALIGNMENT", both),
    ] {
        let file = Arc::new(made(kind));
        breaks(&file);
        let image = open(&file);
        assert_same(&disk, &image);
        assert!(image.info().findings.counts().contains_key(code), "{code}");
        let strict = drylab_image::Options {
            damage: drylab_image::Damage::Refuse,
            ..drylab_image::Options::DEFAULT
        };
        let refused = drylab_image::open_as(file.clone(), &strict).unwrap_err();
        assert!(refused.to_string().contains("QCOW2-REFCOUNT-"), "{refused}");
        let refused = image.resize(2 * SIZE).unwrap_err().to_string();
        assert!(refused.contains("repair it first"), "{refused}");
        if have_qemu_img() {
            let (folder, path) = crate::vhd_steps::on_disk(&crate::vhd_steps::all(&*file));
            let theirs = try_qemu_img(&["info", "-f", "qcow2", path.to_str().unwrap()]);
            assert!(!theirs.status.success(), "{code}");
            drop(folder);
        }
        let mended = crash_safe(&file, &image.repair().unwrap(), &none, false);
        let image = open(&mended);
        let left = image.check().unwrap();
        assert!(left.is_empty(), "{code}: {:?}", left.list());
        assert_eq!(image.info().detail("header.refcount_order"), Some("4"));
        passes_qemu_img(&mended, code);
        // What the old tables took is free now, and the image is one to be written to.
        assert!(image.resize(2 * SIZE).is_ok());
    }
}

/// An image with a data file, and the places of the L1 entries that name a table.
fn with_data_file() -> (SparseBytes, Files, Vec<u64>) {
    let (data, made) = (Arc::new(SparseBytes::default()), SparseBytes::default());
    let layers = Qcow2Layers {
        cluster_bits: 9,
        data_file: Some(Qcow2DataFile {
            sink: &*data,
            name: "data",
            raw: false,
        }),
        ..Qcow2Layers::default()
    };
    write_qcow2_layers(&sparse(SIZE).disk(), &layers, &made, &Work::ALONE).unwrap();
    let files = Files([("data", data as Arc<dyn ReadAt>)].into());
    let l1 = word(&made, 40);
    let entries = (0..96).map(|number| l1 + number * 8);
    let used = entries.filter(|at| word(&made, *at) != 0).collect();
    (made, files, used)
}

#[test]
fn an_l2_table_that_two_places_of_a_disk_in_a_data_file_share_is_made_two() {
    let (made, files, used) = with_data_file();
    let open = |file: &Arc<SparseBytes>| {
        drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap()
    };
    // Whichever of them is first in the table, the one that is right is left as it is.
    for (wrong, right) in [(used[0], used[1]), (used[1], used[0])] {
        let file = crate::qcow2_repair::copy(&made);
        put(&file, wrong, word(&file, right));
        let found = open(&file).check().unwrap();
        let codes = found.counts();
        assert!(codes.contains_key("QCOW2-DATA-OFFSET"), "{codes:?}");
        let plan = open(&file).repair().unwrap();
        let mended = crash_safe(&file, &plan, &files, false);
        let left = open(&mended).check().unwrap();
        assert!(left.is_empty(), "{:?}", left.list());
        assert_eq!(word(&mended, right), word(&made, right));
        assert!(word(&mended, wrong) >= 1 << 63 | made.len());
    }
}

/// With refcounts that are right nothing else would be said of the places that are wrong.
#[test]
fn that_not_every_place_of_a_shared_l2_table_is_looked_at_is_said_and_nothing_is_repaired() {
    let (made, files, used) = with_data_file();
    let l1 = word(&made, 40);
    for number in 0..96 {
        put(&made, l1 + number * 8, word(&made, used[0]));
    }
    let image = drylab_image::open_with(Arc::new(made), &files, &Limits::DEFAULT).unwrap();
    let found = image.check().unwrap();
    let said = found.list().iter();
    let said: Vec<_> = said
        .filter(|finding| finding.rule.code == "QCOW2-TABLES-LEFT")
        .collect();
    assert_eq!(said.len(), 1, "{:?}", found.list());
    assert_eq!((said[0].offset, said[0].length), (l1, 96 * 8));
    let error = image.repair().map(drop).unwrap_err().to_string();
    assert!(
        error.contains("so many L1 entries name one table"),
        "{error}"
    );
}

#[test]
fn a_snapshot_table_that_is_taken_for_an_l2_table_keeps_its_snapshot_through_a_repair() {
    for kind in [Made::V3, Made::V2, Made::Extended] {
        let file = Arc::new(made(kind));
        let disk = sparse(SIZE).disk();
        let table = add_snapshot(&file);
        open(&file).repair().unwrap().apply(&*file).unwrap();
        let kept = |file: &Arc<SparseBytes>| {
            let options = drylab_image::Options {
                snapshot: Some("name"),
                ..drylab_image::Options::DEFAULT
            };
            assert_same(
                &disk,
                &drylab_image::open_as(file.clone(), &options).unwrap(),
            );
        };
        kept(&file);
        // Its first word, the place of the snapshot's L1 table, is an entry: that of guest data in need of a copy.
        put(&file, CLUSTER, table);
        let found = open(&file).check().unwrap();
        for code in ["QCOW2-OVERLAP-L2", "QCOW2-OVERLAP-DATA"] {
            assert!(found.counts().contains_key(code), "{:?}", found.list());
        }
        let plan = open(&file).repair().unwrap();
        for count in 0..=plan.edits().len() {
            let crashed = crate::qcow2_repair::copy(&*file);
            plan.apply_first(count, &*crashed).unwrap();
            kept(&crashed);
        }
        let mended = crash_safe(&file, &plan, &Files([].into()), true);
        let left = open(&mended).check().unwrap();
        let mut left = left.list().iter();
        assert!(left.all(|finding| finding.rule.code == "QCOW2-SNAPSHOTS"));
        passes_qemu_img(&mended, "snapshot table");
    }
}
