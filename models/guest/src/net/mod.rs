//! How a guest gets onto the network: which driver takes an adapter, what it is called, which configuration matches,
//! and what the lab answers.
//!
//! * [`linux`]: names and configurations of a Linux guest, without packets.
//! * [`windows`]: what a Windows image says of its network.
//! * [`bring_up_linux`], [`bring_up_windows`]: a boot against a [`drylab_network::Lan`], with a [`NetReport`].

mod bringup;
mod bringup_dhclient;
mod bringup_linux;
mod bringup_windows;
pub mod fuzz;
pub mod linux;
pub mod windows;
mod windows_pnp;

pub use bringup::{FirewallFact, InterfaceFact, NetDecisions, NetReport, Origin, ProbeFact, Route};
pub use bringup_linux::bring_up_linux;
pub use bringup_windows::bring_up_windows;
