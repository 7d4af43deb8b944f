//! The scenario: every decision of a run, as a value one can edit, store and paste.
//!
//! ```
//! use drylab_scenario::{Scenario, Token};
//!
//! let scenario = Scenario::from_toml(
//!     "format = 1\nguest = \"centos-6.3\"\nsource = \"esxi-5.0.0\"\ntarget = \"kvm-centos-6.3\"\nroute = \"esx-v2v\"\n",
//! )?;
//! let token = Token::of(&scenario);
//! assert_eq!(token.scenario()?, scenario);
//! # Ok::<(), drylab_scenario::ScenarioError>(())
//! ```
//!
//! * [`Scenario`]: the value; [`Scenario::from_toml`] and [`Scenario::to_toml`] are lossless, defaults left out.
//! * [`Token`]: the same content in one line, with a checksum.
//! * [`generate`]: seed to scenario, total.
//!
//! An unknown version is refused, never reinterpreted. What it does not do: run anything.

mod error;
pub mod fuzz;
mod generate;
mod token;
mod value;

pub use error::ScenarioError;
pub use generate::{RouteName, Vocabulary, generate};
pub use token::Token;
pub use value::{
    DescriptorEdit, Edit, Expect, Fault, FaultKind, FaultPlace, Import, Lab, Migration, Scenario,
    SourceVm, Step, TargetNetwork, TargetVm,
};
