//! Disk names and probing of Linux block drivers: a property of the driver, the same in 2.6.32 and 3.2.

/// How a driver's disks are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// `sd`, `vd`, `xvd`, `hd`.
    pub prefix: &'static str,
    /// Whether the SCSI disk driver (`sd_mod`) makes the disk out of what this driver finds.
    pub scsi: bool,
    /// Quirk that says so.
    pub quirk: &'static str,
}

/// Names of drivers that make disks themselves, without the SCSI layer.
const OWN_NAMES: [(&str, &str, &str); 8] = [
    ("virtio_blk", "vd", "DQ303"),
    ("xen_blkfront", "xvd", "DQ304"),
    ("ide_gd_mod", "hd", "DQ305"),
    ("piix", "hd", "DQ305"),
    ("ide_pci_generic", "hd", "DQ305"),
    ("ide_generic", "hd", "DQ305"),
    ("amd74xx", "hd", "DQ305"),
    ("generic", "hd", "DQ305"),
];

/// Drivers that are a bus of their own: the disk driver sits on the device they make.
pub const BUS_DRIVERS: [&str; 1] = ["virtio_pci"];

/// How disks behind `driver` are called: SCSI and libata drivers hand them to `sd`.
#[must_use]
pub fn naming(driver: &str) -> Naming {
    let own = OWN_NAMES.iter().find(|(name, _, _)| *name == driver);
    match own {
        Some((_, prefix, quirk)) => Naming {
            prefix,
            scsi: false,
            quirk,
        },
        None => Naming {
            prefix: "sd",
            scsi: true,
            quirk: "DQ302",
        },
    }
}

/// Why a driver whose alias matches does not take an emulated IDE controller.
///
/// `ata_generic` takes devices it only knows by class code when `all_generic_ide` is given, and `pata_acpi` when the
/// firmware has timing methods for the port.
#[must_use]
pub fn declines(driver: &str, all_generic_ide: bool) -> Option<&'static str> {
    match driver {
        "ata_generic" if !all_generic_ide => Some("DQ301"),
        "pata_acpi" => Some("DQ301"),
        _ => None,
    }
}

/// Disk name of the `index`-th disk with a prefix: `sda` … `sdz`, `sdaa` ….
#[must_use]
pub fn disk_name(prefix: &str, index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        let letter = u8::try_from(rest % 26).unwrap_or(0);
        letters.push(char::from(b'a'.saturating_add(letter)));
        match (rest / 26).checked_sub(1) {
            Some(next) => rest = next,
            None => break,
        }
    }
    let letters: String = letters.iter().rev().collect();
    format!("{prefix}{letters}")
}

#[cfg(test)]
mod tests {
    use super::{disk_name, naming};

    #[test]
    fn disks_are_counted_in_letters_as_the_kernel_counts() {
        let names: Vec<String> = [0, 1, 25, 26, 27, 701, 702]
            .map(|index| disk_name("sd", index))
            .into();
        assert_eq!(
            names,
            ["sda", "sdb", "sdz", "sdaa", "sdab", "sdzz", "sdaaa"]
        );
    }

    #[test]
    fn the_driver_decides_the_prefix() {
        for (driver, prefix) in [
            ("ata_piix", "sd"),
            ("mptspi", "sd"),
            ("virtio_blk", "vd"),
            ("xen_blkfront", "xvd"),
            ("piix", "hd"),
        ] {
            assert_eq!(naming(driver).prefix, prefix, "{driver}");
        }
    }
}
