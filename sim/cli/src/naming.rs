//! Files that have no name yet, or a hidden one, and how they get theirs.

use drylab_block::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The folder that a file of that name is in.
pub(crate) fn folder_of(name: &Path) -> &Path {
    match name.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file without a name in the folder of `name`, where the system can give it one later.
pub(crate) fn nameless(name: &Path) -> Option<File> {
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
pub(crate) fn link(file: &File, name: &Path) -> std::io::Result<()> {
    let flags = AtFlags::SYMLINK_FOLLOW;
    Ok(rustix::fs::linkat(CWD, place(file), CWD, name, flags)?)
}

/// What `make` makes under a free hidden name beside `name`, and that name.
pub(crate) fn hidden<T>(
    name: &Path,
    make: impl Fn(&Path) -> std::io::Result<T>,
) -> Result<(T, PathBuf)> {
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

/// Renames a file, and replaces none.
pub(crate) fn move_to_free(made: &Path, name: &Path) -> std::io::Result<()> {
    match rustix::fs::renameat_with(CWD, made, CWD, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => link_then_unlink(made, name),
        moved => Ok(moved?),
    }
}

/// The same where the file system (NFS, older FUSE) knows no rename that replaces nothing.
pub(crate) fn link_then_unlink(made: &Path, name: &Path) -> std::io::Result<()> {
    match rustix::fs::linkat(CWD, made, CWD, name, AtFlags::empty()) {
        // It knows no second names either. That this one is free was seen a moment ago.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => std::fs::rename(made, name),
        Err(errno) => Err(errno.into()),
        Ok(()) => std::fs::remove_file(made),
    }
}
