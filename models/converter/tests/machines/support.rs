//! What the tests of converters of whole machines share: golden guests, machines to boot them on, folders of VMware.

use drylab_appliance::{Package, vmx};
use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_catalog::{
    Clock, Controller, Cpu, Disk, Firmware, Mac, Machine, Memory, Nic, PciAddress, ProductId,
    Smbios, Witness,
};
use drylab_guest::inspect::{Guest, GuestDisk, inspect};
use std::path::Path;
use std::sync::Arc;

pub(crate) const LIMITS: Limits = Limits::DEFAULT;
pub(crate) const MAC: Mac = Mac([0x00, 0x0c, 0x29, 0x4f, 0x8e, 0x35]);

fn file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../corpora/guests")
        .join(path);
    std::fs::read(&path).unwrap()
}

/// A guest as it was installed on ESXi.
pub(crate) fn golden(guest: &str) -> Arc<dyn ReadAt> {
    installed(guest, "esxi-5.0.0")
}

/// A guest as it was installed on a product.
pub(crate) fn installed(guest: &str, source: &str) -> Arc<dyn ReadAt> {
    let base: Arc<dyn ReadAt> = Arc::new(file(&format!("{guest}/base.qcow2")));
    let base = Arc::new(drylab_image::open(base, &LIMITS).unwrap());
    let delta = Delta::parse(&file(&format!("{guest}/{source}.delta")), base.len()).unwrap();
    Arc::new(Overlay::with_delta(base, &delta))
}

/// The machine's folder on the datastore, its first disk with these bytes.
pub(crate) fn folder(disk: Arc<dyn ReadAt>, file_name: &str) -> Package {
    let machine = vmx::Machine {
        name: "web 1".to_owned(),
        guest_os: "centos-64".to_owned(),
        memory_mib: 1024,
        cpus: 2,
        uuid: [0x42; 16],
        scsi: Some("lsilogic".to_owned()),
        disks: vec![("scsi0:0".to_owned(), file_name.to_owned())],
        cd_rom: Some("ide1:0".to_owned()),
        nics: vec![vmx::Adapter {
            model: "e1000".to_owned(),
            network: "VM Network".to_owned(),
            mac: MAC.0,
            is_static: false,
            pci_slot: 32,
        }],
    };
    let mut package = Package {
        descriptor: "web 1.vmx".to_owned(),
        disks: vec![file_name.to_owned()],
        ..Package::default()
    };
    package.put(
        "web 1.vmx",
        Arc::new(machine.configuration().print().unwrap().into_bytes()),
    );
    package.put(file_name, Arc::new(b"# Disk DescriptorFile\n".to_vec()));
    package.put("web-flat.vmdk", disk);
    package
}

/// A machine with one disk and one adapter.
pub(crate) fn machine(controller: &str, nic: &str, bytes: u64) -> Machine {
    let slot = |device| {
        Some(PciAddress {
            bus: 0,
            device,
            function: 0,
        })
    };
    Machine {
        product: ProductId::from("kvm-centos-6.3"),
        name: "web 1".to_owned(),
        uuid: String::new(),
        firmware: Firmware::Bios,
        xen_platform: false,
        chipset: "i440FX".to_owned(),
        smbios: Smbios::default(),
        cpu: Cpu {
            brand: "QEMU Virtual CPU version (cpu64-rhel6)".to_owned(),
            vendor: "GenuineIntel".to_owned(),
            khz: 2_400_000,
            vcpus: 2,
            features: Vec::new(),
            hypervisor: "KVMKVMKVM".to_owned(),
        },
        memory: Memory {
            mib: 1024,
            reserved_kib: 0,
        },
        controllers: vec![Controller {
            model: controller.to_owned(),
            slot: slot(4),
        }],
        disks: vec![Disk {
            controller: 0,
            unit: 0,
            bytes,
        }],
        cdroms: Vec::new(),
        nics: vec![Nic {
            model: nic.to_owned(),
            mac: MAC,
            slot: slot(3),
            network: "br0".to_owned(),
        }],
        clock: Clock::Utc,
    }
}

pub(crate) fn inspected(disk: &GuestDisk) -> Guest {
    inspect(std::slice::from_ref(disk), &LIMITS).unwrap()
}

pub(crate) fn cites(witnesses: &[Witness], id: &str) -> bool {
    witnesses.contains(&Witness::quirk(id))
}
