//! Import of XenServer's own export: records of the machine, and its disks in blocks.

use super::{Verdict, clock, plan};
use crate::console::{DiskRequest, Mode, NicRequest, Request};
use crate::exporter::TIME_OFFSET;
use crate::facts::Facts;
use crate::importer::{Operator, ReadError, Reading, Remark, limits, refused};
use drylab_appliance::Package;
use drylab_appliance::xva::{Machine, Xva, is_version_1};
use drylab_block::{Limits, ReadAt, Result as BlockResult};
use drylab_catalog::Witness;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is known around an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XvaOptions {
    /// `preserve=true`: addresses and the seed they come from are kept.
    pub preserve: bool,
    /// Seeds of the machines that the pool has.
    pub seeds: BTreeSet<String>,
    /// Vendors of the processors of the exporting host and of this one, where they are known.
    pub vendors: Option<(String, String)>,
}

/// The package with the disks inside its archive as files of their own, named as in the archive; [`DiskPlan::file`]
/// of [`xencenter_import_xva`] names them so.
///
/// [`DiskPlan::file`]: crate::importer::DiskPlan::file
///
/// # Errors
/// What [`Xva::open`] finds; a package without a descriptor.
pub fn xva_opened(package: &Package) -> BlockResult<Package> {
    let archive = Xva::open(package.file(&package.descriptor)?.clone(), &Limits::DEFAULT)?;
    let mut opened = package.clone();
    opened.disks.clear();
    for disk in archive.disks {
        opened.disks.push(disk.id().to_owned());
        opened.put(disk.id().to_owned(), Arc::new(disk));
    }
    Ok(opened)
}

/// XenCenter: File, Import, of an `.xva` file; the package's descriptor.
///
/// # Errors
/// [`ReadError`].
pub fn xencenter_import_xva(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
    options: &XvaOptions,
) -> Result<Reading, ReadError> {
    let name = &package.descriptor;
    let file = package.file(name).map_err(|error| refused(name, error))?;
    let archive =
        Xva::open(file.clone(), &Limits::DEFAULT).map_err(|error| opens_not(name, file, &error))?;
    let machine = archive
        .appliance
        .machine()
        .map_err(|error| refused(name, error))?;
    let mut remarks = Vec::new();
    for message in archive
        .verify()
        .map_err(|error| refused(name, error))?
        .into_iter()
        .map(|finding| finding.message)
    {
        remarks.push(Remark::refused(vec![Witness::descriptor(
            name.clone(),
            message,
        )]));
    }
    remarks.extend(clashes(facts, name, &machine, operator, options)?);
    let redrawn = facts.text("mac.on-import")?;
    let keeps = options.preserve || redrawn.value != "redrawn";
    let nics = machine.nics.iter().map(|nic| NicRequest {
        model: None,
        mac: nic.mac.parse().ok().filter(|_| keeps),
        network: None,
    });
    let nics = nics.collect();
    let (mut plans, mut sizes) = (Vec::new(), Vec::new());
    for disk in machine
        .boot_order()
        .iter()
        .filter_map(|drive| drive.disk.as_ref())
    {
        plans.push(plan(&disk.id, disk.size, Some("raw")));
        sizes.push(DiskRequest {
            bytes: disk.size,
            controller: None,
        });
    }
    let mode = if machine.is_hvm() {
        Mode::Hvm
    } else {
        Mode::Paravirtual
    };
    let request = Request {
        name: machine.name.clone(),
        guest: operator.guest.clone(),
        vcpus: machine.vcpus_max,
        memory_mib: machine.memory_static_max.div_ceil(1 << 20),
        disks: sizes,
        nics,
        uuid: None,
        mac_seed: machine.mac_seed().filter(|_| keeps).map(str::to_owned),
        clock: machine.platform(TIME_OFFSET).map(clock),
        mode: Some(mode),
    };
    limits::disks(facts, name, &request, &mut remarks)?;
    let says = if keeps {
        "addresses are preserved"
    } else {
        "addresses are not preserved"
    };
    let place = Witness::descriptor(name.clone(), says);
    Ok(Reading {
        remarks,
        request,
        disks: plans,
        by_hand: Vec::new(),
        mac: [vec![place], redrawn.chain()].concat(),
        notes: vec![Witness::descriptor(
            name.clone(),
            format!("boots {}", mode.words()),
        )],
        needs: Vec::new(),
    })
}

/// What keeps an archive from being opened; that of an older version has a quirk of its own.
fn opens_not(name: &str, file: &Arc<dyn ReadAt>, error: &drylab_block::Error) -> ReadError {
    let place = Witness::descriptor(name, error.to_string());
    let quirk = is_version_1(file, &Limits::DEFAULT).then(|| Witness::quirk("GQ141"));
    ReadError::Refused(std::iter::once(place).chain(quirk).collect())
}

/// A seed that is there already, and processors of another vendor.
fn clashes(
    facts: &Facts<'_>,
    name: &str,
    machine: &Machine,
    operator: &Operator,
    options: &XvaOptions,
) -> Result<Vec<Remark>, ReadError> {
    let mut remarks = Vec::new();
    if let Some(seed) = machine.mac_seed()
        && options.preserve
        && options.seeds.contains(seed)
    {
        let says = format!("mac_seed {seed} is in the pool");
        let place = Witness::descriptor(name, says);
        remarks.push(Remark::refused(vec![place, Witness::quirk("HQ97")]));
    }
    if let Some((from, to)) = &options.vendors
        && from != to
    {
        let says = format!("{} from {from} to {to}", operator.guest);
        let model = facts.text("cpu.model")?.witness;
        remarks.push(Remark {
            verdict: Verdict::Warned,
            witness: vec![
                Witness::descriptor(name, says),
                Witness::quirk("HQ96"),
                Witness::quirk("GQ142"),
                model,
            ],
        });
    }
    Ok(remarks)
}
