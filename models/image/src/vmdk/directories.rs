//! The two grain directories of a hosted sparse extent: which of them counts, and what their tables take up.

use super::claims::Spans;
use super::header::SECTOR;
use super::hosted::{Hosted, Layout};
use super::rules;
use crate::math::{index, len64};
use drylab_block::{Error, Result};
use std::ops::Range;

/// Directories of more tables than this are not searched for grains that lie in tables when single grains are read; a
/// check does it. It is the number of tables of 64 TiB.
const TABLES_WATCHED: u64 = 1 << 21;

/// Tables that are looked at to tell whether a directory leads to any.
const TABLES_SEEN: usize = 64;

/// A directory that lies on what follows it.
pub(super) struct Overrun {
    redundant: bool,
    start: u64,
    end: u64,
    /// What it lies on.
    on: String,
}

/// What stands where the entries of a directory lead to.
#[derive(Clone, Copy, Default)]
struct Tables {
    /// Tables that lead to grains.
    tables: u64,
    /// Sectors most of whose words cannot be entries.
    none: u64,
    /// Those in front of `overHead`, where all tables of a new disk are, and the others.
    in_front: u64,
    behind: u64,
}

impl Tables {
    fn are_all(self) -> bool {
        self.tables > 0 && self.none == 0
    }

    fn are_none(self) -> bool {
        self.tables == 0 && self.none > 0
    }

    fn are_in_front(self) -> bool {
        self.in_front > 0 && self.behind == 0
    }

    fn are_behind(self) -> bool {
        self.behind > 0 && self.in_front == 0
    }
}

impl Overrun {
    fn name(&self) -> &'static str {
        if self.redundant {
            "redundant grain directory"
        } else {
            "grain directory"
        }
    }

    fn span(&self) -> String {
        format!("sectors {} to {}", self.start, self.end.saturating_sub(1))
    }
}

impl std::fmt::Display for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the {}, {}, lies on {}",
            self.name(),
            self.span(),
            self.on
        )
    }
}

impl Hosted {
    /// Gives up a directory most of whose entries lead nowhere while the other's lead to tables: it is not where the header
    /// says, and what stands there is not to be changed. Of a directory that is kept, single entries are noted.
    pub(super) fn judge_directories(&mut self) -> Result<()> {
        self.judge_tables();
        let (active, bad_gd, bad_rgd) = self.count_entries()?;
        let most = |bad: u64| bad > 0 && bad.saturating_mul(2) >= active;
        let words = |bad: u64| format!("a directory {bad} of whose {active} entries lead nowhere");
        let expected = "the sector of a directory that leads to tables";
        if self.gd.is_empty() || self.rgd.is_empty() {
            // One was given up already.
        } else if most(bad_gd) {
            self.gd = Vec::new();
            let path = "header, gdOffset";
            self.findings
                .add(&rules::GD_RANGE, (56, 8), path, words(bad_gd), expected);
        } else if most(bad_rgd) {
            self.rgd = Vec::new();
            let path = "header, rgdOffset";
            self.findings
                .add(&rules::RGD_RANGE, (48, 8), path, words(bad_rgd), expected);
        }
        // What is the descriptor's may be more with a directory less.
        self.count_entries()?;
        self.note_directories();
        if let Some(overrun) = self.overrun() {
            let place = if overrun.redundant { (48, 8) } else { (56, 8) };
            let path = overrun.name();
            let found = format!("{}, over {}", overrun.span(), overrun.on);
            let expected = "sectors of its own";
            self.findings
                .add(&rules::GD_OVERLAP, place, path, found, expected);
        }
        Ok(())
    }

    /// Tables of which an entry says where they are, and those to which only the redundant directory leads, and only the
    /// primary one.
    fn count_entries(&self) -> Result<(u64, u64, u64)> {
        let (mut active, mut bad_gd, mut bad_rgd, mut lost) = (0u64, 0u64, 0u64, 0u64);
        for number in 0..self.entry_count() {
            let (first, second) = self.entries(number);
            if first == 0 && second == 0 {
                continue;
            }
            active = active.saturating_add(1);
            match (self.is_table(first, number), self.is_second(second, number)) {
                (true, true) => {}
                (true, false) => bad_rgd = bad_rgd.saturating_add(1),
                (false, true) => bad_gd = bad_gd.saturating_add(1),
                (false, false) => lost = lost.saturating_add(1),
            }
        }
        if active > 0 && lost == active {
            let (first, second) = self.entries(0);
            return Err(Error::corrupt(format_args!(
                "none of the {active} entries of the grain directory leads to a grain table (entry 0: sector {first}, in the redundant directory {second})"
            )));
        }
        Ok((active, bad_gd, bad_rgd))
    }

    /// Gives up the grain directory where it leads to sectors which hold anything but grain tables, while the redundant one
    /// leads to tables: words of grains or tables pass for entries, too, and any sector of the file for that of a table.
    /// Where a table in front of `overHead` is the same in both, nothing is in doubt but single tables.
    fn judge_tables(&mut self) {
        if self.gd.is_empty() || self.rgd.is_empty() {
            return;
        }
        let both = (0..self.entry_count()).filter(|number| {
            let (first, second) = self.entries(*number);
            first != 0 && second != 0 && first != second
        });
        let agree = |number| {
            let (first, second) = self.entries(number);
            let read = |sector| self.table_if_there(number, sector);
            let in_front = u64::from(first) < self.header.overhead;
            in_front && read(second).is_some_and(|theirs| Some(theirs) == read(first))
        };
        if both.take(TABLES_SEEN).any(agree) {
            return;
        }
        let theirs = self.tables_of(&self.rgd);
        if !theirs.are_all() && !theirs.are_in_front() {
            return;
        }
        let ours = self.tables_of(&self.gd);
        // Where one stands on a table of the other, that may be all it leads to, and where tables are says which is right.
        let start = self.header.gd_offset;
        let meet = self.rgd.iter().any(|sector| u64::from(*sector) == start);
        let behind = meet && ours.are_behind() && theirs.are_in_front() && !ours.are_all();
        if behind || (ours.are_none() && theirs.are_all()) {
            self.gd = Vec::new();
            let path = "header, gdOffset";
            let words = "a directory that leads to sectors which hold no grain tables";
            let expected =
                "the sector of a directory that leads to tables, as the redundant one does";
            self.findings
                .add(&rules::GD_RANGE, (56, 8), path, words, expected);
        }
    }

    /// The words at a sector to which an entry of a directory leads, if they are in the file.
    fn table_if_there(&self, number: u64, sector: u32) -> Option<Vec<u32>> {
        let entries = self.header.entries_of(number);
        let place = u64::from(sector).saturating_mul(SECTOR);
        let there = sector != 0 && self.holds(place, entries.saturating_mul(4));
        there.then(|| self.words_at(sector.into(), 0..entries).ok())?
    }

    /// What the first sectors hold to which a directory leads.
    fn tables_of(&self, directory: &[u32]) -> Tables {
        let mut found = Tables::default();
        let there = (0u64..).zip(directory);
        let there = there
            .filter_map(|(number, sector)| Some((*sector, self.table_if_there(number, *sector)?)));
        for (sector, table) in there.take(TABLES_SEEN) {
            let place = if u64::from(sector) < self.header.overhead {
                &mut found.in_front
            } else {
                &mut found.behind
            };
            *place = place.saturating_add(1);
            let used = table.iter().filter(|entry| **entry != 0);
            let (grains, others): (Vec<u32>, Vec<u32>) =
                used.copied().partition(|entry| self.leads_to_grain(*entry));
            // Of a table, one entry may be damaged.
            if others.len() > 1 && others.len() > grains.len() {
                found.none = found.none.saturating_add(1);
            } else if !grains.is_empty() {
                found.tables = found.tables.saturating_add(1);
            }
        }
        found
    }

    /// Whether a word can be the entry of a grain, as far as that can be told without the tables.
    fn leads_to_grain(&self, entry: u32) -> bool {
        let sector = u64::from(entry);
        let taken = self.fixed().iter().any(|span| span.contains(&sector));
        let zeros = entry == 1 && self.header.has_zeroed_grains();
        zeros || (self.holds(sector.saturating_mul(SECTOR), SECTOR) && !taken)
    }

    /// A directory in use that goes on over what follows it. Single entries that lead into a directory are wrong; where the
    /// directory would be whole without the sectors from there on, it may as well be too long.
    pub(super) fn overrun(&self) -> Option<Overrun> {
        let gd = (!self.gd.is_empty()).then_some((self.header.gd_offset, false));
        let rgd = (!self.rgd.is_empty()).then_some((self.header.rgd_offset, true));
        for (start, redundant) in [gd, rgd].into_iter().flatten() {
            let end = start.saturating_add(self.header.directory_sectors());
            let behind_first = |sector: u64| sector > start && sector < end;
            let other = if redundant { gd } else { rgd };
            let on = match other.filter(|(other, _)| behind_first(*other)) {
                Some((other, _)) => Some(format!("the other directory at sector {other}")),
                None => self
                    .table_within(start, end)
                    .map(|(number, sector)| format!("grain table {number} at sector {sector}")),
            };
            if let Some(on) = on {
                return Some(Overrun {
                    redundant,
                    start,
                    end,
                    on,
                });
            }
        }
        None
    }

    /// A table, and its sector, that would follow a directory if it had the entries in front of it and no more.
    fn table_within(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        if end.saturating_sub(start) < 2 {
            return None;
        }
        (0..self.entry_count()).find_map(|number| {
            let (first, second) = self.entries(number);
            let sectors = [first, second].map(u64::from);
            let sector = sectors.into_iter().find(|sector| {
                let entries = sector.saturating_sub(start).saturating_mul(SECTOR / 4);
                *sector < end && number < entries
            })?;
            Some((number, sector))
        })
    }

    /// Says that the header that counts announces a redundant directory and has no place for it.
    pub(super) fn note_redundant(&mut self) {
        if self.header.says_redundant() && self.header.rgd_offset == 0 {
            let place = (self.header_place().saturating_add(48), 8);
            let path = "header, rgdOffset";
            let expected = "the sector of the redundant directory that flag bit 1 announces";
            self.findings
                .add(&rules::RGD_RANGE, place, path, 0, expected);
        }
    }

    /// Entries of one directory that lead nowhere while the other's lead to a table, and those that both lack.
    fn note_directories(&mut self) {
        let mut findings = std::mem::take(&mut self.findings);
        for number in 0..len64(&self.gd).max(len64(&self.rgd)) {
            let (first, second) = self.entries(number);
            let good = (self.is_table(first, number), self.is_second(second, number));
            for (redundant, entry, is_good, other) in [
                (false, first, good.0, good.1),
                (true, second, good.1, good.0),
            ] {
                let kept = if redundant { &self.rgd } else { &self.gd };
                if kept.is_empty() || is_good || (entry == 0 && !other) {
                    continue;
                }
                let (name, start) = if redundant {
                    ("redundant grain directory", self.header.rgd_offset)
                } else {
                    ("grain directory", self.header.gd_offset)
                };
                let at = start.saturating_mul(SECTOR);
                let at = at.saturating_add(number.saturating_mul(4));
                let path = format!("{name}, entry {number}");
                let found = format!("sector {entry}");
                let (rule, expected) = if other {
                    let expected =
                        "the sector of a table of the disk; the other directory's is used";
                    (&rules::GT_RANGE, expected)
                } else {
                    (&rules::GT_LOST, "the sector of a table of the disk")
                };
                findings.add(rule, (at, 4), path, found, expected);
            }
        }
        self.findings = findings;
    }

    /// What grain table `number` and its redundant copy say: `None` where they are not two.
    pub(super) fn twins(&self, number: u64) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
        let (first, second) = self.entries(number);
        if first == second || !self.is_table(first, number) || !self.is_second(second, number) {
            return Ok(None);
        }
        let ours = self.raw_table(number, first)?;
        Ok(Some((ours, self.raw_table(number, second)?)))
    }

    /// Whether the redundant table says what the grain table says.
    pub(super) fn has_equal_twin(&self, number: u64) -> Result<bool> {
        Ok(self
            .twins(number)?
            .is_some_and(|(ours, theirs)| ours == theirs))
    }

    /// Whether the redundant table says something else.
    pub(super) fn has_other_twin(&self, number: u64) -> Result<bool> {
        Ok(self
            .twins(number)?
            .is_some_and(|(ours, theirs)| ours != theirs))
    }

    /// Whether a grain table has no grain and its redundant copy has some.
    pub(super) fn is_emptied(&self, number: u64) -> Result<bool> {
        let has = |table: &[u32]| {
            table
                .iter()
                .any(|entry| *entry != 0 && self.may_be_grain(*entry))
        };
        let twins = self.twins(number)?;
        Ok(twins.is_some_and(|(ours, theirs)| !has(&ours) && has(&theirs)))
    }

    /// Entries of the longer directory.
    fn entry_count(&self) -> u64 {
        len64(&self.gd).max(len64(&self.rgd))
    }

    /// How many tables neither directory leads to, and how many there should be.
    pub(super) fn lost_tables(&self) -> (u64, u64) {
        let (mut lost, mut active) = (0u64, 0u64);
        for number in 0..self.entry_count() {
            let (first, second) = self.entries(number);
            if first == 0 && second == 0 {
                continue;
            }
            active = active.saturating_add(1);
            if !self.is_table(first, number) && !self.is_second(second, number) {
                lost = lost.saturating_add(1);
            }
        }
        (lost, active)
    }

    /// Entry `number` of both directories; 0 of one that is not there.
    pub(super) fn entries(&self, number: u64) -> (u32, u32) {
        let entry = |directory: &[u32]| directory.get(index(number)).copied().unwrap_or(0);
        (entry(&self.gd), entry(&self.rgd))
    }

    /// Whether a grain table can be at that sector: inside the file, and not in header, descriptor or grain directory.
    pub(super) fn is_table(&self, sector: u32, number: u64) -> bool {
        let sector = u64::from(sector);
        let bytes = self.header.entries_of(number).saturating_mul(4);
        let end = sector.saturating_add(crate::math::div_up(bytes, SECTOR));
        sector != 0
            && self.holds(sector.saturating_mul(SECTOR), bytes)
            && !self
                .fixed()
                .iter()
                .chain([&self.footer_span()])
                .any(|span| span.start < end && sector < span.end)
    }

    /// Sectors of the footer and of the marker in front of it.
    pub(super) fn footer_span(&self) -> Range<u64> {
        let Layout::Footer(place) = self.layout else {
            return 0..0;
        };
        let behind = crate::math::div(place, SECTOR).saturating_add(1);
        behind.saturating_sub(2)..behind
    }

    /// Whether a redundant grain table can be there: as [`is_table`](Self::is_table), nor in its own directory.
    pub(super) fn is_second(&self, sector: u32, number: u64) -> bool {
        let own = self.rgd_span();
        let bytes = self.header.entries_of(number).saturating_mul(4);
        let end = u64::from(sector).saturating_add(crate::math::div_up(bytes, SECTOR));
        self.is_table(sector, number) && !(own.start < end && u64::from(sector) < own.end)
    }

    /// Sectors of header, descriptor and grain directory: of the redundant one when it is the only one.
    pub(super) fn fixed(&self) -> [Range<u64>; 3] {
        let span = |start: u64, sectors: u64| start..start.saturating_add(sectors);
        let directory = if self.gd.is_empty() {
            self.rgd_span()
        } else {
            span(self.header.gd_offset, self.header.directory_sectors())
        };
        [0..1, self.descriptor_span(), directory]
    }

    /// Behind the area of the descriptor, which ends at `overHead`; in a stream only where that can be a marker's place.
    pub(super) fn area_end(&self) -> Result<u64> {
        let front = &self.front;
        let start = front.descriptor_offset;
        let end = start.saturating_add(front.descriptor_size);
        if front.overhead <= start || front.overhead >= end {
            return Ok(end);
        }
        let ends = !front.has_markers() || self.starts_stream(front.overhead)?;
        Ok(if ends { front.overhead } else { end })
    }

    /// Sectors of the descriptor: an area that reaches over a directory ends there.
    pub(super) fn descriptor_span(&self) -> Range<u64> {
        let start = self.front.descriptor_offset;
        let directories = [
            (&self.gd, self.header.gd_offset),
            (&self.rgd, self.header.rgd_offset),
        ];
        let behind = directories
            .into_iter()
            .filter(|(directory, sector)| !directory.is_empty() && *sector > start)
            .map(|(_, sector)| sector);
        start..behind.fold(self.area_end, u64::min)
    }

    /// Sectors of the redundant grain directory: none where there is none, whatever the header has for its place.
    pub(super) fn rgd_span(&self) -> Range<u64> {
        if self.rgd.is_empty() {
            return 0..0;
        }
        let start = self.header.rgd_offset;
        start..start.saturating_add(self.header.directory_sectors())
    }

    /// The sector of grain table `number`: of the primary one where that can be, else of the redundant one; 0 without any.
    pub(super) fn table_sector(&self, number: u64) -> u32 {
        let (primary, second) = self.entries(number);
        if !self.is_table(primary, number) && self.is_second(second, number) {
            second
        } else {
            primary
        }
    }

    pub(super) fn spans(&self) -> &Spans {
        self.spans.get_or_init(|| {
            let mut ranges = self.fixed().to_vec();
            ranges.push(self.footer_span());
            let count = len64(&self.gd).max(len64(&self.rgd));
            if count <= TABLES_WATCHED {
                ranges.extend((0..count).filter_map(|number| {
                    let sector = self.table_sector(number);
                    self.is_table(sector, number)
                        .then(|| self.table_span(sector, number))
                }));
            }
            Spans::of(ranges)
        })
    }

    /// Sectors of the redundant directory and of its tables, without those that are in use.
    pub(super) fn second_spans(&self) -> Spans {
        if self.gd.is_empty() {
            return Spans::default();
        }
        let mut ranges = vec![self.rgd_span()];
        for (number, sector) in (0u64..).zip(self.rgd.iter().copied()) {
            if self.is_second(sector, number) && sector != self.table_sector(number) {
                ranges.push(self.table_span(sector, number));
            }
        }
        Spans::of(ranges)
    }

    /// Sectors of a grain table.
    pub(super) fn table_span(&self, sector: u32, number: u64) -> Range<u64> {
        let bytes = self.header.entries_of(number).saturating_mul(4);
        let start = u64::from(sector);
        start..start.saturating_add(crate::math::div_up(bytes, SECTOR))
    }
}
