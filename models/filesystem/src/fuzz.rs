//! Entry points for fuzzing: open the bytes, walk everything within bounds, never panic.

use crate::{FileType, Filesystem, Last, edit, open};
use drylab_block::{Limits, Overlay, ReadAt, WriteAt};
use std::collections::VecDeque;
use std::sync::Arc;

/// Small enough for a fuzzer's patience, large enough for every structure.
fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 4 << 20;
    limits.file_bytes_max = 4 << 20;
    limits.entries_max = 1 << 12;
    limits.chain_max = 256;
    limits
}

const DIRECTORIES_MAX: usize = 64;

/// Lists directories from the root and reads their files, errors gone past.
fn walk(filesystem: &dyn Filesystem) {
    let limits = limits();
    let _ = (filesystem.uuid(), filesystem.label(), filesystem.findings());
    let mut todo = VecDeque::from([String::from("/")]);
    let mut seen = 0usize;
    while let Some(directory) = todo.pop_front() {
        seen = seen.saturating_add(1);
        if seen > DIRECTORIES_MAX {
            return;
        }
        let Ok(Some(entries)) = filesystem.list(&directory, &limits) else {
            continue;
        };
        for entry in entries.into_iter().take(256) {
            let path = format!("{}/{}", directory.trim_end_matches('/'), entry.name);
            match entry.file_type {
                FileType::Directory => todo.push_back(path),
                FileType::File => {
                    let _ = filesystem.read(&path, &limits);
                }
                FileType::Symlink => {
                    let _ = (
                        filesystem.read_link(&path, &limits),
                        filesystem.read(&path, &limits),
                    );
                }
                FileType::Special => {
                    let _ = filesystem.stat(&path, &limits);
                }
            }
        }
    }
}

/// Whatever filesystem `data` is, or none.
pub fn door(data: &[u8]) {
    if let Ok(Some(filesystem)) = open(Arc::new(data.to_vec()), &limits()) {
        walk(filesystem.as_ref());
    }
}

/// `data` as an ext filesystem: its magic and checksum are set right first; then every file is read and one edited.
pub fn ext(data: &[u8]) {
    let mut bytes = data.to_vec();
    crate::ext::mend(&mut bytes);
    door(&bytes);
    let base: Arc<dyn ReadAt> = Arc::new(bytes);
    let Ok(Some(filesystem)) = open(base.clone(), &limits()) else {
        return;
    };
    let Ok(Some(entries)) = filesystem.list("/", &limits()) else {
        return;
    };
    let Some(file) = entries
        .iter()
        .find(|entry| entry.file_type == FileType::File)
    else {
        return;
    };
    let path = format!("/{}", file.name);
    let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(base));
    let content = b"changed by a fuzzer\n";
    let placed = edit::write_in_place(&disk, &path, content, &limits());
    if matches!(placed, Ok(edit::Placed::InPlace { .. })) {
        // On a damaged volume the file's block may be its own inode table: then anything may follow, but no panic.
        let _ = open(disk, &limits())
            .map(|filesystem| filesystem.map(|filesystem| filesystem.read(&path, &limits())));
    }
    let _ = filesystem.resolve(&path, Last::Follow, &limits());
}
