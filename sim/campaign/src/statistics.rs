//! Shares and their intervals in parts per million, without floats.

/// The Wilson score interval at 95 % (z = 1.96) for `hits` of `of`, in parts per million; (0, 1000000) for none.
///
/// Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
#[must_use]
pub fn wilson_ppm(hits: u64, of: u64) -> (u64, u64) {
    /// z squared, times 10^4.
    const Z2: u128 = 38_416;
    const SCALE: u128 = 10_000;
    const PPM: u128 = 1_000_000;
    if of == 0 || hits > of {
        return (0, 1_000_000);
    }
    let (hits, of) = (u128::from(hits), u128::from(of));
    let below = of * SCALE + Z2;
    let centre = (hits * SCALE + Z2 / 2) * PPM;
    let half = (Z2 * (hits * (of - hits) * SCALE / of + Z2 / 4)).isqrt() * PPM;
    let low = if hits == 0 {
        0
    } else {
        centre.saturating_sub(half) / below
    };
    let high = if hits == of {
        PPM
    } else {
        (centre + half).div_ceil(below).min(PPM)
    };
    (
        u64::try_from(low).unwrap_or(0),
        u64::try_from(high).unwrap_or(1_000_000),
    )
}

#[cfg(test)]
mod tests {
    use super::wilson_ppm;

    /// The closed form evaluated in floating point elsewhere, rounded to parts per million.
    #[test]
    fn the_interval_agrees_with_published_values() {
        for (hits, of, low, high) in [
            (0, 20, 0, 161_130),
            (20, 20, 838_870, 1_000_000),
            (10, 20, 299_298, 700_702),
            (1, 10, 17_876, 404_155),
        ] {
            let (l, h) = wilson_ppm(hits, of);
            assert!(
                l.abs_diff(low) <= 60 && h.abs_diff(high) <= 60,
                "{hits} of {of}: {l} {h}"
            );
        }
        assert_eq!(wilson_ppm(0, 0), (0, 1_000_000));
    }
}
