//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod flat;
mod foreign;
mod qemu;
mod roundtrip;
mod stream;
mod vhd;
mod vhd_damaged;
mod vmdk_chain;
mod vmdk_damage;
mod vmdk_esx;
mod vmdk_sizes;
mod vmdk_stream;
