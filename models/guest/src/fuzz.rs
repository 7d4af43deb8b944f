//! Entry points for fuzzing: each takes any bytes and must not panic.

pub use crate::net::linux::fuzz::{ifcfg, interfaces, modules_alias, udev_rules};
