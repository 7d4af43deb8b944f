//! Cells of a hive as an allocator sees them: every byte of every bin belongs to one cell, used or free.

use crate::base::{self, SIZE};
use crate::cell::{View, place, size, word};
use drylab_block::{Error, Limits, Result, array_at, le_u32};
use std::collections::BTreeMap;

/// Bytes of a bin's header.
const BIN_HEADER: usize = 0x20;
/// Bins are multiples of this.
const BIN: usize = 0x1000;

/// The bytes of a hive and its cells by offset.
#[derive(Clone, Debug)]
pub(crate) struct Heap {
    pub(crate) bytes: Vec<u8>,
    minor: u32,
    end: usize,
    limits: Limits,
    used: BTreeMap<u32, u32>,
    free: BTreeMap<u32, u32>,
    grown: u64,
}

impl Heap {
    /// Takes stock of all cells; every bin must be whole.
    pub(crate) fn scan(bytes: Vec<u8>, minor: u32, limits: &Limits) -> Result<Self> {
        let end = le_u32(&bytes, 0x28).map_or(0, size).saturating_add(SIZE);
        if end > bytes.len() {
            return Err(Error::corrupt(format_args!(
                "bins end at {end:#x}, past the end of the hive ({:#x})",
                bytes.len()
            )));
        }
        let (used, free) = (BTreeMap::new(), BTreeMap::new());
        let mut heap = Self {
            bytes,
            minor,
            end,
            limits: *limits,
            used,
            free,
            grown: 0,
        };
        let mut at = SIZE;
        while at < end {
            at = heap.scan_bin(at)?;
        }
        Ok(heap)
    }

    /// Enters the cells of the bin at `at`; gives the place of the next bin.
    fn scan_bin(&mut self, at: usize) -> Result<usize> {
        let bad = |what: &str, value: usize| {
            Error::corrupt(format_args!("hive bin at {at:#x}: {what} {value:#x}"))
        };
        let length = le_u32(&self.bytes, at.saturating_add(8)).map_or(0, size);
        let next = at.saturating_add(length);
        if array_at::<4>(&self.bytes, at) != Some(*b"hbin")
            || length < BIN
            || !length.is_multiple_of(BIN)
            || next > self.end
        {
            return Err(bad("no sound header, size", length));
        }
        let mut cell = at.saturating_add(BIN_HEADER);
        while cell < next {
            let header = array_at::<4>(&self.bytes, cell).ok_or_else(|| bad("no cell at", cell))?;
            let signed = i32::from_le_bytes(header);
            let bytes = signed.unsigned_abs();
            if bytes < 8 || !bytes.is_multiple_of(8) || cell.saturating_add(size(bytes)) > next {
                return Err(bad("no sound cell at", cell));
            }
            let offset = word(cell.saturating_sub(SIZE));
            if signed < 0 {
                self.used.insert(offset, bytes)
            } else {
                self.free.insert(offset, bytes)
            };
            cell = cell.saturating_add(size(bytes));
        }
        Ok(next)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            bytes: &self.bytes,
            end: self.end,
            minor: self.minor,
            limits: self.limits,
        }
    }

    /// Bytes that the file has grown by.
    pub(crate) fn grown(&self) -> u64 {
        self.grown
    }

    /// Bytes in free cells.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free.values().map(|bytes| u64::from(*bytes)).sum()
    }

    /// Whether an allocated cell starts at `offset`.
    pub(crate) fn is_used(&self, offset: u32) -> bool {
        self.used.contains_key(&offset)
    }

    /// Bytes of content that the cell at `offset` can hold.
    pub(crate) fn capacity(&self, offset: u32) -> usize {
        self.used
            .get(&offset)
            .map_or(0, |bytes| size(bytes.saturating_sub(4)))
    }

    /// Content of an allocated cell.
    pub(crate) fn content(&mut self, offset: u32) -> Result<&mut [u8]> {
        let length = self.capacity(offset);
        let at = place(offset).saturating_add(4);
        let found = self
            .bytes
            .get_mut(at..at.saturating_add(length))
            .filter(|found| !found.is_empty());
        found.ok_or_else(|| Error::corrupt(format_args!("no allocated cell starts at {offset:#x}")))
    }

    /// Writes `part` at `at` in a cell.
    pub(crate) fn write(&mut self, offset: u32, at: usize, part: &[u8]) -> Result<()> {
        let content = self.content(offset)?;
        let length = content.len();
        let target = content.get_mut(at..at.saturating_add(part.len()));
        let target = target.ok_or_else(|| {
            Error::corrupt(format_args!(
                "cell at {offset:#x} holds {length} bytes, {} are to go to {at}",
                part.len()
            ))
        })?;
        target.copy_from_slice(part);
        Ok(())
    }

    /// Makes a cell for `content`.
    pub(crate) fn alloc(&mut self, content: &[u8]) -> Result<u32> {
        let need = content.len().saturating_add(4).max(8).next_multiple_of(8);
        let need = u32::try_from(need)
            .map_err(|_| Error::unsupported(format_args!("cell of {need} bytes")))?;
        let fit = self
            .free
            .iter()
            .find(|(_, bytes)| **bytes >= need)
            .map(|(offset, bytes)| (*offset, *bytes));
        let (offset, bytes) = match fit {
            Some(found) => found,
            None => self.grow(need)?,
        };
        self.free.remove(&offset);
        let rest = bytes.saturating_sub(need);
        if rest > 0 {
            let behind = offset.saturating_add(need);
            self.set_size(behind, rest, false)?;
            self.free.insert(behind, rest);
        }
        self.set_size(offset, need, true)?;
        self.used.insert(offset, need);
        let cell = self.content(offset)?;
        cell.fill(0);
        self.write(offset, 0, content)?;
        Ok(offset)
    }

    /// Gives a cell back, joined with free neighbours; a place where no cell is used is left alone.
    pub(crate) fn release(&mut self, offset: u32) -> Result<()> {
        let Some(mut bytes) = self.used.remove(&offset) else {
            return Ok(());
        };
        let mut start = offset;
        if let Some(behind) = self.free.remove(&offset.saturating_add(bytes)) {
            bytes = bytes.saturating_add(behind);
        }
        let before = self
            .free
            .range(..offset)
            .next_back()
            .map(|(at, length)| (*at, *length));
        if let Some((at, length)) =
            before.filter(|(at, length)| at.saturating_add(*length) == offset)
        {
            start = at;
            bytes = bytes.saturating_add(length);
        }
        self.free.insert(start, bytes);
        self.set_size(start, bytes, false)
    }

    fn set_size(&mut self, offset: u32, bytes: u32, used: bool) -> Result<()> {
        let signed = i32::try_from(bytes).map_err(Error::corrupt)?;
        let signed = if used {
            signed.saturating_neg()
        } else {
            signed
        };
        let at = place(offset);
        let target = self.bytes.get_mut(at..at.saturating_add(4));
        target
            .ok_or_else(|| Error::corrupt(format_args!("cell at {offset:#x} is past the end")))?
            .copy_from_slice(&signed.to_le_bytes());
        Ok(())
    }

    /// Adds a bin with one free cell of at least `need` bytes.
    fn grow(&mut self, need: u32) -> Result<(u32, u32)> {
        let bin = size(need).saturating_add(BIN_HEADER).next_multiple_of(BIN);
        let end = self.end.saturating_add(bin);
        let allowed = self.limits.file_bytes_max.min(0x7FFF_F000);
        if u64::try_from(end).map_or(true, |end| end > allowed) {
            return Err(Error::unsupported(format_args!(
                "hive would grow to {end} bytes, more than the {allowed} allowed"
            )));
        }
        let before = self.bytes.len();
        if end > before {
            self.bytes.resize(end, 0);
        }
        self.grown = self
            .grown
            .saturating_add(u64::try_from(self.bytes.len().saturating_sub(before)).unwrap_or(0));
        let start = self.end;
        let (offset, length) = (word(start.saturating_sub(SIZE)), word(bin));
        let mut header = Vec::with_capacity(BIN_HEADER);
        header.extend_from_slice(b"hbin");
        header.extend_from_slice(&offset.to_le_bytes());
        header.extend_from_slice(&length.to_le_bytes());
        header.resize(BIN_HEADER, 0);
        if let Some(target) = self.bytes.get_mut(start..end) {
            target.fill(0);
        }
        self.patch(start, &header)?;
        self.end = end;
        self.patch(0x28, &word(end.saturating_sub(SIZE)).to_le_bytes())?;
        let (cell, bytes) = (
            offset.saturating_add(word(BIN_HEADER)),
            length.saturating_sub(word(BIN_HEADER)),
        );
        self.set_size(cell, bytes, false)?;
        self.free.insert(cell, bytes);
        Ok((cell, bytes))
    }

    fn patch(&mut self, at: usize, part: &[u8]) -> Result<()> {
        let target = self.bytes.get_mut(at..at.saturating_add(part.len()));
        target
            .ok_or_else(|| Error::corrupt(format_args!("{at:#x} is past the end of the hive")))?
            .copy_from_slice(part);
        Ok(())
    }

    /// Marks the base block as of a finished write: both sequence numbers one higher, checksum right.
    pub(crate) fn seal(&mut self) -> Result<()> {
        let number = |at| le_u32(&self.bytes, at).unwrap_or(0);
        let next = number(0x04).max(number(0x08)).wrapping_add(1).to_le_bytes();
        self.patch(0x04, &next)?;
        self.patch(0x08, &next)?;
        let sum = base::checksum(&self.bytes).to_le_bytes();
        self.patch(0x1FC, &sum)
    }
}
