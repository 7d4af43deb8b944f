//! What the firmware starts.

use super::{BootReport, Stop};
use crate::inspect::{BootCode, Guest, System, VolumeKind};
use drylab_catalog::device::{Bus, device};
use drylab_catalog::{Firmware, Machine, Witness, place};

/// Type byte of an EFI system partition.
const EFI_SYSTEM: u8 = 0xef;

/// Finds the disk the firmware starts from and what it runs there; index of the disk.
pub(super) fn start(
    guest: &Guest,
    machine: &Machine,
    report: &mut BootReport,
) -> Result<usize, Stop> {
    let Some(disk) = machine.disks.first() else {
        let says = format!("machine {} has no disk to boot from", machine.name);
        return Err(report.fail("firmware", vec![Witness::descriptor("disks", says)]));
    };
    let Some(controller) = machine.controller_of(disk) else {
        let says = format!(
            "its controller {} is not among the machine's {}",
            disk.controller,
            machine.controllers.len()
        );
        return Err(report.fail("firmware", vec![Witness::descriptor("disk 0", says)]));
    };
    let on = Witness::descriptor(
        "disk 0",
        format!(
            "first boot disk, on {} at {}",
            controller.model,
            place(controller.slot)
        ),
    );
    let Some(fact) = guest.disks.first() else {
        return Err(report.fail(
            "firmware",
            vec![on, Witness::disk("disk 0", "the guest has no disk")],
        ));
    };
    if machine.firmware == Firmware::Efi {
        let system = guest.layout.iter().any(|volume| {
            matches!(
                volume.kind,
                VolumeKind::Partition {
                    disk: 0,
                    type_byte: EFI_SYSTEM,
                    ..
                }
            )
        });
        let found = if system {
            "an EFI system partition"
        } else {
            "no EFI system partition"
        };
        let table = Witness::disk("disk 0 partition table", found);
        if !system {
            return Err(report.fail("firmware", vec![on, table, Witness::quirk("DQ300")]));
        }
        report.unassessed.push(Witness::disk(
            "disk 0 EFI system partition",
            "loaders on FAT are not read",
        ));
    }
    if machine.firmware == Firmware::Pygrub {
        return pygrub(guest, on, report);
    }
    if machine.firmware == Firmware::Bios {
        // A BIOS has code for disks on PCI only: those on a bus of the host's own need a driver first.
        if device(&controller.model).is_some_and(|model| model.bus != Bus::Pci) {
            return Err(report.fail("firmware", vec![on, Witness::quirk("DQ308")]));
        }
        let record = if !fact.boot_signature {
            Some("sector 0 does not end in 55 AA")
        } else if fact.boot_code == BootCode::None {
            Some("sector 0 has no boot code: no boot loader was installed there")
        } else {
            None
        };
        if let Some(says) = record {
            let mut witnesses = vec![on, Witness::disk("disk 0 sector 0", says)];
            let mut others = guest.disks.iter().enumerate().skip(1);
            let other = others.find(|(_, fact)| fact.boot_code == BootCode::Grub);
            if let Some((index, _)) = other {
                let place = format!("disk {index} sector 0");
                witnesses.push(Witness::disk(place, "GRUB's first stage"));
            }
            let quirk = if other.is_some() { "GQ43" } else { "GQ40" };
            witnesses.push(Witness::quirk(quirk));
            return Err(report.fail("firmware", witnesses));
        }
    }
    let code = match fact.boot_code {
        BootCode::Grub => "GRUB's first stage",
        BootCode::Chain => "code that starts the active partition",
        BootCode::None => "nothing a BIOS would run",
    };
    report.pass("firmware", vec![on, Witness::disk("disk 0 sector 0", code)]);
    Ok(0)
}

/// pygrub looks for a boot menu it can read on the first disk; it needs no boot code.
fn pygrub(guest: &Guest, on: Witness, report: &mut BootReport) -> Result<usize, Stop> {
    let loader = match &guest.system {
        System::Linux(system) => system.loader.as_ref(),
        System::Windows(_) => None,
    };
    let here = loader.filter(|loader| {
        let volume = guest.layout.get(loader.volume);
        volume.is_some_and(|volume| volume.disks().contains(&0))
    });
    let Some(loader) = here else {
        let says = "no grub.conf, menu.lst or grub.cfg that pygrub would find";
        let place = Witness::disk("disk 0", says);
        return Err(report.fail("firmware", vec![on, place, Witness::quirk("HQ85")]));
    };
    let says = "menu that pygrub reads";
    report.pass("firmware", vec![on, Witness::file(&loader.path, 0, says)]);
    Ok(0)
}
