//! Reading fixed and dynamic disks.

use super::footer::{Footer, Kind, VERSION, locate, verify};
use super::{DISK_BYTES_MAX, SECTOR, VhdSize};
use crate::map::{self, Store, Units};
use crate::math::{div, div_up, index, round_up};
use drylab_block::{
    Error, Extent, Finding, Limits, ReadAt, Result, Severity, Window, be_u32, be_u64, read_vec,
};
use std::sync::Arc;

const HEADER_COOKIE: &[u8; 8] = b"cxsparse";
/// Bytes of a dynamic header.
pub(crate) const HEADER_SIZE: usize = 1024;
/// Where its checksum stands.
pub(crate) const HEADER_CHECKSUM_AT: usize = 0x24;
/// BAT entry of a block that does not exist.
pub(crate) const UNUSED: u32 = u32::MAX;

/// An open VHD.
pub(crate) struct Vhd {
    footer: Footer,
    body: Body,
    findings: Vec<Finding>,
    details: Vec<(String, String)>,
}

enum Body {
    Fixed(Window),
    Dynamic(Blocks),
}

impl Vhd {
    /// Reads footer, header and BAT; `believes` decides which size the disk has.
    pub(crate) fn open(
        source: Arc<dyn ReadAt>,
        believes: VhdSize,
        limits: &Limits,
    ) -> Result<Self> {
        let (footer, place, mut findings) = locate(&*source)?;
        let size = believes.bytes(&footer);
        let most = limits.disk_bytes_max.min(DISK_BYTES_MAX);
        if size > most {
            return Err(Error::unsupported(format_args!(
                "VHD of {size} bytes, more than the {most} allowed"
            )));
        }
        let mut details = footer.details();
        let body = match footer.kind {
            Kind::Differencing => {
                return Err(Error::unsupported(
                    "VHD differencing disk: what it lacks is in its parent, another file; merge it first",
                ));
            }
            Kind::Fixed => {
                note_length(&footer, place, &mut findings);
                Body::Fixed(fixed(source, size, place)?)
            }
            Kind::Dynamic => {
                let header = Header::read(&*source, footer.data_offset, limits, &mut findings)?;
                details.push(("blockSize".to_owned(), header.block.to_string()));
                details.push(("maxTableEntries".to_owned(), header.entries.to_string()));
                Body::Dynamic(Blocks::open(
                    source,
                    size,
                    &footer,
                    &header,
                    limits,
                    &mut findings,
                )?)
            }
        };
        note_sizes(&footer, size, place, &mut findings);
        Ok(Self {
            footer,
            body,
            findings,
            details,
        })
    }

    /// `fixed` or `dynamic`.
    pub(crate) fn subformat(&self) -> &'static str {
        self.footer.kind.name()
    }

    /// What was noticed on opening.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The fields of footer and header.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }

    fn disk(&self) -> &dyn ReadAt {
        match &self.body {
            Body::Fixed(window) => window,
            Body::Dynamic(blocks) => blocks,
        }
    }
}

impl ReadAt for Vhd {
    fn len(&self) -> u64 {
        self.disk().len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.disk().read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.disk().extent_at(offset)
    }
}

fn fixed(source: Arc<dyn ReadAt>, size: u64, footer: u64) -> Result<Window> {
    if size > footer {
        return Err(Error::corrupt(format_args!(
            "fixed VHD of {size} bytes, but only {footer} stand in front of its footer"
        )));
    }
    Window::new(source, 0, size)
}

fn warning(code: &'static str, offset: u64, message: String) -> Finding {
    Finding {
        code,
        severity: Severity::Warning,
        offset,
        message,
    }
}

fn note_length(footer: &Footer, place: u64, findings: &mut Vec<Finding>) {
    if footer.current_size != place {
        let message = format!(
            "the current size is {}, but {place} bytes stand in front of the footer",
            footer.current_size
        );
        findings.push(warning("VHD-FIXED-LENGTH", place, message));
    }
}

fn note_sizes(footer: &Footer, size: u64, place: u64, findings: &mut Vec<Finding>) {
    let (current, geometry) = (footer.current_size, footer.geometry.bytes());
    if current != geometry {
        let message = format!(
            "the current size is {current}, the geometry {} gives {geometry}: programs differ in which they believe, \
             and {size} was taken",
            footer.geometry
        );
        findings.push(warning(
            "VHD-TWO-SIZES",
            place.saturating_add(0x30),
            message,
        ));
    }
    if footer.saved_state {
        let message = "the machine was suspended with this disk in use (saved state)".to_owned();
        findings.push(warning(
            "VHD-SAVED-STATE",
            place.saturating_add(0x54),
            message,
        ));
    }
}

/// What the dynamic header says.
pub(super) struct Header {
    table: u64,
    entries: u32,
    block: u64,
}

impl Header {
    pub(super) fn read(
        source: &dyn ReadAt,
        place: u64,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Result<Self> {
        let length = crate::math::len64(&[0u8; HEADER_SIZE]);
        let bytes = read_vec(source, "VHD dynamic header", place, length, limits)?;
        if let Err(wrong) = verify("VHD dynamic header", &bytes, HEADER_CHECKSUM_AT) {
            let message = format!("{wrong}: Microsoft's programs refuse it");
            findings.push(warning("VHD-HEADER-CHECKSUM", place, message));
        }
        let next = be_u64(&bytes, 0x08).unwrap_or(0);
        if next != u64::MAX {
            let message = format!(
                "the data offset of the dynamic header is {next:#x}, not all ones: Microsoft's programs may refuse it"
            );
            findings.push(warning(
                "VHD-HEADER-DATA-OFFSET",
                place.saturating_add(8),
                message,
            ));
        }
        Self::parse(&bytes)
            .map_err(|error| error.within(format_args!("VHD dynamic header at offset {place}")))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        if !bytes.starts_with(HEADER_COOKIE) {
            return Err(Error::corrupt("has no cookie cxsparse"));
        }
        let version = be_u32(bytes, 0x18).unwrap_or(0);
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format_args!(
                "version {version:#010x}, known is 1.x"
            )));
        }
        let block = be_u32(bytes, 0x20).unwrap_or(0);
        if !block.is_power_of_two() || u64::from(block) < SECTOR {
            return Err(Error::corrupt(format_args!(
                "block size {block} is no power of two from 512 on"
            )));
        }
        Ok(Self {
            table: be_u64(bytes, 0x10).unwrap_or(0),
            entries: be_u32(bytes, 0x1c).unwrap_or(0),
            block: u64::from(block),
        })
    }
}

/// Bytes of the sector bitmap in front of a block.
pub(crate) fn bitmap_bytes(block: u64) -> u64 {
    round_up(div_up(div(block, SECTOR), 8), SECTOR)
}

/// The blocks of a dynamic disk.
pub(super) struct Blocks {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) bitmap: u64,
    pub(super) table: Arc<[u32]>,
    /// Footer copy, dynamic header and BAT: where no block may stand.
    metadata: [(u64, u64); 3],
}

impl Blocks {
    pub(super) fn open(
        source: Arc<dyn ReadAt>,
        size: u64,
        footer: &Footer,
        header: &Header,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Result<Self> {
        let needed = div_up(size, header.block);
        if u64::from(header.entries) < needed {
            return Err(Error::corrupt(format_args!(
                "VHD BAT has {} entries, a disk of {size} bytes in blocks of {} needs {needed}",
                header.entries, header.block
            )));
        }
        let length = needed.saturating_mul(4);
        let bytes = read_vec(&*source, "VHD BAT", header.table, length, limits)?;
        let (words, _) = bytes.as_chunks::<4>();
        let table: Arc<[u32]> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let blocks = Self {
            source,
            size,
            block: header.block,
            bitmap: bitmap_bytes(header.block),
            table,
            metadata: [
                (0, 512),
                (footer.data_offset, footer.data_offset.saturating_add(1024)),
                (header.table, header.table.saturating_add(length)),
            ],
        };
        blocks.note_lost(header, findings);
        blocks.note_shared(header, findings);
        Ok(blocks)
    }

    /// Blocks that cannot be where their entries say. Reading them fails; others are read.
    fn note_lost(&self, header: &Header, findings: &mut Vec<Finding>) {
        let used = (0u64..).zip(self.table.iter());
        let mut lost = used.filter(|(unit, entry)| **entry != UNUSED && !self.fits(*unit, **entry));
        let first = lost
            .next()
            .and_then(|(unit, entry)| self.place(unit, *entry).err());
        if let Some(first) = first {
            let more = lost.count();
            findings.push(Finding {
                code: "VHD-BLOCK-LOST",
                severity: Severity::Error,
                offset: header.table,
                message: format!(
                    "{first}; {more} more blocks are lost, and qemu-img refuses the file"
                ),
            });
        }
    }

    /// Blocks that stand in each other: a write to one changes the other.
    fn note_shared(&self, header: &Header, findings: &mut Vec<Finding>) {
        let mut used: Vec<u32> = self
            .table
            .iter()
            .copied()
            .filter(|e| *e != UNUSED)
            .collect();
        used.sort_unstable();
        let step = div(self.bitmap.saturating_add(self.block), SECTOR);
        let near = |pair: &&[u32]| match pair {
            [first, second] => u64::from(second.saturating_sub(*first)) < step,
            _ => false,
        };
        let mut shared = used.windows(2).filter(near);
        if let Some([first, second]) = shared.next() {
            let more = shared.count();
            findings.push(Finding {
                code: "VHD-BLOCKS-OVERLAP",
                severity: Severity::Error,
                offset: header.table,
                message: format!(
                    "blocks at sectors {first} and {second} overlap, since a block takes {step} sectors; {more} more do"
                ),
            });
        }
    }

    /// First byte of a block's bitmap, first of its data and end of what is needed of that.
    fn range(&self, unit: u64, entry: u32) -> (u64, u64, u64) {
        let start = u64::from(entry).saturating_mul(SECTOR);
        let data = start.saturating_add(self.bitmap);
        (start, data, data.saturating_add(self.bytes_needed(unit)))
    }

    /// The part of the metadata that a range lies in.
    fn metadata_in(&self, start: u64, end: u64) -> Option<&(u64, u64)> {
        let inside = |(from, to): &&(u64, u64)| start < *to && *from < end;
        self.metadata.iter().find(inside)
    }

    /// Whether what is needed of a block can be where its entry says.
    fn fits(&self, unit: u64, entry: u32) -> bool {
        let (start, _, end) = self.range(unit, entry);
        end <= self.source.len() && self.metadata_in(start, end).is_none()
    }

    /// Byte offset of a block's data, or why it cannot be there.
    pub(super) fn place(&self, unit: u64, entry: u32) -> Result<u64> {
        let (start, data, end) = self.range(unit, entry);
        let wrong = |what: std::fmt::Arguments<'_>| {
            Error::corrupt(format_args!(
                "VHD BAT entry of block {unit} points to sector {entry}, {what}"
            ))
        };
        let length = self.source.len();
        if end > length {
            return Err(wrong(format_args!(
                "whose bitmap and data end at {end}, past the end ({length})"
            )));
        }
        if let Some((from, to)) = self.metadata_in(start, end) {
            return Err(wrong(format_args!(
                "inside the metadata (bytes {from} to {to})"
            )));
        }
        Ok(data)
    }
}

impl Units for Blocks {
    type Table = [u32];

    fn size(&self) -> u64 {
        self.size
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.block
    }

    fn units_per_table(&self) -> u64 {
        crate::math::len64(&self.table).max(1)
    }

    fn next_table(&self, table: u64) -> u64 {
        table
    }

    /// There is one table, the BAT.
    fn table(&self, _: u64) -> Result<Option<Arc<[u32]>>> {
        Ok(Some(self.table.clone()))
    }

    fn store(&self, table: &[u32], unit: u64) -> Result<Store> {
        match table.get(index(unit)) {
            None | Some(&UNUSED) => Ok(Store::Hole),
            Some(entry) => self.place(unit, *entry).map(Store::At),
        }
    }

    fn unpacked(&self, _: &[u32], unit: u64) -> Result<Arc<[u8]>> {
        Err(Error::corrupt(format_args!(
            "VHD block {unit} is said to be compressed, which none is"
        )))
    }
}

impl ReadAt for Blocks {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        map::read(self, offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        map::extent(self, offset)
    }
}
