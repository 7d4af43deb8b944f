//! What the two consoles make.

use crate::support::{GUESTS, HYPERV, SIZE, XEN, cites, host, machine, make, product};
use drylab_catalog::{Clock, Firmware, Smbios, place};
use drylab_hypervisor::console::{
    DiskRequest, Mode, Request, clean_shutdown, mac_pool, memory_max,
};
use drylab_hypervisor::{Need, transfer_vm};
use proptest::prelude::*;

#[test]
fn centos_is_paravirtual_on_xenserver_and_everybody_else_a_whole_pc() {
    // guest, firmware, Xen platform device, boot disk's controller, adapter, where it sits, maker, clock
    let table = [
        (
            "centos-6.3",
            Firmware::Pygrub,
            false,
            "xen-vbd",
            "xen-vif",
            "no PCI address",
            "",
            Clock::Utc,
        ),
        (
            "ubuntu-12.04",
            Firmware::Bios,
            true,
            "piix3-ide-xen",
            "rtl8139-xen",
            "0000:00:04.0",
            "Xen",
            Clock::Utc,
        ),
        (
            "windows-2008r2",
            Firmware::Bios,
            true,
            "piix3-ide-xen",
            "rtl8139-xen",
            "0000:00:04.0",
            "Xen",
            Clock::Localtime,
        ),
        (
            "plan-9",
            Firmware::Bios,
            true,
            "piix3-ide-xen",
            "rtl8139-xen",
            "0000:00:04.0",
            "Xen",
            Clock::Utc,
        ),
    ];
    for (guest, firmware, platform, controller, nic, slot, maker, clock) in table {
        let made = machine(XEN, guest);
        assert_eq!(
            (made.firmware, made.xen_platform, made.clock),
            (firmware, platform, clock),
            "{guest}"
        );
        assert_eq!(made.controllers[0].model, controller, "{guest}");
        assert_eq!(
            (
                made.nics[0].model.as_str(),
                place(made.nics[0].slot).as_str()
            ),
            (nic, slot),
            "{guest}"
        );
        assert_eq!(made.smbios.manufacturer, maker, "{guest}");
        assert_eq!(made.cdroms.len(), 1, "{guest}");
        assert_eq!(made.cpu.brand, host(XEN).cpu_brand);
    }
    assert_eq!(machine(XEN, "centos-6.3").smbios, Smbios::default());
}

#[test]
fn a_machine_s_kind_can_be_asked_for_whatever_the_template_says() {
    let mut request = Request::plain("vm", "centos-6.3", (1, 512), &[SIZE]);
    request.mode = Some(Mode::Hvm);
    let made = make(XEN, &request, 1).machine;
    assert_eq!(
        (made.firmware, made.controllers[0].model.as_str()),
        (Firmware::Bios, "piix3-ide-xen")
    );
    request.guest = "windows-2008r2".to_owned();
    request.mode = Some(Mode::Paravirtual);
    assert_eq!(make(XEN, &request, 1).machine.firmware, Firmware::Pygrub);
}

#[test]
fn the_template_is_why_a_machine_is_paravirtual() {
    let request = Request::plain("vm", "centos-6.3", (1, 512), &[SIZE]);
    let made = make(XEN, &request, 1);
    assert!(cites(made.why("mode"), "HQ86") && cites(made.why("mode"), "HQ85"));
}

#[test]
fn the_cd_rom_drive_of_a_whole_pc_is_its_fourth_device_and_disks_go_around_it() {
    let request = Request::plain("vm", "ubuntu-12.04", (1, 512), &[SIZE; 5]);
    let made = make(XEN, &request, 1).machine;
    let units: Vec<u32> = made.disks.iter().map(|disk| disk.unit).collect();
    assert_eq!(
        (units.as_slice(), made.cdroms[0].unit),
        (&[0, 1, 2, 4, 5][..], 3)
    );
    let request = Request::plain("vm", "centos-6.3", (1, 512), &[SIZE; 3]);
    let made = make(XEN, &request, 1).machine;
    assert_eq!(
        made.controllers.len(),
        4,
        "every drive of a paravirtual machine has a front end of its own"
    );
}

#[test]
fn each_further_adapter_of_a_whole_pc_sits_a_slot_behind() {
    let mut request = Request::plain("vm", "ubuntu-12.04", (1, 512), &[SIZE]);
    request.nics = vec![Default::default(); 3];
    let made = make(XEN, &request, 1).machine;
    let slots: Vec<String> = made.nics.iter().map(|nic| place(nic.slot)).collect();
    assert_eq!(slots, ["0000:00:04.0", "0000:00:05.0", "0000:00:06.0"]);
}

#[test]
fn hyper_v_boots_from_ide_and_gives_a_synthetic_adapter_unless_the_guest_has_no_driver() {
    for (guest, nic) in GUESTS.iter().zip(["dec21140", "hyperv-nic", "hyperv-nic"]) {
        let made = machine(HYPERV, guest);
        assert_eq!(
            (made.firmware, made.clock),
            (Firmware::Bios, Clock::Localtime)
        );
        assert_eq!(
            (made.controllers[0].model.as_str(), made.disks[0].unit),
            ("piix4-ide-hyperv", 0)
        );
        assert_eq!(made.nics[0].model, nic, "{guest}");
        assert_eq!(made.memory.mib, 1026);
        assert_eq!(made.cpu.khz, 2_700_000, "the faster server");
    }
    let odd = Request::plain("vm", "ubuntu-12.04", (1, 1025), &[SIZE]);
    let made = make(HYPERV, &odd, 1);
    assert_eq!(made.machine.memory.mib, 1026);
    assert!(cites(made.why("memory"), "DQ426"));
}

#[test]
fn a_disk_on_the_synthetic_bus_has_no_pci_address() {
    let mut request = Request::plain("vm", "ubuntu-12.04", (1, 512), &[SIZE]);
    request.disks.push(DiskRequest {
        bytes: SIZE,
        controller: Some("hyperv-scsi".to_owned()),
    });
    let made = make(HYPERV, &request, 1).machine;
    let scsi = made.controller_of(&made.disks[1]).expect("a controller");
    assert_eq!((scsi.model.as_str(), scsi.slot), ("hyperv-scsi", None));
}

#[test]
fn the_limits_of_both_are_those_of_the_facts() {
    let (xen, hyperv) = (product(XEN), product(HYPERV));
    let (xen, hyperv) = (xen.facts(), hyperv.facts());
    let number = |facts: &drylab_hypervisor::Facts<'_>, key: &str| facts.number(key).unwrap().value;
    assert_eq!(
        (
            number(&xen, "cpu.vcpus-max"),
            number(&hyperv, "cpu.vcpus-max")
        ),
        (16, 4)
    );
    assert_eq!(number(&hyperv, "memory.mib-max"), 64 << 10);
    assert!(cites(
        &hyperv.number("cpu.vcpus-max").unwrap().chain(),
        "HQ79"
    ));
    assert_eq!(
        memory_max(&xen, "centos-6.3").unwrap().value,
        32 << 10,
        "the template's own"
    );
    assert_eq!(memory_max(&xen, "ubuntu-12.04").unwrap().value, 128 << 10);
    assert!(
        !xen.flag("memory.overcommit").unwrap().value
            && !hyperv.flag("memory.overcommit").unwrap().value
    );
}

#[test]
fn a_whole_pc_without_tools_is_not_shut_down_cleanly() {
    let (xen, hyperv) = (product(XEN), product(HYPERV));
    // product, guest, tools, allowed, quirk
    let table = [
        (&xen, XEN, "centos-6.3", false, true, "HQ84"),
        (&xen, XEN, "ubuntu-12.04", false, false, "HQ84"),
        (&xen, XEN, "ubuntu-12.04", true, true, "HQ84"),
        (&hyperv, HYPERV, "windows-2008r2", true, true, "DQ424"),
        (&hyperv, HYPERV, "centos-6.3", false, false, "DQ424"),
    ];
    for (product, id, guest, tools, allowed, quirk) in table {
        let found = clean_shutdown(&product.facts(), &machine(id, guest), tools).expect("facts");
        assert_eq!(found.is_allowed, allowed, "{id} {guest} {tools}");
        assert!(cites(&found.why, quirk));
    }
    let mut silent = product(XEN);
    silent.facts.remove("shutdown.needs-tools");
    let unknown = clean_shutdown(&silent.facts(), &machine(XEN, "centos-6.3"), true);
    assert!(unknown.is_err(), "nobody wrote it down");
}

#[test]
fn the_transfer_vm_needs_a_lease() {
    let needs = transfer_vm(&product(XEN).facts()).expect("facts");
    assert!(
        matches!(needs.as_slice(), [Need::Lease { .. }]),
        "{needs:?}"
    );
    assert!(cites(needs[0].why(), "HQ92") && cites(needs[0].why(), "GQ140"));
    assert!(needs[0].is_met(true, 0) && !needs[0].is_met(false, u64::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn addresses_of_xenserver_are_local_and_of_one_station(word: u64, nics in 1usize..8) {
        let mut request = Request::plain("vm", "ubuntu-12.04", (1, 512), &[SIZE]);
        request.nics = vec![Default::default(); nics];
        let made = make(XEN, &request, word).machine;
        for nic in &made.nics {
            prop_assert!(nic.mac.is_locally_administered() && nic.mac.0[0] & 1 == 0);
        }
        let again = make(XEN, &request, word).machine;
        prop_assert_eq!(made.nics, again.nics, "a function of the drawn bits");
    }

    #[test]
    fn addresses_of_hyper_v_are_of_its_host_s_pool(word: u64, address: u32, nics in 1usize..12) {
        let facts = product(HYPERV);
        let (facts, mut host) = (facts.facts(), host(HYPERV));
        host.address = address.into();
        let [_, _, third, fourth] = host.address.octets();
        let mut request = Request::plain("vm", "ubuntu-12.04", (1, 512), &[SIZE]);
        request.nics = vec![Default::default(); nics];
        let draws = drylab_hypervisor::console::Draws { mac: word, uuid: 1 };
        let made = drylab_hypervisor::console::create(&facts, &host, &request, draws).unwrap().machine;
        let pool = mac_pool(&facts, &host).unwrap().unwrap().value;
        let mut seen = std::collections::BTreeSet::new();
        for nic in &made.nics {
            prop_assert_eq!(&nic.mac.0[..5], &[0x00, 0x15, 0x5d, third, fourth][..]);
            prop_assert!(pool.contains(nic.mac) && seen.insert(nic.mac));
        }
    }
}
