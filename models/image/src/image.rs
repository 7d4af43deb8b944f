//! One open image of any format.

use crate::detect::{Detected, Format, detect};
use crate::math::len64;
use crate::qcow2::Qcow2;
use crate::vhd::{Vhd, VhdSize};
use crate::vmdk::{self, Flat, Vmdk};
use drylab_block::{
    DenyAll, Error, Extent, Finding, Limits, ReadAt, Resolver, Result, Severity, read_vec,
};
use std::sync::Arc;

/// A disk inside a container: its [`ReadAt`] is what a guest would see.
///
/// Metadata and unpacked data used last are cached; many threads may read one image.
pub struct Image {
    content: Content,
    detected: Detected,
}

enum Content {
    Raw(Arc<dyn ReadAt>),
    Vmdk(Vmdk),
    Flat(Flat),
    Qcow2(Qcow2),
    Vhd(Vhd),
}

/// What is known of an image from opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The format.
    pub format: Format,
    /// `createType` of a VMDK, `v2` or `v3` of a qcow2, `fixed` or `dynamic` of a VHD, empty for raw.
    pub subformat: String,
    /// Guest-visible bytes.
    pub virtual_size: u64,
    /// Header fields and descriptor lines in the format's own words, in file order: `ddb.adapterType`, `lsilogic`.
    pub details: Vec<(String, String)>,
    /// What was noticed and does not hinder reading.
    pub findings: Vec<Finding>,
}

impl Info {
    /// The first detail of that name, compared without case.
    #[must_use]
    pub fn detail(&self, key: &str) -> Option<&str> {
        self.details
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }
}

/// Opens whatever disk image `source` holds, told by its content; no other file.
///
/// Cheap: it reads headers, an embedded descriptor and the first-level table, whose size is bounded by `limits` and by
/// the length of the source. A VHD has the size that [`VhdSize::ByCreator`] takes.
///
/// # Errors
/// [`Error::Unsupported`] for formats and features that are known and not read, among them every reference to another
/// file; [`Error::Corrupt`] when the header contradicts itself or the file's length.
pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Image> {
    open_with(source, &DenyAll, limits)
}

/// [`open`], with the extents of a flat VMDK opened through `resolver`. It is asked for each name once, and only for
/// names of files beside the descriptor: without folders, drives and ways up.
///
/// # Errors
/// As [`open`], and what the resolver answers.
pub fn open_with(
    source: Arc<dyn ReadAt>,
    resolver: &dyn Resolver,
    limits: &Limits,
) -> Result<Image> {
    let mut detected = detect(&*source)?;
    let content = match detected.format {
        Format::Raw if source.len() > limits.disk_bytes_max => {
            let (length, most) = (source.len(), limits.disk_bytes_max);
            return Err(Error::unsupported(format_args!(
                "raw image of {length} bytes, more than the {most} allowed"
            )));
        }
        Format::Raw => Content::Raw(source),
        Format::Vmdk if !starts_with(&*source, vmdk::MAGIC)? => {
            let flat = Flat::open(&*source, resolver, limits)?;
            flat.subformat().clone_into(&mut detected.subformat);
            Content::Flat(flat)
        }
        Format::Vmdk => {
            let vmdk = Vmdk::open(source, limits)?;
            vmdk.subformat().clone_into(&mut detected.subformat);
            Content::Vmdk(vmdk)
        }
        Format::Qcow2 => {
            let qcow2 = Qcow2::open(source, limits)?;
            detected.subformat = qcow2.subformat();
            Content::Qcow2(qcow2)
        }
        Format::Vhd => Content::Vhd(Vhd::open(source, VhdSize::default(), limits)?),
    };
    Ok(Image { content, detected })
}

/// Opens a VHD as a program sees it that `believes` one of its two sizes. What `source` is is not asked: as with
/// `qemu-img -f vpc`, the first bytes of a fixed disk may look like anything.
///
/// # Errors
/// As [`open`]; [`Error::Corrupt`] also when the file is no VHD, or lacks the bytes or blocks for the size believed.
pub fn open_vhd(source: Arc<dyn ReadAt>, believes: VhdSize, limits: &Limits) -> Result<Image> {
    let vhd = Vhd::open(source, believes, limits)?;
    let detected = Detected {
        format: Format::Vhd,
        subformat: vhd.subformat().to_owned(),
    };
    let content = Content::Vhd(vhd);
    Ok(Image { content, detected })
}

/// Whether the first bytes of a file are these. A VMDK that does not start as a sparse extent is a descriptor.
fn starts_with(source: &dyn ReadAt, magic: &[u8]) -> Result<bool> {
    let length = source.len().min(len64(magic));
    Ok(read_vec(source, "head of the file", 0, length, &Limits::DEFAULT)? == magic)
}

impl Image {
    fn disk(&self) -> &dyn ReadAt {
        match &self.content {
            Content::Raw(source) => source,
            Content::Vmdk(vmdk) => vmdk,
            Content::Flat(flat) => flat,
            Content::Qcow2(qcow2) => qcow2,
            Content::Vhd(vhd) => vhd,
        }
    }

    /// The format found.
    #[must_use]
    pub fn format(&self) -> Format {
        self.detected.format
    }

    /// `createType` of a VMDK, `v2` or `v3` of a qcow2, `fixed` or `dynamic` of a VHD, empty for raw.
    #[must_use]
    pub fn subformat(&self) -> &str {
        &self.detected.subformat
    }

    /// Guest-visible bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.disk().len()
    }

    /// Everything known from opening.
    #[must_use]
    pub fn info(&self) -> Info {
        let (details, findings) = match &self.content {
            Content::Raw(source) => (Vec::new(), raw_findings(source.len())),
            Content::Vmdk(vmdk) => (vmdk.details(), vmdk.findings().to_vec()),
            Content::Flat(flat) => (flat.details(), flat.findings().to_vec()),
            Content::Qcow2(qcow2) => (qcow2.details(), qcow2.findings().to_vec()),
            Content::Vhd(vhd) => (vhd.details(), vhd.findings().to_vec()),
        };
        Info {
            format: self.format(),
            subformat: self.subformat().to_owned(),
            virtual_size: self.virtual_size(),
            details,
            findings,
        }
    }
}

fn raw_findings(length: u64) -> Vec<Finding> {
    if length.is_multiple_of(512) {
        return Vec::new();
    }
    vec![Finding {
        code: "RAW-PARTIAL-SECTOR",
        severity: Severity::Warning,
        offset: length.saturating_sub(length % 512),
        message: format!(
            "the length {length} is no multiple of 512: some programs cut off the last {}",
            length % 512
        ),
    }]
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Image({} {}, {} bytes)",
            self.format(),
            self.subformat(),
            self.virtual_size()
        )
    }
}

impl ReadAt for Image {
    fn len(&self) -> u64 {
        self.virtual_size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.disk().read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.disk().extent_at(offset)
    }
}
