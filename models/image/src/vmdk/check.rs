//! The whole structure of a hosted sparse extent: every table, every grain, every marker.
//!
//! Memory: the directories, one word for each table, and the bitmaps of [`Claims`]. Reads: every table once for each
//! window of the file (128 GiB by default) and once more to compare it with its twin, every compressed grain once, and
//! for streams a sector and 16 bytes for every marker.

use super::claims::{Claim, Claims, Spans};
use super::header::SECTOR;
use super::hosted::{Hosted, Layout};
use super::rules;
use crate::finding::{Findings, Rule};
use crate::map::Units;
use crate::math::{div_up, index, len64};
use drylab_block::{ReadAt, Result};
use std::collections::BTreeSet;
use std::ops::Range;

/// What is wrong with one entry of a grain table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Outside the file.
    Range,
    /// Among tables and headers.
    Metadata,
    /// At the sector of another grain.
    Alias,
    /// On some sectors of another grain.
    Overlap,
    /// The marker there is another's.
    Marker(String),
    /// The bytes there do not unpack.
    Packed(String),
}

/// One thing found in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A table lies on another one, or on a grain of a stream.
    TableOverlap {
        table: u64,
        redundant: bool,
        sector: u32,
    },
    /// Both directories name the table at this sector: its redundant copy is itself.
    TableShared { table: u64, sector: u32 },
    /// The two copies of a table differ in these entries, and between them.
    TablesDiffer { table: u64, entries: Range<u64> },
    /// An entry of a table.
    Grain {
        table: u64,
        entry: u64,
        value: u32,
        what: What,
    },
}

/// What a survey found beside faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// The first sector of any grain.
    pub(super) first: Option<u64>,
    /// Behind the last sector of any grain or table.
    pub(super) end: u64,
    /// Tables that share sectors with others: nothing is written to them, and of their entries nothing is said, as it
    /// cannot be told whose they are.
    pub(super) shared: BTreeSet<u64>,
    /// Whether the redundant directory or its tables lie on anything else: nothing is written to them.
    pub(super) second_hit: bool,
}

impl Hosted {
    /// Looks at everything that opening did not look at.
    pub(super) fn check(&self, found: &mut Findings) -> Result<()> {
        let survey = self.survey(&mut |fault| {
            self.say(&fault, found);
            Ok(())
        })?;
        self.check_overhead(&survey, found);
        if survey.second_hit {
            let path = "header, rgdOffset";
            let what = format!(
                "sector {}, on tables or grains in use",
                self.header.rgd_offset
            );
            let expected = "a directory and tables with sectors of their own";
            found.add(&rules::RGD_OVERLAP, (48, 8), path, what, expected);
        }
        if self.header.has_markers() {
            self.check_stream(&survey, found)?;
        }
        Ok(())
    }

    fn say(&self, fault: &Fault, found: &mut Findings) {
        match fault {
            Fault::TableOverlap {
                table,
                redundant,
                sector,
            } => {
                let (name, start) = if *redundant {
                    ("redundant grain directory", self.header.rgd_offset)
                } else {
                    ("grain directory", self.header.gd_offset)
                };
                let at = start.saturating_mul(SECTOR);
                let at = at.saturating_add(table.saturating_mul(4));
                let path = format!("{name}, entry {table}");
                let what = format!("sector {sector}, where another table or a grain is");
                let expected = "sectors of its own";
                found.add(&rules::GT_OVERLAP, (at, 4), path, what, expected);
            }
            Fault::TableShared { table, sector } => {
                let at = self.header.rgd_offset.saturating_mul(SECTOR);
                let at = at.saturating_add(table.saturating_mul(4));
                let path = format!("redundant grain directory, entry {table}");
                let what = format!("sector {sector}, where the grain directory's table is");
                let expected = "the sector of a copy of the table";
                found.add(&rules::GT_SHARED, (at, 4), path, what, expected);
            }
            Fault::TablesDiffer { table, entries } => {
                let sector = self.rgd.get(index(*table)).copied().unwrap_or(0);
                let at = u64::from(sector).saturating_mul(SECTOR);
                let at = at.saturating_add(entries.start.saturating_mul(4));
                let count = entries.end.saturating_sub(entries.start);
                let length = count.saturating_mul(4);
                let path = format!("redundant grain table {table}");
                let what = format!("different in {count} entries from {} on", entries.start);
                let expected = "what the grain table says";
                found.add(&rules::GT_DIFFERS, (at, length), path, what, expected);
            }
            Fault::Grain {
                table,
                entry,
                value,
                what,
            } => {
                let sector = u64::from(self.table_sector(*table)).saturating_mul(SECTOR);
                let at = sector.saturating_add(entry.saturating_mul(4));
                let path = format!("grain table {table}, entry {entry}");
                let (rule, words, expected) = match what {
                    // Each finds its own bytes by its marker.
                    What::Overlap if self.header.has_markers() => (
                        &rules::STREAM_MARKER,
                        ", inside another grain".to_owned(),
                        "a grain behind the last",
                    ),
                    _ => grain_words(what),
                };
                let text = format!("sector {value}{words}");
                found.add(rule, (at, 4), path, text, expected);
            }
        }
    }

    /// Visits every table and every grain, and hands out what is wrong with them in a fixed order.
    pub(super) fn survey(&self, see: &mut dyn FnMut(Fault) -> Result<()>) -> Result<Survey> {
        let mut survey = Survey::default();
        let ends = self.fixed().map(|span| span.end);
        survey.end = ends.into_iter().fold(self.footer_span().end, u64::max);
        let hidden = self.survey_tables(&mut survey, see)?;
        self.compare_tables(&survey, see)?;
        let sectors = div_up(self.source.len(), SECTOR);
        let second = self.second_spans();
        for window in Claims::windows(sectors, &self.limits) {
            let mut claims = Claims::new(window.clone());
            for number in self.numbers() {
                if hidden.contains(&number) {
                    continue;
                }
                let Some(entries) = self.effective_if_readable(number)? else {
                    continue;
                };
                for (at, value) in (0u64..).zip(entries) {
                    let place = (number, at, value);
                    let what = self.look(place, &window, &second, &mut claims, &mut survey)?;
                    if let Some(what) = what
                        && !survey.shared.contains(&number)
                    {
                        see(Fault::Grain {
                            table: number,
                            entry: at,
                            value,
                            what,
                        })?;
                    }
                }
            }
        }
        Ok(survey)
    }

    /// Numbers of the tables that exist.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let mut next = self.next_table(0);
        std::iter::from_fn(move || {
            let number = next;
            next = self.next_table(number.saturating_add(1));
            (number < self.header.tables()).then_some(number)
        })
    }

    /// A table as it counts, `None` also where a finding of opening says that it cannot be read.
    fn effective_if_readable(&self, number: u64) -> Result<Option<Vec<u32>>> {
        if self.layout != Layout::Markers && !self.is_table(self.table_sector(number), number) {
            return Ok(None);
        }
        self.effective_table(number)
    }

    /// Finds tables on each other; the result is those whose entries another table has shown already.
    fn survey_tables(
        &self,
        survey: &mut Survey,
        see: &mut dyn FnMut(Fault) -> Result<()>,
    ) -> Result<BTreeSet<u64>> {
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
        let mut hidden = BTreeSet::new();
        let mut last: Option<(u64, u64)> = None;
        for (sector, number) in placed.iter().copied() {
            let span = self.table_span(sector, number);
            survey.end = survey.end.max(span.end);
            if let Some((other, behind)) = last
                && span.start < behind
            {
                survey.shared.insert(other);
                survey.shared.insert(number);
                hidden.insert(number);
                see(Fault::TableOverlap {
                    table: number,
                    redundant: self.gd.is_empty(),
                    sector,
                })?;
            }
            if last.is_none_or(|(_, behind)| span.end >= behind) {
                last = Some((number, span.end));
            }
        }
        if self.header.has_markers() {
            for (sector, number) in self.on_grains(&placed)? {
                if survey.shared.insert(number) {
                    see(Fault::TableOverlap {
                        table: number,
                        redundant: self.gd.is_empty(),
                        sector,
                    })?;
                }
            }
        }
        self.survey_second(survey)?;
        Ok(hidden)
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

    fn compare_tables(
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

    /// What is wrong with one entry; each is answered in the window that holds its sector, or in the first.
    fn look(
        &self,
        (number, at, value): (u64, u64, u32),
        window: &Range<u64>,
        second: &Spans,
        claims: &mut Claims,
        survey: &mut Survey,
    ) -> Result<Option<What>> {
        if value == 0 || (value == 1 && self.header.has_zeroed_grains()) {
            return Ok(None);
        }
        let unit = number
            .saturating_mul(self.units_per_table())
            .saturating_add(at);
        let needed = if self.header.compressed() {
            1
        } else {
            self.bytes_needed(unit)
        };
        let sector = u64::from(value);
        let place = sector.saturating_mul(SECTOR);
        let answer = |what: What| Ok((window.start == 0).then_some(what));
        if !self.holds(place, needed) {
            return answer(What::Range);
        }
        if self.in_metadata(value, needed) {
            return answer(What::Metadata);
        }
        let sectors = div_up(needed, SECTOR);
        survey.second_hit |= second.meet(&(sector..sector.saturating_add(sectors)));
        let most = div_up(self.packed_most(), SECTOR);
        if sector >= window.end || sector.saturating_add(most) < window.start {
            return Ok(None);
        }
        let (length, marker) = self.length_of(unit, place, needed)?;
        if marker.is_some() {
            // The sectors are another's, who claims them.
            return Ok(marker.filter(|_| window.contains(&sector)));
        }
        let end = sector.saturating_add(div_up(length, SECTOR));
        let claim = claims.claim(sector..end);
        if !window.contains(&sector) {
            return Ok(None);
        }
        survey.first = Some(survey.first.map_or(sector, |first| first.min(sector)));
        survey.end = survey.end.max(end);
        match claim {
            Claim::Alias => Ok(Some(What::Alias)),
            Claim::Overlap => Ok(Some(What::Overlap)),
            Claim::Fresh if self.header.compressed() => {
                let failed = self.unpack_grain(unit, value).err();
                Ok(failed.map(|error| What::Packed(error.to_string())))
            }
            Claim::Fresh => Ok(None),
        }
    }

    /// Bytes that a grain takes in the file, and what is wrong with its marker.
    fn length_of(&self, unit: u64, place: u64, needed: u64) -> Result<(u64, Option<What>)> {
        if !self.header.compressed() {
            return Ok((needed, None));
        }
        if !self.header.has_markers() {
            return Ok((1, None));
        }
        if !self.holds(place, 12) {
            let what = What::Marker("cut off by the end of the file".to_owned());
            return Ok((1, Some(what)));
        }
        let (lba, size) = self.marker(place)?;
        let expected = unit.saturating_mul(self.header.grain);
        let length = size.saturating_add(12);
        let what = if lba != expected {
            format!("that of guest sector {lba}, not {expected}")
        } else if size == 0 {
            "that of no grain".to_owned()
        } else if size > self.packed_most() {
            format!("of {size} bytes, more than {}", self.packed_most())
        } else if !self.holds(place, length) {
            format!("of {size} bytes, past the end of the file")
        } else {
            return Ok((length, None));
        };
        Ok((1, Some(What::Marker(what))))
    }

    /// Whether the marker at a sector is that of a grain, and whole.
    pub(super) fn is_own(&self, unit: u64, sector: u32) -> Result<bool> {
        let place = u64::from(sector).saturating_mul(SECTOR);
        Ok(self.length_of(unit, place, 1)?.1.is_none())
    }

    fn check_overhead(&self, survey: &Survey, found: &mut Findings) {
        let overhead = self.header.overhead;
        let place = (self.header_place().saturating_add(64), 8);
        let path = "header, overHead";
        let Some(first) = survey.first else { return };
        if self.layout == Layout::Front && overhead > first {
            let expected = format!("at most {first}, where the first grain is");
            found.add(&rules::OVERHEAD, place, path, overhead, expected);
        }
    }

    /// First byte of the header that counts.
    pub(super) fn header_place(&self) -> u64 {
        match self.layout {
            Layout::Footer(place) => place,
            Layout::Front | Layout::Markers => 0,
        }
    }
}

fn grain_words(what: &What) -> (&'static Rule, String, &'static str) {
    match what {
        What::Range => (
            &rules::GRAIN_RANGE,
            ", past the end of the file".to_owned(),
            "a grain inside the file",
        ),
        What::Metadata => (
            &rules::GRAIN_IN_METADATA,
            ", inside the metadata".to_owned(),
            "a grain behind it",
        ),
        What::Alias => (
            &rules::GRAIN_ALIAS,
            ", another grain's".to_owned(),
            "a grain of its own",
        ),
        What::Overlap => (
            &rules::GRAIN_OVERLAP,
            ", inside another grain".to_owned(),
            "a grain of its own",
        ),
        What::Marker(marker) => (
            &rules::GRAIN_MARKER,
            format!(", whose marker is {marker}"),
            "the grain's own marker",
        ),
        What::Packed(error) => (
            &rules::GRAIN_PACKED,
            format!(", which does not unpack ({error})"),
            "a deflate stream of the grain",
        ),
    }
}
