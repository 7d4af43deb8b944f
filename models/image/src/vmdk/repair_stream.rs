//! Mending the end of a stream.

use super::check::Survey;
use super::check_stream::Tail;
use super::footer::Walk;
use super::header::{Marker, SECTOR};
use super::repair::{Mend, Todo, set, settle, word_bytes};
use super::sparse::address;
use crate::edit::Edit;
use crate::map::Units;
use crate::math::{div, index, len64, round_up};
use drylab_block::{Error, Result, read_vec};
use std::collections::BTreeMap;

impl Mend<'_> {
    /// Ends a stream with its marker and nothing behind it.
    pub(super) fn end_stream(&mut self, survey: &Survey) -> Result<()> {
        let Some(at) = self.disk.stream_end(self.header.overhead)? else {
            return Ok(());
        };
        let length = self.end;
        match self.disk.tail(at, survey) {
            Tail::NoEnd(left) => {
                let new = vec![0; index(SECTOR.saturating_sub(left))];
                self.write(length, Vec::new(), new);
            }
            Tail::Trailing(left) => {
                self.barrier = true;
                let new = length.saturating_sub(left);
                self.push(Edit::Length { old: length, new });
            }
            Tail::Right | Tail::Lost => {}
        }
        Ok(())
    }

    /// Whether the stream may start at that sector.
    pub(super) fn may_start(&self, sector: u64) -> Result<bool> {
        Ok(sector >= self.disk.area_end && self.disk.starts_stream(sector)?)
    }

    /// Whether the stream whose footer is at a byte starts where the header says, and not where the footer does: from there
    /// the markers lead to it, or from neither, and then the first of them tells.
    pub(super) fn starts_in_front(&self, footer: u64) -> Result<bool> {
        let behind = footer.saturating_add(SECTOR);
        let leads = |start: u64| {
            Ok::<_, Error>(self.may_start(start)? && self.disk.stream_end(start)? == Some(behind))
        };
        let (front, own) = (self.disk.front.overhead, self.header.overhead);
        Ok(match (leads(front)?, leads(own)?) {
            // Each but the first marker of a stream leads to its end and leaves grains out.
            (true, true) => front < own,
            (false, false) => self.may_start(front)? || !self.may_start(own)?,
            (front_leads, _) => front_leads,
        })
    }

    /// Whether there are markers, and the header by which they are read is the one that counts.
    fn has_true_markers(&self) -> bool {
        let (front, header) = (&self.disk.front, &self.disk.header);
        header.has_markers()
            && front.grain == header.grain
            && front.table_entries == header.table_entries
            && front.capacity == header.capacity
            && front.has_zeroed_grains() == header.has_zeroed_grains()
    }

    /// Looks for tables that are lost or have wrong entries among those that the markers announce: where the directory leads
    /// elsewhere, as to the marker itself, its entry is wrong and what stands there is no table.
    pub(super) fn heed_announced(&mut self, todo: &mut Todo) -> Result<()> {
        let (lost, _) = self.disk.lost_tables();
        if (todo.clear.is_empty() && lost == 0) || !self.has_true_markers() {
            return Ok(());
        }
        let walk = self.disk.walk()?;
        for (number, sector) in &walk.doubtful {
            if u64::from(self.disk.table_sector(*number)).saturating_add(1) == *sector {
                return Err(Error::unsupported(format_args!(
                    "the directory leads to the marker in front of grain table {number}, which differs from the markers of its grains; which of them is right stands nowhere, and nothing is planned"
                )));
            }
        }
        for (number, sector) in walk.seen {
            let sector = address(sector)?;
            let led = self.disk.table_sector(number);
            let lost = led != 0 && !self.disk.is_table(led, number);
            let wrong = lost || todo.clear.contains_key(&number);
            if wrong && sector != led && self.disk.is_table(sector, number) {
                todo.clear.remove(&number);
                todo.differ.remove(&number);
                self.announced.insert(number, sector);
                self.plan.note(format!(
                    "grain table {number}: the directory is led to the table that a marker announces"
                ));
            }
        }
        Ok(())
    }

    /// Sectors of the grains that the markers of a stream have for entries that lead elsewhere, by table and entry.
    pub(super) fn met(
        &self,
        wanted: &BTreeMap<u64, Vec<u64>>,
    ) -> Result<BTreeMap<(u64, u64), u32>> {
        let mut met = BTreeMap::new();
        let disk = self.disk;
        if wanted.is_empty() || !self.has_true_markers() {
            return Ok(met);
        }
        let tables = disk.walk()?.tables;
        for (number, entries) in wanted {
            let Some(table) = tables.get(number) else {
                continue;
            };
            for entry in entries {
                let sector = table.get(index(*entry)).copied().unwrap_or(0);
                let unit = number
                    .saturating_mul(disk.units_per_table())
                    .saturating_add(*entry);
                if sector > 1 && disk.may_be_grain(sector) && disk.is_own(unit, sector)? {
                    met.insert((*number, *entry), sector);
                }
            }
        }
        Ok(met)
    }

    /// Refuses to name grains that nobody can read: where a marker says more bytes than a grain can have, the size of grains
    /// may be what is wrong, and then every grain is lost with a repair.
    fn refuse_long(&self, walk: &Walk) -> Result<()> {
        for (number, table) in &walk.tables {
            let first = number.saturating_mul(self.disk.units_per_table());
            for (unit, sector) in (first..).zip(table.iter()) {
                if *sector > 1 && !self.disk.is_own(unit, *sector)? {
                    return Err(Error::unsupported(format_args!(
                        "the marker in sector {sector} says more bytes than grain {unit} can have ({}), so that it or grainSize in the header is wrong; nothing is planned",
                        self.disk.header.packed_most()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Makes grain tables, directory and footer from the markers and ends the stream. They are written in one step: with
    /// some of them, the stream would be neither whole nor as it was.
    pub(super) fn make_footer(&mut self) -> Result<()> {
        let walk = self.disk.walk()?;
        self.refuse_long(&walk)?;
        let tables = self.front.tables();
        let name = "the grain directory of a stream";
        let limits = &self.disk.limits;
        // What a check of the result will need.
        limits.check_table(name, tables.saturating_mul(16))?;
        let mut tail = Tape {
            start: walk.end,
            bytes: Vec::new(),
        };
        let mut directory = vec![0u32; index(tables.max(1))];
        for (number, table) in &walk.tables {
            let sector = match walk.seen.get(number) {
                Some(sector) => address(*sector)?,
                None => {
                    tail.announce(|sectors| Marker::GrainTable { sectors }, word_bytes(table))?
                }
            };
            set(&mut directory, index(*number), sector);
        }
        let bytes = word_bytes(&directory);
        let sector = tail.announce(|sectors| Marker::GrainDirectory { sectors }, bytes)?;
        let mut footer = self.front.clone();
        footer.gd_offset = u64::from(sector);
        settle(&mut footer);
        tail.announce(|sectors| Marker::Footer { sectors }, footer.to_bytes())?;
        tail.bytes.extend(Marker::EndOfStream.to_sector());
        let Tape { start, bytes: new } = tail;
        let (length, end) = (self.end, start.saturating_add(len64(&new)));
        let held = length.min(end).saturating_sub(start);
        let old = read_vec(&*self.disk.source, "end of the stream", start, held, limits)?;
        self.write(start, old, new);
        if end < length {
            self.push(Edit::Length {
                old: length,
                new: end,
            });
        }
        self.plan
            .note("grain tables, directory and footer are made from the markers of the grains");
        Ok(())
    }
}

/// Bytes that a stream goes on with.
struct Tape {
    start: u64,
    bytes: Vec<u8>,
}

impl Tape {
    /// Appends a marker and what it announces; the result is the sector of that.
    fn announce(&mut self, marker: impl Fn(u64) -> Marker, mut bytes: Vec<u8>) -> Result<u32> {
        bytes.resize(index(round_up(len64(&bytes), SECTOR)), 0);
        let at = self.start.saturating_add(len64(&self.bytes));
        let sector = address(div(at, SECTOR).saturating_add(1))?;
        let marker = marker(div(len64(&bytes), SECTOR));
        self.bytes.extend(marker.to_sector());
        self.bytes.append(&mut bytes);
        Ok(sector)
    }
}
