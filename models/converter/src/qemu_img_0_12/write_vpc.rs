//! The writer of dynamic VHD.
//!
//! ```text
//! footer copy | dynamic header | block table, padded | (sector bitmap, 2 MiB)* | footer
//! ```
//!
//! The size is what the geometry gives (quirk GQ108), `data offset` of the dynamic header has only its low 32 bits set
//! (quirk GQ107), and the footer behind the data is written anew with checksum 0 whenever a block is added.

use super::vpc::{UNUSED, bitmap_bytes, checksum};
use crate::math::{SECTOR, bytes, div, index, len64, rem, round_up};
use crate::qemu_img::runs::for_each_run;
use drylab_block::{ReadAt, Result, SparseBytes, WriteAt};

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 2 << 20;
const TABLE_AT: u64 = 1536;
/// Seconds since 2000 that we write: the tool takes the time, we have none and must not write 0.
const TIMESTAMP: u32 = 0x1740_a000;

/// Cylinders, heads and sectors of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u16,
    pub(crate) heads: u8,
    pub(crate) per_track: u8,
}

impl Geometry {
    /// The geometry for a number of sectors; `None` when there is none. The division by the sectors of a track drops the
    /// rest, only the one by the heads rounds up, so that a disk may grow or shrink.
    pub(crate) fn of(sectors: u64) -> Option<Self> {
        if sectors > 65_535 * 16 * 255 {
            return None;
        }
        let (heads, per_track) = if sectors > 65_535 * 16 * 63 {
            (16, 255)
        } else {
            let tracks = div(sectors, 17);
            let heads = div(tracks.saturating_add(1023), 1024).max(4);
            let small = heads <= 16 && tracks < heads.saturating_mul(1024);
            match (small, div(sectors, 31) < 16 * 1024) {
                (true, _) => (heads, 17),
                (false, true) => (16, 31),
                (false, false) => (16, 63),
            }
        };
        let cylinders = div(sectors, per_track).div_ceil(heads.max(1));
        Some(Self {
            cylinders: u16::try_from(cylinders).ok()?,
            heads: u8::try_from(heads).ok()?,
            per_track: u8::try_from(per_track).ok()?,
        })
    }

    pub(crate) fn sectors(self) -> u64 {
        u64::from(self.cylinders)
            .saturating_mul(u64::from(self.heads))
            .saturating_mul(u64::from(self.per_track))
    }
}

fn put(target: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = target.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

fn footer(geometry: Geometry) -> Vec<u8> {
    let mut footer = vec![0u8; 512];
    let size = bytes(geometry.sectors()).to_be_bytes();
    put(&mut footer, 0x00, b"conectix");
    put(&mut footer, 0x08, &2u32.to_be_bytes());
    put(&mut footer, 0x0c, &0x0001_0000u32.to_be_bytes());
    put(&mut footer, 0x10, &512u64.to_be_bytes());
    put(&mut footer, 0x18, &TIMESTAMP.to_be_bytes());
    put(&mut footer, 0x1c, b"qemu");
    put(&mut footer, 0x20, &0x0005_0003u32.to_be_bytes());
    put(&mut footer, 0x24, b"Wi2k");
    put(&mut footer, 0x28, &size);
    put(&mut footer, 0x30, &size);
    put(&mut footer, 0x38, &geometry.cylinders.to_be_bytes());
    put(&mut footer, 0x3a, &[geometry.heads, geometry.per_track]);
    put(&mut footer, 0x3c, &3u32.to_be_bytes());
    let sum = checksum(&footer, 0x40);
    put(&mut footer, 0x40, &sum.to_be_bytes());
    footer
}

fn header(entries: u32) -> Vec<u8> {
    let mut header = vec![0u8; 1024];
    put(&mut header, 0x00, b"cxsparse");
    put(&mut header, 0x08, &0xffff_ffffu64.to_be_bytes());
    put(&mut header, 0x10, &TABLE_AT.to_be_bytes());
    put(&mut header, 0x18, &0x0001_0000u32.to_be_bytes());
    put(&mut header, 0x1c, &entries.to_be_bytes());
    put(
        &mut header,
        0x20,
        &u32::try_from(BLOCK).unwrap_or(0).to_be_bytes(),
    );
    let sum = checksum(&header, 0x24);
    put(&mut header, 0x24, &sum.to_be_bytes());
    header
}

/// Blocks that the table of a disk of `size` bytes has entries for.
pub(crate) fn blocks(size: u64) -> u64 {
    div(size, BLOCK).saturating_add(1)
}

/// Writes an empty disk; the result is where the first block would stand.
pub(crate) fn create(geometry: Geometry, sink: &SparseBytes) -> Result<u64> {
    let entries = blocks(bytes(geometry.sectors()));
    let table = round_up(entries.saturating_mul(4), SECTOR);
    let end = TABLE_AT.saturating_add(table);
    sink.write_at(0, &footer(geometry))?;
    sink.write_at(512, &header(u32::try_from(entries).unwrap_or(u32::MAX)))?;
    sink.write_at(TABLE_AT, &vec![0xff; index(table)])?;
    sink.write_at(end, &footer(geometry))?;
    Ok(end)
}

/// Writes a disk; the result is the sector at which the tool gave up, when a run of data ends behind the geometry.
pub(crate) fn write(
    disk: &dyn ReadAt,
    geometry: Geometry,
    sink: &SparseBytes,
) -> Result<Option<u64>> {
    let mut end = create(geometry, sink)?;
    let mut failed = None;
    let mut block: Option<(u64, u64)> = None;
    let bitmap = bitmap_bytes(BLOCK);
    for_each_run(disk, &mut |sector, run| {
        if sector.saturating_add(div(len64(run), SECTOR)) > geometry.sectors() {
            failed = Some(sector);
            return Ok(false);
        }
        let start = bytes(sector);
        let mut done = 0u64;
        while done < len64(run) {
            let at = start.saturating_add(done);
            let number = div(at, BLOCK);
            let place = match block {
                Some((open, place)) if open == number => place,
                _ => {
                    let place = end;
                    let entry = u32::try_from(div(place, SECTOR)).unwrap_or(UNUSED);
                    let slot = TABLE_AT.saturating_add(number.saturating_mul(4));
                    sink.write_at(slot, &entry.to_be_bytes())?;
                    sink.write_at(place, &vec![0xff; index(bitmap)])?;
                    end = place.saturating_add(bitmap).saturating_add(BLOCK);
                    block = Some((number, place));
                    place
                }
            };
            let within = rem(at, BLOCK);
            let taken = BLOCK
                .saturating_sub(within)
                .min(len64(run).saturating_sub(done));
            let part = drylab_block::slice_at(run, index(done), index(taken)).unwrap_or_default();
            sink.write_at(place.saturating_add(bitmap).saturating_add(within), part)?;
            done = done.saturating_add(taken);
        }
        Ok(true)
    })?;
    if block.is_some() {
        let mut last = footer(geometry);
        put(&mut last, 0x40, &[0; 4]);
        sink.write_at(end, &last)?;
        sink.set_len(end.saturating_add(512))?;
    }
    Ok(failed)
}
