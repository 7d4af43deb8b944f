//! A disk cut into the pieces that have bytes.

use crate::math::{div, index, rem};
use drylab_block::{Below, ExtentKind, ReadAt, Result};

/// Blocks of a disk that adjoin and hold extents with bytes.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Guest offset, a multiple of the block.
    pub(crate) start: u64,
    /// Bytes, a multiple of the block except at the end of the disk.
    pub(crate) length: u64,
    /// Offset and length of what is to be read, ascending; the rest is zeros.
    spans: Vec<(u64, u64)>,
}

impl Piece {
    /// Bytes that are read.
    pub(super) fn data(&self) -> u64 {
        self.spans
            .iter()
            .fold(0, |sum, (_, length)| sum.saturating_add(*length))
    }

    /// Reads the piece into `buffer`, which takes its length.
    pub(crate) fn read(&self, disk: &dyn ReadAt, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(index(self.length), 0);
        let mut at = 0usize;
        for (start, length) in &self.spans {
            let from = index(start.saturating_sub(self.start));
            if let Some(zeros) = buffer.get_mut(at..from) {
                zeros.fill(0);
            }
            at = from.saturating_add(index(*length));
            if let Some(bytes) = buffer.get_mut(from..at) {
                disk.read_at(*start, bytes)?;
            }
        }
        if let Some(zeros) = buffer.get_mut(at..) {
            zeros.fill(0);
        }
        Ok(())
    }
}

/// An extent of the disk, and the range of another source that it is.
#[derive(Clone, Copy)]
struct Run<'a> {
    end: u64,
    kind: ExtentKind,
    /// With the offset of the disk that its first byte has.
    below: Option<(u64, Below<'a>)>,
}

/// What the disk says of the range at `at`, up to where bytes that stand in another source stand elsewhere there.
fn run_at(disk: &dyn ReadAt, at: u64) -> Run<'_> {
    let end = disk.len();
    let found = disk.extent_at(at);
    // A source that answers nonsense is taken to mean "bytes until the end".
    let told = found.offset == at && found.length > 0;
    let mut run = Run {
        end: match at.checked_add(found.length) {
            Some(stop) if told => stop.min(end),
            _ => end,
        },
        kind: found.kind,
        below: None,
    };
    if run.kind == ExtentKind::Data {
        let below = disk.below(at).map(Below::lowest);
        if let Some(below) = below.filter(|below| below.length > 0) {
            run.end = run.end.min(at.saturating_add(below.length));
            run.below = Some((at, below));
        }
    }
    run
}

impl Run<'_> {
    /// Kind and end of the range at `at`: what the source below knows of it, where there is one. A block of a dynamic
    /// disk may be a hole of its file.
    fn part(&self, at: u64) -> (ExtentKind, u64) {
        let Some((from, below)) = &self.below else {
            return (self.kind, self.end);
        };
        let place = below.offset.saturating_add(at.saturating_sub(*from));
        let there = below.source.extent_at(place);
        if there.offset != place || there.length == 0 {
            return (self.kind, self.end);
        }
        let end = at.saturating_add(there.length).min(self.end);
        let kind = if there.kind.has_bytes() {
            self.kind
        } else {
            ExtentKind::Zero
        };
        (kind, end)
    }
}

/// Bytes of the extents that have to be read.
pub(super) fn data_bytes(disk: &dyn ReadAt) -> u64 {
    let mut cutter = Cutter::new(disk, 1, 1);
    let mut sum = 0u64;
    while let Some((start, end)) = cutter.look() {
        sum = sum.saturating_add(end.saturating_sub(start));
        cutter.found = None;
    }
    sum
}

/// Cuts a disk into pieces, in guest order.
pub(crate) struct Cutter<'a> {
    disk: &'a dyn ReadAt,
    size: u64,
    cell: u64,
    block: u64,
    /// First byte not yet asked for.
    at: u64,
    /// What is known of it.
    run: Option<Run<'a>>,
    /// A range with bytes that is not yet in a piece.
    found: Option<(u64, u64)>,
    /// End of the last piece.
    taken: u64,
}

impl<'a> Cutter<'a> {
    /// Pieces of whole blocks that do not cross a multiple of `cell`, itself a multiple of `block`.
    pub(crate) fn new(disk: &'a dyn ReadAt, cell: u64, block: u64) -> Self {
        Self {
            disk,
            size: disk.len(),
            cell,
            block,
            at: 0,
            run: None,
            found: None,
            taken: 0,
        }
    }

    /// The next range with bytes.
    fn look(&mut self) -> Option<(u64, u64)> {
        while self.found.is_none() && self.at < self.size {
            let run = match self.run.filter(|run| run.end > self.at) {
                Some(run) => run,
                None => run_at(self.disk, self.at),
            };
            self.run = Some(run);
            let (kind, end) = run.part(self.at);
            let end = end.max(self.at.saturating_add(1));
            if kind.has_bytes() {
                self.found = Some((self.at, end));
            }
            self.at = end;
        }
        self.found
    }

    fn block_of(&self, offset: u64) -> u64 {
        offset.saturating_sub(rem(offset, self.block))
    }

    /// The next piece, or `false` behind the last.
    pub(crate) fn next(&mut self, piece: &mut Piece) -> bool {
        piece.spans.clear();
        let Some((start, _)) = self.look() else {
            return false;
        };
        let first = self.block_of(start).max(self.taken);
        let cells = div(first, self.cell).saturating_add(1);
        let limit = cells.saturating_mul(self.cell).min(self.size);
        let mut end = first;
        while let Some((start, stop)) = self.look() {
            if self.block_of(start) > end || start >= limit {
                break;
            }
            let until = stop.min(limit);
            match piece.spans.last_mut() {
                Some((at, length)) if at.saturating_add(*length) == start => {
                    *length = until.saturating_sub(*at);
                }
                _ => piece.spans.push((start, until.saturating_sub(start))),
            }
            end = crate::math::round_up(until, self.block).min(limit);
            self.found = (stop > until).then_some((until, stop));
        }
        self.taken = end;
        piece.start = first;
        piece.length = end.saturating_sub(first);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{SparseBytes, Window, WriteAt};
    use std::sync::Arc;

    fn cut(disk: &dyn ReadAt, cell: u64, block: u64) -> Vec<(u64, u64, u64)> {
        let mut cutter = Cutter::new(disk, cell, block);
        let mut piece = Piece::default();
        let mut all = Vec::new();
        while cutter.next(&mut piece) {
            let mut bytes = vec![9; 3];
            piece.read(disk, &mut bytes).unwrap();
            let mut same = vec![0; bytes.len()];
            disk.read_at(piece.start, &mut same).unwrap();
            assert!(bytes == same);
            all.push((piece.start, piece.length, piece.data()));
        }
        all
    }

    #[test]
    fn pieces_are_whole_blocks_in_order_and_holes_are_in_none() {
        let disk = SparseBytes::new((1 << 20) + 5000);
        for at in [100u64, 70_000, 131_071, 400_000, (1 << 20) + 4999] {
            disk.write_at(at, &[1]).unwrap();
        }
        let data = data_bytes(&disk);
        assert_eq!(
            cut(&disk, 1 << 17, 1 << 16),
            [
                (0, 131_072, 4096 * 3),
                (393_216, 65_536, 4096),
                (1 << 20, 5000, 904)
            ]
        );
        assert_eq!(data, 4096 * 4 + 904);
        // A block that the end of the disk cuts is cut.
        assert_eq!(cut(&disk, 1 << 16, 1 << 16).len(), 4);
    }

    #[test]
    fn a_hole_below_a_window_is_a_hole() {
        let file = SparseBytes::new(1 << 20);
        file.write_at(200_000, &[1]).unwrap();
        let window = Window::new(Arc::new(file), 512, 1 << 19).unwrap();
        // The window's page is the file's, moved by the window's start.
        assert_eq!(cut(&window, 1 << 19, 512), [(196_096, 4096, 4096)]);
    }
}
