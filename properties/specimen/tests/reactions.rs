//! qemu-img does with damaged images what libvirt's profile says that it does.

#[path = "../../skip.rs"]
mod skipping;

use drylab_block::{Extents, Limits, ReadAt};
use drylab_image::profile::{Does, Evidence, LIBVIRT, Reaction};
use drylab_kernel::Streams;
use drylab_specimen::{File, Format, Specimen, Stream};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Images of each kind, damages to each of them, and how often qemu-img is asked about one row.
const SEEDS: u64 = 12;
const DAMAGES: u32 = 60;
const ASKED: u32 = 48;
/// Rows of which no drawn damage makes an image alone, or whose format is not drawn.
const BY_HAND: [&str; 5] = [
    "QCOW2-CORRUPT",
    "VHDX-NO-HEADER",
    "QED-CUT",
    "VMDK-TRAILING-BYTES",
    "VMDK-NO-END-OF-STREAM",
];

/// Writes bytes with their holes.
fn put(path: &Path, bytes: &dyn ReadAt) {
    let file = std::fs::File::create(path).expect("the folder takes files");
    file.set_len(bytes.len()).expect("the folder takes files");
    for extent in Extents::new(bytes).filter(|extent| extent.kind.has_bytes()) {
        let mut piece = vec![0; usize::try_from(extent.length).expect("small")];
        bytes.read_at(extent.offset, &mut piece).expect("memory");
        file.write_all_at(&piece, extent.offset)
            .expect("the folder takes files");
    }
}

/// What `qemu-img compare` of an image with its disk shows: nothing where they are equal.
fn qemu_img(made: &Specimen, files: &[File]) -> Option<Does> {
    let folder = tempfile::tempdir().expect("a folder");
    for file in files {
        put(&folder.path().join(&file.name), &*file.bytes);
    }
    put(&folder.path().join("wanted"), &*made.disk);
    let name = match made.format {
        Format::Vhd => "vpc",
        other => other.name(),
    };
    let done = Command::new("qemu-img")
        .args(["compare", "-f", name, "-F", "raw"])
        .arg(&files[0].name)
        .arg("wanted")
        .current_dir(folder.path())
        .output()
        .expect("qemu-img starts");
    // Of sizes that differ it only warns.
    let warns = String::from_utf8_lossy(&done.stdout).contains("Warning");
    match done.status.code() {
        Some(0) if !warns => None,
        Some(0 | 1) => Some(Does::Misreads),
        Some(_) => Some(Does::Refuses),
        // Of that nothing can be said: a machine out of memory does not refuse an image.
        None => panic!("qemu-img ended by a signal: {done:?}"),
    }
}

/// The one row that the profile has for what is found in an image; none when it has several.
fn row(files: &[File]) -> Option<&'static Reaction> {
    let image = drylab_image::open(Arc::clone(&files[0].bytes), &Limits::DEFAULT).ok()?;
    let found = image.check().ok()?;
    match LIBVIRT.reactions(image.subformat(), &found).as_slice() {
        [(_, row)] => Some(row),
        _ => None,
    }
}

/// How often each row was met, and what qemu-img did then.
type Met = BTreeMap<String, BTreeMap<Option<Does>, u32>>;

fn key(row: &Reaction) -> String {
    format!("{} {:?} {}", row.code, row.only, row.does.name())
}

fn meet(format: Format, subformat: &str, seed: u64, met: &mut Met) {
    let mut stream = Streams::new(seed).stream("specimen", 0);
    let made = Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat));
    let is_small = (1..=64 << 20).contains(&made.disk.len());
    if !is_small || made.files.len() > 1 {
        return;
    }
    let mut is_read = None;
    let mut stream = Streams::new(seed).stream("damage", 0);
    let mut stream = Stream(|| stream.word());
    for _ in 0..DAMAGES {
        let Some(damage) = made.corrupt(&mut stream) else {
            continue;
        };
        let files = made.damaged(&[damage]);
        let Some(row) = row(&files) else {
            continue;
        };
        let count = met.entry(key(row)).or_default();
        if count.values().sum::<u32>() >= ASKED {
            continue;
        }
        // Of what it does not read when it is sound nothing can be said.
        if *is_read.get_or_insert_with(|| qemu_img(&made, &made.files).is_none()) {
            *count.entry(qemu_img(&made, &files)).or_default() += 1;
        }
    }
}

/// A row says what happens with a code, and a code is met in several ways: three of four images must do so. Where bytes are
/// misread that were zeros before, nothing is seen of it.
#[test]
fn qemu_img_refuses_and_misreads_what_the_profile_says_that_it_does() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return skipping::skip("qemu-img is not there");
    }
    let mut met = Met::new();
    for format in [
        Format::Vmdk,
        Format::Vhd,
        Format::Vhdx,
        Format::Qcow2,
        Format::Vdi,
    ] {
        for subformat in format.subformats() {
            for seed in 0..SEEDS {
                meet(format, subformat, seed, &mut met);
            }
        }
    }
    let measured = LIBVIRT
        .reactions
        .iter()
        .filter(|row| matches!(row.evidence, Evidence::Measured(_)))
        .filter(|row| !BY_HAND.contains(&row.code));
    let mut wrong = Vec::new();
    for row in measured {
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
