//! In what two disks differ: what writers of snapshots store.

use crate::layer::standing;
use crate::math::{div, index, rem, round_up};
use drylab_block::{ReadAt, Result};

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
}
