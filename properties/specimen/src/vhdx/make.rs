//! One file: where everything is, blocks and bitmaps, BAT.

use super::rules::{Layout, Role, Slot};
use super::structure::{self, Area};
use super::{FULLY, MIB, PARTIALLY, Plan, log};
use crate::choices::{Choices, index, len};
use crate::content::{fill, put};
use crate::field::{Class, Endian};
use crate::make::Maker;
use drylab_block::{SparseBytes, WriteAt, copy_data};

/// Something that has a place of whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Log,
    Bat,
    Metadata,
    Unknown,
    Block(u64),
    Bitmap(u64),
}

/// Places of all things, in an order that is drawn.
fn places(choices: &mut impl Choices, plan: &Plan) -> (Vec<(Thing, u64, u64)>, u64) {
    let bat = (plan.entries() * 8).div_ceil(MIB).max(1) + choices.below(2);
    let mut things = vec![
        (Thing::Log, choices.between(1, 2) * MIB),
        (Thing::Bat, bat * MIB),
        (Thing::Metadata, MIB),
    ];
    if choices.one_in(3) {
        things.push((Thing::Unknown, MIB));
    }
    let stored = (0u64..)
        .zip(&plan.states)
        .filter(|(_, state)| **state >= FULLY);
    things.extend(stored.map(|(block, _)| (Thing::Block(block), plan.block)));
    for chunk in 0..plan.chunks() {
        let first = index(chunk * plan.ratio());
        let own = plan.states.iter().skip(first).take(index(plan.ratio()));
        let partly = own.clone().any(|state| *state == PARTIALLY);
        if partly || (plan.parent.is_some() && choices.one_in(2)) {
            things.push((Thing::Bitmap(chunk), MIB));
        }
    }
    if choices.one_in(2) {
        choices.shuffle(&mut things);
    }
    let mut end = MIB;
    let mut placed = Vec::new();
    for (thing, length) in things {
        if choices.one_in(4) {
            end += MIB * choices.below(3);
        }
        placed.push((thing, end, length));
        end += length;
    }
    (placed, end)
}

fn place_of(all: &[(Thing, u64, u64)], wanted: Thing) -> Option<(u64, u64)> {
    let found = all.iter().find(|(thing, ..)| *thing == wanted)?;
    Some((found.1, found.2))
}

/// Makes a file; the disk that it must read as is told over `base`.
pub(super) fn file(
    choices: &mut impl Choices,
    plan: &Plan,
    base: Option<&SparseBytes>,
) -> (Maker<Role>, Layout, SparseBytes) {
    let (all, end) = places(choices, plan);
    let the = |thing| place_of(&all, thing).expect("every file has one");
    let (log_place, bat, metadata) = (the(Thing::Log), the(Thing::Bat), the(Thing::Metadata));
    let unknown = place_of(&all, Thing::Unknown);
    let mut maker = Maker::new(0, Endian::Little);
    maker.set_len(end);
    let area = Area {
        log: log_place,
        bat,
        metadata,
        unknown,
    };
    let disk = SparseBytes::new(plan.size);
    if let Some(base) = base {
        copy_data(base, &disk).expect("memory is copied");
    }
    let mut slots = Vec::new();
    for (block, state) in (0u64..).zip(&plan.states) {
        let at = place_of(&all, Thing::Block(block)).map(|(at, _)| at);
        let entry = at.unwrap_or(0) | state;
        slots.push((plan.entry_of(block), Slot::Block(block), entry));
        match (at, *state) {
            (Some(at), _) => {
                let chunk = block / plan.ratio();
                let bitmap = place_of(&all, Thing::Bitmap(chunk)).map(|(at, _)| at);
                let partly = bitmap.filter(|_| *state == PARTIALLY);
                stored(choices, &mut maker, plan, (block, at, partly), &disk);
            }
            (None, 1..=3) => zero(&disk, block * plan.block, plan.inside(block)),
            _ => {}
        }
    }
    for chunk in 0..plan.chunks() {
        let index = (chunk + 1) * plan.ratio() + chunk;
        let bitmap = place_of(&all, Thing::Bitmap(chunk));
        let entry = bitmap.map_or(0, |(at, _)| at | FULLY);
        if index < plan.entries() {
            slots.push((index, Slot::Bitmap(chunk), entry));
        }
        if let Some((at, _)) = bitmap {
            let name = format!("bitmap[{chunk}].byte");
            maker.note(
                name,
                (at, 1),
                Endian::Little,
                Class::Flags,
                Role::BitmapByte,
            );
        }
    }
    disk.set_len(plan.size).expect("memory has any length");
    for (entry, slot, value) in &slots {
        let place = (bat.0 + 8 * entry, 8);
        let name = format!("bat[{entry}]");
        maker.number(name, place, *value, Class::Entry, Role::Entry(*slot));
    }
    structure::metadata(choices, &mut maker, plan, metadata.0);
    let log = if plan.logged {
        Some(log::pending(choices, &mut maker, &area, &all_blocks(&all)))
    } else {
        None
    };
    structure::front(choices, &mut maker, plan, &area, log.as_ref());
    let layout = Layout {
        roles: Vec::new(),
        places: Vec::new(),
        plan: plan.clone(),
        area,
        end,
        slots,
        log,
    };
    (maker, layout, disk)
}

/// Places of blocks.
fn all_blocks(all: &[(Thing, u64, u64)]) -> Vec<u64> {
    let blocks = all
        .iter()
        .filter(|(thing, ..)| matches!(thing, Thing::Block(_)));
    blocks.map(|(_, at, _)| *at).collect()
}

/// The bytes of a block, and what its sectors have in the bitmap.
fn stored(
    choices: &mut impl Choices,
    maker: &mut Maker<Role>,
    plan: &Plan,
    (block, at, bitmap): (u64, u64, Option<u64>),
    disk: &SparseBytes,
) {
    let inside = plan.inside(block);
    let start = block * plan.block;
    maker.note(
        format!("block[{block}].data"),
        (at, 8),
        Endian::Bytes,
        Class::Data,
        Role::Data,
    );
    let runs = fill(choices, inside, 1 << 15);
    let Some(bitmap) = bitmap else {
        // All of it is here: what no run covers is zero, over whatever the parent has.
        zero(disk, start, inside);
        for (offset, bytes) in runs {
            maker.put(at + offset, &bytes);
            put(disk, start + offset, &bytes);
        }
        return;
    };
    // Some sectors are here, and only they.
    let sectors = inside.div_ceil(plan.sector);
    let first = choices.below(sectors);
    let count = choices.between(1, (sectors - first).min(64));
    let before = (block % plan.ratio()) * (plan.block / plan.sector);
    for sector in first..first + count {
        let bit = before + sector;
        let place = bitmap + bit / 8;
        let byte = maker.get(place, 1)[0] | 1 << (bit % 8);
        maker.put(place, &[byte]);
        let (from, room) = (
            sector * plan.sector,
            plan.sector.min(inside - sector * plan.sector),
        );
        let text = format!("sector {sector} of block {block} ");
        let bytes: Vec<u8> = text.bytes().cycle().take(index(room)).collect();
        maker.put(at + from, &bytes);
        put(disk, start + from, &bytes);
    }
    // What else stands in the block is nobody's.
    if first > 0 {
        maker.put(at, &[0xee; 512]);
    }
    drop(runs);
}

/// Zeros over what the parent has.
fn zero(disk: &SparseBytes, start: u64, length: u64) {
    let zeros = [0; 1 << 16];
    let mut at = 0;
    while at < length {
        let take = &zeros[..index(len(&zeros).min(length - at))];
        put(disk, start + at, take);
        at += len(take);
    }
}
