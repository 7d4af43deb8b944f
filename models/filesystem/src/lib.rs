//! One door over the filesystems of guests: ext2/3/4 and NTFS; read, and edited within their allocated blocks.
//!
//! [`Filesystem`] is what every reader offers; [`edit`] rewrites existing files where they stand; an edit that does
//! not fit travels as a [`FileOverlay`] beside the disk, and [`Layered`] shows disk and overlay as one.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod ntfs;

use drylab_block::{Limits, Result};
use std::fmt;

/// Kinds of filesystem.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Second, third or fourth extended filesystem.
    Ext,
    /// NTFS 3.x.
    Ntfs,
    /// Linux swap area: has a UUID and a label, no files.
    Swap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ext => "ext4",
            Self::Ntfs => "ntfs",
            Self::Swap => "swap",
        })
    }
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link (NTFS: reparse point).
    Symlink,
    /// Device, pipe, socket.
    Special,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name, as stored.
    pub name: String,
    /// What it is.
    pub file_type: FileType,
    /// Size in bytes (0 for anything but files).
    pub size: u64,
}

/// A filesystem, opened. Paths are absolute with `/`; NTFS compares names without case.
pub trait Filesystem: Send + Sync {
    /// Kind.
    fn kind(&self) -> Kind;
    /// UUID as the kernel's udev shows it: lower-case dashed for ext and swap, 16 upper-case hex digits for NTFS.
    fn uuid(&self) -> String;
    /// Volume label; empty when there is none.
    fn label(&self) -> String;
    /// Entries of a directory, sorted by name; `None` when the path names no directory.
    ///
    /// # Errors
    /// When the structures on the way are damaged or too large.
    fn list(&self, path: &str, limits: &Limits) -> Result<Option<Vec<Entry>>>;
    /// Content of a regular file, symbolic links followed; `None` when the path names no file.
    ///
    /// # Errors
    /// When the structures on the way are damaged, or the file is larger than `limits.file_bytes_max`.
    fn read(&self, path: &str, limits: &Limits) -> Result<Option<Vec<u8>>>;
}
