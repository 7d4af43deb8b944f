//! The foreign test files of `../shared`, unpacked once for all test programs. The tests of the reader crates include
//! this file by its path: a crate of its own would be one that tests nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
const FOREIGN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/foreign");

/// The folder of the unpacked files and the text of their manifest; `None`, said on stderr, where they are not at hand.
///
/// # Panics
/// When they are there and cannot be unpacked.
pub(crate) fn foreign() -> Option<(PathBuf, String)> {
    let Ok(manifest) = std::fs::read_to_string(Path::new(SHARED).join("MANIFEST.tsv")) else {
        eprintln!("SKIPPED: the foreign files are not beside the repository");
        return None;
    };
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
        .expect("sh runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Some((FOREIGN.into(), manifest))
}
