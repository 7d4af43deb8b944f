//! Driving one migration through a back end, and the value that comes of it.

use crate::check::{Check, Found, Overall, overall};
use crate::machine::{Command, Completion, Next, Pipeline};
use crate::policy::{Measure, Policy, Relaxed};
use drylab_kernel::{Budget, Hash128, Hasher, Kind, Queue, Trace};
use drylab_scenario::{Scenario, Step, Token};
use std::collections::BTreeSet;

/// Most commands one run may give: seven steps with a few hops and a rollback need about fifteen.
const COMMANDS_MAX: Budget = Budget(64);

/// Carries commands out, in the modelled lab or for real.
pub trait BackEnd {
    /// Does what the command says; returns how it ended and how long it took, in microseconds.
    fn execute(
        &mut self,
        step: Step,
        command: Command,
        now: u64,
        trace: &mut Trace,
    ) -> (Completion, u64);

    /// What is left of it all.
    fn state(&self) -> LabState;

    /// Product facts that were read, `product/key`.
    fn facts_used(&self) -> BTreeSet<String>;
}

/// The lab's books, for comparing before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabState {
    /// Content of the source machine's disks.
    pub source_disks: Vec<String>,
    /// The source machine's inventory entry, with its hardware.
    pub source_entry: String,
    /// Whether the source machine runs.
    pub source_running: bool,
    /// Machines in the target's inventory.
    pub target_inventory: Vec<String>,
    /// Files on the target's datastore with their sizes.
    pub target_files: Vec<(String, u64)>,
    /// Bytes free on the target's datastore.
    pub target_free: u64,
    /// Capacity of the target's datastore.
    pub target_capacity: u64,
    /// Bytes used on the staging share.
    pub staging_used: u64,
    /// Addresses of running machines on one segment, sorted.
    pub live_macs: Vec<String>,
    /// Whether any two running machines shared an address on one segment at any time.
    pub duplicate_mac_seen: bool,
}

/// Everything that came of one run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What was run.
    pub scenario: Scenario,
    /// The score.
    pub overall: Overall,
    /// Checks in the order they were made.
    pub checks: Vec<Check>,
    /// The log (without events in campaigns).
    pub trace: Trace,
    /// Hash over checks, scores, causes and the lab's final state.
    pub outcome_hash: Hash128,
    /// The lab before the run.
    pub before: LabState,
    /// The lab after it.
    pub after: LabState,
    /// Product facts that were read.
    pub facts_used: BTreeSet<String>,
}

/// Drives one migration to its end.
pub fn drive(
    scenario: &Scenario,
    (hops, copies_running): (usize, bool),
    lab: &mut impl BackEnd,
    policy: &Policy,
    mut trace: Trace,
) -> RunReport {
    let before = lab.state();
    let token = Token::of(&decisions(scenario));
    trace.record(
        0,
        "pipeline",
        Kind::RunStarted,
        &[("token", token.as_str())],
    );
    let mut pipeline = Pipeline::new(hops, copies_running);
    let mut queue: Queue<Completion> = Queue::new(COMMANDS_MAX);
    let mut step = None;
    let mut next = pipeline.start();
    while let Next::Do(now_in, command) = next {
        if step != Some(now_in) {
            enter(&mut trace, queue.now(), step, Some(now_in));
            step = Some(now_in);
        }
        trace.record(
            queue.now(),
            "pipeline",
            Kind::Command,
            &[("command", &format!("{command:?}"))],
        );
        let (completion, took) = lab.execute(now_in, command, queue.now(), &mut trace);
        queue.after(took, completion);
        let Some(completion) = queue.pop() else { break };
        trace.record(
            queue.now(),
            "pipeline",
            Kind::Completion,
            &[("command", &format!("{command:?}"))],
        );
        next = pipeline.next(completion);
    }
    enter(&mut trace, queue.now(), step, None);
    let relaxed = Relaxed {
        names: &scenario.relax,
        today: &scenario.lab.today,
    };
    for found in pipeline.found() {
        record(&mut trace, queue.now(), found);
    }
    let checks: Vec<Check> = pipeline
        .found()
        .iter()
        .cloned()
        .map(|found| found.scored(policy, &relaxed))
        .collect();
    trace.record(queue.now(), "pipeline", Kind::RunEnded, &[]);
    let (overall, after) = (overall(&checks), lab.state());
    RunReport {
        scenario: scenario.clone(),
        overall,
        outcome_hash: outcome_hash(overall, &checks, &after),
        checks,
        trace,
        before,
        after,
        facts_used: lab.facts_used(),
    }
}

/// What decides events: not the comments, and not the policy, which is a view of them.
fn decisions(scenario: &Scenario) -> Scenario {
    Scenario {
        found_by: None,
        relax: Vec::new(),
        expect: None,
        ..scenario.clone()
    }
}

fn enter(trace: &mut Trace, now: u64, left: Option<Step>, entered: Option<Step>) {
    if let Some(step) = left {
        trace.record(now, "pipeline", Kind::StepEnded, &[("step", step.name())]);
    }
    if let Some(step) = entered {
        trace.record(now, "pipeline", Kind::StepStarted, &[("step", step.name())]);
    }
}

/// What was measured goes into the trace before any policy: the policy changes no event.
fn record(trace: &mut Trace, now: u64, found: &Found) {
    let measure = measure_words(found);
    let fields = [
        ("check", found.id),
        ("measure", &measure),
        ("before", &found.before),
        ("after", &found.after),
    ];
    trace.record(now, "pipeline", Kind::Check, &fields);
}

fn measure_words(found: &Found) -> String {
    match &found.measure {
        Ok(Measure::Missing) => "missing".to_owned(),
        Ok(Measure::Changed) => "changed".to_owned(),
        Ok(Measure::Same) => "same".to_owned(),
        Ok(Measure::Differs(ppm)) => format!("differs by {ppm} ppm"),
        Err(reason) => format!("not assessed: {reason}"),
    }
}

fn outcome_hash(overall: Overall, checks: &[Check], after: &LabState) -> Hash128 {
    let mut hasher = Hasher::new();
    hasher.text(&overall.to_string());
    for check in checks {
        hasher.text(check.found.id);
        hasher.text(
            &check
                .score
                .map_or_else(|| "UNKNOWN".to_owned(), |score| score.to_string()),
        );
        hasher.text(&check.cause_id());
    }
    for text in after
        .source_disks
        .iter()
        .chain([&after.source_entry])
        .chain(&after.target_inventory)
    {
        hasher.text(text);
    }
    for (name, bytes) in &after.target_files {
        hasher.text(name);
        hasher.number(*bytes);
    }
    hasher.number(after.target_free);
    hasher.number(u64::from(after.source_running));
    hasher.finish()
}

impl RunReport {
    /// Checks that are not SUCCESS, or could not be assessed.
    pub fn blemishes(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| check.score != Some(drylab_catalog::Score::Success))
    }

    /// Step, check and cause of everything that is not SUCCESS: two runs with one signature failed alike.
    #[must_use]
    pub fn signature(&self) -> String {
        let parts: Vec<String> = self
            .blemishes()
            .map(|check| {
                format!(
                    "{}/{}/{}",
                    check.found.step,
                    check.found.id,
                    check.cause_id()
                )
            })
            .collect();
        parts.join(" ")
    }
}
