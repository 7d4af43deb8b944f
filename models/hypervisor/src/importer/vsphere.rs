//! vSphere Client: Deploy OVF Template, and Add to Inventory.

use super::{
    DiskPlan, Operator, ReadError, Reading, Remark, Stored, Verdict, damage, differing, refused,
};
use crate::console::{DiskRequest, NicRequest, Request};
use crate::exporter::VMX_NAMES;
use crate::facts::{Facts, Missing};
use drylab_appliance::manifest::Manifest;
use drylab_appliance::ovf::{self, Envelope, Item, VirtualSystem, resource};
use drylab_appliance::vmx::Vmx;
use drylab_appliance::{Package, units};
use drylab_block::{Error, Limits, ReadAt};
use drylab_catalog::{Mac, Witness};
use drylab_image::profile::ESXI;
use drylab_image::{Format, detect, open};
use std::sync::Arc;

/// Reads an OVF package as the wizard does: hardware family, sections, manifest, disk formats, then the devices.
///
/// # Errors
/// [`ReadError::Refused`] when it is no envelope of one machine; [`ReadError::Missing`].
pub fn vsphere_deploy_ovf(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let limits = &Limits::DEFAULT;
    let name = &package.descriptor;
    let text = package
        .text(name, limits)
        .map_err(|error| refused(name, error))?;
    let envelope = ovf::parse(&text, limits).map_err(|error| unread(name, &text, &error))?;
    typed_sections(name, &envelope)?;
    let mut remarks = Vec::new();
    let system = one_system(facts, name, &envelope)?;
    if system.hardware.is_empty() {
        let says = format!("line {}: no VirtualHardwareSection", system.line);
        return Err(ReadError::Refused(vec![
            Witness::descriptor(name, says),
            Witness::quirk("HQ28"),
        ]));
    }
    family(facts, name, system, &mut remarks)?;
    sections(name, &envelope, system, &mut remarks);
    of_citrix(facts, name, &envelope, system, &mut remarks)?;
    manifest(facts, package, &mut remarks)?;
    let disks = disks(facts, package, &envelope, system, &mut remarks)?;
    let items = system.items();
    let quantity = |kind: u16| {
        items
            .iter()
            .find(|item| item.resource_type == kind)
            .and_then(|item| item.virtual_quantity)
    };
    let memory = items
        .iter()
        .find(|item| item.resource_type == resource::MEMORY)
        .and_then(memory_mib);
    let vmw_type = system.os.as_ref().and_then(|os| os.vmw_os_type.as_deref());
    let mac = facts.text("mac.on-import")?;
    let known_guest = guest_of(facts, vmw_type);
    let mut notes = vec![Witness::descriptor(
        name.clone(),
        format!("guest type {}", vmw_type.unwrap_or("not given")),
    )];
    if known_guest.is_none() {
        notes.push(Witness::quirk("HQ33"));
    }
    let request = Request {
        name: system.name.clone().unwrap_or_else(|| operator.name.clone()),
        guest: known_guest.unwrap_or_else(|| "other".to_owned()),
        vcpus: quantity(resource::CPU)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1),
        memory_mib: memory.ok_or_else(|| refused(name, "no memory item with a number"))?,
        disks: disks.1,
        nics: items
            .iter()
            .filter(|item| item.resource_type == resource::ETHERNET)
            .map(|item| NicRequest {
                model: model_of(facts, item),
                mac: None,
                network: None,
            })
            .collect(),
        uuid: None,
        mac_seed: None,
        clock: None,
        mode: None,
    };
    Ok(Reading {
        remarks,
        request,
        disks: disks.0,
        by_hand: Vec::new(),
        mac: [vec![Witness::quirk("HQ36")], mac.chain()].concat(),
        notes,
        needs: Vec::new(),
    })
}

/// A descriptor that is no envelope of a version this importer reads.
fn unread(name: &str, text: &[u8], error: &drylab_block::Error) -> ReadError {
    const NAMESPACE_2: &str = "http://schemas.dmtf.org/ovf/envelope/2";
    if !String::from_utf8_lossy(text).contains(NAMESPACE_2) {
        return refused(name, error);
    }
    ReadError::Refused(vec![
        Witness::descriptor(name, error.to_string()),
        Witness::quirk("HQ25"),
    ])
}

/// The client's parser stops at a `Section` whose type is not told; other readers go on without the section.
fn typed_sections(name: &str, envelope: &Envelope) -> Result<(), ReadError> {
    let mut findings = envelope.findings.iter();
    match findings.find(|finding| finding.code == ovf::UNTYPED_SECTION) {
        Some(finding) => Err(ReadError::Refused(vec![
            Witness::descriptor(name, finding.message.clone()),
            Witness::quirk("HQ27"),
        ])),
        None => Ok(()),
    }
}

fn one_system<'e>(
    facts: &Facts<'_>,
    name: &str,
    envelope: &'e Envelope,
) -> Result<&'e VirtualSystem, ReadError> {
    if envelope.is_collection && !facts.flag("ovf.collection")?.value {
        return Err(ReadError::Refused(vec![
            Witness::descriptor(name, "holds a VirtualSystemCollection"),
            Witness::quirk("HQ24"),
        ]));
    }
    match envelope.systems.as_slice() {
        [system] => Ok(system),
        systems => Err(refused(
            name,
            format_args!("{} virtual systems, one expected", systems.len()),
        )),
    }
}

fn family(
    facts: &Facts<'_>,
    name: &str,
    system: &VirtualSystem,
    remarks: &mut Vec<Remark>,
) -> Result<(), Missing> {
    let known = facts.list("ovf.families")?;
    let families = system.system_types();
    if !families.iter().any(|family| known.value.contains(family)) {
        let says = format!(
            "line {}: hardware family {:?}",
            system.line,
            families.join(" ")
        );
        let is_xen = |family: &&str| family.starts_with("xen-") || family.starts_with("hvm-");
        let version = |family: &str| family.strip_prefix("vmx-")?.parse::<u32>().ok();
        let newest = known
            .value
            .iter()
            .filter_map(|family| version(family))
            .max();
        let is_newer = |family: &&str| version(family).is_some_and(|its| Some(its) > newest);
        let quirks: &[&str] = if families.iter().any(is_xen) {
            &["HQ06"]
        } else if families.iter().any(is_newer) {
            &["HQ20", "HQ21"]
        } else {
            &["HQ20"]
        };
        let mut witness = vec![Witness::descriptor(name, says)];
        witness.extend(quirks.iter().map(|id| Witness::quirk(id)));
        witness.push(known.witness);
        remarks.push(Remark {
            verdict: Verdict::Refused,
            witness,
        });
    }
    Ok(())
}

fn sections(name: &str, envelope: &Envelope, system: &VirtualSystem, remarks: &mut Vec<Remark>) {
    for section in envelope
        .sections
        .iter()
        .chain(&system.sections)
        .filter(|section| !section.standard)
    {
        let verdict = if section.required {
            Verdict::Refused
        } else {
            Verdict::Warned
        };
        let says = format!(
            "line {}: section {} is not known",
            section.line, section.name
        );
        remarks.push(Remark {
            verdict,
            witness: vec![Witness::descriptor(name, says)],
        });
    }
    for item in system
        .items()
        .iter()
        .filter(|item| item.required && item.resource_type == resource::OTHER_STORAGE)
    {
        let says = format!("line {}: no support for device type 20", item.line);
        let witness = vec![Witness::descriptor(name, says), Witness::quirk("HQ26")];
        remarks.push(Remark {
            verdict: Verdict::Refused,
            witness,
        });
    }
}

/// Elements that only XenCenter writes.
fn of_citrix(
    facts: &Facts<'_>,
    name: &str,
    envelope: &Envelope,
    system: &VirtualSystem,
    remarks: &mut Vec<Remark>,
) -> Result<(), Missing> {
    let sections = envelope
        .sections
        .iter()
        .map(|section| (section.name.as_str(), section.line));
    let other = system.hardware.iter().flat_map(|hardware| {
        let lines = hardware.other_configuration.iter().map(|other| other.line);
        lines.map(|line| ("VirtualSystemOtherConfigurationData", line))
    });
    let there: Vec<(&str, u32)> = sections.chain(other).collect();
    if there.is_empty() {
        return Ok(());
    }
    let unknown = facts.list("ovf.unsupported-elements")?;
    if let Some((element, line)) = there
        .iter()
        .find(|(element, _)| unknown.value.contains(element))
    {
        let says = format!("line {line}: element {element}");
        let mut witness = vec![Witness::descriptor(name, says)];
        witness.extend(unknown.chain());
        remarks.push(Remark::refused(witness));
    }
    Ok(())
}

fn manifest(
    facts: &Facts<'_>,
    package: &Package,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    let Some(name) = package.files.keys().find(|name| name.ends_with(".mf")) else {
        return Ok(());
    };
    let text = package
        .text(name, &Limits::DEFAULT)
        .map_err(|error| refused(name, error))?;
    let manifest =
        Manifest::parse(&text, &Limits::DEFAULT).map_err(|error| refused(name, error))?;
    let digests = facts.list("ovf.manifest-digests")?;
    if let Some(entry) = manifest
        .entries
        .iter()
        .find(|entry| !digests.value.contains(&entry.algorithm.name()))
    {
        let says = format!(
            "line {}: {} is not known to this importer",
            entry.line,
            entry.algorithm.name()
        );
        let witness = vec![
            Witness::descriptor(name.clone(), says),
            Witness::quirk("HQ22"),
            digests.witness,
        ];
        remarks.push(Remark {
            verdict: Verdict::Refused,
            witness,
        });
        return Ok(());
    }
    for message in differing(package, name, &manifest)? {
        let witness = vec![
            Witness::descriptor(name.clone(), message),
            Witness::quirk("HQ23"),
            Witness::quirk("GQ144"),
        ];
        remarks.push(Remark::refused(witness));
    }
    Ok(())
}

type Disks = (Vec<DiskPlan>, Vec<DiskRequest>);

/// Disk items in document order, each with its declaration and file; the wizard provisions them flat.
fn disks(
    facts: &Facts<'_>,
    package: &Package,
    envelope: &Envelope,
    system: &VirtualSystem,
    remarks: &mut Vec<Remark>,
) -> Result<Disks, ReadError> {
    let formats = facts.list("ovf.disk-formats")?;
    let name = &package.descriptor;
    for disk in &envelope.disks {
        let format = disk.format_uri.as_deref().unwrap_or("");
        if formats.value.contains(&format) {
            continue;
        }
        let says = format!("line {}: disk format {format:?}", disk.line);
        let quirks: &[&str] = if format == ovf::FORMAT_VHD {
            &["HQ07", "GQ138"]
        } else {
            &["HQ29"]
        };
        let mut witness = vec![Witness::descriptor(name.clone(), says)];
        witness.extend(quirks.iter().map(|id| Witness::quirk(id)));
        witness.push(formats.witness.clone());
        remarks.push(Remark::refused(witness));
    }
    let (mut plans, mut sizes) = (Vec::new(), Vec::new());
    for item in system
        .items()
        .iter()
        .filter(|item| item.resource_type == resource::DISK)
    {
        let wanted = item.host_resource.first().map_or("", String::as_str);
        let id = wanted
            .trim_start_matches("ovf:")
            .trim_start_matches("/disk/");
        let disk = envelope.disks.iter().find(|disk| disk.disk_id == id);
        let disk = disk
            .ok_or_else(|| refused(name, format_args!("line {}: no disk {wanted:?}", item.line)))?;
        let file = envelope
            .references
            .iter()
            .find(|file| Some(&file.id) == disk.file_ref.as_ref());
        let Some(file) = file else {
            return Err(refused(
                name,
                format_args!("line {}: disk {id:?} names no file", disk.line),
            ));
        };
        let Some(bytes) = package.files.get(&file.href) else {
            return Err(refused(
                name,
                format_args!(
                    "line {}: file {:?} is not in the package",
                    file.line, file.href
                ),
            ));
        };
        damages(&file.href, bytes, remarks)?;
        let capacity = disk
            .capacity
            .ok_or_else(|| refused(name, format_args!("line {}: no capacity", disk.line)))?;
        plans.push(DiskPlan {
            file: file.href.clone(),
            declared_format: None,
            stored: Stored::Flat,
            bytes: capacity,
        });
        let controller = parent_model(facts, system, item)?;
        sizes.push(DiskRequest {
            bytes: capacity,
            controller,
        });
    }
    Ok((plans, sizes))
}

/// What a VMDK's damage makes the wizard do. Files of other formats, packed ones and those that stand on others are for
/// who looks at the format's name.
fn damages(
    name: &str,
    bytes: &Arc<dyn ReadAt>,
    remarks: &mut Vec<Remark>,
) -> Result<(), ReadError> {
    if !detect(bytes).is_ok_and(|found| found.format == Format::Vmdk) {
        return Ok(());
    }
    match open(bytes.clone(), &Limits::DEFAULT) {
        Ok(image) => damage::react(&ESXI, name, &image, remarks),
        Err(error @ Error::Corrupt(_)) => Err(refused(name, error)),
        Err(_) => Ok(()),
    }
}

fn memory_mib(item: &Item) -> Option<u64> {
    let amount = units::to_bytes(
        item.virtual_quantity?,
        item.allocation_units.as_deref(),
        units::Absent::MebiByte,
    )
    .ok()?;
    Some(amount.bytes64()?.div_ceil(1 << 20))
}

/// The guest whose VMware id stands in the descriptor.
fn guest_of(facts: &Facts<'_>, vmw_type: Option<&str>) -> Option<String> {
    let keys = facts
        .product()
        .facts
        .keys()
        .filter_map(|key| key.strip_prefix("guest-id."));
    keys.map(str::to_owned).find(|guest| {
        facts
            .text(&format!("guest-id.{guest}"))
            .is_ok_and(|known| Some(known.value) == vmw_type)
    })
}

/// The first of an item's subtypes that this product knows, without case.
fn model_of(facts: &Facts<'_>, item: &Item) -> Option<String> {
    let keys = || {
        facts
            .product()
            .facts
            .keys()
            .filter_map(|key| key.strip_prefix("ovf.name."))
    };
    item.sub_types().into_iter().find_map(|subtype| {
        let known = |model: &&str| {
            facts
                .text(&format!("ovf.name.{model}"))
                .is_ok_and(|known| known.value.eq_ignore_ascii_case(subtype))
        };
        keys().find(known).map(str::to_owned)
    })
}

/// The controller a disk item hangs on, by its Parent: IDE, or the SCSI model named there.
fn parent_model(
    facts: &Facts<'_>,
    system: &VirtualSystem,
    disk: &Item,
) -> Result<Option<String>, ReadError> {
    let parent = disk.parent.as_deref().and_then(|id| system.item(id));
    match parent {
        Some(item) if item.resource_type == resource::IDE => {
            Ok(Some(facts.text("cdrom.controller")?.value.to_owned()))
        }
        Some(item) => Ok(model_of(facts, item)),
        None => Ok(None),
    }
}

/// Add to Inventory of a copied folder, answered with "I moved it": addresses and UUID stay.
///
/// # Errors
/// [`ReadError`].
pub fn vsphere_register_vmx(
    facts: &Facts<'_>,
    package: &Package,
    operator: &Operator,
) -> Result<Reading, ReadError> {
    let name = &package.descriptor;
    let text = package
        .text(name, &Limits::DEFAULT)
        .map_err(|error| refused(name, error))?;
    let vmx = Vmx::parse(&text, &Limits::DEFAULT).map_err(|error| refused(name, error))?;
    let number = |key: &str| vmx.get(key).and_then(|text| text.parse::<u64>().ok());
    let model = |key: &str| {
        let value = vmx.get(key)?;
        VMX_NAMES
            .iter()
            .find(|(_, name)| *name == value)
            .map(|(model, _)| (*model).to_owned())
    };
    let kept = facts.text("mac.on-register")?;
    let nics: Vec<NicRequest> = (0..10)
        .filter(|number| vmx.is_true(&format!("ethernet{number}.present")))
        .map(|number| {
            let address = |key: &str| vmx.get(&format!("ethernet{number}.{key}"));
            let mac = address("generatedAddress").or_else(|| address("address"));
            let mac: Option<Mac> = mac
                .and_then(|text| text.parse().ok())
                .filter(|_| kept.value == "kept");
            NicRequest {
                model: model(&format!("ethernet{number}.virtualDev")),
                mac,
                network: None,
            }
        })
        .collect();
    let is_kept = nics.first().is_some_and(|nic| nic.mac.is_some());
    let (mut plans, mut disks) = (Vec::new(), Vec::new());
    for disk in &package.disks {
        let file = format!("{}-flat.vmdk", disk.trim_end_matches(".vmdk"));
        let bytes = package
            .file(&file)
            .map_err(|error| refused(name, error))?
            .len();
        let place = vmx
            .entries
            .iter()
            .find(|entry| entry.value == *disk)
            .map_or("", |entry| entry.key.as_str());
        let controller = match place.to_ascii_lowercase().starts_with("ide") {
            true => Some(facts.text("cdrom.controller")?.value.to_owned()),
            false => model("scsi0.virtualDev"),
        };
        plans.push(DiskPlan {
            file,
            declared_format: Some("raw".to_owned()),
            stored: Stored::Flat,
            bytes,
        });
        disks.push(DiskRequest { bytes, controller });
    }
    let uuid = vmx.get("uuid.bios").map(dashed_uuid);
    let guest_os = vmx.get("guestOS").unwrap_or("other");
    let guests = facts
        .product()
        .facts
        .keys()
        .filter_map(|key| key.strip_prefix("vmx.guest-os."));
    let guest = guests.map(str::to_owned).find(|guest| {
        facts
            .text(&format!("vmx.guest-os.{guest}"))
            .is_ok_and(|known| known.value == guest_os)
    });
    Ok(Reading {
        remarks: Vec::new(),
        request: Request {
            name: vmx.get("displayName").unwrap_or(&operator.name).to_owned(),
            guest: guest.unwrap_or_else(|| "other".to_owned()),
            vcpus: number("numvcpus")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(1),
            memory_mib: number("memsize").ok_or_else(|| refused(name, "no memsize"))?,
            disks,
            nics,
            uuid,
            mac_seed: None,
            clock: None,
            mode: None,
        },
        disks: plans,
        by_hand: Vec::new(),
        mac: if is_kept {
            let says = "ethernet0 keeps its generated address";
            vec![Witness::descriptor(name.clone(), says), kept.witness]
        } else {
            let says = "ethernet0 has no address yet: one is drawn";
            let drawn = facts.text("mac.on-import")?.chain();
            [vec![Witness::descriptor(name.clone(), says)], drawn].concat()
        },
        notes: Vec::new(),
        needs: Vec::new(),
    })
}

fn dashed_uuid(text: &str) -> String {
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match hex.len() {
        32 => format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        ),
        _ => hex,
    }
}
