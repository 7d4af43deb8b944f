//! Starting the binary, and golden guests as files.

#[path = "../../../../properties/skip.rs"]
mod skipping;

use drylab_block::{Extents, ReadAt};
use drylab_pipeline::Library;
use drylab_scenario::Scenario;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

pub(crate) const GUESTS: [&str; 3] = ["centos-6.3", "ubuntu-12.04", "windows-2008r2"];
pub(crate) const PRODUCTS: [&str; 4] = [
    "esxi-5.0.0",
    "hyperv-2008r2",
    "kvm-centos-6.3",
    "xenserver-6.0.2",
];

/// The binary, with nothing of this process on its standard streams.
pub(crate) fn drylab<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drylab"));
    command.args(args).stdin(Stdio::null());
    command
}

/// What came of a command.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).expect("data is UTF-8"),
        err: String::from_utf8(output.stderr).expect("diagnostics are UTF-8"),
    }
}

pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    ran(drylab(args).output().expect("the binary starts"))
}

impl Ran {
    /// Standard output of a command that must have ended well and said nothing on standard error.
    pub(crate) fn data(self) -> String {
        let Self { code, out, err } = self;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    }
}

/// Runs a command; its [`Ran::data`].
pub(crate) fn data<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    run(args).data()
}

/// Makes an image that stands on another.
pub(crate) fn create_child(child: &Path, to: &str, parent: &Path, more: &[&str]) -> Ran {
    let create = ["image", "create", text(child), "--to", to];
    run(&[&create[..], &["--backing", text(parent)], more].concat())
}

pub(crate) fn json<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Value {
    serde_json::from_str(&data(args)).expect("it is JSON")
}

/// Keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("it is an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Disk of a golden guest as installed on a product.
pub(crate) fn golden(guest: &str, product: &str) -> Arc<dyn ReadAt> {
    let scenario = Scenario::new(guest, product, product, "");
    let disk = Library::new().source_disk(&scenario);
    disk.expect("it is among the golden guests").disk.bytes
}

/// Writes the bytes of a disk to a new file, holes left out.
pub(crate) fn write_raw(disk: &dyn ReadAt, path: &Path) {
    let file = File::create_new(path).expect("the file is new");
    file.set_len(disk.len())
        .expect("the filesystem has sparse files");
    let mut page = vec![0u8; 4096];
    for extent in Extents::new(disk).filter(|extent| extent.kind.has_bytes()) {
        for at in (extent.offset..extent.offset + extent.length).step_by(4096) {
            let take = usize::try_from((disk.len() - at).min(4096)).expect("at most a page");
            disk.read_at(at, &mut page[..take])
                .expect("the golden disk reads");
            if page[..take].iter().any(|byte| *byte != 0) {
                file.write_all_at(&page[..take], at).expect("there is room");
            }
        }
    }
}

/// Bytes of a file.
pub(crate) fn read_at(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = File::open(path).expect("it is there");
    file.read_exact_at(&mut bytes, offset)
        .expect("it is that long");
    bytes
}

/// Says that something is left out, or fails where nothing may be.
pub(crate) fn skip(why: &str) {
    skipping::skip(why);
}

/// Whether a program is there. Without it a test says that it is skipped; with `DRYLAB_REQUIRE_ORACLES=1` it fails.
pub(crate) fn have(program: &str) -> bool {
    let probe = Command::new(program).arg("--version").output();
    if probe.is_ok() {
        return true;
    }
    skipping::skip(&format!("{program} is not installed"));
    false
}
