//! `/etc/fstab` on this machine: does every device that must be there appear?

use super::names::{Disks, Resolved};
use super::{BootReport, Stop, linux};
use crate::inspect::{Guest, LinuxSystem};
use crate::os::linux_init::{Need, need};
use drylab_catalog::device::{Bus, device};
use drylab_catalog::{Machine, Witness};

/// Mounts what `fstab` lists.
pub(super) fn mount(
    guest: &Guest,
    system: &LinuxSystem,
    machine: &Machine,
    disks: &Disks,
    report: &mut BootReport,
) -> Result<(), Stop> {
    let mountall = linux::has_mountall(guest);
    let mut witnesses = Vec::new();
    for entry in &system.fstab {
        let needed = need(&entry.value, mountall);
        if needed == Need::None {
            continue;
        }
        match disks.resolve(&entry.value.device, guest) {
            Resolved::Volume { .. } => witnesses.push(entry.witness.clone()),
            Resolved::Unknown(says) => report.unassessed.push(Witness {
                says,
                ..entry.witness.clone()
            }),
            Resolved::Missing(why) => {
                let encrypted = system.crypttab.iter().any(|mapped| {
                    entry
                        .value
                        .device
                        .ends_with(&format!("/{}", mapped.value.0))
                });
                let missing: Vec<Witness> = std::iter::once(entry.witness.clone())
                    .chain(why)
                    .chain([missing_quirk(machine, disks, &entry.value.device)])
                    .collect();
                if encrypted {
                    let says = format!(
                        "{} is encrypted: not followed here",
                        linux::entry_name(&entry.value)
                    );
                    report.unassessed.push(Witness {
                        says,
                        ..entry.witness.clone()
                    });
                } else if needed == Need::Required {
                    return Err(report.fail("fstab", missing));
                } else {
                    report.notes.extend(missing);
                }
            }
        }
    }
    if witnesses.is_empty() {
        witnesses.push(Witness::file("/etc/fstab", 0, "no line needs a disk"));
    }
    report.pass("fstab", witnesses);
    Ok(())
}

/// Why the device of a line is missing: a disk on Hyper-V's own bus without a driver, or else its name. A bare name
/// of a disk that is seen under another one is a matter of the name.
fn missing_quirk(machine: &Machine, disks: &Disks, device_name: &str) -> Witness {
    let on_vmbus = |disk: &usize| {
        let disk = machine.disks.get(*disk);
        let controller = disk.and_then(|disk| machine.controller_of(disk));
        let model = controller.and_then(|controller| device(&controller.model));
        model.is_some_and(|model| model.bus == Bus::Vmbus)
    };
    let unseen = disks.missing.keys().any(on_vmbus);
    let bare_vd = device_name.starts_with("/dev/vd") || device_name.starts_with("/dev/xvd");
    Witness::quirk(if unseen && !bare_vd { "GQ33" } else { "GQ37" })
}
