//! `drylab corpus`

use crate::corpus_args::{CorpusArgs, CorpusCommand, GenerateArgs};
use crate::exit::{Exit, Stop, While};
use crate::sink::{FileSink, Present};
use crate::{nearest, terminal};
use drylab_block::{ReadAt, WriteAt, copy_data};
use drylab_kernel::Streams;
use drylab_specimen::{Corruption, File, Specimen, Stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Number of the manifest's form.
const MANIFEST: u32 = 1;

pub(crate) fn run(args: &CorpusArgs) -> Result<Exit, Stop> {
    match &args.command {
        CorpusCommand::Generate(args) => generate(args),
    }
}

/// The kind asked for, spelled as the format spells it.
fn subformat(args: &GenerateArgs) -> Result<Option<&'static str>, Stop> {
    let format = args.format.format();
    let Some(asked) = &args.subformat else {
        return Ok(None);
    };
    let known = format.subformats();
    let found = known.iter().find(|name| name.eq_ignore_ascii_case(asked));
    found.copied().map(Some).ok_or_else(|| {
        let hint = nearest::hint(asked, known.iter().copied());
        Stop::usage(format_args!(
            "there is no kind {asked:?} of {}{hint} (known: {})",
            format.name(),
            known.join(", ")
        ))
    })
}

fn generate(args: &GenerateArgs) -> Result<Exit, Stop> {
    let kind = subformat(args)?;
    let task = || format!("write {}", args.out.display());
    std::fs::create_dir_all(&args.out).map_err(|error| Stop::input(task(), error))?;
    let list = FileSink::create(&args.out.join("manifest.jsonl"), Present::Stays)
        .map_err(|error| error.within("manifest.jsonl"))
        .on(task())?;
    let mut manifest = String::new();
    let bar = terminal::progress(u64::from(args.count));
    for number in 0..u64::from(args.count) {
        let seed = args.seed.checked_add(number).ok_or_else(|| {
            Stop::usage(format_args!(
                "{} seeds from {} on go past 2^64",
                args.count, args.seed
            ))
        })?;
        let line = one(args, kind, seed)?;
        manifest.push_str(&format!("{line}\n"));
        bar.inc(1);
    }
    bar.finish_and_clear();
    list.write_at(0, manifest.as_bytes()).on(task())?;
    list.commit(false).on(task())?;
    terminal::print(&format!("{}: {} images\n", args.out.display(), args.count))?;
    Ok(Exit::Done)
}

/// Makes the image of a seed and writes its files; the answer is its line in the manifest.
fn one(args: &GenerateArgs, kind: Option<&str>, seed: u64) -> Result<Value, Stop> {
    let streams = Streams::new(seed);
    let mut words = streams.stream("specimen", 0);
    let made = Specimen::draw(&mut Stream(|| words.word()), args.format.format(), kind);
    let mut words = streams.stream("damage", 0);
    let mut words = Stream(|| words.word());
    let damages: Vec<Corruption> = (0..args.corrupt)
        .filter_map(|_| made.corrupt(&mut words))
        .collect();
    let name = format!("{}-{seed}", made.format.name());
    let folder = args.out.join(&name);
    let task = || format!("write {}", folder.display());
    std::fs::create_dir_all(&folder).map_err(|error| Stop::input(task(), error))?;
    let mut files = Vec::new();
    for file in made.damaged(&damages) {
        write(&folder, &file)?;
        files.push(json!({
            "name": file.name,
            "bytes": file.bytes.len(),
            "sha256": sha256(&file.bytes).on(task())?,
        }));
    }
    let damages: Vec<Value> = damages.iter().map(|damage| told(&made, damage)).collect();
    Ok(json!({
        "manifest": MANIFEST,
        "folder": name,
        "format": made.format.name(),
        "subformat": made.subformat,
        "seed": seed,
        "virtual_size": made.disk.len(),
        "disk_sha256": sha256(&*made.disk).on(task())?,
        "files": files,
        "known": made.known,
        "corruptions": damages,
    }))
}

fn write(folder: &Path, file: &File) -> Result<(), Stop> {
    let path = folder.join(&file.name);
    let task = || format!("write {}", path.display());
    let sink = FileSink::create(&path, Present::Stays).on(task())?;
    copy_data(&*file.bytes, &sink).on(task())?;
    sink.commit(false).on(task())
}

/// A damage, for the manifest.
fn told(made: &Specimen, damage: &Corruption) -> Value {
    let field = &made.fields[damage.field];
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let other = damage.other.and_then(|other| made.fields.get(other));
    json!({
        "file": made.files[field.file].name,
        "field": field.name,
        "offset": field.offset,
        "old": hex(&damage.old),
        "new": hex(&damage.new),
        "kind": damage.kind.name(),
        "swapped_with": other.map(|other| json!({"field": other.name, "offset": other.offset})),
        "checksum_set_right": damage.resealed,
        "expected": damage.expected.answers(),
        "disk_as_before": damage.expected.same,
        "clause": damage.expected.clause,
    })
}

/// SHA-256 of all bytes, holes too.
fn sha256(bytes: &dyn ReadAt) -> drylab_block::Result<String> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0u8; 1 << 16];
    let mut at = 0u64;
    while at < bytes.len() {
        let left = usize::try_from(bytes.len() - at).unwrap_or(usize::MAX);
        let take = left.min(piece.len());
        bytes.read_at(at, &mut piece[..take])?;
        hasher.update(&piece[..take]);
        at += u64::try_from(take).unwrap_or(u64::MAX);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
