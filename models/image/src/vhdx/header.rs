//! The header section: file type identifier, the two headers, and how they take turns.

use super::guid::Guid;
use super::rules;
use crate::edit::{Edit, Plan};
use crate::finding::Findings;
use drylab_block::{Error, ReadAt, Result, array_at, le_u16, le_u32, le_u64, slice_at};

/// First bytes of every file.
pub(crate) const MAGIC: &[u8; 8] = b"vhdxfile";
/// Bytes of the creator string in the file type identifier: 256 characters.
pub(crate) const CREATOR_BYTES: usize = 512;
/// Where the two headers stand.
pub(crate) const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
/// Bytes of a header that are covered by its checksum.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Bytes of the header section, in front of which nothing else may stand.
pub(crate) const SECTION: u64 = 1 << 20;

/// CRC-32C of a structure whose checksum stands in bytes 4 to 7, which count as zeros.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c(bytes.get(..4).unwrap_or_default());
    let zeroed = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(zeroed, bytes.get(8..).unwrap_or_default())
}

/// Sets the checksum of a structure right.
pub(crate) fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes).to_le_bytes();
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&sum);
    }
}

/// Whether the checksum of a structure is right, or what it is and should be.
pub(crate) fn verify(bytes: &[u8]) -> Result<()> {
    let (found, right) = (le_u32(bytes, 4).unwrap_or(0), checksum(bytes));
    if found != right {
        return Err(Error::corrupt(format_args!(
            "checksum {found:#010x}, the bytes have {right:#010x}"
        )));
    }
    Ok(())
}

fn guid(bytes: &[u8], offset: usize) -> Guid {
    Guid(array_at(bytes, offset).unwrap_or_default())
}

/// One of the two headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence_number: u64,
    pub(crate) file_write_guid: Guid,
    pub(crate) data_write_guid: Guid,
    pub(crate) log_guid: Guid,
    pub(crate) log_version: u16,
    pub(crate) version: u16,
    pub(crate) log_length: u32,
    pub(crate) log_offset: u64,
}

impl Header {
    /// Reads the 4096 bytes of a header whose signature and checksum are right.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let header = Self::unverified(bytes)?;
        verify(bytes)?;
        Ok(header)
    }

    /// Reads the 4096 bytes of a header whose signature is right.
    fn unverified(bytes: &[u8]) -> Result<Self> {
        if slice_at(bytes, 0, 4) != Some(b"head") {
            return Err(Error::corrupt("no signature head"));
        }
        Ok(Self {
            sequence_number: le_u64(bytes, 8).unwrap_or(0),
            file_write_guid: guid(bytes, 16),
            data_write_guid: guid(bytes, 32),
            log_guid: guid(bytes, 48),
            log_version: le_u16(bytes, 64).unwrap_or(0),
            version: le_u16(bytes, 66).unwrap_or(0),
            log_length: le_u32(bytes, 68).unwrap_or(0),
            log_offset: le_u64(bytes, 72).unwrap_or(0),
        })
    }

    /// The 4096 bytes, sealed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(b"head\0\0\0\0");
        bytes.extend_from_slice(&self.sequence_number.to_le_bytes());
        for guid in [self.file_write_guid, self.data_write_guid, self.log_guid] {
            bytes.extend_from_slice(&guid.0);
        }
        bytes.extend_from_slice(&self.log_version.to_le_bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.log_length.to_le_bytes());
        bytes.extend_from_slice(&self.log_offset.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        seal(&mut bytes);
        bytes
    }

    /// First byte behind the log.
    pub(crate) fn log_end(&self) -> u64 {
        self.log_offset.saturating_add(u64::from(self.log_length))
    }
}

/// Both headers as they stand in the file.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    slots: [Vec<u8>; 2],
    /// Whether the second one is current.
    second: bool,
    pub(crate) current: Header,
}

impl Headers {
    /// Reads both and takes the current one: valid, with the greater sequence number.
    pub(crate) fn read(source: &dyn ReadAt, findings: &mut Findings) -> Result<Self> {
        let slot = |place: u64| -> Result<Vec<u8>> {
            let mut bytes = vec![0; HEADER_BYTES];
            let end = place.saturating_add(crate::math::len64(&bytes));
            if end > source.len() {
                return Err(Error::corrupt(format_args!(
                    "VHDX of {} bytes ends before its header at {place}",
                    source.len()
                )));
            }
            source.read_at(place, &mut bytes).map(|()| bytes)
        };
        let [first, second] = HEADERS_AT;
        let slots = [slot(first)?, slot(second)?];
        let parsed = slots.each_ref().map(|bytes| Header::parse(bytes));
        for (place, found) in HEADERS_AT.into_iter().zip(&parsed) {
            if let Err(error) = found {
                let path = format!("header at {place}");
                findings.add(
                    &rules::HEADER,
                    (place, 4096),
                    path,
                    format_args!("wrong ({error})"),
                    "a header",
                );
            }
        }
        let (second, current) = match parsed {
            [Ok(one), Ok(two)] if one.sequence_number == two.sequence_number => {
                if one != two {
                    return Err(Error::corrupt(format_args!(
                        "VHDX headers differ and both have sequence number {}, so that neither is current",
                        one.sequence_number
                    )));
                }
                (false, one)
            }
            [Ok(one), Ok(two)] if one.sequence_number > two.sequence_number => (false, one),
            [Ok(one), Err(_)] => (false, one),
            [_, Ok(two)] => (true, two),
            [Err(one), Err(two)] => {
                let wrong = Error::corrupt(format_args!(
                    "VHDX has no valid header: the one at 65536 has {one}; the one at 131072 has {two}"
                ));
                rescued(&slots, findings).ok_or(wrong)?
            }
        };
        if current.version != 1 {
            return Err(Error::unsupported(format_args!(
                "VHDX version {}, known is 1",
                current.version
            )));
        }
        Ok(Self {
            slots,
            second,
            current,
        })
    }

    /// The current header with a new FileWriteGuid, and a new DataWriteGuid when the guest can see the change.
    pub(crate) fn renewed(&self, data: bool) -> Header {
        let mut header = self.current.clone();
        let sequence = header.sequence_number;
        header.file_write_guid = header.file_write_guid.following(sequence);
        if data {
            header.data_write_guid = header.data_write_guid.following(sequence);
        }
        header
    }

    /// Plans the procedure of section 2.2.2.1, twice: the header that is not current is written with the next sequence
    /// number, and everything is flushed.
    pub(crate) fn update(&mut self, plan: &mut Plan, header: &Header) -> Result<()> {
        for _ in 0..2 {
            let mut next = header.clone();
            next.sequence_number =
                self.current.sequence_number.checked_add(1).ok_or_else(|| {
                    Error::unsupported("VHDX header has the last sequence number, 2^64 - 1")
                })?;
            let bytes = next.to_bytes();
            let [first, second] = &mut self.slots;
            let [first_at, second_at] = HEADERS_AT;
            let (slot, offset) = if self.second {
                (first, first_at)
            } else {
                (second, second_at)
            };
            let old = std::mem::replace(slot, bytes.clone());
            plan.push(Edit::Write {
                offset,
                old,
                new: bytes,
            });
            plan.push(Edit::Flush);
            self.second = !self.second;
            self.current = next;
        }
        Ok(())
    }
}

/// What stands in for the current header when the checksums of both are wrong: the one with the greater number, if
/// neither says that a log has to be replayed. All that the guest sees hangs on the region tables, which have checksums of
/// their own.
fn rescued(slots: &[Vec<u8>; 2], findings: &mut Findings) -> Option<(bool, Header)> {
    let [one, two] = slots.each_ref().map(|bytes| Header::unverified(bytes).ok());
    let closed = |header: &Header| header.log_guid == Guid::ZERO && header.version == 1;
    let usable = [&one, &two].into_iter().flatten().all(closed);
    let found = match (one, two) {
        (Some(one), Some(two)) if one.sequence_number >= two.sequence_number => (false, one),
        (Some(one), None) => (false, one),
        (_, Some(two)) => (true, two),
        (None, None) => return None,
    };
    let [first, second] = HEADERS_AT;
    findings.add(
        &rules::NO_HEADER,
        (if found.0 { second } else { first }, 4096),
        "headers",
        "both with wrong checksums",
        "one that is right",
    );
    Some(found).filter(|_| usable)
}

/// The program that made a file: up to 256 UTF-16 characters behind the magic.
pub(crate) fn creator(source: &dyn ReadAt) -> Result<String> {
    let mut bytes = [0; CREATOR_BYTES];
    source.read_at(8, &mut bytes)?;
    let (units, _) = bytes.as_chunks::<2>();
    let text = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let text: Vec<u16> = text.take_while(|unit| *unit != 0).collect();
    Ok(String::from_utf16_lossy(&text))
}
