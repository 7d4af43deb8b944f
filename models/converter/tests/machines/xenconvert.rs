//! XenConvert on the golden guests: what it takes, what it makes, what it changes inside.

use crate::support::{LIMITS, cites, folder, golden, inspected, installed, machine};
use drylab_appliance::{Package, ovf, xva};
use drylab_block::{ReadAt, SparseBytes, content_id};
use drylab_catalog::Machine;
use drylab_converter::xenconvert_2_3::{Asked, Input, Options, Output, convert};
use drylab_converter::{Converted, Power, SourceMachine, ToolError, qemu_img_0_12};
use drylab_guest::boot::boot;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::GuestDisk;
use drylab_hive::RegType;
use drylab_image::vhd::{self, Creator};
use drylab_image::{Target, VhdOptions};
use std::sync::Arc;

fn options(output: Output) -> Options {
    Options {
        output,
        network: "Network 0".to_owned(),
    }
}

const ASKED: Asked<'_> = Asked {
    name: "web 1",
    vcpus: 1,
    memory_mib: 1024,
};

fn running(
    machine: &Machine,
    disk: &GuestDisk,
    power: Power,
    output: Output,
) -> Result<Converted, ToolError> {
    let source = SourceMachine {
        machine,
        disks: std::slice::from_ref(disk),
        power,
        has_snapshots: false,
    };
    convert(&Input::ThisMachine(source), &options(output))
}

fn esxi(bytes: u64) -> Machine {
    machine("lsisas1068", "e1000-82545em", bytes)
}

fn refused(made: Result<Converted, ToolError>, id: &str) {
    let error = made.err().unwrap();
    assert!(cites(&error.witness, id), "{error}: {:?}", error.witness);
}

/// Windows as it stands on a machine of ESXi without an IDE drive: the drivers of IDE wait for demand.
fn windows_without_ide() -> GuestDisk {
    let mut editor = Editor::open(&GuestDisk::new(golden("windows-2008r2")), &LIMITS).unwrap();
    editor
        .registry("SYSTEM", |hive| {
            for service in ["intelide", "pciide", "atapi"] {
                hive.set_u32(&format!("ControlSet001\\Services\\{service}"), "Start", 3)?;
            }
            hive.set_string("ControlSet001\\Control", "Lab", RegType::SZ, "no IDE")
        })
        .unwrap();
    editor.finish()
}

#[test]
fn windows_of_esxi_boots_from_ide_on_xenserver_although_it_never_had_ide() {
    let disk = windows_without_ide();
    let target = machine("piix3-ide-xen", "rtl8139-xen", disk.bytes.len());
    assert!(!boot(&inspected(&disk), &target).reached, "0x7B before");
    let source = esxi(disk.bytes.len());
    let made = running(&source, &disk, Power::Running, Output::XenServer).unwrap();
    let report = boot(&inspected(&made.disk), &target);
    assert!(report.reached, "{:?}", report.cause);
    assert_eq!(made.copied_from, Power::Running);
    for id in ["GQ132", "DQ516"] {
        assert!(cites(&made.notes, id), "{id}");
    }
    assert!(cites(&made.edits, "DQ515"));
}

#[test]
fn the_machine_it_makes_reads_back_from_its_xva_with_the_same_disk() {
    let disk = GuestDisk::new(installed("windows-2008r2", "kvm-centos-6.3"));
    let source = esxi(disk.bytes.len());
    let made = running(&source, &disk, Power::Running, Output::Xva).unwrap();
    let file = made.package.file("web 1.xva").unwrap().clone();
    let archive = xva::Xva::open(file, &LIMITS).unwrap();
    let machine = archive.appliance.machine().unwrap();
    assert!(machine.is_hvm());
    assert_eq!((machine.name.as_str(), machine.vcpus_max), ("web 1", 2));
    assert_eq!(machine.memory_static_max, 1 << 30);
    assert_eq!((machine.nics.len(), machine.nics[0].mac.as_str()), (1, ""));
    let record = machine.drives[0].disk.as_ref().unwrap();
    let back = archive.disk(&record.id).unwrap();
    assert_eq!(
        content_id(back).unwrap(),
        content_id(&*made.disk.bytes).unwrap()
    );
}

#[test]
fn linux_cannot_run_the_tool_and_neither_can_a_machine_that_is_off() {
    for guest in ["centos-6.3", "ubuntu-12.04"] {
        let disk = GuestDisk::new(golden(guest));
        let source = esxi(disk.bytes.len());
        refused(
            running(&source, &disk, Power::Running, Output::Ovf),
            "GQ134",
        );
    }
    let disk = GuestDisk::new(golden("windows-2008r2"));
    let source = esxi(disk.bytes.len());
    assert!(running(&source, &disk, Power::Off, Output::Ovf).is_err());
}

#[test]
fn its_vhd_has_citrix_as_creator_and_loses_its_tail_in_qemu_img_of_centos_6() {
    let disk = GuestDisk::new(golden("windows-2008r2"));
    let source = esxi(disk.bytes.len());
    let made = running(&source, &disk, Power::Running, Output::Ovf).unwrap();
    assert!(cites(&made.notes, "GQ135") && cites(&made.notes, "GQ136"));
    let file = made.package.file("web 1.vhd").unwrap().clone();
    assert_eq!(vhd::footer(&*file).unwrap().0.creator, Creator::XEN_CONVERT);
    let image = drylab_image::open(file.clone(), &LIMITS).unwrap();
    assert_eq!(
        content_id(&image).unwrap(),
        content_id(&*made.disk.bytes).unwrap()
    );
    let old = qemu_img_0_12::convert(&file, None, qemu_img_0_12::Format::Raw).unwrap();
    assert!(old.file.len() < image.virtual_size());
    assert!(cites(&old.notes, "GQ112"));
}

#[test]
fn its_ovf_names_no_family_of_vmware_and_no_mac() {
    let disk = GuestDisk::new(golden("windows-2008r2"));
    let source = esxi(disk.bytes.len());
    let made = running(&source, &disk, Power::Running, Output::Ovf).unwrap();
    let text = made.package.text("web 1.ovf", &LIMITS).unwrap();
    let envelope = ovf::parse(&text, &LIMITS).unwrap();
    let system = &envelope.systems[0];
    assert!(
        !system
            .system_types()
            .iter()
            .any(|family| family.starts_with("vmx"))
    );
    let nics: Vec<_> = system
        .items()
        .iter()
        .filter(|item| item.resource_type == ovf::resource::ETHERNET)
        .collect();
    assert_eq!((nics.len(), nics[0].address.as_deref()), (1, None));
    assert_eq!(envelope.disks[0].capacity, Some(disk.bytes.len()));
}

#[test]
fn a_machine_of_vmware_becomes_one_of_xenserver_and_linux_in_it_stays_as_it_is() {
    for (guest, edited) in [("windows-2008r2", true), ("ubuntu-12.04", false)] {
        let disk = golden(guest);
        let mut package = folder(disk.clone(), "web.vmdk");
        let descriptor = drylab_image::flat_descriptor(
            &*disk,
            &drylab_image::VmdkOptions {
                file_name: "web-flat.vmdk".to_owned(),
                ..drylab_image::VmdkOptions::default()
            },
            drylab_image::FlatKind::Vmfs,
        )
        .unwrap();
        package.put("web.vmdk", Arc::new(descriptor.into_bytes()));
        let made = convert(&Input::Vmware(&package), &options(Output::XenServer)).unwrap();
        assert_eq!(cites(&made.edits, "DQ515"), edited, "{guest}");
        assert_eq!(cites(&made.notes, "DQ514"), !edited, "{guest}");
        let same = content_id(&*made.disk.bytes).unwrap() == content_id(&*disk).unwrap();
        assert_eq!(same, !edited, "{guest}");
    }
}

/// A VHD of Hyper-V's.
fn vhds(disk: &Arc<dyn ReadAt>) -> Package {
    let file = SparseBytes::default();
    drylab_image::write(&**disk, &Target::VhdDynamic(VhdOptions::default()), &file).unwrap();
    let mut package = Package {
        disks: vec!["web.vhd".to_owned()],
        ..Package::default()
    };
    package.put("web.vhd", Arc::new(file));
    package
}

#[test]
fn a_vhd_of_hyper_v_boots_on_xenserver_with_what_the_wizard_asked_for() {
    let disk = golden("windows-2008r2");
    let package = vhds(&disk);
    let made = convert(&Input::Vhd(&package, ASKED), &options(Output::XenServer)).unwrap();
    let target = machine("piix3-ide-xen", "rtl8139-xen", disk.len());
    assert!(boot(&inspected(&made.disk), &target).reached);
    let differencing = |package: &Package| {
        let file = package.file("web.vhd").unwrap();
        let mut bytes = vec![0u8; usize::try_from(file.len()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        for at in [0, bytes.len() - 512] {
            let footer = &mut bytes[at..at + 512];
            footer[0x3c..0x40].copy_from_slice(&4u32.to_be_bytes());
            footer[0x40..0x44].fill(0);
            let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
            footer[0x40..0x44].copy_from_slice(&(!sum).to_be_bytes());
        }
        bytes
    };
    let mut child = package.clone();
    child.put("web.vhd", Arc::new(differencing(&package)));
    refused(
        convert(&Input::Vhd(&child, ASKED), &options(Output::Ovf)),
        "GQ143",
    );
}

#[test]
fn an_xva_of_a_paravirtual_machine_is_repackaged_without_a_boot_loader() {
    let disk = golden("centos-6.3");
    let records = xva::Machine {
        name: "web 1".to_owned(),
        memory_static_max: 1 << 30,
        memory_dynamic_max: 1 << 30,
        vcpus_max: 1,
        vcpus_at_startup: 1,
        pv_bootloader: "pygrub".to_owned(),
        drives: vec![xva::Drive {
            userdevice: "0".to_owned(),
            bootable: true,
            disk: Some(xva::VirtualDisk {
                name: "disk".to_owned(),
                size: disk.len(),
                ..xva::VirtualDisk::default()
            }),
            ..xva::Drive::default()
        }],
        nics: vec![xva::Nic {
            mac: "00:16:3e:01:02:03".to_owned(),
            ..xva::Nic::default()
        }],
        ..xva::Machine::default()
    };
    let appliance = records.appliance();
    let id = appliance.machine().unwrap().drives[0]
        .disk
        .as_ref()
        .unwrap()
        .id
        .clone();
    let file = SparseBytes::default();
    xva::write(&appliance, &[(&id, &*disk)], &file).unwrap();
    let mut package = Package::default();
    package.put("web.xva", Arc::new(file));
    let made = convert(&Input::Xva(&package), &options(Output::Ovf)).unwrap();
    assert!(cites(&made.notes, "GQ137") && made.edits.is_empty());
    assert_eq!(
        content_id(&*made.disk.bytes).unwrap(),
        content_id(&*disk).unwrap()
    );
    let text = made.package.text("web 1.ovf", &LIMITS).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("pygrub") && text.contains("00:16:3e:01:02:03"));
    refused(
        convert(&Input::Xva(&package), &options(Output::XenServer)),
        "DQ513",
    );
}
