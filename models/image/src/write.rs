//! Writing a disk into a container.

use crate::engine::Work;
use crate::math::len64;
use crate::qcow2::{Qcow2Options, write_qcow2};
use crate::raw::write_raw;
use crate::vdi::{self, VdiOptions};
use crate::vhd::{self, VhdOptions};
use crate::vhdx::{self, VhdxOptions};
use crate::vmdk::{self, VmdkOptions};
use drylab_block::{Error, ReadAt, Result, WriteAt};
use std::sync::Mutex;

/// The container to write, with its options.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The bytes of the disk, sparse where the sink can be.
    Raw,
    /// VMDK monolithicSparse, version 1, with redundant grain directory.
    VmdkSparse(VmdkOptions),
    /// VMDK streamOptimized, version 3, a true stream.
    VmdkStream(VmdkOptions),
    /// qcow2 without backing file.
    Qcow2(Qcow2Options),
    /// VHD fixed: the bytes of the disk and a footer.
    VhdFixed(VhdOptions),
    /// VHD dynamic: the blocks that hold data.
    VhdDynamic(VhdOptions),
    /// VHDX fixed: a place for every block.
    VhdxFixed(VhdxOptions),
    /// VHDX dynamic: the blocks that hold data.
    VhdxDynamic(VhdxOptions),
    /// VDI dynamic: the blocks that hold data.
    VdiDynamic(VdiOptions),
    /// VDI fixed: all blocks, zeros left to the sink.
    VdiFixed(VdiOptions),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the file in bytes.
    pub file_bytes: u64,
}

/// Writes the guest-visible bytes of `disk` to `sink`, which is emptied first.
///
/// The file is a function of those bytes and the options: holes, explicit zeros and written zeros give the same file.
/// VMDK, qcow2, VHD, VHDX and VDI round the size up to sectors of 512 bytes (VHDX to its own), VHD perhaps further
/// ([`VhdFit`](crate::vhd::VhdFit)).
///
/// # Errors
/// What reading the disk or writing the sink finds; [`Error::Unsupported`] for options out of range, or a disk larger
/// than the format holds.
pub fn write(disk: &dyn ReadAt, target: &Target, sink: &dyn WriteAt) -> Result<Written> {
    write_with(disk, target, sink, &Work::ALONE)
}

/// [`write()`] by several workers. The file is the same however many there are.
///
/// What makes the file one of its format (headers, footers) is written last. A sink that can share ranges of files is
/// offered those that stand in the source as they are, see [`WriteAt::take`].
///
/// # Errors
/// As [`write()`]; of several errors the one that comes first on the disk.
pub fn write_with(
    disk: &dyn ReadAt,
    target: &Target,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<Written> {
    if sink.len() != 0 {
        sink.set_len(0)?;
    }
    let file_bytes = match target {
        Target::Raw => write_raw(disk, sink, work)?,
        Target::VmdkSparse(options) => vmdk::write_sparse(disk, options, sink, work)?,
        Target::VmdkStream(options) => {
            let mut at = 0u64;
            let mut put = |bytes: &[u8]| {
                sink.write_at(at, bytes)?;
                at = at.saturating_add(len64(bytes));
                Ok(())
            };
            let length = vmdk::write_stream(disk, options, &mut put, work)?;
            sink.set_len(length)?;
            length
        }
        Target::Qcow2(options) => write_qcow2(disk, options, sink, work)?,
        Target::VhdFixed(options) => vhd::write_fixed(disk, options, sink, work)?,
        Target::VhdDynamic(options) => vhd::write_dynamic(disk, options, sink, work)?,
        Target::VhdxFixed(options) => vhdx::write_fixed(disk, options, sink, work)?,
        Target::VhdxDynamic(options) => vhdx::write_dynamic(disk, options, sink, work)?,
        Target::VdiDynamic(options) => vdi::write_dynamic(disk, options, sink, work)?,
        Target::VdiFixed(options) => vdi::write_fixed(disk, options, sink, work)?,
    };
    Ok(Written { file_bytes })
}

/// Hands out a streamOptimized VMDK front to back, in pieces of up to about 256 KiB.
///
/// Grains are packed by the workers, `put` is called by one thread at a time. Without a content id in the options the
/// disk is read twice.
///
/// # Errors
/// As [`write()`]; the first error of `put` ends it.
pub fn write_stream(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    put: &mut (impl FnMut(&[u8]) -> Result<()> + Send),
    work: &Work<'_>,
) -> Result<Written> {
    Ok(Written {
        file_bytes: vmdk::write_stream(disk, options, put, work)?,
    })
}

/// The length that [`write()`] would give the file, exactly, by writing into nothing.
///
/// Reads the data of the disk once; compressing targets compress it. Raw costs nothing.
///
/// # Errors
/// As [`write()`].
pub fn file_size(disk: &dyn ReadAt, target: &Target) -> Result<u64> {
    match target {
        Target::Raw => Ok(disk.len()),
        other => Ok(write(disk, other, &Counter::default())?.file_bytes),
    }
}

/// A sink that keeps nothing but its length.
#[derive(Default)]
struct Counter {
    length: Mutex<u64>,
}

impl Counter {
    fn change(&self, to: impl FnOnce(u64) -> u64) {
        let mut length = self
            .length
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *length = to(*length);
    }
}

impl ReadAt for Counter {
    fn len(&self) -> u64 {
        *self
            .length
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read_at(&self, offset: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::io(format_args!(
            "read at offset {offset} of a sink that keeps no bytes"
        )))
    }
}

impl WriteAt for Counter {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.saturating_add(len64(bytes));
        self.change(|length| length.max(end));
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.change(|_| length);
        Ok(())
    }
}
