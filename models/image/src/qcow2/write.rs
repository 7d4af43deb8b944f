//! Writing without going back, except for the L1 table and the header, which are written last.

use super::header::{MAGIC, SIZE_V2, SIZE_V3};
use super::{Qcow2Compression, Qcow2Options, Qcow2Version};
use crate::codec::Packer;
use crate::engine::{self, Packed, Packing, Unit, Work, Writes};
use crate::math::{div, div_up, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result, WriteAt};
use std::collections::BTreeMap;

/// Bit 63 of an entry: exactly one reference, so it may be written in place.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Incompatible feature: the header names the compression type.
const COMPRESSION_TYPE: u64 = 1 << 3;
/// Largest L1 table that QEMU opens, in bytes.
const L1_MAX: u64 = 32 << 20;
/// log2 of the refcount width: 16 bits, the only one of version 2.
const REFCOUNT_ORDER: u32 = 4;

struct Writer<'a> {
    sink: &'a dyn WriteAt,
    cluster: u64,
    bits: u32,
    /// First cluster not yet given out.
    next: u64,
    /// Where the next compressed bytes may start; a multiple of a cluster when there is no room left.
    packed: u64,
    l1: Vec<u64>,
    /// Number and entries of the L2 table being filled.
    l2: Option<(u64, Vec<u64>)>,
    /// Offsets of the refcount blocks written.
    blocks: Vec<u64>,
    /// References to each cluster with compressed bytes that has no refcount block yet; other clusters have one.
    shared: BTreeMap<u64, u16>,
}

/// Writes `disk`, its size rounded up to sectors of 512 bytes; the result is the length of the file.
pub(crate) fn write_qcow2(
    disk: &dyn ReadAt,
    options: &Qcow2Options,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let bits = options.cluster_bits;
    if !(9..=21).contains(&bits) {
        return Err(Error::unsupported(format_args!(
            "qcow2 cluster_bits {bits}, allowed are 9 to 21"
        )));
    }
    let zstd = options.compress && options.compression == Qcow2Compression::Zstd;
    if zstd && options.version == Qcow2Version::V2 {
        return Err(Error::unsupported(
            "qcow2 version 2 with zstd, which is for version 3",
        ));
    }
    let cluster = 1u64.checked_shl(bits).unwrap_or(1 << 21);
    // Readers that count sectors would cut off a part of one.
    let size = round_up(disk.len(), 512);
    let l1 = div_up(size, cluster.saturating_mul(cluster / 8)).max(1);
    if l1.saturating_mul(8) > L1_MAX {
        return Err(Error::unsupported(format_args!(
            "qcow2 of {size} bytes with clusters of {cluster}: its L1 table would pass {L1_MAX} bytes"
        )));
    }
    let mut writer = Writer {
        sink,
        cluster,
        bits,
        next: div_up(l1.saturating_mul(8), cluster).saturating_add(1),
        packed: 0,
        l1: vec![0; index(l1)],
        l2: None,
        blocks: Vec::new(),
        shared: BTreeMap::new(),
    };
    if options.compress {
        let clusters = Clusters {
            zstd,
            level: options.level,
        };
        engine::pack(
            disk,
            Some(sink),
            (cluster, &clusters),
            work,
            |piece, writes| writer.piece(piece, writes),
        )?;
    } else {
        engine::copy(disk, sink, (cluster, false), work, |unit| {
            writer.open_table(unit)?;
            let offset = writer.allocate(1);
            writer.set(unit, offset | COPIED);
            Ok(offset)
        })?;
    }
    writer.finish(size, options.version, zstd)
}

/// Clusters packed each by itself, where that makes them shorter.
struct Clusters {
    zstd: bool,
    level: u32,
}

impl Packing for Clusters {
    type Tool = Packer;

    fn tool(&self) -> Result<Packer> {
        if self.zstd {
            Packer::zstd(self.level)
        } else {
            Ok(Packer::raw_4k(self.level))
        }
    }

    fn pack(&self, packer: &mut Packer, _: u64, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        packer.pack(bytes, bytes.len().saturating_sub(1), out)
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

    /// Makes the L2 table of `unit` the one being filled.
    fn open_table(&mut self, unit: u64) -> Result<()> {
        let per_table = self.cluster / 8;
        let number = div(unit, per_table);
        if self.l2.as_ref().is_none_or(|(open, _)| *open != number) {
            self.flush_table()?;
            self.l2 = Some((number, vec![0; index(per_table)]));
        }
        self.flush_refcounts()
    }

    /// Sets the entry of `unit` in the table being filled.
    fn set(&mut self, unit: u64, entry: u64) {
        let at = index(rem(unit, self.cluster / 8));
        if let Some(slot) = self.l2.as_mut().and_then(|(_, table)| table.get_mut(at)) {
            *slot = entry;
        }
    }

    fn piece(&mut self, piece: &Packed, writes: &mut Writes) -> Result<()> {
        for unit in &piece.units {
            self.open_table(unit.number)?;
            let entry = if unit.is_packed {
                let (offset, entry) = self.place_packed(unit)?;
                writes.add(offset, unit);
                entry
            } else {
                let offset = self.allocate(1);
                writes.add(offset, unit);
                offset | COPIED
            };
            self.set(unit.number, entry);
        }
        Ok(())
    }

    /// Gives a compressed cluster its place behind the last one; offset and entry.
    fn place_packed(&mut self, unit: &Unit) -> Result<(u64, u64)> {
        let length = u64::try_from(unit.range.len()).unwrap_or(u64::MAX);
        let room = round_up(self.packed, self.cluster).saturating_sub(self.packed);
        // Compressed bytes may run into the next cluster only if that is the next one to be given out.
        let adjoins = room > 0 && round_up(self.packed, self.cluster) == self.offset(self.next);
        if length > room {
            if !adjoins {
                self.packed = self.offset(self.next);
            }
            let missing = self
                .packed
                .saturating_add(length)
                .saturating_sub(self.offset(self.next));
            self.allocate(div_up(missing, self.cluster));
        }
        let offset = self.packed;
        self.packed = offset.saturating_add(length);
        let last = self.packed.saturating_sub(1);
        for cluster in div(offset, self.cluster)..=div(last, self.cluster) {
            let count = self.shared.entry(cluster).or_insert(0);
            *count = count
                .checked_add(1)
                .ok_or_else(|| Error::io(format_args!("refcount of cluster {cluster}")))?;
        }
        let sectors = (last / 512).saturating_sub(offset / 512);
        let shift = 70u32.saturating_sub(self.bits);
        let entry = COMPRESSED | sectors.checked_shl(shift).unwrap_or(0) | offset;
        Ok((offset, entry))
    }

    /// Writes the refcount blocks whose clusters are all given out and get no more references.
    fn flush_refcounts(&mut self) -> Result<()> {
        let per_block = self.cluster / 2;
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
        let per_block = self.cluster / 2;
        let first = len64(&self.blocks).saturating_mul(per_block);
        let behind = first.saturating_add(per_block);
        let mut bytes = Vec::with_capacity(index(self.cluster));
        for cluster in first..behind {
            let count = if cluster < total {
                self.shared.get(&cluster).copied().unwrap_or(1)
            } else {
                0
            };
            bytes.extend_from_slice(&count.to_be_bytes());
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
        self.sink.write_at(offset, &be_words(&table))?;
        if let Some(entry) = self.l1.get_mut(index(number)) {
            *entry = offset | COPIED;
        }
        Ok(())
    }

    /// Refcounts, L1 table, header.
    fn finish(mut self, size: u64, version: Qcow2Version, zstd: bool) -> Result<u64> {
        self.flush_table()?;
        let (per_block, written) = (self.cluster / 2, len64(&self.blocks));
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
        self.sink.write_at(self.cluster, &be_words(&self.l1))?;
        let refcounts = (table, table_clusters);
        self.sink
            .write_at(0, &self.header(size, version, refcounts, zstd)?)?;
        Ok(length)
    }

    fn header(
        &self,
        size: u64,
        version: Qcow2Version,
        (table, table_clusters): (u64, u64),
        zstd: bool,
    ) -> Result<Vec<u8>> {
        let number = |value: u64| u32::try_from(value).map_err(Error::io);
        let mut bytes = MAGIC.to_vec();
        let words = |bytes: &mut Vec<u8>, values: &[u32]| {
            values
                .iter()
                .for_each(|value| bytes.extend_from_slice(&value.to_be_bytes()));
        };
        let v3 = version == Qcow2Version::V3;
        words(&mut bytes, &[if v3 { 3 } else { 2 }, 0, 0, 0, self.bits]);
        bytes.extend_from_slice(&size.to_be_bytes());
        words(&mut bytes, &[0, number(len64(&self.l1))?]);
        bytes.extend_from_slice(&self.cluster.to_be_bytes());
        bytes.extend_from_slice(&table.to_be_bytes());
        words(&mut bytes, &[number(table_clusters)?, 0, 0, 0]);
        let mut end = if v3 { SIZE_V3 } else { SIZE_V2 };
        if v3 {
            let incompatible = if zstd { COMPRESSION_TYPE } else { 0 };
            end = end.saturating_add(if zstd { 8 } else { 0 });
            bytes.extend_from_slice(&incompatible.to_be_bytes());
            // No compatible and autoclear bits, refcount order and the length of this header.
            words(&mut bytes, &[0, 0, 0, 0, REFCOUNT_ORDER, end]);
        }
        if zstd {
            bytes.push(1);
        }
        // The end of the (absent) extensions.
        bytes.resize(index(u64::from(end)).saturating_add(8), 0);
        Ok(bytes)
    }
}

fn be_words(words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(words.len().saturating_mul(8));
    words
        .iter()
        .for_each(|word| bytes.extend_from_slice(&word.to_be_bytes()));
    bytes
}
