//! Second files: the backing file, and the external data file.

use super::header::Header;
use crate::container::{Container, Opener, Stored};
use crate::finding::Findings;
use crate::image::{Image, opened};
use crate::math::{index, len64};
use crate::vhd::VhdSize;
use drylab_block::{Below, DenyAll, Error, Extent, ExtentKind, ReadAt, Result};
use std::sync::Arc;

/// The disk whose bytes show where an image says nothing.
pub(crate) struct Backing {
    image: Image,
    key: String,
}

/// The file that holds the clusters of an image with an external data file.
pub(super) struct DataFile {
    pub(super) bytes: Arc<dyn ReadAt>,
    pub(super) key: String,
}

/// How a backing file's format is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared<'a> {
    /// By the name that the image gives.
    As(&'a str),
    /// By content, as nothing is said of it.
    Unknown,
}

impl Backing {
    /// Opens the backing file called `name`.
    ///
    /// A file whose format is declared raw is raw whatever its bytes look like; another declared format must be the one
    /// that its bytes show. Where nothing is declared the bytes decide, and the file found must not name a further one:
    /// it may be a raw disk whose guest wrote an image's header there to be given a file of the host (the way of
    /// CVE-2008-2004 and its successors).
    pub(crate) fn open(name: &str, declared: Declared<'_>, opener: &Opener<'_>) -> Result<Self> {
        let second = opener.below("backing file", name)?;
        let within = |error: Error| error.within(format_args!("backing file {name:?}"));
        let raw = matches!(declared, Declared::As(format) if is_raw(format));
        let image = if raw {
            Image::raw(second.bytes, opener.limits)
        } else if declared == Declared::Unknown {
            let alone = Opener::new(&DenyAll, opener.limits);
            opened(second.bytes, VhdSize::ByCreator, &alone)
        } else {
            opened(second.bytes, VhdSize::ByCreator, &second.opener)
        };
        let image = image.map_err(within)?;
        if let Declared::As(format) = declared
            && !raw
            && !is_called(&image, format)
        {
            return Err(within(Error::corrupt(format_args!(
                "declared to be {format:?}, and it is {}",
                image.format()
            ))));
        }
        Ok(Self {
            image,
            key: second.key,
        })
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Adds what `check` finds in it; what opening it noticed is there already.
    pub(crate) fn check(
        &self,
        check: impl FnOnce(&dyn Container, &mut Findings) -> Result<()>,
        found: &mut Findings,
    ) -> Result<()> {
        let mut all = Findings::default();
        check(self.image.container(), &mut all)?;
        found.extend(&self.key, &all);
        Ok(())
    }

    /// Reads with zeros behind the end.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let left = self.image.len().saturating_sub(offset);
        let inside = index(left.min(len64(buffer)));
        let (head, tail) = buffer
            .split_at_mut_checked(inside)
            .ok_or_else(|| Error::io("read past the end of the backing file"))?;
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        self.image.read_at(offset, head)
    }

    /// The source of which a range of the backing file is a range, for at most `length` bytes.
    pub(crate) fn below(&self, offset: u64, length: u64) -> Option<Below<'_>> {
        if offset >= self.image.len() {
            return None;
        }
        let below = self.image.below(offset)?;
        Some(Below {
            length: length.min(below.length),
            ..below
        })
    }

    /// What is known of a range that shows through, and where it stands.
    pub(crate) fn piece(&self, offset: u64, length: u64) -> (Extent, Option<Stored>) {
        let hole = Extent {
            offset,
            length,
            kind: ExtentKind::Hole,
        };
        if offset >= self.image.len() {
            return (hole, None);
        }
        let (extent, stored) = self.image.piece_at(offset);
        let length = length.min(extent.length);
        let stored = stored.map(|stored| Stored {
            file: if stored.file.is_empty() {
                self.key.clone()
            } else {
                stored.file
            },
            ..stored
        });
        (Extent { length, ..extent }, stored)
    }
}

/// The words for raw files that programs write into images.
fn is_raw(format: &str) -> bool {
    ["raw", "file", "host_device"].contains(&format)
}

/// Whether an image is what QEMU calls so.
fn is_called(image: &Image, format: &str) -> bool {
    let ours = image.format().name();
    ours == format || (ours == "vhd" && format == "vpc")
}

impl DataFile {
    /// Opens what the image names as its data file.
    pub(super) fn open(header: &Header, opener: &Opener<'_>) -> Result<Self> {
        let name = header.extensions.data_file.as_deref().unwrap_or_default();
        let second = opener.second("external data file", name)?;
        Ok(Self {
            bytes: second.bytes,
            key: second.key,
        })
    }
}
