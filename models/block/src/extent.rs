//! The map of a disk.

use crate::source::ReadAt;

/// What is known of a range without reading it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtentKind {
    /// Stored bytes.
    Data,
    /// Explicitly zero.
    Zero,
    /// Never written; reads as zeros (or as the parent, in a chain).
    Hole,
    /// Stored compressed.
    Compressed,
}

impl ExtentKind {
    /// Whether bytes must be fetched to know them.
    #[must_use]
    pub fn has_bytes(self) -> bool {
        matches!(self, Self::Data | Self::Compressed)
    }
}

/// One range of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, never zero when yielded by [`Extents`].
    pub length: u64,
    /// What is known of it.
    pub kind: ExtentKind,
}

/// Walks a source from byte 0 to its end; extents touch and cover everything.
#[derive(Debug)]
pub struct Extents<'a, S: ReadAt + ?Sized> {
    source: &'a S,
    at: u64,
}

impl<'a, S: ReadAt + ?Sized> Extents<'a, S> {
    /// Starts at byte 0.
    pub fn new(source: &'a S) -> Self {
        Self { source, at: 0 }
    }
}

impl<S: ReadAt + ?Sized> Iterator for Extents<'_, S> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let end = self.source.len();
        let left = end.checked_sub(self.at)?;
        if left == 0 {
            return None;
        }
        let found = self.source.extent_at(self.at);
        // A source that answers nonsense is taken to mean "bytes until the end": total, and it always advances.
        let length = if found.offset == self.at && found.length > 0 {
            found.length.min(left)
        } else {
            left
        };
        let extent = Extent {
            offset: self.at,
            length,
            kind: found.kind,
        };
        self.at = self.at.checked_add(length)?;
        Some(extent)
    }
}
