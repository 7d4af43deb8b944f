//! Our converters beside the programs themselves, and beside tables of what those did.

mod common;
mod qemu_img_0_12;
mod qemu_img_10;
mod virt_convert;
