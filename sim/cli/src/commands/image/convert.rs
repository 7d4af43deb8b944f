//! `drylab image convert`, and how files are written.

use super::document::{FORMAT, FindingsDocument, ImageDocument, json, severity};
use super::open;
use super::target::{Chosen, Shape, choose};
use crate::args::Format;
use crate::exit::{Exit, Stop, While};
use crate::image_args::{Compress, ConvertArgs, Level, Output, Sync, To};
use crate::quantity::shown;
use crate::sink::{self, FileSink, Present};
use crate::source::Identity;
use crate::terminal;
use drylab_block::{Below, Error, Extent, ReadAt, Result, Severity, WriteAt};
use drylab_image::profile::Profile;
use drylab_image::{
    Findings, Progress, Qcow2Compression, Qcow2Version, Target, VmdkOptions, Work, Written,
};
use drylab_report::harmless;
use serde::Serialize;
use std::any::Any;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
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
    let has = |kind: &str| kind == chosen.subformat;
    let wants = profile.wants.iter();
    let wants = wants.filter(|want| want.only.is_none_or(has));
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
    /// What was noticed when the source was opened.
    findings: FindingsDocument,
    destination: WrittenDocument,
}

pub(super) fn run(args: &ConvertArgs) -> Result<Exit, Stop> {
    let mut chosen = choose(&args.into)?;
    tune(args, &mut chosen)?;
    let (from, to) = (&args.source, &args.destination);
    let opened = open(from, &args.reading)?;
    let read = opened.beneath.read();
    refuse_own(to, &read)?;
    chosen.refuse_misfits(opened.image.virtual_size())?;
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
    let disk = Source {
        disk: &opened.image,
        name: from,
    };
    let done = write(&disk, &chosen.shape, to, (&args.into, &read), &work);
    bar.finish_and_clear();
    let written = done.on(format_args!("write {}", to.display()))?;
    let findings = opened.image.info().findings;
    tell_findings(&from.to_string_lossy(), &findings);
    let source = ImageDocument::of(from, &opened)?;
    let document = Document {
        format: FORMAT,
        findings: FindingsDocument::of(&findings, &source.file),
        source,
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
            if findings.worst() == Some(Severity::Error) {
                let name = harmless(&from.to_string_lossy());
                let _ = writeln!(text, "  {name} is damaged; see drylab image check");
            }
            text
        }
    })?;
    Ok(Exit::Done)
}

/// Says what a user should know who has only the copy from now on: one line for each rule.
fn tell_findings(name: &str, findings: &Findings) {
    for (code, count) in findings.counts() {
        let places = findings.list().iter();
        let Some(first) = places.clone().find(|one| one.rule.code == *code) else {
            continue;
        };
        // A note, and yet: what it tells of stays behind.
        let is_left_out = *code == "QCOW2-SNAPSHOTS";
        if first.rule.severity < Severity::Warning && !is_left_out {
            continue;
        }
        let more = match count.saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        terminal::diagnose(&format!(
            "{name}: {} {code}: {} ({} is {}{more})",
            severity(first.rule.severity),
            first.rule.effect,
            first.path,
            first.found
        ));
    }
}

/// Refuses a destination that is one of the files that are read.
pub(super) fn refuse_own(to: &Path, read: &[Identity]) -> Result<(), Stop> {
    let there = std::fs::metadata(to).ok();
    let there = there.map(|found| (found.dev(), found.ino()));
    match there.and_then(|there| read.iter().position(|one| *one == there)) {
        None => Ok(()),
        Some(0) => Err(Stop::usage("source and destination are one file")),
        Some(_) => Err(Stop::usage(
            "the destination is a file that the source stands on",
        )),
    }
}

/// A disk whose errors say where they come from.
struct Source<'a> {
    disk: &'a dyn ReadAt,
    name: &'a Path,
}

impl ReadAt for Source<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buffer).map_err(|error| {
            let name = self.name.display();
            match error.within(&name) {
                Error::Corrupt(what) => Error::corrupt(format_args!(
                    "{what}; drylab image check {name} lists what else is wrong"
                )),
                other => other,
            }
        })
    }

    fn extent_at(&self, offset: u64) -> Extent {
        self.disk.extent_at(offset)
    }

    fn below(&self, offset: u64) -> Option<Below<'_>> {
        self.disk.below(offset)
    }

    fn handle(&self) -> Option<&dyn Any> {
        self.disk.handle()
    }
}

/// Sets how things are compressed; what would be without effect is refused.
fn tune(args: &ConvertArgs, chosen: &mut Chosen) -> Result<(), Stop> {
    let level = |[fast, default, best]: [u32; 3]| match args.level.unwrap_or_default() {
        Level::Fast => fast,
        Level::Default => default,
        Level::Best => best,
    };
    let mut is_packed = false;
    let mut may_be_packed = false;
    match &mut chosen.shape {
        Shape::One(Target::VmdkStream(options)) => {
            options.level = level([1, 6, 9]);
            is_packed = true;
        }
        Shape::One(Target::Qcow2(options)) => {
            let zstd = args.compress == Some(Compress::Zstd);
            if zstd && options.version == Qcow2Version::V2 {
                return Err(Stop::usage(
                    "zstd needs qcow2 v3; leave out --subformat v2, or say --compress zlib",
                ));
            }
            options.compress = args.compress.is_some();
            options.compression = if zstd {
                Qcow2Compression::Zstd
            } else {
                Qcow2Compression::Zlib
            };
            options.level = level(if zstd { [1, 3, 12] } else { [1, 6, 9] });
            is_packed = options.compress;
            may_be_packed = true;
        }
        _ => {}
    }
    let hint = if args.into.to == Some(To::Vmdk) {
        "; for vmdk say --subformat streamOptimized"
    } else {
        ""
    };
    if args.compress.is_some() && !may_be_packed {
        return Err(Stop::usage(format_args!("--compress is for qcow2{hint}")));
    }
    if args.level.is_some() && !is_packed {
        let hint = if may_be_packed {
            "; say --compress zlib or zstd, too"
        } else {
            hint
        };
        return Err(Stop::usage(format_args!(
            "--level is for what is compressed, and nothing would be{hint}"
        )));
    }
    Ok(())
}

/// What becomes of files that are there under the names of new ones.
pub(super) fn present<'a>(into: &Output, read: &'a [Identity]) -> Present<'a> {
    if into.force {
        Present::Replaced(read)
    } else {
        Present::StaysUnlessForced
    }
}

/// Writes a disk: all files of the image, or none of them under its name, the one that names the others last (what a
/// crash between the names leaves: [`sink::commit`]). None takes the place of one that is `read`.
pub(super) fn write(
    disk: &dyn ReadAt,
    shape: &Shape,
    path: &Path,
    (into, read): (&Output, &[Identity]),
    work: &Work<'_>,
) -> Result<Written> {
    let present = present(into, read);
    let sink = FileSink::create(path, present)?;
    let mut others = Vec::new();
    let mut make = |name: &str| {
        let path = path.with_file_name(name);
        let other = FileSink::create(&path, present);
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
    sink::commit(others, sink, into.sync == Sync::Always)?;
    Ok(written)
}

/// Writes the descriptor of a disk whose bytes are in other files, and counts it among them.
fn descriptor(sink: &FileSink, (text, written): (String, Written)) -> Result<Written> {
    sink.write_at(0, text.as_bytes())?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let file_bytes = written.file_bytes.saturating_add(length);
    Ok(Written { file_bytes })
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
