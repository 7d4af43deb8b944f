//! The markers of a stream against its tables, and how it ends.

use super::check::Survey;
use super::footer::Walk;
use super::header::{Header, Marker, SECTOR};
use super::hosted::{Hosted, Layout};
use super::rules;
use crate::finding::Findings;
use crate::layer::standing;
use crate::map::Units;
use crate::math::{div, index, rem, round_up};
use drylab_block::{ReadAt, Result, read_vec};

/// What stands where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// The end-of-stream marker, and the end of the file behind it.
    Right,
    /// The walk lost its way: it ends behind the file, in front of grains, or in header, descriptor, directory or tables.
    Lost,
    /// The end of the file, with this many bytes that are no sector.
    NoEnd(u64),
    /// The end-of-stream marker, with this many bytes behind it.
    Trailing(u64),
}

/// What a walk by markers met.
#[derive(Default)]
struct Met {
    /// Grains that the tables name, in their order.
    grains: u64,
    /// Something else, of which was told.
    odd: bool,
}

impl Hosted {
    /// Walks the stream by its markers and compares what it meets with the tables.
    pub(super) fn check_stream(&self, survey: &Survey, found: &mut Findings) -> Result<()> {
        let mut at = self.front.overhead.saturating_mul(SECTOR);
        let length = self.source.len();
        let (mut last, mut met) = (None, Met::default());
        let mut tables = self.gd.clone();
        tables.sort_unstable();
        while length > at {
            let sector = self.marker_sector(at)?;
            let path = format!("marker at offset {at}");
            let mut odd = |what: String, expected: &str| {
                met.odd = true;
                let rule = &rules::STREAM_MARKER;
                found.add(rule, (at, SECTOR), path.as_str(), what, expected);
            };
            let place = div(at, SECTOR);
            let inside = place.saturating_add(1);
            match Marker::parse(&sector, at) {
                Err(error) => {
                    odd(error.to_string(), "a marker");
                    return Ok(());
                }
                Ok(Marker::EndOfStream) => break,
                Ok(Marker::Grain { lba, size }) => {
                    let grain = div(lba, self.header.grain);
                    // In ascending order each table is read once.
                    if last.is_some_and(|last| grain <= last) {
                        met.odd = true;
                        let what = format!("grain {grain} behind a later one");
                        let rule = &rules::STREAM_ORDER;
                        found.add(rule, (at, 12), path, what, "ascending grains");
                    } else if rem(lba, self.header.grain) != 0
                        || self.named_sector(grain)? != Some(place)
                    {
                        let what = format!("a grain at guest sector {lba}");
                        odd(what, "one that a grain table names");
                    } else {
                        met.grains = met.grains.saturating_add(1);
                    }
                    last = Some(grain);
                    let bytes = round_up(u64::from(size).saturating_add(12), SECTOR);
                    at = at.saturating_add(bytes);
                }
                Ok(Marker::GrainTable { sectors }) => {
                    let known = u32::try_from(inside)
                        .is_ok_and(|sector| tables.binary_search(&sector).is_ok());
                    if !known && self.layout != Layout::Markers {
                        odd("a grain table".to_owned(), "one that the directory names");
                    }
                    at = behind(at, sectors);
                }
                Ok(Marker::GrainDirectory { sectors }) => {
                    if self.header.gd_offset != inside && self.layout != Layout::Markers {
                        odd("a grain directory".to_owned(), "the one of the footer");
                    }
                    at = behind(at, sectors);
                }
                Ok(Marker::Footer { sectors }) => {
                    if !self.is_footer(inside)? || sectors != 1 {
                        odd("a footer marker".to_owned(), "one in front of the footer");
                    }
                    at = behind(at, sectors);
                }
            }
        }
        self.check_tail(at, survey, found);
        if met.grains < survey.grains && !met.odd {
            let place = (self.front.overhead.saturating_mul(SECTOR), 0);
            let expected = format!("{}, as the grain tables name", survey.grains);
            let what = format!("{} grains", met.grains);
            found.add(
                &rules::STREAM_MARKER,
                place,
                "markers of the stream",
                what,
                expected,
            );
        }
        Ok(())
    }

    /// Those of some tables, in the order of their sectors, that lie on grains to which the markers lead.
    pub(super) fn on_grains(&self, placed: &[(u32, u64)]) -> Result<Vec<(u32, u64)>> {
        let mut found = Vec::new();
        let mut rest = placed.iter().copied().peekable();
        let mut at = self.front.overhead.saturating_mul(SECTOR);
        while rest.peek().is_some() && self.holds(at, SECTOR) {
            let head = read_vec(&*self.source, "marker", at, 16, &self.limits)?;
            at = match Marker::parse(&head, at) {
                Ok(Marker::Grain { lba, size })
                    if rem(lba, self.header.grain) == 0
                        && lba < self.header.capacity
                        && u64::from(size) <= self.header.packed_most() =>
                {
                    let bytes = round_up(u64::from(size).saturating_add(12), SECTOR);
                    let end = at.saturating_add(bytes);
                    let (first, next) = (div(at, SECTOR), div(end, SECTOR));
                    while let Some(table) = rest.next_if(|(sector, _)| u64::from(*sector) < next) {
                        if self.table_span(table.0, table.1).end > first {
                            found.push(table);
                        }
                    }
                    end
                }
                Ok(
                    Marker::GrainTable { sectors }
                    | Marker::GrainDirectory { sectors }
                    | Marker::Footer { sectors },
                ) => behind(at, sectors),
                Ok(Marker::Grain { .. } | Marker::EndOfStream) | Err(_) => break,
            };
        }
        Ok(found)
    }

    /// Whether a marker is at that sector that can begin a stream: one of a grain of this disk, or of what follows grains.
    pub(super) fn starts_stream(&self, sector: u64) -> Result<bool> {
        let place = sector.saturating_mul(SECTOR);
        if !self.holds(place, SECTOR) {
            return Ok(false);
        }
        let bytes = read_vec(&*self.source, "marker", place, SECTOR, &self.limits)?;
        Ok(match Marker::parse(&bytes, place) {
            Ok(Marker::Grain { lba, size }) => {
                rem(lba, self.header.grain) == 0
                    && lba < self.header.capacity
                    && u64::from(size) <= self.header.packed_most()
            }
            Ok(Marker::EndOfStream) | Err(_) => false,
            Ok(_) => true,
        })
    }

    /// Whether the footer is at that sector; of a stream that needs none, whether one is.
    fn is_footer(&self, sector: u64) -> Result<bool> {
        let place = sector.saturating_mul(SECTOR);
        match self.layout {
            Layout::Footer(footer) => Ok(place == footer),
            Layout::Front | Layout::Markers if self.holds(place, SECTOR) => {
                let bytes = read_vec(&*self.source, "VMDK footer", place, SECTOR, &self.limits)?;
                Ok(Header::parse(&bytes, place, &self.limits).is_ok())
            }
            Layout::Front | Layout::Markers => Ok(false),
        }
    }

    /// What a walk by markers that ends at `at` says of the end of the file.
    pub(super) fn tail(&self, at: u64, survey: &Survey) -> Tail {
        let length = self.source.len();
        let behind = at.saturating_add(SECTOR);
        // What is not there can only be missing right behind the footer.
        let over =
            matches!(self.layout, Layout::Footer(place) if at != place.saturating_add(SECTOR));
        let lost = over && behind > length;
        // Zeros of a table or directory are no end: the header starts the stream elsewhere than where it starts.
        let place = div(at, SECTOR);
        let inside = self.spans().meet(&(place..place.saturating_add(1)));
        if at > length || inside || survey.end.saturating_mul(SECTOR) > behind || lost {
            Tail::Lost
        } else if self.layout == Layout::Markers {
            Tail::Right
        } else if behind > length {
            Tail::NoEnd(length.saturating_sub(at))
        } else if behind < length {
            Tail::Trailing(length.saturating_sub(behind))
        } else {
            Tail::Right
        }
    }

    fn check_tail(&self, at: u64, survey: &Survey, found: &mut Findings) {
        match self.tail(at, survey) {
            Tail::Right => {}
            Tail::Lost => {
                let path = "end of the stream";
                let what = format!("offset {at} of a file of {} bytes", self.source.len());
                let expected = "a place in the file and behind all grains and tables";
                let place = (at.min(self.source.len()), 0);
                found.add(&rules::STREAM_MARKER, place, path, what, expected);
            }
            Tail::NoEnd(left) => {
                let path = "end of the stream";
                let what = format!("the end of the file, {left} bytes on");
                let expected = "an end-of-stream marker, a sector of zeros";
                found.add(&rules::NO_END, (at, left), path, what, expected);
            }
            Tail::Trailing(left) => {
                let behind = at.saturating_add(SECTOR);
                let what = format!("{left} bytes behind the stream");
                let path = "end of the file";
                found.add(&rules::TRAILING, (behind, left), path, what, "none");
            }
        }
    }

    /// The sector that the tables name for a grain.
    fn named_sector(&self, grain: u64) -> Result<Option<u64>> {
        let number = div(grain, self.units_per_table());
        if number >= self.header.tables() {
            return Ok(None);
        }
        let readable =
            self.layout == Layout::Markers || self.is_table(self.table_sector(number), number);
        let table = if readable { self.table(number)? } else { None };
        let at = index(rem(grain, self.units_per_table()));
        Ok(table.and_then(|table| table.get(at).map(|entry| u64::from(*entry))))
    }

    /// Where the stream from sector `start` on ends by its markers: the place of the end-of-stream marker, or of what should
    /// be one. `None` where the walk loses its way before.
    pub(super) fn stream_end(&self, start: u64) -> Result<Option<u64>> {
        let mut at = start.saturating_mul(SECTOR);
        while self.source.len() > at {
            let sector = self.marker_sector(at)?;
            at = match Marker::parse(&sector, at) {
                Err(_) => return Ok(None),
                Ok(Marker::EndOfStream) => return Ok(Some(at)),
                Ok(Marker::Grain { size, .. }) => {
                    let bytes = round_up(u64::from(size).saturating_add(12), SECTOR);
                    at.saturating_add(bytes)
                }
                Ok(
                    Marker::GrainTable { sectors }
                    | Marker::GrainDirectory { sectors }
                    | Marker::Footer { sectors },
                ) => behind(at, sectors),
            };
        }
        Ok(Some(at))
    }

    /// The sector of a marker. What the file cuts of it is zeros, as a repair makes it: only where all of it is that, it is
    /// the end of the stream.
    fn marker_sector(&self, at: u64) -> Result<Vec<u8>> {
        standing(&*self.source, at, SECTOR)
    }

    /// The walk by markers again, for a repair.
    pub(super) fn walk(&self) -> Result<Walk> {
        Walk::run(&*self.source, &self.front, &self.limits)
    }
}

/// Behind a marker at `at` and the sectors that it announces.
fn behind(at: u64, sectors: u64) -> u64 {
    at.saturating_add(sectors.saturating_add(1).saturating_mul(SECTOR))
}
