//! Writing images that stand on others: a child of a backing file, an image whose clusters are in a data file; and
//! extended L2 entries.
//!
//! ```text
//! header, extensions, backing name │ L1 table │ data, L2 tables │ refcount blocks │ refcount table
//! ```

use super::entry::{COMPRESSED, COPIED, Entry, ZERO};
use super::header::{
    COMPRESSION_TYPE, DATA_FILE, EXTENDED_L2, L1_MAX, MAGIC, NAME_MAX, RAW_EXTERNAL,
    SIZE_COMPRESSION, SIZE_V2, SIZE_V3, SUBCLUSTERS,
};
use super::refcount::{self, Refcounts};
use super::{Qcow2Compression, Qcow2Version, be_words, extension};
use crate::codec::Packer;
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::write::Written;
use drylab_block::{Error, ReadAt, Result, WriteAt};
use std::collections::BTreeMap;

/// The disk that a child stands on.
#[derive(Clone, Copy)]
pub struct Qcow2Backing<'a> {
    /// Its guest-visible bytes; behind its end it reads as zeros.
    pub disk: &'a dyn ReadAt,
    /// The name by which the child will find it, at most 1,023 bytes.
    pub name: &'a str,
    /// Its format as QEMU calls it: `raw`, `qcow2`, `vmdk`, `vpc`. Always written: a format that must be guessed lets a
    /// guest choose it.
    pub format: &'a str,
}

/// Where the clusters of an image with an external data file go.
#[derive(Clone, Copy)]
pub struct Qcow2DataFile<'a> {
    /// The file; it is emptied first.
    pub sink: &'a dyn WriteAt,
    /// The name by which the image will find it.
    pub name: &'a str,
    /// Whether the data file alone is the disk (`data_file_raw`), which no backing file goes with.
    pub raw: bool,
}

/// What the writer of a layered qcow2 decides beside the bytes.
#[derive(Clone, Copy)]
pub struct Qcow2Layers<'a> {
    /// Version of the format.
    pub version: Qcow2Version,
    /// log2 of the cluster size in bytes, 9 to 21; at least 14 with extended L2 entries.
    pub cluster_bits: u32,
    /// log2 of the bits of a refcount, 0 to 6; 4 in version 2.
    pub refcount_order: u32,
    /// Whether parts of a 32nd of a cluster are stored by themselves; version 3.
    pub extended_l2: bool,
    /// How, and at which level, clusters are compressed where that makes them shorter.
    pub compression: Option<(Qcow2Compression, u32)>,
    /// The disk that it stands on: only clusters that differ from it are stored.
    pub backing: Option<Qcow2Backing<'a>>,
    /// The file that holds the clusters.
    pub data_file: Option<Qcow2DataFile<'a>>,
}

impl Default for Qcow2Layers<'_> {
    fn default() -> Self {
        Self {
            version: Qcow2Version::default(),
            cluster_bits: 16,
            refcount_order: 4,
            extended_l2: false,
            compression: None,
            backing: None,
            data_file: None,
        }
    }
}

impl std::fmt::Debug for Qcow2Layers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qcow2Layers")
            .field("version", &self.version)
            .field("cluster_bits", &self.cluster_bits)
            .field("refcount_order", &self.refcount_order)
            .field("extended_l2", &self.extended_l2)
            .field("compression", &self.compression)
            .field("backing", &self.backing.map(|backing| backing.name))
            .field("data_file", &self.data_file.map(|file| file.name))
            .finish()
    }
}

/// Writes `disk`, its size rounded up to sectors of 512 bytes, to `sink`, which is emptied first: only what differs from
/// the backing file, and the clusters to the data file if there is one. The same input gives the same bytes.
///
/// # Errors
/// [`Error::Unsupported`] for options out of range or that exclude each other, and for a disk whose L1 table would pass
/// 32 MiB; what reading and writing find.
pub fn write_qcow2_layers(
    disk: &dyn ReadAt,
    layers: &Qcow2Layers<'_>,
    sink: &dyn WriteAt,
) -> Result<Written> {
    layers.check()?;
    let cluster = 1u64.checked_shl(layers.cluster_bits).unwrap_or(1 << 21);
    let size = round_up(disk.len(), 512);
    let per_table = div(cluster, if layers.extended_l2 { 16 } else { 8 });
    let l1 = div_up(size, cluster.saturating_mul(per_table)).max(1);
    if l1.saturating_mul(8) > L1_MAX {
        return Err(Error::unsupported(format_args!(
            "qcow2 of {size} bytes with clusters of {cluster}: its L1 table would pass {L1_MAX} bytes"
        )));
    }
    let files = [Some(sink), layers.data_file.map(|file| file.sink)];
    for file in files.into_iter().flatten() {
        if file.len() != 0 {
            file.set_len(0)?;
        }
    }
    let mut writer = Writer {
        layers,
        sink,
        disk,
        cluster,
        per_table,
        tool: match layers.compression {
            Some((compression, level)) => Some(packer(compression, level)?),
            None => None,
        },
        next: div_up(l1.saturating_mul(8), cluster).saturating_add(1),
        packed: 0,
        l1: vec![0; index(l1)],
        l2: None,
        shared: BTreeMap::new(),
    };
    writer.walk()?;
    if let Some(file) = layers.data_file {
        file.sink.set_len(size)?;
    }
    let file_bytes = writer.finish(size)?;
    Ok(Written { file_bytes })
}

fn packer(compression: Qcow2Compression, level: u32) -> Result<Packer> {
    match compression {
        Qcow2Compression::Zlib => Ok(Packer::raw_4k(level)),
        Qcow2Compression::Zstd => Packer::zstd(level),
    }
}

impl Qcow2Layers<'_> {
    fn check(&self) -> Result<()> {
        let v2 = self.version == Qcow2Version::V2;
        let zstd = matches!(self.compression, Some((Qcow2Compression::Zstd, _)));
        let name = self.backing.map_or(0, |backing| backing.name.len());
        let too_long = name > index(u64::from(NAME_MAX));
        let raw = self.data_file.is_some_and(|file| file.raw);
        let wrong = [
            (
                !(9..=21).contains(&self.cluster_bits),
                "cluster_bits, allowed are 9 to 21",
            ),
            (
                self.refcount_order > 6,
                "refcount_order, allowed are 0 to 6",
            ),
            (
                v2 && self.refcount_order != 4,
                "refcount_order in version 2, it is 4",
            ),
            (v2 && self.extended_l2, "extended L2 entries in version 2"),
            (v2 && zstd, "zstd in version 2"),
            (v2 && self.data_file.is_some(), "a data file in version 2"),
            (
                self.extended_l2 && self.cluster_bits < 14,
                "cluster_bits with extended L2 entries, allowed are 14 to 21",
            ),
            (
                self.data_file.is_some() && self.compression.is_some(),
                "compressed clusters in a data file",
            ),
            (
                raw && self.backing.is_some(),
                "a raw data file beside a backing file",
            ),
            (
                self.backing.is_some() && name == 0,
                "a backing file without a name",
            ),
            (too_long, "backing file name, allowed are 1023 bytes"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Error::unsupported(format_args!("qcow2 {what}: {self:?}"))),
            None => Ok(()),
        }
    }
}

struct Writer<'a> {
    layers: &'a Qcow2Layers<'a>,
    sink: &'a dyn WriteAt,
    disk: &'a dyn ReadAt,
    cluster: u64,
    per_table: u64,
    tool: Option<Packer>,
    /// First cluster not yet given out.
    next: u64,
    /// Where the next compressed bytes may start; a multiple of a cluster when there is no room left.
    packed: u64,
    l1: Vec<u64>,
    /// Number and entries of the L2 table being filled.
    l2: Option<(u64, Vec<u64>)>,
    /// References to each cluster that holds compressed bytes; all other clusters have one.
    shared: BTreeMap<u64, u64>,
}

/// Finds where a disk has bytes.
struct Seeker<'a> {
    disk: &'a dyn ReadAt,
    /// The last range looked at that has bytes.
    known: std::ops::Range<u64>,
}

impl Seeker<'_> {
    /// The first place from `at` on that has bytes.
    fn next(&mut self, at: u64) -> Option<u64> {
        if self.known.contains(&at) {
            return Some(at);
        }
        let mut at = at;
        while at < self.disk.len() {
            let extent = self.disk.extent_at(at);
            let length = extent.length.max(1);
            if extent.kind.has_bytes() {
                self.known = at..at.saturating_add(length);
                return Some(at);
            }
            at = at.saturating_add(length);
        }
        None
    }
}

/// Fills `buffer` from a disk, with zeros behind `end`.
fn fill(disk: &dyn ReadAt, end: u64, at: u64, buffer: &mut [u8]) -> Result<()> {
    let inside = index(disk.len().min(end).saturating_sub(at)).min(buffer.len());
    let (head, tail) = buffer
        .split_at_mut_checked(inside)
        .ok_or_else(|| Error::io("cluster past the end"))?;
    tail.fill(0);
    if head.is_empty() {
        return Ok(());
    }
    disk.read_at(at, head)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|page| page.iter().fold(0u8, |sum, byte| sum | byte) == 0)
}

impl Writer<'_> {
    fn offset(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.cluster)
    }

    /// Gives out `count` clusters in a row; the result is the first one's offset.
    fn allocate(&mut self, count: u64) -> u64 {
        let first = self.offset(self.next);
        self.next = self.next.saturating_add(count);
        first
    }

    /// Visits every cluster in which the disk or what it stands on has bytes.
    fn walk(&mut self) -> Result<()> {
        let (disk, end) = (self.disk, self.disk.len());
        let parent = self.layers.backing.map(|backing| backing.disk);
        let seeker = |disk| Seeker { disk, known: 0..0 };
        let (mut own, mut below) = (seeker(disk), parent.map(seeker));
        let mut bytes = vec![0; index(self.cluster)];
        let mut old = vec![0; index(if parent.is_some() { self.cluster } else { 0 })];
        let mut at = 0;
        loop {
            let places = [
                own.next(at),
                below.as_mut().and_then(|below| below.next(at)),
            ];
            let Some(place) = places
                .into_iter()
                .flatten()
                .min()
                .filter(|place| *place < end)
            else {
                return Ok(());
            };
            let unit = div(place, self.cluster);
            let start = self.offset(unit);
            fill(disk, end, start, &mut bytes)?;
            if let Some(parent) = parent {
                fill(parent, end, start, &mut old)?;
            }
            let entry = self.place(start, &bytes, &old)?;
            self.set(unit, entry)?;
            at = start.saturating_add(self.cluster);
        }
    }

    /// Stores what differs of one cluster. `old` is empty where nothing is below.
    fn place(&mut self, start: u64, bytes: &[u8], old: &[u8]) -> Result<Entry> {
        let same = if old.is_empty() {
            is_zero(bytes)
        } else {
            bytes == old
        };
        if same {
            return Ok(Entry::default());
        }
        if let Some(word) = self.pack(bytes)? {
            return Ok(Entry { word, bitmap: 0 });
        }
        if self.layers.extended_l2 {
            return self.place_parts(start, bytes, old);
        }
        if is_zero(bytes) && self.layers.version == Qcow2Version::V3 {
            return Ok(Entry {
                word: ZERO,
                bitmap: 0,
            });
        }
        let offset = self.store(start, bytes)?;
        Ok(Entry {
            word: offset | COPIED,
            bitmap: 0,
        })
    }

    /// Subclusters by themselves.
    fn place_parts(&mut self, start: u64, bytes: &[u8], old: &[u8]) -> Result<Entry> {
        let part = index(div(self.cluster, SUBCLUSTERS)).max(1);
        let (mut allocated, mut zero) = (0u64, 0u64);
        let mut stored = vec![0u8; bytes.len()];
        for (number, new) in (0u32..).zip(bytes.chunks(part)) {
            let bit = 1u64.checked_shl(number).unwrap_or(0);
            let from = part.saturating_mul(index(u64::from(number)));
            let below = old.get(from..from.saturating_add(new.len()));
            let same = below.map_or_else(|| is_zero(new), |below| below == new);
            if same {
                continue;
            }
            if is_zero(new) {
                zero |= bit;
                continue;
            }
            allocated |= bit;
            if let Some(place) = stored.get_mut(from..from.saturating_add(new.len())) {
                place.copy_from_slice(new);
            }
        }
        let word = match allocated {
            0 => 0,
            _ => self.store(start, &stored)? | COPIED,
        };
        Ok(Entry {
            word,
            bitmap: allocated | (zero << 32),
        })
    }

    /// Writes a cluster to its place, the pages of it that are not zero.
    fn store(&mut self, start: u64, bytes: &[u8]) -> Result<u64> {
        let (sink, offset) = match self.layers.data_file {
            Some(file) => (file.sink, start),
            None => (self.sink, self.allocate(1)),
        };
        let mut at = offset;
        for page in bytes.chunks(4096) {
            if !is_zero(page) {
                sink.write_at(at, page)?;
            }
            at = at.saturating_add(len64(page));
        }
        Ok(offset)
    }

    /// Writes a cluster compressed behind the last one; `None` when it does not get shorter.
    fn pack(&mut self, bytes: &[u8]) -> Result<Option<u64>> {
        let Some(tool) = &mut self.tool else {
            return Ok(None);
        };
        let mut packed = Vec::new();
        if !tool.pack(bytes, bytes.len().saturating_sub(1), &mut packed)? {
            return Ok(None);
        }
        let length = len64(&packed);
        let room = round_up(self.packed, self.cluster).saturating_sub(self.packed);
        // Compressed bytes may run into the next cluster only if that is the next one to be given out.
        let adjoins = room > 0 && round_up(self.packed, self.cluster) == self.offset(self.next);
        if length > room {
            if !adjoins {
                self.packed = self.offset(self.next);
            }
            let end = self.packed.saturating_add(length);
            let missing = end.saturating_sub(self.offset(self.next));
            self.allocate(div_up(missing, self.cluster));
        }
        let offset = self.packed;
        self.sink.write_at(offset, &packed)?;
        self.packed = offset.saturating_add(length);
        let last = self.packed.saturating_sub(1);
        for cluster in div(offset, self.cluster)..=div(last, self.cluster) {
            let count = self.shared.entry(cluster).or_insert(0);
            *count = count.saturating_add(1);
            let most = Refcounts::most(self.layers.refcount_order);
            if *count == most {
                // No further reference fits: the rest of the cluster stays unused.
                self.packed = round_up(self.packed, self.cluster);
            }
        }
        let sectors = (last / 512).saturating_sub(offset / 512);
        let shift = 70u32.saturating_sub(self.layers.cluster_bits);
        let sectors = sectors.checked_shl(shift).unwrap_or(0);
        Ok(Some(COMPRESSED | sectors | offset))
    }

    fn set(&mut self, unit: u64, entry: Entry) -> Result<()> {
        if entry == Entry::default() {
            return Ok(());
        }
        let number = div(unit, self.per_table);
        if self.l2.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush_table()?;
        }
        let words = self.cluster / 8;
        let (_, table) = self
            .l2
            .get_or_insert_with(|| (number, vec![0; index(words)]));
        let size = if self.layers.extended_l2 { 2 } else { 1 };
        let at = index(rem(unit, self.per_table).saturating_mul(size));
        let both = [entry.word, entry.bitmap];
        let words = both.iter().take(index(size));
        for (slot, word) in table.iter_mut().skip(at).zip(words) {
            *slot = *word;
        }
        Ok(())
    }

    fn flush_table(&mut self) -> Result<()> {
        let Some((number, table)) = self.l2.take() else {
            return Ok(());
        };
        let offset = self.allocate(1);
        self.sink.write_at(offset, &be_words(&table))?;
        if let Some(entry) = self.l1.get_mut(index(number)) {
            *entry = offset | COPIED;
        }
        Ok(())
    }

    /// Refcounts, L1 table, header.
    fn finish(mut self, size: u64) -> Result<u64> {
        self.flush_table()?;
        let order = self.layers.refcount_order;
        let per_block = refcount::per_block(self.cluster, order);
        // Blocks and table count themselves: the numbers grow until they fit.
        let (mut blocks, mut clusters) = (0u64, 0u64);
        loop {
            let total = self.next.saturating_add(blocks).saturating_add(clusters);
            let needed = div_up(total, per_block);
            let table = div_up(needed.saturating_mul(8), self.cluster);
            if (needed, table) == (blocks, clusters) {
                break;
            }
            (blocks, clusters) = (needed, table);
        }
        let first = self.allocate(blocks);
        let table = self.allocate(clusters);
        let total = self.next;
        let mut entries = Vec::new();
        for number in 0..blocks {
            let mut block = vec![0; index(self.cluster)];
            let start = number.saturating_mul(per_block);
            let stop = start.saturating_add(per_block).min(total);
            for (slot, cluster) in (0usize..).zip(start..stop) {
                let count = self.shared.get(&cluster).copied().unwrap_or(1);
                refcount::set(&mut block, order, slot, count);
            }
            let at = first.saturating_add(self.offset(number));
            self.sink.write_at(at, &block)?;
            entries.push(at);
        }
        self.sink.write_at(table, &be_words(&entries))?;
        let length = self.offset(total);
        self.sink.set_len(length)?;
        self.sink.write_at(self.cluster, &be_words(&self.l1))?;
        let header = self.header(size, table, clusters)?;
        self.sink.write_at(0, &header)?;
        Ok(length)
    }

    fn header(&self, size: u64, table: u64, table_clusters: u64) -> Result<Vec<u8>> {
        let layers = self.layers;
        let zstd = matches!(layers.compression, Some((Qcow2Compression::Zstd, _)));
        let v3 = layers.version == Qcow2Version::V3;
        let length = match (v3, zstd) {
            (false, _) => SIZE_V2,
            (true, false) => SIZE_V3,
            (true, true) => SIZE_COMPRESSION,
        };
        let name = layers.backing.map_or("", |backing| backing.name);
        let format = layers.backing.map(|backing| backing.format);
        let data_file = layers.data_file.map(|file| file.name);
        let extensions = extension::encode_all(format, data_file)?;
        let place = u64::from(length).saturating_add(len64(&extensions));
        let end = place.saturating_add(len64(name.as_bytes()));
        if end > self.cluster {
            return Err(Error::unsupported(format_args!(
                "qcow2 header with the names of other files has {end} bytes, a cluster has {}",
                self.cluster
            )));
        }
        let number = |value: u64| u32::try_from(value).map_err(Error::io);
        let mut bytes = MAGIC.to_vec();
        let mut word = |value: u32| bytes.extend_from_slice(&value.to_be_bytes());
        word(if v3 { 3 } else { 2 });
        word(0);
        word(if name.is_empty() { 0 } else { number(place)? });
        word(number(len64(name.as_bytes()))?);
        word(layers.cluster_bits);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&number(len64(&self.l1))?.to_be_bytes());
        bytes.extend_from_slice(&self.cluster.to_be_bytes());
        bytes.extend_from_slice(&table.to_be_bytes());
        bytes.extend_from_slice(&number(table_clusters)?.to_be_bytes());
        bytes.extend_from_slice(&[0; 12]);
        if v3 {
            let flag = |is: bool, bit: u64| if is { bit } else { 0 };
            let incompatible = flag(layers.data_file.is_some(), DATA_FILE)
                | flag(zstd, COMPRESSION_TYPE)
                | flag(layers.extended_l2, EXTENDED_L2);
            let raw = layers.data_file.is_some_and(|file| file.raw);
            bytes.extend_from_slice(&be_words(&[incompatible, 0, flag(raw, RAW_EXTERNAL)]));
            bytes.extend_from_slice(&layers.refcount_order.to_be_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        if zstd {
            bytes.push(1);
        }
        bytes.resize(index(u64::from(length)), 0);
        bytes.extend(extensions);
        bytes.extend_from_slice(name.as_bytes());
        Ok(bytes)
    }
}
