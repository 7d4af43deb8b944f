//! Every fact of every product matters, or stands below with the reason why it is kept.
//!
//! A fact is taken away, and what the lab shows must change somewhere: in a run over some route, in one with a device
//! chosen by hand, or in the prediction for a disk that somebody brings. Only what read the fact is tried.

use crate::{every_way, library, scenario};
use drylab_appliance::Package;
use drylab_appliance::ova::write_ova;
use drylab_block::{ReadAt, SparseBytes};
use drylab_campaign::each;
use drylab_catalog::ProductId;
use drylab_catalog::device::{Class, device};
use drylab_hypervisor::console::{Draws, Request, create};
use drylab_hypervisor::exporter::{Exported, vsphere_export_ovf};
use drylab_hypervisor::importer::{Operator, vsphere_deploy_ovf};
use drylab_kernel::Trace;
use drylab_pipeline::{Check, Library, SourceDisk, predict, predict_package, run};
use drylab_scenario::{Edit, Scenario, TargetNetwork};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Facts that change nothing that can be seen, and why they are kept.
const UNUSED: &[(&str, &str)] = &[];

/// One look at the lab.
enum Look {
    Run(Box<Scenario>),
    /// The disk of this scenario, brought to a product.
    Disk(Box<Scenario>, ProductId),
    /// The same in a container, or as an appliance, for the product's importers.
    Brought(Box<Scenario>, ProductId, &'static str),
    /// A machine with this device, exported as an appliance and deployed again: scenarios begin with console defaults.
    Exported(Box<Scenario>, ProductId, String),
}

/// What was seen, in words, and the facts that a run read (none are told for predictions).
type Seen = (String, BTreeSet<String>);

fn looks() -> Vec<Look> {
    let mut looks: Vec<Look> = every_way()
        .into_iter()
        .chain(by_hand())
        .map(Box::new)
        .map(Look::Run)
        .collect();
    let mut stranger = scenario("centos-6.3", "esx-v2v");
    stranger.edits = vec![Edit::Replace {
        path: "/etc/centos-release".to_owned(),
        from: "6.3".to_owned(),
        to: "5.8".to_owned(),
    }];
    for target in library().products.keys() {
        for disk in [scenario("centos-6.3", "esx-v2v"), stranger.clone()] {
            looks.push(Look::Disk(Box::new(disk.clone()), target.clone()));
            for descriptor in ["", BROKEN, COLLECTION, WITHOUT_MEMORY, ARCHIVED] {
                looks.push(Look::Brought(
                    Box::new(disk.clone()),
                    target.clone(),
                    descriptor,
                ));
            }
        }
        let models = library().products[target].facts.keys();
        for model in models.filter_map(|key| key.strip_prefix("ovf.name.")) {
            let disk = scenario("centos-6.3", "esx-v2v");
            looks.push(Look::Exported(
                Box::new(disk),
                target.clone(),
                model.to_owned(),
            ));
        }
    }
    looks
}

/// An appliance that is none.
const BROKEN: &str = "<Envelope/>";

/// Records of an archive of XenServer, which is a tar.
const ARCHIVED: &str = "<value><struct/></value>";

/// An appliance of two machines.
const COLLECTION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References/>
  <VirtualSystemCollection ovf:id="both">
    <Info>two machines</Info>
    <VirtualSystem ovf:id="one"><Info>one</Info></VirtualSystem>
    <VirtualSystem ovf:id="two"><Info>two</Info></VirtualSystem>
  </VirtualSystemCollection>
</Envelope>
"#;

/// An appliance that does not say how much memory its machine has.
const WITHOUT_MEMORY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
          xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References><File ovf:id="file1" ovf:href="machine.img"/></References>
  <DiskSection>
    <Info>disks</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="8589934592"/>
  </DiskSection>
  <VirtualSystem ovf:id="machine">
    <Info>one machine</Info>
    <VirtualHardwareSection>
      <Info>hardware</Info>
      <System>
        <vssd:ElementName>hardware</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>hvm-3.0-unknown</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:ElementName>processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>1</rasd:VirtualQuantity>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#;

/// A machine of the same name at the target, and every device a product has a slot for, chosen at the console.
fn by_hand() -> Vec<Scenario> {
    let mut all = every_way();
    all.iter_mut()
        .for_each(|scenario| scenario.lab.name_taken = true);
    let mut elsewhere = scenario("ubuntu-12.04", "esx-v2v");
    elsewhere.lab.target_network = TargetNetwork::OtherSubnet;
    all.push(elsewhere);
    for product in library().products.values() {
        let to = |route: &&drylab_pipeline::Route| {
            route.target == product.id && route.source != product.id
        };
        let routes: Vec<_> = library().routes.iter().filter(to).collect();
        for model in product
            .facts
            .keys()
            .filter_map(|key| key.strip_prefix("slot."))
        {
            for route in &routes {
                let mut chosen = scenario("ubuntu-12.04", &route.id);
                let class = device(model)
                    .unwrap_or_else(|| panic!("no device {model}"))
                    .class;
                match class {
                    Class::Net => chosen.target_vm.nic_model = Some(model.to_owned()),
                    Class::Ide | Class::Scsi | Class::Block => {
                        chosen.target_vm.controller = Some(model.to_owned())
                    }
                }
                all.push(chosen);
            }
        }
    }
    all
}

fn see(library: &Library, look: &Look) -> Seen {
    match look {
        Look::Run(scenario) => {
            let report = run(library, scenario, Trace::hashing_only())
                .expect("a scenario of the table runs");
            let words: Vec<String> = report.checks.iter().map(check_words).collect();
            (words.join("\n"), report.facts_used)
        }
        Look::Disk(of, target) => {
            let source = library.source_disk(of).expect("a golden disk");
            let found = predict(library, &source.disk, target).expect("a guest");
            (format!("{found:?}"), BTreeSet::new())
        }
        Look::Brought(of, target, descriptor) => {
            let source = library.source_disk(of).expect("a golden disk");
            let mut package = Package::default();
            package.put("machine.img", source.disk.bytes.clone());
            package.disks.push("machine.img".to_owned());
            if !descriptor.is_empty() {
                let bytes: Arc<dyn ReadAt> = match *descriptor {
                    ARCHIVED => {
                        let tar = SparseBytes::default();
                        let records = descriptor.as_bytes();
                        write_ova(&[("ova.xml".to_owned(), &records)], &tar).expect("a tar");
                        Arc::new(tar)
                    }
                    text => Arc::new(text.as_bytes()),
                };
                package.put("machine.ovf", bytes);
                package.descriptor = "machine.ovf".to_owned();
            }
            let found =
                predict_package(library, &source.disk, &package, target).expect("a known target");
            (format!("{found:?}"), BTreeSet::new())
        }
        Look::Exported(of, product, model) => {
            let source = library.source_disk(of).expect("a golden disk");
            (exported(library, &source, product, model), BTreeSet::new())
        }
    }
}

/// What an importer reads out of what the exporter of the same product wrote of a machine with a device, or why not.
fn exported(library: &Library, source: &SourceDisk, product: &ProductId, model: &str) -> String {
    let facts = library.products[product].facts();
    let host = library
        .lab
        .host_of(product)
        .expect("the lab has every product");
    let net = device(model).is_some_and(|device| device.class == Class::Net);
    let chosen = |wanted: bool| wanted.then(|| model.to_owned());
    let mut request = Request::plain(
        "exported",
        "centos-6.3",
        (1, 1024),
        &[source.disk.bytes.len()],
    );
    request.disks[0].controller = chosen(!net);
    request.nics[0].model = chosen(net);
    request.nics[0].mac = Some(source.mac);
    let made = match create(&facts, host, &request, Draws { mac: 1, uuid: 1 }) {
        Ok(made) => made,
        Err(missing) => return missing.to_string(),
    };
    let disks = [source.disk.bytes.clone()];
    let from = Exported {
        machine: &made.machine,
        guest: "centos-6.3",
        disks: &disks,
        mac_seed: None,
        snapshots: &[],
    };
    let package =
        match vsphere_export_ovf(&facts, &from, &|disk, target| library.convert(disk, target)) {
            Ok(package) => package,
            Err(error) => return format!("{error:?}"),
        };
    let operator = Operator {
        name: "exported".to_owned(),
        guest: "centos-6.3".to_owned(),
        vcpus: 1,
        memory_mib: 1024,
    };
    format!("{:?}", vsphere_deploy_ovf(&facts, &package, &operator))
}

fn check_words(check: &Check) -> String {
    let chain: Vec<String> = check
        .found
        .witness
        .iter()
        .map(ToString::to_string)
        .collect();
    format!(
        "{} {:?} {:?} {} {}",
        check.found.id,
        check.score,
        check.found.measure,
        check.found.after,
        chain.join("; ")
    )
}

/// Whether anything that may have read a fact shows something else without it.
fn matters(product: &ProductId, key: &str, looks: &[Look], seen: &[Seen]) -> bool {
    let name = format!("{product}/{key}");
    let mut without = Library::new();
    let facts = &mut without
        .products
        .get_mut(product)
        .expect("a known product")
        .facts;
    facts.remove(key).expect("a known fact");
    let may_have_read = |look: &Look, seen: &Seen| match look {
        Look::Run(_) => seen.1.contains(&name),
        Look::Disk(_, target) | Look::Brought(_, target, _) | Look::Exported(_, target, _) => {
            target == product
        }
    };
    looks
        .iter()
        .zip(seen)
        .filter(|(look, seen)| may_have_read(look, seen))
        .any(|(look, seen)| see(&without, look).0 != seen.0)
}

#[test]
fn every_fact_matters_or_is_reported_unused() {
    let looks = looks();
    let facts: Vec<(ProductId, String)> = library()
        .products
        .values()
        .flat_map(|product| {
            product
                .facts
                .keys()
                .map(|key| (product.id.clone(), key.clone()))
        })
        .collect();
    let count = |length: usize| u64::try_from(length).expect("a list in memory");
    let index = |index: u64| usize::try_from(index).expect("below a usize");
    let seen = each(
        count(looks.len()),
        2,
        |at| see(library(), &looks[index(at)]),
        |_| (),
    );
    let used = each(
        count(facts.len()),
        2,
        |at| {
            let (product, key) = &facts[index(at)];
            matters(product, key, &looks, &seen)
        },
        |_| (),
    );
    let unused: BTreeSet<String> = facts
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .map(|((product, key), _)| format!("{product}/{key}"))
        .collect();
    println!("of {} facts, unused: {unused:#?}", facts.len());
    let listed: BTreeSet<String> = UNUSED.iter().map(|(fact, _)| (*fact).to_owned()).collect();
    assert!(UNUSED.iter().all(|(_, reason)| !reason.is_empty()));
    assert_eq!(
        unused, listed,
        "facts that change nothing (left) and those listed as such (right)"
    );
}
