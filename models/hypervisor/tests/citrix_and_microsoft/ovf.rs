//! OVF packages of XenCenter: written, read back, and given to others.

use crate::support::{
    ESXI, GUESTS, SIZE, XEN, all, cites, convert, disk, edited, exported, machine, make, operator,
    product, text, xencenter,
};
use drylab_appliance::Package;
use drylab_block::{Limits, content_id};
use drylab_catalog::{Firmware, Machine};
use drylab_hypervisor::Need;
use drylab_hypervisor::exporter::{
    vsphere_export_ovf, xencenter_export_notes, xencenter_export_ovf,
};
use drylab_hypervisor::importer::{OvfOptions, Verdict, vsphere_deploy_ovf};
use drylab_image::open;

pub(crate) fn of_xencenter(guest: &str) -> (Machine, Package) {
    let machine = machine(XEN, guest);
    let disks = [disk(SIZE)];
    let from = exported(&machine, guest, &disks);
    let package = xencenter_export_ovf(&from, &convert).expect("an export");
    (machine, package)
}

pub(crate) fn of_vsphere(guest: &str) -> (Machine, Package) {
    let machine = machine(ESXI, guest);
    let disks = [disk(SIZE)];
    let from = exported(&machine, guest, &disks);
    let package = vsphere_export_ovf(&product(ESXI).facts(), &from, &convert).expect("an export");
    (machine, package)
}

#[test]
fn xencenter_reads_its_own_export_and_makes_the_same_machine() {
    for guest in GUESTS {
        let (machine, package) = of_xencenter(guest);
        let reading = xencenter(&package, OvfOptions::default()).expect("a reading");
        assert_eq!(reading.remarks, [], "{guest}");
        let made = make(XEN, &reading.request, 99).machine;
        assert_eq!(
            (made.firmware, made.xen_platform),
            (machine.firmware, machine.xen_platform)
        );
        assert_eq!(
            made.nics, machine.nics,
            "the address is written and taken verbatim"
        );
        assert_eq!(
            (made.controllers, made.disks),
            (machine.controllers, machine.disks)
        );
        assert_eq!((made.memory, made.cpu.vcpus), (machine.memory, 2));
        let image = open(
            package.files[&reading.disks[0].file].clone(),
            &Limits::DEFAULT,
        )
        .unwrap();
        assert_eq!(content_id(&image), content_id(&disk(SIZE)));
        assert!(cites(&reading.mac, "DQ417"));
    }
}

#[test]
fn only_a_paravirtual_machine_loses_its_kind_on_the_way_to_others() {
    assert!(cites(
        &xencenter_export_notes(&machine(XEN, "centos-6.3")),
        "HQ09"
    ));
    assert!(!cites(
        &xencenter_export_notes(&machine(XEN, "ubuntu-12.04")),
        "HQ09"
    ));
    assert!(cites(
        &xencenter_export_notes(&machine(XEN, "ubuntu-12.04")),
        "HQ10"
    ));
    // Without Citrix' elements the package of a paravirtual machine makes one with a BIOS.
    let (_, package) = of_xencenter("centos-6.3");
    let foreign = edited(&package, |text| {
        text.replace("VirtualSystemOtherConfigurationData", "SomethingElse")
    });
    let reading = xencenter(&foreign, OvfOptions::default()).expect("a reading");
    assert_eq!(
        make(XEN, &reading.request, 1).machine.firmware,
        Firmware::Bios
    );
    assert!(cites(&reading.notes, "HQ16"));
}

#[test]
fn esxi_refuses_a_package_of_xencenter_for_three_reasons() {
    for guest in GUESTS {
        let (_, package) = of_xencenter(guest);
        let esxi = product(ESXI);
        let reading = vsphere_deploy_ovf(&esxi.facts(), &package, &operator(guest));
        let reading = reading.expect("it is an envelope");
        for quirk in ["HQ05", "HQ06", "HQ07", "GQ138"] {
            let remark = reading
                .remarks
                .iter()
                .find(|remark| cites(&remark.witness, quirk))
                .unwrap_or_else(|| panic!("{quirk}: {:?}", reading.remarks));
            assert_eq!(remark.verdict, Verdict::Refused);
            assert!(remark.witness[0].says.starts_with("line "), "{remark:?}");
        }
    }
}

#[test]
fn esxi_still_takes_its_own_packages() {
    let (_, package) = of_vsphere("centos-6.3");
    let esxi = product(ESXI);
    let reading = vsphere_deploy_ovf(&esxi.facts(), &package, &operator("centos-6.3")).unwrap();
    assert_eq!(reading.remarks, []);
}

#[test]
fn a_package_of_vsphere_becomes_a_whole_pc_with_a_new_address() {
    for guest in GUESTS {
        let (_, package) = of_vsphere(guest);
        let reading = xencenter(&package, OvfOptions::default());
        let witness = all(&reading);
        for quirk in ["HQ16", "HQ18", "HQ87", "GQ139", "HQ92", "DQ429"] {
            assert!(
                cites(&witness, quirk),
                "{guest}: {quirk}\n{}",
                text(&package)
            );
        }
        let reading = reading.expect("a reading");
        assert!(
            reading
                .remarks
                .iter()
                .all(|remark| remark.verdict == Verdict::Warned)
        );
        let made = make(XEN, &reading.request, 1).machine;
        assert_eq!(
            (made.firmware, made.controllers[0].model.as_str()),
            (Firmware::Bios, "piix3-ide-xen")
        );
        assert!(
            made.nics[0].mac.is_locally_administered(),
            "no address was written"
        );
        assert_eq!(made.memory.mib, 1028);
        assert_eq!(reading.disks[0].bytes, SIZE);
    }
}

#[test]
fn a_disk_needs_more_room_than_its_size_and_the_transfer_vm_a_lease() {
    let (_, package) = of_vsphere("centos-6.3");
    let reading = xencenter(&package, OvfOptions::default()).expect("a reading");
    let room = reading
        .needs
        .iter()
        .find(|need| matches!(need, Need::Room { .. }));
    let room = room.expect("a disk");
    assert!(!room.is_met(true, SIZE) && room.is_met(false, SIZE + 1));
    assert!(
        reading
            .needs
            .iter()
            .any(|need| !need.is_met(false, u64::MAX))
    );
}

#[test]
fn fixup_says_what_it_does_and_changes_no_device() {
    let (_, package) = of_vsphere("windows-2008r2");
    let fixup = OvfOptions {
        fixup: true,
        ..OvfOptions::default()
    };
    let with = xencenter(&package, fixup).expect("a reading");
    let without = xencenter(&package, OvfOptions::default()).expect("a reading");
    assert!(cites(&with.notes, "DQ427") && !cites(&with.notes, "GQ139"));
    assert_eq!(with.request, without.request);
}

#[test]
fn the_manifest_is_looked_at_only_when_the_box_is_ticked() {
    let (_, package) = of_vsphere("centos-6.3");
    let stale = edited(&package, |text| text.replace("vmx-08", "vmx-07"));
    let ticked = OvfOptions {
        verify_manifest: true,
        ..OvfOptions::default()
    };
    assert!(!cites(
        &all(&xencenter(&stale, OvfOptions::default())),
        "DQ428"
    ));
    assert!(cites(&all(&xencenter(&stale, ticked)), "DQ428"));
    assert!(!cites(&all(&xencenter(&package, ticked)), "DQ428"));
}
