//! A disk of tables over a backing file, as qcow2 and QED have it: where the tables say nothing of a unit, the backing
//! file is asked, which may be shorter.

use crate::map::{self, Store, Units};
use crate::math::{div, index, len64};
use crate::qcow2::Backing;
use drylab_block::{Below, Error, Extent, ExtentKind, Result};

/// [`drylab_block::ReadAt::read_at`].
pub(crate) fn read<U: Units>(
    units: &U,
    backing: Option<&Backing>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let end = offset.checked_add(len64(buffer));
    match backing {
        Some(backing) if end.is_some_and(|end| end <= units.size()) => {
            read_over(units, backing, offset, buffer)
        }
        _ => map::read(units, offset, buffer),
    }
}

fn read_over<U: Units>(units: &U, backing: &Backing, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let (hole, length) = alike(units, at, len64(rest))?;
        let (part, later) = rest
            .split_at_mut_checked(index(length))
            .filter(|_| length > 0)
            .ok_or_else(|| Error::corrupt(format_args!("no bytes known at offset {at}")))?;
        if hole {
            backing.read(at, part)?;
        } else {
            map::read(units, at, part)?;
        }
        at = at.saturating_add(length);
        rest = later;
    }
    Ok(())
}

/// Whether nothing is said of the bytes at an offset, and for how many of `most` that is so.
fn alike<U: Units>(units: &U, offset: u64, most: u64) -> Result<(bool, u64)> {
    let hole = |unit: u64| -> Result<bool> {
        match units.table(div(unit, units.units_per_table()))? {
            Some(table) => Ok(units.store(&table, unit)? == Store::Hole),
            None => Ok(true),
        }
    };
    let bytes = units.unit_bytes();
    let first = div(offset, bytes);
    let found = hole(first)?;
    let mut end = first.saturating_add(1).saturating_mul(bytes);
    while end < offset.saturating_add(most) && hole(div(end, bytes))? == found {
        end = end.saturating_add(bytes);
    }
    Ok((found, end.saturating_sub(offset).min(most)))
}

/// [`drylab_block::ReadAt::extent_at`].
pub(crate) fn extent<U: Units>(units: &U, backing: Option<&Backing>, offset: u64) -> Extent {
    let extent = map::extent(units, offset);
    match backing {
        Some(backing) if extent.kind == ExtentKind::Hole => backing.piece(offset, extent.length).0,
        _ => extent,
    }
}

/// [`drylab_block::ReadAt::below`].
pub(crate) fn below<'a, U: Units>(
    units: &'a U,
    backing: Option<&'a Backing>,
    offset: u64,
) -> Option<Below<'a>> {
    if let Some(backing) = backing {
        let extent = map::extent(units, offset);
        if extent.kind == ExtentKind::Hole {
            return backing.below(offset, extent.length);
        }
    }
    map::below(units, offset)
}
