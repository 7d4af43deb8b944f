//! An opened hive.

use crate::base::{self, Base};
use crate::cell::{View, size};
use crate::key::Key;
use crate::walk::Walk;
use drylab_block::{Error, Finding, Limits, Result, Severity, array_at, le_u32};
use std::sync::Arc;

/// A registry hive in memory.
#[derive(Clone, Debug)]
pub struct Hive {
    bytes: Arc<[u8]>,
    base: Base,
    end: usize,
    limits: Limits,
    findings: Vec<Finding>,
}

impl Hive {
    /// Opens the bytes of a hive: checks base block, bins and the root key.
    ///
    /// Reading needs a whole chain of bins only as far as it goes: a hive cut short opens with a finding, and the keys
    /// that lie past its end are reported when they are reached.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a transaction log, an unknown version, or more than `limits.file_bytes_max` bytes;
    /// [`Error::Corrupt`] when the base block, the first bin or the root key is no such thing.
    pub fn open(bytes: impl Into<Arc<[u8]>>, limits: &Limits) -> Result<Self> {
        let bytes = bytes.into();
        let length = u64::try_from(bytes.len()).map_err(Error::io)?;
        if length > limits.file_bytes_max.min(u64::from(u32::MAX)) {
            return Err(Error::unsupported(format_args!(
                "hive of {length} bytes, more than the {} allowed",
                limits.file_bytes_max
            )));
        }
        let mut findings = Vec::new();
        let base = Base::parse(&bytes, &mut findings)?;
        let end = bins_end(&bytes, &base, &mut findings)?;
        let hive = Self {
            bytes,
            base,
            end,
            limits: *limits,
            findings,
        };
        hive.root()?;
        Ok(hive)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            bytes: &self.bytes,
            end: self.end,
            minor: self.base.minor,
            limits: self.limits,
        }
    }

    /// The bytes of the hive.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What opening noticed and could go on from: `HIVE-DIRTY`, `HIVE-CHECKSUM`, `HIVE-BINS-CUT`, `HIVE-BIN`.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether the last write was not finished, so that its log would have to be replayed for the latest content.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.base.is_dirty()
    }

    /// Version of the format: 1 and 2 to 6.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        (1, self.base.minor)
    }

    /// The root key; its path is empty.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the root cell is no key ([`Hive::open`] has checked that it is).
    pub fn root(&self) -> Result<Key<'_>> {
        Key::read(self.view(), self.base.root, None)
    }

    /// The key at a path such as `Select` or `ControlSet001\Services`, compared without case; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a structure on the way is damaged, [`Error::Unsupported`] when the path is too deep.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        find(self.root()?, path)
    }

    /// Every key below the root once, root included, depth first; bounded by the size of the hive.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the root is no key.
    pub fn walk(&self) -> Result<Walk<'_>> {
        Ok(Walk::new(self.root()?))
    }
}

/// Non-empty parts of a path.
pub(crate) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('\\').filter(|part| !part.is_empty())
}

/// Follows a path from a key.
pub(crate) fn find<'h>(root: Key<'h>, path: &str) -> Result<Option<Key<'h>>> {
    let mut key = root;
    for part in parts(path) {
        match key.subkey(part)? {
            Some(next) => key = next,
            None => return Ok(None),
        }
    }
    Ok(Some(key))
}

/// Walks the bins and gives the place where the last whole one ends.
fn bins_end(bytes: &[u8], base: &Base, findings: &mut Vec<Finding>) -> Result<usize> {
    let claimed = base::SIZE.saturating_add(size(base.bins_bytes));
    if array_at::<4>(bytes, base::SIZE) != Some(*b"hbin") {
        return Err(Error::corrupt(
            "no hive bin at 0x1000: it does not start with \"hbin\"",
        ));
    }
    if claimed > bytes.len() {
        findings.push(Finding {
            code: "HIVE-BINS-CUT",
            severity: Severity::Error,
            offset: 0x28,
            message: format!(
                "base block claims {} bytes with its bins, the file has {}",
                claimed,
                bytes.len()
            ),
        });
    }
    let end = claimed.min(bytes.len());
    let mut at = base::SIZE;
    while at < end {
        let length = le_u32(bytes, at.saturating_add(8)).map_or(0, size);
        let offset = le_u32(bytes, at.saturating_add(4)).map_or(usize::MAX, size);
        let sound = array_at::<4>(bytes, at) == Some(*b"hbin")
            && offset == at.saturating_sub(base::SIZE)
            && length >= 0x1000
            && length.is_multiple_of(0x1000);
        if !sound {
            findings.push(Finding {
                code: "HIVE-BIN",
                severity: Severity::Error,
                offset: u64::try_from(at).unwrap_or(u64::MAX),
                message: format!(
                    "no sound hive bin at {at:#x} (says offset {offset:#x}, size {length:#x})"
                ),
            });
            break;
        }
        at = at.saturating_add(length);
    }
    Ok(end)
}
