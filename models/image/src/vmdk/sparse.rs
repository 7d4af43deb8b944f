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

/// Grains and tables being written, in ascending order.
pub(super) struct Grains<'a> {
    places: Places,
    sink: &'a dyn WriteAt,
    /// Whether tables say of what they do not have that it is zeros.
    zeroed: bool,
    next: u64,
    table: Option<Table>,
}

impl<'a> Grains<'a> {
    pub(super) fn new(bytes: u64, zeroed: bool, sink: &'a dyn WriteAt) -> Result<Self> {
        let places = Places::of(bytes)?;
        let next = places.overhead;
        let grains = Self {
            places,
            sink,
            zeroed,
            next,
            table: None,
        };
        if zeroed {
            // Before the tables of grains with data, which take their places.
            for number in 0..grains.places.tables {
                let entries = grains.places.blank(number, true);
                grains.flush(Some(Table { number, entries }))?;
            }
        }
        Ok(grains)
    }

    /// A place for a grain, in bytes.
    pub(super) fn place(&mut self, grain: u64) -> Result<u64> {
        let place = self.next;
        self.set(grain, address(place)?)?;
        self.next = place.saturating_add(Header::GRAIN);
        Ok(place.saturating_mul(SECTOR))
    }

    /// Says of a grain that it is zeros, whatever is below.
    pub(super) fn zero(&mut self, grain: u64) -> Result<()> {
        self.set(grain, 1)
    }

    fn set(&mut self, grain: u64, value: u32) -> Result<()> {
        let number = div(grain, u64::from(Header::TABLE_ENTRIES));
        if self.table.as_ref().is_none_or(|open| open.number != number) {
            let full = self.table.take();
            self.flush(full)?;
        }
        let open = self.table.get_or_insert_with(|| Table {
            number,
            entries: self.places.blank(number, self.zeroed),
        });
        let at = index(rem(grain, u64::from(Header::TABLE_ENTRIES)).saturating_mul(4));
        if let Some(entry) = open.entries.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// Writes a table to both its places; tables of holes stay zero.
    fn flush(&self, table: Option<Table>) -> Result<()> {
        let Some(table) = table else { return Ok(()) };
        let places = &self.places;
        for directory in [places.rgd, places.gd] {
            let sector = places.table(directory, table.number);
            self.sink
                .write_at(sector.saturating_mul(SECTOR), &table.entries)?;
        }
        Ok(())
    }

    /// Writes what is left of the tables, the directories, then the descriptor that `describe` makes for a capacity in
    /// sectors, and last the header, which makes the file one. The result is its length.
    pub(super) fn finish(
        mut self,
        has_zeroed: bool,
        describe: impl FnOnce(u64) -> Result<String>,
    ) -> Result<u64> {
        let last = self.table.take();
        self.flush(last)?;
        let Self {
            places, sink, next, ..
        } = self;
        let length = next.saturating_mul(SECTOR);
        sink.set_len(length)?;
        for directory in [places.rgd, places.gd] {
            sink.write_at(
                directory.saturating_mul(SECTOR),
                &places.directory_bytes(directory)?,
            )?;
        }
        let (version, flags) = if has_zeroed {
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
        sink.write_at(SECTOR, describe(places.capacity)?.as_bytes())?;
        sink.write_at(0, &header.to_bytes())?;
        Ok(length)
    }
}

/// Bytes of the grains we write.
pub(super) fn grain_bytes() -> u64 {
    Header::GRAIN.saturating_mul(SECTOR)
}

/// Writes `disk`; the result is the length of the file.
pub(crate) fn write_sparse(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let zeroed = options.zeroed_grains;
    let mut grains = Grains::new(disk.len(), zeroed, sink)?;
    let how = (grain_bytes(), options.is_unnamed());
    let digest = engine::copy(disk, sink, how, work, |grain| grains.place(grain))?;
    grains.finish(zeroed, |capacity| {
        // The content id is known now.
        descriptor::compose(&SOLE, capacity, options.cid_of(digest), options)
    })
}
