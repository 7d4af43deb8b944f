//! Reading a sparse extent.

use super::descriptor::Descriptor;
use super::header::{GD_AT_END, Header, Marker, SECTOR};
use super::rules;
use crate::codec::{Engine, Framing, Unpackers, unpack};
use crate::container::Container;
use crate::finding::Findings;
use crate::map::{self, Store, Units};
use crate::math::{div_up, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{
    Below, DenyAll, Error, Extent, Limits, ReadAt, Reference, Resolver, Result, le_u32, le_u64,
    read_vec,
};
use std::sync::Arc;

/// Where the grain directory in use was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// In front of the grains.
    Front,
    /// Behind them, found through the footer.
    Footer,
}

/// An open VMDK of one sparse extent.
pub(crate) struct Vmdk {
    source: Arc<dyn ReadAt>,
    header: Header,
    layout: Layout,
    descriptor: Descriptor,
    directory: Vec<u32>,
    tables: Recent<[u32]>,
    grains: Recent<[u8]>,
    unpackers: Unpackers,
    findings: Findings,
}

impl Vmdk {
    /// Reads header, footer, descriptor and grain directory; grain tables and grains are read when asked for.
    pub(crate) fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let bytes = read_vec(&*source, "VMDK header", 0, SECTOR, limits)?;
        let front = Header::parse(&bytes, 0, limits)?;
        let descriptor = read_descriptor(&*source, &front, limits)?;
        check_whole(&descriptor)?;
        let mut findings = Findings::default();
        let (header, layout) = if front.gd_offset == GD_AT_END {
            (
                read_footer(&*source, &front, limits, &mut findings)?,
                Layout::Footer,
            )
        } else {
            (front, Layout::Front)
        };
        let directory = read_directory(&*source, &header, limits)?;
        let mut vmdk = Self {
            source,
            header,
            layout,
            descriptor,
            directory,
            tables: Recent::new(8),
            grains: Recent::new(4),
            unpackers: Unpackers::default(),
            findings,
        };
        vmdk.note_findings();
        Ok(vmdk)
    }

    fn note_findings(&mut self) {
        if self.header.unclean {
            let place = (72, 1);
            self.findings
                .add(&rules::UNCLEAN, place, "header, uncleanShutdown", 1, 0);
        }
        if let Some(line) = self.descriptor.extents.first()
            && line.sectors != self.header.capacity
        {
            let found = format!("{} sectors", self.header.capacity);
            let expected = format!("{} as in the descriptor's extent", line.sectors);
            self.findings.add(
                &rules::EXTENT_SIZE,
                (12, 8),
                "header, capacity",
                found,
                expected,
            );
        }
        if self.header.compressed() && self.layout == Layout::Front {
            let (found, expected) = (
                "in front of compressed grains",
                "behind them, with a footer",
            );
            self.findings.add(
                &rules::NOT_A_STREAM,
                (56, 8),
                "grain directory",
                found,
                expected,
            );
        }
    }

    /// Whether `length` bytes from `start` lie in the file.
    fn holds(&self, start: u64, length: u64) -> bool {
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
        if u64::from(entry) < self.header.overhead.min(u64::from(u32::MAX)) {
            let overhead = self.header.overhead;
            return Err(which(format_args!(
                "inside the metadata (the first {overhead} sectors)"
            )));
        }
        if !self.holds(place, needed) {
            return Err(which(format_args!(
                "whose {needed} bytes end past the end ({})",
                self.source.len()
            )));
        }
        Ok(place)
    }

    fn unpack_grain(&self, unit: u64, entry: u32) -> Result<Arc<[u8]>> {
        let place = self.grain_place(unit, entry, 1)?;
        let within = |error: Error| error.within(format_args!("grain {unit} at offset {place}"));
        let most = self.packed_most();
        let (start, length) = if self.header.has_markers() {
            let head = read_vec(&*self.source, "grain marker", place, 12, &Limits::DEFAULT)?;
            let (lba, size) = (
                le_u64(&head, 0).unwrap_or(0),
                u64::from(le_u32(&head, 8).unwrap_or(0)),
            );
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
        Ok(bytes.into())
    }

    /// Whether the grain table at `sector` is in a hole of the file. Every table of a sparse disk has its place, also
    /// those of the terabytes never written to, and none of them needs to be read.
    fn is_hole(&self, sector: u32) -> bool {
        let place = u64::from(sector).saturating_mul(SECTOR);
        let length = self.units_per_table().saturating_mul(4);
        if !self.holds(place, length) {
            return false;
        }
        let there = self.source.extent_at(place);
        there.offset == place && !there.kind.has_bytes() && there.length >= length
    }

    /// Most bytes of a packed grain. No sane deflate stream is twice its output; two sectors cover the marker and tiny
    /// grains.
    fn packed_most(&self) -> u64 {
        self.unit_bytes().saturating_mul(2).saturating_add(1024)
    }

    fn entry(&self, table: &[u32], unit: u64) -> u32 {
        table
            .get(index(rem(unit, self.units_per_table())))
            .copied()
            .unwrap_or(0)
    }
}

impl Units for Vmdk {
    type Table = [u32];

    fn size(&self) -> u64 {
        self.header.capacity.saturating_mul(SECTOR)
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.header.grain.saturating_mul(SECTOR)
    }

    fn units_per_table(&self) -> u64 {
        u64::from(self.header.table_entries)
    }

    fn next_table(&self, table: u64) -> u64 {
        let later = self.directory.get(index(table)..).unwrap_or_default();
        let skip = later
            .iter()
            .position(|entry| *entry != 0 && !self.is_hole(*entry))
            .unwrap_or(later.len());
        table.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX))
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[u32]>>> {
        let sector = self.directory.get(index(table)).copied().unwrap_or(0);
        if sector == 0 || self.is_hole(sector) {
            return Ok(None);
        }
        self.tables
            .get(table, || {
                let name = format!("grain table {table} (grain directory entry {sector})");
                let place = u64::from(sector).saturating_mul(SECTOR);
                // The last table may be cut after the last grain of the disk.
                let first = table.saturating_mul(self.units_per_table());
                let entries = self
                    .header
                    .grains()
                    .saturating_sub(first)
                    .min(self.units_per_table());
                let bytes = read_vec(
                    &*self.source,
                    &name,
                    place,
                    entries.saturating_mul(4),
                    &Limits::DEFAULT,
                )?;
                Ok(words(&bytes).into())
            })
            .map(Some)
    }

    fn store(&self, table: &[u32], unit: u64) -> Result<Store> {
        match self.entry(table, unit) {
            0 => Ok(Store::Hole),
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
        self.grains
            .get(unit, || self.unpack_grain(unit, self.entry(table, unit)))
    }
}

impl Container for Vmdk {
    fn subformat(&self) -> String {
        self.descriptor
            .value("createType")
            .unwrap_or_default()
            .to_owned()
    }

    fn details(&self) -> Vec<(String, String)> {
        let layout = match (self.layout, self.header.rgd_offset) {
            (Layout::Footer, _) => "footer",
            (Layout::Front, 0) => "front GD",
            (Layout::Front, _) => "front GD and RGD",
        };
        let mut details = vec![
            ("header.version".to_owned(), self.header.version.to_string()),
            (
                "header.flags".to_owned(),
                format!("{:#x}", self.header.flags),
            ),
            ("header.grainSize".to_owned(), self.header.grain.to_string()),
            (
                "header.overHead".to_owned(),
                self.header.overhead.to_string(),
            ),
            ("layout".to_owned(), layout.to_owned()),
        ];
        details.extend(self.descriptor.details());
        details
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }
}

impl ReadAt for Vmdk {
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

fn words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// The embedded descriptor; without one the file is one part of a split disk.
fn read_descriptor(source: &dyn ReadAt, header: &Header, limits: &Limits) -> Result<Descriptor> {
    if header.descriptor_offset == 0 || header.descriptor_size == 0 {
        return Err(part_of_a_split_disk());
    }
    let place = header.descriptor_offset.saturating_mul(SECTOR);
    let length = header.descriptor_size.saturating_mul(SECTOR);
    if place
        .checked_add(length)
        .is_some_and(|end| end <= source.len())
        && length > limits.text_bytes_max
    {
        let most = limits.text_bytes_max;
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor of {length} bytes, more than {most}"
        )));
    }
    let bytes = read_vec(source, "VMDK descriptor", place, length, limits)?;
    Descriptor::parse(&bytes, limits)
}

fn part_of_a_split_disk() -> Error {
    Error::unsupported(
        "VMDK sparse extent without a descriptor: it is one part of a disk whose descriptor is another file",
    )
}

/// Refuses disks that need another file.
fn check_whole(descriptor: &Descriptor) -> Result<()> {
    match descriptor.value("createType") {
        Some("monolithicSparse" | "streamOptimized") => {}
        Some(other) => {
            return Err(Error::unsupported(format_args!(
                "VMDK createType {other:?} in a sparse extent"
            )));
        }
        None if descriptor.values.is_empty() => return Err(part_of_a_split_disk()),
        None => return Err(Error::corrupt("VMDK descriptor has no createType")),
    }
    refuse_parent(descriptor)?;
    if let [_, _, ..] = descriptor.extents.as_slice() {
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor with {} extents; files named inside an input are not opened",
            descriptor.extents.len()
        )));
    }
    match descriptor.extents.first() {
        Some(line) if !line.kind.eq_ignore_ascii_case("SPARSE") => {
            let (kind, name) = (&line.kind, &line.name);
            Err(Error::unsupported(format_args!(
                "VMDK extent {name:?} of type {kind} in a sparse extent"
            )))
        }
        // The name is ignored: files are renamed, and this file is the extent.
        _ => Ok(()),
    }
}

/// Refuses a snapshot, whose other bytes are in another disk.
pub(crate) fn refuse_parent(descriptor: &Descriptor) -> Result<()> {
    let parent = descriptor.value("parentCID").unwrap_or("ffffffff");
    if parent.eq_ignore_ascii_case("ffffffff") {
        return Ok(());
    }
    let name = descriptor
        .value("parentFileNameHint")
        .unwrap_or(parent)
        .to_owned();
    let kind = "parent disk";
    let by = String::new();
    DenyAll.resolve(&Reference { kind, name, by }).map(drop)
}

/// Footer marker, footer and end-of-stream marker: the last three sectors of the file.
fn read_footer(
    source: &dyn ReadAt,
    front: &Header,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Header> {
    let length = source.len();
    let place = length.checked_sub(3 * SECTOR).filter(|_| rem(length, SECTOR) == 0).ok_or_else(|| {
        Error::corrupt(format_args!("VMDK says its grain directory is behind the grains, but {length} bytes hold no footer"))
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
    let footer = Header::parse(footer, length.saturating_sub(2 * SECTOR), limits)?;
    if footer.gd_offset == GD_AT_END {
        return Err(Error::corrupt(format_args!(
            "VMDK footer at offset {place} points to a footer again"
        )));
    }
    let same = |header: &Header| {
        (
            header.version,
            header.capacity,
            header.grain,
            header.descriptor_offset,
        )
    };
    if same(&footer) != same(front) {
        let found = "another than the header's in version, capacity, grain size or descriptor";
        let place = (place.saturating_add(SECTOR), SECTOR);
        findings.add(
            &rules::FOOTER_DIFFERS,
            place,
            "footer",
            found,
            "the same; it counts",
        );
    }
    Ok(footer)
}

/// The grain directory: one entry for each grain table of the disk.
fn read_directory(source: &dyn ReadAt, header: &Header, limits: &Limits) -> Result<Vec<u32>> {
    let place = header.gd_offset.saturating_mul(SECTOR);
    let length = header.tables().saturating_mul(4);
    if header.capacity > 0 && header.gd_offset == 0 {
        return Err(Error::corrupt(
            "VMDK header has no grain directory (gdOffset is 0)",
        ));
    }
    if div_up(length, SECTOR) == 0 {
        return Ok(Vec::new());
    }
    Ok(words(&read_vec(
        source,
        "grain directory",
        place,
        length,
        limits,
    )?))
}
