//! What a product gives out of a machine it holds.

mod hyperv;
mod xenserver;

pub use hyperv::hyperv_export;
pub(crate) use xenserver::TIME_OFFSET;
pub use xenserver::{xencenter_export_notes, xencenter_export_ovf, xva_export};

use crate::facts::{Facts, Missing};
use drylab_appliance::manifest::{Algorithm, Manifest};
use drylab_appliance::{Package, libvirt, ovf, vmx};
use drylab_block::{Error, ReadAt};
use drylab_catalog::device::{Class, device};
use drylab_catalog::{Clock, Machine};
use drylab_image::{Adapter, FlatKind, Target, VmdkOptions};
use std::sync::Arc;

/// `CID` of a disk that nothing was written to through a descriptor yet, as ESXi puts it there.
const NEW_DISK: u32 = 0xffff_fffe;

/// A machine to export.
#[derive(Clone)]
pub struct Exported<'a> {
    /// Its hardware.
    pub machine: &'a Machine,
    /// Key of the guest its administrator said it is.
    pub guest: &'a str,
    /// Guest-visible bytes of its disks.
    pub disks: &'a [Arc<dyn ReadAt>],
    /// The seed of its adapters' addresses, on a product that computes them.
    pub mac_seed: Option<&'a str>,
    /// What its first disk held at each snapshot, oldest first; none without snapshots.
    pub snapshots: &'a [Arc<dyn ReadAt>],
}

/// Why an export did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// A fact is not known, so that nobody can say.
    Missing(Missing),
    /// The bytes could not be read or written.
    Bytes(Error),
}

impl From<Missing> for ExportError {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<Error> for ExportError {
    fn from(error: Error) -> Self {
        Self::Bytes(error)
    }
}

/// Puts a disk into a container; the caller decides whether it remembers the result.
pub type Convert<'a> =
    &'a dyn Fn(&Arc<dyn ReadAt>, &Target) -> drylab_block::Result<Arc<dyn ReadAt>>;

/// File, Export, Export OVF Template: descriptor, manifest, stream-optimized disks. No MAC address (quirk HQ36).
///
/// # Errors
/// [`ExportError`].
pub fn vsphere_export_ovf(
    facts: &Facts<'_>,
    from: &Exported<'_>,
    convert: Convert<'_>,
) -> Result<Package, ExportError> {
    let machine = from.machine;
    let mut package = Package {
        descriptor: format!("{}.ovf", machine.name),
        ..Package::default()
    };
    let mut disks = Vec::new();
    for (number, (disk, bytes)) in machine.disks.iter().zip(from.disks).enumerate() {
        let name = format!("{}-disk{}.vmdk", machine.name, number + 1);
        let adapter = adapter_of(machine, disk);
        let options = VmdkOptions {
            adapter,
            file_name: name.clone(),
            ..VmdkOptions::default()
        };
        let file = convert(bytes, &Target::VmdkStream(options))?;
        let attach = match adapter {
            Adapter::Ide => ovf::Attach::Ide {
                controller: disk.unit / 2,
                unit: disk.unit % 2,
            },
            _ => ovf::Attach::Scsi {
                controller: 0,
                unit: disk.unit,
            },
        };
        disks.push(ovf::Disk {
            file: Some((name.clone(), file.len())),
            capacity: bytes.len(),
            populated: None,
            attach,
        });
        package.disks.push(name.clone());
        package.put(name, file);
    }
    let text = ovf::write(&description(facts, from, disks)?)?;
    package.put(package.descriptor.clone(), Arc::new(text));
    let names: Vec<String> = std::iter::once(package.descriptor.clone())
        .chain(package.disks.clone())
        .collect();
    let files: Vec<(&str, &dyn ReadAt)> = names
        .iter()
        .filter_map(|name| Some((name.as_str(), &**package.files.get(name)?)))
        .collect();
    let manifest = Manifest::of(Algorithm::Sha1, &files)?.print();
    package.put(
        format!("{}.mf", machine.name),
        Arc::new(manifest.into_bytes()),
    );
    Ok(package)
}

fn description(
    facts: &Facts<'_>,
    from: &Exported<'_>,
    disks: Vec<ovf::Disk>,
) -> Result<ovf::Description, ExportError> {
    let machine = from.machine;
    let name_of = |model: &str| {
        facts
            .text(&format!("ovf.name.{model}"))
            .map(|known| known.value.to_owned())
    };
    let scsi = machine
        .controllers
        .iter()
        .filter(|controller| is_scsi(&controller.model));
    let scsi = scsi
        .map(|controller| {
            Ok(ovf::ScsiController {
                sub_type: name_of(&controller.model)?,
                pci_slot: None,
            })
        })
        .collect::<Result<Vec<_>, Missing>>()?;
    let nics = machine
        .nics
        .iter()
        .map(|nic| {
            Ok(ovf::Nic {
                model: name_of(&nic.model)?,
                network: nic.network.clone(),
                pci_slot: None,
            })
        })
        .collect::<Result<Vec<_>, Missing>>()?;
    let os_id = facts.number(&format!("ovf.os-id.{}", from.guest))?.value;
    Ok(ovf::Description {
        name: machine.name.clone(),
        generated_by: None,
        build: None,
        os_id: u16::try_from(os_id).unwrap_or(1),
        os_type: facts
            .text(&format!("guest-id.{}", from.guest))?
            .value
            .to_owned(),
        os_description: None,
        system_types: vec![facts.text("ovf.family-written")?.value.to_owned()],
        cpus: machine.cpu.vcpus,
        cores_per_socket: None,
        memory_mib: machine.memory.mib,
        scsi,
        disks,
        cd_roms: machine
            .cdroms
            .iter()
            .map(|cd| ovf::CdRom {
                controller: cd.unit / 2,
                unit: cd.unit % 2,
                sub_type: "vmware.cdrom.iso".to_owned(),
            })
            .collect(),
        floppy: false,
        nics,
        configs: Vec::new(),
        annotation: None,
    })
}

fn is_scsi(model: &str) -> bool {
    device(model).is_some_and(|device| device.class == Class::Scsi)
}

fn adapter_of(machine: &Machine, disk: &drylab_catalog::Disk) -> Adapter {
    match machine
        .controller_of(disk)
        .map(|controller| controller.model.as_str())
    {
        Some("buslogic") => Adapter::BusLogic,
        Some(model) if is_scsi(model) => Adapter::LsiLogic,
        _ => Adapter::Ide,
    }
}

/// The machine's folder on the datastore: configuration, disk descriptor, flat extent.
///
/// # Errors
/// [`ExportError`].
pub fn datastore_copy(facts: &Facts<'_>, from: &Exported<'_>) -> Result<Package, ExportError> {
    let machine = from.machine;
    let mut package = Package {
        descriptor: format!("{}.vmx", machine.name),
        ..Package::default()
    };
    let mut places = Vec::new();
    for (number, (disk, bytes)) in machine.disks.iter().zip(from.disks).enumerate() {
        let stem = if number == 0 {
            machine.name.clone()
        } else {
            format!("{}_{number}", machine.name)
        };
        let adapter = adapter_of(machine, disk);
        let text = vmfs_descriptor(&stem, adapter, &**bytes)?;
        package.put(format!("{stem}.vmdk"), Arc::new(text.into_bytes()));
        package.put(format!("{stem}-flat.vmdk"), bytes.clone());
        package.disks.push(format!("{stem}.vmdk"));
        let place = match adapter {
            Adapter::Ide => format!("ide{}:{}", disk.unit / 2, disk.unit % 2),
            _ => format!("scsi0:{}", disk.unit),
        };
        places.push((place, format!("{stem}.vmdk")));
    }
    let scsi = machine
        .controllers
        .iter()
        .find(|controller| is_scsi(&controller.model));
    let configuration = vmx::Machine {
        name: machine.name.clone(),
        guest_os: facts
            .text(&format!("vmx.guest-os.{}", from.guest))?
            .value
            .to_owned(),
        memory_mib: machine.memory.mib,
        cpus: machine.cpu.vcpus,
        uuid: uuid_bytes(&machine.uuid),
        scsi: scsi.map(|controller| vmx_name(&controller.model).to_owned()),
        disks: places,
        cd_rom: machine
            .cdroms
            .first()
            .map(|cd| format!("ide{}:{}", cd.unit / 2, cd.unit % 2)),
        nics: machine
            .nics
            .iter()
            .map(|nic| vmx::Adapter {
                model: vmx_name(&nic.model).to_owned(),
                network: nic.network.clone(),
                mac: nic.mac.0,
                is_static: false,
                pci_slot: 32,
            })
            .collect(),
    };
    package.put(
        package.descriptor.clone(),
        Arc::new(configuration.configuration().print()?.into_bytes()),
    );
    Ok(package)
}

/// `virtualDev` values (libvirt src/vmx/vmx.c lists them).
pub(crate) const VMX_NAMES: [(&str, &str); 7] = [
    ("lsilogic", "lsilogic"),
    ("lsisas1068", "lsisas1068"),
    ("buslogic", "buslogic"),
    ("pvscsi", "pvscsi"),
    ("e1000-82545em", "e1000"),
    ("vmxnet3", "vmxnet3"),
    ("vlance", "vlance"),
];

fn vmx_name(model: &str) -> &str {
    VMX_NAMES
        .iter()
        .find(|(known, _)| *known == model)
        .map_or(model, |(_, name)| name)
}

/// The descriptor of a VMFS disk, whose bytes stand in the flat extent beside it: of the same folder, which is no part
/// of the name there.
pub(crate) fn vmfs_descriptor(
    stem: &str,
    adapter: Adapter,
    disk: &dyn ReadAt,
) -> drylab_block::Result<String> {
    let stem = stem.rsplit(['/', '\\']).next().unwrap_or(stem);
    let options = VmdkOptions {
        adapter,
        content_id: Some(NEW_DISK),
        file_name: format!("{stem}-flat.vmdk"),
        ..VmdkOptions::default()
    };
    drylab_image::flat_descriptor(disk, &options, FlatKind::Vmfs)
}

fn uuid_bytes(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// `virsh dumpxml` and the image file, as virt-manager named them.
///
/// # Errors
/// [`ExportError`].
pub fn virsh_dumpxml_copy(facts: &Facts<'_>, from: &Exported<'_>) -> Result<Package, ExportError> {
    let machine = from.machine;
    let mut package = Package {
        descriptor: format!("{}.xml", machine.name),
        ..Package::default()
    };
    let mut domain = domain_of(facts, machine)?;
    for (number, (disk, bytes)) in machine.disks.iter().zip(from.disks).enumerate() {
        let name = if number == 0 {
            format!("{}.img", machine.name)
        } else {
            format!("{}-{number}.img", machine.name)
        };
        let virtio = machine
            .controller_of(disk)
            .is_some_and(|controller| controller.model == "virtio-blk");
        let letter = char::from(
            b'a' + u8::try_from(disk.unit.max(if virtio { disk.controller } else { 0 }))
                .unwrap_or(0)
                % 26,
        );
        let (bus, prefix) = if virtio {
            ("virtio", "vd")
        } else {
            ("ide", "hd")
        };
        domain.disks.push(libvirt::Disk {
            kind: "file".to_owned(),
            device: "disk".to_owned(),
            driver_name: Some("qemu".to_owned()),
            driver_type: Some("raw".to_owned()),
            cache: Some("none".to_owned()),
            source: Some(name.clone()),
            target: Some(format!("{prefix}{letter}")),
            bus: Some(bus.to_owned()),
            ..libvirt::Disk::default()
        });
        package.disks.push(name.clone());
        package.put(name, bytes.clone());
    }
    package.put(
        package.descriptor.clone(),
        Arc::new(libvirt::print(&domain)?),
    );
    Ok(package)
}

/// `model type=` names of adapters.
pub(crate) const LIBVIRT_NICS: [(&str, &str); 4] = [
    ("virtio-net", "virtio"),
    ("e1000-82540em", "e1000"),
    ("rtl8139", "rtl8139"),
    ("ne2k_pci", "ne2k_pci"),
];

fn domain_of(facts: &Facts<'_>, machine: &Machine) -> Result<libvirt::Domain, Missing> {
    let texts = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let interfaces = machine.nics.iter().map(|nic| libvirt::Interface {
        kind: "bridge".to_owned(),
        mac: Some(nic.mac.to_string()),
        source: Some(nic.network.clone()),
        model: LIBVIRT_NICS
            .iter()
            .find(|(known, _)| *known == nic.model)
            .map(|(_, name)| (*name).to_owned()),
        address: nic.slot.map(|slot| libvirt::Address::pci(slot.device)),
        ..libvirt::Interface::default()
    });
    Ok(libvirt::Domain {
        kind: "kvm".to_owned(),
        name: machine.name.clone(),
        uuid: Some(machine.uuid.clone()),
        memory_kib: machine.memory.mib * 1024,
        current_memory_kib: Some(machine.memory.mib * 1024),
        vcpus: machine.cpu.vcpus,
        os: libvirt::Os {
            kind: Some("hvm".to_owned()),
            arch: Some("x86_64".to_owned()),
            machine: Some(facts.text("machine.type")?.value.to_owned()),
            boot: texts(&["hd"]),
            ..libvirt::Os::default()
        },
        features: texts(&["acpi", "apic", "pae"]),
        clock_offset: Some(
            if machine.clock == Clock::Utc {
                "utc"
            } else {
                "localtime"
            }
            .to_owned(),
        ),
        interfaces: interfaces.collect(),
        ..libvirt::Domain::default()
    })
}
