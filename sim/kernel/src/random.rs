//! Named random streams and samplers.
//!
//! Only raw `u64` words are taken from the generator: they kept their values over three generations of the `rand`
//! crates while the crates' own samplers did not. The samplers here are written down with test vectors.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Domain string behind the seed in every key; a change of it is a change of format.
const DOMAIN: &[u8; 24] = b"drylab random streams v1";

/// All streams of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    run_seed: u64,
}

impl Streams {
    /// Streams of the run with this seed.
    #[must_use]
    pub fn new(run_seed: u64) -> Self {
        Self { run_seed }
    }

    /// The stream of one component. The same name and instance give the same words, whoever else drew what.
    #[must_use]
    pub fn stream(&self, component: &str, instance: u32) -> Stream {
        let mut key = [0u8; 32];
        let (seed, domain) = key.split_at_mut(8);
        seed.copy_from_slice(&self.run_seed.to_le_bytes());
        domain.copy_from_slice(DOMAIN);
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(fnv1a(component.as_bytes()) ^ fnv1a(&instance.to_le_bytes()).rotate_left(1));
        Stream { rng }
    }
}

/// FNV-1a, 64 bits: the written-down hash that turns a component's name into a stream id.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Words of one component.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The next raw word.
    pub fn word(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// An integer in `0..bound` (0 when `bound` is 0): widening multiply without rejection, so that every call takes
    /// exactly one word; the bias is below 2^-64 times the bound.
    pub fn bounded(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.word()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a 128-bit product has 64 bits")
    }

    /// An integer in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.bounded(high.saturating_sub(low).saturating_add(1))
    }

    /// True in `hits` of `of` cases.
    pub fn ratio(&mut self, hits: u64, of: u64) -> bool {
        self.bounded(of) < hits
    }

    /// An index drawn by integer weights; 0 when all weights are 0.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.bounded(total);
        for (index, weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        0
    }

    /// Fisher–Yates from the end.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u64::try_from(last).expect("an index fits 64 bits") + 1;
            let pick = usize::try_from(self.bounded(bound)).expect("below a usize bound");
            items.swap(last, pick);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Streams, fnv1a};
    use proptest::prelude::*;

    /// Computed by an independent ChaCha8 in another language from the key and stream id documented above.
    #[test]
    fn samplers_keep_their_test_vectors() {
        let mut stream = Streams::new(42).stream("test", 0);
        let words: Vec<u64> = (0..3).map(|_| stream.word()).collect();
        assert_eq!(
            words,
            [
                0x9899_edf9_c8cc_1edc,
                0x4a9d_5c20_52a6_d6db,
                0x2faf_9a8d_7a18_7d0e
            ],
            "{words:x?}"
        );
        let drawn: Vec<u64> = (0..8).map(|_| stream.bounded(10)).collect();
        assert_eq!(drawn, [8, 4, 7, 1, 9, 8, 4, 9]);
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        stream.shuffle(&mut items);
        assert_eq!(items, [4, 6, 1, 5, 3, 0, 7, 2]);
        assert_eq!(stream.weighted(&[0, 0, 5]), 2);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    proptest! {
        #[test]
        fn extra_draws_in_one_component_leave_all_others_unchanged(seed: u64, extra in 0usize..50, names in proptest::collection::vec("[a-z.]{1,12}", 2..6)) {
            let streams = Streams::new(seed);
            let undisturbed: Vec<u64> = names.iter().map(|name| streams.stream(name, 1).word()).collect();
            let mut disturbed = streams.stream(&names[0], 0);
            for _ in 0..extra { disturbed.word(); }
            let again: Vec<u64> = names.iter().map(|name| streams.stream(name, 1).word()).collect();
            prop_assert_eq!(undisturbed, again);
        }

        #[test]
        fn a_bounded_draw_stays_below_its_bound(seed: u64, bound in 1u64..) {
            prop_assert!(Streams::new(seed).stream("b", 0).bounded(bound) < bound);
        }
    }
}
