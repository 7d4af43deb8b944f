//! XenConvert 2.3.1: a running Windows machine, or the files of a machine of VMware, Hyper-V or XenServer, towards
//! XenServer.
//!
//! Source: Citrix' guide to 2.1.1 and the sources of the library it shares with XenCenter, as far as the fact tables tell
//! them; 2.3.1's own guide was not found.
//!
//! | from | to |
//! |---|---|
//! | this machine (Windows) | XenServer, OVF, XVA, VHD |
//! | OVF or VMX with VMDK | XenServer, OVF |
//! | VHD | XenServer, OVF |
//! | XVA | OVF |
//!
//! Windows is made to boot from the IDE controller of a XenServer machine; any other guest is repackaged as it is, and
//! everything that comes out of an XVA, too. What it makes on a XenServer through its interface is told as an XVA would
//! tell it. Not modelled: choice and resizing of volumes, several machines at once, Provisioning Services.

mod read;
mod write;

use crate::ToolError;
use crate::boot_drivers::{piix_ide, start_at_boot};
use crate::converted::{Converted, Edits, Power, SourceMachine};
use drylab_appliance::Package;
use drylab_block::{Limits, ReadAt};
use drylab_catalog::Witness;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{GuestDisk, System, inspect};
use std::sync::Arc;

/// What is converted.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// The machine the tool runs on.
    ThisMachine(SourceMachine<'a>),
    /// A package of VMware's: an OVF with its disks, or the folder of a machine.
    Vmware(&'a Package),
    /// A VHD; name, processors and memory are asked for.
    Vhd(&'a Package, Asked<'a>),
    /// An XVA: the package's first file.
    Xva(&'a Package),
}

/// What the wizard asks for where the source does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Name of the new machine.
    pub name: &'a str,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// A machine on a XenServer; told as its XVA.
    XenServer,
    /// An OVF package with VHDs.
    Ovf,
    /// An XVA.
    Xva,
    /// VHDs without a descriptor.
    Vhd,
}

/// What is chosen in the wizard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is made.
    pub output: Output,
    /// Name of the network on the XenServer.
    pub network: String,
}

/// A machine between reading and writing.
pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// Bytes as the guest sees them, boot disk first.
    pub(crate) disks: Vec<GuestDisk>,
    /// Address of each adapter, where it is carried over.
    pub(crate) macs: Vec<Option<String>>,
    pub(crate) cd_roms: u32,
    pub(crate) is_hvm: bool,
    /// Citrix' own configuration: name and value.
    pub(crate) other: Vec<(String, String)>,
    pub(crate) notes: Vec<Witness>,
}

/// A tool's error with its usual beginning.
pub(crate) fn failed(says: impl std::fmt::Display) -> ToolError {
    ToolError::new(format!("XenConvert: {says}"))
}

impl Input<'_> {
    /// Name of the source in the wizard, and what can be made of it.
    fn choices(&self) -> (&'static str, &'static [Output]) {
        match self {
            Self::ThisMachine(_) => (
                "This machine",
                &[Output::XenServer, Output::Ovf, Output::Xva, Output::Vhd],
            ),
            Self::Vmware(_) => ("VMware", &[Output::XenServer, Output::Ovf]),
            Self::Vhd(..) => ("Virtual Hard Disk", &[Output::XenServer, Output::Ovf]),
            Self::Xva(_) => ("Xen Virtual Appliance", &[Output::Ovf]),
        }
    }
}

/// Converts a machine.
///
/// # Errors
/// [`ToolError`]: this source is not converted to that output, is not readable, or is a running Linux.
pub fn convert(input: &Input<'_>, options: &Options) -> Result<Converted, ToolError> {
    let (source, outputs) = input.choices();
    if !outputs.contains(&options.output) {
        let says = format!("{source} is not converted to {:?}", options.output);
        return Err(failed(&says)
            .because(Witness::descriptor("wizard", says))
            .because(Witness::quirk("DQ513")));
    }
    let mut vm = match input {
        Input::ThisMachine(source) => read::this_machine(source)?,
        Input::Vmware(package) => read::vmware(package)?,
        Input::Vhd(package, asked) => read::vhd(package, asked)?,
        Input::Xva(package) => read::xva(package)?,
    };
    let mut edits = Edits::default();
    if !matches!(input, Input::Xva(_)) {
        fix_up(&mut vm, &mut edits)?;
    }
    let (package, mut notes) = write::write(&vm, options)?;
    notes.append(&mut vm.notes);
    notes.append(&mut edits.notes);
    let disk = vm
        .disks
        .into_iter()
        .next()
        .ok_or_else(|| failed("the source has no disks"))?;
    let copied_from = match input {
        Input::ThisMachine(source) => source.power,
        _ => Power::Off,
    };
    Ok(Converted {
        package,
        disk,
        notes,
        edits: edits.edits,
        copied_from,
    })
}

/// Makes Windows boot from IDE; leaves every other guest alone.
fn fix_up(vm: &mut Vm, edits: &mut Edits) -> Result<(), ToolError> {
    let found = inspect(&vm.disks, &Limits::DEFAULT);
    let (Ok(guest), Some(boot)) = (&found, vm.disks.first_mut()) else {
        let why = found
            .err()
            .map_or_else(String::new, |error| error.to_string());
        let says = format!("no system known, repackaged as it is {why}");
        edits
            .notes
            .push(Witness::disk("inspection", says.trim_end()));
        return Ok(());
    };
    let System::Windows(system) = &guest.system else {
        edits.notes.push(guest.os.pretty.witness.clone());
        edits.notes.push(Witness::quirk("DQ514"));
        return Ok(());
    };
    let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
    start_at_boot(
        system,
        &piix_ide(),
        "XenConvert",
        Some("DQ515"),
        &mut editor,
        edits,
    )?;
    *boot = editor.finish();
    Ok(())
}

/// Bytes as a guest's disk.
pub(crate) fn guest_disk(bytes: Arc<dyn ReadAt>) -> GuestDisk {
    GuestDisk::new(bytes)
}
