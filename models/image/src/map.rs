//! From guest offsets to stored bytes through two levels of tables, as VMDK and qcow2 both have it.
//!
//! ```text
//! guest offset ─ unit (grain, cluster) ─ table (grain table, L2) ─ entry ─ Store
//! ```

use crate::codec::{Engine, Unpackers};
use crate::math::{div, index, len64, rem};
use drylab_block::{Below, Error, Extent, ExtentKind, ReadAt, Result};
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

    /// The unpackers with which [`unpack`](Self::unpack) is called, when whole units are unpacked straight to where they
    /// are wanted, many of them from one read; `None` where only [`unpacked`](Self::unpacked) is there.
    fn unpackers(&self) -> Option<&Unpackers> {
        None
    }
    /// Offset of a compressed unit in the file, and the most bytes it can take there.
    fn packed_at(&self, table: &Self::Table, unit: u64) -> Result<(u64, u64)> {
        let _ = table;
        Err(Error::unsupported(format_args!(
            "compressed unit {unit} is not unpacked in place"
        )))
    }
    /// Unpacks a unit into `out`, its whole length, from the bytes that stand at [`packed_at`](Self::packed_at): as many
    /// as were said there, or fewer at the end of the file. `false` when that is not possible; then the unit is read by
    /// itself, and [`unpacked`](Self::unpacked) says what is wrong.
    fn unpack(&self, unit: u64, packed: &[u8], engine: &mut Engine<'_>, out: &mut [u8]) -> bool {
        let _ = (unit, packed, engine, out);
        false
    }

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
        let length = match run.store {
            Store::Packed => packed_length(units, at, run.length.min(len64(rest))),
            _ => run.length.min(len64(rest)),
        };
        let (part, later) = rest
            .split_at_mut_checked(index(length))
            .filter(|_| length > 0)
            .ok_or_else(|| Error::corrupt(format_args!("no bytes known at offset {at}")))?;
        match (run.store, run.table) {
            (Store::At(host), _) => units.source().read_at(host, part)?,
            (Store::Packed, Some(table)) => read_packed(units, &table, at, part)?,
            (Store::Packed | Store::Hole | Store::Zero, _) => part.fill(0),
        }
        at = at.saturating_add(length);
        rest = later;
    }
    Ok(())
}

/// How many of `length` bytes of compressed units from `at` on are read at a time: whole units, or a part of one.
fn packed_length<U: Units>(units: &U, at: u64, length: u64) -> u64 {
    let unit = units.unit_bytes();
    let whole = div(length, unit).saturating_mul(unit);
    if rem(at, unit) == 0 && whole > 0 {
        return whole;
    }
    length.min(unit.saturating_sub(rem(at, unit)))
}

/// Most packed bytes that are read at a time, in bytes.
const PACKED_READ: u64 = 1 << 20;

/// Fills `part` from compressed units: whole ones, many from one read, or a part of one.
fn read_packed<U: Units>(units: &U, table: &U::Table, at: u64, part: &mut [u8]) -> Result<()> {
    let unit_bytes = units.unit_bytes();
    let Some(unpackers) = units
        .unpackers()
        .filter(|_| rem(at, unit_bytes) == 0 && rem(len64(part), unit_bytes) == 0)
    else {
        let (mut at, mut rest) = (at, part);
        while !rest.is_empty() {
            let left = unit_bytes.saturating_sub(rem(at, unit_bytes));
            let take = index(left).clamp(1, rest.len());
            let (now, later) = rest.split_at_mut_checked(take).unwrap_or_default();
            copy_unpacked(units, table, at, now)?;
            at = at.saturating_add(len64(now));
            rest = later;
        }
        return Ok(());
    };
    let mut unit = div(at, unit_bytes);
    let mut rest = part;
    while !rest.is_empty() {
        let most = div(len64(rest), unit_bytes);
        let span = span_at(units, table, unit, most)?;
        let bytes = span.units.saturating_mul(unit_bytes);
        let (now, later) = rest
            .split_at_mut_checked(index(bytes))
            .filter(|_| bytes > 0)
            .ok_or_else(|| Error::corrupt(format_args!("no bytes known of unit {unit}")))?;
        unpackers.with(|unpacker| {
            let length = index(span.end.saturating_sub(span.start));
            let (packed, mut engine) =
                unpacker.load(length, |buffer| units.source().read_at(span.start, buffer))?;
            let mut number = unit;
            for out in now.chunks_mut(index(unit_bytes)) {
                let (place, _) = units.packed_at(table, number)?;
                let packed = packed
                    .get(index(place.saturating_sub(span.start))..)
                    .unwrap_or_default();
                if !units.unpack(number, packed, &mut engine, out) {
                    copy_unpacked(units, table, number.saturating_mul(unit_bytes), out)?;
                }
                number = number.saturating_add(1);
            }
            Ok(())
        })?;
        unit = unit.saturating_add(span.units);
        rest = later;
    }
    Ok(())
}

/// Compressed units that follow each other in the file as on the disk, and the range of the file that holds them.
struct Span {
    start: u64,
    end: u64,
    units: u64,
}

fn span_at<U: Units>(units: &U, table: &U::Table, first: u64, most: u64) -> Result<Span> {
    let (start, length) = units.packed_at(table, first)?;
    let mut span = Span {
        start,
        end: start.saturating_add(length),
        units: 1,
    };
    let mut last = start;
    while span.units < most {
        let next = first.saturating_add(span.units);
        let Ok((place, length)) = units.packed_at(table, next) else {
            break;
        };
        // A unit that stands elsewhere begins another read.
        if place <= last || place > span.end || place.saturating_sub(start) > PACKED_READ {
            break;
        }
        last = place;
        span.end = span.end.max(place.saturating_add(length));
        span.units = span.units.saturating_add(1);
    }
    span.end = span.end.min(units.source().len());
    Ok(span)
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

/// [`ReadAt::below`] over tables.
pub(crate) fn below<U: Units>(units: &U, offset: u64) -> Option<Below<'_>> {
    let run = run_at(units, offset, u64::MAX).ok()?;
    match run.store {
        Store::At(host) => Some(Below {
            source: units.source(),
            offset: host,
            length: run.length,
        }),
        _ => None,
    }
}
