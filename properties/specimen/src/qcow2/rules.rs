//! What must come of a damage to a qcow2.

use super::Plan;
use super::make::{COMPRESSED, COPIED};
use crate::choices::{index, len};
use crate::damage::{Aim, Change};
use crate::expect::Expected;
use crate::specimen::Rules;
use std::collections::BTreeMap;

/// Codes of refcounts that do not fit the references.
const COUNTS: [&str; 11] = [
    "QCOW2-COPIED-L1",
    "QCOW2-REFCOUNT",
    "QCOW2-REFCOUNT-BLOCK",
    "QCOW2-REFCOUNT-TABLE",
    "QCOW2-LEAK",
    "QCOW2-COPIED-L2",
    "QCOW2-OVERLAP-REFCOUNTS",
    "QCOW2-OVERLAP-TABLES",
    "QCOW2-OVERLAP-DATA",
    "QCOW2-OVERLAP-L2",
    "QCOW2-TABLE-BEYOND-END",
];

/// Fields of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Magic,
    Version,
    Backing,
    ClusterBits,
    Size,
    Crypt,
    L1Size,
    L1Offset,
    RefcountsOffset,
    RefcountsCount,
    Snapshots,
    SnapshotsOffset,
    Incompatible,
    Autoclear,
    RefcountOrder,
    Length,
    Compression,
    Extension,
    Idle,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Header(Head),
    L1(u64),
    L2(u64),
    Bitmap(u64),
    RefcountTable,
    Refcount,
    Shot(Shot),
    Data,
    Packed,
}

/// Fields of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shot {
    Offset,
    Size,
    /// A length of something inside the entry.
    Length,
    /// A size that the snapshot had.
    State,
    /// An entry of its L1 table, with its value.
    L1(u64),
    Idle,
}

/// What a cluster of the file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Header,
    L1,
    L2,
    Snapshots,
    RefcountTable,
    RefcountBlock,
    Data,
    Packed,
}

pub(super) struct Layout {
    pub(super) roles: Vec<Role>,
    pub(super) plan: Plan,
    pub(super) l1: Vec<u64>,
    pub(super) l1_size: u64,
    /// Entries that the clusters of the L1 table have room for.
    pub(super) l1_room: u64,
    pub(super) entries: BTreeMap<u64, u64>,
    pub(super) things: BTreeMap<u64, Thing>,
    pub(super) end: u64,
}

/// Offset in an entry.
fn offset(entry: u64) -> u64 {
    entry & 0x00ff_ffff_ffff_fe00
}

impl Rules for Layout {
    fn expected(&self, field: usize, change: &Change) -> Expected {
        match self.roles[field] {
            Role::Header(what) => self.header(what, change),
            Role::L1(number) => self.l1(number, change),
            Role::L2(cluster) => self.l2(cluster, change),
            Role::Bitmap(cluster) => self.bitmap(cluster, change.new),
            Role::RefcountTable => {
                let clause = "Host cluster management: refcount table";
                Expected::found(clause, &COUNTS).same()
            }
            Role::Refcount if change.new > change.old => {
                let clause = "Host cluster management: refcount block";
                Expected::found(clause, &["QCOW2-LEAK"]).same()
            }
            Role::Refcount => {
                let clause = "Host cluster management: refcount block";
                Expected::found(clause, &["QCOW2-REFCOUNT"]).same()
            }
            Role::Shot(what) => self.shot(what, change),
            Role::Data => Expected::other("none: bytes of the guest"),
            Role::Packed => self.stream(&change.new_bytes),
        }
    }

    fn aimed(&self, field: usize, aim: Aim, pick: u64) -> Option<u64> {
        let cluster = self.plan.cluster();
        let of = |wanted: &[Thing]| {
            let found = self
                .things
                .iter()
                .filter(|(_, thing)| wanted.contains(thing));
            let found: Vec<u64> = found.map(|(host, _)| host * cluster).collect();
            found.get(index(pick.checked_rem(len(&found))?)).copied()
        };
        let metadata = [
            Thing::Header,
            Thing::L1,
            Thing::L2,
            Thing::RefcountTable,
            Thing::RefcountBlock,
        ];
        let place = match (self.roles[field], aim) {
            (Role::Header(Head::L1Offset), Aim::Alias | Aim::Straddle) => return None,
            (Role::Header(Head::RefcountsOffset), Aim::Alias) => of(&[Thing::L2, Thing::Data])?,
            (
                Role::L1(_) | Role::L2(_) | Role::RefcountTable | Role::Header(_) | Role::Shot(_),
                Aim::Beyond,
            ) => self.end + cluster * (pick % 5),
            (Role::L1(_) | Role::L2(_) | Role::RefcountTable | Role::Header(_), Aim::Metadata) => {
                of(&metadata)?
            }
            (Role::L1(_), Aim::Alias) => of(&[Thing::L2])?,
            (Role::L2(_), Aim::Alias) => of(&[Thing::Data])?,
            (Role::RefcountTable, Aim::Alias) => of(&[Thing::RefcountBlock])?,
            (Role::L2(_), Aim::Straddle) if cluster > 512 => of(&[Thing::Data])? + 512,
            _ => return None,
        };
        Some(match self.roles[field] {
            Role::L1(_) | Role::L2(_) => place | COPIED,
            _ => place,
        })
    }

    fn swapped(&self, one: usize, other: usize) -> Option<Expected> {
        match (self.roles[one], self.roles[other]) {
            (Role::L1(_), Role::L1(_)) | (Role::L2(_), Role::L2(_)) if self.plan.outside => {
                let clause =
                    "Header: incompatible feature bit 2, the offset must match the guest offset";
                let codes = ["QCOW2-DATA-OFFSET", "QCOW2-COPIED-L2"];
                Some(Expected::found(clause, &codes).or_quiet())
            }
            (Role::L1(_), Role::L1(_)) | (Role::L2(_), Role::L2(_)) if !self.plan.extended => Some(
                Expected::other("Cluster mapping: clusters may stand in any order"),
            ),
            _ => None,
        }
    }
}

impl Layout {
    fn header(&self, what: Head, change: &Change) -> Expected {
        let new = change.new;
        match what {
            Head::Magic => Expected::other("Header: without magic it is no qcow2").or_refused(),
            Head::Version if (2..=3).contains(&new) => Expected::anything("Header: version"),
            Head::Version => Expected::refused("Header: version"),
            Head::Backing => Expected::anything("Header: backing_file_offset, backing_file_size"),
            Head::ClusterBits if (9..=21).contains(&new) => {
                Expected::anything("Header: cluster_bits")
            }
            Head::ClusterBits => Expected::refused("Header: cluster_bits"),
            Head::Size => self.size(new),
            Head::Crypt => Expected::refused("Header: crypt_method"),
            Head::L1Size => self.l1_count(new),
            Head::L1Offset if !new.is_multiple_of(self.plan.cluster()) => {
                Expected::refused("Header: l1_table_offset must be aligned to a cluster boundary")
            }
            Head::L1Offset => Expected::anything("Header: l1_table_offset"),
            Head::RefcountsOffset if !new.is_multiple_of(self.plan.cluster()) || new >> 56 != 0 => {
                let clause = "Header: refcount_table_offset must be aligned to a cluster boundary";
                Expected::found(clause, &["QCOW2-REFCOUNT-ALIGNMENT"]).same()
            }
            // What the guest reads does not hang on refcounts, wherever they are said to be.
            Head::RefcountsOffset | Head::RefcountsCount => {
                let clause = "Header: refcount_table_offset, refcount_table_clusters";
                Expected::found(clause, &COUNTS).same()
            }
            Head::Snapshots => {
                let found = Expected::found("Header: nb_snapshots", &["QCOW2-SNAPSHOT"])
                    .or(&COUNTS)
                    .or_refused()
                    .same();
                // Zeros behind the last are more of them, of which version 2 asks nothing.
                let empty = self.plan.snapshot && new > change.old;
                if empty { found.or_quiet() } else { found }
            }
            Head::SnapshotsOffset if !self.plan.snapshot => {
                Expected::harmless("Header: snapshots_offset, of no snapshots")
            }
            Head::SnapshotsOffset => {
                Expected::found("Header: snapshots_offset", &["QCOW2-SNAPSHOT"])
                    .or(&COUNTS)
                    .or_refused()
            }
            Head::Incompatible => self.incompatible(new),
            Head::Autoclear => {
                let codes = ["QCOW2-RAW-EXTERNAL", "QCOW2-EXTENSION"];
                Expected::harmless("Header: autoclear_features").or(&codes)
            }
            Head::RefcountOrder if new > 6 => {
                Expected::found("Header: refcount_order", &["QCOW2-REFCOUNT-ORDER"]).same()
            }
            Head::RefcountOrder => Expected::found("Header: refcount_order", &COUNTS)
                .or_refused()
                .same(),
            Head::Length if new < 104 || !new.is_multiple_of(8) => {
                Expected::refused("Header: header_length")
            }
            Head::Length => Expected::anything("Header: header_length"),
            Head::Compression => Expected::refused("Header: compression_type"),
            Head::Extension => Expected::anything("Header extensions"),
            Head::Idle => Expected::harmless("Header: says nothing of the bytes"),
        }
    }

    /// A field of the snapshot: the active state stays what it is.
    fn shot(&self, what: Shot, change: &Change) -> Expected {
        let clause = "Snapshots";
        let found = Expected::found(clause, &["QCOW2-SNAPSHOT"])
            .or(&COUNTS)
            .or_refused();
        let entries = [
            "QCOW2-L1-RESERVED",
            "QCOW2-L1-ALIGNMENT",
            "QCOW2-L1-BEYOND-END",
            "QCOW2-L2-RESERVED",
        ];
        match what {
            // Other bytes are taken for its tables.
            Shot::Offset => Expected::anything(clause),
            Shot::Size => found.or(&entries).or_quiet(),
            Shot::Length => found.or_quiet().same(),
            Shot::State => found.or_quiet().same(),
            Shot::Idle => Expected::harmless(clause),
            // Bit 63 says nothing in a table that is not written to.
            Shot::L1(old) if change.new ^ old == COPIED => found.or(&entries).or_quiet().same(),
            Shot::L1(_) => found.or(&entries),
        }
    }

    fn size(&self, new: u64) -> Expected {
        let clause = "Header: size";
        let covered = self.l1_size * self.plan.entries() * self.plan.cluster();
        if new > covered {
            return Expected::refused("Header: l1_size is too small for size");
        }
        Expected::other(clause)
    }

    fn l1_count(&self, new: u64) -> Expected {
        let clause = "Header: l1_size";
        if new < self.plan.tables() {
            return Expected::refused(clause);
        }
        if new <= self.l1_room {
            // Entries of no table, and what they were is lost.
            return Expected::harmless(clause).or(&["QCOW2-LEAK"]);
        }
        let codes = [
            "QCOW2-L1-RESERVED",
            "QCOW2-L1-ALIGNMENT",
            "QCOW2-L1-BEYOND-END",
        ];
        Expected::found(clause, &COUNTS).or(&codes).or_refused()
    }

    fn incompatible(&self, new: u64) -> Expected {
        let clause = "Header: incompatible_features";
        if new >> 5 != 0 {
            return Expected::refused(clause);
        }
        let own = self.plan.incompatible();
        if (new ^ own) & !3 != 0 {
            return Expected::anything(clause);
        }
        let mut codes = Vec::new();
        if new & 1 != 0 {
            codes.push("QCOW2-DIRTY");
        }
        if new & 2 != 0 {
            codes.push("QCOW2-CORRUPT");
        }
        Expected::found(clause, &codes).same()
    }

    /// Codes of a place that something has already, or that is none.
    fn place(&self, at: u64, beyond: &'static str, crooked: &'static str) -> Vec<&'static str> {
        let cluster = self.plan.cluster();
        if !at.is_multiple_of(cluster) {
            return vec![crooked];
        }
        if at >= self.end {
            return vec![beyond];
        }
        match self.things.get(&(at / cluster)) {
            None => vec!["QCOW2-REFCOUNT"],
            Some(Thing::Data | Thing::Packed) => {
                vec!["QCOW2-REFCOUNT", "QCOW2-OVERLAP-DATA", "QCOW2-OVERLAP-L2"]
            }
            Some(_) => vec![
                "QCOW2-REFCOUNT",
                "QCOW2-OVERLAP-DATA",
                "QCOW2-OVERLAP-TABLES",
                "QCOW2-OVERLAP-REFCOUNTS",
                "QCOW2-OVERLAP-L2",
            ],
        }
    }

    fn l1(&self, number: u64, change: &Change) -> Expected {
        let clause = "Cluster mapping: L1 table entry";
        let (new, old) = (change.new, self.l1[index(number)]);
        let mut codes = Vec::new();
        if new & !COPIED & !0x00ff_ffff_ffff_fe00 != 0 {
            codes.push("QCOW2-L1-RESERVED");
        }
        let (at, was) = (offset(new), offset(old));
        if at == was {
            if new & COPIED != old & COPIED {
                codes.extend(["QCOW2-COPIED-L1", "QCOW2-L1-RESERVED"]);
            }
            let found = Expected::found(clause, &codes).same();
            // Of no table the bit says nothing.
            return if at == 0 { found.or_quiet() } else { found };
        }
        if was != 0 {
            codes.push("QCOW2-LEAK");
        }
        if at != 0 {
            codes.extend(self.place(at, "QCOW2-L1-BEYOND-END", "QCOW2-L1-ALIGNMENT"));
        }
        if number >= self.plan.tables() {
            codes.push("QCOW2-LEAK");
        }
        Expected::found(clause, &codes)
    }

    fn l2(&self, cluster: u64, change: &Change) -> Expected {
        let clause = "Cluster mapping: Standard Cluster Descriptor";
        let (new, old) = (change.new, self.entries[&cluster]);
        if old & COMPRESSED != 0 {
            return self.packed(change);
        }
        if new & COMPRESSED != 0 {
            return Expected::anything("Cluster mapping: Compressed Clusters Descriptor");
        }
        if self.plan.outside {
            return self.outside(cluster, change);
        }
        let mut codes = Vec::new();
        let zero = new & 1 != 0;
        if new & 0x3f00_0000_0000_01fe != 0 || (zero && self.plan.extended) {
            codes.push("QCOW2-L2-RESERVED");
        }
        if zero && self.plan.version == 2 {
            codes.push("QCOW2-ZERO-IN-V2");
        }
        let (at, was) = (offset(new), offset(old));
        if at == was {
            let turned = new & 1 != old & 1;
            if new & COPIED != old & COPIED {
                codes.push("QCOW2-COPIED-L2");
            }
            let mut found = Expected::found(clause, &codes);
            found.same = !turned && self.plan.version != 2;
            // The bit says nothing where there is no cluster; a zero cluster is as good as any.
            found.quiet = codes.is_empty() || (at == 0 && codes == ["QCOW2-COPIED-L2"]);
            return found;
        }
        if was != 0 {
            codes.push("QCOW2-LEAK");
        }
        if at != 0 {
            codes.extend(self.place(at, "QCOW2-BEYOND-END", "QCOW2-ALIGNMENT"));
        }
        if self.plan.extended {
            codes.push("QCOW2-SUBCLUSTERS");
        }
        if was == 0 {
            // A place for later of a cluster that reads as zeros, or as the backing file, is not read.
            codes.extend(["QCOW2-ZERO-PLACE", "QCOW2-COPIED-L2"]);
        }
        Expected::found(clause, &codes)
    }

    /// An entry of an image with a data file: its offset is the guest's, and bit 63 says that there is one.
    fn outside(&self, cluster: u64, change: &Change) -> Expected {
        let clause = "Header: incompatible feature bit 2, the offset must match the guest offset";
        let new = change.new;
        let mut codes = Vec::new();
        if new & 0x3f00_0000_0000_01fe != 0 {
            codes.push("QCOW2-L2-RESERVED");
        }
        let allocated = offset(new) != 0 || new & COPIED != 0;
        if allocated && offset(new) != cluster * self.plan.cluster() {
            codes.extend(["QCOW2-DATA-OFFSET", "QCOW2-COPIED-L2", "QCOW2-L2-RESERVED"]);
        }
        // What reads as zeros needs no place.
        let lonely = offset(new) != 0 && new & COPIED == 0 || offset(new) == 0 && new & 1 != 0;
        let mut found = Expected::found(clause, &codes);
        found.quiet = codes.is_empty();
        // Clusters outside have no refcount that the bit could be held against.
        if lonely {
            found.or(&["QCOW2-COPIED-L2"]).or_quiet()
        } else {
            found
        }
    }

    /// The first bytes of a compressed cluster. Neither kind has a checksum: what unpacks is as good as any.
    fn stream(&self, bytes: &[u8]) -> Expected {
        let clause = "Cluster mapping: Compressed Clusters Descriptor";
        let found = Expected::found(clause, &["QCOW2-PACKED"]);
        let is_stream = if self.plan.zstd {
            // RFC 8878: the magic of a frame, or of one to skip.
            bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                || bytes.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
        } else {
            // RFC 1951: three types of blocks.
            bytes.first().is_some_and(|first| first & 6 != 6)
        };
        if is_stream { found.or_quiet() } else { found }
    }

    fn packed(&self, change: &Change) -> Expected {
        let clause = "Cluster mapping: Compressed Clusters Descriptor";
        if change.new == change.old ^ COPIED {
            return Expected::found(clause, &["QCOW2-PACKED-COPIED"]).same();
        }
        Expected::anything(clause)
    }

    fn bitmap(&self, cluster: u64, new: u64) -> Expected {
        let clause = "Extended L2 Entries: subcluster allocation bitmap";
        let entry = self.entries[&cluster];
        let (allocated, zeros) = (new & 0xffff_ffff, new >> 32);
        let both = allocated & zeros != 0;
        let nowhere = allocated != 0 && offset(entry) == 0;
        if both || nowhere || (entry & COMPRESSED != 0 && new != 0) {
            return Expected::found(clause, &["QCOW2-SUBCLUSTERS"]);
        }
        Expected::other(clause)
    }
}
