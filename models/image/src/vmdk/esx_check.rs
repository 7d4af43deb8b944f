//! The whole structure of the sparse extents of ESX: every table and every grain.

use super::claims::{Claim, Claims, Spans};
use super::esx::{Entry, Esx};
use super::header::SECTOR;
use super::rules;
use crate::finding::{Findings, Rule};
use crate::map::Units;
use crate::math::div_up;
use drylab_block::{ReadAt, Result};
use std::ops::Range;

impl Esx {
    /// Looks at every table and at who uses which sectors.
    pub(super) fn check(&self, found: &mut Findings) -> Result<()> {
        let mut tables: Vec<(u64, u64)> = (0u64..)
            .zip(&self.directory)
            .filter(|(number, sector)| **sector != 0 && self.is_table(**sector, *number))
            .map(|(number, sector)| (*sector, number))
            .collect();
        tables.sort_unstable();
        let mut walked = Vec::new();
        let mut end = 0u64;
        for (sector, number) in tables {
            let span = self.table_span(sector, number);
            if span.start < end {
                let width = self.kind.width();
                let at = self.directory_sector.saturating_mul(SECTOR);
                let at = at.saturating_add(number.saturating_mul(width));
                let path = format!("grain table {number}");
                let what = format!("at sector {sector}, where another table is");
                let expected = "sectors of its own";
                found.add(&rules::GT_OVERLAP, (at, width), path, what, expected);
            } else {
                walked.push((number, sector));
            }
            end = end.max(span.end);
        }
        let spans = walked
            .iter()
            .map(|(number, sector)| self.table_span(*sector, *number));
        let metadata = Spans::of(spans.collect());
        walked.sort_unstable();
        let sectors = div_up(self.source.len(), SECTOR);
        for window in Claims::windows(sectors, &self.limits) {
            let mut claims = Claims::new(window.clone());
            for (number, sector) in &walked {
                let table = self.read_table(*number, *sector)?;
                for (at, entry) in (0u64..).zip(&table) {
                    self.check_entry(
                        (*number, *sector, at),
                        *entry,
                        &window,
                        &metadata,
                        &mut claims,
                        found,
                    );
                }
            }
        }
        Ok(())
    }

    fn check_entry(
        &self,
        (number, table, at): (u64, u64, u64),
        entry: Entry,
        window: &Range<u64>,
        metadata: &Spans,
        claims: &mut Claims,
        found: &mut Findings,
    ) {
        let width = self.kind.width();
        let place = table
            .saturating_mul(SECTOR)
            .saturating_add(at.saturating_mul(width));
        let mut say = |rule: &'static Rule, what: String, expected: &str| {
            let path = format!("grain table {number}, entry {at}");
            found.add(rule, (place, width), path, what, expected);
        };
        let unit = number.saturating_mul(self.entries).saturating_add(at);
        let needed = self.bytes_needed(unit);
        let first_window = window.start == 0;
        match entry {
            Entry::None | Entry::Zero => {}
            Entry::Wrong(value) if first_window => {
                say(
                    &rules::GRAIN_RANGE,
                    format!("{value:#x}"),
                    "a known kind of entry",
                );
            }
            Entry::Wrong(_) => {}
            Entry::At(sector) => {
                let span = sector..sector.saturating_add(div_up(needed, SECTOR));
                if !self.holds(sector, needed) {
                    if first_window {
                        let what = format!("sector {sector}");
                        say(&rules::GRAIN_RANGE, what, "a grain inside the file");
                    }
                } else if self.fixed.meet(&span) || metadata.meet(&span) {
                    if first_window {
                        let what = format!("sector {sector}, inside the metadata");
                        say(&rules::GRAIN_IN_METADATA, what, "a grain behind it");
                    }
                } else if span.start < window.end && span.end > window.start {
                    let claim = claims.claim(span);
                    if !window.contains(&sector) {
                        return;
                    }
                    match claim {
                        Claim::Fresh => {}
                        Claim::Alias => {
                            let what = format!("sector {sector}, another grain's");
                            say(&rules::GRAIN_ALIAS, what, "a grain of its own");
                        }
                        Claim::Overlap => {
                            let what = format!("sector {sector}, inside another grain");
                            say(&rules::GRAIN_OVERLAP, what, "a grain of its own");
                        }
                    }
                }
            }
        }
    }
}
