//! Differencing VHDs: with their parents, without them, and as qemu-img reads them.

use crate::common::{
    Kind as Fill, OnDisk, Piece, Plan, assert_same, fill, have_qemu_img, packed, plans,
    try_qemu_img, vhd,
};
use crate::vhd_chain::Beside;
use drylab_block::{Limits, ReadAt, Result, SparseBytes, WriteAt, copy_data};
use drylab_image::vhd::{ParentLink, footer, is_child, write_child};
use drylab_image::{Damage, Image, Options, Target, VhdOptions, VhdSize};
use drylab_image::{open_as, open_vhd, open_vhd_alone};
use proptest::prelude::*;
use std::sync::Arc;

/// The disk that another one differs from: its file, the file's name, what a guest saw on it.
struct Parent<'a> {
    file: &'a dyn ReadAt,
    name: &'a str,
    disk: &'a dyn ReadAt,
}

fn child(disk: &dyn ReadAt, parent: &Parent<'_>, options: &VhdOptions) -> Arc<dyn ReadAt> {
    let file = SparseBytes::default();
    let link = ParentLink::beside(parent.file, parent.name).unwrap();
    let written = write_child(disk, parent.disk, &link, options, &file).unwrap();
    assert_eq!(written.file_bytes, file.len());
    Arc::new(file)
}

/// A chain of files, newest first, and what its children call their parents; nothing is opened that has errors.
fn open_chain(files: &[Arc<dyn ReadAt>], names: &[&str]) -> Result<Image> {
    let (newest, below) = files.split_first().unwrap();
    let names = names.iter().map(|name| (*name).to_owned());
    let beside = Beside(names.zip(below.iter().cloned()).collect());
    let options = Options {
        resolver: &beside,
        vhd_size: VhdSize::Current,
        damage: Damage::Refuse,
        ..Options::DEFAULT
    };
    open_as(newest.clone(), &options)
}

/// A disk of whole sectors, and what a few writes made of it.
fn changed(plan: &Plan, pieces: &[Piece]) -> (SparseBytes, SparseBytes) {
    let before = Plan {
        size: plan.size.next_multiple_of(512),
        pieces: plan.pieces.clone(),
    }
    .disk();
    let after = SparseBytes::new(before.len());
    copy_data(&before, &after).unwrap();
    for piece in pieces {
        let at = piece.offset % before.len();
        let bytes = fill(piece.kind, piece.length);
        let inside = (before.len() - at).min(bytes.len() as u64) as usize;
        after.write_at(at, &bytes[..inside]).unwrap();
    }
    (before, after)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// A chain of any length shows the newest disk, and each of its files only what was written after the one before.
    #[test]
    fn a_chain_shows_the_newest_disk(
        plan in plans(24 << 20), later in plans(24 << 20), latest in plans(24 << 20), options in vhd()
    ) {
        let options = VhdOptions { unique_id: None, ..options };
        let (first, second) = changed(&plan, &later.pieces);
        let (_, third) = changed(&plan, &[later.pieces.clone(), latest.pieces.clone()].concat());
        let base: Arc<dyn ReadAt> = packed(&first, &Target::VhdDynamic(options.clone()));
        let parent = Parent { file: &*base, name: "disk.vhd", disk: &first };
        let middle = child(&second, &parent, &options);
        let parent = Parent { file: &*middle, name: "disk_1.avhd", disk: &second };
        let newest = child(&third, &parent, &options);
        let chain = [newest.clone(), middle.clone(), base.clone()];
        let shown = open_chain(&chain, &["disk_1.avhd", "disk.vhd"]).unwrap();
        assert_same(&shown, &third);
        let shown = open_chain(&chain[1..], &["disk.vhd"]).unwrap();
        assert_same(&shown, &second);
        // No two files are the same one, even where nothing was written between two snapshots.
        let ids: std::collections::BTreeSet<[u8; 16]> =
            chain.iter().map(|file| footer(&**file).unwrap().0.unique_id).collect();
        prop_assert_eq!(ids.len(), 3);
        let wrong = [newest.clone(), base.clone()];
        prop_assert!(open_chain(&wrong, &["disk_1.avhd"]).is_err());
        prop_assert!(open_chain(&chain[..2], &["disk_1.avhd"]).is_err());
        prop_assert!(open_chain(&chain, &["disk_1.avhd", "other.vhd"]).is_err());
        prop_assert!(is_child(&*newest) && is_child(&*middle) && !is_child(&*base));
    }

    /// Whatever a damaged child says, it is read or refused.
    #[test]
    fn a_damaged_child_is_read_or_refused(
        plan in plans(6 << 20), later in plans(6 << 20), at in 0..6000usize, byte in any::<u8>()
    ) {
        let options = VhdOptions { block_bytes: 512 << 10, ..VhdOptions::default() };
        let (before, after) = changed(&plan, &later.pieces);
        let base: Arc<dyn ReadAt> = packed(&before, &Target::VhdDynamic(options.clone()));
        let file = child(&after, &Parent { file: &*base, name: "a.vhd", disk: &before }, &options);
        let mut bytes = vec![0u8; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let last = bytes.len() - 1;
        bytes[at.min(last)] = byte;
        drylab_image::fuzz::vhd(&bytes);
    }
}

/// One file of a guest that was there before the snapshot, one that came after.
fn example() -> (Arc<dyn ReadAt>, SparseBytes, Arc<dyn ReadAt>) {
    let plan = Plan {
        size: 40 << 20,
        pieces: vec![Piece {
            offset: 5 << 20,
            length: 3_000_000,
            kind: Fill::Noise(7),
        }],
    };
    let later = [Piece {
        offset: (6 << 20) + 512,
        length: 2_000,
        kind: Fill::Noise(9),
    }];
    let (before, after) = changed(&plan, &later);
    let options = VhdOptions::default();
    let base: Arc<dyn ReadAt> = packed(&before, &Target::VhdDynamic(options.clone()));
    let parent = Parent {
        file: &*base,
        name: "disk.vhd",
        disk: &before,
    };
    let file = child(&after, &parent, &options);
    (base, after, file)
}

#[test]
fn without_its_parent_a_child_has_zeros_where_the_parent_has_the_data() {
    let (base, after, file) = example();
    assert!(file.len() < base.len() && file.len() > 2 << 20);
    let refused = open_vhd(file.clone(), VhdSize::Current, &Limits::DEFAULT).unwrap_err();
    assert!(refused.to_string().contains("differencing"), "{refused}");
    let alone = open_vhd_alone(file, VhdSize::Current, &Limits::DEFAULT).unwrap();
    assert_eq!(alone.len(), after.len());
    let (mut ours, mut written) = ([0u8; 512], [0u8; 512]);
    alone.read_at((6 << 20) + 512, &mut ours).unwrap();
    after.read_at((6 << 20) + 512, &mut written).unwrap();
    assert_eq!(ours, written);
    for at in [5 << 20, 6 << 20, (6 << 20) + 4096] {
        alone.read_at(at, &mut ours).unwrap();
        after.read_at(at, &mut written).unwrap();
        assert!(ours == [0; 512] && written != [0; 512], "{at}");
    }
}

#[test]
fn qemu_img_reads_a_child_without_its_parent_and_says_nothing() {
    if !have_qemu_img() {
        return;
    }
    let (_, _, file) = example();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("c.vhd"), folder.path().join("c.raw"));
    copy_data(&*file, &OnDisk::create(&from)).unwrap();
    let [from, to] = [&from, &to].map(|path| path.to_str().unwrap());
    let done = try_qemu_img(&["convert", "-f", "vpc", "-O", "raw", from, to]);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let alone = open_vhd_alone(file, VhdSize::ByCreator, &Limits::DEFAULT).unwrap();
    assert_same(&OnDisk::open(to.as_ref()), &alone);
}
