//! Disks whose bytes lie as they are in other files: a descriptor, and an extent or more.
//!
//! ```text
//! createType="monolithicFlat"      RW 4192256 FLAT "disk-flat.vmdk" 0      hosted products
//! createType="vmfs"                RW 4192256 VMFS "disk-flat.vmdk"        a datastore of ESXi
//! createType="twoGbMaxExtentFlat"  RW 4192256 FLAT "disk-f001.vmdk" 0 …    hosted products, in parts
//! any of them                      RW 4192256 ZERO                         zeros without a file
//! ```
//!
//! Extents follow each other; the number behind a name is the sector of the file at which the extent starts. A name
//! must be one of a file beside the descriptor: with a folder, a drive or a way up in it, it is refused before the
//! caller's [`Resolver`] is asked, and the [`Resolver`] decides about the rest, links among it.

use super::VmdkOptions;
use super::descriptor::{Descriptor, ExtentLine, Sole, compose};
use super::header::{SECTOR, capacity_of};
use super::read::refuse_parent;
use super::rules;
use crate::container::{Container, Opener};
use crate::finding::{Finding, Findings};
use crate::math::len64;
use crate::raw::write_raw;
use crate::write::Written;
use drylab_block::{Below, Error, Extent, ExtentKind, Limits, ReadAt, Result, WriteAt, read_vec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types whose extents are flat.
pub(crate) const TYPES: [&str; 3] = ["monolithicFlat", "vmfs", "twoGbMaxExtentFlat"];

/// A flat disk to write: who reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlatKind {
    /// `monolithicFlat`, of VMware's hosted products and `qemu-img`.
    #[default]
    Monolithic,
    /// `vmfs`, of a datastore of ESXi.
    Vmfs,
}

impl FlatKind {
    fn sole(self) -> Sole {
        let (create_type, kind, behind) = match self {
            Self::Monolithic => ("monolithicFlat", "FLAT", " 0"),
            Self::Vmfs => ("vmfs", "VMFS", ""),
        };
        Sole {
            create_type,
            access: "RW",
            kind,
            behind,
        }
    }
}

/// The descriptor of a disk whose bytes lie, padded to sectors of 512 bytes, in a file called
/// [`file_name`](VmdkOptions::file_name).
///
/// # Errors
/// [`Error::Unsupported`] for a file name that cannot stand there; what reading the disk finds.
pub fn flat_descriptor(disk: &dyn ReadAt, options: &VmdkOptions, kind: FlatKind) -> Result<String> {
    compose(
        &kind.sole(),
        capacity_of(disk.len()),
        options.cid(disk)?,
        options,
    )
}

/// Writes the bytes of `disk` to `extent`, padded to sectors; the text is the descriptor to put beside it.
///
/// # Errors
/// As [`flat_descriptor`]; what writing finds.
pub fn write_flat(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    kind: FlatKind,
    extent: &dyn WriteAt,
) -> Result<(String, Written)> {
    let text = flat_descriptor(disk, options, kind)?;
    if extent.len() != 0 {
        extent.set_len(0)?;
    }
    write_raw(disk, extent)?;
    let file_bytes = capacity_of(disk.len()).saturating_mul(SECTOR);
    extent.set_len(file_bytes)?;
    Ok((text, Written { file_bytes }))
}

/// One extent: `length` bytes of the disk from `start`.
struct Part {
    start: u64,
    length: u64,
    /// The file and the byte of it at which the extent starts; zeros without one.
    bytes: Option<(Arc<dyn ReadAt>, u64)>,
}

/// An open flat disk.
pub(crate) struct Flat {
    descriptor: Descriptor,
    size: u64,
    /// In ascending order, without gaps; none is empty.
    parts: Vec<Part>,
    findings: Findings,
}

impl Flat {
    /// Reads the descriptor in `source` and opens what it names through `resolver`.
    pub(crate) fn open(source: &dyn ReadAt, opener: &Opener<'_>) -> Result<Self> {
        let limits = opener.limits;
        let (length, most) = (source.len(), limits.text_bytes_max);
        if length > most {
            return Err(Error::unsupported(format_args!(
                "VMDK descriptor of {length} bytes, more than the {most} allowed"
            )));
        }
        let text = read_vec(source, "VMDK descriptor", 0, length, limits)?;
        let descriptor = Descriptor::parse(&text, limits)?;
        let kind = check(&descriptor, limits)?;
        let within = |error: Error| error.within(format_args!("VMDK {kind}"));
        let mut disk = Self {
            size: 0,
            parts: Vec::new(),
            findings: Findings::default(),
            descriptor: Descriptor::default(),
        };
        let mut files = BTreeMap::new();
        for (number, line) in descriptor.extents.iter().enumerate() {
            disk.add(number, line, limits, |name| file(name, &mut files, opener))
                .map_err(within)?;
        }
        disk.descriptor = descriptor;
        Ok(disk)
    }

    fn add(
        &mut self,
        number: usize,
        line: &ExtentLine,
        limits: &Limits,
        open: impl FnOnce(&str) -> Result<Arc<dyn ReadAt>>,
    ) -> Result<()> {
        let ExtentLine {
            access,
            sectors,
            kind,
            name,
            offset,
        } = line;
        let length = sectors.checked_mul(SECTOR);
        let end = length.and_then(|length| self.size.checked_add(length));
        let (Some(length), Some(end)) = (length, end.filter(|end| *end <= limits.disk_bytes_max))
        else {
            return Err(Error::unsupported(format_args!(
                "extent {number} of {sectors} sectors takes the disk past the {} bytes allowed",
                limits.disk_bytes_max
            )));
        };
        if access.eq_ignore_ascii_case("NOACCESS") {
            return Err(Error::unsupported(format_args!(
                "extent {number} ({name:?}) is NOACCESS: its bytes are not to be read"
            )));
        }
        let bytes = match kind.to_ascii_uppercase().as_str() {
            "ZERO" => None,
            "FLAT" | "VMFS" => {
                let from = offset.unwrap_or(0).saturating_mul(SECTOR);
                let file =
                    open(name).map_err(|error| error.within(format_args!("extent {number}")))?;
                self.check_file(number, line, &*file, from, length)?;
                Some((file, from))
            }
            _ => {
                return Err(Error::unsupported(format_args!(
                    "extent {number} ({name:?}) of type {kind}, read are FLAT, VMFS and ZERO"
                )));
            }
        };
        if length > 0 {
            self.parts.push(Part {
                start: self.size,
                length,
                bytes,
            });
        }
        self.size = end;
        Ok(())
    }

    /// Refuses an extent that its file cannot hold, and notes one that could be longer.
    fn check_file(
        &mut self,
        number: usize,
        line: &ExtentLine,
        file: &dyn ReadAt,
        from: u64,
        length: u64,
    ) -> Result<()> {
        let name = &line.name;
        let end = from.saturating_add(length);
        if end > file.len() {
            return Err(Error::corrupt(format_args!(
                "extent {number} takes {length} bytes from {from} of {name:?}, which has {}",
                file.len()
            )));
        }
        if line.offset.is_none() && end < file.len() {
            self.findings.push(Finding {
                rule: &rules::EXTENT_SIZE,
                file: name.clone(),
                offset: end,
                length: file.len().saturating_sub(end),
                path: format!("length of extent {number}"),
                expected: format!("{length} bytes"),
                found: format!("{} bytes", file.len()),
            });
        }
        Ok(())
    }

    /// The part that holds byte `offset` of the disk.
    fn part(&self, offset: u64) -> Option<&Part> {
        let behind = self.parts.partition_point(|part| part.start <= offset);
        self.parts.get(behind.checked_sub(1)?)
    }
}

/// The file of that name, opened once.
fn file(
    name: &str,
    files: &mut BTreeMap<String, Arc<dyn ReadAt>>,
    opener: &Opener<'_>,
) -> Result<Arc<dyn ReadAt>> {
    if let Some(known) = files.get(name) {
        return Ok(known.clone());
    }
    check_name(name)?;
    let found = opener.second("extent", name)?.bytes;
    files.insert(name.to_owned(), found.clone());
    Ok(found)
}

/// Refuses names that lead out of the descriptor's folder, or might on some system.
fn check_name(name: &str) -> Result<()> {
    let drive = name.as_bytes().get(1) == Some(&b':');
    let strange = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if name.is_empty() || name == "." || name == ".." || drive || name.contains(strange) {
        return Err(Error::unsupported(format_args!(
            "names {name:?}, which is no file beside the descriptor"
        )));
    }
    Ok(())
}

/// The type, when it is one of flat extents that this descriptor can describe.
fn check(descriptor: &Descriptor, limits: &Limits) -> Result<&'static str> {
    let found = descriptor
        .value("createType")
        .ok_or_else(|| Error::corrupt("VMDK descriptor has no createType"))?;
    let known = TYPES.iter().find(|known| known.eq_ignore_ascii_case(found));
    let kind = known.ok_or_else(|| refused(found))?;
    if let Some(line) = &descriptor.malformed {
        return Err(Error::corrupt(format_args!(
            "VMDK descriptor has a line {line:?}, which starts as an extent and is none"
        )));
    }
    let (count, most) = (len64(&descriptor.extents), limits.chain_max);
    if count == 0 {
        return Err(Error::corrupt("VMDK descriptor has no extent"));
    }
    if count > u64::from(most) {
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor with {count} extents, more than the {most} allowed"
        )));
    }
    if *kind == "monolithicFlat" && count != 1 {
        return Err(Error::corrupt(format_args!(
            "VMDK monolithicFlat has {count} extents, not 1"
        )));
    }
    refuse_parent(descriptor)?;
    Ok(kind)
}

/// The answer to a descriptor of extents that are not flat.
pub(crate) fn refused(create_type: &str) -> Error {
    Error::unsupported(format_args!(
        "format VMDK descriptor ({create_type}) whose extents are other files and not flat"
    ))
}

impl Container for Flat {
    fn subformat(&self) -> String {
        self.descriptor
            .value("createType")
            .unwrap_or_default()
            .to_owned()
    }

    fn details(&self) -> Vec<(String, String)> {
        self.descriptor.details()
    }

    fn noticed(&self) -> &Findings {
        &self.findings
    }
}

impl ReadAt for Flat {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = len64(buffer);
        if offset.checked_add(wanted).is_none_or(|end| end > self.size) {
            return Err(Error::io(format_args!(
                "read of {wanted} bytes at offset {offset} ends past the end ({})",
                self.size
            )));
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let none = || Error::io(format_args!("no extent holds offset {at}"));
            let part = self.part(at).ok_or_else(none)?;
            let within = at.saturating_sub(part.start);
            let take = part.length.saturating_sub(within).min(len64(rest));
            let (now, later) = rest
                .split_at_mut_checked(crate::math::index(take))
                .filter(|_| take > 0)
                .ok_or_else(none)?;
            match &part.bytes {
                Some((file, from)) => file.read_at(from.saturating_add(within), now)?,
                None => now.fill(0),
            }
            at = at.saturating_add(take);
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let Some(part) = self.part(offset) else {
            return Extent {
                offset,
                length: self.size.saturating_sub(offset),
                kind: ExtentKind::Hole,
            };
        };
        let within = offset.saturating_sub(part.start);
        let left = part.length.saturating_sub(within);
        let Some((file, from)) = &part.bytes else {
            return Extent {
                offset,
                length: left,
                kind: ExtentKind::Zero,
            };
        };
        let found = file.extent_at(from.saturating_add(within));
        Extent {
            offset,
            length: found.length.min(left),
            kind: found.kind,
        }
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let part = self.part(offset)?;
        let (file, from) = part.bytes.as_ref()?;
        let within = offset.saturating_sub(part.start);
        Some(Below {
            source: &**file,
            offset: from.saturating_add(within),
            length: part.length.saturating_sub(within),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "c:a",
            "a\0b",
            "a\nb",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["disk-flat.vmdk", "my disk.vmdk", "..a", "ä.vmdk"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
