//! VHDX files to break: places of what our writer writes, checksums, and a log made from the specification.

use crate::common::{Folder, OnDisk, Piece, Plan, packed};
use drylab_block::{Limits, ReadAt, Result, SparseBytes, WriteAt};
use drylab_image::vhdx::Guid;
use drylab_image::{Findings, Image, Options, Repair, Target, VhdxOptions};
use std::sync::Arc;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
pub(crate) const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
pub(crate) const LOG: u64 = MIB;
pub(crate) const METADATA: u64 = 2 * MIB;
pub(crate) const ITEMS: u64 = METADATA + (64 << 10);
pub(crate) const BAT: u64 = 3 * MIB;
pub(crate) const BLOCKS: u64 = 4 * MIB;

pub(crate) fn piece(offset: u64, length: usize, seed: u64) -> Piece {
    let kind = crate::common::Kind::Noise(seed);
    Piece {
        offset,
        length,
        kind,
    }
}

/// A disk of 9 MiB and 512 bytes with data in blocks 0, 3, 4 and 9, the last of which has one sector.
pub(crate) fn small() -> SparseBytes {
    let plan = Plan {
        size: 9 * MIB + 512,
        pieces: vec![
            piece(100, 5000, 1),
            piece(3 * MIB + 7, 70_000, 2),
            piece(5 * MIB - 400, 400, 3),
            piece(9 * MIB, 512, 4),
        ],
    };
    plan.disk()
}

pub(crate) fn dynamic() -> SparseBytes {
    copy(&*packed(
        &small(),
        &Target::VhdxDynamic(VhdxOptions::default()),
    ))
}

pub(crate) fn fixed() -> SparseBytes {
    copy(&*packed(
        &small(),
        &Target::VhdxFixed(VhdxOptions::default()),
    ))
}

/// The same bytes in a file of its own.
pub(crate) fn copy(file: &dyn ReadAt) -> SparseBytes {
    let copy = SparseBytes::default();
    drylab_block::copy_data(file, &copy).unwrap();
    copy
}

pub(crate) fn bytes(file: &dyn ReadAt, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    file.read_at(at, &mut bytes).unwrap();
    bytes
}

pub(crate) fn u64_at(file: &dyn ReadAt, at: u64) -> u64 {
    u64::from_le_bytes(bytes(file, at, 8).try_into().unwrap())
}

/// Sets the checksum of the structure at `at` right.
pub(crate) fn seal(file: &dyn WriteAt, at: u64, length: u64) {
    let mut all = bytes(file, at, length);
    all[4..8].fill(0);
    file.write_at(at + 4, &crc32c::crc32c(&all).to_le_bytes())
        .unwrap();
}

/// Changes both headers, checksums too.
pub(crate) fn in_headers(file: &dyn WriteAt, at: u64, new: &[u8]) {
    for header in HEADERS {
        file.write_at(header + at, new).unwrap();
        seal(file, header, 4096);
    }
}

/// Changes both region tables, checksums too.
pub(crate) fn in_regions(file: &dyn WriteAt, at: u64, new: &[u8]) {
    for table in REGIONS {
        file.write_at(table + at, new).unwrap();
        seal(file, table, 64 << 10);
    }
}

pub(crate) fn entry(file: &dyn ReadAt, index: u64) -> u64 {
    u64_at(file, BAT + 8 * index)
}

pub(crate) fn set_entry(file: &dyn WriteAt, index: u64, value: u64) {
    file.write_at(BAT + 8 * index, &value.to_le_bytes())
        .unwrap();
}

pub(crate) fn open(file: SparseBytes) -> Result<Image> {
    drylab_image::open(Arc::new(file), &Limits::DEFAULT)
}

/// The codes of all findings, each once.
pub(crate) fn codes(found: &Findings) -> Vec<&'static str> {
    found.counts().keys().copied().collect()
}

pub(crate) fn check(file: &SparseBytes) -> Vec<&'static str> {
    codes(&open(copy(file)).unwrap().check().unwrap())
}

/// The bytes of the disk in pieces of 4 KiB, `None` where they cannot be read.
pub(crate) fn guest(image: &Image) -> Vec<Option<Vec<u8>>> {
    let mut at = 0;
    let mut all = Vec::new();
    while at < image.len() {
        let mut piece = vec![0; (image.len() - at).min(4096) as usize];
        let read = image.read_at(at, &mut piece);
        all.push(read.is_ok().then_some(piece));
        at += 4096;
    }
    all
}

/// Repairs a file, and holds it to the law: after every prefix of the plan it opens and every byte that could be read
/// reads the same; afterwards nothing is left that could be repaired, nor is there anything to do. The answer is the
/// repaired file.
#[track_caller]
pub(crate) fn repaired(file: &SparseBytes) -> SparseBytes {
    let image = open(copy(file)).unwrap();
    let plan = image.repair().unwrap();
    let before = guest(&image);
    for count in 0..=plan.edits().len() {
        let crashed = copy(file);
        plan.apply_first(count, &crashed).unwrap();
        let image = open(crashed).unwrap_or_else(|error| panic!("after {count} steps: {error}"));
        let now = guest(&image);
        assert_eq!(before.len(), now.len());
        for (number, (before, now)) in before.iter().zip(&now).enumerate() {
            assert!(
                before.is_none() || before == now,
                "page {number} differs after {count} steps"
            );
        }
    }
    let mended = copy(file);
    plan.apply(&mended).unwrap();
    let image = open(copy(&mended)).unwrap();
    let found = image.check().unwrap();
    let left: Vec<_> = found
        .list()
        .iter()
        .filter(|finding| finding.rule.repair != Repair::No)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(image.repair().unwrap().is_empty());
    mended
}

/// Whether qemu-img finds nothing wrong with a file.
pub(crate) fn passes_qemu(file: &dyn ReadAt) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checked.vhdx");
    drylab_block::copy_data(file, &OnDisk::create(&path)).unwrap();
    let output = crate::common::try_qemu_img(&["check", "-f", "vhdx", path.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stdout).contains("No errors")
}

/// Opens a file of a folder with its parents beside it.
pub(crate) fn open_beside(folder: &std::path::Path, name: &str) -> Result<Image> {
    let beside = Folder(folder.to_owned());
    let options = Options {
        resolver: &beside,
        ..Options::DEFAULT
    };
    drylab_image::open_as(Arc::new(OnDisk::open(&folder.join(name))), &options)
}

/// One change that a log entry makes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Sector(u64, Vec<u8>),
    Zeros(u64, u64),
}

/// A log entry as data.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// Sector of the log at which its sequence begins.
    pub(crate) tail: u32,
    pub(crate) guid: Guid,
    pub(crate) flushed: u64,
    pub(crate) last: u64,
    pub(crate) changes: Vec<Change>,
}

pub(crate) const LOG_GUID: Guid = Guid([0x17; 16]);

impl Entry {
    pub(crate) fn new(sequence: u64, tail: u32, changes: Vec<Change>) -> Self {
        Self {
            sequence,
            tail,
            guid: LOG_GUID,
            flushed: MIB,
            last: MIB,
            changes,
        }
    }

    /// Section 2.3.1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let heads = (64 + 32 * self.changes.len()).div_ceil(4096);
        let mut bytes = vec![0; heads * 4096];
        let mut sectors: Vec<u8> = Vec::new();
        for (number, change) in self.changes.iter().enumerate() {
            let mut descriptor = Vec::new();
            match change {
                Change::Zeros(offset, length) => {
                    descriptor.extend(b"zero\0\0\0\0");
                    descriptor.extend(length.to_le_bytes());
                    descriptor.extend(offset.to_le_bytes());
                }
                Change::Sector(offset, data) => {
                    assert_eq!(data.len(), 4096);
                    descriptor.extend(b"desc");
                    descriptor.extend(&data[4092..]);
                    descriptor.extend(&data[..8]);
                    descriptor.extend(offset.to_le_bytes());
                    sectors.extend(b"data");
                    sectors.extend(((self.sequence >> 32) as u32).to_le_bytes());
                    sectors.extend(&data[8..4092]);
                    sectors.extend((self.sequence as u32).to_le_bytes());
                }
            }
            descriptor.extend(self.sequence.to_le_bytes());
            bytes[64 + 32 * number..][..32].copy_from_slice(&descriptor);
        }
        bytes.extend(sectors);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(b"loge");
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.tail * 4096).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&(self.changes.len() as u32).to_le_bytes());
        bytes[32..48].copy_from_slice(&self.guid.0);
        bytes[48..56].copy_from_slice(&self.flushed.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last.to_le_bytes());
        let sum = crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// Puts bytes into the ring of 1 MiB from a sector on, round its end; the answer is the sector behind them.
pub(crate) fn put_log(file: &dyn WriteAt, sector: u32, bytes: &[u8]) -> u32 {
    let mut at = sector % 256;
    for part in bytes.chunks(4096) {
        file.write_at(LOG + u64::from(at) * 4096, part).unwrap();
        at = (at + 1) % 256;
    }
    at
}

/// Makes the log count.
pub(crate) fn set_log_guid(file: &dyn WriteAt) {
    in_headers(file, 48, &LOG_GUID.0);
}
