//! Windows NT 6.0 and 6.1 from the boot manager to the drivers that must be there before the registry can be read
//! from disk; one missing is STOP 0x7B, `INACCESSIBLE_BOOT_DEVICE`.

use super::{BootReport, Stop, on_machine, tools};
use crate::inspect::{BcdDevice, BootCode, Guest, Service, Sourced, VolumeKind, WindowsSystem};
use crate::os::windows_nt61::{DISK_ID, STACK, channel_ids, critical_ids, has_channels};
use drylab_catalog::device::{Bus, Device, device};
use drylab_catalog::{Clock, Machine, Witness, place};

/// Boots from disk `disk`.
pub(super) fn boot(
    guest: &Guest,
    system: &WindowsSystem,
    machine: &Machine,
    disk: usize,
    report: &mut BootReport,
) -> Result<(), Stop> {
    boot_manager(guest, system, disk, report)?;
    boot_store(guest, system, machine, report)?;
    let set = Witness {
        says: format!("{} is in use", system.control_set.value),
        ..system.control_set.witness.clone()
    };
    report.pass("kernel", vec![system.nt.witness.clone(), set]);
    let seen = tools::seen(system, machine).map_err(|why| report.fail("drivers", why))?;
    if !seen.why.is_empty() {
        report.pass("unplug", seen.why.clone());
    }
    report.unplugged.clone_from(&seen.why);
    report.nics.clone_from(&seen.machine.nics);
    let machine = &seen.machine;
    drivers(guest, system, machine, report)?;
    root(guest, report)?;
    notes(system, machine, report);
    Ok(())
}

/// The master boot record starts the active partition, which has the boot manager.
fn boot_manager(
    guest: &Guest,
    system: &WindowsSystem,
    disk: usize,
    report: &mut BootReport,
) -> Result<(), Stop> {
    const STAGE: &str = "boot-loader";
    if guest
        .disks
        .get(disk)
        .is_some_and(|fact| fact.boot_code == BootCode::Grub)
    {
        report.unassessed.push(Witness::disk(
            format!("disk {disk} sector 0"),
            "GRUB starts here: its way to Windows is not followed",
        ));
        return Ok(());
    }
    let active = guest.layout.iter().enumerate().find(|(_, volume)| {
        matches!(volume.kind, VolumeKind::Partition { disk: on, active: true, .. } if on == disk)
    });
    let Some((index, volume)) = active else {
        let place = Witness::disk(
            format!("disk {disk} partition table"),
            "no active partition",
        );
        return Err(report.fail(STAGE, vec![place]));
    };
    let place = Witness {
        says: format!("{} is active", volume.name()),
        ..volume.witness.clone()
    };
    if !matches!(
        volume.kind,
        VolumeKind::Partition {
            boot_sector: true,
            ..
        }
    ) {
        let says = "the active partition has no boot sector".to_owned();
        return Err(report.fail(STAGE, vec![Witness { says, ..place }]));
    }
    let Some(bcd) = system.bcd.as_ref().filter(|bcd| bcd.volume == index) else {
        let missing = Witness::file(
            "/Boot/BCD",
            0,
            "no readable boot configuration on the active partition",
        );
        return Err(report.fail(STAGE, vec![place, missing]));
    };
    if !bcd.manager {
        let missing = Witness::file("/bootmgr", 0, "BOOTMGR is missing on the active partition");
        return Err(report.fail(STAGE, vec![place, missing]));
    }
    report.pass(
        STAGE,
        vec![
            place,
            Witness::file("/bootmgr", 0, "the boot manager is there"),
        ],
    );
    Ok(())
}

/// The default object's devices mean the partition Windows is on.
fn boot_store(
    guest: &Guest,
    system: &WindowsSystem,
    machine: &Machine,
    report: &mut BootReport,
) -> Result<(), Stop> {
    const STAGE: &str = "boot-configuration";
    let Some(bcd) = &system.bcd else {
        return Ok(());
    };
    let path = |says: &str| Witness::file(&bcd.path, 0, says);
    let Some(default) = &bcd.default else {
        return Err(report.fail(STAGE, vec![path("the boot manager has no default object")]));
    };
    let mut witnesses = vec![default.witness.clone()];
    for (element, what) in [(&bcd.device, "device"), (&bcd.os_device, "osdevice")] {
        let Some(element) = element else {
            witnesses.push(path(&format!("the default object has no {what}")));
            return Err(report.fail(STAGE, witnesses));
        };
        match find(guest, machine, bcd.volume, element, report) {
            Ok(Some(found)) if found == guest.root => witnesses.push(element.witness.clone()),
            Ok(Some(found)) => {
                let name = guest
                    .layout
                    .get(found)
                    .map(|volume| volume.name())
                    .unwrap_or_default();
                witnesses.push(Witness {
                    says: format!("means {name}, which has no Windows"),
                    ..element.witness.clone()
                });
                return Err(report.fail(STAGE, witnesses));
            }
            Ok(None) => {}
            Err(why) => {
                witnesses.extend(why);
                return Err(report.fail(STAGE, witnesses));
            }
        }
    }
    match &bcd.loader {
        Some(loader) if bcd.loader_present => witnesses.push(loader.witness.clone()),
        Some(loader) => {
            witnesses.push(Witness {
                says: format!("{} is not there", loader.value),
                ..loader.witness.clone()
            });
            return Err(report.fail(STAGE, witnesses));
        }
        None => {
            witnesses.push(path("the default object names no loader"));
            return Err(report.fail(STAGE, witnesses));
        }
    }
    report.pass(STAGE, witnesses);
    Ok(())
}

/// Volume a device element means; `None` when that cannot be judged.
fn find(
    guest: &Guest,
    machine: &Machine,
    boot_volume: usize,
    element: &Sourced<BcdDevice>,
    report: &mut BootReport,
) -> Result<Option<usize>, Vec<Witness>> {
    let (signature, offset) = match &element.value {
        BcdDevice::Boot => return Ok(Some(boot_volume)),
        BcdDevice::Mbr { signature, offset } => (*signature, *offset),
        BcdDevice::Gpt { .. } | BcdDevice::Other(_) => {
            report.unassessed.push(element.witness.clone());
            return Ok(None);
        }
    };
    let disks: Vec<usize> = guest
        .disks
        .iter()
        .enumerate()
        .filter(|(_, fact)| fact.signature == signature)
        .map(|(index, _)| index)
        .collect();
    let found = guest.layout.iter().position(|volume| match volume.kind {
        VolumeKind::Partition { disk, start, .. } => {
            start == offset && disks.contains(&disk) && on_machine(&[disk], machine)
        }
        _ => false,
    });
    if let Some(index) = found {
        return match guest
            .layout
            .get(index)
            .and_then(|volume| volume.broken.clone())
        {
            Some(broken) => Err(vec![element.witness.clone(), broken]),
            None => Ok(Some(index)),
        };
    }
    let mut why = vec![element.witness.clone()];
    for (index, fact) in guest.disks.iter().enumerate() {
        why.push(Witness::disk(
            format!("disk {index} offset 0x1b8"),
            format!("disk signature {:08x}", fact.signature),
        ));
    }
    if !disks.is_empty() {
        why.push(Witness::disk(
            "partition table",
            format!("no partition of that disk begins at byte {offset}"),
        ));
    }
    why.push(Witness::quirk("DQ307"));
    Err(why)
}

/// Controller, channel and disk have services that the loader has loaded.
fn drivers(
    guest: &Guest,
    system: &WindowsSystem,
    machine: &Machine,
    report: &mut BootReport,
) -> Result<(), Stop> {
    let disk = guest
        .layout
        .get(guest.root)
        .and_then(|volume| volume.disks().first().copied())
        .unwrap_or(0);
    let on = machine
        .disks
        .get(disk)
        .and_then(|disk| Some((disk.unit, machine.controller_of(disk)?)));
    let Some((unit, controller)) = on else {
        return Err(report.fail(
            "drivers",
            vec![Witness::descriptor(
                format!("disk {disk}"),
                "is not on this machine",
            )],
        ));
    };
    let here = Witness::descriptor(
        format!("disk {disk}"),
        format!("on {} at {}", controller.model, place(controller.slot)),
    );
    let Some(model) = device(&controller.model) else {
        return Err(report.fail(
            "drivers",
            vec![
                here,
                Witness::descriptor(&controller.model, "unknown model"),
            ],
        ));
    };
    if system.driver_database {
        report.unassessed.push(Witness::key(
            "SYSTEM\\DriverDatabase",
            "drivers of NT 6.2 and later are not followed",
        ));
        return Ok(());
    }
    match stack(system, model, unit) {
        Ok(found) => {
            report.disk_names = (0..machine.disks.len().min(guest.disks.len()))
                .map(|index| (index, format!("Disk {index}")))
                .collect();
            report.pass("drivers", std::iter::once(here).chain(found).collect());
            Ok(())
        }
        Err(why) => {
            let quirk = if has_channels(model) { "GQ48" } else { "GQ47" };
            let stop = Witness::key("STOP 0x0000007B", "INACCESSIBLE_BOOT_DEVICE");
            let witnesses = std::iter::once(here)
                .chain(why)
                .chain([stop, Witness::quirk(quirk)])
                .collect();
            Err(report.fail("drivers", witnesses))
        }
    }
}

/// Services from the controller to the volume, or the first that is not there: what differs between machines first.
fn stack(system: &WindowsSystem, model: &Device, unit: u32) -> Result<Vec<Witness>, Vec<Witness>> {
    // What unplugs the emulated disk has loaded the driver of its twin: the database is asked for what is on PCI.
    let mut found = match model.bus {
        Bus::Xen => Vec::new(),
        Bus::Pci | Bus::Vmbus => critical(system, &critical_ids(model))?,
    };
    if has_channels(model) {
        let ids: Vec<String> = channel_ids(unit)
            .iter()
            .map(|id| (*id).to_owned())
            .collect();
        found.extend(critical(system, &ids)?);
    }
    found.extend(critical(system, &[DISK_ID.to_owned()])?);
    for name in STACK {
        let key = format!("SYSTEM\\{}\\Services\\{name}", system.control_set.value);
        let service = system
            .services
            .get(name)
            .ok_or_else(|| vec![Witness::key(key, "no such service")])?;
        found.push(loaded(service).map_err(|why| vec![why])?);
    }
    Ok(found)
}

/// First of the ids that the critical device database knows, with a service that is loaded.
fn critical(system: &WindowsSystem, ids: &[String]) -> Result<Vec<Witness>, Vec<Witness>> {
    let entry = ids.iter().find_map(|id| system.critical_devices.get(id));
    let Some(entry) = entry else {
        let key = format!(
            "SYSTEM\\{}\\Control\\CriticalDeviceDatabase",
            system.control_set.value
        );
        let first = ids.first().map(String::as_str).unwrap_or_default();
        let last = ids.last().map(String::as_str).unwrap_or_default();
        return Err(vec![Witness::key(
            key,
            format!(
                "no entry for any of {} ids from {first} to {last}",
                ids.len()
            ),
        )]);
    };
    let Some(service) = system.services.get(&entry.value.to_lowercase()) else {
        let key = format!(
            "SYSTEM\\{}\\Services\\{}",
            system.control_set.value, entry.value
        );
        return Err(vec![
            entry.witness.clone(),
            Witness::key(key, "no such service"),
        ]);
    };
    let service = loaded(service).map_err(|why| vec![entry.witness.clone(), why])?;
    Ok(vec![entry.witness.clone(), service])
}

/// A driver the loader loads: Start is 0 and its file is there.
fn loaded(service: &Service) -> Result<Witness, Witness> {
    let start = format!("{}, value Start", service.key);
    match service.start {
        Some(0) if service.present => Ok(Witness::key(
            start,
            format!("0, boot; {} is there", service.image),
        )),
        Some(0) => Err(Witness::file(
            &service.image,
            0,
            format!("driver of {} is missing", service.name),
        )),
        Some(number) => Err(Witness::key(
            start,
            format!("{number}, not 0: the loader does not load {}", service.name),
        )),
        None => Err(Witness::key(start, "missing")),
    }
}

/// The system volume is whole.
fn root(guest: &Guest, report: &mut BootReport) -> Result<(), Stop> {
    let Some(volume) = guest.layout.get(guest.root) else {
        return Ok(());
    };
    if let Some(broken) = &volume.broken {
        return Err(report.fail("root", vec![volume.witness.clone(), broken.clone()]));
    }
    report.root_device = Some(volume.name());
    report.pass("root", vec![volume.witness.clone()]);
    Ok(())
}

/// Risks of a boot that goes on.
fn notes(system: &WindowsSystem, machine: &Machine, report: &mut BootReport) {
    let intel = system
        .services
        .get("intelppm")
        .filter(|service| service.start.is_some_and(|start| start < 4));
    if let Some(service) = intel.filter(|_| machine.cpu.vendor != "GenuineIntel") {
        let says = format!(
            "Intel's processor driver starts on a {} CPU",
            machine.cpu.vendor
        );
        report
            .notes
            .extend([Witness::key(&service.key, says), Witness::quirk("GQ56")]);
    }
    let utc = machine.clock == Clock::Utc;
    if system.clock_utc.value != utc {
        let says = format!(
            "the machine's clock chip counts {}",
            if utc { "UTC" } else { "local time" }
        );
        report.notes.extend([
            system.clock_utc.witness.clone(),
            Witness::descriptor("clock", says),
            Witness::quirk("GQ57"),
        ]);
    }
}
