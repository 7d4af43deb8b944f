//! Drivers that Windows NT 6.0 and 6.1 load before they can read their registry from disk: a service that starts at
//! boot, its file, and an entry of `CriticalDeviceDatabase` for each device it takes. What every converter writes that
//! moves Windows to another disk controller.

use crate::ToolError;
use crate::converted::Edits;
use drylab_catalog::Witness;
use drylab_guest::edit::Editor;
use drylab_guest::inspect::WindowsSystem;
use drylab_hive::{HiveEditor, RegType};

/// Class of SCSI and RAID controllers.
pub(crate) const SCSI_CLASS: &str = "{4D36E97B-E325-11CE-BFC1-08002BE10318}";
/// Class of IDE controllers.
pub(crate) const IDE_CLASS: &str = "{4D36E96A-E325-11CE-BFC1-08002BE10318}";

/// A driver to be loaded at boot.
pub(crate) struct BootDriver {
    /// Name of the service.
    pub(crate) service: &'static str,
    /// File below `System32\drivers`.
    pub(crate) file: &'static str,
    /// Load order group.
    pub(crate) group: &'static str,
    /// `Tag`, the order within the group.
    pub(crate) tag: Option<u32>,
    /// `Parameters\BusType` of a storage miniport.
    pub(crate) bus_type: Option<u32>,
    /// Class of its devices.
    pub(crate) class: &'static str,
    /// Keys of `CriticalDeviceDatabase` it takes.
    pub(crate) ids: Vec<String>,
}

impl BootDriver {
    /// Writes service and devices into the SYSTEM hive.
    fn register(&self, hive: &mut HiveEditor, set: &str) -> drylab_block::Result<()> {
        let service = format!("{set}\\Services\\{}", self.service);
        hive.create_key(&service)?;
        for (name, number) in [("Type", 1), ("Start", 0), ("ErrorControl", 1)] {
            hive.set_u32(&service, name, number)?;
        }
        if let Some(tag) = self.tag {
            hive.set_u32(&service, "Tag", tag)?;
        }
        hive.set_string(&service, "Group", RegType::SZ, self.group)?;
        let image = format!("system32\\drivers\\{}", self.file);
        hive.set_string(&service, "ImagePath", RegType::EXPAND_SZ, &image)?;
        // The mark of a driver that waits in the driver store, which setup leaves at those it did not use.
        hive.delete_value(&service, "DriverPackageId")?;
        if let Some(bus) = self.bus_type {
            let parameters = format!("{service}\\Parameters");
            hive.create_key(&parameters)?;
            hive.set_u32(&parameters, "BusType", bus)?;
        }
        for id in &self.ids {
            let key = format!("{set}\\Control\\CriticalDeviceDatabase\\{id}");
            hive.create_key(&key)?;
            hive.set_string(&key, "Service", RegType::SZ, self.service)?;
            hive.set_string(&key, "ClassGUID", RegType::SZ, self.class)?;
            hive.delete_value(&key, "DriverPackageId")?;
        }
        Ok(())
    }
}

/// The drivers between Windows and a disk on PIIX.
pub(crate) fn piix_ide() -> [BootDriver; 3] {
    let driver = |service, file, group, ids: &[&str]| BootDriver {
        service,
        file,
        group,
        tag: None,
        bus_type: None,
        class: IDE_CLASS,
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let bus = "System Bus Extender";
    [
        driver(
            "intelide",
            "intelide.sys",
            bus,
            &["pci#ven_8086&dev_7010", "pci#ven_8086&dev_7111"],
        ),
        driver("pciide", "pciide.sys", bus, &["pci#cc_0101"]),
        driver(
            "atapi",
            "atapi.sys",
            "SCSI Miniport",
            &["primary_ide_channel", "secondary_ide_channel", "*pnp0600"],
        ),
    ]
}

/// Makes drivers start at boot. A file that Windows has is kept, a missing one is put there; `quirk` is the row behind it.
pub(crate) fn start_at_boot(
    system: &WindowsSystem,
    drivers: &[BootDriver],
    origin: &str,
    quirk: Option<&str>,
    editor: &mut Editor,
    edits: &mut Edits,
) -> Result<(), ToolError> {
    for driver in drivers {
        let path = format!("/Windows/System32/drivers/{}", driver.file);
        if editor.read(&path)?.is_none() {
            // Only that the file is there matters to what starts it; the program itself is not ours to carry.
            let bytes = format!("MZ {} of {origin}", driver.file).into_bytes();
            let applied = editor.write(&path, bytes)?;
            edits.made(&applied, &format!("{} uploaded", driver.file), &[]);
        }
    }
    let set = system.control_set.value.as_str();
    let applied = editor.registry("SYSTEM", |hive| {
        drivers
            .iter()
            .try_for_each(|driver| driver.register(hive, set))
    })?;
    let quirks: Vec<&str> = quirk.into_iter().collect();
    let names: Vec<&str> = drivers.iter().map(|driver| driver.service).collect();
    let says = match names.as_slice() {
        [name] => format!("{name} as boot driver, with its devices"),
        _ => format!("{} as boot drivers, with their devices", names.join(", ")),
    };
    edits.made(&applied, &says, &quirks);
    for driver in drivers {
        let key = format!("SYSTEM\\{set}\\Services\\{}", driver.service);
        let before = system.services.get(&driver.service.to_lowercase());
        let before = match before.and_then(|service| service.start) {
            Some(number) => format!("Start = 0, was {number}"),
            None => "Start = 0, was not there".to_owned(),
        };
        edits.made_at(Witness::key(key, before), &[]);
    }
    Ok(())
}
