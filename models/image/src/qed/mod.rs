//! QED, QEMU's enhanced disk: read and checked, a legacy format that is converted and not written.
//!
//! Source: "QED Image File Format Specification", docs/interop/qed_spec.rst of QEMU. All numbers are little-endian,
//! offsets count bytes.
//!
//! ```text
//! 0   QED\0 │ cluster_size │ table_size │ header_size │ features │ compat_features │ autoclear_features
//! 40  l1_table_offset │ image_size │ backing name: offset and size, within header_size clusters
//!
//! L1 table ─ L2 table (table_size clusters each) ─ cluster;  0 unallocated, 1 zeros, else a multiple of a cluster
//! ```
//!
//! **Limits.** Clusters of 4 KiB to 64 MiB, tables of 1 to 16 clusters and at most a quarter of the limit of tables.
//!
//! **Not supported.** Writing, repair and resize; convert the image to qcow2.

mod check;
mod header;
mod read;
pub(crate) mod rules;

pub(crate) use header::MAGIC;
pub(crate) use read::Qed;
