//! Laws of the readers and printers, and what they make of files that others wrote.

mod foreign;
mod hyperv;
mod laws;
mod support;
mod xen;
mod xva;
mod xva_laws;
