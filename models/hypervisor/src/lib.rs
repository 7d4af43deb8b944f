//! Hypervisors with their consoles: products as facts with evidence, what their wizards, importers and exporters do,
//! and the hosts of the lab.
//!
//! ```
//! use drylab_hypervisor::{LabFile, console, products};
//!
//! let products = products();
//! let kvm = &products[&"kvm-centos-6.3".into()];
//! let lab = LabFile::of_the_report();
//! let request = console::Request::plain("ubuntu", "ubuntu-12.04", (2, 2048), &[8 << 30]);
//! let draws = console::Draws { mac: 7, uuid: 7 };
//! let made = console::create(&kvm.facts(), lab.host_of(&kvm.id).unwrap(), &request, draws)?;
//! // The osdict of January 2012 does not know Ubuntu 12.04: it gets IDE and rtl8139.
//! assert_eq!(made.machine.controllers[0].model, "piix3-ide");
//! assert_eq!(made.machine.nics[0].model, "rtl8139");
//! # Ok::<(), drylab_hypervisor::Missing>(())
//! ```
//!
//! A fact is read through [`Facts`], which records that it was used; a mechanism that needs a fact nobody wrote down
//! gets [`Missing`], and what depends on it cannot be assessed. Nothing here decides by a pair of products.

pub mod console;
pub mod datastore;
pub mod exporter;
mod facts;
pub mod importer;
mod lab;
mod need;
mod store;

pub use facts::{Fact, Facts, Known, Missing, Product, products};
pub use lab::{Console, Host, LabFile, Network, Router, Share, Switch};
pub use need::{Need, transfer_vm};
pub use store::Datastore;
