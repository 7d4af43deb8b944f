//! Copy-on-write over a shared base.

use crate::{Extent, ReadAt, Result, SparseBytes, WriteAt};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A base disk nobody may change, with private changes on top, in pages of 4 KiB.
pub struct Overlay {
    base: Arc<dyn ReadAt>,
    pages: RwLock<BTreeMap<u64, Arc<[u8]>>>,
}

/// What an overlay changed: page-aligned offsets and the page that stands there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta(pub BTreeMap<u64, Arc<[u8]>>);

const PAGE: u64 = 4096;

impl Overlay {
    /// No changes yet.
    #[must_use]
    pub fn new(base: Arc<dyn ReadAt>) -> Self {
        Self::with_delta(base, &Delta::default())
    }

    /// The base with `delta` applied.
    #[must_use]
    pub fn with_delta(base: Arc<dyn ReadAt>, delta: &Delta) -> Self {
        Self {
            base,
            pages: RwLock::new(delta.0.clone()),
        }
    }

    /// What differs from the base. Pages written with the bytes that were there already are left out.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn delta(&self) -> Result<Delta> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let mut changed = BTreeMap::new();
        for (offset, page) in pages.iter() {
            if *self.base_page(*offset)? != **page {
                changed.insert(*offset, page.clone());
            }
        }
        Ok(Delta(changed))
    }

    fn base_page(&self, offset: u64) -> Result<Vec<u8>> {
        let length = self.base.len().saturating_sub(offset).min(PAGE);
        let mut page = vec![0; usize::try_from(length).unwrap_or(0)];
        self.base.read_at(offset, &mut page)?;
        Ok(page)
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        write!(
            f,
            "Overlay({} bytes, {} pages changed)",
            self.base.len(),
            pages.len()
        )
    }
}

impl ReadAt for Overlay {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.base.read_at(offset, buffer)?;
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let end = offset.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        let first = offset.saturating_sub(offset % PAGE);
        for (start, page) in pages.range(first..end) {
            // The page covers [start, start + page.len()); copy what lies inside the buffer.
            let from = offset.max(*start);
            let skip_page = usize::try_from(from.saturating_sub(*start)).unwrap_or(usize::MAX);
            let skip_buffer = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (Some(source), Some(target)) =
                (page.get(skip_page..), buffer.get_mut(skip_buffer..))
            else {
                continue;
            };
            let length = source.len().min(target.len());
            if let (Some(source), Some(target)) = (source.get(..length), target.get_mut(..length)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let first = offset.saturating_sub(offset % PAGE);
        if pages.contains_key(&first) {
            let length = PAGE
                .saturating_sub(offset.saturating_sub(first))
                .min(self.len().saturating_sub(offset));
            return Extent {
                offset,
                length,
                kind: crate::ExtentKind::Data,
            };
        }
        let mut extent = self.base.extent_at(offset);
        if let Some((next, _)) = pages.range(first..).next() {
            extent.length = extent.length.min(next.saturating_sub(offset));
        }
        extent
    }
}

impl WriteAt for Overlay {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.len())
        {
            return Err(crate::Error::io(format_args!(
                "write of {length} bytes at offset {offset} ends past the end of the disk ({})",
                self.len()
            )));
        }
        // Stage the touched pages through a small sparse sheet, so that page arithmetic stands in one place.
        let mut at = offset.saturating_sub(offset % PAGE);
        let end = offset.saturating_add(length);
        while at < end {
            let known = self
                .pages
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&at)
                .cloned();
            let page = match known {
                Some(page) => page.to_vec(),
                None => self.base_page(at)?,
            };
            let sheet = SparseBytes::default();
            sheet.write_at(0, &page)?;
            let from = offset.max(at);
            let to = end.min(at.saturating_add(u64::try_from(page.len()).unwrap_or(0)));
            let start = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            let stop = usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX);
            if let Some(part) = bytes.get(start..stop) {
                sheet.write_at(from.saturating_sub(at), part)?;
            }
            let mut merged = vec![0; page.len()];
            sheet.set_len(u64::try_from(page.len()).unwrap_or(0))?;
            sheet.read_at(0, &mut merged)?;
            self.pages
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(at, merged.into());
            at = at.saturating_add(PAGE);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        if length == self.len() {
            return Ok(());
        }
        Err(crate::Error::io(format_args!(
            "an overlay keeps its base's length ({}), not {length}",
            self.len()
        )))
    }
}
