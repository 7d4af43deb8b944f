//! Machines as configurations: what ESXi 5.0 keeps, what vCenter Converter 5.0 makes, and how both are read.

use super::Vmx;
use drylab_block::{Error, Result};

/// A virtual machine of ESXi 5.0 with hardware version 8, as its console makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `displayName`.
    pub name: String,
    /// `guestOS`, such as `centos-64`.
    pub guest_os: String,
    /// Memory in MiB; a multiple of 4 on real hosts.
    pub memory_mib: u64,
    /// Number of virtual processors.
    pub cpus: u32,
    /// `uuid.bios`, sixteen bytes.
    pub uuid: [u8; 16],
    /// `scsi0.virtualDev`, such as `lsilogic`; none without SCSI disks.
    pub scsi: Option<String>,
    /// Disk files by place: `scsi0:0`, `ide0:1`.
    pub disks: Vec<(String, String)>,
    /// Place of a CD drive of the client.
    pub cd_rom: Option<String>,
    /// Adapters in order.
    pub nics: Vec<Adapter>,
}

/// A network adapter of a [`Machine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// `virtualDev`, such as `e1000`.
    pub model: String,
    /// `networkName`.
    pub network: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Whether the administrator typed it (`static`) or the host made it (`generated`).
    pub is_static: bool,
    /// `pciSlotNumber`.
    pub pci_slot: u32,
}

impl Machine {
    /// The configuration.
    #[must_use]
    pub fn configuration(&self) -> Vmx {
        let mut vmx = Vmx::default();
        for (key, value) in [
            (".encoding", "UTF-8"),
            ("config.version", "8"),
            ("virtualHW.version", "8"),
        ] {
            vmx.set(key, value);
        }
        vmx.set("displayName", &self.name);
        vmx.set("guestOS", &self.guest_os);
        vmx.set("memsize", self.memory_mib);
        if self.cpus > 1 {
            vmx.set("numvcpus", self.cpus);
        }
        vmx.set("uuid.bios", uuid_text(self.uuid));
        vmx.set("pciBridge0.present", "TRUE");
        for bridge in 4..8u32 {
            vmx.set(&format!("pciBridge{bridge}.present"), "TRUE");
            vmx.set(&format!("pciBridge{bridge}.virtualDev"), "pcieRootPort");
            vmx.set(&format!("pciBridge{bridge}.functions"), "8");
        }
        if let Some(adapter) = &self.scsi {
            vmx.set("scsi0.present", "TRUE");
            vmx.set("scsi0.virtualDev", adapter);
            vmx.set("scsi0.sharedBus", "none");
            vmx.set("scsi0.pciSlotNumber", 16);
        }
        for (place, file) in &self.disks {
            vmx.set(&format!("{place}.present"), "TRUE");
            vmx.set(&format!("{place}.fileName"), file);
            let kind = if place.starts_with("scsi") {
                "scsi-hardDisk"
            } else {
                "ata-hardDisk"
            };
            vmx.set(&format!("{place}.deviceType"), kind);
        }
        if let Some(place) = &self.cd_rom {
            vmx.set(&format!("{place}.present"), "TRUE");
            vmx.set(&format!("{place}.deviceType"), "atapi-cdrom");
            vmx.set(&format!("{place}.clientDevice"), "TRUE");
            vmx.set(&format!("{place}.startConnected"), "FALSE");
        }
        for (number, nic) in (0u32..).zip(&self.nics) {
            nic.write(number, &mut vmx);
        }
        vmx
    }
}

/// Where vCenter Converter 5.0 makes a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A bare ESXi host: it makes the addresses itself.
    Esx,
    /// A host under vCenter Server, which gives out the addresses (`vpx`).
    VirtualCenter,
    /// Workstation 8 or Player 4: adapters are bridged, disks are files beside the configuration.
    Hosted,
}

/// Most buses, disks and adapters looked for.
const SCSI_UNITS: u32 = 16;
const NICS: u32 = 10;

impl Machine {
    /// The configuration that vCenter Converter 5.0 makes at a destination.
    ///
    /// As [`Machine::configuration`], except: an adapter of model `flexible` or empty has no `virtualDev`; under vCenter
    /// generated addresses are of type `vpx`; a hosted product knows no networks by name and calls disks `disk`.
    #[must_use]
    pub fn converted(&self, destination: Destination) -> Vmx {
        let mut vmx = self.configuration();
        for (number, nic) in (0u32..).zip(&self.nics) {
            let key = |name: &str| format!("ethernet{number}.{name}");
            if matches!(nic.model.as_str(), "" | "flexible") {
                vmx.remove(&key("virtualDev"));
            }
            match destination {
                Destination::VirtualCenter if !nic.is_static => {
                    vmx.replace(&key("addressType"), "vpx");
                    vmx.remove(&key("generatedAddressOffset"));
                }
                Destination::Hosted => {
                    vmx.remove(&key("networkName"));
                    vmx.set(&key("connectionType"), "bridged");
                }
                _ => {}
            }
        }
        if destination == Destination::Hosted {
            for (place, _) in &self.disks {
                vmx.replace(&format!("{place}.deviceType"), "disk");
            }
        }
        vmx
    }

    /// The machine that a configuration describes: disks and adapters that are present. An adapter without `virtualDev` is
    /// `flexible`; one without a network is on the name of its `connectionType`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a number, an address or the BIOS id is none.
    pub fn read(vmx: &Vmx) -> Result<Self> {
        let mut machine = Self {
            name: vmx.get("displayName").unwrap_or_default().to_owned(),
            guest_os: vmx.get("guestOS").unwrap_or_default().to_owned(),
            memory_mib: number(vmx, "memsize", 32)?,
            cpus: number(vmx, "numvcpus", 1)?,
            uuid: uuid_of(vmx.get("uuid.bios").unwrap_or_default())?,
            scsi: None,
            disks: Vec::new(),
            cd_rom: None,
            nics: Vec::new(),
        };
        if vmx.is_true("scsi0.present") {
            // Without a model the product takes the one of its first versions.
            machine.scsi = Some(vmx.get("scsi0.virtualDev").unwrap_or("buslogic").to_owned());
        }
        let scsi = (0..SCSI_UNITS).map(|unit| format!("scsi0:{unit}"));
        let ide = (0..4u32).map(|unit| format!("ide{}:{}", unit / 2, unit % 2));
        for place in scsi
            .chain(ide)
            .filter(|place| vmx.is_true(&format!("{place}.present")))
        {
            let kind = vmx.get(&format!("{place}.deviceType")).unwrap_or("disk");
            let file = vmx.get(&format!("{place}.fileName")).unwrap_or_default();
            if kind.to_ascii_lowercase().contains("cdrom") {
                machine.cd_rom.get_or_insert(place);
            } else {
                machine.disks.push((place, file.to_owned()));
            }
        }
        for number in (0..NICS).filter(|number| vmx.is_true(&format!("ethernet{number}.present"))) {
            machine.nics.push(Adapter::read(number, vmx)?);
        }
        Ok(machine)
    }
}

fn number<N: std::str::FromStr>(vmx: &Vmx, key: &str, default: N) -> Result<N> {
    let Some(entry) = vmx.entry(key) else {
        return Ok(default);
    };
    entry.value.trim().parse().map_err(|_| {
        let (line, value) = (entry.line, crate::findings::quote(&entry.value));
        Error::corrupt(format_args!(
            "line {line}: {key} is {value}, not a number of its range"
        ))
    })
}

/// Pairs of hexadecimal digits, whatever single characters stand between.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut bytes = [0u8; N];
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(&mut bytes) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(high.checked_mul(16)?.checked_add(*low)?).ok()?;
    }
    Some(bytes)
}

fn uuid_of(text: &str) -> Result<[u8; 16]> {
    if text.is_empty() {
        return Ok([0; 16]);
    }
    let wrong = || {
        Error::corrupt(format_args!(
            "uuid.bios {} is no id of 16 bytes",
            crate::findings::quote(text)
        ))
    };
    bytes_of(text).ok_or_else(wrong)
}

impl Adapter {
    fn read(number: u32, vmx: &Vmx) -> Result<Self> {
        let get = |name: &str| vmx.get(&format!("ethernet{number}.{name}"));
        let kind = get("addressType").unwrap_or("generated");
        let is_static = kind.eq_ignore_ascii_case("static");
        // Before the first start a generated address is not there.
        let address = get(if is_static {
            "address"
        } else {
            "generatedAddress"
        });
        let mac = match address {
            None => [0; 6],
            Some(text) => bytes_of(text).ok_or_else(|| {
                let text = crate::findings::quote(text);
                Error::corrupt(format_args!("address {text} of ethernet{number} is no MAC"))
            })?,
        };
        Ok(Self {
            model: get("virtualDev").unwrap_or("flexible").to_owned(),
            network: get("networkName")
                .or_else(|| get("connectionType"))
                .unwrap_or("bridged")
                .to_owned(),
            mac,
            is_static,
            pci_slot: self::number(vmx, &format!("ethernet{number}.pciSlotNumber"), 0)?,
        })
    }

    fn write(&self, number: u32, vmx: &mut Vmx) {
        let mut set = |key: &str, value: &str| vmx.set(&format!("ethernet{number}.{key}"), value);
        let mac: Vec<String> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        set("present", "TRUE");
        set("virtualDev", &self.model);
        set("networkName", &self.network);
        set(
            "addressType",
            if self.is_static {
                "static"
            } else {
                "generated"
            },
        );
        set(
            if self.is_static {
                "address"
            } else {
                "generatedAddress"
            },
            &mac.join(":"),
        );
        if !self.is_static {
            set(
                "generatedAddressOffset",
                &number.saturating_mul(10).to_string(),
            );
        }
        set("pciSlotNumber", &self.pci_slot.to_string());
    }
}

/// VMware's spelling: sixteen pairs of digits, blanks between, a hyphen in the middle.
fn uuid_text(uuid: [u8; 16]) -> String {
    let pairs: Vec<String> = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let (left, right) = pairs.split_at(8);
    format!("{}-{}", left.join(" "), right.join(" "))
}
