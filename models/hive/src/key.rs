//! Keys (nk cells).

use crate::base::NONE;
use crate::cell::{View, size};
use crate::value::Value;
use crate::{list, name};
use drylab_block::{Error, Result, array_at, le_u16, le_u32, le_u64, slice_at};

/// Most levels of keys; Windows stops at 512.
pub(crate) const DEPTH_MAX: u32 = 512;
/// Flag of a key whose name has one byte per character.
pub(crate) const ONE_BYTE_NAME: u16 = 0x20;
/// Place of the name in a key cell.
pub(crate) const NAME_AT: usize = 0x4C;

/// Fields of an nk cell, by the names of the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) flags: u16,
    pub(crate) timestamp: u64,
    pub(crate) subkey_count: u32,
    pub(crate) subkey_list: u32,
    pub(crate) value_count: u32,
    pub(crate) value_list: u32,
    pub(crate) security: u32,
    pub(crate) class: u32,
    pub(crate) class_length: u16,
}

impl Node {
    pub(crate) fn parse(content: &[u8]) -> Option<(Self, &[u8])> {
        if array_at::<2>(content, 0)? != *b"nk" {
            return None;
        }
        let node = Self {
            flags: le_u16(content, 0x02)?,
            timestamp: le_u64(content, 0x04)?,
            subkey_count: le_u32(content, 0x14)?,
            subkey_list: le_u32(content, 0x1C)?,
            value_count: le_u32(content, 0x24)?,
            value_list: le_u32(content, 0x28)?,
            security: le_u32(content, 0x2C)?,
            class: le_u32(content, 0x30)?,
            class_length: le_u16(content, 0x4A)?,
        };
        let name_length = usize::from(le_u16(content, 0x48)?);
        Some((node, slice_at(content, NAME_AT, name_length)?))
    }
}

/// One key of a hive.
#[derive(Clone, Debug)]
pub struct Key<'h> {
    pub(crate) view: View<'h>,
    pub(crate) offset: u32,
    pub(crate) node: Node,
    pub(crate) depth: u32,
    name: String,
    path: String,
}

impl<'h> Key<'h> {
    /// Reads the key cell at `offset`, child of `parent` (the root has none).
    pub(crate) fn read(view: View<'h>, offset: u32, parent: Option<&Self>) -> Result<Self> {
        let depth = parent.map_or(0, |parent| parent.depth.saturating_add(1));
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(format_args!(
                "key at {offset:#x} lies more than {DEPTH_MAX} levels deep"
            )));
        }
        let content = view.cell(offset, "key")?;
        let (node, stored) = Node::parse(content).ok_or_else(|| {
            Error::corrupt(format_args!(
                "cell at {offset:#x} ({} bytes) holds no whole key",
                content.len()
            ))
        })?;
        let name = name::decode(stored, node.flags & ONE_BYTE_NAME != 0);
        let path = match parent {
            None => String::new(),
            Some(parent) if parent.path.is_empty() => name.clone(),
            Some(parent) => format!("{}\\{name}", parent.path),
        };
        Ok(Self {
            view,
            offset,
            node,
            depth,
            name,
            path,
        })
    }

    /// Name as stored.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path from the root, without the root's own name; empty for the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Offset of the key's cell, counted from the first bin; for messages and witnesses.
    #[must_use]
    pub fn cell_offset(&self) -> u32 {
        self.offset
    }

    /// Time of the last write, in 100 ns since 1601.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.node.timestamp
    }

    /// Class name; `None` when there is none or its cell is damaged.
    #[must_use]
    pub fn class_name(&self) -> Option<String> {
        if self.node.class == NONE || self.node.class_length == 0 {
            return None;
        }
        let content = self.view.cell(self.node.class, "class name").ok()?;
        Some(name::utf16(slice_at(
            content,
            0,
            usize::from(self.node.class_length),
        )?))
    }

    /// Keys directly below, in the order of the list.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the list or one of the keys is damaged.
    pub fn subkeys(&self) -> Result<Vec<Self>> {
        list::subkeys(&self.view, &self.node)
            .map_err(|error| error.within(self.place()))?
            .into_iter()
            .map(|offset| {
                Key::read(self.view, offset, Some(self)).map_err(|error| error.within(self.place()))
            })
            .collect()
    }

    /// The key below with this name, compared without case; a damaged sibling is an error only when nothing matches.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the list is damaged, or a key in it and none of the others matches.
    pub fn subkey(&self, name: &str) -> Result<Option<Self>> {
        let mut damaged = None;
        for offset in
            list::subkeys(&self.view, &self.node).map_err(|error| error.within(self.place()))?
        {
            match Key::read(self.view, offset, Some(self)) {
                Ok(key) if name::same(key.name(), name) => return Ok(Some(key)),
                Ok(_) => {}
                Err(error) => damaged = Some(error.within(self.place())),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Values, in the order of the list.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the list or one of the values is damaged.
    pub fn values(&self) -> Result<Vec<Value<'h>>> {
        self.value_offsets()?
            .into_iter()
            .map(|offset| {
                Value::read(self.view, offset).map_err(|error| error.within(self.place()))
            })
            .collect()
    }

    /// The value with this name, compared without case; the default value has the name "".
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the list is damaged, or a value in it and none of the others matches.
    pub fn value(&self, name: &str) -> Result<Option<Value<'h>>> {
        let mut damaged = None;
        for offset in self.value_offsets()? {
            match Value::read(self.view, offset) {
                Ok(value) if name::same(value.name(), name) => return Ok(Some(value)),
                Ok(_) => {}
                Err(error) => damaged = Some(error.within(self.place())),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Offsets of the value cells.
    pub(crate) fn value_offsets(&self) -> Result<Vec<u32>> {
        let count = size(self.node.value_count);
        if count == 0 {
            return Ok(Vec::new());
        }
        let content = self
            .view
            .cell(self.node.value_list, "value list")
            .map_err(|error| error.within(self.place()))?;
        if count > content.len().checked_div(4).unwrap_or(0) || count > self.view.entries_max() {
            return Err(Error::corrupt(format_args!(
                "{}: {count} values do not fit the value list of {} bytes",
                self.place(),
                content.len()
            )));
        }
        Ok((0..count)
            .filter_map(|index| View::listed(content, 0, 4, index))
            .collect())
    }

    /// How messages name this key; a path is cut where it gets long.
    pub(crate) fn place(&self) -> String {
        let shown: String = self.path.chars().take(200).collect();
        format!("key \"{shown}\" at {:#x}", self.offset)
    }
}
