//! Mending the two grain directories by each other.

use super::header::SECTOR;
use super::hosted::Layout;
use super::repair::{Mend, set, word_bytes};
use crate::math::index;
use drylab_block::Result;
use std::collections::BTreeSet;

/// Entries of a directory in a sector, the unit in which directories are written.
const DIRECTORY_STEP: usize = 128;

/// What two directories have in common after the first step.
#[derive(Default)]
pub(super) struct Shared {
    /// The whole primary directory is the redundant one.
    gd: bool,
    /// The whole redundant directory is the primary one.
    rgd: bool,
    /// Tables that both name: whether the redundant entry is the one to lead elsewhere.
    tables: BTreeSet<(u64, bool)>,
}

impl Shared {
    /// Whether one directory is in the place of both.
    pub(super) fn is_whole(&self) -> bool {
        self.gd || self.rgd
    }

    pub(super) fn is_any(&self) -> bool {
        self.gd || self.rgd || !self.tables.is_empty()
    }
}

impl Mend<'_> {
    /// Leads entries without a table to the other directory's, and clears those that neither has. The result is what is
    /// shared then: whether all of the primary, all of the redundant, and single tables.
    pub(super) fn lead_directories(&mut self) -> Shared {
        let mut shared = Shared::default();
        let tables = self.disk.header.tables();
        let front = self.disk.layout == Layout::Front && tables > 0;
        if front && self.gd.is_empty() {
            self.write_offsets(self.header.rgd_offset, self.header.rgd_offset);
            self.gd = vec![0; self.rgd.len()];
            shared.gd = true;
        } else if front && !self.second && self.header.says_redundant() {
            self.write_offsets(self.header.gd_offset, self.header.gd_offset);
            self.rgd = vec![0; self.gd.len()];
            shared.rgd = true;
        }
        let mut lost = 0u64;
        for number in 0..tables {
            let (mut first, second) = self.disk.entries(number);
            if let Some(sector) = self.announced.get(&number) {
                first = *sector;
            }
            let good_first = self.disk.is_table(first, number);
            let good_second = self.disk.is_second(second, number);
            let gd = match (good_first, good_second) {
                (true, _) => first,
                (false, true) => second,
                (false, false) => 0,
            };
            let announced = self.announced.contains_key(&number);
            let rgd = if good_second && !shared.rgd && !announced {
                second
            } else {
                gd
            };
            if !good_first && !good_second && (first != 0 || second != 0) {
                lost = lost.saturating_add(1);
            }
            let kept = !self.rgd.is_empty() && !shared.gd && !shared.rgd;
            if kept && gd != 0 && gd == rgd {
                shared.tables.insert((number, good_first));
            }
            set(&mut self.gd, index(number), gd);
            set(&mut self.rgd, index(number), rgd);
        }
        if lost > 0 {
            let what = format!("{lost} grain tables are nowhere: their entries are cleared");
            self.plan.note(what);
        }
        let (gd, rgd) = (self.disk.gd.clone(), self.disk.rgd.clone());
        // A directory that is given up is not written: what stands there is another's.
        self.write_directory(self.disk.header.gd_offset, &gd, &self.gd.clone());
        if !shared.rgd {
            self.write_directory(self.disk.header.rgd_offset, &rgd, &self.rgd.clone());
        }
        shared
    }

    /// Plans the change of a directory, sector by sector.
    fn write_directory(&mut self, sector: u64, old: &[u32], new: &[u32]) {
        let mut offset = sector.saturating_mul(SECTOR);
        for (old, new) in old.chunks(DIRECTORY_STEP).zip(new.chunks(DIRECTORY_STEP)) {
            self.write(offset, word_bytes(old), word_bytes(new));
            offset = offset.saturating_add(SECTOR);
        }
    }

    /// Gives tables and directories that are shared since step 1 copies of their own.
    pub(super) fn own_tables(&mut self, shared: &Shared) -> Result<()> {
        let (gd, rgd) = (self.gd.clone(), self.rgd.clone());
        let mut numbers: Vec<(u64, bool)> = shared.tables.iter().copied().collect();
        if shared.gd || shared.rgd {
            let all = (0u64..).zip(if shared.gd { &rgd } else { &gd });
            numbers = all
                .filter(|(_, sector)| **sector != 0)
                .map(|(number, _)| (number, shared.rgd))
                .collect();
        }
        for (number, redundant) in numbers {
            if !self.disk.is_table(self.disk.table_sector(number), number) {
                continue;
            }
            let whole = self.disk.header.table_sectors().saturating_mul(SECTOR);
            let sector = if let Some(table) = self.tables.get(&number) {
                let mut bytes = word_bytes(table);
                bytes.resize(index(whole), 0);
                self.append(bytes, SECTOR)?
            } else {
                let from = u64::from(self.disk.table_sector(number)).saturating_mul(SECTOR);
                let length = self.disk.header.entries_of(number).saturating_mul(4);
                self.append_copy(from, length, whole, SECTOR)?
            };
            let directory = if redundant {
                &mut self.rgd
            } else {
                &mut self.gd
            };
            set(directory, index(number), sector);
        }
        if shared.gd || shared.rgd {
            let directory = if shared.gd { &self.gd } else { &self.rgd };
            let bytes = word_bytes(directory);
            let sector = u64::from(self.append(bytes, SECTOR)?);
            self.fill();
            self.barrier = true;
            let (gd, rgd) = if shared.gd {
                (sector, self.header.rgd_offset)
            } else {
                (self.header.gd_offset, sector)
            };
            self.write_offsets(gd, rgd);
            return Ok(());
        }
        self.fill();
        self.barrier = true;
        self.write_directory(self.header.gd_offset, &gd, &self.gd.clone());
        self.write_directory(self.header.rgd_offset, &rgd, &self.rgd.clone());
        Ok(())
    }
}
