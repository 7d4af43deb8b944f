//! virt-v2v 2 (the OCaml one): `virt-v2v -i vmx` and `-i ova`, `-o libvirt` or `-o local`.
//!
//! Source: libguestfs/virt-v2v at 71376bd and its manual pages as far as the fact tables tell it. Guests of the Red Hat,
//! SUSE, Debian and ALT families are made ready for virtio; Windows too, and without drivers it is moved onto IDE and
//! RTL8139; every other guest is refused. The machine is a q35 where the guest is young enough. Not modelled: sources
//! other than a VMware machine's folder and an OVA, archives that are compressed as a whole, the choice among several
//! kernels, SUSE's and ALT's own configuration files, relabelling.

mod ova;

use crate::ToolError;
use crate::converted::{Converted, Edits};
pub use crate::v2v::Options;
use crate::v2v::domain::{DEFAULT, Hardware, Images, VIRTIO};
use crate::v2v::linux::{self, Habits, RED_HAT};
use crate::v2v::source;
use crate::v2v::{boot_disk, inspected, output, windows};
use drylab_appliance::Package;
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_filesystem::FileOverlay;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, LoaderKind, System};

/// Distributions that are converted beside those of the Red Hat family.
const FAMILIES: [&str; 12] = [
    "rocky",
    "almalinux",
    "sles",
    "sled",
    "suse",
    "opensuse",
    "debian",
    "ubuntu",
    "linuxmint",
    "kalilinux",
    "altlinux",
    "circle",
];

const HABITS: Habits = Habits {
    ready: "DQ510",
    one_console: false,
    relabels_at_boot: false,
};

/// Converts a machine: a folder with a `.vmx` (`-i vmx`), or an OVA or the folder of one (`-i ova`).
///
/// # Errors
/// [`ToolError`]: the source is not readable that way, or its guest is of no family that the tool converts.
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
    let (source, mut notes) = if input.descriptor.to_lowercase().ends_with(".vmx") {
        let vmx = source::configuration(input)?;
        (source::of_vmx(input, &vmx, &["GQ87", "HQ120"])?, Vec::new())
    } else {
        ova::read(input)?
    };
    let (disks, guest) = inspected(&source, beside)?;
    let mut edits = Edits::default();
    let (hardware, disk) = edited(&guest, &disks, options, &mut edits)?;
    notes.push(Witness::quirk("GQ91"));
    if hardware.machine == Some("q35") {
        notes.push(Witness::quirk("GQ92"));
    }
    output(&source, hardware, &options.bridge, disk, notes, edits)
}

/// A Windows that sleeps is refused: its volumes are mounted for reading only.
fn shut_down(guest: &Guest) -> Result<(), ToolError> {
    let System::Windows(system) = &guest.system else {
        return Ok(());
    };
    let Some(sleeps) = &system.hibernated else {
        return Ok(());
    };
    let says = "virt-v2v: error: unable to mount the disk image for writing. This has probably happened because Windows \
                Hibernation or Fast Restart is being used in this guest.";
    Err(ToolError::new(says)
        .because(sleeps.clone())
        .because(Witness::quirk("GQ62")))
}

/// The hardware the guest gets, and its boot disk after the edits.
fn edited(
    guest: &Guest,
    disks: &[GuestDisk],
    options: &Options,
    edits: &mut Edits,
) -> Result<(Hardware, GuestDisk), ToolError> {
    let boot = boot_disk(disks)?;
    shut_down(guest)?;
    let virtio = Hardware {
        machine: Some("q35"),
        images: Images::Lettered,
        ..VIRTIO
    };
    match &guest.system {
        System::Linux(system) => {
            let name = guest.os.name.value.as_str();
            if !RED_HAT.contains(&name) && !FAMILIES.contains(&name) {
                let says = format!(
                    "virt-v2v: error: virt-v2v is unable to convert this guest type (linux/{name})"
                );
                return Err(ToolError::new(says)
                    .because(guest.os.name.witness.clone())
                    .because(Witness::quirk("GQ88")));
            }
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            linux::convert(guest, system, HABITS, &mut editor, edits)?;
            edits.notes.push(Witness::quirk("DQ510"));
            let is_grub2 = system
                .loader
                .as_ref()
                .is_some_and(|loader| loader.kind == LoaderKind::Grub2);
            if is_grub2 {
                edits.notes.push(Witness::quirk("GQ89"));
            }
            Ok((virtio, editor.finish()))
        }
        System::Windows(_) if !options.virtio_win => {
            edits.notes.push(guest.os.pretty.witness.clone());
            edits.notes.push(Witness::quirk("GQ90"));
            let emulated = Hardware {
                clock: "localtime",
                machine: Some("pc"),
                images: Images::Lettered,
                ..DEFAULT
            };
            Ok((emulated, boot.clone()))
        }
        System::Windows(system) => {
            let mut editor = Editor::open(boot, &Limits::DEFAULT)?;
            windows::convert(guest, system, &mut editor, edits)?;
            let ready = Hardware {
                clock: "localtime",
                ..virtio
            };
            Ok((ready, editor.finish()))
        }
    }
}
