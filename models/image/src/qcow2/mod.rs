//! qcow2, versions 2 (compat 0.10) and 3 (compat 1.1), without backing file.
//!
//! Source: "Qcow2 Image File Format", docs/interop/qcow2.txt of QEMU. All numbers are big-endian, offsets count bytes.
//!
//! ```text
//! 0    QFI\xfb │ version │ backing name │ cluster_bits │ size │ crypt │ L1 size and offset │ refcount table │ snapshots
//! 72   v3: incompatible, compatible, autoclear bits │ refcount_order │ header_length │ compression type
//! …    extensions (type, length, data padded to 8), from header_length on (v2: from 72)
//!
//! L1 entry   63 COPIED │ 55-9 offset of an L2 table of one cluster
//! L2 entry   63 COPIED │ 62 = 0 │ 55-9 offset of the cluster │ 0 reads as zeros (v3)
//!            62 = 1: offset below bit x = 62 - (cluster_bits - 8), above it the number of further sectors
//! ```
//!
//! Compressed clusters are raw deflate with a window of 4 KiB, or zstd frames (compression type 1). What we write has
//! header and L1 table first, then data with the L2 table of each range behind it and the refcount blocks among them as
//! they fill, then the last refcount block and the refcount table.
//!
//! Not read: backing files and external data files (nothing named inside an input is opened), encryption,
//! extended L2 entries. Internal snapshots are left alone: the active state is what is read.

mod header;
mod read;
pub(crate) mod rules;
mod write;

pub(crate) use header::MAGIC;
pub(crate) use read::Qcow2;
pub(crate) use write::write_qcow2;

/// Version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qcow2Version {
    /// Version 2, `compat=0.10`: what CentOS 6 reads.
    V2,
    /// Version 3, `compat=1.1`.
    #[default]
    V3,
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qcow2Compression {
    /// Raw deflate with a window of 4 KiB: what every reader knows.
    #[default]
    Zlib,
    /// zstd, only in version 3: QEMU from 5.1 on.
    Zstd,
}

/// What the writer of a qcow2 decides beside the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Version of the format.
    pub version: Qcow2Version,
    /// log2 of the cluster size in bytes, 9 to 21.
    pub cluster_bits: u32,
    /// Whether clusters are compressed where that makes them shorter.
    pub compress: bool,
    /// How they are compressed.
    pub compression: Qcow2Compression,
    /// Level of the compression: deflate 1 to 9, zstd 1 to 19.
    pub level: u32,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            version: Qcow2Version::default(),
            cluster_bits: 16,
            compress: false,
            compression: Qcow2Compression::default(),
            level: 6,
        }
    }
}
