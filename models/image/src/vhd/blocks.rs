//! The blocks of dynamic and differencing disks.

use super::footer::{Kind, Located};
use super::header::{Header, bitmap_bytes};
use super::{SECTOR, VhdSize, parent, proof, rules};
use crate::container::Opener;
use crate::finding::Findings;
use crate::layer::{Layer, Parent, Piece, Place, UNITS_MAX};
use crate::math::{div, div_up, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{Error, Limits, ReadAt, Result, read_vec};
use std::sync::Arc;

/// BAT entry of a block that does not exist.
pub(crate) const UNUSED: u32 = u32::MAX;
/// Sector bitmaps kept in memory.
const BITMAPS: usize = 64;

/// The blocks of a disk, and its parent if it has one.
pub(super) struct Blocks {
    source: Arc<dyn ReadAt>,
    pub(super) header: Header,
    /// Bytes of the disk.
    pub(super) size: u64,
    /// The entries that the disk needs, as far as there are.
    pub(super) table: Vec<u32>,
    /// Where the data end.
    pub(super) data_end: u64,
    /// Footer copy, dynamic header, BAT and locators: where no block may stand.
    pub(super) metadata: Vec<(u64, u64)>,
    /// Whether the header's checksum is wrong and nothing proves what it said.
    pub(super) doubted_header: bool,
    /// Where locators lead that have no path there.
    pub(super) doubted: Vec<(u64, u64)>,
    /// Numbers of the locators that lead to where none can be.
    pub(super) stray: Vec<u64>,
    parent: Option<Parent>,
    bitmaps: Recent<[u8]>,
}

/// Whether a program follows a differencing disk to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It does.
    WithParent,
    /// It takes the file for a dynamic disk.
    Alone,
}

/// Why a block cannot be read where its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It begins behind the end of the data.
    Lost,
    /// The data end inside it.
    Cut,
    /// It stands over headers or tables.
    Metadata,
}

impl Blocks {
    pub(super) fn open(
        source: Arc<dyn ReadAt>,
        located: &Located,
        (believes, reading): (VhdSize, Reading),
        opener: &Opener<'_>,
        findings: &mut Findings,
    ) -> Result<Self> {
        let footer = &located.footer;
        let size = believes.bytes(footer);
        let limits = opener.limits;
        let mut blocks = proof::settled(&source, (located, size), limits, findings)?;
        blocks.header.look(findings);
        if footer.kind == Kind::Differencing && reading == Reading::WithParent {
            let room = parent::Room {
                taken: blocks.metadata.clone(),
                end: located.data_end,
            };
            let mut said = parent::said(&*source, &blocks.header, &room, findings);
            blocks.metadata.append(&mut said.places);
            let below = parent::open(&said.names, &blocks.header, believes, opener, findings)?;
            blocks.parent = Some(below);
            blocks.doubted = said.doubted;
            blocks.stray = said.stray;
        }
        blocks.look(findings);
        Ok(blocks)
    }

    /// The table of a header, without a parent.
    pub(super) fn plain(
        source: Arc<dyn ReadAt>,
        header: Header,
        (located, size): (&Located, u64),
        limits: &Limits,
    ) -> Result<Self> {
        let needed = div_up(size, header.block);
        let length = needed.min(u64::from(header.entries)).saturating_mul(4);
        let bytes = read_vec(&*source, "VHD BAT", header.table, length, limits)?;
        let (words, _) = bytes.as_chunks::<4>();
        let table = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let end = header.table.saturating_add(length);
        if end > located.data_end || (header.table < header.at && end > header.at) {
            return Err(Error::corrupt(format_args!(
                "VHD BAT from {} to {end} reaches into the header at {} or past the end of the data ({})",
                header.table, header.at, located.data_end
            )));
        }
        Ok(Self {
            source,
            size,
            table,
            data_end: located.data_end,
            metadata: vec![(0, 512), (header.at, header.end()), (header.table, end)],
            header,
            doubted_header: false,
            doubted: Vec::new(),
            stray: Vec::new(),
            parent: None,
            bitmaps: Recent::new(BITMAPS),
        })
    }

    pub(super) fn below(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// Bytes of a block that lie inside the disk.
    pub(super) fn needed(&self, unit: u64) -> u64 {
        let start = unit.saturating_mul(self.header.block);
        self.size.saturating_sub(start).min(self.header.block)
    }

    /// First byte of a block's bitmap, first of its data and end of what is needed of that.
    pub(super) fn range(&self, unit: u64, entry: u32) -> (u64, u64, u64) {
        let start = u64::from(entry).saturating_mul(SECTOR);
        let data = start.saturating_add(bitmap_bytes(self.header.block));
        (start, data, data.saturating_add(self.needed(unit)))
    }

    /// Where a block ends that is stored in full length.
    pub(super) fn slot_end(&self, entry: u32) -> u64 {
        let start = u64::from(entry).saturating_mul(SECTOR);
        start.saturating_add(self.header.slot())
    }

    /// The part of the metadata that a range lies in.
    fn metadata_in(&self, start: u64, end: u64) -> Option<&(u64, u64)> {
        let inside = |(from, to): &&(u64, u64)| start < *to && *from < end;
        self.metadata.iter().find(inside)
    }

    /// Why a block cannot be read where its entry says, if so.
    pub(super) fn fault(&self, unit: u64, entry: u32) -> Option<Fault> {
        let (start, data, end) = self.range(unit, entry);
        if self.metadata_in(start, end).is_some() {
            Some(Fault::Metadata)
        } else if data >= self.data_end {
            Some(Fault::Lost)
        } else if end > self.data_end {
            Some(Fault::Cut)
        } else {
            None
        }
    }

    /// Blocks that are somewhere: their place in the table and their entry.
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, u32)> {
        let all = (0u64..).zip(self.table.iter().copied());
        all.filter(|(_, entry)| *entry != UNUSED)
    }

    /// Blocks that stand in the file, by their place: entry, place in the table, and whether it stands over one before it.
    pub(super) fn standing(&self) -> impl Iterator<Item = (u32, u32, bool)> {
        let fits = |(unit, entry): &(u64, u32)| {
            matches!(self.fault(*unit, *entry), None | Some(Fault::Cut))
        };
        // Counted first: a list that grows takes more memory than it has.
        let mut all = Vec::with_capacity(self.used().filter(fits).count());
        let narrow = |(unit, entry)| Some((entry, u32::try_from(unit).ok()?));
        all.extend(self.used().filter(fits).filter_map(narrow));
        all.sort_unstable();
        let mut end = 0u64;
        all.into_iter().map(move |(entry, unit)| {
            let over = u64::from(entry).saturating_mul(SECTOR) < end;
            if !over {
                end = self.slot_end(entry);
            }
            (entry, unit, over)
        })
    }

    fn look(&self, findings: &mut Findings) {
        let needed = div_up(self.size, self.header.block);
        if len64(&self.table) < needed {
            let at = (self.header.at.saturating_add(0x1c), 4);
            let expected = format!(
                "{needed} for {} bytes in blocks of {}",
                self.size, self.header.block
            );
            let path = "dynamic header, max table entries";
            findings.add(&rules::BAT_SHORT, at, path, self.header.entries, expected);
        }
        for (unit, entry) in self.used() {
            let rule = match self.fault(unit, entry) {
                Some(Fault::Lost) => &rules::BLOCK_LOST,
                Some(Fault::Cut) => &rules::BLOCK_CUT,
                Some(Fault::Metadata) => &rules::BLOCK_IN_METADATA,
                None if self.slot_end(entry) > self.data_end => &rules::BLOCK_SHORT,
                None => continue,
            };
            if findings.only_counts(rule) {
                continue;
            }
            let (start, _, end) = self.range(unit, entry);
            let found = format!("sector {entry}, bytes {start} to {end}");
            let expected = format!("a block of its own in front of {}", self.data_end);
            findings.add(
                rule,
                self.entry_at(unit),
                format!("BAT entry {unit}"),
                found,
                expected,
            );
        }
        let mut first = None;
        for (entry, unit, over) in self.standing() {
            match first.filter(|_| over) {
                Some(_) if findings.only_counts(&rules::BLOCKS_OVERLAP) => {}
                Some((before, other)) => {
                    let found = format!("sector {entry}, where block {other} is (sector {before})");
                    let expected =
                        format!("{} sectors of its own", div(self.header.slot(), SECTOR));
                    let at = self.entry_at(u64::from(unit));
                    findings.add(
                        &rules::BLOCKS_OVERLAP,
                        at,
                        format!("BAT entry {unit}"),
                        found,
                        expected,
                    );
                }
                None => first = Some((entry, unit)),
            }
        }
        if let Some(parent) = &self.parent
            && parent.image.len() != self.size
        {
            let expected = format!("the parent's {}", parent.image.len());
            findings.add(
                &rules::PARENT_SIZE,
                (0x30, 8),
                "footer, current size",
                self.size,
                expected,
            );
        }
    }

    fn entry_at(&self, unit: u64) -> (u64, u64) {
        (self.header.table.saturating_add(unit.saturating_mul(4)), 4)
    }

    /// Where a block's bitmap and data begin, or why they cannot be there; nothing for one that does not exist.
    fn place(&self, unit: u64) -> Result<Option<(u64, u64)>> {
        let entry = match self.table.get(index(unit)) {
            Some(&UNUSED) => return Ok(None),
            Some(entry) => *entry,
            None => {
                let needed = div_up(self.size, self.header.block);
                return Err(Error::corrupt(format_args!(
                    "VHD BAT has {} entries, a disk of {} bytes in blocks of {} needs {needed}",
                    self.header.entries, self.size, self.header.block
                )));
            }
        };
        let (start, data, end) = self.range(unit, entry);
        let wrong = |what: std::fmt::Arguments<'_>| {
            Err(Error::corrupt(format_args!(
                "VHD BAT entry of block {unit} points to sector {entry}, {what}"
            )))
        };
        match self.fault(unit, entry) {
            None => Ok(Some((start, data))),
            Some(Fault::Lost | Fault::Cut) => wrong(format_args!(
                "whose bitmap and data end at {end}, past the end ({})",
                self.data_end
            )),
            Some(Fault::Metadata) => {
                let (from, to) = self.metadata_in(start, end).copied().unwrap_or_default();
                wrong(format_args!("inside the metadata (bytes {from} to {to})"))
            }
        }
    }

    /// The piece at an offset inside a block of a differencing disk: sectors of one file.
    fn sectors(&self, (start, data): (u64, u64), within: u64, left: u64) -> Result<Piece> {
        let bits = self.bitmap(start)?;
        let set = |sector: u64| {
            let byte = bits.get(index(div(sector, 8))).copied().unwrap_or(0);
            byte & (0x80 >> (sector % 8)) != 0
        };
        let first = div(within, SECTOR);
        let own = set(first);
        let mut next = first.saturating_add(1);
        let end = within.saturating_add(left);
        while next.saturating_mul(SECTOR) < end && set(next) == own {
            next = next.saturating_add(1);
        }
        let length = next.saturating_mul(SECTOR).saturating_sub(within).min(left);
        let place = if own {
            Place::Own(data.saturating_add(within))
        } else {
            Place::Below
        };
        Ok(Piece { length, place })
    }

    /// The sector bitmap at a place.
    fn bitmap(&self, start: u64) -> Result<Arc<[u8]>> {
        self.bitmaps.get(start, || {
            let mut bytes = vec![0; index(bitmap_bytes(self.header.block))];
            self.source.read_at(start, &mut bytes)?;
            Ok(bytes.into())
        })
    }
}

impl Layer for Blocks {
    fn size(&self) -> u64 {
        self.size
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    fn piece(&self, offset: u64, wanted: u64) -> Result<Piece> {
        let block = self.header.block;
        let (unit, within) = (div(offset, block), rem(offset, block));
        let left = self.rest(offset);
        if let Some((start, data)) = self.place(unit)? {
            if self.parent.is_some() {
                return self.sectors((start, data), within, left);
            }
            return Ok(Piece {
                length: left,
                place: Place::Own(data.saturating_add(within)),
            });
        }
        let mut length = left;
        let mut next = unit.saturating_add(1);
        let stop = unit.saturating_add(UNITS_MAX);
        while next < stop && length < wanted && self.table.get(index(next)) == Some(&UNUSED) {
            length = length.saturating_add(self.needed(next));
            next = next.saturating_add(1);
        }
        Ok(Piece {
            length,
            place: Place::Below,
        })
    }

    fn rest(&self, offset: u64) -> u64 {
        let (unit, within) = (
            div(offset, self.header.block),
            rem(offset, self.header.block),
        );
        self.needed(unit).saturating_sub(within).max(1)
    }
}
