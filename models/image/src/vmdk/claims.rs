//! Who uses which sectors of a file: two bits for each, a window of the file at a time, so that memory does not grow with
//! the file.

use crate::math::{div, div_up, index, rem};
use drylab_block::Limits;
use std::ops::Range;

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody had any of the sectors.
    Fresh,
    /// Another claim starts at the same sector.
    Alias,
    /// Another claim has some of the sectors.
    Overlap,
}

/// The sectors of one window.
pub(super) struct Claims {
    window: Range<u64>,
    used: Vec<u64>,
    starts: Vec<u64>,
}

/// Bits of a word.
const BITS: u64 = 64;

impl Claims {
    /// Windows that cover `sectors` sectors; the tables of one take at most half of what a table may.
    pub(super) fn windows(sectors: u64, limits: &Limits) -> impl Iterator<Item = Range<u64>> {
        let most = (limits.table_bytes_max / 4).max(64).saturating_mul(8);
        let count = div_up(sectors, most).max(1);
        (0..count).map(move |number| {
            let start = number.saturating_mul(most);
            start..start.saturating_add(most).min(sectors)
        })
    }

    /// Nothing is claimed yet.
    pub(super) fn new(window: Range<u64>) -> Self {
        let words = index(div_up(window.end.saturating_sub(window.start), BITS));
        Self {
            window,
            used: vec![0; words],
            starts: vec![0; words],
        }
    }

    /// Claims the sectors of `range` inside the window.
    pub(super) fn claim(&mut self, range: Range<u64>) -> Claim {
        let first = range.start.max(self.window.start);
        let end = range.end.min(self.window.end);
        let mut answer = Claim::Fresh;
        let mut at = first;
        while at < end {
            let (word, bit) = self.place(at);
            let take = BITS.saturating_sub(bit).min(end.saturating_sub(at));
            let mask = mask(bit, take);
            if let Some(used) = self.used.get_mut(word) {
                if *used & mask != 0 {
                    answer = Claim::Overlap;
                }
                *used |= mask;
            }
            at = at.saturating_add(take);
        }
        if self.window.contains(&range.start) {
            let (word, bit) = self.place(range.start);
            let mask = mask(bit, 1);
            if let Some(starts) = self.starts.get_mut(word) {
                if *starts & mask != 0 {
                    answer = Claim::Alias;
                }
                *starts |= mask;
            }
        }
        answer
    }

    fn place(&self, sector: u64) -> (usize, u64) {
        let at = sector.saturating_sub(self.window.start);
        (index(div(at, BITS)), rem(at, BITS))
    }
}

/// `take` bits from bit `bit` on; they lie in one word.
fn mask(bit: u64, take: u64) -> u64 {
    let by = |count: u64| u32::try_from(count).unwrap_or(0);
    let ones = u64::MAX.wrapping_shr(by(BITS.saturating_sub(take)));
    ones.wrapping_shl(by(bit))
}

/// Ranges of sectors in ascending order, none touching another.
#[derive(Debug, Default)]
pub(super) struct Spans(Vec<Range<u64>>);

impl Spans {
    /// Joins ranges in any order.
    pub(super) fn of(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.retain(|range| range.start < range.end);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined.shrink_to_fit();
        Self(joined)
    }

    /// Whether any sector of `range` is in one of them.
    pub(super) fn meet(&self, range: &Range<u64>) -> bool {
        let behind = self.0.partition_point(|span| span.start < range.end);
        behind
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .is_some_and(|span| span.end > range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claims_in_windows_answer_as_a_list_of_ranges_does(
            ranges in prop::collection::vec((0..600u64, 1..140u64), 1..40), window in 1..700u64,
        ) {
            let limits = Limits::DEFAULT;
            prop_assert_eq!(Claims::windows(700, &limits).count(), 1);
            let mut expected = Vec::new();
            for (at, (start, length)) in ranges.iter().enumerate() {
                let earlier = &ranges[..at];
                let answer = if earlier.iter().any(|(other, _)| other == start) {
                    Claim::Alias
                } else if earlier.iter().any(|(other, long)| *other < start + length && *start < other + long) {
                    Claim::Overlap
                } else {
                    Claim::Fresh
                };
                expected.push(answer);
            }
            let mut found = vec![Claim::Fresh; ranges.len()];
            for first in (0..740).step_by(window as usize) {
                let mut claims = Claims::new(first..first + window);
                for (at, (start, length)) in ranges.iter().enumerate() {
                    let answer = claims.claim(*start..start + length);
                    if answer == Claim::Alias || found[at] == Claim::Fresh {
                        found[at] = answer;
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn spans_meet_what_one_of_the_ranges_meets(
            ranges in prop::collection::vec((0..90u64, 0..9u64), 0..20), start in 0..99u64, length in 1..9u64,
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(start, length)| *start..start + length).collect();
            let wanted = start..start + length;
            let expected = ranges.iter().any(|range| range.start < wanted.end && wanted.start < range.end && !range.is_empty());
            prop_assert_eq!(Spans::of(ranges).meet(&wanted), expected);
        }
    }

    #[test]
    fn windows_cover_a_file_and_keep_the_limit() {
        let mut limits = Limits::DEFAULT;
        limits.table_bytes_max = 1024;
        let windows: Vec<_> = Claims::windows(5000, &limits).collect();
        assert_eq!(windows, [0..2048, 2048..4096, 4096..5000]);
    }
}
