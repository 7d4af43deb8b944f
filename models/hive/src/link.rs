//! Entering keys into subkey lists and taking them out.

use crate::base::NONE;
use crate::key::Key;
use crate::list::{self, Kind, List};
use crate::{HiveEditor, name};
use drylab_block::{Error, Result, slice_at};

impl HiveEditor {
    /// Enters a key into its parent's list, in order.
    pub(crate) fn link(&mut self, parent: u32, name: &str, offset: u32) -> Result<()> {
        let node = Key::read(self.heap.view(), parent, None)?.node;
        let kind = if self.heap.view().minor >= 5 {
            Kind::Lh
        } else {
            Kind::Lf
        };
        let place = if node.subkey_count == 0 {
            self.write_leaf(NONE, kind, 0, &element(kind, name, offset))?
        } else {
            match list::read(&self.heap.view(), node.subkey_list)? {
                List::Leaf(kind, keys) => {
                    self.insert(node.subkey_list, kind, &keys, name, offset)?
                }
                List::Index(lists) => {
                    let (index, leaf) = self.leaf_for(&lists, name)?;
                    let List::Leaf(kind, keys) = list::read(&self.heap.view(), leaf)? else {
                        return Err(Error::corrupt(format_args!(
                            "subkey list at {leaf:#x} is an index below an index"
                        )));
                    };
                    let leaf = self.insert(leaf, kind, &keys, name, offset)?;
                    let at = index.saturating_mul(4).saturating_add(4);
                    self.heap.write(node.subkey_list, at, &leaf.to_le_bytes())?;
                    node.subkey_list
                }
            }
        };
        self.heap.write(parent, 0x1C, &place.to_le_bytes())?;
        self.heap.write(
            parent,
            0x14,
            &node.subkey_count.saturating_add(1).to_le_bytes(),
        )
    }

    /// The leaf of an index that a name belongs to: the first whose last key is not before it.
    fn leaf_for(&self, lists: &[u32], name: &str) -> Result<(usize, u32)> {
        let view = self.heap.view();
        let mut found = None;
        for (index, leaf) in lists.iter().enumerate() {
            found = Some((index, *leaf));
            let List::Leaf(_, keys) = list::read(&view, *leaf)? else {
                continue;
            };
            let last = keys.last().and_then(|key| Key::read(view, *key, None).ok());
            if last.is_some_and(|last| name::compare(last.name(), name).is_ge()) {
                break;
            }
        }
        found.ok_or_else(|| Error::corrupt("an index of subkey lists names none"))
    }

    fn insert(
        &mut self,
        cell: u32,
        kind: Kind,
        keys: &[u32],
        name: &str,
        offset: u32,
    ) -> Result<u32> {
        let view = self.heap.view();
        let behind = |key: &u32| {
            Key::read(view, *key, None).is_ok_and(|key| name::compare(key.name(), name).is_gt())
        };
        let index = keys.iter().position(behind).unwrap_or(keys.len());
        let mut elements = self.elements(cell, kind, keys.len())?;
        let at = index.saturating_mul(kind.step()).min(elements.len());
        elements.splice(at..at, element(kind, name, offset));
        self.write_leaf(cell, kind, keys.len(), &elements)
    }

    /// Elements of a leaf as they stand.
    fn elements(&self, cell: u32, kind: Kind, count: usize) -> Result<Vec<u8>> {
        let content = self.heap.view().cell(cell, "subkey list")?;
        let elements = slice_at(content, 4, count.saturating_mul(kind.step()));
        Ok(elements
            .ok_or_else(|| Error::corrupt(format_args!("subkey list at {cell:#x} is cut")))?
            .to_vec())
    }

    /// Writes a leaf that had `before` keys and has the given elements now.
    fn write_leaf(&mut self, cell: u32, kind: Kind, before: usize, elements: &[u8]) -> Result<u32> {
        let count = elements.len().checked_div(kind.step()).unwrap_or(0);
        let count = u16::try_from(count).map_err(|_| {
            Error::unsupported(format_args!("subkey list of {before} keys is full"))
        })?;
        let mut content = kind.signature().to_vec();
        content.extend_from_slice(&count.to_le_bytes());
        content.extend_from_slice(elements);
        self.rewrite(cell, &content)
    }

    /// Takes a key out of its parent's list.
    pub(crate) fn unlink(&mut self, parent: u32, offset: u32) -> Result<()> {
        let node = Key::read(self.heap.view(), parent, None)?.node;
        let place = match list::read(&self.heap.view(), node.subkey_list)? {
            List::Leaf(kind, keys) => self.remove(node.subkey_list, kind, &keys, offset)?,
            List::Index(lists) => self.remove_below(node.subkey_list, lists, offset)?,
        };
        self.heap.write(parent, 0x1C, &place.to_le_bytes())?;
        self.heap.write(
            parent,
            0x14,
            &node.subkey_count.saturating_sub(1).to_le_bytes(),
        )
    }

    fn remove(&mut self, cell: u32, kind: Kind, keys: &[u32], offset: u32) -> Result<u32> {
        let Some(index) = keys.iter().position(|key| *key == offset) else {
            return Ok(cell);
        };
        let mut elements = self.elements(cell, kind, keys.len())?;
        let at = index.saturating_mul(kind.step());
        elements.drain(at..at.saturating_add(kind.step()).min(elements.len()));
        if elements.is_empty() {
            self.heap.release(cell)?;
            return Ok(NONE);
        }
        self.write_leaf(cell, kind, keys.len(), &elements)
    }

    fn remove_below(&mut self, index: u32, mut lists: Vec<u32>, offset: u32) -> Result<u32> {
        for at in 0..lists.len() {
            let Some(leaf) = lists.get(at).copied() else {
                break;
            };
            let List::Leaf(kind, keys) = list::read(&self.heap.view(), leaf)? else {
                continue;
            };
            if keys.contains(&offset) {
                if self.remove(leaf, kind, &keys, offset)? == NONE {
                    lists.remove(at);
                }
                break;
            }
        }
        if lists.is_empty() {
            self.heap.release(index)?;
            return Ok(NONE);
        }
        let mut content = b"ri".to_vec();
        content.extend_from_slice(&u16::try_from(lists.len()).unwrap_or(u16::MAX).to_le_bytes());
        content.extend(lists.iter().flat_map(|list| list.to_le_bytes()));
        self.rewrite(index, &content)
    }
}

/// One element of a leaf.
fn element(kind: Kind, name: &str, offset: u32) -> Vec<u8> {
    let mut bytes = offset.to_le_bytes().to_vec();
    match kind {
        Kind::Lf => bytes.extend_from_slice(&name::hint(name).to_le_bytes()),
        Kind::Lh => bytes.extend_from_slice(&name::hash(name).to_le_bytes()),
        Kind::Li => {}
    }
    bytes
}
