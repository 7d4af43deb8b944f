//! The guest's configuration files as its programs see them: cheap to clone, written by what runs in the guest.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Files by absolute path. A value: cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<String, Arc<[u8]>>,
}

impl Tree {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Content of a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(AsRef::as_ref)
    }

    /// Content as text, wrong bytes replaced.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.read(path).map(String::from_utf8_lossy)
    }

    /// Names of the files directly inside `directory` (no trailing slash), sorted.
    pub fn names_in<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        let first = format!("{directory}/");
        self.files
            .range(first..)
            .map_while(move |(path, _)| path.strip_prefix(directory)?.strip_prefix('/'))
            .filter(|name| !name.contains('/'))
    }

    /// Writes a file.
    pub fn write(&mut self, path: impl Into<String>, bytes: impl Into<Arc<[u8]>>) {
        self.files.insert(path.into(), bytes.into());
    }

    /// Removes a file; whether it was there.
    pub fn remove(&mut self, path: &str) -> bool {
        self.files.remove(path).is_some()
    }

    /// All files, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes))
    }
}
