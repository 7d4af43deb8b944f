//! ext2, ext3 and ext4.
//!
//! Source: Linux documentation "ext4 Data Structures and Algorithms"; field names in comments are the kernel's. All
//! integers are little-endian (the journal's are big-endian).
//!
//! ```text
//! 1024           superblock (1024 bytes): sizes, features, UUID, label
//! next block     group descriptors (32 or 64 bytes): where each group's inode table stands
//! inode tables   inodes (128 bytes or more): mode, size, flags, 60 bytes of i_block =
//!                  extent tree root (ext4), or 12 direct + 3 indirect block numbers (ext2, ext3), or a short link
//! directories    files of entries: inode u32, record length u16, name length u8, type u8, name
//! ```
//!
//! Our own reader and not `ext4-view`, which takes holes of block-mapped files for corruption, cannot be shared by
//! threads and does not tell where an inode stands, which editing in place needs; it serves the tests as an oracle.
//!
//! What it does not do: files whose data stands inside the inode beyond 60 bytes, encrypted and compressed files,
//! checksums of what it reads (a checker's business).

mod checksum;
mod directory;
mod edit;
mod inode;
mod journal;
mod superblock;

pub(crate) use edit::write_in_place;

use crate::{Entry, FileType, Filesystem, Kind, Last};
use drylab_block::{Error, Finding, Limits, ReadAt, Result, Severity, read_vec};
use inode::Inode;
use journal::Replay;
use std::sync::Arc;
use superblock::Superblock;

/// An ext2, ext3 or ext4 filesystem.
pub struct Ext {
    source: Arc<dyn ReadAt>,
    sb: Superblock,
    replay: Replay,
    findings: Vec<Finding>,
}

impl std::fmt::Debug for Ext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Ext({}, {} blocks of {} bytes)",
            self.sb.uuid_text(),
            self.sb.blocks,
            self.sb.block_size
        )
    }
}

/// 16 bytes as a lower-case dashed UUID.
pub(crate) fn dashed(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Whether the volume has an ext superblock.
pub(crate) fn is_there(source: &dyn ReadAt) -> Result<bool> {
    superblock::is_there(source)
}

/// Sets magic and checksum of the superblock in an image.
pub(crate) fn mend(image: &mut [u8]) {
    superblock::mend(image);
}

impl Ext {
    /// Opens the filesystem. A volume that was not unmounted is read as its journal would leave it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unsupported`] when the superblock or the journal says so.
    pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let sb = Superblock::read(source.as_ref())?;
        let replay = read_replay(source.as_ref(), &sb, limits)?;
        let mut findings = Vec::new();
        if !replay.is_empty() {
            findings.push(Finding {
                code: "EXT-JOURNAL-NOT-EMPTY",
                severity: Severity::Note,
                offset: 1024,
                message: format!(
                    "{} blocks have their newest content in the journal: not unmounted",
                    replay.len()
                ),
            });
        }
        if sb.bytes() > source.len() {
            findings.push(Finding {
                code: "EXT-BIGGER-THAN-VOLUME",
                severity: Severity::Error,
                offset: 1024,
                message: format!(
                    "the filesystem has {} bytes and its volume {}",
                    sb.bytes(),
                    source.len()
                ),
            });
        }
        Ok(Self {
            source,
            sb,
            replay,
            findings,
        })
    }

    fn view<'a>(&'a self, limits: &'a Limits) -> View<'a> {
        View {
            source: self.source.as_ref(),
            sb: &self.sb,
            replay: Some(&self.replay),
            limits,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.sb.block_size
    }
}

fn read_replay(source: &dyn ReadAt, sb: &Superblock, limits: &Limits) -> Result<Replay> {
    if sb.needs_recovery() && sb.journal_inode != 0 {
        return Replay::read(&View {
            source,
            sb,
            replay: None,
            limits,
        })
        .map_err(|error| error.within("journal"));
    }
    Ok(Replay::default())
}

impl Filesystem for Ext {
    fn kind(&self) -> Kind {
        Kind::Ext
    }

    fn uuid(&self) -> String {
        self.sb.uuid_text()
    }

    fn label(&self) -> String {
        self.sb.label.clone()
    }

    fn list(&self, path: &str, limits: &Limits) -> Result<Option<Vec<Entry>>> {
        let view = self.view(limits);
        let Some(directory) = view
            .find(path, Last::Follow)?
            .inode
            .filter(Inode::is_directory)
        else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for found in view.entries(&directory)? {
            let inode = view.inode(found.inode)?;
            let size = if inode.is_file() { inode.size } else { 0 };
            entries.push(Entry {
                name: found.name,
                file_type: file_type(&inode),
                size,
            });
        }
        entries.sort();
        Ok(Some(entries))
    }

    fn read(&self, path: &str, limits: &Limits) -> Result<Option<Vec<u8>>> {
        let view = self.view(limits);
        let Some(file) = view.find(path, Last::Follow)?.inode.filter(Inode::is_file) else {
            return Ok(None);
        };
        view.content(&file)
            .map(Some)
            .map_err(|error| error.within(path))
    }

    fn read_link(&self, path: &str, limits: &Limits) -> Result<Option<String>> {
        let view = self.view(limits);
        let link = view.find(path, Last::Keep)?.inode.filter(Inode::is_symlink);
        link.map(|inode| view.target(&inode)).transpose()
    }

    fn stat(&self, path: &str, limits: &Limits) -> Result<Option<Entry>> {
        let found = self.view(limits).find(path, Last::Keep)?;
        let name = found.path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(found.inode.map(|inode| {
            let size = if inode.is_file() { inode.size } else { 0 };
            Entry {
                name,
                file_type: file_type(&inode),
                size,
            }
        }))
    }

    fn resolve(&self, path: &str, last: Last, limits: &Limits) -> Result<String> {
        Ok(self.view(limits).find(path, last)?.path)
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }
}

fn file_type(inode: &Inode) -> FileType {
    match inode.mode >> 12 {
        8 => FileType::File,
        4 => FileType::Directory,
        10 => FileType::Symlink,
        _ => FileType::Special,
    }
}

/// The volume with what is needed to read it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    source: &'a dyn ReadAt,
    sb: &'a Superblock,
    replay: Option<&'a Replay>,
    limits: &'a Limits,
}

impl View<'_> {
    /// `length` bytes at byte `at`, which must not cross a block's end when there is something to replay.
    fn bytes(&self, place: &str, at: u64, length: u64) -> Result<Vec<u8>> {
        if at
            .checked_add(length)
            .is_none_or(|end| end > self.source.len())
        {
            return Err(Error::corrupt(format_args!(
                "{place} of {length} bytes at byte {at} ends past the end of the volume ({})",
                self.source.len()
            )));
        }
        if self.replay.is_none_or(Replay::is_empty) {
            return read_vec(self.source, place, at, length, self.limits);
        }
        self.limits.check_table(place, length)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(Error::io)?];
        self.fill(at, &mut bytes)?;
        Ok(bytes)
    }

    fn block(&self, block: u64) -> Result<Vec<u8>> {
        let size = u64::from(self.sb.block_size);
        let at = block.checked_mul(size).filter(|_| block != 0);
        let at = at.ok_or_else(|| Error::corrupt(format_args!("block {block} cannot be there")))?;
        self.bytes("block", at, size)
    }

    /// Fills `buffer` from byte `at`, taking blocks from the journal where it has newer ones.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(replay) = self.replay.filter(|replay| !replay.is_empty()) else {
            return self.source.read_at(at, buffer);
        };
        let size = u64::from(self.sb.block_size);
        let mut done = 0usize;
        while done < buffer.len() {
            let here = at.saturating_add(u64::try_from(done).map_err(Error::io)?);
            let (block, within) = (
                here.checked_div(size).unwrap_or(0),
                here.checked_rem(size).unwrap_or(0),
            );
            let room = usize::try_from(size.saturating_sub(within)).unwrap_or(usize::MAX);
            let take = room.min(buffer.len().saturating_sub(done));
            let end = done.saturating_add(take);
            let Some(part) = buffer.get_mut(done..end) else {
                break;
            };
            let (place, escaped) = replay.place(block).unwrap_or((block, false));
            self.source
                .read_at(place.saturating_mul(size).saturating_add(within), part)?;
            if escaped {
                // A block that begins with the journal's magic stands there with zeros in its place.
                for (offset, byte) in (within..4).zip(part.iter_mut()) {
                    let magic = [0xc0, 0x3b, 0x39, 0x98];
                    *byte = usize::try_from(offset)
                        .ok()
                        .and_then(|offset| magic.get(offset))
                        .copied()
                        .unwrap_or(*byte);
                }
            }
            done = end;
        }
        Ok(())
    }
}
