//! The words of the house: what a virtual machine is made of, which devices there are, what is known of products
//! and with what evidence.
//!
//! * [`Machine`]: virtual hardware as a guest meets it.
//! * [`device`]: device models with their PCI ids; which driver takes one is the guest's business.
//! * [`Mark`], [`Evidence`]: how sure we are of a fact.
//! * [`quirk`]: rows of knowledge, `quirks/`; a mechanism that acts cites the id of its row.
//! * [`Witness`], [`Score`]: why something is so, and what it counts.
//!
//! What it does not do: decide anything.

pub mod device;
mod evidence;
mod ids;
mod mac;
mod machine;
mod quirk;
mod score;

pub use evidence::{Evidence, Mark, Place, Witness};
pub use ids::{ConverterId, GuestId, ProductId};
pub use mac::{Mac, ParseMacError};
pub use machine::{
    Cdrom, Clock, Controller, Cpu, Disk, Firmware, Machine, Memory, Nic, PciAddress, Smbios, place,
};
pub use quirk::{Quirk, quirk, quirks};
pub use score::Score;
