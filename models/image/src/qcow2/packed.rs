//! Unpacking every compressed cluster: nothing but its stream says whether it is whole. A cluster's last sector may reach
//! past the end of the file, and no checksum tells of one that changed.
//!
//! Places are gathered while the tables are walked, as many as the limit of tables has room for, and looked at in the order
//! of the file, which is then read once; each place once, however many entries lead to it. Clusters of their own are no
//! more than the file holds: where more bytes would be read or unpacked than that, they overlap, and the rest is left.

use super::header::Header;
use super::rules;
use super::structure::{L2, Structure};
use crate::codec::{Framing, Unpackers};
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{ReadAt, Result};

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;
/// Bytes that one byte of deflate becomes at most: 258 of two bits.
const DEFLATE_MOST: u64 = 1032;
/// The same of zstd, with the headers of the frame and the L2 entry: a block of 128 KiB is four bytes.
const ZSTD_MOST: u64 = 1 << 15;
/// How often all bytes of the file may be read.
const TIMES: u64 = 2;

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
    /// Places at hand at most.
    most: usize,
    /// Bytes that may still be read, and unpacked.
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
            most: memory.map_or(0, |memory| index((memory / 16).max(1))),
            left: (file.saturating_mul(TIMES), file.saturating_mul(ratio)),
            unpackers: Unpackers::default(),
        }
    }

    /// Takes a compressed cluster to be looked at.
    pub(super) fn take(
        &mut self,
        structure: &Structure<'_>,
        (table, entry): (usize, u64),
        word: u64,
    ) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        if self.places.len() >= self.most {
            self.look(structure)?;
        }
        if let (Ok(table), Ok(entry)) = (u32::try_from(table), u32::try_from(entry)) {
            self.places.push(Place { word, table, entry });
        }
        Ok(())
    }

    /// Looks at all clusters taken so far.
    pub(super) fn look(&mut self, structure: &Structure<'_>) -> Result<()> {
        let mut places = std::mem::take(&mut self.places);
        let header = structure.header;
        let key = |place: &Place| header.packed(place.word);
        places.sort_unstable_by_key(|place| (key(place), place.table, place.entry));
        places.dedup_by_key(|place| key(place));
        let mut window = Window::default();
        let mut bytes = vec![0; index(header.cluster_bytes())];
        for place in &places {
            let Some(table) = structure.tables.get(index(u64::from(place.table))) else {
                continue;
            };
            let (offset, length) = key(place);
            let end = offset.saturating_add(length).min(structure.bounds.file);
            let read = window.reach(&*structure.source, offset, end)?;
            let cluster = header.cluster_bytes();
            let left = (
                self.left.0.checked_sub(read),
                self.left.1.checked_sub(cluster),
            );
            let (Some(to_read), Some(to_unpack)) = left else {
                let what = format!("compressed, {length} bytes at {offset:#x}");
                let expected = "clusters that do not overlap: no more are looked at";
                self.say(structure, (table, place.entry), what, expected);
                return Ok(());
            };
            self.left = (to_read, to_unpack);
            let packed = window.bytes(offset, end);
            let produced = self
                .unpackers
                .with(|one| one.engine().unpack(packed, header.framing(), &mut bytes));
            let wrong = match produced {
                Ok(produced) if produced == bytes.len() => continue,
                Ok(produced) => format!("unpacks to {produced} bytes"),
                Err(error) => error.to_string(),
            };
            let what = format!("compressed, {length} bytes at {offset:#x}: {wrong}");
            let expected = format!("a stream of {cluster} bytes");
            self.say(structure, (table, place.entry), what, expected);
        }
        places.clear();
        self.places = places;
        Ok(())
    }

    fn say(
        &mut self,
        structure: &Structure<'_>,
        (table, entry): (&L2, u32),
        what: String,
        expected: impl std::fmt::Display,
    ) {
        let entry = u64::from(entry);
        let place = structure.entry_place(table, entry);
        let path = Structure::entry_path(table, entry);
        self.found.add(&rules::PACKED, place, path, what, expected);
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
    /// the file. The result is how many bytes were read.
    fn reach(&mut self, source: &dyn ReadAt, from: u64, to: u64) -> Result<u64> {
        let end = self.start.saturating_add(len64(&self.held));
        if to <= end {
            return Ok(0);
        }
        let gone = index(from.saturating_sub(self.start)).min(self.held.len());
        self.held.drain(..gone);
        self.start = from;
        let at = from.max(end);
        let stop = to.max(at.saturating_add(PIECE).min(source.len()));
        let kept = self.held.len();
        let more = stop.saturating_sub(at);
        self.held.resize(kept.saturating_add(index(more)), 0);
        source.read_at(at, self.held.get_mut(kept..).unwrap_or_default())?;
        Ok(more)
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
