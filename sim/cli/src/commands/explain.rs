//! `drylab explain`

use crate::args::ExplainArgs;
use crate::exit::{Exit, Stop};
use crate::{nearest, terminal};
use drylab_campaign::Unknowns;
use drylab_catalog::{Mark, quirks};
use drylab_pipeline::{Level, Library, Route, Rule};
use std::collections::BTreeMap;
use std::fmt::Write;

pub(super) fn run(args: &ExplainArgs) -> Result<Exit, Stop> {
    let shelves = Shelves::new(Library::new());
    let Some(text) = shelves.explain(&args.id) else {
        let is_rule = |rule: &&&drylab_image::Rule| rule.code.eq_ignore_ascii_case(&args.id);
        if let Some(rule) = drylab_image::rules().iter().find(is_rule) {
            return Err(Stop::usage(format_args!(
                "{} is a rule of disk images; see drylab image rules {}",
                args.id, rule.code
            )));
        }
        let ids = shelves.ids();
        let hint = nearest::hint(&args.id, ids.iter().map(String::as_str));
        return Err(Stop::usage(format_args!(
            "nothing is known by the id {:?}{hint}",
            args.id
        )));
    };
    terminal::print(&text)?;
    Ok(Exit::Done)
}

/// Everything that has an id.
struct Shelves {
    library: Library,
    unknowns: Unknowns,
}

impl Shelves {
    fn new(library: Library) -> Self {
        Self {
            library,
            unknowns: Unknowns::of_the_report(),
        }
    }

    /// All ids, for suggestions.
    fn ids(&self) -> Vec<String> {
        let library = &self.library;
        let facts = library.products.values().flat_map(|product| {
            let keys = product.facts.keys();
            keys.map(move |key| format!("{}/{key}", product.id))
        });
        let mut ids: Vec<String> = facts.collect();
        ids.extend(quirks().keys().cloned());
        ids.extend(library.policy.rules.keys().cloned());
        ids.extend(library.policy.relaxations.keys().cloned());
        ids.extend(library.routes.iter().map(|route| route.id.clone()));
        ids.extend(library.products.keys().map(ToString::to_string));
        ids.extend(self.unknowns.questions().map(|(id, _)| id.to_owned()));
        ids.extend(self.unknowns.mechanisms().map(|(id, _)| id.to_owned()));
        ids
    }

    /// What is known of an id; letter case does not matter for quirks.
    fn explain(&self, id: &str) -> Option<String> {
        quirk(id)
            .or_else(|| self.check(id))
            .or_else(|| self.fact(id))
            .or_else(|| self.library.route(id).map(route))
            .or_else(|| self.relaxation(id))
            .or_else(|| self.product(id))
            .or_else(|| self.unknown(id))
            .or_else(|| self.mechanism(id))
    }

    fn check(&self, id: &str) -> Option<String> {
        let rule = self.library.policy.rules.get(id)?;
        let level = match rule.level {
            Level::Hypervisor => "looks from outside (hypervisor level)",
            Level::Guest => "looks inside the guest",
        };
        let mut text = format!("{id}  check, {level}\n");
        line(&mut text, "reading", &rule.reading);
        for (name, value) in bounds(rule) {
            line(&mut text, name, &value);
        }
        let relaxations = &self.library.policy.relaxations;
        for (name, relaxation) in relaxations {
            if relaxation.checks.iter().any(|check| check == id) {
                line(&mut text, "relaxed by", name);
            }
        }
        let hitting = quirks().iter().filter(|(_, quirk)| quirk.hits == id);
        for (quirk_id, quirk) in hitting {
            line(
                &mut text,
                "hit by",
                &format!("{quirk_id}  {}: {}", quirk.who, quirk.states),
            );
        }
        Some(text)
    }

    fn fact(&self, id: &str) -> Option<String> {
        let (product, key) = id.split_once('/')?;
        let product = self.library.products.get(&product.into())?;
        let fact = product.facts.get(key)?;
        let mut text = format!("{id}  fact of {}\n", product.name);
        line(&mut text, "value", &fact.value.to_string());
        evidence(&mut text, fact.mark, &fact.source);
        if let Some(reason) = self.unknowns.reason(id) {
            self.answers(&mut text, id);
            line(&mut text, "weights", reason);
        }
        Some(text)
    }

    /// A question that the report leaves open, which `matrix --plausible` draws an answer to.
    fn unknown(&self, id: &str) -> Option<String> {
        let (_, unknown) = self.unknowns.questions().find(|(known, _)| *known == id)?;
        let mut text = format!("{id}  unknown of the report's lab\n");
        line(&mut text, "asks", &unknown.asks);
        self.answers(&mut text, id);
        line(&mut text, "weights", &unknown.reason);
        Some(text)
    }

    /// The plausible answers, the default lab's first, each with its share of the labs that are drawn.
    fn answers(&self, text: &mut String, id: &str) {
        let weights = self.unknowns.weights(id);
        let all: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let name = if index == 0 { "default lab" } else { "or" };
            let answer = self.unknowns.answer(id, index);
            line(text, name, &format!("{answer}, {weight} of {all} labs"));
        }
    }

    fn mechanism(&self, id: &str) -> Option<String> {
        let (_, row) = self.unknowns.mechanisms().find(|(known, _)| *known == id)?;
        let mut text = format!("{id}  mechanism that matrix --plausible switches off\n");
        line(&mut text, "off", &row.states);
        line(&mut text, "changes", &row.effects.len().to_string());
        Some(text)
    }

    fn relaxation(&self, id: &str) -> Option<String> {
        let relaxation = self.library.policy.relaxations.get(id)?;
        let mut text = format!("{id}  relaxation: a WARNING of these checks counts as SUCCESS\n");
        line(&mut text, "checks", &relaxation.checks.join(", "));
        line(&mut text, "reason", &relaxation.reason);
        line(&mut text, "expires", &relaxation.expires);
        line(
            &mut text,
            "ask for it",
            &format!("relax = [\"{id}\"] in a scenario file"),
        );
        Some(text)
    }

    fn product(&self, id: &str) -> Option<String> {
        let product = self.library.products.get(&id.into())?;
        let mut text = format!("{id}  product: {}\n", product.name);
        line(&mut text, "console", &product.console);
        let mut marks: BTreeMap<Mark, usize> = BTreeMap::new();
        for fact in product.facts.values() {
            *marks.entry(fact.mark).or_default() += 1;
        }
        let marks: Vec<String> = marks
            .iter()
            .rev()
            .map(|(mark, count)| format!("{count} {mark}"))
            .collect();
        line(
            &mut text,
            "facts",
            &format!("{} ({})", product.facts.len(), marks.join(", ")),
        );
        for key in product.facts.keys() {
            line(&mut text, "", &format!("{id}/{key}"));
        }
        Some(text)
    }
}

/// `name: value`, names in one column.
fn line(text: &mut String, name: &str, value: &str) {
    let name = if name.is_empty() {
        String::new()
    } else {
        format!("{name}:")
    };
    let _ = writeln!(text, "  {name:<12} {value}");
}

fn evidence(text: &mut String, mark: Mark, source: &str) {
    let source = if source.is_empty() {
        "no source: a parameter to confirm"
    } else {
        source
    };
    line(text, "evidence", &format!("{mark}, {source}"));
}

fn quirk(id: &str) -> Option<String> {
    let (id, quirk) = quirks()
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(id))?;
    let mut text = format!("{id}  quirk of {}\n", quirk.who);
    line(&mut text, "states", &quirk.states);
    line(&mut text, "hits", &quirk.hits);
    evidence(&mut text, quirk.mark, &quirk.source);
    if !quirk.remedy.is_empty() {
        line(&mut text, "remedy", &quirk.remedy);
    }
    Some(text)
}

fn route(route: &Route) -> String {
    let mut text = format!("{}  route\n", route.id);
    line(&mut text, "from", route.source.as_str());
    line(&mut text, "to", route.target.as_str());
    for hop in &route.hops {
        line(&mut text, "then", hop.words());
    }
    text
}

/// Numbers of a rule in words.
fn bounds(rule: &Rule) -> Vec<(&'static str, String)> {
    let percent = drylab_report::percent;
    if rule.warning_ppm > 0 {
        return vec![
            (
                "SUCCESS",
                format!("a difference of up to {}", percent(rule.success_ppm)),
            ),
            ("WARNING", format!("up to {}", percent(rule.warning_ppm))),
            (
                "FAILURE",
                format!("beyond, and {} when missing", rule.missing),
            ),
        ];
    }
    vec![
        ("same", "SUCCESS".to_owned()),
        ("changed", rule.changed.to_string()),
        ("missing", rule.missing.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::Shelves;
    use drylab_pipeline::Library;

    #[test]
    fn everything_that_has_an_id_is_explained() {
        let shelves = Shelves::new(Library::new());
        let ids = shelves.ids();
        assert!(ids.len() > 100, "{}", ids.len());
        for id in ids {
            let text = shelves.explain(&id).unwrap_or_else(|| panic!("{id}"));
            assert!(text.starts_with(&id) && text.lines().count() > 2, "{text}");
        }
    }
}
