//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod flat;
mod foreign;
mod qemu;
mod roundtrip;
mod stream;
mod vdi;
mod vdi_chain;
mod vdi_damaged;
mod vdi_resize;
mod vhd;
mod vhd_chain;
mod vhd_damaged;
mod vhd_repair;
mod vhd_resize;
mod vhd_steps;
