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

/// One PCI device model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Kind.
    pub class: Class,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subvendor: u16,
    /// Subsystem id.
    pub subdevice: u16,
    /// Class code, 24 bits: 0x010000 SCSI, 0x020000 Ethernet.
    pub class_code: u32,
    /// Revision.
    pub revision: u8,
    /// Whether it sits behind a PCI Express port (its location then carries a serial number).
    #[serde(default)]
    pub express: bool,
    /// Where the ids were read.
    pub source: String,
}

impl Device {
    /// The kernel's modalias: `pci:v00001000d00000030sv…`.
    #[must_use]
    pub fn modalias(&self) -> String {
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
    }
}
