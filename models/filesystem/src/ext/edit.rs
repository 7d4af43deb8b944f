//! Rewriting a file within the blocks it has.

use super::inode::{EXTENTS, Inode, Run};
use super::superblock::Superblock;
use super::{View, read_replay};
use crate::Last;
use crate::edit::Placed;
use drylab_block::{Error, Limits, Result, WriteAt, le_u16, slice_at};

/// Replaces the content of the file at `path`, links followed, when its blocks hold the new content.
///
/// Blocks past the new end become unwritten extents (what `fallocate --keep-size` leaves), since a checker takes
/// written blocks past the end for damage; where the map cannot say that, the edit does not fit.
pub(crate) fn write_in_place(
    volume: &dyn WriteAt,
    path: &str,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Placed> {
    let need = u64::try_from(bytes.len()).map_err(Error::io)?;
    let refuse = |have, why| Ok(Placed::DoesNotFit { have, need, why });
    let sb = Superblock::read(volume)?;
    if !read_replay(volume, &sb, limits)?.is_empty() {
        return refuse(
            0,
            "the journal holds changes that a mount would write over it",
        );
    }
    let view = View {
        source: volume,
        sb: &sb,
        replay: None,
        limits,
    };
    let Some(mut inode) = view.find(path, Last::Follow)?.inode else {
        return refuse(0, "there is no such file yet");
    };
    if !inode.is_file() {
        return Err(Error::unsupported(format_args!(
            "{path} is not a regular file (mode {:#o})",
            inode.mode
        )));
    }
    if let Some(why) = inode.odd() {
        return refuse(0, why);
    }
    let block_size = u64::from(sb.block_size);
    let runs = view.runs(&inode, u64::MAX)?;
    let solid = runs
        .iter()
        .take_while(|run| run.written)
        .try_fold(0u64, |end, run| {
            if run.logical == end {
                Ok(run.end())
            } else {
                Err(end)
            }
        });
    let have = solid.unwrap_or_else(|end| end).saturating_mul(block_size);
    if have < need {
        return refuse(have, "its blocks are too few");
    }
    // The block that holds the end may stay, even when the end is its first byte.
    let kept = need.checked_div(block_size).unwrap_or(0).saturating_add(1);
    if runs.iter().any(|run| run.written && run.end() > kept) && !trim(&mut inode, kept) {
        return refuse(have, "it would keep blocks past its end");
    }
    write_blocks(volume, &runs, kept, bytes, block_size)?;
    put(&mut inode.raw, 0x4, &need.to_le_bytes(), 0..4);
    put(&mut inode.raw, 0x6c, &need.to_le_bytes(), 4..8);
    if let Some(seed) = sb.checksum_seed() {
        inode.seal(seed);
    }
    volume.write_at(inode.place, &inode.raw)?;
    Ok(Placed::InPlace { bytes: need })
}

fn put(raw: &mut [u8], at: usize, value: &[u8], part: std::ops::Range<usize>) {
    let target = raw.get_mut(at..at.saturating_add(part.len()));
    if let (Some(target), Some(value)) = (target, value.get(part)) {
        target.copy_from_slice(value);
    }
}

/// Writes the content and zeros behind it, to the end of the blocks below `kept`.
fn write_blocks(
    volume: &dyn WriteAt,
    runs: &[Run],
    kept: u64,
    bytes: &[u8],
    block_size: u64,
) -> Result<()> {
    for run in runs.iter().filter(|run| run.written && run.logical < kept) {
        let length = run
            .end()
            .min(kept)
            .saturating_sub(run.logical)
            .saturating_mul(block_size);
        let mut part = vec![0u8; usize::try_from(length).map_err(Error::io)?];
        let start = usize::try_from(run.logical.saturating_mul(block_size)).unwrap_or(usize::MAX);
        for (target, byte) in part.iter_mut().zip(bytes.iter().skip(start)) {
            *target = *byte;
        }
        volume.write_at(run.physical.saturating_mul(block_size), &part)?;
    }
    Ok(())
}

/// Marks what the extents in the inode hold from block `kept` on as unwritten; `false` when they cannot say it.
fn trim(inode: &mut Inode, kept: u64) -> bool {
    let depth = le_u16(&inode.root, 6).unwrap_or(u16::MAX);
    if inode.flags & EXTENTS == 0 || depth != 0 {
        return false;
    }
    let Some(extents) = trimmed(&inode.root, kept) else {
        return false;
    };
    let room = usize::from(le_u16(&inode.root, 4).unwrap_or(0)).min(4);
    if extents.len() > room {
        return false;
    }
    let count = u16::try_from(extents.len()).unwrap_or(0);
    put(&mut inode.raw, 0x28 + 2, &count.to_le_bytes(), 0..2);
    for (index, extent) in extents.iter().enumerate() {
        let at = index
            .saturating_add(1)
            .saturating_mul(12)
            .saturating_add(0x28);
        put(&mut inode.raw, at, extent, 0..12);
    }
    true
}

/// The extents of a root with everything from block `kept` on unwritten.
fn trimmed(root: &[u8; 60], kept: u64) -> Option<Vec<[u8; 12]>> {
    const LONGEST_UNWRITTEN: u32 = 32767;
    let mut out = Vec::new();
    for index in 0..usize::from(le_u16(root, 2)?) {
        let entry: [u8; 12] = slice_at(root, index.checked_add(1)?.checked_mul(12)?, 12)?
            .try_into()
            .ok()?;
        let logical = drylab_block::le_u32(&entry, 0)?;
        let length = u32::from(le_u16(&entry, 4)?);
        let end = logical.checked_add(length)?;
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        if length > 32768 || end <= kept {
            out.push(entry);
            continue;
        }
        let stays = kept.saturating_sub(logical).min(length);
        if stays > 0 {
            out.push(extent(&entry, 0, stays, false)?);
        }
        let rest = length.checked_sub(stays)?;
        if rest > LONGEST_UNWRITTEN {
            return None;
        }
        out.push(extent(&entry, stays, rest, true)?);
    }
    Some(out)
}

/// `length` blocks of `entry` from its block `skip`.
fn extent(entry: &[u8; 12], skip: u32, length: u32, unwritten: bool) -> Option<[u8; 12]> {
    let logical = drylab_block::le_u32(entry, 0)?.checked_add(skip)?;
    let high = u64::from(le_u16(entry, 6)?);
    let physical = (high.checked_shl(32)? | u64::from(drylab_block::le_u32(entry, 8)?))
        .checked_add(u64::from(skip))?;
    let length = u16::try_from(if unwritten {
        length.checked_add(32768)?
    } else {
        length
    })
    .ok()?;
    let mut out = [0u8; 12];
    put(&mut out, 0, &logical.to_le_bytes(), 0..4);
    put(&mut out, 4, &length.to_le_bytes(), 0..2);
    put(&mut out, 6, &physical.to_le_bytes(), 4..6);
    put(&mut out, 8, &physical.to_le_bytes(), 0..4);
    Some(out)
}
