//! Dirty bitmaps: the directory that lists them, and the tables of their clusters.

use super::header::{Header, L1_MAX};
use super::rules;
use super::snapshot::too_many;
use crate::finding::Findings;
use crate::math::{div_up, index, rem, round_up};
use drylab_block::{Limits, ReadAt, Result, be_u16, be_u32, be_u64, slice_at};

/// Bytes of a directory entry without its texts.
const FIXED: u64 = 24;
/// Most bitmaps, and the largest directory, that QEMU reads.
const COUNT_MAX: u32 = 65_535;
const DIRECTORY_MAX: u64 = 65_535 * 4096;
/// Bits 9 to 55 of a table entry.
const OFFSET: u64 = super::entry::OFFSET;

/// One bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bitmap {
    pub(super) name: String,
    pub(super) table: u64,
    pub(super) entries: u32,
    flags: u32,
    granularity_bits: u8,
}

/// All bitmaps that can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Bitmaps {
    pub(super) list: Vec<Bitmap>,
    /// Offset and bytes of the directory.
    pub(super) directory: Option<(u64, u64)>,
    /// Some cannot be read.
    pub(super) damaged: bool,
}

impl Bitmaps {
    /// Reads the directory of consistent bitmaps; of others nothing can be believed. Damage is a finding.
    pub(super) fn read(
        source: &dyn ReadAt,
        header: &Header,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let mut all = Self::default();
        let Some(place) = header.extensions.bitmaps else {
            return Ok(all);
        };
        if !header.bitmaps_consistent() {
            return Ok(all);
        }
        let (start, bytes) = (place.directory, place.directory_bytes);
        let inside = start
            .checked_add(bytes)
            .is_some_and(|end| end <= source.len());
        let sound = (1..=COUNT_MAX).contains(&place.count) && bytes <= DIRECTORY_MAX;
        if rem(start, header.cluster_bytes()) != 0 || !inside || !sound {
            let found = format!("{} entries of {bytes} bytes at {start:#x}", place.count);
            let expected = format!("1 to {COUNT_MAX} entries in clusters inside the file");
            let path = "bitmap directory";
            findings.add(&rules::BITMAP, (place.at, 24), path, found, expected);
            all.damaged = true;
            return Ok(all);
        }
        all.directory = Some((start, bytes));
        let mut at = start;
        let end = start.saturating_add(bytes);
        // Tables that together pass the file overlap, and would cost more than it.
        let mut left = source.len();
        for number in 0..place.count {
            if number >= limits.entries_max {
                return Err(too_many("bitmaps", place.count, limits));
            }
            let Some((bitmap, length)) = read_one(source, at, end)? else {
                let path = format!("bitmap {number}");
                let found = format!("one that passes the end of the directory ({end})");
                findings.add(&rules::BITMAP, (at, FIXED), path, found, "inside it");
                all.damaged = true;
                return Ok(all);
            };
            let table = u64::from(bitmap.entries).saturating_mul(8);
            if table > left || bitmap.wrong(source, header, (at, FIXED), findings)? {
                all.damaged = true;
            } else {
                all.list.push(bitmap);
            }
            left = left.saturating_sub(table);
            at = at.saturating_add(length);
        }
        if at != end {
            let found = format!("{} bytes longer than its entries", end.saturating_sub(at));
            findings.add(
                &rules::BITMAP,
                (at, 8),
                "bitmap directory",
                found,
                "as long",
            );
            all.damaged = true;
        }
        Ok(all)
    }
}

fn read_one(source: &dyn ReadAt, at: u64, end: u64) -> Result<Option<(Bitmap, u64)>> {
    let mut fixed = [0; 24];
    if at.saturating_add(FIXED) > end {
        return Ok(None);
    }
    source.read_at(at, &mut fixed)?;
    let name = be_u16(&fixed, 18).map_or(0, u64::from);
    let extra = be_u32(&fixed, 20).map_or(0, u64::from);
    let text = at.saturating_add(FIXED).saturating_add(extra);
    let length = round_up(text.saturating_add(name).saturating_sub(at), 8);
    if at.saturating_add(length) > end {
        return Ok(None);
    }
    let mut bytes = vec![0; index(name)];
    source.read_at(text, &mut bytes)?;
    let bitmap = Bitmap {
        name: String::from_utf8_lossy(&bytes).into_owned(),
        table: be_u64(&fixed, 0).unwrap_or(0),
        entries: be_u32(&fixed, 8).unwrap_or(0),
        flags: be_u32(&fixed, 12).unwrap_or(0),
        granularity_bits: slice_at(&fixed, 17, 1)
            .and_then(|byte| byte.first().copied())
            .unwrap_or(0),
    };
    Ok(Some((bitmap, length)))
}

impl Bitmap {
    /// The clusters that its table names.
    pub(super) fn clusters(&self, source: &dyn ReadAt) -> Result<Vec<u64>> {
        let mut bytes = vec![0; index(u64::from(self.entries).saturating_mul(8))];
        source.read_at(self.table, &mut bytes)?;
        let words = super::words(&bytes).into_iter();
        Ok(words
            .map(|word| word & OFFSET)
            .filter(|offset| *offset != 0)
            .collect())
    }

    /// Bytes of the disk that a bit is for, 0 where the granularity cannot be.
    pub(super) fn grain(&self) -> u64 {
        1u64.checked_shl(u32::from(self.granularity_bits))
            .unwrap_or(0)
    }

    /// Entries that its table has for a disk of `size` bytes.
    pub(super) fn needed(&self, header: &Header, size: u64) -> u64 {
        let bytes = div_up(div_up(size, self.grain()), 8);
        div_up(bytes, header.cluster_bytes())
    }

    /// The cluster that the last entry of its table names, if it names one.
    pub(super) fn last_cluster(&self, source: &dyn ReadAt) -> Result<Option<u64>> {
        let Some(last) = self.entries.checked_sub(1) else {
            return Ok(None);
        };
        let mut word = [0; 8];
        let at = u64::from(last).saturating_mul(8);
        source.read_at(self.table.saturating_add(at), &mut word)?;
        let offset = u64::from_be_bytes(word) & OFFSET;
        Ok((offset != 0).then_some(offset))
    }

    /// Whether the entry or its table cannot be what they claim; said in the findings.
    fn wrong(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        place: (u64, u64),
        findings: &mut Findings,
    ) -> Result<bool> {
        let cluster = header.cluster_bytes();
        let bytes = u64::from(self.entries).saturating_mul(8);
        let path = || format!("bitmap {:?}", self.name);
        let inside = self
            .table
            .checked_add(bytes)
            .is_some_and(|end| end <= source.len());
        if rem(self.table, cluster) != 0 || !inside || bytes > L1_MAX {
            let found = format!("with a table of {bytes} bytes at {:#x}", self.table);
            let expected = "a table in clusters inside the file";
            findings.add(&rules::BITMAP, place, path(), found, expected);
            return Ok(true);
        }
        let (grain, needed) = (self.grain(), self.needed(header, header.size));
        if !(9..=31).contains(&self.granularity_bits) || u64::from(self.entries) != needed {
            let found = format!("with {} entries at granularity {grain}", self.entries);
            let expected = format!("{needed} entries, granularity 512 to 2^31");
            findings.add(&rules::BITMAP, place, path(), found, expected);
            return Ok(true);
        }
        for (number, offset) in self.clusters(source)?.into_iter().enumerate() {
            let end = offset.saturating_add(cluster);
            if rem(offset, cluster) != 0 || end > source.len() {
                let found = format!("with its cluster {number} at {offset:#x}");
                let expected = "a cluster inside the file";
                findings.add(&rules::BITMAP, place, path(), found, expected);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For people.
    pub(super) fn details(&self, number: usize) -> [(String, String); 3] {
        let names = [(1, "in-use"), (2, "auto")];
        let set = names.iter().filter(|(bit, _)| self.flags & bit != 0);
        let flags: Vec<&str> = set.map(|(_, name)| *name).collect();
        [
            ("name", self.name.clone()),
            ("granularity", self.grain().to_string()),
            ("flags", flags.join(",")),
        ]
        .map(|(key, value)| (format!("bitmap.{number}.{key}"), value))
    }
}
