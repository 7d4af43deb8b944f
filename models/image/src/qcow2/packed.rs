//! Unpacking every compressed cluster: nothing but its stream says whether it is whole. A cluster's last sector may reach
//! past the end of the file, and no checksum tells of one that changed.
//!
//! Places are gathered while the tables are walked and looked at in the order of the file, which is so read once; each place
//! once, however many entries lead to it, and twice where they differ in the number of its sectors. Where the limit of tables
//! has no room for all of them, those that stand first in the file are kept, and the tables are walked again for what stands
//! behind. That ends where it would cost more than the bytes of the file, and where more would be unpacked than clusters of
//! their own can hold: a note says that the rest is left.

use super::entry::Cluster;
use super::header::Header;
use super::rules;
use super::structure::{L2, Structure};
use crate::codec::{Framing, Unpackers};
use crate::finding::{Findings, Rule};
use crate::math::{index, len64};
use drylab_block::{ReadAt, Result};
use std::ops::Range;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;
/// Bytes that one byte of deflate becomes at most: 258 of two bits.
const DEFLATE_MOST: u64 = 1032;
/// The same of zstd, with the headers of the frame and the L2 entry: a block of 128 KiB is four bytes.
const ZSTD_MOST: u64 = 1 << 15;
/// Places that are kept at least: some of two different clusters, so that each walk comes on.
const PLACES_MIN: u64 = 8;

/// A compressed cluster.
struct Place {
    word: u64,
    /// Which of the tables, and the entry in it.
    table: u32,
    entry: u32,
}

/// What a walk over the tables found: findings, and compressed clusters still to be looked at.
pub(super) struct Said<'a> {
    pub(super) found: &'a mut Findings,
    places: Vec<Place>,
    /// Places at hand at most; none where clusters are not looked at.
    most: usize,
    /// Where in the file the clusters of this walk start and end.
    stretch: Range<u64>,
    /// Bytes that may still be read of tables, and unpacked.
    left: (u64, u64),
    unpackers: Unpackers,
}

impl<'a> Said<'a> {
    /// Keeps places of at most `memory` bytes; none without.
    pub(super) fn new(
        structure: &Structure<'_>,
        memory: Option<u64>,
        found: &'a mut Findings,
    ) -> Self {
        let file = structure.bounds.file;
        let ratio = match structure.header.framing() {
            Framing::Zstd => ZSTD_MOST,
            Framing::Zlib | Framing::Raw => DEFLATE_MOST,
        };
        Self {
            found,
            places: Vec::new(),
            most: memory.map_or(0, |memory| index((memory / 16).max(PLACES_MIN))),
            stretch: 0..u64::MAX,
            left: (file, file.saturating_mul(ratio)),
            unpackers: Unpackers::default(),
        }
    }

    /// Takes a compressed cluster to be looked at.
    pub(super) fn take(&mut self, header: &Header, (table, entry): (usize, u64), word: u64) {
        let (offset, _) = header.packed(word);
        if self.most == 0 || !self.stretch.contains(&offset) {
            return;
        }
        if let (Ok(table), Ok(entry)) = (u32::try_from(table), u32::try_from(entry)) {
            self.places.push(Place { word, table, entry });
        }
        if self.places.len() >= self.most {
            self.sort(header);
            self.cut(header);
        }
    }

    /// Puts places in the order of the file. Of those that start at one byte the one with the fewest sectors and the one
    /// with the most stay: what unpacks of fewer does of more.
    fn sort(&mut self, header: &Header) {
        let key = |place: &Place| header.packed(place.word);
        self.places
            .sort_unstable_by_key(|place| (key(place), place.table, place.entry));
        self.places.dedup_by_key(|place| key(place));
        let mut is_second = false;
        self.places.dedup_by(|later, kept| {
            if key(later).0 != key(kept).0 {
                is_second = false;
                return false;
            }
            if is_second {
                std::mem::swap(later, kept);
            }
            std::mem::replace(&mut is_second, true)
        });
    }

    /// Leaves the second half of the sorted places to a later walk, unless half of the room is free.
    fn cut(&mut self, header: &Header) {
        if let Some(place) = self.places.get(self.most / 2) {
            let (end, _) = header.packed(place.word);
            self.places
                .retain(|place| header.packed(place.word).0 < end);
            self.stretch.end = end;
        }
    }

    /// Looks at all clusters, those taken so far first.
    pub(super) fn look(&mut self, structure: &Structure<'_>) -> Result<()> {
        let mut window = Window::default();
        let mut bytes = vec![0; index(structure.header.cluster_bytes())];
        while self.unpack(structure, &mut window, &mut bytes)? && self.stretch.end < u64::MAX {
            self.stretch = self.stretch.end..u64::MAX;
            if !self.walk(structure)? {
                break;
            }
        }
        Ok(())
    }

    /// Gathers the clusters of a stretch from all tables, or says that they are left.
    fn walk(&mut self, structure: &Structure<'_>) -> Result<bool> {
        let header = structure.header;
        let cost = len64(&structure.tables).saturating_mul(header.cluster_bytes());
        let Some(left) = self.left.0.checked_sub(cost) else {
            let found = format!("compressed clusters from {:#x} on", self.stretch.start);
            let expected = "fewer than the limit of tables has room for";
            let place = (self.stretch.start, 0);
            let path = "compressed clusters";
            self.found
                .add(&rules::PACKED_LEFT, place, path, found, expected);
            return Ok(false);
        };
        self.left.0 = left;
        let mut odd = structure.bounds.file;
        for (which, table) in structure.tables.iter().enumerate() {
            if !structure.is_looked_at(table, &mut odd) {
                continue;
            }
            for (number, entry) in (0u64..).zip(structure.l2(table)?.unwrap_or_default()) {
                if let Cluster::Packed(offset, _) = header.cluster(entry)
                    && header.has_packed(offset, structure.bounds.file)
                {
                    self.take(header, (which, number), entry.word);
                }
            }
        }
        Ok(true)
    }

    /// Unpacks the clusters at hand; whether all of them were.
    fn unpack(
        &mut self,
        structure: &Structure<'_>,
        window: &mut Window,
        bytes: &mut [u8],
    ) -> Result<bool> {
        let header = structure.header;
        self.sort(header);
        let mut places = std::mem::take(&mut self.places);
        for place in &places {
            let Some(table) = structure.tables.get(index(u64::from(place.table))) else {
                continue;
            };
            let (offset, length) = header.packed(place.word);
            let end = offset.saturating_add(length).min(structure.bounds.file);
            let cluster = header.cluster_bytes();
            let at = (table, place.entry);
            let Some(left) = self.left.1.checked_sub(cluster) else {
                let what = format!("compressed, {length} bytes at {offset:#x}");
                let expected = "clusters that do not overlap: no more are looked at";
                self.say(structure, &rules::PACKED_LEFT, at, what, expected);
                return Ok(false);
            };
            self.left.1 = left;
            window.reach(&*structure.source, offset, end)?;
            let packed = window.bytes(offset, end);
            let produced = self
                .unpackers
                .with(|one| one.engine().unpack(packed, header.framing(), bytes));
            let wrong = match produced {
                Ok(produced) if produced == bytes.len() => continue,
                Ok(produced) => format!("unpacks to {produced} bytes"),
                Err(error) => error.to_string(),
            };
            let what = format!("compressed, {length} bytes at {offset:#x}: {wrong}");
            let expected = format!("a stream of {cluster} bytes");
            self.say(structure, &rules::PACKED, at, what, expected);
        }
        places.clear();
        self.places = places;
        Ok(true)
    }

    fn say(
        &mut self,
        structure: &Structure<'_>,
        rule: &'static Rule,
        (table, entry): (&L2, u32),
        what: String,
        expected: impl std::fmt::Display,
    ) {
        let entry = u64::from(entry);
        let place = structure.entry_place(table, entry);
        let path = Structure::entry_path(table, entry);
        self.found.add(rule, place, path, what, expected);
    }
}

/// Some bytes of a file that is read from front to back.
#[derive(Default)]
struct Window {
    start: u64,
    held: Vec<u8>,
}

impl Window {
    /// Holds the bytes from `from` to `to`, nothing in front of them; `from` is never less than before, and `to` inside
    /// the file.
    fn reach(&mut self, source: &dyn ReadAt, from: u64, to: u64) -> Result<()> {
        let end = self.start.saturating_add(len64(&self.held));
        if to <= end {
            return Ok(());
        }
        let gone = index(from.saturating_sub(self.start)).min(self.held.len());
        self.held.drain(..gone);
        self.start = from;
        let at = from.max(end);
        let stop = to.max(at.saturating_add(PIECE).min(source.len()));
        let kept = self.held.len();
        let more = stop.saturating_sub(at);
        self.held.resize(kept.saturating_add(index(more)), 0);
        source.read_at(at, self.held.get_mut(kept..).unwrap_or_default())
    }

    fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let range = index(from.saturating_sub(self.start))..index(to.saturating_sub(self.start));
        self.held.get(range).unwrap_or_default()
    }
}

impl Header {
    /// Whether the bytes of a compressed cluster can be looked at.
    pub(super) fn has_packed(&self, offset: u64, file: u64) -> bool {
        !self.data_file() && offset < file
    }
}
