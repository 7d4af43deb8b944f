//! monolithicSparse: header, descriptor, directories with their tables, grains.

use super::rules::{Layout, Role, Used};
use super::{DESCRIPTOR, ENTRIES, Places, Plan, SECTOR, descriptor, disk, header, used};
use crate::choices::{Choices, index};
use crate::content::{Unit, fill, put, units};
use crate::field::{Class, Endian};
use crate::make::Maker;
use drylab_block::{SparseBytes, WriteAt};

/// Sectors of a grain table.
const TABLE: u64 = ENTRIES * 4 / SECTOR;

/// What grains hold; of many only a few are drawn.
pub(super) fn grains(choices: &mut impl Choices, plan: &Plan) -> Vec<Unit> {
    let count = plan.grains();
    let mut what = units(choices, count.min(24), plan.zeroed);
    if count > 24 {
        // The others stand at the end, so that the last table has some.
        let at = index(choices.below(12));
        let tail = what.split_off(at);
        what.resize(index(count) - tail.len(), Unit::Absent);
        what.extend(tail);
    }
    what
}

/// The bytes of a grain, drawn, put on the disk too.
pub(super) fn bytes_of(
    choices: &mut impl Choices,
    plan: &Plan,
    disk: &SparseBytes,
    grain: u64,
) -> Vec<u8> {
    let mut bytes = vec![0; index(plan.grain_bytes())];
    for (at, run) in fill(choices, plan.inside(grain), 1 << 14) {
        let at = index(at);
        bytes[at..at + run.len()].copy_from_slice(&run);
    }
    put(
        disk,
        grain * plan.grain_bytes(),
        &bytes[..index(plan.inside(grain))],
    );
    bytes
}

/// Makes an image.
pub(super) fn sparse(
    choices: &mut impl Choices,
    plan: &Plan,
) -> (Maker<Role>, Layout, SparseBytes) {
    let mut maker = Maker::new(0, Endian::Little);
    let disk = disk(plan);
    let directory = (plan.tables() * 4).div_ceil(SECTOR);
    let tables = plan.tables() * TABLE;
    let mut at = 1 + DESCRIPTOR + choices.below(3);
    let mut place = |length: u64| {
        let start = at;
        at += length + choices.below(2);
        start
    };
    let (rgd, rgts) = if plan.redundant {
        (place(directory), place(tables))
    } else {
        (0, 0)
    };
    let (gd, gts) = (place(directory), place(tables));
    let end = place(0);
    let overhead = end.next_multiple_of(plan.grain);
    let what = grains(choices, plan);
    let mut order: Vec<u64> = (0..plan.grains())
        .filter(|grain| what[index(*grain)] == Unit::Stored)
        .collect();
    if choices.one_in(2) {
        choices.shuffle(&mut order);
    }
    let mut entries: Vec<u64> = what
        .iter()
        .map(|unit| u64::from(*unit == Unit::Zero))
        .collect();
    let mut next = overhead;
    maker.set_len(next * SECTOR);
    for grain in order {
        if choices.one_in(4) {
            next += plan.grain * choices.below(3);
        }
        entries[index(grain)] = next;
        let bytes = bytes_of(choices, plan, &disk, grain);
        maker.put(next * SECTOR, &bytes);
        maker.note(
            format!("grain[{grain}].data"),
            (next * SECTOR, 8),
            Endian::Bytes,
            Class::Data,
            Role::Data,
        );
        next += plan.grain;
        maker.set_len(next * SECTOR);
    }
    let places = Places { rgd, gd, overhead };
    header(&mut maker, plan, 0, false, &places);
    descriptor(choices, &mut maker, plan);
    let mut used = used(plan, &entries);
    for redundant in [true, false] {
        if redundant && !plan.redundant {
            continue;
        }
        let (directory, first) = if redundant { (rgd, rgts) } else { (gd, gts) };
        used.extend(put_tables(
            &mut maker,
            plan,
            (directory, first),
            &entries,
            redundant,
        ));
    }
    disk.set_len(plan.capacity * SECTOR)
        .expect("memory has any length");
    let layout = Layout {
        roles: Vec::new(),
        plan: plan.clone(),
        entries,
        used,
        metadata_end: end,
        end: maker.end(),
    };
    (maker, layout, disk)
}

/// A directory and its tables; the answer is what they use.
pub(super) fn put_tables(
    maker: &mut Maker<Role>,
    plan: &Plan,
    (directory, first): (u64, u64),
    entries: &[u64],
    redundant: bool,
) -> Vec<Used> {
    let mut used = vec![Used::of(directory, (plan.tables() * 4).div_ceil(SECTOR))];
    let (gd, gt) = if redundant {
        ("rgd", "rgt")
    } else {
        ("gd", "gt")
    };
    for table in 0..plan.tables() {
        let place = first + table * TABLE;
        let role = Role::Table { table, redundant };
        let at = (directory * SECTOR + 4 * table, 4);
        maker.number(format!("{gd}[{table}]"), at, place, Class::Entry, role);
        put_table(maker, place, table, entries, (gt, redundant));
        used.push(Used::table(plan, table, place, redundant));
    }
    used
}

/// One table: all its entries, of which those become fields that are something or stand near to them.
pub(super) fn put_table(
    maker: &mut Maker<Role>,
    place: u64,
    table: u64,
    entries: &[u64],
    (name, redundant): (&str, bool),
) {
    maker.put(place * SECTOR, &vec![0; index(ENTRIES * 4)]);
    for number in 0..ENTRIES {
        let grain = table * ENTRIES + number;
        let Some(entry) = usize::try_from(grain).ok().and_then(|at| entries.get(at)) else {
            break;
        };
        let near = number < 8 || *entry != 0;
        if near {
            let role = Role::Grain { grain, redundant };
            let at = (place * SECTOR + 4 * number, 4);
            maker.number(
                format!("{name}[{table}][{number}]"),
                at,
                *entry,
                Class::Entry,
                role,
            );
        }
    }
}
