//! A whole disk: what a descriptor describes, its extents and its parents, as one range of bytes.

use super::descriptor::Descriptor;
use super::esx::Esx;
use super::hosted::Hosted;
use super::text::Text;
use crate::container::{Container, Stored};
use crate::edit::Plan;
use crate::finding::Findings;
use crate::image::Image;
use crate::math::{index, len64};
use drylab_block::{Below, Error, Extent, ExtentKind, ReadAt, Result};
use std::sync::Arc;

/// Where the bytes of an extent are.
pub(super) enum Body {
    /// Nowhere: zeros.
    Zero,
    /// As they are in a file, from this byte on.
    Flat(Arc<dyn ReadAt>, u64),
    /// A hosted sparse extent.
    Hosted(Box<Hosted>),
    /// A sparse extent of ESX.
    Esx(Box<Esx>),
}

/// One extent: `length` bytes of the disk from `start`.
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) length: u64,
    /// Which extent line describes it.
    pub(super) line: usize,
    /// The name by which the resolver knows its file; empty for the file that was opened.
    pub(super) key: String,
    pub(super) body: Body,
}

/// The disk that holds what a snapshot does not.
pub(super) struct Parent {
    pub(super) key: String,
    pub(super) image: Image,
}

/// An open VMDK.
pub(crate) struct Vmdk {
    pub(super) file: Arc<dyn ReadAt>,
    pub(super) text: Text,
    pub(super) descriptor: Descriptor,
    pub(super) size: u64,
    /// In ascending order, without gaps. Empty ones hold no byte, but are checked and mended like the others.
    pub(super) parts: Vec<Part>,
    pub(super) parent: Option<Parent>,
    /// Bytes of the directories of all extents.
    pub(super) table_bytes: u64,
    pub(super) subformat: String,
    pub(super) details: Vec<(String, String)>,
    pub(super) findings: Findings,
}

impl Vmdk {
    /// The part that holds byte `offset` of the disk.
    fn part(&self, offset: u64) -> Option<&Part> {
        let behind = self.parts.partition_point(|part| part.start <= offset);
        let part = self.parts.get(behind.checked_sub(1)?)?;
        (offset < part.start.saturating_add(part.length)).then_some(part)
    }

    /// Bytes that the parent has, zeros behind its end.
    fn read_parent(&self, parent: &Parent, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let inside = parent.image.virtual_size().saturating_sub(offset);
        let inside = index(inside.min(len64(buffer)));
        let (head, tail) = buffer.split_at_mut_checked(inside).unwrap_or_default();
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        parent.image.read_at(offset, head)
    }
}

impl Part {
    fn read(&self, within: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.body {
            Body::Zero => {
                buffer.fill(0);
                Ok(())
            }
            Body::Flat(file, from) => file.read_at(from.saturating_add(within), buffer),
            Body::Hosted(hosted) => hosted.read_at(within, buffer),
            Body::Esx(esx) => esx.read_at(within, buffer),
        }
    }

    /// Kind and length of what starts at byte `within` of the extent.
    fn extent(&self, within: u64) -> (ExtentKind, u64) {
        let left = self.length.saturating_sub(within);
        let found = match &self.body {
            Body::Zero => return (ExtentKind::Zero, left),
            Body::Flat(file, from) => {
                let at = from.saturating_add(within);
                if at >= file.len() {
                    // What the file lost: reading it says so.
                    return (ExtentKind::Data, left);
                }
                file.extent_at(at)
            }
            Body::Hosted(hosted) => hosted.extent_at(within),
            Body::Esx(esx) => esx.extent_at(within),
        };
        (found.kind, found.length.min(left))
    }

    /// The range of a file that the bytes from `within` of the extent on are.
    fn below(&self, within: u64) -> Option<Below<'_>> {
        let left = self.length.checked_sub(within).filter(|left| *left > 0)?;
        let below = match &self.body {
            Body::Zero => return None,
            Body::Flat(file, from) => {
                let offset = from.checked_add(within)?;
                Below {
                    source: &**file,
                    offset,
                    length: file.len().checked_sub(offset).filter(|left| *left > 0)?,
                }
            }
            Body::Hosted(hosted) => hosted.below(within)?,
            Body::Esx(esx) => esx.below(within)?,
        };
        Some(Below {
            length: below.length.min(left),
            ..below
        })
    }

    /// Whether holes of the extent show the parent.
    fn is_sparse(&self) -> bool {
        matches!(self.body, Body::Hosted(_) | Body::Esx(_))
    }

    /// Where the byte at `within` of the extent stands in its file.
    fn stored_at(&self, within: u64) -> Option<u64> {
        match &self.body {
            Body::Zero => None,
            Body::Flat(_, from) => from.checked_add(within),
            Body::Hosted(hosted) => hosted.stored_at(within),
            Body::Esx(esx) => esx.stored_at(within),
        }
    }
}

impl Container for Vmdk {
    fn subformat(&self) -> String {
        self.subformat.clone()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }

    fn check(&self, found: &mut Findings) -> Result<()> {
        for part in &self.parts {
            let mut own = Findings::default();
            match &part.body {
                Body::Zero | Body::Flat(..) => {}
                Body::Hosted(hosted) => hosted.check(&mut own)?,
                Body::Esx(esx) => esx.check(&mut own)?,
            }
            found.extend(&part.key, &own);
        }
        if let Some(parent) = &self.parent {
            let mut own = Findings::default();
            parent.image.container().check(&mut own)?;
            found.extend(&parent.key, &own);
        }
        Ok(())
    }

    fn repair(&self) -> Result<Plan> {
        self.plan_repair()
    }

    fn resize(&self, size: u64) -> Result<Plan> {
        if self.parent.is_some() {
            return Err(Error::unsupported(
                "a VMDK snapshot is not resized: its parent keeps the size; convert it to one file first",
            ));
        }
        self.plan_resize(size)
    }

    fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        let extent = self.extent_at(offset);
        let Some(part) = self
            .part(offset)
            .filter(|_| extent.kind == ExtentKind::Data)
        else {
            return (extent, None);
        };
        let within = offset.saturating_sub(part.start);
        if let (Some(parent), (ExtentKind::Hole, _)) = (&self.parent, part.extent(within))
            && part.is_sparse()
        {
            let (_, stored) = parent.image.piece_at(offset);
            let stored = stored.map(|mut stored| {
                if stored.file.is_empty() {
                    parent.key.clone_into(&mut stored.file);
                }
                stored
            });
            return (extent, stored);
        }
        let stored = part.stored_at(within).map(|offset| Stored {
            file: part.key.clone(),
            offset,
        });
        (extent, stored)
    }
}

impl ReadAt for Vmdk {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = len64(buffer);
        if offset.checked_add(wanted).is_none_or(|end| end > self.size) {
            return Err(Error::io(format_args!(
                "read of {wanted} bytes at offset {offset} ends past the end ({})",
                self.size
            )));
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let none = || Error::io(format_args!("no extent holds offset {at}"));
            let part = self.part(at).ok_or_else(none)?;
            let within = at.saturating_sub(part.start);
            let mut take = part.length.saturating_sub(within).min(len64(rest));
            let parent = self.parent.as_ref().filter(|_| part.is_sparse());
            let below = parent.filter(|_| {
                let (kind, length) = part.extent(within);
                take = take.min(length);
                kind == ExtentKind::Hole
            });
            let (now, later) = rest
                .split_at_mut_checked(index(take))
                .filter(|_| take > 0)
                .ok_or_else(none)?;
            match below {
                Some(parent) => self.read_parent(parent, at, now)?,
                None => part.read(within, now)?,
            }
            at = at.saturating_add(take);
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let Some(part) = self.part(offset) else {
            return Extent {
                offset,
                length: self.size.saturating_sub(offset),
                kind: ExtentKind::Hole,
            };
        };
        let (kind, length) = part.extent(offset.saturating_sub(part.start));
        let own = Extent {
            offset,
            length,
            kind,
        };
        match &self.parent {
            Some(parent) if kind == ExtentKind::Hole && part.is_sparse() => {
                if offset >= parent.image.virtual_size() {
                    return own;
                }
                let found = parent.image.extent_at(offset);
                Extent {
                    offset,
                    length: found.length.min(length),
                    kind: found.kind,
                }
            }
            _ => own,
        }
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let part = self.part(offset)?;
        let within = offset.saturating_sub(part.start);
        let parent = self.parent.as_ref().filter(|_| part.is_sparse());
        let Some(parent) = parent else {
            return part.below(within);
        };
        let (kind, length) = part.extent(within);
        if kind != ExtentKind::Hole {
            return part.below(within);
        }
        if offset >= parent.image.virtual_size() {
            return None;
        }
        let below = parent.image.below(offset)?;
        Some(Below {
            length: below.length.min(length),
            ..below
        })
    }
}
