//! Windows: each mechanism of the boot, changed one at a time.

use crate::support::{Golden, HYPERV, LIMITS, WINDOWS, XEN, machine};
use drylab_catalog::{Clock, Firmware, Place};
use drylab_guest::boot::{BootReport, boot};
use drylab_hive::HiveEditor;

const SYSTEM: &str = "/Windows/System32/config/SYSTEM";

/// The golden guest with its SYSTEM hive edited.
fn edited(source: &str, edit: &dyn Fn(&mut HiveEditor)) -> Golden {
    let golden = Golden::new(WINDOWS, source);
    let mut editor = HiveEditor::open(golden.read("p2", SYSTEM), &LIMITS).expect("the hive opens");
    edit(&mut editor);
    let bytes = editor.finish().expect("the hive is written");
    golden.with("p2", SYSTEM, Some(&bytes))
}

fn start(service: &'static str, number: u32) -> impl Fn(&mut HiveEditor) {
    move |editor| {
        let key = format!("ControlSet001\\services\\{service}");
        editor
            .set_u32(&key, "Start", number)
            .expect("the service is there");
    }
}

fn failed<'a>(report: &'a BootReport, quirk: &str) -> &'a str {
    assert!(!report.reached, "{report:#?}");
    assert!(
        report
            .cause
            .iter()
            .any(|witness| witness.place == Place::Quirk(quirk.to_owned())),
        "{quirk} in {:#?}",
        report.cause
    );
    report.stages.last().map_or("", |stage| stage.name)
}

fn says(report: &BootReport, what: &str) -> bool {
    report
        .cause
        .iter()
        .any(|witness| witness.to_string().contains(what))
}

#[test]
fn windows_boots_where_its_source_left_boot_drivers_and_nowhere_else() {
    for (source, model, boots) in [
        ("esxi-5.0.0", "lsisas1068", true),
        ("esxi-5.0.0", "piix4-ide", true),
        ("esxi-5.0.0", "piix3-ide", true),
        ("esxi-5.0.0", "lsilogic", false),
        ("esxi-5.0.0", "virtio-blk", false),
        ("esxi-5.0.0", "pvscsi", false),
        ("kvm-centos-6.3", "piix3-ide", true),
        ("kvm-centos-6.3", "piix4-ide", true),
        ("kvm-centos-6.3", "lsisas1068", false),
        ("kvm-centos-6.3", "virtio-blk", false),
        ("kvm-centos-6.3", "piix4-ide-hyperv", true),
        (XEN, "piix3-ide-xen", true),
        (XEN, "piix4-ide-hyperv", true),
        (XEN, "piix3-ide", true),
        (XEN, "lsisas1068", false),
        (XEN, "virtio-blk", false),
        (HYPERV, "piix4-ide-hyperv", true),
        (HYPERV, "piix3-ide-xen", true),
        (HYPERV, "piix3-ide", true),
        (HYPERV, "lsisas1068", false),
        (HYPERV, "virtio-blk", false),
    ] {
        let report = boot(&Golden::new(WINDOWS, source).inspect(), &machine(model));
        assert_eq!(
            report.reached, boots,
            "{source} on {model}: {:#?}",
            report.cause
        );
        if boots {
            assert_eq!(report.root_device.as_deref(), Some("disk 0 partition 2"));
            assert!(
                report
                    .stages
                    .iter()
                    .all(|stage| stage.ok && !stage.witnesses.is_empty())
            );
        } else {
            assert_eq!(failed(&report, "GQ47"), "drivers");
            assert!(says(&report, "0x0000007B"));
        }
    }
}

#[test]
fn intelide_and_atapi_must_both_start_at_boot_for_ide() {
    let homes = [("esxi-5.0.0", "piix4-ide"), (HYPERV, "piix4-ide-hyperv")];
    let services = ["intelide", "atapi"];
    for ((source, model), service) in homes
        .into_iter()
        .flat_map(|home| services.map(|service| (home, service)))
    {
        for number in 0..=4 {
            let report = boot(
                &edited(source, &start(service, number)).inspect(),
                &machine(model),
            );
            assert_eq!(
                report.reached,
                number == 0,
                "{source} {service} Start={number}"
            );
            if number != 0 {
                assert_eq!(failed(&report, "GQ48"), "drivers");
                assert!(
                    says(&report, &format!("{service}, value Start")),
                    "{:#?}",
                    report.cause
                );
            }
        }
    }
    let report = boot(
        &edited("kvm-centos-6.3", &start("LSI_SAS", 0)).inspect(),
        &machine("lsisas1068"),
    );
    assert!(
        report.reached,
        "setting Start to 0 is all an in-box driver needs: {:#?}",
        report.cause
    );
}

#[test]
fn without_entries_in_the_critical_device_database_a_boot_driver_is_not_used() {
    let database = "ControlSet001\\Control\\CriticalDeviceDatabase";
    let without = |keys: &'static [&'static str]| {
        edited("esxi-5.0.0", &move |editor: &mut HiveEditor| {
            for key in keys {
                assert!(
                    editor
                        .delete_key(&format!("{database}\\{key}"))
                        .expect("it edits"),
                    "{key}"
                );
            }
        })
    };
    let report = boot(
        &without(&["PCI#VEN_8086&DEV_7111", "PCI#CC_0101"]).inspect(),
        &machine("piix4-ide"),
    );
    assert_eq!(failed(&report, "GQ48"), "drivers");
    assert!(says(&report, "CriticalDeviceDatabase"));
    // The class entry leads to pciide, which is switched off like any driver not used at installation.
    let report = boot(
        &without(&["PCI#VEN_8086&DEV_7111"]).inspect(),
        &machine("piix4-ide"),
    );
    assert!(
        !report.reached && says(&report, "pciide, value Start"),
        "{:#?}",
        report.cause
    );
    let channels: &[&str] = &["Primary_IDE_Channel", "Internal_IDE_Channel"];
    assert_eq!(
        failed(
            &boot(&without(channels).inspect(), &machine("piix4-ide")),
            "GQ48"
        ),
        "drivers"
    );
    let report = boot(&without(&["GenDisk"]).inspect(), &machine("lsisas1068"));
    assert!(
        !report.reached && says(&report, "gendisk"),
        "{:#?}",
        report.cause
    );
}

#[test]
fn a_boot_driver_whose_file_is_gone_is_not_loaded() {
    let golden = Golden::new(WINDOWS, "esxi-5.0.0").with(
        "p2",
        "/Windows/System32/drivers/lsi_sas.sys",
        None,
    );
    let guest = golden.inspect();
    let report = boot(&guest, &machine("lsisas1068"));
    assert_eq!(failed(&report, "GQ47"), "drivers");
    assert!(
        says(&report, "lsi_sas.sys: driver of LSI_SAS is missing"),
        "{:#?}",
        report.cause
    );
    assert!(boot(&guest, &machine("piix4-ide")).reached);
}

#[test]
fn the_control_set_in_use_decides_not_the_first() {
    let golden = edited("esxi-5.0.0", &|editor: &mut HiveEditor| {
        editor.set_u32("Select", "Current", 2).expect("it is there");
    });
    let report = boot(&golden.inspect(), &machine("piix4-ide"));
    assert!(
        !report.reached && says(&report, "ControlSet002"),
        "the second set has no drivers: {:#?}",
        report.cause
    );
}

#[test]
fn the_boot_configuration_must_match_disk_signature_and_partition() {
    let golden = Golden::new(WINDOWS, "esxi-5.0.0").patched(0x1b8, &0x1234_5678u32.to_le_bytes());
    let report = boot(&golden.inspect(), &machine("piix4-ide"));
    assert_eq!(failed(&report, "DQ307"), "boot-configuration");
    assert!(
        says(&report, "5a3c71e9") && says(&report, "12345678"),
        "{:#?}",
        report.cause
    );
    // The same partition named at another offset.
    let mut bcd = HiveEditor::open(
        Golden::new(WINDOWS, "esxi-5.0.0").read("p1", "/Boot/BCD"),
        &LIMITS,
    )
    .expect("it opens");
    let key = "Objects\\{6c1f0b52-3d7e-11e2-9a41-c0ffee2008a2}\\Elements\\11000001";
    let mut element = bcd
        .key(key)
        .expect("it reads")
        .expect("it is there")
        .value("Element")
        .expect("it reads")
        .expect("it is there")
        .as_binary();
    element[0x20..0x28].copy_from_slice(&(4096u64 * 512).to_le_bytes());
    bcd.set_value(key, "Element", drylab_hive::RegType::BINARY, &element)
        .expect("it edits");
    let bytes = bcd.finish().expect("it is written");
    let golden = Golden::new(WINDOWS, "esxi-5.0.0").with("p1", "/Boot/BCD", Some(&bytes));
    let report = boot(&golden.inspect(), &machine("piix4-ide"));
    assert_eq!(failed(&report, "DQ307"), "boot-configuration");
    assert!(
        says(&report, "no partition of that disk begins at byte 2097152"),
        "{:#?}",
        report.cause
    );
}

#[test]
fn boot_manager_loader_and_active_partition_must_be_there() {
    for (volume, path, stage) in [
        ("p1", "/bootmgr", "boot-loader"),
        ("p1", "/Boot/BCD", "boot-loader"),
        ("p2", "/Windows/System32/winload.exe", "boot-configuration"),
    ] {
        let report = boot(
            &Golden::new(WINDOWS, "esxi-5.0.0")
                .with(volume, path, None)
                .inspect(),
            &machine("piix4-ide"),
        );
        assert!(!report.reached && !report.cause.is_empty(), "{path}");
        assert_eq!(
            report.stages.last().map(|stage| stage.name),
            Some(stage),
            "{path}"
        );
    }
    let report = boot(
        &Golden::new(WINDOWS, "esxi-5.0.0")
            .patched(0x1be, &[0])
            .inspect(),
        &machine("piix4-ide"),
    );
    assert!(
        !report.reached && says(&report, "no active partition"),
        "{:#?}",
        report.cause
    );
    let mut efi = machine("piix4-ide");
    efi.firmware = Firmware::Efi;
    assert_eq!(
        failed(
            &boot(&Golden::new(WINDOWS, "esxi-5.0.0").inspect(), &efi),
            "DQ300"
        ),
        "firmware"
    );
}

#[test]
fn processor_driver_and_clock_are_risks_not_failures() {
    let guest = Golden::new(WINDOWS, "esxi-5.0.0").inspect();
    let noted = |machine: &drylab_catalog::Machine, quirk: &str| {
        let report = boot(&guest, machine);
        assert!(report.reached);
        report
            .notes
            .iter()
            .any(|note| note.place == Place::Quirk(quirk.to_owned()))
    };
    let mut other = machine("piix4-ide");
    assert!(!noted(&other, "GQ56") && !noted(&other, "GQ57"));
    other.cpu.vendor = "AuthenticAMD".to_owned();
    other.clock = Clock::Utc;
    assert!(noted(&other, "GQ56") && noted(&other, "GQ57"));
}

#[test]
fn the_drivers_stage_names_database_key_and_start_of_each_driver_from_the_controller_on() {
    let guest = Golden::new(WINDOWS, "esxi-5.0.0").inspect();
    let ide = [
        "disk 0",
        "CriticalDeviceDatabase\\PCI#VEN_8086&DEV_7111",
        "intelide, value Start",
        "IDE_Channel",
        "atapi, value Start",
        "CriticalDeviceDatabase\\GenDisk",
        "disk, value Start",
    ];
    let sas = [
        "disk 0",
        "CriticalDeviceDatabase\\PCI#VEN_1000&DEV_0054",
        "LSI_SAS, value Start",
        "CriticalDeviceDatabase\\GenDisk",
        "disk, value Start",
    ];
    for (model, expected) in [("piix4-ide", ide.as_slice()), ("lsisas1068", &sas)] {
        let report = boot(&guest, &machine(model));
        let drivers = report.stage("drivers").expect("it has one");
        let shown: Vec<String> = drivers.witnesses.iter().map(ToString::to_string).collect();
        for (witness, part) in shown.iter().zip(expected) {
            let part = part.to_lowercase();
            assert!(witness.to_lowercase().contains(&part), "{part}: {shown:#?}");
        }
        assert!(
            expected.len() < shown.len() && shown.len() <= 8,
            "{shown:#?}"
        );
    }
}
