//! Reading: from an offset of the disk to bytes of the file, of the parent, or to zeros.

use super::bat::{self, Geometry, Slot};
use super::details;
use super::guid::Guid;
use super::header::{self, Header, Headers, SECTION};
use super::log;
use super::metadata::Metadata;
use super::parent::Parent;
use super::patched::{Patched, Patches};
use super::region::Regions;
use super::rules;
use super::survey::Areas;
use crate::container::{Container, Opener, Stored};
use crate::edit::Plan;
use crate::finding::Findings;
use crate::layer;
use crate::math::{div, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{Below, Error, Extent, ExtentKind, Limits, ReadAt, Result, read_vec, slice_at};
use std::sync::Arc;

/// Entries of the table that are read at once; a power of two, as the chunk ratio is.
const PAGE_ENTRIES: u64 = 512;
/// Bytes of a sector bitmap that are read at once.
const BITMAP_PAGE: u64 = 4096;
/// Pages of each kind that are kept.
const KEPT: usize = 16;

/// An open VHDX.
pub(crate) struct Vhdx {
    pub(super) file: Patched,
    pub(super) headers: Headers,
    pub(super) regions: Regions,
    pub(super) metadata: Metadata,
    pub(super) geometry: Geometry,
    /// Where no block may stand.
    pub(super) areas: Areas,
    pub(super) limits: Limits,
    parent: Option<Box<Parent>>,
    pages: Recent<[u64]>,
    bitmaps: Recent<[u8]>,
    pub(super) findings: Findings,
    details: Vec<(String, String)>,
}

/// Where bytes of the disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the parent, or zeros when there is none.
    Parent,
    /// Nowhere: zeros.
    Zero,
    /// At this offset of the file.
    File(u64),
}

impl Place {
    /// The same place so many bytes on.
    fn after(self, length: u64) -> Self {
        match self {
            Self::File(at) => Self::File(at.saturating_add(length)),
            other => other,
        }
    }
}

/// Everything in front of the blocks.
struct Front {
    file: Patched,
    headers: Headers,
    regions: Regions,
    metadata: Metadata,
    findings: Findings,
}

impl Front {
    fn read(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let mut findings = Findings::default();
        let headers = headers(&*source, &mut findings)?;
        let current = &headers.current;
        let patches = if current.log_guid == Guid::ZERO {
            Patches::default()
        } else {
            log::replay(&*source, current, limits, &mut findings)?
        };
        let file = Patched { source, patches };
        let regions = Regions::read(&file, limits, &mut findings)?;
        regions.note_places(file.len(), &mut findings);
        note_log(current, &regions, file.len(), &mut findings);
        let metadata = Metadata::read(&file, regions.metadata, limits, &mut findings)?;
        Ok(Self {
            file,
            headers,
            regions,
            metadata,
            findings,
        })
    }
}

/// The headers of a file with the signature of a VHDX.
fn headers(source: &dyn ReadAt, findings: &mut Findings) -> Result<Headers> {
    let mut magic = [0; 8];
    if source.len() >= 8 {
        source.read_at(0, &mut magic)?;
    }
    if &magic != header::MAGIC {
        return Err(Error::corrupt("VHDX without its signature vhdxfile"));
    }
    Headers::read(source, findings)
}

/// By what a child knows its parent: the parent's headers are all that is read.
pub(super) fn data_write_guid(source: &dyn ReadAt) -> Result<Guid> {
    Ok(headers(source, &mut Findings::default())?
        .current
        .data_write_guid)
}

/// Whether the log stands where a writer may use it.
fn log_is_placed(header: &Header, regions: &Regions, length: u64) -> bool {
    let mut regions = regions.all.iter();
    log::is_placed(header, length)
        && !regions
            .any(|region| region.offset < header.log_end() && header.log_offset < region.end())
}

fn note_log(header: &Header, regions: &Regions, length: u64, findings: &mut Findings) {
    if !log_is_placed(header, regions, length) {
        let found = format!("at {} with {} bytes", header.log_offset, header.log_length);
        let expected = format!("whole MiB from 1048576 to {length}, clear of the regions");
        let place = (header.log_offset, u64::from(header.log_length));
        findings.add(&rules::LOG_PLACE, place, "log", found, expected);
    }
}

/// The kind of a VHDX, as far as it can be told.
pub(crate) fn kind(source: &dyn ReadAt) -> Option<&'static str> {
    let source: &dyn ReadAt = source;
    let mut findings = Findings::default();
    let regions = Regions::read(source, &Limits::DEFAULT, &mut findings).ok()?;
    let region = regions.metadata;
    let metadata = Metadata::read(source, region, &Limits::DEFAULT, &mut findings).ok()?;
    Some(name(&metadata))
}

fn name(metadata: &Metadata) -> &'static str {
    match (metadata.has_parent, metadata.leave_blocks_allocated) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    }
}

impl Vhdx {
    /// Reads headers, log, tables and metadata, and opens the parent.
    pub(crate) fn open(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let limits = *opener.limits;
        let front = Front::read(source, &limits)?;
        let Front {
            file,
            headers,
            regions,
            metadata,
            mut findings,
        } = front;
        let geometry = Geometry::of(&metadata);
        let (needed, region) = (geometry.entries().saturating_mul(8), regions.bat);
        if u64::from(region.length) < needed {
            return Err(Error::corrupt(format_args!(
                "VHDX BAT has {} bytes, a disk of {} bytes in blocks of {} needs {needed}",
                region.length, geometry.disk_bytes, geometry.block_bytes
            )));
        }
        let length = file.len();
        if region.offset.saturating_add(needed) > length {
            return Err(Error::corrupt(format_args!(
                "VHDX BAT at {} needs {needed} bytes and ends past the end ({length})",
                region.offset
            )));
        }
        let log = Some(&headers.current).filter(|h| log_is_placed(h, &regions, length));
        let areas = Areas::new(&regions, log);
        let parent = match &metadata.locator {
            Some(locator) => Some(Box::new(Parent::open(
                locator,
                &geometry,
                opener,
                &mut findings,
            )?)),
            None => None,
        };
        let details = details::details(&file, &headers.current, &metadata)?;
        Ok(Self {
            file,
            headers,
            regions,
            metadata,
            geometry,
            areas,
            limits,
            parent,
            pages: Recent::new(KEPT),
            bitmaps: Recent::new(KEPT),
            findings,
            details,
        })
    }

    /// One entry of the table, through the pages used last.
    pub(super) fn entry(&self, entry: u64) -> Result<u64> {
        let page = div(entry, PAGE_ENTRIES);
        let entries = self.pages.get(page, || {
            let first = page.saturating_mul(PAGE_ENTRIES);
            let count = self.geometry.entries().saturating_sub(first);
            self.entries(first, count.min(PAGE_ENTRIES)).map(Arc::from)
        })?;
        let within = index(rem(entry, PAGE_ENTRIES));
        entries.get(within).copied().ok_or_else(|| {
            Error::corrupt(format_args!(
                "VHDX BAT entry {entry} of {}",
                self.geometry.entries()
            ))
        })
    }

    /// Some entries of the table, read now.
    pub(super) fn entries(&self, first: u64, count: u64) -> Result<Vec<u64>> {
        let at = self.entry_at(first);
        let bytes = read_vec(
            &self.file,
            "VHDX BAT",
            at,
            count.saturating_mul(8),
            &self.limits,
        )?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Where an entry stands in the file.
    pub(super) fn entry_at(&self, entry: u64) -> u64 {
        self.regions
            .bat
            .offset
            .saturating_add(entry.saturating_mul(8))
    }

    /// The bytes from `offset` on that are in one place: at most to the end of the block.
    fn step(&self, offset: u64) -> Result<(Place, u64)> {
        let geometry = &self.geometry;
        let (block, within) = (
            div(offset, geometry.block_bytes),
            rem(offset, geometry.block_bytes),
        );
        let left = geometry.bytes_needed(block).saturating_sub(within);
        let slot = Slot::Payload(block);
        let entry = self.entry(geometry.block_entry(block))?;
        if let Some(fault) = self
            .fault(slot, entry)?
            .filter(|fault| fault.is_unreadable())
        {
            return Err(Error::corrupt(format_args!(
                "VHDX block {block} is {}, expected {}",
                fault.found(entry),
                fault.expected(self.file.len())
            )));
        }
        let place = match bat::state(entry) {
            bat::NOT_PRESENT => Place::Parent,
            bat::UNDEFINED | bat::ZERO | bat::UNMAPPED => Place::Zero,
            _ => Place::File(bat::offset(entry).saturating_add(within)),
        };
        if bat::state(entry) == bat::PARTIALLY_PRESENT && geometry.has_parent {
            return self.partial(offset, left, place);
        }
        Ok((place, left))
    }

    /// The sectors from `offset` on that are all of this file, or all of the parent.
    fn partial(&self, offset: u64, left: u64, here: Place) -> Result<(Place, u64)> {
        let geometry = &self.geometry;
        let chunk_bytes = geometry.chunk_ratio().saturating_mul(geometry.block_bytes);
        let chunk = div(offset, chunk_bytes);
        let entry = self.entry(geometry.bitmap_entry(chunk))?;
        let first = div(rem(offset, chunk_bytes), geometry.sector);
        let page_sectors = BITMAP_PAGE.saturating_mul(8);
        let page = div(first, page_sectors);
        let start = page.saturating_mul(BITMAP_PAGE);
        let (needed, _) = geometry.extent(Slot::Bitmap(chunk));
        let length = needed.saturating_sub(start).min(BITMAP_PAGE);
        let at = bat::offset(entry).saturating_add(start);
        let pages = div(bat::BITMAP_BYTES, BITMAP_PAGE);
        let key = chunk.saturating_mul(pages).saturating_add(page);
        let bits = self.bitmaps.get(key, || {
            read_vec(&self.file, "VHDX sector bitmap", at, length, &self.limits).map(Arc::from)
        })?;
        let bit = |sector: u64| {
            let byte = index(rem(sector, page_sectors) / 8);
            bits.get(byte).map(|byte| (byte >> (sector % 8)) & 1)
        };
        let known = bit(first).ok_or_else(|| {
            Error::corrupt(format_args!(
                "VHDX chunk {chunk} has no bit for sector {first}"
            ))
        })?;
        let mut sector = first.saturating_add(1);
        let mut length = geometry.sector.saturating_sub(rem(offset, geometry.sector));
        while length < left && rem(sector, page_sectors) != 0 && bit(sector) == Some(known) {
            length = length.saturating_add(geometry.sector);
            sector = sector.saturating_add(1);
        }
        let place = if known == 1 { here } else { Place::Parent };
        Ok((place, length.min(left)))
    }

    /// The bytes from `offset` on that are in one place; looks for more only up to `wanted` bytes.
    fn run(&self, offset: u64, wanted: u64) -> Result<(Place, u64)> {
        let (place, mut length) = self.step(offset)?;
        while length < wanted {
            let at = offset.saturating_add(length);
            if at >= self.geometry.disk_bytes {
                break;
            }
            // An entry that is wrong ends the run; reading there reports it.
            match self.step(at) {
                Ok((next, more)) if next == place.after(length) => {
                    length = length.saturating_add(more);
                }
                _ => break,
            }
        }
        Ok((place, length))
    }

    /// The disk in which bytes are looked up that are not in this file, the name of its file, and its bytes from there.
    fn parent_at(&self, offset: u64) -> Option<(&Parent, u64)> {
        let parent = self.parent.as_deref()?;
        let left = parent.disk.len().checked_sub(offset)?;
        (left > 0).then_some((parent, left))
    }

    fn read_below(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Some((parent, left)) = self.parent_at(offset) else {
            buffer.fill(0);
            return Ok(());
        };
        let inside = index(left).min(buffer.len());
        if let Some((head, tail)) = buffer.split_at_mut_checked(inside) {
            parent.disk.read_at(offset, head)?;
            tail.fill(0);
        }
        Ok(())
    }

    /// The extent at an offset, and where its bytes stand.
    fn look(&self, offset: u64) -> (Extent, Option<Stored>) {
        let extent = |length, kind| Extent {
            offset,
            length,
            kind,
        };
        match self.run(offset, u64::MAX) {
            Ok((Place::Zero, length)) => (extent(length, ExtentKind::Zero), None),
            Ok((Place::File(at), length)) => {
                // Where the file has a hole the disk has zeros: a fixed disk is as sparse as its file.
                let found = self.file.extent_at(at);
                let length = length.min(found.length.max(1));
                if !found.kind.has_bytes() {
                    return (extent(length, ExtentKind::Zero), None);
                }
                let stored = self.file.is_plain(at, length).then(|| Stored {
                    file: String::new(),
                    offset: at,
                });
                (extent(length, ExtentKind::Data), stored)
            }
            Ok((Place::Parent, length)) => match self.parent_at(offset) {
                None => (extent(length, ExtentKind::Hole), None),
                Some((parent, left)) => {
                    let (found, stored) = parent.disk.look(offset);
                    let stored = stored.map(|mut stored| {
                        if stored.file.is_empty() {
                            stored.file.clone_from(&parent.key);
                        }
                        stored
                    });
                    let length = length.min(left).min(found.length);
                    (extent(length, found.kind), stored)
                }
            },
            // Bytes that cannot be found are said to be bytes: reading them says what is wrong.
            Err(_) => {
                let block = div(offset, self.geometry.block_bytes);
                let within = rem(offset, self.geometry.block_bytes);
                let length = self.geometry.bytes_needed(block).saturating_sub(within);
                (extent(length, ExtentKind::Data), None)
            }
        }
    }
}

impl Container for Vhdx {
    fn subformat(&self) -> String {
        name(&self.metadata).to_owned()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        self.note_entries(found)?;
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        let mut theirs = Findings::default();
        parent.disk.check(&mut theirs)?;
        found.extend(&parent.key, &theirs);
        Ok(())
    }

    fn repair(&self) -> Result<Plan> {
        self.plan_repair()
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        self.plan_resize(size)
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        self.look(offset)
    }
}

impl ReadAt for Vhdx {
    fn len(&self) -> u64 {
        self.geometry.disk_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let size = self.geometry.disk_bytes;
        if offset
            .checked_add(len64(buffer))
            .is_none_or(|end| end > size)
        {
            return Err(Error::io(format_args!(
                "read of {} bytes at offset {offset} ends past the end ({size})",
                buffer.len()
            )));
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (place, length) = self.run(at, len64(rest))?;
            let take = index(length.min(len64(rest)));
            let (part, later) = rest
                .split_at_mut_checked(take)
                .filter(|_| take > 0)
                .ok_or_else(|| Error::corrupt(format_args!("no bytes known at offset {at}")))?;
            match place {
                Place::Parent => self.read_below(at, part)?,
                Place::Zero => part.fill(0),
                Place::File(host) => self.file.read_at(host, part)?,
            }
            at = at.saturating_add(len64(part));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.look(offset).0
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        layer::below(&*self.file.source, self.look(offset))
    }
}

/// Whether all bytes of a range of a file are zeros; holes are not read.
pub(super) fn is_zero(file: &dyn ReadAt, from: u64, to: u64) -> Result<bool> {
    let mut buffer = vec![0; index(SECTION.min(to.saturating_sub(from)))];
    let mut at = from;
    while at < to {
        let extent = file.extent_at(at);
        let length = extent.length.max(1).min(to.saturating_sub(at));
        if !extent.kind.has_bytes() {
            at = at.saturating_add(length);
            continue;
        }
        let take = index(length.min(len64(&buffer)));
        let part = buffer.get_mut(..take).unwrap_or_default();
        file.read_at(at, part)?;
        if slice_at(part, 0, take).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return Ok(false);
        }
        at = at.saturating_add(u64::try_from(take).unwrap_or(1));
    }
    Ok(true)
}
