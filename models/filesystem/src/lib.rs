//! One door over the filesystems of guests: ext2/3/4 and NTFS; read, and edited within their allocated blocks.
//!
//! ```
//! use drylab_block::{Limits, ReadAt};
//! use std::sync::Arc;
//!
//! let volume: Arc<dyn ReadAt> = Arc::new(vec![0u8; 4096]);
//! assert!(drylab_filesystem::open(volume, &Limits::DEFAULT)?.is_none());
//! # Ok::<(), drylab_block::Error>(())
//! ```
//!
//! * [`open`]: probes a volume; `None` when nothing known stands there.
//! * [`Filesystem`]: what every reader offers: UUID, label, [`list`](Filesystem::list), [`read`](Filesystem::read).
//! * [`edit`]: rewrites existing files where they stand; an edit that does not fit travels as a [`FileOverlay`] beside
//!   the disk, and [`Layered`] shows disk and overlay as one.
//!
//! What it does not do: allocate blocks, create or remove names on the disk, follow links from one volume to another
//! (who knows the mount table does), XFS, FAT, encrypted, sealed and compressed files of ext4 and its longer inline data.

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

mod door;
pub mod edit;
pub mod ext;
pub mod fuzz;
pub mod ntfs;
mod overlay;
pub mod swap;

pub use door::open;
pub use drylab_volume::WindowMut;
pub use overlay::{FileOverlay, Layered, OverlayView};

use drylab_block::{Finding, Limits, Result};
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

/// What to do with a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// Go where it points, as opening a file does.
    Follow,
    /// Stay, as removing a name does.
    Keep,
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

    /// What the symbolic link at `path` says; `None` when there is none.
    ///
    /// # Errors
    /// When the structures on the way are damaged.
    fn read_link(&self, path: &str, limits: &Limits) -> Result<Option<String>> {
        let _ = (path, limits);
        Ok(None)
    }

    /// What `path` names, a symbolic link at its end not followed; `None` when there is nothing.
    ///
    /// # Errors
    /// When the structures on the way are damaged.
    fn stat(&self, path: &str, limits: &Limits) -> Result<Option<Entry>> {
        let path = overlay::plain(path);
        let Some((directory, name)) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())
        else {
            let root = self.list("/", limits)?;
            return Ok(root.map(|_| Entry {
                name: String::new(),
                file_type: FileType::Directory,
                size: 0,
            }));
        };
        let entries = self.list(if directory.is_empty() { "/" } else { directory }, limits)?;
        Ok(entries
            .into_iter()
            .flatten()
            .find(|entry| overlay::same_name(self.kind(), &entry.name, name)))
    }

    /// `path` without symbolic links, dots and double slashes, as far as it exists; the rest as written.
    ///
    /// # Errors
    /// When the structures on the way are damaged, or links lead in a circle.
    fn resolve(&self, path: &str, last: Last, limits: &Limits) -> Result<String> {
        let _ = (last, limits);
        Ok(overlay::plain(path))
    }

    /// Whether a Windows sleeps on this volume, so that nobody else should write to it; only NTFS knows.
    ///
    /// # Errors
    /// When the structures on the way are damaged.
    fn is_hibernated(&self, limits: &Limits) -> Result<bool> {
        let _ = limits;
        Ok(false)
    }

    /// What was noticed on opening.
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }
}
