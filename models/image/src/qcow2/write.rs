//! Writing without going back, except for the header, which is written last.

use super::header::{MAGIC, SIZE_V2, SIZE_V3};
use super::{Qcow2Options, Qcow2Version};
use crate::codec::Packer;
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::scan::for_each_unit;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// Bit 63 of an entry: exactly one reference, so it may be written in place.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Largest L1 table that QEMU opens, in bytes.
const L1_MAX: u64 = 32 << 20;
/// log2 of the refcount width: 16 bits, the only one of version 2.
const REFCOUNT_ORDER: u32 = 4;

struct Writer<'a> {
    sink: &'a dyn WriteAt,
    cluster: u64,
    bits: u32,
    packer: Option<Packer>,
    /// First cluster not yet given out.
    next: u64,
    /// Where the next compressed bytes may start; a multiple of a cluster when there is no room left.
    packed: u64,
    l1: Vec<u64>,
    /// Number and entries of the L2 table being filled.
    l2: Option<(u64, Vec<u64>)>,
    /// References to each cluster that holds compressed bytes; all other clusters have one.
    shared: std::collections::BTreeMap<u64, u16>,
}

/// Writes `disk`, its size rounded up to sectors of 512 bytes; the result is the length of the file.
pub(crate) fn write_qcow2(
    disk: &dyn ReadAt,
    options: &Qcow2Options,
    sink: &dyn WriteAt,
) -> Result<u64> {
    let bits = options.cluster_bits;
    if !(9..=21).contains(&bits) {
        return Err(Error::unsupported(format_args!(
            "qcow2 cluster_bits {bits}, allowed are 9 to 21"
        )));
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
        packer: options.compress.then(|| Packer::raw_4k(options.level)),
        next: div_up(l1.saturating_mul(8), cluster).saturating_add(1),
        packed: 0,
        l1: vec![0; index(l1)],
        l2: None,
        shared: std::collections::BTreeMap::new(),
    };
    for_each_unit(disk, cluster, |unit, bytes| writer.cluster(unit, bytes))?;
    writer.finish(size, options.version)
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

    fn cluster(&mut self, unit: u64, bytes: &[u8]) -> Result<()> {
        let per_table = self.cluster / 8;
        let number = div(unit, per_table);
        if self.l2.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush_table()?;
        }
        let entry = match self.pack(bytes)? {
            Some(entry) => entry,
            None => {
                let offset = self.allocate(1);
                self.sink.write_at(offset, bytes)?;
                offset | COPIED
            }
        };
        let (_, table) = self
            .l2
            .get_or_insert_with(|| (number, vec![0; index(per_table)]));
        if let Some(slot) = table.get_mut(index(rem(unit, per_table))) {
            *slot = entry;
        }
        Ok(())
    }

    /// Writes a cluster compressed behind the last one; `None` when it does not get shorter.
    fn pack(&mut self, bytes: &[u8]) -> Result<Option<u64>> {
        let Some(mut packer) = self.packer.take() else {
            return Ok(None);
        };
        let packed = packer
            .pack(bytes, bytes.len().saturating_sub(1))?
            .map(<[u8]>::to_vec);
        self.packer = Some(packer);
        let Some(packed) = packed else {
            return Ok(None);
        };
        let length = len64(&packed);
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
        self.sink.write_at(offset, &packed)?;
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
        Ok(Some(
            COMPRESSED | sectors.checked_shl(shift).unwrap_or(0) | offset,
        ))
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
    fn finish(mut self, size: u64, version: Qcow2Version) -> Result<u64> {
        self.flush_table()?;
        let per_block = self.cluster / 2;
        // Blocks and table count themselves: the numbers grow until they fit.
        let (mut blocks, mut table_clusters) = (0u64, 0u64);
        loop {
            let total = self
                .next
                .saturating_add(blocks)
                .saturating_add(table_clusters);
            let (need_blocks, need_table) = (
                div_up(total, per_block),
                div_up(div_up(total, per_block).saturating_mul(8), self.cluster),
            );
            if (need_blocks, need_table) == (blocks, table_clusters) {
                break;
            }
            (blocks, table_clusters) = (need_blocks, need_table);
        }
        let first_block = self.allocate(blocks);
        let table = self.allocate(table_clusters);
        let total = self.next;
        for block in 0..blocks {
            let first = block.saturating_mul(per_block);
            let mut bytes = Vec::with_capacity(index(self.cluster));
            for cluster in first..first.saturating_add(per_block) {
                let count = if cluster < total {
                    self.shared.get(&cluster).copied().unwrap_or(1)
                } else {
                    0
                };
                bytes.extend_from_slice(&count.to_be_bytes());
            }
            self.sink
                .write_at(first_block.saturating_add(self.offset(block)), &bytes)?;
        }
        let entries: Vec<u64> = (0..blocks)
            .map(|block| first_block.saturating_add(self.offset(block)))
            .collect();
        self.sink.write_at(table, &be_words(&entries))?;
        self.sink.write_at(self.cluster, &be_words(&self.l1))?;
        self.sink
            .write_at(0, &self.header(size, version, table, table_clusters)?)?;
        let length = self.offset(total);
        self.sink.set_len(length)?;
        Ok(length)
    }

    fn header(
        &self,
        size: u64,
        version: Qcow2Version,
        table: u64,
        table_clusters: u64,
    ) -> Result<Vec<u8>> {
        let number = |value: u64| u32::try_from(value).map_err(Error::io);
        let mut bytes = MAGIC.to_vec();
        let words = |bytes: &mut Vec<u8>, values: &[u32]| {
            values
                .iter()
                .for_each(|value| bytes.extend_from_slice(&value.to_be_bytes()));
        };
        words(
            &mut bytes,
            &[
                if version == Qcow2Version::V2 { 2 } else { 3 },
                0,
                0,
                0,
                self.bits,
            ],
        );
        bytes.extend_from_slice(&size.to_be_bytes());
        words(&mut bytes, &[0, number(len64(&self.l1))?]);
        bytes.extend_from_slice(&self.cluster.to_be_bytes());
        bytes.extend_from_slice(&table.to_be_bytes());
        words(&mut bytes, &[number(table_clusters)?, 0, 0, 0]);
        if version == Qcow2Version::V3 {
            // No feature bits, refcount order and the length of this header.
            words(&mut bytes, &[0, 0, 0, 0, 0, 0, REFCOUNT_ORDER, SIZE_V3]);
        }
        let end = if version == Qcow2Version::V3 {
            SIZE_V3
        } else {
            SIZE_V2
        };
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
