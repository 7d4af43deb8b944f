//! Walking a streamOptimized file by its markers alone, as an importer does that reads from the network.

use super::header::{GD_AT_END, Header, Marker, SECTOR};
use crate::math::{div, div_up, rem};
use drylab_block::{Error, Limits, ReadAt, Result, le_u32, read_vec};

/// What a walk by markers met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamWalk {
    /// Grains, in strictly ascending guest order.
    pub grains: u64,
    /// Grain tables; each was checked against the grains met before it.
    pub tables: u64,
    /// Bytes of compressed data.
    pub packed_bytes: u64,
}

/// Walks `source` front to back by markers and demands a stream as VMware exports it: ascending grains, each in a
/// table, a grain directory, a footer that agrees with the header, and the end-of-stream marker as the last sector.
///
/// qemu-img's streamOptimized fails here, and the message says where: the walk meets bytes that are no marker, an end
/// that is not the end of the file, or the end of the file before the end of the stream.
///
/// # Errors
/// [`Error::Corrupt`] with the place and what was expected there; what the header check finds.
pub fn walk_stream(source: &dyn ReadAt, limits: &Limits) -> Result<StreamWalk> {
    let front = Header::parse(
        &read_vec(source, "VMDK header", 0, SECTOR, limits)?,
        0,
        limits,
    )?;
    if !front.has_markers() {
        return Err(Error::corrupt(
            "VMDK has no compressed grains with markers: it is no stream",
        ));
    }
    let mut walk = Walk {
        source,
        limits,
        at: front.overhead.saturating_mul(SECTOR),
        found: StreamWalk::default(),
        pending: Vec::new(),
        table_places: Vec::new(),
        last: None,
        directory: None,
        footer: None,
        front,
    };
    while walk.step()? {}
    Ok(walk.found)
}

struct Walk<'a> {
    source: &'a dyn ReadAt,
    limits: &'a Limits,
    front: Header,
    at: u64,
    found: StreamWalk,
    /// Grain number and sector of the grains not yet in a table: at most one table's.
    pending: Vec<(u64, u64)>,
    /// Table number and sector.
    table_places: Vec<(u64, u64)>,
    last: Option<u64>,
    directory: Option<u64>,
    footer: Option<Header>,
}

impl Walk<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format_args!("VMDK stream at offset {}: {what}", self.at))
    }

    fn take(&mut self, place: &str, bytes: u64) -> Result<Vec<u8>> {
        let found = read_vec(self.source, place, self.at, bytes, self.limits)?;
        self.at = self.at.saturating_add(bytes);
        Ok(found)
    }

    /// One marker and what follows it; false after the end of the stream.
    fn step(&mut self) -> Result<bool> {
        let place = self.at;
        if self.source.len().saturating_sub(place) < SECTOR {
            return Err(self.wrong("the file ends without an end-of-stream marker"));
        }
        let sector = self.take("marker", SECTOR)?;
        match Marker::parse(&sector, place)? {
            Marker::Grain { lba, size } => self.grain(lba, size, place)?,
            Marker::GrainTable { sectors } => self.table(sectors)?,
            Marker::GrainDirectory { sectors } => self.directory(sectors)?,
            Marker::Footer { sectors } => self.footer(sectors)?,
            Marker::EndOfStream => return self.end().map(|()| false),
        }
        Ok(true)
    }

    fn grain(&mut self, lba: u64, size: u32, place: u64) -> Result<()> {
        let grain = div(lba, self.front.grain);
        if rem(lba, self.front.grain) != 0 || lba >= self.front.capacity {
            return Err(self.wrong(format_args!(
                "grain at guest sector {lba} of {}",
                self.front.capacity
            )));
        }
        if self.last.is_some_and(|last| grain <= last) || self.directory.is_some() {
            return Err(self.wrong(format_args!("grain {grain} is out of order")));
        }
        let table = |grain| div(grain, u64::from(self.front.table_entries));
        if self
            .pending
            .first()
            .is_some_and(|(first, _)| table(*first) != table(grain))
        {
            return Err(self.wrong("a grain of the next table before the grain table of the last"));
        }
        self.last = Some(grain);
        self.pending.push((grain, div(place, SECTOR)));
        self.found.grains = self.found.grains.saturating_add(1);
        self.found.packed_bytes = self.found.packed_bytes.saturating_add(u64::from(size));
        let sectors = div_up(u64::from(size).saturating_add(12), SECTOR);
        self.at = place.saturating_add(sectors.saturating_mul(SECTOR));
        Ok(())
    }

    fn table(&mut self, sectors: u64) -> Result<()> {
        let place = div(self.at, SECTOR);
        let bytes = self.take("grain table", sectors.saturating_mul(SECTOR))?;
        let entries = u64::from(self.front.table_entries);
        let pending = std::mem::take(&mut self.pending);
        let number = pending.first().map(|(grain, _)| div(*grain, entries));
        let filled = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .filter(|entry| **entry != [0; 4])
            .count();
        let right = pending.iter().all(|(grain, sector)| {
            let at = crate::math::index(rem(*grain, entries).saturating_mul(4));
            le_u32(&bytes, at).map(u64::from) == Some(*sector)
        });
        match number {
            Some(number) if right && filled == pending.len() => {
                self.table_places.push((number, place))
            }
            _ => return Err(self.wrong("the grain table differs from the grains before it")),
        }
        self.found.tables = self.found.tables.saturating_add(1);
        Ok(())
    }

    fn directory(&mut self, sectors: u64) -> Result<()> {
        let place = div(self.at, SECTOR);
        let bytes = self.take("grain directory", sectors.saturating_mul(SECTOR))?;
        let filled = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .filter(|entry| **entry != [0; 4])
            .count();
        let right = self.table_places.iter().all(|(number, sector)| {
            let at = crate::math::index(number.saturating_mul(4));
            le_u32(&bytes, at).map(u64::from) == Some(*sector)
        });
        if !right
            || filled != self.table_places.len()
            || !self.pending.is_empty()
            || self.directory.is_some()
        {
            return Err(self.wrong("the grain directory differs from the tables before it"));
        }
        self.directory = Some(place);
        Ok(())
    }

    fn footer(&mut self, sectors: u64) -> Result<()> {
        let place = self.at;
        let bytes = self.take("footer", sectors.saturating_mul(SECTOR))?;
        let footer = Header::parse(&bytes, place, self.limits)?;
        let mut expected = self.front.clone();
        expected.gd_offset = self.directory.unwrap_or(0);
        if self.front.gd_offset != GD_AT_END || footer != expected || self.footer.is_some() {
            return Err(self.wrong(
                "the footer differs from the header in more than the place of the directory",
            ));
        }
        self.footer = Some(footer);
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.footer.is_none() {
            return Err(self.wrong("the stream ends without a footer"));
        }
        if self.at != self.source.len() {
            let behind = self.source.len().saturating_sub(self.at);
            return Err(self.wrong(format_args!("{behind} bytes behind the end of the stream")));
        }
        Ok(())
    }
}
