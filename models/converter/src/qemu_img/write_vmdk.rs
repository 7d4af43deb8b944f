//! The writer of VMDK: one sparse file, IDE, hardware version 4 (quirks GQ117, DQ517).
//!
//! ```text
//! sector 0 header | 1..21 descriptor | 21 redundant directory and tables | directory and tables | grains from a multiple of 128
//! ```
//!
//! What later versions call streamOptimized has the same layout, its grains packed behind a head of sector and length.
//! It is no stream: there is no marker but those of grains, no footer and no end (quirk DQ518). The file ends 128
//! sectors after the start of its last grain, in zeros.

use super::runs::for_each_run;
use crate::math::{SECTOR, bytes, div, div_up, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result, SparseBytes, WriteAt, content_id};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

const GRAIN: u64 = 128;
const ENTRIES: u64 = 512;
const DESCRIPTOR: u64 = 20;
/// Newline bytes that show damage by text-mode transfers, then compression 0.
const CHECK: [u8; 4] = [0x0a, 0x20, 0x0d, 0x0a];

/// Which file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// monolithicSparse of version 0.12.
    Early,
    /// monolithicSparse of later versions, which name a version of VMware Tools.
    Sparse,
    /// streamOptimized of later versions.
    Stream,
}

impl Style {
    fn create_type(self) -> &'static str {
        match self {
            Self::Early | Self::Sparse => "monolithicSparse",
            Self::Stream => "streamOptimized",
        }
    }

    /// The heading of the last part of the descriptor.
    fn heading(self) -> &'static str {
        match self {
            Self::Early => "# The Disk Data Base ",
            Self::Sparse | Self::Stream => "# The Disk Data Base",
        }
    }

    /// Lines behind the others of the descriptor.
    fn last_lines(self) -> &'static str {
        match self {
            Self::Early => "",
            Self::Sparse | Self::Stream => "ddb.toolsVersion = \"2147483647\"\n",
        }
    }
}

struct Layout {
    capacity: u64,
    tables: u64,
    directory: u64,
    redundant_at: u64,
    directory_at: u64,
    overhead: u64,
}

impl Layout {
    fn of(capacity: u64) -> Self {
        let tables = div_up(div_up(capacity, GRAIN), ENTRIES);
        let table_sectors = div(ENTRIES * 4, SECTOR);
        let directory = div_up(tables.saturating_mul(4), SECTOR);
        let half = directory.saturating_add(tables.saturating_mul(table_sectors));
        let redundant_at = DESCRIPTOR + 1;
        let directory_at = half.saturating_add(redundant_at);
        Self {
            capacity,
            tables,
            directory,
            redundant_at,
            directory_at,
            overhead: round_up(directory_at.saturating_add(half), GRAIN),
        }
    }

    fn header(&self, style: Style) -> Vec<u8> {
        let mut header = b"KDMV".to_vec();
        // Compressed grains, with markers.
        let (version, flags) = match style {
            Style::Early | Style::Sparse => (1u32, 3u32),
            Style::Stream => (3, 0x3_0003),
        };
        for word in [version, flags] {
            header.extend(word.to_le_bytes());
        }
        for long in [self.capacity, GRAIN, 1, DESCRIPTOR] {
            header.extend(long.to_le_bytes());
        }
        header.extend(512u32.to_le_bytes());
        for long in [self.redundant_at, self.directory_at, self.overhead] {
            header.extend(long.to_le_bytes());
        }
        header.push(0);
        header.extend(CHECK);
        header.extend(u16::from(style == Style::Stream).to_le_bytes());
        header.resize(index(SECTOR), 0);
        header
    }

    fn table_at(&self, directory_at: u64, table: u64) -> u64 {
        directory_at
            .saturating_add(self.directory)
            .saturating_add(table.saturating_mul(4))
    }
}

fn descriptor(capacity: u64, cid: u32, name: &str, style: Style) -> String {
    let (kind, heading, last) = (style.create_type(), style.heading(), style.last_lines());
    let cylinders = div(capacity, 63 * 16);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:x}\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"{name}\"\n\n\
         {heading}\n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"16\"\n\
         ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n{last}"
    )
}

fn entry(sector: u64) -> Result<[u8; 4]> {
    let sector = u32::try_from(sector)
        .map_err(|_| Error::unsupported(format_args!("VMDK reaches sector {sector}, past 2^32")))?;
    Ok(sector.to_le_bytes())
}

/// Writes a disk; `name` is what the descriptor calls its extent.
pub(crate) fn write(disk: &dyn ReadAt, name: &str, style: Style, sink: &SparseBytes) -> Result<()> {
    let layout = Layout::of(div(disk.len(), SECTOR));
    // The tool takes the time; ours is made of the content, so that equal disks give equal files.
    let [a, b, c, d, ..] = content_id(disk)?.0.to_le_bytes();
    let cid = u32::from_le_bytes([a, b, c, d]).min(0xffff_fffd);
    sink.set_len(bytes(layout.overhead))?;
    sink.write_at(0, &layout.header(style))?;
    sink.write_at(
        SECTOR,
        descriptor(layout.capacity, cid, name, style).as_bytes(),
    )?;
    for at in [layout.redundant_at, layout.directory_at] {
        let mut directory = Vec::new();
        for table in 0..layout.tables {
            directory.extend(entry(layout.table_at(at, table))?);
        }
        sink.write_at(bytes(at), &directory)?;
    }
    let (grains, end) = match style {
        Style::Early | Style::Sparse => plain(disk, layout.overhead, sink)?,
        Style::Stream => packed(disk, layout.overhead, sink)?,
    };
    for (grain, place) in &grains {
        let (table, slot) = (div(*grain, ENTRIES), rem(*grain, ENTRIES));
        for at in [layout.redundant_at, layout.directory_at] {
            let table = bytes(layout.table_at(at, table));
            sink.write_at(
                table.saturating_add(slot.saturating_mul(4)),
                &entry(*place)?,
            )?;
        }
    }
    sink.set_len(bytes(end))
}

/// Sector of each grain that was written, and the sector at which the file ends.
type Written = (BTreeMap<u64, u64>, u64);

/// Grains as they are.
fn plain(disk: &dyn ReadAt, first: u64, sink: &SparseBytes) -> Result<Written> {
    let mut grains: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = first;
    for_each_run(disk, &mut |sector, run| {
        let end = sector.saturating_add(div(len64(run), SECTOR));
        let mut at = sector;
        while at < end {
            let grain = div(at, GRAIN);
            let taken = end
                .min(grain.saturating_add(1).saturating_mul(GRAIN))
                .saturating_sub(at);
            let place = *grains.entry(grain).or_insert_with(|| {
                let place = next;
                next = next.saturating_add(GRAIN);
                place
            });
            let from = index(bytes(at.saturating_sub(sector)));
            let part = drylab_block::slice_at(run, from, index(bytes(taken))).unwrap_or_default();
            sink.write_at(bytes(place.saturating_add(rem(at, GRAIN))), part)?;
            at = at.saturating_add(taken);
        }
        Ok(true)
    })?;
    Ok((grains, next))
}

/// Grains behind heads of sector and length, packed.
fn packed(disk: &dyn ReadAt, first: u64, sink: &SparseBytes) -> Result<Written> {
    let mut found: BTreeSet<u64> = BTreeSet::new();
    for_each_run(disk, &mut |sector, run| {
        let end = sector.saturating_add(div(len64(run), SECTOR));
        found.extend(div(sector, GRAIN)..div_up(end, GRAIN));
        Ok(true)
    })?;
    let mut grains = BTreeMap::new();
    let (mut next, mut end) = (first, first);
    let mut grain_bytes = vec![0u8; index(bytes(GRAIN))];
    for grain in found {
        let from = bytes(grain.saturating_mul(GRAIN));
        let there = index(disk.len().saturating_sub(from)).min(grain_bytes.len());
        let (data, rest) = grain_bytes.split_at_mut(there);
        disk.read_at(from, data)?;
        rest.fill(0);
        let mut packer =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let done = packer
            .write_all(&grain_bytes)
            .and_then(|()| packer.finish());
        let done = done.map_err(|error| Error::io(format_args!("cannot compress: {error}")))?;
        let mut unit = grain.saturating_mul(GRAIN).to_le_bytes().to_vec();
        unit.extend(u32::try_from(done.len()).unwrap_or(u32::MAX).to_le_bytes());
        unit.extend(done);
        sink.write_at(bytes(next), &unit)?;
        grains.insert(grain, next);
        let after = next.saturating_add(div_up(len64(&unit), SECTOR));
        end = after.max(next.saturating_add(GRAIN));
        next = after;
    }
    Ok((grains, end))
}
