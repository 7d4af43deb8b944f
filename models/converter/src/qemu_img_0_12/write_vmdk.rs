//! The writer of VMDK: monolithicSparse, IDE, hardware version 4 (quirk GQ117).
//!
//! ```text
//! sector 0 header | 1..21 descriptor | 21 redundant directory and tables | directory and tables | grains from a multiple of 128
//! ```

use super::runs::for_each_run;
use crate::math::{SECTOR, bytes, div, div_up, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result, SparseBytes, WriteAt, content_id};
use std::collections::BTreeMap;

const GRAIN: u64 = 128;
const ENTRIES: u64 = 512;
const DESCRIPTOR: u64 = 20;
/// Newline bytes that show damage by text-mode transfers, then compression 0.
const CHECK: [u8; 4] = [0x0a, 0x20, 0x0d, 0x0a];

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

    fn header(&self) -> Vec<u8> {
        let mut header = b"KDMV".to_vec();
        for word in [1u32, 3] {
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
        header.resize(index(SECTOR), 0);
        header
    }

    fn table_at(&self, directory_at: u64, table: u64) -> u64 {
        directory_at
            .saturating_add(self.directory)
            .saturating_add(table.saturating_mul(4))
    }
}

fn descriptor(capacity: u64, cid: u32, name: &str) -> String {
    let cylinders = div(capacity, 63 * 16);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:x}\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"{name}\"\n\n\
         # The Disk Data Base \n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"16\"\n\
         ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n"
    )
}

fn entry(sector: u64) -> Result<[u8; 4]> {
    let sector = u32::try_from(sector)
        .map_err(|_| Error::unsupported(format_args!("VMDK reaches sector {sector}, past 2^32")))?;
    Ok(sector.to_le_bytes())
}

/// Writes a disk; `name` is what the descriptor calls its extent.
pub(crate) fn write(disk: &dyn ReadAt, name: &str, sink: &SparseBytes) -> Result<()> {
    let layout = Layout::of(div(disk.len(), SECTOR));
    // The tool takes the time; ours is made of the content, so that equal disks give equal files.
    let [a, b, c, d, ..] = content_id(disk)?.0.to_le_bytes();
    let cid = u32::from_le_bytes([a, b, c, d]).min(0xffff_fffd);
    sink.set_len(bytes(layout.overhead))?;
    sink.write_at(0, &layout.header())?;
    sink.write_at(SECTOR, descriptor(layout.capacity, cid, name).as_bytes())?;
    for at in [layout.redundant_at, layout.directory_at] {
        let mut directory = Vec::new();
        for table in 0..layout.tables {
            directory.extend(entry(layout.table_at(at, table))?);
        }
        sink.write_at(bytes(at), &directory)?;
    }
    let mut grains: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = layout.overhead;
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
    sink.set_len(bytes(next))
}
