//! Windows registry hives (regf): read, and edited within free cells.
//!
//! ```
//! use drylab_block::Limits;
//! use drylab_hive::{Hive, HiveEditor, RegType};
//!
//! let mut editor = HiveEditor::empty(&Limits::DEFAULT)?;
//! editor.create_key(r"ControlSet001\Services\viostor")?;
//! editor.set_u32(r"ControlSet001\Services\viostor", "Start", 0)?;
//! let hive = Hive::open(editor.finish()?, &Limits::DEFAULT)?;
//! let service = hive.key(r"controlset001\services\VIOSTOR")?.expect("just created");
//! assert_eq!(service.value("start")?.and_then(|value| value.as_u32()), Some(0));
//! # Ok::<(), drylab_block::Error>(())
//! ```
//!
//! Source: Maxim Suhanov, "Windows registry file format specification" (msuhanov/regf); Timothy Morgan, "The Windows
//! NT Registry File Format"; behaviour compared with hivex.
//!
//! ```text
//! 0x0000 base block (4096 bytes): "regf", sequence numbers, root cell, size of the bins, checksum at 0x1FC
//! 0x1000 hive bin: "hbin", own offset, size; cells from 0x20
//!        cell: i32 size (negative: allocated, a multiple of 8), then its content:
//!        nk key ── subkey list: lf | lh | li, or ri over those
//!               ├─ value list ── vk value ── data in the vk (up to 4 bytes), in a cell, or db segments (over 16344)
//!               ├─ sk security (shared, counted)
//!               └─ class name
//! ```
//!
//! Offsets inside a hive count from 0x1000; messages give them as written. What it does not do: replay transaction
//! logs ([`Hive::is_dirty`] says when one would be needed), interpret security descriptors, read volatile keys.

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

mod base;
mod cell;
mod edit;
pub mod fuzz;
mod heap;
mod hive;
mod key;
mod link;
mod list;
mod name;
mod new;
mod value;
mod walk;

pub use edit::HiveEditor;
pub use hive::Hive;
pub use key::Key;
pub use value::{RegType, Value};
pub use walk::Walk;
