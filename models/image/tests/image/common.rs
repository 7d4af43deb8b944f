//! Disks to test with, and the tools beside us.

#[path = "on_disk.rs"]
mod on_disk;
#[path = "../../../../properties/skip.rs"]
pub(crate) mod skipping;

pub(crate) use on_disk::OnDisk;

use drylab_block::{Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt};
use drylab_image::vhd::{Creator, VhdFit};
use drylab_image::{
    Adapter, Image, Qcow2Options, Qcow2Version, Target, VdiOptions, VhdOptions, VhdxOptions,
    VmdkOptions,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// One written range of a test disk.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) kind: Kind,
}

/// What a range is filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Incompressible.
    Noise(u64),
    /// Compresses well.
    Text(u8),
    /// Written zeros.
    Zeros,
}

/// A sparse disk, as data that proptest can shrink.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) size: u64,
    pub(crate) pieces: Vec<Piece>,
}

pub(crate) fn fill(kind: Kind, length: usize) -> Vec<u8> {
    match kind {
        Kind::Zeros => vec![0; length],
        Kind::Text(seed) => (0..length)
            .map(|i| seed.wrapping_add((i / 97) as u8))
            .collect(),
        Kind::Noise(seed) => {
            let mut state = seed | 1;
            std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .take(length)
            .collect()
        }
    }
}

impl Plan {
    pub(crate) fn disk(&self) -> SparseBytes {
        let disk = SparseBytes::new(self.size);
        for piece in &self.pieces {
            let bytes = fill(piece.kind, piece.length);
            let inside = (self.size.saturating_sub(piece.offset)).min(bytes.len() as u64) as usize;
            disk.write_at(piece.offset.min(self.size), &bytes[..inside])
                .unwrap();
        }
        disk
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => any::<u64>().prop_map(Kind::Noise),
        3 => any::<u8>().prop_map(Kind::Text),
        1 => Just(Kind::Zeros),
    ]
}

/// Sparse disks of up to `largest` bytes with a few ranges, many of them at borders of grains, tables and the disk.
pub(crate) fn plans(largest: u64) -> impl Strategy<Value = Plan> {
    let size = prop_oneof![
        2 => 1..=largest,
        2 => (1..=largest / 512).prop_map(|sectors| sectors * 512),
        1 => (1..=(largest / 65536).max(1)).prop_map(|grains| grains * 65536),
        1 => 1..=200_000u64,
    ];
    (size, any::<bool>()).prop_flat_map(|(size, aligned)| {
        let size = if aligned { size.next_multiple_of(512) } else { size };
        let borders = vec![512u64, 4096, 32768, 65536, 1 << 21, 1 << 25, 1 << 29];
        let offset = prop_oneof![
            2 => 0..size,
            3 => (prop::sample::select(borders), any::<u64>(), 0..3000u64).prop_map(move |(border, n, back)| {
                let count = size / border + 1;
                ((n % count) * border).saturating_sub(back).min(size - 1)
            }),
            1 => (0..5000u64).prop_map(move |back| size.saturating_sub(back + 1)),
        ];
        let piece = (offset, 1..200_000usize, kind()).prop_map(|(offset, length, kind)| Piece { offset, length, kind });
        prop::collection::vec(piece, 0..6).prop_map(move |pieces| Plan { size, pieces })
    })
}

/// Every target, with options that change the file.
pub(crate) fn targets() -> impl Strategy<Value = Target> {
    let vmdk = (prop::bool::ANY, 0..=9u32, prop::option::of(any::<u32>())).prop_map(
        |(ide, level, content_id)| {
            let adapter = if ide { Adapter::Ide } else { Adapter::LsiLogic };
            VmdkOptions {
                adapter,
                level,
                content_id,
                ..VmdkOptions::default()
            }
        },
    );
    let qcow2 = (
        any::<bool>(),
        prop::sample::select(vec![9u32, 12, 16, 21]),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(v2, cluster_bits, compress, parts)| Qcow2Options {
            extended_l2: parts && !v2 && cluster_bits >= 14,
            version: if v2 {
                Qcow2Version::V2
            } else {
                Qcow2Version::V3
            },
            cluster_bits,
            compress,
            ..Qcow2Options::default()
        });
    prop_oneof![
        1 => Just(Target::Raw),
        1 => vhd().prop_map(Target::VhdFixed),
        2 => vhd().prop_map(Target::VhdDynamic),
        1 => vhdx().prop_map(Target::VhdxFixed),
        2 => vhdx().prop_map(Target::VhdxDynamic),
        2 => vdi().prop_map(Target::VdiDynamic),
        1 => vdi().prop_map(Target::VdiFixed),
        2 => vmdk.clone().prop_map(Target::VmdkSparse),
        2 => vmdk.prop_map(Target::VmdkStream),
        3 => qcow2.prop_map(Target::Qcow2),
    ]
}

/// VHDs that keep the size of the disk for every reader.
pub(crate) fn vhd() -> impl Strategy<Value = VhdOptions> {
    let creator = prop::sample::select(vec![
        Creator::WINDOWS,
        Creator::QEMU_FORCE_SIZE,
        Creator::XEN_SERVER,
        Creator::XEN_CONVERT,
        Creator::DISK2VHD,
    ]);
    let fit = prop::sample::select(vec![VhdFit::Kept, VhdFit::Pinned]);
    let id = prop::option::of(any::<[u8; 16]>());
    (creator, fit, any::<u32>(), id, any::<bool>()).prop_map(
        |(creator, fit, timestamp, unique_id, small)| VhdOptions {
            creator,
            fit,
            timestamp,
            unique_id,
            block_bytes: if small { 512 << 10 } else { 2 << 20 },
            ..VhdOptions::default()
        },
    )
}

/// VHDX that keep the size of the disk to 512 bytes.
pub(crate) fn vhdx() -> impl Strategy<Value = VhdxOptions> {
    let block = prop::option::of(prop::sample::select(vec![1u32 << 20, 2 << 20, 32 << 20]));
    (block, any::<bool>()).prop_map(|(block_bytes, small)| VhdxOptions {
        block_bytes,
        physical_sector: if small { 512 } else { 4096 },
        ..VhdxOptions::default()
    })
}

/// VDIs that qemu-img reads, too.
pub(crate) fn vdi() -> impl Strategy<Value = VdiOptions> {
    let id = prop::option::of(any::<[u8; 16]>());
    (any::<bool>(), id, "[a-z ]{0,20}").prop_map(|(qemu, uuid_create, comment)| VdiOptions {
        uuid_create,
        comment,
        ..if qemu {
            VdiOptions::qemu()
        } else {
            VdiOptions::default()
        }
    })
}

/// With clusters of 512 bytes the L1 table of a large disk passes what QEMU opens, and it reads all of a fixed VDI.
pub(crate) fn fits(plan: &Plan, target: &Target) -> bool {
    match target {
        Target::Qcow2(options) => options.cluster_bits != 9 || plan.size <= 1 << 30,
        Target::VdiFixed(_) => plan.size <= 256 << 20,
        _ => true,
    }
}

pub(crate) fn packed(disk: &dyn ReadAt, target: &Target) -> Arc<SparseBytes> {
    let file = SparseBytes::default();
    let written = drylab_image::write(disk, target, &file).unwrap();
    assert_eq!(written.file_bytes, file.len());
    Arc::new(file)
}

pub(crate) fn opened(file: Arc<dyn ReadAt>) -> Image {
    drylab_image::open(file, &Limits::DEFAULT).unwrap()
}

/// Equal bytes, both maps total, and nothing but zeros behind the end of the shorter one.
pub(crate) fn assert_same(left: &dyn ReadAt, right: &dyn ReadAt) {
    assert!(
        left.len().next_multiple_of(512) == right.len().next_multiple_of(512),
        "{} {}",
        left.len(),
        right.len()
    );
    one_way(left, right);
    one_way(right, left);
}

fn one_way(left: &dyn ReadAt, right: &dyn ReadAt) {
    let mut end = 0;
    for extent in Extents::new(left) {
        assert_eq!(extent.offset, end);
        end += extent.length;
        if extent.kind.has_bytes() {
            let mut at = extent.offset;
            while at < end {
                let take = (end - at).min(1 << 18);
                assert!(
                    read(left, at, take) == read(right, at, take),
                    "differ in {take} bytes from {at}"
                );
                at += take;
            }
        }
    }
    assert_eq!(end, left.len());
}

/// Reads with zeros past the end.
fn read(disk: &dyn ReadAt, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    let inside = disk.len().saturating_sub(at).min(length) as usize;
    disk.read_at(at.min(disk.len()), &mut bytes[..inside])
        .unwrap();
    bytes
}

/// A disk that does not say where its holes are.
pub(crate) struct Dense<'a>(pub &'a dyn ReadAt);

impl ReadAt for Dense<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)
    }
}

/// Opens what a descriptor names in a folder.
pub(crate) struct Folder(pub PathBuf);

impl Resolver for Folder {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let path = self.0.join(&reference.name);
        if !path.is_file() {
            return Err(drylab_block::Error::io(format_args!("no file {path:?}")));
        }
        Ok(Arc::new(OnDisk::open(&path)))
    }
}

/// How many steps of a plan of `edits` are taken in a test of crashes: each number of them up to 128, and 128 numbers
/// spread over longer plans, which would otherwise cost the square of their length.
pub(crate) fn prefixes(edits: usize) -> impl Iterator<Item = usize> {
    (0..edits).step_by(edits / 128 + 1).chain([edits])
}

/// How qemu-img is told to change a qcow2 without waiting for the medium: it does so after each step otherwise, two
/// thousand times where clusters are small.
pub(crate) fn unflushed(path: &Path) -> String {
    format!(
        "driver=qcow2,cache.no-flush=on,file.driver=file,file.filename={}",
        path.display()
    )
}

/// A file of this machine that may be changed.
pub(crate) fn changeable(path: &Path) -> OnDisk {
    let file = std::fs::File::options().read(true).write(true).open(path);
    file.unwrap().into()
}

/// Whether qemu-img is there.
pub(crate) fn have_qemu_img() -> bool {
    let found = Command::new("qemu-img")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        skipping::skip("qemu-img is not installed");
    }
    found
}

pub(crate) fn try_qemu_img(arguments: &[&str]) -> Output {
    // Disks may have more extents than a program may have files open by habit.
    let more = "ulimit -n 4096 2> /dev/null; exec qemu-img \"$@\"";
    let shell = ["-c", more, "qemu-img"];
    let mut command = Command::new("sh");
    command.args(shell).args(arguments).output().unwrap()
}

pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    let output = try_qemu_img(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {arguments:?}: {text}");
    text
}
