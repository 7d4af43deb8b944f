//! streamOptimized: grains with markers in front, one behind the other; tables and directory behind them, or in front.

use super::make::{bytes_of, grains, put_table, put_tables};
use super::rules::{Layout, Role, Stream, Used};
use super::{DESCRIPTOR, ENTRIES, Places, Plan, SECTOR, descriptor, disk, header, used};
use crate::choices::{Choices, index, len};
use crate::content::Unit;
use crate::field::{Class, Endian};
use crate::make::Maker;
use drylab_block::{SparseBytes, WriteAt};
use std::io::Write;

const TABLE: u64 = ENTRIES * 4 / SECTOR;
const AT_END: u64 = u64::MAX;

fn packed(choices: &mut impl Choices, bytes: &[u8]) -> Vec<u8> {
    let level = choices.pick(&[6u32, 1, 9]);
    let level = flate2::Compression::new(level);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory is compressed");
    encoder.finish().expect("memory is compressed")
}

/// A marker that is not a grain's, at the next sector; the answer is the sector behind it.
fn marker(maker: &mut Maker<Role>, at: u64, (name, kind): (&str, u64), sectors: u64) -> u64 {
    let byte = at * SECTOR;
    let role = Role::Stream(Stream::Marker);
    maker.put(byte, &[0; 512]);
    maker.set_len(byte + SECTOR);
    let name = |field: &str| format!("marker[{name} at {at}].{field}");
    maker.number(name("val"), (byte, 8), sectors, Class::Count, role);
    maker.number(name("size"), (byte + 8, 4), 0, Class::Size, role);
    if kind > 0 {
        maker.number(name("type"), (byte + 12, 4), kind, Class::State, role);
    }
    at + 1
}

/// Makes an image.
pub(super) fn stream(
    choices: &mut impl Choices,
    plan: &Plan,
) -> (Maker<Role>, Layout, SparseBytes) {
    let mut maker = Maker::new(0, Endian::Little);
    let disk = disk(plan);
    let front = plan.kind == "streamOptimized-front";
    let directory = (plan.tables() * 4).div_ceil(SECTOR);
    let start = 1 + DESCRIPTOR;
    let gd_front = start;
    let mut at = start;
    if front {
        at += directory + plan.tables() * TABLE;
    }
    let metadata_end = at;
    let overhead = if choices.one_in(2) {
        at
    } else {
        at.next_multiple_of(128)
    };
    at = overhead;
    maker.set_len(at * SECTOR);
    let what = grains(choices, plan);
    let mut entries: Vec<u64> = what
        .iter()
        .map(|unit| u64::from(*unit == Unit::Zero))
        .collect();
    let mut tables = Vec::new();
    for table in 0..plan.tables() {
        let last = ((table + 1) * ENTRIES).min(plan.grains());
        let own = table * ENTRIES..last;
        for grain in own
            .clone()
            .filter(|grain| what[index(*grain)] == Unit::Stored)
        {
            let bytes = bytes_of(choices, plan, &disk, grain);
            let packed = packed(choices, &bytes);
            entries[index(grain)] = at;
            let name = |field: &str| format!("grain[{grain}].{field}");
            let byte = at * SECTOR;
            maker.number(
                name("lba"),
                (byte, 8),
                grain * plan.grain,
                Class::Place,
                Role::Stream(Stream::Lba),
            );
            let role = Role::Stream(Stream::Size {
                at,
                length: len(&packed),
            });
            maker.number(name("size"), (byte + 8, 4), len(&packed), Class::Size, role);
            maker.put(byte + 12, &packed);
            let role = Role::Stream(Stream::Packed);
            maker.note(
                name("data"),
                (byte + 12, packed.len().min(8)),
                Endian::Bytes,
                Class::Data,
                role,
            );
            at += (12 + len(&packed)).div_ceil(SECTOR);
            maker.set_len(at * SECTOR);
        }
        let some = own.clone().any(|grain| entries[index(grain)] != 0);
        if !front && some {
            at = marker(&mut maker, at, ("gt", 1), TABLE);
            put_table(&mut maker, at, table, &entries, ("gt", false));
            maker.set_len((at + TABLE) * SECTOR);
            tables.push(at);
            at += TABLE;
        } else {
            tables.push(0);
        }
    }
    disk.set_len(plan.capacity * SECTOR)
        .expect("memory has any length");
    let gd = if front { gd_front } else { AT_END };
    let mut places = Places {
        rgd: 0,
        gd,
        overhead,
    };
    header(&mut maker, plan, 0, false, &places);
    descriptor(choices, &mut maker, plan);
    let mut used = used(plan, &entries);
    if front {
        used.extend(put_tables(
            &mut maker,
            plan,
            (gd_front, gd_front + directory),
            &entries,
            false,
        ));
    } else {
        let there = (0u64..).zip(&tables).filter(|(_, place)| **place > 0);
        used.extend(there.map(|(table, place)| Used::table(plan, table, *place, false)));
        at = marker(&mut maker, at, ("gd", 2), directory);
        places.gd = at;
        used.push(Used::of(at, directory));
        maker.set_len((at + directory) * SECTOR);
        for (number, place) in (0u64..).zip(&tables) {
            let role = Role::Table {
                table: number,
                redundant: false,
            };
            let byte = (at * SECTOR + 4 * number, 4);
            maker.number(format!("gd[{number}]"), byte, *place, Class::Entry, role);
        }
        at = marker(&mut maker, at + directory, ("footer", 3), 1);
        header(&mut maker, plan, at * SECTOR, true, &places);
        used.push(Used::of(at - 1, 2));
        at += 1;
    }
    marker(&mut maker, at, ("eos", 0), 0);
    let layout = Layout {
        roles: Vec::new(),
        plan: plan.clone(),
        entries,
        used,
        metadata_end,
        end: maker.end(),
    };
    (maker, layout, disk)
}
