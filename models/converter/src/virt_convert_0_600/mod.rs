//! virt-convert of python-virtinst 0.600: OVF or VMX to virt-image or VMX.
//!
//! Source: what the development tree of January 2012 did (oracle table `virt-convert.tsv`), and its behaviour as its
//! documentation and source tell it. Disks go through [`qemu_img_0_12`].

mod disks;
mod machine;
mod output;
mod ovf;
mod vmx;

use crate::ToolError;
use crate::qemu_img_0_12::{self, Format};
use drylab_appliance::Package;
use drylab_block::Limits;
use drylab_catalog::Witness;
use machine::Vm;
use std::sync::Arc;

/// Formats of descriptors that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Open Virtualization Format.
    Ovf,
    /// VMware's configuration file.
    Vmx,
}

/// Formats of descriptors that are written.
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
    /// The output folder as messages name it.
    pub folder: String,
}

impl Options {
    fn disk_format(&self) -> DiskFormat {
        self.disks.unwrap_or(DiskFormat::To(match self.output {
            Output::VirtImage => Format::Raw,
            Output::Vmx => Format::Vmdk,
        }))
    }

    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.folder)
        }
    }
}

/// What the tool wrote.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Descriptor and disks; with [`Options::same_folder`] the files of the input too.
    pub package: Package,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// What it printed.
    pub message: String,
}

/// Why a descriptor was not read: the message, and the rows of knowledge behind it.
#[derive(Debug)]
struct ImportError {
    message: String,
    quirks: Vec<&'static str>,
}

impl ImportError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            quirks: Vec::new(),
        }
    }

    fn because(mut self, quirk: &'static str) -> Self {
        self.quirks.push(quirk);
        self
    }
}

/// `virt-convert [options] descriptor output-folder/`.
///
/// # Errors
/// [`ToolError`]: exit code 2 when the format of the descriptor is not recognised, 1 otherwise.
pub fn convert(input: &Package, options: &Options) -> Result<Converted, ToolError> {
    let name = &input.descriptor;
    let bytes = input.text(name, &Limits::DEFAULT)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = String::from_utf8_lossy(bytes);
    let mut vm = import(input, &text, options)?;
    let mut notes = Vec::new();
    let mut package = if options.same_folder {
        input.clone()
    } else {
        Package::default()
    };
    package.disks.clear();
    let descriptor = output::file_name(&vm, options.output);
    let path = options.path(&descriptor);
    let mib = output::memory(&vm).map_err(|message| {
        ToolError::new(format!(
            "ERROR    Couldn't export to file \"{path}\": {message}"
        ))
    })?;
    disks::convert(&mut vm, input, options, &mut package, &mut notes)?;
    if descriptor.contains('/') {
        return Err(ToolError::new(format!(
            "ERROR    [Errno 2] No such file or directory: '{path}'"
        )));
    }
    let written = match options.output {
        Output::VirtImage => output::virt_image(&mut vm, options, mib)?,
        Output::Vmx => output::vmx(&mut vm, mib)?,
    };
    package.descriptor.clone_from(&descriptor);
    package.put(descriptor, Arc::new(written));
    vm.quirks.sort_unstable();
    vm.quirks.dedup();
    notes.extend(vm.quirks.iter().map(|id| Witness::quirk(id)));
    Ok(Converted {
        package,
        notes,
        message: vm.said.join("\n"),
    })
}

fn import(input: &Package, text: &str, options: &Options) -> Result<Vm, ToolError> {
    let name = &input.descriptor;
    let found = options.input.or_else(|| {
        if ovf::is_ovf(text) {
            Some(Input::Ovf)
        } else {
            vmx::is_vmx(text).then_some(Input::Vmx)
        }
    });
    let Some(found) = found else {
        let says = format!(
            "virt-convert: error: Couldn't determine input format for \"{name}\": Unknown format"
        );
        let mut error = ToolError::new(says);
        error.exit = 2;
        if ovf::is_prefixed(text) {
            error = error.because(Witness::quirk("GQ93"));
        }
        return Err(error.because(Witness::descriptor(name.clone(), "no reader takes it")));
    };
    let vm = match found {
        Input::Ovf => ovf::import(text),
        Input::Vmx => vmx::import(text, name, input),
    };
    vm.map_err(|error| {
        let says = format!(
            "ERROR    Couldn't import file \"{name}\": {}",
            error.message
        );
        let mine = ToolError::new(says).because(Witness::descriptor(name.clone(), error.message));
        let quirks = error.quirks.into_iter().map(Witness::quirk);
        quirks.fold(mine, ToolError::because)
    })
}
