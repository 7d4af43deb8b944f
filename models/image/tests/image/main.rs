//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod engine;
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
mod vhdx;
mod vhdx_children;
mod vhdx_damaged;
mod vhdx_fuzz;
mod vhdx_log;
mod vhdx_qemu;
mod vhdx_resize;
mod vhdx_tools;
