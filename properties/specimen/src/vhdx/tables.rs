//! What must come of a damage to the region tables and the metadata.

use super::MIB;
use super::rules::{Item, Layout};
use crate::damage::Change;
use crate::expect::Expected;

impl Layout {
    pub(super) fn region(&self, first: bool, what: Item, change: &Change) -> Expected {
        let clause = "2.2.3 Region Table";
        let lost = Expected::found(clause, &["VHDX-REGION-TABLE"]).same();
        if change.unsealed || what == Item::Invalid {
            return lost;
        }
        let differ = Expected::found(clause, &["VHDX-REGION-TABLES-DIFFER"]);
        if !first {
            // Whatever it says, the first one counts.
            return differ.or(&["VHDX-REGION-TABLE"]).same();
        }
        match what {
            Item::Count | Item::Guid => differ.or(&["VHDX-REGION-TABLE"]).or_refused(),
            Item::Offset | Item::Length => differ.or_refused(),
            // A region that is not known and must be.
            Item::Flags => differ.or(&["VHDX-REGION-TABLE"]).or_refused().same(),
            Item::Idle | Item::Invalid => differ.same(),
        }
    }

    pub(super) fn metadata(&self, what: Item, change: &Change) -> Expected {
        let clause = "2.6.1.2 Metadata Table Entry";
        match what {
            Item::Invalid => Expected::refused("2.6.1.1 Metadata Table Header: Signature"),
            Item::Count => {
                let clause = "2.6.1.1 Metadata Table Header: EntryCount";
                let codes = ["VHDX-METADATA-MISSING", "VHDX-METADATA-ITEM"];
                Expected::found(clause, &codes)
                    .or_refused()
                    .or_quiet()
                    .same()
            }
            Item::Guid => {
                Expected::refused("2.6.1.2 Metadata Table Entry: an unknown item that is required")
            }
            Item::Offset => self.offset(change.new),
            Item::Length => self.length(change),
            // IsUser: then it is no item of the specification.
            Item::Flags if change.new & 1 != 0 => Expected::refused(clause)
                .or(&["VHDX-METADATA-MISSING"])
                .same(),
            Item::Flags | Item::Idle => Expected::harmless(clause),
        }
    }

    fn offset(&self, new: u64) -> Expected {
        let clause = "2.6.1.2 Metadata Table Entry: Offset";
        if !(64 << 10..MIB).contains(&new) {
            let codes = ["VHDX-METADATA-ITEM"];
            return Expected::found(clause, &codes).or_refused();
        }
        // Other bytes are taken for the item.
        Expected::anything(clause)
    }

    fn length(&self, change: &Change) -> Expected {
        let clause = "2.6.1.2 Metadata Table Entry: Length";
        let codes = [
            "VHDX-METADATA-ITEM",
            "VHDX-METADATA-MISSING",
            "VHDX-PARENT-LOCATOR",
        ];
        if change.new < change.old {
            return Expected::found(clause, &codes).or_refused().same();
        }
        // Longer than the item is: of no account, unless it reaches into another.
        let expected = Expected::found(clause, &codes).or_refused().same();
        if change.new >= MIB {
            expected
        } else {
            expected.or_quiet()
        }
    }

    pub(super) fn block_size(&self, new: u64) -> Expected {
        let clause = "2.6.2.1 File Parameters: BlockSize";
        if !new.is_power_of_two() || !(MIB..=256 * MIB).contains(&new) {
            return Expected::refused(clause);
        }
        Expected::anything(clause)
    }

    pub(super) fn parameter_flags(&self, new: u64) -> Expected {
        let clause = "2.6.2.1 File Parameters: HasParent";
        match (self.plan.parent, new & 2 != 0) {
            (None, true) => Expected::refused(clause),
            // The disk has no parent now, and blocks are partly nobody's.
            (Some(_), false) => {
                let codes = ["VHDX-BAT-STATE", "VHDX-BITMAP-STATE"];
                Expected::found(clause, &codes).or_quiet()
            }
            _ => Expected::harmless("2.6.2.1 File Parameters: LeaveBlocksAllocated"),
        }
    }

    pub(super) fn disk_size(&self, new: u64) -> Expected {
        let clause = "2.6.2.2 Virtual Disk Size";
        if new > 64 << 40 {
            return Expected::refused(clause);
        }
        if !new.is_multiple_of(self.plan.sector) {
            return Expected::found(clause, &["VHDX-DISK-SIZE"]).or_refused();
        }
        // Fewer blocks: the entries behind them mean nothing. More: as far as the table goes.
        Expected::anything(clause)
    }
}
