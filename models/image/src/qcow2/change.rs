//! Changes of the active tables under way: what the L2 tables are to say, which clusters that needs and frees.
//!
//! A table that a snapshot shares is never changed: one of its own takes its place.

use super::counts::class;
use super::entry::{COPIED, Cluster, Entry, OFFSET};
use super::mend::Mender;
use super::structure::{L1, L2};
use crate::math::{div, index, rem};
use drylab_block::{Error, Result};
use std::collections::BTreeMap;

/// What the active state is to become.
pub(super) struct Change {
    l1: L1,
    /// Entries of the L1 table, as many as are in use now or will be.
    words: Vec<u64>,
    /// Entries of the L2 tables that change, by their number.
    tables: BTreeMap<u64, Vec<Entry>>,
    /// Bytes written where they stand: nothing but what the guest does not see.
    bytes: Vec<(u64, Vec<u8>)>,
    /// Tables written where they stand, once all that they name is there.
    in_place: Vec<(u64, Vec<u8>)>,
    /// Ranges that lose a reference.
    freed: Vec<(u64, u64)>,
}

impl Change {
    pub(super) fn new(mender: &Mender<'_>) -> Result<Self> {
        let structure = mender.structure;
        let l1 = structure.l1s.first().cloned();
        let l1 = l1.ok_or_else(|| Error::corrupt("qcow2 without an L1 table"))?;
        let words = structure.l1_words(&l1)?;
        let mut offsets: Vec<u64> = words.iter().map(|word| word & OFFSET).collect();
        offsets.retain(|offset| *offset != 0);
        let all = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        if offsets.len() < all {
            return Err(Error::unsupported(
                "qcow2 whose L1 table names one L2 table twice: convert the image",
            ));
        }
        Ok(Self {
            words,
            l1,
            tables: BTreeMap::new(),
            bytes: Vec::new(),
            in_place: Vec::new(),
            freed: Vec::new(),
        })
    }

    /// The table of the active state with a number, as the file has it.
    pub(super) fn table(mender: &Mender<'_>, number: u64) -> Option<L2> {
        let mut tables = mender.structure.tables.iter();
        tables.find(|table| table.number() == Some(number)).copied()
    }

    /// Bytes of the tables that change.
    pub(super) fn table_bytes(&self, mender: &Mender<'_>) -> u64 {
        let tables = u64::try_from(self.tables.len()).unwrap_or(u64::MAX);
        tables.saturating_mul(mender.structure.header.cluster_bytes())
    }

    fn entries(&mut self, mender: &Mender<'_>, number: u64) -> Result<&mut Vec<Entry>> {
        let entries = match self.tables.remove(&number) {
            Some(entries) => entries,
            None => match Self::table(mender, number) {
                Some(table) => mender.structure.l2(&table)?.unwrap_or_default(),
                None => vec![Entry::default(); index(mender.structure.header.per_table())],
            },
        };
        Ok(self.tables.entry(number).or_insert(entries))
    }

    /// The entry of a guest cluster.
    pub(super) fn entry(&mut self, mender: &Mender<'_>, cluster: u64) -> Result<Entry> {
        let per_table = mender.structure.header.per_table();
        let number = div(cluster, per_table);
        if !self.tables.contains_key(&number) && Self::table(mender, number).is_none() {
            return Ok(Entry::default());
        }
        let entries = self.entries(mender, number)?;
        let entry = entries.get(index(rem(cluster, per_table))).copied();
        Ok(entry.unwrap_or_default())
    }

    /// Sets the entry of a guest cluster; what it pointed to loses a reference.
    pub(super) fn set(&mut self, mender: &Mender<'_>, cluster: u64, entry: Entry) -> Result<()> {
        let per_table = mender.structure.header.per_table();
        let entries = self.entries(mender, div(cluster, per_table))?;
        let Some(slot) = entries.get_mut(index(rem(cluster, per_table))) else {
            return Ok(());
        };
        let old = std::mem::replace(slot, entry);
        self.free(mender, old);
        Ok(())
    }

    fn free(&mut self, mender: &Mender<'_>, entry: Entry) {
        let structure = mender.structure;
        if let Some((_, at, length)) = structure.region(structure.header.cluster(entry)) {
            self.freed.push((at, length));
        }
    }

    /// Bytes that are written where they stand, before any table changes.
    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        self.bytes.push((offset, bytes));
    }

    /// Gives up the guest clusters from `first` on.
    pub(super) fn drop_from(&mut self, mender: &Mender<'_>, first: u64) -> Result<()> {
        let structure = mender.structure;
        let per_table = structure.header.per_table();
        for table in &structure.tables {
            let Some(number) = table.number() else {
                continue;
            };
            let start = number.saturating_mul(per_table);
            if start.saturating_add(per_table) <= first {
                continue;
            }
            let entries = structure.l2(table)?.unwrap_or_default();
            let kept = index(first.saturating_sub(start));
            let gone = entries.iter().skip(kept);
            let gone: Vec<Entry> = gone
                .copied()
                .filter(|old| *old != Entry::default())
                .collect();
            for entry in &gone {
                self.free(mender, *entry);
            }
            if kept == 0 {
                self.freed
                    .push((table.offset, structure.header.cluster_bytes()));
                if let Some(word) = self.words.get_mut(index(number)) {
                    *word = 0;
                }
            } else if !gone.is_empty() {
                let entries = self.entries(mender, number)?;
                entries
                    .iter_mut()
                    .skip(kept)
                    .for_each(|old| *old = Entry::default());
            }
        }
        Ok(())
    }

    /// Plans the tables that need a place of their own, and, where the L1 table has to have more than its `entries`
    /// entries, that; then refcounts for all of it. Nothing refers to it yet.
    pub(super) fn place(&mut self, mender: &mut Mender<'_>, entries: u64) -> Result<()> {
        let header = mender.structure.header;
        let size = index(header.entry_words());
        self.words.resize(index(entries).max(self.words.len()), 0);
        for (number, entries) in std::mem::take(&mut self.tables) {
            let words: Vec<u64> = entries
                .iter()
                .flat_map(|entry| [entry.word, entry.bitmap].into_iter().take(size))
                .collect();
            let bytes = super::be_words(&words);
            let old = Self::table(mender, number);
            if let Some(own) = old.filter(|table| table.references == 1) {
                self.in_place.push((own.offset, bytes));
                continue;
            }
            if let Some(shared) = old {
                self.freed.push((shared.offset, header.cluster_bytes()));
            }
            let new = mender.fresh(1, 1, class::L2);
            mender.write(new, &bytes)?;
            if let Some(word) = self.words.get_mut(index(number)) {
                *word = new | COPIED;
            }
        }
        if entries > self.l1.entries {
            let bytes = crate::math::round_up(entries.saturating_mul(8), header.cluster_bytes());
            let new = mender.fresh(div(bytes, header.cluster_bytes()), 1, class::L1);
            let mut table = super::be_words(&self.words);
            table.resize(index(bytes), 0);
            mender.write(new, &table)?;
            self.freed
                .push((self.l1.offset, self.l1.entries.saturating_mul(8)));
            self.l1 = L1 {
                offset: new,
                entries,
                active: true,
            };
        } else {
            // In place, and after the tables that it names.
            self.in_place
                .push((self.l1.offset, super::be_words(&self.words)));
        }
        mender.flush();
        mender.raise(false)
    }

    /// Plans the writing of what stays where it is.
    pub(super) fn write_in_place(&mut self, mender: &mut Mender<'_>) -> Result<()> {
        let all = std::mem::take(&mut self.bytes)
            .into_iter()
            .chain(std::mem::take(&mut self.in_place));
        for (offset, bytes) in all {
            mender.write_changed(offset, &bytes)?;
        }
        mender.flush();
        Ok(())
    }

    /// Offset and entries of the L1 table.
    pub(super) fn l1(&self) -> (u64, u64) {
        (self.l1.offset, self.l1.entries)
    }

    /// Plans the refcounts of what nothing refers to any longer.
    pub(super) fn give_up(&mut self, mender: &mut Mender<'_>) -> Result<()> {
        let mut one = false;
        for (offset, length) in std::mem::take(&mut self.freed) {
            mender.give_up(offset, length, 1);
            let mut clusters = mender.structure.touched(offset, length);
            one |= clusters.any(|cluster| mender.counts.count(cluster) == 1);
        }
        mender.lower()?;
        if one {
            self.set_copied(mender)?;
        }
        Ok(())
    }

    /// Plans the bits of those entries whose clusters nothing else refers to any longer: two guest clusters may have been
    /// one in the file.
    fn set_copied(&mut self, mender: &mut Mender<'_>) -> Result<()> {
        let header = mender.structure.header;
        let size = index(header.entry_words());
        for word in &mut self.words {
            let offset = *word & OFFSET;
            if offset == 0 {
                continue;
            }
            if mender.references(offset) == 1 {
                *word |= COPIED;
            }
            let mut table = super::words(&mender.read(offset, header.cluster_bytes())?);
            for words in table.chunks_mut(size) {
                let entry = Entry {
                    word: words.first().copied().unwrap_or(0),
                    bitmap: words.get(1).copied().unwrap_or(0),
                };
                let (Cluster::Standard(at) | Cluster::Zero(Some(at))) = header.cluster(entry)
                else {
                    continue;
                };
                if let Some(word) = words.first_mut()
                    && !header.data_file()
                    && mender.references(at) == 1
                {
                    *word |= COPIED;
                }
            }
            mender.write_changed(offset, &super::be_words(&table))?;
        }
        mender.write_changed(self.l1.offset, &super::be_words(&self.words))?;
        mender.flush();
        Ok(())
    }
}
