//! Laws 13 and 38: the number of jobs changes nothing, and a cell's outcome is its best route's.

use crate::library;
use drylab_campaign::{Cell, Digest, MatrixPlan, matrix};
use drylab_kernel::Trace;
use drylab_pipeline::{Hop, Library, Overall, Route, run};
use drylab_scenario::{Scenario, Token};
use proptest::prelude::*;
use std::sync::OnceLock;

fn plan(repeat: u32, jobs: u32) -> MatrixPlan {
    MatrixPlan {
        guests: Library::guests(),
        products: library().products.keys().cloned().collect(),
        routes: library().routes.clone(),
        seed: 1,
        repeat,
        jobs,
    }
}

fn digest(scenario: &Scenario) -> Digest {
    let report = run(library(), scenario, Trace::hashing_only()).expect("a plan's scenario runs");
    Digest::of(&report)
}

#[test]
fn law_13_one_two_and_seven_jobs_give_the_same_matrix() {
    let cells: Vec<Vec<Cell>> = [1, 2, 7]
        .map(|jobs| matrix(&plan(5, jobs), digest, |_| ()))
        .into();
    assert_eq!(cells[0].len(), 48);
    assert!(cells[0].iter().all(|cell| !cell.routes.is_empty()));
    assert_eq!(cells[0], cells[1]);
    assert_eq!(cells[0], cells[2]);
}

#[test]
fn law_38_in_the_real_matrix_the_cell_is_the_maximum_over_its_single_routes() {
    let whole = matrix(&plan(3, 2), digest, |_| ());
    for cell in &whole {
        let alone = library().routes.iter().filter_map(|route| {
            let only = MatrixPlan {
                guests: vec![cell.guest.clone()],
                products: vec![cell.source.clone(), cell.target.clone()],
                routes: vec![route.clone()],
                ..plan(3, 1)
            };
            let cells = matrix(&only, digest, |_| ());
            let same = |found: &&Cell| found.source == cell.source && found.target == cell.target;
            cells.iter().find(same)?.best().cloned()
        });
        let best = alone.max_by_key(|route| route.overall.rank());
        let outcome = |route: &drylab_campaign::RouteResult| route.overall;
        assert_eq!(cell.best().map(outcome), best.as_ref().map(outcome));
    }
}

/// A made-up outcome for a run: the law is about choosing, not about migrating.
fn made_up(scenario: &Scenario, outcomes: &[Overall]) -> Digest {
    let route: usize = scenario.route.parse().expect("routes here are numbers");
    let repeat = usize::try_from(scenario.run_seed).expect("small");
    let overall = outcomes[(route * 3 + repeat) % outcomes.len()];
    // Everything else is some real run's.
    static SOME: OnceLock<Digest> = OnceLock::new();
    let some = SOME.get_or_init(|| digest(&crate::scenario("ubuntu-12.04", "kvm-native-define")));
    Digest {
        overall,
        signature: overall.to_string(),
        token: Token::of(scenario),
        ..some.clone()
    }
}

fn cell(routes: usize, outcomes: &[Overall]) -> Cell {
    let route = |number: usize| Route {
        id: number.to_string(),
        source: "a".into(),
        target: "b".into(),
        hops: vec![Hop::DatastoreCopy],
        today: false,
    };
    let plan = MatrixPlan {
        guests: vec!["guest".into()],
        products: vec!["a".into(), "b".into()],
        routes: (0..routes).map(route).collect(),
        seed: 0,
        repeat: 3,
        jobs: 2,
    };
    let cells = matrix(&plan, |scenario| made_up(scenario, outcomes), |_| ());
    let wanted = |cell: &Cell| cell.source.as_str() == "a" && cell.target.as_str() == "b";
    cells
        .into_iter()
        .find(wanted)
        .expect("the plan has this cell")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn law_38_the_best_route_wins_ties_go_by_the_table_and_a_route_more_never_hurts(
        outcomes in proptest::collection::vec(proptest::sample::select(vec![Overall::Failure, Overall::Warning, Overall::Unknown, Overall::Success]), 1..30),
        routes in 1usize..9,
    ) {
        let found = cell(routes, &outcomes);
        let best = found.best().expect("there is a route");
        // A route's score is the minimum over its repeats.
        let single = |route: usize| (0..3).map(|repeat| outcomes[(route * 3 + repeat) % outcomes.len()]).min().expect("three repeats");
        let most = (0..routes).map(|route| single(route).rank()).max().expect("there is a route");
        prop_assert_eq!(best.overall.rank(), most);
        let first = (0..routes).find(|route| single(*route).rank() == most).expect("the best is one of them");
        prop_assert_eq!(&best.route, &first.to_string());
        let more = cell(routes + 1, &outcomes);
        prop_assert!(more.best().expect("there is a route").overall.rank() >= most);
    }
}
