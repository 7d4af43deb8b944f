//! VMDK: hosted sparse (monolithicSparse and streamOptimized, versions 1 to 3), and flat.
//!
//! Source: VMware "Virtual Disk Format 5.0" (technical note, 2011); where files in the field differ from it, what
//! qemu-img 10 and open-vmdk write. All numbers are little-endian, all addresses count sectors of 512 bytes.
//!
//! ```text
//! monolithicSparse       header │ descriptor │ RGD │ its grain tables │ GD │ its grain tables │ grains …
//! streamOptimized        header │ descriptor │ (marker│grain)… (marker│grain table) … (marker│GD) (marker│footer) EOS
//! qemu's streamOptimized header │ descriptor │ RGD │ tables │ GD │ tables │ (marker│grain)… and nothing, or zeros
//! open-vmdk's            header │ descriptor │ GD │ tables │ (marker│grain)… EOS
//! flat                   a descriptor, and the disk's bytes in a file or more beside it
//! ```
//!
//! A grain directory entry is the sector of a grain table (0: none); a grain table entry is the sector of a grain
//! (0: none; 1: zeros, where flag 2 allows it). In the true stream the header's `gdOffset` is all ones and the footer,
//! the last sector but one, repeats the header with the real one.
//!
//! Not read: sparse disks split over several files, snapshots (a `parentCID`), COWD and seSparse. They are refused by name.

mod descriptor;
mod flat;
mod header;
mod read;
pub(crate) mod rules;
mod sparse;
mod stream;
mod walk;

pub(crate) use descriptor::{Descriptor, FIRST_LINE};
pub(crate) use flat::{Flat, TYPES as FLAT_TYPES, refused as refused_descriptor};
pub use flat::{FlatKind, flat_descriptor, write_flat};
pub(crate) use header::{Header, MAGIC};
pub(crate) use read::Vmdk;
pub(crate) use sparse::write_sparse;
pub(crate) use stream::write_stream;
pub use walk::{StreamWalk, walk_stream};

use crate::engine::{self, Work};
use drylab_block::{ReadAt, Result};

/// The controller a descriptor names in `ddb.adapterType`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adapter {
    /// LSI Logic, parallel and SAS alike.
    #[default]
    LsiLogic,
    /// BusLogic.
    BusLogic,
    /// IDE; the geometry has 16 heads.
    Ide,
    /// What ESX before 4 wrote.
    LegacyEsx,
}

impl Adapter {
    /// The value in the descriptor.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LsiLogic => "lsilogic",
            Self::BusLogic => "buslogic",
            Self::Ide => "ide",
            Self::LegacyEsx => "legacyESX",
        }
    }
}

/// What the writer of a VMDK decides beside the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmdkOptions {
    /// `ddb.adapterType`, and with it the geometry.
    pub adapter: Adapter,
    /// `ddb.virtualHWVersion`: 8 for vSphere 5.0, 4 as qemu-img writes it.
    pub hardware_version: u32,
    /// `CID`; by default made of the content, so that equal disks give equal files.
    pub content_id: Option<u32>,
    /// Name of the extent inside the descriptor; readers of one-file disks ignore it, those of flat ones look for it.
    pub file_name: String,
    /// `ddb.toolsVersion`, left out by default.
    pub tools_version: Option<u32>,
    /// Deflate level 0 to 12 of streamOptimized grains, as libdeflate counts them: 1 is fast, 6 no larger than zlib's 6.
    pub level: u32,
}

impl Default for VmdkOptions {
    fn default() -> Self {
        Self {
            adapter: Adapter::default(),
            hardware_version: 8,
            content_id: None,
            file_name: "disk.vmdk".to_owned(),
            tools_version: None,
            level: 6,
        }
    }
}

impl VmdkOptions {
    /// The content id to write for `disk`, which is read for it when none is given.
    fn cid(&self, disk: &dyn ReadAt) -> Result<u32> {
        match self.content_id {
            Some(cid) => Ok(cid),
            None => Ok(self.cid_of(engine::content_digest(disk, &Work::ALONE)?)),
        }
    }

    /// The content id to write: the one given, or one made of the digest of the content.
    fn cid_of(&self, digest: u128) -> u32 {
        let [a, b, c, d, ..] = digest.to_le_bytes();
        // ffffffff means "no parent" and fffffffe "see longContentID".
        self.content_id
            .unwrap_or(u32::from_le_bytes([a, b, c, d]).min(0xffff_fffd))
    }
}
