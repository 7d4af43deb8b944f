//! What Windows NT 6.0 and 6.1 must load before it can read its registry from disk.
//!
//! Device ids as the hives of real NT 6.1 systems list them under `CriticalDeviceDatabase` and `Enum`.

use drylab_catalog::device::{Bus, Class, Device};

/// Ids of an IDE channel, first to last as tried: those of the channel's parent driver, then the compatible id.
#[must_use]
pub fn channel_ids(unit: u32) -> [&'static str; 3] {
    let channel = if unit < 2 {
        "primary_ide_channel"
    } else {
        "secondary_ide_channel"
    };
    ["internal_ide_channel", channel, "*pnp0600"]
}

/// Id of a disk on any bus.
pub const DISK_ID: &str = "gendisk";

/// Drivers between disk and file system that the loader must have loaded.
pub const STACK: [&str; 2] = ["partmgr", "volmgr"];

/// Ids of a device in the order Windows looks them up, as keys of `CriticalDeviceDatabase` (lower case, `#`).
#[must_use]
pub fn critical_ids(device: &Device) -> Vec<String> {
    let mut ids = device.hardware_ids();
    let key = |id: String| id.replace('\\', "#").to_lowercase();
    if device.bus != Bus::Pci {
        return ids.into_iter().map(key).collect();
    }
    let vendor = format!("PCI\\VEN_{:04X}", device.vendor);
    let by_class = ids
        .iter()
        .position(|id| id.starts_with("PCI\\CC_"))
        .unwrap_or(ids.len());
    let class = device.class_code;
    let between = [
        format!("{vendor}&CC_{class:06X}"),
        format!("{vendor}&CC_{:04X}", class >> 8),
        vendor,
    ];
    ids.splice(by_class..by_class, between);
    ids.into_iter().map(key).collect()
}

/// Whether disks on it hang on an IDE channel, which needs a driver of its own.
#[must_use]
pub fn has_channels(device: &Device) -> bool {
    device.class == Class::Ide
}

#[cfg(test)]
mod tests {
    use super::critical_ids;

    #[test]
    fn ids_of_a_real_listing_come_in_its_order() {
        let device = drylab_catalog::device::device("piix4-ide").expect("in the table");
        let ids = critical_ids(device);
        let expected = [
            "pci#ven_8086&dev_7111&subsys_197615ad&rev_01",
            "pci#ven_8086&dev_7111&subsys_197615ad",
            "pci#ven_8086&dev_7111&cc_01018a",
            "pci#ven_8086&dev_7111&cc_0101",
            "pci#ven_8086&dev_7111&rev_01",
            "pci#ven_8086&dev_7111",
            "pci#ven_8086&cc_01018a",
            "pci#ven_8086&cc_0101",
            "pci#ven_8086",
            "pci#cc_01018a",
            "pci#cc_0101",
        ];
        assert_eq!(
            ids, expected,
            "as Enum\\PCI of a VMware guest lists hardware and compatible ids"
        );
    }
}
