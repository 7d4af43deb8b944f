//! An OVA, or the folder of one, as this tool reads it.
//!
//! One `.ovf` and only one (quirk HQ117), without regard to those that macOS leaves behind (quirk HQ119); disks are items
//! of type 17 whose `HostResource` is spelled `/disk/x` or `ovf:/disk/x` (quirk HQ114), memory counts MiB whatever its
//! unit says, an adapter has the MAC of `rasd:Address`.

use crate::ToolError;
use crate::files::{Beside, open_disk};
use crate::v2v::source::{Found, Source, refuse};
use drylab_appliance::ova::Ova;
use drylab_appliance::ovf::{self, Envelope, Item, VirtualSystem, resource};
use drylab_appliance::{Package, safe_href};
use drylab_block::Limits;
use drylab_catalog::Witness;
use std::sync::Arc;

/// Memory when no item says it, in MiB.
const MEMORY_MIB: u64 = 1024;

/// Reads the machine, and what is to be known of the archive.
pub(crate) fn read(input: &Package) -> Result<(Source, Vec<Witness>), ToolError> {
    let unpacked = unpack(input)?;
    let name = descriptor(&unpacked)?;
    let notes = match unpacked.files.keys().find(|name| of_mac_os(name)) {
        Some(name) => vec![
            Witness::descriptor(name.clone(), "passed over"),
            Witness::quirk("HQ119"),
        ],
        None => Vec::new(),
    };
    let text = unpacked.text(&name, &Limits::DEFAULT)?;
    let envelope = ovf::parse(&text, &Limits::DEFAULT).map_err(|error| {
        let says = error.to_string();
        let failed = refuse(format!("could not parse {name}: {says}"));
        if String::from_utf8_lossy(&text).contains(ovf::NAMESPACE_2) {
            failed.because(Witness::quirk("HQ115"))
        } else {
            failed
        }
    })?;
    let system = envelope
        .systems
        .first()
        .ok_or_else(|| refuse("no VirtualSystem in the OVF"))?;
    firmware(&name, system)?;
    let quantity = |kind| {
        let mut items = system.items().iter();
        let item = items.find(|item| item.resource_type == kind);
        item.and_then(|item| item.virtual_quantity)
    };
    let memory = quantity(resource::MEMORY).unwrap_or(MEMORY_MIB);
    let adapters = system
        .items()
        .iter()
        .filter(|item| item.resource_type == resource::ETHERNET);
    let source = Source {
        name: system.name.clone().unwrap_or_else(|| system.id.clone()),
        memory_kib: memory.saturating_mul(1024),
        vcpus: u32::try_from(quantity(resource::CPU).unwrap_or(1)).unwrap_or(1),
        uuid: None,
        disks: disks(&unpacked, &name, &envelope, system)?,
        macs: adapters
            .map(|item| item.address.as_deref()?.parse().ok())
            .collect(),
        has_scsi: system
            .items()
            .iter()
            .any(|item| item.resource_type == resource::SCSI),
    };
    Ok((source, notes))
}

/// The last part of a file's name, in lower case.
fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_lowercase()
}

/// What macOS leaves beside each file that it packs.
fn of_mac_os(name: &str) -> bool {
    last(name).starts_with("._")
}

/// The files of the archive; of a folder they are the package's own.
fn unpack(input: &Package) -> Result<Package, ToolError> {
    if !input.descriptor.to_lowercase().ends_with(".ova") {
        return Ok(input.clone());
    }
    let archive = Ova::open(input.file(&input.descriptor)?.clone(), &Limits::DEFAULT)?;
    let mut files = Package::default();
    for member in &archive.members {
        files.put(member.name.clone(), Arc::new(archive.member(&member.name)?));
    }
    Ok(files)
}

/// The one descriptor.
fn descriptor(files: &Package) -> Result<String, ToolError> {
    let found: Vec<&String> = files
        .files
        .keys()
        .filter(|name| last(name).ends_with(".ovf") && !of_mac_os(name))
        .collect();
    match found.as_slice() {
        [name] => Ok((*name).clone()),
        [] => Err(refuse("no .ovf file was found").because(Witness::quirk("HQ117"))),
        _ => Err(refuse("more than one .ovf file was found").because(Witness::quirk("HQ117"))),
    }
}

/// `vmw:Config` with another firmware than the two known.
fn firmware(name: &str, system: &VirtualSystem) -> Result<(), ToolError> {
    let configs = system
        .hardware
        .iter()
        .flat_map(|hardware| &hardware.configs);
    for config in configs.filter(|config| config.key == "firmware") {
        if !["bios", "efi"].contains(&config.value.as_str()) {
            let says = format!("firmware {:?}", config.value);
            return Err(
                refuse(format!("unknown Config:firmware value {:?}", config.value))
                    .because(Witness::descriptor(name, says))
                    .because(Witness::quirk("HQ116")),
            );
        }
    }
    Ok(())
}

fn disks(
    files: &Package,
    name: &str,
    envelope: &Envelope,
    system: &VirtualSystem,
) -> Result<Vec<Found>, ToolError> {
    let mut found: Vec<Found> = Vec::new();
    let items = system.items().iter();
    for item in items.filter(|item| item.resource_type == resource::DISK) {
        found.push(disk(files, name, envelope, item)?);
    }
    if found.is_empty() {
        let family = system.system_types().join(", ");
        let says = format!("written for {family:?}, no item of type 17");
        return Err(refuse("the guest has no disks")
            .because(Witness::descriptor(name, says))
            .because(Witness::quirk("GQ86")));
    }
    Ok(found)
}

fn disk(files: &Package, name: &str, envelope: &Envelope, item: &Item) -> Result<Found, ToolError> {
    let line = |line: u32, says: String| Witness::descriptor(format!("{name}:{line}"), says);
    let host = item.host_resource.first().map_or("", String::as_str);
    let id = host.strip_prefix("ovf:").unwrap_or(host);
    let Some(id) = id.strip_prefix("/disk/") else {
        return Err(
            refuse(format!("could not parse disk rasd:HostResource: {host:?}"))
                .because(line(item.line, format!("HostResource {host:?}")))
                .because(Witness::quirk("HQ114")),
        );
    };
    let declared = envelope.disks.iter().find(|disk| disk.disk_id == id);
    let file = declared.and_then(|disk| {
        let reference = disk.file_ref.as_deref()?;
        envelope.references.iter().find(|file| file.id == reference)
    });
    let Some(file) = file else {
        let says = format!("disk {id:?} has no file");
        return Err(refuse(format!("error in OVF: {says}")).because(line(item.line, says)));
    };
    let href = safe_href(&file.href).map_err(|error| {
        refuse(format!("error in OVF: {error}")).because(line(file.line, file.href.clone()))
    })?;
    let opened = open_disk(files.file(&href)?.clone(), &Beside(files))?;
    Ok((id.to_owned(), opened))
}
