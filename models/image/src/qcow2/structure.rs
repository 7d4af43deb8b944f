//! Everything in a file that refers to its clusters, and how often.

use super::bitmap::Bitmaps;
use super::counts::{Counts, class};
use super::entry::{Bounds, COPIED, Cluster, Entry, Judged, OFFSET, Problem};
use super::header::Header;
use super::packed::Said;
use super::refcount::{Block, Refcounts};
use super::rules;
use super::snapshot::Snapshots;
use crate::finding::Findings;
use crate::math::{div, div_up, index, len64, rem};
use drylab_block::{Error, Limits, ReadAt, Result};
use std::sync::Arc;

/// An L1 table.
#[derive(Clone, Debug)]
pub(super) struct L1 {
    pub(super) offset: u64,
    pub(super) entries: u64,
    /// It is the header's, not a snapshot's.
    pub(super) active: bool,
}

/// An L2 table, whoever refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct L2 {
    pub(super) offset: u64,
    /// L1 entries that point to it.
    pub(super) references: u32,
    /// One more than the number of the active L1 entry that does, or 0.
    active: u32,
}

impl L2 {
    /// Number of the active L1 entry that points to it.
    pub(super) fn number(&self) -> Option<u64> {
        self.active.checked_sub(1).map(u64::from)
    }
}

/// What refers to clusters.
pub(super) struct Structure<'a> {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) header: &'a Header,
    pub(super) bounds: Bounds,
    pub(super) snapshots: &'a Snapshots,
    pub(super) bitmaps: &'a Bitmaps,
    pub(super) refcounts: Refcounts,
    pub(super) l1s: Vec<L1>,
    /// By offset, each once.
    pub(super) tables: Vec<L2>,
    /// Whether references are taken as they should be, those that lead nowhere left out.
    pub(super) mended: bool,
    /// L1 tables pass the end of the file, or are together larger than it.
    pub(super) damaged: bool,
    /// With an external data file: more places of the disk have one table than are looked at one by one.
    pub(super) undivided: bool,
}

/// A range of clusters and what it holds.
type Region = (u16, u64, u64);

impl<'a> Structure<'a> {
    /// Reads all L1 tables. Wrong entries are findings.
    pub(super) fn gather(
        (source, header): (&Arc<dyn ReadAt>, &'a Header),
        (snapshots, bitmaps): (&'a Snapshots, &'a Bitmaps),
        bounds: Bounds,
        limits: &Limits,
        (mended, found): (bool, &mut Findings),
    ) -> Result<Self> {
        let active = L1 {
            offset: header.l1_offset,
            entries: u64::from(header.l1_size),
            active: true,
        };
        let others = snapshots.list.iter().map(|snapshot| L1 {
            offset: snapshot.l1_offset,
            entries: u64::from(snapshot.l1_size),
            active: false,
        });
        let mut all = Self {
            source: source.clone(),
            header,
            bounds,
            snapshots,
            bitmaps,
            refcounts: Refcounts::read(&**source, header, limits)?,
            l1s: std::iter::once(active).chain(others).collect(),
            tables: Vec::new(),
            mended,
            damaged: false,
            undivided: false,
        };
        all.gather_tables(limits, found)?;
        Ok(all)
    }

    fn gather_tables(&mut self, limits: &Limits, found: &mut Findings) -> Result<()> {
        // Tables that do not overlap are no larger than the file.
        let mut left = self.bounds.file.saturating_add(1 << 16);
        let most = index(limits.table_bytes_max / 16);
        for l1 in self.l1s.clone() {
            let bytes = l1.entries.saturating_mul(8);
            if l1.offset.saturating_add(bytes) > self.bounds.file {
                self.damaged = true;
                let place = (l1.offset, bytes);
                let expected = format!("inside the file ({})", self.bounds.file);
                let text = format!("of {bytes} bytes at {}", l1.offset);
                found.add(&rules::TABLE_BEYOND_END, place, "L1 table", text, expected);
            }
            let bytes = bytes.min(self.bounds.file.saturating_sub(l1.offset));
            if bytes > left {
                self.damaged = true;
                let text = format!("of {bytes} bytes, more than the file has left");
                let place = (l1.offset, bytes);
                let expected = "tables of their own";
                found.add(&rules::OVERLAP_TABLES, place, "L1 tables", text, expected);
                break;
            }
            left = left.saturating_sub(bytes);
            for (number, word) in (0u32..).zip(self.l1_words(&l1)?) {
                let (word, problems) = self.judge_l1(word);
                self.say_l1(&l1, number, problems, found);
                let offset = word & OFFSET;
                if offset == 0 {
                    continue;
                }
                if self.tables.len() >= most {
                    self.merge();
                }
                if self.tables.len() >= most {
                    return Err(Error::unsupported(format_args!(
                        "qcow2 with more than {most} L2 tables: raise the limit table-bytes ({})",
                        limits.table_bytes_max
                    )));
                }
                self.tables.push(L2 {
                    offset,
                    references: 1,
                    active: if l1.active {
                        number.saturating_add(1)
                    } else {
                        0
                    },
                });
            }
        }
        self.merge();
        self.say_left(found);
        Ok(())
    }

    fn say_left(&self, found: &mut Findings) {
        if !self.undivided {
            return;
        }
        let (place, path) = (
            (
                self.header.l1_offset,
                u64::from(self.header.l1_size).saturating_mul(8),
            ),
            "L1 table",
        );
        let text = "so many entries name one table that not all of its places in the data file are looked at";
        found.add(
            &rules::TABLES_LEFT,
            place,
            path,
            text,
            "a table of its own for each entry",
        );
    }

    fn say_l1(&self, l1: &L1, number: u32, problems: Vec<Problem>, found: &mut Findings) {
        for problem in problems {
            let table = if l1.active {
                "L1 table"
            } else {
                "snapshot's L1 table"
            };
            let place = l1
                .offset
                .saturating_add(u64::from(number).saturating_mul(8));
            let path = format!("{table}, entry {number}");
            found.add(
                problem.rule,
                (place, 8),
                path,
                problem.found,
                problem.expected,
            );
        }
    }

    /// Makes one of all entries that point to one table. With an external data file a table is right at one place of the
    /// disk only: there each active entry is kept by itself, as long as that costs a quarter of the file.
    fn merge(&mut self) {
        let outside = self.header.data_file();
        let mut apart = match outside {
            true => div(self.bounds.file, self.header.cluster_bytes()) / 4,
            false => 0,
        };
        let mut undivided = false;
        self.tables
            .sort_unstable_by_key(|table| (table.offset, table.active));
        self.tables.dedup_by(|later, first| {
            if later.offset != first.offset {
                return false;
            }
            if first.active != 0 && later.active != 0 {
                if apart > 0 {
                    apart = apart.saturating_sub(1);
                    return false;
                }
                undivided |= outside;
            }
            first.references = first.references.saturating_add(later.references);
            if first.active == 0 {
                first.active = later.active;
            }
            true
        });
        self.undivided |= undivided;
    }

    /// The table that an L1 entry points to: an active one by its number, or a snapshot's.
    pub(super) fn table_of(&self, offset: u64, active: Option<u64>) -> Option<&L2> {
        let number = active.map_or(0, |number| number.saturating_add(1));
        let key = |table: &L2| (table.offset, u64::from(table.active));
        let after = self
            .tables
            .partition_point(|table| key(table) <= (offset, number));
        // Entries that were made one are those of the first of them; a snapshot's are with the first active one.
        let before = after.checked_sub(1).and_then(|at| self.tables.get(at));
        let table = before.filter(|table| table.offset == offset);
        let table = table.or_else(|| self.tables.get(after));
        table.filter(|table| table.offset == offset)
    }

    /// Entries of an L1 table, as many as are inside the file.
    pub(super) fn l1_words(&self, l1: &L1) -> Result<Vec<u64>> {
        let start = l1.offset.min(self.bounds.file);
        let bytes = l1
            .entries
            .saturating_mul(8)
            .min(self.bounds.file.saturating_sub(start));
        let mut table = vec![0; index(bytes)];
        self.source.read_at(start, &mut table)?;
        Ok(super::words(&table))
    }

    /// An L1 entry as it is to be taken, and what is wrong with it.
    pub(super) fn judge_l1(&self, word: u64) -> (u64, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut wrong = |rule, found, expected: &str| {
            problems.push(Problem {
                rule,
                found,
                expected: expected.to_owned(),
            });
        };
        let (offset, mut mended) = (word & OFFSET, word & (OFFSET | COPIED));
        let reserved = word & !(OFFSET | COPIED);
        if reserved != 0 || (offset == 0 && word != 0) {
            let expected = "with reserved bits of 0";
            wrong(&rules::L1_RESERVED, format!("{word:#x}"), expected);
            if offset == 0 {
                mended = 0;
            }
        }
        let cluster = self.header.cluster_bytes();
        if rem(offset, cluster) != 0 {
            let expected = "a multiple of a cluster";
            wrong(&rules::L1_ALIGNMENT, format!("{offset:#x}"), expected);
            mended = 0;
        } else if offset != 0 && offset.saturating_add(cluster) > self.bounds.file {
            let expected = format!("before the end ({:#x})", self.bounds.file);
            wrong(&rules::L1_BEYOND_END, format!("{offset:#x}"), &expected);
            mended = 0;
        }
        let taken = if self.mended { mended } else { word & OFFSET };
        (taken, problems)
    }

    /// The entries of an L2 table, or `None` when it is not inside the file.
    pub(super) fn l2(&self, table: &L2) -> Result<Option<Vec<Entry>>> {
        let cluster = self.header.cluster_bytes();
        if table.offset.saturating_add(cluster) > self.bounds.file {
            return Ok(None);
        }
        let mut bytes = vec![0; index(cluster)];
        self.source.read_at(table.offset, &mut bytes)?;
        let words = super::words(&bytes);
        let entry = |words: &[u64]| Entry {
            word: words.first().copied().unwrap_or(0),
            bitmap: words.get(1).copied().unwrap_or(0),
        };
        let size = index(self.header.entry_words());
        Ok(Some(words.chunks(size).map(entry).collect()))
    }

    /// An entry of a table, looked at.
    pub(super) fn judged(&self, table: &L2, number: u64, entry: Entry) -> Judged {
        let guest = table.number().map(|table| {
            let cluster = table.saturating_mul(self.header.per_table());
            cluster
                .saturating_add(number)
                .saturating_mul(self.header.cluster_bytes())
        });
        self.header.judge(entry, guest, self.bounds)
    }

    /// Clusters of the file.
    pub(super) fn clusters(&self) -> u64 {
        div_up(self.bounds.file, self.header.cluster_bytes())
    }

    /// Numbers of the clusters that hold a range.
    pub(super) fn touched(&self, offset: u64, length: u64) -> std::ops::Range<u64> {
        let cluster = self.header.cluster_bytes();
        let end = div_up(offset.saturating_add(length), cluster);
        div(offset, cluster)..if length == 0 { 0 } else { end }
    }

    fn add(&self, counts: &mut Counts, (class, offset, length): Region, by: u64) {
        let window = counts.range();
        let range = self.touched(offset, length);
        for cluster in range.start.max(window.start)..range.end.min(window.end) {
            counts.add(cluster, by, class);
        }
    }

    /// Tables that are no tables of guest clusters.
    pub(super) fn regions(&self) -> Vec<Region> {
        let header = self.header;
        let mut all = vec![
            (class::HEADER, 0, header.cluster_bytes()),
            (
                class::REFCOUNT_TABLE,
                header.refcount_offset,
                header.refcount_table_bytes(),
            ),
            (
                class::SNAPSHOT_TABLE,
                header.snapshots_offset,
                self.snapshots.bytes,
            ),
        ];
        let l1s = self.l1s.iter();
        all.extend(l1s.map(|l1| (class::L1, l1.offset, l1.entries.saturating_mul(8))));
        if let Some((offset, bytes)) = self.bitmaps.directory {
            all.push((class::BITMAP, offset, bytes));
        }
        let tables = self.bitmaps.list.iter();
        all.extend(tables.map(|bitmap| {
            let bytes = u64::from(bitmap.entries).saturating_mul(8);
            (class::BITMAP, bitmap.table, bytes)
        }));
        all.retain(|(_, offset, length)| {
            *length > 0 && !header.excess(*offset, *length, self.bounds.file)
        });
        all
    }

    /// Counts every reference of the window; `said` takes what is wrong with entries, and compressed clusters.
    pub(super) fn count(&self, counts: &mut Counts, said: Option<&mut Said<'_>>) -> Result<()> {
        for region in self.regions() {
            self.add(counts, region, 1);
        }
        let cluster = self.header.cluster_bytes();
        for bitmap in &self.bitmaps.list {
            for offset in bitmap.clusters(&*self.source)? {
                self.add(counts, (class::BITMAP, offset, cluster), 1);
            }
        }
        self.count_guest(counts, said)?;
        for number in 0..len64(&self.refcounts.table) {
            if let Block::At(offset) = self.refcounts.block(number) {
                self.add(counts, (class::REFCOUNT_BLOCK, offset, cluster), 1);
            }
        }
        Ok(())
    }

    /// Whether a walk over the tables looks into one. Those at odd places overlap: they are as long as that costs no more
    /// than the file, of which `odd` bytes are left.
    pub(super) fn is_looked_at(&self, table: &L2, odd: &mut u64) -> bool {
        let cluster = self.header.cluster_bytes();
        if rem(table.offset, cluster) == 0 {
            return true;
        }
        let left = odd.checked_sub(cluster);
        *odd = left.unwrap_or(*odd);
        left.is_some()
    }

    /// Counts L2 tables and what they point to.
    fn count_guest(&self, counts: &mut Counts, mut said: Option<&mut Said<'_>>) -> Result<()> {
        let cluster = self.header.cluster_bytes();
        let mut odd = self.bounds.file;
        for (which, table) in self.tables.iter().enumerate() {
            let by = u64::from(table.references);
            if !self.header.excess(table.offset, cluster, self.bounds.file) {
                self.add(counts, (class::L2, table.offset, cluster), by);
            }
            if !self.is_looked_at(table, &mut odd) {
                continue;
            }
            for (number, entry) in (0u64..).zip(self.l2(table)?.unwrap_or_default()) {
                if entry == Entry::default() {
                    continue;
                }
                let judged = self.judged(table, number, entry);
                if let Some(said) = said.as_deref_mut() {
                    self.say_l2(table, number, &judged, said.found);
                    if let Cluster::Packed(offset, _) = judged.cluster
                        && self.header.has_packed(offset, self.bounds.file)
                    {
                        said.take(self.header, (which, number), entry.word);
                    }
                }
                let taken = if self.mended {
                    self.header.cluster(judged.mended)
                } else {
                    judged.cluster
                };
                if let Some(region) = self.region(taken) {
                    self.add(counts, region, by);
                }
            }
        }
        Ok(())
    }

    /// The bytes of the file that a cluster takes, if they are inside it.
    pub(super) fn region(&self, cluster: Cluster) -> Option<Region> {
        let bytes = self.header.cluster_bytes();
        let region = match cluster {
            Cluster::Absent | Cluster::Zero(None) => return None,
            Cluster::Standard(_) | Cluster::Zero(_) if self.header.data_file() => return None,
            Cluster::Packed(_, _) if self.header.data_file() => return None,
            Cluster::Standard(offset) | Cluster::Zero(Some(offset)) => (class::DATA, offset, bytes),
            Cluster::Packed(offset, length) => (class::PACKED, offset, length),
        };
        let (_, offset, length) = region;
        (!self.header.excess(offset, length, self.bounds.file)).then_some(region)
    }

    /// Where an L2 entry stands.
    pub(super) fn entry_place(&self, table: &L2, number: u64) -> (u64, u64) {
        let bytes = self.header.entry_words().saturating_mul(8);
        let offset = table.offset.saturating_add(number.saturating_mul(bytes));
        (offset, bytes)
    }

    pub(super) fn entry_path(table: &L2, number: u64) -> String {
        match table.number() {
            Some(l1) => format!("L2 table {l1}, entry {number}"),
            None => format!("snapshot's L2 table at {:#x}, entry {number}", table.offset),
        }
    }

    fn say_l2(&self, table: &L2, number: u64, judged: &Judged, found: &mut Findings) {
        let place = self.entry_place(table, number);
        for problem in &judged.problems {
            let path = Self::entry_path(table, number);
            found.add(problem.rule, place, path, &problem.found, &problem.expected);
        }
        // Only guest bytes that the disk has can be missing.
        if let (Cluster::Standard(offset), true) = (judged.cluster, judged.problems.is_empty())
            && !self.header.data_file()
            && let Some(missing) = self.cut((table, number), judged.mended, offset)
        {
            let path = Self::entry_path(table, number);
            let expected = format!("{missing} bytes more in the file");
            found.add(&rules::CUT, place, path, format!("{offset:#x}"), expected);
        }
    }

    /// Bytes of a cluster that the disk needs and the file does not have.
    fn cut(&self, (table, number): (&L2, u64), entry: Entry, offset: u64) -> Option<u64> {
        let cluster = self.header.cluster_bytes();
        let guest = table
            .number()?
            .saturating_mul(self.header.per_table())
            .saturating_add(number)
            .saturating_mul(cluster);
        let shown = self.header.size.saturating_sub(guest).min(cluster);
        let needed = self.header.stored(entry, shown);
        let missing = offset
            .saturating_add(needed)
            .saturating_sub(self.bounds.file);
        (missing > 0).then_some(missing)
    }
}
