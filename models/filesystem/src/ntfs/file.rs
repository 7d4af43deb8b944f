//! Files: a base record, its extension records, and the streams they describe.

use super::Ntfs;
use super::attribute::{self, Attribute, COMPRESSED, ENCRYPTED, Form};
use super::lznt1;
use super::record::{self, Header, RECORD_MASK};
use super::runlist::{self, Piece, Run};
use drylab_block::{Error, Limits, Result, le_u16, le_u64};
use std::collections::BTreeSet;

/// Most records of one file: 4096 of them describe some million runs.
const PARTS_MAX: usize = 4096;

/// One file record with its attributes read.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: u64,
    /// The record, update sequence put back.
    pub(crate) bytes: Vec<u8>,
    pub(crate) header: Header,
    pub(crate) attributes: Vec<Attribute>,
}

/// A file: its base record first.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) parts: Vec<Part>,
}

/// The content of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Stream {
    /// Bytes from the record.
    Resident(Vec<u8>),
    /// Bytes in clusters.
    Clusters(Mapped),
}

/// A stream in clusters, all parts put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapped {
    pub(crate) runs: Vec<Run>,
    pub(crate) data_size: u64,
    pub(crate) initialized: u64,
    pub(crate) flags: u16,
    unit: u16,
}

impl Stream {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Resident(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Clusters(mapped) => mapped.data_size,
        }
    }
}

impl Inode {
    pub(crate) fn is_directory(&self) -> bool {
        self.parts
            .first()
            .is_some_and(|part| part.header.flags & 2 != 0)
    }

    /// Attributes of a kind with a stream name, each with its record.
    pub(crate) fn attributes<'a>(
        &'a self,
        kind: u32,
        name: &'a [u16],
    ) -> impl Iterator<Item = (&'a Part, &'a Attribute)> {
        let all = self.parts.iter().flat_map(|part| {
            part.attributes
                .iter()
                .map(move |attribute| (part, attribute))
        });
        all.filter(move |(_, attribute)| attribute.kind == kind && attribute.name == name)
    }

    /// Value of the first resident attribute of a kind.
    pub(crate) fn resident(&self, kind: u32) -> Option<&[u8]> {
        self.attributes(kind, &[])
            .find_map(|(part, attribute)| match &attribute.form {
                Form::Resident(range) => part.bytes.get(range.clone()),
                Form::Clusters(_) => None,
            })
    }

    /// The stream of a kind and name, put together from its parts.
    pub(crate) fn stream(&self, kind: u32, name: &[u16]) -> Result<Option<Stream>> {
        let place = || format!("file record {}, attribute {kind:#x}", self.number);
        let mut parts = Vec::new();
        for (part, attribute) in self.attributes(kind, name) {
            match &attribute.form {
                Form::Resident(range) => {
                    return Ok(Some(Stream::Resident(
                        part.bytes.get(range.clone()).unwrap_or_default().to_vec(),
                    )));
                }
                Form::Clusters(clusters) => parts.push((clusters, attribute.flags)),
            }
        }
        parts.sort_by_key(|(clusters, _)| clusters.lowest_vcn);
        let Some((first, flags)) = parts.first() else {
            return Ok(None);
        };
        let (data_size, initialized, unit, flags) =
            (first.data_size, first.initialized, first.unit, *flags);
        let mut runs: Vec<Run> = Vec::new();
        for (clusters, _) in parts {
            let end = runs
                .last()
                .map_or(0, |run| run.vcn.saturating_add(run.clusters));
            if clusters.lowest_vcn != end {
                let lowest = clusters.lowest_vcn;
                return Err(Error::corrupt(format_args!(
                    "{}: a part starts at cluster {lowest}, not at {end}",
                    place()
                )));
            }
            runs.extend_from_slice(&clusters.runs);
        }
        Ok(Some(Stream::Clusters(Mapped {
            runs,
            data_size,
            initialized,
            flags,
            unit,
        })))
    }
}

impl Ntfs {
    /// Reads one record of the table as it stands there, update sequence put back.
    pub(crate) fn part(&self, number: u64) -> Result<Part> {
        let place = format!("file record {number}");
        let offset = number.checked_mul(u64::try_from(self.boot.record).map_err(Error::io)?);
        let length = u64::try_from(self.boot.record).map_err(Error::io)?;
        let inside = offset
            .and_then(|offset| offset.checked_add(length))
            .is_some_and(|end| end <= self.mft.data_size);
        let Some(offset) = offset.filter(|_| inside) else {
            return Err(Error::corrupt(format_args!(
                "{place} lies past the end of $MFT ({} bytes)",
                self.mft.data_size
            )));
        };
        let mut bytes = vec![0; self.boot.record];
        self.read_runs(&self.mft.runs, offset, &mut bytes)
            .map_err(|error| error.within(&place))?;
        self.parse_part(number, bytes)
    }

    pub(crate) fn parse_part(&self, number: u64, mut bytes: Vec<u8>) -> Result<Part> {
        record::unprotect(&mut bytes, b"FILE", &format_args!("file record {number}"))?;
        let header = Header::parse(&bytes, number)?;
        if header.flags & 1 == 0 {
            return Err(Error::corrupt(format_args!(
                "file record {number} is referred to and not in use"
            )));
        }
        let attributes = attribute::parse_all(&bytes, &header, number, self.boot.clusters)?;
        Ok(Part {
            number,
            bytes,
            header,
            attributes,
        })
    }

    /// Reads a file: its record and those that extend it.
    ///
    /// `reference` is a file reference; its sequence number must be the record's unless it is 0.
    pub(crate) fn inode(&self, reference: u64) -> Result<Inode> {
        let number = reference & RECORD_MASK;
        let part = self.part(number)?;
        let sequence = reference >> 48;
        if sequence != 0 && sequence != u64::from(part.header.sequence) {
            let found = part.header.sequence;
            return Err(Error::corrupt(format_args!(
                "file record {number} was reused: sequence {found}, referred to as {sequence}"
            )));
        }
        if part.header.base != 0 {
            return Err(Error::corrupt(format_args!(
                "file record {number} extends record {}, is no file",
                part.header.base
            )));
        }
        self.extended(Inode {
            number,
            parts: vec![part],
        })
    }

    /// Adds the extension records named in the attribute list.
    pub(crate) fn extended(&self, mut inode: Inode) -> Result<Inode> {
        let number = inode.number;
        let Some(list) = inode.stream(attribute::ATTRIBUTE_LIST, &[])? else {
            return Ok(inode);
        };
        let bytes = self.read_stream(
            &list,
            &format!("attribute list of record {number}"),
            1 << 20,
        )?;
        let mut seen = BTreeSet::from([number]);
        let mut at = 0usize;
        while at < bytes.len() {
            let length = le_u16(&bytes, at.saturating_add(4)).map_or(0, usize::from);
            let reference = le_u64(&bytes, at.saturating_add(0x10)).filter(|_| length >= 0x18);
            let Some(reference) = reference.map(|reference| reference & RECORD_MASK) else {
                return Err(Error::corrupt(format_args!(
                    "attribute list of record {number}: no sound entry at {at}"
                )));
            };
            if seen.insert(reference) {
                if seen.len() > PARTS_MAX {
                    return Err(Error::unsupported(format_args!(
                        "file record {number} is extended by more than {PARTS_MAX} records"
                    )));
                }
                let part = self.part(reference)?;
                if part.header.base != number {
                    let base = part.header.base;
                    let message = format_args!(
                        "file record {reference} extends {base}, listed as an extension of {number}"
                    );
                    return Err(Error::corrupt(message));
                }
                inode.parts.push(part);
            }
            at = at.saturating_add(length);
        }
        Ok(inode)
    }

    /// Fills a buffer from the runs; holes read as zeros.
    pub(crate) fn read_runs(&self, runs: &[Run], offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = u64::try_from(buffer.len()).map_err(Error::io)?;
        let mut rest = buffer;
        for Piece { volume, length } in runlist::pieces(runs, self.boot.cluster, offset, length)? {
            let take = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (part, tail) = rest.split_at_mut(take);
            match volume {
                Some(place)
                    if place
                        .checked_add(length)
                        .is_none_or(|end| end > self.source.len()) =>
                {
                    return Err(Error::corrupt(format_args!(
                        "{length} bytes at {place} of the volume end past the end of the disk ({})",
                        self.source.len()
                    )));
                }
                Some(place) => self.source.read_at(place, part)?,
                None => part.fill(0),
            }
            rest = tail;
        }
        Ok(())
    }

    /// The whole content of a stream of at most `max` bytes.
    pub(crate) fn read_stream(&self, stream: &Stream, place: &str, max: u64) -> Result<Vec<u8>> {
        if stream.len() > max {
            return Err(Error::unsupported(format_args!(
                "{place} has {} bytes, more than the {max} allowed",
                stream.len()
            )));
        }
        let mapped = match stream {
            Stream::Resident(bytes) => return Ok(bytes.clone()),
            Stream::Clusters(mapped) => mapped,
        };
        let within = |error: Error| error.within(place);
        if mapped.flags & ENCRYPTED != 0 {
            return Err(Error::unsupported(format_args!(
                "{place} is encrypted (EFS)"
            )));
        }
        let mut bytes = self.read_mapped(mapped).map_err(within)?;
        let written = usize::try_from(mapped.initialized).unwrap_or(usize::MAX);
        if let Some(unwritten) = bytes.get_mut(written..) {
            unwritten.fill(0);
        }
        Ok(bytes)
    }

    fn read_mapped(&self, mapped: &Mapped) -> Result<Vec<u8>> {
        let clusters = mapped
            .runs
            .last()
            .map_or(0, |run| run.vcn.saturating_add(run.clusters));
        if mapped.data_size > clusters.saturating_mul(self.boot.cluster) {
            let size = mapped.data_size;
            return Err(Error::corrupt(format_args!(
                "{size} bytes claimed in a stream of {clusters} clusters"
            )));
        }
        if mapped.flags & COMPRESSED != 0 && mapped.unit != 0 {
            return self.read_compressed(mapped);
        }
        let mut bytes = vec![0; usize::try_from(mapped.data_size).map_err(Error::io)?];
        self.read_runs(&mapped.runs, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Compression units: all clusters stored, none stored (zeros), or fewer than there are (compressed).
    fn read_compressed(&self, mapped: &Mapped) -> Result<Vec<u8>> {
        let unit_clusters = 1u64
            .checked_shl(u32::from(mapped.unit))
            .filter(|count| *count <= 64);
        let Some(unit) = unit_clusters
            .and_then(|count| count.checked_mul(self.boot.cluster))
            .filter(|_| mapped.flags & 0xFF == 1)
        else {
            return Err(Error::unsupported(format_args!(
                "compression method {} in units of 2^{} clusters",
                mapped.flags & 0xFF,
                mapped.unit
            )));
        };
        let mut bytes = Vec::new();
        while u64::try_from(bytes.len()).is_ok_and(|length| length < mapped.data_size) {
            let start = u64::try_from(bytes.len()).map_err(Error::io)?;
            // The stored clusters come first; the last unit may end early.
            let last = mapped
                .runs
                .last()
                .map_or(0, |run| run.vcn.saturating_add(run.clusters))
                .saturating_mul(self.boot.cluster);
            let there = unit.min(last.saturating_sub(start));
            let pieces = runlist::pieces(&mapped.runs, self.boot.cluster, start, there)?;
            let stored: u64 = pieces
                .iter()
                .take_while(|piece| piece.volume.is_some())
                .map(|piece| piece.length)
                .sum();
            let mut raw = vec![0; usize::try_from(stored).map_err(Error::io)?];
            self.read_runs(&mapped.runs, start, &mut raw)?;
            let unit = usize::try_from(unit).map_err(Error::io)?;
            let mut plain = if stored < there {
                lznt1::decompress(&raw, unit)?
            } else {
                raw
            };
            plain.resize(unit, 0);
            bytes.append(&mut plain);
        }
        bytes.truncate(usize::try_from(mapped.data_size).map_err(Error::io)?);
        Ok(bytes)
    }

    /// Content of the unnamed data stream of a file; `None` for a directory.
    pub(crate) fn data(
        &self,
        inode: &Inode,
        path: &str,
        limits: &Limits,
    ) -> Result<Option<Vec<u8>>> {
        if inode.is_directory() {
            return Ok(None);
        }
        if let Some(tag) = self.reparse_tag(inode)? {
            // System compression keeps the content in a second stream, with a hole as the main one.
            return Err(Error::unsupported(format_args!(
                "{path} is a reparse point with tag {tag:#010x}"
            )));
        }
        let Some(stream) = inode.stream(attribute::DATA, &[])? else {
            return Ok(None);
        };
        self.read_stream(&stream, path, limits.file_bytes_max)
            .map(Some)
    }
}
