//! The journal (JBD2): what a volume that was not unmounted has promised and not yet written home.
//!
//! Sources: Linux documentation "ext4 Data Structures and Algorithms", chapter journal. All integers big-endian.
//!
//! ```text
//! every journal block that is not data:  c0 3b 39 98, type u32, sequence u32
//! type 4 (superblock): 0x0c block size, 0x10 blocks, 0x14 first block of the log, 0x18 first sequence expected,
//!                      0x1c block where the log starts (0: nothing to do), 0x28 features, 0x30 uuid
//! type 1 (descriptor): tags from 0x0c, each for one of the data blocks that follow
//! type 2 (commit), type 5 (revoke: 0x0c bytes used, then block numbers that must not be replayed)
//! ```

use super::View;
use super::checksum::crc32c;
use super::inode::Run;
use drylab_block::{Error, Result, array_at, be_u16, be_u32, slice_at};
use std::collections::BTreeMap;

const MAGIC: u32 = 0xc03b_3998;
const WIDE: u32 = 0x2;
const CHECKSUM_2: u32 = 0x8;
const CHECKSUM_3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// revoke, 64bit, async commit, checksums 2 and 3
const KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20;

/// Blocks whose newest content stands in the journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    /// Block of the volume → block where its content stands, and whether its first four bytes were escaped.
    blocks: BTreeMap<u64, (u64, bool)>,
}

impl Replay {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn place(&self, block: u64) -> Option<(u64, bool)> {
        self.blocks.get(&block).copied()
    }

    /// Reads the journal of a volume that needs recovery. `view` must be one without replay.
    pub(super) fn read(view: &View<'_>) -> Result<Self> {
        let inode = view.inode(view.sb.journal_inode)?;
        // However long it says it is, a journal has no more blocks than the volume there is: the walk is bounded.
        let block_size = u64::from(view.sb.block_size);
        let blocks = inode
            .size
            .min(view.source.len())
            .checked_div(block_size)
            .unwrap_or(0);
        let runs = view.runs(&inode, blocks)?;
        let first = Log::block_of(&runs, 0)
            .ok_or_else(|| Error::corrupt("the journal has no first block"))?;
        let head = view.block(first)?;
        let word = |offset| be_u32(&head, offset).unwrap_or(0);
        if word(0) != MAGIC || !matches!(word(4), 3 | 4) {
            return Err(Error::corrupt(format_args!(
                "the journal's superblock has magic {:#010x}, type {}",
                word(0),
                word(4)
            )));
        }
        let features = if word(4) == 4 { word(0x28) } else { 0 };
        if features & !KNOWN != 0 {
            return Err(Error::unsupported(format_args!(
                "journal features {:#x}",
                features & !KNOWN
            )));
        }
        let length = u64::from(word(0x10)).min(blocks);
        // Fast commits stand behind the log, in blocks that are not part of its ring.
        let fast = if features & FAST_COMMIT != 0 {
            u64::from(word(0x54)).max(256)
        } else {
            0
        };
        let mut log = Log {
            view,
            runs,
            first: u64::from(word(0x14)),
            end: length.saturating_sub(fast),
            features,
            seed: crc32c(u32::MAX, &array_at::<16>(&head, 0x30).unwrap_or_default()),
            copies: BTreeMap::new(),
            revoked: BTreeMap::new(),
        };
        let start = u64::from(word(0x1c));
        if start == 0 {
            return Ok(Self::default());
        }
        if u64::from(word(0xc)) != u64::from(view.sb.block_size)
            || log.first == 0
            || log.first >= log.end
        {
            return Err(Error::corrupt(format_args!(
                "the journal has blocks of {} bytes, its log is {}..{}",
                word(0xc),
                log.first,
                log.end
            )));
        }
        log.replay(start, word(0x18))?;
        let revoked = log.revoked;
        // A revoked block keeps only what transactions after the revocation wrote.
        log.copies.retain(|block, (_, _, sequence)| {
            revoked
                .get(block)
                .is_none_or(|at| sequence.wrapping_sub(*at).cast_signed() > 0)
        });
        Ok(Self {
            blocks: log
                .copies
                .into_iter()
                .map(|(block, (at, escaped, _))| (block, (at, escaped)))
                .collect(),
        })
    }
}

struct Log<'a, 'v> {
    view: &'a View<'v>,
    runs: Vec<Run>,
    first: u64,
    end: u64,
    features: u32,
    seed: u32,
    copies: BTreeMap<u64, (u64, bool, u32)>,
    revoked: BTreeMap<u64, u32>,
}

/// What one transaction adds once its commit block is found.
#[derive(Default)]
struct Pending {
    copies: Vec<(u64, u64, bool)>,
    revoked: Vec<u64>,
}

impl Log<'_, '_> {
    fn block_of(runs: &[Run], logical: u64) -> Option<u64> {
        let index = runs.partition_point(|run| run.end() <= logical);
        let run = runs.get(index).filter(|run| run.logical <= logical)?;
        run.physical.checked_add(logical.checked_sub(run.logical)?)
    }

    fn next(&self, at: u64) -> u64 {
        let next = at.saturating_add(1);
        if next >= self.end { self.first } else { next }
    }

    /// Walks the ring from `at`; ends at the first block that does not belong to the sequence.
    fn replay(&mut self, mut at: u64, mut sequence: u32) -> Result<()> {
        let mut pending = Pending::default();
        // The ring is walked at most once around.
        let mut left = self.end.saturating_sub(self.first);
        while let Some(less) = left.checked_sub(1) {
            left = less;
            let Some(place) = Self::block_of(&self.runs, at) else {
                break;
            };
            let bytes = self.view.block(place)?;
            let word = |offset| be_u32(&bytes, offset).unwrap_or(0);
            if word(0) != MAGIC || word(8) != sequence {
                break;
            }
            at = self.next(at);
            match word(4) {
                1 if self.tail_is_right(&bytes) => {
                    for (block, escaped) in self.tags(&bytes) {
                        let Some(place) = Self::block_of(&self.runs, at) else {
                            return Ok(());
                        };
                        pending.copies.push((block, place, escaped));
                        at = self.next(at);
                        let Some(less) = left.checked_sub(1) else {
                            return Ok(());
                        };
                        left = less;
                    }
                }
                2 if self.commit_is_right(&bytes) => {
                    let done = std::mem::take(&mut pending);
                    self.copies.extend(
                        done.copies
                            .into_iter()
                            .map(|(block, place, escaped)| (block, (place, escaped, sequence))),
                    );
                    self.revoked
                        .extend(done.revoked.into_iter().map(|block| (block, sequence)));
                    sequence = sequence.wrapping_add(1);
                }
                5 if self.tail_is_right(&bytes) => pending.revoked.extend(self.revocations(&bytes)),
                _ => break,
            }
        }
        Ok(())
    }

    fn has_checksums(&self) -> bool {
        self.features & (CHECKSUM_2 | CHECKSUM_3) != 0
    }

    /// The last four bytes of descriptors and revocations, where the journal has checksums.
    fn tail_is_right(&self, bytes: &[u8]) -> bool {
        let Some(at) = bytes.len().checked_sub(4) else {
            return false;
        };
        !self.has_checksums() || self.right_with_zero_at(bytes, at)
    }

    fn commit_is_right(&self, bytes: &[u8]) -> bool {
        !self.has_checksums() || self.right_with_zero_at(bytes, 0x10)
    }

    fn right_with_zero_at(&self, bytes: &[u8], at: usize) -> bool {
        let mut copy = bytes.to_vec();
        if let Some(field) = copy.get_mut(at..at.saturating_add(4)) {
            field.fill(0);
        }
        be_u32(bytes, at) == Some(crc32c(self.seed, &copy))
    }

    fn tags(&self, bytes: &[u8]) -> Vec<(u64, bool)> {
        let mut tags = Vec::new();
        let mut at = 12usize;
        let wide = self.features & WIDE != 0;
        let room = bytes
            .len()
            .saturating_sub(if self.has_checksums() { 4 } else { 0 });
        loop {
            let third = self.features & CHECKSUM_3 != 0;
            let size = match (third, wide) {
                (true, _) => 16usize,
                (false, true) => 12,
                (false, false) => 8,
            };
            let Some(tag) = slice_at(bytes, at, size).filter(|_| at.saturating_add(size) <= room)
            else {
                return tags;
            };
            let flags = if third {
                be_u32(tag, 4).unwrap_or(0)
            } else {
                u32::from(be_u16(tag, 6).unwrap_or(0))
            };
            let high = if wide { be_u32(tag, 8).unwrap_or(0) } else { 0 };
            let block = u64::from(be_u32(tag, 0).unwrap_or(0))
                | u64::from(high).checked_shl(32).unwrap_or(0);
            tags.push((block, flags & 1 != 0));
            // Without "same uuid" 16 bytes of UUID follow the tag.
            let uuid = if flags & 2 == 0 { 16 } else { 0 };
            at = at.saturating_add(size).saturating_add(uuid);
            if flags & 8 != 0 {
                return tags;
            }
        }
    }

    fn revocations(&self, bytes: &[u8]) -> Vec<u64> {
        let used = usize::try_from(be_u32(bytes, 12).unwrap_or(0))
            .unwrap_or(0)
            .min(bytes.len());
        let width = if self.features & WIDE != 0 { 8 } else { 4 };
        let list = bytes.get(16..used).unwrap_or_default();
        list.chunks_exact(width)
            .map(|entry| {
                entry
                    .iter()
                    .fold(0u64, |block, byte| (block << 8) | u64::from(*byte))
            })
            .collect()
    }
}
