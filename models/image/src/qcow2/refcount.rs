//! Refcounts as the file has them.

use super::header::Header;
use crate::math::{div, index, rem};
use drylab_block::{Limits, ReadAt, Result};

/// Bits of a refcount table entry that are no offset.
const RESERVED: u64 = 0x1ff;

/// The refcount table, and how its blocks are read.
pub(super) struct Refcounts {
    order: u32,
    cluster: u64,
    pub(super) table: Vec<u64>,
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
        let clusters = crate::math::div_up(file, header.cluster_bytes()).saturating_add(1);
        let per_block = per_block(header.cluster_bytes(), header.refcount_order);
        let useful = crate::math::div_up(clusters, per_block).saturating_mul(8);
        let bytes = inside.min(useful);
        limits.check_table("qcow2 refcount table", bytes)?;
        let mut table = vec![0; index(bytes)];
        source.read_at(start, &mut table)?;
        Ok(Self {
            order: header.refcount_order,
            cluster: header.cluster_bytes(),
            table: super::words(&table),
            file,
        })
    }

    /// A table at hand, for a file of `file` bytes; order and cluster size come first.
    pub(super) fn of((order, cluster): (u32, u64), table: Vec<u64>, file: u64) -> Self {
        Self {
            order,
            cluster,
            table,
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
        match self.table.get(index(number)).copied() {
            None | Some(0) => Block::Absent,
            Some(word) => {
                let end = word.saturating_add(self.cluster);
                let sound = word & RESERVED == 0 && rem(word, self.cluster) == 0;
                if sound && word >> 56 == 0 && end <= self.file {
                    Block::At(word)
                } else {
                    Block::Wrong(word)
                }
            }
        }
    }

    /// Number of the block that describes a cluster.
    pub(super) fn block_of(&self, cluster: u64) -> u64 {
        div(cluster, self.per_block())
    }
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
