//! Rewrites in place: ntfscat reads the new content, ntfsfix finds nothing, nothing else changes.

use crate::common::{content, have_ntfs_tools, make, run, scratch};
use drylab_block::{Limits, Overlay, ReadAt, WriteAt};
use drylab_filesystem::Filesystem;
use drylab_filesystem::ntfs::Ntfs;
use std::sync::Arc;

const LIMITS: Limits = Limits::DEFAULT;

fn opened(source: &Arc<Overlay>) -> Ntfs {
    Ntfs::open(source.clone(), &LIMITS).unwrap()
}

#[test]
fn a_rewritten_file_is_read_back_by_ntfscat_and_every_other_file_stays() {
    if !have_ntfs_tools() {
        return;
    }
    for (index, options) in [&["-c", "512"][..], &[], &["-c", "16384"]]
        .iter()
        .enumerate()
    {
        let mut files: Vec<(String, Vec<u8>)> = (0..40u32)
            .map(|at| (format!("other {at:02}.bin"), content(at as usize * 97, at)))
            .collect();
        files.push(("resident.txt".into(), content(200, 1)));
        files.push(("clusters.bin".into(), content(50_000, 2)));
        let image = make(&format!("edit-{index}.img"), 16 << 20, options, &files);
        let disk = Arc::new(Overlay::new(Arc::new(std::fs::read(&image).unwrap())));
        let cases = [
            ("resident.txt", 0),
            ("resident.txt", 350),
            ("resident.txt", 17),
            ("clusters.bin", 50_100),
            ("clusters.bin", 12_345),
            ("clusters.bin", 0),
            ("clusters.bin", 49_999),
        ];
        for (step, (name, length)) in cases.into_iter().enumerate() {
            let new = content(length, 100 + step as u32);
            let patches = opened(&disk)
                .plan_write(&format!("/{}", name.to_uppercase()), &new, &LIMITS)
                .unwrap();
            for (offset, bytes) in
                patches.unwrap_or_else(|| panic!("{length} bytes fit into {name}"))
            {
                disk.write_at(offset, &bytes).unwrap();
            }
            let volume = opened(&disk);
            let listed = volume.list("/", &LIMITS).unwrap().unwrap();
            for (other, content) in &files {
                let expected = if other == name { &new } else { content };
                assert_eq!(
                    volume.read(other, &LIMITS).unwrap().as_ref(),
                    Some(expected),
                    "{other} after {name} got {length}"
                );
                let size = listed
                    .iter()
                    .find(|entry| entry.name == *other)
                    .map(|entry| entry.size);
                assert_eq!(
                    size,
                    Some(expected.len() as u64),
                    "{other} after {name} got {length}"
                );
            }
            files.iter_mut().find(|(other, _)| other == name).unwrap().1 = new;
            check(&disk, &files, &format!("edited-{index}.img"));
        }
        let volume = opened(&disk);
        assert!(
            volume
                .plan_write("/resident.txt", &content(900, 0), &LIMITS)
                .unwrap()
                .is_none(),
            "900 bytes do not fit a record"
        );
        assert!(
            volume
                .plan_write("/clusters.bin", &content(70_000, 0), &LIMITS)
                .unwrap()
                .is_none(),
            "70,000 do not fit the clusters"
        );
        assert!(
            volume
                .plan_write("/missing", &[], &LIMITS)
                .unwrap()
                .is_none()
        );
        assert!(volume.plan_write("/", &[], &LIMITS).unwrap().is_none());
    }
}

/// What ntfs-3g's programs say of the volume.
fn check(disk: &Arc<Overlay>, files: &[(String, Vec<u8>)], name: &str) {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    let path = scratch(name);
    std::fs::write(&path, &bytes).unwrap();
    let image = path.to_str().unwrap();
    for (file, content) in files.iter().rev().take(3) {
        assert_eq!(
            &run("ntfscat", &[image, file]),
            content,
            "{file} by ntfscat"
        );
    }
    let said = String::from_utf8_lossy(&run("ntfsfix", &["-n", image])).into_owned();
    assert!(said.contains("processed successfully"), "{said}");
    assert!(
        !said.contains("FAILED") && !said.contains("mismatch"),
        "{said}"
    );
}

#[test]
fn the_mirror_of_the_first_records_follows_a_rewrite() {
    if !have_ntfs_tools() {
        return;
    }
    // With clusters of 16 KiB the mirror holds 16 records, the root directory's among them.
    let image = make(
        "mirror.img",
        16 << 20,
        &["-c", "16384"],
        &[("small.txt".into(), content(100, 1))],
    );
    let disk = Arc::new(Overlay::new(Arc::new(std::fs::read(&image).unwrap())));
    for (offset, bytes) in opened(&disk)
        .plan_write("/small.txt", &content(90, 2), &LIMITS)
        .unwrap()
        .unwrap()
    {
        disk.write_at(offset, &bytes).unwrap();
    }
    let volume = opened(&disk);
    let table = volume.read("/$MFT", &LIMITS).unwrap().unwrap();
    let mirror = volume.read("/$MFTMirr", &LIMITS).unwrap().unwrap();
    assert_eq!(mirror.len(), 16 << 10);
    assert!(
        table.starts_with(&mirror),
        "the mirror is the start of the table"
    );
}

#[test]
fn a_hibernated_volume_is_told_and_not_edited() {
    if !have_ntfs_tools() {
        return;
    }
    let hibernated = [&b"HIBR"[..], &[0; 5000]].concat();
    for (content, sleeps) in [(hibernated, true), (vec![0; 5000], false)] {
        // Last, since ntfscp too refuses a volume that Windows sleeps on.
        let files = [
            ("file.txt".to_owned(), vec![1; 10]),
            ("hiberfil.sys".to_owned(), content),
        ];
        let image = make(&format!("sleep-{sleeps}.img"), 4 << 20, &[], &files);
        let volume = Ntfs::open(Arc::new(std::fs::read(&image).unwrap()), &LIMITS).unwrap();
        assert_eq!(volume.is_hibernated().unwrap(), sleeps);
        assert_eq!(
            volume.plan_write("/file.txt", b"new", &LIMITS).is_err(),
            sleeps
        );
    }
}

#[test]
fn a_file_in_three_hundred_fragments_described_in_several_records_is_read_and_rewritten() {
    if !have_ntfs_tools() {
        return;
    }
    let image = make("fragments.img", 8 << 20, &["-c", "512"], &[]);
    let path = image.to_str().unwrap();
    let source = scratch("fragments.file");
    let whole = [content(300 * 512, 5), content(300 * 512, 6)];
    // Two files that grow in turn by a cluster get every other cluster; the runs outgrow the record.
    for step in 1..=300 {
        for (name, whole) in ["A.bin", "B.bin"].into_iter().zip(&whole) {
            std::fs::write(&source, &whole[..step * 512]).unwrap();
            run("ntfscp", &["-q", path, source.to_str().unwrap(), name]);
        }
    }
    let bytes = std::fs::read(&image).unwrap();
    let disk = Arc::new(Overlay::new(Arc::new(bytes.clone())));
    assert_eq!(
        opened(&disk).read("/a.bin", &LIMITS).unwrap().as_ref(),
        Some(&whole[0])
    );
    let new = content(300 * 512 - 99, 7);
    let patches = opened(&disk)
        .plan_write("/a.BIN", &new, &LIMITS)
        .unwrap()
        .expect("it fits");
    assert!(patches.len() >= 300, "{} patches", patches.len());
    for (offset, bytes) in patches {
        disk.write_at(offset, &bytes).unwrap();
    }
    assert_eq!(
        opened(&disk).read("/A.bin", &LIMITS).unwrap().as_ref(),
        Some(&new)
    );
    let files = [
        ("B.bin".to_owned(), whole[1].clone()),
        ("A.bin".to_owned(), new),
    ];
    check(&disk, &files, "fragments-edited.img");
    for step in 0..256usize {
        let mut damaged = bytes.clone();
        // Records 64 on are the two files' and their extensions'; $MFT starts at the place the boot sector gives.
        let table = u64::from_le_bytes(damaged[0x30..0x38].try_into().unwrap()) as usize * 512;
        let at = table + 64 * 1024 + step * 37 % 5120;
        damaged[at] = damaged[at].wrapping_add(1 + (step * 11 % 255) as u8);
        drylab_filesystem::ntfs::fuzz::ntfs(&damaged);
    }
}
