//! `drylab image info`

use super::document::{FORMAT, FindingsDocument, ImageDocument, SecondDocument, json};
use super::open;
use crate::args::Format;
use crate::exit::{Exit, Stop};
use crate::image_args::InfoArgs;
use crate::quantity::shown;
use crate::terminal;
use drylab_report::harmless;
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct Document {
    format: u32,
    image: ImageDocument,
    details: Vec<(String, String)>,
    files: Vec<SecondDocument>,
    findings: FindingsDocument,
}

pub(super) fn run(args: &InfoArgs) -> Result<Exit, Stop> {
    let opened = open(&args.file, &args.reading)?;
    let info = opened.image.info();
    let image = ImageDocument::of(&args.file, &opened)?;
    let files = opened.beneath.opened();
    let document = Document {
        format: FORMAT,
        files: files
            .iter()
            .map(|second| SecondDocument::of(second, &image.file))
            .collect(),
        findings: FindingsDocument::of(&info.findings, &image.file),
        details: info.details,
        image,
    };
    terminal::print(&match args.format {
        Format::Json => json(&document)?,
        Format::Text => text(&document),
    })?;
    Ok(Exit::Done)
}

fn text(document: &Document) -> String {
    let mut text = document.image.text();
    let width = document.details.iter().map(|(key, _)| key.chars().count());
    let width = width.max().unwrap_or(0).clamp(12, 40);
    for (key, value) in &document.details {
        let (key, value) = (harmless(key), harmless(value));
        let _ = writeln!(text, "  {key:<width$}  {}", value.trim_end());
    }
    for file in &document.files {
        let _ = writeln!(
            text,
            "  {} {:?} of {} is {}: {}, {}",
            file.kind,
            file.name,
            harmless(&file.named_by),
            harmless(&file.file),
            file.format.unwrap_or("of no known format"),
            shown(file.file_bytes)
        );
    }
    text.push_str(&document.findings.text());
    text
}
