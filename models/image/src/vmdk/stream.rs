//! Writing streamOptimized as a stream: front to back, nothing is changed once handed out.
//!
//! The form is that of an export by VMware: version 3, grains and tables announced by markers, the grain directory
//! behind the grains, then the footer, and the end-of-stream marker as the last sector of the file. qemu-img's
//! streamOptimized is not such a stream (it has no footer and no end), which is why we do not write it that way.

use super::header::{FLAG_COMPRESSED, FLAG_MARKERS, GD_AT_END, Header, Marker, Plan, SECTOR};
use super::sparse::{address, check_capacity};
use super::{VmdkOptions, descriptor};
use crate::codec::Packer;
use crate::engine::{self, Packed, Packing, Work};
use crate::front::Front;
use crate::math::{div, div_up, index, len64, rem, round_up};
use drylab_block::{Error, ReadAt, Result};

/// Sectors kept for the descriptor.
const DESCRIPTOR: u64 = 20;
/// Sectors before the first grain.
const OVERHEAD: u64 = 128;

/// The extent in the descriptor: the file itself.
const SOLE: descriptor::Sole = descriptor::Sole {
    create_type: "streamOptimized",
    access: "RDONLY",
    kind: "SPARSE",
    behind: "",
};

struct Stream<'a> {
    out: Front<'a>,
    directory: Vec<u32>,
    /// Number and entries of the grain table being filled.
    table: Option<(u64, Vec<u32>)>,
}

impl Stream<'_> {
    fn sector(&self) -> Result<u32> {
        address(div(self.out.at(), SECTOR))
    }

    fn words(&mut self, words: &[u32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(words.len().saturating_mul(4));
        words
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        self.out.put(&bytes)?;
        self.out.pad(SECTOR)
    }

    /// Hands out the grains of one piece, which do not reach into another table, and notes their places.
    fn grains(&mut self, piece: &Packed) -> Result<()> {
        let entries = u64::from(Header::TABLE_ENTRIES);
        let Some(first) = piece.units.first() else {
            return Ok(());
        };
        let number = div(first.number, entries);
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush_table()?;
        }
        let place = self.sector()?;
        let (_, table) = self
            .table
            .get_or_insert_with(|| (number, vec![0; index(entries)]));
        for unit in &piece.units {
            let within = div(u64::try_from(unit.range.start).unwrap_or(u64::MAX), SECTOR);
            if let Some(entry) = table.get_mut(index(rem(unit.number, entries))) {
                *entry = address(u64::from(place).saturating_add(within))?;
            }
        }
        self.out.put(&piece.packed)
    }

    /// Announces and writes the open grain table, and notes its place for the directory.
    fn flush_table(&mut self) -> Result<()> {
        let Some((number, entries)) = self.table.take() else {
            return Ok(());
        };
        self.out.put(
            &Marker::GrainTable {
                sectors: div_up(len64(&entries).saturating_mul(4), SECTOR),
            }
            .to_sector(),
        )?;
        let place = self.sector()?;
        if let Some(entry) = self.directory.get_mut(index(number)) {
            *entry = place;
        }
        self.words(&entries)
    }

    /// Directory, footer, end of stream.
    fn finish(mut self, mut header: Header) -> Result<u64> {
        self.flush_table()?;
        let directory = std::mem::take(&mut self.directory);
        self.out.put(
            &Marker::GrainDirectory {
                sectors: div_up(len64(&directory).saturating_mul(4), SECTOR),
            }
            .to_sector(),
        )?;
        header.gd_offset = u64::from(self.sector()?);
        self.words(&directory)?;
        self.out.put(&Marker::Footer { sectors: 1 }.to_sector())?;
        self.out.put(&header.to_bytes())?;
        self.out.put(&Marker::EndOfStream.to_sector())?;
        Ok(self.out.at())
    }
}

/// Grains as they stand in the file: marker, stream, padding. None says where it stands.
struct Grains {
    level: u32,
}

impl Packing for Grains {
    type Tool = Packer;

    fn tool(&self) -> Result<Packer> {
        Packer::zlib(self.level)
    }

    fn pack(
        &self,
        packer: &mut Packer,
        grain: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let start = out.len();
        out.extend_from_slice(&[0; MARKER]);
        let data = out.len();
        packer.pack_or_store(bytes, out)?;
        let marker = Marker::Grain {
            lba: grain.saturating_mul(Header::GRAIN),
            size: u32::try_from(out.len().saturating_sub(data)).map_err(Error::io)?,
        };
        if let Some(head) = out.get_mut(start..data) {
            head.copy_from_slice(&marker.to_sector());
        }
        // Every grain is whole sectors, so the next one begins at one.
        out.resize(index(round_up(len64(out), SECTOR)), 0);
        Ok(true)
    }
}

/// Bytes of a grain's marker: the address and the size, without the type that others have.
const MARKER: usize = 12;

/// Hands out the file of `disk` front to back; the result is its length.
pub(crate) fn write_stream(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    put: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    work: &Work<'_>,
) -> Result<u64> {
    let capacity = check_capacity(disk.len())?;
    let header = Header::new(&Plan {
        version: 3,
        flags: FLAG_COMPRESSED | FLAG_MARKERS,
        capacity,
        descriptor_size: DESCRIPTOR,
        rgd_offset: 0,
        gd_offset: GD_AT_END,
        overhead: OVERHEAD,
    });
    // The descriptor goes out first, so the content is read once more for its id. That is cheap beside packing it.
    let text = descriptor::compose(&SOLE, capacity, options.cid(disk, work)?, options)?;
    let mut stream = Stream {
        out: Front::new(put),
        directory: vec![0; index(header.tables().max(1))],
        table: None,
    };
    stream.out.put(&header.to_bytes())?;
    stream.out.put(text.as_bytes())?;
    stream.out.pad(OVERHEAD.saturating_mul(SECTOR))?;
    let grains = Grains {
        level: options.level,
    };
    let unit = Header::GRAIN.saturating_mul(SECTOR);
    engine::pack(disk, None, (unit, &grains), work, |piece, _| {
        stream.grains(piece)
    })?;
    stream.finish(header)
}
