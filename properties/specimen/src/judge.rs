//! What our reader says of files, against what must come of them.

use crate::damage::Corruption;
use crate::specimen::{File, Format, Specimen};
use drylab_block::{Error, Extents, Limits, ReadAt, Reference, Resolver, Result, Severity};
use drylab_image::{Image, Options, open_as};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a reader answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The file was not opened.
    Refused(String),
    /// It was.
    Opened {
        /// Codes of what opening and checking found, notes left out.
        codes: BTreeSet<&'static str>,
        /// Whether all bytes are as expected, or what is not.
        disk: std::result::Result<(), String>,
    },
}

/// Files known by their names.
struct Known<'a>(&'a [File]);

impl Resolver for Known<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let found = self.0.iter().find(|file| file.name == reference.name);
        found.map(|file| file.bytes.clone()).ok_or_else(|| {
            Error::unsupported(format_args!("no {} {:?}", reference.kind, reference.name))
        })
    }
}

/// Limits under which specimens are opened: none of them needs more.
fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.table_bytes_max = 16 << 20;
    limits
}

/// Opens the first of some files, with the others beside it.
///
/// # Errors
/// As [`open_as`].
pub fn open(files: &[File]) -> Result<Image> {
    let (resolver, limits) = (Known(files), limits());
    let options = Options {
        resolver: &resolver,
        limits,
        ..Options::DEFAULT
    };
    let first = files.first().ok_or_else(|| Error::io("no file"))?;
    open_as(first.bytes.clone(), &options)
}

/// Opens the first of some files, checks it and reads it.
#[must_use]
pub fn look(files: &[File], disk: &dyn ReadAt) -> Answer {
    let image = match open(files) {
        Ok(image) => image,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let mut codes: BTreeSet<&'static str> = BTreeSet::new();
    match image.check() {
        Ok(found) => codes.extend(found.list().iter().filter_map(|finding| {
            (finding.rule.severity > Severity::Note).then_some(finding.rule.code)
        })),
        Err(error) => return Answer::Refused(error.to_string()),
    }
    let disk = equal(&image, disk);
    Answer::Opened { codes, disk }
}

/// Most bytes of a disk that are compared, and most extents.
const BYTES_MAX: u64 = 256 << 20;
const EXTENTS_MAX: usize = 1 << 16;
const PIECE: u64 = 1 << 16;

/// Where two pieces begin to differ. Whole sectors first: byte by byte is slow where every branch is counted.
fn first(here: &[u8], there: &[u8]) -> u64 {
    let mut at = 0;
    for (one, other) in here.chunks(512).zip(there.chunks(512)) {
        if one != other {
            let same = one.iter().zip(other).take_while(|(a, b)| a == b);
            return at + u64::try_from(same.count()).unwrap_or(0);
        }
        at += 512;
    }
    at
}

/// Compares two disks where either has bytes.
fn equal(one: &dyn ReadAt, other: &dyn ReadAt) -> std::result::Result<(), String> {
    if one.len() != other.len() {
        return Err(format!("{} bytes, not {}", one.len(), other.len()));
    }
    let mut left = BYTES_MAX;
    for source in [one, other] {
        let mut end = 0;
        for extent in Extents::new(source).take(EXTENTS_MAX) {
            end = extent.offset + extent.length;
            let mut at = extent.offset;
            while extent.kind.has_bytes() && at < end && left > 0 {
                let take = crate::choices::index(PIECE.min(end - at));
                let (mut here, mut there) = (vec![0; take], vec![0; take]);
                one.read_at(at, &mut here)
                    .map_err(|error| error.to_string())?;
                other
                    .read_at(at, &mut there)
                    .map_err(|error| error.to_string())?;
                if here != there {
                    return Err(format!("another byte at {}", at + first(&here, &there)));
                }
                at += crate::choices::len(&here);
                left = left.saturating_sub(PIECE);
            }
        }
        if end < source.len() {
            return Err(format!("extents end at {end} of {}", source.len()));
        }
    }
    Ok(())
}

/// Damages that our readers answer wrongly, by kind and family of fields, with what is wrong. Nothing else is let pass.
pub const OPEN: [(&str, &str, &str); 0] = [];

/// Whether our reader of the format knows the codes that damages to it are to be answered with. A reader that does not
/// check the structure yet cannot be judged by what it finds.
#[must_use]
pub fn is_checked(format: Format) -> bool {
    let code = match format {
        Format::Raw => return true,
        Format::Vmdk => "VMDK-GRAIN-ALIAS",
        Format::Vhd => "VHD-BLOCKS-OVERLAP",
        Format::Vhdx => "VHDX-BLOCK-SHARED",
        Format::Qcow2 => "QCOW2-REFCOUNT",
        Format::Vdi => "VDI-BLOCKS-OVERLAP",
    };
    drylab_image::rules().iter().any(|rule| rule.code == code)
}

/// Whether an answer to a sound image is right.
///
/// # Errors
/// What is wrong with it, in words.
pub fn sound(specimen: &Specimen) -> std::result::Result<(), String> {
    match look(&specimen.files, &*specimen.disk) {
        Answer::Refused(why) => Err(format!("a sound image is refused: {why}")),
        Answer::Opened { codes, disk } => {
            disk.map_err(|why| format!("a sound image reads as {why}"))?;
            let new: Vec<_> = codes.difference(&specimen.known).collect();
            if new.is_empty() {
                Ok(())
            } else {
                Err(format!("a sound image has findings {new:?}"))
            }
        }
    }
}

/// Whether the answer to one damage is one of those that are expected.
///
/// # Errors
/// What was answered, and what should have been.
pub fn judge(specimen: &Specimen, damage: &Corruption) -> std::result::Result<Answer, String> {
    let files = specimen.damaged(std::slice::from_ref(damage));
    let answer = look(&files, &*specimen.disk);
    let expected = &damage.expected;
    let wrong = match &answer {
        Answer::Refused(_) if expected.refused => None,
        Answer::Refused(why) => Some(format!("refused: {why}")),
        Answer::Opened { codes, disk } => {
            let found = expected.codes.iter().any(|code| codes.contains(code));
            let may = expected.quiet || (expected.or_same && disk.is_ok());
            let quiet = may && codes.is_subset(&specimen.known);
            match disk {
                _ if !found && !quiet && !expected.any => Some(format!("found {codes:?}")),
                Err(why) if expected.same => Some(format!("reads as {why}")),
                _ => None,
            }
        }
    };
    let field = &specimen.fields[damage.field];
    let family = field.family();
    let open =
        |(kind, name, _): &(&str, &str, &str)| *kind == specimen.subformat && *name == family;
    let wrong = wrong.filter(|_| !OPEN.iter().any(open));
    wrong.map_or(Ok(answer), |why| {
        Err(format!(
            "{} {}: {} at {} of {:?} is {:02x?} instead of {:02x?} ({}, resealed: {:?}): {why}; expected {:?}, disk the same: {} ({})",
            specimen.format.name(),
            specimen.subformat,
            field.name,
            field.offset,
            specimen.files[field.file].name,
            damage.new,
            damage.old,
            damage.kind.name(),
            damage.resealed,
            expected.answers(),
            expected.same,
            expected.clause,
        ))
    })
}
