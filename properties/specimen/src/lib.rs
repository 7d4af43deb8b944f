//! Specimens.
mod choices;
mod content;
mod damage;
mod expect;
mod field;
pub mod judge;
mod make;
mod raw;
mod specimen;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk { pub(crate) const SUBFORMATS: &[&str] = &["dynamic"]; pub(crate) fn draw(c: &mut impl crate::Choices, _: &'static str) -> crate::Specimen { crate::raw::draw(c) } }
mod qcow2;
pub use choices::{Choices, Stream};
pub use damage::{Corruption, Kind};
pub use expect::Expected;
pub use field::{Class, Endian, Field, Seal, Sum};
pub use specimen::{File, Format, Specimen};
