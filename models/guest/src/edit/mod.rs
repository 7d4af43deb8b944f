//! Changing a guest from outside while it is switched off: files by the paths the guest knows, the registry, the
//! initramfs. Converters and scenarios use this one door.
//!
//! A change is made where the file stands when it fits there; otherwise the file travels beside the disk, and
//! [`Applied`] says which.

mod initramfs;

pub use initramfs::rewrite as rewrite_initramfs;

use crate::inspect::GuestDisk;
use drylab_block::{Delta, Error, Limits, Overlay, ReadAt, Result, WriteAt};
use drylab_filesystem::edit::{Applied, Change, apply};
use drylab_filesystem::{FileOverlay, Filesystem, Layered};
use drylab_hive::HiveEditor;
use drylab_volume::{Layout, Volume, WindowMut};
use std::sync::Arc;

/// A guest's disk, open for changes; the disk it came from stays as it is.
pub struct Editor {
    disk: Arc<Overlay>,
    files: FileOverlay,
    layout: Layout,
    limits: Limits,
}

impl Editor {
    /// Opens a disk.
    ///
    /// # Errors
    /// When its partition table or logical volumes cannot be read.
    pub fn open(disk: &GuestDisk, limits: &Limits) -> Result<Self> {
        let overlay = Arc::new(Overlay::with_delta(disk.bytes.clone(), &Delta::default()));
        let source: Arc<dyn ReadAt> = overlay.clone();
        let layout = drylab_volume::scan(source, limits)?;
        Ok(Self {
            disk: overlay,
            files: disk.files.clone(),
            layout,
            limits: *limits,
        })
    }

    /// The changed disk.
    #[must_use]
    pub fn finish(self) -> GuestDisk {
        GuestDisk {
            bytes: self.disk,
            files: self.files,
        }
    }

    fn filesystem(&self, volume: &Volume) -> Result<Option<Layered>> {
        let opened = drylab_filesystem::open(volume.source.clone(), &self.limits)?;
        Ok(opened.map(|filesystem| {
            Layered::new(
                Arc::from(filesystem),
                self.files.view(&volume.name.to_string()),
            )
        }))
    }

    /// The volume that holds a path of the guest, and the path on it: the root's, or below `/boot` a volume of its own.
    fn place<'p>(&self, path: &'p str) -> Result<Option<(usize, &'p str)>> {
        let below_boot = path
            .strip_prefix("/boot")
            .filter(|rest| rest.starts_with('/'));
        for wanted in std::iter::once(path).chain(below_boot) {
            for (index, volume) in self.layout.volumes.iter().enumerate() {
                let Some(filesystem) = self.filesystem(volume)? else {
                    continue;
                };
                if filesystem
                    .read(wanted, &self.limits)
                    .is_ok_and(|file| file.is_some())
                {
                    return Ok(Some((index, wanted)));
                }
            }
        }
        Ok(None)
    }

    /// The volume with the guest's root: where `/etc` or `/Windows` is.
    fn root(&self) -> Result<usize> {
        for (index, volume) in self.layout.volumes.iter().enumerate() {
            let Some(filesystem) = self.filesystem(volume)? else {
                continue;
            };
            let has = |path: &str| {
                filesystem
                    .list(path, &self.limits)
                    .is_ok_and(|entries| entries.is_some())
            };
            if has("/etc") || has("/Windows") {
                return Ok(index);
            }
        }
        Err(Error::unsupported(
            "no volume has /etc or /Windows, so there is no guest to change",
        ))
    }

    /// Content of a file; `None` when there is none.
    ///
    /// # Errors
    /// When the volumes cannot be read.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some((volume, path)) = self.place(path)? else {
            return Ok(None);
        };
        let volume = self
            .layout
            .volumes
            .get(volume)
            .ok_or_else(|| Error::io("volume vanished"))?;
        match self.filesystem(volume)? {
            Some(filesystem) => filesystem.read(path, &self.limits),
            None => Ok(None),
        }
    }

    /// Changes a file; a new one is made on the root's volume.
    ///
    /// # Errors
    /// When the volume cannot be read, or must not be written.
    pub fn change(&mut self, path: &str, change: Change) -> Result<Applied> {
        let (volume, path) = match self.place(path)? {
            Some(place) => place,
            None => (self.root()?, path),
        };
        let volume = self
            .layout
            .volumes
            .get(volume)
            .ok_or_else(|| Error::io("volume vanished"))?;
        let disk: Arc<dyn WriteAt> = self.disk.clone();
        let window: Arc<dyn WriteAt> = Arc::new(WindowMut::new(vec![disk], volume.map.clone()));
        apply(
            &window,
            &volume.name.to_string(),
            path,
            change,
            &mut self.files,
            &self.limits,
        )
    }

    /// Writes a file.
    ///
    /// # Errors
    /// As [`Editor::change`].
    pub fn write(&mut self, path: &str, bytes: Vec<u8>) -> Result<Applied> {
        self.change(path, Change::Write(bytes))
    }

    /// Changes a text file that must be there; the text is read and written as UTF-8, wrong bytes replaced.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no such file; as [`Editor::change`].
    pub fn rewrite(&mut self, path: &str, with: impl FnOnce(&str) -> String) -> Result<Applied> {
        let bytes = self.need(path)?;
        self.write(path, with(&String::from_utf8_lossy(&bytes)).into_bytes())
    }

    fn need(&self, path: &str) -> Result<Vec<u8>> {
        self.read(path)?
            .ok_or_else(|| Error::unsupported(format_args!("the guest has no file {path}")))
    }

    /// Changes a registry hive of `System32\config`: `SYSTEM`, `SOFTWARE`.
    ///
    /// # Errors
    /// When there is no such hive, it is damaged, or `with` fails.
    pub fn registry(
        &mut self,
        hive: &str,
        with: impl FnOnce(&mut HiveEditor) -> Result<()>,
    ) -> Result<Applied> {
        let path = format!("/Windows/System32/config/{hive}");
        let mut editor = HiveEditor::open(self.need(&path)?, &self.limits)?;
        with(&mut editor)?;
        self.write(&path, editor.finish()?)
    }

    /// Removes kernel modules from an initramfs by their names.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn remove_modules(&mut self, path: &str, modules: &[&str]) -> Result<Applied> {
        let bytes = self.need(path)?;
        let rewritten = rewrite_initramfs(&bytes, &self.limits, modules)?;
        self.write(path, rewritten)
    }

    /// Overwrites bytes of the disk itself.
    ///
    /// # Errors
    /// When the range ends past the disk.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.disk.write_at(offset, bytes)
    }
}
