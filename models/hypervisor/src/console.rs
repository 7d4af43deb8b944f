//! Making a machine at a console: what the wizard chooses when nobody chooses otherwise.

use crate::facts::{Facts, Known, Missing};
use crate::lab::Host;
use drylab_catalog::{
    Cdrom, Clock, Controller, Cpu, Disk, Firmware, Mac, Machine, Memory, Nic, PciAddress, Smbios,
    Witness,
};

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
    /// Sizes of the disks in bytes, boot disk first.
    pub disks: Vec<u64>,
    /// Controller model of the disks.
    pub controller: Option<String>,
    /// Adapter model.
    pub nic_model: Option<String>,
    /// Adapter address.
    pub mac: Option<Mac>,
    /// SMBIOS UUID.
    pub uuid: Option<String>,
    /// Whether the real-time clock counts local time.
    pub clock: Option<Clock>,
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

/// The product's word for a guest type.
///
/// # Errors
/// [`Missing`] when not even "other" is known.
pub fn os_choice<'p>(facts: &Facts<'p>, guest: &str) -> Result<Known<&'p str>, Missing> {
    facts
        .text(&format!("os.{guest}"))
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
    let mut chosen = |part: &'static str, asked: &Option<String>| -> Result<String, Missing> {
        if let Some(asked) = asked {
            return Ok(asked.clone());
        }
        let known = default(part)?;
        because(&mut why, part, &choice);
        because(&mut why, part, &known);
        Ok(known.value.to_owned())
    };
    let controller = chosen("controller", &request.controller)?;
    let nic_model = chosen("nic", &request.nic_model)?;
    let clock = match request.clock {
        Some(clock) => clock,
        None if chosen("clock", &None)? == "localtime" => Clock::Localtime,
        None => Clock::Utc,
    };
    let cpu = cpu(facts, host, request.vcpus, &mut why)?;
    let memory = memory(facts, request.memory_mib, &mut why)?;
    let mac = match request.mac {
        Some(mac) => mac,
        None => drawn_mac(facts, draws.mac, &mut why)?,
    };
    let (controllers, disks, cdroms) = storage(facts, &controller, &request.disks, &mut why)?;
    let nic_slot = slot(facts, &nic_model, &mut why)?;
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
            format!("disks of {:?} bytes asked for", request.disks),
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
        nics: vec![Nic {
            model: nic_model,
            mac,
            slot: nic_slot,
            network: text("network.name")?,
        }],
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

fn slot(facts: &Facts<'_>, model: &str, why: &mut Why) -> Result<PciAddress, Missing> {
    let key = format!("slot.{model}");
    let known = facts.text(&key)?;
    because(why, "slot", &known);
    parse_slot(known.value).ok_or_else(|| Missing {
        fact: format!("{}/{key} as a PCI address", facts.product().id),
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

type Storage = (Vec<Controller>, Vec<Disk>, Vec<Cdrom>);

/// Controllers, disks on them, and the CD-ROM drive the wizard adds.
fn storage(
    facts: &Facts<'_>,
    model: &str,
    sizes: &[u64],
    why: &mut Why,
) -> Result<Storage, Missing> {
    let cd_model = facts.text("cdrom.controller")?.value;
    let cd_unit = u32::try_from(facts.number("cdrom.unit")?.value).unwrap_or(0);
    let mut controllers = Vec::new();
    let mut disks = Vec::new();
    let is_block = drylab_catalog::device::device(model)
        .is_some_and(|d| d.class == drylab_catalog::device::Class::Block);
    let first = slot(facts, model, why)?;
    for (index, bytes) in sizes.iter().enumerate() {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        // A virtio disk is its own PCI function; on a bus, disks share one controller.
        if is_block || controllers.is_empty() {
            let device = first
                .device
                .saturating_add(u8::try_from(index).unwrap_or(0));
            controllers.push(Controller {
                model: model.to_owned(),
                slot: PciAddress { device, ..first },
            });
        }
        let (controller, unit) = if is_block {
            (number, 0)
        } else {
            (0, unit_of(model == cd_model, number, cd_unit))
        };
        disks.push(Disk {
            controller,
            unit,
            bytes: *bytes,
        });
    }
    let shared = controllers
        .iter()
        .position(|controller| controller.model == cd_model);
    let at = match shared {
        Some(at) => at,
        None => {
            controllers.push(Controller {
                model: cd_model.to_owned(),
                slot: slot(facts, cd_model, why)?,
            });
            controllers.len() - 1
        }
    };
    let cdroms = vec![Cdrom {
        controller: u32::try_from(at).unwrap_or(0),
        unit: cd_unit,
    }];
    Ok((controllers, disks, cdroms))
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
