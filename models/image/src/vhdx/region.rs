//! The two region tables: where BAT and metadata stand.

use super::guid::Guid;
use super::header::{SECTION, seal, verify};
use super::rules;
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{Error, Limits, ReadAt, Result, array_at, le_u32, le_u64, read_vec, slice_at};

/// Where the two copies stand.
pub(crate) const TABLES_AT: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a table, all covered by its checksum.
pub(crate) const TABLE_BYTES: u64 = 64 << 10;
/// Most entries of a table.
const ENTRIES_MAX: u32 = 2047;

pub(crate) const BAT: Guid = Guid::new(
    0x2dc2_7766,
    0xf623,
    0x4200,
    [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08],
);
pub(crate) const METADATA: Guid = Guid::new(
    0x8b7c_a206,
    0x4790,
    0x4b9a,
    [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e],
);

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) guid: Guid,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) required: bool,
}

impl Region {
    /// First byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }

    /// What it is called in findings.
    pub(crate) fn name(&self) -> String {
        match self.guid {
            BAT => "BAT".to_owned(),
            METADATA => "metadata region".to_owned(),
            other => format!("region {other}"),
        }
    }
}

/// The regions of a file.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    pub(crate) all: Vec<Region>,
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    /// The table that counts, as it stands in the file.
    pub(crate) table: Vec<u8>,
}

impl Regions {
    /// Reads both tables; the first counts unless it is damaged.
    pub(crate) fn read(
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let [first, second] = TABLES_AT;
        let table = |place| read_vec(source, "VHDX region table", place, TABLE_BYTES, limits);
        let (one, two) = (table(first)?, table(second)?);
        let parsed = [Self::parse(&one), Self::parse(&two)];
        for (place, found) in TABLES_AT.into_iter().zip(&parsed) {
            if let Err(error) = found {
                let path = format!("region table at {place}");
                findings.add(
                    &rules::REGION_TABLE,
                    (place, TABLE_BYTES),
                    path,
                    format_args!("wrong ({error})"),
                    "a region table",
                );
            }
        }
        match parsed {
            [Ok(regions), other] => {
                if other.is_ok() && one != two {
                    let found = "another table than the one at 196608, which counts";
                    let place = (second, TABLE_BYTES);
                    findings.add(
                        &rules::REGION_TABLES_DIFFER,
                        place,
                        "region table at 262144",
                        found,
                        "the same",
                    );
                }
                Ok(regions)
            }
            [Err(_), Ok(regions)] => Ok(regions),
            // What is valid and not known here is no damage.
            [Err(error @ Error::Unsupported(_)), Err(_)] => Err(error),
            [Err(one), Err(two)] => Err(Error::corrupt(format_args!(
                "VHDX has no valid region table: the one at 196608 has {one}; the one at 262144 has {two}"
            ))),
        }
    }

    fn parse(table: &[u8]) -> Result<Self> {
        if slice_at(table, 0, 4) != Some(b"regi") {
            return Err(Error::corrupt("no signature regi"));
        }
        verify(table)?;
        let count = le_u32(table, 8).unwrap_or(0);
        if count > ENTRIES_MAX {
            return Err(Error::corrupt(format_args!(
                "{count} entries, at most are {ENTRIES_MAX}"
            )));
        }
        let entries = table.get(16..).unwrap_or_default().chunks_exact(32);
        let all: Vec<Region> = entries.take(index(u64::from(count))).map(entry).collect();
        let unknown = |region: &&Region| region.required && ![BAT, METADATA].contains(&region.guid);
        if let Some(region) = all.iter().find(unknown) {
            return Err(Error::unsupported(format_args!(
                "VHDX {}, which must be known to read the file",
                region.name()
            )));
        }
        let the = |guid, name| {
            let mut found = all.iter().filter(|region| region.guid == guid);
            match (found.next(), found.next()) {
                (Some(region), None) => Ok(*region),
                (None, _) => Err(Error::corrupt(format_args!("no entry for the {name}"))),
                _ => Err(Error::corrupt(format_args!("two entries for the {name}"))),
            }
        };
        let (bat, metadata) = (the(BAT, "BAT")?, the(METADATA, "metadata region")?);
        Ok(Self {
            all,
            bat,
            metadata,
            table: table.to_vec(),
        })
    }

    /// The table with the BAT elsewhere, sealed.
    pub(crate) fn with_bat(&self, offset: u64, length: u32) -> Vec<u8> {
        let mut table = self.table.clone();
        let entries = table.get_mut(16..).unwrap_or_default().chunks_exact_mut(32);
        for entry in entries.take(self.all.len()) {
            if entry.starts_with(&BAT.0) {
                let bytes = [&offset.to_le_bytes()[..], &length.to_le_bytes()].concat();
                if let Some(place) = entry.get_mut(16..28) {
                    place.copy_from_slice(&bytes);
                }
            }
        }
        seal(&mut table);
        table
    }

    /// Regions that stand where none may.
    pub(crate) fn note_places(&self, length: u64, findings: &mut Findings) {
        for (number, region) in (0u64..).zip(&self.all) {
            let aligned = region.offset % SECTION == 0 && u64::from(region.length) % SECTION == 0;
            if !aligned || region.offset < SECTION || region.end() > length || region.length == 0 {
                let [table, _] = TABLES_AT;
                let at = table.saturating_add(number.saturating_mul(32).saturating_add(32));
                let found = format!("at {} with {} bytes", region.offset, region.length);
                let expected = format!("whole MiB, from 1048576 to {length}");
                findings.add(
                    &rules::REGION_PLACE,
                    (at, 12),
                    region.name(),
                    found,
                    expected,
                );
            }
        }
        let mut sorted: Vec<&Region> = self.all.iter().collect();
        sorted.sort_by_key(|region| (region.offset, region.end()));
        let mut last: Option<&Region> = None;
        for region in sorted {
            if let Some(before) = last.filter(|before| before.end() > region.offset) {
                let found = format!("at {}", region.offset);
                let expected = format!(
                    "behind the {}, which ends at {}",
                    before.name(),
                    before.end()
                );
                let place = (region.offset, u64::from(region.length));
                findings.add(
                    &rules::REGION_OVERLAP,
                    place,
                    region.name(),
                    found,
                    expected,
                );
            }
            if last.is_none_or(|before| before.end() < region.end()) {
                last = Some(region);
            }
        }
    }
}

fn entry(bytes: &[u8]) -> Region {
    Region {
        guid: Guid(array_at(bytes, 0).unwrap_or_default()),
        offset: le_u64(bytes, 16).unwrap_or(0),
        length: le_u32(bytes, 24).unwrap_or(0),
        required: le_u32(bytes, 28).unwrap_or(0) & 1 != 0,
    }
}

/// A table of these regions, all required, sealed.
pub(crate) fn table(regions: &[(Guid, u64, u32)]) -> Vec<u8> {
    let mut table = b"regi\0\0\0\0".to_vec();
    let count = u32::try_from(len64(regions)).unwrap_or(u32::MAX);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    for (guid, offset, length) in regions {
        table.extend_from_slice(&guid.0);
        table.extend_from_slice(&offset.to_le_bytes());
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(&1u32.to_le_bytes());
    }
    table.resize(index(TABLE_BYTES), 0);
    seal(&mut table);
    table
}
