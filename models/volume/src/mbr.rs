//! The DOS partition table (MBR) and its chain of extended boot records (EBR).
//!
//! Layout of sector 0, as every PC firmware and `sfdisk` agree (no formal specification exists; field names after
//! the UEFI specification 2.10 §5.2):
//!
//! ```text
//! 0x000  boot code, 440 bytes
//! 0x1b8  disk signature, u32           Windows: MountedDevices and the BCD name disks by it
//! 0x1be  4 entries of 16 bytes         +0 status (0x80 active) +4 type +8 first sector u32 +12 sectors u32
//! 0x1fe  55 aa
//! ```
//!
//! A type of 05, 0f or 85 is an extended partition: its first sector is an EBR of the same shape whose first entry
//! is a logical partition (relative to this EBR) and whose second is the next EBR (relative to the extended partition).

use drylab_block::{Error, Finding, Limits, ReadAt, Result, Severity, le_u32, slice_at};
use std::collections::BTreeSet;

/// Bytes in a sector. Tables count in these; other sector sizes are not supported.
pub const SECTOR: u64 = 512;

const ENTRIES: usize = 0x1be;

/// Which kind of entry a partition came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// One of the four of sector 0.
    Primary,
    /// One of the four, and the container of the logical ones.
    Extended,
    /// From the chain; numbered from 5.
    Logical,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number as Linux counts: 1 to 4 by slot, logical ones from 5.
    pub number: u32,
    /// Primary, extended or logical.
    pub role: Role,
    /// Whether the status byte has bit 7.
    pub active: bool,
    /// Type byte: 07 NTFS, 83 Linux, 82 swap, 8e LVM.
    pub type_byte: u8,
    /// First sector on the disk.
    pub start_sector: u64,
    /// Number of sectors as the table claims; the disk may end sooner.
    pub sectors: u64,
    /// Byte offset of the entry on the disk.
    pub entry_offset: u64,
}

impl Partition {
    /// First byte on the disk.
    #[must_use]
    pub fn start_byte(&self) -> u64 {
        self.start_sector.saturating_mul(SECTOR)
    }

    /// Number of bytes as the table claims.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    fn end_sector(&self) -> u64 {
        self.start_sector.saturating_add(self.sectors)
    }

    /// Whether the type byte says extended.
    #[must_use]
    pub fn is_extended_type(type_byte: u8) -> bool {
        matches!(type_byte, 0x05 | 0x0f | 0x85)
    }
}

/// The partition table of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mbr {
    /// Signature at 0x1b8, 0 when never set.
    pub disk_signature: u32,
    /// The 440 bytes before it.
    pub boot_code: Vec<u8>,
    /// Primary slots in use by slot, then logical partitions in chain order.
    pub partitions: Vec<Partition>,
    /// Whether a slot has type EE: the disk is partitioned by a GPT, which is not read.
    pub protective: bool,
}

impl Mbr {
    /// Whether there is any boot code.
    #[must_use]
    pub fn has_boot_code(&self) -> bool {
        self.boot_code.iter().any(|byte| *byte != 0)
    }

    /// Reads the table of `disk`; `None` when sector 0 is not one (no signature, or the boot sector of a filesystem).
    ///
    /// What can be gone on from is appended to `findings`: partitions past the end (Linux cuts or skips them),
    /// overlaps, a chain that leaves the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the chain of extended partitions comes back to itself or is longer than
    /// `limits.chain_max`.
    pub fn read(
        disk: &dyn ReadAt,
        limits: &Limits,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Self>> {
        if disk.len() < SECTOR {
            return Ok(None);
        }
        let sector = read_sector(disk, 0)?;
        if !has_signature(&sector) || is_filesystem_boot_sector(&sector) {
            return Ok(None);
        }
        let Some(entries) = parse_entries(&sector, 0) else {
            return Ok(None);
        };
        if entries.iter().any(|entry| entry.status & 0x7f != 0) {
            return Ok(None);
        }
        let mut table = Self {
            disk_signature: le_u32(&sector, 0x1b8).unwrap_or(0),
            boot_code: slice_at(&sector, 0, 440).unwrap_or_default().to_vec(),
            partitions: Vec::new(),
            protective: entries.iter().any(|entry| entry.type_byte == 0xee),
        };
        for (number, entry) in (1u32..).zip(&entries).filter(|(_, entry)| entry.in_use()) {
            let role = if Partition::is_extended_type(entry.type_byte) {
                Role::Extended
            } else {
                Role::Primary
            };
            table.partitions.push(entry.partition(number, role, 0));
        }
        let extended: Vec<Partition> = table
            .partitions
            .iter()
            .filter(|partition| partition.role == Role::Extended)
            .copied()
            .collect();
        for container in extended {
            follow_chain(disk, container, limits, &mut table.partitions, findings)?;
        }
        check_ranges(&table.partitions, disk.len() / SECTOR, findings);
        Ok(Some(table))
    }
}

fn read_sector(disk: &dyn ReadAt, sector: u64) -> Result<[u8; 512]> {
    let mut bytes = [0u8; 512];
    disk.read_at(sector.saturating_mul(SECTOR), &mut bytes)?;
    Ok(bytes)
}

/// Whether a sector ends in 55 aa.
#[must_use]
pub fn has_signature(sector: &[u8; 512]) -> bool {
    slice_at(sector, 0x1fe, 2) == Some(&[0x55, 0xaa])
}

/// NTFS and FAT put their own boot sector, with the same signature, where a table would stand.
fn is_filesystem_boot_sector(sector: &[u8; 512]) -> bool {
    let has = |offset, text: &[u8]| slice_at(sector, offset, text.len()) == Some(text);
    has(3, b"NTFS    ") || has(0x36, b"FAT") || has(0x52, b"FAT32")
}

#[derive(Clone, Copy)]
struct RawEntry {
    status: u8,
    type_byte: u8,
    start: u32,
    sectors: u32,
    offset: u64,
}

impl RawEntry {
    fn in_use(&self) -> bool {
        self.type_byte != 0 && self.sectors != 0
    }

    fn partition(&self, number: u32, role: Role, base: u64) -> Partition {
        Partition {
            number,
            role,
            active: self.status & 0x80 != 0,
            type_byte: self.type_byte,
            start_sector: base.saturating_add(u64::from(self.start)),
            sectors: u64::from(self.sectors),
            entry_offset: self.offset,
        }
    }
}

fn parse_entries(sector: &[u8; 512], at: u64) -> Option<[RawEntry; 4]> {
    let mut entries = [RawEntry {
        status: 0,
        type_byte: 0,
        start: 0,
        sectors: 0,
        offset: 0,
    }; 4];
    for (slot, entry) in entries.iter_mut().enumerate() {
        let offset = slot.checked_mul(16)?.checked_add(ENTRIES)?;
        let bytes = slice_at(sector, offset, 16)?;
        *entry = RawEntry {
            status: *bytes.first()?,
            type_byte: *bytes.get(4)?,
            start: le_u32(bytes, 8)?,
            sectors: le_u32(bytes, 12)?,
            offset: at
                .saturating_mul(SECTOR)
                .saturating_add(u64::try_from(offset).ok()?),
        };
    }
    Some(entries)
}

fn follow_chain(
    disk: &dyn ReadAt,
    container: Partition,
    limits: &Limits,
    partitions: &mut Vec<Partition>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let disk_sectors = disk.len() / SECTOR;
    let mut seen = BTreeSet::new();
    let mut number = partitions
        .iter()
        .map(|partition| partition.number)
        .max()
        .unwrap_or(0)
        .max(4);
    let mut at = container.start_sector;
    let mut from = container.entry_offset;
    loop {
        if !seen.insert(at) {
            return Err(Error::corrupt(format_args!(
                "extended boot record at sector {at}, linked from byte {from:#x}, was met before: the chain is a circle"
            )));
        }
        if u32::try_from(seen.len()).unwrap_or(u32::MAX) > limits.chain_max {
            return Err(Error::corrupt(format_args!(
                "the chain of extended boot records from sector {} is longer than {}",
                container.start_sector, limits.chain_max
            )));
        }
        if at >= disk_sectors {
            let message = format!(
                "extended boot record at sector {at} lies past the end of the disk ({disk_sectors} sectors)"
            );
            findings.push(finding(
                "MBR-EBR-BEYOND-END",
                Severity::Error,
                from,
                message,
            ));
            return Ok(());
        }
        let sector = read_sector(disk, at)?;
        let entries = parse_entries(&sector, at).filter(|_| has_signature(&sector));
        let Some(entries) = entries else {
            let message = format!(
                "sector {at} is linked as an extended boot record and has no 55 aa at its end"
            );
            findings.push(finding(
                "MBR-EBR-NO-SIGNATURE",
                Severity::Error,
                at.saturating_mul(SECTOR),
                message,
            ));
            return Ok(());
        };
        // As Linux does: whatever is not a link is a logical partition, the first link is followed.
        for entry in entries
            .iter()
            .filter(|entry| entry.in_use() && !Partition::is_extended_type(entry.type_byte))
        {
            number = number.saturating_add(1);
            let partition = entry.partition(number, Role::Logical, at);
            if partition.start_sector < container.start_sector
                || partition.end_sector() > container.end_sector()
            {
                let message = format!(
                    "logical partition {number} (sectors {}..{}) leaves the extended partition ({}..{})",
                    partition.start_sector,
                    partition.end_sector(),
                    container.start_sector,
                    container.end_sector()
                );
                findings.push(finding(
                    "MBR-LOGICAL-OUTSIDE",
                    Severity::Warning,
                    entry.offset,
                    message,
                ));
            }
            partitions.push(partition);
        }
        let link = entries
            .iter()
            .find(|entry| entry.in_use() && Partition::is_extended_type(entry.type_byte));
        let Some(link) = link else { return Ok(()) };
        at = container.start_sector.saturating_add(u64::from(link.start));
        from = link.offset;
    }
}

fn finding(code: &'static str, severity: Severity, offset: u64, message: String) -> Finding {
    Finding {
        code,
        severity,
        offset,
        message,
    }
}

fn check_ranges(partitions: &[Partition], disk_sectors: u64, findings: &mut Vec<Finding>) {
    for partition in partitions
        .iter()
        .filter(|partition| partition.end_sector() > disk_sectors)
    {
        let message = format!(
            "partition {} (sectors {}..{}) ends past the end of the disk ({disk_sectors} sectors)",
            partition.number,
            partition.start_sector,
            partition.end_sector()
        );
        findings.push(finding(
            "MBR-PARTITION-BEYOND-END",
            Severity::Error,
            partition.entry_offset,
            message,
        ));
    }
    // Sorted by start, an overlap is always met between a partition and the one that reached furthest before it.
    let mut inner: Vec<&Partition> = partitions
        .iter()
        .filter(|partition| partition.role != Role::Extended)
        .collect();
    inner.sort_by_key(|partition| (partition.start_sector, partition.number));
    let mut furthest: Option<&Partition> = None;
    for partition in inner {
        if let Some(before) = furthest.filter(|before| before.end_sector() > partition.start_sector)
        {
            let message = format!(
                "partition {} (sectors {}..{}) overlaps partition {} ({}..{})",
                partition.number,
                partition.start_sector,
                partition.end_sector(),
                before.number,
                before.start_sector,
                before.end_sector()
            );
            findings.push(finding(
                "MBR-OVERLAP",
                Severity::Error,
                partition.entry_offset,
                message,
            ));
        }
        if furthest.is_none_or(|before| before.end_sector() < partition.end_sector()) {
            furthest = Some(partition);
        }
    }
}
