//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod flat;
mod foreign;
mod qcow2;
mod qcow2_check;
mod qcow2_layers;
mod qcow2_repair;
mod qcow2_resize;
mod qcow2_rules;
mod qed;
mod qemu;
mod roundtrip;
mod stream;
mod vhd;
mod vhd_damaged;
