//! What the entries of L1 and L2 tables mean, and what is wrong with them.

use super::header::{Header, SUBCLUSTERS};
use super::rules;
use crate::finding::Rule;
use crate::math::{div, rem};

/// Bits 9 to 55 of an entry: an offset in the file.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63: exactly one reference, so it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros.
pub(super) const ZERO: u64 = 1;
/// Bits of an extended entry's second word: which subclusters have bytes, and (shifted) which read as zeros.
const ALLOCATED: u64 = 0xffff_ffff;

/// One L2 entry: the descriptor, and the subcluster bitmap where entries are extended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) word: u64,
    pub(super) bitmap: u64,
}

/// What an L2 entry says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cluster {
    /// Not described: the backing file's bytes, or zeros.
    Absent,
    /// Zeros, perhaps with a place reserved for them.
    Zero(Option<u64>),
    /// At an offset (a multiple of 512, of a cluster if all is well); with extended entries some subclusters only.
    Standard(u64),
    /// Packed bytes of at most a number of bytes at an offset.
    Packed(u64, u64),
}

/// Something wrong with an entry.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) rule: &'static Rule,
    pub(super) found: String,
    pub(super) expected: String,
}

/// An entry looked at.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) cluster: Cluster,
    pub(super) problems: Vec<Problem>,
    /// What it should say; the bit [`COPIED`] is another matter.
    pub(super) mended: Entry,
}

/// Where entries may point to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of the image file.
    pub(super) file: u64,
    /// Bytes of the external data file, when it is at hand.
    pub(super) data: Option<u64>,
    /// A backing file's bytes show where an entry says nothing.
    pub(super) backed: bool,
}

impl Entry {
    /// A cluster that reads as zeros.
    pub(super) const ZERO: Self = Self {
        word: ZERO,
        bitmap: 0,
    };

    /// A cluster at an offset that nothing else refers to; with extended entries none of its subclusters yet.
    pub(super) fn at(offset: u64) -> Self {
        Self {
            word: offset | COPIED,
            bitmap: 0,
        }
    }

    pub(super) fn copied(self) -> bool {
        self.word & COPIED != 0
    }

    /// Status of a subcluster, `None` when it is said to be both.
    pub(super) fn subcluster(self, number: u64) -> Option<(bool, bool)> {
        let bit = |word: u64| {
            let shift = u32::try_from(number).unwrap_or(u32::MAX);
            word.checked_shr(shift).unwrap_or(0) & 1 == 1
        };
        let state = (bit(self.bitmap & ALLOCATED), bit(self.bitmap >> 32));
        (state != (true, true)).then_some(state)
    }

    /// The entry, with the bit that says that its cluster has one reference.
    pub(super) fn with_copied(self, copied: bool) -> Self {
        let word = if copied {
            self.word | COPIED
        } else {
            self.word & !COPIED
        };
        Self { word, ..self }
    }
}

impl Header {
    /// Offset and most bytes of a compressed cluster.
    pub(super) fn packed(&self, word: u64) -> (u64, u64) {
        let bits = 70u32.saturating_sub(self.cluster_bits);
        let mask = 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
        let sectors = (word & COMPRESSED.wrapping_sub(1))
            .checked_shr(bits)
            .unwrap_or(0);
        let offset = word & mask;
        let length = sectors
            .saturating_add(1)
            .saturating_mul(512)
            .saturating_sub(offset % 512);
        (offset, length)
    }

    /// The entry of a compressed cluster that stands elsewhere, at the same place within its cluster.
    pub(super) fn packed_at(&self, word: u64, offset: u64) -> u64 {
        let bits = 70u32.saturating_sub(self.cluster_bits);
        let mask = 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
        (word & !mask) | (offset & mask)
    }

    /// What an entry says, whether it is right or not.
    pub(super) fn cluster(&self, entry: Entry) -> Cluster {
        let Entry { word, bitmap } = entry;
        let offset = word & OFFSET;
        if word & COMPRESSED != 0 {
            let (offset, length) = self.packed(word);
            return Cluster::Packed(offset, length);
        }
        // Offset 0 is a place only in a data file.
        let place = (offset != 0 || (self.data_file() && entry.copied())).then_some(offset);
        let zero = if self.extended() {
            bitmap & ALLOCATED == 0
        } else {
            word & ZERO != 0
        };
        match place {
            Some(_) if zero => Cluster::Zero(place),
            Some(offset) => Cluster::Standard(offset),
            None if self.extended() && bitmap >> 32 != 0 => Cluster::Zero(None),
            None if !self.extended() && zero => Cluster::Zero(None),
            None => Cluster::Absent,
        }
    }

    /// Bytes of a standard cluster, from its first on, that must be in the file when the disk shows the first `shown` of
    /// them: with extended entries up to the end of the last subcluster that is stored.
    pub(super) fn stored(&self, entry: Entry, shown: u64) -> u64 {
        if !self.extended() {
            return shown;
        }
        let part = div(self.cluster_bytes(), SUBCLUSTERS);
        let is_stored = |number: &u64| matches!(entry.subcluster(*number), Some((true, _)));
        let starts_before = |number: &u64| number.saturating_mul(part) < shown;
        let numbers = (0..SUBCLUSTERS).rev();
        let last = numbers.filter(starts_before).find(is_stored);
        last.map_or(0, |last| {
            last.saturating_add(1).saturating_mul(part).min(shown)
        })
    }

    /// An entry whose bytes are lost: it reads as zeros, if the format can say so.
    fn lost(&self, bounds: Bounds) -> Entry {
        match (bounds.backed, self.extended(), self.version) {
            (false, _, _) | (true, false, 2) => Entry::default(),
            (true, true, _) => Entry {
                word: 0,
                bitmap: ALLOCATED << 32,
            },
            (true, false, _) => Entry {
                word: ZERO,
                bitmap: 0,
            },
        }
    }

    /// Looks at the entry of the cluster at `guest` (unknown in tables that only snapshots have).
    pub(super) fn judge(&self, entry: Entry, guest: Option<u64>, bounds: Bounds) -> Judged {
        let mut judged = Judged {
            cluster: self.cluster(entry),
            problems: Vec::new(),
            mended: entry,
        };
        match judged.cluster {
            Cluster::Packed(offset, length) => {
                self.judge_packed(&mut judged, (offset, length), bounds);
            }
            Cluster::Standard(offset) => {
                self.judge_bits(&mut judged, bounds);
                self.judge_place(&mut judged, offset, guest, bounds);
            }
            Cluster::Zero(place) => {
                self.judge_bits(&mut judged, bounds);
                // What is only reserved is given up without loss.
                if let Some(offset) = place.filter(|_| !self.data_file())
                    && rem(offset, self.cluster_bytes()) != 0
                {
                    let expected = "a multiple of a cluster";
                    judged.wrong(
                        &rules::ZERO_PLACE,
                        format!("reserved at {offset:#x}"),
                        expected,
                    );
                    judged.mended.word &= ZERO;
                    if self.extended() {
                        judged.mended.bitmap &= !ALLOCATED;
                    }
                } else if let Some(offset) = place.filter(|_| !self.data_file())
                    && self.excess(offset, self.cluster_bytes(), bounds.file)
                {
                    let expected = format!("before the end ({:#x})", bounds.file);
                    judged.wrong(
                        &rules::ZERO_PLACE,
                        format!("reserved at {offset:#x}"),
                        expected,
                    );
                    judged.mended.word &= ZERO;
                }
            }
            Cluster::Absent => self.judge_bits(&mut judged, bounds),
        }
        judged
    }

    /// Whether a range passes the end of the file by a cluster or more, which no unfinished write does.
    pub(super) fn excess(&self, offset: u64, length: u64, end: u64) -> bool {
        offset.saturating_add(length).saturating_sub(end) >= self.cluster_bytes()
    }

    fn judge_packed(&self, judged: &mut Judged, (offset, length): (u64, u64), bounds: Bounds) {
        if self.data_file() {
            let found = format!("compressed, {length} bytes at {offset:#x}");
            judged.wrong(&rules::PACKED_OUTSIDE, found, "in the data file");
            return;
        }
        if judged.mended.copied() {
            judged.wrong(
                &rules::PACKED_COPIED,
                "with bit 63 set",
                "with bit 63 clear",
            );
            judged.mended = judged.mended.with_copied(false);
        }
        if self.extended() && judged.mended.bitmap != 0 {
            let found = format!("compressed, subcluster bitmap {:#x}", judged.mended.bitmap);
            judged.wrong(&rules::SUBCLUSTERS, found, "a bitmap of 0");
            judged.mended.bitmap = 0;
        }
        if offset >= bounds.file || self.excess(offset, length, bounds.file) {
            let found = format!("compressed, {length} bytes at {offset:#x}");
            let expected = format!("before the end ({:#x})", bounds.file);
            judged.wrong(&rules::PACKED_BEYOND_END, found, expected);
            judged.mended = self.lost(bounds);
        }
    }

    /// Bits of a standard descriptor that must be 0, and bitmaps that contradict themselves.
    fn judge_bits(&self, judged: &mut Judged, bounds: Bounds) {
        let entry = judged.mended;
        let zero = if self.extended() { 0 } else { ZERO };
        let reserved = entry.word & !(OFFSET | COPIED | zero);
        if reserved != 0 {
            let found = format!("with reserved bits {reserved:#x}");
            judged.wrong(&rules::L2_RESERVED, found, "with reserved bits of 0");
            judged.mended.word &= !reserved;
        }
        if self.version < 3 && entry.word & ZERO != 0 {
            let found = format!("{:#x} with the zero bit in version 2", entry.word);
            judged.wrong(&rules::ZERO_IN_V2, found, "with the zero bit clear");
            judged.mended.word &= !ZERO;
        }
        if !self.extended() {
            return;
        }
        let allocated = entry.bitmap & ALLOCATED;
        let both = allocated & (entry.bitmap >> 32);
        let nowhere = matches!(judged.cluster, Cluster::Absent | Cluster::Zero(None));
        if nowhere && allocated != 0 {
            let found = format!("without a place, with allocated subclusters {allocated:#x}");
            judged.wrong(&rules::SUBCLUSTERS, found, "a place, or none allocated");
            judged.mended.bitmap &= !ALLOCATED;
            if bounds.backed {
                judged.mended.bitmap |= allocated << 32;
            }
        } else if both != 0 {
            let found = format!("with subclusters {both:#x} both allocated and zero");
            judged.wrong(&rules::SUBCLUSTERS, found, "one of both");
            // They read as zeros afterwards.
            judged.mended.bitmap &= !both;
        }
    }

    fn judge_place(&self, judged: &mut Judged, offset: u64, guest: Option<u64>, bounds: Bounds) {
        let cluster = self.cluster_bytes();
        if self.data_file() {
            let Some(guest) = guest else {
                return;
            };
            let beyond = bounds.data.is_some_and(|end| guest >= end);
            if guest != offset {
                let expected = format!("{guest:#x}, its place in the disk");
                judged.wrong(&rules::DATA_OFFSET, format!("{offset:#x}"), expected);
                // The bytes can be nowhere else.
                judged.mended.word = (judged.mended.word & !OFFSET) | (guest & OFFSET) | COPIED;
            } else if beyond {
                let found = format!("{offset:#x} of the data file");
                judged.wrong(&rules::BEYOND_END, found, "before its end");
            }
            if beyond {
                judged.mended = self.lost(bounds);
            }
            return;
        }
        if rem(offset, cluster) != 0 {
            judged.wrong(
                &rules::ALIGNMENT,
                format!("{offset:#x}"),
                "a multiple of a cluster",
            );
            judged.mended = self.lost(bounds);
        }
        if self.excess(offset, cluster, bounds.file) {
            let expected = format!("before the end ({:#x})", bounds.file);
            judged.wrong(&rules::BEYOND_END, format!("{offset:#x}"), expected);
            judged.mended = self.lost(bounds);
        }
    }
}

impl Judged {
    fn wrong(
        &mut self,
        rule: &'static Rule,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.problems.push(Problem {
            rule,
            found: found.into(),
            expected: expected.into(),
        });
    }
}
