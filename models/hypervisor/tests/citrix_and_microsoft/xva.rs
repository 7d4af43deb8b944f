//! XenServer's own export.

use crate::support::{
    GUESTS, SEED, SIZE, XEN, all, cites, disk, exported, host, machine, make, operator, product,
};
use drylab_appliance::Package;
use drylab_block::content_id;
use drylab_catalog::Machine;
use drylab_hypervisor::console::{NicRequest, Request, mac_from_seed};
use drylab_hypervisor::exporter::{Exported, xva_export};
use drylab_hypervisor::importer::{
    ReadError, Reading, Verdict, XvaOptions, xencenter_import_xva, xva_opened,
};
use std::sync::Arc;

pub(crate) fn archive(guest: &str) -> (Machine, Package) {
    let machine = machine(XEN, guest);
    let disks = [disk(SIZE)];
    let package = xva_export(&exported(&machine, guest, &disks)).expect("an export");
    (machine, package)
}

fn read(package: &Package, guest: &str, options: &XvaOptions) -> Result<Reading, ReadError> {
    xencenter_import_xva(&product(XEN).facts(), package, &operator(guest), options)
}

fn preserved() -> XvaOptions {
    XvaOptions {
        preserve: true,
        ..XvaOptions::default()
    }
}

#[test]
fn an_archive_brings_machine_and_bytes_back_and_the_address_when_it_is_preserved() {
    for guest in GUESTS {
        let (machine, package) = archive(guest);
        let reading = read(&package, guest, &preserved()).expect("a reading");
        assert_eq!(reading.remarks, [], "{guest}");
        let mut made = make(XEN, &reading.request, 99).machine;
        made.uuid.clone_from(&machine.uuid);
        assert_eq!(made, machine, "all but the UUID, which is new");
        let opened = xva_opened(&package).expect("an archive");
        let bytes = opened.files[&reading.disks[0].file].clone();
        assert_eq!(content_id(&bytes), content_id(&disk(SIZE)));
        let plain = read(&package, guest, &XvaOptions::default()).expect("a reading");
        assert_eq!(plain.request.nics[0].mac, None);
        assert!(cites(&plain.mac, "DQ416"));
    }
}

#[test]
fn a_preserved_seed_that_the_pool_has_is_refused() {
    let (_, package) = archive("centos-6.3");
    let there = |preserve| XvaOptions {
        preserve,
        seeds: [SEED.to_owned()].into(),
        ..XvaOptions::default()
    };
    let reading = read(&package, "centos-6.3", &there(true));
    assert!(cites(&all(&reading), "HQ97"));
    assert_eq!(reading.unwrap().remarks[0].verdict, Verdict::Refused);
    assert!(!cites(
        &all(&read(&package, "centos-6.3", &there(false))),
        "HQ97"
    ));
    assert!(!cites(
        &all(&read(&package, "centos-6.3", &preserved())),
        "HQ97"
    ));
}

#[test]
fn processors_of_another_vendor_are_a_warning() {
    let (_, package) = archive("windows-2008r2");
    let ours = host(XEN).cpu_vendor;
    for (from, is_warned) in [("AuthenticAMD", true), (ours.as_str(), false)] {
        let options = XvaOptions {
            vendors: Some((from.to_owned(), ours.clone())),
            ..XvaOptions::default()
        };
        let reading = read(&package, "windows-2008r2", &options);
        for id in ["HQ96", "GQ142"] {
            assert_eq!(cites(&all(&reading), id), is_warned, "{from} {id}");
        }
    }
}

#[test]
fn a_damaged_block_and_an_old_archive_are_refused() {
    let (_, package) = archive("centos-6.3");
    let bytes = &package.files[&package.descriptor];
    let mut copy = vec![0; usize::try_from(bytes.len()).unwrap()];
    bytes.read_at(0, &mut copy).unwrap();
    let at = copy
        .windows(18)
        .position(|window| window == b"bytes of the guest")
        .expect("the guest's bytes are in the archive");
    copy[at] ^= 1;
    let mut damaged = package.clone();
    damaged.put(package.descriptor.clone(), Arc::new(copy));
    let reading = read(&damaged, "centos-6.3", &XvaOptions::default()).expect("a reading");
    assert_eq!(reading.remarks[0].verdict, Verdict::Refused);
    let mut nothing = package.clone();
    nothing.put(package.descriptor.clone(), Arc::new(vec![0u8; 4096]));
    assert!(read(&nothing, "centos-6.3", &XvaOptions::default()).is_err());
}

#[test]
fn an_archive_of_version_1_is_refused_by_name() {
    let records: &[u8] = b"<appliance version=\"0.1\"><vm name=\"vm\"/></appliance>";
    let sink = drylab_block::SparseBytes::default();
    drylab_appliance::ova::write_ova(&[("ova.xml".to_owned(), &records)], &sink).expect("a tar");
    let mut package = Package {
        descriptor: "vm.xva".to_owned(),
        ..Package::default()
    };
    package.put("vm.xva", Arc::new(sink));
    let reading = read(&package, "centos-6.3", &XvaOptions::default());
    assert!(
        reading.is_err() && cites(&all(&reading), "GQ141"),
        "{reading:?}"
    );
}

#[test]
fn an_address_follows_from_the_seed_and_the_adapters_number() {
    // MD5 by hand: of the seed, and of the digest twice more for the second adapter; see `mac_from_seed`.
    for (device, address) in [
        (0, "62:32:7a:b3:eb:50"),
        (1, "52:e1:37:ec:da:61"),
        (6, "9a:08:79:fe:44:76"),
    ] {
        assert_eq!(mac_from_seed(SEED, device).to_string(), address, "{device}");
    }
}

#[test]
fn an_import_that_preserves_the_seed_preserves_addresses_and_another_one_changes_them() {
    let mut asked = Request::plain("vm", "ubuntu-12.04", (1, 1024), &[SIZE]);
    asked.nics = vec![NicRequest::default(); 3];
    let made = make(XEN, &asked, 4);
    let seed = made.mac_seed.as_deref().expect("a seed");
    let of_seed = |device| mac_from_seed(seed, device);
    let macs = |machine: &Machine| machine.nics.iter().map(|nic| nic.mac).collect::<Vec<_>>();
    assert_eq!(macs(&made.machine), [of_seed(0), of_seed(1), of_seed(2)]);
    let disks = [disk(SIZE)];
    let from = Exported {
        mac_seed: Some(seed),
        ..exported(&made.machine, "ubuntu-12.04", &disks)
    };
    let package = xva_export(&from).expect("an export");
    let kept = read(&package, "ubuntu-12.04", &preserved()).expect("a reading");
    assert_eq!(kept.request.mac_seed.as_deref(), Some(seed));
    let mut request = kept.request.clone();
    // An adapter that somebody adds afterwards gets the address that it would have had at the source.
    request.nics.push(NicRequest::default());
    let there = make(XEN, &request, 99);
    assert_eq!(
        macs(&there.machine),
        [of_seed(0), of_seed(1), of_seed(2), of_seed(3)]
    );
    let plain = read(&package, "ubuntu-12.04", &XvaOptions::default()).expect("a reading");
    let anew = make(XEN, &plain.request, 99);
    assert_ne!(anew.mac_seed.as_deref(), Some(seed));
    for (mac, before) in macs(&anew.machine).iter().zip(macs(&made.machine)) {
        assert_ne!(*mac, before);
    }
}
