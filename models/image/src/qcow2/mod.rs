//! qcow2, versions 2 (compat 0.10) and 3 (compat 1.1).
//!
//! Source: "Qcow2 Image File Format", docs/interop/qcow2.txt of QEMU. All numbers are big-endian, offsets count bytes.
//!
//! ```text
//! 0    QFI\xfb │ version │ backing name │ cluster_bits │ size │ crypt │ L1 size and offset │ refcount table │ snapshots
//! 72   v3: incompatible, compatible, autoclear bits │ refcount_order │ header_length │ compression type
//! …    extensions (type, length, data padded to 8), from header_length on (v2: from 72), then the backing file's name
//!
//! L1 entry   63 COPIED │ 55-9 offset of an L2 table of one cluster
//! L2 entry   63 COPIED │ 62 = 0 │ 55-9 offset of the cluster │ 0 reads as zeros (v3)
//!            62 = 1: offset below bit x = 62 - (cluster_bits - 8), above it the number of further sectors
//!            extended: a second word, 31-0 subclusters that are allocated, 63-32 those that read as zeros
//!
//! refcount table ─ refcount block of one cluster ─ references to one cluster, in 1 to 64 bits
//! snapshot table ─ L1 tables │ bitmap directory ─ bitmap tables ─ clusters
//! ```
//!
//! Compressed clusters are raw deflate, read with any window and written with one of 4 KiB, or zstd frames (compression
//! type 1). What we write has header and L1 table first, then data with the L2 table of each range behind it and the
//! refcount blocks among them as they fill, then the last refcount block and the refcount table.
//!
//! Read: the active state or an internal snapshot; backing files and external data files through the caller's resolver.
//! A backing file whose format is declared raw is raw whatever its bytes look like. Where no format is declared the bytes
//! decide, and an image found so must name no further file: a guest may have written its header into a raw disk.
//!
//! Deflate streams with codes that no compressor writes are read, and QEMU fails on them: libdeflate takes some streams
//! that zlib does not, which the module `codec` lists.
//!
//! Refcounts are for writers: a refcount table that is missing, said to stand over other things or where no table can, or
//! with refcounts of a width that there is not, hides nothing that the mapping tables name, and is made anew by a repair.
//!
//! **Limits.** Clusters of 512 bytes to 2 MiB, L1 tables of 32 MiB, refcount tables of 8 MiB where they are written anew,
//! 65,536 snapshots, 65,535 bitmaps, backing file names of 1,023 bytes; the last sector of compressed data may be cut.
//!
//! **Not supported.** Encryption (AES and LUKS are detected and refused by name), bitmaps' contents, saved machines of
//! snapshots. Not resized: images of version 2 with snapshots or with a backing file that is longer than the disk, images
//! whose data file or whose bitmaps' tables would need another length.

mod bitmap;
mod change;
mod check;
pub(crate) mod counts;
mod data;
mod differ;
mod draft;
mod entry;
mod extension;
mod header;
mod layers;
mod mend;
mod packed;
mod read;
mod refcount;
mod repair;
mod resize;
pub(crate) mod rules;
mod snapshot;
mod structure;
mod write;

pub(crate) use data::{Backing, Declared};
pub(crate) use header::MAGIC;
pub use layers::{Qcow2Backing, Qcow2DataFile, Qcow2Layers};
pub(crate) use read::Qcow2;
pub(crate) use write::write_qcow2;
pub use write::write_qcow2_layers;

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
    /// Whether parts of a 32nd of a cluster are stored by themselves: version 3, `cluster_bits` from 14 on; QEMU from
    /// 5.2 on.
    pub extended_l2: bool,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            version: Qcow2Version::default(),
            cluster_bits: 16,
            compress: false,
            compression: Qcow2Compression::default(),
            level: 6,
            extended_l2: false,
        }
    }
}

/// Big-endian words; bytes of a last one that is cut are left out.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_be_bytes(*word)).collect()
}

fn be_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
