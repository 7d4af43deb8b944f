//! Making a machine at a console: what the wizard chooses when nobody chooses otherwise.

mod mac;
mod parts;
mod power;

pub use mac::{MacPool, mac_from_seed, mac_pool, mac_pools_clash};
pub use power::{CleanShutdown, clean_shutdown};

use crate::facts::{Facts, Known, Missing};
use crate::lab::Host;
use drylab_catalog::{Clock, Firmware, Mac, Machine, Smbios, Witness};

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
    /// Network it is connected to; `None` for the product's own.
    pub network: Option<String>,
}

/// What kind of machine it is on a product that has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The guest's kernel knows that it is a guest: no firmware, no emulated device.
    Paravirtual,
    /// A whole PC is shown.
    Hvm,
}

impl Mode {
    fn key(self) -> &'static str {
        match self {
            Self::Paravirtual => "pv",
            Self::Hvm => "hvm",
        }
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Paravirtual => "a kernel that pygrub finds",
            Self::Hvm => "by its BIOS",
        }
    }
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
    /// Seed that addresses of adapters are computed from, on a product that does so; `None` lets the console draw one.
    pub mac_seed: Option<String>,
    /// Whether the real-time clock counts local time.
    pub clock: Option<Clock>,
    /// Paravirtual or not; products that have one kind only do not ask.
    pub mode: Option<Mode>,
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
            mac_seed: None,
            clock: None,
            mode: None,
        }
    }
}

/// Raw words the caller drew for the console's own choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// For a generated MAC address, or the seed that addresses are computed from.
    pub mac: u64,
    /// For a generated UUID.
    pub uuid: u128,
}

/// A machine with the reasons for its parts, by the name of the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The machine.
    pub machine: Machine,
    /// The seed its adapters' addresses are computed from (`other_config:mac_seed`), on a product that does so.
    pub mac_seed: Option<String>,
    /// Reasons by part: `nic`, `controller`, `cpu`, `clock-rate`, `vcpus`, `memory`, `mac`, `clock`, `slot`, `disks`,
    /// `mode`.
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
    let mode = mode(facts, &choice, request.mode, &mut why)?;
    let by_template = format!("default.{}", choice.value);
    let by_mode = mode.map(|mode| format!("mode.{}", mode.key()));
    let devices = by_mode.as_ref().unwrap_or(&by_template);
    let mut chosen = |part: &'static str, prefix: &str| -> Result<String, Missing> {
        let known = facts.text(&format!("{prefix}.{part}"))?;
        because(&mut why, part, &choice);
        because(&mut why, part, &known);
        Ok(known.value.to_owned())
    };
    let is_paravirtual = mode == Some(Mode::Paravirtual);
    let all_placed = request.disks.iter().all(|disk| disk.controller.is_some());
    let default_controller = match all_placed && !is_paravirtual {
        true => None,
        false => Some(chosen("controller", devices)?),
    };
    let default_nic = match request.nics.iter().all(|nic| nic.model.is_some()) {
        true => None,
        false => Some(chosen("nic", devices)?),
    };
    let clock = match request.clock {
        Some(clock) => clock,
        None if chosen("clock", &by_template)? == "localtime" => Clock::Localtime,
        None => Clock::Utc,
    };
    let cpu = parts::cpu(facts, host, request.vcpus, &mut why)?;
    let memory = parts::memory(facts, request.memory_mib, &mut why)?;
    let (controllers, disks, cdroms) = parts::storage(
        facts,
        default_controller.as_deref(),
        is_paravirtual,
        &request.disks,
        &mut why,
    )?;
    let mac_seed = mac::seed(facts, request, draws)?;
    let nics = parts::nics(
        facts,
        host,
        default_nic.as_deref(),
        &request.nics,
        (draws.mac, mac_seed.as_deref()),
        &mut why,
    )?;
    let on_host = format!("host {}", host.name);
    why.push((
        "clock-rate",
        Witness::lab(on_host, format!("processors run at {} kHz", host.cpu_khz)),
    ));
    why.push(("clock-rate", Witness::quirk("DQ432")));
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
    why.push(("disks", Witness::quirk("DQ433")));
    let shown = shown(facts, mode)?;
    let machine = Machine {
        product: facts.product().id.clone(),
        name: request.name.clone(),
        uuid: request
            .uuid
            .clone()
            .unwrap_or_else(|| parts::uuid(draws.uuid)),
        firmware: shown.firmware,
        xen_platform: shown.xen_platform,
        chipset: shown.chipset,
        smbios: shown.smbios,
        cpu,
        memory,
        controllers,
        disks,
        cdroms,
        nics,
        clock,
    };
    Ok(Made {
        machine,
        mac_seed,
        why,
    })
}

/// The product's most memory for a machine of a guest: the template's own bound, else the product's, in MiB.
///
/// # Errors
/// [`Missing`].
pub fn memory_max(facts: &Facts<'_>, guest: &str) -> Result<Known<u64>, Missing> {
    let choice = os_choice(facts, guest)?;
    facts
        .number(&format!("default.{}.memory-mib-max", choice.value))
        .or_else(|_| facts.number("memory.mib-max"))
}

type Why = Vec<(&'static str, Witness)>;

fn because<T>(why: &mut Why, part: &'static str, known: &Known<T>) {
    why.extend(known.chain().into_iter().map(|witness| (part, witness)));
}

/// The kind of machine: as asked for, else the template's; `None` on a product that has one kind only.
fn mode(
    facts: &Facts<'_>,
    choice: &Known<&str>,
    asked: Option<Mode>,
    why: &mut Why,
) -> Result<Option<Mode>, Missing> {
    if facts.text("machine.firmware")?.value != "by-mode" {
        return Ok(None);
    }
    if let Some(mode) = asked {
        return Ok(Some(mode));
    }
    let key = format!("default.{}.mode", choice.value);
    let known = facts.text(&key)?;
    because(why, "mode", choice);
    because(why, "mode", &known);
    [Mode::Paravirtual, Mode::Hvm]
        .into_iter()
        .find(|mode| mode.key() == known.value)
        .map(Some)
        .ok_or_else(|| Missing {
            fact: format!("{}/{key} as pv or hvm", facts.product().id),
        })
}

/// What a guest finds around its devices.
struct Shown {
    firmware: Firmware,
    xen_platform: bool,
    chipset: String,
    smbios: Smbios,
}

fn shown(facts: &Facts<'_>, mode: Option<Mode>) -> Result<Shown, Missing> {
    if mode == Some(Mode::Paravirtual) {
        return Ok(Shown {
            firmware: Firmware::Pygrub,
            xen_platform: false,
            chipset: "none".to_owned(),
            smbios: Smbios::default(),
        });
    }
    let text = |key: &str| facts.text(key).map(|known| known.value.to_owned());
    Ok(Shown {
        firmware: match facts.text("machine.firmware")?.value {
            "efi" => Firmware::Efi,
            _ => Firmware::Bios,
        },
        xen_platform: match mode {
            Some(_) => facts.flag("mode.hvm.xen-platform")?.value,
            None => false,
        },
        chipset: text("machine.chipset")?,
        smbios: Smbios {
            manufacturer: text("machine.smbios.manufacturer")?,
            product: text("machine.smbios.product")?,
            version: text("machine.smbios.version")?,
        },
    })
}
