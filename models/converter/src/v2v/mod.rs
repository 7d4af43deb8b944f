//! What both versions of virt-v2v share: the source's configuration, the changes inside a guest, the domain at the end.

pub(crate) mod domain;
pub(crate) mod initramfs;
pub(crate) mod linux;
pub(crate) mod source;
pub(crate) mod virtio_win;
pub(crate) mod windows;

use crate::ToolError;
use crate::converted::Edits;
use crate::{Converted, Power};
use domain::Hardware;
use drylab_appliance::{Package, libvirt};
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_filesystem::FileOverlay;
use drylab_guest::inspect::{Guest, GuestDisk, inspect};
use source::Source;
use std::sync::Arc;

/// Options of the command line, and what lies on the converting host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--bridge`: the bridge every network is mapped to.
    pub bridge: String,
    /// Whether `/usr/share/virtio-win` of the host has drivers for the Windows in question.
    pub virtio_win: bool,
}

/// The disks as guests see them, the first with the files beside it, and what is on them.
pub(crate) fn inspected(
    source: &Source,
    beside: &FileOverlay,
) -> Result<(Vec<GuestDisk>, Guest), ToolError> {
    let mut disks: Vec<GuestDisk> = source
        .disks
        .iter()
        .map(|(_, bytes)| GuestDisk::new(bytes.clone()))
        .collect();
    if let Some(boot) = disks.first_mut() {
        boot.files.clone_from(beside);
    }
    let guest = inspect(&disks, &Limits::DEFAULT).map_err(|error| {
        ToolError::new("virt-v2v: No operating system could be detected inside this disk image.")
            .because(Witness::disk("inspection", error.to_string()))
    })?;
    Ok((disks, guest))
}

/// The boot disk of a guest that has one.
pub(crate) fn boot_disk(disks: &[GuestDisk]) -> Result<&GuestDisk, ToolError> {
    disks
        .first()
        .ok_or_else(|| ToolError::new("virt-v2v: the guest has no disks"))
}

/// Domain and images, the boot disk after the edits.
pub(crate) fn output(
    source: &Source,
    hardware: Hardware,
    bridge: &str,
    disk: GuestDisk,
    mut notes: Vec<Witness>,
    mut edits: Edits,
) -> Result<Converted, ToolError> {
    notes.append(&mut edits.notes);
    let mut package = Package {
        descriptor: format!("{}.xml", source.name),
        ..Package::default()
    };
    for (number, (_, bytes)) in source.disks.iter().enumerate() {
        let name = domain::image_name(&source.name, hardware.images, number);
        let bytes = if number == 0 {
            disk.bytes.clone()
        } else {
            bytes.clone()
        };
        package.disks.push(name.clone());
        package.put(name, bytes);
    }
    let domain = domain::domain(source, hardware, bridge);
    package.put(
        package.descriptor.clone(),
        Arc::new(libvirt::print(&domain)?),
    );
    Ok(Converted {
        package,
        disk,
        notes,
        edits: edits.edits,
        copied_from: Power::Off,
    })
}
