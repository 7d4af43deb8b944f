//! Compression as the formats use it: zlib streams (RFC 1950) in VMDK, raw deflate streams (RFC 1951) and zstd frames (RFC
//! 8878) in qcow2.
//!
//! libdeflate packs and unpacks whole units and is the fastest at both; it has no window smaller than 32 KiB. qcow2
//! clusters are packed by zlib-rs with a window of 4 KiB: QEMU asks its inflate for no more, and a reader that unpacks a
//! cluster piece by piece then keeps no more (Python's zlib fails on a full window with "invalid distance too far back").
//! What libdeflate does not unpack zlib-rs tries again, to say what is wrong with it.

use drylab_block::{Error, Result};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};
use std::sync::{Mutex, PoisonError};

/// A compressor that is reused from unit to unit.
pub(crate) struct Packer(Kind);

enum Kind {
    /// zlib header and checksum, window of 32 KiB.
    Zlib(Compressor),
    /// No header, window of 4 KiB.
    Raw4k {
        level: Compression,
        deflate: Compress,
    },
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Packer {
    /// zlib header and checksum, window of 32 KiB; `level` 0 to 12.
    pub(crate) fn zlib(level: u32) -> Result<Self> {
        let level = i32::try_from(level.min(12)).unwrap_or(12);
        let level = CompressionLvl::new(level)
            .map_err(|_| Error::unsupported(format_args!("deflate level {level}")))?;
        Ok(Self(Kind::Zlib(Compressor::new(level))))
    }

    /// No header, window of 4 KiB: all that qcow2 readers are sure to have. `level` 1 to 9.
    pub(crate) fn raw_4k(level: u32) -> Self {
        let level = Compression::new(level.clamp(1, 9));
        let deflate = Compress::new_with_window_bits(level, false, 12);
        Self(Kind::Raw4k { level, deflate })
    }

    /// One zstd frame for each unit; `level` 1 to 19.
    pub(crate) fn zstd(level: u32) -> Result<Self> {
        let level = i32::try_from(level.clamp(1, 19)).unwrap_or(19);
        let packer = zstd::bulk::Compressor::new(level)
            .map_err(|error| Error::io(format_args!("zstd: {error}")))?;
        Ok(Self(Kind::Zstd(packer)))
    }

    /// Appends the packed bytes to `out`, or says `false` and appends nothing when they would be more than `most`.
    pub(crate) fn pack(&mut self, bytes: &[u8], most: usize, out: &mut Vec<u8>) -> Result<bool> {
        let start = out.len();
        out.resize(start.saturating_add(most), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let packed = match &mut self.0 {
            // The only error there can be is a stream that does not fit, here and of zstd.
            Kind::Zlib(packer) => packer.zlib_compress(bytes, room).ok(),
            Kind::Raw4k { level, deflate } => pack_4k(deflate, *level, bytes, room)?,
            Kind::Zstd(packer) => packer.compress_to_buffer(bytes, room).ok(),
        };
        out.truncate(start.saturating_add(packed.unwrap_or(0)));
        Ok(packed.is_some())
    }

    /// Appends a zlib stream of any bytes that grows by little: packed when that is shorter, else stored blocks.
    pub(crate) fn pack_or_store(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let stored = bytes.len().saturating_add(STORED_OVERHEAD);
        if !self.pack(bytes, stored, out)? {
            store(bytes, out);
        }
        Ok(())
    }
}

/// The length packed, when it fits.
fn pack_4k(
    deflate: &mut Compress,
    level: Compression,
    bytes: &[u8],
    room: &mut [u8],
) -> Result<Option<usize>> {
    let before = deflate.total_out();
    let status = deflate
        .compress(bytes, room, FlushCompress::Finish)
        .map_err(|error| Error::io(format_args!("cannot compress: {error}")))?;
    let length = crate::math::index(deflate.total_out().saturating_sub(before));
    if status == Status::StreamEnd {
        deflate.reset();
        return Ok(Some(length));
    }
    // zlib-rs 0.6.8 does not forget its pending output on reset when a stream was left unfinished, and panics some units
    // later ("buf.len() must fit in remaining()"), so an unfinished compressor is thrown away.
    *deflate = Compress::new_with_window_bits(level, false, 12);
    Ok(None)
}

/// zlib header and checksum and the headers of two stored blocks: enough for the 64 KiB of a grain.
const STORED_OVERHEAD: usize = 2 + 5 + 5 + 4;

/// The longest stored block that deflate knows, in bytes.
const STORED_BLOCK: usize = 65_535;

/// Appends a zlib stream of stored blocks.
fn store(bytes: &[u8], out: &mut Vec<u8>) {
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
    out.extend_from_slice(&libdeflater::adler32(bytes).to_be_bytes());
}

/// How a stream is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// RFC 1950.
    Zlib,
    /// RFC 1951.
    Raw,
    /// RFC 8878.
    Zstd,
}

/// Decompressors, and a buffer for packed bytes. One unpacks one unit at a time.
pub(crate) struct Unpacker {
    inflate: Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    packed: Vec<u8>,
}

impl Unpacker {
    fn new() -> Self {
        Self {
            inflate: Decompressor::new(),
            zstd: None,
            packed: Vec::new(),
        }
    }

    /// Fills a buffer of `length` bytes by `read` and hands it out with the unpacker.
    pub(crate) fn load(
        &mut self,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<(&[u8], Engine<'_>)> {
        if self.packed.len() < length {
            self.packed.resize(length, 0);
        }
        let Self {
            inflate,
            zstd,
            packed,
        } = self;
        let bytes = packed.get_mut(..length).unwrap_or_default();
        read(bytes)?;
        Ok((bytes, Engine { inflate, zstd }))
    }

    /// The decompressors alone.
    pub(crate) fn engine(&mut self) -> Engine<'_> {
        Engine {
            inflate: &mut self.inflate,
            zstd: &mut self.zstd,
        }
    }
}

/// Decompressors, borrowed from an [`Unpacker`].
pub(crate) struct Engine<'a> {
    inflate: &'a mut Decompressor,
    zstd: &'a mut Option<zstd::bulk::Decompressor<'static>>,
}

impl Engine<'_> {
    /// Unpacks one stream into the front of `out` and says how many bytes there were; more than fit are an error. Bytes
    /// behind the stream's end are ignored. Of zstd frames as many follow each other as fill `out`, as QEMU reads them.
    pub(crate) fn unpack(
        &mut self,
        packed: &[u8],
        framing: Framing,
        out: &mut [u8],
    ) -> Result<usize> {
        let found = match framing {
            Framing::Zlib => self.inflate.zlib_decompress(packed, out),
            Framing::Raw => self.inflate.deflate_decompress(packed, out),
            Framing::Zstd => return self.unzstd(packed, out),
        };
        match found {
            Ok(produced) => Ok(produced),
            Err(DecompressionError::InsufficientSpace) => Err(too_long("deflate stream", out)),
            Err(DecompressionError::BadData) => inflate_again(packed, framing, out),
        }
    }

    fn unzstd(&mut self, packed: &[u8], out: &mut [u8]) -> Result<usize> {
        let damaged = |error| Error::corrupt(format_args!("zstd frame is damaged: {error}"));
        if self.zstd.is_none() {
            *self.zstd = Some(zstd::bulk::Decompressor::new().map_err(Error::io)?);
        }
        let Some(zstd) = self.zstd.as_mut() else {
            return Err(Error::io("zstd"));
        };
        let (mut rest, mut done) = (packed, 0usize);
        while done < out.len() {
            let (frame, later) = zstd_frame(rest).map_err(damaged)?;
            let room = out.get_mut(done..).unwrap_or_default();
            let produced = zstd.decompress_to_buffer(frame, room).map_err(damaged)?;
            done = done.saturating_add(produced);
            rest = later;
        }
        Ok(done)
    }
}

fn too_long(what: &str, out: &[u8]) -> Error {
    Error::corrupt(format_args!(
        "{what} unpacks to more than {} bytes",
        out.len()
    ))
}

/// The first zstd frame of `packed`, and what follows: behind the last one of a cluster that is whatever fills its sector.
fn zstd_frame(packed: &[u8]) -> std::io::Result<(&[u8], &[u8])> {
    let length = zstd::zstd_safe::find_frame_compressed_size(packed)
        .map_err(|code| std::io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
    Ok(packed.split_at_checked(length).unwrap_or((packed, &[])))
}

/// Says what is wrong with a stream.
fn inflate_again(packed: &[u8], framing: Framing, out: &mut [u8]) -> Result<usize> {
    let mut inflate = Decompress::new(framing == Framing::Zlib);
    let status = inflate
        .decompress(packed, out, FlushDecompress::Finish)
        .map_err(|error| Error::corrupt(format_args!("deflate stream is damaged: {error}")))?;
    let produced = crate::math::index(inflate.total_out());
    if status == Status::StreamEnd {
        return Ok(produced);
    }
    if produced >= out.len() && inflate.total_in() < crate::math::len64(packed) {
        return Err(too_long("deflate stream", out));
    }
    Err(Error::corrupt(format_args!(
        "deflate stream of {} bytes ends before its end, after {produced} bytes of output",
        packed.len()
    )))
}

/// Unpackers that are not in use: as many as readers were at work at once.
#[derive(Default)]
pub(crate) struct Unpackers(Mutex<Vec<Unpacker>>);

impl Unpackers {
    /// Lends an unpacker to `use_it`.
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut Unpacker) -> T) -> T {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut unpacker = idle.unwrap_or_else(Unpacker::new);
        let done = use_it(&mut unpacker);
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(unpacker);
        done
    }
}

/// Unpacks one stream of at most `most` bytes; bytes behind the stream's end are ignored.
pub(crate) fn unpack(packed: &[u8], framing: Framing, most: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let produced = Unpacker::new()
        .engine()
        .unpack(packed, framing, &mut bytes)?;
    bytes.truncate(produced);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn stored_streams_unpack() {
        for length in [1usize, 5551, 5552, 65_535, 65_536] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let mut out = Vec::new();
            store(&bytes, &mut out);
            assert_eq!(unpack(&out, Framing::Zlib, length).unwrap(), bytes);
        }
    }

    #[test]
    fn units_that_do_not_get_shorter_leave_nothing_behind_for_the_next() {
        let units = noise(200 * 4096);
        let packers = [
            (Packer::raw_4k(6), Framing::Raw),
            (Packer::zlib(6).unwrap(), Framing::Zlib),
            (Packer::zstd(3).unwrap(), Framing::Zstd),
        ];
        for (mut packer, framing) in packers {
            let mut out = Vec::new();
            for unit in units.chunks(4096) {
                assert!(!packer.pack(unit, unit.len() - 1, &mut out).unwrap());
                assert!(out.is_empty());
            }
            assert!(packer.pack(&[7; 4096], 4095, &mut out).unwrap());
            assert_eq!(unpack(&out, framing, 4096).unwrap(), [7; 4096]);
            // What follows the stream is not looked at.
            out.extend_from_slice(&[0xee; 600]);
            assert_eq!(unpack(&out, framing, 4096).unwrap(), [7; 4096]);
            assert!(unpack(&out, framing, 4095).is_err());
            assert!(unpack(&out[..5], framing, 4096).is_err());
        }
    }

    #[test]
    fn a_cluster_may_be_several_zstd_frames_with_anything_behind_the_last() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i / 7) as u8).collect();
        let mut packer = Packer::zstd(3).unwrap();
        let mut packed = Vec::new();
        for part in [&bytes[..1000], &bytes[1000..]] {
            assert!(packer.pack(part, part.len(), &mut packed).unwrap());
        }
        packed.extend([0xaa; 99]);
        assert_eq!(unpack(&packed, Framing::Zstd, 4096).unwrap(), bytes);
        // A frame that is too long, one that is cut, and none.
        for (packed, most) in [(&packed[..], 4095), (&packed[..40], 4096), (&[], 4096)] {
            assert!(unpack(packed, Framing::Zstd, most).is_err());
        }
    }

    #[test]
    fn a_packed_cluster_refers_no_further_back_than_four_kib() {
        // Two equal halves, 8 KiB apart: a full window would pack the second into a few bytes.
        let half = noise(8192);
        let unit = [half.clone(), half].concat();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        assert!(
            !Packer::raw_4k(9)
                .pack(&unit, unit.len() - 1, &mut near)
                .unwrap()
        );
        assert!(
            Packer::zlib(9)
                .unwrap()
                .pack(&unit, unit.len(), &mut far)
                .unwrap()
        );
        assert!(far.len() < 9000);
    }

    #[test]
    fn incompressible_bytes_are_stored_and_grow_by_sixteen_bytes_at_most() {
        let noise = noise(65_536);
        for level in [0, 1, 6, 9, 12] {
            let mut packed = Vec::new();
            let mut packer = Packer::zlib(level).unwrap();
            packer.pack_or_store(&noise, &mut packed).unwrap();
            assert!(packed.len() <= noise.len() + STORED_OVERHEAD);
            assert_eq!(unpack(&packed, Framing::Zlib, noise.len()).unwrap(), noise);
        }
    }
}
