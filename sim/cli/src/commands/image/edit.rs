//! `drylab image repair` and `drylab image resize`: changes in place, planned, tried in memory, then written.

use super::check::verdict;
use super::document::{FORMAT, FindingsDocument, ImageDocument, json, tally};
use super::trial::Trial;
use super::{Opened, image, open_source, tell_in_use};
use crate::args::Format;
use crate::beneath::Beneath;
use crate::exit::{Exit, Stop, While};
use crate::image_args::{Reading, RepairArgs, ResizeArgs};
use crate::quantity::{NewSize, shown};
use crate::rewrite::Rewrite;
use crate::source::FileSource;
use crate::terminal;
use drylab_block::{Error, ReadAt, Reference, Resolver, Result, Severity, WriteAt};
use drylab_image::{Edit, Findings, Image, Plan, Repair};
use drylab_report::harmless;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a change that are shown.
const SHOWN: usize = 16;

/// A step of a plan.
#[derive(Serialize)]
struct StepDocument {
    file: String,
    /// `write`, `copy`, `length` or `flush`.
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    /// First byte that changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_at: Option<u64>,
    /// Up to 16 bytes from there on, as they are now, hexadecimal; or the length of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    /// The same afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
}

impl StepDocument {
    fn of(file: &str, edit: &Edit) -> Self {
        let empty = Self {
            file: file.to_owned(),
            step: "flush",
            offset: None,
            length: None,
            changes_at: None,
            old: None,
            new: None,
            from: None,
        };
        match edit {
            Edit::Write { offset, old, new } => {
                let pairs = old.iter().zip(new);
                let same = pairs.take_while(|(old, new)| old == new).count();
                let changes_at = offset.saturating_add(u64::try_from(same).unwrap_or(0));
                Self {
                    step: "write",
                    offset: Some(*offset),
                    length: u64::try_from(new.len()).ok(),
                    changes_at: Some(changes_at),
                    old: Some(hex(old.get(same..).unwrap_or_default())),
                    new: Some(hex(new.get(same..).unwrap_or_default())),
                    ..empty
                }
            }
            Edit::Copy { from, to, length } => Self {
                step: "copy",
                from: Some(*from),
                offset: Some(*to),
                length: Some(*length),
                ..empty
            },
            Edit::Length { old, new } => Self {
                step: "length",
                old: Some(old.to_string()),
                new: Some(new.to_string()),
                ..empty
            },
            Edit::Flush => empty,
        }
    }

    fn text(&self) -> String {
        let [offset, length, from] =
            [self.offset, self.length, self.from].map(Option::unwrap_or_default);
        let [old, new] = [&self.old, &self.new].map(|bytes| bytes.as_deref().unwrap_or_default());
        match self.step {
            "write" => {
                let at = self.changes_at.unwrap_or_default();
                let old = if old.is_empty() { "nothing" } else { old };
                format!("write {length} bytes at {offset}: from {at} on {old} becomes {new}")
            }
            "copy" => format!("copy {length} bytes from {from} to {offset}"),
            "length" => format!("set the length of the file, {old} bytes, to {new}"),
            _ => "flush to the medium".to_owned(),
        }
    }
}

/// The first bytes, and `…` when there are more.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

#[derive(Serialize)]
struct Document {
    format: u32,
    /// As it is afterwards, or as it was when nothing was written.
    image: ImageDocument,
    dry_run: bool,
    old_virtual_bytes: u64,
    new_virtual_bytes: u64,
    notes: Vec<String>,
    steps: Vec<StepDocument>,
    /// What is found afterwards.
    left: FindingsDocument,
}

/// A file about to be changed, or that would be.
struct Subject<'a> {
    path: &'a Path,
    reading: &'a Reading,
    /// Absent when nothing is to be written.
    file: Option<Rewrite>,
    opened: Opened,
}

impl<'a> Subject<'a> {
    fn open(path: &'a Path, reading: &'a Reading, dry_run: bool) -> Result<Self, Stop> {
        let task = || format!("open {}", path.display());
        let (file, source) = if dry_run {
            (None, FileSource::open(path).on(task())?)
        } else {
            let file = Rewrite::open(path).on(task())?;
            let source = file.source().on(task())?;
            (Some(file), source)
        };
        let opened = open_source(path, source, reading)?;
        if dry_run {
            tell_in_use(path, &opened);
        }
        Ok(Self {
            path,
            reading,
            file,
            opened,
        })
    }

    /// What the plan makes of the image, tried in memory: its size and what a look of that reach finds in it.
    fn tried(&self, plan: &Plan, reach: Reach) -> Result<(u64, Findings)> {
        let mut trials = BTreeMap::new();
        trials.insert(String::new(), Trial::new(self.opened.source.clone()));
        let seconds = self.opened.beneath.opened();
        for_each_file("", plan, &mut |key, plan| {
            if !trials.contains_key(key) {
                let second = seconds.iter().find(|second| second.key == key);
                let second =
                    second.ok_or_else(|| Error::io(format_args!("{key:?} was not opened")))?;
                trials.insert(key.to_owned(), Trial::new(second.source.clone()));
            }
            trials
                .get_mut(key)
                .map_or(Ok(()), |trial| trial.apply(plan))
        })?;
        let mut files: BTreeMap<String, Arc<dyn ReadAt>> = BTreeMap::new();
        for (key, trial) in trials {
            files.insert(key, Arc::new(trial));
        }
        let first = files
            .remove("")
            .unwrap_or_else(|| self.opened.source.clone());
        let resolver = Tried {
            files,
            beneath: &self.opened.beneath,
        };
        let image = image(first, &resolver, self.reading)?;
        Ok((image.virtual_size(), reach.look(&image)?))
    }

    /// Writes what is planned. All files are open and locked before the first byte of one is written.
    fn write(&self, plan: &Plan) -> Result<()> {
        let Some(own) = &self.file else {
            return Ok(());
        };
        let mut files = BTreeMap::from([(String::new(), own.clone())]);
        for_each_file("", plan, &mut |key, _| {
            if !files.contains_key(key) {
                let file = self.opened.beneath.writable(key)?;
                let file = Rewrite::of(file).map_err(|error| error.within(key))?;
                files.insert(key.to_owned(), file);
            }
            Ok(())
        })?;
        for_each_file("", plan, &mut |key, plan| {
            let Some(file) = files.get(key) else {
                return Ok(());
            };
            plan.apply(file)?;
            file.flush()
        })
    }
}

/// Visits the plans for all files of an image in the order in which they are applied: those that go before, the one for
/// the file called `key` itself, and those that go after.
fn for_each_file(
    key: &str,
    plan: &Plan,
    visit: &mut dyn FnMut(&str, &Plan) -> Result<()>,
) -> Result<()> {
    for (key, plan) in plan.before() {
        for_each_file(key, plan, visit)?;
    }
    visit(key, plan)?;
    for (key, plan) in plan.after() {
        for_each_file(key, plan, visit)?;
    }
    Ok(())
}

/// How far an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All that `check` finds.
    Whole,
    /// The structure alone: compressed data is not read and unpacked, which takes as long as a conversion.
    Structure,
}

impl Reach {
    fn look(self, image: &Image) -> Result<Findings> {
        match self {
            Self::Whole => image.check(),
            Self::Structure => image.check_structure(),
        }
    }
}

/// Second files as a plan would make them.
struct Tried<'a> {
    files: BTreeMap<String, Arc<dyn ReadAt>>,
    beneath: &'a Beneath,
}

impl Resolver for Tried<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.beneath.resolve(reference)?;
        let tried = self.files.get(&self.beneath.key(reference));
        Ok(tried.cloned().unwrap_or(found))
    }

    fn key(&self, reference: &Reference) -> String {
        self.beneath.key(reference)
    }
}

pub(super) fn repair(args: &RepairArgs) -> Result<Exit, Stop> {
    let task = || format!("repair {}", args.file.display());
    let subject = Subject::open(&args.file, &args.reading, args.dry_run)?;
    let found = subject.opened.image.check().on(task())?;
    let mendable = found.list().iter().any(|one| one.rule.repair != Repair::No);
    let plan = if mendable {
        subject.opened.image.repair().on(task())?
    } else {
        Plan::default()
    };
    let change = Change {
        plan,
        found,
        old_virtual_bytes: subject.opened.image.virtual_size(),
        reach: Reach::Whole,
    };
    let left = carry_out(subject, &change, args.format, |_, _| Ok(()))?;
    Ok(verdict(&left, false))
}

pub(super) fn resize(args: &ResizeArgs) -> Result<Exit, Stop> {
    let task = || format!("resize {}", args.file.display());
    let subject = Subject::open(&args.file, &args.reading, args.dry_run)?;
    let old = subject.opened.image.virtual_size();
    let new = args.size.of(old).ok_or_else(|| {
        let old = shown(old);
        Stop::usage(match args.size {
            NewSize::Shrunk(fewer) => {
                format!("the disk has {old}, and cannot lose {}", shown(fewer))
            }
            NewSize::Grown(more) | NewSize::To(more) => format!(
                "the disk has {old}, and with {} more it would have 2^64 bytes or more",
                shown(more)
            ),
        })
    })?;
    if new < old && !args.shrink {
        return Err(Stop::usage(format_args!(
            "the disk has {}, and its end would be lost; --shrink says that this is meant",
            shown(old)
        )));
    }
    let found = Reach::Structure.look(&subject.opened.image).on(task())?;
    if found.worst() == Some(Severity::Error) {
        let says = format!(
            "failed to {}: it is damaged ({}); see drylab image check, and repair it first",
            task(),
            tally(&found)
        );
        if args.format == Format::Json {
            terminal::print(&json(&Document {
                format: FORMAT,
                image: ImageDocument::of(&args.file, &subject.opened)?,
                dry_run: args.dry_run,
                old_virtual_bytes: old,
                new_virtual_bytes: old,
                notes: Vec::new(),
                steps: Vec::new(),
                left: FindingsDocument::of(&found, &args.file.to_string_lossy()),
            })?)?;
        }
        return Err(Stop {
            exit: Exit::Damaged,
            says,
        });
    }
    let plan = subject.opened.image.resize(new).on(task())?;
    let enough = |size: u64, left: &Findings| {
        if size < new || (new < old && size >= old) || left.worst() == Some(Severity::Error) {
            return Err(Error::unsupported(format_args!(
                "the plan leads to a disk of {size} bytes with {}, and is not carried out",
                tally(left)
            )));
        }
        Ok(())
    };
    let change = Change {
        plan,
        found,
        old_virtual_bytes: old,
        reach: Reach::Structure,
    };
    carry_out(subject, &change, args.format, enough)?;
    Ok(Exit::Done)
}

/// What is to be done with an image.
struct Change {
    plan: Plan,
    /// What is found in it before.
    found: Findings,
    old_virtual_bytes: u64,
    /// How far it is looked at afterwards.
    reach: Reach,
}

/// Tries a plan, and writes it unless this is a dry run; `accept` may refuse what it leads to. The answer is what is
/// found afterwards.
fn carry_out(
    subject: Subject<'_>,
    change: &Change,
    format: Format,
    accept: impl Fn(u64, &Findings) -> Result<()>,
) -> Result<Findings, Stop> {
    let (path, plan) = (subject.path, &change.plan);
    let task = || format!("change {}", path.display());
    let old_virtual_bytes = change.old_virtual_bytes;
    let (mut size, mut left) = if plan.is_empty() {
        (old_virtual_bytes, change.found.clone())
    } else {
        // What is written is looked at again.
        let reach = match subject.file {
            Some(_) => Reach::Structure,
            None => change.reach,
        };
        subject.tried(plan, reach).on(task())?
    };
    accept(size, &left).on(task())?;
    let first = path.to_string_lossy().into_owned();
    let mut steps = Vec::new();
    for_each_file("", plan, &mut |key, plan| {
        let file = if key.is_empty() { &first } else { key };
        steps.extend(plan.edits().iter().map(|edit| StepDocument::of(file, edit)));
        Ok(())
    })
    .on(task())?;
    let mut opened = subject;
    if opened.file.is_some() && !plan.is_empty() {
        opened.write(plan).on(task())?;
        // Seen with new eyes: what stands in the file now.
        let file = opened.file.clone();
        if let Some(file) = &file {
            opened.opened = open_source(path, file.source().on(task())?, opened.reading)?;
        }
        size = opened.opened.image.virtual_size();
        left = change.reach.look(&opened.opened.image).on(task())?;
    }
    let document = Document {
        format: FORMAT,
        image: ImageDocument::of(path, &opened.opened)?,
        dry_run: opened.file.is_none(),
        old_virtual_bytes,
        new_virtual_bytes: size,
        notes: plan.notes().to_vec(),
        steps,
        left: FindingsDocument::of(&left, &first),
    };
    terminal::print(&match format {
        Format::Json => json(&document)?,
        Format::Text => text(&document, &left),
    })?;
    Ok(left)
}

fn text(document: &Document, left: &Findings) -> String {
    let mut text = String::new();
    for note in &document.notes {
        let _ = writeln!(text, "{}", harmless(note));
    }
    let steps = document.steps.len();
    if document.dry_run {
        for step in &document.steps {
            let _ = writeln!(text, "  {}: {}", harmless(&step.file), step.text());
        }
    }
    text.push_str(&document.left.text());
    let name = &document.image.file;
    let plural = if steps == 1 { "" } else { "s" };
    let _ = match (steps, document.dry_run) {
        (0, _) => write!(text, "{name}: nothing to be changed"),
        (_, true) => write!(text, "{name}: {steps} step{plural} to be taken"),
        (_, false) => write!(text, "{name}: {steps} step{plural} taken"),
    };
    if document.old_virtual_bytes != document.new_virtual_bytes {
        let (old, new) = (document.old_virtual_bytes, document.new_virtual_bytes);
        let _ = write!(text, ", the disk has {} after {}", shown(new), shown(old));
    }
    let _ = writeln!(text, "; left: {}", tally(left));
    text
}
