//! Refcounts as the file has them.
//!
//! They say where a writer may write, nothing of what the guest reads: "refcounts may be inconsistent, make sure to scan
//! L1/L2 tables to repair refcounts before accessing the image" (Header, incompatible feature bit 0). The mapping tables
//! come first, so a refcount table that is said to stand where they or guest data do hides nothing from the guest.

use super::entry::OFFSET;
use super::header::Header;
use super::rules;
use crate::finding::Findings;
use crate::math::{div, div_up, index, len64, rem, round_up};
use drylab_block::{Limits, ReadAt, Result};
use std::ops::Range;

/// Bytes of the largest refcount table that QEMU opens.
pub(super) const TABLE_MAX: u64 = 8 << 20;
/// Bytes of a table that are read at a time.
const PIECE: u64 = 64 << 10;
/// Entries behind those of the file's clusters that are kept.
const BEHIND: usize = 64;
/// Bits of a refcount table entry that are no offset.
const RESERVED: u64 = 0x1ff;

/// The refcount table, and how its blocks are read.
pub(super) struct Refcounts {
    order: u32,
    cluster: u64,
    pub(super) table: Vec<u64>,
    /// Entries behind those, with their numbers, that lead to no block: for clusters behind the end of the file they say
    /// nothing, and QEMU takes them for damage all the same. Not more than [`BEHIND`].
    pub(super) behind: Vec<(u64, u64)>,
    file: u64,
}

/// What a refcount table entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// There is none: all its refcounts are 0.
    Absent,
    /// At an offset inside the file.
    At(u64),
    /// Where none can be.
    Wrong(u64),
}

impl Refcounts {
    /// Reads as much of the table as is inside the file.
    pub(super) fn read(source: &dyn ReadAt, header: &Header, limits: &Limits) -> Result<Self> {
        let file = source.len();
        let start = header.refcount_offset.min(file);
        let inside = header
            .refcount_table_bytes()
            .min(file.saturating_sub(start));
        // Entries for clusters behind the end of the file say nothing.
        // The last reference may reach into the next cluster.
        let bytes = inside.min(useful(file, header));
        limits.check_table("qcow2 refcount table", bytes)?;
        let mut table = vec![0; index(bytes)];
        source.read_at(start, &mut table)?;
        let mut refcounts = Self::of(
            (header.refcount_order, header.cluster_bytes()),
            super::words(&table),
            file,
        );
        let end = start.saturating_add(inside.min(TABLE_MAX));
        refcounts.behind = refcounts.wrong_behind(source, start.saturating_add(bytes)..end)?;
        Ok(refcounts)
    }

    /// Entries in a part of the file behind the table's own that lead to no block.
    fn wrong_behind(&self, source: &dyn ReadAt, part: Range<u64>) -> Result<Vec<(u64, u64)>> {
        let (mut at, mut number) = (part.start, len64(&self.table));
        let mut wrong = Vec::new();
        while at < part.end && wrong.len() < BEHIND {
            let mut piece = vec![0; index(part.end.saturating_sub(at).min(PIECE))];
            source.read_at(at, &mut piece)?;
            for word in super::words(&piece) {
                if matches!(self.said(word), Block::Wrong(_)) && wrong.len() < BEHIND {
                    wrong.push((number, word));
                }
                number = number.saturating_add(1);
            }
            at = at.saturating_add(len64(&piece));
        }
        Ok(wrong)
    }

    /// A table at hand, for a file of `file` bytes; order and cluster size come first.
    pub(super) fn of((order, cluster): (u32, u64), table: Vec<u64>, file: u64) -> Self {
        Self {
            order,
            cluster,
            table,
            behind: Vec::new(),
            file,
        }
    }

    /// Clusters that one block describes.
    pub(super) fn per_block(&self) -> u64 {
        per_block(self.cluster, self.order)
    }

    /// The largest refcount that fits.
    pub(super) fn most(order: u32) -> u64 {
        let bits = 1u32.checked_shl(order).unwrap_or(64);
        1u64.checked_shl(bits)
            .map_or(u64::MAX, |limit| limit.saturating_sub(1))
    }

    /// The block of a number.
    pub(super) fn block(&self, number: u64) -> Block {
        let word = self.table.get(index(number)).copied();
        word.map_or(Block::Absent, |word| self.said(word))
    }

    /// What an entry says.
    fn said(&self, word: u64) -> Block {
        let end = word.saturating_add(self.cluster);
        let sound = word & RESERVED == 0 && rem(word, self.cluster) == 0;
        match word {
            0 => Block::Absent,
            _ if sound && word >> 56 == 0 && end <= self.file => Block::At(word),
            _ => Block::Wrong(word),
        }
    }

    /// Entries that lead to no block, with their numbers.
    pub(super) fn wrong(&self) -> impl Iterator<Item = (u64, u64)> {
        let within = (0u64..)
            .zip(&self.table)
            .filter(|(_, word)| matches!(self.said(**word), Block::Wrong(_)));
        within
            .map(|(number, word)| (number, *word))
            .chain(self.behind.iter().copied())
    }

    /// Number of the block that describes a cluster.
    pub(super) fn block_of(&self, cluster: u64) -> u64 {
        div(cluster, self.per_block())
    }
}

/// Bytes of a table that describe clusters of a file, and the one that the last reference may reach into.
fn useful(file: u64, header: &Header) -> u64 {
    let clusters = div_up(file, header.cluster_bytes()).saturating_add(1);
    let per_block = per_block(header.cluster_bytes(), header.refcount_order);
    div_up(clusters, per_block).saturating_mul(8)
}

/// The bytes of the file that are the refcount table's, whoever else points there; none where the header's word for it is
/// not borne out. A table that is where it should be counts the header and itself once; other bytes do not, since an
/// entry of a mapping table has bit 63 or is 0, and both lead to no block. `own` are the header and the L1 table: over
/// them there is no refcount table whatever it counts.
pub(super) fn trusted(source: &dyn ReadAt, header: &Header, own: &[Range<u64>]) -> Range<u64> {
    let start = header.refcount_offset;
    let used = round_up(useful(source.len(), header), header.cluster_bytes());
    let end = start.saturating_add(used.min(header.refcount_table_bytes()));
    let once = |number: u64| stored(source, header, number) == Some(1);
    let apart = !own.iter().any(|range| meet(range, &(start..end)));
    if apart && once(0) && once(div(start, header.cluster_bytes())) {
        start..end
    } else {
        start..start
    }
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start.max(other.start) < one.end.min(other.end)
}

/// The refcount of a cluster by the file's tables; nothing where they lead to none.
fn stored(source: &dyn ReadAt, header: &Header, number: u64) -> Option<u64> {
    let (order, cluster) = (header.refcount_order, header.cluster_bytes());
    let per_block = per_block(cluster, order);
    let entry = div(number, per_block).checked_mul(8)?;
    if entry >= header.refcount_table_bytes() {
        return None;
    }
    let mut word = [0; 8];
    source
        .read_at(header.refcount_offset.checked_add(entry)?, &mut word)
        .ok()?;
    let one = Refcounts::of((order, cluster), super::words(&word), source.len());
    let Block::At(block) = one.block(0) else {
        return None;
    };
    // Those of one word: a block may have 2 MiB.
    let per_word = 64u64.checked_shr(order)?;
    let within = rem(number, per_block);
    let at = block.checked_add(div(within, per_word).checked_mul(8)?)?;
    source.read_at(at, &mut word).ok()?;
    Some(get(&word, order, index(rem(within, per_word))))
}

/// Says where the refcount table is said to stand over what the guest's bytes hang on: that is read as what it was, and
/// who opens strictly is refused. Over guest data it is found by a check, which reads all L2 tables.
pub(super) fn note(
    header: &Header,
    trusted: &Range<u64>,
    (own, l1): (&[Range<u64>; 2], &[u64]),
    findings: &mut Findings,
) {
    let (offset, bytes) = (header.refcount_offset, header.refcount_table_bytes());
    let doubted = trusted.end..offset.saturating_add(bytes);
    let l2 = |entry: &u64| {
        let at = entry & OFFSET;
        at != 0 && meet(&doubted, &(at..at.saturating_add(header.cluster_bytes())))
    };
    let [head, table] = own;
    let what = match () {
        () if meet(&doubted, head) => "the header",
        () if meet(&doubted, table) => "the L1 table",
        () if l1.iter().any(l2) => "an L2 table",
        () => return,
    };
    let found = format!("of {bytes} bytes at {offset:#x}, over {what}");
    let (path, expected) = ("header, refcount table", "a place of its own");
    findings.add(&rules::OVERLAP_REFCOUNTS, (48, 12), path, found, expected);
}

/// Refcounts of 2^`order` bits in a block of `cluster` bytes.
pub(super) fn per_block(cluster: u64, order: u32) -> u64 {
    cluster.saturating_mul(8).checked_shr(order).unwrap_or(1)
}

/// Entry `number` of a block with refcounts of 2^`order` bits; sub-byte entries start at the least significant bit.
pub(super) fn get(block: &[u8], order: u32, number: usize) -> u64 {
    let width = 1usize.checked_shl(order).unwrap_or(64);
    if width < 8 {
        let (at, shift) = bits(width, number);
        let byte = block.get(at).copied().map_or(0, u64::from);
        return byte.checked_shr(shift).unwrap_or(0) & Refcounts::most(order);
    }
    let bytes = width / 8;
    let found = drylab_block::slice_at(block, number.saturating_mul(bytes), bytes);
    let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    found.unwrap_or_default().iter().fold(0, add)
}

/// Sets what [`get`] reads; values that do not fit are cut.
pub(super) fn set(block: &mut [u8], order: u32, number: usize, value: u64) {
    let width = 1usize.checked_shl(order).unwrap_or(64);
    if width < 8 {
        let (at, shift) = bits(width, number);
        let mask = u8::try_from(Refcounts::most(order)).unwrap_or(u8::MAX);
        let value = u8::try_from(value.min(255)).unwrap_or(u8::MAX) & mask;
        if let Some(byte) = block.get_mut(at) {
            let cleared = *byte & !(mask.checked_shl(shift).unwrap_or(0));
            *byte = cleared | value.checked_shl(shift).unwrap_or(0);
        }
        return;
    }
    let bytes = width / 8;
    let start = number.saturating_mul(bytes);
    let from = value.to_be_bytes();
    let tail = from.get(8usize.saturating_sub(bytes)..).unwrap_or_default();
    if let Some(place) = block.get_mut(start..start.saturating_add(bytes)) {
        place.copy_from_slice(tail);
    }
}

/// Byte and shift of an entry narrower than a byte.
fn bits(width: usize, number: usize) -> (usize, u32) {
    let bit = number.saturating_mul(width);
    (bit / 8, u32::try_from(bit % 8).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width_stand_where_the_document_says() {
        for order in 0..=6u32 {
            let mut block = vec![0u8; 64];
            let last = Refcounts::most(order);
            set(&mut block, order, 3, last);
            assert_eq!(get(&block, order, 3), last, "{order}");
            assert_eq!((get(&block, order, 2), get(&block, order, 4)), (0, 0));
            set(&mut block, order, 3, 1);
            assert_eq!(get(&block, order, 3), 1);
        }
        let mut block = vec![0u8; 8];
        set(&mut block, 0, 9, 1);
        assert_eq!(block[1], 0b10, "bit 0 is the least significant one");
        set(&mut block, 4, 1, 0x1234);
        assert_eq!(&block[2..4], [0x12, 0x34]);
    }
}
