//! Files of others: never a panic, and the size and bytes that an independent tool found, or a stated reason.

#[path = "../../../../properties/packed.rs"]
pub(crate) mod packed;
#[path = "../../../../properties/foreign.rs"]
pub(crate) mod unpacking;

use crate::common::{Folder, OnDisk, skipping};
use drylab_block::{Error, Limits, ReadAt};
use drylab_image::{Image, fuzz};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Well-formed files that we refuse, and why.
const REFUSED: &[(&str, &str)] = &[];

struct Row {
    name: String,
    subformat: String,
    wellformed: String,
    oracle: serde_json::Value,
}

/// The folder of the unpacked files and the rows of the disks, or `None` after saying why.
fn rows() -> Option<(PathBuf, Vec<Row>)> {
    let (folder, manifest) = unpacking::foreign()?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        (cells.get(1) == Some(&"disk")).then(|| Row {
            name: cells[0].to_owned(),
            subformat: cells[2].to_owned(),
            wellformed: cells[7].to_owned(),
            oracle: serde_json::from_str(cells[8]).unwrap_or_default(),
        })
    };
    Some((folder, manifest.lines().filter_map(row).collect()))
}

fn open(folder: &Path, row: &Row) -> Result<Image, Error> {
    let path = folder.join(&row.name);
    let beside = Folder(path.parent().unwrap().to_owned());
    drylab_image::open_with(Arc::new(OnDisk::open(&path)), &beside, &Limits::DEFAULT)
}

fn sha256(disk: &dyn ReadAt) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.len() {
        let take = (disk.len() - at).min(1 << 20);
        let part = &mut buffer[..take as usize];
        disk.read_at(at, part).unwrap();
        hash.update(part);
        at += take;
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn foreign_vmdk_qcow2_and_vhd_have_the_size_and_bytes_that_qemu_img_found() {
    let Some((folder, rows)) = rows() else { return };
    let (mut agreed, mut hashed, mut refused) = (0, 0, 0);
    let read = ["vmdk-sparse", "vmdk-desc", "qcow2", "qed", "vhd-", "vhdx"];
    // Some are packed in the archive as their projects have them; the tests of their formats unpack those.
    let packed = |row: &Row| [".gz", ".bz2"].iter().any(|end| row.name.ends_with(end));
    let ours =
        |row: &&Row| !packed(row) && read.iter().any(|known| row.subformat.starts_with(known));
    for row in rows.iter().filter(ours) {
        let found = open(&folder, row);
        if let Some((_, reason)) = REFUSED.iter().find(|(name, _)| *name == row.name) {
            let error = found.unwrap_err().to_string();
            assert!(
                error.contains("unsupported") && error.contains(reason),
                "{}: {error}",
                row.name
            );
            refused += 1;
        } else if row.wellformed == "yes" {
            let image = found.unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!(
                Some(image.len()),
                row.oracle["vsize"].as_u64(),
                "{}",
                row.name
            );
            agreed += 1;
            if let Some(expected) = row.oracle["raw_sha256"].as_str() {
                assert_eq!(sha256(&image), expected, "{}", row.name);
                hashed += 1;
            }
        } else if row.wellformed == "no" {
            assert!(found.is_err(), "{} is damaged", row.name);
        } else if let Err(error) = found {
            eprintln!("{}: {error}", row.name);
        }
    }
    eprintln!("{agreed} sizes and {hashed} contents agree; {refused} refused with a reason");
    assert_eq!(refused, REFUSED.len());
    assert!(agreed >= 28 && hashed >= 26);
}

#[test]
fn no_foreign_disk_panics_a_reader() {
    let Some((folder, rows)) = rows() else { return };
    for row in rows {
        let bytes = std::fs::read(folder.join(&row.name)).unwrap();
        fuzz::detect(&bytes);
        fuzz::vmdk(&bytes);
        if bytes.len() < 4 << 20 {
            fuzz::vmdk_repair(&bytes);
        }
        fuzz::qcow2(&bytes);
        fuzz::qcow2_repair(&bytes);
        fuzz::qed(&bytes);
        fuzz::vhd(&bytes);
        if bytes.starts_with(b"vhdxfile") {
            fuzz::vhdx(&bytes);
        }
        fuzz::vhd_repair(&bytes);
        fuzz::vdi(&bytes);
        fuzz::vdi_repair(&bytes);
        fuzz::vmdk_flat(&bytes);
        // And with a piece missing.
        fuzz::detect(&bytes[..bytes.len() / 2]);
    }
}

#[test]
fn foreign_containers_that_we_do_not_read_are_never_taken_for_raw() {
    let Some((folder, rows)) = rows() else { return };
    let known = ["vhdx", "ewf", "vmdk-sesparse", "parallels", "wim"];
    let mut seen = 0;
    for row in rows
        .iter()
        .filter(|row| known.iter().any(|known| row.subformat.starts_with(known)))
    {
        // Descriptors of Parallels are XML beside the disk, its plain images are raw.
        if row.name.ends_with(".vhdx") {
            continue;
        }
        if row.subformat == "parallels-desc" || row.subformat == "parallels-plain" {
            continue;
        }
        match open(&folder, row) {
            Err(Error::Unsupported(_)) => seen += 1,
            other => panic!("{} ({}): {other:?}", row.name, row.subformat),
        }
    }
    assert!(seen >= 20, "{seen}");
}
