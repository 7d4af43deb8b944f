//! A name for the bytes of a disk, whatever container they came in.

use crate::{Extents, ReadAt, Result};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// 128 bits over the virtual size and the non-zero 4 KiB pages: SipHash-1-3-128 with key 0.
///
/// Holes, explicit zeros and written zeros give the same id. Not a defence against a forger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentId(pub u128);

impl std::fmt::Display for ContentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const PAGE: usize = 4096;

/// Reads every extent that has bytes and names the content.
///
/// # Errors
/// Whatever reading finds.
pub fn content_id(source: &(impl ReadAt + ?Sized)) -> Result<ContentId> {
    let mut hasher = SipHasher13::new();
    let length = source.len();
    hasher.write(&length.to_le_bytes());
    let mut page = [0u8; PAGE];
    let mut next = 0u64;
    for extent in Extents::new(source).filter(|extent| extent.kind.has_bytes()) {
        let end = extent.offset.saturating_add(extent.length);
        // Pages are taken whole and once, even where two extents meet inside one.
        let mut at = extent.offset.saturating_sub(extent.offset % 4096).max(next);
        while at < end {
            let take = usize::try_from(length.saturating_sub(at))
                .unwrap_or(PAGE)
                .min(PAGE);
            let Some(part) = page.get_mut(..take) else {
                break;
            };
            source.read_at(at, part)?;
            // One vector loop, which leaving early would not be.
            if part.iter().fold(0u8, |sum, byte| sum | byte) != 0 {
                hasher.write(&at.to_le_bytes());
                hasher.write(part);
            }
            at = at.saturating_add(4096);
            next = at;
        }
    }
    let hash = hasher.finish128();
    Ok(ContentId(hash.as_u128()))
}
