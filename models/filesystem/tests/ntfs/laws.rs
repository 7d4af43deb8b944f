//! Laws over random damage and random rewrites.

use crate::common::{content, have_ntfs_tools, make};
use drylab_block::{Limits, Overlay, WriteAt};
use drylab_filesystem::Filesystem;
use drylab_filesystem::ntfs::{Ntfs, fuzz};
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

/// A small volume with the places of its structures: boot sector, file records, index blocks.
fn sample() -> Option<&'static (Vec<u8>, Vec<usize>)> {
    static SAMPLE: OnceLock<Option<(Vec<u8>, Vec<usize>)>> = OnceLock::new();
    SAMPLE
        .get_or_init(|| {
            if !have_ntfs_tools() {
                return None;
            }
            let files: Vec<_> = (0..60u32)
                .map(|at| {
                    (
                        format!("some file {at:03}.txt"),
                        content(at as usize * 61, at),
                    )
                })
                .collect();
            let bytes = std::fs::read(make("laws.img", 2 << 20, &["-c", "512"], &files)).unwrap();
            let marks = (0..bytes.len())
                .step_by(512)
                .filter(|at| matches!(&bytes[*at..at + 4], b"FILE" | b"INDX"));
            let places = std::iter::repeat_n(0, 4).chain(marks).collect();
            Some((bytes, places))
        })
        .as_ref()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_volume_damaged_in_its_structures_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..1024, any::<u8>()), 1..6),
        small in any::<bool>(),
        length in prop_oneof![4 => Just(usize::MAX), 1 => 0usize..2 << 20],
    ) {
        if let Some((bytes, places)) = sample() {
            let mut bytes = bytes.clone();
            for (place, at, byte) in changes {
                let at = place.get(places) + if small { at % 96 } else { at };
                bytes[at] = byte;
            }
            bytes.truncate(length);
            fuzz::ntfs(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_planned_rewrite_reads_back_and_leaves_the_rest(which in 0u32..60, length in 0usize..4000) {
        if let Some((bytes, _)) = sample() {
            let limits = Limits::DEFAULT;
            let disk = Arc::new(Overlay::new(Arc::new(bytes.clone())));
            let name = |at: u32| format!("/some file {at:03}.txt");
            let before = which as usize * 61;
            let new = content(length, 77);
            let plan = Ntfs::open(disk.clone(), &limits).unwrap().plan_write(&name(which), &new, &limits).unwrap();
            prop_assert!(plan.is_some() || length > before, "what is no longer than before fits");
            let fits = plan.is_some();
            for (offset, bytes) in plan.into_iter().flatten() {
                disk.write_at(offset, &bytes).unwrap();
            }
            let volume = Ntfs::open(disk, &limits).unwrap();
            for at in 0..60 {
                let old = content(at as usize * 61, at);
                let expected = if fits && at == which { &new } else { &old };
                let read = volume.read(&name(at), &limits).unwrap();
                prop_assert_eq!(read.as_ref(), Some(expected), "{}", at);
            }
        }
    }
}

#[test]
fn bytes_that_are_no_volume_are_refused() {
    for length in [0, 511, 512, 4096] {
        assert!(Ntfs::open(Arc::new(vec![0u8; length]), &Limits::DEFAULT).is_err());
        fuzz::ntfs(&vec![0xFF; length]);
    }
}
