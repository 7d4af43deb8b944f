//! The committed file of unknowns against products, routes and guests.

use drylab_campaign::{
    Digest, DrawnLab, MatrixPlan, Plausible, PlausiblePlan, Unknowns, matrix, plausible,
};
use drylab_catalog::{GuestId, Mark, Score};
use drylab_kernel::Trace;
use drylab_pipeline::{Library, Overall, Route};
use drylab_scenario::Scenario;
use std::collections::BTreeSet;
use std::sync::OnceLock;

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(Library::new)
}

fn committed() -> &'static Unknowns {
    static UNKNOWNS: OnceLock<Unknowns> = OnceLock::new();
    UNKNOWNS.get_or_init(Unknowns::of_the_report)
}

fn plan(labs: u32, jobs: u32) -> PlausiblePlan {
    PlausiblePlan {
        guests: Library::guests(),
        products: library().products.keys().cloned().collect(),
        labs,
        seed: 0,
        jobs,
    }
}

fn drawn(plan: &PlausiblePlan, unknowns: &Unknowns) -> Plausible {
    plausible(plan, library(), unknowns, |_| {}).expect("every answer can be run")
}

/// Every row but its first answer.
fn others() -> impl Iterator<Item = (&'static str, usize)> {
    committed()
        .rows()
        .flat_map(|(id, answers)| (1..answers).map(move |index| (id, index)))
}

#[test]
fn every_belief_fact_of_every_product_has_a_row_and_every_row_a_belief_fact() {
    let mut believed = BTreeSet::new();
    for (id, product) in &library().products {
        let facts = product.facts.iter();
        let belief = facts.filter(|(_, fact)| fact.mark == Mark::Belief);
        believed.extend(belief.map(|(key, _)| format!("{id}/{key}")));
    }
    let rows: BTreeSet<String> = committed()
        .facts()
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(rows, believed);
}

#[test]
fn every_quirk_that_is_belief_has_a_row_that_says_where_it_is_asked_or_why_not() {
    let rows = drylab_catalog::quirks().iter();
    let believed = rows.filter(|(_, row)| row.mark == Mark::Belief);
    let believed: BTreeSet<&str> = believed.map(|(id, _)| id.as_str()).collect();
    let listed: BTreeSet<&str> = committed().quirks().map(|(id, _)| id).collect();
    assert_eq!(listed, believed);
    let questions: BTreeSet<&str> = committed().rows().map(|(id, _)| id).collect();
    for (id, row) in committed().quirks() {
        assert!(!row.reason.is_empty(), "{id}");
        for asked in &row.asked {
            assert!(questions.contains(asked.as_str()), "{id}: no row {asked}");
        }
    }
}

#[test]
fn an_answer_that_nothing_models_is_the_first_one_and_is_said() {
    let text = "format = 1\n[fact]\n[mechanism]\n[unknown.tools]\nasks = \"?\"\nreason = \"a test\"\n\
                values = [{ name = \"no\", weight = 1 }, { name = \"yes\", weight = 1, modelled = false }]\n";
    let unknowns = Unknowns::from_toml(text).expect("a file of one row");
    let labs: Vec<DrawnLab<'_>> = (0..256).map(|seed| unknowns.draw(seed)).collect();
    assert!(labs.iter().all(|lab| lab.answers["tools"] == 0));
    let said = labs
        .iter()
        .filter(|lab| lab.not_modelled == ["tools = yes"])
        .count();
    assert!(
        (96..160).contains(&said),
        "{said} of 256, half are expected"
    );
}

#[test]
fn the_first_value_of_a_fact_is_the_products() {
    for (name, value) in committed().facts() {
        let fact = library().fact(name).expect("a fact of a product");
        assert_eq!(&fact.value, value, "{name}");
    }
}

#[test]
fn a_lab_of_first_answers_scores_as_the_matrix_does() {
    let plan = plan(1, 2);
    let matrix_plan = MatrixPlan {
        guests: plan.guests.clone(),
        products: plan.products.clone(),
        routes: library()
            .routes
            .iter()
            .filter(|route| !route.today)
            .cloned()
            .collect(),
        seed: 0,
        repeat: 1,
        jobs: 2,
    };
    let run = |scenario: &Scenario| {
        let report = drylab_pipeline::run(library(), scenario, Trace::hashing_only());
        Digest::of(&report.expect("a scenario of the tables"))
    };
    let cells = matrix(&matrix_plan, run, |_| {});
    let between = cells.iter().filter(|cell| cell.source != cell.target);
    let expected: Vec<_> = between
        .map(|cell| {
            let best = cell.best().map_or(Overall::Failure, |best| best.overall);
            (&cell.guest, &cell.source, &cell.target, best)
        })
        .collect();
    let found = drawn(&plan, &committed().only(None));
    let found: Vec<_> = found
        .cells
        .iter()
        .map(|cell| {
            let score = cell.counts.keys().next().copied();
            (
                &cell.guest,
                &cell.source,
                &cell.target,
                score.expect("one lab"),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

/// A machine that has no address where it was installed would have been noticed before any test of migration.
#[test]
fn with_every_answer_every_cell_can_be_run_and_every_guest_is_healthy_where_it_was_installed() {
    for (id, index) in std::iter::once(("", 0)).chain(others()) {
        let only = committed().only(Some((id, index)));
        let lab = only.draw(0);
        let mut shelves = library().apart();
        lab.set_hosts(&mut shelves).expect("hosts of the lab");
        let library = lab.library(&shelves).expect("facts of products");
        let answer = format!("{id} = {}", committed().answer(id, index));
        // One route from each product will do: what is asked is whether the machine is healthy where it is.
        let mut sources = std::collections::BTreeSet::new();
        for route in &library.routes {
            let other = route.source != route.target && !route.today;
            if other && lab.has_tools(route) && sources.insert(&route.source) {
                for guest in Library::guests() {
                    healthy(&library, &lab, (&guest, route), &answer);
                }
            }
        }
    }
}

fn healthy(
    library: &Library,
    lab: &DrawnLab<'_>,
    (guest, route): (&GuestId, &Route),
    answer: &str,
) {
    let (source, target) = (route.source.as_str(), route.target.as_str());
    let plain = Scenario::new(guest.as_str(), source, target, &route.id);
    let mac = library.source_disk(&plain).expect("a golden guest").mac;
    let scenario = lab.scenario(guest, route, mac);
    let report = drylab_pipeline::run(library, &scenario, Trace::hashing_only())
        .unwrap_or_else(|error| panic!("{answer}: {guest} by {}: {error}", route.id));
    let sanity = report
        .checks
        .iter()
        .find(|check| check.found.id == "source.sanity")
        .expect("the first check");
    assert_eq!(
        sanity.score,
        Some(Score::Success),
        "{answer}: {guest} by {}: {}",
        route.id,
        sanity.found.after
    );
}

#[test]
fn every_mechanism_can_be_switched_off_in_every_cell() {
    let unknowns = committed();
    let one_lab = drawn(&plan(1, 2), unknowns);
    let rows = unknowns.mechanisms().count() + 1;
    assert_eq!(
        one_lab.findings.len(),
        rows * 2 * drylab_campaign::findings().len()
    );
    let unknown = one_lab
        .cells
        .iter()
        .find(|cell| cell.counts.contains_key(&Overall::Unknown));
    assert_eq!(unknown, None, "a cell that the models cannot score");
}

#[test]
fn a_row_more_changes_no_other_draw() {
    let mut text = "format = 1\n[fact]\n[mechanism]\n".to_owned();
    let row = |id: &str| {
        format!(
            "[unknown.{id}]\nasks = \"?\"\nreason = \"a test\"\n\
             values = [{{ name = \"a\", weight = 1 }}, {{ name = \"b\", weight = 2 }}, {{ name = \"c\", weight = 3 }}]\n"
        )
    };
    text.push_str(&row("one"));
    let few = Unknowns::from_toml(&text).expect("a file of one row");
    for id in ["another", "zebra"] {
        text.push_str(&row(id));
    }
    let more = Unknowns::from_toml(&text).expect("a file of three rows");
    let mut seen = BTreeSet::new();
    for seed in 0..4096 {
        let (few, more) = (few.draw(seed), more.draw(seed));
        assert_eq!(few.answers["one"], more.answers["one"], "seed {seed}");
        seen.insert((
            more.answers["one"],
            more.answers["another"],
            more.answers["zebra"],
        ));
    }
    assert_eq!(seen.len(), 27, "rows are drawn apart from each other");
}

#[test]
fn what_comes_out_does_not_depend_on_the_number_of_jobs() {
    let small = |jobs| {
        let mut plan = plan(3, jobs);
        plan.guests.truncate(1);
        drawn(&plan, committed())
    };
    let one = small(1);
    assert_eq!(one, small(2));
    assert_eq!(one, small(7));
}
