//! Writing without going back, except for the L1 table and the header, which are written last.
//!
//! ```text
//! header, extensions, backing name │ L1 table │ data, L2 tables, refcount blocks that are full │ the others │ their table
//! ```

use super::entry::{COMPRESSED, COPIED, Entry};
use super::header::{
    COMPRESSION_TYPE, DATA_FILE, EXTENDED_L2, L1_MAX, MAGIC, RAW_EXTERNAL, SIZE_COMPRESSION,
    SIZE_V2, SIZE_V3,
};
use super::refcount::{self, Refcounts};
use super::{Qcow2Compression, Qcow2Layers, Qcow2Options, Qcow2Version, be_words, extension};
use crate::codec::Packer;
use crate::engine::{self, Packed, Packing, Work, Writes};
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::write::Written;
use drylab_block::{Error, ReadAt, Result, WriteAt};
use std::collections::BTreeMap;

/// Writes `disk` as an image that stands alone; the result is the length of the file.
pub(crate) fn write_qcow2(
    disk: &dyn ReadAt,
    options: &Qcow2Options,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    Ok(write_qcow2_layers(disk, &options.into(), sink, work)?.file_bytes)
}

/// Writes `disk`, its size rounded up to sectors of 512 bytes, to `sink`, which is emptied first: only what differs from
/// the backing file, and the clusters to the data file if there is one. The same input gives the same bytes, however many
/// workers there are.
///
/// # Errors
/// [`Error::Unsupported`] for options out of range or that exclude each other, and for a disk whose L1 table would pass
/// 32 MiB; what reading and writing find.
pub fn write_qcow2_layers(
    disk: &dyn ReadAt,
    layers: &Qcow2Layers<'_>,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<Written> {
    layers.check()?;
    // Readers that count sectors would cut off a part of one.
    let size = round_up(disk.len(), 512);
    let mut writer = Writer::new(layers, size, sink)?;
    let data = layers.data_file.map(|file| file.sink);
    for file in [Some(sink), data].into_iter().flatten() {
        if file.len() != 0 {
            file.set_len(0)?;
        }
    }
    let cluster = writer.cluster;
    let alone = layers.backing.is_none() && !layers.extended_l2;
    match layers.compression {
        _ if !alone => writer = super::differ::differ(disk, writer, work)?,
        Some((compression, level)) => {
            let clusters = Clusters { compression, level };
            let shape = (cluster, &clusters);
            engine::pack(disk, Some(sink), shape, work, |piece, writes| {
                writer.piece(piece, writes)
            })?;
        }
        None => {
            let shape = (cluster, false);
            engine::copy(disk, data.unwrap_or(sink), shape, work, |unit| {
                writer.open_table(unit)?;
                let offset = writer.place(unit);
                writer.set(unit, Entry::at(offset));
                Ok(offset)
            })?;
        }
    }
    if let Some(file) = data {
        file.set_len(size)?;
    }
    Ok(Written {
        file_bytes: writer.finish(size)?,
    })
}

/// A compressor of clusters.
pub(super) fn packer(compression: Qcow2Compression, level: u32) -> Result<Packer> {
    match compression {
        Qcow2Compression::Zlib => Ok(Packer::raw_4k(level)),
        Qcow2Compression::Zstd => Packer::zstd(level),
    }
}

/// Clusters packed each by itself, where that makes them shorter.
struct Clusters {
    compression: Qcow2Compression,
    level: u32,
}

impl Packing for Clusters {
    type Tool = Packer;

    fn tool(&self) -> Result<Packer> {
        packer(self.compression, self.level)
    }

    fn pack(&self, packer: &mut Packer, _: u64, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        packer.pack(bytes, bytes.len().saturating_sub(1), out)
    }
}

/// Gives out clusters, and writes the tables that describe them.
pub(super) struct Writer<'a> {
    pub(super) layers: &'a Qcow2Layers<'a>,
    pub(super) sink: &'a dyn WriteAt,
    pub(super) cluster: u64,
    /// Clusters that one L2 table describes.
    per_table: u64,
    /// First cluster not yet given out.
    next: u64,
    /// Where the next compressed bytes may start; a multiple of a cluster when there is no room left.
    packed: u64,
    l1: Vec<u64>,
    /// Number and words of the L2 table being filled.
    l2: Option<(u64, Vec<u64>)>,
    /// Offsets of the refcount blocks written.
    blocks: Vec<u64>,
    /// References to each cluster with compressed bytes that has no refcount block yet; other clusters have one.
    shared: BTreeMap<u64, u64>,
}

impl<'a> Writer<'a> {
    /// A writer of a disk of `size` bytes.
    fn new(layers: &'a Qcow2Layers<'a>, size: u64, sink: &'a dyn WriteAt) -> Result<Self> {
        let cluster = 1u64.checked_shl(layers.cluster_bits).unwrap_or(1 << 21);
        let per_table = div(cluster, if layers.extended_l2 { 16 } else { 8 });
        let covered = cluster.saturating_mul(per_table);
        let l1 = div_up(size, covered).max(1);
        if l1.saturating_mul(8) > L1_MAX {
            let most = covered.saturating_mul(L1_MAX / 8);
            return Err(Error::unsupported(format_args!(
                "qcow2 of {size} bytes with clusters of {cluster}: its L1 table would pass 32 MiB, which is enough for \
                 {most} bytes"
            )));
        }
        Ok(Self {
            layers,
            sink,
            cluster,
            per_table,
            next: div_up(l1.saturating_mul(8), cluster).saturating_add(1),
            packed: 0,
            l1: vec![0; index(l1)],
            l2: None,
            blocks: Vec::new(),
            shared: BTreeMap::new(),
        })
    }
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

    /// Where a guest cluster goes: anywhere in the file, or to its own place in the data file.
    pub(super) fn place(&mut self, unit: u64) -> u64 {
        match self.layers.data_file {
            Some(_) => self.offset(unit),
            None => self.allocate(1),
        }
    }

    /// Makes the L2 table of `unit` the one being filled.
    pub(super) fn open_table(&mut self, unit: u64) -> Result<()> {
        let number = div(unit, self.per_table);
        if self.l2.as_ref().is_none_or(|(open, _)| *open != number) {
            self.flush_table()?;
            self.l2 = Some((number, vec![0; index(self.cluster / 8)]));
        }
        self.flush_refcounts()
    }

    /// Sets the entry of `unit` in the table being filled.
    pub(super) fn set(&mut self, unit: u64, entry: Entry) {
        let size = if self.layers.extended_l2 { 2 } else { 1 };
        let at = index(rem(unit, self.per_table).saturating_mul(size));
        let Some((_, table)) = &mut self.l2 else {
            return;
        };
        let words = [entry.word, entry.bitmap];
        let kept = words.iter().take(index(size));
        for (slot, word) in table.iter_mut().skip(at).zip(kept) {
            *slot = *word;
        }
    }

    fn piece(&mut self, piece: &Packed, writes: &mut Writes) -> Result<()> {
        for unit in &piece.units {
            self.open_table(unit.number)?;
            let (offset, entry) = if unit.is_packed {
                self.place_packed(unit.range.len())?
            } else {
                let offset = self.place(unit.number);
                (offset, Entry::at(offset))
            };
            writes.add(offset, unit);
            self.set(unit.number, entry);
        }
        Ok(())
    }

    /// Gives a compressed cluster of `length` bytes its place behind the last one; offset and entry.
    pub(super) fn place_packed(&mut self, length: usize) -> Result<(u64, Entry)> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
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
        self.packed = offset.saturating_add(length);
        let last = self.packed.saturating_sub(1);
        let most = Refcounts::most(self.layers.refcount_order);
        for cluster in div(offset, self.cluster)..=div(last, self.cluster) {
            let count = self.shared.entry(cluster).or_insert(0);
            *count = count.saturating_add(1);
            if *count >= most {
                // No further reference fits: the rest of the cluster stays unused.
                self.packed = round_up(self.packed, self.cluster);
            }
        }
        let sectors = (last / 512).saturating_sub(offset / 512);
        let shift = 70u32.saturating_sub(self.layers.cluster_bits);
        let word = COMPRESSED | sectors.checked_shl(shift).unwrap_or(0) | offset;
        Ok((offset, Entry { word, bitmap: 0 }))
    }

    fn per_block(&self) -> u64 {
        refcount::per_block(self.cluster, self.layers.refcount_order)
    }

    /// Writes the refcount blocks whose clusters are all given out and get no more references.
    fn flush_refcounts(&mut self) -> Result<()> {
        let per_block = self.per_block();
        // The cluster that compressed bytes are still added to is not settled.
        let settled = self.next.min(match rem(self.packed, self.cluster) {
            0 => u64::MAX,
            _ => div(self.packed, self.cluster),
        });
        while len64(&self.blocks)
            .saturating_add(1)
            .saturating_mul(per_block)
            <= settled
        {
            let offset = self.allocate(1);
            self.write_block(offset, u64::MAX)?;
        }
        Ok(())
    }

    /// Writes the next refcount block, of the clusters below `total`, to `offset`.
    fn write_block(&mut self, offset: u64, total: u64) -> Result<()> {
        let per_block = self.per_block();
        let first = len64(&self.blocks).saturating_mul(per_block);
        let behind = first.saturating_add(per_block);
        let mut bytes = vec![0; index(self.cluster)];
        for (slot, cluster) in (0usize..).zip(first..behind.min(total)) {
            let count = self.shared.get(&cluster).copied().unwrap_or(1);
            refcount::set(&mut bytes, self.layers.refcount_order, slot, count);
        }
        self.shared = self.shared.split_off(&behind);
        self.blocks.push(offset);
        self.sink.write_at(offset, &bytes)
    }

    fn flush_table(&mut self) -> Result<()> {
        let Some((number, table)) = self.l2.take() else {
            return Ok(());
        };
        let offset = self.allocate(1);
        // Few entries of a table are taken where data is scattered over a large disk.
        engine::write_runs(self.sink, offset, &be_words(&table))?;
        if let Some(entry) = self.l1.get_mut(index(number)) {
            *entry = offset | COPIED;
        }
        Ok(())
    }

    /// Refcounts, L1 table, header.
    fn finish(mut self, size: u64) -> Result<u64> {
        self.flush_table()?;
        let (per_block, written) = (self.per_block(), len64(&self.blocks));
        // Blocks and table count themselves: the numbers grow until they fit.
        let (mut blocks, mut table_clusters) = (written, 0u64);
        loop {
            let more = blocks.saturating_sub(written);
            let total = self
                .next
                .saturating_add(more)
                .saturating_add(table_clusters);
            let needed = div_up(total, per_block);
            let table = div_up(needed.saturating_mul(8), self.cluster);
            if (needed, table) == (blocks, table_clusters) {
                break;
            }
            (blocks, table_clusters) = (needed, table);
        }
        let mut block = self.allocate(blocks.saturating_sub(written));
        let table = self.allocate(table_clusters);
        let total = self.next;
        while len64(&self.blocks) < blocks {
            self.write_block(block, total)?;
            block = block.saturating_add(self.cluster);
        }
        self.sink.write_at(table, &be_words(&self.blocks))?;
        let length = self.offset(total);
        self.sink.set_len(length)?;
        engine::write_runs(self.sink, self.cluster, &be_words(&self.l1))?;
        let header = self.header(size, table, table_clusters)?;
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
