//! A repair of a damaged image: nothing is left that can be repaired, and what could be read reads the same.

use drylab_block::{
    Error, Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, copy_data,
};
use drylab_image::{Image, Options, Repair, open_as};
use drylab_kernel::Streams;
use drylab_specimen::{Corruption, File, Format, Specimen, Stream, judge};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Damages after which our repair is wrong, by format and family of fields, with what is wrong. Nothing else is let pass.
const OPEN: [(Format, &str, &str); 0] = [];

/// Files known by their names.
struct Known<'a>(&'a [File]);

impl Resolver for Known<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.0.iter().find(|file| file.name == reference.name);
        let found = found.ok_or_else(|| Error::unsupported("it is not there"))?;
        Ok(found.bytes.clone())
    }
}

fn open(files: &[File], first: Arc<dyn ReadAt>) -> Result<Image> {
    let resolver = Known(files);
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 16 << 20;
    let options = Options {
        resolver: &resolver,
        limits,
        ..Options::DEFAULT
    };
    open_as(first, &options)
}

/// Pieces of the disk that can be read, up to some MiB.
fn readable(disk: &dyn ReadAt) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    for extent in Extents::new(disk).take(512) {
        let length = usize::try_from(extent.length.min(4096)).unwrap();
        let end = extent.offset + extent.length;
        for at in [extent.offset, end - extent.length.min(4096)] {
            let mut bytes = vec![0; length];
            if disk.read_at(at, &mut bytes).is_ok() {
                found.push((at, bytes));
            }
        }
    }
    found
}

/// What is wrong with the repair of an image, if it opens and can be repaired.
fn repaired(files: &[File]) -> std::result::Result<(), String> {
    let Ok(image) = open(files, files[0].bytes.clone()) else {
        return Ok(());
    };
    let Ok(plan) = image.repair() else {
        return Ok(());
    };
    let before = readable(&image);
    let file = Arc::new(SparseBytes::default());
    copy_data(&files[0].bytes, &*file).map_err(|error| error.to_string())?;
    plan.apply(&*file)
        .map_err(|error| format!("the plan does not fit: {error}"))?;
    let again =
        open(files, file).map_err(|error| format!("it does not open afterwards: {error}"))?;
    let found = again
        .check()
        .map_err(|error| format!("it is not checked afterwards: {error}"))?;
    let mut left = found.list().iter();
    let left = left.find(|finding| finding.rule.repair != Repair::No && finding.file.is_empty());
    if let Some(finding) = left {
        return Err(format!(
            "{} is left: {}",
            finding.rule.code,
            finding.message()
        ));
    }
    if again.len() != image.len() {
        return Err(format!("{} bytes became {}", image.len(), again.len()));
    }
    for (at, bytes) in before {
        let mut now = vec![0; bytes.len()];
        let read = again.read_at(at, &mut now);
        if read.is_err() || now != bytes {
            return Err(format!("what could be read at {at} is lost: {read:?}"));
        }
    }
    Ok(())
}

/// A damage in words.
fn said(made: &Specimen, damage: &Corruption) -> String {
    let field = &made.fields[damage.field];
    format!(
        "{} at {}: {:02x?} to {:02x?} ({:?}, {:?})",
        field.name, field.offset, damage.old, damage.new, damage.kind, damage.resealed
    )
}

/// Images of every kind, and to each of them `each` times `at_once` damages.
fn hold(format: Format, seeds: u64, (each, at_once): (u32, u32)) {
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for subformat in format
        .subformats()
        .iter()
        .filter(|_| judge::is_checked(format))
    {
        for seed in 0..seeds {
            let mut stream = Streams::new(seed).stream("specimen", 0);
            let made = Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat));
            // Streams of their own: 1, 7, 13.
            let mut stream = Streams::new(seed).stream("damage", 6 * at_once - 5);
            let mut stream = Stream(|| stream.word());
            for _ in 0..each {
                let drawn = (0..at_once).filter_map(|_| made.corrupt(&mut stream));
                let damages: Vec<Corruption> = drawn.collect();
                let Err(why) = repaired(&made.damaged(&damages)) else {
                    continue;
                };
                let families: Vec<String> = damages
                    .iter()
                    .map(|damage| made.fields[damage.field].family())
                    .collect();
                let open = |(kind, name, _): &(Format, &str, &str)| {
                    *kind == format && families.iter().any(|family| family == name)
                };
                if OPEN.iter().any(open) {
                    continue;
                }
                let says: Vec<String> = damages.iter().map(|one| said(&made, one)).collect();
                let says = format!("{subformat} seed {seed}: {}: {why}", says.join(" and "));
                let key = format!("{subformat} {}", families.join(" "));
                wrong.entry(key).or_default().push(says);
            }
        }
    }
    let count: usize = wrong.values().map(Vec::len).sum();
    let first = wrong.values().flat_map(|all| all.iter().take(2));
    let first: Vec<&str> = first.map(String::as_str).collect();
    assert!(wrong.is_empty(), "{count} wrong\n{}", first.join("\n"));
}

#[test]
fn a_repair_of_a_damaged_vhd_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vhd, 24, (24, 1));
}

#[test]
fn a_repair_of_a_damaged_vdi_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vdi, 24, (24, 1));
}

#[test]
fn a_repair_of_a_damaged_vhdx_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vhdx, 12, (24, 1));
}

#[test]
fn a_repair_of_a_damaged_qcow2_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Qcow2, 24, (24, 1));
}

#[test]
fn a_repair_of_a_damaged_vmdk_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vmdk, 24, (24, 1));
}

#[test]
fn a_repair_of_a_vhd_with_several_damages_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vhd, 64, (24, 2));
    hold(Format::Vhd, 64, (12, 3));
}

#[test]
fn a_repair_of_a_qcow2_with_several_damages_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Qcow2, 24, (12, 2));
    hold(Format::Qcow2, 24, (12, 3));
}
