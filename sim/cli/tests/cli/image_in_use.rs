//! Files that somebody else has, and programs that are stopped: what is there stays, and nothing is left behind.

use crate::support::{Ran, create_child, json, run, text, write_raw};
use drylab_block::{SparseBytes, WriteAt};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_RDLCK, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The bytes that QEMU locks of an image that it writes to, and of one that it only reads.
const WRITER: [i64; 4] = [100, 101, 103, 201];
const READER: [i64; 2] = [100, 201];

/// Opens a file and locks bytes of it as QEMU does.
fn locked(path: &Path, bytes: &[i64]) -> File {
    let file = File::open(path).expect("there");
    for byte in bytes {
        let lock = flock {
            l_type: i16::try_from(F_RDLCK).expect("small"),
            l_whence: 0,
            l_start: *byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).expect("locked");
    }
    file
}

/// `disk.raw` of 16 MiB in a folder of its own.
fn guest() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SparseBytes::new(16 << 20);
    disk.write_at(5 << 20, &[7; 100_000]).expect("inside");
    let raw = folder.path().join("disk.raw");
    write_raw(&disk, &raw);
    (folder, raw)
}

fn convert(source: &Path, destination: &Path, options: &[&str]) -> Ran {
    let names = ["image", "convert", text(source), text(destination)];
    run(&[&names, options].concat())
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("there")
}

fn names(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn a_file_that_another_program_has_locked_is_not_replaced() {
    let (folder, raw) = guest();
    let there = folder.path().join("disk.qcow2");
    let flat = folder.path().join("w-flat.vmdk");
    for path in [&there, &flat] {
        std::fs::write(path, b"the disk of a running machine").expect("written");
    }
    let vmdk = folder.path().join("w.vmdk");
    let several = ["--to", "vmdk", "--subformat", "monolithicFlat", "--force"];
    for lock in [&WRITER[..], &READER] {
        let held = [&there, &flat].map(|path| locked(path, lock));
        for ran in [
            convert(&raw, &there, &["--to", "qcow2", "--force"]),
            run(&[
                "image",
                "create",
                text(&there),
                "1M",
                "--to",
                "qcow2",
                "--force",
            ]),
            convert(&raw, &vmdk, &several),
        ] {
            assert_eq!((ran.code, ran.out.as_str()), (3, ""));
            assert!(
                ran.err.contains("another program holds a lock on it"),
                "{}",
                ran.err
            );
        }
        drop(held);
        assert_eq!(names(folder.path()), 3);
        assert_eq!(bytes(&there), b"the disk of a running machine");
        assert_eq!(bytes(&flat), b"the disk of a running machine");
    }
    assert_eq!(convert(&raw, &there, &["--to", "qcow2", "--force"]).code, 0);
    assert_eq!(convert(&raw, &vmdk, &several).code, 0);
}

#[test]
fn who_reads_an_image_that_another_program_writes_is_told() {
    let (folder, raw) = guest();
    let out = folder.path().join("out.raw");
    let every = |image: &Path| {
        let image = text(image);
        let commands: [&[&str]; 4] = [
            &["info", image],
            &["check", image],
            &["map", image],
            &["convert", image, text(&out), "--to", "raw", "--force"],
        ];
        commands.map(|command| {
            let beneath = ["--allow-beneath", text(folder.path())];
            run(&[&["image"], command, &beneath].concat())
        })
    };
    let held = locked(&raw, &READER);
    for ran in every(&raw) {
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    }
    drop(held);
    let child = folder.path().join("child.qcow2");
    create_child(&child, "qcow2", &raw, &[]).data();
    let held = locked(&raw, &WRITER);
    for image in [&raw, &child] {
        for ran in every(image) {
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(
                ran.err.contains("disk.raw is in use") && ran.err.lines().count() == 1,
                "{}",
                ran.err
            );
        }
    }
    drop(held);
}

/// Ends a program also when the test fails.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_qemu_has_open_is_said_to_be_in_use_and_not_replaced() {
    if !crate::support::have("qemu-io") {
        return;
    }
    let (folder, raw) = guest();
    let image = folder.path().join("disk.qcow2");
    assert_eq!(convert(&raw, &image, &["--to", "qcow2"]).code, 0);
    let qemu = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "sleep 600000", text(&image)])
        .stdin(Stdio::null())
        .spawn();
    let qemu = Running(qemu.expect("it starts"));
    let info = || run(&["image", "info", text(&image)]);
    let is_told = |_| {
        std::thread::sleep(Duration::from_millis(5));
        info().err.contains("disk.qcow2 is in use")
    };
    assert!((0..2000).any(is_told), "{}", info().err);
    let before = bytes(&image);
    let ran = convert(&raw, &image, &["--to", "qcow2", "--force"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("holds a lock"), "{}", ran.err);
    assert!(bytes(&image) == before);
    drop(qemu);
    assert_eq!(info().err, "");
    assert_eq!(convert(&raw, &image, &["--to", "qcow2", "--force"]).code, 0);
}

#[test]
fn no_file_that_is_read_is_replaced_under_any_of_its_names() {
    let (folder, raw) = guest();
    let at = |name: &str| folder.path().join(name);
    let flat = at("w-flat.vmdk");
    let [single, part] = ["x-s001.vmdk", "x-f001.vmdk"].map(at);
    for path in [&flat, &single, &part] {
        std::fs::copy(&raw, path).expect("copied");
    }
    for (source, kind, name) in [
        (&flat, "monolithicFlat", "w.vmdk"),
        (&flat, "vmfs", "w.vmdk"),
        (&single, "twoGbMaxExtentSparse", "x.vmdk"),
        (&part, "twoGbMaxExtentFlat", "x.vmdk"),
    ] {
        let before = bytes(source);
        let options = ["--to", "vmdk", "--subformat", kind, "--force"];
        let ran = convert(source, &at(name), &options);
        assert_eq!(ran.code, 3, "{kind}");
        assert!(ran.err.contains("is read for this"), "{}", ran.err);
        assert!(bytes(source) == before && !at(name).exists(), "{kind}");
    }
    // Another name of the source, and a file beneath the parent.
    let other = at("other.raw");
    std::fs::hard_link(&raw, &other).expect("linked");
    assert_eq!(convert(&raw, &other, &["--to", "vdi", "--force"]).code, 1);
    let [one, two] = ["one.qcow2", "two.qcow2"].map(at);
    let beneath = ["--allow-beneath", text(folder.path())];
    let create = |child: &Path, parent: &Path, more: &[&str]| {
        create_child(child, "qcow2", parent, &[more, &beneath].concat())
    };
    assert_eq!(create(&one, &raw, &[]).code, 0);
    let before = bytes(&raw);
    assert_eq!(create(&raw, &one, &["--force"]).code, 1);
    assert_eq!(create(&two, &one, &[]).code, 0);
    let ran = convert(
        &two,
        &raw,
        &[&["--to", "raw", "--force"], &beneath[..]].concat(),
    );
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(bytes(&raw) == before);
}

#[test]
fn a_file_that_takes_the_place_of_a_private_one_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let [raw, out] = ["disk.raw", "out.raw"].map(|name| folder.path().join(name));
    write_raw(&SparseBytes::new(1 << 20), &raw);
    let convert = |options: &[&str]| {
        let convert = ["image", "convert", text(&raw), text(&out), "--to", "raw"];
        run(&[&convert[..], options].concat()).data()
    };
    convert(&[]);
    for mode in [0o600, 0o640, 0o444] {
        std::fs::set_permissions(&out, PermissionsExt::from_mode(mode)).expect("set");
        convert(&["--force"]);
        let found = std::fs::metadata(&out).expect("there").permissions();
        assert_eq!(found.mode() & 0o777, mode);
    }
}

/// A file in `folder` that a process has open beside `known` ones, by the name that the system has for it.
fn written(process: u32, folder: &Path, known: [&Path; 2]) -> Option<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let open = open
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    open.into_iter()
        .find(|path| path.starts_with(folder) && !known.contains(&path.as_path()))
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    noise.take(length).collect()
}

/// Converts until something is written, sends a signal, and says which file it was; nothing when the conversion was over
/// before the signal came.
fn signalled(signal: &str, home: &Path, raw: &Path, out: &Path) -> Option<PathBuf> {
    let slow = ["--subformat", "streamOptimized", "--level", "best"];
    let always = ["--to", "vmdk", "--jobs", "1", "--force"];
    let names = ["image", "convert", text(raw), text(out)];
    // Who runs the tests may ignore signals, as nohup does, and a program inherits that.
    let mut started = Command::new("env")
        .args(["--default-signal", env!("CARGO_BIN_EXE_drylab")])
        .args([&names[..], &slow, &always].concat())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let path = loop {
        if let Some(path) = written(started.id(), home, [raw, out]) {
            break path;
        }
        if started.try_wait().expect("it runs").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let killed = Command::new("kill")
        .args([signal, &started.id().to_string()])
        .status();
    let ended = started.wait().expect("it ended");
    // There is no process to send a signal to once it has ended and been waited for; until then there is.
    assert!(killed.expect("it starts").success());
    match ended.code() {
        None => Some(path),
        Some(code) => {
            assert_eq!(code, 0, "it was over");
            None
        }
    }
}

#[test]
fn nothing_is_left_of_a_conversion_that_a_signal_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().canonicalize().expect("there");
    let [raw, out] = ["disk.raw", "disk.vmdk"].map(|name| home.join(name));
    let mut length = 48 << 20;
    std::fs::write(&raw, noise(length)).expect("written");
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let path = loop {
            std::fs::write(&out, b"mine").expect("written");
            if let Some(path) = signalled(signal, &home, &raw, &out) {
                break path;
            }
            // This machine was too quick, or too busy to send the signal.
            length *= 2;
            assert!(length <= 768 << 20, "no signal comes in time");
            std::fs::write(&raw, noise(length)).expect("written");
        };
        assert_eq!(bytes(&out), b"mine");
        if text(&path).ends_with(" (deleted)") {
            assert_eq!(names(&home), 2, "{signal}");
        } else {
            // This file system has no files without names, and what was made is beside its name.
            crate::support::skip(
                "the folder of temporary files is on a file system without O_TMPFILE",
            );
            std::fs::remove_file(path).expect("removed");
        }
    }
}

#[test]
fn what_convert_noticed_of_its_source_is_told_and_in_the_document() {
    let (folder, raw) = guest();
    let [image, out] = ["disk.qcow2", "out.raw"].map(|name| folder.path().join(name));
    assert_eq!(convert(&raw, &image, &["--to", "qcow2"]).code, 0);
    let to = ["--to", "raw", "--force", "--format", "json"];
    let names = ["image", "convert", text(&image), text(&out)];
    let said = json(&[&names[..], &to].concat());
    assert_eq!(said["findings"]["counts"], serde_json::json!([]));
    if !crate::support::have("qemu-img") {
        return;
    }
    let made = Command::new("qemu-img")
        .args(["snapshot", "-c", "before", text(&image)])
        .status();
    assert!(made.expect("it starts").success());
    let ran = run(&[&names[..], &to].concat());
    assert_eq!(ran.code, 0);
    assert!(
        ran.err
            .contains("QCOW2-SNAPSHOTS: only the active state is read and converted")
            && ran.err.lines().count() == 1,
        "{}",
        ran.err
    );
    assert!(
        ran.out.contains("\"code\": \"QCOW2-SNAPSHOTS\""),
        "{}",
        ran.out
    );
}
