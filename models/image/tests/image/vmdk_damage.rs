//! Damage to hosted sparse VMDKs: each kind is found by its code at its place, and mended where data allows, so that a
//! crash at any step leaves a disk that reads as before or as after, and qemu-img finds nothing wrong with the result.

use crate::common::{Kind, Piece, Plan, have_qemu_img, opened, packed, qemu_img};
use drylab_block::{ReadAt, SparseBytes, WriteAt, le_u32};
use drylab_image::{Damage, Image, Options, Repair, Target, VmdkOptions, open_as};
use std::sync::Arc;

pub(crate) const GRAIN: usize = 65_536;
pub(crate) const SIZE: u64 = 300_032;
/// Bytes of the first grain table of the primary and of the redundant grain directory.
const GT: usize = 27 * 512;
const RGT: usize = 22 * 512;

pub(crate) fn disk(size: u64) -> SparseBytes {
    let piece = |offset, kind| Piece {
        offset,
        length: 5000,
        kind,
    };
    let pieces = vec![
        piece(0, Kind::Text(3)),
        piece(100_000, Kind::Noise(9)),
        piece(size - 3000, Kind::Text(7)),
        piece(size / 2, Kind::Noise(5)),
    ];
    let pieces = if size == SIZE {
        pieces[..3].to_vec()
    } else {
        pieces
    };
    Plan { size, pieces }.disk()
}

pub(crate) fn bytes_of(disk: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

fn sparse() -> Vec<u8> {
    bytes_of(&*packed(
        &disk(SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    ))
}

pub(crate) fn stream() -> Vec<u8> {
    bytes_of(&*packed(
        &disk(SIZE),
        &Target::VmdkStream(VmdkOptions::default()),
    ))
}

pub(crate) fn truth() -> Vec<u8> {
    bytes_of(&disk(SIZE))
}

pub(crate) fn with(mut bytes: Vec<u8>, changes: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, new) in changes {
        let end = *at + <[u8]>::len(new);
        bytes[*at..end].copy_from_slice(new);
    }
    bytes
}

/// The same entry in both tables.
fn entry(at: usize, sector: u32) -> Vec<u8> {
    let sector = sector.to_le_bytes();
    with(sparse(), &[(GT + 4 * at, &sector), (RGT + 4 * at, &sector)])
}

/// The truth without a grain.
pub(crate) fn without(grain: usize) -> Vec<u8> {
    let mut bytes = truth();
    let end = bytes.len().min((grain + 1) * GRAIN);
    bytes[grain * GRAIN..end].fill(0);
    bytes
}

pub(crate) fn text_changed(file: Vec<u8>, from: &str, to: &str) -> (Vec<u8>, usize) {
    let area = 20 * 512;
    let text = String::from_utf8(file[512..512 + area].to_vec()).unwrap();
    let at = text.find(from).expect(from);
    let mut text = text.replacen(from, to, 1).into_bytes();
    text.resize(area, 0);
    (with(file, &[(512, &text)]), 512 + at)
}

pub(crate) fn file_of(bytes: &[u8]) -> Arc<SparseBytes> {
    let file = SparseBytes::default();
    file.write_at(0, bytes).unwrap();
    Arc::new(file)
}

fn reads(image: &Image) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < image.len() {
        let take = (image.len() - at).min(65_536);
        let mut bytes = vec![0; take as usize];
        found.push(image.read_at(at, &mut bytes).is_ok().then_some(bytes));
        at += take;
    }
    found
}

/// What a repair makes of a damaged file.
pub(crate) enum After<'a> {
    /// A disk of these bytes.
    Reads(&'a [u8]),
    /// Nothing: the finding stays.
    Stays,
}

#[track_caller]
pub(crate) fn damage(name: &str, file: &[u8], code: &str, place: (usize, usize), after: After<'_>) {
    let image = opened(file_of(file));
    let found = image.check().unwrap();
    let all: Vec<_> = found
        .list()
        .iter()
        .map(|f| (f.rule.code, f.offset, f.length))
        .collect();
    let place = (place.0 as u64, place.1 as u64);
    let hit = found
        .list()
        .iter()
        .find(|f| f.rule.code == code && (f.offset, f.length) == place);
    let hit = hit.unwrap_or_else(|| panic!("{name}: {code} at {place:?} is not among {all:?}"));
    assert!(!hit.message().is_empty() && hit.file.is_empty());
    // Damage that is an error and known on opening is refused by who asks for that.
    let noticed = image.info().findings;
    let strict = Options {
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let worst = noticed.worst() == Some(drylab_block::Severity::Error);
    assert_eq!(open_as(file_of(file), &strict).is_err(), worst, "{name}");

    let before = reads(&image);
    let plan = image.repair().unwrap();
    let After::Reads(expected) = after else {
        assert_eq!(hit.rule.repair, Repair::No, "{name}");
        return;
    };
    assert_ne!(hit.rule.repair, Repair::No, "{name}");
    assert!(!plan.is_empty(), "{name}: nothing to do");
    let whole: Vec<_> = expected
        .chunks(65_536)
        .map(|bytes| Some(bytes.to_vec()))
        .collect();
    for count in 0..=plan.edits().len() {
        let crashed = file_of(file);
        plan.apply_first(count, &*crashed).unwrap();
        let image = opened(crashed);
        for ((now, before), after) in reads(&image).iter().zip(&before).zip(&whole) {
            assert!(now == before || now == after, "{name}: after {count} steps");
        }
    }
    let mended = file_of(file);
    plan.apply(&*mended).unwrap();
    let image = opened(mended.clone());
    assert!(bytes_of(&image) == expected, "{name}: other bytes");
    let left = image.check().unwrap();
    let left: Vec<_> = left
        .list()
        .iter()
        .filter(|f| f.rule.repair != Repair::No)
        .collect();
    assert!(left.is_empty(), "{name}: {left:?}");
    assert!(
        image.repair().unwrap().is_empty(),
        "{name}: a second repair does something"
    );
    if hit.rule.repair == Repair::Lossless && before.iter().all(Option::is_some) {
        assert!(before == whole, "{name}: lossless");
    }
    if have_qemu_img() {
        let folder = tempfile::tempdir().unwrap();
        let (vmdk, raw) = (folder.path().join("a.vmdk"), folder.path().join("a.raw"));
        std::fs::write(&vmdk, bytes_of(&*mended)).unwrap();
        std::fs::write(&raw, expected).unwrap();
        let (vmdk, raw) = (vmdk.to_str().unwrap(), raw.to_str().unwrap());
        assert!(
            qemu_img(&["check", "-f", "vmdk", vmdk]).contains("No errors"),
            "{name}"
        );
        let verdict = qemu_img(&["compare", "-f", "vmdk", "-F", "raw", vmdk, raw]);
        assert!(verdict.contains("identical"), "{name}: {verdict}");
    }
}

#[test]
fn undamaged_files_have_no_findings_and_nothing_to_repair() {
    for size in [512, SIZE, 130 << 20] {
        let zeroed = VmdkOptions {
            zeroed_grains: true,
            long_content_id: Some(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
            ..VmdkOptions::default()
        };
        let disk = disk(size.max(SIZE));
        for target in [
            Target::VmdkSparse(VmdkOptions::default()),
            Target::VmdkSparse(zeroed),
            Target::VmdkStream(VmdkOptions::default()),
        ] {
            let image = opened(packed(&disk, &target));
            let found = image.check().unwrap();
            assert!(found.is_empty(), "{found:?}");
            assert!(image.repair().unwrap().is_empty());
        }
    }
}

#[test]
fn two_grains_at_one_sector_are_found_and_parted() {
    let mut expected = truth();
    expected.copy_within(0..GRAIN, GRAIN);
    let file = entry(1, 128);
    damage(
        "alias",
        &file,
        "VMDK-GRAIN-ALIAS",
        (GT + 4, 4),
        After::Reads(&expected),
    );
    // The last grain is shorter than a grain.
    let mut expected = truth();
    let last = expected.len() - 4 * GRAIN;
    expected.copy_within(0..last, 4 * GRAIN);
    damage(
        "alias",
        &entry(4, 128),
        "VMDK-GRAIN-ALIAS",
        (GT + 16, 4),
        After::Reads(&expected),
    );
}

#[test]
fn grains_that_overlap_are_found_and_parted() {
    let file = entry(1, 130);
    let mut expected = truth();
    expected[GRAIN..2 * GRAIN].copy_from_slice(&file[130 * 512..130 * 512 + GRAIN]);
    damage(
        "overlap",
        &file,
        "VMDK-GRAIN-OVERLAP",
        (GT + 4, 4),
        After::Reads(&expected),
    );
}

#[test]
fn a_grain_beyond_the_end_is_found_and_given_up() {
    for sector in [9_999_999, 513, u32::MAX] {
        let file = entry(1, sector);
        damage(
            "range",
            &file,
            "VMDK-GRAIN-RANGE",
            (GT + 4, 4),
            After::Reads(&without(1)),
        );
    }
}

#[test]
fn a_grain_inside_the_metadata_is_found_and_given_up() {
    for sector in [1, 5, 26, 27] {
        let file = entry(1, sector);
        let code = "VMDK-GRAIN-IN-METADATA";
        damage(
            "metadata",
            &file,
            code,
            (GT + 4, 4),
            After::Reads(&without(1)),
        );
    }
}

#[test]
fn a_redundant_table_that_differs_is_found_and_made_equal() {
    let code = "VMDK-GT-DIFFERS";
    let one = with(sparse(), &[(RGT + 4, &[0; 4])]);
    damage("differs", &one, code, (RGT + 4, 4), After::Reads(&truth()));
    let three = with(sparse(), &[(RGT, &[0; 20])]);
    damage("differs", &three, code, (RGT, 20), After::Reads(&truth()));
    // An entry of the table in use that leads nowhere is read and mended from the redundant one.
    let primary = with(sparse(), &[(GT + 4, &[0xff; 4])]);
    damage(
        "primary",
        &primary,
        code,
        (RGT + 4, 4),
        After::Reads(&truth()),
    );
}

#[test]
fn fields_of_the_header_are_found_and_mended() {
    let unclean = with(sparse(), &[(72, &[5])]);
    damage(
        "unclean",
        &unclean,
        "VMDK-UNCLEAN",
        (72, 1),
        After::Reads(&truth()),
    );
    let overhead = with(sparse(), &[(64, &[200])]);
    damage(
        "overHead",
        &overhead,
        "VMDK-OVERHEAD",
        (64, 8),
        After::Reads(&truth()),
    );
    let version = with(sparse(), &[(8, &[7])]);
    damage(
        "version",
        &version,
        "VMDK-VERSION",
        (4, 4),
        After::Reads(&truth()),
    );
    let newlines = with(sparse(), &[(73, b"\n\n\r\n")]);
    damage(
        "newlines",
        &newlines,
        "VMDK-NEWLINES",
        (73, 4),
        After::Stays,
    );
    let entries = with(sparse(), &[(44, &256u32.to_le_bytes())]);
    damage(
        "entries",
        &entries,
        "VMDK-TABLE-ENTRIES",
        (44, 4),
        After::Stays,
    );
}

#[test]
fn a_directory_that_is_not_where_the_header_says_is_made_from_the_other() {
    for place in [1u64 << 40, 3, 600] {
        let place = place.to_le_bytes();
        let gd = with(sparse(), &[(56, &place)]);
        damage(
            "gdOffset",
            &gd,
            "VMDK-GD-RANGE",
            (56, 8),
            After::Reads(&truth()),
        );
        let rgd = with(sparse(), &[(48, &place)]);
        damage(
            "rgdOffset",
            &rgd,
            "VMDK-RGD-RANGE",
            (48, 8),
            After::Reads(&truth()),
        );
    }
    // On its own table, whose first entry is a sector of a grain.
    let moved = with(sparse(), &[(48, &[22])]);
    damage(
        "rgdOffset",
        &moved,
        "VMDK-RGD-OVERLAP",
        (48, 8),
        After::Reads(&truth()),
    );
}

#[test]
fn entries_of_directories_are_mended_from_each_other_or_given_up() {
    let disk = disk(66 << 20);
    let file = bytes_of(&*packed(&disk, &Target::VmdkSparse(VmdkOptions::default())));
    let truth = bytes_of(&disk);
    let gd = le_u32(&file, 56).unwrap() as usize * 512;
    let rgd = le_u32(&file, 48).unwrap() as usize * 512;
    let far = 9_999_999u32.to_le_bytes();
    for bad in [far, [0; 4]] {
        let code = "VMDK-GT-RANGE";
        let first = with(file.clone(), &[(gd + 4, &bad)]);
        damage("gd", &first, code, (gd + 4, 4), After::Reads(&truth));
        let second = with(file.clone(), &[(rgd + 4, &bad)]);
        damage("rgd", &second, code, (rgd + 4, 4), After::Reads(&truth));
    }
    let both = with(file.clone(), &[(gd + 4, &far), (rgd + 4, &far)]);
    let mut expected = truth.clone();
    expected[32 << 20..64 << 20].fill(0);
    damage(
        "both",
        &both,
        "VMDK-GT-LOST",
        (gd + 4, 4),
        After::Reads(&expected),
    );
    let table = &file[gd..gd + 4];
    let twin = &file[rgd..rgd + 4];
    let shared = with(file.clone(), &[(gd + 4, table), (rgd + 4, twin)]);
    damage(
        "shared",
        &shared,
        "VMDK-GT-OVERLAP",
        (gd + 4, 4),
        After::Stays,
    );
}

#[test]
fn lines_of_the_descriptor_are_found_at_their_place_and_the_size_is_mended() {
    let (file, at) = text_changed(sparse(), "RW 586 SPARSE", "RW 1234567 SPARSE");
    damage(
        "size",
        &file,
        "VMDK-EXTENT-SIZE",
        (at + 3, 7),
        After::Reads(&truth()),
    );
    let cid = |to: &str| {
        let text = String::from_utf8_lossy(&sparse()[512..1024]).into_owned();
        let at = text.find("CID=").unwrap();
        text_changed(sparse(), &text[at..at + 12], to)
    };
    let (file, at) = cid("CID=g0000001");
    damage("cid", &file, "VMDK-CID", (at + 4, 8), After::Stays);
    let (file, _) = cid("DIC=00000001");
    let length = String::from_utf8_lossy(&file[512..]).find('\0').unwrap();
    damage("cid", &file, "VMDK-CID", (512, length), After::Stays);
    let (file, _) = text_changed(sparse(), "RW 586", "RW many\nRW 586");
    let length = String::from_utf8_lossy(&file[512..]).find('\0').unwrap();
    damage(
        "line",
        &file,
        "VMDK-DESCRIPTOR-LINE",
        (512, length),
        After::Stays,
    );
    let (file, at) = text_changed(sparse(), "version=1", "version=1\nencoding=\"Big5\"\nx=ä");
    let at = at + "version=1\nencoding=\"".len();
    damage("encoding", &file, "VMDK-ENCODING", (at, 4), After::Stays);
    for long in ["12345678123456781234567800000000", "1234"] {
        let line = format!("version=1\nddb.longContentID = \"{long}\"");
        let (file, at) = text_changed(sparse(), "version=1", &line);
        let at = at + "version=1\nddb.longContentID = \"".len();
        damage(
            "long",
            &file,
            "VMDK-LONG-CONTENT-ID",
            (at, long.len()),
            After::Stays,
        );
    }
    let full = {
        let mut file = sparse();
        let end = file[512..].iter().position(|byte| *byte == 0).unwrap() + 512;
        file[end..21 * 512].fill(b'#');
        file
    };
    damage(
        "full",
        &full,
        "VMDK-DESCRIPTOR-AREA",
        (512, 20 * 512),
        After::Stays,
    );
    let long = with(sparse(), &[(36, &[30])]);
    damage(
        "long",
        &long,
        "VMDK-DESCRIPTOR-AREA",
        (512, 30 * 512),
        After::Stays,
    );
}

#[test]
fn a_line_that_outgrows_its_area_is_not_mended() {
    let mut file = text_changed(sparse(), "RW 586 SPARSE", "RW 5 SPARSE").0;
    let end = file[512..].iter().position(|byte| *byte == 0).unwrap() + 512;
    let most = 21 * 512 - 2;
    file[end..most].fill(b'#');
    let error = opened(file_of(&file)).repair().unwrap_err().to_string();
    assert!(error.contains("does not fit"), "{error}");
}
