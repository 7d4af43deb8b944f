//! qcow2, by "Qcow2 Image File Format", docs/interop/qcow2.txt of QEMU.
//!
//! What varies: version, cluster size, width of refcounts, order of all clusters with free ones between, compressed
//! clusters (deflate, zstd) that share clusters of the file, zero clusters, subclusters, an L1 table with spare entries, a
//! backing file that is shorter or longer, an internal snapshot,
//! an external data file, extensions that are not known.

mod make;
mod rules;
mod snapshot;

use crate::choices::Choices;
use crate::specimen::{File, Format, Specimen};
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use rules::Layout;
use std::sync::Arc;

/// The kinds that are made.
pub(crate) const SUBFORMATS: &[&str] = &[
    "v2",
    "v3",
    "zstd",
    "extended-l2",
    "backing",
    "snapshot",
    "data-file",
];

/// Name of the file with the guest's bytes.
pub(super) const DATA_FILE: &str = "disk.data";

/// What is decided of an image before it is made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) version: u64,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) refcount_order: u32,
    pub(super) extended: bool,
    pub(super) zstd: bool,
    pub(super) backing: Option<&'static str>,
    /// Whether there is an internal snapshot, which shares everything with the active state.
    pub(super) snapshot: bool,
    /// Whether the guest's bytes stand in another file, at the guest's offsets.
    pub(super) outside: bool,
}

impl Plan {
    /// Bit 63 of entries, as it is for what has one reference, or two.
    pub(super) fn copied(&self) -> u64 {
        if self.snapshot { 0 } else { make::COPIED }
    }

    /// Features that a reader must know.
    pub(super) fn incompatible(&self) -> u64 {
        let bits = [(2, self.outside), (3, self.zstd), (4, self.extended)];
        bits.iter().map(|(bit, set)| u64::from(*set) << bit).sum()
    }

    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) fn entry_bytes(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// Entries of an L2 table.
    pub(super) fn entries(&self) -> u64 {
        self.cluster() / self.entry_bytes()
    }

    /// Clusters of the disk.
    pub(super) fn clusters(&self) -> u64 {
        self.size.div_ceil(self.cluster())
    }

    /// L2 tables that the disk needs.
    pub(super) fn tables(&self) -> u64 {
        self.clusters().div_ceil(self.entries())
    }
}

/// Makes an image.
pub(crate) fn draw(choices: &mut impl Choices, kind: &'static str) -> Specimen {
    let extended = kind == "extended-l2";
    let cluster_bits = if extended {
        choices.pick(&[14u32, 16])
    } else {
        choices.pick(&[12u32, 9, 10, 16])
    };
    let cluster = 1u64 << cluster_bits;
    let count = if cluster_bits == 9 {
        choices.between(1, 200)
    } else {
        choices.between(1, 24)
    };
    let size = match choices.below(4) {
        0 => count * cluster,
        1 => count * cluster - 512,
        2 => (count - 1) * cluster + choices.between(1, cluster / 512) * 512,
        _ => choices.pick(&[0, 512, cluster]),
    };
    let version = if kind == "v2" { 2 } else { 3 };
    let mut plan = Plan {
        version,
        cluster_bits,
        size,
        refcount_order: if version == 2 {
            4
        } else {
            choices.pick(&[4u32, 3, 5, 6])
        },
        extended,
        zstd: kind == "zstd",
        backing: None,
        snapshot: kind == "snapshot",
        outside: kind == "data-file",
    };
    if plan.snapshot && choices.one_in(2) {
        (plan.version, plan.refcount_order) = (2, 4);
    }
    let mut others = Vec::new();
    let mut base = None;
    if kind == "backing" {
        plan.backing = Some("base.raw");
        plan.version = choices.pick(&[3, 2]);
        if plan.version == 2 {
            plan.refcount_order = 4;
        }
        let length = choices.pick(&[size, size / 1024 * 512, size + 4096]);
        let bytes = SparseBytes::new(length);
        if length > 0 {
            crate::content::put(&bytes, 0, &vec![7; crate::choices::index(length.min(512))]);
        }
        for (at, run) in crate::content::fill(choices, length, 1 << 14) {
            crate::content::put(&bytes, at.max(512.min(length)), &run);
        }
        bytes.set_len(length).expect("memory has any length");
        let bytes = Arc::new(bytes);
        base = Some(bytes.clone());
        let bytes: Arc<dyn ReadAt> = bytes;
        others.push(File {
            name: "base.raw".to_owned(),
            bytes,
        });
    }
    let (maker, layout, disk) = make::file(choices, &plan, base.as_deref());
    let disk = Arc::new(disk);
    if plan.outside {
        // What is not stored is zero in the image, and was never written there.
        others.push(File {
            name: DATA_FILE.to_owned(),
            bytes: disk.clone(),
        });
    }
    let made = maker.made();
    let mut files = vec![File {
        name: "disk.qcow2".to_owned(),
        bytes: made.bytes,
    }];
    files.extend(others);
    Specimen {
        format: Format::Qcow2,
        subformat: kind,
        files,
        disk,
        fields: made.fields,
        known: [].into(),
        seals: made.seals,
        rules: Box::new(Layout {
            roles: made.roles,
            ..layout
        }),
    }
}
