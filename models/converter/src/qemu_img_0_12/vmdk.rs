//! The reader of VMDK: sparse extents in one file, and nothing else of that format.
//!
//! ```text
//! "KDMV" 0x04 version, 0x08 flags, 0x0c capacity, 0x14 grain size (sectors), 0x1c descriptor offset, 0x24 its size,
//!        0x2c entries per table, 0x30 redundant directory, 0x38 directory (sectors)
//! "COWD" 0x0c sectors, 0x10 grain size, 0x14 directory (sectors); tables are taken to have 512 entries, 64 of them
//! ```
//!
//! Version, flags and compression are never looked at (quirk GQ110), and the directory used is the redundant one. Both
//! directories are read on opening, so that one at 2^64-1 fails (quirk GQ111). A disk that names a parent needs that file.

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{bytes, div, div_up, index, rem};
use drylab_block::{Error, Result, le_u32, le_u64};

/// Entries of a COWD directory and of each of its tables, as this reader believes.
const COWD_DIRECTORY: u64 = 64;
const COWD_TABLE: u64 = 512;

struct Grains {
    directory: Vec<u8>,
    table_entries: u64,
    grain: u64,
}

impl Map for Grains {
    fn run(&self, file: &Padded, offset: u64) -> Result<Run> {
        let grain_bytes = bytes(self.grain);
        let span = grain_bytes.saturating_mul(self.table_entries);
        let table = div(offset, span);
        let Some(sector) = le_u32(&self.directory, index(table.saturating_mul(4))) else {
            return Ok(Run::REST);
        };
        if sector == 0 {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: Place::Zeros,
            });
        }
        let entry = rem(div(offset, grain_bytes), self.table_entries);
        let table = bytes(u64::from(sector));
        let Some(bytes4) = file.entry(table, entry, self.table_entries)? else {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: Place::Zeros,
            });
        };
        let within = rem(offset, grain_bytes);
        let place = match u64::from(u32::from_le_bytes(bytes4)) {
            0 => Place::Zeros,
            grain => Place::At(bytes(grain).saturating_add(within)),
        };
        Ok(Run {
            length: grain_bytes.saturating_sub(within),
            place,
        })
    }
}

/// Opens an extent; the second value is the name of a parent disk, when there is one.
pub(crate) fn open(file: Padded) -> Result<(Disk, Option<String>)> {
    let head: [u8; 512] = file.head()?;
    match head.get(..4) {
        Some(b"KDMV") => sparse(file, &head),
        Some(b"COWD") => Ok((cowd(file, &head)?, None)),
        _ => Err(Error::unsupported("no VMDK magic at the start")),
    }
}

fn sparse(file: Padded, head: &[u8; 512]) -> Result<(Disk, Option<String>)> {
    let long = |at| le_u64(head, at).unwrap_or(0);
    let (capacity, grain) = (long(0x0c), long(0x14));
    let table_entries = u64::from(le_u32(head, 0x2c).unwrap_or(0));
    let span = grain.saturating_mul(table_entries);
    if span == 0 || i64::try_from(span).is_err() {
        return Err(Error::corrupt(format_args!(
            "VMDK header: {table_entries} entries per table of {grain} sectors each"
        )));
    }
    let length = div_up(capacity, span).saturating_mul(4);
    let mut directories = [0x30, 0x38].iter().map(|at| {
        let offset = long(*at)
            .checked_mul(512)
            .ok_or_else(|| Error::corrupt(format_args!("directory at sector {}", long(*at))))?;
        file.table("VMDK grain directory", offset, length)
    });
    let directory = directories.next().transpose()?.unwrap_or_default();
    directories.try_for_each(|table| table.map(|_| ()))?;
    let parent = parent(&file, long(0x1c), long(0x24))?;
    let map = Grains {
        directory,
        table_entries,
        grain,
    };
    Ok((
        Disk {
            file,
            sectors: capacity,
            map: Box::new(map),
            backing: None,
        },
        parent,
    ))
}

/// `parentFileNameHint` of the embedded descriptor, which is read at sector 1 wherever the header puts it.
fn parent(file: &Padded, offset: u64, size: u64) -> Result<Option<String>> {
    if offset == 0 || size == 0 {
        return Ok(None);
    }
    let text = file.table("VMDK descriptor", 0x200, 20 * 512)?;
    let text = String::from_utf8_lossy(&text);
    let after = text.split_once("parentFileNameHint=\"");
    Ok(after.and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned())))
}

fn cowd(file: Padded, head: &[u8; 512]) -> Result<Disk> {
    let word = |at| u64::from(le_u32(head, at).unwrap_or(0));
    let (sectors, grain) = (word(0x0c), word(0x10));
    if grain == 0 {
        return Err(Error::corrupt("COWD header: grains of 0 sectors"));
    }
    let directory = file.table("COWD directory", bytes(word(0x14)), COWD_DIRECTORY * 4)?;
    let map = Grains {
        directory,
        table_entries: COWD_TABLE,
        grain,
    };
    Ok(Disk {
        file,
        sectors,
        map: Box::new(map),
        backing: None,
    })
}
