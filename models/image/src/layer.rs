//! A disk over its parent: one file says where the bytes of a range stand, or nothing, and then the file below it is
//! asked.
//!
//! ```text
//! guest offset ─ piece ─ Own: at a place of this file
//!                      ─ Zero
//!                      ─ Below: what the parent has there; without one, or behind its end, zeros
//! ```

use crate::container::{Container, Stored};
use crate::edit::{Edit, Plan};
use crate::finding::Findings;
use crate::math::{index, len64};
use drylab_block::{Below, Error, Extent, ExtentKind, ReadAt, Result};

/// Where the bytes of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this byte offset of the file.
    Own(u64),
    /// Nowhere: they are zero.
    Zero,
    /// Not in this file.
    Below,
}

/// Bytes from one offset on that are alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// How many, at least one.
    pub(crate) length: u64,
    pub(crate) place: Place,
}

/// [`ReadAt::below`] of an image in `file`, by what it says of a piece.
pub(crate) fn below(
    file: &dyn ReadAt,
    (extent, stored): (Extent, Option<Stored>),
) -> Option<Below<'_>> {
    let stored = stored.filter(|stored| stored.file.is_empty())?;
    let length = file.len().checked_sub(stored.offset)?.min(extent.length);
    (length > 0).then_some(Below {
        source: file,
        offset: stored.offset,
        length,
    })
}

/// The image that a differencing one stands on.
pub(crate) struct Parent {
    pub(crate) image: Box<dyn Container>,
    /// The name by which the resolver knows its file.
    pub(crate) key: String,
}

impl Parent {
    /// Checks it, and the files below it.
    pub(crate) fn check(&self, found: &mut Findings) -> Result<()> {
        let mut own = Findings::default();
        self.image.check(&mut own)?;
        found.extend(&self.key, &own);
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let inside = self.image.len().saturating_sub(offset).min(len64(buffer));
        if let Some((head, tail)) = buffer.split_at_mut_checked(index(inside)) {
            tail.fill(0);
            if !head.is_empty() {
                self.image.read_at(offset, head)?;
            }
        }
        Ok(())
    }
}

/// Most units that an answer about an extent looks at: a child over a parent asks both again and again.
pub(crate) const UNITS_MAX: u64 = 4096;

/// A disk in one file, with a parent or without.
pub(crate) trait Layer {
    /// Guest-visible bytes.
    fn size(&self) -> u64;
    /// The file.
    fn source(&self) -> &dyn ReadAt;
    /// The image below, if there is one.
    fn parent(&self) -> Option<&Parent>;
    /// What is at `offset`, which is inside the disk; looks for more only up to `wanted` bytes and [`UNITS_MAX`] units.
    fn piece(&self, offset: u64, wanted: u64) -> Result<Piece>;
    /// Bytes from `offset` to the end of its unit or of the disk, never 0: as far as an error reaches.
    fn rest(&self, offset: u64) -> u64;
}

/// [`ReadAt::read_at`] over a layer.
pub(crate) fn read(layer: &impl Layer, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let (size, wanted) = (layer.size(), len64(buffer));
    if offset.checked_add(wanted).is_none_or(|end| end > size) {
        return Err(Error::io(format_args!(
            "read of {wanted} bytes at offset {offset} ends past the end ({size})"
        )));
    }
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let piece = layer.piece(at, len64(rest))?;
        let length = piece.length.min(len64(rest));
        let (part, later) = rest
            .split_at_mut_checked(index(length))
            .filter(|_| length > 0)
            .ok_or_else(|| Error::corrupt(format_args!("no bytes known at offset {at}")))?;
        match (piece.place, layer.parent()) {
            (Place::Own(host), _) => layer.source().read_at(host, part)?,
            (Place::Below, Some(parent)) => parent.read(at, part)?,
            (Place::Below | Place::Zero, _) => part.fill(0),
        }
        at = at.saturating_add(length);
        rest = later;
    }
    Ok(())
}

/// [`Container::piece_at`] over a layer: total, also where tables are broken.
pub(crate) fn stored(layer: &impl Layer, offset: u64) -> (Extent, Option<Stored>) {
    let extent = |length: u64, kind| Extent {
        offset,
        length: length.min(layer.size().saturating_sub(offset)),
        kind,
    };
    let first = match layer.piece(offset, 1) {
        Ok(piece) => piece.place,
        // Bytes that cannot be found are said to be bytes: reading them says what is wrong.
        Err(_) => return (extent(layer.rest(offset), ExtentKind::Data), None),
    };
    let reach = |wanted| match layer.piece(offset, wanted) {
        Ok(piece) => piece.length.min(wanted),
        Err(_) => 1,
    };
    match (first, layer.parent()) {
        (Place::Own(host), _) => {
            let stored = Stored {
                file: String::new(),
                offset: host,
            };
            (extent(reach(u64::MAX), ExtentKind::Data), Some(stored))
        }
        (Place::Zero, _) => (extent(reach(u64::MAX), ExtentKind::Zero), None),
        (Place::Below, Some(parent)) if offset < parent.image.len() => {
            let (below, mut stored) = parent.image.piece_at(offset);
            if let Some(stored) = stored.as_mut().filter(|stored| stored.file.is_empty()) {
                stored.file.clone_from(&parent.key);
            }
            (extent(reach(below.length), below.kind), stored)
        }
        (Place::Below, _) => (extent(reach(u64::MAX), ExtentKind::Hole), None),
    }
}

/// Entries of a table that are compared, and written, at a time.
const ENTRIES: usize = 128;

/// Plans the change of a table of 32-bit entries at `place` from `old` to `new`, a sector's worth at a time; equal ones
/// are left alone.
pub(crate) fn write_entries(
    plan: &mut Plan,
    place: u64,
    (old, new): (&[u32], &[u32]),
    bytes: fn(u32) -> [u8; 4],
) {
    let pairs = old.chunks(ENTRIES).zip(new.chunks(ENTRIES));
    for (number, (old, new)) in (0u64..).zip(pairs) {
        if old != new {
            let all = |words: &[u32]| words.iter().flat_map(|word| bytes(*word)).collect();
            plan.push(Edit::Write {
                offset: place.saturating_add(number.saturating_mul(512)),
                old: all(old),
                new: all(new),
            });
        }
    }
}

/// A flush, if there is something to be flushed.
pub(crate) fn flush(plan: &mut Plan) {
    if plan.edits().last().is_some_and(|last| *last != Edit::Flush) {
        plan.push(Edit::Flush);
    }
}

/// What stands at a place of a file, zeros behind its end.
pub(crate) fn standing(file: &dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; index(length)];
    let inside = file.len().saturating_sub(offset).min(length);
    if let Some(part) = bytes
        .get_mut(..index(inside))
        .filter(|part| !part.is_empty())
    {
        file.read_at(offset, part)?;
    }
    Ok(bytes)
}

/// Bytes written at a time where many are set alike.
const PIECE: u64 = 1 << 16;

/// Plans that all bytes from `start` to `end` become `value`, where they are not; behind the file's end they are zeros
/// that an earlier step made.
pub(crate) fn fill(
    plan: &mut Plan,
    file: &dyn ReadAt,
    (start, end): (u64, u64),
    value: u8,
) -> Result<()> {
    let mut at = start;
    while at < end {
        let take = end.saturating_sub(at).min(PIECE);
        let old = standing(file, at, take)?;
        if old.iter().any(|byte| *byte != value) {
            let new = vec![value; old.len()];
            plan.push(Edit::Write {
                offset: at,
                old,
                new,
            });
        }
        at = at.saturating_add(take);
    }
    Ok(())
}
