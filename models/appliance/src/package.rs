//! A machine on its way between two tools: a descriptor and the files beside it.

use drylab_block::{Error, Limits, ReadAt, Result, read_vec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files by name; what any tool of a route reads and writes.
#[derive(Clone, Default)]
pub struct Package {
    /// Name of the descriptor among the files; empty when only disks travel.
    pub descriptor: String,
    /// Names of the disk files, boot disk first.
    pub disks: Vec<String>,
    /// All files.
    pub files: BTreeMap<String, Arc<dyn ReadAt>>,
}

impl Package {
    /// Adds a file.
    pub fn put(&mut self, name: impl Into<String>, bytes: Arc<dyn ReadAt>) {
        self.files.insert(name.into(), bytes);
    }

    /// A file by name.
    ///
    /// # Errors
    /// [`Error::Io`] when the package has no such file.
    pub fn file(&self, name: &str) -> Result<&Arc<dyn ReadAt>> {
        self.files
            .get(name)
            .ok_or_else(|| Error::io(format_args!("the package has no file {name:?}")))
    }

    /// The file a person names for a disk, with its name: the flat extent beside a VMware descriptor, else the disk
    /// itself.
    ///
    /// # Errors
    /// As [`Package::file`].
    pub fn disk_file(&self, disk: &str) -> Result<(String, &Arc<dyn ReadAt>)> {
        let flat = format!("{}-flat.vmdk", disk.trim_end_matches(".vmdk"));
        match self.files.get(&flat) {
            Some(file) => Ok((flat, file)),
            None => Ok((disk.to_owned(), self.file(disk)?)),
        }
    }

    /// A text file by name.
    ///
    /// # Errors
    /// As [`Package::file`], and when it is larger than texts may be.
    pub fn text(&self, name: &str, limits: &Limits) -> Result<Vec<u8>> {
        let file = self.file(name)?;
        let mut texts = *limits;
        texts.table_bytes_max = limits.text_bytes_max;
        read_vec(file, name, 0, file.len(), &texts)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files
            .values()
            .fold(0, |sum, file| sum.saturating_add(file.len()))
    }
}

impl std::fmt::Debug for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.files.iter().map(|(name, file)| (name, file.len())))
            .finish()
    }
}
