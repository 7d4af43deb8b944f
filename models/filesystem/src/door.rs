//! Which filesystem is it?

use crate::Filesystem;
use crate::ext::{self, Ext};
use crate::ntfs::Ntfs;
use crate::swap::Swap;
use drylab_block::{Limits, ReadAt, Result};
use std::sync::Arc;

/// What a volume's first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Ext,
    Ntfs,
    Other,
}

/// Looks for the marks of the filesystems known here.
pub(crate) fn probe(source: &dyn ReadAt) -> Result<Probed> {
    if ext::is_there(source)? {
        return Ok(Probed::Ext);
    }
    if source.len() >= 512 {
        let mut name = [0u8; 8];
        source.read_at(3, &mut name)?;
        if &name == b"NTFS    " {
            return Ok(Probed::Ntfs);
        }
    }
    Ok(Probed::Other)
}

/// Opens the filesystem on a volume; `None` when nothing known stands there.
///
/// # Errors
/// [`drylab_block::Error::Corrupt`] or [`drylab_block::Error::Unsupported`] when the marks of a known filesystem are
/// there and the rest cannot be read.
pub fn open(source: Arc<dyn ReadAt>, limits: &Limits) -> Result<Option<Box<dyn Filesystem>>> {
    Ok(match probe(source.as_ref())? {
        Probed::Ext => match Ext::open(source.clone(), limits) {
            Ok(ext) => Some(Box::new(ext)),
            // A swap area made over an old filesystem leaves the old magic; blkid looks on, too.
            Err(error) => match Swap::open(source.as_ref())? {
                Some(swap) => Some(Box::new(swap)),
                None => return Err(error),
            },
        },
        Probed::Ntfs => Some(Box::new(Ntfs::open(source, limits)?)),
        Probed::Other => match Swap::open(source.as_ref())? {
            Some(swap) => Some(Box::new(swap)),
            None => None,
        },
    })
}
