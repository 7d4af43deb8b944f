//! Internal snapshots: the table that lists them.
//!
//! ```text
//! 0 L1 offset │ 8 L1 entries │ 12 length of id │ 14 of name │ 16 time │ 24 guest clock │ 32 VM state │ 36 extra bytes
//! 40 extra (VM state of 64 bits, disk size) │ id │ name │ padding to 8
//! ```

use super::header::{Header, L1_MAX};
use super::rules;
use crate::finding::Findings;
use crate::math::{index, rem, round_up};
use drylab_block::{Error, Limits, ReadAt, Result, be_u16, be_u32, be_u64, slice_at};

/// Bytes of an entry without its texts.
const FIXED: u64 = 40;

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) l1_offset: u64,
    pub(super) l1_size: u32,
    pub(super) id: String,
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) seconds: u32,
    /// Bytes of the saved machine.
    pub(super) state_bytes: u64,
    /// Bytes of the disk then, where it is said.
    pub(super) size: Option<u64>,
}

/// All snapshots whose L1 tables can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshots {
    pub(super) list: Vec<Snapshot>,
    /// Bytes of the table.
    pub(super) bytes: u64,
    /// Some are not known: an entry is damaged.
    pub(super) damaged: bool,
}

impl Snapshots {
    /// Reads the table. Damage is a finding; it ends the table.
    pub(super) fn read(
        source: &dyn ReadAt,
        header: &Header,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let mut all = Self::default();
        if header.snapshots == 0 {
            return Ok(all);
        }
        let (start, end) = (header.snapshots_offset, source.len());
        if rem(start, header.cluster_bytes()) != 0 {
            let expected = "a multiple of a cluster";
            findings.add(&rules::SNAPSHOT, (64, 8), "snapshot table", start, expected);
            all.damaged = true;
            return Ok(all);
        }
        let mut at = start;
        for number in 0..header.snapshots {
            if number >= limits.entries_max {
                return Err(too_many("snapshots", header.snapshots, limits));
            }
            let mut fixed = [0; 40];
            let inside = at.saturating_add(FIXED) <= end;
            let place = (at, FIXED);
            let path = format!("snapshot {number}");
            if !inside || at.saturating_sub(start) > limits.table_bytes_max {
                let expected = format!("before the end ({end})");
                findings.add(&rules::SNAPSHOT, place, path, format!("at {at}"), expected);
                all.damaged = true;
                break;
            }
            source.read_at(at, &mut fixed)?;
            let Some((snapshot, length)) = read_one(source, at, &fixed)? else {
                let expected = "texts that end inside the file";
                findings.add(
                    &rules::SNAPSHOT,
                    place,
                    path,
                    "one whose texts do not",
                    expected,
                );
                all.damaged = true;
                break;
            };
            if snapshot.check(header, end, place, &path, findings) {
                all.damaged = true;
            } else {
                all.list.push(snapshot);
            }
            at = at.saturating_add(length);
        }
        all.bytes = at.saturating_sub(start);
        Ok(all)
    }
}

/// The answer to more entries with names than are listed.
pub(super) fn too_many(what: &str, count: u32, limits: &Limits) -> Error {
    Error::unsupported(format_args!(
        "qcow2 with {count} {what}, more than {}: raise the limit entries",
        limits.entries_max
    ))
}

/// One entry and the bytes it takes.
fn read_one(source: &dyn ReadAt, at: u64, fixed: &[u8; 40]) -> Result<Option<(Snapshot, u64)>> {
    let (Some(id), Some(name), Some(extra)) =
        (be_u16(fixed, 12), be_u16(fixed, 14), be_u32(fixed, 36))
    else {
        return Ok(None);
    };
    let (id, name, extra) = (u64::from(id), u64::from(name), u64::from(extra));
    let texts = at.saturating_add(FIXED).saturating_add(extra);
    if texts.saturating_add(id).saturating_add(name) > source.len() {
        return Ok(None);
    }
    let mut bytes = vec![0; index(id.saturating_add(name))];
    source.read_at(texts, &mut bytes)?;
    let mut known = [0; 16];
    let head = index(extra.min(16));
    if let Some(head) = known.get_mut(..head) {
        source.read_at(at.saturating_add(FIXED), head)?;
    }
    let text = |from: u64, length: u64| {
        let bytes = slice_at(&bytes, index(from), index(length)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let state = be_u32(fixed, 32).map_or(0, u64::from);
    let snapshot = Snapshot {
        l1_offset: be_u64(fixed, 0).unwrap_or(0),
        l1_size: be_u32(fixed, 8).unwrap_or(0),
        id: text(0, id),
        name: text(id, name),
        seconds: be_u32(fixed, 16).unwrap_or(0),
        state_bytes: if extra >= 8 {
            be_u64(&known, 0).unwrap_or(state)
        } else {
            state
        },
        size: be_u64(&known, 8).filter(|_| extra >= 16),
    };
    let length = round_up(
        FIXED
            .saturating_add(extra)
            .saturating_add(id)
            .saturating_add(name),
        8,
    );
    Ok(Some((snapshot, length)))
}

impl Snapshot {
    /// Whether its L1 table cannot be read.
    fn check(
        &self,
        header: &Header,
        end: u64,
        place: (u64, u64),
        path: &str,
        findings: &mut Findings,
    ) -> bool {
        let bytes = u64::from(self.l1_size).saturating_mul(8);
        let aligned = rem(self.l1_offset, header.cluster_bytes()) == 0;
        let inside = bytes <= L1_MAX && self.l1_offset.saturating_add(bytes) <= end;
        if !(aligned && inside) {
            let found = format!("of {bytes} bytes at {:#x}", self.l1_offset);
            let expected = "in clusters inside the file";
            let path = format!("{path}, L1 table");
            findings.add(&rules::SNAPSHOT, place, path, found, expected);
            return true;
        }
        if header.version >= 3 && self.size.is_none() {
            let path = format!("{path}, size of the disk");
            let expected = "there in version 3";
            findings.add(&rules::SNAPSHOT, place, path, "absent", expected);
        }
        false
    }

    /// For people.
    pub(super) fn details(&self, number: usize) -> [(String, String); 5] {
        let size = self.size.map_or_else(String::new, |size| size.to_string());
        [
            ("id", self.id.clone()),
            ("name", self.name.clone()),
            ("date-sec", self.seconds.to_string()),
            ("vm-state-size", self.state_bytes.to_string()),
            ("disk-size", size),
        ]
        .map(|(key, value)| (format!("snapshot.{number}.{key}"), value))
    }
}
