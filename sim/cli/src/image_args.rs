//! What can be typed after `drylab image`.

use crate::args::Format;
use crate::quantity::{self, NewSize};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use drylab_block::Limits;
use std::path::PathBuf;

/// `drylab image`
#[derive(Debug, Args)]
#[command(after_help = "\
Images are told by their content and never by their names; fixed VHD is known by its footer. Findings, rules and \
exit codes are stable. A man page with a table for users of qemu-img: sim/cli/man/drylab-image.1

Examples:
  drylab image info disk.vmdk
  drylab image check disk.qcow2
  drylab image convert disk.vmdk disk.qcow2 --to qcow2
  drylab image convert disk.qcow2 disk.vhd --for azure")]
pub(crate) struct ImageArgs {
    /// What to do with the image.
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// One command for images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Show what an image says of itself, and the files that it stands on.
    Info(InfoArgs),
    /// Show which ranges of the disk are data, zeros or holes, and where their bytes stand.
    Map(MapArgs),
    /// Look at the whole structure and list what breaks the rules of the format.
    Check(ImageCheckArgs),
    /// Mend what check finds, as far as that can be; or show what would be written.
    Repair(RepairArgs),
    /// Give the disk another size in its file; or show what would be written.
    Resize(ResizeArgs),
    /// Write the bytes of a disk into another container.
    Convert(ConvertArgs),
    /// Say whether two images hold the same bytes, whatever containers they are in.
    Compare(CompareArgs),
    /// Make an empty image, or one that stands on another.
    Create(CreateArgs),
    /// List the rules that check knows, with clause and effect.
    Rules(RulesArgs),
}

/// How images are read.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Open the files that an image names (backing files, parents, extents) when they lie beneath this folder: no name,
    /// link or `..` leads out of it. Without this no second file is opened.
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_beneath: Option<PathBuf>,
    /// Take the file for a raw disk, whatever it looks like: for disks of guests that may have written the header of another
    /// format into them.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Bounds of what an image that is read may cost, as NAME=SIZE,…: disk-bytes, its virtual size (1P unless told);
    /// table-bytes, one table of it in memory (64M); text-bytes, a descriptor or list inside it (16M); chain, parents above
    /// each other, or extents (4096); entries, snapshots, bitmaps or lines of a descriptor (1M).
    #[arg(long, value_name = "NAME=SIZE,…", value_parser = quantity::limits)]
    pub(crate) limits: Option<Limits>,
}

impl Reading {
    /// Bounds of what an image may cost.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.unwrap_or(Limits::DEFAULT)
    }
}

/// `drylab image info`
#[derive(Debug, Args)]
#[command(after_help = "\
Reads headers and tables only. Findings are those of opening; check looks at everything. Of an image that names files \
which are not opened (see --allow-beneath) it shows what it says of itself and those names, and ends with 3.

Examples:
  drylab image info disk.vhd
  drylab image info snapshot.vmdk --allow-beneath .
  drylab image info disk.qcow2 --format json")]
pub(crate) struct InfoArgs {
    /// The image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image map`
#[derive(Debug, Args)]
#[command(after_help = "\
The ranges touch and cover the whole disk. Kinds: data, compressed, zero (known to be zeros), hole (never written). \
Where a file holds the bytes as they are, it is named with their offset in it.

Examples:
  drylab image map disk.vmdk
  drylab image map disk.qcow2 --format json")]
pub(crate) struct MapArgs {
    /// The image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image check`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 no error was found, 5 the image is damaged (with --strict also when it breaks a rule that makes \
programs refuse or misread it, with --for also when this product does), 3 it cannot be opened at all. Severities: \
note, warning (data is right, but some programs refuse or misread it), error (data is lost, aliased or unreadable). \
Of each rule 64 places are listed; all are counted.

Examples:
  drylab image check disk.vmdk
  drylab image check disk.vhd --strict
  drylab image check disk.vhd --for xenserver
  drylab image check child.vhdx --allow-beneath . --format json")]
pub(crate) struct ImageCheckArgs {
    /// The image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Warnings count as damage, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// List what this product does with the image for what was found, with the evidence; that it refuses or misreads it
    /// counts as damage.
    #[arg(long = "for", value_name = "PRODUCT", value_enum)]
    pub(crate) product: Option<For>,
    /// How it is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image repair`
#[derive(Debug, Args)]
#[command(after_help = "\
The changes are planned first and tried in memory; nothing is written when the file is not the one that was planned \
for, or another program holds a lock on it (of bytes, as QEMU does). They are ordered so that after a crash at any point the image opens. \
Afterwards the image is checked again and what is left is listed. Exit codes: 0 no error is left, 5 an error is \
left.

Examples:
  drylab image repair disk.vhd --dry-run
  drylab image repair disk.vhd
  drylab image repair disk.vdi --dry-run --format json")]
pub(crate) struct RepairArgs {
    /// The image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Show every change and what would be left; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How it is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image resize`
#[derive(Debug, Args)]
#[command(after_help = "\
Sizes are whole numbers of bytes, or have K, M, G, T, P or E behind them (powers of 1024, also written as k or KiB: \
1536M, not 1.5G). The disk's new end is zeros; partitions and file systems stay what they are. An image \
whose structure is damaged is not resized, and the exit code is 5: repair it first. Changes are made as repair makes them.

Examples:
  drylab image resize disk.vhdx 40G
  drylab image resize disk.vhd +8G --dry-run
  drylab image resize disk.raw -1G --shrink")]
pub(crate) struct ResizeArgs {
    /// The image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The size the disk is to have, or after + or - the difference.
    #[arg(value_name = "SIZE", value_parser = NewSize::parse, allow_hyphen_values = true)]
    pub(crate) size: NewSize,
    /// Let the disk get smaller: its end is lost.
    #[arg(long)]
    pub(crate) shrink: bool,
    /// Show every change; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How it is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The bytes of the disk, holes where it has zeros.
    Raw,
    /// monolithicSparse, streamOptimized, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, or vmfs.
    Vmdk,
    /// dynamic, or fixed.
    Vhd,
    /// dynamic, or fixed.
    Vhdx,
    /// v3, or v2.
    Qcow2,
    /// dynamic, or fixed.
    Vdi,
}

/// Products whose wishes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum For {
    /// Microsoft Azure: fixed VHD of whole MiB.
    Azure,
    /// VMware ESXi 5.0 and later: streamOptimized VMDK for an OVF, or vmfs for a datastore.
    Esxi,
    /// Hyper-V on Windows Server 2008 R2: VHD.
    #[value(name = "hyperv-2008r2")]
    HyperV2008R2,
    /// libvirt with QEMU and KVM: qcow2 or raw.
    Libvirt,
    /// XenServer 6.0 and later, XCP-ng: dynamic VHD.
    Xenserver,
}

/// What is written.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("aim").required(true).multiple(true).args(["to", "product"])))]
pub(crate) struct Output {
    /// Format to write; with --for the one that the product likes best unless told.
    #[arg(long, value_enum)]
    pub(crate) to: Option<To>,
    /// Kind within the format: monolithicSparse, streamOptimized, monolithicFlat, twoGbMaxExtentSparse,
    /// twoGbMaxExtentFlat or vmfs (vmdk), dynamic or fixed (vhd, vhdx, vdi), v3 or v2 (qcow2). The first is the default.
    #[arg(long, value_name = "NAME")]
    pub(crate) subformat: Option<String>,
    /// Choose format, kind, adapter, geometry, size and footer as this product wants them; what is not for it is
    /// refused.
    #[arg(long = "for", value_name = "PRODUCT", value_enum)]
    pub(crate) product: Option<For>,
    /// When the file is on the medium.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sync: Sync,
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
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
The destination has no name until it is complete, and nothing is left of it when convert is stopped; on a file \
system without such files (NFS) it is written under a hidden name beside its own, which a signal leaves there. No file that \
another program has locked (ranges of its bytes, as QEMU does; not flock) or that is read for this is replaced, not \
even with --force. Its bytes depend on the \
disk and the options, never on jobs, holes or the container the disk came in. monolithicFlat and vmfs are two files, \
the descriptor and the bytes in NAME-flat.vmdk beside it; the twoGbMaxExtent kinds have NAME-s001.vmdk or \
NAME-f001.vmdk and so on. All files are complete before the first takes its name, and the descriptor comes last: a \
crash in between leaves the old one, if any, beside files that are new already. What opening noticed of the source (check \
looks at everything), and that internal snapshots stay behind, is said on standard error.

Examples:
  drylab image convert disk.vmdk disk.qcow2 --to qcow2
  drylab image convert disk.raw disk.vmdk --to vmdk --subformat streamOptimized --level best
  drylab image convert disk.vmdk disk.vhd --to vhd --subformat fixed --jobs 4
  drylab image convert disk.vhd disk.qcow2 --to qcow2 --compress zstd --sync never
  drylab image convert disk.qcow2 disk.vmdk --for esxi
  drylab image convert snapshot.vhdx disk.vdi --to vdi --allow-beneath .")]
pub(crate) struct ConvertArgs {
    /// The image to read.
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// The file to write.
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    /// What is written.
    #[command(flatten)]
    pub(crate) into: Output,
    /// Compress the clusters of a qcow2.
    #[arg(long, value_enum)]
    pub(crate) compress: Option<Compress>,
    /// How much work compression is: of vmdk streamOptimized, and of a qcow2 with --compress; default unless told.
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
    /// Worker threads, 1 to 256; as many as there are processors unless told. Does not change the output.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) jobs: Option<u32>,
    /// How the source is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image compare`
#[derive(Debug, Args)]
#[command(after_help = "\
Disks of different sizes are equal when the rest of the longer one is zeros, unless --strict says otherwise. What is \
a hole in both is not read. Exit codes: 0 the same, 6 different, 3 one of them cannot be read.

Examples:
  drylab image compare disk.vmdk disk.qcow2
  drylab image compare disk.raw disk.vhd --strict --format json")]
pub(crate) struct CompareArgs {
    /// One image.
    #[arg(value_name = "FILE1")]
    pub(crate) one: PathBuf,
    /// The other one.
    #[arg(value_name = "FILE2")]
    pub(crate) two: PathBuf,
    /// Different sizes are a difference.
    #[arg(long)]
    pub(crate) strict: bool,
    /// How both are read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image create`
#[derive(Debug, Args)]
#[command(after_help = "\
Sizes are whole numbers of bytes, or have K, M, G, T, P or E behind them (powers of 1024, also written as k or KiB: \
1536M, not 1.5G). Only raw disks have parts of a sector of 512 bytes, others are \
rounded up. Equal commands make equal files; the identity (UUID) is made of the size, the parent and the name of the file, since \
products take two disks of one identity for one. A fixed kind is as long as its disk and takes no room until it is \
written. A child of --backing holds what differs from its parent, at first nothing, and the parent must not be \
changed from then on. The parent of a VMDK, VHD or VHDX has the same format and stands in the same folder; that of a \
qcow2 may be any image anywhere, and its format is written down. A path behind --backing is seen from here, as \
all are, and not from the child; what is written in the child is the name in its folder, or an absolute path.

Examples:
  drylab image create disk.qcow2 40G --to qcow2
  drylab image create disk.vhd 127G --for hyperv-2008r2 --subformat fixed
  drylab image create child.qcow2 --to qcow2 --backing base.vmdk
  drylab image create child.vhdx --to vhdx --backing base.vhdx
  drylab image create child.vhd --to vhd --backing base.vhd")]
pub(crate) struct CreateArgs {
    /// The file to make.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Size of the disk; that of the parent unless told.
    #[arg(value_name = "SIZE", value_parser = quantity::bytes, required_unless_present = "backing")]
    pub(crate) size: Option<u64>,
    /// What is made.
    #[command(flatten)]
    pub(crate) into: Output,
    /// The image it stands on.
    #[arg(long, value_name = "FILE")]
    pub(crate) backing: Option<PathBuf>,
    /// How the parent is read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab image rules`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  drylab image rules
  drylab image rules vhdx
  drylab image rules VHD-BLOCKS-OVERLAP --format json")]
pub(crate) struct RulesArgs {
    /// Only the rules of this format, or the one with this code.
    #[arg(value_name = "FORMAT|CODE")]
    pub(crate) what: Option<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
