//! ext2, ext3 and ext4 made by mke2fs, compared with debugfs and ext4-view, whole and damaged.

mod common;
#[path = "common/images.rs"]
mod images;
#[path = "common/small.rs"]
mod small;

use common::{UUID, run, skipped};
use drylab_block::Limits;
use images::{LIMITS, each_image, everything, opened};
use proptest::prelude::*;
use small::small;
use std::sync::{Arc, LazyLock};

#[test]
fn every_file_of_every_flavour_is_what_debugfs_dumps() {
    each_image(|name, path, bytes| {
        let filesystem = opened(Arc::new(bytes.to_vec()));
        let all = everything(filesystem.as_ref());
        assert!(all.len() > 400, "{name}: {} paths", all.len());
        assert_eq!(filesystem.findings(), []);
        // One debugfs for all files: it answers in the order asked.
        let directory = tempfile::tempdir().unwrap();
        let dump = directory.path().join("dump");
        run(
            "debugfs",
            &[
                "-R".as_ref(),
                format!("rdump / {}", directory.path().display()).as_ref(),
                path.as_os_str(),
            ],
        );
        assert!(!dump.exists());
        for (file, content) in &all {
            let theirs = directory.path().join(&file[1..]);
            let meta = std::fs::symlink_metadata(&theirs)
                .unwrap_or_else(|error| panic!("{name} {file}: {error}"));
            if meta.is_file() {
                assert!(
                    std::fs::read(&theirs).unwrap() == *content,
                    "{name}: {file} differs from debugfs"
                );
            } else if meta.is_symlink() {
                assert_eq!(
                    std::fs::read_link(&theirs)
                        .unwrap()
                        .as_os_str()
                        .as_encoded_bytes(),
                    content,
                    "{name}: {file}"
                );
            }
        }
    });
}

#[test]
fn ext4_view_reads_the_same_where_it_can() {
    each_image(|name, _, bytes| {
        let filesystem = opened(Arc::new(bytes.to_vec()));
        let theirs = ext4_view::Ext4::load(Box::new(bytes.to_vec()));
        // The one feature of these images it does not know.
        if name == "ext4-meta-bg" {
            assert!(
                theirs
                    .unwrap_err()
                    .to_string()
                    .contains("META_BLOCK_GROUPS")
            );
            return;
        }
        let theirs = theirs.unwrap();
        let (mut same, mut holes) = (0, 0);
        for (path, content) in everything(filesystem.as_ref()) {
            if !theirs
                .symlink_metadata(path.as_str())
                .unwrap()
                .file_type()
                .is_regular_file()
            {
                continue;
            }
            match theirs.read(path.as_str()) {
                Ok(read) => {
                    assert!(read == content, "{name}: {path}");
                    same += 1;
                }
                // Known defect of ext4-view 1.0: a hole in a block-mapped file is taken for corruption.
                Err(error) => {
                    assert!(
                        path.contains("hole") && !name.starts_with("ext4"),
                        "{name}: {path}: {error}"
                    );
                    holes += 1;
                }
            }
        }
        assert!(same > 400, "{name}: {same} same");
        assert_eq!(holes > 0, !name.starts_with("ext4"), "{name}");
    });
}

#[test]
fn names_labels_and_uuids_are_those_mke2fs_was_given() {
    each_image(|name, _, bytes| {
        let filesystem = opened(Arc::new(bytes.to_vec()));
        assert_eq!(filesystem.uuid(), UUID, "{name}");
        assert_eq!(filesystem.label(), "lab", "{name}");
    });
}

#[test]
fn links_are_followed_and_paths_resolved() {
    each_image(|name, _, bytes| {
        let filesystem = opened(Arc::new(bytes.to_vec()));
        let grub = filesystem
            .read("/boot/grub/grub.conf", LIMITS)
            .unwrap()
            .unwrap();
        assert_eq!(
            filesystem.read("/etc/grub.conf", LIMITS).unwrap().unwrap(),
            grub,
            "{name}"
        );
        assert_eq!(
            filesystem
                .read("//etc/../etc/./abs.conf", LIMITS)
                .unwrap()
                .unwrap(),
            grub
        );
        let follow = |path| {
            filesystem
                .resolve(path, drylab_filesystem::Last::Follow, LIMITS)
                .unwrap()
        };
        assert_eq!(follow("/etc/grub.conf"), "/boot/grub/grub.conf");
        assert_eq!(follow("/etc/new/../fresh"), "/etc/new/../fresh");
        assert_eq!(
            filesystem
                .resolve("/etc/grub.conf", drylab_filesystem::Last::Keep, LIMITS)
                .unwrap(),
            "/etc/grub.conf"
        );
        assert!(
            filesystem
                .read("/etc/loop-a", LIMITS)
                .unwrap_err()
                .to_string()
                .contains("40 symbolic links")
        );
        assert_eq!(filesystem.read("/etc/nothing", LIMITS).unwrap(), None);
        assert_eq!(filesystem.read("/etc", LIMITS).unwrap(), None);
        assert_eq!(filesystem.list("/etc/hosts", LIMITS).unwrap(), None);
        let mut small = Limits::DEFAULT;
        small.file_bytes_max = 1 << 20;
        assert!(
            filesystem
                .read("/big", &small)
                .unwrap_err()
                .to_string()
                .contains("more than the 1048576 allowed")
        );
    });
}

/// One small ext4 with checksums, for damage.
static SMALL: LazyLock<Option<Vec<u8>>> =
    LazyLock::new(|| small(&["-t", "ext4", "-O", "^has_journal"]));
/// And one of ext2, whose files have block maps.
static SMALL_MAPPED: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| small(&["-t", "ext2"]));

#[test]
fn the_fuzz_targets_get_past_the_header() {
    for image in [&SMALL, &SMALL_MAPPED] {
        let Some(bytes) = image.as_ref() else {
            return skipped("mke2fs");
        };
        let filesystem = opened(Arc::new(bytes.clone()));
        assert!(everything(filesystem.as_ref()).len() > 5);
        drylab_filesystem::fuzz::ext(bytes);
        drylab_filesystem::fuzz::door(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(384) })]

    /// Whatever a few bytes of the metadata say, reading everything and editing a file ends without panic.
    #[test]
    fn mutated_images_never_panic(mapped: bool, edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let image = if mapped { &SMALL_MAPPED } else { &SMALL };
        let Some(bytes) = image.as_ref() else { return Ok(()) };
        let mut bytes = bytes.clone();
        let metadata: Vec<usize> = (1024..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, value) in edits {
            bytes[*at.get(&metadata)] = value;
        }
        drylab_filesystem::fuzz::ext(&bytes);
    }

    /// A cut image is refused or read in part.
    #[test]
    fn cut_images_never_panic(mapped: bool, at: prop::sample::Index) {
        let image = if mapped { &SMALL_MAPPED } else { &SMALL };
        let Some(bytes) = image.as_ref() else { return Ok(()) };
        drylab_filesystem::fuzz::door(&bytes[..at.index(bytes.len())]);
    }
}
