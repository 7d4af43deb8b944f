//! Identifiers: GUIDs as Microsoft stores them, and how a file's own ones are made of its content.

use crate::uuid;
use std::fmt;

/// A GUID in the bytes of the file: its first three fields are little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zeros: none.
    pub const ZERO: Self = Self([0; 16]);

    /// The GUID written `aaaaaaaa-bbbb-cccc-dddd-dddddddddddd`.
    pub(crate) const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
            (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
        Self([
            a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }

    /// The one with the bytes of a UUID as its text is read.
    #[must_use]
    pub fn of_uuid(uuid: [u8; 16]) -> Self {
        Self(crate::uuid::swapped(uuid))
    }

    /// Reads `{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}`, with or without braces, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let parts: Vec<&str> = inner.unwrap_or(text).split('-').collect();
        let [a, b, c, d, e] = parts.try_into().ok()?;
        let hex = |part: &str, digits: usize| {
            let right = part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
            right.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let tail = (hex(d, 4)? << 48) | hex(e, 12)?;
        Some(Self::new(
            u32::try_from(hex(a, 8)?).ok()?,
            u16::try_from(hex(b, 4)?).ok()?,
            u16::try_from(hex(c, 4)?).ok()?,
            tail.to_be_bytes(),
        ))
    }

    /// The identifier that takes this one's place when a file is changed: another one, and the same for the same change.
    pub(crate) fn following(self, sequence: u64) -> Self {
        let bytes = [&self.0[..], &sequence.to_le_bytes()].concat();
        Self::made_of(uuid::digest(&bytes), "VHDX following")
    }

    /// The identifier for one use of the content that has this digest.
    pub(crate) fn made_of(digest: u128, label: &str) -> Self {
        Self(uuid::swapped(uuid::made_of(digest, label)))
    }
}

impl fmt::Display for Guid {
    /// Lower case, without braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a0, a1, a2, a3, b0, b1, c0, c1, tail @ ..]) = *self;
        let (a, b) = (
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
        );
        let (c, tail) = (u16::from_le_bytes([c0, c1]), u64::from_be_bytes(tail));
        let (d, e) = (tail >> 48, tail & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_stored_in_mixed_order_and_read_in_either_case() {
        let text = "2dc27766-f623-4200-9d64-115e9bfd4a08";
        let guid = Guid::parse(text).unwrap();
        assert_eq!(guid.0[..8], [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0, 0x42]);
        assert_eq!(guid.0[8..], [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 8]);
        assert_eq!(guid.to_string(), text);
        assert_eq!(
            Guid::parse(&format!("{{{}}}", text.to_uppercase())),
            Some(guid)
        );
        for wrong in [
            "",
            "{}",
            "2dc27766-f623-4200-9d64-115e9bfd4a0",
            "+dc27766-f623-4200-9d64-115e9bfd4a08",
            "2dc27766f62342009d64115e9bfd4a08",
        ] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_follows_an_identifier_is_another_and_the_same_for_the_same_change() {
        let one = Guid::made_of(1, "disk");
        assert_ne!(one.following(1), one);
        assert_ne!(one.following(1), one.following(2));
        assert_eq!(one.following(1), one.following(1));
        assert_eq!((one.0[7] >> 4, one.0[8] >> 6), (8, 2));
    }
}
