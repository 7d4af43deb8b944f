//! Device models: what the PCI bus says of them. Which driver takes one, and what the disk or interface is then
//! called, follows from the guest's own `modules.alias` or registry, never from here.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Parallel ATA controller.
    Ide,
    /// SCSI or SAS host bus adapter.
    Scsi,
    /// A disk that is its own PCI function (virtio-blk).
    Block,
    /// Network adapter.
    Net,
}

/// The bus a device is found on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// PCI or PCI Express.
    #[default]
    Pci,
    /// Hyper-V's synthetic bus: devices are told by a class GUID.
    Vmbus,
    /// Xen's bus of front ends: devices are told by a word, `vbd` or `vif`.
    Xen,
}

/// One device model. The PCI numbers are 0 on the other buses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Kind.
    pub class: Class,
    /// Bus.
    #[serde(default)]
    pub bus: Bus,
    /// What tells the device on a bus other than PCI: 32 hex digits of a class GUID with dashes, or Xen's word.
    #[serde(default)]
    pub id: String,
    /// PCI vendor id.
    #[serde(default)]
    pub vendor: u16,
    /// PCI device id.
    #[serde(default)]
    pub device: u16,
    /// Subsystem vendor id.
    #[serde(default)]
    pub subvendor: u16,
    /// Subsystem id.
    #[serde(default)]
    pub subdevice: u16,
    /// Class code, 24 bits: 0x010000 SCSI, 0x020000 Ethernet.
    #[serde(default)]
    pub class_code: u32,
    /// Revision.
    #[serde(default)]
    pub revision: u8,
    /// Whether it sits behind a PCI Express port (its location then carries a serial number).
    #[serde(default)]
    pub express: bool,
    /// Where the ids were read.
    pub source: String,
}

impl Device {
    /// The kernel's modalias: `pci:v00001000d00000030sv…`, `vmbus:` with the bytes of the GUID, `xen:vif`.
    #[must_use]
    pub fn modalias(&self) -> String {
        match self.bus {
            Bus::Pci => self.pci_modalias(),
            Bus::Vmbus => format!("vmbus:{}", guid_bytes(&self.id)),
            Bus::Xen => format!("xen:{}", self.id),
        }
    }

    fn pci_modalias(&self) -> String {
        let (class, sub, interface) = (
            (self.class_code >> 16) & 0xff,
            (self.class_code >> 8) & 0xff,
            self.class_code & 0xff,
        );
        format!(
            "pci:v{:08X}d{:08X}sv{:08X}sd{:08X}bc{class:02X}sc{sub:02X}i{interface:02X}",
            self.vendor, self.device, self.subvendor, self.subdevice
        )
    }

    /// Windows hardware ids, most specific first: `PCI\VEN_1000&DEV_0030&SUBSYS_…&REV_01`, …, `PCI\CC_0100`.
    #[must_use]
    pub fn hardware_ids(&self) -> Vec<String> {
        match self.bus {
            Bus::Pci => self.pci_hardware_ids(),
            Bus::Vmbus => vec![format!("VMBUS\\{{{}}}", self.id)],
            Bus::Xen => vec![format!("XENBUS\\CLASS&{}", self.id.to_uppercase())],
        }
    }

    fn pci_hardware_ids(&self) -> Vec<String> {
        let base = format!("PCI\\VEN_{:04X}&DEV_{:04X}", self.vendor, self.device);
        let subsystem = format!("SUBSYS_{:04X}{:04X}", self.subdevice, self.subvendor);
        let revision = format!("REV_{:02X}", self.revision);
        let class = self.class_code;
        vec![
            format!("{base}&{subsystem}&{revision}"),
            format!("{base}&{subsystem}"),
            format!("{base}&CC_{class:06X}"),
            format!("{base}&CC_{:04X}", class >> 8),
            format!("{base}&{revision}"),
            base,
            format!("PCI\\CC_{class:06X}"),
            format!("PCI\\CC_{:04X}", class >> 8),
        ]
    }
}

/// A GUID's bytes as they stand in memory, in hex digits: the first three groups little-endian (RFC 4122 has them
/// big-endian, Microsoft's structure does not).
fn guid_bytes(guid: &str) -> String {
    let swapped = |group: &str| -> String {
        (0..group.len() / 2)
            .rev()
            .filter_map(|pair| group.get(2 * pair..2 * pair + 2))
            .collect()
    };
    let groups = guid.split('-').enumerate();
    groups
        .map(|(index, group)| {
            if index < 3 {
                swapped(group)
            } else {
                group.to_owned()
            }
        })
        .collect()
}

/// All models by key.
#[must_use]
pub fn devices() -> &'static BTreeMap<String, Device> {
    static ROWS: OnceLock<BTreeMap<String, Device>> = OnceLock::new();
    ROWS.get_or_init(|| {
        toml::from_str(include_str!("../devices.toml"))
            .expect("devices.toml is part of the program and parses")
    })
}

/// The model with this key.
#[must_use]
pub fn device(model: &str) -> Option<&'static Device> {
    devices().get(model)
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn modalias_and_hardware_ids_are_spelled_as_the_systems_spell_them() {
        let lsi = device("lsilogic").expect("in the table");
        assert_eq!(
            lsi.modalias(),
            "pci:v00001000d00000030sv000015ADsd00001976bc01sc00i00"
        );
        assert_eq!(
            lsi.hardware_ids()[0],
            "PCI\\VEN_1000&DEV_0030&SUBSYS_197615AD&REV_01"
        );
        assert_eq!(
            lsi.hardware_ids().last().map(String::as_str),
            Some("PCI\\CC_0100")
        );
        let synthetic = device("hyperv-nic").expect("in the table");
        assert_eq!(
            synthetic.modalias(),
            "vmbus:635161f83edfc546913ff2d2f965ed0e"
        );
        assert_eq!(
            synthetic.hardware_ids(),
            ["VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}"]
        );
        assert_eq!(
            device("xen-vif").map(super::Device::modalias).as_deref(),
            Some("xen:vif")
        );
    }
}
