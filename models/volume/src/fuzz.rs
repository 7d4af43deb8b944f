//! Entry points for fuzzing: open the bytes, walk everything, never panic.

use crate::scan;
use drylab_block::{Extents, Limits, ReadAt};
use std::sync::Arc;

/// Opens `data` as a disk and reads the first bytes of every volume on it.
///
/// Laws: a volume lies on its disks, and its extents cover it.
pub fn mbr(data: &[u8]) {
    let disk: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let Ok(layout) = scan(disk, &Limits::DEFAULT) else {
        return;
    };
    for volume in &layout.volumes {
        let mut bytes = vec![0u8; usize::try_from(volume.length().min(4096)).unwrap_or(0)];
        let read = volume.source.read_at(0, &mut bytes);
        assert!(read.is_ok(), "{volume:?}: {read:?}");
        let last = volume.length().saturating_sub(1);
        let mut one = [0u8];
        let read = volume.source.read_at(last, &mut one);
        assert!(volume.length() == 0 || read.is_ok(), "{volume:?}: {read:?}");
        let covered: u64 = Extents::new(&volume.source)
            .take(1 << 16)
            .map(|extent| extent.length)
            .sum();
        assert!(
            covered <= volume.length(),
            "extents of {volume:?} cover {covered} bytes"
        );
    }
}

/// Opens `data` as a physical volume that fills a disk, past its checksums: they are set right first, since a fuzzer
/// does not guess them.
pub fn lvm(data: &[u8]) {
    let mut bytes = data.to_vec();
    crate::lvm::mend_checksums(&mut bytes);
    mbr(&bytes);
    // The text alone, too: it is what the rest stands on.
    if let Ok(text) = crate::lvm::parse_text(data, &Limits::DEFAULT) {
        let _ = crate::lvm::Group::from_text(&text);
    }
}
