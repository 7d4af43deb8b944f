//! qemu-img reads what is made, byte for byte.

#[path = "../../skip.rs"]
mod skipping;

use drylab_block::{Extents, ReadAt};
use drylab_kernel::Streams;
use drylab_specimen::{Format, Specimen, Stream};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

fn have_qemu_img() -> bool {
    let found = Command::new("qemu-img").arg("--version").output().is_ok();
    if !found {
        skipping::skip("qemu-img is not there");
    }
    found
}

/// Writes bytes with their holes.
fn write(path: &Path, bytes: &dyn ReadAt) {
    let file = File::create(path).expect("the folder takes files");
    file.set_len(bytes.len()).expect("the folder takes files");
    let mut piece = vec![0; 1 << 20];
    for extent in Extents::new(bytes).filter(|extent| extent.kind.has_bytes()) {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            let take = usize::try_from(end - at).unwrap().min(piece.len());
            bytes.read_at(at, &mut piece[..take]).expect("memory");
            file.write_all_at(&piece[..take], at)
                .expect("the folder takes files");
            at += u64::try_from(take).unwrap();
        }
    }
}

/// Whether qemu-img 10 reads an image of this kind, by what it says of itself.
fn is_read(made: &Specimen) -> bool {
    let number = |name: &str| {
        let field = made.fields.iter().find(|field| field.name == name)?;
        Some(field.number(&made.bytes(field)))
    };
    match (made.format, made.subformat) {
        // It knows no parents but backing files.
        (Format::Vhd | Format::Vhdx | Format::Vdi, "differencing" | "undo") => false,
        // A log is replayed only where the file may be written; sectors have 512 bytes, and disks at least one of them.
        (Format::Vhdx, _) => {
            let plain = number("metadata.LogicalSectorSize") == Some(512);
            made.known.is_empty() && plain && made.disk.len() > 0
        }
        // Without a block in front of its footer a fixed disk looks like the head of a dynamic one.
        (Format::Vhd, "fixed") => made.disk.len() > 0,
        // It counts no sector for the bitmap of a block of fewer than eight.
        (Format::Vhd, _) => number("header.blockSize") >= Some(4096),
        (Format::Vmdk, _) => made.disk.len() > 0,
        (Format::Vdi, _) => {
            let sizes = (number("header.cbBlock"), number("header.cbBlockExtra"));
            sizes == (Some(1 << 20), Some(0))
        }
        _ => true,
    }
}

/// `qemu-img compare` of an image with the disk it must read as.
fn compared(made: &Specimen) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    for file in &made.files {
        write(&folder.path().join(&file.name), &*file.bytes);
    }
    write(&folder.path().join("wanted"), &*made.disk);
    let name = match made.format {
        Format::Vhd => "vpc",
        other => other.name(),
    };
    let mut command = Command::new("qemu-img");
    command.args(["compare", "-f", name, "-F", "raw"]);
    command
        .arg(&made.files[0].name)
        .arg("wanted")
        .current_dir(folder.path());
    command.output().expect("qemu-img starts")
}

fn reads(format: Format, seeds: u64) {
    if !have_qemu_img() {
        return;
    }
    let (mut wrong, mut read) = (Vec::new(), 0);
    for subformat in format.subformats() {
        for seed in 0..seeds {
            let mut stream = Streams::new(seed).stream("specimen", 0);
            let made = Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat));
            // Comparing gigabytes of zeros says little and takes long.
            if !is_read(&made) || made.disk.len() > 256 << 20 {
                continue;
            }
            let done = compared(&made);
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            // Of sizes that differ it only warns.
            if done.status.success() && !said.contains("Warning") {
                read += 1;
            } else {
                wrong.push(format!("{subformat} seed {seed}: {said}{made:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty() && read > 0,
        "{} wrong, {read} right\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn qemu_img_reads_the_vhds_that_are_made() {
    reads(Format::Vhd, 16);
}

#[test]
fn qemu_img_reads_the_vhdxs_that_are_made() {
    reads(Format::Vhdx, 10);
}

#[test]
fn qemu_img_reads_the_vdis_that_are_made() {
    reads(Format::Vdi, 24);
}

#[test]
fn qemu_img_reads_the_qcow2s_that_are_made() {
    reads(Format::Qcow2, 16);
}

#[test]
fn qemu_img_reads_the_vmdks_that_are_made() {
    reads(Format::Vmdk, 16);
}
