//! The block allocation table: how blocks and sector bitmaps are numbered, and what an entry says.

use super::header::SECTION;
use super::metadata::Metadata;
use crate::math::{div, div_up, rem};

/// Bytes of a sector bitmap block.
pub(crate) const BITMAP_BYTES: u64 = 1 << 20;
/// Sectors that one sector bitmap block describes.
const BITMAP_SECTORS: u64 = 1 << 23;

/// States of entries.
pub(crate) const NOT_PRESENT: u64 = 0;
pub(crate) const UNDEFINED: u64 = 1;
pub(crate) const ZERO: u64 = 2;
pub(crate) const UNMAPPED: u64 = 3;
pub(crate) const FULLY_PRESENT: u64 = 6;
pub(crate) const PARTIALLY_PRESENT: u64 = 7;

/// State of an entry.
pub(crate) fn state(entry: u64) -> u64 {
    entry & 7
}

/// Byte offset that an entry points to.
pub(crate) fn offset(entry: u64) -> u64 {
    entry & !(SECTION.saturating_sub(1))
}

/// Bits of an entry that must be clear.
pub(crate) fn reserved(entry: u64) -> u64 {
    entry & SECTION.saturating_sub(8)
}

/// Whether a payload block in this state has bytes in the file.
pub(crate) fn is_present(entry: u64) -> bool {
    matches!(state(entry), FULLY_PRESENT | PARTIALLY_PRESENT)
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A block of the disk, by its number.
    Payload(u64),
    /// The sector bitmap of a chunk, by its number.
    Bitmap(u64),
}

/// The sizes that decide where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) disk_bytes: u64,
    /// 1 MiB to 256 MiB, a power of two.
    pub(crate) block_bytes: u64,
    /// 512 or 4096.
    pub(crate) sector: u64,
    pub(crate) has_parent: bool,
}

impl Geometry {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            disk_bytes: metadata.disk_bytes,
            block_bytes: metadata.block_bytes,
            sector: metadata.logical_sector,
            has_parent: metadata.has_parent,
        }
    }

    /// Payload blocks of a chunk: 16 to 32768, a power of two.
    pub(crate) fn chunk_ratio(&self) -> u64 {
        div(BITMAP_SECTORS.saturating_mul(self.sector), self.block_bytes).max(1)
    }

    /// Blocks of the disk.
    pub(crate) fn blocks(&self) -> u64 {
        div_up(self.disk_bytes, self.block_bytes)
    }

    /// Chunks of the disk.
    pub(crate) fn chunks(&self) -> u64 {
        div_up(self.blocks(), self.chunk_ratio())
    }

    /// Entries of the table: with a parent the bitmap of the last chunk is one of them, else the last block is the end.
    pub(crate) fn entries(&self) -> u64 {
        if self.has_parent {
            return self
                .chunks()
                .saturating_mul(self.chunk_ratio().saturating_add(1));
        }
        self.blocks()
            .checked_sub(1)
            .map_or(0, |last| self.block_entry(last).saturating_add(1))
    }

    /// Index of a block's entry.
    pub(crate) fn block_entry(&self, block: u64) -> u64 {
        block.saturating_add(div(block, self.chunk_ratio()))
    }

    /// Index of the entry of a chunk's bitmap.
    pub(crate) fn bitmap_entry(&self, chunk: u64) -> u64 {
        let group = self.chunk_ratio().saturating_add(1);
        chunk
            .saturating_mul(group)
            .saturating_add(self.chunk_ratio())
    }

    /// What the entry at an index is for. With a parent, entries behind the last block belong to blocks past the disk.
    pub(crate) fn slot(&self, entry: u64) -> Slot {
        let group = self.chunk_ratio().saturating_add(1);
        let (chunk, within) = (div(entry, group), rem(entry, group));
        if within == self.chunk_ratio() {
            Slot::Bitmap(chunk)
        } else {
            let first = chunk.saturating_mul(self.chunk_ratio());
            Slot::Payload(first.saturating_add(within))
        }
    }

    /// Bytes of a block that lie inside the disk.
    pub(crate) fn bytes_needed(&self, block: u64) -> u64 {
        let start = block.saturating_mul(self.block_bytes);
        self.disk_bytes.saturating_sub(start).min(self.block_bytes)
    }

    /// Bytes of a slot's place that are needed, and bytes it takes.
    pub(crate) fn extent(&self, slot: Slot) -> (u64, u64) {
        match slot {
            Slot::Payload(block) => (self.bytes_needed(block), self.block_bytes),
            Slot::Bitmap(chunk) => {
                let start = chunk.saturating_mul(self.chunk_ratio());
                let left = self
                    .disk_bytes
                    .saturating_sub(start.saturating_mul(self.block_bytes));
                let bytes = div_up(div_up(left, self.sector), 8);
                (bytes.min(BITMAP_BYTES), BITMAP_BYTES)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_entries_stand_behind_each_chunk_and_the_count_depends_on_a_parent() {
        for (sector, block, ratio) in [
            (512, 1 << 20, 4096),
            (512, 256 << 20, 16),
            (4096, 1 << 20, 32768),
            (4096, 32 << 20, 1024),
        ] {
            for blocks in [0, 1, ratio - 1, ratio, ratio + 1, 2 * ratio, 5 * ratio + 3] {
                let mut geometry = Geometry {
                    disk_bytes: blocks * block,
                    block_bytes: block,
                    sector,
                    has_parent: false,
                };
                assert_eq!(geometry.chunk_ratio(), ratio);
                // The formulas of section 2.5.
                let bitmaps = blocks.div_ceil(ratio);
                let dynamic = if blocks == 0 {
                    0
                } else {
                    blocks + (blocks - 1) / ratio
                };
                assert_eq!(geometry.entries(), dynamic, "{blocks} of {block}");
                geometry.has_parent = true;
                assert_eq!(geometry.entries(), bitmaps * (ratio + 1));
                for entry in 0..geometry.entries().min(3 * ratio) {
                    let back = match geometry.slot(entry) {
                        Slot::Payload(block) => geometry.block_entry(block),
                        Slot::Bitmap(chunk) => geometry.bitmap_entry(chunk),
                    };
                    assert_eq!(back, entry);
                }
            }
        }
    }
}
