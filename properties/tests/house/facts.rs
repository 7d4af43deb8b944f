//! Facts: rows of the quirk tables and citations of them fit each other.

use crate::{files, none, read, sources};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

const ROWS: &str = "models/catalog/quirks";

/// Whether a word is the id of a quirk: GQ, HQ or DQ and a number.
fn is_id(word: &str) -> bool {
    let number = ["GQ", "HQ", "DQ"]
        .into_iter()
        .find_map(|kind| word.strip_prefix(kind));
    number
        .is_some_and(|number| number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Ids in a text, with or without other words around them.
pub(crate) fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| is_id(word))
}

/// Ids in the texts of a TOML file, its keys and comments excepted.
fn ids_of(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => found.extend(ids(text).map(str::to_owned)),
        Value::Array(list) => list.iter().for_each(|value| ids_of(value, found)),
        Value::Table(table) => table.values().for_each(|value| ids_of(value, found)),
        _ => {}
    }
}

/// Rows nobody cites and citations without a row.
fn wrong_citations(rows: &BTreeSet<String>, cited: &BTreeMap<String, String>) -> Vec<String> {
    let unused = rows.iter().filter(|id| !cited.contains_key(*id));
    let unused = unused.map(|id| format!("{ROWS}: no code and no fact cites {id}"));
    let missing = cited.iter().filter(|(id, _)| !rows.contains(*id));
    unused
        .chain(missing.map(|(id, place)| format!("{place}: {id} has no row")))
        .collect()
}

/// What a row must say.
fn wrong_rows(rows: &Table) -> Vec<String> {
    const MARKS: [&str; 5] = ["belief", "issue", "document", "source", "measured"];
    let mut wrong = Vec::new();
    for (id, row) in rows {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
        if !is_id(id) {
            wrong.push(format!("{ROWS}: {id} is no id of a quirk"));
        }
        for key in ["who", "states", "hits"] {
            if text(key).is_empty() {
                wrong.push(format!("{ROWS}: {id} has no {key}"));
            }
        }
        if !MARKS.contains(&text("mark")) {
            wrong.push(format!("{ROWS}: {id} has mark {:?}", text("mark")));
        }
        if text("mark") != "belief" && text("source").is_empty() {
            wrong.push(format!("{ROWS}: {id} is no belief and names no source"));
        }
    }
    wrong
}

/// Every row of the quirk tables.
pub(crate) fn rows() -> Table {
    let mut rows = Table::new();
    for path in files(ROWS) {
        let table: Table = read(&path)
            .parse()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        rows.extend(table);
    }
    rows
}

/// Every id that code or a table of facts cites, with all places, in order of their paths.
pub(crate) fn citations() -> BTreeMap<String, Vec<String>> {
    let mut cited: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, code) in sources() {
        for (line, text) in &code.texts {
            // Only a text that is nothing but an id: prose may speak of any.
            if is_id(text) {
                let places = cited.entry(text.clone()).or_default();
                places.push(format!("{path}:{line}"));
            }
        }
    }
    let tables = ["models", "sim"].into_iter().flat_map(files);
    for path in tables.filter(|path| {
        path.ends_with(".toml") && !path.starts_with(ROWS) && !path.ends_with("Cargo.toml")
    }) {
        let mut found = BTreeSet::new();
        let table: Table = read(&path)
            .parse()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        ids_of(&Value::Table(table), &mut found);
        for id in found {
            cited.entry(id).or_default().push(path.clone());
        }
    }
    cited
}

/// Every id that code or a table of facts cites, with one place.
fn cited() -> BTreeMap<String, String> {
    let all = citations().into_iter();
    all.filter_map(|(id, places)| Some((id, places.into_iter().next()?)))
        .collect()
}

#[test]
fn every_quirk_is_cited_and_every_citation_has_a_row() {
    let cited = cited();
    assert!(cited.len() > 50, "the citations were not found: {cited:?}");
    none(&wrong_citations(&rows().keys().cloned().collect(), &cited));
}

#[test]
fn every_quirk_hits_a_check_of_the_policy_or_says_that_none_compares_it() {
    let policy = drylab_pipeline::Policy::our_reading();
    let rows = drylab_catalog::quirks().iter();
    let wrong = rows.filter(|(_, row)| {
        let known = policy.rules.contains_key(row.hits.as_str()) || row.hits == "none";
        !known || (row.keeps_whole && row.hits == "none")
    });
    let wrong = wrong.map(|(id, row)| format!("{id} hits {:?}", row.hits));
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn every_quirk_says_who_what_and_on_what_evidence() {
    none(&wrong_rows(&rows()));
}

#[test]
fn the_checks_of_facts_find_bad_samples() {
    let rows: BTreeSet<String> = ["GQ01", "HQ22"].map(str::to_owned).into();
    let cited: BTreeMap<String, String> = [("GQ01", "a.rs:1"), ("DQ100", "a.rs:2")]
        .map(|(id, place)| (id.to_owned(), place.to_owned()))
        .into();
    let wrong = wrong_citations(&rows, &cited);
    assert_eq!(wrong.len(), 2);
    assert!(wrong[0].contains("HQ22") && wrong[1] == "a.rs:2: DQ100 has no row");

    let bad: Table = "[GQ1]\nwho = \"x\"\nstates = \"y\"\nmark = \"rumour\"\n"
        .parse()
        .expect("TOML");
    assert_eq!(wrong_rows(&bad).len(), 4, "id, hits, mark, source");
    let good: Table = "[GQ01]\nwho = \"x\"\nstates = \"y\"\nhits = \"z\"\nmark = \"belief\"\n"
        .parse()
        .expect("TOML");
    assert_eq!(wrong_rows(&good), [""; 0]);

    assert!(ids("see GQ01 and [HQ22], not XQ01, GQ or GQ1a").eq(["GQ01", "HQ22"]));
    let mut found = BTreeSet::new();
    ids_of(&toml::toml! { [a] quirk = "HQ22" }.into(), &mut found);
    assert!(found.iter().eq(["HQ22"]));
}
