//! Repair.
//!
//! Order, so that a crash leaves a file that opens to the same bytes: the copy of the footer in front, which stands in
//! for the last one while that moves; the header, while the blocks and the end of the file are those that prove what it
//! said, and before anything comes to stand where its locators lead; entries that name nothing; the longer file with its
//! footer at the new end; blocks that stand over others, copied behind all that is used; their entries; then what nothing
//! else hangs on, the bitmaps.

use super::blocks::{Blocks, Fault, UNUSED};
use super::check::for_each_wrong;
use super::footer::resized;
use super::header::bitmap_bytes;
use super::read::{Body, Fixed, Vhd};
use super::write::bitmap;
use super::{DISK_BYTES_MAX, SECTOR, rules};
use crate::edit::{Edit, Plan};
use crate::layer::{flush, standing, write_entries};
use crate::math::{div, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result};

const FOOTER: u64 = 512;

pub(super) fn plan(image: &Vhd) -> Result<Plan> {
    match &image.body {
        Body::Fixed(fixed) => mend_fixed(image, fixed),
        Body::Blocks(blocks) => mend_blocks(image, blocks),
    }
}

/// Brings the footer of a fixed disk to the end of its bytes.
fn mend_fixed(image: &Vhd, fixed: &Fixed) -> Result<Plan> {
    let mut plan = Plan::default();
    let (located, file) = (&image.located, &*image.source);
    let (place, length) = (located.place, file.len());
    let current = located.footer.current_size;
    let said = current.saturating_sub(rem(current, SECTOR));
    let end = fixed
        .size
        .max(if said <= DISK_BYTES_MAX { said } else { 0 });
    if end == place && current == place {
        if length < place.saturating_add(FOOTER) {
            finish_short(length, place, &mut plan);
        } else {
            plan.write(file, place, &located.bytes)?;
        }
        return Ok(plan);
    }
    let footer = resized(&located.bytes, end, located.footer.geometry);
    if end == place {
        plan.write(file, place, &footer)?;
    } else if end > place {
        plan.note(format!(
            "the last {} bytes of the disk are gone: zeros take their place",
            end.saturating_sub(place)
        ));
        plan.push(Edit::Write {
            offset: end,
            old: standing(file, end, length.saturating_sub(end))?,
            new: footer,
        });
        flush(&mut plan);
        // The old footer stands inside the disk now.
        let old = standing(file, place, length.min(end).saturating_sub(place))?;
        let new = vec![0; old.len()];
        plan.push(Edit::Write {
            offset: place,
            old,
            new,
        });
    } else {
        plan.note(format!(
            "{} bytes behind the end of the disk are given up",
            place.saturating_sub(end)
        ));
        let mut length = length;
        if place.saturating_sub(end) < FOOTER {
            // The new footer would cover part of the only one; another behind it counts meanwhile.
            let spare = round_up(length, SECTOR);
            append(length, spare, &footer, &mut plan);
            flush(&mut plan);
            length = spare.saturating_add(FOOTER);
        }
        plan.write(file, end, &footer)?;
        flush(&mut plan);
        plan.push(Edit::Length {
            old: length,
            new: end.saturating_add(FOOTER),
        });
    }
    Ok(plan)
}

/// A footer of 511 bytes gets its last one, which is zero.
fn finish_short(length: u64, place: u64, plan: &mut Plan) {
    let end = place.saturating_add(FOOTER);
    if length < end {
        let new = vec![0; index(end.saturating_sub(length))];
        plan.push(Edit::Write {
            offset: length,
            old: Vec::new(),
            new,
        });
    }
}

/// Writes a footer at `place`, which is not in front of the end of a file of `length` bytes, in one step: a fixed disk
/// must not be without one.
pub(super) fn append(length: u64, place: u64, footer: &[u8], plan: &mut Plan) {
    debug_assert!(
        place >= length,
        "a footer over other bytes must say what they are"
    );
    plan.push(Edit::Write {
        offset: place,
        old: Vec::new(),
        new: footer.to_vec(),
    });
}

/// Makes a file end with a footer at `place`; the one before it stays where it is, until blocks are put over it.
pub(super) fn lift(file: &dyn ReadAt, place: u64, footer: &[u8], plan: &mut Plan) -> Result<()> {
    let length = file.len();
    if place >= length {
        append(length, place, footer, plan);
        return Ok(());
    }
    // In one step also where the file ends before it does: what stands there may be a footer, if it came to end the file.
    let old = standing(file, place, length.saturating_sub(place).min(FOOTER))?;
    if old != footer {
        plan.push(Edit::Write {
            offset: place,
            old,
            new: footer.to_vec(),
        });
    }
    Ok(())
}

/// A block that is copied behind all others.
struct Move {
    unit: u64,
    entry: u32,
    /// Where its bitmap goes.
    to: u64,
}

fn mend_blocks(image: &Vhd, blocks: &Blocks) -> Result<Plan> {
    if blocks.doubted_header {
        return Err(Error::unsupported(format_args!(
            "VHD repair: the checksum of the dynamic header is wrong, no single field proves to be the cause, and header \
             and blocks do not fit each other ({}); a new checksum would hide that, so nothing is written",
            rules::HEADER_DOUBT.code
        )));
    }
    let mut plan = Plan::default();
    let (file, located) = (&*image.source, &image.located);
    let table = blocks.header.table;
    if located.place != 0 {
        plan.write(file, 0, &located.bytes)?;
        flush(&mut plan);
    }
    let header = blocks.header.mended(blocks.header.entries, &blocks.stray);
    plan.write(file, blocks.header.at, &header)?;
    flush(&mut plan);
    if !blocks.stray.is_empty() {
        plan.note(format!(
            "{} parent locators that lead to where none can be are taken out; the parent has its name elsewhere, too",
            blocks.stray.len()
        ));
    }
    let kept = without_lost(blocks);
    write_entries(&mut plan, table, (&blocks.table, &kept), u32::to_be_bytes);
    let lost = blocks
        .table
        .iter()
        .zip(&kept)
        .filter(|(old, new)| old != new)
        .count();
    if lost > 0 {
        plan.note(format!(
            "{lost} blocks that stand nowhere in the file are given up: they do not exist any more"
        ));
        flush(&mut plan);
    }
    let moves = moves(image, blocks)?;
    let base = base(image, blocks);
    let end = moves
        .last()
        .map_or(base, |one| one.to.saturating_add(blocks.header.slot()));
    if !located.whole || end != located.data_end {
        lift(file, end, &located.bytes, &mut plan)?;
        flush(&mut plan);
    }
    clear_old_footer(image, blocks, base, &mut plan)?;
    let mut new = kept.clone();
    for one in &moves {
        copy(file, blocks, one, &mut plan)?;
        if let Some(entry) = new.get_mut(index(one.unit)) {
            *entry = u32::try_from(div(one.to, SECTOR)).unwrap_or(UNUSED);
        }
    }
    if !moves.is_empty() {
        flush(&mut plan);
        write_entries(&mut plan, table, (&kept, &new), u32::to_be_bytes);
        flush(&mut plan);
        plan.note(format!(
            "{} blocks that stand over others are copied",
            moves.len()
        ));
    }
    if blocks.below().is_none() {
        set_bits(blocks, &mut plan)?;
    }
    Ok(plan)
}

/// The table with the entries cleared that point to nothing.
fn without_lost(blocks: &Blocks) -> Vec<u32> {
    let mut table = blocks.table.clone();
    for (unit, entry) in blocks.used() {
        let gone = matches!(
            blocks.fault(unit, entry),
            Some(Fault::Lost | Fault::Metadata)
        );
        if let Some(entry) = table.get_mut(index(unit)).filter(|_| gone) {
            *entry = UNUSED;
        }
    }
    table
}

/// The first sector behind everything that is used, the last footer left out.
fn base(image: &Vhd, blocks: &Blocks) -> u64 {
    let end = blocks.data_end;
    let ends = blocks.standing().map(|(entry, unit, over)| {
        // What is to be copied is in use until then, up to the end of the file.
        let (_, _, needed) = blocks.range(u64::from(unit), entry);
        if over {
            needed.min(end)
        } else {
            blocks.slot_end(entry)
        }
    });
    // A place where a locator has no path must not come to hold one.
    let metadata = blocks.metadata.iter().chain(&blocks.doubted);
    let metadata = metadata.map(|(_, end)| *end);
    let used = ends.chain(metadata).max().unwrap_or(0);
    let used = round_up(used, SECTOR);
    // What is left behind them and no longer than a footer is the ruin of one.
    if image.source.len() == end && end.saturating_sub(used) <= FOOTER {
        used
    } else {
        round_up(used.max(end), SECTOR)
    }
}

/// Blocks that stand over others, and where each of them goes.
fn moves(image: &Vhd, blocks: &Blocks) -> Result<Vec<Move>> {
    let over = blocks.standing().filter(|(_, _, over)| *over);
    let mut moves = Vec::new();
    let mut to = base(image, blocks);
    for (entry, unit, _) in over {
        if div(to, SECTOR) >= u64::from(UNUSED) {
            return Err(Error::unsupported(format_args!(
                "VHD file that reaches byte {to} when its blocks stand apart; its BAT ends at 2^41"
            )));
        }
        let unit = u64::from(unit);
        moves.push(Move { unit, entry, to });
        to = to.saturating_add(blocks.header.slot());
    }
    Ok(moves)
}

/// The last footer was taken for data by a block that the file cut: zeros, as behind it, up to the end of what is used.
/// What was behind that, the bitmap of the first copied block goes over, or the new footer.
fn clear_old_footer(image: &Vhd, blocks: &Blocks, end: u64, plan: &mut Plan) -> Result<()> {
    let (place, length) = (blocks.data_end, image.source.len().min(end));
    let kept = blocks.standing().filter(|(_, _, over)| !over);
    let mut cut = kept.filter(|(entry, _, _)| blocks.slot_end(*entry) > place);
    if length <= place || cut.next().is_none() {
        return Ok(());
    }
    let old = standing(&*image.source, place, length.saturating_sub(place))?;
    let new = vec![0; old.len()];
    plan.push(Edit::Write {
        offset: place,
        old,
        new,
    });
    flush(plan);
    Ok(())
}

/// Copies a block; the bitmap of a dynamic one is made anew, what stands at its place may be another's data.
fn copy(file: &dyn ReadAt, blocks: &Blocks, one: &Move, plan: &mut Plan) -> Result<()> {
    let (start, data, end) = blocks.range(one.unit, one.entry);
    // Behind what the file has of it are zeros, there and where it goes.
    let end = end.min(blocks.data_end);
    let bits = bitmap_bytes(blocks.header.block);
    let (from, to) = if blocks.below().is_some() {
        (start, one.to)
    } else {
        let new = bitmap(blocks.header.block);
        let old = standing(file, one.to, len64(&new))?;
        plan.push(Edit::Write {
            offset: one.to,
            old,
            new,
        });
        (data, one.to.saturating_add(bits))
    };
    plan.push(Edit::Copy {
        from,
        to,
        length: end.saturating_sub(from),
    });
    Ok(())
}

/// Sets the bits of sectors that hold data.
fn set_bits(blocks: &Blocks, plan: &mut Plan) -> Result<()> {
    let new = bitmap(blocks.header.block);
    for_each_wrong(blocks, |_, start, old, _| {
        plan.push(Edit::Write {
            offset: start,
            old: old.to_vec(),
            new: new.clone(),
        });
    })
}
