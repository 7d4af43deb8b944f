//! Differencing VHDX: what a child lacks is its parent's, and the parent is the right one.

use crate::common::{OnDisk, Plan, assert_same, plans};
use crate::vhdx_tools::{BAT, MIB, bytes, codes, copy, entry, open_beside, piece, set_entry};
use drylab_block::{ExtentKind, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt};
use drylab_image::vhdx::Guid;
use drylab_image::{
    Damage, Image, Options, Target, VhdxOptions, VhdxParent, open_as, write_vhdx_child,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Files by name; what was asked for is written down.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) files: BTreeMap<String, Arc<SparseBytes>>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Resolver for Files {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert_eq!(reference.kind, "parent");
        let asked = (reference.by.clone(), reference.name.clone());
        self.asked.lock().unwrap().push(asked);
        match self.files.get(&reference.name) {
            Some(file) => Ok(file.clone()),
            None => Err(drylab_block::Error::io(format_args!(
                "no file {:?}",
                reference.name
            ))),
        }
    }
}

impl Files {
    fn add(&mut self, name: &str, file: SparseBytes) {
        self.files.insert(name.to_owned(), Arc::new(file));
    }

    fn open(&self, name: &str) -> Result<Image> {
        let options = Options {
            resolver: self,
            ..Options::DEFAULT
        };
        open_as(self.files[name].clone(), &options)
    }

    /// Adds a child of `base` that shows `disk`.
    fn child(&mut self, name: &str, base: &str, disk: &dyn ReadAt, options: &VhdxOptions) {
        let below = self.open(base).unwrap();
        let parent = VhdxParent::of(&below.info(), &format!(".\\{base}")).unwrap();
        let file = SparseBytes::default();
        let written = write_vhdx_child(disk, &below, &parent, options, &file).unwrap();
        assert_eq!(written.file_bytes, file.len());
        self.add(name, file);
    }
}

fn options(large: bool, block: u32) -> VhdxOptions {
    VhdxOptions {
        block_bytes: Some(block),
        logical_sector: if large { 4096 } else { 512 },
        ..VhdxOptions::default()
    }
}

fn base_of(disk: &dyn ReadAt, options: &VhdxOptions) -> Files {
    let mut files = Files::default();
    let file = SparseBytes::default();
    drylab_image::write(disk, &Target::VhdxDynamic(options.clone()), &file).unwrap();
    files.add("base.vhdx", file);
    files
}

fn data(files: &Files) -> Plan {
    let _ = files;
    Plan {
        size: 6 * MIB,
        pieces: vec![
            piece(0, 3000, 1),
            piece(2 * MIB, 1 << 20, 2),
            piece(4 * MIB, 512, 3),
        ],
    }
}

/// A base and a child that has a block partly, one wholly and one as zeros.
pub(crate) fn family() -> (Files, SparseBytes) {
    let base = data(&Files::default()).disk();
    let disk = copy(&base);
    disk.write_at(512, &[0xaa; 1024]).unwrap();
    disk.write_at(MIB, &vec![0xbb; MIB as usize]).unwrap();
    disk.write_at(4 * MIB, &[0; 512]).unwrap();
    let mut files = base_of(&base, &options(false, 1 << 20));
    files.child("child.avhdx", "base.vhdx", &disk, &options(false, 1 << 20));
    (files, disk)
}

#[test]
fn a_child_holds_the_sectors_that_differ_and_shows_the_whole_disk() {
    let (files, disk) = family();
    let child = &files.files["child.avhdx"];
    let states: Vec<u64> = (0..6).map(|block| entry(&**child, block) & 7).collect();
    assert_eq!(states, [7, 6, 0, 0, 2, 0]);
    let bitmap = entry(&**child, 4096);
    assert_eq!(bitmap & 7, 6);
    assert_eq!(
        bytes(&**child, bitmap & !7, 2),
        [0b110, 0],
        "sectors 1 and 2"
    );
    let image = files.open("child.avhdx").unwrap();
    assert_eq!(image.subformat(), "differencing");
    assert_same(&disk, &image);
    assert!(image.check().unwrap().is_empty());
    // Where bytes stand is known through the chain.
    let (extent, stored) = image.piece_at(512);
    let stored = stored.unwrap();
    assert_eq!((extent.length, extent.kind), (1024, ExtentKind::Data));
    assert_eq!(
        (stored.file.as_str(), stored.offset),
        ("", (entry(&**child, 0) & !7) + 512)
    );
    let (extent, stored) = image.piece_at(2 * MIB);
    assert_eq!(
        (extent.length, stored.unwrap().file.as_str()),
        (MIB, "base.vhdx")
    );
    assert_eq!(image.extent_at(4 * MIB).kind, ExtentKind::Zero);
    assert_eq!(image.extent_at(3 * MIB).kind, ExtentKind::Hole);
    // The child is the same disk to the guest.
    let base = files.open("base.vhdx").unwrap().info();
    let info = image.info();
    assert_eq!(info.detail("VirtualDiskId"), base.detail("VirtualDiskId"));
    assert_ne!(info.detail("DataWriteGuid"), base.detail("DataWriteGuid"));
    let linkage = format!("{{{}}}", base.detail("DataWriteGuid").unwrap());
    assert_eq!(info.detail("parent_linkage"), Some(linkage.as_str()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_chain_of_children_shows_the_disk_that_each_was_written_for(
        base in plans(40 << 20), one in plans(40 << 20), two in plans(40 << 20),
        large: bool, block in prop::sample::select(vec![1u32 << 20, 4 << 20]), keep: bool,
    ) {
        let unit = if large { 4096 } else { 512 };
        let whole = |plan: Plan| Plan { size: plan.size.next_multiple_of(unit), ..plan };
        let (base, one, two) = (whole(base), whole(one), whole(two));
        // Children that change a little of what is there, or everything.
        let over = |below: &Plan, above: Plan| if keep {
            let pieces = below.pieces.iter().chain(&above.pieces).cloned().collect();
            Plan { size: above.size, pieces }
        } else {
            above
        };
        let one = over(&base, one);
        let two = over(&one, two);
        let options = options(large, block);
        let mut files = base_of(&base.disk(), &options);
        files.child("one.avhdx", "base.vhdx", &one.disk(), &options);
        files.child("two.avhdx", "one.avhdx", &two.disk(), &options);
        let image = files.open("two.avhdx").unwrap();
        assert_same(&two.disk(), &image);
        prop_assert!(image.check().unwrap().is_empty());
        assert_same(&one.disk(), &files.open("one.avhdx").unwrap());
        let asked = files.asked.lock().unwrap();
        prop_assert!(asked.contains(&("one.avhdx".to_owned(), "base.vhdx".to_owned())));
    }
}

#[test]
fn parents_are_opened_through_the_resolver_only_and_refused_by_default() {
    let (files, _) = family();
    let child = files.files["child.avhdx"].clone();
    let error = drylab_image::open(child, &Limits::DEFAULT).unwrap_err();
    assert!(
        matches!(&error, drylab_block::Error::Unsupported(text) if text.contains("parent") && text.contains("base.vhdx")),
        "{error}"
    );
}

#[test]
fn names_of_a_parent_are_tried_in_the_order_of_the_specification_until_the_right_one_is_found() {
    let (mut files, disk) = family();
    let base = files.open("base.vhdx").unwrap();
    let of = VhdxParent::of(&base.info(), "..\\..\\disks\\base.vhdx").unwrap();
    let parent = VhdxParent {
        volume_path: Some(
            "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx".to_owned(),
        ),
        absolute_win32_path: Some("\\\\?\\d:\\base.vhdx".to_owned()),
        ..of
    };
    let file = SparseBytes::default();
    write_vhdx_child(&disk, &base, &parent, &VhdxOptions::default(), &file).unwrap();
    let order = [
        "../../disks/base.vhdx",
        "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx",
        "\\\\?\\d:\\base.vhdx",
    ];
    files.add("child.avhdx", file);
    files.asked.lock().unwrap().clear();
    assert!(
        files
            .open("child.avhdx")
            .unwrap_err()
            .to_string()
            .contains(order[0])
    );
    let asked: Vec<String> = files
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|(_, name)| name.clone())
        .collect();
    assert_eq!(asked, order);
    // A file under the first name that is another disk gives way to the right one under the last.
    let other = SparseBytes::default();
    let plain = Target::VhdxDynamic(VhdxOptions::default());
    drylab_image::write(&SparseBytes::new(6 * MIB), &plain, &other).unwrap();
    files.add(order[0], other);
    let base = copy(&*files.files["base.vhdx"]);
    files.add(order[2], base);
    let image = files.open("child.avhdx").unwrap();
    assert_same(&disk, &image);
    assert!(image.check().unwrap().is_empty());
    files.files.remove(order[2]);
    let image = files.open("child.avhdx").unwrap();
    assert_eq!(codes(&image.info().findings), ["VHDX-PARENT-LINKAGE"]);
}

#[test]
fn a_child_without_a_path_or_with_an_empty_one_is_not_written() {
    for path in [None, Some(String::new())] {
        let parent = VhdxParent {
            relative_path: path,
            ..VhdxParent::default()
        };
        let disk = SparseBytes::new(MIB);
        let error = write_vhdx_child(
            &disk,
            &disk,
            &parent,
            &VhdxOptions::default(),
            &SparseBytes::default(),
        );
        assert!(error.unwrap_err().to_string().contains("path"));
    }
}

#[test]
fn a_parent_that_was_written_since_is_a_finding_and_an_error_for_who_asks_for_that() {
    let (mut files, disk) = family();
    let changed = copy(&*files.files["base.vhdx"]);
    crate::vhdx_tools::in_headers(&changed, 32, &[9; 16]);
    files.add("base.vhdx", changed);
    let image = files.open("child.avhdx").unwrap();
    assert_same(&disk, &image);
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-PARENT-LINKAGE"]);
    let options = Options {
        resolver: &files,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let error = open_as(files.files["child.avhdx"].clone(), &options).unwrap_err();
    assert!(error.to_string().contains("VHDX-PARENT-LINKAGE"), "{error}");
}

#[test]
fn chains_that_come_back_to_themselves_are_refused() {
    let (mut files, _) = family();
    let child = copy(&*files.files["child.avhdx"]);
    files.add("base.vhdx", child);
    let error = files.open("child.avhdx").unwrap_err();
    assert!(error.to_string().contains("comes back"), "{error}");
}

#[test]
fn damage_in_a_parent_is_said_with_its_name() {
    let (mut files, _) = family();
    let base = copy(&*files.files["base.vhdx"]);
    base.write_at(64 << 10, &[0; 8]).unwrap();
    set_entry(&base, 2, (1 << 40) | 6);
    files.add("base.vhdx", base);
    let image = files.open("child.avhdx").unwrap();
    let found = image.check().unwrap();
    assert_eq!(codes(&found), ["VHDX-BLOCK-LOST", "VHDX-HEADER"]);
    assert!(
        found
            .list()
            .iter()
            .all(|finding| finding.file == "base.vhdx")
    );
    assert!(image.repair().unwrap().is_empty(), "it is not the child's");
    assert!(image.read_at(2 * MIB, &mut [0; 512]).is_err());
    assert!(image.read_at(MIB, &mut [0; 512]).is_ok());
}

#[test]
fn sectors_of_another_size_than_the_parents_are_said() {
    let (files, disk) = family();
    let base = files.open("base.vhdx").unwrap();
    let parent = VhdxParent::of(&base.info(), ".\\base.vhdx").unwrap();
    let file = SparseBytes::default();
    write_vhdx_child(&disk, &base, &parent, &options(true, 1 << 20), &file).unwrap();
    let mut files = files;
    files.add("large.avhdx", file);
    let image = files.open("large.avhdx").unwrap();
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-PARENT-SECTOR"]);
    assert_same(&disk, &image);
}

#[test]
fn a_block_partly_there_without_a_bitmap_is_not_read_and_not_guessed() {
    for (bitmap, codes_of) in [
        (0u64, &["VHDX-BITMAP-MISSING"][..]),
        ((1 << 40) | 6, &["VHDX-BITMAP-MISSING"]),
        (MIB | 6, &["VHDX-BITMAP-MISSING"]),
        (3, &["VHDX-BITMAP-MISSING"]),
    ] {
        let (mut files, _) = family();
        let child = copy(&*files.files["child.avhdx"]);
        set_entry(&child, 4096, bitmap);
        files.add("child.avhdx", child);
        let image = files.open("child.avhdx").unwrap();
        assert_eq!(codes(&image.check().unwrap()), codes_of, "{bitmap:#x}");
        assert!(
            image
                .read_at(0, &mut [0; 512])
                .unwrap_err()
                .to_string()
                .contains("bitmap")
        );
        assert!(image.read_at(MIB, &mut [0; 512]).is_ok());
        assert!(image.repair().unwrap().is_empty());
    }
}

#[test]
fn a_bitmap_that_the_end_cuts_is_not_made_whole_by_what_a_repair_adds() {
    let (mut files, _) = family();
    let child = copy(&*files.files["child.avhdx"]);
    let (bitmap, end) = (entry(&child, 4096) & !7, child.len());
    child.write_at(end, &bytes(&child, bitmap, 1024)).unwrap();
    set_entry(&child, 4096, end | 6);
    // Two blocks at one place: the second is copied to the end.
    set_entry(&child, 3, entry(&child, 1));
    let try_out = |files: &mut Files, file: SparseBytes| {
        files.add("child.avhdx", file);
        let image = files.open("child.avhdx").unwrap();
        assert!(image.read_at(0, &mut [0; 512]).is_err());
        image
    };
    let plan = try_out(&mut files, copy(&child)).repair().unwrap();
    let steps = plan.edits().len();
    assert!(steps > 0);
    for count in 0..=steps {
        let file = copy(&child);
        plan.apply_first(count, &file).unwrap();
        try_out(&mut files, file);
    }
}

#[test]
fn a_bitmap_entry_that_nobody_needs_is_cleared_and_a_shared_bitmap_gets_its_own_place() {
    let (mut files, disk) = family();
    let child = copy(&*files.files["child.avhdx"]);
    let partial = entry(&child, 0);
    // A block that becomes wholly the parent's leaves its bitmap.
    set_entry(&child, 0, 0);
    set_entry(&child, 4096, (1 << 40) | 6);
    files.add("unused.avhdx", child);
    let image = files.open("unused.avhdx").unwrap();
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-BITMAP-STATE"]);
    let mended = copy(&*files.files["unused.avhdx"]);
    image.repair().unwrap().apply(&mended).unwrap();
    assert_eq!(bytes(&mended, BAT + 8 * 4096, 8), [0; 8]);
    let child = copy(&*files.files["child.avhdx"]);
    let block = entry(&child, 1) & !7;
    let bitmap = entry(&child, 4096) & !7;
    // The bitmap's bytes at the place of block 1.
    let bits = bytes(&child, bitmap, 4096);
    child.write_at(block, &bits).unwrap();
    set_entry(&child, 4096, block | 6);
    files.add("shared.avhdx", child);
    let image = files.open("shared.avhdx").unwrap();
    assert_eq!(codes(&image.check().unwrap()), ["VHDX-BLOCK-SHARED"]);
    let mended = copy(&*files.files["shared.avhdx"]);
    image.repair().unwrap().apply(&mended).unwrap();
    assert_ne!(entry(&mended, 4096) & !7, block);
    files.add("mended.avhdx", mended);
    let image = files.open("mended.avhdx").unwrap();
    assert!(image.check().unwrap().is_empty());
    let mut sector = [0; 1024];
    image.read_at(512, &mut sector).unwrap();
    assert_eq!((sector, partial & 7), ([0xaa; 1024], 7));
    assert_eq!(disk.len(), image.len());
}

#[test]
fn a_locator_with_damage_is_said_and_the_parent_found_where_its_name_is_left() {
    let (mut files, disk) = family();
    let info = files.open("child.avhdx").unwrap().info();
    assert_eq!(info.detail("relative_path"), Some(".\\base.vhdx"));
    let child = &files.files["child.avhdx"];
    // Items: parameters 8, size 8, sectors 4 and 4, id 16: the locator is behind them.
    let at = crate::vhdx_tools::ITEMS + 40;
    assert_eq!(bytes(&**child, at + 18, 2), [2, 0], "two pairs");
    let child = copy(&**child);
    child.write_at(at + 20, &u32::MAX.to_le_bytes()).unwrap();
    files.add("damaged.avhdx", child);
    let image = files.open("damaged.avhdx").unwrap();
    assert_same(&disk, &image);
    assert_eq!(
        codes(&image.check().unwrap()),
        ["VHDX-PARENT-LINKAGE", "VHDX-PARENT-LOCATOR"]
    );
    let child = copy(&*files.files["child.avhdx"]);
    child.write_at(at, &Guid([5; 16]).0).unwrap();
    files.add("iscsi.avhdx", child);
    let error = files.open("iscsi.avhdx").unwrap_err().to_string();
    assert!(
        error.contains("unsupported") && error.contains("05050505"),
        "{error}"
    );
}

#[test]
fn hyper_vs_own_child_shows_what_its_parent_and_its_bitmaps_say() {
    let Some((folder, _)) = crate::foreign::unpacking::foreign() else {
        return;
    };
    let folder = folder.join("disk/dfvfs__set");
    let image = open_beside(&folder, "ntfs-differential.vhdx").unwrap();
    assert!(image.check().unwrap().is_empty());
    let parent = OnDisk::open(&folder.join("ntfs-parent.vhdx"));
    let parent = drylab_image::open(Arc::new(parent), &Limits::DEFAULT).unwrap();
    assert!(parent.check().unwrap().is_empty());
    assert_eq!((image.len(), parent.len()), (4 * MIB, 4 * MIB));
    let volume = bytes(&image, 0, image.len());
    let below = bytes(&parent, 0, parent.len());
    // Some sectors differ, most do not, and both are the same NTFS.
    let pairs = volume.chunks(512).zip(below.chunks(512));
    let differing = pairs.filter(|(one, other)| one != other).count();
    assert!((1..4096).contains(&differing), "{differing}");
    let child = OnDisk::open(&folder.join("ntfs-differential.vhdx"));
    let ours: u32 = [0u64, 1]
        .iter()
        .map(|block| {
            // Bits of each block of 2 MiB: 4096 sectors.
            let bitmap = entry_of(&child, 2048) & !7;
            let bits = bytes(&child, bitmap + block * 512, 512);
            bits.iter().map(|byte| byte.count_ones()).sum::<u32>()
        })
        .sum();
    assert!(
        differing as u32 <= ours,
        "{differing} of {ours} sectors of the child's own"
    );
}

/// An entry of a BAT that Hyper-V puts at 3 MiB.
fn entry_of(file: &dyn ReadAt, index: u64) -> u64 {
    crate::vhdx_tools::u64_at(file, BAT + 8 * index)
}

#[test]
fn a_chain_of_wrong_links_with_three_names_each_costs_three_files_for_each_link() {
    let disk = data(&Files::default()).disk();
    for (names, expected) in [
        (["r", "\\\\?\\Volume{1}\\v", "d:\\a"], 36),
        (["r", "r", "r"], 12),
    ] {
        let mut files = base_of(&disk, &options(false, 1 << 20));
        let linkage = Guid::parse("{00000000-0000-0000-0000-000000000001}").unwrap();
        let mut last = files.files["base.vhdx"].clone();
        for level in 0..12 {
            let names = names.map(|name| format!("{name}{level}"));
            for name in &names {
                files.files.insert(name.clone(), last.clone());
            }
            let [relative, volume, absolute] = names;
            let parent = VhdxParent {
                linkage,
                disk_id: None,
                relative_path: Some(relative),
                volume_path: Some(volume),
                absolute_win32_path: Some(absolute),
            };
            let file = SparseBytes::default();
            write_vhdx_child(&disk, &disk, &parent, &options(false, 1 << 20), &file).unwrap();
            last = Arc::new(file);
        }
        files.files.insert("top".to_owned(), last);
        let image = files.open("top").unwrap();
        assert_eq!(files.asked.lock().unwrap().len(), expected);
        assert_same(&disk, &image);
        let found = image.check().unwrap();
        assert_eq!(found.counts().get("VHDX-PARENT-LINKAGE"), Some(&12));
    }
}
