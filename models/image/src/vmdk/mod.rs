//! VMDK: hosted sparse (monolithicSparse, streamOptimized and twoGbMaxExtentSparse, versions 1 to 3), flat, the sparse
//! extents of ESX, and snapshots of all of them.
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
//! split sparse           a descriptor, and sparse extents without one beside it
//! snapshot               any of them, with the parentCID of the disk that parentFileNameHint names
//! ```
//!
//! A grain directory entry is the sector of a grain table (0: none); a grain table entry the sector of a grain (0: none,
//! the parent's in a snapshot; 1: zeros, where flag 2 allows it). In the true stream the header's `gdOffset` is all ones
//! and the footer, the last sector but one, repeats the header with the real one.
//!
//! **Limits.** 64 TiB written; sector addresses of sparse extents end at 2^32 (2 TiB of file); split disks have up to 4096
//! extents of 2047 MiB. Snapshots are written as monolithicSparse; reading one flattens it.
//!
//! **Repair.** Nothing is written over what another reading of the file uses. Where header and descriptor differ in the
//! capacity, the tables decide which of them is mended. Tables on each other or on grains stay as they are: each grain that
//! two of them name is found, and whose it is is for a person to say. A repair is refused, with what was found as the
//! reason, where a directory lies on what follows it or most tables are lost, as the header itself is likely to be wrong
//! then, and where it would give up the only copy of a table that has grains.
//!
//! The words of an embedded descriptor are a flaw where they mean nothing, and the header tells what the file is; a
//! descriptor that is a file of its own is refused with them. Lines that other programs miss are written where there is room.
//!
//! **Not supported.** Devices (fullDevice, raw device maps), encrypted disks and change tracking files are not read. COWD and
//! seSparse are read and checked, not written; the journal of seSparse is not replayed.
//!
//! | subformat | read | write | check | repair | resize |
//! |---|---|---|---|---|---|
//! | monolithicSparse | yes | yes | yes | yes | grow, and shrink |
//! | streamOptimized | yes | yes, as a stream | yes | yes | no |
//! | twoGbMaxExtentSparse | yes | yes | yes | yes | inside the last extent |
//! | monolithicFlat, vmfs, twoGbMaxExtentFlat | yes | yes | yes | a file that was cut, the text | the last extent |
//! | vmfsSparse (COWD), seSparse | yes | no | yes | no | no |
//! | snapshots | yes | yes, or flattened | yes, with parents | each file | no |

mod capacity;
mod check;
mod check_stream;
mod check_tables;
mod child;
mod claims;
mod descriptor;
mod directories;
mod disk;
mod embedded;
mod esx;
mod esx_check;
mod flat;
mod footer;
mod header;
mod hosted;
mod notes;
mod open;
mod repair;
mod repair_directories;
mod repair_length;
mod repair_stream;
mod repair_text;
mod resize;
pub(crate) mod rules;
mod shrink;
mod sparse;
mod split;
mod stream;
mod text;
mod walk;

pub use child::{VmdkParent, write_vmdk_child};
pub(crate) use descriptor::{Descriptor, FIRST_LINE};
pub(crate) use disk::Vmdk;
pub(crate) use esx::Kind as EsxKind;
pub use flat::{FlatKind, flat_descriptor, write_flat};
pub(crate) use header::{Header, MAGIC};
pub(crate) use open::{TYPES, refused as refused_descriptor};
pub(crate) use sparse::write_sparse;
pub use split::{SplitKind, write_split};
pub(crate) use stream::write_stream;
pub use walk::{StreamWalk, walk_stream};

use crate::engine::{self, Work};
use drylab_block::{ReadAt, Result};

/// A content id, as descriptors have it: hexadecimal.
fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

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

    /// The one of that name, letter case apart.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::LsiLogic, Self::BusLogic, Self::Ide, Self::LegacyEsx];
        all.into_iter()
            .find(|adapter| adapter.name().eq_ignore_ascii_case(name))
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
    /// `ddb.longContentID`, left out by default; by VMware's habit its last eight digits are those of `CID`, which they
    /// then give unless [`content_id`](Self::content_id) is given, too.
    pub long_content_id: Option<u128>,
    /// Whether monolithicSparse and split sparse disks say of every grain without data that it is zeros, with entries of 1
    /// and version 2, instead of leaving it out. Off by default: version 1 is read by more programs.
    pub zeroed_grains: bool,
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
            long_content_id: None,
            zeroed_grains: false,
            level: 6,
        }
    }
}

impl VmdkOptions {
    /// Whether the content id is to be made of the content.
    fn is_unnamed(&self) -> bool {
        self.content_id.is_none() && self.long_content_id.is_none()
    }

    /// The content id to write for `disk`, which is read for it when none is given.
    fn cid(&self, disk: &dyn ReadAt, work: &Work<'_>) -> Result<u32> {
        let digest = match self.is_unnamed() {
            true => engine::content_digest(disk, work)?,
            false => 0,
        };
        Ok(self.cid_of(digest))
    }

    /// The content id to write: the one given, or one made of the digest of the content.
    fn cid_of(&self, digest: u128) -> u32 {
        let low = |number: u128| {
            let [a, b, c, d, ..] = number.to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        match (self.content_id, self.long_content_id) {
            (Some(given), _) => given,
            (None, Some(long)) => low(long),
            // ffffffff means "no parent" and fffffffe "see longContentID".
            (None, None) => low(digest).min(0xffff_fffd),
        }
    }
}
