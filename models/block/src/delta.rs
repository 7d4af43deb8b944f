//! Byte deltas as files: how a base disk differs in one of its variants.
//!
//! ```text
//! 0   8  magic "DRYDELTA"
//! 8   4  version, 1            (all integers little-endian)
//! 12  8  length of the disk
//! 20  4  page size, 4096
//! 24  4  number of pages
//! 28     per page: u64 byte offset (a multiple of the page size, ascending), then the page
//! ```
//! The last page of a disk whose length is no multiple of 4096 is stored padded with zeros.

use crate::{Delta, Error, Result, array_at, le_u32, le_u64, slice_at};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DRYDELTA";
const PAGE: usize = 4096;
const HEADER: usize = 28;

impl Delta {
    /// Reads a delta file made for a disk of `disk_length` bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with place, value and bound; [`Error::Unsupported`] for another version.
    pub fn parse(bytes: &[u8], disk_length: u64) -> Result<Self> {
        let short = || {
            Error::corrupt(format_args!(
                "delta of {} bytes is shorter than its header ({HEADER})",
                bytes.len()
            ))
        };
        if array_at::<8>(bytes, 0).ok_or_else(short)? != *MAGIC {
            return Err(Error::corrupt("delta does not begin with DRYDELTA"));
        }
        let version = le_u32(bytes, 8).ok_or_else(short)?;
        let length = le_u64(bytes, 12).ok_or_else(short)?;
        let page = le_u32(bytes, 20).ok_or_else(short)?;
        let count = le_u32(bytes, 24).ok_or_else(short)?;
        if version != 1 || page != 4096 {
            return Err(Error::unsupported(format_args!(
                "delta version {version} with pages of {page} (1 and 4096 known)"
            )));
        }
        if length != disk_length {
            return Err(Error::corrupt(format_args!(
                "delta is for a disk of {length} bytes, this one has {disk_length}"
            )));
        }
        let mut pages = BTreeMap::new();
        let mut at = HEADER;
        for number in 0..count {
            let cut = || Error::corrupt(format_args!("delta ends inside page {number} of {count}"));
            let offset = le_u64(bytes, at).ok_or_else(cut)?;
            let start = at.checked_add(8).ok_or_else(cut)?;
            let page = slice_at(bytes, start, PAGE).ok_or_else(cut)?;
            if offset % 4096 != 0
                || offset >= length
                || pages
                    .last_key_value()
                    .is_some_and(|(last, _)| *last >= offset)
            {
                return Err(Error::corrupt(format_args!(
                    "delta page {number} stands at {offset}, out of order or past {length}"
                )));
            }
            let left = usize::try_from(length.saturating_sub(offset))
                .unwrap_or(PAGE)
                .min(PAGE);
            pages.insert(offset, page.get(..left).ok_or_else(cut)?.into());
            at = start.checked_add(PAGE).ok_or_else(cut)?;
        }
        Ok(Self(pages))
    }
}

#[cfg(test)]
mod tests {
    use crate::Delta;

    fn file(pages: &[u64]) -> Vec<u8> {
        let mut bytes = b"DRYDELTA".to_vec();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(10_000u64.to_le_bytes());
        bytes.extend(4096u32.to_le_bytes());
        bytes.extend((pages.len() as u32).to_le_bytes());
        for offset in pages {
            bytes.extend(offset.to_le_bytes());
            bytes.extend([7u8; 4096]);
        }
        bytes
    }

    #[test]
    fn a_delta_is_read_page_by_page_and_its_last_page_is_cut_to_the_disk() {
        let delta = Delta::parse(&file(&[0, 8192]), 10_000).expect("valid");
        assert_eq!(
            delta.0.values().map(|page| page.len()).collect::<Vec<_>>(),
            [4096, 1808]
        );
    }

    #[test]
    fn a_damaged_delta_is_refused_with_its_place() {
        let good = file(&[0, 8192]);
        assert!(
            Delta::parse(&good[..good.len() - 1], 10_000)
                .unwrap_err()
                .to_string()
                .contains("page 1 of 2")
        );
        assert!(
            Delta::parse(&good, 9_999)
                .unwrap_err()
                .to_string()
                .contains("10000")
        );
        assert!(Delta::parse(&file(&[8192, 0]), 10_000).is_err());
        assert!(Delta::parse(&file(&[12288]), 10_000).is_err());
        assert!(Delta::parse(b"DRYDELTA", 10_000).is_err());
    }
}
