//! What a file may cost, whatever it says: the memory taken and the bytes read, counted over every foreign disk image and
//! every file that a fuzzer found worth keeping.
//!
//! A program of its own, since the allocator counts for a whole program, and one test, since it counts for all threads.
//! What zstd and libdeflate, which are C, take from malloc is not counted: a few hundred KiB for each thread that unpacks.

#[path = "../../../../properties/foreign.rs"]
mod foreign;
#[path = "../image/on_disk.rs"]
mod on_disk;
#[path = "../../../../properties/packed.rs"]
mod packed;
#[path = "../../../../properties/skip.rs"]
mod skipping;

use drylab_block::{
    Error, Extent, Extents, Limits, ReadAt, Reference, Resolver, Result, SparseBytes, WriteAt,
};
use drylab_image::{
    Image, Options, Qcow2Options, Target, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions, open_as,
};
use on_disk::OnDisk;
use peak_alloc::PeakAlloc;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// What may be taken beside twice the largest table: caches of unpacked pieces, texts, findings.
const MEMORY: u64 = 64 << 20;
/// How often the bytes of a file may be read.
const TIMES: u64 = 4;
/// What looking for signatures, headers and their copies reads of a file that is smaller than that.
const HEADS: u64 = 1 << 20;
/// Guest bytes read of each disk.
const READ_MOST: u64 = 256 << 20;
/// Extents walked of each disk.
const EXTENTS_MOST: usize = 1 << 16;

/// A file that counts what is read of it.
struct Counted {
    file: OnDisk,
    length: u64,
    read: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.file.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.file.extent_at(offset)
    }
}

/// The files beside one, all counted together; only names without a way.
struct Beside {
    folder: PathBuf,
    read: Arc<AtomicU64>,
    bytes: AtomicU64,
}

impl Beside {
    fn open(&self, name: &Path) -> Result<Arc<dyn ReadAt>> {
        let path = self.folder.join(name);
        let found = std::fs::symlink_metadata(&path).map_err(Error::io)?;
        if !found.is_file() {
            return Err(Error::unsupported("it is no regular file"));
        }
        self.bytes.fetch_add(found.len(), Ordering::Relaxed);
        Ok(Arc::new(Counted {
            file: OnDisk::open(&path),
            length: found.len(),
            read: self.read.clone(),
        }))
    }
}

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        if reference.name.contains('/') {
            return Err(Error::unsupported("a way to it"));
        }
        self.open(Path::new(&reference.name))
    }
}

/// What was done with a file, and what it cost.
struct Cost {
    step: &'static str,
    memory: u64,
    read: u64,
    /// Bytes of the file and of those it names.
    files: u64,
}

/// Does one thing to the file at `path`, opened anew.
fn cost(path: &Path, step: &'static str, act: impl FnOnce(&Image)) -> Cost {
    let beside = Beside {
        folder: path.parent().unwrap().to_owned(),
        read: Arc::default(),
        bytes: AtomicU64::new(0),
    };
    let options = Options {
        resolver: &beside,
        ..Options::DEFAULT
    };
    let before = PEAK.current_usage();
    PEAK.reset_peak_usage();
    let file = beside.open(Path::new(path.file_name().unwrap())).unwrap();
    if let Ok(image) = open_as(file, &options) {
        act(&image);
    }
    Cost {
        step,
        memory: PEAK.peak_usage().saturating_sub(before) as u64,
        read: beside.read.load(Ordering::Relaxed),
        files: beside.bytes.load(Ordering::Relaxed),
    }
}

fn extents(image: &Image) -> impl Iterator<Item = Extent> {
    Extents::new(image).take(EXTENTS_MOST)
}

/// Reads what has bytes, in pieces of `piece`.
fn read(image: &Image, piece: u64) {
    let mut buffer = vec![0u8; piece as usize];
    let mut left = READ_MOST;
    for extent in extents(image).filter(|extent| extent.kind.has_bytes()) {
        let end = extent.offset + extent.length;
        let mut at = extent.offset;
        while at < end && left > 0 {
            let take = (end - at).min(piece);
            let _ = image.read_at(at, &mut buffer[..take as usize]);
            at += take;
            left = left.saturating_sub(take);
        }
    }
}

/// Guest bytes that [`read`] reads at most.
fn guest_bytes(path: &Path) -> u64 {
    let mut sum = 0u64;
    cost(path, "count", |image| {
        let data = extents(image).filter(|extent| extent.kind.has_bytes());
        sum = data.fold(0, |sum, extent| sum.saturating_add(extent.length));
    });
    sum.min(READ_MOST)
}

/// All that is done with an image, but for reading its bytes.
fn looked_at(path: &Path) -> [Cost; 5] {
    [
        cost(path, "open", |image| drop(image.info())),
        cost(path, "map", |image| {
            for extent in extents(image) {
                let _ = image.piece_at(extent.offset);
            }
        }),
        cost(path, "check", |image| drop(image.check())),
        cost(path, "repair", |image| drop(image.repair())),
        cost(path, "resize", |image| {
            drop(image.resize(image.virtual_size().saturating_add(512)));
        }),
    ]
}

/// The files of a folder and of those in it, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return all;
    };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&path));
        } else if entry.file_type().unwrap().is_file() {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// What fuzzers of disk images kept, and the foreign images.
fn corpus() -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpora/fuzz");
    let of_images = |path: &PathBuf| {
        let targets = ["detect", "vmdk", "qcow2", "qed", "vhd", "vdi", "image"];
        let folder = path.parent().and_then(Path::file_name);
        let folder = folder.and_then(|name| name.to_str()).unwrap_or_default();
        targets.iter().any(|target| folder.starts_with(target))
    };
    let mut all: Vec<PathBuf> = files(&kept).into_iter().filter(of_images).collect();
    assert!(all.len() > 50, "{} files", all.len());
    if let Some((folder, manifest)) = foreign::foreign() {
        let disks = manifest.lines().filter_map(|line| {
            let mut cells = line.split('\t');
            let name = cells.next()?;
            (cells.next() == Some("disk")).then(|| packed::plain(&folder, name))?
        });
        all.extend(disks);
    }
    all
}

/// Images with the largest tables that the formats and our limits allow, in files with holes: what a header says in a few
/// bytes must not cost more.
fn largest(folder: &Path) -> Vec<PathBuf> {
    let qcow2 = |cluster_bits| {
        Target::Qcow2(Qcow2Options {
            cluster_bits,
            ..Qcow2Options::default()
        })
    };
    let vdi = VdiOptions {
        block_bytes: 4096,
        ..VdiOptions::default()
    };
    let targets = [
        (
            "sparse.vmdk",
            60u64 << 40,
            Target::VmdkSparse(VmdkOptions::default()),
        ),
        (
            "stream.vmdk",
            60 << 40,
            Target::VmdkStream(VmdkOptions::default()),
        ),
        (
            "dynamic.vhd",
            2040 << 30,
            Target::VhdDynamic(VhdOptions {
                block_bytes: 512 << 10,
                ..VhdOptions::default()
            }),
        ),
        (
            "dynamic.vhdx",
            16 << 40,
            Target::VhdxDynamic(VhdxOptions {
                block_bytes: Some(1 << 20),
                ..VhdxOptions::default()
            }),
        ),
        (
            "fixed.vhdx",
            512 << 30,
            Target::VhdxFixed(VhdxOptions {
                block_bytes: Some(1 << 20),
                ..VhdxOptions::default()
            }),
        ),
        ("clusters_of_64k.qcow2", 1 << 50, qcow2(16)),
        ("clusters_of_512.qcow2", 128 << 30, qcow2(9)),
        (
            "blocks_of_4k.vdi",
            60 << 30,
            Target::VdiDynamic(vdi.clone()),
        ),
        ("fixed.vdi", 60 << 30, Target::VdiFixed(vdi)),
    ];
    let made = targets.into_iter().filter_map(|(name, size, target)| {
        let path = folder.join(name);
        let file = OnDisk::create(&path);
        let disk = SparseBytes::new(size);
        for place in [0, size / 2, size - 4096] {
            disk.write_at(place, &[7; 4096]).unwrap();
        }
        let written = drylab_image::write(&disk, &target, &file);
        if let Err(error) = &written {
            eprintln!("{name}: {error}");
        }
        written.is_ok().then_some(path)
    });
    let mut all: Vec<PathBuf> = made.collect();
    all.extend(in_doubt(folder, &all));
    all
}

/// Of those, copies with a field of the header that may have been many things: none of them may be tried out at any cost.
fn in_doubt(folder: &Path, made: &[PathBuf]) -> Vec<PathBuf> {
    // The place of a VDI's map, and the number of its entries; the place of a VHD's BAT, with the checksum as it was: one
    // for which there is one other place, one for which there are three; the number of the BAT's entries.
    let damages: [(&str, &str, u64, &[u8]); 5] = [
        ("blocks_of_4k.vdi", "map.vdi", 0x154, &[0, 6, 0, 0]),
        ("blocks_of_4k.vdi", "entries.vdi", 0x182, &[0xf0]),
        ("dynamic.vhd", "bat.vhd", 512 + 0x16, &[4]),
        ("dynamic.vhd", "places.vhd", 512 + 0x15, &[2, 0]),
        ("dynamic.vhd", "entries.vhd", 512 + 0x1e, &[0x3f]),
    ];
    let copies = damages.map(|(from, to, at, new)| {
        let from = made.iter().find(|path| path.ends_with(from)).unwrap();
        let to = folder.join(to);
        std::fs::copy(from, &to).unwrap();
        let file = std::fs::File::options().write(true).open(&to).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, new, at).unwrap();
        to
    });
    copies.into()
}

#[test]
fn no_image_costs_more_memory_than_its_tables_may_nor_is_it_read_more_than_four_times() {
    counting_counts();
    let memory_most = MEMORY + 2 * Limits::DEFAULT.table_bytes_max;
    let (mut most, mut times, mut wrong) = (0u64, 0f64, Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let mut all = corpus();
    all.extend(largest(folder.path()));
    for path in &all {
        let guest = guest_bytes(path);
        let mut costs: Vec<(Cost, u64)> = looked_at(path).map(|cost| (cost, 0)).into();
        // Pieces of a cluster, and pieces that no format has. Where one stored piece stands for many, it is read for each.
        for (step, piece) in [("read", 1 << 20), ("read in odd pieces", 70_000)] {
            costs.push((cost(path, step, |image| read(image, piece)), guest));
        }
        for (cost, guest) in costs {
            most = most.max(cost.memory);
            let bound = TIMES * cost.files.max(guest) + HEADS;
            times = times.max(cost.read as f64 / cost.files.max(guest).max(HEADS) as f64);
            if cost.memory > memory_most || cost.read > bound {
                wrong.push(format!(
                    "{} {}: {} bytes of memory (most {memory_most}), {} read of {} and {guest} of the guest (most {bound})",
                    path.display(), cost.step, cost.memory, cost.read, cost.files,
                ));
            }
        }
    }
    eprintln!(
        "{} files: at most {} MiB of memory; of files over 1 MiB at most {times:.2} times their bytes read",
        all.len(),
        most >> 20
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The counting counts: what is kept shows in the memory, a disk read twice in the bytes.
fn counting_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, vec![7u8; 8 << 20]).unwrap();
    let twice = cost(&path, "twice", |image| {
        read(image, 1 << 20);
        read(image, 1 << 20);
    });
    assert!((16 << 20..18 << 20).contains(&twice.read), "{}", twice.read);
    let kept = cost(&path, "kept", |_| drop(vec![1u8; 32 << 20]));
    assert!(kept.memory >= 32 << 20, "{}", kept.memory);
}
