//! Scenarios kept as files: examples of the lab and regressions, each with what its run must come to.

use crate::{corpora, report};
use drylab_properties::missed;
use drylab_scenario::{Scenario, Token};
use std::path::{Path, PathBuf};

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).expect("a folder of the corpora") {
        let path = entry.expect("an entry of the corpora").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_kept_scenario_comes_to_what_it_says_and_keeps_the_laws() {
    // Cases hold scenarios in a form of their own, which `drylab cases` reads.
    let cases = corpora().join("scenarios/cases");
    let mut files = files(&corpora().join("scenarios"));
    files.retain(|file| !file.starts_with(&cases));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a scenario file");
        let scenario = Scenario::from_toml(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let expected = scenario
            .expect
            .clone()
            .unwrap_or_else(|| panic!("{} expects nothing", file.display()));
        let report = report(&scenario);
        assert_eq!(
            expected.overall,
            report.overall.to_string(),
            "{}: {}",
            file.display(),
            report.signature()
        );
        if !expected.signature.is_empty() {
            assert_eq!(expected.signature, report.signature(), "{}", file.display());
        }
        assert_eq!(missed(&report), None, "{}", file.display());
        assert_eq!(
            Token::of(&scenario).scenario(),
            Ok(scenario),
            "{}",
            file.display()
        );
    }
}
