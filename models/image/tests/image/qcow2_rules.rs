//! Every rule of qcow2 broken by hand, found by its code, and mended where it can be.

use crate::common::{assert_same, packed};
use crate::qcow2::sparse;
use crate::qcow2_layers::Files;
use crate::qcow2_repair::{crash_safe, passes_qemu_img};
use drylab_block::{Limits, ReadAt, SparseBytes, WriteAt, be_u32, be_u64};
use drylab_image::{
    Image, Qcow2Compression, Qcow2DataFile, Qcow2Layers, Qcow2Options, Qcow2Version, Repair,
    Target, Work, write_qcow2_layers,
};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) const CLUSTER: u64 = 65_536;
pub(crate) const SIZE: u64 = 3 << 20;

pub(crate) fn word(file: &SparseBytes, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_at(at, &mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}

pub(crate) fn put(file: &SparseBytes, at: u64, value: u64) {
    file.write_at(at, &value.to_be_bytes()).unwrap();
}

pub(crate) fn put32(file: &SparseBytes, at: u64, value: u32) {
    file.write_at(at, &value.to_be_bytes()).unwrap();
}

/// First L2 table and, in it, the first entry; refcount table and first block.
pub(crate) struct Places {
    pub(crate) l2: u64,
    pub(crate) refcounts: u64,
    block: u64,
}

pub(crate) fn places(file: &SparseBytes) -> Places {
    let mut head = [0; 104];
    file.read_at(0, &mut head).unwrap();
    let refcounts = be_u64(&head, 48).unwrap();
    assert_eq!(be_u32(&head, 20), Some(16));
    Places {
        l2: word(file, CLUSTER) & !(1 << 63),
        refcounts,
        block: word(file, refcounts),
    }
}

pub(crate) fn refcount(file: &SparseBytes, cluster: u64, value: u16) {
    let at = places(file).block + cluster * 2;
    file.write_at(at, &value.to_be_bytes()).unwrap();
}

#[derive(Clone, Copy)]
pub(crate) enum Made {
    V3,
    V2,
    Packed,
    Extended,
    Outside,
}

pub(crate) fn made(kind: Made) -> SparseBytes {
    let disk = sparse(SIZE).disk();
    let plain = Qcow2Layers::default();
    let other = SparseBytes::default();
    let layers = match kind {
        Made::V3 => plain,
        Made::V2 => Qcow2Layers {
            version: Qcow2Version::V2,
            ..plain
        },
        Made::Packed => Qcow2Layers {
            compression: Some((Qcow2Compression::Zlib, 6)),
            ..plain
        },
        Made::Extended => Qcow2Layers {
            extended_l2: true,
            ..plain
        },
        Made::Outside => Qcow2Layers {
            data_file: Some(Qcow2DataFile {
                sink: &other,
                name: "data",
                raw: false,
            }),
            ..plain
        },
    };
    let file = SparseBytes::default();
    write_qcow2_layers(&disk, &layers, &file, &Work::ALONE).unwrap();
    file
}

fn data() -> SparseBytes {
    let (data, file) = (SparseBytes::default(), SparseBytes::default());
    let data_file = Some(Qcow2DataFile {
        sink: &data,
        name: "data",
        raw: false,
    });
    let layers = Qcow2Layers {
        data_file,
        ..Qcow2Layers::default()
    };
    write_qcow2_layers(&sparse(SIZE).disk(), &layers, &file, &Work::ALONE).unwrap();
    data
}

pub(crate) fn open(file: &Arc<SparseBytes>) -> Image {
    let files = Files([("data", Arc::new(data()) as Arc<dyn ReadAt>)].into());
    drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap()
}

/// A snapshot of the active state: a copy of the L1 table and an entry; refcounts are as they were.
pub(crate) fn add_snapshot(file: &SparseBytes) -> u64 {
    let end = file.len();
    let mut l1 = vec![0; 8];
    file.read_at(CLUSTER, &mut l1).unwrap();
    file.write_at(end + CLUSTER, &l1).unwrap();
    let mut entry = (end + CLUSTER).to_be_bytes().to_vec();
    entry.extend(1u32.to_be_bytes());
    entry.extend([0, 1, 0, 4]);
    entry.extend([0; 20]);
    entry.extend(16u32.to_be_bytes());
    entry.extend([0; 8]);
    entry.extend(SIZE.to_be_bytes());
    entry.extend(b"1name");
    file.write_at(end, &entry).unwrap();
    file.set_len(end + 2 * CLUSTER).unwrap();
    put32(file, 60, 1);
    put(file, 64, end);
    end
}

/// A bitmap in consistent state: extension, directory, table, one cluster.
fn add_bitmap(file: &SparseBytes) -> u64 {
    let end = file.len();
    let mut extension = vec![0x23, 0x85, 0x28, 0x75, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 0];
    extension.extend(32u64.to_be_bytes());
    extension.extend(end.to_be_bytes());
    file.write_at(104, &extension).unwrap();
    put(file, 88, 1);
    let mut entry = (end + CLUSTER).to_be_bytes().to_vec();
    entry.extend(1u32.to_be_bytes());
    entry.extend([0, 0, 0, 2, 1, 16, 0, 3, 0, 0, 0, 0]);
    entry.extend(b"dot");
    file.write_at(end, &entry).unwrap();
    put(file, end + CLUSTER, end + 2 * CLUSTER);
    file.write_at(end + 2 * CLUSTER, &[0xff; 6]).unwrap();
    file.set_len(end + 3 * CLUSTER).unwrap();
    for cluster in 0..3 {
        refcount(file, end / CLUSTER + cluster, 1);
    }
    end
}

type Broken = (&'static str, Made, fn(&SparseBytes));

const BROKEN: &[Broken] = &[
    ("QCOW2-DIRTY", Made::V3, |file| put(file, 72, 1)),
    ("QCOW2-CORRUPT", Made::V3, |file| put(file, 72, 2)),
    ("QCOW2-SNAPSHOTS", Made::V3, |file| {
        add_snapshot(file);
    }),
    ("QCOW2-SNAPSHOT", Made::V3, |file| {
        let table = add_snapshot(file);
        put(file, table, 1 << 40);
    }),
    ("QCOW2-REFCOUNT-TABLE", Made::V3, |file| {
        put(file, 48, 1 << 40)
    }),
    ("QCOW2-REFCOUNT-ALIGNMENT", Made::V3, |file| {
        put(file, 48, places(file).refcounts + 512)
    }),
    ("QCOW2-REFCOUNT-ALIGNMENT", Made::V2, |file| {
        put(file, 48, 1)
    }),
    ("QCOW2-REFCOUNT-ALIGNMENT", Made::Outside, |file| {
        put(file, 48, 1 << 56)
    }),
    ("QCOW2-REFCOUNT-ORDER", Made::V3, |file| put32(file, 96, 7)),
    ("QCOW2-REFCOUNT-ORDER", Made::Extended, |file| {
        put32(file, 96, u32::MAX);
        put(file, 72, word(file, 72) | 3);
    }),
    ("QCOW2-REFCOUNT-BLOCK", Made::V3, |file| {
        let places = places(file);
        put(file, places.refcounts, places.block + 1);
    }),
    ("QCOW2-REFCOUNT", Made::V3, |file| refcount(file, 2, 0)),
    ("QCOW2-REFCOUNT", Made::V2, |file| {
        add_snapshot(file);
    }),
    ("QCOW2-LEAK", Made::V3, |file| refcount(file, 2, 3)),
    ("QCOW2-COPIED-L1", Made::V3, |file| {
        put(file, CLUSTER, word(file, CLUSTER) & !(1 << 63))
    }),
    ("QCOW2-COPIED-L2", Made::V3, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) & !(1 << 63));
    }),
    ("QCOW2-COPIED-L2", Made::Outside, |file| {
        let at = places(file).l2 + 8;
        put(file, at, word(file, at) & !(1 << 63));
    }),
    ("QCOW2-L1-RESERVED", Made::V3, |file| {
        put(file, CLUSTER, word(file, CLUSTER) | 1)
    }),
    ("QCOW2-L1-ALIGNMENT", Made::V3, |file| {
        put(file, CLUSTER, word(file, CLUSTER) + 512)
    }),
    ("QCOW2-L1-BEYOND-END", Made::V3, |file| {
        put(file, CLUSTER, 1 << 40)
    }),
    ("QCOW2-L2-RESERVED", Made::V3, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) | 2);
    }),
    ("QCOW2-ZERO-PLACE", Made::V3, |file| {
        put(file, places(file).l2 + 8 * 8, 1 | 1 << 40)
    }),
    ("QCOW2-BACKING-OFFSET", Made::V3, |file| {
        put(file, 8, 1 << 20)
    }),
    // Behind the entries that describe the clusters of the file.
    ("QCOW2-REFCOUNT-BLOCK", Made::V3, |file| {
        put(file, places(file).refcounts + 8, 1 << 32)
    }),
    ("QCOW2-ZERO-IN-V2", Made::V2, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) | 1);
    }),
    ("QCOW2-ALIGNMENT", Made::V3, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) + 512);
    }),
    ("QCOW2-BEYOND-END", Made::V3, |file| {
        put(file, places(file).l2, 1 << 63 | 1 << 40)
    }),
    ("QCOW2-CUT", Made::V3, |file| {
        let end = file.len();
        file.set_len(end + 1000).unwrap();
        put(file, places(file).l2, 1 << 63 | end);
        refcount(file, end / CLUSTER, 1);
    }),
    ("QCOW2-PACKED", Made::Packed, |file| {
        let at = word(file, places(file).l2) & 0xff_ffff_ffff;
        file.write_at(at, &[0xff; 64]).unwrap();
    }),
    ("QCOW2-PACKED-BEYOND-END", Made::Packed, |file| {
        put(file, places(file).l2, 1 << 62 | 1 << 40)
    }),
    ("QCOW2-PACKED-COPIED", Made::Packed, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) | 1 << 63);
    }),
    ("QCOW2-PACKED-OUTSIDE", Made::Outside, |file| {
        put(file, places(file).l2, 1 << 62 | CLUSTER)
    }),
    ("QCOW2-SUBCLUSTERS", Made::Extended, |file| {
        let at = places(file).l2 + 8;
        put(file, at, word(file, at) | 1 << 32);
    }),
    ("QCOW2-SUBCLUSTERS", Made::Extended, |file| {
        put(file, places(file).l2, 0)
    }),
    // Without a place, some zero and some of them allocated, too.
    ("QCOW2-SUBCLUSTERS", Made::Extended, |file| {
        let at = places(file).l2;
        put(file, at, 0);
        put(file, at + 8, 0b0011 << 32 | 0b0110);
    }),
    ("QCOW2-DATA-OFFSET", Made::Outside, |file| {
        let at = places(file).l2;
        put(file, at, word(file, at) + CLUSTER);
    }),
    ("QCOW2-OVERLAP-DATA", Made::V3, |file| {
        put(file, places(file).l2, 1 << 63 | CLUSTER)
    }),
    ("QCOW2-OVERLAP-DATA", Made::Extended, |file| {
        let places = places(file);
        put(file, places.l2, 1 << 63 | places.l2);
    }),
    ("QCOW2-OVERLAP-DATA", Made::V3, |file| {
        let places = places(file);
        put(file, places.l2, 1 << 63 | places.block);
    }),
    ("QCOW2-OVERLAP-DATA", Made::Packed, |file| {
        let places = places(file);
        put(file, places.l2, 1 << 62 | (places.refcounts + 700));
    }),
    ("QCOW2-OVERLAP-REFCOUNTS", Made::V3, |file| {
        let places = places(file);
        put(file, places.refcounts, places.l2);
    }),
    ("QCOW2-OVERLAP-L2", Made::V3, |file| {
        let bitmap = add_bitmap(file) + 2 * CLUSTER;
        put(file, bitmap, 0);
        put(file, CLUSTER, 1 << 63 | bitmap);
    }),
    ("QCOW2-OVERLAP-TABLES", Made::V3, |file| put(file, 40, 0)),
    ("QCOW2-TABLE-BEYOND-END", Made::V3, |file| {
        put32(file, 36, 1 << 20)
    }),
    ("QCOW2-BITMAPS", Made::V3, |file| {
        add_bitmap(file);
    }),
    ("QCOW2-BITMAPS-STALE", Made::V3, |file| {
        add_bitmap(file);
        put(file, 88, 0);
    }),
    ("QCOW2-BITMAP", Made::V3, |file| {
        let directory = add_bitmap(file);
        put(file, directory, 1 << 40);
    }),
    ("QCOW2-BITMAP", Made::V3, |file| {
        let directory = add_bitmap(file);
        put(file, directory + CLUSTER, 1 << 40);
    }),
    ("QCOW2-BITMAP", Made::V3, |file| {
        add_bitmap(file);
        put(file, 104 + 8 + 8, 4096);
    }),
    ("QCOW2-DATA-FILE-NAME", Made::V3, |file| {
        file.write_at(104, b"DATA\0\0\0\x01x").unwrap();
    }),
    ("QCOW2-RAW-EXTERNAL", Made::V3, |file| put(file, 88, 2)),
    ("QCOW2-AUTOCLEAR", Made::V3, |file| put(file, 88, 0x80)),
    ("QCOW2-EXTENSION", Made::V3, |file| {
        file.write_at(104, &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xf0])
            .unwrap();
    }),
    ("QCOW2-EXTENSION", Made::V3, |file| put(file, 88, 1)),
    ("QCOW2-UNKNOWN-EXTENSION", Made::V3, |file| {
        file.write_at(104, &[0x77, 0, 0, 9, 0, 0, 0, 3, 1, 2, 3])
            .unwrap();
    }),
];

#[test]
fn every_rule_that_is_broken_is_found_by_its_code_and_mended_where_it_can_be() {
    for (code, kind, breaks) in BROKEN {
        let file = made(*kind);
        let clean = open(&Arc::new(made(*kind))).check().unwrap();
        assert!(clean.is_empty(), "{:?}", clean.list());
        breaks(&file);
        let file = Arc::new(file);
        let image = open(&file);
        let found = image.check().unwrap();
        let codes: Vec<_> = found
            .list()
            .iter()
            .map(|finding| finding.rule.code)
            .collect();
        assert!(codes.contains(code), "{code}: {codes:?}");
        let mendable = found
            .list()
            .iter()
            .any(|finding| finding.rule.repair != Repair::No);
        match image.repair() {
            Ok(plan) => {
                assert_eq!(
                    plan.is_empty(),
                    !mendable,
                    "{code}: {codes:?} {:?}",
                    plan.edits()
                );
                let files = Files([("data", Arc::new(data()) as Arc<dyn ReadAt>)].into());
                let lossy = found
                    .list()
                    .iter()
                    .any(|finding| finding.rule.repair == Repair::Lossy);
                let mended = crash_safe(&file, &plan, &files, lossy);
                let left = open(&mended).check().unwrap();
                let left = left
                    .list()
                    .iter()
                    .find(|finding| finding.rule.repair != Repair::No);
                assert!(left.is_none(), "{code}: {left:?}");
                if mendable && !matches!(kind, Made::Outside) {
                    passes_qemu_img(&mended, code);
                }
            }
            Err(error) => {
                let words = [
                    "snapshot table is damaged",
                    "none can be moved",
                    "passes the end",
                ];
                assert!(
                    words.iter().any(|word| error.to_string().contains(word)),
                    "{code}: {error}"
                );
                assert!(
                    [
                        "QCOW2-SNAPSHOT",
                        "QCOW2-OVERLAP-TABLES",
                        "QCOW2-TABLE-BEYOND-END"
                    ]
                    .contains(code),
                    "{code}: {error}"
                );
            }
        }
    }
    let broken: BTreeSet<&str> = BROKEN.iter().map(|(code, ..)| *code).collect();
    let all = drylab_image::rules().into_iter().map(|rule| rule.code);
    let missing: Vec<&str> = all
        .filter(|code| code.starts_with("QCOW2-") && !broken.contains(code))
        // Broken among the images that stand on others, those of many compressed clusters, and those with a data file.
        .filter(|code| {
            let elsewhere = [
                "QCOW2-BACKING-FORMAT",
                "QCOW2-PACKED-LEFT",
                "QCOW2-TABLES-LEFT",
            ];
            !elsewhere.contains(code)
        })
        .collect();
    assert_eq!(missing, [] as [&str; 0]);
}

#[test]
fn a_snapshot_that_nothing_counted_keeps_its_bytes_through_a_repair() {
    let disk = sparse(SIZE).disk();
    let file = Arc::new(made(Made::V3));
    add_snapshot(&file);
    let plan = open(&file).repair().unwrap();
    plan.apply(&*file).unwrap();
    let found = open(&file).check().unwrap();
    assert!(
        found
            .list()
            .iter()
            .all(|finding| finding.rule.code == "QCOW2-SNAPSHOTS")
    );
    let options = drylab_image::Options {
        snapshot: Some("name"),
        ..drylab_image::Options::DEFAULT
    };
    assert_same(&disk, &drylab_image::open_as(file, &options).unwrap());
}

#[test]
fn refcounts_too_narrow_for_a_snapshot_are_made_wider() {
    let layers = Qcow2Layers {
        refcount_order: 0,
        ..Qcow2Layers::default()
    };
    let file = Arc::new(SparseBytes::default());
    write_qcow2_layers(&sparse(SIZE).disk(), &layers, &*file, &Work::ALONE).unwrap();
    add_snapshot(&file);
    let plan = open(&file).repair().unwrap();
    let mended = crash_safe(&file, &plan, &Files::default(), false);
    assert_eq!(
        open(&mended).info().detail("header.refcount_order"),
        Some("1")
    );
    passes_qemu_img(&mended, "wider");
}

#[test]
fn what_is_dropped_shows_nothing_of_a_backing_file() {
    let base: Arc<dyn ReadAt> = Arc::new(vec![7u8; SIZE as usize]);
    let beyond = (1 << 63 | 1 << 40, "QCOW2-BEYOND-END");
    let nowhere = (0, "QCOW2-SUBCLUSTERS");
    for (extended_l2, (entry, code)) in [(false, beyond), (true, beyond), (true, nowhere)] {
        let backing = Some(drylab_image::Qcow2Backing {
            disk: &*base,
            name: "base",
            format: "raw",
        });
        let layers = Qcow2Layers {
            backing,
            extended_l2,
            ..Qcow2Layers::default()
        };
        let file = Arc::new(SparseBytes::default());
        write_qcow2_layers(&sparse(SIZE).disk(), &layers, &*file, &Work::ALONE).unwrap();
        put(&file, places(&file).l2, entry);
        let files = Files([("base", base.clone())].into());
        let image = drylab_image::open_with(file.clone(), &files, &Limits::DEFAULT).unwrap();
        let plan = image.repair().unwrap();
        assert!(plan.notes().iter().any(|note| note.contains(code)));
        plan.apply(&*file).unwrap();
        let image = drylab_image::open_with(file, &files, &Limits::DEFAULT).unwrap();
        let mut bytes = [1; 512];
        image.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 512]);
    }
}

#[test]
fn a_strict_opening_refuses_what_a_lenient_one_notes() {
    let file = packed(
        &sparse(SIZE).disk(),
        &Target::Qcow2(Qcow2Options::default()),
    );
    put(&file, 72, 2);
    let strict = drylab_image::Options {
        damage: drylab_image::Damage::Refuse,
        ..drylab_image::Options::DEFAULT
    };
    let error = drylab_image::open_as(file.clone(), &strict).unwrap_err();
    assert!(error.to_string().contains("QCOW2-CORRUPT"), "{error}");
    assert_same(&sparse(SIZE).disk(), &open(&file));
}

/// Counts the bytes that are read.
struct Counting(Arc<SparseBytes>, std::sync::atomic::AtomicU64);

impl ReadAt for Counting {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> drylab_block::Result<()> {
        let length = buffer.len() as u64;
        self.1
            .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
}

/// A table of a mebibyte behind the file, every entry of which names the one L2 table.
fn add_long_l1(file: &SparseBytes) -> u64 {
    let (at, entry) = (file.len(), word(file, CLUSTER) & !(1 << 63));
    file.write_at(at, &entry.to_be_bytes().repeat(1 << 17))
        .unwrap();
    at
}

#[test]
fn a_check_of_tables_that_name_one_another_over_and_over_reads_four_times_the_file_at_most() {
    type Case = (&'static str, fn(&SparseBytes));
    let cases: [Case; 4] = [
        ("", |_| ()),
        ("QCOW2-REFCOUNT", |file| {
            let at = add_long_l1(file);
            put(file, 40, at);
            put32(file, 36, 1 << 17);
        }),
        ("QCOW2-OVERLAP-TABLES", |file| {
            let at = add_long_l1(file);
            let table = file.len();
            let mut entry = at.to_be_bytes().to_vec();
            entry.extend((1u32 << 17).to_be_bytes());
            entry.extend([0; 24]);
            entry.extend(16u32.to_be_bytes());
            entry.extend([0; 16]);
            file.write_at(table, &entry[..56].repeat(5000)).unwrap();
            put(file, 64, table);
            put32(file, 60, 5000);
        }),
        ("QCOW2-BITMAP", |file| {
            let directory = add_bitmap(file);
            let mut entry = vec![0; 32];
            file.read_at(directory, &mut entry).unwrap();
            let more = file.len();
            entry[8..12].copy_from_slice(&4096u32.to_be_bytes());
            file.write_at(more, &entry.repeat(65_535)).unwrap();
            put32(file, 104 + 8, 65_535);
            put(file, 104 + 16, 32 * 65_535);
            put(file, 104 + 24, more);
        }),
    ];
    for (code, breaks) in cases {
        let file = made(Made::V3);
        breaks(&file);
        let source = Arc::new(Counting(Arc::new(file), 0.into()));
        let image = drylab_image::open(source.clone(), &Limits::DEFAULT).unwrap();
        let found = image.check().unwrap();
        assert!(
            code.is_empty() || found.counts().contains_key(code),
            "{code}: {:?}",
            found.counts()
        );
        let read = source.1.load(std::sync::atomic::Ordering::Relaxed);
        assert!(
            read <= 4 * source.len(),
            "{code}: {read} of {}",
            source.len()
        );
    }
}
