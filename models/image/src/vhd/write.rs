//! Writing fixed and dynamic disks.

use super::footer::{Footer, Kind, VERSION, seal};
use super::read::{HEADER_CHECKSUM_AT, HEADER_SIZE, UNUSED, bitmap_bytes};
use super::{DISK_BYTES_MAX, Geometry, SECTOR, VhdFit, VhdOptions};
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::scan::{Front, for_each_unit};
use crate::write::Written;
use drylab_block::{ContentId, Error, ReadAt, Result, WriteAt};

/// Where the dynamic header stands: behind the copy of the footer.
pub(super) const HEADER_AT: u64 = 512;
/// Where the BAT stands: behind the dynamic header.
pub(super) const TABLE_AT: u64 = 1536;
/// Bytes looked at for zeros at a time in a fixed disk.
const PIECE: u64 = 1 << 16;

/// The footer of a file that holds `disk`.
pub(super) fn plan(disk: &dyn ReadAt, options: &VhdOptions, kind: Kind) -> Result<Footer> {
    let sectors = div_up(disk.len(), SECTOR);
    let (size, geometry) = match options.fit {
        VhdFit::Kept => (sectors.saturating_mul(SECTOR), Geometry::of(sectors)),
        VhdFit::Pinned => (sectors.saturating_mul(SECTOR), Geometry::MAX),
        VhdFit::RoundedUp => {
            let geometry = Geometry::holding(sectors);
            (
                sectors.max(geometry.sectors()).saturating_mul(SECTOR),
                geometry,
            )
        }
    };
    if size > DISK_BYTES_MAX {
        return Err(Error::unsupported(format_args!(
            "VHD of {size} bytes, more than the {DISK_BYTES_MAX} (2040 GiB) of the format"
        )));
    }
    let unique_id = match options.unique_id {
        Some(id) => id,
        None => uuid(drylab_block::content_id(disk)?),
    };
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
        unique_id,
        saved_state: false,
    })
}

/// A content id with the marks of a UUID of version 8 (RFC 9562), "made as its maker likes".
pub(super) fn uuid(id: ContentId) -> [u8; 16] {
    let marks = (id.0 & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    marks.to_be_bytes()
}

/// Writes the data of `disk` and the footer, leaving out zeros; the result is the length of the file.
pub(crate) fn write_fixed(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    sink: &dyn WriteAt,
) -> Result<u64> {
    let footer = plan(disk, options, Kind::Fixed)?;
    crate::raw::write_raw(disk, sink)?;
    sink.write_at(footer.current_size, &footer.to_bytes())?;
    let length = footer.current_size.saturating_add(SECTOR);
    sink.set_len(length)?;
    Ok(length)
}

/// Hands out a fixed VHD front to back, zeros too, in pieces of up to 64 KiB. Nothing is gone back to.
///
/// # Errors
/// As [`write()`](crate::write()); the first error of `put` ends it.
pub fn stream_fixed(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    put: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<Written> {
    let footer = plan(disk, options, Kind::Fixed)?;
    let mut front = Front::new(put);
    let zeros = vec![0u8; index(PIECE)];
    for_each_unit(disk, PIECE, |unit, bytes| {
        fill(&mut front, &zeros, unit.saturating_mul(PIECE))?;
        // The last piece is padded to a whole one, further than the disk may reach.
        let left = footer.current_size.saturating_sub(front.at());
        front.put(bytes.get(..index(left)).unwrap_or(bytes))
    })?;
    fill(&mut front, &zeros, footer.current_size)?;
    front.put(&footer.to_bytes())?;
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

/// The bitmap in front of a block: all of its sectors are there.
fn bitmap(block: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; index(div_up(div(block, SECTOR), 8))];
    bytes.resize(index(bitmap_bytes(block)), 0);
    bytes
}

/// Bytes of a block, of the two sizes that are written.
pub(super) fn block_of(options: &VhdOptions) -> Result<u64> {
    let block = u64::from(options.block_bytes);
    if [512 << 10, 2 << 20].contains(&block) {
        return Ok(block);
    }
    Err(Error::unsupported(format_args!(
        "VHD blocks of {block} bytes, written are 524288 and 2097152"
    )))
}

/// Writes the blocks of `disk` that hold a byte other than zero; the result is the length of the file.
pub(crate) fn write_dynamic(
    disk: &dyn ReadAt,
    options: &VhdOptions,
    sink: &dyn WriteAt,
) -> Result<u64> {
    let block = block_of(options)?;
    let footer = plan(disk, options, Kind::Dynamic)?;
    let entries = div_up(footer.current_size, block);
    let mut table = vec![0xffu8; index(round_up(entries.saturating_mul(4), SECTOR))];
    let mut end = TABLE_AT.saturating_add(len64(&table));
    let bitmap = bitmap(block);
    for_each_unit(disk, block, |unit, bytes| {
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
        sink.write_at(end, &bitmap)?;
        let data = end.saturating_add(len64(&bitmap));
        sink.write_at(data, bytes)?;
        end = data.saturating_add(block);
        Ok(())
    })?;
    let (entries, footer) = (
        u32::try_from(entries).unwrap_or(u32::MAX),
        footer.to_bytes(),
    );
    sink.write_at(0, &footer)?;
    sink.write_at(HEADER_AT, &header(entries, options.block_bytes))?;
    sink.write_at(TABLE_AT, &table)?;
    sink.write_at(end, &footer)?;
    let length = end.saturating_add(len64(&footer));
    sink.set_len(length)?;
    Ok(length)
}
