//! One file for each command.

mod cases;
mod check;
mod corpus;
mod explain;
mod image;
mod inspect;
mod matrix;
mod replay;
mod run;

use crate::args::{Cli, Command};
use crate::exit::{Exit, Stop};
use crate::{habits, nearest, terminal};
use clap::Parser;
use clap::error::ErrorKind;

/// Reads the command line and does what it says.
pub(crate) fn main() -> Exit {
    let done = match Cli::try_parse() {
        Ok(cli) => obey(&cli.command),
        Err(shown) => return help_or_usage(&shown),
    };
    match done {
        Ok(exit) => exit,
        Err(stop) => {
            terminal::diagnose(&stop.says);
            stop.exit
        }
    }
}

fn obey(command: &Command) -> Result<Exit, Stop> {
    match command {
        Command::Matrix(args) => matrix::run(args),
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Cases(args) => cases::run(args),
        Command::Check(args) => check::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Image(args) => image::run(args),
        Command::Corpus(args) => corpus::run(args),
    }
}

/// Help that was asked for is data on standard output; everything else is a usage error.
fn help_or_usage(shown: &clap::Error) -> Exit {
    let asked = matches!(
        shown.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let text = shown.render().to_string();
    if shown.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        terminal::complain(&text);
        return Exit::Usage;
    }
    if let Some(hint) = habits::hint(shown) {
        // Better than clap's own tip, that what was typed could be a value.
        let lines = text.lines().filter(|line| !line.starts_with("  tip: "));
        let mut lines: Vec<&str> = lines.collect();
        lines.dedup_by(|next, line| next.is_empty() && line.is_empty());
        let hint = format!("  {hint}");
        lines.splice(1..1, ["", &hint]);
        terminal::diagnose(lines.join("\n").trim_start_matches("error: ").trim_end());
        return Exit::Usage;
    }
    if !asked {
        terminal::diagnose(text.trim_start_matches("error: ").trim_end());
        return Exit::Usage;
    }
    match terminal::print(&text) {
        Ok(()) => Exit::Done,
        Err(stop) => stop.exit,
    }
}

/// The ids that were asked for, in the order of the known ones; all when none was.
fn chosen<T: Clone + ToString>(what: &str, asked: &[String], known: &[T]) -> Result<Vec<T>, Stop> {
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    if let Some(stranger) = asked.iter().find(|id| !names.contains(id)) {
        let hint = nearest::hint(stranger, names.iter().map(String::as_str));
        let known = names.join(", ");
        return Err(Stop::usage(format_args!(
            "there is no {what} {stranger:?}{hint} (known: {known})"
        )));
    }
    let wanted = |(_, name): &(&T, &String)| asked.is_empty() || asked.contains(name);
    let pairs = known.iter().zip(&names).filter(wanted);
    Ok(pairs.map(|(id, _)| id.clone()).collect())
}
