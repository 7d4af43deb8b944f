//! The whole structure of a hosted sparse extent: every table, every grain, every marker.
//!
//! Memory: the directories, one word for each table, and the bitmaps of [`Claims`]. Reads: every table once for each
//! window of the file (128 GiB by default), once more to compare it with its twin, and twice more where tables stand
//! among grains; every compressed grain once, and for streams a sector and 16 bytes for every marker. Of tables at one
//! sector only the first is read.

use super::claims::{Claim, Claims, Spans};
use super::header::SECTOR;
use super::hosted::{Hosted, Layout};
use super::rules;
use crate::finding::{Findings, Rule};
use crate::map::Units;
use crate::math::{div_up, index};
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
    /// Named by another table, too, that lies on this one.
    Shared,
    /// On a table of which it cannot be told whether it is one.
    Table,
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

/// What became of one entry of a grain table.
pub(super) enum Look {
    /// There is nothing to say of it, or in another window.
    Nothing,
    /// It leads to a grain of its own.
    Sound,
    /// It does not.
    Bad(What),
}

impl Look {
    fn bad(self) -> Option<What> {
        match self {
            Self::Bad(what) => Some(what),
            Self::Nothing | Self::Sound => None,
        }
    }
}

/// Compressed grains of which is kept that they do not unpack.
const BROKEN_MAX: usize = 1 << 16;

/// What a survey found beside faults.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Sectors of compressed grains that do not unpack: an entry that shares one of them cannot get a copy.
    broken: BTreeSet<u64>,
    /// The first sector of any grain.
    pub(super) first: Option<u64>,
    /// Grains that have sectors of their own.
    pub(super) grains: u64,
    /// Behind the last sector of any grain or table.
    pub(super) end: u64,
    /// Tables that share sectors with others, or with grains: nothing is written to them, and of their entries only is said
    /// which of them share a grain, as it cannot be told whose they are.
    pub(super) shared: BTreeSet<u64>,
    /// Sectors of those of them that lie on grains.
    pub(super) doubted: Spans,
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
        // Also what an area is said to have that reaches over `overHead`: no stream is cut in it.
        let area = self.front.descriptor_offset;
        let area = area.saturating_add(self.front.descriptor_size);
        let behind = self.footer_span().end.max(area);
        survey.end = ends.into_iter().fold(behind, u64::max);
        let same = self.survey_tables(&mut survey, see)?;
        self.compare_tables(&survey, see)?;
        let sectors = div_up(self.source.len(), SECTOR);
        let second = self.second_spans();
        for window in Claims::windows(sectors, &self.limits) {
            let mut claims = Claims::new(window.clone());
            // Tables in doubt claim last, so that no other loses a grain to them.
            for in_doubt in [false, true] {
                for number in self.numbers() {
                    if survey.shared.contains(&number) != in_doubt || same.hidden.contains(&number)
                    {
                        continue;
                    }
                    let Some(entries) = self.effective_if_readable(number)? else {
                        continue;
                    };
                    for (at, value) in (0u64..).zip(entries) {
                        let place = (number, at, value);
                        let look = self.look(place, &window, &second, &mut claims, &mut survey)?;
                        let what = if in_doubt {
                            same.shared(number, look)
                        } else {
                            look.bad()
                        };
                        if let Some(what) = what {
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
        }
        Ok(survey)
    }

    /// Numbers of the tables that exist.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let mut next = self.next_table(0);
        std::iter::from_fn(move || {
            let number = next;
            next = self.next_table(number.saturating_add(1));
            (number < self.header.tables()).then_some(number)
        })
    }

    /// A table as it counts, `None` also where a finding of opening says that it cannot be read.
    pub(super) fn effective_if_readable(&self, number: u64) -> Result<Option<Vec<u32>>> {
        if self.layout != Layout::Markers && !self.is_table(self.table_sector(number), number) {
            return Ok(None);
        }
        self.effective_table(number)
    }

    /// What is wrong with one entry; each is answered in the window that holds its sector, or in the first.
    fn look(
        &self,
        (number, at, value): (u64, u64, u32),
        window: &Range<u64>,
        second: &Spans,
        claims: &mut Claims,
        survey: &mut Survey,
    ) -> Result<Look> {
        if value == 0 || (value == 1 && self.header.has_zeroed_grains()) {
            return Ok(Look::Nothing);
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
        let here = |is_here: bool, look: Look| Ok(if is_here { look } else { Look::Nothing });
        let is_first = window.start == 0;
        if !self.holds(place, needed) {
            return here(is_first, Look::Bad(What::Range));
        }
        let span = sector..sector.saturating_add(div_up(needed, SECTOR));
        if self.in_metadata(value, needed) {
            let in_doubt = survey.doubted.meet(&span);
            let what = if in_doubt {
                What::Table
            } else {
                What::Metadata
            };
            return here(is_first, Look::Bad(what));
        }
        survey.second_hit |= second.meet(&span);
        let most = div_up(self.header.packed_most(), SECTOR);
        if sector >= window.end || sector.saturating_add(most) < window.start {
            return Ok(Look::Nothing);
        }
        let (length, marker) = self.length_of(unit, place, needed)?;
        if let Some(what) = marker {
            // The sectors are another's, who claims them.
            return here(window.contains(&sector), Look::Bad(what));
        }
        let end = sector.saturating_add(div_up(length, SECTOR));
        let claim = claims.claim(sector..end);
        if !window.contains(&sector) {
            return Ok(Look::Nothing);
        }
        if !survey.shared.contains(&number) {
            survey.first = Some(survey.first.map_or(sector, |first| first.min(sector)));
        }
        survey.end = survey.end.max(end);
        if claim == Claim::Fresh {
            survey.grains = survey.grains.saturating_add(1);
        }
        Ok(match claim {
            // The last grain may need less of the same bytes.
            Claim::Alias
                if survey.broken.contains(&sector)
                    && (self.bytes_needed(unit) == self.unit_bytes()
                        || self.unpack_grain(unit, value).is_err()) =>
            {
                Look::Bad(What::Packed(
                    "it is another grain's, which does not, either".to_owned(),
                ))
            }
            Claim::Alias => Look::Bad(What::Alias),
            Claim::Overlap => Look::Bad(What::Overlap),
            Claim::Fresh if self.header.compressed() => match self.unpack_grain(unit, value) {
                Ok(_) => Look::Sound,
                Err(error) => {
                    if survey.broken.len() < BROKEN_MAX {
                        survey.broken.insert(sector);
                    }
                    Look::Bad(What::Packed(error.to_string()))
                }
            },
            Claim::Fresh => Look::Sound,
        })
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
        } else if size > self.header.packed_most() {
            format!("of {size} bytes, more than {}", self.header.packed_most())
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
        What::Shared => (
            &rules::GRAIN_SHARED,
            ", to which another table leads, too".to_owned(),
            "a grain of its own",
        ),
        What::Table => (
            &rules::GT_OVERLAP,
            ", inside a grain table that may be none".to_owned(),
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
