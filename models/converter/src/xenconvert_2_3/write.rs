//! A machine as a package of VHDs, an OVF or an XVA.

use super::{Options, Output, Vm};
use crate::ToolError;
use drylab_appliance::Package;
use drylab_appliance::ovf::{Producer, XenDescription, XenDisk, XenNic, write_xen};
use drylab_appliance::xva::{self, Drive, Machine, Nic, VirtualDisk};
use drylab_block::{ReadAt, SparseBytes};
use drylab_catalog::Witness;
use drylab_image::vhd::Creator;
use drylab_image::{Target, VhdOptions};
use std::sync::Arc;

/// Name of the local storage of a XenServer.
const STORAGE: &str = "Local storage";

/// The package, and what is to be known of it.
pub(super) fn write(vm: &Vm, options: &Options) -> Result<(Package, Vec<Witness>), ToolError> {
    match options.output {
        Output::XenServer | Output::Xva => Ok((archive(vm, options)?, Vec::new())),
        Output::Vhd => Ok((vhds(vm)?, vec![Witness::quirk("GQ136")])),
        Output::Ovf => {
            let mut package = vhds(vm)?;
            package.descriptor = format!("{}.ovf", vm.name);
            let text = write_xen(&description(vm, &package, options))?;
            package.put(package.descriptor.clone(), Arc::new(text));
            Ok((
                package,
                vec![Witness::quirk("GQ135"), Witness::quirk("GQ136")],
            ))
        }
    }
}

/// Dynamic VHDs, the size kept.
fn vhds(vm: &Vm) -> Result<Package, ToolError> {
    let mut package = Package::default();
    let target = Target::VhdDynamic(VhdOptions {
        creator: Creator::XEN_CONVERT,
        creator_version: 0x0002_0003,
        ..VhdOptions::default()
    });
    for (number, disk) in vm.disks.iter().enumerate() {
        let name = if number == 0 {
            format!("{}.vhd", vm.name)
        } else {
            format!("{}-{number}.vhd", vm.name)
        };
        let file = SparseBytes::default();
        drylab_image::write(&*disk.bytes, &target, &file)?;
        package.disks.push(name.clone());
        package.put(name, Arc::new(file));
    }
    Ok(package)
}

fn description(vm: &Vm, package: &Package, options: &Options) -> XenDescription {
    let files = package.disks.iter().zip(&vm.disks).zip(0u32..);
    XenDescription {
        producer: Producer::XenConvert,
        name: vm.name.clone(),
        is_hvm: vm.is_hvm,
        cpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        os_id: 0,
        disks: files
            .map(|((file, disk), device)| XenDisk {
                file: file.clone(),
                file_bytes: package.files.get(file).map_or(0, |file| file.len()),
                capacity: disk.bytes.len(),
                bootable: device == 0,
                device,
            })
            .collect(),
        cd_roms: (0..vm.cd_roms.min(1)).map(|_| 3).collect(),
        nics: vm
            .macs
            .iter()
            .zip(0u32..)
            .map(|(mac, device)| XenNic {
                mac: mac.clone(),
                network: options.network.clone(),
                device,
            })
            .collect(),
        other: vm.other.clone(),
    }
}

/// A machine that boots by firmware from its first disk, with the platform of XenServer's template for Windows.
fn machine(vm: &Vm, options: &Options) -> Machine {
    let pairs = |pairs: &[(&str, &str)]| -> xva::Pairs {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    };
    let memory = vm.memory_mib << 20;
    let disks = vm.disks.iter().zip(0u32..).map(|(disk, number)| Drive {
        userdevice: number.to_string(),
        bootable: number == 0,
        disk: Some(VirtualDisk {
            name: format!("{} {number}", vm.name),
            size: disk.bytes.len(),
            storage: STORAGE.to_owned(),
            ..VirtualDisk::default()
        }),
        ..Drive::default()
    });
    let cd = (0..vm.cd_roms.min(1)).map(|_| Drive {
        userdevice: "3".to_owned(),
        read_only: true,
        is_cd: true,
        ..Drive::default()
    });
    Machine {
        name: vm.name.clone(),
        memory_static_max: memory,
        memory_dynamic_max: memory,
        memory_dynamic_min: memory,
        memory_static_min: memory,
        vcpus_max: vm.vcpus,
        vcpus_at_startup: vm.vcpus,
        hvm_boot_policy: "BIOS order".to_owned(),
        hvm_boot_params: pairs(&[("order", "dc")]),
        platform: pairs(&[
            ("acpi", "true"),
            ("apic", "true"),
            ("nx", "true"),
            ("pae", "true"),
            ("viridian", "true"),
        ]),
        drives: disks.chain(cd).collect(),
        nics: vm
            .macs
            .iter()
            .zip(0u32..)
            .map(|(mac, device)| Nic {
                device,
                mac: mac.clone().unwrap_or_default(),
                is_generated: mac.is_none(),
                mtu: 1500,
                network: options.network.clone(),
                other_config: Vec::new(),
            })
            .collect(),
        ..Machine::default()
    }
}

fn archive(vm: &Vm, options: &Options) -> Result<Package, ToolError> {
    let appliance = machine(vm, options).appliance();
    // The ids are the ones the records got.
    let made = appliance.machine()?;
    let ids = made.drives.iter().filter_map(|drive| drive.disk.as_ref());
    let disks: Vec<(&str, &dyn ReadAt)> = ids
        .zip(&vm.disks)
        .map(|(record, disk)| {
            let bytes: &dyn ReadAt = &*disk.bytes;
            (record.id.as_str(), bytes)
        })
        .collect();
    let file = SparseBytes::default();
    xva::write(&appliance, &disks, &file)?;
    let name = format!("{}.xva", vm.name);
    let mut package = Package {
        descriptor: name.clone(),
        ..Package::default()
    };
    package.put(name, Arc::new(file));
    Ok(package)
}
