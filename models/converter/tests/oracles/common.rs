//! What the oracle tests share: tables and inputs from beside the repository, sparse files, hashes.

#[path = "../../../../properties/skip.rs"]
pub(crate) mod skipping;

use drylab_block::{ContentId, Extents, ReadAt, SparseBytes, WriteAt, content_id};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A row by the names of its columns.
pub(crate) type Row = BTreeMap<String, String>;

/// The rows of a table and the folder of its unpacked inputs, or `None` after saying why.
pub(crate) fn oracle(table: &str, inputs: &str) -> Option<(Vec<Row>, PathBuf)> {
    let shared = root().join("../shared/oracles");
    let Ok(text) = std::fs::read_to_string(shared.join(table)) else {
        skipping::skip(&format!(
            "the oracle table {table} is not beside the repository"
        ));
        return None;
    };
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let row = |line: &str| {
        let cells = line.split('\t').map(str::to_owned);
        names
            .iter()
            .map(|name| (*name).to_owned())
            .zip(cells)
            .collect()
    };
    let rows: Vec<Row> = lines.map(row).collect();
    let folder = root().join("target/foreign-oracles").join(inputs);
    if inputs.is_empty() {
        return Some((rows, folder));
    }
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(shared.join("inputs").join(inputs)).unwrap() {
        let archive = entry.unwrap().path();
        let name = archive.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.trim_end_matches(".tar.xz");
        if folder.join(stem).exists() {
            continue;
        }
        let mut tar = Command::new("tar");
        tar.arg("-xJf").arg(&archive).arg("-C").arg(&folder);
        if !tar.status().is_ok_and(|status| status.success()) {
            skipping::skip("the oracle's inputs cannot be unpacked (tar, xz)");
            return None;
        }
    }
    Some((rows, folder))
}

/// A file, its zeros left out.
pub(crate) fn load(path: &Path) -> Arc<dyn ReadAt> {
    const PART: usize = 1 << 16;
    static ZEROS: [u8; PART] = [0; PART];
    let mut file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let bytes = SparseBytes::new(length);
    let mut buffer = vec![0; PART];
    let mut at = 0u64;
    while at < length {
        let take = PART.min((length - at) as usize);
        file.read_exact(&mut buffer[..take]).unwrap();
        if buffer[..take] != ZEROS[..take] {
            bytes.write_at(at, &buffer[..take]).unwrap();
        }
        at += take as u64;
    }
    Arc::new(bytes)
}

/// Hashes by what was hashed: many rows end in the same bytes.
#[derive(Default)]
pub(crate) struct Hashes(Mutex<BTreeMap<(ContentId, u64), String>>);

impl Hashes {
    /// SHA-256 in hexadecimal.
    pub(crate) fn of(&self, disk: &dyn ReadAt) -> String {
        let id = (content_id(disk).unwrap(), disk.len());
        if let Some(known) = self.0.lock().unwrap().get(&id) {
            return known.clone();
        }
        let hash = sha256(disk);
        self.0.lock().unwrap().insert(id, hash.clone());
        hash
    }
}

/// SHA-256 in hexadecimal; holes are not read.
pub(crate) fn sha256(disk: &dyn ReadAt) -> String {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    let zeros = vec![0u8; 1 << 20];
    for extent in Extents::new(disk) {
        let mut at = extent.offset;
        let end = extent.offset + extent.length;
        while at < end {
            let take = ((end - at) as usize).min(buffer.len());
            if extent.kind.has_bytes() {
                disk.read_at(at, &mut buffer[..take]).unwrap();
                hasher.update(&buffer[..take]);
            } else {
                hasher.update(&zeros[..take]);
            }
            at += take as u64;
        }
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
