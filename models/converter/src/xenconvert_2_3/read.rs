//! What each source says of a machine.

use super::{Asked, Vm, failed, guest_disk};
use crate::ToolError;
use crate::converted::{Power, SourceMachine};
use crate::files::{Beside, open_disk};
use drylab_appliance::ovf::{self, Envelope, HostResource, VirtualSystem, resource};
use drylab_appliance::vmx::Vmx;
use drylab_appliance::xva::Xva;
use drylab_appliance::{Package, safe_href};
use drylab_block::Limits;
use drylab_catalog::Witness;
use drylab_guest::inspect::{GuestDisk, System, inspect};
use drylab_image::{VhdSize, vhd::is_child};
use std::sync::Arc;

/// The machine under the tool: Windows, running.
pub(super) fn this_machine(source: &SourceMachine<'_>) -> Result<Vm, ToolError> {
    let machine = source.machine;
    if source.power == Power::Off {
        return Err(failed("the tool runs on the machine that it converts")
            .because(Witness::descriptor(machine.name.clone(), "switched off")));
    }
    let guest = inspect(source.disks, &Limits::DEFAULT).map_err(|error| {
        failed("the tool does not run here").because(Witness::disk("inspection", error.to_string()))
    })?;
    if let System::Linux(_) = guest.system {
        return Err(failed("the tool runs on Windows only")
            .because(guest.os.pretty.witness.clone())
            .because(Witness::quirk("GQ134")));
    }
    let mut notes = vec![Witness::quirk("GQ132")];
    if !machine.nics.is_empty() {
        notes.push(Witness::quirk("DQ516"));
    }
    Ok(Vm {
        name: machine.name.clone(),
        vcpus: machine.cpu.vcpus,
        memory_mib: machine.memory.mib,
        disks: source.disks.to_vec(),
        macs: vec![None; machine.nics.len()],
        cd_roms: u32::from(!machine.cdroms.is_empty()),
        is_hvm: true,
        other: Vec::new(),
        notes,
    })
}

/// An OVF package, or a machine's folder.
pub(super) fn vmware(package: &Package) -> Result<Vm, ToolError> {
    let text = package.text(&package.descriptor, &Limits::DEFAULT)?;
    if package.descriptor.to_lowercase().ends_with(".vmx") {
        let vmx = Vmx::parse(&text, &Limits::DEFAULT)?;
        return of_vmx(package, &vmx);
    }
    let envelope = ovf::parse(&text, &Limits::DEFAULT)?;
    let system = envelope
        .systems
        .first()
        .ok_or_else(|| failed("the package describes no virtual machine"))?;
    of_ovf(package, &envelope, system)
}

fn of_vmx(package: &Package, vmx: &Vmx) -> Result<Vm, ToolError> {
    let number = |key: &str| vmx.get(key).and_then(|text| text.trim().parse().ok());
    let disks = package
        .disks
        .iter()
        .map(|name| image(package, name))
        .collect::<Result<Vec<_>, ToolError>>()?;
    let adapters = (0..10).filter(|number| vmx.is_true(&format!("ethernet{number}.present")));
    Ok(Vm {
        name: vmx.get("displayName").unwrap_or_default().to_owned(),
        vcpus: number("numvcpus")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1),
        memory_mib: number("memsize").unwrap_or(32u64),
        disks,
        macs: adapters.map(|_| None).collect(),
        cd_roms: 1,
        is_hvm: true,
        other: Vec::new(),
        notes: Vec::new(),
    })
}

fn of_ovf(package: &Package, envelope: &Envelope, system: &VirtualSystem) -> Result<Vm, ToolError> {
    let items = system.items();
    let of_kind = |kind| items.iter().filter(move |item| item.resource_type == kind);
    let memory = of_kind(resource::MEMORY).next();
    let memory_mib = match memory {
        Some(item) => u64::try_from(item.memory_bytes()?.bytes >> 20).unwrap_or(u64::MAX),
        None => 512,
    };
    let vcpus = of_kind(resource::CPU)
        .next()
        .and_then(|item| item.virtual_quantity)
        .and_then(|count| u32::try_from(count).ok());
    let mut disks = Vec::new();
    for item in of_kind(resource::DISK).chain(of_kind(resource::STORAGE_EXTENT)) {
        let Some(HostResource::Disk(id)) = item.backing() else {
            continue;
        };
        let declared = envelope.disks.iter().find(|disk| disk.disk_id == id);
        let file = declared
            .and_then(|disk| disk.file_ref.as_deref())
            .and_then(|id| envelope.references.iter().find(|file| file.id == id))
            .ok_or_else(|| failed(format_args!("disk {id:?} has no file")))?;
        disks.push(image(package, &safe_href(&file.href)?)?);
    }
    if disks.is_empty() {
        return Err(failed("the package has no disks"));
    }
    let cds = of_kind(resource::CD).chain(of_kind(resource::DVD)).count();
    Ok(Vm {
        name: system.name.clone().unwrap_or_else(|| system.id.clone()),
        vcpus: vcpus.unwrap_or(1),
        memory_mib,
        disks,
        macs: of_kind(resource::ETHERNET)
            .map(|item| item.address.clone())
            .collect(),
        cd_roms: u32::try_from(cds).unwrap_or(0),
        is_hvm: true,
        other: Vec::new(),
        notes: Vec::new(),
    })
}

fn image(package: &Package, name: &str) -> Result<GuestDisk, ToolError> {
    let file = package.file(name)?.clone();
    let disk = open_disk(file, &Beside(package)).map_err(|error| {
        failed(format_args!("{name} is not read")).because(Witness::disk(name, error.to_string()))
    })?;
    Ok(guest_disk(disk))
}

/// VHDs, whose current size counts.
pub(super) fn vhd(package: &Package, asked: &Asked<'_>) -> Result<Vm, ToolError> {
    let mut disks = Vec::new();
    for name in &package.disks {
        let file = package.file(name)?;
        let image = drylab_image::open_vhd(file.clone(), VhdSize::Current, &Limits::DEFAULT);
        let image = image.map_err(|error| {
            let failed = failed(format_args!("{name} is not read"))
                .because(Witness::disk(name.clone(), error.to_string()));
            match is_child(file) {
                true => failed.because(Witness::quirk("GQ143")),
                false => failed,
            }
        })?;
        disks.push(guest_disk(Arc::new(image)));
    }
    if disks.is_empty() {
        return Err(failed("no VHD was given"));
    }
    Ok(Vm {
        name: asked.name.to_owned(),
        vcpus: asked.vcpus,
        memory_mib: asked.memory_mib,
        disks,
        macs: vec![None],
        cd_roms: 1,
        is_hvm: true,
        other: Vec::new(),
        notes: Vec::new(),
    })
}

/// An XVA: only repackaged.
pub(super) fn xva(package: &Package) -> Result<Vm, ToolError> {
    let (name, file) = package
        .files
        .iter()
        .find(|(name, _)| name.to_lowercase().ends_with(".xva"))
        .ok_or_else(|| failed("no XVA was given"))?;
    let archive = Xva::open(file.clone(), &Limits::DEFAULT).map_err(|error| {
        failed(format_args!("{name} is not read"))
            .because(Witness::disk(name.clone(), error.to_string()))
    })?;
    let machine = archive.appliance.machine()?;
    let mut disks = Vec::new();
    for drive in &machine.drives {
        if let Some(disk) = &drive.disk {
            disks.push(guest_disk(Arc::new(archive.disk(&disk.id)?.clone())));
        }
    }
    let mut notes = Vec::new();
    if !machine.is_hvm() {
        let says = format!("PV_bootloader {:?}", machine.pv_bootloader);
        notes.push(Witness::descriptor(machine.name.clone(), says));
        notes.push(Witness::quirk("GQ137"));
    }
    let other = [
        ("HVM_boot_policy", &machine.hvm_boot_policy),
        ("PV_bootloader", &machine.pv_bootloader),
        ("PV_bootloader_args", &machine.pv_bootloader_args),
        ("PV_args", &machine.pv_args),
    ];
    Ok(Vm {
        vcpus: machine.vcpus_at_startup,
        memory_mib: machine.memory_dynamic_max >> 20,
        disks,
        macs: machine
            .nics
            .iter()
            .map(|nic| Some(nic.mac.clone()).filter(|mac| !mac.is_empty()))
            .collect(),
        cd_roms: machine
            .drives
            .iter()
            .map(|drive| u32::from(drive.is_cd))
            .sum(),
        is_hvm: machine.is_hvm(),
        other: other
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), (*value).clone()))
            .collect(),
        notes,
        name: machine.name,
    })
}
