//! VHD: what is found in damaged files, and how it is mended, step by step.

use crate::common::{Kind, Piece, Plan, fill, have_qemu_img, packed};
use crate::vhd_steps::{all, codes, plainly, qemu_reads, readable, repaired};
use drylab_block::{Limits, ReadAt, Severity};
use drylab_image::vhd::Creator;
use drylab_image::{Edit, Target, VhdOptions, VhdSize, fuzz, open_vhd};
use proptest::prelude::*;
use std::sync::Arc;

const BLOCK: usize = 512 << 10;
const SLOT: usize = BLOCK + 512;
/// Where the BAT and the first block of our file stand.
const BAT: usize = 1536;
const DATA: usize = 2048;

fn options() -> VhdOptions {
    VhdOptions {
        block_bytes: BLOCK as u32,
        ..VhdOptions::qemu(true)
    }
}

fn plan() -> Plan {
    let piece = |offset: usize, seed| Piece {
        offset: offset as u64,
        length: 5000,
        kind: Kind::Noise(seed),
    };
    Plan {
        size: (3 * BLOCK + 70_144) as u64,
        pieces: vec![
            piece(0, 3),
            piece(BLOCK + 7, 5),
            piece(3 * BLOCK + 60_000, 9),
        ],
    }
}

/// Three blocks of four, the last one cut by the disk.
fn dynamic() -> Vec<u8> {
    all(&*packed(&plan().disk(), &Target::VhdDynamic(options())))
}

fn fixed() -> Vec<u8> {
    all(&*packed(
        &plan().disk(),
        &Target::VhdFixed(VhdOptions::default()),
    ))
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn seal(mut bytes: Vec<u8>, place: usize, length: usize, at: usize) -> Vec<u8> {
    let part = &mut bytes[place..place + length];
    part[at..at + 4].fill(0);
    let sum = !part.iter().fold(0u32, |sum, byte| sum + u32::from(*byte));
    part[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn entry(n: usize, sector: usize) -> Vec<u8> {
    with(dynamic(), BAT + 4 * n, &(sector as u32).to_be_bytes())
}

/// Mends, and lets qemu-img read what came of it.
#[track_caller]
fn mended(bytes: &[u8], code: &str) -> Vec<u8> {
    let done = repaired(bytes, &[code], &plainly);
    if have_qemu_img() {
        qemu_reads(&done, "vpc");
    }
    done
}

#[test]
fn files_as_they_were_written_need_nothing() {
    for bytes in [dynamic(), fixed()] {
        let image = plainly(Arc::new(bytes)).unwrap();
        assert_eq!(codes(image.check().unwrap().list()), [""; 0]);
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn a_footer_comes_back_from_its_copy_and_the_copy_from_the_footer() {
    let good = dynamic();
    let last = good.len() - 512;
    for damaged in [
        with(good.clone(), last + 0x60, &[1]),
        with(good.clone(), last, &[0; 512]),
        good[..last].to_vec(),
        good[..last + 100].to_vec(),
    ] {
        let done = mended(&damaged, "VHD-FOOTER");
        assert!(done[..good.len() - 512] == good[..last]);
        assert!(done.len() >= good.len() && done[done.len() - 512..] == good[last..]);
        assert!(done.len() - good.len() <= 512);
    }
    for damaged in [
        with(good.clone(), 0, &[0; 512]),
        with(good.clone(), 0x61, &[7]),
    ] {
        assert!(mended(&damaged, "VHD-FOOTER-COPY") == good);
    }
    let differ = seal(with(good.clone(), 0x18, &[9]), 0, 512, 0x40);
    assert!(mended(&differ, "VHD-FOOTERS-DIFFER") == good);
}

#[test]
fn a_footer_of_511_bytes_gets_its_last_byte() {
    for good in [dynamic(), fixed()] {
        let done = mended(&good[..good.len() - 1], "VHD-FOOTER-SHORT");
        assert!(done == good);
    }
}

#[test]
fn the_header_is_set_right() {
    let good = dynamic();
    let sum = with(good.clone(), 512 + 0x24, &[1]);
    assert!(mended(&sum, "VHD-HEADER-CHECKSUM") == good);
    let offset = with(good.clone(), 512 + 8, &[0; 4]);
    let offset = seal(offset, 512, 1024, 0x24);
    assert!(mended(&offset, "VHD-HEADER-DATA-OFFSET") == good);
}

#[test]
fn aliased_blocks_are_copied_apart() {
    let first = DATA / 512;
    // The same place, one sector later, in the middle, and over the one behind.
    for sector in [first, first + 1, first + 512, first + SLOT / 512 - 1] {
        let bytes = entry(2, sector);
        let done = mended(&bytes, "VHD-BLOCKS-OVERLAP");
        assert!(done.len() > bytes.len());
    }
    // All in one.
    let three = with(entry(1, first), BAT + 8, &(first as u32).to_be_bytes());
    let image = plainly(Arc::new(three.clone())).unwrap();
    assert_eq!(image.check().unwrap().counts()["VHD-BLOCKS-OVERLAP"], 2);
    mended(&three, "VHD-BLOCKS-OVERLAP");
}

#[test]
fn a_block_that_reaches_over_the_ruin_of_a_footer_is_copied_whole() {
    let last = dynamic().len() - 512;
    // Behind the third block stands only the footer; a block that begins one sector later ends with it.
    let over = (DATA + 2 * SLOT) / 512 + 1;
    let ruined = with(entry(2, over), last, &[0xee; 512]);
    let codes = ["VHD-FOOTER", "VHD-BLOCKS-OVERLAP"];
    let before = readable(&plainly(Arc::new(ruined.clone())).unwrap());
    let done = repaired(&ruined, &codes, &plainly);
    assert!(before == readable(&plainly(Arc::new(done)).unwrap()));
}

#[test]
fn of_a_block_over_another_that_the_end_cuts_only_what_is_there_is_copied() {
    // Blocks over the third that begin one and more sectors later and end behind the file.
    for behind in [1, 2, 9] {
        let sector = (DATA + 2 * SLOT) / 512 + behind;
        let file = entry(2, sector);
        let codes = ["VHD-BLOCKS-OVERLAP", "VHD-BLOCK-CUT"];
        let after = plainly(Arc::new(repaired(&file, &codes, &plainly))).unwrap();
        let mut was = file[(sector + 1) * 512..file.len() - 512].to_vec();
        was.resize(BLOCK, 0);
        let mut now = vec![1; BLOCK];
        after.read_at(2 * BLOCK as u64, &mut now).unwrap();
        assert!(now == was, "{behind}");
    }
}

#[test]
fn lost_blocks_are_given_up() {
    let lost = mended(&entry(1, 1 << 24), "VHD-BLOCK-LOST");
    let image = plainly(Arc::new(lost)).unwrap();
    let mut bytes = vec![1; BLOCK];
    image.read_at(BLOCK as u64, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    for sector in [0, 1, 2, 3] {
        mended(&entry(0, sector), "VHD-BLOCK-IN-METADATA");
    }
}

#[test]
fn a_block_cut_by_the_end_is_kept_as_far_as_it_goes() {
    let good = dynamic();
    // The last block holds 70,144 bytes of the disk; its noise begins at 60,000.
    let cut = good[..DATA + 2 * SLOT + 512 + 62_000].to_vec();
    let image = plainly(Arc::new(cut.clone())).unwrap();
    assert!(
        image
            .read_at(3 * BLOCK as u64 + 60_000, &mut [0; 8])
            .is_err()
    );
    let found = image.check().unwrap();
    assert!(found.counts().contains_key("VHD-FOOTER"));
    let done = mended(&cut, "VHD-BLOCK-CUT");
    let mut tail = vec![1; 5000];
    let image = plainly(Arc::new(done)).unwrap();
    image.read_at(3 * BLOCK as u64 + 60_000, &mut tail).unwrap();
    assert!(tail[..2000] == fill(Kind::Noise(9), 5000)[..2000]);
    assert!(tail[2000..].iter().all(|byte| *byte == 0));
    // A footer at once behind what the disk needs: all is read, but not by qemu-img.
    let short = [
        &good[..DATA + 2 * SLOT + 512 + 70_144],
        &good[good.len() - 512..],
    ]
    .concat();
    let image = plainly(Arc::new(short.clone())).unwrap();
    assert!(
        image
            .read_at(3 * BLOCK as u64 + 60_000, &mut [0; 5000])
            .is_ok()
    );
    assert!(mended(&short, "VHD-BLOCK-SHORT") == good);
    // One that lies over the last footer.
    let over = entry(0, (good.len() - 512) / 512 - 3);
    mended(&over, "VHD-BLOCK-CUT");
}

#[test]
fn clear_bits_over_data_are_found_where_xen_server_reads_zeros_and_set() {
    let good = dynamic();
    // Sector 1 of the first block holds data, sector 20 none.
    let zeros = with(good.clone(), DATA + 2, &[0xf7]);
    let image = plainly(Arc::new(zeros)).unwrap();
    assert_eq!(codes(image.check().unwrap().list()), [""; 0]);
    let clear = with(good.clone(), DATA, &[0xbf]);
    let image = plainly(Arc::new(clear.clone())).unwrap();
    let found = image.check().unwrap();
    let finding = found
        .list()
        .iter()
        .find(|f| f.rule.code == "VHD-BITMAP-CLEAR")
        .unwrap();
    assert_eq!(
        (finding.offset, finding.rule.severity),
        (DATA as u64, Severity::Warning)
    );
    assert!(finding.found.contains("1 sectors"), "{}", finding.found);
    assert!(mended(&clear, "VHD-BITMAP-CLEAR") == good);
}

#[test]
fn a_table_that_is_too_short_is_read_as_far_as_it_goes() {
    let bytes = seal(with(dynamic(), 512 + 0x1c, &[0, 0, 0, 2]), 512, 1024, 0x24);
    let image = plainly(Arc::new(bytes)).unwrap();
    assert!(codes(image.info().findings.list()).contains(&"VHD-BAT-SHORT"));
    assert!(image.read_at(0, &mut [0; 8]).is_ok());
    let error = image
        .read_at(2 * BLOCK as u64, &mut [0; 8])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("2 entries") && error.contains("needs 4"),
        "{error}"
    );
}

#[test]
fn a_fixed_disk_gets_the_length_that_its_footer_says() {
    let good = fixed();
    let last = good.len() - 512;
    let of_size = |size: u64| {
        let bytes = with(good.clone(), last + 0x30, &size.to_be_bytes());
        seal(bytes, last, 512, 0x40)
    };
    for size in [last as u64 - 512, last as u64 - 100, 512, 0, 1000] {
        let done = repaired(&of_size(size), &["VHD-FIXED-LENGTH"], &plainly);
        assert_eq!(done.len() as u64, size - size % 512 + 512);
    }
    for size in [last as u64 + 512, last as u64 + 70_000] {
        let bytes = of_size(size);
        let image = plainly(Arc::new(bytes.clone())).unwrap();
        assert_eq!(
            codes(image.info().findings.list())[..2],
            ["VHD-FIXED-CUT", "VHD-FIXED-LENGTH"]
        );
        assert!(image.read_at(last as u64 - 8, &mut [0; 8]).is_ok());
        assert!(image.read_at(last as u64, &mut [0; 8]).is_err());
        repaired(&bytes, &["VHD-FIXED-CUT", "VHD-FIXED-LENGTH"], &plainly);
    }
    // The footer of a file that grew by less than a sector.
    let mut odd = good[..last].to_vec();
    odd.extend([1; 100]);
    odd.extend_from_slice(&good[last..]);
    let done = repaired(&odd, &["VHD-FIXED-LENGTH"], &plainly);
    assert!(done == good);
}

#[test]
fn what_belongs_to_the_geometry_of_virtual_pc_stays_its() {
    let options = VhdOptions {
        creator: Creator::VIRTUAL_PC,
        block_bytes: BLOCK as u32,
        ..VhdOptions::default()
    };
    let good = all(&*packed(&plan().disk(), &Target::VhdDynamic(options)));
    let last = good.len() - 512;
    let bytes = with(good, last + 0x60, &[1]);
    let before = open_vhd(Arc::new(bytes.clone()), VhdSize::Current, &Limits::DEFAULT).unwrap();
    let done = repaired(&bytes, &["VHD-FOOTER"], &plainly);
    let after = open_vhd(Arc::new(done), VhdSize::Current, &Limits::DEFAULT).unwrap();
    assert!(readable(&before) == readable(&after));
}

#[test]
fn every_rule_says_what_comes_of_it() {
    let all = drylab_image::rules();
    let rules = all.iter().filter(|rule| rule.code.starts_with("VHD-"));
    assert_eq!(rules.clone().count(), 26);
    assert!(
        rules
            .clone()
            .all(|rule| !rule.clause.is_empty() && !rule.effect.is_empty())
    );
}

/// A small file to change bytes of.
fn small(dynamic: bool) -> Vec<u8> {
    let plan = Plan {
        size: 1_300_480,
        pieces: vec![
            Piece {
                offset: 100,
                length: 900,
                kind: Kind::Noise(1),
            },
            Piece {
                offset: 600_000,
                length: 900,
                kind: Kind::Noise(2),
            },
            Piece {
                offset: 1_299_000,
                length: 900,
                kind: Kind::Noise(3),
            },
        ],
    };
    let options = VhdOptions {
        block_bytes: BLOCK as u32,
        ..VhdOptions::default()
    };
    let target = if dynamic {
        Target::VhdDynamic(options)
    } else {
        Target::VhdFixed(options)
    };
    all(&*packed(&plan.disk(), &target))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn files_with_a_few_changed_bytes_are_mended_to_the_bytes_that_could_be_read(
        dynamic: bool,
        edits in prop::collection::vec((prop_oneof![2 => 0..96usize, 3 => 512..560usize, 4 => 1536..1552usize, 2 => 2048..2200usize], prop_oneof![any::<u8>(), 0..4u8], any::<bool>()), 1..6),
        cut in prop::option::weighted(0.3, any::<usize>()),
    ) {
        thread_local!(static VALID: [Vec<u8>; 2] = [small(false), small(true)]);
        let mut bytes = VALID.with(|valid| valid[usize::from(dynamic)].clone());
        for (at, value, back) in edits {
            let at = if back { bytes.len() - 512 + at % 96 } else { at };
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::vhd_repair(&bytes);
    }
}

#[test]
fn an_old_footer_that_the_new_one_overlaps_is_cleared_only_in_front_of_it() {
    // Both end the file at no whole sector, so that the new footer begins within the old one: blocks of 512 bytes, and a
    // fixed disk that is longer than what stands in front of its footer. In the third, a block is copied to where the rest
    // of the old one was; in the last, the old one would end the file, and count, if that were lengthened first.
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/fuzz/vhd_repair");
    for name in [
        "footer-over-the-old-one",
        "fixed-footer-within-the-old-one",
        "block-copied-over-the-old-footer",
        "old-footer-that-would-end-the-file",
    ] {
        let bytes = std::fs::read(format!("{corpus}/{name}")).unwrap();
        drylab_image::fuzz::vhd_repair(&bytes);
    }
}

#[test]
fn a_header_that_blocks_and_end_prove_is_mended_before_the_footer_goes_to_the_end() {
    // The cookie's second byte is wrong, and 800 bytes are behind the last block: with the footer behind them, at a whole
    // sector, the gap has room for a block, and nothing is proved any more.
    let path = "/../../corpora/fuzz/vhd_repair/header-proved-by-the-end";
    let bytes = std::fs::read(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    drylab_image::fuzz::vhd_repair(&bytes);
    let image = plainly(Arc::new(bytes)).unwrap();
    let header = image.repair().unwrap().edits().first().cloned();
    assert!(
        matches!(header, Some(Edit::Write { offset: 512, .. })),
        "{header:?}"
    );
}
