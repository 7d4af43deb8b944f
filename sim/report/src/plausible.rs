//! The shares of plausible labs as text and JSON.

use crate::{percent, print};
use drylab_campaign::{CellShare, Finding, Plausible, Share, Unknowns, View, findings, wilson_ppm};
use drylab_pipeline::Overall;
use serde::Serialize;
use std::fmt::Write;

/// One table of findings by view, one of mechanisms, one of cells, in Markdown, which reads as text as well.
#[must_use]
pub fn plausible_text(found: &Plausible, unknowns: &Unknowns) -> String {
    let mut text = format!(
        "Share of {} plausible labs in which each finding of the report holds (cells between different products).\n\n",
        found.labs
    );
    let (said, unsaid): (Vec<&Finding>, Vec<&Finding>) =
        findings().iter().partition(|row| is_said(found, row.id));
    if !unsaid.is_empty() {
        let ids: Vec<&str> = unsaid.iter().map(|row| row.id).collect();
        let _ = writeln!(
            text,
            "Not said of these guests and products, since they compare others or nothing failed: {}.\n",
            ids.join(", ")
        );
    }
    if !said.is_empty() {
        overview(&mut text, found, &said);
        text.push_str("\nWith one mechanism switched off (common route / best route):\n\n");
        mechanisms(&mut text, found, unknowns, &said);
    }
    text.push_str("\nCells: share of labs by the score of the best route, and the unknown that tells most of it.\n\n");
    cells(&mut text, &found.cells);
    for (answer, labs) in &found.not_modelled {
        let share = percent(labs * 1_000_000 / found.labs.max(1));
        let _ = write!(
            text,
            "\n{share} of the labs drew an answer that nothing models, and have the first one instead: {answer}.\n"
        );
    }
    text
}

fn words(view: View) -> &'static str {
    match view {
        View::CommonRoute => "common route",
        View::BestRoute => "best route",
    }
}

fn share(share: Share) -> String {
    if share.of == 0 {
        return "cannot be said".to_owned();
    }
    percent(share.holds * 1_000_000 / share.of)
}

fn with_interval(all: Share, labs: u64) -> String {
    let (low, high) = wilson_ppm(all.holds, all.of);
    let said = match all.of {
        of if of == labs => String::new(),
        of => format!(", of {of} labs"),
    };
    format!(
        "{} ({} to {}{said})",
        share(all),
        percent(low),
        percent(high)
    )
}

fn find(found: &Plausible, id: &str, view: View, without: Option<&str>) -> Share {
    let hit = found
        .findings
        .iter()
        .find(|row| row.finding.id == id && row.view == view && row.without.as_deref() == without);
    hit.map_or_else(Share::default, |row| row.share)
}

/// Whether anything can be said of a finding in any of the labs.
fn is_said(found: &Plausible, id: &str) -> bool {
    let mut rows = found.findings.iter().filter(|row| row.finding.id == id);
    rows.any(|row| row.share.of > 0)
}

fn overview(text: &mut String, found: &Plausible, said: &[&Finding]) {
    text.push_str("| finding | counted as |");
    for view in View::ALL {
        let _ = write!(text, " {} (95 % interval) |", words(view));
    }
    text.push_str("\n|---|---|---|---|\n");
    for finding in said {
        let _ = write!(text, "| {} | {} |", finding.id, finding.states);
        for view in View::ALL {
            let share = with_interval(find(found, finding.id, view, None), found.labs);
            let _ = write!(text, " {share} |");
        }
        text.push('\n');
    }
}

fn mechanisms(text: &mut String, found: &Plausible, unknowns: &Unknowns, said: &[&Finding]) {
    text.push_str("| switched off |");
    for finding in said {
        let _ = write!(text, " {} |", finding.id);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(said.len()));
    text.push('\n');
    let rows = unknowns
        .mechanisms()
        .map(|(id, row)| (Some(id), row.states.as_str()));
    for (without, states) in std::iter::once((None, "nothing")).chain(rows) {
        let _ = write!(text, "| {states} |");
        for finding in said {
            let of = |view| share(find(found, finding.id, view, without));
            let _ = write!(
                text,
                " {} / {} |",
                of(View::CommonRoute),
                of(View::BestRoute)
            );
        }
        text.push('\n');
    }
}

fn cells(text: &mut String, cells: &[CellShare]) {
    text.push_str("| guest | from | to | SUCCESS | WARNING | UNKNOWN | FAILURE | unknown that matters most (share of the uncertainty it takes away) |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for cell in cells {
        let all: u64 = cell.counts.values().sum();
        let of = |score: Overall| {
            let count = cell.counts.get(&score).copied().unwrap_or(0);
            percent(count * 1_000_000 / all.max(1))
        };
        let matters = match &cell.matters {
            Some((unknown, gone)) => format!("{unknown} ({})", percent(*gone)),
            None if cell.counts.len() < 2 => "none: the same in all labs".to_owned(),
            None => "none by itself".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {matters} |",
            cell.guest,
            cell.source,
            cell.target,
            of(Overall::Success),
            of(Overall::Warning),
            of(Overall::Unknown),
            of(Overall::Failure)
        );
    }
}

#[derive(Serialize)]
struct Document {
    format: u32,
    labs: u64,
    findings: Vec<FindingDocument>,
    cells: Vec<CellDocument>,
}

#[derive(Serialize)]
struct FindingDocument {
    id: &'static str,
    view: &'static str,
    without: Option<String>,
    holds: u64,
    of: u64,
}

#[derive(Serialize)]
struct CellDocument {
    guest: String,
    source: String,
    target: String,
    success: u64,
    warning: u64,
    unknown: u64,
    failure: u64,
    matters: Option<MattersDocument>,
}

#[derive(Serialize)]
struct MattersDocument {
    unknown: String,
    gone: u64,
}

/// The same for programs: labs are counted, `gone` is in parts per million.
///
/// # Panics
/// Never: texts and integers always have a JSON form.
#[must_use]
pub fn plausible_json(found: &Plausible) -> String {
    let cell = |cell: &CellShare| {
        let of = |score: Overall| cell.counts.get(&score).copied().unwrap_or(0);
        CellDocument {
            guest: cell.guest.to_string(),
            source: cell.source.to_string(),
            target: cell.target.to_string(),
            success: of(Overall::Success),
            warning: of(Overall::Warning),
            unknown: of(Overall::Unknown),
            failure: of(Overall::Failure),
            matters: cell
                .matters
                .as_ref()
                .map(|(unknown, gone)| MattersDocument {
                    unknown: unknown.clone(),
                    gone: *gone,
                }),
        }
    };
    let findings = found.findings.iter().map(|row| FindingDocument {
        id: row.finding.id,
        view: words(row.view),
        without: row.without.clone(),
        holds: row.share.holds,
        of: row.share.of,
    });
    print(&Document {
        format: 1,
        labs: found.labs,
        findings: findings.collect(),
        cells: found.cells.iter().map(cell).collect(),
    })
}
