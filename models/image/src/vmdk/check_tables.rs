//! Grain tables on each other, on grains, and against their redundant copies.

use super::check::{Fault, Look, Survey, What};
use super::claims::Spans;
use super::header::SECTOR;
use super::hosted::Hosted;
use crate::map::Units;
use crate::math::{div_up, len64};
use drylab_block::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Tables that start at one sector.
#[derive(Default)]
pub(super) struct Same {
    /// Those of them that need not be read: the first at the sector shows all entries.
    pub(super) hidden: BTreeSet<u64>,
    /// The first ones, where grains can be read through all of them.
    first: BTreeSet<u64>,
}

impl Same {
    /// What is said of an entry of a table in doubt: whether it shares its grain, and no more.
    pub(super) fn shared(&self, number: u64, look: Look) -> Option<What> {
        let shared = match look {
            Look::Bad(What::Alias | What::Overlap) => true,
            Look::Sound => self.first.contains(&number),
            Look::Nothing | Look::Bad(_) => false,
        };
        shared.then_some(What::Shared)
    }
}

impl Hosted {
    /// Finds tables on each other and on grains; the result is those that start where another does.
    pub(super) fn survey_tables(
        &self,
        survey: &mut Survey,
        see: &mut dyn FnMut(Fault) -> Result<()>,
    ) -> Result<Same> {
        let count = len64(&self.gd).max(len64(&self.rgd));
        let name = "the list of grain tables";
        self.limits.check_table(name, count.saturating_mul(16))?;
        let mut placed = Vec::new();
        for number in 0..count {
            let sector = self.table_sector(number);
            if self.is_table(sector, number) {
                placed.push((sector, number));
            }
        }
        placed.sort_unstable();
        let mut same = Same::default();
        let mut last: Option<(u64, u64)> = None;
        // The first table at the last sector where one starts.
        let mut head = (0u32, 0u64);
        for (sector, number) in placed.iter().copied() {
            let span = self.table_span(sector, number);
            survey.end = survey.end.max(span.end);
            if let Some((other, behind)) = last
                && span.start < behind
            {
                survey.shared.insert(other);
                survey.shared.insert(number);
                if head.0 == sector {
                    same.hidden.insert(number);
                    if !self.header.has_markers() {
                        same.first.insert(head.1);
                    }
                }
                see(Fault::TableOverlap {
                    table: number,
                    redundant: self.gd.is_empty(),
                    sector,
                })?;
            }
            if last.is_none_or(|(_, behind)| span.end >= behind) {
                last = Some((number, span.end));
            }
            if head.0 != sector {
                head = (sector, number);
            }
        }
        let on_grains = if self.header.has_markers() {
            self.on_grains(&placed)?
        } else {
            self.under_grains(&placed, &same)?
        };
        let spans = on_grains.iter();
        let spans = spans.map(|(sector, number)| self.table_span(*sector, *number));
        survey.doubted = Spans::of(spans.collect());
        for (sector, number) in on_grains {
            if survey.shared.insert(number) {
                see(Fault::TableOverlap {
                    table: number,
                    redundant: self.gd.is_empty(),
                    sector,
                })?;
            }
        }
        self.survey_second(survey)?;
        Ok(same)
    }

    /// Those of some tables, in the order of their sectors, that lie behind `overHead`, where grains are, and on a grain of
    /// another table or of a redundant one. Either may be where it should not be, unless the redundant table says what this
    /// one says.
    fn under_grains(&self, placed: &[(u32, u64)], same: &Same) -> Result<Vec<(u32, u64)>> {
        let mut late = BTreeMap::new();
        for (sector, number) in placed.iter().copied() {
            let span = self.table_span(sector, number);
            let is_late = span.end > self.header.overhead && !same.hidden.contains(&number);
            if is_late && !self.has_equal_twin(number)? {
                late.insert(span.start, (sector, number));
            }
        }
        let all: Vec<u64> = late.values().map(|(_, number)| *number).collect();
        let mut found = Vec::new();
        for number in self.numbers() {
            if late.is_empty() || same.hidden.contains(&number) {
                continue;
            }
            let entries = self.effective_if_readable(number)?.unwrap_or_default();
            self.take_hit((number, &entries), Some(number), &mut late, &mut found);
        }
        for number in all {
            // Its redundant table may lead to the grain that it lies on.
            if let Some((_, theirs)) = self.twins(number)? {
                self.take_hit((number, &theirs), None, &mut late, &mut found);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Takes from some tables by their sectors those on which a grain of a table lies, but for one of them.
    fn take_hit(
        &self,
        (number, entries): (u64, &[u32]),
        exempt: Option<u64>,
        late: &mut BTreeMap<u64, (u32, u64)>,
        found: &mut Vec<(u32, u64)>,
    ) {
        let before = self.header.table_sectors().saturating_sub(1);
        let first = number.saturating_mul(self.units_per_table());
        for (at, value) in (0u64..).zip(entries) {
            let grain = self.sectors_of(first.saturating_add(at), *value);
            let near = late.range(grain.start.saturating_sub(before)..grain.end);
            let hit = near.filter(|(_, (sector, other))| {
                exempt != Some(*other) && self.table_span(*sector, *other).end > grain.start
            });
            let hit: Vec<u64> = hit.map(|(start, _)| *start).collect();
            found.extend(hit.iter().filter_map(|start| late.remove(start)));
        }
    }

    /// Sectors of the grain to which an entry leads; none where it leads to none.
    fn sectors_of(&self, unit: u64, value: u32) -> Range<u64> {
        let start = u64::from(value);
        let needed = if self.header.compressed() {
            1
        } else {
            self.bytes_needed(unit)
        };
        let zeros = value == 0 || (value == 1 && self.header.has_zeroed_grains());
        if zeros || !self.holds(start.saturating_mul(SECTOR), needed) {
            return 0..0;
        }
        start..start.saturating_add(div_up(needed, SECTOR))
    }

    /// Finds tables of the redundant directory on each other and on those in use.
    fn survey_second(&self, survey: &mut Survey) -> Result<()> {
        if self.gd.is_empty() {
            return Ok(());
        }
        let mut placed: Vec<(u32, u64)> = Vec::new();
        for (number, sector) in (0u64..).zip(self.rgd.iter().copied()) {
            if self.is_second(sector, number) && sector != self.table_sector(number) {
                placed.push((sector, number));
            }
        }
        placed.sort_unstable();
        let (mut end, own) = (0u64, self.rgd_span());
        for (sector, number) in placed {
            let span = self.table_span(sector, number);
            survey.end = survey.end.max(span.end);
            let bytes = self.header.entries_of(number).saturating_mul(4);
            survey.second_hit |= span.start < end || self.in_metadata(sector, bytes);
            end = end.max(span.end);
        }
        if let Ok(start) = u32::try_from(own.start) {
            let bytes = own.end.saturating_sub(own.start).saturating_mul(SECTOR);
            survey.second_hit |= !own.is_empty() && self.in_metadata(start, bytes);
        }
        survey.end = survey.end.max(own.end);
        Ok(())
    }

    pub(super) fn compare_tables(
        &self,
        survey: &Survey,
        see: &mut dyn FnMut(Fault) -> Result<()>,
    ) -> Result<()> {
        // One directory in the place of both is said as a whole.
        if self.header.gd_offset == self.header.rgd_offset {
            return Ok(());
        }
        let (mut hole, mut other) = (0..0, 0..0);
        for (number, (first, second)) in (0u64..).zip(self.gd.iter().zip(&self.rgd)) {
            if !self.is_table(*first, number)
                || !self.is_second(*second, number)
                || survey.shared.contains(&number)
            {
                continue;
            }
            if first == second {
                see(Fault::TableShared {
                    table: number,
                    sector: *first,
                })?;
                continue;
            }
            if self.is_hole(number, *first, &mut hole) && self.is_hole(number, *second, &mut other)
            {
                continue;
            }
            let (ours, theirs) = (
                self.raw_table(number, *first)?,
                self.raw_table(number, *second)?,
            );
            let differs = |(_, (ours, theirs)): &(u64, (&u32, &u32))| ours != theirs;
            let mut places = (0u64..).zip(ours.iter().zip(&theirs)).filter(differs);
            if let Some((start, _)) = places.next() {
                let last = places.last().map_or(start, |(at, _)| at);
                see(Fault::TablesDiffer {
                    table: number,
                    entries: start..last.saturating_add(1),
                })?;
            }
        }
        Ok(())
    }
}
