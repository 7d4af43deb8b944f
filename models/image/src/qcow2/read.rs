//! Reading the active state.

use super::header::Header;
use crate::codec::{Engine, Unpackers, unpack};
use crate::container::Container;
use crate::finding::Findings;
use crate::map::{self, Store, Units};
use crate::math::{div, div_up, index, len64, rem};
use crate::recent::Recent;
use drylab_block::{Below, Error, Extent, Limits, ReadAt, Result, read_vec};
use std::ops::Range;
use std::sync::Arc;

/// Bits 9 to 55 of an entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros.
const ZERO: u64 = 1;
/// Largest L1 table that QEMU opens, in bytes.
const L1_MAX: u64 = 32 << 20;

/// An open qcow2 image.
pub(crate) struct Qcow2 {
    source: Arc<dyn ReadAt>,
    header: Header,
    l1: Vec<u64>,
    /// Bytes of the file that hold no guest data: L1 table and refcount table.
    metadata: [Range<u64>; 2],
    tables: Recent<[u64]>,
    clusters: Recent<[u8]>,
    unpackers: Unpackers,
    findings: Findings,
}

impl Qcow2 {
    /// Reads header, extensions and L1 table; L2 tables and clusters are read when asked for.
    pub(crate) fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let mut findings = Findings::default();
        let header = Header::read(&*source, limits, &mut findings)?;
        let needed = div_up(
            header.size,
            header.cluster_bytes().saturating_mul(header.per_table()),
        );
        let listed = u64::from(header.l1_size);
        if listed < needed || listed.saturating_mul(8) > L1_MAX {
            return Err(Error::corrupt(format_args!(
                "qcow2 L1 table has {listed} entries; {needed} are needed and {} allowed",
                L1_MAX / 8
            )));
        }
        let l1 = match needed {
            0 => Vec::new(),
            _ => read_vec(
                &*source,
                "qcow2 L1 table",
                header.l1_offset,
                needed.saturating_mul(8),
                limits,
            )?,
        };
        let range = |start: u64, length: u64| start..start.saturating_add(length);
        let refcounts = u64::from(header.refcount_clusters).saturating_mul(header.cluster_bytes());
        Ok(Self {
            metadata: [
                range(header.l1_offset, len64(&l1)),
                range(header.refcount_offset, refcounts),
            ],
            l1: words(&l1),
            source,
            header,
            tables: Recent::new(8),
            clusters: Recent::new(4),
            unpackers: Unpackers::default(),
            findings,
        })
    }

    /// Checks that `needed` bytes of a cluster can be at `offset`.
    fn check_place(&self, what: &dyn std::fmt::Display, offset: u64, needed: u64) -> Result<u64> {
        let end = offset.saturating_add(needed);
        if rem(offset, self.unit_bytes()) != 0 {
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, no multiple of a cluster"
            )));
        }
        if end > self.source.len() {
            let length = self.source.len();
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, past the end ({length:#x})"
            )));
        }
        if self
            .metadata
            .iter()
            .any(|range| offset < range.end && range.start < end)
        {
            return Err(Error::corrupt(format_args!(
                "{what} points to {offset:#x}, inside the image's own tables"
            )));
        }
        Ok(offset)
    }

    /// Offset and number of the bytes that hold a compressed cluster.
    fn packed_place(&self, unit: u64, entry: u64) -> Result<(u64, u64)> {
        let bits = 70u32.saturating_sub(self.header.cluster_bits);
        let offset_mask = 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
        let sectors = (entry & (COMPRESSED.wrapping_sub(1)))
            .checked_shr(bits)
            .unwrap_or(0);
        let offset = entry & offset_mask;
        let length = sectors
            .saturating_add(1)
            .saturating_mul(512)
            .saturating_sub(offset % 512);
        let left = self
            .source
            .len()
            .checked_sub(offset)
            .filter(|left| *left > 0)
            .ok_or_else(|| {
                let end = self.source.len();
                Error::corrupt(format_args!(
                    "compressed cluster {unit} is at {offset:#x}, past the end ({end:#x})"
                ))
            })?;
        // The last sector of a file may be cut after the last compressed byte.
        Ok((offset, length.min(left)))
    }

    fn unpack_cluster(&self, unit: u64, entry: u64) -> Result<Arc<[u8]>> {
        let (offset, length) = self.packed_place(unit, entry)?;
        let within = |error: Error| {
            error.within(format_args!(
                "compressed cluster {unit} at offset {offset:#x}"
            ))
        };
        let packed =
            read_vec(&*self.source, "data", offset, length, &Limits::DEFAULT).map_err(within)?;
        let bytes =
            unpack(&packed, self.header.framing(), index(self.unit_bytes())).map_err(within)?;
        if len64(&bytes) != self.unit_bytes() {
            let message = format_args!("unpacks to {} bytes of {}", bytes.len(), self.unit_bytes());
            return Err(within(Error::corrupt(message)));
        }
        Ok(bytes.into())
    }

    fn entry(&self, table: &[u64], unit: u64) -> u64 {
        table
            .get(index(rem(unit, self.units_per_table())))
            .copied()
            .unwrap_or(0)
    }
}

impl Units for Qcow2 {
    type Table = [u64];

    fn size(&self) -> u64 {
        self.header.size
    }

    fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    fn unit_bytes(&self) -> u64 {
        self.header.cluster_bytes()
    }

    fn units_per_table(&self) -> u64 {
        self.header.per_table()
    }

    fn next_table(&self, table: u64) -> u64 {
        let later = self.l1.get(index(table)..).unwrap_or_default();
        let skip = later
            .iter()
            .position(|entry| entry & OFFSET != 0)
            .unwrap_or(later.len());
        table.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX))
    }

    fn table(&self, table: u64) -> Result<Option<Arc<[u64]>>> {
        let offset = self.l1.get(index(table)).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        self.tables
            .get(table, || {
                let what = format!("L1 entry {table}");
                let place = self.check_place(&what, offset, self.unit_bytes())?;
                let bytes = read_vec(
                    &*self.source,
                    "qcow2 L2 table",
                    place,
                    self.unit_bytes(),
                    &Limits::DEFAULT,
                )?;
                Ok(words(&bytes).into())
            })
            .map(Some)
    }

    fn store(&self, table: &[u64], unit: u64) -> Result<Store> {
        let entry = self.entry(table, unit);
        let offset = entry & OFFSET;
        if entry & COMPRESSED != 0 {
            return self.packed_place(unit, entry).map(|_| Store::Packed);
        }
        if entry & ZERO != 0 {
            if self.header.version < 3 {
                return Err(Error::corrupt(format_args!(
                    "L2 entry of cluster {unit} has the zero bit in version 2"
                )));
            }
            return Ok(Store::Zero);
        }
        if offset == 0 {
            return Ok(Store::Hole);
        }
        let what = Entry {
            unit,
            table: div(unit, self.units_per_table()),
        };
        self.check_place(&what, offset, self.bytes_needed(unit))
            .map(Store::At)
    }

    fn unpackers(&self) -> Option<&Unpackers> {
        Some(&self.unpackers)
    }

    fn packed_at(&self, table: &[u64], unit: u64) -> Result<(u64, u64)> {
        self.packed_place(unit, self.entry(table, unit))
    }

    fn unpack(&self, _: u64, packed: &[u8], engine: &mut Engine<'_>, out: &mut [u8]) -> bool {
        engine.unpack(packed, self.header.framing(), out) == Ok(out.len())
    }

    fn unpacked(&self, table: &[u64], unit: u64) -> Result<Arc<[u8]>> {
        self.clusters
            .get(unit, || self.unpack_cluster(unit, self.entry(table, unit)))
    }
}

/// An L2 entry's name in a message, made only when there is one.
struct Entry {
    unit: u64,
    table: u64,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "L2 entry of cluster {} (L2 table {})",
            self.unit, self.table
        )
    }
}

impl Container for Qcow2 {
    fn subformat(&self) -> String {
        format!("v{}", self.header.version)
    }

    fn details(&self) -> Vec<(String, String)> {
        self.header.details()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }
}

impl ReadAt for Qcow2 {
    fn len(&self) -> u64 {
        self.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        map::read(self, offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        map::extent(self, offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        map::below(self, offset)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_be_bytes(*word)).collect()
}
