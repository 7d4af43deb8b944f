//! Which reader takes a file: the magic of the first bytes, then what the reader itself demands.

use super::disk::{Disk, Padded, Sectors};
use super::{Input, parallels, qcow, qed, vdi, vmdk, vpc};
use crate::ToolError;
use drylab_block::{ReadAt, Reference, be_u32, be_u64, le_u32, slice_at};
use drylab_catalog::Witness;
use std::sync::Arc;

/// Readers, by the names of `-f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Raw,
    Vmdk,
    Vpc,
    Qcow,
    Qcow2,
    Qed,
    Vdi,
    Parallels,
}

const DRIVERS: [(&str, Driver); 8] = [
    ("raw", Driver::Raw),
    ("vmdk", Driver::Vmdk),
    ("vpc", Driver::Vpc),
    ("qcow", Driver::Qcow),
    ("qcow2", Driver::Qcow2),
    ("qed", Driver::Qed),
    ("vdi", Driver::Vdi),
    ("parallels", Driver::Parallels),
];
/// Backing files behind backing files that are followed.
const CHAIN_MAX: u32 = 16;

impl Driver {
    fn named(name: &str) -> Option<Self> {
        let found = DRIVERS.iter().find(|(known, _)| *known == name);
        found.map(|(_, driver)| *driver)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = DRIVERS.iter().find(|(_, driver)| *driver == self);
        found.map_or("raw", |(name, _)| name)
    }

    /// By the first bytes; what nobody knows is raw.
    fn probe(file: &Padded) -> drylab_block::Result<Self> {
        let head: [u8; 512] = file.head()?;
        let qfi = head.starts_with(b"QFI\xfb");
        Ok(match head.get(..4) {
            Some(b"KDMV" | b"COWD") => Self::Vmdk,
            Some(b"cone") if head.starts_with(b"conectix") => Self::Vpc,
            Some(b"QED\0") => Self::Qed,
            Some(b"With")
                if head.starts_with(b"WithoutFreeSpace") && le_u32(&head, 0x10) == Some(2) =>
            {
                Self::Parallels
            }
            _ if qfi && be_u32(&head, 4) == Some(1) => Self::Qcow,
            _ if qfi && be_u32(&head, 4) >= Some(2) => Self::Qcow2,
            _ if le_u32(&head, 0x40) == Some(vdi::SIGNATURE) => Self::Vdi,
            _ => Self::Raw,
        })
    }
}

/// An opened input.
pub(crate) struct Opened {
    pub(crate) disk: Arc<dyn ReadAt>,
    pub(crate) driver: Driver,
    pub(crate) cluster_size: u64,
    pub(crate) backing: Option<String>,
    pub(crate) snapshots: u32,
    /// What was printed although it went on.
    pub(crate) said: Vec<String>,
    pub(crate) notes: Vec<Witness>,
}

impl Opened {
    fn of(disk: Arc<dyn ReadAt>, driver: Driver) -> Self {
        Self {
            disk,
            driver,
            cluster_size: 0,
            backing: None,
            snapshots: 0,
            said: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Opens an input as the tool's block layer does.
pub(crate) fn open(input: &Input<'_>) -> Result<Opened, ToolError> {
    open_at(input, 0)
}

fn open_at(input: &Input<'_>, depth: u32) -> Result<Opened, ToolError> {
    let could_not = format!("qemu-img: Could not open '{}'", input.name);
    let Some(file) = input.file else {
        return Err(ToolError::new(could_not));
    };
    let file = Padded(file.clone());
    let driver = match input.declared {
        Some(name) => Driver::named(name).ok_or_else(|| {
            let says = format!("qemu-img: Unknown file format '{name}'");
            let error = ToolError::new(says);
            if name == "vhdx" {
                error.because(Witness::quirk("GQ116"))
            } else {
                error
            }
        })?,
        None => Driver::probe(&file)?,
    };
    let opened = read_with(driver, &file, input.name)
        .map_err(|error| explain(error, driver, &file, &could_not))?;
    let (mut disk, mut opened) = match opened {
        (None, opened) => return Ok(opened),
        (Some(disk), opened) => (disk, opened),
    };
    if let Some(name) = opened.backing.clone() {
        let reference = Reference {
            kind: "backing file",
            name: name.clone(),
            by: String::new(),
        };
        if depth >= CHAIN_MAX {
            return Err(ToolError::new(could_not));
        }
        let behind = input.resolver.resolve(&reference).map_err(|error| {
            ToolError::new(could_not.clone()).because(Witness::disk(input.name, error.to_string()))
        })?;
        let behind = Input {
            name: &name,
            file: Some(&behind),
            declared: None,
            resolver: input.resolver,
        };
        disk.backing = Some(open_at(&behind, depth.saturating_add(1))?.disk);
    }
    opened.disk = Arc::new(disk);
    Ok(opened)
}

enum Failure {
    Damaged(drylab_block::Error),
    Version(u32),
}

impl From<drylab_block::Error> for Failure {
    fn from(error: drylab_block::Error) -> Self {
        Self::Damaged(error)
    }
}

impl From<qcow::Refused> for Failure {
    fn from(refused: qcow::Refused) -> Self {
        match refused {
            qcow::Refused::Version(version) => Self::Version(version),
            qcow::Refused::Damaged(error) => Self::Damaged(error),
        }
    }
}

fn read_with(driver: Driver, file: &Padded, name: &str) -> Result<(Option<Disk>, Opened), Failure> {
    let nothing: Arc<dyn ReadAt> = Arc::new(Vec::new());
    let mut opened = Opened::of(nothing, driver);
    let disk = match driver {
        Driver::Raw => {
            opened.disk = Arc::new(Sectors(file.0.clone()));
            opened.notes = raw_notes(file)?;
            return Ok((None, opened));
        }
        Driver::Vmdk => {
            let (disk, parent) = vmdk::open(file.clone())?;
            opened.backing = parent;
            opened.notes = vmdk_notes(file)?;
            disk
        }
        Driver::Vpc => {
            let (disk, wrong) = vpc::open(file.clone())?;
            if wrong {
                opened.said.push(format!(
                    "block-vpc: The header checksum of '{name}' is incorrect."
                ));
            }
            opened.notes = vpc_notes(file, disk.len())?;
            disk
        }
        Driver::Qcow | Driver::Qcow2 => {
            let found = if driver == Driver::Qcow {
                qcow::open_v1(file.clone())?
            } else {
                qcow::open_v2(file.clone())?
            };
            (opened.cluster_size, opened.backing, opened.snapshots) =
                (found.cluster, found.backing, found.snapshots);
            found.disk
        }
        Driver::Qed => {
            let (disk, cluster, backing) = qed::open(file.clone())?;
            (opened.cluster_size, opened.backing) = (cluster, backing);
            disk
        }
        Driver::Vdi => {
            opened.cluster_size = 1 << 20;
            vdi::open(file.clone())?
        }
        Driver::Parallels => parallels::open(file.clone())?,
    };
    Ok((Some(disk), opened))
}

/// The tool's message, with what we know of the cause.
fn explain(failure: Failure, driver: Driver, file: &Padded, could_not: &str) -> ToolError {
    let (message, why) = match failure {
        Failure::Version(version) => (
            format!(
                "'' uses a qcow2 feature which is not supported by this qemu version: QCOW version {version}\n{could_not}"
            ),
            format!("qcow2 version {version}"),
        ),
        Failure::Damaged(error) => (could_not.to_owned(), error.to_string()),
    };
    let head: [u8; 0x40] = file.head().unwrap_or([0; 0x40]);
    let quirk = match driver {
        Driver::Vmdk if be_u64(&head, 0x38) == Some(u64::MAX) => Some("GQ111"),
        Driver::Vpc => Some("GQ115"),
        Driver::Qcow2 => Some("GQ116"),
        Driver::Vdi => Some("GQ119"),
        _ => None,
    };
    let error = ToolError::new(message).because(Witness::disk(driver.name(), why));
    match quirk {
        Some(id) => error.because(Witness::quirk(id)),
        None => error,
    }
}

fn raw_notes(file: &Padded) -> drylab_block::Result<Vec<Witness>> {
    let head: [u8; 32] = file.head()?;
    let length = file.0.len();
    let mut notes = Vec::new();
    if head.starts_with(b"# Disk DescriptorFile") {
        notes.push(Witness::quirk("GQ109"));
    }
    if head.starts_with(b"vhdxfile") {
        notes.push(Witness::quirk("GQ116"));
    }
    let mut tail = [0; 8];
    if length > 512 {
        file.read(length.saturating_sub(512), &mut tail)?;
    }
    if &tail == b"conectix" {
        notes.push(Witness::quirk("GQ115"));
    }
    if !length.is_multiple_of(512) {
        notes.push(Witness::quirk("DQ500"));
    }
    Ok(notes)
}

fn vmdk_notes(file: &Padded) -> drylab_block::Result<Vec<Witness>> {
    let head: [u8; 80] = file.head()?;
    if head.starts_with(b"COWD") {
        return Ok(vec![Witness::quirk("GQ118")]);
    }
    let packed = le_u32(&head, 8).is_some_and(|flags| flags & 0x0001_0000 != 0);
    let method = slice_at(&head, 0x4d, 2).is_some_and(|method| method != [0, 0]);
    Ok(if packed || method {
        vec![Witness::quirk("GQ110")]
    } else {
        Vec::new()
    })
}

fn vpc_notes(file: &Padded, length: u64) -> drylab_block::Result<Vec<Witness>> {
    let head: [u8; 512] = file.head()?;
    let said = be_u64(&head, 0x30).unwrap_or(length);
    let mut notes = Vec::new();
    if said != length {
        notes.push(Witness::disk(
            "VHD footer",
            format!("current size {said}, geometry {length}"),
        ));
        notes.push(Witness::quirk("GQ112"));
    }
    if said > length && length == crate::math::bytes(65_535 * 16 * 255) {
        notes.push(Witness::quirk("GQ113"));
    }
    // The type is never looked at.
    if be_u32(&head, 0x3c) == Some(DIFFERENCING) {
        let says = "disk type 4, differencing: read without its parent";
        notes.push(Witness::disk("VHD footer", says));
        notes.push(Witness::quirk("GQ143"));
    }
    Ok(notes)
}

/// Disk type of a VHD that has a parent.
const DIFFERENCING: u32 = 4;
