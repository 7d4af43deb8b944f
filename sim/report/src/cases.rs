//! Cases: what was told and what is predicted, as text and JSON.

use crate::{Paint, harmless, percent, print};
use drylab_campaign::{CaseAnswer, CaseResult, HalfResult, Ratio, scores};
use drylab_pipeline::Overall;
use serde::Serialize;
use std::fmt::Write;

/// The table, what stands for what was told, and how often the predictions hold.
#[must_use]
pub fn cases_text(results: &[CaseResult], paint: Paint) -> String {
    let mut text = format!(
        "{:<7}{:<9}{:<10}{:<9}{}\n",
        "case", "observed", "predicted", "", "cause predicted; cause stated (confidence)"
    );
    for result in results {
        for half in &result.halves {
            line(&mut text, result, half, paint);
        }
    }
    text.push('\n');
    for result in results {
        detail(&mut text, result);
    }
    text.push_str(&summary(results));
    text
}

fn line(text: &mut String, result: &CaseResult, half: &HalfResult, paint: Paint) {
    let _ = write!(text, "{:<7}{:<9}", result.case.id, half.half.observed);
    let Some(predicted) = half.predicted() else {
        let _ = writeln!(text, "{:<10}not assessed", "-");
        return;
    };
    let stated = match half.half.causes.is_empty() {
        true => "none stated".to_owned(),
        false => format!(
            "{} ({})",
            half.half.causes.join(" or "),
            result.case.confidence
        ),
    };
    let cause = match &predicted.cause {
        Some((cause, check)) => format!("{cause} at {check}"),
        None => "none".to_owned(),
    };
    let _ = writeln!(
        text,
        "{}{}{:<9}{cause}; {stated}{}",
        paint
            .score(predicted.overall, 0)
            .replace(&predicted.overall.to_string(), letter(predicted.overall)),
        " ".repeat(9),
        verdict(half),
        match half.cause_matches() {
            Some(false) => "  another cause",
            _ => "",
        }
    );
}

fn letter(overall: Overall) -> &'static str {
    match overall {
        Overall::Failure => "F",
        Overall::Warning => "W",
        Overall::Success => "S",
        Overall::Unknown => "?",
    }
}

fn verdict(half: &HalfResult) -> &'static str {
    match half.is_right() {
        Some(true) => "right",
        Some(false) => "WRONG",
        None => "",
    }
}

fn one_line(text: &str) -> String {
    harmless(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn detail(text: &mut String, result: &CaseResult) {
    let case = &result.case;
    let _ = writeln!(
        text,
        "{}  {}; {}",
        harmless(&case.id),
        one_line(&case.route),
        one_line(&case.guest)
    );
    for link in &case.links {
        let _ = writeln!(text, "      {}", one_line(link));
    }
    if !case.stands_for.is_empty() {
        let _ = writeln!(text, "      stands for it: {}", one_line(&case.stands_for));
    }
    for half in &result.halves {
        let _ = writeln!(
            text,
            "      {}: {}",
            half.half.observed,
            one_line(&half.half.condition)
        );
        let _ = match &half.answer {
            CaseAnswer::NotAssessed(missing) => {
                writeln!(
                    text,
                    "         not assessed, missing: {}",
                    one_line(missing)
                )
            }
            CaseAnswer::Predicted(predicted) => writeln!(
                text,
                "         predicted {}{}",
                predicted.overall,
                match predicted.seen.is_empty() {
                    true => String::new(),
                    false => format!(": {}", one_line(&predicted.seen)),
                }
            ),
        };
    }
}

fn summary(results: &[CaseResult]) -> String {
    let sums = scores(results);
    let share = |ratio: Ratio| {
        let (low, high) = ratio.interval_ppm();
        format!(
            "{} of {} (95 %: {} to {})",
            ratio.hits,
            ratio.of,
            percent(low),
            percent(high)
        )
    };
    format!(
        "\nfails or not, as observed   {}\ncause as stated             {}\nboth halves of a pair       {}\nfailures called SUCCESS     {}\nassessed                    {} of {} cases, {} of {} outcomes; the others count nowhere above\n",
        share(sums.outcome),
        share(sums.cause),
        share(sums.pairs),
        sums.false_success,
        sums.cases.hits,
        sums.cases.of,
        sums.halves.hits,
        sums.halves.of,
    )
}

#[derive(Serialize)]
struct Document {
    format: u32,
    outcome: RatioDocument,
    cause: RatioDocument,
    pairs: RatioDocument,
    false_success: u64,
    assessed_cases: RatioDocument,
    assessed_outcomes: RatioDocument,
    cases: Vec<CaseDocument>,
}

#[derive(Serialize)]
struct RatioDocument {
    hits: u64,
    of: u64,
    interval: (u64, u64),
}

#[derive(Serialize)]
struct CaseDocument {
    id: String,
    links: Vec<String>,
    confidence: String,
    halves: Vec<HalfDocument>,
}

#[derive(Serialize)]
struct HalfDocument {
    condition: String,
    observed: String,
    causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_assessed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause_matches: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// The same for machines; intervals in parts per million.
#[must_use]
pub fn cases_json(results: &[CaseResult]) -> String {
    let sums = scores(results);
    let ratio = |ratio: Ratio| RatioDocument {
        hits: ratio.hits,
        of: ratio.of,
        interval: ratio.interval_ppm(),
    };
    print(&Document {
        format: 1,
        outcome: ratio(sums.outcome),
        cause: ratio(sums.cause),
        pairs: ratio(sums.pairs),
        false_success: sums.false_success,
        assessed_cases: ratio(sums.cases),
        assessed_outcomes: ratio(sums.halves),
        cases: results.iter().map(case_document).collect(),
    })
}

fn case_document(result: &CaseResult) -> CaseDocument {
    CaseDocument {
        id: result.case.id.clone(),
        links: result.case.links.clone(),
        confidence: result.case.confidence.to_string(),
        halves: result.halves.iter().map(half_document).collect(),
    }
}

fn half_document(half: &HalfResult) -> HalfDocument {
    let predicted = half.predicted();
    let cause = predicted.and_then(|predicted| predicted.cause.clone());
    HalfDocument {
        condition: half.half.condition.trim().to_owned(),
        observed: half.half.observed.to_string(),
        causes: half.half.causes.clone(),
        not_assessed: match &half.answer {
            CaseAnswer::NotAssessed(missing) => Some(missing.trim().to_owned()),
            CaseAnswer::Predicted(_) => None,
        },
        predicted: predicted.map(|predicted| predicted.overall.to_string()),
        cause: cause.as_ref().map(|(cause, _)| cause.clone()),
        check: cause.map(|(_, check)| check),
        right: half.is_right(),
        cause_matches: half.cause_matches(),
        token: predicted.map(|predicted| predicted.token.to_string()),
    }
}
