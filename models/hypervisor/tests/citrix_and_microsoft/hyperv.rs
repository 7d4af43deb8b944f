//! Hyper-V's own folders, and machines made by hand around a VHD.

use crate::support::{
    GUESTS, HYPERV, SIZE, all, cites, convert, disk, exported, host, machine, make, operator,
    product,
};
use drylab_appliance::{Package, hyperv};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, content_id, copy_data};
use drylab_catalog::Machine;
use drylab_hypervisor::Host;
use drylab_hypervisor::console::mac_pools_clash;
use drylab_hypervisor::exporter::{Exported, hyperv_export};
use drylab_hypervisor::importer::{
    ReadError, Reading, Verdict, hyperv_import, hyperv_new_machine, hyperv_opened,
};
use drylab_image::vhd::is_child;
use drylab_image::{Target, VhdOptions, VmdkOptions, open};
use std::sync::Arc;

pub(crate) fn folder(guest: &str) -> (Machine, Package) {
    let machine = machine(HYPERV, guest);
    let disks = [disk(SIZE)];
    let package = hyperv_export(&exported(&machine, guest, &disks), &convert).expect("an export");
    (machine, package)
}

fn import(host: &Host, package: &Package, guest: &str) -> Result<Reading, ReadError> {
    hyperv_import(&product(HYPERV).facts(), host, package, &operator(guest))
}

fn by_hand(file: Arc<dyn ReadAt>) -> Result<Reading, ReadError> {
    let mut package = Package::default();
    package.put("disk.vhd", file);
    package.disks.push("disk.vhd".to_owned());
    hyperv_new_machine(&product(HYPERV).facts(), &package, &operator("centos-6.3"))
}

pub(crate) fn dynamic(bytes: u64) -> Arc<dyn ReadAt> {
    convert(&disk(bytes), &Target::VhdDynamic(VhdOptions::default())).expect("a VHD")
}

#[test]
fn a_folder_taken_in_on_the_same_host_is_the_same_machine() {
    for guest in GUESTS {
        let (machine, package) = folder(guest);
        let reading = import(&host(HYPERV), &package, guest).expect("a reading");
        assert_eq!(reading.remarks, [], "{guest}");
        assert_eq!(make(HYPERV, &reading.request, 99).machine, machine);
        let image = open(
            package.files[&reading.disks[0].file].clone(),
            &Limits::DEFAULT,
        )
        .unwrap();
        assert_eq!(content_id(&image), content_id(&disk(SIZE)));
    }
}

#[test]
fn a_folder_is_taken_in_once() {
    let (_, package) = folder("ubuntu-12.04");
    let root = "D:\\vm";
    let used = hyperv::import_marks(&package, root, &Limits::DEFAULT).expect("an import");
    let again = import(&host(HYPERV), &used, "ubuntu-12.04");
    assert!(again.is_err() && cites(&all(&again), "HQ77"));
}

#[test]
fn a_dynamic_address_of_another_host_is_drawn_anew_and_a_static_one_stays() {
    let (machine, package) = folder("ubuntu-12.04");
    let mut other = host(HYPERV);
    other.address = [10, 20, 0, 15].into();
    let reading = import(&other, &package, "ubuntu-12.04").expect("a reading");
    assert_eq!(reading.request.nics[0].mac, None);
    assert!(cites(&reading.mac, "HQ75") && cites(&reading.mac, "GQ19"));
    let open = hyperv::Folder::open(&package, &Limits::DEFAULT).expect("a folder");
    let mut settings = open.machine;
    settings.nics[0].is_static = true;
    let typed = hyperv::export(&settings, &[dynamic(SIZE)]).expect("an export");
    let reading = import(&other, &typed, "ubuntu-12.04").expect("a reading");
    assert_eq!(reading.request.nics[0].mac, Some(machine.nics[0].mac));
}

#[test]
fn two_hosts_with_equal_last_octets_hand_out_the_same_addresses() {
    let (_, package) = folder("ubuntu-12.04");
    let facts = product(HYPERV);
    let clash = |other: &Host| {
        let found = mac_pools_clash(&facts.facts(), &host(HYPERV), other).expect("facts");
        found.is_some_and(|why| cites(&why, "HQ76"))
    };
    let mut twin = host(HYPERV);
    let [_, _, third, fourth] = twin.address.octets();
    twin.address = [10, 20, third, fourth ^ 1].into();
    assert!(!clash(&twin));
    twin.address = [192, 168, third, fourth].into();
    assert!(clash(&twin));
    let reading = import(&twin, &package, "ubuntu-12.04").expect("a reading");
    assert!(
        reading.request.nics[0].mac.is_some(),
        "it takes the address for its own"
    );
}

#[test]
fn an_adapter_whose_network_is_not_there_is_left_unconnected() {
    let (_, package) = folder("ubuntu-12.04");
    let open = hyperv::Folder::open(&package, &Limits::DEFAULT).expect("a folder");
    for (network, is_warned, is_connected) in [
        ("External", false, true),
        ("Lab LAN", true, false),
        ("", false, false),
    ] {
        let mut settings = open.machine.clone();
        network.clone_into(&mut settings.nics[0].network);
        let moved = hyperv::export(&settings, &[dynamic(SIZE)]).expect("an export");
        let reading = import(&host(HYPERV), &moved, "ubuntu-12.04");
        assert_eq!(cites(&all(&reading), "HQ78"), is_warned, "{network:?}");
        let reading = reading.expect("a reading");
        assert!(
            reading
                .remarks
                .iter()
                .all(|remark| remark.verdict == Verdict::Warned)
        );
        let made = make(HYPERV, &reading.request, 1).machine;
        assert_eq!(
            made.nics[0].network == "External",
            is_connected,
            "{network:?}"
        );
    }
}

#[test]
fn a_boot_disk_on_scsi_does_not_boot() {
    let (_, package) = folder("ubuntu-12.04");
    let mut settings = hyperv::Folder::open(&package, &Limits::DEFAULT)
        .unwrap()
        .machine;
    settings.scsi = vec!["11111111-2222-3333-4444-555555555555".to_owned()];
    settings.drives.retain(|drive| !drive.is_cd);
    settings.drives[0].bus = hyperv::Bus::Scsi;
    let moved = hyperv::export(&settings, &[dynamic(SIZE)]).expect("an export");
    let reading = import(&host(HYPERV), &moved, "ubuntu-12.04");
    assert!(cites(&all(&reading), "HQ71"));
    assert_eq!(reading.unwrap().remarks[0].verdict, Verdict::Refused);
}

#[test]
fn a_folder_of_somebody_else_is_none() {
    let (_, package) = crate::ovf::of_vsphere("centos-6.3");
    let reading = import(&host(HYPERV), &package, "centos-6.3");
    assert!(reading.is_err() && cites(&all(&reading), "HQ70"));
    let (_, package) = folder("centos-6.3");
    let mut without = package.clone();
    without.files.retain(|name, _| !name.ends_with(".vhd"));
    assert!(import(&host(HYPERV), &without, "centos-6.3").is_err());
    let broken = edited_bytes(&package);
    assert!(import(&host(HYPERV), &broken, "centos-6.3").is_err());
}

/// The folder with a cut descriptor.
fn edited_bytes(package: &Package) -> Package {
    let bytes = package.text(&package.descriptor, &Limits::DEFAULT).unwrap();
    let mut cut = package.clone();
    cut.put(
        package.descriptor.clone(),
        Arc::new(bytes[..bytes.len() / 2].to_vec()),
    );
    cut
}

#[test]
fn a_vhd_gets_a_machine_by_hand_and_nothing_else_does() {
    let vhds = [
        Target::VhdDynamic(VhdOptions::default()),
        Target::VhdFixed(VhdOptions::default()),
        Target::VhdDynamic(VhdOptions::qemu(false)),
    ];
    for target in vhds {
        let reading = by_hand(convert(&disk(SIZE), &target).unwrap()).expect("a reading");
        assert_eq!(reading.remarks, [], "{target:?}");
        assert!(cites(&reading.by_hand, "HQ70"));
        let made = make(HYPERV, &reading.request, 1).machine;
        assert_eq!(
            (made.controllers[0].model.as_str(), made.disks[0].unit),
            ("piix4-ide-hyperv", 0)
        );
        assert!(made.disks[0].bytes >= SIZE);
    }
    for target in [
        Target::Raw,
        Target::VmdkStream(VmdkOptions::default()),
        Target::Qcow2(drylab_image::Qcow2Options::default()),
    ] {
        let reading = by_hand(convert(&disk(SIZE), &target).unwrap());
        assert!(
            reading.is_err() && cites(&all(&reading), "DQ425"),
            "{target:?}"
        );
    }
}

#[test]
fn a_data_offset_that_is_half_set_is_refused_as_long_as_we_believe_so() {
    let file = dynamic(SIZE);
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes[512..520], b"cxsparse");
    bytes[520..524].fill(0);
    // The checksum is that of the changed header: this is about the field alone.
    bytes[512 + 0x24..512 + 0x28].fill(0);
    let header = &bytes[512..512 + 1024];
    let sum = !header.iter().fold(0u32, |sum, byte| sum + u32::from(*byte));
    bytes[512 + 0x24..512 + 0x28].copy_from_slice(&sum.to_be_bytes());
    let reading = by_hand(Arc::new(bytes.clone()));
    let witness = all(&reading);
    assert!(cites(&witness, "GQ107") && cites(&witness, "DQ430"));
    assert_eq!(reading.unwrap().remarks[0].verdict, Verdict::Refused);
    let mut believed = product(HYPERV);
    let key = "vhd.data-offset-is-checked";
    believed.facts.get_mut(key).expect("a fact").value = false.into();
    let mut package = Package::default();
    package.put("disk.vhd", Arc::new(bytes));
    package.disks.push("disk.vhd".to_owned());
    let reading = hyperv_new_machine(&believed.facts(), &package, &operator("centos-6.3")).unwrap();
    assert_eq!(reading.remarks, []);
}

#[test]
fn a_vhd_holds_2040_gib() {
    let reading = by_hand(dynamic(2040 << 30)).expect("a reading");
    assert_eq!(reading.remarks, []);
    assert!(
        convert(
            &disk((2040 << 30) + 512),
            &Target::VhdDynamic(VhdOptions::default())
        )
        .is_err(),
        "no writer makes one"
    );
    let mut small = product(HYPERV);
    small.facts.get_mut("disk.bytes-max").expect("a fact").value = (1 << 20).into();
    let mut package = Package::default();
    package.put("disk.vhd", dynamic(SIZE));
    package.disks.push("disk.vhd".to_owned());
    let reading = hyperv_new_machine(&small.facts(), &package, &operator("centos-6.3"));
    assert!(cites(&all(&reading), "HQ80"));
}

#[test]
fn a_machine_with_snapshots_is_exported_as_a_chain_and_taken_in_with_all_of_it() {
    let machine = machine(HYPERV, "ubuntu-12.04");
    let before = disk(SIZE);
    let now = SparseBytes::new(SIZE);
    copy_data(&before, &now).expect("memory");
    now.write_at(3 << 20, b"since the snapshot")
        .expect("memory");
    let disks: [Arc<dyn ReadAt>; 1] = [Arc::new(now)];
    let snapshots = [before.clone(), before.clone()];
    let from = Exported {
        snapshots: &snapshots,
        ..exported(&machine, "ubuntu-12.04", &disks)
    };
    let package = hyperv_export(&from, &convert).expect("an export");
    let newest = package.disks[0].clone();
    assert!(newest.ends_with(".avhd") && is_child(&package.files[&newest]));
    let avhd = package.files.keys().filter(|name| name.ends_with(".avhd"));
    assert_eq!(avhd.count(), 2);
    let opened = hyperv_opened(&package).expect("a chain");
    let reading = import(&host(HYPERV), &opened, "ubuntu-12.04").expect("a reading");
    assert_eq!(make(HYPERV, &reading.request, 99).machine, machine);
    let plan = &reading.disks[0];
    assert_eq!(content_id(&opened.files[&plan.file]), content_id(&disks[0]));
    // Base, first and second child: all of them stay on the host.
    let kept: u64 = ["vhd", "avhd"]
        .iter()
        .flat_map(|end| {
            package
                .files
                .iter()
                .filter(move |(name, _)| name.ends_with(&format!(".{end}")))
        })
        .map(|(_, file)| file.len())
        .sum();
    assert_eq!(plan.bytes, kept);
    // Without the base there is no disk.
    let mut cut = package.clone();
    cut.files.retain(|name, _| !name.ends_with("/vm.vhd"));
    assert!(hyperv_opened(&cut).is_err());
    let refused = import(&host(HYPERV), &cut, "ubuntu-12.04");
    assert!(refused.is_err() && cites(&all(&refused), "GQ143"));
}
