//! A name for the content of a disk, made beside a copy.
//!
//! Where a format wants an identity and the caller gives none, it is made of the content, so that equal disks give equal
//! files. [`drylab_block::content_id`] would read the disk once more, at a tenth of the speed of a copy.

use super::BLOCK;
use crate::math::{div, index};
use std::ops::Range;
use twox_hash::XxHash3_128;

/// The sum, over the blocks of a piece that hold something (as `runs` tell), of the hash of the block and its number. A
/// sum, so that blocks may come in any order.
pub(super) fn of_piece(start: u64, bytes: &[u8], runs: &[Range<usize>]) -> u128 {
    let mut sum = 0u128;
    let mut runs = runs.iter().peekable();
    let (mut at, mut number) = (0usize, div(start, BLOCK));
    for block in bytes.chunks(index(BLOCK)) {
        let end = at.saturating_add(block.len());
        while runs.next_if(|run| run.end <= at).is_some() {}
        if runs.peek().is_some_and(|run| run.start < end) {
            sum = sum.wrapping_add(XxHash3_128::oneshot_with_seed(number, block));
        }
        at = end;
        number = number.saturating_add(1);
    }
    sum
}

/// The digest of a disk of `size` bytes whose blocks have this sum.
pub(crate) fn finished(size: u64, sum: u128) -> u128 {
    let mut bytes = [0u8; 24];
    let (first, last) = bytes.split_at_mut(8);
    first.copy_from_slice(&size.to_le_bytes());
    last.copy_from_slice(&sum.to_le_bytes());
    XxHash3_128::oneshot(&bytes)
}
