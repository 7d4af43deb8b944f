//! VDIs with one wrong field in the header: what the rest of the file proves is read and mended, the rest is left alone.

use crate::common::{Kind, Piece, Plan, have_qemu_img, packed};
use crate::vhd_steps::{all, codes, plainly, qemu_reads, repaired, sparse};
use drylab_block::{ReadAt, Severity};
use drylab_image::{Target, VdiOptions};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
/// Bytes of the header that say how the disk is stored: offBlocks and offData; cbDisk to cBlocksAllocated.
const FIELDS: [std::ops::Range<usize>; 2] = [0x154..0x160, 0x170..0x188];

/// Five blocks, of which four hold data when the file is dynamic.
fn disk() -> Plan {
    let piece = |offset: u64, seed| Piece {
        offset,
        length: 5000,
        kind: Kind::Noise(seed),
    };
    Plan {
        size: 4 * MIB + 70_144,
        pieces: vec![
            piece(0, 3),
            piece(MIB + 7, 5),
            piece(3 * MIB, 7),
            piece(4 * MIB, 9),
        ],
    }
}

/// Images of that disk as qemu-img and as we lay them out, dynamic and fixed, and an empty one.
fn images() -> Vec<Vec<u8>> {
    let empty = Plan {
        size: 8 * MIB,
        pieces: Vec::new(),
    };
    let (disk, empty) = (disk().disk(), empty.disk());
    let written = |disk: &dyn ReadAt, target| all(&*packed(disk, &target));
    vec![
        written(&disk, Target::VdiDynamic(VdiOptions::qemu())),
        written(&disk, Target::VdiDynamic(VdiOptions::default())),
        written(&disk, Target::VdiFixed(VdiOptions::qemu())),
        written(&disk, Target::VdiFixed(VdiOptions::default())),
        written(&empty, Target::VdiDynamic(VdiOptions::qemu())),
    ]
}

fn qemu() -> Vec<u8> {
    images().swap_remove(0)
}

pub(crate) fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// What comes of a repair of `file`: why it is wrong, if it is.
pub(crate) fn wrong(file: &[u8], disk: &[u8]) -> Option<String> {
    let image = plainly(Arc::new(file.to_vec())).ok()?;
    let plan = image.repair().ok()?;
    let done = Arc::new(sparse(file));
    plan.apply(&*done).unwrap();
    let again = plainly(done).unwrap();
    let left = again.check().unwrap();
    let reads = again.len() == disk.len() as u64 && all_of(&again).is_some_and(|now| now == disk);
    // A map with more entries than the disk has blocks tells of a disk that was longer.
    let says =
        left.worst() == Some(Severity::Error) || left.counts().contains_key("VDI-BLOCKS-SPARE");
    (!reads && !says).then(|| format!("{:?} before, {:?} left", plan.notes(), codes(left.list())))
}

pub(crate) fn all_of(image: &dyn ReadAt) -> Option<Vec<u8>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(0, &mut bytes).ok().map(|()| bytes)
}

/// Of cbDisk nothing but the number of blocks stands elsewhere: bits that leave that as it is cannot be told.
#[test]
fn a_repair_after_one_wrong_bit_in_the_header_gives_the_disk_back_or_is_refused() {
    let mut found = Vec::new();
    for (which, good) in images().into_iter().enumerate() {
        let disk = all(&plainly(Arc::new(good.clone())).unwrap());
        let blocks = (disk.len() as u64).div_ceil(MIB);
        for at in FIELDS.into_iter().flatten() {
            for bit in 0..8 {
                let bytes = with(good.clone(), at, &[good[at] ^ (1 << bit)]);
                let size = u64::from_le_bytes(bytes[0x170..0x178].try_into().unwrap());
                let is_size = (0x170..0x178).contains(&at);
                if is_size && size.div_ceil(MIB) == blocks {
                    continue;
                }
                if let Some(why) = wrong(&bytes, &disk) {
                    found.push(format!("image {which}, bit {bit} of {at:#x}: {why}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_field_that_the_rest_of_the_file_proves_wrong_is_read_and_mended_as_it_was() {
    for good in &images()[..4] {
        let disk = all(&plainly(Arc::new(good.clone())).unwrap());
        for (at, bit) in [
            (380, 2u8),
            (383, 1),
            (345, 2),
            (347, 1),
            (341, 4),
            (0x17a, 4),
            (0x180, 1),
        ] {
            let bytes = with(good.clone(), at, &[good[at] ^ bit]);
            let image = plainly(Arc::new(bytes.clone())).unwrap();
            assert!(all(&image) == disk, "byte {at}");
            assert_eq!(image.check().unwrap().worst(), Some(Severity::Error));
            let done = repaired(&bytes, &["VDI-HEADER-FIELD"], &plainly);
            assert!(done == *good, "byte {at}");
        }
    }
    if have_qemu_img() {
        qemu_reads(&qemu(), "vdi");
    }
}

/// A file that is longer than its blocks proves nothing of its header.
#[test]
fn a_repair_that_would_give_up_most_blocks_is_refused_and_names_the_field_in_doubt() {
    let longer = |at| [with(qemu(), at, &[1]), vec![0; 512]].concat();
    for (at, field) in [(383, "cbBlockExtra"), (0x15b, "offData")] {
        let bytes = longer(at);
        let image = plainly(Arc::new(bytes)).unwrap();
        let found = image.check().unwrap();
        assert_eq!(found.worst(), Some(Severity::Error), "{field}");
        let error = image.repair().map(drop).unwrap_err().to_string();
        assert!(
            error.contains(field) && error.contains("nothing is written"),
            "{error}"
        );
    }
    // Where no block is lost nothing is given up, and the doubt is left.
    let image = plainly(Arc::new(longer(0x15a))).unwrap();
    let found = image.check().unwrap();
    assert!(found.counts().contains_key("VDI-HEADER-DOUBT"));
    assert!(image.repair().unwrap().is_empty());
    // Of a file that lost most of its end the header is not in doubt, and nothing is given up either.
    let cut = qemu()[..1024 + MIB as usize].to_vec();
    let error = plainly(Arc::new(cut)).unwrap().repair().map(drop);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("3 of 4") && error.contains("most of the file is gone"),
        "{error}"
    );
}

/// With the entry freed the map would prove another block size: what is read would change between two steps of the repair.
#[test]
fn an_entry_is_not_given_up_while_the_header_is_in_doubt() {
    let odd_block = with(qemu(), 0x178, &(MIB as u32 + 512).to_le_bytes());
    let entry = 512 + 2 * 4;
    let bytes = with(odd_block, entry, &0x7fff_fffe_u32.to_le_bytes());
    let image = plainly(Arc::new(bytes.clone())).unwrap();
    let found = image.check().unwrap();
    for code in ["VDI-HEADER-DOUBT", "VDI-BLOCK-LOST"] {
        assert!(found.counts().contains_key(code), "{code}");
    }
    let error = image.repair().map(drop).unwrap_err().to_string();
    assert!(
        error.contains("1 of 5") && error.contains("cbBlock may be wrong"),
        "{error}"
    );
    let freed = with(bytes, entry, &[0xff; 4]);
    let found = plainly(Arc::new(freed)).unwrap().check().unwrap();
    assert_eq!(codes(found.list()), ["VDI-HEADER-FIELD"]);
}

/// cBlocks is one too few, so that the last entry is not read: what a step writes beside it may make it fit.
#[test]
fn a_repair_of_which_a_step_would_prove_another_header_is_refused_and_names_the_field() {
    let short = |image: Vec<u8>| with(image, 0x180, &4u32.to_le_bytes());
    let refused = |bytes: Vec<u8>, after: Vec<u8>| {
        let image = plainly(Arc::new(bytes)).unwrap();
        let found = image.check().unwrap();
        assert!(!found.counts().contains_key("VDI-HEADER-FIELD"));
        let error = image.repair().map(drop).unwrap_err().to_string();
        assert!(
            error.contains("fits another header, cBlocks") && error.contains("nothing is written"),
            "{error}"
        );
        let found = plainly(Arc::new(after)).unwrap().check().unwrap();
        assert!(found.counts().contains_key("VDI-HEADER-FIELD"));
    };
    // The block that is not there stands nowhere in the file: freed, the five entries are whole.
    let lost = with(qemu(), 512 + 2 * 4, &0x7fff_fffe_u32.to_le_bytes());
    refused(short(lost), short(qemu()));
    // The file is cut in its last block, whose number is too large for four: made longer, and before that block moves, the
    // five entries are whole.
    let turned = with(images().swap_remove(2), 512 + 4, &4u32.to_le_bytes());
    let turned = short(with(turned, 512 + 4 * 4, &1u32.to_le_bytes()));
    refused(turned[..turned.len() - 512].to_vec(), turned);
}

#[test]
fn a_disk_shorter_than_its_map_is_found_by_the_blocks_behind_it() {
    let bytes = with(qemu(), 0x170, &(2 * MIB).to_le_bytes());
    let image = plainly(Arc::new(bytes)).unwrap();
    let found = image.check().unwrap();
    assert_eq!(
        codes(found.list()),
        ["VDI-BLOCKS-SPARE", "VDI-BLOCK-BEHIND"]
    );
    assert_eq!(found.counts()["VDI-BLOCK-BEHIND"], 2);
    assert!(image.repair().unwrap().is_empty());
}

#[test]
fn what_qemu_img_refuses_of_version_and_parent_is_found_and_mended() {
    for (at, new, code) in [
        (68, &[0u8][..], "VDI-VERSION"),
        (68, &[2], "VDI-VERSION"),
        (0x1b8, &[5; 16], "VDI-PARENT-MODIFY"),
    ] {
        let bytes = with(qemu(), at, new);
        let found = plainly(Arc::new(bytes.clone())).unwrap().check().unwrap();
        assert_eq!(codes(found.list()), [code]);
        let done = repaired(&bytes, &[code], &plainly);
        assert!(done == qemu());
        if have_qemu_img() {
            let (_folder, path) = crate::vhd_steps::on_disk(&bytes);
            let path = path.to_str().unwrap();
            let said = crate::common::try_qemu_img(&["info", "-f", "vdi", path]);
            assert!(!said.status.success(), "{said:?}");
        }
    }
    // With a link beside it, it may be the type that is wrong: that is for a person to say.
    let bytes = with(qemu(), 0x1a8, &[5; 32]);
    let image = plainly(Arc::new(bytes)).unwrap();
    assert_eq!(codes(image.check().unwrap().list()), ["VDI-LINKAGE"]);
    assert!(image.repair().unwrap().is_empty());
}
