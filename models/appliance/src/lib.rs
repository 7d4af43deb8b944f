//! Appliance descriptors: what a virtual machine is said to be, outside any hypervisor.
//!
//! ```
//! use drylab_appliance::{Limits, ovf};
//!
//! let text = br#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
//!           xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
//!   <References><File ovf:id="file1" ovf:href="disk.vmdk"/></References>
//!   <DiskSection><Info/>
//!     <Disk ovf:diskId="d" ovf:fileRef="file1" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>
//!   </DiskSection>
//!   <VirtualSystem ovf:id="vm"><Info/></VirtualSystem>
//! </Envelope>"#;
//! let envelope = ovf::parse(text, &Limits::DEFAULT)?;
//! assert_eq!(envelope.disks[0].capacity, Some(8 << 30));
//! assert_eq!(envelope.disks[0].line, 5);
//! # Ok::<(), drylab_appliance::Error>(())
//! ```
//!
//! * [`ovf`]: envelopes of OVF 0.9 and 1.x into a dialect-neutral model with the line of everything; a printer and
//!   the exporters' dialects of vSphere 5.0, XenCenter and XenConvert.
//! * [`ova`]: the tar around it, indexed and never extracted; [`manifest`]: the digests beside it.
//! * [`libvirt`]: domain XML as virt-manager 0.9 writes it; [`vmx`]: the configuration file of VMware.
//! * [`xva`]: XenServer's archive of records and blocks, disks read in place; [`hyperv`]: the folder that Hyper-V 2008 R2
//!   exports and imports once.
//! * [`units`]: the programmatic units of DSP0004; [`href`](mod@href): which names may be followed.
//! * [`xml`]: what all XML readers share: bounds, encodings, lines.
//!
//! What it does not do: decide what an importer accepts (crate `drylab-hypervisor` does), open a file that a
//! descriptor names, check certificates, read OVF 2.x.

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

mod findings;
pub mod fuzz;
pub mod href;
pub mod hyperv;
pub mod libvirt;
pub mod manifest;
pub mod ova;
pub mod ovf;
mod package;
pub mod units;
pub mod virt_image;
pub mod vmx;
pub mod xml;
pub mod xva;

pub use drylab_block::{Error, Finding, Limits, Result, Severity};
pub use href::safe_href;
pub use package::Package;
