//! The way of a machine up to the import, as a value: what is remembered of a route.

use crate::route::Hop;
use drylab_appliance::Package;
use drylab_block::ContentId;
use drylab_catalog::Witness;
use drylab_filesystem::FileOverlay;
use drylab_guest::inspect::GuestDisk;
use drylab_hypervisor::importer::{ReadError, Reading};
use drylab_hypervisor::{Missing, Need};
use std::collections::BTreeSet;

/// What came of the hops before the import, and of the importer reading the result.
pub(crate) struct Crossing {
    /// By hop: why it ended the way it did.
    pub(crate) hops: Vec<Result<Done, Stopped>>,
    /// The importer's reading of what the last hop left.
    pub(crate) reading: Result<Reading, Unread>,
    /// The boot disk after Operating System Fixup, where that was chosen and wrote into it.
    pub(crate) fixed: Option<GuestDisk>,
    /// The package as it arrives.
    pub(crate) package: Package,
    /// Files beside the boot disk.
    pub(crate) files: FileOverlay,
    /// Content a guest at the target must see: the source's, or the one after a converter's own edits.
    pub(crate) content: Option<ContentId>,
    /// What the tools changed or lost on the way.
    pub(crate) notes: Vec<Witness>,
    /// What converters wrote into the guest.
    pub(crate) edits: Vec<Witness>,
    /// Product facts that were read.
    pub(crate) facts_used: BTreeSet<String>,
}

/// A hop that was done.
pub(crate) struct Done {
    pub(crate) hop: Hop,
    /// Names of the files it left.
    pub(crate) files: Vec<String>,
    /// Guest-visible bytes moved, which is what takes the time.
    pub(crate) bytes: u64,
    /// Bytes of those files as they lie on the share.
    pub(crate) stored: u64,
    /// What it needed around it.
    pub(crate) needs: Vec<Need>,
}

/// A hop that was not.
pub(crate) enum Stopped {
    Unknown(Missing),
    Failed(String, Vec<Witness>),
}

/// Why there is no reading.
pub(crate) enum Unread {
    /// A hop failed before.
    NotReached,
    Importer(ReadError),
}
