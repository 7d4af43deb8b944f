//! The reader of VHD: dynamic disks that begin with a copy of the footer.
//!
//! ```text
//! footer at 0: "conectix", 0x10 data offset, 0x30 current size (not used), 0x38 cylinders/heads/sectors, 0x40 checksum
//! dynamic header at the data offset: "cxsparse", 0x10 table offset, 0x1c entries, 0x20 block size, 0x24 checksum (not checked)
//! block = sector bitmap (not used), then data
//! ```
//!
//! The size of the disk is cylinders x heads x sectors (quirk GQ112), at most 65535 x 16 x 255 sectors (quirk GQ113). The
//! checksum of the footer is compared, and a wrong one only mentioned. A fixed disk has no footer in front and is not known
//! (quirk GQ115); a differencing disk is read without its parent.

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{SECTOR, bytes, div, div_up, index, rem, round_up};
use drylab_block::{Error, Result, be_u16, be_u32, be_u64};

/// Offset of an unused block.
pub(crate) const UNUSED: u32 = u32::MAX;

struct Blocks {
    table: Vec<u8>,
    block: u64,
    bitmap: u64,
}

impl Map for Blocks {
    fn run(&self, _file: &Padded, offset: u64) -> Result<Run> {
        let within = rem(offset, self.block);
        let number = div(offset, self.block);
        let place = match be_u32(&self.table, index(number.saturating_mul(4))) {
            None => return Ok(Run::REST),
            Some(UNUSED) => Place::Zeros,
            Some(sector) => Place::At(
                bytes(u64::from(sector))
                    .saturating_add(self.bitmap)
                    .saturating_add(within),
            ),
        };
        Ok(Run {
            length: self.block.saturating_sub(within),
            place,
        })
    }
}

/// Bytes of the sector bitmap of a block.
pub(crate) fn bitmap_bytes(block: u64) -> u64 {
    round_up(div_up(div(block, SECTOR), 8), SECTOR)
}

/// One's complement of the sum of all bytes but the checksum's own four.
pub(crate) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    let others = bytes
        .iter()
        .enumerate()
        .filter(|(position, _)| !own.contains(position));
    let sum = others.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

/// Opens a disk; the flag says that the footer's checksum is wrong.
pub(crate) fn open(file: Padded) -> Result<(Disk, bool)> {
    let footer: [u8; 512] = file.head()?;
    if !footer.starts_with(b"conectix") {
        return Err(Error::unsupported("no footer copy at the start"));
    }
    let wrong = be_u32(&footer, 0x40) != Some(checksum(&footer, 0x40));
    let cylinders = u64::from(be_u16(&footer, 0x38).unwrap_or(0));
    let [heads, per_track] =
        [0x3a, 0x3b].map(|at: usize| footer.get(at).map_or(0, |b| u64::from(*b)));
    let header = file.table(
        "VHD dynamic header",
        be_u64(&footer, 0x10).unwrap_or(0),
        1024,
    )?;
    if !header.starts_with(b"cxsparse") {
        return Err(Error::unsupported("no dynamic header"));
    }
    let block = u64::from(be_u32(&header, 0x20).unwrap_or(0));
    if block < SECTOR || rem(block, SECTOR) != 0 {
        return Err(Error::corrupt(format_args!("VHD blocks of {block} bytes")));
    }
    let entries = u64::from(be_u32(&header, 0x1c).unwrap_or(0));
    let table = file.table(
        "VHD block table",
        be_u64(&header, 0x10).unwrap_or(0),
        entries.saturating_mul(4),
    )?;
    let map = Blocks {
        table,
        block,
        bitmap: bitmap_bytes(block),
    };
    let disk = Disk {
        file,
        sectors: cylinders.saturating_mul(heads).saturating_mul(per_track),
        map: Box::new(map),
        backing: None,
    };
    Ok((disk, wrong))
}
