//! Small disks by qemu-img in the formats that its version 0.12 read, cut behind their last byte that is not zero.

use crate::disks::run;
use crate::keep;
use std::path::Path;

/// Name of the seed, format, options, whether compressed.
const DISKS: [(&str, &str, &str, bool); 7] = [
    ("qcow", "qcow", "", false),
    ("qcow2", "qcow2", "compat=0.10,cluster_size=512", false),
    ("qcow2-c", "qcow2", "compat=0.10,cluster_size=512", true),
    ("vdi", "vdi", "", false),
    ("vpc-dynamic", "vpc", "", false),
    ("vpc-fixed", "vpc", "subformat=fixed", false),
    ("qed", "qed", "cluster_size=4096,table_size=2", false),
];

pub fn write() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/seed");
    std::fs::create_dir_all(&scratch)?;
    let source = scratch.join("disk");
    let mut disk = b"text of a disk, ".repeat(40);
    disk.resize(9000, 0);
    disk.extend((0..=255u8).cycle().take(1024));
    disk.resize(32 << 10, 0);
    std::fs::write(&source, &disk)?;
    let (source, made) = (source.to_string_lossy(), scratch.join("made"));
    for (name, format, options, compressed) in DISKS {
        let target = made.to_string_lossy();
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        if compressed {
            arguments.push("-c");
        }
        // A VDI of then has whole blocks of 1 MiB.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&*source)?
            .set_len(if format == "vdi" { 1 << 20 } else { 32 << 10 })?;
        arguments.extend([&*source, &*target]);
        let _ = std::fs::remove_file(&made);
        if !run("qemu-img", &arguments) {
            continue;
        }
        let mut bytes = std::fs::read(&made)?;
        if name == "vpc-dynamic" {
            // Its footer stands in front, too.
            bytes.truncate(bytes.len() - 512);
        }
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        // A fixed VHD has its footer behind the data; the others begin with what they need.
        bytes.truncate(used.next_multiple_of(512));
        keep("qemu_img", name, &bytes)?;
    }
    // Parallels as of then, which qemu-img no longer writes: a catalogue of sectors, blocks of one track.
    let mut parallels = b"WithoutFreeSpace".to_vec();
    for field in [
        2u32, 16, 1, 8, 8, 64, 0, 0, 0, 0, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0,
    ] {
        parallels.extend(field.to_le_bytes());
    }
    parallels.resize(512, 0);
    parallels.extend([5; 8192]);
    keep("qemu_img", "parallels", &parallels)?;
    let flat = "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 64 FLAT \"disk-flat.vmdk\" 0\n";
    keep("qemu_img", "vmdk-flat", flat.as_bytes())?;
    Ok(())
}
