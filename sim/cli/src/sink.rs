//! Files that are written: complete under their name, or not there.

use crate::lock;
use crate::naming::{folder_of, hidden, link, move_to_free, nameless};
use crate::source::{FileSource, Identity};
use drylab_block::{Below, Error, ReadAt, Result, WriteAt};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
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
/// hidden name beside its own; there it is removed when it is dropped, and a signal leaves it behind. One that replaces another
/// has such a name for the moment between the last look at that and the rename.
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
        if name.as_os_str() == "-" {
            return Err(Error::unsupported(
                "images are not written to standard output; a file of that name is ./-",
            ));
        }
        let there = match std::fs::symlink_metadata(name) {
            Ok(found) if !found.is_file() => return Err(no_file(found.file_type())),
            Ok(found) => {
                may_be_replaced(name, (found.dev(), found.ino()), present)?;
                Some(found)
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(error)),
            Err(_) => None,
        };
        if name.file_name().is_none() {
            return Err(Error::unsupported("it is no name of a file"));
        }
        let replace = matches!(present, Present::Replaced(_));
        if let Some(file) = nameless(name) {
            let sink = Self::of(file, None, name, replace);
            return sink.like(there.as_ref());
        }
        let open = |made: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            // Others see it before it is like the one that it replaces.
            options.mode(if there.is_some() { 0o600 } else { 0o666 });
            options.open(made)
        };
        let (file, made) = hidden(name, open)?;
        Self::of(file, Some(made), name, replace).like(there.as_ref())
    }

    /// Who may read and write the file that is replaced may do so with the new one, and nobody else: where owner or group
    /// cannot be kept, the group has no rights.
    fn like(self, there: Option<&std::fs::Metadata>) -> Result<Self> {
        let Some(there) = there else {
            return Ok(self);
        };
        let (own, mode) = (
            self.file.metadata().map_err(Error::io)?,
            there.mode() & 0o777,
        );
        let (owner, group) = (there.uid(), there.gid());
        let kept = (own.uid(), own.gid()) == (owner, group)
            || std::os::unix::fs::fchown(&self.file, Some(owner), Some(group)).is_ok();
        let mode = if kept { mode } else { mode & 0o707 };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        self.file.set_permissions(mode).map_err(Error::io)?;
        Ok(self)
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
    /// As [`commit`].
    pub(crate) fn commit(self, sync: bool) -> Result<()> {
        commit(Vec::new(), self, sync)
    }

    /// Whether it can take its name now, as far as can be told before it does. For the place of another file it gets a
    /// hidden name.
    fn ready(&mut self) -> Result<()> {
        match std::fs::symlink_metadata(&self.name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(error)),
            Ok(_) if !self.replace => return Err(Error::unsupported(CAME)),
            Ok(found) if !found.is_file() => return Err(no_file(found.file_type())),
            Ok(_) => {}
        }
        // A virtual machine may have been started on it since.
        if let Ok(there) = looked_at(&self.name, OFlags::RDONLY) {
            is_free(&there)?;
        }
        if self.made.is_none() {
            // Only a name takes the place of another one.
            let (_, made) = hidden(&self.name, |made| link(&self.file, made))?;
            self.made = Some(made);
        }
        Ok(())
    }

    fn take_name(mut self) -> Result<()> {
        let made = loop {
            if let Some(made) = &self.made {
                break made;
            }
            match link(&self.file, &self.name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.replace => {
                    self.ready()?;
                }
                named => return named.map_err(came),
            }
        };
        let moved = if self.replace {
            std::fs::rename(made, &self.name)
        } else {
            move_to_free(made, &self.name)
        };
        moved.map_err(came)?;
        self.made = None;
        Ok(())
    }
}

/// Gives files of one folder their names, `last` after the others; with `sync` not before all are on the medium, and the
/// names are, too.
///
/// All are looked at before the first takes its name: one that is refused leaves all old files as they are. What is left
/// is a rename for each. A crash between two of them, or a file that comes in the way of one, leaves the new files that
/// had their turn beside the old ones, or none, of the rest; the old `last` is there as long as the new one is not.
///
/// # Errors
/// [`Error::Io`] with the system's reason; [`Error::Unsupported`] when a file that took a name meanwhile may not be
/// replaced.
pub(crate) fn commit(mut others: Vec<FileSink>, mut last: FileSink, sync: bool) -> Result<()> {
    let of = |name: &Path| {
        let name = name.display().to_string();
        move |error: Error| error.within(name)
    };
    let folder = folder_of(&last.name).to_owned();
    if sync {
        for other in &others {
            let synced = other.file.sync_all().map_err(Error::io);
            synced.map_err(of(&other.name))?;
        }
        last.file.sync_all().map_err(Error::io)?;
    }
    for other in &mut others {
        let within = of(&other.name);
        other.ready().map_err(within)?;
    }
    last.ready()?;
    for other in others {
        let within = of(&other.name);
        other.take_name().map_err(within)?;
    }
    last.take_name()?;
    if sync {
        let folder = File::open(folder).map_err(Error::io)?;
        folder.sync_all().map_err(Error::io)?;
    }
    Ok(())
}

const CAME: &str = "a file with its name has come meanwhile, and is not replaced";

fn came(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => Error::unsupported(CAME),
        _ => Error::io(error),
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

/// What stands under a name and is never replaced.
fn no_file(kind: std::fs::FileType) -> Error {
    let (what, instead) = if kind.is_symlink() {
        ("a symbolic link", ": say the name that it leads to")
    } else if kind.is_dir() {
        ("a folder", ": say a name in it")
    } else {
        ("a device, pipe or socket", "")
    };
    Error::unsupported(format_args!(
        "it is there and no regular file but {what}{instead}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::link_then_unlink;
    use crate::rewrite::Rewrite;

    /// A new file under a hidden name, as on a file system that has no files without names.
    fn with_hidden_name(name: &Path, replaces: bool) -> FileSink {
        let (file, made) = hidden(name, |made| File::create_new(made)).expect("made");
        FileSink::of(file, Some(made), name, replaces)
    }

    /// Files in a folder.
    fn count(folder: &Path) -> usize {
        std::fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn a_file_is_complete_under_its_name_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let names = || count(folder.path());
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

    #[test]
    fn a_file_with_a_hidden_name_takes_its_own_and_is_removed_when_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let names = || count(folder.path());
        let make = || with_hidden_name(&name, true);
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
    fn a_file_that_came_meanwhile_stays_also_where_the_new_one_has_a_hidden_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("disk.raw");
        let names = || count(folder.path());
        let make = || with_hidden_name(&name, false);
        let theirs = || {
            let bytes = std::fs::read(&name).expect("there");
            assert_eq!((bytes.as_slice(), names()), (&b"theirs"[..], 1));
        };
        make().commit(false).expect("the name is free");
        std::fs::write(&name, b"theirs").expect("written");
        let refused = make().commit(false).unwrap_err().to_string();
        assert!(refused.contains("has come meanwhile"), "{refused}");
        theirs();
        // It comes after the last look, too.
        let refused = make().take_name().unwrap_err().to_string();
        assert!(refused.contains("has come meanwhile"), "{refused}");
        theirs();
        let (file, made) = hidden(&name, |made| File::create_new(made)).expect("made");
        let refused = link_then_unlink(&made, &name).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        std::fs::remove_file(&name).expect("there");
        link_then_unlink(&made, &name).expect("the name is free");
        let same = |one: &std::fs::Metadata| (one.dev(), one.ino());
        let [named, open] = [std::fs::metadata(&name), file.metadata()];
        assert_eq!(same(&named.expect("there")), same(&open.expect("open")));
        assert_eq!(names(), 1);
    }

    #[test]
    fn a_refusal_of_the_last_of_several_files_leaves_all_old_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let [extent, disk] = ["disk-flat", "disk"].map(|name| folder.path().join(name));
        let make = |replace: bool, hides: bool| {
            [&extent, &disk].map(|name| {
                let sink = if hides {
                    with_hidden_name(name, replace)
                } else {
                    FileSink::create(name, Present::Replaced(&[])).expect("made")
                };
                sink.write_at(0, b"new").expect("written");
                sink
            })
        };
        for hides in [false, true] {
            std::fs::write(&extent, b"old").expect("written");
            std::fs::write(&disk, b"old").expect("written");
            let whole = |left: usize| {
                assert_eq!(std::fs::read(&extent).expect("there"), b"old");
                assert_eq!(count(folder.path()), left, "no hidden name is left");
            };
            // A virtual machine is started on the old one.
            let [first, last] = make(true, hides);
            let held = Rewrite::open(&disk).expect("locked");
            let refused = commit(vec![first], last, true).unwrap_err().to_string();
            assert!(refused.contains("holds a lock"), "{refused}");
            whole(2);
            drop(held);
            // A folder comes in its place.
            let [first, last] = make(true, hides);
            std::fs::remove_file(&disk).expect("there");
            std::fs::create_dir(&disk).expect("made");
            let refused = commit(vec![first], last, true).unwrap_err().to_string();
            assert!(refused.contains("no regular file"), "{refused}");
            whole(2);
            std::fs::remove_dir(&disk).expect("there");
            let [first, last] = make(true, hides);
            commit(vec![first], last, true).expect("nothing is in the way");
            for name in [&extent, &disk] {
                assert_eq!(std::fs::read(name).expect("there"), b"new");
                std::fs::remove_file(name).expect("there");
            }
        }
        // One that came stays, and the others have no name.
        let [first, last] = make(false, true);
        std::fs::write(&disk, b"theirs").expect("written");
        let refused = commit(vec![first], last, false).unwrap_err().to_string();
        assert!(refused.contains("has come meanwhile"), "{refused}");
        assert_eq!(std::fs::read(&disk).expect("there"), b"theirs");
        assert!(!extent.exists());
        // The one that is refused is named when it is not the last.
        std::fs::remove_file(&disk).expect("there");
        let [first, last] = make(false, true);
        std::fs::write(&extent, b"theirs").expect("written");
        let refused = commit(vec![first], last, false).unwrap_err().to_string();
        assert!(refused.contains("disk-flat"), "{refused}");
        assert!(!disk.exists());
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
