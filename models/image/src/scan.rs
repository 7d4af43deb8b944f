//! What there is to write: the units of a disk that are not all zeros, in ascending order.

use crate::math::{div, index, len64};
use drylab_block::{Error, Extents, ReadAt, Result};

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    // Page by page, so that a page is one vector loop and a unit with data is soon left.
    bytes
        .chunks(4096)
        .all(|page| page.iter().fold(0u8, |sum, byte| sum | byte) == 0)
}

/// Visits every unit that holds a byte other than zero, padded with zeros past the end of the disk.
///
/// Holes, explicit zeros and written zeros are the same to a writer, so that its output is a function of the
/// guest-visible bytes alone.
pub(crate) fn for_each_unit(
    disk: &dyn ReadAt,
    unit_bytes: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let size = disk.len();
    let mut buffer = vec![0u8; index(unit_bytes)];
    let mut next = 0u64;
    for extent in Extents::new(disk).filter(|extent| extent.kind.has_bytes()) {
        let end = extent.offset.saturating_add(extent.length);
        // Where two extents meet inside a unit, the unit is taken once and whole.
        let mut unit = div(extent.offset, unit_bytes).max(next);
        loop {
            let start = unit.saturating_mul(unit_bytes);
            if start >= end {
                break;
            }
            let inside = index(size.saturating_sub(start).min(unit_bytes));
            let (head, tail) = buffer
                .split_at_mut_checked(inside)
                .ok_or_else(|| Error::io("unit past the end"))?;
            disk.read_at(start, head)?;
            tail.fill(0);
            if !is_zero(&buffer) {
                visit(unit, &buffer)?;
            }
            unit = unit.saturating_add(1);
            next = unit;
        }
    }
    Ok(())
}

/// Bytes handed out front to back, with the offset reached.
pub(crate) struct Front<'a> {
    put: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    at: u64,
}

impl<'a> Front<'a> {
    /// Starts at offset 0.
    pub(crate) fn new(put: &'a mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
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
