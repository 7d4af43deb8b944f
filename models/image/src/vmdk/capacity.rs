//! Which capacity a sparse extent has where its header and the extent line of the descriptor differ.
//!
//! What stands in the file decides, by the larger of the two:
//!
//! * It is right where something stands behind the smaller: grain tables with which the directories go on, entries with
//!   which the last table goes on, bytes with which the last grain goes on.
//! * It is wrong where its directories would go on over tables, over each other or past the end of the file, where most of
//!   the entries they go on with lead nowhere, and where they end, after a table, right where the smaller ends them:
//!   programs make all tables of a disk at once.
//!
//! Where nothing tells, or the directories contradict each other, the header counts, as it does for qemu-img. The capacity
//! decides how long directories are, so that a wrong one makes tables and grains of what is none; no repair starts from it.

use super::claims::Spans;
use super::header::{Header, SECTOR};
use super::hosted::{Hosted, words};
use super::rules;
use crate::codec::{Framing, unpack};
use crate::math::{index, rem};
use drylab_block::{Limits, ReadAt, Result, read_vec};
use std::ops::Range;

/// What stands behind the smaller capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Nothing that tells.
    Nothing,
    /// What only the larger one has.
    Something,
    /// What cannot be the disk's.
    Other,
}

/// Both capacities, and what both of them have.
struct Readings {
    short: Header,
    long: Header,
    /// Sectors of the directories that both can read.
    places: Vec<u64>,
    /// Sectors of the tables that both have.
    tables: Spans,
}

impl Hosted {
    /// Goes by the capacity of the extent line, in sectors, where the header's cannot be.
    pub(super) fn settle_capacity(&mut self, line: Option<u64>) -> Result<()> {
        let said = self.front.capacity;
        let most = crate::math::div(self.limits.disk_bytes_max, SECTOR);
        let Some(line) = line.filter(|line| *line != said && *line <= most) else {
            return Ok(());
        };
        let right = match self.behind(said.min(line), said.max(line))? {
            Behind::Nothing => said,
            Behind::Something => said.max(line),
            Behind::Other => said.min(line),
        };
        if right != said {
            self.header.capacity = right;
            let path = "header, capacity";
            let found = format!("{said} sectors");
            let expected =
                format!("{right} as in the descriptor, with which the grain directories agree");
            self.findings
                .add(&rules::EXTENT_SIZE, (12, 8), path, found, expected);
        }
        Ok(())
    }

    fn behind(&self, small: u64, large: u64) -> Result<Behind> {
        let of = |capacity| {
            let mut header = self.front.clone();
            header.capacity = capacity;
            header
        };
        let (short, long) = (of(small), of(large));
        let redundant = short.has_redundant().then_some(short.rgd_offset);
        let places = [Some(short.gd_offset), redundant];
        let places = places.into_iter().flatten().filter(|place| {
            let length = short.tables().max(1).saturating_mul(4);
            *place != 0 && self.holds(place.saturating_mul(SECTOR), length)
        });
        // A range for each table of both directories.
        if short.tables().saturating_mul(32) > self.limits.table_bytes_max {
            return Ok(Behind::Nothing);
        }
        let mut readings = Readings {
            places: places.collect(),
            tables: Spans::default(),
            short,
            long,
        };
        readings.tables = self.common_tables(&readings)?;
        let mut verdicts = Vec::new();
        for place in &readings.places {
            verdicts.push(self.directory_behind(*place, &readings)?);
        }
        let has = |behind: Behind| verdicts.contains(&behind);
        match (has(Behind::Something), has(Behind::Other)) {
            (true, true) => Ok(Behind::Nothing),
            (true, false) => Ok(Behind::Something),
            (false, true) => Ok(Behind::Other),
            (false, false) => self.table_behind(&readings),
        }
    }

    /// The tables to which entries lead that both capacities have.
    fn common_tables(&self, readings: &Readings) -> Result<Spans> {
        let short = &readings.short;
        let fixed = readings.fixed(short);
        let mut spans = Vec::new();
        for place in &readings.places {
            let entries = self.words_at(*place, 0..short.tables())?;
            for (number, sector) in (0u64..).zip(entries) {
                let span = table_of(short, number, sector);
                if sector != 0 && self.has_sectors(&span) && !fixed.meet(&span) {
                    spans.push(span);
                }
            }
        }
        Ok(Spans::of(spans))
    }

    /// With what the directory at a sector goes on behind the smaller capacity.
    fn directory_behind(&self, place: u64, readings: &Readings) -> Result<Behind> {
        let Readings { short, long, .. } = readings;
        let length = long.tables().saturating_mul(4);
        if !self.holds(place.saturating_mul(SECTOR), length) {
            return Ok(Behind::Other);
        }
        if length > self.limits.table_bytes_max {
            return Ok(Behind::Nothing);
        }
        let own = directory_of(short, place);
        let more = own.end..directory_of(long, place).end;
        let others = readings.places.iter().filter(|other| **other != place);
        let others = Spans::of(others.map(|other| directory_of(short, *other)).collect());
        if !more.is_empty() && (readings.tables.meet(&more) || others.meet(&more)) {
            return Ok(Behind::Other);
        }
        let fixed = readings.fixed(long);
        let (mut good, mut bad) = (0u64, 0u64);
        let entries = self.words_at(place, short.tables()..long.tables())?;
        for (number, sector) in (short.tables()..).zip(entries) {
            let span = table_of(long, number, sector);
            if sector == 0 {
                continue;
            }
            if self.has_sectors(&span) && !fixed.meet(&span) && !readings.tables.meet(&span) {
                good = good.saturating_add(1);
            } else {
                bad = bad.saturating_add(1);
            }
        }
        if good > bad {
            return Ok(Behind::Something);
        }
        let last = short.tables().saturating_sub(1);
        let ends = short.tables() < long.tables()
            && self.words_at(place, last..short.tables())?.first() > Some(&0);
        Ok(if bad > 0 || ends {
            Behind::Other
        } else {
            Behind::Nothing
        })
    }

    /// With what the last table that both capacities have goes on, and the last grain.
    fn table_behind(&self, readings: &Readings) -> Result<Behind> {
        let Readings { short, long, .. } = readings;
        let Some(number) = short.tables().checked_sub(1) else {
            return Ok(Behind::Nothing);
        };
        let whole = long.entries_of(number).saturating_mul(4);
        for place in &readings.places {
            let entry = self.words_at(*place, number..number.saturating_add(1))?;
            let sector = u64::from(entry.first().copied().unwrap_or(0));
            let known = readings.tables.meet(&(sector..sector.saturating_add(1)));
            if !known || !self.holds(sector.saturating_mul(SECTOR), whole) {
                continue;
            }
            let from = short.entries_of(number);
            let more = self.words_at(sector, from..long.entries_of(number))?;
            let taken = readings.fixed(long);
            let good = more.iter().any(|entry| {
                let sector = u64::from(*entry);
                let span = sector..sector.saturating_add(1);
                (sector == 1 && long.has_zeroed_grains())
                    || (sector > 1
                        && self.has_sectors(&span)
                        && !taken.meet(&span)
                        && !readings.tables.meet(&span))
            });
            let last = self.words_at(sector, from.saturating_sub(1)..from)?;
            let grain = u64::from(last.first().copied().unwrap_or(0));
            if good || self.grain_behind(grain, readings)? {
                return Ok(Behind::Something);
            }
            break;
        }
        Ok(Behind::Nothing)
    }

    /// Whether the grain at a sector, the last that the smaller capacity has, goes on with anything but zeros.
    fn grain_behind(&self, sector: u64, readings: &Readings) -> Result<bool> {
        let Readings { short, long, .. } = readings;
        let inside = rem(short.capacity, short.grain);
        if sector <= 1 || inside == 0 {
            return Ok(false);
        }
        let more = long.capacity.saturating_sub(short.capacity);
        let end = inside.saturating_add(more).min(short.grain);
        let place = sector.saturating_mul(SECTOR);
        let bytes = if short.compressed() {
            let unit = short.grains().saturating_sub(1);
            self.unpacked_at(place, unit)?
        } else {
            let held = self.source.len().saturating_sub(place);
            let length = end.saturating_mul(SECTOR).min(held);
            read_vec(
                &*self.source,
                "last grain",
                place.min(self.source.len()),
                length,
                &self.limits,
            )?
        };
        let behind = bytes.get(index(inside.saturating_mul(SECTOR))..);
        let behind = behind.unwrap_or_default().iter();
        let length = index(end.saturating_sub(inside).saturating_mul(SECTOR));
        Ok(behind.take(length).any(|byte| *byte != 0))
    }

    /// The bytes of the compressed grain at a byte; none where they do not unpack.
    fn unpacked_at(&self, place: u64, unit: u64) -> Result<Vec<u8>> {
        let held = self.source.len().saturating_sub(place);
        let (head, length) = if !self.front.has_markers() {
            (0, self.header.packed_most().min(held))
        } else if held < 12 {
            return Ok(Vec::new());
        } else {
            let (lba, size) = self.marker(place)?;
            let own = lba == unit.saturating_mul(self.front.grain);
            (12, if own { size } else { u64::MAX })
        };
        if length > self.header.packed_most() || length > held.saturating_sub(head) {
            return Ok(Vec::new());
        }
        let start = place.saturating_add(head);
        let packed = read_vec(&*self.source, "last grain", start, length, &Limits::DEFAULT)?;
        let unpacked = unpack(&packed, Framing::Zlib, index(self.front.grain_bytes()));
        Ok(unpacked.unwrap_or_default())
    }

    /// Some of the words of the directory or table at a sector.
    pub(super) fn words_at(&self, sector: u64, which: Range<u64>) -> Result<Vec<u32>> {
        let place = sector.saturating_mul(SECTOR);
        let place = place.saturating_add(which.start.saturating_mul(4));
        let length = which.end.saturating_sub(which.start).saturating_mul(4);
        let found = read_vec(
            &*self.source,
            "grain directory",
            place,
            length,
            &self.limits,
        )?;
        Ok(words(&found))
    }

    fn has_sectors(&self, span: &Range<u64>) -> bool {
        let length = span.end.saturating_sub(span.start).saturating_mul(SECTOR);
        self.holds(span.start.saturating_mul(SECTOR), length)
    }
}

impl Readings {
    /// Sectors of the header and of the directories.
    fn fixed(&self, header: &Header) -> Spans {
        let directories = self.places.iter().map(|place| directory_of(header, *place));
        Spans::of(std::iter::once(0..1).chain(directories).collect())
    }
}

/// Sectors of a directory: at least the first.
fn directory_of(header: &Header, place: u64) -> Range<u64> {
    place..place.saturating_add(header.directory_sectors().max(1))
}

/// Sectors of a grain table.
fn table_of(header: &Header, number: u64, sector: u32) -> Range<u64> {
    let bytes = header.entries_of(number).saturating_mul(4);
    let start = u64::from(sector);
    start..start.saturating_add(crate::math::div_up(bytes, SECTOR))
}
