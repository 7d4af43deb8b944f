//! What must come of a damage to a VHDX: headers, log, blocks. The tables are in the module beside this one.

use super::log::Pending;
use super::structure::Area;
use super::{FULLY, MIB, PARTIALLY, Plan};
use crate::choices::{index, len};
use crate::damage::{Aim, Change};
use crate::expect::Expected;
use crate::specimen::Rules;

/// What depends on a field of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slotted {
    /// Any other value makes it no header.
    Invalid,
    Sequence,
    LogGuid,
    LogVersion,
    Version,
    LogLength,
    LogOffset,
    Idle,
}

/// What depends on a field of the region tables and of the metadata table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Invalid,
    Count,
    Guid,
    Offset,
    Length,
    Flags,
    Idle,
}

/// What depends on a field of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// Any other value makes it no entry.
    Broken,
    Tail,
    Count,
    /// With the length that the file has.
    Flushed(u64),
    Last,
    Offset,
    Length,
    Data,
    Idle,
}

/// What an entry of the BAT is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Block(u64),
    Bitmap(u64),
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Signature,
    Header { current: bool, what: Slotted },
    Region { first: bool, what: Item },
    Metadata(Item),
    UserItem(Item),
    BlockSize,
    ParameterFlags,
    DiskSize,
    Logical,
    Physical,
    LocatorType,
    Locator,
    Entry(Slot),
    BitmapByte,
    Log { head: bool, what: Log },
    Data,
    Idle,
}

pub(super) struct Layout {
    pub(super) roles: Vec<Role>,
    /// Offset and width of each field.
    pub(super) places: Vec<(u64, usize)>,
    pub(super) plan: Plan,
    pub(super) area: Area,
    pub(super) end: u64,
    /// Entries of the BAT that mean something: index, purpose, value.
    pub(super) slots: Vec<(u64, Slot, u64)>,
    pub(super) log: Option<Pending>,
}

impl Rules for Layout {
    fn expected(&self, field: usize, change: &Change) -> Expected {
        let (at, _) = self.places[field];
        if let Some(log) = &self.log
            && log
                .written
                .iter()
                .any(|sector| (*sector..sector + 4096).contains(&at))
        {
            return Expected::harmless("2.3.3 Log Replay: the log stands over the place");
        }
        match self.roles[field] {
            Role::Signature => {
                Expected::other("2.2.1 File Type Identifier: Signature").or_refused()
            }
            Role::Header { current, what } => self.header(current, what, change),
            Role::Region { first, what } => self.region(first, what, change),
            Role::Metadata(what) => self.metadata(what, change),
            Role::UserItem(what) => user_item(what, change),
            Role::BlockSize => self.block_size(change.new),
            Role::ParameterFlags => self.parameter_flags(change.new),
            Role::DiskSize => self.disk_size(change.new),
            Role::Logical => logical(change.new),
            Role::Physical if [512, 4096].contains(&change.new) => {
                Expected::harmless("2.6.2.5 Physical Sector Size")
            }
            Role::Physical => {
                let clause = "2.6.2.5 Physical Sector Size";
                Expected::found(clause, &["VHDX-METADATA-MISSING"]).same()
            }
            Role::LocatorType => Expected::refused("2.6.2.6.1 Parent Locator Header: LocatorType"),
            Role::Locator => {
                let clause = "2.6.2.6 Parent Locator";
                let codes = ["VHDX-PARENT-LOCATOR", "VHDX-PARENT-LINKAGE"];
                Expected::found(clause, &codes).or_refused().same()
            }
            Role::Entry(Slot::Block(block)) => self.block(block, change),
            Role::Entry(Slot::Bitmap(chunk)) => self.bitmap(chunk, change),
            Role::BitmapByte => Expected::other("2.4 Blocks: a bit says whose the sector is"),
            Role::Log { head, what } => self.log(head, what, change),
            Role::Data => Expected::other("none: bytes of the guest"),
            Role::Idle => Expected::harmless("says nothing of the bytes"),
        }
    }

    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        let areas = self.area.all();
        let area = areas[index(pick % len(&areas))].0;
        match (self.roles[field], aim) {
            (Role::Entry(slot), _) => self.aimed_entry(slot, aim, pick),
            (
                Role::Region {
                    what: Item::Offset, ..
                },
                Aim::Beyond,
            )
            | (
                Role::Header {
                    what: Slotted::LogOffset,
                    ..
                },
                Aim::Beyond,
            ) => Some(self.end + MIB * (pick % 5)),
            (
                Role::Region {
                    what: Item::Offset, ..
                },
                Aim::Metadata,
            )
            | (
                Role::Header {
                    what: Slotted::LogOffset,
                    ..
                },
                Aim::Metadata,
            ) => Some(area),
            (Role::Metadata(Item::Offset), Aim::Beyond) => Some(MIB + pick % 4096),
            (Role::Metadata(Item::Offset), Aim::Metadata) => Some(pick % (64 << 10)),
            _ => None,
        }
    }

    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        let (Role::Entry(Slot::Block(_)), Role::Entry(Slot::Block(_))) =
            (self.roles[one], self.roles[other])
        else {
            return None;
        };
        if self.log.is_some() {
            return None;
        }
        let expected = Expected::other("2.5.1 BAT Entry: blocks may stand in any order");
        Some(if self.plan.parent.is_some() {
            expected.or(&["VHDX-BITMAP-MISSING"])
        } else {
            expected
        })
    }
}

impl Layout {
    fn header(&self, current: bool, what: Slotted, change: &Change) -> Expected {
        let clause = "2.2.2 Headers";
        if change.unsealed || what == Slotted::Invalid {
            // The other one says the same but for its number.
            return Expected::found(clause, &["VHDX-HEADER"]).same();
        }
        let idle =
            Expected::harmless("2.2.2 Headers: not of the current one, or for others than readers");
        // Both say the same but for their numbers, so that it is all one which is current.
        if what == Slotted::Sequence || (!current && what != Slotted::Sequence) {
            return idle;
        }
        match what {
            Slotted::LogGuid if self.log.is_some() && change.to_zero() => {
                Expected::anything("2.3.3 Log Replay: a log that is not replayed")
            }
            Slotted::LogGuid => {
                let clause = "2.3.3 Log Replay: no entry has this LogGuid";
                let found = Expected::found(clause, &["VHDX-LOG-NO-SEQUENCE"]);
                if self.log.is_some() {
                    found.or_refused()
                } else {
                    found.same()
                }
            }
            Slotted::LogVersion if self.log.is_some() => {
                Expected::refused("2.2.2 Headers: LogVersion")
            }
            Slotted::Version => Expected::refused("2.2.2 Headers: Version"),
            Slotted::LogLength => self.log_place(self.area.log.0, change.new),
            Slotted::LogOffset => self.log_place(change.new, self.area.log.1),
            _ => idle,
        }
    }

    fn log_place(&self, offset: u64, length: u64) -> Expected {
        let clause = "2.2.2 Headers: LogLength, LogOffset";
        let end = offset.saturating_add(length);
        let aligned = offset.is_multiple_of(MIB) && length.is_multiple_of(MIB);
        let inside = offset >= MIB && end <= self.end && length > 0;
        let areas = [
            Some(self.area.bat),
            Some(self.area.metadata),
            self.area.unknown,
        ];
        let mut areas = areas.into_iter().flatten();
        let over = areas.any(|(at, size)| at < end && offset < at + size);
        if self.log.is_some() {
            // Where there is no log, none can be replayed. Where there is a part of it, it may.
            return Expected::anything(clause);
        }
        if !aligned || !inside || over {
            return Expected::found(clause, &["VHDX-LOG-PLACE"]).same();
        }
        let on_block = self
            .standing()
            .any(|(at, size)| at < end && offset < at + size);
        if on_block {
            return Expected::found(
                clause,
                &[
                    "VHDX-BLOCK-IN-STRUCTURE",
                    "VHDX-BITMAP-MISSING",
                    "VHDX-BITMAP-STATE",
                ],
            );
        }
        Expected::harmless("2.2.2 Headers: the log may stand in any free place")
    }

    /// Places of blocks and bitmaps.
    fn standing(&self) -> impl Iterator<Item = (u64, u64)> {
        let present = self.slots.iter().filter(|(_, _, entry)| entry & 7 >= FULLY);
        present.map(|(_, slot, entry)| {
            let length = match slot {
                Slot::Block(_) => self.plan.block,
                Slot::Bitmap(_) => MIB,
            };
            (entry & !(MIB - 1), length)
        })
    }

    fn log(&self, head: bool, what: Log, change: &Change) -> Expected {
        let clause = "2.3.3 Log Replay: the active sequence";
        let only = self.log.as_ref().is_some_and(|log| log.entries == 1);
        // Of a longer sequence entries in front may be replayed alone.
        let broken = if only {
            Expected::found(clause, &["VHDX-LOG-NO-SEQUENCE"]).or_refused()
        } else {
            Expected::anything(clause)
        };
        if change.unsealed {
            return broken;
        }
        match what {
            Log::Broken => broken,
            Log::Tail if head => broken,
            Log::Tail if !change.new.is_multiple_of(4096) || change.new >= self.area.log.1 => {
                broken
            }
            Log::Flushed(length) if head && change.new > length => {
                let clause = "2.3.3 Log Replay: FlushedFileOffset";
                Expected::found(clause, &["VHDX-LOG-TRUNCATED"]).same()
            }
            Log::Count | Log::Offset | Log::Length | Log::Data => {
                Expected::anything("2.3.1.2 Log Descriptors: another change is replayed")
            }
            _ => Expected::harmless("2.3.1.1 Log Entry Header: says nothing of what is replayed"),
        }
    }

    /// An entry for a block, by where everything else is.
    fn block(&self, block: u64, change: &Change) -> Expected {
        let clause = "2.5.1 BAT Entry: FileOffsetMB";
        let (new, old) = (change.new, change.old);
        let (state, was) = (new & 7, old & 7);
        let child = self.plan.parent.is_some();
        let mut codes = Vec::new();
        if matches!(state, 4 | 5) {
            codes.push("VHDX-BAT-STATE");
        }
        if new & (MIB - 8) != 0 {
            codes.push("VHDX-BAT-RESERVED");
        }
        if state < FULLY {
            let alike = |state: u64| matches!(state, 1..=3) || (state == 0 && !child);
            let same = alike(state) && alike(was);
            let expected = Expected {
                quiet: codes.is_empty(),
                ..Expected::found("2.5.1.1 Payload BAT Entry States", &codes)
            };
            return if same { expected.same() } else { expected };
        }
        let at = new & !(MIB - 1);
        let end = at.saturating_add(self.plan.block);
        if self
            .area
            .all()
            .iter()
            .any(|(from, length)| at < from + length && *from < end)
        {
            codes.push("VHDX-BLOCK-IN-STRUCTURE");
        } else if at.saturating_add(self.plan.inside(block)) > self.end {
            codes.push("VHDX-BLOCK-LOST");
        }
        let own = (was >= FULLY).then_some(old & !(MIB - 1));
        let mut others = self.standing().filter(|(from, _)| Some(*from) != own);
        if others.any(|(from, length)| at < from + length && from < end) {
            codes.push("VHDX-BLOCK-SHARED");
        }
        if state == PARTIALLY && !child {
            codes.push("VHDX-BAT-STATE");
        }
        if state == PARTIALLY && child && !self.has_bitmap(block / self.plan.ratio()) {
            codes.push("VHDX-BITMAP-MISSING");
        }
        let moved = Some(at) != own || state != was;
        let expected = Expected {
            quiet: codes.is_empty(),
            same: !moved || (Some(at) == own && !child),
            ..Expected::found(clause, &codes)
        };
        // A block that the disk ends in may reach behind the end of the file and lie over nothing.
        expected
    }

    fn has_bitmap(&self, chunk: u64) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|(_, slot, entry)| *slot == Slot::Bitmap(chunk) && entry & 7 == FULLY)
    }

    /// An entry for the sector bitmap of a chunk.
    fn bitmap(&self, chunk: u64, change: &Change) -> Expected {
        let clause = "2.5.1.2 Sector Bitmap BAT Entry States";
        let new = change.new;
        let child = self.plan.parent.is_some();
        let mut codes = Vec::new();
        if new & (MIB - 8) != 0 {
            codes.push("VHDX-BAT-RESERVED");
        }
        let mut slots = self.slots.iter();
        let partly = slots.any(|(_, slot, entry)| {
            matches!(slot, Slot::Block(block) if block / self.plan.ratio() == chunk)
                && entry & 7 == PARTIALLY
        });
        let at = new & !(MIB - 1);
        let over = |(from, length): &(u64, u64)| at < from + length && *from < at + MIB;
        let sound = child && new & 7 == FULLY && !self.area.all().iter().any(over) && at < self.end;
        if !sound && partly {
            codes.push("VHDX-BITMAP-MISSING");
        } else if !sound && new != 0 && (!child || new & 7 != 0) {
            codes.push("VHDX-BITMAP-STATE");
        }
        let old = change.old & !(MIB - 1);
        let mut others = self
            .standing()
            .filter(|(from, _)| *from != old || change.old == 0);
        if sound && others.any(|place| over(&place)) {
            codes.push("VHDX-BLOCK-SHARED");
        }
        Expected {
            quiet: codes.is_empty(),
            same: !partly || (sound && at == old),
            ..Expected::found(clause, &codes)
        }
    }

    fn aimed_entry(&self, slot: Slot, aim: Aim, pick: u64) -> Option<u64> {
        let present: Vec<u64> = self
            .slots
            .iter()
            .filter(|(_, other, entry)| *other != slot && entry & 7 >= FULLY)
            .map(|(_, _, entry)| entry & !(MIB - 1))
            .collect();
        let other = || {
            present
                .get(index(pick.checked_rem(len(&present))?))
                .copied()
        };
        let at = match aim {
            Aim::Beyond => self.end + MIB * (pick % 5),
            Aim::Metadata => {
                let areas = self.area.all();
                areas[index(pick % len(&areas))].0
            }
            Aim::Alias => other()?,
            Aim::Straddle => other()? + MIB,
        };
        Some(at | FULLY)
    }
}

fn logical(new: u64) -> Expected {
    let clause = "2.6.2.4 Logical Sector Size";
    if [512, 4096].contains(&new) {
        return Expected::anything(clause);
    }
    Expected::refused(clause)
}

/// A user's item that need not be known.
fn user_item(what: Item, change: &Change) -> Expected {
    let clause = "2.6.1.2 Metadata Table Entry";
    match what {
        // Moved into another item or out of the region; or made one that must be known.
        Item::Offset | Item::Length => Expected::harmless(clause).or(&["VHDX-METADATA-ITEM"]),
        Item::Flags if change.new & 4 != 0 => Expected::refused(clause),
        _ => Expected::harmless(clause),
    }
}
