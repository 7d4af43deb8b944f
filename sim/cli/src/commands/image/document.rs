//! What the commands print, as JSON and as text. Every JSON document has the number of its form as `format`; all numbers
//! are integers; fields are added, and none changes its meaning without another number.

use super::Opened;
use crate::beneath::Second;
use crate::exit::{Stop, While};
use crate::quantity::shown;
use crate::source::FileSource;
use drylab_block::{ReadAt, Reference, Result, Severity};
use drylab_image::{Finding, Findings, Format, Repair, Rule};
use drylab_report::harmless;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// The number of the form.
pub(super) const FORMAT: u32 = 1;

/// Pretty JSON with a line end.
pub(super) fn json(document: &impl Serialize) -> std::result::Result<String, Stop> {
    let mut text =
        serde_json::to_string_pretty(document).map_err(|error| Stop::input("write JSON", error))?;
    text.push('\n');
    Ok(text)
}

/// An image and its file.
#[derive(Serialize)]
pub(super) struct ImageDocument {
    pub(super) file: String,
    pub(super) format: &'static str,
    pub(super) subformat: String,
    pub(super) virtual_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) allocated_bytes: u64,
}

impl ImageDocument {
    pub(super) fn of(path: &Path, opened: &Opened) -> std::result::Result<Self, Stop> {
        let kind = (opened.image.format(), opened.image.subformat());
        let document = Self::of_file(path, &opened.source, kind, opened.image.virtual_size());
        document.on(format_args!("open {}", path.display()))
    }

    /// One of that kind in a file that is open.
    pub(super) fn of_file(
        path: &Path,
        source: &FileSource,
        (format, subformat): (Format, &str),
        virtual_bytes: u64,
    ) -> Result<Self> {
        Ok(Self {
            file: path.to_string_lossy().into_owned(),
            format: format.name(),
            subformat: subformat.to_owned(),
            virtual_bytes,
            file_bytes: source.len(),
            allocated_bytes: source.allocated()?,
        })
    }

    pub(super) fn text(&self) -> String {
        let kind = [self.format, self.subformat.as_str()].join(" ");
        format!(
            "{}: {}\n  virtual size  {}\n  file          {}, of which {} are allocated\n",
            self.file,
            kind.trim_end(),
            shown(self.virtual_bytes),
            shown(self.file_bytes),
            shown(self.allocated_bytes)
        )
    }
}

/// A file that an image names.
#[derive(Serialize)]
pub(super) struct SecondDocument {
    /// What it is for the image that names it.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// The file with that image.
    pub(super) named_by: String,
    pub(super) file: String,
    /// Absent when its content is of no format that is known.
    pub(super) format: Option<&'static str>,
    pub(super) file_bytes: u64,
    /// Absent when the system does not tell.
    pub(super) allocated_bytes: Option<u64>,
}

impl SecondDocument {
    /// With the formats as which backing files are read, where that is known.
    pub(super) fn of(second: &Second, first: &str, read: &[(String, Format)]) -> Self {
        let named_by = match second.by.as_str() {
            "" => first.to_owned(),
            by => by.to_owned(),
        };
        let read = read.iter().find(|(key, _)| *key == second.key);
        let found = || Some(drylab_image::detect(&*second.source).ok()?.format);
        let format = read.map(|(_, format)| *format).or_else(found);
        Self {
            kind: second.kind,
            name: second.name.clone(),
            named_by,
            file: second.key.clone(),
            format: format.map(Format::name),
            file_bytes: second.source.len(),
            allocated_bytes: second.source.allocated().ok(),
        }
    }
}

/// A file that an image names and that is not opened.
#[derive(Serialize)]
pub(super) struct DeniedDocument {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// The file with that image.
    pub(super) named_by: String,
}

impl DeniedDocument {
    pub(super) fn of(denied: Reference, first: &str) -> Self {
        let named_by = match denied.by.as_str() {
            "" => first.to_owned(),
            by => by.to_owned(),
        };
        Self {
            kind: denied.kind,
            name: denied.name,
            named_by,
        }
    }
}

/// What must hold.
#[derive(Serialize)]
pub(super) struct RuleDocument {
    pub(super) code: &'static str,
    pub(super) severity: &'static str,
    pub(super) clause: &'static str,
    pub(super) effect: &'static str,
    pub(super) repairable: &'static str,
}

impl RuleDocument {
    pub(super) fn of(rule: &'static Rule) -> Self {
        Self {
            code: rule.code,
            severity: severity(rule.severity),
            clause: rule.clause,
            effect: rule.effect,
            repairable: repairable(rule.repair),
        }
    }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// `no`, `lossless` or `lossy`.
pub(super) fn repairable(repair: Repair) -> &'static str {
    match repair {
        Repair::No => "no",
        Repair::Lossless => "lossless",
        Repair::Lossy => "lossy",
    }
}

/// A place that breaks a rule.
#[derive(Serialize)]
pub(super) struct FindingDocument {
    code: &'static str,
    severity: &'static str,
    file: String,
    offset: u64,
    length: u64,
    path: String,
    expected: String,
    found: String,
    clause: &'static str,
    effect: &'static str,
    repairable: &'static str,
}

impl FindingDocument {
    fn of(finding: &Finding, first: &str) -> Self {
        let file = match finding.file.as_str() {
            "" => first.to_owned(),
            file => file.to_owned(),
        };
        Self {
            code: finding.rule.code,
            severity: severity(finding.rule.severity),
            file,
            offset: finding.offset,
            length: finding.length,
            path: finding.path.clone(),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            clause: finding.rule.clause,
            effect: finding.rule.effect,
            repairable: repairable(finding.rule.repair),
        }
    }
}

/// How many places break a rule, those that are not listed among them.
#[derive(Serialize)]
pub(super) struct CountDocument {
    code: &'static str,
    count: u64,
}

/// What a checker found.
#[derive(Serialize)]
pub(super) struct FindingsDocument {
    pub(super) worst: Option<&'static str>,
    pub(super) counts: Vec<CountDocument>,
    pub(super) list: Vec<FindingDocument>,
}

impl FindingsDocument {
    /// Seen from the opened file, called `first`.
    pub(super) fn of(findings: &Findings, first: &str) -> Self {
        let list = findings.list().iter();
        let counts = findings.counts().iter();
        Self {
            worst: findings.worst().map(severity),
            counts: counts
                .map(|(code, count)| CountDocument {
                    code,
                    count: *count,
                })
                .collect(),
            list: list
                .map(|finding| FindingDocument::of(finding, first))
                .collect(),
        }
    }

    /// Two lines for each place, and what is not listed.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.list {
            // Paths and values come from the image.
            let (file, path) = (harmless(&one.file), harmless(&one.path));
            let (found, expected) = (harmless(&one.found), harmless(&one.expected));
            let _ = writeln!(
                text,
                "{:<7} {} {file} at {}, {} bytes: {path} is {found}, expected {expected}\n        {}; repairable: {}; {}",
                one.severity,
                one.code,
                one.offset,
                one.length,
                one.effect,
                one.repairable,
                one.clause
            );
        }
        for count in &self.counts {
            let listed = self.list.iter().filter(|one| one.code == count.code);
            let more = count
                .count
                .saturating_sub(u64::try_from(listed.count()).unwrap_or(u64::MAX));
            if more > 0 {
                let _ = writeln!(text, "        {} at {more} more places", count.code);
            }
        }
        text
    }
}

/// `2 errors, 1 warning`, the worst first; `nothing` when there is none.
pub(super) fn tally(findings: &Findings) -> String {
    let mut counts = [0u64; 3];
    for (code, count) in findings.counts() {
        let one = findings.list().iter().find(|one| one.rule.code == *code);
        let place = match one.map(|one| one.rule.severity) {
            Some(Severity::Error) => 0,
            Some(Severity::Warning) => 1,
            _ => 2,
        };
        counts[place] = counts[place].saturating_add(*count);
    }
    let mut parts = Vec::new();
    for (count, name) in counts.into_iter().zip(["error", "warning", "note"]) {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {name}{plural}"));
        }
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    parts.join(", ")
}
