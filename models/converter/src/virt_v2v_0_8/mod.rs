//! virt-v2v 0.8.7 to 0.8.9 (the Perl one of RHEL 6): `virt-v2v -ic esx://… -o libvirt -b BRIDGE NAME`.
//!
//! Source: razorinc/virt-v2v at 0661565 as far as the fact tables tell it, Red Hat's bug reports. A guest of the Red Hat
//! family is made ready for virtio, a Windows guest too where the host has the drivers, any other is moved as it is onto
//! IDE and rtl8139. Not modelled: packages that the tool installs or removes inside the guest, kernel choice among several,
//! `root=` with a bare name (left alone), disks other than the first as places of edits.

mod initramfs;
mod redhat;
mod source;
mod target;
mod windows;

use crate::ToolError;
use drylab_appliance::{Package, libvirt};
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_filesystem::edit::Applied;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, System, inspect};
use source::Source;
use std::sync::Arc;
use target::Hardware;

/// Options of the command line, and what lies on the converting host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--bridge`: the bridge every network is mapped to.
    pub bridge: String,
    /// Whether `/usr/share/virtio-win` has the drivers for Windows.
    pub virtio_win: bool,
}

/// What the tool made.
#[derive(Clone)]
pub struct Converted {
    /// Domain XML and raw disk images.
    pub package: Package,
    /// The boot disk after the edits: bytes (the same as in the package), and the files that did not fit.
    pub disk: GuestDisk,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// Each change inside the guest.
    pub edits: Vec<Witness>,
}

/// What is told of the changes inside a guest.
#[derive(Default)]
struct Edits {
    edits: Vec<Witness>,
    notes: Vec<Witness>,
}

impl Edits {
    /// A change of a file, with the rows of knowledge behind it.
    fn made(&mut self, applied: &Applied, says: &str, quirks: &[&str]) {
        let witness = match applied {
            Applied::InPlace { path, .. } => Witness::file(path, 0, says),
            Applied::Overlaid { path, why } => {
                Witness::file(path, 0, format!("{says} (beside the disk: {why})"))
            }
        };
        self.made_at(witness, quirks);
    }

    fn made_at(&mut self, witness: Witness, quirks: &[&str]) {
        self.edits.push(witness);
        self.edits
            .extend(quirks.iter().map(|id| Witness::quirk(id)));
    }
}

/// Converts a machine as libvirt's esx driver shows it: `.vmx`, descriptors and `-flat.vmdk`.
///
/// # Errors
/// [`ToolError`]: the machine is not readable that way, has no known system, or is Windows without drivers on the host.
pub fn convert(input: &Package, options: &Options) -> Result<Converted, ToolError> {
    let source = source::read(input)?;
    let disks: Vec<GuestDisk> = source
        .disks
        .iter()
        .map(|(_, bytes)| GuestDisk::new(bytes.clone()))
        .collect();
    let guest = inspect(&disks, &Limits::DEFAULT).map_err(|error| {
        ToolError::new("virt-v2v: No operating system could be detected inside this disk image.")
            .because(Witness::disk("inspection", error.to_string()))
    })?;
    let mut edits = Edits::default();
    let (hardware, disk) = edited(&guest, &disks, options, &mut edits)?;
    let mut notes = facts(&source, hardware);
    notes.append(&mut edits.notes);
    let mut package = Package {
        descriptor: format!("{}.xml", source.name),
        ..Package::default()
    };
    for (number, (_, bytes)) in source.disks.iter().enumerate() {
        let name = target::image_name(&source, number);
        let bytes = if number == 0 {
            disk.bytes.clone()
        } else {
            bytes.clone()
        };
        package.disks.push(name.clone());
        package.put(name, bytes);
    }
    let domain = target::domain(&source, hardware, options);
    package.put(
        package.descriptor.clone(),
        Arc::new(libvirt::print(&domain)?),
    );
    Ok(Converted {
        package,
        disk,
        notes,
        edits: edits.edits,
    })
}

/// The hardware the guest gets, and its boot disk after the edits.
fn edited(
    guest: &Guest,
    disks: &[GuestDisk],
    options: &Options,
    edits: &mut Edits,
) -> Result<(Hardware, GuestDisk), ToolError> {
    let boot = disks
        .first()
        .ok_or_else(|| ToolError::new("virt-v2v: the guest has no disks"))?;
    match &guest.system {
        System::Linux(system) if redhat::is_family(&guest.os.name.value) => {
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            redhat::convert(guest, system, &mut editor, edits)?;
            edits.notes.push(Witness::quirk("GQ67"));
            Ok((target::VIRTIO, editor.finish()))
        }
        System::Windows(system) => {
            if !options.virtio_win {
                return Err(windows::no_drivers(guest));
            }
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            windows::convert(guest, system, &mut editor, edits)?;
            let clock = "localtime";
            Ok((
                Hardware {
                    clock,
                    ..target::VIRTIO
                },
                editor.finish(),
            ))
        }
        System::Linux(_) => {
            edits.notes.push(guest.os.name.witness.clone());
            edits.notes.push(Witness::quirk("GQ66"));
            Ok((target::DEFAULT, boot.clone()))
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
