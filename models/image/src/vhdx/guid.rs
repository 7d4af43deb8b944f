//! Identifiers: GUIDs as Microsoft stores them, and how a file's own ones are made of its content.

use crate::math::len64;
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
        let mut mix = Mix::default();
        mix.add(sequence, &self.0);
        mix.guid("following")
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

/// 128 bits over pieces of a disk, taken while they are written: cheap beside reading them, no defence against a forger.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mix {
    a: u64,
    b: u64,
}

/// Digits of pi: any odd numbers with about as many ones as zeros would do.
const K1: u64 = 0x2437_5a30_88d3_13a5;
const K2: u64 = 0x1319_8a2e_0370_7345;

fn low(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0)
}

fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x).wrapping_mul(u128::from(y));
    low(product) ^ low(product >> 64)
}

impl Mix {
    /// Takes the bytes that stand at an offset.
    pub(crate) fn add(&mut self, offset: u64, bytes: &[u8]) {
        self.word((u128::from(len64(bytes)) << 64) | u128::from(offset));
        let (words, rest) = bytes.as_chunks::<16>();
        for word in words {
            self.word(u128::from_le_bytes(*word));
        }
        let mut last = [0; 16];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u128::from_le_bytes(last));
    }

    fn word(&mut self, word: u128) {
        let (first, second) = (low(word), low(word >> 64));
        self.a = fold(first ^ self.a ^ K1, second ^ K2).wrapping_add(self.b.rotate_left(17));
        self.b = fold(second ^ self.b ^ K2, first ^ K1).wrapping_add(self.a.rotate_left(41));
    }

    /// The identifier for one use of the content, marked as a UUID of version 8 (RFC 9562), "made as its maker likes".
    pub(crate) fn guid(&self, label: &str) -> Guid {
        let mut mix = self.clone();
        mix.add(u64::MAX, label.as_bytes());
        mix.word(0);
        let marks = (u128::from(mix.a) << 64) | u128::from(mix.b);
        let mut bytes = marks.to_le_bytes();
        let [_, _, _, _, _, _, _, version, variant, ..] = &mut bytes;
        *version = (*version & 0x0f) | 0x80;
        *variant = (*variant & 0x3f) | 0x80;
        Guid(bytes)
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
    fn contents_that_differ_in_a_bit_or_a_place_have_other_identifiers() {
        let of = |offset, byte: u8| {
            let mut mix = Mix::default();
            mix.add(offset, &[byte; 100]);
            mix.guid("disk")
        };
        let all = [of(0, 0), of(0, 1), of(0, 2), of(65536, 1), of(1, 1)];
        for (number, one) in all.iter().enumerate() {
            assert!(all[..number].iter().all(|other| other != one));
        }
        let one = of(0, 1);
        assert_ne!(one.following(1), one);
        assert_ne!(one.following(1), one.following(2));
        assert_eq!((one.0[7] >> 4, one.0[8] >> 6), (8, 2));
    }
}
