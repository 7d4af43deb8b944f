//! Whole labs drawn from what is unknown, and in how many of them each finding of the report holds.
//!
//! All runs are made first, sorted by the disks they start from ([`Runs`]); then each lab is read off them.

use crate::findings::{Finding, Outcome, Seen, findings};
use crate::matrix::worth;
use crate::runs::Runs;
use crate::unknowns::{DrawnLab, Mechanism, Unknowns};
use drylab_catalog::{GuestId, ProductId};
use drylab_kernel::Streams;
use drylab_pipeline::{Library, Overall, Route};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlausiblePlan {
    /// Guests.
    pub guests: Vec<GuestId>,
    /// Products; only cells between different ones are counted.
    pub products: Vec<ProductId>,
    /// Labs to draw.
    pub labs: u32,
    /// Seed of the first lab; lab n has this plus n. All labs share the noise of run seed 0.
    pub seed: u64,
    /// Worker threads.
    pub jobs: u32,
}

/// Which route stands for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// The same for all guests on an arrow: one of those whose tools are at hand, drawn for each lab, each as likely as
    /// the others.
    CommonRoute,
    /// The best of all.
    BestRoute,
}

impl View {
    /// Both.
    pub const ALL: [Self; 2] = [Self::CommonRoute, Self::BestRoute];
}

/// In how many labs a finding holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Labs in which it holds.
    pub holds: u64,
    /// Labs in which it can be said.
    pub of: u64,
}

/// One finding in one view, with everything on (`None`) or a mechanism off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingShare {
    /// The finding.
    pub finding: &'static Finding,
    /// The view.
    pub view: View,
    /// The mechanism that is switched off.
    pub without: Option<String>,
    /// The share.
    pub share: Share,
}

/// What is known of a cell after all labs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellShare {
    /// Guest.
    pub guest: GuestId,
    /// From.
    pub source: ProductId,
    /// To.
    pub target: ProductId,
    /// Labs by the score of the best route.
    pub counts: BTreeMap<Overall, u64>,
    /// The unknown that tells most of the score, and how much of the uncertainty it takes away, in parts per million;
    /// none when the score is the same in all labs.
    pub matters: Option<(String, u64)>,
}

/// What came of all labs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plausible {
    /// Labs drawn.
    pub labs: u64,
    /// Shares by finding, view and mechanism.
    pub findings: Vec<FindingShare>,
    /// Cells between different products.
    pub cells: Vec<CellShare>,
    /// Answers that nothing models, and the labs that would have had them; they have the first answer instead.
    pub not_modelled: BTreeMap<String, u64>,
}

struct Bench<'a> {
    plan: &'a PlausiblePlan,
    library: &'a Library,
    unknowns: &'a Unknowns,
}

/// What is kept of one lab.
struct LabResult<'u> {
    answers: BTreeMap<&'u str, usize>,
    /// By variation, view and finding: whether it holds, where it can be said.
    holds: Vec<Option<bool>>,
    /// By cell: score of the best route, with everything on.
    scores: Vec<Overall>,
    not_modelled: Vec<String>,
}

/// Draws the labs of a plan and runs every cell in each of them. `progress` gets a number of labs.
///
/// # Errors
/// A fact of the unknowns that no product has, or a scenario made of them that cannot be run.
pub fn plausible(
    plan: &PlausiblePlan,
    library: &Library,
    unknowns: &Unknowns,
    progress: impl Fn(u64) + Sync,
) -> Result<Plausible, String> {
    let bench = Bench {
        plan,
        library,
        unknowns,
    };
    let results = bench.labs(progress)?;
    Ok(bench.sum_up(&results))
}

impl<'a> Bench<'a> {
    /// Everything on, then each mechanism off.
    fn variations(&self) -> impl Iterator<Item = Option<(&'a str, &'a Mechanism)>> {
        std::iter::once(None).chain(self.unknowns.mechanisms().map(Some))
    }

    /// Cells between different products: guest by guest, so that an arrow is the same index in each guest's block.
    fn cells(&self) -> Vec<(&'a GuestId, &'a ProductId, &'a ProductId)> {
        let products = &self.plan.products;
        let arrows = || {
            let all = products
                .iter()
                .flat_map(|source| products.iter().map(move |target| (source, target)));
            all.filter(|(source, target)| source != target)
        };
        let of = |guest| arrows().map(move |(source, target)| (guest, source, target));
        self.plan.guests.iter().flat_map(of).collect()
    }

    /// Routes of a cell, in the order of the table, each with its number there.
    fn routes(
        &self,
        source: &ProductId,
        target: &ProductId,
    ) -> impl Iterator<Item = (usize, &'a Route)> {
        let of = |(_, route): &(usize, &Route)| route.source == *source && route.target == *target;
        self.library.routes.iter().enumerate().filter(of)
    }

    fn labs(&self, progress: impl Fn(u64) + Sync) -> Result<Vec<LabResult<'a>>, String> {
        let drawn: Vec<DrawnLab<'a>> = (0..u64::from(self.plan.labs))
            .map(|index| self.unknowns.draw(self.plan.seed.wrapping_add(index)))
            .collect();
        let variations: Vec<_> = self.variations().collect();
        let vary = |lab: &DrawnLab<'a>| -> Vec<DrawnLab<'a>> {
            let all = variations.iter();
            all.map(|variation| match variation {
                None => lab.clone(),
                Some((_, mechanism)) => lab.without(mechanism),
            })
            .collect()
        };
        let labs: Vec<DrawnLab<'a>> = drawn.iter().flat_map(vary).collect();
        let runs = Runs::make(self.plan, self.library, &labs, progress)?;
        let mut at = 0;
        let mut results = Vec::new();
        for lab in drawn {
            let mut result = LabResult {
                answers: lab.answers,
                holds: Vec::new(),
                scores: Vec::new(),
                not_modelled: lab.not_modelled,
            };
            let drawn = self.drawn_routes(lab.seed);
            for variation in &variations {
                let (views, routes) = self.views(&runs, at, &drawn);
                for cells in &views {
                    let routes = &routes;
                    let seen = Seen { cells, routes };
                    let said = findings().iter().map(|finding| (finding.holds)(&seen));
                    result.holds.extend(said);
                }
                if variation.is_none() {
                    let best = views.last().into_iter().flatten();
                    result.scores = best.map(|outcome| outcome.overall).collect();
                }
                at += 1;
            }
            results.push(result);
        }
        Ok(results)
    }

    /// A lot for each route of the table: among those at hand on an arrow the lowest is the common one, so that a tool
    /// more or less changes no other choice.
    fn drawn_routes(&self, seed: u64) -> Vec<u64> {
        let streams = Streams::new(seed);
        let routes = self.library.routes.iter();
        let lot = |route: &Route| {
            streams
                .stream(&format!("common-route {}", route.id), 0)
                .word()
        };
        routes.map(lot).collect()
    }

    /// Outcomes of all cells in one lab, by view, and of all routes.
    fn views<'r>(
        &self,
        runs: &'r Runs<'a>,
        lab: usize,
        lots: &[u64],
    ) -> ([Vec<Outcome>; 2], Vec<&'r Outcome>) {
        let (mut common, mut best, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (guest, source, target) in self.cells() {
            let outcomes: Vec<(usize, &Outcome)> = self
                .routes(source, target)
                .filter_map(|(number, route)| Some((number, runs.outcome(lab, guest, route)?)))
                .collect();
            let taken = |outcome: Option<&(usize, &Outcome)>| {
                let none = || Outcome::no_route(guest, source, target);
                outcome.map_or_else(none, |(_, outcome)| (*outcome).clone())
            };
            let lot = |(number, _): &&(usize, &Outcome)| lots.get(*number);
            common.push(taken(outcomes.iter().min_by_key(lot)));
            let value = |(number, outcome): &&(usize, &Outcome)| {
                let blemishes = outcome.failed.len() + outcome.warned.len();
                let worth = worth(outcome.overall, outcome.reached, blemishes);
                (worth, Reverse(*number))
            };
            best.push(taken(outcomes.iter().max_by_key(value)));
            all.extend(outcomes.into_iter().map(|(_, outcome)| outcome));
        }
        ([common, best], all)
    }

    fn sum_up(&self, results: &[LabResult<'_>]) -> Plausible {
        let mut shares = Vec::new();
        let variations: Vec<Option<String>> = self
            .variations()
            .map(|variation| variation.map(|(id, _)| id.to_owned()))
            .collect();
        let mut column = 0;
        for without in &variations {
            for view in View::ALL {
                for finding in findings() {
                    let said = results
                        .iter()
                        .filter_map(|result| *result.holds.get(column)?);
                    let share = said.fold(Share::default(), |share, holds| Share {
                        holds: share.holds + u64::from(holds),
                        of: share.of + 1,
                    });
                    shares.push(FindingShare {
                        finding,
                        view,
                        without: without.clone(),
                        share,
                    });
                    column += 1;
                }
            }
        }
        let cells = self.cells();
        let cells = cells
            .iter()
            .enumerate()
            .map(|(index, (guest, source, target))| {
                let scores: Vec<Overall> = results
                    .iter()
                    .filter_map(|result| result.scores.get(index).copied())
                    .collect();
                let mut counts = BTreeMap::new();
                for score in &scores {
                    *counts.entry(*score).or_insert(0) += 1;
                }
                CellShare {
                    guest: (*guest).clone(),
                    source: (*source).clone(),
                    target: (*target).clone(),
                    counts,
                    matters: matters(results, &scores),
                }
            });
        let mut not_modelled = BTreeMap::new();
        for answer in results.iter().flat_map(|result| &result.not_modelled) {
            *not_modelled.entry(answer.clone()).or_insert(0) += 1;
        }
        Plausible {
            labs: u64::from(self.plan.labs),
            findings: shares,
            cells: cells.collect(),
            not_modelled,
        }
    }
}

/// The unknown whose answer tells most of the score: by how much it lowers the chance that two labs drawn at random
/// have different scores (Gini impurity), against that chance without it.
fn matters(results: &[LabResult<'_>], scores: &[Overall]) -> Option<(String, u64)> {
    let all = impurity(scores.iter().map(|score| (0, *score)));
    if all == 0 {
        return None;
    }
    let first = results.first()?;
    let told = first.answers.keys().map(|unknown| {
        let answers = results
            .iter()
            .filter_map(|result| result.answers.get(unknown));
        let left = impurity(answers.copied().zip(scores.iter().copied()));
        let gone = all.saturating_sub(left) * 1_000_000 / all;
        (u64::try_from(gone).unwrap_or(0), std::cmp::Reverse(unknown))
    });
    let (gone, std::cmp::Reverse(unknown)) = told.max()?;
    (gone > 0).then(|| ((*unknown).to_owned(), gone))
}

/// Sum over the answers of n minus the sum of squares of its scores' counts over n, times a million.
fn impurity(labs: impl Iterator<Item = (usize, Overall)>) -> u128 {
    let mut counts: BTreeMap<usize, BTreeMap<Overall, u128>> = BTreeMap::new();
    for (answer, score) in labs {
        *counts.entry(answer).or_default().entry(score).or_insert(0) += 1;
    }
    let of = |scores: &BTreeMap<Overall, u128>| {
        let n: u128 = scores.values().sum();
        let squares: u128 = scores.values().map(|count| count * count).sum();
        (n * n - squares) * 1_000_000 / n.max(1)
    };
    counts.values().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::impurity;
    use drylab_pipeline::Overall::{Failure, Success};

    #[test]
    fn an_answer_that_tells_the_score_leaves_no_impurity_and_one_that_does_not_leaves_all() {
        let scores = [Failure, Success, Failure, Success];
        let all = impurity(scores.iter().map(|score| (0, *score)));
        let tells = impurity([0, 1, 0, 1].into_iter().zip(scores));
        let does_not = impurity([0, 0, 1, 1].into_iter().zip(scores));
        assert_eq!((all, tells, does_not), (2_000_000, 0, 2_000_000));
    }
}
