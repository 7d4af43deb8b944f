//! Directories: a B-tree of file names, its root in the record, its other nodes in index blocks.
//!
//! ```text
//! $INDEX_ROOT        0x00 kind, 0x08 block size, 0x10 node
//! index block        0x00 "INDX", 0x10 own number, 0x18 node; protected by an update sequence
//! node               0x00 first entry, 0x04 end of entries, both from the node
//! entry              0x00 file reference, 0x08 length, 0x0A key length, 0x0C flags (1 child, 2 last),
//!                    0x10 key = $FILE_NAME; number of the child block in the last 8 bytes
//! ```

use super::Ntfs;
use super::attribute::{self, Form, units};
use super::file::{Inode, Stream};
use super::record::{self, RECORD_MASK};
use super::runlist::Run;
use drylab_block::{Error, Limits, Result, le_u16, le_u32, le_u64};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

/// Name of the directory index: `$I30`.
const I30: [u16; 4] = [0x24, 0x49, 0x33, 0x30];
/// Most levels of a directory tree; real ones have 4.
const DEPTH_MAX: u32 = 32;

/// A $FILE_NAME: key of an index entry, and attribute of the file.
#[derive(Clone, Debug)]
pub(crate) struct FileName {
    pub(crate) parent: u64,
    pub(crate) size: u64,
    pub(crate) flags: u32,
    pub(crate) reparse_tag: u32,
    /// 0 POSIX, 1 Win32, 2 DOS, 3 Win32 and DOS.
    pub(crate) namespace: u8,
    pub(crate) name: Vec<u16>,
}

impl FileName {
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let length = usize::from(*key.get(0x40)?).checked_mul(2)?;
        Some(Self {
            parent: le_u64(key, 0)?,
            size: le_u64(key, 0x30)?,
            flags: le_u32(key, 0x38)?,
            reparse_tag: le_u32(key, 0x3C)?,
            namespace: *key.get(0x41)?,
            name: units(drylab_block::slice_at(key, 0x42, length)?),
        })
    }
}

/// One entry of a node; ranges count from the node.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) reference: u64,
    pub(crate) key: Range<usize>,
    /// Absent in the last entry of a node.
    pub(crate) name: Option<FileName>,
    child: Option<u64>,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the record with this number, this far in.
    Root { record: u64, at: usize },
    /// In the index block with this number.
    Block(u64),
}

/// The index of a directory.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    directory: u64,
    root: Vec<u8>,
    root_place: Place,
    block: u64,
    pub(crate) runs: Vec<Run>,
    allocated: u64,
}

/// Start of the node in an index block.
pub(crate) const NODE_IN_BLOCK: usize = 0x18;
/// Start of the node in $INDEX_ROOT.
const NODE_IN_ROOT: usize = 0x10;

impl Ntfs {
    /// The index of a directory; `None` when the file is none.
    pub(crate) fn index(&self, inode: &Inode) -> Result<Option<Index>> {
        let number = inode.number;
        let root = inode
            .attributes(attribute::INDEX_ROOT, &I30)
            .find_map(|(part, attribute)| match &attribute.form {
                Form::Resident(range) => Some((part, range.clone())),
                Form::Clusters(_) => None,
            });
        let Some((part, range)) = root.filter(|_| inode.is_directory()) else {
            return Ok(None);
        };
        let bytes = part.bytes.get(range.clone()).unwrap_or_default();
        let block = le_u32(bytes, 8).unwrap_or(0);
        if !block.is_power_of_two() || !(512..=64 << 10).contains(&block) {
            return Err(Error::corrupt(format_args!(
                "directory record {number}: index blocks of {block} bytes"
            )));
        }
        let (runs, allocated) = match inode.stream(attribute::INDEX_ALLOCATION, &I30)? {
            Some(Stream::Clusters(mapped)) => (mapped.runs, mapped.data_size),
            Some(Stream::Resident(_)) => {
                return Err(Error::corrupt(format_args!(
                    "directory record {number}: index blocks inside the record"
                )));
            }
            None => (Vec::new(), 0),
        };
        let root = bytes.get(NODE_IN_ROOT..).unwrap_or_default().to_vec();
        let root_place = Place::Root {
            record: part.number,
            at: range.start.saturating_add(NODE_IN_ROOT),
        };
        Ok(Some(Index {
            directory: number,
            root,
            root_place,
            block: u64::from(block),
            runs,
            allocated,
        }))
    }

    /// Where an index block is in the stream of blocks.
    pub(crate) fn block_offset(&self, index: &Index, vcn: u64) -> Result<u64> {
        // Blocks smaller than a cluster are counted in sectors of 512 bytes.
        let unit = if self.boot.cluster <= index.block {
            self.boot.cluster
        } else {
            512
        };
        let offset = vcn
            .checked_mul(unit)
            .filter(|offset| offset.is_multiple_of(index.block));
        let inside = |offset: &u64| {
            offset
                .checked_add(index.block)
                .is_some_and(|end| end <= index.allocated)
        };
        offset.filter(inside).ok_or_else(|| {
            let (directory, allocated) = (index.directory, index.allocated);
            Error::corrupt(format_args!(
                "directory record {directory}: no index block {vcn} in {allocated} bytes of them"
            ))
        })
    }

    /// Reads an index block, update sequence put back.
    pub(crate) fn index_block(&self, index: &Index, vcn: u64) -> Result<Vec<u8>> {
        let place = format!("index block {vcn} of directory record {}", index.directory);
        let offset = self.block_offset(index, vcn)?;
        let mut bytes = vec![0; usize::try_from(index.block).map_err(Error::io)?];
        self.read_runs(&index.runs, offset, &mut bytes)
            .map_err(|error| error.within(&place))?;
        record::unprotect(&mut bytes, b"INDX", &place)?;
        if le_u64(&bytes, 0x10) != Some(vcn) {
            return Err(Error::corrupt(format_args!(
                "{place} says that it is another"
            )));
        }
        Ok(bytes)
    }

    fn node(&self, index: &Index, place: Place) -> Result<Vec<Entry>> {
        match place {
            Place::Root { .. } => entries(&index.root),
            Place::Block(vcn) => entries(
                self.index_block(index, vcn)?
                    .get(NODE_IN_BLOCK..)
                    .unwrap_or_default(),
            ),
        }
        .map_err(|error| {
            error.within(format_args!(
                "directory record {}, {place:?}",
                index.directory
            ))
        })
    }

    /// All entries, unsorted; each block is entered once.
    pub(crate) fn all_entries(&self, index: &Index, limits: &Limits) -> Result<Vec<Entry>> {
        let most = usize::try_from(limits.entries_max).unwrap_or(usize::MAX);
        let mut waiting = vec![index.root_place];
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        while let Some(place) = waiting.pop() {
            if !seen.insert(place) {
                return Err(Error::corrupt(format_args!(
                    "directory record {}: {place:?} is reached twice",
                    index.directory
                )));
            }
            for entry in self.node(index, place)? {
                waiting.extend(entry.child.map(Place::Block));
                if entry.name.is_some() {
                    found.push(entry);
                }
            }
            if found.len() > most {
                return Err(Error::unsupported(format_args!(
                    "directory record {} has more than {most} entries",
                    index.directory
                )));
            }
        }
        Ok(found)
    }

    /// The entry with a name, compared without case, and the node it is in.
    pub(crate) fn lookup(&self, index: &Index, name: &[u16]) -> Result<Option<(Place, Entry)>> {
        let mut place = index.root_place;
        for _ in 0..DEPTH_MAX {
            let mut next = None;
            for entry in self.node(index, place)? {
                let order = entry
                    .name
                    .as_ref()
                    .map_or(Ordering::Less, |key| self.upcase.compare(name, &key.name));
                match order {
                    Ordering::Greater => {}
                    Ordering::Equal => return Ok(Some((place, entry))),
                    Ordering::Less => {
                        next = entry.child;
                        break;
                    }
                }
            }
            match next {
                Some(vcn) => place = Place::Block(vcn),
                None => return Ok(None),
            }
        }
        Err(Error::corrupt(format_args!(
            "directory record {}: index deeper than {DEPTH_MAX} levels",
            index.directory
        )))
    }
}

/// Entries of a node.
fn entries(node: &[u8]) -> Result<Vec<Entry>> {
    let field = |at| le_u32(node, at).and_then(|value| usize::try_from(value).ok());
    let (Some(first), Some(end)) = (field(0), field(4)) else {
        return Err(Error::corrupt("node without header"));
    };
    if end > node.len() || first < 0x10 {
        return Err(Error::corrupt(format_args!(
            "entries from {first} to {end} in a node of {} bytes",
            node.len()
        )));
    }
    let mut found = Vec::new();
    let mut at = first;
    loop {
        let bytes = node.get(at..end).unwrap_or_default();
        let (entry, length, last) = entry(bytes, at)
            .ok_or_else(|| Error::corrupt(format_args!("no sound entry at {at} of {end}")))?;
        found.push(entry);
        if last {
            return Ok(found);
        }
        at = at.saturating_add(length);
    }
}

fn entry(bytes: &[u8], at: usize) -> Option<(Entry, usize, bool)> {
    let length = usize::from(le_u16(bytes, 8)?);
    let key_length = usize::from(le_u16(bytes, 0x0A)?);
    let flags = le_u16(bytes, 0x0C)?;
    let whole = bytes
        .get(..length)
        .filter(|_| length >= 0x10 && length.is_multiple_of(8))?;
    let last = flags & 2 != 0;
    let child = if flags & 1 != 0 {
        Some(le_u64(whole, length.checked_sub(8)?)?)
    } else {
        None
    };
    let name = if last {
        None
    } else {
        Some(FileName::parse(drylab_block::slice_at(
            whole, 0x10, key_length,
        )?)?)
    };
    let key = at.checked_add(0x10)?..at.checked_add(0x10)?.checked_add(key_length)?;
    let reference = le_u64(whole, 0)?;
    Some((
        Entry {
            reference,
            key,
            name,
            child,
        },
        length,
        last,
    ))
}

impl Entry {
    /// Number of the record.
    pub(crate) fn number(&self) -> u64 {
        self.reference & RECORD_MASK
    }
}
