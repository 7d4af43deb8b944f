//! Paravirtual drivers in a Windows guest: what they make of the Xen platform device, and of a machine without one.
//!
//! With them the guest unplugs the emulated disks and adapters and works on their twins, as Linux does. They are
//! loaded by the boot loader and sit above the boot disk, so that on a machine without Xen the disk they wait for
//! never comes (quirk GQ64). Services by package: Citrix' XenServer Tools `xenevtchn` or `xenbus` (bus), `xenvbd`
//! (disks), `xennet`, `xennet6` or `xenvif` (adapters); Red Hat's `rhelscsi` and `rhelnet` on Xen.

use super::unplug::{Seen, twin_disks, twin_nics};
use crate::inspect::{Service, WindowsSystem};
use drylab_catalog::{Machine, Witness};

/// Drivers of Xen's bus.
const BUS: [&str; 3] = ["xenevtchn", "xenbus", "rhelscsi"];
/// Drivers of its disks.
const DISKS: [&str; 2] = ["xenvbd", "rhelscsi"];
/// Drivers of its adapters.
const NICS: [&str; 4] = ["xennet", "xennet6", "xenvif", "rhelnet"];
/// Drivers above the boot disk: those of disks, and filters.
const ABOVE_DISKS: [&str; 4] = ["xenvbd", "rhelscsi", "xenfilt", "scsifilt"];

/// A service of these whose driver is there and starts no later than `latest`.
fn starts(system: &WindowsSystem, names: &[&str], latest: u32) -> Option<Witness> {
    let fits =
        |service: &&Service| service.present && service.start.is_some_and(|start| start <= latest);
    let mut services = names.iter().filter_map(|name| system.services.get(*name));
    services.find(fits).map(|service| {
        let start = service.start.unwrap_or_default();
        let says = format!("{start}; {} is there", service.image);
        Witness::key(format!("{}, value Start", service.key), says)
    })
}

/// The machine as the running system sees it.
///
/// # Errors
/// What stops the boot on a machine without the Xen platform device.
pub(super) fn seen(system: &WindowsSystem, machine: &Machine) -> Result<Seen, Vec<Witness>> {
    let mut seen = Seen::same(machine);
    if !machine.xen_platform {
        return match starts(system, &ABOVE_DISKS, 0) {
            None => Ok(seen),
            Some(driver) => Err(vec![
                driver,
                Witness::descriptor("machine", "no Xen platform device"),
                Witness::key("STOP 0x0000007B", "INACCESSIBLE_BOOT_DEVICE"),
                Witness::quirk("GQ64"),
            ]),
        };
    }
    let Some(bus) = starts(system, &BUS, 0) else {
        return Ok(seen);
    };
    if let Some(disks) = starts(system, &DISKS, 0) {
        twin_disks(&mut seen.machine);
        seen.why.push(disks);
    }
    if let Some(nics) = starts(system, &NICS, 3) {
        twin_nics(&mut seen.machine);
        seen.why.push(nics);
    }
    if !seen.why.is_empty() {
        seen.why.insert(0, bus);
        seen.why.push(Witness::quirk("DQ309"));
    }
    Ok(seen)
}
