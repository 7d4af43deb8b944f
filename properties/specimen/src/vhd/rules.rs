//! What must come of a damage to a VHD.

use super::blocks::bitmap_bytes;
use super::{Footer, SECTOR};
use crate::choices::{index, len};
use crate::damage::{Aim, Change};
use crate::expect::Expected;
use crate::specimen::Rules;

pub(super) const TWO_SIZES: &str = "VHD-TWO-SIZES";
const FOOTER: &str = "VHD-FOOTER";
const FOOTER_COPY: &str = "VHD-FOOTER-COPY";
const FOOTERS_DIFFER: &str = "VHD-FOOTERS-DIFFER";
const BLOCKS: [&str; 6] = [
    "VHD-BLOCK-IN-METADATA",
    "VHD-BLOCK-LOST",
    "VHD-BLOCK-CUT",
    "VHD-BLOCK-SHORT",
    "VHD-BLOCKS-OVERLAP",
    "VHD-BITMAP-CLEAR",
];

/// Fields of a footer by what depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foot {
    Cookie,
    Version,
    DataOffset,
    Creator,
    CurrentSize,
    /// Cylinders, heads, sectors of a track, by number.
    Geometry(usize),
    Type,
    Checksum,
    SavedState,
    Idle,
}

/// Fields of the dynamic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Cookie,
    DataOffset,
    TableOffset,
    Version,
    Entries,
    Block,
    Checksum,
    ParentId,
    ParentTime,
    ParentName,
    LocatorCode,
    Locator,
    Idle,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Footer {
        copy: bool,
        what: Foot,
    },
    Header(Head),
    Entry(u64),
    Spare,
    Bitmap {
        block: u64,
        byte: u64,
    },
    /// Bytes of the guest, in a sector whose bit is set or not.
    Data {
        set: bool,
    },
}

/// A block that is stored.
pub(super) struct Block {
    pub(super) unit: u64,
    pub(super) start: u64,
    /// Bits of sectors that hold a byte other than zero.
    pub(super) clear: Vec<u8>,
}

/// Where everything of a dynamic or differencing disk is.
pub(super) struct Table {
    pub(super) header_at: u64,
    pub(super) table_at: u64,
    pub(super) table_end: u64,
    pub(super) needed: u64,
    /// Bytes of the disk.
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) blocks: Vec<Block>,
    pub(super) slots: Vec<u64>,
    pub(super) locators: Vec<(u64, u64)>,
    pub(super) parent_time: Option<u64>,
    pub(super) data_end: u64,
}

pub(super) struct Layout {
    pub(super) roles: Vec<Role>,
    pub(super) footer: Footer,
    pub(super) table: Option<Table>,
}

impl Rules for Layout {
    fn expected(&self, field: usize, change: &Change) -> Expected {
        match (self.roles[field], &self.table) {
            (Role::Footer { what, .. }, None) => self.fixed(what, change),
            (Role::Footer { copy: true, what }, Some(_)) => copy(what, change),
            (Role::Footer { what, .. }, Some(_)) => self.last(what, change),
            (Role::Header(what), Some(table)) => table.header(what, change),
            (Role::Entry(unit), Some(table)) => table.entry(unit, change.new),
            (Role::Bitmap { block, byte }, Some(table)) => table.bitmap(block, byte, change),
            (Role::Spare, _) => Expected::harmless(
                "Block Allocation Table: entries behind the last block of the disk mean nothing",
            ),
            (Role::Data { set: false }, _) if self.footer.kind == 3 && !change.to_zero() => {
                Expected::found("Block Bitmap", &["VHD-BITMAP-CLEAR"])
            }
            _ => Expected::other("none: bytes of the guest"),
        }
    }

    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        let table = self.table.as_ref()?;
        match self.roles[field] {
            Role::Entry(unit) => table.aimed(unit, aim, pick),
            Role::Header(Head::TableOffset) => match aim {
                Aim::Beyond => Some(table.data_end + 512 * (pick % 9)),
                Aim::Metadata => Some(pick % 512),
                _ => None,
            },
            Role::Header(Head::Locator) => match aim {
                Aim::Beyond => Some(table.data_end + pick % 4096),
                Aim::Metadata => Some(table.header_at),
                _ => None,
            },
            _ => None,
        }
    }

    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        let (Role::Entry(one), Role::Entry(other)) = (self.roles[one], self.roles[other]) else {
            return None;
        };
        let table = self.table.as_ref()?;
        // The last block of the disk may have bits and bytes behind its end, which no one sees: not so elsewhere.
        let clause = "Block Allocation Table: any block may stand anywhere";
        let expected = Expected::other(clause);
        let last = table.needed - 1;
        Some(if one == last || other == last {
            expected.or(&["VHD-BITMAP-CLEAR"])
        } else {
            expected
        })
    }
}

/// What a footer says cannot be believed: its checksum is wrong, or it is of no version or type that exists.
fn unbelievable(what: Foot, change: &Change) -> bool {
    match what {
        Foot::Cookie | Foot::Checksum => true,
        Foot::Version => change.unsealed || change.new >> 16 != 1,
        Foot::Type => change.unsealed || !(2..=4).contains(&change.new),
        _ => change.unsealed,
    }
}

/// The copy in front.
fn copy(what: Foot, change: &Change) -> Expected {
    if unbelievable(what, change) {
        let clause = "Dynamic Hard Disk Image: a copy of the footer stands in front";
        return Expected::found(clause, &[FOOTER_COPY]).same();
    }
    let clause = "Dynamic Hard Disk Image: the copy is that of the footer at the end";
    Expected::found(clause, &[FOOTERS_DIFFER]).same()
}

impl Layout {
    /// The only footer of a fixed disk.
    fn fixed(&self, what: Foot, change: &Change) -> Expected {
        if what == Foot::Cookie {
            // Without a cookie nothing says that the file is a VHD: it is raw.
            return Expected::other("Hard Disk Footer Format: Cookie").or(&["RAW-VHD-FOOTER"]);
        }
        if unbelievable(what, change) {
            // Opened where all that it says of the disk fits the file, and the checksum alone does not.
            return Expected::refused(
                "Hard Disk Footer Format: Checksum, File Format Version, Disk Type",
            )
            .or(&["VHD-FOOTER-CHECKSUM"]);
        }
        match what {
            Foot::Type => {
                Expected::refused("Hard Disk Footer Format: Data Offset leads to no header")
            }
            Foot::CurrentSize => {
                let clause = "Hard Disk Footer Format: Current Size";
                let expected = Expected::found(clause, &["VHD-FIXED-LENGTH", "VHD-FIXED-CUT"]);
                if change.new > super::DISK_MAX {
                    expected.or_refused()
                } else {
                    expected
                }
            }
            Foot::Geometry(part) => self.geometry(part, change.new),
            Foot::SavedState => saved(change),
            Foot::Creator => self.creator(change),
            _ => Expected::harmless("Hard Disk Footer Format: says nothing of the bytes"),
        }
    }

    /// Two sizes, or one again: then programs that go by the geometry and those that do not agree.
    fn geometry(&self, part: usize, new: u64) -> Expected {
        let clause = "Hard Disk Footer Format: Disk Geometry";
        let (cylinders, heads, sectors) = self.footer.geometry;
        let mut parts = [cylinders, heads, sectors];
        parts[part] = new;
        let [cylinders, heads, sectors] = parts;
        let geometry = (cylinders, heads, sectors);
        if super::bytes_of(geometry) == self.footer.size {
            return Expected::other(clause);
        }
        if super::is_told_apart(&self.footer.creator, geometry) {
            return Expected::harmless(clause);
        }
        Expected::found(clause, &[TWO_SIZES])
    }

    /// Which of two sizes counts depends on the creator.
    fn creator(&self, change: &Change) -> Expected {
        let clause = "Hard Disk Footer Format: Creator Application";
        let geometry = self.footer.geometry;
        let is_one = super::bytes_of(geometry) == self.footer.size;
        if is_one || super::is_told_apart(&change.new_bytes, geometry) {
            return Expected::harmless(clause);
        }
        Expected::found(clause, &[TWO_SIZES])
    }

    /// The last footer of a dynamic or differencing disk, for which the copy stands in.
    fn last(&self, what: Foot, change: &Change) -> Expected {
        if unbelievable(what, change) {
            let clause = "Dynamic Hard Disk Image: the copy stands in for the footer at the end";
            return Expected::found(clause, &[FOOTER]).same();
        }
        let clause = "Dynamic Hard Disk Image: the copy is that of the footer at the end";
        let differ = Expected::found(clause, &[FOOTERS_DIFFER]);
        match what {
            Foot::DataOffset => differ.or_refused(),
            // Fixed: of the two footers only the last is one, and the bytes in front of it are the guest's.
            Foot::Type if change.new == 2 => {
                let fits = self
                    .table
                    .as_ref()
                    .is_some_and(|table| table.data_end == self.footer.size);
                let found = differ.or(&["VHD-FIXED-LENGTH", "VHD-FIXED-CUT"]);
                if fits { found.or_quiet() } else { found }
            }
            Foot::Type => differ.or_refused(),
            Foot::CurrentSize | Foot::Geometry(_) => {
                if change.new > super::DISK_MAX {
                    differ.or_refused()
                } else {
                    differ
                }
            }
            Foot::Creator => differ,
            _ => differ.same(),
        }
    }
}

fn saved(change: &Change) -> Expected {
    let clause = "Hard Disk Footer Format: Saved State";
    if change.to_zero() {
        return Expected::harmless(clause);
    }
    Expected::found(clause, &["VHD-SAVED-STATE"]).same()
}

impl Table {
    fn slot(&self) -> u64 {
        bitmap_bytes(self.block) + self.block
    }

    fn header(&self, what: Head, change: &Change) -> Expected {
        let mut expected = self.header_sealed(what, change);
        if change.unsealed {
            // Wrong is wrong whatever the field means; nothing else need be found.
            expected.quiet = false;
            expected.codes.push("VHD-HEADER-CHECKSUM");
        }
        expected
    }

    fn header_sealed(&self, what: Head, change: &Change) -> Expected {
        match what {
            Head::Cookie => Expected::refused("Dynamic Disk Header Format: Cookie"),
            Head::Checksum => {
                let clause = "Dynamic Disk Header Format: Checksum";
                Expected::found(clause, &["VHD-HEADER-CHECKSUM"]).same()
            }
            Head::DataOffset => {
                let clause = "Dynamic Disk Header Format: Data Offset";
                Expected::found(clause, &["VHD-HEADER-DATA-OFFSET"]).same()
            }
            Head::TableOffset => {
                // Whatever stands there is taken for entries; where those are all free, nothing tells.
                let clause = "Dynamic Disk Header Format: Table Offset";
                Expected::found(clause, &BLOCKS).or_refused().or_quiet()
            }
            Head::Version if change.new >> 16 != 1 => {
                Expected::refused("Dynamic Disk Header Format: Header Version")
            }
            Head::Entries => self.entry_count(change.new),
            Head::Block => self.block_size(change.new),
            Head::ParentId if self.parent_time.is_some() => {
                let clause = "Dynamic Disk Header Format: Parent Unique ID";
                Expected::found(clause, &["VHD-PARENT-ID"]).same()
            }
            Head::ParentTime => self.parent_time(change.new),
            Head::LocatorCode | Head::Locator => {
                // The parent's name stands in more than one place; locators that move may stand over blocks.
                let clause = "Parent Locator Entry";
                let codes = [
                    "VHD-PARENT-LOCATOR",
                    "VHD-LOCATOR-PLACE",
                    "VHD-BLOCK-IN-METADATA",
                ];
                Expected::found(clause, &codes).or_quiet()
            }
            _ => Expected::harmless("Dynamic Disk Header Format: says nothing of the bytes"),
        }
    }

    fn entry_count(&self, count: u64) -> Expected {
        let clause = "Dynamic Disk Header Format: Max Table Entries";
        if count < self.needed {
            return Expected::found(clause, &["VHD-BAT-SHORT"]);
        }
        // More entries than blocks are idle, also where the table would reach over other things.
        Expected::harmless(clause)
            .or(&["VHD-BLOCK-IN-METADATA"])
            .or_refused()
    }

    fn block_size(&self, block: u64) -> Expected {
        let clause = "Dynamic Disk Header Format: Block Size";
        if !block.is_power_of_two() || block < SECTOR {
            return Expected::refused(clause);
        }
        // Everything stands elsewhere now: most of it over others, or without entry. A disk of one block may fit.
        Expected::other(clause)
            .or(&BLOCKS)
            .or(&["VHD-BAT-SHORT"])
            .or_refused()
    }

    fn parent_time(&self, time: u64) -> Expected {
        let clause = "Dynamic Disk Header Format: Parent Time Stamp";
        match self.parent_time {
            // Programs that do not keep it write 0.
            None => Expected::harmless(clause),
            Some(_) if time == 0 => Expected::harmless(clause),
            Some(_) => Expected::found(clause, &["VHD-PARENT-TIME"]).same(),
        }
    }

    /// What an entry means, by where everything else is.
    fn entry(&self, unit: u64, entry: u64) -> Expected {
        let clause = "Block Allocation Table";
        if entry == u64::from(u32::MAX) {
            return Expected::other("Block Allocation Table: 0xFFFFFFFF is no block");
        }
        let start = entry * SECTOR;
        let data = start + bitmap_bytes(self.block);
        let end = start + self.slot();
        let over = |from: u64, to: u64| start < to && from < end;
        let used_end = self.table_at + 4 * self.needed;
        let mut codes = Vec::new();
        let locators = self.locators.iter();
        let hard = [
            (0, 512),
            (self.header_at, self.header_at + 1024),
            (self.table_at, used_end),
        ];
        let hard = hard.iter().chain(locators);
        // Only what the disk has of the last block must be there.
        let slack = over(used_end, self.table_end);
        if hard.clone().any(|(from, to)| over(*from, *to)) {
            codes.push("VHD-BLOCK-IN-METADATA");
        }
        if data >= self.data_end {
            codes.push("VHD-BLOCK-LOST");
        } else if end > self.data_end {
            codes.extend(["VHD-BLOCK-CUT", "VHD-BLOCK-SHORT"]);
        }
        let others = self.blocks.iter().filter(|block| block.unit != unit);
        let shared = others
            .map(|block| block.start)
            .any(|at| over(at, at + self.slot()));
        if shared {
            codes.push("VHD-BLOCKS-OVERLAP");
        }
        if codes.is_empty() {
            // A free place: whatever stands there is a block now.
            let other = Expected::other("Block Allocation Table: the place is nobody's");
            return other.or(&["VHD-BITMAP-CLEAR", "VHD-BLOCK-IN-METADATA"]);
        }
        let only_slack = codes == ["VHD-BLOCK-IN-METADATA"] && slack;
        let mut expected = Expected::found(clause, &codes);
        // What the disk does not have of its last block need not be anywhere.
        let inside = self.size.saturating_sub(unit * self.block).min(self.block);
        let over_needed = |from: u64, to: u64| start < to && from < data + inside;
        let hit = hard.clone().any(|(from, to)| over_needed(*from, *to));
        if codes == ["VHD-BLOCK-IN-METADATA"] && !hit {
            expected.quiet = true;
        }
        // The last block of the disk need not have bytes that the disk lacks: then it is over nothing.
        let cut_short = (unit + 1) * self.block > self.needed * self.block;
        if only_slack && cut_short {
            return expected.or_quiet();
        }
        expected
    }

    fn aimed(&self, unit: u64, aim: Aim, pick: u64) -> Option<u64> {
        let others: Vec<u64> = (0u64..)
            .zip(&self.slots)
            .filter(|(other, entry)| *other != unit && **entry != u64::from(u32::MAX))
            .map(|(_, entry)| *entry)
            .collect();
        let other = || others.get(index(pick.checked_rem(len(&others))?)).copied();
        match aim {
            Aim::Beyond => Some(self.data_end / SECTOR + pick % 64),
            Aim::Metadata => Some(match pick % 3 {
                0 => 0,
                1 => self.header_at / SECTOR,
                _ => self.table_at / SECTOR,
            }),
            Aim::Alias => other(),
            Aim::Straddle => Some(other()? + 1),
        }
    }

    fn bitmap(&self, unit: u64, byte: u64, change: &Change) -> Expected {
        let clause = "Block Bitmap";
        if self.parent_time.is_some() {
            return Expected::other("Block Bitmap: a bit says whose the sector is");
        }
        let found = self.blocks.iter().find(|block| block.unit == unit);
        let full = found.map_or(0, |block| u64::from(block.clear[index(byte)]));
        if full & !change.new != 0 {
            return Expected::found(clause, &["VHD-BITMAP-CLEAR"]).same();
        }
        Expected::harmless("Block Bitmap: a bit over zeros says nothing new")
    }
}
