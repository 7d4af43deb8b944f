//! Comparison of names without case, by the volume's own $UpCase table.

use super::attribute::units;
use std::cmp::Ordering;

/// Upper case of each UTF-16 unit.
#[derive(Clone, Debug)]
pub(crate) struct Upcase(Vec<u16>);

impl Upcase {
    /// From the content of $UpCase: 65,536 units, or as many as are there.
    pub(crate) fn from_table(bytes: &[u8]) -> Self {
        Self(units(bytes))
    }

    /// For a volume whose table cannot be read: Unicode, one unit to one unit, nothing outside ASCII becomes ASCII.
    pub(crate) fn built_in() -> Self {
        Self((0..=u16::MAX).map(upper).collect())
    }

    fn upper(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// Order of names in a directory.
    pub(crate) fn compare(&self, left: &[u16], right: &[u16]) -> Ordering {
        left.iter()
            .map(|unit| self.upper(*unit))
            .cmp(right.iter().map(|unit| self.upper(*unit)))
    }
}

fn upper(unit: u16) -> u16 {
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
