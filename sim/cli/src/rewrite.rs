//! Files that are changed in place.

use crate::lock;
use crate::sink;
use crate::source::FileSource;
use drylab_block::{Error, ReadAt, Result, WriteAt};
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

/// A file that is there, to be changed by its owner and by nobody else meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    file: Arc<File>,
}

impl Rewrite {
    /// Opens a regular file or a block device for reading and writing, and locks it: a virtual machine of QEMU that runs
    /// on it holds a lock, too.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] for anything else than files and for files in use.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io)?.file_type();
        if found.is_dir() {
            return Err(Error::unsupported("it is a directory, not a file"));
        }
        if !found.is_file() && !found.is_block_device() {
            return Err(Error::unsupported(
                "it is neither a regular file nor a block device",
            ));
        }
        let file = File::options().read(true).write(true).open(path);
        Self::of(Arc::new(file.map_err(Error::io)?))
    }

    /// As [`Rewrite::open`], for a file that is open for reading and writing.
    ///
    /// # Errors
    /// As [`Rewrite::open`].
    pub(crate) fn of(file: Arc<File>) -> Result<Self> {
        match lock::take(&file) {
            Err(Errno::EAGAIN | Errno::EACCES) => Err(Error::unsupported(
                "another program holds a lock on it: a virtual machine that runs on it must be shut down first",
            )),
            // A file system without locks has none to respect.
            _ => Ok(Self { file }),
        }
    }

    /// Its bytes, as they are now.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason.
    pub(crate) fn source(&self) -> Result<FileSource> {
        FileSource::of_open(self.file.clone())
    }
}

impl ReadAt for Rewrite {
    fn len(&self) -> u64 {
        self.source().map_or(0, |source| source.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        sink::read(&self.file, offset, buffer)
    }
}

impl WriteAt for Rewrite {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        sink::write(&self.file, offset, bytes)
    }

    fn set_len(&self, length: u64) -> Result<()> {
        sink::set_len(&self.file, length)
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_changed_in_place_and_only_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk");
        std::fs::write(&name, b"before").expect("written");
        let file = Rewrite::open(&name).expect("there");
        file.write_at(2, b"XX").expect("written");
        file.set_len(5).expect("cut");
        file.flush().expect("on the medium");
        assert_eq!(std::fs::read(&name).expect("there"), b"beXXr");
        assert_eq!((file.len(), file.source().expect("open").len()), (5, 5));
        assert!(Rewrite::open(folder.path()).is_err());
        assert!(Rewrite::open(&folder.path().join("gone")).is_err());
    }
}
