//! LVM2 physical volumes: label, headers and the committed metadata text.
//!
//! Sources: lvm2's own on-disk structures as described in libvslvm's "Logical Volume Manager (LVM) format", checked
//! against volumes that lvm2 2.03 made. All integers are little-endian.
//!
//! ```text
//! one of the first four sectors:                     metadata area (place and size from the header):
//! 0x00  "LABELONE"                                   0x00  crc u32 over 4..512
//! 0x08  sector the label stands in, u64              0x04  20 4c 56 4d 32 20 78 5b 35 41 25 72 30 4e 2a 3e
//! 0x10  crc u32 over 0x14..0x200                     0x14  version u32 = 1
//! 0x14  offset of the header in the sector, u32      0x18  start of the area on the volume, u64
//! 0x18  "LVM2 001"                                   0x20  size of the area, u64
//! header:  uuid (32 characters), size u64,           0x28  text: offset u64, size u64, crc u32, flags u32
//!          data areas (offset u64, size u64)…, 0,0,  0x200 ring buffer with the text
//!          metadata areas (offset, size)…, 0,0
//! ```
//!
//! The checksum is CRC-32 (reflected 0xedb88320) seeded with 0xf597a6cf, not inverted at the end.

mod group;
mod text;

pub(crate) use group::logical_volumes;
pub use group::{Group, Role as VolumeRole};
pub use text::{Node, Section, parse as parse_text};

use crate::map::Spot;
use drylab_block::{
    Error, Finding, Limits, ReadAt, Result, Severity, le_u32, le_u64, read_vec, slice_at,
};

/// A physical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// UUID, dashed as LVM prints it.
    pub uuid: String,
    /// Where its first byte stands.
    pub at: Spot,
    /// Bytes really there.
    pub length: u64,
    /// Bytes the header claims.
    pub claimed: u64,
}

const SEED: u32 = 0xf597_a6cf;
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
const AREAS_MAX: usize = 16;

fn checksum(bytes: &[u8], seed: u32) -> u32 {
    bytes.iter().fold(seed, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
        crc
    })
}

/// Reads the label and metadata of a volume; `None` when it is no physical volume.
///
/// A damaged label or damaged metadata is a finding: what else stands on the disk can still be read.
///
/// # Errors
/// [`Error::Io`] when the source cannot be read.
pub fn read_physical(
    source: &dyn ReadAt,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<Option<(PhysicalVolume, Option<Group>)>> {
    let mut note = |code, offset, message: String| {
        findings.push(Finding {
            code,
            severity: Severity::Error,
            offset,
            message,
        });
    };
    for index in 0..4u64 {
        let start = index.saturating_mul(512);
        if start.saturating_add(512) > source.len() {
            return Ok(None);
        }
        let mut sector = [0u8; 512];
        source.read_at(start, &mut sector)?;
        if slice_at(&sector, 0, 8) != Some(b"LABELONE")
            || slice_at(&sector, 0x18, 8) != Some(b"LVM2 001")
        {
            continue;
        }
        if le_u64(&sector, 8) != Some(index) {
            continue;
        }
        let want = le_u32(&sector, 0x10).unwrap_or(0);
        let have = checksum(sector.get(0x14..).unwrap_or_default(), SEED);
        if want != have {
            note(
                "LVM-LABEL-CHECKSUM",
                start,
                format!("the label's checksum is {want:#010x}, its bytes give {have:#010x}"),
            );
            continue;
        }
        let Some(header) = Header::parse(&sector) else {
            note(
                "LVM-HEADER",
                start,
                "the physical volume header leaves the label's sector".into(),
            );
            continue;
        };
        let pv = PhysicalVolume {
            uuid: header.uuid.clone(),
            at: Spot { disk: 0, offset: 0 },
            length: source.len(),
            claimed: header.size,
        };
        if header.size > source.len() {
            let message = format!(
                "physical volume {} claims {} bytes and its device has {}",
                header.uuid,
                header.size,
                source.len()
            );
            findings.push(Finding {
                code: "LVM-PV-BIGGER-THAN-DEVICE",
                severity: Severity::Error,
                offset: start,
                message,
            });
        }
        let group = newest_group(source, &header, limits, findings)?;
        return Ok(Some((pv, group)));
    }
    Ok(None)
}

struct Header {
    uuid: String,
    size: u64,
    metadata: Vec<(u64, u64)>,
}

impl Header {
    fn parse(sector: &[u8; 512]) -> Option<Self> {
        let mut at = usize::try_from(le_u32(sector, 0x14)?).ok()?;
        let uuid = dashed(slice_at(sector, at, 32)?)?;
        at = at.checked_add(32)?;
        let size = le_u64(sector, at)?;
        at = at.checked_add(8)?;
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            loop {
                let area = (le_u64(sector, at)?, le_u64(sector, at.checked_add(8)?)?);
                at = at.checked_add(16)?;
                if area.0 == 0 || list.len() >= AREAS_MAX {
                    break;
                }
                list.push(area);
            }
        }
        let [_, metadata] = lists;
        Some(Self {
            uuid,
            size,
            metadata,
        })
    }
}

/// 32 characters in groups of 6-4-4-4-4-4-6.
fn dashed(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let mut out = String::new();
    for (index, letter) in text.chars().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(letter);
    }
    Some(out)
}

fn newest_group(
    source: &dyn ReadAt,
    header: &Header,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<Option<Group>> {
    let mut newest: Option<Group> = None;
    for (start, size) in &header.metadata {
        match read_area(source, *start, *size, limits) {
            Ok(Some(group)) => {
                if newest
                    .as_ref()
                    .is_none_or(|known| known.seqno < group.seqno)
                {
                    newest = Some(group);
                }
            }
            Ok(None) => {}
            Err(Error::Io(what)) => return Err(Error::Io(what)),
            Err(error) => findings.push(Finding {
                code: "LVM-METADATA",
                severity: Severity::Error,
                offset: *start,
                message: format!(
                    "metadata area at {start} of physical volume {}: {error}",
                    header.uuid
                ),
            }),
        }
    }
    Ok(newest)
}

/// The committed text of one area; `None` for an area that is empty or marked ignored.
fn read_area(source: &dyn ReadAt, start: u64, size: u64, limits: &Limits) -> Result<Option<Group>> {
    let bytes = read_vec(source, "metadata area header", start, 512, limits)?;
    let field = |offset| le_u64(&bytes, offset).unwrap_or(0);
    let short = |offset| le_u32(&bytes, offset).unwrap_or(0);
    if slice_at(&bytes, 4, 16) != Some(MAGIC) {
        return Err(Error::corrupt("the area does not begin with its magic"));
    }
    let have = checksum(bytes.get(4..).unwrap_or_default(), SEED);
    if short(0) != have {
        return Err(Error::corrupt(format_args!(
            "header checksum is {:#010x}, its bytes give {have:#010x}",
            short(0)
        )));
    }
    if short(0x14) != 1 {
        return Err(Error::unsupported(format_args!(
            "metadata area version {} (known: 1)",
            short(0x14)
        )));
    }
    let area = field(0x20);
    // A size of 0 in the physical volume header means "to the end".
    if field(0x18) != start || (size != 0 && area > size) || area < 512 {
        return Err(Error::corrupt(format_args!(
            "header describes {area} bytes at {}, the volume's header {size} bytes at {start}",
            field(0x18)
        )));
    }
    let (offset, length, want, flags) = (field(0x28), field(0x30), short(0x38), short(0x3c));
    if offset == 0 || length == 0 || flags & 1 != 0 {
        return Ok(None);
    }
    let ring = area.saturating_sub(512);
    if offset < 512 || offset >= area || length > ring || length > limits.text_bytes_max {
        return Err(Error::corrupt(format_args!(
            "text of {length} bytes at {offset} leaves its area of {area} bytes"
        )));
    }
    let first = length.min(area.saturating_sub(offset));
    let mut text = read_vec(
        source,
        "metadata text",
        start.saturating_add(offset),
        first,
        limits,
    )?;
    // The text is written in a ring: what does not fit before the end goes on behind the header.
    text.extend(read_vec(
        source,
        "metadata text",
        start.saturating_add(512),
        length.saturating_sub(first),
        limits,
    )?);
    let have = checksum(&text, SEED);
    if have != want {
        return Err(Error::corrupt(format_args!(
            "text checksum is {want:#010x}, its bytes give {have:#010x}"
        )));
    }
    Group::from_text(&parse_text(&text, limits)?).map(Some)
}

/// Sets the checksums of label, metadata area headers and text to what their bytes give, so that damage behind them
/// is reached.
pub fn mend_checksums(bytes: &mut [u8]) {
    for index in 0..4usize {
        let start = index.saturating_mul(512);
        let Some(sector) = bytes.get_mut(start..start.saturating_add(512)) else {
            return;
        };
        if sector.starts_with(b"LABELONE") {
            set_checksum(sector, 0x10, 0x14);
        }
    }
    let areas: Vec<usize> = (0..bytes.len().min(1 << 20))
        .step_by(512)
        .filter(|at| slice_at(bytes, at.saturating_add(4), 16) == Some(MAGIC))
        .collect();
    for at in areas {
        let text = slice_at(bytes, at, 512).and_then(|header| {
            let offset = usize::try_from(le_u64(header, 0x28)?).ok()?;
            let length = usize::try_from(le_u64(header, 0x30)?).ok()?;
            slice_at(bytes, at.checked_add(offset)?, length).map(|text| checksum(text, SEED))
        });
        let Some(header) = bytes.get_mut(at..at.saturating_add(512)) else {
            continue;
        };
        if let (Some(crc), Some(field)) = (text, header.get_mut(0x38..0x3c)) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        mend_header_checksum(header);
    }
}

/// Sets the checksum of one metadata area header.
pub fn mend_header_checksum(header: &mut [u8]) {
    set_checksum(header, 0, 4);
}

fn set_checksum(bytes: &mut [u8], field: usize, from: usize) {
    let crc = checksum(bytes.get(from..).unwrap_or_default(), SEED);
    if let Some(field) = bytes.get_mut(field..field.saturating_add(4)) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}
