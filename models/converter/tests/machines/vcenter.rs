//! vCenter Converter on the golden guests: what is copied, what is changed inside, what is refused.

use crate::support::{LIMITS, cites, golden, inspected, installed, machine};
use drylab_appliance::{Package, vmx::Vmx};
use drylab_block::{ReadAt, Reference, Resolver, content_id};
use drylab_catalog::{Firmware, Machine};
use drylab_converter::vcenter_converter_5_0::{Destination, Options, Version, convert};
use drylab_converter::{Converted, Power, SourceMachine, ToolError};
use drylab_guest::boot::boot;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{BootCode, GuestDisk};
use std::sync::Arc;

fn options(version: Version) -> Options {
    Options {
        version,
        destination: Destination::Esx,
        network: "VM Network".to_owned(),
    }
}

/// A machine of a product, by what its processor says of the hypervisor.
fn of(hypervisor: &str, bytes: u64) -> Machine {
    let mut machine = machine("piix3-ide", "rtl8139", bytes);
    machine.cpu.hypervisor = hypervisor.to_owned();
    machine.uuid = "11111111-2222-3333-4444-555555555555".to_owned();
    machine
}

fn run(
    machine: &Machine,
    disk: &GuestDisk,
    power: Power,
    options: &Options,
) -> Result<Converted, ToolError> {
    let source = SourceMachine {
        machine,
        disks: std::slice::from_ref(disk),
        power,
        has_snapshots: false,
    };
    convert(&source, options)
}

fn refused(made: Result<Converted, ToolError>, id: &str) {
    let error = made.err().unwrap();
    assert!(cites(&error.witness, id), "{error}: {:?}", error.witness);
}

fn configuration(package: &Package) -> Vmx {
    let text = package.text(&package.descriptor, &LIMITS).unwrap();
    Vmx::parse(&text, &LIMITS).unwrap()
}

struct Beside<'a>(&'a Package);

impl Resolver for Beside<'_> {
    fn resolve(&self, reference: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
        self.0.file(&reference.name).cloned()
    }
}

#[test]
fn running_windows_on_kvm_boots_from_lsi_sas_at_the_target_and_its_source_still_runs() {
    let disk = GuestDisk::new(installed("windows-2008r2", "kvm-centos-6.3"));
    let target = machine("lsisas1068", "e1000-82545em", disk.bytes.len());
    assert!(
        !boot(&inspected(&disk), &target).reached,
        "STOP 0x7B before"
    );
    let source = of("KVMKVMKVM", disk.bytes.len());
    let made = run(&source, &disk, Power::Running, &options(Version::V5_0)).unwrap();
    let report = boot(&inspected(&made.disk), &target);
    assert!(report.reached, "{:?}", report.cause);
    assert_eq!(made.copied_from, Power::Running);
    for id in ["GQ124", "GQ130", "GQ132"] {
        assert!(cites(&made.notes, id), "{id}");
    }
    assert!(cites(&made.edits, "DQ512"));
    let vmx = configuration(&made.package);
    assert_eq!(vmx.get("virtualHW.version"), Some("8"));
    assert_eq!(vmx.get("guestOS"), Some("windows7srv-64"));
    assert_eq!(vmx.get("scsi0.virtualDev"), Some("lsisas1068"));
    assert_eq!(vmx.get("ethernet0.virtualDev"), Some("e1000"));
    assert_eq!(vmx.get("ethernet0.addressType"), Some("generated"));
    assert_eq!(vmx.get("ethernet0.generatedAddress"), None);
    assert!(!vmx.get("uuid.bios").unwrap().contains("11 11"));
}

#[test]
fn the_flat_disk_beside_the_configuration_is_the_changed_disk() {
    let disk = GuestDisk::new(golden("windows-2008r2"));
    let source = of("XenVMMXenVMM", disk.bytes.len());
    let made = run(&source, &disk, Power::Running, &options(Version::V5_0)).unwrap();
    let descriptor = made.package.file("web 1.vmdk").unwrap().clone();
    let image = drylab_image::open_with(descriptor, &Beside(&made.package), &LIMITS).unwrap();
    assert_eq!(image.subformat(), "vmfs");
    assert_eq!(
        content_id(&image).unwrap(),
        content_id(&*made.disk.bytes).unwrap()
    );
    assert_ne!(
        content_id(&image).unwrap(),
        content_id(&*disk.bytes).unwrap()
    );
}

#[test]
fn both_linux_guests_of_the_lab_are_too_new_for_5_0_while_they_run() {
    for guest in ["centos-6.3", "ubuntu-12.04"] {
        let disk = GuestDisk::new(golden(guest));
        let source = of("KVMKVMKVM", disk.bytes.len());
        let made = run(&source, &disk, Power::Running, &options(Version::V5_0));
        refused(made, "GQ131");
    }
}

#[test]
fn file_systems_that_are_made_anew_have_other_uuids_and_the_guest_still_boots() {
    for guest in ["centos-6.3", "ubuntu-12.04"] {
        let disk = GuestDisk::new(installed(guest, "kvm-centos-6.3"));
        let source = of("KVMKVMKVM", disk.bytes.len());
        let made = run(&source, &disk, Power::Running, &options(Version::V5_1)).unwrap();
        assert!(made.disk.files.is_empty(), "{guest}: all edits fit");
        let (before, after) = (inspected(&disk), inspected(&made.disk));
        let uuids = |guest: &drylab_guest::inspect::Guest| -> Vec<String> {
            let known = guest
                .layout
                .iter()
                .filter(|volume| volume.filesystem.is_some());
            known.map(|volume| volume.uuid().to_owned()).collect()
        };
        let (old, new) = (uuids(&before), uuids(&after));
        assert_eq!(old.len(), new.len());
        let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        assert!(changed >= 2, "{guest}: {old:?} {new:?}");
        let report = boot(
            &after,
            &machine("lsilogic", "e1000-82545em", made.disk.bytes.len()),
        );
        assert!(report.reached, "{guest}: {:?}", report.cause);
        assert!(cites(&made.notes, "GQ133") && cites(&made.edits, "GQ133"));
        assert!(cites(&made.notes, "DQ511"));
    }
}

#[test]
fn a_guest_that_pygrub_booted_gets_grub_by_the_copy_of_a_running_source() {
    let mut editor = Editor::open(&GuestDisk::new(golden("centos-6.3")), &LIMITS).unwrap();
    editor.overwrite(0, &[0; 440]).unwrap();
    editor.overwrite(512, &[0; 1024]).unwrap();
    let bare = editor.finish();
    let target = machine("lsilogic", "e1000-82545em", bare.bytes.len());
    assert!(!boot(&inspected(&bare), &target).reached);
    let source = of("XenVMMXenVMM", bare.bytes.len());
    let made = run(&source, &bare, Power::Running, &options(Version::V5_1)).unwrap();
    let after = inspected(&made.disk);
    assert_eq!(after.disks[0].boot_code, BootCode::Grub);
    assert_eq!(
        after.disks[0].signature,
        inspected(&bare).disks[0].signature
    );
    let report = boot(&after, &target);
    assert!(report.reached, "{:?}", report.cause);
}

#[test]
fn linux_without_grub_or_towards_a_hosted_product_is_refused() {
    let mut editor = Editor::open(&GuestDisk::new(golden("centos-6.3")), &LIMITS).unwrap();
    editor
        .rewrite("/boot/grub/grub.conf", |_| String::new())
        .unwrap();
    editor
        .change(
            "/boot/grub/grub.conf",
            drylab_filesystem::edit::Change::Remove,
        )
        .unwrap();
    let disk = editor.finish();
    let source = of("KVMKVMKVM", disk.bytes.len());
    let made = run(&source, &disk, Power::Running, &options(Version::V5_1));
    refused(made, "GQ125");
    let hosted = Options {
        destination: Destination::Hosted,
        ..options(Version::V5_1)
    };
    let disk = GuestDisk::new(golden("centos-6.3"));
    refused(run(&source, &disk, Power::Running, &hosted), "GQ125");
}

#[test]
fn linux_that_is_off_is_cloned_bit_by_bit_where_its_product_is_known() {
    let disk = GuestDisk::new(golden("ubuntu-12.04"));
    for (hypervisor, row) in [
        ("VMwareVMware", "GQ126"),
        ("Microsoft Hv", "GQ126"),
        ("ConnectixCPU", "GQ127"),
    ] {
        let source = of(hypervisor, disk.bytes.len());
        let made = run(&source, &disk, Power::Off, &options(Version::V5_0)).unwrap();
        assert!(Arc::ptr_eq(&made.disk.bytes, &disk.bytes));
        assert!(made.edits.is_empty() && cites(&made.notes, row));
        assert_eq!(made.copied_from, Power::Off);
        assert_eq!(
            configuration(&made.package).get("scsi0.virtualDev"),
            Some("lsilogic")
        );
    }
    for hypervisor in ["KVMKVMKVM", "XenVMMXenVMM"] {
        let source = of(hypervisor, disk.bytes.len());
        refused(
            run(&source, &disk, Power::Off, &options(Version::V5_0)),
            "GQ132",
        );
    }
}

#[test]
fn windows_that_is_off_on_hyper_v_is_made_ready_and_its_snapshots_stay_behind() {
    let disk = GuestDisk::new(installed("windows-2008r2", "kvm-centos-6.3"));
    let hyper_v = of("Microsoft Hv", disk.bytes.len());
    let source = SourceMachine {
        machine: &hyper_v,
        disks: std::slice::from_ref(&disk),
        power: Power::Off,
        has_snapshots: true,
    };
    let made = convert(&source, &options(Version::V5_0)).unwrap();
    let target = machine("lsisas1068", "e1000-82545em", disk.bytes.len());
    assert!(boot(&inspected(&made.disk), &target).reached);
    assert!(cites(&made.notes, "GQ128"));
}

#[test]
fn a_driver_file_that_windows_lacks_is_put_there() {
    let disk = GuestDisk::new(installed("windows-2008r2", "kvm-centos-6.3"));
    let path = "/Windows/System32/drivers/lsi_sas.sys";
    let mut editor = Editor::open(&disk, &LIMITS).unwrap();
    editor
        .change(path, drylab_filesystem::edit::Change::Remove)
        .unwrap();
    let without = editor.finish();
    let source = of("KVMKVMKVM", disk.bytes.len());
    let made = run(&source, &without, Power::Running, &options(Version::V5_0)).unwrap();
    let editor = Editor::open(&made.disk, &LIMITS).unwrap();
    assert!(editor.read(path).unwrap().is_some());
    let target = machine("lsisas1068", "e1000-82545em", disk.bytes.len());
    assert!(boot(&inspected(&made.disk), &target).reached);
}

#[test]
fn of_a_uefi_machine_the_firmware_travels_and_its_variables_do_not() {
    let disk = GuestDisk::new(golden("windows-2008r2"));
    let mut source = of("VMwareVMware", disk.bytes.len());
    source.firmware = Firmware::Efi;
    source.memory.mib = 1026;
    let made = run(&source, &disk, Power::Running, &options(Version::V5_0)).unwrap();
    assert!(cites(&made.notes, "GQ129") && cites(&made.notes, "GQ147"));
    let vmx = configuration(&made.package);
    assert_eq!(
        (vmx.get("firmware"), vmx.get("memsize")),
        (Some("efi"), Some("1028"))
    );
}
