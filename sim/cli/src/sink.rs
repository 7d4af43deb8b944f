//! Files that are written: complete under their name, or not there.

use crate::source::FileSource;
use drylab_block::{Below, Error, ReadAt, Result, WriteAt};
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Magic numbers (statfs(2)) of the file systems that can share ranges of files, or copy them on the server: XFS, btrfs,
/// bcachefs, ZFS; NFS, SMB 2. On others copy_file_range(2) is a copy as ours, without a look for zeros.
const SHARING: [i64; 6] = [
    0x5846_5342,
    0x9123_683e,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x6969,
    0xfe53_4d42,
];

/// A new file that takes the name it is for when it is done.
///
/// Until then it stands beside that name under another one; when it is dropped before, it is removed.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: File,
    /// Where it stands now; nowhere once it has its name.
    made: Option<PathBuf>,
    name: PathBuf,
    shares: bool,
}

impl FileSink {
    /// Makes a file for `name`, where there may be a file already only with `replace`.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] where `name` is no file or may not be replaced.
    pub(crate) fn create(name: &Path, replace: bool) -> Result<Self> {
        match std::fs::symlink_metadata(name) {
            Ok(found) if !found.is_file() => {
                return Err(Error::unsupported("it is there and no regular file"));
            }
            Ok(_) if !replace => {
                return Err(Error::unsupported(
                    "it is there already; --force replaces it",
                ));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(error)),
            _ => {}
        }
        let file_name = name
            .file_name()
            .ok_or_else(|| Error::unsupported("it is no name of a file"))?;
        for number in 0..1000u32 {
            let mut other = OsString::from(".");
            other.push(file_name);
            other.push(format!(".{}.{number}", std::process::id()));
            let made = name.with_file_name(other);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&made);
            match file {
                Ok(file) => return Ok(Self::of(file, made, name)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(error)),
            }
        }
        Err(Error::io("no free name for a file beside it"))
    }

    fn of(file: File, made: PathBuf, name: &Path) -> Self {
        let kind = rustix::fs::fstatfs(&file).map(|found| found.f_type);
        let shares = kind.is_ok_and(|kind| SHARING.contains(&kind));
        Self {
            file,
            made: Some(made),
            name: name.to_owned(),
            shares,
        }
    }

    /// Gives the file its name; with `sync` not before it is on the medium, and the name is, too.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason.
    pub(crate) fn commit(mut self, sync: bool) -> Result<()> {
        if sync {
            self.file.sync_all().map_err(Error::io)?;
        }
        if let Some(made) = &self.made {
            std::fs::rename(made, &self.name).map_err(Error::io)?;
        }
        self.made = None;
        if sync {
            let folder = match self.name.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let folder = File::open(folder).map_err(Error::io)?;
            folder.sync_all().map_err(Error::io)?;
        }
        Ok(())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Nobody is left to tell.
            let _ = std::fs::remove_file(made);
        }
    }
}

/// Reads of an open file.
///
/// # Errors
/// [`Error::Io`] with the offset and the system's reason.
pub(crate) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<()> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| Error::io(format_args!("read at offset {offset}: {error}")))
}

/// Writes to an open file.
///
/// # Errors
/// [`Error::Io`] with the offset and the system's reason.
pub(crate) fn write(file: &File, offset: u64, bytes: &[u8]) -> Result<()> {
    file.write_all_at(bytes, offset).map_err(|error| {
        let length = bytes.len();
        Error::io(format_args!(
            "write of {length} bytes at offset {offset}: {error}"
        ))
    })
}

/// Gives an open file a length.
///
/// # Errors
/// [`Error::Io`] with the length and the system's reason.
pub(crate) fn set_len(file: &File, length: u64) -> Result<()> {
    file.set_len(length)
        .map_err(|error| Error::io(format_args!("length of {length} bytes: {error}")))
}

impl ReadAt for FileSink {
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read(&self.file, offset, buffer)
    }
}

impl WriteAt for FileSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write(&self.file, offset, bytes)
    }

    fn set_len(&self, length: u64) -> Result<()> {
        set_len(&self.file, length)
    }

    fn take(&self, offset: u64, source: Below<'_>) -> Result<bool> {
        let from = source.source.handle();
        let from = from.and_then(|handle| handle.downcast_ref::<FileSource>());
        let Some(from) = from.filter(|_| self.shares) else {
            return Ok(false);
        };
        let (mut read, mut write) = (source.offset, offset);
        let end = source.offset.saturating_add(source.length);
        while read < end {
            let left = usize::try_from(end - read).unwrap_or(usize::MAX);
            let taken = rustix::fs::copy_file_range(
                from.file(),
                Some(&mut read),
                &self.file,
                Some(&mut write),
                left,
            );
            // Files of two file systems, or one that cannot after all: what is written over is the same.
            if !taken.is_ok_and(|bytes| bytes > 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_under_its_name_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let sink = FileSink::create(&name, false).expect("made");
        sink.write_at(1 << 20, b"end").expect("written");
        assert!(!name.exists());
        drop(sink);
        assert_eq!(names(), 0);
        let sink = FileSink::create(&name, false).expect("made");
        sink.write_at(0, b"new").expect("written");
        sink.commit(true).expect("named");
        assert_eq!(
            (std::fs::read(&name).expect("there"), names()),
            (b"new".to_vec(), 1)
        );
        assert!(FileSink::create(&name, false).is_err());
        let sink = FileSink::create(&name, true).expect("made");
        assert_eq!(std::fs::read(&name).expect("there"), b"new");
        sink.commit(false).expect("named");
        assert_eq!(
            (std::fs::read(&name).expect("there"), names()),
            (Vec::new(), 1)
        );
        assert!(FileSink::create(folder.path(), true).is_err());
    }

    #[test]
    fn the_holes_of_a_file_are_told_without_gaps() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let sink = FileSink::create(&name, false).expect("made");
        sink.set_len((8 << 20) + 100).expect("long");
        sink.write_at(3 << 20, &[1; 4096]).expect("written");
        sink.commit(false).expect("named");
        let source = FileSource::open(&name).expect("there");
        let extents: Vec<_> = drylab_block::Extents::new(&source).collect();
        let data = extents.iter().filter(|extent| extent.kind.has_bytes());
        // A file system without holes has one extent.
        assert!(
            data.clone().any(|extent| extent.offset <= 3 << 20
                && extent.offset + extent.length >= (3 << 20) + 4096)
        );
        assert_eq!(
            extents.iter().map(|extent| extent.length).sum::<u64>(),
            source.len()
        );
        // Any order gives the same.
        for extent in extents.iter().rev() {
            let middle = extent.offset + extent.length / 2;
            let found = source.extent_at(middle);
            assert_eq!((found.kind, found.offset), (extent.kind, middle));
        }
    }
}
