//! Changing files of a guest: where they stand when the new content fits, beside the disk when it does not.
//!
//! Converters and scenario edits change configuration files of a few hundred bytes; nearly all fit the blocks they
//! have. Nothing here allocates blocks, so a disk edited here is as sound as before: superblock, bitmaps, directories
//! stay as they are.

use crate::door::{Probed, probe};
use crate::ntfs::Ntfs;
use crate::{FileOverlay, Last, ext, open};
use drylab_block::{Limits, ReadAt, Result, WriteAt};
use std::sync::Arc;

/// What is done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file has this content afterwards.
    Write(Vec<u8>),
    /// The file is gone afterwards.
    Remove,
}

/// How writing in place went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The disk holds the new content.
    InPlace {
        /// Length of the new content.
        bytes: u64,
    },
    /// Nothing was changed.
    DoesNotFit {
        /// Bytes the file's blocks hold (0 when they cannot be used at all).
        have: u64,
        /// Bytes of the new content.
        need: u64,
        /// Why, as a fragment of a sentence.
        why: &'static str,
    },
}

/// Where a change went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Into the disk.
    InPlace {
        /// Path without symbolic links.
        path: String,
        /// Length of the new content.
        bytes: u64,
    },
    /// Into the overlay.
    Overlaid {
        /// Path without symbolic links.
        path: String,
        /// Why not into the disk.
        why: String,
    },
}

/// Replaces the content of an existing file within the room it has, symbolic links followed.
///
/// # Errors
/// Damage on the way; [`drylab_block::Error::Unsupported`] when the path names something other than a file, or the
/// volume must not be written (a hibernated Windows).
pub fn write_in_place(
    volume: &Arc<dyn WriteAt>,
    path: &str,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Placed> {
    let need = u64::try_from(bytes.len()).map_err(drylab_block::Error::io)?;
    let readable: Arc<dyn ReadAt> = volume.clone();
    match probe(readable.as_ref())? {
        Probed::Ext => ext::write_in_place(volume.as_ref(), path, bytes, limits),
        Probed::Ntfs => {
            let ntfs = Ntfs::open(readable, limits)?;
            let Some(patches) = ntfs.plan_write(path, bytes, limits)? else {
                let why = "the file's clusters or record do not hold it";
                return Ok(Placed::DoesNotFit { have: 0, need, why });
            };
            for (offset, bytes) in patches {
                volume.write_at(offset, &bytes)?;
            }
            Ok(Placed::InPlace { bytes: need })
        }
        Probed::Other => Ok(Placed::DoesNotFit {
            have: 0,
            need,
            why: "no filesystem known here stands on the volume",
        }),
    }
}

/// Makes a change: in place when it fits, else in `overlay` under `key`, the volume's printed name.
///
/// What the overlay said of the path before is replaced, so that reading through [`Layered`](crate::Layered) gives
/// the new content either way.
///
/// # Errors
/// As [`write_in_place`].
pub fn apply(
    volume: &Arc<dyn WriteAt>,
    key: &str,
    path: &str,
    change: Change,
    overlay: &mut FileOverlay,
    limits: &Limits,
) -> Result<Applied> {
    let last = if change == Change::Remove {
        Last::Keep
    } else {
        Last::Follow
    };
    let filesystem = open(volume.clone(), limits)?;
    let kind = filesystem.as_ref().map(|filesystem| filesystem.kind());
    let path = match &filesystem {
        Some(filesystem) => filesystem.resolve(path, last, limits)?,
        None => crate::overlay::plain(path),
    };
    drop(filesystem);
    let why = match change {
        Change::Write(bytes) => {
            // A file that the overlay removed or made anew has its name there, not on the disk.
            let placed = match overlay.get(kind, key, &path) {
                Some(_) => None,
                None => Some(write_in_place(volume, &path, &bytes, limits)?),
            };
            let why = match placed {
                Some(Placed::InPlace { bytes }) => return Ok(Applied::InPlace { path, bytes }),
                Some(Placed::DoesNotFit { have, need, why }) => {
                    format!("{need} bytes where {have} are at hand: {why}")
                }
                None => "an earlier change of the file went beside the disk".into(),
            };
            overlay.insert(kind, key, &path, Some(bytes.into()));
            why
        }
        Change::Remove => {
            overlay.insert(kind, key, &path, None);
            "a name cannot be removed where it stands".into()
        }
    };
    Ok(Applied::Overlaid { path, why })
}
