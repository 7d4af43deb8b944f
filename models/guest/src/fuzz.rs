//! Entry points for fuzzing: each takes any bytes and must not panic.

pub use crate::inspect::fuzz::{bcd, disk, elf, fstab, grub_cfg, inf, initramfs};
pub use crate::net::linux::fuzz::{ifcfg, interfaces, modules_alias, udev_rules};
