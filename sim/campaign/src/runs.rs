//! The runs of many labs, each made once.
//!
//! Labs are sorted by the disk a machine starts from, since everything expensive is done to disks. One such group is
//! worked off at a time by a thread, with a memory of its own that goes with it: how much is held does not grow with the
//! number of labs. Within a group a run that rests on facts that are the same in two labs is the same run.

use crate::findings::Outcome;
use crate::plausible::PlausiblePlan;
use crate::unknowns::DrawnLab;
use crate::{Digest, each};
use drylab_catalog::{GuestId, Mac, ProductId};
use drylab_kernel::Trace;
use drylab_pipeline::{Library, Overall, Route, RunReport};
use drylab_scenario::Scenario;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Runs after which a thread forgets what it did to disks: some MiB each, so that two threads stay below 2 GiB.
const REMEMBERED_RUNS: u32 = 128;

/// What came of every route of every guest, by lab.
pub(crate) struct Runs<'a> {
    by_route: BTreeMap<(&'a GuestId, &'a str), Vec<Option<Arc<Outcome>>>>,
}

/// Labs in which a guest's disk at a source is the same.
struct Group<'a> {
    guest: &'a GuestId,
    source: &'a ProductId,
    mac: Mac,
    labs: Vec<usize>,
}

struct Work<'a> {
    library: &'a Library,
    labs: &'a [DrawnLab<'a>],
    /// Facts that some lab has otherwise.
    varying: BTreeSet<&'a str>,
}

/// Outcomes by the facts they rest on: names of those that vary, then what these say.
type Known = Vec<(Vec<String>, BTreeMap<String, Arc<Outcome>>)>;

/// One route's outcome in each of a group's labs.
type Column<'a> = ((&'a GuestId, &'a str), Vec<(usize, Arc<Outcome>)>);

impl<'a> Runs<'a> {
    /// Makes all runs of a plan's guests between different products of it in these labs.
    ///
    /// # Errors
    /// A fact that no product has, or a scenario that cannot be run.
    pub(crate) fn make(
        plan: &'a PlausiblePlan,
        library: &'a Library,
        labs: &'a [DrawnLab<'a>],
        progress: impl Fn(u64) + Sync,
    ) -> Result<Self, String> {
        let work = Work {
            library,
            labs,
            varying: labs
                .iter()
                .flat_map(|lab| lab.facts().into_keys())
                .collect(),
        };
        let groups = work.groups(plan)?;
        let count = u64::try_from(groups.len()).unwrap_or(u64::MAX);
        let group = |index: u64| groups.get(usize::try_from(index).unwrap_or(usize::MAX));
        let columns = each(
            count,
            plan.jobs,
            |index| group(index).map_or_else(|| Ok(Vec::new()), |group| work.run_all(plan, group)),
            |done| progress(done * u64::from(plan.labs) / count.max(1)),
        );
        let mut by_route: BTreeMap<_, Vec<Option<Arc<Outcome>>>> = BTreeMap::new();
        for column in columns {
            for (route, outcomes) in column? {
                let of_all = by_route
                    .entry(route)
                    .or_insert_with(|| vec![None; labs.len()]);
                for (lab, outcome) in outcomes {
                    if let Some(place) = of_all.get_mut(lab) {
                        *place = Some(outcome);
                    }
                }
            }
        }
        Ok(Self { by_route })
    }

    /// What came of a route in a lab; none where its tools are not at hand.
    pub(crate) fn outcome(
        &self,
        lab: usize,
        guest: &'a GuestId,
        route: &'a Route,
    ) -> Option<&Outcome> {
        let of_all = self.by_route.get(&(guest, route.id.as_str()))?;
        of_all.get(lab)?.as_deref()
    }
}

impl<'a> Work<'a> {
    /// Sorts the labs, the largest groups first: the last ones to end are small.
    fn groups(&self, plan: &'a PlausiblePlan) -> Result<Vec<Group<'a>>, String> {
        let mut groups = Vec::new();
        for guest in &plan.guests {
            for source in &plan.products {
                groups.extend(self.of_source(guest, source)?);
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.labs.len()));
        Ok(groups)
    }

    fn of_source(
        &self,
        guest: &'a GuestId,
        source: &'a ProductId,
    ) -> Result<Vec<Group<'a>>, String> {
        let mut from_here = self.library.routes.iter();
        let Some(route) = from_here.find(|route| route.source == *source) else {
            return Ok(Vec::new());
        };
        let plain = Scenario::new(
            guest.as_str(),
            source.as_str(),
            route.target.as_str(),
            &route.id,
        );
        let installed = self.library.source_disk(&plain);
        let mac = installed.map_err(|error| error.to_string())?.mac;
        let mut groups: BTreeMap<String, Group<'a>> = BTreeMap::new();
        for (index, lab) in self.labs.iter().enumerate() {
            let scenario = lab.scenario(guest, route, mac);
            let key = format!("{:?}", scenario.edits);
            let fresh = || Group {
                guest,
                source,
                mac,
                labs: Vec::new(),
            };
            groups.entry(key).or_insert_with(fresh).labs.push(index);
        }
        Ok(groups.into_values().collect())
    }

    fn run_all(&self, plan: &PlausiblePlan, group: &Group<'a>) -> Result<Vec<Column<'a>>, String> {
        let mut apart = self.library.apart();
        let mut shelves: BTreeMap<String, Library> = BTreeMap::new();
        let mut made = 0;
        let goes = |route: &&Route| {
            route.source == *group.source
                && route.target != route.source
                && plan.products.contains(&route.target)
        };
        let mut columns = Vec::new();
        for route in self.library.routes.iter().filter(goes) {
            let mut known: BTreeMap<String, Known> = BTreeMap::new();
            let mut outcomes = Vec::new();
            for index in &group.labs {
                let Some(lab) = self.labs.get(*index).filter(|lab| lab.has_tools(route)) else {
                    continue;
                };
                let scenario = lab.scenario(group.guest, route, group.mac);
                if made >= REMEMBERED_RUNS {
                    (apart, made) = (self.library.apart(), 0);
                    shelves.clear();
                }
                let hosts = format!("{:?}", lab.hosts());
                let key = format!(
                    "{hosts}|{:?}|{:?}|{:?}|{:?}",
                    scenario.source_vm, scenario.target_vm, scenario.lab, scenario.relax
                );
                let shelves = match shelves.entry(hosts) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => {
                        let mut fresh = apart.elsewhere();
                        lab.set_hosts(&mut fresh)?;
                        free.insert(fresh)
                    }
                };
                let known = known.entry(key).or_default();
                let found = known_outcome(lab, known);
                let outcome = match found {
                    Some(outcome) => outcome,
                    None => {
                        made += 1;
                        self.run(shelves, lab, route, &scenario, known)?
                    }
                };
                outcomes.push((*index, outcome));
            }
            columns.push(((group.guest, route.id.as_str()), outcomes));
        }
        Ok(columns)
    }

    fn run(
        &self,
        shelves: &Library,
        lab: &DrawnLab<'_>,
        route: &Route,
        scenario: &Scenario,
        known: &mut Known,
    ) -> Result<Arc<Outcome>, String> {
        let library = lab.library(shelves)?;
        let report = drylab_pipeline::run(&library, scenario, Trace::hashing_only())
            .map_err(|error| format!("{} by {}: {error}", scenario.guest, route.id))?;
        let outcome = Arc::new(outcome(&report, route));
        let rests_on = report.facts_used.iter();
        let names: Vec<String> = rests_on
            .filter(|name| self.varying.contains(name.as_str()))
            .cloned()
            .collect();
        let value = (says(lab, &names), outcome.clone());
        match known.iter_mut().find(|(known, _)| *known == names) {
            Some((_, all)) => all.extend([value]),
            None => known.push((names, BTreeMap::from([value]))),
        }
        Ok(outcome)
    }
}

/// What a lab's facts of these names say, where they say something else than the products' files.
fn says(lab: &DrawnLab<'_>, names: &[String]) -> String {
    let facts = lab.facts();
    let says = names
        .iter()
        .map(|name| format!("{:?}", facts.get(name.as_str())));
    says.collect::<Vec<_>>().join("|")
}

fn known_outcome(lab: &DrawnLab<'_>, known: &Known) -> Option<Arc<Outcome>> {
    let found = known
        .iter()
        .find_map(|(names, all)| all.get(&says(lab, names)));
    found.cloned()
}

fn outcome(report: &RunReport, route: &Route) -> Outcome {
    let digest = Digest::of(report);
    let of = |wanted: Overall| {
        let hit = digest
            .causes
            .iter()
            .filter(|(_, _, score, _)| *score == wanted);
        hit.map(|(_, check, _, _)| *check).collect()
    };
    Outcome {
        guest: report.scenario.guest.clone(),
        arrow: (route.source.clone(), route.target.clone()),
        route: route.id.clone(),
        tools: route.hops.clone(),
        overall: digest.overall,
        reached: digest.reached,
        failed: of(Overall::Failure),
        warned: of(Overall::Warning),
    }
}
