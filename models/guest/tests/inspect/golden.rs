//! Inspection of the golden guests: facts are those of the scripts that made them, each with its place.

use crate::support::{CENTOS, Golden, HYPERV, LIMITS, SOURCES, UBUNTU, WINDOWS, XEN, disk};
use drylab_block::{ReadAt, SparseBytes};
use drylab_guest::inspect::{
    BcdDevice, BootCode, Guest, GuestDisk, LoaderKind, LoaderRoot, System, Table, VolumeKind,
    inspect,
};
use std::sync::Arc;

fn linux(guest: &Guest) -> &drylab_guest::inspect::LinuxSystem {
    match &guest.system {
        System::Linux(system) => system,
        System::Windows(_) => panic!("a Linux guest"),
    }
}

fn windows(guest: &Guest) -> &drylab_guest::inspect::WindowsSystem {
    match &guest.system {
        System::Windows(system) => system,
        System::Linux(_) => panic!("a Windows guest"),
    }
}

#[test]
fn centos_is_found_on_its_logical_volume_with_every_fact_in_place() {
    let guest = Golden::new(CENTOS, "esxi-5.0.0").inspect();
    assert_eq!(guest.os.name.value, "centos");
    assert_eq!(guest.os.version.value, "6.3");
    assert_eq!(guest.os.pretty.value, "CentOS release 6.3 (Final)");
    assert_eq!(guest.os.arch.value, "x86_64");
    assert_eq!(
        guest.os.name.witness.place.to_string(),
        "/etc/centos-release:1"
    );
    let host = guest.hostname.as_ref().expect("it has a name");
    assert_eq!(
        (host.value.as_str(), host.witness.place.to_string().as_str()),
        ("centos63.lab.example", "/etc/sysconfig/network:2")
    );
    assert_eq!(
        (
            guest.disks[0].table,
            guest.disks[0].boot_code,
            guest.disks[0].signature
        ),
        (Table::Mbr, BootCode::Grub, 0x000c_63a1)
    );

    let names: Vec<String> = guest.layout.iter().map(|volume| volume.name()).collect();
    assert_eq!(
        names,
        [
            "disk 0 partition 1",
            "disk 0 partition 2",
            "vg_centos/lv_root",
            "vg_centos/lv_swap"
        ]
    );
    assert_eq!(
        guest.layout[0].uuid(),
        "3d6b0a0c-5f1e-4a57-9b0e-7c1f25a4e801"
    );
    assert_eq!(
        guest.layout[2].uuid(),
        "8e0c2f7a-41d3-4b6e-a2c5-0d9f6b3e1702"
    );
    assert_eq!(
        guest.layout[3].uuid(),
        "b7a51d3e-6c28-47f9-8e14-2f0c9d5a6b03"
    );
    assert_eq!(guest.root, 2);
    assert!(guest.layout.iter().all(|volume| volume.broken.is_none()));

    let system = linux(&guest);
    let loader = system.loader.as_ref().expect("GRUB is there");
    assert_eq!(
        (loader.kind, loader.path.as_str(), loader.volume),
        (LoaderKind::GrubLegacy, "/boot/grub/grub.conf", 0)
    );
    let entry = loader.default_entry().expect("there is one");
    assert_eq!(
        entry.root[0].value,
        LoaderRoot::Bios {
            disk: 0,
            partition: Some(1)
        }
    );
    let kernel = system.kernel.as_ref().expect("it is there");
    assert_eq!(kernel.path, "/boot/vmlinuz-2.6.32-279.el6.x86_64");
    assert_eq!(kernel.version.value, "2.6.32-279.el6.x86_64");
    assert!(
        kernel.bootable && kernel.version.witness.says.contains("header"),
        "the version is the kernel's own word"
    );
    let volumes: Vec<&str> = system
        .cmdline
        .iter()
        .filter(|param| param.value.key == "rd_LVM_LV")
        .filter_map(|param| param.value.value.as_deref())
        .collect();
    assert_eq!(volumes, ["vg_centos/lv_swap", "vg_centos/lv_root"]);
    let initramfs = system.initramfs.as_ref().expect("it is there");
    assert_eq!(initramfs.archives, ["gzip"]);
    let mptspi = initramfs.modules.get("mptspi").expect("generic");
    assert!(
        mptspi
            .aliases
            .contains(&"pci:v00001000d00000030sv*sd*bc*sc*i*".to_owned()),
        "{mptspi:?}"
    );
    assert!(mptspi.depends.contains(&"scsi_transport_spi".to_owned()));
    assert!(
        !initramfs.modules.contains_key("e1000"),
        "no network drivers in it"
    );
    assert!(!initramfs.modules.contains_key("BusLogic"));
    assert_eq!(
        system.fstab[0].value.device,
        "/dev/mapper/vg_centos-lv_root"
    );
    assert_eq!(system.fstab[0].witness.place.to_string(), "/etc/fstab:3");
    assert_eq!(guest.findings, [], "nothing is wrong with it");
}

#[test]
fn the_configuration_of_the_source_is_in_the_tree() {
    for (source, mac) in SOURCES.into_iter().zip([
        "00:0C:29:4F:8E:35",
        "52:54:00:6B:3C:58",
        "A6:1F:4E:93:0C:8D",
        "00:15:5D:00:0D:00",
    ]) {
        let guest = Golden::new(CENTOS, source).inspect();
        let ifcfg = guest
            .tree
            .text("/etc/sysconfig/network-scripts/ifcfg-eth0")
            .expect("it is there");
        assert!(ifcfg.contains(&format!("HWADDR=\"{mac}\"")), "{ifcfg}");
        let rules = guest
            .tree
            .text("/etc/udev/rules.d/70-persistent-net.rules")
            .expect("it is there");
        // The generator writes no line for an adapter on Xen's bus.
        let line = rules.contains(&mac.to_lowercase());
        assert_eq!(line, source != XEN, "{rules}");
        assert_eq!(line, rules.contains("SUBSYSTEM"), "{rules}");
        for path in [
            "/lib/udev/rules.d/75-persistent-net-generator.rules",
            "/lib/udev/rules.d/60-net.rules",
            "/lib/udev/rename_device",
            "/etc/rc.d/rc3.d/S10network",
            "/var/lib/dhclient/dhclient-eth0.leases",
            "/etc/sysconfig/iptables",
            "/lib/modules/2.6.32-279.el6.x86_64/modules.alias",
            "/lib/modules/2.6.32-279.el6.x86_64/modules.dep",
        ] {
            assert!(guest.tree.read(path).is_some(), "{path}");
        }
    }
}

#[test]
fn nothing_is_wrong_with_a_golden_guest_on_any_source() {
    for guest_id in [CENTOS, UBUNTU, WINDOWS] {
        for source in SOURCES {
            let guest = Golden::new(guest_id, source).inspect();
            assert_eq!(guest.findings, [], "{guest_id} {source}");
            assert!(guest.layout.iter().all(|volume| volume.broken.is_none()));
            let loaded = guest.disks[0].boot_code != BootCode::None;
            assert_eq!(loaded, (guest_id, source) != (CENTOS, XEN), "{source}");
        }
    }
}

#[test]
fn centos_of_xenserver_has_xens_console_and_disk_names_and_no_boot_loader() {
    let golden = Golden::new(CENTOS, XEN);
    let guest = golden.inspect();
    let system = linux(&guest);
    let console = system
        .cmdline
        .iter()
        .find(|param| param.value.key == "console")
        .expect("it names its console");
    assert_eq!(console.value.value.as_deref(), Some("hvc0"));
    assert_eq!(
        console.witness.place.to_string(),
        "/boot/grub/grub.conf:10",
        "the menu that pygrub reads"
    );
    let text = |volume, path| String::from_utf8(golden.read(volume, path)).expect("it is text");
    assert!(text("vg_centos/lv_root", "/etc/securetty").ends_with("tty11\nhvc0\n"));
    assert!(text("p1", "/grub/grub.conf").contains("#boot=/dev/xvda\n"));
    assert!(text("p1", "/grub/device.map").contains("(hd0)     /dev/xvda\n"));
    assert_eq!(guest.disks[0].boot_code, BootCode::None);
    for other in SOURCES.into_iter().filter(|source| *source != XEN) {
        let other = Golden::new(CENTOS, other).inspect();
        let mut cmdline = linux(&other).cmdline.iter();
        assert!(cmdline.all(|param| param.value.key != "console"));
        assert_eq!(other.disks[0].boot_code, BootCode::Grub);
    }
}

#[test]
fn windows_of_hyper_v_knows_its_adapter_on_vmbus_by_its_address() {
    let guest = Golden::new(WINDOWS, HYPERV).inspect();
    let system = windows(&guest);
    let adapter = &system.net.adapters[0];
    assert_eq!(
        (
            adapter.device_id.as_str(),
            adapter.instance.as_str(),
            adapter.location,
            adapter.service.as_deref()
        ),
        (
            "VMBUS\\{F8615163-DF3E-46C5-913F-F2D2F965ED0E}",
            "FF5D1500020D00FE00",
            None,
            Some("netvsc")
        )
    );
    let guid = adapter.interface.as_deref().expect("it has an interface");
    let lease = system.net.interfaces[guid].lease.as_ref();
    assert_eq!(
        lease.map(|lease| lease.address.to_string()).as_deref(),
        Some("10.20.0.153")
    );
    for (name, start) in [("vmbus", 0), ("storvsc", 0), ("storflt", 0), ("netvsc", 3)] {
        let service = &system.services[name];
        assert_eq!(
            (service.start, service.present),
            (Some(start), true),
            "{name}"
        );
    }
    let other = Golden::new(WINDOWS, XEN).inspect();
    assert_eq!(windows(&other).services["storvsc"].start, Some(3));
    assert_eq!(
        windows(&other).net.adapters[0].device_id,
        "PCI\\VEN_10EC&DEV_8139&SUBSYS_00015853&REV_20"
    );
}

#[test]
fn ubuntu_is_found_on_its_partition_with_every_fact_in_place() {
    let guest = Golden::new(UBUNTU, "kvm-centos-6.3").inspect();
    assert_eq!(
        (
            guest.os.name.value.as_str(),
            guest.os.version.value.as_str()
        ),
        ("ubuntu", "12.04")
    );
    assert_eq!(guest.os.name.witness.place.to_string(), "/etc/os-release:3");
    assert_eq!(
        guest.hostname.as_ref().map(|host| host.value.as_str()),
        Some("ubuntu1204")
    );
    assert!(matches!(
        guest.layout[guest.root].kind,
        VolumeKind::Partition {
            number: 1,
            active: true,
            ..
        }
    ));
    let swap = guest
        .layout
        .iter()
        .find(|volume| matches!(volume.kind, VolumeKind::Partition { number: 5, .. }));
    assert!(
        swap.is_some_and(|volume| !volume.uuid().is_empty()),
        "swap is logical partition 5"
    );
    let system = linux(&guest);
    let loader = system.loader.as_ref().expect("GRUB is there");
    assert_eq!(
        (loader.kind, loader.path.as_str()),
        (LoaderKind::Grub2, "/boot/grub/grub.cfg")
    );
    let uuid = guest.layout[guest.root].uuid();
    let entry = loader.default_entry().expect("there is one");
    assert!(
        entry
            .root
            .iter()
            .any(|root| root.value == LoaderRoot::Uuid(uuid.to_owned()))
    );
    let root = system
        .cmdline
        .iter()
        .find(|param| param.value.key == "root")
        .expect("it names its root");
    assert_eq!(
        root.value.value.as_deref(),
        Some(format!("UUID={uuid}").as_str())
    );
    assert_eq!(
        system.links.get("/etc/resolv.conf").map(String::as_str),
        Some("/run/resolvconf/resolv.conf")
    );
    assert!(
        guest.tree.read("/etc/resolv.conf").is_none(),
        "it leads into memory"
    );
    assert!(guest.tree.read("/etc/network/interfaces").is_some());
    assert!(system.modules.builtin.line("virtio_pci").is_some());
    assert_eq!(guest.findings, [], "nothing is wrong with it");
}

#[test]
fn windows_is_found_with_its_registry_and_boot_configuration() {
    let guest = Golden::new(WINDOWS, "esxi-5.0.0").inspect();
    let system = windows(&guest);
    assert_eq!(system.product.value, "Windows Server 2008 R2 Standard");
    assert_eq!(
        (system.nt.value.as_str(), system.build.value.as_str()),
        ("6.1", "7601")
    );
    assert_eq!(guest.os.arch.value, "x86_64");
    assert_eq!(
        guest.hostname.as_ref().map(|host| host.value.as_str()),
        Some("WIN2008R2")
    );
    assert_eq!(system.control_set.value, "ControlSet001");
    assert_eq!(
        system.control_set.witness.place.to_string(),
        "SYSTEM\\Select, value Current"
    );
    for (name, start) in [
        ("intelide", 0),
        ("atapi", 0),
        ("lsi_sas", 0),
        ("lsi_scsi", 3),
        ("pciide", 3),
        ("disk", 0),
    ] {
        let service = &system.services[name];
        assert_eq!(
            (service.start, service.present),
            (Some(start), true),
            "{name}: {service:?}"
        );
    }
    assert_eq!(
        system.services["atapi"].image.to_lowercase(),
        "/windows/system32/drivers/atapi.sys"
    );
    assert_eq!(
        system.critical_devices["pci#ven_8086&dev_7111"].value,
        "intelide"
    );
    let bcd = system.bcd.as_ref().expect("it is there");
    let device = BcdDevice::Mbr {
        signature: 0x5a3c_71e9,
        offset: 206_848 * 512,
    };
    assert_eq!(
        bcd.device.as_ref().map(|device| &device.value),
        Some(&device)
    );
    assert_eq!(
        bcd.os_device.as_ref().map(|device| &device.value),
        Some(&device)
    );
    assert!(bcd.manager && bcd.loader_present);
    assert!(!system.clock_utc.value);
    assert_eq!(guest.disks[0].boot_code, BootCode::Chain);
    assert_eq!(guest.findings, [], "nothing is wrong with it");
}

#[test]
fn the_network_of_windows_is_read_from_its_registry_and_inf_files() {
    let guest = Golden::new(WINDOWS, "esxi-5.0.0").inspect();
    let net = &windows(&guest).net;
    assert_eq!(net.adapters.len(), 1, "{:?}", net.adapters);
    let adapter = &net.adapters[0];
    assert_eq!(
        adapter.device_id,
        "PCI\\VEN_8086&DEV_100F&SUBSYS_075015AD&REV_01"
    );
    assert_eq!(
        adapter.location.map(|slot| slot.to_string()).as_deref(),
        Some("0000:02:00.0")
    );
    let guid = adapter.interface.as_deref().expect("it has an interface");
    let interface = net.interfaces.get(guid).expect("it has settings");
    assert!(interface.dhcp);
    assert_eq!(
        interface
            .lease
            .as_ref()
            .map(|lease| lease.address.to_string())
            .as_deref(),
        Some("10.20.0.137")
    );
    assert_eq!(
        net.connections.get(guid).map(String::as_str),
        Some("Local Area Connection")
    );
    let driver = net.inf.get("PCI\\VEN_10EC&DEV_8139").expect("in box");
    assert_eq!(
        (driver.service.as_str(), driver.missing.is_none()),
        ("RTL8023x64", true)
    );
    assert!(
        !net.inf.contains_key("PCI\\VEN_15AD&DEV_07B0"),
        "vmxnet3 is not in box"
    );
    assert!(net.firewall.public_enabled && net.firewall.rules.contains_key("RemoteDesktop-In-TCP"));
    assert_eq!(net.networks.len(), 1);
}

#[test]
fn the_same_bytes_in_any_container_are_the_same_guest() {
    use drylab_image::{Target, VmdkOptions};
    for guest in [CENTOS, UBUNTU, WINDOWS] {
        let raw = disk(guest, "esxi-5.0.0");
        let expected = inspect(&[GuestDisk::new(raw.clone())], &LIMITS).expect("it is inspected");
        for target in [
            Target::VmdkStream(VmdkOptions::default()),
            Target::Qcow2(Default::default()),
        ] {
            let file = SparseBytes::default();
            drylab_image::write(raw.as_ref(), &target, &file).expect("it is written");
            let image: Arc<dyn ReadAt> =
                Arc::new(drylab_image::open(Arc::new(file), &LIMITS).expect("it opens"));
            let found = inspect(&[GuestDisk::new(image)], &LIMITS).expect("it is inspected");
            assert!(found == expected, "{guest} in {target:?}");
        }
    }
}

#[test]
fn a_file_beside_the_disk_is_read_instead_of_the_one_on_it() {
    let golden = Golden::new(CENTOS, "esxi-5.0.0")
        .with(
            "vg_centos/lv_root",
            "/etc/centos-release",
            Some(b"CentOS release 6.4 (Final)\n"),
        )
        .with(
            "vg_centos/lv_root",
            "/etc/udev/rules.d/70-persistent-net.rules",
            None,
        );
    let guest = golden.inspect();
    assert_eq!(guest.os.version.value, "6.4");
    assert!(
        guest
            .tree
            .read("/etc/udev/rules.d/70-persistent-net.rules")
            .is_none()
    );
}

#[test]
fn a_disk_without_a_system_is_refused_with_what_was_looked_at() {
    let empty = GuestDisk::new(Arc::new(SparseBytes::new(1 << 20)));
    let error = inspect(&[empty], &LIMITS)
        .expect_err("nothing is there")
        .to_string();
    assert!(error.contains("no operating system"), "{error}");
    let golden = disk(CENTOS, "esxi-5.0.0");
    let mut bytes = vec![0u8; 1 << 20];
    golden.read_at(0, &mut bytes).expect("it is longer");
    let error = inspect(&[GuestDisk::new(Arc::new(bytes))], &LIMITS)
        .expect_err("cut off")
        .to_string();
    assert!(error.contains("no operating system"), "{error}");
}

#[test]
fn inspection_of_a_golden_disk_is_fast() {
    // 30 ms in release is the aim; a debug build with optimisation 1 on a busy machine gets far more room.
    for guest in [CENTOS, UBUNTU, WINDOWS] {
        let golden = Golden::new(guest, "esxi-5.0.0");
        let limit = if cfg!(debug_assertions) { 2_000 } else { 200 };
        #[expect(
            clippy::disallowed_methods,
            reason = "a test of speed needs the wall clock"
        )]
        let start = std::time::Instant::now();
        let found = golden.inspect();
        let took = start.elapsed().as_millis();
        assert!(took < limit, "{guest} took {took} ms, more than {limit}");
        println!(
            "{guest}: {took} ms, {} files in the tree",
            found.tree.iter().count()
        );
    }
}
