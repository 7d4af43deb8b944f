//! What belongs to an operating system's version rather than to its files: how drivers name disks, which drivers
//! decline a device their alias matches, what init does when a mount is missing, what Windows must load to see its
//! disk. Each with its evidence.

pub mod linux_drivers;
pub mod linux_init;
pub mod windows_nt61;
