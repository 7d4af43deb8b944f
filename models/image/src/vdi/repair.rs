//! Repair: entries that name nothing are freed, blocks of one number get one each, the header is set right.
//!
//! Order: lost entries first, so that a longer file does not bring bytes of nobody into the disk; then the blocks are
//! copied to where nothing stands; then their entries change; the header comes last. A field of the header that the rest
//! proves wrong was read as it is proved, and is the only change there.

use super::header::{PARENT_MODIFY_AT, SIZE_AT, VERSION, VERSION_AT};
use super::read::{FREE, Fault, Vdi, free_numbers};
use super::{proof, resize, rules};
use crate::edit::{Edit, Plan};
use crate::layer::{flush, write_entries};
use crate::math::index;
use crate::uuid;
use drylab_block::{Error, Result};

/// A block that is copied: its place in the map, its number now and then.
struct Move {
    unit: u64,
    from: u32,
    to: u32,
}

pub(super) fn plan(image: &Vdi) -> Result<Plan> {
    image.is_planned_within_limits()?;
    let mut plan = Plan::default();
    let off_blocks = image.header.off_blocks;
    let kept = without_lost(image);
    write_entries(&mut plan, off_blocks, (&image.map, &kept), u32::to_le_bytes);
    let lost = image
        .map
        .iter()
        .zip(&kept)
        .filter(|(old, new)| old != new)
        .count();
    refuse_in_doubt(image, lost)?;
    if lost > 0 {
        flush(&mut plan);
        plan.note(format!(
            "{lost} blocks that stand nowhere in the file are given up: they become free"
        ));
    }
    let moves = moves(image, &kept)?;
    lengthen(image, &kept, &moves, &mut plan);
    let mut new = kept.clone();
    for one in &moves {
        if let Some(entry) = new.get_mut(index(one.unit)) {
            *entry = one.to;
        }
    }
    let (length, longer) = (image.source.len(), resize::length_after(image, &plan));
    let mut states = [(&kept, length), (&kept, longer), (&new, longer)].into_iter();
    let turns = |(map, length): (&Vec<u32>, u64)| proof::turns(image, map, length);
    if let Some(field) = states.find_map(turns) {
        return Err(Error::unsupported(format_args!(
            "VDI repair: what a step of it would leave fits another {field}, so that may be wrong as well; nothing is written"
        )));
    }
    for one in &moves {
        let (from, end) = image.range(one.unit, one.from);
        let (to, _) = image.header.place(one.to);
        plan.push(Edit::Copy {
            from,
            to,
            length: end.saturating_sub(from),
        });
    }
    if !moves.is_empty() {
        flush(&mut plan);
        plan.note(format!(
            "{} blocks that stand over others, or too far behind, are copied",
            moves.len()
        ));
    }
    write_entries(&mut plan, off_blocks, (&kept, &new), u32::to_le_bytes);
    if !moves.is_empty() {
        flush(&mut plan);
    }
    mend_header(image, &new, &mut plan)?;
    Ok(plan)
}

/// Refuses to give blocks up where it is rather the header that is wrong, or most of the file is gone.
fn refuse_in_doubt(image: &Vdi, lost: usize) -> Result<()> {
    let used = image.used().count();
    if lost == 0 || image.header.is_first() {
        return Ok(());
    }
    let doubtful = proof::doubtful(&image.header);
    let most = lost.saturating_mul(2) > used;
    // A single block of a header in which nothing is odd tells of nothing but itself.
    let alone = used == 1 && doubtful.is_empty();
    // Entries that are wrong do not leave the map whole, nor the file longer or shorter than its blocks.
    let in_doubt = !proof::in_doubt(&image.header, image.source.len()).is_empty();
    let whole = proof::is_whole(&image.by_number());
    let suspected = in_doubt || (whole && !doubtful.is_empty());
    if (!most || alone) && !suspected {
        return Ok(());
    }
    let suspected = match doubtful.as_slice() {
        [] => "the fields of the header fit each other, so most of the file is gone".to_owned(),
        fields => format!("the header's {} may be wrong", fields.join(", ")),
    };
    Err(Error::unsupported(format_args!(
        "VDI repair: {lost} of {used} blocks stand nowhere in the file of {} bytes, and {suspected}; none is given up, \
         nothing is written",
        image.source.len()
    )))
}

/// The map with the entries freed that point to nothing.
fn without_lost(image: &Vdi) -> Vec<u32> {
    let mut map = image.map.clone();
    for (unit, number) in image.used() {
        let gone = matches!(
            image.fault(unit, number),
            Some(Fault::Lost | Fault::Metadata)
        );
        if let Some(entry) = map.get_mut(index(unit)).filter(|_| gone) {
            *entry = FREE;
        }
    }
    map
}

/// Blocks that need another number: all but the first of those that have one number, and those past the last allowed.
///
/// A map has a number for each of its entries. Only where header or map stand over some of them can there be too few, and
/// then it is the place of the map or of the data that is wrong: what is taken for blocks may be anything.
fn moves(image: &Vdi, kept: &[u32]) -> Result<Vec<Move>> {
    let mut sorted = image.by_number();
    sorted.retain(|(_, unit)| kept.get(index(u64::from(*unit))) != Some(&FREE));
    let mut last = None;
    let mut wrong = Vec::new();
    for (number, unit) in &sorted {
        let again = last.replace(*number) == Some(*number);
        if again || u64::from(*number) >= image.header.blocks {
            wrong.push((u64::from(*unit), *number));
        }
    }
    let clear = |number: &u32| {
        let (start, data) = image.header.place(*number);
        let end = data.saturating_add(image.header.block);
        let inside = |(from, to): &(u64, u64)| start < *to && *from < end;
        !image.header.metadata().iter().any(inside)
    };
    let free = free_numbers(&sorted, image.header.blocks).filter(clear);
    let needed = wrong.len();
    let moved = wrong.into_iter().zip(free);
    let moves: Vec<Move> = moved
        .map(|((unit, from), to)| Move { unit, from, to })
        .collect();
    if moves.len() < needed {
        return Err(Error::unsupported(format_args!(
            "VDI repair: {needed} blocks need another number and {} are free: the others stand over the header or the map \
             ({}), and whether offBlocks or offData is wrong cannot be told, so nothing is written",
            moves.len(),
            rules::DATA_IN_METADATA.code
        )));
    }
    Ok(moves)
}

/// Makes the file long enough for the blocks that it cuts, and for those that come.
fn lengthen(image: &Vdi, kept: &[u32], moves: &[Move], plan: &mut Plan) {
    let cut = image
        .used()
        .filter(|(unit, _)| kept.get(index(*unit)) != Some(&FREE))
        .map(|(unit, number)| image.range(unit, number).1);
    let come = moves.iter().map(|one| image.range(one.unit, one.to).1);
    let (old, needed) = (image.source.len(), cut.max().unwrap_or(0));
    if needed > old {
        plan.note(format!(
            "the last {} bytes of the blocks are gone: zeros take their place",
            needed.saturating_sub(old)
        ));
    }
    let new = needed.max(come.max().unwrap_or(0));
    if new > old {
        plan.push(Edit::Length { old, new });
        flush(plan);
    }
}

fn mend_header(image: &Vdi, map: &[u32], plan: &mut Plan) -> Result<()> {
    let header = &image.header;
    let count = map
        .iter()
        .filter(|number| **number < super::read::ZERO)
        .count();
    let count = u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
    let sector = 512u32.to_le_bytes();
    let length = 384u32.to_le_bytes();
    let mut changes: Vec<(usize, &[u8])> = vec![(header.places.allocated, &count)];
    changes.extend(header.sector_places().map(|at| (at, sector.as_slice())));
    if !header.is_first() && drylab_block::le_u32(&header.bytes, SIZE_AT).unwrap_or(0) < 384 {
        changes.push((SIZE_AT, &length));
    }
    let version = VERSION.to_le_bytes();
    if !header.is_first() {
        changes.push((VERSION_AT, &version));
        if header.is_parentless() {
            changes.push((PARENT_MODIFY_AT, &[0; 16]));
        }
    }
    // Made of the header itself, so that the same file is mended alike.
    let id = uuid::swapped(uuid::made_of(uuid::digest(&header.bytes), "VDI repaired"));
    for (at, known) in [
        (header.places.create, header.create),
        (header.places.modify, header.modify),
    ] {
        if known == [0; 16] {
            changes.push((at, &id));
        }
    }
    plan.write(&*image.source, 0, &header.with(&changes))
}
