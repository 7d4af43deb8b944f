//! Hyper-V: what a kernel without drivers for its bus sees.

use crate::support::{CENTOS, Golden, LIMITS, UBUNTU, machine_with};
use drylab_block::Window;
use drylab_catalog::{Machine, Place, Witness};
use drylab_guest::boot::boot;
use drylab_guest::inspect::{Guest, GuestDisk, inspect};
use std::sync::Arc;

const ROOT: &str = "vg_centos/lv_root";
const MODULES: &str = "/lib/modules/2.6.32-279.el6.x86_64";
const DATA: &str = "UUID=5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a";

fn host(models: &[&str]) -> Machine {
    let mut machine = machine_with(models, 8 << 30);
    machine.cpu.hypervisor = "Microsoft Hv".to_owned();
    for controller in &mut machine.controllers {
        if controller.model == "hyperv-scsi" {
            controller.slot = None;
        }
    }
    machine
}

fn cites(witnesses: &[Witness], id: &str) -> bool {
    let mut places = witnesses.iter().map(|witness| &witness.place);
    places.any(|place| *place == Place::Quirk(id.to_owned()))
}

/// CentOS with a data disk that its `fstab` mounts: a filesystem without a system, on the whole of the disk.
fn with_data(centos: Golden, options: &str) -> Guest {
    let line = "tmpfs                   /dev/shm";
    let mount = format!("{DATA} /data ext4 {options} 1 2\n{line}");
    let system = centos.replacing(ROOT, "/etc/fstab", line, &mount).disk;
    let (start, bytes) = (2048 * 512, 1_024_000 * 512);
    // The filesystem of /boot with an identity of its own.
    let boot = Golden::new(CENTOS, "esxi-5.0.0").patched(start + 1024 + 0x68, &[0x5a; 16]);
    let data = Window::new(boot.disk.bytes, start, bytes).expect("the partition is on the disk");
    inspect(&[system, GuestDisk::new(Arc::new(data))], &LIMITS).expect("it is inspected")
}

/// CentOS with a module of the integration services in its root.
fn with_module(golden: Golden, name: &str, guid: &str) -> Golden {
    let text = |file: &str| {
        let bytes = golden.read(ROOT, &format!("{MODULES}/{file}"));
        String::from_utf8(bytes).expect("it is text")
    };
    let alias = format!(
        "{}alias acpi*:VMBUS:* hv_vmbus\nalias vmbus:{guid} {name}\n",
        text("modules.alias")
    );
    let dep = format!(
        "{}kernel/drivers/hv/{name}.ko: kernel/drivers/hv/hv_vmbus.ko\nkernel/drivers/hv/hv_vmbus.ko:\n",
        text("modules.dep")
    );
    let path = |file: &str| format!("{MODULES}/{file}");
    golden
        .with(ROOT, &path("modules.alias"), Some(alias.as_bytes()))
        .with(ROOT, &path("modules.dep"), Some(dep.as_bytes()))
        .with(
            ROOT,
            &path(&format!("kernel/drivers/hv/{name}.ko")),
            Some(b"\x7fELF"),
        )
        .with(
            ROOT,
            &path("kernel/drivers/hv/hv_vmbus.ko"),
            Some(b"\x7fELF"),
        )
}

#[test]
fn centos_boots_from_emulated_ide_because_it_has_no_driver_for_the_bus() {
    for (guest, cited) in [(CENTOS, true), (UBUNTU, false)] {
        let report = boot(
            &Golden::new(guest, "esxi-5.0.0").inspect(),
            &host(&["piix4-ide-hyperv"]),
        );
        assert!(report.reached, "{guest}: {:#?}", report.cause);
        assert_eq!(report.disk_names, [(0, "sda".to_owned())]);
        let drivers = report.stage("drivers").expect("it has one");
        assert_eq!(
            cites(&drivers.witnesses, "GQ32"),
            cited,
            "{guest}: {drivers:#?}"
        );
    }
    let elsewhere = machine_with(&["piix4-ide"], 8 << 30);
    let report = boot(&Golden::new(CENTOS, "esxi-5.0.0").inspect(), &elsewhere);
    let drivers = report.stage("drivers").expect("it has one");
    assert!(!cites(&drivers.witnesses, "GQ32"));
}

#[test]
fn a_data_disk_on_synthetic_scsi_is_missing_to_centos_and_a_line_for_it_stops_the_boot() {
    let golden = || Golden::new(CENTOS, "esxi-5.0.0");
    let machine = host(&["piix4-ide-hyperv", "hyperv-scsi"]);
    let report = boot(&with_data(golden(), "defaults"), &machine);
    assert!(
        !report.reached && cites(&report.cause, "GQ33"),
        "{report:#?}"
    );
    assert_eq!(report.stages.last().map(|stage| stage.name), Some("fstab"));
    assert!(!cites(&report.cause, "GQ37"));
    let report = boot(&with_data(golden(), "nofail"), &machine);
    assert!(report.reached && cites(&report.notes, "GQ33"));
    let both = host(&["piix4-ide-hyperv", "piix4-ide-hyperv"]);
    assert!(
        boot(&with_data(golden(), "defaults"), &both).reached,
        "on IDE it is there"
    );
    let equip = || with_module(golden(), "hv_storvsc", "d96361baa104294db60572e2ffb1dc7f");
    for lost in ["hv_storvsc", "hv_vmbus"] {
        let path = format!("{MODULES}/kernel/drivers/hv/{lost}.ko");
        let short = equip().with(ROOT, &path, None);
        let report = boot(&with_data(short, "defaults"), &machine);
        let mut names = report.cause.iter().map(|witness| witness.place.to_string());
        assert!(
            !report.reached && names.any(|name| name == path),
            "{lost}: {:#?}",
            report.cause
        );
    }
    let equipped = equip();
    let report = boot(&with_data(equipped, "defaults"), &machine);
    assert!(report.reached, "{:#?}", report.cause);
    assert_eq!(
        report.disk_names,
        [(0, "sda".to_owned()), (1, "sdb".to_owned())]
    );
}

#[test]
fn ubuntu_has_the_drivers_and_names_the_disk_on_the_hosts_bus_behind_those_on_pci() {
    let system = Golden::new(UBUNTU, "esxi-5.0.0").disk;
    let empty = drylab_block::SparseBytes::new(1 << 30);
    let data = GuestDisk::new(Arc::new(empty));
    let guest = inspect(&[system, data], &LIMITS).expect("it is inspected");
    let report = boot(&guest, &host(&["piix4-ide-hyperv", "hyperv-scsi"]));
    assert!(report.reached, "{:#?}", report.cause);
    assert_eq!(
        report.disk_names,
        [(0, "sda".to_owned()), (1, "sdb".to_owned())]
    );
}
