//! The log of a VHDX: replayed in memory when the file is read, and in the file when it is repaired.

use crate::common::{Kind, OnDisk, assert_same, fill, have_qemu_img, qemu_img};
use crate::vhdx_tools::{
    BAT, BLOCKS, Change, Entry, HEADERS, LOG, MIB, bytes, check, codes, copy, dynamic, fixed,
    guest, in_headers, open, passes_qemu, put_log, repaired, set_log_guid, u64_at,
};
use drylab_block::{Error, Limits, ReadAt, Result, SparseBytes, WriteAt};
use proptest::prelude::*;
use std::sync::Arc;

/// The sector of the table with entry 1 set to the place of entry 4, and back to zero.
fn table_sector(file: &dyn ReadAt, to: u64) -> Change {
    let mut sector = bytes(file, BAT, 4096);
    sector[8..16].copy_from_slice(&to.to_le_bytes());
    Change::Sector(BAT, sector)
}

/// A disk of which the log says that block 1 is where block 3 was, and that block 3 is zeros.
fn pending() -> SparseBytes {
    let file = dynamic();
    let mut sector = bytes(&file, BAT, 4096);
    let third = sector[24..32].to_vec();
    sector[8..16].copy_from_slice(&third);
    sector[24..32].fill(0);
    put_log(
        &file,
        0,
        &Entry::new(5, 0, vec![Change::Sector(BAT, sector)]).bytes(),
    );
    set_log_guid(&file);
    file
}

#[test]
fn a_file_is_read_as_its_log_says_and_left_as_it_is() {
    let file = pending();
    let image = open(copy(&file)).unwrap();
    let before = guest(&open(dynamic()).unwrap());
    let after = guest(&image);
    assert_eq!(after[256..512], before[3 * 256..4 * 256]);
    assert!(
        after[3 * 256..4 * 256]
            .iter()
            .all(|page| *page == Some(vec![0; 4096]))
    );
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-LOG-PENDING"]);
    // The place of a block is known, of a sector in the log it is not.
    assert!(image.piece_at(MIB).1.is_some());
    let mended = repaired(&file);
    assert!(check(&mended).is_empty());
    assert_eq!(guest(&open(copy(&mended)).unwrap()), after);
    for header in HEADERS {
        assert_eq!(bytes(&mended, header + 48, 16), [0; 16], "no log any more");
        assert_ne!(
            bytes(&mended, header + 16, 16),
            bytes(&file, header + 16, 16)
        );
        assert_eq!(
            bytes(&mended, header + 32, 16),
            bytes(&file, header + 32, 16)
        );
    }
}

/// What the log of a file is taken for: what entry 1 of the table becomes, or the finding.
fn outcome(file: &SparseBytes) -> Result<u64, Vec<&'static str>> {
    let image = open(copy(file)).unwrap();
    let found = codes(&image.info().findings);
    if found != ["VHDX-LOG-PENDING"] {
        return Err(found);
    }
    let mended = repaired(file);
    Ok(u64_at(&mended, BAT + 8))
}

fn logged(entries: &[(u32, Entry)]) -> SparseBytes {
    let file = dynamic();
    for (sector, entry) in entries {
        put_log(&file, *sector, &entry.bytes());
    }
    set_log_guid(&file);
    file
}

fn to(state: u64) -> Vec<Change> {
    vec![table_sector(&dynamic(), state)]
}

const NONE: Result<u64, &[&str]> = Err(&["VHDX-LOG-NO-SEQUENCE"]);

#[track_caller]
fn comes_to(file: &SparseBytes, expected: Result<u64, &[&'static str]>) {
    assert_eq!(outcome(file), expected.map_err(<[_]>::to_vec));
}

#[test]
fn of_all_sequences_the_one_with_the_greatest_head_is_replayed_from_its_tail_on() {
    // One entry, wherever it stands.
    for sector in [0, 1, 100, 254] {
        comes_to(&logged(&[(sector, Entry::new(1, sector, to(2)))]), Ok(2));
    }
    // Each has two sectors. A row is replayed in its order, from where its last one says.
    let row = [
        (10, Entry::new(7, 10, to(1))),
        (12, Entry::new(8, 10, to(2))),
        (14, Entry::new(9, 12, to(3))),
    ];
    comes_to(&logged(&row), Ok(3));
    comes_to(&logged(&row[..2]), Ok(2));
    // An older sequence before or behind it does not count.
    let mut two = row.to_vec();
    two.push((30, Entry::new(3, 30, to(1))));
    two.push((2, Entry::new(4, 2, to(1))));
    comes_to(&logged(&two), Ok(3));
    two.push((40, Entry::new(100, 40, to(1))));
    comes_to(&logged(&two), Ok(1));
    // A gap in the numbers ends a sequence; what is behind it is one of its own, if it says so.
    let gap = [
        (10, Entry::new(7, 10, to(1))),
        (12, Entry::new(9, 12, to(2))),
    ];
    comes_to(&logged(&gap), Ok(2));
    // A sequence whose tail is not in it is none: it is torn.
    let torn = [
        (10, Entry::new(7, 10, to(1))),
        (12, Entry::new(9, 10, to(2))),
    ];
    comes_to(&logged(&torn), Ok(1));
    comes_to(&logged(&[(12, Entry::new(9, 10, to(2)))]), NONE);
    // A tail in the middle of an entry is none.
    comes_to(&logged(&[(12, Entry::new(9, 13, to(2)))]), NONE);
}

#[test]
fn sequences_and_entries_go_on_at_the_beginning_of_the_ring() {
    for first in [252, 253, 254, 255] {
        let file = dynamic();
        let mut at = first;
        for number in 0..4u64 {
            let entry = Entry::new(50 + number, first, to(number % 4));
            at = put_log(&file, at, &entry.bytes());
        }
        set_log_guid(&file);
        comes_to(&file, Ok(3));
    }
}

/// What is done to the bytes of an entry.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn an_entry_with_any_field_wrong_does_not_count() {
    let good = Entry::new(9, 12, to(2));
    let with = |change: Damage<'_>, sealed: bool| {
        let mut entry = good.bytes();
        change(&mut entry);
        if sealed {
            entry[4..8].fill(0);
            let sum = crc32c::crc32c(&entry);
            entry[4..8].copy_from_slice(&sum.to_le_bytes());
        }
        let file = dynamic();
        put_log(&file, 12, &entry);
        set_log_guid(&file);
        file
    };
    comes_to(&with(&|_| {}, true), Ok(2));
    let changes: [Damage<'_>; 17] = [
        &|e| e[0] = b'L',
        &|e| e[9] = 0x30,                 // EntryLength of three sectors
        &|e| e[8] = 1,                    // not of whole ones
        &|e| e[10] = 0x20,                // longer than the log
        &|e| e[12] = 1,                   // Tail inside a sector
        &|e| e[14] = 0x10,                // behind the log
        &|e| e[16..24].fill(0),           // SequenceNumber 0
        &|e| e[24] = 2,                   // a descriptor more
        &|e| e[24] = 0,                   // one less
        &|e| e[27] = 0x7f,                // very many
        &|e| e[32] ^= 1,                  // another LogGuid
        &|e| e[64] = b'D',                // no descriptor
        &|e| e[64 + 16] = 1,              // FileOffset inside a sector
        &|e| e[64 + 24] ^= 1,             // descriptor of another entry
        &|e| e[4096] = b'D',              // no data sector
        &|e| e[4096 + 4] ^= 1,            // torn in front
        &|e| *e.last_mut().unwrap() ^= 1, // torn behind
    ];
    for (number, change) in changes.iter().enumerate() {
        for sealed in [true, false] {
            assert_eq!(
                outcome(&with(change, sealed)),
                Err(vec!["VHDX-LOG-NO-SEQUENCE"]),
                "change {number}"
            );
        }
    }
    // One bit of the data, which only the checksum sees.
    comes_to(&with(&|e| e[5000] ^= 1, false), NONE);
}

#[test]
fn a_log_writes_neither_headers_nor_itself() {
    for offset in [0, HEADERS[0], HEADERS[1], LOG, LOG + MIB - 4096] {
        let sector = vec![Change::Sector(offset, vec![7; 4096])];
        comes_to(&logged(&[(0, Entry::new(1, 0, sector))]), NONE);
        let zeros = vec![Change::Zeros(offset, 4096)];
        comes_to(&logged(&[(0, Entry::new(1, 0, zeros))]), NONE);
    }
    for (offset, length) in [(BAT, 100), (u64::MAX - 4095, 4096), (BAT, 1 << 62)] {
        let zeros = vec![Change::Zeros(offset, length)];
        comes_to(&logged(&[(0, Entry::new(1, 0, zeros))]), NONE);
    }
}

#[test]
fn a_file_shorter_than_its_log_knows_it_was_cut_and_one_shorter_than_it_must_be_is_lengthened() {
    let file = dynamic();
    let length = file.len();
    let entry = |flushed, last| Entry {
        flushed,
        last,
        ..Entry::new(1, 0, vec![])
    };
    put_log(&file, 0, &entry(length, length + 3 * MIB).bytes());
    set_log_guid(&file);
    assert_eq!(check(&file), ["VHDX-LOG-PENDING"]);
    assert_eq!(repaired(&file).len(), length + 3 * MIB);
    // The last block is behind the end: it is lost, not zeros.
    file.set_len(length - MIB).unwrap();
    let found = check(&file);
    assert_eq!(
        found,
        ["VHDX-BLOCK-LOST", "VHDX-LOG-PENDING", "VHDX-LOG-TRUNCATED"]
    );
    let image = open(copy(&file)).unwrap();
    assert!(image.read_at(9 * MIB, &mut [0; 512]).is_err());
    assert!(image.read_at(8 * MIB, &mut [0; 512]).is_ok());
    let options = drylab_image::Options {
        damage: drylab_image::Damage::Refuse,
        ..drylab_image::Options::DEFAULT
    };
    let refused = drylab_image::open_as(Arc::new(copy(&file)), &options);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("VHDX-LOG-TRUNCATED")
    );
    assert!(check(&repaired(&file)).is_empty());
}

#[test]
fn a_log_that_cannot_be_replayed_is_refused_by_the_strict_and_emptied_by_a_repair() {
    let file = dynamic();
    set_log_guid(&file);
    assert_eq!(check(&file), ["VHDX-LOG-NO-SEQUENCE"]);
    assert!(check(&repaired(&file)).is_empty());
    // Also when it is not where a log may be.
    for (at, new) in [
        (72, u64::MAX),
        (72, 100 * MIB),
        (72, 0),
        (72, MIB + 512),
        (68, 0),
    ] {
        let file = pending();
        let new = new.to_le_bytes();
        in_headers(&file, at, if at == 68 { &new[..4] } else { &new });
        assert_eq!(check(&file), ["VHDX-LOG-NO-SEQUENCE", "VHDX-LOG-PLACE"]);
        assert!(check(&repaired(&file)).is_empty());
    }
    let file = pending();
    in_headers(&file, 64, &[1, 0]);
    let error = open(file).unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported(text) if text.contains("log version 1")),
        "{error}"
    );
    // Without a log to be replayed its version is of no account.
    let file = dynamic();
    in_headers(&file, 64, &[1, 0]);
    assert!(check(&file).is_empty());
}

#[test]
fn an_empty_log_in_a_wrong_place_gets_another() {
    for (at, new) in [
        (72, 3 * MIB),
        (72, 2 * MIB),
        (72, 0),
        (72, 900 * MIB),
        (72, MIB + 4096),
        (68, 2 * MIB),
    ] {
        let file = dynamic();
        let bytes = new.to_le_bytes();
        in_headers(&file, at, if at == 68 { &bytes[..4] } else { &bytes });
        assert_eq!(check(&file), ["VHDX-LOG-PLACE"], "{at} {new}");
        let mended = repaired(&file);
        assert!(check(&mended).is_empty());
        assert_eq!(mended.len(), file.len() + MIB);
        if have_qemu_img() {
            assert!(passes_qemu(&mended));
        }
    }
}

#[test]
fn an_entry_of_many_descriptors_has_several_sectors_of_them() {
    let file = fixed();
    let (mut model, mut changes) = (bytes(&file, BLOCKS, 2 * MIB), Vec::new());
    for number in 0..200usize {
        let at = BLOCKS + number as u64 * 8192;
        if number % 3 == 0 {
            changes.push(Change::Zeros(at, 4096));
            model[number * 8192..][..4096].fill(0);
        } else {
            let data = fill(Kind::Noise(number as u64), 4096);
            model[number * 8192..][..4096].copy_from_slice(&data);
            changes.push(Change::Sector(at, data));
        }
    }
    put_log(&file, 200, &Entry::new(1 << 40, 200, changes).bytes());
    set_log_guid(&file);
    let image = open(copy(&file)).unwrap();
    assert!(bytes(&image, 0, 2 * MIB) == model);
    assert!(image.piece_at(0).1.is_none(), "it is in the log");
    assert!(bytes(&repaired(&file), BLOCKS, 2 * MIB) == model);
}

/// Changes to the first MiB of a fixed disk, one list for each entry.
fn sequences() -> impl Strategy<Value = (Vec<Vec<Change>>, u32, u64, usize)> {
    let change =
        (0..256u64, 1..40u64, any::<u64>(), any::<bool>()).prop_map(|(at, length, seed, zeros)| {
            let offset = BLOCKS + at * 4096;
            if zeros {
                Change::Zeros(offset, length * 4096)
            } else {
                Change::Sector(offset, fill(Kind::Noise(seed), 4096))
            }
        });
    let entries = prop::collection::vec(prop::collection::vec(change, 0..6), 1..12);
    let start = prop_oneof![Just(0u32), 0..256u32, 240..256u32];
    (entries, start, 1..u64::MAX / 2, any::<usize>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_read_through_a_log_is_what_a_replay_leaves_and_what_the_entries_say(
        (entries, start, sequence, tail) in sequences(),
    ) {
        let file = fixed();
        let tail = tail % entries.len();
        // The first entries were applied before; the last one says where the sequence begins.
        let (mut at, mut starts) = (start, Vec::new());
        for changes in &entries {
            starts.push(at);
            at = (at + Entry::new(1, 0, changes.clone()).bytes().len() as u32 / 4096) % 256;
        }
        let mut model = bytes(&file, BLOCKS, 2 * MIB);
        for (number, changes) in entries.iter().enumerate() {
            let entry = Entry {
                flushed: file.len(),
                ..Entry::new(sequence + number as u64, starts[tail.min(number)], changes.clone())
            };
            put_log(&file, starts[number], &entry.bytes());
            for change in changes.iter().filter(|_| number >= tail) {
                match change {
                    Change::Zeros(at, length) => {
                        model[(at - BLOCKS) as usize..][..*length as usize].fill(0);
                    }
                    Change::Sector(at, data) => {
                        model[(at - BLOCKS) as usize..][..4096].copy_from_slice(data);
                    }
                }
            }
        }
        set_log_guid(&file);
        let image = open(copy(&file)).unwrap();
        prop_assert_eq!(codes(&image.info().findings), ["VHDX-LOG-PENDING"]);
        prop_assert!(bytes(&image, 0, 2 * MIB) == model);
        let plan = image.repair().unwrap();
        for count in 0..=plan.edits().len() {
            let crashed = copy(&file);
            plan.apply_first(count, &crashed).unwrap();
            let image = open(crashed).unwrap();
            prop_assert!(bytes(&image, 0, 2 * MIB) == model, "after {} steps", count);
        }
        let mended = copy(&file);
        plan.apply(&mended).unwrap();
        prop_assert!(bytes(&mended, BLOCKS, 2 * MIB) == model);
        prop_assert!(check(&mended).is_empty());
    }
}

/// Five entries of two sectors each, from a sector of the log on, in a fixed disk, and what qemu-img makes of it.
fn theirs(first: u32, path: &std::path::Path) -> (SparseBytes, OnDisk) {
    let (file, mut at) = (fixed(), first);
    for number in 0..5u64 {
        let data = fill(Kind::Noise(number + 1), 4096);
        let changes = vec![
            Change::Zeros(BLOCKS + number * 8192, 12288),
            Change::Sector(BLOCKS + number * 4096, data),
        ];
        let entry = Entry {
            flushed: file.len(),
            last: file.len() + 2 * MIB,
            ..Entry::new(70 + number, first, changes)
        };
        at = put_log(&file, at, &entry.bytes());
    }
    set_log_guid(&file);
    drylab_block::copy_data(&file, &OnDisk::create(path)).unwrap();
    qemu_img(&["check", "-r", "all", "-f", "vhdx", path.to_str().unwrap()]);
    (file, OnDisk::open(path))
}

#[test]
fn qemu_img_replays_the_logs_that_we_do_to_the_same_blocks() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for first in [0, 100, 246] {
        let (file, theirs) = theirs(first, &folder.path().join("theirs.vhdx"));
        let ours = repaired(&file);
        // It leaves the file shorter than LastFileOffset, which section 2.3.3 forbids.
        assert_eq!((ours.len(), theirs.len()), (16 * MIB, 14 * MIB));
        let (ours, theirs) = (bytes(&ours, BLOCKS, MIB), bytes(&theirs, BLOCKS, MIB));
        assert!(ours == theirs, "{first}");
    }
}

#[test]
fn qemu_img_loses_what_stands_before_the_end_of_the_ring_and_we_do_not() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for first in [252, 255] {
        // It takes the entries from sector 0 on for the sequence, though their tail is not among them (2.3.3, step 4).
        let (file, theirs) = theirs(first, &folder.path().join("theirs.vhdx"));
        let ours = bytes(&repaired(&file), BLOCKS, 8192);
        let before = bytes(&fixed(), BLOCKS, 4096);
        assert!(
            bytes(&theirs, BLOCKS, 4096) == before,
            "{first}: 10.0.2 does not replay the first"
        );
        assert!(ours[..4096] == fill(Kind::Noise(1), 4096));
        assert!(ours[4096..] == fill(Kind::Noise(2), 4096));
    }
}

#[test]
fn the_dirty_image_of_qemus_own_tests_reads_as_qemu_img_leaves_it() {
    let name = "qemu__qemu-iotests_sample_images_iotest-dirtylog-10G-4M.vhdx.bz2";
    let Some(kept) = crate::vhdx_qemu::unpacked(name) else {
        return;
    };
    let file = copy(&OnDisk::open(&kept));
    let image = open(copy(&file)).unwrap();
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-LOG-PENDING"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dirty.vhdx");
    std::fs::copy(&kept, &path).unwrap();
    let text = path.to_str().unwrap().to_owned();
    qemu_img(&["check", "-r", "all", "-f", "vhdx", &text]);
    let theirs = drylab_image::open(Arc::new(OnDisk::open(&path)), &Limits::DEFAULT).unwrap();
    assert_same(&image, &theirs);
    let plan = image.repair().unwrap();
    plan.apply(&file).unwrap();
    let mended = open(file).unwrap();
    assert!(mended.check().unwrap().is_empty());
    assert_same(&mended, &theirs);
}

#[test]
fn a_log_costs_one_look_at_each_of_its_sectors_however_it_was_made() {
    // Each sector claims an entry of the whole ring: each is left at the next one.
    let file = dynamic();
    let mut sector = Entry::new(1, 0, vec![]).bytes();
    sector[8..12].copy_from_slice(&(MIB as u32).to_le_bytes());
    sector[24..28].copy_from_slice(&30_000u32.to_le_bytes());
    for number in 0..256 {
        put_log(&file, number, &sector);
    }
    set_log_guid(&file);
    assert_eq!(check(&file), ["VHDX-LOG-NO-SEQUENCE"]);
    // And a log larger than allowed is not read.
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = MIB - 1;
    let error = drylab_image::open(Arc::new(pending()), &limits).unwrap_err();
    assert!(
        error.to_string().contains("VHDX log needs 1048576"),
        "{error}"
    );
}
