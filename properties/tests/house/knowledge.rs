//! What is known, and what of it is built: `corpora/knowledge/rows.md`, one line for each row HQ and GQ of the fact
//! tables in `../shared/facts`.
//!
//! The list is generated: `DRYLAB_BLESS=1 cargo test -p drylab-properties --test house knowledge` writes it. A row is
//! implemented when it stands in the quirk tables (that some code or fact cites it is another test's affair); every
//! other row must have a reason in `corpora/knowledge/reasons.toml`. Where `../shared` is absent, the committed list says
//! which rows there are.

use crate::code::{Code, item_end};
use crate::facts::{citations, ids, rows};
use crate::{files, none, read, root, skipping};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use toml::{Table, Value};

const LIST: &str = "corpora/knowledge/rows.md";
const REASONS: &str = "corpora/knowledge/reasons.toml";
const SCENARIOS: &str = "corpora/scenarios/quirks";

/// Why a row is not implemented.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reason {
    /// Whether it concerns the products, guests and converters of the lab at all.
    lab: bool,
    who: String,
    why: String,
}

/// The reasons by id, and what is wrong with their file.
fn reasons(file: &Table) -> (BTreeMap<String, Reason>, Vec<String>) {
    let mut reasons = BTreeMap::new();
    let mut wrong = Vec::new();
    let groups = file.get("reason").and_then(Value::as_array);
    for group in groups.into_iter().flatten() {
        let text = |key: &str| group.get(key).and_then(Value::as_str).unwrap_or_default();
        let reason = Reason {
            lab: group.get("lab").and_then(Value::as_bool).unwrap_or(true),
            who: text("who").to_owned(),
            why: text("why").to_owned(),
        };
        let listed = group.get("ids").and_then(Value::as_array);
        for id in listed.into_iter().flatten().filter_map(Value::as_str) {
            if reason.who.is_empty() || reason.why.is_empty() {
                wrong.push(format!("{REASONS}: {id} has no who or no why"));
            }
            if reasons.insert(id.to_owned(), reason.clone()).is_some() {
                wrong.push(format!("{REASONS}: {id} has two reasons"));
            }
        }
    }
    (reasons, wrong)
}

/// Rows of a fact table or of our list: lines that begin with a cell that is an id.
fn ids_of_table(text: &str) -> BTreeSet<String> {
    let first = text
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    first
        .map(str::trim)
        .filter(|cell| ids(cell).next() == Some(cell) && !cell.starts_with("DQ"))
        .map(str::to_owned)
        .collect()
}

/// All rows there are: from the fact tables, or from the committed list where the tables are absent.
fn known() -> BTreeSet<String> {
    let folder = root().join("../shared/facts");
    let tables = ["guests-converters.md", "hypervisors.md"].map(|name| folder.join(name));
    if tables.iter().any(|table| !table.exists()) {
        skipping::skip(&format!(
            "../shared/facts is not there; the rows are those of {LIST}"
        ));
        return ids_of_table(&read(LIST));
    }
    let texts = tables.map(|table| std::fs::read_to_string(table).expect("a readable table"));
    texts.iter().flat_map(|text| ids_of_table(text)).collect()
}

/// Tests that speak of a row: id to `crate: test`, for the ids in a test's text, its comments and its name.
fn tests() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let rust = ["models", "sim"].into_iter().flat_map(files);
    for path in rust.filter(|path| path.ends_with(".rs")) {
        for (name, text) in tests_of(&read(&path)) {
            let speaks: BTreeSet<&str> = ids(&text).collect();
            for id in speaks {
                let tests = found.entry(id.to_owned()).or_default();
                tests.push(format!("{path}: {name}"));
            }
        }
    }
    found
}

/// Name and text of every test function of a source file.
fn tests_of(source: &str) -> Vec<(String, String)> {
    const MARK: &str = "#[test]";
    let bare = Code::of_all(source).bare;
    // Blanks stand for whole characters, so places of one text are not those of the other: lines are.
    let line_of = |at: usize| bare[..at].matches('\n').count();
    let lines: Vec<&str> = source.lines().collect();
    let mut tests = Vec::new();
    for (at, _) in bare.match_indices(MARK) {
        let end = item_end(&bare, at + MARK.len());
        let head = &bare[at..end];
        let name = head.split("fn ").nth(1).unwrap_or_default();
        let name: String = name
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let last = (line_of(end) + 1).min(lines.len());
        let text = lines[line_of(at)..last].join("\n");
        tests.push((name, text));
    }
    tests
}

/// What the list says of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    id: String,
    who: String,
    state: &'static str,
    mark: String,
    files: String,
    shown: String,
    why: String,
}

const IMPLEMENTED: &str = "implemented";
const NOT_YET: &str = "not yet";
const ELSEWHERE: &str = "not of this lab";
const NOT_SHOWN: &str = "implemented, not shown";
/// Why a row that is implemented has no smallest scenario: the search of `properties/tests/quirks` keeps one for each row
/// that makes a score in any run it tries.
const NO_SCENARIO: &str = "no scenario yet: in no guest over any route, with any one change that is tried, does it make a check's score; a test speaks of it";

/// The list, and every row that is in neither or in both of the quirk tables and the reasons.
fn entries() -> (Vec<Entry>, Vec<String>) {
    let reasons_file: Table = read(REASONS).parse().expect("the reasons are TOML");
    let (reasons, mut wrong) = reasons(&reasons_file);
    let (rows, citations, tests) = (rows(), citations(), tests());
    let known = known();
    let scenarios: BTreeSet<String> = files(SCENARIOS).into_iter().collect();
    wrong.extend(
        reasons
            .keys()
            .filter(|id| !known.contains(*id))
            .map(|id| format!("{REASONS}: {id} is no row of the fact tables")),
    );
    let mut entries = Vec::new();
    for id in known {
        let row = rows.get(&id);
        let mut entry = Entry {
            id: id.clone(),
            ..Entry::default()
        };
        match (row, reasons.get(&id)) {
            (Some(row), None) => {
                let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
                entry.state = IMPLEMENTED;
                text("who").clone_into(&mut entry.who);
                text("mark").clone_into(&mut entry.mark);
                entry.files = places(citations.get(&id));
                let scenario = format!("{SCENARIOS}/{id}.toml");
                entry.shown = if scenarios.contains(&scenario) {
                    scenario
                } else {
                    NO_SCENARIO.clone_into(&mut entry.why);
                    let test = tests.get(&id).and_then(|tests| tests.first());
                    test.map_or_else(|| NOT_SHOWN.to_owned(), Clone::clone)
                };
            }
            (None, Some(reason)) => {
                entry.state = if reason.lab { NOT_YET } else { ELSEWHERE };
                entry.who.clone_from(&reason.who);
                entry.why.clone_from(&reason.why);
            }
            (Some(_), Some(_)) => {
                wrong.push(format!("{id} is implemented and has a reason why not"))
            }
            (None, None) => wrong.push(format!("{id} is neither implemented nor has it a reason")),
        }
        entries.push(entry);
    }
    (entries, wrong)
}

/// The files that cite an id, each once, without lines: those move with every change.
fn places(cited: Option<&Vec<String>>) -> String {
    let paths = cited.into_iter().flatten();
    let paths: BTreeSet<&str> = paths.filter_map(|place| place.split(':').next()).collect();
    paths.into_iter().collect::<Vec<_>>().join(", ")
}

/// The sentence that the README quotes.
fn counts(entries: &[Entry]) -> String {
    let count = |state: &str| entries.iter().filter(|entry| entry.state == state).count();
    let implemented = entries.iter().filter(|entry| entry.state == IMPLEMENTED);
    let by_run = implemented
        .clone()
        .filter(|entry| entry.shown.starts_with(SCENARIOS))
        .count();
    let not_shown = implemented.filter(|entry| entry.shown == NOT_SHOWN).count();
    let tests = count(IMPLEMENTED) - by_run - not_shown;
    format!(
        "Of {} rows, {} are implemented ({by_run} shown by a scenario, {tests} by a test, {not_shown} by neither), \
         {} are not yet, {} are of other products.",
        entries.len(),
        count(IMPLEMENTED),
        count(NOT_YET),
        count(ELSEWHERE),
    )
}

fn list(entries: &[Entry]) -> String {
    let mut text = format!(
        "# Rows of the fact tables\n\nGenerated, not written by hand: see `properties/tests/house/knowledge.rs`.\n\n{}\n\n\
         | id | who | state | mark | mechanism | smallest scenario or test | reason |\n|---|---|---|---|---|---|---|\n",
        counts(entries)
    );
    for entry in entries {
        let Entry {
            id,
            who,
            state,
            mark,
            files,
            shown,
            why,
        } = entry;
        writeln!(
            text,
            "| {id} | {who} | {state} | {mark} | {files} | {shown} | {why} |"
        )
        .expect("a text takes text");
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the environment; what it finds does not depend on it"
)]
fn blessing() -> bool {
    std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1")
}

#[test]
fn every_row_of_knowledge_is_implemented_or_has_a_reason_and_the_list_says_which() {
    let (entries, wrong) = entries();
    none(&wrong);
    let text = list(&entries);
    if blessing() {
        std::fs::write(root().join(LIST), &text).expect("the list can be written");
    }
    let committed = read(LIST);
    let stale = text
        .lines()
        .filter(|line| !committed.lines().any(|other| other == *line));
    none(&stale.map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(text, committed, "{LIST} has more than it should");
}

#[test]
fn the_readme_quotes_the_counts() {
    let (entries, _) = entries();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let counts = counts(&entries);
    assert!(
        words(&read("README.md")).contains(&counts),
        "README.md does not say: {counts}"
    );
}

#[test]
fn a_row_in_neither_table_or_with_two_reasons_is_found_and_a_test_by_its_ids() {
    let file: Table = "[[reason]]\nids = [\"GQ14\"]\nwho = \"x\"\nlab = false\nwhy = \"y\"\n\
                       [[reason]]\nids = [\"GQ14\", \"HQ04\"]\nwho = \"x\"\n"
        .parse()
        .expect("TOML");
    let (found, wrong) = reasons(&file);
    assert_eq!(found.len(), 2);
    assert_eq!(wrong.len(), 3, "two without why, one twice: {wrong:?}");
    assert!(
        ids_of_table("| GQ01 | a |\n| GQ02, GQ03 | b |\n| id |\n|HQ04|\n| DQ100 |\ntext HQ05")
            .into_iter()
            .eq(["GQ01", "HQ04"])
    );
    let source =
        "#[test]\nfn one() {\n    // GQ01\n    call(\"}\", \"HQ22\");\n}\nfn two() { \"GQ03\"; }\n";
    let tests = tests_of(source);
    assert_eq!(tests.len(), 1);
    assert_eq!(tests[0].0, "one");
    assert!(ids(&tests[0].1).eq(["GQ01", "HQ22"]));
}
