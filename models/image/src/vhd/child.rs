//! Differencing disks: what a snapshot leaves of a VHD. Written, read with their parents, and read without them.
//!
//! Source: Microsoft "Virtual Hard Disk Image Format Specification" 1.0, "Dynamic Disk Header Format" and "Differencing
//! Hard Disks"; the length of a locator's space counts bytes, as in files of Virtual PC and Hyper-V, not sectors.
//!
//! ```text
//! header        as of a dynamic disk, and  0x28 parent's unique id  0x38 parent's timestamp
//!               0x40 parent's file name, UTF-16 big-endian, 512 bytes  0x240 eight locators of 24 bytes
//! locator       0x00 code "W2ru" (relative path, UTF-16 little-endian)  0x04 space  0x08 length  0x10 offset
//! sector bitmap bit set: the sector is here; clear: it is the parent's. Most significant bit first
//! ```
//!
//! A program that takes no notice of the bitmap and of the parent reads such a file like a dynamic disk: zeros where
//! the parent has the data ([`open_alone`]). qemu-img 0.12 and 10 do that and say nothing.

use super::footer::{Footer, Kind, locate, seal};
use super::read::{Blocks, HEADER_CHECKSUM_AT, HEADER_SIZE, Header, UNUSED};
use super::write::{HEADER_AT, TABLE_AT, block_of, header, plan, uuid};
use super::{SECTOR, VhdOptions, VhdSize};
use crate::math::{div, div_up, index, len64, rem, round_up};
use crate::scan::for_each_unit;
use crate::write::Written;
use drylab_block::{
    ContentId, Error, Extent, ExtentKind, Limits, ReadAt, Result, WriteAt, be_u16, read_vec,
    slice_at,
};
use std::collections::BTreeSet;
use std::sync::Arc;

const PARENT_ID_AT: usize = 0x28;
const PARENT_TIME_AT: usize = 0x38;
const PARENT_NAME_AT: usize = 0x40;
const PARENT_NAME_BYTES: usize = 512;
const LOCATORS_AT: usize = 0x240;
/// Most disks of one chain.
const CHAIN_MAX: usize = 64;

/// The disk that another one differs from.
#[derive(Clone, Copy)]
pub struct Parent<'a> {
    /// Its file.
    pub file: &'a dyn ReadAt,
    /// Name of the file, beside which the child stands.
    pub name: &'a str,
    /// What a guest saw on it.
    pub disk: &'a dyn ReadAt,
}

/// What a differencing disk says of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentName {
    /// Unique id of the parent's footer.
    pub unique_id: [u8; 16],
    /// Name of its file, with or without a path.
    pub name: String,
}

/// Whether a file is a differencing VHD, by the type in its footer.
#[must_use]
pub fn is_child(file: &dyn ReadAt) -> bool {
    super::footer(file).is_ok_and(|(footer, _)| footer.kind == Kind::Differencing)
}

/// What a differencing disk says of its parent.
///
/// # Errors
/// [`Error::Unsupported`] for another type of VHD; what reading footer and header finds.
pub fn parent_name(file: &dyn ReadAt, limits: &Limits) -> Result<ParentName> {
    let (footer, _, _) = locate(file)?;
    if footer.kind != Kind::Differencing {
        let kind = footer.kind.name();
        return Err(Error::unsupported(format_args!(
            "a {kind} VHD has no parent"
        )));
    }
    let place = footer.data_offset;
    let length = len64(&[0u8; HEADER_SIZE]);
    let bytes = read_vec(file, "VHD dynamic header", place, length, limits)?;
    let cut = || Error::corrupt(format_args!("VHD dynamic header at offset {place} is cut"));
    let id = slice_at(&bytes, PARENT_ID_AT, 16).and_then(|id| id.try_into().ok());
    let name = slice_at(&bytes, PARENT_NAME_AT, PARENT_NAME_BYTES).ok_or_else(cut)?;
    let (units, _) = name.as_chunks::<2>();
    let units = units
        .iter()
        .map(|unit| be_u16(unit, 0).unwrap_or(0))
        .take_while(|unit| *unit != 0);
    Ok(ParentName {
        unique_id: id.ok_or_else(cut)?,
        name: char::decode_utf16(units)
            .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
    })
}

/// Writes those sectors of `disk` that differ from the parent's.
///
/// # Errors
/// [`Error::Unsupported`] when the sizes differ, for other block sizes than a dynamic disk's and for names that do not
/// fit; whatever reading and writing finds.
pub fn write_child(
    disk: &dyn ReadAt,
    parent: Parent<'_>,
    options: &VhdOptions,
    sink: &dyn WriteAt,
) -> Result<Written> {
    if disk.len() != parent.disk.len() {
        return Err(Error::unsupported(format_args!(
            "a differencing VHD of {} bytes to a parent of {}",
            disk.len(),
            parent.disk.len()
        )));
    }
    let block = block_of(options)?;
    let (of_parent, _, _) = locate(parent.file)?;
    let mut footer = plan(disk, options, Kind::Differencing)?;
    if options.unique_id.is_none() {
        // Nothing written since the snapshot: the same content, and yet another file.
        let above = u128::from_be_bytes(of_parent.unique_id).rotate_left(1);
        let own = u128::from_be_bytes(footer.unique_id);
        footer.unique_id = uuid(ContentId(own ^ above));
    }
    let entries = div_up(footer.current_size, block);
    let mut table = vec![0xffu8; index(round_up(entries.saturating_mul(4), SECTOR))];
    let locator_at = TABLE_AT.saturating_add(len64(&table));
    let mut end = locator_at.saturating_add(SECTOR);
    let mut pair = Pair::new(disk, parent.disk, block);
    for unit in pair.units()? {
        let Some((bitmap, data)) = pair.differing(unit)? else {
            continue;
        };
        let sector = u32::try_from(div(end, SECTOR)).unwrap_or(UNUSED);
        if sector == UNUSED {
            return Err(Error::unsupported(format_args!(
                "VHD file reaches byte {end}; its BAT ends at 2^41"
            )));
        }
        let at = index(unit.saturating_mul(4));
        if let Some(entry) = table.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&sector.to_be_bytes());
        }
        sink.write_at(end, &bitmap)?;
        let at = end.saturating_add(len64(&bitmap));
        sink.write_at(at, &data)?;
        end = at.saturating_add(block);
    }
    let count = u32::try_from(entries).unwrap_or(u32::MAX);
    let mut head = header(count, options.block_bytes);
    let path = locate_parent(&mut head, &of_parent, parent.name, locator_at)?;
    let foot = footer.to_bytes();
    sink.write_at(0, &foot)?;
    sink.write_at(HEADER_AT, &head)?;
    sink.write_at(TABLE_AT, &table)?;
    sink.write_at(locator_at, &path)?;
    sink.write_at(end, &foot)?;
    let length = end.saturating_add(len64(&foot));
    sink.set_len(length)?;
    Ok(Written { file_bytes: length })
}

/// Writes the parent's id, name and locator into a dynamic header; the sector of the locator's path is returned.
fn locate_parent(head: &mut [u8], parent: &Footer, name: &str, at: u64) -> Result<Vec<u8>> {
    let long = || {
        Error::unsupported(format_args!(
            "the parent's name {name:?} is too long for a VHD"
        ))
    };
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let relative = format!(".\\{name}");
    let mut path: Vec<u8> = relative.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u32::try_from(path.len()).map_err(|_| long())?;
    if wide.len() > PARENT_NAME_BYTES || len64(&path) > SECTOR {
        return Err(long());
    }
    path.resize(index(SECTOR), 0);
    let space = u32::try_from(path.len()).map_err(|_| long())?;
    let mut locator = b"W2ru".to_vec();
    locator.extend_from_slice(&space.to_be_bytes());
    locator.extend_from_slice(&length.to_be_bytes());
    locator.extend_from_slice(&[0; 4]);
    locator.extend_from_slice(&at.to_be_bytes());
    let fields: [(usize, &[u8]); 4] = [
        (PARENT_ID_AT, &parent.unique_id),
        (PARENT_TIME_AT, &parent.timestamp.to_be_bytes()),
        (PARENT_NAME_AT, &wide),
        (LOCATORS_AT, &locator),
    ];
    for (at, bytes) in fields {
        if let Some(place) = head.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
    seal(head, HEADER_CHECKSUM_AT);
    Ok(path)
}

/// Two disks side by side, block by block.
struct Pair<'a> {
    disk: &'a dyn ReadAt,
    parent: &'a dyn ReadAt,
    block: u64,
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

impl<'a> Pair<'a> {
    fn new(disk: &'a dyn ReadAt, parent: &'a dyn ReadAt, block: u64) -> Self {
        Self {
            disk,
            parent,
            block,
            ours: vec![0; index(block)],
            theirs: vec![0; index(block)],
        }
    }

    /// Blocks in which either disk holds a byte other than zero.
    fn units(&self) -> Result<BTreeSet<u64>> {
        let mut units = BTreeSet::new();
        for disk in [self.disk, self.parent] {
            for_each_unit(disk, self.block, |unit, _| {
                units.insert(unit);
                Ok(())
            })?;
        }
        Ok(units)
    }

    /// Bitmap and data of a block that differs; zeros stand where the parent's sectors count.
    fn differing(&mut self, unit: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let start = unit.saturating_mul(self.block);
        let inside = index(self.disk.len().saturating_sub(start).min(self.block));
        for (disk, buffer) in [(self.disk, &mut self.ours), (self.parent, &mut self.theirs)] {
            buffer.fill(0);
            disk.read_at(start, buffer.get_mut(..inside).unwrap_or(&mut []))?;
        }
        let mut bitmap = vec![0u8; index(super::read::bitmap_bytes(self.block))];
        let mut data = vec![0u8; index(self.block)];
        let sectors = self.ours.chunks(index(SECTOR));
        let pairs = sectors.zip(self.theirs.chunks(index(SECTOR)));
        let places = data.chunks_mut(index(SECTOR));
        let mut differs = false;
        for (number, ((ours, theirs), place)) in (0u64..).zip(pairs.zip(places)) {
            if ours == theirs {
                continue;
            }
            differs = true;
            place.copy_from_slice(ours);
            if let Some(byte) = bitmap.get_mut(index(div(number, 8))) {
                *byte |= bit(number);
            }
        }
        Ok(differs.then_some((bitmap, data)))
    }
}

/// The bit of a sector in its byte of the bitmap.
fn bit(sector: u64) -> u8 {
    0x80u8
        .checked_shr(u32::try_from(rem(sector, 8)).unwrap_or(0))
        .unwrap_or(0)
}

/// A differencing disk as a program reads it that neither looks for the parent nor at the bitmaps.
///
/// # Errors
/// As [`open_vhd`](crate::open_vhd), of a dynamic disk.
pub fn open_alone(
    source: Arc<dyn ReadAt>,
    believes: VhdSize,
    limits: &Limits,
) -> Result<Arc<dyn ReadAt>> {
    let (blocks, _) = blocks(source, believes, limits)?;
    Ok(Arc::new(blocks))
}

fn blocks(source: Arc<dyn ReadAt>, believes: VhdSize, limits: &Limits) -> Result<(Blocks, Footer)> {
    let (footer, _, mut findings) = locate(&*source)?;
    let size = believes.bytes(&footer);
    let most = limits.disk_bytes_max.min(super::DISK_BYTES_MAX);
    if size > most {
        return Err(Error::unsupported(format_args!(
            "VHD of {size} bytes, more than the {most} allowed"
        )));
    }
    let header = Header::read(&*source, footer.data_offset, limits, &mut findings)?;
    let blocks = Blocks::open(source, size, &footer, &header, limits, &mut findings)?;
    Ok((blocks, footer))
}

/// What a guest sees on a chain of disks: `files` from the newest to the one without a parent, which
/// [`parent_name`] leads to.
///
/// # Errors
/// [`Error::Corrupt`] when a disk names another parent than the file that follows, when sizes differ or the last has a
/// parent, too; [`Error::Unsupported`] for chains of more than 64; whatever opening each finds.
pub fn open_chain(files: &[Arc<dyn ReadAt>], limits: &Limits) -> Result<Arc<dyn ReadAt>> {
    if files.len() > CHAIN_MAX {
        return Err(Error::unsupported(format_args!(
            "a chain of {} VHDs, at most {CHAIN_MAX} are followed",
            files.len()
        )));
    }
    let Some((base, children)) = files.split_last() else {
        return Err(Error::corrupt("a chain without a VHD"));
    };
    let image = crate::open_vhd(base.clone(), VhdSize::Current, limits)?;
    let mut below: Arc<dyn ReadAt> = Arc::new(image);
    let (mut footer, _, _) = locate(&**base)?;
    for file in children.iter().rev() {
        let named = parent_name(&**file, limits)?;
        if named.unique_id != footer.unique_id {
            return Err(Error::corrupt(format_args!(
                "a differencing VHD wants {:?} as it was made, and its unique id is another one",
                named.name
            )));
        }
        let (own, own_footer) = blocks(file.clone(), VhdSize::Current, limits)?;
        if own.size != below.len() {
            return Err(Error::corrupt(format_args!(
                "a differencing VHD of {} bytes to a parent of {}",
                own.size,
                below.len()
            )));
        }
        below = Arc::new(Child { own, parent: below });
        footer = own_footer;
    }
    Ok(below)
}

/// A differencing disk on its parent.
struct Child {
    own: Blocks,
    parent: Arc<dyn ReadAt>,
}

impl Child {
    /// Byte offset of a block's bitmap and of its data in the file; `None` for the parent's.
    fn place(&self, unit: u64) -> Result<Option<(u64, u64)>> {
        match self.own.table.get(index(unit)) {
            None | Some(&UNUSED) => Ok(None),
            Some(entry) => {
                let data = self.own.place(unit, *entry)?;
                Ok(Some((data.saturating_sub(self.own.bitmap), data)))
            }
        }
    }

    /// Reads a part of one block.
    fn read_in_block(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let unit = div(offset, self.own.block);
        let Some((bitmap_at, data_at)) = self.place(unit)? else {
            return self.parent.read_at(offset, buffer);
        };
        let mut bitmap = vec![0u8; index(self.own.bitmap)];
        self.own.source.read_at(bitmap_at, &mut bitmap)?;
        let (mut at, mut rest) = (rem(offset, self.own.block), buffer);
        while !rest.is_empty() {
            let sector = div(at, SECTOR);
            let in_sector = index(SECTOR.saturating_sub(rem(at, SECTOR)));
            let (part, behind) = rest.split_at_mut(in_sector.min(rest.len()));
            let byte = bitmap.get(index(div(sector, 8))).copied().unwrap_or(0);
            if byte & bit(sector) == 0 {
                let start = unit.saturating_mul(self.own.block);
                self.parent.read_at(start.saturating_add(at), part)?;
            } else {
                self.own.source.read_at(data_at.saturating_add(at), part)?;
            }
            at = at.saturating_add(len64(part));
            rest = behind;
        }
        Ok(())
    }
}

impl ReadAt for Child {
    fn len(&self) -> u64 {
        self.own.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = len64(buffer);
        if offset.saturating_add(wanted) > self.own.size {
            return Err(Error::io(format_args!(
                "read of {wanted} bytes at offset {offset}, past the end ({})",
                self.own.size
            )));
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let left = self.own.block.saturating_sub(rem(at, self.own.block));
            let (part, behind) = rest.split_at_mut(index(left).min(rest.len()));
            self.read_in_block(at, part)?;
            at = at.saturating_add(len64(part));
            rest = behind;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let left = self.own.block.saturating_sub(rem(offset, self.own.block));
        let left = left.min(self.own.size.saturating_sub(offset));
        match self.place(div(offset, self.own.block)) {
            Ok(None) => {
                let mut below = self.parent.extent_at(offset);
                below.length = below.length.min(left);
                below
            }
            _ => Extent {
                offset,
                length: left,
                kind: ExtentKind::Data,
            },
        }
    }
}
