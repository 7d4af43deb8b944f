//! VDI, by VirtualBox' `VDICore.h`; there is no specification.
//!
//! What varies: size, block size from 4 KiB, bytes in front of each block, places of map and data, order of blocks, spare
//! map entries, zero blocks, header with and without logical geometry.

mod rules;

use crate::choices::{Choices, index, len};
use crate::content::{Unit, fill, put, units};
use crate::field::{Class, Endian};
use crate::make::Maker;
use crate::specimen::{File, Format, Specimen};
use drylab_block::{SparseBytes, WriteAt, copy_data};
use rules::{Layout, Role};
use std::sync::Arc;

/// The kinds that are made.
pub(crate) const SUBFORMATS: &[&str] = &["dynamic", "fixed", "differencing", "undo"];

const FREE: u32 = u32::MAX;
const ZERO: u32 = u32::MAX - 1;

/// Sizes and ids of one file.
#[derive(Clone)]
struct Plan {
    kind: u64,
    size: u64,
    block: u64,
    extra: u64,
    create: [u8; 16],
    modify: [u8; 16],
    linkage: [u8; 16],
    parent_modify: [u8; 16],
}

/// The text of a UUID whose first three fields are stored little-endian.
fn uuid(id: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, tail @ ..] = id;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (node, last) = tail.split_at(2);
    format!(
        "{{{}-{}-{}-{}-{}}}",
        hex(&[d, c, b, a]),
        hex(&[f, e]),
        hex(&[h, g]),
        hex(node),
        hex(last)
    )
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices, kind: &'static str) -> Specimen {
    let block = choices.pick(&[4096u64, 1 << 20, 65_536, 8192]);
    let blocks = choices.between(1, 12);
    let size = match choices.below(4) {
        0 => blocks * block,
        1 => blocks * block - 512,
        2 => blocks * block + 512 * choices.below(block / 512),
        _ => choices.pick(&[0, 512, block]),
    };
    let mut plan = Plan {
        kind: 1 + u64::try_from(
            ["dynamic", "fixed", "undo", "differencing"]
                .iter()
                .position(|k| *k == kind)
                .unwrap_or(0),
        )
        .unwrap_or(0),
        size,
        block,
        extra: choices.pick(&[0u64, 0, 512, 4096]),
        create: choices.id(),
        modify: choices.id(),
        linkage: [0; 16],
        parent_modify: [0; 16],
    };
    let mut others = Vec::new();
    let mut base = None;
    let mut spare = false;
    if plan.kind > 2 {
        let below = Plan {
            kind: 1,
            create: choices.id(),
            modify: choices.id(),
            ..plan.clone()
        };
        (plan.linkage, plan.parent_modify) = (below.create, below.modify);
        let (maker, below_it, disk) = made(choices, &below, None);
        spare = below_it.blocks > below_it.needed;
        others.push(File {
            name: uuid(below.create),
            bytes: maker.made().bytes,
        });
        base = Some(disk);
    }
    let (maker, mut layout, disk) = made(choices, &plan, base.as_ref());
    let made = maker.made();
    layout.roles = made.roles;
    let mut files = vec![File {
        name: "disk.vdi".to_owned(),
        bytes: made.bytes,
    }];
    files.extend(others);
    spare |= layout.blocks > layout.needed;
    // Room in the map for more blocks than the disk has is read, and no program is known to make it.
    let known = spare.then_some("VDI-BLOCKS-SPARE").into_iter().collect();
    Specimen {
        format: Format::Vdi,
        subformat: kind,
        files,
        disk: Arc::new(disk),
        fields: made.fields,
        known,
        seals: made.seals,
        rules: Box::new(layout),
    }
}

fn made(
    choices: &mut impl Choices,
    plan: &Plan,
    base: Option<&SparseBytes>,
) -> (Maker<Role>, Layout, SparseBytes) {
    let mut maker = Maker::new(0, Endian::Little);
    let needed = plan.size.div_ceil(plan.block);
    let spare = if choices.one_in(3) {
        choices.below(40)
    } else {
        0
    };
    let blocks = needed + spare;
    let off_blocks = choices.pick(&[512u64, 1024, 4096, 1 << 20]);
    let map_end = off_blocks + 4 * blocks;
    let off_data =
        map_end.next_multiple_of(choices.pick(&[512u64, 4096, 1 << 20])) + 512 * choices.below(3);
    let disk = SparseBytes::new(plan.size);
    if let Some(base) = base {
        copy_data(base, &disk).expect("memory is copied");
    }
    let what: Vec<Unit> = if plan.kind == 2 {
        vec![Unit::Stored; index(needed)]
    } else {
        units(choices, needed, true)
    };
    let mut order: Vec<u64> = (0..needed)
        .filter(|unit| what[index(*unit)] == Unit::Stored)
        .collect();
    if plan.kind != 2 && choices.one_in(2) {
        choices.shuffle(&mut order);
    }
    let mut map: Vec<u32> = what
        .iter()
        .map(|unit| if *unit == Unit::Zero { ZERO } else { FREE })
        .collect();
    map.resize(index(blocks), FREE);
    let slot = plan.block + plan.extra;
    for (number, unit) in (0u64..).zip(&order) {
        map[index(*unit)] = u32::try_from(number).expect("few blocks");
        let at = off_data + number * slot;
        let inside = plan.block.min(plan.size - unit * plan.block);
        put(&disk, unit * plan.block, &vec![0; index(inside)]);
        for (offset, bytes) in fill(choices, inside, 1 << 14) {
            put(&disk, unit * plan.block + offset, &bytes);
            maker.put(at + plan.extra + offset, &bytes);
        }
        maker.set_len(at + slot);
        let name = format!("block[{unit}]");
        maker.note(
            format!("{name}.data"),
            (at + plan.extra, 8),
            Endian::Bytes,
            Class::Data,
            Role::Data,
        );
        if plan.extra > 0 {
            maker.note(
                format!("{name}.extra"),
                (at, 8),
                Endian::Bytes,
                Class::Reserved,
                Role::Idle,
            );
        }
    }
    for unit in (0..needed).filter(|unit| what[index(*unit)] == Unit::Zero) {
        let inside = plan.block.min(plan.size - unit * plan.block);
        put(&disk, unit * plan.block, &vec![0; index(inside)]);
    }
    disk.set_len(plan.size).expect("memory has any length");
    let end = off_data + len(&order) * slot;
    maker.set_len(end);
    let logical = choices.one_in(2);
    head(
        &mut maker,
        plan,
        (off_blocks, off_data),
        (blocks, len(&order)),
        logical,
    );
    for (unit, entry) in (0u64..).zip(&map) {
        let place = (off_blocks + 4 * unit, 4);
        maker.number(
            format!("map[{unit}]"),
            place,
            u64::from(*entry),
            Class::Entry,
            Role::Entry(unit),
        );
    }
    let layout = Layout {
        roles: Vec::new(),
        kind: plan.kind,
        size: plan.size,
        block: plan.block,
        extra: plan.extra,
        blocks,
        needed,
        off_data,
        map_end,
        map,
        end,
    };
    (maker, layout, disk)
}

fn head(
    maker: &mut Maker<Role>,
    plan: &Plan,
    (off_blocks, off_data): (u64, u64),
    (blocks, allocated): (u64, u64),
    logical: bool,
) {
    maker.put(0, &[0; 512]);
    maker.text(
        "header.szFileInfo",
        0,
        b"<<< Specimen Disk Image >>>\n",
        Class::Text,
        Role::Idle,
    );
    maker.number(
        "header.u32Signature",
        (0x40, 4),
        0xbeda_107f,
        Class::Magic,
        Role::Signature,
    );
    maker.number(
        "header.u32Version",
        (0x44, 4),
        0x0001_0001,
        Class::Version,
        Role::Version,
    );
    let size = if logical { 400 } else { 384 };
    for (name, at, width, value, class, role) in [
        ("cbHeader", 0x48, 4, size, Class::Size, Role::HeaderSize),
        ("u32Type", 0x4c, 4, plan.kind, Class::State, Role::Type),
        ("fFlags", 0x50, 4, 0, Class::Flags, Role::Idle),
        (
            "offBlocks",
            0x154,
            4,
            off_blocks,
            Class::Place,
            Role::OffBlocks,
        ),
        ("offData", 0x158, 4, off_data, Class::Place, Role::OffData),
        (
            "LegacyGeometry.cCylinders",
            0x15c,
            4,
            0,
            Class::Size,
            Role::Idle,
        ),
        (
            "LegacyGeometry.cHeads",
            0x160,
            4,
            0,
            Class::Size,
            Role::Idle,
        ),
        (
            "LegacyGeometry.cSectors",
            0x164,
            4,
            0,
            Class::Size,
            Role::Idle,
        ),
        (
            "LegacyGeometry.cbSector",
            0x168,
            4,
            512,
            Class::Size,
            Role::SectorSize,
        ),
        ("u32Dummy", 0x16c, 4, 0, Class::Reserved, Role::Idle),
        ("cbDisk", 0x170, 8, plan.size, Class::Size, Role::DiskSize),
        (
            "cbBlock",
            0x178,
            4,
            plan.block,
            Class::Size,
            Role::BlockSize,
        ),
        (
            "cbBlockExtra",
            0x17c,
            4,
            plan.extra,
            Class::Size,
            Role::Extra,
        ),
        ("cBlocks", 0x180, 4, blocks, Class::Count, Role::Blocks),
        (
            "cBlocksAllocated",
            0x184,
            4,
            allocated,
            Class::Count,
            Role::Allocated,
        ),
    ] {
        maker.number(format!("header.{name}"), (at, width), value, class, role);
    }
    maker.text(
        "header.szComment",
        0x54,
        b"made by drylab",
        Class::Text,
        Role::Idle,
    );
    for (name, at, id, role) in [
        ("uuidCreate", 0x188, plan.create, Role::Id),
        ("uuidModify", 0x198, plan.modify, Role::Id),
        ("uuidLinkage", 0x1a8, plan.linkage, Role::Linkage),
        (
            "uuidParentModify",
            0x1b8,
            plan.parent_modify,
            Role::ParentModify,
        ),
    ] {
        maker.text(format!("header.{name}"), at, &id, Class::Id, role);
    }
    if logical {
        let (name, role) = ("header.LCHSGeometry.cbSector", Role::SectorSize);
        maker.number(name, (0x1d4, 4), 512, Class::Size, role);
    }
}
