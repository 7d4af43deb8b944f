//! What all versions of qemu-img share: their inputs and outputs, the loop that copies, the writer of VMDK.

pub(crate) mod runs;
pub(crate) mod write_vmdk;

use drylab_block::{DenyAll, ReadAt, Resolver};
use drylab_catalog::Witness;
use std::sync::Arc;

/// A file as it is given to the tool.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Name in messages, and of the extent in a VMDK.
    pub name: &'a str,
    /// The file; `None` when there is none of that name.
    pub file: Option<&'a Arc<dyn ReadAt>>,
    /// `-f`.
    pub declared: Option<&'a str>,
    /// Where backing files come from.
    pub resolver: &'a dyn Resolver,
}

impl<'a> Input<'a> {
    /// A file called `disk` with no other beside it.
    #[must_use]
    pub fn alone(file: &'a Arc<dyn ReadAt>, declared: Option<&'a str>) -> Self {
        Self {
            name: "disk",
            file: Some(file),
            declared,
            resolver: &DenyAll,
        }
    }
}

/// A file that the tool left behind.
#[derive(Clone)]
pub struct Converted {
    /// The file.
    pub file: Arc<dyn ReadAt>,
    /// What happened on the way that matters later.
    pub notes: Vec<Witness>,
    /// Exit code: with any but 0 the file is what an unfinished run left. 136 is a run ended by SIGFPE.
    pub exit: i32,
    /// What it printed.
    pub message: String,
}

/// What `qemu-img info` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Name of the format.
    pub format: String,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Size of a cluster in bytes, 0 when the reader tells none.
    pub cluster_size: u64,
    /// Backing file.
    pub backing: Option<String>,
    /// Number of snapshots.
    pub snapshots: u32,
    /// What it printed beside.
    pub message: String,
}
