//! Positioned bytes: what every reader and writer of disks in this house stands on.
//!
//! ```
//! use drylab_block::{Overlay, ReadAt, WriteAt};
//! use std::sync::Arc;
//!
//! let base: Arc<dyn ReadAt> = Arc::new(vec![7u8; 8192]);
//! let disk = Overlay::new(base.clone());
//! disk.write_at(4096, b"changed")?;
//! let mut bytes = [0u8; 8];
//! disk.read_at(4096, &mut bytes)?;
//! assert_eq!(&bytes, b"changed\x07");
//! assert_eq!(base.len(), 8192);
//! # Ok::<(), drylab_block::Error>(())
//! ```
//!
//! * [`ReadAt`] / [`WriteAt`]: reads and writes at an offset over `&self`, so that many readers share one disk.
//! * [`Extents`]: the total map of a disk, [`ExtentKind`] by extent, without gaps.
//! * [`Overlay`]: copy-on-write over a shared base; [`Overlay::delta`] is what differs.
//! * [`Limits`] and [`Resolver`]: how much an untrusted input may cost, and which other files it may name (none).
//! * [`Error`]: `Io`, `Unsupported` or `Corrupt`, each with the place, the value and the bound.
//! * [`ContentId`]: 128 bits that name the bytes of a disk, whatever container they came in.
//!
//! What it does not do: open files, cache, run threads. Only the command line opens files.

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

mod content;
mod delta;
mod error;
mod extent;
mod fields;
pub mod fuzz;
mod limits;
mod overlay;
mod source;

pub use content::{ContentId, content_id};
pub use error::{Error, Finding, Result, Severity};
pub use extent::{Extent, ExtentKind, Extents};
pub use fields::{array_at, be_u16, be_u32, be_u64, le_u16, le_u32, le_u64, slice_at};
pub use limits::{DenyAll, Limits, Reference, Resolver};
pub use overlay::{Delta, Overlay};
pub use source::{Below, ReadAt, SparseBytes, Window, WriteAt, copy_data, read_vec};
