//! Descriptors with damaged extents of every kind: never a panic, and every extent of the map ends. Kinds of VMDK are told
//! by their contents.

use crate::common::{Kind, packed};
use crate::vmdk_chain::bytes_of;
use crate::vmdk_damage::{SIZE, disk, stream};
use crate::vmdk_esx::extents;
use drylab_image::{Format, Target, VmdkOptions, detect, fuzz};
use proptest::prelude::*;

fn descriptor(kind: &str, line: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000009\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\
         {line}\nddb.adapterType = \"lsilogic\"\n"
    )
    .into_bytes()
}

/// Descriptor and extent of each kind of which extents are other files.
fn split() -> Vec<(Vec<u8>, Vec<u8>)> {
    let [cowd, se] = extents();
    let sparse = bytes_of(&*packed(
        &disk(SIZE),
        &Target::VmdkSparse(VmdkOptions::default()),
    ));
    let text = |kind, sectors: u64, word| {
        let line = format!("RW {sectors} {word} \"a\"\nRW 8 {word} \"a\"");
        descriptor(kind, &line)
    };
    vec![
        (text("vmfsSparse", 5000, "VMFSSPARSE"), cowd),
        (text("seSparse", 32_768, "SESPARSE"), se),
        (text("twoGbMaxExtentSparse", 586, "SPARSE"), sparse.clone()),
        (text("twoGbMaxExtentFlat", 586, "FLAT"), sparse),
        (text("twoGbMaxExtentSparse", 586, "SPARSE"), stream()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn descriptors_and_extents_with_a_few_changed_bytes_never_panic(
        which in 0..5usize,
        edits in prop::collection::vec((any::<bool>(), prop_oneof![3 => 0..256usize, 2 => 0..8192usize, 2 => any::<usize>()], any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        thread_local!(static VALID: Vec<(Vec<u8>, Vec<u8>)> = split());
        let (mut text, mut extent) = VALID.with(|valid| valid[which].clone());
        for (in_text, at, value) in edits {
            let file = if in_text { &mut text } else { &mut extent };
            let at = at % file.len();
            file[at] = value;
        }
        if let Some(cut) = cut {
            extent.truncate(cut % extent.len());
        }
        fuzz::vmdk(&extent);
        fuzz::vmdk_repair(&extent);
        fuzz::detect(&extent);
        fuzz::vmdk_split(&[&text[..], &[0], &extent].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn extents_of_esx_with_small_numbers_in_their_tables_never_panic(
        which in 0..2usize, from in 512..20_000usize, seed in any::<u64>(),
    ) {
        thread_local!(static VALID: Vec<(Vec<u8>, Vec<u8>)> = split());
        let (text, mut extent) = VALID.with(|valid| valid[which].clone());
        let from = from.min(extent.len() - 1);
        for (place, noise) in extent[from..].iter_mut().zip(crate::common::fill(Kind::Noise(seed), 9000)) {
            *place = if noise % 4 == 0 { noise / 4 } else { 0 };
        }
        fuzz::vmdk(&extent);
        fuzz::vmdk_split(&[&text[..], &[0], &extent].concat());
    }
}

#[test]
fn every_kind_of_vmdk_is_told_by_its_content() {
    let kinds = [
        "monolithicFlat",
        "vmfs",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
        "vmfsSparse",
        "seSparse",
    ];
    let told = |bytes: Vec<u8>| {
        let found = detect(&bytes).unwrap();
        assert_eq!(found.format, Format::Vmdk);
        found.subformat
    };
    for kind in kinds {
        assert_eq!(told(descriptor(kind, "RW 8 ZERO")), kind);
    }
    for zeroed_grains in [false, true] {
        let sparse = Target::VmdkSparse(VmdkOptions {
            zeroed_grains,
            ..VmdkOptions::default()
        });
        let file = bytes_of(&*packed(&disk(SIZE), &sparse));
        assert_eq!(told(file), "monolithicSparse");
    }
    assert_eq!(told(stream()), "streamOptimized");
    let [cowd, se] = extents();
    assert_eq!(
        (told(cowd).as_str(), told(se).as_str()),
        ("vmfsSparse", "seSparse")
    );
}
