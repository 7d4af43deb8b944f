//! Flat VMDK: a descriptor and the bytes beside it.

use crate::common::{
    Folder, Kind, OnDisk, Plan, assert_same, fill, have_qemu_img, plans, qemu_img,
};
use drylab_block::{
    Error, ExtentKind, Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt,
};
use drylab_image::{
    Damage, FlatKind, Format, Image, Options, Target, VmdkOptions, Work, fuzz, open, open_as,
    open_with, write_flat,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Files by name, and what was asked for.
#[derive(Default)]
struct Files {
    files: BTreeMap<String, Arc<dyn ReadAt>>,
    asked: Mutex<Vec<String>>,
}

impl Files {
    fn of(files: &[(&str, Arc<dyn ReadAt>)]) -> Self {
        let files = files
            .iter()
            .map(|(name, file)| ((*name).to_owned(), file.clone()));
        Self {
            files: files.collect(),
            asked: Mutex::default(),
        }
    }
}

impl Resolver for Files {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert_eq!(reference.kind, "extent");
        self.asked.lock().unwrap().push(reference.name.clone());
        let found = self.files.get(&reference.name).cloned();
        found.ok_or_else(|| Error::io(format_args!("no file {:?}", reference.name)))
    }
}

fn options() -> VmdkOptions {
    VmdkOptions {
        file_name: "disk-flat.vmdk".to_owned(),
        ..VmdkOptions::default()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn open_text(descriptor: &str, files: &Files) -> Result<Image> {
    open_with(
        Arc::new(descriptor.as_bytes().to_vec()),
        files,
        &Limits::DEFAULT,
    )
}

fn descriptor(kind: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\
         # Extent description\n{extents}\n# The Disk Data Base\nddb.adapterType = \"lsilogic\"\n"
    )
}

fn kinds() -> impl Strategy<Value = FlatKind> {
    prop::sample::select(vec![FlatKind::Monolithic, FlatKind::Vmfs])
}

fn made(disk: &SparseBytes, kind: FlatKind) -> (String, Files) {
    let extent = SparseBytes::default();
    let (descriptor, written) = write_flat(disk, &options(), kind, &extent, &Work::ALONE).unwrap();
    assert_eq!(written.file_bytes, extent.len());
    (
        descriptor,
        Files::of(&[("disk-flat.vmdk", Arc::new(extent))]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_flat_is_read_again(plan in plans(5 << 30), kind in kinds()) {
        let disk = plan.disk();
        let (descriptor, files) = made(&disk, kind);
        let image = open_text(&descriptor, &files).unwrap();
        let name = if kind == FlatKind::Vmfs { "vmfs" } else { "monolithicFlat" };
        prop_assert_eq!((image.format(), image.subformat()), (Format::Vmdk, name));
        prop_assert!(image.info().findings.is_empty());
        assert_same(&disk, &image);
        prop_assert_eq!(&*files.asked.lock().unwrap(), &["disk-flat.vmdk".to_owned()]);
    }

    #[test]
    fn extents_follow_each_other_wherever_they_start(
        parts in prop::collection::vec((0..9u64, 0..5u64, 0..3usize), 1..8),
        cuts in prop::collection::vec(any::<u64>(), 0..6),
    ) {
        let file: Arc<dyn ReadAt> = Arc::new(fill(Kind::Noise(7), 16 * 512));
        let files = Files::of(&[("a b.vmdk", file.clone()), ("c", file.clone())]);
        let (mut lines, mut expected) = (String::new(), Vec::new());
        for (sectors, from, what) in parts {
            let length = (sectors * 512) as usize;
            match what {
                0 => {
                    lines += &format!("RW {sectors} ZERO\n");
                    expected.resize(expected.len() + length, 0);
                }
                1 => {
                    lines += &format!("rdonly {sectors} flat \"a b.vmdk\" {from}\n");
                    let mut bytes = vec![0; length];
                    file.read_at(from * 512, &mut bytes).unwrap();
                    expected.extend(bytes);
                }
                _ => {
                    lines += &format!("RW {sectors} VMFS \"c\"\n");
                    let mut bytes = vec![0; length];
                    file.read_at(0, &mut bytes).unwrap();
                    expected.extend(bytes);
                }
            }
        }
        let image = open_text(&descriptor("twoGbMaxExtentFlat", &lines), &files).unwrap();
        prop_assert_eq!(image.len(), expected.len() as u64);
        let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut % (image.len() + 1)).chain([0, image.len()]).collect();
        cuts.sort_unstable();
        let mut bytes = vec![0xee; expected.len()];
        for pair in cuts.windows(2) {
            image.read_at(pair[0], &mut bytes[pair[0] as usize..pair[1] as usize]).unwrap();
        }
        prop_assert!(bytes == expected);
        let end = Extents::new(&image).last().map_or(0, |extent| extent.offset + extent.length);
        prop_assert_eq!(end, image.len());
        prop_assert!(files.asked.lock().unwrap().len() <= 2, "each file is asked for once");
    }

    #[test]
    fn descriptors_with_a_few_changed_bytes_never_panic(
        edits in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8), cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        let lines = "RW 8 FLAT \"disk-f001.vmdk\" 0\nRW 4 ZERO\nRW 9 VMFS \"x\" 3\n";
        let mut bytes = descriptor("twoGbMaxExtentFlat", lines).into_bytes();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        fuzz::vmdk_flat(&bytes);
        fuzz::detect(&bytes);
    }
}

#[test]
fn disks_of_no_bytes_and_of_odd_sizes_are_padded_to_sectors() {
    for (size, padded) in [(0, 0), (1, 512), (512, 512), (513, 1024), (70_000, 70_144)] {
        let disk = Plan {
            size,
            pieces: vec![],
        }
        .disk();
        let (descriptor, files) = made(&disk, FlatKind::Monolithic);
        assert_eq!(open_text(&descriptor, &files).unwrap().len(), padded);
    }
}

#[test]
fn holes_of_the_extent_are_holes_of_the_disk() {
    let (descriptor, files) = made(
        &Plan {
            size: 1 << 40,
            pieces: vec![],
        }
        .disk(),
        FlatKind::Vmfs,
    );
    let image = open_text(&descriptor, &files).unwrap();
    let extents: Vec<_> = Extents::new(&image).collect();
    assert_eq!((extents.len(), extents[0].kind), (1, ExtentKind::Hole));
}

#[test]
fn without_a_resolver_no_other_file_is_opened() {
    let (descriptor, _) = made(
        &Plan {
            size: 4096,
            pieces: vec![],
        }
        .disk(),
        FlatKind::Monolithic,
    );
    let error = open(Arc::new(descriptor.into_bytes()), &Limits::DEFAULT).unwrap_err();
    let Error::Unsupported(said) = &error else {
        panic!("{error}")
    };
    assert!(
        ["monolithicFlat", "extent", "disk-flat.vmdk"]
            .iter()
            .all(|word| said.contains(word)),
        "{said}"
    );
}

#[track_caller]
fn refuses(kind: &str, extents: &str, words: &[&str]) -> Files {
    let file: Arc<dyn ReadAt> = Arc::new(vec![1u8; 4096]);
    let files = Files::of(&[
        ("a", file.clone()),
        ("..", file.clone()),
        ("/a", file.clone()),
        ("b/a", file),
    ]);
    let error = open_text(&descriptor(kind, extents), &files)
        .unwrap_err()
        .to_string();
    assert!(
        words.iter().all(|word| error.contains(word)),
        "{error} lacks {words:?}"
    );
    files
}

#[test]
fn what_a_descriptor_must_not_say_is_refused_with_the_value() {
    for name in ["/a", "../a", "b/a", "..", ".", "", "b\\a", "c:a"] {
        let line = format!("RW 8 FLAT \"{name}\" 0");
        let files = refuses(
            "monolithicFlat",
            &line,
            &["extent 0", "no file beside the descriptor"],
        );
        assert!(
            files.asked.lock().unwrap().is_empty(),
            "the resolver is not even asked for {name:?}"
        );
    }
    let line = format!("RW 8 FLAT \"a\" {}", u64::MAX);
    refuses("monolithicFlat", &line, &["4096 bytes from", "past the"]);
    refuses(
        "monolithicFlat",
        "RW 8 FLAT \"missing\" 0",
        &["extent 0", "missing"],
    );
    refuses(
        "monolithicFlat",
        "RW 4 FLAT \"a\" 0\nRW 4 FLAT \"a\" 4",
        &["2 extents"],
    );
    refuses("monolithicFlat", "", &["no extent"]);
    refuses("monolithicFlat", "NOACCESS 8 FLAT \"a\" 0", &["NOACCESS"]);
    refuses("monolithicFlat", "RW 8 SPARSE \"a\"", &["KDMV"]);
    refuses("vmfs", "RW 8 VMFSSPARSE \"a\"", &["COWD"]);
    refuses("vmfs", "RW 8 VMFSRDM \"a\"", &["VMFSRDM"]);
    refuses("vmfs", "RW eight VMFS \"a\"", &["starts as an extent"]);
    refuses("fullDevice", "RW 8 FLAT \"a\" 0", &["fullDevice"]);
    refuses("vmfs", &format!("RW {} ZERO", u64::MAX), &["past the"]);
    refuses(
        "vmfs",
        &format!("RW {} ZERO\nRW {0} ZERO", 1u64 << 41),
        &["extent 1", "past the"],
    );
    let many = "RW 1 ZERO\n".repeat(5000);
    refuses("twoGbMaxExtentFlat", &many, &["5000 extents", "4096"]);
    let snapshot =
        descriptor("vmfs", "RW 8 ZERO").replace("parentCID=ffffffff", "parentCID=1234abcd");
    let error = open_text(&snapshot, &Files::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("parent disk"), "{error}");
}

#[test]
fn an_extent_shorter_than_its_file_is_said() {
    let files = Files::of(&[("a", Arc::new(vec![1u8; 4096]))]);
    let image = open_text(&descriptor("vmfs", "RW 4 VMFS \"a\""), &files).unwrap();
    let found = image.info().findings;
    let [long] = found.list() else {
        panic!("{found:?}")
    };
    assert_eq!((image.len(), long.rule.code), (2048, "VMDK-EXTENT-LONG"));
    assert_eq!(
        (long.file.as_str(), long.offset, long.length),
        ("a", 2048, 2048)
    );
    assert!(image.repair().unwrap().is_empty());
}

#[test]
fn a_flat_extent_that_was_cut_is_read_as_far_as_it_goes_and_gets_its_length_back() {
    for (kind, lines, lost) in [
        ("monolithicFlat", "RW 9 FLAT \"a\" 0", 512),
        ("vmfs", "RW 16 VMFS \"a\"", 4096),
        (
            "twoGbMaxExtentFlat",
            "RW 4 FLAT \"a\" 0\nRW 7 FLAT \"a\" 4",
            1536,
        ),
        (
            "twoGbMaxExtentFlat",
            "RW 8 FLAT \"a\" 0\nRW 8 FLAT \"a\" 8",
            4096,
        ),
    ] {
        let described = descriptor(kind, lines);
        let cut = Arc::new(SparseBytes::new(4096));
        cut.write_at(0, &fill(Kind::Noise(3), 4096)).unwrap();
        let files = Files::of(&[("a", cut.clone())]);
        let image = open_text(&described, &files).unwrap();
        let found = image.check().unwrap();
        let [short] = found.list() else {
            panic!("{found:?}")
        };
        assert_eq!(short.rule.code, "VMDK-EXTENT-SHORT");
        assert_eq!(
            (short.file.as_str(), short.offset, short.length),
            ("a", 4096, lost)
        );
        let strict = Options {
            resolver: &files,
            damage: Damage::Refuse,
            ..Options::DEFAULT
        };
        let refused = open_as(Arc::new(described.clone().into_bytes()), &strict).unwrap_err();
        assert!(
            refused.to_string().contains("VMDK-EXTENT-SHORT"),
            "{refused}"
        );
        // What is there is read, what is not is an error and no zeros; the map is whole.
        let there = image.len() - lost;
        let mut before = vec![0; there as usize];
        image.read_at(0, &mut before).unwrap();
        assert!(image.read_at(there, &mut [0; 512]).is_err());
        assert_eq!(Extents::new(&image).last().unwrap().kind, ExtentKind::Data);
        let plan = image.repair().unwrap();
        let [(name, own)] = plan.before() else {
            panic!("{plan:?}")
        };
        assert_eq!(
            (name.as_str(), own.edits().len(), plan.edits().len()),
            ("a", 1, 0)
        );
        own.apply(&*cut).unwrap();
        let image = open_text(&described, &files).unwrap();
        assert!(image.check().unwrap().is_empty() && image.repair().unwrap().is_empty());
        let mut after = vec![1; image.len() as usize];
        image.read_at(0, &mut after).unwrap();
        assert!(
            after[..there as usize] == before && after[there as usize..].iter().all(|b| *b == 0)
        );
        if have_qemu_img() && kind != "vmfs" {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            drylab_block::copy_data(&*cut, &OnDisk::create(&path("a"))).unwrap();
            std::fs::write(path("disk.vmdk"), &described).unwrap();
            std::fs::write(path("raw"), &after).unwrap();
            let same = ["compare", "-f", "raw", "-F", "vmdk"];
            let (raw, disk) = (path("raw"), path("disk.vmdk"));
            let said = qemu_img(&[&same[..], &[text(&raw), text(&disk)]].concat());
            assert!(said.contains("identical"), "{said}");
        }
    }
}

#[test]
fn flat_disks_go_to_and_from_qemu_img_byte_for_byte() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (raw, back) = (path("a.raw"), path("back"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(96));
    let cases = (plans(6 << 20), kinds(), any::<bool>());
    runner
        .run(&cases, |(plan, kind, parts)| {
            let disk = Plan {
                size: plan.size.next_multiple_of(512),
                ..plan
            }
            .disk();
            drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
            let plain = std::fs::read(&raw).unwrap();
            // Ours to theirs.
            let (ours, extent) = (path("ours.vmdk"), path("disk-flat.vmdk"));
            let (descriptor, _) = write_flat(
                &disk,
                &options(),
                kind,
                &OnDisk::create(&extent),
                &Work::ALONE,
            )
            .unwrap();
            std::fs::write(&ours, descriptor).unwrap();
            prop_assert!(std::fs::read(&extent).unwrap() == plain);
            qemu_img(&[
                "convert",
                "-f",
                "vmdk",
                "-O",
                "raw",
                text(&ours),
                text(&back),
            ]);
            prop_assert!(std::fs::read(&back).unwrap() == plain);
            // Theirs to ours.
            let name = if parts {
                "twoGbMaxExtentFlat"
            } else {
                "monolithicFlat"
            };
            let how = format!("subformat={name}");
            let theirs = path("theirs.vmdk");
            qemu_img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &how,
                text(&raw),
                text(&theirs),
            ]);
            let beside = Folder(folder.path().to_owned());
            let image =
                open_with(Arc::new(OnDisk::open(&theirs)), &beside, &Limits::DEFAULT).unwrap();
            prop_assert_eq!(image.subformat(), name);
            prop_assert!(image.info().findings.is_empty());
            let mut bytes = vec![0; image.len() as usize];
            image.read_at(0, &mut bytes).unwrap();
            prop_assert!(bytes == plain);
            Ok(())
        })
        .unwrap();
}
