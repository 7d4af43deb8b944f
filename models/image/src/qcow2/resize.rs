//! Resize: another size of the disk, with a larger L1 table where it needs one.
//!
//! Growing: refcounts of what is new rise first; then a copy of the L1 table stands behind the end of the file; then one
//! write of the header gives size and table at once; then the old table's clusters are free. Shrinking: the header gives
//! the new size first; then entries behind it go; then what they pointed to is free.
//!
//! As with QEMU a version 2 image that has snapshots keeps its size (its snapshots do not say theirs), and so does one
//! with snapshots that would become smaller.

use super::counts::class;
use super::entry::{COPIED, Cluster, Entry};
use super::header::{BITMAPS, L1_MAX, RAW_EXTERNAL};
use super::mend::{Mender, put};
use super::read::Qcow2;
use super::structure::{L1, Structure};
use crate::container::Container;
use crate::edit::Plan;
use crate::finding::{Finding, Findings};
use crate::math::{div, div_up, index, rem, round_up};
use drylab_block::{Error, ReadAt, Result, Severity};

pub(super) fn resize(image: &Qcow2, size: u64) -> Result<Plan> {
    let header = &image.header;
    if size == header.size {
        return Ok(Plan::default());
    }
    refuse(image, size)?;
    let mut found = image.noticed().clone();
    let structure = image.structure(&image.limits, false, &mut found)?;
    super::check::check(&structure, &mut found)?;
    let bad =
        |finding: &&Finding| finding.file.is_empty() && finding.rule.severity == Severity::Error;
    if let Some(finding) = found.list().iter().find(bad) {
        return Err(Error::unsupported(format_args!(
            "qcow2 resize of a damaged image ({}): repair it first",
            finding.rule.code
        )));
    }
    let sound = image.structure(&image.limits, true, &mut Findings::default())?;
    let mut mender = Mender::new(&sound, image.limits.table_bytes_max)?;
    mender.clear_unknown(BITMAPS | RAW_EXTERNAL)?;
    if size > header.size {
        grow(&mut mender, image, size)?;
    } else {
        shrink(&mut mender, image, size)?;
    }
    Ok(mender.plan)
}

/// What keeps an image at its size.
fn refuse(image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    let grows = size > header.size;
    let refuse = |why: &str| {
        Err(Error::unsupported(format_args!(
            "qcow2 resize to {size} bytes: {why}"
        )))
    };
    if rem(size, 512) != 0 {
        return refuse("a disk has whole sectors of 512 bytes");
    }
    if header.l1_needed(size).saturating_mul(8) > L1_MAX {
        return refuse(
            "its L1 table would pass 32 MiB, the most that QEMU opens; convert it to larger clusters",
        );
    }
    if header.snapshots > 0 && header.version < 3 {
        return refuse(
            "snapshots of version 2 have the size of the disk; delete them or convert it",
        );
    }
    if header.snapshots > 0 && !grows {
        return refuse(
            "it has snapshots, which need what would be cut off; delete them or convert it",
        );
    }
    if header.bitmaps_consistent() {
        return refuse("its dirty bitmaps are made for the old size; remove them first");
    }
    if header.data_file() {
        return refuse("its data file would need another length, too; convert it");
    }
    let behind = image
        .backing
        .as_ref()
        .map_or(0, |backing| backing.image().len());
    if grows && behind > header.size {
        return refuse(
            "the backing file is longer than the disk, and its bytes would appear; convert it",
        );
    }
    Ok(())
}

fn grow(mender: &mut Mender<'_>, image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    clear_behind(mender, image)?;
    let needed = header.l1_needed(size);
    let Some(old) = mender.structure.l1s.first().cloned() else {
        return Ok(());
    };
    let words = mender.structure.l1_words(&old)?;
    let used = header.l1_needed(header.size);
    let behind = says_more(mender.structure, header.size)?;
    if behind || words.iter().skip(index(used)).any(|word| *word != 0) {
        return Err(Error::unsupported(
            "qcow2 resize: the L1 table says something of bytes behind the disk's end (a saved machine); convert the image",
        ));
    }
    let mut place = (old.offset, old.entries);
    if needed > old.entries {
        let clusters = div_up(needed.saturating_mul(8), header.cluster_bytes());
        let new = mender.fresh(clusters, 1, class::L1);
        place = (new, needed);
        let mut table = super::be_words(&words);
        table.resize(index(clusters.saturating_mul(header.cluster_bytes())), 0);
        mender.write(new, &table)?;
        mender.flush();
    }
    mender.raise(false)?;
    write_size(mender, size, place)?;
    if place.0 != old.offset {
        mender.give_up(old.offset, old.entries.saturating_mul(8), 1);
        mender.lower()?;
    }
    mender.lengthen()
}

/// Size and L1 table in one write of the header's first sector.
fn write_size(mender: &mut Mender<'_>, size: u64, (offset, entries): (u64, u64)) -> Result<()> {
    let mut head = mender.read(0, 48)?;
    put(&mut head, 24, &size.to_be_bytes());
    let entries = u32::try_from(entries).map_err(Error::io)?;
    put(&mut head, 36, &entries.to_be_bytes());
    put(&mut head, 40, &offset.to_be_bytes());
    mender.write(24, head.get(24..).unwrap_or_default())?;
    mender.flush();
    Ok(())
}

/// Bytes of the last cluster behind the disk's end would be seen by the guest: they become zeros.
fn clear_behind(mender: &mut Mender<'_>, image: &Qcow2) -> Result<()> {
    let header = &image.header;
    let cluster = header.cluster_bytes();
    let within = rem(header.size, cluster);
    let Some((table, entry)) = last_entry(mender.structure, header.size)? else {
        return Ok(());
    };
    if within == 0 {
        return Ok(());
    }
    let start = header.size.saturating_sub(within);
    match header.cluster(entry) {
        Cluster::Absent | Cluster::Zero(_) => Ok(()),
        Cluster::Standard(offset) if entry.copied() && !header.extended() => {
            let (from, to) = (
                offset.saturating_add(within),
                offset.saturating_add(cluster),
            );
            let to = to.min(mender.structure.bounds.file);
            let length = index(to.saturating_sub(from));
            mender.write_changed(from, &vec![0; length])?;
            mender.flush();
            Ok(())
        }
        found => {
            // Shared, compressed or in parts: a cluster of its own takes its place.
            if image.backing.is_some() && header.extended() {
                return Err(Error::unsupported(
                    "qcow2 resize: the last cluster is partly the backing file's; convert the image",
                ));
            }
            let mut bytes = vec![0; index(cluster)];
            let inside = bytes.get_mut(..index(within)).unwrap_or_default();
            image.read_at(start, inside)?;
            if table.references != 1 {
                return Err(Error::unsupported(
                    "qcow2 resize: a snapshot shares the table of the disk's last cluster; grow it by whole clusters after writing there, or convert it",
                ));
            }
            let (_, at, length) = mender
                .structure
                .region(found)
                .ok_or_else(|| Error::corrupt("the last cluster is not in the file"))?;
            let new = mender.fresh(1, 1, class::DATA);
            mender.write(new, &bytes)?;
            mender.flush();
            mender.raise(false)?;
            let entry = Entry {
                word: new | COPIED,
                bitmap: u64::from(u32::MAX),
            };
            write_entry(mender, &table, div(start, cluster), entry)?;
            mender.flush();
            mender.give_up(at, length, 1);
            mender.lower()
        }
    }
}

/// Whether the last L2 table says something of clusters behind the disk's end.
fn says_more(structure: &Structure<'_>, size: u64) -> Result<bool> {
    let header = structure.header;
    let clusters = div_up(size, header.cluster_bytes());
    let within = rem(clusters, header.per_table());
    let number = div(clusters, header.per_table());
    let mut tables = structure.tables.iter();
    let Some(table) = tables.find(|table| table.number() == Some(number)) else {
        return Ok(false);
    };
    let entries = structure.l2(table)?.unwrap_or_default();
    let mut behind = entries.iter().skip(index(within));
    Ok(within != 0 && behind.any(|entry| *entry != Entry::default()))
}

/// The L2 table and entry of the disk's last cluster.
fn last_entry(
    structure: &Structure<'_>,
    size: u64,
) -> Result<Option<(super::structure::L2, Entry)>> {
    let header = structure.header;
    let Some(last) = div_up(size, header.cluster_bytes()).checked_sub(1) else {
        return Ok(None);
    };
    let number = div(last, header.per_table());
    let mut tables = structure.tables.iter();
    let Some(table) = tables.find(|table| table.number() == Some(number)) else {
        return Ok(None);
    };
    let entries = structure.l2(table)?.unwrap_or_default();
    let entry = entries.get(index(rem(last, header.per_table()))).copied();
    Ok(entry.map(|entry| (*table, entry)))
}

/// Plans the writing of one L2 entry.
fn write_entry(
    mender: &mut Mender<'_>,
    table: &super::structure::L2,
    cluster: u64,
    entry: Entry,
) -> Result<()> {
    let header = mender.structure.header;
    let number = rem(cluster, header.per_table());
    let (at, _) = mender.structure.entry_place(table, number);
    let words = [entry.word, entry.bitmap];
    let kept = words.get(..index(header.entry_words())).unwrap_or_default();
    mender.write(at, &super::be_words(kept))
}

fn shrink(mender: &mut Mender<'_>, image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    let structure = mender.structure;
    let Some(l1) = structure.l1s.first().cloned() else {
        return Ok(());
    };
    write_size(mender, size, (l1.offset, l1.entries))?;
    let cluster = header.cluster_bytes();
    let first = div_up(size, cluster);
    let mut freed: Vec<(u64, u64)> = Vec::new();
    let keep = header.l1_needed(size);
    for table in &structure.tables {
        let Some(number) = table.number() else {
            continue;
        };
        let start = number.saturating_mul(header.per_table());
        if start.saturating_add(header.per_table()) <= first {
            continue;
        }
        let mut words = Vec::new();
        for (cluster, entry) in (start..).zip(structure.l2(table)?.unwrap_or_default()) {
            let kept = cluster < first;
            if !kept && let Some((_, at, length)) = structure.region(header.cluster(entry)) {
                freed.push((at, length));
            }
            let entry = if kept { entry } else { Entry::default() };
            let all = [entry.word, entry.bitmap];
            words.extend_from_slice(all.get(..index(header.entry_words())).unwrap_or_default());
        }
        if number >= keep {
            freed.push((table.offset, cluster));
        } else {
            mender.write_changed(table.offset, &super::be_words(&words))?;
        }
    }
    clear_l1(mender, &l1, keep)?;
    mender.flush();
    for (at, length) in freed {
        mender.give_up(at, length, 1);
    }
    mender.lower()?;
    cut(mender)
}

/// L1 entries behind the disk's end say nothing.
fn clear_l1(mender: &mut Mender<'_>, l1: &L1, keep: u64) -> Result<()> {
    let mut words = mender.structure.l1_words(l1)?;
    if let Some(gone) = words.get_mut(index(keep)..) {
        gone.fill(0);
    }
    mender.write_changed(l1.offset, &super::be_words(&words))
}

/// Free clusters at the end of the file go.
fn cut(mender: &mut Mender<'_>) -> Result<()> {
    let last = mender.counts.last().unwrap_or(0);
    let new = mender.offset(last.saturating_add(1));
    let old = mender.structure.bounds.file;
    let aligned = round_up(old, mender.structure.header.cluster_bytes());
    if new < aligned && new < old {
        mender.plan.push(crate::edit::Edit::Length { old, new });
    }
    Ok(())
}
