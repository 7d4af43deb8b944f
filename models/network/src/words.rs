//! Decided numbers: what other systems draw by chance follows from a seed and a counter here.

/// The `index`-th 64-bit word that follows from `seed` (SplitMix64's output function over `seed + index * gamma`).
///
/// A model never draws: the seed is an argument, chosen by the scenario.
#[must_use]
pub fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn words_are_those_of_splitmix64() {
        // First outputs of SplitMix64 with state 1234567, as published with the algorithm.
        let words: Vec<u64> = (0..3).map(|index| word(1_234_567, index)).collect();
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
