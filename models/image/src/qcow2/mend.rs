//! What repair and resize have in common: a plan under construction, and refcounts that follow it.

use super::counts::{Counts, class};
use super::draft::Draft;
use super::header::{BITMAPS, RAW_EXTERNAL};
use super::refcount::{self, Block, Refcounts, TABLE_MAX};
use super::structure::Structure;
use crate::edit::{Edit, Plan};
use crate::math::{div_up, index, len64, round_up};
use drylab_block::{Error, ReadAt, Result, WriteAt, read_vec};
use std::collections::BTreeSet;

/// Bytes that a medium writes at once: changes inside tables are planned in pieces of them.
const SECTOR: usize = 512;

/// A plan, the file as it will be, and the references that it will have.
pub(super) struct Mender<'a> {
    pub(super) structure: &'a Structure<'a>,
    pub(super) counts: Counts,
    pub(super) plan: Plan,
    /// The file with the plan so far, copied ranges left out.
    file: Draft,
    refcounts: Refcounts,
    order: u32,
    cluster: u64,
    /// First cluster that is not given out.
    next: u64,
}

impl<'a> Mender<'a> {
    /// Counts all references.
    pub(super) fn new(structure: &'a Structure<'a>, memory: u64) -> Result<Self> {
        let mut counts = Counts::new(0, memory);
        structure.count(&mut counts, None)?;
        let clusters = structure.clusters();
        if counts.range().end < clusters {
            return Err(Error::unsupported(format_args!(
                "the refcounts of {clusters} clusters need more than the {memory} bytes of memory allowed: raise the limit table-bytes"
            )));
        }
        let header = structure.header;
        let limits = drylab_block::Limits::DEFAULT;
        Ok(Self {
            refcounts: Refcounts::read(&*structure.source, header, &limits)?,
            order: header.refcount_order,
            cluster: header.cluster_bytes(),
            file: Draft::new(structure.source.clone()),
            plan: Plan::default(),
            // The last compressed bytes may claim a cluster that the file does not reach.
            next: clusters.max(counts.last().map_or(0, |last| last.saturating_add(1))),
            structure,
            counts,
        })
    }

    pub(super) fn offset(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.cluster)
    }

    /// Gives out clusters behind the end of the file, with references; the result is their offset.
    pub(super) fn fresh(&mut self, clusters: u64, references: u64, class: u16) -> u64 {
        let first = self.next;
        self.next = self.next.saturating_add(clusters);
        for cluster in first..self.next {
            self.counts.add(cluster, references, class);
        }
        self.offset(first)
    }

    /// Takes references away from the clusters of a range.
    pub(super) fn give_up(&mut self, offset: u64, length: u64, references: u64) {
        for cluster in self.structure.touched(offset, length) {
            self.counts.take(cluster, references);
        }
    }

    /// References that a cluster will have.
    pub(super) fn references(&self, offset: u64) -> u64 {
        self.counts.count(crate::math::div(offset, self.cluster))
    }

    /// The file is at least so long.
    pub(super) fn reach(&mut self, new: u64) -> Result<()> {
        let old = self.file.len();
        if old < new {
            self.plan.push(Edit::Length { old, new });
            self.file.set_len(new)?;
        }
        Ok(())
    }

    /// Plans the writing of bytes.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.reach(offset)?;
        self.plan.write(&self.file, offset, bytes)?;
        self.file.write_at(offset, bytes)
    }

    /// Plans the writing of those sectors of a table that change.
    pub(super) fn write_changed(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.saturating_add(len64(bytes)) > self.file.len() {
            return self.write(offset, bytes);
        }
        let mut at = offset;
        for sector in bytes.chunks(SECTOR) {
            self.write(at, sector)?;
            at = at.saturating_add(len64(sector));
        }
        Ok(())
    }

    /// Plans the copying of bytes to the end of the file, as many as it has.
    pub(super) fn copy(&mut self, from: u64, to: u64, length: u64) -> Result<()> {
        let length = self.structure.bounds.file.saturating_sub(from).min(length);
        if length == 0 {
            return Ok(());
        }
        self.reach(to)?;
        self.plan.push(Edit::Copy { from, to, length });
        let end = to.saturating_add(length);
        if end > self.file.len() {
            self.file.set_len(end)?;
        }
        Ok(())
    }

    /// What was planned so far is on the medium before what comes.
    pub(super) fn flush(&mut self) {
        let last = self.plan.edits().last();
        if last.is_some_and(|edit| *edit != Edit::Flush) {
            self.plan.push(Edit::Flush);
        }
    }

    /// Free clusters at the end of the file go.
    pub(super) fn cut(&mut self) {
        let last = self.counts.last().unwrap_or(0);
        let (old, new) = (self.file.len(), self.offset(last.saturating_add(1)));
        if new < old {
            self.plan.push(Edit::Length { old, new });
            self.next = last.saturating_add(1);
        }
    }

    /// The file ends with a cluster that was given out.
    pub(super) fn lengthen(&mut self) -> Result<()> {
        let (old, new) = (self.file.len(), self.offset(self.next));
        if old < new && self.next > self.structure.clusters() {
            self.plan.push(Edit::Length { old, new });
            self.file.set_len(new)?;
        }
        Ok(())
    }

    /// Bytes of the file as it will be.
    pub(super) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        read_vec(
            &self.file,
            "qcow2 table",
            offset,
            length,
            &drylab_block::Limits::DEFAULT,
        )
    }

    /// Clears the autoclear bits of what is not known here, as a writer must before it writes.
    pub(super) fn clear_unknown(&mut self, keep: u64) -> Result<()> {
        let header = self.structure.header;
        let kept = header.autoclear & keep & (BITMAPS | RAW_EXTERNAL);
        if header.version >= 3 && kept != header.autoclear {
            self.write(88, &kept.to_be_bytes())?;
            self.flush();
        }
        Ok(())
    }

    /// Whether the refcounts of the file can be set where they are.
    fn in_place(&self) -> bool {
        let header = self.structure.header;
        let table = header.refcount_table_bytes();
        let inside = header.refcount_offset.saturating_add(table) <= self.structure.bounds.file;
        let mut referenced = self.counts.referenced();
        inside && table > 0 && self.refcounts.wrong().next().is_none() && {
            referenced.all(|(cluster, _)| {
                let block = self.refcounts.block_of(cluster);
                matches!(self.refcounts.block(block), Block::At(_))
                    && self.counts.count(cluster) <= Refcounts::most(self.order)
            })
        }
    }

    /// Plans refcounts that are at least the references: new tables where `rebuild` asks for them or the old ones cannot
    /// hold them.
    pub(super) fn raise(&mut self, rebuild: bool) -> Result<()> {
        if rebuild || !self.in_place() {
            return self.rebuild();
        }
        self.set(true)?;
        self.flush();
        Ok(())
    }

    /// Plans refcounts that are the references.
    pub(super) fn lower(&mut self) -> Result<()> {
        self.set(false)?;
        self.flush();
        Ok(())
    }

    /// Sets refcounts where they are; `only_more` leaves those that would become less.
    fn set(&mut self, only_more: bool) -> Result<()> {
        let per_block = self.refcounts.per_block();
        for number in 0..len64(&self.refcounts.table) {
            let Block::At(offset) = self.refcounts.block(number) else {
                continue;
            };
            let mut block = self.read(offset, self.cluster)?;
            let first = number.saturating_mul(per_block);
            for (slot, cluster) in (0usize..).zip(first..first.saturating_add(per_block)) {
                let stored = refcount::get(&block, self.order, slot);
                let counted = self.counts.count(cluster);
                if stored != counted && !(only_more && counted < stored) {
                    refcount::set(&mut block, self.order, slot, counted);
                }
            }
            self.write_changed(offset, &block)?;
        }
        Ok(())
    }

    /// Plans new blocks and a new table behind the end of the file, and the header that names them.
    fn rebuild(&mut self) -> Result<()> {
        self.forget_refcounts();
        self.widen()?;
        let per_block = refcount::per_block(self.cluster, self.order);
        let (blocks, table_clusters) = self.plan_blocks(per_block)?;
        let first = self.fresh(len64(&blocks), 1, class::REFCOUNT_BLOCK);
        let table = self.fresh(table_clusters, 1, class::REFCOUNT_TABLE);
        let mut words = vec![0u64; index(self.offset(table_clusters) / 8)];
        let mut at = first;
        for number in &blocks {
            let mut block = vec![0; index(self.cluster)];
            let start = number.saturating_mul(per_block);
            for (slot, cluster) in (0usize..).zip(start..start.saturating_add(per_block)) {
                let counted = self.counts.count(cluster);
                refcount::set(&mut block, self.order, slot, counted);
            }
            self.write(at, &block)?;
            if let Some(word) = words.get_mut(index(*number)) {
                *word = at;
            }
            at = at.saturating_add(self.cluster);
        }
        self.write(table, &super::be_words(&words))?;
        self.flush();
        let mut header = self.read(0, 104)?;
        put(&mut header, 48, &table.to_be_bytes());
        let clusters = u32::try_from(table_clusters).map_err(Error::io)?;
        put(&mut header, 56, &clusters.to_be_bytes());
        let mut end = 60;
        if self.structure.header.version >= 3 {
            put(&mut header, 96, &self.order.to_be_bytes());
            end = 100;
        }
        // One write within one sector: the old tables count, or the new ones.
        self.write(48, header.get(48..end).unwrap_or_default())?;
        self.flush();
        self.plan.note("refcounts are written anew");
        let file = self.file.len();
        self.refcounts = Refcounts::of((self.order, self.cluster), words, file);
        Ok(())
    }

    /// The old refcount table and its blocks are free.
    fn forget_refcounts(&mut self) {
        let header = self.structure.header;
        let (offset, bytes) = (header.refcount_offset, header.refcount_table_bytes());
        if !header.excess(offset, bytes, self.structure.bounds.file) {
            self.give_up(offset, bytes, 1);
        }
        for number in 0..len64(&self.refcounts.table) {
            if let Block::At(offset) = self.refcounts.block(number) {
                self.give_up(offset, 1, 1);
            }
        }
    }

    /// Takes refcounts wide enough for the most references.
    fn widen(&mut self) -> Result<()> {
        let counts = self.counts.referenced();
        let most = counts.map(|(cluster, _)| self.counts.count(cluster)).max();
        let most = most.unwrap_or(1);
        while Refcounts::most(self.order) < most {
            if self.structure.header.version < 3 {
                return Err(Error::unsupported(format_args!(
                    "a cluster has {most} references, and version 2 counts to 65535: convert the image to version 3"
                )));
            }
            self.order = self.order.saturating_add(1);
        }
        Ok(())
    }

    /// Numbers of the blocks that are needed, with those for themselves and the table, and the table's clusters.
    fn plan_blocks(&self, per_block: u64) -> Result<(Vec<u64>, u64)> {
        let numbers = self
            .counts
            .referenced()
            .map(|(cluster, _)| crate::math::div(cluster, per_block));
        let needed: BTreeSet<u64> = numbers.collect();
        let mut blocks = needed.clone();
        let mut table = 1u64;
        loop {
            let end = self
                .next
                .saturating_add(u64::try_from(blocks.len()).unwrap_or(u64::MAX))
                .saturating_add(table);
            let mut all = needed.clone();
            let own = crate::math::div(self.next, per_block)..div_up(end, per_block);
            all.extend(own);
            let highest = all.last().copied().unwrap_or(0);
            let bytes = round_up(highest.saturating_add(1).saturating_mul(8), self.cluster);
            if bytes > TABLE_MAX.max(self.cluster) {
                return Err(Error::unsupported(format_args!(
                    "a file of {} bytes needs a refcount table of {bytes}, QEMU opens {TABLE_MAX}",
                    self.file.len()
                )));
            }
            let clusters = crate::math::div(bytes, self.cluster);
            if all == blocks && clusters == table {
                return Ok((blocks.into_iter().collect(), table));
            }
            // Both only grow.
            table = clusters.max(table);
            blocks = all;
        }
    }
}

/// Puts bytes into a table.
pub(super) fn put(table: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = table.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}
