//! Every image among the foreign files that qemu-img opens: the same format, virtual size and bytes, or a disagreement that
//! is listed with the clause that decides it.

use crate::common::{Folder, OnDisk, have_qemu_img};
use crate::foreign::{packed, unpacking};
use drylab_block::Limits;
use drylab_image::{Format, Image, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

const IDENTICAL: &str = "Images are identical.";

/// Why we say something else of a file than qemu-img, by what decides it.
const DISPUTES: [(&str, &str); 8] = [
    (
        "fixed VHD",
        "VHD specification 1.0, Hard Disk Footer Format: the footer at the end makes the file a VHD; qemu-img looks at the \
         first bytes only and gives the guest the footer as its last sector",
    ),
    (
        "differencing VHD",
        "VHD specification 1.0, Differencing Hard Disks: sectors whose bit is clear are the parent's; qemu-img gives zeros",
    ),
    (
        "ESX extent",
        "QEMU, vmdk: Add read-only support for seSparse snapshots (2019): constant_magic 0xcafebabe; qemu-img knows the \
         extent only by its descriptor, and takes it alone for a raw disk",
    ),
    (
        "other container",
        "the file begins or ends as its own format says (EWF, WIM, LUKS, xz, zstd, Apple UDIF): its bytes are no disk, and \
         drylab refuses it by name; qemu-img takes it for a raw disk",
    ),
    (
        "not read here",
        "Parallels and Apple UDIF are known and not read: drylab refuses them by name",
    ),
    (
        "part of a sector",
        "ATA/ATAPI Command Set, sectors of 512 bytes: qemu-img rounds the size of a raw disk up to them, drylab gives the \
         bytes that there are",
    ),
    (
        "cut qcow2",
        "QEMU, docs/interop/qcow2.rst: l1_table_offset: the table lies behind the end of the file; qemu-img shows the header \
         and converts nothing",
    ),
    (
        "data file without a name",
        "QEMU, docs/interop/qcow2.rst, Header extensions: External data file name string: the empty name names no file",
    ),
];

/// What decides, by what both say; nothing where neither is known to be right.
fn decided(
    theirs: (&str, u64),
    ours: &Result<(Format, u64), String>,
    compared: &str,
) -> Option<&'static str> {
    let (format, size) = theirs;
    Some(match ours {
        Ok((Format::Vhd, _)) if format == "raw" => "fixed VHD",
        Ok((Format::Vhd, _)) if format == "vpc" && compared.contains("mismatch") => {
            "differencing VHD"
        }
        Ok((Format::Vmdk, _)) if format == "raw" => "ESX extent",
        Ok((Format::Raw, bytes)) if format == "raw" && bytes.next_multiple_of(512) == size => {
            "part of a sector"
        }
        Err(why) if format == "raw" && why.contains("unsupported: format") => "other container",
        Err(why) if why.contains("unsupported: format") => "not read here",
        Err(why) if why.contains("qcow2 L1 table") && why.contains("past the end") => "cut qcow2",
        Err(why) if why.contains("external data file") => "data file without a name",
        _ => return None,
    })
}

/// Runs qemu-img on a file that may be hostile: without network, for ten minutes at most.
fn guarded(folder: &Path, args: &[&str]) -> Output {
    static ALONE: OnceLock<bool> = OnceLock::new();
    let alone = ALONE.get_or_init(|| {
        let done = Command::new("unshare").args(["-rn", "true"]).status();
        done.is_ok_and(|status| status.success())
    });
    let mut command = Command::new("timeout");
    command.arg("600");
    if *alone {
        command.args(["unshare", "-rn"]);
    }
    command.arg("qemu-img").args(args).current_dir(folder);
    command.output().unwrap()
}

/// What a program says of a file: format, virtual size.
fn theirs(path: &Path) -> Option<(String, u64)> {
    let folder = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let done = guarded(folder, &["info", "-U", "--output=json", name]);
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).ok()?;
    Some((
        said["format"].as_str()?.to_owned(),
        said["virtual-size"].as_u64()?,
    ))
}

fn opened(path: &Path) -> drylab_block::Result<Image> {
    let beside = Folder(path.parent().unwrap().to_owned());
    drylab_image::open_with(Arc::new(OnDisk::open(path)), &beside, &Limits::DEFAULT)
}

/// The name that qemu-img has for a format.
fn called(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        other => other.name(),
    }
}

/// What qemu-img says when it compares its bytes with ours.
fn compared(path: &Path, format: &str, image: &Image, raw: &Path) -> String {
    let sink = OnDisk::create(raw);
    if let Err(error) = drylab_image::write(image, &Target::Raw, &sink) {
        return format!("ours: {error}");
    }
    let (ours, name) = (
        raw.to_str().unwrap(),
        path.file_name().unwrap().to_str().unwrap(),
    );
    let folder = path.parent().unwrap();
    let done = guarded(
        folder,
        &["compare", "-U", "-f", "raw", "-F", format, ours, name],
    );
    let said = [done.stdout, done.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Whether qemu-img can read the bytes of an image, beside its header.
fn converts(path: &Path, raw: &Path) -> bool {
    let (name, to) = (
        path.file_name().unwrap().to_str().unwrap(),
        raw.to_str().unwrap(),
    );
    let folder = path.parent().unwrap();
    guarded(folder, &["convert", "-U", "-O", "raw", name, to])
        .status
        .success()
}

/// What came of the files of one kind.
#[derive(Default)]
struct Found {
    agreed: usize,
    neither: usize,
    /// By what decides: the files.
    disputed: BTreeMap<&'static str, Vec<String>>,
    open: Vec<String>,
}

fn looked_at(path: &Path, name: &str, raw: &Path, found: &mut Found) {
    let Some((format, size)) = theirs(path) else {
        return;
    };
    let image = opened(path).map_err(|error| error.to_string());
    let ours = image
        .as_ref()
        .map(|image| (image.format(), image.virtual_size()));
    let ours = ours.map_err(Clone::clone);
    let same = ours
        .as_ref()
        .is_ok_and(|(ours, bytes)| called(*ours) == format && *bytes == size);
    let said = match &image {
        Ok(image) if same && format != "raw" => compared(path, &format, image, raw),
        // The file is the disk.
        Ok(_) if same => IDENTICAL.to_owned(),
        _ => String::new(),
    };
    if said == IDENTICAL {
        found.agreed += 1;
    } else if let Some(why) = decided((&format, size), &ours, &said) {
        found.disputed.entry(why).or_default().push(name.to_owned());
    } else if image.is_err() && !converts(path, raw) {
        found.neither += 1;
    } else {
        found
            .open
            .push(format!("{name}: {format} {size}; ours {ours:?}; {said}"));
    }
}

/// Looks at all files of these kinds; the names of the disputed ones stand in `docs/disputes.md`.
fn all_of(kinds: &[&str], at_least: usize) {
    let Some((folder, manifest)) = unpacking::foreign() else {
        return;
    };
    if !have_qemu_img() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let raw = scratch.path().join("bytes.raw");
    let mut found = Found::default();
    for line in manifest.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        if kinds.contains(&cells[1]) {
            let Some(path) = packed::plain(&folder, cells[0]) else {
                return;
            };
            looked_at(&path, cells[0], &raw, &mut found);
        }
    }
    let disputed: usize = found.disputed.values().map(Vec::len).sum();
    eprintln!(
        "{kinds:?}: {} agree in format, size and bytes, {disputed} disputed, {} that neither reads",
        found.agreed, found.neither
    );
    assert!(found.open.is_empty(), "{}", found.open.join("\n"));
    assert!(found.agreed >= at_least, "{}", found.agreed);
    listed(kinds, &found.disputed);
}

/// Holds the disputes against the page.
fn listed(kinds: &[&str], disputed: &BTreeMap<&'static str, Vec<String>>) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/disputes");
    let page = page.join(format!("{}.md", kinds.join("-")));
    let mut text = String::new();
    for (name, clause) in DISPUTES {
        if let Some(files) = disputed.get(name) {
            text += &format!("* **{name}.** {clause}.\n");
            for file in files {
                text += &format!("  * `{file}`\n");
            }
        }
    }
    if std::env::var_os("DRYLAB_BLESS").is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(kept, text, "{} is not what was found", page.display());
}

#[test]
fn every_foreign_disk_that_qemu_img_opens_reads_the_same_or_the_dispute_is_listed() {
    all_of(&["disk", "fragment", "misc"], 50);
}

#[test]
fn every_foreign_file_system_and_volume_is_the_disk_that_qemu_img_takes_it_for() {
    all_of(&["fs", "volume"], 250);
}
