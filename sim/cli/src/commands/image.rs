//! `drylab image`

use crate::exit::{Exit, Stop, While};
use crate::image_args::{Compress, ConvertArgs, ImageArgs, ImageCommand, Level, Sync, To};
use crate::input::Beside;
use crate::sink::FileSink;
use crate::source::FileSource;
use crate::{nearest, terminal};
use drylab_block::Limits;
use drylab_image::{
    Progress, Qcow2Compression, Qcow2Options, Qcow2Version, Target, VhdOptions, VmdkOptions, Work,
};
use std::sync::Arc;

pub(crate) fn run(args: &ImageArgs) -> Result<Exit, Stop> {
    match &args.command {
        ImageCommand::Convert(args) => convert(args),
    }
}

/// Kinds within each format, the default first.
fn subformats(to: To) -> &'static [&'static str] {
    match to {
        To::Raw => &[],
        To::Vmdk => &["monolithicSparse", "streamOptimized"],
        To::Vhd => &["dynamic", "fixed"],
        To::Qcow2 => &["v3", "v2"],
    }
}

/// The kind asked for, spelled as the format spells it.
fn subformat(args: &ConvertArgs) -> Result<&'static str, Stop> {
    let known = subformats(args.to);
    let Some(asked) = &args.subformat else {
        return Ok(known.first().copied().unwrap_or_default());
    };
    let same = |name: &&&str| name.eq_ignore_ascii_case(asked);
    known.iter().find(same).copied().ok_or_else(|| {
        let hint = nearest::hint(asked, known.iter().copied());
        let list = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        Stop::usage(format_args!(
            "there is no subformat {asked:?} of this format{hint} (known: {list})"
        ))
    })
}

fn target(args: &ConvertArgs) -> Result<Target, Stop> {
    let name = subformat(args)?;
    if args.compress.is_some() && args.to != To::Qcow2 {
        return Err(Stop::usage(
            "--compress is for qcow2; for vmdk say --subformat streamOptimized",
        ));
    }
    Ok(match (args.to, name) {
        (To::Raw, _) => Target::Raw,
        (To::Vmdk, "streamOptimized") => Target::VmdkStream(VmdkOptions {
            level: level(args.level, [1, 6, 9]),
            ..VmdkOptions::default()
        }),
        (To::Vmdk, _) => Target::VmdkSparse(VmdkOptions::default()),
        (To::Vhd, "fixed") => Target::VhdFixed(VhdOptions::default()),
        (To::Vhd, _) => Target::VhdDynamic(VhdOptions::default()),
        (To::Qcow2, name) => Target::Qcow2(qcow2(args, name)),
    })
}

fn level(asked: Level, [fast, default, best]: [u32; 3]) -> u32 {
    match asked {
        Level::Fast => fast,
        Level::Default => default,
        Level::Best => best,
    }
}

fn qcow2(args: &ConvertArgs, version: &str) -> Qcow2Options {
    let zstd = args.compress == Some(Compress::Zstd);
    Qcow2Options {
        version: if version == "v2" {
            Qcow2Version::V2
        } else {
            Qcow2Version::V3
        },
        compress: args.compress.is_some(),
        compression: if zstd {
            Qcow2Compression::Zstd
        } else {
            Qcow2Compression::Zlib
        },
        level: level(args.level, if zstd { [1, 3, 12] } else { [1, 6, 9] }),
        ..Qcow2Options::default()
    }
}

fn convert(args: &ConvertArgs) -> Result<Exit, Stop> {
    let target = target(args)?;
    let (from, to) = (&args.source, &args.destination);
    let task = || format!("convert {}", from.display());
    let source: Arc<FileSource> = Arc::new(FileSource::open(from).on(task())?);
    let image = drylab_image::open_with(source, &Beside::of(from), &Limits::DEFAULT).on(task())?;
    if same_file(args) {
        return Err(Stop::usage("source and destination are one file"));
    }
    let task = || format!("write {}", to.display());
    let sink = FileSink::create(to, args.force).on(task())?;
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
    let done = drylab_image::write_with(&image, &target, &sink, &work);
    bar.finish_and_clear();
    let written = done
        .map_err(|error| error.within(from.display()))
        .on(task())?;
    sink.commit(args.sync == Sync::Always).on(task())?;
    terminal::print(&format!(
        "{}: {} bytes of disk in {} bytes\n",
        to.display(),
        image.virtual_size(),
        written.file_bytes
    ))?;
    Ok(Exit::Done)
}

/// Whether both names lead to one file, which would be replaced by what is made of it.
fn same_file(args: &ConvertArgs) -> bool {
    let places = [&args.source, &args.destination].map(std::fs::canonicalize);
    let [Ok(source), Ok(destination)] = places else {
        return false;
    };
    source == destination
}
