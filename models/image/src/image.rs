//! One open image of any format.

use crate::container::{Container, Damage, Opener, Stored};
use crate::detect::{Detected, Format, detect};
use crate::edit::Plan;
use crate::finding::{Finding, Findings};
use crate::qcow2::Qcow2;
use crate::qed::Qed;
use crate::raw::Raw;
use crate::vdi::Vdi;
use crate::vhd::{self, Vhd, VhdSize};
use crate::vhdx::Vhdx;
use crate::vmdk::Vmdk;
use drylab_block::{Below, DenyAll, Error, Extent, Limits, ReadAt, Resolver, Result, Severity};
use std::sync::Arc;

/// A disk inside a container: its [`ReadAt`] is what a guest would see.
///
/// Metadata and unpacked data used last are cached; many threads may read one image.
pub struct Image {
    container: Box<dyn Container>,
    detected: Detected,
    /// What was noticed of the file beside its format.
    beside: Findings,
}

/// What is known of an image from opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The format.
    pub format: Format,
    /// `createType` of a VMDK, `v2` or `v3` of a qcow2, `fixed`, `dynamic` or `differencing` of a VHD or VDI,
    /// empty for raw.
    pub subformat: String,
    /// Guest-visible bytes.
    pub virtual_size: u64,
    /// Header fields and descriptor lines in the format's own words, in file order: `ddb.adapterType`, `lsilogic`.
    pub details: Vec<(String, String)>,
    /// What was noticed and does not hinder reading.
    pub findings: Findings,
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

/// How an image is opened. [`Options::DEFAULT`] opens no other file, keeps the default limits and notes damage.
#[derive(Clone)]
pub struct Options<'a> {
    /// Opens the files that the image names: extents, parents, backing and data files.
    pub resolver: &'a dyn Resolver,
    /// What the file may cost.
    pub limits: Limits,
    /// Whether a file is refused that breaks rules and can still be read.
    pub damage: Damage,
    /// Which of its two sizes is believed of a VHD.
    pub vhd_size: VhdSize,
    /// Id or name of the internal snapshot of a qcow2 that is opened; the active state otherwise.
    pub snapshot: Option<&'a str>,
}

impl Options<'_> {
    /// No other file, [`Limits::DEFAULT`], [`Damage::Note`], [`VhdSize::ByCreator`], the active state.
    pub const DEFAULT: Self = Self {
        resolver: &DenyAll,
        limits: Limits::DEFAULT,
        damage: Damage::Note,
        vhd_size: VhdSize::ByCreator,
        snapshot: None,
    };
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

/// [`open`], with the files that the image names opened through `resolver`. It is asked for each name once, and only for
/// names of files beside the image: without folders, drives and ways up. The parent of a VDI, which has no name there, is
/// asked for by its UUID.
///
/// # Errors
/// As [`open`], and what the resolver answers.
pub fn open_with(
    source: Arc<dyn ReadAt>,
    resolver: &dyn Resolver,
    limits: &Limits,
) -> Result<Image> {
    let limits = *limits;
    open_as(
        source,
        &Options {
            resolver,
            limits,
            ..Options::DEFAULT
        },
    )
}

/// [`open`] with all options.
///
/// # Errors
/// As [`open`], what the resolver answers, and with [`Damage::Refuse`] the first rule broken whose severity is an error.
pub fn open_as(source: Arc<dyn ReadAt>, options: &Options<'_>) -> Result<Image> {
    let opener = Opener::new(options.resolver, &options.limits);
    let image = match options.snapshot {
        Some(snapshot) => opened_snapshot(source, snapshot, &opener)?,
        None => opened(source, options.vhd_size, &opener)?,
    };
    image.refuse(options.damage)
}

/// Opens an image, the first one or one that another names.
pub(crate) fn opened(
    source: Arc<dyn ReadAt>,
    vhd_size: VhdSize,
    opener: &Opener<'_>,
) -> Result<Image> {
    let limits = opener.limits;
    let mut detected = detect(&*source)?;
    let container: Box<dyn Container> = match detected.format {
        Format::Raw => return Image::raw(source, limits),
        Format::Vmdk => Box::new(Vmdk::open(source.clone(), opener)?),
        Format::Qcow2 => Box::new(Qcow2::open(source.clone(), None, opener)?),
        Format::Qed => Box::new(Qed::open(source.clone(), opener)?),
        Format::Vhd => Box::new(Vhd::open(source.clone(), vhd_size, opener)?),
        Format::Vhdx => Box::new(Vhdx::open(source.clone(), opener)?),
        Format::Vdi => Box::new(Vdi::open(source.clone(), opener)?),
    };
    detected.subformat = container.subformat();
    let mut beside = Findings::default();
    if detected.format != Format::Vhd
        && let Some(place) = vhd::fixed_footer(&*source)
    {
        let found = format!("a fixed VHD's footer at the end of a {}", detected.format);
        let range = (place, 512);
        let rule = &vhd::rules::TWO_READINGS;
        beside.add(rule, range, "end of the file", found, "one format");
    }
    Ok(Image {
        container,
        detected,
        beside,
    })
}

/// Opens an internal snapshot, which only a qcow2 has.
fn opened_snapshot(source: Arc<dyn ReadAt>, snapshot: &str, opener: &Opener<'_>) -> Result<Image> {
    let mut detected = detect(&*source)?;
    if detected.format != Format::Qcow2 {
        return Err(Error::unsupported(format_args!(
            "snapshot {snapshot:?} of a {} image, only qcow2 has snapshots inside",
            detected.format
        )));
    }
    let container = Box::new(Qcow2::open(source, Some(snapshot), opener)?);
    detected.subformat = container.subformat();
    Ok(Image {
        container,
        detected,
        beside: Findings::default(),
    })
}

/// Opens a VHD as a program sees it that `believes` one of its two sizes. What `source` is is not asked: as with
/// `qemu-img -f vpc`, the first bytes of a fixed disk may look like anything.
///
/// # Errors
/// As [`open`]; [`Error::Corrupt`] also when the file is no VHD, or lacks the bytes or blocks for the size believed.
pub fn open_vhd(source: Arc<dyn ReadAt>, believes: VhdSize, limits: &Limits) -> Result<Image> {
    let opener = Opener::new(&DenyAll, limits);
    Ok(Image::of_vhd(Vhd::open(source, believes, &opener)?))
}

/// [`open_vhd`] of a program that takes a differencing disk for a dynamic one: zeros stand where its parent has the data,
/// and a block that exists is read whole, whatever its bitmap says. qemu-img 0.12 and 10 do that and say nothing.
///
/// # Errors
/// As [`open_vhd`].
pub fn open_vhd_alone(
    source: Arc<dyn ReadAt>,
    believes: VhdSize,
    limits: &Limits,
) -> Result<Image> {
    let opener = Opener::new(&DenyAll, limits);
    Ok(Image::of_vhd(Vhd::open_alone(source, believes, &opener)?))
}

impl Image {
    fn of_vhd(vhd: Vhd) -> Self {
        let detected = Detected {
            format: Format::Vhd,
            subformat: vhd.subformat(),
        };
        Self {
            container: Box::new(vhd),
            detected,
            beside: Findings::default(),
        }
    }

    /// The bytes of a file as a disk, whatever they look like: a guest may have written the header of another format into
    /// its raw disk, to be believed by whoever opens it next.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for more bytes than a disk may have.
    pub fn raw(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        limits.check_disk("raw image", source.len())?;
        Ok(Self {
            container: Box::new(Raw::open(source)),
            detected: Detected {
                format: Format::Raw,
                subformat: String::new(),
            },
            beside: Findings::default(),
        })
    }

    /// The format found.
    #[must_use]
    pub fn format(&self) -> Format {
        self.detected.format
    }

    /// `createType` of a VMDK, `v2` or `v3` of a qcow2, `fixed`, `dynamic` or `differencing` of a VHD or VDI,
    /// empty for raw.
    #[must_use]
    pub fn subformat(&self) -> &str {
        &self.detected.subformat
    }

    /// Guest-visible bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.container.len()
    }

    /// Everything known from opening.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            format: self.format(),
            subformat: self.subformat().to_owned(),
            virtual_size: self.virtual_size(),
            details: self.container.details(),
            findings: self.noticed(),
        }
    }

    fn noticed(&self) -> Findings {
        let mut found = self.container.noticed().clone();
        found.extend("", &self.beside);
        found
    }

    /// Looks at the whole structure: every table, every reference, every file of the chain.
    ///
    /// # Errors
    /// What reading the files finds; damage is a finding.
    pub fn check(&self) -> Result<Findings> {
        let mut found = self.noticed();
        self.container.check(&mut found)?;
        Ok(found)
    }

    /// [`check`](Self::check) without unpacking compressed clusters of a qcow2 to see whether they are whole: it reads the
    /// tables and not the data.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_structure(&self) -> Result<Findings> {
        let mut found = self.noticed();
        self.container.check_structure(&mut found)?;
        Ok(found)
    }

    /// What would have to be written to the file to mend what [`check`](Self::check) finds, as far as that can be.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format is not repaired; what reading finds.
    pub fn repair(&self) -> Result<Plan> {
        self.container.repair()
    }

    /// What would have to be written to the file to give the disk `size` bytes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot hold that size or is not resized; what reading finds.
    pub fn resize(&self, size: u64) -> Result<Plan> {
        self.container.resize(size)
    }

    /// The extent at an offset, and where its bytes stand when a file holds them as they are.
    #[must_use]
    pub fn piece_at(&self, offset: u64) -> (Extent, Option<Stored>) {
        self.container.piece_at(offset)
    }

    /// The backing files of the chain, by the names that the resolver has for them, and the formats as which they are read:
    /// one that is declared raw is read raw whatever it looks like.
    #[must_use]
    pub fn backing_files(&self) -> Vec<(String, Format)> {
        let first = self.container().backing();
        let chain = std::iter::successors(first, |(_, image)| image.container().backing());
        chain
            .map(|(key, image)| (key.to_owned(), image.format()))
            .collect()
    }

    /// What the format says of the image beside what all do.
    pub(crate) fn container(&self) -> &dyn Container {
        &*self.container
    }

    fn refuse(self, damage: Damage) -> Result<Self> {
        let noticed = self.container.noticed().list();
        let wrong = |finding: &&Finding| finding.rule.severity == Severity::Error;
        match noticed.iter().find(wrong) {
            Some(finding) if damage == Damage::Refuse => Err(Error::corrupt(format_args!(
                "{} at offset {}: {}",
                finding.rule.code,
                finding.offset,
                finding.message()
            ))),
            _ => Ok(self),
        }
    }
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
        self.container.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.container.extent_at(offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        self.container.below(offset)
    }
}
