//! A small ext image.

use crate::common::{have, make};

/// A small image with a few files, for damage.
pub(crate) fn small(arguments: &[&str]) -> Option<Vec<u8>> {
    if !have(&["mke2fs"]) {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    std::fs::write(root.join("a"), b"first file, the one a fuzz target edits\n").unwrap();
    std::fs::write(root.join("etc/hosts"), b"127.0.0.1 localhost\n").unwrap();
    std::fs::write(root.join("etc/deep/er/blocks"), vec![7; 40_000]).unwrap();
    std::os::unix::fs::symlink("../a", root.join("etc/link")).unwrap();
    let all: Vec<&str> = [arguments, &["-b", "1024"]].concat();
    let (_, path, _) = make(directory.path(), "small", "256K", &all);
    std::fs::read(path).ok()
}
