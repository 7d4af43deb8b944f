//! A hosted sparse extent with its descriptor inside.

use super::descriptor::Descriptor;
use super::disk::{Body, Vmdk};
use super::header::{Header, SECTOR};
use super::hosted::Hosted;
use super::open::TYPES;
use super::rules;
use super::text::Text;
use crate::container::Opener;
use drylab_block::{Error, Limits, ReadAt, Result, read_vec};
use std::sync::Arc;

impl Vmdk {
    /// A hosted sparse extent with its descriptor inside.
    pub(super) fn open_embedded(source: Arc<dyn ReadAt>, opener: &Opener<'_>) -> Result<Self> {
        let limits = opener.limits;
        let bytes = read_vec(&*source, "VMDK header", 0, SECTOR, limits)?;
        let front = Header::parse(&bytes, 0, limits)?;
        let (text, bytes) = read_embedded(&*source, &front, limits)?;
        let descriptor = Descriptor::parse(&bytes, limits)?;
        check_embedded(&descriptor, &text)?;
        let line = descriptor.extents.first().map(|line| line.sectors);
        let hosted = Hosted::open(source.clone(), line, limits)?;
        let mut disk = Self::new(source, text, descriptor);
        disk.details.splice(0..0, hosted.details());
        disk.findings.extend("", hosted.noticed());
        disk.note_descriptor();
        disk.settle_words(&hosted);
        disk.note_area(&front, &hosted, &bytes);
        // What the text may grow to is in front of directories and grains, whatever is said.
        let span = hosted.descriptor_span();
        let room = span.end.saturating_sub(span.start).saturating_mul(SECTOR);
        disk.text.area = disk.text.area.map(|area| area.min(room));
        let capacity = hosted.header.capacity;
        disk.size = capacity.saturating_mul(SECTOR);
        if let Some(line) = disk.descriptor.extents.first() {
            let place = disk.text.place_of(disk.text.sectors(0));
            let sectors = line.sectors;
            disk.note_size("", place, capacity, sectors);
        }
        let body = Body::Hosted(Box::new(hosted));
        disk.push(0, String::new(), disk.size, body);
        disk.open_parent(opener)?;
        Ok(disk)
    }

    /// Takes the kind from the header where the text does not tell it, and says which of its words are wrong.
    fn settle_words(&mut self, hosted: &Hosted) {
        let found = self.descriptor.value("createType");
        if !found.is_some_and(|word| EMBEDDED.contains(&word)) {
            let [sparse, stream] = EMBEDDED;
            let kind = match hosted.header.has_markers() {
                true => stream,
                false => sparse,
            };
            kind.clone_into(&mut self.subformat);
            let place = self.text.place_of(self.text.value("createType"));
            let (path, found) = ("descriptor, createType", found.unwrap_or("missing"));
            let expected = format!("{kind}, by the header");
            self.findings
                .add(&rules::CREATE_TYPE, place, path, found, expected);
        }
        let path = "descriptor, extent line";
        match self.descriptor.extents.first() {
            Some(line) if !line.kind.eq_ignore_ascii_case("SPARSE") => {
                let place = self.text.place_of(self.text.kind(0));
                self.findings
                    .add(&rules::EXTENT_TYPE, place, path, &line.kind, "SPARSE");
            }
            None if self.descriptor.malformed.is_none() => {
                let place = self.text.place_of(None);
                let expected = "access, sectors, SPARSE, name";
                self.findings
                    .add(&rules::DESCRIPTOR_LINE, place, path, "missing", expected);
            }
            Some(_) | None => {}
        }
    }

    /// Says whether the text ends inside its area, and the area in front of the tables.
    fn note_area(&mut self, front: &Header, hosted: &Hosted, bytes: &[u8]) {
        let place = (self.text.place, self.text.area.unwrap_or(0));
        let path = "descriptor";
        if bytes.last().is_some_and(|last| !matches!(last, 0 | b'\n')) {
            let found = format!("{} bytes and not ended", bytes.len());
            let expected = "ended by a NUL or a line end inside its area";
            self.findings
                .add(&rules::DESCRIPTOR_AREA, place, path, found, expected);
        }
        let end = front
            .descriptor_offset
            .saturating_add(front.descriptor_size);
        let ([_, _, gd], rgd) = (hosted.fixed(), hosted.rgd_span());
        for (name, span) in [("grain directory", gd), ("redundant grain directory", rgd)] {
            if !span.is_empty() && span.start < end && front.descriptor_offset < span.end {
                let found = format!("an area up to sector {end}");
                let expected = format!("an area that ends before the {name} at {}", span.start);
                self.findings
                    .add(&rules::DESCRIPTOR_AREA, place, path, found, expected);
            }
        }
    }
}

/// The embedded descriptor; without one the file is one part of a split disk.
fn read_embedded(source: &dyn ReadAt, header: &Header, limits: &Limits) -> Result<(Text, Vec<u8>)> {
    if header.descriptor_offset == 0 || header.descriptor_size == 0 {
        return Err(part_of_a_split_disk());
    }
    let place = header.descriptor_offset.saturating_mul(SECTOR);
    let length = header.descriptor_size.saturating_mul(SECTOR);
    let inside = place
        .checked_add(length)
        .is_some_and(|end| end <= source.len());
    if inside && length > limits.text_bytes_max {
        let most = limits.text_bytes_max;
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor of {length} bytes, more than the {most} allowed: raise the limit text-bytes"
        )));
    }
    let bytes = read_vec(source, "VMDK descriptor", place, length, limits)?;
    Ok((Text::new(place, Some(length), &bytes), bytes))
}

fn part_of_a_split_disk() -> Error {
    Error::unsupported(
        "VMDK sparse extent without a descriptor: it is one part of a disk whose descriptor is another file; open that one",
    )
}

/// Types that embedded descriptors have.
const EMBEDDED: [&str; 2] = ["monolithicSparse", "streamOptimized"];
/// Types that no file which is its own extent has, beside [`TYPES`]: what they name stands elsewhere.
const ELSEWHERE: [&str; 6] = [
    "custom",
    "fullDevice",
    "partitionedDevice",
    "vmfsRaw",
    "vmfsRawDeviceMap",
    "vmfsPassthroughRawDeviceMap",
];
/// Words for extents of other kinds.
const OTHER_EXTENTS: [&str; 7] = [
    "FLAT",
    "ZERO",
    "VMFS",
    "VMFSSPARSE",
    "VMFSRDM",
    "VMFSRAW",
    "SESPARSE",
];

fn among(known: &[&str], word: &str) -> bool {
    known.iter().any(|one| one.eq_ignore_ascii_case(word))
}

/// Refuses embedded descriptors of other disks than the one in the file.
///
/// A word that means nothing is a flaw of the text, and the header tells what the file is: it is no reason to refuse. It is
/// one where the words mean another kind of disk, where what stands there is no descriptor, and where the text leads to
/// another file, which is not opened on the word of a text with such a flaw.
fn check_embedded(descriptor: &Descriptor, text: &Text) -> Result<()> {
    let create_type = descriptor.value("createType");
    let line = descriptor.extents.first();
    let is_right = create_type.is_some_and(|word| EMBEDDED.contains(&word));
    let is_sparse = line.is_none_or(|line| line.kind.eq_ignore_ascii_case("SPARSE"));
    let may_be_flawed = text.is_descriptor() && !descriptor.names_parent();
    match create_type {
        Some(_) if is_right => {}
        Some(word) if !may_be_flawed || among(&TYPES, word) || among(&ELSEWHERE, word) => {
            return Err(Error::unsupported(format_args!(
                "VMDK createType {word:?} in a sparse extent"
            )));
        }
        None if descriptor.values.is_empty() => return Err(part_of_a_split_disk()),
        None if !may_be_flawed => {
            return Err(Error::corrupt("VMDK descriptor has no createType"));
        }
        Some(_) | None => {}
    }
    if let [_, _, ..] = descriptor.extents.as_slice() {
        return Err(Error::unsupported(format_args!(
            "VMDK descriptor with {} extents; files named inside an input are not opened",
            descriptor.extents.len()
        )));
    }
    match line.filter(|_| !is_sparse) {
        Some(line) if !may_be_flawed || among(&OTHER_EXTENTS, &line.kind) => {
            let (kind, name) = (&line.kind, &line.name);
            Err(Error::unsupported(format_args!(
                "VMDK extent {name:?} of type {kind} in a sparse extent"
            )))
        }
        // The name is ignored: files are renamed, and this file is the extent.
        _ => Ok(()),
    }
}
