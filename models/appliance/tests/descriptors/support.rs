//! Where the foreign files are, which tools must be there, and values to test laws with.

#[path = "../../../../properties/skip.rs"]
mod skipping;
#[path = "../../../../properties/foreign.rs"]
mod unpacking;

pub(crate) mod samples;
pub(crate) mod strategies;

use std::path::PathBuf;
use std::process::Command;

/// One row of the manifest of foreign files.
pub(crate) struct Row {
    /// Path below the folder of foreign files.
    pub(crate) file: String,
    /// Kind of file, such as `ovf`.
    pub(crate) kind: String,
    /// Kind within the kind.
    pub(crate) subformat: String,
    /// Whether an independent tool calls it well formed.
    pub(crate) wellformed: String,
    /// What that tool read from it.
    pub(crate) oracle: serde_json::Value,
}

/// The folder of foreign files, unpacked on first use, and the rows of some kinds. `None`, said on stderr, without them.
pub(crate) fn foreign(kinds: &[&str]) -> Option<(PathBuf, Vec<Row>)> {
    let (folder, manifest) = unpacking::foreign()?;
    let rows = manifest.lines().skip(1).map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let column = |at: usize| columns.get(at).copied().unwrap_or("").to_owned();
        let oracle = serde_json::from_str(&column(8)).unwrap_or_default();
        Row {
            file: column(0),
            kind: column(1),
            subformat: column(2),
            wellformed: column(7),
            oracle,
        }
    });
    Some((
        folder,
        rows.filter(|row| kinds.contains(&row.kind.as_str()))
            .collect(),
    ))
}

/// Runs a tool, or says that the test is skipped; a missing tool fails where oracles are required.
pub(crate) fn run(command: &mut Command) -> Option<std::process::Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let tool = command.get_program().to_string_lossy();
            skipping::skip(&format!("{tool} is not here ({error})"));
            None
        }
    }
}
