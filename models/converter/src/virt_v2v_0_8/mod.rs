//! virt-v2v 0.8.7 to 0.8.9 (the Perl one of RHEL 6): `virt-v2v -ic esx://… -o libvirt -b BRIDGE NAME`.
//!
//! Source: razorinc/virt-v2v at 0661565 as far as the fact tables tell it, Red Hat's bug reports. A guest of the Red Hat
//! family is made ready for virtio, a Windows guest too where the host has the drivers, any other is moved as it is onto
//! IDE and rtl8139. Not modelled: packages that the tool installs or removes inside the guest, kernel choice among several,
//! `root=` with a bare name (left alone), disks other than the first as places of edits.

use crate::ToolError;
use crate::converted::Edits;
use crate::v2v::domain::{self, Hardware};
use crate::v2v::linux::{self, Habits, RED_HAT};
use crate::v2v::source::{self, Source};
use crate::v2v::{boot_disk, inspected, output, windows};
use drylab_appliance::Package;
use drylab_appliance::vmx::Vmx;
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_filesystem::FileOverlay;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, System};

pub use crate::Converted;
pub use crate::v2v::Options;

/// Newest virtual hardware that libvirt's vmx reader of this time knows.
const HARDWARE_MAX: u64 = 8;

const HABITS: Habits = Habits {
    ready: "GQ67",
    one_console: true,
    relabels_at_boot: true,
};

/// Converts a machine as libvirt's esx driver shows it: `.vmx`, descriptors and `-flat.vmdk`.
///
/// # Errors
/// [`ToolError`]: the machine is not readable that way, has no known system, or is Windows without drivers on the host.
pub fn convert(input: &Package, options: &Options) -> Result<Converted, ToolError> {
    convert_with(input, &FileOverlay::new(), options)
}

/// [`convert`] for a boot disk of which some files are kept beside it, because they had no room on it.
///
/// # Errors
/// As [`convert`].
pub fn convert_with(
    input: &Package,
    beside: &FileOverlay,
    options: &Options,
) -> Result<Converted, ToolError> {
    let vmx = source::configuration(input)?;
    libvirt_reads(input, &vmx)?;
    let source = source::of_vmx(input, &vmx, &["GQ84"])?;
    let (disks, guest) = inspected(&source, beside)?;
    let mut edits = Edits::default();
    let (hardware, disk) = edited(&guest, &disks, options, &mut edits)?;
    let notes = facts(&source, hardware);
    output(&source, hardware, &options.bridge, disk, notes, edits)
}

/// What libvirt's reader of configurations refuses.
fn libvirt_reads(input: &Package, vmx: &Vmx) -> Result<(), ToolError> {
    let hardware = source::number(vmx, "virtualHW.version").unwrap_or(4);
    if hardware > HARDWARE_MAX {
        let says = format!(
            "internal error Expecting VMX entry 'virtualHW.version' to be 4, 7 or 8 but found {hardware}"
        );
        return Err(source::refuse(says)
            .because(source::place(input, vmx, "virtualHW.version"))
            .because(Witness::quirk("HQ67")));
    }
    let memory = source::number(vmx, "memsize").unwrap_or(32);
    let vcpus = source::number(vmx, "numvcpus").unwrap_or(1);
    if !memory.is_multiple_of(4) || vcpus == 0 || (vcpus != 1 && !vcpus.is_multiple_of(2)) {
        let says = format!(
            "internal error memsize {memory} is no multiple of 4, or numvcpus {vcpus} is neither 1 nor even"
        );
        return Err(source::refuse(says)
            .because(source::place(input, vmx, "memsize"))
            .because(Witness::quirk("HQ68")));
    }
    Ok(())
}

/// The error when the host has no drivers.
fn no_drivers(guest: &Guest) -> ToolError {
    let says = "virt-v2v: Installation failed because the following files referenced in the configuration file are required, \
                but missing: /usr/share/virtio-win/drivers";
    ToolError::new(says)
        .because(guest.os.pretty.witness.clone())
        .because(Witness::quirk("GQ70"))
}

/// The hardware the guest gets, and its boot disk after the edits.
fn edited(
    guest: &Guest,
    disks: &[GuestDisk],
    options: &Options,
    edits: &mut Edits,
) -> Result<(Hardware, GuestDisk), ToolError> {
    let boot = boot_disk(disks)?;
    match &guest.system {
        System::Linux(system) if RED_HAT.contains(&guest.os.name.value.as_str()) => {
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            linux::convert(guest, system, HABITS, &mut editor, edits)?;
            edits.notes.push(Witness::quirk("GQ67"));
            Ok((domain::VIRTIO, editor.finish()))
        }
        System::Windows(system) => {
            if !options.virtio_win {
                return Err(no_drivers(guest));
            }
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            windows::convert(guest, system, &mut editor, edits)?;
            let clock = "localtime";
            Ok((
                Hardware {
                    clock,
                    ..domain::VIRTIO
                },
                editor.finish(),
            ))
        }
        System::Linux(_) => {
            edits.notes.push(guest.os.name.witness.clone());
            edits.notes.push(Witness::quirk("GQ66"));
            Ok((domain::DEFAULT, boot.clone()))
        }
    }
}

/// What the tool keeps, maps and drops, whatever is in the guest.
fn facts(source: &Source, hardware: Hardware) -> Vec<Witness> {
    let mut notes = vec![
        Witness::quirk("GQ68"),
        Witness::quirk("GQ69"),
        Witness::quirk("GQ74"),
    ];
    if source.has_scsi {
        notes.push(Witness::quirk("GQ75"));
    }
    if hardware.disk_bus == "ide" && source.disks.len() > 4 {
        notes.push(Witness::quirk("GQ73"));
    }
    notes
}
