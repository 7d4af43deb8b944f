//! Dynamic VHDs with one wrong field in the dynamic header: its checksum says so, and the rest of the file says which.

use crate::common::{Kind, Piece, Plan, have_qemu_img, packed};
use crate::vdi_proof::{all_of, with, wrong};
use crate::vhd_steps::{all, codes, plainly, qemu_reads, repaired, sparse};
use drylab_block::{Severity, SparseBytes, WriteAt};
use drylab_image::{Target, VhdOptions};
use std::sync::Arc;

const BLOCK: u64 = 512 << 10;
/// Where the dynamic header stands.
const HEADER: usize = 512;

/// Disks of four blocks with three stored, of one block, of none, and of blocks of 2 MiB.
fn images() -> Vec<Vec<u8>> {
    let piece = |offset: u64, seed| Piece {
        offset,
        length: 5000,
        kind: Kind::Noise(seed),
    };
    let small = VhdOptions {
        block_bytes: BLOCK as u32,
        ..VhdOptions::qemu(true)
    };
    let some = vec![
        piece(0, 3),
        piece(BLOCK + 7, 5),
        piece(3 * BLOCK + 60_000, 9),
    ];
    let written = |size, pieces, options| {
        let plan = Plan { size, pieces };
        all(&*packed(&plan.disk(), &Target::VhdDynamic(options)))
    };
    vec![
        written(3 * BLOCK + 70_144, some, small.clone()),
        written(BLOCK, vec![piece(700, 4)], small.clone()),
        written(9 * BLOCK, Vec::new(), small),
        written(8 << 20, vec![piece(5 << 20, 4)], VhdOptions::qemu(true)),
    ]
}

/// Each of the places that the checksum allows would have to be read: the table is most of the file, and it stays in doubt.
#[test]
fn a_header_whose_tables_would_cost_too_much_is_not_proved_and_nothing_is_repaired() {
    let options = VhdOptions {
        block_bytes: BLOCK as u32,
        ..VhdOptions::default()
    };
    let disk = SparseBytes::new(512 << 30);
    for place in [0, 1 << 30, 511 << 30] {
        disk.write_at(place, &[7; 4096]).unwrap();
    }
    let good = all(&*packed(&disk, &Target::VhdDynamic(options)));
    // What was stored was 0x600, behind the header. Where another place alone may be meant, it is looked at; of three none.
    for (new, code) in [
        ([0u8, 0x46], "VHD-HEADER-FIELD"),
        ([2, 0], "VHD-HEADER-DOUBT"),
    ] {
        let bytes = with(good.clone(), HEADER + 0x15, &new);
        let image = plainly(Arc::new(bytes.clone())).unwrap();
        let found = image.check().unwrap();
        assert!(found.counts().contains_key(code), "{:?}", found.counts());
        match code {
            "VHD-HEADER-FIELD" => {
                let done = sparse(&bytes);
                image.repair().unwrap().apply(&done).unwrap();
                assert!(all(&done) == good);
            }
            _ => assert!(image.repair().is_err()),
        }
    }
}

#[test]
fn a_repair_after_one_wrong_bit_in_the_dynamic_header_gives_the_disk_back_or_is_refused() {
    let mut found = Vec::new();
    let mut left = Vec::new();
    for (which, good) in images().into_iter().enumerate() {
        let disk = all(&plainly(Arc::new(good.clone())).unwrap());
        for at in HEADER..HEADER + 0x40 {
            for bit in 0..8 {
                let bytes = with(good.clone(), at, &[good[at] ^ (1 << bit)]);
                if let Some(why) = wrong(&bytes, &disk) {
                    found.push(format!("image {which}, bit {bit} of {at:#x}: {why}"));
                }
                let is_mended = plainly(Arc::new(bytes)).is_ok_and(|image| {
                    image.repair().is_ok() && all_of(&image).is_some_and(|now| now == disk)
                });
                if !is_mended {
                    left.push((which, at - HEADER, bit));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    // Of a disk without blocks, one entry instead of nine fits blocks of 256 MiB as well.
    assert_eq!(left, [(2, 0x1f, 3)], "all others are mended");
}

#[test]
fn a_field_with_which_the_checksum_is_right_and_the_blocks_fit_is_read_and_mended() {
    for (good, at, new) in [
        (0usize, 534, &[7u8][..]),
        (0, 534, &[0x16]),
        (0, 545, &[0x10]),
        (3, 534, &[7]),
        (3, 545, &[0x10]),
        (3, 545, &[0x40]),
        (0, 543, &[3]),
        (0, 543, &[5]),
        // Two bytes of a field, and what is refused as it stands.
        (0, 534, &[0x10, 0x80]),
        (3, 544, &[1, 2, 3, 4]),
        (0, 512, b"dxsparse"),
        (0, 536, &[9]),
    ] {
        let good = images().swap_remove(good);
        let bytes = with(good.clone(), at, new);
        let image = plainly(Arc::new(bytes.clone())).unwrap();
        let disk = all(&plainly(Arc::new(good.clone())).unwrap());
        assert!(all(&image) == disk, "byte {at}");
        let found = image.check().unwrap();
        assert_eq!(found.worst(), Some(Severity::Error));
        assert_eq!(
            codes(found.list()),
            ["VHD-HEADER-CHECKSUM", "VHD-HEADER-FIELD"]
        );
        let done = repaired(&bytes, &["VHD-HEADER-FIELD"], &plainly);
        assert!(done == good, "byte {at}");
        if have_qemu_img() {
            qemu_reads(&done, "vpc");
        }
    }
}

#[test]
fn a_checksum_alone_that_is_wrong_is_a_warning_and_mended_since_the_blocks_fit_the_header() {
    for good in images() {
        let bytes = with(good.clone(), HEADER + 0x25, &[good[HEADER + 0x25] ^ 0x10]);
        let image = plainly(Arc::new(bytes.clone())).unwrap();
        let found = image.check().unwrap();
        assert_eq!(codes(found.list()), ["VHD-HEADER-CHECKSUM"]);
        assert_eq!(found.worst(), Some(Severity::Warning));
        assert!(repaired(&bytes, &["VHD-HEADER-CHECKSUM"], &plainly) == good);
    }
}

/// Two fields are wrong: no value of one of them makes the checksum right.
#[test]
fn a_wrong_checksum_is_not_made_anew_over_a_header_that_nothing_proves() {
    let good = images().swap_remove(0);
    let bytes = with(with(good, 534, &[7]), 0x300, &[1]);
    let image = plainly(Arc::new(bytes)).unwrap();
    let found = image.check().unwrap();
    assert_eq!(
        codes(found.list()),
        ["VHD-HEADER-CHECKSUM", "VHD-HEADER-DOUBT"]
    );
    assert_eq!(found.worst(), Some(Severity::Error));
    let error = image.repair().map(drop).unwrap_err().to_string();
    assert!(
        error.contains("VHD-HEADER-DOUBT") && error.contains("nothing is written"),
        "{error}"
    );
    let error = image.resize(1 << 30).map(drop).unwrap_err().to_string();
    assert!(error.contains("VHD-HEADER"), "{error}");
}
