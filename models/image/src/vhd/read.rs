//! Reading fixed, dynamic and differencing disks.

use super::blocks::{Blocks, Reading};
use super::footer::{Footer, Kind, Located, locate};
use super::{DISK_BYTES_MAX, VhdFit, VhdSize, check, repair, resize, rules, sizes_are_told_apart};
use crate::container::{Container, Opener, Stored};
use crate::edit::Plan;
use crate::finding::Findings;
use crate::layer;
use crate::math::{index, len64};
use drylab_block::{Below, Error, Extent, ExtentKind, ReadAt, Result};
use std::sync::Arc;

/// An open VHD.
pub(crate) struct Vhd {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) located: Located,
    pub(super) body: Body,
    findings: Findings,
    details: Vec<(String, String)>,
}

pub(super) enum Body {
    Fixed(Fixed),
    Blocks(Box<Blocks>),
}

/// The bytes of a fixed disk.
pub(super) struct Fixed {
    source: Arc<dyn ReadAt>,
    pub(super) size: u64,
    /// Bytes in front of the footer.
    pub(super) stored: u64,
}

impl Vhd {
    /// Reads footer, header and BAT; `believes` decides which size the disk has, and its parent.
    pub(crate) fn open(
        source: Arc<dyn ReadAt>,
        believes: VhdSize,
        opener: &Opener<'_>,
    ) -> Result<Self> {
        Self::opened(source, (believes, Reading::WithParent), opener)
    }

    /// [`open`](Self::open), as a program does that takes a differencing disk for a dynamic one.
    pub(crate) fn open_alone(
        source: Arc<dyn ReadAt>,
        believes: VhdSize,
        opener: &Opener<'_>,
    ) -> Result<Self> {
        Self::opened(source, (believes, Reading::Alone), opener)
    }

    fn opened(
        source: Arc<dyn ReadAt>,
        (believes, reading): (VhdSize, Reading),
        opener: &Opener<'_>,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let located = locate(&*source, &mut findings)?;
        let size = believes.bytes(&located.footer);
        opener.limits.check_disk("VHD", size)?;
        if size > DISK_BYTES_MAX {
            return Err(Error::unsupported(format_args!(
                "VHD of {size} bytes, more than the {DISK_BYTES_MAX} of the format"
            )));
        }
        let mut details = located.footer.details();
        let body = if located.footer.kind == Kind::Fixed {
            let fixed = Fixed {
                source: source.clone(),
                size,
                stored: located.place,
            };
            fixed.look(&located, &mut findings);
            Body::Fixed(fixed)
        } else {
            let file = source.clone();
            let blocks = Blocks::open(file, &located, (believes, reading), opener, &mut findings)?;
            details.push(("blockSize".to_owned(), blocks.header.block.to_string()));
            details.push((
                "maxTableEntries".to_owned(),
                blocks.header.entries.to_string(),
            ));
            if let Some(parent) = blocks.below() {
                details.push(("parent".to_owned(), parent.key.clone()));
                details.push(("parentName".to_owned(), blocks.header.parent_name()));
            }
            Body::Blocks(Box::new(blocks))
        };
        note_sizes(&located, size, &mut findings);
        Ok(Self {
            source,
            located,
            body,
            findings,
            details,
        })
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.located.footer
    }
}

impl Container for Vhd {
    fn subformat(&self) -> String {
        self.footer().kind.name().to_owned()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        match &self.body {
            Body::Fixed(_) => Ok(()),
            Body::Blocks(blocks) => match blocks.below() {
                Some(parent) => parent.check(found),
                None => check::bitmaps(blocks, found),
            },
        }
    }

    fn repair(&self) -> Result<Plan> {
        repair::plan(self)
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        resize::plan(self, size, VhdFit::of(self.footer()))
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        match &self.body {
            Body::Fixed(fixed) => fixed.piece_at(offset),
            Body::Blocks(blocks) => layer::stored(&**blocks, offset),
        }
    }
}

impl ReadAt for Vhd {
    fn len(&self) -> u64 {
        match &self.body {
            Body::Fixed(fixed) => fixed.size,
            Body::Blocks(blocks) => blocks.size,
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.body {
            Body::Fixed(fixed) => fixed.read_at(offset, buffer),
            Body::Blocks(blocks) => layer::read(&**blocks, offset, buffer),
        }
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.piece_at(offset).0
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        layer::below(&*self.source, self.piece_at(offset))
    }
}

impl Fixed {
    fn look(&self, located: &Located, findings: &mut Findings) {
        let place = located.place;
        let at = (place.saturating_add(0x30), 8);
        let path = "footer, current size";
        if self.size > place {
            let expected = format!("no more than the {place} bytes in front of the footer");
            findings.add(&rules::FIXED_CUT, at, path, self.size, expected);
        }
        let current = located.footer.current_size;
        if current != place {
            let expected = format!("the {place} bytes in front of the footer");
            findings.add(&rules::FIXED_LENGTH, at, path, current, expected);
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        let wanted = buffer.len();
        if end.is_none_or(|end| end > self.size) {
            return Err(Error::io(format_args!(
                "read of {wanted} bytes at offset {offset} ends past the end ({})",
                self.size
            )));
        }
        if end.is_none_or(|end| end > self.stored) {
            return Err(Error::corrupt(format_args!(
                "read of {wanted} bytes at offset {offset} of a fixed VHD of {} bytes, but only {} stand in front of its footer",
                self.size, self.stored
            )));
        }
        self.source.read_at(offset, buffer)
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        let left = self.size.saturating_sub(offset);
        if offset >= self.stored {
            let kind = ExtentKind::Data;
            return (
                Extent {
                    offset,
                    length: left,
                    kind,
                },
                None,
            );
        }
        let found = self.source.extent_at(offset);
        let inside = self.stored.saturating_sub(offset).min(left);
        let extent = Extent {
            offset,
            length: found.length.min(inside),
            kind: found.kind,
        };
        let stored = Stored {
            file: String::new(),
            offset,
        };
        (extent, Some(stored))
    }
}

fn note_sizes(located: &Located, size: u64, findings: &mut Findings) {
    let (footer, place) = (&located.footer, located.place);
    let (current, geometry) = (footer.current_size, footer.geometry.bytes());
    let told_apart = sizes_are_told_apart(footer.creator, footer.geometry);
    if current != geometry && !told_apart {
        let found = format!("{current} ({size} was taken)");
        let expected = format!("the {geometry} bytes of the geometry {}", footer.geometry);
        let at = (place.saturating_add(0x30), 12);
        findings.add(
            &rules::TWO_SIZES,
            at,
            "footer, current size",
            found,
            expected,
        );
    }
    if footer.saved_state {
        let at = (place.saturating_add(0x54), 1);
        findings.add(&rules::SAVED_STATE, at, "footer, saved state", 1, 0);
    }
}

/// A buffer for so many bytes, no more than a piece.
pub(super) fn buffer(length: u64) -> Vec<u8> {
    vec![0; index(length.min(1 << 16))]
}
