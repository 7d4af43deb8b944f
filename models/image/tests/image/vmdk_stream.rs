//! Damage to streams: what their markers and their end say against what their tables say.

use crate::common::{have_qemu_img, opened, qemu_img};
use crate::vmdk_damage::{After, GRAIN, damage, file_of, stream, truth, with, without};
use drylab_block::{Limits, ReadAt, le_u32};
use drylab_image::walk_stream;

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
