//! Snapshots and split disks: disks of several files, opened through a resolver alone.

use crate::common::{
    Folder, Kind, OnDisk, Piece, Plan, assert_same, fill, have_qemu_img, qemu_img,
};
use drylab_block::{
    Error, ExtentKind, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt, le_u32,
};
use drylab_image::{
    Damage, Image, Options, SplitKind, Target, VmdkOptions, Work, open_as, open_with, write_split,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Arc<dyn ReadAt>>);

impl Files {
    pub(crate) fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(name.to_owned(), Arc::new(bytes));
        self
    }
    pub(crate) fn open(&self, name: &str) -> Result<Image> {
        open_with(self.0[name].clone(), self, &Limits::DEFAULT)
    }
    pub(crate) fn save(&self, folder: &Path) {
        for (name, file) in &self.0 {
            std::fs::write(folder.join(name), bytes_of(&**file)).unwrap();
        }
    }
}

impl Resolver for Files {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert!(["extent", "parent disk"].contains(&reference.kind));
        let found = self.0.get(&reference.name).cloned();
        found.ok_or_else(|| Error::io(format_args!("no file {:?}", reference.name)))
    }
}

pub(crate) fn bytes_of(disk: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

pub(crate) fn codes(image: &Image) -> Vec<&'static str> {
    let found = image.check().unwrap();
    found.counts().keys().copied().collect()
}

/// A sparse VMDK of 1 MiB with noise in some grains, as a snapshot of another when `parent` says of which.
fn layer(grains: &[u64], cid: u32, parent: Option<(u32, &str)>) -> Vec<u8> {
    let piece = |grain: &u64| Piece {
        offset: grain * 65_536,
        length: 65_536,
        kind: Kind::Noise(u64::from(cid) + grain),
    };
    let disk = Plan {
        size: 1 << 20,
        pieces: grains.iter().map(piece).collect(),
    };
    let options = VmdkOptions {
        content_id: Some(cid),
        ..VmdkOptions::default()
    };
    let file = SparseBytes::default();
    drylab_image::write(&disk.disk(), &Target::VmdkSparse(options), &file).unwrap();
    let mut bytes = bytes_of(&file);
    if let Some((cid, hint)) = parent {
        let text = String::from_utf8(bytes[512..21 * 512].to_vec()).unwrap();
        let line = format!("parentCID={cid:08x}\nparentFileNameHint=\"{hint}\"");
        let text = text.replacen("parentCID=ffffffff", &line, 1);
        bytes[512..21 * 512].copy_from_slice(&text.as_bytes()[..20 * 512]);
    }
    bytes
}

/// Three layers: what is in the last counts.
pub(crate) fn chain() -> (Files, Vec<u8>) {
    let files = Files::default()
        .with("base.vmdk", layer(&[0, 1, 2, 9], 1, None))
        .with("middle.vmdk", layer(&[1, 3, 15], 2, Some((1, "base.vmdk"))))
        .with("top.vmdk", layer(&[2, 3], 3, Some((2, "middle.vmdk"))));
    let mut expected = vec![0; 1 << 20];
    for (cid, grains) in [(1, &[0, 1, 2, 9][..]), (2, &[1, 3, 15]), (3, &[2, 3])] {
        for grain in grains {
            let at = (grain * 65_536) as usize;
            expected[at..at + 65_536].copy_from_slice(&fill(Kind::Noise(cid + grain), 65_536));
        }
    }
    (files, expected)
}

#[test]
fn a_chain_of_snapshots_is_read_and_flattened_by_reading() {
    let (files, expected) = chain();
    let image = files.open("top.vmdk").unwrap();
    assert!(bytes_of(&image) == expected);
    assert_eq!(image.check().unwrap().list(), []);
    assert_eq!(image.extent_at(0).kind, ExtentKind::Data);
    assert_eq!(image.extent_at(4 * 65_536).kind, ExtentKind::Hole);
    // Where bytes stand is said with the file that holds them.
    for (grain, name) in [(2u64, ""), (15, "middle.vmdk"), (9, "base.vmdk")] {
        let (_, stored) = image.piece_at(grain * 65_536 + 5);
        let stored = stored.unwrap();
        assert_eq!(stored.file, name);
        let file = if name.is_empty() { "top.vmdk" } else { name };
        let mut found = vec![0; 100];
        files.0[file].read_at(stored.offset, &mut found).unwrap();
        let at = grain as usize * 65_536 + 5;
        assert_eq!(found, expected[at..at + 100]);
    }
    let flat = SparseBytes::default();
    drylab_image::write(&image, &Target::VmdkSparse(VmdkOptions::default()), &flat).unwrap();
    assert!(bytes_of(&drylab_image::open(Arc::new(flat), &Limits::DEFAULT).unwrap()) == expected);
    assert!(
        image
            .resize(2 << 20)
            .unwrap_err()
            .to_string()
            .contains("convert it")
    );
    if have_qemu_img() {
        let folder = tempfile::tempdir().unwrap();
        files.save(folder.path());
        let (top, raw) = (folder.path().join("top.vmdk"), folder.path().join("raw"));
        let (top, raw) = (top.to_str().unwrap(), raw.to_str().unwrap());
        qemu_img(&["convert", "-f", "vmdk", "-O", "raw", top, raw]);
        assert!(std::fs::read(raw).unwrap() == expected);
    }
}

#[test]
fn a_snapshot_of_qemu_img_is_read() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.vmdk");
    std::fs::write(&base, layer(&[0, 3], 7, None)).unwrap();
    let child = folder.path().join("child.vmdk");
    let names = [base.to_str().unwrap(), child.to_str().unwrap()];
    qemu_img(&[
        "create", "-f", "vmdk", "-b", names[0], "-F", "vmdk", names[1],
    ]);
    let resolver = Folder(folder.path().to_owned());
    let open =
        |name: &Path| open_with(Arc::new(OnDisk::open(name)), &resolver, &Limits::DEFAULT).unwrap();
    let (below, above) = (open(&base), open(&child));
    assert!(bytes_of(&below) == bytes_of(&above));
    assert!(!codes(&above).contains(&"VMDK-PARENT-CID"));
    // It names its parent by its folder, which is not gone to.
    assert!(codes(&above).contains(&"VMDK-PARENT-PLACE"));
}

#[test]
fn a_parent_that_is_another_disk_is_noted_or_refused() {
    let (files, _) = chain();
    let changed = files
        .clone()
        .with("base.vmdk", layer(&[0, 1, 2, 9], 4, None));
    let image = changed.open("top.vmdk").unwrap();
    let found = image.check().unwrap();
    let finding = found
        .list()
        .iter()
        .find(|f| f.rule.code == "VMDK-PARENT-CID")
        .unwrap();
    assert_eq!((finding.file.as_str(), finding.length), ("middle.vmdk", 8));
    assert_eq!(finding.found, "00000001");
    let strict = Options {
        resolver: &changed,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let error = open_as(changed.0["top.vmdk"].clone(), &strict).unwrap_err();
    assert!(error.to_string().contains("VMDK-PARENT-CID"), "{error}");

    let longer = SparseBytes::default();
    let options = VmdkOptions {
        content_id: Some(1),
        ..VmdkOptions::default()
    };
    let short = Plan {
        size: 100_352,
        pieces: vec![],
    };
    drylab_image::write(&short.disk(), &Target::VmdkSparse(options), &longer).unwrap();
    let smaller = files.with("base.vmdk", bytes_of(&longer));
    let image = smaller.open("middle.vmdk").unwrap();
    assert_eq!(codes(&image), ["VMDK-PARENT-SIZE"]);
    let mut behind = [1; 512];
    image.read_at(9 * 65_536, &mut behind).unwrap();
    assert_eq!(behind, [0; 512]);
}

#[test]
fn a_parent_that_is_missing_elsewhere_or_the_disk_itself_is_refused_by_name() {
    let (files, expected) = chain();
    let says = |files: &Files, name: &str, words: &[&str]| {
        let error = files.open(name).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let mut missing = files.clone();
    missing.0.remove("base.vmdk");
    says(
        &missing,
        "middle.vmdk",
        &["needs its parent disk", "base.vmdk", "beside"],
    );
    let alone = drylab_image::open(files.0["top.vmdk"].clone(), &Limits::DEFAULT).unwrap_err();
    let words = ["unsupported", "middle.vmdk", "flatten"];
    assert!(
        words.iter().all(|word| alone.to_string().contains(word)),
        "{alone}"
    );
    let own = files
        .clone()
        .with("own.vmdk", layer(&[1], 5, Some((5, "own.vmdk"))));
    says(&own, "own.vmdk", &["comes back", "own.vmdk"]);
    let ring = files
        .clone()
        .with("base.vmdk", layer(&[1], 1, Some((3, "top.vmdk"))));
    says(&ring, "top.vmdk", &["comes back"]);
    let raw = files.clone().with("base.vmdk", vec![7; 4096]);
    says(&raw, "middle.vmdk", &["base.vmdk", "raw, not a VMDK"]);
    for hint in [
        "/vmfs/volumes/a b/base.vmdk",
        "C:\\\\vm\\\\base.vmdk",
        "../../base.vmdk",
    ] {
        let far = files
            .clone()
            .with("far.vmdk", layer(&[], 8, Some((1, hint))));
        let image = far.open("far.vmdk").unwrap();
        assert_eq!(codes(&image), ["VMDK-PARENT-PLACE"]);
        assert_eq!(bytes_of(&image)[..65_536], fill(Kind::Noise(1), 65_536)[..]);
    }
    let up = files.with("up.vmdk", layer(&[], 8, Some((1, "a/.."))));
    says(&up, "up.vmdk", &["no file beside"]);
    drop(expected);
}

fn split(disk: &dyn ReadAt, kind: SplitKind) -> Files {
    let options = VmdkOptions {
        file_name: "disk.vmdk".to_owned(),
        ..VmdkOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let make = &mut |name: &str| Ok(OnDisk::create(&folder.path().join(name)));
    let (text, _) = write_split(disk, &options, kind, make, &Work::ALONE).unwrap();
    let mut files = Files::default().with("disk.vmdk", text.into_bytes());
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let (file, kept) = (OnDisk::open(&path), SparseBytes::default());
        drylab_block::copy_data(&file, &kept).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.0.insert(name, Arc::new(kept));
    }
    files
}

#[test]
fn damage_in_an_extent_of_a_split_disk_is_found_in_its_file_and_mended_there() {
    let disk = Plan {
        size: 300_032,
        pieces: vec![Piece {
            offset: 0,
            length: 200_000,
            kind: Kind::Noise(3),
        }],
    };
    let files = split(&disk.disk(), SplitKind::Sparse);
    let mut extent = bytes_of(&*files.0["disk-s001.vmdk"]);
    let table =
        le_u32(&extent, le_u32(&extent, 56).unwrap() as usize * 512).unwrap() as usize * 512;
    extent[table..table + 4].copy_from_slice(&[0xff; 4]);
    let text = String::from_utf8(bytes_of(&*files.0["disk.vmdk"])).unwrap();
    let text = text.replace("RW 586 ", "RW 58 ");
    let files = files
        .with("disk-s001.vmdk", extent.clone())
        .with("disk.vmdk", text.clone().into_bytes());
    let image = files.open("disk.vmdk").unwrap();
    let found = image.check().unwrap();
    let seen: Vec<_> = found
        .list()
        .iter()
        .map(|f| (f.rule.code, f.file.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("VMDK-EXTENT-SIZE", ""),
            ("VMDK-GT-DIFFERS", "disk-s001.vmdk")
        ]
    );
    let plan = image.repair().unwrap();
    // The line first: until it says what the extent does, what is mended there may turn which of them counts.
    let [(name, after)] = plan.after() else {
        panic!("{plan:?}")
    };
    assert_eq!(name, "disk-s001.vmdk");
    let (descriptor, part) = (SparseBytes::default(), SparseBytes::default());
    descriptor.write_at(0, text.as_bytes()).unwrap();
    part.write_at(0, &extent).unwrap();
    plan.apply(&descriptor).unwrap();
    after.apply(&part).unwrap();
    let mended = files
        .with("disk-s001.vmdk", bytes_of(&part))
        .with("disk.vmdk", bytes_of(&descriptor));
    let image = mended.open("disk.vmdk").unwrap();
    assert_eq!(image.check().unwrap().list(), []);
    assert_same(&disk.disk(), &image);
}

#[test]
fn a_split_disk_of_two_sizes_has_one_of_them_throughout_its_repair_and_is_not_resized_before() {
    // The extent says one sector, its line two; the directory is lost, and tables have to be moved.
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../corpora/fuzz/vmdk_repair"
    );
    let extent = std::fs::read(format!("{corpus}/two-sizes-and-a-moved-directory")).unwrap();
    let text = concat!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n",
        "createType=\"twoGbMaxExtentSparse\"\nRW 2 SPARSE \"a-s001.vmdk\"\n",
    );
    let mut files = Files::default()
        .with("a.vmdk", text.as_bytes().to_vec())
        .with("a-s001.vmdk", extent);
    let image = files.open("a.vmdk").unwrap();
    let refused = image.resize(4096).unwrap_err().to_string();
    let said = "its last extent has 1 sectors, and 2 in the descriptor";
    assert!(refused.contains(said), "{refused}");
    let plan = image.repair().unwrap();
    assert!(plan.before().is_empty() && !plan.edits().is_empty() && plan.after().len() == 1);
    let own = [("a.vmdk", &plan)];
    let others = plan
        .after()
        .iter()
        .map(|(name, plan)| (name.as_str(), plan));
    for (name, plan) in own.into_iter().chain(others) {
        let old = bytes_of(&*files.0[name]);
        for count in 0..=plan.edits().len() {
            let crashed = SparseBytes::default();
            crashed.write_at(0, &old).unwrap();
            plan.apply_first(count, &crashed).unwrap();
            files = files.with(name, bytes_of(&crashed));
            let now = files.open("a.vmdk").unwrap().len();
            assert_eq!(now, image.len(), "{name} after {count} steps");
        }
    }
    assert!(files.open("a.vmdk").unwrap().repair().unwrap().is_empty());
}
