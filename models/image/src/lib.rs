//! Disk image formats: raw, VMDK, qcow2, QED, VHD, VHDX, VDI; detected by content, read and written (QED is only read).
//!
//! ```
//! use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt};
//! use drylab_image::{Format, Target, VmdkOptions};
//! use std::sync::Arc;
//!
//! let disk = SparseBytes::new(1 << 30);
//! disk.write_at(4096, b"boot")?;
//! let file = SparseBytes::default();
//! let written = drylab_image::write(&disk, &Target::VmdkStream(VmdkOptions::default()), &file)?;
//! assert!(written.file_bytes < 1 << 18);
//!
//! let image = drylab_image::open(Arc::new(file), &Limits::DEFAULT)?;
//! assert_eq!((image.format(), image.subformat()), (Format::Vmdk, "streamOptimized"));
//! assert_eq!(image.virtual_size(), 1 << 30);
//! let mut bytes = [0u8; 4];
//! image.read_at(4096, &mut bytes)?;
//! assert_eq!(&bytes, b"boot");
//! # Ok::<(), drylab_block::Error>(())
//! ```
//!
//! * [`detect`] names a format by its content; formats known and not read are refused by name, never taken for raw.
//! * [`open`] gives an [`Image`]: the guest-visible bytes, with a total map of extents and an [`Info`].
//! * [`open_with`] opens the extents that a flat VMDK names, through a [`Resolver`](drylab_block::Resolver);
//!   [`open_vhd`] opens a VHD as a program sees it that believes one of its two sizes, [`open_vhd_alone`] as one that
//!   takes no notice of parents.
//! * [`write()`], [`write_with`], [`write_stream`], [`file_size`]: the same bytes into another container, by as many
//!   workers as one likes ([`Work`]), deterministic.
//! * [`write_flat`], [`write_split`]: a flat VMDK, which is two files, and one in files of 2047 MiB.
//!   [`write_vhdx_child`], [`write_vmdk_child`]: a VHDX or VMDK with what differs from another one.
//! * [`write_qcow2_layers`]: a qcow2 on a backing file, with its clusters in a data file, or with extended L2 entries.
//! * [`walk_stream`]: whether a streamOptimized VMDK is one for a reader that cannot seek.
//! * [`profile`]: what a product wants of the images it is given, and what it does with damaged ones.
//! * [`fuzz`]: entry points for fuzzers.
//!
//! What it does not do: open files by itself. Changes of a file are planned ([`Plan`]), and made by who asks for them.
//!
//! # What is there, and what shows it
#![doc = include_str!("../docs/matrix.md")]
//!
//! # Damage
//!
//! What is said of damaged files, measured side by side with qemu-img 10.0.2 by the test `damage_table`:
//!
#![doc = include_str!("../docs/damage.md")]
//!
//! # Disputes
//!
//! Foreign files that qemu-img opens and of which drylab says something else, and what decides:
//!
#![doc = include_str!("../docs/disputes/disk-fragment-misc.md")]
//!
//! The same of file systems and volumes:
//!
#![doc = include_str!("../docs/disputes/fs-volume.md")]
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

mod backed;
mod changed;
mod codec;
mod container;
mod detect;
mod edit;
mod engine;
mod finding;
mod front;
pub mod fuzz;
mod image;
mod layer;
mod map;
mod math;
pub mod profile;
pub mod qcow2;
pub mod qed;
pub mod raw;
mod recent;
mod uuid;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
mod write;

pub use container::{Damage, Stored};
pub use detect::{Detected, Format, detect};
pub use edit::{Edit, Plan};
pub use engine::{Progress, Work};
pub use finding::{Finding, Findings, Repair, Rule};
pub use image::{Image, Info, Options, open, open_as, open_vhd, open_vhd_alone, open_with};
pub use qcow2::{
    Qcow2Backing, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Options, Qcow2Version,
    write_qcow2_layers,
};
pub use vdi::VdiOptions;
pub use vhd::{VhdOptions, VhdSize};
pub use vhdx::{VhdxOptions, VhdxParent, write_vhdx_child};
pub use vmdk::{
    Adapter, FlatKind, SplitKind, StreamWalk, VmdkOptions, VmdkParent, flat_descriptor,
    walk_stream, write_flat, write_split, write_vmdk_child,
};
pub use write::{Target, Written, file_size, write, write_stream, write_with};

/// Every rule that [`Image::check`] knows, format by format.
#[must_use]
pub fn rules() -> Vec<&'static Rule> {
    let all = [
        raw::rules::ALL,
        vmdk::rules::ALL,
        qcow2::rules::ALL,
        qed::rules::ALL,
        vhd::rules::ALL,
        vhdx::rules::ALL,
        vdi::rules::ALL,
    ];
    all.into_iter().flatten().copied().collect()
}
