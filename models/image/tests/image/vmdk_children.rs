//! Snapshots that we write: over parents of every kind, read by us and by qemu-img, flattened, and copied range by range.

use crate::common::{
    Folder, Kind, OnDisk, Piece, Plan, assert_same, fill, have_qemu_img, packed, plans, qemu_img,
};
use crate::vmdk_chain::{Files, bytes_of};
use drylab_block::{Below, Error, Extents, Limits, ReadAt, SparseBytes, WriteAt};
use drylab_image::{
    FlatKind, SplitKind, Target, VmdkOptions, VmdkParent, Work, open_with, write, write_flat,
    write_split, write_vmdk_child,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const GRAIN: u64 = 65_536;

fn options(name: &str) -> VmdkOptions {
    VmdkOptions {
        file_name: name.to_owned(),
        ..VmdkOptions::default()
    }
}

/// A parent of each kind, as `base.vmdk` with what it names.
fn parents(disk: &dyn ReadAt) -> Vec<Files> {
    let whole = |target: &Target| {
        let mut files = Files::default();
        files.0.insert("base.vmdk".to_owned(), packed(disk, target));
        files
    };
    let split = |kind| {
        let folder = tempfile::tempdir().unwrap();
        let make = &mut |name: &str| Ok(OnDisk::create(&folder.path().join(name)));
        let (text, _) = write_split(disk, &options("base.vmdk"), kind, make, &Work::ALONE).unwrap();
        let mut files = Files::default().with("base.vmdk", text.into_bytes());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let (path, kept) = (entry.unwrap().path(), SparseBytes::default());
            drylab_block::copy_data(&OnDisk::open(&path), &kept).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.0.insert(name, Arc::new(kept));
        }
        files
    };
    let extent = SparseBytes::default();
    let named = options("base-flat.vmdk");
    let (text, _) = write_flat(disk, &named, FlatKind::Vmfs, &extent, &Work::ALONE).unwrap();
    let mut flat = Files::default().with("base.vmdk", text.into_bytes());
    flat.0.insert("base-flat.vmdk".to_owned(), Arc::new(extent));
    vec![
        whole(&Target::VmdkSparse(options("base.vmdk"))),
        whole(&Target::VmdkStream(options("base.vmdk"))),
        flat,
        split(SplitKind::Sparse),
        split(SplitKind::Flat),
    ]
}

/// The files of a parent and a snapshot called `child.vmdk` that shows `disk` over it.
fn child(files: &Files, disk: &dyn ReadAt, zeroed_grains: bool) -> Files {
    let below = files.open("base.vmdk").unwrap();
    let parent = VmdkParent::of(&below.info(), "base.vmdk").unwrap();
    let file = SparseBytes::default();
    file.write_at(0, &[7; 100_000]).unwrap();
    let how = VmdkOptions {
        zeroed_grains,
        ..options("child.vmdk")
    };
    let written = write_vmdk_child(disk, &below, &parent, &how, &file).unwrap();
    assert_eq!(written.file_bytes, file.len());
    let mut files = files.clone();
    files.0.insert("child.vmdk".to_owned(), Arc::new(file));
    files
}

/// Grains in which two disks of one size differ, and those of them that are zeros only in the first.
fn differing(disk: &dyn ReadAt, base: &dyn ReadAt) -> (u64, u64) {
    let (one, other) = (bytes_of(disk), bytes_of(base));
    let pairs = one.chunks(GRAIN as usize).zip(other.chunks(GRAIN as usize));
    pairs.fold((0, 0), |(differ, zero), (one, other)| {
        let changed = u64::from(one != other);
        let empty = u64::from(changed == 1 && one.iter().all(|byte| *byte == 0));
        (differ + changed, zero + empty)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_shows_the_disk_over_its_parent_and_holds_the_grains_that_differ(
        base in plans(6 << 20), changes in plans(6 << 20), kind in 0..5usize, zeroed in any::<bool>(),
    ) {
        let size = base.size.next_multiple_of(512);
        let below = Plan { size, ..base }.disk();
        let disk = SparseBytes::new(size);
        drylab_block::copy_data(&below, &disk).unwrap();
        for Piece { offset, length, kind } in changes.pieces {
            let at = offset % size;
            let length = (length as u64).min(size - at) as usize;
            disk.write_at(at, &fill(kind, length)).unwrap();
        }
        let files = child(&parents(&below)[kind], &disk, zeroed);
        let image = files.open("child.vmdk").unwrap();
        prop_assert!(image.check().unwrap().is_empty());
        assert_same(&disk, &image);
        // No more is stored than what differs.
        let (differ, zeros) = differing(&disk, &below);
        let stored = if zeroed { differ - zeros } else { differ };
        let empty = packed(&SparseBytes::new(size), &Target::VmdkSparse(VmdkOptions::default()));
        prop_assert_eq!(files.0["child.vmdk"].len(), empty.len() + stored * GRAIN);
        // Flattened, the chain is the disk, to the byte of the file.
        for target in [Target::Raw, Target::VmdkSparse(options("flat.vmdk"))] {
            prop_assert!(bytes_of(&*packed(&image, &target)) == bytes_of(&*packed(&disk, &target)));
        }
    }
}

/// Two disks of one size: the second has lost a grain of the first to zeros, and has others and more.
fn two(size: u64) -> (SparseBytes, SparseBytes) {
    let piece = |offset, length, seed| Piece {
        offset,
        length,
        kind: Kind::Noise(seed),
    };
    let plan = |pieces: Vec<Piece>| Plan { size, pieces }.disk();
    (
        plan(vec![piece(0, 200_000, 1), piece(size - 5000, 5000, 2)]),
        plan(vec![
            piece(0, 65_536, 1),
            piece(131_072, 5000, 3),
            piece(size / 2, 300_000, 4),
            piece(size - 5000, 5000, 2),
        ]),
    )
}

#[test]
fn qemu_img_reads_our_snapshots_over_parents_of_every_kind() {
    if !have_qemu_img() {
        return;
    }
    let (base, disk) = two((3 << 20) + 512);
    for (number, files) in parents(&base).into_iter().enumerate() {
        for zeroed in [false, true] {
            let files = child(&files, &disk, zeroed);
            let folder = tempfile::tempdir().unwrap();
            files.save(folder.path());
            let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            let (top, raw) = (path("child.vmdk"), path("raw"));
            qemu_img(&["convert", "-f", "vmdk", "-O", "raw", &top, &raw]);
            assert!(
                std::fs::read(&raw).unwrap() == bytes_of(&disk),
                "{number} {zeroed}"
            );
            let said = qemu_img(&["check", "-f", "vmdk", &top]);
            assert!(said.contains("No errors"), "{number}: {said}");
            let said = qemu_img(&["info", "--backing-chain", "--output=json", &top]);
            assert!(said.contains("base.vmdk"), "{said}");
        }
    }
}

#[test]
fn a_snapshot_is_larger_than_its_parent_and_has_zeros_behind_its_end() {
    let (base, disk) = two(1 << 20);
    let shorter = Plan {
        size: 300_032,
        pieces: vec![Piece {
            offset: 0,
            length: 300_032,
            kind: Kind::Noise(1),
        }],
    }
    .disk();
    let files = child(&parents(&shorter)[0], &disk, false);
    let image = files.open("child.vmdk").unwrap();
    let found = image.check().unwrap();
    let codes: Vec<_> = found.counts().keys().copied().collect();
    assert_eq!(codes, ["VMDK-PARENT-SIZE"]);
    assert_same(&disk, &image);
    // Of a longer one nothing shows behind the end.
    let small = Plan {
        size: 100_352,
        pieces: vec![],
    }
    .disk();
    let files = child(&parents(&base)[0], &small, false);
    let image = files.open("child.vmdk").unwrap();
    assert_same(&small, &image);
    assert_eq!(differing(&small, &base).0, 2);
}

#[test]
fn names_and_disks_that_cannot_be_parents_are_refused() {
    let (base, disk) = two(1 << 20);
    let qcow2 = packed(&base, &Target::Qcow2(drylab_image::Qcow2Options::default()));
    let other = drylab_image::open(qcow2, &Limits::DEFAULT).unwrap();
    assert_eq!(VmdkParent::of(&other.info(), "a"), None);
    for name in ["", "../base.vmdk", "a\"b", "a\nb"] {
        let parent = VmdkParent {
            content_id: 1,
            file_name: name.to_owned(),
        };
        let file = SparseBytes::default();
        let error = write_vmdk_child(&disk, &base, &parent, &options("a.vmdk"), &file);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("cannot stand in a VMDK descriptor"),
            "{error}"
        );
    }
}

/// Whatever range of a file an image says one of its own is, has the same bytes.
fn ranges_below_are_the_same(image: &dyn ReadAt) -> u64 {
    let mut shared = 0;
    for extent in Extents::new(image).filter(|extent| extent.kind.has_bytes()) {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            let Some(below) = image.below(at).map(Below::lowest) else {
                at = (at / GRAIN + 1) * GRAIN;
                continue;
            };
            let take = below.length.min(end - at).min(GRAIN);
            assert!(take > 0);
            let (mut one, mut other) = (vec![0; take as usize], vec![1; take as usize]);
            image.read_at(at, &mut one).unwrap();
            below.source.read_at(below.offset, &mut other).unwrap();
            assert!(one == other, "differ at {at}");
            (at, shared) = (at + take, shared + take);
        }
    }
    shared
}

#[test]
fn ranges_that_stand_in_a_file_of_the_chain_are_found_in_it() {
    let (base, disk) = two(2 << 20);
    let mut with_bytes = Vec::new();
    for files in parents(&base) {
        let below = files.open("base.vmdk").unwrap();
        let files = child(&files, &disk, true);
        let image = files.open("child.vmdk").unwrap();
        let both = [&below as &dyn ReadAt, &image].map(ranges_below_are_the_same);
        with_bytes.push(both);
        // A grain that is said to be zeros stands nowhere, whatever is below.
        assert!(image.below(GRAIN).is_none());
    }
    // What the snapshot has itself: its grains of the disk that differ.
    let [_, own] = with_bytes[1];
    assert!(own > 300_000 && own < 500_000, "{with_bytes:?}");
    assert_eq!(with_bytes[1][0], 0);
    for [below, both] in [with_bytes[0], with_bytes[2], with_bytes[3], with_bytes[4]] {
        assert!(below >= 205_000 && both > own, "{with_bytes:?}");
    }
}

/// Counts the bytes read of it.
struct Counted(SparseBytes, std::sync::atomic::AtomicU64);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let read = buffer.len() as u64;
        self.1.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
    fn extent_at(&self, offset: u64) -> drylab_block::Extent {
        self.0.extent_at(offset)
    }
}

#[test]
fn tables_in_holes_of_the_file_are_not_read() {
    let disk = Plan {
        size: 2 << 40,
        pieces: (0..20)
            .map(|n| Piece {
                offset: n * 100_000_000_000,
                length: 70_000,
                kind: Kind::Noise(n),
            })
            .collect(),
    }
    .disk();
    let file = Counted(SparseBytes::default(), 0.into());
    write(&disk, &Target::VmdkSparse(options("a.vmdk")), &file.0).unwrap();
    let file = Arc::new(file);
    let read = || file.1.swap(0, std::sync::atomic::Ordering::Relaxed);
    let image = drylab_image::open(file.clone(), &Limits::DEFAULT).unwrap();
    // Both directories have 65,536 entries; the tables of 2 TiB take 256 MiB.
    assert!(read() < 600_000);
    assert_same(&disk, &image);
    read();
    assert_eq!(image.check().unwrap().list(), []);
    let checked = read();
    assert!(checked < 20 * 3 * 3 * 2048, "{checked}");
    let out = SparseBytes::default();
    write(&image, &Target::Raw, &out).unwrap();
    let copied = read();
    assert!(copied < 20 * (2 * GRAIN + 3 * 2048), "{copied}");
    assert!(image.repair().unwrap().is_empty());
}

#[test]
fn a_snapshot_of_two_tib_over_a_file_beside_it_is_written_by_what_differs() {
    let size = 2 << 40;
    let at = |offset: u64| Piece {
        offset,
        length: 5000,
        kind: Kind::Text(3),
    };
    let base = Plan {
        size,
        pieces: vec![at(0), at(size / 2), at(size - 5000)],
    };
    let mut pieces = base.pieces.clone();
    pieces[1].kind = Kind::Noise(5);
    let disk = Plan { size, pieces }.disk();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| OnDisk::create(&folder.path().join(name));
    let target = Target::VmdkSparse(options("base.vmdk"));
    write(&base.disk(), &target, &file("base.vmdk")).unwrap();
    let open = |name: &str| {
        let file = Arc::new(OnDisk::open(&folder.path().join(name)));
        let beside = Folder(Path::new(folder.path()).to_owned());
        open_with(file, &beside, &Limits::DEFAULT).unwrap()
    };
    let below = open("base.vmdk");
    let parent = VmdkParent::of(&below.info(), "base.vmdk").unwrap();
    let sink = file("child.vmdk");
    write_vmdk_child(&disk, &below, &parent, &options("child.vmdk"), &sink).unwrap();
    assert_same(&disk, &open("child.vmdk"));
    assert_eq!(sink.len() % GRAIN, 0);
}
