//! Holds the house: what may stand where, who may use whom, which words are not used.
//!
//! Every check is a function from text to a list of complaints, so that each has a test with a bad sample beside it.

mod code;
mod facts;
mod knowledge;
mod rooms;
#[path = "../../skip.rs"]
mod skipping;
mod words;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("properties/ stands in the repository")
        .to_owned()
}

/// Names of what holds nothing that is committed.
const MADE: [&str; 6] = ["target", ".git", "made", "artifacts", "coverage", "corpus"];

/// Every file of the repository below `folder`, by its path from the root with `/`.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = std::fs::read_dir(root().join(&folder)).expect("a folder is readable");
        for entry in entries {
            let entry = entry.expect("a folder is readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            let kind = entry.file_type().expect("an entry has a type");
            // In a further worktree `.git` is a file.
            if MADE.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                todo.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The content of a file, binary bytes replaced.
fn read(path: &str) -> String {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Source files of the models and of the simulator, without their tests: path and code.
fn sources() -> Vec<(String, code::Code)> {
    let rust = ["models", "sim"].into_iter().flat_map(files);
    rust.filter(|path| is_source(path))
        .map(|path| {
            let code = code::Code::of(&read(&path));
            (path, code)
        })
        .collect()
}

/// Whether a path is code that ships: `<side>/<crate>/src/…​.rs`, test modules in files of their own excepted.
fn is_source(path: &str) -> bool {
    path.ends_with(".rs")
        && path.split('/').nth(2) == Some("src")
        && !path.ends_with("/tests.rs")
        && !path.contains("/src/tests/")
}

/// Fails with every complaint on a line of its own.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} violations:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}
