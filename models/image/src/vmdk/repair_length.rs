//! Mending a file that ends in front of `overHead`.

use super::check::Survey;
use super::header::{Header, SECTOR};
use super::hosted::Hosted;
use super::repair::Mend;
use crate::math::{div_up, round_up};

impl Hosted {
    /// The last sector at which grains begin where header, descriptor and all tables stand in front of them, each twice.
    fn overhead_most(&self) -> u64 {
        let header = &self.header;
        let tables = header.tables().saturating_mul(header.table_sectors());
        let once = header.directory_sectors().saturating_add(tables);
        let most = self.area_end.saturating_add(once.saturating_mul(2));
        round_up(most, header.grain.max(Header::GRAIN))
    }
}

impl Mend<'_> {
    /// Gives a file that was cut in front of `overHead` its length back, or leads `overHead` into the file where no layout
    /// explains it. Entries that led behind the end were cleared before, or they would come to lie inside.
    pub(super) fn reach_overhead(&mut self, survey: &Survey) {
        let overhead = self.header.overhead;
        if overhead <= div_up(self.end, SECTOR) {
            return;
        }
        if survey.first.is_some() || overhead > self.disk.overhead_most() {
            self.header.overhead = survey.first.unwrap_or(survey.end);
            return;
        }
        // A stream ends with a sector of zeros, the marker of its end.
        let marker = u64::from(self.disk.header.has_markers());
        self.end = overhead.saturating_add(marker).saturating_mul(SECTOR);
        self.barrier = true;
        self.fill();
        self.plan.note(format!(
            "the file ends in front of overHead, sector {overhead}; what it lost there becomes zeros"
        ));
    }
}
