//! From guest offsets to stored bytes through two levels of tables, as VMDK and qcow2 both have it.
//!
//! ```text
//! guest offset ─ unit (grain, cluster) ─ table (grain table, L2) ─ entry ─ Store
//! ```

use crate::math::{div, index, len64, rem};
use drylab_block::{Error, Extent, ExtentKind, ReadAt, Result};
use std::sync::Arc;

/// Where one unit's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Nowhere: reads as zeros.
    Hole,
    /// Nowhere, explicitly zero.
    Zero,
    /// At this byte offset of the file, as they are.
    At(u64),
    /// Compressed.
    Packed,
}

impl Store {
    fn kind(self) -> ExtentKind {
        match self {
            Self::Hole => ExtentKind::Hole,
            Self::Zero => ExtentKind::Zero,
            Self::At(_) => ExtentKind::Data,
            Self::Packed => ExtentKind::Compressed,
        }
    }
}

/// A disk in units of one size, found through tables of one length.
pub(crate) trait Units {
    /// One table of the second level.
    type Table: ?Sized;

    /// Guest-visible bytes.
    fn size(&self) -> u64;
    /// The file.
    fn source(&self) -> &dyn ReadAt;
    /// Bytes of a unit, never 0.
    fn unit_bytes(&self) -> u64;
    /// Units that one table describes, never 0.
    fn units_per_table(&self) -> u64;
    /// The first table at or after `table` that exists, or the number of tables. Cheap.
    fn next_table(&self, table: u64) -> u64;
    /// One table, if it exists.
    fn table(&self, table: u64) -> Result<Option<Arc<Self::Table>>>;
    /// What the table says of a unit, checked against the file.
    fn store(&self, table: &Self::Table, unit: u64) -> Result<Store>;
    /// The bytes of a compressed unit: at least those inside the disk.
    fn unpacked(&self, table: &Self::Table, unit: u64) -> Result<Arc<[u8]>>;

    /// Bytes of `unit` that lie inside the disk.
    fn bytes_needed(&self, unit: u64) -> u64 {
        let start = unit.saturating_mul(self.unit_bytes());
        self.size().saturating_sub(start).min(self.unit_bytes())
    }
}

/// Bytes from one offset on that are stored alike.
struct Run<T: ?Sized> {
    length: u64,
    store: Store,
    table: Option<Arc<T>>,
}

/// The run at `offset`, at least one byte; looks for more only up to `wanted` bytes.
fn run_at<U: Units>(units: &U, offset: u64, wanted: u64) -> Result<Run<U::Table>> {
    let (unit_bytes, per_table) = (units.unit_bytes(), units.units_per_table());
    let unit = div(offset, unit_bytes);
    let table_index = div(unit, per_table);
    let Some(table) = units.table(table_index)? else {
        let next = units
            .next_table(table_index)
            .max(table_index.saturating_add(1));
        let end = next
            .saturating_mul(per_table)
            .saturating_mul(unit_bytes)
            .min(units.size());
        return Ok(Run {
            length: end.saturating_sub(offset),
            store: Store::Hole,
            table: None,
        });
    };
    let first = units.store(&table, unit)?;
    let mut length = units
        .bytes_needed(unit)
        .saturating_sub(rem(offset, unit_bytes));
    let stop = table_index.saturating_add(1).saturating_mul(per_table);
    let mut next = unit.saturating_add(1);
    while next < stop && length < wanted && offset.saturating_add(length) < units.size() {
        let expected = match first {
            Store::At(host) => {
                let distance = next.saturating_sub(unit).saturating_mul(unit_bytes);
                Store::At(host.saturating_add(distance))
            }
            other => other,
        };
        // An entry that is wrong ends the run; reading there reports it.
        if units.store(&table, next) != Ok(expected) {
            break;
        }
        length = length.saturating_add(units.bytes_needed(next));
        next = next.saturating_add(1);
    }
    let store = match first {
        Store::At(host) => Store::At(host.saturating_add(rem(offset, unit_bytes))),
        other => other,
    };
    Ok(Run {
        length,
        store,
        table: Some(table),
    })
}

/// [`ReadAt::read_at`] over tables.
pub(crate) fn read<U: Units>(units: &U, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let size = units.size();
    if offset
        .checked_add(len64(buffer))
        .is_none_or(|end| end > size)
    {
        let wanted = buffer.len();
        let message =
            format_args!("read of {wanted} bytes at offset {offset} ends past the end ({size})");
        return Err(Error::io(message));
    }
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let run = run_at(units, at, len64(rest))?;
        let mut length = run.length.min(len64(rest));
        if run.store == Store::Packed {
            let unit_left = units
                .unit_bytes()
                .saturating_sub(rem(at, units.unit_bytes()));
            length = length.min(unit_left);
        }
        let (part, later) = rest
            .split_at_mut_checked(index(length))
            .filter(|_| length > 0)
            .ok_or_else(|| Error::corrupt(format_args!("no bytes known at offset {at}")))?;
        match (run.store, run.table) {
            (Store::At(host), _) => units.source().read_at(host, part)?,
            (Store::Packed, Some(table)) => copy_unpacked(units, &table, at, part)?,
            (Store::Packed | Store::Hole | Store::Zero, _) => part.fill(0),
        }
        at = at.saturating_add(length);
        rest = later;
    }
    Ok(())
}

/// Copies `part` out of the compressed unit that holds `at`.
fn copy_unpacked<U: Units>(units: &U, table: &U::Table, at: u64, part: &mut [u8]) -> Result<()> {
    let unit = div(at, units.unit_bytes());
    let bytes = units.unpacked(table, unit)?;
    let within = index(rem(at, units.unit_bytes()));
    let found = drylab_block::slice_at(&bytes, within, part.len()).ok_or_else(|| {
        Error::corrupt(format_args!(
            "compressed unit {unit} unpacks to {} bytes, but {} are needed",
            bytes.len(),
            within.saturating_add(part.len())
        ))
    })?;
    part.copy_from_slice(found);
    Ok(())
}

/// [`ReadAt::extent_at`] over tables: total, also where tables are broken.
pub(crate) fn extent<U: Units>(units: &U, offset: u64) -> Extent {
    match run_at(units, offset, u64::MAX) {
        Ok(run) => Extent {
            offset,
            length: run.length,
            kind: run.store.kind(),
        },
        // Bytes that cannot be found are said to be bytes: reading them says what is wrong.
        Err(_) => {
            let unit = div(offset, units.unit_bytes());
            let length = units
                .bytes_needed(unit)
                .saturating_sub(rem(offset, units.unit_bytes()));
            Extent {
                offset,
                length,
                kind: ExtentKind::Data,
            }
        }
    }
}
