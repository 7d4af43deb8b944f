//! Specimens: valid disk images made from choices, with a map of their fields, and damages with what must come of them.
//!
//! ```
//! use drylab_specimen::{Format, Specimen, Stream, judge};
//!
//! // Any source of words will do: a simulator's stream, a fuzzer's bytes, a counter.
//! let mut word = 0u64;
//! let mut choices = Stream(|| {
//!     word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
//!     word
//! });
//! let specimen = Specimen::draw(&mut choices, Format::Vhd, Some("dynamic"));
//! assert_eq!(judge::sound(&specimen), Ok(()));
//!
//! let damage = specimen.corrupt(&mut choices).expect("a VHD has fields");
//! let field = &specimen.fields[damage.field];
//! println!("{} becomes {:02x?}, expected: {:?}", field.name, damage.new, damage.expected.answers());
//! assert!(judge::judge(&specimen, &damage).is_ok());
//! ```
//!
//! * [`Specimen::draw`]: an image of a [`Format`], its second files, the disk it must read as, its [`Field`]s.
//! * [`Specimen::corrupt`], [`Specimen::damage`], [`Specimen::damaged`]: one field, another value of a meaningful [`Kind`],
//!   past the checksums or not.
//! * [`Expected`]: what may come of it by the clause that the change breaks: findings, refusal, nothing.
//! * [`judge`]: whether our reader answers so. [`fuzz`]: the same for fuzzers, from bytes.
//!
//! **Where it stands.** The images are made by the formats' documents alone: no module but `judge` and `fuzz` uses the
//! crate whose readers are tried, and nothing of its writers. What is expected of a damage is written down beside the field,
//! by what the value means where everything else stands, and is never recorded from an answer. It is a crate of its own
//! because the tests of the laws, the fuzz targets and the command line all need it, and the laws stand above the command
//! line.
//!
//! **What is made**, see the modules: raw; VHD fixed, dynamic, differencing; VHDX fixed, dynamic, differencing, with a log
//! to replay; VDI dynamic, fixed, differencing, undo; qcow2 versions 2 and 3, deflate and zstd, extended L2 entries, over a
//! raw backing file, with a snapshot, with a data file; VMDK monolithicSparse and streamOptimized with both places of the directory.
//!
//! **What is not**: flat and split VMDK, snapshots of VMDK, COWD and seSparse; qcow2 with bitmaps; VDI 0.2; several damages at once have no expectation of their own.

mod choices;
mod content;
mod damage;
mod expect;
mod field;
pub mod fuzz;
pub mod judge;
mod make;
mod qcow2;
mod raw;
mod specimen;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

pub use choices::{Choices, Stream};
pub use damage::{Corruption, Kind};
pub use expect::Expected;
pub use field::{Class, Endian, Field, Seal, Sum};
pub use specimen::{File, Format, Specimen};
