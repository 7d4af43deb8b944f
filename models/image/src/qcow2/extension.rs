//! Header extensions: what stands between the header and the backing file's name.

use super::rules;
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{Error, ReadAt, Result, be_u32, be_u64, slice_at};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;
/// Bytes of a row of the feature name table.
const FEATURE_ROW: usize = 48;

/// The pointer to the bitmap directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BitmapsPlace {
    /// Where the extension's data stand in the file.
    pub(super) at: u64,
    pub(super) count: u32,
    pub(super) directory_bytes: u64,
    pub(super) directory: u64,
}

/// What the extensions say.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) backing_format: Option<String>,
    pub(super) data_file: Option<String>,
    pub(super) bitmaps: Option<BitmapsPlace>,
    /// Offset and bytes of the LUKS header.
    pub(super) encryption: Option<(u64, u64)>,
    /// (feature word, bit, name).
    features: Vec<(u8, u8, String)>,
}

impl Extensions {
    /// Walks them from `start` on: they end with type 0, or at `end`. Damage is a finding and ends the walk.
    pub(super) fn read(
        source: &dyn ReadAt,
        start: u64,
        end: u64,
        findings: &mut Findings,
    ) -> Result<Self> {
        let end = end.min(source.len());
        let mut bytes = vec![0; index(end.saturating_sub(start))];
        source.read_at(start.min(source.len()), &mut bytes)?;
        let mut all = Self::default();
        let mut seen = Vec::new();
        let mut at = 0usize;
        while let Some((kind, length)) =
            be_u32(&bytes, at).zip(be_u32(&bytes, at.saturating_add(4)))
        {
            if kind == END {
                break;
            }
            let place = start.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
            let path = format!("header extension {kind:#x}");
            let data = at.saturating_add(8);
            let length = index(u64::from(length));
            let Some(data) = slice_at(&bytes, data, length) else {
                let expected = format!("data that end before {end}");
                let found = format!("of {length} bytes at {place}");
                findings.add(&rules::EXTENSION, (place, 8), path, found, expected);
                break;
            };
            if seen.contains(&kind) {
                let found = "there a second time";
                findings.add(&rules::EXTENSION, (place, 8), path, found, "there once");
            } else {
                seen.push(kind);
                all.take(kind, data, place, findings);
            }
            let padded = length.checked_next_multiple_of(8).unwrap_or(usize::MAX);
            at = at.saturating_add(8).saturating_add(padded);
        }
        Ok(all)
    }

    fn take(&mut self, kind: u32, data: &[u8], place: u64, findings: &mut Findings) {
        let text = || String::from_utf8_lossy(data).into_owned();
        let mut known = true;
        match kind {
            BACKING_FORMAT => self.backing_format = Some(text()),
            DATA_FILE => self.data_file = Some(text()),
            FEATURES => self.features = data.chunks_exact(FEATURE_ROW).filter_map(row).collect(),
            BITMAPS => {
                self.bitmaps = bitmaps(data, place.saturating_add(8));
                known = self.bitmaps.is_some();
            }
            ENCRYPTION => {
                self.encryption = be_u64(data, 0).zip(be_u64(data, 8));
                known = self.encryption.is_some();
            }
            _ => {
                let path = "header extension";
                let found = format!("{kind:#x} of {} bytes", data.len());
                let place = (place, len64(data).saturating_add(8));
                let expected = "one that is known";
                findings.add(&rules::UNKNOWN_EXTENSION, place, path, found, expected);
            }
        }
        if !known {
            let path = format!("header extension {kind:#x}");
            let found = format!("{} bytes that hold no fields", data.len());
            let expected = "its fields, reserved ones zero";
            findings.add(&rules::EXTENSION, (place, 8), path, found, expected);
        }
    }

    /// Names of the bits of a feature word, as the file itself gives them.
    pub(super) fn names(&self, word: u8, bits: u64) -> String {
        let set = (0u8..64).filter(|bit| bits.checked_shr(u32::from(*bit)).unwrap_or(0) & 1 == 1);
        let name = |bit: u8| {
            let known = |row: &&(u8, u8, String)| (row.0, row.1) == (word, bit);
            self.features
                .iter()
                .find(known)
                .map_or_else(|| format!("bit {bit}"), |row| row.2.clone())
        };
        set.map(name).collect::<Vec<_>>().join(", ")
    }
}

fn row(bytes: &[u8]) -> Option<(u8, u8, String)> {
    let name = bytes.get(2..)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some((*bytes.first()?, *bytes.get(1)?, name))
}

fn bitmaps(data: &[u8], at: u64) -> Option<BitmapsPlace> {
    let found = BitmapsPlace {
        at,
        count: be_u32(data, 0)?,
        directory_bytes: be_u64(data, 8)?,
        directory: be_u64(data, 16)?,
    };
    (data.len() == 24 && be_u32(data, 4) == Some(0)).then_some(found)
}

/// One extension: type, length, data, padding.
pub(super) fn encode(kind: u32, data: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(data.len()).map_err(Error::io)?;
    let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Ok(bytes)
}

/// The extensions of an image we write, with the one that ends them.
pub(super) fn encode_all(backing_format: Option<&str>, data_file: Option<&str>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (kind, text) in [(BACKING_FORMAT, backing_format), (DATA_FILE, data_file)] {
        if let Some(text) = text {
            bytes.extend(encode(kind, text.as_bytes())?);
        }
    }
    bytes.extend([0; 8]);
    Ok(bytes)
}
