//! qemu-img of CentOS 6.3 (qemu-kvm 0.12.1.2-2.295.el6_3.2).

use crate::ToolError;
use drylab_block::{Limits, ReadAt, SparseBytes, Window};
use drylab_catalog::Witness;
use drylab_image::{Target, VmdkOptions};
use std::sync::Arc;

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

/// A file that the tool left behind.
#[derive(Clone)]
pub struct Converted {
    /// The file.
    pub file: Arc<dyn ReadAt>,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// Exit code: with any but 0 the file is what an unfinished run left.
    pub exit: i32,
    /// What it printed.
    pub message: String,
}

/// What `qemu-img info` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Name of the format.
    pub format: String,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
}

/// `qemu-img convert [-f declared] -O output`.
///
/// # Errors
/// [`ToolError`] when the tool stops before there is an output file.
pub fn convert(
    input: &Arc<dyn ReadAt>,
    declared: Option<&str>,
    output: Format,
) -> Result<Converted, ToolError> {
    let disk = open(input, declared)?;
    let target = match output {
        Format::Raw => {
            return Ok(Converted {
                file: disk,
                notes: Vec::new(),
                exit: 0,
                message: String::new(),
            });
        }
        Format::Vmdk => Target::VmdkSparse(VmdkOptions::default()),
        Format::Vpc => return Err(ToolError::new("qemu-img: Unknown file format 'vpc'")),
        Format::Qcow2 => Target::Qcow2(drylab_image::Qcow2Options::default()),
    };
    let sink = SparseBytes::default();
    drylab_image::write(&*disk, &target, &sink)?;
    Ok(Converted {
        file: Arc::new(sink),
        notes: Vec::new(),
        exit: 0,
        message: String::new(),
    })
}

fn open(input: &Arc<dyn ReadAt>, declared: Option<&str>) -> Result<Arc<dyn ReadAt>, ToolError> {
    if declared == Some("raw") {
        let sectors = input.len() / 512;
        return Ok(Arc::new(Window::new(
            input.clone(),
            0,
            sectors.saturating_mul(512),
        )?));
    }
    let image = drylab_image::open(input.clone(), &Limits::DEFAULT)?;
    let sectors = image.virtual_size() / 512;
    let image: Arc<dyn ReadAt> = Arc::new(image);
    Ok(Arc::new(Window::new(image, 0, sectors.saturating_mul(512))?))
}

/// `qemu-img info [-f declared]`.
///
/// # Errors
/// [`ToolError`] when no reader opens it.
pub fn info(input: &Arc<dyn ReadAt>, declared: Option<&str>) -> Result<Info, ToolError> {
    let disk = open(input, declared)?;
    Ok(Info {
        format: declared.unwrap_or("raw").to_owned(),
        virtual_size: disk.len(),
    })
}
