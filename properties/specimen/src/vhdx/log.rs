//! A log that was not replayed: what stands in the file under it is old.

use super::rules::{Log, Role};
use super::structure::Area;
use crate::choices::{Choices, index, len};
use crate::content::noise;
use crate::field::{Class, Sum};
use crate::make::Maker;

const SECTOR: u64 = 4096;

/// What the log does.
pub(super) struct Pending {
    pub(super) guid: [u8; 16],
    /// Sectors of the file that it writes.
    pub(super) written: Vec<u64>,
    /// Entries of the sequence.
    pub(super) entries: usize,
}

/// One change: a sector with its new bytes, or none for zeros.
struct Write {
    at: u64,
    bytes: Option<Vec<u8>>,
}

/// Takes some sectors of the finished file into a log and leaves old bytes in their places.
pub(super) fn pending(
    choices: &mut impl Choices,
    maker: &mut Maker<Role>,
    area: &Area,
    blocks: &[u64],
) -> Pending {
    let guid = choices.id();
    let mut candidates = vec![area.bat.0, area.metadata.0 + (64 << 10)];
    candidates.extend(blocks.iter().take(3).copied());
    choices.shuffle(&mut candidates);
    let count = index(choices.between(1, len(&candidates)));
    candidates.truncate(count);
    let mut writes = Vec::new();
    for at in &candidates {
        let new = maker.get(*at, index(SECTOR));
        let zeros = new.iter().all(|byte| *byte == 0);
        let old = if choices.one_in(2) {
            vec![0; index(SECTOR)]
        } else {
            noise(choices.word(), index(SECTOR))
        };
        maker.put(*at, &old);
        writes.push(Write {
            at: *at,
            bytes: (!zeros).then_some(new),
        });
    }
    // In as many entries as there are changes, or in one.
    let each = choices.pick(&[1usize, writes.len()]);
    let groups: Vec<&[Write]> = writes.chunks(each).collect();
    let sequence = choices.between(1, 1 << 40);
    let ring = area.log.1 / SECTOR;
    // Near the end of the ring, so that it is gone round.
    let first = if choices.one_in(2) {
        ring - choices.between(1, 3)
    } else {
        choices.below(ring)
    };
    let mut at = first;
    for (number, group) in (0u64..).zip(&groups) {
        let head = number + 1 == len(&groups);
        let place = Place {
            area: *area,
            start: at,
            tail: first,
        };
        let length = maker.end();
        at = entry(
            maker,
            &place,
            (guid, sequence + number, length, head),
            group,
        );
    }
    Pending {
        guid,
        written: candidates,
        entries: groups.len(),
    }
}

/// Where an entry is.
struct Place {
    area: Area,
    start: u64,
    tail: u64,
}

impl Place {
    /// Where a sector of the entry stands in the file, round the ring.
    fn sector(&self, number: u64) -> u64 {
        let ring = self.area.log.1 / SECTOR;
        self.area.log.0 + (self.start + number) % ring * SECTOR
    }
}

/// Puts an entry; the answer is the sector behind it.
fn entry(
    maker: &mut Maker<Role>,
    place: &Place,
    (guid, sequence, length, head): ([u8; 16], u64, u64, bool),
    writes: &[Write],
) -> u64 {
    let data = writes.iter().filter(|write| write.bytes.is_some());
    let sectors = 1 + len(&data.collect::<Vec<_>>());
    let at = place.sector(0);
    maker.put(at, &[0; 4096]);
    let number = place.start;
    let name = |field: &str| format!("log.entry[{number}].{field}");
    let role = |what| Role::Log { head, what };
    maker.text(
        name("Signature"),
        at,
        b"loge",
        Class::Magic,
        role(Log::Broken),
    );
    for (field, offset, width, value, class, what) in [
        (
            "EntryLength",
            8,
            4,
            sectors * SECTOR,
            Class::Size,
            Log::Broken,
        ),
        ("Tail", 12, 4, place.tail * SECTOR, Class::Place, Log::Tail),
        ("SequenceNumber", 16, 8, sequence, Class::Count, Log::Broken),
        (
            "DescriptorCount",
            24,
            4,
            len(writes),
            Class::Count,
            Log::Count,
        ),
        ("Reserved", 28, 4, 0, Class::Reserved, Log::Idle),
        (
            "FlushedFileOffset",
            48,
            8,
            length,
            Class::Size,
            Log::Flushed(length),
        ),
        ("LastFileOffset", 56, 8, length, Class::Size, Log::Last),
    ] {
        maker.number(name(field), (at + offset, width), value, class, role(what));
    }
    maker.text(
        name("LogGuid"),
        at + 32,
        &guid,
        Class::Id,
        role(Log::Broken),
    );
    let mut next = 1;
    for (count, write) in (0u64..).zip(writes) {
        let name = |field: &str| name(&format!("descriptor[{count}].{field}"));
        let at = at + 64 + 32 * count;
        let kind = if write.bytes.is_some() {
            b"desc"
        } else {
            b"zero"
        };
        maker.text(name("Signature"), at, kind, Class::Magic, role(Log::Broken));
        maker.number(
            name("FileOffset"),
            (at + 16, 8),
            write.at,
            Class::Place,
            role(Log::Offset),
        );
        maker.number(
            name("SequenceNumber"),
            (at + 24, 8),
            sequence,
            Class::Count,
            role(Log::Broken),
        );
        let Some(bytes) = &write.bytes else {
            maker.number(
                name("ZeroLength"),
                (at + 8, 8),
                SECTOR,
                Class::Size,
                role(Log::Length),
            );
            continue;
        };
        maker.text(
            name("TrailingBytes"),
            at + 4,
            &bytes[4092..],
            Class::Data,
            role(Log::Data),
        );
        maker.text(
            name("LeadingBytes"),
            at + 8,
            &bytes[..8],
            Class::Data,
            role(Log::Data),
        );
        let sector = place.sector(next);
        next += 1;
        let name = |field: &str| name(&format!("sector.{field}"));
        maker.text(
            name("DataSignature"),
            sector,
            b"data",
            Class::Magic,
            role(Log::Broken),
        );
        maker.number(
            name("SequenceHigh"),
            (sector + 4, 4),
            sequence >> 32,
            Class::Count,
            role(Log::Broken),
        );
        maker.put(sector + 8, &bytes[8..4092]);
        let low = sequence & 0xffff_ffff;
        maker.number(
            name("SequenceLow"),
            (sector + 4092, 4),
            low,
            Class::Count,
            role(Log::Broken),
        );
        let role = role(Log::Data);
        maker.note(
            name("Data"),
            (sector + 8, 8),
            crate::Endian::Bytes,
            Class::Data,
            role,
        );
    }
    seal(maker, place, sectors, (name("Checksum"), role(Log::Broken)));
    place.start + sectors
}

/// The checksum of an entry: over all its sectors, which may go round the end of the ring.
fn seal(maker: &mut Maker<Role>, place: &Place, sectors: u64, (name, role): (String, Role)) {
    let at = place.sector(0);
    let ranges = (0..sectors).map(|number| (place.sector(number), SECTOR));
    maker.seal_over(name, ranges.collect(), at + 4, Sum::Crc32c, role);
}
