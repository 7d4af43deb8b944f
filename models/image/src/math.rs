//! Sums over untrusted numbers that cannot overflow, and the house's few conversions.

/// `a / b` rounded down; 0 when `b` is 0.
pub(crate) fn div(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(0)
}

/// `a mod b`; 0 when `b` is 0.
pub(crate) fn rem(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(0)
}

/// `a / b` rounded up; 0 when `b` is 0.
pub(crate) fn div_up(a: u64, b: u64) -> u64 {
    div(a, b).saturating_add(u64::from(rem(a, b) != 0))
}

/// The next multiple of `b` from `a` on.
pub(crate) fn round_up(a: u64, b: u64) -> u64 {
    div_up(a, b).saturating_mul(b)
}

/// Length of a slice as 64 bits.
pub(crate) fn len64<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// A length or index in memory; what does not fit is past the end of every slice.
pub(crate) fn index(a: u64) -> usize {
    usize::try_from(a).unwrap_or(usize::MAX)
}
