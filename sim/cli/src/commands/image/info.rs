//! `drylab image info`

use super::document::{FORMAT, FindingsDocument, ImageDocument, SecondDocument, json};
use super::open;
use crate::args::Format;
use crate::beneath::Beneath;
use crate::exit::{Exit, Stop};
use crate::image_args::InfoArgs;
use crate::quantity::shown;
use crate::source::FileSource;
use crate::terminal;
use drylab_block::ReadAt;
use drylab_report::harmless;
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;

#[derive(Serialize)]
struct Document {
    format: u32,
    image: ImageDocument,
    details: Vec<(String, String)>,
    files: Vec<SecondDocument>,
    findings: FindingsDocument,
}

pub(super) fn run(args: &InfoArgs) -> Result<Exit, Stop> {
    let opened = match open(&args.file, &args.reading) {
        Ok(opened) => opened,
        Err(stop) => {
            if let Some(text) = alone(args).filter(|_| args.format == Format::Text) {
                terminal::print(&text)?;
            }
            return Err(stop);
        }
    };
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

/// What can be told of an image without the files that it names, when it was not opened for want of them.
fn alone(args: &InfoArgs) -> Option<String> {
    let source = Arc::new(FileSource::open(&args.file).ok()?);
    let beneath = Beneath::new(&args.file, &source, args.reading.allow_beneath.as_deref()).ok()?;
    super::image(source.clone(), &beneath, &args.reading).err()?;
    let named = beneath.denied();
    if named.is_empty() {
        return None;
    }
    let found = drylab_image::detect(&*source).ok()?;
    let kind = format!("{} {}", found.format, found.subformat);
    let mut text = format!(
        "{}: {}\n  file          {}, of which {} are allocated\n",
        args.file.display(),
        kind.trim_end(),
        shown(source.len()),
        shown(source.allocated().ok()?)
    );
    for (kind, name) in named {
        let _ = writeln!(text, "  {kind} {name:?} is not opened");
    }
    Some(harmless(&text))
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
