//! Writing fixed and dynamic disks.
//!
//! ```text
//! header section │ 1 MiB log, empty │ 2 MiB metadata │ 3 MiB BAT │ blocks
//! ```

use super::bat::{FULLY_PRESENT, Geometry};
use super::guid::Guid;
use super::header::{CREATOR_BYTES, HEADERS_AT, Header, MAGIC, SECTION};
use super::metadata as items;
use super::region::{self, TABLES_AT};
use super::{DISK_BYTES_MAX, VhdxOptions};
use crate::engine::{self, Work};
use crate::math::{div, index, rem, round_up};
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// Bytes of the BAT that are written, and of a child that are compared, at a time.
pub(super) const PIECE: u64 = 64 << 10;
/// Bytes of the log, of the metadata region, and the least of a BAT.
const REGION_BYTES: u64 = 1 << 20;
const LOG_AT: u64 = SECTION;
const METADATA_AT: u64 = 2 << 20;
const TABLE_AT: u64 = 3 << 20;
/// Largest block that is chosen by itself.
const BLOCK_BYTES_DEFAULT_MAX: u64 = 32 << 20;

/// A file that is being written.
pub(super) struct Writer<'a> {
    pub(super) sink: &'a dyn WriteAt,
    pub(super) geometry: Geometry,
    options: &'a VhdxOptions,
    table_bytes: u64,
    /// First byte behind the blocks so far.
    pub(super) end: u64,
    page: u64,
    entries: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        disk_bytes: u64,
        has_parent: bool,
        options: &'a VhdxOptions,
        sink: &'a dyn WriteAt,
    ) -> Result<Self> {
        for (name, size) in [
            ("logical", options.logical_sector),
            ("physical", options.physical_sector),
        ] {
            if ![512, 4096].contains(&size) {
                return Err(Error::unsupported(format_args!(
                    "VHDX with {name} sectors of {size} bytes, known are 512 and 4096"
                )));
            }
        }
        if disk_bytes > DISK_BYTES_MAX {
            return Err(Error::unsupported(format_args!(
                "VHDX of {disk_bytes} bytes, more than the {DISK_BYTES_MAX} (64 TiB) of the format"
            )));
        }
        let sector = u64::from(options.logical_sector);
        let mut geometry = Geometry {
            disk_bytes: round_up(disk_bytes, sector),
            block_bytes: 1 << 20,
            sector,
            has_parent,
        };
        match options.block_bytes {
            Some(block) if block.is_power_of_two() && (1 << 20..=256 << 20).contains(&block) => {
                geometry.block_bytes = u64::from(block);
            }
            Some(block) => {
                return Err(Error::unsupported(format_args!(
                    "VHDX blocks of {block} bytes, which are no power of two from 1048576 to 268435456"
                )));
            }
            None => {
                let large = |geometry: &Geometry| {
                    geometry.entries().saturating_mul(8) > REGION_BYTES
                        && geometry.block_bytes < BLOCK_BYTES_DEFAULT_MAX
                };
                while large(&geometry) {
                    geometry.block_bytes = geometry.block_bytes.saturating_mul(2);
                }
            }
        }
        let entries = match geometry.entries() {
            // qemu counts the blocks before the last one of a disk without blocks in 32 bits, and wants room for them.
            0 => div(u64::from(u32::MAX), geometry.chunk_ratio()),
            entries => entries,
        };
        let table_bytes = round_up(entries.saturating_mul(8), REGION_BYTES);
        Ok(Self {
            sink,
            geometry,
            options,
            table_bytes,
            end: TABLE_AT.saturating_add(table_bytes),
            page: 0,
            entries: Vec::new(),
        })
    }

    /// A place for so many bytes behind everything.
    pub(super) fn place(&mut self, length: u64) -> u64 {
        let place = self.end;
        self.end = place.saturating_add(length);
        place
    }

    /// Sets an entry of the BAT; entries come in ascending order.
    pub(super) fn set(&mut self, entry: u64, value: u64) -> Result<()> {
        let at = entry.saturating_mul(8);
        let page = div(at, PIECE);
        if page != self.page {
            self.put_page()?;
            self.page = page;
        }
        let within = index(rem(at, PIECE));
        self.entries.resize(within, 0);
        self.entries.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn put_page(&mut self) -> Result<()> {
        let at = TABLE_AT.saturating_add(self.page.saturating_mul(PIECE));
        if !self.entries.is_empty() {
            self.sink.write_at(at, &self.entries)?;
            self.entries.clear();
        }
        Ok(())
    }

    /// Whether the digest of the content is needed.
    pub(super) fn is_unnamed(&self) -> bool {
        let options = self.options;
        let all = [
            options.disk_id,
            options.file_write_guid,
            options.data_write_guid,
        ];
        all.contains(&None)
    }

    /// Writes everything but the blocks; the result is the length of the file. `digest` is that of the content,
    /// `locator` that of a child.
    pub(super) fn finish(
        mut self,
        fixed: bool,
        digest: u128,
        locator: Option<Vec<u8>>,
    ) -> Result<u64> {
        self.put_page()?;
        let options = self.options;
        let made =
            |given: Option<Guid>, label| given.unwrap_or_else(|| Guid::made_of(digest, label));
        let mut flags = u32::from(fixed);
        if locator.is_some() {
            flags |= 2;
        }
        let block = u32::try_from(self.geometry.block_bytes).unwrap_or(u32::MAX);
        let parameters = [block.to_le_bytes(), flags.to_le_bytes()].concat();
        let disk = items::IS_VIRTUAL_DISK | items::IS_REQUIRED;
        let mut list = vec![
            (items::FILE_PARAMETERS, items::IS_REQUIRED, parameters),
            (
                items::VIRTUAL_DISK_SIZE,
                disk,
                self.geometry.disk_bytes.to_le_bytes().to_vec(),
            ),
            (
                items::LOGICAL_SECTOR_SIZE,
                disk,
                options.logical_sector.to_le_bytes().to_vec(),
            ),
            (
                items::PHYSICAL_SECTOR_SIZE,
                disk,
                options.physical_sector.to_le_bytes().to_vec(),
            ),
            (
                items::VIRTUAL_DISK_ID,
                disk,
                made(options.disk_id, "VHDX disk").0.to_vec(),
            ),
        ];
        list.extend(locator.map(|bytes| (items::PARENT_LOCATOR, items::IS_REQUIRED, bytes)));
        self.sink.write_at(METADATA_AT, &items::region(&list))?;
        let table_bytes = u32::try_from(self.table_bytes).unwrap_or(u32::MAX);
        let mib = u32::try_from(REGION_BYTES).unwrap_or(u32::MAX);
        let regions = region::table(&[
            (region::METADATA, METADATA_AT, mib),
            (region::BAT, TABLE_AT, table_bytes),
        ]);
        for place in TABLES_AT {
            self.sink.write_at(place, &regions)?;
        }
        for (sequence_number, place) in (1..).zip(HEADERS_AT) {
            let header = Header {
                sequence_number,
                file_write_guid: made(options.file_write_guid, "VHDX file"),
                data_write_guid: made(options.data_write_guid, "VHDX data"),
                log_guid: Guid::ZERO,
                log_version: 0,
                version: 1,
                log_length: mib,
                log_offset: LOG_AT,
            };
            self.sink.write_at(place, &header.to_bytes())?;
        }
        self.sink.write_at(0, &identifier(&options.creator)?)?;
        self.sink.set_len(self.end)?;
        Ok(self.end)
    }
}

/// The file type identifier.
fn identifier(creator: &str) -> Result<Vec<u8>> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(creator.encode_utf16().flat_map(u16::to_le_bytes));
    let length = MAGIC.len().saturating_add(CREATOR_BYTES);
    if bytes.len().saturating_add(2) > length || creator.contains('\0') {
        return Err(Error::unsupported(format_args!(
            "VHDX creator {creator:?}, at most are 255 UTF-16 characters without NUL"
        )));
    }
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Writes the blocks of `disk` that hold a byte other than zero; the result is the length of the file.
pub(crate) fn write_dynamic(
    disk: &dyn ReadAt,
    options: &VhdxOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let mut writer = Writer::new(disk.len(), false, options, sink)?;
    let geometry = writer.geometry;
    let named = (geometry.block_bytes, writer.is_unnamed());
    let digest = engine::copy(disk, sink, named, work, |block| {
        let place = writer.place(geometry.block_bytes);
        writer.set(geometry.block_entry(block), place | FULLY_PRESENT)?;
        Ok(place)
    })?;
    writer.finish(false, digest, None)
}

/// Writes a place for every block, and the data of `disk`, leaving out zeros; the result is the length of the file.
pub(crate) fn write_fixed(
    disk: &dyn ReadAt,
    options: &VhdxOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let mut writer = Writer::new(disk.len(), false, options, sink)?;
    let geometry = writer.geometry;
    let first = writer.end;
    for block in 0..geometry.blocks() {
        let place = writer.place(geometry.block_bytes);
        writer.set(geometry.block_entry(block), place | FULLY_PRESENT)?;
    }
    // The disk is one unit: the blocks stand one behind the other.
    let named = (u64::MAX, writer.is_unnamed());
    let digest = engine::copy(disk, sink, named, work, |_| Ok(first))?;
    writer.finish(true, digest, None)
}
