//! Writing disks in several files of at most 2047 MiB beside a descriptor, as file systems of before wanted them.
//!
//! ```text
//! disk.vmdk  the descriptor       disk-s001.vmdk  disk-s002.vmdk …  sparse extents without a descriptor
//!                                 disk-f001.vmdk  disk-f002.vmdk …  or the bytes as they are
//! ```

use super::VmdkOptions;
use super::descriptor::{Several, compose_several};
use super::header::SECTOR;
use super::resize::SPLIT_MAX;
use super::sparse::{check_capacity, write_sparse};
use crate::engine::Work;
use crate::math::{div_up, len64};
use crate::raw::write_raw;
use crate::write::Written;
use drylab_block::{Below, Error, Extent, ReadAt, Result, WriteAt};

/// A split disk to write: what its files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SplitKind {
    /// `twoGbMaxExtentSparse`: the grains that hold data.
    #[default]
    Sparse,
    /// `twoGbMaxExtentFlat`: the bytes of the disk.
    Flat,
}

/// Most extents of a disk we write, 8 TiB less 4 GiB: what readers open by default ([`Limits`](drylab_block::Limits)).
const EXTENTS_MAX: u64 = 4096;

/// Offset of the place and size of the descriptor in the header of a sparse extent, and their bytes.
const DESCRIPTOR_FIELDS: (u64, [u8; 16]) = (28, [0; 16]);

/// Writes the bytes of `disk`, padded to sectors, to extents of 2047 MiB; the text is the descriptor to put beside them.
///
/// `make` gives the empty file of a name: that of [`file_name`](VmdkOptions::file_name) with `-s001` or `-f001` before its
/// ending, and so on upwards. They are made and written one after the other, each by as many workers as `work` says;
/// without a content id in the options the disk is read twice. [`Written`] counts the bytes of all extents together.
///
/// # Errors
/// [`Error::Unsupported`] for a file name that cannot stand in a descriptor and for a disk of more than 4096 extents; what
/// reading the disk, `make` and writing find.
pub fn write_split<S: WriteAt>(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    kind: SplitKind,
    make: &mut dyn FnMut(&str) -> Result<S>,
    work: &Work<'_>,
) -> Result<(String, Written)> {
    write_split_by(disk, options, (kind, SPLIT_MAX), make, work)
}

/// [`write_split`] with extents of at most `most` sectors.
fn write_split_by<S: WriteAt>(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    (kind, most): (SplitKind, u64),
    make: &mut dyn FnMut(&str) -> Result<S>,
    work: &Work<'_>,
) -> Result<(String, Written)> {
    let capacity = check_capacity(disk.len())?;
    let count = div_up(capacity, most).max(1);
    if count > EXTENTS_MAX {
        return Err(Error::unsupported(format_args!(
            "VMDK of {capacity} sectors needs {count} extents of {most} sectors, more than {EXTENTS_MAX}"
        )));
    }
    let mut extents = Vec::new();
    for number in 0..count {
        let left = capacity.saturating_sub(number.saturating_mul(most));
        let name = name(&options.file_name, kind, number.saturating_add(1));
        extents.push((left.min(most), name));
    }
    let (create_type, word, behind) = match kind {
        SplitKind::Sparse => ("twoGbMaxExtentSparse", "SPARSE", ""),
        SplitKind::Flat => ("twoGbMaxExtentFlat", "FLAT", " 0"),
    };
    let several = Several {
        create_type,
        kind: word,
        behind,
        extents: &extents,
    };
    let text = compose_several(&several, options.cid(disk, work)?, options)?;
    let (mut start, mut file_bytes) = (0u64, 0u64);
    for (sectors, name) in &extents {
        let length = sectors.saturating_mul(SECTOR);
        let part = Part {
            disk,
            start,
            length: length.min(disk.len().saturating_sub(start)),
        };
        let sink = make(name)?;
        if sink.len() != 0 {
            sink.set_len(0)?;
        }
        let written = match kind {
            SplitKind::Sparse => write_extent(&part, options, &sink, work)?,
            SplitKind::Flat => {
                write_raw(&part, &sink, work)?;
                sink.set_len(length)?;
                length
            }
        };
        file_bytes = file_bytes.saturating_add(written);
        start = start.saturating_add(length);
    }
    Ok((text, Written { file_bytes }))
}

/// Writes a sparse extent whose descriptor is another file.
fn write_extent(
    part: &Part<'_>,
    options: &VmdkOptions,
    sink: &dyn WriteAt,
    work: &Work<'_>,
) -> Result<u64> {
    // The descriptor that a whole disk would have here is taken out again, whatever its ids.
    let options = VmdkOptions {
        content_id: Some(0),
        ..options.clone()
    };
    let length = write_sparse(part, &options, sink, work)?;
    let (place, none) = DESCRIPTOR_FIELDS;
    sink.write_at(place, &none)?;
    sink.write_at(SECTOR, &vec![0; super::descriptor::ROOM])?;
    Ok(length)
}

/// `disk-s001.vmdk` for `disk.vmdk`.
fn name(whole: &str, kind: SplitKind, number: u64) -> String {
    let letter = match kind {
        SplitKind::Sparse => 's',
        SplitKind::Flat => 'f',
    };
    match whole.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem}-{letter}{number:03}.{ending}"),
        _ => format!("{whole}-{letter}{number:03}"),
    }
}

/// A range of a disk.
struct Part<'a> {
    disk: &'a dyn ReadAt,
    start: u64,
    length: u64,
}

impl ReadAt for Part<'_> {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buffer));
        if end.is_none_or(|end| end > self.length) {
            return Err(Error::io(format_args!(
                "read of {} bytes at offset {offset} ends past the end of the extent ({})",
                buffer.len(),
                self.length
            )));
        }
        self.disk.read_at(self.start.saturating_add(offset), buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let found = self.disk.extent_at(self.start.saturating_add(offset));
        Extent {
            offset,
            length: found.length.min(self.length.saturating_sub(offset)),
            kind: found.kind,
        }
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        let left = self.length.checked_sub(offset).filter(|left| *left > 0)?;
        let below = self.disk.below(self.start.checked_add(offset)?)?;
        Some(Below {
            length: below.length.min(left),
            ..below
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Opener;
    use crate::finding::Findings;
    use crate::vmdk::Vmdk;
    use drylab_block::{Limits, Reference, Resolver, SparseBytes};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    struct Files(BTreeMap<String, Arc<SparseBytes>>);

    impl Resolver for Files {
        fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
            let found = self.0.get(&reference.name).cloned();
            found
                .map(|file| file as Arc<dyn ReadAt>)
                .ok_or_else(|| Error::io("no such file"))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn a_disk_in_small_extents_is_read_again(
            size in 1..600_000u64, most in 3..700u64, flat in any::<bool>(),
            pieces in prop::collection::vec((any::<u64>(), 1..90_000usize, any::<u8>()), 0..5),
        ) {
            let disk = SparseBytes::new(size);
            for (at, length, byte) in pieces {
                let at = at % size;
                let length = length.min((size - at) as usize);
                disk.write_at(at, &vec![byte; length]).unwrap();
            }
            let kind = if flat { SplitKind::Flat } else { SplitKind::Sparse };
            let options = VmdkOptions { file_name: "a b.vmdk".to_owned(), ..VmdkOptions::default() };
            let mut files = BTreeMap::new();
            let made = write_split_by(&disk, &options, (kind, most), &mut |name| {
                let file = Arc::new(SparseBytes::default());
                files.insert(name.to_owned(), file.clone());
                Ok(Sink(file))
            }, &Work::ALONE);
            if size.div_ceil(512).div_ceil(most) > 4096 {
                prop_assert!(made.unwrap_err().to_string().contains("more than 4096"));
                return Ok(());
            }
            let (text, written) = made.unwrap();
            prop_assert_eq!(written.file_bytes, files.values().map(|file| file.len()).sum::<u64>());
            let files = Files(files);
            let opener = Opener::new(&files, &Limits::DEFAULT);
            let image = Vmdk::open(Arc::new(text.into_bytes()), &opener).unwrap();
            use crate::container::Container;
            let mut found = image.noticed().clone();
            image.check(&mut found).unwrap();
            prop_assert_eq!(found, Findings::default());
            prop_assert_eq!(image.len(), size.next_multiple_of(512));
            let (mut ours, mut theirs) = (vec![0; size as usize], vec![0; size as usize]);
            disk.read_at(0, &mut ours).unwrap();
            image.read_at(0, &mut theirs).unwrap();
            prop_assert!(ours == theirs);
        }
    }

    /// A shared file.
    struct Sink(Arc<SparseBytes>);

    impl ReadAt for Sink {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.read_at(offset, buffer)
        }
    }

    impl WriteAt for Sink {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
            self.0.write_at(offset, bytes)
        }
        fn set_len(&self, length: u64) -> Result<()> {
            self.0.set_len(length)
        }
    }
}
