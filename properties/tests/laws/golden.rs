//! The golden table: tokens with the hashes they replay to, on every machine and in every process.
//!
//! After a change of behaviour: `DRYLAB_BLESS=1 cargo test -p drylab-properties --test laws golden`, and say in the
//! commit what changed.

use crate::{blessing, corpora, every_way, library};
use drylab_campaign::each;
use drylab_kernel::Trace;
use drylab_pipeline::{Overall, run};
use drylab_scenario::{Scenario, Token};
use serde::{Deserialize, Serialize};

const HEADER: &str = "# Tokens with the hashes they replay to: trace (every event) and outcome (checks, scores, causes, the lab after it).\n\
    # A change of the second is a change of behaviour. Written by\n\
    # DRYLAB_BLESS=1 cargo test -p drylab-properties --test laws golden\n\n";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    golden: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    token: String,
    overall: String,
    trace: String,
    outcome: String,
}

/// Every guest over every route, with the seed that a matrix begins with.
fn chosen() -> Vec<Scenario> {
    let seeded = |scenario| Scenario {
        run_seed: 1,
        ..scenario
    };
    every_way().into_iter().map(seeded).collect()
}

fn replayed(name: String, token: &Token) -> Row {
    let scenario = token
        .scenario()
        .expect("a token of the table holds a scenario");
    let report = run(library(), &scenario, Trace::hashing_only()).expect("a golden scenario runs");
    Row {
        name,
        token: token.as_str().to_owned(),
        overall: report.overall.to_string(),
        trace: report.trace.hash().to_string(),
        outcome: report.outcome_hash.to_string(),
    }
}

fn bless() {
    let golden = chosen()
        .iter()
        .map(|scenario| {
            replayed(
                format!("{} over {}", scenario.guest, scenario.route),
                &Token::of(scenario),
            )
        })
        .collect();
    let text = toml::to_string(&Table { golden }).expect("rows are texts");
    std::fs::create_dir_all(corpora().join("traces")).expect("the corpora can be written");
    std::fs::write(
        corpora().join("traces/golden.toml"),
        format!("{HEADER}{text}"),
    )
    .expect("the table can be written");
}

fn table() -> Table {
    let text =
        std::fs::read_to_string(corpora().join("traces/golden.toml")).expect("the committed table");
    toml::from_str(&text).expect("the committed table parses")
}

#[test]
fn golden_tokens_replay_to_their_recorded_hashes() {
    if blessing() {
        bless();
    }
    let table = table();
    let count = u64::try_from(table.golden.len()).expect("a list in memory");
    let row = |index: u64| &table.golden[usize::try_from(index).expect("below a usize")];
    let found = each(
        count,
        2,
        |index| {
            let token = Token::parse(&row(index).token).expect("the table holds tokens");
            replayed(row(index).name.clone(), &token)
        },
        |_| (),
    );
    let changed: Vec<_> = found
        .iter()
        .zip(&table.golden)
        .filter(|(found, recorded)| found != recorded)
        .collect();
    assert!(
        changed.is_empty(),
        "{} of {count} changed (found, recorded): {changed:#?}",
        changed.len()
    );
    let scores = |overall: Overall| {
        table
            .golden
            .iter()
            .filter(|row| row.overall == overall.to_string())
            .count()
    };
    assert!(
        scores(Overall::Success) > 0 && scores(Overall::Failure) > 0,
        "a table of one outcome tells nothing"
    );
}

#[test]
fn the_golden_table_has_every_guest_over_every_route() {
    let tokens: Vec<String> = table().golden.into_iter().map(|row| row.token).collect();
    let expected: Vec<String> = chosen()
        .iter()
        .map(|scenario| Token::of(scenario).as_str().to_owned())
        .collect();
    assert_eq!(tokens, expected);
}

#[test]
fn law_11_another_process_elsewhere_in_another_locale_and_zone_replays_the_same_golden_hashes() {
    if blessing() {
        return;
    }
    let program = std::env::current_exe().expect("this test's own program");
    let elsewhere = std::env::temp_dir();
    let output = std::process::Command::new(program)
        .args([
            "--exact",
            "golden::golden_tokens_replay_to_their_recorded_hashes",
        ])
        .current_dir(elsewhere)
        .env_clear()
        .envs([
            ("LANG", "tr_TR.UTF-8"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("TZ", "Pacific/Chatham"),
            ("HOME", "/nonexistent"),
        ])
        .output()
        .expect("it runs again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
