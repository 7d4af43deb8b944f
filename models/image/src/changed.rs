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
    while at < size {
        let ((own, reach), (other, far)) = (holds(disk, at, size), holds(base, at, size));
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
