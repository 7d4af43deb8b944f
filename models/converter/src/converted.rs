//! What goes into a converter that reads a machine, and what comes out.

use drylab_appliance::Package;
use drylab_catalog::{Machine, Witness};
use drylab_filesystem::edit::Applied;
use drylab_guest::inspect::GuestDisk;

/// Whether a machine runs while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// It runs, and the converter's agent in it copies its volumes.
    Running,
    /// It is switched off, and its disks are read from outside.
    Off,
}

/// A machine as a converter meets it where it lives, without an export before.
#[derive(Clone, Copy)]
pub struct SourceMachine<'a> {
    /// Its hardware.
    pub machine: &'a Machine,
    /// Its disks, boot disk first.
    pub disks: &'a [GuestDisk],
    /// Whether it runs.
    pub power: Power,
    /// Whether it has snapshots; the disks are those of its present state.
    pub has_snapshots: bool,
}

/// What a converter of whole machines made.
#[derive(Clone)]
pub struct Converted {
    /// Descriptor and disk images.
    pub package: Package,
    /// The boot disk after the edits: bytes (the same as in the package, or in an image of it), and the files that did
    /// not fit.
    pub disk: GuestDisk,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// Each change inside the guest.
    pub edits: Vec<Witness>,
    /// Whether the source ran while it was copied. Then it still runs under the same name and address: who migrates
    /// shuts it down after the copy and before the target is switched on (quirk GQ132).
    pub copied_from: Power,
}

/// What is told of the changes inside a guest.
#[derive(Default)]
pub(crate) struct Edits {
    pub(crate) edits: Vec<Witness>,
    pub(crate) notes: Vec<Witness>,
}

impl Edits {
    /// A change of a file, with the rows of knowledge behind it.
    pub(crate) fn made(&mut self, applied: &Applied, says: &str, quirks: &[&str]) {
        let witness = match applied {
            Applied::InPlace { path, .. } => Witness::file(path, 0, says),
            Applied::Overlaid { path, why } => {
                Witness::file(path, 0, format!("{says} (beside the disk: {why})"))
            }
        };
        self.made_at(witness, quirks);
    }

    pub(crate) fn made_at(&mut self, witness: Witness, quirks: &[&str]) {
        self.edits.push(witness);
        self.edits
            .extend(quirks.iter().map(|id| Witness::quirk(id)));
    }
}
