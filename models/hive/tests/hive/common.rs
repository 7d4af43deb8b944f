//! What the tests of this crate share: foreign hives, and hivex as the oracle.

#[path = "../../../../properties/skip.rs"]
mod skipping;
#[path = "../../../../properties/foreign.rs"]
mod unpacking;

use drylab_block::Limits;
use drylab_hive::{Hive, RegType};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether hivex's programs are here; says so when not.
pub(crate) fn have_hivex() -> bool {
    let found = Command::new("hivexregedit").arg("--help").output().is_ok();
    if !found {
        skipping::skip("hivexregedit is not here");
    }
    found
}

/// A foreign file and what the manifest says of it.
pub(crate) struct Foreign {
    pub(crate) name: String,
    pub(crate) wellformed: bool,
    pub(crate) kind: String,
    pub(crate) bytes: Vec<u8>,
}

/// The hives of the shared data with all that lies beside them; empty, and said so, where there are none.
pub(crate) fn foreign() -> Vec<Foreign> {
    let Some((folder, manifest)) = unpacking::foreign() else {
        return Vec::new();
    };
    let rows = manifest
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() > 7 && row[0].starts_with("hive/"));
    rows.map(|row| Foreign {
        name: row[0].trim_start_matches("hive/").to_owned(),
        kind: row[1].to_owned(),
        wellformed: row[7] == "yes",
        bytes: unpacked(&folder.join(row[0])),
    })
    .collect()
}

fn unpacked(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let done = Command::new("xz")
            .arg("-dc")
            .arg(path)
            .output()
            .expect("xz runs");
        assert!(done.status.success(), "xz -dc {}", path.display());
        return done.stdout;
    }
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of this test run, by name.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hive");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Everything hivex reads in a hive, as `hivexregedit --export` prints it, in blocks per key with sorted lines.
pub(crate) fn hivex_dump(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
    let path = scratch(name);
    std::fs::write(&path, bytes).unwrap();
    let done = Command::new("hivexregedit")
        .env("PERL_UNICODE", "O")
        .arg("--export")
        .arg(&path)
        .arg("\\")
        .output();
    let done = done.expect("hivexregedit runs");
    let _ = std::fs::remove_file(&path);
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let text = String::from_utf8(done.stdout).map_err(|error| error.to_string())?;
    let body = text.split_once("\n\n").map_or("", |(_, body)| body);
    Ok(blocks(body))
}

/// The same dump by our reader; damage becomes an error.
pub(crate) fn our_dump(hive: &Hive) -> Result<Vec<String>, String> {
    let mut text = String::new();
    for key in hive.walk().map_err(|error| error.to_string())? {
        let key = key.map_err(|error| error.to_string())?;
        let _ = writeln!(text, "[\\{}]", key.path());
        for value in key.values().map_err(|error| error.to_string())? {
            let name = value.name().replace('\\', "\\\\").replace('"', "\\\"");
            let name = if name.is_empty() {
                "@".to_owned()
            } else {
                format!("\"{name}\"")
            };
            let data = value.data();
            match <[u8; 4]>::try_from(&*data) {
                Ok(bytes) if value.kind() == RegType::DWORD => {
                    let _ = writeln!(text, "{name}=dword:{:08x}", u32::from_le_bytes(bytes));
                }
                _ => {
                    let hex: Vec<String> = data.iter().map(|byte| format!("{byte:02x}")).collect();
                    let _ = writeln!(text, "{name}=hex({:x}):{}", value.kind().0, hex.join(","));
                }
            }
        }
        text.push('\n');
    }
    Ok(blocks(&text))
}

fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = text
        .split("\n\n")
        .map(|block| block.trim_matches('\n'))
        .filter(|block| !block.is_empty())
        .map(|block| {
            let mut lines: Vec<&str> = block.lines().collect();
            if let Some(values) = lines.get_mut(1..) {
                values.sort_unstable();
            }
            lines.join("\n")
        })
        .collect();
    blocks.sort();
    blocks
}

/// The dump of bytes that must open.
pub(crate) fn dump(bytes: &[u8]) -> Vec<String> {
    our_dump(&Hive::open(bytes, &Limits::DEFAULT).unwrap()).unwrap()
}

/// Asserts that two dumps are equal; shows where the first keys differ, cut to what can be read.
pub(crate) fn assert_same(what: &str, ours: &[String], theirs: &[String]) {
    let only = |left: &[String], right: &[String]| -> Vec<String> {
        let blocks = left
            .iter()
            .filter(|block| right.binary_search(block).is_err())
            .take(3);
        blocks
            .map(|block| block.chars().take(400).collect())
            .collect()
    };
    if ours != theirs {
        panic!(
            "{what}: only ours {:#?}\nonly theirs {:#?}",
            only(ours, theirs),
            only(theirs, ours)
        );
    }
}
