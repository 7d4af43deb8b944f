//! Files beside a disk: what an edit could not write where it stood.

use crate::{Entry, FileType, Filesystem, Kind, Last, ntfs};
use drylab_block::{Error, Finding, Limits, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files that replace, add to or remove those of volumes, by volume (its printed name) and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOverlay {
    /// `None` stands for a file that is removed. Paths are absolute and have no symbolic links.
    pub files: BTreeMap<(String, String), Option<Arc<[u8]>>>,
}

/// The part of a [`FileOverlay`] that concerns one volume.
pub type OverlayView = BTreeMap<String, Option<Arc<[u8]>>>;

impl FileOverlay {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What it says of a path; `None` when nothing.
    #[must_use]
    pub fn get(&self, kind: Option<Kind>, volume: &str, path: &str) -> Option<&Option<Arc<[u8]>>> {
        self.files
            .iter()
            .find(|((on, at), _)| on == volume && same_path(kind, at, path))
            .map(|(_, content)| content)
    }

    /// Says something of a path, instead of what it said before.
    pub fn insert(
        &mut self,
        kind: Option<Kind>,
        volume: &str,
        path: &str,
        content: Option<Arc<[u8]>>,
    ) {
        self.files
            .retain(|(on, at), _| on != volume || !same_path(kind, at, path));
        self.files
            .insert((volume.to_owned(), path.to_owned()), content);
    }

    /// What it says of one volume.
    #[must_use]
    pub fn view(&self, volume: &str) -> OverlayView {
        self.files
            .iter()
            .filter(|((on, _), _)| on == volume)
            .map(|((_, path), content)| (path.clone(), content.clone()))
            .collect()
    }
}

/// A path with one slash between its parts, `.` and `..` worked out.
pub(crate) fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether two names are the same on such a filesystem: NTFS compares without case.
pub(crate) fn same_name(kind: Kind, a: &str, b: &str) -> bool {
    match kind {
        Kind::Ntfs => a
            .chars()
            .flat_map(char::to_uppercase)
            .eq(b.chars().flat_map(char::to_uppercase)),
        _ => a == b,
    }
}

fn same_path(kind: Option<Kind>, a: &str, b: &str) -> bool {
    kind.map_or(a == b, |kind| same_name(kind, a, b))
}

/// `path` below `directory`: what follows, without the slash.
fn below<'a>(kind: Kind, path: &'a str, directory: &str) -> Option<&'a str> {
    if directory == "/" {
        return path.strip_prefix('/').filter(|rest| !rest.is_empty());
    }
    let rest = path.get(directory.len()..)?.strip_prefix('/')?;
    same_name(kind, path.get(..directory.len())?, directory).then_some(rest)
}

/// A filesystem with an overlay in front, shown as one.
#[derive(Clone)]
pub struct Layered {
    filesystem: Arc<dyn Filesystem>,
    overlay: OverlayView,
}

impl std::fmt::Debug for Layered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Layered({} with {} files in front)",
            self.filesystem.kind(),
            self.overlay.len()
        )
    }
}

impl Layered {
    /// Puts `overlay` in front of `filesystem`.
    #[must_use]
    pub fn new(filesystem: Arc<dyn Filesystem>, overlay: OverlayView) -> Self {
        Self {
            filesystem,
            overlay,
        }
    }

    /// Whether what is read at `path` comes from beside the disk.
    ///
    /// # Errors
    /// As [`Filesystem::resolve`].
    pub fn is_overlaid(&self, path: &str, limits: &Limits) -> Result<bool> {
        Ok(self.in_front(path, limits)?.is_some())
    }

    fn kind_here(&self) -> Kind {
        self.filesystem.kind()
    }

    fn says(&self, path: &str) -> Option<&Option<Arc<[u8]>>> {
        let exact = self.overlay.get(path);
        exact.or_else(|| {
            let kind = self.kind_here();
            self.overlay
                .iter()
                .find(|(at, _)| same_name(kind, at, path))
                .map(|(_, content)| content)
        })
    }

    /// What the overlay says of a path: of the name itself first, then of where a link there leads.
    fn in_front(&self, path: &str, limits: &Limits) -> Result<Option<&Option<Arc<[u8]>>>> {
        if self.overlay.is_empty() {
            return Ok(None);
        }
        let name = self.filesystem.resolve(path, Last::Keep, limits)?;
        if let Some(said) = self.says(&name) {
            return Ok(Some(said));
        }
        let end = self.filesystem.resolve(path, Last::Follow, limits)?;
        Ok(self.says(&end))
    }
}

impl Filesystem for Layered {
    fn kind(&self) -> Kind {
        self.filesystem.kind()
    }

    fn uuid(&self) -> String {
        self.filesystem.uuid()
    }

    fn label(&self) -> String {
        self.filesystem.label()
    }

    fn list(&self, path: &str, limits: &Limits) -> Result<Option<Vec<Entry>>> {
        let entries = self.filesystem.list(path, limits)?;
        if self.overlay.is_empty() {
            return Ok(entries);
        }
        let kind = self.kind_here();
        let directory = self.filesystem.resolve(path, Last::Follow, limits)?;
        let there = entries.is_some();
        let mut merged = entries.unwrap_or_default();
        let mut touched = false;
        let mut directories: BTreeSet<&str> = BTreeSet::new();
        for (at, content) in &self.overlay {
            let Some(rest) = below(kind, at, &directory) else {
                continue;
            };
            match (rest.split_once('/'), content) {
                (None, _) => {
                    merged.retain(|entry| !same_name(kind, &entry.name, rest));
                    if let Some(bytes) = content {
                        let size = u64::try_from(bytes.len()).map_err(Error::io)?;
                        merged.push(Entry {
                            name: rest.to_owned(),
                            file_type: FileType::File,
                            size,
                        });
                        touched = true;
                    }
                }
                (Some((name, _)), Some(_)) => {
                    directories.insert(name);
                }
                (Some(_), None) => {}
            }
        }
        for name in directories {
            touched = true;
            if !merged
                .iter()
                .any(|entry| same_name(kind, &entry.name, name))
            {
                merged.push(Entry {
                    name: name.to_owned(),
                    file_type: FileType::Directory,
                    size: 0,
                });
            }
        }
        merged.sort();
        Ok((there || touched).then_some(merged))
    }

    fn read(&self, path: &str, limits: &Limits) -> Result<Option<Vec<u8>>> {
        match self.in_front(path, limits)? {
            Some(content) => Ok(content.as_ref().map(|bytes| bytes.to_vec())),
            None => self.filesystem.read(path, limits),
        }
    }

    fn read_link(&self, path: &str, limits: &Limits) -> Result<Option<String>> {
        let name = self.filesystem.resolve(path, Last::Keep, limits)?;
        if self.says(&name).is_some() {
            return Ok(None);
        }
        self.filesystem.read_link(path, limits)
    }

    fn stat(&self, path: &str, limits: &Limits) -> Result<Option<Entry>> {
        let name = self.filesystem.resolve(path, Last::Keep, limits)?;
        match self.says(&name) {
            Some(None) => Ok(None),
            Some(Some(bytes)) => Ok(Some(Entry {
                name: name.rsplit('/').next().unwrap_or_default().to_owned(),
                file_type: FileType::File,
                size: u64::try_from(bytes.len()).map_err(Error::io)?,
            })),
            None => match self.filesystem.stat(path, limits)? {
                Some(entry) => Ok(Some(entry)),
                // A directory may be there only because a file beside the disk stands in it.
                None => Ok(self.list(&name, limits)?.map(|_| Entry {
                    name: name.rsplit('/').next().unwrap_or_default().to_owned(),
                    file_type: FileType::Directory,
                    size: 0,
                })),
            },
        }
    }

    fn resolve(&self, path: &str, last: Last, limits: &Limits) -> Result<String> {
        let name = self.filesystem.resolve(path, Last::Keep, limits)?;
        if last == Last::Keep || self.says(&name).is_some() {
            return Ok(name);
        }
        self.filesystem.resolve(path, last, limits)
    }

    fn is_hibernated(&self, limits: &Limits) -> Result<bool> {
        match self.in_front(ntfs::HIBERFIL, limits)? {
            Some(content) => Ok(self.kind_here() == Kind::Ntfs
                && content.as_deref().is_some_and(ntfs::says_hibernated)),
            None => self.filesystem.is_hibernated(limits),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.filesystem.findings()
    }
}
