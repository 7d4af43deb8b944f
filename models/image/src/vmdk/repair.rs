//! Mending a hosted sparse extent and its descriptor.
//!
//! Order, so that a crash anywhere leaves a disk that reads as before or as after:
//!
//! 1. Entries that lead nowhere are cleared and directories led to good tables. The file does not grow before that, or an
//!    entry behind its end would come to lie inside.
//! 2. Copies are written behind the end: grains that two entries share, tables and directories that were lost.
//! 3. Entries are led to the copies.
//! 4. Header fields, the mark of an unclean end last.
//!
//! Before all of them the capacity, where the header's cannot be: how long directories are depends on it.
//!
//! Nothing is planned, and the error says why, where what the plan starts from is in doubt: where a directory lies on what
//! follows it, where more than half of all tables are lost (clearing so many entries would destroy what stands there when the
//! place of the directory, the capacity or the size of grains is the wrong one), where a grain table is empty whose
//! redundant copy has grains and the redundant directory has sectors of its own, where a second directory must be made
//! while tables whose sectors are others', too, differ from their copies, where a stream's directory leads to the marker of
//! a table that its grains contradict, and where a directory is behind grains that are said to have no markers. Tables that lie on each other, or behind `overHead` on a grain, are left as they are.

use super::check::{Fault, Survey, What};
use super::disk::{Body, Vmdk};
use super::header::{FLAG_REDUNDANT, GD_AT_END, Header, SECTOR};
use super::hosted::{Hosted, Layout};
use super::sparse::address;
use crate::codec::Packer;
use crate::edit::{Edit, Plan};
use crate::layer::flush;
use crate::map::Units;
use crate::math::{div, index, len64, round_up};
use drylab_block::{Error, ReadAt, Result, read_vec};
use std::collections::{BTreeMap, BTreeSet};

/// Entries mended by one plan.
const FAULTS_MAX: usize = 1 << 16;
/// Bytes of a header that are fields.
const FIELDS: usize = 79;
impl Vmdk {
    /// Plans the repair of the opened file and of the extents beside it.
    pub(super) fn plan_repair(&self) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut done = BTreeSet::new();
        if matches!(self.parts.first(), Some(part) if part.key.is_empty() && matches!(part.body, Body::Esx(_)))
        {
            return Err(Error::unsupported(
                "sparse extents of ESX are not repaired; convert the disk",
            ));
        }
        // First of all: while the sizes differ, what the next steps change may turn which of them counts.
        let text = self.mended_text(&mut plan);
        let changes_text = text != self.text;
        if changes_text {
            self.text.change(&text, &*self.file, &mut plan)?;
        }
        let beside = |plan: &mut Plan, key: &str, own: Plan| {
            if changes_text {
                plan.then(key, own);
            } else {
                plan.first(key, own);
            }
        };
        for part in &self.parts {
            match &part.body {
                Body::Hosted(hosted) if part.key.is_empty() => {
                    let own = hosted.plan_repair()?;
                    if !own.edits().is_empty() {
                        flush(&mut plan);
                    }
                    plan.append(own);
                }
                Body::Hosted(hosted) if done.insert(part.key.as_str()) => {
                    beside(&mut plan, &part.key, hosted.plan_repair()?);
                }
                Body::Esx(_) => plan.note(format!("{:?} is of ESX and not repaired", part.key)),
                Body::Flat(file, _) if done.insert(part.key.as_str()) => {
                    let own = self.plan_length(&part.key, file.len());
                    beside(&mut plan, &part.key, own);
                }
                Body::Hosted(_) | Body::Zero | Body::Flat(..) => {}
            }
        }
        Ok(plan)
    }

    /// Gives the file of flat extents that was cut the length that they take.
    fn plan_length(&self, key: &str, old: u64) -> Plan {
        let ends = self.parts.iter().filter_map(|part| match &part.body {
            Body::Flat(_, from) if part.key == key => Some(from.saturating_add(part.length)),
            _ => None,
        });
        let new = ends.max().unwrap_or(0);
        let mut plan = Plan::default();
        if new > old {
            plan.push(Edit::Length { old, new });
            let lost = new.saturating_sub(old);
            plan.note(format!(
                "the {lost} bytes that {key:?} lost at its end become zeros"
            ));
        }
        plan
    }
}

/// What is to be mended, collected from a survey.
#[derive(Default)]
pub(super) struct Todo {
    /// Entries to clear, by table.
    pub(super) clear: BTreeMap<u64, Vec<u64>>,
    /// Tables whose copies differ.
    pub(super) differ: BTreeSet<u64>,
    /// Table and entry of grains to copy.
    copy: Vec<(u64, u64, u32)>,
}

/// A repair being planned.
pub(super) struct Mend<'a> {
    pub(super) disk: &'a Hosted,
    pub(super) plan: Plan,
    /// Whether the next step waits for those before it.
    pub(super) barrier: bool,
    /// Bytes of the file as far as it is planned, and those of them that a step writes.
    pub(super) end: u64,
    written: u64,
    /// Tables as they are planned to be.
    pub(super) tables: BTreeMap<u64, Vec<u32>>,
    pub(super) gd: Vec<u32>,
    pub(super) rgd: Vec<u32>,
    /// Whether the redundant directory and its tables are where nothing else is.
    pub(super) second: bool,
    /// Where the markers of a stream have tables to which the directory does not lead.
    pub(super) announced: BTreeMap<u64, u32>,
    pub(super) header: Header,
    pub(super) front: Header,
}

impl Hosted {
    /// Plans the repair of this file.
    pub(super) fn plan_repair(&self) -> Result<Plan> {
        if let Some(overrun) = self.overrun() {
            return Err(Error::unsupported(format_args!(
                "{overrun}, so that the capacity, the size of grains or the place of the directory in the header is likely to be wrong; nothing is planned"
            )));
        }
        let (lost, active) = self.lost_tables();
        if lost > 1 && lost.saturating_mul(2) > active {
            return Err(Error::unsupported(format_args!(
                "{lost} of {active} entries of the grain directory lead nowhere, so that its place or the capacity in the header is likely to be wrong, and clearing them would destroy what stands there; nothing is planned"
            )));
        }
        if matches!(self.layout, Layout::Footer(_)) && !self.header.has_markers() {
            return Err(Error::unsupported(
                "the grain directory is behind the grains, as in a stream, and the flags in the header say that there are no markers, so that they are likely to be wrong; nothing is planned",
            ));
        }
        let mut mend = Mend {
            disk: self,
            plan: Plan::default(),
            barrier: false,
            end: self.source.len(),
            written: self.source.len(),
            tables: BTreeMap::new(),
            gd: self.gd.clone(),
            rgd: self.rgd.clone(),
            second: !self.rgd.is_empty(),
            announced: BTreeMap::new(),
            header: self.header.clone(),
            front: self.front.clone(),
        };
        if self.layout == Layout::Markers {
            mend.make_footer()?;
        } else {
            mend.mend()?;
        }
        mend.headers()?;
        Ok(mend.plan)
    }

    fn collect(&self, plan: &mut Plan) -> Result<(Todo, Survey)> {
        let (mut todo, mut count) = (Todo::default(), 0usize);
        let survey = self.survey(&mut |fault| {
            count = count.saturating_add(1);
            if count > FAULTS_MAX {
                return Ok(());
            }
            match fault {
                Fault::TablesDiffer { table, .. } => {
                    todo.differ.insert(table);
                }
                Fault::Grain {
                    table,
                    entry,
                    value,
                    what: What::Alias | What::Overlap,
                } => todo.copy.push((table, entry, value)),
                Fault::Grain {
                    table,
                    entry,
                    what: What::Range | What::Metadata | What::Marker(_),
                    ..
                } => todo.clear.entry(table).or_default().push(entry),
                // Shared through their tables, on tables in doubt, or not unpacked.
                Fault::Grain { .. } | Fault::TableOverlap { .. } | Fault::TableShared { .. } => {}
            }
            Ok(())
        })?;
        if count > FAULTS_MAX {
            plan.note(format!(
                "the first {FAULTS_MAX} of {count} faults are mended; plan again for the rest"
            ));
        }
        if !survey.shared.is_empty() {
            plan.note(format!(
                "{} grain tables share their sectors with others, or with grains, and are left as they are",
                survey.shared.len()
            ));
        }
        todo.clear.retain(|table, _| !survey.shared.contains(table));
        todo.copy
            .retain(|(table, ..)| !survey.shared.contains(table));
        Ok((todo, survey))
    }
}

impl Mend<'_> {
    /// Adds a step.
    pub(super) fn push(&mut self, edit: Edit) {
        if std::mem::take(&mut self.barrier) && !self.plan.edits().is_empty() {
            self.plan.push(Edit::Flush);
        }
        self.plan.push(edit);
    }

    pub(super) fn write(&mut self, offset: u64, old: Vec<u8>, new: Vec<u8>) {
        if old != new {
            self.push(Edit::Write { offset, old, new });
        }
    }

    fn mend(&mut self) -> Result<()> {
        self.mend_capacity();
        let (mut todo, survey) = self.disk.collect(&mut self.plan)?;
        if survey.second_hit {
            for number in &survey.shared {
                if self.disk.has_other_twin(*number)? {
                    return Err(Error::unsupported(format_args!(
                        "grain table {number} is where something else is and differs from its redundant copy, and the redundant directory lies on others, too; which of them is right stands nowhere, and nothing is planned"
                    )));
                }
            }
            // What counts of their tables is written to the others, and no more to them.
            self.second = false;
        } else {
            for number in &todo.differ {
                if self.disk.is_emptied(*number)? {
                    return Err(Error::unsupported(format_args!(
                        "grain table {number} has no grains and its redundant copy has some; which of them is right stands nowhere, and nothing is planned"
                    )));
                }
            }
        }
        self.heed_announced(&mut todo)?;
        // First, as a directory that is given up may be where tables are that change.
        let shared = self.lead_directories();
        self.barrier |= shared.is_whole();
        self.clear(&todo)?;
        if self.disk.header.has_markers() {
            // Nothing is put behind the end of a stream, nor is it written again: it can do without a second directory.
            if shared.is_any() || !self.announced.is_empty() {
                self.header.rgd_offset = 0;
            }
        } else {
            self.barrier = true;
            let moved = self.copy_grains(&todo)?;
            self.own_tables(&shared)?;
            self.write_moved(&moved)?;
        }
        if self.disk.layout == Layout::Front
            && let Some(first) = survey.first
            && first < self.header.overhead
            && (!self.header.has_markers() || self.may_start(first)?)
        {
            self.header.overhead = first;
        }
        if let Layout::Footer(place) = self.disk.layout
            && self.starts_in_front(place)?
        {
            self.header.overhead = self.front.overhead;
        }
        self.reach_overhead(&survey);
        if self.disk.header.has_markers() {
            self.end_stream(&survey)?;
        }
        Ok(())
    }

    /// Plans the capacity that was settled on.
    fn mend_capacity(&mut self) {
        let (said, right) = (self.front.capacity, self.header.capacity);
        if self.disk.layout == Layout::Front && said != right {
            let old = self.front.to_bytes();
            self.front.capacity = right;
            let new = self.front.to_bytes();
            self.write_header(0, &old, &new);
            self.barrier = true;
            self.plan.note(format!(
                "the capacity in the header, {said} sectors, becomes that of the descriptor, {right}"
            ));
        }
    }

    /// Table `number` as it is planned to be.
    fn table(&mut self, number: u64) -> Result<&mut Vec<u32>> {
        if let std::collections::btree_map::Entry::Vacant(place) = self.tables.entry(number) {
            place.insert(self.disk.effective_table(number)?.unwrap_or_default());
        }
        Ok(self.tables.entry(number).or_default())
    }

    /// Sectors of the copies of a table that can be written.
    fn copies(&self, number: u64) -> BTreeSet<u32> {
        let (first, second) = self.disk.entries(number);
        let mut copies = BTreeSet::from([self.disk.table_sector(number)]);
        if self.disk.is_table(first, number) {
            copies.insert(first);
        }
        if self.second && self.disk.is_second(second, number) {
            copies.insert(second);
        }
        copies.remove(&0);
        copies
    }

    /// Leads entries that lead nowhere to what the markers of a stream have for them, clears the others, and writes the table over a copy that differs.
    fn clear(&mut self, todo: &Todo) -> Result<()> {
        let numbers: BTreeSet<u64> = todo.clear.keys().chain(&todo.differ).copied().collect();
        let met = self.met(&todo.clear)?;
        for number in numbers {
            let (mut cleared, mut led) = (0u64, 0u64);
            for entry in todo.clear.get(&number).into_iter().flatten() {
                let sector = met.get(&(number, *entry)).copied().unwrap_or(0);
                let count = if sector == 0 { &mut cleared } else { &mut led };
                *count = count.saturating_add(1);
                set(self.table(number)?, index(*entry), sector);
            }
            for (count, what) in [
                (cleared, "that lead to no grain are cleared"),
                (led, "are led to the grains that have markers of theirs"),
            ] {
                if count > 0 {
                    self.plan
                        .note(format!("grain table {number}: {count} entries {what}"));
                }
            }
            self.write_table(number)?;
        }
        Ok(())
    }

    fn write_table(&mut self, number: u64) -> Result<()> {
        let bytes = word_bytes(self.table(number)?);
        for sector in self.copies(number) {
            let place = u64::from(sector).saturating_mul(SECTOR);
            let length = len64(&bytes);
            let limits = &self.disk.limits;
            let old = read_vec(&*self.disk.source, "grain table", place, length, limits)?;
            self.write(place, old, bytes.clone());
        }
        Ok(())
    }

    /// Plans another place of the directories in the header that counts.
    pub(super) fn write_offsets(&mut self, gd: u64, rgd: u64) {
        let old = self.header.to_bytes();
        self.header.gd_offset = gd;
        self.header.rgd_offset = rgd;
        let offset = self.disk.header_place();
        let new = self.header.to_bytes();
        if offset == 0 {
            self.front = self.header.clone();
        }
        self.write_header(offset, &old, &new);
    }

    /// Plans the change of the fields of a header; the bytes behind them stay what they are.
    fn write_header(&mut self, offset: u64, old: &[u8], new: &[u8]) {
        let fields = |bytes: &[u8]| bytes.get(..FIELDS).unwrap_or_default().to_vec();
        self.write(offset, fields(old), fields(new));
    }

    /// Keeps `length` bytes behind the end of the file; the result is their place and sector.
    fn reserve(&mut self, length: u64, alignment: u64) -> Result<(u64, u32)> {
        let place = round_up(self.end, alignment);
        let sector = address(div(place, SECTOR))?;
        self.end = round_up(place.saturating_add(length), SECTOR);
        Ok((place, sector))
    }

    /// Puts bytes behind the end of the file; the result is their sector.
    pub(super) fn append(&mut self, mut new: Vec<u8>, alignment: u64) -> Result<u32> {
        new.resize(index(round_up(len64(&new), SECTOR)), 0);
        let (offset, sector) = self.reserve(len64(&new), alignment)?;
        self.written = offset.saturating_add(len64(&new));
        self.write(offset, Vec::new(), new);
        Ok(sector)
    }

    /// Copies `length` bytes behind the end of the file, into `whole` bytes; the result is their sector.
    pub(super) fn append_copy(
        &mut self,
        from: u64,
        length: u64,
        whole: u64,
        alignment: u64,
    ) -> Result<u32> {
        let (to, sector) = self.reserve(whole.max(length), alignment)?;
        self.written = to.saturating_add(length);
        self.push(Edit::Copy { from, to, length });
        Ok(sector)
    }

    /// Gives the file the length that was reserved.
    pub(super) fn fill(&mut self) {
        let (old, new) = (self.written, self.end);
        if old < new {
            self.push(Edit::Length { old, new });
            self.written = new;
        }
    }

    /// Copies grains that another entry has, too.
    fn copy_grains(&mut self, todo: &Todo) -> Result<BTreeMap<u64, Vec<u32>>> {
        let mut before: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut packer = Packer::zlib(6)?;
        for (number, entry, value) in &todo.copy {
            let unit = number
                .saturating_mul(self.disk.units_per_table())
                .saturating_add(*entry);
            let sector = if self.disk.header.compressed() {
                let Ok(bytes) = self.disk.unpack_grain(unit, *value) else {
                    continue;
                };
                let mut packed = Vec::new();
                packer.pack_or_store(&bytes, &mut packed)?;
                self.append(packed, SECTOR)?
            } else {
                let from = u64::from(*value).saturating_mul(SECTOR);
                let grain = self.disk.unit_bytes();
                let inside = self.disk.source.len().saturating_sub(from).min(grain);
                self.append_copy(from, inside, grain, grain)?
            };
            let table = self.table(*number)?;
            let old = table.clone();
            set(table, index(*entry), sector);
            before.entry(*number).or_insert(old);
        }
        if !before.is_empty() {
            let count = todo.copy.len();
            let what = format!(
                "{count} grains that shared their sectors get copies of their own; which of two had them first stands nowhere"
            );
            self.plan.note(what);
        }
        Ok(before)
    }

    /// Leads entries to the copies of their grains.
    fn write_moved(&mut self, before: &BTreeMap<u64, Vec<u32>>) -> Result<()> {
        for (number, old) in before {
            let new = word_bytes(self.table(*number)?);
            let old = word_bytes(old);
            for sector in self.copies(*number) {
                let offset = u64::from(sector).saturating_mul(SECTOR);
                // Up to the first step the copies were made equal.
                self.write(offset, old.clone(), new.clone());
            }
        }
        Ok(())
    }

    /// Header fields: what the footer says, the version, the end of the metadata; the mark of an unclean end last.
    fn headers(&mut self) -> Result<()> {
        self.barrier = true;
        let front = match self.disk.layout {
            Layout::Footer(place) => {
                self.header.follow(&self.front);
                settle(&mut self.header);
                let limits = &self.disk.limits;
                let old = read_vec(&*self.disk.source, "VMDK footer", place, SECTOR, limits)?;
                self.write_header(place, &old, &self.header.to_bytes());
                let mut front = self.header.clone();
                front.gd_offset = GD_AT_END;
                if !front.says_redundant() {
                    front.rgd_offset = self.front.rgd_offset;
                }
                front
            }
            Layout::Front => self.header.clone(),
            Layout::Markers => self.front.clone(),
        };
        let old = self.front.to_bytes();
        let mut front = front;
        settle(&mut front);
        self.write_header(0, &old, &front.to_bytes());
        Ok(())
    }
}

/// Makes flags and version say what is there, and ends the session of the last writer.
pub(super) fn settle(header: &mut Header) {
    if header.rgd_offset == 0 {
        header.flags &= !FLAG_REDUNDANT;
    }
    if header.has_zeroed_grains() {
        header.version = header.version.max(2);
    }
    header.unclean = 0;
}

pub(super) fn set(words: &mut [u32], at: usize, value: u32) {
    if let Some(word) = words.get_mut(at) {
        *word = value;
    }
}

pub(super) fn word_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
