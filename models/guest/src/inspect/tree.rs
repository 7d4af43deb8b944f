//! Which configuration files are copied for the network models.

use super::mounts::Mounts;
use crate::Tree;
use crate::modules;
use drylab_block::Limits;
use drylab_filesystem::FileType;
use std::collections::BTreeMap;

/// Single files.
const FILES: [&str; 24] = [
    "/etc/centos-release",
    "/etc/crypttab",
    "/etc/debian_version",
    "/etc/fstab",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inittab",
    "/etc/iproute2/rt_tables",
    "/etc/lsb-release",
    "/etc/modprobe.conf",
    "/etc/modules",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/redhat-release",
    "/etc/resolv.conf",
    "/etc/securetty",
    "/etc/sysctl.conf",
    "/etc/default/ufw",
    "/etc/default/grub",
    "/etc/initramfs-tools/initramfs.conf",
    "/etc/initramfs-tools/modules",
    "/etc/dracut.conf",
    "/etc/rc.conf",
    "/etc/adjtime",
];

/// Folders copied with everything in them.
const FOLDERS: [&str; 21] = [
    "/etc/udev/rules.d",
    "/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/etc/sysconfig",
    "/etc/network",
    "/etc/netplan",
    "/etc/systemd/network",
    "/etc/NetworkManager",
    "/etc/dhcp",
    "/etc/dhcp3",
    "/etc/modprobe.d",
    "/etc/dracut.conf.d",
    "/etc/resolvconf",
    "/etc/ufw",
    "/lib/ufw",
    "/etc/wicked",
    "/etc/init",
    "/var/lib/dhclient",
    "/var/lib/dhcp",
    "/var/lib/dhcp3",
    "/var/lib/NetworkManager",
];

/// Folders of which only the names count: files are written empty.
const NAMES: [&str; 7] = [
    "/lib/udev",
    "/usr/lib/udev",
    "/etc/rc.d/rc2.d",
    "/etc/rc.d/rc3.d",
    "/etc/rc.d/rc5.d",
    "/etc/rc2.d",
    "/etc/rcS.d",
];

/// Files of `/lib/modules/<version>` that name drivers.
const MODULE_FILES: [&str; 3] = ["modules.alias", "modules.dep", "modules.builtin"];

/// Deepest folder copied below one of the list.
const DEPTH_MAX: u32 = 8;
/// Most bytes copied altogether: configuration is small.
const BYTES_MAX: usize = 64 << 20;

/// Copies the files; returns the tree and the links that were met.
pub(crate) fn copy(
    mounts: &Mounts<'_>,
    limits: &Limits,
    module_folders: &[String],
) -> (Tree, BTreeMap<String, String>) {
    let mut copy = Copy {
        mounts,
        tree: Tree::new(),
        links: BTreeMap::new(),
        bytes: 0,
        files: limits.entries_max,
    };
    for path in FILES {
        copy.file(path);
    }
    for path in FOLDERS {
        copy.folder(path, 0);
    }
    for entry in mounts.list("/etc") {
        // dhclient.conf and dhclient-eth0.conf of older releases stand in /etc itself.
        if entry.name.starts_with("dhc") && entry.file_type == FileType::File {
            copy.file(&format!("/etc/{}", entry.name));
        }
    }
    for path in NAMES {
        for entry in mounts.list(path) {
            if entry.file_type != FileType::Directory {
                copy.tree
                    .write(format!("{path}/{}", entry.name), Vec::new());
            }
        }
    }
    for folder in module_folders {
        for name in MODULE_FILES {
            copy.file(&format!("{folder}/{name}"));
        }
        copy.modules(folder, 0);
    }
    (copy.tree, copy.links)
}

struct Copy<'a> {
    mounts: &'a Mounts<'a>,
    tree: Tree,
    links: BTreeMap<String, String>,
    bytes: usize,
    files: u32,
}

impl Copy<'_> {
    fn file(&mut self, path: &str) {
        match self.mounts.entry(path).map(|entry| entry.file_type) {
            Some(FileType::Symlink) => {
                self.links.insert(path.to_owned(), self.mounts.link(path));
            }
            Some(FileType::File) => {}
            _ => return,
        }
        self.content(path);
    }

    fn content(&mut self, path: &str) {
        let Some(left) = self
            .files
            .checked_sub(1)
            .filter(|_| self.bytes <= BYTES_MAX)
        else {
            return;
        };
        self.files = left;
        if let Some(bytes) = self.mounts.read(path) {
            self.bytes = self.bytes.saturating_add(bytes.len());
            if self.bytes <= BYTES_MAX {
                self.tree.write(path, bytes);
            }
        }
    }

    /// Notes which module files there are: they are written empty. A link counts when it leads to a file.
    fn modules(&mut self, path: &str, depth: u32) {
        if depth > DEPTH_MAX {
            return;
        }
        for entry in self.mounts.list(path) {
            let inner = format!("{path}/{}", entry.name);
            let there = match entry.file_type {
                FileType::Directory => {
                    self.modules(&inner, depth.saturating_add(1));
                    continue;
                }
                _ if modules::name_of(&entry.name).is_none() => false,
                FileType::File => true,
                FileType::Symlink => self.mounts.read(&inner).is_some(),
                FileType::Special => false,
            };
            if there && let Some(left) = self.files.checked_sub(1) {
                self.files = left;
                self.tree.write(inner, Vec::new());
            }
        }
    }

    fn folder(&mut self, path: &str, depth: u32) {
        if depth > DEPTH_MAX {
            return;
        }
        for entry in self.mounts.list(path) {
            let inner = format!("{path}/{}", entry.name);
            match entry.file_type {
                FileType::Directory => self.folder(&inner, depth.saturating_add(1)),
                FileType::File => self.content(&inner),
                FileType::Symlink => {
                    self.links.insert(inner.clone(), self.mounts.link(&inner));
                    self.content(&inner);
                }
                FileType::Special => {}
            }
        }
    }
}
