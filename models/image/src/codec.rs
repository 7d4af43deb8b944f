//! Compression as the formats use it: zlib streams (RFC 1950) in VMDK, raw deflate streams (RFC 1951) and zstd frames (RFC
//! 8878) in qcow2.
//!
//! libdeflate packs and unpacks whole units and is the fastest at both; it has no window smaller than 32 KiB. qcow2
//! clusters are packed by zlib-rs with a window of 4 KiB: QEMU asks its inflate for no more, and a reader that unpacks a
//! cluster piece by piece then keeps no more (Python's zlib fails on a full window with "invalid distance too far back").
//! What libdeflate does not unpack zlib-rs tries again, to say what is wrong with it.
//!
//! **Streams that no compressor makes.** libdeflate "accepts what zlib accepts, plus a bit more" (a comment of its
//! deflate_decompress.c, with the reason: a symbol for errors costs speed). These streams are unpacked here, and are an
//! error to zlib and so to qemu-img; RFC 1951 says only that the codes "will never actually occur in the compressed data":
//!
//! | stream | here | zlib |
//! |---|---|---|
//! | literal/length code 286 or 287, fixed or in a table (3.2.6) | length 258 | invalid literal/length code, or too many symbols |
//! | distance code 30 or 31, fixed or in a table (3.2.6) | as code 29: 24,577 and 13 bits | invalid distance code, or too many symbols |
//! | the codeword that a code of one symbol leaves free (3.2.7) | that symbol | invalid code |
//! | a distance where the code has no symbol (3.2.7) | 1 | invalid distance code |
//!
//! None of it shows in what libdeflate gives back, and only who decodes a stream knows whether one of its blocks has such a
//! code: to refuse them means to decode everything a second time, by zlib-rs. So they are read. The bytes of VMDK grains
//! are held against their checksum as always; a qcow2 cluster has none, and most other damage to it goes unnoticed by
//! every reader as well.

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

    /// A deflate stream written bit by bit.
    #[derive(Default)]
    struct Bits {
        bytes: Vec<u8>,
        used: u32,
    }

    impl Bits {
        /// A number, least significant bit first.
        fn put(mut self, value: u32, bits: u32) -> Self {
            for bit in 0..bits {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.used % 8);
                self.used += 1;
            }
            self
        }

        /// A codeword, most significant bit first.
        fn code(self, value: u32, bits: u32) -> Self {
            self.put(value.reverse_bits() >> (32 - bits), bits)
        }

        /// The header of the last block, of a type.
        fn last(kind: u32) -> Self {
            Self::default().put(1, 1).put(kind, 2)
        }

        /// Tables of a dynamic block: number of lengths of either code, and the lengths in runs of equal ones.
        fn tables(self, (litlens, distances): (u32, u32), runs: &[(u32, u32)]) -> Self {
            let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
            let mut all = self.put(litlens - 257, 5).put(distances - 1, 5);
            // Codewords 0, 1, 2 and 3 of two bits for the lengths 0, 1, 2 and for 18, up to 138 zeros.
            all = all.put(order.len() as u32 - 4, 4);
            for symbol in order {
                all = all.put(
                    if [0, 1, 2, 18].contains(&symbol) {
                        2
                    } else {
                        0
                    },
                    3,
                );
            }
            for (length, count) in runs {
                let mut left = *count;
                while *length == 0 && left >= 11 {
                    let run = left.min(138);
                    all = all.code(3, 2).put(run - 11, 7);
                    left -= run;
                }
                for _ in 0..left {
                    all = all.code(*length, 2);
                }
            }
            all
        }
    }

    #[test]
    fn codes_that_never_occur_are_read_where_zlib_refuses_them() {
        let a = 0x30 + 97;
        // One more of the byte before, as often as code 286 says.
        let length = Bits::last(1).code(a, 8).code(0xc6, 8).code(0, 5).code(0, 7);
        let text: Vec<u8> = (0..24_577u32).map(|i| (i % 89) as u8).collect();
        let far = text.iter().fold(Bits::last(1), |bits, byte| {
            bits.code(0x30 + u32::from(*byte), 8)
        });
        let far = far.code(1, 7).code(30, 5).put(0, 13).code(0, 7);
        // Tables as long as the counts allow: 'a', the end and 287; distances 1 and 31.
        let lengths = [
            (0, 97),
            (1, 1),
            (0, 158),
            (2, 1),
            (0, 30),
            (2, 1),
            (1, 1),
            (0, 30),
            (1, 1),
        ];
        let long = Bits::last(2).tables((288, 32), &lengths);
        let long = long.code(0, 1).code(3, 2).code(0, 1).code(2, 2);
        // 'a', the end and length 3; one distance, or none.
        let head = [(0, 97), (1, 1), (0, 158), (2, 2)];
        let one = Bits::last(2).tables((258, 1), &[&head[..], &[(1, 1)]].concat());
        let one = one.code(0, 1).code(3, 2).code(1, 1).code(2, 2);
        let none = Bits::last(2).tables((258, 1), &[&head[..], &[(0, 1)]].concat());
        let none = none.code(0, 1).code(3, 2).code(0, 1).code(2, 2);
        // The end is the only symbol, and its codeword 0.
        let end = Bits::last(2)
            .tables((257, 1), &[(0, 256), (1, 1), (0, 1)])
            .code(1, 1);
        let far_bytes = [&text[..], &text[..3]].concat();
        for (what, stream, bytes, theirs) in [
            (
                "length 286",
                length,
                vec![b'a'; 259],
                "invalid literal/length code",
            ),
            ("distance 30", far, far_bytes, "invalid distance code"),
            (
                "288 and 32 codes",
                long,
                vec![b'a'; 259],
                "too many length or distance symbols",
            ),
            ("one distance", one, vec![b'a'; 4], "invalid distance code"),
            ("no distance", none, vec![b'a'; 4], "invalid distance code"),
            (
                "only the end",
                end,
                Vec::new(),
                "invalid literal/length code",
            ),
        ] {
            let packed = stream.bytes;
            assert_eq!(unpack(&packed, Framing::Raw, 65_536), Ok(bytes), "{what}");
            let mut out = vec![0; 65_536];
            let error = inflate_again(&packed, Framing::Raw, &mut out).unwrap_err();
            assert!(error.to_string().contains(theirs), "{what}: {error}");
        }
    }
}
