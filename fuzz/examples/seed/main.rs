//! Writes seeds that get past every reader's header: `cargo run --release --example seed` in `fuzz/`.
//!
//! Seeds of at most 64,000 bytes go to `corpora/fuzz/<target>/` and are committed; larger ones to `fuzz/made/<target>/`
//! and are not. They come from our own writers, from the golden guests and, where they are installed, from mke2fs,
//! mkntfs, qemu-img, xz and zstd. Texts are ours.

mod disks;
mod golden;
mod ntfs;
mod own;
mod qemu;
mod texts;

use drylab_block::ReadAt;
use std::io;
use std::path::{Path, PathBuf};

/// Largest seed that is committed.
const COMMITTED_MAX: usize = 64_000;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Keeps a seed of a target.
pub fn keep(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let room = if bytes.len() <= COMMITTED_MAX {
        "corpora/fuzz"
    } else {
        "fuzz/made"
    };
    let folder = root().join(room).join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

/// The bytes `offset..offset + length` of a disk, cut at its end.
pub fn part(disk: &dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>, drylab_block::Error> {
    let length = length.min(disk.len().saturating_sub(offset));
    let mut bytes = vec![0; length.try_into().expect("a few kilobytes")];
    disk.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    texts::write()?;
    own::write()?;
    golden::write()?;
    disks::write()?;
    ntfs::write()?;
    qemu::write()
}
