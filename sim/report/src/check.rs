//! Predictions for a real disk.

use crate::{Paint, harmless, print};
use drylab_catalog::Mark;
use drylab_pipeline::{PredictedFinding, Prediction};
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct CheckDocument<'a> {
    format: u32,
    targets: Vec<TargetDocument<'a>>,
}

#[derive(Serialize)]
struct TargetDocument<'a> {
    target: &'a str,
    score: String,
    findings: Vec<FindingDocument<'a>>,
}

#[derive(Serialize)]
struct FindingDocument<'a> {
    id: &'a str,
    score: String,
    r#where: &'a str,
    evidence: Mark,
    remedy: &'a str,
}

/// The predictions, target by target, for programs.
#[must_use]
pub fn check_json(predictions: &[Prediction]) -> String {
    let finding = |finding: &PredictedFinding| finding.score.to_string();
    let target = |prediction: &'_ Prediction| prediction.overall.to_string();
    let targets = predictions.iter().map(|prediction| TargetDocument {
        target: prediction.target.as_str(),
        score: target(prediction),
        findings: prediction
            .findings
            .iter()
            .map(|found| FindingDocument {
                id: &found.id,
                score: finding(found),
                r#where: &found.place,
                evidence: found.evidence,
                remedy: &found.remedy,
            })
            .collect(),
    });
    print(&CheckDocument {
        format: 1,
        targets: targets.collect(),
    })
}

/// The predictions, target by target, for people: each finding with its place, its witnesses and what can be done.
#[must_use]
pub fn check_text(predictions: &[Prediction], paint: Paint) -> String {
    let mut text = String::new();
    for prediction in predictions {
        let _ = writeln!(
            text,
            "{}: {}",
            prediction.target,
            paint.score(prediction.overall, 0)
        );
        for finding in &prediction.findings {
            describe(&mut text, finding, paint);
        }
    }
    text
}

fn describe(text: &mut String, finding: &PredictedFinding, paint: Paint) {
    let _ = writeln!(
        text,
        "  {}  {}  {}  [{}]",
        paint.score(finding.score, 7),
        finding.id,
        harmless(&finding.place),
        finding.evidence
    );
    for witness in &finding.witness {
        let _ = writeln!(text, "             {}", harmless(&witness.to_string()));
    }
    if !finding.remedy.is_empty() {
        let _ = writeln!(text, "           remedy: {}", harmless(&finding.remedy));
    }
}
