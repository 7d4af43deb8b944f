//! The header, in its two versions.

use super::{BLOCKS_MAX, MAGIC, rules};
use crate::finding::Findings;
use crate::math::{div_up, index, len64};
use drylab_block::{Error, Limits, ReadAt, Result, array_at, le_u32, le_u64, read_vec};

/// Bytes of the longest header: all that is known of it stands in the first sector.
const LENGTH: u64 = 472;
/// cbHeader of version 1.1, and with the logical geometry.
const SIZES: [u32; 2] = [384, 400];
const SECTOR: u64 = 512;

/// How an image stores its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dynamic,
    Fixed,
    Undo,
    Differencing,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Fixed => "fixed",
            Self::Undo => "undo",
            Self::Differencing => "differencing",
        }
    }

    pub(super) fn has_parent(self) -> bool {
        matches!(self, Self::Undo | Self::Differencing)
    }
}

/// Where the fields of a version stand.
pub(super) struct Places {
    kind: usize,
    flags: usize,
    comment: usize,
    /// Sector size of the geometry that all versions have.
    sector: usize,
    pub(super) disk: usize,
    block: usize,
    pub(super) blocks: usize,
    pub(super) allocated: usize,
    pub(super) create: usize,
    pub(super) modify: usize,
    pub(super) linkage: usize,
    end: u64,
}

static FIRST: Places = Places {
    kind: 0x48,
    flags: 0x4c,
    comment: 0x50,
    sector: 0x15c,
    disk: 0x160,
    block: 0x168,
    blocks: 0x16c,
    allocated: 0x170,
    create: 0x174,
    modify: 0x184,
    linkage: 0x194,
    end: 0x1a4,
};

static SECOND: Places = Places {
    kind: 0x4c,
    flags: 0x50,
    comment: 0x54,
    sector: 0x168,
    disk: 0x170,
    block: BLOCK_AT,
    blocks: BLOCKS_AT,
    allocated: 0x184,
    create: 0x188,
    modify: 0x198,
    linkage: 0x1a8,
    end: 0x1c8,
};

pub(super) const VERSION_AT: usize = 0x44;
/// Version 1.1.
pub(super) const VERSION: u32 = 0x0001_0001;
pub(super) const SIZE_AT: usize = 0x48;
pub(super) const OFF_BLOCKS_AT: usize = 0x154;
pub(super) const OFF_DATA_AT: usize = 0x158;
pub(super) const BLOCK_AT: usize = 0x178;
pub(super) const EXTRA_AT: usize = 0x17c;
pub(super) const BLOCKS_AT: usize = 0x180;
pub(super) const PARENT_MODIFY_AT: usize = 0x1b8;
/// Sector size of the logical geometry.
const LOGICAL_SECTOR_AT: usize = 0x1d4;

/// What a header says.
pub(super) struct Header {
    /// Its bytes as they stand, up to 472 of them.
    pub(super) bytes: Vec<u8>,
    pub(super) places: &'static Places,
    pub(super) version: u32,
    pub(super) kind: Kind,
    pub(super) off_blocks: u64,
    pub(super) off_data: u64,
    /// Bytes of the disk, whole sectors.
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) extra: u64,
    pub(super) blocks: u64,
    pub(super) allocated: u32,
    pub(super) create: [u8; 16],
    pub(super) modify: [u8; 16],
    pub(super) linkage: [u8; 16],
    /// Null where the version has none.
    pub(super) parent_modify: [u8; 16],
}

impl Header {
    /// The header as it stands, looked at.
    pub(super) fn read(
        source: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Self> {
        let header = Self::of(bytes_of(source, limits)?)?;
        header.look(limits, findings)?;
        Ok(header)
    }

    /// What the first bytes of a file say.
    pub(super) fn of(bytes: Vec<u8>) -> Result<Self> {
        let length = len64(&bytes);
        if drylab_block::slice_at(&bytes, 0x40, 4) != Some(MAGIC) {
            return Err(Error::corrupt("VDI header has no signature 0xbeda107f"));
        }
        let short = || {
            Error::corrupt(format_args!(
                "VDI header of {length} bytes is cut, the file ends there"
            ))
        };
        let version = le_u32(&bytes, 0x44).ok_or_else(short)?;
        let places = match version {
            2 => &FIRST,
            other if other >> 16 == 1 => &SECOND,
            other => {
                return Err(Error::unsupported(format_args!(
                    "VDI version {other:#010x}, known are 0x00000002 and 0x00010001"
                )));
            }
        };
        if length < places.end {
            return Err(short());
        }
        let mut header = Self::fields(bytes, places, version)?;
        header.bytes.truncate(index(header.off_blocks));
        if header.blocks > BLOCKS_MAX {
            return Err(Error::unsupported(format_args!(
                "VDI of {} blocks, more than the {BLOCKS_MAX} that QEMU reads",
                header.blocks
            )));
        }
        Ok(header)
    }

    fn fields(bytes: Vec<u8>, places: &'static Places, version: u32) -> Result<Self> {
        let word = |at| le_u32(&bytes, at).unwrap_or(0);
        let id = |at| array_at(&bytes, at).unwrap_or([0; 16]);
        let first = version == 2;
        let kind = match word(places.kind) {
            1 => Kind::Dynamic,
            2 => Kind::Fixed,
            3 => Kind::Undo,
            4 => Kind::Differencing,
            other => {
                return Err(Error::unsupported(format_args!(
                    "VDI of type {other}, known are 1 (dynamic), 2 (fixed), 3 (undo) and 4 (differencing)"
                )));
            }
        };
        let blocks = u64::from(word(places.blocks));
        let off_blocks = if first {
            places.end
        } else {
            u64::from(word(OFF_BLOCKS_AT))
        };
        if off_blocks < places.end {
            return Err(Error::corrupt(format_args!(
                "VDI header: the map at {off_blocks} stands inside the header, which ends at {}",
                places.end
            )));
        }
        let off_data = if first {
            off_blocks.saturating_add(blocks.saturating_mul(4))
        } else {
            u64::from(word(OFF_DATA_AT))
        };
        let said = le_u64(&bytes, places.disk).unwrap_or(0);
        let block = u64::from(word(places.block));
        if block == 0 || block % SECTOR != 0 {
            return Err(Error::corrupt(format_args!(
                "VDI header: block size {block} is no multiple of 512"
            )));
        }
        Ok(Self {
            version,
            kind,
            off_blocks,
            off_data,
            size: div_up(said, SECTOR).saturating_mul(SECTOR),
            block,
            extra: if first { 0 } else { u64::from(word(EXTRA_AT)) },
            blocks,
            allocated: word(places.allocated),
            create: id(places.create),
            modify: id(places.modify),
            linkage: id(places.linkage),
            parent_modify: if first { [0; 16] } else { id(PARENT_MODIFY_AT) },
            places,
            bytes,
        })
    }

    /// Whether the version is the one of the first releases.
    pub(super) fn is_first(&self) -> bool {
        self.version == 2
    }

    /// Whether neither the type nor the link speaks of a parent.
    pub(super) fn is_parentless(&self) -> bool {
        !self.kind.has_parent() && self.linkage == [0; 16]
    }

    /// Bytes of a block in the file.
    pub(super) fn slot(&self) -> u64 {
        self.block.saturating_add(self.extra)
    }

    /// Where a block of that number stands in the file: its extra bytes, its data.
    pub(super) fn place(&self, number: u32) -> (u64, u64) {
        let start = u64::from(number)
            .saturating_mul(self.slot())
            .saturating_add(self.off_data);
        (start, start.saturating_add(self.extra))
    }

    /// Header and map: where no block may stand.
    pub(super) fn metadata(&self) -> [(u64, u64); 2] {
        [(0, len64(&self.bytes)), self.map_span()]
    }

    /// Where the map begins and ends.
    pub(super) fn map_span(&self) -> (u64, u64) {
        let length = self.blocks.saturating_mul(4);
        (self.off_blocks, self.off_blocks.saturating_add(length))
    }

    /// Whether the map of another header is that of this one.
    pub(super) fn is_mapped_as(&self, other: &Self) -> bool {
        (self.off_blocks, self.blocks) == (other.off_blocks, other.blocks)
    }

    fn word(&self, at: usize) -> u32 {
        le_u32(&self.bytes, at).unwrap_or(0)
    }

    /// Whether the logical geometry is there.
    fn has_logical(&self) -> bool {
        !self.is_first()
            && self.word(SIZE_AT) >= 400
            && self.off_blocks >= LENGTH
            && len64(&self.bytes) >= LENGTH
    }

    /// The comment, as text.
    pub(super) fn comment(&self) -> String {
        let end = self.places.comment.saturating_add(256);
        let bytes = self.bytes.get(self.places.comment..end).unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    pub(super) fn look(&self, limits: &Limits, findings: &mut Findings) -> Result<()> {
        limits.check_disk("VDI", self.size)?;
        self.look_at_layout(findings);
        self.look_at_ids(findings);
        let (at, said) = (self.places.disk, le_u64(&self.bytes, self.places.disk));
        if said.is_some_and(|said| said != self.size) {
            let found = said.unwrap_or(0);
            let path = "header, cbDisk";
            findings.add(
                &rules::DISK_SIZE,
                (at_of(at), 8),
                path,
                found,
                "whole sectors of 512 bytes",
            );
        }
        let needed = div_up(self.size, self.block);
        if self.blocks < needed {
            let path = "header, cBlocks";
            let expected = format!(
                "{needed} for {} bytes in blocks of {}",
                self.size, self.block
            );
            findings.add(
                &rules::BLOCK_COUNT,
                (at_of(self.places.blocks), 4),
                path,
                self.blocks,
                expected,
            );
        }
        if self.blocks > needed {
            let path = "header, cBlocks";
            findings.add(
                &rules::BLOCKS_SPARE,
                (at_of(self.places.blocks), 4),
                path,
                self.blocks,
                format_args!("{needed} for a disk of {} bytes", self.size),
            );
        }
        Ok(())
    }

    fn look_at_layout(&self, findings: &mut Findings) {
        if !self.is_first() && self.version != VERSION {
            let found = format!("{:#010x}", self.version);
            findings.add(
                &rules::VERSION,
                (at_of(VERSION_AT), 4),
                "header, u32Version",
                found,
                "0x00010001",
            );
        }
        let size = self.word(SIZE_AT);
        if !self.is_first() && size < SIZES.into_iter().min().unwrap_or(0) {
            findings.add(
                &rules::HEADER_SIZE,
                (at_of(SIZE_AT), 4),
                "header, cbHeader",
                size,
                "384 or 400",
            );
        }
        for at in self.sector_places() {
            let found = self.word(at);
            if found != 512 {
                findings.add(
                    &rules::SECTOR_SIZE,
                    (at_of(at), 4),
                    "header, cbSector",
                    found,
                    512,
                );
            }
        }
        let flags = self.word(self.places.flags);
        // Bit 0: blocks are expanded with zeros when they are made.
        if flags & !1 != 0 {
            let found = format!("{flags:#x}");
            findings.add(
                &rules::FLAGS,
                (at_of(self.places.flags), 4),
                "header, fFlags",
                found,
                "0 or 1",
            );
        }
        if !self.block.is_power_of_two() {
            let at = (at_of(self.places.block), 4);
            findings.add(
                &rules::BLOCK_SIZE,
                at,
                "header, cbBlock",
                self.block,
                "a power of two",
            );
        }
        for (name, at, offset) in [
            ("header, offBlocks", OFF_BLOCKS_AT, self.off_blocks),
            ("header, offData", OFF_DATA_AT, self.off_data),
        ] {
            if !self.is_first() && offset % SECTOR != 0 {
                findings.add(
                    &rules::ALIGNMENT,
                    (at_of(at), 4),
                    name,
                    offset,
                    "a multiple of 512",
                );
            }
        }
        let [(_, head), (_, map)] = self.metadata();
        let first = head.max(map);
        if self.off_data < first && self.blocks > 0 {
            let (path, expected) = ("header, offData", format!("{first} or more"));
            findings.add(
                &rules::DATA_IN_METADATA,
                (at_of(OFF_DATA_AT), 4),
                path,
                self.off_data,
                expected,
            );
        }
    }

    fn look_at_ids(&self, findings: &mut Findings) {
        for (path, at, id) in [
            ("header, uuidCreate", self.places.create, self.create),
            ("header, uuidModify", self.places.modify, self.modify),
        ] {
            if id == [0; 16] {
                findings.add(&rules::UUID, (at_of(at), 16), path, "null", "a UUID");
            }
        }
        if self.is_parentless() && self.parent_modify != [0; 16] {
            findings.add(
                &rules::PARENT_MODIFY,
                (at_of(PARENT_MODIFY_AT), 16),
                "header, uuidParentModify",
                uuid(&self.parent_modify),
                "null",
            );
        }
        if !self.kind.has_parent() && self.linkage != [0; 16] {
            let at = (at_of(self.places.linkage), 16);
            findings.add(
                &rules::LINKAGE,
                at,
                "header, uuidLinkage",
                uuid(&self.linkage),
                "null",
            );
        }
    }

    /// Places of the sector sizes.
    pub(super) fn sector_places(&self) -> impl Iterator<Item = usize> {
        let logical = self.has_logical().then_some(LOGICAL_SECTOR_AT);
        std::iter::once(self.places.sector).chain(logical)
    }

    /// The header with other bytes at some places.
    pub(super) fn with(&self, changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (at, new) in changes {
            if let Some(place) = bytes.get_mut(*at..at.saturating_add(<[u8]>::len(new))) {
                place.copy_from_slice(new);
            }
        }
        bytes
    }

    /// The fields in VirtualBox' words.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let text = self.bytes.get(..0x40).unwrap_or_default();
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let (major, minor) = (self.version >> 16, self.version & 0xffff);
        [
            ("szFileInfo", text.escape_ascii().to_string()),
            ("u32Version", format!("{major}.{minor}")),
            ("szComment", self.comment()),
            ("offBlocks", self.off_blocks.to_string()),
            ("offData", self.off_data.to_string()),
            ("cbBlock", self.block.to_string()),
            ("cbBlockExtra", self.extra.to_string()),
            ("cBlocks", self.blocks.to_string()),
            ("cBlocksAllocated", self.allocated.to_string()),
            ("uuidCreate", uuid(&self.create)),
            ("uuidModify", uuid(&self.modify)),
            ("uuidLinkage", uuid(&self.linkage)),
            ("uuidParentModify", uuid(&self.parent_modify)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}

/// The bytes of a file that may be those of a header.
pub(super) fn bytes_of(source: &dyn ReadAt, limits: &Limits) -> Result<Vec<u8>> {
    read_vec(source, "VDI header", 0, source.len().min(LENGTH), limits)
}

/// The type that a head says, empty when it is none that is known.
pub(crate) fn kind(head: &[u8]) -> &'static str {
    let places = match le_u32(head, 0x44) {
        Some(2) => &FIRST,
        _ => &SECOND,
    };
    match le_u32(head, places.kind) {
        Some(1) => "dynamic",
        Some(2) => "fixed",
        Some(3) => "undo",
        Some(4) => "differencing",
        _ => "",
    }
}

/// Whether a head is that of a VDI but for the signature: a text as programs write it, a version, a length.
pub(crate) fn is_overlooked(head: &[u8]) -> bool {
    let text = head.get(..0x40).unwrap_or_default();
    let ends = |words: &[u8]| words == b"Disk Image >>>";
    let is_named = text.starts_with(b"<<< ") && text.windows(14).any(ends);
    let is_known = le_u32(head, VERSION_AT).is_some_and(|version| version >> 16 == 1)
        && le_u32(head, SIZE_AT).is_some_and(|size| SIZES.contains(&size));
    is_named && is_known && head.get(0x40..0x44) != Some(super::MAGIC)
}

/// A place in the header as an offset of the file.
pub(super) fn at_of(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// The text of a UUID, whose first three fields are stored little-endian.
pub(super) fn uuid(stored: &[u8; 16]) -> String {
    let mut text = String::from("{");
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15usize];
    for (number, at) in order.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&number) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", stored.get(at).unwrap_or(&0)));
    }
    text.push('}');
    text
}
