//! Records and disks to an archive, front to back.

use super::appliance::Appliance;
use super::{BLOCK, CHECKSUM, DESCRIPTOR};
use crate::findings::quote;
use crate::ova::write::{Style, header};
use drylab_block::{Error, Extents, ReadAt, Result, WriteAt};
use sha1::{Digest, Sha1};

/// Mode, owner and time are 0 in what XenServer writes; that the magic is that of POSIX is belief.
const XAPI: Style = Style {
    mode: b"0000000\0",
    owner: b"0000000\0",
    magic: b"ustar\x0000",
    name: b"",
};

/// Longest id: with `/`, twenty digits and `.checksum` behind it, it fills the 100 bytes of a name.
const ID_MAX: usize = 70;

/// Writes an archive: `ova.xml`, then the blocks of each disk in the order given, each with its checksum.
///
/// Blocks of 1 MiB; those of zeros are left out except the first and the last of a disk. Every write begins where the
/// one before ended, so that the sink may be a stream; the same input gives the same bytes.
///
/// # Errors
/// [`Error::Unsupported`] when a disk has no VDI record, not its `virtual_size` or an id that is not `Ref:` and a short name, or the records cannot be written as
/// XML; whatever reading or writing finds.
pub fn write(
    appliance: &Appliance,
    disks: &[(&str, &dyn ReadAt)],
    sink: &dyn WriteAt,
) -> Result<()> {
    sink.set_len(0)?;
    let mut stream = Stream { sink, at: 0 };
    stream.member(DESCRIPTOR, &appliance.print()?)?;
    for (id, disk) in disks {
        let record = appliance.object(id).filter(|object| object.class == "VDI");
        let record = record.ok_or_else(|| {
            Error::unsupported(format_args!("disk {} has no VDI record", quote(id)))
        })?;
        if !id.starts_with("Ref:") || id.len() > ID_MAX || id.contains(['/', '\0']) {
            let id = quote(id);
            return Err(Error::unsupported(format_args!(
                "id {id} cannot be the name of a folder"
            )));
        }
        let size: u64 = record.number("virtual_size")?;
        if size != disk.len() {
            let (id, length) = (quote(id), disk.len());
            return Err(Error::unsupported(format_args!(
                "disk {id} has {length} bytes, its VDI record says {size}"
            )));
        }
        stream.disk(id, *disk)?;
    }
    stream.put(&[0; 1024])
}

struct Stream<'a> {
    sink: &'a dyn WriteAt,
    at: u64,
}

impl Stream<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_at(self.at, bytes)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = self.at.checked_add(length);
        self.at = end.ok_or_else(|| Error::unsupported("the archive passes 2^64 bytes"))?;
        Ok(())
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.put(&header(name, b'0', length, &XAPI)?)?;
        self.put(bytes)?;
        let padding = usize::try_from(length.wrapping_neg() % crate::ova::BLOCK).unwrap_or(0);
        self.put([0; 512].get(..padding).unwrap_or(&[]))
    }

    fn disk(&mut self, id: &str, disk: &dyn ReadAt) -> Result<()> {
        let Some(last) = disk.len().checked_sub(1).map(|byte| byte / BLOCK) else {
            return Ok(());
        };
        self.block(id, disk, 0, true)?;
        let mut next = 1u64;
        for extent in Extents::new(disk).filter(|extent| extent.kind.has_bytes()) {
            let end = extent.offset.saturating_add(extent.length);
            let behind = end.div_ceil(BLOCK).min(last);
            for number in next.max(extent.offset / BLOCK)..behind {
                self.block(id, disk, number, false)?;
            }
            next = next.max(behind);
        }
        if last > 0 {
            self.block(id, disk, last, true)?;
        }
        Ok(())
    }

    /// One block with its checksum; nothing when it may be left out and is zeros.
    fn block(&mut self, id: &str, disk: &dyn ReadAt, number: u64, always: bool) -> Result<()> {
        let start = number.saturating_mul(BLOCK);
        let length = disk.len().saturating_sub(start).min(BLOCK);
        let mut bytes = vec![0u8; usize::try_from(length).map_err(Error::io)?];
        disk.read_at(start, &mut bytes)?;
        let zero = |page: &[u8]| page.iter().fold(0u8, |sum, byte| sum | byte) == 0;
        if !always && bytes.chunks(4096).all(zero) {
            return Ok(());
        }
        let name = format!("{id}/{number:08}");
        self.member(&name, &bytes)?;
        let digest: String = Sha1::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.member(&format!("{name}{CHECKSUM}"), digest.as_bytes())
    }
}
