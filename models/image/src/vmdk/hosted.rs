//! Reading a hosted sparse extent: one file with a header, grain directories, grain tables and grains.
//!
//! The primary directory counts. Where an entry of it leads nowhere and the redundant directory has a table for the same
//! grains, that table is read; where an entry of a table leads nowhere, the one of the redundant table is taken. Either is
//! a finding.

use super::claims::Spans;
use super::footer::{self, Found};
use super::header::{FLAG_ZEROED_GRAINS, GD_AT_END, Header, SECTOR};
use super::rules;
use crate::codec::{Engine, Framing, Unpackers, unpack};
use crate::finding::Findings;
use crate::map::{self, Store, Units};
use crate::math::{div, div_up, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{
    Below, Error, Extent, ExtentKind, Limits, ReadAt, Result, le_u32, le_u64, read_vec,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Where the grain directory in use was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In front of the grains.
    Front,
    /// Behind them, found through the footer at this byte of the file.
    Footer(u64),
    /// Nowhere: the tables were made again from the markers.
    Markers,
}

/// An open hosted sparse extent.
pub(crate) struct Hosted {
    pub(super) source: Arc<dyn ReadAt>,
    /// The header that counts: the footer's where there is one.
    pub(super) header: Header,
    /// The header at the start of the file.
    pub(super) front: Header,
    pub(super) layout: Layout,
    /// Behind the last sector of the descriptor's area.
    pub(super) area_end: u64,
    /// The grain directory; empty where it cannot be read.
    pub(super) gd: Vec<u32>,
    /// The redundant one; empty where there is none or it cannot be read.
    pub(super) rgd: Vec<u32>,
    /// Grain tables made from markers.
    pub(super) walked: BTreeMap<u64, Arc<[u32]>>,
    /// The first grain of which nothing is known, where the stream was cut.
    cut: Option<u64>,
    pub(super) limits: Limits,
    pub(super) spans: OnceLock<Spans>,
    tables: Recent<[u32]>,
    grains: Recent<[u8]>,
    unpackers: Unpackers,
    pub(super) findings: Findings,
}

impl Hosted {
    /// Reads header, footer and grain directories; grain tables and grains are read when asked for. `line` is how many
    /// sectors the extent has by its line in the descriptor, where there is one.
    pub(crate) fn open(
        source: Arc<dyn ReadAt>,
        line: Option<u64>,
        limits: &Limits,
    ) -> Result<Self> {
        let bytes = read_vec(&*source, "VMDK header", 0, SECTOR, limits)?;
        let front = Header::parse(&bytes, 0, limits)?;
        let grain = front.grain_bytes();
        let mut hosted = Self {
            source,
            header: front.clone(),
            front,
            layout: Layout::Front,
            area_end: 0,
            gd: Vec::new(),
            rgd: Vec::new(),
            walked: BTreeMap::new(),
            cut: None,
            limits: *limits,
            spans: OnceLock::new(),
            tables: Recent::new(8),
            // Grains may be large, and what is kept of them is no table that a limit counts.
            grains: Recent::new(if grain > 1 << 20 { 1 } else { 4 }),
            unpackers: Unpackers::default(),
            findings: Findings::default(),
        };
        hosted.area_end = hosted.area_end()?;
        hosted.note_header();
        if hosted.front.gd_offset == GD_AT_END {
            hosted.open_end(line)?;
        } else {
            hosted.settle_capacity(line)?;
            hosted.open_front()?;
        }
        hosted.note_redundant();
        hosted.note_cut();
        hosted.judge_directories()?;
        Ok(hosted)
    }

    /// What was noticed on opening.
    pub(super) fn noticed(&self) -> &Findings {
        &self.findings
    }

    /// Header fields in the format's own words.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let layout = match (self.layout, self.header.has_redundant()) {
            (Layout::Footer(_), _) => "footer",
            (Layout::Markers, _) => "markers",
            (Layout::Front, false) => "front GD",
            (Layout::Front, true) => "front GD and RGD",
        };
        let header = &self.header;
        let text = |name: &str, value: String| (name.to_owned(), value);
        vec![
            text("header.version", header.version.to_string()),
            text("header.flags", format!("{:#x}", header.flags)),
            text("header.grainSize", header.grain.to_string()),
            text("header.overHead", header.overhead.to_string()),
            text("layout", layout.to_owned()),
        ]
    }

    fn open_front(&mut self) -> Result<()> {
        let place = (56, 8);
        if self.header.capacity > 0 && self.header.gd_offset == 0 && !self.header.has_redundant() {
            return Err(Error::corrupt(
                "VMDK header has no grain directory (gdOffset is 0)",
            ));
        }
        let gd = self.read_directory(self.header.gd_offset);
        let rgd = self
            .header
            .has_redundant()
            .then(|| self.read_directory(self.header.rgd_offset));
        match (gd, rgd) {
            (Ok(gd), rgd) => {
                self.gd = gd;
                match rgd {
                    Some(Ok(rgd)) => self.rgd = rgd,
                    Some(Err(error)) => {
                        let found = format!("sector {} ({error})", self.header.rgd_offset);
                        let path = "header, rgdOffset";
                        let expected = "the sector of a directory inside the file";
                        self.findings
                            .add(&rules::RGD_RANGE, (48, 8), path, found, expected);
                    }
                    None => {}
                }
            }
            (Err(error), Some(Ok(rgd))) => {
                self.rgd = rgd;
                let found = format!("sector {} ({error})", self.header.gd_offset);
                let expected =
                    "the sector of a directory inside the file; the redundant one is used";
                self.findings
                    .add(&rules::GD_RANGE, place, "header, gdOffset", found, expected);
            }
            (Err(error), _) => return Err(error),
        }
        if self.header.compressed() {
            let found = "in front of compressed grains";
            let expected = "behind them, with a footer";
            let path = "grain directory";
            self.findings
                .add(&rules::NOT_A_STREAM, place, path, found, expected);
        }
        Ok(())
    }

    fn open_end(&mut self, line: Option<u64>) -> Result<()> {
        let found = footer::find(
            &self.source,
            (&self.front, line),
            &self.limits,
            &mut self.findings,
        )?;
        match found {
            Found::Footer { place, header } => {
                self.layout = Layout::Footer(place);
                self.header = *header;
                self.gd = self.read_directory(self.header.gd_offset)?;
            }
            Found::Markers { tables, cut } => {
                self.layout = Layout::Markers;
                self.walked = tables;
                self.cut = cut;
            }
        }
        Ok(())
    }

    /// A grain directory: one entry for each grain table of the disk.
    fn read_directory(&self, sector: u64) -> Result<Vec<u32>> {
        let tables = self.header.tables();
        if tables == 0 {
            return Ok(Vec::new());
        }
        if sector == 0 {
            return Err(Error::corrupt("grain directory is in the header"));
        }
        self.words_at(sector, 0..tables)
    }

    fn note_header(&mut self) {
        let Self {
            front, findings, ..
        } = self;
        if front.unclean != 0 {
            let (path, found) = ("header, uncleanShutdown", front.unclean);
            findings.add(&rules::UNCLEAN, (72, 1), path, found, 0);
        }
        if let Some((found, expected)) = front.wrong_newlines() {
            let (found, expected) = (format!("{found:02x?}"), format!("{expected:02x?}"));
            let path = "header, newline detection";
            findings.add(&rules::NEWLINES, (73, 4), path, found, expected);
        }
        if front.version < 2 && front.flags & FLAG_ZEROED_GRAINS != 0 {
            let (path, expected) = ("header, version", "2, because of zeroed grains");
            findings.add(&rules::VERSION, (4, 4), path, front.version, expected);
        }
        if front.has_odd_markers() {
            let (path, found) = ("header, flags", format!("{:#x}", front.flags));
            let expected = "flag bit 16, compressed grains, with bit 17, markers in front of them";
            findings.add(&rules::NOT_A_STREAM, (8, 4), path, found, expected);
        }
        if front.table_entries != Header::TABLE_ENTRIES {
            let (path, expected) = ("header, numGTEsPerGT", Header::TABLE_ENTRIES);
            let found = front.table_entries;
            findings.add(&rules::TABLE_ENTRIES, (44, 4), path, found, expected);
        }
    }

    /// Says that the file ends where only header, descriptor and tables should be. A sector that was begun counts.
    fn note_cut(&mut self) {
        let (length, overhead) = (self.source.len(), self.header.overhead);
        if overhead <= div_up(length, SECTOR) {
            return;
        }
        let place = (self.header_place().saturating_add(64), 8);
        let found = format!("{overhead}, in a file of {length} bytes");
        let expected = "a sector that the file reaches";
        let path = "header, overHead";
        self.findings
            .add(&rules::OVERHEAD_CUT, place, path, found, expected);
    }

    /// The entries of the table at a sector.
    pub(super) fn raw_table(&self, number: u64, sector: u32) -> Result<Vec<u32>> {
        let name = format!("grain table {number} (grain directory entry {sector})");
        let place = u64::from(sector).saturating_mul(SECTOR);
        // The last table may be cut after the last grain of the disk.
        let bytes = self.header.entries_of(number).saturating_mul(4);
        Ok(words(&read_vec(
            &*self.source,
            &name,
            place,
            bytes,
            &Limits::DEFAULT,
        )?))
    }

    /// Grain table `number` as it counts, `None` where there is none.
    pub(super) fn effective_table(&self, number: u64) -> Result<Option<Vec<u32>>> {
        if self.layout == Layout::Markers {
            return Ok(self.walked.get(&number).map(|table| table.to_vec()));
        }
        let sector = self.table_sector(number);
        if sector == 0 {
            return Ok(None);
        }
        let mut table = self.raw_table(number, sector)?;
        let second = self.rgd.get(index(number)).copied().unwrap_or(0);
        let doubtful = |this: &Self, table: &[u32]| {
            table
                .iter()
                .any(|entry| *entry != 0 && !this.may_be_grain(*entry))
        };
        if second != sector && doubtful(self, &table) && self.is_second(second, number) {
            for (entry, other) in table.iter_mut().zip(self.raw_table(number, second)?) {
                if *entry != 0
                    && !self.may_be_grain(*entry)
                    && other != 0
                    && self.may_be_grain(other)
                {
                    *entry = other;
                }
            }
        }
        Ok(Some(table))
    }

    /// Whether grain table `number`, at `sector`, is in a hole of the file. Every table of a sparse disk has its place,
    /// also those of the terabytes never written to, and none of them needs to be read.
    ///
    /// `known` is a hole found before, in bytes, so that the file is asked once for all tables in it.
    pub(super) fn is_hole(&self, number: u64, sector: u32, known: &mut Range<u64>) -> bool {
        let start = u64::from(sector).saturating_mul(SECTOR);
        let end = start.saturating_add(self.header.entries_of(number).saturating_mul(4));
        if end > self.source.len() || start >= end {
            return false;
        }
        if !known.contains(&start) {
            let there = self.source.extent_at(start);
            if there.offset != start || there.kind.has_bytes() {
                return false;
            }
            *known = start..start.saturating_add(there.length);
        }
        end <= known.end
    }

    /// Whether an entry can lead to a grain, or to zeros.
    pub(super) fn may_be_grain(&self, entry: u32) -> bool {
        if entry == 1 && self.header.has_zeroed_grains() {
            return true;
        }
        let place = u64::from(entry).saturating_mul(SECTOR);
        self.holds(place, SECTOR) && !self.in_metadata(entry, 1)
    }

    /// Whether any of `length` bytes from a sector on belongs to header, descriptor, directory or tables in use.
    pub(super) fn in_metadata(&self, sector: u32, length: u64) -> bool {
        let start = u64::from(sector);
        let end = start.saturating_add(div_up(length, SECTOR));
        self.spans().meet(&(start..end))
    }

    /// Whether `length` bytes from `start` lie in the file.
    pub(super) fn holds(&self, start: u64, length: u64) -> bool {
        start
            .checked_add(length)
            .is_some_and(|end| end <= self.source.len())
    }

    /// File offset of the grain an entry points to, after checking that `needed` bytes of it can be there.
    fn grain_place(&self, unit: u64, entry: u32, needed: u64) -> Result<u64> {
        let place = u64::from(entry).saturating_mul(SECTOR);
        let which = |what: std::fmt::Arguments<'_>| {
            Error::corrupt(format_args!(
                "grain table entry of grain {unit} points to sector {entry}, {what}"
            ))
        };
        if !self.holds(place, needed) {
            return Err(which(format_args!(
                "whose {needed} bytes end past the end ({})",
                self.source.len()
            )));
        }
        if self.in_metadata(entry, needed) {
            return Err(which(format_args!("inside the metadata")));
        }
        Ok(place)
    }

    /// Guest sector and length of packed bytes as the marker in front of a grain has them.
    pub(super) fn marker(&self, place: u64) -> Result<(u64, u64)> {
        let head = read_vec(&*self.source, "grain marker", place, 12, &Limits::DEFAULT)?;
        let (lba, size) = (le_u64(&head, 0), le_u32(&head, 8));
        Ok((lba.unwrap_or(0), u64::from(size.unwrap_or(0))))
    }

    /// The unpacked bytes of a compressed grain.
    pub(super) fn unpack_grain(&self, unit: u64, entry: u32) -> Result<Vec<u8>> {
        let place = self.grain_place(unit, entry, 1)?;
        let within = |error: Error| error.within(format_args!("grain {unit} at offset {place}"));
        let most = self.header.packed_most();
        let (start, length) = if self.header.has_markers() {
            let (lba, size) = self.marker(place)?;
            let expected = unit.saturating_mul(self.header.grain);
            if lba != expected {
                let message = format_args!("its marker says guest sector {lba}, not {expected}");
                return Err(within(Error::corrupt(message)));
            }
            if size > most {
                let message =
                    format_args!("its marker says {size} compressed bytes, more than {most}");
                return Err(within(Error::corrupt(message)));
            }
            (place.saturating_add(12), size)
        } else {
            (place, most.min(self.source.len().saturating_sub(place)))
        };
        let packed = read_vec(
            &*self.source,
            "compressed grain",
            start,
            length,
            &Limits::DEFAULT,
        )
        .map_err(within)?;
        let bytes = unpack(&packed, Framing::Zlib, index(self.unit_bytes())).map_err(within)?;
        if len64(&bytes) < self.bytes_needed(unit) {
            let message = format_args!(
                "unpacks to {} bytes, {} are needed",
                bytes.len(),
                self.bytes_needed(unit)
            );
            return Err(within(Error::corrupt(message)));
        }
        Ok(bytes)
    }

    /// Refuses what a stream that was cut does not say.
    fn check_cut(&self, unit: u64) -> Result<()> {
        match self.cut {
            Some(cut) if unit >= cut => Err(Error::corrupt(format_args!(
                "grain {unit} is not in the stream, which was cut before grain {cut}"
            ))),
            _ => Ok(()),
        }
    }

    fn entry(&self, table: &[u32], unit: u64) -> u32 {
        table
            .get(index(rem(unit, self.units_per_table())))
            .copied()
            .unwrap_or(0)
    }

    /// Where the byte at `offset` of the extent stands in the file as it is.
    pub(super) fn stored_at(&self, offset: u64) -> Option<u64> {
        let unit = div(offset, self.unit_bytes());
        let table = self.table(div(unit, self.units_per_table())).ok()??;
        match self.store(&table, unit).ok()? {
            Store::At(host) => host.checked_add(rem(offset, self.unit_bytes())),
            _ => None,
        }
    }
}

impl Units for Hosted {
    type Table = [u32];

    fn size(&self) -> u64 {
        self.header.capacity.saturating_mul(SECTOR)
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.header.grain_bytes()
    }

    fn units_per_table(&self) -> u64 {
        u64::from(self.header.table_entries)
    }

    fn next_table(&self, table: u64) -> u64 {
        if self.layout == Layout::Markers {
            let later = self.walked.range(table..).next();
            return later.map_or(self.header.tables(), |(number, _)| *number);
        }
        let count = len64(&self.gd).max(len64(&self.rgd));
        let mut hole = 0..0;
        (table..count)
            .find(|number| {
                let sector = self.table_sector(*number);
                sector != 0 && !self.is_hole(*number, sector, &mut hole)
            })
            .unwrap_or(self.header.tables())
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[u32]>>> {
        if self.layout == Layout::Markers {
            let found = self.walked.get(&table).cloned();
            if found.is_none() {
                self.check_cut(table.saturating_mul(self.units_per_table()))?;
            }
            return Ok(found);
        }
        if let Some(known) = self.tables.find(table) {
            return Ok(Some(known));
        }
        let sector = self.table_sector(table);
        if sector == 0 {
            return Ok(None);
        }
        if !self.is_table(sector, table) {
            return Err(Error::corrupt(format_args!(
                "grain directory entry {table} leads to sector {sector}, where no grain table can be"
            )));
        }
        if self.is_hole(table, sector, &mut (0..0)) {
            return Ok(None);
        }
        let load = || Ok(self.effective_table(table)?.unwrap_or_default().into());
        self.tables.get(table, load).map(Some)
    }

    fn store(&self, table: &[u32], unit: u64) -> Result<Store> {
        match self.entry(table, unit) {
            0 => self.check_cut(unit).map(|()| Store::Hole),
            1 if self.header.has_zeroed_grains() => Ok(Store::Zero),
            entry if self.header.compressed() => {
                self.grain_place(unit, entry, 1).map(|_| Store::Packed)
            }
            entry => self
                .grain_place(unit, entry, self.bytes_needed(unit))
                .map(Store::At),
        }
    }

    fn unpackers(&self) -> Option<&Unpackers> {
        Some(&self.unpackers)
    }

    fn packed_at(&self, table: &[u32], unit: u64) -> Result<(u64, u64)> {
        let place = self.grain_place(unit, self.entry(table, unit), 1)?;
        let left = self.source.len().saturating_sub(place);
        // Grains seldom grow: one that did is read by itself.
        let most = self.unit_bytes().saturating_add(SECTOR);
        Ok((place, most.min(left)))
    }

    fn unpack(&self, unit: u64, packed: &[u8], engine: &mut Engine<'_>, out: &mut [u8]) -> bool {
        let packed = if self.header.has_markers() {
            let expected = unit.saturating_mul(self.header.grain);
            le_u32(packed, 8)
                .filter(|_| le_u64(packed, 0) == Some(expected))
                .and_then(|size| drylab_block::slice_at(packed, 12, index(u64::from(size))))
        } else {
            Some(packed)
        };
        packed.is_some_and(|packed| engine.unpack(packed, Framing::Zlib, out) == Ok(out.len()))
    }

    fn unpacked(&self, table: &[u32], unit: u64) -> Result<Arc<[u8]>> {
        let unpack = || Ok(self.unpack_grain(unit, self.entry(table, unit))?.into());
        self.grains.get(unit, unpack)
    }
}

impl ReadAt for Hosted {
    fn len(&self) -> u64 {
        self.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        map::read(self, offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let found = map::extent(self, offset);
        debug_assert!(found.kind != ExtentKind::Compressed || self.header.compressed());
        found
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        map::below(self, offset)
    }
}

pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}
