//! The dynamic header, and what it says of a parent.

use super::footer::{VERSION, seal};
use super::{SECTOR, rules};
use crate::finding::Findings;
use crate::math::{div_up, index, len64, round_up};
use drylab_block::{Error, Limits, ReadAt, Result, array_at, be_u32, be_u64, read_vec};

pub(super) const COOKIE: &[u8; 8] = b"cxsparse";
/// Bytes of a dynamic header.
pub(crate) const HEADER_SIZE: usize = 1024;
/// The same as a length.
const LENGTH: u64 = 1024;
/// Where its checksum stands.
pub(crate) const HEADER_CHECKSUM_AT: usize = 0x24;
/// Places of fields.
pub(super) const ENTRIES_AT: usize = 0x1c;
pub(super) const DATA_OFFSET_AT: usize = 0x08;
pub(super) const TABLE_AT: usize = 0x10;
pub(super) const VERSION_AT: usize = 0x18;
pub(super) const BLOCK_AT: usize = 0x20;
pub(super) const PARENT_ID_AT: usize = 0x28;
pub(super) const PARENT_TIME_AT: usize = 0x38;
pub(super) const PARENT_NAME_AT: usize = 0x40;
/// Bytes of the parent's name, UTF-16 with the most significant byte first.
pub(super) const PARENT_NAME_BYTES: usize = 512;
pub(super) const LOCATORS_AT: usize = 0x240;
/// Bytes of a locator's entry, of which there are eight.
pub(super) const LOCATOR: usize = 24;
/// Longest locator that is read.
const LOCATOR_MAX: u64 = 1 << 16;

/// What the dynamic header says.
pub(super) struct Header {
    /// Where it stands.
    pub(super) at: u64,
    /// Its bytes, as they stand.
    bytes: Vec<u8>,
    pub(super) table: u64,
    pub(super) entries: u32,
    pub(super) block: u64,
}

impl Header {
    /// Looks at what every header must say.
    pub(super) fn look(&self, findings: &mut Findings) {
        let next = be_u64(&self.bytes, DATA_OFFSET_AT).unwrap_or(0);
        if next != u64::MAX {
            let place = (self.at.saturating_add(8), 8);
            let path = "dynamic header, data offset";
            findings.add(
                &rules::HEADER_DATA_OFFSET,
                place,
                path,
                format_args!("{next:#x}"),
                "all ones",
            );
        }
    }

    /// What its bytes say, whatever their checksum.
    pub(super) fn parse(bytes: Vec<u8>, at: u64) -> Result<Self> {
        if !bytes.starts_with(COOKIE) {
            return Err(Error::corrupt("has no cookie cxsparse"));
        }
        if at < SECTOR {
            return Err(Error::corrupt("stands inside the copy of the footer"));
        }
        let version = be_u32(&bytes, VERSION_AT).unwrap_or(0);
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format_args!(
                "version {version:#010x}, known is 1.x"
            )));
        }
        let block = be_u32(&bytes, BLOCK_AT).unwrap_or(0);
        if !block.is_power_of_two() || u64::from(block) < SECTOR {
            return Err(Error::corrupt(format_args!(
                "block size {block} is no power of two from 512 on"
            )));
        }
        let table = be_u64(&bytes, TABLE_AT).unwrap_or(0);
        if table < SECTOR || (table < at.saturating_add(LENGTH) && at < table.saturating_add(1)) {
            return Err(Error::corrupt(format_args!(
                "BAT at {table}, inside the header or the copy of the footer"
            )));
        }
        Ok(Self {
            at,
            table,
            entries: be_u32(&bytes, ENTRIES_AT).unwrap_or(0),
            block: u64::from(block),
            bytes,
        })
    }

    /// The header with the fields set right that say nothing of the disk, and another number of entries, without the
    /// locators of these numbers.
    pub(super) fn mended(&self, entries: u32, without: &[u64]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for number in without {
            let place = LOCATORS_AT.saturating_add(index(*number).saturating_mul(LOCATOR));
            if let Some(entry) = bytes.get_mut(place..place.saturating_add(LOCATOR)) {
                entry.fill(0);
            }
        }
        for (at, new) in [
            (DATA_OFFSET_AT, u64::MAX.to_be_bytes().as_slice()),
            (ENTRIES_AT, entries.to_be_bytes().as_slice()),
        ] {
            if let Some(place) = bytes.get_mut(at..at.saturating_add(new.len())) {
                place.copy_from_slice(new);
            }
        }
        seal(&mut bytes, HEADER_CHECKSUM_AT);
        bytes
    }

    /// End of the header.
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(LENGTH)
    }

    /// Sectors of the sector bitmap and the data of a block.
    pub(super) fn slot(&self) -> u64 {
        bitmap_bytes(self.block).saturating_add(self.block)
    }

    /// UUID of the parent.
    pub(super) fn parent_id(&self) -> [u8; 16] {
        array_at(&self.bytes, PARENT_ID_AT).unwrap_or([0; 16])
    }

    /// When the parent was last written, in seconds since 2000; 0 when that is not said.
    pub(super) fn parent_time(&self) -> u32 {
        be_u32(&self.bytes, PARENT_TIME_AT).unwrap_or(0)
    }

    /// The parent's name in the header.
    pub(super) fn parent_name(&self) -> String {
        let end = PARENT_NAME_AT.saturating_add(PARENT_NAME_BYTES);
        let bytes = self.bytes.get(PARENT_NAME_AT..end).unwrap_or_default();
        utf16(bytes, u16::from_be_bytes)
    }

    /// The locators that are not empty.
    pub(super) fn locators(&self) -> Vec<Locator> {
        let entries = self.bytes.get(LOCATORS_AT..).unwrap_or_default();
        let entries = (0u64..8).zip(entries.chunks_exact(LOCATOR));
        let read = |(number, entry): (u64, &[u8])| {
            Some(Locator {
                number,
                code: array_at(entry, 0)?,
                space: be_u32(entry, 4)?,
                length: be_u32(entry, 8)?,
                offset: be_u64(entry, 16)?,
            })
        };
        let all = entries.filter_map(read);
        all.filter(|locator| locator.code != [0; 4]).collect()
    }
}

/// The bytes of the header at a place.
pub(super) fn header_bytes(source: &dyn ReadAt, at: u64, limits: &Limits) -> Result<Vec<u8>> {
    read_vec(source, "VHD dynamic header", at, LENGTH, limits)
}

/// Bytes of the sector bitmap in front of a block.
pub(crate) fn bitmap_bytes(block: u64) -> u64 {
    round_up(div_up(crate::math::div(block, SECTOR), 8), SECTOR)
}

/// One of the places of the file that say where the parent is.
pub(super) struct Locator {
    pub(super) number: u64,
    /// Platform code: `W2ru`, `W2ku`, `MacX`, and others that are not read.
    pub(super) code: [u8; 4],
    /// Room for the data, in sectors by the specification and in bytes by Microsoft's programs.
    pub(super) space: u32,
    /// Bytes of the data.
    pub(super) length: u32,
    pub(super) offset: u64,
}

impl Locator {
    /// The range of the file that its data take.
    pub(super) fn range(&self) -> (u64, u64) {
        let end = self.offset.saturating_add(u64::from(self.length));
        (self.offset, end)
    }

    /// The path, as it is written there, and how many of the bytes it takes: what is behind a NUL is none of it.
    pub(super) fn path(&self, source: &dyn ReadAt) -> Result<(String, u64)> {
        let length = u64::from(self.length);
        if length > LOCATOR_MAX || length > u64::from(self.space).saturating_mul(SECTOR) {
            return Err(Error::corrupt(format_args!(
                "{length} bytes, more than its space of {} or than {LOCATOR_MAX}",
                self.space
            )));
        }
        let bytes = read_vec(source, "locator", self.offset, length, &Limits::DEFAULT)?;
        let (path, used) = match &self.code {
            b"W2ru" | b"W2ku" => {
                let (words, _) = bytes.as_chunks::<2>();
                let end = words.iter().position(|word| *word == [0, 0]);
                let used = end.map_or(length, |end| {
                    len64(words.get(..end).unwrap_or_default()).saturating_mul(2)
                });
                (utf16(&bytes, u16::from_le_bytes), used)
            }
            b"MacX" => {
                let end = bytes.iter().position(|byte| *byte == 0);
                let used = end.map_or(length, |end| len64(bytes.get(..end).unwrap_or_default()));
                (url(&String::from_utf8_lossy(&bytes)), used)
            }
            _ => (String::new(), 0),
        };
        if path.is_empty() || path.contains('\u{fffd}') {
            return Err(Error::corrupt("no text of its platform"));
        }
        Ok((path, used))
    }
}

/// UTF-16 up to a NUL; what is none becomes U+FFFD.
fn utf16(bytes: &[u8], word: fn([u8; 2]) -> u16) -> String {
    let (words, _) = bytes.as_chunks::<2>();
    let words = words.iter().map(|pair| word(*pair)).take_while(|w| *w != 0);
    char::decode_utf16(words)
        .map(|found| found.unwrap_or('\u{fffd}'))
        .collect()
}

/// The path of a file URL, percent-decoded.
fn url(text: &str) -> String {
    let path = text.strip_prefix("file://").unwrap_or(text);
    let path = path.split('\0').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let mut pair = rest.clone();
        let digits = (pair.next(), pair.next());
        let digit = |c: Option<u8>| char::from(c?).to_digit(16);
        match (byte, digit(digits.0), digit(digits.1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from((high << 4) | low).unwrap_or(0));
                rest = pair;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_url_is_decoded_and_bad_escapes_stay() {
        assert_eq!(url("file://localhost/a%20b/c%zz%4"), "localhost/a b/c%zz%4");
    }
}
