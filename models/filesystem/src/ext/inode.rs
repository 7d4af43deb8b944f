//! Inodes, and the map from a file's blocks to the volume's.

use super::View;
use drylab_block::{Error, Result, array_at, le_u16, le_u32, slice_at};

pub(super) const INLINE_DATA: u32 = 0x1000_0000;
pub(super) const EXTENTS: u32 = 0x8_0000;
pub(super) const ENCRYPTED: u32 = 0x800;
const COMPRESSED: u32 = 0x4;
const VERITY: u32 = 0x10_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
const UNWRITTEN: u16 = 0x8000;

/// An inode as it stands on the volume.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    /// Byte on the volume where it stands.
    pub(super) place: u64,
    pub(super) raw: Vec<u8>,
    pub(super) mode: u16,
    pub(super) flags: u32,
    pub(super) size: u64,
    /// The 60 bytes of `i_block`.
    pub(super) root: [u8; 60],
}

/// Blocks of a file that stand together on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) length: u64,
    /// Whether the bytes count; an unwritten run reads as zeros.
    pub(super) written: bool,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }
}

impl Inode {
    pub(super) fn is_directory(&self) -> bool {
        self.mode >> 12 == 4
    }

    pub(super) fn is_file(&self) -> bool {
        self.mode >> 12 == 8
    }

    pub(super) fn is_symlink(&self) -> bool {
        self.mode >> 12 == 10
    }

    /// Why its content cannot be taken as plain blocks, if so.
    pub(super) fn odd(&self) -> Option<&'static str> {
        match self.flags {
            flags if flags & INLINE_DATA != 0 => Some("its data stands inside its inode"),
            flags if flags & ENCRYPTED != 0 => Some("it is encrypted"),
            flags if flags & COMPRESSED != 0 => Some("it is compressed"),
            flags if flags & VERITY != 0 => Some("it is sealed by fs-verity"),
            _ => None,
        }
    }

    /// The checksum of `raw` with its checksum fields taken as zero.
    pub(super) fn checksum(number: u32, raw: &[u8], seed: u32) -> u32 {
        let mut bytes = raw.to_vec();
        if let Some(low) = bytes.get_mut(0x7c..0x7e) {
            low.fill(0);
        }
        if has_high_checksum(raw)
            && let Some(high) = bytes.get_mut(0x82..0x84)
        {
            high.fill(0);
        }
        let seed = super::checksum::crc32c(seed, &number.to_le_bytes());
        let seed = super::checksum::crc32c(seed, &array_at::<4>(raw, 0x64).unwrap_or_default());
        super::checksum::crc32c(seed, &bytes)
    }

    /// Writes the checksum into `raw`.
    pub(super) fn seal(&mut self, seed: u32) {
        let crc = Self::checksum(self.number, &self.raw, seed).to_le_bytes();
        let high = has_high_checksum(&self.raw);
        if let (Some(field), Some(value)) = (self.raw.get_mut(0x7c..0x7e), crc.get(..2)) {
            field.copy_from_slice(value);
        }
        if let (true, Some(field), Some(value)) = (high, self.raw.get_mut(0x82..0x84), crc.get(2..))
        {
            field.copy_from_slice(value);
        }
    }
}

fn has_high_checksum(raw: &[u8]) -> bool {
    raw.len() > 128 && le_u16(raw, 0x80).is_some_and(|extra| extra >= 4)
}

impl View<'_> {
    pub(super) fn inode(&self, number: u32) -> Result<Inode> {
        let sb = self.sb;
        let lost = || Error::corrupt(format_args!("inode {number} lies outside the volume"));
        if number == 0 || number > sb.inodes {
            return Err(Error::corrupt(format_args!(
                "inode {number} is not one of the {} there are",
                sb.inodes
            )));
        }
        let index = number.saturating_sub(1);
        let group = u64::from(index.checked_div(sb.inodes_per_group).ok_or_else(lost)?);
        let index = u64::from(index.checked_rem(sb.inodes_per_group).ok_or_else(lost)?);
        let at = sb.descriptor_at(group).ok_or_else(lost)?;
        let descriptor = self.bytes("group descriptor", at, u64::from(sb.descriptor_size))?;
        let low = u64::from(le_u32(&descriptor, 0x8).unwrap_or(0));
        let high = u64::from(le_u32(&descriptor, 0x28).unwrap_or(0));
        let table = low | high.checked_shl(32).unwrap_or(0);
        let size = u64::from(sb.inode_size);
        let start = table
            .checked_mul(u64::from(sb.block_size))
            .ok_or_else(lost)?;
        let place = index
            .checked_mul(size)
            .and_then(|within| within.checked_add(start))
            .ok_or_else(lost)?;
        let raw = self
            .bytes("inode", place, size)
            .map_err(|error| error.within(format_args!("inode {number}")))?;
        let mode = le_u16(&raw, 0).unwrap_or(0);
        let mut inode = Inode {
            number,
            place,
            mode,
            flags: le_u32(&raw, 0x20).unwrap_or(0),
            size: u64::from(le_u32(&raw, 0x4).unwrap_or(0)),
            root: array_at(&raw, 0x28).unwrap_or([0; 60]),
            raw,
        };
        // Elsewhere the upper half is another field's place.
        if inode.is_file() || (inode.is_directory() && sb.has_large_directories()) {
            let high = u64::from(le_u32(&inode.raw, 0x6c).unwrap_or(0));
            inode.size |= high.checked_shl(32).unwrap_or(0);
        }
        Ok(inode)
    }

    /// Runs of the file's blocks below `wanted`, in order; what no run covers is a hole.
    pub(super) fn runs(&self, inode: &Inode, wanted: u64) -> Result<Vec<Run>> {
        let mut walk = Walk {
            view: self,
            inode: inode.number,
            runs: Vec::new(),
            wanted,
            nodes: 0,
        };
        if inode.flags & EXTENTS != 0 {
            walk.extents(&inode.root, None)?;
        } else {
            walk.block_map(inode)?;
        }
        Ok(walk.runs)
    }

    /// The whole content.
    pub(super) fn content(&self, inode: &Inode) -> Result<Vec<u8>> {
        let number = inode.number;
        if inode.size > self.limits.file_bytes_max {
            return Err(Error::unsupported(format_args!(
                "inode {number} has {} bytes, more than the {} allowed",
                inode.size, self.limits.file_bytes_max
            )));
        }
        if inode.flags & INLINE_DATA != 0 && inode.size <= 60 && !inode.is_directory() {
            let length = usize::try_from(inode.size).unwrap_or(0);
            return Ok(inode.root.get(..length).unwrap_or_default().to_vec());
        }
        if let Some(why) = inode.odd() {
            return Err(Error::unsupported(format_args!(
                "inode {number} is not read: {why}"
            )));
        }
        let block_size = u64::from(self.sb.block_size);
        let runs = self.runs(inode, inode.size.div_ceil(block_size))?;
        let mut content = vec![0u8; usize::try_from(inode.size).map_err(Error::io)?];
        for run in runs.iter().filter(|run| run.written) {
            let start = run.logical.saturating_mul(block_size);
            let end = run.end().saturating_mul(block_size).min(inode.size);
            let range = usize::try_from(start).unwrap_or(usize::MAX)
                ..usize::try_from(end).unwrap_or(usize::MAX);
            let Some(target) = content.get_mut(range) else {
                continue;
            };
            let at = run.physical.saturating_mul(block_size);
            self.fill(at, target).map_err(|error| {
                error.within(format_args!("inode {number}, block {}", run.logical))
            })?;
        }
        Ok(content)
    }
}

struct Walk<'a, 'v> {
    view: &'a View<'v>,
    inode: u32,
    runs: Vec<Run>,
    wanted: u64,
    nodes: u64,
}

impl Walk<'_, '_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format_args!("inode {}: {what}", self.inode))
    }

    fn add(&mut self, run: Run) -> Result<()> {
        let blocks = self.view.sb.blocks;
        if run
            .physical
            .checked_add(run.length)
            .is_none_or(|end| end > blocks)
            || run.physical == 0
        {
            return Err(self.wrong(format_args!(
                "block {} stands at {}+{} of a volume of {blocks} blocks",
                run.logical, run.physical, run.length
            )));
        }
        let joins = |last: &Run| {
            last.end() == run.logical
                && last.physical.saturating_add(last.length) == run.physical
                && last.written == run.written
        };
        match self.runs.last_mut() {
            Some(last) if joins(last) => last.length = last.length.saturating_add(run.length),
            Some(last) if last.end() > run.logical => {
                let end = last.end();
                return Err(self.wrong(format_args!(
                    "block {} is mapped twice or out of order (mapped up to {end})",
                    run.logical
                )));
            }
            _ => self.runs.push(run),
        }
        if u64::try_from(self.runs.len()).unwrap_or(u64::MAX)
            > u64::from(self.view.limits.entries_max)
        {
            return Err(self.wrong("it is in more pieces than allowed"));
        }
        Ok(())
    }

    fn node(&mut self, block: u64) -> Result<Vec<u8>> {
        self.nodes = self.nodes.saturating_add(1);
        let allowed = self
            .view
            .limits
            .table_bytes_max
            .checked_div(u64::from(self.view.sb.block_size))
            .unwrap_or(0);
        if self.nodes > allowed {
            return Err(self.wrong(format_args!("its map has more than {allowed} blocks")));
        }
        self.view
            .block(block)
            .map_err(|error| error.within(format_args!("inode {}, map", self.inode)))
    }

    /// One node of the extent tree: header of 12 bytes, then entries of 12.
    fn extents(&mut self, node: &[u8], depth: Option<u16>) -> Result<()> {
        let half = |offset| le_u16(node, offset).unwrap_or(0);
        let (magic, entries, here) = (half(0), half(2), half(6));
        if magic != EXTENT_MAGIC || here > 5 || depth.is_some_and(|depth| depth != here) {
            return Err(self.wrong(format_args!(
                "extent node has magic {magic:#06x} and depth {here}"
            )));
        }
        for index in 0..usize::from(entries) {
            let entry = index
                .checked_add(1)
                .and_then(|index| index.checked_mul(12))
                .and_then(|at| slice_at(node, at, 12));
            let Some(entry) = entry else {
                return Err(self.wrong(format_args!(
                    "extent node claims {entries} entries in {} bytes",
                    node.len()
                )));
            };
            let logical = u64::from(le_u32(entry, 0).unwrap_or(0));
            if logical >= self.wanted {
                break;
            }
            if here == 0 {
                let high = u64::from(le_u16(entry, 6).unwrap_or(0))
                    .checked_shl(32)
                    .unwrap_or(0);
                let raw = le_u16(entry, 4).unwrap_or(0);
                let written = raw <= UNWRITTEN;
                let length = if written { raw } else { raw & !UNWRITTEN };
                let physical = high | u64::from(le_u32(entry, 8).unwrap_or(0));
                if length == 0 {
                    return Err(self.wrong(format_args!("extent at block {logical} has no length")));
                }
                self.add(Run {
                    logical,
                    physical,
                    length: u64::from(length),
                    written,
                })?;
            } else {
                let high = u64::from(le_u16(entry, 8).unwrap_or(0))
                    .checked_shl(32)
                    .unwrap_or(0);
                let child = self.node(high | u64::from(le_u32(entry, 4).unwrap_or(0)))?;
                self.extents(&child, here.checked_sub(1))?;
            }
        }
        Ok(())
    }

    /// 12 direct blocks, then one, two and three levels of indirection. 0 is a hole of the size of what it stands for.
    fn block_map(&mut self, inode: &Inode) -> Result<()> {
        let per_node = u64::from(self.view.sb.block_size / 4);
        let mut logical = 0u64;
        for slot in 0..15usize {
            let levels = u32::try_from(slot.saturating_sub(11)).unwrap_or(0);
            let block = slot
                .checked_mul(4)
                .and_then(|at| le_u32(&inode.root, at))
                .unwrap_or(0);
            self.indirect(block, levels, logical)?;
            logical = logical.saturating_add(per_node.saturating_pow(levels));
            if logical >= self.wanted {
                break;
            }
        }
        Ok(())
    }

    fn indirect(&mut self, block: u32, levels: u32, logical: u64) -> Result<()> {
        if block == 0 || logical >= self.wanted {
            return Ok(());
        }
        let Some(below) = levels.checked_sub(1) else {
            return self.add(Run {
                logical,
                physical: u64::from(block),
                length: 1,
                written: true,
            });
        };
        let node = self.node(u64::from(block))?;
        let span = u64::from(self.view.sb.block_size / 4).saturating_pow(below);
        let mut at = logical;
        for entry in node.chunks_exact(4) {
            if at >= self.wanted {
                break;
            }
            self.indirect(le_u32(entry, 0).unwrap_or(0), below, at)?;
            at = at.saturating_add(span);
        }
        Ok(())
    }
}
