//! Records protected by an update sequence: file records ("FILE") and index blocks ("INDX").
//!
//! The last two bytes of each 512-byte stride hold the same number; what belongs there stands in an array after it
//! in the header. A stride that does not end in the number was torn while it was written.

use drylab_block::{Error, Result, array_at, le_u16, le_u32, le_u64};

/// Bytes between two protected words, whatever the sector size.
const STRIDE: usize = 512;

/// Places of the protected words with the places of what belongs there; the first is the number's.
fn words(bytes: &[u8], place: &dyn std::fmt::Display) -> Result<(usize, Vec<(usize, usize)>)> {
    let array = usize::from(le_u16(bytes, 4).unwrap_or(0));
    let count = usize::from(le_u16(bytes, 6).unwrap_or(0));
    let strides = bytes.len().checked_div(STRIDE).unwrap_or(0);
    let end = count
        .checked_mul(2)
        .and_then(|length| length.checked_add(array));
    // The array must end before the first word that it protects.
    if count.checked_sub(1) != Some(strides)
        || strides == 0
        || array < 8
        || end.is_none_or(|end| end > STRIDE.saturating_sub(2))
    {
        return Err(Error::corrupt(format_args!(
            "{place}: update sequence of {count} words at {array} for {} bytes",
            bytes.len()
        )));
    }
    let pairs = (1..=strides).map(|stride| {
        (
            stride.saturating_mul(STRIDE).saturating_sub(2),
            array.saturating_add(stride.saturating_mul(2)),
        )
    });
    Ok((array, pairs.collect()))
}

fn copy_word(bytes: &mut [u8], from: usize, to: usize) {
    if let Some(word) = array_at::<2>(bytes, from)
        && let Some(target) = bytes.get_mut(to..to.saturating_add(2))
    {
        target.copy_from_slice(&word);
    }
}

/// Checks the magic and puts back what the update sequence replaced.
pub(crate) fn unprotect(
    bytes: &mut [u8],
    magic: &[u8; 4],
    place: &dyn std::fmt::Display,
) -> Result<()> {
    let found = array_at::<4>(bytes, 0).unwrap_or_default();
    if found != *magic {
        let (found, magic) = (found.escape_ascii(), magic.escape_ascii());
        return Err(Error::corrupt(format_args!(
            "{place} starts with \"{found}\", not \"{magic}\""
        )));
    }
    let (number_at, pairs) = words(bytes, place)?;
    let number = le_u16(bytes, number_at);
    for (end, stored) in pairs {
        if le_u16(bytes, end) != number {
            return Err(Error::corrupt(format_args!(
                "{place}: torn write, the word at {end} does not match the update sequence"
            )));
        }
        copy_word(bytes, stored, end);
    }
    Ok(())
}

/// The reverse, with the next update sequence number (never 0 or 0xFFFF).
pub(crate) fn protect(bytes: &mut [u8], place: &dyn std::fmt::Display) -> Result<()> {
    let (number_at, pairs) = words(bytes, place)?;
    let next = match le_u16(bytes, number_at).unwrap_or(0).wrapping_add(1) {
        0 | u16::MAX => 1,
        next => next,
    };
    if let Some(target) = bytes.get_mut(number_at..number_at.saturating_add(2)) {
        target.copy_from_slice(&next.to_le_bytes());
    }
    for (end, stored) in pairs {
        copy_word(bytes, end, stored);
        copy_word(bytes, number_at, end);
    }
    Ok(())
}

/// Header of a file record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Counts reuses of the record.
    pub(crate) sequence: u16,
    /// Where the first attribute starts.
    pub(crate) attributes_at: usize,
    /// 1: in use, 2: directory.
    pub(crate) flags: u16,
    /// Bytes in use.
    pub(crate) used: usize,
    /// Record that this one extends; 0 when it is a base record.
    pub(crate) base: u64,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8], number: u64) -> Result<Self> {
        let fields = || {
            Some(Self {
                sequence: le_u16(bytes, 0x10)?,
                attributes_at: usize::from(le_u16(bytes, 0x14)?),
                flags: le_u16(bytes, 0x16)?,
                used: usize::try_from(le_u32(bytes, 0x18)?).ok()?,
                base: le_u64(bytes, 0x20)? & RECORD_MASK,
            })
        };
        let header = fields()
            .filter(|header| header.used <= bytes.len() && header.attributes_at <= header.used);
        header.ok_or_else(|| {
            Error::corrupt(format_args!(
                "file record {number}: bytes in use past its {} bytes",
                bytes.len()
            ))
        })
    }
}

/// The record number in a file reference; above it stands the sequence number.
pub(crate) const RECORD_MASK: u64 = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protecting_and_unprotecting_a_record_gives_it_back() {
        let mut record: Vec<u8> = (0..1024u32).map(|at| (at % 251) as u8).collect();
        record[..4].copy_from_slice(b"FILE");
        record[4..8].copy_from_slice(&[0x30, 0, 3, 0]);
        record[0x30..0x32].copy_from_slice(&[0xFE, 0xFF]);
        let before = record.clone();
        protect(&mut record, &"record").unwrap();
        assert_eq!(
            record[510..512],
            [1, 0],
            "the number steps over 0xFFFF and 0"
        );
        unprotect(&mut record, b"FILE", &"record").unwrap();
        assert_eq!(record[510..512], before[510..512]);
        assert_eq!(record[1022..], before[1022..]);
        record[511] ^= 1;
        protect(&mut record, &"record").unwrap();
        record[1023] ^= 1;
        let torn = unprotect(&mut record, b"FILE", &"record").unwrap_err();
        assert!(torn.to_string().contains("torn write"), "{torn}");
    }
}
