//! The laws of the house: strategies, invariants, relations and the tests that hold it.
//!
//! ```
//! use drylab_kernel::Trace;
//! use drylab_pipeline::{Library, run};
//! use drylab_properties::INVARIANTS;
//! use drylab_scenario::Scenario;
//!
//! let scenario = Scenario::new("ubuntu-12.04", "kvm-centos-6.3", "kvm-centos-6.3", "kvm-native-define");
//! let report = run(&Library::new(), &scenario, Trace::new())?;
//! for invariant in INVARIANTS {
//!     (invariant.check)(&report).map_err(|why| format!("law {}: {why}", invariant.id))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`INVARIANTS`]: laws over one run; [`RELATIONS`]: laws over a run and a changed one. A campaign, a fuzz target and
//!   the tests use the same lists, so that a new law is added in one place.
//! * [`strategies`]: arbitrary checks and policies, and generated scenarios.
//!
//! Numbers are those of the list of laws in `README.md` of this folder. What it does not do: run anything by itself.

mod invariants;
mod relations;
pub mod strategies;

pub use invariants::{INVARIANTS, Invariant, missed};
pub use relations::{RELATIONS, Relation};
