//! Files for fuzzers: a few bytes that change a sound file in places that matter, with its checksums set right, since
//! no change of a few bytes would get past them.
//!
//! ```text
//! 0  which file: 0 dynamic, 1 fixed, 2 differencing, 3 dynamic with a LogGuid
//! 1  bits for checksums that stay wrong: 1 header 1, 2 header 2, 4 region table 1, 8 region table 2, 16 log
//! 2  MiB that the file is cut by
//! 3  changes: area (one byte), offset in it (u16), number of bytes (one byte), bytes
//! ```

use super::header::{HEADER_BYTES, HEADERS_AT, MAGIC, SECTION, seal};
use super::region::{TABLE_BYTES, TABLES_AT};
use super::{Guid, VhdxOptions, VhdxParent, write_dynamic, write_fixed, write_vhdx_child};
use crate::engine::Work;
use crate::fuzz::change;
use crate::math::index;
use drylab_block::{ReadAt, Result, SparseBytes, WriteAt, copy_data, le_u32, slice_at};
use std::sync::OnceLock;

/// Places that changes may be made at.
const AREAS: [u64; 12] = [
    0,
    64 << 10,
    128 << 10,
    192 << 10,
    256 << 10,
    1 << 20,
    2 << 20,
    (2 << 20) + (64 << 10),
    3 << 20,
    4 << 20,
    5 << 20,
    (2 << 20) - (64 << 10),
];
/// Most bytes of changes that are taken.
const SCRIPT_MAX: usize = 64 << 10;
/// The LogGuid of files with a log.
const LOG: Guid = Guid([0x4c; 16]);

/// A file, and the parent of a differencing one.
type Pair = (SparseBytes, SparseBytes);

/// The file that a script makes, and its parent.
pub(crate) fn scripted(data: &[u8]) -> Result<Pair> {
    let (sound, parent) = sound(data.first().copied().unwrap_or(0))?;
    let (file, below) = (SparseBytes::default(), SparseBytes::default());
    copy_data(sound, &file)?;
    copy_data(parent, &below)?;
    let script = data.get(3..).unwrap_or_default();
    change(&file, &AREAS, script.get(..SCRIPT_MAX).unwrap_or(script))?;
    mend(&file, data.get(1).copied().unwrap_or(0))?;
    let cut = u64::from(data.get(2).copied().unwrap_or(0) % 16).saturating_mul(SECTION);
    file.set_len(file.len().saturating_sub(cut))?;
    Ok((file, below))
}

/// The file of a kind before it is changed. Fuzzers ask for it many times.
fn sound(kind: u8) -> Result<&'static Pair> {
    static FILES: [OnceLock<Pair>; 4] = [const { OnceLock::new() }; 4];
    let [first, ..] = &FILES;
    let place = FILES.get(usize::from(kind % 4)).unwrap_or(first);
    match place.get() {
        Some(pair) => Ok(pair),
        None => {
            let made = made(kind % 4)?;
            Ok(place.get_or_init(|| made))
        }
    }
}

fn made(kind: u8) -> Result<Pair> {
    let (base, disk) = (SparseBytes::new(9 << 20), SparseBytes::new(9 << 20));
    base.write_at(4096, b"base")?;
    base.write_at((3 << 20) + 512, &[0xb5; 5000])?;
    for (place, byte) in [
        (0, 0xd1u8),
        ((3 << 20) + 1024, 0xd2),
        ((9 << 20) - 700, 0xd3),
    ] {
        disk.write_at(place, &[byte; 700])?;
    }
    let options = VhdxOptions::default();
    let (file, below) = (SparseBytes::default(), SparseBytes::default());
    write_dynamic(&base, &options, &below, &Work::ALONE)?;
    match kind {
        1 => drop(write_fixed(&disk, &options, &file, &Work::ALONE)?),
        2 => {
            let parent = VhdxParent {
                linkage: linkage(&below)?,
                relative_path: Some(".\\base.vhdx".to_owned()),
                ..VhdxParent::default()
            };
            write_vhdx_child(&disk, &base, &parent, &options, &file)?;
        }
        _ => drop(write_dynamic(&disk, &options, &file, &Work::ALONE)?),
    }
    if kind == 3 {
        let [_, second] = HEADERS_AT;
        file.write_at(second.saturating_add(48), &LOG.0)?;
    }
    Ok((file, below))
}

/// DataWriteGuid of a file that was just written.
fn linkage(file: &SparseBytes) -> Result<Guid> {
    let mut guid = Guid::ZERO;
    file.read_at((128 << 10) + 32, &mut guid.0)?;
    Ok(guid)
}

/// Sets signatures and checksums right.
fn mend(file: &SparseBytes, wrong: u8) -> Result<()> {
    file.write_at(0, MAGIC)?;
    let [one, two] = HEADERS_AT;
    let [three, four] = TABLES_AT;
    let header = crate::math::len64(&[0u8; HEADER_BYTES]);
    for (bit, place, magic, length) in [
        (1, one, b"head", header),
        (2, two, b"head", header),
        (4, three, b"regi", TABLE_BYTES),
        (8, four, b"regi", TABLE_BYTES),
    ] {
        if wrong & bit == 0 {
            let mut bytes = vec![0; index(length)];
            file.read_at(place, &mut bytes)?;
            if let Some(start) = bytes.get_mut(..4) {
                start.copy_from_slice(magic);
            }
            seal(&mut bytes);
            file.write_at(place, &bytes)?;
        }
    }
    if wrong & 16 == 0 {
        mend_log(file)?;
    }
    Ok(())
}

/// Seals whatever looks like an entry of the log at 1 MiB, round its end, too.
fn mend_log(file: &SparseBytes) -> Result<()> {
    let found = file.extent_at(SECTION);
    if !found.kind.has_bytes() && found.length >= SECTION {
        return Ok(());
    }
    let mut log = vec![0; index(SECTION)];
    file.read_at(SECTION, &mut log)?;
    let mut ring = log.clone();
    ring.extend_from_slice(&log);
    for start in (0..log.len()).step_by(4096) {
        let entry = ring.get(start..).unwrap_or_default();
        let length = le_u32(entry, 8).unwrap_or(0);
        if slice_at(entry, 0, 4) != Some(b"loge") || !(4096..=1 << 20).contains(&length) {
            continue;
        }
        if let Some(entry) = slice_at(entry, 0, index(u64::from(length))) {
            let mut entry = entry.to_vec();
            seal(&mut entry);
            let at = SECTION.saturating_add(u64::try_from(start).unwrap_or(0));
            let sum = entry.get(4..8).unwrap_or_default();
            file.write_at(at.saturating_add(4), sum)?;
        }
    }
    Ok(())
}
