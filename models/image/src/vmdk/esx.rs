//! Reading the sparse extents of ESX: COWD and seSparse.
//!
//! Sources: COWD ("ESX Server Sparse Extent") is in VMware's "Virtual Disk Format 1.1" (2007) and 5.0 (2011), and in
//! libvmdk's notes. seSparse is described nowhere by VMware; what is known was found by black-box research for QEMU (2019)
//! and agrees with the file of ESXi that the tests read. All numbers are little-endian, all places count sectors of 512
//! bytes from the start of the file.
//!
//! ```text
//! COWD      header (4 sectors) │ grain directory │ grain tables and grains as they came …
//! seSparse  constant header │ volatile header │ journal header │ journal │ grain directory │ grain tables │
//!           free bitmap │ back map │ grains …
//! ```
//!
//! * COWD: a directory entry is the sector of a table of 4,096 entries, a table entry the sector of a grain; 0 is none.
//! * seSparse: entries have 64 bits. `1` in the highest four of a directory entry says that the low 32 are the index of a
//!   table. The highest four of a table entry are 0 for none (read from the parent), 1 for unmapped and 2 for zero (read
//!   as zeros), 3 for a grain, whose index is bits 48 to 59 below bits 0 to 47.
//!
//! Not done: the journal of seSparse is not replayed, and neither format is written or repaired.

use super::claims::Spans;
use super::header::SECTOR;
use super::rules;
use crate::finding::Findings;
use crate::map::{self, Store, Units};
use crate::math::{div, div_up, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{Below, Error, Extent, Limits, ReadAt, Result, le_u32, le_u64, read_vec};
use std::ops::Range;
use std::sync::Arc;

/// First bytes of a COWD.
pub(crate) const COWD: &[u8; 4] = b"COWD";
/// First bytes of a seSparse.
pub(crate) const SE_SPARSE: &[u8; 8] = b"\xbe\xba\xfe\xca\0\0\0\0";
/// First bytes of the volatile header of a seSparse.
const VOLATILE: u64 = 0xcafe_cafe;

/// Entries of the grain tables of a COWD.
const COWD_ENTRIES: u64 = 4096;
/// Sectors of the header of a COWD.
const COWD_HEADER: u64 = 4;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// ESX Server Sparse Extent.
    Cowd,
    /// Space-efficient sparse extent, of ESXi from 6.5 on.
    SeSparse,
}

impl Kind {
    /// The kind a file starts as.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(COWD) {
            Some(Self::Cowd)
        } else if head.starts_with(SE_SPARSE) {
            Some(Self::SeSparse)
        } else {
            None
        }
    }

    /// `createType` of the descriptors that name such extents.
    pub(crate) fn create_type(self) -> &'static str {
        match self {
            Self::Cowd => "vmfsSparse",
            Self::SeSparse => "seSparse",
        }
    }

    /// Bytes of an entry.
    pub(super) fn width(self) -> u64 {
        match self {
            Self::Cowd => 4,
            Self::SeSparse => 8,
        }
    }
}

/// One entry of a grain table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing here: the parent's.
    None,
    /// Zeros.
    Zero,
    /// A grain at this sector.
    At(u64),
    /// None of these.
    Wrong(u64),
}

/// An open extent of ESX.
pub(crate) struct Esx {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) kind: Kind,
    /// Sectors of the disk.
    capacity: u64,
    /// Sectors of a grain.
    grain: u64,
    pub(super) entries: u64,
    /// First sector of the grain directory.
    pub(super) directory_sector: u64,
    /// Sectors of the grain tables, 0 for none, `u64::MAX` for what is no sector.
    pub(super) directory: Vec<u64>,
    /// First sectors of the tables and of the grains of a seSparse.
    tables_at: u64,
    grains_at: u64,
    /// Sectors that hold neither tables nor grains.
    pub(super) fixed: Spans,
    details: Vec<(String, String)>,
    pub(super) limits: Limits,
    tables: Recent<[Entry]>,
    findings: Findings,
}

impl Esx {
    /// Reads the headers and the grain directory.
    pub(crate) fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let head = read_vec(&*source, "VMDK header", 0, source.len().min(2048), limits)?;
        match Kind::of(&head) {
            Some(Kind::Cowd) => Self::open_cowd(source, &head, limits),
            Some(Kind::SeSparse) => Self::open_se(source, &head, limits),
            None => Err(Error::corrupt("VMDK extent is neither COWD nor seSparse")),
        }
    }

    fn open_cowd(source: Arc<dyn ReadAt>, head: &[u8], limits: &Limits) -> Result<Self> {
        let short = || Error::corrupt("COWD header is cut off");
        let field = |at: usize| le_u32(head, at).map(u64::from).ok_or_else(short);
        let (version, flags) = (field(4)?, field(8)?);
        let (capacity, grain) = (field(12)?, field(16)?);
        let (gd, count, free) = (field(20)?, field(24)?, field(28)?);
        let unclean = *head.get(1648).ok_or_else(short)? != 0;
        if version != 1 {
            return Err(Error::unsupported(format_args!(
                "COWD version {version}, known is 1"
            )));
        }
        let mut esx = Self::new(source, Kind::Cowd, capacity, grain, COWD_ENTRIES, limits)?;
        esx.directory_sector = gd;
        let needed = esx.tables_needed();
        if count < needed {
            return Err(Error::corrupt(format_args!(
                "COWD grain directory has {count} entries, {needed} are needed"
            )));
        }
        if unclean {
            let path = "header, uncleanShutdown";
            esx.findings.add(&rules::UNCLEAN, (1648, 1), path, 1, 0);
        }
        let bytes = esx.read_directory(needed, limits)?;
        esx.directory = super::hosted::words(&bytes)
            .into_iter()
            .map(u64::from)
            .collect();
        let directory = gd..gd.saturating_add(div_up(needed.saturating_mul(4), SECTOR));
        esx.fixed = Spans::of(vec![0..COWD_HEADER, directory]);
        for (name, value) in [
            ("version", version),
            ("flags", flags),
            ("numSectors", capacity),
            ("grainSize", grain),
            ("freeSector", free),
        ] {
            esx.details
                .push((format!("header.{name}"), value.to_string()));
        }
        let parent = head.get(32..1056).unwrap_or_default();
        let parent = parent.split(|byte| *byte == 0).next().unwrap_or_default();
        if flags & 1 == 0 && !parent.is_empty() {
            let name = String::from_utf8_lossy(parent).into_owned();
            esx.details.push(("header.parentFileName".to_owned(), name));
        }
        esx.note_directory();
        Ok(esx)
    }

    fn open_se(source: Arc<dyn ReadAt>, head: &[u8], limits: &Limits) -> Result<Self> {
        let short = || Error::corrupt("seSparse header is cut off");
        let field = |at: usize| le_u64(head, at).ok_or_else(short);
        let (version, capacity, grain) = (field(8)?, field(16)?, field(24)?);
        let (table, flags) = (field(32)?, field(40)?);
        let (volatile, journal, journal_size) = (field(80)?, field(112)?, field(120)?);
        let (gd, gd_size) = (field(128)?, field(136)?);
        let (tables_at, grains_at) = (field(144)?, field(192)?);
        if version >> 32 != 2 {
            return Err(Error::unsupported(format_args!(
                "seSparse version {}.{}, known is 2.1",
                version >> 32,
                version & 0xffff_ffff
            )));
        }
        if flags != 0 {
            return Err(Error::unsupported(format_args!(
                "seSparse flags {flags:#x}, known is 0"
            )));
        }
        if !(1..=4096).contains(&table) {
            return Err(Error::corrupt(format_args!(
                "seSparse grain tables of {table} sectors, allowed are 1 to 4096"
            )));
        }
        let entries = table.saturating_mul(SECTOR / 8);
        let mut esx = Self::new(source, Kind::SeSparse, capacity, grain, entries, limits)?;
        esx.directory_sector = gd;
        esx.tables_at = tables_at;
        esx.grains_at = grains_at;
        let needed = esx.tables_needed();
        if gd_size.saturating_mul(SECTOR / 8) < needed {
            return Err(Error::corrupt(format_args!(
                "seSparse grain directory of {gd_size} sectors, {needed} entries are needed"
            )));
        }
        let bytes = esx.read_directory(needed, limits)?;
        let sector = |entry: u64| match (entry >> 60, entry & 0x0fff_ffff_0000_0000) {
            (0, _) if entry == 0 => 0,
            (1, 0) => tables_at.saturating_add((entry & 0xffff_ffff).saturating_mul(table)),
            _ => u64::MAX,
        };
        esx.directory = longs(&bytes).into_iter().map(sector).collect();
        let span = |at: u64, sectors: u64| at..at.saturating_add(sectors);
        esx.fixed = Spans::of(vec![
            0..1,
            span(volatile, 1),
            span(journal, journal_size),
            span(gd, gd_size),
            span(field(160)?, field(168)?),
            span(field(176)?, field(184)?),
        ]);
        for (name, value) in [
            ("grainSize", grain),
            ("grainTableSize", table),
            ("grainDirectory", gd),
            ("grainTables", tables_at),
            ("grains", grains_at),
        ] {
            esx.details
                .push((format!("header.{name}"), value.to_string()));
        }
        esx.note_geometry(version, table);
        esx.note_volatile(volatile);
        esx.note_directory();
        Ok(esx)
    }

    fn new(
        source: Arc<dyn ReadAt>,
        kind: Kind,
        capacity: u64,
        grain: u64,
        entries: u64,
        limits: &Limits,
    ) -> Result<Self> {
        if !grain.is_power_of_two() {
            return Err(Error::corrupt(format_args!(
                "grain size {grain} is not a power of two"
            )));
        }
        limits.check_table("a grain", grain.saturating_mul(SECTOR))?;
        if capacity
            .checked_mul(SECTOR)
            .is_none_or(|bytes| bytes > limits.disk_bytes_max)
        {
            return Err(Error::unsupported(format_args!(
                "capacity of {capacity} sectors is more than the {} bytes allowed: raise the limit disk-bytes",
                limits.disk_bytes_max
            )));
        }
        Ok(Self {
            source,
            kind,
            capacity,
            grain,
            entries,
            directory_sector: 0,
            directory: Vec::new(),
            tables_at: 0,
            grains_at: 0,
            fixed: Spans::default(),
            details: Vec::new(),
            limits: *limits,
            tables: Recent::new(8),
            findings: Findings::default(),
        })
    }

    fn tables_needed(&self) -> u64 {
        div_up(div_up(self.capacity, self.grain), self.entries)
    }

    fn read_directory(&self, needed: u64, limits: &Limits) -> Result<Vec<u8>> {
        let place = self.directory_sector.saturating_mul(SECTOR);
        let length = needed.saturating_mul(self.kind.width());
        read_vec(&*self.source, "grain directory", place, length, limits)
    }

    /// What QEMU insists on and other programs may: the only geometry ever seen.
    fn note_geometry(&mut self, version: u64, table: u64) {
        for (place, name, found, expected) in [
            (8, "version", version, 0x2_0000_0001),
            (24, "grainSize", self.grain, 8),
            (32, "grainTableSize", table, 64),
        ] {
            if found != expected {
                let path = format!("header, {name}");
                self.findings
                    .add(&rules::SE_GEOMETRY, (place, 8), path, found, expected);
            }
        }
    }

    fn note_volatile(&mut self, sector: u64) {
        let place = sector.saturating_mul(SECTOR);
        let bytes = read_vec(
            &*self.source,
            "volatile header",
            place,
            SECTOR,
            &self.limits,
        );
        let bytes = bytes.unwrap_or_default();
        match (le_u64(&bytes, 0), le_u64(&bytes, 24)) {
            (Some(VOLATILE), Some(0)) => {}
            (Some(VOLATILE), replay) => {
                let at = (place.saturating_add(24), 8);
                let found = replay.unwrap_or(0);
                let path = "volatile header, replayJournal";
                self.findings.add(&rules::SE_JOURNAL, at, path, found, 0);
            }
            (magic, _) => {
                let found = magic.map_or("missing".to_owned(), |magic| format!("{magic:#x}"));
                let path = "volatile header, magic";
                let expected = format!("{VOLATILE:#x}");
                self.findings
                    .add(&rules::SE_VOLATILE, (place, 8), path, found, expected);
            }
        }
    }

    fn note_directory(&mut self) {
        let mut findings = std::mem::take(&mut self.findings);
        for (number, sector) in (0u64..).zip(&self.directory) {
            if *sector != 0 && !self.is_table(*sector, number) {
                let width = self.kind.width();
                let at = self.directory_sector.saturating_mul(SECTOR);
                let at = at.saturating_add(number.saturating_mul(width));
                let path = format!("grain directory, entry {number}");
                let found = if *sector == u64::MAX {
                    "no index of a table".to_owned()
                } else {
                    format!("sector {sector}")
                };
                let expected = "a grain table inside the file";
                findings.add(&rules::GT_LOST, (at, width), path, found, expected);
            }
        }
        self.findings = findings;
    }

    pub(super) fn noticed(&self) -> &Findings {
        &self.findings
    }

    pub(super) fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }

    fn table_bytes(&self, number: u64) -> u64 {
        let first = number.saturating_mul(self.entries);
        let grains = div_up(self.capacity, self.grain);
        let entries = grains.saturating_sub(first).min(self.entries);
        entries.saturating_mul(self.kind.width())
    }

    pub(super) fn table_span(&self, sector: u64, number: u64) -> Range<u64> {
        sector..sector.saturating_add(div_up(self.table_bytes(number), SECTOR))
    }

    pub(super) fn is_table(&self, sector: u64, number: u64) -> bool {
        let bytes = self.table_bytes(number);
        self.holds(sector, bytes) && !self.fixed.meet(&self.table_span(sector, number))
    }

    /// Whether `length` bytes from a sector on are in the file.
    pub(super) fn holds(&self, sector: u64, length: u64) -> bool {
        let start = sector.checked_mul(SECTOR);
        start
            .and_then(|start| start.checked_add(length))
            .is_some_and(|end| end <= self.source.len())
    }

    pub(super) fn read_table(&self, number: u64, sector: u64) -> Result<Vec<Entry>> {
        if sector == u64::MAX {
            return Err(Error::corrupt(format_args!(
                "grain directory entry {number} is no index of a table"
            )));
        }
        let name = format!("grain table {number} at sector {sector}");
        let place = sector.saturating_mul(SECTOR);
        let bytes = self.table_bytes(number);
        let bytes = read_vec(&*self.source, &name, place, bytes, &self.limits)?;
        Ok(match self.kind {
            Kind::Cowd => {
                let entry = |entry: u32| match entry {
                    0 => Entry::None,
                    sector => Entry::At(u64::from(sector)),
                };
                super::hosted::words(&bytes)
                    .into_iter()
                    .map(entry)
                    .collect()
            }
            Kind::SeSparse => longs(&bytes)
                .into_iter()
                .map(|entry| self.se_entry(entry))
                .collect(),
        })
    }

    fn se_entry(&self, entry: u64) -> Entry {
        let number = ((entry & 0x0fff_0000_0000_0000) >> 48)
            | (entry & 0x0000_ffff_ffff_ffff).saturating_mul(1 << 12);
        match entry >> 60 {
            0 if entry == 0 => Entry::None,
            1 | 2 => Entry::Zero,
            3 => Entry::At(
                self.grains_at
                    .saturating_add(number.saturating_mul(self.grain)),
            ),
            _ => Entry::Wrong(entry),
        }
    }

    fn entry(&self, table: &[Entry], unit: u64) -> Entry {
        let at = index(rem(unit, self.entries));
        table.get(at).copied().unwrap_or(Entry::None)
    }

    /// Where the byte at `offset` of the extent stands in the file.
    pub(super) fn stored_at(&self, offset: u64) -> Option<u64> {
        let unit = div(offset, self.unit_bytes());
        let table = self.table(div(unit, self.entries)).ok()??;
        match self.store(&table, unit).ok()? {
            Store::At(host) => host.checked_add(rem(offset, self.unit_bytes())),
            _ => None,
        }
    }
}

impl Units for Esx {
    type Table = [Entry];

    fn size(&self) -> u64 {
        self.capacity.saturating_mul(SECTOR)
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.grain.saturating_mul(SECTOR)
    }

    fn units_per_table(&self) -> u64 {
        self.entries
    }

    fn next_table(&self, table: u64) -> u64 {
        let later = self.directory.get(index(table)..).unwrap_or_default();
        let skip = later.iter().position(|sector| *sector != 0);
        skip.and_then(|skip| u64::try_from(skip).ok())
            .map_or(len64(&self.directory), |skip| table.saturating_add(skip))
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[Entry]>>> {
        let sector = self.directory.get(index(table)).copied().unwrap_or(0);
        if sector == 0 {
            return Ok(None);
        }
        let load = || Ok(self.read_table(table, sector)?.into());
        self.tables.get(table, load).map(Some)
    }

    fn store(&self, table: &[Entry], unit: u64) -> Result<Store> {
        match self.entry(table, unit) {
            Entry::None => Ok(Store::Hole),
            Entry::Zero => Ok(Store::Zero),
            Entry::Wrong(value) => Err(Error::corrupt(format_args!(
                "grain table entry of grain {unit} is {value:#x}, of no known kind"
            ))),
            Entry::At(sector) => {
                let needed = self.bytes_needed(unit);
                let span = sector..sector.saturating_add(div_up(needed, SECTOR));
                if self.fixed.meet(&span) {
                    return Err(Error::corrupt(format_args!(
                        "grain table entry of grain {unit} points to sector {sector}, inside the metadata"
                    )));
                }
                if !self.holds(sector, needed) {
                    return Err(Error::corrupt(format_args!(
                        "grain table entry of grain {unit} points to sector {sector}, whose {needed} bytes end past the end ({})",
                        self.source.len()
                    )));
                }
                Ok(Store::At(sector.saturating_mul(SECTOR)))
            }
        }
    }

    fn unpacked(&self, _: &[Entry], unit: u64) -> Result<Arc<[u8]>> {
        Err(Error::corrupt(format_args!(
            "grain {unit} cannot be compressed"
        )))
    }
}

impl ReadAt for Esx {
    fn len(&self) -> u64 {
        self.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        map::read(self, offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        map::extent(self, offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        map::below(self, offset)
    }
}

fn longs(bytes: &[u8]) -> Vec<u64> {
    let (longs, _) = bytes.as_chunks::<8>();
    longs.iter().map(|long| u64::from_le_bytes(*long)).collect()
}
