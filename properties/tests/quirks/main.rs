//! The smallest scenario that shows a row of the fact tables: `corpora/scenarios/quirks/<ID>.toml`.
//!
//! They are found, not written by hand: `DRYLAB_BLESS=1 cargo test --release -p drylab-properties --test quirks` runs
//! every guest over every route, as it is and with each change of [`changes`], besides all scenarios kept elsewhere, and
//! keeps for each id the shortest file one of whose checks cites it.

mod changes;

use drylab_campaign::each;
use drylab_catalog::{Place, Score};
use drylab_kernel::Trace;
use drylab_pipeline::{Library, Overall, run};
use drylab_scenario::{Expect, Scenario};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(Library::new)
}

fn scenarios() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../corpora/scenarios"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the environment; outcomes do not depend on it"
)]
fn blessing() -> bool {
    std::env::var("DRYLAB_BLESS").is_ok_and(|value| value == "1")
}

/// Every guest over every route.
fn every_way() -> Vec<Scenario> {
    let mut all = Vec::new();
    for guest in Library::guests() {
        for route in &library().routes {
            let (source, target) = (route.source.as_str(), route.target.as_str());
            all.push(Scenario::new(guest.as_str(), source, target, &route.id));
        }
    }
    all
}

/// Every scenario kept as a file, without what it expects: they are candidates, too.
fn kept(below: &Path) -> Vec<Scenario> {
    let mut found = Vec::new();
    for path in entries(below) {
        if path.is_dir() {
            // Cases have a form of their own, which `drylab cases` reads.
            if !path.ends_with("cases") {
                found.extend(kept(&path));
            }
        } else if path.extension().is_some_and(|kind| kind == "toml") {
            found.push(Scenario {
                expect: None,
                ..read(&path)
            });
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of the corpora");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of the corpora").path())
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).expect("a scenario file");
    Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rows of the fact tables that a run shows, and its score; nothing for a scenario that cannot run.
///
/// A check shows a row that stands in its chain and says that it hits this check, or is its cause. It must not be SUCCESS,
/// unless what the row states is why all is well: that a limit or a bug is mentioned on the way shows nothing.
fn shown(library: &Library, scenario: &Scenario) -> Option<(Overall, BTreeSet<String>)> {
    let report = run(library, scenario, Trace::hashing_only()).ok()?;
    let mut shown = BTreeSet::new();
    for check in &report.checks {
        let cited = check
            .found
            .witness
            .iter()
            .filter_map(|link| match &link.place {
                Place::Quirk(id) if !id.starts_with("DQ") => Some(id),
                _ => None,
            });
        let cause = check.cause_id();
        for id in cited {
            let row = drylab_catalog::quirk(id).expect("a citation has a row");
            let here = row.hits == check.found.id || cause == *id;
            if here && (row.keeps_whole || check.score != Some(Score::Success)) {
                shown.insert(id.clone());
            }
        }
    }
    Some((report.overall, shown))
}

/// Scenarios after which what was done to disks is forgotten: some MiB each.
const REMEMBERED: usize = 256;

/// What is shown by each of many scenarios, on two threads.
fn shown_by(all: &[Scenario]) -> Vec<Option<(Overall, BTreeSet<String>)>> {
    let some = |some: &[Scenario]| {
        let library = library().apart();
        let count = u64::try_from(some.len()).expect("a list in memory");
        let scenario = |index: u64| &some[usize::try_from(index).expect("below a usize")];
        each(count, 2, |index| shown(&library, scenario(index)), |_| {})
    };
    all.chunks(REMEMBERED).flat_map(some).collect()
}

/// How small a scenario is: lines that are not default, then length, then its text.
fn size(scenario: &Scenario) -> (usize, usize, String) {
    let text = scenario.to_toml();
    (text.lines().count(), text.len(), text)
}

/// For each id the smallest of these scenarios that shows it.
fn smallest(all: Vec<Scenario>) -> BTreeMap<String, (Overall, Scenario)> {
    let found = shown_by(&all);
    let mut best: BTreeMap<String, (Overall, Scenario)> = BTreeMap::new();
    for (scenario, found) in all.into_iter().zip(found) {
        let Some((overall, ids)) = found else {
            continue;
        };
        for id in ids {
            let smaller = best
                .get(&id)
                .is_none_or(|(_, kept)| size(&scenario) < size(kept));
            if smaller {
                best.insert(id, (overall, scenario.clone()));
            }
        }
    }
    best
}

/// Finds and writes the files anew.
fn bless() {
    let folder = scenarios().join("quirks");
    let mut all = kept(&scenarios());
    for scenario in every_way() {
        all.extend(changes::of(&scenario));
        all.push(scenario);
    }
    let best = smallest(all);
    for path in entries(&folder) {
        std::fs::remove_file(path).expect("a file of this folder");
    }
    for (id, (overall, mut scenario)) in best {
        scenario.expect = Some(Expect {
            overall: overall.to_string(),
            signature: String::new(),
        });
        let row = drylab_catalog::quirk(&id).expect("a citation has a row");
        let toml = scenario.to_toml().replace("signature = \"\"\n", "");
        let text = format!("# {id}: {}.\n{toml}", row.states);
        std::fs::write(folder.join(format!("{id}.toml")), text).expect("a file of this folder");
    }
}

/// The files: id and scenario.
fn files() -> BTreeMap<String, Scenario> {
    let paths = entries(&scenarios().join("quirks"));
    let named = paths.iter().map(|path| {
        let id = path.file_stem().and_then(|stem| stem.to_str());
        (id.expect("a plain name").to_owned(), read(path))
    });
    named.collect()
}

#[test]
fn every_smallest_scenario_cites_its_row_and_comes_to_what_it_says() {
    if blessing() {
        bless();
    }
    let files = files();
    assert!(files.len() > 50, "only {} files", files.len());
    let (ids, all): (Vec<String>, Vec<Scenario>) = files.into_iter().unzip();
    for ((id, scenario), found) in ids.iter().zip(&all).zip(shown_by(&all)) {
        let (overall, cited) = found.unwrap_or_else(|| panic!("{id} does not run"));
        assert!(cited.contains(id), "{id} is not among {cited:?}");
        let expected = scenario.expect.as_ref().map(|expect| &expect.overall);
        assert_eq!(expected, Some(&overall.to_string()), "{id}");
    }
}

#[test]
fn every_row_that_an_unchanged_guest_or_a_kept_scenario_shows_has_a_file_no_longer_than_that() {
    let mut all = every_way();
    all.extend(kept(&scenarios()));
    let files = files();
    for (id, (_, scenario)) in smallest(all) {
        let Some(file) = files.get(&id) else {
            panic!(
                "{id} has no file, and this shows it:\n{}",
                scenario.to_toml()
            );
        };
        let file = Scenario {
            expect: None,
            ..file.clone()
        };
        assert!(
            size(&file) <= size(&scenario),
            "{id} is shown by less:\n{}",
            scenario.to_toml()
        );
    }
}

#[test]
fn a_scenario_that_lost_its_change_does_not_pass_for_one_that_shows_the_row() {
    let file = files().remove("GQ23").expect("NetworkManager takes edits");
    assert!(shown(library(), &file).expect("it runs").1.contains("GQ23"));
    let unchanged = Scenario {
        edits: Vec::new(),
        ..file
    };
    assert!(
        !shown(library(), &unchanged)
            .expect("it runs")
            .1
            .contains("GQ23")
    );
}
