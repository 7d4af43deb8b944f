//! `drylab run`, and what running has in common with `drylab replay`.

use crate::args::{Format, RunArgs, ShowArgs};
use crate::exit::{Exit, Stop, While};
use crate::source::FileSource;
use crate::terminal;
use drylab_block::{Limits, ReadAt, read_vec};
use drylab_kernel::Trace;
use drylab_pipeline::{Library, RunReport, vocabulary};
use drylab_report::{run_json, run_text, timeline};
use drylab_scenario::{Scenario, generate};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Largest scenario file, in bytes.
const SCENARIO_MAX: u64 = 1 << 20;

pub(super) fn run(args: &RunArgs) -> Result<Exit, Stop> {
    let library = Library::new();
    let (scenario, name) = match (&args.scenario, args.seed) {
        (Some(path), _) => (read(path)?, path.display().to_string()),
        (None, seed) => {
            let seed = seed.unwrap_or_default();
            let words = vocabulary(&library.routes, Library::guests());
            (
                generate(seed, &words),
                format!("the scenario of seed {seed}"),
            )
        }
    };
    save(&args.show, &scenario)?;
    let report = once(&library, &scenario, &name, kept(args.show.timeline))?;
    show(&report, &args.show)
}

/// A trace with its events, or only their hash.
fn kept(events: bool) -> Trace {
    if events {
        Trace::new()
    } else {
        Trace::hashing_only()
    }
}

/// Runs a scenario; `name` says in messages which.
pub(super) fn once(
    library: &Library,
    scenario: &Scenario,
    name: &str,
    trace: Trace,
) -> Result<RunReport, Stop> {
    drylab_pipeline::run(library, scenario, trace)
        .map_err(|why| Stop::input(format_args!("run {name}"), why))
}

/// Reads a scenario file.
pub(super) fn read(path: &Path) -> Result<Scenario, Stop> {
    let text = read_text(path)?;
    Scenario::from_toml(&text)
        .map_err(|why| Stop::input(format_args!("read {}", path.display()), why))
}

/// Reads a small text file.
pub(super) fn read_text(path: &Path) -> Result<String, Stop> {
    let task = || format!("read {}", path.display());
    let file = FileSource::open(path).on(task())?;
    if file.len() > SCENARIO_MAX {
        let why = format!(
            "it has {} bytes, a scenario at most {SCENARIO_MAX}",
            file.len()
        );
        return Err(Stop::input(task(), why));
    }
    let bytes = read_vec(&file, "scenario", 0, file.len(), &Limits::DEFAULT).on(task())?;
    String::from_utf8(bytes).map_err(|wrong| {
        let place = wrong.utf8_error().valid_up_to();
        Stop::input(task(), format_args!("it is not UTF-8 at byte {place}"))
    })
}

/// Writes the scenario before it is run, so that it is there whatever the run does. Never over another file.
pub(super) fn save(args: &ShowArgs, scenario: &Scenario) -> Result<(), Stop> {
    let Some(path) = &args.save else {
        return Ok(());
    };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(scenario.to_toml().as_bytes()))
        .map_err(|why| Stop::input(format_args!("write {}", path.display()), why))
}

/// Prints a run, and holds it against what the scenario expects.
pub(super) fn show(report: &RunReport, args: &ShowArgs) -> Result<Exit, Stop> {
    let mut text = String::new();
    match args.format {
        Format::Json => text.push_str(&run_json(report)),
        Format::Text => {
            if args.timeline {
                text.push_str(&timeline(report));
                text.push('\n');
            }
            text.push_str(&run_text(report, terminal::paint()));
        }
    }
    terminal::print(&text)?;
    match disappointment(report) {
        None => Ok(Exit::Done),
        Some(says) => Err(Stop {
            exit: Exit::NotExpected,
            says,
        }),
    }
}

/// How the run differs from the scenario's `expect`.
fn disappointment(report: &RunReport) -> Option<String> {
    let expect = report.scenario.expect.as_ref()?;
    let (overall, signature) = (report.overall.to_string(), report.signature());
    if expect.overall != overall {
        return Some(format!(
            "the scenario expects {} and came to {overall}",
            expect.overall
        ));
    }
    if !expect.signature.is_empty() && expect.signature != signature {
        return Some(format!(
            "the scenario expects the signature {:?} and came to {signature:?}",
            expect.signature
        ));
    }
    None
}
