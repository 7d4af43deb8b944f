//! Repair: what would have to be written so that a check finds nothing that can be mended.
//!
//! The order keeps the guest's bytes readable at every step: copies of what must move go behind the end of the file;
//! then refcounts rise to what will be needed, or new tables take the place of the old by one write of the header; then
//! L2 and L1 entries change; then refcounts fall; last the dirty and corrupt bits are cleared.

use super::bitmap::Bitmaps;
use super::check::overlap;
use super::counts::class;
use super::entry::{COPIED, Cluster, Entry, OFFSET, ZERO};
use super::header::{BITMAPS, CORRUPT, DIRTY, RAW_EXTERNAL};
use super::mend::Mender;
use super::read::Qcow2;
use super::rules;
use super::structure::{L2, Structure};
use crate::container::Container;
use crate::edit::Plan;
use crate::finding::{Finding, Findings, Repair};
use crate::math::{div, rem};
use drylab_block::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An L2 table: its offset, and the number of the L1 entry that makes it what it is.
type Key = (u64, Option<u64>);

fn key(table: &L2) -> Key {
    (table.offset, table.number())
}

/// What stands where something else has a claim, and where it goes.
#[derive(Default)]
struct Moves {
    /// Clusters that guest data must leave.
    guest: BTreeSet<u64>,
    /// Clusters that L2 tables must leave.
    tables: BTreeSet<u64>,
    /// L2 tables that others need as they are.
    apart: BTreeSet<Key>,
    /// Old cluster of guest data, and new offset.
    data: BTreeMap<u64, u64>,
    /// Old offset and length of packed bytes, and new offset.
    packed: BTreeMap<(u64, u64), u64>,
    /// L2 tables and their new offsets.
    l2: BTreeMap<Key, u64>,
    /// New refcount tables are needed.
    rebuild: bool,
}

/// The plan; empty when there is nothing to mend.
pub(super) fn repair(image: &Qcow2) -> Result<Plan> {
    let mut found = image.noticed().clone();
    let own = image.structure(&image.limits, false, &mut found)?;
    super::check::check(&own, None, &mut found)?;
    let (damaged, undivided) = (own.damaged, own.undivided);
    drop(own);
    let here = |finding: &&Finding| finding.file.is_empty();
    let ours = || found.list().iter().filter(here);
    if ours().all(|finding| finding.rule.repair == Repair::No) {
        return Ok(Plan::default());
    }
    let refuse = |why: &str| Err(Error::unsupported(format_args!("qcow2 repair: {why}")));
    if image.snapshots.damaged {
        return refuse(
            "the snapshot table is damaged, and what its snapshots hold would be taken for free",
        );
    }
    if damaged {
        return refuse(
            "an L1 table passes the end of the file, and what it holds would be taken for free",
        );
    }
    if undivided {
        return refuse(
            "so many L1 entries name one table that not all of its places in the data file are looked at",
        );
    }
    let twice = |finding: &Finding| finding.rule.code == rules::OVERLAP_TABLES.code;
    if ours().any(twice) {
        return refuse("two tables claim one cluster, and none can be moved");
    }
    let none = Bitmaps::default();
    let mut structure = image.structure(&image.limits, true, &mut Findings::default())?;
    let stale = image.header.extensions.bitmaps.is_some() && !image.header.bitmaps_consistent();
    let drop_bitmaps = image.bitmaps.damaged || stale;
    if drop_bitmaps {
        structure.bitmaps = &none;
    }
    let mut mender = Mender::new(&structure, image.limits.table_bytes_max)?;
    let mut moves = Moves::default();
    moves.find(&mender, &image.refcounts)?;
    prepare(&mut mender, image, drop_bitmaps)?;
    moves.place(&mut mender)?;
    mender.flush();
    moves.switch(&mut mender)?;
    mender.flush();
    mender.raise(moves.rebuild)?;
    moves.entries(&mut mender)?;
    mender.lower()?;
    mender.lengthen()?;
    finish(&mut mender, image)?;
    let lossy = ours().filter(|finding| finding.rule.repair == Repair::Lossy);
    let codes: BTreeSet<&str> = lossy.map(|finding| finding.rule.code).collect();
    let mut plan = mender.plan;
    for code in codes {
        plan.note(format!(
            "{code}: what cannot be read is given up, or one of two claims is kept"
        ));
    }
    Ok(plan)
}

/// Features of the header that a writer must clear first.
fn prepare(mender: &mut Mender<'_>, image: &Qcow2, drop_bitmaps: bool) -> Result<()> {
    let keep = if drop_bitmaps {
        RAW_EXTERNAL
    } else {
        RAW_EXTERNAL | BITMAPS
    };
    mender.clear_unknown(keep)?;
    if let Some(place) = image.header.extensions.bitmaps.filter(|_| drop_bitmaps) {
        // Nothing may be found by this pointer once its clusters are free.
        mender.write(place.at, &[0; 24])?;
        mender.flush();
        mender
            .plan
            .note("dirty bitmaps that cannot be used are dropped");
    }
    Ok(())
}

/// The last step: what said that the file is in disorder.
fn finish(mender: &mut Mender<'_>, image: &Qcow2) -> Result<()> {
    let header = &image.header;
    if header.is_backing_offset_idle() {
        mender.write(8, &[0; 8])?;
    }
    if header.version >= 3 && header.incompatible & (DIRTY | CORRUPT) != 0 {
        mender.flush();
        let bits = header.incompatible & !(DIRTY | CORRUPT);
        mender.write(72, &bits.to_be_bytes())?;
    }
    Ok(())
}

impl Moves {
    /// Finds what must move. Nothing moves for a refcount table outside of `trusted`, where there is none: it is made anew.
    fn find(&mut self, mender: &Mender<'_>, trusted: &Range<u64>) -> Result<()> {
        for (cluster, slot) in mender.counts.referenced() {
            let Some(rule) = overlap(slot) else {
                continue;
            };
            if rule.code == rules::OVERLAP_TABLES.code {
                return Err(Error::unsupported(format_args!(
                    "qcow2 repair: cluster {cluster} is claimed by {}, and none can be moved",
                    class::names(slot.classes)
                )));
            }
            let claims = slot.classes & !(class::ONE | class::TWICE);
            let tables = claims & !class::GUEST;
            let doubted = tables == class::REFCOUNT_TABLE
                && slot.classes & class::TWICE == 0
                && !trusted.contains(&mender.offset(cluster));
            if claims & class::GUEST != 0 && !doubted {
                self.guest.insert(cluster);
            }
            let refcounts = tables & class::REFCOUNTS;
            let again = tables.count_ones() > 1 || slot.classes & class::TWICE != 0;
            if refcounts != 0 && (doubted || again) {
                self.rebuild = true;
            }
            if tables & class::L2 != 0 && tables & !class::L2 & !class::REFCOUNTS != 0 {
                self.tables.insert(cluster);
            }
        }
        self.divide(mender)
    }

    /// Finds the tables that several places of a disk in a data file have: they are right for one of them, and the others
    /// get tables of their own.
    fn divide(&mut self, mender: &Mender<'_>) -> Result<()> {
        let structure = mender.structure;
        for same in structure
            .tables
            .chunk_by(|one, other| one.offset == other.offset)
        {
            if same.len() < 2 {
                continue;
            }
            let mut wrong = Vec::new();
            for table in same {
                let entries = (0u64..).zip(structure.l2(table)?.unwrap_or_default());
                let is_wrong = |(number, entry): &(u64, Entry)| {
                    *entry != Entry::default()
                        && structure.judged(table, *number, *entry).mended != *entry
                };
                wrong.push((entries.filter(is_wrong).count(), key(table)));
            }
            // The one that it fits best keeps it.
            wrong.sort_unstable();
            let others = wrong.into_iter().skip(1).filter(|(count, _)| *count > 0);
            self.apart.extend(others.map(|(_, key)| key));
        }
        Ok(())
    }

    /// Gives places to what moves, and copies guest data there.
    fn place(&mut self, mender: &mut Mender<'_>) -> Result<()> {
        if self.guest.is_empty() && self.tables.is_empty() && self.apart.is_empty() {
            return Ok(());
        }
        let structure = mender.structure;
        let cluster = structure.header.cluster_bytes();
        for table in &structure.tables {
            let by = u64::from(table.references);
            let leaves = self.tables.contains(&div(table.offset, cluster));
            if leaves || self.apart.contains(&key(table)) {
                mender.give_up(table.offset, cluster, by);
                let new = mender.fresh(1, by, class::L2);
                self.l2.insert(key(table), new);
            }
            for (number, entry) in (0u64..).zip(structure.l2(table)?.unwrap_or_default()) {
                if entry == Entry::default() {
                    continue;
                }
                let mended = structure.judged(table, number, entry).mended;
                self.place_one(mender, structure.header.cluster(mended), by)?;
            }
        }
        Ok(())
    }

    fn place_one(&mut self, mender: &mut Mender<'_>, found: Cluster, by: u64) -> Result<()> {
        let Some((_, offset, length)) = mender.structure.region(found) else {
            return Ok(());
        };
        let range = mender.structure.touched(offset, length);
        if !range.clone().any(|cluster| self.guest.contains(&cluster)) {
            return Ok(());
        }
        mender.give_up(offset, length, by);
        let bytes = mender.structure.header.cluster_bytes();
        match found {
            Cluster::Standard(offset) => {
                let number = div(offset, bytes);
                if let Some(new) = self.data.get(&number) {
                    let new = div(*new, bytes);
                    mender.counts.add(new, by, class::DATA);
                } else {
                    let new = mender.fresh(1, by, class::DATA);
                    mender.copy(offset, new, bytes)?;
                    self.data.insert(number, new);
                }
            }
            Cluster::Packed(offset, length) => {
                if let Some(new) = self.packed.get(&(offset, length)) {
                    for cluster in mender.structure.touched(*new, length) {
                        mender.counts.add(cluster, by, class::PACKED);
                    }
                } else {
                    let clusters = range.end.saturating_sub(range.start);
                    let new = mender.fresh(clusters, by, class::PACKED);
                    let new = new.saturating_add(rem(offset, bytes));
                    mender.copy(offset, new, length)?;
                    self.packed.insert((offset, length), new);
                }
            }
            // A place that is only reserved is given up.
            Cluster::Absent | Cluster::Zero(_) => {}
        }
        Ok(())
    }

    /// Plans entries that point to copies, before anything else is written: the copied bytes may be a table's.
    fn switch(&self, mender: &mut Mender<'_>) -> Result<()> {
        if self.data.is_empty() && self.packed.is_empty() {
            return Ok(());
        }
        let structure = mender.structure;
        let cluster = structure.header.cluster_bytes();
        let (moving, staying): (Vec<&L2>, Vec<&L2>) = structure
            .tables
            .iter()
            .partition(|table| self.l2.contains_key(&key(table)));
        // Tables that are themselves taken for guest data change last.
        let late = |table: &&L2| self.guest.contains(&div(table.offset, cluster));
        let (last, first): (Vec<&L2>, Vec<&L2>) = staying.into_iter().partition(late);
        let is_moving = !moving.is_empty();
        for table in moving.into_iter().chain(first) {
            self.switch_one(mender, table)?;
        }
        if is_moving {
            // What stands where they were is another table, which must not change.
            mender.flush();
            self.name_moved(mender)?;
            mender.flush();
        }
        last.into_iter()
            .try_for_each(|table| self.switch_one(mender, table))
    }

    fn switch_one(&self, mender: &mut Mender<'_>, table: &L2) -> Result<()> {
        let structure = mender.structure;
        let Some(old) = structure.l2(table)? else {
            return Ok(());
        };
        let new: Vec<u64> = old
            .into_iter()
            .map(|entry| self.moved(mender, entry))
            .flat_map(|entry| [entry.word, entry.bitmap])
            .collect();
        let bytes = table_bytes(structure, &new);
        match self.l2.get(&key(table)) {
            Some(place) => mender.write(*place, &bytes),
            None => mender.write_changed(table.offset, &bytes),
        }
    }

    /// Plans L1 entries that name moved tables, otherwise as they are.
    fn name_moved(&self, mender: &mut Mender<'_>) -> Result<()> {
        let structure = mender.structure;
        for l1 in &structure.l1s {
            let words = (0u64..).zip(structure.l1_words(l1)?);
            let words = words.map(|(number, word)| {
                let table = structure.table_of(word & OFFSET, l1.active.then_some(number));
                let place = table.and_then(|table| self.l2.get(&key(table)));
                place.map_or(word, |place| (word & !OFFSET) | place)
            });
            let words: Vec<u64> = words.collect();
            mender.write_changed(l1.offset, &super::be_words(&words))?;
        }
        Ok(())
    }

    /// An entry that points to the copies.
    fn moved(&self, mender: &Mender<'_>, entry: Entry) -> Entry {
        let header = mender.structure.header;
        let mut new = entry;
        let bytes = header.cluster_bytes();
        match header.cluster(new) {
            Cluster::Standard(offset) if !header.data_file() => {
                if let Some(moved) = self.data.get(&div(offset, bytes)) {
                    new.word = (new.word & !OFFSET) | moved;
                }
            }
            Cluster::Zero(Some(offset))
                if !header.data_file() && self.guest.contains(&div(offset, bytes)) =>
            {
                new.word &= ZERO;
            }
            Cluster::Packed(offset, length) => {
                if let Some(moved) = self.packed.get(&(offset, length)) {
                    new.word = header.packed_at(new.word, *moved);
                }
            }
            _ => {}
        }
        new
    }

    /// The entry as it will be.
    fn entry(&self, mender: &Mender<'_>, table: &L2, number: u64, entry: Entry) -> Entry {
        let header = mender.structure.header;
        let mended = mender.structure.judged(table, number, entry).mended;
        let new = self.moved(mender, mended);
        if table.number().is_none() {
            return new;
        }
        match header.cluster(new) {
            Cluster::Standard(_) | Cluster::Zero(Some(_)) if header.data_file() => {
                new.with_copied(true)
            }
            Cluster::Standard(offset) | Cluster::Zero(Some(offset)) => {
                new.with_copied(mender.references(offset) == 1)
            }
            Cluster::Packed(_, _) => new,
            Cluster::Absent | Cluster::Zero(None) => new.with_copied(false),
        }
    }

    /// Plans L2 tables in new places, then the changes of L1 tables, then of the other L2 tables: what one L1 entry needs
    /// may be wrong for another until that has a table of its own.
    fn entries(&self, mender: &mut Mender<'_>) -> Result<()> {
        self.change_l2(mender, true)?;
        let structure = mender.structure;
        for l1 in &structure.l1s {
            let words = (0u64..).zip(structure.l1_words(l1)?);
            let words = words.map(|(number, word)| {
                let active = l1.active.then_some(number);
                self.l1_entry(mender, active, word)
            });
            let words: Vec<u64> = words.collect();
            mender.write_changed(l1.offset, &super::be_words(&words))?;
        }
        mender.flush();
        self.change_l2(mender, false)
    }

    /// An L1 entry as it will be, of the active table where it has a number.
    fn l1_entry(&self, mender: &Mender<'_>, active: Option<u64>, word: u64) -> u64 {
        let structure = mender.structure;
        let kept = structure.judge_l1(word).0 & OFFSET;
        if kept == 0 {
            return 0;
        }
        let table = structure.table_of(kept, active);
        let moved = table.and_then(|table| self.l2.get(&key(table)));
        let offset = moved.copied().unwrap_or(kept);
        let copied = match active {
            Some(_) => mender.references(offset) == 1,
            None => word & COPIED != 0,
        };
        // Bits that are not known are cleared in any table.
        offset | if copied { COPIED } else { 0 }
    }

    /// Plans those L2 tables that have a new place, or the changes of the others.
    fn change_l2(&self, mender: &mut Mender<'_>, is_moved: bool) -> Result<()> {
        let structure = mender.structure;
        for table in &structure.tables {
            let place = self.l2.get(&key(table));
            if place.is_some() != is_moved {
                continue;
            }
            let Some(old) = structure.l2(table)? else {
                continue;
            };
            let entries = (0u64..).zip(old);
            let new: Vec<u64> = entries
                .flat_map(|(number, entry)| {
                    let new = if entry == Entry::default() {
                        entry
                    } else {
                        self.entry(mender, table, number, entry)
                    };
                    [new.word, new.bitmap]
                })
                .collect();
            let bytes = table_bytes(structure, &new);
            let place = place.copied().unwrap_or(table.offset);
            mender.write_changed(place, &bytes)?;
        }
        mender.flush();
        Ok(())
    }
}

/// An L2 table as bytes; `words` has the bitmap of each entry, which only extended entries store.
fn table_bytes(structure: &Structure<'_>, words: &[u64]) -> Vec<u8> {
    if structure.header.extended() {
        return super::be_words(words);
    }
    let words: Vec<u64> = words.iter().step_by(2).copied().collect();
    super::be_words(&words)
}
