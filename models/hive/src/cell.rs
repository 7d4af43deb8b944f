//! Cells: every structure of a hive lives in one.

use crate::base::{NONE, SIZE};
use drylab_block::{Error, Limits, Result, array_at, le_u32};

/// Bytes of a hive with what is needed to read cells; copied freely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'h> {
    /// Whole file.
    pub(crate) bytes: &'h [u8],
    /// End of the last hive bin in the file.
    pub(crate) end: usize,
    /// Minor version of the format.
    pub(crate) minor: u32,
    /// Bounds.
    pub(crate) limits: Limits,
}

/// The number as a `usize`; on our platforms this cannot fail.
pub(crate) fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The number as 32 bits; hives are smaller than 4 GiB, which [`crate::Hive::open`] checks.
pub(crate) fn word(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Place in the file of an offset counted from the first bin.
pub(crate) fn place(offset: u32) -> usize {
    size(offset).saturating_add(SIZE)
}

impl<'h> View<'h> {
    /// Content of the allocated cell at `offset`, without its size word.
    pub(crate) fn cell(&self, offset: u32, what: &str) -> Result<&'h [u8]> {
        let bad = |why: std::fmt::Arguments<'_>| {
            Error::corrupt(format_args!("{what} cell at {offset:#x} {why}"))
        };
        if offset == NONE || !offset.is_multiple_of(8) || offset < 0x20 {
            return Err(bad(format_args!("is no valid cell offset")));
        }
        let at = place(offset);
        let header = array_at::<4>(self.bytes, at).filter(|_| at < self.end);
        let Some(header) = header else {
            return Err(bad(format_args!(
                "starts past the end of the bins ({:#x})",
                self.end.saturating_sub(SIZE)
            )));
        };
        let signed = i32::from_le_bytes(header);
        if signed >= 0 {
            return Err(bad(format_args!("is free (size {signed})")));
        }
        let length = size(signed.unsigned_abs());
        if length < 8 || !length.is_multiple_of(8) {
            return Err(bad(format_args!("has size {length}, not a multiple of 8")));
        }
        let end = at.checked_add(length).filter(|end| *end <= self.end);
        end.and_then(|end| self.bytes.get(at.saturating_add(4)..end))
            .ok_or_else(|| {
                bad(format_args!(
                    "has size {length} and ends past the bins ({:#x})",
                    self.end.saturating_sub(SIZE)
                ))
            })
    }

    /// Most list entries that a hive of this length can honestly hold.
    pub(crate) fn entries_max(&self) -> usize {
        self.bytes
            .len()
            .checked_div(8)
            .unwrap_or(0)
            .min(size(self.limits.entries_max))
    }

    /// The `index`th offset of a list content that starts at `from`, `step` bytes apart.
    pub(crate) fn listed(content: &[u8], from: usize, step: usize, index: usize) -> Option<u32> {
        le_u32(content, index.checked_mul(step)?.checked_add(from)?)
    }
}
