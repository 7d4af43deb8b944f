//! Filesystems and tables that other programs make, squeezed to a few kilobytes.

use crate::{keep, root};
use std::io::Write;
use std::path::Path;
use std::process::Command;

type Done = Result<(), Box<dyn std::error::Error>>;

pub fn write() -> Done {
    let scratch = root().join("fuzz/target/seed");
    std::fs::create_dir_all(&scratch)?;
    tables()?;
    cpio()?;
    vmdk()?;
    ext(&scratch)
}

/// Runs a program; `false`, and said so, where it is not installed or fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    // The clock of mke2fs, so that two runs give equal bytes.
    command
        .args(arguments)
        .env("E2FSPROGS_FAKE_TIME", "1360573200");
    match command.output() {
        Ok(done) if done.status.success() => true,
        Ok(done) => {
            eprintln!(
                "SKIPPED: {program} {arguments:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
            false
        }
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}");
            false
        }
    }
}

/// A table with primary, extended and two logical partitions, on a disk of 16 KiB.
fn tables() -> Done {
    let mut disk = vec![0u8; 32 * 512];
    let mut put = |sector: usize, slot: usize, kind: u8, start: u32, count: u32| {
        let at = sector * 512 + 446 + slot * 16;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        disk[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    };
    put(0, 0, 0x83, 1, 7);
    put(0, 1, 0x05, 8, 20);
    put(8, 0, 0x83, 1, 5);
    put(8, 1, 0x05, 8, 12);
    put(16, 0, 0x82, 1, 4);
    disk[440..444].copy_from_slice(&0x1bad_b002u32.to_le_bytes());
    keep("mbr", "extended", &disk)?;
    Ok(())
}

/// VMDKs with grains of 4 KiB: the 64 KiB of every product make a file of 64 KiB at least.
fn vmdk() -> Done {
    let descriptor = |kind: &str| {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"{kind}\"\nRW 293 SPARSE \"seed.vmdk\"\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"8\"\n"
        );
        sector(text.as_bytes())
    };
    let header = |version: u32, flags: u32, directory: u64, overhead: u64| {
        let mut bytes = b"KDMV".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for field in [293u64, 8, 1, 1] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(64u32.to_le_bytes());
        for field in [0, directory, overhead] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(b"\0\n \r\n");
        bytes.extend(u16::from(flags & 0x10000 != 0).to_le_bytes());
        sector(&bytes)
    };
    let word = |at: u32| at.to_le_bytes();
    let grain = |fill: u8| vec![fill; 4096];
    // Grain 0 and 20 have bytes, grain 3 is written zeros.
    let mut table = [word(0); 64];
    (table[0], table[3], table[20]) = (word(4), word(1), word(12));
    let sparse = [
        header(1, 5, 2, 4),
        descriptor("monolithicSparse"),
        sector(&word(3)),
        sector(&table.concat()),
        grain(1),
        grain(2),
    ];
    keep("vmdk", "sparse-tiny", &sparse.concat())?;

    let packed = |lba: u64, fill: u8| -> std::io::Result<Vec<u8>> {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&grain(fill))?;
        let data = packer.finish()?;
        let size = u32::try_from(data.len()).unwrap_or(0);
        Ok(sector(
            &[&lba.to_le_bytes()[..], &word(size), &data].concat(),
        ))
    };
    let marker =
        |count: u64, kind: u32| sector(&[&count.to_le_bytes()[..], &word(0), &word(kind)].concat());
    (table[0], table[3], table[20]) = (word(2), word(0), word(3));
    let flags = 0x3_0001;
    let stream = [
        header(3, flags, u64::MAX, 2),
        descriptor("streamOptimized"),
        packed(0, 3)?,
        packed(160, 4)?,
        marker(1, 1),
        sector(&table.concat()),
        marker(1, 2),
        sector(&word(5)),
        marker(1, 3),
        header(3, flags, 7, 2),
        marker(0, 0),
    ];
    keep("vmdk", "stream-tiny", &stream.concat())?;
    keep("detect", "vmdk-stream-tiny", &stream.concat())?;
    keep("qemu_img", "vmdk-sparse", &sparse.concat())?;
    keep("qemu_img", "vmdk-stream", &stream.concat())?;
    Ok(())
}

/// The bytes, filled up with zeros to whole sectors.
fn sector(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A newc archive, bare and behind an uncompressed prefix.
fn cpio() -> Done {
    let entry = |name: &str, mode: u32, data: &[u8]| {
        let mut out = b"070701".to_vec();
        let name_size = u32::try_from(name.len() + 1).unwrap_or(0);
        let size = u32::try_from(data.len()).unwrap_or(0);
        for field in [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            out.extend(format!("{field:08x}").bytes());
        }
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let end = entry("TRAILER!!!", 0, b"");
    let early = [
        entry(
            "kernel/x86/microcode/GenuineIntel.bin",
            0o100_644,
            b"microcode",
        ),
        end.clone(),
    ]
    .concat();
    let main = [
        entry("init", 0o100_755, b"#!/bin/sh\nexec /sbin/init\n"),
        entry(
            "etc/udev/rules.d/70.rules",
            0o100_644,
            b"SUBSYSTEM==\"net\", NAME=\"eth0\"\n",
        ),
        entry(
            "lib/modules/2.6.32/modules.alias",
            0o100_644,
            b"alias pci:v00001AF4d00001001sv*sd*bc*sc*i* virtio_pci\n",
        ),
        entry("bin/link", 0o120_777, b"../init"),
        end,
    ]
    .concat();
    keep("initramfs", "bare", &main)?;
    let mut both = early.clone();
    both.resize(both.len().next_multiple_of(512), 0);
    both.extend(&main);
    keep("initramfs", "behind-microcode", &both)?;
    for (program, arguments, name) in [
        ("xz", ["-k", "-f", "--check=crc32"].as_slice(), "xz"),
        (
            "xz",
            &["-k", "-f", "--x86", "--lzma2=dict=1MiB", "--check=sha256"],
            "xz-x86",
        ),
        ("zstd", &["-q", "-f", "-19"], "zst"),
        ("zstd", &["-q", "-f", "-1", "--no-check"], "zst-fast"),
    ] {
        packed(program, arguments, name, &early, &main)?;
    }
    Ok(())
}

/// An archive as a packer packs it, behind one with microcode.
fn packed(program: &str, arguments: &[&str], name: &str, early: &[u8], main: &[u8]) -> Done {
    let plain = root().join("fuzz/target/seed/initramfs");
    std::fs::write(&plain, main)?;
    let path = plain.to_str().ok_or("a path that is no text")?;
    let all: Vec<&str> = arguments.iter().copied().chain([path]).collect();
    if !run(program, &all) {
        return Ok(());
    }
    let suffix = if program == "xz" { "xz" } else { "zst" };
    let mut bytes = early.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(std::fs::read(format!("{path}.{suffix}"))?);
    keep("initramfs", name, &bytes)?;
    Ok(())
}

/// Small ext volumes; what is zero behind the last used block is cut, which the reader takes as a short volume.
fn ext(scratch: &Path) -> Done {
    let files = scratch.join("files");
    std::fs::create_dir_all(files.join("etc/deep"))?;
    std::fs::write(files.join("a"), b"first file, the one that is edited\n")?;
    std::fs::write(files.join("etc/hosts"), b"127.0.0.1 localhost\n")?;
    std::fs::write(files.join("etc/deep/blocks"), vec![7; 5000])?;
    let link = files.join("etc/link");
    if !link.is_symlink() {
        std::os::unix::fs::symlink("../a", link)?;
    }
    for (name, options, size) in [
        ("ext2", &["-t", "ext2", "-O", "^resize_inode"][..], "200"),
        (
            "ext3",
            &["-t", "ext3", "-O", "^resize_inode", "-J", "size=1"],
            "4096",
        ),
        (
            "ext4",
            &[
                "-t",
                "ext4",
                "-O",
                "^has_journal,^resize_inode,metadata_csum,64bit",
            ],
            "200",
        ),
        (
            "ext4-el6",
            &[
                "-t",
                "ext4",
                "-O",
                "^has_journal,^resize_inode,^64bit,^metadata_csum,uninit_bg",
            ],
            "200",
        ),
        (
            "ext4-inline",
            &[
                "-t",
                "ext4",
                "-I",
                "256",
                "-O",
                "^has_journal,^resize_inode,inline_data",
            ],
            "200",
        ),
    ] {
        let path = scratch.join(name);
        let _ = std::fs::remove_file(&path);
        let (path_text, files_text) = (
            path.to_string_lossy().into_owned(),
            files.to_string_lossy().into_owned(),
        );
        let fixed = [
            "-q",
            "-F",
            "-b",
            "1024",
            "-N",
            "32",
            "-U",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ];
        let end = [
            "-E",
            "hash_seed=6ba7b811-9dad-11d1-80b4-00c04fd430c8",
            "-d",
            &files_text,
            &path_text,
            size,
        ];
        if !run("mke2fs", &[&fixed[..], options, &end[..]].concat()) {
            continue;
        }
        let mut bytes = std::fs::read(&path)?;
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        bytes.truncate(used.next_multiple_of(1024));
        if name == "ext3" {
            bytes = interrupted(&bytes).ok_or("mke2fs laid the journal out in another way")?;
        }
        keep("ext", name, &bytes)?;
        keep("door", name, &bytes)?;
    }
    Ok(())
}

/// The volume with a journal of eight blocks that a crash left: one block to be written home, two revoked.
fn interrupted(bytes: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
    let journal = bytes
        .chunks(1024)
        .position(|block| block.starts_with(&MAGIC))?;
    let home = bytes
        .chunks(1024)
        .position(|block| block.starts_with(b"first file"))?;
    let mut bytes = bytes.get(..(journal + 8) * 1024)?.to_vec();
    // "Needs recovery" of the volume; length, first sequence and start of the log.
    bytes[1024 + 0x60] |= 4;
    for (field, value) in [(0x10, 8u32), (0x18, 7), (0x1c, 1)] {
        let at = journal * 1024 + field;
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    // Inode 8 is the journal; its size ends before the first block that only an indirect block names.
    let inodes = u32::from_le_bytes(bytes.get(2056..2060)?.try_into().ok()?);
    let inode_size = usize::from(u16::from_le_bytes([bytes[1024 + 0x58], bytes[1024 + 0x59]]));
    let at = usize::try_from(inodes).ok()? * 1024 + 7 * inode_size + 4;
    bytes[at..at + 4].copy_from_slice(&8192u32.to_le_bytes());
    let home = u32::try_from(home).ok()?;
    let mut put = |block: usize, words: &[u32]| {
        let at = (journal + block) * 1024;
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes[at..at + 4].copy_from_slice(&MAGIC);
        bytes[at + 4..at + 4 + words.len()].copy_from_slice(&words);
    };
    put(1, &[1, 7, home, 2 | 8]);
    put(3, &[5, 7, 24, home + 1, home + 2]);
    put(4, &[2, 7]);
    put(5, &[5, 8, 20, home + 3]);
    put(6, &[2, 8]);
    let at = (journal + 2) * 1024;
    bytes[at..at + 11].copy_from_slice(b"other file\n");
    Some(bytes)
}
