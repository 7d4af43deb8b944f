//! Reading, and what is seen on the way: all entries of the map are looked at when an image is opened.

use super::header::{Header, Kind, at_of, bytes_of, uuid};
use super::{proof, repair, resize, rules};
use crate::container::{Container, Opener, Stored};
use crate::edit::Plan;
use crate::finding::Findings;
use crate::layer::{self, Layer, Parent, Piece, Place, UNITS_MAX};
use crate::math::{div, index, len64, rem};
use drylab_block::{Below, Error, Extent, Limits, ReadAt, Result, le_u32, read_vec};
use std::sync::Arc;

/// Map entry of a block that is nowhere, or the parent's.
pub(super) const FREE: u32 = u32::MAX;
/// Map entry of a block of zeros.
pub(super) const ZERO: u32 = u32::MAX - 1;

/// An open VDI.
pub(crate) struct Vdi {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) header: Header,
    pub(super) map: Vec<u32>,
    /// Largest table held in memory.
    table_most: u64,
    parent: Option<Parent>,
    findings: Findings,
}

/// Why a block cannot be read where its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It begins behind the end of the file.
    Lost,
    /// The file ends inside it.
    Cut,
    /// It stands over the header or the map.
    Metadata,
}

impl Vdi {
    /// Reads header and map, and opens the parent.
    pub(crate) fn open(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let mut findings = Findings::default();
        let limits = opener.limits;
        let header = Header::of(bytes_of(&*source, limits)?)?;
        let (header, map) = proof::settled(&*source, header, limits, &mut findings)?;
        header.look(limits, &mut findings)?;
        let mut image = Self {
            source,
            header,
            map,
            table_most: limits.table_bytes_max,
            parent: None,
            findings,
        };
        image.look();
        if image.header.kind.has_parent() {
            image.parent = Some(image.open_parent(opener)?);
        }
        Ok(image)
    }

    /// Refuses to plan changes where old map, new map and the steps between them would take more memory than allowed.
    pub(super) fn is_planned_within_limits(&self) -> Result<()> {
        let (bytes, most) = (len64(&self.map).saturating_mul(4), self.table_most / 2);
        if bytes > most {
            return Err(Error::unsupported(format_args!(
                "VDI map of {bytes} bytes, more than the {most} whose changes are planned: half of the largest table allowed: raise the limit table-bytes"
            )));
        }
        Ok(())
    }

    /// Bytes of the map that another header would say, if they are no more than allowed.
    pub(super) fn table_within_limits(&self, other: &Header) -> Result<u64> {
        let bytes = other.blocks.saturating_mul(4);
        let mut limits = Limits::DEFAULT;
        limits.table_bytes_max = self.table_most;
        limits.check_table("VDI block map", bytes).map(|()| bytes)
    }

    fn open_parent(&mut self, opener: &Opener<'_>) -> Result<Parent> {
        let kind = self.header.kind.name();
        let place = || format!("VDI {kind} image");
        if self.header.linkage == [0; 16] {
            return Err(Error::corrupt("has no UUID of a parent").within(place()));
        }
        let name = uuid(&self.header.linkage);
        let found = opener
            .below("parent", &name)
            .and_then(|second| {
                let image = Self::open(second.bytes, &second.opener)?;
                Ok((image, second.key))
            })
            .map_err(|error| error.within(format_args!("{}, parent {name}", place())));
        let (image, key) = found?;
        self.compare(&image);
        self.findings.extend(&key, &image.findings);
        Ok(Parent {
            image: Box::new(image),
            key,
        })
    }

    /// Compares what is kept of the parent with what it says.
    fn compare(&mut self, parent: &Self) {
        let (own, found) = (&self.header, &parent.header);
        if own.linkage != found.create {
            let says = format!(
                "{}, the parent's is {}",
                uuid(&own.linkage),
                uuid(&found.create)
            );
            self.findings.add(
                &rules::PARENT_ID,
                (at_of(own.places.linkage), 16),
                "header, uuidLinkage",
                says,
                "the same",
            );
        }
        if own.parent_modify != [0; 16] && own.parent_modify != found.modify {
            let says = format!(
                "{}, the parent's is {}",
                uuid(&own.parent_modify),
                uuid(&found.modify)
            );
            self.findings.add(
                &rules::PARENT_CHANGED,
                (0x1b8, 16),
                "header, uuidParentModify",
                says,
                "the same",
            );
        }
        if own.size != found.size {
            let at = (at_of(own.places.disk), 8);
            self.findings.add(
                &rules::PARENT_SIZE,
                at,
                "header, cbDisk",
                own.size,
                format_args!("the parent's {}", found.size),
            );
        }
    }

    /// Bytes of a block that lie inside the disk; at least one, so that blocks behind it are looked at, too.
    fn needed(&self, unit: u64) -> u64 {
        let start = unit.saturating_mul(self.header.block);
        let left = self.header.size.saturating_sub(start);
        left.min(self.header.block).max(1)
    }

    /// First byte of a block in the file, with its extra bytes, and the end of what is needed of it.
    pub(super) fn range(&self, unit: u64, number: u32) -> (u64, u64) {
        let (start, data) = self.header.place(number);
        (start, data.saturating_add(self.needed(unit)))
    }

    /// Why a block cannot be read where its entry says, if so.
    pub(super) fn fault(&self, unit: u64, number: u32) -> Option<Fault> {
        let (start, end) = self.range(unit, number);
        let inside = |(from, to): &(u64, u64)| start < *to && *from < end;
        let (_, data) = self.header.place(number);
        if self.header.metadata().iter().any(inside) {
            Some(Fault::Metadata)
        } else if data >= self.source.len() {
            Some(Fault::Lost)
        } else if end > self.source.len() {
            Some(Fault::Cut)
        } else {
            None
        }
    }

    /// Blocks that stand in the file: their place in the map and their number.
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, u32)> {
        let all = (0u64..).zip(self.map.iter().copied());
        all.filter(|(_, number)| *number < ZERO)
    }

    /// The same as one sorted list, by number and then by place.
    pub(super) fn by_number(&self) -> Vec<(u32, u32)> {
        let narrow = |(unit, number)| Some((number, u32::try_from(unit).ok()?));
        // Counted first: a list that grows takes more memory than it has.
        let mut all = Vec::with_capacity(self.used().count());
        all.extend(self.used().filter_map(narrow));
        all.sort_unstable();
        all
    }

    fn entry_at(&self, unit: u64) -> (u64, u64) {
        (
            self.header
                .off_blocks
                .saturating_add(unit.saturating_mul(4)),
            4,
        )
    }

    fn look(&mut self) {
        let mut findings = std::mem::take(&mut self.findings);
        let count = u64::try_from(self.used().count()).unwrap_or(u64::MAX);
        if count != u64::from(self.header.allocated) {
            let at = at_of(self.header.places.allocated);
            let expected = format!("the {count} of the map");
            findings.add(
                &rules::ALLOCATED,
                (at, 4),
                "header, cBlocksAllocated",
                self.header.allocated,
                expected,
            );
        }
        for (unit, number) in self.used() {
            self.look_at(unit, number, &mut findings);
        }
        let sorted = self.by_number();
        for pair in sorted.windows(2) {
            if let [(number, first), (again, second)] = pair
                && number == again
                && !findings.only_counts(&rules::BLOCKS_OVERLAP)
            {
                let path = format!("map entry {second}");
                let found = format!("{number}, that of block {first}");
                findings.add(
                    &rules::BLOCKS_OVERLAP,
                    self.entry_at(u64::from(*second)),
                    path,
                    found,
                    "a number of its own",
                );
            }
        }
        self.findings = findings;
    }

    fn look_at(&self, unit: u64, number: u32, findings: &mut Findings) {
        if unit.saturating_mul(self.header.block) >= self.header.size
            && !findings.only_counts(&rules::BLOCK_BEHIND)
        {
            let path = format!("map entry {unit}");
            let expected = format!("free, behind the disk's {} bytes", self.header.size);
            let at = self.entry_at(unit);
            findings.add(&rules::BLOCK_BEHIND, at, path, number, expected);
        }
        let rule = match self.fault(unit, number) {
            Some(Fault::Lost) => &rules::BLOCK_LOST,
            Some(Fault::Cut) => &rules::BLOCK_CUT,
            Some(Fault::Metadata) => &rules::BLOCK_IN_METADATA,
            None if u64::from(number) >= self.header.blocks => &rules::BLOCK_NUMBER,
            None => return,
        };
        if findings.only_counts(rule) {
            return;
        }
        let (start, end) = self.range(unit, number);
        let found = format!("{number}, bytes {start} to {end}");
        let (blocks, length) = (self.header.blocks, self.source.len());
        let expected = format!(
            "a number below {blocks}, a block behind the map and before the end ({length})"
        );
        findings.add(
            rule,
            self.entry_at(unit),
            format!("map entry {unit}"),
            found,
            expected,
        );
    }

    /// Where a block stands, and whether it can.
    fn place_of(&self, unit: u64) -> Result<Place> {
        let number = match self.map.get(index(unit)) {
            Some(&FREE) => return Ok(Place::Below),
            Some(&ZERO) => return Ok(Place::Zero),
            Some(number) => *number,
            None => {
                return Err(Error::corrupt(format_args!(
                    "VDI map has {} entries, none for block {unit}",
                    self.map.len()
                )));
            }
        };
        let (_, data) = self.header.place(number);
        let why = match self.fault(unit, number) {
            None => return Ok(Place::Own(data)),
            Some(Fault::Metadata) => "inside the header or the map".to_owned(),
            Some(Fault::Lost | Fault::Cut) => {
                let (_, end) = self.range(unit, number);
                format!("and ends at {end}, past the end ({})", self.source.len())
            }
        };
        Err(Error::corrupt(format_args!(
            "VDI map entry {unit} is block {number}, at {data} {why}"
        )))
    }
}

pub(super) fn read_map(source: &dyn ReadAt, header: &Header, limits: &Limits) -> Result<Vec<u32>> {
    let length = header.blocks.saturating_mul(4);
    let bytes = read_vec(source, "VDI block map", header.off_blocks, length, limits)?;
    Ok(entries_of(&bytes))
}

pub(super) fn entries_of(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words.map(|word| le_u32(word, 0).unwrap_or(FREE)).collect()
}

impl Layer for Vdi {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    fn piece(&self, offset: u64, wanted: u64) -> Result<Piece> {
        let block = self.header.block;
        let unit = div(offset, block);
        let within = rem(offset, block);
        let first = self.place_of(unit)?;
        let mut length = self.needed(unit).saturating_sub(within);
        let mut next = unit.saturating_add(1);
        let stop = unit.saturating_add(UNITS_MAX);
        while next < stop && length < wanted && offset.saturating_add(length) < self.header.size {
            let distance = next.saturating_sub(unit).saturating_mul(block);
            let expected = match first {
                Place::Own(host) => Place::Own(host.saturating_add(distance)),
                other => other,
            };
            // An entry that is wrong ends the piece; reading there reports it.
            if self.place_of(next) != Ok(expected) {
                break;
            }
            length = length.saturating_add(self.needed(next));
            next = next.saturating_add(1);
        }
        let place = match first {
            Place::Own(host) => Place::Own(host.saturating_add(within)),
            other => other,
        };
        Ok(Piece { length, place })
    }

    fn rest(&self, offset: u64) -> u64 {
        let unit = div(offset, self.header.block);
        let within = rem(offset, self.header.block);
        self.needed(unit).saturating_sub(within).max(1)
    }
}

impl Container for Vdi {
    fn subformat(&self) -> String {
        self.header.kind.name().to_owned()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.header.details()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        match &self.parent {
            Some(parent) => parent.check(found),
            None => Ok(()),
        }
    }

    fn repair(&self) -> Result<Plan> {
        repair::plan(self)
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        if matches!(self.header.kind, Kind::Undo | Kind::Differencing) {
            return Err(Error::unsupported(
                "a VDI over a parent is not resized: its parent has its size; convert it to one file first",
            ));
        }
        resize::plan(self, size)
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        layer::stored(self, offset)
    }
}

impl ReadAt for Vdi {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        layer::read(self, offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        layer::stored(self, offset).0
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        layer::below(&*self.source, layer::stored(self, offset))
    }
}

/// Numbers that no block has: those below `end` that `sorted` leaves out, in ascending order.
pub(super) fn free_numbers(sorted: &[(u32, u32)], end: u64) -> impl Iterator<Item = u32> {
    let mut used = sorted.iter().map(|(number, _)| *number).peekable();
    let end = u32::try_from(end).unwrap_or(ZERO).min(ZERO);
    (0..end).filter(move |number| {
        while used.next_if(|used| used < number).is_some() {}
        used.peek() != Some(number)
    })
}

/// Length of a map as 64 bits.
pub(super) fn entries(map: &[u32]) -> u64 {
    len64(map)
}
