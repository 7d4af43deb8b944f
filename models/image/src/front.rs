//! Files made front to back.

use crate::math::{index, len64};
use drylab_block::Result;

/// Bytes handed out front to back, with the offset reached.
pub(crate) struct Front<'a> {
    put: &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    at: u64,
}

impl<'a> Front<'a> {
    /// Starts at offset 0.
    pub(crate) fn new(put: &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Self {
        Self { put, at: 0 }
    }

    /// Bytes handed out so far.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Hands out `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        (self.put)(bytes)?;
        self.at = self.at.saturating_add(len64(bytes));
        Ok(())
    }

    /// Hands out zeros up to the next multiple of `alignment`.
    pub(crate) fn pad(&mut self, alignment: u64) -> Result<()> {
        let missing = crate::math::round_up(self.at, alignment).saturating_sub(self.at);
        if missing > 0 {
            self.put(&vec![0; index(missing)])
        } else {
            Ok(())
        }
    }
}
