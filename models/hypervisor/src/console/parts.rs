//! Parts of a new machine: processors, memory, disks with their controllers, adapters.

use super::{DiskRequest, NicRequest, Why, because, mac};
use crate::facts::{Facts, Missing};
use crate::lab::Host;
use drylab_catalog::device::{Bus, Class, device};
use drylab_catalog::{Cdrom, Controller, Cpu, Disk, Memory, Nic, PciAddress};

pub(super) fn cpu(
    facts: &Facts<'_>,
    host: &Host,
    vcpus: u32,
    why: &mut Why,
) -> Result<Cpu, Missing> {
    let model = facts.text("cpu.model")?;
    because(why, "cpu", &model);
    let from_host = model.value == "host";
    let features = if from_host {
        host.cpu_features.clone()
    } else {
        facts
            .list("cpu.features")?
            .value
            .iter()
            .map(|flag| (*flag).to_owned())
            .collect()
    };
    Ok(Cpu {
        brand: if from_host {
            host.cpu_brand.clone()
        } else {
            model.value.to_owned()
        },
        vendor: host.cpu_vendor.clone(),
        khz: host.cpu_khz,
        vcpus,
        features,
        hypervisor: facts.text("cpu.signature")?.value.to_owned(),
    })
}

/// Memory is rounded up to the product's granularity.
pub(super) fn memory(facts: &Facts<'_>, mib: u64, why: &mut Why) -> Result<Memory, Missing> {
    let granularity = facts.number("memory.granularity-mib")?;
    let reserved = facts.number("memory.reserved-kib")?;
    because(why, "memory", &granularity);
    because(why, "memory", &reserved);
    Ok(Memory {
        mib: mib.next_multiple_of(granularity.value.max(1)),
        reserved_kib: reserved.value,
    })
}

/// A version 4 UUID from drawn bits (RFC 4122 §4.4).
pub(super) fn uuid(bits: u128) -> String {
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Where the first device of a model sits; `None` off PCI.
fn slot(facts: &Facts<'_>, model: &str, why: &mut Why) -> Result<Option<PciAddress>, Missing> {
    if device(model).is_some_and(|device| device.bus != Bus::Pci) {
        return Ok(None);
    }
    let key = format!("slot.{model}");
    let known = facts.text(&key)?;
    because(why, "slot", &known);
    let address = parse_slot(known.value).ok_or_else(|| Missing {
        fact: format!("{}/{key} as a PCI address", facts.product().id),
    })?;
    Ok(Some(address))
}

/// The place of the `number`-th device of a model: each further one sits a slot behind.
fn behind(first: Option<PciAddress>, number: u8) -> Option<PciAddress> {
    first.map(|first| PciAddress {
        device: first.device.saturating_add(number),
        ..first
    })
}

fn parse_slot(text: &str) -> Option<PciAddress> {
    let (bus, rest) = text.strip_prefix("0000:")?.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |digits| u8::from_str_radix(digits, 16).ok();
    Some(PciAddress {
        bus: hex(bus)?,
        device: hex(device)?,
        function: hex(function)?,
    })
}

/// Adapters in slot order; each further one sits a slot behind.
pub(super) fn nics(
    facts: &Facts<'_>,
    host: &Host,
    default: Option<&str>,
    asked: &[NicRequest],
    drawn: (u64, Option<&str>),
    why: &mut Why,
) -> Result<Vec<Nic>, Missing> {
    let network = facts.text("network.name")?.value;
    let mut nics = Vec::new();
    for (number, nic) in (0u8..).zip(asked) {
        let model = nic.model.as_deref().or(default).unwrap_or_default();
        let mac = match nic.mac {
            Some(mac) => mac,
            None => mac::drawn(facts, host, drawn, number, why)?,
        };
        let slot = behind(slot(facts, model, why)?, number);
        nics.push(Nic {
            model: model.to_owned(),
            mac,
            slot,
            network: nic.network.as_deref().unwrap_or(network).to_owned(),
        });
    }
    Ok(nics)
}

type Storage = (Vec<Controller>, Vec<Disk>, Vec<Cdrom>);

/// Controllers, disks on them, and the CD-ROM drive the wizard adds.
pub(super) fn storage(
    facts: &Facts<'_>,
    default: Option<&str>,
    is_paravirtual: bool,
    asked: &[DiskRequest],
    why: &mut Why,
) -> Result<Storage, Missing> {
    // A paravirtual machine has nothing but front ends: its CD-ROM drive is one, too.
    let cd_model = match default.filter(|_| is_paravirtual) {
        Some(front_end) => front_end,
        None => facts.text("cdrom.controller")?.value,
    };
    let cd_unit = u32::try_from(facts.number("cdrom.unit")?.value).unwrap_or(0);
    let mut controllers: Vec<Controller> = Vec::new();
    let mut disks: Vec<Disk> = Vec::new();
    for disk in asked {
        let model = disk.controller.as_deref().or(default).unwrap_or_default();
        let at = attach(facts, model, &mut controllers, why)?;
        let before = disks.iter().filter(|other| other.controller == at).count();
        let unit = match is_block(model) {
            true => 0,
            false => unit_of(
                model == cd_model,
                u32::try_from(before).unwrap_or(u32::MAX),
                cd_unit,
            ),
        };
        disks.push(Disk {
            controller: at,
            unit,
            bytes: disk.bytes,
        });
    }
    let cd_at = attach(facts, cd_model, &mut controllers, why)?;
    Ok((
        controllers,
        disks,
        vec![Cdrom {
            controller: cd_at,
            unit: if is_block(cd_model) { 0 } else { cd_unit },
        }],
    ))
}

fn is_block(model: &str) -> bool {
    device(model).is_some_and(|device| device.class == Class::Block)
}

/// The controller a device of this model goes to. A virtio disk is its own PCI function, one slot behind the last; on
/// a bus, devices share one controller.
fn attach(
    facts: &Facts<'_>,
    model: &str,
    controllers: &mut Vec<Controller>,
    why: &mut Why,
) -> Result<u32, Missing> {
    let alike = controllers
        .iter()
        .filter(|controller| controller.model == model)
        .count();
    let shared = controllers
        .iter()
        .position(|controller| controller.model == model)
        .filter(|_| !is_block(model));
    let at = match shared {
        Some(at) => at,
        None => {
            let first = slot(facts, model, why)?;
            controllers.push(Controller {
                model: model.to_owned(),
                slot: behind(first, u8::try_from(alike).unwrap_or(0)),
            });
            controllers.len() - 1
        }
    };
    Ok(u32::try_from(at).unwrap_or(u32::MAX))
}

/// Position of the n-th disk: SCSI target 7 belongs to the controller, and a shared IDE cable has the CD-ROM on it.
fn unit_of(shares_cable_with_cd: bool, number: u32, cd_unit: u32) -> u32 {
    let taken = if shares_cable_with_cd { cd_unit } else { 7 };
    if number >= taken {
        number.saturating_add(1)
    } else {
        number
    }
}
