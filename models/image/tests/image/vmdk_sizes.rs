//! Sizes: every subformat at every size that is an edge, there and back through qemu-img, and the change of sizes.

use crate::common::{
    Kind, OnDisk, Piece, Plan, assert_same, have_qemu_img, qemu_img, try_qemu_img,
};
use drylab_block::{Extent, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt};
use drylab_image::{
    FlatKind, Image, SplitKind, Target, VmdkOptions, Work, open_with, write, write_flat,
    write_split, write_stream,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn plan(size: u64) -> Plan {
    let mut pieces = Vec::new();
    for (offset, kind) in [
        (0, Kind::Text(3)),
        (size / 2, Kind::Noise(8)),
        (size.saturating_sub(700), Kind::Noise(4)),
    ] {
        let length = (size - offset.min(size)).min(5000) as usize;
        if length > 0 {
            pieces.push(Piece {
                offset,
                length,
                kind,
            });
        }
    }
    Plan { size, pieces }
}

fn options(name: &str) -> VmdkOptions {
    VmdkOptions {
        file_name: name.to_owned(),
        ..VmdkOptions::default()
    }
}

/// A file that is open only while it is looked at: a split disk may have thousands.
struct Shut(PathBuf);

impl ReadAt for Shut {
    fn len(&self) -> u64 {
        OnDisk::open(&self.0).len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        OnDisk::open(&self.0).read_at(offset, buffer)
    }
    fn extent_at(&self, offset: u64) -> Extent {
        OnDisk::open(&self.0).extent_at(offset)
    }
}

/// Files of a folder.
struct Beside<'a>(&'a Path);

impl Resolver for Beside<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Shut(self.0.join(&reference.name))))
    }
}

fn open(folder: &Path, name: &str) -> Image {
    let file = Arc::new(OnDisk::open(&folder.join(name)));
    open_with(file, &Beside(folder), &Limits::DEFAULT).unwrap()
}

/// Writes a disk as a subformat under the name `ours.vmdk`.
fn write_as(subformat: &str, disk: &dyn ReadAt, folder: &Path) {
    let file = |name: &str| OnDisk::create(&folder.join(name));
    let whole = |target: &Target| {
        write(disk, target, &file("ours.vmdk")).unwrap();
    };
    let split = |kind| {
        let make = &mut |name: &str| Ok(file(name));
        let written = write_split(disk, &options("ours.vmdk"), kind, make, &Work::ALONE);
        std::fs::write(folder.join("ours.vmdk"), written.unwrap().0).unwrap();
    };
    match subformat {
        "monolithicSparse" => whole(&Target::VmdkSparse(options("ours.vmdk"))),
        "streamOptimized" => whole(&Target::VmdkStream(options("ours.vmdk"))),
        "twoGbMaxExtentSparse" => split(SplitKind::Sparse),
        "twoGbMaxExtentFlat" => split(SplitKind::Flat),
        _ => {
            let (options, extent) = (options("ours-flat.vmdk"), file("ours-flat.vmdk"));
            let kind = match subformat {
                "vmfs" => FlatKind::Vmfs,
                _ => FlatKind::Monolithic,
            };
            let written = write_flat(disk, &options, kind, &extent, &Work::ALONE);
            std::fs::write(folder.join("ours.vmdk"), written.unwrap().0).unwrap();
        }
    }
}

const SUBFORMATS: [&str; 6] = [
    "monolithicSparse",
    "streamOptimized",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "vmfs",
];

/// What qemu-img reads of a VMDK is the disk. It looks at every grain of a disk, written or not: of a large one it reads
/// the pieces that were written.
fn qemu_reads(disk: &SparseBytes, folder: &Path, name: &str) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    if disk.len() < 5 * GIB {
        let same = ["compare", "-f", "raw", "-F", "vmdk"];
        let verdict = qemu_img(&[&same[..], &[&path("raw"), &path(name)]].concat());
        assert!(verdict.contains("identical"), "{verdict}");
        let verdict = qemu_img(&["check", "-f", "vmdk", &path(name)]);
        assert!(verdict.contains("No errors"), "{verdict}");
        return;
    }
    for piece in [0, disk.len() / 2, disk.len() - MIB] {
        let (skip, end) = (piece / MIB, piece / MIB + 1);
        let names = [
            format!("skip={skip}"),
            format!("count={end}"),
            format!("if={}", path(name)),
            format!("of={}", path("piece")),
        ];
        let mut arguments = vec!["dd", "-f", "vmdk", "-O", "raw", "bs=1M"];
        arguments.extend(names.iter().map(String::as_str));
        qemu_img(&arguments);
        let mut expected = vec![0; MIB as usize];
        disk.read_at(skip * MIB, &mut expected).unwrap();
        let read = std::fs::read(path("piece")).unwrap();
        assert!(read == expected, "{name} differs in the MiB {skip}");
    }
}

/// A disk of `size` bytes goes as a subformat from us to us and to qemu-img, and from it to us.
fn goes_to_and_from_qemu_img(subformat: &str, size: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let disk = plan(size).disk();
    let raw = OnDisk::create(Path::new(&path("raw")));
    write(&disk, &Target::Raw, &raw).unwrap();
    write_as(subformat, &disk, folder.path());
    let image = open(folder.path(), "ours.vmdk");
    assert_eq!((image.subformat(), image.len()), (subformat, size));
    assert_eq!(image.check().unwrap().list(), [], "{subformat} {size}");
    assert_same(&disk, &image);
    let how = format!("subformat={subformat}");
    if subformat == "vmfs" {
        // It writes none.
        if size > 0 {
            qemu_reads(&disk, folder.path(), "ours.vmdk");
        }
        return;
    }
    if size == 0 {
        // It opens none of no bytes, its own neither; those with a descriptor beside name no extent.
        let create = ["create", "-f", "vmdk", "-o", &how];
        qemu_img(&[&create[..], &[&path("theirs.vmdk"), "0"]].concat());
        let said = try_qemu_img(&["info", &path("theirs.vmdk")]);
        assert!(
            !said.status.success(),
            "qemu-img opens {subformat} of no bytes now"
        );
        let theirs = Arc::new(OnDisk::open(Path::new(&path("theirs.vmdk"))));
        let found = open_with(theirs, &Beside(folder.path()), &Limits::DEFAULT);
        match found {
            Ok(image) => assert_eq!(image.len(), 0),
            Err(error) => {
                assert!(!SUBFORMATS[..2].contains(&subformat));
                assert!(error.to_string().contains("no extent"), "{error}");
            }
        }
        return;
    }
    qemu_reads(&disk, folder.path(), "ours.vmdk");
    let convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", &how];
    qemu_img(&[&convert[..], &[&path("raw"), &path("theirs.vmdk")]].concat());
    let image = open(folder.path(), "theirs.vmdk");
    assert_eq!((image.subformat(), image.len()), (subformat, size));
    let known = [
        "VMDK-NOT-A-STREAM",
        "VMDK-TRAILING-BYTES",
        "VMDK-NO-END-OF-STREAM",
    ];
    let found = image.check().unwrap();
    let odd = found.list().iter().find(|f| !known.contains(&f.rule.code));
    assert!(odd.is_none(), "{subformat} {size}: {odd:?}");
    assert_same(&disk, &image);
}

#[test]
fn every_subformat_goes_to_and_from_qemu_img_at_every_size_that_is_an_edge() {
    if !have_qemu_img() {
        return;
    }
    for subformat in SUBFORMATS {
        for size in [0, 512, 513 * 512, MIB - 512, MIB + 512, 4 * GIB + 512] {
            goes_to_and_from_qemu_img(subformat, size);
        }
    }
}

/// Two TiB as those subformats that are split, or those that are not.
fn two_tib_go_to_and_from_qemu_img(split: bool) {
    if !have_qemu_img() {
        return;
    }
    for subformat in SUBFORMATS {
        if subformat.starts_with("two") == split {
            goes_to_and_from_qemu_img(subformat, 2048 * GIB);
        }
    }
}

#[test]
fn two_tib_go_to_and_from_qemu_img_in_one_file() {
    two_tib_go_to_and_from_qemu_img(false);
}

#[test]
fn two_tib_go_to_and_from_qemu_img_in_a_thousand_files() {
    two_tib_go_to_and_from_qemu_img(true);
}

/// Takes a disk of any size and keeps nothing.
struct Nothing;

impl ReadAt for Nothing {
    fn len(&self) -> u64 {
        0
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        panic!("nothing is kept")
    }
}

impl WriteAt for Nothing {
    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_of_64_tib_is_written_and_read_and_a_larger_one_is_refused_with_the_limit() {
    let size = 64 << 40;
    let disk = plan(size).disk();
    for target in [
        Target::VmdkSparse(options("a.vmdk")),
        Target::VmdkStream(options("a.vmdk")),
    ] {
        let file = Arc::new(SparseBytes::default());
        write(&disk, &target, &*file).unwrap();
        let image = drylab_image::open(file, &Limits::DEFAULT).unwrap();
        assert_same(&disk, &image);
        let error = write(&SparseBytes::new(size + 1), &target, &Nothing).unwrap_err();
        assert!(error.to_string().contains("more than 64 TiB"), "{error}");
    }
    let larger = SparseBytes::new(size + 1);
    let options = options("a.vmdk");
    let mut put = |_: &[u8]| Ok(());
    let make = &mut |_: &str| -> Result<Nothing> { panic!("no file is made") };
    let work = &Work::ALONE;
    for refused in [
        write_stream(&larger, &options, &mut put, work).err(),
        write_split(&larger, &options, SplitKind::Flat, make, work).err(),
        write_flat(&larger, &options, FlatKind::Vmfs, &Nothing, work).err(),
    ] {
        let error = refused.unwrap().to_string();
        assert!(error.contains("more than 64 TiB"), "{error}");
    }
}

#[test]
fn a_split_disk_of_4096_extents_is_written_and_read() {
    let size = 4096 * 2047 * MIB;
    for kind in [SplitKind::Sparse, SplitKind::Flat] {
        let disk = plan(size).disk();
        let folder = tempfile::tempdir().unwrap();
        let make = &mut |name: &str| Ok(OnDisk::create(&folder.path().join(name)));
        let (text, _) = write_split(&disk, &options("a.vmdk"), kind, make, &Work::ALONE).unwrap();
        std::fs::write(folder.path().join("a.vmdk"), text).unwrap();
        let image = open(folder.path(), "a.vmdk");
        assert_eq!(image.len(), size);
        assert_same(&disk, &image);
    }
}

#[test]
fn more_extents_than_readers_open_are_refused_with_the_limit() {
    let disk = SparseBytes::new(4096 * 2047 * MIB + 1);
    let make = &mut |_: &str| -> Result<SparseBytes> { panic!("no file is made") };
    let error = write_split(
        &disk,
        &options("a.vmdk"),
        SplitKind::Sparse,
        make,
        &Work::ALONE,
    )
    .unwrap_err();
    assert!(error.to_string().contains("more than 4096"), "{error}");
}

#[test]
fn zeroed_grains_are_written_as_entries_of_one_and_read_by_qemu_img() {
    let disk = plan(70 * MIB).disk();
    let zeroed = VmdkOptions {
        zeroed_grains: true,
        ..options("ours.vmdk")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ours.vmdk");
    write(&disk, &Target::VmdkSparse(zeroed), &OnDisk::create(&file)).unwrap();
    let image = open(folder.path(), "ours.vmdk");
    assert_eq!(image.info().detail("header.version"), Some("2"));
    assert_eq!(image.extent_at(MIB).kind, drylab_block::ExtentKind::Zero);
    assert_same(&disk, &image);
    if have_qemu_img() {
        let raw = folder.path().join("raw");
        write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
        let names = [raw.to_str().unwrap(), file.to_str().unwrap()];
        let verdict = qemu_img(&["compare", "-f", "raw", "-F", "vmdk", names[0], names[1]]);
        assert!(verdict.contains("identical"), "{verdict}");
        assert!(qemu_img(&["check", "-f", "vmdk", names[1]]).contains("No errors"));
    }
}

/// A disk of the old size as one of the new size would read.
fn resized(plan: &Plan, size: u64) -> SparseBytes {
    let disk = plan.disk();
    disk.set_len(size).unwrap();
    disk
}

fn copy(file: &dyn ReadAt) -> Arc<SparseBytes> {
    let to = SparseBytes::default();
    drylab_block::copy_data(file, &to).unwrap();
    Arc::new(to)
}

fn opened(file: Arc<SparseBytes>) -> Image {
    drylab_image::open(file, &Limits::DEFAULT).unwrap()
}

/// Resizes a sparse disk, looks at every step as a crash would leave it, and at the end.
fn resize_sparse(file: &SparseBytes, from: &Plan, size: u64) -> Arc<SparseBytes> {
    let plan = opened(copy(file)).resize(size).unwrap();
    for count in 0..=plan.edits().len() {
        let crashed = copy(file);
        plan.apply_first(count, &*crashed).unwrap();
        let image = opened(crashed);
        let now = image.len();
        assert!(
            now == from.size || now == size,
            "{now} bytes after {count} steps"
        );
        assert_same(&resized(from, now), &image);
    }
    let after = copy(file);
    plan.apply(&*after).unwrap();
    let image = opened(after.clone());
    assert_eq!(image.len(), size);
    assert_eq!(image.check().unwrap().list(), []);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.vmdk");
    if size < 5 * GIB && have_qemu_img() {
        drylab_block::copy_data(&*after, &OnDisk::create(&path)).unwrap();
        let name = path.to_str().unwrap();
        assert!(qemu_img(&["check", "-f", "vmdk", name]).contains("No errors"));
        let said = qemu_img(&["info", "--output=json", name]);
        assert!(
            said.contains(&format!("\"virtual-size\": {size}")),
            "{said}"
        );
    }
    after
}

#[test]
fn a_sparse_disk_grows_and_shrinks_over_zeros_and_is_whole_at_every_step() {
    for zeroed_grains in [false, true] {
        let from = plan(300_032);
        let file = SparseBytes::default();
        let how = VmdkOptions {
            zeroed_grains,
            ..options("a.vmdk")
        };
        write(&from.disk(), &Target::VmdkSparse(how), &file).unwrap();
        for size in [
            300_544,
            327_680,
            327_680 + 512,
            32 * MIB,
            33 * MIB,
            200 * MIB,
            9 * GIB,
        ] {
            let grown = resize_sparse(&file, &from, size);
            // And on, and back.
            let again = Plan {
                size,
                pieces: from.pieces.clone(),
            };
            let more = resize_sparse(&grown, &again, size + 40 * MIB);
            let more_plan = Plan {
                size: size + 40 * MIB,
                pieces: from.pieces.clone(),
            };
            resize_sparse(&more, &more_plan, 300_032);
        }
    }
}

#[test]
fn a_sparse_disk_that_shrinks_gives_up_what_stands_behind_its_new_end_and_says_so() {
    for zeroed_grains in [false, true] {
        // Two tables, with pieces at the start, in the middle and at the end.
        let from = plan(40 * MIB);
        let file = SparseBytes::default();
        let how = VmdkOptions {
            zeroed_grains,
            ..options("a.vmdk")
        };
        write(&from.disk(), &Target::VmdkSparse(how), &file).unwrap();
        for (size, lost) in [
            (40 * MIB - 512, 0),
            (39 * MIB, 1),
            (20 * MIB + 1024, 1),
            (20 * MIB, 2),
            (65_536, 2),
            (512, 2),
        ] {
            let notes = opened(copy(&file)).resize(size).unwrap().notes().concat();
            let bytes = 40 * MIB - size;
            let says = format!("the last {bytes} bytes of the disk are given up, {lost} grains");
            assert!(notes.contains(&says), "{notes}");
            let after = resize_sparse(&file, &from, size);
            assert_eq!(after.len() < file.len(), lost > 0, "{size}");
            // What was given up does not come back.
            let expected = resized(&from, size);
            expected.set_len(50 * MIB).unwrap();
            opened(after.clone())
                .resize(50 * MIB)
                .unwrap()
                .apply(&*after)
                .unwrap();
            assert_same(&expected, &opened(after));
        }
    }
}

#[test]
fn what_stood_behind_the_old_end_does_not_come_to_light_in_a_larger_disk() {
    let from = plan(300_032);
    let file = SparseBytes::default();
    write(&from.disk(), &Target::VmdkSparse(options("a.vmdk")), &file).unwrap();
    // In the last grain, and in the entries of the last table.
    file.write_at(file.len() - 2000, &[0xee; 2000]).unwrap();
    for table in [22u64, 27] {
        file.write_at(table * 512 + 5 * 4, &200u32.to_le_bytes())
            .unwrap();
    }
    resize_sparse(&file, &from, 40 * MIB);
    // A last grain that the file has only up to the end of the disk.
    file.set_len(file.len() - 65_536 + 37_888).unwrap();
    resize_sparse(&file, &from, 40 * MIB);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let says = |image: &Image, size: u64, word: &str| {
        let error = image.resize(size).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let file = SparseBytes::default();
    write(
        &plan(MIB).disk(),
        &Target::VmdkSparse(options("a.vmdk")),
        &file,
    )
    .unwrap();
    let image = opened(copy(&file));
    says(&image, 1000, "whole sectors");
    says(&image, 65 << 40, "64 TiB");
    assert!(image.resize(MIB).unwrap().is_empty());
    file.write_at(27 * 512, &[0xff; 4]).unwrap();
    file.write_at(22 * 512, &[0xff; 4]).unwrap();
    says(&opened(copy(&file)), 2 * MIB, "repair the VMDK before");
    let stream = SparseBytes::default();
    write(
        &plan(MIB).disk(),
        &Target::VmdkStream(options("a.vmdk")),
        &stream,
    )
    .unwrap();
    says(&opened(copy(&stream)), 2 * MIB, "streamOptimized");
}

#[test]
fn disks_of_several_files_are_resized_file_by_file() {
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
    ] {
        for (from, size) in [
            (MIB + 512, 3 * MIB),
            (3 * MIB, 2 * MIB),
            (2047 * MIB + 512, 2049 * MIB),
        ] {
            let old = plan(from);
            let folder = tempfile::tempdir().unwrap();
            write_as(subformat, &old.disk(), folder.path());
            let plan = open(folder.path(), "ours.vmdk").resize(size).unwrap();
            let change = |name: &str, plan: &drylab_image::Plan, count: usize| {
                let path = folder.path().join(name);
                let file = copy(&OnDisk::open(&path));
                plan.apply_first(count, &*file).unwrap();
                drylab_block::copy_data(&*file, &OnDisk::create(&path)).unwrap();
            };
            let same = || {
                let image = open(folder.path(), "ours.vmdk");
                assert!(
                    [from, size].contains(&image.len()),
                    "{subformat} {}",
                    image.len()
                );
                assert_same(&resized(&old, image.len()), &image);
            };
            for (name, own) in plan.before() {
                change(name, own, own.edits().len());
                same();
            }
            change("ours.vmdk", &plan, plan.edits().len());
            same();
            for (name, own) in plan.after() {
                change(name, own, own.edits().len());
                same();
            }
            let image = open(folder.path(), "ours.vmdk");
            assert_eq!(image.len(), size, "{subformat}");
            assert_eq!(image.check().unwrap().list(), [], "{subformat}");
            let path = folder.path().join("ours.vmdk");
            if have_qemu_img() {
                let said = qemu_img(&["info", "--output=json", path.to_str().unwrap()]);
                assert!(
                    said.contains(&format!("\"virtual-size\": {size}")),
                    "{said}"
                );
            }
            if subformat != "monolithicFlat" {
                let error = image.resize(5000 * MIB).unwrap_err().to_string();
                assert!(error.contains("4192256"), "{error}");
            }
        }
    }
}
