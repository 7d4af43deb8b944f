//! Repair: the log replayed in the file, headers and region tables mended, blocks given places of their own.
//!
//! The order is one that may be cut anywhere. First the headers get a new FileWriteGuid, as the specification asks of
//! every writer; then the log is replayed, which changes nothing that a reader sees; then the table is mended, blocks
//! being copied before entries point to the copies; last the headers are written again, without the log.

use super::Guid;
use super::bat::{self, Slot};
use super::header::SECTION;
use super::read::Vhdx;
use super::region::TABLES_AT;
use super::rules;
use super::survey::{Fault, Seen};
use crate::container::Container;
use crate::edit::{Edit, Plan};
use crate::finding::{Finding, Rule};
use crate::math::{index, len64};
use drylab_block::{Error, ReadAt, Result};
use std::collections::BTreeMap;

/// Bytes of the table written at a time.
const PAGE: u64 = 4096;
/// Bytes looked at and zeroed at a time.
const PIECE: u64 = 64 << 10;
/// Bytes of a log that a repair makes anew.
const LOG_BYTES: u32 = 1 << 20;

/// Entries that get another value, by index.
pub(super) type Entries = BTreeMap<u64, u64>;

/// The steps behind the first change of the headers.
#[derive(Default)]
struct Body {
    edits: Plan,
    /// Whether the guest can see the change.
    data: bool,
    /// Where the log is from now on, when it moves.
    log: Option<u64>,
}

/// Bytes that a file has, zeros behind its end.
fn padded(file: &dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; index(length)];
    let inside = index(file.len().saturating_sub(offset).min(length));
    if let Some(head) = bytes.get_mut(..inside).filter(|head| !head.is_empty()) {
        file.read_at(offset, head)?;
    }
    Ok(bytes)
}

/// Plans to write `new` where `old` stands, unless they are the same.
fn put(plan: &mut Plan, offset: u64, old: Vec<u8>, new: Vec<u8>) {
    if old != new {
        plan.push(Edit::Write { offset, old, new });
    }
}

impl Vhdx {
    pub(super) fn plan_repair(&self) -> Result<Plan> {
        for rule in [&rules::REGION_PLACE, &rules::REGION_OVERLAP] {
            if let Some(finding) = self.own(rule) {
                return Err(Error::unsupported(format_args!(
                    "{}: {}; which of both is right cannot be told, so nothing is written",
                    rule.code,
                    finding.message()
                )));
            }
        }
        let mut body = Body::default();
        self.plan_replay(&mut body)?;
        self.plan_tables(&mut body)?;
        self.plan_entries(&mut body)?;
        let pending = self.headers.current.log_guid != Guid::ZERO;
        let sound = self.own(&rules::HEADER).is_none();
        if body.edits.is_empty() && body.log.is_none() && !pending && sound {
            return Ok(Plan::default());
        }
        let mut plan = Plan::default();
        let mut headers = self.headers.clone();
        headers.update(&mut plan, &headers.renewed(body.data))?;
        for edit in body.edits.edits() {
            plan.push(edit.clone());
        }
        for note in body.edits.notes() {
            plan.note(note);
        }
        if !body.edits.is_empty() {
            plan.push(Edit::Flush);
        }
        if pending || body.log.is_some() {
            let mut header = headers.current.clone();
            header.log_guid = Guid::ZERO;
            if let Some(place) = body.log {
                (header.log_offset, header.log_length) = (place, LOG_BYTES);
            }
            headers.update(&mut plan, &header)?;
        }
        Ok(plan)
    }

    /// A place of this file, none of its parents, that breaks a rule.
    pub(super) fn own(&self, rule: &'static Rule) -> Option<&Finding> {
        let mut found = self.noticed().list().iter();
        found.find(|finding| finding.rule == rule && finding.file.is_empty())
    }

    /// Writes what the log lays over the file.
    fn plan_replay(&self, body: &mut Body) -> Result<()> {
        let (source, length) = (&*self.file.source, self.file.len());
        let plan = &mut body.edits;
        if length > source.len() {
            let old = source.len();
            plan.push(Edit::Length { old, new: length });
        }
        let mut left = self.limits.table_bytes_max;
        for (offset, bytes) in self.file.patches.ranges() {
            let end = offset.saturating_add(bytes);
            let mut at = offset;
            while at < end {
                let mut take = PIECE.min(end.saturating_sub(at));
                if bytes > PAGE && at >= source.len() {
                    // Zeros behind the end need no writing.
                    break;
                }
                let extent = source.extent_at(at);
                if bytes > PAGE && !extent.kind.has_bytes() {
                    // Zeros over a hole need none, either.
                    take = extent.length.max(1);
                } else {
                    let (old, new) = (padded(source, at, take)?, padded(&self.file, at, take)?);
                    if old != new {
                        left = left.checked_sub(take).ok_or_else(|| {
                            Error::unsupported(format_args!(
                                "VHDX log that writes more than the {} bytes allowed in a plan",
                                self.limits.table_bytes_max
                            ))
                        })?;
                    }
                    put(plan, at, old, new);
                }
                at = at.saturating_add(take);
            }
        }
        let log = self.headers.current.log_guid;
        if log != Guid::ZERO {
            plan.note(format!("replays the log {log} and empties it"));
        }
        Ok(())
    }

    /// Writes the region table that counts over the other one.
    fn plan_tables(&self, body: &mut Body) -> Result<()> {
        if !body.edits.is_empty() {
            body.edits.push(Edit::Flush);
        }
        let good = &self.regions.table;
        for place in TABLES_AT {
            let old = padded(&self.file, place, len64(good))?;
            put(&mut body.edits, place, old, good.clone());
        }
        Ok(())
    }

    /// Mends the entries of the table.
    fn plan_entries(&self, body: &mut Body) -> Result<()> {
        let mut changed = Entries::new();
        let mut moved: Vec<(u64, u64)> = Vec::new();
        // Entries that lead behind the end and go: before a longer file brings other bytes there.
        let mut absent = Vec::new();
        let (mut given_up, mut longer) = (0u64, self.file.len());
        let mut end = self.survey(&mut |seen| {
            let sound = self.sound(seen);
            let entry = match self.mended(seen) {
                Mended::Kept => sound,
                Mended::Set(entry) => entry,
                Mended::GivenUp => {
                    given_up = given_up.saturating_add(1);
                    bat::ZERO
                }
                Mended::Longer => {
                    let needed = self.geometry.extent(seen.slot).0;
                    longer = longer.max(bat::offset(sound).saturating_add(needed));
                    body.data = true;
                    sound
                }
                Mended::Moved => {
                    moved.push((seen.index, sound));
                    return Ok(());
                }
            };
            if entry != seen.entry {
                changed.insert(seen.index, entry);
            }
            let place = bat::offset(seen.entry);
            let ends = place.saturating_add(self.geometry.extent(seen.slot).0);
            let goes = match seen.fault {
                Some(Fault::LostBitmap) => Some(0),
                Some(Fault::BeyondEnd) if entry == bat::ZERO => Some(entry),
                _ => None,
            };
            if let Some(entry) = goes.filter(|_| ends > self.file.len()) {
                absent.push((place, (seen.index, entry)));
            }
            Ok(())
        })?;
        let plan = &mut body.edits;
        if given_up > 0 {
            body.data = true;
            plan.note(format!(
                "gives up {given_up} blocks whose bytes are nowhere: they read as zeros"
            ));
        }
        let log = self.own(&rules::LOG_PLACE).is_some();
        if log {
            body.log = Some(end);
            end = end.saturating_add(u64::from(LOG_BYTES));
        }
        let mut copies = Vec::new();
        for (entry, old) in moved {
            let slot = self.geometry.slot(entry);
            let whole = self.pieces(slot, bat::offset(old), end, &mut copies);
            body.data |= !whole;
            changed.insert(entry, end | bat::state(old));
            end = end.saturating_add(self.geometry.extent(slot).1);
        }
        let old = self.file.len();
        let new = if log || !copies.is_empty() {
            end
        } else {
            longer
        };
        absent.retain(|(place, _)| *place < new);
        let cleared: Entries = absent.into_iter().map(|(_, entry)| entry).collect();
        self.put_entries(plan, &Entries::new(), &cleared)?;
        if new > old {
            if !cleared.is_empty() {
                plan.push(Edit::Flush);
            }
            plan.push(Edit::Length { old, new });
        }
        if !copies.is_empty() {
            plan.note(format!("copies {} pieces of blocks out", copies.len()));
        }
        copies.into_iter().for_each(|copy| plan.push(copy));
        changed.extend(cleared.iter());
        self.put_entries(plan, &cleared, &changed)
    }

    /// Whether a repair gives up what an entry points to.
    pub(super) fn is_given_up(&self, seen: &Seen) -> bool {
        matches!(self.mended(seen), Mended::GivenUp)
    }

    /// An entry without its reserved bits, and in state 6 where it says 7 and there is no parent: whatever else is wrong
    /// with it, that must not be left.
    fn sound(&self, seen: &Seen) -> u64 {
        let sound = seen.entry & !bat::reserved(seen.entry);
        let partial = bat::state(sound) == bat::PARTIALLY_PRESENT && !self.geometry.has_parent;
        match seen.slot {
            Slot::Payload(block) if partial && block < self.geometry.blocks() => present(sound),
            _ => sound,
        }
    }

    /// What becomes of an entry.
    fn mended(&self, seen: &Seen) -> Mended {
        let sound = self.sound(seen);
        match &seen.fault {
            None | Some(Fault::NoBitmap | Fault::LostBitmap | Fault::Partial) if seen.shared => {
                Mended::Moved
            }
            None | Some(Fault::NoBitmap | Fault::LostBitmap) => Mended::Kept,
            Some(Fault::Partial) => Mended::Set(sound),
            Some(Fault::Bitmap) => Mended::Set(0),
            Some(Fault::State) => Mended::GivenUp,
            Some(Fault::BeyondEnd) if seen.placed && !seen.shared => Mended::Longer,
            Some(Fault::BeyondEnd) => Mended::GivenUp,
            // Offset 0 is what an entry without a block has: what stands behind the header section is others'.
            Some(Fault::InArea(_)) if bat::offset(sound) == 0 => Mended::GivenUp,
            Some(Fault::InArea(_)) => {
                let mut copies = Vec::new();
                self.pieces(seen.slot, bat::offset(sound), 0, &mut copies);
                if copies.is_empty() {
                    Mended::GivenUp
                } else {
                    Mended::Moved
                }
            }
        }
    }

    /// Plans to copy those MiB of a block that are in the file and in no structure. The answer is whether that is all of
    /// them.
    fn pieces(&self, slot: Slot, from: u64, to: u64, copies: &mut Vec<Edit>) -> bool {
        let (needed, length) = self.geometry.extent(slot);
        let (mut whole, mut done) = (true, 0);
        while done < length {
            let at = from.saturating_add(done);
            let take = SECTION.min(self.file.len().saturating_sub(at));
            let free = take > 0 && self.areas.within(at, at.saturating_add(SECTION)).is_none();
            whole &= (free && take == SECTION) || done.saturating_add(take) >= needed;
            if free {
                let to = to.saturating_add(done);
                match copies.last_mut() {
                    Some(Edit::Copy {
                        from: first,
                        to: place,
                        length,
                    }) if first.checked_add(*length) == Some(at)
                        && place.checked_add(*length) == Some(to) =>
                    {
                        *length = length.saturating_add(take);
                    }
                    _ => copies.push(Edit::Copy {
                        from: at,
                        to,
                        length: take,
                    }),
                }
            }
            done = done.saturating_add(SECTION);
        }
        whole
    }

    /// Plans to write entries, page by page, behind everything they point to.
    pub(super) fn put_entries(
        &self,
        plan: &mut Plan,
        before: &Entries,
        changed: &Entries,
    ) -> Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        if !plan.is_empty() {
            plan.push(Edit::Flush);
        }
        let per_page = PAGE / 8;
        let mut rest = changed.iter().peekable();
        while let Some((entry, _)) = rest.peek().copied() {
            let page = entry / per_page;
            let first = page.saturating_mul(per_page);
            let count = self.geometry.entries().saturating_sub(first).min(per_page);
            let mut old = self.entries(first, count)?;
            for (entry, value) in before.range(first..first.saturating_add(count)) {
                if let Some(place) = old.get_mut(index(entry.saturating_sub(first))) {
                    *place = *value;
                }
            }
            let mut new = old.clone();
            while let Some((entry, value)) = rest.next_if(|(entry, _)| **entry / per_page == page) {
                if let Some(place) = new.get_mut(index(entry.saturating_sub(first))) {
                    *place = *value;
                }
            }
            let [old, new] = [old, new].map(|entries| super::survey::bytes_of(&entries));
            put(plan, self.entry_at(first), old, new);
        }
        Ok(())
    }
}

/// The entry of a block that is there, all of it.
pub(super) fn present(entry: u64) -> u64 {
    (entry & !bat::PARTIALLY_PRESENT) | bat::FULLY_PRESENT
}

/// What becomes of an entry.
enum Mended {
    /// It stays, without its reserved bits.
    Kept,
    /// It gets this value.
    Set(u64),
    /// Its block reads as zeros.
    GivenUp,
    /// The file gets the bytes that it needs.
    Longer,
    /// Its block is copied to a place of its own.
    Moved,
}
