//! The footer, wherever it stands.

use super::header::{HEADER_CHECKSUM_AT, HEADER_SIZE};
use super::rules;
use super::{Creator, Geometry, SECTOR};
use crate::finding::Findings;
use drylab_block::{Error, Limits, ReadAt, Result, array_at, be_u16, be_u32, be_u64, read_vec};

const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a footer.
pub(crate) const SIZE: usize = 512;
/// The same as a length; old versions of Virtual PC wrote one byte less.
const LENGTHS: [u64; 2] = [512, 511];
const CHECKSUM_AT: usize = 0x40;
/// What is behind the saved state means nothing and is zero.
const RESERVED_AT: usize = 0x55;
/// Features: the reserved bit that is always set.
const FEATURES: u32 = 2;
/// Version 1.0 of footer and header.
pub(crate) const VERSION: u32 = 0x0001_0000;

/// How a VHD stores its disk.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// All of it, in front of the footer.
    Fixed,
    /// Blocks that were written.
    Dynamic,
    /// Blocks that differ from a parent.
    Differencing,
}

impl Kind {
    /// The name users read: `fixed`, `dynamic`, `differencing`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Fixed => 2,
            Self::Dynamic => 3,
            Self::Differencing => 4,
        }
    }
}

/// What a footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Byte offset of the dynamic header; all ones in a fixed disk.
    pub data_offset: u64,
    /// Seconds since 2000-01-01 00:00 UTC at which the file was made.
    pub timestamp: u32,
    /// The program that made the file.
    pub creator: Creator,
    /// Its version, major number in the upper half.
    pub creator_version: u32,
    /// The system it ran on: `Wi2k` or `Mac `.
    pub creator_os: [u8; 4],
    /// Bytes of the disk when it was made.
    pub original_size: u64,
    /// Bytes of the disk now.
    pub current_size: u64,
    /// The size again, as a geometry.
    pub geometry: Geometry,
    /// How the disk is stored.
    pub kind: Kind,
    /// UUID, big-endian.
    pub unique_id: [u8; 16],
    /// Whether the machine was suspended with the disk in use.
    pub saved_state: bool,
}

impl Footer {
    /// Parses a footer that stands at byte `place` of its file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a wrong checksum, [`Error::Unsupported`] for another version or type.
    pub(crate) fn parse(bytes: &[u8], place: u64) -> Result<Self> {
        verify("VHD footer", bytes, CHECKSUM_AT)
            .and_then(|()| Self::checked(bytes))
            .map_err(|error| error.within(format_args!("VHD footer at offset {place}")))
    }

    fn checked(bytes: &[u8]) -> Result<Self> {
        let version = be_u32(bytes, 0x0c).unwrap_or(0);
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format_args!(
                "version {version:#010x}, known is 1.x"
            )));
        }
        let kind = match be_u32(bytes, 0x3c).unwrap_or(0) {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => {
                return Err(Error::unsupported(format_args!(
                    "disk type {other}, known are 2 (fixed), 3 (dynamic) and 4 (differencing)"
                )));
            }
        };
        Self::fields(bytes, kind)
            .ok_or_else(|| Error::corrupt(format_args!("is shorter than {SIZE} bytes")))
    }

    fn fields(bytes: &[u8], kind: Kind) -> Option<Self> {
        Some(Self {
            data_offset: be_u64(bytes, 0x10)?,
            timestamp: be_u32(bytes, 0x18)?,
            creator: Creator(array_at(bytes, 0x1c)?),
            creator_version: be_u32(bytes, 0x20)?,
            creator_os: array_at(bytes, 0x24)?,
            original_size: be_u64(bytes, 0x28)?,
            current_size: be_u64(bytes, 0x30)?,
            geometry: Geometry {
                cylinders: be_u16(bytes, 0x38)?,
                heads: *bytes.get(0x3a)?,
                sectors_per_track: *bytes.get(0x3b)?,
            },
            kind,
            unique_id: array_at(bytes, 0x44)?,
            saved_state: *bytes.get(0x54)? != 0,
        })
    }

    /// The 512 bytes on disk.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(COOKIE);
        bytes.extend_from_slice(&FEATURES.to_be_bytes());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.data_offset.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.creator.0);
        bytes.extend_from_slice(&self.creator_version.to_be_bytes());
        bytes.extend_from_slice(&self.creator_os);
        bytes.extend_from_slice(&self.original_size.to_be_bytes());
        bytes.extend_from_slice(&self.current_size.to_be_bytes());
        bytes.extend_from_slice(&self.geometry.cylinders.to_be_bytes());
        bytes.extend_from_slice(&[self.geometry.heads, self.geometry.sectors_per_track]);
        bytes.extend_from_slice(&self.kind.number().to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.unique_id);
        bytes.push(u8::from(self.saved_state));
        bytes.resize(SIZE, 0);
        seal(&mut bytes, CHECKSUM_AT);
        bytes
    }

    /// The fields in the specification's words.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        let id: String = self.unique_id.iter().map(|b| format!("{b:02x}")).collect();
        let (major, minor) = (self.creator_version >> 16, self.creator_version & 0xffff);
        [
            ("creatorApplication", self.creator.to_string()),
            ("creatorVersion", format!("{major}.{minor}")),
            ("creatorHostOS", self.creator_os.escape_ascii().to_string()),
            ("timestamp", self.timestamp.to_string()),
            ("originalSize", self.original_size.to_string()),
            ("currentSize", self.current_size.to_string()),
            ("geometry", self.geometry.to_string()),
            ("geometrySize", self.geometry.bytes().to_string()),
            ("uniqueId", id),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}

/// One's complement of the sum of all bytes, the checksum's own four taken for zeros.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    let others = bytes.iter().enumerate().filter(|(i, _)| !own.contains(i));
    !others.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// Puts the checksum at its place.
pub(crate) fn seal(bytes: &mut [u8], at: usize) {
    let sum = checksum(bytes, at).to_be_bytes();
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&sum);
    }
}

/// Compares the checksum at `at` with the bytes.
pub(crate) fn verify(what: &str, bytes: &[u8], at: usize) -> Result<()> {
    let (said, sum) = (be_u32(bytes, at).unwrap_or(0), checksum(bytes, at));
    if said == sum {
        return Ok(());
    }
    Err(Error::corrupt(format_args!(
        "{what} has checksum {said:#010x}, its bytes give {sum:#010x}"
    )))
}

/// Whether bytes start as a footer does.
pub(crate) fn is_cookie(bytes: &[u8]) -> bool {
    bytes.starts_with(COOKIE)
}

/// Sets right the checksums of whatever footers and dynamic headers a file has.
pub(crate) fn mend(bytes: &mut [u8]) {
    for place in [0, bytes.len().saturating_sub(SIZE)] {
        let found = bytes.get_mut(place..place.saturating_add(SIZE));
        let Some(footer) = found.filter(|footer| is_cookie(footer)) else {
            continue;
        };
        let header = crate::math::index(be_u64(footer, 0x10).unwrap_or(0));
        let end = header.saturating_add(HEADER_SIZE);
        seal(footer, CHECKSUM_AT);
        // A header that lies over its own footer is left alone, or both would be wrong.
        if let Some(header) = bytes.get_mut(header..end).filter(|_| header >= SIZE) {
            seal(header, HEADER_CHECKSUM_AT);
        }
    }
}

/// Bytes that start as a footer, and where they stand.
struct Found {
    place: u64,
    /// As many as there are, filled up to 512.
    bytes: Vec<u8>,
    parsed: Result<Footer>,
}

fn found_at(source: &dyn ReadAt, place: u64, length: u64) -> Result<Option<Found>> {
    if place
        .checked_add(length)
        .is_none_or(|end| end > source.len())
    {
        return Ok(None);
    }
    let mut bytes = read_vec(source, "VHD footer", place, length, &Limits::DEFAULT)?;
    if !is_cookie(&bytes) {
        return Ok(None);
    }
    bytes.resize(SIZE, 0);
    let parsed = Footer::parse(&bytes, place);
    Ok(Some(Found {
        place,
        bytes,
        parsed,
    }))
}

/// The last footer: 512 bytes from the end, or 511.
fn last(source: &dyn ReadAt) -> Result<Option<Found>> {
    for length in LENGTHS {
        if let Some(place) = source.len().checked_sub(length)
            && let Some(found) = found_at(source, place, length)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the last bytes claim to be a footer.
pub(crate) fn claims(source: &dyn ReadAt) -> Result<bool> {
    Ok(last(source)?.is_some())
}

/// The footer that counts, and what was noticed about it and its copy: the last one when it is valid, else the copy in
/// front of a dynamic or differencing disk.
///
/// # Errors
/// [`Error::Corrupt`] when there is no valid one; what reading the source finds.
pub fn footer(source: &dyn ReadAt) -> Result<(Footer, Findings)> {
    let mut findings = Findings::default();
    let located = locate(source, &mut findings)?;
    Ok((located.footer, findings))
}

/// Whether a file is a differencing VHD, by the type in its footer.
#[must_use]
pub fn is_child(file: &dyn ReadAt) -> bool {
    footer(file).is_ok_and(|(footer, _)| footer.kind == Kind::Differencing)
}

/// The footer that counts.
pub(crate) struct Located {
    pub(crate) footer: Footer,
    /// Its 512 bytes, reserved ones too.
    pub(crate) bytes: Vec<u8>,
    /// Where it stands.
    pub(crate) place: u64,
    /// Where the disk's data end: the place of what claims to be the last footer, or the end of the file.
    pub(crate) data_end: u64,
    /// Whether the last footer is valid and all of it is there.
    pub(crate) whole: bool,
}

/// [`footer()`], with its places.
pub(crate) fn locate(source: &dyn ReadAt, findings: &mut Findings) -> Result<Located> {
    let (last, front) = (last(source)?, found_at(source, 0, 512)?);
    let end = source.len();
    let data_end = last.as_ref().map_or(end, |last| last.place);
    let why = match &last {
        Some(found) => found.parsed.as_ref().err().map(ToString::to_string),
        None => Some("is not there".to_owned()),
    };
    let (error, counting) = match (last, front) {
        (Some(last), front) if last.parsed.is_ok() => {
            let short = end.saturating_sub(last.place);
            if short < 512 {
                let at = (last.place, short);
                findings.add(
                    &rules::FOOTER_SHORT,
                    at,
                    "footer at the end",
                    format_args!("{short} bytes long"),
                    512,
                );
            }
            compare(&last, front.as_ref(), findings);
            (None, Some(last))
        }
        (_, Some(front)) => match &front.parsed {
            Ok(copy) if copy.kind != Kind::Fixed => {
                let found = format!(
                    "of no use ({}), so its copy in front counts",
                    why.unwrap_or_default()
                );
                let place = (end.saturating_sub(512), 512);
                findings.add(
                    &rules::FOOTER,
                    place,
                    "footer at the end",
                    found,
                    "a footer",
                );
                (None, Some(front))
            }
            Ok(_) => (
                Some(Error::corrupt(
                    "VHD footer at offset 0 says that the disk is fixed, but there is none behind the data",
                )),
                None,
            ),
            Err(error) => (Some(error.clone()), None),
        },
        (Some(last), None) => match itself(&last) {
            Some(sealed) => {
                note_checksum(&last, findings);
                (None, Some(sealed))
            }
            None => (last.parsed.err(), None),
        },
        (None, None) => (None, None),
    };
    let none = || {
        Error::corrupt(format_args!(
            "no VHD footer in front of or behind {end} bytes"
        ))
    };
    let found = counting.ok_or_else(|| error.unwrap_or_else(none))?;
    Ok(Located {
        footer: found.parsed?,
        bytes: found.bytes,
        place: found.place,
        data_end,
        whole: found.place == end.saturating_sub(512) && found.place == data_end,
    })
}

/// A fixed disk's footer with another checksum, where all that it says of the disk shows in the file or cannot be else: then
/// the checksum was hit, or a byte that says nothing of the disk.
fn itself(last: &Found) -> Option<Found> {
    let mut bytes = last.bytes.clone();
    seal(&mut bytes, CHECKSUM_AT);
    let footer = Footer::checked(&bytes).ok()?;
    let geometries = [
        Geometry::of(crate::math::div(last.place, SECTOR)),
        Geometry::MAX,
    ];
    let sized = footer.geometry.bytes() == last.place
        || (geometries.contains(&footer.geometry)
            && super::sizes_are_told_apart(footer.creator, footer.geometry));
    let is_idle = bytes
        .get(RESERVED_AT..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
    let proved = footer.kind == Kind::Fixed
        && footer.current_size == last.place
        && footer.data_offset == u64::MAX
        && be_u32(&bytes, 0x08) == Some(FEATURES)
        && be_u32(&bytes, 0x0c) == Some(VERSION);
    let parsed = Ok(footer);
    let place = last.place;
    (proved && sized && is_idle).then_some(Found {
        place,
        bytes,
        parsed,
    })
}

fn note_checksum(last: &Found, findings: &mut Findings) {
    let said = verify("VHD footer", &last.bytes, CHECKSUM_AT).err();
    let found = said.map_or_else(String::new, |wrong| format!("wrong ({wrong})"));
    let at = (last.place.saturating_add(0x40), 4);
    let rule = &rules::FOOTER_CHECKSUM;
    findings.add(rule, at, "footer, checksum", found, "right");
}

/// Compares the last footer with its copy. In a fixed disk the first bytes are the guest's, whatever they look like.
fn compare(last: &Found, front: Option<&Found>, findings: &mut Findings) {
    let Ok(footer) = &last.parsed else { return };
    if footer.kind == Kind::Fixed {
        return;
    }
    let path = "copy of the footer";
    let why = match front.map(|front| &front.parsed) {
        None => "is not there".to_owned(),
        Some(Err(error)) => error.to_string(),
        // Bytes that say nothing here, too: a copy that is none was left behind by a program that wrote only the other.
        Some(Ok(_)) if front.is_some_and(|front| front.bytes == last.bytes) => return,
        Some(Ok(_)) => {
            let found = "another than the last one, which counts";
            findings.add(&rules::FOOTERS_DIFFER, (0, 512), path, found, "the same");
            return;
        }
    };
    let found = format!("of no use ({why})");
    findings.add(&rules::FOOTER_COPY, (0, 512), path, found, "a footer");
}

/// A footer with another size and geometry, and its checksum.
pub(crate) fn resized(bytes: &[u8], size: u64, geometry: Geometry) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Geometry {
        cylinders,
        heads,
        sectors_per_track,
    } = geometry;
    let [high, low] = cylinders.to_be_bytes();
    let size = size.to_be_bytes();
    let geometry = [high, low, heads, sectors_per_track];
    for (at, new) in [(0x30usize, size.as_slice()), (0x38, geometry.as_slice())] {
        if let Some(place) = bytes.get_mut(at..at.saturating_add(new.len())) {
            place.copy_from_slice(new);
        }
    }
    seal(&mut bytes, CHECKSUM_AT);
    bytes
}

/// Bytes at the end of a file that are looked over for a footer.
const TAIL: u64 = (128 << 9) + 512;

/// A fixed disk's footer that a file has and is not told by: where it stands, and why not.
pub(crate) fn overlooked(source: &dyn ReadAt) -> Option<(u64, &'static str)> {
    let length = source.len().min(TAIL);
    let start = source.len().saturating_sub(length);
    let tail = read_vec(source, "VHD footer", start, length, &Limits::DEFAULT).ok()?;
    let fixed = |at: usize, bytes: &[u8]| {
        let place = start.saturating_add(u64::try_from(at).ok()?);
        let footer = Footer::parse(bytes, place).ok()?;
        let fits = footer.kind == Kind::Fixed && footer.current_size == place;
        fits.then_some(place)
    };
    let last = tail.len().checked_sub(SIZE)?;
    let (_, rest) = tail.split_at_checked(last.saturating_add(COOKIE.len()))?;
    let named = [COOKIE.as_slice(), rest].concat();
    if let Some(place) = fixed(last, &named) {
        let whole = tail.get(last..).is_some_and(is_cookie);
        let why = "all of a fixed disk's footer but its cookie";
        return (!whole).then_some((place, why));
    }
    let mut windows = tail.windows(SIZE).enumerate().rev();
    let (at, bytes) = windows.find(|(_, bytes)| is_cookie(bytes))?;
    let place = fixed(at, bytes)?;
    Some((place, "a fixed disk's footer, with more bytes behind it"))
}

/// Where a file has the footer of a fixed disk that takes up all of it.
pub(crate) fn fixed_footer(source: &dyn ReadAt) -> Option<u64> {
    let found = last(source).ok()??;
    let footer = found.parsed.ok()?;
    let fits = footer.kind == Kind::Fixed && footer.current_size == found.place;
    fits.then_some(found.place)
}
