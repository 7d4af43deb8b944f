//! What takes a look at every block: bits that are clear over bytes that are not.

use super::SECTOR;
use super::blocks::Blocks;
use super::header::bitmap_bytes;
use super::read::buffer;
use super::rules;
use crate::engine::is_zero;
use crate::finding::Findings;
use crate::layer::{Layer, standing};
use crate::math::{div_up, index};
use drylab_block::{ReadAt, Result};

/// Looks at the bitmaps of a dynamic disk. Blocks that stand over others are left out, so that no byte is read twice.
pub(super) fn bitmaps(blocks: &Blocks, found: &mut Findings) -> Result<()> {
    for_each_wrong(blocks, |unit, start, _, sectors| {
        let at = (start, bitmap_bytes(blocks.header.block));
        let path = format!("sector bitmap of block {unit}");
        let said = format!("clear for {sectors} sectors that hold data");
        found.add(&rules::BITMAP_CLEAR, at, path, said, "set");
    })
}

/// Visits the blocks whose bitmap is clear for sectors that are not zero: place in the table, of the bitmap, the bitmap,
/// and how many they are.
pub(super) fn for_each_wrong(
    blocks: &Blocks,
    mut visit: impl FnMut(u32, u64, &[u8], u64),
) -> Result<()> {
    let source = blocks.source();
    for (entry, unit, over) in blocks.standing() {
        if over {
            continue;
        }
        let (start, data, end) = blocks.range(u64::from(unit), entry);
        let bits = standing(source, start, bitmap_bytes(blocks.header.block))?;
        let end = end.min(blocks.data_end);
        let sectors = wrong_sectors(source, &bits, (data, end))?;
        if sectors > 0 {
            visit(unit, start, &bits, sectors);
        }
    }
    Ok(())
}

/// Number of sectors whose bit is clear and that hold a byte other than zero.
fn wrong_sectors(source: &dyn ReadAt, bits: &[u8], (data, end): (u64, u64)) -> Result<u64> {
    let sectors = div_up(end.saturating_sub(data), SECTOR);
    let bytes = bits.iter().take(index(div_up(sectors, 8)));
    let mut wrong = 0u64;
    for (number, _) in (0u64..).zip(bytes).filter(|(_, byte)| **byte != 0xff) {
        let from = data.saturating_add(number.saturating_mul(8).saturating_mul(SECTOR));
        let mut part = buffer(end.saturating_sub(from).min(8 * SECTOR));
        source.read_at(from, &mut part)?;
        let byte = bits.get(index(number)).copied().unwrap_or(0);
        let clear = |bit: u64| byte & (0x80u8 >> (bit % 8)) == 0;
        let sectors = (0u64..).zip(part.chunks(index(SECTOR)));
        let lost = sectors.filter(|(bit, sector)| clear(*bit) && !is_zero(sector));
        wrong = wrong.saturating_add(u64::try_from(lost.count()).unwrap_or(0));
    }
    Ok(wrong)
}
