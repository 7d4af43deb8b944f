//! Looking at the whole structure: every cluster behind the header has one reference.
//!
//! Memory is bounded: clusters are counted in windows of the file, as many as fit; each walks the tables once.

use super::read::{Qed, ZERO};
use super::rules;
use crate::finding::Findings;
use crate::map::Units;
use crate::math::{div, div_up};
use crate::qcow2::counts::{Counts, class};
use drylab_block::{Error, ReadAt, Result};
use std::collections::BTreeSet;

/// Bytes of memory that one window's counts take, and windows at most.
const WINDOW: u64 = 32 << 20;
const WINDOWS: u32 = 64;

pub(super) fn check(image: &Qed, found: &mut Findings) -> Result<()> {
    let header = &image.header;
    let clusters = div_up(image.source.len(), header.cluster);
    let mut from = header.header_clusters;
    for window in 0..=WINDOWS {
        let mut counts = Counts::new(from, WINDOW);
        let mut walk = Walk {
            image,
            counts: &mut counts,
            found,
            say: window == 0,
        };
        walk.all()?;
        let next = counts.range().end.min(clusters);
        leaks(image, &counts, from..next, found);
        from = next;
        if from >= clusters {
            return Ok(());
        }
    }
    Err(Error::unsupported(format_args!(
        "QED check: {clusters} clusters in more than {WINDOWS} windows of {WINDOW} bytes of memory"
    )))
}

struct Walk<'a> {
    image: &'a Qed,
    counts: &'a mut Counts,
    found: &'a mut Findings,
    /// Whether wrong entries are said in this walk.
    say: bool,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<()> {
        let header = &self.image.header;
        let file = self.image.source.len();
        self.take(
            header.l1_offset,
            header.table_clusters,
            class::L1,
            "L1 table",
        );
        // A table that another overlaps is found to be so and not walked again.
        let mut seen = BTreeSet::new();
        for (number, offset) in (0u64..).zip(&self.image.l1) {
            if *offset == 0 {
                continue;
            }
            let path = format!("L1 table, entry {number}");
            if !header.holds(*offset, header.table_bytes(), file) {
                let place = header.l1_offset.saturating_add(number.saturating_mul(8));
                self.wrong(&rules::TABLE, place, &path, *offset);
                // What of it the file has is the table's all the same.
                if header.has_place(*offset) && *offset < file {
                    self.take(*offset, header.table_clusters, class::L2, &path);
                }
                continue;
            }
            self.take(*offset, header.table_clusters, class::L2, &path);
            let bytes = header.table_bytes();
            let near = offset.saturating_sub(bytes.saturating_sub(1))..offset.saturating_add(bytes);
            let alone = seen.range(near).next().is_none();
            seen.insert(*offset);
            if alone {
                self.table(*offset, number)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, offset: u64, l1: u64) -> Result<()> {
        let header = &self.image.header;
        let file = self.image.source.len();
        for (number, entry) in (0u64..).zip(self.image.read_table(offset)?) {
            if entry == 0 || entry == ZERO {
                continue;
            }
            let place = offset.saturating_add(number.saturating_mul(8));
            let path = || format!("L2 table {l1}, entry {number}");
            if !header.has_place(entry) || entry >= file {
                self.wrong(&rules::CLUSTER, place, &path(), entry);
                continue;
            }
            let unit = l1.saturating_mul(header.per_table()).saturating_add(number);
            let end = entry.saturating_add(self.image.bytes_needed(unit));
            if end > file && self.say {
                let expected = format!("{} bytes more in the file", end.saturating_sub(file));
                let found = format!("{entry:#x}");
                self.found
                    .add(&rules::CUT, (place, 8), path(), found, expected);
            }
            if self.counts.range().contains(&div(entry, header.cluster)) {
                self.count(div(entry, header.cluster), class::DATA, path);
            }
        }
        Ok(())
    }

    fn wrong(&mut self, rule: &'static crate::finding::Rule, place: u64, path: &str, is: u64) {
        if self.say {
            let expected = format!(
                "a cluster behind the header inside the file ({:#x})",
                self.image.source.len()
            );
            self.found
                .add(rule, (place, 8), path, format!("{is:#x}"), expected);
        }
    }

    fn take(&mut self, offset: u64, clusters: u64, class: u16, path: &str) {
        let first = div(offset, self.image.header.cluster);
        for cluster in first..first.saturating_add(clusters) {
            self.count(cluster, class, || path.to_owned());
        }
    }

    fn count(&mut self, cluster: u64, class: u16, path: impl Fn() -> String) {
        let before = self.counts.slot(cluster);
        self.counts.add(cluster, 1, class);
        // What did not fit the window is counted by the next one.
        if before.count > 0 && self.counts.count(cluster) > u64::from(before.count) {
            let bytes = self.image.header.cluster;
            let place = (cluster.saturating_mul(bytes), bytes);
            let found = format!(
                "at cluster {cluster}, which holds {}",
                class::names(before.classes)
            );
            self.found.add(
                &rules::OVERLAP,
                place,
                path(),
                found,
                "a cluster of its own",
            );
        }
    }
}

/// Ranges that no table names, one finding each.
fn leaks(image: &Qed, counts: &Counts, clusters: std::ops::Range<u64>, found: &mut Findings) {
    let bytes = image.header.cluster;
    let mut say = |from: u64, to: u64| {
        if from < to {
            let length = to.saturating_sub(from).saturating_mul(bytes);
            let place = (from.saturating_mul(bytes), length);
            let path = format!("clusters from {from} up to {to}");
            found.add(
                &rules::LEAK,
                place,
                path,
                "named by no table",
                "named by one",
            );
        }
    };
    let mut at = clusters.start;
    for (cluster, _) in counts.referenced() {
        if clusters.contains(&cluster) {
            say(at, cluster);
            at = cluster.saturating_add(1);
        }
    }
    say(at, clusters.end);
}
