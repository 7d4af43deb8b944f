//! What can be typed after `drylab image`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `drylab image`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  drylab image convert disk.vmdk disk.qcow2 --to qcow2
  drylab image convert disk.raw disk.vmdk --to vmdk --subformat streamOptimized --level best
  drylab image convert disk.vmdk disk.vhd --to vhd --subformat fixed --jobs 4
  drylab image convert disk.vhd disk.qcow2 --to qcow2 --compress zstd --sync never")]
pub(crate) struct ImageArgs {
    /// What to do with the image.
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// One command for images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Write the bytes of a disk into another container.
    Convert(ConvertArgs),
}

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The bytes of the disk, holes where it has zeros.
    Raw,
    /// monolithicSparse, or streamOptimized.
    Vmdk,
    /// dynamic, or fixed.
    Vhd,
    /// v3, or v2.
    Qcow2,
}

/// How much work compression is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Twice as fast, up to a tenth larger.
    Fast,
    /// As large as other programs make it.
    #[default]
    Default,
    /// As small as it gets.
    Best,
}

/// How clusters of a qcow2 are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// Every reader knows it.
    Zlib,
    /// Faster; QEMU from 5.1 on.
    Zstd,
}

/// When the file is on the medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Before it takes its name.
    #[default]
    Always,
    /// When the system likes.
    Never,
}

/// `drylab image convert`
#[derive(Debug, Args)]
#[command(after_help = "\
The source is told by its content, and files it names are opened only when they lie in its own folder. The destination
is written under another name beside its own and takes it when it is complete. Its bytes depend on the disk and the
options, never on jobs, holes or the container the disk came in.")]
pub(crate) struct ConvertArgs {
    /// The image to read.
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// The file to write.
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    /// Format to write.
    #[arg(long, value_enum)]
    pub(crate) to: To,
    /// Kind within the format: monolithicSparse or streamOptimized (vmdk), dynamic or fixed (vhd), v3 or v2 (qcow2).
    #[arg(long, value_name = "NAME")]
    pub(crate) subformat: Option<String>,
    /// Compress the clusters of a qcow2.
    #[arg(long, value_enum)]
    pub(crate) compress: Option<Compress>,
    /// How much work compression is.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) level: Level,
    /// Worker threads; as many as there are processors unless told. Does not change the output.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) jobs: Option<u32>,
    /// When the file is on the medium.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sync: Sync,
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}
