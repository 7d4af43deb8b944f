//! Guests: what a disk holds, how it boots and how it gets its addresses.
//!
//! ```
//! use drylab_block::{Limits, ReadAt, SparseBytes};
//! use drylab_guest::inspect::{GuestDisk, inspect};
//! use std::sync::Arc;
//!
//! let empty: Arc<dyn ReadAt> = Arc::new(SparseBytes::new(1 << 20));
//! let error = inspect(&[GuestDisk::new(empty)], &Limits::DEFAULT).unwrap_err();
//! assert!(error.to_string().contains("no operating system found"));
//! ```
//!
//! * [`inspect`]: disks to a [`Guest`](inspect::Guest), each fact with the file and line or registry key it is from.
//! * [`boot`]: whether that guest comes up on a [`Machine`](drylab_catalog::Machine), stage by stage, and if not why.
//! * [`net`]: names of interfaces from the image's own rules, configuration, DHCP, firewall.
//! * [`edit`]: changes of a guest that is switched off, as converters make them.
//! * [`modalias`]: which module takes a device.
//! * [`os`]: what belongs to a version of an operating system rather than to its files.
//! * [`Tree`]: configuration files as the guest's programs see them.
//! * [`fuzz`]: entry points for fuzzers.
//!
//! Outcomes follow from bytes: a driver is there because its module is in the initramfs or its service starts at
//! boot, a name because a rule gives it. Nothing here knows hypervisors, and nothing is looked up by pairs of them.
//!
//! What it does not do: initramfs archives in lzma, lz4, lzo and bzip2, EFI loaders, GPT, XFS, FAT, encrypted roots,
//! Windows' `DriverDatabase` (NT 6.2 and later). These are said, not guessed: an outcome that rests on one is listed
//! as unassessed or the disk is refused.

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

pub mod boot;
pub mod edit;
pub mod fuzz;
pub mod inspect;
pub mod modalias;
mod modules;
pub mod net;
pub mod os;
mod tree;

pub use tree::Tree;
