//! Tests of disk images: against generated disks, damaged files, foreign files and qemu-img.

mod common;
mod damaged;
mod foreign;
mod qemu;
mod roundtrip;
mod stream;
