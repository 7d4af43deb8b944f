//! Deflate as the formats use it: zlib streams (RFC 1950) in VMDK, raw streams (RFC 1951) with a window of 4 KiB in
//! qcow2.

use drylab_block::{Error, Result};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A compressor that is reused from unit to unit.
pub(crate) struct Packer {
    framing: Framing,
    level: Compression,
    deflate: Compress,
    packed: Vec<u8>,
}

impl Packer {
    /// zlib header and checksum, window of 32 KiB; `level` 0 to 9.
    pub(crate) fn zlib(level: u32) -> Self {
        Self::new(Framing::Zlib, Compression::new(level.min(9)))
    }

    /// No header, window of 4 KiB: all that qcow2 readers are sure to have.
    pub(crate) fn raw_4k(level: u32) -> Self {
        Self::new(Framing::Raw, Compression::new(level.clamp(1, 9)))
    }

    fn new(framing: Framing, level: Compression) -> Self {
        Self {
            framing,
            level,
            deflate: deflate(framing, level),
            packed: Vec::new(),
        }
    }

    /// The packed bytes, or `None` when they would be more than `most`.
    pub(crate) fn pack(&mut self, bytes: &[u8], most: usize) -> Result<Option<&[u8]>> {
        self.packed.clear();
        self.packed.reserve(most);
        let status = self
            .deflate
            .compress_vec(bytes, &mut self.packed, FlushCompress::Finish)
            .map_err(|error| Error::io(format_args!("cannot compress: {error}")))?;
        if status == Status::StreamEnd {
            self.deflate.reset();
        } else {
            // zlib-rs 0.6.8 does not forget its pending output on reset when a stream was left unfinished, and panics
            // some units later ("buf.len() must fit in remaining()"), so an unfinished compressor is thrown away.
            self.deflate = deflate(self.framing, self.level);
        }
        Ok((status == Status::StreamEnd && self.packed.len() <= most).then_some(&self.packed))
    }

    /// A zlib stream of any bytes that grows by little: packed when that is shorter, else stored blocks.
    ///
    /// The compressor alone grows incompressible grains by up to 5 % (measured for zlib-rs at level 1).
    pub(crate) fn pack_or_store(&mut self, bytes: &[u8]) -> Result<&[u8]> {
        let stored = bytes.len().saturating_add(STORED_OVERHEAD);
        if self.pack(bytes, stored)?.is_none() {
            store(bytes, &mut self.packed);
        }
        Ok(&self.packed)
    }
}

fn deflate(framing: Framing, level: Compression) -> Compress {
    match framing {
        Framing::Zlib => Compress::new(level, true),
        Framing::Raw => Compress::new_with_window_bits(level, false, 12),
    }
}

/// zlib header and checksum and the headers of two stored blocks: enough for the 64 KiB of a grain.
const STORED_OVERHEAD: usize = 2 + 5 + 5 + 4;

/// The longest stored block that deflate knows, in bytes.
const STORED_BLOCK: usize = 65_535;

/// A zlib stream of stored blocks.
fn store(bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    // CM 8, 32 KiB window, fastest, and the check bits that make it a multiple of 31.
    out.extend_from_slice(&[0x78, 0x01]);
    let mut blocks = bytes.chunks(STORED_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&adler32(bytes).to_be_bytes());
}

/// Adler-32 (RFC 1950 §8.2).
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (mut a, mut b) = (1u32, 0u32);
    // 5552 bytes are the most that keep both sums below 2^32.
    for part in bytes.chunks(5552) {
        for byte in part {
            a = a.saturating_add(u32::from(*byte));
            b = b.saturating_add(a);
        }
        a %= BASE;
        b %= BASE;
    }
    (b << 16) | a
}

/// How a stream is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// RFC 1950.
    Zlib,
    /// RFC 1951.
    Raw,
}

/// Unpacks one stream of at most `most` bytes; bytes behind the stream's end are ignored.
pub(crate) fn unpack(packed: &[u8], framing: Framing, most: usize) -> Result<Vec<u8>> {
    let mut inflate = Decompress::new(framing == Framing::Zlib);
    // One byte more than allowed shows a stream that is too long.
    let mut bytes = vec![0; most.saturating_add(1)];
    let status = inflate
        .decompress(packed, &mut bytes, FlushDecompress::Finish)
        .map_err(|error| Error::corrupt(format_args!("deflate stream is damaged: {error}")))?;
    let produced = crate::math::index(inflate.total_out());
    if produced > most {
        return Err(Error::corrupt(format_args!(
            "deflate stream unpacks to more than {most} bytes"
        )));
    }
    if status != Status::StreamEnd {
        return Err(Error::corrupt(format_args!(
            "deflate stream of {} bytes ends before its end, after {produced} bytes of output",
            packed.len()
        )));
    }
    bytes.truncate(produced);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_streams_unpack_and_adler32_is_the_checksum_of_zlib() {
        for length in [0usize, 1, 5551, 5552, 65_535, 65_536] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let mut out = Vec::new();
            store(&bytes, &mut out);
            if length > 0 {
                assert_eq!(unpack(&out, Framing::Zlib, length).unwrap(), bytes);
            }
        }
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn units_that_do_not_get_shorter_leave_nothing_behind_for_the_next() {
        let mut state = 1u64;
        let mut unit = vec![0u8; 4096];
        let mut packer = Packer::raw_4k(6);
        for round in 0..200 {
            unit.fill_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            });
            assert_eq!(packer.pack(&unit, unit.len() - 1).unwrap(), None, "{round}");
        }
        let packed = packer.pack(&[7; 4096], 4095).unwrap().unwrap().to_vec();
        assert_eq!(unpack(&packed, Framing::Raw, 4096).unwrap(), [7; 4096]);
    }

    #[test]
    fn incompressible_bytes_are_stored_and_grow_by_sixteen_bytes_at_most() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(65_536)
        .collect();
        for level in [1, 6] {
            let mut packer = Packer::zlib(level);
            let packed = packer.pack_or_store(&noise).unwrap().to_vec();
            assert!(packed.len() <= noise.len() + STORED_OVERHEAD);
            assert_eq!(unpack(&packed, Framing::Zlib, noise.len()).unwrap(), noise);
        }
    }
}
