//! QED files for fuzzers: a sound one of some clusters, with changes in places that matter. A file is 16 KiB at least, and
//! a fuzzer that has to find each of its bytes stays in front of the tables.
//!
//! ```text
//! 0  bit 0: tables of two clusters, not of one; from bit 1 on the features: backing file, check needed, it is raw
//! 1  sectors that the file is cut by
//! 2  changes: area (one byte), offset in it (u16), number of bytes (one byte), bytes
//! ```

use super::change;
use drylab_block::{ReadAt, Result, SparseBytes, WriteAt};

const CLUSTER: u64 = 4096;
/// Bytes of the disk behind what the first table describes: ten clusters.
const TAIL: u64 = 40_960;

/// The file that a script makes: header, L1 table, two L2 tables, four clusters of data.
pub(super) fn scripted(data: &[u8]) -> Result<SparseBytes> {
    let kind = data.first().copied().unwrap_or(0);
    let clusters = if kind & 1 == 0 { 1u32 } else { 2 };
    let table = u64::from(clusters).saturating_mul(CLUSTER);
    let [first, second, bytes] =
        [1u64, 2, 3].map(|number| number.saturating_mul(table).saturating_add(CLUSTER));
    let at = |number: u64| number.saturating_mul(CLUSTER).saturating_add(bytes);
    let size = (table / 8).saturating_mul(CLUSTER).saturating_add(TAIL);
    let file = SparseBytes::new(at(4));
    let numbers = [4096, clusters, 1].map(u32::to_le_bytes).concat();
    let features = u64::from((kind >> 1) & 7);
    let words = [features, 0, 0, CLUSTER, size].map(u64::to_le_bytes);
    let name = [64u32, 4].map(u32::to_le_bytes).concat();
    let header = [b"QED\0", &*numbers, &words.concat(), &name, b"base"].concat();
    file.write_at(0, &header)?;
    for (place, entries) in [
        (CLUSTER, [first, second, 0, 0]),
        (first, [at(0), 1, 0, at(1)]),
        (second, [at(3), 0, 1, at(2)]),
    ] {
        file.write_at(place, &entries.map(u64::to_le_bytes).concat())?;
    }
    for (number, byte) in (0u64..).zip([0x11u8, 0x22, 0x33, 0x44]) {
        file.write_at(at(number), &[byte; 700])?;
    }
    let areas = [0, CLUSTER, first, second, bytes];
    change(&file, &areas, data.get(2..).unwrap_or_default())?;
    let cut = u64::from(data.get(1).copied().unwrap_or(0)).saturating_mul(512);
    file.set_len(file.len().saturating_sub(cut))?;
    Ok(file)
}
