//! What a hosted sparse extent gives up when it shrinks.
//!
//! Once header and descriptor have the new size, nobody reads what stands behind it. Only then entries behind the new end
//! are cleared, so that no program that enlarges the disk shows them again, and the file is cut behind the last table or
//! grain that is left.

use super::header::{Header, SECTOR};
use super::hosted::Hosted;
use crate::edit::{Edit, Plan};
use crate::map::Units;
use crate::math::index;
use drylab_block::Result;
use std::collections::BTreeSet;

impl Hosted {
    /// Plans what follows the change to `capacity` sectors, fewer than now; and how many grains it gives up.
    pub(super) fn plan_drop(&self, capacity: u64) -> Result<(Plan, u64)> {
        let mut new = self.header.clone();
        new.capacity = capacity;
        let (grains_end, lost) = self.kept_grains(&new)?;
        let mut plan = Plan::default();
        self.clear_entries(&new, &mut plan)?;
        let old = self.source.len();
        let end = grains_end.max(self.kept_tables(&new)).min(old);
        if end < old {
            plan.push(Edit::Flush);
            plan.push(Edit::Length { old, new: end });
        }
        Ok((plan, lost))
    }

    /// The byte behind the last grain that is kept, and how many are not.
    fn kept_grains(&self, new: &Header) -> Result<(u64, u64)> {
        let (mut end, mut lost, mut number) = (0u64, 0u64, 0u64);
        loop {
            number = self.next_table(number);
            if number >= self.header.tables() {
                return Ok((end, lost));
            }
            let first = number.saturating_mul(self.units_per_table());
            let table = self.table(number)?;
            for (unit, entry) in (first..).zip(table.iter().flat_map(|table| table.iter())) {
                if *entry == 0 || (*entry == 1 && self.header.has_zeroed_grains()) {
                    continue;
                }
                if unit < new.grains() {
                    let behind = u64::from(*entry).saturating_add(self.header.grain);
                    end = end.max(behind.saturating_mul(SECTOR));
                } else {
                    lost = lost.saturating_add(1);
                }
            }
            number = number.saturating_add(1);
        }
    }

    /// The byte behind the last of header, descriptor, directories and tables that are kept.
    fn kept_tables(&self, new: &Header) -> u64 {
        let front = &self.front;
        let behind = |start: u64, sectors: u64| start.saturating_add(sectors);
        let mut end = behind(front.descriptor_offset, front.descriptor_size);
        end = end.max(front.overhead).max(1);
        for (directory, start) in [(&self.gd, new.gd_offset), (&self.rgd, new.rgd_offset)] {
            if !directory.is_empty() {
                end = end.max(behind(start, new.directory_sectors()));
            }
        }
        for number in 0..new.tables() {
            let (first, second) = self.entries(number);
            let last = u64::from(first.max(second));
            if last != 0 {
                end = end.max(behind(last, new.table_sectors()));
            }
        }
        end.saturating_mul(SECTOR)
    }

    /// Plans zeros for entries behind the new end, in both directories and in the last table of each.
    fn clear_entries(&self, new: &Header, plan: &mut Plan) -> Result<()> {
        let tables = new.tables();
        let last = tables.saturating_sub(1);
        // Both directories may name one table, or be one: a plan that writes it twice would not find what it expects.
        let mut cleared = BTreeSet::new();
        for (directory, start, is_second) in [
            (&self.rgd, self.header.rgd_offset, true),
            (&self.gd, self.header.gd_offset, false),
        ] {
            let Some(sector) = directory.get(index(last)).copied() else {
                continue;
            };
            let is_table = match is_second {
                true => self.is_second(sector, last),
                false => self.is_table(sector, last),
            };
            if is_table
                && cleared.insert(u64::from(sector))
                && !self.is_hole(last, sector, &mut (0..0))
            {
                let (kept, known) = (new.entries_of(last), self.header.entries_of(last));
                self.clear((u64::from(sector), kept, known), plan)?;
            }
            if cleared.insert(start) {
                self.clear((start, tables, self.header.tables()), plan)?;
            }
        }
        Ok(())
    }

    /// Plans zeros for some of the words that stand from a sector on.
    fn clear(&self, (sector, from, to): (u64, u64, u64), plan: &mut Plan) -> Result<()> {
        let place = sector.saturating_mul(SECTOR);
        let place = place.saturating_add(from.saturating_mul(4));
        let zeros = vec![0; index(to.saturating_sub(from).saturating_mul(4))];
        plan.write(&*self.source, place, &zeros)
    }
}
