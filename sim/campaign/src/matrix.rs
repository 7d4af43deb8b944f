//! The interoperability matrix: every guest from every source to every target over every route.

use crate::{each, wilson_ppm};
use drylab_catalog::{GuestId, Mark, Place, ProductId, Witness};
use drylab_kernel::Hash128;
use drylab_pipeline::{Overall, Route, RunReport};
use drylab_scenario::{Scenario, Step, Token};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixPlan {
    /// Guests, in the order they are shown.
    pub guests: Vec<GuestId>,
    /// Products, in the order they are shown.
    pub products: Vec<ProductId>,
    /// Routes, in the order that breaks ties.
    pub routes: Vec<Route>,
    /// Seed of the first repeat; repeat n has this plus n.
    pub seed: u64,
    /// Repeats of every route in every cell.
    pub repeat: u32,
    /// Worker threads.
    pub jobs: u32,
}

/// What is kept of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The run's score.
    pub overall: Overall,
    /// What is not SUCCESS: cause, check, score, weakest evidence.
    pub causes: Vec<(String, &'static str, Overall, Mark)>,
    /// How it failed, for counting alike runs.
    pub signature: String,
    /// Replays it.
    pub token: Token,
    /// Why the guest has its address, or stopped before: the place that decided.
    pub because: String,
    /// The last step that was tried; none when nothing was checked.
    pub reached: Option<Step>,
    /// Witnesses marked belief, and all witnesses.
    pub belief: (u64, u64),
    /// Hash of the log.
    pub trace_hash: Hash128,
    /// Hash of the outcome.
    pub outcome_hash: Hash128,
}

impl Digest {
    /// Keeps what a matrix needs of a run.
    #[must_use]
    pub fn of(report: &RunReport) -> Self {
        let marks = || {
            report
                .checks
                .iter()
                .flat_map(|check| &check.found.witness)
                .map(|witness| witness.mark)
        };
        let count = |only: Option<Mark>| {
            marks()
                .filter(|mark| only.is_none_or(|only| only == *mark))
                .count()
        };
        Self {
            overall: report.overall,
            causes: report
                .blemishes()
                .map(|check| {
                    (
                        check.cause_id(),
                        check.found.id,
                        check.score.map_or(Overall::Unknown, Overall::from),
                        check.weakest(),
                    )
                })
                .collect(),
            signature: report.signature(),
            token: Token::of(&report.scenario),
            because: because(report),
            reached: report.checks.iter().map(|check| check.found.step).max(),
            belief: (to64(count(Some(Mark::Belief))), to64(count(None))),
            trace_hash: report.trace.hash(),
            outcome_hash: report.outcome_hash,
        }
    }
}

/// The line or key of the guest that the last check of its address rests on; else the last check's last witness.
fn because(report: &RunReport) -> String {
    let in_guest = |link: &&Witness| matches!(link.place, Place::File { .. } | Place::Key(_));
    let address = report
        .checks
        .iter()
        .find(|check| check.found.id == "guest.ip-address");
    let decided = address.and_then(|check| check.found.witness.iter().rfind(in_guest));
    let last = || {
        report
            .checks
            .last()
            .and_then(|check| check.found.witness.last())
    };
    decided
        .or_else(last)
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn to64(count: usize) -> u64 {
    u64::try_from(count).expect("a count in memory")
}

/// One cause over the repeats of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Quirk id, or the check's id where no quirk is cited.
    pub id: String,
    /// Checks it hit.
    pub checks: Vec<&'static str>,
    /// The lowest score it gave.
    pub score: Overall,
    /// Share of runs with it, in parts per million.
    pub share_ppm: u64,
    /// Weakest evidence on its way.
    pub evidence: Mark,
}

/// One route in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteResult {
    /// Id.
    pub route: String,
    /// Minimum over the repeats.
    pub overall: Overall,
    /// Runs by their score.
    pub counts: BTreeMap<Overall, u64>,
    /// Causes, worst first.
    pub causes: Vec<Cause>,
    /// The most frequent outcome's first run.
    pub typical: Digest,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Guest.
    pub guest: GuestId,
    /// From.
    pub source: ProductId,
    /// To.
    pub target: ProductId,
    /// Every route, best first; ties in the order of the route table. Empty when no route is known.
    pub routes: Vec<RouteResult>,
}

impl Cell {
    /// The route whose outcome is the cell's.
    #[must_use]
    pub fn best(&self) -> Option<&RouteResult> {
        self.routes.first()
    }
}

impl RouteResult {
    /// Number of repeats.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Runs with a score.
    #[must_use]
    pub fn count(&self, overall: Overall) -> u64 {
        self.counts.get(&overall).copied().unwrap_or(0)
    }

    /// 95 % interval of the share of runs that did not fail, in parts per million.
    #[must_use]
    pub fn interval_ppm(&self) -> (u64, u64) {
        wilson_ppm(self.runs() - self.count(Overall::Failure), self.runs())
    }

    /// Share of witnesses marked belief in the typical run, in parts per million.
    #[must_use]
    pub fn belief_ppm(&self) -> u64 {
        let (belief, all) = self.typical.belief;
        belief * 1_000_000 / all.max(1)
    }
}

/// The scenarios of a plan, repeat by repeat within route within cell.
#[must_use]
pub fn scenarios(plan: &MatrixPlan) -> Vec<Scenario> {
    let mut all = Vec::new();
    for (guest, source, target) in cells(plan) {
        for route in plan
            .routes
            .iter()
            .filter(|route| route.source == *source && route.target == *target)
        {
            for repeat in 0..plan.repeat {
                let mut scenario =
                    Scenario::new(guest.as_str(), source.as_str(), target.as_str(), &route.id);
                scenario.run_seed = plan.seed.wrapping_add(u64::from(repeat)) & (u64::MAX >> 1);
                all.push(scenario);
            }
        }
    }
    all
}

fn cells(plan: &MatrixPlan) -> impl Iterator<Item = (&GuestId, &ProductId, &ProductId)> {
    plan.guests.iter().flat_map(move |guest| {
        plan.products.iter().flat_map(move |source| {
            plan.products
                .iter()
                .map(move |target| (guest, source, target))
        })
    })
}

/// Runs a plan. `run` must be a pure function of its scenario.
pub fn matrix(
    plan: &MatrixPlan,
    run: impl Fn(&Scenario) -> Digest + Sync,
    progress: impl Fn(u64) + Sync,
) -> Vec<Cell> {
    let scenarios = scenarios(plan);
    let index = |index: u64| &scenarios[usize::try_from(index).expect("below a usize")];
    let digests = each(
        to64(scenarios.len()),
        plan.jobs,
        |at| run(index(at)),
        progress,
    );
    let mut digests = scenarios.iter().zip(digests).peekable();
    let mut found = Vec::new();
    for (guest, source, target) in cells(plan) {
        let mut routes: Vec<RouteResult> = Vec::new();
        for route in plan
            .routes
            .iter()
            .filter(|route| route.source == *source && route.target == *target)
        {
            let runs: Vec<Digest> = (0..plan.repeat)
                .filter_map(|_| digests.next())
                .map(|(_, digest)| digest)
                .collect();
            routes.extend(route_result(&route.id, &runs));
        }
        routes.sort_by_key(|route| {
            let (reached, causes) = (route.typical.reached, route.typical.causes.len());
            Reverse(worth(route.overall, reached, causes))
        });
        found.push(Cell {
            guest: guest.clone(),
            source: source.clone(),
            target: target.clone(),
            routes,
        });
    }
    found
}

/// What makes a route better than another: its score; of routes that fail, how far they come; of equal ones, how few
/// things are wrong with them. What is still equal stands in the order of the table.
pub(crate) fn worth(
    overall: Overall,
    reached: Option<Step>,
    blemishes: usize,
) -> (u8, Option<Step>, Reverse<usize>) {
    (overall.rank(), reached, Reverse(blemishes))
}

fn route_result(route: &str, runs: &[Digest]) -> Option<RouteResult> {
    let overall = runs.iter().map(|run| run.overall).min()?;
    let mut counts = BTreeMap::new();
    let mut alike: BTreeMap<(Overall, &str), (u64, usize)> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        *counts.entry(run.overall).or_insert(0) += 1;
        alike
            .entry((run.overall, &run.signature))
            .or_insert((0, index))
            .0 += 1;
    }
    let (_, first) = alike
        .values()
        .max_by_key(|(count, first)| (*count, Reverse(*first)))?;
    Some(RouteResult {
        route: route.to_owned(),
        overall,
        counts,
        causes: causes(runs),
        typical: runs[*first].clone(),
    })
}

fn causes(runs: &[Digest]) -> Vec<Cause> {
    let mut found: BTreeMap<&str, (Cause, u64)> = BTreeMap::new();
    for run in runs {
        let mut seen = std::collections::BTreeSet::new();
        for (id, check, score, mark) in &run.causes {
            let fresh = Cause {
                id: id.clone(),
                checks: Vec::new(),
                score: *score,
                share_ppm: 0,
                evidence: *mark,
            };
            let (cause, hits) = found.entry(id).or_insert((fresh, 0));
            if !cause.checks.contains(check) {
                cause.checks.push(check);
            }
            cause.score = cause.score.min(*score);
            cause.evidence = cause.evidence.min(*mark);
            *hits += u64::from(seen.insert(id));
        }
    }
    let mut causes: Vec<Cause> = found
        .into_values()
        .map(|(cause, hits)| Cause {
            share_ppm: hits * 1_000_000 / to64(runs.len()).max(1),
            ..cause
        })
        .collect();
    causes.sort_by(|one, two| {
        (one.score, Reverse(one.share_ppm), &one.id).cmp(&(
            two.score,
            Reverse(two.share_ppm),
            &two.id,
        ))
    });
    causes
}
