//! What the generator of damages found: redundant directories that are not what the header says, streams whose end, markers
//! and tables disagree, and disks of no sectors. Each is found by its code, and mended without losing a byte.

use crate::common::{Kind, Piece, Plan, have_qemu_img, opened, packed, qemu_img};
use crate::vmdk_damage::{
    After, GRAIN, SIZE, bytes_of, damage, disk, file_of, stream, truth, with, without,
};
use drylab_block::{ReadAt, SparseBytes, le_u32};
use drylab_image::{Target, VmdkOptions, fuzz};

pub(crate) fn sparse_of(disk: &SparseBytes) -> Vec<u8> {
    bytes_of(&*packed(disk, &Target::VmdkSparse(VmdkOptions::default())))
}

fn stream_of(disk: &SparseBytes) -> Vec<u8> {
    bytes_of(&*packed(disk, &Target::VmdkStream(VmdkOptions::default())))
}

/// The same disk as a stream of qemu-img, whose directory stands in front.
pub(crate) fn stream_of_qemu_img() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (folder.path().join("a.raw"), folder.path().join("a.vmdk"));
    std::fs::write(&raw, truth()).unwrap();
    let how = "convert -f raw -O vmdk -o subformat=streamOptimized";
    let how: Vec<&str> = how.split(' ').collect();
    let files = [raw.to_str().unwrap(), vmdk.to_str().unwrap()];
    qemu_img(&[&how[..], &files].concat());
    std::fs::read(&vmdk).unwrap()
}

/// The byte to which the sector number at a byte leads.
pub(crate) fn led(file: &[u8], at: usize) -> usize {
    le_u32(file, at).unwrap() as usize * 512
}

/// The footer of a stream, its grain directory and its first grain table.
fn places(stream: &[u8]) -> (usize, usize, usize) {
    let footer = stream.len() - 1024;
    let gd = led(stream, footer + 56);
    (footer, gd, led(stream, gd))
}

pub(crate) fn codes(file: &[u8]) -> Vec<&'static str> {
    let found = opened(file_of(file)).check().unwrap();
    found.counts().keys().copied().collect()
}

pub(crate) fn mended(file: &[u8]) -> Vec<u8> {
    let changed = file_of(file);
    let plan = opened(changed.clone()).repair().unwrap();
    plan.apply(&*changed).unwrap();
    bytes_of(&*changed)
}

#[test]
fn the_place_of_a_redundant_directory_means_nothing_without_its_flag() {
    let file = stream();
    let (footer, ..) = places(&file);
    let far = 0x00ff_ffffu64.to_le_bytes();
    for place in [far, 1u64.to_le_bytes(), 5u64.to_le_bytes()] {
        for header in [0, footer] {
            let changed = with(file.clone(), &[(header + 48, &place)]);
            assert_eq!(codes(&changed), [""; 0]);
            assert!(mended(&changed) == changed);
        }
        // Without the flag the two tables of a sparse disk are one, and the other is nobody's.
        let sparse = with(sparse_of(&disk(SIZE)), &[(8, &[1]), (48, &place)]);
        assert_eq!(codes(&sparse), [""; 0]);
        let image = opened(file_of(&sparse));
        assert!(bytes_of(&image) == truth());
        let layout = image.info().detail("layout").map(str::to_owned);
        assert_eq!(layout.as_deref(), Some("front GD"));
    }
}

#[test]
fn a_redundant_directory_that_is_announced_and_nowhere_is_made() {
    let file = with(sparse_of(&disk(SIZE)), &[(48, &[0; 8])]);
    let code = "VMDK-RGD-RANGE";
    damage("sparse", &file, code, (48, 8), After::Reads(&truth()));
    let after = mended(&file);
    assert_eq!(le_u32(&after, 8), Some(3));
    assert_ne!(led(&after, 48), 0);
    // A stream is not written again and does without: its flag goes.
    let file = stream();
    let (footer, ..) = places(&file);
    let flag = [file[8] | 2];
    let changed = with(file.clone(), &[(8, &flag), (footer + 8, &flag)]);
    let place = (footer + 48, 8);
    damage("stream", &changed, code, place, After::Reads(&truth()));
    assert!(mended(&changed) == file);
}

#[test]
fn a_table_that_both_directories_name_is_found_and_gets_a_copy() {
    let code = "VMDK-GT-SHARED";
    for disk in [disk(SIZE), disk(66 << 20)] {
        let (file, truth) = (sparse_of(&disk), bytes_of(&disk));
        let (gd, rgd) = (led(&file, 56), led(&file, 48));
        let last = 4 * (truth.len().div_ceil(GRAIN).div_ceil(512) - 1);
        for entry in [0, last] {
            let first = file[gd + entry..gd + entry + 4].to_vec();
            let second = file[rgd + entry..rgd + entry + 4].to_vec();
            let one = with(file.clone(), &[(rgd + entry, &first)]);
            damage("rgd", &one, code, (rgd + entry, 4), After::Reads(&truth));
            let other = with(file.clone(), &[(gd + entry, &second)]);
            damage("gd", &other, code, (rgd + entry, 4), After::Reads(&truth));
        }
    }
}

#[test]
fn a_stream_with_a_redundant_directory_of_no_use_loses_it() {
    if !have_qemu_img() {
        return;
    }
    let file = stream_of_qemu_img();
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].to_vec();
    let shared = with(file.clone(), &[(rgd, &first)]);
    let reads = truth();
    let code = "VMDK-GT-SHARED";
    damage("shared", &shared, code, (rgd, 4), After::Reads(&reads));
    for (code, name, place) in [
        ("VMDK-RGD-RANGE", "nowhere", 0u64),
        ("VMDK-RGD-RANGE", "far", 1 << 40),
        ("VMDK-RGD-OVERLAP", "one", (gd / 512) as u64),
    ] {
        let changed = with(file.clone(), &[(48, &place.to_le_bytes())]);
        damage(name, &changed, code, (48, 8), After::Reads(&reads));
        assert_eq!(le_u32(&mended(&changed), 8), Some(0x3_0001), "{name}");
    }
}

#[test]
fn a_footer_marker_without_a_footer_is_found() {
    let file = stream();
    let (footer, gd, table) = places(&file);
    let code = "VMDK-STREAM-MARKER";
    for marker in [gd - 512, table - 512] {
        let changed = with(file.clone(), &[(marker + 12, &[3])]);
        damage("kind", &changed, code, (marker, 512), After::Stays);
    }
    // Two sectors of a footer take the end of the stream with them.
    let changed = with(file, &[(footer - 512, &[2])]);
    let place = (footer - 512, 512);
    damage("length", &changed, code, place, After::Stays);
}

#[test]
fn a_footer_that_ends_no_stream_does_not_count() {
    let file = stream();
    let (footer, ..) = places(&file);
    for flags in [0u32, 1, 0x1_0001, 0x2_0001] {
        let changed = with(file.clone(), &[(footer + 8, &flags.to_le_bytes())]);
        let (code, place) = ("VMDK-FOOTER-DIFFERS", (footer, 512));
        damage("flags", &changed, code, place, After::Reads(&truth()));
        assert!(mended(&changed) == file);
    }
}

#[test]
fn a_stream_is_not_cut_in_front_of_its_footer() {
    // Of zeros there is no grain: a directory marker taken for a grain's leads to an empty directory, as if to the end.
    let file = stream_of(&SparseBytes::new(SIZE));
    let footer = file.len() - 1024;
    let gd = led(&file, footer + 56);
    let changed = with(file.clone(), &[(gd - 512 + 8, &[1])]);
    damage(
        "directory",
        &changed,
        "VMDK-STREAM-MARKER",
        (gd, 0),
        After::Stays,
    );
    assert!(mended(&changed) == changed);
    // As a grain of four sectors more it ends where the file does, as if the end of the stream were missing.
    let changed = with(file, &[(gd - 512 + 9, &[8])]);
    let place = (changed.len(), 0);
    damage("over", &changed, "VMDK-STREAM-MARKER", place, After::Stays);
    assert!(mended(&changed) == changed);
}

#[test]
fn an_entry_that_leads_elsewhere_is_led_to_the_grain_whose_marker_is_there() {
    let file = stream();
    let (_, _, table) = places(&file);
    let first = file[table..table + 4].to_vec();
    for (code, entry) in [
        ("VMDK-GRAIN-MARKER", first),
        ("VMDK-GRAIN-RANGE", vec![0xff; 4]),
        ("VMDK-GRAIN-IN-METADATA", vec![1, 0, 0, 0]),
    ] {
        let changed = with(file.clone(), &[(table + 4, &entry)]);
        damage(
            "entry",
            &changed,
            code,
            (table + 4, 4),
            After::Reads(&truth()),
        );
        assert!(mended(&changed) == file, "{code}");
    }
    // Zeros are no grain's marker, also where the first grain would be: overHead does not follow.
    let padding = (20 * 512 + 512..led(&file, 64)).step_by(512).next();
    if let Some(padding) = padding {
        let sector = ((padding / 512) as u32).to_le_bytes();
        let changed = with(file.clone(), &[(table, &sector)]);
        let code = "VMDK-GRAIN-MARKER";
        damage("zeros", &changed, code, (table, 4), After::Reads(&truth()));
    }
    // A grain whose marker is another's is nowhere.
    let second = led(&file, table + 4);
    let changed = with(file, &[(second, &[0])]);
    let (code, place) = ("VMDK-GRAIN-MARKER", (table + 4, 4));
    damage("lost", &changed, code, place, After::Reads(&without(1)));
}

#[test]
fn an_entry_of_a_directory_that_leads_beside_its_table_is_led_to_the_one_that_a_marker_announces() {
    let file = stream_of(&disk(66 << 20));
    let (_, gd, _) = places(&file);
    for entry in [gd, gd + 8] {
        let table = (led(&file, entry) / 512) as u32;
        // The marker in front of it, the directory, the footer, none of the file.
        for sector in [
            table - 1,
            gd as u32 / 512,
            file.len() as u32 / 512 - 2,
            9_999_999,
        ] {
            let changed = with(file.clone(), &[(entry, &sector.to_le_bytes())]);
            assert_ne!(codes(&changed), [""; 0], "{sector}");
            assert!(mended(&changed) == file, "{sector} for {table}");
        }
    }
}

#[test]
fn a_table_on_a_grain_of_a_stream_is_found_and_the_grain_is_not_written_to() {
    let file = stream();
    let (_, gd, table) = places(&file);
    for grain in 0..2 {
        let at = led(&file, table + 4 * grain);
        for behind in [0, 1] {
            let sector = (at as u32 / 512 + behind).to_le_bytes();
            let changed = with(file.clone(), &[(gd, &sector)]);
            if behind == 0 || grain == 1 {
                damage("table", &changed, "VMDK-GT-OVERLAP", (gd, 4), After::Stays);
            }
            let after = mended(&changed);
            let end = table - 512;
            assert!(after[..end] == file[..end], "grain {grain}, {behind}");
        }
    }
}

#[test]
fn an_entry_that_leads_to_no_table_is_an_error_to_read_and_given_up() {
    let disk = disk(66 << 20);
    let file = with(sparse_of(&disk), &[(8, &[1])]);
    let gd = led(&file, 56);
    let mut expected = bytes_of(&disk);
    expected[32 << 20..64 << 20].fill(0);
    for sector in [(gd / 512) as u32, 1, 9_999_999] {
        let changed = with(file.clone(), &[(gd + 4, &sector.to_le_bytes())]);
        let image = opened(file_of(&changed));
        let error = image.read_at(33 << 20, &mut [0; 512]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("no grain table can be"), "{error}");
        let code = "VMDK-GT-LOST";
        damage("gd", &changed, code, (gd + 4, 4), After::Reads(&expected));
    }
}

#[test]
fn a_disk_of_no_sectors_is_mended_like_any_other() {
    let none = Plan {
        size: 0,
        pieces: Vec::new(),
    };
    let sparse = sparse_of(&none.disk());
    let stream = stream_of(&none.disk());
    let footer = stream.len() - 1024;
    for (file, place, code) in [
        (&sparse, 72, "VMDK-UNCLEAN"),
        (&stream, 72, "VMDK-UNCLEAN"),
        (&stream, footer + 72, "VMDK-UNCLEAN"),
    ] {
        assert_eq!(codes(file), [""; 0]);
        let changed = with(file.clone(), &[(place, &[1])]);
        assert_eq!(codes(&changed), [code]);
        assert!(mended(&changed) == *file);
    }
    let changed = with(stream.clone(), &[(4, &[2])]);
    assert_eq!(codes(&changed), ["VMDK-FOOTER-DIFFERS"]);
    let longer = [&stream[..], &[0; 512]].concat();
    assert_eq!(codes(&longer), ["VMDK-TRAILING-BYTES"]);
    assert!(mended(&longer) == stream);
    for file in [&sparse, &stream] {
        for at in 0..file.len().min(80) {
            for value in [0, 1, 0x80, 0xff] {
                fuzz::vmdk_repair(&with(file.clone(), &[(at, &[value])]));
            }
        }
    }
}

#[test]
fn markers_of_grains_that_are_not_compressed_are_found_and_not_followed() {
    let file = stream();
    let (footer, ..) = places(&file);
    let flags = 0x2_0001u32.to_le_bytes();
    let changed = with(file, &[(8, &flags), (footer + 8, &flags)]);
    let found = codes(&changed);
    assert!(found.contains(&"VMDK-NOT-A-STREAM"), "{found:?}");
    assert!(!found.contains(&"VMDK-STREAM-MARKER"), "{found:?}");
    let error = opened(file_of(&changed)).repair().unwrap_err().to_string();
    assert!(error.contains("flags"), "{error}");
    assert!(error.contains("nothing is planned"), "{error}");
}

#[test]
fn a_stream_is_ended_where_it_starts_and_not_where_a_wrong_header_says() {
    let file = stream();
    let (footer, ..) = places(&file);
    let end = (file.len() / 512) as u8;
    let first = (led(&file, 64) / 512) as u8;
    // The last two are the place of another grain, and one in the descriptor's text.
    for start in [end, end + 1, end - 1, first + 1, 2] {
        let changed = with(file.clone(), &[(64, &[start])]);
        let (code, place) = ("VMDK-FOOTER-DIFFERS", (footer, 512));
        damage("start", &changed, code, place, After::Reads(&truth()));
        assert!(mended(&changed) == file, "{start}");
    }
}

#[test]
fn a_directory_most_of_whose_entries_lead_nowhere_is_left_alone() {
    let file = sparse_of(&disk(66 << 20));
    let (gd, rgd, far) = (led(&file, 56), led(&file, 48), [0xff; 8]);
    let changed = with(file, &[(gd, &far), (rgd, &far)]);
    let image = opened(file_of(&changed));
    assert!(codes(&changed).contains(&"VMDK-GT-LOST"));
    let error = image.repair().unwrap_err().to_string();
    assert!(error.contains("2 of 3 entries"), "{error}");
    assert!(error.contains("lead nowhere"), "{error}");
}

#[test]
fn a_disk_whose_directories_name_one_table_shrinks_and_is_whole_at_every_step() {
    let piece = |offset| Piece {
        offset,
        length: 5000,
        kind: Kind::Text(5),
    };
    let disk = Plan {
        size: 4 << 20,
        pieces: vec![piece(700), piece(3 << 20)],
    };
    let (file, truth) = (sparse_of(&disk.disk()), bytes_of(&disk.disk()));
    let (gd, rgd) = (led(&file, 56), led(&file, 48));
    let first = file[gd..gd + 4].to_vec();
    // One directory for both is another damage, which is mended first.
    let one = with(file.clone(), &[(48, &file[56..64])]);
    let refused = opened(file_of(&one))
        .resize(1 << 20)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("header, rgdOffset is sector"), "{refused}");
    let shared = with(file, &[(rgd, &first)]);
    assert_eq!(codes(&shared), ["VMDK-GT-SHARED"]);
    let plan = opened(file_of(&shared)).resize(1 << 20).unwrap();
    let mut sizes = Vec::new();
    for count in 0..=plan.edits().len() {
        let crashed = file_of(&shared);
        plan.apply_first(count, &*crashed).unwrap();
        let now = bytes_of(&opened(crashed));
        assert!(now == truth[..now.len()], "{count} steps");
        sizes.push(now.len());
    }
    sizes.dedup();
    assert_eq!(sizes, [4 << 20, 1 << 20]);
}
