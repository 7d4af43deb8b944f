//! Where a file says two things: which of them counts, and what a repair leaves alone because nothing tells.

use crate::common::{Kind, Piece, Plan, opened};
use crate::vmdk_damage::{
    After, SIZE, bytes_of, damage, disk, file_of, text_changed, truth, with, without,
};
use crate::vmdk_mended::{codes, led, mended, sparse_of};
use drylab_block::{ReadAt, Result, SparseBytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sectors of a disk of three grain tables.
const LARGE: u64 = (66 << 20) / 512;

fn large() -> Vec<u8> {
    sparse_of(&disk(LARGE * 512))
}

fn capacity(file: &[u8], sectors: u64) -> Vec<u8> {
    with(file.to_vec(), &[(12, &sectors.to_le_bytes())])
}

fn line(file: &[u8], from: u64, to: u64) -> Vec<u8> {
    let words = |sectors: u64| format!("RW {sectors} SPARSE");
    text_changed(file.to_vec(), &words(from), &words(to)).0
}

/// Codes of what is found, with how often.
fn count(file: &[u8], code: &str) -> u64 {
    let found = opened(file_of(file)).check().unwrap();
    found.counts().get(code).copied().unwrap_or(0)
}

#[track_caller]
fn refused(file: &[u8], code: &str, why: &str) {
    let found = codes(file);
    assert!(found.contains(&code), "{found:?}");
    let error = opened(file_of(file)).repair().unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert!(error.contains("nothing is planned"), "{error}");
}

#[test]
fn a_capacity_that_the_tables_deny_is_mended_from_the_descriptor() {
    let (file, whole) = (large(), disk(LARGE * 512));
    let mut truth = vec![0; usize::try_from(LARGE * 512).unwrap()];
    whole.read_at(0, &mut truth).unwrap();
    let wrong = [
        // Fewer tables, and fewer grains of the last one, than there are.
        0,
        1,
        LARGE / 2,
        LARGE - 128,
        // More: zeros behind the last entry; a directory over its tables; one past the end of the file.
        LARGE + 65_536,
        129 * 65_536,
        LARGE | 1 << 30,
        LARGE | 1 << 34,
    ];
    // Without a redundant directory, too.
    for flags in [3, 1] {
        let file = with(file.clone(), &[(8, &[flags])]);
        for sectors in wrong {
            let changed = capacity(&file, sectors);
            let name = format!("{sectors} sectors, flags {flags}");
            if flags == 3 {
                let (code, place) = ("VMDK-EXTENT-SIZE", (12, 8));
                damage(&name, &changed, code, place, After::Reads(&truth));
            }
            assert!(mended(&changed) == file, "{name}");
            // The line alone is mended by the header.
            let changed = line(&file, LARGE, sectors);
            assert_eq!(codes(&changed), ["VMDK-EXTENT-SIZE"], "{name}");
            assert!(mended(&changed) == file, "{name}");
        }
    }
}

#[test]
fn the_bytes_of_the_last_grain_tell_its_disk_s_capacity_and_without_them_the_header_counts() {
    let file = sparse_of(&disk(SIZE));
    let sectors = SIZE / 512;
    let changed = capacity(&file, sectors - 1);
    let code = "VMDK-EXTENT-SIZE";
    damage("bytes", &changed, code, (12, 8), After::Reads(&truth()));
    // Zeros of no grain, behind the end.
    let changed = capacity(&file, sectors + 1);
    let mut longer = truth();
    longer.resize(longer.len() + 512, 0);
    let text = String::from_utf8_lossy(&file[512..1024]).into_owned();
    let at = 512 + text.find("RW 586").unwrap() + 3;
    damage("zeros", &changed, code, (at, 3), After::Reads(&longer));
}

#[test]
fn a_directory_over_its_tables_is_found_and_nothing_is_planned() {
    // Both say so: the directories have a sector more, which is the first one of their tables.
    let sectors = 129 * 65_536;
    let file = large();
    let changed = line(&capacity(&file, sectors), LARGE, sectors);
    refused(&changed, "VMDK-GD-OVERLAP", "lies on grain table 0");
    // One directory in the other: 500 tables are four sectors of entries.
    let file = sparse_of(&SparseBytes::new(500 << 25));
    let inside = led(&file, 56) as u64 / 512 + 1;
    let changed = with(file, &[(48, &inside.to_le_bytes())]);
    refused(&changed, "VMDK-GD-OVERLAP", "lies on the other directory");
}

#[test]
fn grains_that_two_tables_name_are_found_each() {
    let file = large();
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].to_vec();
    let twin = file[rgd..rgd + 4].to_vec();
    let same = with(file.clone(), &[(gd + 4, &first), (rgd + 4, &twin)]);
    assert_eq!(count(&same, "VMDK-GT-OVERLAP"), 1);
    // Two of the first table, once for all that name them.
    assert_eq!(count(&same, "VMDK-GRAIN-SHARED"), 2);
    let table = led(&file, gd);
    let code = "VMDK-GRAIN-SHARED";
    damage("same", &same, code, (table, 4), After::Stays);
    damage("same", &same, code, (table + 4, 4), After::Stays);
    let all = with(same, &[(gd + 8, &first), (rgd + 8, &twin)]);
    assert_eq!(count(&all, "VMDK-GRAIN-SHARED"), 2);
    // A table that begins inside another has its last entries as the first ones.
    let piece = |offset| Piece {
        offset,
        length: 5000,
        kind: Kind::Noise(offset),
    };
    let pieces = (0..12).map(|number| piece(number << 20)).collect();
    let plan = Plan {
        size: LARGE * 512,
        pieces,
    };
    let file = with(sparse_of(&plan.disk()), &[(8, &[1])]);
    let (gd, table) = (led(&file, 56), led(&file, led(&file, 56)));
    let inside = (table as u32 / 512 + 1).to_le_bytes();
    let changed = with(file, &[(gd + 4, &inside)]);
    assert_eq!(count(&changed, code), 4);
    for grain in [128, 144, 160, 176] {
        damage(
            "inside",
            &changed,
            code,
            (table + 4 * grain, 4),
            After::Stays,
        );
    }
    assert!(mended(&changed) == changed);
}

#[test]
fn a_table_on_a_grain_costs_neither_of_them() {
    for flags in [1, 3] {
        let file = with(large(), &[(8, &[flags])]);
        let (gd, table) = (led(&file, 56), led(&file, led(&file, 56)));
        let grain = file[table..table + 4].to_vec();
        let changed = with(file, &[(gd + 4, &grain)]);
        let code = "VMDK-GT-OVERLAP";
        damage("table", &changed, code, (gd + 4, 4), After::Stays);
        damage("grain", &changed, code, (table, 4), After::Stays);
        assert!(mended(&changed) == changed, "{flags}");
    }
}

#[test]
fn a_grain_on_a_table_that_has_its_copy_is_given_up_wherever_the_table_is() {
    // A larger disk has its tables behind the grains.
    let grown = file_of(&sparse_of(&disk(SIZE)));
    let size = (40 << 20) + 512;
    let plan = opened(grown.clone()).resize(size).unwrap();
    plan.apply(&*grown).unwrap();
    let mut file = vec![0; usize::try_from(grown.len()).unwrap()];
    grown.read_at(0, &mut file).unwrap();
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].to_vec();
    assert!(led(&file, gd) > 128 * 512);
    // The last grain, of one sector, on the first table.
    let (table, twin) = (led(&file, gd + 4), led(&file, rgd + 4));
    let changed = with(file, &[(table + 512, &first), (twin + 512, &first)]);
    let mut reads = truth();
    reads.resize(usize::try_from(size).unwrap(), 0);
    let (code, place) = ("VMDK-GRAIN-IN-METADATA", (table + 512, 4));
    damage("grown", &changed, code, place, After::Reads(&reads));
}

#[test]
fn a_table_led_onto_its_own_grain_does_not_go_over_its_copy() {
    // Text is no table, and a directory without any is not where it should be. Zeros may be one, and of several tables a
    // single one may be led anywhere.
    for (file, text_tells) in [(sparse_of(&disk(SIZE)), true), (large(), false)] {
        let (gd, table) = (led(&file, 56), led(&file, led(&file, 56)));
        for (entry, is_text) in [(0, true), (4, false)] {
            let grain = file[table + entry..table + entry + 4].to_vec();
            let changed = with(file.clone(), &[(gd, &grain)]);
            if is_text && text_tells {
                let reads = After::Reads(&truth());
                damage("grain", &changed, "VMDK-GD-RANGE", (56, 8), reads);
            } else {
                damage("grain", &changed, "VMDK-GT-OVERLAP", (gd, 4), After::Stays);
                assert!(mended(&changed) == changed);
            }
        }
    }
}

#[test]
fn entries_of_tables_on_each_other_are_mended_when_they_are_no_more() {
    let file = large();
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let (first, second) = (file[gd..gd + 4].to_vec(), file[gd + 4..gd + 8].to_vec());
    let (third, fourth) = (file[rgd..rgd + 4].to_vec(), file[rgd + 4..rgd + 8].to_vec());
    let (table, twin) = (led(&file, gd), led(&file, rgd));
    let changed = with(
        file,
        &[
            (gd + 4, &first),
            (rgd + 4, &third),
            (table + 4, &[0xff; 4]),
            (twin + 4, &[0xff; 4]),
        ],
    );
    let after = mended(&changed);
    assert!(!codes(&after).contains(&"VMDK-GRAIN-RANGE"));
    assert!(after[table..table + 2048] == changed[table..table + 2048]);
    let (gd, rgd) = (led(&after, 56), led(&after, 48));
    let after = with(after, &[(gd + 4, &second), (rgd + 4, &fourth)]);
    assert_eq!(count(&after, "VMDK-GRAIN-RANGE"), 1);
    assert_eq!(codes(&mended(&after)), [""; 0]);
}

#[test]
fn a_descriptor_that_is_said_longer_takes_no_grain() {
    // The stream starts where the area of the descriptor ends.
    let file = crate::vmdk_damage::stream();
    let start = led(&file, 64) as u64 / 512;
    let changed = with(file, &[(36, &(start + 3).to_le_bytes())]);
    let found = codes(&changed);
    assert!(!found.contains(&"VMDK-GRAIN-IN-METADATA"), "{found:?}");
    assert!(bytes_of(&opened(file_of(&mended(&changed)))) == truth());
}

#[test]
fn a_redundant_table_is_not_written_over_with_an_empty_one() {
    let file = sparse_of(&disk(SIZE));
    let table = led(&file, led(&file, 56));
    let changed = with(file.clone(), &[(table, &[0; 20])]);
    refused(&changed, "VMDK-GT-DIFFERS", "grain table 0 has no grains");
    // Where both have some, the table counts.
    let changed = with(file, &[(table, &[0; 4])]);
    let (rgt, code) = (led(&changed, led(&changed, 48)), "VMDK-GT-DIFFERS");
    damage("one", &changed, code, (rgt, 4), After::Reads(&without(0)));
}

#[test]
fn no_second_directory_is_made_while_tables_and_their_copies_contradict_each_other() {
    let file = large();
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].to_vec();
    let twin = file[rgd..rgd + 4].to_vec();
    // The first table is the second one's, too, and its redundant one the third one's.
    let changed = with(file, &[(gd + 4, &first), (rgd + 8, &twin)]);
    refused(&changed, "VMDK-RGD-OVERLAP", "which of them is right");
}

#[test]
fn a_footer_of_another_capacity_than_header_and_descriptor_does_not_count() {
    let file = crate::vmdk_damage::stream();
    let footer = file.len() - 1024;
    for sectors in [1u64, 585, 587, 1 << 30] {
        let changed = with(file.clone(), &[(footer + 12, &sectors.to_le_bytes())]);
        let (code, place) = ("VMDK-FOOTER-DIFFERS", (footer, 512));
        damage("footer", &changed, code, place, After::Reads(&truth()));
        assert!(mended(&changed) == file, "{sectors}");
    }
}

/// A file that counts the bytes that are read.
struct Counted(Arc<SparseBytes>, AtomicU64);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn a_table_that_all_entries_of_a_directory_name_is_not_read_for_each() {
    let plan = Plan {
        size: 256 << 30,
        pieces: vec![Piece {
            offset: 0,
            length: 5000,
            kind: Kind::Text(1),
        }],
    };
    let file = sparse_of(&plan.disk());
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].repeat(8192);
    // Without a redundant directory, with one of zeros, and with one that leads nowhere.
    for (flags, second) in [(1, 0), (3, 0), (3, 0xff)] {
        let second = vec![second; first.len()];
        let changed = with(file.clone(), &[(8, &[flags]), (gd, &first), (rgd, &second)]);
        let counted = Arc::new(Counted(file_of(&changed), AtomicU64::new(0)));
        let image = opened(counted.clone());
        let directories = 2 * first.len() as u64;
        let read = counted.1.load(Ordering::Relaxed);
        assert!(read < directories + (256 << 10), "{read} to open it");
        let found = image.check().unwrap();
        assert_eq!(found.counts()["VMDK-GT-OVERLAP"], 8191);
        assert_eq!(found.counts()["VMDK-GRAIN-SHARED"], 1);
        let read = counted.1.load(Ordering::Relaxed);
        assert!(read < 8 * directories, "{read} to check it");
    }
}

#[test]
fn a_directory_anywhere_in_the_file_is_mended_from_the_other_or_nothing_is_planned() {
    for disk in [disk(SIZE), disk(66 << 20)] {
        let (file, truth) = (sparse_of(&disk), bytes_of(&disk));
        let sectors = file.len() / 512;
        let mut refused = 0;
        for (place, sector) in [48, 56]
            .into_iter()
            .flat_map(|at| (0..sectors).map(move |s| (at, s)))
        {
            let moved = (sector as u64).to_le_bytes();
            let changed = with(file.clone(), &[(place, &moved)]);
            if changed == file {
                continue;
            }
            let image = opened(file_of(&changed));
            let found = image.check().unwrap();
            assert!(!found.is_empty(), "{place}: sector {sector}");
            let Ok(plan) = image.repair() else {
                refused += 1;
                continue;
            };
            let after = file_of(&changed);
            plan.apply(&*after).unwrap();
            let reads = bytes_of(&opened(after));
            assert!(
                reads == truth,
                "{place}: sector {sector}: {:?}",
                found.list()
            );
        }
        assert!(refused * 50 < sectors, "{refused} of {sectors} refused");
    }
}

#[test]
fn a_directory_with_one_table_that_was_written_over_is_not_given_up() {
    // Grains in the first and in the nineteenth table; the redundant copy of that was never kept up.
    let text = |offset| Piece {
        offset,
        length: 5000,
        kind: Kind::Text(4),
    };
    let plan = Plan {
        size: 1 << 30,
        pieces: vec![text(0), text(18 * (32 << 20))],
    };
    let file = sparse_of(&plan.disk());
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let (first, copy) = (led(&file, gd), led(&file, rgd + 18 * 4));
    let changed = with(file, &[(first, &[0xff; 64]), (copy, &[0; 2048])]);
    assert!(!codes(&changed).contains(&"VMDK-GD-RANGE"));
    let mut now = vec![0; 5000];
    let mut was = now.clone();
    let image = opened(file_of(&changed));
    image.read_at(18 * (32 << 20), &mut now).unwrap();
    plan.disk().read_at(18 * (32 << 20), &mut was).unwrap();
    assert!(now == was);
}

#[test]
fn what_fuzzing_found_in_the_repair_of_a_vmdk_is_mended() {
    // A text that grew over what stood behind it, an extent line that is none, one with a space that is one in one encoding
    // only, a table that is the descriptor's when the redundant directory in front of it is given up, a directory on a table that changes,
    // a text without parentCID and without room for it, a stream whose last part of a sector is no beginning of its end, one
    // without a footer and with a grain that says more bytes than a grain can have, a text that grew over the NUL behind it.
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../corpora/fuzz/vmdk_repair"
    );
    for name in [
        "text-behind-the-text",
        "odd-extent-line",
        "odd-space",
        "directory-beside-the-descriptor",
        "directory-on-a-table",
        "no-room-for-a-parent-line",
        "text-in-the-last-sector",
        "grain-too-long",
        "text-over-its-nul",
    ] {
        let bytes = std::fs::read(format!("{corpus}/{name}")).unwrap();
        drylab_image::fuzz::vmdk_repair(&bytes);
    }
}
