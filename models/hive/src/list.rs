//! Subkey lists: `lf`, `lh` and `li` list keys, `ri` lists lists.

use crate::cell::{View, size};
use crate::key::Node;
use drylab_block::{Error, Result, array_at, le_u16};

/// Kind of a list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Offset and the first four characters.
    Lf,
    /// Offset and hash.
    Lh,
    /// Offset only.
    Li,
}

impl Kind {
    pub(crate) fn signature(self) -> [u8; 2] {
        match self {
            Self::Lf => *b"lf",
            Self::Lh => *b"lh",
            Self::Li => *b"li",
        }
    }

    /// Bytes of one element.
    pub(crate) fn step(self) -> usize {
        if self == Self::Li { 4 } else { 8 }
    }
}

/// One list cell, read.
#[derive(Clone, Debug)]
pub(crate) enum List {
    /// Keys.
    Leaf(Kind, Vec<u32>),
    /// Lists.
    Index(Vec<u32>),
}

/// Reads the list cell at `offset`.
pub(crate) fn read(view: &View<'_>, offset: u32) -> Result<List> {
    let content = view.cell(offset, "subkey list")?;
    let cut = || {
        Error::corrupt(format_args!(
            "subkey list at {offset:#x} does not fit its cell of {} bytes",
            content.len()
        ))
    };
    let kind = match &array_at::<2>(content, 0).ok_or_else(cut)? {
        b"lf" => Some(Kind::Lf),
        b"lh" => Some(Kind::Lh),
        b"li" => Some(Kind::Li),
        b"ri" => None,
        other => {
            let shown = other.escape_ascii();
            return Err(Error::corrupt(format_args!(
                "subkey list at {offset:#x} has unknown signature \"{shown}\""
            )));
        }
    };
    let count = usize::from(le_u16(content, 2).ok_or_else(cut)?);
    let step = kind.map_or(4, Kind::step);
    let offsets = (0..count).map(|index| View::listed(content, 4, step, index));
    let offsets: Vec<u32> = offsets.collect::<Option<_>>().ok_or_else(cut)?;
    Ok(kind.map_or(List::Index(offsets.clone()), |kind| {
        List::Leaf(kind, offsets)
    }))
}

/// Offsets of all keys below a key, in order.
pub(crate) fn subkeys(view: &View<'_>, node: &Node) -> Result<Vec<u32>> {
    if node.subkey_count == 0 {
        return Ok(Vec::new());
    }
    let bound = view.entries_max();
    let claimed = size(node.subkey_count);
    if claimed > bound {
        return Err(Error::corrupt(format_args!(
            "{claimed} subkeys claimed, more than the hive can hold ({bound})"
        )));
    }
    match read(view, node.subkey_list)? {
        List::Leaf(_, offsets) => Ok(offsets),
        List::Index(lists) => {
            let mut all = Vec::new();
            for offset in lists {
                let List::Leaf(_, offsets) = read(view, offset)? else {
                    return Err(Error::corrupt(format_args!(
                        "subkey list at {offset:#x} is an index below an index"
                    )));
                };
                all.extend(offsets);
                if all.len() > bound {
                    return Err(Error::corrupt(format_args!(
                        "subkey lists name more keys than the hive can hold ({bound})"
                    )));
                }
            }
            Ok(all)
        }
    }
}
