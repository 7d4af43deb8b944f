//! The writer of qcow2: version 2, clusters of 64 KiB.
//!
//! ```text
//! header | refcount table | refcount block | L1 | (L2 and data clusters, refcount blocks) in the order of their first use
//! ```

use crate::math::{SECTOR, bytes, div, div_up, index, len64, rem};
use crate::qemu_img::runs::for_each_run;
use drylab_block::{Error, ReadAt, Result, SparseBytes, WriteAt};
use std::collections::{BTreeMap, btree_map::Entry};

const CLUSTER: u64 = 1 << 16;
const ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one refcount block counts.
const COUNTED: u64 = CLUSTER / 2;
/// Nobody else refers to the cluster.
const OWNED: u64 = 1 << 63;

struct Writer<'a> {
    sink: &'a SparseBytes,
    next: u64,
    blocks: Vec<u64>,
    l2: BTreeMap<u64, u64>,
    data: BTreeMap<u64, u64>,
}

impl Writer<'_> {
    /// Takes the next cluster; where a refcount block must come first, it does.
    fn take(&mut self) -> u64 {
        if rem(self.next, COUNTED) == 0 {
            self.blocks.push(self.next);
            self.next = self.next.saturating_add(1);
        }
        let cluster = self.next;
        self.next = cluster.saturating_add(1);
        cluster
    }

    fn place(&mut self, l1: u64, guest: u64) -> Result<u64> {
        if let Entry::Vacant(_) = self.l2.entry(div(guest, ENTRIES)) {
            let cluster = self.take();
            self.l2.insert(div(guest, ENTRIES), cluster);
            let slot = clusters(l1).saturating_add(div(guest, ENTRIES).saturating_mul(8));
            self.sink
                .write_at(slot, &(clusters(cluster) | OWNED).to_be_bytes())?;
        }
        if let Some(known) = self.data.get(&guest) {
            return Ok(*known);
        }
        let cluster = self.take();
        self.data.insert(guest, cluster);
        let table = self
            .l2
            .get(&div(guest, ENTRIES))
            .copied()
            .unwrap_or_default();
        let slot = clusters(table).saturating_add(rem(guest, ENTRIES).saturating_mul(8));
        self.sink
            .write_at(slot, &(clusters(cluster) | OWNED).to_be_bytes())?;
        Ok(cluster)
    }

    /// Writes the table of refcount blocks and every count; all are 1.
    fn counts(&self) -> Result<()> {
        if self.blocks.len() > index(ENTRIES) {
            return Err(Error::unsupported(
                "qcow2 needs more than one cluster of refcount table",
            ));
        }
        for (number, block) in (0u64..).zip(&self.blocks) {
            let slot = CLUSTER.saturating_add(number.saturating_mul(8));
            self.sink.write_at(slot, &clusters(*block).to_be_bytes())?;
            let first = number.saturating_mul(COUNTED);
            let counted = index(self.next.saturating_sub(first).min(COUNTED));
            self.sink
                .write_at(clusters(*block), &[0, 1].repeat(counted))?;
        }
        Ok(())
    }
}

fn clusters(number: u64) -> u64 {
    number.saturating_mul(CLUSTER)
}

fn header(size: u64, l1_entries: u32, l1: u64) -> Vec<u8> {
    let mut header = b"QFI\xfb".to_vec();
    header.extend(2u32.to_be_bytes());
    header.extend([0; 12]);
    header.extend(16u32.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0u32.to_be_bytes());
    header.extend(l1_entries.to_be_bytes());
    header.extend(clusters(l1).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    header.resize(72, 0);
    header
}

/// Writes a disk.
pub(crate) fn write(disk: &dyn ReadAt, sink: &SparseBytes) -> Result<()> {
    let size = disk.len();
    let l1_entries = div_up(size, CLUSTER.saturating_mul(ENTRIES));
    let l1_clusters = div_up(l1_entries.saturating_mul(8), CLUSTER);
    let l1 = if l1_clusters == 0 { 0 } else { 3 };
    let count = u32::try_from(l1_entries)
        .map_err(|_| Error::unsupported("qcow2 L1 table past 2^32 entries"))?;
    sink.write_at(0, &header(size, count, l1))?;
    let mut writer = Writer {
        sink,
        next: l1_clusters.saturating_add(3),
        blocks: vec![2],
        l2: BTreeMap::new(),
        data: BTreeMap::new(),
    };
    for_each_run(disk, &mut |sector, run| {
        let start = bytes(sector);
        let mut done = 0u64;
        while done < len64(run) {
            let at = start.saturating_add(done);
            let within = rem(at, CLUSTER);
            let taken = CLUSTER
                .saturating_sub(within)
                .min(len64(run).saturating_sub(done));
            let place = writer.place(l1, div(at, CLUSTER))?;
            let part = drylab_block::slice_at(run, index(done), index(taken)).unwrap_or_default();
            sink.write_at(clusters(place).saturating_add(within), part)?;
            done = done.saturating_add(taken);
        }
        Ok(true)
    })?;
    writer.counts()?;
    debug_assert_eq!(rem(clusters(writer.next), SECTOR), 0);
    sink.set_len(clusters(writer.next))
}
