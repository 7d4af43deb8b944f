//! From a path to a file, through junctions and symbolic links.

use super::attribute::{self, units};
use super::file::Inode;
use super::{Ntfs, ROOT};
use drylab_block::{Error, Result, le_u16, le_u32, slice_at};

/// Most links on one way, as Windows has it (63) and Linux about (40).
const LINKS_MAX: u32 = 63;
/// Most parts of a path, links taken in.
const PARTS_MAX: usize = 1024;
const TAG_MOUNT_POINT: u32 = 0xA000_0003;
const TAG_SYMLINK: u32 = 0xA000_000C;

/// Whether a reparse tag is a link that paths go through.
pub(crate) fn is_link(tag: u32) -> bool {
    tag == TAG_MOUNT_POINT || tag == TAG_SYMLINK
}

/// Parts of a path, last first; both slashes separate.
fn parts(path: &str) -> Vec<String> {
    let parts = path
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".");
    parts.rev().map(str::to_owned).collect()
}

/// Where a link points.
struct Target {
    absolute: bool,
    parts: Vec<String>,
}

impl Ntfs {
    /// The file at a path, links followed; `None` when there is none, or a link leaves the volume.
    pub(crate) fn resolve(&self, path: &str) -> Result<Option<Inode>> {
        let mut waiting = parts(path);
        let mut way: Vec<Inode> = vec![self.inode(ROOT)?];
        let mut links = 0u32;
        while let Some(part) = waiting.pop() {
            if part == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let Some(directory) = way.last() else {
                return Ok(None);
            };
            let Some(index) = self.index(directory)? else {
                return Ok(None);
            };
            let name: Vec<u16> = part.encode_utf16().collect();
            let Some((_, entry)) = self.lookup(&index, &name)? else {
                return Ok(None);
            };
            let inode = self.inode(entry.reference)?;
            match self.link(&inode)? {
                None => way.push(inode),
                Some(None) => return Ok(None),
                Some(Some(target)) => {
                    links = links.saturating_add(1);
                    if links > LINKS_MAX {
                        return Err(Error::corrupt(format_args!(
                            "{path}: more than {LINKS_MAX} links on the way"
                        )));
                    }
                    if target.absolute {
                        way.truncate(1);
                    }
                    waiting.extend(target.parts);
                }
            }
            if waiting.len().saturating_add(way.len()) > PARTS_MAX {
                return Err(Error::unsupported(format_args!(
                    "{path}: more than {PARTS_MAX} parts on the way"
                )));
            }
        }
        Ok(way.pop())
    }

    /// Tag of a file's reparse point, links included.
    pub(crate) fn reparse_tag(&self, inode: &Inode) -> Result<Option<u32>> {
        Ok(self.reparse(inode)?.and_then(|bytes| le_u32(&bytes, 0)))
    }

    fn reparse(&self, inode: &Inode) -> Result<Option<Vec<u8>>> {
        let Some(stream) = inode.stream(attribute::REPARSE_POINT, &[])? else {
            return Ok(None);
        };
        self.read_stream(
            &stream,
            &format!("reparse point of record {}", inode.number),
            16 << 10,
        )
        .map(Some)
    }

    /// `None`: no link; `Some(None)`: a link that leaves the volume or makes no sense.
    fn link(&self, inode: &Inode) -> Result<Option<Option<Target>>> {
        let Some(bytes) = self.reparse(inode)? else {
            return Ok(None);
        };
        let tag = le_u32(&bytes, 0).unwrap_or(0);
        Ok(is_link(tag).then(|| target(&bytes, tag)))
    }
}

/// Reads the target: `\??\C:\Users`, or relative where a symbolic link says so. The drive is taken to be this volume.
fn target(bytes: &[u8], tag: u32) -> Option<Target> {
    let from = usize::from(le_u16(bytes, 8)?);
    let length = usize::from(le_u16(bytes, 10)?);
    let names = if tag == TAG_SYMLINK { 20usize } else { 16 };
    let text = String::from_utf16_lossy(&units(slice_at(bytes, names.checked_add(from)?, length)?));
    if tag == TAG_SYMLINK && le_u32(bytes, 16)? & 1 != 0 {
        return Some(Target {
            absolute: text.starts_with('\\'),
            parts: parts(&text),
        });
    }
    let path = text.strip_prefix(r"\??\").unwrap_or(&text);
    let (drive, rest) = path.split_at_checked(2)?;
    (drive.ends_with(':') && drive.starts_with(|c: char| c.is_ascii_alphabetic())).then(|| Target {
        absolute: true,
        parts: parts(rest),
    })
}
