//! Files of this machine, with the holes that its file system knows.

use drylab_block::{Extent, ExtentKind, ReadAt, Result, WriteAt};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file of this machine.
pub(crate) struct OnDisk(std::fs::File);

impl OnDisk {
    pub(crate) fn open(path: &Path) -> Self {
        Self(std::fs::File::open(path).unwrap())
    }
    pub(crate) fn create(path: &Path) -> Self {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        Self(file.unwrap())
    }
}

impl From<std::fs::File> for OnDisk {
    fn from(file: std::fs::File) -> Self {
        Self(file)
    }
}

impl ReadAt for OnDisk {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0
            .read_exact_at(buffer, offset)
            .map_err(drylab_block::Error::io)
    }
    /// Data or hole, as the file system tells.
    fn extent_at(&self, offset: u64) -> Extent {
        use rustix::fs::{SeekFrom, seek};
        let data = match seek(&self.0, SeekFrom::Data(offset)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => self.len(),
            Err(_) => offset,
        };
        let (end, kind) = if data > offset {
            (data, ExtentKind::Hole)
        } else {
            let hole = seek(&self.0, SeekFrom::Hole(offset));
            (hole.unwrap_or(self.len()), ExtentKind::Data)
        };
        Extent {
            offset,
            length: end - offset,
            kind,
        }
    }
}

impl WriteAt for OnDisk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0
            .write_all_at(bytes, offset)
            .map_err(drylab_block::Error::io)
    }
    fn set_len(&self, length: u64) -> Result<()> {
        self.0.set_len(length).map_err(drylab_block::Error::io)
    }
}
