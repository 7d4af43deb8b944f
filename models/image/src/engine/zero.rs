//! Where bytes are that are not zero.

use super::PAGE;
use crate::math::index;
use drylab_block::{Result, WriteAt};
use std::ops::Range;

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A quarter of a page is one loop of vectors; data mostly shows in the first.
    bytes
        .chunks(1024)
        .all(|part| part.iter().fold(0u8, |sum, byte| sum | byte) == 0)
}

/// Ranges of `bytes` that hold something, in whole pages of the lesser of 4 KiB and `unit` bytes (the last may be cut).
pub(crate) fn runs(bytes: &[u8], unit: u64, found: &mut Vec<Range<usize>>) {
    found.clear();
    let page = index(unit.clamp(1, PAGE));
    let mut at = 0usize;
    for part in bytes.chunks(page) {
        let end = at.saturating_add(part.len());
        if !is_zero(part) {
            match found.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => found.push(at..end),
            }
        }
        at = end;
    }
}

/// Writes the pages of `bytes` that hold something to where the sink has zeros.
pub(crate) fn write_runs(sink: &dyn WriteAt, offset: u64, bytes: &[u8]) -> Result<()> {
    let mut found = Vec::new();
    runs(bytes, PAGE, &mut found);
    for run in found {
        let at = offset.saturating_add(u64::try_from(run.start).unwrap_or(u64::MAX));
        if let Some(bytes) = bytes.get(run) {
            sink.write_at(at, bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_every_page_with_a_byte_in_it_and_no_other() {
        let mut bytes = vec![0u8; 40_000];
        for at in [0, 4095, 8192, 16_383, 39_999] {
            bytes[at] = 1;
        }
        let mut found = Vec::new();
        runs(&bytes, 1 << 20, &mut found);
        assert_eq!(found, [0..4096, 8192..16_384, 36_864..40_000]);
        runs(&bytes, 512, &mut found);
        assert_eq!(found[0], 0..512);
        assert_eq!(found.len(), 5);
        bytes.fill(0);
        runs(&bytes, 1 << 20, &mut found);
        assert!(found.is_empty() && is_zero(&bytes) && is_zero(&[]));
    }
}
