//! virt-v2v 0.8.7 to 0.8.9 (the Perl one of RHEL 6), `-i libvirt -ic esx://… -o libvirt`.

use crate::ToolError;
use drylab_appliance::Package;
use drylab_catalog::Witness;
use drylab_guest::inspect::GuestDisk;

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
    /// The boot disk after the edits: bytes, and the files that did not fit.
    pub disk: GuestDisk,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// Each change inside the guest.
    pub edits: Vec<Witness>,
}

/// Converts a machine as libvirt's esx driver shows it: `.vmx`, descriptors and `-flat.vmdk`.
///
/// # Errors
/// [`ToolError`].
pub fn convert(input: &Package, options: &Options) -> Result<Converted, ToolError> {
    let _ = options;
    let name = input.disks.first().map(String::as_str).unwrap_or_default();
    let disk = GuestDisk::new(input.file(name)?.clone());
    Ok(Converted {
        package: input.clone(),
        disk,
        notes: Vec::new(),
        edits: Vec::new(),
    })
}
