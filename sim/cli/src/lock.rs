//! Locks on files: those of other programs, and ours on what is changed in place.
//!
//! They are locks of ranges of bytes (fcntl(2)); what flock(2) locks is not looked at.
//!
//! QEMU locks an image while it has it open (`locking=auto`, docs/system/qemu-block-drivers): byte 100 + N shared for each
//! permission N that it uses, byte 200 + N for each that it does not share. They are locks of an open file description
//! (fcntl(2), `F_OFD_SETLK`). `F_OFD_GETLK` tells of these, and of those that processes hold, without a lock of ours, which
//! would stop a virtual machine that is just being started. It is asked through nix: the lock of rustix has the process id
//! of its holder, and a lock of an open file description has none.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, c_int, flock, off_t};
use std::fs::File;

/// The bytes for QEMU's permissions to write (101), to write what is there already (102) and to resize (103).
const QEMU_WRITES: (off_t, off_t) = (101, 3);

/// Whether anybody holds any lock on the file.
pub(crate) fn is_held(file: &File) -> bool {
    meets(file, F_WRLCK, (0, 0))
}

/// Whether somebody holds a lock that says that he writes to the file.
pub(crate) fn is_written(file: &File) -> bool {
    meets(file, F_RDLCK, (0, 0)) || meets(file, F_WRLCK, QEMU_WRITES)
}

/// Locks the whole of a file that is open for writing, and does not wait.
///
/// The lock is that of the open file, and stays until it is closed. One of the process would be gone with the first of
/// its descriptors of the file that is closed, and others are opened: for a file that is looked for by what is in it.
///
/// # Errors
/// `EAGAIN` or `EACCES` when another program holds one; others where the file system has no locks.
pub(crate) fn take(file: &File) -> nix::Result<()> {
    let lock = range(F_WRLCK, (0, 0)).ok_or(Errno::EINVAL)?;
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

/// Whether a lock of that kind on these bytes would have to wait.
fn meets(file: &File, kind: c_int, bytes: (off_t, off_t)) -> bool {
    let (Some(mut lock), Ok(free)) = (range(kind, bytes), i16::try_from(F_UNLCK)) else {
        return false;
    };
    // A file system without locks has none to respect.
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != free
}

/// A lock of that kind on these bytes: a start, and a length that is 0 for all.
fn range(kind: c_int, (start, length): (off_t, off_t)) -> Option<flock> {
    Some(flock {
        l_type: i16::try_from(kind).ok()?,
        l_whence: i16::try_from(SEEK_SET).ok()?,
        l_start: start,
        l_len: length,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a lock as QEMU does.
    fn take_one(file: &File, kind: c_int, start: off_t) {
        let lock = flock {
            l_type: i16::try_from(kind).expect("small"),
            l_whence: 0,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).expect("locked");
    }

    #[test]
    fn readers_and_writers_of_qemu_are_told_apart_by_the_bytes_that_they_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, b"disk").expect("written");
        let open = || File::options().read(true).write(true).open(&path);
        let ours = File::open(&path).expect("there");
        assert!(!is_held(&ours) && !is_written(&ours));
        for (bytes, writes) in [(&[100, 201, 203][..], false), (&[100, 101, 201], true)] {
            let theirs = open().expect("there");
            for byte in bytes {
                take_one(&theirs, F_RDLCK, *byte);
            }
            assert_eq!((is_held(&ours), is_written(&ours)), (true, writes));
        }
        let theirs = open().expect("there");
        take_one(&theirs, F_WRLCK, 7);
        assert!(is_held(&ours) && is_written(&ours));
        drop(theirs);
        assert!(!is_held(&ours));
    }
}
