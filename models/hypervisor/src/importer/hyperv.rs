//! Hyper-V Manager: Import of its own export folder, and New Virtual Machine around an existing VHD.

use super::{DiskPlan, Operator, ReadError, Reading, Remark, Stored, damage, limits, refused};
use crate::console::{DiskRequest, NicRequest, Request, mac_pool};
use crate::facts::Facts;
use crate::lab::Host;
use drylab_appliance::Package;
use drylab_appliance::hyperv::{self, Bus, Nic, State};
use drylab_block::{Error, Limits, ReadAt, Reference, Resolver, Result as BlockResult, Severity};
use drylab_catalog::{Mac, Witness};
use drylab_image::profile::HYPER_V_2008_R2;
use drylab_image::vhd::is_child;
use drylab_image::{Finding, Format, Image, Options, VhdSize, detect, open_as, open_vhd, vhd};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Adapter and controller of the synthetic bus, and the emulated adapter: keys of the device catalogue.
const SYNTHETIC_NIC: &str = "hyperv-nic";
const SYNTHETIC_SCSI: &str = "hyperv-scsi";
const LEGACY_NIC: &str = "dec21140";
/// What a child says of its parent's id does not hold.
const PARENT_ID: &str = "VHD-PARENT-ID";
/// What a fact of the product decides, and not its profile.
const DATA_OFFSET: &str = "VHD-HEADER-DATA-OFFSET";
/// What an adapter is connected to that lost its network.
const UNCONNECTED: &str = "not connected";

/// Import Virtual Machine, of a folder that Export wrote and nobody imported yet. The files stay where they are.
///
/// `host` is the importing one: dynamic addresses of another host's pool are drawn anew at the first start.
///
/// # Errors
/// [`ReadError`].
pub fn hyperv_import(
    facts: &Facts<'_>,
    host: &Host,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let name = &package.descriptor;
    let folder = hyperv::Folder::open(package, &Limits::DEFAULT).map_err(|error| {
        let place = Witness::descriptor(name.clone(), error.to_string());
        ReadError::Refused(vec![place, Witness::quirk("HQ70")])
    })?;
    if folder.state == State::Imported {
        let place = Witness::descriptor(name.clone(), "the folder was imported before");
        return Err(ReadError::Refused(vec![place, Witness::quirk("HQ77")]));
    }
    let broken = folder
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error);
    if let Some(finding) = broken {
        return Err(refused(name, &finding.message));
    }
    let mut remarks = Vec::new();
    let (plans, disks) = drives(facts, package, &folder, &mut remarks)?;
    let (mut nics, mut mac) = (Vec::new(), Vec::new());
    for nic in &folder.machine.nics {
        nics.push(adapter(facts, host, name, nic, (&mut remarks, &mut mac))?);
    }
    let machine = folder.machine;
    let request = Request {
        name: machine.name,
        guest: operator.guest.clone(),
        vcpus: machine.processors,
        memory_mib: machine.memory_mib,
        disks,
        nics,
        uuid: Some(machine.id.to_ascii_lowercase()),
        mac_seed: None,
        clock: None,
        mode: None,
    };
    limits::disks(facts, name, &request, &mut remarks)?;
    Ok(Reading {
        remarks,
        request,
        disks: plans,
        by_hand: Vec::new(),
        mac,
        notes: vec![Witness::quirk("HQ77")],
        needs: Vec::new(),
    })
}

type Drives = (Vec<DiskPlan>, Vec<DiskRequest>);

/// Disks, those on IDE first.
fn drives(
    facts: &Facts<'_>,
    package: &Package,
    folder: &hyperv::Folder,
    remarks: &mut Vec<Remark>,
) -> Result<Drives, ReadError> {
    let emulated = facts.text("cdrom.controller")?.value;
    let (mut plans, mut disks) = (Vec::new(), Vec::new());
    let drives = folder.machine.drives.iter().filter(|drive| !drive.is_cd);
    for (drive, file) in drives.zip(&folder.disks) {
        let file = file
            .as_deref()
            .ok_or_else(|| refused(&drive.path, "the disk is not in the folder"))?;
        let (plan, bytes) = vhd_of(package, file, remarks)?;
        plans.push(plan);
        disks.push(DiskRequest {
            bytes,
            controller: Some(match drive.bus {
                Bus::Ide => emulated.to_owned(),
                Bus::Scsi => SYNTHETIC_SCSI.to_owned(),
            }),
        });
    }
    Ok((plans, disks))
}

/// The package with what a guest sees on each chain of VHDs as a file of its own; [`DiskPlan::file`] of
/// [`hyperv_import`] and [`hyperv_new_machine`] names them so.
///
/// # Errors
/// What following a chain finds: [`Error::Io`](drylab_block::Error::Io) when a parent is not in the package.
pub fn hyperv_opened(package: &Package) -> BlockResult<Package> {
    let mut opened = package.clone();
    for disk in &package.disks {
        if package.files.get(disk).is_some_and(|file| is_child(file)) {
            let (whole, _) = chain(package, disk)?;
            opened.put(whole_name(disk), Arc::new(whole));
        }
    }
    Ok(opened)
}

fn whole_name(file: &str) -> String {
    format!("{file} with its parents")
}

/// Files of a package in one folder, and how many bytes those have that were asked for.
struct Beside<'a> {
    package: &'a Package,
    folder: &'a str,
    bytes: Mutex<BTreeMap<String, u64>>,
}

impl Resolver for Beside<'_> {
    fn resolve(&self, reference: &Reference) -> BlockResult<Arc<dyn ReadAt>> {
        let name = match self.folder {
            "" => reference.name.clone(),
            folder => format!("{folder}/{}", reference.name),
        };
        let file = self.package.file(&name)?.clone();
        if let Ok(mut bytes) = self.bytes.lock() {
            bytes.insert(name, file.len());
        }
        Ok(file)
    }
}

/// What a guest sees on a chain of VHDs, and how long its files are together: each parent is looked for beside its child,
/// and only the one that the child was made from is taken.
fn chain(package: &Package, file: &str) -> BlockResult<(Image, u64)> {
    let newest = package.file(file)?.clone();
    let beside = Beside {
        package,
        folder: file.rsplit_once('/').map_or("", |(folder, _)| folder),
        bytes: Mutex::new(BTreeMap::from([(file.to_owned(), newest.len())])),
    };
    let options = Options {
        resolver: &beside,
        vhd_size: VhdSize::Current,
        ..Options::DEFAULT
    };
    let image = open_as(newest, &options)?;
    let of_another = |finding: &&Finding| finding.rule.code == PARENT_ID;
    if let Some(finding) = image.info().findings.list().iter().find(of_another) {
        return Err(Error::corrupt(finding.message()));
    }
    let bytes = beside.bytes.into_inner().unwrap_or_default();
    let sum = bytes
        .values()
        .fold(0u64, |sum, more| sum.saturating_add(*more));
    Ok((image, sum))
}

/// A VHD left as it came, with the size Hyper-V gives the guest; one with parents needs them beside it.
fn vhd_of(
    package: &Package,
    file: &str,
    remarks: &mut Vec<Remark>,
) -> Result<(DiskPlan, u64), ReadError> {
    let mut react =
        |image: &Image| damage::react_but(&HYPER_V_2008_R2, file, image, &[DATA_OFFSET], remarks);
    let bytes = package.file(file).map_err(|error| refused(file, error))?;
    if is_child(bytes) {
        let (whole, bytes) = chain(package, file).map_err(|error| {
            let place = Witness::descriptor(file, error.to_string());
            ReadError::Refused(vec![place, Witness::quirk("GQ143")])
        })?;
        react(&whole)?;
        let plan = DiskPlan {
            file: whole_name(file),
            declared_format: Some("raw".to_owned()),
            stored: Stored::AsIs,
            bytes,
        };
        return Ok((plan, whole.virtual_size()));
    }
    let image = open_vhd(bytes.clone(), VhdSize::Current, &Limits::DEFAULT)
        .map_err(|error| refused(file, error))?;
    react(&image)?;
    let plan = DiskPlan {
        file: file.to_owned(),
        declared_format: Some("vhd".to_owned()),
        stored: Stored::AsIs,
        bytes: bytes.len(),
    };
    Ok((plan, image.virtual_size()))
}

/// An adapter of the folder: its kind stays; its network is looked for by name; its address stays when somebody typed it
/// or it is of this host's pool.
fn adapter(
    facts: &Facts<'_>,
    host: &Host,
    name: &str,
    nic: &Nic,
    (remarks, why): (&mut Vec<Remark>, &mut Vec<Witness>),
) -> Result<NicRequest, ReadError> {
    let own = facts.text("network.name")?;
    let is_there = nic.network == own.value;
    if !is_there && !nic.network.is_empty() {
        let says = format!("adapter {:?} was on {:?}", nic.name, nic.network);
        let place = Witness::descriptor(name, says);
        remarks.push(Remark::warned(vec![
            place,
            Witness::quirk("HQ78"),
            own.witness,
        ]));
    }
    let pool = mac_pool(facts, host)?;
    let is_kept =
        |mac: &Mac| nic.is_static || pool.as_ref().is_none_or(|pool| pool.value.contains(*mac));
    let written = nic.mac.map(Mac);
    let mac = written.filter(is_kept);
    let says = match (written, mac) {
        (None, _) => "no address was drawn yet".to_owned(),
        (Some(mac), None) => format!("dynamic address {mac} is not of host {}", host.name),
        (Some(mac), Some(_)) if nic.is_static => format!("static address {mac}"),
        (Some(mac), Some(_)) => format!("dynamic address {mac} is of host {}", host.name),
    };
    why.push(Witness::descriptor(name, says));
    why.extend(["HQ75", "GQ19"].map(Witness::quirk));
    Ok(NicRequest {
        model: Some(
            if nic.is_legacy {
                LEGACY_NIC
            } else {
                SYNTHETIC_NIC
            }
            .to_owned(),
        ),
        mac,
        network: (!is_there).then(|| UNCONNECTED.to_owned()),
    })
}

/// New Virtual Machine, Use an existing virtual hard disk: a person makes the machine, with the disk on IDE 0:0.
///
/// # Errors
/// [`ReadError`].
pub fn hyperv_new_machine(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let formats = facts.list("disk.formats")?;
    let drawn = facts.text("mac.on-import")?;
    let (mut plans, mut sizes, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for name in &package.disks {
        let file = package.file(name).map_err(|error| refused(name, error))?;
        let format = detect(file).map_err(|error| refused(name, error))?.format;
        if format != Format::Vhd || !formats.value.contains(&format.name()) {
            let says = format!("{} image", format.name());
            let mut why = vec![Witness::descriptor(name.clone(), says)];
            why.extend(formats.chain());
            return Err(ReadError::Refused(why));
        }
        remarks.extend(header(facts, name, file)?);
        let (plan, size) = vhd_of(package, name, &mut remarks)?;
        plans.push(plan);
        sizes.push(size);
    }
    let machine = (operator.vcpus, operator.memory_mib);
    let request = Request::plain(&operator.name, &operator.guest, machine, &sizes);
    let place = package.disks.first().map_or("disk", String::as_str);
    limits::disks(facts, place, &request, &mut remarks)?;
    Ok(Reading {
        remarks,
        request,
        disks: plans,
        by_hand: vec![Witness::quirk("HQ70")],
        mac: drawn.chain(),
        notes: Vec::new(),
        needs: Vec::new(),
    })
}

/// The dynamic header's data offset, 64 bits at byte 8 (VHD specification 1.0): all of them should be set.
fn header(
    facts: &Facts<'_>,
    name: &str,
    file: &Arc<dyn ReadAt>,
) -> Result<Option<Remark>, ReadError> {
    let wrong = |error: drylab_block::Error| refused(name, error);
    let (footer, _) = vhd::footer(file).map_err(wrong)?;
    if footer.kind == vhd::Kind::Fixed {
        return Ok(None);
    }
    let mut offset = [0u8; 8];
    let at = footer.data_offset.saturating_add(8);
    file.read_at(at, &mut offset).map_err(wrong)?;
    let checked = facts.flag("vhd.data-offset-is-checked")?;
    if offset == [0xff; 8] || !checked.value {
        return Ok(None);
    }
    let says = format!(
        "data offset {:#018x} at byte {at}",
        u64::from_be_bytes(offset)
    );
    let mut witness = vec![Witness::descriptor(name, says), Witness::quirk("GQ107")];
    witness.extend(checked.chain());
    Ok(Some(Remark::refused(witness)))
}
