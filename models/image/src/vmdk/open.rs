//! Opening a disk: its descriptor, the extents that it names, and its parents.
//!
//! ```text
//! createType="monolithicSparse"      RW 4192256 SPARSE "disk.vmdk"           the descriptor is inside the extent
//! createType="monolithicFlat"        RW 4192256 FLAT "disk-flat.vmdk" 0      hosted products
//! createType="vmfs"                  RW 4192256 VMFS "disk-flat.vmdk"        a datastore of ESXi
//! createType="twoGbMaxExtentFlat"    RW 4192256 FLAT "disk-f001.vmdk" 0 …    hosted products, in parts
//! createType="twoGbMaxExtentSparse"  RW 4192256 SPARSE "disk-s001.vmdk" …    the same, sparse
//! createType="vmfsSparse"            RW 4192256 VMFSSPARSE "disk-delta.vmdk" a snapshot of ESX
//! createType="seSparse"              RW 4192256 SESPARSE "disk-sesparse.vmdk" a snapshot of ESXi 6.5
//! any of them                        RW 4192256 ZERO                         zeros without a file
//! ```
//!
//! Extents follow each other; the number behind a name is the sector of the file at which the extent starts. A name must
//! be one of a file beside the descriptor: with a folder, a drive or a way up in it, it is refused before the caller's
//! [`Resolver`](drylab_block::Resolver) is asked, and the resolver decides about the rest, links among it. The same holds
//! for the parent of a snapshot, which VMware names with its folder: it is looked for beside the snapshot.
//!
//! The size of a sparse extent is the one of its header, as qemu-img has it, also where the line differs, unless its tables
//! and the line agree on another (see `capacity.rs`).

use super::descriptor::{Descriptor, ExtentLine};
use super::disk::{Body, Parent, Part, Vmdk};
use super::esx::{self, Esx};
use super::header::{MAGIC, SECTOR};
use super::hosted::Hosted;
use super::number;
use super::rules;
use super::text::Text;
use crate::container::Opener;
use crate::finding::{Finding, Findings};
use crate::image::Image;
use crate::math::len64;
use drylab_block::{Error, Limits, ReadAt, Result, read_vec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types whose descriptors are files of their own and whose extents are read.
pub(crate) const TYPES: [&str; 11] = [
    "monolithicFlat",
    "vmfs",
    "twoGbMaxExtentFlat",
    "twoGbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "vmfsThin",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsSparse",
    "seSparse",
];

impl Vmdk {
    /// Reads headers, descriptor and directories, and opens what they name through `opener`.
    pub(crate) fn open(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let length = source.len().min(8);
        let head = read_vec(&*source, "head of the file", 0, length, opener.limits)?;
        if head.starts_with(MAGIC) {
            Self::open_embedded(source, opener)
        } else if let Some(kind) = esx::Kind::of(&head) {
            Self::open_alone(source, kind, opener.limits)
        } else {
            Self::open_text(source, opener)
        }
    }

    pub(super) fn new(file: Arc<dyn ReadAt>, text: Text, descriptor: Descriptor) -> Self {
        let subformat = descriptor.value("createType").unwrap_or_default();
        Self {
            file,
            subformat: subformat.to_owned(),
            details: descriptor.details(),
            text,
            descriptor,
            size: 0,
            parts: Vec::new(),
            parent: None,
            table_bytes: 0,
            findings: Findings::default(),
        }
    }

    /// A sparse extent of ESX without the descriptor that names it.
    fn open_alone(source: Arc<dyn ReadAt>, kind: esx::Kind, limits: &Limits) -> Result<Self> {
        let esx = Esx::open(source.clone(), limits)?;
        let mut disk = Self::new(source, Text::default(), Descriptor::default());
        kind.create_type().clone_into(&mut disk.subformat);
        disk.details = esx.details();
        disk.findings.extend("", esx.noticed());
        let expected = "to be opened through the descriptor that names it";
        let path = format!("{} extent", disk.subformat);
        disk.findings
            .add(&rules::NO_DESCRIPTOR, (0, SECTOR), path, "alone", expected);
        disk.size = esx.len();
        disk.push(0, String::new(), disk.size, Body::Esx(Box::new(esx)));
        Ok(disk)
    }

    /// A descriptor that is a file of its own.
    fn open_text(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let limits = opener.limits;
        let (length, most) = (source.len(), limits.text_bytes_max);
        if length > most {
            return Err(Error::unsupported(format_args!(
                "VMDK descriptor of {length} bytes, more than the {most} allowed: raise the limit text-bytes"
            )));
        }
        let bytes = read_vec(&*source, "VMDK descriptor", 0, length, limits)?;
        let descriptor = Descriptor::parse(&bytes, limits)?;
        let kind = check_text(&descriptor, limits)?;
        let within = |error: Error| error.within(format_args!("VMDK {kind}"));
        let lines = descriptor.extents.clone();
        let mut disk = Self::new(source, Text::new(0, None, &bytes), descriptor);
        disk.note_descriptor();
        let mut files = BTreeMap::new();
        for (number, line) in lines.iter().enumerate() {
            disk.add(number, line, limits, |name| file(name, &mut files, opener))
                .map_err(within)?;
        }
        disk.note_offsets();
        disk.note_overlaps();
        disk.open_parent(opener)?;
        Ok(disk)
    }

    pub(super) fn push(&mut self, line: usize, key: String, length: u64, body: Body) {
        let end = self.parts.last();
        let start = end.map_or(0, |part| part.start.saturating_add(part.length));
        self.parts.push(Part {
            start,
            length,
            line,
            key,
            body,
        });
    }

    fn add(
        &mut self,
        number: usize,
        line: &ExtentLine,
        limits: &Limits,
        open: impl FnOnce(&str) -> Result<(Arc<dyn ReadAt>, String)>,
    ) -> Result<()> {
        let ExtentLine {
            access,
            sectors,
            kind,
            name,
            offset,
        } = line;
        let in_extent = |error: Error| error.within(format_args!("extent {number}"));
        self.check_end(number, *sectors, limits)?;
        if access.eq_ignore_ascii_case("NOACCESS") {
            return Err(Error::unsupported(format_args!(
                "extent {number} ({name:?}) is NOACCESS: its bytes are not to be read"
            )));
        }
        let length = sectors.saturating_mul(SECTOR);
        let (body, key) = match kind.to_ascii_uppercase().as_str() {
            "ZERO" => (Body::Zero, String::new()),
            "FLAT" | "VMFS" => {
                let from = offset.unwrap_or(0).saturating_mul(SECTOR);
                let (file, key) = open(name).map_err(in_extent)?;
                self.check_flat(number, line, (&*file, &key), (from, length), limits)?;
                (Body::Flat(file, from), key)
            }
            "SPARSE" => {
                let (file, key) = open(name).map_err(in_extent)?;
                let hosted = Hosted::open(file, Some(*sectors), limits).map_err(in_extent)?;
                self.findings.extend(&key, hosted.noticed());
                (Body::Hosted(Box::new(hosted)), key)
            }
            "VMFSSPARSE" | "SESPARSE" => {
                let (file, key) = open(name).map_err(in_extent)?;
                let esx = Esx::open(file, limits).map_err(in_extent)?;
                self.findings.extend(&key, esx.noticed());
                (Body::Esx(Box::new(esx)), key)
            }
            _ => {
                return Err(Error::unsupported(format_args!(
                    "extent {number} ({name:?}) of type {kind}, read are FLAT, VMFS, SPARSE, VMFSSPARSE, SESPARSE and ZERO"
                )));
            }
        };
        if let Body::Hosted(hosted) = &body {
            let entries = len64(&hosted.gd).saturating_add(len64(&hosted.rgd));
            self.table_bytes = self.table_bytes.saturating_add(entries.saturating_mul(4));
            let most = limits.table_bytes_max.saturating_mul(2);
            if self.table_bytes > most {
                return Err(Error::unsupported(format_args!(
                    "the grain directories up to extent {number} take {} bytes, more than {most}",
                    self.table_bytes
                )));
            }
        }
        let own = match &body {
            Body::Zero | Body::Flat(..) => length,
            Body::Hosted(hosted) => hosted.len(),
            Body::Esx(esx) => esx.len(),
        };
        if own != length {
            let capacity = own.checked_div(SECTOR).unwrap_or(0);
            self.check_end(number, capacity, limits)?;
            let place = self.text.place_of(self.text.sectors(number));
            self.note_size(&key, place, capacity, *sectors);
        }
        self.push(number, key, own, body);
        self.size = self.size.saturating_add(own);
        Ok(())
    }

    fn check_end(&self, number: usize, sectors: u64, limits: &Limits) -> Result<()> {
        let end = sectors
            .checked_mul(SECTOR)
            .and_then(|length| self.size.checked_add(length));
        if end.is_none_or(|end| end > limits.disk_bytes_max) {
            return Err(Error::unsupported(format_args!(
                "extent {number} of {sectors} sectors takes the disk past the {} bytes allowed: raise the limit disk-bytes",
                limits.disk_bytes_max
            )));
        }
        Ok(())
    }

    /// Notes an extent of which its file has only a part, and one that could be longer.
    fn check_flat(
        &mut self,
        number: usize,
        line: &ExtentLine,
        (file, key): (&dyn ReadAt, &str),
        (from, length): (u64, u64),
        limits: &Limits,
    ) -> Result<()> {
        let (end, held) = (from.saturating_add(length), file.len());
        if end > limits.disk_bytes_max {
            return Err(Error::unsupported(format_args!(
                "extent {number} takes {length} bytes from {from} of {:?}, past the {} bytes allowed: raise the limit disk-bytes",
                line.name, limits.disk_bytes_max
            )));
        }
        let (rule, place) = if end > held {
            (&rules::EXTENT_SHORT, held..end)
        } else if line.offset.is_none() && end < held {
            (&rules::EXTENT_LONG, end..held)
        } else {
            return Ok(());
        };
        self.findings.push(Finding {
            rule,
            file: key.to_owned(),
            offset: place.start,
            length: place.end.saturating_sub(place.start),
            path: format!("length of extent {number}"),
            expected: format!("{end} bytes"),
            found: format!("{held} bytes"),
        });
        Ok(())
    }

    /// Opens the parent of a snapshot and compares their ids.
    pub(super) fn open_parent(&mut self, opener: &Opener<'_>) -> Result<()> {
        let hint = self.descriptor.value("parentFileNameHint");
        let wanted = match self.descriptor.value("parentCID") {
            Some(wanted) => wanted,
            // Without the line it may have been a snapshot, and what the parent has would read as zeros.
            None if self.descriptor.names_parent() => {
                return Err(Error::corrupt(format_args!(
                    "VMDK descriptor has no parentCID and names a parent disk {:?}",
                    hint.unwrap_or_default()
                )));
            }
            None => return Ok(()),
        };
        if wanted.eq_ignore_ascii_case("ffffffff") {
            return Ok(());
        }
        let wanted = wanted.to_owned();
        let Some(hint) = hint.filter(|hint| !hint.is_empty()).map(str::to_owned) else {
            return Err(Error::unsupported(format_args!(
                "VMDK snapshot of a parent disk with CID {wanted} that it does not name; give the descriptor a line parentFileNameHint"
            )));
        };
        let name = hint.rsplit(['/', '\\', ':']).next().unwrap_or_default();
        let needs = |error: Error| {
            error.within(format_args!(
                "VMDK snapshot that needs its parent disk {name:?} beside it"
            ))
        };
        check_name(name).map_err(needs)?;
        let second = opener.below("parent disk", name).map_err(needs)?;
        let image = crate::image::opened(second.bytes, crate::VhdSize::default(), &second.opener);
        let image = image.map_err(|error| error.within(format_args!("parent disk {name:?}")))?;
        if image.format() != crate::Format::Vmdk {
            return Err(Error::corrupt(format_args!(
                "parent disk {name:?} is {}, not a VMDK",
                image.format()
            )));
        }
        let place = self.text.place_of(self.text.value("parentFileNameHint"));
        if name != hint {
            let path = "descriptor, parentFileNameHint";
            let expected = "a file beside the snapshot";
            self.findings
                .add(&rules::PARENT_PLACE, place, path, &hint, expected);
        }
        self.note_parent(&image, &wanted, name);
        self.findings
            .extend(&second.key, image.container().noticed());
        self.parent = Some(Parent {
            key: second.key,
            image,
        });
        Ok(())
    }

    fn note_parent(&mut self, parent: &Image, wanted: &str, name: &str) {
        let info = parent.info();
        let cid = info.detail("CID").unwrap_or("none");
        if number(cid).is_none() || number(cid) != number(wanted) {
            let place = self.text.place_of(self.text.value("parentCID"));
            let path = "descriptor, parentCID";
            let expected = format!("{cid}, the CID of {name:?}");
            self.findings
                .add(&rules::PARENT_CID, place, path, wanted, expected);
        }
        if parent.virtual_size() != self.size {
            let place = self.text.place_of(None);
            let found = format!("{} bytes", self.size);
            let expected = format!("{} as its parent {name:?}", parent.virtual_size());
            let path = "size of the snapshot";
            self.findings
                .add(&rules::PARENT_SIZE, place, path, found, expected);
        }
    }
}

/// The file of that name and the name by which the resolver knows it, opened once.
fn file(
    name: &str,
    files: &mut BTreeMap<String, (Arc<dyn ReadAt>, String)>,
    opener: &Opener<'_>,
) -> Result<(Arc<dyn ReadAt>, String)> {
    if let Some(known) = files.get(name) {
        return Ok(known.clone());
    }
    check_name(name)?;
    let found = opener.second("extent", name)?;
    let found = (found.bytes, found.key);
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

/// The type, when it is one that a descriptor of its own can describe.
fn check_text(descriptor: &Descriptor, limits: &Limits) -> Result<&'static str> {
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
            "VMDK descriptor with {count} extents, more than the {most} allowed: raise the limit chain"
        )));
    }
    if *kind == "monolithicFlat" && count != 1 {
        return Err(Error::corrupt(format_args!(
            "VMDK monolithicFlat has {count} extents, not 1"
        )));
    }
    Ok(kind)
}

/// The answer to a descriptor of another type.
pub(crate) fn refused(create_type: &str) -> Error {
    Error::unsupported(format_args!(
        "format VMDK descriptor ({create_type}) whose extents are devices, or of a kind not known"
    ))
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
