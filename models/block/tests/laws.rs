//! Laws of positioned bytes.

use drylab_block::{Extents, Overlay, ReadAt, SparseBytes, Window, WriteAt, content_id, copy_data};
use proptest::prelude::*;
use std::sync::Arc;

/// Writes as (offset, length, byte) over a disk of some MiB, its length no multiple of anything.
fn writes() -> impl Strategy<Value = (u64, Vec<(u64, usize, u8)>)> {
    (1u64..8_000_000).prop_flat_map(|length| {
        let write = (0..length, 0usize..20_000, any::<u8>());
        (Just(length), proptest::collection::vec(write, 0..12))
    })
}

fn clip(length: u64, offset: u64, count: usize) -> usize {
    usize::try_from(length - offset)
        .unwrap_or(usize::MAX)
        .min(count)
}

fn bytes_of(source: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
    source.read_at(0, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sparse_bytes_and_overlays_agree_with_a_plain_vector((length, writes) in writes()) {
        let mut plain = vec![0u8; usize::try_from(length).unwrap()];
        let sparse = SparseBytes::new(length);
        let overlay = Overlay::new(Arc::new(vec![0u8; plain.len()]));
        for (offset, count, byte) in writes {
            let count = clip(length, offset, count);
            let data = vec![byte; count];
            let at = usize::try_from(offset).unwrap();
            plain[at..at + count].copy_from_slice(&data);
            sparse.write_at(offset, &data).unwrap();
            overlay.write_at(offset, &data).unwrap();
        }
        prop_assert!(bytes_of(&sparse) == plain);
        prop_assert!(bytes_of(&overlay) == plain);
        let rebuilt = Overlay::with_delta(Arc::new(vec![0u8; plain.len()]), &overlay.delta().unwrap());
        prop_assert!(bytes_of(&rebuilt) == plain);
        // Sparse equals dense: one name for the content, whatever holds it.
        let name = content_id(&plain).unwrap();
        prop_assert_eq!(content_id(&sparse).unwrap(), name);
        prop_assert_eq!(content_id(&overlay).unwrap(), name);
        let copy = SparseBytes::default();
        copy_data(&sparse, &copy).unwrap();
        prop_assert_eq!(content_id(&copy).unwrap(), name);
    }

    #[test]
    fn extents_cover_the_disk_without_gaps_and_holes_read_as_zeros((length, writes) in writes()) {
        let sparse = Arc::new(SparseBytes::new(length));
        for (offset, count, byte) in writes {
            sparse.write_at(offset, &vec![byte; clip(length, offset, count)]).unwrap();
        }
        let window = Window::new(sparse.clone(), length / 3, length - length / 3).unwrap();
        for source in [&*sparse as &dyn ReadAt, &window] {
            let mut at = 0;
            for extent in Extents::new(source) {
                prop_assert_eq!(extent.offset, at);
                prop_assert!(extent.length > 0);
                at += extent.length;
                if !extent.kind.has_bytes() {
                    let mut bytes = vec![1; usize::try_from(extent.length).unwrap()];
                    source.read_at(extent.offset, &mut bytes).unwrap();
                    prop_assert!(bytes.iter().all(|byte| *byte == 0));
                }
            }
            prop_assert_eq!(at, source.len());
        }
    }

    #[test]
    fn a_changed_byte_is_another_content((length, writes) in writes(), at in any::<prop::sample::Index>()) {
        let sparse = SparseBytes::new(length);
        for (offset, count, byte) in writes {
            sparse.write_at(offset, &vec![byte; clip(length, offset, count)]).unwrap();
        }
        let before = content_id(&sparse).unwrap();
        let offset = u64::try_from(at.index(usize::try_from(length).unwrap())).unwrap();
        let mut byte = [0];
        sparse.read_at(offset, &mut byte).unwrap();
        sparse.write_at(offset, &[byte[0] ^ 1]).unwrap();
        prop_assert_ne!(content_id(&sparse).unwrap(), before);
    }
}

#[test]
fn reads_and_writes_past_the_end_are_refused() {
    let overlay = Overlay::new(Arc::new(vec![0u8; 100]));
    assert!(overlay.write_at(99, &[1, 2]).is_err());
    assert!(overlay.read_at(99, &mut [0, 0]).is_err());
    assert!(overlay.set_len(200).is_err());
    assert!(Window::new(Arc::new(vec![0u8; 100]), 50, 51).is_err());
    assert!(Window::new(Arc::new(vec![0u8; 100]), u64::MAX, 1).is_err());
}

#[test]
fn a_shrunk_sheet_grows_back_with_zeros() {
    let sheet = SparseBytes::default();
    sheet.write_at(0, &[9; 10_000]).unwrap();
    sheet.set_len(5_000).unwrap();
    sheet.set_len(10_000).unwrap();
    let bytes = bytes_of(&sheet);
    assert!(
        bytes[..5_000].iter().all(|byte| *byte == 9)
            && bytes[5_000..].iter().all(|byte| *byte == 0)
    );
}
