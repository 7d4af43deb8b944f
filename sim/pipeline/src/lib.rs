//! The seven steps of a migration.
//!
//! * [`Pipeline`]: the steps as a state machine without input or output; [`drive`] runs one against a [`BackEnd`].
//! * [`Policy`]: measured changes to scores, in one file; [`Check`], [`Overall`]: how they add up.
//! * [`routes`]: the committed route table.
//!
//! What it does not do: decide anything that is not in the scenario; draw randomness of its own.

mod check;
mod crossing;
mod facts;
mod lab;
mod library;
mod machine;
mod policy;
mod route;
mod run;

pub use check::{Check, Found, Overall, aggregate, overall};
pub use drylab_hypervisor::{Fact as ProductFact, LabFile};
pub use facts::{Fact, GuestFacts, Seen, compare, stable};
pub use lab::{CannotRun, PredictedFinding, Prediction, guest_key, predict, predict_package, run};
pub use library::{Library, SourceDisk, apply_edits};
pub use machine::{Command, Completion, Next, Pipeline};
pub use policy::{Level, Measure, Policy, Relaxation, Relaxed, Rule};
pub use route::{Hop, Route, Tools, routes, vocabulary};
pub use run::{BackEnd, LabState, RunReport, drive};
