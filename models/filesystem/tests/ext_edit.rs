//! Edits of ext2, ext3 and ext4, in place and beside the disk, checked by e2fsck.

mod common;
#[path = "common/images.rs"]
mod images;

use common::{run, skipped};
use drylab_block::{Overlay, ReadAt, WriteAt};
use drylab_filesystem::edit::{self, Applied, Change, Placed};
use drylab_filesystem::{FileOverlay, FileType, Filesystem, Layered};
use images::{IMAGES, LIMITS, each_image, everything, opened};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Checks a disk with e2fsck; gives what it said when it found something.
fn fsck(disk: &dyn ReadAt) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let out = Command::new("e2fsck")
        .arg("-fn")
        .arg(file.path())
        .output()
        .unwrap();
    if out.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

#[test]
fn edits_in_place_leave_a_volume_that_e2fsck_finds_clean() {
    each_image(|name, _, bytes| {
        let base: Arc<dyn ReadAt> = Arc::new(bytes.to_vec());
        let block = 1usize << (10 + bytes[1048]);
        for (path, size) in [
            ("/etc/hosts", 0),
            ("/etc/hosts", 1),
            ("/etc/hosts", block - 1),
            ("/etc/hosts", block),
            ("/big", 3_000_000),
            ("/big", 2_999_999),
            ("/boot/grub/grub.conf", 60),
            ("/etc/grub.conf", 61),
        ] {
            let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(base.clone()));
            let content: Vec<u8> = (0..size).map(|at| (at * 7 + 13) as u8).collect();
            let placed = edit::write_in_place(&disk, path, &content, LIMITS).unwrap();
            assert_eq!(
                placed,
                Placed::InPlace { bytes: size as u64 },
                "{name}: {path} to {size} bytes"
            );
            assert!(
                opened(disk.clone()).read(path, LIMITS).unwrap().unwrap() == content,
                "{name}: {path}"
            );
            fsck(disk.as_ref())
                .unwrap_or_else(|said| panic!("{name}: {path} to {size} bytes: {said}"));
        }
    });
}

#[test]
fn a_file_shrunk_by_many_blocks_stays_sound_on_ext4_and_is_refused_without_extents() {
    each_image(|name, _, bytes| {
        let base: Arc<dyn ReadAt> = Arc::new(bytes.to_vec());
        let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(base));
        let placed = edit::write_in_place(&disk, "/big", b"short now\n", LIMITS).unwrap();
        if name.starts_with("ext4") {
            assert_eq!(placed, Placed::InPlace { bytes: 10 }, "{name}");
            assert_eq!(
                opened(disk.clone()).read("/big", LIMITS).unwrap().unwrap(),
                b"short now\n"
            );
        } else {
            assert!(
                matches!(placed, Placed::DoesNotFit { have, need: 10, .. } if have >= 3_000_000),
                "{name}: {placed:?}"
            );
        }
        fsck(disk.as_ref()).unwrap_or_else(|said| panic!("{name}: {said}"));
        // What was given up cannot be taken back: the extents are unwritten now.
        if name.starts_with("ext4") {
            let placed = edit::write_in_place(&disk, "/big", &vec![1; 1 << 20], LIMITS).unwrap();
            assert!(matches!(placed, Placed::DoesNotFit { .. }), "{placed:?}");
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_with_numbers_and_changes_nothing() {
    each_image(|name, _, bytes| {
        let base: Arc<dyn ReadAt> = Arc::new(bytes.to_vec());
        let overlay = Arc::new(Overlay::new(base));
        let disk: Arc<dyn WriteAt> = overlay.clone();
        let placed = edit::write_in_place(&disk, "/etc/hosts", &[b'x'; 5000], LIMITS).unwrap();
        let block = 1u64 << (10 + bytes[1048]);
        assert_eq!(
            placed,
            Placed::DoesNotFit {
                have: block,
                need: 5000,
                why: "its blocks are too few"
            },
            "{name}"
        );
        let placed = edit::write_in_place(&disk, "/holes", &vec![1; 100_000], LIMITS).unwrap();
        assert!(
            matches!(placed, Placed::DoesNotFit { need: 100_000, .. }),
            "{name}: {placed:?}"
        );
        let placed = edit::write_in_place(&disk, "/etc/fresh", b"x", LIMITS).unwrap();
        assert!(
            matches!(
                placed,
                Placed::DoesNotFit {
                    have: 0,
                    need: 1,
                    ..
                }
            ),
            "{name}: {placed:?}"
        );
        assert!(edit::write_in_place(&disk, "/etc", b"x", LIMITS).is_err());
        assert!(overlay.delta().unwrap().0.is_empty());
    });
}

#[test]
fn changes_that_do_not_fit_go_beside_the_disk_and_both_are_seen_as_one() {
    each_image(|name, _, bytes| {
        let disk: Arc<dyn WriteAt> =
            Arc::new(Overlay::new(Arc::new(bytes.to_vec()) as Arc<dyn ReadAt>));
        let mut beside = FileOverlay::new();
        let mut change = |path: &str, change| {
            edit::apply(&disk, "p1", path, change, &mut beside, LIMITS).unwrap()
        };
        let write = |bytes: &[u8]| Change::Write(bytes.to_vec());
        let done = change("/etc/abs.conf", write(b"title new\n"));
        assert_eq!(
            done,
            Applied::InPlace {
                path: "/boot/grub/grub.conf".into(),
                bytes: 10
            },
            "{name}"
        );
        let long = vec![b'l'; 9000];
        assert!(
            matches!(change("/etc/hosts", write(&long)), Applied::Overlaid { why, .. } if why.contains("9000 bytes"))
        );
        // A later short version must not hide behind the long one.
        assert!(matches!(
            change("/etc/hosts", write(b"short\n")),
            Applied::Overlaid { .. }
        ));
        change("/etc/new/dir/file", write(b"fresh\n"));
        change("/etc/grub.conf", Change::Remove);
        let layered = Layered::new(opened(disk.clone()).into(), beside.view("p1"));
        let read = |path| layered.read(path, LIMITS).unwrap();
        assert_eq!(read("/etc/hosts").unwrap(), b"short\n");
        assert_eq!(read("/etc/abs.conf").unwrap(), b"title new\n");
        assert_eq!(read("/etc/new/dir/file").unwrap(), b"fresh\n");
        assert_eq!(read("/etc/grub.conf"), None);
        assert_eq!(read("/boot/grub/grub.conf").unwrap(), b"title new\n");
        let names = |path| -> Vec<String> {
            layered
                .list(path, LIMITS)
                .unwrap()
                .unwrap()
                .into_iter()
                .map(|entry| entry.name)
                .collect()
        };
        let etc = names("/etc");
        assert!(
            etc.contains(&"new".into())
                && etc.contains(&"hosts".into())
                && !etc.contains(&"grub.conf".into()),
            "{etc:?}"
        );
        assert_eq!(names("/etc/new"), ["dir"]);
        assert_eq!(layered.stat("/etc/hosts", LIMITS).unwrap().unwrap().size, 6);
        assert_eq!(
            layered
                .stat("/etc/new/dir", LIMITS)
                .unwrap()
                .unwrap()
                .file_type,
            FileType::Directory
        );
        assert!(
            layered.is_overlaid("/etc/hosts", LIMITS).unwrap()
                && !layered.is_overlaid("/etc/abs.conf", LIMITS).unwrap()
        );
        assert!(beside.view("p2").is_empty());
        fsck(disk.as_ref()).unwrap_or_else(|said| panic!("{name}: {said}"));
    });
}

/// A copy of an image with these debugfs commands done and its journal left full.
fn dirtied(path: &Path, directory: &Path, commands: &str) -> PathBuf {
    let dirty = directory.join("dirty.img");
    std::fs::copy(path, &dirty).unwrap();
    let script = directory.join("script");
    std::fs::write(&script, format!("jo\n{commands}\njc\n")).unwrap();
    run(
        "debugfs",
        &[
            "-w".as_ref(),
            "-f".as_ref(),
            script.as_os_str(),
            dirty.as_os_str(),
        ],
    );
    dirty
}

/// Images with a journal, with the block `/etc/hosts` stands in and a file of new bytes for it.
fn each_journalled(test: impl Fn(&str, &Path, u64, &Path, &Path)) {
    let Some(images) = IMAGES.as_ref() else {
        return skipped("mke2fs or debugfs");
    };
    let mut tested = 0;
    for (name, path, bytes) in images
        .iter()
        .filter(|(name, _, _)| !name.starts_with("ext2"))
    {
        let directory = tempfile::tempdir().unwrap();
        let out = run(
            "debugfs",
            &[
                "-R".as_ref(),
                "bmap /etc/hosts 0".as_ref(),
                path.as_os_str(),
            ],
        );
        let block: u64 = out
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {out}"));
        let fresh = directory.path().join("fresh");
        let mut content = vec![b'j'; 1usize << (10 + bytes[1048])];
        // The journal's own magic at the start must be escaped there.
        content[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        std::fs::write(&fresh, &content).unwrap();
        test(name, path, block, &fresh, directory.path());
        tested += 1;
    }
    assert!(tested >= 3);
}

#[test]
fn a_volume_that_was_not_unmounted_is_read_as_its_journal_leaves_it_and_not_edited() {
    each_journalled(|name, path, block, fresh, directory| {
        let dirty = dirtied(
            path,
            directory,
            &format!("jw -b {block} {}", fresh.display()),
        );
        let bytes = || -> Arc<dyn ReadAt> { Arc::new(std::fs::read(&dirty).unwrap()) };
        let filesystem = opened(bytes());
        assert_eq!(
            filesystem.findings().len(),
            1,
            "{name}: {:?}",
            filesystem.findings()
        );
        let ours = everything(filesystem.as_ref());
        assert!(
            ours["/etc/hosts"].starts_with(&[0xc0, 0x3b, 0x39, 0x98, b'j']),
            "{name}"
        );
        let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(bytes()));
        let placed = edit::write_in_place(&disk, "/etc/hosts", b"x", LIMITS).unwrap();
        assert!(
            matches!(placed, Placed::DoesNotFit { why, .. } if why.contains("journal")),
            "{name}: {placed:?}"
        );
        // The original recovers the same.
        let _ = Command::new("e2fsck")
            .arg("-fy")
            .arg(&dirty)
            .output()
            .unwrap();
        assert!(
            ours == everything(opened(bytes()).as_ref()),
            "{name}: replay differs from e2fsck's"
        );
    });
}

#[test]
fn a_revoked_block_is_not_replayed_and_one_written_later_is() {
    each_journalled(|name, path, block, fresh, directory| {
        let write = format!("jw -b {block} {}", fresh.display());
        for (commands, replayed) in [
            (format!("{write}\njw -r {block}"), false),
            (format!("jw -r {block}\n{write}"), true),
        ] {
            let dirty = dirtied(path, directory, &commands);
            let bytes = || -> Arc<dyn ReadAt> { Arc::new(std::fs::read(&dirty).unwrap()) };
            let hosts = opened(bytes()).read("/etc/hosts", LIMITS).unwrap().unwrap();
            assert_eq!(
                hosts.starts_with(&[0xc0, 0x3b]),
                replayed,
                "{name}: {commands}"
            );
            let _ = Command::new("e2fsck")
                .arg("-fy")
                .arg(&dirty)
                .output()
                .unwrap();
            assert!(
                hosts == opened(bytes()).read("/etc/hosts", LIMITS).unwrap().unwrap(),
                "{name}: {commands}"
            );
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    /// After an edit the file reads as written, every other path as before, whether it went in place or beside.
    #[test]
    fn an_edit_changes_its_file_and_nothing_else(which: prop::sample::Index, pick: prop::sample::Index, size in 0usize..6000, fill: u8) {
        let Some(images) = IMAGES.as_ref() else { return Ok(()) };
        let (name, _, bytes) = which.get(images);
        let paths = ["/etc/hosts", "/etc/grub.conf", "/big", "/holes", "/boot/grub/grub.conf", "/etc/hard"];
        let path = *pick.get(&paths);
        let base: Arc<dyn ReadAt> = bytes.clone();
        let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(base.clone()));
        let mut beside = FileOverlay::new();
        let content = vec![fill; size];
        let done = edit::apply(&disk, "p1", path, Change::Write(content.clone()), &mut beside, LIMITS).unwrap();
        let after = Layered::new(opened(disk.clone()).into(), beside.view("p1"));
        prop_assert!(after.read(path, LIMITS).unwrap().unwrap() == content, "{name}: {path} {done:?}");
        let in_place = matches!(done, Applied::InPlace { .. });
        prop_assert_eq!(in_place, beside.is_empty());
        let before = opened(base);
        let target = before.resolve(path, drylab_filesystem::Last::Follow, LIMITS).unwrap();
        for entry in ["/etc/hosts", "/big", "/holes", "/boot/grub/grub.conf", "/many/file-77", "/etc/hard", "/etc/loop-a"] {
            // A hard link is the same file.
            let linked = ["/etc/hosts", "/etc/hard"];
            if entry == target || (linked.contains(&entry) && linked.contains(&target.as_str()) && in_place) {
                continue;
            }
            let read = |filesystem: &dyn Filesystem| filesystem.read(entry, LIMITS).ok();
            prop_assert!(read(before.as_ref()) == read(&after), "{name}: {entry} changed by an edit of {path}");
        }
        prop_assert_eq!(before.list("/many", LIMITS).unwrap(), after.list("/many", LIMITS).unwrap());
    }
}
