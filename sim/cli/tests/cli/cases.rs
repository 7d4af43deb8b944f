//! `drylab cases`: the committed cases with their table, and folders of one's own.

use crate::support::{data, json, run};
use drylab_campaign::{committed_cases, committed_texts};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpora/scenarios/cases")
}

#[test]
fn the_committed_table_is_what_comes_out() {
    let table = data(&["cases"]);
    assert_eq!(table, data(&["cases"]), "twice the same");
    let path = folder().join("table.txt");
    if std::env::var_os("DRYLAB_BLESS").is_some() {
        std::fs::write(&path, &table).expect("the table can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the table is committed");
    assert_eq!(table, committed, "DRYLAB_BLESS=1 writes it anew");
}

#[test]
fn every_row_is_a_registered_file_with_its_own_id() {
    let entries = std::fs::read_dir(folder()).expect("the folder is there");
    let files: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("plain names"))
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let registered: BTreeSet<String> = committed_texts()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(files, registered);
    let ids: Vec<String> = committed_cases().into_iter().map(|case| case.id).collect();
    let rows: Vec<String> = (1..=27).map(|row| format!("O-{row:02}")).collect();
    assert_eq!(ids, rows);
}

#[test]
fn no_failure_that_was_observed_is_predicted_as_success_and_silence_counts_nowhere() {
    let found = json(&["cases", "--format", "json"]);
    assert_eq!(found["false_success"], 0);
    let halves = || {
        let cases = found["cases"].as_array().expect("cases");
        cases
            .iter()
            .flat_map(|case| case["halves"].as_array().expect("halves"))
    };
    for half in halves() {
        let has_failure = half["observed"]
            .as_str()
            .expect("a letter")
            .starts_with('F');
        assert!(!(has_failure && half["predicted"] == "SUCCESS"), "{half}");
        let missing = half["not_assessed"].as_str();
        assert_eq!(missing.is_some(), half["predicted"].is_null(), "{half}");
        assert!(missing.is_none_or(|missing| !missing.is_empty()), "{half}");
    }
    let assessed = halves()
        .filter(|half| half["predicted"].is_string())
        .count();
    assert_eq!(found["outcome"]["of"], assessed);
}

#[test]
fn a_folder_of_ones_own_gives_the_same_as_the_committed_files() {
    let own = folder();
    let path = own.to_str().expect("a plain path");
    assert_eq!(data(&["cases", path]), data(&["cases"]));
}

#[test]
fn case_files_that_are_wrong_are_refused_with_the_place() {
    let (_, good) = committed_texts()
        .iter()
        .find(|(name, _)| *name == "o-06.toml")
        .expect("it is there");
    for (from, to, says) in [
        (
            "observed = \"F\"",
            "observed = \"X\"",
            "unknown variant `X`",
        ),
        ("id = \"O-06\"\n", "", "missing field `id`"),
        ("format = 1\nid", "format = 2\nid", "format 2 is not known"),
        ("confidence", "certainty", "unknown field `certainty`"),
        (
            "observed = \"F\"",
            "observed = \"F\"\nnot_assessed = \"x\"",
            "half 1 has a scenario and a not_assessed",
        ),
        (
            "route = \"esx-flat-virt-manager\"",
            "route = \"by-air\"",
            "there is no route \"by-air\"",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(good.contains(from), "{from}");
        std::fs::write(folder.path().join("x.toml"), good.replace(from, to)).expect("written");
        let ran = run(&["cases", folder.path().to_str().expect("a plain path")]);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{to}");
        assert!(ran.err.contains(says), "{to}: {}", ran.err);
    }
}

#[test]
fn unknown_cases_are_usage_errors_and_missing_or_empty_folders_input_errors() {
    let ran = run(&["cases", "--case", "O-99"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let empty = tempfile::tempdir().expect("a folder");
    let path = empty.path().to_str().expect("a plain path").to_owned();
    for folder in [path.clone(), format!("{path}/none")] {
        assert_eq!(run(&["cases", &folder]).code, 3, "{folder}");
    }
}
