//! One run as text.

use crate::{Paint, harmless};
use drylab_pipeline::{Check, Overall, RunReport};
use std::fmt::Write;

/// Overall score, then every check with its values and witness, then how to get it again.
#[must_use]
pub fn run_text(report: &RunReport, paint: Paint) -> String {
    let scenario = &report.scenario;
    let mut text = format!(
        "{} from {} to {} by {}: {}\n",
        scenario.guest,
        scenario.source,
        scenario.target,
        scenario.route,
        paint.score(report.overall, 0)
    );
    for check in &report.checks {
        text.push_str(&check_line(check, paint));
    }
    let _ = writeln!(
        text,
        "trace   {}  ({} events)",
        report.trace.hash(),
        report.trace.count()
    );
    let _ = writeln!(text, "outcome {}", report.outcome_hash);
    let _ = writeln!(
        text,
        "replay: drylab replay {}",
        drylab_scenario::Token::of(scenario)
    );
    text
}

/// A check with its witness, several lines.
#[must_use]
pub fn check_line(check: &Check, paint: Paint) -> String {
    let found = &check.found;
    let overall = check.score.map_or(Overall::Unknown, Overall::from);
    let mut text = format!(
        "  {}  {:<18}  {}",
        paint.score(overall, 7),
        found.step.name(),
        found.id
    );
    match &found.measure {
        Err(reason) => {
            let _ = write!(text, "  cannot be assessed: {reason}");
        }
        Ok(_) if found.before.is_empty() && found.after.is_empty() => {}
        Ok(_) if found.before == found.after => {
            let _ = write!(text, "  {}", harmless(&found.after));
        }
        Ok(_) => {
            let _ = write!(
                text,
                "  {}",
                harmless(&format!("{} -> {}", found.before, found.after))
            );
        }
    }
    text.push('\n');
    for witness in &found.witness {
        let _ = writeln!(text, "             {}", harmless(&witness.to_string()));
    }
    text
}

/// Every event with its time in seconds.
#[must_use]
pub fn timeline(report: &RunReport) -> String {
    let mut text = String::new();
    for event in report.trace.events() {
        let fields: Vec<String> = event
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let _ = writeln!(
            text,
            "{:>6}.{:06}  {:<10} {:<12} {}",
            event.time / 1_000_000,
            event.time % 1_000_000,
            event.component,
            event.kind,
            harmless(&fields.join("  "))
        );
    }
    text
}
