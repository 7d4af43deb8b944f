//! Members to a tar archive, the same bytes for the same members.
//!
//! As ovftool writes it: GNU magic, owner `someone`, two blocks of zeros and no more padding. The time is always 0, so
//! that nothing outside the members shows.

use super::{BLOCK, Member, read};
use crate::findings::quote;
use drylab_block::{Error, Extents, ReadAt, Result, WriteAt};

/// Largest size that eleven octal digits hold.
const OCTAL_MAX: u64 = (1 << 33) - 1;

/// Writes an archive with these members in this order; returns where each went.
///
/// Names over 100 bytes get a GNU long-name header, sizes from 8 GiB base-256. The sink is emptied first.
///
/// # Errors
/// Whatever reading or writing finds; [`Error::Unsupported`] for empty names and names with a NUL.
pub fn write_ova(members: &[(String, &dyn ReadAt)], sink: &dyn WriteAt) -> Result<Vec<Member>> {
    sink.set_len(0)?;
    let mut at = 0u64;
    let mut written = Vec::new();
    for (name, source) in members {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::unsupported(format_args!(
                "name {} cannot stand in an archive",
                quote(name)
            )));
        }
        if name.len() > 100 {
            let mut long = name.clone().into_bytes();
            long.push(0);
            at = put(sink, at, "././@LongLink", b'L', &long)?.1;
        }
        let (offset, next) = put(sink, at, name, b'0', *source)?;
        written.push(Member {
            name: name.clone(),
            offset,
            size: source.len(),
            truncated: false,
        });
        at = next;
    }
    sink.set_len(advance(at, BLOCK.saturating_mul(2))?)?;
    Ok(written)
}

fn advance(at: u64, by: u64) -> Result<u64> {
    at.checked_add(by)
        .ok_or_else(|| Error::unsupported("the archive passes 2^64 bytes"))
}

/// Header, bytes and padding: offset of the bytes, and of what comes next.
fn put(
    sink: &dyn WriteAt,
    at: u64,
    name: &str,
    flag: u8,
    source: &(impl ReadAt + ?Sized),
) -> Result<(u64, u64)> {
    let size = source.len();
    sink.write_at(at, &header(name, flag, size, &OVFTOOL)?)?;
    let start = advance(at, BLOCK)?;
    let padded = size
        .checked_next_multiple_of(BLOCK)
        .ok_or_else(|| Error::unsupported("the archive passes 2^64 bytes"))?;
    let next = advance(start, padded)?;
    sink.set_len(next)?;
    let mut buffer = vec![0u8; 1 << 18];
    for extent in Extents::new(source).filter(|extent| extent.kind.has_bytes()) {
        let (mut from, end) = (extent.offset, extent.offset.saturating_add(extent.length));
        while from < end {
            let take = usize::try_from(end.saturating_sub(from))
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let Some(chunk) = buffer.get_mut(..take) else {
                break;
            };
            source.read_at(from, chunk)?;
            sink.write_at(start.saturating_add(from), chunk)?;
            from = from.saturating_add(u64::try_from(take).unwrap_or(u64::MAX));
        }
    }
    Ok((start, next))
}

/// The fields of a header that say nothing about the member.
pub(crate) struct Style {
    pub(crate) mode: &'static [u8],
    pub(crate) owner: &'static [u8],
    pub(crate) magic: &'static [u8],
    pub(crate) name: &'static [u8],
}

const OVFTOOL: Style = Style {
    mode: b"0000644\0",
    owner: b"0000100\0",
    magic: b"ustar  \0",
    name: b"someone",
};

pub(crate) fn header(name: &str, flag: u8, size: u64, style: &Style) -> Result<[u8; 512]> {
    let mut block = [0u8; 512];
    // A name that is too long is cut at a character; its long-name header comes before and counts.
    let mut cut = name.len().min(100);
    while !name.is_char_boundary(cut) {
        cut = cut.saturating_sub(1);
    }
    let size = if size <= OCTAL_MAX {
        format!("{size:011o}\0").into_bytes()
    } else {
        let mut wide = vec![0x80, 0, 0, 0];
        wide.extend(size.to_be_bytes());
        wide
    };
    for (offset, bytes) in [
        (0usize, name.get(..cut).unwrap_or("").as_bytes()),
        (100, style.mode),
        (108, style.owner),
        (116, style.owner),
        (124, &size),
        (136, b"00000000000\0"),
        (156, &[flag]),
        (257, style.magic),
        (265, style.name),
        (297, style.name),
    ] {
        fill(&mut block, offset, bytes)?;
    }
    let sum = format!("{:06o}\0 ", read::checksum(&block));
    fill(&mut block, 148, sum.as_bytes())?;
    Ok(block)
}

fn fill(block: &mut [u8; 512], offset: usize, bytes: &[u8]) -> Result<()> {
    let end = offset.saturating_add(bytes.len());
    let field = block
        .get_mut(offset..end)
        .ok_or_else(|| Error::unsupported("a tar field is too long"))?;
    field.copy_from_slice(bytes);
    Ok(())
}
