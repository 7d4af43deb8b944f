//! Xen: what kernels and drivers unplug, what pygrub starts, and what a guest that lived there leaves elsewhere.

use crate::support::{
    CENTOS, Golden, LIMITS, SOURCES, UBUNTU, WINDOWS, machine, machine_with, without,
};
use drylab_catalog::{Controller, Firmware, Machine, Nic, Place};
use drylab_guest::boot::{BootReport, boot};
use drylab_hive::{HiveEditor, RegType};

const BOOT: &str = "p1";
const ROOT: &str = "vg_centos/lv_root";
const INITRAMFS: &str = "/initramfs-2.6.32-279.el6.x86_64.img";
const CONFIG: &str = "/config-2.6.32-279.el6.x86_64";

fn quirks(witnesses: &[drylab_catalog::Witness]) -> Vec<&str> {
    let cited = witnesses.iter().filter_map(|witness| match &witness.place {
        Place::Quirk(id) => Some(id.as_str()),
        _ => None,
    });
    cited.collect()
}

fn nic(model: &str) -> Nic {
    Nic {
        model: model.to_owned(),
        mac: "9e:2c:41:00:00:01".parse().expect("a MAC"),
        slot: machine("piix3-ide").controllers[0].slot,
        network: "xenbr0".to_owned(),
    }
}

/// A Xen HVM machine with this many disks on emulated IDE.
fn hvm(disks: usize) -> Machine {
    let mut machine = machine("piix3-ide-xen");
    machine.xen_platform = true;
    machine.nics = vec![nic("rtl8139-xen")];
    let first = machine.disks[0].clone();
    machine.disks = (0..disks)
        .map(|unit| drylab_catalog::Disk {
            unit: u32::try_from(unit).expect("few"),
            ..first.clone()
        })
        .collect();
    machine
}

/// A Xen PV machine.
fn pv() -> Machine {
    let mut machine = machine("xen-vbd");
    machine.firmware = Firmware::Pygrub;
    machine.controllers = vec![Controller {
        model: "xen-vbd".to_owned(),
        slot: None,
    }];
    machine.nics = vec![Nic {
        slot: None,
        ..nic("xen-vif")
    }];
    machine
}

fn failed(report: &BootReport) -> &str {
    assert!(!report.reached && !report.cause.is_empty(), "{report:#?}");
    report.stages.last().map_or("", |stage| stage.name)
}

#[test]
fn linux_on_xen_hvm_works_on_the_twins_of_emulated_disk_and_adapter() {
    for source in SOURCES {
        for guest in [CENTOS, UBUNTU] {
            let report = boot(&Golden::new(guest, source).inspect(), &hvm(1));
            assert!(report.reached, "{guest} {source}: {:#?}", report.cause);
            assert_eq!(report.disk_names, [(0, "xvda".to_owned())]);
            assert_eq!(report.nics[0].model, "xen-vif");
            assert!(report.nics[0].slot.is_none());
            assert_eq!(quirks(&report.unplugged), ["GQ39"]);
            let mut plain = hvm(1);
            plain.xen_platform = false;
            let report = boot(&Golden::new(guest, source).inspect(), &plain);
            assert_eq!(report.disk_names, [(0, "sda".to_owned())]);
            assert!(report.unplugged.is_empty() && report.nics == plain.nics);
        }
    }
}

#[test]
fn a_twin_keeps_the_place_of_its_disk_on_the_emulated_controller_as_its_letter() {
    let guest = {
        let data = || {
            let empty = drylab_block::SparseBytes::new(1 << 30);
            drylab_guest::inspect::GuestDisk::new(std::sync::Arc::new(empty))
        };
        let system = Golden::new(CENTOS, "esxi-5.0.0").disk;
        drylab_guest::inspect::inspect(&[system, data(), data()], &LIMITS).expect("it is inspected")
    };
    let mut machine = hvm(3);
    machine.disks[2].unit = 3;
    let names: Vec<String> = boot(&guest, &machine)
        .disk_names
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["xvda", "xvdb", "xvdd"], "the CD-ROM is the third");
    // In a PV machine each front end is a controller of its own.
    let mut machine = pv();
    machine.disks = vec![machine.disks[0].clone(); 3];
    let front = machine.controllers[0].clone();
    machine.controllers = vec![front; 3];
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.controller = u32::try_from(index).expect("few");
    }
    let names: Vec<String> = boot(&guest, &machine)
        .disk_names
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["xvda", "xvdb", "xvdc"]);
}

#[test]
fn the_command_line_says_what_is_unplugged() {
    for (word, disk, model) in [
        ("xen_emul_unplug=never", "sda", "rtl8139-xen"),
        ("xen_emul_unplug=all", "xvda", "xen-vif"),
        ("xen_emul_unplug=nics", "sda", "xen-vif"),
        ("xen_emul_unplug=ide-disks", "xvda", "rtl8139-xen"),
        ("xen_emul_unplug=ide-disks,nics", "xvda", "xen-vif"),
    ] {
        let golden = Golden::new(CENTOS, "esxi-5.0.0").replacing(
            BOOT,
            "/grub/grub.conf",
            "rhgb quiet",
            &format!("{word} rhgb quiet"),
        );
        let report = boot(&golden.inspect(), &hvm(1));
        assert!(report.reached, "{word}: {:#?}", report.cause);
        let found = (
            report.disk_names[0].1.as_str(),
            report.nics[0].model.as_str(),
        );
        assert_eq!(found, (disk, model), "{word}");
        let cited = report.unplugged.iter().chain(&report.notes);
        assert!(cited.into_iter().any(|witness| witness.says.contains(word)));
    }
}

#[test]
fn what_a_kernel_was_not_built_for_it_does_not_unplug() {
    for (option, disk, model) in [
        ("CONFIG_XEN_PLATFORM_PCI=y", "sda", "rtl8139-xen"),
        ("CONFIG_XEN_BLKDEV_FRONTEND=m", "sda", "xen-vif"),
        ("CONFIG_XEN_NETDEV_FRONTEND=m", "xvda", "rtl8139-xen"),
    ] {
        let golden = Golden::new(CENTOS, "esxi-5.0.0").replacing(BOOT, CONFIG, option, "");
        let report = boot(&golden.inspect(), &hvm(1));
        assert!(report.reached, "{option}: {:#?}", report.cause);
        let found = (
            report.disk_names[0].1.as_str(),
            report.nics[0].model.as_str(),
        );
        assert_eq!(found, (disk, model), "{option}");
    }
}

/// The golden CentOS with all that carries its kernel's release renamed.
fn released(release: &str, words: &str) -> Golden {
    let golden = Golden::new(CENTOS, "esxi-5.0.0");
    let old = "2.6.32-279.el6.x86_64";
    let (config, image) = (golden.read(BOOT, CONFIG), golden.read(BOOT, INITRAMFS));
    let kernel = golden.read(BOOT, &format!("/vmlinuz-{old}"));
    let at = kernel
        .windows(old.len())
        .position(|window| window == old.as_bytes())
        .expect("the image has its release");
    let mut renamed = kernel.clone();
    let padded = format!("{release:\0<width$}", width = old.len());
    renamed[at..at + old.len()].copy_from_slice(padded.as_bytes());
    let menu = String::from_utf8(golden.read(BOOT, "/grub/grub.conf")).expect("text");
    let menu = menu
        .replace(&format!("vmlinuz-{old}"), &format!("vmlinuz-{release}"))
        .replace("rhgb quiet", &format!("{words} rhgb quiet"));
    golden
        .with(BOOT, &format!("/vmlinuz-{release}"), Some(&renamed))
        .with(BOOT, &format!("/config-{release}"), Some(&config))
        .with(BOOT, INITRAMFS, Some(&image))
        .with(BOOT, "/grub/grub.conf", Some(menu.as_bytes()))
}

#[test]
fn the_kernel_of_6_0_unplugs_only_when_it_is_asked_to() {
    for (release, words, unplugs) in [
        ("2.6.32-71.el6.x86_64", "", false),
        ("2.6.32-71.el6.x86_64", "xen_pv_hvm=enable", true),
        ("2.6.32-131.el6.x86_64", "", true),
    ] {
        let report = boot(&released(release, words).inspect(), &hvm(1));
        assert!(report.reached, "{release}: {:#?}", report.cause);
        let name = if unplugs { "xvda" } else { "sda" };
        assert_eq!(
            report.disk_names,
            [(0, name.to_owned())],
            "{release} {words}"
        );
        let noted = quirks(&report.notes).contains(&"GQ38");
        assert_eq!(noted, !unplugs, "{release} {words}");
    }
}

#[test]
fn an_initramfs_without_the_front_end_never_sees_the_twin_of_its_root() {
    let golden = || Golden::new(CENTOS, "esxi-5.0.0");
    let cut = without(&golden().read(BOOT, INITRAMFS), &|name| {
        name.ends_with("xen-blkfront.ko")
    });
    let guest = golden().with(BOOT, INITRAMFS, Some(&cut)).inspect();
    let report = boot(&guest, &hvm(1));
    assert_eq!(failed(&report), "drivers");
    assert_eq!(quirks(&report.cause).first(), Some(&"HQ83"));
    let says = |what: &str| {
        report
            .cause
            .iter()
            .any(|witness| witness.says.contains(what))
    };
    assert!(
        says("xen_blkfront") || says("xen:vbd"),
        "{:#?}",
        report.cause
    );
    let kept = golden()
        .with(BOOT, INITRAMFS, Some(&cut))
        .replacing(
            BOOT,
            "/grub/grub.conf",
            "rhgb",
            "xen_emul_unplug=never rhgb",
        )
        .inspect();
    assert!(
        boot(&kept, &hvm(1)).reached,
        "unless it keeps the emulated disk"
    );
    assert!(boot(&guest, &machine("piix3-ide")).reached);
}

#[test]
fn pygrub_starts_what_it_finds_in_the_menu_without_boot_code_and_windows_never() {
    for source in SOURCES {
        for guest in [CENTOS, UBUNTU] {
            let bare = Golden::new(guest, source).patched(0, &[0; 440]);
            let report = boot(&bare.inspect(), &pv());
            assert!(report.reached, "{guest}: {:#?}", report.cause);
            assert_eq!(report.disk_names, [(0, "xvda".to_owned())]);
        }
    }
    let windows = Golden::new(WINDOWS, "esxi-5.0.0").inspect();
    let report = boot(&windows, &pv());
    assert_eq!(failed(&report), "firmware");
    assert_eq!(quirks(&report.cause), ["HQ85"]);
    let native = Golden::new(CENTOS, "esxi-5.0.0").replacing(BOOT, CONFIG, "CONFIG_XEN=y", "");
    let report = boot(&native.inspect(), &pv());
    assert_eq!(
        (failed(&report), quirks(&report.cause)),
        ("kernel", vec!["HQ85"])
    );
}

#[test]
fn a_pv_guest_needs_a_boot_loader_and_a_native_kernel_elsewhere() {
    let golden = || {
        Golden::new(CENTOS, "esxi-5.0.0").replacing(
            BOOT,
            "/grub/grub.conf",
            "rhgb quiet",
            "console=hvc0",
        )
    };
    let bare = golden().patched(0, &[0; 440]).inspect();
    for target in [hvm(1), machine("piix4-ide-hyperv"), machine("lsilogic")] {
        let report = boot(&bare, &target);
        assert_eq!(
            (failed(&report), quirks(&report.cause)),
            ("firmware", vec!["GQ40"])
        );
        let report = boot(&golden().inspect(), &target);
        assert!(report.reached, "with one it boots: {:#?}", report.cause);
        assert!(quirks(&report.notes).contains(&"GQ42"));
    }
    assert!(!quirks(&boot(&bare, &pv()).notes).contains(&"GQ42"));
    let ported = golden().replacing(
        BOOT,
        CONFIG,
        "CONFIG_XEN=y",
        "CONFIG_XEN=y\nCONFIG_X86_64_XEN=y",
    );
    let ported = ported.inspect();
    assert!(boot(&ported, &pv()).reached);
    let report = boot(&ported, &machine("piix4-ide-hyperv"));
    assert_eq!(
        (failed(&report), quirks(&report.cause)),
        ("kernel", vec!["GQ41"])
    );
}

#[test]
fn a_bios_starts_the_first_disk_and_only_from_a_bus_it_knows() {
    let disk = || Golden::new(CENTOS, "esxi-5.0.0").disk;
    let empty = drylab_block::SparseBytes::new(1 << 30);
    let data = drylab_guest::inspect::GuestDisk::new(std::sync::Arc::new(empty));
    let guest = drylab_guest::inspect::inspect(&[data, disk()], &LIMITS).expect("it is inspected");
    let report = boot(
        &guest,
        &machine_with(&["virtio-blk", "virtio-blk"], 8 << 30),
    );
    assert_eq!(
        (failed(&report), quirks(&report.cause)),
        ("firmware", vec!["GQ43"])
    );
    let guest = drylab_guest::inspect::inspect(&[disk()], &LIMITS).expect("it is inspected");
    for model in ["hyperv-scsi", "xen-vbd"] {
        let report = boot(&guest, &machine(model));
        assert_eq!(
            (failed(&report), quirks(&report.cause)),
            ("firmware", vec!["DQ308"])
        );
    }
}

#[test]
fn bare_names_of_the_source_fail_where_the_twin_has_another() {
    let line = "UUID=3d6b0a0c-5f1e-4a57-9b0e-7c1f25a4e801 /boot";
    let golden =
        Golden::new(CENTOS, "esxi-5.0.0").replacing(ROOT, "/etc/fstab", line, "/dev/sda1 /boot");
    let report = boot(&golden.inspect(), &hvm(1));
    assert_eq!(
        (failed(&report), quirks(&report.cause).last()),
        ("fstab", Some(&"GQ37"))
    );
}

const SYSTEM: &str = "/Windows/System32/config/SYSTEM";

/// The golden Windows with drivers of XenServer Tools: name and Start.
fn tools(services: &[(&str, u32)]) -> Golden {
    let golden = Golden::new(WINDOWS, "kvm-centos-6.3");
    let mut editor = HiveEditor::open(golden.read("p2", SYSTEM), &LIMITS).expect("the hive opens");
    let mut golden = golden;
    for (name, start) in services {
        let key = format!("ControlSet001\\services\\{name}");
        editor.create_key(&key).expect("it edits");
        editor.set_u32(&key, "Start", *start).expect("it edits");
        editor.set_u32(&key, "Type", 1).expect("it edits");
        golden = golden.with(
            "p2",
            &format!("/Windows/System32/drivers/{name}.sys"),
            Some(b"MZ"),
        );
    }
    let bytes = editor.finish().expect("the hive is written");
    golden.with("p2", SYSTEM, Some(&bytes))
}

#[test]
fn windows_boots_on_emulated_ide_of_xen_and_hyper_v_when_its_ide_drivers_start() {
    for model in ["piix3-ide-xen", "piix4-ide-hyperv"] {
        let mut machine = hvm(1);
        machine.controllers[0].model = model.to_owned();
        for source in SOURCES {
            let report = boot(&Golden::new(WINDOWS, source).inspect(), &machine);
            assert!(report.reached, "{source} on {model}: {:#?}", report.cause);
            assert!(report.unplugged.is_empty() && report.nics[0].model == "rtl8139-xen");
        }
        for service in ["atapi", "intelide"] {
            let report = boot(&tools(&[(service, 3)]).inspect(), &machine);
            assert_eq!(failed(&report), "drivers");
            assert_eq!(quirks(&report.cause), ["GQ48"]);
            let stop =
                |witness: &drylab_catalog::Witness| witness.to_string().contains("0x0000007B");
            assert!(report.cause.iter().any(stop));
        }
    }
}

#[test]
fn xen_drivers_in_windows_take_disk_and_adapter_on_xen_and_stop_it_elsewhere() {
    let all = [("xenevtchn", 0), ("xenvbd", 0), ("xennet6", 3)];
    let report = boot(&tools(&all).inspect(), &hvm(1));
    assert!(report.reached, "{:#?}", report.cause);
    assert_eq!(quirks(&report.unplugged), ["DQ309"]);
    assert_eq!(report.nics[0].model, "xen-vif");
    let stage = report.stage("drivers").expect("it has one");
    assert!(stage.witnesses[0].says.contains("xen-vbd"), "{stage:#?}");
    let report = boot(&tools(&all).inspect(), &machine("piix3-ide"));
    assert_eq!(
        (failed(&report), quirks(&report.cause)),
        ("drivers", vec!["GQ64"])
    );
    assert!(report.cause[0].to_string().contains("xenvbd, value Start"));
    // Switched off, as virt-v2v leaves them, or with only the adapter's, they do no harm.
    for harmless in [
        [("xenevtchn", 0), ("xenvbd", 4)],
        [("xenevtchn", 0), ("xennet6", 3)],
    ] {
        assert!(boot(&tools(&harmless).inspect(), &machine("piix3-ide")).reached);
        let report = boot(&tools(&harmless).inspect(), &hvm(1));
        assert!(report.reached);
        let twin = harmless[1].0 == "xennet6";
        assert_eq!(report.nics[0].model == "xen-vif", twin);
    }
    let gone = tools(&all).with("p2", "/Windows/System32/drivers/xenvbd.sys", None);
    assert!(
        boot(&gone.inspect(), &machine("piix3-ide")).reached,
        "no file, no driver"
    );
}

#[test]
fn adapters_on_the_buses_of_hyper_v_and_xen_are_read_from_the_registry() {
    let golden = Golden::new(WINDOWS, "esxi-5.0.0");
    let mut editor = HiveEditor::open(golden.read("p2", SYSTEM), &LIMITS).expect("the hive opens");
    let devices = [
        (
            "VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}\\FF155D0001B700FE00",
            "netvsc",
        ),
        ("XENBUS\\CLASS&VIF\\FF2C9E00010041FE00", "xennet6"),
        ("XEN\\vif\\0", "xennet"),
    ];
    let net = "{4d36e972-e325-11ce-bfc1-08002be10318}";
    for (number, (path, service)) in devices.iter().enumerate() {
        let key = format!("ControlSet001\\Enum\\{path}");
        let class = format!("ControlSet001\\Control\\Class\\{net}\\{:04}", 40 + number);
        let text = |value: &str| -> Vec<u8> {
            value
                .encode_utf16()
                .chain([0])
                .flat_map(u16::to_le_bytes)
                .collect()
        };
        editor.create_key(&key).expect("it edits");
        editor.create_key(&class).expect("it edits");
        let driver = format!("{net}\\{:04}", 40 + number);
        let guid = format!("{{0000000{number}-0000-0000-0000-000000000000}}");
        for (key, name, value) in [
            (&key, "ClassGUID", net),
            (&key, "Driver", driver.as_str()),
            (&key, "Service", service),
            (&class, "NetCfgInstanceId", guid.as_str()),
        ] {
            editor
                .set_value(key, name, RegType::SZ, &text(value))
                .expect("it edits");
        }
    }
    let bytes = editor.finish().expect("the hive is written");
    let guest = golden.with("p2", SYSTEM, Some(&bytes)).inspect();
    let drylab_guest::inspect::System::Windows(windows) = &guest.system else {
        panic!("Windows");
    };
    let ids: Vec<&str> = windows
        .net
        .adapters
        .iter()
        .map(|found| found.device_id.as_str())
        .collect();
    assert_eq!(
        ids[1..],
        [
            "VMBUS\\{F8615163-DF3E-46C5-913F-F2D2F965ED0E}",
            "XEN\\VIF",
            "XENBUS\\CLASS&VIF"
        ],
    );
    assert!(ids[0].starts_with("PCI\\"));
    let interfaces = windows
        .net
        .adapters
        .iter()
        .filter(|found| found.interface.is_some());
    assert_eq!(interfaces.count(), 4);
}
