//! LZNT1, the compression of NTFS files ([MS-XCA] 2.5).
//!
//! ```text
//! chunk: u16 header (bits 0-11: bytes that follow minus 1, bit 15: compressed), at most 4096 bytes when unpacked
//! compressed: flag byte, then 8 items, bit 0 first: 0 a literal byte, 1 a u16 of distance and length
//! ```

use drylab_block::{Error, Result, le_u16};

/// Bytes of an unpacked chunk.
const CHUNK: usize = 4096;

/// Unpacks chunks until a zero header, the end, or `max` bytes.
pub(crate) fn decompress(packed: &[u8], max: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(max.min(packed.len().saturating_mul(8)));
    let mut at = 0usize;
    while out.len() < max {
        let Some(header) = le_u16(packed, at).filter(|header| *header != 0) else {
            break;
        };
        let length = usize::from(header & 0xFFF).saturating_add(1);
        at = at.saturating_add(2);
        let chunk = packed.get(at..at.saturating_add(length));
        let chunk = chunk.ok_or_else(|| {
            Error::corrupt(format_args!(
                "compressed chunk of {length} bytes ends past its unit"
            ))
        })?;
        let start = out.len();
        if header & 0x8000 == 0 {
            out.extend_from_slice(chunk);
        } else {
            unpack(chunk, &mut out)?;
        }
        // A short chunk stands for a whole one.
        if out.len().saturating_sub(start) < CHUNK {
            out.resize(start.saturating_add(CHUNK), 0);
        }
        at = at.saturating_add(length);
    }
    out.truncate(max);
    Ok(out)
}

fn unpack(chunk: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let mut rest = chunk;
    while let Some((flags, tail)) = rest.split_first() {
        rest = tail;
        for bit in 0..8u32 {
            let Some((first, tail)) = rest.split_first() else {
                return Ok(());
            };
            let done = out.len().saturating_sub(start);
            if flags >> bit & 1 == 0 {
                if done >= CHUNK {
                    return Err(Error::corrupt(
                        "compressed chunk unpacks to more than 4096 bytes",
                    ));
                }
                out.push(*first);
                rest = tail;
                continue;
            }
            let Some(item) = le_u16(rest, 0) else {
                return Err(Error::corrupt("compressed chunk ends inside a reference"));
            };
            rest = rest.get(2..).unwrap_or_default();
            copy(item, start, out)?;
        }
    }
    Ok(())
}

/// Repeats bytes from before; the further into the chunk, the more bits of the item are distance.
fn copy(item: u16, start: usize, out: &mut Vec<u8>) -> Result<()> {
    let done = out.len().saturating_sub(start);
    let mut length_bits = 12u32;
    let mut reach = done.saturating_sub(1);
    while reach >= 0x10 {
        length_bits = length_bits.saturating_sub(1);
        reach >>= 1;
    }
    let mask = 1u16.checked_shl(length_bits).unwrap_or(0).wrapping_sub(1);
    let length = usize::from(item & mask).saturating_add(3);
    let distance = usize::from(item.checked_shr(length_bits).unwrap_or(0)).saturating_add(1);
    if distance > done || done.saturating_add(length) > CHUNK {
        return Err(Error::corrupt(format_args!(
            "compressed chunk repeats {length} bytes from {distance} back at {done}"
        )));
    }
    for _ in 0..length {
        let byte = out
            .len()
            .checked_sub(distance)
            .and_then(|from| out.get(from).copied());
        out.push(byte.unwrap_or(0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_unpacks() {
        // [MS-XCA] 3.3, LZNT1 example.
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let text = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let plain = decompress(&packed, 4096).unwrap();
        assert_eq!(String::from_utf8_lossy(&plain[..text.len()]), text);
        assert!(plain[text.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_reference_before_the_start_is_corrupt() {
        assert!(decompress(&[0x02, 0xb0, 0x01, 0x00, 0x00], 4096).is_err());
    }
}
