//! NTFS volumes by mkntfs and ntfscp, and the same squeezed to what can be committed.

use crate::disks::run;
use crate::keep;
use std::path::Path;

type Done = Result<(), Box<dyn std::error::Error>>;

/// First byte of the MFT, as mkntfs lays volumes of 1 MiB out.
const MFT: usize = 0x4000;
const RECORD: usize = 1024;
const CLUSTER: usize = 4096;
/// First record of a file that is not the system's: as mkntfs has it, and as squeezed.
const FILES: (u8, u8) = (64, 24);
/// Records in use behind it, at most.
const USED: u8 = 4;
/// Where squeezed data goes: the first cluster behind record 27.
const DATA: usize = 11;

pub fn write() -> Done {
    let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/seed");
    std::fs::create_dir_all(&scratch)?;
    for (name, compressed) in [("plain", false), ("packed", true)] {
        let Some(full) = volume(&scratch, compressed)? else {
            continue;
        };
        // Behind this stand only the copy of the boot sector and the log.
        keep("ntfs", &format!("whole-{name}"), &full[..0x2a000])?;
        let small = squeeze(&full).ok_or("mkntfs laid the volume out in another way")?;
        keep("ntfs", name, &small)?;
        keep("door", &format!("ntfs-{name}"), &small)?;
    }
    Ok(())
}

/// A volume with a resident file, one in clusters and one with so many streams that it has an attribute list.
fn volume(scratch: &Path, compressed: bool) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
    let path = scratch.join("ntfs");
    let image = path.to_string_lossy().into_owned();
    std::fs::write(&path, vec![0; 1_052_672])?;
    let mut make = vec![
        "-q", "-F", "-s", "512", "-c", "4096", "-p", "0", "-H", "0", "-S", "0", "-L", "seed", "-Q",
    ];
    if compressed {
        make.push("-C");
    }
    make.push(&image);
    if !run("mkntfs", &make) {
        return Ok(None);
    }
    let source = scratch.join("source");
    let put = |name: &str, stream: Option<&str>, bytes: &[u8]| -> Result<bool, std::io::Error> {
        std::fs::write(&source, bytes)?;
        let source = source.to_string_lossy();
        let mut arguments = vec!["-q"];
        arguments.extend(stream.iter().flat_map(|stream| ["-N", *stream]));
        arguments.extend([&*image, &*source, name]);
        Ok(run("ntfscp", &arguments))
    };
    let mut made = put("a.txt", None, b"resident text\n")?;
    made &= put(
        "b.bin",
        None,
        &b"a file in clusters of its own. ".repeat(200),
    )?;
    for stream in 0..14 {
        made &= put(
            "a.txt",
            Some(&format!("stream{stream}")),
            &[b'a' + stream; 24],
        )?;
    }
    Ok(made.then(|| std::fs::read(&path)).transpose()?)
}

/// The volume with its files in the first records behind the system's, and what they and the root's index hold in
/// clusters of records nobody uses; cut behind that, with the length of the whole volume still in its boot sector.
fn squeeze(full: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = full.to_vec();
    // The root's index block: records 12 to 15 make cluster 7.
    let index = run_lists(&bytes, 5)
        .into_iter()
        .find(|(kind, _)| *kind == 0xa0)?
        .1;
    relocate(&mut bytes, index, 7)?;
    for number in 0..USED {
        let (old, new) = (FILES.0 + number, FILES.1 + number);
        let from = MFT + usize::from(old) * RECORD;
        let to = MFT + usize::from(new) * RECORD;
        bytes.copy_within(from..from + RECORD, to);
        bytes[to + 0x2c] = new;
    }
    let mut free = DATA;
    for number in 0..USED {
        for (_, list) in run_lists(&bytes, usize::from(FILES.1 + number)) {
            free += relocate(&mut bytes, list, free)?;
        }
    }
    bytes.truncate(free * CLUSTER);
    // References: record number and sequence number 1, in index entries, attribute lists and base records.
    for word in bytes[MFT..].chunks_exact_mut(8) {
        let old = word[0];
        if (FILES.0..FILES.0 + USED).contains(&old) && word[1..] == [0, 0, 0, 0, 0, 1, 0] {
            word[0] = old - FILES.0 + FILES.1;
        }
    }
    Some(bytes)
}

/// Types of a record's attributes that have run lists, and where those begin.
fn run_lists(bytes: &[u8], record: usize) -> Vec<(u8, usize)> {
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let start = MFT + record * RECORD;
    let mut found = Vec::new();
    let mut at = start + word(start + 0x14);
    while at < start + RECORD && bytes[at] != 0xff && word(at + 4) > 0 {
        if bytes[at + 8] == 1 {
            found.push((bytes[at], at + word(at + 0x20)));
        }
        at += word(at + 4);
    }
    found
}

/// Copies the clusters of a list's first run to `cluster` and changes the run; how many there are. What follows may only
/// be sparse.
fn relocate(bytes: &mut [u8], list: usize, cluster: usize) -> Option<usize> {
    let (lengths, offsets) = (usize::from(bytes[list] & 15), usize::from(bytes[list] >> 4));
    let number = |at: usize, width: usize| {
        bytes[at..at + width]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let count = number(list + 1, lengths);
    let from = number(list + 1 + lengths, offsets) * CLUSTER;
    let end = list + 1 + lengths + offsets;
    if offsets == 0 || bytes[end] >> 4 != 0 {
        return None;
    }
    bytes.copy_within(from..from + count * CLUSTER, cluster * CLUSTER);
    bytes[end - offsets..end].fill(0);
    bytes[end - offsets] = u8::try_from(cluster).ok()?;
    Some(count)
}
