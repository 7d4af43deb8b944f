//! VHD: differencing disks.

use crate::common::{Folder, Kind, OnDisk, Piece, Plan, assert_same, packed, plans};
use crate::vhd_steps::{all, codes, repaired, sparse};
use drylab_block::{Error, Limits, ReadAt, Reference, Resolver, Result, SparseBytes};
use drylab_image::vhd::{Kind as Type, ParentLink, footer, write_child};
use drylab_image::{Damage, Image, Options, Target, VhdOptions, open_as, open_with};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files by name.
#[derive(Default)]
pub(crate) struct Beside(pub(crate) BTreeMap<String, Arc<dyn ReadAt>>);

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert_eq!(reference.kind, "parent");
        assert!(
            !reference.name.contains(['/', '\\', ':']),
            "{:?}",
            reference.name
        );
        let found = self.0.get(&reference.name).cloned();
        found.ok_or_else(|| Error::unsupported(format_args!("no {}", reference.name)))
    }
}

fn small() -> VhdOptions {
    VhdOptions {
        block_bytes: 512 << 10,
        timestamp: 77,
        ..VhdOptions::default()
    }
}

fn disk(size: u64, pieces: &[(u64, u64)]) -> SparseBytes {
    let piece = |(offset, seed): &(u64, u64)| Piece {
        offset: *offset,
        length: 5000,
        kind: Kind::Noise(*seed),
    };
    Plan {
        size,
        pieces: pieces.iter().map(piece).collect(),
    }
    .disk()
}

const SIZE: u64 = 3125 * 512;

fn base() -> SparseBytes {
    disk(SIZE, &[(0, 1), (700_000, 2), (1_500_000, 3)])
}

fn changed() -> SparseBytes {
    disk(SIZE, &[(0, 1), (3000, 9), (1_100_000, 4), (1_500_000, 3)])
}

/// A child of the file `parent`, which is called `name`.
fn child(disk: &dyn ReadAt, parent: &Arc<SparseBytes>, link: &ParentLink) -> Arc<SparseBytes> {
    let below = drylab_image::open(parent.clone(), &Limits::DEFAULT).unwrap();
    let file = SparseBytes::default();
    let written = write_child(disk, &below, link, &small(), &file).unwrap();
    assert_eq!(written.file_bytes, file.len());
    Arc::new(file)
}

/// Parent and child as files, the child linked by one relative path.
pub(crate) fn pair() -> (Arc<SparseBytes>, Arc<SparseBytes>, Beside) {
    let parent = packed(&base(), &Target::VhdDynamic(small()));
    let link = ParentLink::beside(&*parent, "base.vhd").unwrap();
    let file = child(&changed(), &parent, &link);
    let files = Beside(BTreeMap::from([(
        "base.vhd".to_owned(),
        parent.clone() as Arc<dyn ReadAt>,
    )]));
    (parent, file, files)
}

fn opened(file: Arc<dyn ReadAt>, files: &dyn Resolver) -> Result<Image> {
    open_with(file, files, &Limits::DEFAULT)
}

#[test]
fn a_child_has_its_own_sectors_and_its_parents() {
    let (parent, file, files) = pair();
    assert_eq!(footer(&*file).unwrap().0.kind, Type::Differencing);
    let image = opened(file.clone(), &files).unwrap();
    assert_eq!(image.subformat(), "differencing");
    assert_eq!(codes(image.check().unwrap().list()), [""; 0]);
    assert_same(&changed(), &image);
    // Three blocks of 512 KiB hold a sector that differs, the fourth none.
    assert!(file.len() < 3 * (512 << 10) + 8192 && parent.len() > file.len() / 2);
    let (_, stored) = image.piece_at(512);
    assert_eq!(stored.unwrap().file, "base.vhd");
    assert_eq!(image.piece_at(3000 - 3000 % 512).1.unwrap().file, "");
    let refused = image.resize(SIZE + 512).unwrap_err().to_string();
    assert!(refused.contains("differencing"), "{refused}");
}

#[test]
fn a_child_without_its_parent_is_refused_by_name() {
    let (_, file, _) = pair();
    let error = drylab_image::open(file, &Limits::DEFAULT).unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported(text) if text.contains("differencing") && text.contains("base.vhd")),
        "{error}"
    );
}

#[test]
fn locators_are_asked_for_in_their_order_without_their_folders_and_the_uuid_decides() {
    let (parent, _, _) = pair();
    let link = ParentLink {
        relative: ".\\moved.vhd".to_owned(),
        absolute: Some("D:\\all disks\\Größe.vhd".to_owned()),
        url: Some("file:///mac/all%20disks/m%C3%BCll.vhd".to_owned()),
        ..ParentLink::beside(&*parent, "x").unwrap()
    };
    let file = child(&changed(), &parent, &link);
    let other: Arc<dyn ReadAt> = packed(&disk(SIZE, &[]), &Target::VhdFixed(VhdOptions::default()));
    let parent: Arc<dyn ReadAt> = parent;
    for name in ["moved.vhd", "Größe.vhd", "müll.vhd"] {
        let mut files = Beside(BTreeMap::from([(name.to_owned(), parent.clone())]));
        assert_same(&changed(), &opened(file.clone(), &files).unwrap());
        // Another disk of the name that comes first is passed over.
        if name != "moved.vhd" {
            files.0.insert("moved.vhd".to_owned(), other.clone());
            let image = opened(file.clone(), &files).unwrap();
            assert_eq!(image.info().detail("parent"), Some(name));
        }
    }
    // The header's name, when no locator is of use.
    let bytes = all(&*file);
    let mut bare = bytes.clone();
    bare[512 + 0x240..512 + 0x300].fill(0);
    let files = Beside(BTreeMap::from([("Größe.vhd".to_owned(), parent.clone())]));
    assert_same(&changed(), &opened(Arc::new(bare.clone()), &files).unwrap());
    bare[512 + 0x40..512 + 0x240].fill(0);
    let error = opened(Arc::new(bare), &files).unwrap_err().to_string();
    assert!(error.contains("names no parent"), "{error}");
}

fn with(file: &SparseBytes, at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = all(file);
    bytes[at..at + new.len()].copy_from_slice(new);
    let part = &mut bytes[512..1536];
    part[0x24..0x28].fill(0);
    let sum = !part.iter().fold(0u32, |sum, byte| sum + u32::from(*byte));
    part[0x24..0x28].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The entry of a locator.
fn locator(space: u32, length: u32, offset: u64) -> Vec<u8> {
    let words = [*b"W2ku", space.to_be_bytes(), length.to_be_bytes(), [0; 4]].concat();
    [words, offset.to_be_bytes().to_vec()].concat()
}

/// What is found in a child, leniently; whether it is refused strictly.
#[track_caller]
fn told(bytes: Vec<u8>, files: &Beside, expected: &str, strict: bool) {
    let image = opened(Arc::new(bytes.clone()), files).unwrap();
    let found = codes(image.info().findings.list());
    assert!(found.contains(&expected), "{found:?}");
    let options = Options {
        resolver: files,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    assert_eq!(open_as(Arc::new(bytes), &options).is_err(), strict);
}

#[test]
fn another_parent_is_said_and_refused_when_damage_is() {
    let (_, file, files) = pair();
    told(
        with(&file, 512 + 0x28, &[1; 16]),
        &files,
        "VHD-PARENT-ID",
        true,
    );
    told(
        with(&file, 512 + 0x38, &[1; 4]),
        &files,
        "VHD-PARENT-TIME",
        false,
    );
    // Windows 10 was seen to write no time: that says nothing.
    let image = opened(Arc::new(with(&file, 512 + 0x38, &[0; 4])), &files).unwrap();
    assert_eq!(codes(image.info().findings.list()), [""; 0]);
    // A second locator: past the end of the file, and over the first one with more bytes than its space has.
    for (space, offset, code) in [
        (512, 1 << 40, "VHD-LOCATOR-PLACE"),
        (0, 2048, "VHD-PARENT-LOCATOR"),
    ] {
        let bytes = with(&file, 512 + 0x258, &locator(space, 16, offset));
        told(bytes, &files, code, false);
    }
    let shorter = packed(&disk(SIZE - 1024, &[]), &Target::VhdFixed(small()));
    let files = Beside(BTreeMap::from([(
        "base.vhd".to_owned(),
        shorter as Arc<dyn ReadAt>,
    )]));
    told(all(&*file), &files, "VHD-PARENT-SIZE", true);
}

#[test]
fn the_space_of_a_locator_may_count_bytes_or_sectors() {
    let (_, file, files) = pair();
    let length = u32::from_be_bytes(all(&*file)[512 + 0x248..512 + 0x24c].try_into().unwrap());
    for space in [1u32, 512, 65_536, length] {
        let bytes = with(&file, 512 + 0x244, &space.to_be_bytes());
        let image = opened(Arc::new(bytes), &files).unwrap();
        assert_eq!(codes(image.info().findings.list()), [""; 0], "{space}");
    }
}

#[test]
fn a_chain_of_three_is_read_and_one_that_comes_back_is_refused() {
    let (_, file, mut files) = pair();
    files.0.insert("child.vhd".to_owned(), file.clone());
    let last = disk(SIZE, &[(0, 1), (3000, 9), (1_100_000, 4), (1_300_000, 8)]);
    let middle = opened(file.clone(), &files).unwrap();
    let link = ParentLink::beside(&*file, "child.vhd").unwrap();
    let top = SparseBytes::default();
    write_child(&last, &middle, &link, &small(), &top).unwrap();
    let top: Arc<dyn ReadAt> = Arc::new(top);
    let image = opened(top.clone(), &files).unwrap();
    assert_same(&last, &image);
    // The base is now a child of the top.
    let link = ParentLink::beside(&*top, "top.vhd").unwrap();
    let turned = SparseBytes::default();
    write_child(&base(), &last, &link, &small(), &turned).unwrap();
    files.0.insert("top.vhd".to_owned(), top.clone());
    files.0.insert("base.vhd".to_owned(), Arc::new(turned));
    let error = opened(top, &files).unwrap_err().to_string();
    assert!(error.contains("comes back"), "{error}");
}

#[test]
fn damage_of_a_child_is_mended_and_its_parent_shows_through() {
    let (_, file, files) = pair();
    let open = |file: Arc<dyn ReadAt>| opened(file, &files);
    let lost = with(&file, 1536, &(1u32 << 30).to_be_bytes());
    let done = repaired(&lost, &["VHD-BLOCK-LOST"], &open);
    let image = open(Arc::new(done)).unwrap();
    let mut head = [0; 2048];
    image.read_at(0, &mut head).unwrap();
    assert_eq!(head[..], crate::common::fill(Kind::Noise(1), 5000)[..2048]);
    // Two blocks in one place: their bitmaps are copied with them.
    let entries = all(&*file)[1536..1552].to_vec();
    let first = entries.chunks(4).position(|e| e != [0xff; 4]).unwrap();
    let second = entries.chunks(4).rposition(|e| e != [0xff; 4]).unwrap();
    let same = with(&file, 1536 + 4 * second, &entries[4 * first..4 * first + 4]);
    repaired(&same, &["VHD-BLOCKS-OVERLAP"], &open);
}

#[test]
fn a_locator_that_leads_behind_the_end_is_taken_out_before_anything_comes_to_stand_there() {
    let (_, file, files) = pair();
    let open = |file: Arc<dyn ReadAt>| opened(file, &files);
    let end = file.len() - 512;
    let block = all(&*file)[1536..1540].to_vec();
    assert!(block != [0xff; 4]);
    // Where the copy of a block goes, in its middle, over the last block and the footer, and the header itself.
    for offset in [end, end + 512, end + 300_000, end - 8, 700] {
        let bytes = with(&file, 512 + 0x258, &locator(512, 30, offset));
        repaired(&bytes, &["VHD-LOCATOR-PLACE"], &open);
        let bytes = with(&sparse(&bytes), 1536 + 8, &block);
        repaired(&bytes, &["VHD-LOCATOR-PLACE", "VHD-BLOCKS-OVERLAP"], &open);
    }
}

#[test]
fn a_locator_claims_the_place_of_its_path_and_nothing_else() {
    let (_, file, files) = pair();
    let entry = u32::from_be_bytes(all(&*file)[1536..1540].try_into().unwrap());
    let zeros = u64::from(entry) * 512 + 512 + 100_000;
    // Over zeros inside a block, and over what follows the first path and reaches into blocks.
    for (entry, code) in [
        (locator(512, 16, zeros), Some("VHD-PARENT-LOCATOR")),
        (locator(65_536, 60_000, 2048), None),
    ] {
        let bytes = with(&file, 512 + 0x258, &entry);
        let image = opened(Arc::new(bytes), &files).unwrap();
        let found = image.check().unwrap();
        assert_eq!(codes(found.list()), Vec::from_iter(code));
        assert_same(&changed(), &image);
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn damage_of_a_parent_is_found_with_its_name() {
    let (parent, file, _) = pair();
    let mut bytes = all(&*parent);
    bytes[1536..1540].copy_from_slice(&(1u32 << 30).to_be_bytes());
    let files = Beside(BTreeMap::from([(
        "base.vhd".to_owned(),
        Arc::new(bytes) as Arc<dyn ReadAt>,
    )]));
    let image = opened(file, &files).unwrap();
    let found = image.check().unwrap();
    let lost = found
        .list()
        .iter()
        .find(|f| f.rule.code == "VHD-BLOCK-LOST")
        .unwrap();
    assert_eq!(lost.file, "base.vhd");
    assert!(image.read_at(0, &mut [0; 16]).is_err());
}

#[test]
fn paths_longer_than_their_fields_are_refused() {
    let (parent, _, _) = pair();
    let below = drylab_image::open(parent.clone(), &Limits::DEFAULT).unwrap();
    let link = ParentLink {
        relative: "x".repeat(300),
        ..ParentLink::beside(&*parent, "x").unwrap()
    };
    let error =
        write_child(&changed(), &below, &link, &small(), &SparseBytes::default()).unwrap_err();
    assert!(error.to_string().contains("its field has 512"), "{error}");
}

#[test]
fn the_differencing_disk_of_windows_is_read_over_its_parent() {
    let Some((folder, _)) = crate::foreign::unpacking::foreign() else {
        return;
    };
    let folder = folder.join("disk/dfvfs__set");
    let file = Arc::new(OnDisk::open(&folder.join("ntfs-differential.vhd")));
    let image = opened(file.clone(), &Folder(folder.clone())).unwrap();
    assert_eq!(image.info().detail("parent"), Some("ntfs-parent.vhd"));
    assert_eq!(codes(image.check().unwrap().list()), [""; 0]);
    let parent = opened(
        Arc::new(OnDisk::open(&folder.join("ntfs-parent.vhd"))),
        &Folder(folder),
    )
    .unwrap();
    assert_eq!(image.len(), parent.len());
    let (own, below) = (all(&image), all(&parent));
    let differ = own
        .chunks(512)
        .zip(below.chunks(512))
        .filter(|(a, b)| a != b)
        .count();
    assert!(
        differ > 0 && differ < 200,
        "{differ} sectors are the child's"
    );
    assert_eq!(own[510..512], [0x55, 0xaa]);
    let plan = image.repair().unwrap();
    assert!(plan.is_empty(), "{:?}", plan.notes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_child_over_any_parent_is_the_disk_it_was_made_of(
        one in plans(3 << 20), two in plans(3 << 20), fixed: bool, large: bool,
    ) {
        let (below, disk) = (one.disk(), two.disk());
        let target = if fixed { Target::VhdFixed(small()) } else { Target::VhdDynamic(small()) };
        let parent = packed(&below, &target);
        let link = ParentLink::beside(&*parent, "base.vhd").unwrap();
        let options = VhdOptions { block_bytes: if large { 2 << 20 } else { 512 << 10 }, ..small() };
        let file = SparseBytes::default();
        write_child(&disk, &below, &link, &options, &file).unwrap();
        // A file that is a function of the disks, not of their holes.
        let again = sparse(&[1; 100]);
        write_child(&crate::common::Dense(&disk), &below, &link, &options, &again).unwrap();
        // Ids are made of the content, so both are one.
        prop_assert!(all(&file) == all(&again));
        let files = Beside(BTreeMap::from([("base.vhd".to_owned(), parent as Arc<dyn ReadAt>)]));
        let image = opened(Arc::new(file), &files).unwrap();
        assert_same(&disk, &image);
    }

    #[test]
    fn children_with_a_few_changed_bytes_never_panic_and_are_mended(
        edits in prop::collection::vec((prop_oneof![2 => 512..1536usize, 2 => 1536..1552usize, 2 => 2048..2200usize], any::<u8>()), 1..5),
    ) {
        thread_local!(static VALID: Vec<u8> = all(&*pair().1));
        let mut bytes = VALID.with(Clone::clone);
        for (at, value) in edits {
            bytes[at] = value;
        }
        drylab_image::fuzz::vhd(&bytes);
        drylab_image::fuzz::vhd_repair(&bytes);
    }
}

#[test]
fn a_set_bit_over_zeros_hides_the_parent() {
    // The trap of a write of zeros over an ancestor's block.
    let parent = packed(&disk(SIZE, &[(700_000, 2)]), &Target::VhdDynamic(small()));
    let link = ParentLink::beside(&*parent, "base.vhd").unwrap();
    let file = child(&disk(SIZE, &[]), &parent, &link);
    let files = Beside(BTreeMap::from([(
        "base.vhd".to_owned(),
        parent as Arc<dyn ReadAt>,
    )]));
    let image = opened(file, &files).unwrap();
    assert!(all(&image).iter().all(|byte| *byte == 0));
}

/// Files, and how often one was opened.
struct Counted(Beside, AtomicU64);

impl Resolver for Counted {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.resolve(reference)
    }
}

#[test]
fn a_chain_of_wrong_links_with_three_names_each_costs_three_files_for_each_link() {
    let mut files = Beside::default();
    let mut last = packed(&base(), &Target::VhdDynamic(small()));
    for level in 0..12 {
        let names = ["r", "a", "m"].map(|kind| format!("{kind}{level}.vhd"));
        for name in &names {
            files.0.insert(name.clone(), last.clone());
        }
        let link = ParentLink {
            unique_id: [9; 16],
            absolute: Some(format!("D:\\{}", names[1])),
            url: Some(format!("file:///{}", names[2])),
            ..ParentLink::beside(&*last, &names[0]).unwrap()
        };
        let file = SparseBytes::default();
        write_child(&base(), &base(), &link, &small(), &file).unwrap();
        last = Arc::new(file);
    }
    let counted = Counted(files, AtomicU64::new(0));
    let image = opened(last, &counted).unwrap();
    assert_eq!(counted.1.load(Ordering::Relaxed), 36);
    assert_eq!(image.info().detail("parent"), Some("r11.vhd"));
    assert_same(&base(), &image);
    let found = image.check().unwrap();
    assert_eq!(found.counts().get("VHD-PARENT-ID"), Some(&12));
}
