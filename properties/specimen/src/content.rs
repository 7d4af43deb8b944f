//! What stands on a disk: units that are absent, zero or data of several sorts.

use crate::choices::{Choices, index};
use drylab_block::{SparseBytes, WriteAt};

/// What a unit (block, grain, cluster) of the disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// It was never written: the parent's, or zeros.
    Absent,
    /// It is said to be zero, where the format can say that.
    Zero,
    /// It is stored.
    Stored,
}

/// Bytes that follow from a number and look like nothing (SplitMix64).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What units hold, drawn; at least one of them is stored where there is one.
pub(crate) fn units(choices: &mut impl Choices, count: u64, zeros: bool) -> Vec<Unit> {
    let density = choices.pick(&[2u64, 1, 3, 6]);
    let mut all: Vec<Unit> = (0..count)
        .map(|_| match choices.below(4) {
            0 if zeros => Unit::Zero,
            _ if choices.one_in(density) => Unit::Stored,
            _ => Unit::Absent,
        })
        .collect();
    if !all.is_empty() && !all.contains(&Unit::Stored) && !choices.one_in(8) {
        let one = index(choices.below(count));
        all[one] = Unit::Stored;
    }
    all
}

/// Bytes of a stored range: runs of zeros, of text and of noise. `most` bounds how many are other than zero, so that large
/// blocks stay cheap.
pub(crate) fn fill(choices: &mut impl Choices, length: u64, most: u64) -> Vec<(u64, Vec<u8>)> {
    let mut runs = Vec::new();
    let count = choices.between(1, 3);
    for _ in 0..count {
        let room = length.min(most / 3);
        let size = match choices.below(4) {
            0 => room,
            1 => choices.between(1, 700).min(room),
            2 => 512.min(room),
            _ => choices.between(1, room.max(1)).min(room),
        };
        let start = match choices.below(3) {
            0 => 0,
            1 => length - size,
            _ => choices.below(length - size + 1),
        };
        let bytes = match choices.below(3) {
            0 => noise(choices.word(), index(size)),
            1 => {
                let line = format!("specimen {:08x}\n", choices.below(1 << 32));
                line.bytes().cycle().take(index(size)).collect()
            }
            _ => vec![choices.pick(&[0xffu8, 0x55, 1, 0]); index(size)],
        };
        runs.push((start, bytes));
    }
    runs
}

/// Writes runs at a place of some bytes in memory, which are never full.
pub(crate) fn put(bytes: &SparseBytes, at: u64, new: &[u8]) {
    bytes.write_at(at, new).expect("memory takes every write");
}
