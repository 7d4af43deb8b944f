//! VHDX, by Microsoft's "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format", version 8.0.
//!
//! What varies: size, block size, sector sizes, places and order of log, regions and blocks with gaps between, a region and
//! a metadata item that are not known and need not be, states of blocks, which header is current, a log to replay that
//! goes round the end of its ring.

mod log;
mod make;
mod rules;
mod structure;
mod tables;

use crate::choices::{Choices, index};
use crate::content::{Unit, units};
use crate::specimen::{File, Format, Specimen};
use std::sync::Arc;

/// The kinds that are made.
pub(crate) const SUBFORMATS: &[&str] = &["fixed", "dynamic", "differencing"];

pub(super) const MIB: u64 = 1 << 20;

/// States of BAT entries.
pub(super) const NOT_PRESENT: u64 = 0;
pub(super) const FULLY: u64 = 6;
pub(super) const PARTIALLY: u64 = 7;

/// What is decided of one file before it is made.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) fixed: bool,
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) sector: u64,
    pub(super) physical: u64,
    /// State of each block.
    pub(super) states: Vec<u64>,
    pub(super) data_write_guid: [u8; 16],
    /// DataWriteGuid of the parent.
    pub(super) parent: Option<[u8; 16]>,
    pub(super) logged: bool,
}

impl Plan {
    /// Payload blocks of a chunk.
    pub(super) fn ratio(&self) -> u64 {
        (1 << 23) * self.sector / self.block
    }

    /// Index of the entry of a block.
    pub(super) fn entry_of(&self, block: u64) -> u64 {
        block + block / self.ratio()
    }

    pub(super) fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    pub(super) fn chunks(&self) -> u64 {
        self.blocks().div_ceil(self.ratio())
    }

    /// Entries of the table, by section 2.5.
    pub(super) fn entries(&self) -> u64 {
        match (self.parent, self.blocks()) {
            (Some(_), _) => self.chunks() * (self.ratio() + 1),
            (None, 0) => 0,
            (None, blocks) => blocks + (blocks - 1) / self.ratio(),
        }
    }

    /// Bytes of a block inside the disk.
    pub(super) fn inside(&self, block: u64) -> u64 {
        self.size.saturating_sub(block * self.block).min(self.block)
    }
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices, kind: &'static str) -> Specimen {
    let mut block = choices.pick(&[1u64, 2, 8, 32]) * MIB;
    let mut blocks = choices.between(1, 6);
    let large = kind == "dynamic" && choices.one_in(12);
    if large {
        // More than one chunk: 16 blocks of 256 MiB with sectors of 512 bytes.
        (block, blocks) = (256 * MIB, 17);
    }
    let sector = if large {
        512
    } else {
        choices.pick(&[512u64, 4096])
    };
    let size = match choices.below(4) {
        0 => blocks * block,
        1 => blocks * block - sector,
        2 => (blocks - 1) * block + sector * choices.between(1, block / sector),
        _ if large => blocks * block,
        _ => choices.pick(&[0, sector, block + sector]),
    };
    let mut plan = Plan {
        fixed: kind == "fixed",
        size,
        block,
        sector,
        physical: choices.pick(&[4096, 512]),
        states: Vec::new(),
        data_write_guid: choices.id(),
        parent: None,
        logged: choices.one_in(3),
    };
    plan.states = states(choices, &plan, kind == "differencing");
    let mut others = Vec::new();
    let mut base = None;
    if kind == "differencing" {
        let mut below = Plan {
            logged: false,
            data_write_guid: choices.id(),
            ..plan.clone()
        };
        below.states = states(choices, &below, false);
        plan.parent = Some(below.data_write_guid);
        let (maker, _, disk) = make::file(choices, &below, None);
        others.push(File {
            name: "parent.vhdx".to_owned(),
            bytes: maker.made().bytes,
        });
        base = Some(disk);
    }
    let (maker, mut layout, disk) = make::file(choices, &plan, base.as_ref());
    let made = maker.made();
    layout.roles = made.roles;
    layout.places = made
        .fields
        .iter()
        .map(|field| (field.offset, field.width))
        .collect();
    let known = if plan.logged {
        ["VHDX-LOG-PENDING"].into()
    } else {
        [].into()
    };
    let mut files = vec![File {
        name: "disk.vhdx".to_owned(),
        bytes: made.bytes,
    }];
    files.extend(others);
    Specimen {
        format: Format::Vhdx,
        subformat: kind,
        files,
        disk: Arc::new(disk),
        fields: made.fields,
        known,
        seals: made.seals,
        rules: Box::new(layout),
    }
}

fn states(choices: &mut impl Choices, plan: &Plan, child: bool) -> Vec<u64> {
    if plan.fixed {
        return vec![FULLY; index(plan.blocks())];
    }
    let drawn = units(choices, plan.blocks(), true);
    let state = |unit| match unit {
        Unit::Absent => NOT_PRESENT,
        Unit::Zero => choices.between(1, 3),
        Unit::Stored if child && choices.one_in(2) => PARTIALLY,
        Unit::Stored => FULLY,
    };
    drawn.into_iter().map(state).collect()
}
