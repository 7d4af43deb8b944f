//! JSON for machines. Every document carries its version.

use drylab_campaign::{Cause, Cell};
use drylab_catalog::Mark;
use drylab_pipeline::{Check, Overall, RunReport};
use serde::Serialize;

#[derive(Serialize)]
struct MatrixDocument {
    format: u32,
    cells: Vec<CellDocument>,
}

#[derive(Serialize)]
struct CellDocument {
    guest: String,
    source: String,
    target: String,
    score: String,
    route: String,
    runs: u64,
    success: u64,
    warning: u64,
    failure: u64,
    interval: [u64; 2],
    causes: Vec<CauseDocument>,
    token: String,
}

#[derive(Serialize)]
struct CauseDocument {
    id: String,
    score: String,
    share: u64,
    evidence: Mark,
}

/// The matrix: shares and intervals in parts per million; the interval is that of the share of runs that did not fail;
/// a cell without any route is left out.
///
/// # Panics
/// Never: texts and integers always have a JSON form.
#[must_use]
pub fn matrix_json(cells: &[Cell]) -> String {
    let document = MatrixDocument {
        format: 1,
        cells: cells.iter().filter_map(cell).collect(),
    };
    print(&document)
}

pub(crate) fn print(document: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(document).expect("texts and integers always have a JSON form");
    text.push('\n');
    text
}

fn cell(cell: &Cell) -> Option<CellDocument> {
    let best = cell.best()?;
    let (low, high) = best.interval_ppm();
    Some(CellDocument {
        guest: cell.guest.to_string(),
        source: cell.source.to_string(),
        target: cell.target.to_string(),
        score: best.overall.to_string(),
        route: best.route.clone(),
        runs: best.runs(),
        success: best.count(Overall::Success),
        warning: best.count(Overall::Warning),
        failure: best.count(Overall::Failure),
        interval: [low, high],
        causes: best.causes.iter().map(cause).collect(),
        token: best.typical.token.to_string(),
    })
}

fn cause(cause: &Cause) -> CauseDocument {
    CauseDocument {
        id: cause.id.clone(),
        score: cause.score.to_string(),
        share: cause.share_ppm,
        evidence: cause.evidence,
    }
}

#[derive(Serialize)]
struct RunDocument {
    format: u32,
    token: String,
    score: String,
    trace_hash: String,
    outcome_hash: String,
    events: u64,
    checks: Vec<CheckDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trace: Vec<EventDocument>,
}

#[derive(Serialize)]
struct CheckDocument {
    id: &'static str,
    step: &'static str,
    score: String,
    before: String,
    after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_assessed: Option<String>,
    cause: String,
    evidence: Mark,
    witness: Vec<String>,
}

#[derive(Serialize)]
struct EventDocument {
    time_us: u64,
    sequence: u64,
    component: String,
    kind: String,
    fields: Vec<(String, String)>,
}

/// One run, with its trace where it was kept.
#[must_use]
pub fn run_json(report: &RunReport) -> String {
    let trace = report.trace.events().iter().map(|event| EventDocument {
        time_us: event.time,
        sequence: event.sequence,
        component: event.component.clone(),
        kind: event.kind.to_string(),
        fields: event.fields.clone(),
    });
    print(&RunDocument {
        format: 1,
        token: drylab_scenario::Token::of(&report.scenario).to_string(),
        score: report.overall.to_string(),
        trace_hash: report.trace.hash().to_string(),
        outcome_hash: report.outcome_hash.to_string(),
        events: report.trace.count(),
        checks: report.checks.iter().map(check).collect(),
        trace: trace.collect(),
    })
}

fn check(check: &Check) -> CheckDocument {
    CheckDocument {
        id: check.found.id,
        step: check.found.step.name(),
        score: check
            .score
            .map_or(Overall::Unknown, Overall::from)
            .to_string(),
        before: check.found.before.clone(),
        after: check.found.after.clone(),
        not_assessed: check.found.measure.as_ref().err().cloned(),
        cause: check.cause_id(),
        evidence: check.weakest(),
        witness: check
            .found
            .witness
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}
