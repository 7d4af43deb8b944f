//! Guests of XenServer: started by pygrub, and on emulated hardware with the front ends beside it.

use crate::support::{CENTOS, Golden, MODELS, SOURCES, UBUNTU, XEN, machine, machine_with};
use drylab_catalog::{Controller, Firmware, Machine};
use drylab_guest::boot::boot;

/// A machine whose disk is a Xen front end.
fn front_end() -> Machine {
    let mut machine = machine_with(&["xen-vbd"], 8 << 30);
    machine.controllers = vec![Controller {
        model: "xen-vbd".to_owned(),
        slot: None,
    }];
    machine
}

#[test]
fn a_guest_installed_under_pygrub_has_no_boot_record_for_a_bios_until_one_is_written() {
    let mut pv = front_end();
    pv.firmware = Firmware::Pygrub;
    let golden = Golden::new(CENTOS, XEN);
    let report = boot(&golden.inspect(), &pv);
    assert!(report.reached, "{:#?}", report.cause);
    assert_eq!(report.disk_names, [(0, "xvda".to_owned())]);
    for source in SOURCES {
        let report = boot(&Golden::new(CENTOS, source).inspect(), &pv);
        assert!(report.reached, "{source}: pygrub reads the same menu");
    }
    for model in MODELS {
        let report = boot(&Golden::new(CENTOS, XEN).inspect(), &machine(model));
        assert!(!report.reached && !report.cause.is_empty(), "{report:#?}");
        let stage = report.stages.last().map(|stage| stage.name);
        assert_eq!(stage, Some("firmware"), "{model}");
    }
    // Boot code and first stage of a guest that has them; signature and partition table are the same.
    let mut record = vec![0; 1024];
    let installed = Golden::new(CENTOS, "esxi-5.0.0");
    let bytes = &installed.disk.bytes;
    bytes.read_at(0, &mut record).expect("it is longer");
    let repaired = golden.patched(0, &record).inspect();
    for model in MODELS {
        let report = boot(&repaired, &machine(model));
        assert!(report.reached, "{model}: {:#?}", report.cause);
    }
}

#[test]
fn ubuntu_of_xenserver_boots_with_its_emulated_disk_unplugged_for_the_front_end() {
    let mut hvm = machine("piix3-ide-xen");
    hvm.xen_platform = true;
    for source in SOURCES {
        let report = boot(&Golden::new(UBUNTU, source).inspect(), &hvm);
        assert!(report.reached, "{source}: {:#?}", report.cause);
        assert_eq!(report.root_device.as_deref(), Some("/dev/xvda1"));
    }
    hvm.xen_platform = false;
    let report = boot(&Golden::new(UBUNTU, XEN).inspect(), &hvm);
    assert_eq!(report.root_device.as_deref(), Some("/dev/sda1"));
}
