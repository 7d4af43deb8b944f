//! From disks to volumes with opened filesystems.

use super::Opener;
use super::model::{
    BootCode, DiskFact, FilesystemFact, PhysicalVolume, Table, VolumeFact, VolumeKind,
};
use drylab_block::{Finding, Limits, ReadAt, Result, Severity, array_at};
use drylab_catalog::Witness;
use drylab_filesystem::Filesystem;
use drylab_volume::{DiskLayout, Layout, Volume, VolumeName};
use std::sync::Arc;

/// Volumes with their filesystems, in the order of [`super::Guest::layout`].
pub(crate) struct Volumes {
    pub(crate) disks: Vec<DiskFact>,
    pub(crate) facts: Vec<VolumeFact>,
    pub(crate) opened: Vec<Option<Arc<dyn Filesystem>>>,
    pub(crate) findings: Vec<Finding>,
}

impl Volumes {
    /// Scans the disks and opens what can be opened.
    pub(crate) fn find(
        disks: &[Arc<dyn ReadAt>],
        open: Opener<'_>,
        limits: &Limits,
    ) -> Result<Self> {
        let layout = drylab_volume::scan_all(disks, limits)?;
        let mut found = Self {
            disks: Vec::new(),
            facts: Vec::new(),
            opened: Vec::new(),
            findings: layout.findings.clone(),
        };
        for (disk, source) in layout.disks.iter().zip(disks) {
            found.disks.push(disk_fact(disk, source.as_ref()));
        }
        for volume in &layout.volumes {
            let filesystem = found.open(volume, open);
            let fact = VolumeFact {
                kind: kind(volume, &layout, limits),
                bytes: claimed(volume, &layout),
                filesystem: filesystem.as_deref().map(|opened| FilesystemFact {
                    kind: opened.kind(),
                    uuid: opened.uuid(),
                    label: opened.label(),
                }),
                witness: witness(volume),
                broken: broken(volume, &layout),
            };
            found
                .findings
                .extend(filesystem.iter().flat_map(|opened| opened.findings()));
            found.facts.push(fact);
            found.opened.push(filesystem);
        }
        found.add_lost_partitions(&layout);
        Ok(found)
    }

    /// Opens a volume's filesystem; damage is a finding, the rest of the disk can still be read.
    fn open(&mut self, volume: &Volume, open: Opener<'_>) -> Option<Arc<dyn Filesystem>> {
        match open(volume) {
            Ok(opened) => opened,
            Err(error) => {
                self.findings.push(Finding {
                    code: "FILESYSTEM-UNREADABLE",
                    severity: Severity::Error,
                    offset: volume.start_byte(),
                    message: format!("{}: {error}", volume.name),
                });
                None
            }
        }
    }

    /// Partitions that begin past the end of their disk: nothing of them is there, but the table names them.
    fn add_lost_partitions(&mut self, layout: &Layout) {
        for (disk, found) in layout.disks.iter().enumerate() {
            for partition in found.table.iter().flat_map(|table| &table.partitions) {
                let extended = partition.role == drylab_volume::Role::Extended;
                if extended || partition.type_byte == 0xee || partition.start_byte() < found.length
                {
                    continue;
                }
                let number = partition.number;
                let place = format!("disk {disk} partition table entry {number}");
                self.facts.push(VolumeFact {
                    kind: VolumeKind::Partition {
                        disk,
                        number,
                        start: partition.start_byte(),
                        active: partition.active,
                        type_byte: partition.type_byte,
                        boot_sector: false,
                    },
                    bytes: partition.length(),
                    filesystem: None,
                    witness: Witness::disk(
                        &place,
                        format!("{} bytes at {}", partition.length(), partition.start_byte()),
                    ),
                    broken: Some(Witness::disk(
                        place,
                        format!(
                            "begins at byte {}, the disk ends at {}",
                            partition.start_byte(),
                            found.length
                        ),
                    )),
                });
                self.opened.push(None);
            }
        }
    }

    /// Opened filesystems with their index.
    pub(crate) fn filesystems(&self) -> impl Iterator<Item = (usize, &Arc<dyn Filesystem>)> {
        self.opened
            .iter()
            .enumerate()
            .filter_map(|(index, opened)| Some((index, opened.as_ref()?)))
    }

    /// Index of the volume that a device name of `fstab` or of the command line means on the machine the guest was
    /// installed on, where disk names count disks: UUID, label, logical volume, or name with partition number.
    pub(crate) fn by_device(&self, device: &str) -> Option<usize> {
        let device = device.trim_matches('"');
        self.facts.iter().position(|fact| match fact.kind {
            VolumeKind::Partition { disk, number, .. } => {
                names_filesystem(device, fact)
                    || bare_name(device).is_some_and(|name| name == (disk, Some(number)))
            }
            VolumeKind::Whole { disk } => {
                names_filesystem(device, fact)
                    || bare_name(device).is_some_and(|name| name == (disk, None))
            }
            VolumeKind::Logical {
                ref group,
                ref name,
                ..
            } => names_filesystem(device, fact) || names_logical(device, group, name),
        })
    }
}

/// Whether `UUID=…`, `LABEL=…` or `/dev/disk/by-*` means this volume's filesystem.
pub(crate) fn names_filesystem(device: &str, fact: &VolumeFact) -> bool {
    let Some(filesystem) = &fact.filesystem else {
        return false;
    };
    let uuid = device
        .strip_prefix("UUID=")
        .or_else(|| device.strip_prefix("/dev/disk/by-uuid/"));
    let label = device
        .strip_prefix("LABEL=")
        .or_else(|| device.strip_prefix("/dev/disk/by-label/"));
    uuid.is_some_and(|uuid| {
        !filesystem.uuid.is_empty() && uuid.eq_ignore_ascii_case(&filesystem.uuid)
    }) || label.is_some_and(|label| !filesystem.label.is_empty() && label == filesystem.label)
}

/// Whether `/dev/mapper/vg-lv` (dashes doubled) or `/dev/vg/lv` means this logical volume.
pub(crate) fn names_logical(device: &str, group: &str, name: &str) -> bool {
    let mapped = format!("{}-{}", group.replace('-', "--"), name.replace('-', "--"));
    device.strip_prefix("/dev/mapper/") == Some(mapped.as_str())
        || device
            .strip_prefix("/dev/")
            .and_then(|rest| rest.split_once('/'))
            == Some((group, name))
}

/// Disk index and partition of `/dev/sda1`, `/dev/vdb`, `/dev/hda2`, `/dev/xvda1`.
pub(crate) fn bare_name(device: &str) -> Option<(usize, Option<u32>)> {
    let rest = device.strip_prefix("/dev/")?;
    let rest = ["xvd", "sd", "vd", "hd"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let letter = rest.bytes().next().filter(u8::is_ascii_lowercase)?;
    let disk = usize::from(letter.checked_sub(b'a')?);
    let digits = rest.get(1..)?;
    if digits.is_empty() {
        return Some((disk, None));
    }
    Some((disk, Some(digits.parse().ok()?)))
}

fn disk_fact(disk: &DiskLayout, source: &dyn ReadAt) -> DiskFact {
    let Some(table) = &disk.table else {
        return DiskFact {
            bytes: disk.length,
            boot_signature: false,
            boot_code: BootCode::None,
            embedded_code: false,
            signature: 0,
            table: Table::None,
        };
    };
    let mut sector = [0u8; 512];
    let code = table.boot_code.as_slice();
    let boot_code = if code.windows(4).any(|text| text == b"GRUB") {
        BootCode::Grub
    } else if code.iter().any(|byte| *byte != 0) {
        BootCode::Chain
    } else {
        BootCode::None
    };
    DiskFact {
        bytes: disk.length,
        boot_signature: true,
        boot_code,
        embedded_code: source.read_at(512, &mut sector).is_ok()
            && sector.iter().any(|byte| *byte != 0),
        signature: table.disk_signature,
        table: if table.protective {
            Table::Gpt
        } else {
            Table::Mbr
        },
    }
}

fn kind(volume: &Volume, layout: &Layout, limits: &Limits) -> VolumeKind {
    match &volume.name {
        VolumeName::Whole { disk } => VolumeKind::Whole { disk: *disk },
        VolumeName::Partition { disk, number } => VolumeKind::Partition {
            disk: *disk,
            number: *number,
            start: volume.start_byte(),
            active: volume.active,
            type_byte: volume.mbr_type.unwrap_or(0),
            boot_sector: has_boot_sector(volume.source.as_ref()),
        },
        VolumeName::Logical { vg, lv } => {
            let mut disks: Vec<usize> = volume
                .map
                .segments()
                .flat_map(|(_, segment)| segment.legs.iter().map(|leg| leg.disk))
                .collect();
            disks.sort_unstable();
            disks.dedup();
            VolumeKind::Logical {
                group: vg.clone(),
                name: lv.clone(),
                disks,
                physical: physical_volumes(layout, vg, limits),
            }
        }
    }
}

/// Physical volumes of a group, with the size each claims.
fn physical_volumes(layout: &Layout, group: &str, limits: &Limits) -> Vec<PhysicalVolume> {
    let members = layout.volumes.iter().filter(|volume| {
        volume
            .physical
            .as_ref()
            .is_some_and(|membership| membership.vg_name == group)
    });
    members
        .filter_map(|volume| {
            // The scan has already reported what is wrong with it.
            let read =
                drylab_volume::lvm::read_physical(volume.source.as_ref(), limits, &mut Vec::new())
                    .ok()??;
            let disk = volume.map.at(0).map(|(spot, _)| spot.disk)?;
            Some(PhysicalVolume {
                disk,
                bytes_claimed: read.0.claimed,
                bytes_present: volume.length(),
            })
        })
        .collect()
}

/// Whether the first sector ends in 55 AA and is more than zeros.
fn has_boot_sector(source: &dyn ReadAt) -> bool {
    let mut sector = [0u8; 512];
    source.read_at(0, &mut sector).is_ok()
        && array_at::<2>(&sector, 510) == Some([0x55, 0xaa])
        && sector.iter().take(446).any(|byte| *byte != 0)
}

/// The table's entry of a partition.
fn entry<'a>(volume: &Volume, layout: &'a Layout) -> Option<(&'a drylab_volume::Partition, u64)> {
    let VolumeName::Partition { disk, number } = volume.name else {
        return None;
    };
    let disk = layout.disks.get(disk)?;
    let partition = disk
        .table
        .as_ref()?
        .partitions
        .iter()
        .find(|partition| partition.number == number)?;
    Some((partition, disk.length))
}

fn claimed(volume: &Volume, layout: &Layout) -> u64 {
    entry(volume, layout).map_or(volume.length(), |(partition, _)| partition.length())
}

/// Why a volume is not whole.
fn broken(volume: &Volume, layout: &Layout) -> Option<Witness> {
    if let Some((partition, length)) = entry(volume, layout) {
        let end = partition.start_byte().saturating_add(partition.length());
        return (end > length).then(|| {
            Witness::disk(
                format!("{} in the partition table", volume.name),
                format!("ends at byte {end}, the disk at {length}"),
            )
        });
    }
    volume.map.segments().find_map(|(_, segment)| {
        let legs = u64::try_from(segment.legs.len()).unwrap_or(1).max(1);
        let length = segment.length.checked_div(legs).unwrap_or(segment.length);
        let leg = segment.legs.iter().find(|leg| {
            let there = layout.disks.get(leg.disk).map_or(0, |disk| disk.length);
            leg.offset.saturating_add(length) > there
        })?;
        let there = layout.disks.get(leg.disk).map_or(0, |disk| disk.length);
        let says = format!(
            "a segment ends at byte {} of disk {}, which ends at {there}",
            leg.offset.saturating_add(length),
            leg.disk
        );
        Some(Witness::disk(
            format!("LVM metadata of {}", volume.name),
            says,
        ))
    })
}

fn witness(volume: &Volume) -> Witness {
    let says = format!("{} bytes at {}", volume.length(), volume.start_byte());
    match &volume.name {
        VolumeName::Whole { disk } => Witness::disk(format!("disk {disk}"), says),
        VolumeName::Partition { disk, number } => {
            Witness::disk(format!("disk {disk} partition table entry {number}"), says)
        }
        VolumeName::Logical { vg, lv } => Witness::disk(format!("LVM metadata of {vg}/{lv}"), says),
    }
}
