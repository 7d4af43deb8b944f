//! Writing fixed and dynamic disks.

use super::blocks::UNUSED;
use super::footer::{Footer, Kind, VERSION, seal};
use super::header::{HEADER_CHECKSUM_AT, HEADER_SIZE, bitmap_bytes};
use super::{DISK_BYTES_MAX, SECTOR, VhdOptions};
use crate::engine::{self, Work};
use crate::front::Front;
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::uuid;
use crate::write::Written;
use drylab_block::{Error, ReadAt, Result, WriteAt, be_u32};

/// Where the dynamic header stands: behind the copy of the footer.
pub(super) const HEADER_AT: u64 = 512;
/// Where the BAT stands: behind the dynamic header.
pub(super) const TABLE_AT: u64 = 1536;
/// Zeros handed out at a time in the stream of a fixed disk.
const ZEROS: u64 = 1 << 16;

/// The footer of a file that holds `disk`; its id is made of the content when none is given, see [`named`].
pub(super) fn plan(disk: &dyn ReadAt, options: &VhdOptions, kind: Kind) -> Result<Footer> {
    let (size, geometry) = options.fit.fitted(disk.len());
    if size > DISK_BYTES_MAX {
        return Err(Error::unsupported(format_args!(
            "VHD of {size} bytes, more than the {DISK_BYTES_MAX} (2040 GiB) of the format"
        )));
    }
    Ok(Footer {
        data_offset: if kind == Kind::Fixed {
            u64::MAX
        } else {
            HEADER_AT
        },
        timestamp: options.timestamp,
        creator: options.creator,
        creator_version: options.creator_version,
        creator_os: options.creator_os,
        original_size: size,
        current_size: size,
        geometry,
        kind,
        unique_id: options.unique_id.unwrap_or_default(),
        saved_state: false,
    })
}

/// The footer with the id that the digest of the content makes, unless one is given.
pub(super) fn named(footer: Footer, options: &VhdOptions, digest: u128) -> Footer {
    let unique_id = || uuid::made_of(digest, "VHD");
    Footer {
        unique_id: options.unique_id.unwrap_or_else(unique_id),
        ..footer
    }
}

/// Writes the data of `disk` and the footer, leaving out zeros; the result is the length of the file.
pub(crate) fn write_fixed(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let footer = plan(disk, options, Kind::Fixed)?;
    let name = options.unique_id.is_none();
    // The disk is one unit, and it stands at 0.
    let digest = engine::copy(disk, sink, (u64::MAX, name), work, |_| Ok(0))?;
    let footer = named(footer, options, digest);
    sink.write_at(footer.current_size, &footer.to_bytes())?;
    let length = footer.current_size.saturating_add(SECTOR);
    sink.set_len(length)?;
    Ok(length)
}

/// Hands out a fixed VHD front to back, zeros too, in pieces of up to 512 KiB. Nothing is gone back to.
///
/// # Errors
/// As [`write()`](crate::write()); the first error of `put` ends it.
pub fn stream_fixed(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    put: &mut (impl FnMut(&[u8]) -> Result<()> + Send),
) -> Result<Written> {
    let footer = plan(disk, options, Kind::Fixed)?;
    let mut front = Front::new(put);
    let zeros = vec![0u8; index(ZEROS)];
    let name = options.unique_id.is_none();
    let digest = engine::visit(disk, name, &Work::ALONE, |offset, bytes| {
        fill(&mut front, &zeros, offset)?;
        front.put(bytes)
    })?;
    fill(&mut front, &zeros, footer.current_size)?;
    front.put(&named(footer, options, digest).to_bytes())?;
    Ok(Written {
        file_bytes: front.at(),
    })
}

/// Hands out zeros up to `end`.
fn fill(front: &mut Front<'_>, zeros: &[u8], end: u64) -> Result<()> {
    while front.at() < end {
        let left = index(end.saturating_sub(front.at()));
        front.put(zeros.get(..left).unwrap_or(zeros))?;
    }
    Ok(())
}

/// The 1024 bytes of the dynamic header.
pub(super) fn header(entries: u32, block: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_SIZE);
    bytes.extend_from_slice(b"cxsparse");
    bytes.extend_from_slice(&u64::MAX.to_be_bytes());
    bytes.extend_from_slice(&TABLE_AT.to_be_bytes());
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&entries.to_be_bytes());
    bytes.extend_from_slice(&block.to_be_bytes());
    bytes.resize(HEADER_SIZE, 0);
    seal(&mut bytes, HEADER_CHECKSUM_AT);
    bytes
}

/// Refuses block sizes that programs in the field do not read.
pub(super) fn check_block(block: u64) -> Result<()> {
    if [512 << 10, 2 << 20].contains(&block) {
        return Ok(());
    }
    Err(Error::unsupported(format_args!(
        "VHD blocks of {block} bytes, written are 524288 and 2097152"
    )))
}

/// The bitmap in front of a block: all of its sectors are there.
pub(super) fn bitmap(block: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; index(div_up(div(block, SECTOR), 8))];
    bytes.resize(index(bitmap_bytes(block)), 0);
    bytes
}

/// Writes the blocks of `disk` that hold a byte other than zero; the result is the length of the file.
pub(crate) fn write_dynamic(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let block = u64::from(options.block_bytes);
    check_block(block)?;
    let footer = plan(disk, options, Kind::Dynamic)?;
    let entries = div_up(footer.current_size, block);
    let mut table = vec![0xffu8; index(round_up(entries.saturating_mul(4), SECTOR))];
    let mut end = TABLE_AT.saturating_add(len64(&table));
    let bitmap = bitmap(block);
    let name = options.unique_id.is_none();
    let digest = engine::copy(disk, sink, (block, name), work, |unit| {
        let sector = u32::try_from(div(end, SECTOR))
            .ok()
            .filter(|sector| *sector != UNUSED);
        let sector = sector.filter(|_| rem(end, SECTOR) == 0).ok_or_else(|| {
            Error::unsupported(format_args!(
                "VHD file reaches byte {end}; its BAT ends at 2^41"
            ))
        })?;
        let at = index(unit.saturating_mul(4));
        if let Some(entry) = table.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&sector.to_be_bytes());
        }
        let data = end.saturating_add(len64(&bitmap));
        end = data.saturating_add(block);
        Ok(data)
    })?;
    // Not one by one while blocks are written: they would wait for each other at the file.
    for sector in table.chunks_exact(4).filter_map(|entry| be_u32(entry, 0)) {
        if sector != UNUSED {
            sink.write_at(u64::from(sector).saturating_mul(SECTOR), &bitmap)?;
        }
    }
    let footer = named(footer, options, digest).to_bytes();
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    sink.write_at(0, &footer)?;
    sink.write_at(HEADER_AT, &header(entries, options.block_bytes))?;
    sink.write_at(TABLE_AT, &table)?;
    sink.write_at(end, &footer)?;
    let length = end.saturating_add(len64(&footer));
    sink.set_len(length)?;
    Ok(length)
}
