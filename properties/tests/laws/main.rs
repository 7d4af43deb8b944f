//! The laws, as tests. One binary, so that all of them share what is expensive to read: the golden disks.

mod campaigns;
mod containers;
mod corpora;
mod facts;
mod golden;
mod images;
mod kernel;
mod reactions;
mod runs;
mod scoring;
mod watch;

use drylab_kernel::Trace;
use drylab_pipeline::{Library, RunReport, run};
use drylab_scenario::Scenario;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What all runs of this binary have in common; its memory changes no outcome, which is itself tested.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(Library::new)
}

fn report(scenario: &Scenario) -> RunReport {
    run(library(), scenario, Trace::new())
        .unwrap_or_else(|error| panic!("{error}\n{}", scenario.to_toml()))
}

/// A route of the table with a guest, and nothing else said.
fn scenario(guest: &str, route: &str) -> Scenario {
    let known = library().route(route).expect("a route of the table");
    Scenario::new(guest, known.source.as_str(), known.target.as_str(), route)
}

/// Every guest over every route.
fn every_way() -> Vec<Scenario> {
    let mut all = Vec::new();
    for guest in Library::guests() {
        for route in &library().routes {
            all.push(scenario(guest.as_str(), &route.id));
        }
    }
    all
}

fn corpora() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../corpora"))
}

/// Whether this run shall write down what it finds instead of comparing.
#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the environment; outcomes do not depend on it"
)]
fn blessing() -> bool {
    std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1")
}
