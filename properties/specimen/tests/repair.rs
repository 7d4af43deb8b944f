//! A repair of a damaged image: nothing is left that can be repaired, and what could be read reads the same, or as before
//! the damage.

use drylab_block::{
    Error, Extents, Limits, ReadAt, Reference, Resolver, Result, Severity, SparseBytes, copy_data,
};
use drylab_image::{Finding, Findings, Image, Options, Plan, Repair, open_as};
use drylab_kernel::Streams;
use drylab_specimen::{Corruption, File, Format, Kind, Specimen, Stream, judge};
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

/// Findings that keep others from being mended by the same plan: what was left alone for them is mended by the next one.
const KEPT: [&str; 1] = ["VMDK-GT-OVERLAP"];

/// A file after a plan.
fn planned(file: &dyn ReadAt, plan: &Plan) -> std::result::Result<Arc<SparseBytes>, String> {
    let new = Arc::new(SparseBytes::default());
    copy_data(file, &*new).map_err(|error| error.to_string())?;
    plan.apply(&*new)
        .map_err(|error| format!("the plan does not fit: {error}"))?;
    Ok(new)
}

/// What a check finds that a repair of the file mends.
fn mendable(found: &Findings) -> Option<&Finding> {
    let mut left = found.list().iter();
    left.find(|finding| finding.rule.repair != Repair::No && finding.file.is_empty())
}

/// The image after a repair, if it opens and can be repaired, or what is wrong with it. `disk` is what it had before the
/// damages: a repair may make that readable again, and else changes nothing that could be read.
fn repaired(files: &[File], disk: &dyn ReadAt) -> std::result::Result<Option<Image>, String> {
    let Ok(image) = open(files, files[0].bytes.clone()) else {
        return Ok(None);
    };
    let Ok(plan) = image.repair() else {
        return Ok(None);
    };
    let reopened = |file: &Arc<SparseBytes>| {
        let image = open(files, file.clone())
            .map_err(|error| format!("it does not open afterwards: {error}"))?;
        let found = image
            .check()
            .map_err(|error| format!("it is not checked afterwards: {error}"))?;
        Ok::<_, String>((image, found))
    };
    let file = planned(&*files[0].bytes, &plan)?;
    let (mut again, mut found) = reopened(&file)?;
    let first = image.check().map_err(|error| error.to_string())?;
    let kept = |found: &Findings| KEPT.iter().any(|code| found.counts().contains_key(code));
    let mut refused = false;
    if mendable(&found).is_some() && (kept(&first) || kept(&found)) {
        match again.repair() {
            Ok(plan) => (again, found) = reopened(&planned(&*file, &plan)?)?,
            Err(_) => refused = true,
        }
    }
    if let Some(finding) = mendable(&found).filter(|_| !refused) {
        let code = finding.rule.code;
        return Err(format!("{code} is left: {}", finding.message()));
    }
    if again.len() != image.len() {
        return Err(format!("{} bytes became {}", image.len(), again.len()));
    }
    for (at, bytes) in readable(&image) {
        let mut now = vec![0; bytes.len()];
        let read = again.read_at(at, &mut now);
        let mut stood = vec![0; now.len()];
        let right = disk.read_at(at, &mut stood).is_ok() && now == stood;
        if read.is_err() || (now != bytes && !right) {
            return Err(format!("what could be read at {at} is lost: {read:?}"));
        }
    }
    Ok(Some(again))
}

/// What a repair cost of the bytes that the damages left in the file. A disk that is shorter must have lost zeros. Where an
/// error is left that is not mended, whose the bytes are is for a person to say.
fn lost(made: &Specimen, damages: &[Corruption], image: &Image) -> Option<String> {
    let touched = damages.iter().map(|damage| made.touched(damage));
    let touched: Vec<_> = touched.collect::<Option<Vec<_>>>()?.concat();
    let left = image.check().ok()?;
    if left.worst() == Some(Severity::Error) {
        return None;
    }
    let held = Extents::new(&*made.disk).filter(|extent| extent.kind.has_bytes());
    for extent in held {
        let end = extent.offset + extent.length;
        let pieces = (extent.offset..end).step_by(512);
        for at in pieces.filter(|at| !touched.iter().any(|bytes| bytes.contains(at))) {
            let take = usize::try_from((end - at).min(512)).unwrap();
            let (mut was, mut now) = (vec![0; take], vec![0; take]);
            made.disk.read_at(at, &mut was).unwrap();
            let here = usize::try_from(image.len().saturating_sub(at)).unwrap();
            let here = here.min(take);
            let read = (here > 0).then(|| image.read_at(at, &mut now[..here]));
            if let Some(Err(error)) = read {
                return Some(format!("what stood at {at} is lost: {error}"));
            }
            if was != now {
                return Some(format!("at {at} stands something else"));
            }
        }
    }
    None
}

/// What is wrong with the repair of an image with some damages, in words.
fn wrong(made: &Specimen, damages: &[Corruption]) -> Option<String> {
    let why = match repaired(&made.damaged(damages), &*made.disk) {
        Ok(image) => lost(made, damages, &image?)?,
        Err(why) => why,
    };
    let all = damages.iter().map(|damage| {
        let field = &made.fields[damage.field];
        format!(
            "{} at {}: {:02x?} to {:02x?} ({:?}, {:?})",
            field.name, field.offset, damage.old, damage.new, damage.kind, damage.resealed
        )
    });
    let all: Vec<String> = all.collect();
    Some(format!("{} {}: {why}", made.subformat, all.join(", ")))
}

fn specimen(format: Format, subformat: &str, seed: u64) -> Specimen {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat))
}

/// Some damages to an image, drawn with a seed.
fn damages(made: &Specimen, seed: u64, count: u32) -> Vec<Corruption> {
    let mut stream = Streams::new(seed).stream("damage", 1);
    let mut stream = Stream(|| stream.word());
    (0..count)
        .filter_map(|_| made.corrupt(&mut stream))
        .collect()
}

/// Nothing was found wrong.
#[track_caller]
fn none(found: &[String]) {
    let first = found[..found.len().min(8)].join("\n");
    assert!(found.is_empty(), "{} wrong\n{first}", found.len());
}

/// Images of every kind, each with some damages at once: nothing that can be repaired is left, and nothing is lost.
fn hold_several(format: Format, seeds: u64, draw: impl Fn(&Specimen, u64) -> Vec<Vec<Corruption>>) {
    let mut found = Vec::new();
    for subformat in format.subformats() {
        for seed in 0..seeds {
            let made = specimen(format, subformat, seed);
            for damages in draw(&made, seed) {
                if let Err(why) = repaired(&made.damaged(&damages), &*made.disk) {
                    let of =
                        |one: &Corruption| (made.fields[one.field].name.clone(), one.new.clone());
                    let all: Vec<_> = damages.iter().map(of).collect();
                    found.push(format!("{subformat} seed {seed}: {all:02x?}: {why}"));
                }
            }
        }
    }
    none(&found);
}

/// 24 times `at_once` damages, of a stream of their own.
fn groups(made: &Specimen, seed: u64, at_once: u32) -> Vec<Vec<Corruption>> {
    let mut stream = Streams::new(seed).stream("damage", 6 * at_once - 5);
    let mut stream = Stream(|| stream.word());
    let mut group = || {
        (0..at_once)
            .filter_map(|_| made.corrupt(&mut stream))
            .collect()
    };
    std::iter::repeat_with(&mut group).take(24).collect()
}

fn hold(format: Format, seeds: u64, each: u32) {
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for subformat in format
        .subformats()
        .iter()
        .filter(|_| judge::is_checked(format))
    {
        for seed in 0..seeds {
            let made = specimen(format, subformat, seed);
            for damage in damages(&made, seed, each) {
                let Some(why) = self::wrong(&made, std::slice::from_ref(&damage)) else {
                    continue;
                };
                let family = made.fields[damage.field].family();
                let open =
                    |(kind, name, _): &(Format, &str, &str)| *kind == format && family == *name;
                if OPEN.iter().any(open) {
                    continue;
                }
                let key = format!("{subformat} {family}");
                let says = format!("seed {seed}: {why}");
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
    hold(Format::Vhd, 24, 24);
}

#[test]
fn a_repair_of_a_damaged_vdi_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vdi, 24, 24);
}

#[test]
fn a_repair_of_a_damaged_vhdx_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vhdx, 12, 24);
}

#[test]
fn a_repair_of_a_damaged_qcow2_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Qcow2, 24, 24);
}

#[test]
fn a_repair_of_a_damaged_vmdk_leaves_nothing_to_repair_and_loses_nothing() {
    hold(Format::Vmdk, 24, 24);
}

/// Of the seeds, the last is one of a disk whose directory would go on over tables with one bit more of the capacity.
#[test]
fn a_capacity_of_a_vmdk_that_lost_or_won_a_bit_is_mended_and_never_costs_a_byte() {
    let mut found = Vec::new();
    for subformat in [
        "monolithicSparse",
        "streamOptimized-front",
        "streamOptimized",
    ] {
        for seed in (0..48).chain([969]) {
            let made = specimen(Format::Vmdk, subformat, seed);
            let fields = (0..made.fields.len())
                .filter(|field| made.fields[*field].name.ends_with(".capacity"));
            for field in fields {
                let bits = (0..64).filter_map(|bit| made.damage(field, Kind::Bit, false, bit));
                found.extend(bits.filter_map(|damage| {
                    let why = wrong(&made, std::slice::from_ref(&damage))?;
                    Some(format!("seed {seed}: {why}"))
                }));
            }
        }
    }
    none(&found);
}

#[test]
fn a_repair_of_a_vmdk_with_two_damages_leaves_nothing_to_repair_and_loses_nothing_that_could_be_read()
 {
    hold_several(Format::Vmdk, 48, |made, seed| {
        let drawn = damages(made, seed, 24);
        drawn.chunks(2).map(<[_]>::to_vec).collect()
    });
}

/// Disks with damages that were mended wrongly once: by kind, seed, which of the damages, and how many at once.
#[test]
fn what_was_mended_wrongly_once_is_mended_or_left_alone() {
    let mut found = Vec::new();
    for (subformat, seed, at_once) in [
        // A grain directory on the table of the redundant one.
        ("monolithicSparse", 695, 1),
        ("monolithicSparse", 1185, 1),
        // An entry of the primary table that leads into a redundant one, and another that leads nowhere.
        ("monolithicSparse", 1953, 2),
        ("monolithicSparse", 1445, 3),
        // A directory entry that leads to the marker of its table.
        ("streamOptimized", 1328, 1),
        ("streamOptimized", 2336, 2),
        ("streamOptimized", 2484, 2),
        ("streamOptimized", 3007, 2),
        // An area of the descriptor up to the first grain, and another place of that in the footer.
        ("streamOptimized", 520, 2),
        ("streamOptimized", 5544, 2),
        ("streamOptimized", 1379, 2),
        ("streamOptimized-front", 2843, 2),
        // A footer at the end of what says that it is no stream; one with a redundant directory.
        ("streamOptimized", 853, 2),
        ("streamOptimized", 1434, 3),
        // A capacity with tables for which a check has no memory.
        ("streamOptimized", 320, 3),
        ("streamOptimized-front", 450, 3),
        // Compressed grains that share sectors and do not unpack.
        ("streamOptimized-front", 356, 2),
    ] {
        let made = specimen(Format::Vmdk, subformat, seed);
        for damages in damages(&made, seed, 24).chunks(at_once) {
            if let Err(why) = repaired(&made.damaged(damages), &*made.disk) {
                found.push(format!("{subformat} seed {seed}: {why}"));
            }
            if at_once == 1 {
                found.extend(wrong(&made, damages));
            }
        }
    }
    none(&found);
}

/// Of the seeds, two are of disks without grains, whose file has nothing behind the descriptor.
#[test]
fn a_stream_is_never_cut_in_its_descriptor() {
    let mut found = Vec::new();
    for seed in (0..24).chain([105, 176]) {
        let made = specimen(Format::Vmdk, "streamOptimized-front", seed);
        let mut fields = made.fields.iter();
        let field = fields.position(|field| field.name == "header.overHead");
        for pick in 0..40 {
            let damage = made.damage(field.unwrap(), Kind::Metadata, false, pick);
            found.extend(damage.and_then(|damage| wrong(&made, &[damage])));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_repair_of_a_vhd_with_several_damages_leaves_nothing_to_repair_and_loses_nothing() {
    hold_several(Format::Vhd, 64, |made, seed| groups(made, seed, 2));
    hold_several(Format::Vhd, 64, |made, seed| groups(made, seed, 3));
}

#[test]
fn a_repair_of_a_qcow2_with_several_damages_leaves_nothing_to_repair_and_loses_nothing() {
    hold_several(Format::Qcow2, 24, |made, seed| groups(made, seed, 2));
    hold_several(Format::Qcow2, 24, |made, seed| groups(made, seed, 3));
}
