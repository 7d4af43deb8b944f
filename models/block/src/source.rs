//! Where bytes come from and go to.

use crate::{Error, Extent, ExtentKind, Extents, Limits, Result};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// Bytes that can be read at any offset, by many readers at once.
#[expect(
    clippy::len_without_is_empty,
    reason = "an empty disk is a disk of 0 bytes, nothing special"
)]
pub trait ReadAt: Send + Sync {
    /// Number of bytes.
    fn len(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`] when the range ends past [`len`](Self::len); whatever the format finds wrong otherwise.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// What is known of the range that starts at `offset` (`offset < len`), without reading it.
    fn extent_at(&self, offset: u64) -> Extent {
        Extent {
            offset,
            length: self.len().saturating_sub(offset),
            kind: ExtentKind::Data,
        }
    }

    /// The source below, of which the range that starts at `offset` (`offset < len`) is a range, byte for byte.
    ///
    /// `None` where bytes are made and not found: holes, zeros, compressed units; and for a source with nothing below.
    /// With it a copy can ask the file itself for its holes, or have its file system share the range.
    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let _ = offset;
        None
    }

    /// What a sink that knows this kind of source may ask for, to take a range of it without reading it: a file is
    /// itself. See [`WriteAt::take`].
    fn handle(&self) -> Option<&dyn Any> {
        None
    }
}

/// A range of a source that is, byte for byte, a range of another one. See [`ReadAt::below`].
#[derive(Clone, Copy)]
pub struct Below<'a> {
    /// The source below.
    pub source: &'a dyn ReadAt,
    /// Offset of the range in it.
    pub offset: u64,
    /// Bytes for which this holds, at least one.
    pub length: u64,
}

impl std::fmt::Debug for Below<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Below({}+{})", self.offset, self.length)
    }
}

impl<'a> Below<'a> {
    /// The lowest source that holds the first byte of this range as it is, and how far.
    #[must_use]
    pub fn lowest(mut self) -> Self {
        // A window of a window of an extent of an image: more than a few levels are a source that names itself.
        for _ in 0..16 {
            let Some(next) = self.source.below(self.offset) else {
                break;
            };
            self = Self {
                length: next.length.min(self.length),
                ..next
            };
        }
        self
    }
}

/// Bytes that can also be written, still over `&self`.
pub trait WriteAt: ReadAt {
    /// Writes all of `bytes` at `offset`; grows the sink where it can grow.
    ///
    /// # Errors
    /// [`Error::Io`] when the sink is full or fixed and the range ends past it.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Sets the length, cutting or padding with zeros.
    ///
    /// # Errors
    /// [`Error::Io`] when the sink cannot have that length.
    fn set_len(&self, length: u64) -> Result<()>;

    /// Takes the range `source` to `offset` without its bytes passing through, where the medium can share or copy them by
    /// itself; `false` when it cannot, and then they are to be written. By default it cannot.
    ///
    /// # Errors
    /// [`Error::Io`] when it can and failed.
    fn take(&self, offset: u64, source: Below<'_>) -> Result<bool> {
        let _ = (offset, source);
        Ok(false)
    }

    /// Returns when everything written so far is on the medium; a sink in memory has none.
    ///
    /// # Errors
    /// [`Error::Io`] when the medium fails.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Length of a slice as 64 bits.
fn len64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn past_end(offset: u64, wanted: usize, length: u64) -> Error {
    Error::io(format_args!(
        "read of {wanted} bytes at offset {offset} ends past the end ({length})"
    ))
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        len64(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|at| crate::slice_at(self, at, buffer.len()));
        let found = found.ok_or_else(|| past_end(offset, buffer.len(), len64(self)))?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        len64(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl<S: ReadAt + ?Sized> ReadAt for Arc<S> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        (**self).extent_at(offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        (**self).below(offset)
    }

    fn handle(&self) -> Option<&dyn Any> {
        (**self).handle()
    }
}

impl<S: WriteAt + ?Sized> WriteAt for Arc<S> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        (**self).write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> Result<()> {
        (**self).set_len(length)
    }

    fn take(&self, offset: u64, source: Below<'_>) -> Result<bool> {
        (**self).take(offset, source)
    }

    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
}

impl<S: ReadAt + ?Sized> ReadAt for &S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        (**self).extent_at(offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        (**self).below(offset)
    }

    fn handle(&self) -> Option<&dyn Any> {
        (**self).handle()
    }
}

/// A range of another source: a partition, a logical volume's segment, a member of an archive.
#[derive(Clone)]
pub struct Window {
    source: Arc<dyn ReadAt>,
    start: u64,
    length: u64,
}

impl Window {
    /// `length` bytes of `source` from `start`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the range ends past the source.
    pub fn new(source: Arc<dyn ReadAt>, start: u64, length: u64) -> Result<Self> {
        let end = start.checked_add(length);
        if end.is_none_or(|end| end > source.len()) {
            return Err(Error::corrupt(format_args!(
                "range of {length} bytes at {start} ends past the end of its source ({})",
                source.len()
            )));
        }
        Ok(Self {
            source,
            start,
            length,
        })
    }

    /// Offset of the window's first byte in its source.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({}+{})", self.start, self.length)
    }
}

impl ReadAt for Window {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        if end.is_none_or(|end| end > self.length) {
            return Err(past_end(offset, buffer.len(), self.length));
        }
        self.source
            .read_at(self.start.saturating_add(offset), buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let found = self.source.extent_at(self.start.saturating_add(offset));
        Extent {
            offset,
            length: found.length.min(self.length.saturating_sub(offset)),
            kind: found.kind,
        }
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let length = self.length.checked_sub(offset).filter(|left| *left > 0)?;
        Some(Below {
            source: &*self.source,
            offset: self.start.checked_add(offset)?,
            length,
        })
    }
}

/// Growable bytes that keep only the 4 KiB pages ever written with something other than zeros.
#[derive(Debug, Default)]
pub struct SparseBytes {
    inner: RwLock<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    length: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

const PAGE: usize = 4096;
const PAGE64: u64 = 4096;

/// Splits `[offset, offset + length)` at page borders: (page number, start in page, range in buffer).
fn pages_of(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let left = length.checked_sub(done).filter(|left| *left > 0)?;
        let at = offset.checked_add(u64::try_from(done).ok()?)?;
        let within = usize::try_from(at.checked_rem(PAGE64)?).ok()?;
        let take = PAGE.checked_sub(within)?.min(left);
        let range = done..done.checked_add(take)?;
        done = range.end;
        Some((at.checked_div(PAGE64)?, within, range))
    })
}

impl SparseBytes {
    /// `length` zero bytes.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self {
            inner: RwLock::new(Pages {
                length,
                pages: BTreeMap::new(),
            }),
        }
    }

    /// Bytes really held.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        let pages = self.read_lock();
        u64::try_from(pages.pages.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(PAGE64)
    }

    fn read_lock(&self) -> std::sync::RwLockReadGuard<'_, Pages> {
        self.inner
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_lock(&self) -> std::sync::RwLockWriteGuard<'_, Pages> {
        self.inner
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ReadAt for SparseBytes {
    fn len(&self) -> u64 {
        self.read_lock().length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let inner = self.read_lock();
        if offset
            .checked_add(len64(buffer))
            .is_none_or(|end| end > inner.length)
        {
            return Err(past_end(offset, buffer.len(), inner.length));
        }
        for (page, within, range) in pages_of(offset, buffer.len()) {
            let length = range.len();
            let Some(target) = buffer.get_mut(range) else {
                continue;
            };
            match inner
                .pages
                .get(&page)
                .and_then(|bytes| crate::slice_at(bytes, within, length))
            {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let inner = self.read_lock();
        let mut page = offset / PAGE64;
        let left = inner.length.saturating_sub(offset);
        if inner.pages.contains_key(&page) {
            while inner.pages.contains_key(&page) {
                page = page.saturating_add(1);
            }
            let length = page.saturating_mul(PAGE64).saturating_sub(offset).min(left);
            return Extent {
                offset,
                length,
                kind: ExtentKind::Data,
            };
        }
        let next = inner
            .pages
            .range(page..)
            .next()
            .map_or(inner.length, |(next, _)| next.saturating_mul(PAGE64));
        Extent {
            offset,
            length: next.saturating_sub(offset).min(left),
            kind: ExtentKind::Hole,
        }
    }
}

/// A page of nothing.
static ZEROS: [u8; PAGE] = [0; PAGE];

impl WriteAt for SparseBytes {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset
            .checked_add(len64(bytes))
            .ok_or_else(|| Error::io("write ends past 2^64"))?;
        let mut inner = self.write_lock();
        inner.length = inner.length.max(end);
        for (page, within, range) in pages_of(offset, bytes.len()) {
            let Some(source) = bytes.get(range) else {
                continue;
            };
            // Compared as memory: quick where code is instrumented, too.
            let zero = ZEROS.get(..source.len()) == Some(source);
            if zero && !inner.pages.contains_key(&page) {
                continue;
            }
            let target = inner
                .pages
                .entry(page)
                .or_insert_with(|| vec![0; PAGE].into_boxed_slice());
            if let Some(target) = target.get_mut(within..within.saturating_add(source.len())) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut inner = self.write_lock();
        if length < inner.length {
            drop(inner.pages.split_off(&length.div_ceil(PAGE64)));
            let within = usize::try_from(length % PAGE64).unwrap_or(0);
            if let Some(tail) = inner
                .pages
                .get_mut(&(length / PAGE64))
                .and_then(|page| page.get_mut(within..))
            {
                tail.fill(0);
            }
        }
        inner.length = length;
        Ok(())
    }
}

/// Reads `length` bytes at `offset` into memory, after checking them against the source and the limits.
///
/// # Errors
/// [`Error::Corrupt`] when the range ends past the source, [`Error::Unsupported`] when it is larger than allowed.
pub fn read_vec(
    source: &(impl ReadAt + ?Sized),
    place: &str,
    offset: u64,
    length: u64,
    limits: &Limits,
) -> Result<Vec<u8>> {
    if offset
        .checked_add(length)
        .is_none_or(|end| end > source.len())
    {
        return Err(Error::corrupt(format_args!(
            "{place} at offset {offset} has {length} bytes and ends past the end ({})",
            source.len()
        )));
    }
    limits.check_table(place, length)?;
    let mut bytes = vec![0; usize::try_from(length).map_err(Error::io)?];
    source.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// Copies every extent that has bytes from `source` to `sink`, and sets the sink's length.
///
/// # Errors
/// Whatever reading or writing finds.
pub fn copy_data(source: &(impl ReadAt + ?Sized), sink: &(impl WriteAt + ?Sized)) -> Result<()> {
    let mut buffer = vec![0u8; 1 << 18];
    sink.set_len(source.len())?;
    for extent in Extents::new(source).filter(|extent| extent.kind.has_bytes()) {
        let mut at = extent.offset;
        let end = extent.offset.saturating_add(extent.length);
        while at < end {
            let take = usize::try_from(end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let Some(chunk) = buffer.get_mut(..take) else {
                break;
            };
            source.read_at(at, chunk)?;
            sink.write_at(at, chunk)?;
            at = at.saturating_add(len64(chunk));
        }
    }
    Ok(())
}
