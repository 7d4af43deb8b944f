//! `drylab image convert`, and how files are written.

use super::document::{FORMAT, ImageDocument, json};
use super::target::{Chosen, Shape, choose};
use super::{open, same_file};
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::{Compress, ConvertArgs, Level, Output, Sync, To};
use crate::quantity::shown;
use crate::sink::FileSink;
use crate::terminal;
use drylab_block::{Error, ReadAt, Result, Severity, WriteAt};
use drylab_image::profile::Profile;
use drylab_image::{Progress, Qcow2Compression, Target, VmdkOptions, Work, Written};
use drylab_report::harmless;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// A file that was written.
#[derive(Serialize)]
pub(super) struct WrittenDocument {
    file: String,
    format: &'static str,
    subformat: String,
    virtual_bytes: u64,
    /// Of all its files together.
    file_bytes: u64,
    /// What was chosen for a product, with the reasons.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    product: Option<ProductDocument>,
}

#[derive(Serialize)]
struct ProductDocument {
    name: &'static str,
    title: &'static str,
    kind: WantDocument,
    wants: Vec<WantDocument>,
}

#[derive(Serialize)]
struct WantDocument {
    field: &'static str,
    value: &'static str,
    why: &'static str,
    source: &'static str,
}

impl WrittenDocument {
    pub(super) fn of(path: &Path, chosen: &Chosen, disk_bytes: u64, file_bytes: u64) -> Self {
        Self {
            file: path.to_string_lossy().into_owned(),
            format: chosen.format.name(),
            subformat: chosen.subformat.to_owned(),
            virtual_bytes: chosen.shape.virtual_bytes(disk_bytes),
            file_bytes,
            product: chosen.profile.map(|profile| product(profile, chosen)),
        }
    }

    pub(super) fn text(&self) -> String {
        let (disk, file) = (self.virtual_bytes, self.file_bytes);
        let mut text = format!("{}: {disk} bytes of disk in {file} bytes\n", self.file);
        if let Some(product) = &self.product {
            let _ = writeln!(text, "  for {}:", product.title);
            for want in std::iter::once(&product.kind).chain(&product.wants) {
                let _ = writeln!(
                    text,
                    "  {}: {}; {} ({})",
                    want.field, want.value, want.why, want.source
                );
            }
        }
        text
    }
}

fn product(profile: &'static Profile, chosen: &Chosen) -> ProductDocument {
    let kind = profile.kind(chosen.format, Some(chosen.subformat));
    let kind = kind.unwrap_or_else(|| profile.default_kind());
    let wants = profile.wants.iter();
    ProductDocument {
        name: profile.name,
        title: profile.title,
        kind: WantDocument {
            field: "kind",
            value: if kind.subformat.is_empty() {
                kind.format.name()
            } else {
                kind.subformat
            },
            why: kind.why,
            source: kind.source,
        },
        wants: wants
            .map(|want| WantDocument {
                field: want.field,
                value: want.value,
                why: want.why,
                source: want.source,
            })
            .collect(),
    }
}

#[derive(Serialize)]
struct Document {
    format: u32,
    source: ImageDocument,
    destination: WrittenDocument,
}

pub(super) fn run(args: &ConvertArgs) -> Result<Exit, Stop> {
    let mut chosen = choose(&args.into)?;
    tune(args, &mut chosen)?;
    let (from, to) = (&args.source, &args.destination);
    if same_file(from, to) {
        return Err(Stop::usage("source and destination are one file"));
    }
    let opened = open(from, &args.reading)?;
    let seconds = opened.beneath.opened();
    if seconds
        .iter()
        .any(|second| same_file(Path::new(&second.key), to))
    {
        return Err(Stop::usage(
            "the destination is a file that the source stands on",
        ));
    }
    let bar = terminal::byte_progress();
    let tell = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let jobs = std::thread::available_parallelism().map_or(1, |jobs| jobs.get());
    let work = Work {
        jobs: args.jobs.unwrap_or(u32::try_from(jobs).unwrap_or(1)),
        progress: if bar.is_hidden() { None } else { Some(&tell) },
    };
    let disk: &dyn ReadAt = &opened.image;
    let done = write(disk, &chosen.shape, to, &args.into, &work);
    bar.finish_and_clear();
    let task = || format!("write {}", to.display());
    let written = done
        .map_err(|error| error.within(from.display()))
        .on(task())?;
    let document = Document {
        format: FORMAT,
        source: ImageDocument::of(from, &opened)?,
        destination: WrittenDocument::of(to, &chosen, disk.len(), written.file_bytes),
    };
    terminal::print(&match args.format {
        Format::Json => json(&document)?,
        Format::Text => {
            let mut text = document.destination.text();
            let (old, new) = (disk.len(), document.destination.virtual_bytes);
            if new > old {
                let _ = writeln!(text, "  the disk grew from {}", shown(old));
            }
            let findings = opened.image.info().findings;
            if findings.worst() == Some(Severity::Error) {
                let name = harmless(&from.to_string_lossy());
                let _ = writeln!(text, "  {name} is damaged; see drylab image check");
            }
            text
        }
    })?;
    Ok(Exit::Done)
}

/// Sets how things are compressed.
fn tune(args: &ConvertArgs, chosen: &mut Chosen) -> Result<(), Stop> {
    let level = |[fast, default, best]: [u32; 3]| match args.level {
        Level::Fast => fast,
        Level::Default => default,
        Level::Best => best,
    };
    match &mut chosen.shape {
        Shape::One(Target::VmdkStream(options)) => options.level = level([1, 6, 9]),
        Shape::One(Target::Qcow2(options)) => {
            let zstd = args.compress == Some(Compress::Zstd);
            options.compress = args.compress.is_some();
            options.compression = if zstd {
                Qcow2Compression::Zstd
            } else {
                Qcow2Compression::Zlib
            };
            options.level = level(if zstd { [1, 3, 12] } else { [1, 6, 9] });
            return Ok(());
        }
        _ => {}
    }
    if args.compress.is_some() {
        let hint = if args.into.to == Some(To::Vmdk) {
            "; for vmdk say --subformat streamOptimized"
        } else {
            ""
        };
        return Err(Stop::usage(format_args!("--compress is for qcow2{hint}")));
    }
    Ok(())
}

/// Writes a disk: all files of the image, or none of them under its name.
pub(super) fn write(
    disk: &dyn ReadAt,
    shape: &Shape,
    path: &Path,
    into: &Output,
    work: &Work<'_>,
) -> Result<Written> {
    let sink = FileSink::create(path, into.force)?;
    let mut others = Vec::new();
    let mut make = |name: &str| {
        let path = path.with_file_name(name);
        let other = FileSink::create(&path, into.force);
        let other = Arc::new(other.map_err(|error| error.within(path.display()))?);
        others.push(other.clone());
        Ok(other)
    };
    let named = |options: &VmdkOptions, name: String| VmdkOptions {
        file_name: name,
        ..options.clone()
    };
    let written = match shape {
        Shape::One(target) => drylab_image::write_with(disk, target, &sink, work)?,
        Shape::Flat(kind, options) => {
            let name = flat_name(&name_of(path)?);
            let extent = make(&name)?;
            let options = named(options, name);
            let found = drylab_image::write_flat(disk, &options, *kind, &extent, work)?;
            descriptor(&sink, found)?
        }
        Shape::Split(kind, options) => {
            let options = named(options, name_of(path)?);
            let found = drylab_image::write_split(disk, &options, *kind, &mut make, work)?;
            descriptor(&sink, found)?
        }
    };
    let others = others.into_iter().filter_map(Arc::into_inner).collect();
    commit(sink, others, into.sync == Sync::Always)?;
    Ok(written)
}

/// Writes the descriptor of a disk whose bytes are in other files, and counts it among them.
fn descriptor(sink: &FileSink, (text, written): (String, Written)) -> Result<Written> {
    sink.write_at(0, text.as_bytes())?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let file_bytes = written.file_bytes.saturating_add(length);
    Ok(Written { file_bytes })
}

/// Gives all files their names, the one that names the others last.
pub(super) fn commit(sink: FileSink, others: Vec<FileSink>, sync: bool) -> Result<()> {
    for other in others {
        other.commit(sync)?;
    }
    sink.commit(sync)
}

/// `disk-flat.vmdk` for `disk.vmdk`, as VMware's programs call it.
fn flat_name(name: &str) -> String {
    let stem = name.strip_suffix(".vmdk").unwrap_or(name);
    format!("{stem}-flat.vmdk")
}

/// The last part of a path, as an image can hold it.
pub(super) fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Error::unsupported("the name of a file that an image names must be text in UTF-8")
    })?;
    Ok(name.to_owned())
}
