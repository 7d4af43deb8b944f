//! Why a root was not found: what made the initramfs so, or what the kernel lacks.

use super::linux::pool;
use super::names::Disks;
use crate::inspect::{Guest, Initramfs, LinuxSystem};
use drylab_catalog::{Machine, Witness};

/// Witnesses after those of the missing device itself, ending in a quirk where one is known.
pub(super) fn root(
    guest: &Guest,
    system: &LinuxSystem,
    machine: &Machine,
    disks: &Disks,
    device: &str,
) -> Vec<Witness> {
    if disks.missing.is_empty() {
        return wrong_name(disks, device);
    }
    let mut all = pool(guest, system);
    all.with_root = true;
    let best = Disks::scan(guest, machine, &all);
    let lacking = disks
        .missing
        .keys()
        .find(|disk| best.missing.contains_key(disk));
    match (lacking, &system.initramfs) {
        (Some(disk), _) => kernel_lacks(system, machine, *disk),
        (None, Some(initramfs)) => twin_unseen(machine, disks)
            .into_iter()
            .chain(host_only(guest, initramfs))
            .chain(virtio_unseen(machine, disks))
            .collect(),
        (None, None) => Vec::new(),
    }
}

/// All disks are there: a bare name is wrong for this driver.
fn wrong_name(disks: &Disks, device: &str) -> Vec<Witness> {
    let prefixes = ["/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd"];
    if !prefixes.iter().any(|prefix| device.starts_with(prefix)) {
        return Vec::new();
    }
    let mut witnesses: Vec<Witness> = disks
        .attached
        .values()
        .map(|attached| Witness::quirk(attached.naming.quirk))
        .collect();
    witnesses.dedup();
    witnesses.push(Witness::quirk("GQ37"));
    witnesses
}

/// Not even the modules of the root take the controller.
fn kernel_lacks(system: &LinuxSystem, machine: &Machine, disk: usize) -> Vec<Witness> {
    let path = format!("{}/modules.alias", system.modules.path);
    let mut witnesses = vec![Witness::file(
        path,
        0,
        "this kernel has no module for it either",
    )];
    let controller = machine
        .disks
        .get(disk)
        .and_then(|disk| machine.controller_of(disk));
    if controller.is_some_and(|controller| controller.model == "buslogic") {
        witnesses.push(Witness::quirk("GQ29"));
    }
    witnesses
}

/// The emulated disk is gone, and its twin is not seen.
fn twin_unseen(machine: &Machine, disks: &Disks) -> Option<Witness> {
    let mut controllers = disks
        .missing
        .keys()
        .filter_map(|disk| machine.controller_of(machine.disks.get(*disk)?));
    let unplugged =
        machine.xen_platform && controllers.any(|controller| controller.model == "xen-vbd");
    unplugged.then(|| Witness::quirk("HQ83"))
}

/// The disk that is not seen was put on virtio.
fn virtio_unseen(machine: &Machine, disks: &Disks) -> Option<Witness> {
    let mut controllers = disks
        .missing
        .keys()
        .filter_map(|disk| machine.controller_of(machine.disks.get(*disk)?));
    let virtio = controllers.any(|controller| controller.model == "virtio-blk");
    virtio.then(|| Witness::quirk("HQ60"))
}

/// The root has the driver and the initramfs has not: which policy leaves drivers out.
fn host_only(guest: &Guest, initramfs: &Initramfs) -> Option<Witness> {
    let conf = guest.tree.text("/etc/initramfs-tools/initramfs.conf");
    let Some(conf) = conf else {
        return Some(Witness::quirk("GQ35"));
    };
    let dep = initramfs.policy.as_deref() == Some("dep")
        || conf.lines().any(|line| line.trim() == "MODULES=dep");
    dep.then(|| Witness::quirk("GQ36"))
}
