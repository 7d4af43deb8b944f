//! CRC-32C (Castagnoli, reflected 0x82f63b78) as ext4 uses it: seeded with all ones, not inverted at the end.

/// Goes on from `seed` over `bytes`.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_that_of_the_catalogue() {
        assert_eq!(!super::crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }
}
