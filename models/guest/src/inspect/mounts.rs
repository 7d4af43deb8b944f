//! The guest's paths: the root with the other filesystems mounted where `fstab` says.

use super::model::{FstabEntry, Sourced};
use super::volumes::Volumes;
use drylab_block::{Finding, Limits, Severity};
use drylab_filesystem::{Entry, Filesystem};
use std::cell::RefCell;
use std::sync::Arc;

/// Mounted filesystems, longest mount point first.
pub(crate) struct Mounts<'a> {
    points: Vec<(String, usize, &'a Arc<dyn Filesystem>)>,
    limits: &'a Limits,
    /// What could not be read on the way.
    pub(crate) findings: RefCell<Vec<Finding>>,
}

impl<'a> Mounts<'a> {
    /// The root alone.
    pub(crate) fn root(
        volume: usize,
        filesystem: &'a Arc<dyn Filesystem>,
        limits: &'a Limits,
    ) -> Self {
        Self {
            points: vec![(String::new(), volume, filesystem)],
            limits,
            findings: RefCell::default(),
        }
    }

    /// Adds what `fstab` mounts.
    pub(crate) fn add(&mut self, fstab: &[Sourced<FstabEntry>], volumes: &'a Volumes) {
        for entry in fstab {
            let mount = entry.value.mount.trim_end_matches('/');
            if !mount.starts_with('/') {
                continue;
            }
            let Some(index) = volumes.by_device(&entry.value.device) else {
                continue;
            };
            let Some(Some(filesystem)) = volumes.opened.get(index) else {
                continue;
            };
            self.points.push((mount.to_owned(), index, filesystem));
        }
        self.points
            .sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
    }

    /// Volume and path in it of a guest path.
    pub(crate) fn resolve(&self, path: &str) -> Option<(usize, &'a Arc<dyn Filesystem>, String)> {
        self.points.iter().find_map(|(mount, index, filesystem)| {
            let rest = path.strip_prefix(mount.as_str())?;
            let inside = rest.is_empty() || rest.starts_with('/');
            let rest = if rest.is_empty() { "/" } else { rest };
            inside.then(|| (*index, *filesystem, rest.to_owned()))
        })
    }

    /// Mount points of a volume, with the guest path of its root.
    pub(crate) fn prefix_of(&self, volume: usize) -> Option<&str> {
        self.points
            .iter()
            .find(|(_, index, _)| *index == volume)
            .map(|(mount, _, _)| mount.as_str())
    }

    /// Content of a file; damage is a finding.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let (_, filesystem, inner) = self.resolve(path)?;
        self.noted(path, filesystem.read(&inner, self.limits))
    }

    /// Content as text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Entries of a directory; none when there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Vec<Entry> {
        let Some((_, filesystem, inner)) = self.resolve(path) else {
            return Vec::new();
        };
        self.noted(path, filesystem.list(&inner, self.limits))
            .unwrap_or_default()
    }

    /// The entry a path names, links not followed.
    pub(crate) fn entry(&self, path: &str) -> Option<Entry> {
        let (_, filesystem, inner) = self.resolve(path)?;
        self.noted(path, filesystem.stat(&inner, self.limits))
    }

    /// What a symbolic link says; empty when it cannot be read.
    pub(crate) fn link(&self, path: &str) -> String {
        let Some((_, filesystem, inner)) = self.resolve(path) else {
            return String::new();
        };
        self.noted(path, filesystem.read_link(&inner, self.limits))
            .unwrap_or_default()
    }

    fn noted<T>(&self, path: &str, result: drylab_block::Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            let message = format!("{path}: {error}");
            let finding = Finding {
                code: "FILE-UNREADABLE",
                severity: Severity::Error,
                offset: 0,
                message,
            };
            self.findings.borrow_mut().push(finding);
            None
        })
    }
}
