//! qemu-img of CentOS 6.3 (qemu-kvm 0.12.1.2-2.295.el6_3.2): `info`, `convert`, `create -f vpc`.
//!
//! Source: what that program did (oracle tables `qemu-img-0.12.tsv`, `qemu-img-0.12-create-vpc.tsv`), and the formats' own
//! documents. Reads raw, VMDK (one sparse extent), dynamic VHD, qcow, qcow2 version 2, QED, VDI, Parallels; anything else
//! is raw to it. Not modelled: cow, bochs, cloop, dmg and vvfat, which it reads too.
//!
//! Messages name files; where the caller gives no name, the file is called `disk`.

mod disk;
mod open;
mod parallels;
mod qcow;
mod qed;
mod vdi;
mod vmdk;
mod vpc;
mod write_qcow2;
mod write_vpc;

use crate::ToolError;
use crate::math::{SECTOR, div, div_up};
use crate::qemu_img::write_vmdk::{self, Style};
use drylab_block::{ReadAt, SparseBytes};
use drylab_catalog::Witness;
use open::{Opened, open};
use std::sync::Arc;
use write_vpc::Geometry;

/// Formats that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Bytes of the disk.
    Raw,
    /// VMDK monolithicSparse.
    Vmdk,
    /// Dynamic VHD.
    Vpc,
    /// qcow2 version 2.
    Qcow2,
}

impl Format {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vpc => "vpc",
            Self::Qcow2 => "qcow2",
        }
    }
}

pub use crate::qemu_img::{Converted, Info, Input};

/// `qemu-img convert [-f declared] -O output`.
///
/// # Errors
/// [`ToolError`] when the tool stops before there is an output file.
pub fn convert(
    input: &Arc<dyn ReadAt>,
    declared: Option<&str>,
    output: Format,
) -> Result<Converted, ToolError> {
    convert_named(&Input::alone(input, declared), "disk", output)
}

/// `qemu-img convert` with names of input and output, and backing files.
///
/// # Errors
/// As [`convert`].
pub fn convert_named(
    input: &Input<'_>,
    output_name: &str,
    output: Format,
) -> Result<Converted, ToolError> {
    let opened = open(input).map_err(|mut error| {
        // The block layer complains first, then the command does.
        error.message = format!(
            "{}\nqemu-img: Could not open '{}'",
            error.message, input.name
        );
        error
    })?;
    let Opened {
        disk,
        driver,
        mut notes,
        said,
        ..
    } = opened;
    notes.extend(output_notes(&*disk, output));
    let mut message = said.join("\n");
    let mut exit = 0;
    let sink = SparseBytes::default();
    let file: Arc<dyn ReadAt> = match output {
        Format::Raw => disk.clone(),
        Format::Vmdk => {
            write_vmdk::write(&*disk, output_name, Style::Early, &sink)?;
            Arc::new(sink)
        }
        Format::Qcow2 => {
            write_qcow2::write(&*disk, &sink)?;
            Arc::new(sink)
        }
        Format::Vpc => {
            let geometry = geometry_of(disk.len())?;
            if let Some(sector) = write_vpc::write(&*disk, geometry, &sink)? {
                exit = 1;
                message =
                    format!("qemu-img: error while writing sector {sector}: Input/output error");
            }
            Arc::new(sink)
        }
    };
    if disk.len() == 0 {
        // The progress of a disk without sectors is a division by zero, after the output was created.
        exit = 136;
        notes.push(Witness::disk(driver.name(), "the disk has no whole sector"));
        notes.push(Witness::quirk("DQ501"));
    }
    Ok(Converted {
        file,
        notes,
        exit,
        message,
    })
}

fn geometry_of(size: u64) -> Result<Geometry, ToolError> {
    Geometry::of(div(size, SECTOR)).ok_or_else(|| {
        ToolError::new("The image size is too large for file format 'vpc'")
            .because(Witness::quirk("GQ114"))
    })
}

fn output_notes(disk: &dyn ReadAt, output: Format) -> Vec<Witness> {
    match output {
        Format::Vmdk => vec![Witness::quirk("GQ117")],
        Format::Vpc => {
            let mut notes = vec![Witness::quirk("GQ107")];
            let written =
                Geometry::of(div(disk.len(), SECTOR)).map(|chs| crate::math::bytes(chs.sectors()));
            if let Some(written) = written.filter(|written| *written != disk.len()) {
                let says = format!("{} bytes become {written}", disk.len());
                notes.push(Witness::disk("VHD geometry", says));
                notes.push(Witness::quirk("GQ108"));
                if write_vpc::blocks(written) > div_up(disk.len(), write_vpc::BLOCK) {
                    notes.push(Witness::quirk("GQ123"));
                }
            }
            notes
        }
        Format::Raw | Format::Qcow2 => Vec::new(),
    }
}

/// `qemu-img info [-f declared]`.
///
/// # Errors
/// [`ToolError`] when no reader opens it.
pub fn info(input: &Arc<dyn ReadAt>, declared: Option<&str>) -> Result<Info, ToolError> {
    info_named(&Input::alone(input, declared))
}

/// `qemu-img info` with a name, and backing files.
///
/// # Errors
/// As [`info`].
pub fn info_named(input: &Input<'_>) -> Result<Info, ToolError> {
    let opened = open(input)?;
    Ok(Info {
        format: opened.driver.name().to_owned(),
        virtual_size: opened.disk.len(),
        cluster_size: opened.cluster_size,
        backing: opened.backing,
        snapshots: opened.snapshots,
        message: opened.said.join("\n"),
    })
}

/// `qemu-img create -f vpc file size`.
///
/// # Errors
/// [`ToolError`] when no geometry holds the size; an empty file stays behind.
pub fn create_vpc(size: u64) -> Result<Converted, ToolError> {
    let geometry = geometry_of(size)?;
    let sink = SparseBytes::default();
    write_vpc::create(geometry, &sink)?;
    let empty = drylab_block::SparseBytes::new(size);
    Ok(Converted {
        file: Arc::new(sink),
        notes: output_notes(&empty, Format::Vpc),
        exit: 0,
        message: String::new(),
    })
}
