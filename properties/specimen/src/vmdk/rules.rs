//! What must come of a damage to a VMDK.

use super::{DESCRIPTOR, ENTRIES, Plan, SECTOR};
use crate::choices::{index, len};
use crate::damage::{Aim, Change};
use crate::expect::Expected;
use crate::specimen::Rules;
use std::ops::Range;

/// Codes of tables that are not where they should be, and of grains that are found through them.
const TABLES: [&str; 17] = [
    "VMDK-GD-RANGE",
    "VMDK-RGD-RANGE",
    "VMDK-RGD-OVERLAP",
    "VMDK-GT-RANGE",
    "VMDK-GT-LOST",
    "VMDK-GT-OVERLAP",
    "VMDK-GT-SHARED",
    "VMDK-GT-DIFFERS",
    "VMDK-GRAIN-RANGE",
    "VMDK-GRAIN-IN-METADATA",
    "VMDK-GRAIN-ALIAS",
    "VMDK-GRAIN-OVERLAP",
    "VMDK-GRAIN-SHARED",
    "VMDK-GRAIN-MARKER",
    "VMDK-GRAIN-PACKED",
    "VMDK-STREAM-MARKER",
    "VMDK-NO-FOOTER",
];
/// Codes of a stream whose markers lead elsewhere.
const MARKERS: [&str; 8] = [
    "VMDK-STREAM-MARKER",
    "VMDK-STREAM-ORDER",
    "VMDK-STREAM-CUT",
    "VMDK-NO-END-OF-STREAM",
    "VMDK-TRAILING-BYTES",
    "VMDK-NO-FOOTER",
    "VMDK-GRAIN-MARKER",
    "VMDK-GRAIN-PACKED",
];

/// Fields of header and footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Magic,
    Version,
    Flags,
    Capacity,
    Grain,
    Descriptor,
    TableEntries,
    Rgd,
    Gd,
    Overhead,
    Unclean,
    Newlines,
    Algorithm,
    Text,
    Idle,
}

/// Fields of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Lba,
    /// Of the grain at a sector, with the bytes that there are.
    Size {
        at: u64,
        length: u64,
    },
    /// The first bytes of a compressed grain.
    Packed,
    Marker,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Header { footer: bool, what: Head },
    Table { table: u64, redundant: bool },
    Grain { grain: u64, redundant: bool },
    Stream(Stream),
    Data,
}

/// Sectors that something has.
#[derive(Clone, Debug)]
pub(super) struct Used {
    sectors: Range<u64>,
    /// The table that has them, and whether it is a redundant one; of a grain the one that leads to it.
    table: Option<(u64, bool)>,
    is_grain: bool,
}

impl Used {
    pub(super) fn of(start: u64, count: u64) -> Self {
        Self {
            sectors: start..start + count,
            table: None,
            is_grain: false,
        }
    }

    pub(super) fn grain(grain: u64, start: u64, count: u64) -> Self {
        Self {
            table: Some((grain / ENTRIES, false)),
            is_grain: true,
            ..Self::of(start, count)
        }
    }

    pub(super) fn table(plan: &Plan, table: u64, start: u64, redundant: bool) -> Self {
        Self {
            table: Some((table, redundant)),
            ..Self::of(start, plan.table_sectors(table))
        }
    }
}

pub(super) struct Layout {
    pub(super) roles: Vec<Role>,
    pub(super) plan: Plan,
    /// Sectors of grains; 0 is none, 1 zeros.
    pub(super) entries: Vec<u64>,
    /// What has which sectors.
    pub(super) used: Vec<Used>,
    /// First sector behind directories and tables.
    pub(super) metadata_end: u64,
    /// Bytes of the file.
    pub(super) end: u64,
}

impl Rules for Layout {
    fn expected(&self, field: usize, change: &Change) -> Expected {
        match self.roles[field] {
            // Tables of a disk without bytes say nothing.
            _ if self.is_empty(field) => {
                Expected::anything("none: a disk without grains is in no table and no marker")
            }
            Role::Header { footer: true, what } => Self::footer(what),
            Role::Header { what, .. } => self.header(what, change),
            Role::Table {
                table,
                redundant: true,
            } => {
                let found = Expected::found("Metadata: redundant grain directory", &TABLES).same();
                let as_good = self.is_empty_table(table) && self.is_free((table, true), change.new);
                if as_good { found.or_quiet() } else { found }
            }
            Role::Table { table, .. } => self.table(table, change),
            Role::Grain {
                redundant: true, ..
            } => Expected::found("Metadata: redundant grain tables", &["VMDK-GT-DIFFERS"]).same(),
            Role::Grain { grain, .. } => self.grain(grain, change.new),
            Role::Stream(what) => self.stream(what, change),
            Role::Data => Expected::other("none: bytes of the guest"),
        }
    }

    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        let sectors = self.end / SECTOR;
        match self.roles[field] {
            Role::Grain { grain, .. } => {
                let others: Vec<u64> = (0u64..)
                    .zip(&self.entries)
                    .filter(|(other, entry)| *other != grain && **entry > 1)
                    .map(|(_, entry)| *entry)
                    .collect();
                let other = || others.get(index(pick.checked_rem(len(&others))?)).copied();
                match aim {
                    Aim::Beyond => Some(sectors + pick % 64),
                    Aim::Metadata => Some(2 + pick % (self.metadata_end - 2)),
                    Aim::Alias => other(),
                    Aim::Straddle => Some(other()? + 1),
                }
            }
            Role::Table { .. }
            | Role::Header {
                what: Head::Gd | Head::Rgd,
                ..
            } => match aim {
                Aim::Beyond => Some(sectors + pick % 64),
                Aim::Metadata => Some(pick % self.metadata_end),
                _ => None,
            },
            Role::Header {
                what: Head::Overhead,
                ..
            } => match aim {
                Aim::Beyond => Some(sectors + pick % 64),
                Aim::Metadata => Some(pick % self.metadata_end),
                _ => None,
            },
            _ => None,
        }
    }

    fn touched(&self, field: usize) -> Option<Vec<Range<u64>>> {
        let grains = |from: u64, count: u64| {
            let bytes = self.plan.grain_bytes();
            let start = from * bytes;
            start..start + count * bytes
        };
        match self.roles[field] {
            // Whatever stands there is taken for structure.
            Role::Header {
                what:
                    Head::Magic
                    | Head::Flags
                    | Head::Grain
                    | Head::Descriptor
                    | Head::TableEntries
                    | Head::Algorithm
                    | Head::Text,
                ..
            }
            | Role::Stream(_)
            | Role::Data => None,
            Role::Header { what: Head::Gd, .. } if !self.plan.redundant => None,
            Role::Header { footer: true, .. }
                if !matches!(
                    self.roles[field],
                    Role::Header {
                        what: Head::Capacity,
                        ..
                    }
                ) =>
            {
                None
            }
            Role::Header { .. }
            | Role::Table {
                redundant: true, ..
            }
            | Role::Grain {
                redundant: true, ..
            } => Some(Vec::new()),
            Role::Table { table, .. } => Some(Vec::from([grains(table * ENTRIES, ENTRIES)])),
            Role::Grain { grain, .. } => Some(Vec::from([grains(grain, 1)])),
        }
    }

    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        match (self.roles[one], self.roles[other]) {
            (
                Role::Grain {
                    grain: one,
                    redundant: false,
                },
                Role::Grain {
                    grain: other,
                    redundant: false,
                },
            ) => {
                let zeros = [one, other]
                    .iter()
                    .all(|grain| self.entries[index(*grain)] < 2);
                let clause = "Metadata: grains may stand in any order";
                let codes = ["VMDK-GT-DIFFERS", "VMDK-GRAIN-MARKER", "VMDK-STREAM-MARKER"];
                let plain = !self.plan.redundant && (zeros || !self.is_stream());
                Some(if plain {
                    Expected::other(clause)
                } else {
                    Expected::found(clause, &codes)
                })
            }
            _ => None,
        }
    }
}

impl Layout {
    /// Whether a field is one of places and markers of a disk that stores no grain.
    fn is_empty(&self, field: usize) -> bool {
        let places = [Head::Gd, Head::Rgd, Head::Overhead];
        let place = match self.roles[field] {
            Role::Header { footer, what } => places.contains(&what) || footer,
            Role::Table { .. } | Role::Stream(_) => true,
            _ => false,
        };
        place && self.first_grain().is_none()
    }

    fn is_stream(&self) -> bool {
        self.plan.kind != "monolithicSparse"
    }

    fn at_end(&self) -> bool {
        self.plan.kind == "streamOptimized"
    }

    fn first_grain(&self) -> Option<u64> {
        self.entries
            .iter()
            .copied()
            .filter(|entry| *entry > 1)
            .min()
    }

    fn header(&self, what: Head, change: &Change) -> Expected {
        let new = change.new;
        let expected = match what {
            Head::Magic => {
                return Expected::other("Header: without magicNumber it is no sparse extent")
                    .or_refused();
            }
            Head::Version if !(1..=3).contains(&new) => {
                return Expected::refused("Header: version");
            }
            Head::Version if new == 1 && self.plan.zeroed => {
                Expected::found("Header: version", &["VMDK-VERSION"]).same()
            }
            Head::Version => Expected::harmless("Header: version"),
            Head::Flags => self.flags(change),
            Head::Capacity => {
                let found = Expected::found("Header: capacity", &["VMDK-EXTENT-SIZE"]).or_refused();
                // The descriptor says it again, and here the tables tell which of the two is right, or the footer does.
                let told = self.at_end() || self.tells(new);
                if told { found.same() } else { found }
            }
            Head::Grain if !new.is_power_of_two() || new < 8 => {
                return Expected::refused("Header: grainSize");
            }
            Head::Grain => return Expected::anything("Header: grainSize"),
            Head::Descriptor | Head::Text => return Expected::anything("The Descriptor File"),
            Head::TableEntries => {
                Expected::found("Header: numGTEsPerGT", &["VMDK-TABLE-ENTRIES"]).or_refused()
            }
            // 0 is no directory, which the flag says there is.
            Head::Rgd if self.plan.redundant && new == 0 => {
                Expected::found("Header: rgdOffset", &["VMDK-RGD-RANGE"]).same()
            }
            Head::Rgd if self.plan.redundant => {
                let codes = ["VMDK-DESCRIPTOR-AREA"];
                Expected::found("Header: rgdOffset", &TABLES)
                    .or(&codes)
                    .same()
            }
            Head::Gd if self.plan.capacity == 0 => return Expected::anything("Header: gdOffset"),
            Head::Gd => {
                let codes = ["VMDK-DESCRIPTOR-AREA"];
                let found = Expected::found("Header: gdOffset", &TABLES)
                    .or(&codes)
                    .or_refused();
                // Zeros that stand there are a directory without tables.
                let alone = !self.plan.redundant && !self.is_stream();
                let inside = new > DESCRIPTOR && new < self.end / SECTOR;
                return if alone && inside {
                    found.or_quiet()
                } else {
                    found
                };
            }
            Head::Overhead => self.overhead(new),
            Head::Unclean => Expected::found("Header: uncleanShutdown", &["VMDK-UNCLEAN"]).same(),
            Head::Newlines => {
                Expected::found("Header: newline detection", &["VMDK-NEWLINES"]).same()
            }
            Head::Algorithm if self.is_stream() => {
                return Expected::refused("Header: compressAlgorithm");
            }
            _ => Expected::harmless("Header: says nothing of the bytes"),
        };
        if self.at_end() && !matches!(what, Head::Overhead | Head::Gd | Head::Rgd) {
            // The footer counts, and says otherwise.
            return expected.or(&["VMDK-FOOTER-DIFFERS"]);
        }
        expected
    }

    fn flags(&self, change: &Change) -> Expected {
        let clause = "Header: flags";
        let turned = change.new ^ change.old;
        if turned & !0x3_0007 != 0 {
            return Expected::refused(clause);
        }
        if turned & 0x3_0000 != 0 || (turned & 4 != 0 && self.plan.zeroed) {
            return Expected::anything(clause);
        }
        if turned & 4 != 0 && self.plan.version == 1 {
            return Expected::found(clause, &["VMDK-VERSION"]).same();
        }
        if turned & 2 != 0 && !self.plan.redundant {
            return Expected::found(clause, &["VMDK-RGD-RANGE"]).same();
        }
        Expected::harmless(clause)
    }

    fn overhead(&self, new: u64) -> Expected {
        let clause = "Header: overHead";
        if self.at_end() {
            // The footer says it again; a stream begins there.
            return Expected::found(clause, &["VMDK-FOOTER-DIFFERS"])
                .or(&MARKERS)
                .same();
        }
        let mut codes = Vec::new();
        if self.first_grain().is_some_and(|first| new > first) {
            codes.push("VMDK-OVERHEAD");
        }
        if new > self.end / SECTOR {
            codes.push("VMDK-OVERHEAD-CUT");
        }
        if self.is_stream() {
            codes.extend(MARKERS);
        }
        let expected = Expected::found(clause, &codes).same();
        // A stream is looked for there: zeros that stand in front of it are its end.
        if codes.is_empty() {
            expected.or_quiet()
        } else {
            expected
        }
    }

    fn footer(what: Head) -> Expected {
        let clause = "Stream-Optimized Compressed Sparse Extents: footer";
        let differs = Expected::found(clause, &["VMDK-FOOTER-DIFFERS"]);
        match what {
            Head::Magic => Expected::found(clause, &["VMDK-NO-FOOTER"]).same(),
            // Flag bit 1 is clear: there is no redundant directory.
            Head::Idle | Head::Rgd => Expected::harmless(clause),
            Head::Unclean => Expected::found(clause, &["VMDK-UNCLEAN"]).same(),
            // The header says it, too, and the descriptor.
            Head::Capacity => differs.or(&["VMDK-NO-FOOTER"]).or_refused().same(),
            Head::Overhead => differs.or(&["VMDK-OVERHEAD-CUT"]).or(&TABLES).or_refused(),
            // A footer that is none: the stream is walked by its markers.
            _ => differs.or(&["VMDK-NO-FOOTER"]).or(&TABLES).or_refused(),
        }
    }

    /// Grains of a table, as entries.
    fn of_table(&self, table: u64) -> impl Iterator<Item = u64> {
        let first = index(table * ENTRIES);
        self.entries
            .iter()
            .copied()
            .skip(first)
            .take(index(ENTRIES))
    }

    /// Whether a table has no entries. It is as good wherever zeros stand.
    fn is_empty_table(&self, table: u64) -> bool {
        self.of_table(table).all(|entry| entry == 0)
    }

    /// Whether a table, and whether it is a redundant one, would stand where nothing else does. To its own grains nothing
    /// leads then.
    fn is_free(&self, own: (u64, bool), start: u64) -> bool {
        let end = start.saturating_add(self.plan.table_sectors(own.0));
        let mut others = self.used.iter().filter(|used| used.table != Some(own));
        end <= self.end / SECTOR
            && !others.any(|used| used.sectors.start < end && start < used.sectors.end)
    }

    /// Whether the tables tell that the descriptor is right of the capacity, and not the header.
    fn tells(&self, new: u64) -> bool {
        let grains = new.div_ceil(self.plan.grain);
        let tables = grains.div_ceil(ENTRIES);
        if new > self.plan.capacity {
            // Directories have no entries behind the last table, and tables are behind them.
            self.plan.tables() > 0 && tables > self.plan.tables()
        } else {
            let stored = self.entries.iter().skip(index(grains));
            tables < self.plan.tables() || stored.into_iter().any(|entry| *entry != 0)
        }
    }

    fn table(&self, table: u64, change: &Change) -> Expected {
        let clause = "Metadata: grain directory";
        let found = Expected::found(clause, &TABLES);
        let stored = self.of_table(table).any(|entry| entry > 1);
        let free = self.is_free((table, false), change.new);
        // What is not told, because nothing contradicts it:
        let untold = if change.to_zero() {
            // No table: all its grains are absent. A second directory says otherwise; in a stream the marker of the table
            // does, or those of its grains, where it has one of them.
            !self.plan.redundant && (!self.is_stream() || (!self.at_end() && !stored))
        } else if self.plan.redundant {
            // The second table says what this one says only if zeros stand there, and it has no entries.
            free && self.is_empty_table(table)
        } else if self.at_end() {
            // There is a marker in front of a table.
            free && self.is_empty_table(table)
        } else if self.is_stream() {
            // Grains have markers of their own. Grains that are zeros are as good without a table.
            free && !stored
        } else {
            // A table may stand anywhere in the file, and with anything in it, as long as no other has the sectors.
            free
        };
        let found = if change.old == 0 && self.is_stream() {
            found
        } else {
            found.or_refused()
        };
        if untold { found.or_quiet() } else { found }
    }

    fn grain(&self, grain: u64, new: u64) -> Expected {
        let clause = "Metadata: grain tables";
        let mut codes = Vec::new();
        if self.plan.redundant {
            codes.push("VMDK-GT-DIFFERS");
        }
        let zero = new == 0 || (new == 1 && self.plan.zeroed);
        let was = self.entries[index(grain)];
        if self.is_stream() && was > 1 {
            // The grain that stood there is met by its marker and named by no table.
            codes.push("VMDK-STREAM-MARKER");
        }
        if !zero {
            // Of the last grain only what the disk has of it.
            let own = |grain: u64| self.plan.inside(grain) / SECTOR;
            let (start, end) = (new, new + own(grain));
            if new < self.metadata_end {
                // What pads the tables is nobody's, but overHead is behind it.
                codes.extend(["VMDK-GRAIN-IN-METADATA", "VMDK-OVERHEAD"]);
            }
            let mut others = (0u64..)
                .zip(&self.entries)
                .filter(|(other, entry)| *other != grain && **entry > 1);
            if self.is_stream() {
                codes.extend([
                    "VMDK-GRAIN-MARKER",
                    "VMDK-GRAIN-RANGE",
                    "VMDK-GRAIN-PACKED",
                    "VMDK-GRAIN-IN-METADATA",
                ]);
            } else {
                if new * SECTOR + self.plan.inside(grain) > self.end {
                    codes.push("VMDK-GRAIN-RANGE");
                }
                if others.any(|(other, at)| start < at + own(other) && *at < end) {
                    codes.extend(["VMDK-GRAIN-ALIAS", "VMDK-GRAIN-OVERLAP"]);
                }
            }
        }
        let expected = Expected::found(clause, &codes);
        if codes.is_empty() {
            // Nobody's place, between overHead and the end; before overHead it is one that overHead denies.
            return expected.or_quiet().or(&["VMDK-OVERHEAD"]);
        }
        expected
    }
    fn stream(&self, what: Stream, change: &Change) -> Expected {
        let clause = "Stream-Optimized Compressed Sparse Extents: markers";
        match what {
            Stream::Lba => Expected::found(clause, &["VMDK-GRAIN-MARKER"]),
            Stream::Size { at, length } => {
                let found = Expected::found(clause, &MARKERS);
                let sectors = |length: u64| length.saturating_add(12).div_ceil(SECTOR);
                let (end, new) = (at + sectors(length), at.saturating_add(sectors(change.new)));
                let is_table = |used: &&Used| used.table.is_some() && !used.is_grain;
                let tables = self.used.iter().filter(is_table);
                let over = |used: &Used| used.sectors.start >= end && used.sectors.start < new;
                if new == end && change.new > length {
                    // A few bytes more in the same sector are padding.
                    found.or_quiet().same()
                } else if tables.into_iter().any(over) {
                    // It takes a table for its own, and may end where a marker is behind it.
                    found.or(&["VMDK-GT-OVERLAP"])
                } else {
                    found
                }
            }
            Stream::Packed => {
                let clause = "RFC 1950: a checksum is over the grain";
                let found = Expected::found(clause, &["VMDK-GRAIN-PACKED"]);
                // The same grain may be said in other words, behind a head that is one: in a run of zeros a match may be
                // any distance off, and nothing in the file tells.
                if is_zlib(&change.new_bytes) {
                    found.or_same()
                } else {
                    found
                }
            }
            Stream::Marker => Expected::found(clause, &MARKERS).same(),
        }
    }
}

/// Whether bytes begin as RFC 1950 says: deflate, a window of at most 32 KiB, no dictionary, and the check of the two.
fn is_zlib(bytes: &[u8]) -> bool {
    let &[method, flags, ..] = bytes else {
        return false;
    };
    method & 15 == 8
        && method >> 4 <= 7
        && flags & 0x20 == 0
        && (u16::from(method) << 8 | u16::from(flags)) % 31 == 0
}
