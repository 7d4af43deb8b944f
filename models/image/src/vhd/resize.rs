//! Resize.
//!
//! The size stands in the footers. A fixed disk has one, which must be at its end at every moment: a longer disk gets a
//! second one with the old size first, a shorter one says its new size where it stands. A dynamic disk has a copy in
//! front, and of the two the last one counts; it is written when all the rest is there.

use super::blocks::{Blocks, UNUSED};
use super::footer::resized;
use super::header::bitmap_bytes;
use super::read::{Body, Vhd};
use super::repair::{append, lift};
use super::{DISK_BYTES_MAX, SECTOR, VhdFit, VhdSize};
use crate::container::{Container, Opener};
use crate::edit::{Edit, Plan};
use crate::finding::{Finding, Repair};
use crate::layer::{fill, flush, standing, write_entries};
use crate::math::{div, div_up, index, len64, rem, round_up};
use drylab_block::{DenyAll, Error, Limits, ReadAt, Result, Severity};
use std::sync::Arc;

const FOOTER: u64 = 512;

/// Plans to give a fixed or dynamic VHD `bytes`, with the size and the geometry brought together as `fit` says.
/// [`Image::resize`](crate::Image::resize) does it as it was done before.
///
/// # Errors
/// [`Error::Unsupported`] for sizes above 2040 GiB, differencing disks and files to be mended first; as
/// [`open_vhd`](crate::open_vhd).
pub fn resize(file: Arc<dyn ReadAt>, bytes: u64, fit: VhdFit, limits: &Limits) -> Result<Plan> {
    let opener = Opener::new(&DenyAll, limits);
    let image = Vhd::open(file, VhdSize::default(), &opener)?;
    plan(&image, bytes, fit)
}

pub(super) fn plan(image: &Vhd, bytes: u64, fit: VhdFit) -> Result<Plan> {
    let (size, geometry) = fit.fitted(bytes);
    if size > DISK_BYTES_MAX || bytes > DISK_BYTES_MAX {
        return Err(Error::unsupported(format_args!(
            "VHD of {bytes} bytes, more than the {DISK_BYTES_MAX} (2040 GiB) of the format"
        )));
    }
    let wrong = |finding: &&Finding| {
        finding.rule.repair != Repair::No || finding.rule.severity == Severity::Error
    };
    if let Some(finding) = image.noticed().list().iter().find(wrong) {
        return Err(Error::unsupported(format_args!(
            "{}: {}; it is mended before it is resized",
            finding.rule.code,
            finding.message()
        )));
    }
    let then = resized(&image.located.bytes, size, geometry);
    let mut plan = Plan::default();
    if size != bytes {
        let why = match fit {
            VhdFit::RoundedUp => "readers of this creator take the size of its geometry",
            VhdFit::WholeMebibytes => "it has whole MiB",
            VhdFit::Kept | VhdFit::Pinned => "it has whole sectors of 512",
        };
        plan.note(format!(
            "the disk gets {size} bytes, {bytes} were asked for: {why}"
        ));
    }
    match &image.body {
        _ if then == image.located.bytes => {}
        Body::Fixed(_) => resize_fixed(image, (size, &then), &mut plan)?,
        Body::Blocks(blocks) if blocks.below().is_some() => {
            return Err(Error::unsupported(
                "a VHD differencing disk is not resized: its parent has its size; convert it to one file first",
            ));
        }
        Body::Blocks(blocks) if size >= blocks.size => {
            Growth::new(image, blocks, size)?.plan(image, blocks, &then, &mut plan)?;
        }
        Body::Blocks(blocks) => shrink(image, blocks, (size, &then), &mut plan)?,
    }
    Ok(plan)
}

fn resize_fixed(image: &Vhd, (size, then): (u64, &[u8]), plan: &mut Plan) -> Result<()> {
    let (file, now) = (&*image.source, &image.located.bytes);
    let (place, length) = (image.located.place, image.source.len());
    if size > place {
        append(length, size, now, plan);
        flush(plan);
        fill(plan, file, (place, length), 0)?;
        flush(plan);
        plan.push(Edit::Write {
            offset: size,
            old: now.clone(),
            new: then.to_vec(),
        });
    } else {
        plan.write(file, place, then)?;
        if size < place {
            plan.note(format!(
                "the last {} bytes of the disk are given up",
                place.saturating_sub(size)
            ));
            flush(plan);
            plan.write(file, size, then)?;
            flush(plan);
            plan.push(Edit::Length {
                old: length,
                new: size.saturating_add(FOOTER),
            });
        }
    }
    Ok(())
}

/// The first sector behind everything but the last footer.
fn used_end(blocks: &Blocks) -> u64 {
    let ends = blocks.used().map(|(_, entry)| blocks.slot_end(entry));
    let metadata = blocks.metadata.iter().map(|(_, end)| *end);
    round_up(ends.chain(metadata).max().unwrap_or(0), SECTOR)
}

/// What growing a dynamic disk takes.
struct Growth {
    /// Entries of the new table, and where it ends.
    entries: u32,
    table_end: u64,
    /// Blocks in the way of the table, by their place in it, with their entries now and then.
    moves: Vec<(u64, u32, u32)>,
    /// Where the last footer goes.
    end: u64,
}

impl Growth {
    fn new(image: &Vhd, blocks: &Blocks, size: u64) -> Result<Self> {
        let header = &blocks.header;
        let entries = div_up(size, header.block);
        let table_end = header.table.saturating_add(entries.saturating_mul(4));
        let table_end = round_up(table_end, SECTOR);
        let taken = |start: u64, end: u64| start < table_end && header.table < end;
        if taken(header.at, header.end()) {
            return Err(Error::unsupported(format_args!(
                "VHD whose header at {} is in the way of a BAT of {entries} entries; convert it",
                header.at
            )));
        }
        let slot = header.slot();
        let in_the_way = |(_, entry): &(u64, u32)| {
            let start = u64::from(*entry).saturating_mul(SECTOR);
            taken(start, blocks.slot_end(*entry))
        };
        let place = image.located.data_end;
        let mut end = place.max(used_end(blocks)).max(table_end);
        let mut moves = Vec::new();
        for (unit, entry) in blocks.used().filter(in_the_way) {
            let to = u32::try_from(div(end, SECTOR))
                .ok()
                .filter(|to| *to != UNUSED);
            let to = to.ok_or_else(|| {
                Error::unsupported(format_args!(
                    "VHD file reaches byte {end}; its BAT ends at 2^41"
                ))
            })?;
            moves.push((unit, entry, to));
            end = end.saturating_add(slot);
        }
        Ok(Self {
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            table_end,
            moves,
            end,
        })
    }

    fn plan(&self, image: &Vhd, blocks: &Blocks, then: &[u8], plan: &mut Plan) -> Result<()> {
        let (file, now, header) = (&*image.source, &image.located.bytes, &blocks.header);
        let place = image.located.data_end;
        if self.end != place {
            lift(file, self.end, now, plan)?;
            flush(plan);
        }
        let mut table = blocks.table.clone();
        for (unit, from, to) in &self.moves {
            plan.push(Edit::Copy {
                from: u64::from(*from).saturating_mul(SECTOR),
                to: u64::from(*to).saturating_mul(SECTOR),
                length: header.slot(),
            });
            if let Some(entry) = table.get_mut(index(*unit)) {
                *entry = *to;
            }
        }
        if !self.moves.is_empty() {
            plan.note(format!(
                "{} blocks move to the end to make room for the BAT",
                self.moves.len()
            ));
            flush(plan);
            write_entries(
                plan,
                header.table,
                (&blocks.table, &table),
                u32::to_be_bytes,
            );
            flush(plan);
        }
        let known = header.table.saturating_add(len64(&table).saturating_mul(4));
        fill(plan, file, (known, self.table_end), 0xff)?;
        self.zero_tail(file, blocks, &table, plan)?;
        flush(plan);
        plan.write(file, header.at, &header.mended(self.entries, &[]))?;
        flush(plan);
        plan.write(file, 0, then)?;
        flush(plan);
        plan.push(Edit::Write {
            offset: self.end,
            old: now.clone(),
            new: then.to_vec(),
        });
        Ok(())
    }

    /// What stands in the last block behind the disk's old end is none of its bytes: zeros.
    fn zero_tail(
        &self,
        file: &dyn ReadAt,
        blocks: &Blocks,
        table: &[u32],
        plan: &mut Plan,
    ) -> Result<()> {
        let within = rem(blocks.size, blocks.header.block);
        let last = div(blocks.size, blocks.header.block);
        let (Some(old), Some(new)) = (blocks.table.get(index(last)), table.get(index(last))) else {
            return Ok(());
        };
        if within == 0 || *old == UNUSED {
            return Ok(());
        }
        let bits = bitmap_bytes(blocks.header.block);
        let data = |entry: u32| u64::from(entry).saturating_mul(SECTOR).saturating_add(bits);
        let mut at = within;
        while at < blocks.header.block {
            let take = blocks.header.block.saturating_sub(at).min(1 << 16);
            // A moved block is as it was where it stood.
            let old = standing(file, data(*old).saturating_add(at), take)?;
            if old.iter().any(|byte| *byte != 0) {
                let new_bytes = vec![0; old.len()];
                plan.push(Edit::Write {
                    offset: data(*new).saturating_add(at),
                    old,
                    new: new_bytes,
                });
            }
            at = at.saturating_add(take);
        }
        Ok(())
    }
}

fn shrink(image: &Vhd, blocks: &Blocks, (size, then): (u64, &[u8]), plan: &mut Plan) -> Result<()> {
    let (file, header, place) = (&*image.source, &blocks.header, image.located.data_end);
    let entries = div_up(size, header.block);
    plan.note(format!(
        "the last {} bytes of the disk are given up",
        blocks.size.saturating_sub(size)
    ));
    plan.write(file, 0, then)?;
    flush(plan);
    plan.write(file, place, then)?;
    flush(plan);
    let mut kept: Vec<(u32, u64)> = Vec::new();
    let mut free: Vec<u32> = Vec::new();
    for (unit, entry) in blocks.used() {
        if unit < entries {
            kept.push((entry, unit));
        } else {
            free.push(entry);
        }
    }
    kept.sort_unstable();
    free.sort_unstable();
    let mut table = blocks.table.clone();
    table
        .iter_mut()
        .skip(index(entries))
        .for_each(|entry| *entry = UNUSED);
    write_entries(
        plan,
        header.table,
        (&blocks.table, &table),
        u32::to_be_bytes,
    );
    let narrow = u32::try_from(entries).unwrap_or(u32::MAX);
    plan.write(file, header.at, &header.mended(narrow, &[]))?;
    flush(plan);
    let before = table.clone();
    let fits = |entry: &u32| blocks.slot_end(*entry) <= place;
    // The last blocks go to the places that the lost ones leave.
    let pairs = kept
        .iter()
        .rev()
        .zip(free.iter().filter(|entry| fits(entry)));
    for ((from, unit), to) in pairs.take_while(|((from, _), to)| to < &from) {
        plan.push(Edit::Copy {
            from: u64::from(*from).saturating_mul(SECTOR),
            to: u64::from(*to).saturating_mul(SECTOR),
            length: header
                .slot()
                .min(place.saturating_sub(u64::from(*from).saturating_mul(SECTOR))),
        });
        if let Some(entry) = table.get_mut(index(*unit)) {
            *entry = *to;
        }
    }
    if before != table {
        flush(plan);
        write_entries(plan, header.table, (&before, &table), u32::to_be_bytes);
        flush(plan);
    }
    let ends = table.iter().filter(|entry| **entry != UNUSED);
    let ends = ends.map(|entry| blocks.slot_end(*entry));
    let metadata = blocks.metadata.iter().map(|(_, end)| *end);
    let end = round_up(ends.chain(metadata).max().unwrap_or(0), SECTOR);
    if end.saturating_add(FOOTER) <= place {
        let old = standing(file, end, FOOTER)?;
        plan.push(Edit::Write {
            offset: end,
            old,
            new: then.to_vec(),
        });
        flush(plan);
        plan.push(Edit::Length {
            old: file.len(),
            new: end.saturating_add(FOOTER),
        });
    }
    Ok(())
}
