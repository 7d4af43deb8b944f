//! `drylab image check`

use super::document::{FORMAT, FindingsDocument, ImageDocument, json, tally};
use super::open;
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::ImageCheckArgs;
use crate::terminal;
use drylab_block::Severity;
use drylab_image::Findings;
use serde::Serialize;

#[derive(Serialize)]
struct Document {
    format: u32,
    image: ImageDocument,
    damaged: bool,
    findings: FindingsDocument,
}

pub(super) fn run(args: &ImageCheckArgs) -> Result<Exit, Stop> {
    let opened = open(&args.file, &args.reading)?;
    let task = format!("check {}", args.file.display());
    let turning = terminal::turning("checking");
    let found = opened.image.check().on(task);
    turning.finish_and_clear();
    let found = found?;
    let exit = verdict(&found, args.strict);
    let image = ImageDocument::of(&args.file, &opened)?;
    let findings = FindingsDocument::of(&found, &image.file);
    terminal::print(&match args.format {
        Format::Json => json(&Document {
            format: FORMAT,
            damaged: exit == Exit::Damaged,
            findings,
            image,
        })?,
        Format::Text => {
            let (list, format, kind) = (findings.text(), image.format, &image.subformat);
            let said = format!("{}: {format} {kind}", image.file);
            format!("{list}{}: {}\n", said.trim_end(), tally(&found))
        }
    })?;
    Ok(exit)
}

/// Whether findings are damage.
pub(super) fn verdict(found: &Findings, strict: bool) -> Exit {
    match found.worst() {
        Some(Severity::Error) => Exit::Damaged,
        Some(Severity::Warning) if strict => Exit::Damaged,
        _ => Exit::Done,
    }
}
