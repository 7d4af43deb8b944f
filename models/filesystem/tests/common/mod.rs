//! Images for the tests, made once per run.

#[path = "../../../../properties/skip.rs"]
pub(crate) mod skipping;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The UUID every image is given.
pub(crate) const UUID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

/// Says that an oracle is missing; fails where it must be there.
pub(crate) fn skipped(what: &str) {
    skipping::skip(&format!("{what} is missing"));
}

/// Runs a tool that must succeed; gives its output.
pub(crate) fn run(tool: &str, arguments: &[&OsStr]) -> String {
    let out = Command::new(tool)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{tool} {arguments:?}: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    said
}

/// Whether all these tools are there.
pub(crate) fn have(tools: &[&str]) -> bool {
    tools
        .iter()
        .all(|tool| Command::new(tool).arg("-V").output().is_ok())
}

/// Makes an image with the files of `directory/root`.
pub(crate) fn make(
    directory: &Path,
    name: &'static str,
    size: &str,
    arguments: &[&str],
) -> (&'static str, PathBuf, Arc<Vec<u8>>) {
    let path = directory.join(format!("{name}.img"));
    let root = directory.join("root");
    let mut all: Vec<&OsStr> = vec![
        "-q".as_ref(),
        "-F".as_ref(),
        "-L".as_ref(),
        "lab".as_ref(),
        "-U".as_ref(),
        UUID.as_ref(),
    ];
    all.extend(["-d".as_ref(), root.as_os_str()]);
    all.extend(arguments.iter().map(|argument| OsStr::new(*argument)));
    all.extend([path.as_os_str(), size.as_ref()]);
    run("mke2fs", &all);
    let bytes = std::fs::read(&path).unwrap();
    (name, path, Arc::new(bytes))
}
