//! Every fact of the two products decides something here, or stands below because only a run of the pipeline reads it.

use crate::rules::{MEMORY, SYSTEM, hard_disk, item, package_of};
use crate::support::{GUESTS, HYPERV, SIZE, XEN, convert, disk, host, machine, operator, product};
use crate::{hyperv, ovf, xva};
use drylab_appliance::Package;
use drylab_hypervisor::console::{
    DiskRequest, Draws, Mode, NicRequest, Request, clean_shutdown, create, mac_pool, memory_max,
};
use drylab_hypervisor::importer::{
    OvfOptions, XvaOptions, hyperv_import, hyperv_new_machine, xencenter_import_disk,
    xencenter_import_ovf, xencenter_import_xva,
};
use drylab_hypervisor::{Facts, Product, transfer_vm};
use drylab_image::{Target, VhdOptions};
use std::fmt::Debug;
use std::sync::Arc;

/// Read by the pipeline's steps, which decide by them.
const OF_THE_PIPELINE: [&str; 9] = [
    "cpu.vcpus-max",
    "import.disk",
    "import.ovf",
    "import.xva",
    "inventory.name-clash",
    "memory.overcommit",
    "pause",
    "tools.linux-module",
    "tools.windows-service",
];

/// What a person brings to the importers, made with all facts.
struct Brought {
    ovfs: Vec<Package>,
    archives: Vec<Package>,
    folders: Vec<Package>,
    disks: Vec<Package>,
}

fn brought() -> Brought {
    let nic = |id: &str, network: &str, address: &str| {
        let rest = format!(
            "<rasd:Address>{address}</rasd:Address><rasd:Connection>{network}</rasd:Connection>"
        );
        item(10, id, &rest)
    };
    let disks: String = (1..=17)
        .map(|number| hard_disk(number, "", "Hard disk", ""))
        .collect();
    let other = "<x:VirtualSystemOtherConfigurationData xmlns:x=\"http://schemas.citrix.com/ovf/envelope/1\" Name=\"PV_bootloader\"><x:Value>pygrub</x:Value></x:VirtualSystemOtherConfigurationData>";
    let nics = nic("7", "Network 0", "00:0c:29:00:00:01") + &nic("8", "LAN", "00:0c:29:00:00:02");
    let old = SYSTEM.replace("vmx-07", "vmx-08");
    let mut ovfs = vec![
        package_of("ovf:version=\"2.0\"", &old, &nics, 0),
        package_of("", SYSTEM, &format!("{MEMORY}{disks}"), 17),
        package_of("", SYSTEM, &format!("{MEMORY}{disks}{other}"), 17),
    ];
    ovfs.extend(GUESTS.map(|guest| ovf::of_xencenter(guest).1));
    let mut half = vec![0u8; 2048];
    let image = hyperv::dynamic(SIZE);
    image.read_at(0, &mut half).expect("a header");
    half[520..524].fill(0);
    let mut bytes = vec![0; usize::try_from(image.len()).unwrap()];
    image.read_at(0, &mut bytes).expect("an image");
    bytes[..2048].copy_from_slice(&half);
    let vhds: [Arc<dyn drylab_block::ReadAt>; 3] = [
        Arc::new(bytes),
        image,
        convert(&disk(SIZE), &Target::VhdFixed(VhdOptions::default())).unwrap(),
    ];
    let disks = vhds.into_iter().chain([disk(SIZE)]).map(|file| {
        let mut package = Package::default();
        package.put("disk", file);
        package.disks.push("disk".to_owned());
        package
    });
    Brought {
        ovfs,
        archives: GUESTS.map(|guest| xva::archive(guest).1).into(),
        folders: GUESTS.map(|guest| hyperv::folder(guest).1).into(),
        disks: disks.collect(),
    }
}

/// Everything the console and the importers make of it, in words.
fn see(product: &Product, brought: &Brought) -> String {
    let (facts, host) = (product.facts(), host(product.id.as_str()));
    let mut seen = String::new();
    let mut note = |what: &dyn Debug| seen.push_str(&format!("{what:?}\n"));
    for guest in GUESTS.iter().chain(&["plan-9"]) {
        for mode in [None, Some(Mode::Paravirtual), Some(Mode::Hvm)] {
            for request in requests(guest, mode) {
                note(&create(&facts, &host, &request, Draws { mac: 7, uuid: 7 }));
            }
        }
        note(&memory_max(&facts, guest));
        let machine = machine(product.id.as_str(), guest);
        note(&clean_shutdown(&facts, &machine, false));
    }
    note(&mac_pool(&facts, &host));
    imports(&facts, brought, &mut note);
    seen
}

fn requests(guest: &str, mode: Option<Mode>) -> [Request; 2] {
    let mut plain = Request::plain("vm", guest, (1, 1025), &[SIZE]);
    plain.mode = mode;
    let mut chosen = plain.clone();
    chosen.disks.push(DiskRequest {
        bytes: SIZE,
        controller: Some("hyperv-scsi".to_owned()),
    });
    chosen.nics.push(NicRequest {
        model: Some("dec21140".to_owned()),
        ..NicRequest::default()
    });
    [plain, chosen]
}

fn imports(facts: &Facts<'_>, brought: &Brought, note: &mut dyn FnMut(&dyn Debug)) {
    let operator = operator("centos-6.3");
    let is_xen = facts.product().id.as_str() == XEN;
    if !is_xen {
        for folder in &brought.folders {
            note(&hyperv_import(facts, &host(HYPERV), folder, &operator));
        }
        for disk in &brought.disks {
            note(&hyperv_new_machine(facts, disk, &operator));
        }
        return;
    }
    for package in &brought.ovfs {
        note(&xencenter_import_ovf(
            facts,
            package,
            &operator,
            OvfOptions::default(),
        ));
    }
    for package in &brought.archives {
        note(&xencenter_import_xva(
            facts,
            package,
            &operator,
            &XvaOptions::default(),
        ));
    }
    for package in &brought.disks {
        note(&xencenter_import_disk(facts, package, &operator));
    }
    note(&transfer_vm(facts));
}

#[test]
fn every_fact_decides_something() {
    let brought = brought();
    for id in [XEN, HYPERV] {
        let whole = product(id);
        let seen = see(&whole, &brought);
        let mut unused = Vec::new();
        for key in whole.facts.keys() {
            let mut without = whole.clone();
            without.facts.remove(key);
            if see(&without, &brought) == seen {
                unused.push(key.as_str());
            }
        }
        let listed: Vec<&str> = OF_THE_PIPELINE
            .into_iter()
            .filter(|key| whole.facts.contains_key(*key))
            .collect();
        assert_eq!(unused, listed, "{id}");
    }
}
