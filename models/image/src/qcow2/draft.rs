//! A file as a plan will leave it, without touching the file.

use crate::math::{index, len64};
use drylab_block::{Error, Overlay, ReadAt, Result, SparseBytes, WriteAt};
use std::sync::Arc;

/// A file that is not changed, changes to it, and what is put behind its end.
pub(super) struct Draft {
    front: Overlay,
    behind: SparseBytes,
}

impl Draft {
    pub(super) fn new(file: Arc<dyn ReadAt>) -> Self {
        Self {
            front: Overlay::new(file),
            behind: SparseBytes::default(),
        }
    }

    /// Bytes of a range of `length` at `offset` that are in front of the old end.
    fn in_front(&self, offset: u64, length: usize) -> usize {
        index(self.front.len().saturating_sub(offset)).min(length)
    }

    /// Where an offset is behind the old end.
    fn past(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.front.len())
    }
}

impl ReadAt for Draft {
    fn len(&self) -> u64 {
        self.front.len().saturating_add(self.behind.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let split = self.in_front(offset, buffer.len());
        let (head, tail) = buffer
            .split_at_mut_checked(split)
            .ok_or_else(|| Error::io("read of a draft"))?;
        if !head.is_empty() {
            self.front.read_at(offset, head)?;
        }
        if tail.is_empty() {
            return Ok(());
        }
        self.behind
            .read_at(self.past(offset.saturating_add(len64(head))), tail)
    }
}

impl WriteAt for Draft {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let split = self.in_front(offset, bytes.len());
        let (head, tail) = bytes
            .split_at_checked(split)
            .ok_or_else(|| Error::io("write to a draft"))?;
        if !head.is_empty() {
            self.front.write_at(offset, head)?;
        }
        if tail.is_empty() {
            return Ok(());
        }
        self.behind
            .write_at(self.past(offset.saturating_add(len64(head))), tail)
    }

    /// Only behind the old end.
    fn set_len(&self, length: u64) -> Result<()> {
        self.behind.set_len(self.past(length))
    }
}
