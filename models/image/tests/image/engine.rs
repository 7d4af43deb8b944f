//! The engine: the same file whoever works on it, nothing read or written needlessly, the first error told.

use crate::common::{Kind, OnDisk, Piece, Plan, assert_same, fits, have_qemu_img, opened, packed};
use crate::common::{plans, qemu_img, targets};
use drylab_block::{
    Below, Error, Extent, ExtentKind, Extents, Limits, ReadAt, Result, SparseBytes, WriteAt,
};
use drylab_image::{
    Progress, Qcow2Compression, Qcow2Options, Target, VdiOptions, VhdOptions, VhdxOptions,
    VmdkOptions, Work,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;
const WORKERS: [u32; 4] = [1, 2, 3, 7];

fn work(jobs: u32) -> Work<'static> {
    Work {
        jobs,
        progress: None,
    }
}

fn qcow2(compression: Qcow2Compression, cluster_bits: u32) -> Target {
    Target::Qcow2(Qcow2Options {
        compress: true,
        compression,
        cluster_bits,
        level: 1,
        ..Qcow2Options::default()
    })
}

/// Every kind of writer.
fn writers() -> Vec<Target> {
    let stream = VmdkOptions {
        level: 1,
        ..VmdkOptions::default()
    };
    vec![
        Target::Raw,
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VmdkStream(stream),
        Target::Qcow2(Qcow2Options::default()),
        Target::Qcow2(Qcow2Options {
            extended_l2: true,
            ..Qcow2Options::default()
        }),
        qcow2(Qcow2Compression::Zlib, 16),
        qcow2(Qcow2Compression::Zstd, 16),
        qcow2(Qcow2Compression::Zstd, 21),
        Target::VhdFixed(VhdOptions::default()),
        Target::VhdDynamic(VhdOptions::default()),
    ]
}

/// Thirty pieces and more, whose work differs: noise, text, zeros and holes, across all borders.
fn mixed() -> SparseBytes {
    let kinds = [
        Kind::Noise(7),
        Kind::Text(1),
        Kind::Zeros,
        Kind::Noise(11),
        Kind::Text(9),
    ];
    let pieces = (0..24u64).map(|n| Piece {
        offset: n * 900_000 + (n % 7) * 3 * MIB + n * 37,
        length: 300_000 + (n as usize % 5) * 150_000,
        kind: kinds[n as usize % kinds.len()],
    });
    Plan {
        size: 48 * MIB + 512,
        pieces: pieces.collect(),
    }
    .disk()
}

fn bytes_of(file: &SparseBytes) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn any_number_of_workers_writes_the_same_file() {
    let disk = mixed();
    for target in writers() {
        let written = WORKERS.map(|jobs| {
            let file = SparseBytes::default();
            drylab_image::write_with(&disk, &target, &file, &work(jobs)).unwrap();
            bytes_of(&file)
        });
        for other in &written[1..] {
            assert!(written[0] == *other, "{target:?}");
        }
        assert_same(&disk, &opened(Arc::new(written[0].clone())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn workers_do_not_change_what_is_written(plan in plans(3 << 30), target in targets(), jobs in 2..6u32) {
        prop_assume!(fits(&plan, &target));
        let disk = plan.disk();
        let file = SparseBytes::default();
        drylab_image::write_with(&disk, &target, &file, &work(jobs)).unwrap();
        let alone = packed(&disk, &target);
        prop_assert_eq!(file.len(), alone.len());
        prop_assert_eq!(drylab_block::content_id(&file).unwrap(), drylab_block::content_id(&*alone).unwrap());
        assert_same(&disk, &opened(Arc::new(file)));
    }

    #[test]
    fn zstd_clusters_are_read_again(plan in plans(1 << 30), bits in 9..=21u32, level in 1..=19u32) {
        let options = Qcow2Options {
            compress: true, compression: Qcow2Compression::Zstd, cluster_bits: bits, level: level.min(6), ..Default::default()
        };
        let target = Target::Qcow2(options);
        prop_assume!(fits(&plan, &target));
        let disk = plan.disk();
        assert_same(&disk, &opened(packed(&disk, &target)));
    }
}

/// A disk that fails at places, refuses to have holes read, and counts.
struct Watched<'a> {
    disk: &'a dyn ReadAt,
    broken: Vec<u64>,
    reads: AtomicU64,
    bytes: AtomicU64,
    asked: AtomicU64,
}

impl<'a> Watched<'a> {
    fn new(disk: &'a dyn ReadAt, broken: &[u64]) -> Self {
        Self {
            disk,
            broken: broken.to_vec(),
            reads: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }
}

impl ReadAt for Watched<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        if let Some(at) = self.broken.iter().find(|at| (offset..end).contains(at)) {
            return Err(Error::io(format_args!("broken at {at}")));
        }
        let mut at = offset;
        while at < end {
            let extent = self.disk.extent_at(at);
            assert!(extent.kind.has_bytes(), "a hole at {at} is read");
            at += extent.length;
        }
        self.reads.fetch_add(1, Relaxed);
        self.bytes.fetch_add(buffer.len() as u64, Relaxed);
        self.disk.read_at(offset, buffer)
    }
    fn extent_at(&self, offset: u64) -> Extent {
        self.asked.fetch_add(1, Relaxed);
        self.disk.extent_at(offset)
    }
}

#[test]
fn holes_are_not_read_and_what_has_bytes_is_read_once() {
    let disk = mixed();
    let data: u64 = Extents::new(&disk)
        .filter(|extent| extent.kind.has_bytes())
        .map(|extent| extent.length)
        .sum();
    for target in writers() {
        let watched = Watched::new(&disk, &[]);
        let file = SparseBytes::default();
        drylab_image::write_with(&watched, &target, &file, &work(3)).unwrap();
        // A stream has its content's id in front.
        let times = if matches!(target, Target::VmdkStream(_)) {
            2
        } else {
            1
        };
        assert_eq!(watched.bytes.load(Relaxed), times * data, "{target:?}");
    }
}

#[test]
fn a_hole_of_the_file_below_is_not_read() {
    // Two blocks of 2 MiB, with one page each: the file has holes inside the blocks.
    let disk = SparseBytes::new(64 * MIB);
    for at in [5 * MIB, 41 * MIB] {
        disk.write_at(at, &[1; 4096]).unwrap();
    }
    let file = packed(&disk, &Target::VhdDynamic(VhdOptions::default()));
    let image = opened(file.clone());
    let blocks = Extents::new(&image).filter(|extent| extent.kind.has_bytes());
    assert_eq!(blocks.map(|extent| extent.length).sum::<u64>(), 4 * MIB);
    let read = AtomicU64::new(0);
    let counted = Counted(&image, &read);
    let out = SparseBytes::default();
    drylab_image::write_with(&counted, &Target::Raw, &out, &work(2)).unwrap();
    assert!(read.load(Relaxed) <= 4 * 8192, "{read:?}");
    assert_same(&disk, &out);
}

/// Counts the bytes read of an image, and leaves what is below it to be seen.
struct Counted<'a>(&'a dyn ReadAt, &'a AtomicU64);

impl ReadAt for Counted<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.fetch_add(buffer.len() as u64, Relaxed);
        self.0.read_at(offset, buffer)
    }
    fn extent_at(&self, offset: u64) -> Extent {
        self.0.extent_at(offset)
    }
    fn below(&self, offset: u64) -> Option<Below<'_>> {
        self.0.below(offset)
    }
}

#[test]
fn the_first_error_on_the_disk_is_the_one_told() {
    let disk = mixed();
    let data: Vec<u64> = Extents::new(&disk)
        .filter(|extent| extent.kind.has_bytes())
        .map(|extent| extent.offset + extent.length / 2)
        .collect();
    let (first, last) = (data[data.len() / 3], *data.last().unwrap());
    for target in writers() {
        for jobs in WORKERS {
            let watched = Watched::new(&disk, &[last, first]);
            let file = SparseBytes::default();
            let error =
                drylab_image::write_with(&watched, &target, &file, &work(jobs)).unwrap_err();
            let expected = Error::io(format_args!("broken at {first}"));
            assert_eq!(error, expected, "{target:?} {jobs}");
        }
    }
}

/// A sink that fails where a file ends, and one that is told of each byte once.
struct Picky {
    file: SparseBytes,
    full_at: u64,
    written: Mutex<Vec<(u64, u64)>>,
}

impl Picky {
    fn new(full_at: u64) -> Self {
        Self {
            file: SparseBytes::default(),
            full_at,
            written: Mutex::default(),
        }
    }
}

impl ReadAt for Picky {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }
}

impl WriteAt for Picky {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if end > self.full_at {
            return Err(Error::io(format_args!("full at {}", self.full_at)));
        }
        self.written.lock().unwrap().push((offset, end));
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, length: u64) -> Result<()> {
        self.file.set_len(length)
    }
}

#[test]
fn no_byte_of_a_file_is_written_twice() {
    let disk = mixed();
    for target in writers() {
        let sink = Picky::new(u64::MAX);
        drylab_image::write_with(&disk, &target, &sink, &work(3)).unwrap();
        let mut written = sink.written.into_inner().unwrap();
        written.sort_unstable();
        let twice = written.windows(2).find(|pair| pair[0].1 > pair[1].0);
        assert_eq!(twice, None, "{target:?}");
    }
}

#[test]
fn a_sink_that_is_full_ends_the_work() {
    let disk = mixed();
    for target in writers() {
        for jobs in WORKERS {
            let error = drylab_image::write_with(&disk, &target, &Picky::new(3 * MIB), &work(jobs));
            let full = Error::io(format_args!("full at {}", 3 * MIB));
            assert_eq!(error.unwrap_err(), full, "{target:?} {jobs}");
        }
    }
}

#[test]
fn readers_run_ahead_of_the_writer_by_a_few_pieces_only() {
    struct Lazy<'a>(SparseBytes, &'a AtomicU64, AtomicU64, AtomicU64);
    impl ReadAt for Lazy<'_> {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.read_at(offset, buffer)
        }
    }
    impl WriteAt for Lazy<'_> {
        fn write_at(&self, _: u64, bytes: &[u8]) -> Result<()> {
            std::thread::yield_now();
            let ahead = self.1.load(Relaxed).saturating_sub(self.2.load(Relaxed));
            self.3.fetch_max(ahead, Relaxed);
            self.2.fetch_add(bytes.len() as u64, Relaxed);
            Ok(())
        }
        fn set_len(&self, length: u64) -> Result<()> {
            self.0.set_len(length)
        }
    }
    let bytes = vec![1u8; 64 << 20];
    for jobs in WORKERS {
        let read = AtomicU64::new(0);
        let counted = Counted(&bytes, &read);
        let none = AtomicU64::default;
        let sink = Lazy(SparseBytes::default(), &read, none(), none());
        drylab_image::write_with(&counted, &Target::Raw, &sink, &work(jobs)).unwrap();
        let ahead = sink.3.load(Relaxed);
        assert!(
            ahead <= u64::from(jobs) << 22,
            "{jobs} workers, {ahead} bytes ahead"
        );
        assert_eq!(sink.2.load(Relaxed), 64 << 20);
    }
}

#[test]
fn progress_never_goes_back_and_ends_with_everything() {
    let disk = mixed();
    for target in writers() {
        let told = Mutex::new(Vec::new());
        let tell = |progress: Progress| told.lock().unwrap().push(progress);
        let work = Work {
            jobs: 3,
            progress: Some(&tell),
        };
        drylab_image::write_with(&disk, &target, &SparseBytes::default(), &work).unwrap();
        let told = told.into_inner().unwrap();
        assert!(
            told.windows(2).all(|pair| pair[0].done < pair[1].done),
            "{told:?}"
        );
        let last = told.last().unwrap();
        assert!(told.len() > 10 && last.done == last.total, "{told:?}");
    }
}

#[test]
fn a_panic_in_a_worker_reaches_the_caller() {
    struct Bug(Vec<u8>);
    impl ReadAt for Bug {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            assert!(offset < 4 << 20, "a bug");
            self.0.read_at(offset, buffer)
        }
    }
    let disk = Bug(vec![1; 8 << 20]);
    for jobs in WORKERS {
        let ended = std::panic::catch_unwind(|| {
            drylab_image::write_with(&disk, &Target::Raw, &SparseBytes::default(), &work(jobs))
        });
        assert!(ended.is_err(), "{jobs}");
    }
}

/// A sink that takes ranges of other sources by itself.
struct Sharing {
    file: SparseBytes,
    taken: AtomicU64,
    most: u64,
}

impl ReadAt for Sharing {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }
}

impl WriteAt for Sharing {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, length: u64) -> Result<()> {
        self.file.set_len(length)
    }
    fn take(&self, offset: u64, from: Below<'_>) -> Result<bool> {
        if self.taken.load(Relaxed) >= self.most {
            return Ok(false);
        }
        assert_eq!((offset | from.offset | from.length) % 4096, 0);
        assert!(
            from.source.below(from.offset).is_none(),
            "the lowest source"
        );
        let mut bytes = vec![0; from.length as usize];
        from.source.read_at(from.offset, &mut bytes)?;
        self.taken.fetch_add(from.length, Relaxed);
        self.file.write_at(offset, &bytes).map(|()| true)
    }
}

#[test]
fn a_sink_that_can_share_ranges_gets_the_same_file() {
    let disk = mixed();
    let plain = [
        Target::Raw,
        Target::VmdkSparse(VmdkOptions::default()),
        Target::Qcow2(Qcow2Options::default()),
        Target::VhdFixed(VhdOptions::default()),
        Target::VdiDynamic(VdiOptions::default()),
        Target::VhdxDynamic(VhdxOptions::default()),
    ];
    for from in &plain {
        let image = opened(packed(&disk, from));
        for to in &plain {
            // A sink that can share until it cannot, too.
            for most in [u64::MAX, 3 * MIB] {
                let sink = Sharing {
                    file: SparseBytes::default(),
                    taken: AtomicU64::new(0),
                    most,
                };
                drylab_image::write_with(&image, to, &sink, &work(2)).unwrap();
                let taken = sink.taken.load(Relaxed);
                assert!(taken >= 3 * MIB, "{from:?} to {to:?} shared {taken}");
                assert_eq!(
                    bytes_of(&sink.file),
                    bytes_of(&packed(&disk, to)),
                    "{from:?} to {to:?}"
                );
            }
        }
    }
}

#[test]
fn cost_grows_with_the_data_and_not_with_the_disk() {
    let asked = [1u64 << 33, 10 << 40].map(|size| {
        let disk = SparseBytes::new(size);
        for n in 0..40 {
            let bytes = crate::common::fill(Kind::Noise(n), 70_000);
            disk.write_at(n * (size / 40), &bytes).unwrap();
        }
        let watched = Watched::new(&disk, &[]);
        for target in [
            Target::Raw,
            Target::VmdkSparse(VmdkOptions::default()),
            Target::Qcow2(Qcow2Options::default()),
            qcow2(Qcow2Compression::Zlib, 16),
        ] {
            let file = Arc::new(SparseBytes::default());
            drylab_image::write_with(&watched, &target, &*file, &work(2)).unwrap();
            assert!(
                file.allocated() < 16 * MIB,
                "{target:?} {}",
                file.allocated()
            );
            let image = opened(file);
            let extents = Extents::new(&image).count();
            // A few for each of the forty ranges: the rest of a table, and the tables beside it in a page of the file.
            assert!(extents <= 40 * 8, "{target:?}: {extents} extents");
        }
        watched.asked.load(Relaxed)
    });
    assert!(asked[1] <= asked[0] + 40, "{asked:?}");
}

#[test]
fn compressed_units_that_adjoin_are_read_together() {
    let disk = Plan {
        size: 16 * MIB,
        pieces: vec![Piece {
            offset: 0,
            length: 16 << 20,
            kind: Kind::Text(3),
        }],
    }
    .disk();
    for target in [
        Target::VmdkStream(VmdkOptions::default()),
        qcow2(Qcow2Compression::Zlib, 16),
        qcow2(Qcow2Compression::Zstd, 16),
    ] {
        let file = packed(&disk, &target);
        let watched: Arc<Reads> = Arc::new(Reads(bytes_of(&file), AtomicU64::new(0)));
        let image = drylab_image::open(watched.clone(), &Limits::DEFAULT).unwrap();
        let before = watched.1.load(Relaxed);
        let out = SparseBytes::default();
        drylab_image::write_with(&image, &Target::Raw, &out, &work(2)).unwrap();
        let reads = watched.1.load(Relaxed) - before;
        // 256 units in 64 pieces; two reads of a table, when both workers want it at once.
        assert!(reads <= 64 + 2 * 2 + 2, "{target:?}: {reads} reads");
        assert_same(&disk, &out);
    }
}

struct Reads(Vec<u8>, AtomicU64);

impl ReadAt for Reads {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.fetch_add(1, Relaxed);
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn qemu_img_finds_our_refcounts_right_however_many_blocks_there_are() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, raw) = (folder.path().join("ours"), folder.path().join("raw"));
    let disk = mixed();
    let qcow2 = |bits, compress, compression| {
        Target::Qcow2(Qcow2Options {
            compress,
            compression,
            cluster_bits: bits,
            ..Qcow2Options::default()
        })
    };
    // Refcount blocks of 128 KiB and 8 MiB of file: many of them stand among the data.
    for bits in [9, 12, 16] {
        for (compress, compression) in [
            (false, Qcow2Compression::Zlib),
            (true, Qcow2Compression::Zlib),
            (true, Qcow2Compression::Zstd),
        ] {
            let target = qcow2(bits, compress, compression);
            let sink = OnDisk::create(&file);
            drylab_image::write_with(&disk, &target, &sink, &work(2)).unwrap();
            let said = qemu_img(&["check", "-f", "qcow2", file.to_str().unwrap()]);
            assert!(said.contains("No errors"), "{target:?} {said}");
            drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
            let names = [raw.to_str().unwrap(), file.to_str().unwrap()];
            qemu_img(&["compare", "-f", "raw", "-F", "qcow2", names[0], names[1]]);
        }
    }
}

#[test]
fn zstd_clusters_of_qemu_img_are_read() {
    if !have_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, file) = (folder.path().join("raw"), folder.path().join("zstd"));
    let disk = mixed();
    drylab_image::write(&disk, &Target::Raw, &OnDisk::create(&raw)).unwrap();
    let (from, to) = (raw.to_str().unwrap(), file.to_str().unwrap());
    let zstd = "compression_type=zstd";
    qemu_img(&[
        "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", zstd, from, to,
    ]);
    let image = opened(Arc::new(OnDisk::open(&file)));
    let packed = Extents::new(&image).filter(|extent| extent.kind == ExtentKind::Compressed);
    assert!(packed.count() > 0);
    assert_same(&disk, &image);
}
