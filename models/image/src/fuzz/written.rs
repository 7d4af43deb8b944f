//! Round trips: bytes make a disk and the options of a writer, and what is written must be sound and read again.
//!
//! ```text
//! 0  which kind of the format   1  its options   2  sectors of the disk, u32, at most 2^25
//! 6  pieces of 8 bytes: offset in sectors of 64 bytes (u32), length (u16), how it is filled, with what
//! ```

use crate::engine::Work;
use crate::math::{index, rem};
use crate::write::{Target, write_with};
use crate::{
    Qcow2Compression, Qcow2Options, Qcow2Version, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions,
};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, content_id, le_u16, le_u32};
use std::sync::Arc;

/// Most pieces of data on a disk.
const PIECES: usize = 24;
/// Most sectors of a disk, 16 GiB.
const SECTORS: u32 = 1 << 25;
/// Most sectors of a disk whose container says where each of them is.
const SECTORS_LISTED: u32 = 1 << 20;

/// Writes a disk as VMDK and reads it again.
pub fn vmdk_written(data: &[u8]) {
    let level = u32::from(byte(data, 1)) % 10;
    let options = VmdkOptions {
        level,
        zeroed_grains: byte(data, 1) & 0x80 != 0,
        ..VmdkOptions::default()
    };
    let stream = Target::VmdkStream(options.clone());
    written(data, &[stream, Target::VmdkSparse(options)], SECTORS);
}

/// Writes a disk as VHD and reads it again.
pub fn vhd_written(data: &[u8]) {
    let block_bytes = if byte(data, 1) & 1 == 0 {
        512 << 10
    } else {
        2 << 20
    };
    let options = VhdOptions {
        block_bytes,
        ..VhdOptions::default()
    };
    let fixed = Target::VhdFixed(options.clone());
    written(data, &[fixed, Target::VhdDynamic(options)], SECTORS);
}

/// Writes a disk as VHDX and reads it again.
pub fn vhdx_written(data: &[u8]) {
    let block = (1u32 << 20).checked_shl(u32::from(byte(data, 1) & 7));
    let options = VhdxOptions {
        block_bytes: block.filter(|_| byte(data, 1) & 0x80 == 0),
        logical_sector: 512,
        ..VhdxOptions::default()
    };
    let fixed = Target::VhdxFixed(options.clone());
    written(data, &[fixed, Target::VhdxDynamic(options)], SECTORS);
}

/// Writes a disk as qcow2 and reads it again.
pub fn qcow2_written(data: &[u8]) {
    let kinds = [
        (Qcow2Version::V3, false, Qcow2Compression::Zlib, false),
        (Qcow2Version::V2, false, Qcow2Compression::Zlib, false),
        (Qcow2Version::V3, true, Qcow2Compression::Zlib, false),
        (Qcow2Version::V3, true, Qcow2Compression::Zstd, false),
        (Qcow2Version::V3, false, Qcow2Compression::Zlib, true),
    ];
    let bits = (u32::from(byte(data, 1)) % 13).saturating_add(9);
    let targets = kinds.map(|(version, compress, compression, extended_l2)| {
        Target::Qcow2(Qcow2Options {
            version,
            compress,
            compression,
            cluster_bits: if extended_l2 { bits.max(14) } else { bits },
            extended_l2,
            ..Qcow2Options::default()
        })
    });
    written(data, &targets, SECTORS_LISTED);
}

/// Writes a disk as VDI and reads it again.
pub fn vdi_written(data: &[u8]) {
    let options = VdiOptions {
        block_bytes: 4096u32
            .checked_shl(u32::from(byte(data, 1)) % 12)
            .unwrap_or(4096),
        ..VdiOptions::default()
    };
    let fixed = Target::VdiFixed(options.clone());
    written(data, &[fixed, Target::VdiDynamic(options)], SECTORS_LISTED);
}

fn byte(data: &[u8], at: usize) -> u8 {
    data.get(at).copied().unwrap_or(0)
}

/// The disk that the bytes describe.
fn disk(data: &[u8], most: u32) -> SparseBytes {
    let sectors = le_u32(data, 2).unwrap_or(0).checked_rem(most).unwrap_or(0);
    let size = u64::from(sectors).saturating_mul(512);
    let disk = SparseBytes::new(size);
    let pieces = data.get(6..).unwrap_or_default().chunks_exact(8);
    for piece in pieces.take(PIECES).filter(|_| size > 0) {
        let offset = u64::from(le_u32(piece, 0).unwrap_or(0)).saturating_mul(64);
        let offset = rem(offset, size);
        let length = u64::from(le_u16(piece, 4).unwrap_or(0)).min(size.saturating_sub(offset));
        let bytes = filled(index(length), byte(piece, 6), byte(piece, 7));
        // A sink in memory takes what lies inside it.
        let _ = disk.write_at(offset, &bytes);
    }
    disk
}

/// Zeros, one byte, a pattern, or bytes that do not compress.
fn filled(length: usize, how: u8, with: u8) -> Vec<u8> {
    let mut word = u32::from(with) | 1;
    let how = how % 4;
    let mut bytes = vec![if how > 0 { with } else { 0 }; length];
    if how > 1 {
        for byte in &mut bytes {
            word ^= word << 13;
            word ^= word >> 17;
            word ^= word << 5;
            let [low, ..] = word.to_le_bytes();
            *byte = if how == 2 { low & 3 } else { low };
        }
    }
    bytes
}

/// What is written is sound and holds the disk, and what is written of it again is the same file, however many write.
fn written(data: &[u8], targets: &[Target], most: u32) {
    let number = usize::from(byte(data, 0))
        .checked_rem(targets.len())
        .unwrap_or(0);
    let Some(target) = targets.get(number) else {
        return;
    };
    let disk = disk(data, most);
    let file = Arc::new(SparseBytes::default());
    let written = write_with(&disk, target, &*file, &Work::ALONE);
    // No disk of these sizes passes a limit of its format.
    assert!(
        written.is_ok(),
        "{target:?} of {} bytes: {written:?}",
        disk.len()
    );
    let image = crate::open(file.clone(), &Limits::DEFAULT);
    assert!(image.is_ok(), "{target:?}: {image:?}");
    let Ok(image) = image else { return };
    assert_eq!(image.virtual_size(), disk.len(), "{target:?}");
    let same = content_id(&image).ok() == content_id(&disk).ok();
    assert!(same, "{target:?} of {} bytes", disk.len());
    let found = image.check();
    let sound = found.is_ok_and(|found| found.list().is_empty());
    assert!(sound, "{target:?}: {:?}", image.check());
    let again = SparseBytes::default();
    let work = Work {
        jobs: 3,
        progress: None,
    };
    let written = write_with(&image, target, &again, &work);
    assert!(written.is_ok(), "{target:?}: {written:?}");
    let same = content_id(&again).ok() == content_id(&*file).ok();
    assert!(same, "{target:?} written again is another file");
}
