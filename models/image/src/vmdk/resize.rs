//! Giving a disk another size.
//!
//! A hosted sparse extent grows by new directories and tables behind its grains: tables that stay whole keep their place,
//! the last one, when it was cut at the end of the disk, gets a whole copy, and the header is led to the new directories
//! in one step. It shrinks by its header; then what stands behind the new end goes.

use super::disk::{Body, Part, Vmdk};
use super::header::{Geometry, Header, SECTOR};
use super::hosted::{Hosted, Layout};
use super::repair::word_bytes;
use super::sparse::{CAPACITY_MAX, address};
use super::text::Text;
use crate::edit::{Edit, Plan};
use crate::finding::{Finding, Repair};
use crate::map::{Store, Units};
use crate::math::{div, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result, Severity, read_vec};

/// Sectors of the largest extent of a split disk: 2047 MiB, as VMware makes them.
pub(super) const SPLIT_MAX: u64 = 4_192_256;

impl Vmdk {
    /// Plans the change to `size` bytes.
    pub(super) fn plan_resize(&self, size: u64) -> Result<Plan> {
        if rem(size, SECTOR) != 0 {
            return Err(Error::unsupported(format_args!(
                "VMDK of {size} bytes: a VMDK has whole sectors of {SECTOR} bytes"
            )));
        }
        let mut plan = Plan::default();
        if size == self.size {
            return Ok(plan);
        }
        let Some(last) = self.parts.last().filter(|_| self.size > 0) else {
            return Err(Error::unsupported(
                "a VMDK of no bytes is not resized; make a new one",
            ));
        };
        let length = size.checked_sub(last.start).filter(|length| *length > 0);
        let length = length.ok_or_else(|| {
            Error::unsupported(format_args!(
                "a VMDK of {} extents shrinks no further than into its last one, which starts at byte {}; convert it",
                self.parts.len(),
                last.start
            ))
        })?;
        self.check_line(last)?;
        self.resize_part(last, length, &mut plan)?;
        let sectors = div(length, SECTOR);
        let text = self.resized_text(last.line, sectors, size);
        if !plan.edits().is_empty() {
            plan.push(Edit::Flush);
        }
        self.text.change(&text, &*self.file, &mut plan)?;
        if size < self.size {
            self.drop_behind(last, (sectors, size), &mut plan)?;
        }
        Ok(plan)
    }

    /// Refuses an extent whose line says another size: between the steps to a new one that line might come to count.
    fn check_line(&self, last: &Part) -> Result<()> {
        let sectors = div(last.length, SECTOR);
        let line = self.descriptor.extents.get(last.line);
        match (&last.body, line) {
            (Body::Hosted(_), Some(line)) if line.sectors != sectors => {
                Err(Error::corrupt(format_args!(
                    "repair the VMDK before it is resized: its last extent has {sectors} sectors, and {} in the descriptor",
                    line.sectors
                )))
            }
            _ => Ok(()),
        }
    }

    fn resize_part(&self, last: &Part, length: u64, plan: &mut Plan) -> Result<()> {
        let sectors = div(length, SECTOR);
        let kind = self.descriptor.value("createType").unwrap_or_default();
        if kind.to_ascii_lowercase().contains("gbmaxextent")
            && sectors > SPLIT_MAX.max(div(last.length, SECTOR))
        {
            return Err(Error::unsupported(format_args!(
                "the last extent of a split VMDK would have {sectors} sectors, more than {SPLIT_MAX} (2047 MiB); convert it"
            )));
        }
        match &last.body {
            Body::Hosted(hosted) if last.key.is_empty() => {
                plan.append(hosted.plan_resize(sectors)?)
            }
            Body::Hosted(hosted) => {
                let own = hosted.plan_resize(sectors)?;
                // Between the two the header has the new size, which counts.
                plan.first(&last.key, own);
            }
            Body::Flat(file, from) => {
                let (old, end) = (file.len(), from.saturating_add(length));
                let mut own = Plan::default();
                if end > old {
                    own.push(Edit::Length { old, new: end });
                    plan.first(&last.key, own);
                } else if from.saturating_add(last.length) == old && end < old {
                    own.push(Edit::Length { old, new: end });
                    plan.then(&last.key, own);
                } else if length > last.length {
                    return Err(Error::unsupported(format_args!(
                        "the last extent ends at byte {} of {:?}, which holds something else behind it",
                        from.saturating_add(last.length),
                        last.key
                    )));
                }
            }
            Body::Zero => {}
            Body::Esx(_) => {
                return Err(Error::unsupported(
                    "sparse extents of ESX are not resized; convert the disk",
                ));
            }
        }
        Ok(())
    }

    /// Plans what goes when a disk has the new size, which is less than its old one, and says what that is.
    fn drop_behind(&self, last: &Part, (sectors, size): (u64, u64), plan: &mut Plan) -> Result<()> {
        let mut note = format!(
            "the last {} bytes of the disk are given up",
            self.size.saturating_sub(size)
        );
        if let Body::Hosted(hosted) = &last.body {
            let (own, lost) = hosted.plan_drop(sectors)?;
            note.push_str(&format!(", {lost} grains with data among them"));
            if !last.key.is_empty() {
                plan.then(&last.key, own);
            } else if !own.is_empty() {
                plan.push(Edit::Flush);
                plan.append(own);
            }
        }
        plan.note(note);
        Ok(())
    }

    /// The descriptor with the new size in the extent line and the cylinders.
    fn resized_text(&self, line: usize, sectors: u64, size: u64) -> Text {
        let mut text = self.text.with(self.text.sectors(line), sectors);
        let adapter = self.descriptor.value("ddb.adapterType").unwrap_or_default();
        let key = "ddb.geometry.cylinders";
        if self.descriptor.value(key).is_some() {
            let ide = adapter.eq_ignore_ascii_case("ide");
            let geometry = Geometry::of(div(size, SECTOR), ide);
            text = text.with(text.value(key), geometry.cylinders);
        }
        text
    }
}

impl Hosted {
    /// Plans the change of this file to `capacity` sectors.
    fn plan_resize(&self, capacity: u64) -> Result<Plan> {
        if self.header.compressed() || self.layout != Layout::Front {
            return Err(Error::unsupported(
                "a streamOptimized VMDK is not resized; convert it",
            ));
        }
        if capacity > CAPACITY_MAX {
            return Err(Error::unsupported(format_args!(
                "VMDK of {capacity} sectors, more than 64 TiB"
            )));
        }
        // Behind the end of the file a grown one would put tables under entries that led nowhere.
        let mut found = self.noticed().clone();
        self.check(&mut found)?;
        let broken = |finding: &&Finding| {
            finding.rule.severity == Severity::Error && finding.rule.repair != Repair::No
        };
        if let Some(finding) = found.list().iter().find(broken) {
            return Err(Error::corrupt(format_args!(
                "repair the VMDK before it is resized: {}",
                finding.message()
            )));
        }
        let mut header = self.header.clone();
        header.capacity = capacity;
        let mut plan = Plan::default();
        let old_entries = self.header.grains();
        if capacity > self.header.capacity {
            let mut end = self.clear_tail(&header, &mut plan)?;
            if header.grains() > old_entries {
                self.grow_tables(&mut header, &mut end, &mut plan)?;
            }
        }
        if !plan.edits().is_empty() {
            plan.push(Edit::Flush);
        }
        let (old, new) = (self.front.to_bytes(), header.to_bytes());
        let fields = |bytes: &[u8]| bytes.get(..79).unwrap_or_default().to_vec();
        plan.push(Edit::Write {
            offset: 0,
            old: fields(&old),
            new: fields(&new),
        });
        Ok(plan)
    }

    /// Zeros behind the old end in the last grain, which a larger disk would show; the result is the end of the file.
    fn clear_tail(&self, new: &Header, plan: &mut Plan) -> Result<u64> {
        let length = self.source.len();
        let inside = rem(self.size(), self.unit_bytes());
        if inside == 0 {
            return Ok(length);
        }
        let unit = div(self.size(), self.unit_bytes());
        let Some(table) = self.table(div(unit, self.units_per_table()))? else {
            return Ok(length);
        };
        let Store::At(place) = self.store(&table, unit)? else {
            return Ok(length);
        };
        let start = unit.saturating_mul(self.unit_bytes());
        let wanted = new.capacity.saturating_mul(SECTOR).saturating_sub(start);
        let end = place.saturating_add(wanted.min(self.unit_bytes()));
        let from = place.saturating_add(inside);
        if end > length {
            plan.push(Edit::Length {
                old: length,
                new: end,
            });
        }
        let held = length.min(end).saturating_sub(from);
        let old = read_vec(&*self.source, "last grain", from, held, &self.limits)?;
        if old.iter().any(|byte| *byte != 0) {
            plan.push(Edit::Write {
                offset: from,
                new: vec![0; old.len()],
                old,
            });
        }
        Ok(length.max(end))
    }

    /// Appends tables and directories for a larger disk and leads the header to them.
    fn grow_tables(&self, header: &mut Header, end: &mut u64, plan: &mut Plan) -> Result<()> {
        let entries = u64::from(self.header.table_entries);
        // The first table that is not whole yet.
        let first = div(self.header.grains(), entries);
        let tables = header.tables();
        let table_bytes = header.table_sectors().saturating_mul(SECTOR);
        let name = "the grain directory of the larger disk";
        self.limits.check_table(name, tables.saturating_mul(4))?;
        let mut at = round_up(*end, SECTOR);
        let empty = index(header.table_sectors().saturating_mul(SECTOR / 4));
        let last = self.table(first)?.filter(|_| first < self.header.tables());
        for (directory, redundant) in [(&self.rgd, true), (&self.gd, false)] {
            if redundant && !self.header.has_redundant() {
                continue;
            }
            let mut sectors: Vec<u32> = directory.iter().take(index(first)).copied().collect();
            sectors.resize(index(first), 0);
            let start = at;
            for number in first..tables {
                sectors.push(address(div(at, SECTOR))?);
                at = at.saturating_add(table_bytes);
                if number == first
                    && let Some(last) = &last
                {
                    let mut table = last.to_vec();
                    table.resize(empty, 0);
                    plan.push(Edit::Write {
                        offset: start,
                        old: Vec::new(),
                        new: word_bytes(&table),
                    });
                }
            }
            let offset = at;
            let sector = u64::from(address(div(offset, SECTOR))?);
            let mut new = word_bytes(&sectors);
            new.resize(index(round_up(len64(&new), SECTOR)), 0);
            at = at.saturating_add(len64(&new));
            plan.push(Edit::Write {
                offset,
                old: Vec::new(),
                new,
            });
            if redundant {
                header.rgd_offset = sector;
            } else {
                header.gd_offset = sector;
            }
        }
        // Grains that are written later start at a whole grain.
        let whole = round_up(at, header.grain_bytes());
        if whole > at {
            plan.push(Edit::Length {
                old: at,
                new: whole,
            });
        }
        *end = whole;
        Ok(())
    }
}
