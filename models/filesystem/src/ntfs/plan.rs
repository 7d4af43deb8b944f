//! Plans for rewriting a file where it stands: the bytes of the volume that would change.

use super::Ntfs;
use super::attribute::{self, Attribute, COMPRESSED, ENCRYPTED, Form, SPARSE};
use super::file::{Inode, Part, Stream};
use super::index::{FileName, Index, NODE_IN_BLOCK, Place};
use super::record;
use super::runlist;
use drylab_block::{Error, Limits, Result, le_u16, le_u32};
use std::collections::BTreeMap;

/// Record of $MFTMirr.
const MIRROR: u64 = 1;

/// One change: byte offset in the volume, and the bytes to write there.
pub type Patch = (u64, Vec<u8>);

/// Records and index blocks being changed, and plain bytes.
#[derive(Default)]
struct Draft {
    records: BTreeMap<u64, Vec<u8>>,
    blocks: BTreeMap<(u64, u64), (Vec<u8>, Index)>,
    data: Vec<Patch>,
}

impl Ntfs {
    /// The changes that give an existing file new content within the clusters, or the record, that it has.
    ///
    /// `None` when there is no such file, the content does not fit, or the file is sparse or compressed. The file's
    /// entries in its directories get the new size too where they can be found; $LogFile and times stay as they are.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when Windows is hibernated on the volume, the file is encrypted, or the content larger
    /// than `limits.file_bytes_max`; [`Error::Corrupt`] when a structure on the way is damaged.
    pub fn plan_write(
        &self,
        path: &str,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<Vec<Patch>>> {
        let length = u64::try_from(bytes.len()).map_err(Error::io)?;
        if length > limits.file_bytes_max {
            return Err(Error::unsupported(format_args!(
                "{path}: {length} bytes, more than the {} allowed",
                limits.file_bytes_max
            )));
        }
        if self.is_hibernated()? {
            return Err(Error::unsupported(
                "Windows is hibernated on this volume; shut it down fully first",
            ));
        }
        let Some(inode) = self.resolve(path)? else {
            return Ok(None);
        };
        if inode.is_directory() || self.reparse_tag(&inode)?.is_some() {
            return Ok(None);
        }
        let mut first = inode
            .attributes(attribute::DATA, &[])
            .filter(|(_, attribute)| match &attribute.form {
                Form::Resident(_) => true,
                Form::Clusters(clusters) => clusters.lowest_vcn == 0,
            });
        let Some((part, attribute)) = first.next() else {
            return Ok(None);
        };
        if attribute.flags & ENCRYPTED != 0 {
            return Err(Error::unsupported(format_args!(
                "{path} is encrypted (EFS)"
            )));
        }
        let mut draft = Draft::default();
        let allocated = match &attribute.form {
            Form::Resident(_) => draft.resident(part, attribute, bytes)?,
            Form::Clusters(_) if attribute.flags & (COMPRESSED | SPARSE) != 0 => None,
            Form::Clusters(_) => self.clusters(&mut draft, &inode, part, attribute, bytes)?,
        };
        let Some(allocated) = allocated else {
            return Ok(None);
        };
        for (part, attribute) in inode.attributes(attribute::FILE_NAME, &[]) {
            let Form::Resident(range) = &attribute.form else {
                continue;
            };
            let name = part.bytes.get(range.clone()).and_then(FileName::parse);
            if let Some(name) = name {
                // A directory that cannot be read keeps the old size: chkdsk mends it, and nobody reads by it.
                let _ = self.entry_size(&mut draft, &inode, &name, allocated, length);
            }
        }
        self.patches(draft).map(Some)
    }

    /// Content in clusters: gives the allocated size.
    fn clusters(
        &self,
        draft: &mut Draft,
        inode: &Inode,
        part: &Part,
        attribute: &Attribute,
        bytes: &[u8],
    ) -> Result<Option<u64>> {
        let Some(Stream::Clusters(mapped)) = inode.stream(attribute::DATA, &[])? else {
            return Ok(None);
        };
        let clusters = mapped
            .runs
            .last()
            .map_or(0, |run| run.vcn.saturating_add(run.clusters));
        let allocated = clusters.saturating_mul(self.boot.cluster);
        let length = u64::try_from(bytes.len()).map_err(Error::io)?;
        let whole = length.next_multiple_of(self.boot.cluster);
        if whole > allocated {
            return Ok(None);
        }
        let mut rest = bytes;
        for piece in runlist::pieces(&mapped.runs, self.boot.cluster, 0, whole)? {
            let Some(volume) = piece.volume else {
                return Ok(None);
            };
            let take = usize::try_from(piece.length).map_err(Error::io)?;
            let (now, later) = rest.split_at(take.min(rest.len()));
            let mut content = now.to_vec();
            content.resize(take, 0);
            draft.data.push((volume, content));
            rest = later;
        }
        let record = draft
            .records
            .entry(part.number)
            .or_insert_with(|| part.bytes.clone());
        put(
            record,
            attribute.at.start.saturating_add(0x30),
            &length.to_le_bytes(),
        )?;
        put(
            record,
            attribute.at.start.saturating_add(0x38),
            &length.to_le_bytes(),
        )?;
        Ok(Some(allocated))
    }

    /// New sizes in the entry of one of the file's names.
    fn entry_size(
        &self,
        draft: &mut Draft,
        inode: &Inode,
        name: &FileName,
        allocated: u64,
        length: u64,
    ) -> Result<()> {
        let directory = self.inode(name.parent)?;
        let Some(index) = self.index(&directory)? else {
            return Ok(());
        };
        let found = self
            .lookup(&index, &name.name)?
            .filter(|(_, entry)| entry.number() == inode.number);
        let Some((place, entry)) = found else {
            return Ok(());
        };
        let sizes = [allocated.to_le_bytes(), length.to_le_bytes()].concat();
        let at = entry.key.start.saturating_add(0x28);
        match place {
            Place::Root { record, at: node } => {
                let Some(part) = directory.parts.iter().find(|part| part.number == record) else {
                    return Ok(());
                };
                let record = draft
                    .records
                    .entry(record)
                    .or_insert_with(|| part.bytes.clone());
                put(record, node.saturating_add(at), &sizes)
            }
            Place::Block(vcn) => {
                let block = match draft.blocks.remove(&(directory.number, vcn)) {
                    Some((block, _)) => block,
                    None => self.index_block(&index, vcn)?,
                };
                let (block, _) = draft
                    .blocks
                    .entry((directory.number, vcn))
                    .or_insert((block, index));
                put(block, NODE_IN_BLOCK.saturating_add(at), &sizes)
            }
        }
    }

    /// Protects what is protected, and finds its places in the volume.
    fn patches(&self, draft: Draft) -> Result<Vec<Patch>> {
        let mut patches = draft.data;
        // $MFTMirr holds the first 4 records a second time, more where clusters are larger than 4 records.
        let mirror = match self.inode(MIRROR)?.stream(attribute::DATA, &[])? {
            Some(Stream::Clusters(mapped)) => Some(mapped),
            _ => None,
        };
        for (number, mut bytes) in draft.records {
            record::protect(&mut bytes, &format_args!("file record {number}"))?;
            let offset = number.saturating_mul(u64::try_from(bytes.len()).map_err(Error::io)?);
            self.split(&self.mft.runs, offset, &bytes, &mut patches)?;
            let length = u64::try_from(bytes.len()).map_err(Error::io)?;
            if let Some(mirror) = mirror
                .as_ref()
                .filter(|mirror| mirror.data_size >= offset.saturating_add(length))
            {
                self.split(&mirror.runs, offset, &bytes, &mut patches)?;
            }
        }
        for ((directory, vcn), (mut bytes, index)) in draft.blocks {
            record::protect(
                &mut bytes,
                &format_args!("index block {vcn} of directory record {directory}"),
            )?;
            let offset = self.block_offset(&index, vcn)?;
            self.split(&index.runs, offset, &bytes, &mut patches)?;
        }
        patches.sort();
        Ok(patches)
    }

    fn split(
        &self,
        runs: &[runlist::Run],
        offset: u64,
        bytes: &[u8],
        patches: &mut Vec<Patch>,
    ) -> Result<()> {
        let mut rest = bytes;
        let length = u64::try_from(bytes.len()).map_err(Error::io)?;
        for piece in runlist::pieces(runs, self.boot.cluster, offset, length)? {
            let (now, later) = rest.split_at(
                usize::try_from(piece.length)
                    .map_err(Error::io)?
                    .min(rest.len()),
            );
            let volume = piece
                .volume
                .ok_or_else(|| Error::corrupt("a record or index block lies in a hole"))?;
            patches.push((volume, now.to_vec()));
            rest = later;
        }
        Ok(())
    }
}

impl Draft {
    /// Content inside the record: what stands behind the attribute moves. Gives the allocated size.
    fn resident(
        &mut self,
        part: &Part,
        attribute: &Attribute,
        bytes: &[u8],
    ) -> Result<Option<u64>> {
        let (at, end) = (attribute.at.start, attribute.at.end);
        let mut record = part.bytes.clone();
        let value = usize::from(le_u16(&record, at.saturating_add(0x14)).unwrap_or(0));
        let length = value.saturating_add(bytes.len()).next_multiple_of(8);
        let tail = record
            .get(end..part.header.used)
            .unwrap_or_default()
            .to_vec();
        let used = at.saturating_add(length).saturating_add(tail.len());
        let room = le_u32(&record, 0x1C)
            .and_then(|room| usize::try_from(room).ok())
            .unwrap_or(0)
            .min(record.len());
        let (Ok(used_field), Ok(length_field), Ok(size)) = (
            u32::try_from(used),
            u32::try_from(length),
            u32::try_from(bytes.len()),
        ) else {
            return Ok(None);
        };
        if used > room {
            return Ok(None);
        }
        if let Some(rest) = record.get_mut(at.saturating_add(value)..) {
            rest.fill(0);
        }
        put(
            &mut record,
            at.saturating_add(4),
            &length_field.to_le_bytes(),
        )?;
        put(&mut record, at.saturating_add(0x10), &size.to_le_bytes())?;
        put(&mut record, at.saturating_add(value), bytes)?;
        put(&mut record, at.saturating_add(length), &tail)?;
        put(&mut record, 0x18, &used_field.to_le_bytes())?;
        self.records.insert(part.number, record);
        Ok(Some(u64::from(size).next_multiple_of(8)))
    }
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) -> Result<()> {
    let length = bytes.len();
    let target = bytes.get_mut(at..at.saturating_add(part.len()));
    let target = target.ok_or_else(|| {
        Error::corrupt(format_args!(
            "{} bytes at {at} end past a record of {length}",
            part.len()
        ))
    })?;
    target.copy_from_slice(part);
    Ok(())
}
