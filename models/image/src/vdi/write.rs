//! Writing dynamic and fixed images.

use super::{BLOCKS_MAX, MAGIC, VdiOptions};
use crate::engine::{self, Work};
use crate::math::{div_up, index, round_up};
use crate::uuid;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// Bytes of a header with the logical geometry, the text and the signature in front of it.
const HEADER: u64 = 472;
const SECTOR: u64 = 512;

/// Where everything goes.
struct Layout {
    size: u64,
    block: u64,
    blocks: u64,
    off_blocks: u64,
    off_data: u64,
}

fn layout(disk: &dyn ReadAt, options: &VdiOptions) -> Result<Layout> {
    let (block, align) = (u64::from(options.block_bytes), u64::from(options.alignment));
    if !block.is_power_of_two() || !(4096..=64 << 20).contains(&block) {
        return Err(Error::unsupported(format_args!(
            "VDI blocks of {block} bytes, written are powers of two from 4096 to 67108864"
        )));
    }
    if !align.is_power_of_two() || !(512..=1 << 20).contains(&align) {
        return Err(Error::unsupported(format_args!(
            "VDI alignment of {align} bytes, written are powers of two from 512 to 1048576"
        )));
    }
    let size = round_up(disk.len(), SECTOR);
    let blocks = div_up(size, block);
    if blocks > BLOCKS_MAX {
        return Err(Error::unsupported(format_args!(
            "VDI of {size} bytes needs {blocks} blocks of {block}, more than the {BLOCKS_MAX} that QEMU reads"
        )));
    }
    let off_blocks = round_up(HEADER, align);
    let off_data = round_up(off_blocks.saturating_add(blocks.saturating_mul(4)), align);
    Ok(Layout {
        size,
        block,
        blocks,
        off_blocks,
        off_data,
    })
}

/// A text in a field that ends with a NUL.
fn text(field: &mut [u8], text: &str, name: &str) -> Result<()> {
    let most = field.len().saturating_sub(1);
    let room = field
        .get_mut(..text.len())
        .filter(|room| room.len() <= most);
    let room = room.ok_or_else(|| {
        Error::unsupported(format_args!(
            "VDI {name} of {} bytes, there is room for {most}",
            text.len()
        ))
    })?;
    room.copy_from_slice(text.as_bytes());
    Ok(())
}

fn header(
    digest: u128,
    options: &VdiOptions,
    layout: &Layout,
    (kind, allocated): (u32, u64),
) -> Result<Vec<u8>> {
    let made =
        |given: Option<[u8; 16]>, label| given.unwrap_or_else(|| uuid::made_of(digest, label));
    let create = made(options.uuid_create, "VDI creation");
    let modify = made(options.uuid_modify, "VDI modification");
    let word = |value: u64| u32::try_from(value).map(u32::to_le_bytes);
    let wide = |value| {
        word(value).map_err(|_| {
            Error::unsupported(format_args!("VDI field of {value}, 32 bits hold less"))
        })
    };
    let mut bytes = vec![0; index(HEADER)];
    let mut put = |at: usize, new: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at.saturating_add(new.len())) {
            place.copy_from_slice(new);
        }
    };
    put(0x40, MAGIC);
    put(0x44, &0x0001_0001u32.to_le_bytes());
    put(0x48, &400u32.to_le_bytes());
    put(0x4c, &kind.to_le_bytes());
    put(0x154, &wide(layout.off_blocks)?);
    put(0x158, &wide(layout.off_data)?);
    put(0x168, &512u32.to_le_bytes());
    put(0x170, &layout.size.to_le_bytes());
    put(0x178, &options.block_bytes.to_le_bytes());
    put(0x180, &wide(layout.blocks)?);
    put(0x184, &wide(allocated)?);
    put(0x188, &uuid::swapped(create));
    put(0x198, &uuid::swapped(modify));
    // The logical geometry stays "not calculated", but for its sector size.
    put(0x1d4, &512u32.to_le_bytes());
    if let Some((info, rest)) = bytes.split_at_mut_checked(0x40) {
        text(info, &options.creator, "creator")?;
        text(
            rest.get_mut(0x14..0x114).unwrap_or_default(),
            &options.comment,
            "comment",
        )?;
    }
    Ok(bytes)
}

/// Whether the digest of the content is needed.
fn is_unnamed(options: &VdiOptions) -> bool {
    options.uuid_create.is_none() || options.uuid_modify.is_none()
}

/// Writes the blocks of `disk` that hold a byte other than zero; the result is the length of the file.
pub(crate) fn write_dynamic(
    disk: &dyn ReadAt,
    options: &VdiOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let layout = layout(disk, options)?;
    // Refuses texts that are too long before anything is written.
    header(0, options, &layout, (1, 0))?;
    let mut map = vec![0xffu8; index(layout.blocks.saturating_mul(4))];
    let mut number = 0u32;
    let named = (layout.block, is_unnamed(options));
    let digest = engine::copy(disk, sink, named, work, |unit| {
        let at = index(unit.saturating_mul(4));
        if let Some(entry) = map.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&number.to_le_bytes());
        }
        let place = u64::from(number).saturating_mul(layout.block);
        number = number.saturating_add(1);
        Ok(layout.off_data.saturating_add(place))
    })?;
    let data = u64::from(number).saturating_mul(layout.block);
    let length = layout.off_data.saturating_add(data);
    sink.set_len(length)?;
    sink.write_at(layout.off_blocks, &map)?;
    sink.write_at(
        0,
        &header(digest, options, &layout, (1, u64::from(number)))?,
    )?;
    Ok(length)
}

/// Entries of a fixed image's map that are written at a time.
const ENTRIES: u64 = 1 << 14;

/// Writes the bytes of `disk`, zeros left to the sink; the result is the length of the file.
pub(crate) fn write_fixed(
    disk: &dyn ReadAt,
    options: &VdiOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    let layout = layout(disk, options)?;
    header(0, options, &layout, (2, 0))?;
    let mut at = 0u64;
    while at < layout.blocks {
        let end = at.saturating_add(ENTRIES).min(layout.blocks);
        let numbers = (at..end).filter_map(|number| u32::try_from(number).ok());
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        sink.write_at(
            layout.off_blocks.saturating_add(at.saturating_mul(4)),
            &bytes,
        )?;
        at = end;
    }
    let named = (u64::MAX, is_unnamed(options));
    // The disk is one unit: every block stands where its number says.
    let digest = engine::copy(disk, sink, named, work, |_| Ok(layout.off_data))?;
    let length = layout
        .off_data
        .saturating_add(layout.blocks.saturating_mul(layout.block));
    sink.set_len(length)?;
    sink.write_at(0, &header(digest, options, &layout, (2, layout.blocks))?)?;
    Ok(length)
}
