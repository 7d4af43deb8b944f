//! The copying loop: 2 MiB at a time, and of those only the runs of sectors that are not zero.

use crate::math::{SECTOR, bytes, div, index};
use drylab_block::{Extents, ReadAt, Result};

/// Bytes read at a time.
const CHUNK: u64 = 2 << 20;
/// A sector of zeros to compare with.
const ZEROS: [u8; 512] = [0; 512];

/// Calls `each` with the first sector and the bytes of every run, in order, until it says stop.
pub(crate) fn for_each_run(
    disk: &dyn ReadAt,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<bool>,
) -> Result<()> {
    let mut buffer = vec![0; index(CHUNK)];
    let mut next = 0u64;
    for extent in Extents::new(disk).filter(|extent| extent.kind.has_bytes()) {
        let end = extent.offset.saturating_add(extent.length);
        let mut chunk = div(extent.offset, CHUNK).saturating_mul(CHUNK).max(next);
        while chunk < end {
            let length = CHUNK.min(disk.len().saturating_sub(chunk));
            let Some(part) = buffer.get_mut(..index(length)) else {
                break;
            };
            disk.read_at(chunk, part)?;
            if !runs_of(div(chunk, SECTOR), part, each)? {
                return Ok(());
            }
            chunk = chunk.saturating_add(CHUNK);
        }
        next = next.max(chunk);
    }
    Ok(())
}

fn runs_of(
    first: u64,
    chunk: &[u8],
    each: &mut dyn FnMut(u64, &[u8]) -> Result<bool>,
) -> Result<bool> {
    let size = index(SECTOR);
    let mut start: Option<u64> = None;
    let mut number = 0u64;
    let mut send = |start: u64, end: u64| {
        let run = chunk.get(index(bytes(start))..index(bytes(end)).min(chunk.len()));
        run.map_or(Ok(true), |run| each(first.saturating_add(start), run))
    };
    for sector in chunk.chunks(size) {
        let zero = ZEROS.get(..sector.len()) == Some(sector);
        match (zero, start) {
            (false, None) => start = Some(number),
            (true, Some(from)) => {
                if !send(from, number)? {
                    return Ok(false);
                }
                start = None;
            }
            _ => {}
        }
        number = number.saturating_add(1);
    }
    start.map_or(Ok(true), |from| send(from, number))
}
