//! `drylab run` and `drylab replay`.

use crate::support::{data, json, keys, run, text};
use std::fs;

#[test]
fn a_saved_scenario_runs_and_replays_to_the_same_hashes_by_seed_file_and_token() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let file = folder.path().join(format!("{seed}.toml"));
        let path = text(&file);
        let generated = json(&["run", "--seed", seed, "--save", path, "--format", "json"]);
        assert_eq!(
            keys(&generated),
            [
                "checks",
                "events",
                "format",
                "outcome_hash",
                "score",
                "token",
                "trace_hash"
            ]
        );
        let token = generated["token"].as_str().expect("a text");
        assert_eq!(json(&["run", path, "--format", "json"]), generated);
        assert_eq!(
            json(&["run", path, "--format", "json", "--timeline"])["outcome_hash"],
            generated["outcome_hash"]
        );
        for what in [path, token] {
            let replayed = json(&["replay", what, "--format", "json"]);
            assert_eq!(replayed["trace_hash"], generated["trace_hash"]);
            assert_eq!(replayed["outcome_hash"], generated["outcome_hash"]);
            let events = replayed["trace"].as_array().expect("every event").len();
            assert_eq!(generated["events"].as_u64(), u64::try_from(events).ok());
        }
        let ran = run(&["run", "--seed", seed, "--save", path]);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (3, ""),
            "a file is never written over"
        );
    }
}

#[test]
fn an_expectation_is_held_against_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = "format = 1\nguest = \"centos-6.3\"\nsource = \"kvm-centos-6.3\"\ntarget = \"kvm-centos-6.3\"\nroute = \"kvm-native-define\"\n";
    let score = {
        let file = folder.path().join("plain.toml");
        fs::write(&file, base).expect("it is written");
        json(&["run", text(&file), "--format", "json"])["score"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let cases = [
        (score.clone(), "", 0, ""),
        ("FAILURE".to_owned(), "", 2, "expects FAILURE and came to "),
        (
            score,
            "restart/guest.boots/GQ47",
            2,
            "expects the signature",
        ),
    ];
    for (number, (overall, signature, code, says)) in cases.into_iter().enumerate() {
        let file = folder.path().join(format!("{number}.toml"));
        let expect = format!("[expect]\noverall = {overall:?}\nsignature = {signature:?}\n");
        fs::write(&file, format!("{base}{expect}")).expect("it is written");
        for command in ["run", "replay"] {
            let ran = run(&[command, text(&file)]);
            assert_eq!(ran.code, code, "{}", ran.err);
            assert!(
                ran.err.contains(says) && ran.out.contains("outcome "),
                "{}",
                ran.err
            );
        }
    }
}

#[test]
fn the_timeline_shows_every_event_with_its_time() {
    let scenario = ["run", "--seed", "5"];
    let plain = data(&scenario);
    let timeline = data(&["run", "--seed", "5", "--timeline"]);
    let events = timeline
        .strip_suffix(&plain)
        .expect("the checks come behind");
    assert!(
        events.contains("run-started") && events.contains("run-ended"),
        "{events}"
    );
    let count: usize = plain
        .split_once("  (")
        .and_then(|(_, rest)| rest.split_once(" events)"))
        .expect("it says how many")
        .0
        .parse()
        .expect("a number");
    assert!(events.lines().count() > count, "{count} events");
}
