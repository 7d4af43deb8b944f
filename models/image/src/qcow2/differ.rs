//! Writing by the cluster what differs from a backing file, and by the subcluster where L2 entries are extended.

use super::entry::Entry;
use super::header::SUBCLUSTERS;
use super::write::{Writer, packer};
use super::{Qcow2Compression, Qcow2Version};
use crate::codec::Packer;
use crate::engine::{self, BLOCK, CELL, Job, Piece, Work, is_zero};
use crate::math::{div, index, len64, round_up};
use drylab_block::{Extent, ExtentKind, ReadAt, Result, WriteAt};
use std::marker::PhantomData;
use std::ops::Range;

/// Stores what `disk` has that what the image stands on has not.
pub(super) fn differ<'a>(
    disk: &dyn ReadAt,
    writer: Writer<'a>,
    work: &Work<'_>,
) -> Result<Writer<'a>> {
    let layers = writer.layers;
    // The size of the image: where the disk ends inside a sector, zeros follow, whatever is below.
    let size = round_up(disk.len(), 512);
    let padded = |disk| Padded { disk, size };
    let below = layers.backing.map(|backing| padded(backing.disk));
    let both = Both {
        disk: padded(disk),
        below,
    };
    let cluster = writer.cluster;
    let job = Differ {
        both: &both,
        sink: layers.data_file.map_or(writer.sink, |file| file.sink),
        cluster,
        extended: layers.extended_l2,
        zeros: layers.version == Qcow2Version::V3,
        compression: layers.compression,
        order: PhantomData,
    };
    let shape = (CELL.max(cluster), BLOCK.max(cluster));
    engine::run(&both, shape, work, &job, writer)
}

/// A disk of another size: cut, or with zeros behind its end.
struct Padded<'a> {
    disk: &'a dyn ReadAt,
    size: u64,
}

impl ReadAt for Padded<'_> {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let inside = self.disk.len().saturating_sub(offset).min(len64(buffer));
        let (head, tail) = buffer
            .split_at_mut_checked(index(inside))
            .unwrap_or_default();
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        self.disk.read_at(offset, head)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        if offset < self.disk.len() {
            return self.disk.extent_at(offset);
        }
        Extent {
            offset,
            length: self.size.saturating_sub(offset),
            kind: ExtentKind::Hole,
        }
    }
}

/// A disk, with extents that have bytes where it or the one below has.
struct Both<'a> {
    disk: Padded<'a>,
    below: Option<Padded<'a>>,
}

impl ReadAt for Both<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        let own = self.disk.extent_at(offset);
        let Some(other) = self.below.as_ref().map(|below| below.extent_at(offset)) else {
            return own;
        };
        let has_bytes = own.kind.has_bytes() || other.kind.has_bytes();
        Extent {
            offset,
            length: own.length.min(other.length),
            kind: if has_bytes {
                ExtentKind::Data
            } else {
                ExtentKind::Hole
            },
        }
    }
}

struct Differ<'a, O> {
    both: &'a Both<'a>,
    /// Where clusters go.
    sink: &'a dyn WriteAt,
    cluster: u64,
    extended: bool,
    /// Entries can say that a cluster reads as zeros.
    zeros: bool,
    compression: Option<(Qcow2Compression, u32)>,
    order: PhantomData<fn(O)>,
}

/// What becomes of a cluster that differs.
enum Stored {
    /// An entry says it all.
    Said(Entry),
    /// Packed into this range.
    Packed(Range<usize>),
    /// As it is, in so many runs of pages; with the bitmap of an extended entry.
    Plain { runs: usize, bitmap: u64 },
}

/// A piece read, compared and packed.
#[derive(Default)]
pub(super) struct Slot {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    packed: Vec<u8>,
    /// Numbers of the clusters that differ.
    clusters: Vec<(u64, Stored)>,
    /// Ranges of `ours` that are stored, with the offset that each has in its cluster.
    runs: Vec<(u64, Range<usize>)>,
    /// Where ranges of `ours` and of `packed` go.
    plain_writes: Vec<(u64, Range<usize>)>,
    packed_writes: Vec<(u64, Range<usize>)>,
}

impl<'w> Job for Differ<'_, Writer<'w>> {
    type Tool = Option<Packer>;
    type Slot = Slot;
    type Order = Writer<'w>;

    fn tool(&self) -> Result<Option<Packer>> {
        self.compression
            .map(|(compression, level)| packer(compression, level))
            .transpose()
    }

    fn prepare(&self, piece: &Piece, slot: &mut Slot, tool: &mut Option<Packer>) -> Result<()> {
        let Slot {
            ours,
            theirs,
            packed,
            clusters,
            runs,
            ..
        } = slot;
        let whole = |bytes: &mut Vec<u8>| {
            let length = index(round_up(len64(bytes), self.cluster));
            bytes.resize(length, 0);
        };
        piece.read(self.both, ours)?;
        whole(ours);
        if let Some(below) = &self.both.below {
            piece.read(below, theirs)?;
            whole(theirs);
        }
        packed.clear();
        clusters.clear();
        runs.clear();
        let mut start = 0usize;
        for number in div(piece.start, self.cluster).. {
            let end = start.saturating_add(index(self.cluster));
            let Some(new) = ours.get(start..end) else {
                break;
            };
            let old = self.both.below.is_some().then(|| theirs.get(start..end));
            let old = old.flatten();
            if !same(new, old) {
                let stored = match self.entry_alone(new, old) {
                    Some(entry) => Stored::Said(entry),
                    None => match pack(tool, new, packed)? {
                        Some(range) => Stored::Packed(range),
                        None => self.plain(start, new, old, runs),
                    },
                };
                clusters.push((number, stored));
            }
            start = end;
        }
        Ok(())
    }

    fn place(&self, writer: &mut Writer<'w>, _: &Piece, slot: &mut Slot) -> Result<()> {
        slot.plain_writes.clear();
        slot.packed_writes.clear();
        let mut runs = slot.runs.iter();
        for (number, stored) in &slot.clusters {
            writer.open_table(*number)?;
            let entry = match stored {
                Stored::Said(entry) => *entry,
                Stored::Packed(range) => {
                    let (offset, entry) = writer.place_packed(range.len())?;
                    engine::add(&mut slot.packed_writes, offset, range.clone());
                    entry
                }
                Stored::Plain {
                    runs: count,
                    bitmap,
                } => {
                    let offset = writer.place(*number);
                    for (within, range) in runs.by_ref().take(*count) {
                        let host = offset.saturating_add(*within);
                        engine::add(&mut slot.plain_writes, host, range.clone());
                    }
                    Entry {
                        bitmap: *bitmap,
                        ..Entry::at(offset)
                    }
                }
            };
            writer.set(*number, entry);
        }
        Ok(())
    }

    fn finish(&self, _: &Piece, slot: &mut Slot) -> Result<()> {
        let both = [
            (&slot.ours, &slot.plain_writes),
            (&slot.packed, &slot.packed_writes),
        ];
        for (bytes, list) in both {
            for (host, range) in list {
                if let Some(bytes) = bytes.get(range.clone()) {
                    self.sink.write_at(*host, bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a range needs not be stored. Where nothing is below, zeros are.
fn same(new: &[u8], old: Option<&[u8]>) -> bool {
    old.map_or_else(|| is_zero(new), |old| new == old)
}

/// Appends a cluster packed, where that makes it shorter.
fn pack(
    tool: &mut Option<Packer>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<Option<Range<usize>>> {
    let Some(packer) = tool else {
        return Ok(None);
    };
    let start = out.len();
    let is_packed = packer.pack(bytes, bytes.len().saturating_sub(1), out)?;
    Ok(is_packed.then_some(start..out.len()))
}

impl<O> Differ<'_, O> {
    /// The entry of a cluster of which nothing has to be stored: where it is not what is below, it is zero.
    fn entry_alone(&self, new: &[u8], old: Option<&[u8]>) -> Option<Entry> {
        if !self.zeros {
            return None;
        }
        if !self.extended {
            return is_zero(new).then_some(Entry::ZERO);
        }
        let (allocated, zero) = self.bitmap(new, old);
        (allocated == 0).then_some(Entry {
            word: 0,
            bitmap: zero << 32,
        })
    }

    /// Bytes of a subcluster.
    fn part(&self) -> usize {
        index(div(self.cluster, SUBCLUSTERS)).max(1)
    }

    /// One bit for each subcluster that has to be stored, and for each that has to be said to be zero.
    fn bitmap(&self, new: &[u8], old: Option<&[u8]>) -> (u64, u64) {
        let (mut allocated, mut zero) = (0, 0);
        let mut bit = 1u64;
        let mut start = 0usize;
        for new in new.chunks(self.part()) {
            let end = start.saturating_add(new.len());
            let old = old.and_then(|old| old.get(start..end));
            match (same(new, old), is_zero(new)) {
                (true, _) => {}
                (false, true) => zero |= bit,
                (false, false) => allocated |= bit,
            }
            bit = bit.rotate_left(1);
            start = end;
        }
        (allocated, zero)
    }

    /// Adds the runs of a cluster, the one at `start` of its piece, that have to be written.
    fn plain(
        &self,
        start: usize,
        new: &[u8],
        old: Option<&[u8]>,
        runs: &mut Vec<(u64, Range<usize>)>,
    ) -> Stored {
        let (allocated, zero) = if self.extended {
            self.bitmap(new, old)
        } else {
            (u64::MAX, 0)
        };
        let part = if self.extended {
            self.part()
        } else {
            new.len().max(1)
        };
        let mut count = 0usize;
        let mut at = 0usize;
        let mut bit = 1u64;
        for bytes in new.chunks(part) {
            if allocated & bit != 0 {
                let mut found = Vec::new();
                engine::runs(bytes, self.cluster, &mut found);
                for run in found {
                    let (from, to) = (at.saturating_add(run.start), at.saturating_add(run.end));
                    let within = u64::try_from(from).unwrap_or(u64::MAX);
                    runs.push((within, start.saturating_add(from)..start.saturating_add(to)));
                    count = count.saturating_add(1);
                }
            }
            at = at.saturating_add(bytes.len());
            bit = bit.rotate_left(1);
        }
        let bitmap = if self.extended {
            allocated | (zero << 32)
        } else {
            0
        };
        Stored::Plain {
            runs: count,
            bitmap,
        }
    }
}
