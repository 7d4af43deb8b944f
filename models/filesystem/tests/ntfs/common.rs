//! What the NTFS tests share: volumes, and the oracles.

#[path = "../../../../properties/skip.rs"]
mod skipping;
#[path = "../../../../properties/foreign.rs"]
mod unpacking;

use drylab_block::{ReadAt, SparseBytes, WriteAt};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Whether ntfs-3g's programs are here; says so when not.
pub(crate) fn have_ntfs_tools() -> bool {
    let missing = ["mkntfs", "ntfscp", "ntfscat", "ntfsfix"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--help").output().is_err());
    if let Some(tool) = missing {
        skipping::skip(&format!("{tool} is not here"));
    }
    missing.is_none()
}

/// A file of this test run, by name.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ntfs");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    done.stdout
}

/// Bytes that differ at each place and by salt.
pub(crate) fn content(length: usize, salt: u32) -> Vec<u8> {
    (0..length as u32)
        .map(|at| {
            (at.wrapping_mul(2_654_435_761)
                .wrapping_add(salt.wrapping_mul(40_503))
                >> 13) as u8
        })
        .collect()
}

/// A volume made by mkntfs with these files in its root.
pub(crate) fn make(
    name: &str,
    bytes: u64,
    options: &[&str],
    files: &[(String, Vec<u8>)],
) -> PathBuf {
    let image = scratch(name);
    let _ = std::fs::remove_file(&image);
    std::fs::File::create(&image)
        .unwrap()
        .set_len(bytes)
        .unwrap();
    let path = image.to_str().unwrap();
    run("mkntfs", &[&["-F", "-q"], options, &[path]].concat());
    let source = scratch(&format!("{name}.file"));
    for (file, content) in files {
        std::fs::write(&source, content).unwrap();
        run("ntfscp", &["-q", path, source.to_str().unwrap(), file]);
    }
    let _ = std::fs::remove_file(&source);
    image
}

/// The foreign volumes, unpacked without their zeros; empty, and said so, where there are none.
pub(crate) fn foreign() -> Vec<(String, Arc<SparseBytes>)> {
    let Some((folder, manifest)) = unpacking::foreign() else {
        return Vec::new();
    };
    let rows = manifest
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() > 2 && row[1] == "fs" && row[2] == "ntfs:ntfs");
    rows.map(|row| (row[0].to_owned(), unpack(&folder.join(row[0]))))
        .collect()
}

fn unpack(path: &Path) -> Arc<SparseBytes> {
    let program = if path.extension().is_some_and(|extension| extension == "gz") {
        "gzip"
    } else {
        "xz"
    };
    let mut child = Command::new(program)
        .arg("-dc")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut output = child.stdout.take().unwrap();
    let bytes = SparseBytes::new(0);
    let mut chunk = vec![0u8; 1 << 16];
    loop {
        let count = output.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        bytes.write_at(bytes.len(), &chunk[..count]).unwrap();
    }
    assert!(child.wait().unwrap().success());
    Arc::new(bytes)
}

/// Positioned bytes as the crate `ntfs` wants them.
pub(crate) struct Cursor(pub(crate) Arc<dyn ReadAt>, pub(crate) u64);

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.0.len().saturating_sub(self.1);
        let take = buffer.len().min(left as usize);
        self.0
            .read_at(self.1, &mut buffer[..take])
            .map_err(std::io::Error::other)?;
        self.1 += take as u64;
        Ok(take)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.1 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(back) => self.0.len().wrapping_add_signed(back),
            SeekFrom::Current(on) => self.1.wrapping_add_signed(on),
        };
        Ok(self.1)
    }
}
