//! What the rest of an image proves of one field of its header.
//!
//! A header has no checksum, but it says much twice. In an image as programs leave it the numbers of the map are those from
//! zero up to the number of allocated blocks, each once, and the last block ends the file. Where that does not hold, and
//! holds with one other value of one field, one that programs write there, it is the field that is wrong: a wrong value
//! seldom fits by chance, and a map that is wrong, or a file that was cut, is not set right by a field.

use super::header::{
    BLOCK_AT, BLOCKS_AT, EXTRA_AT, Header, OFF_BLOCKS_AT, OFF_DATA_AT, at_of, bytes_of,
};
use super::read::{ZERO, read_map};
use super::rules;
use crate::finding::Findings;
use crate::math::{div_up, index, len64, rem, round_up};
use drylab_block::{Limits, ReadAt, Result};

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
    let bytes = bytes_of(source, limits)?;
    let mut proved = Vec::new();
    for candidate in candidates(&header) {
        let Some(other) = changed(&bytes, &candidate) else {
            continue;
        };
        if let Ok(map) = read_map(source, &other, limits)
            && fits(&other, &map, source.len())
        {
            proved.push((candidate, other, map));
        }
    }
    let one = proved.pop().filter(|_| proved.is_empty());
    let Some((candidate, other, map)) = one else {
        note_doubts(&header, source.len(), findings);
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
    Ok((other, map))
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

/// Whether header, map and end of the file fit each other: places are those of sectors and apart, the map is long enough,
/// its numbers are those from zero up, each once, all of blocks of the disk, and the last block ends the file.
fn fits(header: &Header, map: &[u32], length: u64) -> bool {
    let [_, (_, map_end)] = header.metadata();
    let aligned = [header.off_blocks, header.off_data, header.extra];
    let placed = header.off_data >= map_end && aligned.iter().all(|at| rem(*at, SECTOR) == 0);
    let needed = needed(header);
    if !placed || !header.block.is_power_of_two() || header.blocks < needed {
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
    let behind = map.get(index(needed)..).unwrap_or_default();
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
pub(super) fn turns(
    source: &dyn ReadAt,
    header: &Header,
    map: &[u32],
    length: u64,
) -> Option<&'static str> {
    if header.is_first() || fits(header, map, length) {
        return None;
    }
    let wrong = |candidate: &Candidate| {
        let other = changed(&header.bytes, candidate);
        other.is_some_and(|other| {
            if let Some(map) = map.get(..index(other.blocks)) {
                return fits(&other, map, length);
            }
            // More entries: those behind the map are as they stand.
            let read = read_map(source, &other, &Limits::DEFAULT).ok();
            let behind = read.and_then(|read| Some(read.get(map.len()..)?.to_vec()));
            behind.is_some_and(|behind| fits(&other, &[map, &behind].concat(), length))
        })
    };
    let mut all = candidates(header).into_iter();
    all.find(wrong).map(|candidate| candidate.name)
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
    let [_, (_, map_end)] = header.metadata();
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
