//! zstd clusters, and the compressors of [`layered`](super::layered) images.

use super::Qcow2Compression;
use crate::codec::Packer;
use drylab_block::{Error, Result};

/// A compressor that is reused from cluster to cluster.
pub(super) enum Tool {
    Zlib(Packer),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Tool {
    /// zlib levels are 1 to 9, zstd levels 1 to 19.
    pub(super) fn new(compression: Qcow2Compression, level: u32) -> Result<Self> {
        Ok(match compression {
            Qcow2Compression::Zlib => Self::Zlib(Packer::raw_4k(level)),
            Qcow2Compression::Zstd => {
                let level = i32::try_from(level.clamp(1, 19)).unwrap_or(19);
                Self::Zstd(zstd::bulk::Compressor::new(level).map_err(Error::io)?)
            }
        })
    }

    /// The packed bytes when they are fewer.
    pub(super) fn pack(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let most = bytes.len().saturating_sub(1);
        match self {
            Self::Zlib(packer) => Ok(packer.pack(bytes, most)?.map(<[u8]>::to_vec)),
            Self::Zstd(packer) => {
                let mut packed = vec![0; most];
                // The only error there can be is a frame that does not fit.
                let length = packer.compress_to_buffer(bytes, &mut packed).ok();
                Ok(length.map(|length| {
                    packed.truncate(length);
                    packed
                }))
            }
        }
    }
}

/// Unpacks zstd frames to `most` bytes: QEMU reads one after the other until a cluster is full. Their window costs no
/// memory, as the cluster itself is one.
pub(super) fn unzstd(packed: &[u8], most: usize) -> Result<Vec<u8>> {
    let damaged = |what: &dyn std::fmt::Display| {
        Error::corrupt(format_args!("zstd frame is damaged: {what}"))
    };
    let mut decoder = zstd::bulk::Decompressor::new().map_err(Error::io)?;
    let mut bytes = vec![0; most];
    let (mut rest, mut done) = (packed, 0usize);
    while done < most {
        let length = zstd::zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| damaged(&zstd::zstd_safe::get_error_name(code)))?;
        let (frame, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let room = bytes.get_mut(done..).unwrap_or_default();
        let produced = decoder
            .decompress_to_buffer(frame, room)
            .map_err(|error| damaged(&error))?;
        done = done.saturating_add(produced);
        rest = later;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_may_be_several_frames_with_anything_behind_the_last() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i / 7) as u8).collect();
        let mut tool = Tool::new(Qcow2Compression::Zstd, 3).unwrap();
        let mut packed = tool.pack(&bytes[..1000]).unwrap().unwrap();
        packed.extend(tool.pack(&bytes[1000..]).unwrap().unwrap());
        packed.extend([0xaa; 99]);
        assert_eq!(unzstd(&packed, 4096).unwrap(), bytes);
        assert!(unzstd(&packed, 4095).is_err(), "a frame that is too long");
        assert!(unzstd(&packed[..40], 4096).is_err());
        assert!(unzstd(&[], 4096).is_err());
    }
}
