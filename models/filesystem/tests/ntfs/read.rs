//! Reading, compared with two other readers.

use crate::common::{Cursor, content, foreign, have_ntfs_tools, make, run, scratch};
use drylab_block::{Limits, ReadAt};
use drylab_filesystem::ntfs::Ntfs;
use drylab_filesystem::{FileType, Filesystem, Kind};
use ntfs::structured_values::NtfsFileNamespace;
use ntfs::{NtfsFile, NtfsReadSeek};
use std::collections::BTreeMap;
use std::sync::Arc;

const LIMITS: Limits = Limits::DEFAULT;

/// Path → content of a file, `None` for a directory or link; an error is kept as its text.
type Tree = BTreeMap<String, Option<Result<Vec<u8>, String>>>;

fn ours(volume: &Ntfs) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![String::new()];
    while let Some(directory) = waiting.pop() {
        let path = if directory.is_empty() {
            "/"
        } else {
            &directory
        };
        for entry in volume.list(path, &LIMITS).unwrap().unwrap() {
            let path = format!("{directory}/{}", entry.name);
            let read = match entry.file_type {
                FileType::File => Some(
                    volume
                        .read(&path, &LIMITS)
                        .map(Option::unwrap_or_default)
                        .map_err(|error| error.to_string()),
                ),
                FileType::Directory => {
                    waiting.push(path.clone());
                    None
                }
                _ => None,
            };
            assert!(tree.insert(path, read).is_none(), "a name is listed once");
        }
    }
    tree
}

/// What the crate `ntfs` reads in the same volume.
fn theirs(source: Arc<dyn ReadAt>) -> Tree {
    let mut disk = Cursor(source, 0);
    let mut volume = ntfs::Ntfs::new(&mut disk).unwrap();
    volume.read_upcase_table(&mut disk).unwrap();
    let mut tree = Tree::new();
    let mut waiting = vec![(String::new(), volume.root_directory(&mut disk).unwrap())];
    while let Some((directory, file)) = waiting.pop() {
        let index = file.directory_index(&mut disk).unwrap();
        let mut entries = index.entries();
        while let Some(entry) = entries.next(&mut disk) {
            let entry = entry.unwrap();
            let name = entry.key().unwrap().unwrap();
            if name.namespace() == NtfsFileNamespace::Dos
                || entry.file_reference().file_record_number() < 16
            {
                continue;
            }
            let path = format!("{directory}/{}", name.name().to_string_lossy());
            let child = entry.to_file(&volume, &mut disk).unwrap();
            if child.is_directory() {
                tree.insert(path.clone(), None);
                waiting.push((path, child));
                continue;
            }
            tree.insert(path, Some(bytes_of(&child, &mut disk)));
        }
    }
    tree
}

fn bytes_of(file: &NtfsFile<'_>, disk: &mut Cursor) -> Result<Vec<u8>, String> {
    let Some(item) = file.data(disk, "") else {
        return Ok(Vec::new());
    };
    let item = item.map_err(|error| error.to_string())?;
    let attribute = item.to_attribute().map_err(|error| error.to_string())?;
    let mut value = attribute.value(disk).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; value.len() as usize];
    value
        .read_exact(disk, &mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn compare(what: &str, source: Arc<dyn ReadAt>) -> (usize, usize, u64) {
    let volume =
        Ntfs::open(source.clone(), &LIMITS).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (ours, theirs) = (ours(&volume), theirs(source.clone()));
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{what}: names");
    let (mut refused, mut bytes) = (0, 0);
    for (path, read) in &ours {
        match (read, &theirs[path]) {
            (Some(Ok(mine)), Some(Ok(other))) => {
                // The crate gives compressed files as they are stored; ntfscat unpacks them, as we do.
                if mine != other && have_ntfs_tools() {
                    let unpacked = cat(source.as_ref(), path);
                    assert!(
                        *mine == unpacked,
                        "{what}{path}: {} bytes, {} by ntfscat",
                        mine.len(),
                        unpacked.len()
                    );
                    eprintln!(
                        "{what}{path}: {} compressed bytes as ntfscat unpacks them",
                        mine.len()
                    );
                }
                bytes += mine.len() as u64;
            }
            (Some(Err(error)), _) => {
                eprintln!("{what}{path}: {error}");
                assert!(
                    error.contains("reparse point with tag"),
                    "{what}{path}: {error}"
                );
                refused += 1;
            }
            (Some(Ok(_)), Some(Err(error))) => panic!("{what}{path}: only the other says {error}"),
            (mine, other) => assert_eq!(
                mine.is_none(),
                other.is_none(),
                "{what}{path}: file or directory"
            ),
        }
    }
    (ours.len(), refused, bytes)
}

/// A file of a volume as ntfscat reads it.
fn cat(source: &dyn ReadAt, path: &str) -> Vec<u8> {
    let image = scratch("cat.img");
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(0, &mut bytes).unwrap();
    std::fs::write(&image, bytes).unwrap();
    run("ntfscat", &["-f", image.to_str().unwrap(), path])
}

#[test]
fn volumes_of_mkntfs_read_as_ntfscat_and_the_crate_read_them() {
    if !have_ntfs_tools() {
        return;
    }
    for (index, options) in [
        &["-c", "512"][..],
        &["-c", "1024", "-I"],
        &["-L", "Größe"],
        &["-c", "65536"],
    ]
    .iter()
    .enumerate()
    {
        let lengths = [0usize, 1, 600, 700, 5_000, 65_536, 300_001];
        let mut files: Vec<(String, Vec<u8>)> = lengths
            .iter()
            .map(|length| (format!("File of {length}.bin"), content(*length, 3)))
            .collect();
        files.push(("Straße und Ähre.txt".into(), content(40, 9)));
        let image = make(&format!("read-{index}.img"), 24 << 20, options, &files);
        let source: Arc<dyn ReadAt> = Arc::new(std::fs::read(&image).unwrap());
        let volume = Ntfs::open(source.clone(), &LIMITS).unwrap();
        for (name, content) in &files {
            assert_eq!(
                volume
                    .read(&format!("/{}", name.to_lowercase()), &LIMITS)
                    .unwrap()
                    .as_ref(),
                Some(content),
                "{name}"
            );
            assert_eq!(
                &run("ntfscat", &[image.to_str().unwrap(), name]),
                content,
                "{name} by ntfscat"
            );
        }
        let listed = volume.list("/", &LIMITS).unwrap().unwrap();
        assert_eq!(listed.len(), files.len());
        for entry in listed {
            let content = files
                .iter()
                .find(|(name, _)| *name == entry.name)
                .map(|(_, content)| content.len() as u64);
            assert_eq!(Some(entry.size), content, "{}", entry.name);
        }
        assert_eq!(volume.kind(), Kind::Ntfs);
        assert_eq!(volume.version(), (3, 1));
        assert_eq!(
            (volume.is_dirty(), volume.is_hibernated().unwrap()),
            (false, false)
        );
        assert_eq!(volume.label(), if index == 2 { "Größe" } else { "" });
        let blkid = std::process::Command::new("blkid")
            .args(["-p", "-o", "value", "-s", "UUID"])
            .arg(&image)
            .output();
        if let Ok(said) = blkid.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned())
        {
            assert_eq!(volume.uuid(), said, "by blkid");
        }
        assert_eq!(volume.read("/no such file", &LIMITS).unwrap(), None);
        assert_eq!(volume.list("/File of 1.bin", &LIMITS).unwrap(), None);
        compare(&format!("read-{index}"), source);
    }
}

#[test]
fn a_directory_of_many_entries_is_found_in_full_and_by_name() {
    if !have_ntfs_tools() {
        return;
    }
    let files: Vec<(String, Vec<u8>)> = (0..260u32)
        .map(|index| {
            (
                format!("entry number {:04} of many.dat", index * 7919 % 10_000),
                content(30, index),
            )
        })
        .collect();
    let image = make("many.img", 8 << 20, &[], &files);
    let source: Arc<dyn ReadAt> = Arc::new(std::fs::read(&image).unwrap());
    let volume = Ntfs::open(source.clone(), &LIMITS).unwrap();
    for (name, content) in &files {
        assert_eq!(
            volume
                .read(&format!("\\{}", name.to_uppercase()), &LIMITS)
                .unwrap()
                .as_ref(),
            Some(content),
            "{name}"
        );
    }
    assert_eq!(compare("many", source).0, files.len());
    let mut few = LIMITS;
    few.entries_max = 100;
    assert!(
        volume
            .list("/", &few)
            .unwrap_err()
            .to_string()
            .contains("more than 100")
    );
    few.file_bytes_max = 20;
    assert!(
        volume
            .read(&files[0].0, &few)
            .unwrap_err()
            .to_string()
            .contains("30 bytes, more than the 20")
    );
}

#[test]
fn foreign_volumes_read_as_the_crate_reads_them() {
    let mut all = 0;
    for (name, source) in foreign() {
        let (entries, refused, bytes) = compare(&name, source);
        eprintln!(
            "{name}: {entries} entries, {refused} refused with their reason, {bytes} bytes equal"
        );
        all += entries;
    }
    assert!(all == 0 || all > 2000, "{all} entries");
}

/// Makes the streams of a reparse point: tag, substitute name, and for symbolic links whether it is relative.
fn reparse(tag: u32, substitute: &str, relative: Option<bool>) -> Vec<u8> {
    let name: Vec<u8> = substitute
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let length = name.len() as u16;
    let mut data: Vec<u8> = [0, length, length, 0]
        .iter()
        .flat_map(|word: &u16| word.to_le_bytes())
        .collect();
    data.extend(
        relative
            .map(|relative| u32::from(relative).to_le_bytes())
            .into_iter()
            .flatten(),
    );
    data.extend(&name);
    let mut bytes = tag.to_le_bytes().to_vec();
    bytes.extend((data.len() as u16).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

#[test]
fn junctions_and_symbolic_links_are_followed_inside_the_volume_and_loops_end() {
    if !have_ntfs_tools() {
        return;
    }
    let (mount, symbolic) = (0xA000_0003, 0xA000_000C);
    let image = make(
        "links.img",
        4 << 20,
        &[],
        &[("target.txt".into(), b"found".to_vec())],
    );
    let path = image.to_str().unwrap();
    let source = scratch("links.file");
    let links = [
        ("junction", reparse(mount, r"\??\C:\TARGET.txt", None)),
        ("relative", reparse(symbolic, r".\junction", Some(true))),
        (
            "absolute",
            reparse(symbolic, r"\??\D:\relative", Some(false)),
        ),
        ("loop", reparse(symbolic, "loop", Some(true))),
        ("elsewhere", reparse(mount, r"\??\Volume{0123}\x", None)),
        ("dangling", reparse(symbolic, "no such file", Some(true))),
        ("packed", reparse(0x8000_0017, "", None)),
    ];
    for (name, bytes) in &links {
        std::fs::write(&source, bytes).unwrap();
        run(
            "ntfscp",
            &["-q", "-a", "192", path, source.to_str().unwrap(), name],
        );
    }
    let volume = Ntfs::open(Arc::new(std::fs::read(&image).unwrap()), &LIMITS).unwrap();
    for name in ["junction", "relative", "absolute"] {
        assert_eq!(
            volume.read(name, &LIMITS).unwrap().as_deref(),
            Some(&b"found"[..]),
            "{name}"
        );
    }
    for name in ["elsewhere", "dangling"] {
        assert_eq!(volume.read(name, &LIMITS).unwrap(), None, "{name}");
    }
    assert!(
        volume
            .read("loop", &LIMITS)
            .unwrap_err()
            .to_string()
            .contains("more than 63 links")
    );
    assert!(
        volume
            .read("packed", &LIMITS)
            .unwrap_err()
            .to_string()
            .contains("0x80000017")
    );
}

#[test]
fn a_file_with_forty_named_streams_is_read_through_its_attribute_list() {
    if !have_ntfs_tools() {
        return;
    }
    let main = content(3000, 8);
    let image = make(
        "streams.img",
        8 << 20,
        &["-c", "512"],
        &[("big.txt".into(), main.clone())],
    );
    let path = image.to_str().unwrap();
    let source = scratch("streams.file");
    std::fs::write(&source, b"a named stream").unwrap();
    for stream in 0..40 {
        run(
            "ntfscp",
            &[
                "-q",
                "-N",
                &format!("stream {stream}"),
                path,
                source.to_str().unwrap(),
                "big.txt",
            ],
        );
    }
    let source: Arc<dyn ReadAt> = Arc::new(std::fs::read(&image).unwrap());
    let volume = Ntfs::open(source.clone(), &LIMITS).unwrap();
    assert_eq!(
        volume.read("big.txt", &LIMITS).unwrap().as_ref(),
        Some(&main)
    );
    compare("streams", source);
}
