//! Entry point for fuzzers.

use crate::{Delta, Overlay, ReadAt};
use std::sync::Arc;

/// Opens the bytes as a delta, for the disk they say they are for and for one of 10,000 bytes, and applies it.
///
/// # Panics
/// Only on a bug of ours: when a page stands at no multiple of 4096, or past the disk's end.
pub fn delta(data: &[u8]) {
    let said = crate::le_u64(data, 12).unwrap_or(0);
    for length in [said, 10_000] {
        let Ok(delta) = Delta::parse(data, length) else {
            continue;
        };
        for (offset, page) in &delta.0 {
            let bytes = u64::try_from(<[u8]>::len(page)).unwrap_or(u64::MAX);
            let inside = offset
                .checked_add(bytes)
                .is_some_and(|end| end <= length && (bytes == 4096 || end == length));
            assert!(
                offset % 4096 == 0 && inside,
                "a page of {bytes} bytes at {offset} of {length}"
            );
        }
        if length <= 1 << 20 {
            let base: Arc<dyn ReadAt> = Arc::new(vec![0; usize::try_from(length).unwrap_or(0)]);
            let disk = Overlay::with_delta(base, &delta);
            for (offset, page) in &delta.0 {
                let mut bytes = vec![0; <[u8]>::len(page)];
                let read = disk.read_at(*offset, &mut bytes);
                assert!(
                    read.is_ok() && *bytes == **page,
                    "a page is read where it stands"
                );
            }
        }
    }
}
