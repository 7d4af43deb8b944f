//! The sparse extent header, and the markers of a stream.

use crate::math::{div, rem};
use drylab_block::{Error, Limits, Result, array_at, le_u16, le_u32, le_u64};

/// Bytes of a sector, the unit of every address in the format.
pub(crate) const SECTOR: u64 = 512;
/// `KDMV`, little-endian `VMDK`.
pub(crate) const MAGIC: &[u8; 4] = b"KDMV";
/// "The grain directory is behind the grains": look at the footer.
pub(crate) const GD_AT_END: u64 = u64::MAX;

const FLAG_NEWLINE_TEST: u32 = 1;
pub(crate) const FLAG_REDUNDANT: u32 = 1 << 1;
pub(crate) const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
pub(crate) const FLAG_COMPRESSED: u32 = 1 << 16;
pub(crate) const FLAG_MARKERS: u32 = 1 << 17;
const FLAGS_KNOWN: u32 =
    FLAG_NEWLINE_TEST | FLAG_REDUNDANT | FLAG_ZEROED_GRAINS | FLAG_COMPRESSED | FLAG_MARKERS;

/// Bytes that a transfer in text mode would have changed.
const NEWLINES: [u8; 4] = *b"\n \r\n";
const DEFLATE: u16 = 1;

/// The header of a hosted sparse extent, or its repetition in the footer. Addresses and sizes in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) descriptor_offset: u64,
    pub(crate) descriptor_size: u64,
    pub(crate) table_entries: u32,
    pub(crate) rgd_offset: u64,
    pub(crate) gd_offset: u64,
    pub(crate) overhead: u64,
    /// Other than 0 while a program has the disk open.
    pub(crate) unclean: u8,
    newlines: [u8; 4],
    algorithm: u16,
}

/// What a writer decides; the rest of the header follows.
pub(crate) struct Plan {
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) capacity: u64,
    pub(crate) descriptor_size: u64,
    pub(crate) rgd_offset: u64,
    pub(crate) gd_offset: u64,
    pub(crate) overhead: u64,
}

impl Header {
    /// Size on disk in bytes.
    pub(crate) const SIZE: usize = 512;
    /// Sectors of the grains we write: 64 KiB, as every VMware product writes them.
    pub(crate) const GRAIN: u64 = 128;
    /// Entries of the grain tables we write.
    pub(crate) const TABLE_ENTRIES: u32 = 512;

    /// A header as we write it.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            version: plan.version,
            flags: plan.flags | FLAG_NEWLINE_TEST,
            capacity: plan.capacity,
            grain: Self::GRAIN,
            descriptor_offset: 1,
            descriptor_size: plan.descriptor_size,
            table_entries: Self::TABLE_ENTRIES,
            rgd_offset: plan.rgd_offset,
            gd_offset: plan.gd_offset,
            overhead: plan.overhead,
            unclean: 0,
            newlines: NEWLINES,
            algorithm: if plan.flags & FLAG_COMPRESSED != 0 {
                DEFLATE
            } else {
                0
            },
        }
    }

    /// The 512 bytes on disk.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        for field in [
            self.capacity,
            self.grain,
            self.descriptor_offset,
            self.descriptor_size,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.table_entries.to_le_bytes());
        for field in [self.rgd_offset, self.gd_offset, self.overhead] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.push(self.unclean);
        bytes.extend_from_slice(&self.newlines);
        bytes.extend_from_slice(&self.algorithm.to_le_bytes());
        bytes.resize(Self::SIZE, 0);
        bytes
    }

    /// Parses the header found at byte `place` of the file, and checks what can be checked without the file.
    pub(crate) fn parse(bytes: &[u8], place: u64, limits: &Limits) -> Result<Self> {
        Self::fields(bytes)
            .ok_or_else(|| Error::corrupt(format_args!("is shorter than {} bytes", Self::SIZE)))
            .and_then(|header| header.checked(bytes, limits))
            .map_err(|error| error.within(format_args!("VMDK header at offset {place}")))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        drylab_block::slice_at(bytes, 0, Self::SIZE)?;
        Some(Self {
            version: le_u32(bytes, 4)?,
            flags: le_u32(bytes, 8)?,
            capacity: le_u64(bytes, 12)?,
            grain: le_u64(bytes, 20)?,
            descriptor_offset: le_u64(bytes, 28)?,
            descriptor_size: le_u64(bytes, 36)?,
            table_entries: le_u32(bytes, 44)?,
            rgd_offset: le_u64(bytes, 48)?,
            gd_offset: le_u64(bytes, 56)?,
            overhead: le_u64(bytes, 64)?,
            unclean: *bytes.get(72)?,
            newlines: array_at(bytes, 73)?,
            algorithm: le_u16(bytes, 77)?,
        })
    }

    fn checked(self, bytes: &[u8], limits: &Limits) -> Result<Self> {
        if array_at::<4>(bytes, 0).as_ref() != Some(MAGIC) {
            return Err(Error::corrupt("has no magic KDMV"));
        }
        if !(1..=3).contains(&self.version) {
            return Err(Error::unsupported(format_args!(
                "version {}, known are 1 to 3",
                self.version
            )));
        }
        if self.flags & !FLAGS_KNOWN != 0 {
            let unknown = self.flags & !FLAGS_KNOWN;
            return Err(Error::unsupported(format_args!(
                "unknown flags {unknown:#x}"
            )));
        }
        if self.compressed() && self.algorithm != DEFLATE {
            let algorithm = self.algorithm;
            return Err(Error::unsupported(format_args!(
                "compression algorithm {algorithm}, known is 1 (deflate)"
            )));
        }
        if !self.grain.is_power_of_two() || self.grain < 8 {
            let grain = self.grain;
            return Err(Error::corrupt(format_args!(
                "grain size {grain} is not a power of two from 8 sectors on"
            )));
        }
        limits.check_table("a grain", self.grain.saturating_mul(SECTOR))?;
        if !(1..=512).contains(&self.table_entries) {
            let entries = self.table_entries;
            return Err(Error::corrupt(format_args!(
                "{entries} entries per grain table, allowed are 1 to 512"
            )));
        }
        if self
            .capacity
            .checked_mul(SECTOR)
            .is_none_or(|bytes| bytes > limits.disk_bytes_max)
        {
            return Err(Error::unsupported(format_args!(
                "capacity of {} sectors is more than the {} bytes allowed: raise the limit disk-bytes",
                self.capacity, limits.disk_bytes_max
            )));
        }
        Ok(self)
    }

    /// Takes from the header at the start of a stream what is read there and not in this one, its footer.
    pub(super) fn follow(&mut self, front: &Self) {
        self.descriptor_offset = front.descriptor_offset;
        self.descriptor_size = front.descriptor_size;
        self.newlines = front.newlines;
    }

    /// Whether grains are deflated.
    pub(crate) fn compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Whether each grain has its own address and length in front: only compressed ones do.
    pub(crate) fn has_markers(&self) -> bool {
        self.compressed() && self.flags & FLAG_MARKERS != 0
    }

    /// Whether the flags say that of grains that are not compressed, which makes no sense.
    pub(crate) fn has_odd_markers(&self) -> bool {
        !self.compressed() && self.flags & FLAG_MARKERS != 0
    }

    /// Whether a grain table entry of 1 means zeros.
    pub(crate) fn has_zeroed_grains(&self) -> bool {
        self.flags & FLAG_ZEROED_GRAINS != 0
    }

    /// Whether a second directory with tables of its own is kept.
    pub(crate) fn has_redundant(&self) -> bool {
        self.says_redundant() && self.rgd_offset != 0
    }

    /// Whether the flags say so, wherever it is. Without that `rgdOffset` means nothing.
    pub(crate) fn says_redundant(&self) -> bool {
        self.flags & FLAG_REDUNDANT != 0
    }

    /// The bytes that a transfer in text mode would have changed, where they were: what is found, what should be.
    pub(crate) fn wrong_newlines(&self) -> Option<([u8; 4], [u8; 4])> {
        let tested = self.flags & FLAG_NEWLINE_TEST != 0;
        (tested && self.newlines != NEWLINES).then_some((self.newlines, NEWLINES))
    }

    /// Grains of the disk, the last one perhaps partial.
    pub(crate) fn grains(&self) -> u64 {
        crate::math::div_up(self.capacity, self.grain)
    }

    /// Bytes of a grain, never 0.
    pub(crate) fn grain_bytes(&self) -> u64 {
        self.grain.saturating_mul(SECTOR)
    }

    /// Most bytes of a packed grain. No sane deflate stream is twice its output; two sectors cover the marker and tiny
    /// grains.
    pub(super) fn packed_most(&self) -> u64 {
        self.grain_bytes().saturating_mul(2).saturating_add(1024)
    }

    /// Entries of grain table `number` that describe grains of the disk.
    pub(crate) fn entries_of(&self, number: u64) -> u64 {
        let entries = u64::from(self.table_entries);
        let first = number.saturating_mul(entries);
        self.grains().saturating_sub(first).min(entries)
    }

    /// Sectors of a whole grain table.
    pub(crate) fn table_sectors(&self) -> u64 {
        crate::math::div_up(u64::from(self.table_entries).saturating_mul(4), SECTOR)
    }

    /// Sectors of a grain directory.
    pub(crate) fn directory_sectors(&self) -> u64 {
        crate::math::div_up(self.tables().saturating_mul(4), SECTOR)
    }

    /// Grain tables of the disk, the last one perhaps partial.
    pub(crate) fn tables(&self) -> u64 {
        crate::math::div_up(self.grains(), u64::from(self.table_entries))
    }
}

/// What a marker of a stream announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// Compressed bytes of the grain that starts at guest sector `lba`; they start 12 bytes into the marker's sector.
    Grain { lba: u64, size: u32 },
    /// Nothing follows.
    EndOfStream,
    /// `sectors` of a grain table follow.
    GrainTable { sectors: u64 },
    /// `sectors` of the grain directory follow.
    GrainDirectory { sectors: u64 },
    /// The footer follows.
    Footer { sectors: u64 },
}

impl Marker {
    /// The sector of a marker that is not a grain's.
    pub(crate) fn to_sector(self) -> Vec<u8> {
        let (value, size, kind) = match self {
            Self::Grain { lba, size } => (lba, size, None),
            Self::EndOfStream => (0, 0, Some(0u32)),
            Self::GrainTable { sectors } => (sectors, 0, Some(1)),
            Self::GrainDirectory { sectors } => (sectors, 0, Some(2)),
            Self::Footer { sectors } => (sectors, 0, Some(3)),
        };
        let mut bytes = Vec::with_capacity(Header::SIZE);
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        if let Some(kind) = kind {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.resize(Header::SIZE, 0);
        }
        bytes
    }

    /// Reads the marker in a sector at byte `place`: 16 bytes, told apart by the size being 0.
    pub(crate) fn parse(sector: &[u8], place: u64) -> Result<Self> {
        let short = || Error::corrupt(format_args!("marker at offset {place} is cut off"));
        let value = le_u64(sector, 0).ok_or_else(short)?;
        let size = le_u32(sector, 8).ok_or_else(short)?;
        if size != 0 {
            return Ok(Self::Grain { lba: value, size });
        }
        match le_u32(sector, 12).ok_or_else(short)? {
            0 if value == 0 => Ok(Self::EndOfStream),
            0 => Err(Error::corrupt(format_args!(
                "end-of-stream marker at offset {place} counts {value} sectors"
            ))),
            1 => Ok(Self::GrainTable { sectors: value }),
            2 => Ok(Self::GrainDirectory { sectors: value }),
            3 => Ok(Self::Footer { sectors: value }),
            kind => Err(Error::corrupt(format_args!(
                "marker at offset {place} has unknown type {kind}"
            ))),
        }
    }
}

/// Cylinders, heads and sectors as the disk database of a descriptor has them.
pub(crate) struct Geometry {
    pub(crate) cylinders: u64,
    pub(crate) heads: u64,
    pub(crate) sectors: u64,
}

impl Geometry {
    /// 16 heads and at most 16,383 cylinders on IDE, 255 heads on SCSI; 63 sectors.
    pub(crate) fn of(capacity: u64, ide: bool) -> Self {
        let (heads, most) = if ide {
            (16u64, 16_383)
        } else {
            (255, u64::MAX)
        };
        let sectors = 63u64;
        let cylinders = div(capacity, heads.saturating_mul(sectors)).clamp(1, most);
        Self {
            cylinders,
            heads,
            sectors,
        }
    }
}

/// Sectors of a disk, its size rounded up.
pub(crate) fn capacity_of(bytes: u64) -> u64 {
    div(bytes, SECTOR).saturating_add(u64::from(rem(bytes, SECTOR) != 0))
}
