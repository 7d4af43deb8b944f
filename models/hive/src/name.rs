//! Names of keys and values: one byte per character (Latin-1) or UTF-16, compared without case.

use std::cmp::Ordering;

/// Decodes a stored name.
pub(crate) fn decode(bytes: &[u8], one_byte: bool) -> String {
    if one_byte {
        bytes.iter().map(|byte| char::from(*byte)).collect()
    } else {
        utf16(bytes)
    }
}

/// UTF-16LE; an odd last byte is dropped, lone surrogates become U+FFFD.
pub(crate) fn utf16(bytes: &[u8]) -> String {
    char::decode_utf16(units(bytes))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// Little-endian 16-bit units; an odd last byte is dropped.
pub(crate) fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .chunks_exact(2)
        .filter_map(|pair| drylab_block::le_u16(pair, 0))
}

/// The bytes to store for a name, and whether they are one byte per character.
pub(crate) fn encode(name: &str) -> (Vec<u8>, bool) {
    match name
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect::<Option<Vec<u8>>>()
    {
        Some(bytes) => (bytes, true),
        None => (
            name.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            false,
        ),
    }
}

/// Upper case as the registry compares: one unit to one unit, and nothing outside ASCII becomes ASCII.
pub(crate) fn upper(unit: u16) -> u16 {
    let Some(from) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let mut to = from.to_uppercase();
    match (to.next(), to.next()) {
        (Some(upper), None) if from.is_ascii() || !upper.is_ascii() => {
            u16::try_from(u32::from(upper)).unwrap_or(unit)
        }
        _ => unit,
    }
}

/// Order of names in subkey lists.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    left.encode_utf16()
        .map(upper)
        .cmp(right.encode_utf16().map(upper))
}

/// Whether two names are the same key.
pub(crate) fn same(left: &str, right: &str) -> bool {
    compare(left, right).is_eq()
}

/// Hash in an `lh` element.
pub(crate) fn hash(name: &str) -> u32 {
    name.encode_utf16().fold(0u32, |hash, unit| {
        hash.wrapping_mul(37).wrapping_add(u32::from(upper(unit)))
    })
}

/// Hint in an `lf` element: the first four characters, none when one of them is not Latin-1.
pub(crate) fn hint(name: &str) -> u32 {
    let mut bytes = [0u8; 4];
    for (byte, unit) in bytes.iter_mut().zip(name.encode_utf16()) {
        match u8::try_from(unit) {
            Ok(one) => *byte = one,
            Err(_) => return 0,
        }
    }
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_sort_as_upper_case() {
        assert!(same("CurrentControlSet", "CURRENTcontrolSET"));
        assert!(same("Ä", "ä"));
        assert!(!same("ſ", "S"), "a long s is no S for the registry");
        assert_eq!(
            compare("_a", "Za"),
            Ordering::Greater,
            "upper case sorts before the underscore"
        );
    }

    #[test]
    fn hashes_ignore_case_and_hints_keep_it() {
        assert_eq!(hash("services"), hash("SERVICES"));
        assert_eq!(hint("Abcdef"), u32::from_le_bytes(*b"Abcd"));
        assert_eq!(hint("日本"), 0);
    }
}
