//! Writing differencing disks: the sectors in which a disk differs from its parent.

use super::bat::{self, BITMAP_BYTES, Slot};
use super::guid::Guid;
use super::locator::{Locator, PATHS};
use super::write::{PIECE, Writer};
use super::{VhdxOptions, rules};
use crate::engine::{self, Work};
use crate::image::Info;
use crate::math::{div, div_up, index, rem};
use crate::write::Written;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// What a child says of its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhdxParent {
    /// The parent's DataWriteGuid.
    pub linkage: Guid,
    /// The parent's VirtualDiskId, which its children share.
    pub disk_id: Option<Guid>,
    /// Its path from the child's folder, with backslashes: `.\base.vhdx`.
    pub relative_path: Option<String>,
    /// Its path with the volume's GUID: `\\?\Volume{…}\base.vhdx`.
    pub volume_path: Option<String>,
    /// Its path with a drive or share: `\\?\d:\base.vhdx`.
    pub absolute_win32_path: Option<String>,
}

impl VhdxParent {
    /// The parent that `info` is of, named by its path from the child's folder; `None` when that is no VHDX.
    #[must_use]
    pub fn of(info: &Info, relative_path: &str) -> Option<Self> {
        Some(Self {
            linkage: info.detail("DataWriteGuid").and_then(Guid::parse)?,
            disk_id: info.detail("VirtualDiskId").and_then(Guid::parse),
            relative_path: Some(relative_path.to_owned()),
            ..Self::default()
        })
    }

    fn locator(&self) -> Result<Vec<u8>> {
        let paths = [
            &self.relative_path,
            &self.volume_path,
            &self.absolute_win32_path,
        ];
        let mut pairs = vec![("parent_linkage", format!("{{{}}}", self.linkage))];
        for (key, path) in PATHS.into_iter().zip(paths) {
            pairs.extend(path.clone().map(|path| (key, path)));
        }
        if pairs.len() == 1 || pairs.iter().any(|(_, value)| value.is_empty()) {
            return Err(Error::unsupported(format_args!(
                "VHDX child without a path to its parent: give one that is not empty ({})",
                rules::PARENT_LOCATOR.clause
            )));
        }
        Locator::to_bytes(&pairs)
    }
}

/// A block of the child as far as it was looked at.
struct Block {
    number: u64,
    /// Its place, once there is something to write.
    place: Option<u64>,
    /// One bit for each sector that differs.
    bits: Vec<u8>,
    changed: u64,
    /// Whether the disk has a byte other than zero in it.
    data: bool,
}

/// Writes to `sink`, which is emptied first, a differencing VHDX that holds the sectors in which `disk` differs from
/// `base`, the disk that `parent` names. The disk has the size of `disk`; past the end of `base` are zeros.
///
/// # Errors
/// As [`write()`](crate::write()), and when `parent` names no path.
pub fn write_vhdx_child(
    disk: &dyn ReadAt,
    base: &dyn ReadAt,
    parent: &VhdxParent,
    options: &VhdxOptions,
    sink: &dyn WriteAt,
) -> Result<Written> {
    let locator = parent.locator()?;
    let options = VhdxOptions {
        disk_id: options.disk_id.or(parent.disk_id),
        ..options.clone()
    };
    sink.set_len(0)?;
    // The content may be that of another child, which has another file.
    let digest = engine::content_digest(disk, &Work::ALONE)?;
    let digest = digest ^ u128::from_le_bytes(parent.linkage.0).rotate_left(1);
    let writer = Writer::new(disk.len(), true, &options, sink)?;
    let mut child = Child {
        writer,
        bitmap: None,
        block: None,
    };
    let (mut at, mut theirs, mut ours) = (0, vec![0; index(PIECE)], vec![0; index(PIECE)]);
    while let Some(found) = next(disk, base, at) {
        let piece = div(found, PIECE).saturating_mul(PIECE);
        fill(disk, piece, &mut ours)?;
        fill(base, piece, &mut theirs)?;
        child.piece(piece, &ours, &theirs)?;
        at = piece.saturating_add(PIECE);
    }
    child.end_block()?;
    child.end_chunk()?;
    Ok(Written {
        file_bytes: child.writer.finish(false, digest, Some(locator))?,
    })
}

/// The first byte from `at` on that one of the disks has stored, inside `disk`.
fn next(disk: &dyn ReadAt, base: &dyn ReadAt, at: u64) -> Option<u64> {
    let stored = |of: &dyn ReadAt| {
        let mut at = at;
        while at < of.len() {
            let extent = of.extent_at(at);
            if extent.kind.has_bytes() {
                return at;
            }
            at = at.saturating_add(extent.length.max(1));
        }
        u64::MAX
    };
    Some(stored(disk).min(stored(base))).filter(|found| *found < disk.len())
}

/// Reads with zeros past the end.
fn fill(disk: &dyn ReadAt, at: u64, buffer: &mut [u8]) -> Result<()> {
    let inside = index(disk.len().saturating_sub(at)).min(buffer.len());
    buffer.fill(0);
    match buffer.get_mut(..inside).filter(|part| !part.is_empty()) {
        Some(part) => disk.read_at(at, part),
        None => Ok(()),
    }
}

struct Child<'a> {
    writer: Writer<'a>,
    /// The chunk at hand and the place of its bitmap.
    bitmap: Option<(u64, u64)>,
    block: Option<Block>,
}

impl Child<'_> {
    /// Takes a piece of both disks; pieces come in ascending order.
    fn piece(&mut self, offset: u64, ours: &[u8], theirs: &[u8]) -> Result<()> {
        let geometry = self.writer.geometry;
        let number = div(offset, geometry.block_bytes);
        if self
            .block
            .as_ref()
            .is_none_or(|block| block.number != number)
        {
            self.end_block()?;
        }
        let per_block = div(geometry.block_bytes, geometry.sector);
        let block = self.block.get_or_insert_with(|| Block {
            number,
            place: None,
            bits: vec![0; index(per_block / 8)],
            changed: 0,
            data: false,
        });
        if ours.iter().any(|byte| *byte != 0) {
            block.data = true;
        }
        let within = rem(offset, geometry.block_bytes);
        let sectors = ours.chunks(index(geometry.sector));
        let theirs = theirs.chunks(index(geometry.sector));
        for (number, (ours, theirs)) in (0u64..).zip(sectors.zip(theirs)) {
            let at = within.saturating_add(number.saturating_mul(geometry.sector));
            if ours == theirs
                || offset.saturating_add(at).saturating_sub(within) >= geometry.disk_bytes
            {
                continue;
            }
            let sector = div(at, geometry.sector);
            if let Some(byte) = block.bits.get_mut(index(sector / 8)) {
                *byte |= 1u8.rotate_left(u32::try_from(sector % 8).unwrap_or(0));
            }
            block.changed = block.changed.saturating_add(1);
            if ours.iter().any(|byte| *byte != 0) {
                let place = match block.place {
                    Some(place) => place,
                    None => self.writer.place(geometry.block_bytes),
                };
                block.place = Some(place);
                self.writer.sink.write_at(place.saturating_add(at), ours)?;
            }
        }
        Ok(())
    }

    /// Decides what the block at hand is, and writes its entry.
    fn end_block(&mut self) -> Result<()> {
        let Some(block) = self.block.take().filter(|block| block.changed > 0) else {
            return Ok(());
        };
        let geometry = self.writer.geometry;
        let chunk = div(block.number, geometry.chunk_ratio());
        if self.bitmap.is_some_and(|(known, _)| known != chunk) {
            self.end_chunk()?;
        }
        let entry = geometry.block_entry(block.number);
        if !block.data {
            return self.writer.set(entry, bat::ZERO);
        }
        let place = match block.place {
            Some(place) => place,
            None => self.writer.place(geometry.block_bytes),
        };
        let (needed, _) = geometry.extent(Slot::Payload(block.number));
        if block.changed == div_up(needed, geometry.sector) {
            return self.writer.set(entry, place | bat::FULLY_PRESENT);
        }
        let bitmap = match self.bitmap {
            Some((_, bitmap)) => bitmap,
            None => self.writer.place(BITMAP_BYTES),
        };
        self.bitmap = Some((chunk, bitmap));
        let length = crate::math::len64(&block.bits);
        let within = rem(block.number, geometry.chunk_ratio()).saturating_mul(length);
        self.writer
            .sink
            .write_at(bitmap.saturating_add(within), &block.bits)?;
        self.writer.set(entry, place | bat::PARTIALLY_PRESENT)
    }

    /// Writes the entry of the bitmap of the chunk at hand.
    fn end_chunk(&mut self) -> Result<()> {
        let Some((chunk, bitmap)) = self.bitmap.take() else {
            return Ok(());
        };
        let entry = self.writer.geometry.bitmap_entry(chunk);
        self.writer.set(entry, bitmap | bat::FULLY_PRESENT)
    }
}
