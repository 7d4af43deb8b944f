//! The end of a stream: its footer, or what the markers give when there is none.
//!
//! ```text
//! … │ marker │ grain directory │ marker │ footer │ end of stream │ end of the file
//! ```

use super::header::{GD_AT_END, Header, Marker, SECTOR};
use super::rules;
use crate::finding::Findings;
use crate::math::{div, div_up, index, rem};
use drylab_block::{Error, Limits, ReadAt, Result, read_vec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What leads to the grain tables of a stream.
pub(super) enum Found {
    /// The footer at this byte.
    Footer {
        /// Its offset.
        place: u64,
        /// What it says.
        header: Box<Header>,
    },
    /// Nothing: the stream is read by its markers.
    Markers {
        /// Tables made from the grains met.
        tables: BTreeMap<u64, Arc<[u32]>>,
        /// The first grain of which nothing is known, where the stream was cut.
        cut: Option<u64>,
    },
}

/// Looks for the footer in front of the end of the file, then by the markers; without one, makes the tables from them.
/// `line` is the size by the extent line.
pub(super) fn find(
    source: &Arc<dyn ReadAt>,
    (front, line): (&Header, Option<u64>),
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Found> {
    let error = match at_end(&**source, limits) {
        Ok((place, footer)) => match accept(place, footer, (front, line), findings) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if !front.has_markers() || front.overhead == 0 {
        return Err(error);
    }
    let walk = Walk::run(&**source, front, limits)?;
    if let Some((place, footer)) = &walk.footer
        && let Ok(found) = accept(*place, footer.clone(), (front, line), findings)
    {
        // Behind it is the end of the stream, or nothing; a check says which.
        return Ok(found);
    }
    if walk.grains == 0 {
        return Err(error);
    }
    let length = source.len();
    let (at, path) = (walk.end, "end of the stream");
    let expected = "a grain directory, a footer and the end-of-stream marker";
    let found = format!("no footer ({error})");
    let behind = (at, length.saturating_sub(at));
    findings.add(&rules::NO_FOOTER, behind, path, found, expected);
    let cut = walk.cut();
    if cut.is_some() {
        let path = format!("marker at offset {at}");
        let lost = walk
            .lost
            .unwrap_or_else(|| "the end of the file".to_owned());
        let expected = "a whole grain or table, and the grain directory behind the last";
        findings.add(&rules::STREAM_CUT, behind, path, lost, expected);
    }
    let tables = walk.tables;
    Ok(Found::Markers { tables, cut })
}

/// What counts of a footer and the header: the footer, unless what it says cannot be.
fn accept(
    place: u64,
    footer: Header,
    (front, line): (&Header, Option<u64>),
    findings: &mut Findings,
) -> Result<Found> {
    let mut expected = front.clone();
    expected.gd_offset = footer.gd_offset;
    expected.rgd_offset = footer.rgd_offset;
    expected.unclean = footer.unclean;
    let lies = if lies_on(&footer, place) {
        Some("the same; by what it says the grain directory would lie on it")
    } else if front.has_markers() && !footer.has_markers() {
        Some("the same; what it ends is a stream, and it does not say so")
    } else if footer.capacity != front.capacity && line == Some(front.capacity) {
        Some("the same; of the capacity the header says what the descriptor does")
    } else {
        None
    };
    let differs = footer != expected;
    if lies.is_some() && lies_on(&expected, place) {
        return Err(Error::corrupt(format_args!(
            "the footer at offset {place} is where its own grain directory is"
        )));
    }
    let (footer, words) = match lies {
        Some(words) => (expected, words),
        None => (footer, "the same; it counts"),
    };
    if differs {
        let found = "another than the header's in version, flags, sizes or places";
        findings.add(
            &rules::FOOTER_DIFFERS,
            (place, SECTOR),
            "footer",
            found,
            words,
        );
    }
    if footer.unclean != 0 {
        let at = place.saturating_add(72);
        let path = "footer, uncleanShutdown";
        findings.add(&rules::UNCLEAN, (at, 1), path, footer.unclean, 0);
    }
    let header = Box::new(footer);
    Ok(Found::Footer { place, header })
}

/// Whether the grain directory lies on the footer at `place`, or on the marker in front of it.
fn lies_on(footer: &Header, place: u64) -> bool {
    let behind = div(place, SECTOR).saturating_add(1);
    let end = footer.gd_offset.saturating_add(footer.directory_sectors());
    footer.gd_offset < behind && behind.saturating_sub(2) < end
}

/// Footer marker, footer and end-of-stream marker: the last three sectors of the file.
fn at_end(source: &dyn ReadAt, limits: &Limits) -> Result<(u64, Header)> {
    let length = source.len();
    let place = length
        .checked_sub(3 * SECTOR)
        .filter(|_| rem(length, SECTOR) == 0);
    let place = place.ok_or_else(|| {
        Error::corrupt(format_args!(
            "VMDK says its grain directory is behind the grains, but {length} bytes hold no footer"
        ))
    })?;
    let bytes = read_vec(source, "VMDK footer", place, 3 * SECTOR, limits)?;
    let (marker, rest) = bytes.split_at_checked(Header::SIZE).unwrap_or_default();
    let (footer, end) = rest.split_at_checked(Header::SIZE).unwrap_or_default();
    if !matches!(Marker::parse(marker, place)?, Marker::Footer { .. }) {
        return Err(Error::corrupt(format_args!(
            "no footer marker at offset {place}"
        )));
    }
    let last = length.saturating_sub(SECTOR);
    if Marker::parse(end, last)? != Marker::EndOfStream {
        return Err(Error::corrupt(format_args!(
            "no end-of-stream marker in the last sector, at offset {last}"
        )));
    }
    parse(footer, length.saturating_sub(2 * SECTOR), limits)
}

fn parse(bytes: &[u8], place: u64, limits: &Limits) -> Result<(u64, Header)> {
    let footer = Header::parse(bytes, place, limits)?;
    if footer.gd_offset == GD_AT_END {
        return Err(Error::corrupt(format_args!(
            "VMDK footer at offset {place} points to a footer again"
        )));
    }
    Ok((place, footer))
}

/// A walk from marker to marker that goes on as long as they make sense.
pub(super) struct Walk {
    /// Grain tables made from the grains met.
    pub(super) tables: BTreeMap<u64, Arc<[u32]>>,
    /// Numbers and sectors of grain tables met that say what the grains met say.
    pub(super) seen: BTreeMap<u64, u64>,
    /// Numbers and sectors of the others.
    pub(super) doubtful: BTreeMap<u64, u64>,
    /// The footer, with its place.
    pub(super) footer: Option<(u64, Header)>,
    /// Grains met, and the last of them in the order of the disk.
    pub(super) grains: u64,
    last: u64,
    /// Whether the stream says that all its grains were met.
    whole: bool,
    /// Behind the last thing that made sense.
    pub(super) end: u64,
    /// What was lost there.
    pub(super) lost: Option<String>,
}

impl Walk {
    /// Reads a sector for every grain, and every table.
    pub(super) fn run(source: &dyn ReadAt, front: &Header, limits: &Limits) -> Result<Self> {
        let mut walk = Self {
            tables: BTreeMap::new(),
            seen: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            footer: None,
            grains: 0,
            last: 0,
            whole: false,
            end: front.overhead.saturating_mul(SECTOR),
            lost: None,
        };
        let mut open: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        while walk.footer.is_none() {
            let place = walk.end;
            let left = source.len().saturating_sub(place);
            if left < SECTOR {
                walk.lost = (left > 0).then(|| format!("{left} bytes"));
                break;
            }
            let sector = read_vec(source, "marker", place, SECTOR, limits)?;
            let step = match Marker::parse(&sector, place) {
                Ok(Marker::EndOfStream) => {
                    walk.whole = true;
                    break;
                }
                Ok(marker) => walk.step(source, front, limits, marker, &mut open)?,
                Err(error) => Err(error.to_string()),
            };
            match step {
                Ok(end) if end <= source.len() => walk.end = end,
                Ok(_) => {
                    walk.lost = Some(format!("cut off after {left} bytes"));
                    break;
                }
                Err(lost) => {
                    walk.lost = Some(lost);
                    break;
                }
            }
        }
        walk.tables.extend(
            open.into_iter()
                .map(|(number, table)| (number, table.into())),
        );
        Ok(walk)
    }

    /// The first grain of which nothing is known, where the stream was cut.
    pub(super) fn cut(&self) -> Option<u64> {
        (!self.whole).then(|| self.last.saturating_add(1))
    }

    /// One marker; the end of what it announces, or why it makes no sense.
    fn step(
        &mut self,
        source: &dyn ReadAt,
        front: &Header,
        limits: &Limits,
        marker: Marker,
        open: &mut BTreeMap<u64, Vec<u32>>,
    ) -> Result<Result<u64, String>> {
        let place = self.end;
        let inside = place.saturating_add(SECTOR);
        let behind = |sectors: u64| inside.saturating_add(sectors.saturating_mul(SECTOR));
        match marker {
            Marker::Grain { lba, size } => {
                if rem(lba, front.grain) != 0 || lba >= front.capacity {
                    return Ok(Err(format!("a grain at guest sector {lba}")));
                }
                let sectors = div_up(u64::from(size).saturating_add(12), SECTOR);
                let end = place.saturating_add(sectors.saturating_mul(SECTOR));
                if end <= source.len() {
                    self.grain(front, limits, lba, open)?;
                }
                Ok(Ok(end))
            }
            Marker::GrainTable { sectors } => {
                let end = behind(sectors);
                // Announced longer than a table is, or cut.
                if sectors > front.table_sectors() || end > source.len() {
                    return Ok(Ok(end));
                }
                let length = sectors.saturating_mul(SECTOR);
                let bytes = read_vec(source, "grain table", inside, length, limits)?;
                let found = super::hosted::words(&bytes);
                // Zeros may be said by the table alone.
                let zeros = front.has_zeroed_grains();
                let matches = |table: &Vec<u32>| {
                    let said = table.iter().copied().chain(std::iter::repeat(0));
                    found.len() >= table.len()
                        && found
                            .iter()
                            .zip(said)
                            .all(|(entry, met)| *entry == met || (zeros && met == 0 && *entry == 1))
                };
                if let Some((number, table)) = open.iter().next_back() {
                    let kept = if matches(table) {
                        &mut self.seen
                    } else {
                        &mut self.doubtful
                    };
                    kept.insert(*number, div(inside, SECTOR));
                }
                Ok(Ok(end))
            }
            Marker::Footer { sectors } => {
                let end = behind(sectors);
                if sectors > 0 && end <= source.len() {
                    let bytes = read_vec(source, "VMDK footer", inside, SECTOR, limits)?;
                    self.footer = parse(&bytes, inside, limits).ok();
                }
                Ok(Ok(end))
            }
            Marker::GrainDirectory { sectors } => {
                self.whole |= behind(sectors) <= source.len();
                Ok(Ok(behind(sectors)))
            }
            Marker::EndOfStream => Ok(Ok(place)),
        }
    }

    fn grain(
        &mut self,
        front: &Header,
        limits: &Limits,
        lba: u64,
        open: &mut BTreeMap<u64, Vec<u32>>,
    ) -> Result<()> {
        let grain = div(lba, front.grain);
        let entries = u64::from(front.table_entries);
        let number = div(grain, entries);
        if !open.contains_key(&number) {
            let tables = u64::try_from(open.len()).unwrap_or(u64::MAX);
            let bytes = tables
                .saturating_add(1)
                .saturating_mul(entries)
                .saturating_mul(4);
            limits.check_table("the grain tables of a stream without a footer", bytes)?;
        }
        let table = open
            .entry(number)
            .or_insert_with(|| vec![0; index(front.entries_of(number))]);
        if let Some(entry) = table.get_mut(index(rem(grain, entries))) {
            *entry = u32::try_from(div(self.end, SECTOR)).map_err(|_| {
                Error::unsupported(
                    "VMDK stream that reaches past sector 2^32; its tables end there",
                )
            })?;
        }
        self.seen.remove(&number);
        self.last = self.last.max(grain);
        self.grains = self.grains.saturating_add(1);
        Ok(())
    }
}
