//! Copying with units compressed, each by itself.

use super::copy::add;
use super::cut::Piece;
use super::run::{Job, run};
use super::{BLOCK, CELL, Work, zero};
use crate::math::{div, index, len64};
use drylab_block::{ReadAt, Result, WriteAt};
use std::marker::PhantomData;
use std::ops::Range;

/// How units are packed.
pub(crate) trait Packing: Sync {
    /// A compressor; every worker has its own.
    type Tool;

    fn tool(&self) -> Result<Self::Tool>;

    /// Appends what unit `number` is packed into to `out`; `false` when it is to stay as it is.
    fn pack(
        &self,
        tool: &mut Self::Tool,
        number: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool>;
}

/// One unit of a piece.
pub(crate) struct Unit {
    pub(crate) number: u64,
    /// Range in [`Packed::packed`], or in [`Packed::plain`] of a unit that stays as it is.
    pub(crate) range: Range<usize>,
    pub(crate) is_packed: bool,
}

/// Units of a piece that hold something, in guest order.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) plain: Vec<u8>,
    pub(crate) packed: Vec<u8>,
    pub(crate) units: Vec<Unit>,
}

/// Where ranges of [`Packed`] go in the sink.
#[derive(Default)]
pub(crate) struct Writes {
    plain: Vec<(u64, Range<usize>)>,
    packed: Vec<(u64, Range<usize>)>,
}

impl Writes {
    /// Has the bytes of `unit` written at `host`.
    pub(crate) fn add(&mut self, host: u64, unit: &Unit) {
        let list = if unit.is_packed {
            &mut self.packed
        } else {
            &mut self.plain
        };
        add(list, host, unit.range.clone());
    }
}

struct Pack<'a, P, F> {
    disk: &'a dyn ReadAt,
    sink: Option<&'a dyn WriteAt>,
    unit: u64,
    packing: &'a P,
    place: PhantomData<fn(F)>,
}

impl<P: Packing, F: FnMut(&Packed, &mut Writes) -> Result<()> + Send> Job for Pack<'_, P, F> {
    type Tool = P::Tool;
    type Slot = (Packed, Writes);
    type Order = F;

    fn tool(&self) -> Result<P::Tool> {
        self.packing.tool()
    }

    fn prepare(&self, piece: &Piece, slot: &mut Self::Slot, tool: &mut P::Tool) -> Result<()> {
        let Packed {
            plain,
            packed,
            units,
        } = &mut slot.0;
        piece.read(self.disk, plain)?;
        // The unit at the end of the disk is packed whole.
        plain.resize(index(crate::math::round_up(len64(plain), self.unit)), 0);
        packed.clear();
        units.clear();
        let (mut number, mut at) = (div(piece.start, self.unit), 0usize);
        for bytes in plain.chunks(index(self.unit)) {
            let end = at.saturating_add(bytes.len());
            if !zero::is_zero(bytes) {
                let start = packed.len();
                let is_packed = self.packing.pack(tool, number, bytes, packed)?;
                let range = if is_packed {
                    start..packed.len()
                } else {
                    packed.truncate(start);
                    at..end
                };
                units.push(Unit {
                    number,
                    range,
                    is_packed,
                });
            }
            at = end;
            number = number.saturating_add(1);
        }
        Ok(())
    }

    fn place(&self, order: &mut F, _: &Piece, slot: &mut Self::Slot) -> Result<()> {
        slot.1.plain.clear();
        slot.1.packed.clear();
        order(&slot.0, &mut slot.1)
    }

    fn finish(&self, _: &Piece, (held, writes): &mut Self::Slot) -> Result<()> {
        let Some(sink) = self.sink else {
            return Ok(());
        };
        let both = [(&held.plain, &writes.plain), (&held.packed, &writes.packed)];
        for (bytes, list) in both {
            for (host, range) in list {
                if let Some(bytes) = bytes.get(range.clone()) {
                    sink.write_at(*host, bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// Packs every unit of `unit` bytes (a power of two) that holds a byte other than zero, padded with zeros past the end of
/// the disk.
///
/// `place` is called in guest order with the units of one piece after the other. It says where they go in `sink`, or
/// takes their bytes itself.
pub(crate) fn pack<P: Packing>(
    disk: &dyn ReadAt,
    sink: Option<&dyn WriteAt>,
    (unit, packing): (u64, &P),
    work: &Work<'_>,
    place: impl FnMut(&Packed, &mut Writes) -> Result<()> + Send,
) -> Result<()> {
    let unit = unit.max(1);
    let job = Pack {
        disk,
        sink,
        unit,
        packing,
        place: PhantomData,
    };
    let shape = (CELL.max(unit), BLOCK.max(unit));
    run(disk, shape, work, &job, place).map(drop)
}
