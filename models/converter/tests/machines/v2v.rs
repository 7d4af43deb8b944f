//! virt-v2v 0.8 on the golden guests: what is kept, what is changed inside, and what that does to a boot.

use crate::support::{LIMITS, cites, folder, golden, inspected, machine};
use drylab_appliance::{Package, libvirt};
use drylab_block::ReadAt;
use drylab_converter::virt_v2v_0_8::{Converted, Options, convert, convert_with};
use drylab_filesystem::FileOverlay;
use drylab_filesystem::edit::Change;
use drylab_guest::boot::boot;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::GuestDisk;
use drylab_guest::net::windows::InfDriver;
use drylab_hive::{HiveEditor, RegType};
use std::sync::Arc;

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
    // The source had an e1000 (GQ69) and a SCSI controller (GQ75); neither is left.
    assert!(cites(&made.notes, "GQ69") && cites(&made.notes, "GQ75"));
    let left = domain.controllers.iter().find(|one| one.kind == "scsi");
    assert!(left.is_none(), "{left:?}");
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

const ADAPTER: &str = "PCI\\VEN_1AF4&DEV_1000";
const CURRENT: &str = "Microsoft\\Windows\\CurrentVersion";

/// The driver that Windows finds for virtio's adapter on a disk.
fn adapter_driver(disk: &GuestDisk) -> Option<InfDriver> {
    let guest = inspected(disk);
    guest.windows().unwrap().net.inf.get(ADAPTER).cloned()
}

/// The same disk with another DevicePath, or with none.
fn with_device_path(disk: &GuestDisk, path: Option<&str>) -> GuestDisk {
    let mut editor = Editor::open(disk, &LIMITS).unwrap();
    let change = |hive: &mut HiveEditor| match path {
        Some(path) => hive.set_string(CURRENT, "DevicePath", RegType::EXPAND_SZ, path),
        None => hive.delete_value(CURRENT, "DevicePath").map(drop),
    };
    editor.registry("SOFTWARE", change).unwrap();
    editor.finish()
}

#[test]
fn windows_finds_the_adapters_driver_exactly_in_a_folder_that_device_path_names() {
    let source = GuestDisk::new(golden("windows-2008r2"));
    assert_eq!(adapter_driver(&source), None);
    let made = converted(source.bytes.clone(), true);
    let driver = adapter_driver(&made.disk).expect("it was uploaded");
    assert_eq!(
        (driver.inf.as_str(), driver.service.as_str(), driver.missing),
        ("/Windows/Drivers/VirtIO/netkvm.inf", "netkvm", None)
    );
    assert!(
        driver
            .searched
            .is_some_and(|why| why.to_string().contains("DevicePath"))
    );
    assert!(cites(&made.edits, "DQ521"), "{:?}", made.edits);
    for (path, found) in [
        (None, false),
        (Some("%SystemRoot%\\inf"), false),
        (Some("%SystemRoot%\\inf;%SystemRoot%\\Drivers"), false),
        (Some("c:\\windows\\drivers\\virtio"), true),
    ] {
        let changed = with_device_path(&made.disk, path);
        assert_eq!(adapter_driver(&changed).is_some(), found, "{path:?}");
    }
    let elsewhere = inspected(&with_device_path(&made.disk, Some("D:\\drivers")));
    assert_eq!(elsewhere.windows().unwrap().net.unsearched.len(), 1);
}

#[test]
fn the_adapters_package_is_installed_only_whole() {
    let made = converted(golden("windows-2008r2"), true);
    for file in ["netkvm.sys", "netkvm.cat"] {
        let path = format!("/Windows/Drivers/VirtIO/{file}");
        let mut editor = Editor::open(&made.disk, &LIMITS).unwrap();
        editor.change(&path, Change::Remove).unwrap();
        let driver = adapter_driver(&editor.finish()).expect("its INF is still there");
        assert_eq!(driver.missing, Some(format!("{path} is not there")));
    }
    let mut editor = Editor::open(&made.disk, &LIMITS).unwrap();
    let path = "/Windows/Drivers/VirtIO/netkvm.inf";
    let unsigned = |text: &str| text.replace("CatalogFile=netkvm.cat\r\n", "");
    editor.rewrite(path, unsigned).unwrap();
    let driver = adapter_driver(&editor.finish()).expect("its INF is still there");
    assert_eq!(driver.missing.as_deref(), Some("it has no catalogue"));
}

#[test]
fn a_device_path_that_is_missing_stays_missing_and_one_that_has_the_folder_is_kept() {
    let source = GuestDisk::new(golden("windows-2008r2"));
    let without = with_device_path(&source, None);
    assert!(
        without.files.is_empty(),
        "the edit is in the hive on the disk"
    );
    assert_eq!(adapter_driver(&converted(without.bytes, true).disk), None);
    let once = "%SystemRoot%\\inf;%SystemRoot%\\Drivers\\VirtIO";
    let twice = converted(converted(source.bytes, true).disk.bytes, true);
    let hive = Editor::open(&twice.disk, &LIMITS).unwrap();
    let bytes = hive
        .read("/Windows/System32/config/SOFTWARE")
        .unwrap()
        .unwrap();
    let hive = HiveEditor::open(bytes, &LIMITS).unwrap();
    let key = hive.key(CURRENT).unwrap().unwrap();
    let value = key.value("DevicePath").unwrap().unwrap();
    assert_eq!(
        (value.kind(), value.as_string().unwrap().as_str()),
        (RegType::EXPAND_SZ, once)
    );
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

/// The same machine with empty disks behind the first.
fn with_more_disks(guest: &str, more: usize) -> Package {
    let mut package = folder(golden(guest), "web.vmdk");
    let name = package.descriptor.clone();
    let mut text = String::from_utf8(package.text(&name, &LIMITS).unwrap()).unwrap();
    for number in 1..=more {
        let stem = format!("web_{number}");
        text.push_str(&format!(
            "scsi0:{number}.present = \"TRUE\"\nscsi0:{number}.fileName = \"{stem}.vmdk\"\n"
        ));
        package.disks.push(format!("{stem}.vmdk"));
        package.put(format!("{stem}-flat.vmdk"), Arc::new(vec![0; 1 << 20]));
    }
    package.put(name, Arc::new(text.into_bytes()));
    package
}

#[test]
fn a_fifth_disk_on_ide_is_only_warned_of_and_gets_a_place_that_ide_has_not() {
    for (guest, more, target, warned) in [
        ("ubuntu-12.04", 4, "hde", true),
        ("ubuntu-12.04", 3, "hdd", false),
        ("centos-6.3", 4, "vde", false),
    ] {
        let made = convert(&with_more_disks(guest, more), &options(false)).unwrap();
        let last = domain(&made)
            .disks
            .last()
            .and_then(|disk| disk.target.clone());
        assert_eq!(last.as_deref(), Some(target), "{guest}");
        assert_eq!(cites(&made.notes, "GQ73"), warned, "{guest} {target}");
    }
}

#[test]
fn vmware_tools_are_removed_from_a_guest_that_has_them_and_from_no_other() {
    let path = "/etc/modprobe.d/vmware-tools.conf";
    let mut editor = Editor::open(&GuestDisk::new(golden("centos-6.3")), &LIMITS).unwrap();
    editor.write(path, b"options vmxnet\n".to_vec()).unwrap();
    let with = editor.finish();
    let package = folder(with.bytes, "web.vmdk");
    for (beside, there) in [(with.files, true), (FileOverlay::new(), false)] {
        let made = convert_with(&package, &beside, &options(false)).unwrap();
        assert_eq!(cites(&made.edits, "GQ81"), there);
        let after = Editor::open(&made.disk, &LIMITS).unwrap();
        assert_eq!(after.read(path).unwrap(), None);
    }
}
