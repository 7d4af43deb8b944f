//! NTFS, read-only, with plans for rewriting files where they stand.
//!
//! Source: Richard Russon and Yuval Fledel, "NTFS Documentation" (Linux-NTFS project); [MS-XCA] for LZNT1;
//! [MS-FSCC] for reparse points. Compared with ntfs-3g's tools and the crate `ntfs`.
//!
//! ```text
//! boot sector ── first cluster of $MFT ── record 0 ($MFT itself) ── runs of the whole table
//! file record (1024 bytes): "FILE", update sequence, attributes
//!   $ATTRIBUTE_LIST  further records of the same file
//!   $FILE_NAME       parent, name (also the key of the directory's entry)
//!   $DATA            content: in the record, or in runs of clusters, plain, sparse or compressed (LZNT1)
//!   $INDEX_ROOT, $INDEX_ALLOCATION   entries of a directory, a B-tree sorted without case
//! ```
//!
//! What it does not do: replay $LogFile ([`Ntfs::is_dirty`]), decrypt, read files with system compression (WOF) or
//! named streams.

mod attribute;
mod boot;
mod file;
pub mod fuzz;
mod index;
mod lznt1;
mod path;
mod plan;
mod record;
mod runlist;
mod upcase;

pub use plan::Patch;

use crate::{Entry, FileType, Filesystem, Kind};
use boot::Boot;
use drylab_block::{Error, Limits, ReadAt, Result, le_u16};
use file::{Inode, Mapped, Stream};
use std::sync::Arc;
use upcase::Upcase;

/// Record of the root directory.
const ROOT: u64 = 5;
/// Record of $Volume.
const VOLUME: u64 = 3;
/// Record of $UpCase.
const UPCASE: u64 = 10;
/// Records below this one are the filesystem's own files.
const OWN_FILES: u64 = 16;

/// An NTFS volume, opened.
pub struct Ntfs {
    source: Arc<dyn ReadAt>,
    boot: Boot,
    mft: Mapped,
    upcase: Upcase,
    label: String,
    version: (u8, u8),
    flags: u16,
}

impl std::fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ntfs")
            .field("boot", &self.boot)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Ntfs {
    /// Opens a volume: boot sector, table, $Volume, $UpCase.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one of these is damaged; a damaged $UpCase is replaced by Unicode's rules.
    pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let boot = Boot::read(&*source)?;
        let mut ntfs = Self {
            source,
            boot,
            mft: Mapped::default(),
            upcase: Upcase::built_in(),
            label: String::new(),
            version: (0, 0),
            flags: 0,
        };
        ntfs.open_table(limits)?;
        ntfs.open_volume()?;
        let table = ntfs
            .inode(UPCASE)
            .and_then(|inode| ntfs.data(&inode, "$UpCase", limits));
        if let Ok(Some(table)) = table {
            ntfs.upcase = Upcase::from_table(&table);
        }
        Ok(ntfs)
    }

    /// Reads record 0 where the boot sector says, and makes the runs of the table whole.
    fn open_table(&mut self, limits: &Limits) -> Result<()> {
        let offset = self.boot.mft_lcn.saturating_mul(self.boot.cluster);
        let length = u64::try_from(self.boot.record).map_err(Error::io)?;
        let bytes = drylab_block::read_vec(&*self.source, "file record 0", offset, length, limits)?;
        let part = self.parse_part(0, bytes)?;
        let mut inode = Inode {
            number: 0,
            parts: vec![part],
        };
        // A fragmented table describes itself: the runs known so far reach the records with the next ones.
        for _ in 0..limits.chain_max {
            let whole = match inode.stream(attribute::DATA, &[])? {
                Some(Stream::Clusters(mapped)) => mapped,
                _ => {
                    return Err(Error::corrupt(
                        "file record 0 has no data in clusters: there is no table",
                    ));
                }
            };
            let grown = whole.runs.len() > self.mft.runs.len();
            self.mft = whole;
            let parts = inode.parts.len();
            if !grown
                || inode
                    .attributes(attribute::ATTRIBUTE_LIST, &[])
                    .next()
                    .is_none()
            {
                return Ok(());
            }
            inode = self.extended(Inode {
                number: 0,
                parts: inode.parts.into_iter().take(1).collect(),
            })?;
            if inode.parts.len() == parts {
                return Ok(());
            }
        }
        Err(Error::corrupt(format_args!(
            "$MFT is described in more than {} steps",
            limits.chain_max
        )))
    }

    fn open_volume(&mut self) -> Result<()> {
        let volume = self.inode(VOLUME)?;
        let name = volume.resident(attribute::VOLUME_NAME).unwrap_or_default();
        self.label = String::from_utf16_lossy(&attribute::units(name));
        let information = volume
            .resident(attribute::VOLUME_INFORMATION)
            .unwrap_or_default();
        self.version = (
            information.get(8).copied().unwrap_or(0),
            information.get(9).copied().unwrap_or(0),
        );
        self.flags = le_u16(information, 0x0A).unwrap_or(0);
        Ok(())
    }

    /// Version of the volume, 3.1 since Windows XP.
    #[must_use]
    pub fn version(&self) -> (u8, u8) {
        self.version
    }

    /// Whether Windows wants the volume checked (flag 1 of $Volume): it was not unmounted cleanly.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether Windows sleeps on this volume: a `hiberfil.sys` in the root whose header says so. Converters refuse
    /// such a volume (quirk GQ62), and what is read from it may be older than what Windows holds in memory.
    ///
    /// # Errors
    /// When the root directory or the file is damaged.
    pub fn is_hibernated(&self) -> Result<bool> {
        let Some(inode) = self.resolve(HIBERFIL)? else {
            return Ok(false);
        };
        let mut head = [0u8; 4];
        match inode.stream(attribute::DATA, &[])? {
            Some(Stream::Clusters(mapped)) if mapped.initialized >= 4 && mapped.data_size >= 4 => {
                self.read_runs(&mapped.runs, 0, &mut head)?;
            }
            Some(Stream::Resident(bytes)) => {
                head = drylab_block::array_at(&bytes, 0).unwrap_or_default()
            }
            _ => {}
        }
        Ok(says_hibernated(&head))
    }

    /// Bytes per cluster.
    #[must_use]
    pub fn cluster_bytes(&self) -> u64 {
        self.boot.cluster
    }
}

/// Where Windows keeps its memory while it sleeps.
pub(crate) const HIBERFIL: &str = "/hiberfil.sys";

/// Whether a `hiberfil.sys` with these first bytes holds a sleeping Windows: it does from `hibr` (or `HIBR`) on; zeros
/// or `wake` are left when it woke up.
pub(crate) fn says_hibernated(head: &[u8]) -> bool {
    head.get(..4)
        .is_some_and(|magic| magic.eq_ignore_ascii_case(b"hibr"))
}

/// Directories and files with their record numbers below 16 ($MFT, $LogFile, …) are not listed; they can be read.
/// The sizes listed are those of the directory's entries: Windows brings them up to date for one of the hard links.
impl Filesystem for Ntfs {
    fn kind(&self) -> Kind {
        Kind::Ntfs
    }

    fn uuid(&self) -> String {
        format!("{:016X}", self.boot.serial)
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn is_hibernated(&self, _limits: &Limits) -> Result<bool> {
        Self::is_hibernated(self)
    }

    fn list(&self, path: &str, limits: &Limits) -> Result<Option<Vec<Entry>>> {
        let within = |error: Error| error.within(path);
        let Some(inode) = self.resolve(path).map_err(within)? else {
            return Ok(None);
        };
        let Some(index) = self.index(&inode).map_err(within)? else {
            return Ok(None);
        };
        let entries = self.all_entries(&index, limits).map_err(within)?;
        let named = entries
            .into_iter()
            .filter(|entry| entry.number() >= OWN_FILES);
        // A name of the DOS kind is a second one for a file that has a long name too.
        let named = named.filter_map(|entry| entry.name.filter(|name| name.namespace != 2));
        let mut listed: Vec<Entry> = named.map(listed).collect();
        listed.sort();
        Ok(Some(listed))
    }

    fn read(&self, path: &str, limits: &Limits) -> Result<Option<Vec<u8>>> {
        let within = |error: Error| error.within(path);
        let Some(inode) = self.resolve(path).map_err(within)? else {
            return Ok(None);
        };
        self.data(&inode, path, limits)
    }
}

fn listed(name: index::FileName) -> Entry {
    let link = name.flags & 0x400 != 0 && path::is_link(name.reparse_tag);
    let file_type = match name.flags & 0x1000_0000 != 0 {
        _ if link => FileType::Symlink,
        true => FileType::Directory,
        false => FileType::File,
    };
    let size = if file_type == FileType::File {
        name.size
    } else {
        0
    };
    Entry {
        name: String::from_utf16_lossy(&name.name),
        file_type,
        size,
    }
}
