//! Files of this machine as positioned bytes, read-only.

use drylab_block::{Error, Extent, ExtentKind, ReadAt, Result};
use rustix::fs::SeekFrom as Find;
use rustix::io::Errno;
use std::any::Any;
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Extents of a file that are remembered.
const EXTENTS: usize = 4;

/// Device and inode: equal for two names of one file.
pub(crate) type Identity = (u64, u64);

/// An open file. Only what is asked for is read; nothing is mapped or copied beforehand.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: Arc<File>,
    length: u64,
    /// The extents asked for last, the last one in front: a walk asks for each of them many times, by turns for tables and
    /// for data, and the file system finds the end of an extent by walking through it.
    extents: Mutex<VecDeque<Extent>>,
}

impl FileSource {
    /// Opens a regular file or a block device for reading.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] for directories, pipes and the like, which are
    /// not even opened (a pipe would wait for a writer).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io)?;
        Self::of(path, &found)
    }

    /// As [`FileSource::open`], for a name that stands inside an input: a symbolic link is refused, since whoever made
    /// the input chose where it leads.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub(crate) fn open_named_inside(path: &Path) -> Result<Self> {
        let found = std::fs::symlink_metadata(path).map_err(Error::io)?;
        if found.is_symlink() {
            return Err(Error::unsupported(
                "it is a symbolic link, and links named inside an input are not followed",
            ));
        }
        Self::of(path, &found)
    }

    fn of(path: &Path, found: &Metadata) -> Result<Self> {
        if found.is_dir() {
            return Err(Error::unsupported("it is a directory, not a file"));
        }
        if !found.is_file() && !found.file_type().is_block_device() {
            return Err(Error::unsupported(
                "it is neither a regular file nor a block device",
            ));
        }
        Self::of_open(Arc::new(File::open(path).map_err(Error::io)?))
    }

    /// As [`FileSource::open`], for a file that is open.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] for anything but a regular file or a block device.
    pub(crate) fn of_open(file: Arc<File>) -> Result<Self> {
        let kind = file.metadata().map_err(Error::io)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::unsupported(
                "it is neither a regular file nor a block device",
            ));
        }
        // A block device has no length in its metadata.
        let length = (&*file).seek(SeekFrom::End(0)).map_err(Error::io)?;
        Ok(Self {
            file,
            length,
            extents: Mutex::new(VecDeque::new()),
        })
    }

    /// Device and inode: equal for two names of one file.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let found = self.file.metadata().map_err(Error::io)?;
        Ok((found.dev(), found.ino()))
    }

    /// Bytes that the file takes of its medium; holes take none.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason.
    pub(crate) fn allocated(&self) -> Result<u64> {
        let found = self.file.metadata().map_err(Error::io)?;
        Ok(found.blocks().saturating_mul(512))
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Data or hole at `offset`, up to where it changes, as the file system tells. One that does not is all data.
    fn look(&self, offset: u64) -> Extent {
        let end = |length, kind| Extent {
            offset,
            length,
            kind,
        };
        let left = self.length.saturating_sub(offset);
        match rustix::fs::seek(&self.file, Find::Data(offset)) {
            Ok(data) if data > offset => end((data - offset).min(left), ExtentKind::Hole),
            Err(Errno::NXIO) => end(left, ExtentKind::Hole),
            Err(_) => end(left, ExtentKind::Data),
            Ok(_) => match rustix::fs::seek(&self.file, Find::Hole(offset)) {
                Ok(hole) if hole > offset => end((hole - offset).min(left), ExtentKind::Data),
                _ => end(left, ExtentKind::Data),
            },
        }
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            Error::io(format_args!(
                "read of {} bytes at offset {offset} of {}: {error}",
                buffer.len(),
                self.length
            ))
        })
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let mut known = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |extent: &Extent| {
            extent.offset <= offset && offset < extent.offset.saturating_add(extent.length)
        };
        let found = known.iter().position(holds);
        let extent = found.and_then(|at| known.remove(at));
        let extent = extent.unwrap_or_else(|| self.look(offset));
        known.truncate(EXTENTS - 1);
        known.push_front(extent);
        Extent {
            offset,
            length: extent.offset.saturating_add(extent.length) - offset,
            kind: extent.kind,
        }
    }

    fn handle(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
