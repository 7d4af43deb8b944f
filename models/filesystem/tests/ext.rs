//! ext2, ext3 and ext4 made by mke2fs, compared with debugfs and ext4-view; edits checked by e2fsck.

mod common;

use common::*;
use drylab_block::{Limits, Overlay, ReadAt, WriteAt};
use drylab_filesystem::edit::{self, Applied, Change, Placed};
use drylab_filesystem::{FileOverlay, FileType, Filesystem, Layered, open};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

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
static IMAGES: LazyLock<Option<Vec<Image>>> = LazyLock::new(|| {
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

const LIMITS: &Limits = &Limits::DEFAULT;

fn opened(bytes: Arc<dyn ReadAt>) -> Box<dyn Filesystem> {
    open(bytes, LIMITS).unwrap().expect("a filesystem")
}

/// Every path with its content (files), target (links) or nothing.
fn everything(filesystem: &dyn Filesystem) -> BTreeMap<String, Vec<u8>> {
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

fn each_image(test: impl Fn(&str, &Path, &[u8])) {
    let Some(images) = IMAGES.as_ref() else {
        return skipped("mke2fs or debugfs");
    };
    for (name, path, bytes) in images.iter() {
        test(name, path, bytes);
    }
}

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

/// Checks a disk with e2fsck; gives what it said when it found something.
fn fsck(disk: &dyn ReadAt) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let out = std::process::Command::new("e2fsck")
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

#[test]
fn a_volume_that_was_not_unmounted_is_read_as_its_journal_leaves_it_and_not_edited() {
    let Some(images) = IMAGES.as_ref() else {
        return skipped("mke2fs or debugfs");
    };
    let mut replayed = 0;
    for (name, path, _) in images
        .iter()
        .filter(|(name, _, _)| !name.starts_with("ext2"))
    {
        let directory = tempfile::tempdir().unwrap();
        let dirty = directory.path().join("dirty.img");
        std::fs::copy(path, &dirty).unwrap();
        // Where /etc/hosts stands, and new bytes for that block, written to the journal only.
        let out = run(
            "debugfs",
            &[
                "-R".as_ref(),
                "bmap /etc/hosts 0".as_ref(),
                dirty.as_os_str(),
            ],
        );
        let block: u64 = out
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {out}"));
        let size = 1usize << (10 + std::fs::read(path).unwrap()[1048]);
        let fresh = directory.path().join("fresh");
        let mut bytes = vec![b'j'; size];
        // The journal's own magic at the start must be escaped there.
        bytes[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        std::fs::write(&fresh, &bytes).unwrap();
        let script = directory.path().join("script");
        std::fs::write(
            &script,
            format!("jo\njw -b {block} {}\njc\n", fresh.display()),
        )
        .unwrap();
        run(
            "debugfs",
            &[
                "-w".as_ref(),
                "-f".as_ref(),
                script.as_os_str(),
                dirty.as_os_str(),
            ],
        );
        let filesystem = opened(Arc::new(std::fs::read(&dirty).unwrap()));
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
        let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(
            Arc::new(std::fs::read(&dirty).unwrap()) as Arc<dyn ReadAt>,
        ));
        let placed = edit::write_in_place(&disk, "/etc/hosts", b"x", LIMITS).unwrap();
        assert!(
            matches!(placed, Placed::DoesNotFit { why, .. } if why.contains("journal")),
            "{name}: {placed:?}"
        );
        // The original recovers the same.
        let _ = std::process::Command::new("e2fsck")
            .arg("-fy")
            .arg(&dirty)
            .output()
            .unwrap();
        let theirs = everything(opened(Arc::new(std::fs::read(&dirty).unwrap())).as_ref());
        assert!(ours == theirs, "{name}: replay differs from e2fsck's");
        replayed += 1;
    }
    assert!(replayed >= 3);
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
