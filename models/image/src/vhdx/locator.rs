//! The parent locator: pairs of UTF-16 strings that name the file with the rest of the disk.

use super::guid::Guid;
use super::rules;
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{Error, Result, array_at, le_u16, le_u32, slice_at};

/// The one type that the specification knows: the parent is a VHDX.
pub(crate) const VHDX: Guid = Guid::new(
    0xb04a_efb7,
    0xd19e,
    0x4a81,
    [0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13],
);
/// Most pairs looked at.
const PAIRS_MAX: u16 = 256;
/// The keys of paths, in the order in which they are tried.
pub(crate) const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// What a child says of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) pairs: Vec<(String, String)>,
    /// Where it stands in the file.
    pub(crate) at: u64,
}

impl Locator {
    pub(crate) fn parse(bytes: &[u8], at: u64, findings: &mut Findings) -> Result<Self> {
        let kind = Guid(array_at(bytes, 0).unwrap_or_default());
        if kind != VHDX {
            return Err(Error::unsupported(format_args!(
                "VHDX whose parent is located by {kind}, known is {VHDX}"
            )));
        }
        let count = le_u16(bytes, 18).unwrap_or(0);
        let mut wrong = |found: String, expected: &str| {
            let place = (at, len64(bytes));
            findings.add(
                &rules::PARENT_LOCATOR,
                place,
                "parent locator",
                found,
                expected,
            );
        };
        if count > PAIRS_MAX {
            wrong(format!("{count} pairs"), "at most 256");
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for number in 0..count.min(PAIRS_MAX) {
            match pair(bytes, number) {
                Some((key, _)) if pairs.iter().any(|(known, _)| *known == key) => {
                    wrong(format!("two pairs {key:?}"), "each key once");
                }
                Some(pair) => pairs.push(pair),
                None => wrong(
                    format!("pair {number} outside of it, or no UTF-16"),
                    "strings",
                ),
            }
        }
        let locator = Self { pairs, at };
        let linkage = locator.get("parent_linkage").and_then(Guid::parse);
        if linkage.is_none() {
            wrong("no parent_linkage".to_owned(), "the parent's DataWriteGuid");
        }
        Ok(locator)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let mut found = self.pairs.iter().filter(|(known, _)| known == key);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Whether the parent may have this DataWriteGuid.
    pub(crate) fn links(&self, data_write_guid: Guid) -> bool {
        let keys = ["parent_linkage", "parent_linkage2"];
        let linked = |key| self.get(key).and_then(Guid::parse) == Some(data_write_guid);
        keys.into_iter().any(linked)
    }

    /// The names of the parent, best first, each once. The relative one is given with slashes, as all systems read it.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for key in PATHS {
            let Some(name) = self.get(key) else {
                continue;
            };
            let name = if key == "relative_path" {
                let name = name.replace('\\', "/");
                let here = name.trim_start_matches("./").trim_start_matches('/');
                here.to_owned()
            } else {
                name.to_owned()
            };
            // A pair has no empty value, but a relative path may lead to nothing but its own folder.
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The item: header, table, strings.
    pub(crate) fn to_bytes(pairs: &[(&str, String)]) -> Result<Vec<u8>> {
        let too_long =
            || Error::unsupported("VHDX parent locator with a string of 32 Ki characters");
        let mut bytes = VHDX.0.to_vec();
        bytes.extend_from_slice(&[0; 2]);
        let count = u16::try_from(pairs.len()).map_err(|_| too_long())?;
        bytes.extend_from_slice(&count.to_le_bytes());
        let mut at = len64(pairs).saturating_mul(12).saturating_add(20);
        let mut strings = Vec::new();
        for (key, value) in pairs {
            let (mut places, mut lengths) = (Vec::new(), Vec::new());
            for text in [*key, value] {
                let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                let length = u16::try_from(units.len()).map_err(|_| too_long())?;
                let place = u32::try_from(at).map_err(|_| too_long())?;
                places.extend_from_slice(&place.to_le_bytes());
                lengths.extend_from_slice(&length.to_le_bytes());
                at = at.saturating_add(len64(&units));
                strings.extend_from_slice(&units);
            }
            bytes.extend_from_slice(&places);
            bytes.extend_from_slice(&lengths);
        }
        bytes.extend_from_slice(&strings);
        Ok(bytes)
    }
}

fn pair(bytes: &[u8], number: u16) -> Option<(String, String)> {
    let at = usize::from(number).checked_mul(12)?.checked_add(20)?;
    let text = |place: usize, length: usize| {
        let place = index(u64::from(le_u32(bytes, at.checked_add(place)?)?));
        let length = usize::from(le_u16(bytes, at.checked_add(length)?)?);
        let (units, odd) = slice_at(bytes, place, length)?.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let sound = odd.is_empty() && !units.is_empty() && !units.contains(&0);
        String::from_utf16(&units).ok().filter(|_| sound)
    };
    Some((text(0, 8)?, text(4, 10)?))
}
