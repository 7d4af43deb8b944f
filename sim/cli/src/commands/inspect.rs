//! `drylab inspect`

use crate::args::{Format, InspectArgs};
use crate::exit::{Exit, Stop, While};
use crate::input::{Input, LIMITS};
use crate::terminal;
use drylab_guest::inspect::inspect;
use drylab_report::{containers_text, inspect_json, inspect_text};

pub(super) fn run(args: &InspectArgs) -> Result<Exit, Stop> {
    let input = Input::open(&args.input)?;
    let found = inspect(&input.disks, &LIMITS);
    // What is known of the container is worth having even when nothing is installed in it.
    if found.is_err() && args.format == Format::Text {
        terminal::print(&containers_text(&input.containers, &input.noticed))?;
    }
    let guest = found.on(format_args!("inspect {}", args.input.display()))?;
    terminal::print(&match args.format {
        Format::Text => inspect_text(&input.containers, &input.noticed, &guest),
        Format::Json => inspect_json(&input.containers, &input.noticed, &guest),
    })?;
    for system in &input.further_systems {
        terminal::diagnose(&format!(
            "the descriptor's virtual system {system:?} was not looked at: only the first is"
        ));
    }
    Ok(Exit::Done)
}
