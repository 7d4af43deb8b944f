//! What users of qemu-img type out of habit, and what is typed here instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to type instead of the argument that was not understood; `None` when qemu-img has no such argument either.
pub(crate) fn hint(error: &clap::Error) -> Option<&'static str> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(said)) => Some(said.as_str()),
        _ => None,
    };
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

fn instead(command: &str, argument: &str) -> Option<&'static str> {
    let writes = ["convert", "create"].contains(&command);
    Some(match argument {
        "-O" => "the format to write is said as --to FORMAT",
        "-f" | "-F" if command == "create" => {
            "the format to write is said as --to FORMAT; that of --backing is told by its content"
        }
        "-f" | "-F" | "--image-opts" => {
            "the format of an image is told by its content, and cannot be said; that of the output is --format"
        }
        "-o" if writes => "the kind within the format is said as --subformat NAME, see --help",
        "-c" if writes => "say --compress zlib, or for vmdk --subformat streamOptimized",
        "-b" if writes => "the image to stand on is said as --backing FILE",
        "-m" | "-W" if command == "convert" => "the number of threads is said as --jobs N",
        "-S" if command == "convert" => "zeros are never stored, and there is no size to say",
        "-r" | "--repair" => {
            "drylab image repair FILE mends what check finds; with --dry-run it shows what it would"
        }
        "-s" if command == "compare" => "say --strict",
        "--output" => "the form of the output is said as --format json",
        "--backing-chain" => "say --allow-beneath DIR, and the whole chain is shown",
        "-p" => "progress is shown by itself when standard error is a terminal",
        "-q" => "standard output can be sent to /dev/null; the exit code tells the result",
        "-U" | "--force-share" => {
            "images are read also when they are in use, with a word on standard error"
        }
        _ => return None,
    })
}
