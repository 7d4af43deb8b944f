//! XenCenter: File, Export, as OVF package or as XVA.

use super::{Convert, ExportError, Exported};
use crate::console::mac_from_seed;
use drylab_appliance::ovf::{self, Producer, XenDescription, XenDisk, XenNic};
use drylab_appliance::{Package, xva};
use drylab_block::{ReadAt, SparseBytes};
use drylab_catalog::{Clock, Firmware, Machine, Nic, Witness};
use drylab_image::vhd::Creator;
use drylab_image::{Target, VhdOptions};
use std::sync::Arc;

/// The library that XenCenter writes VHDs with.
const DISC_UTILS: Creator = Creator(*b"dutl");
/// Boot order of a new HVM machine: CD-ROM, then disk.
const BOOT_ORDER: &str = "dc";
/// What the guest has set its clock chip to beside UTC, in seconds (xen-api ocaml/xenops: platform:timeoffset): a guest
/// that keeps local time in it sets it once.
pub(crate) const TIME_OFFSET: &str = "timeoffset";
/// Whether there is an offset counts here, not how large it is.
const AN_HOUR_AHEAD: &str = "3600";
/// A CD-ROM drive is the fourth device.
const CD_DEVICE: u32 = 3;

/// How a machine boots and what it is shown, in XenServer's words, as both exports have it.
fn platform(machine: &Machine) -> Vec<(&'static str, &'static str)> {
    if !is_hvm(machine) {
        return vec![("nx", "false")];
    }
    let mut pairs = vec![
        ("acpi", "true"),
        ("apic", "true"),
        ("nx", "true"),
        ("pae", "true"),
    ];
    if machine.clock == Clock::Localtime {
        pairs.push((TIME_OFFSET, AN_HOUR_AHEAD));
    }
    pairs
}

fn is_hvm(machine: &Machine) -> bool {
    machine.firmware != Firmware::Pygrub
}

/// File, Export, OVF Package: descriptor and dynamic VHDs, copied out by the Transfer VM (see
/// [`transfer_vm`](crate::transfer_vm)). The machine is halted.
///
/// The operating system is id 0 (quirk HQ10): no tools reported it. Static and dynamic memory are alike.
///
/// # Errors
/// [`ExportError`].
pub fn xencenter_export_ovf(
    from: &Exported<'_>,
    convert: Convert<'_>,
) -> Result<Package, ExportError> {
    let machine = from.machine;
    let mut package = Package {
        descriptor: format!("{}.ovf", machine.name),
        ..Package::default()
    };
    let mut disks = Vec::new();
    for (device, bytes) in (0u32..).zip(from.disks) {
        let name = format!("{}-{device}.vhd", machine.name);
        let options = VhdOptions {
            creator: DISC_UTILS,
            ..VhdOptions::default()
        };
        let file = convert(bytes, &Target::VhdDynamic(options))?;
        disks.push(XenDisk {
            file: name.clone(),
            file_bytes: file.len(),
            capacity: bytes.len(),
            bootable: device == 0,
            device,
        });
        package.disks.push(name.clone());
        package.put(name, file);
    }
    let nics = (0u32..).zip(&machine.nics).map(|(device, nic)| XenNic {
        mac: Some(nic.mac.to_string()),
        network: nic.network.clone(),
        device,
    });
    let text = ovf::write_xen(&XenDescription {
        producer: Producer::XenCenter,
        name: machine.name.clone(),
        is_hvm: is_hvm(machine),
        cpus: machine.cpu.vcpus,
        memory_mib: machine.memory.mib,
        os_id: 0,
        disks,
        cd_roms: machine.cdroms.iter().map(|_| CD_DEVICE).collect(),
        nics: nics.collect(),
        other: other(machine),
    })?;
    package.put(package.descriptor.clone(), Arc::new(text));
    Ok(package)
}

/// What an OVF package of XenCenter does not say of a machine, or says to XenCenter alone.
#[must_use]
pub fn xencenter_export_notes(machine: &Machine) -> Vec<Witness> {
    let paravirtual = (!is_hvm(machine)).then(|| Witness::quirk("HQ09"));
    [Witness::quirk("HQ10")]
        .into_iter()
        .chain(paravirtual)
        .collect()
}

/// Citrix' own elements.
fn other(machine: &Machine) -> Vec<(String, String)> {
    let hvm = is_hvm(machine);
    let platform: Vec<String> = platform(machine)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let platform = platform.join(";");
    let words: [(&str, &str); 4] = [
        ("HVM_boot_policy", if hvm { "BIOS order" } else { "" }),
        ("HVM_boot_params", if hvm { BOOT_ORDER } else { "" }),
        ("PV_bootloader", if hvm { "" } else { "pygrub" }),
        ("platform", &platform),
    ];
    let there = words.into_iter().filter(|(_, value)| !value.is_empty());
    there
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// File, Export, XVA File: one archive, which XenServer itself writes; no Transfer VM is needed.
///
/// # Errors
/// [`ExportError`].
pub fn xva_export(from: &Exported<'_>) -> Result<Package, ExportError> {
    let machine = from.machine;
    let hvm = is_hvm(machine);
    let bytes = machine.memory.mib.saturating_mul(1 << 20);
    let pairs = |list: &[(&str, &str)]| -> xva::Pairs {
        list.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let text = |when: bool, text: &str| if when { text } else { "" }.to_owned();
    let disks = (0u32..).zip(from.disks).map(|(device, disk)| xva::Drive {
        userdevice: device.to_string(),
        bootable: device == 0,
        disk: Some(xva::VirtualDisk {
            uuid: uuid_of(machine, device),
            name: format!("{} {device}", machine.name),
            size: disk.len(),
            storage: "Local storage".to_owned(),
            ..xva::VirtualDisk::default()
        }),
        ..xva::Drive::default()
    });
    let cd_roms = machine.cdroms.iter().map(|_| xva::Drive {
        userdevice: CD_DEVICE.to_string(),
        read_only: true,
        is_cd: true,
        ..xva::Drive::default()
    });
    let nics = (0u32..).zip(&machine.nics);
    let records = xva::Machine {
        uuid: machine.uuid.clone(),
        name: machine.name.clone(),
        memory_static_max: bytes,
        memory_dynamic_max: bytes,
        memory_dynamic_min: bytes,
        memory_static_min: bytes,
        vcpus_max: machine.cpu.vcpus,
        vcpus_at_startup: machine.cpu.vcpus,
        hvm_boot_policy: text(hvm, "BIOS order"),
        hvm_boot_params: if hvm {
            pairs(&[("order", BOOT_ORDER)])
        } else {
            Vec::new()
        },
        pv_bootloader: text(!hvm, "pygrub"),
        platform: pairs(&platform(machine)),
        other_config: match from.mac_seed {
            Some(seed) => pairs(&[("mac_seed", seed)]),
            None => Vec::new(),
        },
        drives: disks.chain(cd_roms).collect(),
        nics: nics
            .map(|(device, nic)| interface(device, nic, from.mac_seed))
            .collect(),
        ..xva::Machine::default()
    };
    let appliance = records.appliance();
    let ids: Vec<String> = appliance
        .machine()?
        .drives
        .into_iter()
        .filter_map(|drive| Some(drive.disk?.id))
        .collect();
    let bytes: Vec<(&str, &dyn ReadAt)> = ids
        .iter()
        .zip(from.disks)
        .map(|(id, disk)| (id.as_str(), &**disk))
        .collect();
    let archive = SparseBytes::default();
    xva::write(&appliance, &bytes, &archive)?;
    let name = format!("{}.xva", machine.name);
    let mut package = Package {
        descriptor: name.clone(),
        ..Package::default()
    };
    package.put(name, Arc::new(archive));
    Ok(package)
}

/// An adapter; its address was generated when it is the one that the seed gives, else somebody typed it.
fn interface(device: u32, nic: &Nic, seed: Option<&str>) -> xva::Nic {
    let of_seed = seed
        .zip(u8::try_from(device).ok())
        .map(|(seed, device)| mac_from_seed(seed, device));
    xva::Nic {
        device,
        mac: nic.mac.to_string(),
        is_generated: of_seed == Some(nic.mac),
        mtu: 1500,
        network: nic.network.clone(),
        other_config: Vec::new(),
    }
}

/// A UUID for a disk that depends on the machine's own and on the disk's number.
fn uuid_of(machine: &Machine, device: u32) -> String {
    let stem = machine.uuid.get(..28).unwrap_or_default();
    format!("{stem}{:08x}", device.saturating_add(1))
}
