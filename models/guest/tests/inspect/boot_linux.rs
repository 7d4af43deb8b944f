//! Linux: each mechanism of the boot, changed one at a time.

use crate::support::{
    CENTOS, Golden, MODELS, SOURCES, UBUNTU, XEN, cpio, machine, machine_with, without,
};
use drylab_catalog::{Firmware, Place};
use drylab_guest::boot::{BootReport, boot};

const BOOT: &str = "p1";
const ROOT: &str = "vg_centos/lv_root";
const INITRAMFS: &str = "/initramfs-2.6.32-279.el6.x86_64.img";
const INITRD: &str = "/boot/initrd.img-3.2.0-23-generic";

/// Quirks the cause cites.
fn quirks(report: &BootReport) -> Vec<&str> {
    let cited = report
        .cause
        .iter()
        .filter_map(|witness| match &witness.place {
            Place::Quirk(id) => Some(id.as_str()),
            _ => None,
        });
    cited.collect()
}

fn says(report: &BootReport, what: &str) -> bool {
    report
        .cause
        .iter()
        .any(|witness| witness.to_string().contains(what))
}

fn failed(report: &BootReport) -> &str {
    assert!(!report.reached && !report.cause.is_empty(), "{report:#?}");
    report.stages.last().map_or("", |stage| stage.name)
}

#[test]
fn both_guests_boot_from_every_controller_in_their_generic_initramfs() {
    for source in SOURCES {
        for model in MODELS {
            let mut at_home = machine(model);
            if source == XEN {
                at_home.firmware = Firmware::Pygrub;
            }
            let report = boot(&Golden::new(CENTOS, source).inspect(), &at_home);
            assert!(report.reached, "{source} {model}: {:#?}", report.cause);
            assert_eq!(
                report.root_device.as_deref(),
                Some("/dev/mapper/vg_centos-lv_root")
            );
            let name = if model == "virtio-blk" { "vda" } else { "sda" };
            assert_eq!(report.disk_names, [(0, name.to_owned())], "{model}");
            assert!(report.unassessed.is_empty());
            let report = boot(&Golden::new(UBUNTU, source).inspect(), &machine(model));
            assert!(report.reached, "{source} {model}: {:#?}", report.cause);
            assert_eq!(report.root_device, Some(format!("/dev/{name}1")));
        }
    }
}

#[test]
fn every_stage_of_a_boot_that_is_reached_has_its_witness() {
    let report = boot(
        &Golden::new(CENTOS, "esxi-5.0.0").inspect(),
        &machine("lsilogic"),
    );
    let names: Vec<&str> = report.stages.iter().map(|stage| stage.name).collect();
    assert_eq!(
        names,
        [
            "firmware",
            "boot-loader",
            "kernel",
            "initramfs",
            "drivers",
            "root",
            "fstab"
        ]
    );
    assert!(
        report
            .stages
            .iter()
            .all(|stage| stage.ok && !stage.witnesses.is_empty())
    );
    let drivers = report.stage("drivers").expect("it has one");
    assert!(
        drivers
            .witnesses
            .iter()
            .any(|witness| witness.says.contains("mptspi"))
    );
    let root = report.stage("root").expect("it has one");
    assert!(
        root.witnesses
            .iter()
            .any(|witness| witness.place.to_string() == "/boot/grub/grub.conf:10"),
        "{root:#?}"
    );
}

#[test]
fn buslogic_has_a_driver_in_ubuntu_and_none_in_centos() {
    assert!(
        boot(
            &Golden::new(UBUNTU, "esxi-5.0.0").inspect(),
            &machine("buslogic")
        )
        .reached
    );
    let report = boot(
        &Golden::new(CENTOS, "esxi-5.0.0").inspect(),
        &machine("buslogic"),
    );
    assert_eq!(failed(&report), "drivers");
    assert_eq!(quirks(&report).last(), Some(&"GQ29"));
}

/// Module, controller that needs it.
const NEEDED: [(&str, &str); 9] = [
    ("virtio_blk.ko", "virtio-blk"),
    ("virtio_pci.ko", "virtio-blk"),
    ("virtio_ring.ko", "virtio-blk"),
    ("ata_piix.ko", "piix4-ide"),
    ("mptspi.ko", "lsilogic"),
    ("scsi_transport_spi.ko", "lsilogic"),
    ("mptsas.ko", "lsisas1068"),
    ("vmw_pvscsi.ko", "pvscsi"),
    ("sd_mod.ko", "lsilogic"),
];

#[test]
fn a_driver_or_its_dependency_absent_from_the_initramfs_means_root_is_not_found() {
    let golden = Golden::new(CENTOS, "esxi-5.0.0");
    let whole = golden.read(BOOT, INITRAMFS);
    for (module, model) in NEEDED {
        let cut = without(&whole, &|name| name.ends_with(&format!("/{module}")));
        assert!(cut.len() != whole.len(), "{module} was there");
        let guest = Golden::new(CENTOS, "esxi-5.0.0")
            .with(BOOT, INITRAMFS, Some(&cut))
            .inspect();
        let report = boot(&guest, &machine(model));
        assert_eq!(failed(&report), "drivers", "{module}");
        assert!(
            says(&report, module.trim_end_matches(".ko")),
            "{module}: {:#?}",
            report.cause
        );
        assert!(quirks(&report).contains(&"GQ35"), "{module}");
        let on_virtio = model == "virtio-blk";
        assert_eq!(quirks(&report).contains(&"HQ60"), on_virtio, "{module}");
        let other = if model == "pvscsi" {
            "lsilogic"
        } else {
            "pvscsi"
        };
        let needed_by_all = module == "sd_mod.ko";
        assert_eq!(
            boot(&guest, &machine(other)).reached,
            !needed_by_all,
            "{module} does not matter to {other}"
        );
    }
}

#[test]
fn what_the_logical_root_needs_beyond_the_disk_driver_must_be_there_too() {
    let golden = Golden::new(CENTOS, "esxi-5.0.0");
    let whole = golden.read(BOOT, INITRAMFS);
    for (gone, word) in [
        ("dm-mod.ko", "dm_mod"),
        ("sbin/lvm", "lvm"),
        ("ext4.ko", "ext4"),
        ("jbd2.ko", "jbd2"),
    ] {
        let both = |name: &str| {
            name.ends_with(gone)
                || (gone.ends_with("4.ko") || gone == "jbd2.ko")
                    && (name.ends_with("ext3.ko") || name.ends_with("ext2.ko"))
        };
        let cut = without(&whole, &both);
        let guest = Golden::new(CENTOS, "esxi-5.0.0")
            .with(BOOT, INITRAMFS, Some(&cut))
            .inspect();
        let report = boot(&guest, &machine("lsilogic"));
        assert_eq!(failed(&report), "root", "{gone}");
        assert!(says(&report, word), "{gone}: {:#?}", report.cause);
    }
    // Ubuntu has ext4 and device mapper linked in: nothing of the initramfs is needed for them.
    let bare = without(
        &Golden::new(UBUNTU, "esxi-5.0.0").read(BOOT, INITRD),
        &|name| name.ends_with("dm-mirror.ko"),
    );
    let guest = Golden::new(UBUNTU, "esxi-5.0.0")
        .with(BOOT, INITRD, Some(&bare))
        .inspect();
    assert!(boot(&guest, &machine("lsilogic")).reached);
}

#[test]
fn ata_generic_and_pata_acpi_do_not_stand_in_for_ata_piix() {
    let cut = without(
        &Golden::new(CENTOS, "esxi-5.0.0").read(BOOT, INITRAMFS),
        &|name| name.ends_with("ata_piix.ko"),
    );
    let golden = || Golden::new(CENTOS, "esxi-5.0.0").with(BOOT, INITRAMFS, Some(&cut));
    let report = boot(&golden().inspect(), &machine("piix3-ide"));
    assert!(quirks(&report).contains(&"DQ301"), "{:#?}", report.cause);
    let asked = golden().replacing(
        BOOT,
        "/grub/grub.conf",
        "rhgb quiet",
        "all_generic_ide rhgb quiet",
    );
    assert!(
        boot(&asked.inspect(), &machine("piix3-ide")).reached,
        "unless the command line asks for it"
    );
}

#[test]
fn an_initramfs_of_modules_dep_boots_only_where_it_was_made() {
    let keep = ["virtio", "ext4", "jbd2", "mbcache", "crc"];
    let dep = without(
        &Golden::new(UBUNTU, "kvm-centos-6.3").read(BOOT, INITRD),
        &|name| name.ends_with(".ko") && !keep.iter().any(|word| name.contains(word)),
    );
    let golden = Golden::new(UBUNTU, "kvm-centos-6.3").with(BOOT, INITRD, Some(&dep));
    let guest = golden
        .replacing(
            BOOT,
            "/etc/initramfs-tools/initramfs.conf",
            "MODULES=most",
            "MODULES=dep",
        )
        .inspect();
    assert!(boot(&guest, &machine("virtio-blk")).reached);
    for model in ["lsilogic", "pvscsi", "lsisas1068"] {
        let report = boot(&guest, &machine(model));
        assert_eq!(failed(&report), "drivers", "{model}");
        assert_eq!(quirks(&report).last(), Some(&"GQ36"));
    }
}

#[test]
fn a_bare_name_in_root_holds_only_where_the_driver_gives_it() {
    let uuid = Golden::new(UBUNTU, "esxi-5.0.0").inspect().layout[0]
        .uuid()
        .to_owned();
    for (device, works) in [
        ("/dev/sda1", "lsilogic"),
        ("/dev/vda1", "virtio-blk"),
        ("/dev/hda1", ""),
    ] {
        let golden = Golden::new(UBUNTU, "esxi-5.0.0").replacing(
            BOOT,
            "/boot/grub/grub.cfg",
            &format!("root=UUID={uuid}"),
            &format!("root={device}"),
        );
        let guest = golden.inspect();
        for model in ["lsilogic", "virtio-blk", "piix3-ide"] {
            let report = boot(&guest, &machine(model));
            let expected = model == works || (works == "lsilogic" && model == "piix3-ide");
            assert_eq!(report.reached, expected, "{device} on {model}");
            if !expected {
                assert_eq!(failed(&report), "root");
                assert_eq!(quirks(&report).last(), Some(&"GQ37"));
                assert!(
                    says(&report, "grub.cfg") && says(&report, device),
                    "{:#?}",
                    report.cause
                );
            }
        }
    }
}

#[test]
fn a_bare_name_in_fstab_stops_the_boot_and_nofail_lets_it_go_on() {
    let line = "UUID=3d6b0a0c-5f1e-4a57-9b0e-7c1f25a4e801 /boot                   ext4    defaults        1 2";
    let bare = |options: &str| {
        let golden = Golden::new(CENTOS, "esxi-5.0.0");
        golden
            .replacing(
                ROOT,
                "/etc/fstab",
                line,
                &format!("/dev/sda1 /boot ext4 {options} 1 2"),
            )
            .inspect()
    };
    assert!(boot(&bare("defaults"), &machine("lsilogic")).reached);
    let report = boot(&bare("defaults"), &machine("virtio-blk"));
    assert_eq!(failed(&report), "fstab");
    assert_eq!(report.cause[0].place.to_string(), "/etc/fstab:4");
    assert_eq!(quirks(&report).last(), Some(&"GQ37"));
    let report = boot(&bare("defaults,nofail"), &machine("virtio-blk"));
    assert!(
        report.reached
            && report
                .notes
                .iter()
                .any(|note| note.place.to_string() == "/etc/fstab:4")
    );
    assert!(boot(&bare("defaults,noauto"), &machine("virtio-blk")).reached);
}

#[test]
fn only_the_volumes_the_command_line_names_are_activated() {
    let golden = Golden::new(CENTOS, "esxi-5.0.0").replacing(
        BOOT,
        "/grub/grub.conf",
        "rd_LVM_LV=vg_centos/lv_root ",
        "",
    );
    let report = boot(&golden.inspect(), &machine("lsilogic"));
    assert_eq!(failed(&report), "root");
    assert!(says(&report, "rd_LVM_LV=vg_centos/lv_swap") && quirks(&report).contains(&"DQ306"));
    let golden = Golden::new(CENTOS, "esxi-5.0.0")
        .replacing(BOOT, "/grub/grub.conf", "rd_LVM_LV=vg_centos/lv_root ", "")
        .replacing(BOOT, "/grub/grub.conf", "rd_LVM_LV=vg_centos/lv_swap ", "");
    assert!(
        boot(&golden.inspect(), &machine("lsilogic")).reached,
        "with none named all are"
    );
}

#[test]
fn a_volume_group_that_is_gone_leaves_no_root() {
    // The label of the physical volume stands in its second sector.
    let golden = Golden::new(CENTOS, "esxi-5.0.0");
    let healthy = golden.inspect();
    let start = 1_026_048 * 512;
    assert_eq!(healthy.layout.len(), 4);
    let gone = golden.patched(start + 512, &[0u8; 512]);
    let error = drylab_guest::inspect::inspect(&[gone.disk], &crate::support::LIMITS)
        .expect_err("no root")
        .to_string();
    assert!(error.contains("no operating system"), "{error}");
}

#[test]
fn a_disk_cut_short_loses_the_volumes_that_reach_past_its_end() {
    use drylab_block::{ReadAt, Window};
    use std::sync::Arc;
    let golden = Golden::new(CENTOS, "esxi-5.0.0");
    let whole = golden.disk.bytes.clone();
    let cut = |bytes: u64| -> Arc<dyn ReadAt> {
        Arc::new(Window::new(whole.clone(), 0, bytes).expect("it is shorter"))
    };
    let inspect = |bytes: u64| {
        let disk = drylab_guest::inspect::GuestDisk::new(cut(bytes));
        drylab_guest::inspect::inspect(&[disk], &crate::support::LIMITS)
    };
    // The last half extent is unused, then comes swap: the boot goes on and says what is lost.
    for (bytes, swap_lost) in [(whole.len() - 8192, false), (7 << 30, true)] {
        let guest = inspect(bytes).expect("the root is whole");
        let report = boot(&guest, &machine_with(&["lsilogic"], bytes));
        assert!(report.reached, "{bytes} bytes: {:#?}", report.cause);
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.place == Place::Quirk("GQ46".to_owned())),
            "{:#?}",
            report.notes
        );
        let noted = report
            .notes
            .iter()
            .any(|note| note.place.to_string() == "/etc/fstab:5");
        assert_eq!(noted, swap_lost, "{:#?}", report.notes);
    }
    let error = inspect(5 << 30)
        .expect_err("the root reaches further")
        .to_string();
    assert!(
        error.contains("no operating system") && error.contains("lv_root"),
        "{error}"
    );
}

#[test]
fn firmware_and_boot_record_must_fit_each_other() {
    let guest = Golden::new(CENTOS, "esxi-5.0.0").inspect();
    let mut efi = machine("lsilogic");
    efi.firmware = Firmware::Efi;
    let report = boot(&guest, &efi);
    assert_eq!(
        (failed(&report), quirks(&report).last()),
        ("firmware", Some(&"DQ300"))
    );
    for (offset, bytes, stage) in [
        (0u64, vec![0u8; 440], "firmware"),
        (510, vec![0, 0], ""),
        (512, vec![0; 512], "boot-loader"),
    ] {
        let golden = Golden::new(CENTOS, "esxi-5.0.0").patched(offset, &bytes);
        match drylab_guest::inspect::inspect(&[golden.disk], &crate::support::LIMITS) {
            Ok(guest) => assert_eq!(
                failed(&boot(&guest, &machine("lsilogic"))),
                stage,
                "at {offset}"
            ),
            Err(_) => assert_eq!(offset, 510, "without its signature there is no table"),
        }
    }
    let mut bare = machine("lsilogic");
    bare.disks.clear();
    assert_eq!(failed(&boot(&guest, &bare)), "firmware");
}

#[test]
fn kernel_initramfs_and_menu_must_be_where_the_menu_says() {
    let kernel = "/vmlinuz-2.6.32-279.el6.x86_64";
    for (path, stage) in [
        (kernel, "kernel"),
        (INITRAMFS, "initramfs"),
        ("/grub/grub.conf", "boot-loader"),
    ] {
        let mut golden = Golden::new(CENTOS, "esxi-5.0.0").with(BOOT, path, None);
        if path.ends_with("conf") {
            golden = golden.with(BOOT, "/grub/menu.lst", None);
        }
        assert_eq!(
            failed(&boot(&golden.inspect(), &machine("lsilogic"))),
            stage,
            "{path}"
        );
    }
    let golden = Golden::new(CENTOS, "esxi-5.0.0").replacing(
        BOOT,
        "/grub/grub.conf",
        "default=0",
        "default=3",
    );
    assert_eq!(
        failed(&boot(&golden.inspect(), &machine("lsilogic"))),
        "boot-loader"
    );
    let golden =
        Golden::new(CENTOS, "esxi-5.0.0").with(BOOT, INITRAMFS, Some(b"\x1f\x8b\x08\0broken"));
    assert_eq!(
        failed(&boot(&golden.inspect(), &machine("lsilogic"))),
        "initramfs"
    );
}

#[test]
fn an_initramfs_that_cannot_be_unpacked_here_is_not_assessed() {
    for (mark, name) in [
        (b"\x5d\0\0\x80".as_slice(), "lzma"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"BZh9", "bzip2"),
    ] {
        let early = cpio(&[(
            "kernel/x86/microcode/GenuineIntel.bin".to_owned(),
            0o100_644,
            vec![1; 700],
        )]);
        let mut bytes = early;
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend_from_slice(mark);
        let guest = Golden::new(CENTOS, "esxi-5.0.0")
            .with(BOOT, INITRAMFS, Some(&bytes))
            .inspect();
        assert!(
            guest
                .findings
                .iter()
                .any(|finding| finding.code == "INITRAMFS-COMPRESSION")
        );
        let report = boot(&guest, &machine("lsilogic"));
        assert!(
            report
                .unassessed
                .iter()
                .any(|witness| witness.says.contains(name)),
            "{report:#?}"
        );
        assert!(
            report.reached,
            "the root has the modules: as far as is known"
        );
        let report = boot(&guest, &machine("buslogic"));
        assert!(
            !report.reached,
            "no module of that kernel takes it, whatever the initramfs holds"
        );
    }
}

#[test]
fn a_data_disk_on_another_controller_gets_its_name_after_the_bus_order() {
    let guest = {
        let system = Golden::new(CENTOS, "esxi-5.0.0");
        let data = drylab_guest::inspect::GuestDisk::new(std::sync::Arc::new(
            drylab_block::SparseBytes::new(1 << 30),
        ));
        drylab_guest::inspect::inspect(&[system.disk, data], &crate::support::LIMITS)
            .expect("it is inspected")
    };
    let report = boot(&guest, &machine_with(&["lsilogic", "piix4-ide"], 8 << 30));
    assert_eq!(
        report.disk_names,
        [(0, "sda".to_owned()), (1, "sdb".to_owned())]
    );
    let report = boot(&guest, &machine_with(&["virtio-blk", "lsilogic"], 8 << 30));
    assert_eq!(
        report.disk_names,
        [(0, "vda".to_owned()), (1, "sda".to_owned())]
    );
}

#[test]
fn a_xen_console_left_on_the_command_line_is_noted() {
    let golden = Golden::new(CENTOS, "esxi-5.0.0").replacing(
        BOOT,
        "/grub/grub.conf",
        "rhgb quiet",
        "console=hvc0",
    );
    let report = boot(&golden.inspect(), &machine("lsilogic"));
    assert!(
        report.reached
            && report
                .notes
                .iter()
                .any(|note| note.place == Place::Quirk("GQ42".to_owned()))
    );
}

/// Witnesses of a stage that went well, as text.
fn shown(report: &BootReport, stage: &str) -> Vec<String> {
    let stage = report.stage(stage).expect("it went well");
    stage.witnesses.iter().map(ToString::to_string).collect()
}

#[test]
fn the_drivers_stage_goes_from_the_controller_to_alias_module_file_and_disk_name() {
    let guest = Golden::new(CENTOS, "esxi-5.0.0").inspect();
    for (model, alias, module, disk) in [
        ("lsilogic", "pci:v00001000d00000030", "mptspi", "sda"),
        ("piix4-ide", "pci:v00008086d00007111", "ata_piix", "sda"),
        ("virtio-blk", "virtio:d00000002", "virtio_blk", "vda"),
    ] {
        let report = boot(&guest, &machine(model));
        let drivers = shown(&report, "drivers");
        assert!(
            drivers[0].contains(&format!("on {model} at "))
                && drivers[0].contains(&format!(": {disk} ")),
            "{drivers:#?}"
        );
        let first = |text: &str| drivers.iter().position(|witness| witness.contains(text));
        let by_alias = first(&format!("alias {alias}")).expect("the alias that matched");
        let file = first(&format!("/{module}.ko")).expect("the module's file");
        assert!(by_alias < file && file < 5, "{drivers:#?}");
        let root = shown(&report, "root").join("\n");
        assert!(root.contains("root=") && root.contains("rd_LVM_LV=vg_centos/lv_root"));
        for stage in &report.stages {
            assert!(stage.witnesses.len() <= 8, "{stage:#?}");
        }
    }
}

#[test]
fn an_initramfs_is_called_generic_for_what_it_holds_and_not_for_the_name_of_its_system() {
    let generic = |golden: Golden| {
        let report = boot(&golden.inspect(), &machine("virtio-blk"));
        assert!(report.reached, "{:#?}", report.cause);
        let drivers = &report.stage("drivers").expect("it has one").witnesses;
        drivers
            .iter()
            .any(|witness| witness.place == Place::Quirk("GQ34".to_owned()))
    };
    let centos = || Golden::new(CENTOS, "esxi-5.0.0");
    assert!(generic(centos()));
    assert!(!generic(Golden::new(UBUNTU, "esxi-5.0.0")), "not dracut's");
    let renamed = centos().with(
        ROOT,
        "/etc/centos-release",
        Some(b"Scientific Linux release 7.1 (Nitrogen)\n"),
    );
    assert!(generic(renamed), "whatever the release file says");
    let whole = centos().read(BOOT, INITRAMFS);
    for (gone, kind) in [
        (["mpt", "pvscsi"].as_slice(), "SCSI"),
        (&["ata_piix.ko"], "IDE"),
        (&["dracut-0"], "dracut's mark"),
    ] {
        let drop = |name: &str| gone.iter().any(|part| name.contains(part));
        let cut = without(&whole, &drop);
        assert!(cut.len() != whole.len(), "{kind} was there");
        let host_only = centos().with(BOOT, INITRAMFS, Some(&cut));
        assert!(!generic(host_only), "without {kind}");
    }
}
