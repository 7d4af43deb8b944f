//! VDI: images over a parent.

use crate::common::{Kind, Piece, Plan, packed};
use crate::vhd_steps::{all, codes};
use drylab_block::{Error, ExtentKind, Extents, Limits, ReadAt, Reference, Resolver, Result};
use drylab_image::{Damage, Image, Options, Target, VdiOptions, open_as, open_with};
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK: u32 = 4096;

/// Files by the UUID that they are asked for.
pub(crate) struct ByUuid(BTreeMap<String, Vec<u8>>);

impl Resolver for ByUuid {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert_eq!(reference.kind, "parent");
        let found = self.0.get(&reference.name);
        let found = found.ok_or_else(|| Error::unsupported("no such image"))?;
        Ok(Arc::new(found.clone()))
    }
}

/// The ids of image `n`: as stored, where the first three fields are little-endian, and as text.
fn id(n: u8) -> [u8; 16] {
    [n; 16]
}

fn name(n: u8) -> String {
    let hex = format!("{n:02x}").repeat(16);
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{{{a}-{b}-{c}-{d}-{e}}}")
}

fn image(number: u8, blocks: &[(u64, u8)]) -> Vec<u8> {
    let piece = |(block, seed): &(u64, u8)| Piece {
        offset: block * u64::from(BLOCK),
        length: BLOCK as usize,
        kind: Kind::Text(*seed),
    };
    let plan = Plan {
        size: 8 * u64::from(BLOCK),
        pieces: blocks.iter().map(piece).collect(),
    };
    let options = VdiOptions {
        block_bytes: BLOCK,
        uuid_create: Some(id(number)),
        uuid_modify: Some(id(number + 100)),
        ..VdiOptions::qemu()
    };
    all(&*packed(&plan.disk(), &Target::VdiDynamic(options)))
}

/// Makes an image one of `kind` over image `parent`.
fn over(mut file: Vec<u8>, parent: u8, kind: u8) -> Vec<u8> {
    file[0x4c] = kind;
    file[0x1a8..0x1b8].copy_from_slice(&id(parent));
    file[0x1b8..0x1c8].copy_from_slice(&id(parent + 100));
    file
}

/// Base with blocks 0, 1, 2; child with 1 of its own, 2 zero.
pub(crate) fn chain(kind: u8) -> (Vec<u8>, ByUuid) {
    let base = image(1, &[(0, 1), (1, 2), (2, 3)]);
    let mut child = over(image(2, &[(1, 9)]), 1, kind);
    child[512 + 8..512 + 12].copy_from_slice(&0xffff_fffeu32.to_le_bytes());
    (child, ByUuid(BTreeMap::from([(name(1), base)])))
}

fn opened(file: Vec<u8>, files: &ByUuid) -> Result<Image> {
    open_with(Arc::new(file), files, &Limits::DEFAULT)
}

#[test]
fn a_free_block_is_the_parents_and_a_zero_block_is_zeros() {
    for (kind, word) in [(3, "undo"), (4, "differencing")] {
        let (child, files) = chain(kind);
        let disk = opened(child, &files).unwrap();
        assert_eq!(disk.subformat(), word);
        assert!(disk.check().unwrap().is_empty());
        let bytes = all(&disk);
        let block = |n: usize| &bytes[n * 4096..(n + 1) * 4096];
        assert_eq!(block(0), crate::common::fill(Kind::Text(1), 4096));
        assert_eq!(block(1), crate::common::fill(Kind::Text(9), 4096));
        assert!(block(2).iter().chain(block(3)).all(|byte| *byte == 0));
        let kinds: Vec<_> = Extents::new(&disk).map(|extent| extent.kind).collect();
        assert_eq!(
            kinds,
            [
                ExtentKind::Data,
                ExtentKind::Data,
                ExtentKind::Zero,
                ExtentKind::Hole
            ]
        );
        let (_, stored) = disk.piece_at(0);
        assert_eq!(stored.map(|stored| stored.file), Some(name(1)));
        let refused = disk.resize(1 << 20).unwrap_err().to_string();
        assert!(refused.contains("convert it"), "{refused}");
    }
}

#[test]
fn a_chain_is_read_through_all_its_images_and_one_that_comes_back_is_refused() {
    let (child, mut files) = chain(4);
    files.0.insert(name(2), child);
    let last = over(image(3, &[(5, 7)]), 2, 4);
    let disk = opened(last.clone(), &files).unwrap();
    let bytes = all(&disk);
    assert_eq!(&bytes[..4096], crate::common::fill(Kind::Text(1), 4096));
    assert_eq!(
        &bytes[5 * 4096..6 * 4096],
        crate::common::fill(Kind::Text(7), 4096)
    );
    files.0.insert(name(1), over(image(1, &[]), 3, 4));
    files.0.insert(name(3), last.clone());
    let error = opened(last, &files).unwrap_err().to_string();
    assert!(error.contains("comes back"), "{error}");
}

#[test]
fn a_parent_is_asked_of_the_resolver_by_its_uuid_and_without_it_the_child_is_refused() {
    let (child, _) = chain(4);
    let denied = drylab_image::open(Arc::new(child.clone()), &Limits::DEFAULT).unwrap_err();
    assert!(
        matches!(&denied, Error::Unsupported(text) if text.contains(&name(1)) && text.contains("differencing")),
        "{denied}"
    );
    let orphan = over(image(2, &[]), 0, 4);
    let mut orphan = orphan;
    orphan[0x1a8..0x1b8].fill(0);
    let error = opened(orphan, &ByUuid(BTreeMap::new()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no UUID of a parent"), "{error}");
    let raw = ByUuid(BTreeMap::from([(name(1), vec![0; 8192])]));
    let error = opened(child, &raw).unwrap_err().to_string();
    assert!(error.contains("signature"), "{error}");
}

/// What a child of another parent is told, leniently, and that it is refused strictly.
#[track_caller]
fn told(base: Vec<u8>, expected: &str, strict: bool) {
    let (child, _) = chain(4);
    let files = ByUuid(BTreeMap::from([(name(1), base)]));
    let disk = opened(child.clone(), &files).unwrap();
    assert!(
        codes(disk.info().findings.list()).contains(&expected),
        "{:?}",
        disk.info().findings
    );
    let options = Options {
        resolver: &files,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    let refused = open_as(Arc::new(child), &options);
    assert_eq!(refused.is_err(), strict, "{refused:?}");
}

#[test]
fn another_parent_or_a_changed_one_is_said_and_refused_when_damage_is() {
    let base = || image(1, &[(0, 1), (1, 2), (2, 3)]);
    let with = |at: usize, new: &[u8]| {
        let mut file = base();
        file[at..at + new.len()].copy_from_slice(new);
        file
    };
    told(with(0x188, &id(77)), "VDI-PARENT-ID", true);
    told(with(0x198, &id(78)), "VDI-PARENT-CHANGED", true);
    told(
        with(0x170, &(7u64 * 4096).to_le_bytes()),
        "VDI-PARENT-SIZE",
        false,
    );
}

#[test]
fn damage_of_a_parent_is_found_with_its_name() {
    let (child, mut files) = chain(4);
    let base = files.0.get_mut(&name(1)).unwrap();
    base[512..516].copy_from_slice(&900u32.to_le_bytes());
    let disk = opened(child, &files).unwrap();
    let found = disk.check().unwrap();
    let lost = found
        .list()
        .iter()
        .find(|f| f.rule.code == "VDI-BLOCK-LOST")
        .unwrap();
    assert_eq!(
        (lost.file.as_str(), lost.path.as_str()),
        (name(1).as_str(), "map entry 0")
    );
    assert!(disk.read_at(0, &mut [0; 16]).is_err());
    assert!(disk.read_at(4096, &mut [0; 16]).is_ok());
}
