//! VDI: dynamic and fixed, read, written, checked, repaired and resized; differencing and undo, read, checked and repaired.
//!
//! Source: there is no specification. The structures are those of VirtualBox (`VDICore.h`, whose names are kept here)
//! and of the forum thread "All about VDIs" (forums.virtualbox.org, t=8046); what programs refuse was measured with
//! qemu-img 10.0.2 and read in VirtualBox' header checks. All numbers are little-endian, offsets count bytes.
//!
//! ```text
//! 0x00  text │ 0x40 0xbeda107f │ 0x44 version: 0x00010001, once 0x00000002
//! 0x48  cbHeader: 384, or 400 with the logical geometry behind it │ 0x4c type │ 0x50 flags │ 0x54 comment, 256
//! 0x154 offBlocks │ 0x158 offData │ 0x15c geometry, its sector size at 0x168 │ 0x170 cbDisk, 8
//! 0x178 cbBlock │ 0x17c cbBlockExtra │ 0x180 cBlocks │ 0x184 cBlocksAllocated
//! 0x188 uuidCreate │ 0x198 uuidModify │ 0x1a8 uuidLinkage │ 0x1b8 uuidParentModify │ 0x1c8 logical geometry
//!
//! offBlocks  map: for each block its number in the data area │ 0xffffffff free │ 0xfffffffe zero
//! offData    (cbBlockExtra │ cbBlock)…
//! ```
//!
//! **Version 0.2.** The header of the first releases lacks cbHeader, offBlocks, offData, cbBlockExtra and
//! uuidParentModify; the map stands behind it at once and the data behind the map, unaligned. It is read; resizing it is
//! refused, since nothing can be moved.
//!
//! **Free and zero.** A free block is the parent's, and zeros where there is none; a zero block (discarded, or written
//! with zeros) is zeros also over a parent.
//!
//! **Parents** have no name in a VDI. A differencing or undo image asks its resolver for a `parent` by the UUID, in the
//! form `{6c2e94d2-8a1f-4b7e-9d3c-0a1b2c3d4e5f}`, and compares both UUIDs that it keeps of it.
//!
//! **Damage.** There is no checksum. A field of the header that the map, the blocks and the end of the file prove wrong is a
//! finding, and the value that they prove is read, see `proof.rs`. Where nothing proves one and most blocks are lost, or the
//! map is whole and the header is not as programs write it, a repair is refused.
//!
//! **Limits.** 536,870,784 blocks, what QEMU reads: 512 TiB less 128 MiB in blocks of 1 MiB; offData must fit 32 bits. qemu-img reads
//! only blocks of 1 MiB without extra bytes and refuses images with a parent. What is written has a header of 400 bytes.
//!
//! **Not supported.** Writing differencing images; parents that are no VDI.

mod header;
mod proof;
mod read;
mod repair;
mod resize;
pub(crate) mod rules;
mod write;

pub(crate) use header::{is_overlooked, kind};
pub(crate) use read::Vdi;
pub(crate) use write::{write_dynamic, write_fixed};

use crate::finding::Findings;
use drylab_block::{Limits, ReadAt};

/// Bytes at 0x40 by which a VDI is told.
pub(crate) const MAGIC: &[u8; 4] = b"\x7f\x10\xda\xbe";

/// The UUID by which its children ask for the image in `source`, in the form in which they do; `None` when that is no VDI.
#[must_use]
pub fn uuid_create(source: &dyn ReadAt) -> Option<String> {
    let header = header::Header::read(source, &Limits::DEFAULT, &mut Findings::default()).ok()?;
    Some(header::uuid(&header.create))
}

/// Most blocks of an image: what QEMU reads, whose map must fit 31 bits.
pub const BLOCKS_MAX: u64 = 0x1fff_ff80;

/// What the writer of a VDI decides beside the bytes. The default is VirtualBox'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdiOptions {
    /// Text at the start of the file, for people; up to 63 bytes.
    pub creator: String,
    /// Comment, up to 255 bytes of UTF-8.
    pub comment: String,
    /// UUID of the image, as its text is read; by default made of the content, so that equal disks give equal files.
    pub uuid_create: Option<[u8; 16]>,
    /// UUID of its last modification; by default made of the content, too.
    pub uuid_modify: Option<[u8; 16]>,
    /// Bytes of a block: a power of two from 4 KiB to 64 MiB. qemu-img reads only 1 MiB.
    pub block_bytes: u32,
    /// Map and data begin at multiples of this: a power of two from 512 to 1 MiB.
    pub alignment: u32,
}

impl Default for VdiOptions {
    fn default() -> Self {
        Self {
            creator: "<<< Oracle VM VirtualBox Disk Image >>>\n".to_owned(),
            comment: String::new(),
            uuid_create: None,
            uuid_modify: None,
            block_bytes: 1 << 20,
            alignment: 1 << 20,
        }
    }
}

impl VdiOptions {
    /// As qemu-img 10 writes it: map and data aligned to sectors.
    #[must_use]
    pub fn qemu() -> Self {
        Self {
            creator: "<<< QEMU VM Virtual Disk Image >>>\n".to_owned(),
            alignment: 512,
            ..Self::default()
        }
    }
}
