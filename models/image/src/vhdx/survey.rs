//! The walk over all entries of the table that checks, repairs and resizes stand on: what is wrong with each, and who
//! has its place already.

use super::bat::{self, Slot};
use super::header::{Header, SECTION};
use super::read::Vhdx;
use super::region::Regions;
use super::rules;
use crate::finding::{Findings, Rule};
use crate::math::{div, div_up, round_up};
use drylab_block::{Error, ExtentKind, Limits, ReadAt, Result};
use std::collections::BTreeMap;

/// Entries that are read at once.
const PIECE: u64 = 8192;

/// Parts of the file in which no block may stand, sorted, each behind the one before.
#[derive(Clone, Debug)]
pub(crate) struct Areas {
    list: Vec<(u64, u64, String)>,
}

impl Areas {
    /// The header section, the regions, and the log when it stands where it may.
    pub(crate) fn new(regions: &Regions, log: Option<&Header>) -> Self {
        let mut all = vec![(0, SECTION, "header section".to_owned())];
        let of_regions = regions.all.iter();
        all.extend(of_regions.map(|region| (region.offset, region.end(), region.name())));
        all.extend(log.map(|header| (header.log_offset, header.log_end(), "log".to_owned())));
        all.sort();
        let mut list: Vec<(u64, u64, String)> = Vec::new();
        for (from, to, name) in all {
            match list.last_mut() {
                Some((_, end, _)) if from < *end => *end = (*end).max(to),
                _ => list.push((from, to, name)),
            }
        }
        Self { list }
    }

    /// The area that a range lies in, at least partly.
    pub(crate) fn within(&self, from: u64, to: u64) -> Option<&(u64, u64, String)> {
        let before = self.list.partition_point(|(start, ..)| *start < to);
        let last = before.checked_sub(1).and_then(|last| self.list.get(last));
        last.filter(|(_, end, _)| from < *end)
    }

    /// First byte behind all of them.
    pub(crate) fn end(&self) -> u64 {
        self.list.last().map_or(SECTION, |(_, end, _)| *end)
    }
}

/// What is wrong with an entry by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A state that does not exist.
    State,
    /// A block said to be partly the parent's, of a disk that has none. All of it is here.
    Partial,
    /// A place whose needed bytes end past the file.
    BeyondEnd,
    /// A place inside one of the areas.
    InArea(String),
    /// A block that needs a sector bitmap and has none.
    NoBitmap,
    /// A bitmap entry that may not be so, and that blocks need.
    LostBitmap,
    /// A bitmap entry that may not be so, and that nobody needs.
    Bitmap,
}

impl Fault {
    /// Whether the bytes of a block cannot be told.
    pub(crate) fn is_unreadable(&self) -> bool {
        !matches!(self, Self::Partial)
    }

    pub(crate) fn rule(&self) -> &'static Rule {
        match self {
            Self::State | Self::Partial => &rules::BAT_STATE,
            Self::BeyondEnd => &rules::BLOCK_LOST,
            Self::InArea(_) => &rules::BLOCK_IN_STRUCTURE,
            Self::NoBitmap | Self::LostBitmap => &rules::BITMAP_MISSING,
            Self::Bitmap => &rules::BITMAP_STATE,
        }
    }

    pub(crate) fn found(&self, entry: u64) -> String {
        let (state, offset) = (bat::state(entry), bat::offset(entry));
        match self {
            Self::State | Self::Partial | Self::LostBitmap | Self::Bitmap => {
                format!("in state {state} at offset {offset}")
            }
            Self::BeyondEnd => format!("at offset {offset}, past the end"),
            Self::InArea(name) => format!("at offset {offset}, inside the {name}"),
            Self::NoBitmap => format!("partially present at offset {offset} without sector bitmap"),
        }
    }

    pub(crate) fn expected(&self, length: u64) -> String {
        match self {
            Self::State => "in state 0, 1, 2, 3, 6 or 7".to_owned(),
            Self::Partial => "in state 6, since there is no parent".to_owned(),
            Self::BeyondEnd => format!("inside the {length} bytes of the file"),
            Self::InArea(_) => "in a place of its own".to_owned(),
            Self::NoBitmap => "with a sector bitmap in state 6".to_owned(),
            Self::LostBitmap => format!("in state 6 inside the {length} bytes of the file"),
            Self::Bitmap => "in state 0".to_owned(),
        }
    }
}

/// One entry of the table that is not zero.
pub(crate) struct Seen {
    pub(crate) index: u64,
    pub(crate) slot: Slot,
    pub(crate) entry: u64,
    pub(crate) fault: Option<Fault>,
    /// Whether it has a place in the file, or may have it when the file is lengthened.
    pub(crate) placed: bool,
    /// Whether an entry before it has a part of the place.
    pub(crate) shared: bool,
}

/// The MiB of the file that are taken, one bit each.
struct Used {
    words: BTreeMap<u64, u64>,
    most: usize,
}

impl Used {
    fn new(limits: &Limits) -> Self {
        let most = usize::try_from(limits.table_bytes_max / 32).unwrap_or(usize::MAX);
        Self {
            words: BTreeMap::new(),
            most,
        }
    }

    /// Takes a range; the answer is whether a part of it was taken.
    fn take(&mut self, offset: u64, length: u64) -> Result<bool> {
        let (mut at, end) = (
            div(offset, SECTION),
            div_up(offset.saturating_add(length), SECTION),
        );
        let mut taken = false;
        while at < end {
            let (word, bit) = (at / 64, at % 64);
            let count = end.saturating_sub(at).min(64_u64.saturating_sub(bit));
            let ones = u64::MAX
                .checked_shr(u32::try_from(64_u64.saturating_sub(count)).unwrap_or(64))
                .unwrap_or(0);
            let mask = ones << bit;
            let slot = self.words.entry(word).or_insert(0);
            taken |= *slot & mask != 0;
            *slot |= mask;
            at = at.saturating_add(count);
        }
        if self.words.len() > self.most {
            return Err(Error::unsupported(format_args!(
                "VHDX with blocks in {} parts of 64 MiB, more than the {} allowed to be kept in mind",
                self.words.len(),
                self.most
            )));
        }
        Ok(taken)
    }
}

impl Vhdx {
    /// What is wrong with an entry by itself.
    pub(super) fn fault(&self, slot: Slot, entry: u64) -> Result<Option<Fault>> {
        let state = bat::state(entry);
        Ok(match slot {
            Slot::Payload(_) if matches!(state, 4 | 5) => Some(Fault::State),
            Slot::Payload(_) if !bat::is_present(entry) => None,
            Slot::Payload(block) => {
                let place = self.misplaced(slot, entry);
                match place {
                    Some(fault) => Some(fault),
                    None if state != bat::PARTIALLY_PRESENT => None,
                    None if !self.geometry.has_parent => Some(Fault::Partial),
                    None => {
                        let chunk = div(block, self.geometry.chunk_ratio());
                        let bitmap = self.entry(self.geometry.bitmap_entry(chunk))?;
                        let sound = self.bitmap_is_sound(chunk, bitmap);
                        (!sound).then_some(Fault::NoBitmap)
                    }
                }
            }
            Slot::Bitmap(_) if entry == 0 => None,
            Slot::Bitmap(chunk) => {
                let unused = self.geometry.has_parent && state == bat::NOT_PRESENT;
                let sound = unused || self.bitmap_is_sound(chunk, entry);
                (!sound).then_some(Fault::Bitmap)
            }
        })
    }

    fn bitmap_is_sound(&self, chunk: u64, entry: u64) -> bool {
        self.geometry.has_parent
            && bat::state(entry) == bat::FULLY_PRESENT
            && self.misplaced(Slot::Bitmap(chunk), entry).is_none()
    }

    /// Why a place cannot be where an entry says.
    fn misplaced(&self, slot: Slot, entry: u64) -> Option<Fault> {
        let (needed, length) = self.geometry.extent(slot);
        let from = bat::offset(entry);
        let end = from.saturating_add(length);
        if let Some((_, _, name)) = self.areas.within(from, end) {
            return Some(Fault::InArea(name.clone()));
        }
        (from.saturating_add(needed) > self.file.len()).then_some(Fault::BeyondEnd)
    }

    /// Visits every entry that is not zero, in the order of the table. The answer is the first byte behind all places
    /// and the file, in whole MiB.
    pub(super) fn survey(&self, visit: &mut dyn FnMut(&Seen) -> Result<()>) -> Result<u64> {
        let mut used = Used::new(&self.limits);
        let mut end = self.areas.end().max(self.file.len());
        let count = self.geometry.entries();
        let (mut first, mut partial) = (0, None);
        while first < count {
            let (piece, holes) = self.piece(first, count)?;
            let mut index = first;
            for entry in piece {
                if entry != 0 {
                    let seen = self.seen(index, entry, partial, &mut used)?;
                    if self.needs_bitmap(&seen) {
                        partial = Some(div(index, self.geometry.chunk_ratio().saturating_add(1)));
                    }
                    if seen.placed {
                        let (_, length) = self.geometry.extent(seen.slot);
                        end = end.max(bat::offset(entry).saturating_add(length));
                    }
                    visit(&seen)?;
                }
                index = index.saturating_add(1);
            }
            first = index.saturating_add(holes);
        }
        Ok(round_up(end, SECTION))
    }

    /// Some entries from `first` on, and how many behind them stand in a hole of the file.
    fn piece(&self, first: u64, count: u64) -> Result<(Vec<u64>, u64)> {
        let extent = self.file.extent_at(self.entry_at(first));
        let hole = matches!(extent.kind, ExtentKind::Hole | ExtentKind::Zero);
        let whole = div(extent.length, 8).min(count.saturating_sub(first));
        if hole && whole > 0 {
            return Ok((Vec::new(), whole));
        }
        let piece = self.entries(first, count.saturating_sub(first).min(PIECE))?;
        Ok((piece, 0))
    }

    /// Whether an entry is that of a block which is partly the parent's, also after a repair.
    fn needs_bitmap(&self, seen: &Seen) -> bool {
        matches!(seen.slot, Slot::Payload(block) if block < self.geometry.blocks())
            && bat::state(seen.entry) == bat::PARTIALLY_PRESENT
            && !self.is_given_up(seen)
    }

    /// One entry. `partial` is the last chunk in which a block was seen that needs a bitmap: blocks stand before it.
    fn seen(&self, index: u64, entry: u64, partial: Option<u64>, used: &mut Used) -> Result<Seen> {
        let slot = self.geometry.slot(index);
        let mut fault = None;
        let placed = match slot {
            // What stands in the table for blocks past the disk is of no account.
            Slot::Payload(block) if block >= self.geometry.blocks() => false,
            Slot::Payload(_) => {
                fault = self.fault(slot, entry)?;
                match &fault {
                    Some(Fault::State | Fault::InArea(_)) => false,
                    Some(Fault::BeyondEnd) => bat::offset(entry) < self.file.len(),
                    _ => bat::is_present(entry),
                }
            }
            Slot::Bitmap(chunk) => {
                fault = self.fault(slot, entry)?;
                if fault.is_some() && self.geometry.has_parent && partial == Some(chunk) {
                    fault = Some(Fault::LostBitmap);
                }
                fault.is_none() && bat::state(entry) == bat::FULLY_PRESENT
            }
        };
        let mut shared = false;
        if placed {
            let (_, length) = self.geometry.extent(slot);
            shared = used.take(bat::offset(entry), length)?;
        }
        Ok(Seen {
            index,
            slot,
            entry,
            fault,
            placed,
            shared,
        })
    }

    /// Says what is wrong with the entries of the table.
    pub(super) fn note_entries(&self, found: &mut Findings) -> Result<()> {
        let length = self.file.len();
        self.survey(&mut |seen| {
            let path = seen.path();
            let (_, bytes) = self.geometry.extent(seen.slot);
            let at = (self.entry_at(seen.index), 8);
            if let Some(fault) = &seen.fault {
                found.add(
                    fault.rule(),
                    at,
                    path.clone(),
                    fault.found(seen.entry),
                    fault.expected(length),
                );
            }
            if seen.shared {
                let offset = bat::offset(seen.entry);
                let said = format!("at offset {offset}, where another block has its place");
                let expected = format!("{bytes} bytes of its own");
                found.add(&rules::BLOCK_SHARED, at, path.clone(), said, expected);
            }
            let reserved = bat::reserved(seen.entry);
            if reserved != 0 {
                let said = format!("with reserved bits {reserved:#x}");
                found.add(&rules::BAT_RESERVED, at, path, said, "without");
            }
            Ok(())
        })
        .map(drop)
    }
}

impl Seen {
    /// What it is called in findings.
    pub(crate) fn path(&self) -> String {
        match self.slot {
            Slot::Payload(block) => format!("BAT entry {} (block {block})", self.index),
            Slot::Bitmap(chunk) => format!("BAT entry {} (bitmap of chunk {chunk})", self.index),
        }
    }
}

/// The bytes of some entries.
pub(super) fn bytes_of(entries: &[u64]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}
