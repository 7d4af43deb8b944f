//! Editing within free cells, as the converters do offline.

use crate::base::NONE;
use crate::cell::{View, word};
use crate::heap::Heap;
use crate::hive::{find, parts};
use crate::key::{Key, ONE_BYTE_NAME};
use crate::list::{self, List};
use crate::value::{self, INLINE, RegType, SEGMENT};
use crate::{Hive, Walk, name, new};
use drylab_block::{Error, Limits, Result, array_at, le_u32};
use std::collections::BTreeSet;

/// A hive being edited.
///
/// Data that fit into their cell are overwritten where they stand; everything else goes to free cells of the bins
/// there are, and when none is large enough the hive grows by one bin ([`HiveEditor::grown_bytes`]). An edit that
/// fails leaves a readable hive. Time stamps stay (models know no clock): a new key has its parent's.
///
/// A dirty hive can be edited, as hivex does; [`HiveEditor::finish`] then makes it clean, and Windows will not
/// replay its log. Who minds asks [`Hive::is_dirty`] first.
#[derive(Clone, Debug)]
pub struct HiveEditor {
    pub(crate) heap: Heap,
    root: u32,
    pub(crate) edited: bool,
}

impl HiveEditor {
    /// Opens the bytes of a hive for editing, and checks all bins, and that no two structures share a cell.
    ///
    /// # Errors
    /// As [`Hive::open`]; [`Error::Corrupt`] also when a bin is damaged or a cell has two owners.
    pub fn open(bytes: Vec<u8>, limits: &Limits) -> Result<Self> {
        let hive = Hive::open(bytes.as_slice(), limits)?;
        let root = hive.root()?.offset;
        let editor = Self {
            heap: Heap::scan(bytes, hive.version().1, limits)?,
            root,
            edited: false,
        };
        editor.claim_all()?;
        Ok(editor)
    }

    fn root(&self) -> Result<Key<'_>> {
        Key::read(self.heap.view(), self.root, None)
    }

    /// Key at a path, as [`Hive::key`].
    ///
    /// # Errors
    /// As [`Hive::key`].
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        find(self.root()?, path)
    }

    /// Bytes that the hive has grown by so far.
    #[must_use]
    pub fn grown_bytes(&self) -> u64 {
        self.heap.grown()
    }

    /// Bytes in free cells, headers included.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.heap.free_bytes()
    }

    /// The bytes of the hive: unchanged when nothing was edited, otherwise with sequence numbers one higher and equal
    /// and the checksum right.
    ///
    /// # Errors
    /// Never on a hive that opened.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.edited {
            self.heap.seal()?;
        }
        Ok(self.heap.bytes)
    }

    /// Sets a value of an existing key, made when it is missing; name "" is the default value.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no such key or the limits allow no growth.
    pub fn set_value(&mut self, path: &str, name: &str, kind: RegType, data: &[u8]) -> Result<()> {
        let key = self.existing(path)?;
        self.edited = true;
        match self.value_at(key, name)? {
            Some((_, offset)) => self.replace_data(offset, kind, data)?,
            None => self.add_value(key, name, kind, data)?,
        }
        self.raise(key, 0x40, word(data.len()))
    }

    /// Sets a `REG_DWORD`.
    ///
    /// # Errors
    /// As [`HiveEditor::set_value`].
    pub fn set_u32(&mut self, path: &str, name: &str, number: u32) -> Result<()> {
        self.set_value(path, name, RegType::DWORD, &number.to_le_bytes())
    }

    /// Sets a `REG_SZ` (or another text type) with its closing NUL.
    ///
    /// # Errors
    /// As [`HiveEditor::set_value`].
    pub fn set_string(&mut self, path: &str, name: &str, kind: RegType, text: &str) -> Result<()> {
        let bytes: Vec<u8> = text
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        self.set_value(path, name, kind, &bytes)
    }

    /// Removes a value; false when there was none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no such key.
    pub fn delete_value(&mut self, path: &str, name: &str) -> Result<bool> {
        let key = self.existing(path)?;
        let Some((index, offset)) = self.value_at(key, name)? else {
            return Ok(false);
        };
        self.edited = true;
        let node = Key::read(self.heap.view(), key, None)?.node;
        let left = node.value_count.saturating_sub(1);
        let from = index.saturating_add(1).saturating_mul(4);
        let tail = self
            .heap
            .content(node.value_list)?
            .get(from..)
            .unwrap_or_default()
            .to_vec();
        self.heap
            .write(node.value_list, index.saturating_mul(4), &tail)?;
        self.heap.write(key, 0x24, &left.to_le_bytes())?;
        if left == 0 {
            self.heap.write(key, 0x28, &NONE.to_le_bytes())?;
            self.heap.release(node.value_list)?;
        }
        self.release_value(offset)?;
        Ok(true)
    }

    /// Makes a key and what is missing above it; false when it was there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when a name is longer than 255 characters, the path too deep, or a list full.
    pub fn create_key(&mut self, path: &str) -> Result<bool> {
        let mut made = false;
        let mut at = String::new();
        for part in parts(path) {
            let parent = self.existing(&at)?;
            if !at.is_empty() {
                at.push('\\');
            }
            at.push_str(part);
            if self.key(&at)?.is_none() {
                self.edited = true;
                self.add_key(parent, part)?;
                made = true;
            }
        }
        Ok(made)
    }

    /// Removes a key with everything below it; false when there was none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the root; [`Error::Corrupt`] when something below is damaged.
    pub fn delete_key(&mut self, path: &str) -> Result<bool> {
        let Some(key) = self.key(path)? else {
            return Ok(false);
        };
        if key.offset == self.root {
            return Err(Error::unsupported(
                "the root key of a hive cannot be removed",
            ));
        }
        let offset = key.offset;
        let below = Walk::new(key)
            .map(|key| key.map(|key| key.offset))
            .collect::<Result<Vec<u32>>>()?;
        let names: Vec<&str> = parts(path).collect();
        let above = names
            .split_last()
            .map(|(_, above)| above.join("\\"))
            .unwrap_or_default();
        let parent = self.existing(&above)?;
        self.edited = true;
        self.unlink(parent, offset)?;
        below
            .into_iter()
            .rev()
            .try_for_each(|offset| self.release_key(offset))?;
        Ok(true)
    }

    fn existing(&self, path: &str) -> Result<u32> {
        let key = self.key(path)?;
        key.map(|key| key.offset).ok_or_else(|| {
            Error::unsupported(format_args!("the hive has no key \"{path}\" to edit"))
        })
    }

    /// Index in the list and cell of a value.
    fn value_at(&self, key: u32, name: &str) -> Result<Option<(usize, u32)>> {
        let view = self.heap.view();
        for (index, offset) in Key::read(view, key, None)?
            .value_offsets()?
            .into_iter()
            .enumerate()
        {
            let raw = value::Raw::parse(view.cell(offset, "value")?);
            if raw.is_some_and(|raw| name::same(&raw.name, name)) {
                return Ok(Some((index, offset)));
            }
        }
        Ok(None)
    }

    /// Raises one of the "largest of" fields of a key.
    fn raise(&mut self, key: u32, at: usize, to: u32) -> Result<()> {
        let now = le_u32(self.heap.content(key)?, at).unwrap_or(0);
        if to > now {
            self.heap.write(key, at, &to.to_le_bytes())
        } else {
            Ok(())
        }
    }

    fn replace_data(&mut self, offset: u32, kind: RegType, data: &[u8]) -> Result<()> {
        let old = value::Raw::parse(self.heap.view().cell(offset, "value")?);
        let old =
            old.ok_or_else(|| Error::corrupt(format_args!("cell at {offset:#x} holds no value")))?;
        let alone = old.size & INLINE == 0 && old.size > 0 && self.data_cells(&old) == [old.data];
        let fits = alone
            && data.len() > 4
            && data.len() <= SEGMENT
            && data.len() <= self.heap.capacity(old.data);
        let (size, place) = if fits {
            self.heap.content(old.data)?.fill(0);
            self.heap.write(old.data, 0, data)?;
            (word(data.len()), old.data.to_le_bytes())
        } else {
            self.put_data(data)?
        };
        self.heap.write(offset, 0x04, &size.to_le_bytes())?;
        self.heap.write(offset, 0x08, &place)?;
        self.heap.write(offset, 0x0C, &kind.0.to_le_bytes())?;
        if fits {
            Ok(())
        } else {
            self.data_cells(&old)
                .into_iter()
                .try_for_each(|cell| self.heap.release(cell))
        }
    }

    fn add_value(&mut self, key: u32, name: &str, kind: RegType, data: &[u8]) -> Result<()> {
        let (stored, one_byte) = name::encode(name);
        let too_long = || Error::unsupported(format_args!("value name of {} bytes", stored.len()));
        let length = u16::try_from(stored.len())
            .ok()
            .filter(|length| *length <= 0x7FFE)
            .ok_or_else(too_long)?;
        let (size, place) = self.put_data(data)?;
        let mut content = b"vk".to_vec();
        content.extend_from_slice(&length.to_le_bytes());
        content.extend_from_slice(&size.to_le_bytes());
        content.extend_from_slice(&place);
        content.extend_from_slice(&kind.0.to_le_bytes());
        content.extend_from_slice(&if one_byte { value::ONE_BYTE_NAME } else { 0 }.to_le_bytes());
        content.extend_from_slice(&[0; 2]);
        content.extend_from_slice(&stored);
        let offset = self.heap.alloc(&content)?;
        self.append_value(key, offset)?;
        self.raise(
            key,
            0x3C,
            word(name.encode_utf16().count().saturating_mul(2)),
        )
    }

    fn append_value(&mut self, key: u32, offset: u32) -> Result<()> {
        let read = Key::read(self.heap.view(), key, None)?;
        let node = read.node;
        let mut offsets = read.value_offsets()?;
        offsets.push(offset);
        let content: Vec<u8> = offsets
            .iter()
            .flat_map(|offset| offset.to_le_bytes())
            .collect();
        let list = if node.value_count == 0 {
            NONE
        } else {
            node.value_list
        };
        let place = self.rewrite(list, &content)?;
        self.heap.write(key, 0x28, &place.to_le_bytes())?;
        self.heap
            .write(key, 0x24, &word(offsets.len()).to_le_bytes())
    }

    /// Writes content into its cell, or into a new one when it does not fit; gives the cell.
    pub(crate) fn rewrite(&mut self, cell: u32, content: &[u8]) -> Result<u32> {
        if content.len() <= self.heap.capacity(cell) {
            self.heap.write(cell, 0, content)?;
            return Ok(cell);
        }
        let place = self.heap.alloc(content)?;
        self.heap.release(cell)?;
        Ok(place)
    }

    /// Stores data; gives size field and data field of the value cell.
    fn put_data(&mut self, data: &[u8]) -> Result<(u32, [u8; 4])> {
        let length = word(data.len());
        if data.len() <= 4 {
            let mut place = [0u8; 4];
            place
                .iter_mut()
                .zip(data)
                .for_each(|(to, from)| *to = *from);
            return Ok((length | INLINE, place));
        }
        if data.len() <= SEGMENT || self.heap.view().minor <= 3 {
            return Ok((length, self.heap.alloc(data)?.to_le_bytes()));
        }
        // Windows leaves 4 bytes behind each segment, and hivex counts on them.
        let segment = |part: &[u8]| self.heap.alloc(&[part, &[0; 4]].concat());
        let segments = data
            .chunks(SEGMENT)
            .map(segment)
            .collect::<Result<Vec<u32>>>()?;
        let too_many = |_| Error::unsupported(format_args!("value of {length} bytes"));
        let count = u16::try_from(segments.len()).map_err(too_many)?;
        let list: Vec<u8> = segments
            .iter()
            .flat_map(|offset| offset.to_le_bytes())
            .collect();
        let list = self.heap.alloc(&list)?;
        let mut record = b"db".to_vec();
        record.extend_from_slice(&count.to_le_bytes());
        record.extend_from_slice(&list.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        Ok((length, self.heap.alloc(&record)?.to_le_bytes()))
    }

    /// The cells that hold a value's data.
    fn data_cells(&self, raw: &value::Raw) -> Vec<u32> {
        let view = self.heap.view();
        if raw.size & INLINE != 0 || raw.size == 0 {
            return Vec::new();
        }
        let length = crate::cell::size(raw.size);
        let mut cells = vec![raw.data];
        let list = view
            .cell(raw.data, "data")
            .ok()
            .and_then(|content| value::big(&view, content, length));
        let Some(list) = list else { return cells };
        cells.push(list);
        let content = view.cell(list, "data segment list").unwrap_or_default();
        let count = length.div_ceil(SEGMENT);
        cells.extend((0..count).map_while(|index| View::listed(content, 0, 4, index)));
        cells
    }

    fn release_value(&mut self, offset: u32) -> Result<()> {
        if let Some(raw) = self
            .heap
            .view()
            .cell(offset, "value")
            .ok()
            .and_then(value::Raw::parse)
        {
            self.data_cells(&raw)
                .into_iter()
                .try_for_each(|cell| self.heap.release(cell))?;
        }
        self.heap.release(offset)
    }

    fn add_key(&mut self, parent: u32, name: &str) -> Result<()> {
        let (stored, one_byte) = name::encode(name);
        if name.encode_utf16().count() > 255 {
            return Err(Error::unsupported(format_args!(
                "key name of {} bytes, more than 255 characters",
                stored.len()
            )));
        }
        let node = Key::read(self.heap.view(), parent, None)?.node;
        let flags = if one_byte { ONE_BYTE_NAME } else { 0 };
        let content = new::node_bytes(&stored, flags, parent, node.timestamp, node.security);
        let offset = self.heap.alloc(&content)?;
        if let Err(error) = self.link(parent, name, offset) {
            self.heap.release(offset)?;
            return Err(error);
        }
        self.count_security(node.security, true)?;
        let longest = word(name.encode_utf16().count().saturating_mul(2));
        let now = le_u32(self.heap.content(parent)?, 0x34).unwrap_or(0);
        // The upper half of this word has held flags since Windows Vista.
        let largest = (now & 0xFFFF).max(longest) | (now & 0xFFFF_0000);
        self.heap.write(parent, 0x34, &largest.to_le_bytes())
    }

    /// Counts one user more or less of a security cell; without users it leaves its ring.
    fn count_security(&mut self, offset: u32, more: bool) -> Result<()> {
        let field = |content: &[u8], at| le_u32(content, at);
        let view = self.heap.view();
        let Some(content) = view
            .cell(offset, "security")
            .ok()
            .filter(|content| array_at::<2>(content, 0) == Some(*b"sk"))
        else {
            return Ok(());
        };
        let (Some(next), Some(previous), Some(users)) =
            (field(content, 4), field(content, 8), field(content, 12))
        else {
            return Ok(());
        };
        let users = if more {
            users.saturating_add(1)
        } else {
            users.saturating_sub(1)
        };
        let in_ring = |offset| offset != NONE && self.heap.capacity(offset) >= 20;
        if users > 0 || next == offset || !in_ring(next) || !in_ring(previous) {
            return self.heap.write(offset, 12, &users.to_le_bytes());
        }
        self.heap.write(previous, 4, &next.to_le_bytes())?;
        self.heap.write(next, 8, &previous.to_le_bytes())?;
        self.heap.release(offset)
    }

    /// Gives back a key's own cells and its values.
    fn release_key(&mut self, offset: u32) -> Result<()> {
        let key = Key::read(self.heap.view(), offset, None)?;
        let node = key.node;
        let values = key.value_offsets().unwrap_or_default();
        let lists = self.list_cells(&key);
        values
            .into_iter()
            .try_for_each(|value| self.release_value(value))?;
        lists
            .into_iter()
            .try_for_each(|list| self.heap.release(list))?;
        self.count_security(node.security, false)?;
        self.heap.release(offset)
    }

    /// Cells of a key's lists and class name.
    fn list_cells(&self, key: &Key<'_>) -> Vec<u32> {
        let mut cells = Vec::new();
        if key.node.subkey_count > 0 {
            cells.push(key.node.subkey_list);
            if let Ok(List::Index(lists)) = list::read(&self.heap.view(), key.node.subkey_list) {
                cells.extend(lists);
            }
        }
        if key.node.value_count > 0 {
            cells.push(key.node.value_list);
        }
        if key.node.class != NONE && key.node.class_length > 0 {
            cells.push(key.node.class);
        }
        cells
    }

    /// Checks that every cell has one owner, so that an edit changes nothing else.
    fn claim_all(&self) -> Result<()> {
        let mut claimed = BTreeSet::new();
        let mut claim = |cell: u32, owner: &Key<'_>| {
            if self.heap.is_used(cell) && claimed.insert(cell) {
                return Ok(());
            }
            Err(Error::corrupt(format_args!(
                "{}: cell at {cell:#x} is no cell or has another owner already",
                owner.place()
            )))
        };
        let view = self.heap.view();
        for key in Walk::new(self.root()?) {
            // What cannot be read is not reached by an edit either.
            let Ok(key) = key else { continue };
            claim(key.offset, &key)?;
            self.list_cells(&key)
                .into_iter()
                .try_for_each(|cell| claim(cell, &key))?;
            for offset in key.value_offsets().unwrap_or_default() {
                claim(offset, &key)?;
                let raw = view.cell(offset, "value").ok().and_then(value::Raw::parse);
                let cells = raw.map(|raw| self.data_cells(&raw)).unwrap_or_default();
                cells.into_iter().try_for_each(|cell| claim(cell, &key))?;
            }
        }
        Ok(())
    }
}
