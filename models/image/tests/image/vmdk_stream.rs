//! Damage to streams: what their markers and their end say against what their tables say.

use crate::common::{Kind, Piece, Plan, have_qemu_img, opened, packed, qemu_img};
use crate::vmdk_damage::{
    After, GRAIN, SIZE, bytes_of, damage, file_of, stream, truth, with, without,
};
use drylab_block::{Limits, ReadAt, le_u32};
use drylab_image::{Target, VmdkOptions, fuzz, walk_stream};

/// Bytes of the footer and of the first entry of the only grain table of a stream.
fn places(stream: &[u8]) -> (usize, usize) {
    let footer = stream.len() - 1024;
    let gd = le_u32(stream, footer + 56).unwrap() as usize * 512;
    (footer, le_u32(stream, gd).unwrap() as usize * 512)
}

#[test]
fn the_end_of_a_stream_is_found_and_mended() {
    let file = stream();
    let (footer, _) = places(&file);
    let truth = truth();
    let header = with(file.clone(), &[(12, &[7])]);
    damage(
        "header",
        &header,
        "VMDK-FOOTER-DIFFERS",
        (footer, 512),
        After::Reads(&truth),
    );
    let unclean = with(file.clone(), &[(footer + 72, &[1])]);
    damage(
        "unclean",
        &unclean,
        "VMDK-UNCLEAN",
        (footer + 72, 1),
        After::Reads(&truth),
    );
    for behind in [vec![0; 512], vec![b'x'; 1000], vec![0; 64_000]] {
        let longer = [&file[..], &behind].concat();
        let place = (file.len(), behind.len());
        damage(
            "longer",
            &longer,
            "VMDK-TRAILING-BYTES",
            place,
            After::Reads(&truth),
        );
    }
    for left in [0, 100] {
        let shorter = &file[..file.len() - 512 + left];
        let place = (file.len() - 512, left);
        damage(
            "shorter",
            shorter,
            "VMDK-NO-END-OF-STREAM",
            place,
            After::Reads(&truth),
        );
    }
    let lost = with(file.clone(), &[(footer - 512 + 12, &[9])]);
    damage(
        "footer",
        &lost,
        "VMDK-NO-FOOTER",
        (footer - 512, 1536),
        After::Reads(&truth),
    );
}

#[test]
fn a_footer_that_differs_is_mended_by_what_each_of_the_two_is_read_for() {
    let file = stream();
    let (footer, _) = places(&file);
    // Where the text is, where the stream starts, what a transfer in text mode would have changed.
    for (field, value) in [
        (28, 2),
        (29, 2),
        (36, 0),
        (37, 2),
        (64, 1),
        (64, 0),
        (74, b'x'),
    ] {
        let changed = with(file.clone(), &[(footer + field, &[value])]);
        damage(
            "footer",
            &changed,
            "VMDK-FOOTER-DIFFERS",
            (footer, 512),
            After::Reads(&truth()),
        );
        let mended = file_of(&changed);
        let plan = opened(mended.clone()).repair().unwrap();
        plan.apply(&*mended).unwrap();
        assert!(bytes_of(&*mended) == file, "{field}");
    }
    // The start of the stream is where one is.
    let changed = file_of(&with(file.clone(), &[(64, &[20])]));
    let plan = opened(changed.clone()).repair().unwrap();
    plan.apply(&*changed).unwrap();
    assert!(bytes_of(&*changed) == file);
}

#[test]
fn any_byte_of_a_header_or_footer_may_change_before_a_repair() {
    let sparse = bytes_of(&*packed(
        &crate::vmdk_damage::disk(SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    ));
    let stream = stream();
    let (footer, _) = places(&stream);
    for (file, header) in [(&sparse, 0), (&stream, 0), (&stream, footer)] {
        for at in 0..80 {
            for value in [0, 1, 2, 5, 0x80, 0xff] {
                fuzz::vmdk_repair(&with(file.clone(), &[(header + at, &[value])]));
            }
        }
    }
}

#[test]
fn any_entry_may_lead_to_any_sector_before_a_repair() {
    let sparse = bytes_of(&*packed(
        &crate::vmdk_damage::disk(SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    ));
    let stream = stream();
    let (footer, table) = places(&stream);
    let at = |file: &[u8], at: usize| le_u32(file, at).unwrap() as usize * 512;
    let (gd, rgd) = (at(&sparse, 56), at(&sparse, 48));
    let directory = at(&stream, footer + 56);
    for (file, entries) in [
        (
            &sparse,
            vec![gd, rgd, at(&sparse, gd), at(&sparse, rgd) + 4],
        ),
        (&stream, vec![directory, table, table + 16]),
    ] {
        for entry in entries {
            for sector in 0..=(file.len() / 512) as u32 + 1 {
                let changed = [(entry, &sector.to_le_bytes()[..])];
                fuzz::vmdk_repair(&with(file.clone(), &changed));
            }
        }
    }
}

#[test]
fn a_directory_and_a_capacity_that_are_both_wrong_are_mended_at_once() {
    let sparse = bytes_of(&*packed(
        &crate::vmdk_damage::disk(SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    ));
    // A directory of zeros, of a disk that is far larger: the redundant one would go on over its tables.
    let file = with(sparse, &[(56, &[73]), (15, &[3])]);
    fuzz::vmdk_repair(&file);
    let mended = file_of(&file);
    let plan = opened(mended.clone()).repair().unwrap();
    plan.apply(&*mended).unwrap();
    let image = opened(mended);
    assert!(image.check().unwrap().is_empty());
    assert!(bytes_of(&image) == truth());
}

#[test]
fn a_stream_without_an_end_is_read_by_its_markers_and_ended() {
    let file = stream();
    let (_, table) = places(&file);
    let last = le_u32(&file, table + 16).unwrap() as usize * 512;
    // Inside the last grain: it is lost. Behind it: it is not, but whether more came cannot be told.
    for (cut, expected) in [
        (last + 100, without(4)),
        (last + 512, truth()),
        (table + 700, truth()),
    ] {
        let shorter = &file[..cut];
        let start = if cut < last + 512 {
            last
        } else if cut < table {
            last + 512
        } else {
            table - 512
        };
        let place = (start, cut - start);
        damage(
            "cut",
            shorter,
            "VMDK-NO-FOOTER",
            place,
            After::Reads(&expected),
        );
        damage(
            "cut",
            shorter,
            "VMDK-STREAM-CUT",
            place,
            After::Reads(&expected),
        );
        let mended = file_of(shorter);
        let plan = opened(mended.clone()).repair().unwrap();
        plan.apply(&*mended).unwrap();
        walk_stream(&*mended, &Limits::DEFAULT).unwrap();
    }
    let cut = opened(file_of(&file[..last + 100]));
    let error = cut
        .read_at(4 * GRAIN as u64, &mut [0; 512])
        .unwrap_err()
        .to_string();
    assert!(error.contains("cut before grain 2"), "{error}");
}

/// Were tables made with it, it could never be read; were it left out, so would be all grains of a header with a wrong size.
#[test]
fn a_grain_that_says_more_than_a_grain_can_have_is_not_put_into_new_tables() {
    let file = stream();
    let (_, table) = places(&file);
    let last = le_u32(&file, table + 16).unwrap() as usize * 512;
    let size = 2 * GRAIN as u32 + 1025;
    let head = file[..last + 512].to_vec();
    let head = with(head, &[(last + 8, &size.to_le_bytes())]);
    let long = [head, vec![0xff; 3 * GRAIN]].concat();
    let image = opened(file_of(&long));
    let found = image.check().unwrap();
    assert!(found.counts().contains_key("VMDK-GRAIN-MARKER"));
    let error = image.repair().map(drop).unwrap_err().to_string();
    assert!(
        error.contains("more bytes than grain ") && error.contains(" can have (132096)"),
        "{error}"
    );
    // In a stream with a footer the entry is cleared.
    let whole = with(file, &[(last + 8, &size.to_le_bytes())]);
    let place = (table + 16, 4);
    damage(
        "long",
        &whole,
        "VMDK-GRAIN-MARKER",
        place,
        After::Reads(&without(4)),
    );
}

#[test]
fn markers_that_disagree_with_the_tables_are_found() {
    let file = stream();
    let (_, table) = places(&file);
    let second = le_u32(&file, table + 4).unwrap() as usize * 512;
    let lba = with(file.clone(), &[(second, &[0])]);
    damage(
        "lba",
        &lba,
        "VMDK-GRAIN-MARKER",
        (table + 4, 4),
        After::Reads(&without(1)),
    );
    damage("lba", &lba, "VMDK-STREAM-ORDER", (second, 12), After::Stays);
    let size = with(file.clone(), &[(second + 8, &[0xff; 4])]);
    damage(
        "size",
        &size,
        "VMDK-GRAIN-MARKER",
        (table + 4, 4),
        After::Reads(&without(1)),
    );
    let packed = with(file.clone(), &[(second + 30, &[0xff; 8])]);
    damage(
        "packed",
        &packed,
        "VMDK-GRAIN-PACKED",
        (table + 4, 4),
        After::Stays,
    );
    let unnamed = with(file.clone(), &[(table + 4, &[0; 4])]);
    damage(
        "unnamed",
        &unnamed,
        "VMDK-STREAM-MARKER",
        (second, 512),
        After::Stays,
    );
    let kind = with(file, &[(table - 512 + 12, &[7])]);
    damage(
        "kind",
        &kind,
        "VMDK-STREAM-MARKER",
        (table - 512, 512),
        After::Stays,
    );
}

#[test]
fn qemus_stream_gets_its_end() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (folder.path().join("a.raw"), folder.path().join("a.vmdk"));
    std::fs::write(&raw, truth()).unwrap();
    let how = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
    ];
    let files = [raw.to_str().unwrap(), vmdk.to_str().unwrap()];
    qemu_img(&[&how[..], &files].concat());
    let file = std::fs::read(&vmdk).unwrap();
    let image = opened(file_of(&file));
    let found = image.check().unwrap();
    let list = found.list();
    let hit = list
        .iter()
        .find(|finding| finding.rule.code == "VMDK-TRAILING-BYTES")
        .unwrap();
    let place = (hit.offset as usize, hit.length as usize);
    damage(
        "qemu",
        &file,
        "VMDK-TRAILING-BYTES",
        place,
        After::Reads(&truth()),
    );
    assert!(
        list.iter()
            .any(|finding| finding.rule.code == "VMDK-NOT-A-STREAM")
    );
}

#[test]
fn a_grain_that_unpacks_to_more_than_a_grain_is_an_error_and_nothing_more_is_unpacked() {
    // Noise leaves room for a bomb in the place of a grain.
    let noise = Plan {
        size: 3 * GRAIN as u64,
        pieces: vec![Piece {
            offset: 0,
            length: 3 * GRAIN,
            kind: Kind::Noise(4),
        }],
    };
    let stream = Target::VmdkStream(VmdkOptions::default());
    let file = bytes_of(&*packed(&noise.disk(), &stream));
    let (_, table) = places(&file);
    let grain = le_u32(&file, table + 4).unwrap() as usize * 512;
    let mut bomb = flate2::Compress::new(flate2::Compression::best(), true);
    let mut packed = Vec::with_capacity(64 << 10);
    let zeros = vec![0; 60 << 20];
    bomb.compress_vec(&zeros, &mut packed, flate2::FlushCompress::Finish)
        .unwrap();
    assert_eq!(bomb.total_in(), zeros.len() as u64);
    let size = (packed.len() as u32).to_le_bytes();
    let file = with(file, &[(grain + 8, &size), (grain + 12, &packed)]);
    let image = opened(file_of(&file));
    for (at, length) in [(GRAIN, GRAIN), (GRAIN + 512, 512), (0, 3 * GRAIN)] {
        let read = image.read_at(at as u64, &mut vec![0; length]);
        let error = read.unwrap_err().to_string();
        let words = ["grain 1", "unpacks to more than 65536 bytes"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let truth = bytes_of(&noise.disk());
    for at in [0, 2 * GRAIN] {
        let mut bytes = vec![0; GRAIN];
        image.read_at(at as u64, &mut bytes).unwrap();
        assert!(bytes == truth[at..at + GRAIN]);
    }
    let found = image.check().unwrap();
    let hit = found.list().iter().find(|f| f.offset == table as u64 + 4);
    assert_eq!(hit.unwrap().rule.code, "VMDK-GRAIN-PACKED");
}
