//! Resize. Everything about a size stands in the first sector of the file, so one write brings the new one about; before
//! it, only bytes change that nobody reads, and blocks are copied before their entries change.
//!
//! A map that has no room to grow goes to the place of the first blocks, and those to the end of the file: the numbers
//! of all blocks get smaller by as many, which is why the map is written anew and not moved.

use super::header::{OFF_BLOCKS_AT, OFF_DATA_AT};
use super::read::{FREE, Vdi, ZERO, entries, free_numbers};
use super::{BLOCKS_MAX, header};
use crate::container::Container;
use crate::edit::{Edit, Plan};
use crate::finding::{Finding, Repair};
use crate::layer::{fill, flush, standing, write_entries};
use crate::math::{div_up, index, len64, rem, round_up};
use drylab_block::{Error, Result, Severity};

const SECTOR: u64 = 512;

pub(super) fn plan(image: &Vdi, size: u64) -> Result<Plan> {
    if image.header.is_first() {
        return Err(Error::unsupported(
            "a VDI of version 0.2 is not resized: its data stand at once behind its map; convert it",
        ));
    }
    let wrong = |finding: &&Finding| {
        finding.rule.repair != Repair::No || finding.rule.severity == Severity::Error
    };
    if let Some(finding) = image.noticed().list().iter().find(wrong) {
        return Err(Error::unsupported(format_args!(
            "{}: {}; it is mended before it is resized",
            finding.rule.code,
            finding.message()
        )));
    }
    let new = round_up(size, SECTOR);
    let blocks = div_up(new, image.header.block);
    if blocks > BLOCKS_MAX || size > new {
        return Err(Error::unsupported(format_args!(
            "VDI of {size} bytes needs {blocks} blocks of {}, more than the {BLOCKS_MAX} that QEMU reads",
            image.header.block
        )));
    }
    image.is_planned_within_limits()?;
    let mut plan = Plan::default();
    if new != size {
        plan.note(format!(
            "the disk gets {new} bytes, {size} were asked for: it has whole sectors of {SECTOR}"
        ));
    }
    if new > image.header.size {
        grow(image, (new, blocks), &mut plan)?;
    } else if new < image.header.size {
        shrink(image, (new, blocks), &mut plan)?;
    }
    Ok(plan)
}

/// Sizes and places in a header.
struct Said {
    size: u64,
    blocks: u64,
    allocated: u64,
    off_blocks: u64,
    off_data: u64,
}

/// Writes the header, the one step that changes the disk.
fn say(image: &Vdi, said: &Said, plan: &mut Plan) -> Result<()> {
    let word = |value: u64| {
        u32::try_from(value).map(u32::to_le_bytes).map_err(|_| {
            Error::unsupported(format_args!(
                "VDI whose data would begin at {value}, its header holds 32 bits; convert it to larger blocks"
            ))
        })
    };
    let places = image.header.places;
    let bytes = image.header.with(&[
        (places.disk, &said.size.to_le_bytes()),
        (places.blocks, &word(said.blocks)?),
        (places.allocated, &word(said.allocated)?),
        (OFF_BLOCKS_AT, &word(said.off_blocks)?),
        (OFF_DATA_AT, &word(said.off_data)?),
    ]);
    flush(plan);
    plan.write(&*image.source, 0, &bytes)?;
    flush(plan);
    Ok(())
}

fn grow(image: &Vdi, (size, blocks): (u64, u64), plan: &mut Plan) -> Result<()> {
    let head = &image.header;
    let end = head.off_blocks.saturating_add(blocks.saturating_mul(4));
    let fixed = head.kind == header::Kind::Fixed;
    // Blocks that make room for the map.
    let room = if end <= head.off_data {
        0
    } else {
        let start = round_up(head.off_data, SECTOR);
        let end = start.saturating_add(round_up(blocks.saturating_mul(4), SECTOR));
        div_up(end.saturating_sub(head.off_data), head.slot())
    };
    let mut map = moved(image, room, plan)?;
    let count = div_up(image.header.size, head.block);
    let fresh = blocks.saturating_sub(entries(&map));
    if fixed {
        if entries(&map) > count {
            return Err(Error::unsupported(format_args!(
                "fixed VDI of {} blocks, {count} of them its disk's; convert it",
                entries(&map)
            )));
        }
        let first = map
            .iter()
            .filter(|n| **n < ZERO)
            .max()
            .map_or(0, |n| u64::from(*n).saturating_add(1));
        let first = first.max(room);
        let last = first.saturating_add(fresh);
        let length = head
            .off_data
            .saturating_add(last.saturating_mul(head.slot()));
        let now = length_after(image, plan);
        if length > now {
            plan.push(Edit::Length {
                old: now,
                new: length,
            });
        }
        let from = head
            .off_data
            .saturating_add(first.saturating_mul(head.slot()));
        fill(
            plan,
            &*image.source,
            (from, length.min(image.source.len())),
            0,
        )?;
        map.extend((first..last).filter_map(|number| u32::try_from(number).ok()));
    } else {
        map.resize(index(blocks.max(entries(&map))), FREE);
    }
    zero_tail(image, count, &map, plan)?;
    // Entries behind the old size may be there already; a dynamic disk has zeros in them.
    if !fixed {
        for entry in map
            .iter_mut()
            .skip(index(count))
            .take(index(entries(&image.map).saturating_sub(count)))
        {
            *entry = FREE;
        }
    }
    let allocated = len64(
        &map.iter()
            .filter(|number| **number < ZERO)
            .collect::<Vec<_>>(),
    );
    let mut said = Said {
        size,
        blocks: entries(&map),
        allocated,
        off_blocks: head.off_blocks,
        off_data: head.off_data,
    };
    if room == 0 {
        let known = image.map.len();
        let now = map.get(..known).unwrap_or(&image.map);
        write_entries(plan, head.off_blocks, (&image.map, now), u32::to_le_bytes);
        let at = head
            .off_blocks
            .saturating_add(entries(&image.map).saturating_mul(4));
        let added = map.iter().skip(known).copied();
        write_words(image, at, added, plan)?;
    } else {
        let shift = u32::try_from(room).unwrap_or(u32::MAX);
        let less = |number: u32| {
            if number < ZERO {
                number.saturating_sub(shift)
            } else {
                number
            }
        };
        said.off_blocks = round_up(head.off_data, SECTOR);
        said.off_data = head
            .off_data
            .saturating_add(room.saturating_mul(head.slot()));
        let all = map.iter().map(|number| less(*number));
        write_words(image, said.off_blocks, all, plan)?;
        plan.note(format!(
            "the map moves to byte {}, {room} blocks make room for it",
            said.off_blocks
        ));
    }
    say(image, &said, plan)
}

/// Length of the file when all steps planned so far are taken.
pub(super) fn length_after(image: &Vdi, plan: &Plan) -> u64 {
    let last = plan.edits().iter().rev().find_map(|edit| match edit {
        Edit::Length { new, .. } => Some(*new),
        _ => None,
    });
    last.unwrap_or_else(|| image.source.len())
}

/// Copies the blocks with a number below `room` to the end of the data; the result is the map then.
fn moved(image: &Vdi, room: u64, plan: &mut Plan) -> Result<Vec<u32>> {
    let mut map = image.map.clone();
    let first = |n: &u32| u64::from(*n) < room;
    let last = map
        .iter()
        .filter(|n| **n < ZERO)
        .max()
        .map_or(0, |n| u64::from(*n).saturating_add(1));
    let mut to = last.max(room);
    let moving: Vec<(u64, u32)> = image.used().filter(|(_, number)| first(number)).collect();
    let end = to
        .saturating_add(len64(&moving))
        .saturating_mul(image.header.slot());
    let end = image.header.off_data.saturating_add(end);
    let length = image.source.len();
    // The place of the map must be there, too.
    if room > 0 && end > length {
        plan.push(Edit::Length {
            old: length,
            new: end,
        });
    }
    for (unit, number) in &moving {
        let number_then = u32::try_from(to)
            .ok()
            .filter(|to| *to < ZERO)
            .ok_or_else(|| {
                Error::unsupported(format_args!(
                    "VDI with block number {to}, a map holds less than 2^32 - 2"
                ))
            })?;
        let (from, end) = image.range(*unit, *number);
        plan.push(Edit::Copy {
            from,
            to: image.header.place(number_then).0,
            length: end.saturating_sub(from),
        });
        if let Some(entry) = map.get_mut(index(*unit)) {
            *entry = number_then;
        }
        to = to.saturating_add(1);
    }
    if !moving.is_empty() {
        flush(plan);
        write_entries(
            plan,
            image.header.off_blocks,
            (&image.map, &map),
            u32::to_le_bytes,
        );
        flush(plan);
    }
    Ok(map)
}

/// What stands in the last block behind the disk's old end is none of its bytes: zeros.
fn zero_tail(image: &Vdi, count: u64, map: &[u32], plan: &mut Plan) -> Result<()> {
    let within = rem(image.header.size, image.header.block);
    let last = index(count.saturating_sub(1));
    let (Some(old), Some(new)) = (image.map.get(last), map.get(last)) else {
        return Ok(());
    };
    if within == 0 || *old >= ZERO {
        return Ok(());
    }
    if old == new {
        let (_, data) = image.header.place(*old);
        let from = data.saturating_add(within);
        let to = data.saturating_add(image.header.block);
        // A file may end with what is needed of its last block.
        let (length, now) = (image.source.len(), length_after(image, plan));
        if to > now {
            plan.push(Edit::Length { old: now, new: to });
        }
        return fill(plan, &*image.source, (from, to.min(length)), 0);
    }
    // It was copied as far as the disk went, to where nothing stands: behind that are zeros, or what the file had there.
    let (_, data) = image.header.place(*new);
    let from = data.saturating_add(within);
    let to = data.saturating_add(image.header.block);
    fill(plan, &*image.source, (from, to), 0)
}

/// Entries written at a time.
const ENTRIES: usize = 1 << 14;

/// Writes entries that nobody reads yet over what stands there.
fn write_words(
    image: &Vdi,
    place: u64,
    mut words: impl Iterator<Item = u32>,
    plan: &mut Plan,
) -> Result<()> {
    let mut at = place;
    loop {
        let piece = words.by_ref().take(ENTRIES);
        let piece: Vec<u8> = piece.flat_map(u32::to_le_bytes).collect();
        if piece.is_empty() {
            return Ok(());
        }
        let (offset, length) = (at, len64(&piece));
        let old = standing(&*image.source, offset, length)?;
        if old != piece {
            plan.push(Edit::Write {
                offset,
                old,
                new: piece,
            });
        }
        at = at.saturating_add(length);
    }
}

fn shrink(image: &Vdi, (size, blocks): (u64, u64), plan: &mut Plan) -> Result<()> {
    let head = &image.header;
    let map = image
        .map
        .get(..index(blocks))
        .unwrap_or(&image.map)
        .to_vec();
    let mut sorted = image.by_number();
    sorted.retain(|(_, unit)| u64::from(*unit) < blocks);
    let allocated = len64(&sorted);
    plan.note(format!(
        "the last {} bytes of the disk are given up",
        head.size.saturating_sub(size)
    ));
    let said = Said {
        size,
        blocks,
        allocated,
        off_blocks: head.off_blocks,
        off_data: head.off_data,
    };
    say(image, &said, plan)?;
    // Blocks with a number past the last that is needed fill the gaps.
    let far = sorted
        .iter()
        .filter(|(number, _)| u64::from(*number) >= allocated);
    let mut then = map.clone();
    let mut count = 0u64;
    for ((number, unit), to) in far.zip(free_numbers(&sorted, allocated)) {
        let (from, end) = image.range(u64::from(*unit), *number);
        plan.push(Edit::Copy {
            from,
            to: head.place(to).0,
            length: end.saturating_sub(from),
        });
        if let Some(entry) = then.get_mut(index(u64::from(*unit))) {
            *entry = to;
        }
        count = count.saturating_add(1);
    }
    if count > 0 {
        flush(plan);
        write_entries(plan, head.off_blocks, (&map, &then), u32::to_le_bytes);
        flush(plan);
    }
    let length = head
        .off_data
        .saturating_add(allocated.saturating_mul(head.slot()));
    let old = image.source.len();
    if length < old {
        plan.push(Edit::Length { old, new: length });
    }
    Ok(())
}
