//! What can be decided of a qcow2 that is written: a backing file, a data file, extended L2 entries and all else.

use super::header::NAME_MAX;
use super::{Qcow2Compression, Qcow2Options, Qcow2Version};
use crate::math::index;
use drylab_block::{Error, ReadAt, Result, WriteAt};

/// The disk that a child stands on.
#[derive(Clone, Copy)]
pub struct Qcow2Backing<'a> {
    /// Its guest-visible bytes; behind its end it reads as zeros.
    pub disk: &'a dyn ReadAt,
    /// The name by which the child will find it, at most 1,023 bytes.
    pub name: &'a str,
    /// Its format as QEMU calls it: `raw`, `qcow2`, `vmdk`, `vpc`. Always written: a format that must be guessed lets a
    /// guest choose it.
    pub format: &'a str,
}

/// Where the clusters of an image with an external data file go.
#[derive(Clone, Copy)]
pub struct Qcow2DataFile<'a> {
    /// The file; it is emptied first.
    pub sink: &'a dyn WriteAt,
    /// The name by which the image will find it.
    pub name: &'a str,
    /// Whether the data file alone is the disk (`data_file_raw`), which no backing file goes with.
    pub raw: bool,
}

/// What the writer of a layered qcow2 decides beside the bytes.
#[derive(Clone, Copy)]
pub struct Qcow2Layers<'a> {
    /// Version of the format.
    pub version: Qcow2Version,
    /// log2 of the cluster size in bytes, 9 to 21; at least 14 with extended L2 entries.
    pub cluster_bits: u32,
    /// log2 of the bits of a refcount, 0 to 6; 4 in version 2.
    pub refcount_order: u32,
    /// Whether parts of a 32nd of a cluster are stored by themselves; version 3.
    pub extended_l2: bool,
    /// How, and at which level, clusters are compressed where that makes them shorter.
    pub compression: Option<(Qcow2Compression, u32)>,
    /// The disk that it stands on: only clusters that differ from it are stored.
    pub backing: Option<Qcow2Backing<'a>>,
    /// The file that holds the clusters.
    pub data_file: Option<Qcow2DataFile<'a>>,
}

impl Default for Qcow2Layers<'_> {
    fn default() -> Self {
        Self {
            version: Qcow2Version::default(),
            cluster_bits: 16,
            refcount_order: 4,
            extended_l2: false,
            compression: None,
            backing: None,
            data_file: None,
        }
    }
}

impl From<&Qcow2Options> for Qcow2Layers<'_> {
    fn from(options: &Qcow2Options) -> Self {
        Self {
            version: options.version,
            cluster_bits: options.cluster_bits,
            extended_l2: options.extended_l2,
            compression: options
                .compress
                .then_some((options.compression, options.level)),
            ..Self::default()
        }
    }
}

impl std::fmt::Debug for Qcow2Layers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qcow2Layers")
            .field("version", &self.version)
            .field("cluster_bits", &self.cluster_bits)
            .field("refcount_order", &self.refcount_order)
            .field("extended_l2", &self.extended_l2)
            .field("compression", &self.compression)
            .field("backing", &self.backing.map(|backing| backing.name))
            .field("data_file", &self.data_file.map(|file| file.name))
            .finish()
    }
}

impl Qcow2Layers<'_> {
    /// Refuses what is out of range or excludes each other.
    pub(super) fn check(&self) -> Result<()> {
        let v2 = self.version == Qcow2Version::V2;
        let zstd = matches!(self.compression, Some((Qcow2Compression::Zstd, _)));
        let name = self.backing.map_or(0, |backing| backing.name.len());
        let too_long = name > index(u64::from(NAME_MAX));
        let raw = self.data_file.is_some_and(|file| file.raw);
        let wrong = [
            (
                !(9..=21).contains(&self.cluster_bits),
                "cluster_bits, allowed are 9 to 21",
            ),
            (
                self.refcount_order > 6,
                "refcount_order, allowed are 0 to 6",
            ),
            (
                v2 && self.refcount_order != 4,
                "refcount_order in version 2, it is 4",
            ),
            (v2 && self.extended_l2, "extended L2 entries in version 2"),
            (v2 && zstd, "zstd in version 2"),
            (v2 && self.data_file.is_some(), "a data file in version 2"),
            (
                self.extended_l2 && self.cluster_bits < 14,
                "cluster_bits with extended L2 entries, allowed are 14 to 21",
            ),
            (
                self.data_file.is_some() && self.compression.is_some(),
                "compressed clusters in a data file",
            ),
            (
                raw && self.backing.is_some(),
                "a raw data file beside a backing file",
            ),
            (
                self.backing.is_some() && name == 0,
                "a backing file without a name",
            ),
            (too_long, "backing file name, allowed are 1023 bytes"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Error::unsupported(format_args!(
                "qcow2 {what} (cluster_bits {}, refcount_order {}, a name of {name} bytes)",
                self.cluster_bits, self.refcount_order
            ))),
            None => Ok(()),
        }
    }
}
