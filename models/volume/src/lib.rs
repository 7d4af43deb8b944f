//! Partition tables and logical volumes: what stands where on a disk.
//!
//! ```
//! use drylab_block::{Limits, ReadAt};
//! use std::sync::Arc;
//!
//! // A disk of 4 MiB with one active Linux partition at sector 2048.
//! let mut disk = vec![0u8; 4 << 20];
//! disk[0x1be..0x1ce].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
//! disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
//! let disk: Arc<dyn ReadAt> = Arc::new(disk);
//! let layout = drylab_volume::scan(disk, &Limits::DEFAULT)?;
//! assert_eq!(layout.volumes[0].name.to_string(), "p1");
//! assert_eq!(layout.volumes[0].start_byte(), 1 << 20);
//! # Ok::<(), drylab_block::Error>(())
//! ```
//!
//! * [`Mbr`]: the table in sector 0 and the chain of extended partitions.
//! * [`lvm`]: LVM2 physical volumes, volume groups across disks, linear and striped segments, one leg of a mirror.
//! * [`scan`], [`scan_all`]: every [`Volume`] of one or of several disks, each readable as a disk of its own.
//! * [`WindowMut`]: a volume of a disk that can be written.
//!
//! What it does not do: GPT (a protective table is found and said), thin, cached and snapshot volumes, sectors other
//! than 512 bytes.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod fuzz;
pub mod lvm;
mod map;
mod mbr;
mod scan;

pub use map::{Map, Segment, Spot, WindowMut};
pub use mbr::{Mbr, Partition, Role, SECTOR, has_signature};
pub use scan::Layout;
pub use scan::{DiskLayout, Logical, Membership, Volume, VolumeName, scan, scan_all};
