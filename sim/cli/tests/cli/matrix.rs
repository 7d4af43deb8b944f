//! `drylab matrix`: the form of its JSON, and what its output does not depend on.

use crate::support::{GUESTS, PRODUCTS, data, drylab, json, keys, ran, run};
use serde_json::Value;
use std::collections::BTreeSet;

const QUICK: [&str; 5] = ["matrix", "--repeat", "4", "--format", "json"];

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no natural number"))
}

fn word<'a>(value: &'a Value, allowed: &[&str]) -> &'a str {
    let word = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"));
    assert!(allowed.contains(&word), "{word} is none of {allowed:?}");
    word
}

#[test]
fn json_has_the_documented_form_and_forty_eight_cells() {
    let scores = ["SUCCESS", "WARNING", "FAILURE", "UNKNOWN"];
    let marks = ["belief", "issue", "document", "source", "measured"];
    let document = json(&QUICK);
    assert_eq!(keys(&document), ["cells", "format"]);
    assert_eq!(document["format"], 1);
    let mut seen = BTreeSet::new();
    for cell in document["cells"].as_array().expect("a list") {
        assert_eq!(
            keys(cell),
            [
                "causes", "failure", "guest", "interval", "route", "runs", "score", "source",
                "success", "target", "token", "warning"
            ]
        );
        let guest = word(&cell["guest"], &GUESTS);
        let (source, target) = (
            word(&cell["source"], &PRODUCTS),
            word(&cell["target"], &PRODUCTS),
        );
        assert!(
            seen.insert((guest, source, target)),
            "{cell} is there twice"
        );
        word(&cell["score"], &scores);
        assert_eq!(number(&cell["runs"]), 4);
        let told = ["success", "warning", "failure"].map(|name| number(&cell[name]));
        assert!(told.iter().sum::<u64>() <= 4, "{cell}");
        let interval: Vec<u64> = cell["interval"]
            .as_array()
            .expect("a pair")
            .iter()
            .map(number)
            .collect();
        assert!(
            matches!(interval[..], [low, high] if low <= high && high <= 1_000_000),
            "{cell}"
        );
        for cause in cell["causes"].as_array().expect("a list") {
            assert_eq!(keys(cause), ["evidence", "id", "score", "share"]);
            assert!(
                (1..=1_000_000).contains(&number(&cause["share"])),
                "{cause}"
            );
            word(&cause["score"], &scores);
            word(&cause["evidence"], &marks);
            let id = cause["id"].as_str().expect("a text");
            assert_eq!(run(&["explain", id]).code, 0, "{id} can be explained");
        }
        assert_eq!(
            run(&["explain", cell["route"].as_str().expect("a text")]).code,
            0
        );
        assert!(
            cell["token"]
                .as_str()
                .expect("a text")
                .starts_with("drylab1-")
        );
    }
    assert_eq!(seen.len(), GUESTS.len() * PRODUCTS.len() * PRODUCTS.len());
}

#[test]
fn the_output_does_not_depend_on_jobs_folder_locale_or_time_zone() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    for format in ["json", "text"] {
        let args = |jobs| {
            [
                "matrix", "--repeat", "4", "--format", format, "--jobs", jobs,
            ]
        };
        let expected = data(&args("1"));
        for (jobs, locale, zone) in [
            ("2", "C.UTF-8", "UTC"),
            ("7", "tr_TR.UTF-8", "Pacific/Apia"),
        ] {
            let mut command = drylab(&args(jobs));
            command
                .current_dir(elsewhere.path())
                .env("LC_ALL", locale)
                .env("TZ", zone);
            let ran = ran(command.output().expect("it starts"));
            assert_eq!((ran.code, ran.err.as_str()), (0, ""));
            assert!(
                ran.out == expected,
                "{jobs} jobs, {locale}, {zone} give another {format}"
            );
        }
    }
}

#[test]
fn seeds_are_ranges_and_filters_select_cells_without_changing_them() {
    let all = json(&QUICK);
    let cells = |document: &Value| document["cells"].as_array().expect("a list").clone();
    let mut args = QUICK.to_vec();
    args.extend(["--guest", "ubuntu-12.04", "--product", "kvm-centos-6.3"]);
    let one = cells(&json(&args));
    assert_eq!(one.len(), 1);
    assert!(cells(&all).contains(&one[0]), "{}", one[0]);
    assert_eq!(
        data(&["matrix", "--seed", "16", "--repeat", "2"]),
        data(&["matrix", "--seed", "0x10", "--repeat", "2"])
    );
}

#[test]
fn every_cell_s_token_replays_to_the_cell_s_causes() {
    for cell in json(&QUICK)["cells"].as_array().expect("a list") {
        let token = cell["token"].as_str().expect("a text");
        let replayed = json(&["replay", token, "--format", "json"]);
        assert_eq!(replayed["token"], token);
        let again = json(&["replay", token, "--format", "json"]);
        assert_eq!(replayed, again);
        let known: BTreeSet<&str> = cell["causes"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|cause| cause["id"].as_str())
            .collect();
        for check in replayed["checks"].as_array().expect("a list") {
            let cause = check["cause"].as_str().expect("a text");
            assert!(
                check["score"] == "SUCCESS" || known.contains(cause),
                "{cause} of {token} is not in {known:?}"
            );
            assert!(
                !check["witness"].as_array().expect("a list").is_empty(),
                "{check}"
            );
        }
    }
}

#[test]
fn the_text_has_a_table_for_each_guest_and_names_route_cause_belief_and_token() {
    let text = data(&["matrix", "--repeat", "2"]);
    for guest in GUESTS {
        assert!(text.contains(&format!("{guest}\n  from \\ to")), "{text}");
    }
    for word in [
        "  by ",
        "  belief ",
        "[source]",
        "replay: drylab replay drylab1-",
        "48 cells: ",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn findings_that_cannot_be_said_of_one_guest_are_named_and_not_printed_as_rows() {
    let quick = ["matrix", "--plausible", "2", "--seed", "3"];
    let all = data(&quick);
    assert!(!all.contains("cannot be said") && all.contains("| windows-most-forgiving |"));
    let one = data(&[&quick[..], &["--guest", "centos-6.3"]].concat());
    assert!(!one.contains("cannot be said"), "{one}");
    assert!(
        one.contains("Not said of these guests and products"),
        "{one}"
    );
    assert!(!one.contains("| windows-most-forgiving |") && one.contains("windows-most-forgiving"));
    assert!(one.contains("| centos-6.3 | esxi-5.0.0 |"), "{one}");
}
