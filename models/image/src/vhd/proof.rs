//! What a dynamic header says, where its checksum is wrong.
//!
//! Then one of its bytes is not what it was. The checksum is a sum of bytes, so the value that a field had is one with which
//! the sum is right: what programs write there is tried, and for each byte the one value that makes up for the difference.
//! Many of these fit the sum, but the rest of the file must fit them, too: the blocks of the table fill the file between
//! the table and the footer. Where exactly one does, it is what stood there. Where the header fits the file as it is, only
//! a byte was hit that says nothing of the disk. Else nobody knows what the header said, and a new checksum would hide it.
//! So it is where reading the table at each place that may be meant would cost more than twice the file.

use super::blocks::Blocks;
use super::footer::{Located, VERSION, checksum, verify};
use super::header::{
    BLOCK_AT, COOKIE, ENTRIES_AT, HEADER_CHECKSUM_AT, Header, TABLE_AT, VERSION_AT, header_bytes,
};
use super::{SECTOR, rules};
use crate::finding::Findings;
use crate::math::{div_up, len64, rem, round_up};
use drylab_block::{Error, Limits, ReadAt, Result, be_u32};
use std::sync::Arc;

/// A field: name, place, bytes.
type Field = (&'static str, usize, usize);

/// Those that say something of the blocks.
const FIELDS: [Field; 5] = [
    ("cookie", 0, 8),
    ("table offset", TABLE_AT, 8),
    ("header version", VERSION_AT, 4),
    ("max table entries", ENTRIES_AT, 4),
    ("block size", BLOCK_AT, 4),
];
/// The sizes of blocks, as powers of two, that are tried.
const BLOCKS: std::ops::RangeInclusive<u32> = 12..=28;
/// Bytes that programs leave free in front of a block, to align it.
const GAP: u64 = 4096;

/// The blocks as the header says them, or as it is proved to have said them.
pub(super) fn settled(
    source: &Arc<dyn ReadAt>,
    (located, size): (&Located, u64),
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Blocks> {
    let at = located.footer.data_offset;
    let bytes = header_bytes(&**source, at, limits)?;
    let disk = (located, size);
    let opened = |header| Blocks::plain(source.clone(), header, disk, limits);
    let stored = || {
        let header = Header::parse(bytes.clone(), at);
        header
            .map_err(|error| error.within(format_args!("VHD dynamic header at offset {at}")))
            .and_then(opened)
    };
    let Err(wrong) = verify("VHD dynamic header", &bytes, HEADER_CHECKSUM_AT) else {
        return stored();
    };
    note_checksum(at, &wrong, findings);
    let room = (size, located.data_end);
    // One table is held at a time.
    let fitting = |header| {
        let blocks: Option<Blocks> = opened(header).ok();
        blocks.filter(|blocks| fits(blocks, false))
    };
    if let Some(blocks) = with_room(&bytes, at, room).and_then(fitting) {
        return Ok(blocks);
    }
    let others = others(&bytes, (at, source.len()), room);
    let are_few = others.is_some();
    let mut proved = others
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(header, other, field)| fitting(header).map(|_| (other, field)));
    let one = proved.next().filter(|_| proved.next().is_none());
    if let Some((other, field)) = one {
        note_field(at, field, (&bytes, &other), findings);
        return opened(Header::parse(other, at)?);
    }
    let mut blocks = stored()?;
    if !(are_few && fits(&blocks, true)) {
        blocks.doubted_header = true;
        let expected = "one that fits the table, the blocks and the footer";
        let place = (at, len64(&bytes));
        findings.add(
            &rules::HEADER_DOUBT,
            place,
            "dynamic header",
            format_args!("in doubt ({wrong})"),
            expected,
        );
    }
    Ok(blocks)
}

/// The header, where it says that there is room.
fn with_room(bytes: &[u8], at: u64, room: (u64, u64)) -> Option<Header> {
    let header = Header::parse(bytes.to_vec(), at).ok();
    header.filter(|header| has_room(header, room, false))
}

/// The candidates that say that there is room, if their tables, each of which is read for a proof, are together no more
/// than twice the file of `length` bytes.
fn others(
    bytes: &[u8],
    (at, length): (u64, u64),
    room: (u64, u64),
) -> Option<Vec<(Header, Vec<u8>, Field)>> {
    let all = candidates(bytes, (at, room.0)).into_iter();
    let all = all.filter_map(|(other, field)| Some((with_room(&other, at, room)?, other, field)));
    let all: Vec<_> = all.collect();
    let tables = all.iter().map(|(header, ..)| table_bytes(header));
    let cost = tables.fold(0, u64::saturating_add);
    (cost <= length.saturating_mul(2)).then_some(all)
}

fn note_checksum(at: u64, wrong: &Error, findings: &mut Findings) {
    let place = (at.saturating_add(0x24), 4);
    let path = "dynamic header, checksum";
    let found = format!("wrong ({wrong})");
    findings.add(&rules::HEADER_CHECKSUM, place, path, found, "right");
}

fn note_field(
    at: u64,
    (name, place, width): Field,
    (old, new): (&[u8], &[u8]),
    findings: &mut Findings,
) {
    let hex = |bytes: &[u8]| {
        let field = bytes.get(place..place.saturating_add(width));
        let digits = field.unwrap_or_default().iter();
        digits.fold(String::from("0x"), |text, byte| format!("{text}{byte:02x}"))
    };
    let expected = format!(
        "{}, with which the checksum is right and the blocks fit the file, and which was taken",
        hex(new)
    );
    let range = (
        at.saturating_add(u64::try_from(place).unwrap_or(0)),
        u64::try_from(width).unwrap_or(0),
    );
    let path = format!("dynamic header, {name}");
    findings.add(&rules::HEADER_FIELD, range, path, hex(old), expected);
}

/// Headers with another value of one field with which the checksum that is stored is right, and the field.
fn candidates(bytes: &[u8], (at, size): (u64, u64)) -> Vec<(Vec<u8>, Field)> {
    let block = u64::from(be_u32(bytes, BLOCK_AT).unwrap_or(0)).max(1);
    let entries = u32::try_from(div_up(size, block)).unwrap_or(u32::MAX);
    let behind = at.saturating_add(len64(bytes));
    let mut values = vec![
        (0, COOKIE.to_vec()),
        (TABLE_AT, behind.to_be_bytes().to_vec()),
        (VERSION_AT, VERSION.to_be_bytes().to_vec()),
        (ENTRIES_AT, entries.to_be_bytes().to_vec()),
    ];
    values.extend(BLOCKS.map(|bits| (BLOCK_AT, (1u32 << bits).to_be_bytes().to_vec())));
    let stored = be_u32(bytes, HEADER_CHECKSUM_AT).unwrap_or(0);
    // The checksum is the complement of the sum.
    let missing = checksum(bytes, HEADER_CHECKSUM_AT).wrapping_sub(stored);
    let single = bytes.iter().take(HEADER_CHECKSUM_AT).enumerate();
    values.extend(single.filter_map(|(place, byte)| {
        let value = u8::try_from(u32::from(*byte).wrapping_add(missing)).ok()?;
        Some((place, vec![value]))
    }));
    let mut found: Vec<(Vec<u8>, _)> = Vec::new();
    for (place, value) in values {
        let mut other = bytes.to_vec();
        if let Some(field) = other.get_mut(place..place.saturating_add(value.len())) {
            field.copy_from_slice(&value);
        }
        let known = found.iter().any(|(known, _)| *known == other);
        let holds =
            |(_, from, width): &&Field| (*from..from.saturating_add(*width)).contains(&place);
        if !known
            && verify("candidate", &other, HEADER_CHECKSUM_AT).is_ok()
            && let Some(field) = FIELDS.iter().find(holds)
        {
            found.push((other, *field));
        }
    }
    found
}

/// Whether the table stands at a whole sector in front of where the data end, and has entries for as many blocks as a disk
/// of `size` bytes, or for `more`.
fn has_room(header: &Header, (size, data_end): (u64, u64), more: bool) -> bool {
    let (needed, entries) = (div_up(size, header.block), u64::from(header.entries));
    let counted = entries == needed || (more && entries > needed);
    counted && rem(header.table, SECTOR) == 0 && first(header) <= data_end
}

fn table_bytes(header: &Header) -> u64 {
    u64::from(header.entries).saturating_mul(4)
}

/// Where the first block can stand.
fn first(header: &Header) -> u64 {
    let table = header.table.saturating_add(table_bytes(header));
    round_up(header.end().max(table), SECTOR)
}

/// Whether the blocks of the table stand apart, whole, and fill the file between the table and the footer, so that there
/// is no room for one that the table lacks; `more` as for [`has_room`].
fn fits(blocks: &Blocks, more: bool) -> bool {
    let header = &blocks.header;
    if !has_room(header, (blocks.size, blocks.data_end), more) {
        return false;
    }
    let is_there = |(unit, entry): (u64, u32)| {
        blocks.fault(unit, entry).is_none() && blocks.slot_end(entry) <= blocks.data_end
    };
    if !blocks.used().all(is_there) || blocks.standing().any(|(_, _, over)| over) {
        return false;
    }
    let count = u64::try_from(blocks.used().count()).unwrap_or(u64::MAX);
    let taken = first(header).saturating_add(count.saturating_mul(header.slot()));
    let most = header
        .slot()
        .min(count.saturating_add(2).saturating_mul(GAP));
    let room = blocks.data_end.checked_sub(taken);
    room.is_some_and(|room| room < most)
}
