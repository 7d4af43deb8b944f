//! What must come of a damage to a VDI.

use super::ZERO;
use crate::choices::{index, len};
use crate::damage::{Aim, Change};
use crate::expect::Expected;
use crate::specimen::Rules;

const SECTOR: u64 = 512;
/// Codes of entries that lead nowhere.
const BLOCKS: [&str; 5] = [
    "VDI-BLOCK-LOST",
    "VDI-BLOCK-CUT",
    "VDI-BLOCK-IN-METADATA",
    "VDI-BLOCK-NUMBER",
    "VDI-BLOCKS-OVERLAP",
];

/// Codes of a header in which one field does not fit the rest: proved to be wrong, or in doubt.
const FIELD: [&str; 2] = ["VDI-HEADER-FIELD", "VDI-HEADER-DOUBT"];

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Signature,
    Version,
    HeaderSize,
    Type,
    OffBlocks,
    OffData,
    SectorSize,
    DiskSize,
    BlockSize,
    Extra,
    Blocks,
    Allocated,
    Id,
    Linkage,
    ParentModify,
    Entry(u64),
    Data,
    Idle,
}

pub(super) struct Layout {
    pub(super) roles: Vec<Role>,
    pub(super) kind: u64,
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) extra: u64,
    pub(super) blocks: u64,
    pub(super) needed: u64,
    pub(super) off_data: u64,
    pub(super) map_end: u64,
    pub(super) map: Vec<u32>,
    pub(super) end: u64,
}

impl Rules for Layout {
    fn expected(&self, field: usize, change: &Change) -> Expected {
        let new = change.new;
        match self.roles[field] {
            Role::Signature => Expected::other("VDIPREHEADER: without u32Signature it is no VDI")
                .or(&["RAW-VDI-HEADER"])
                .or_refused(),
            Role::Version => match new >> 16 {
                1 => Expected::found("VDIPREHEADER: u32Version, minor", &["VDI-VERSION"]).same(),
                // 0.2 has all fields elsewhere.
                _ => Expected::refused("VDIPREHEADER: u32Version").or(&BLOCKS),
            },
            Role::HeaderSize if new < 384 => {
                Expected::found("VDIHEADER1: cbHeader", &["VDI-HEADER-SIZE"]).same()
            }
            // A longer header claims a geometry that need not be there.
            Role::HeaderSize => Expected::harmless("VDIHEADER1: cbHeader").or(&["VDI-SECTOR-SIZE"]),
            Role::Type => self.kind(new),
            Role::OffBlocks => self.off_blocks(new),
            Role::OffData => self.off_data(new),
            Role::SectorSize => {
                Expected::found("VDIDISKGEOMETRY: cbSector", &["VDI-SECTOR-SIZE"]).same()
            }
            Role::DiskSize => self.disk_size(new),
            Role::BlockSize => self.block_size(new),
            Role::Extra => self.extra(new),
            Role::Blocks => self.blocks(new),
            Role::Allocated => {
                let clause = "VDIHEADER1: cBlocksAllocated";
                Expected::found(clause, &["VDI-BLOCKS-ALLOCATED"]).same()
            }
            Role::Id if change.to_zero() => {
                Expected::found("VDIHEADER1: uuidCreate, uuidModify", &["VDI-UUID"]).same()
            }
            Role::Linkage if self.kind > 2 => {
                Expected::refused("VDIHEADER1: uuidLinkage names another parent, or none")
            }
            Role::Linkage => Expected::found("VDIHEADER1: uuidLinkage", &["VDI-LINKAGE"]).same(),
            Role::ParentModify if self.kind > 2 && !change.to_zero() => {
                Expected::found("VDIHEADER1: uuidParentModify", &["VDI-PARENT-CHANGED"]).same()
            }
            Role::ParentModify if self.kind <= 2 && !change.to_zero() => {
                let clause = "VDIHEADER1: uuidParentModify";
                Expected::found(clause, &["VDI-PARENT-MODIFY"]).same()
            }
            Role::Entry(unit) => self.entry(unit, new),
            Role::Data => Expected::other("none: bytes of the guest"),
            _ => Expected::harmless("VDIHEADER1: says nothing of the bytes"),
        }
    }

    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        match self.roles[field] {
            Role::Entry(unit) => {
                let others: Vec<u32> = (0u64..)
                    .zip(&self.map)
                    .filter(|(other, entry)| *other != unit && **entry < ZERO)
                    .map(|(_, entry)| *entry)
                    .collect();
                let stored = len(&self.map.iter().filter(|e| **e < ZERO).collect::<Vec<_>>());
                match aim {
                    Aim::Beyond => Some(stored + pick % 9),
                    Aim::Alias => {
                        let pick = pick.checked_rem(len(&others))?;
                        others.get(index(pick)).map(|entry| u64::from(*entry))
                    }
                    Aim::Metadata | Aim::Straddle => None,
                }
            }
            Role::OffData => match aim {
                Aim::Beyond => Some(self.end + SECTOR * (pick % 9)),
                Aim::Metadata => Some(SECTOR * (pick % 2)),
                Aim::Straddle => Some(self.off_data + SECTOR),
                Aim::Alias => None,
            },
            Role::OffBlocks => match aim {
                Aim::Beyond => Some(self.end + SECTOR * (pick % 9)),
                Aim::Metadata => Some(pick % 512),
                Aim::Straddle => Some(self.off_data),
                Aim::Alias => None,
            },
            _ => None,
        }
    }

    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        match (self.roles[one], self.roles[other]) {
            (Role::Entry(_), Role::Entry(_)) => Some(
                Expected::other("VDIIMAGEBLOCKPOINTER: blocks may stand in any order")
                    .or(&["VDI-BLOCK-BEHIND", "VDI-HEADER-FIELD"]),
            ),
            _ => None,
        }
    }
}

impl Layout {
    fn stored(&self) -> u64 {
        len(&self
            .map
            .iter()
            .filter(|entry| **entry < ZERO)
            .collect::<Vec<_>>())
    }

    fn kind(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: u32Type";
        match (self.kind, new) {
            (1 | 2, 1 | 2) | (3 | 4, 3 | 4) => Expected::harmless(clause),
            (3 | 4, 1 | 2) => Expected::found(clause, &["VDI-LINKAGE"]),
            _ => Expected::refused(clause),
        }
    }

    fn off_blocks(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: offBlocks";
        if new < 0x1c8 || new + 4 * self.blocks > self.end {
            return Expected::refused(clause).or(&FIELD);
        }
        // Other bytes are taken for entries. They may say what the map says, as one entry of 0 does.
        let all = [
            "VDI-ALIGNMENT",
            "VDI-HEADER-FIELD",
            "VDI-HEADER-DOUBT",
            "VDI-BLOCK-BEHIND",
            "VDI-BLOCKS-ALLOCATED",
            "VDI-DATA-IN-METADATA",
        ];
        let expected = Expected::found(clause, &all).or(&BLOCKS);
        if new.is_multiple_of(SECTOR) {
            expected.or_quiet()
        } else {
            expected
        }
    }

    fn off_data(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: offData";
        let mut codes = Vec::new();
        if !new.is_multiple_of(SECTOR) {
            codes.push("VDI-ALIGNMENT");
        }
        if new < self.map_end.max(0x1c8) && self.blocks > 0 {
            codes.push("VDI-DATA-IN-METADATA");
        }
        if new > self.off_data && self.stored() > 0 {
            codes.extend(["VDI-BLOCK-CUT", "VDI-BLOCK-LOST"]);
        }
        let expected = Expected::found(clause, &codes).or(&FIELD);
        // A block that the disk ends in need not be there behind its end.
        if codes.iter().all(|code| code.starts_with("VDI-BLOCK-"))
            && (codes.is_empty() || self.slack())
        {
            return expected.or_quiet();
        }
        expected
    }

    /// Whether the last block of the disk reaches behind its end.
    fn slack(&self) -> bool {
        !self.size.is_multiple_of(self.block)
    }

    fn disk_size(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: cbDisk";
        let size = new.div_ceil(SECTOR).saturating_mul(SECTOR);
        if size > 1 << 50 {
            return Expected::refused(clause);
        }
        let mut codes = Vec::new();
        if size.div_ceil(self.block) > self.blocks {
            codes.push("VDI-BLOCK-COUNT");
        }
        if size.div_ceil(self.block) < self.blocks {
            codes.push("VDI-BLOCKS-SPARE");
        }
        if self.kind > 2 && size != self.size {
            codes.push("VDI-PARENT-SIZE");
        }
        let expected = Expected::found(clause, &codes);
        if codes.is_empty() {
            expected.or_quiet()
        } else {
            expected
        }
    }

    fn block_size(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: cbBlock";
        if new == 0 || !new.is_multiple_of(SECTOR) {
            return Expected::refused(clause);
        }
        let mut codes = Vec::new();
        if !new.is_power_of_two() {
            codes.push("VDI-BLOCK-SIZE");
        }
        if self.size.div_ceil(new) > self.blocks {
            codes.push("VDI-BLOCK-COUNT");
        }
        if self.size.div_ceil(new) < self.blocks {
            codes.push("VDI-BLOCKS-SPARE");
        }
        let expected = Expected::found(clause, &codes).or(&FIELD);
        if codes.is_empty() {
            // Larger blocks reach over others or over the end, if there are blocks.
            return expected.or(&BLOCKS).or_quiet();
        }
        expected
    }

    fn extra(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: cbBlockExtra";
        if self.stored() == 0 {
            return Expected::harmless(clause).or(&FIELD);
        }
        let expected = Expected::found(clause, &["VDI-BLOCK-CUT", "VDI-BLOCK-LOST"]);
        let expected = expected.or(&FIELD);
        if new < self.extra || self.slack() {
            expected.or_quiet()
        } else {
            expected
        }
    }

    fn blocks(&self, new: u64) -> Expected {
        let clause = "VDIHEADER1: cBlocks";
        if new < self.needed {
            return Expected::found(
                clause,
                &["VDI-BLOCK-COUNT", "VDI-HEADER-FIELD", "VDI-HEADER-DOUBT"],
            );
        }
        if new < self.blocks {
            return Expected::harmless(clause).or(&FIELD);
        }
        // What stands behind the map is taken for entries: padding of zeros is block 0 once more.
        let all = [
            "VDI-BLOCKS-ALLOCATED",
            "VDI-BLOCKS-SPARE",
            "VDI-DATA-IN-METADATA",
            "VDI-HEADER-FIELD",
            "VDI-HEADER-DOUBT",
        ];
        Expected::found(clause, &all).or_refused()
    }

    fn entry(&self, unit: u64, new: u64) -> Expected {
        let clause = "VDIIMAGEBLOCKPOINTER";
        let was = self.map[index(unit)];
        let used = new < u64::from(ZERO);
        let behind = unit >= self.needed;
        if !used && was >= ZERO {
            let expected = Expected::other(clause);
            let alike = self.kind <= 2 || behind;
            return if alike { expected.same() } else { expected };
        }
        let mut codes = Vec::new();
        if used != (was < ZERO) {
            codes.push("VDI-BLOCKS-ALLOCATED");
        }
        if used {
            let start = self.off_data + new * (self.block + self.extra);
            if start + self.extra >= self.end {
                codes.push("VDI-BLOCK-LOST");
            }
            let mut others = (0u64..).zip(&self.map);
            if others.any(|(other, entry)| other != unit && u64::from(*entry) == new) {
                codes.push("VDI-BLOCKS-OVERLAP");
            }
            if behind {
                // Or the map is as long as the disk needs it, and the entry none of its.
                codes.extend(["VDI-BLOCK-BEHIND", "VDI-HEADER-FIELD"]);
            }
            if new >= self.blocks {
                codes.push("VDI-BLOCK-NUMBER");
            }
        }
        Expected::found(clause, &codes)
    }
}
