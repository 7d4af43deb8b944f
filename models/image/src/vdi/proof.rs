//! What the rest of an image proves of one field of its header.
//!
//! A header has no checksum, but it says much twice. In an image as programs leave it the numbers of the map are those from
//! zero up to the number of allocated blocks, each once, and the last block ends the file. Where that does not hold, and
//! holds with one other value of one field, one that programs write there, it is the field that is wrong: a wrong value
//! seldom fits by chance, and a map that is wrong, or a file that was cut, is not set right by a field.

use super::header::{
    BLOCK_AT, BLOCKS_AT, EXTRA_AT, Header, OFF_BLOCKS_AT, OFF_DATA_AT, at_of, bytes_of,
};
use super::read::{Vdi, ZERO, entries_of, read_map};
use super::rules;
use crate::finding::Findings;
use crate::layer::standing;
use crate::math::{div_up, index, len64, rem, round_up};
use drylab_block::{Limits, ReadAt, Result};
use std::borrow::Cow;

/// Where programs let the map begin: qemu-img and old VirtualBox behind the header, VirtualBox of today at 1 MiB.
const STARTS: [u64; 4] = [512, 1024, 4096, 1 << 20];
/// What programs align the data to.
const ALIGNMENTS: [u64; 3] = [512, 4096, 1 << 20];
/// The sizes of blocks, as powers of two, that are tried.
const BLOCKS: std::ops::RangeInclusive<u32> = 12..=26;
const SECTOR: u64 = 512;

/// Another value of a field.
struct Candidate {
    name: &'static str,
    at: usize,
    stored: u64,
    value: u64,
}

/// A value that the file fits, and the header with it.
type Proved = (Candidate, Header);
/// The map as it stands, if it can be read.
type Stored = Result<Vec<u32>>;

/// The header and the map that are to be read: as they stand, or with the one field set right that the rest proves wrong.
pub(super) fn settled(
    source: &dyn ReadAt,
    header: Header,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<(Header, Vec<u32>)> {
    let stored = read_map(source, &header, limits);
    let whole = |map: &Vec<u32>| fits(&header, map, source.len());
    if header.is_first() || stored.as_ref().is_ok_and(whole) {
        return Ok((header, stored?));
    }
    let (mut proved, stored) = proved(source, &header, stored, limits)?;
    let one = proved.pop().filter(|_| proved.is_empty());
    let Some((candidate, other)) = one else {
        note_doubts(&header, source.len(), findings);
        let stored = stored.unwrap_or_else(|| read_map(source, &header, limits));
        return Ok((header, stored?));
    };
    let expected = format!(
        "{}, with which map, blocks and the end of the file fit each other and which was taken",
        candidate.value
    );
    let place = (at_of(candidate.at), 4);
    findings.add(
        &rules::HEADER_FIELD,
        place,
        candidate.name,
        candidate.stored,
        expected,
    );
    drop(stored);
    let map = read_map(source, &other, limits)?;
    Ok((other, map))
}

/// The headers that the file fits, and the map as it stands, if it is still held: it is not while another is.
fn proved(
    source: &dyn ReadAt,
    header: &Header,
    stored: Stored,
    limits: &Limits,
) -> Result<(Vec<Proved>, Option<Stored>)> {
    let bytes = bytes_of(source, limits)?;
    let others = candidates(header).into_iter().filter_map(|candidate| {
        let other = changed(&bytes, &candidate)?;
        has_room(&other, source.len()).then_some((candidate, other))
    });
    // Most fields leave the map where it is.
    let (mut here, elsewhere): (Vec<_>, Vec<_>) =
        others.partition(|(_, other)| other.is_mapped_as(header));
    let fits_stored = |(_, other): &Proved| {
        let map = stored.as_ref();
        map.is_ok_and(|map| fits(other, map, source.len()))
    };
    here.retain(fits_stored);
    if elsewhere.is_empty() {
        return Ok((here, Some(stored)));
    }
    drop(stored);
    here.extend(proved_elsewhere(source, elsewhere, limits)?);
    Ok((here, None))
}

/// Those whose map, which stands at another place than the header says, fits. All of them stand in one part of the file,
/// which is read once; where that is too long, none of them is proved.
fn proved_elsewhere(
    source: &dyn ReadAt,
    mut others: Vec<Proved>,
    limits: &Limits,
) -> Result<Vec<Proved>> {
    let spans = others.iter().map(|(_, other)| other.map_span());
    let (from, to) = spans.fold((u64::MAX, 0), |(from, to), (start, end)| {
        (from.min(start), to.max(end))
    });
    let [.., last_start] = STARTS;
    let (length, most) = (to.saturating_sub(from), limits.table_bytes_max);
    if length > most.saturating_add(last_start) {
        return Ok(Vec::new());
    }
    let part = standing(source, from, length)?;
    others.retain(|(_, other)| {
        let (start, end) = other.map_span();
        let place = index(start.saturating_sub(from))..index(end.saturating_sub(from));
        let map = part.get(place).map(entries_of);
        map.is_some_and(|map| fits(other, &map, source.len()))
    });
    Ok(others)
}

fn changed(bytes: &[u8], candidate: &Candidate) -> Option<Header> {
    let mut bytes = bytes.to_vec();
    let value = u32::try_from(candidate.value).ok()?.to_le_bytes();
    let end = candidate.at.saturating_add(value.len());
    bytes.get_mut(candidate.at..end)?.copy_from_slice(&value);
    Header::of(bytes).ok()
}

/// Fields that may be the wrong one: they are as no program writes them, and the file does not end where the blocks do.
pub(super) fn in_doubt(header: &Header, length: u64) -> Vec<&'static str> {
    let data = u64::from(header.allocated).saturating_mul(header.slot());
    if header.off_data.saturating_add(data) == length {
        return Vec::new();
    }
    doubtful(header)
}

/// Says so where fields are in doubt.
fn note_doubts(header: &Header, length: u64, findings: &mut Findings) {
    let doubts = in_doubt(header, length);
    if doubts.is_empty() {
        return;
    }
    let found = format!("in doubt ({})", doubts.join(", "));
    let expected = format!("fields with which the blocks end where the file does, at {length}");
    let place = (0, len64(&header.bytes));
    findings.add(&rules::HEADER_DOUBT, place, "header", found, expected);
}

/// Whether the places that a header says are those of sectors and apart, its map is long enough for the disk, and whole
/// blocks fill a file of `length` bytes behind it.
fn has_room(header: &Header, length: u64) -> bool {
    let (_, map_end) = header.map_span();
    let aligned = [header.off_blocks, header.off_data, header.extra];
    let placed = header.off_data >= map_end && aligned.iter().all(|at| rem(*at, SECTOR) == 0);
    let data = length.checked_sub(header.off_data);
    placed
        && header.block.is_power_of_two()
        && header.blocks >= needed(header)
        && data.is_some_and(|data| rem(data, header.slot()) == 0)
}

/// Whether header, map and end of the file fit each other: there is room, the numbers of the map are those from zero up,
/// each once, all of blocks of the disk, and the last block ends the file.
fn fits(header: &Header, map: &[u32], length: u64) -> bool {
    if !has_room(header, length) {
        return false;
    }
    let used = || map.iter().filter(|number| **number < ZERO);
    let count = used().count();
    let data = u64::try_from(count)
        .unwrap_or(u64::MAX)
        .saturating_mul(header.slot());
    if header.off_data.saturating_add(data) != length {
        return false;
    }
    let behind = map.get(index(needed(header))..).unwrap_or_default();
    let mut seen = vec![false; count];
    let mut first = |number: &u32| {
        let place = usize::try_from(*number).unwrap_or(usize::MAX);
        seen.get_mut(place)
            .is_some_and(|seen| !std::mem::replace(seen, true))
    };
    behind.iter().all(|number| *number >= ZERO) && used().all(&mut first)
}

/// The field that would be proved wrong when the map is `map` and the file has `length` bytes: then what is read now is not
/// what a repair would leave.
pub(super) fn turns(image: &Vdi, map: &[u32], length: u64) -> Option<&'static str> {
    let header = &image.header;
    if header.is_first() || fits(header, map, length) {
        return None;
    }
    let wrong = |candidate: &Candidate| {
        let other = changed(&header.bytes, candidate);
        let other = other.filter(|other| has_room(other, length));
        other.is_some_and(|other| {
            let map = map_after(image, map, &other);
            map.is_ok_and(|map| fits(&other, &map, length))
        })
    };
    let mut all = candidates(header).into_iter();
    all.find(wrong).map(|candidate| candidate.name)
}

/// The map that `other` would find where `map` is written at the place that the image's own header says.
fn map_after<'a>(image: &Vdi, map: &'a [u32], other: &Header) -> Result<Cow<'a, [u32]>> {
    if other.is_mapped_as(&image.header) {
        return Ok(Cow::Borrowed(map));
    }
    let length = image.table_within_limits(other)?;
    let mut bytes = standing(&*image.source, other.off_blocks, length)?;
    let written = (image.header.off_blocks..).zip(map.iter().flat_map(|entry| entry.to_le_bytes()));
    for (at, byte) in written {
        let place = at.checked_sub(other.off_blocks).map(index);
        if let Some(place) = place.and_then(|place| bytes.get_mut(place)) {
            *place = byte;
        }
    }
    Ok(Cow::Owned(entries_of(&bytes)))
}

/// Whether a map in itself is as programs leave it: its numbers, sorted, are those from zero up, each once.
pub(super) fn is_whole(sorted: &[(u32, u32)]) -> bool {
    let mut numbers = (0u32..).zip(sorted);
    numbers.all(|(at, (number, _))| at == *number)
}

/// Blocks that the disk needs.
pub(super) fn needed(header: &Header) -> u64 {
    div_up(header.size, header.block)
}

/// Places where the data may begin behind a map.
fn data_starts(header: &Header) -> [u64; 3] {
    let (_, map_end) = header.map_span();
    ALIGNMENTS.map(|alignment| round_up(map_end, alignment))
}

/// Fields with a value that no known program writes beside the others.
pub(super) fn doubtful(header: &Header) -> Vec<&'static str> {
    let doubts = [
        ("offBlocks", !STARTS.contains(&header.off_blocks)),
        ("offData", !data_starts(header).contains(&header.off_data)),
        ("cbBlock", !header.block.is_power_of_two()),
        ("cbBlockExtra", header.extra != 0),
        ("cBlocks or cbDisk", header.blocks != needed(header)),
    ];
    let doubts = doubts.into_iter().filter(|(_, doubted)| *doubted);
    doubts.map(|(name, _)| name).collect()
}

/// The values that are tried. Of fields whose value may be that of a sound image none is.
fn candidates(header: &Header) -> Vec<Candidate> {
    let mut all = Vec::new();
    let mut add = |name, at, stored: u64, values: &[u64]| {
        let others = values.iter().filter(|value| **value != stored);
        let others = others.map(|value| Candidate {
            name,
            at,
            stored,
            value: *value,
        });
        all.extend(others);
    };
    let start = header.off_blocks;
    if !STARTS.contains(&start) {
        add("header, offBlocks", OFF_BLOCKS_AT, start, &STARTS);
    }
    let mut starts = data_starts(header).to_vec();
    starts.dedup();
    if !starts.contains(&header.off_data) {
        add("header, offData", OFF_DATA_AT, header.off_data, &starts);
    }
    add("header, cbBlockExtra", EXTRA_AT, header.extra, &[0]);
    if !header.block.is_power_of_two() {
        let sizes: Vec<u64> = BLOCKS
            .map(|bits| 1 << bits)
            .filter(|block| div_up(header.size, *block) == header.blocks)
            .collect();
        add("header, cbBlock", BLOCK_AT, header.block, &sizes);
    }
    let needed = [needed(header)];
    add("header, cBlocks", BLOCKS_AT, header.blocks, &needed);
    all
}
