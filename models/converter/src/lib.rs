//! Converters: what each version reads, writes, keeps, drops, edits and breaks.
//!
//! ```
//! use drylab_block::ReadAt;
//! use drylab_converter::qemu_img_0_12::{self, Format};
//! use std::sync::Arc;
//!
//! // 1,000 bytes are one sector and a bit; the tool of CentOS 6.3 cuts the bit off without a word.
//! let input: Arc<dyn ReadAt> = Arc::new(vec![7u8; 1000]);
//! let converted = qemu_img_0_12::convert(&input, None, Format::Raw)?;
//! assert_eq!((converted.exit, converted.file.len()), (0, 512));
//! # Ok::<(), drylab_converter::ToolError>(())
//! ```
//!
//! * [`qemu_img_0_12`]: the disk converter of CentOS 6.3, with its old readers and writers.
//! * [`qemu_img_10`]: the disk converter of today.
//! * [`virt_convert_0_600`]: OVF and VMX to virt-image or VMX, disks through the former.
//! * [`virt_v2v_0_8`], [`virt_v2v_2`]: a machine of VMware to a libvirt domain, with edits inside the guest.
//! * [`vcenter_converter_5_0`]: a running machine, or one that is off, to a machine of VMware.
//! * [`os_fixup`]: what XenCenter's import does to an imported Windows when it is asked to.
//! * [`xenconvert_2_3`]: a running Windows, or the files of a machine, towards XenServer.
//!
//! Each is a function from bytes to bytes: no files are opened, nothing is random, no clock is read. What a tool did that
//! matters later is told in witnesses that cite the rows of `drylab-catalog`.

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

mod boot_drivers;
mod converted;
mod error;
mod files;
pub mod fuzz;
mod math;
pub mod os_fixup;
mod qemu_img;
pub mod qemu_img_0_12;
pub mod qemu_img_10;
mod v2v;
pub mod vcenter_converter_5_0;
pub mod virt_convert_0_600;
pub mod virt_v2v_0_8;
pub mod virt_v2v_2;
pub mod xenconvert_2_3;

pub use converted::{Converted, Power, SourceMachine};
pub use error::ToolError;
