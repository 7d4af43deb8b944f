//! qemu-img 0.12 as it is modelled does with damaged images what the profile of CentOS 6's KVM says of its QEMU.

use drylab_block::{Extents, Limits, ReadAt, Result, SparseBytes, WriteAt, le_u32, read_vec};
use drylab_converter::qemu_img_0_12::{self, Format as Output};
use drylab_image::profile::{Does, LIBVIRT_CENTOS_6, Reaction};
use drylab_image::{Target, VmdkOptions, open, write};
use drylab_kernel::Streams;
use drylab_specimen::{File, Format, Specimen, Stream};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Images of each kind, and damages to each of them.
const SEEDS: u64 = 24;
const DAMAGES: u32 = 60;

/// Whether a disk begins with the bytes of another and goes on with zeros, as far as either has bytes.
fn equal(one: &dyn ReadAt, other: &dyn ReadAt) -> Result<bool> {
    for (source, twin) in [(one, other), (other, one)] {
        for extent in Extents::new(source).filter(|extent| extent.kind.has_bytes()) {
            let mut here = vec![0; usize::try_from(extent.length).expect("small")];
            let mut there = here.clone();
            source.read_at(extent.offset, &mut here)?;
            let both = twin.len().saturating_sub(extent.offset).min(extent.length);
            let both = usize::try_from(both).expect("small");
            twin.read_at(extent.offset, &mut there[..both])?;
            if here != there {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What the program shows of an image whose disk is known: nothing where it reads that disk.
fn qemu_img(made: &Specimen, files: &[File]) -> Option<Does> {
    let name = match made.format {
        Format::Vhd => "vpc",
        other => other.name(),
    };
    let converted = qemu_img_0_12::convert(&files[0].bytes, Some(name), Output::Raw);
    let Ok(converted) = converted.map_err(drop).and_then(|done| match done.exit {
        0 => Ok(done),
        _ => Err(()),
    }) else {
        return Some(Does::Refuses);
    };
    match equal(&*converted.file, &*made.disk) {
        Ok(true) => None,
        Ok(false) => Some(Does::Misreads),
        Err(_) => Some(Does::Refuses),
    }
}

/// The one row that the profile has for what is found in an image; none when it has several.
fn row(files: &[File]) -> Option<&'static Reaction> {
    let image = open(Arc::clone(&files[0].bytes), &Limits::DEFAULT).ok()?;
    let found = image.check().ok()?;
    match LIBVIRT_CENTOS_6
        .reactions(image.subformat(), &found)
        .as_slice()
    {
        [(_, row)] => Some(row),
        _ => None,
    }
}

/// How often each row was met, and what the program did then.
type Met = BTreeMap<String, BTreeMap<Option<Does>, u32>>;

fn key(row: &Reaction) -> String {
    format!("{} {:?} {}", row.code, row.only, row.does.name())
}

fn meet(format: Format, subformat: &str, seed: u64, met: &mut Met) {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    let made = Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat));
    let is_small = (1..=64 << 20).contains(&made.disk.len());
    if !is_small || made.files.len() > 1 || qemu_img(&made, &made.files).is_some() {
        return;
    }
    let mut stream = Streams::new(seed).stream("damage", 0);
    let mut stream = Stream(|| stream.word());
    for _ in 0..DAMAGES {
        let Some(damage) = made.corrupt(&mut stream) else {
            continue;
        };
        let files = made.damaged(&[damage]);
        if let Some(row) = row(&files) {
            let count = met.entry(key(row)).or_default();
            *count.entry(qemu_img(&made, &files)).or_default() += 1;
        }
    }
}

/// As with the rows of newer programs: three of four images must do so. Where bytes are misread that were zeros before,
/// nothing is seen of it.
#[test]
fn qemu_img_0_12_refuses_and_misreads_what_the_profile_says_that_it_does() {
    let mut met = Met::new();
    for format in [Format::Vhd, Format::Qcow2] {
        for subformat in format.subformats() {
            for seed in 0..SEEDS {
                meet(format, subformat, seed, &mut met);
            }
        }
    }
    let mut wrong = Vec::new();
    let drawn = |row: &&Reaction| !row.code.starts_with("VMDK-");
    for row in LIBVIRT_CENTOS_6.reactions.iter().filter(drawn) {
        let seen = met.get(&key(row)).cloned().unwrap_or_default();
        let count = |does: Option<Does>| seen.get(&does).copied().unwrap_or(0);
        let all: u32 = seen.values().sum();
        let as_said = count(Some(row.does));
        let unseen = match row.does {
            Does::Misreads => count(None),
            Does::Refuses => 0,
        };
        if as_said == 0 || (as_said + unseen) * 4 < all * 3 {
            wrong.push(format!("{}: {seen:?}", key(row)));
        }
    }
    assert!(wrong.is_empty(), "{}\nof {met:#?}", wrong.join("\n"));
}

/// A drawn damage is to one of the two tables of a VMDK, and the program looks at the other.
#[test]
fn qemu_img_0_12_misreads_grains_that_both_tables_have_wrong() {
    let disk = SparseBytes::new(1 << 20);
    disk.write_at(0, &[1; 65_536]).unwrap();
    disk.write_at(512 << 10, &[2; 65_536]).unwrap();
    let sink = SparseBytes::default();
    write(&disk, &Target::VmdkSparse(VmdkOptions::default()), &sink).unwrap();
    let sound = read_vec(&sink, "file", 0, sink.len(), &Limits::DEFAULT).unwrap();
    let word = |bytes: &[u8], at: u64| le_u32(bytes, usize::try_from(at).unwrap()).unwrap();
    let table = |field: u64| 512 * u64::from(word(&sound, 512 * u64::from(word(&sound, field))));
    let first = word(&sound, table(56));
    let beyond = u32::try_from(sound.len() / 512 + 100).unwrap();
    for (code, entry) in [
        ("VMDK-GRAIN-RANGE", beyond),
        ("VMDK-GRAIN-ALIAS", first),
        ("VMDK-GRAIN-IN-METADATA", 2),
    ] {
        let mut bytes = sound.clone();
        for (field, is_met) in [(56, false), (48, true)] {
            let at = usize::try_from(table(field) + 4 * 8).unwrap();
            bytes[at..at + 4].copy_from_slice(&entry.to_le_bytes());
            let file: Arc<dyn ReadAt> = Arc::new(bytes.clone());
            let found = open(file.clone(), &Limits::DEFAULT)
                .unwrap()
                .check()
                .unwrap();
            let rows = LIBVIRT_CENTOS_6.reactions("monolithicSparse", &found);
            let is_said = rows.iter().any(|(_, row)| row.code == code);
            let done = qemu_img_0_12::convert(&file, None, Output::Raw).unwrap();
            assert_eq!(done.exit, 0, "{code}");
            let is_misread = !equal(&*done.file, &disk).unwrap();
            assert_eq!((is_said, is_misread), (is_met, is_met), "{code} {found:?}");
        }
    }
}
