//! The foreign test files of `../shared`, unpacked once for all test programs. The tests of the reader crates include
//! this file by its path, beside `skip.rs` as the module `skipping`: a crate of its own would be one that tests nothing.

use super::skipping;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
const FOREIGN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/foreign");

/// Programs that the archive of all files, and those that are packed in it, are unpacked with.
const UNPACKERS: [&str; 4] = ["tar", "zstd", "xz", "gzip"];

/// The folder of the unpacked files and the text of their manifest; `None`, said on stderr, where they are not beside the
/// repository or cannot be unpacked.
///
/// # Panics
/// When they are not at hand and `DRYLAB_REQUIRE_ORACLES=1`.
pub(crate) fn foreign() -> Option<(PathBuf, String)> {
    let found = unpacked();
    if let Err(why) = &found {
        skipping::skip(why);
    }
    found.ok()
}

fn unpacked() -> Result<(PathBuf, String), String> {
    let manifest = std::fs::read_to_string(Path::new(SHARED).join("MANIFEST.tsv"))
        .map_err(|_| "the foreign files are not beside the repository".to_owned())?;
    let runs = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
    if let Some(tool) = UNPACKERS.iter().find(|tool| !runs(tool)) {
        return Err(format!("{tool} is not here to unpack the foreign files"));
    }
    // One at a time: a test must not read a file that another test's script is writing again.
    let target = Path::new(FOREIGN).parent().expect("target is above");
    std::fs::create_dir_all(target).expect("the target folder can be made");
    let lock = std::fs::File::create(target.join("foreign.lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let script = Path::new(SHARED).join("unpack.sh");
    let done = Command::new("sh")
        .arg(script)
        .arg(FOREIGN)
        .output()
        .map_err(|error| format!("the foreign files cannot be unpacked: sh: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!(
            "the foreign files cannot be unpacked: {}",
            said.trim()
        ));
    }
    Ok((FOREIGN.into(), manifest))
}
