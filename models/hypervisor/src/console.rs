//! Making a machine at a console: what the wizard chooses when nobody chooses otherwise.

use crate::facts::{Facts, Known, Missing};
use crate::lab::Host;
use drylab_catalog::device::{Bus, Class, device};
use drylab_catalog::{
    Cdrom, Clock, Controller, Cpu, Disk, Firmware, Mac, Machine, Memory, Nic, PciAddress, Smbios,
    Witness,
};

/// A disk to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRequest {
    /// Size in bytes.
    pub bytes: u64,
    /// Controller model; `None` leaves it to the console.
    pub controller: Option<String>,
}

/// An adapter to add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicRequest {
    /// Model; `None` leaves it to the console.
    pub model: Option<String>,
    /// Address; `None` lets the console draw one.
    pub mac: Option<Mac>,
}

/// What a person (or an importer) asks the console for. `None` leaves the choice to the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name in the inventory.
    pub name: String,
    /// Key of the guest the person says it is: `centos-6.3`; an unknown one becomes the product's "other".
    pub guest: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks, boot disk first.
    pub disks: Vec<DiskRequest>,
    /// Adapters in order; none for a machine without a network.
    pub nics: Vec<NicRequest>,
    /// SMBIOS UUID.
    pub uuid: Option<String>,
    /// Whether the real-time clock counts local time.
    pub clock: Option<Clock>,
}

impl Request {
    /// What the wizard asks for when a person says no more than this: disks and one adapter at the console's choice.
    #[must_use]
    pub fn plain(name: &str, guest: &str, (vcpus, memory_mib): (u32, u64), disks: &[u64]) -> Self {
        Self {
            name: name.to_owned(),
            guest: guest.to_owned(),
            vcpus,
            memory_mib,
            disks: disks
                .iter()
                .map(|bytes| DiskRequest {
                    bytes: *bytes,
                    controller: None,
                })
                .collect(),
            nics: vec![NicRequest::default()],
            uuid: None,
            clock: None,
        }
    }
}

/// Raw words the caller drew for the console's own choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// For a generated MAC address.
    pub mac: u64,
    /// For a generated UUID.
    pub uuid: u128,
}

/// A machine with the reasons for its parts, by the name of the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The machine.
    pub machine: Machine,
    /// Reasons by part: `nic`, `controller`, `cpu`, `clock-rate`, `vcpus`, `memory`, `mac`, `clock`, `slot`, `disks`.
    pub why: Vec<(&'static str, Witness)>,
}

impl Made {
    /// Reasons for one part.
    pub fn why(&self, part: &str) -> impl Iterator<Item = &Witness> {
        self.why
            .iter()
            .filter(move |(name, _)| *name == part)
            .map(|(_, witness)| witness)
    }
}

/// The product's word for a guest type: the version's own, else the one an operator picks for its major version
/// (`centos-6.4` under `os.centos-6`), else "other".
///
/// # Errors
/// [`Missing`] when not even "other" is known.
pub fn os_choice<'p>(facts: &Facts<'p>, guest: &str) -> Result<Known<&'p str>, Missing> {
    let major = guest.split_once('.').map_or(guest, |(major, _)| major);
    facts
        .text(&format!("os.{guest}"))
        .or_else(|_| facts.text(&format!("os.{major}")))
        .or_else(|_| facts.text("os.other"))
}

/// Makes a machine the way the console's wizard does.
///
/// # Errors
/// [`Missing`] names the fact that the machine depends on and nobody wrote down.
pub fn create(
    facts: &Facts<'_>,
    host: &Host,
    request: &Request,
    draws: Draws,
) -> Result<Made, Missing> {
    let mut why = Vec::new();
    let choice = os_choice(facts, &request.guest)?;
    let default = |part: &str| facts.text(&format!("default.{}.{part}", choice.value));
    let mut chosen = |part: &'static str| -> Result<String, Missing> {
        let known = default(part)?;
        because(&mut why, part, &choice);
        because(&mut why, part, &known);
        Ok(known.value.to_owned())
    };
    let default_controller = match request.disks.iter().all(|disk| disk.controller.is_some()) {
        true => None,
        false => Some(chosen("controller")?),
    };
    let default_nic = match request.nics.iter().all(|nic| nic.model.is_some()) {
        true => None,
        false => Some(chosen("nic")?),
    };
    let clock = match request.clock {
        Some(clock) => clock,
        None if chosen("clock")? == "localtime" => Clock::Localtime,
        None => Clock::Utc,
    };
    let cpu = cpu(facts, host, request.vcpus, &mut why)?;
    let memory = memory(facts, request.memory_mib, &mut why)?;
    let (controllers, disks, cdroms) = storage(
        facts,
        default_controller.as_deref(),
        &request.disks,
        &mut why,
    )?;
    let nics = nics(
        facts,
        default_nic.as_deref(),
        &request.nics,
        draws.mac,
        &mut why,
    )?;
    let on_host = format!("host {}", host.name);
    why.push((
        "clock-rate",
        Witness::lab(on_host, format!("processors run at {} kHz", host.cpu_khz)),
    ));
    why.push((
        "vcpus",
        Witness::descriptor(
            &*request.name,
            format!("{} processors asked for", request.vcpus),
        ),
    ));
    why.push((
        "disks",
        Witness::descriptor(
            &*request.name,
            format!("{} disks asked for", request.disks.len()),
        ),
    ));
    let text = |key: &str| facts.text(key).map(|known| known.value.to_owned());
    let machine = Machine {
        product: facts.product().id.clone(),
        name: request.name.clone(),
        uuid: request.uuid.clone().unwrap_or_else(|| uuid(draws.uuid)),
        firmware: if facts.text("machine.firmware")?.value == "efi" {
            Firmware::Efi
        } else {
            Firmware::Bios
        },
        xen_platform: false,
        chipset: text("machine.chipset")?,
        smbios: Smbios {
            manufacturer: text("machine.smbios.manufacturer")?,
            product: text("machine.smbios.product")?,
            version: text("machine.smbios.version")?,
        },
        cpu,
        memory,
        controllers,
        disks,
        cdroms,
        nics,
        clock,
    };
    Ok(Made { machine, why })
}

type Why = Vec<(&'static str, Witness)>;

fn because<T>(why: &mut Why, part: &'static str, known: &Known<T>) {
    why.extend(known.chain().into_iter().map(|witness| (part, witness)));
}

fn cpu(facts: &Facts<'_>, host: &Host, vcpus: u32, why: &mut Why) -> Result<Cpu, Missing> {
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
fn memory(facts: &Facts<'_>, mib: u64, why: &mut Why) -> Result<Memory, Missing> {
    let granularity = facts.number("memory.granularity-mib")?;
    let reserved = facts.number("memory.reserved-kib")?;
    because(why, "memory", &granularity);
    because(why, "memory", &reserved);
    Ok(Memory {
        mib: mib.next_multiple_of(granularity.value.max(1)),
        reserved_kib: reserved.value,
    })
}

fn drawn_mac(facts: &Facts<'_>, word: u64, why: &mut Why) -> Result<Mac, Missing> {
    let prefix = facts.text("mac.prefix")?;
    let [a, b, c, ..] = word.to_be_bytes();
    let mac = format!("{}:{a:02x}:{b:02x}:{c:02x}", prefix.value);
    because(why, "mac", &prefix);
    mac.parse().map_err(|_| Missing {
        fact: format!("{}/mac.prefix as three octets", facts.product().id),
    })
}

/// A version 4 UUID from drawn bits (RFC 4122 §4.4).
fn uuid(bits: u128) -> String {
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
fn nics(
    facts: &Facts<'_>,
    default: Option<&str>,
    asked: &[NicRequest],
    word: u64,
    why: &mut Why,
) -> Result<Vec<Nic>, Missing> {
    let network = facts.text("network.name")?.value;
    let mut nics = Vec::new();
    for (number, nic) in (0u8..).zip(asked) {
        let model = nic.model.as_deref().or(default).unwrap_or_default();
        let mac = match nic.mac {
            Some(mac) => mac,
            None => drawn_mac(facts, word.rotate_left(24 * u32::from(number)), why)?,
        };
        let slot = behind(slot(facts, model, why)?, number);
        nics.push(Nic {
            model: model.to_owned(),
            mac,
            slot,
            network: network.to_owned(),
        });
    }
    Ok(nics)
}

type Storage = (Vec<Controller>, Vec<Disk>, Vec<Cdrom>);

/// Controllers, disks on them, and the CD-ROM drive the wizard adds.
fn storage(
    facts: &Facts<'_>,
    default: Option<&str>,
    asked: &[DiskRequest],
    why: &mut Why,
) -> Result<Storage, Missing> {
    let cd_model = facts.text("cdrom.controller")?.value;
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
            unit: cd_unit,
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
