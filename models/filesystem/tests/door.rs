//! The door: what is found on volumes of every kind, foreign ones included, and edits through the layers below.

#[path = "../../../properties/foreign.rs"]
mod unpacking;

mod common;
#[path = "common/small.rs"]
mod small;

use common::{run, skipped, skipping};
use drylab_block::{Error, Limits, Overlay, ReadAt, SparseBytes, WriteAt};
use drylab_filesystem::edit::{self, Applied, Change, Placed};
use drylab_filesystem::{FileOverlay, FileType, Filesystem, Kind, Layered, WindowMut, open};
use drylab_volume::scan_all;
use small::small;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;

const LIMITS: &Limits = &Limits::DEFAULT;

#[test]
fn nothing_known_is_none_and_a_broken_superblock_is_corrupt() {
    for length in [0, 1, 511, 1023, 2048, 4096, 1 << 20] {
        let empty: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(length));
        assert!(open(empty, LIMITS).unwrap().is_none());
    }
    let mut bytes = vec![0u8; 8192];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let error = open(Arc::new(bytes.clone()), LIMITS)
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt(what) if what.contains("superblock at 1024")),
        "{error}"
    );
    // A feature from the future is refused, not guessed.
    bytes[1024 + 0x4c] = 1;
    bytes[1024 + 0x60 + 3] = 0x80;
    let error = open(Arc::new(bytes), LIMITS).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[test]
fn swap_areas_have_a_uuid_and_a_label_and_no_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let uuid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    let made = Command::new("mkswap")
        .args(["-L", "swp", "-U", uuid])
        .arg(file.path())
        .output();
    let Ok(made) = made else {
        return skipped("mkswap");
    };
    assert!(made.status.success());
    let swap = open(Arc::new(std::fs::read(file.path()).unwrap()), LIMITS)
        .unwrap()
        .unwrap();
    assert_eq!(
        (swap.kind(), swap.uuid().as_str(), swap.label().as_str()),
        (Kind::Swap, uuid, "swp")
    );
    assert_eq!(swap.list("/", LIMITS).unwrap(), None);
    assert_eq!(swap.read("/etc/fstab", LIMITS).unwrap(), None);
    assert_eq!(swap.stat("/", LIMITS).unwrap(), None);
}

#[test]
fn a_filesystem_on_a_logical_volume_in_two_segments_is_read_and_edited_through_the_disk() {
    let Some(filesystem) = small(&["-t", "ext4"]) else {
        return skipped("mke2fs");
    };
    let unpack = |bytes: &[u8]| -> Arc<dyn ReadAt> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes)
            .read_to_end(&mut out)
            .unwrap();
        Arc::new(out)
    };
    let base = [
        unpack(include_bytes!("../../volume/tests/data/vg-lab-a.img.gz")),
        unpack(include_bytes!("../../volume/tests/data/vg-lab-b.img.gz")),
    ];
    let disks: Vec<Arc<Overlay>> = base
        .iter()
        .map(|disk| Arc::new(Overlay::new(disk.clone())))
        .collect();
    let readable: Vec<Arc<dyn ReadAt>> = disks
        .iter()
        .map(|disk| disk.clone() as Arc<dyn ReadAt>)
        .collect();
    let writable: Vec<Arc<dyn WriteAt>> = disks
        .iter()
        .map(|disk| disk.clone() as Arc<dyn WriteAt>)
        .collect();
    let layout = scan_all(&readable, LIMITS).unwrap();
    let volume = layout.volume("vg_lab/lv_striped").unwrap();
    let window: Arc<dyn WriteAt> = Arc::new(WindowMut::new(writable, volume.map.clone()));
    window.write_at(0, &filesystem).unwrap();
    let mut beside = FileOverlay::new();
    let change = Change::Write(b"10.0.0.1 lab\n".to_vec());
    let done = edit::apply(
        &window,
        "vg_lab/lv_striped",
        "/etc/hosts",
        change,
        &mut beside,
        LIMITS,
    )
    .unwrap();
    assert_eq!(
        done,
        Applied::InPlace {
            path: "/etc/hosts".into(),
            bytes: 13
        }
    );
    // Scanned anew, the disks show the change.
    let layout = scan_all(&readable, LIMITS).unwrap();
    let found = open(
        layout.volume("vg_lab/lv_striped").unwrap().source.clone(),
        LIMITS,
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        found.read("/etc/hosts", LIMITS).unwrap().unwrap(),
        b"10.0.0.1 lab\n"
    );
    assert_eq!(
        found.read("/etc/deep/er/blocks", LIMITS).unwrap().unwrap(),
        vec![7; 40_000]
    );
    assert!(beside.is_empty());
}

#[test]
fn files_on_ntfs_are_edited_in_place_or_beside_without_regard_to_case() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ntfs.img");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let made = Command::new("mkntfs")
        .args(["-q", "-F", "-L", "System"])
        .arg(&path)
        .output();
    let Ok(made) = made else {
        return skipped("mkntfs");
    };
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    for (name, size) in [("small.txt", 100usize), ("Large.bin", 20_000)] {
        let content = directory.path().join(name);
        std::fs::write(&content, vec![b'a'; size]).unwrap();
        run(
            "ntfscp",
            &[
                "-q".as_ref(),
                path.as_os_str(),
                content.as_os_str(),
                name.as_ref(),
            ],
        );
    }
    let disk: Arc<dyn WriteAt> = Arc::new(Overlay::new(
        Arc::new(std::fs::read(&path).unwrap()) as Arc<dyn ReadAt>
    ));
    let mut beside = FileOverlay::new();
    let mut write = |path: &str, bytes: &[u8]| {
        edit::apply(
            &disk,
            "p2",
            path,
            Change::Write(bytes.to_vec()),
            &mut beside,
            LIMITS,
        )
        .unwrap()
    };
    assert!(matches!(
        write("/small.txt", b"changed"),
        Applied::InPlace { bytes: 7, .. }
    ));
    assert!(matches!(
        write("/LARGE.BIN", &[b'b'; 18_000]),
        Applied::InPlace { bytes: 18_000, .. }
    ));
    assert!(matches!(
        write("/small.txt", &[b'c'; 90_000]),
        Applied::Overlaid { .. }
    ));
    assert!(matches!(
        write("/Windows/new.sys", b"MZ"),
        Applied::Overlaid { .. }
    ));
    let layered = Layered::new(
        open(disk.clone(), LIMITS).unwrap().unwrap().into(),
        beside.view("p2"),
    );
    assert_eq!(layered.kind(), Kind::Ntfs);
    assert_eq!(
        layered.read("/large.bin", LIMITS).unwrap().unwrap(),
        vec![b'b'; 18_000]
    );
    assert_eq!(
        layered.read("/SMALL.TXT", LIMITS).unwrap().unwrap(),
        vec![b'c'; 90_000]
    );
    assert_eq!(
        layered.read("/windows/NEW.sys", LIMITS).unwrap().unwrap(),
        b"MZ"
    );
    let names: Vec<String> = layered
        .list("/", LIMITS)
        .unwrap()
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert!(
        ["Large.bin", "Windows", "small.txt"]
            .iter()
            .all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
    assert_eq!(layered.list("/WINDOWS", LIMITS).unwrap().unwrap().len(), 1);
    // What the disk holds is what ntfscat reads.
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(
        run("ntfscat", &[path.as_os_str(), "small.txt".as_ref()]),
        "changed"
    );
    assert_eq!(
        run("ntfscat", &[path.as_os_str(), "Large.bin".as_ref()]),
        "b".repeat(18_000)
    );
}

#[test]
fn a_volume_of_nothing_known_takes_every_change_beside() {
    let disk: Arc<dyn WriteAt> = Arc::new(SparseBytes::new(1 << 20));
    let placed = edit::write_in_place(&disk, "/a", b"x", LIMITS).unwrap();
    assert!(matches!(
        placed,
        Placed::DoesNotFit {
            have: 0,
            need: 1,
            ..
        }
    ));
    let mut beside = FileOverlay::new();
    let done = edit::apply(
        &disk,
        "p1",
        "//a/./b",
        Change::Write(b"x".to_vec()),
        &mut beside,
        LIMITS,
    )
    .unwrap();
    assert!(matches!(done, Applied::Overlaid { path, .. } if path == "/a/b"));
}

/// Sound to e2fsck, which would only rebuild the tree; Linux refuses extent trees deeper than 5.
const LINUX_REFUSES_TOO: [&str; 1] = ["fs/e2fsprogs__tests/f_extent_too_deep/image"];

/// Reads everything; gives the number of files and the first error.
fn read_all(filesystem: &dyn Filesystem) -> (u32, Result<(), Error>) {
    let mut todo = vec![String::from("/")];
    let (mut files, mut first) = (0, Ok(()));
    let mut seen = 0;
    while let Some(directory) = todo.pop() {
        seen += 1;
        let entries = match filesystem.list(&directory, LIMITS) {
            Ok(entries) => entries.unwrap_or_default(),
            Err(error) => {
                first = first.and(Err(error));
                continue;
            }
        };
        for entry in entries {
            let path = format!("{}/{}", directory.trim_end_matches('/'), entry.name);
            match entry.file_type {
                FileType::Directory if seen < 200 => todo.push(path),
                FileType::File => match filesystem.read(&path, LIMITS) {
                    Ok(_) => files += 1,
                    Err(error) => first = first.and(Err(error)),
                },
                _ => {}
            }
        }
    }
    (files, first)
}

#[test]
fn foreign_volumes_agree_with_blkid_and_sound_ones_are_read_whole() {
    let Some((root, manifest)) = unpacking::foreign() else {
        return;
    };
    let (mut ext, mut swap, mut sound, mut files, mut refused, mut wrong) =
        (0, 0, 0, 0, Vec::new(), Vec::new());
    for line in manifest.lines().skip(1) {
        let mut columns = line.split('\t');
        let (Some(file), Some(kind)) = (columns.next(), columns.next()) else {
            continue;
        };
        if !matches!(kind, "fs" | "volume") || line.contains("still compressed") {
            continue;
        }
        let oracle: serde_json::Value = columns
            .nth(6)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        let Ok(bytes) = std::fs::read(root.join(file)) else {
            continue;
        };
        drylab_filesystem::fuzz::door(&bytes);
        if bytes.len() < 4 << 20 {
            drylab_filesystem::fuzz::ext(&bytes);
        }
        let theirs = oracle["blkid"]["TYPE"].as_str().unwrap_or_default();
        let opened = open(Arc::new(bytes), LIMITS);
        if !theirs.starts_with("ext") && theirs != "swap" {
            continue;
        }
        let clean = oracle["e2fsck_fn_rc"] == 0;
        let filesystem = match opened {
            Ok(Some(filesystem)) => filesystem,
            // What a checker finds sound we may only refuse as not known to us.
            Err(error) => {
                if clean && !matches!(error, Error::Unsupported(_)) {
                    wrong.push(format!("{file}: {error}"));
                }
                refused.push(format!("{file}: {error}"));
                continue;
            }
            Ok(None) => {
                // Byte-swapped and ancient swap areas.
                assert_eq!(theirs, "swap", "{file}");
                refused.push(format!("{file}: {theirs} not known"));
                continue;
            }
        };
        let uuid = oracle["blkid"]["UUID"]
            .as_str()
            .unwrap_or("00000000-0000-0000-0000-000000000000");
        assert_eq!(filesystem.uuid(), uuid, "{file}");
        let label = oracle["blkid"]["LABEL"]
            .as_str()
            .unwrap_or_default()
            .replace("\\ ", " ");
        assert_eq!(filesystem.label().trim_end(), label, "{file}");
        swap += u32::from(theirs == "swap");
        ext += u32::from(theirs != "swap");
        let (read, first) = read_all(filesystem.as_ref());
        files += read;
        match first {
            Ok(()) => sound += 1,
            Err(error) if clean => {
                if !matches!(error, Error::Unsupported(_)) && !LINUX_REFUSES_TOO.contains(&file) {
                    wrong.push(format!("{file}: {error}"));
                }
                refused.push(format!("{file}: {error}"));
            }
            Err(_) => {}
        }
    }
    eprintln!(
        "{ext} ext and {swap} swap volumes agree with blkid, {sound} read whole, {files} files; {} refused:",
        refused.len()
    );
    eprintln!("{}", refused.join("\n"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ext >= 100 && sound >= 80, "{ext} ext, {sound} read whole");
    assert!(refused.len() <= 40, "{refused:#?}");
}
