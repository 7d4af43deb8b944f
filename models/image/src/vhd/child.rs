//! Writing a differencing disk.

use super::blocks::UNUSED;
use super::footer::{Kind, footer, seal};
use super::header::{
    HEADER_CHECKSUM_AT, LOCATOR, LOCATORS_AT, PARENT_ID_AT, PARENT_NAME_AT, PARENT_NAME_BYTES,
    PARENT_TIME_AT, bitmap_bytes,
};
use super::write::{HEADER_AT, TABLE_AT, check_block, header, named, plan};
use super::{SECTOR, VhdOptions};
use crate::changed::for_each_changed;
use crate::engine::{self, Work};
use crate::math::{div, div_up, index, len64, round_up};
use crate::write::Written;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// What a differencing disk says of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentLink {
    /// UUID of the parent, big-endian.
    pub unique_id: [u8; 16],
    /// When the parent was last written, in seconds since 2000-01-01 00:00 UTC.
    pub timestamp: u32,
    /// Path from the child's folder, as Windows writes it: `.\parent.vhd`. Locator `W2ru`.
    pub relative: String,
    /// Path from a drive: `C:\disks\parent.vhd`. Locator `W2ku`.
    pub absolute: Option<String>,
    /// File URL: `file:///disks/parent.vhd`. Locator `MacX`.
    pub url: Option<String>,
}

impl ParentLink {
    /// A link to the VHD in `file`, which will stand beside the child as `name`.
    ///
    /// # Errors
    /// When `file` has no valid footer; what reading finds.
    pub fn beside(file: &dyn ReadAt, name: &str) -> Result<Self> {
        let (footer, _) = footer(file)?;
        Ok(Self {
            unique_id: footer.unique_id,
            timestamp: footer.timestamp,
            relative: format!(".\\{name}"),
            absolute: None,
            url: None,
        })
    }

    /// The locators: platform code and data.
    fn locators(&self) -> Vec<([u8; 4], Vec<u8>)> {
        let wide = |path: &str| path.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut all = vec![(*b"W2ru", wide(&self.relative))];
        all.extend(self.absolute.iter().map(|path| (*b"W2ku", wide(path))));
        all.extend(
            self.url
                .iter()
                .map(|url| (*b"MacX", url.clone().into_bytes())),
        );
        all
    }
}

/// Writes what `disk` has and `parent` has not: the sectors that differ, in the blocks that hold one. Both are disks, not
/// files; behind the end of a shorter parent are zeros.
///
/// # Errors
/// As [`write()`](crate::write()); [`Error::Unsupported`] for paths longer than their fields.
pub fn write_child(
    disk: &dyn ReadAt,
    parent: &dyn ReadAt,
    link: &ParentLink,
    options: &VhdOptions,
    sink: &dyn WriteAt,
) -> Result<Written> {
    if sink.len() != 0 {
        sink.set_len(0)?;
    }
    let block = u64::from(options.block_bytes);
    check_block(block)?;
    let content = engine::content_digest(disk, &Work::ALONE)?;
    // Nothing written since the snapshot: the same content, and yet another file.
    let above = u128::from_be_bytes(link.unique_id).rotate_left(1);
    let mut footer = named(
        plan(disk, options, Kind::Dynamic)?,
        options,
        content ^ above,
    );
    footer.kind = Kind::Differencing;
    let entries = div_up(footer.current_size, block);
    let mut table = vec![UNUSED; index(round_up(entries, SECTOR / 4))];
    let locators_at = TABLE_AT.saturating_add(len64(&table).saturating_mul(4));
    let narrow = u32::try_from(entries).unwrap_or(u32::MAX);
    let (head, mut end) = head(link, header(narrow, options.block_bytes), locators_at, sink)?;
    for_each_changed(disk, parent, block, |unit, own, other| {
        let (bits, bytes) = changed(own, other);
        let sector = u32::try_from(div(end, SECTOR))
            .ok()
            .filter(|s| *s != UNUSED);
        let sector = sector.ok_or_else(|| {
            Error::unsupported(format_args!(
                "VHD file reaches byte {end}; its BAT ends at 2^41"
            ))
        })?;
        if let Some(entry) = table.get_mut(index(unit)) {
            *entry = sector;
        }
        sink.write_at(end, &bits)?;
        sink.write_at(end.saturating_add(len64(&bits)), &bytes)?;
        end = end.saturating_add(len64(&bits)).saturating_add(block);
        Ok(())
    })?;
    let (footer, table) = (
        footer.to_bytes(),
        table.iter().flat_map(|e| e.to_be_bytes()),
    );
    sink.write_at(0, &footer)?;
    sink.write_at(HEADER_AT, &head)?;
    sink.write_at(TABLE_AT, &table.collect::<Vec<u8>>())?;
    sink.write_at(end, &footer)?;
    let file_bytes = end.saturating_add(SECTOR);
    sink.set_len(file_bytes)?;
    Ok(Written { file_bytes })
}

/// Writes the locators from `at` on; the result is the header that names them and where they end.
fn head(
    link: &ParentLink,
    mut header: Vec<u8>,
    at: u64,
    sink: &dyn WriteAt,
) -> Result<(Vec<u8>, u64)> {
    let mut put = |at: usize, new: &[u8]| {
        if let Some(place) = header.get_mut(at..at.saturating_add(new.len())) {
            place.copy_from_slice(new);
        }
    };
    put(PARENT_ID_AT, &link.unique_id);
    put(PARENT_TIME_AT, &link.timestamp.to_be_bytes());
    // Windows keeps the whole path in the header where there is one.
    let name = link.absolute.as_ref().unwrap_or(&link.relative);
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    if name.len() > PARENT_NAME_BYTES {
        return Err(Error::unsupported(format_args!(
            "VHD parent name of {} bytes, its field has {PARENT_NAME_BYTES}",
            name.len()
        )));
    }
    put(PARENT_NAME_AT, &name);
    let mut end = at;
    let mut place = LOCATORS_AT;
    for (code, data) in link.locators() {
        let length = u32::try_from(data.len())
            .ok()
            .filter(|length| *length <= 1 << 16);
        let length = length.ok_or_else(|| {
            Error::unsupported(format_args!(
                "VHD parent path of {} bytes, 65536 are read",
                data.len()
            ))
        })?;
        let space = round_up(u64::from(length), SECTOR);
        let room = u32::try_from(space).unwrap_or(0).to_be_bytes();
        let words = [code, room, length.to_be_bytes(), [0; 4]].concat();
        put(place, &words);
        put(place.saturating_add(words.len()), &end.to_be_bytes());
        sink.write_at(end, &data)?;
        end = end.saturating_add(space);
        place = place.saturating_add(LOCATOR);
    }
    seal(&mut header, HEADER_CHECKSUM_AT);
    Ok((header, end))
}

/// The sector bitmap of a block, and the bytes of the sectors that differ.
fn changed(own: &[u8], other: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut bits = vec![0u8; index(bitmap_bytes(len64(own)))];
    let mut bytes = vec![0u8; own.len()];
    let sector = index(SECTOR);
    let pairs = own
        .chunks(sector)
        .zip(other.chunks(sector))
        .zip(bytes.chunks_mut(sector));
    for (number, ((own, other), place)) in (0u64..).zip(pairs) {
        if own != other {
            place.copy_from_slice(own);
            if let Some(byte) = bits.get_mut(index(div(number, 8))) {
                *byte |= 0x80 >> (number % 8);
            }
        }
    }
    (bits, bytes)
}
