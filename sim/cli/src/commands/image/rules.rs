//! `drylab image rules`

use super::document::{FORMAT, RuleDocument, json};
use crate::args::Format;
use crate::exit::{Exit, Stop};
use crate::image_args::RulesArgs;
use crate::{habits, nearest, terminal};
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct Document {
    format: u32,
    rules: Vec<RuleDocument>,
}

pub(super) fn run(args: &RulesArgs) -> Result<Exit, Stop> {
    let all = drylab_image::rules();
    let prefix = |code: &str| code.split('-').next().unwrap_or_default().to_lowercase();
    let wanted = args.what.as_deref().unwrap_or_default();
    let is_wanted = |code: &str| {
        wanted.is_empty()
            || code.eq_ignore_ascii_case(wanted)
            || prefix(code) == wanted.to_lowercase()
    };
    let chosen = all.iter().filter(|rule| is_wanted(rule.code));
    let rules: Vec<RuleDocument> = chosen.map(|rule| RuleDocument::of(rule)).collect();
    if rules.is_empty() {
        let mut formats: Vec<String> = all.iter().map(|rule| prefix(rule.code)).collect();
        formats.dedup();
        let known = all.iter().map(|rule| rule.code);
        let hint = if wanted.eq_ignore_ascii_case("vpc") {
            format!("; {}", habits::VPC)
        } else {
            nearest::hint(wanted, known.chain(formats.iter().map(String::as_str)))
        };
        return Err(Stop::usage(format_args!(
            "there is no format or rule {wanted:?}{hint} (formats: {})",
            formats.join(", ")
        )));
    }
    terminal::print(&match args.format {
        Format::Json => json(&Document {
            format: FORMAT,
            rules,
        })?,
        Format::Text => {
            let mut text = String::new();
            for rule in &rules {
                let _ = writeln!(
                    text,
                    "{:<7} {}: {}\n        repairable: {}; {}",
                    rule.severity, rule.code, rule.effect, rule.repairable, rule.clause
                );
            }
            text
        }
    })?;
    Ok(Exit::Done)
}
