//! Facts of a Linux guest.

use super::{Rows, place};
use drylab_guest::Tree;
use drylab_guest::inspect::{Guest, Initramfs, LinuxSystem, Loader, LoaderKind, Module};

/// Folders of a kernel's tree with drivers that a disk may need.
const STORAGE: [&str; 8] = [
    "/drivers/ata/",
    "/drivers/block/",
    "/drivers/hv/",
    "/drivers/ide/",
    "/drivers/message/",
    "/drivers/scsi/",
    "/drivers/staging/hv/",
    "/drivers/virtio/",
];

/// Network configuration shown line by line: folder and beginning of the name.
const NETWORK: [(&str, &str); 6] = [
    ("/etc/sysconfig", "network"),
    ("/etc/sysconfig/network-scripts", "ifcfg-"),
    ("/etc/network", "interfaces"),
    ("/etc/udev/rules.d", "70-persistent-net.rules"),
    ("/etc", "resolv.conf"),
    ("/etc", "hostname"),
];

pub(super) fn facts(rows: &mut Rows, guest: &Guest, linux: &LinuxSystem) {
    rows.section = "boot";
    if let Some(loader) = &linux.loader {
        of_loader(rows, loader);
    }
    if let Some(kernel) = &linux.kernel {
        let bootable = if kernel.bootable {
            ""
        } else {
            ", no boot header"
        };
        let value = format!(
            "{} ({}{bootable})",
            kernel.version.value,
            super::size(kernel.bytes)
        );
        rows.add("kernel", value, kernel.path.clone());
    }
    for word in &linux.cmdline {
        let value = match &word.value.value {
            Some(value) => format!("{}={value}", word.value.key),
            None => word.value.key.clone(),
        };
        rows.add("command line", value, place(&word.witness));
    }
    if let Some(initramfs) = &linux.initramfs {
        of_initramfs(rows, initramfs);
    }
    let builtin = format!("{}/modules.builtin", linux.modules.path);
    let text = guest.tree.text(&builtin).unwrap_or_default();
    let paths = text
        .lines()
        .filter_map(|path| Some((path, module_name(path)?)));
    let found = storage(paths);
    if !found.is_empty() {
        rows.add("built-in storage", found.join(" "), builtin);
    }
    rows.section = "fstab";
    for entry in &linux.fstab {
        let line = &entry.value;
        let value = format!(
            "{}  {}  {}",
            line.device,
            line.fstype,
            line.options.join(",")
        );
        rows.add(line.mount.clone(), value, place(&entry.witness));
    }
    for entry in &linux.crypttab {
        let (name, device) = &entry.value;
        rows.add(
            name.clone(),
            format!("encrypted {device}"),
            place(&entry.witness),
        );
    }
    rows.section = "network";
    network(rows, &guest.tree);
}

fn of_loader(rows: &mut Rows, loader: &Loader) {
    let kind = match loader.kind {
        LoaderKind::GrubLegacy => "GRUB 0.97",
        LoaderKind::Grub2 => "GRUB 2",
    };
    rows.add(
        "loader",
        format!("{kind}, {} entries", loader.entries.len()),
        loader.path.clone(),
    );
    let title = loader
        .default_entry()
        .map_or("none: past the last entry", |entry| entry.title.as_str());
    let value = format!("entry {}: {title}", loader.default.value);
    rows.add("default", value, place(&loader.default.witness));
}

fn of_initramfs(rows: &mut Rows, initramfs: &Initramfs) {
    let mut value = format!(
        "{}, {} modules",
        initramfs.archives.join(" + "),
        initramfs.modules.len()
    );
    for why in initramfs.unread.iter().chain(&initramfs.damaged) {
        value.push_str(", ");
        value.push_str(why);
    }
    rows.add("initramfs", value, initramfs.path.clone());
    let modules = initramfs.modules.iter();
    let found = storage(
        modules.map(|(name, module): (&String, &Module)| (module.path.as_str(), name.as_str())),
    );
    rows.add("initramfs storage", found.join(" "), initramfs.path.clone());
}

/// Names of the modules whose path is that of a storage driver.
fn storage<'a>(modules: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<&'a str> {
    let is_storage = |path: &str| {
        let path = format!("/{path}");
        STORAGE.iter().any(|folder| path.contains(folder))
    };
    modules
        .filter(|(path, _)| is_storage(path))
        .map(|(_, name)| name)
        .collect()
}

/// `ata_piix` of `kernel/drivers/ata/ata_piix.ko`.
fn module_name(path: &str) -> Option<&str> {
    path.trim().rsplit('/').next()?.strip_suffix(".ko")
}

/// Lines of network configuration that are no comment.
fn network(rows: &mut Rows, tree: &Tree) {
    for (folder, beginning) in NETWORK {
        for name in tree
            .names_in(folder)
            .filter(|name| name.starts_with(beginning))
        {
            let path = format!("{folder}/{name}");
            let text = tree.text(&path).unwrap_or_default();
            let lines = (1u32..).zip(text.lines().map(str::trim));
            for (number, line) in
                lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            {
                rows.add(name, line, format!("{path}:{number}"));
            }
        }
    }
}
