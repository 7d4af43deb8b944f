//! Products, machines and disks for the tests.

use drylab_appliance::Package;
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt};
use drylab_catalog::{Machine, Witness};
use drylab_hypervisor::console::{Draws, Made, Request, create};
use drylab_hypervisor::exporter::Exported;
use drylab_hypervisor::importer::{Operator, OvfOptions, ReadError, Reading, xencenter_import_ovf};
use drylab_hypervisor::{Host, LabFile, Product, products};
use drylab_image::{Target, write};
use std::sync::Arc;

pub(crate) const ESXI: &str = "esxi-5.0.0";
pub(crate) const XEN: &str = "xenserver-6.0.2";
pub(crate) const HYPERV: &str = "hyperv-2008r2";
pub(crate) const GUESTS: [&str; 3] = ["centos-6.3", "ubuntu-12.04", "windows-2008r2"];
/// The seed of a XenServer machine's addresses.
pub(crate) const SEED: &str = "5e1f0000-0000-4000-8000-000000000000";
/// Bytes of a test disk: no whole number of cylinders.
pub(crate) const SIZE: u64 = (1 << 30) + 512;

pub(crate) fn product(id: &str) -> Product {
    products().remove(&id.into()).expect("a known product")
}

pub(crate) fn host(id: &str) -> Host {
    let lab = LabFile::of_the_report();
    lab.host_of(&id.into()).expect("a host").clone()
}

pub(crate) fn make(id: &str, request: &Request, mac: u64) -> Made {
    let draws = Draws { mac, uuid: 5 };
    create(&product(id).facts(), &host(id), request, draws).expect("all facts")
}

pub(crate) fn machine(id: &str, guest: &str) -> Machine {
    let request = Request::plain("vm", guest, (2, 1026), &[SIZE]);
    make(id, &request, 0x0123_4567_89ab_cdef).machine
}

pub(crate) fn disk(bytes: u64) -> Arc<dyn ReadAt> {
    let disk = SparseBytes::new(bytes);
    disk.write_at(12_345, b"bytes of the guest")
        .expect("memory");
    disk.write_at(bytes - 9, b"last ones").expect("memory");
    Arc::new(disk)
}

pub(crate) fn convert(
    disk: &Arc<dyn ReadAt>,
    target: &Target,
) -> drylab_block::Result<Arc<dyn ReadAt>> {
    let sink = SparseBytes::default();
    write(disk, target, &sink)?;
    Ok(Arc::new(sink))
}

pub(crate) fn exported<'a>(
    machine: &'a Machine,
    guest: &'a str,
    disks: &'a [Arc<dyn ReadAt>],
) -> Exported<'a> {
    Exported {
        machine,
        guest,
        disks,
        mac_seed: Some(SEED),
        snapshots: &[],
    }
}

pub(crate) fn operator(guest: &str) -> Operator {
    Operator {
        name: "vm".to_owned(),
        guest: guest.to_owned(),
        vcpus: 2,
        memory_mib: 1026,
    }
}

pub(crate) fn text(package: &Package) -> String {
    let bytes = package
        .text(&package.descriptor, &Limits::DEFAULT)
        .expect("a descriptor");
    String::from_utf8(bytes).expect("UTF-8")
}

/// The package with its descriptor changed.
pub(crate) fn edited(package: &Package, edit: impl Fn(&str) -> String) -> Package {
    let mut changed = package.clone();
    let bytes = edit(&text(package)).into_bytes();
    changed.put(package.descriptor.clone(), Arc::new(bytes));
    changed
}

pub(crate) fn xencenter(package: &Package, options: OvfOptions) -> Result<Reading, ReadError> {
    let facts = product(XEN);
    xencenter_import_ovf(&facts.facts(), package, &operator("centos-6.3"), options)
}

pub(crate) fn cites<'w>(witness: impl IntoIterator<Item = &'w Witness>, id: &str) -> bool {
    let wanted = format!("{id}:");
    witness
        .into_iter()
        .any(|link| link.to_string().starts_with(&wanted))
}

/// Every witness of a reading, refused or not.
pub(crate) fn all(reading: &Result<Reading, ReadError>) -> Vec<Witness> {
    match reading {
        Err(ReadError::Refused(why)) => why.clone(),
        Err(ReadError::Missing(fact)) => panic!("{fact}"),
        Ok(reading) => {
            let remarks = reading.remarks.iter().flat_map(|remark| &remark.witness);
            let needs = reading.needs.iter().flat_map(|need| need.why());
            remarks
                .chain(&reading.notes)
                .chain(&reading.mac)
                .chain(&reading.by_hand)
                .chain(needs)
                .cloned()
                .collect()
        }
    }
}
