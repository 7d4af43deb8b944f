//! Foreign files that are packed each by itself, unpacked once, with holes where they have zeros. The tests of disk images
//! include this file by its path, beside `foreign.rs` and `skip.rs`.

use super::skipping;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where they are unpacked, each at the place that it has in the archive.
const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/foreign-plain");

/// The file `name` of the foreign `folder`, unpacked when it ends in `.gz` or `.bz2`; `None`, said on stderr, without the
/// program for it.
///
/// # Panics
/// When the program is not at hand and `DRYLAB_REQUIRE_ORACLES=1`, and when it refuses the file.
pub(crate) fn plain(folder: &Path, name: &str) -> Option<PathBuf> {
    let packed = folder.join(name);
    let (end, tool) = match packed.extension().and_then(|end| end.to_str()) {
        Some("gz") => (".gz", "gzip"),
        Some("bz2") => (".bz2", "bzip2"),
        _ => return Some(packed),
    };
    let plain = Path::new(PLAIN).join(name.trim_end_matches(end));
    if plain.is_file() {
        return Some(plain);
    }
    let child = Command::new(tool)
        .arg("-dc")
        .arg(&packed)
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skipping::skip(&format!("{tool} is not here to unpack {packed:?}"));
        return None;
    };
    let beside = plain.parent().expect("a file stands in a folder");
    std::fs::create_dir_all(beside).expect("the folder can be made");
    // Complete under its name, or not there: tests run side by side.
    let making = plain.with_extension(format!("{}", std::process::id()));
    let file = std::fs::File::create(&making).expect("a file");
    let mut from = child.stdout.take().expect("its output is ours");
    let (mut at, mut piece) = (0u64, vec![0u8; 1 << 16]);
    loop {
        let taken = from.read(&mut piece).expect("read");
        if taken == 0 {
            break;
        }
        if piece[..taken].iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece[..taken], at).expect("written");
        }
        at += taken as u64;
    }
    file.set_len(at).expect("a length");
    assert!(child.wait().expect("it ends").success(), "{packed:?}");
    std::fs::rename(&making, &plain).expect("renamed");
    Some(plain)
}
