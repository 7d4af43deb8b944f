//! XenServer with XenCenter and Hyper-V with its Manager: machines, exports and imports, by the real descriptors.

mod console;
mod hyperv;
mod ovf;
mod rules;
mod support;
mod xva;
