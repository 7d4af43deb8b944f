//! What a damaged image may cost, whatever it says: the memory taken and the bytes read by opening and checking it.
//!
//! A program of its own, since the allocator counts for a whole program, and one test, since it counts for all threads.

use drylab_block::{Error, Extent, Limits, ReadAt, Reference, Resolver, Result};
use drylab_image::{Options, open_as};
use drylab_kernel::Streams;
use drylab_specimen::{File, Format, Specimen, Stream};
use peak_alloc::PeakAlloc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// What may be taken beside twice the largest table.
const MEMORY: u64 = 64 << 20;
/// Largest table, far below what a count in a header can ask for.
const TABLE: u64 = 4 << 20;
/// How often the bytes of the files may be read.
const TIMES: u64 = 4;
/// What looking for signatures, headers and their copies reads of files that are smaller than that.
const HEADS: u64 = 1 << 20;

/// A file that counts what is read of it.
struct Counted {
    bytes: Arc<dyn ReadAt>,
    read: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = u64::try_from(buffer.len()).unwrap();
        self.read.fetch_add(length, Ordering::Relaxed);
        self.bytes.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.bytes.extent_at(offset)
    }
}

/// The files of an image by their names, all counted together.
struct Known {
    files: Vec<File>,
    read: Arc<AtomicU64>,
}

impl Known {
    fn open(&self, file: &File) -> Arc<dyn ReadAt> {
        Arc::new(Counted {
            bytes: file.bytes.clone(),
            read: self.read.clone(),
        })
    }
}

impl Resolver for Known {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.files.iter().find(|file| file.name == reference.name);
        let found = found.ok_or_else(|| Error::unsupported("it is not there"))?;
        Ok(self.open(found))
    }
}

/// Memory taken and bytes read by opening and checking.
fn cost(known: &Known) -> (u64, u64) {
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = TABLE;
    let options = Options {
        resolver: known,
        limits,
        ..Options::DEFAULT
    };
    let before = PEAK.current_usage();
    PEAK.reset_peak_usage();
    if let Ok(image) = open_as(known.open(&known.files[0]), &options) {
        // An error is an answer, too.
        drop(image.check());
    }
    let taken = PEAK.peak_usage().saturating_sub(before);
    let read = known.read.load(Ordering::Relaxed);
    (u64::try_from(taken).unwrap(), read)
}

#[test]
fn opening_and_checking_a_damaged_image_costs_no_more_than_its_files_allow() {
    let mut wrong = Vec::new();
    let mut all = 0u32;
    for format in Format::ALL {
        for subformat in format.subformats() {
            for seed in 0..12 {
                let mut stream = Streams::new(seed).stream("specimen", 0);
                let made = Specimen::draw(&mut Stream(|| stream.word()), format, Some(subformat));
                let mut stream = Streams::new(seed).stream("damage", 0);
                let mut stream = Stream(|| stream.word());
                for count in 0..24 {
                    let damages: Vec<_> = (0..count % 4)
                        .filter_map(|_| made.corrupt(&mut stream))
                        .collect();
                    let known = Known {
                        files: made.damaged(&damages),
                        read: Arc::default(),
                    };
                    let length: u64 = known.files.iter().map(|file| file.bytes.len()).sum();
                    let (taken, read) = cost(&known);
                    all += 1;
                    if taken > MEMORY + 2 * TABLE || read > TIMES * length + HEADS {
                        let fields = damages.iter().map(|damage| &made.fields[damage.field].name);
                        let fields: Vec<_> = fields.collect();
                        wrong.push(format!(
                            "{} {subformat} seed {seed}, {fields:?}: {taken} bytes of memory, {read} read of {length}",
                            format.name()
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty() && all > 5000,
        "{} of {all}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
