//! The reader of VDI 1.1.
//!
//! ```text
//! 0x40 signature, 0x44 version, 0x154 block table, 0x158 data, 0x168 sector size, 0x170 disk size, 0x178 block size,
//! 0x180 blocks, 0x1a8 link to another image, 0x1b8 parent (both all zeros here)
//! ```
//!
//! A disk that is no whole number of 1 MiB blocks is refused (quirk GQ119).

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{SECTOR, div, index, rem};
use drylab_block::{Error, Result, le_u32, le_u64, slice_at};

/// Signature at 0x40.
pub(crate) const SIGNATURE: u32 = 0xbeda_107f;
const BLOCK: u64 = 1 << 20;
/// From here on entries mean that a block has no place: -2 is discarded, -1 never written.
const NOWHERE: u32 = 0xffff_fffe;

struct Blocks {
    table: Vec<u8>,
    data: u64,
}

impl Map for Blocks {
    fn run(&self, _file: &Padded, offset: u64) -> Result<Run> {
        let within = rem(offset, BLOCK);
        let at = index(div(offset, BLOCK).saturating_mul(4));
        let place = match le_u32(&self.table, at) {
            None => return Ok(Run::REST),
            Some(NOWHERE..) => Place::Zeros,
            Some(block) => Place::At(
                u64::from(block)
                    .saturating_mul(BLOCK)
                    .saturating_add(self.data)
                    .saturating_add(within),
            ),
        };
        Ok(Run {
            length: BLOCK.saturating_sub(within),
            place,
        })
    }
}

/// Opens a disk.
pub(crate) fn open(file: Padded) -> Result<Disk> {
    let head: [u8; 512] = file.head()?;
    let word = |at| le_u32(&head, at).unwrap_or(0);
    let size = le_u64(&head, 0x170).unwrap_or(0);
    let blocks = u64::from(word(0x180));
    let whole = size == blocks.saturating_mul(BLOCK);
    let alone = slice_at(&head, 0x1a8, 32).is_some_and(|uuids| uuids.iter().all(|byte| *byte == 0));
    let fits = word(0x40) == SIGNATURE
        && word(0x44) == 0x0001_0001
        && rem(u64::from(word(0x154)), SECTOR) == 0
        && rem(u64::from(word(0x158)), SECTOR) == 0
        && word(0x168) == 512
        && u64::from(word(0x178)) == BLOCK;
    if !(fits && whole && alone) {
        return Err(Error::unsupported(format_args!(
            "VDI of {size} bytes in {blocks} blocks of {} bytes, version {:#x}",
            word(0x178),
            word(0x44)
        )));
    }
    let table = file.table(
        "VDI block table",
        u64::from(word(0x154)),
        blocks.saturating_mul(4),
    )?;
    let map = Blocks {
        table,
        data: u64::from(word(0x158)),
    };
    Ok(Disk {
        file,
        sectors: div(size, SECTOR),
        map: Box::new(map),
        backing: None,
    })
}
