//! Resizing: another disk size, with a table that has room for it.
//!
//! When the table must grow past its region, a new one is made at the end of the file and both region tables are
//! changed, the one that counts last. The disk size is one field of the metadata and is written when everything else is
//! ready (growing), or first (shrinking), so that every prefix shows the disk of before or of after.

use super::bat::{self, Geometry, Slot};
use super::header::SECTION;
use super::read::{Vhdx, is_zero};
use super::region::TABLES_AT;
use super::repair::Entries;
use super::{DISK_BYTES_MAX, Guid};
use crate::container::Container;
use crate::edit::{Edit, Plan};
use crate::finding::Findings;
use crate::math::{len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result, Severity};

/// Bytes of a new table written at a time.
const PIECE: u64 = 64 << 10;
/// Most entries set one by one in a plan: those of a fixed disk that grows.
const ENTRIES_MAX: u64 = 1 << 22;

impl Vhdx {
    pub(super) fn plan_resize(&self, size: u64) -> Result<Plan> {
        let old = self.geometry;
        if size > DISK_BYTES_MAX {
            return Err(Error::unsupported(format_args!(
                "VHDX of {size} bytes, more than the {DISK_BYTES_MAX} (64 TiB) of the format"
            )));
        }
        if rem(size, old.sector) != 0 {
            return Err(Error::unsupported(format_args!(
                "VHDX of {size} bytes, which are no whole sectors of {}; the next size is {}",
                old.sector,
                round_up(size, old.sector)
            )));
        }
        if old.has_parent {
            return Err(Error::unsupported(
                "a differencing VHDX is not resized, since its parent keeps its size; convert it to one file first",
            ));
        }
        self.refuse_damaged()?;
        let mut plan = Plan::default();
        if size == old.disk_bytes {
            return Ok(plan);
        }
        let mut headers = self.headers.clone();
        headers.update(&mut plan, &headers.renewed(true))?;
        let new = Geometry {
            disk_bytes: size,
            ..old
        };
        if size > old.disk_bytes {
            self.plan_growth(&new, &mut plan)?;
            plan.push(Edit::Flush);
            self.put_size(size, &mut plan);
        } else {
            self.put_size(size, &mut plan);
            plan.push(Edit::Flush);
            self.plan_shrinking(&new, &mut plan)?;
        }
        plan.push(Edit::Flush);
        Ok(plan)
    }

    /// A plan stands on the whole structure: it must be sound, and have no log to be replayed.
    fn refuse_damaged(&self) -> Result<()> {
        if self.headers.current.log_guid != Guid::ZERO {
            return Err(Error::unsupported(
                "VHDX whose log was not replayed is not resized; repair it first",
            ));
        }
        let mut found = self.noticed().clone();
        self.note_entries(&mut found)?;
        let wrong = |found: &Findings| {
            let mut list = found.list().iter();
            list.find(|finding| finding.rule.severity == Severity::Error)
                .map(|finding| format!("{}: {}", finding.rule.code, finding.message()))
        };
        match wrong(&found) {
            Some(why) => Err(Error::unsupported(format_args!(
                "damaged VHDX is not resized; repair it first ({why})"
            ))),
            None => Ok(()),
        }
    }

    fn put_size(&self, size: u64, plan: &mut Plan) {
        plan.push(Edit::Write {
            offset: self.metadata.disk_bytes_at,
            old: self.geometry.disk_bytes.to_le_bytes().to_vec(),
            new: size.to_le_bytes().to_vec(),
        });
    }

    fn plan_growth(&self, new: &Geometry, plan: &mut Plan) -> Result<()> {
        let mut end = self.survey(&mut |_| Ok(()))?;
        let before = self.geometry;
        let mut changed = Entries::new();
        let mut copy = None;
        if let Some((entry, from)) = self.dirty_tail()? {
            // What stands behind the disk in its last block is not the guest's: the block is copied without it.
            let length = before.bytes_needed(before.blocks().saturating_sub(1));
            copy = Some(Edit::Copy {
                from,
                to: end,
                length,
            });
            changed.insert(entry, end | bat::FULLY_PRESENT);
            end = end.saturating_add(before.block_bytes);
        }
        let added = new.blocks().saturating_sub(before.blocks());
        if self.metadata.leave_blocks_allocated {
            if added > ENTRIES_MAX {
                return Err(Error::unsupported(format_args!(
                    "fixed VHDX that grows by {added} blocks, at most {ENTRIES_MAX} at once"
                )));
            }
            for block in before.blocks()..new.blocks() {
                changed.insert(new.block_entry(block), end | bat::FULLY_PRESENT);
                end = end.saturating_add(before.block_bytes);
            }
        }
        let needed = new.entries().saturating_mul(8);
        let moves = needed > u64::from(self.regions.bat.length);
        let table = end;
        let length = round_up(needed, SECTION);
        if moves {
            end = end.saturating_add(length);
        }
        let old = self.file.len();
        // Also where the file ends inside its last block, as qemu's fixed ones do.
        if end > old {
            plan.push(Edit::Length { old, new: end });
        }
        if let Some(copy) = copy {
            plan.push(copy);
        }
        if moves {
            self.move_table(table, length, &changed, plan)
        } else {
            self.clear_entries(before.entries(), new.entries(), plan)?;
            plan.push(Edit::Flush);
            let behind = changed.split_off(&before.entries());
            self.put_new(self.regions.bat.offset, &behind, plan);
            self.put_entries(plan, &Entries::new(), &changed)
        }
    }

    /// The entry and the place of the last block, when it has bytes behind the end of the disk.
    fn dirty_tail(&self) -> Result<Option<(u64, u64)>> {
        let geometry = self.geometry;
        let Some(last) = geometry.blocks().checked_sub(1) else {
            return Ok(None);
        };
        let index = geometry.block_entry(last);
        let entry = self.entry(index)?;
        let from = bat::offset(entry);
        let (needed, length) = geometry.extent(Slot::Payload(last));
        let (tail, end) = (from.saturating_add(needed), from.saturating_add(length));
        let end = end.min(self.file.len());
        let dirty = bat::is_present(entry) && !is_zero(&self.file, tail, end)?;
        Ok(dirty.then_some((index, from)))
    }

    /// Zeros the entries of blocks that are to come, which may be anything so far.
    fn clear_entries(&self, first: u64, end: u64, plan: &mut Plan) -> Result<()> {
        let stop = self.entry_at(end).min(self.file.len());
        let mut at = self.entry_at(first);
        while at < stop {
            let to = stop.min(at.saturating_add(PIECE));
            if !is_zero(&self.file, at, to)? {
                let new = vec![0; crate::math::index(to.saturating_sub(at))];
                plan.write(&self.file, at, &new)?;
            }
            at = to;
        }
        Ok(())
    }

    /// Writes entries of a table over zeros, neighbours at once.
    fn put_new(&self, table: u64, entries: &Entries, plan: &mut Plan) {
        let mut run: Option<(u64, Vec<u8>)> = None;
        let mut put = |run: &mut Option<(u64, Vec<u8>)>| {
            if let Some((offset, new)) = run.take() {
                let old = vec![0; new.len()];
                plan.push(Edit::Write { offset, old, new });
            }
        };
        for (entry, value) in entries {
            let at = table.saturating_add(entry.saturating_mul(8));
            let joins = run.as_ref().is_some_and(|(offset, bytes)| {
                offset.saturating_add(len64(bytes)) == at && len64(bytes) < PIECE
            });
            if !joins {
                put(&mut run);
            }
            let (_, bytes) = run.get_or_insert((at, Vec::new()));
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        put(&mut run);
    }

    /// Makes the table anew at `place`, which is zeros, with some entries changed, and lets the region tables say so.
    fn move_table(
        &self,
        place: u64,
        length: u64,
        changed: &Entries,
        plan: &mut Plan,
    ) -> Result<()> {
        let count = self.geometry.entries();
        let bytes = count.saturating_mul(8);
        if bytes > 0 {
            plan.push(Edit::Copy {
                from: self.regions.bat.offset,
                to: place,
                length: bytes,
            });
        }
        for (entry, value) in changed.range(..count) {
            plan.push(Edit::Write {
                offset: place.saturating_add(entry.saturating_mul(8)),
                old: self.entry(*entry)?.to_le_bytes().to_vec(),
                new: value.to_le_bytes().to_vec(),
            });
        }
        let behind = changed
            .range(count..)
            .map(|(entry, value)| (*entry, *value));
        self.put_new(place, &behind.collect(), plan);
        let length = u32::try_from(length).map_err(|_| {
            Error::unsupported(format_args!("VHDX BAT of {length} bytes, at most 2^32"))
        })?;
        plan.note(format!("moves the BAT to {place}"));
        let table = self.regions.with_bat(place, length);
        // The first one counts, so the second one is written before it.
        for offset in TABLES_AT.into_iter().rev() {
            plan.push(Edit::Flush);
            plan.write(&self.file, offset, &table)?;
        }
        Ok(())
    }

    /// Clears the entries of blocks that are no more, and cuts the file behind the last one that is.
    fn plan_shrinking(&self, new: &Geometry, plan: &mut Plan) -> Result<()> {
        let (mut lost, mut end) = (0u64, self.areas.end());
        self.survey(&mut |seen| {
            let (_, length) = self.geometry.extent(seen.slot);
            match seen.slot {
                Slot::Payload(block) if block >= new.blocks() => {
                    lost = lost.saturating_add(u64::from(seen.placed));
                }
                _ if seen.placed => {
                    end = end.max(bat::offset(seen.entry).saturating_add(length));
                }
                _ => {}
            }
            Ok(())
        })?;
        let cut = self.geometry.disk_bytes.saturating_sub(new.disk_bytes);
        plan.note(format!(
            "gives up the last {cut} bytes of the disk, {lost} blocks with data among them"
        ));
        self.clear_entries(new.entries(), self.geometry.entries(), plan)?;
        let old = self.file.len();
        if end < old {
            plan.push(Edit::Flush);
            plan.push(Edit::Length { old, new: end });
        }
        Ok(())
    }
}
