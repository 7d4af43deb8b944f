//! virt-v2v on the golden guests: what is kept, what is changed inside, and what that does to a boot.

use drylab_appliance::{Package, libvirt, vmx};
use drylab_block::{Delta, Limits, Overlay, ReadAt};
use drylab_catalog::{
    Clock, Controller, Cpu, Disk, Firmware, Mac, Machine, Memory, Nic, PciAddress, ProductId,
    Smbios, Witness,
};
use drylab_converter::virt_v2v_0_8::{Converted, Options, convert};
use drylab_guest::boot::boot;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::{Guest, GuestDisk, inspect};
use std::path::Path;
use std::sync::Arc;

const LIMITS: Limits = Limits::DEFAULT;
const MAC: Mac = Mac([0x00, 0x0c, 0x29, 0x4f, 0x8e, 0x35]);

fn file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../corpora/guests")
        .join(path);
    std::fs::read(&path).unwrap()
}

fn golden(guest: &str) -> Arc<dyn ReadAt> {
    let base: Arc<dyn ReadAt> = Arc::new(file(&format!("{guest}/base.qcow2")));
    let base = Arc::new(drylab_image::open(base, &LIMITS).unwrap());
    let delta = Delta::parse(&file(&format!("{guest}/esxi-5.0.0.delta")), base.len()).unwrap();
    Arc::new(Overlay::with_delta(base, &delta))
}

/// The machine's folder on the datastore, its first disk with these bytes.
fn folder(disk: Arc<dyn ReadAt>, file_name: &str) -> Package {
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

fn options(virtio_win: bool) -> Options {
    Options {
        bridge: "br0".to_owned(),
        virtio_win,
    }
}

fn converted(disk: Arc<dyn ReadAt>, virtio_win: bool) -> Converted {
    convert(&folder(disk, "web.vmdk"), &options(virtio_win))
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.witness))
}

fn domain(made: &Converted) -> libvirt::Domain {
    let text = made
        .package
        .text(&made.package.descriptor, &LIMITS)
        .unwrap();
    libvirt::parse(&text, &LIMITS).unwrap()
}

fn machine(controller: &str, nic: &str, bytes: u64) -> Machine {
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

fn inspected(disk: &GuestDisk) -> Guest {
    inspect(std::slice::from_ref(disk), &LIMITS).unwrap()
}

fn cites(witnesses: &[Witness], id: &str) -> bool {
    witnesses.contains(&Witness::quirk(id))
}

#[test]
fn centos_of_esxi_boots_on_virtio_and_keeps_its_mac_name_and_memory() {
    let made = converted(golden("centos-6.3"), false);
    let domain = domain(&made);
    assert_eq!(
        (domain.name.as_str(), domain.memory_kib, domain.vcpus),
        ("web 1", 1_048_576, 2)
    );
    assert_eq!(domain.disks[0].bus.as_deref(), Some("virtio"));
    assert_eq!(domain.disks[0].target.as_deref(), Some("vda"));
    let nic = &domain.interfaces[0];
    assert_eq!(nic.mac.as_deref(), Some("00:0c:29:4f:8e:35"));
    assert_eq!(
        (nic.source.as_deref(), nic.model.as_deref()),
        (Some("br0"), Some("virtio"))
    );
    assert!(Arc::ptr_eq(
        &made.package.files["web 1.img"],
        &made.disk.bytes
    ));
    let guest = inspected(&made.disk);
    let report = boot(
        &guest,
        &machine("virtio-blk", "virtio-net", made.disk.bytes.len()),
    );
    assert!(report.reached, "{:?}", report.cause);
    assert!(cites(&made.notes, "GQ68") && cites(&made.notes, "GQ74") && cites(&made.edits, "GQ67"));
    let editor = Editor::open(&made.disk, &LIMITS).unwrap();
    let map = editor.read("/boot/grub/device.map").unwrap().unwrap();
    assert!(String::from_utf8_lossy(&map).contains("/dev/vda"));
}

#[test]
fn an_initramfs_without_virtio_gets_it_from_the_guests_own_modules() {
    let disk = GuestDisk::new(golden("centos-6.3"));
    let path = inspected(&disk)
        .linux()
        .unwrap()
        .initramfs
        .as_ref()
        .unwrap()
        .path
        .clone();
    let mut editor = Editor::open(&disk, &LIMITS).unwrap();
    editor
        .remove_modules(
            &path,
            &["virtio_blk", "virtio_pci", "virtio_ring", "virtio"],
        )
        .unwrap();
    let without = editor.finish();
    assert!(
        without.files.is_empty(),
        "a smaller initramfs fits where the old one stood"
    );
    let kvm = machine("virtio-blk", "virtio-net", without.bytes.len());
    assert!(
        !boot(&inspected(&without), &kvm).reached,
        "without the drivers there is no root"
    );
    let made = converted(without.bytes, false);
    let report = boot(&inspected(&made.disk), &kvm);
    assert!(report.reached, "{:?}", report.cause);
}

#[test]
fn bare_names_in_fstab_follow_the_disk_and_unknown_ones_are_left_with_a_warning() {
    let disk = GuestDisk::new(golden("centos-6.3"));
    let mut editor = Editor::open(&disk, &LIMITS).unwrap();
    let fstab = |text: &str| {
        format!("/dev/sda1 /data ext4 noauto 0 0\n/dev/sdc1 /more ext4 noauto 0 0\n{text}")
    };
    editor.rewrite("/etc/fstab", fstab).unwrap();
    let changed = editor.finish();
    assert!(changed.files.is_empty());
    let made = converted(changed.bytes, false);
    let editor = Editor::open(&made.disk, &LIMITS).unwrap();
    let text = String::from_utf8(editor.read("/etc/fstab").unwrap().unwrap()).unwrap();
    assert!(
        text.starts_with("/dev/vda1 /data ext4 noauto 0 0\n/dev/sdc1 /more"),
        "{text}"
    );
    assert!(cites(&made.notes, "GQ80"));
}

#[test]
fn several_consoles_end_the_conversion() {
    let disk = GuestDisk::new(golden("centos-6.3"));
    let path = inspected(&disk)
        .linux()
        .unwrap()
        .loader
        .as_ref()
        .unwrap()
        .path
        .clone();
    let mut editor = Editor::open(&disk, &LIMITS).unwrap();
    editor
        .rewrite(&path, |text| {
            text.replace(" ro ", " ro console=tty0 console=ttyS0 ")
        })
        .unwrap();
    let changed = editor.finish();
    assert!(changed.files.is_empty());
    let error = convert(&folder(changed.bytes, "web.vmdk"), &options(false))
        .err()
        .unwrap();
    assert!(cites(&error.witness, "GQ77"), "{error}");
}

#[test]
fn ubuntu_is_moved_as_it_is_onto_ide() {
    let source = golden("ubuntu-12.04");
    let made = converted(source.clone(), false);
    let domain = domain(&made);
    assert_eq!(domain.disks[0].bus.as_deref(), Some("ide"));
    assert_eq!(domain.interfaces[0].model.as_deref(), Some("rtl8139"));
    assert_eq!(
        domain.interfaces[0].mac.as_deref(),
        Some("00:0c:29:4f:8e:35")
    );
    assert!(
        Arc::ptr_eq(&source, &made.disk.bytes),
        "nothing was written"
    );
    assert!(made.edits.is_empty() && cites(&made.notes, "GQ66"));
}

#[test]
fn windows_needs_the_drivers_on_the_host_and_then_boots_on_virtio() {
    let source = golden("windows-2008r2");
    let error = convert(&folder(source.clone(), "web.vmdk"), &options(false))
        .err()
        .unwrap();
    assert!(cites(&error.witness, "GQ70"));
    let kvm = machine("virtio-blk", "virtio-net", source.len());
    let before = inspected(&GuestDisk::new(source.clone()));
    assert!(!boot(&before, &kvm).reached, "STOP 0x7B before");
    assert!(before.windows().unwrap().services.contains_key("intelppm"));
    let made = converted(source, true);
    let guest = inspected(&made.disk);
    let report = boot(&guest, &kvm);
    assert!(report.reached, "{:?}", report.cause);
    assert!(!guest.windows().unwrap().services.contains_key("intelppm"));
    assert_eq!(domain(&made).clock_offset.as_deref(), Some("localtime"));
}

#[test]
fn a_disk_on_a_snapshot_is_not_found() {
    let error = convert(
        &folder(golden("ubuntu-12.04"), "web-000001.vmdk"),
        &options(false),
    )
    .err()
    .unwrap();
    assert!(cites(&error.witness, "GQ84"), "{error}");
}
