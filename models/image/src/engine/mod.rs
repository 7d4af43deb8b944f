//! Conversion on several cores: what there is of a disk, read and packed in any order, placed in guest order.
//!
//! ```text
//! extents ─ Cutter ─ pieces in guest order, each with a ticket
//!              │  any worker: read, look for zeros, compress          `Job::prepare`
//!              │  one at a time, in order of tickets: where to?       `Job::place`
//!              └  one at a time, in any order: write                  `Job::finish`
//! ```
//!
//! Holes and extents known to be zero are never read; zeros inside data are found in pages of 4 KiB and not written.
//! Only `place` decides where bytes go, and it sees the pieces in guest order: the output does not depend on how many
//! workers there are. A piece is at most [`CELL`] bytes (or one unit of the format where that is larger and compressed),
//! and a worker holds a few of them. The first error in guest order ends the work and is the result.

mod copy;
mod cut;
mod digest;
mod pack;
mod run;
mod zero;

pub(crate) use copy::{add, content_digest, copy, visit};
pub(crate) use cut::Piece;
pub(crate) use pack::{Packed, Packing, Writes, pack};
pub(crate) use run::{Job, run};
pub(crate) use zero::{is_zero, runs, write_runs};

/// Largest piece of a disk worked on at a time, in bytes: some pieces and what is made of them fit the second-level cache
/// of one core.
pub(crate) const CELL: u64 = 1 << 18;
/// Pieces begin at multiples of this, in bytes; it is also what the digest takes at a time.
pub(crate) const BLOCK: u64 = 1 << 16;
/// Zeros are looked for in pages of this many bytes.
pub(crate) const PAGE: u64 = 1 << 12;

/// How far a conversion has come, in bytes of the extents that have to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes placed.
    pub done: u64,
    /// All bytes to read.
    pub total: u64,
}

/// With how many threads to work, and whom to tell. The output depends on neither.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Threads, the calling one among them; 0 counts as 1.
    pub jobs: u32,
    /// Is told after each piece, by one thread at a time, never less than before. Asking for it walks the extents of the
    /// disk once more.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl Work<'_> {
    /// The calling thread alone, and nobody is told.
    pub const ALONE: Work<'static> = Work {
        jobs: 1,
        progress: None,
    };
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Work({} jobs)", self.jobs)
    }
}
