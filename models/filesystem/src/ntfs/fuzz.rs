//! Entry point for fuzzers.

use super::Ntfs;
use crate::{FileType, Filesystem};
use drylab_block::Limits;
use std::sync::Arc;

/// Most directories entered and files read in one input.
const VISITS_MAX: usize = 512;

/// Opens the bytes as a volume, lists its directories, reads its files, and plans and applies rewrites.
///
/// # Panics
/// Only on a bug of ours: when a planned change leaves the volume.
pub fn ntfs(data: &[u8]) {
    let mut limits = Limits::DEFAULT;
    limits.file_bytes_max = 1 << 20;
    limits.entries_max = 1 << 14;
    let Ok(volume) = Ntfs::open(Arc::new(data.to_vec()), &limits) else {
        return;
    };
    let _ = (
        volume.uuid(),
        volume.label(),
        volume.version(),
        volume.is_dirty(),
        volume.is_hibernated(),
    );
    let mut waiting = vec![String::new()];
    let mut left = VISITS_MAX;
    while let Some(directory) = waiting.pop() {
        let path = if directory.is_empty() {
            "/"
        } else {
            &directory
        };
        for entry in volume.list(path, &limits).into_iter().flatten().flatten() {
            if left == 0 {
                return;
            }
            left = left.saturating_sub(1);
            let path = format!("{directory}/{}", entry.name);
            match entry.file_type {
                FileType::Directory if path.len() < 4096 => waiting.push(path),
                _ => file(&volume, &path, &limits),
            }
        }
    }
}

fn file(volume: &Ntfs, path: &str, limits: &Limits) {
    let Ok(Some(content)) = volume.read(path, limits) else {
        return;
    };
    let mut turned = content;
    turned.reverse();
    let Ok(Some(patches)) = volume.plan_write(path, &turned, limits) else {
        return;
    };
    let end = volume.boot.clusters.saturating_mul(volume.boot.cluster);
    for (offset, bytes) in patches {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        assert!(
            offset.saturating_add(length) <= end,
            "a rewrite stays within the volume"
        );
    }
}
