//! Writing monolithicSparse: both directories and all tables in front, as VMware's hosted products do.

use super::header::{FLAG_REDUNDANT, FLAG_ZEROED_GRAINS, Header, Plan, SECTOR, capacity_of};
use super::{VmdkOptions, descriptor};
use crate::engine::{self, Work};
use crate::math::{div, div_up, index, rem, round_up};
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// Sectors kept for the descriptor: room for the keys that other programs add.
const DESCRIPTOR: u64 = 20;
/// Sectors of a grain table of 512 entries.
const TABLE: u64 = 4;
/// Largest disk whose directories we write: 64 TiB.
pub(super) const CAPACITY_MAX: u64 = 1 << 37;

/// The extent in the descriptor: the file itself.
pub(crate) const SOLE: descriptor::Sole = descriptor::Sole {
    create_type: "monolithicSparse",
    access: "RW",
    kind: "SPARSE",
    behind: "",
};

/// Where everything before the grains stands, in sectors.
pub(crate) struct Places {
    pub(crate) capacity: u64,
    pub(crate) tables: u64,
    rgd: u64,
    gd: u64,
    directory: u64,
    overhead: u64,
}

/// Refuses a disk larger than the directories can be.
pub(crate) fn check_capacity(bytes: u64) -> Result<u64> {
    let capacity = capacity_of(bytes);
    if capacity > CAPACITY_MAX {
        return Err(Error::unsupported(format_args!(
            "VMDK of {bytes} bytes, more than 64 TiB"
        )));
    }
    Ok(capacity)
}

/// A sector address as tables hold it.
pub(crate) fn address(sector: u64) -> Result<u32> {
    u32::try_from(sector).map_err(|_| {
        Error::unsupported(format_args!(
            "VMDK file reaches sector {sector}; its tables end at 2^32"
        ))
    })
}

impl Places {
    fn of(bytes: u64) -> Result<Self> {
        let capacity = check_capacity(bytes)?;
        let tables = div_up(
            capacity,
            Header::GRAIN.saturating_mul(u64::from(Header::TABLE_ENTRIES)),
        );
        let directory = div_up(tables.saturating_mul(4), SECTOR).max(1);
        let half = directory.saturating_add(tables.saturating_mul(TABLE));
        let rgd = DESCRIPTOR.saturating_add(1);
        let gd = rgd.saturating_add(half);
        let overhead = round_up(gd.saturating_add(half), Header::GRAIN);
        Ok(Self {
            capacity,
            tables,
            rgd,
            gd,
            directory,
            overhead,
        })
    }

    /// Sector of table `table` of the directory at `directory_sector`.
    fn table(&self, directory_sector: u64, table: u64) -> u64 {
        directory_sector
            .saturating_add(self.directory)
            .saturating_add(table.saturating_mul(TABLE))
    }

    /// A table without grains: of holes, or of grains that are zeros.
    fn blank(&self, number: u64, zeroed: bool) -> Vec<u8> {
        let mut table = Vec::new();
        if zeroed {
            let first = number.saturating_mul(u64::from(Header::TABLE_ENTRIES));
            let left = div_up(self.capacity, Header::GRAIN).saturating_sub(first);
            for _ in 0..left.min(u64::from(Header::TABLE_ENTRIES)) {
                table.extend_from_slice(&1u32.to_le_bytes());
            }
        }
        table.resize(index(TABLE.saturating_mul(SECTOR)), 0);
        table
    }

    fn directory_bytes(&self, directory_sector: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for table in 0..self.tables {
            bytes.extend_from_slice(&address(self.table(directory_sector, table))?.to_le_bytes());
        }
        Ok(bytes)
    }
}

/// A grain table being filled.
struct Table {
    number: u64,
    entries: Vec<u8>,
}

/// Writes `disk`; the result is the length of the file.
pub(crate) fn write_sparse(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let places = Places::of(disk.len())?;
    let (version, flags) = if options.zeroed_grains {
        (2, FLAG_REDUNDANT | FLAG_ZEROED_GRAINS)
    } else {
        (1, FLAG_REDUNDANT)
    };
    let header = Header::new(&Plan {
        version,
        flags,
        capacity: places.capacity,
        descriptor_size: DESCRIPTOR,
        rgd_offset: places.rgd,
        gd_offset: places.gd,
        overhead: places.overhead,
    });
    let mut next = places.overhead;
    let mut table: Option<Table> = None;
    if options.zeroed_grains {
        // Before the tables of grains with data, which take their places.
        for number in 0..places.tables {
            let entries = places.blank(number, true);
            flush(&places, Some(Table { number, entries }), sink)?;
        }
    }
    let unit = Header::GRAIN.saturating_mul(SECTOR);
    let named = options.is_unnamed();
    let digest = engine::copy(disk, sink, (unit, named), work, |grain| {
        let number = div(grain, u64::from(Header::TABLE_ENTRIES));
        if table.as_ref().is_none_or(|open| open.number != number) {
            flush(&places, table.take(), sink)?;
        }
        let open = table.get_or_insert_with(|| Table {
            number,
            entries: places.blank(number, options.zeroed_grains),
        });
        let at = index(rem(grain, u64::from(Header::TABLE_ENTRIES)).saturating_mul(4));
        if let Some(entry) = open.entries.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&address(next)?.to_le_bytes());
        }
        let place = next.saturating_mul(SECTOR);
        next = next.saturating_add(Header::GRAIN);
        Ok(place)
    })?;
    flush(&places, table, sink)?;
    let length = next.saturating_mul(SECTOR);
    sink.set_len(length)?;
    for directory in [places.rgd, places.gd] {
        sink.write_at(
            directory.saturating_mul(SECTOR),
            &places.directory_bytes(directory)?,
        )?;
    }
    // What makes the file one comes last, with the content id, which is known now.
    let cid = options.cid_of(digest);
    let text = descriptor::compose(&SOLE, places.capacity, cid, options)?;
    sink.write_at(SECTOR, text.as_bytes())?;
    sink.write_at(0, &header.to_bytes())?;
    Ok(length)
}

/// Writes a table to both its places; tables of holes stay zero.
fn flush(places: &Places, table: Option<Table>, sink: &dyn WriteAt) -> Result<()> {
    let Some(table) = table else { return Ok(()) };
    for directory in [places.rgd, places.gd] {
        sink.write_at(
            places.table(directory, table.number).saturating_mul(SECTOR),
            &table.entries,
        )?;
    }
    Ok(())
}
