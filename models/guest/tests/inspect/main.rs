//! Inspection and boot of the golden guests: what their bytes say, and what follows when one thing is changed.

mod boot_linux;
mod boot_windows;
mod boot_xen;
mod foreign;
mod golden;
mod hyperv;
mod laws;
mod packed;
mod readers;
mod support;
mod xen;
