//! `drylab image`: one file for each command, and what they share.

mod check;
mod compare;
mod convert;
mod create;
mod document;
mod edit;
mod info;
mod map;
mod rules;
mod target;
mod trial;

use crate::beneath::Beneath;
use crate::exit::{Exit, Stop, While};
use crate::image_args::{ImageArgs, ImageCommand, Reading};
use crate::source::FileSource;
use crate::{lock, terminal};
use drylab_block::{ReadAt, Resolver, Result};
use drylab_image::{Image, Options};
use std::path::Path;
use std::sync::Arc;

pub(super) fn run(args: &ImageArgs) -> Result<Exit, Stop> {
    match &args.command {
        ImageCommand::Info(args) => info::run(args),
        ImageCommand::Map(args) => map::run(args),
        ImageCommand::Check(args) => check::run(args),
        ImageCommand::Repair(args) => edit::repair(args),
        ImageCommand::Resize(args) => edit::resize(args),
        ImageCommand::Convert(args) => convert::run(args),
        ImageCommand::Compare(args) => compare::run(args),
        ImageCommand::Create(args) => create::run(args),
        ImageCommand::Rules(args) => rules::run(args),
    }
}

/// An image that is read.
struct Opened {
    image: Image,
    source: Arc<FileSource>,
    /// What opened its second files.
    beneath: Beneath,
}

/// Opens an image, damaged or not, as the user wants it read, and says so when somebody else writes to it.
fn open(path: &Path, reading: &Reading) -> Result<Opened, Stop> {
    let task = || format!("open {}", path.display());
    let source = FileSource::open(path).on(task())?;
    let opened = open_source(path, source, reading)?;
    tell_in_use(path, &opened);
    Ok(opened)
}

/// Says which of its files other programs write to.
fn tell_in_use(path: &Path, opened: &Opened) {
    let tell = |name: &str| {
        terminal::diagnose(&format!(
            "{name} is in use: another program has it open for writing, and it may change while it is read"
        ));
    };
    if lock::is_written(opened.source.file()) {
        tell(&path.to_string_lossy());
    }
    for second in opened.beneath.opened() {
        if lock::is_written(second.source.file()) {
            tell(&second.key);
        }
    }
}

/// As [`open`], for a file that is open.
fn open_source(path: &Path, source: FileSource, reading: &Reading) -> Result<Opened, Stop> {
    let task = || format!("open {}", path.display());
    let source = Arc::new(source);
    let folder = reading.allow_beneath.as_deref();
    let beneath = Beneath::new(path, &source, folder).on(task())?;
    let image = image(source.clone(), &beneath, reading).on(task())?;
    Ok(Opened {
        image,
        source,
        beneath,
    })
}

/// Opens the image that these bytes are.
fn image(bytes: Arc<dyn ReadAt>, resolver: &dyn Resolver, reading: &Reading) -> Result<Image> {
    if reading.raw {
        return Image::raw(bytes, &reading.limits());
    }
    let options = Options {
        resolver,
        limits: reading.limits(),
        ..Options::DEFAULT
    };
    drylab_image::open_as(bytes, &options)
}
