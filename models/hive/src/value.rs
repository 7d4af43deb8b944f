//! Values (vk cells) and their data.

use crate::cell::{View, place, size};
use crate::name;
use drylab_block::{Error, Result, array_at, le_u16, le_u32, slice_at};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Most bytes in one segment of big data.
pub(crate) const SEGMENT: usize = 16_344;
/// Bit of the size field that says the data stand in the offset field.
pub(crate) const INLINE: u32 = 0x8000_0000;
/// Flag of a value whose name has one byte per character.
pub(crate) const ONE_BYTE_NAME: u16 = 1;
/// Place of the name in a value cell.
pub(crate) const NAME_AT: usize = 0x14;

/// Type of a value, as in `winnt.h`. Others are kept as the number they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegType(pub u32);

impl RegType {
    /// `REG_NONE`.
    pub const NONE: Self = Self(0);
    /// `REG_SZ`.
    pub const SZ: Self = Self(1);
    /// `REG_EXPAND_SZ`.
    pub const EXPAND_SZ: Self = Self(2);
    /// `REG_BINARY`.
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`.
    pub const DWORD: Self = Self(4);
    /// `REG_DWORD_BIG_ENDIAN`.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// `REG_LINK`.
    pub const LINK: Self = Self(6);
    /// `REG_MULTI_SZ`.
    pub const MULTI_SZ: Self = Self(7);
    /// `REG_QWORD`.
    pub const QWORD: Self = Self(11);
}

impl fmt::Display for RegType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("REG_NONE"),
            1 => f.pad("REG_SZ"),
            2 => f.pad("REG_EXPAND_SZ"),
            3 => f.pad("REG_BINARY"),
            4 => f.pad("REG_DWORD"),
            5 => f.pad("REG_DWORD_BIG_ENDIAN"),
            6 => f.pad("REG_LINK"),
            7 => f.pad("REG_MULTI_SZ"),
            11 => f.pad("REG_QWORD"),
            other => f.pad(&format!("REG_{other:#x}")),
        }
    }
}

/// Where the data are; ranges of the file.
#[derive(Clone, Debug)]
enum Data {
    One(Range<usize>),
    /// Content of the list of segments.
    Big(Range<usize>),
}

/// One value of a key.
#[derive(Clone, Debug)]
pub struct Value<'h> {
    view: View<'h>,
    name: String,
    kind: RegType,
    data: Data,
    length: usize,
}

impl<'h> Value<'h> {
    /// Reads the value cell at `offset`, and checks that its data are there.
    pub(crate) fn read(view: View<'h>, offset: u32) -> Result<Self> {
        let content = view.cell(offset, "value")?;
        let raw = Raw::parse(content).ok_or_else(|| {
            Error::corrupt(format_args!(
                "cell at {offset:#x} ({} bytes) holds no whole value",
                content.len()
            ))
        })?;
        let length = size(raw.size & !INLINE);
        let within = |error: Error| error.within(format_args!("value at {offset:#x}"));
        let data = if raw.size & INLINE != 0 {
            if length > 4 {
                return Err(Error::corrupt(format_args!(
                    "value at {offset:#x} has {length} bytes inside itself, more than 4"
                )));
            }
            let at = place(offset).saturating_add(12);
            Data::One(at..at.saturating_add(length))
        } else if length == 0 {
            Data::One(0..0)
        } else {
            stored(&view, raw.data, length).map_err(within)?
        };
        Ok(Self {
            view,
            name: raw.name,
            kind: RegType(raw.kind),
            data,
            length,
        })
    }

    /// Name; empty for the default value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type.
    #[must_use]
    pub fn kind(&self) -> RegType {
        self.kind
    }

    /// Bytes of data.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a value without data is a value of 0 bytes, nothing special"
    )]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The data; copied only when they are stored in segments.
    #[must_use]
    pub fn data(&self) -> Cow<'h, [u8]> {
        match &self.data {
            Data::One(range) => {
                Cow::Borrowed(self.view.bytes.get(range.clone()).unwrap_or_default())
            }
            Data::Big(list) => {
                let mut bytes = Vec::with_capacity(self.length);
                let list = self.view.bytes.get(list.clone()).unwrap_or_default();
                // Reading the value has been through all segments; none fails here.
                let _ = segments(&self.view, list, self.length, |part| {
                    bytes.extend_from_slice(part)
                });
                Cow::Owned(bytes)
            }
        }
    }

    /// The same bytes as [`Value::data`], as a vector.
    #[must_use]
    pub fn as_binary(&self) -> Vec<u8> {
        self.data().into_owned()
    }

    /// The number of a `REG_DWORD` or `REG_DWORD_BIG_ENDIAN` of exactly four bytes.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        let data = self.data();
        let bytes = array_at::<4>(&data, 0).filter(|_| data.len() == 4)?;
        match self.kind {
            RegType::DWORD => Some(u32::from_le_bytes(bytes)),
            RegType::DWORD_BIG_ENDIAN => Some(u32::from_be_bytes(bytes)),
            _ => None,
        }
    }

    /// The number of a `REG_QWORD` of exactly eight bytes.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        let data = self.data();
        let bytes =
            array_at::<8>(&data, 0).filter(|_| data.len() == 8 && self.kind == RegType::QWORD)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The text of a `REG_SZ`, `REG_EXPAND_SZ` or `REG_LINK`, up to its first NUL.
    #[must_use]
    pub fn as_string(&self) -> Option<String> {
        if !matches!(self.kind, RegType::SZ | RegType::EXPAND_SZ | RegType::LINK) {
            return None;
        }
        let text = name::utf16(&self.data());
        Some(text.split('\0').next().unwrap_or_default().to_owned())
    }

    /// The texts of a `REG_MULTI_SZ`, up to the empty one that ends the list.
    #[must_use]
    pub fn as_multi_string(&self) -> Option<Vec<String>> {
        if self.kind != RegType::MULTI_SZ {
            return None;
        }
        let text = name::utf16(&self.data());
        Some(
            text.split('\0')
                .take_while(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }
}

/// Fields of a vk cell.
pub(crate) struct Raw {
    pub(crate) size: u32,
    pub(crate) data: u32,
    pub(crate) kind: u32,
    pub(crate) name: String,
}

impl Raw {
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        if array_at::<2>(content, 0)? != *b"vk" {
            return None;
        }
        let name_length = usize::from(le_u16(content, 0x02)?);
        let stored = slice_at(content, NAME_AT, name_length)?;
        Some(Self {
            size: le_u32(content, 0x04)?,
            data: le_u32(content, 0x08)?,
            kind: le_u32(content, 0x0C)?,
            name: name::decode(stored, le_u16(content, 0x10)? & ONE_BYTE_NAME != 0),
        })
    }
}

/// Finds and checks data that stand in cells of their own.
fn stored(view: &View<'_>, offset: u32, length: usize) -> Result<Data> {
    if length > view.bytes.len() {
        return Err(Error::corrupt(format_args!(
            "{length} bytes of data claimed in a hive of {} bytes",
            view.bytes.len()
        )));
    }
    let content = view.cell(offset, "data")?;
    if let Some(list) = big(view, content, length) {
        let content = view.cell(list, "data segment list")?;
        segments(view, content, length, |_| {})?;
        let start = place(list).saturating_add(4);
        return Ok(Data::Big(start..start.saturating_add(content.len())));
    }
    if length > content.len() {
        return Err(Error::corrupt(format_args!(
            "{length} bytes of data claimed, the cell at {offset:#x} holds {}",
            content.len()
        )));
    }
    let start = place(offset).saturating_add(4);
    Ok(Data::One(start..start.saturating_add(length)))
}

/// Offset of the segment list when the data cell is a `db` record.
pub(crate) fn big(view: &View<'_>, content: &[u8], length: usize) -> Option<u32> {
    if length <= SEGMENT || view.minor <= 3 || array_at::<2>(content, 0)? != *b"db" {
        return None;
    }
    le_u32(content, 4)
}

/// Hands out the segments until `length` bytes are through.
pub(crate) fn segments<'h>(
    view: &View<'h>,
    list: &[u8],
    length: usize,
    mut part: impl FnMut(&'h [u8]),
) -> Result<()> {
    let mut left = length;
    let mut index = 0usize;
    while left > 0 {
        let offset = View::listed(list, 0, 4, index).ok_or_else(|| {
            Error::corrupt(format_args!(
                "big data ends after segment {index} with {left} bytes missing"
            ))
        })?;
        let content = view.cell(offset, "data segment")?;
        let take = left.min(SEGMENT);
        let bytes = content.get(..take).ok_or_else(|| {
            Error::corrupt(format_args!(
                "data segment {index} at {offset:#x} has {} bytes of {take}",
                content.len()
            ))
        })?;
        part(bytes);
        left = left.saturating_sub(take);
        index = index.saturating_add(1);
    }
    Ok(())
}
