//! One image: header, tables, clusters, refcounts.

use super::Plan;
use super::rules::{Head, Layout, Role, Thing};
use super::snapshot;
use crate::choices::{Choices, index, len};
use crate::content::{Unit, fill, put, units};
use crate::field::{Class, Endian};
use crate::make::Maker;
use drylab_block::{ReadAt, SparseBytes, WriteAt};
use std::collections::{BTreeMap, BTreeSet};

/// Bit 63 of entries: the cluster has one reference.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62 of L2 entries: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;

/// A cluster of the disk and what becomes of it.
struct Cluster {
    number: u64,
    bytes: Vec<u8>,
    packed: Option<Vec<u8>>,
}

/// Compresses clusters. The state of zlib is large, so that it is made once for an image, and only where one needs it.
#[derive(Default)]
struct Packer(Option<flate2::Compress>);

impl Packer {
    /// The cluster compressed, if that makes it shorter.
    fn pack(&mut self, plan: &Plan, bytes: &[u8]) -> Option<Vec<u8>> {
        let packed = if plan.zstd {
            zstd::bulk::compress(bytes, 1).expect("memory is compressed")
        } else {
            self.deflate(bytes)
        };
        (packed.len() < bytes.len()).then_some(packed)
    }

    fn deflate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let new = || flate2::Compress::new(flate2::Compression::fast(), false);
        let zlib = self.0.get_or_insert_with(new);
        // Room for all of it: zlib-rs 0.6.8 panics when a stream that did not end is begun anew (`Pending::reset_keep`
        // leaves `out` as it was).
        let mut packed = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 64);
        zlib.reset();
        let end = zlib.compress_vec(bytes, &mut packed, flate2::FlushCompress::Finish);
        assert_eq!(end.ok(), Some(flate2::Status::StreamEnd));
        packed
    }
}

/// Where tables are that the header names: entries and offset, offset and clusters, offset or none.
struct Tables {
    l1: (u64, u64),
    refcounts: (u64, u64),
    snapshots: u64,
}

/// Hands out clusters of the file, in an order that is drawn, and remembers what each is for.
pub(super) struct Room {
    free: Vec<u64>,
    things: BTreeMap<u64, Thing>,
}

impl Room {
    fn take(&mut self, thing: Thing) -> u64 {
        let cluster = self.free.pop().expect("as many were counted");
        self.things.insert(cluster, thing);
        cluster
    }

    /// So many clusters in a row, which are those at the end of all.
    pub(super) fn row(&mut self, first: u64, count: u64, thing: Thing) -> u64 {
        for cluster in first..first + count {
            self.things.insert(cluster, thing);
        }
        first
    }
}

/// Draws what stands on the disk.
fn clusters(
    choices: &mut impl Choices,
    plan: &Plan,
    disk: &SparseBytes,
) -> (Vec<Cluster>, Vec<Unit>) {
    let cluster = plan.cluster();
    let zeros = plan.version == 3;
    let what = units(choices, plan.clusters(), zeros);
    let mut all = Vec::new();
    let mut packer = Packer::default();
    for (number, unit) in (0u64..).zip(&what) {
        let start = number * cluster;
        let inside = cluster.min(plan.size - start);
        if *unit == Unit::Absent {
            continue;
        }
        put(disk, start, &vec![0; index(inside)]);
        if *unit == Unit::Zero {
            continue;
        }
        let here = SparseBytes::new(cluster);
        for (at, bytes) in fill(choices, inside, 1 << 14) {
            put(&here, at, &bytes);
        }
        let mut bytes = vec![0; index(cluster)];
        here.read_at(0, &mut bytes).expect("inside the cluster");
        put(disk, start, &bytes[..index(inside)]);
        let pack = choices.one_in(3) && !plan.outside;
        let packed = if pack {
            packer.pack(plan, &bytes)
        } else {
            None
        };
        all.push(Cluster {
            number,
            bytes,
            packed,
        });
    }
    (all, what)
}

/// Makes an image.
pub(super) fn file(
    choices: &mut impl Choices,
    plan: &Plan,
    base: Option<&SparseBytes>,
) -> (Maker<Role>, Layout, SparseBytes) {
    let cluster = plan.cluster();
    let disk = SparseBytes::new(plan.size);
    if let Some(base) = base {
        let length = base.len().min(plan.size);
        let mut bytes = vec![0; index(length)];
        base.read_at(0, &mut bytes).expect("inside the file");
        put(&disk, 0, &bytes);
    }
    let (stored, what) = clusters(choices, plan, &disk);
    disk.set_len(plan.size).expect("memory has any length");
    let mut maker = Maker::new(0, Endian::Big);
    // An L1 table may have more entries than the disk needs.
    let spare = if choices.one_in(3) {
        choices.below(5)
    } else {
        0
    };
    let l1_size = plan.tables() + spare;
    let l1_clusters = (l1_size * 8).div_ceil(cluster).max(1);
    let used: Vec<u64> = (0..plan.tables())
        .filter(|table| {
            let first = index(table * plan.entries());
            let own = what.iter().skip(first).take(index(plan.entries()));
            own.clone().any(|unit| *unit != Unit::Absent)
        })
        .collect();
    let inside = |item: &&Cluster| item.packed.is_none() && !plan.outside;
    let plain = stored.iter().filter(inside).count();
    let pile: u64 = stored
        .iter()
        .filter_map(|c| c.packed.as_ref())
        .map(|p| len(p) + 600)
        .sum();
    let pile = pile.div_ceil(cluster) + u64::from(pile > 0);
    let scattered = len(&used) + u64::try_from(plain).expect("few clusters");
    let gaps = choices.below(4);
    // Header, L1 and compressed clusters in rows; then whatever may stand anywhere; then refcounts.
    let l1_at = 1;
    let pile_at = l1_at + l1_clusters;
    let first = pile_at + pile;
    let mut free: Vec<u64> = (first..first + scattered + gaps).collect();
    if choices.one_in(2) {
        choices.shuffle(&mut free);
    } else {
        free.reverse();
    }
    let mut room = Room {
        free,
        things: BTreeMap::new(),
    };
    room.row(0, 1, Thing::Header);
    // A disk without bytes has no L1 table; its cluster is free.
    if l1_size > 0 {
        room.row(l1_at, l1_clusters, Thing::L1);
    }
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    let mut entries: BTreeMap<u64, u64> = BTreeMap::new();
    let mut at = pile_at * cluster;
    for item in &stored {
        if plan.outside {
            entries.insert(item.number, (item.number * cluster) | COPIED);
            continue;
        }
        let Some(packed) = &item.packed else {
            let host = room.take(Thing::Data);
            maker.put(host * cluster, &item.bytes);
            maker.set_len(maker.end().max((host + 1) * cluster));
            let name = format!("cluster[{}].data", item.number);
            let place = (host * cluster, 8);
            maker.note(name, place, Endian::Bytes, Class::Data, Role::Data);
            entries.insert(item.number, (host * cluster) | plan.copied());
            continue;
        };
        at += choices.pick(&[0u64, 3, 512]);
        maker.put(at, packed);
        let name = format!("packed[{}].data", item.number);
        maker.note(
            name,
            (at, packed.len().min(8)),
            Endian::Bytes,
            Class::Data,
            Role::Packed,
        );
        let end = at + len(packed);
        let sectors = (end - 1) / 512 - at / 512;
        let shift = 62 - (plan.cluster_bits - 8);
        entries.insert(item.number, COMPRESSED | sectors << shift | at);
        // Sectors are whole: the last may reach behind the data.
        let last = (at / 512 + sectors) * 512;
        for host in at / cluster..=last / cluster {
            *counts.entry(host).or_default() += 1;
            room.things.insert(host, Thing::Packed);
        }
        at = end;
    }
    let mut l1 = vec![0u64; index(l1_size)];
    let mut tables = BTreeMap::new();
    for table in used {
        let host = room.take(Thing::L2);
        l1[index(table)] = (host * cluster) | plan.copied();
        tables.insert(table, host * cluster);
    }
    let end = maker
        .end()
        .max((first + scattered + gaps) * cluster)
        .next_multiple_of(cluster);
    maker.set_len(end);
    for (number, entry) in (0u64..).zip(&l1) {
        let place = (l1_at * cluster + 8 * number, 8);
        maker.number(
            format!("l1[{number}]"),
            place,
            *entry,
            Class::Entry,
            Role::L1(number),
        );
    }
    let mut layout = Layout {
        roles: Vec::new(),
        plan: plan.clone(),
        l1: l1.clone(),
        l1_size,
        l1_room: if l1_size > 0 {
            l1_clusters * cluster / 8
        } else {
            0
        },
        entries: BTreeMap::new(),
        things: BTreeMap::new(),
        end: 0,
    };
    for (table, place) in &tables {
        table_fields(&mut maker, &mut layout, (*table, *place), (&entries, &what));
    }
    let mut shared = BTreeSet::new();
    let snapshots = if plan.snapshot {
        // It was just made, so that everything is its own as well.
        let twice = |(_, thing): &(&u64, &Thing)| matches!(thing, Thing::L2 | Thing::Data);
        shared.extend(room.things.iter().filter(twice).map(|(host, _)| *host));
        counts.values_mut().for_each(|count| *count *= 2);
        snapshot::put(choices, &mut maker, plan, &mut room, &l1)
    } else {
        0
    };
    let refcounts = refcounts(&mut maker, plan, &mut room, (&mut counts, &shared));
    let tables = Tables {
        l1: (l1_size, l1_at * cluster),
        refcounts,
        snapshots,
    };
    header(choices, &mut maker, plan, &tables);
    layout.things = room.things;
    layout.end = maker.end();
    (maker, layout, disk)
}

/// The entries of an L2 table: those that are something, and some that are nothing.
fn table_fields(
    maker: &mut Maker<Role>,
    layout: &mut Layout,
    (table, at): (u64, u64),
    (entries, what): (&BTreeMap<u64, u64>, &[Unit]),
) {
    let plan = layout.plan.clone();
    for number in 0..plan.entries() {
        let cluster = table * plan.entries() + number;
        let unit = usize::try_from(cluster)
            .ok()
            .and_then(|at| what.get(at))
            .copied();
        let Some(unit) = unit else { break };
        let entry = entries.get(&cluster).copied().unwrap_or(0);
        let zero = unit == Unit::Zero;
        let entry = if zero && !plan.extended { 1 } else { entry };
        let role = Role::L2(cluster);
        let place = at + number * plan.entry_bytes();
        let name = format!("l2[{table}][{number}]");
        maker.number(&name, (place, 8), entry, Class::Entry, role);
        layout.entries.insert(cluster, entry);
        if plan.extended {
            let all = u64::from(u32::MAX);
            // Of a stored cluster all subclusters are there; of a zero one all are zero.
            let bitmap = match unit {
                Unit::Zero => all << 32,
                Unit::Stored if entry & COMPRESSED == 0 => all,
                _ => 0,
            };
            let role = Role::Bitmap(cluster);
            maker.number(
                format!("{name}.bitmap"),
                (place + 8, 8),
                bitmap,
                Class::Flags,
                role,
            );
        }
    }
}

/// The refcount structures, behind everything; the answer is where the table stands and how many clusters it has.
fn refcounts(
    maker: &mut Maker<Role>,
    plan: &Plan,
    room: &mut Room,
    (counts, shared): (&mut BTreeMap<u64, u64>, &BTreeSet<u64>),
) -> (u64, u64) {
    let cluster = plan.cluster();
    let first = maker.end() / cluster;
    let per_block = (cluster * 8) >> plan.refcount_order;
    // As many blocks as describe everything, themselves and the table too.
    let (mut blocks, mut table) = (1u64, 1u64);
    loop {
        let all = first + blocks + table;
        let (more, wide) = (
            all.div_ceil(per_block),
            (all.div_ceil(per_block) * 8).div_ceil(cluster),
        );
        if (more, wide) == (blocks, table) || (more <= blocks && wide <= table) {
            break;
        }
        (blocks, table) = (more.max(blocks), wide.max(table));
    }
    room.row(first, table, Thing::RefcountTable);
    room.row(first + table, blocks, Thing::RefcountBlock);
    let end = first + table + blocks;
    maker.set_len(end * cluster);
    for (host, thing) in &room.things {
        if *thing != Thing::Packed {
            counts.insert(*host, 1 + u64::from(shared.contains(host)));
        }
    }
    for block in 0..blocks {
        let at = (first + table + block) * cluster;
        let place = (first * cluster + 8 * block, 8);
        let role = Role::RefcountTable;
        maker.number(
            format!("refcountTable[{block}]"),
            place,
            at,
            Class::Entry,
            role,
        );
    }
    let width = 1u64 << plan.refcount_order >> 3;
    for host in 0..end {
        let count = counts.get(&host).copied().unwrap_or(0);
        let at = (first + table + host / per_block) * cluster + host % per_block * width;
        let role = Role::Refcount;
        maker.number(
            format!("refcount[{host}]"),
            (at, index(width)),
            count,
            Class::Count,
            role,
        );
    }
    (first * cluster, table)
}

fn header(choices: &mut impl Choices, maker: &mut Maker<Role>, plan: &Plan, tables: &Tables) {
    let (l1_size, l1_at) = tables.l1;
    let (refcounts_at, refcounts) = tables.refcounts;
    let name = plan.backing.unwrap_or("");
    maker.text(
        "header.magic",
        0,
        b"QFI\xfb",
        Class::Magic,
        Role::Header(Head::Magic),
    );
    let mut fields = vec![
        ("version", 4, 4, plan.version, Class::Version, Head::Version),
        (
            "backing_file_size",
            16,
            4,
            len(name.as_bytes()),
            Class::Size,
            Head::Backing,
        ),
        (
            "cluster_bits",
            20,
            4,
            u64::from(plan.cluster_bits),
            Class::Size,
            Head::ClusterBits,
        ),
        ("size", 24, 8, plan.size, Class::Size, Head::Size),
        ("crypt_method", 32, 4, 0, Class::State, Head::Crypt),
        ("l1_size", 36, 4, l1_size, Class::Count, Head::L1Size),
        (
            "l1_table_offset",
            40,
            8,
            l1_at,
            Class::Place,
            Head::L1Offset,
        ),
        (
            "refcount_table_offset",
            48,
            8,
            refcounts_at,
            Class::Place,
            Head::RefcountsOffset,
        ),
        (
            "refcount_table_clusters",
            56,
            4,
            refcounts,
            Class::Count,
            Head::RefcountsCount,
        ),
        (
            "nb_snapshots",
            60,
            4,
            u64::from(plan.snapshot),
            Class::Count,
            Head::Snapshots,
        ),
        (
            "snapshots_offset",
            64,
            8,
            tables.snapshots,
            Class::Place,
            Head::SnapshotsOffset,
        ),
    ];
    let mut end = 72;
    if plan.version == 3 {
        let incompatible = plan.incompatible();
        let raw = u64::from(plan.outside && choices.one_in(2)) << 1;
        fields.extend([
            (
                "incompatible_features",
                72,
                8,
                incompatible,
                Class::Flags,
                Head::Incompatible,
            ),
            (
                "compatible_features",
                80,
                8,
                choices.below(2),
                Class::Flags,
                Head::Idle,
            ),
            (
                "autoclear_features",
                88,
                8,
                raw,
                Class::Flags,
                Head::Autoclear,
            ),
            (
                "refcount_order",
                96,
                4,
                u64::from(plan.refcount_order),
                Class::Size,
                Head::RefcountOrder,
            ),
            ("header_length", 100, 4, 112, Class::Size, Head::Length),
            (
                "compression_type",
                104,
                1,
                u64::from(plan.zstd),
                Class::State,
                Head::Compression,
            ),
        ]);
        end = 112;
    }
    let mut extensions: Vec<(u32, Vec<u8>)> = Vec::new();
    if plan.backing.is_some() {
        extensions.push((0xe279_2aca, b"raw".to_vec()));
    }
    if plan.outside {
        extensions.push((0x4441_5441, super::DATA_FILE.as_bytes().to_vec()));
    }
    if choices.one_in(3) {
        extensions.push((0x5bec_1001, b"not known to anyone".to_vec()));
    }
    for (number, (kind, data)) in (0u64..).zip(&extensions) {
        let name = |field: &str| format!("extension[{number}].{field}");
        let role = Role::Header(Head::Extension);
        maker.number(name("type"), (end, 4), u64::from(*kind), Class::State, role);
        maker.number(name("length"), (end + 4, 4), len(data), Class::Size, role);
        maker.put(end + 8, data);
        end += 8 + len(data).next_multiple_of(8);
    }
    maker.put(end, &[0; 8]);
    let backing = if plan.backing.is_some() { end + 8 } else { 0 };
    maker.put(end + 8, name.as_bytes());
    fields.push((
        "backing_file_offset",
        8,
        8,
        backing,
        Class::Place,
        Head::Backing,
    ));
    for (name, at, width, value, class, what) in fields {
        maker.number(
            format!("header.{name}"),
            (at, width),
            value,
            class,
            Role::Header(what),
        );
    }
}
