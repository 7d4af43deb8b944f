//! XenCenter: File, Import, of an OVF package, of a disk image, and of XenServer's own export.

mod devices;
mod disk;
mod xva;

pub use disk::xencenter_import_disk;
pub use xva::{XvaOptions, xencenter_import_xva, xva_opened};

use super::{
    DiskPlan, Operator, ReadError, Reading, Remark, Stored, Verdict, damage, differing, limits,
    refused,
};
use crate::console::{DiskRequest, Mode, NicRequest, Request};
use crate::exporter::TIME_OFFSET;
use crate::facts::{Facts, Missing};
use crate::need::{Need, transfer_vm};
use devices::{Drives, drives};
use drylab_appliance::Package;
use drylab_appliance::manifest::Manifest;
use drylab_appliance::ovf::{self, Envelope, Hardware, Item, VirtualSystem, resource};
use drylab_block::{Limits, ReadAt};
use drylab_catalog::{Clock, Mac, Witness};
use drylab_image::profile::XEN_SERVER;
use drylab_image::{Format, Image, VhdSize, detect, open, open_vhd, vhd::is_child};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a person ticks and types in the wizard for OVF packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OvfOptions {
    /// Use Operating System Fixup.
    pub fixup: bool,
    /// Verify manifest content.
    pub verify_manifest: bool,
    /// The pass phrase of an encrypted package is known.
    pub has_pass_phrase: bool,
}

/// Reads an OVF package as the wizard and its library do. No template is used: what the package does not say of the
/// machine comes from settings of the library.
///
/// # Errors
/// [`ReadError::Refused`] where the import ends by an exception; [`ReadError::Missing`].
pub fn xencenter_import_ovf(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
    options: OvfOptions,
) -> Result<Reading, ReadError> {
    let limits_of_text = &Limits::DEFAULT;
    let name = &package.descriptor;
    let text = package
        .text(name, limits_of_text)
        .map_err(|error| refused(name, error))?;
    let envelope = ovf::parse(&text, limits_of_text).map_err(|error| refused(name, error))?;
    let mut remarks = Vec::new();
    // Several machines are imported one after the other; the lab moves one.
    let system = envelope
        .systems
        .first()
        .ok_or_else(|| refused(name, "no virtual system"))?;
    let hardware = system
        .hardware
        .first()
        .ok_or_else(|| refused(name, format_args!("line {}: no hardware", system.line)))?;
    versions(facts, name, &envelope, hardware, &mut remarks)?;
    locks(package, &envelope, options, &mut remarks)?;
    let mut notes = Vec::new();
    let memory_mib = memory(facts, name, hardware, &mut notes)?;
    let mode = mode(name, hardware, &mut notes);
    let placed = drives(facts, name, &envelope, hardware, mode)?;
    let (nics, mac) = adapters(facts, name, hardware, &mut remarks, &mut notes)?;
    let (disks, sizes) = images(package, &placed, &mut remarks)?;
    notes.extend(placed.notes);
    remarks.extend(placed.remarks);
    notes.push(Witness::quirk(if options.fixup {
        "DQ427"
    } else {
        "GQ139"
    }));
    let request = Request {
        name: name_of(system, operator),
        // No template: only what it would say of the clock is asked for.
        guest: "other".to_owned(),
        vcpus: processors(hardware),
        memory_mib,
        disks: sizes,
        nics,
        uuid: None,
        mac_seed: None,
        clock: hardware
            .other("platform")
            .and_then(|pairs| {
                pairs
                    .split(';')
                    .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == TIME_OFFSET))
            })
            .map(|(_, offset)| clock(offset)),
        mode: Some(mode),
    };
    limits::disks(facts, name, &request, &mut remarks)?;
    let needs = needs(facts, &disks)?;
    Ok(Reading {
        remarks,
        request,
        disks,
        by_hand: Vec::new(),
        mac,
        notes,
        needs,
    })
}

/// The clock chip of a machine whose platform tells an offset: none is UTC.
fn clock(offset: &str) -> Clock {
    if offset.trim() == "0" {
        Clock::Utc
    } else {
        Clock::Localtime
    }
}

fn name_of(system: &VirtualSystem, operator: &Operator) -> String {
    let written = [system.name.as_deref(), Some(system.id.as_str())];
    let found = written.into_iter().flatten().find(|name| !name.is_empty());
    found.unwrap_or(&operator.name).to_owned()
}

/// The version of the envelope and the hardware family: warnings, and one reference to nothing.
fn versions(
    facts: &Facts<'_>,
    name: &str,
    envelope: &Envelope,
    hardware: &Hardware,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    let mut warn = |says: String, chain: Vec<Witness>| {
        let place = Witness::descriptor(name, says);
        remarks.push(Remark::warned([vec![place], chain].concat()));
    };
    let versions = facts.list("ovf.versions")?;
    if let Some(version) = &envelope.version
        && !versions.value.contains(&version.as_str())
    {
        warn(format!("ovf:version {version:?}"), versions.chain());
    }
    if hardware.identifier.is_none() {
        return Ok(());
    }
    let Some(family) = hardware.system_type.as_deref() else {
        let says = format!("line {}: no VirtualSystemType", hardware.line);
        return Err(ReadError::Refused(vec![
            Witness::descriptor(name, says),
            Witness::quirk("HQ17"),
        ]));
    };
    let known = facts.list("ovf.known-types")?;
    if !known.value.contains(&family) {
        let says = format!("line {}: hardware family {family:?}", hardware.line);
        warn(says, known.chain());
    }
    Ok(())
}

/// Manifest and encryption.
fn locks(
    package: &Package,
    envelope: &Envelope,
    options: OvfOptions,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    let name = &package.descriptor;
    let encrypted = envelope
        .sections
        .iter()
        .find(|section| section.name == "SecuritySection");
    if let Some(section) = encrypted.filter(|_| !options.has_pass_phrase) {
        let says = format!("line {}: files are encrypted", section.line);
        let place = Witness::descriptor(name.clone(), says);
        remarks.push(Remark::refused(vec![place, Witness::quirk("HQ95")]));
    }
    let manifest = package.files.keys().find(|name| name.ends_with(".mf"));
    let Some(file) = manifest.filter(|_| options.verify_manifest) else {
        return Ok(());
    };
    let text = package
        .text(file, &Limits::DEFAULT)
        .map_err(|error| refused(file, error))?;
    let manifest =
        Manifest::parse(&text, &Limits::DEFAULT).map_err(|error| refused(file, error))?;
    for message in differing(package, file, &manifest)? {
        let place = Witness::descriptor(file.clone(), message);
        remarks.push(Remark::refused(vec![place, Witness::quirk("DQ428")]));
    }
    Ok(())
}

/// Memory in MiB, rounded up from bytes: a unit that begins with `bytes` is read, every other one means MB.
fn memory(
    facts: &Facts<'_>,
    name: &str,
    hardware: &Hardware,
    notes: &mut Vec<Witness>,
) -> Result<u64, ReadError> {
    let is_memory = |item: &&Item| item.resource_type == resource::MEMORY;
    let items: Vec<&Item> = hardware.items.iter().filter(is_memory).collect();
    if items.is_empty() {
        let default = facts.number("ovf.memory-default-mib")?;
        notes.push(Witness::descriptor(name, "no memory item"));
        notes.extend(default.chain());
        return Ok(default.value);
    }
    let mut bytes = 0u64;
    for item in items {
        let place = |says: String| Witness::descriptor(name, format!("line {}: {says}", item.line));
        let Some(units) = item.allocation_units.as_deref() else {
            let why = vec![
                place("memory without AllocationUnits".to_owned()),
                Witness::quirk("HQ14"),
            ];
            return Err(ReadError::Refused(why));
        };
        let quantity = item.virtual_quantity.ok_or_else(|| {
            refused(
                name,
                format_args!("line {}: memory without a quantity", item.line),
            )
        })?;
        let unit = plural_bytes(units).unwrap_or(1 << 20);
        if drylab_appliance::units::to_bytes(
            quantity,
            Some(units),
            drylab_appliance::units::Absent::MebiByte,
        )
        .ok()
        .and_then(|amount| amount.bytes64())
            != quantity.checked_mul(unit)
        {
            notes.push(place(format!("{quantity} in units of {units:?}")));
            notes.push(Witness::quirk("HQ13"));
        }
        bytes = bytes.saturating_add(quantity.saturating_mul(unit));
    }
    Ok(bytes.div_ceil(1 << 20))
}

/// `bytes * 2 ^ 30`: three parts behind the plural, base and power.
fn plural_bytes(units: &str) -> Option<u64> {
    if !units.to_ascii_lowercase().starts_with("bytes") {
        return None;
    }
    let parts: Vec<&str> = units.split(['*', '^']).map(str::trim).collect();
    let [_, base, power] = parts.as_slice() else {
        return None;
    };
    base.parse::<u64>().ok()?.checked_pow(power.parse().ok()?)
}

/// Each processor item counts its quantity.
fn processors(hardware: &Hardware) -> u32 {
    let is_cpu = |item: &&Item| item.resource_type == resource::CPU;
    let mut items = hardware.items.iter().filter(is_cpu).peekable();
    if items.peek().is_none() {
        return 1;
    }
    let sum = items.fold(0u64, |sum, item| {
        sum.saturating_add(item.virtual_quantity.unwrap_or(0))
    });
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// Paravirtual only when the package says so in Citrix' own elements.
fn mode(name: &str, hardware: &Hardware, notes: &mut Vec<Witness>) -> Mode {
    let Some(first) = hardware.other_configuration.first() else {
        let says = "no VirtualSystemOtherConfigurationData";
        notes.push(Witness::descriptor(name, says));
        notes.push(Witness::quirk("HQ16"));
        return Mode::Hvm;
    };
    let has = |key: &str| hardware.other(key).is_some_and(|value| !value.is_empty());
    let mode = if has("HVM_boot_policy") {
        Mode::Hvm
    } else {
        Mode::Paravirtual
    };
    let says = format!("line {}: boots {}", first.line, mode.words());
    notes.push(Witness::descriptor(name, says));
    mode
}

/// Adapters in order with their addresses, and why they are what they are.
fn adapters(
    facts: &Facts<'_>,
    name: &str,
    hardware: &Hardware,
    remarks: &mut Vec<Remark>,
    notes: &mut Vec<Witness>,
) -> Result<(Vec<NicRequest>, Vec<Witness>), ReadError> {
    let own = facts.text("network.name")?;
    let rule = facts.text("mac.ovf-address")?;
    let is_nic = |item: &&Item| item.resource_type == resource::ETHERNET;
    let (mut nics, mut networks, mut mac) = (Vec::new(), BTreeSet::new(), Vec::new());
    for item in hardware.items.iter().filter(is_nic) {
        let place = |says: String| Witness::descriptor(name, format!("line {}: {says}", item.line));
        let network = item.connection.first().map_or("", |text| text.trim());
        if network.is_empty() {
            let witness = vec![
                place("an adapter without a Connection".to_owned()),
                Witness::quirk("HQ87"),
            ];
            remarks.push(Remark::refused(witness));
        } else {
            networks.insert(network);
        }
        let address = item.address.as_deref().filter(|text| !text.is_empty());
        let written = match address.filter(|_| rule.value == "verbatim") {
            None => {
                mac.push(place("an adapter without an Address".to_owned()));
                None
            }
            Some(text) => {
                mac.push(place(format!("rasd:Address {text}")));
                Some(verbatim(text).ok_or_else(|| {
                    refused(
                        name,
                        format_args!("line {}: {text:?} is no address", item.line),
                    )
                })?)
            }
        };
        nics.push(NicRequest {
            model: None,
            mac: written,
            network: None,
        });
    }
    mac.extend(rule.chain());
    networks.remove(own.value);
    if let Some(first) = networks.first() {
        let bridge = facts.text("network.bridge")?;
        let says = format!("network {first:?} becomes that of {}", bridge.value);
        notes.push(Witness::descriptor(name, says));
        notes.extend(bridge.chain());
    }
    if networks.len() > 1 {
        let says = format!("{} networks become one", networks.len());
        let place = Witness::descriptor(name, says);
        remarks.push(Remark::warned(vec![place, Witness::quirk("HQ88")]));
    }
    Ok((nics, mac))
}

/// An address as written; colons are put between pairs of digits when there are none.
fn verbatim(text: &str) -> Option<Mac> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let digits: Vec<char> = text.chars().collect();
    let pairs: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    pairs.join(":").parse().ok()
}

/// The images of the drives, as the library opens them: of a VHD its current size counts.
fn images(
    package: &Package,
    placed: &Drives,
    remarks: &mut Vec<Remark>,
) -> Result<(Vec<DiskPlan>, Vec<DiskRequest>), ReadError> {
    let (mut plans, mut sizes) = (Vec::new(), Vec::new());
    for file in &placed.files {
        let bytes = package
            .file(file)
            .map_err(|error| refused(&package.descriptor, error))?;
        let image = image(file, bytes, remarks)?;
        plans.push(plan(
            file,
            image.virtual_size(),
            Some(image.format().name()),
        ));
        sizes.push(DiskRequest {
            bytes: image.virtual_size(),
            controller: None,
        });
    }
    Ok((plans, sizes))
}

fn image(
    name: &str,
    file: &Arc<dyn ReadAt>,
    remarks: &mut Vec<Remark>,
) -> Result<Image, ReadError> {
    let found = detect(file).map_err(|error| refused(name, error))?;
    let image = match found.format {
        Format::Vhd => open_vhd(file.clone(), VhdSize::Current, &Limits::DEFAULT),
        _ => open(file.clone(), &Limits::DEFAULT),
    };
    let image = image.map_err(|error| match is_child(file) {
        true => ReadError::Refused(vec![
            Witness::descriptor(name, error.to_string()),
            Witness::quirk("GQ143"),
        ]),
        false => refused(name, error),
    })?;
    damage::react(&XEN_SERVER, name, &image, remarks)?;
    Ok(image)
}

/// A disk on the default store takes its whole size.
fn plan(file: &str, bytes: u64, format: Option<&str>) -> DiskPlan {
    DiskPlan {
        file: file.to_owned(),
        declared_format: format.map(str::to_owned),
        stored: Stored::Flat,
        bytes,
    }
}

/// The Transfer VM's lease, and room for one disk after the other.
fn needs(facts: &Facts<'_>, disks: &[DiskPlan]) -> Result<Vec<Need>, Missing> {
    let mut needs = transfer_vm(facts)?;
    needs.extend(disks.iter().map(|disk| Need::Room {
        file: disk.file.clone(),
        bytes: disk.bytes,
        why: vec![Witness::quirk("DQ429")],
    }));
    Ok(needs)
}
