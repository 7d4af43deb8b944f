//! The metadata region: a table of items, and the items that tell what the disk is.

use super::DISK_BYTES_MAX;
use super::guid::Guid;
use super::locator::Locator;
use super::region::Region;
use super::rules;
use crate::finding::Findings;
use crate::math::{index, len64, rem};
use drylab_block::{
    Error, Limits, ReadAt, Result, array_at, le_u16, le_u32, le_u64, read_vec, slice_at,
};

/// Bytes of the table; items stand behind it.
pub(crate) const TABLE_BYTES: u64 = 64 << 10;
/// Most entries, and most of them that are users'.
const ENTRIES_MAX: u16 = 2047;
const USER_ENTRIES_MAX: usize = 1024;
/// Largest item.
const ITEM_BYTES_MAX: u32 = 1 << 20;

pub(crate) const FILE_PARAMETERS: Guid = Guid::new(
    0xcaa1_6737,
    0xfa36,
    0x4d43,
    [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b],
);
pub(crate) const VIRTUAL_DISK_SIZE: Guid = Guid::new(
    0x2fa5_4224,
    0xcd1b,
    0x4876,
    [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8],
);
pub(crate) const VIRTUAL_DISK_ID: Guid = Guid::new(
    0xbeca_12ab,
    0xb2e6,
    0x4523,
    [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46],
);
pub(crate) const LOGICAL_SECTOR_SIZE: Guid = Guid::new(
    0x8141_bf1d,
    0xa96f,
    0x4709,
    [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f],
);
pub(crate) const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(
    0xcda3_48c7,
    0x445d,
    0x4471,
    [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56],
);
pub(crate) const PARENT_LOCATOR: Guid = Guid::new(
    0xa8d3_5f2d,
    0xb30b,
    0x454d,
    [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c],
);
const KNOWN: [Guid; 6] = [
    FILE_PARAMETERS,
    VIRTUAL_DISK_SIZE,
    VIRTUAL_DISK_ID,
    LOGICAL_SECTOR_SIZE,
    PHYSICAL_SECTOR_SIZE,
    PARENT_LOCATOR,
];

/// Flags of an entry.
pub(crate) const IS_USER: u32 = 1;
pub(crate) const IS_VIRTUAL_DISK: u32 = 2;
pub(crate) const IS_REQUIRED: u32 = 4;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    id: Guid,
    offset: u32,
    length: u32,
    flags: u32,
    /// Where the entry stands in the file.
    at: u64,
}

impl Item {
    fn end(&self) -> u64 {
        u64::from(self.offset).saturating_add(u64::from(self.length))
    }

    fn is_user(&self) -> bool {
        self.flags & IS_USER != 0
    }
}

/// What the metadata says of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) block_bytes: u64,
    pub(crate) leave_blocks_allocated: bool,
    pub(crate) has_parent: bool,
    pub(crate) disk_bytes: u64,
    /// Where the size stands in the file.
    pub(crate) disk_bytes_at: u64,
    pub(crate) disk_id: Option<Guid>,
    pub(crate) logical_sector: u64,
    pub(crate) physical_sector: Option<u32>,
    pub(crate) locator: Option<Locator>,
    /// Items that are not of the specification, as `id, length`.
    pub(crate) others: Vec<(Guid, u32)>,
}

/// Reads items of one region.
struct Reader<'a> {
    source: &'a dyn ReadAt,
    region: Region,
    items: Vec<Item>,
    limits: &'a Limits,
}

impl Reader<'_> {
    fn find(&self, id: Guid) -> Option<&Item> {
        self.items
            .iter()
            .find(|item| item.id == id && !item.is_user())
    }

    /// The first bytes of an item of the specification; `None` when there is none.
    fn bytes(&self, id: Guid, name: &str, length: u32) -> Result<Option<(u64, Vec<u8>)>> {
        let Some(item) = self.find(id) else {
            return Ok(None);
        };
        let length = length.max(if id == PARENT_LOCATOR { item.length } else { 0 });
        let inside = u64::from(item.offset) >= TABLE_BYTES
            && item.end() <= u64::from(self.region.length)
            && item.length >= length
            && item.length <= ITEM_BYTES_MAX;
        if !inside {
            return Err(Error::corrupt(format_args!(
                "VHDX {name} has {} bytes at {} of the metadata region, which has {}; it needs {length}",
                item.length, item.offset, self.region.length
            )));
        }
        let at = self.region.offset.saturating_add(u64::from(item.offset));
        let bytes = read_vec(self.source, name, at, u64::from(length), self.limits)?;
        Ok(Some((at, bytes)))
    }

    fn needed(&self, id: Guid, name: &str, length: u32) -> Result<(u64, Vec<u8>)> {
        self.bytes(id, name, length)?.ok_or_else(|| {
            Error::corrupt(format_args!(
                "VHDX has no {name} among its {} metadata items",
                self.items.len()
            ))
        })
    }

    /// Entries that break the rules of the table.
    fn note(&self, findings: &mut Findings) {
        let mut wrong = |item: &Item, found: String, expected: &str| {
            let path = format!("metadata item {}", item.id);
            findings.add(&rules::METADATA_ITEM, (item.at, 32), path, found, expected);
        };
        let region = u64::from(self.region.length);
        for item in &self.items {
            let said = format!("at {} with {} bytes", item.offset, item.length);
            let empty = item.length == 0;
            if empty && item.offset != 0 {
                wrong(item, said, "at 0, since it is empty");
            } else if !empty && (u64::from(item.offset) < TABLE_BYTES || item.end() > region) {
                wrong(item, said, "behind the table and inside the region");
            } else if item.length > ITEM_BYTES_MAX {
                wrong(item, said, "at most 1048576 bytes");
            }
        }
        let mut sorted: Vec<&Item> = self.items.iter().filter(|item| item.length > 0).collect();
        sorted.sort_by_key(|item| (item.offset, item.end()));
        let mut end = 0;
        for item in sorted {
            if u64::from(item.offset) < end {
                let said = format!("at {}, inside another item", item.offset);
                wrong(item, said, "behind it");
            }
            end = end.max(item.end());
        }
        let mut names: Vec<_> = self.items.iter().map(|i| (i.id, i.is_user(), i)).collect();
        names.sort_by_key(|(id, user, item)| (*id, *user, item.at));
        for pair in names.windows(2) {
            if let [(id, user, _), (other, too, item)] = pair
                && (id, user) == (other, too)
            {
                wrong(item, "there twice".to_owned(), "there once");
            }
        }
        let users = self.items.iter().filter(|item| item.is_user()).count();
        if let Some(item) = self.items.last().filter(|_| users > USER_ENTRIES_MAX) {
            wrong(
                item,
                format!("one of {users} users' items"),
                "one of at most 1024",
            );
        }
    }
}

impl Metadata {
    /// Reads the table and the items that the specification knows.
    pub(crate) fn read(
        source: &dyn ReadAt,
        region: Region,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let reader = Reader {
            source,
            region,
            items: table(source, region, limits)?,
            limits,
        };
        let unknown = |item: &&Item| {
            item.flags & IS_REQUIRED != 0 && (item.is_user() || !KNOWN.contains(&item.id))
        };
        if let Some(item) = reader.items.iter().find(unknown) {
            return Err(Error::unsupported(format_args!(
                "VHDX metadata item {}, which must be known to read the file",
                item.id
            )));
        }
        reader.note(findings);
        let (_, parameters) = reader.needed(FILE_PARAMETERS, "file parameters", 8)?;
        let (block, flags) = (
            le_u32(&parameters, 0).unwrap_or(0),
            le_u32(&parameters, 4).unwrap_or(0),
        );
        if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
            return Err(Error::corrupt(format_args!(
                "VHDX block size {block} is no power of two from 1048576 to 268435456"
            )));
        }
        let (_, sector) = reader.needed(LOGICAL_SECTOR_SIZE, "logical sector size", 4)?;
        let sector = le_u32(&sector, 0).unwrap_or(0);
        if ![512, 4096].contains(&sector) {
            return Err(Error::corrupt(format_args!(
                "VHDX logical sector size {sector}, known are 512 and 4096"
            )));
        }
        let (at, size) = reader.needed(VIRTUAL_DISK_SIZE, "virtual disk size", 8)?;
        let size = le_u64(&size, 0).unwrap_or(0);
        check_size(size, u64::from(sector), at, limits, findings)?;
        let has_parent = flags & 2 != 0;
        let locator = match reader.bytes(PARENT_LOCATOR, "parent locator", 20)? {
            Some((at, bytes)) if has_parent => Some(Locator::parse(&bytes, at, findings)?),
            None if has_parent => {
                return Err(Error::corrupt(
                    "VHDX has a parent and no parent locator that says which",
                ));
            }
            _ => None,
        };
        let (disk_id, physical_sector) = optional(&reader, findings)?;
        let others = reader
            .items
            .iter()
            .filter(|item| item.is_user() || !KNOWN.contains(&item.id))
            .map(|item| (item.id, item.length))
            .collect();
        Ok(Self {
            block_bytes: u64::from(block),
            leave_blocks_allocated: flags & 1 != 0,
            has_parent,
            disk_bytes: size,
            disk_bytes_at: at,
            disk_id,
            logical_sector: u64::from(sector),
            physical_sector,
            locator,
            others,
        })
    }
}

/// The two items without which the disk can still be read.
fn optional(reader: &Reader<'_>, findings: &mut Findings) -> Result<(Option<Guid>, Option<u32>)> {
    let region = reader.region;
    let mut missing = |name: &str, found: String, expected: &str| {
        let place = (region.offset, TABLE_BYTES);
        findings.add(&rules::METADATA_MISSING, place, name, found, expected);
    };
    let id = reader.bytes(VIRTUAL_DISK_ID, "virtual disk id", 16);
    let id = match id {
        Ok(Some((_, bytes))) => array_at(&bytes, 0).map(Guid),
        Ok(None) => None,
        Err(error @ Error::Io(_)) => return Err(error),
        Err(_) => None,
    };
    if id.is_none() {
        missing("virtual disk id", "missing".to_owned(), "16 bytes");
    }
    let physical = match reader.bytes(PHYSICAL_SECTOR_SIZE, "physical sector size", 4) {
        Ok(Some((_, bytes))) => le_u32(&bytes, 0),
        Ok(None) => None,
        Err(error @ Error::Io(_)) => return Err(error),
        Err(_) => None,
    };
    if physical.is_none_or(|size| ![512, 4096].contains(&size)) {
        let found = physical.map_or("missing".to_owned(), |size| size.to_string());
        missing("physical sector size", found, "512 or 4096");
    }
    Ok((id, physical))
}

fn check_size(
    size: u64,
    sector: u64,
    at: u64,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<()> {
    if size > DISK_BYTES_MAX {
        return Err(Error::corrupt(format_args!(
            "VHDX of {size} bytes, more than the {DISK_BYTES_MAX} (64 TiB) of the format"
        )));
    }
    limits.check_disk("VHDX", size)?;
    if rem(size, sector) != 0 {
        let expected = format!("a multiple of the sector size, {sector}");
        findings.add(
            &rules::DISK_SIZE,
            (at, 8),
            "virtual disk size",
            size,
            expected,
        );
    }
    Ok(())
}

fn table(source: &dyn ReadAt, region: Region, limits: &Limits) -> Result<Vec<Item>> {
    let table = read_vec(
        source,
        "VHDX metadata table",
        region.offset,
        TABLE_BYTES,
        limits,
    )?;
    if slice_at(&table, 0, 8) != Some(b"metadata") {
        return Err(Error::corrupt(format_args!(
            "VHDX metadata table at {} has no signature metadata",
            region.offset
        )));
    }
    let count = le_u16(&table, 10).unwrap_or(0);
    if count > ENTRIES_MAX {
        return Err(Error::corrupt(format_args!(
            "VHDX metadata table has {count} entries, at most are {ENTRIES_MAX}"
        )));
    }
    let entries = table.get(32..).unwrap_or_default().chunks_exact(32);
    let item = |(number, bytes): (u64, &[u8])| Item {
        id: Guid(array_at(bytes, 0).unwrap_or_default()),
        offset: le_u32(bytes, 16).unwrap_or(0),
        length: le_u32(bytes, 20).unwrap_or(0),
        flags: le_u32(bytes, 24).unwrap_or(0),
        at: region
            .offset
            .saturating_add(number.saturating_mul(32).saturating_add(32)),
    };
    Ok((0u64..)
        .zip(entries)
        .take(usize::from(count))
        .map(item)
        .collect())
}

/// The table and the items behind it, in the order given.
pub(crate) fn region(items: &[(Guid, u32, Vec<u8>)]) -> Vec<u8> {
    let mut table = b"metadata\0\0".to_vec();
    let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&[0; 20]);
    let mut data = Vec::new();
    for (id, flags, bytes) in items {
        let offset = TABLE_BYTES.saturating_add(len64(&data));
        table.extend_from_slice(&id.0);
        for word in [offset, len64(bytes), u64::from(*flags), 0] {
            let word = u32::try_from(word).unwrap_or(u32::MAX);
            table.extend_from_slice(&word.to_le_bytes());
        }
        data.extend_from_slice(bytes);
    }
    table.resize(index(TABLE_BYTES), 0);
    table.extend_from_slice(&data);
    table
}
