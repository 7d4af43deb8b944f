//! A file as the old block layer reads it, and a disk behind a table.
//!
//! ```text
//! guest offset --Map--> zeros | place in the file | place in the backing file | compressed cluster
//! ```
//!
//! What is read past the end of a file is zeros, never an error (oracle rows `vmdk-ms-trunc`, `qcow2-trunc`); an offset of
//! 2^63 or more is refused (row `vmdk-so-gdend-1m`).

use crate::math::{SECTOR, bytes, div, index, len64};
use drylab_block::{Error, Extent, ExtentKind, Limits, ReadAt, Result};
use flate2::{Decompress, FlushDecompress, Status};
use std::sync::Arc;

/// Runs looked at before an answer about holes is given.
const RUNS_MAX: u32 = 1 << 16;

/// A file whose end is followed by zeros.
#[derive(Clone)]
pub(crate) struct Padded(pub(crate) Arc<dyn ReadAt>);

impl Padded {
    /// Fills `buffer`, with zeros where the file has ended.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Error::corrupt(format_args!(
                "offset {offset} is past 2^63, where no file reaches"
            )));
        }
        let there = index(self.0.len().saturating_sub(offset)).min(buffer.len());
        let (found, missing) = buffer.split_at_mut(there);
        if !found.is_empty() {
            self.0.read_at(offset, found)?;
        }
        missing.fill(0);
        Ok(())
    }

    /// The first bytes.
    pub(crate) fn head<const N: usize>(&self) -> Result<[u8; N]> {
        let mut head = [0; N];
        self.read(0, &mut head)?;
        Ok(head)
    }

    /// One entry of a table of `entries`; `None` behind the end of the file, where it and all further ones are zeros.
    pub(crate) fn entry<const N: usize>(
        &self,
        table: u64,
        number: u64,
        entries: u64,
    ) -> Result<Option<[u8; N]>> {
        let size = u64::try_from(N).unwrap_or(u64::MAX);
        let at = table.saturating_add(number.saturating_mul(size));
        let end = table.saturating_add(entries.saturating_mul(size));
        // Further entries past 2^63 would be an error: those are read one by one.
        if at >= self.0.len() && i64::try_from(end).is_ok() {
            return Ok(None);
        }
        let mut entry = [0; N];
        self.read(at, &mut entry)?;
        Ok(Some(entry))
    }

    /// A table, bounded.
    pub(crate) fn table(&self, place: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        Limits::DEFAULT.check_table(place, length)?;
        let mut table = vec![0; index(length)];
        self.read(offset, &mut table)?;
        Ok(table)
    }

    /// Whether nothing but zeros stands there, and for how long the answer holds.
    fn hole(&self, offset: u64, length: u64) -> (bool, u64) {
        if offset >= self.0.len() {
            return (true, length);
        }
        let extent = self.0.extent_at(offset);
        let hole = matches!(extent.kind, ExtentKind::Hole | ExtentKind::Zero);
        (hole, extent.length.min(length).max(1))
    }
}

/// Where the bytes of a run stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere.
    Zeros,
    /// At this offset of the file.
    At(u64),
    /// At the same offset of the backing file.
    Backing,
    /// In a raw deflate stream of a cluster; the run starts `skip` bytes into it.
    Packed {
        /// Offset of the stream in the file.
        offset: u64,
        /// Longest the stream can be.
        length: u64,
        /// Bytes of the cluster before the run.
        skip: u64,
        /// Bytes of the cluster.
        cluster: u64,
    },
}

/// A stretch of the disk that stands in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bytes, at least 1.
    pub(crate) length: u64,
    /// Where.
    pub(crate) place: Place,
}

impl Run {
    /// Behind the last entry of a table: zeros up to the end of the disk, however long a header says that it is. One
    /// run, since a disk of terabytes may be claimed by a file of kilobytes.
    pub(crate) const REST: Self = Self::rest(Place::Zeros);

    /// The same for formats in which what is nowhere may stand in a backing file.
    pub(crate) const fn rest(place: Place) -> Self {
        Self {
            length: u64::MAX,
            place,
        }
    }
}

/// Tells where a guest offset stands.
pub(crate) trait Map: Send + Sync {
    /// The run that starts at `offset`.
    fn run(&self, file: &Padded, offset: u64) -> Result<Run>;
}

/// A disk behind a map.
pub(crate) struct Disk {
    pub(crate) file: Padded,
    pub(crate) sectors: u64,
    pub(crate) map: Box<dyn Map>,
    pub(crate) backing: Option<Arc<dyn ReadAt>>,
}

impl Disk {
    fn step(&self, offset: u64, most: u64) -> Result<Run> {
        let mut run = self.map.run(&self.file, offset)?;
        run.length = run.length.min(most);
        if run.length == 0 {
            return Err(Error::corrupt(format_args!(
                "no run of bytes at guest offset {offset}"
            )));
        }
        Ok(run)
    }

    fn fill(&self, offset: u64, place: Place, buffer: &mut [u8]) -> Result<()> {
        match place {
            Place::Zeros => buffer.fill(0),
            Place::At(at) => self.file.read(at, buffer)?,
            Place::Backing => match &self.backing {
                Some(backing) => Padded(backing.clone()).read(offset, buffer)?,
                None => buffer.fill(0),
            },
            Place::Packed {
                offset: at,
                length,
                skip,
                cluster,
            } => {
                let packed = self.file.table("compressed cluster", at, length)?;
                let unpacked = inflate(&packed, index(cluster), at)?;
                let from = index(skip);
                let part = drylab_block::slice_at(&unpacked, from, buffer.len());
                let part = part.ok_or_else(|| Error::corrupt("compressed cluster is too short"))?;
                buffer.copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn kind(&self, offset: u64, run: Run) -> (ExtentKind, u64) {
        let (hole, length) = match run.place {
            Place::Zeros => (true, run.length),
            Place::At(at) => self.file.hole(at, run.length),
            Place::Backing => match &self.backing {
                Some(backing) => Padded(backing.clone()).hole(offset, run.length),
                None => (true, run.length),
            },
            Place::Packed { .. } => (false, run.length),
        };
        (
            if hole {
                ExtentKind::Hole
            } else {
                ExtentKind::Data
            },
            length,
        )
    }
}

/// Unpacks a raw deflate stream of one cluster.
fn inflate(packed: &[u8], cluster: usize, at: u64) -> Result<Vec<u8>> {
    let mut unpacked = vec![0; cluster];
    let mut stream = Decompress::new(false);
    let status = stream.decompress(packed, &mut unpacked, FlushDecompress::Finish);
    let full = stream.total_out() == len64(&unpacked);
    match status {
        Ok(Status::StreamEnd | Status::Ok | Status::BufError) if full => Ok(unpacked),
        _ => Err(Error::corrupt(format_args!(
            "compressed cluster at offset {at} does not unpack to {cluster} bytes"
        ))),
    }
}

impl ReadAt for Disk {
    fn len(&self) -> u64 {
        bytes(self.sectors)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        if end.is_none_or(|end| end > self.len()) {
            return Err(Error::io(format_args!(
                "read of {} bytes at offset {offset} ends past the end ({})",
                buffer.len(),
                self.len()
            )));
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let run = self.step(at, len64(rest))?;
            let (now, later) = rest.split_at_mut(index(run.length));
            self.fill(at, run.place, now)?;
            at = at.saturating_add(run.length);
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let left = self.len().saturating_sub(offset);
        let mut found: Option<ExtentKind> = None;
        let mut length = 0u64;
        for _ in 0..RUNS_MAX {
            let at = offset.saturating_add(length);
            let Ok(run) = self.step(at, left.saturating_sub(length)) else {
                break;
            };
            let (kind, taken) = self.kind(at, run);
            if found.is_some_and(|found| found != kind) {
                break;
            }
            found = Some(kind);
            length = length.saturating_add(taken);
            if length >= left {
                break;
            }
        }
        Extent {
            offset,
            length: if length == 0 { left } else { length.min(left) },
            kind: found.unwrap_or(ExtentKind::Data),
        }
    }
}

/// The whole sectors of a file: what the tool takes for a raw disk.
pub(crate) struct Sectors(pub(crate) Arc<dyn ReadAt>);

impl ReadAt for Sectors {
    fn len(&self) -> u64 {
        bytes(div(self.0.len(), SECTOR))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let mut extent = self.0.extent_at(offset);
        extent.length = extent.length.min(self.len().saturating_sub(offset));
        extent
    }
}
