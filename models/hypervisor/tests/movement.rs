//! Machines out of one product and into another, by the real descriptors.

use drylab_appliance::Package;
use drylab_appliance::manifest::{Algorithm, Manifest};
use drylab_block::{Limits, ReadAt, Reference, Resolver, SparseBytes, WriteAt, content_id};
use drylab_catalog::{Machine, Place};
use drylab_hypervisor::importer::{self, Operator, Reading, Verdict};
use drylab_hypervisor::{LabFile, Product, console, datastore, exporter, products};
use drylab_image::{Target, open, write};
use std::sync::Arc;

const ESXI: &str = "esxi-5.0.0";
const KVM: &str = "kvm-centos-6.3";

fn convert(disk: &Arc<dyn ReadAt>, target: &Target) -> drylab_block::Result<Arc<dyn ReadAt>> {
    let sink = SparseBytes::default();
    write(disk, target, &sink)?;
    Ok(Arc::new(sink))
}

fn product(id: &str) -> Product {
    products().remove(&id.into()).expect("a known product")
}

fn machine(product: &Product, guest: &str) -> Machine {
    let request = console::Request::plain("vm", guest, (2, 1026), &[1 << 30]);
    let lab = LabFile::of_the_report();
    let host = lab.host_of(&product.id).expect("a host");
    console::create(
        &product.facts(),
        host,
        &request,
        console::Draws {
            mac: 1 << 56,
            uuid: 5,
        },
    )
    .expect("all facts")
    .machine
}

fn disk() -> Arc<dyn ReadAt> {
    let disk = SparseBytes::new(1 << 30);
    disk.write_at(12_345, b"bytes of the guest")
        .expect("memory");
    Arc::new(disk)
}

fn operator() -> Operator {
    Operator {
        name: "vm".to_owned(),
        guest: "centos-6.3".to_owned(),
        vcpus: 2,
        memory_mib: 1026,
    }
}

fn exported_ovf(guest: &str) -> (Machine, Package) {
    let esxi = product(ESXI);
    let machine = machine(&esxi, guest);
    let disks = [disk()];
    let from = exporter::Exported {
        machine: &machine,
        guest,
        disks: &disks,
        mac_seed: None,
        snapshots: &[],
    };
    let package = exporter::vsphere_export_ovf(&esxi.facts(), &from, &convert).expect("an export");
    (machine, package)
}

fn deploy(package: &Package) -> Reading {
    importer::vsphere_deploy_ovf(&product(ESXI).facts(), package, &operator()).expect("a reading")
}

#[test]
fn vsphere_reads_its_own_export_and_loses_only_the_address() {
    for guest in ["centos-6.3", "windows-2008r2"] {
        let (machine, package) = exported_ovf(guest);
        let reading = deploy(&package);
        assert_eq!(reading.remarks, []);
        let request = reading.request;
        assert_eq!(
            (request.vcpus, request.memory_mib),
            (2, 1028),
            "memory was rounded to 4 MiB when the machine was made"
        );
        assert_eq!(request.guest, guest);
        assert_eq!(
            request.disks[0].controller.as_deref(),
            Some(machine.controllers[0].model.as_str())
        );
        assert_eq!(
            request.nics[0].model.as_deref(),
            Some(machine.nics[0].model.as_str())
        );
        assert_eq!(request.nics[0].mac, None);
        let image = open(
            package.files[&reading.disks[0].file].clone(),
            &Limits::DEFAULT,
        )
        .expect("a stream");
        assert_eq!(content_id(&image), content_id(&disk()));
    }
}

#[test]
fn a_changed_byte_in_the_package_is_refused_by_the_manifest() {
    let (_, mut package) = exported_ovf("centos-6.3");
    let name = package.disks[0].clone();
    let file = &package.files[&name];
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let last = bytes.len() - 600;
    bytes[last] ^= 1;
    package.put(name, Arc::new(bytes));
    let remarks = deploy(&package).remarks;
    assert!(
        remarks
            .iter()
            .any(|remark| remark.verdict == Verdict::Refused)
    );
    for quirk in ["HQ23", "GQ144"] {
        let mut links = remarks.iter().flat_map(|remark| &remark.witness);
        assert!(
            links.any(|link| link.to_string().starts_with(quirk)),
            "{quirk}: {remarks:?}"
        );
    }
}

#[test]
fn a_manifest_with_sha256_is_refused_though_every_digest_fits() {
    let (_, package) = exported_ovf("centos-6.3");
    let names: Vec<&String> = package
        .files
        .keys()
        .filter(|name| *name != "vm.mf")
        .collect();
    let files: Vec<(&str, &dyn ReadAt)> = names
        .iter()
        .map(|name| (name.as_str(), &*package.files[*name] as &dyn ReadAt))
        .collect();
    let cited = |algorithm| {
        let text = Manifest::of(algorithm, &files).unwrap().print();
        let mut signed = package.clone();
        signed.put("vm.mf", Arc::new(text.into_bytes()));
        let remarks = deploy(&signed).remarks;
        let links = remarks.iter().flat_map(|remark| &remark.witness);
        links
            .filter(|link| link.to_string().starts_with("HQ2"))
            .map(|link| link.to_string()[..4].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(cited(Algorithm::Sha1), Vec::<String>::new());
    assert_eq!(cited(Algorithm::Sha256), ["HQ22"]);
    assert_eq!(cited(Algorithm::Sha512), ["HQ22"]);
}

#[test]
fn a_foreign_family_and_a_foreign_disk_format_are_refused_with_their_line() {
    let (_, package) = exported_ovf("centos-6.3");
    let text =
        String::from_utf8(package.text(&package.descriptor, &Limits::DEFAULT).unwrap()).unwrap();
    for (from, to, quirk) in [
        ("vmx-08", "virtualbox-2.2", "HQ20"),
        ("vmx-08", "vmx-09", "HQ21"),
        ("vmdk.html#streamOptimized", "vmdk.html#", "HQ29"),
    ] {
        let mut edited = package.clone();
        edited.files.remove("vm.mf");
        edited.put(
            package.descriptor.clone(),
            Arc::new(text.replace(from, to).into_bytes()),
        );
        let remarks = deploy(&edited).remarks;
        let cited = remarks
            .iter()
            .flat_map(|remark| &remark.witness)
            .any(|witness| witness.to_string().starts_with(quirk));
        assert!(cited, "{remarks:?}");
        assert!(remarks[0].witness[0].says.contains("line "), "{remarks:?}");
    }
}

#[test]
fn an_ovf_of_version_2_and_one_without_hardware_are_refused_by_name() {
    let (_, package) = exported_ovf("centos-6.3");
    let text =
        String::from_utf8(package.text(&package.descriptor, &Limits::DEFAULT).unwrap()).unwrap();
    let hardware = text.find("<VirtualHardwareSection").expect("hardware");
    let end = "</VirtualHardwareSection>";
    let after = text.find(end).expect("its end") + end.len();
    let bare = format!("{}{}", &text[..hardware], &text[after..]);
    let second = text.replace("ovf/envelope/1", "ovf/envelope/2");
    for (text, quirk) in [(bare, "HQ28"), (second, "HQ25")] {
        let mut edited = package.clone();
        edited.files.remove("vm.mf");
        edited.put(package.descriptor.clone(), Arc::new(text.into_bytes()));
        let facts = product(ESXI);
        let read = importer::vsphere_deploy_ovf(&facts.facts(), &edited, &operator());
        let Err(importer::ReadError::Refused(why)) = read else {
            panic!("{quirk}: {read:?}");
        };
        let said = why.iter().any(|link| link.to_string().starts_with(quirk));
        assert!(said, "{quirk}: {why:?}");
    }
}

#[test]
fn an_unknown_guest_becomes_other_and_that_is_said() {
    let (_, package) = exported_ovf("centos-6.3");
    let text =
        String::from_utf8(package.text(&package.descriptor, &Limits::DEFAULT).unwrap()).unwrap();
    let mut edited = package.clone();
    edited.files.remove("vm.mf");
    let unknown = text.replace("osType=\"", "osType=\"not-");
    assert_ne!(unknown, text);
    edited.put(package.descriptor.clone(), Arc::new(unknown.into_bytes()));
    let says = |reading: &Reading| {
        let links = &reading.notes;
        links
            .iter()
            .any(|link| link.to_string().starts_with("HQ33"))
    };
    let reading = deploy(&edited);
    assert_eq!(reading.request.guest, "other");
    assert!(says(&reading), "{:?}", reading.notes);
    assert!(!says(&deploy(&package)));
}

#[test]
fn registering_a_moved_folder_keeps_address_uuid_and_hardware() {
    let esxi = product(ESXI);
    let machine = machine(&esxi, "windows-2008r2");
    let disks = [disk()];
    let from = exporter::Exported {
        machine: &machine,
        guest: "windows-2008r2",
        disks: &disks,
        mac_seed: None,
        snapshots: &[],
    };
    let package = exporter::datastore_copy(&esxi.facts(), &from).expect("a copy");
    let reading =
        importer::vsphere_register_vmx(&esxi.facts(), &package, &operator()).expect("a reading");
    let lab = LabFile::of_the_report();
    let draws = console::Draws { mac: 99, uuid: 99 };
    let made = console::create(
        &esxi.facts(),
        lab.host_of(&esxi.id).unwrap(),
        &reading.request,
        draws,
    )
    .expect("all facts");
    assert_eq!(made.machine, machine);
}

#[test]
fn a_domain_defined_from_its_dump_is_the_same_machine() {
    for guest in ["centos-6.3", "ubuntu-12.04", "windows-2008r2"] {
        let kvm = product(KVM);
        let machine = machine(&kvm, guest);
        let disks = [disk()];
        let from = exporter::Exported {
            machine: &machine,
            guest,
            disks: &disks,
            mac_seed: None,
            snapshots: &[],
        };
        let package = exporter::virsh_dumpxml_copy(&kvm.facts(), &from).expect("a dump");
        let reading =
            importer::virsh_define(&kvm.facts(), &package, &operator()).expect("a reading");
        assert_eq!(reading.remarks, []);
        let lab = LabFile::of_the_report();
        let draws = console::Draws { mac: 99, uuid: 99 };
        let made = console::create(
            &kvm.facts(),
            lab.host_of(&kvm.id).unwrap(),
            &reading.request,
            draws,
        )
        .expect("all facts");
        assert_eq!(made.machine, machine);
    }
}

#[test]
fn a_hosted_sparse_disk_is_refused_by_esxi_until_it_is_cloned() {
    let options = drylab_image::VmdkOptions {
        adapter: drylab_image::Adapter::Ide,
        ..Default::default()
    };
    let mut package = Package {
        disks: vec!["vm.vmdk".to_owned()],
        ..Package::default()
    };
    package.put(
        "vm.vmdk",
        convert(&disk(), &Target::VmdkSparse(options)).unwrap(),
    );
    let reading = importer::vsphere_existing_disk(&product(ESXI).facts(), &package, &operator())
        .expect("a reading");
    assert_eq!(reading.remarks[0].verdict, Verdict::Refused);
    assert_eq!(
        reading.request.disks[0].controller.as_deref(),
        Some("piix4-ide"),
        "the descriptor says ide"
    );
    assert!(!reading.by_hand.is_empty());
    let row = Place::Quirk("HQ128".to_owned());
    assert!(reading.notes.iter().any(|note| note.place == row));
}

#[test]
fn the_guest_type_a_person_picks_in_virt_manager_decides_disk_bus_and_adapter() {
    let kvm = product(KVM);
    let lab = LabFile::of_the_report();
    let mut package = Package {
        disks: vec!["vm.img".to_owned()],
        ..Package::default()
    };
    package.put("vm.img", disk());
    // The list has an entry for the family of CentOS 6 and none for Ubuntu 12.04, which is left with the generic one.
    let expected = [
        ("centos-6.3", "virtio-blk", "virtio-net"),
        ("ubuntu-12.04", "piix3-ide", "rtl8139"),
    ];
    for (guest, controller, nic) in expected {
        let operator = Operator {
            guest: guest.to_owned(),
            ..operator()
        };
        let reading = importer::virt_manager_import(&kvm.facts(), &package, &operator).unwrap();
        let row = Place::Quirk("HQ59".to_owned());
        assert!(
            reading.notes.iter().any(|note| note.place == row),
            "{guest}"
        );
        let draws = console::Draws { mac: 1, uuid: 1 };
        let host = lab.host_of(&kvm.id).unwrap();
        let made = console::create(&kvm.facts(), host, &reading.request, draws).unwrap();
        let at = usize::try_from(made.machine.disks[0].controller).unwrap();
        let found = (
            made.machine.controllers[at].model.as_str(),
            made.machine.nics[0].model.as_str(),
        );
        assert_eq!(found, (controller, nic), "{guest}");
    }
}

struct Beside<'a>(&'a Package, &'a str);

impl Resolver for Beside<'_> {
    fn resolve(&self, reference: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
        self.0
            .file(&format!("{}{}", self.1, reference.name))
            .cloned()
    }
}

#[test]
fn a_disk_on_a_datastore_opens_through_its_descriptor_also_when_it_stands_in_a_folder() {
    let hosted = convert(
        &disk(),
        &Target::VmdkSparse(drylab_image::VmdkOptions::default()),
    );
    let hosted = hosted.unwrap();
    for folder in ["", "Virtual Hard Disks/"] {
        let mut package = Package {
            disks: vec![format!("{folder}vm.vmdk")],
            ..Package::default()
        };
        package.put(package.disks[0].clone(), hosted.clone());
        let cloned = datastore::vmkfstools_clone(&package).unwrap();
        let descriptor = cloned.files[&cloned.disks[0]].clone();
        let beside = Beside(&cloned, folder);
        let image = drylab_image::open_with(descriptor, &beside, &Limits::DEFAULT).unwrap();
        assert_eq!(content_id(&image), content_id(&disk()), "{folder:?}");
        assert_eq!(image.info().detail("ddb.adapterType"), Some("lsilogic"));
    }
}
