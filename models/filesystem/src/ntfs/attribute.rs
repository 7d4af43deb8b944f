//! Attributes of a file record.

use super::record::Header;
use super::runlist::{self, Run};
use drylab_block::{Error, Result, le_u16, le_u32, le_u64, slice_at};
use std::ops::Range;

pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
pub(crate) const FILE_NAME: u32 = 0x30;
pub(crate) const VOLUME_NAME: u32 = 0x60;
pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
pub(crate) const DATA: u32 = 0x80;
pub(crate) const INDEX_ROOT: u32 = 0x90;
pub(crate) const INDEX_ALLOCATION: u32 = 0xA0;
pub(crate) const REPARSE_POINT: u32 = 0xC0;
const END: u32 = u32::MAX;

/// Compression methods in the flags of an attribute.
pub(crate) const COMPRESSED: u16 = 0x00FF;
pub(crate) const ENCRYPTED: u16 = 0x4000;
pub(crate) const SPARSE: u16 = 0x8000;

/// Where the content of an attribute is.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// In the record itself.
    Resident(Range<usize>),
    /// In clusters; a stream may be described in several attributes, sizes stand in the first.
    Clusters(Clusters),
}

/// One part of a stream in clusters.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) lowest_vcn: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) data_size: u64,
    pub(crate) initialized: u64,
    /// Exponent of the compression unit in clusters, 0 when not compressed.
    pub(crate) unit: u16,
}

/// One attribute.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) kind: u32,
    /// Name of the stream in UTF-16 units; empty for the main one.
    pub(crate) name: Vec<u16>,
    pub(crate) flags: u16,
    /// Where the attribute stands in its record.
    pub(crate) at: Range<usize>,
    pub(crate) form: Form,
}

/// UTF-16 units of little-endian bytes.
pub(crate) fn units(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .filter_map(|pair| le_u16(pair, 0))
        .collect()
}

/// The attributes of a record, in order.
pub(crate) fn parse_all(
    record: &[u8],
    header: &Header,
    number: u64,
    clusters: u64,
) -> Result<Vec<Attribute>> {
    let mut found = Vec::new();
    let mut at = header.attributes_at;
    loop {
        let place = || format!("file record {number}, attribute at {at:#x}");
        let Some(kind) = le_u32(record, at).filter(|_| at.saturating_add(4) <= header.used) else {
            return Err(Error::corrupt(format_args!(
                "file record {number}: attributes do not end within {}",
                header.used
            )));
        };
        if kind == END {
            return Ok(found);
        }
        let length = le_u32(record, at.saturating_add(4))
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        let end = at.saturating_add(length);
        if length < 0x18 || !length.is_multiple_of(8) || end > header.used {
            return Err(Error::corrupt(format_args!(
                "{}: length {length} does not fit {} bytes in use",
                place(),
                header.used
            )));
        }
        let bytes = record.get(at..end).unwrap_or_default();
        let cut = || {
            Error::corrupt(format_args!(
                "{}: a field ends past its {length} bytes",
                place()
            ))
        };
        let attribute = parse(bytes, kind, at, clusters).map_err(|error| error.within(place()))?;
        found.push(attribute.ok_or_else(cut)?);
        at = end;
    }
}

fn parse(bytes: &[u8], kind: u32, at: usize, clusters: u64) -> Result<Option<Attribute>> {
    let fields = || {
        let name_length = usize::from(*bytes.get(9)?);
        let name_at = usize::from(le_u16(bytes, 0x0A)?);
        let name = slice_at(bytes, name_at, name_length.checked_mul(2)?)?;
        Some((*bytes.get(8)? != 0, units(name), le_u16(bytes, 0x0C)?))
    };
    let Some((outside, name, flags)) = fields() else {
        return Ok(None);
    };
    let form = if outside {
        clusters_form(bytes, clusters)?
    } else {
        resident_form(bytes, at)
    };
    let range = at..at.saturating_add(bytes.len());
    Ok(form.map(|form| Attribute {
        kind,
        name,
        flags,
        at: range,
        form,
    }))
}

fn resident_form(bytes: &[u8], at: usize) -> Option<Form> {
    let length = usize::try_from(le_u32(bytes, 0x10)?).ok()?;
    let value_at = usize::from(le_u16(bytes, 0x14)?);
    slice_at(bytes, value_at, length)?;
    let start = at.checked_add(value_at)?;
    Some(Form::Resident(start..start.checked_add(length)?))
}

fn clusters_form(bytes: &[u8], clusters: u64) -> Result<Option<Form>> {
    let fields = || {
        let pairs = bytes.get(usize::from(le_u16(bytes, 0x20)?)..)?;
        let (lowest, highest) = (le_u64(bytes, 0x10)?, le_u64(bytes, 0x18)?);
        let sizes = (le_u64(bytes, 0x30)?, le_u64(bytes, 0x38)?);
        Some((pairs, lowest, highest, le_u16(bytes, 0x22)?, sizes))
    };
    let Some((pairs, lowest_vcn, highest, unit, (data_size, initialized))) = fields() else {
        return Ok(None);
    };
    if lowest_vcn > i64::MAX.unsigned_abs() {
        return Err(Error::corrupt(format_args!(
            "lowest cluster {lowest_vcn} of the stream is out of range"
        )));
    }
    let runs = runlist::decode(pairs, lowest_vcn, clusters)?;
    let end = runs
        .last()
        .map_or(lowest_vcn, |run| run.vcn.saturating_add(run.clusters));
    if end != highest.wrapping_add(1) {
        return Err(Error::corrupt(format_args!(
            "runs end at cluster {end}, the highest is said to be {highest}"
        )));
    }
    Ok(Some(Form::Clusters(Clusters {
        lowest_vcn,
        runs,
        data_size,
        initialized,
        unit,
    })))
}
