//! What a real disk holds.
//!
//! [`facts`] turns a guest into rows, each with the place it was read; text and JSON are two prints of the same rows.

mod linux;
mod windows;

use crate::{harmless, print};
use drylab_block::{Finding, Severity};
use drylab_catalog::{Place, Witness};
use drylab_guest::inspect::{
    BootCode, DiskFact, Guest, Sourced, System, Table, VolumeFact, VolumeKind,
};
use drylab_image::Info;
use serde::Serialize;
use std::fmt::Write;

/// An image file around a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Name of the file, or of the member in an archive.
    pub name: String,
    /// Length of the file in bytes, with the extents that it names.
    pub file_bytes: u64,
    /// What opening it told.
    pub info: Info,
}

/// Something a reader noticed, with the file it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// Name of the file.
    pub place: String,
    /// What was noticed.
    pub finding: Finding,
}

/// One fact of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it belongs to: `disks`, `volumes`, `system`, `boot`, `fstab`, `network`, `services`.
    pub section: &'static str,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// File and line, registry key, or structure on the disk.
    pub r#where: String,
}

/// Collects facts of one section after the other.
struct Rows {
    section: &'static str,
    rows: Vec<Fact>,
}

impl Rows {
    fn add(&mut self, name: impl Into<String>, value: impl Into<String>, place: impl Into<String>) {
        self.rows.push(Fact {
            section: self.section,
            name: name.into(),
            value: value.into(),
            r#where: place.into(),
        });
    }

    fn sourced(&mut self, name: &str, fact: &Sourced<String>) {
        self.add(name, fact.value.clone(), place(&fact.witness));
    }
}

/// Where a witness stands, without what it says.
fn place(witness: &Witness) -> String {
    match &witness.place {
        Place::Disk(what) => format!("{what} ({})", witness.says),
        place => place.to_string(),
    }
}

/// All facts of a guest, in the order they are shown.
#[must_use]
pub fn facts(guest: &Guest) -> Vec<Fact> {
    let mut rows = Rows {
        section: "disks",
        rows: Vec::new(),
    };
    for (index, disk) in guest.disks.iter().enumerate() {
        rows.add(
            format!("disk {index}"),
            of_disk(disk),
            format!("disk {index} sector 0"),
        );
    }
    rows.section = "volumes";
    for (index, volume) in guest.layout.iter().enumerate() {
        let root = if index == guest.root { ", root" } else { "" };
        let value = format!("{}{root}", of_volume(volume));
        rows.add(volume.name(), value, place(&volume.witness));
        if let Some(broken) = &volume.broken {
            rows.add(
                volume.name(),
                format!("broken: {}", broken.says),
                place(broken),
            );
        }
    }
    rows.section = "system";
    let os = &guest.os;
    rows.sourced("name", &os.pretty);
    rows.sourced("distribution", &os.name);
    rows.sourced("version", &os.version);
    rows.sourced("architecture", &os.arch);
    if let Some(hostname) = &guest.hostname {
        rows.sourced("host name", hostname);
    }
    match &guest.system {
        System::Linux(linux) => linux::facts(&mut rows, guest, linux),
        System::Windows(windows) => windows::facts(&mut rows, guest, windows),
    }
    rows.rows
}

fn of_disk(disk: &DiskFact) -> String {
    let table = match disk.table {
        Table::None => "no partition table",
        Table::Mbr => "MBR",
        Table::Gpt => "GPT",
    };
    let code = match disk.boot_code {
        BootCode::None => "no boot code",
        BootCode::Grub => "GRUB's boot code",
        BootCode::Chain => "boot code that starts the active partition",
    };
    format!(
        "{}, {table}, signature {:08x}, {code}",
        size(disk.bytes),
        disk.signature
    )
}

fn of_volume(volume: &VolumeFact) -> String {
    let mut value = size(volume.bytes);
    if let VolumeKind::Partition {
        type_byte, active, ..
    } = &volume.kind
    {
        let _ = write!(value, ", type {type_byte:#04x}");
        value.push_str(if *active { " active" } else { "" });
    }
    if let Some(found) = &volume.filesystem {
        let _ = write!(value, ", {}", found.kind);
        for (name, text) in [("UUID", &found.uuid), ("label", &found.label)] {
            if !text.is_empty() {
                let _ = write!(value, ", {name} {text}");
            }
        }
    }
    value
}

/// `8589934592 bytes (8.0 GiB)`
fn size(bytes: u64) -> String {
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes % unit) * 10 / u128::from(*unit);
            format!("{bytes} bytes ({}.{tenths} {name})", bytes / unit)
        }
        None => format!("{bytes} bytes"),
    }
}

/// The containers and what was noticed in them, as text.
#[must_use]
pub fn containers_text(containers: &[Container], noticed: &[Noticed]) -> String {
    harmless(&outside_text(containers, noticed))
}

fn outside_text(containers: &[Container], noticed: &[Noticed]) -> String {
    let mut text = String::new();
    for container in containers {
        let info = &container.info;
        let format = format!("{} {}", info.format, info.subformat);
        let _ = writeln!(
            text,
            "container {}\n  {}, {} for the guest, file of {}",
            container.name,
            format.trim_end(),
            size(info.virtual_size),
            size(container.file_bytes)
        );
        for (key, value) in &info.details {
            let _ = writeln!(text, "  {key} = {value}");
        }
    }
    for one in noticed {
        let finding = &one.finding;
        let _ = writeln!(
            text,
            "  {} {}  {} at byte {}: {}",
            severity(finding.severity),
            finding.code,
            one.place,
            finding.offset,
            finding.message
        );
    }
    text
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Everything an inspection found, as text: one fact a line, with its place behind.
#[must_use]
pub fn inspect_text(containers: &[Container], noticed: &[Noticed], guest: &Guest) -> String {
    let mut text = outside_text(containers, noticed);
    let mut section = "";
    for fact in facts(guest) {
        if fact.section != section {
            section = fact.section;
            let _ = writeln!(text, "{section}");
        }
        let _ = write!(text, "  {:<20}  {}", fact.name, fact.value);
        let _ = match fact.r#where.as_str() {
            "" => writeln!(text),
            place => writeln!(text, "  <- {place}"),
        };
    }
    for finding in &guest.findings {
        let _ = writeln!(
            text,
            "{} {}: {}",
            severity(finding.severity),
            finding.code,
            finding.message
        );
    }
    harmless(&text)
}

#[derive(Serialize)]
struct InspectDocument<'a> {
    format: u32,
    containers: Vec<ContainerDocument<'a>>,
    facts: Vec<Fact>,
    findings: Vec<NoticedDocument<'a>>,
}

#[derive(Serialize)]
struct ContainerDocument<'a> {
    name: &'a str,
    format: String,
    subformat: &'a str,
    virtual_bytes: u64,
    file_bytes: u64,
    details: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize)]
struct NoticedDocument<'a> {
    place: &'a str,
    code: &'a str,
    severity: &'static str,
    offset: u64,
    message: &'a str,
}

/// Everything an inspection found, for programs. `place` is empty for what was noticed inside the guest.
#[must_use]
pub fn inspect_json(containers: &[Container], noticed: &[Noticed], guest: &Guest) -> String {
    let container = |container: &'_ Container| container.info.format.to_string();
    let outside = noticed.iter().map(|one| (one.place.as_str(), &one.finding));
    let inside = guest.findings.iter().map(|finding| ("", finding));
    print(&InspectDocument {
        format: 1,
        containers: containers
            .iter()
            .map(|found| ContainerDocument {
                name: &found.name,
                format: container(found),
                subformat: &found.info.subformat,
                virtual_bytes: found.info.virtual_size,
                file_bytes: found.file_bytes,
                details: found
                    .info
                    .details
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect(),
            })
            .collect(),
        facts: facts(guest),
        findings: outside
            .chain(inside)
            .map(|(place, finding)| NoticedDocument {
                place,
                code: finding.code,
                severity: severity(finding.severity),
                offset: finding.offset,
                message: &finding.message,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_exact_and_readable() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1536), "1536 bytes (1.5 KiB)");
        assert_eq!(size(8 << 30), "8589934592 bytes (8.0 GiB)");
        assert_eq!(size((1 << 30) - 1), "1073741823 bytes (1023.9 MiB)");
        assert_eq!(
            size(u64::MAX),
            "18446744073709551615 bytes (16777215.9 TiB)"
        );
    }
}
