//! What there is to write: the units of a disk that are not all zeros, in ascending order.

use crate::engine::{BLOCK, CELL, Cutter, Piece, is_zero};
use crate::layer::standing;
use crate::math::{div, index, len64, rem, round_up};
use drylab_block::{ReadAt, Result};

/// Visits every unit that holds a byte other than zero, padded with zeros past the end of the disk, on this thread.
///
/// Holes, explicit zeros and written zeros are the same to a writer, so that its output is a function of the
/// guest-visible bytes alone. Writers that say where units go before they are written are faster by
/// [`engine::copy`](crate::engine::copy).
pub(crate) fn for_each_unit(
    disk: &dyn ReadAt,
    unit_bytes: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let unit_bytes = unit_bytes.max(1);
    // As many units at a time as the engine takes, or one.
    let block = round_up(BLOCK, unit_bytes);
    let cell = round_up(CELL, block);
    let mut cutter = Cutter::new(disk, cell, block);
    let (mut piece, mut buffer) = (Piece::default(), Vec::new());
    while cutter.next(&mut piece) {
        piece.read(disk, &mut buffer)?;
        buffer.resize(index(round_up(len64(&buffer), unit_bytes)), 0);
        let mut unit = div(piece.start, unit_bytes);
        for bytes in buffer.chunks(index(unit_bytes)) {
            if !is_zero(bytes) {
                visit(unit, bytes)?;
            }
            unit = unit.saturating_add(1);
        }
    }
    Ok(())
}

/// Whether a range of a disk may hold bytes other than zero, and how far that is true.
fn holds(disk: &dyn ReadAt, at: u64, end: u64) -> (bool, u64) {
    if at >= disk.len() {
        return (false, end);
    }
    let extent = disk.extent_at(at);
    let reach = at.saturating_add(extent.length.max(1)).min(end);
    (extent.kind.has_bytes(), reach)
}

/// Visits every unit in which `disk` differs from `base`, with the bytes of both, padded with zeros past their ends.
pub(crate) fn for_each_changed(
    disk: &dyn ReadAt,
    base: &dyn ReadAt,
    unit_bytes: u64,
    mut visit: impl FnMut(u64, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let (size, unit_bytes) = (disk.len(), unit_bytes.max(1));
    let end = round_up(size, 512);
    let mut at = 0u64;
    while at < end {
        let ((own, reach), (other, far)) = (holds(disk, at, end), holds(base, at, end));
        if !own && !other {
            at = reach.min(far);
            continue;
        }
        let start = at.saturating_sub(rem(at, unit_bytes));
        at = start.saturating_add(unit_bytes);
        let own = standing(disk, start, unit_bytes)?;
        let mut other = standing(base, start, unit_bytes)?;
        // Nothing of a longer base is seen behind the last sector.
        let inside = end.saturating_sub(start).min(unit_bytes);
        if let Some(behind) = other.get_mut(index(inside)..) {
            behind.fill(0);
        }
        if own != other {
            visit(div(start, unit_bytes), &own, &other)?;
        }
    }
    Ok(())
}

/// Bytes handed out front to back, with the offset reached.
pub(crate) struct Front<'a> {
    put: &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    at: u64,
}

impl<'a> Front<'a> {
    /// Starts at offset 0.
    pub(crate) fn new(put: &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Self {
        Self { put, at: 0 }
    }

    /// Bytes handed out so far.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Hands out `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        (self.put)(bytes)?;
        self.at = self.at.saturating_add(len64(bytes));
        Ok(())
    }

    /// Hands out zeros up to the next multiple of `alignment`.
    pub(crate) fn pad(&mut self, alignment: u64) -> Result<()> {
        let missing = round_up(self.at, alignment).saturating_sub(self.at);
        if missing > 0 {
            self.put(&vec![0; index(missing)])
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drylab_block::{SparseBytes, WriteAt};
    use proptest::prelude::*;

    fn bytes(disk: &SparseBytes, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let inside = length.min(disk.len() as usize);
        disk.read_at(0, &mut bytes[..inside]).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_unit_is_visited_when_a_byte_of_a_sector_of_the_disk_is_another_in_it(
            sizes in (1..90_000u64, 1..90_000u64), unit in prop::sample::select(vec![512u64, 4096, 65_536]),
            both in prop::collection::vec((any::<u64>(), any::<u8>()), 0..9),
            one in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u8>()), 0..5),
        ) {
            let disks = [SparseBytes::new(sizes.0), SparseBytes::new(sizes.1)];
            let put = |disk: &SparseBytes, at: u64, byte: u8| disk.write_at(at % disk.len(), &[byte]).unwrap();
            let least = sizes.0.min(sizes.1);
            for (at, byte) in both {
                put(&disks[0], at % least, byte);
                put(&disks[1], at % least, byte);
            }
            for (second, at, byte) in one {
                put(&disks[usize::from(second)], at, byte);
            }
            let whole = sizes.0.next_multiple_of(512) as usize;
            let (own, other) = (bytes(&disks[0], whole), bytes(&disks[1], whole));
            let pairs = own.chunks(unit as usize).zip(other.chunks(unit as usize));
            let expected: Vec<u64> = (0..).zip(pairs).filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
            let mut found = Vec::new();
            for_each_changed(&disks[0], &disks[1], unit, |number, a, b| {
                let at = (number * unit) as usize;
                let end = (at + unit as usize).min(whole);
                assert!(a[..end - at] == own[at..end] && b[..end - at] == other[at..end]);
                assert!(a[end - at..].iter().chain(&b[end - at..]).all(|byte| *byte == 0));
                assert_eq!((a.len() as u64, b.len() as u64), (unit, unit));
                found.push(number);
                Ok(())
            }).unwrap();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_unit_with_a_byte_in_it_comes_once_and_whole() {
        let disk = SparseBytes::new(5_000_000);
        for at in [
            0u64, 699, 700, 65_535, 524_287, 524_288, 3_000_000, 4_999_999,
        ] {
            disk.write_at(at, &[7]).unwrap();
        }
        for unit in [700u64, 512, 65_536, 1 << 20, 3 << 20] {
            let mut expected = Vec::new();
            for number in 0..5_000_000u64.div_ceil(unit) {
                let mut bytes = vec![0; unit as usize];
                let inside = (5_000_000 - number * unit).min(unit) as usize;
                disk.read_at(number * unit, &mut bytes[..inside]).unwrap();
                if bytes.iter().any(|byte| *byte != 0) {
                    expected.push((number, bytes));
                }
            }
            let mut found = Vec::new();
            for_each_unit(&disk, unit, |number, bytes| {
                found.push((number, bytes.to_vec()));
                Ok(())
            })
            .unwrap();
            assert!(found == expected, "{unit}");
        }
    }
}
