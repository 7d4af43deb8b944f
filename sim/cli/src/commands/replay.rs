//! `drylab replay`

use super::run::{once, read_text, save, show};
use crate::args::ReplayArgs;
use crate::exit::{Exit, Stop};
use drylab_kernel::Trace;
use drylab_pipeline::{Library, RunReport};
use drylab_scenario::{Scenario, ScenarioError, Token};
use std::path::Path;

/// What every token begins with.
const TOKEN: &str = "drylab1-";
/// Longest part of a token repeated in a message, in characters.
const NAMED: usize = 24;

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, Stop> {
    let (scenario, name) = scenario(&args.what)?;
    save(&args.show, &scenario)?;
    // Twice from nothing: what a first run remembers must not change the second.
    let first = once(&Library::new(), &scenario, &name, Trace::new())?;
    let second = once(&Library::new(), &scenario, &name, Trace::new())?;
    if let Some(says) = difference(&first, &second) {
        return Err(Stop {
            exit: Exit::Nondeterminism,
            says,
        });
    }
    show(&first, &args.show)
}

/// The scenario that a token, or a file with a token or a scenario, stands for; and what to call it.
fn scenario(what: &str) -> Result<(Scenario, String), Stop> {
    if what.starts_with(TOKEN) {
        let mut name: String = what.chars().take(NAMED).collect();
        if name.len() < what.len() {
            name.push('…');
        }
        let read = of_token(what).map_err(|why| Stop::input(format_args!("read {name}"), why));
        return Ok((read?, name));
    }
    let text = read_text(Path::new(what))?;
    let read = if text.trim_start().starts_with(TOKEN) {
        of_token(&text)
    } else {
        Scenario::from_toml(&text)
    };
    let read = read.map_err(|why| Stop::input(format_args!("read {what}"), why));
    Ok((read?, what.to_owned()))
}

fn of_token(text: &str) -> Result<Scenario, ScenarioError> {
    Token::parse(text)?.scenario()
}

/// How two runs of one scenario differ: the first event that does, or the hashes.
fn difference(first: &RunReport, second: &RunReport) -> Option<String> {
    if first.trace.hash() == second.trace.hash() && first.outcome_hash == second.outcome_hash {
        return None;
    }
    let (one, two) = (first.trace.events(), second.trace.events());
    let at = one.iter().zip(two).position(|(one, two)| one != two);
    let at = at.unwrap_or_else(|| one.len().min(two.len()));
    Some(format!(
        "two runs of one scenario differ, first in event {at}: {:?} and {:?}; outcomes {} and {}",
        one.get(at),
        two.get(at),
        first.outcome_hash,
        second.outcome_hash
    ))
}
