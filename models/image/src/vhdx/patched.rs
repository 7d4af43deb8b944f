//! A file with what its log says laid over it: how a VHDX is read whose log was not replayed.

use crate::math::{index, len64};
use drylab_block::{Error, Extent, ExtentKind, ReadAt, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What stands over a range of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Patch {
    /// Bytes.
    Data(Box<[u8]>),
    /// So many zeros.
    Zeros(u64),
}

impl Patch {
    fn length(&self) -> u64 {
        match self {
            Self::Data(bytes) => len64(bytes),
            Self::Zeros(length) => *length,
        }
    }
}

/// Ranges that do not overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patches {
    ranges: BTreeMap<u64, Patch>,
    /// Length that the file must have at least.
    pub(crate) end: u64,
}

impl Patches {
    /// Lays bytes over what is there. Ranges of bytes are written again whole or not at all: the log has one size of
    /// them, aligned.
    pub(crate) fn data(&mut self, offset: u64, bytes: Vec<u8>) {
        self.put(offset, Patch::Data(bytes.into()));
    }

    /// Lays zeros over what is there.
    pub(crate) fn zeros(&mut self, offset: u64, length: u64) {
        if length > 0 {
            self.put(offset, Patch::Zeros(length));
        }
    }

    fn put(&mut self, offset: u64, patch: Patch) {
        let end = offset.saturating_add(patch.length());
        self.end = self.end.max(end);
        let before = self.ranges.range(..offset).next_back();
        let first = before
            .filter(|(start, patch)| start.saturating_add(patch.length()) > offset)
            .map_or(offset, |(start, _)| *start);
        let covered: Vec<u64> = self
            .ranges
            .range(first..end)
            .map(|(start, _)| *start)
            .collect();
        for start in covered {
            if let Some(Patch::Zeros(length)) = self.ranges.remove(&start) {
                let stop = start.saturating_add(length);
                if start < offset {
                    let left = Patch::Zeros(offset.saturating_sub(start));
                    self.ranges.insert(start, left);
                }
                if stop > end {
                    self.ranges
                        .insert(end, Patch::Zeros(stop.saturating_sub(end)));
                }
            }
        }
        self.ranges.insert(offset, patch);
    }

    /// Every range, as offset and length.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges
            .iter()
            .map(|(start, patch)| (*start, patch.length()))
    }

    /// The range that holds `offset`, or how far it is to the next one.
    fn at(&self, offset: u64) -> Result<(u64, &Patch), u64> {
        if let Some((start, patch)) = self.ranges.range(..=offset).next_back()
            && start.saturating_add(patch.length()) > offset
        {
            return Ok((*start, patch));
        }
        let next = self.ranges.range(offset..).next();
        Err(next.map_or(u64::MAX, |(start, _)| start.saturating_sub(offset)))
    }

    /// Whether any of the bytes is another than in the file.
    fn touches(&self, offset: u64, length: u64) -> bool {
        self.at(offset).map_or_else(|left| left < length, |_| true)
    }
}

/// The file and what lies over it.
pub(crate) struct Patched {
    pub(crate) source: Arc<dyn ReadAt>,
    pub(crate) patches: Patches,
}

impl Patched {
    /// Whether the bytes of a range stand in the file itself.
    pub(crate) fn is_plain(&self, offset: u64, length: u64) -> bool {
        offset.saturating_add(length) <= self.source.len() && !self.patches.touches(offset, length)
    }

    /// Reads of the file, zeros behind its end.
    fn source_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let inside = index(self.source.len().saturating_sub(offset)).min(buffer.len());
        let (head, tail) = buffer
            .split_at_mut_checked(inside)
            .ok_or_else(|| Error::io("buffer shorter than itself"))?;
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        self.source.read_at(offset, head)
    }
}

impl ReadAt for Patched {
    fn len(&self) -> u64 {
        self.source.len().max(self.patches.end)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = self.len();
        if offset
            .checked_add(len64(buffer))
            .is_none_or(|end| end > length)
        {
            return Err(Error::io(format_args!(
                "read of {} bytes at offset {offset} ends past the end of the file ({length})",
                buffer.len()
            )));
        }
        if self.patches.ranges.is_empty() && self.patches.end <= self.source.len() {
            return self.source.read_at(offset, buffer);
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (length, patch) = match self.patches.at(at) {
                Ok((start, patch)) => {
                    let within = at.saturating_sub(start);
                    (patch.length().saturating_sub(within), Some((within, patch)))
                }
                Err(left) => (left, None),
            };
            let take = index(length.min(len64(rest)));
            let (part, later) = rest
                .split_at_mut_checked(take)
                .filter(|_| take > 0)
                .ok_or_else(|| Error::io("empty range of a log"))?;
            match patch {
                Some((within, Patch::Data(bytes))) => {
                    let found = drylab_block::slice_at(bytes, index(within), take)
                        .ok_or_else(|| Error::io("range of a log shorter than itself"))?;
                    part.copy_from_slice(found);
                }
                Some((_, Patch::Zeros(_))) => part.fill(0),
                None => self.source_at(at, part)?,
            }
            at = at.saturating_add(len64(part));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let left = self.len().saturating_sub(offset);
        let extent = |length: u64, kind| Extent {
            offset,
            length: length.min(left),
            kind,
        };
        match self.patches.at(offset) {
            Ok((start, patch)) => {
                let length = patch.length().saturating_sub(offset.saturating_sub(start));
                let kind = match patch {
                    Patch::Data(_) => ExtentKind::Data,
                    Patch::Zeros(_) => ExtentKind::Zero,
                };
                extent(length, kind)
            }
            Err(next) if offset >= self.source.len() => extent(next, ExtentKind::Hole),
            Err(next) => {
                let found = self.source.extent_at(offset);
                extent(found.length.min(next), found.kind)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_patches_cover_earlier_ones_and_the_rest_is_the_file() {
        let mut patches = Patches::default();
        patches.zeros(4096, 4 * 4096);
        patches.data(2 * 4096, vec![7; 4096]);
        patches.zeros(0, 4096);
        patches.data(6 * 4096, vec![8; 4096]);
        patches.zeros(3 * 4096, 4096);
        patches.data(2 * 4096, vec![9; 4096]);
        let patched = Patched {
            source: Arc::new(vec![1u8; 5 * 4096 + 10]),
            patches,
        };
        assert_eq!(patched.len(), 7 * 4096);
        let mut bytes = vec![0xff; 7 * 4096];
        patched.read_at(0, &mut bytes).unwrap();
        let mut pieces = vec![0xff; 7 * 4096];
        for (number, piece) in pieces.chunks_mut(999).enumerate() {
            patched.read_at(number as u64 * 999, piece).unwrap();
        }
        assert!(bytes == pieces);
        for (page, byte) in [(0, 0), (1, 0), (2, 9), (3, 0), (4, 0), (6, 8)] {
            assert_eq!(bytes[page * 4096..][..4096], [byte; 4096], "page {page}");
        }
        assert_eq!(bytes[5 * 4096..][..10], [1; 10]);
        assert_eq!(bytes[5 * 4096 + 10..6 * 4096], [0; 4086]);
        assert!(patched.is_plain(5 * 4096, 10) && !patched.is_plain(5 * 4096, 11));
        assert!(!patched.is_plain(4 * 4096, 5000));
        assert!(patched.read_at(7 * 4096, &mut [0]).is_err());
        let mut end = 0;
        for extent in drylab_block::Extents::new(&patched) {
            assert_eq!(extent.offset, end);
            end += extent.length;
        }
        assert_eq!(end, 7 * 4096);
    }
}
