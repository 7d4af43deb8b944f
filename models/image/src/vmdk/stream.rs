//! Writing streamOptimized as a stream: front to back, nothing is changed once handed out.
//!
//! The form is that of an export by VMware: version 3, grains and tables announced by markers, the grain directory
//! behind the grains, then the footer, and the end-of-stream marker as the last sector of the file. qemu-img's
//! streamOptimized is not such a stream (it has no footer and no end), which is why we do not write it that way.

use super::header::{FLAG_COMPRESSED, FLAG_MARKERS, GD_AT_END, Header, Marker, Plan, SECTOR};
use super::sparse::{address, check_capacity};
use super::{VmdkOptions, descriptor};
use crate::codec::Packer;
use crate::math::{div, div_up, index, len64, rem};
use crate::scan::{Front, for_each_unit};
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
    packer: Packer,
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

    fn grain(&mut self, grain: u64, bytes: &[u8]) -> Result<()> {
        let entries = u64::from(Header::TABLE_ENTRIES);
        let number = div(grain, entries);
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush_table()?;
        }
        let place = self.sector()?;
        let (_, table) = self
            .table
            .get_or_insert_with(|| (number, vec![0; index(entries)]));
        if let Some(entry) = table.get_mut(index(rem(grain, entries))) {
            *entry = place;
        }
        let packed = self.packer.pack_or_store(bytes)?;
        let size = u32::try_from(packed.len()).map_err(Error::io)?;
        let marker = Marker::Grain {
            lba: grain.saturating_mul(Header::GRAIN),
            size,
        };
        // One piece for a grain: marker, bytes and padding.
        let mut piece = marker.to_sector();
        piece.extend_from_slice(packed);
        piece.resize(index(crate::math::round_up(len64(&piece), SECTOR)), 0);
        self.out.put(&piece)
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

/// Hands out the file of `disk` front to back; the result is its length.
pub(crate) fn write_stream(
    disk: &dyn ReadAt,
    options: &VmdkOptions,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
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
    let text = descriptor::compose(&SOLE, capacity, options.cid(disk)?, options)?;
    let mut stream = Stream {
        out: Front::new(put),
        packer: Packer::zlib(options.level),
        directory: vec![0; index(header.tables().max(1))],
        table: None,
    };
    stream.out.put(&header.to_bytes())?;
    stream.out.put(text.as_bytes())?;
    stream.out.pad(OVERHEAD.saturating_mul(SECTOR))?;
    for_each_unit(
        disk,
        Header::GRAIN.saturating_mul(SECTOR),
        |grain, bytes| stream.grain(grain, bytes),
    )?;
    stream.finish(header)
}
