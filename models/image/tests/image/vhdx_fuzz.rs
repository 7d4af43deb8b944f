//! What fuzzers do with VHDX, over files that are nearly sound.

use crate::common::{Kind, fill};
use crate::vhdx_tools::{MIB, codes, copy, dynamic, entry, open, set_entry};
use drylab_block::ReadAt;
use drylab_image::fuzz;
use proptest::prelude::*;

/// Scripts for the fuzzers' files: see the targets.
fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let offset = prop_oneof![
        4 => 0..160u16,
        1 => (0..16u16).prop_map(|n| n * 4096),
        1 => any::<u16>(),
    ];
    let value = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 1..9),
        2 => (any::<u8>(), 0..8u8).prop_map(|(mib, state)| {
            (u64::from(mib) << 20 | u64::from(state)).to_le_bytes().to_vec()
        }),
        1 => Just(b"loge".to_vec()),
        1 => (0..3usize).prop_map(|n| [b"desc".to_vec(), b"zero".to_vec(), b"data".to_vec()][n].clone()),
    ];
    let change = (0..12u8, offset, value).prop_map(|(area, offset, bytes)| {
        let mut change = vec![area];
        change.extend(offset.to_le_bytes());
        change.push(bytes.len() as u8);
        change.extend(bytes);
        change
    });
    let wrong = prop_oneof![3 => Just(0u8), 1 => 0..32u8];
    let cut = prop_oneof![3 => Just(0u8), 1 => 0..6u8];
    (0..4u8, wrong, cut, prop::collection::vec(change, 0..6)).prop_map(
        |(kind, wrong, cut, changes)| {
            let mut script = vec![kind, wrong, cut];
            script.extend(changes.concat());
            script
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn sound_files_with_a_few_changed_bytes_never_panic(script in scripts()) {
        fuzz::vhdx(&script);
    }

    #[test]
    fn what_is_repaired_is_mended_and_reads_as_before_after_every_step(script in scripts()) {
        fuzz::vhdx_repair(&script);
    }

    #[test]
    fn random_bytes_behind_a_signature_never_panic(seed: u64, length in 8..400_000usize) {
        let mut bytes = fill(Kind::Noise(seed), length);
        bytes[..8].copy_from_slice(b"vhdxfile");
        fuzz::vhdx(&bytes);
        fuzz::detect(&bytes);
    }
}

#[test]
fn the_fuzzers_files_are_sound_before_they_are_changed() {
    for (kind, found) in [(0, &[][..]), (1, &[]), (3, &["VHDX-LOG-NO-SEQUENCE"])] {
        fuzz::vhdx(&[kind]);
        fuzz::vhdx_repair(&[kind]);
        let (file, _) = fuzz::vhdx_file(&[kind]).unwrap();
        assert_eq!(codes(&open(file).unwrap().check().unwrap()), found);
    }
    fuzz::vhdx_repair(&[2]);
    let (child, _) = fuzz::vhdx_file(&[2]).unwrap();
    let error = open(child).unwrap_err().to_string();
    assert!(error.contains("base.vhdx"), "{error}");
}

#[test]
fn the_fuzzers_seeds_are_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpora/fuzz/vhdx");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let script = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz::vhdx(&script);
        fuzz::vhdx_repair(&script);
        seen += 1;
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn a_bitmap_that_stood_behind_the_end_is_not_read_from_what_a_repair_puts_there() {
    // A cut differencing disk: a block is copied to the end of the file, where the entry of a lost bitmap leads.
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../corpora/fuzz/vhdx_repair"
    );
    let script = std::fs::read(format!("{corpus}/bitmap-behind-the-end")).unwrap();
    fuzz::vhdx_repair(&script);
}

#[test]
fn a_block_that_was_behind_the_end_never_shows_what_a_repair_puts_there() {
    let file = dynamic();
    let end = file.len();
    // The block behind the end is given up, and one of two at a place is copied there.
    set_entry(&file, 3, end | 6);
    let used = (0..10).find(|block| entry(&file, *block) & 7 == 6).unwrap();
    let other = (used + 1..10).find(|block| *block != 3).unwrap();
    set_entry(&file, other, entry(&file, used));
    let plan = open(copy(&file)).unwrap().repair().unwrap();
    for count in 0..=plan.edits().len() {
        let crashed = copy(&file);
        plan.apply_first(count, &crashed).unwrap();
        let mut bytes = vec![1; MIB as usize];
        let read = open(crashed).unwrap().read_at(3 * MIB, &mut bytes);
        assert!(
            read.is_err() || bytes.iter().all(|byte| *byte == 0),
            "{count}"
        );
    }
}
