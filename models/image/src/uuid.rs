//! Identifiers that a format wants and nobody gave: UUIDs made of the content.

use twox_hash::XxHash3_128;

/// The UUID of one use, `label`, of what has this digest, in the order in which its text is read: version 8 (RFC 9562), "made
/// as its maker likes". Equal contents have equal ones; no defence against a forger.
pub(crate) fn made_of(digest: u128, label: &str) -> [u8; 16] {
    let mut bytes = digest.to_le_bytes().to_vec();
    bytes.extend_from_slice(label.as_bytes());
    let mut uuid = XxHash3_128::oneshot(&bytes).to_be_bytes();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = (*version & 0x0f) | 0x80;
    *variant = (*variant & 0x3f) | 0x80;
    uuid
}

/// The digest of a few bytes, for [`made_of`].
pub(crate) fn digest(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// A UUID between the order in which its text is read and that in which Microsoft's and VirtualBox's files store it: the
/// first three fields are little-endian there.
pub(crate) fn swapped(uuid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = uuid;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_content_or_use_has_another_uuid_and_each_says_its_version() {
        let all = [(1, "disk"), (2, "disk"), (1, "file"), (1 << 127, "disk")];
        let all = all.map(|(digest, label)| made_of(digest, label));
        for (number, one) in all.iter().enumerate() {
            assert!(all[..number].iter().all(|other| other != one));
            assert_eq!((one[6] >> 4, one[8] >> 6), (8, 2));
            let stored = swapped(*one);
            assert_eq!((stored[7] >> 4, swapped(stored)), (8, *one));
        }
        assert_ne!(digest(b"one"), digest(b"two"));
    }
}
