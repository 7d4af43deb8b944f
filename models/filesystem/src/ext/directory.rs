//! Directories and paths.

use super::View;
use super::inode::Inode;
use crate::Last;
use drylab_block::{Error, Result, le_u16, le_u32, slice_at};
use std::collections::VecDeque;

const ROOT: u32 = 2;
/// As Linux: a path goes through at most 40 symbolic links.
const LINKS_MAX: u32 = 40;
const COMPONENTS_MAX: u32 = 4096;

/// A name in a directory.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) inode: u32,
}

/// Where a path leads.
pub(super) struct Destination {
    /// The path without links, dots and double slashes, as far as it exists; the rest as written.
    pub(super) path: String,
    /// What stands there.
    pub(super) inode: Option<Inode>,
}

impl View<'_> {
    /// Entries but `.` and `..`, in the order of the blocks. Blocks of a hash tree look like empty entries here.
    pub(super) fn entries(&self, directory: &Inode) -> Result<Vec<Found>> {
        let content = self.content(directory)?;
        let block_size = usize::try_from(self.sb.block_size).map_err(Error::io)?;
        let mut found = Vec::new();
        for (index, block) in content.chunks(block_size).enumerate() {
            let wrong = |at: usize, what: &str| {
                Error::corrupt(format_args!(
                    "directory inode {}, block {index}, byte {at}: {what}",
                    directory.number
                ))
            };
            let mut at = 0usize;
            // A hole in a directory reads as zeros and holds nothing.
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            while at < block.len() {
                let (Some(inode), Some(raw)) =
                    (le_u32(block, at), le_u16(block, at.saturating_add(4)))
                else {
                    return Err(wrong(at, "an entry is cut off"));
                };
                let length = match usize::from(raw) {
                    0 | 65535 if block_size >= 65536 => block_size,
                    length => length,
                };
                let end = at
                    .checked_add(length)
                    .filter(|end| length >= 8 && *end <= block.len());
                let end = end.ok_or_else(|| wrong(at, "its record length leaves the block"))?;
                let name_length = block
                    .get(at.saturating_add(6))
                    .copied()
                    .map_or(0, usize::from);
                if inode != 0 && name_length > 0 {
                    let name = slice_at(block, at.saturating_add(8), name_length)
                        .filter(|_| name_length.saturating_add(8) <= length);
                    let name = name.ok_or_else(|| wrong(at, "its name leaves its record"))?;
                    if !matches!(name, b"." | b"..") {
                        found.push(Found {
                            name: String::from_utf8_lossy(name).into_owned(),
                            inode,
                        });
                    }
                    if u32::try_from(found.len()).unwrap_or(u32::MAX) > self.limits.entries_max {
                        return Err(wrong(at, "there are more entries than allowed"));
                    }
                }
                at = end;
            }
        }
        Ok(found)
    }

    /// What a symbolic link says.
    pub(super) fn target(&self, link: &Inode) -> Result<String> {
        if link.size > 4096 {
            return Err(Error::corrupt(format_args!(
                "symbolic link inode {} has {} bytes (at most 4096)",
                link.number, link.size
            )));
        }
        let length = usize::try_from(link.size).unwrap_or(0);
        let bytes = match link.root.get(..length) {
            // Short links stand in the inode.
            Some(inside) if length < 60 => inside.to_vec(),
            _ => self.content(link)?,
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Walks a path from the root.
    pub(super) fn find(&self, path: &str, last: Last) -> Result<Destination> {
        let mut names: Vec<String> = Vec::new();
        let mut inodes = vec![self.inode(ROOT)?];
        let mut todo: VecDeque<String> = split(path).collect();
        let (mut links, mut steps) = (0u32, 0u32);
        while let Some(name) = todo.pop_front() {
            steps = steps.saturating_add(1);
            if steps > COMPONENTS_MAX {
                return Err(Error::corrupt(format_args!(
                    "{path} has more than {COMPONENTS_MAX} parts"
                )));
            }
            if name == ".." {
                names.pop();
                if inodes.len() > 1 {
                    inodes.pop();
                }
                continue;
            }
            let here = inodes.last().filter(|inode| inode.is_directory());
            let child = match here {
                Some(directory) => self
                    .entries(directory)?
                    .into_iter()
                    .find(|entry| entry.name == name),
                None => None,
            };
            let Some(child) = child else {
                names.push(name);
                names.extend(todo);
                return Ok(Destination {
                    path: joined(&names),
                    inode: None,
                });
            };
            let inode = self.inode(child.inode)?;
            if inode.is_symlink() && (last == Last::Follow || !todo.is_empty()) {
                links = links.saturating_add(1);
                if links > LINKS_MAX {
                    return Err(Error::corrupt(format_args!(
                        "{path} leads through more than {LINKS_MAX} symbolic links"
                    )));
                }
                let target = self.target(&inode)?;
                if target.starts_with('/') {
                    names.clear();
                    inodes.truncate(1);
                }
                for part in split(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part);
                }
                continue;
            }
            names.push(name);
            inodes.push(inode);
        }
        Ok(Destination {
            path: joined(&names),
            inode: inodes.pop(),
        })
    }
}

fn split(path: &str) -> impl Iterator<Item = String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
}

fn joined(names: &[String]) -> String {
    format!("/{}", names.join("/"))
}
