//! The base block: the first 4096 bytes.

use drylab_block::{Error, Finding, Result, Severity, array_at, le_u32};

/// Bytes before the first hive bin; offsets in the hive count from here.
pub(crate) const SIZE: usize = 4096;
/// "No such cell".
pub(crate) const NONE: u32 = u32::MAX;

/// What the base block says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    /// Incremented before a write.
    pub(crate) sequence1: u32,
    /// Set equal after it.
    pub(crate) sequence2: u32,
    /// Minor version, 2 to 6.
    pub(crate) minor: u32,
    /// Offset of the root key's cell.
    pub(crate) root: u32,
    /// Bytes of hive bins after the base block.
    pub(crate) bins_bytes: u32,
}

/// XOR of the first 127 words, with the two forbidden results moved.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let sum = (0..127usize).fold(0u32, |sum, word| {
        sum ^ le_u32(bytes, word.saturating_mul(4)).unwrap_or(0)
    });
    match sum {
        0 => 1,
        u32::MAX => u32::MAX.saturating_sub(1),
        other => other,
    }
}

impl Base {
    /// Reads and checks the base block; what can be lived with becomes a finding.
    pub(crate) fn parse(bytes: &[u8], findings: &mut Vec<Finding>) -> Result<Self> {
        let short = || {
            Error::corrupt(format_args!(
                "base block needs {SIZE} bytes, the hive has {}",
                bytes.len()
            ))
        };
        let block = bytes.get(..SIZE).ok_or_else(short)?;
        let word = |offset: usize| le_u32(block, offset).ok_or_else(short);
        if array_at::<4>(block, 0) != Some(*b"regf") {
            return Err(Error::corrupt(
                "base block at 0x0 does not start with \"regf\"",
            ));
        }
        let base = Self {
            sequence1: word(0x04)?,
            sequence2: word(0x08)?,
            minor: word(0x18)?,
            root: word(0x24)?,
            bins_bytes: word(0x28)?,
        };
        let (major, kind, format) = (word(0x14)?, word(0x1C)?, word(0x20)?);
        if kind != 0 {
            return Err(Error::unsupported(format_args!(
                "base block says file type {kind}: a transaction log, not a hive"
            )));
        }
        if major != 1 || !(2..=6).contains(&base.minor) || format != 1 {
            return Err(Error::unsupported(format_args!(
                "hive version {major}.{}, format {format}",
                base.minor
            )));
        }
        base.notice(block, word(0x1FC)?, findings);
        Ok(base)
    }

    fn notice(&self, block: &[u8], stored: u32, findings: &mut Vec<Finding>) {
        let mut note = |code, severity, offset, message| {
            findings.push(Finding {
                code,
                severity,
                offset,
                message,
            })
        };
        let computed = checksum(block);
        if stored != computed {
            let message =
                format!("checksum is {stored:#010x}, the base block gives {computed:#010x}");
            note("HIVE-CHECKSUM", Severity::Warning, 0x1FC, message);
        }
        if self.is_dirty() {
            let message = format!(
                "sequence numbers {} and {} differ: the last write was not finished and a log must be replayed",
                self.sequence1, self.sequence2
            );
            note("HIVE-DIRTY", Severity::Warning, 0x04, message);
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.sequence1 != self.sequence2
    }
}
