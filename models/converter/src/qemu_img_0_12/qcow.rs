//! The readers of qcow version 1 and of qcow2 version 2.
//!
//! ```text
//! both  "QFI\xfb", 0x04 version, 0x08 backing name offset, 0x10 its size
//! v1    0x14 mtime, 0x18 size, 0x20 cluster bits, 0x21 L2 bits, 0x24 encryption, 0x28 L1 table
//! v2    0x14 cluster bits, 0x18 size, 0x20 encryption, 0x24 L1 entries, 0x28 L1 table, 0x3c snapshots
//! entry v1: bit 63 compressed, then size in (63 - cluster bits .. 62); v2: bit 62 compressed, sectors in the bits above
//! ```
//!
//! Every other version than 2 is refused by the second with a message of its own (quirk GQ116).

use super::disk::{Disk, Map, Padded, Place, Run};
use crate::math::{SECTOR, div, div_up, index, rem};
use drylab_block::{Error, Result, be_u32, be_u64};

/// Bits of an entry that are an offset: bit 63 says that nobody else refers to it.
const OFFSET: u64 = !(1 << 63);

struct Clusters {
    l1: Vec<u8>,
    cluster_bits: u32,
    l2_bits: u32,
    version: u32,
    absent: Place,
}

impl Clusters {
    fn cluster(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits).unwrap_or(0)
    }

    fn entry(&self, entry: u64, within: u64) -> Place {
        let compressed = if self.version == 1 { 1 << 63 } else { 1 << 62 };
        if entry & compressed != 0 {
            return self.packed(entry, within);
        }
        match entry & OFFSET {
            0 => self.absent,
            offset => Place::At(offset.saturating_add(within)),
        }
    }

    fn packed(&self, entry: u64, skip: u64) -> Place {
        let size_bits = if self.version == 1 {
            self.cluster_bits
        } else {
            self.cluster_bits.saturating_sub(8)
        };
        let top = if self.version == 1 { 63u32 } else { 62 };
        let shift = top.saturating_sub(size_bits);
        let mask = 1u64.checked_shl(shift).unwrap_or(0).saturating_sub(1);
        let offset = entry & mask;
        let size = entry.checked_shr(shift).unwrap_or(0)
            & 1u64.checked_shl(size_bits).unwrap_or(0).saturating_sub(1);
        let length = if self.version == 1 {
            size
        } else {
            size.saturating_add(1)
                .saturating_mul(SECTOR)
                .saturating_sub(rem(offset, SECTOR))
        };
        Place::Packed {
            offset,
            length,
            skip,
            cluster: self.cluster(),
        }
    }
}

impl Map for Clusters {
    fn run(&self, file: &Padded, offset: u64) -> Result<Run> {
        let cluster = self.cluster();
        let entries = 1u64.checked_shl(self.l2_bits).unwrap_or(0);
        let span = cluster.saturating_mul(entries);
        let at = index(div(offset, span).saturating_mul(8));
        let Some(table) = be_u64(&self.l1, at).map(|entry| entry & OFFSET) else {
            return Ok(Run::rest(self.absent));
        };
        if table == 0 {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: self.absent,
            });
        }
        let entry = rem(div(offset, cluster), entries);
        let Some(bytes8) = file.entry(table, entry, entries)? else {
            return Ok(Run {
                length: span.saturating_sub(rem(offset, span)),
                place: self.absent,
            });
        };
        let within = rem(offset, cluster);
        Ok(Run {
            length: cluster.saturating_sub(within),
            place: self.entry(u64::from_be_bytes(bytes8), within),
        })
    }
}

/// What a header says beside the disk itself.
pub(crate) struct Opened {
    pub(crate) disk: Disk,
    pub(crate) cluster: u64,
    pub(crate) backing: Option<String>,
    pub(crate) snapshots: u32,
}

/// Why a file is not opened.
pub(crate) enum Refused {
    /// qcow2 of another version than 2.
    Version(u32),
    /// Anything else.
    Damaged(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Damaged(error)
    }
}

/// Opens qcow version 1.
pub(crate) fn open_v1(file: Padded) -> Result<Opened> {
    let head: [u8; 48] = file.head()?;
    let size = be_u64(&head, 0x18).unwrap_or(0);
    let [cluster_bits, l2_bits] =
        [0x20, 0x21].map(|at: usize| head.get(at).map_or(0, |b| u32::from(*b)));
    let crypt = be_u32(&head, 0x24).unwrap_or(0);
    let good = be_u32(&head, 4) == Some(1)
        && size > 1
        && (9..=16).contains(&cluster_bits)
        && (6..=13).contains(&l2_bits)
        && crypt == 0;
    if !good {
        return Err(Error::unsupported(format_args!(
            "qcow of {size} bytes with clusters of 2^{cluster_bits} bytes, encryption {crypt}"
        )));
    }
    build(
        file,
        &head,
        Shape {
            version: 1,
            size,
            cluster_bits,
            l2_bits,
            l1_entries: None,
        },
    )
}

/// Opens qcow2.
pub(crate) fn open_v2(file: Padded) -> Result<Opened, Refused> {
    let head: [u8; 72] = file.head()?;
    match be_u32(&head, 4) {
        Some(2) => {}
        other => return Err(Refused::Version(other.unwrap_or(0))),
    }
    let word = |at| be_u32(&head, at).unwrap_or(0);
    let (cluster_bits, crypt) = (word(0x14), word(0x20));
    if !(9..=21).contains(&cluster_bits) || crypt != 0 {
        return Err(Refused::Damaged(Error::unsupported(format_args!(
            "qcow2 with clusters of 2^{cluster_bits} bytes, encryption {crypt}"
        ))));
    }
    let size = be_u64(&head, 0x18).unwrap_or(0);
    let shape = Shape {
        version: 2,
        size,
        cluster_bits,
        l2_bits: cluster_bits.saturating_sub(3),
        l1_entries: Some(u64::from(word(0x24))),
    };
    let mut opened = build(file, &head, shape)?;
    opened.snapshots = word(0x3c);
    Ok(opened)
}

struct Shape {
    version: u32,
    size: u64,
    cluster_bits: u32,
    l2_bits: u32,
    l1_entries: Option<u64>,
}

fn build(file: Padded, head: &[u8], shape: Shape) -> Result<Opened> {
    let cluster = 1u64.checked_shl(shape.cluster_bits).unwrap_or(0);
    let span_bits = shape.cluster_bits.saturating_add(shape.l2_bits);
    let span = 1u64.checked_shl(span_bits).unwrap_or(0);
    let needed = div_up(shape.size, span);
    let entries = shape.l1_entries.unwrap_or(needed);
    if entries < needed {
        return Err(Error::corrupt(format_args!(
            "L1 table of {entries} entries for a disk that needs {needed}"
        )));
    }
    let at = be_u64(head, 0x28).unwrap_or(0);
    let l1 = file.table("qcow L1 table", at, entries.saturating_mul(8))?;
    let (name_at, name_size) = (
        be_u64(head, 8).unwrap_or(0),
        be_u32(head, 0x10).unwrap_or(0),
    );
    let backing = if name_at == 0 {
        None
    } else {
        let name = file.table("backing file name", name_at, u64::from(name_size.min(1023)))?;
        Some(String::from_utf8_lossy(&name).into_owned())
    };
    let map = Clusters {
        l1,
        cluster_bits: shape.cluster_bits,
        l2_bits: shape.l2_bits,
        version: shape.version,
        absent: if backing.is_some() {
            Place::Backing
        } else {
            Place::Zeros
        },
    };
    let disk = Disk {
        file,
        sectors: div(shape.size, SECTOR),
        map: Box::new(map),
        backing: None,
    };
    Ok(Opened {
        disk,
        cluster,
        backing,
        snapshots: 0,
    })
}
