//! Copying bytes as they are.

use super::cut::Piece;
use super::run::{Job, run};
use super::{BLOCK, CELL, Work, digest, zero};
use crate::math::{div, index, len64, rem};
use drylab_block::{Below, ReadAt, Result, WriteAt};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ranges shared instead of written begin and end at multiples of this many bytes, in both files: the blocks of every
/// file system that can share.
const SHARE: u64 = 4096;

/// A piece read and looked through.
#[derive(Default)]
struct Slot {
    bytes: Vec<u8>,
    runs: Vec<Range<usize>>,
    digest: u128,
    /// Where ranges of `bytes` go.
    writes: Vec<(u64, Range<usize>)>,
}

impl Slot {
    fn read(&mut self, disk: &dyn ReadAt, piece: &Piece, unit: u64, digest: bool) -> Result<()> {
        piece.read(disk, &mut self.bytes)?;
        zero::runs(&self.bytes, unit, &mut self.runs);
        if digest {
            self.digest = digest::of_piece(piece.start, &self.bytes, &self.runs);
        }
        self.writes.clear();
        Ok(())
    }
}

struct Copy<'a, F> {
    disk: &'a dyn ReadAt,
    sink: &'a dyn WriteAt,
    unit: u64,
    digest: bool,
    /// Whether the sink may be able to share ranges; it is asked until it says no.
    shares: AtomicBool,
    place: PhantomData<fn(F)>,
}

struct Order<F> {
    place: F,
    /// The unit placed last, and where it is.
    last: Option<(u64, u64)>,
    digest: u128,
}

impl<F: FnMut(u64) -> Result<u64> + Send> Job for Copy<'_, F> {
    type Tool = ();
    type Slot = Slot;
    type Order = Order<F>;

    fn tool(&self) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, piece: &Piece, slot: &mut Slot, (): &mut ()) -> Result<()> {
        slot.read(self.disk, piece, self.unit, self.digest)
    }

    fn place(&self, order: &mut Order<F>, piece: &Piece, slot: &mut Slot) -> Result<()> {
        order.digest = order.digest.wrapping_add(slot.digest);
        for run in &slot.runs {
            let mut at = run.start;
            while at < run.end {
                let offset = piece
                    .start
                    .saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
                let (unit, within) = (div(offset, self.unit), rem(offset, self.unit));
                let host = match order.last {
                    Some((last, host)) if last == unit => host,
                    _ => (order.place)(unit)?,
                };
                order.last = Some((unit, host));
                let end = at
                    .saturating_add(index(self.unit.saturating_sub(within)))
                    .min(run.end);
                add(&mut slot.writes, host.saturating_add(within), at..end);
                at = end;
            }
        }
        Ok(())
    }

    fn finish(&self, piece: &Piece, slot: &mut Slot) -> Result<()> {
        for (host, range) in &slot.writes {
            let Some(bytes) = slot.bytes.get(range.clone()) else {
                continue;
            };
            let guest = piece
                .start
                .saturating_add(u64::try_from(range.start).unwrap_or(u64::MAX));
            if !self.share(guest, *host, len64(bytes))? {
                self.sink.write_at(*host, bytes)?;
            }
        }
        Ok(())
    }
}

/// Adds a write, joined to the last where it continues it in both places.
pub(crate) fn add(writes: &mut Vec<(u64, Range<usize>)>, host: u64, range: Range<usize>) {
    if let Some((at, last)) = writes.last_mut()
        && last.end == range.start
        && at.checked_add(u64::try_from(last.len()).unwrap_or(u64::MAX)) == Some(host)
    {
        last.end = range.end;
        return;
    }
    writes.push((host, range));
}

impl<F> Copy<'_, F> {
    /// Has the sink share a range that stands in another file as it is, where it can.
    fn share(&self, guest: u64, host: u64, length: u64) -> Result<bool> {
        if !self.shares.load(Ordering::Relaxed) || rem(host | length, SHARE) != 0 {
            return Ok(false);
        }
        let Some(below) = self.disk.below(guest).map(Below::lowest) else {
            return Ok(false);
        };
        if below.length < length || rem(below.offset, SHARE) != 0 {
            return Ok(false);
        }
        let taken = self.sink.take(host, Below { length, ..below })?;
        if !taken {
            self.shares.store(false, Ordering::Relaxed);
        }
        Ok(taken)
    }
}

/// Copies the bytes of `disk` that are not zeros to `sink`, by units of `unit` bytes.
///
/// `place` is asked once, in guest order, where each unit goes that holds a byte other than zero; it may write to the
/// sink itself. Of a unit only the pages with something in them are written: the sink has zeros where nothing was
/// written. The length of the sink is the caller's. With `name` the result is a digest of the content, else 0.
pub(crate) fn copy(
    disk: &dyn ReadAt,
    sink: &dyn WriteAt,
    (unit, name): (u64, bool),
    work: &Work<'_>,
    place: impl FnMut(u64) -> Result<u64> + Send,
) -> Result<u128> {
    let job = Copy {
        disk,
        sink,
        unit: unit.max(1),
        digest: name,
        shares: AtomicBool::new(true),
        place: PhantomData,
    };
    let order = Order {
        place,
        last: None,
        digest: 0,
    };
    let order = run(disk, (CELL, BLOCK), work, &job, order)?;
    Ok(if name {
        digest::finished(disk.len(), order.digest)
    } else {
        0
    })
}

struct Visit<'a, F> {
    disk: &'a dyn ReadAt,
    digest: bool,
    visit: PhantomData<fn(F)>,
}

impl<F: FnMut(u64, &[u8]) -> Result<()> + Send> Job for Visit<'_, F> {
    type Tool = ();
    type Slot = Slot;
    type Order = (F, u128);

    fn tool(&self) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, piece: &Piece, slot: &mut Slot, (): &mut ()) -> Result<()> {
        slot.read(self.disk, piece, BLOCK, self.digest)
    }

    fn place(&self, order: &mut (F, u128), piece: &Piece, slot: &mut Slot) -> Result<()> {
        order.1 = order.1.wrapping_add(slot.digest);
        for run in &slot.runs {
            let offset = u64::try_from(run.start).unwrap_or(u64::MAX);
            if let Some(bytes) = slot.bytes.get(run.clone()) {
                (order.0)(piece.start.saturating_add(offset), bytes)?;
            }
        }
        Ok(())
    }

    fn finish(&self, _: &Piece, _: &mut Slot) -> Result<()> {
        Ok(())
    }
}

/// Hands the pages of `disk` that are not zeros to `visit`, in guest order, as many as adjoin at a time (up to
/// [`CELL`] bytes). With `name` the result is a digest of the content, else 0.
pub(crate) fn visit(
    disk: &dyn ReadAt,
    name: bool,
    work: &Work<'_>,
    visit: impl FnMut(u64, &[u8]) -> Result<()> + Send,
) -> Result<u128> {
    let job = Visit {
        disk,
        digest: name,
        visit: PhantomData,
    };
    let (_, sum) = run(disk, (CELL, BLOCK), work, &job, (visit, 0))?;
    Ok(if name {
        digest::finished(disk.len(), sum)
    } else {
        0
    })
}

/// The digest that [`copy`] and [`visit`] make, for what has to be named before it is written.
pub(crate) fn content_digest(disk: &dyn ReadAt, work: &Work<'_>) -> Result<u128> {
    // Reading for a name is no progress.
    let work = Work {
        jobs: work.jobs,
        progress: None,
    };
    visit(disk, true, &work, |_, _| Ok(()))
}
