//! From disks to volumes.

use crate::lvm::{self, PhysicalVolume};
use crate::map::{Map, Mapped};
use crate::mbr::{Mbr, Role, SECTOR};
use drylab_block::{Finding, Limits, ReadAt, Result, Severity};
use std::fmt;
use std::sync::Arc;

/// Names a volume; printed it is the key used for overlays: `p1`, `disk1:p2`, `vg_centos/lv_root`, `whole`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeName {
    /// A disk without a table.
    Whole {
        /// Index of the disk.
        disk: usize,
    },
    /// A primary or logical partition.
    Partition {
        /// Index of the disk.
        disk: usize,
        /// Number as Linux counts.
        number: u32,
    },
    /// A logical volume.
    Logical {
        /// Volume group.
        vg: String,
        /// Name within it.
        lv: String,
    },
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { disk: 0 } => f.write_str("whole"),
            Self::Whole { disk } => write!(f, "disk{disk}:whole"),
            Self::Partition { disk: 0, number } => write!(f, "p{number}"),
            Self::Partition { disk, number } => write!(f, "disk{disk}:p{number}"),
            Self::Logical { vg, lv } => write!(f, "{vg}/{lv}"),
        }
    }
}

/// What LVM says of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// UUID of the volume group, dashed as LVM prints it.
    pub vg_uuid: String,
    /// UUID of the logical volume.
    pub lv_uuid: String,
}

/// The volume group a partition or disk is a physical volume of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// UUID of the physical volume, dashed.
    pub pv_uuid: String,
    /// Name of the group; empty when the metadata does not say.
    pub vg_name: String,
}

/// Something that can hold a filesystem.
#[derive(Clone)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// Its bytes, cut at the end of the disk as Linux cuts a partition that claims more.
    pub source: Arc<dyn ReadAt>,
    /// Where the bytes stand: [`WindowMut`](crate::WindowMut) writes through it.
    pub map: Arc<Map>,
    /// Type byte of the partition.
    pub mbr_type: Option<u8>,
    /// Whether the partition is marked active.
    pub active: bool,
    /// Set for a logical volume.
    pub logical: Option<Logical>,
    /// Set when it is a physical volume itself.
    pub physical: Option<Membership>,
}

impl Volume {
    /// Byte on its (first) disk where it begins.
    #[must_use]
    pub fn start_byte(&self) -> u64 {
        self.map.at(0).map_or(0, |(spot, _)| spot.offset)
    }

    /// Number of bytes that can be read.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.map.length()
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Volume({} at {}+{})",
            self.name,
            self.start_byte(),
            self.length()
        )
    }
}

/// What stands on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    /// Length in bytes.
    pub length: u64,
    /// The table, when sector 0 is one.
    pub table: Option<Mbr>,
}

/// What stands on the disks.
#[derive(Clone, Debug)]
pub struct Layout {
    /// By disk.
    pub disks: Vec<DiskLayout>,
    /// Partitions and whole disks in disk order, then logical volumes by group and name.
    pub volumes: Vec<Volume>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

impl Layout {
    /// The volume whose name prints as `key`.
    #[must_use]
    pub fn volume(&self, key: &str) -> Option<&Volume> {
        self.volumes
            .iter()
            .find(|volume| volume.name.to_string() == key)
    }
}

/// [`scan_all`] of one disk.
///
/// # Errors
/// As [`scan_all`].
pub fn scan(disk: Arc<dyn ReadAt>, limits: &Limits) -> Result<Layout> {
    scan_all(&[disk], limits)
}

/// Finds every volume of these disks; a volume group may span them.
///
/// # Errors
/// [`drylab_block::Error::Corrupt`] for a circular chain of extended partitions or circular LVM metadata,
/// [`drylab_block::Error::Io`] when a disk cannot be read. Everything else is a finding.
pub fn scan_all(disks: &[Arc<dyn ReadAt>], limits: &Limits) -> Result<Layout> {
    let shared: Arc<[Arc<dyn ReadAt>]> = disks.into();
    let mut layout = Layout {
        disks: Vec::new(),
        volumes: Vec::new(),
        findings: Vec::new(),
    };
    for (index, disk) in disks.iter().enumerate() {
        scan_table(&shared, index, disk.as_ref(), limits, &mut layout).map_err(|error| {
            if index == 0 {
                error
            } else {
                error.within(format_args!("disk {index}"))
            }
        })?;
    }
    let mut physical = Vec::new();
    for volume in &mut layout.volumes {
        let found = lvm::read_physical(volume.source.as_ref(), limits, &mut layout.findings)?;
        let Some((pv, text)) = found else { continue };
        let at = volume.map.at(0).map(|(spot, _)| spot);
        volume.physical = Some(Membership {
            pv_uuid: pv.uuid.clone(),
            vg_name: text
                .as_ref()
                .map(|group| group.name.clone())
                .unwrap_or_default(),
        });
        if let Some(at) = at {
            physical.push((PhysicalVolume { at, ..pv }, text));
        }
    }
    let logical = lvm::logical_volumes(physical, limits, &mut layout.findings)?;
    for (name, logical, map) in logical {
        let map = Arc::new(map);
        layout.volumes.push(Volume {
            name,
            source: Arc::new(Mapped {
                disks: shared.clone(),
                map: map.clone(),
            }),
            map,
            mbr_type: None,
            active: false,
            logical: Some(logical),
            physical: None,
        });
    }
    Ok(layout)
}

fn scan_table(
    disks: &Arc<[Arc<dyn ReadAt>]>,
    index: usize,
    disk: &dyn ReadAt,
    limits: &Limits,
    layout: &mut Layout,
) -> Result<()> {
    let length = disk.len();
    let table = Mbr::read(disk, limits, &mut layout.findings)?;
    let plain = |name, start, length, mbr_type, active| {
        let map = Arc::new(Map::linear(index, start, length));
        let source = Arc::new(Mapped {
            disks: disks.clone(),
            map: map.clone(),
        });
        Volume {
            name,
            source,
            map,
            mbr_type,
            active,
            logical: None,
            physical: None,
        }
    };
    let before = layout.volumes.len();
    for partition in table.iter().flat_map(|table| &table.partitions) {
        // An extended partition is a container; a protective one says that the real table is elsewhere.
        if partition.role == Role::Extended || partition.type_byte == 0xee {
            continue;
        }
        let start = partition.start_byte();
        let there = partition.length().min(length.saturating_sub(start));
        if there > 0 {
            let name = VolumeName::Partition {
                disk: index,
                number: partition.number,
            };
            layout.volumes.push(plain(
                name,
                start,
                there,
                Some(partition.type_byte),
                partition.active,
            ));
        }
    }
    let protective = table.as_ref().is_some_and(|table| table.protective);
    if protective {
        layout.findings.push(Finding {
            code: "GPT-NOT-READ",
            severity: Severity::Warning,
            offset: SECTOR,
            message: format!(
                "disk {index} has a protective table: its GUID partition table is not read"
            ),
        });
    }
    let has_partitions = table
        .as_ref()
        .is_some_and(|table| !table.partitions.is_empty());
    if layout.volumes.len() == before && !has_partitions && !protective && length > 0 {
        layout.volumes.push(plain(
            VolumeName::Whole { disk: index },
            0,
            length,
            None,
            false,
        ));
    }
    layout.disks.push(DiskLayout { length, table });
    Ok(())
}
