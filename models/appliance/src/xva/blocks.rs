//! Where the bytes of each disk stand in the archive.

use super::{CHECKSUM, XXHASH};
use crate::findings::{At, Findings, quote};
use crate::ova::Member;
use drylab_block::{Error, Extent, ExtentKind, Limits, ReadAt, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One block member that has bytes; sorted by `disk`, none overlapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Offset in the disk.
    pub(super) disk: u64,
    /// Offset in the archive.
    pub(super) at: u64,
    /// Bytes.
    pub(super) length: u64,
    /// Offset of the SHA-1 digits in the archive; 0 without.
    pub(super) checksum: u64,
}

/// Bytes of memory for one block of the index.
const BLOCK_MEMORY: u64 = 32;

/// What is known of one disk.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) list: Vec<Block>,
    /// Length of the first block, which is that of the ones left out (quirk HQ134).
    first: Option<u64>,
    /// Name of the last block, of digits.
    last: Option<(String, u64)>,
    /// Where the next block begins in the disk.
    pub(super) end: u64,
}

/// Takes members as they come.
pub(super) struct Indexer<'a> {
    sizes: &'a BTreeMap<String, u64>,
    limits: &'a Limits,
    pub(super) disks: BTreeMap<String, Blocks>,
    current: String,
    /// The block before, when its checksum has not come yet: its digits, and whether it has bytes.
    open: Option<(String, bool)>,
    count: u64,
}

impl<'a> Indexer<'a> {
    pub(super) fn new(sizes: &'a BTreeMap<String, u64>, limits: &'a Limits) -> Self {
        Self {
            sizes,
            limits,
            disks: BTreeMap::new(),
            current: String::new(),
            open: None,
            count: 0,
        }
    }

    pub(super) fn take(&mut self, member: &Member, findings: &mut Findings) -> Result<()> {
        let at = At {
            offset: member.offset,
            line: 0,
        };
        let name = member.name.strip_prefix("./").unwrap_or(&member.name);
        let Some((id, file)) = name
            .split_once('/')
            .filter(|(id, _)| id.starts_with("Ref:"))
        else {
            let name = quote(name);
            findings.warning(
                "XVA-MEMBER-UNKNOWN",
                at,
                format_args!("{name} is no block of a disk"),
            );
            return Ok(());
        };
        if let Some(digits) = file.strip_suffix(CHECKSUM) {
            self.checksum(id, digits, member, findings);
            return Ok(());
        }
        if file.strip_suffix(XXHASH).is_some() {
            self.open = None;
            return Ok(());
        }
        self.without_checksum(at, findings);
        self.block(id, file, member)
    }

    /// Notes a block whose checksum did not follow.
    pub(super) fn without_checksum(&mut self, at: At, findings: &mut Findings) {
        if let Some((digits, _)) = self.open.take() {
            let (id, digits) = (quote(&self.current), quote(&digits));
            let message = format!("block {digits} of {id} is not followed by its checksum");
            findings.warning("XVA-CHECKSUM-MISSING", at, message);
        }
    }

    fn checksum(&mut self, id: &str, digits: &str, member: &Member, findings: &mut Findings) {
        let fits = self.open.as_ref().is_some_and(|(open, _)| open == digits) && self.current == id;
        if !fits || member.truncated || !(40..=64).contains(&member.size) {
            let at = At {
                offset: member.offset,
                line: 0,
            };
            let name = quote(&member.name);
            findings.warning(
                "XVA-CHECKSUM",
                at,
                format_args!("{name} follows no block of its name, or is no SHA-1"),
            );
            return;
        }
        if let Some((_, true)) = self.open.take()
            && let Some(block) = self
                .disks
                .get_mut(id)
                .and_then(|blocks| blocks.list.last_mut())
        {
            block.checksum = member.offset;
        }
    }

    fn block(&mut self, id: &str, digits: &str, member: &Member) -> Result<()> {
        let wrong = |why: String| {
            let (name, at) = (quote(&member.name), member.offset);
            Error::corrupt(format_args!("block {name} at offset {at} {why}"))
        };
        let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u64 = number
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| wrong("has no number".to_owned()))?;
        let size = self
            .sizes
            .get(id)
            .ok_or_else(|| wrong("belongs to no VDI of ova.xml".to_owned()))?;
        if self.current != id {
            if self.disks.contains_key(id) {
                return Err(wrong("comes after blocks of another disk".to_owned()));
            }
            self.current = id.to_owned();
        }
        self.count = self.count.saturating_add(1);
        self.limits.check_table(
            "the index of blocks",
            self.count.saturating_mul(BLOCK_MEMORY),
        )?;
        let blocks = self.disks.entry(id.to_owned()).or_default();
        let first = *blocks.first.get_or_insert(member.size);
        let skipped = match &blocks.last {
            None => number,
            Some((name, last)) => {
                let after = number.checked_sub(*last).and_then(|gap| gap.checked_sub(1));
                // The importer compares names, not numbers.
                let gap = after.filter(|_| digits > name.as_str());
                gap.ok_or_else(|| wrong(format!("follows block {}", quote(name))))?
            }
        };
        let disk = skipped
            .checked_mul(first)
            .and_then(|skipped| blocks.end.checked_add(skipped));
        let end = disk.and_then(|disk| disk.checked_add(member.size));
        let (Some(disk), Some(end)) = (disk, end.filter(|end| end <= size)) else {
            return Err(wrong(format!("ends past the disk's {size} bytes")));
        };
        if member.size > 0 {
            blocks.list.push(Block {
                disk,
                at: member.offset,
                length: member.size,
                checksum: 0,
            });
        }
        blocks.end = end;
        blocks.last = Some((digits.to_owned(), number));
        self.open = Some((digits.to_owned(), member.size > 0));
        Ok(())
    }
}

/// A disk of an XVA, read where it stands in the archive.
#[derive(Clone)]
pub struct Disk {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) id: Arc<str>,
    pub(super) size: u64,
    pub(super) blocks: Arc<[Block]>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blocks = self.blocks.len();
        write!(f, "Disk({}, {} bytes, {blocks} blocks)", self.id, self.size)
    }
}

impl Disk {
    /// Id of its VDI, which is the name of its folder.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of blocks that have bytes.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        u64::try_from(self.blocks.len()).unwrap_or(u64::MAX)
    }

    /// The first block that ends behind `offset`.
    fn from(&self, offset: u64) -> &[Block] {
        let before = self
            .blocks
            .partition_point(|block| block.disk.saturating_add(block.length) <= offset);
        self.blocks.get(before..).unwrap_or(&[])
    }

    /// Whether the archive has all bytes of a block.
    pub(super) fn check(&self, block: &Block) -> Result<()> {
        let end = block.at.checked_add(block.length);
        if end.is_none_or(|end| end > self.source.len()) {
            return Err(Error::corrupt(format_args!(
                "block of {} at {} has {} bytes at offset {} and ends past the archive ({})",
                self.id,
                block.disk,
                block.length,
                block.at,
                self.source.len()
            )));
        }
        Ok(())
    }
}

impl ReadAt for Disk {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(wanted).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(Error::io(format_args!(
                "read of {wanted} bytes at offset {offset} ends past the end ({})",
                self.size
            )));
        };
        buffer.fill(0);
        for block in self.from(offset) {
            if block.disk >= end {
                break;
            }
            self.check(block)?;
            let start = block.disk.max(offset);
            let stop = block.disk.saturating_add(block.length).min(end);
            let (from, to) = (start.saturating_sub(offset), stop.saturating_sub(offset));
            let range = usize::try_from(from).map_err(Error::io)?
                ..usize::try_from(to).map_err(Error::io)?;
            let within = start.saturating_sub(block.disk);
            if let Some(part) = buffer.get_mut(range) {
                self.source.read_at(block.at.saturating_add(within), part)?;
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let left = self.size.saturating_sub(offset);
        let (end, kind) = match self.from(offset).first() {
            Some(block) if block.disk <= offset => {
                (block.disk.saturating_add(block.length), ExtentKind::Data)
            }
            // What is left out was read as zeros by the exporter.
            Some(block) => (block.disk, ExtentKind::Zero),
            None => (self.size, ExtentKind::Zero),
        };
        Extent {
            offset,
            length: end.saturating_sub(offset).min(left),
            kind,
        }
    }
}
