//! Compressed members of an initial RAM filesystem, and compressed kernel modules in it.
//!
//! Formats: RFC 1952 (gzip); "The .xz File Format" 1.1.0; RFC 8878 (zstd). Linux' own list of what it unpacks is
//! lib/decompress.c and `usr/Kconfig` (`RD_GZIP`, `RD_XZ`, `RD_ZSTD`, …); kmod(8) has `.ko.gz`, `.ko.xz`, `.ko.zst`.
//!
//! ```text
//! gzip  1f 8b 08 …                       deflate … CRC-32, size
//! xz    fd "7zXZ" 00, flags, CRC-32      blocks: header, LZMA2, padding, check      index, footer "YZ"
//! zstd  28 b5 2f fd, frame header        blocks …                                  optional check (xxHash)
//! ```
//!
//! Libraries, chosen in November 2026 among the decoders in Rust: `lzma-rust2` (Apache-2.0, released this month, its
//! `optimization` feature left out, so that it has no unsafe code; it checks CRC-32, CRC-64 and SHA-256 and takes a
//! bound for the dictionary) and `ruzstd` (MIT, in pure Rust, takes a bound for the window; its ring buffer is its
//! only unsafe part). `lzma-rs` has had no release since 2023, `zstd` is a binding to C. What is bounded here: the
//! bytes that come out, and the dictionary or window, which may not be larger than those (a window of 8 MiB is always
//! allowed, as the RFC asks).

use drylab_block::{Error, Result};
use std::io::Read;

/// How a member is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    Gzip,
    Xz,
    Zstd,
}

/// What the decoder of xz needs besides its dictionary, in KiB.
const XZ_OVERHEAD_KIB: u64 = 1024;
/// Smallest window a zstd decoder has to allow (RFC 8878, 3.1.1.1.2).
const WINDOW_MIN: u64 = 8 << 20;

impl Packed {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Compression of a module file, by the end of its name.
    pub(crate) fn of_module(path: &str) -> Option<Self> {
        let suffixes = [
            (".ko.gz", Self::Gzip),
            (".ko.xz", Self::Xz),
            (".ko.zst", Self::Zstd),
        ];
        let found = suffixes.iter().find(|(suffix, _)| path.ends_with(suffix));
        found.map(|(_, packed)| *packed)
    }

    /// Unpacks what begins `packed` and takes its size from `left`; content and how many packed bytes it took.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the stream is damaged or breaks off, [`Error::Unsupported`] when it unpacks to more
    /// than `left` bytes or wants a dictionary larger than that.
    pub(crate) fn unpack(self, packed: &[u8], left: &mut u64) -> Result<(Vec<u8>, usize)> {
        let bound = left.saturating_add(1);
        let (content, rest) = match self {
            Self::Gzip => gzip(packed, bound),
            Self::Xz => xz(packed, bound),
            Self::Zstd => zstd(packed, bound),
        }?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        *left = left.checked_sub(length).ok_or_else(|| {
            Error::unsupported(format_args!(
                "{} stream of the initramfs unpacks to more than {left} bytes",
                self.name()
            ))
        })?;
        Ok((content, packed.len().saturating_sub(rest)))
    }
}

fn damaged(kind: Packed, error: &dyn std::fmt::Display) -> Error {
    let name = kind.name();
    Error::corrupt(format_args!("{name} stream of the initramfs: {error}"))
}

/// Content, cut at `bound` bytes, and how many bytes of `packed` stand behind the member.
fn gzip(packed: &[u8], bound: u64) -> Result<(Vec<u8>, usize)> {
    let mut reader = flate2::bufread::GzDecoder::new(packed);
    let mut content = Vec::new();
    let read = reader.by_ref().take(bound).read_to_end(&mut content);
    read.map_err(|error| damaged(Packed::Gzip, &error))?;
    Ok((content, reader.into_inner().len()))
}

fn xz(packed: &[u8], bound: u64) -> Result<(Vec<u8>, usize)> {
    // The largest value switches the bound off.
    let most = u64::from(u32::MAX.saturating_sub(1));
    let memory = bound
        .div_ceil(1024)
        .saturating_add(XZ_OVERHEAD_KIB)
        .min(most);
    let memory = u32::try_from(memory).unwrap_or(0);
    let mut reader = lzma_rust2::XzReader::new_mem_limit(packed, false, memory);
    let mut content = Vec::new();
    let read = reader.by_ref().take(bound).read_to_end(&mut content);
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::OutOfMemory | std::io::ErrorKind::Unsupported => Error::unsupported(
            format_args!("xz stream of the initramfs, within {memory} KiB: {error}"),
        ),
        _ => damaged(Packed::Xz, &error),
    })?;
    Ok((content, reader.into_inner().len()))
}

fn zstd(packed: &[u8], bound: u64) -> Result<(Vec<u8>, usize)> {
    use ruzstd::decoding::{StreamingDecoder, errors::FrameDecoderError};
    let window = bound.max(WINDOW_MIN);
    let mut reader = StreamingDecoder::new_with_max_window_size(packed, window)
        .map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { requested, max } => {
                Error::unsupported(format_args!(
                    "zstd stream of the initramfs wants a window of {requested} bytes (at most {max})"
                ))
            }
            _ => damaged(Packed::Zstd, &error),
        })?;
    let mut content = Vec::new();
    let read = reader.by_ref().take(bound).read_to_end(&mut content);
    read.map_err(|error| damaged(Packed::Zstd, &error))?;
    let (rest, decoder) = reader.into_parts();
    // A member that was cut at the bound is refused by its length, before its check could be told.
    let whole = u64::try_from(content.len()).is_ok_and(|length| length < bound);
    let stored = decoder.get_checksum_from_data();
    if whole && stored.is_some() && stored != decoder.get_calculated_checksum() {
        return Err(damaged(
            Packed::Zstd,
            &"the content does not have its checksum",
        ));
    }
    Ok((content, rest.len()))
}
