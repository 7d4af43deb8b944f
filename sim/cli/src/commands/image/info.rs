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
use drylab_block::{ReadAt, Reference, Resolver, Result, SparseBytes};
use drylab_image::{Qcow2Options, Target, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions, Work};
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

/// An empty file in the place of every file that is not opened.
struct Stand(Arc<dyn ReadAt>);

impl Resolver for Stand {
    fn resolve(&self, _: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(self.0.clone())
    }
}

/// One of no format, and one of each that a child may want its parent to be of.
fn stands() -> Vec<Stand> {
    let disk = SparseBytes::new(1 << 20);
    let targets = [
        Target::Raw,
        Target::Qcow2(Qcow2Options::default()),
        Target::VmdkSparse(VmdkOptions::default()),
        Target::VhdDynamic(VhdOptions::default()),
        Target::VhdxDynamic(VhdxOptions::default()),
        Target::VdiDynamic(VdiOptions::default()),
    ];
    let made = targets.iter().filter_map(|target| {
        let file = SparseBytes::default();
        drylab_image::write_with(&disk, target, &file, &Work::ALONE).ok()?;
        Some(Stand(Arc::new(file)))
    });
    made.collect()
}

/// What an image says of itself, when it was not opened for want of the files that it names.
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
    let mut text = format!("{}: {}\n", args.file.display(), kind.trim_end());
    let opened = |stand: &Stand| super::image(source.clone(), stand, &args.reading).ok();
    let info = stands().iter().find_map(opened).map(|image| image.info());
    if let Some(info) = &info {
        let _ = writeln!(text, "  virtual size  {}", shown(info.virtual_size));
    }
    let (file, allocated) = (shown(source.len()), shown(source.allocated().ok()?));
    let _ = writeln!(
        text,
        "  file          {file}, of which {allocated} are allocated"
    );
    text.push_str(&details_text(
        &info.map(|info| info.details).unwrap_or_default(),
    ));
    for (kind, name) in named {
        let _ = writeln!(text, "  {kind} {name:?} is not opened");
    }
    Some(harmless(&text))
}

fn details_text(details: &[(String, String)]) -> String {
    let width = details.iter().map(|(key, _)| key.chars().count());
    let width = width.max().unwrap_or(0).clamp(12, 40);
    let mut text = String::new();
    for (key, value) in details {
        let (key, value) = (harmless(key), harmless(value));
        let _ = writeln!(text, "  {key:<width$}  {}", value.trim_end());
    }
    text
}

fn text(document: &Document) -> String {
    let mut text = document.image.text();
    text.push_str(&details_text(&document.details));
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
