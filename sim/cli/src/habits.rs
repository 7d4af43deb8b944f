//! What users of qemu-img type out of habit, and what is typed here instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to type instead of the argument that was not understood; `None` when qemu-img has no such argument either.
pub(crate) fn hint(error: &clap::Error) -> Option<&'static str> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(said)) => Some(said.as_str()),
        _ => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        let command = said(ContextKind::InvalidSubcommand)?;
        let found = ABSENT
            .iter()
            .find(|(commands, _)| commands.contains(&command));
        return found.map(|(_, hint)| *hint);
    }
    let argument = said(ContextKind::InvalidArg)?;
    match error.kind() {
        ErrorKind::InvalidValue => {
            let value = said(ContextKind::InvalidValue)?;
            let names_format = argument.starts_with("--to ");
            (names_format && value.eq_ignore_ascii_case("vpc")).then_some(VPC)
        }
        ErrorKind::UnknownArgument => {
            let usage = error.render().to_string();
            let (_, command) = usage.split_once("Usage: drylab image ")?;
            instead(command.split_whitespace().next()?, argument)
        }
        _ => None,
    }
}

/// What `vpc` is called here.
pub(crate) const VPC: &str = "qemu-img's vpc is called vhd here";

/// Arguments of qemu-img, the commands here whose users type them, and what is said to these.
type Habit = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

const HABITS: &[Habit] = &[
    (
        &["-O"],
        &["convert", "create"],
        "the format to write is said as --to FORMAT",
    ),
    (
        &["-f", "-F"],
        &["create"],
        "the format to write is said as --to FORMAT; that of --backing is told by its content, or --raw",
    ),
    (
        &["-f", "-F", "--image-opts"],
        &["convert"],
        "the format of an image is told by its content, and only --raw says another; the one to write is said as --to FORMAT",
    ),
    (
        &["-f", "-F", "--image-opts"],
        &["info", "map", "check", "repair", "resize", "compare"],
        "the format of an image is told by its content, and only --raw says another; that of the output is --format",
    ),
    (
        &["-o"],
        &["convert", "create"],
        "the kind within the format is said as --subformat NAME, and --for PRODUCT chooses what a product wants; sizes of \
         clusters and blocks, and preallocation, cannot be chosen",
    ),
    (
        &["-n", "--target-is-zero"],
        &["convert"],
        "the destination is always a new file; --force lets it take the place of one that is there",
    ),
    (
        &["-l", "--snapshot"],
        &["convert"],
        "internal snapshots are not read, only the disk as it is now",
    ),
    (
        &["-t", "-T"],
        &["convert", "compare", "check", "resize"],
        "there are no cache modes; drylab image convert --sync says when the file is on the medium",
    ),
    (
        &["-C"],
        &["convert"],
        "ranges are shared where the file system can, without being asked",
    ),
    (
        &["-u"],
        &["create"],
        "the image to stand on is opened: its size and identity are written in the child",
    ),
    (
        &["--preallocation"],
        &["resize"],
        "no room is set aside for what is not written",
    ),
    (
        &["-c"],
        &["convert"],
        "say --compress zlib, or for vmdk --subformat streamOptimized",
    ),
    (
        &["-b"],
        &["create"],
        "the image to stand on is said as --backing FILE",
    ),
    (
        &["-b", "-B"],
        &["convert"],
        "what is written holds the whole disk and stands on no other image; drylab image create --backing FILE makes one \
         that does",
    ),
    (
        &["-m", "-W"],
        &["convert"],
        "the number of threads is said as --jobs N",
    ),
    (
        &["-S"],
        &["convert"],
        "zeros are never stored, and there is no size to say",
    ),
    (
        &["-r", "--repair"],
        &["check"],
        "drylab image repair FILE mends what check finds; with --dry-run it shows what it would",
    ),
    (&["-s"], &["compare"], "say --strict"),
    (
        &["--output"],
        &[
            "info", "map", "check", "repair", "resize", "convert", "compare", "create",
        ],
        "the form of the output is said as --format json",
    ),
    (
        &["--backing-chain"],
        &["info"],
        "say --allow-beneath DIR, and the whole chain is shown",
    ),
    (
        &["-p"],
        &["check", "convert", "compare"],
        "progress is shown by itself when standard error is a terminal",
    ),
    (
        &["-q"],
        &["check", "repair", "resize", "convert", "compare", "create"],
        "standard output can be sent to /dev/null; the exit code tells the result",
    ),
    (
        &["-U", "--force-share"],
        &["info", "map", "check", "convert", "compare"],
        "images are read also when they are in use, with a word on standard error",
    ),
];

/// Commands of qemu-img that are not here.
const ABSENT: &[(&[&str], &str)] = &[
    (
        &["snapshot", "commit", "rebase", "amend", "bitmap"],
        "no snapshot is made, merged or removed in place; drylab image convert SRC DST --to FORMAT --allow-beneath DIR writes \
         what a chain shows as one file",
    ),
    (
        &["measure", "dd", "bench"],
        "drylab image has nothing for it; drylab image convert writes only what is not zeros",
    ),
];

fn instead(command: &str, argument: &str) -> Option<&'static str> {
    let mut habits = HABITS.iter();
    let found = habits
        .find(|(typed, commands, _)| typed.contains(&argument) && commands.contains(&command));
    found.map(|(_, _, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{Command, CommandFactory};

    fn takes(command: &Command, argument: &str) -> bool {
        let long = argument.strip_prefix("--");
        let short = argument
            .strip_prefix('-')
            .and_then(|rest| rest.parse().ok());
        let mut all = command.get_arguments();
        all.any(|arg| match long {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short() == short,
        })
    }

    #[test]
    fn every_option_that_a_hint_names_is_one_of_its_command() {
        let mut root = Cli::command();
        root.build();
        let image = root.find_subcommand("image").expect("it is there");
        let command = |name: &str| {
            image
                .find_subcommand(name)
                .expect("there is such a command")
        };
        for (typed, commands, hint) in HABITS {
            for name in *commands {
                for argument in *typed {
                    assert!(!takes(command(name), argument), "{name} takes {argument}");
                    assert_eq!(instead(name, argument), Some(*hint), "{name} {argument}");
                }
                // What stands behind the name of another command is meant of that one.
                let mut of = command(name);
                let words: Vec<&str> = hint.split([' ', ',', ';']).collect();
                for (at, word) in words.iter().enumerate() {
                    if words[..at].ends_with(&["drylab", "image"]) {
                        of = command(word);
                    } else if word.starts_with("--") {
                        let known = *word == "--help" || takes(of, word);
                        assert!(known, "{name}: {hint:?}: {} has no {word}", of.get_name());
                    }
                }
            }
        }
    }
}
