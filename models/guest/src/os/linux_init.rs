//! What init does with `/etc/fstab`: which lines must be there for the boot to go on.

use crate::inspect::FstabEntry;

/// Types that need no disk.
const NO_DISK: [&str; 25] = [
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "devtmpfs",
    "debugfs",
    "securityfs",
    "cgroup",
    "cgroup2",
    "usbfs",
    "configfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "binfmt_misc",
    "rpc_pipefs",
    "selinuxfs",
    "ramfs",
    "none",
    "nfs",
    "nfs4",
    "cifs",
    "smbfs",
    "fuse",
    "overlay",
];

/// What becomes of a line of `fstab` whose device is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Not a disk, or not mounted at boot.
    None,
    /// Init complains and goes on.
    Wanted,
    /// The boot stops in an emergency shell or waits for a person (GQ37).
    Required,
}

/// How badly a line is needed. EL6's `rc.sysinit` drops to a shell when `fsck -A` cannot open a device with a pass
/// number, Ubuntu's `mountall` waits for any device without `nobootwait`; swap is only skipped by both.
#[must_use]
pub fn need(entry: &FstabEntry, mountall: bool) -> Need {
    let has = |name: &str| entry.options.iter().any(|option| option == name);
    let pseudo = NO_DISK.contains(&entry.fstype.as_str()) || !entry.device.contains(['/', '=']);
    if pseudo
        || has("noauto")
        || has("bind")
        || has("_netdev")
        || has("loop")
        || entry.device.starts_with("//")
    {
        return Need::None;
    }
    let removable = ["/dev/cdrom", "/dev/sr", "/dev/scd", "/dev/fd"];
    if removable
        .iter()
        .any(|prefix| entry.device.starts_with(prefix))
    {
        return Need::None;
    }
    if entry.fstype == "swap"
        || entry.mount == "swap"
        || has("nofail")
        || has("nobootwait")
        || has("optional")
    {
        return Need::Wanted;
    }
    if entry.pass != 0 || mountall {
        Need::Required
    } else {
        Need::Wanted
    }
}
