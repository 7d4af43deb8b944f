//! Resize: another size of the disk, with a larger L1 table where it needs one.
//!
//! Growing: what will come into view behind the disk's end is made zeros first, which nobody sees: entries there go,
//! bytes of the last cluster too, and where a backing file has bytes entries say zero. Then one write of the header gives
//! size and table at once; then what was given up is free. Shrinking: the header gives the new size first; then entries
//! behind it go; then what they pointed to is free.
//!
//! As QEMU goes back to a snapshot of version 2 only at the same size, an image that has one keeps its size.

use super::bitmap::Bitmap;
use super::change::Change;
use super::counts::class;
use super::entry::{Cluster, Entry};
use super::header::{BITMAPS, Header, L1_MAX, RAW_EXTERNAL};
use super::mend::{Mender, put};
use super::read::Qcow2;
use crate::container::Container;
use crate::edit::Plan;
use crate::finding::{Finding, Findings};
use crate::math::{div, div_up, index, rem};
use drylab_block::{Error, ReadAt, Result, Severity};

pub(super) fn resize(image: &Qcow2, size: u64) -> Result<Plan> {
    let header = &image.header;
    if size == header.size {
        return Ok(Plan::default());
    }
    refuse(image, size)?;
    let mut found = image.noticed().clone();
    let mut structure = image.structure(&image.limits, false, &mut found)?;
    super::check::check(&structure, None, &mut found)?;
    let bad =
        |finding: &&Finding| finding.file.is_empty() && finding.rule.severity == Severity::Error;
    if let Some(finding) = found.list().iter().find(bad) {
        return Err(refused(
            size,
            &format!(
                "the image is damaged ({}); repair it first",
                finding.rule.code
            ),
        ));
    }
    if found.is_empty() {
        // Nothing is left out of what was gathered.
        structure.mended = true;
    } else {
        structure = image.structure(&image.limits, true, &mut Findings::default())?;
    }
    let mut mender = Mender::new(&structure, image.limits.table_bytes_max)?;
    mender.clear_unknown(BITMAPS | RAW_EXTERNAL)?;
    if size > header.size {
        grow(&mut mender, image, size)?;
    } else {
        shrink(&mut mender, image, size)?;
    }
    Ok(mender.plan)
}

fn refused(size: u64, why: &str) -> Error {
    Error::unsupported(format_args!("qcow2 resize to {size} bytes: {why}"))
}

/// What keeps an image at its size.
fn refuse(image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    let refuse = |why: &str| Err(refused(size, why));
    if rem(size, 512) != 0 {
        return refuse("a disk has whole sectors of 512 bytes");
    }
    if header.l1_needed(size).saturating_mul(8) > L1_MAX {
        return refuse(
            "its L1 table would pass 32 MiB, the most that QEMU opens; convert it to larger clusters",
        );
    }
    if header.snapshots > 0 && header.version < 3 {
        return refuse(
            "it has snapshots, and QEMU goes back to one of version 2 only at the same size; convert it",
        );
    }
    if image.bitmaps.damaged {
        return refuse("its bitmaps are damaged; repair it first");
    }
    let entries = |bitmap: &&Bitmap| bitmap.needed(header, size) != bitmap.entries();
    if let Some(bitmap) = image.bitmaps.list.iter().find(entries) {
        return refuse(&format!(
            "the table of its bitmap {:?} would have {} entries for {}; convert it, which leaves bitmaps behind",
            bitmap.name,
            bitmap.needed(header, size),
            bitmap.entries()
        ));
    }
    if header.data_file() && header.autoclear & RAW_EXTERNAL != 0 {
        return refuse(
            "its data file is the disk and would need another length, and this plan is for one file; convert it",
        );
    }
    if size > header.size && header.version < 3 && behind(image) > header.size {
        return refuse(
            "the backing file is longer than the disk, and version 2 cannot say that its bytes are not to appear; \
             convert it to version 3",
        );
    }
    Ok(())
}

/// Bytes of the backing file, 0 without one.
fn behind(image: &Qcow2) -> u64 {
    let backing = image.backing.as_ref();
    backing.map_or(0, |backing| backing.image().len())
}

fn grow(mender: &mut Mender<'_>, image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    let cluster = header.cluster_bytes();
    let mut change = Change::new(mender)?;
    let first = div_up(header.size, cluster);
    // A writer may have left a saved machine there, or what was cut off.
    change.drop_from(mender, first)?;
    clear_last(mender, &mut change, image, size)?;
    for number in first..div_up(size.min(behind(image)), cluster) {
        change.set(mender, number, header.zero_entry())?;
        if change.table_bytes(mender) > image.limits.table_bytes_max {
            return Err(refused(
                size,
                "the backing file is longer than the disk, and the tables that say that its bytes are not to appear \
                 would pass the limit of tables; convert it",
            ));
        }
    }
    change.place(mender, header.l1_needed(size))?;
    change.write_in_place(mender)?;
    write_size(mender, size, change.l1())?;
    change.give_up(mender)?;
    mender.lengthen()
}

/// Size and L1 table in one write of the header's first sector.
fn write_size(mender: &mut Mender<'_>, size: u64, (offset, entries): (u64, u64)) -> Result<()> {
    let mut head = mender.read(0, 48)?;
    put(&mut head, 24, &size.to_be_bytes());
    let entries = u32::try_from(entries).map_err(Error::io)?;
    put(&mut head, 36, &entries.to_be_bytes());
    put(&mut head, 40, &offset.to_be_bytes());
    mender.write(24, head.get(24..).unwrap_or_default())?;
    mender.flush();
    Ok(())
}

/// Bytes of the last cluster behind the disk's end would be seen by the guest: they become zeros.
fn clear_last(
    mender: &mut Mender<'_>,
    change: &mut Change,
    image: &Qcow2,
    size: u64,
) -> Result<()> {
    let header = &image.header;
    let cluster = header.cluster_bytes();
    let within = rem(header.size, cluster);
    let number = div(header.size, cluster);
    if within == 0 {
        return Ok(());
    }
    let entry = change.entry(mender, number)?;
    let found = header.cluster(entry);
    let shows = behind(image) > header.size && header.shows_through(entry);
    let tail = match found {
        Cluster::Standard(offset) => image.tail(offset, within)?,
        Cluster::Packed(_, _) => image.unpacked_tail(number, entry.word, within)?,
        Cluster::Absent | Cluster::Zero(_) => Vec::new(),
    };
    let is_clear = tail.iter().all(|byte| *byte == 0);
    if let Cluster::Standard(offset) = found
        && !header.data_file()
    {
        // The file may end where the disk did.
        mender.reach(offset.saturating_add(cluster))?;
    }
    // What the data file does not reach cannot be read there.
    let reached = match (&image.data, found) {
        (Some(data), Cluster::Standard(offset)) => {
            data.bytes.len() >= size.min(offset.saturating_add(cluster))
        }
        _ => true,
    };
    if is_clear && !shows && reached {
        return Ok(());
    }
    if header.data_file() {
        return Err(refused(
            size,
            "its data file would need zeros behind the disk's end, and this plan is for one file; convert it",
        ));
    }
    if let Cluster::Standard(offset) = found
        && entry.copied()
        && !shows
    {
        change.write(offset.saturating_add(within), vec![0; tail.len()]);
        return Ok(());
    }
    // Shared, compressed, or partly the backing file's: a cluster of its own takes its place.
    let mut bytes = vec![0; index(cluster)];
    let start = number.saturating_mul(cluster);
    image.read_at(start, bytes.get_mut(..index(within)).unwrap_or_default())?;
    let new = mender.fresh(1, 1, class::DATA);
    mender.write(new, &bytes)?;
    change.set(mender, number, header.full_entry(new))
}

impl Header {
    /// An entry that says that its cluster reads as zeros, whatever is below.
    fn zero_entry(&self) -> Entry {
        if self.extended() {
            Entry {
                word: 0,
                bitmap: u64::from(u32::MAX) << 32,
            }
        } else {
            Entry::ZERO
        }
    }

    /// The entry of a cluster all of which is at an offset.
    fn full_entry(&self, offset: u64) -> Entry {
        Entry {
            bitmap: if self.extended() {
                u64::from(u32::MAX)
            } else {
                0
            },
            ..Entry::at(offset)
        }
    }

    /// Whether a backing file's bytes show in a part of a cluster.
    fn shows_through(&self, entry: Entry) -> bool {
        match self.cluster(entry) {
            Cluster::Packed(_, _) => false,
            Cluster::Absent => true,
            Cluster::Zero(_) | Cluster::Standard(_) => {
                let said = entry.bitmap | entry.bitmap >> 32;
                self.extended() && said & u64::from(u32::MAX) != u64::from(u32::MAX)
            }
        }
    }
}

impl Qcow2 {
    /// Bytes of a cluster at `offset` from `within` on, as many as the file has.
    fn tail(&self, offset: u64, within: u64) -> Result<Vec<u8>> {
        let file = match &self.data {
            Some(data) => &data.bytes,
            None => &self.source,
        };
        let end = offset.saturating_add(self.header.cluster_bytes());
        let from = offset.saturating_add(within);
        let mut bytes = vec![0; index(end.min(file.len()).saturating_sub(from))];
        if !bytes.is_empty() {
            file.read_at(from, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Bytes of a compressed cluster from `within` on.
    fn unpacked_tail(&self, number: u64, word: u64, within: u64) -> Result<Vec<u8>> {
        let bytes = self.unpack_cluster(number, word)?;
        Ok(bytes.get(index(within)..).unwrap_or_default().to_vec())
    }
}

fn shrink(mender: &mut Mender<'_>, image: &Qcow2, size: u64) -> Result<()> {
    let header = &image.header;
    mender.plan.note(format!(
        "the last {} bytes of the disk are given up",
        header.size.saturating_sub(size)
    ));
    let mut change = Change::new(mender)?;
    change.drop_from(mender, div_up(size, header.cluster_bytes()))?;
    let (_, entries) = change.l1();
    change.place(mender, entries)?;
    write_size(mender, size, change.l1())?;
    for bitmap in &image.bitmaps.list {
        if let Some((offset, bytes)) = bitmap.cleared(&*image.source, header, size)? {
            change.write(offset, bytes);
        }
    }
    change.write_in_place(mender)?;
    change.give_up(mender)?;
    mender.cut();
    mender.lengthen()
}

impl Bitmap {
    fn entries(&self) -> u64 {
        u64::from(self.entries)
    }

    /// The last of the bitmap's clusters without the bits of what is behind a disk of `size` bytes, where it has any.
    fn cleared(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        size: u64,
    ) -> Result<Option<(u64, Vec<u8>)>> {
        let (bits, cluster) = (div_up(size, self.grain()), header.cluster_bytes());
        let before = self.entries().saturating_sub(1).saturating_mul(cluster);
        let within = div(bits, 8).saturating_sub(before);
        let Some(offset) = self.last_cluster(source)?.filter(|_| within < cluster) else {
            return Ok(None);
        };
        let mut bytes = vec![0; index(cluster.saturating_sub(within))];
        let from = offset.saturating_add(within);
        let partial = bytes.get_mut(..1).unwrap_or_default();
        source.read_at(from, partial)?;
        let kept = u32::try_from(rem(bits, 8)).unwrap_or(0);
        let mask = 1u8.checked_shl(kept).unwrap_or(0).wrapping_sub(1);
        partial.iter_mut().for_each(|byte| *byte &= mask);
        Ok(Some((from, bytes)))
    }
}
