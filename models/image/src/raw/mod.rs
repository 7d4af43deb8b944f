//! Raw: the disk's bytes and nothing else.
//!
//! There is no specification and no magic: a file is raw when nothing else claims it. Reading is the source itself.

use crate::math::{div, index};
use crate::scan::for_each_unit;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// Bytes looked at for zeros at a time.
const PIECE: u64 = 1 << 16;

/// Writes the pieces of `disk` that are not zeros and sets the length, which is the result.
pub(crate) fn write_raw(disk: &dyn ReadAt, sink: &dyn WriteAt) -> Result<u64> {
    let size = disk.len();
    sink.set_len(size)?;
    for_each_unit(disk, PIECE, |unit, bytes| {
        let offset = unit.saturating_mul(PIECE);
        let inside = index(size.saturating_sub(offset).min(PIECE));
        let piece = bytes.get(..inside).ok_or_else(|| {
            Error::io(format_args!(
                "piece {} of a disk of {} pieces",
                unit,
                div(size, PIECE)
            ))
        })?;
        sink.write_at(offset, piece)
    })?;
    Ok(size)
}
