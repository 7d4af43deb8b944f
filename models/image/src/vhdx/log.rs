//! The log: a ring of entries, each a list of 4 KiB sectors and runs of zeros to be written elsewhere in the file.
//!
//! ```text
//! entry       descriptor sectors │ data sectors, one for each data descriptor
//! head        0x00 "loge" 0x04 CRC-32C of the entry 0x08 EntryLength 0x0c Tail 0x10 SequenceNumber 0x18 DescriptorCount
//!             0x20 LogGuid 0x30 FlushedFileOffset 0x38 LastFileOffset 0x40 descriptors of 32 bytes
//! descriptor  "desc" TrailingBytes u32, LeadingBytes u64, FileOffset u64, SequenceNumber u64
//!             "zero" u32, ZeroLength u64, FileOffset u64, SequenceNumber u64
//! data sector "data" SequenceHigh u32, bytes 8 to 4091, SequenceLow u32
//! ```
//!
//! The first four bytes of a sector say whether it begins an entry or continues one, so that entries which are sound
//! never overlap: each sector is looked at as part of one entry at most, however the ring was made.

use super::header::{Header, SECTION};
use super::patched::Patches;
use super::region::TABLES_AT;
use super::rules;
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{Error, Limits, ReadAt, Result, le_u32, le_u64, read_vec, slice_at};
use std::collections::BTreeMap;

/// Bytes of a sector of the log, and of what a data descriptor writes.
pub(crate) const SECTOR: u64 = 4096;

/// What is done by one descriptor.
enum Descriptor {
    Zeros {
        offset: u64,
        length: u64,
    },
    Data {
        offset: u64,
        leading: [u8; 8],
        trailing: [u8; 4],
    },
}

/// An entry that is sound.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its first sector, and how many it has.
    start: u64,
    sectors: u64,
    sequence: u64,
    /// Sector at which the sequence that it ends begins.
    tail: u64,
    descriptors: u32,
    flushed: u64,
    last: u64,
}

/// The ring in memory.
struct Ring<'a> {
    bytes: Vec<u8>,
    header: &'a Header,
    /// Most bytes that the file may have afterwards.
    file_bytes_max: u64,
}

/// Whether a log stands where it may: whole MiB behind the header section, inside the file.
pub(crate) fn is_placed(header: &Header, length: u64) -> bool {
    let aligned = header.log_offset.is_multiple_of(SECTION)
        && u64::from(header.log_length).is_multiple_of(SECTION);
    let inside = header.log_offset >= SECTION && header.log_end() <= length;
    aligned && inside && header.log_length > 0
}

/// What the log lays over the file, with what is to be said of that.
pub(crate) fn replay(
    source: &dyn ReadAt,
    header: &Header,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Patches> {
    if header.log_version != 0 {
        return Err(Error::unsupported(format_args!(
            "VHDX log version {} (0 is known), and the log must be replayed",
            header.log_version
        )));
    }
    let place = (header.log_offset, u64::from(header.log_length));
    let mut lost = |found: String| {
        let expected = "a sequence of entries that can be replayed";
        findings.add(&rules::LOG_NO_SEQUENCE, place, "log", found, expected);
    };
    if !is_placed(header, source.len()) {
        lost(format!(
            "at {} with {} bytes",
            header.log_offset, header.log_length
        ));
        return Ok(Patches::default());
    }
    let bytes = read_vec(source, "VHDX log", place.0, place.1, limits)?;
    let ring = Ring {
        bytes,
        header,
        file_bytes_max: limits.disk_bytes_max.max(source.len()),
    };
    let entries = ring.entries();
    let Some((tail, head)) = active(&entries, ring.sectors()) else {
        lost(format!(
            "without one ({} sound entries of {})",
            entries.len(),
            header.log_guid
        ));
        return Ok(Patches::default());
    };
    let truncated = source.len() < head.flushed;
    if truncated {
        let expected = format!("at least {}, as the log says", head.flushed);
        let end = (source.len(), 0);
        findings.add(
            &rules::LOG_TRUNCATED,
            end,
            "length of the file",
            source.len(),
            expected,
        );
    }
    let mut patches = Patches::default();
    let (mut at, mut writes) = (tail, 0u64);
    while let Some(entry) = entries.get(&at) {
        writes = writes.saturating_add(u64::from(entry.descriptors));
        ring.apply(entry, &mut patches);
        if entry.sequence == head.sequence {
            break;
        }
        at = ring.behind(entry);
    }
    if !truncated {
        // What was to be in the file and is not must not look like zeros.
        patches.end = patches.end.max(head.last.min(ring.file_bytes_max));
    }
    let found = format!(
        "not replayed: entries up to {} with {writes} changes",
        head.sequence
    );
    findings.add(&rules::LOG_PENDING, place, "log", found, "empty");
    Ok(patches)
}

/// The first sector of the active sequence and its last entry. Entries in a row with rising numbers make a sequence; it
/// counts when the last of them says that it begins in it; of those the one with the greatest number is active.
fn active(entries: &BTreeMap<u64, Entry>, sectors: u64) -> Option<(u64, Entry)> {
    let next = |entry: &Entry| {
        let behind = wrap(entry.start.saturating_add(entry.sectors), sectors);
        let next = entries.get(&behind)?;
        (entry.sequence.checked_add(1) == Some(next.sequence)).then_some(next)
    };
    let mut followers: Vec<u64> = entries.values().filter_map(next).map(|e| e.start).collect();
    followers.sort_unstable();
    let firsts = entries
        .values()
        .filter(|entry| followers.binary_search(&entry.start).is_err());
    let mut best: Option<(u64, Entry)> = None;
    for first in firsts {
        let mut row = vec![first.start];
        let mut head = first;
        while let Some(entry) = next(head) {
            row.push(entry.start);
            head = entry;
        }
        let newer = best.is_none_or(|(_, known)| known.sequence < head.sequence);
        if newer && row.contains(&head.tail) {
            best = Some((head.tail, *head));
        }
    }
    best
}

fn wrap(sector: u64, sectors: u64) -> u64 {
    crate::math::rem(sector, sectors)
}

impl Ring<'_> {
    fn sectors(&self) -> u64 {
        len64(&self.bytes) / SECTOR
    }

    /// The bytes of a sector, counted round the ring.
    fn sector(&self, number: u64) -> &[u8] {
        let at = index(wrap(number, self.sectors()).saturating_mul(SECTOR));
        slice_at(&self.bytes, at, index(SECTOR)).unwrap_or_default()
    }

    fn behind(&self, entry: &Entry) -> u64 {
        wrap(entry.start.saturating_add(entry.sectors), self.sectors())
    }

    /// Every sound entry, by its first sector.
    fn entries(&self) -> BTreeMap<u64, Entry> {
        (0..self.sectors())
            .filter_map(|start| self.entry(start).map(|entry| (start, entry)))
            .collect()
    }

    /// The entry that begins at a sector, if it is sound in every field.
    fn entry(&self, start: u64) -> Option<Entry> {
        let head = self.sector(start);
        let field = |at| le_u32(head, at);
        let (length, tail) = (u64::from(field(8)?), u64::from(field(12)?));
        let entry = Entry {
            start,
            sectors: length / SECTOR,
            sequence: le_u64(head, 16)?,
            tail: tail / SECTOR,
            descriptors: field(24)?,
            flushed: le_u64(head, 48)?,
            last: le_u64(head, 56)?,
        };
        let sound = head.starts_with(b"loge")
            && slice_at(head, 32, 16)? == self.header.log_guid.0
            && length % SECTOR == 0
            && tail % SECTOR == 0
            && length > 0
            && length <= len64(&self.bytes)
            && tail < len64(&self.bytes)
            && entry.sequence > 0;
        (sound && self.is_whole(&entry) && self.checksum(&entry) == field(4)?).then_some(entry)
    }

    /// Sectors of an entry that hold its head and its descriptors.
    fn head_sectors(entry: &Entry) -> u64 {
        let bytes = u64::from(entry.descriptors).saturating_mul(32);
        bytes.saturating_add(64).div_ceil(SECTOR)
    }

    /// Whether descriptors and data sectors are all there and of this entry. Stops at the first that is not.
    fn is_whole(&self, entry: &Entry) -> bool {
        let heads = Self::head_sectors(entry);
        if heads > entry.sectors {
            return false;
        }
        let mut data = 0u64;
        for number in 0..entry.descriptors {
            match self.descriptor(entry, number) {
                Some(Descriptor::Data { .. }) => data = data.saturating_add(1),
                Some(Descriptor::Zeros { .. }) => {}
                None => return false,
            }
        }
        let first = entry.start.saturating_add(heads);
        let ours = |sector: u64| {
            let bytes = self.sector(sector);
            let high = le_u32(bytes, 4).map(u64::from);
            let low = le_u32(bytes, 4092).map(u64::from);
            let number = high.zip(low).map(|(high, low)| (high << 32) | low);
            bytes.starts_with(b"data") && number == Some(entry.sequence)
        };
        heads.checked_add(data) == Some(entry.sectors)
            && (first..first.saturating_add(data)).all(ours)
    }

    fn checksum(&self, entry: &Entry) -> u32 {
        let head = self.sector(entry.start);
        let mut sum = crc32c::crc32c(head.get(..4).unwrap_or_default());
        sum = crc32c::crc32c_append(sum, &[0; 4]);
        sum = crc32c::crc32c_append(sum, head.get(8..).unwrap_or_default());
        for number in 1..entry.sectors {
            let sector = self.sector(entry.start.saturating_add(number));
            sum = crc32c::crc32c_append(sum, sector);
        }
        sum
    }

    /// One descriptor of an entry, when it may stand in it: it writes whole sectors behind the headers, outside the log.
    fn descriptor(&self, entry: &Entry, number: u32) -> Option<Descriptor> {
        let at = u64::from(number).checked_mul(32)?.checked_add(64)?;
        let sector = self.sector(entry.start.checked_add(at / SECTOR)?);
        let bytes = slice_at(sector, index(at % SECTOR), 32)?;
        let (word, offset) = (le_u64(bytes, 8)?, le_u64(bytes, 16)?);
        let (length, descriptor) = match bytes.first_chunk::<4>()? {
            b"zero" => (
                word,
                Descriptor::Zeros {
                    offset,
                    length: word,
                },
            ),
            b"desc" => {
                let (leading, trailing) = (word.to_le_bytes(), le_u32(bytes, 4)?.to_le_bytes());
                let data = Descriptor::Data {
                    offset,
                    leading,
                    trailing,
                };
                (SECTOR, data)
            }
            _ => return None,
        };
        let end = offset.checked_add(length)?;
        let [tables, _] = TABLES_AT;
        let clear = end <= self.header.log_offset || offset >= self.header.log_end();
        let sound = offset % SECTOR == 0 && length % SECTOR == 0 && offset >= tables;
        let ours = le_u64(bytes, 24)? == entry.sequence;
        (sound && clear && ours && end <= self.file_bytes_max).then_some(descriptor)
    }

    /// Lays what an entry writes over the file.
    fn apply(&self, entry: &Entry, patches: &mut Patches) {
        let mut data = entry.start.saturating_add(Self::head_sectors(entry));
        for number in 0..entry.descriptors {
            match self.descriptor(entry, number) {
                Some(Descriptor::Zeros { offset, length }) => patches.zeros(offset, length),
                Some(Descriptor::Data {
                    offset,
                    leading,
                    trailing,
                }) => {
                    let middle = self.sector(data).get(8..4092).unwrap_or_default();
                    patches.data(offset, [&leading[..], middle, &trailing[..]].concat());
                    data = data.saturating_add(1);
                }
                None => {}
            }
        }
    }
}
