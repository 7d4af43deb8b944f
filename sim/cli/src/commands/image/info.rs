//! `drylab image info`

use super::document::{
    DeniedDocument, FORMAT, FindingsDocument, ImageDocument, SecondDocument, json,
};
use super::open;
use crate::args::Format;
use crate::beneath::Beneath;
use crate::exit::{Exit, Stop};
use crate::image_args::InfoArgs;
use crate::quantity::shown;
use crate::source::FileSource;
use crate::terminal;
use drylab_block::{ReadAt, Reference, Resolver, SparseBytes};
use drylab_image::{
    Findings, Qcow2Options, Target, VdiOptions, VhdOptions, VhdxOptions, VmdkOptions, Work,
};
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
    not_opened: Vec<DeniedDocument>,
    findings: FindingsDocument,
}

pub(super) fn run(args: &InfoArgs) -> Result<Exit, Stop> {
    let opened = match open(&args.file, &args.reading) {
        Ok(opened) => opened,
        Err(stop) => {
            if let Some(document) = alone(args) {
                print(&document, args.format)?;
            }
            return Err(stop);
        }
    };
    let info = opened.image.info();
    let image = ImageDocument::of(&args.file, &opened)?;
    let (files, read) = (opened.beneath.opened(), opened.image.backing_files());
    let document = Document {
        format: FORMAT,
        files: files
            .iter()
            .map(|second| SecondDocument::of(second, &image.file, &read))
            .collect(),
        not_opened: Vec::new(),
        findings: FindingsDocument::of(&info.findings, &image.file),
        details: info.details,
        image,
    };
    print(&document, args.format)?;
    Ok(Exit::Done)
}

fn print(document: &Document, format: Format) -> Result<(), Stop> {
    terminal::print(&match format {
        Format::Json => json(document)?,
        Format::Text => text(document),
    })
}

/// An empty file in the place of every file that is not opened.
struct Stand(Arc<dyn ReadAt>);

impl Resolver for Stand {
    fn resolve(&self, _: &Reference) -> drylab_block::Result<Arc<dyn ReadAt>> {
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

/// What an image says of itself, when it was not opened since files that it names were not. What was found on the way
/// is left out: it may be of what stands in their place.
fn alone(args: &InfoArgs) -> Option<Document> {
    let source = Arc::new(FileSource::open(&args.file).ok()?);
    let beneath = Beneath::new(&args.file, &source, args.reading.allow_beneath.as_deref()).ok()?;
    super::image(source.clone(), &beneath, &args.reading).err()?;
    let named = beneath.denied();
    if named.is_empty() {
        return None;
    }
    let found = drylab_image::detect(&*source).ok()?;
    let opened = |stand: &Stand| super::image(source.clone(), stand, &args.reading).ok();
    let info = stands().iter().find_map(opened)?.info();
    let kind = (found.format, found.subformat.as_str());
    // What stands in the place of an extent has a size of its own; a line says that of the extent.
    let is_own = |one: &Reference| one.kind == "extent" && one.by.is_empty();
    let size = match named.iter().any(is_own) {
        true => extents_size(&info.details)?,
        false => info.virtual_size,
    };
    let image = ImageDocument::of_file(&args.file, &source, kind, size).ok()?;
    let files = beneath.opened();
    let files = files
        .iter()
        .map(|second| SecondDocument::of(second, &image.file, &[]));
    let named = named
        .into_iter()
        .map(|denied| DeniedDocument::of(denied, &image.file));
    Some(Document {
        format: FORMAT,
        findings: FindingsDocument::of(&Findings::default(), &image.file),
        files: files.collect(),
        not_opened: named.collect(),
        details: info.details,
        image,
    })
}

/// The bytes of all extents of a VMDK, by the sectors that its lines begin with.
fn extents_size(details: &[(String, String)]) -> Option<u64> {
    // A key may be called so, too; the line of an extent has a name in quotes behind its type.
    let of_line = |(key, value): &(String, String)| {
        let mut words = value.split_whitespace();
        let sectors = words.next()?.parse::<u64>().ok()?;
        let is_line = words.nth(1).is_some_and(|name| name.starts_with('"'));
        (key == "extent" && is_line).then_some(sectors)
    };
    let mut sectors = details.iter().filter_map(of_line);
    let sum = sectors.try_fold(0u64, |sum, one| sum.checked_add(one))?;
    sum.checked_mul(512)
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
            "  {} {:?} of {} is {}: {}, {}, of which {} are allocated",
            file.kind,
            file.name,
            harmless(&file.named_by),
            harmless(&file.file),
            file.format.unwrap_or("of no known format"),
            shown(file.file_bytes),
            shown(file.allocated_bytes.unwrap_or_default())
        );
    }
    for file in &document.not_opened {
        let (kind, name, by) = (file.kind, &file.name, harmless(&file.named_by));
        let _ = writeln!(text, "  {kind} {name:?} of {by} is not opened");
    }
    text.push_str(&document.findings.text());
    text
}
