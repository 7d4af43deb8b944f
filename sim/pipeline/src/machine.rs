//! The seven steps as a state machine without any input or output of its own.
//!
//! It emits a [`Command`] and waits for the [`Completion`]; who carries commands out (the modelled lab, or a real
//! back end) is none of its business, and many migrations can interleave.
//!
//! ```text
//! source-sanity → shutdown → export (each hop of the route) → target-resources → target-consistency → import → restart
//!       └────────────┴────────────┴──────── a failure ───────────────┴──────────────────┴───────┘→ roll back
//! ```
//! A converter that copies the running machine is the first hop and comes before the shutdown.
//! Nothing but rollback follows a failure in steps 1 to 6; a failure in step 7 rolls back too, after its checks.

use crate::check::Found;
use crate::facts::{GuestFacts, compare, stable};
use crate::policy::Measure;
use drylab_scenario::Step;

/// What the pipeline wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Boot the machine at the source if it does not run, and take its facts.
    TakeSourceFacts,
    /// Shut the machine down at the source.
    ShutDownSource,
    /// Do one hop of the route: the export or a conversion.
    Hop(usize),
    /// Compare what the machine needs with what the target has.
    CheckResources,
    /// Let the importer read descriptor and disks.
    CheckConsistency,
    /// Make the machine at the target.
    Import,
    /// Boot it there and take its facts.
    BootTarget,
    /// Pause and resume it.
    PauseTarget,
    /// Boot it once more and take its facts.
    RestartTarget,
    /// Remove everything from the target and let the source run as before.
    RollBack,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It was done; checks that came of it.
    Done(Vec<Found>),
    /// Facts were taken, with checks that came of it.
    Facts(Box<GuestFacts>, Vec<Found>),
}

/// A number that differs by more than half of what it was is as good as lost, in parts per million.
const LOST_PPM: u64 = 500_000;

/// Whether something is gone. Being unable to pause is no loss: the report names it as a warning.
fn is_lost(found: &Found) -> bool {
    let gone = match found.measure {
        Ok(Measure::Missing) => true,
        Ok(Measure::Differs(ppm)) => ppm > LOST_PPM,
        _ => false,
    };
    gone && found.id != "machine.pause-resume"
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Carry this out; it belongs to this step.
    Do(Step, Command),
    /// Everything is done.
    Finished,
}

/// One migration on its way through the steps.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Number of hops of the route before the import.
    hops: usize,
    copies_running: bool,
    now: Option<(Step, Command)>,
    found: Vec<Found>,
    before: Option<Box<GuestFacts>>,
    after: Option<Box<GuestFacts>>,
}

impl Pipeline {
    /// A migration over a route with so many hops before the import.
    ///
    /// `copies_running` says that the first hop copies the machine while it runs.
    #[must_use]
    pub fn new(hops: usize, copies_running: bool) -> Self {
        Self {
            hops,
            copies_running,
            now: None,
            found: Vec::new(),
            before: None,
            after: None,
        }
    }

    /// The first command.
    pub fn start(&mut self) -> Next {
        self.go(Step::SourceSanity, Command::TakeSourceFacts)
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// Takes the completion of the command that was asked for, and says what comes next.
    ///
    /// # Panics
    /// When nothing was asked for: a driver's bug.
    pub fn next(&mut self, completion: Completion) -> Next {
        let (step, command) = self.now.expect("a completion answers a command");
        let (facts, found) = match completion {
            Completion::Done(found) => (None, found),
            Completion::Facts(facts, found) => (Some(facts), found),
        };
        let mut broken = found.iter().any(is_lost);
        self.found.extend(found);
        if let Some(facts) = facts {
            broken |= self.compare(command, facts);
        }
        if broken && command != Command::RollBack {
            return self.go(step, Command::RollBack);
        }
        self.following(step, command)
    }

    fn compare(&mut self, command: Command, facts: Box<GuestFacts>) -> bool {
        let mut broken = false;
        match (command, &self.before, &self.after) {
            (Command::BootTarget, Some(before), _) => {
                let found = compare(before, &facts);
                broken = found.iter().any(|found| {
                    found.id == "guest.boots" && found.measure == Ok(Measure::Missing)
                });
                self.found.extend(found);
                self.after = Some(facts);
            }
            (Command::RestartTarget, _, Some(after)) => self.found.push(stable(after, &facts)),
            _ => self.before = Some(facts),
        }
        broken
    }

    fn following(&mut self, step: Step, command: Command) -> Next {
        match command {
            Command::TakeSourceFacts if self.copies_running => self.hop(0),
            Command::TakeSourceFacts => self.go(Step::Shutdown, Command::ShutDownSource),
            Command::ShutDownSource => self.hop(usize::from(self.copies_running)),
            Command::Hop(0) if self.copies_running => {
                self.go(Step::Shutdown, Command::ShutDownSource)
            }
            Command::Hop(done) => self.hop(done + 1),
            Command::CheckResources => self.go(Step::TargetConsistency, Command::CheckConsistency),
            Command::CheckConsistency => self.go(Step::Import, Command::Import),
            Command::Import => self.go(Step::Restart, Command::BootTarget),
            Command::BootTarget => self.go(Step::Restart, Command::PauseTarget),
            Command::PauseTarget => self.go(Step::Restart, Command::RestartTarget),
            Command::RestartTarget if self.failed_at_restart() => self.go(step, Command::RollBack),
            Command::RestartTarget | Command::RollBack => {
                self.now = None;
                Next::Finished
            }
        }
    }

    /// A machine that lost something it had (its address, its gateway) is taken back: its source serves again.
    fn failed_at_restart(&self) -> bool {
        self.found
            .iter()
            .any(|found| found.step == Step::Restart && is_lost(found))
    }

    fn hop(&mut self, number: usize) -> Next {
        if number < self.hops {
            return self.go(Step::Export, Command::Hop(number));
        }
        self.go(Step::TargetResources, Command::CheckResources)
    }

    fn go(&mut self, step: Step, command: Command) -> Next {
        self.now = Some((step, command));
        Next::Do(step, command)
    }
}
