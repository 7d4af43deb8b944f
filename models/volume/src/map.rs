//! Where the bytes of a volume stand: segments on disks, one leg or striped.

use drylab_block::{Error, Extent, ReadAt, Result, WriteAt};
use std::fmt;
use std::sync::Arc;

/// A byte on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Index of the disk.
    pub disk: usize,
    /// Byte offset on that disk.
    pub offset: u64,
}

/// A range of a volume that stands on one disk, or turn by turn on several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Length in bytes.
    pub length: u64,
    /// Bytes on one leg before the next leg's turn; of no meaning with one leg.
    pub stripe: u64,
    /// Where each leg begins; never empty.
    pub legs: Vec<Spot>,
}

/// The segments of a volume, in order, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Start of each segment in the volume, with the segment.
    segments: Vec<(u64, Segment)>,
    length: u64,
}

impl Map {
    /// One piece of one disk.
    #[must_use]
    pub fn linear(disk: usize, offset: u64, length: u64) -> Self {
        Self {
            segments: vec![(
                0,
                Segment {
                    length,
                    stripe: 0,
                    legs: vec![Spot { disk, offset }],
                },
            )],
            length,
        }
    }

    /// Appends a segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the volume would be longer than 2^64 bytes, or the segment has no legs, or is striped
    /// over stripes of no bytes.
    pub fn push(&mut self, segment: Segment) -> Result<()> {
        let length = self.length.checked_add(segment.length);
        let length = length.ok_or_else(|| Error::corrupt("a volume is longer than 2^64 bytes"))?;
        if segment.legs.is_empty() || (segment.legs.len() > 1 && segment.stripe == 0) {
            return Err(Error::corrupt(format_args!(
                "a segment at byte {} has {} legs with stripes of {} bytes",
                self.length,
                segment.legs.len(),
                segment.stripe
            )));
        }
        if segment.length > 0 {
            self.segments.push((self.length, segment));
        }
        self.length = length;
        Ok(())
    }

    /// Length of the volume in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Segments with their start in the volume.
    pub fn segments(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.segments
            .iter()
            .map(|(start, segment)| (*start, segment))
    }

    /// Where byte `offset` of the volume stands, and how many bytes follow there without a jump.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<(Spot, u64)> {
        let index = self
            .segments
            .partition_point(|(start, _)| *start <= offset)
            .checked_sub(1)?;
        let (start, segment) = self.segments.get(index)?;
        let within = offset.checked_sub(*start)?;
        let left = segment
            .length
            .checked_sub(within)
            .filter(|left| *left > 0)?;
        if let [leg] = segment.legs.as_slice() {
            return Some((
                Spot {
                    disk: leg.disk,
                    offset: leg.offset.checked_add(within)?,
                },
                left,
            ));
        }
        let legs = u64::try_from(segment.legs.len()).ok()?;
        let chunk = within.checked_div(segment.stripe)?;
        let rest = within.checked_rem(segment.stripe)?;
        let leg = segment
            .legs
            .get(usize::try_from(chunk.checked_rem(legs)?).ok()?)?;
        let row = chunk.checked_div(legs)?.checked_mul(segment.stripe)?;
        let spot = Spot {
            disk: leg.disk,
            offset: leg.offset.checked_add(row)?.checked_add(rest)?,
        };
        Some((spot, left.min(segment.stripe.checked_sub(rest)?)))
    }

    /// Bytes each leg of `segment` occupies.
    pub(crate) fn leg_length(segment: &Segment) -> u64 {
        let legs = u64::try_from(segment.legs.len()).unwrap_or(u64::MAX).max(1);
        segment.length.div_ceil(legs)
    }

    /// Calls `each` with (range of the buffer, spot) for `length` bytes at `offset`.
    fn walk(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(std::ops::Range<usize>, Spot) -> Result<()>,
    ) -> Result<()> {
        let wanted = u64::try_from(length).map_err(Error::io)?;
        if offset
            .checked_add(wanted)
            .is_none_or(|end| end > self.length)
        {
            return Err(Error::io(format_args!(
                "{wanted} bytes at offset {offset} end past the end of the volume ({})",
                self.length
            )));
        }
        let mut done = 0usize;
        while done < length {
            let at = offset.saturating_add(u64::try_from(done).map_err(Error::io)?);
            let (spot, run) = self
                .at(at)
                .ok_or_else(|| Error::io(format_args!("byte {at} of the volume stands nowhere")))?;
            let take = usize::try_from(run)
                .unwrap_or(usize::MAX)
                .min(length.saturating_sub(done));
            let end = done.saturating_add(take);
            each(done..end, spot)?;
            done = end;
        }
        Ok(())
    }
}

fn disk_of<D>(disks: &[D], spot: Spot) -> Result<&D> {
    disks
        .get(spot.disk)
        .ok_or_else(|| Error::io(format_args!("disk {} is not there", spot.disk)))
}

fn extent_through<D: ReadAt + ?Sized>(disks: &[Arc<D>], map: &Map, offset: u64) -> Extent {
    let whole = Extent {
        offset,
        length: map.length.saturating_sub(offset),
        kind: drylab_block::ExtentKind::Data,
    };
    let Some((spot, run)) = map.at(offset) else {
        return whole;
    };
    let Some(disk) = disks.get(spot.disk).filter(|disk| spot.offset < disk.len()) else {
        return whole;
    };
    let found = disk.extent_at(spot.offset);
    Extent {
        offset,
        length: found.length.min(run),
        kind: found.kind,
    }
}

/// A volume read through its map.
pub(crate) struct Mapped {
    pub(crate) disks: Arc<[Arc<dyn ReadAt>]>,
    pub(crate) map: Arc<Map>,
}

impl ReadAt for Mapped {
    fn len(&self) -> u64 {
        self.map.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.map.walk(offset, buffer.len(), |range, spot| {
            match buffer.get_mut(range) {
                Some(part) => disk_of(&self.disks, spot)?.read_at(spot.offset, part),
                None => Ok(()),
            }
        })
    }

    fn extent_at(&self, offset: u64) -> Extent {
        extent_through(&self.disks, &self.map, offset)
    }
}

/// A volume of disks that can be written: the window through which files are edited where they stand.
#[derive(Clone)]
pub struct WindowMut {
    disks: Arc<[Arc<dyn WriteAt>]>,
    map: Arc<Map>,
}

impl WindowMut {
    /// The volume that `map` describes, on these disks (in the order the layout was scanned with).
    #[must_use]
    pub fn new(disks: impl Into<Arc<[Arc<dyn WriteAt>]>>, map: Arc<Map>) -> Self {
        Self {
            disks: disks.into(),
            map,
        }
    }
}

impl fmt::Debug for WindowMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WindowMut({} bytes in {} segments)",
            self.map.length,
            self.map.segments.len()
        )
    }
}

impl ReadAt for WindowMut {
    fn len(&self) -> u64 {
        self.map.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.map.walk(offset, buffer.len(), |range, spot| {
            match buffer.get_mut(range) {
                Some(part) => disk_of(&self.disks, spot)?.read_at(spot.offset, part),
                None => Ok(()),
            }
        })
    }

    fn extent_at(&self, offset: u64) -> Extent {
        extent_through(&self.disks, &self.map, offset)
    }
}

impl WriteAt for WindowMut {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.map
            .walk(offset, bytes.len(), |range, spot| match bytes.get(range) {
                Some(part) => disk_of(&self.disks, spot)?.write_at(spot.offset, part),
                None => Ok(()),
            })
    }

    fn set_len(&self, length: u64) -> Result<()> {
        if length == self.map.length {
            return Ok(());
        }
        Err(Error::io(format_args!(
            "a volume keeps its length ({}), not {length}",
            self.map.length
        )))
    }
}
