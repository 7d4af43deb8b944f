//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod engine;
mod flat;
mod foreign;
mod qemu;
mod roundtrip;
mod stream;
mod vhd;
mod vhd_damaged;
