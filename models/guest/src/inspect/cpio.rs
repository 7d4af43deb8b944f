//! The container of an initial RAM filesystem: cpio archives one after another, some of them compressed.
//!
//! Linux Documentation/driver-api/early-userspace/buffer-format.rst; cpio(5), "New ASCII Format".
//!
//! ```text
//! initramfs  := ( 4-byte zeros* ( "newc" cpio | compressed cpio ) )*
//! header     := "070701" or "070702", then 13 fields of 8 hex digits:
//!               ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
//! entry      := header name\0 pad4 data pad4         last entry: name "TRAILER!!!"
//! ```

use super::unpack::Packed;
use drylab_block::{Error, Limits, Result, slice_at};

/// One file of an archive.
pub struct Entry<'a> {
    /// Path without leading `/` or `./`.
    pub name: String,
    /// File mode: 0o100000 regular, 0o040000 directory, 0o120000 link.
    pub mode: u32,
    /// Content (target of a link).
    pub data: &'a [u8],
}

/// Compression of one member of an initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A plain archive.
    Plain,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// Known, not unpacked here: its name.
    Other(&'static str),
}

impl Member {
    /// Name of the compression: `none` without one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Other(name) => name,
            _ => self.packed().map_or("none", Packed::name),
        }
    }

    fn packed(self) -> Option<Packed> {
        match self {
            Self::Gzip => Some(Packed::Gzip),
            Self::Xz => Some(Packed::Xz),
            Self::Zstd => Some(Packed::Zstd),
            Self::Plain | Self::Other(_) => None,
        }
    }
}

/// What starts at the front of `bytes`.
#[must_use]
pub fn member(bytes: &[u8]) -> Option<Member> {
    const MARKS: [(&[u8], Member); 10] = [
        (b"070701", Member::Plain),
        (b"070702", Member::Plain),
        (b"\x1f\x8b", Member::Gzip),
        (b"\xfd7zXZ\0", Member::Xz),
        (b"\x5d\0\0", Member::Other("lzma")),
        (b"\x28\xb5\x2f\xfd", Member::Zstd),
        (b"\x02\x21\x4c\x18", Member::Other("lz4")),
        (b"\x04\x22\x4d\x18", Member::Other("lz4")),
        (b"\x89LZO", Member::Other("lzo")),
        (b"BZh", Member::Other("bzip2")),
    ];
    MARKS
        .iter()
        .find(|(mark, _)| bytes.starts_with(mark))
        .map(|(_, member)| *member)
}

/// Calls `each` for every file of every archive of an initramfs; returns the members met, in order. Stops at a
/// member it cannot unpack, which is then the last.
///
/// # Errors
/// [`Error::Corrupt`] when an archive breaks off, [`Error::Unsupported`] when it unpacks to more than
/// `limits.file_bytes_max` or holds more than `limits.entries_max` files.
pub fn walk(bytes: &[u8], limits: &Limits, each: &mut dyn FnMut(Entry<'_>)) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut rest = bytes;
    let mut budget = Budget {
        entries: limits.entries_max,
        bytes: limits.file_bytes_max,
    };
    while let Some(start) = rest.iter().position(|byte| *byte != 0) {
        rest = rest.get(start..).unwrap_or_default();
        let Some(kind) = member(rest) else {
            let at = bytes.len().saturating_sub(rest.len());
            return Err(Error::corrupt(format_args!(
                "neither a cpio archive nor a known compression at offset {at}"
            )));
        };
        members.push(kind);
        if let Member::Other(_) = kind {
            break;
        }
        let used = match kind.packed() {
            Some(packed) => {
                let (content, used) = packed.unpack(rest, &mut budget.bytes)?;
                plain_archives(&content, &mut budget, each)?;
                used
            }
            None => archive(rest, &mut budget, each)?,
        };
        rest = rest.get(used..).unwrap_or_default();
        if members.len() >= 64 {
            return Err(Error::unsupported("more than 64 archives in one initramfs"));
        }
    }
    Ok(members)
}

/// What an untrusted archive may still cost.
struct Budget {
    entries: u32,
    bytes: u64,
}

/// Archives inside an unpacked member: one or several, zeros between.
fn plain_archives(
    content: &[u8],
    budget: &mut Budget,
    each: &mut dyn FnMut(Entry<'_>),
) -> Result<()> {
    let mut rest = content;
    while let Some(start) = rest.iter().position(|byte| *byte != 0) {
        rest = rest.get(start..).unwrap_or_default();
        let used = archive(rest, budget, each)?;
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(())
}

/// Reads one archive up to its trailer; how many bytes it took.
fn archive(bytes: &[u8], budget: &mut Budget, each: &mut dyn FnMut(Entry<'_>)) -> Result<usize> {
    let mut at = 0usize;
    loop {
        let broken = || {
            Error::corrupt(format_args!(
                "cpio entry at offset {at} ends past the archive ({})",
                bytes.len()
            ))
        };
        let header = slice_at(bytes, at, 110).ok_or_else(broken)?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(Error::corrupt(format_args!("no cpio mark at offset {at}")));
        }
        let mode = hex(header, 14).ok_or_else(broken)?;
        let size = hex(header, 54)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(broken)?;
        let name_size = hex(header, 94)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(broken)?;
        let name_at = at.saturating_add(110);
        let name = slice_at(bytes, name_at, name_size).ok_or_else(broken)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let data_at = pad4(name_at.saturating_add(name_size));
        if name == b"TRAILER!!!" {
            return Ok(data_at.min(bytes.len()));
        }
        let data = slice_at(bytes, data_at, size).ok_or_else(broken)?;
        at = pad4(data_at.saturating_add(size));
        budget.entries = budget
            .entries
            .checked_sub(1)
            .ok_or_else(|| Error::unsupported("too many files in the initramfs"))?;
        let name = String::from_utf8_lossy(name);
        let name = name
            .trim_start_matches("./")
            .trim_start_matches('/')
            .to_owned();
        each(Entry { name, mode, data });
    }
}

/// Next multiple of four.
fn pad4(at: usize) -> usize {
    at.checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

/// Eight hex digits at `offset`.
fn hex(header: &[u8], offset: usize) -> Option<u32> {
    let digits = std::str::from_utf8(slice_at(header, offset, 8)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}
