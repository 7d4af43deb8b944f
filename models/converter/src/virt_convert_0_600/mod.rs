//! virt-convert of python-virtinst 0.600.

use crate::ToolError;
use crate::qemu_img_0_12;
use drylab_appliance::Package;
use drylab_catalog::Witness;

/// Formats of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Open Virtualization Format.
    Ovf,
    /// VMware's configuration file.
    Vmx,
}

/// Formats of descriptors written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// virt-image XML.
    #[default]
    VirtImage,
    /// VMware's configuration file.
    Vmx,
}

/// What happens to the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskFormat {
    /// Converted to this format.
    To(qemu_img_0_12::Format),
    /// Left as they are (`-D none`).
    Keep,
}

/// Options of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-i`; the file is asked when absent.
    pub input: Option<Input>,
    /// `-o`.
    pub output: Output,
    /// `-D`; raw for virt-image and vmdk for vmx when absent.
    pub disks: Option<DiskFormat>,
    /// `-a`; x86_64, that of the converting host, when absent.
    pub arch: Option<String>,
    /// `-p`.
    pub paravirt: bool,
    /// Whether the output is written to the folder of the input.
    pub same_folder: bool,
}

/// What the tool wrote.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Descriptor and disks.
    pub package: Package,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
}

/// `virt-convert [options] descriptor output-folder/`.
///
/// # Errors
/// [`ToolError`].
pub fn convert(input: &Package, options: &Options) -> Result<Converted, ToolError> {
    let _ = options;
    input.file(&input.descriptor)?;
    Err(ToolError::new(format!(
        "virt-convert: error: Couldn't determine input format for \"{}\": Unknown format",
        input.descriptor
    )))
}
