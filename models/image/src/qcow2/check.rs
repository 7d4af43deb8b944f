//! Looking at the whole structure: every reference is counted and held against the refcounts, bit 63 and the other
//! claims to its cluster.
//!
//! Memory is bounded: clusters are counted in windows of the file, as many as fit; each window walks the tables twice,
//! once to count and once for bit 63, which says whether the refcount in the file is 1. The first walk gathers compressed
//! clusters, too, which are unpacked where that is asked for.

use super::counts::{Counts, Slot, class};
use super::entry::{COPIED, Cluster, Entry, OFFSET};
use super::packed::Said;
use super::refcount::{self, Block};
use super::rules;
use super::structure::{L2, Structure};
use crate::finding::{Findings, Rule};
use crate::math::{div, index, len64};
use drylab_block::{Error, Result};

/// Bytes of memory that one window's counts take.
const WINDOW: u64 = 32 << 20;
/// Walks over the tables that a check makes at most, two for each window.
const WINDOWS: u32 = 64;

/// Adds all that breaks a rule. Compressed clusters are unpacked where their places may take some bytes of memory.
pub(super) fn check(
    structure: &Structure<'_>,
    memory: Option<u64>,
    found: &mut Findings,
) -> Result<()> {
    blocks(structure, found);
    let clusters = structure.clusters();
    let mut from = 0;
    for window in 0..=WINDOWS {
        let mut counts = Counts::new(from, WINDOW);
        if window == 0 {
            let mut said = Said::new(structure, memory, found);
            structure.count(&mut counts, Some(&mut said))?;
            said.look(structure)?;
        } else {
            structure.count(&mut counts, None)?;
        }
        compare(structure, &mut counts, found)?;
        overlaps(structure, &counts, found);
        copied(structure, &counts, found)?;
        from = counts.range().end;
        if from >= clusters {
            return Ok(());
        }
    }
    Err(Error::unsupported(format_args!(
        "qcow2 check: {clusters} clusters in more than {WINDOWS} windows of {WINDOW} bytes of memory"
    )))
}

/// Entries of the refcount table that lead to no block.
fn blocks(structure: &Structure<'_>, found: &mut Findings) {
    let header = structure.header;
    for (number, word) in structure.refcounts.wrong() {
        let at = header
            .refcount_offset
            .saturating_add(number.saturating_mul(8));
        let path = format!("refcount table, entry {number}");
        let expected = "a cluster inside the file";
        found.add(
            &rules::REFCOUNT_BLOCK,
            (at, 8),
            path,
            format!("{word:#x}"),
            expected,
        );
    }
}

/// Holds the counts of a window against the file's refcounts.
fn compare(structure: &Structure<'_>, counts: &mut Counts, found: &mut Findings) -> Result<()> {
    let refcounts = &structure.refcounts;
    let window = counts.range();
    // The last reference may reach into a cluster that the file does not have.
    let reached = counts.last().map_or(0, |last| last.saturating_add(1));
    let end = window.end.min(structure.clusters().max(reached));
    let order = structure.header.refcount_order;
    let first = refcounts.block_of(window.start);
    let blocks = len64(&refcounts.table);
    let last = refcounts.block_of(end.saturating_sub(1)).min(blocks);
    let bytes = index(structure.header.cluster_bytes());
    for number in first..=last {
        let Block::At(offset) = refcounts.block(number) else {
            continue;
        };
        let mut block = vec![0; bytes];
        structure.source.read_at(offset, &mut block)?;
        let start = number.saturating_mul(refcounts.per_block());
        let stop = start.saturating_add(refcounts.per_block()).min(end);
        for cluster in start.max(window.start)..stop {
            let stored = refcount::get(&block, order, index(cluster.saturating_sub(start)));
            if stored == 1 {
                counts.note_one(cluster);
            }
            if counts.range().contains(&cluster) {
                differ(structure, counts, (cluster, stored), found);
            }
        }
    }
    // What no block describes has a refcount of 0.
    let bare: Vec<u64> = counts
        .referenced()
        .map(|(cluster, _)| cluster)
        .filter(|cluster| {
            let block = refcounts.block(refcounts.block_of(*cluster));
            !matches!(block, Block::At(_)) && *cluster < end
        })
        .collect();
    for cluster in bare {
        differ(structure, counts, (cluster, 0), found);
    }
    Ok(())
}

fn differ(
    structure: &Structure<'_>,
    counts: &Counts,
    (cluster, stored): (u64, u64),
    found: &mut Findings,
) {
    let counted = counts.count(cluster);
    if stored == counted {
        return;
    }
    let rule: &'static Rule = if stored < counted {
        &rules::REFCOUNT
    } else {
        &rules::LEAK
    };
    let bytes = structure.header.cluster_bytes();
    let place = (cluster.saturating_mul(bytes), bytes);
    let names = class::names(counts.slot(cluster).classes & !class::TWICE);
    let holds = if names.is_empty() { "nothing" } else { &names };
    let path = format!("refcount of cluster {cluster}, which holds {holds},");
    found.add(rule, place, path, stored, counted);
}

/// Which rule the claims to one cluster break.
pub(super) fn overlap(slot: Slot) -> Option<&'static Rule> {
    let classes = slot.classes & !class::ONE;
    let claims = classes & !class::TWICE;
    // Packed bytes and data may share a cluster, and references be counted.
    let tables = claims & !class::GUEST;
    if tables == 0 || (claims.count_ones() < 2 && classes & class::TWICE == 0) {
        return None;
    }
    let others = tables & !class::REFCOUNTS & !class::L2;
    let fixed = others.count_ones() > 1 || (classes & class::TWICE != 0 && others != 0);
    Some(if fixed {
        &rules::OVERLAP_TABLES
    } else if claims & class::GUEST != 0 {
        &rules::OVERLAP_DATA
    } else if tables & class::REFCOUNTS != 0 {
        &rules::OVERLAP_REFCOUNTS
    } else {
        &rules::OVERLAP_L2
    })
}

fn overlaps(structure: &Structure<'_>, counts: &Counts, found: &mut Findings) {
    let bytes = structure.header.cluster_bytes();
    for (cluster, slot) in counts.referenced() {
        if let Some(rule) = overlap(slot) {
            let place = (cluster.saturating_mul(bytes), bytes);
            let path = format!("cluster {cluster}");
            let names = class::names(slot.classes);
            found.add(
                rule,
                place,
                path,
                format!("claimed by {names}"),
                "one of them",
            );
        }
    }
}

/// Bit 63 of the active tables.
fn copied(structure: &Structure<'_>, counts: &Counts, found: &mut Findings) -> Result<()> {
    let cluster = structure.header.cluster_bytes();
    let (window, end) = (counts.range(), structure.clusters());
    // What is behind the end of the file has no refcount; it is told in the last window.
    let one = |offset: u64| {
        let number = div(offset, cluster);
        if number >= end {
            return (window.end >= end).then_some(false);
        }
        let known = window.contains(&number);
        known.then(|| counts.slot(number).classes & class::ONE != 0)
    };
    let wrong = |is: bool, one: Option<bool>| one.is_some_and(|one| one != is);
    let say = |bit: bool| if bit { "set" } else { "clear" };
    if let Some(l1) = structure.l1s.first() {
        for (number, word) in (0u64..).zip(structure.l1_words(l1)?) {
            let offset = word & OFFSET;
            let bit = word & COPIED != 0;
            if offset != 0 && wrong(bit, one(offset)) {
                let at = l1.offset.saturating_add(number.saturating_mul(8));
                let path = format!("L1 table, entry {number}, bit 63");
                found.add(&rules::COPIED_L1, (at, 8), path, say(bit), say(!bit));
            }
        }
    }
    let active = |table: &&L2| table.number().is_some();
    for table in structure.tables.iter().filter(active) {
        for (number, entry) in (0u64..).zip(structure.l2(table)?.unwrap_or_default()) {
            if entry == Entry::default() {
                continue;
            }
            let (Cluster::Standard(offset) | Cluster::Zero(Some(offset))) =
                structure.header.cluster(entry)
            else {
                continue;
            };
            let expected = if structure.header.data_file() {
                (window.start == 0).then_some(true)
            } else {
                one(offset)
            };
            if wrong(entry.copied(), expected) {
                let place = structure.entry_place(table, number);
                let path = format!("{}, bit 63", Structure::entry_path(table, number));
                let bit = entry.copied();
                found.add(&rules::COPIED_L2, place, path, say(bit), say(!bit));
            }
        }
    }
    Ok(())
}
