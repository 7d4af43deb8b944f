//! qemu-img 10: `info`, `convert`.
//!
//! Source: what qemu-img 10.0.2 was seen to do (the tests run it where it is there). Reads raw, VMDK (sparse, stream,
//! flat), qcow2 and VHD (fixed with `-f vpc` only; differencing without the parent) with the readers of `drylab-image`; writes raw, VMDK, VHD and qcow2.
//! Not modelled: VHDX, VDI, QED, Parallels, qcow, COWD and others that it reads, backing files, other subformats. Such a
//! file is refused with a message of ours, never taken for raw.

use crate::ToolError;
use crate::math::SECTOR;
use crate::qemu_img::write_vmdk::{self, Style};
use drylab_block::{Extent, ExtentKind, Limits, ReadAt, SparseBytes, le_u32, read_vec, slice_at};
use drylab_catalog::Witness;
use drylab_image::vhd;
use drylab_image::{Detected, Qcow2Options, Target, VhdOptions, VhdSize};
use std::sync::Arc;

pub use crate::qemu_img::{Converted, Info, Input};

/// Formats that can be written, with their options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Bytes of the disk.
    Raw,
    /// VMDK monolithicSparse, the default.
    Vmdk,
    /// VMDK with `-o subformat=streamOptimized`.
    VmdkStream,
    /// VHD.
    Vpc {
        /// `-o subformat=fixed`; dynamic otherwise.
        fixed: bool,
        /// `-o force_size=on`: the size is kept and the geometry stands at its maximum.
        force_size: bool,
    },
    /// qcow2 version 3.
    Qcow2,
}

impl Format {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vmdk | Self::VmdkStream => "vmdk",
            Self::Vpc { .. } => "vpc",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// `qemu-img convert [-f declared] -O output`.
///
/// # Errors
/// [`ToolError`] when the input cannot be opened, or is of a format that is not modelled.
pub fn convert(
    input: &Arc<dyn ReadAt>,
    declared: Option<&str>,
    output: Format,
) -> Result<Converted, ToolError> {
    convert_named(&Input::alone(input, declared), "disk", output)
}

/// `qemu-img convert` with names of input and output, and the files beside it.
///
/// # Errors
/// As [`convert`].
pub fn convert_named(
    input: &Input<'_>,
    output_name: &str,
    output: Format,
) -> Result<Converted, ToolError> {
    let Opened {
        disk, mut notes, ..
    } = open(input)?;
    let sink = SparseBytes::default();
    let file: Arc<dyn ReadAt> = match output {
        Format::Raw => disk,
        Format::Vmdk | Format::VmdkStream => {
            notes.push(Witness::quirk("DQ517"));
            let style = if output == Format::Vmdk {
                Style::Sparse
            } else {
                notes.push(Witness::quirk("DQ518"));
                Style::Stream
            };
            write_vmdk::write(&*disk, output_name, style, &sink)?;
            Arc::new(sink)
        }
        Format::Vpc { fixed, force_size } => {
            let options = VhdOptions::qemu(force_size);
            let target = if fixed {
                Target::VhdFixed(options)
            } else {
                Target::VhdDynamic(options)
            };
            drylab_image::write(&*disk, &target, &sink)?;
            notes.extend(vhd_notes(&sink, disk.len(), fixed)?);
            Arc::new(sink)
        }
        Format::Qcow2 => {
            drylab_image::write(&*disk, &Target::Qcow2(Qcow2Options::default()), &sink)?;
            Arc::new(sink)
        }
    };
    Ok(Converted {
        file,
        notes,
        exit: 0,
        message: String::new(),
    })
}

/// What is to be known of a VHD that was written of `size` bytes.
fn vhd_notes(file: &dyn ReadAt, size: u64, fixed: bool) -> Result<Vec<Witness>, ToolError> {
    const BLOCK: u64 = 2 << 20;
    let (footer, _) = vhd::footer(file)?;
    let written = VhdSize::ByCreator.bytes(&footer);
    let mut notes = Vec::new();
    if written != size {
        notes.push(Witness::disk(
            "VHD geometry",
            format!("{size} bytes become {written}"),
        ));
        notes.push(Witness::quirk("GQ121"));
        if !fixed && written.div_ceil(BLOCK) > size.div_ceil(BLOCK) {
            notes.push(Witness::quirk("GQ123"));
        }
    }
    if footer.geometry == vhd::Geometry::MAX {
        notes.push(Witness::quirk("DQ519"));
    }
    Ok(notes)
}

/// `qemu-img info [-f declared]`.
///
/// # Errors
/// As [`convert`].
pub fn info(input: &Arc<dyn ReadAt>, declared: Option<&str>) -> Result<Info, ToolError> {
    let opened = open(&Input::alone(input, declared))?;
    Ok(Info {
        format: opened.format.to_owned(),
        virtual_size: opened.disk.len(),
        ..Info::default()
    })
}

/// An opened input.
struct Opened {
    disk: Arc<dyn ReadAt>,
    format: &'static str,
    notes: Vec<Witness>,
}

fn open(input: &Input<'_>) -> Result<Opened, ToolError> {
    let could_not =
        |why: &str| ToolError::new(format!("qemu-img: Could not open '{}': {why}", input.name));
    let Some(file) = input.file else {
        return Err(could_not("No such file or directory"));
    };
    let head = head(file)?;
    match input.declared {
        None => probed(input, file, &head),
        Some("raw") => Ok(raw(file, Vec::new())),
        Some("vpc") => vpc(input, file),
        Some("vmdk") => {
            let own = [&b"KDMV"[..], b"# Disk DescriptorFile"];
            if own.iter().any(|magic| head.starts_with(magic)) {
                image(input, file, "vmdk")
            } else if head.starts_with(b"COWD") {
                Err(not_modelled(input, "VMDK COWD"))
            } else {
                Err(could_not("Image not in VMDK format"))
            }
        }
        Some("qcow2") if head.starts_with(b"QFI\xfb") => image(input, file, "qcow2"),
        Some("qcow2") => Err(could_not("Image is not in qcow2 format")),
        Some(
            name @ ("vhdx" | "vdi" | "qed" | "parallels" | "qcow" | "dmg" | "cloop" | "bochs"),
        ) => Err(not_modelled(input, name)),
        Some(name) => Err(could_not(&format!("Unknown driver '{name}'"))),
    }
}

fn head(file: &Arc<dyn ReadAt>) -> Result<Vec<u8>, ToolError> {
    let most = file.len().min(512);
    Ok(read_vec(
        file,
        "head of the file",
        0,
        most,
        &Limits::DEFAULT,
    )?)
}

/// The tool reads it, this model does not.
fn not_modelled(input: &Input<'_>, format: &str) -> ToolError {
    let says = format!("format {format} is not part of this model of qemu-img 10");
    ToolError::new(format!("'{}': {says}", input.name)).because(Witness::disk(input.name, says))
}

/// Formats that the tool finds by the first bytes and this model does not read.
fn other(head: &[u8]) -> Option<&'static str> {
    let heads: [(&[u8], &str); 5] = [
        (b"COWD", "VMDK COWD"),
        (b"vhdxfile", "VHDX"),
        (b"QED\0", "QED"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"WithouFreSpacExt", "Parallels"),
    ];
    let found = heads.iter().find(|(magic, _)| head.starts_with(magic));
    let version = head.starts_with(b"QFI\xfb") && slice_at(head, 4, 4) == Some(&[0, 0, 0, 1]);
    match found {
        Some((_, name)) => Some(name),
        None if version => Some("qcow"),
        None if le_u32(head, 0x40) == Some(0xbeda_107f) => Some("VDI"),
        None => None,
    }
}

/// By the first bytes; what nobody knows is raw.
fn probed(input: &Input<'_>, file: &Arc<dyn ReadAt>, head: &[u8]) -> Result<Opened, ToolError> {
    if let Some(format) = other(head) {
        return Err(not_modelled(input, format));
    }
    if head.starts_with(b"conectix") {
        return vpc(input, file);
    }
    if head.starts_with(b"KDMV") || head.starts_with(b"# Disk DescriptorFile") {
        return image(input, file, "vmdk");
    }
    if head.starts_with(b"QFI\xfb") {
        return image(input, file, "qcow2");
    }
    let mut notes = Vec::new();
    let fixed = Detected {
        format: drylab_image::Format::Vhd,
        subformat: "fixed".to_owned(),
    };
    if drylab_image::detect(file).is_ok_and(|found| found == fixed) {
        notes.push(Witness::quirk("DQ520"));
    }
    Ok(raw(file, notes))
}

fn raw(file: &Arc<dyn ReadAt>, notes: Vec<Witness>) -> Opened {
    Opened {
        disk: Arc::new(WholeSectors(file.clone())),
        format: "raw",
        notes,
    }
}

fn vpc(input: &Input<'_>, file: &Arc<dyn ReadAt>) -> Result<Opened, ToolError> {
    let is_child = vhd::is_child(file);
    let open = match is_child {
        // Neither the parent nor the sector bitmaps are looked at: what the parent has reads as zeros.
        true => drylab_image::open_vhd_alone,
        false => drylab_image::open_vhd,
    };
    let opened = open(file.clone(), VhdSize::ByCreator, &Limits::DEFAULT);
    let image = opened.map_err(|error| refused(input, &error, "invalid VPC image"))?;
    let mut notes = Vec::new();
    if is_child {
        let says = "disk type 4, differencing: read without its parent";
        notes.push(Witness::disk("VHD footer", says));
        notes.push(Witness::quirk("GQ143"));
    }
    if let Ok((footer, _)) = vhd::footer(file)
        && VhdSize::Current.bytes(&footer) != VhdSize::Geometry.bytes(&footer)
    {
        let says = format!(
            "creator {}: current size {}, geometry {}, read as {}",
            footer.creator,
            VhdSize::Current.bytes(&footer),
            VhdSize::Geometry.bytes(&footer),
            image.len()
        );
        notes.push(Witness::disk("VHD footer", says));
        notes.push(Witness::quirk("GQ122"));
    }
    Ok(Opened {
        disk: Arc::new(image),
        format: "vpc",
        notes,
    })
}

fn image(
    input: &Input<'_>,
    file: &Arc<dyn ReadAt>,
    format: &'static str,
) -> Result<Opened, ToolError> {
    let image = drylab_image::open_with(file.clone(), input.resolver, &Limits::DEFAULT)
        .map_err(|error| refused(input, &error, "Invalid image"))?;
    Ok(Opened {
        disk: Arc::new(image),
        format,
        notes: Vec::new(),
    })
}

fn refused(input: &Input<'_>, error: &drylab_block::Error, says: &str) -> ToolError {
    ToolError::new(format!("qemu-img: Could not open '{}': {says}", input.name))
        .because(Witness::disk(input.name, error.to_string()))
}

/// A raw disk: a part of a sector at its end counts as one, the rest of it zeros.
struct WholeSectors(Arc<dyn ReadAt>);

impl ReadAt for WholeSectors {
    fn len(&self) -> u64 {
        self.0.len().next_multiple_of(SECTOR)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> drylab_block::Result<()> {
        let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        if offset.saturating_add(wanted) > self.len() {
            return Err(drylab_block::Error::io(format_args!(
                "read of {wanted} bytes at offset {offset}, past the end ({})",
                self.len()
            )));
        }
        let there = self.0.len().saturating_sub(offset);
        let there = usize::try_from(there)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (found, missing) = buffer.split_at_mut(there);
        if !found.is_empty() {
            self.0.read_at(offset, found)?;
        }
        missing.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        if offset < self.0.len() {
            let mut extent = self.0.extent_at(offset);
            // The last run reaches to the end of its sector.
            if extent.offset.saturating_add(extent.length) >= self.0.len() {
                extent.length = self.len().saturating_sub(extent.offset);
            }
            return extent;
        }
        Extent {
            offset,
            length: self.len().saturating_sub(offset),
            kind: ExtentKind::Data,
        }
    }
}
