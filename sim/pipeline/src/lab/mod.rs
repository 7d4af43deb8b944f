//! The modelled lab: carries the pipeline's commands out with the hypervisor, converter, guest and network models.
//!
//! * `crossing`: the way of a machine through export and conversions, which no noise touches and which is therefore
//!   remembered. * `observe`: booting a guest and taking its facts. * `wires`: the lab's network.
//! * `books`: datastores and inventories. * `resources`: steps 4 and 5. * `target`: import, restart, rollback.

mod books;
mod crossing;
mod descriptor;
mod hops;
mod imports;
mod observe;
mod predict;
mod resources;
mod source;
mod target;
mod wires;

pub use predict::{PredictedFinding, Prediction, guest_key, predict, predict_package};

use crate::check::Found;
use crate::crossing::Crossing;
use crate::library::{Library, SourceDisk};
use crate::machine::{Command, Completion};
use crate::policy::Measure;
use crate::route::{Hop, Route};
use crate::run::{BackEnd, LabState, RunReport, drive};
use books::{Shares, Site};
use drylab_catalog::{Mark, Place, Witness};
use drylab_guest::inspect::GuestDisk;
use drylab_hypervisor::console::Made;
use drylab_hypervisor::{Facts, Missing};
use drylab_kernel::{Kind, Streams, Trace};
use drylab_network::Lan;
use drylab_scenario::{Fault, FaultKind, FaultPlace, Scenario, Step};
use observe::{Boots, Power};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a scenario cannot be run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// Runs a scenario in the modelled lab.
///
/// # Errors
/// [`CannotRun`] when the scenario names a guest, product or route that is not there, or an edit that does not apply.
pub fn run(library: &Library, scenario: &Scenario, trace: Trace) -> Result<RunReport, CannotRun> {
    let cannot = |why: String| CannotRun(why);
    scenario
        .check()
        .map_err(|error| cannot(error.to_string()))?;
    let route = library
        .route(&scenario.route)
        .ok_or_else(|| cannot(format!("there is no route {:?}", scenario.route)))?;
    if route.source != scenario.source || route.target != scenario.target {
        return Err(cannot(format!(
            "route {} goes from {} to {}, not from {} to {}",
            route.id, route.source, route.target, scenario.source, scenario.target
        )));
    }
    let source_disk = library
        .source_disk(scenario)
        .map_err(|error| cannot(error.to_string()))?;
    let product = |id| {
        library
            .products
            .get(id)
            .ok_or_else(|| cannot(format!("there is no product {id}")))
    };
    let source = product(&scenario.source)?.facts();
    let target = product(&scenario.target)?.facts();
    let (hops, import) = route
        .split()
        .ok_or_else(|| cannot(format!("route {} is empty", route.id)))?;
    if let Some(why) = imports::not_offered(import, scenario) {
        return Err(cannot(why));
    }
    let mut lab = SimLab::new(
        library,
        scenario,
        route,
        (source, target),
        source_disk,
        import,
    )?;
    Ok(drive(
        scenario,
        (
            hops.len(),
            hops.first().is_some_and(|hop| hop.copies_running()),
        ),
        &mut lab,
        &library.policy,
        trace,
    ))
}

/// One run's lab.
struct SimLab<'a> {
    library: &'a Library,
    scenario: &'a Scenario,
    route: &'a Route,
    import: Hop,
    streams: Streams,
    lan: Lan,
    source: Site<'a>,
    target: Site<'a>,
    /// The shares exports and conversions are staged on.
    staging: Shares,
    source_disk: SourceDisk,
    source_vm: Result<Made, Missing>,
    source_boots: Boots,
    crossing: Option<Arc<Crossing>>,
    target_vm: Option<TargetVm>,
    fired: BTreeSet<usize>,
    duplicate_mac_seen: bool,
}

/// The machine made at the target.
struct TargetVm {
    made: Made,
    disk: GuestDisk,
    boots: Boots,
}

impl<'a> SimLab<'a> {
    fn new(
        library: &'a Library,
        scenario: &'a Scenario,
        route: &'a Route,
        facts: (Facts<'a>, Facts<'a>),
        source_disk: SourceDisk,
        import: Hop,
    ) -> Result<Self, CannotRun> {
        let streams = Streams::new(scenario.run_seed);
        let (source_facts, target_facts) = facts;
        let host = |facts: &Facts<'_>| {
            let product = &facts.product().id;
            library
                .lab
                .host_of(product)
                .cloned()
                .ok_or_else(|| CannotRun(format!("the lab has no host for {product}")))
        };
        let mut second = host(&target_facts)?;
        if scenario.source == scenario.target {
            second.address = beside(second.address);
        }
        let mut source = Site::new(
            host(&source_facts)?,
            source_facts,
            host_suffix(scenario, false),
            None,
        );
        let mut target = Site::new(
            second,
            target_facts,
            host_suffix(scenario, true),
            scenario.lab.datastore_free,
        );
        let held = library
            .inspect(&source_disk.disk)
            .ok()
            .map(|guest| wires::Held::of(&source_disk, &guest));
        let lan = wires::build(
            library,
            scenario,
            &streams,
            (&source, &target),
            held.as_ref(),
        );
        let source_vm = source::machine(&source, scenario, &source_disk);
        source.take_in(&scenario.guest, &source_disk, &source_vm);
        if scenario.lab.name_taken {
            target.inventory.push(source::machine_name(scenario));
        }
        Ok(Self {
            library,
            scenario,
            route,
            import,
            streams,
            lan,
            source,
            target,
            staging: Shares::new(&library.lab),
            source_disk,
            source_vm,
            source_boots: Boots::default(),
            crossing: None,
            target_vm: None,
            fired: BTreeSet::new(),
            duplicate_mac_seen: false,
        })
    }

    /// The first fault of a kind that strikes in this step and place; noted as fired.
    fn fault(
        &mut self,
        kind: FaultKind,
        place: FaultPlace,
        step: Step,
        now: u64,
        trace: &mut Trace,
    ) -> Option<Fault> {
        let hit = |fault: &Fault| fault.kind == kind && fault.place == place && fault.step == step;
        let (index, fault) = self
            .scenario
            .faults
            .iter()
            .enumerate()
            .find(|(_, fault)| hit(fault))?;
        if self.fired.insert(index) {
            let words = format!("{kind:?} at {place:?} in {step}");
            trace.record(now, "lab", Kind::Fault, &[("fault", &words)]);
        }
        Some(fault.clone())
    }

    fn tool_crash(
        &mut self,
        id: &'static str,
        place: FaultPlace,
        step: Step,
        now: u64,
        trace: &mut Trace,
    ) -> Option<Completion> {
        let fault = self.fault(FaultKind::ToolCrash, place, step, now, trace)?;
        let witness = Witness {
            place: Place::Event(trace.count() - 1),
            says: format!("fault {:?}", fault.kind),
            mark: Mark::Source,
        };
        Some(Completion::Done(vec![missing(
            id,
            step,
            "the tool ended with an error",
            vec![witness],
        )]))
    }
}

/// The address of a second host of the same product: 128 further on in its subnet.
fn beside(address: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    let [a, b, c, d] = address.octets();
    [a, b, c, d ^ 0x80].into()
}

/// Two hosts of one product are told apart by a number.
fn host_suffix(scenario: &Scenario, target: bool) -> &'static str {
    if target && scenario.source == scenario.target {
        "2"
    } else {
        ""
    }
}

/// A check that is missing, with why.
fn missing(id: &'static str, step: Step, after: &str, witness: Vec<Witness>) -> Found {
    Found {
        id,
        step,
        before: String::new(),
        after: after.to_owned(),
        measure: Ok(Measure::Missing),
        witness,
    }
}

/// A check that cannot be assessed because a fact is not known.
fn unknown(id: &'static str, step: Step, missing: &Missing) -> Found {
    let witness = vec![Witness {
        place: Place::Fact(missing.fact.clone()),
        says: "not known".to_owned(),
        mark: Mark::Belief,
    }];
    Found {
        id,
        step,
        before: String::new(),
        after: String::new(),
        measure: Err(missing.to_string()),
        witness,
    }
}

impl BackEnd for SimLab<'_> {
    fn execute(
        &mut self,
        step: Step,
        command: Command,
        now: u64,
        trace: &mut Trace,
    ) -> (Completion, u64) {
        match command {
            Command::TakeSourceFacts => self.take_source_facts(now, trace),
            Command::ShutDownSource => self.shut_down_source(now, trace),
            Command::Hop(number) => self.hop(number, now, trace),
            Command::CheckResources => self.check_resources(now, trace),
            Command::CheckConsistency => self.check_consistency(now, trace),
            Command::Import => self.import(now, trace),
            Command::BootTarget => self.boot_target(step, Power::First, now, trace),
            Command::PauseTarget => (self.pause_target(), 5_000_000),
            Command::RestartTarget => self.boot_target(step, Power::Again, now, trace),
            Command::RollBack => self.roll_back(now, trace),
        }
    }

    fn state(&self) -> LabState {
        let content = self.library.content(&self.source_disk.disk.bytes);
        let on = |site: &Site<'_>, name: &str| site.running.get(name).cloned();
        let name = source::machine_name(self.scenario);
        let live: Vec<String> = on(&self.source, &name)
            .into_iter()
            .chain(self.target.running.values().cloned())
            .collect();
        LabState {
            source_disks: vec![content.map_or_else(|error| error.to_string(), |id| id.to_string())],
            source_entry: format!("{:?}", self.source_vm.as_ref().map(|made| &made.machine)),
            source_running: self.source.running.contains_key(&name),
            target_inventory: {
                let mut names = self.target.inventory.clone();
                names.sort();
                names
            },
            target_files: self
                .target
                .datastore
                .files()
                .iter()
                .map(|(name, bytes)| (name.clone(), *bytes))
                .collect(),
            target_free: self.target.datastore.free(),
            target_capacity: self.target.datastore.capacity(),
            staging_used: self.staging.used(),
            live_macs: live,
            duplicate_mac_seen: self.duplicate_mac_seen,
        }
    }

    fn facts_used(&self) -> BTreeSet<String> {
        let of = |facts: &Facts<'_>| {
            let id = facts.product().id.clone();
            facts
                .used()
                .into_iter()
                .map(move |key| format!("{id}/{key}"))
                .collect::<Vec<_>>()
        };
        let mut used: BTreeSet<String> = of(&self.source.facts)
            .into_iter()
            .chain(of(&self.target.facts))
            .collect();
        used.extend(
            self.crossing
                .iter()
                .flat_map(|crossing| crossing.facts_used.iter().cloned()),
        );
        used
    }
}
