//! The ext images over one tree, and what the tests do with all of them.

use crate::common::{have, make, skipped};
use drylab_block::{Limits, ReadAt};
use drylab_filesystem::{FileType, Filesystem, open};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Name, path and bytes of an image.
pub(crate) type Image = (&'static str, PathBuf, Arc<Vec<u8>>);

/// Files of every shape: empty, small, of many blocks, with holes, many in one directory, links of both kinds.
fn fill(root: &Path) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("etc/hosts", b"127.0.0.1 localhost\n");
    write("etc/empty", b"");
    write("boot/grub/grub.conf", b"default=0\ntitle CentOS\n");
    let big: Vec<u8> = (0..3_000_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 23) as u8)
        .collect();
    write("big", &big);
    for number in 0..400 {
        write(
            &format!("many/file-{number}"),
            format!("content of {number}\n").as_bytes(),
        );
    }
    write(&format!("many/{}", "n".repeat(255)), b"a long name\n");
    let link =
        |target: &str, path: &str| std::os::unix::fs::symlink(target, root.join(path)).unwrap();
    link("../boot/grub/grub.conf", "etc/grub.conf");
    link("/boot/grub/grub.conf", "etc/abs.conf");
    link("loop-b", "etc/loop-a");
    link("loop-a", "etc/loop-b");
    link(&format!("/{}", "far/".repeat(40)), "etc/far");
    std::fs::hard_link(root.join("etc/hosts"), root.join("etc/hard")).unwrap();
    let holes = std::fs::File::create(root.join("holes")).unwrap();
    for at in [30_000u64, 700_000, 5_000_000] {
        holes.write_all_at(b"between holes", at).unwrap();
    }
    holes.set_len(6_000_000).unwrap();
    let hole = std::fs::File::create(root.join("all-hole")).unwrap();
    hole.set_len(100_000).unwrap();
}

/// All flavours over one tree; `None` without the tools.
pub(crate) static IMAGES: LazyLock<Option<Vec<Image>>> = LazyLock::new(|| {
    if !have(&["mke2fs", "debugfs", "e2fsck"]) {
        return None;
    }
    // Left for the whole run: the tests read the files again.
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ext-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("root")).unwrap();
    fill(&directory.join("root"));
    let images = vec![
        make(&directory, "ext4-4k", "24M", &["-t", "ext4", "-b", "4096"]),
        make(
            &directory,
            "ext4-1k-bare",
            "24M",
            &[
                "-t",
                "ext4",
                "-b",
                "1024",
                "-O",
                "^metadata_csum,^64bit,^flex_bg",
            ],
        ),
        make(
            &directory,
            "ext4-2012",
            "24M",
            &[
                "-t",
                "ext4",
                "-O",
                "^metadata_csum,^64bit,uninit_bg",
                "-I",
                "256",
            ],
        ),
        make(
            &directory,
            "ext4-meta-bg",
            "24M",
            &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
        ),
        make(&directory, "ext3-1k", "24M", &["-t", "ext3", "-b", "1024"]),
        make(&directory, "ext3-4k", "24M", &["-t", "ext3", "-b", "4096"]),
        make(
            &directory,
            "ext2-1k-128",
            "24M",
            &["-t", "ext2", "-b", "1024", "-I", "128"],
        ),
    ];
    Some(images)
});

/// Bounds of every test.
pub(crate) const LIMITS: &Limits = &Limits::DEFAULT;

pub(crate) fn opened(bytes: Arc<dyn ReadAt>) -> Box<dyn Filesystem> {
    open(bytes, LIMITS).unwrap().expect("a filesystem")
}

/// Every path with its content (files), target (links) or nothing.
pub(crate) fn everything(filesystem: &dyn Filesystem) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![String::from("/")];
    while let Some(directory) = todo.pop() {
        for entry in filesystem.list(&directory, LIMITS).unwrap().unwrap() {
            let path = format!("{}/{}", directory.trim_end_matches('/'), entry.name);
            assert_eq!(filesystem.stat(&path, LIMITS).unwrap().unwrap(), entry);
            let content = match entry.file_type {
                FileType::Directory => {
                    todo.push(path.clone());
                    Vec::new()
                }
                FileType::File => {
                    let content = filesystem.read(&path, LIMITS).unwrap().unwrap();
                    assert_eq!(content.len() as u64, entry.size);
                    content
                }
                FileType::Symlink => filesystem
                    .read_link(&path, LIMITS)
                    .unwrap()
                    .unwrap()
                    .into_bytes(),
                FileType::Special => Vec::new(),
            };
            all.insert(path, content);
        }
    }
    all
}

pub(crate) fn each_image(test: impl Fn(&str, &Path, &[u8])) {
    let Some(images) = IMAGES.as_ref() else {
        return skipped("mke2fs or debugfs");
    };
    for (name, path, bytes) in images.iter() {
        test(name, path, bytes);
    }
}
