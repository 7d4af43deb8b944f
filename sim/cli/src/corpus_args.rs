//! What can be typed after `drylab corpus`.

use crate::args;
use clap::{Args, Subcommand, ValueEnum};
use drylab_specimen as specimen;
use std::path::PathBuf;

/// `drylab corpus`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  drylab corpus generate --format vhdx --seed 1 --out corpus
  drylab corpus generate --format qcow2 --subformat zstd --seed 0x2a --corrupt 0 --out sound
  drylab corpus generate --format vmdk --seed 1 --corrupt 1 --count 1000 --out vmdk-corpus
  drylab corpus generate --format vhd --subformat differencing --seed 7 --corrupt 3 --count 20 --out children")]
pub(crate) struct CorpusArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CorpusCommand,
}

/// One command for corpora.
#[derive(Debug, Subcommand)]
pub(crate) enum CorpusCommand {
    /// Write disk images with damages, and what must come of them: for people who try other parsers.
    Generate(GenerateArgs),
}

/// Formats of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Of {
    /// The bytes of the disk.
    Raw,
    /// monolithicSparse, streamOptimized, streamOptimized-front.
    Vmdk,
    /// fixed, dynamic, differencing.
    Vhd,
    /// fixed, dynamic, differencing.
    Vhdx,
    /// v2, v3, zstd, extended-l2, backing, snapshot, data-file.
    Qcow2,
    /// dynamic, fixed, differencing, undo.
    Vdi,
}

impl Of {
    /// The same for the maker of images.
    pub(crate) fn format(self) -> specimen::Format {
        match self {
            Self::Raw => specimen::Format::Raw,
            Self::Vmdk => specimen::Format::Vmdk,
            Self::Vhd => specimen::Format::Vhd,
            Self::Vhdx => specimen::Format::Vhdx,
            Self::Qcow2 => specimen::Format::Qcow2,
            Self::Vdi => specimen::Format::Vdi,
        }
    }
}

/// `drylab corpus generate`
#[derive(Debug, Args)]
#[command(after_help = "\
Every image gets a folder DIR/FORMAT-SEED with its files, the one to open first, and a line in DIR/manifest.jsonl: \
format, kind and seed, virtual size, files with length and SHA-256, SHA-256 of the disk a guest must see, and each \
damage with its kind, its field, offset, old and new bytes (hexadecimal), whether a checksum over it was set right, the \
clause it breaks and what may come of it alone, any one of: `refused`, a code of `drylab image check` (others may be \
found with it), `nothing`, `anything`; and whether the disk must read as before. Notes do not count, nor codes that are \
`known` of the image before it was damaged. Several damages in one image may hide each other.

The files depend on the arguments and the program, never on clock, folder or locale. Files that are there stay: each run \
needs a folder of its own. Disks have holes; copy the folder with a program that keeps them.

Examples:
  drylab corpus generate --format vhdx --seed 1 --out corpus
  drylab corpus generate --format vdi --seed 1 --corrupt 1 --count 500 --out vdi-corpus
  drylab corpus generate --format vmdk --subformat streamOptimized --seed 9 --corrupt 0 --out streams")]
pub(crate) struct GenerateArgs {
    /// Format of the images.
    #[arg(long, value_enum)]
    pub(crate) format: Of,
    /// Kind within the format; drawn from the seed unless told.
    #[arg(long, value_name = "NAME")]
    pub(crate) subformat: Option<String>,
    /// Seed of the first image; the others count on from it. Decimal, or hexadecimal after 0x.
    #[arg(long, value_name = "N", value_parser = args::seed)]
    pub(crate) seed: u64,
    /// Damages to each image; 0 makes sound ones.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) corrupt: u32,
    /// Images to make.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// Folder for them; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
