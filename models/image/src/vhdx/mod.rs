//! VHDX: fixed, dynamic and differencing, read, written, checked and repaired, with its log; fixed and dynamic resized.
//!
//! Source: Microsoft "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format", version 8.0 (April 2024); where files in the
//! field differ from it, what qemu-img 10.0.2 and Hyper-V were seen to write. All numbers are little-endian, GUIDs as
//! Microsoft stores them. Everything behind the first MiB begins at a whole MiB.
//!
//! ```text
//! 0        file type identifier: "vhdxfile", creator
//! 64 KiB   header 1   "head" 0x04 CRC-32C 0x08 SequenceNumber 0x10 FileWriteGuid 0x20 DataWriteGuid 0x30 LogGuid
//! 128 KiB  header 2        0x40 LogVersion 0x42 Version 0x44 LogLength 0x48 LogOffset
//! 192 KiB  region table    "regi" 0x04 CRC-32C 0x08 EntryCount 0x10 (Guid, FileOffset, Length, Required)…
//! 256 KiB  region table, copy
//! 1 MiB    log, metadata region, BAT, then blocks, in any order
//!
//! metadata "metadata" 0x0a EntryCount 0x20 (ItemId, Offset, Length, flags)… 64 KiB: items
//! BAT      u64 for each block: state in bits 0 to 2, MiB of the file from bit 20 on; behind the entries of each chunk
//!          (2^23 sectors) one for the sector bitmap of that chunk, also where there are no bitmaps
//! ```
//!
//! **Headers.** Of two valid ones the one with the greater sequence number counts; a writer changes the other one. The
//! region table at 192 KiB counts unless it is damaged, then its copy does (qemu refuses such a file).
//!
//! **Log.** A header with a LogGuid asks for the log to be replayed. Opening does that in memory and leaves the file as
//! it is; [`Image::repair`](crate::Image::repair) does it in the file.
//!
//! Where qemu-img 10.0.2 differs from the specification, the specification is followed: it replays of a sequence that goes
//! round the end of the ring only the entries behind it, and does not lengthen the file to LastFileOffset.
//!
//! **Blocks.** Not present (0): the parent's, or zeros. Undefined (1), zero (2) and unmapped (3): zeros, never the
//! parent's. Fully present (6): in the file. Partially present (7): sector by sector, as the bitmap says.
//!
//! **Parents** are VHDX files opened through the resolver under their names in the order of the specification:
//! `relative_path` (handed over with slashes and without a leading `./`), `volume_path`, `absolute_win32_path` (as
//! written). The first whose DataWriteGuid is the one that the child expects is taken; if none is, the first that opens,
//! with a finding.
//!
//! **Limits.** Disks of up to 64 TiB ([`DISK_BYTES_MAX`]), blocks of 1 to 256 MiB, sectors of 512 or 4096 bytes; a log
//! of up to [`Limits::table_bytes_max`](drylab_block::Limits). The table is read in pieces, however large it is.
//! Unknown regions and metadata items are left alone unless they are required: then the file is refused. Of the metadata
//! only the disk's size is ever changed.
//!
//! **Not supported.** Resizing differencing disks; parents that are no VHDX; writing a log (it is replayed).

mod bat;
mod child;
mod details;
mod guid;
mod header;
mod locator;
mod log;
mod mend;
mod metadata;
mod parent;
mod patched;
mod read;
mod region;
mod repair;
mod resize;
pub(crate) mod rules;
mod survey;
mod write;

pub use child::{VhdxParent, write_vhdx_child};
pub use guid::Guid;
pub(crate) use header::MAGIC;
pub(crate) use mend::scripted;
pub(crate) use read::{Vhdx, kind};
pub(crate) use write::{write_dynamic, write_fixed};

/// Largest disk: 64 TiB.
pub const DISK_BYTES_MAX: u64 = 64 << 40;

/// What the writer of a VHDX decides beside the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhdxOptions {
    /// Bytes of a block, a power of two from 1 MiB to 256 MiB. By default 1 MiB, doubled for large disks while the BAT
    /// takes more than 1 MiB, up to 32 MiB: small blocks keep a file with scattered data short, also where it is copied
    /// by programs that know no holes.
    pub block_bytes: Option<u32>,
    /// Bytes of a sector, as the guest sees it: 512 or 4096. The size is rounded up to whole ones.
    pub logical_sector: u32,
    /// Bytes of a sector of the medium, as the guest is told: 512 or 4096.
    pub physical_sector: u32,
    /// The program that made the file, up to 255 UTF-16 characters.
    pub creator: String,
    /// Identifies the file's bytes; by default made of the content.
    pub file_write_guid: Option<Guid>,
    /// Identifies the disk's bytes, and is what children expect; by default made of the content.
    pub data_write_guid: Option<Guid>,
    /// Identifies the disk to the guest; by default made of the content.
    pub disk_id: Option<Guid>,
}

impl Default for VhdxOptions {
    fn default() -> Self {
        Self {
            block_bytes: None,
            logical_sector: 512,
            physical_sector: 4096,
            creator: "Drylab".to_owned(),
            file_write_guid: None,
            data_write_guid: None,
            disk_id: None,
        }
    }
}
