//! Arithmetic on numbers that come out of files: it saturates, so that a bound check after it still refuses.

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;

/// Length of a slice as 64 bits.
pub(crate) fn len64<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// A 64-bit number as an index; too large for this machine is past every slice.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Quotient, 0 when the divisor is 0.
pub(crate) fn div(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(0)
}

/// Quotient rounded up, 0 when the divisor is 0.
pub(crate) fn div_up(a: u64, b: u64) -> u64 {
    if b == 0 { 0 } else { a.div_ceil(b) }
}

/// Remainder, 0 when the divisor is 0.
pub(crate) fn rem(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(0)
}

/// Bytes of sectors.
pub(crate) fn bytes(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR)
}

/// Rounds up to a multiple.
pub(crate) fn round_up(a: u64, b: u64) -> u64 {
    div_up(a, b).saturating_mul(b)
}
