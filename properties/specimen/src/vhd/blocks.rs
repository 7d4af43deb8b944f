//! Dynamic and differencing disks.

use super::rules::{Block, Head, Layout, Role, Table};
use super::{Extras, Footer, SECTOR, done};
use crate::choices::{Choices, index, len};
use crate::content::{Unit, fill, put, units};
use crate::field::{Class, Endian, Sum};
use crate::make::Maker;
use crate::specimen::{File, Specimen};
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use std::collections::BTreeSet;

/// Bytes of the bitmap in front of a block.
pub(super) fn bitmap_bytes(block: u64) -> u64 {
    (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
}

/// A block size and a number of sectors that make few blocks.
fn sizes(choices: &mut impl Choices) -> (u64, u64) {
    let block = choices.pick(&[4096u64, 512, 65_536, 512 << 10, 2 << 20]);
    let per_block = block / SECTOR;
    let blocks = choices.between(1, 12);
    let sectors = match choices.below(5) {
        0 => blocks * per_block,
        1 => blocks * per_block + 1,
        2 => blocks * per_block - 1,
        3 => blocks * per_block + choices.below(per_block),
        _ => choices.pick(&[0, 1, per_block]),
    };
    (block, sectors)
}

/// What a locator is: platform, text, bytes.
type Locator = ([u8; 4], Vec<u8>);

/// Where a locator's data are: platform, offset, length.
type Placed = ([u8; 4], u64, u64);

/// What a differencing disk says of its parent.
struct Link {
    id: [u8; 16],
    timestamp: u64,
    locators: Vec<Locator>,
}

pub(super) fn dynamic(choices: &mut impl Choices) -> Specimen {
    let (block, sectors) = sizes(choices);
    let footer = Footer::draw(choices, sectors);
    let (maker, layout, disk) = made(choices, (footer, block), None, None);
    done("dynamic", maker, layout, Vec::new(), disk)
}

pub(super) fn differencing(choices: &mut impl Choices) -> Specimen {
    let (block, sectors) = sizes(choices);
    let mut footer = Footer::draw(choices, sectors);
    let below = Footer {
        id: choices.id(),
        ..footer.clone()
    };
    let (parent, _, base) = made(choices, (below.clone(), block), None, None);
    footer.timestamp += 1;
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut locators: Vec<Locator> = vec![(*b"W2ru", wide(".\\parent.vhd"))];
    if choices.one_in(2) {
        locators.push((*b"W2ku", wide("C:\\disks\\parent.vhd")));
    }
    if choices.one_in(3) {
        locators.push((*b"MacX", b"file:///disks/parent.vhd".to_vec()));
    }
    let link = Link {
        id: below.id,
        timestamp: if choices.one_in(3) {
            0
        } else {
            below.timestamp
        },
        locators,
    };
    let (maker, layout, disk) = made(choices, (footer, block), Some(&link), Some(&base));
    let parent = File {
        name: "parent.vhd".to_owned(),
        bytes: parent.made().bytes,
    };
    done("differencing", maker, layout, vec![parent], disk)
}

/// A gap of some sectors, mostly none.
fn gap(choices: &mut impl Choices) -> u64 {
    if choices.one_in(3) {
        choices.below(5) * SECTOR
    } else {
        0
    }
}

/// One file with blocks: footer copy, header, BAT, locators, blocks, footer, with gaps between.
fn made(
    choices: &mut impl Choices,
    (mut footer, block): (Footer, u64),
    link: Option<&Link>,
    base: Option<&SparseBytes>,
) -> (Maker<Role>, Layout, SparseBytes) {
    let extras = Extras {
        temporary: choices.one_in(4),
    };
    let mut maker = Maker::new(0, Endian::Big);
    let header_at = SECTOR + gap(choices);
    footer.kind = if link.is_some() { 4 } else { 3 };
    footer.data_offset = header_at;
    let needed = footer.size.div_ceil(block);
    let spare = if choices.one_in(3) {
        choices.below(200)
    } else {
        0
    };
    let entries = needed + spare;
    let table_at = header_at + 1024 + gap(choices);
    let table_end = (table_at + 4 * entries.max(1)).next_multiple_of(SECTOR);
    footer.put(&mut maker, 0, true, &extras);
    let mut end = table_end + gap(choices);
    let mut places: Vec<Placed> = Vec::new();
    for (code, data) in link.iter().flat_map(|link| &link.locators) {
        maker.put(end, data);
        places.push((*code, end, len(data)));
        end += len(data).next_multiple_of(SECTOR);
    }
    head(
        &mut maker,
        (header_at, table_at),
        (entries, block),
        (link, &places),
    );
    let disk = SparseBytes::new(footer.size);
    if let Some(base) = base {
        drylab_block::copy_data(base, &disk).expect("memory is copied");
    }
    let stored = units(choices, needed, false);
    let mut order: Vec<u64> = (0..needed)
        .filter(|unit| stored[index(*unit)] == Unit::Stored)
        .collect();
    if choices.one_in(2) {
        choices.shuffle(&mut order);
    }
    maker.put(table_at, &vec![0xff; index(table_end - table_at)]);
    let mut blocks = Vec::new();
    let mut slots = vec![u64::from(u32::MAX); index(needed)];
    for unit in order {
        end += gap(choices);
        let start = end;
        slots[index(unit)] = start / SECTOR;
        let inside = (footer.size - unit * block).min(block);
        let clear = data(
            choices,
            &mut maker,
            (start, block, inside),
            base.is_some(),
            (&disk, unit),
        );
        end = start + bitmap_bytes(block) + block;
        maker.set_len(end);
        blocks.push(Block { unit, start, clear });
    }
    for (unit, entry) in (0u64..).zip(&slots) {
        let place = (table_at + 4 * unit, 4);
        maker.number(
            format!("bat[{unit}]"),
            place,
            *entry,
            Class::Entry,
            Role::Entry(unit),
        );
    }
    if spare > 0 {
        let place = (table_at + 4 * needed, 4);
        maker.note(
            "bat.spare",
            place,
            Endian::Big,
            Class::Reserved,
            Role::Spare,
        );
    }
    end += gap(choices);
    maker.set_len(end);
    footer.put(&mut maker, end, false, &extras);
    disk.set_len(footer.size).expect("memory has any length");
    let locators = places
        .iter()
        .map(|(_, at, length)| (*at, at + length.next_multiple_of(SECTOR)));
    let table = Table {
        header_at,
        table_at,
        table_end,
        needed,
        size: footer.size,
        block,
        blocks,
        slots,
        locators: locators.collect(),
        parent_time: link.map(|link| link.timestamp),
        data_end: end,
    };
    let layout = Layout {
        roles: Vec::new(),
        footer,
        table: Some(table),
    };
    (maker, layout, disk)
}

/// The dynamic header.
fn head(
    maker: &mut Maker<Role>,
    (at, table_at): (u64, u64),
    (entries, block): (u64, u64),
    (link, places): (Option<&Link>, &[Placed]),
) {
    maker.put(at, &[0; 1024]);
    maker.text(
        "header.cookie",
        at,
        b"cxsparse",
        Class::Magic,
        Role::Header(Head::Cookie),
    );
    for (name, offset, width, value, class, what) in [
        (
            "dataOffset",
            0x08,
            8,
            u64::MAX,
            Class::Reserved,
            Head::DataOffset,
        ),
        (
            "tableOffset",
            0x10,
            8,
            table_at,
            Class::Place,
            Head::TableOffset,
        ),
        (
            "headerVersion",
            0x18,
            4,
            0x1_0000,
            Class::Version,
            Head::Version,
        ),
        (
            "maxTableEntries",
            0x1c,
            4,
            entries,
            Class::Count,
            Head::Entries,
        ),
        ("blockSize", 0x20, 4, block, Class::Size, Head::Block),
        (
            "parentTimeStamp",
            0x38,
            4,
            link.map_or(0, |link| link.timestamp),
            Class::Time,
            Head::ParentTime,
        ),
    ] {
        let name = format!("header.{name}");
        maker.number(name, (at + offset, width), value, class, Role::Header(what));
    }
    let id = link.map_or([0; 16], |link| link.id);
    maker.text(
        "header.parentUniqueId",
        at + 0x28,
        &id,
        Class::Id,
        Role::Header(Head::ParentId),
    );
    let name: Vec<u8> = if link.is_some() {
        "parent.vhd"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect()
    } else {
        vec![0; 16]
    };
    maker.text(
        "header.parentName",
        at + 0x40,
        &name,
        Class::Text,
        Role::Header(Head::ParentName),
    );
    maker.text(
        "header.reserved",
        at + 0x300,
        &[0; 16],
        Class::Reserved,
        Role::Header(Head::Idle),
    );
    for (number, (code, place, length)) in (0u64..).zip(places) {
        let entry = at + 0x240 + 24 * number;
        let field = |field: &str| format!("header.locator[{number}].{field}");
        maker.text(
            field("platformCode"),
            entry,
            code,
            Class::Text,
            Role::Header(Head::LocatorCode),
        );
        let space = length.next_multiple_of(SECTOR);
        for (name, offset, width, value, class) in [
            ("dataSpace", 4, 4, space, Class::Size),
            ("dataLength", 8, 4, *length, Class::Size),
            ("dataOffset", 16, 8, *place, Class::Place),
        ] {
            let role = Role::Header(Head::Locator);
            maker.number(field(name), (entry + offset, width), value, class, role);
        }
    }
    let role = Role::Header(Head::Checksum);
    maker.seal("header.checksum", (at, 1024), at + 0x24, Sum::Bytes, role);
}

/// Bitmap and bytes of one block. The answer says which sectors may not lose their bit, and which have it.
fn data(
    choices: &mut impl Choices,
    maker: &mut Maker<Role>,
    (start, block, inside): (u64, u64, u64),
    child: bool,
    (disk, unit): (&SparseBytes, u64),
) -> Vec<u8> {
    let at = start + bitmap_bytes(block);
    let runs = fill(choices, inside, 1 << 14);
    let here = SparseBytes::new(block);
    for (offset, bytes) in &runs {
        put(&here, *offset, bytes);
    }
    let sectors = block / SECTOR;
    let mut bits = vec![0u8; index(bitmap_bytes(block))];
    let mut full = vec![0u8; bits.len()];
    let all = !child && !choices.one_in(3);
    let mark = |bits: &mut [u8], sector: u64| bits[index(sector / 8)] |= 0x80u8 >> (sector % 8);
    // Without a parent the sectors of zeros may have bits, too.
    if all {
        (0..sectors).for_each(|sector| mark(&mut bits, sector));
    }
    let touched: BTreeSet<u64> = runs
        .iter()
        .flat_map(|(offset, bytes)| offset / SECTOR..(offset + len(bytes)).div_ceil(SECTOR))
        .collect();
    for sector in touched {
        let mut bytes = [0; 512];
        here.read_at(sector * SECTOR, &mut bytes)
            .expect("inside the block");
        if bytes == [0; 512] {
            continue;
        }
        mark(&mut full, sector);
        mark(&mut bits, sector);
        let guest = unit * block + sector * SECTOR;
        if guest < disk.len() {
            put(disk, guest, &bytes);
        }
    }
    maker.put(start, &bits);
    for (offset, bytes) in &runs {
        maker.put(at + offset, bytes);
    }
    maker.set_len(maker.end().max(at + block));
    let byte = choices.below(sectors.div_ceil(8));
    let place = (start + byte, 1);
    let role = Role::Bitmap { block: unit, byte };
    maker.note(
        format!("bitmap[{unit}].byte[{byte}]"),
        place,
        Endian::Big,
        Class::Flags,
        role,
    );
    maker.note(
        format!("block[{unit}].data"),
        (at, 8),
        Endian::Bytes,
        Class::Data,
        Role::Data {
            set: bits[0] & 0x80 != 0,
        },
    );
    full
}
