//! What can be typed. Names are stable; every example in a help text is parsed by a test.

use crate::corpus_args::CorpusArgs;
use crate::exit;
use crate::image_args::ImageArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A dry lab for virtual machine interoperability: will this machine survive the move, and if not, why?
#[derive(Debug, Parser)]
#[command(name = "drylab", version, after_help = exit::HELP)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Move every guest from every product to every product over every route, and show scores with causes.
    Matrix(MatrixArgs),
    /// Run one scenario, from a file or generated from a seed.
    Run(RunArgs),
    /// Run the scenario of a token (or file) again, twice, and compare.
    Replay(ReplayArgs),
    /// Predict for a real disk or appliance how it would fare at each target.
    Check(CheckArgs),
    /// Show what a real disk or appliance holds, each fact with the file and line or registry key it was read from.
    Inspect(InspectArgs),
    /// Run the migrations that people told of, and show what is predicted beside what they observed.
    Cases(CasesArgs),
    /// Explain a quirk, a check, a product's fact, a route, a relaxation, a product or an unknown by its id.
    Explain(ExplainArgs),
    /// Work on disk images: info, map, check, repair, resize, convert, compare, create, rules.
    Image(ImageArgs),
    /// Make disk images, sound or damaged on purpose, with a list of what must come of them.
    Corpus(CorpusArgs),
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; every document has a `format` number.
    Json,
}

/// Which converters routes may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToolsOf {
    /// Those of the report's lab.
    #[default]
    #[value(name = "2013")]
    Of2013,
    /// Newer ones: qemu-img 10, virt-v2v 2, vCenter Converter 5.1; and routes that need no converter.
    Today,
    /// All.
    All,
}

/// `drylab matrix`
#[derive(Debug, Args)]
#[command(after_help = "\
Scores are results: the exit code is 0 also when cells are FAILURE. The output depends on the seed, the repeats and \
the program, never on jobs, clock, folder or locale.

Examples:
  drylab matrix
  drylab matrix --guest centos-6.3 --seed 7
  drylab matrix --repeat 1000 --jobs 2 --format json
  drylab matrix --product esxi-5.0.0 --product kvm-centos-6.3
  drylab matrix --markdown
  drylab matrix --tools all
  drylab matrix --plausible 100
  drylab matrix --lab my-lab.toml")]
pub(crate) struct MatrixArgs {
    /// Seed of the first repeat; the others count on from it. Decimal, or hexadecimal after 0x.
    #[arg(long, value_name = "N", default_value = "0", value_parser = seed)]
    pub(crate) seed: u64,
    /// Runs of every route in every cell.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repeat: u32,
    /// Worker threads; as many as there are processors unless told. Does not change the output.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) jobs: Option<u32>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// One Markdown table for each guest, for a page.
    #[arg(long, conflicts_with_all = ["format", "plausible"])]
    pub(crate) markdown: bool,
    /// Draw N whole labs from what is unknown of the report's, run every cell in each, and show in which share of them
    /// each finding of the report holds; --seed is that of the first lab.
    #[arg(long, value_name = "N", conflicts_with = "repeat", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) plausible: Option<u32>,
    /// Hosts, shares and networks from this lab file instead of the report's.
    #[arg(long, value_name = "LAB.toml")]
    pub(crate) lab: Option<PathBuf>,
    /// Which converters routes may use.
    #[arg(long, value_enum, default_value_t, conflicts_with = "plausible")]
    pub(crate) tools: ToolsOf,
    /// Only this guest; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) guest: Vec<String>,
    /// Only this product as source and target; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) product: Vec<String>,
}

/// `drylab run`
#[derive(Debug, Args)]
#[command(after_help = "\
A scenario with an `expect` table that comes to something else ends with exit code 2.

Examples:
  drylab run scenario.toml
  drylab run --seed 42 --timeline
  drylab run --seed 0x2a --save scenario.toml
  drylab run scenario.toml --format json")]
pub(crate) struct RunArgs {
    /// A scenario file.
    #[arg(
        value_name = "SCENARIO.toml",
        required_unless_present = "seed",
        conflicts_with = "seed"
    )]
    pub(crate) scenario: Option<PathBuf>,
    /// Generate the scenario from this seed. Decimal, or hexadecimal after 0x.
    #[arg(long, value_name = "N", value_parser = seed)]
    pub(crate) seed: Option<u64>,
    /// How to show it.
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// `drylab replay`
#[derive(Debug, Args)]
#[command(after_help = "\
The scenario is run twice from nothing. Should the two differ, the first event that does is shown and the exit code \
is 4. JSON holds the hashes of trace and outcome and every event.

Examples:
  drylab replay scenario.toml
  drylab replay scenario.toml --timeline
  drylab replay drylab1-040ga18a040fezvwzc --format json
  drylab replay drylab1-040ga18a040fezvwzc --save scenario.toml")]
pub(crate) struct ReplayArgs {
    /// A token (drylab1-…), or a file that holds a token or a scenario.
    #[arg(value_name = "TOKEN|FILE")]
    pub(crate) what: String,
    /// How to show it.
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// How a run is shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Show every event with its virtual time before the checks.
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Write the scenario to this new file before it is run, to be edited and run again.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

/// `drylab check`
#[derive(Debug, Args)]
#[command(after_help = "\
The input is told by its content: raw, VMDK (sparse, stream-optimized or flat), VHD, VHDX, qcow2, QED, VDI, OVF with \
its disks beside it, OVA, XVA. It is only read, and files it names are opened only when they lie in the descriptor's \
own folder. Damage of an image counts as the product reacts to it; see drylab image check --for. The exit code is 0 \
whenever a prediction could be made, also of FAILURE.

Examples:
  drylab check disk.qcow2
  drylab check disk.vmdk --target kvm-centos-6.3
  drylab check appliance.ova --target esxi-5.0.0 --format json")]
pub(crate) struct CheckArgs {
    /// A disk image, an OVF descriptor or an OVA.
    #[arg(value_name = "DISK|OVF|OVA")]
    pub(crate) input: PathBuf,
    /// Predict for this product only; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) target: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Reads headers, tables and the files that matter, never the whole disk.

Examples:
  drylab inspect disk.qcow2
  drylab inspect disk.raw --format json")]
pub(crate) struct InspectArgs {
    /// A disk image, an OVF descriptor or an OVA.
    #[arg(value_name = "DISK")]
    pub(crate) input: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab cases`
#[derive(Debug, Args)]
#[command(after_help = "\
Each case is written from the condition that was told, never from its outcome. A case whose guest, product or \
mechanism is not there is listed with the missing part and counts as neither right nor wrong. Wrong predictions are \
results: the exit code is 0.

Examples:
  drylab cases
  drylab cases --case O-04 --case O-09
  drylab cases --format json
  drylab cases my-cases")]
pub(crate) struct CasesArgs {
    /// A folder of case files of one's own instead of the committed ones.
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Only this case; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) case: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `drylab explain`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  drylab explain GQ01
  drylab explain guest.ip-address
  drylab explain esxi-5.0.0/cpu.vcpus-max
  drylab explain esx-v2v")]
pub(crate) struct ExplainArgs {
    /// An id as other commands print it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Decimal, or hexadecimal after `0x`.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let read = hex.map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    read.map_err(|_| "a seed is a number below 2^64, decimal or hexadecimal after 0x".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Cli, seed};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_they_parse() {
        let mut examples = 0;
        let root = Cli::command();
        let image = root.find_subcommand("image").expect("it is there");
        let top = root.get_subcommands().map(|command| (1, command));
        let below = image.get_subcommands().map(|command| (2, command));
        for (place, command) in top.chain(below) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let (_, listed) = help.split_once("Examples:\n").expect("there are examples");
            for line in listed.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                assert_eq!(words.first(), Some(&"drylab"), "{line}");
                assert_eq!(words.get(place), Some(&command.get_name()), "{line}");
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{line}: {error}");
                }
                examples += 1;
            }
        }
        assert!(examples >= 40, "{examples}");
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(seed("42"), Ok(42));
        assert_eq!(seed("0x2A"), Ok(42));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["", "-1", "18446744073709551616", "0x", "2a", "1.0"] {
            assert!(seed(wrong).is_err(), "{wrong}");
        }
    }
}
