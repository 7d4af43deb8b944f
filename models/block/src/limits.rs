//! What an untrusted input may cost, and which other files it may name.

use crate::{Error, ReadAt, Result};
use std::sync::Arc;

/// Bounds that every reader keeps, whatever a header claims.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest table of offsets held in memory (L1, grain directory, BAT), in bytes.
    pub table_bytes_max: u64,
    /// Largest embedded text (descriptor, manifest, XML), in bytes.
    pub text_bytes_max: u64,
    /// Largest file read from a filesystem into memory, in bytes.
    pub file_bytes_max: u64,
    /// Longest chain followed (extended partitions, extents, parents and backing files, registry lists); 0 follows none.
    pub chain_max: u32,
    /// Most entries with names listed in one directory, archive, key or table (snapshots and bitmaps of an image).
    pub entries_max: u32,
    /// Largest virtual size accepted, in bytes.
    pub disk_bytes_max: u64,
}

impl Limits {
    /// The bounds used everywhere unless a caller lowers them.
    pub const DEFAULT: Self = Self {
        table_bytes_max: 64 << 20,
        text_bytes_max: 16 << 20,
        file_bytes_max: 256 << 20,
        chain_max: 4096,
        entries_max: 1 << 20,
        disk_bytes_max: 1 << 50,
    };

    /// Refuses a table of `bytes` at `place` when it is larger than allowed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with place, value and bound.
    pub fn check_table(&self, place: &str, bytes: u64) -> Result<()> {
        if bytes > self.table_bytes_max {
            return Err(Error::unsupported(format_args!(
                "{place} needs {bytes} bytes of memory, more than the {} allowed: raise the limit table-bytes",
                self.table_bytes_max
            )));
        }
        Ok(())
    }

    /// Refuses `what`, whose disk has `bytes`, when that is more than allowed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with value and bound.
    pub fn check_disk(&self, what: &str, bytes: u64) -> Result<()> {
        if bytes > self.disk_bytes_max {
            return Err(Error::unsupported(format_args!(
                "{what} of {bytes} bytes, more than the {} allowed: raise the limit disk-bytes",
                self.disk_bytes_max
            )));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A second file that an input names: backing file, data file, extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Kind in the format's own words: `backing file`, `external data file`, `extent`.
    pub kind: &'static str,
    /// The name as written in the input.
    pub name: String,
    /// [`Resolver::key`] of the file that names it; empty for the one that was opened first.
    pub by: String,
}

/// Decides whether a file named *inside* an input may be opened. Nothing opens one by itself.
pub trait Resolver {
    /// Opens the named file, or refuses.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the reference is refused.
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>>;

    /// A name by which this resolver knows the file wherever it is named: equal names are one file, so that a chain that
    /// comes back to itself is seen. By default the name as written.
    fn key(&self, reference: &Reference) -> String {
        reference.name.clone()
    }
}

/// The default: refuses everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Resolver for DenyAll {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        Err(Error::unsupported(format_args!(
            "the input names a {} ({:?}) and files named inside an input are not opened; flatten it first",
            reference.kind, reference.name
        )))
    }
}
