//! Files that are written: complete under their name, or not there.

use crate::lock;
use crate::source::{FileSource, Identity};
use drylab_block::{Below, Error, ReadAt, Result, WriteAt};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
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

/// What becomes of a file that is there already under the name of a new one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Present<'a> {
    /// It stays.
    Stays,
    /// It stays, as long as the user does not say `--force`.
    StaysUnlessForced,
    /// It is replaced, unless it is one of these files, which are read, or another program holds a lock on it.
    Replaced(&'a [Identity]),
}

/// A new file that takes the name it is for when it is done.
///
/// Until then it has no name at all (`O_TMPFILE` of open(2)), so that nothing is left of it however the program ends: this
/// needs no handler of signals, and holds for SIGKILL, too. A file system without such files (NFS, FUSE) has it under a
/// hidden name beside its own; there it is removed when it is dropped, and a signal leaves it behind.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: File,
    /// The hidden name that it has now, if any.
    made: Option<PathBuf>,
    name: PathBuf,
    replace: bool,
    shares: bool,
}

impl FileSink {
    /// Makes a file for `name`.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] where `name` is no file or may not be replaced.
    pub(crate) fn create(name: &Path, present: Present<'_>) -> Result<Self> {
        match std::fs::symlink_metadata(name) {
            Ok(found) if !found.is_file() => {
                return Err(Error::unsupported("it is there and no regular file"));
            }
            Ok(found) => may_be_replaced(name, (found.dev(), found.ino()), present)?,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(error)),
            Err(_) => {}
        }
        if name.file_name().is_none() {
            return Err(Error::unsupported("it is no name of a file"));
        }
        let replace = matches!(present, Present::Replaced(_));
        if let Some(file) = nameless(name) {
            return Ok(Self::of(file, None, name, replace));
        }
        let open = |made: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).open(made)
        };
        let (file, made) = hidden(name, open)?;
        Ok(Self::of(file, Some(made), name, replace))
    }

    fn of(file: File, made: Option<PathBuf>, name: &Path, replace: bool) -> Self {
        let kind = rustix::fs::fstatfs(&file).map(|found| found.f_type);
        let shares = kind.is_ok_and(|kind| SHARING.contains(&kind));
        Self {
            file,
            made,
            name: name.to_owned(),
            replace,
            shares,
        }
    }

    /// Gives the file its name; with `sync` not before it is on the medium, and the name is, too.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's reason; [`Error::Unsupported`] when a file that took the name meanwhile may not be
    /// replaced.
    pub(crate) fn commit(mut self, sync: bool) -> Result<()> {
        if sync {
            self.file.sync_all().map_err(Error::io)?;
        }
        self.take_name()?;
        if sync {
            let folder = File::open(folder_of(&self.name)).map_err(Error::io)?;
            folder.sync_all().map_err(Error::io)?;
        }
        Ok(())
    }

    fn take_name(&mut self) -> Result<()> {
        if self.made.is_none() {
            match link(&self.file, &self.name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.replace => {
                    // Only a name takes the place of another one.
                    let (_, made) = hidden(&self.name, |made| link(&self.file, made))?;
                    self.made = Some(made);
                }
                named => return named.map_err(Error::io),
            }
        }
        // A virtual machine may have been started on it since.
        if let Ok(there) = looked_at(&self.name, OFlags::RDONLY) {
            is_free(&there)?;
        }
        if let Some(made) = &self.made {
            std::fs::rename(made, &self.name).map_err(Error::io)?;
        }
        self.made = None;
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

fn folder_of(name: &Path) -> &Path {
    match name.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether a new file may take the name of the regular file that is there.
fn may_be_replaced(name: &Path, identity: Identity, present: Present<'_>) -> Result<()> {
    match present {
        Present::Stays => Err(Error::unsupported("it is there already")),
        Present::StaysUnlessForced => Err(Error::unsupported(
            "it is there already; --force replaces it",
        )),
        Present::Replaced(read) if read.contains(&identity) => Err(Error::unsupported(
            "it is a file that is read for this, and would be replaced",
        )),
        Present::Replaced(_) => {
            let there = looked_at(name, OFlags::RDONLY);
            let there = there.or_else(|_| looked_at(name, OFlags::WRONLY));
            let unseen = |error| Error::io(format_args!("its locks cannot be looked at: {error}"));
            is_free(&there.map_err(unseen)?)
        }
    }
}

/// Opens what has the name, and waits for nobody.
fn looked_at(name: &Path, access: OFlags) -> std::io::Result<File> {
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(name, flags, Mode::empty())?))
}

fn is_free(file: &File) -> Result<()> {
    if lock::is_held(file) {
        return Err(Error::unsupported(
            "another program holds a lock on it, and it is not replaced: a virtual machine that runs on it must be shut \
             down first",
        ));
    }
    Ok(())
}

/// A file without a name in the folder of `name`, where the system can give it one later.
fn nameless(name: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let file = File::from(rustix::fs::open(folder_of(name), flags, mode).ok()?);
    // The name is given through /proc, which a container may lack.
    let [seen, own] = [std::fs::metadata(place(&file)), file.metadata()];
    let [seen, own] = [seen.ok()?, own.ok()?].map(|found| (found.dev(), found.ino()));
    (seen == own).then_some(file)
}

/// The place in /proc that leads to an open file, whether it has a name or not.
fn place(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Gives a file without a name one that is free.
fn link(file: &File, name: &Path) -> std::io::Result<()> {
    let flags = AtFlags::SYMLINK_FOLLOW;
    Ok(rustix::fs::linkat(CWD, place(file), CWD, name, flags)?)
}

/// What `make` makes under a free hidden name beside `name`, and that name.
fn hidden<T>(name: &Path, make: impl Fn(&Path) -> std::io::Result<T>) -> Result<(T, PathBuf)> {
    for number in 0..1000u32 {
        let mut other = OsString::from(".");
        other.push(name.file_name().unwrap_or_default());
        other.push(format!(".{}.{number}", std::process::id()));
        let made = name.with_file_name(other);
        match make(&made) {
            Ok(file) => return Ok((file, made)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(error)),
        }
    }
    Err(Error::io("no free name for a file beside it"))
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
    if i64::try_from(length).is_err() {
        return Err(Error::unsupported(format_args!(
            "length of {length} bytes, and a file has at most {}",
            i64::MAX
        )));
    }
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
        let sink = FileSink::create(&name, Present::Stays).expect("made");
        sink.write_at(1 << 20, b"end").expect("written");
        assert!(!name.exists());
        drop(sink);
        assert_eq!(names(), 0);
        let sink = FileSink::create(&name, Present::Stays).expect("made");
        sink.write_at(0, b"new").expect("written");
        assert_eq!(names(), usize::from(sink.made.is_some()));
        sink.commit(true).expect("named");
        assert_eq!(
            (std::fs::read(&name).expect("there"), names()),
            (b"new".to_vec(), 1)
        );
        assert!(FileSink::create(&name, Present::Stays).is_err());
        let sink = FileSink::create(&name, Present::Replaced(&[])).expect("made");
        assert_eq!(std::fs::read(&name).expect("there"), b"new");
        sink.commit(false).expect("named");
        assert_eq!(
            (std::fs::read(&name).expect("there"), names()),
            (Vec::new(), 1)
        );
        assert!(FileSink::create(folder.path(), Present::Replaced(&[])).is_err());
    }

    /// As on a file system that has no files without names.
    #[test]
    fn a_file_with_a_hidden_name_takes_its_own_and_is_removed_when_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let make = || {
            let (file, made) = hidden(&name, |made| File::create_new(made)).expect("made");
            FileSink::of(file, Some(made), &name, true)
        };
        drop(make());
        assert_eq!(names(), 0);
        for bytes in [b"one", b"two"] {
            let sink = make();
            sink.write_at(0, bytes).expect("written");
            sink.commit(false).expect("named");
            assert_eq!(
                (std::fs::read(&name).expect("there"), names()),
                (bytes.to_vec(), 1)
            );
        }
    }

    #[test]
    fn a_file_that_is_read_or_came_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let [name, other] = ["disk.raw", "other"].map(|name| folder.path().join(name));
        let sink = FileSink::create(&name, Present::StaysUnlessForced).expect("made");
        if sink.made.is_none() {
            std::fs::write(&name, b"theirs").expect("written");
            assert!(sink.commit(false).is_err());
        }
        std::fs::write(&name, b"theirs").expect("written");
        let source = FileSource::open(&name).expect("there");
        // Whatever name it has.
        std::fs::hard_link(&name, &other).expect("linked");
        let read = [source.identity().expect("known")];
        let refused = FileSink::create(&other, Present::Replaced(&read));
        assert!(refused.unwrap_err().to_string().contains("that is read"));
        assert_eq!(std::fs::read(&name).expect("there"), b"theirs");
    }

    #[test]
    fn the_holes_of_a_file_are_told_without_gaps() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let sink = FileSink::create(&name, Present::Stays).expect("made");
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
