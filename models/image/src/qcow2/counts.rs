//! References to the clusters of a file, counted in bounded memory.

use std::collections::BTreeMap;

/// What refers to a cluster, one bit each.
pub(crate) mod class {
    pub(crate) const HEADER: u16 = 1;
    pub(crate) const L1: u16 = 1 << 1;
    pub(crate) const L2: u16 = 1 << 2;
    pub(crate) const REFCOUNT_TABLE: u16 = 1 << 3;
    pub(crate) const REFCOUNT_BLOCK: u16 = 1 << 4;
    pub(crate) const SNAPSHOT_TABLE: u16 = 1 << 5;
    pub(crate) const BITMAP: u16 = 1 << 6;
    pub(crate) const DATA: u16 = 1 << 7;
    pub(crate) const PACKED: u16 = 1 << 8;
    /// Two claims to the cluster that cannot both be right.
    pub(crate) const TWICE: u16 = 1 << 14;
    /// The refcount in the file is 1.
    pub(crate) const ONE: u16 = 1 << 15;

    pub(crate) const REFCOUNTS: u16 = REFCOUNT_TABLE | REFCOUNT_BLOCK;
    pub(crate) const GUEST: u16 = DATA | PACKED;
    /// What may be referred to more than once.
    pub(crate) const SHARED: u16 = L2 | GUEST;
    const NAMES: [(u16, &str); 9] = [
        (HEADER, "header"),
        (L1, "L1 table"),
        (L2, "L2 table"),
        (REFCOUNT_TABLE, "refcount table"),
        (REFCOUNT_BLOCK, "refcount block"),
        (SNAPSHOT_TABLE, "snapshot table"),
        (BITMAP, "bitmap"),
        (DATA, "guest data"),
        (PACKED, "compressed guest data"),
    ];

    /// The claims, in words.
    pub(crate) fn names(classes: u16) -> String {
        let mut names: Vec<&str> = NAMES
            .iter()
            .filter(|(bit, _)| classes & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        if classes & TWICE != 0 {
            names.push("the same again");
        }
        names.join(" and ")
    }
}

/// Clusters of a chunk.
const CHUNK: u64 = 256;
/// Bytes of memory that a chunk takes, with what keeps it.
pub(crate) const CHUNK_BYTES: u64 = 1152;

/// What is known of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// References, at most 65535.
    pub(crate) count: u16,
    /// [`class`]es of them.
    pub(crate) classes: u16,
}

/// References to the clusters from one number on, as many as fit.
pub(crate) struct Counts {
    chunks: BTreeMap<u64, Box<[Slot; 256]>>,
    /// References past those of a slot.
    more: BTreeMap<u64, u64>,
    from: u64,
    until: u64,
    chunks_max: usize,
}

impl Counts {
    /// Counts clusters from `from` on within about `bytes_max` bytes of memory.
    pub(crate) fn new(from: u64, bytes_max: u64) -> Self {
        Self {
            chunks: BTreeMap::new(),
            more: BTreeMap::new(),
            from,
            until: u64::MAX,
            chunks_max: crate::math::index(bytes_max / CHUNK_BYTES).max(2),
        }
    }

    /// Clusters that are counted; those behind did not fit.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.from..self.until
    }

    fn slot_mut(&mut self, cluster: u64) -> Option<&mut Slot> {
        if !self.range().contains(&cluster) {
            return None;
        }
        let number = cluster / CHUNK;
        if !self.chunks.contains_key(&number) && self.chunks.len() >= self.chunks_max {
            // The last chunk goes; it is counted another time.
            let last = self.chunks.last_key_value().map(|(last, _)| *last)?;
            if number >= last {
                self.until = self.until.min(number.saturating_mul(CHUNK).max(self.from));
                return None;
            }
            self.chunks.pop_last();
            self.until = last.saturating_mul(CHUNK);
            drop(self.more.split_off(&self.until));
        }
        let chunk = self
            .chunks
            .entry(number)
            .or_insert_with(|| Box::new([Slot::default(); 256]));
        chunk.get_mut(crate::math::index(cluster % CHUNK))
    }

    /// Adds `by` references of a class; a second one to what must have only one is noted.
    pub(crate) fn add(&mut self, cluster: u64, by: u64, class: u16) {
        let mut over = 0;
        if let Some(slot) = self.slot_mut(cluster) {
            let again = slot.classes & class != 0 || by > 1;
            slot.classes |= class;
            if again && class & class::SHARED == 0 {
                slot.classes |= class::TWICE;
            }
            let sum = u64::from(slot.count).saturating_add(by);
            slot.count = u16::try_from(sum).unwrap_or(u16::MAX);
            over = sum.saturating_sub(u64::from(slot.count));
        }
        if over > 0 {
            let more = self.more.entry(cluster).or_insert(0);
            *more = more.saturating_add(over);
        }
    }

    /// Takes `by` references away and the classes given, or sets more classes: for clusters that move.
    pub(crate) fn take(&mut self, cluster: u64, by: u64) {
        let left = self.count(cluster).saturating_sub(by);
        self.more.remove(&cluster);
        let mut over = 0;
        if let Some(slot) = self.slot_mut(cluster) {
            slot.count = u16::try_from(left).unwrap_or(u16::MAX);
            over = left.saturating_sub(u64::from(slot.count));
        }
        if over > 0 {
            self.more.insert(cluster, over);
        }
    }

    /// Notes that the refcount in the file is 1.
    pub(crate) fn note_one(&mut self, cluster: u64) {
        if let Some(slot) = self.slot_mut(cluster) {
            slot.classes |= class::ONE;
        }
    }

    pub(crate) fn slot(&self, cluster: u64) -> Slot {
        let chunk = self.chunks.get(&(cluster / CHUNK));
        chunk
            .and_then(|chunk| chunk.get(crate::math::index(cluster % CHUNK)))
            .copied()
            .unwrap_or_default()
    }

    /// References to a cluster.
    pub(crate) fn count(&self, cluster: u64) -> u64 {
        let more = self.more.get(&cluster).copied().unwrap_or(0);
        u64::from(self.slot(cluster).count).saturating_add(more)
    }

    /// Clusters with references, in order.
    pub(crate) fn referenced(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        self.chunks.iter().flat_map(|(number, chunk)| {
            let first = number.saturating_mul(CHUNK);
            (first..)
                .zip(chunk.iter().copied())
                .filter(|(_, slot)| slot.count > 0)
        })
    }

    /// The highest cluster with references.
    pub(crate) fn last(&self) -> Option<u64> {
        let mut last = self.chunks.iter().rev().filter_map(|(number, chunk)| {
            let within = chunk.iter().rposition(|slot| slot.count > 0)?;
            let within = u64::try_from(within).unwrap_or(0);
            Some(number.saturating_mul(CHUNK).saturating_add(within))
        });
        last.next()
    }
}
